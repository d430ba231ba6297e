//! T6, T8: `check`: each id, what it prints, its exit codes, and that it only reads.

use std::collections::BTreeSet;
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use aci_sync::commands::check::CHECKS;
use serde_json::{Value, json};
use sim::kube::{Credential, TOKEN};
use sim::net::{Fault, Trouble};
use sim::{apic, kube};

use crate::world::{E, World, output};

/// What a run of `check` printed to stdout, and its exit code. It must have sent nothing but reads, logins, logouts and
/// access reviews, and have left no session.
fn check(world: &World, words: &[&str], prepare: impl FnOnce(&mut Command)) -> (String, Option<i32>) {
    let mut command = world.command(&[&["check"], words].concat());
    prepare(&mut command);
    let done = output(command);
    only_reads(world);
    assert_eq!(world.apic.sessions(), 0, "the session was logged out");
    (String::from_utf8(done.stdout).unwrap(), done.status.code())
}

fn only_reads(world: &World) {
    let is_session = |path: &str| matches!(path, "/api/aaaLogin.json" | "/api/aaaLogout.json");
    for it in world.apic.journal() {
        assert!(it.method == "GET" || it.method == "POST" && is_session(&it.path), "{} {}", it.method, it.path);
    }
    let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    for it in world.kube.journal() {
        assert!(it.method == "GET" || it.method == "POST" && it.target == review, "{} {}", it.method, it.target);
    }
}

/// A Lease that another process holds; a free one if the identity is empty.
fn lease(world: &World, holder: &str) {
    let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": 15});
    world.kube.apply("leases", json!({"metadata": {"namespace": "kube-system", "name": "aci-sync"}, "spec": spec}));
}

/// A kubeconfig with a token that ends so many days from now.
fn token(world: &World, days: i64) {
    let token = sim::pki::jwt(days);
    world.kube.accept_tokens(&[&token]);
    world.folder.file("kubeconfig", &world.kube.kubeconfig(Credential::Token).replace(TOKEN, &token));
}

fn logins(world: &World) -> usize {
    world.apic.journal().iter().filter(|it| it.path == "/api/aaaLogin.json").count()
}

/// T6: if all is well, every id is ok, and the exit code is 0.
#[test]
fn a_good_world_is_all_ok() {
    World::both(|world| {
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        lease(world, "master-1_1");
        world.apic.deploy_l3out("uni/tn-T/out-L").unwrap();
        world.apic.deploy_l3out("uni/tn-T/out-M").unwrap();
        world.kube.server().show_date(0);
        world.apic.show_date(0);
        let listen = format!("unix:{}", world.folder.path().join("aci-sync.sock").display());
        // It writes nothing either.
        let mut daemon = world.run(&["--policy", "observe", "--events=false", "--listen", &listen]);
        daemon.until_logged("status server listening");
        let done = world.output(&["check", "T/M", "--leader-elect", "--listen", &listen]);
        let text = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.status.code(), Some(0), "{text}");
        only_reads(world);
        let lines: Vec<&str> = text.lines().collect();
        let (last, lines) = lines.split_last().unwrap();
        assert_eq!(*last, format!("0 failed, 0 warnings, {} ok, 0 skipped", lines.len()), "{text}");
        assert!(lines.iter().all(|it| it.starts_with("ok    ")), "{text}");
        let mut ids: Vec<&str> = lines.iter().map(|it| it.split_whitespace().nth(1).unwrap()).collect();
        ids.dedup();
        assert_eq!(ids, CHECKS.iter().map(|it| it.id).collect::<Vec<_>>());
        for line in [
            "ok    kube.rights     10 of 10 rights; no right on everything",
            "ok    kube.lists      all 3 kinds; workloads name 1 L3Out",
            "ok    apic.version    APIC 6.0(9c)",
            "ok    fabric.write    uni/tn-T: write privilege admin",
            "ok    fabric.vrf      uni/tn-T/out-L: uni/tn-T/ctx-V",
            "ok    fabric.vrf      uni/tn-T/out-M: uni/tn-T/ctx-V",
            "ok    apic.others     there is no other controller",
            "ok    fabric.deployed uni/tn-T/out-L: 1 path, 1 floating SVI, 2 BGP peers",
            "ok    fabric.faults   no fault F0467 about 1 EPG",
            "ok    daemon          Lease kube-system/aci-sync: held by master-1_1",
        ] {
            assert!(lines.contains(&line), "{line}\n{text}");
        }
        assert_eq!(daemon.stop().0, Some(0));
    });
}

/// One world with one flaw.
struct Case {
    /// The beginning of the line: status and id.
    line: &'static str,
    /// What the line says.
    says: &'static str,
    code: i32,
    words: &'static [&'static str],
    flaw: fn(&World, &mut Command),
}

const fn case(line: &'static str, says: &'static str, code: i32, flaw: fn(&World, &mut Command)) -> Case {
    Case { line, says, code, words: &["T/L"], flaw }
}

fn answer(target: &str, code: u16, body: &Value) -> Fault {
    Fault::on(target, Trouble::Answer(code, "application/json", body.to_string()))
}

/// The flaws; each id fails or warns at least once.
#[rustfmt::skip]
const CASES: &[Case] = &[
    case("FAIL  config", "ACI_SYNC_BATCH: \"0\" is not a number", 78, |_, it| { it.env("ACI_SYNC_BATCH", "0"); }),
    case("warn  config", "the rule \"Shop=T/L\" of --allow can never match", 0, |_, it| { it.env("ACI_SYNC_ALLOW", "Shop=T/L,shop=T/L"); }),
    case("warn  config", "not verified", 0, |_, it| { it.env_remove("ACI_SYNC_APIC_CA").env("ACI_SYNC_APIC_INSECURE", "true"); }),
    case("FAIL  secrets", "password: ", 78, |it, _| drop(it.folder.file("password", ""))),
    case("FAIL  secrets", "kubeconfig: ", 78, |it, _| drop(it.folder.file("kubeconfig", "{"))),
    case("ok    apic.login", "logged in as \"admin\"", 78, |it, _| drop(it.folder.file("kubeconfig", "{"))),
    case("warn  secrets", "can be read by other users", 0, |it, _| set_permissions(it.folder.path().join("password"), Permissions::from_mode(0o644)).unwrap()),
    case("FAIL  kube.reach", "failed to reach the API server", 1, |it, _| it.kube.server().pause()),
    case("ok    fabric.vrf", "uni/tn-T/ctx-V", 1, |it, _| it.kube.server().pause()),
    case("warn  kube.reach", "Kubernetes v1.19.9 is older than 1.20", 0, |it, _| it.kube.fault(answer("/version", 200, &json!({"gitVersion": "v1.19.9"})))),
    case("FAIL  kube.auth", "rejected the credentials (401)", 1, |it, _| it.kube.refuse_user("kubernetes-admin")),
    case("FAIL  kube.auth", "failed to read the cluster id", 1, |it, command| { it.kube.deny("get", "namespaces"); command.env_remove("ACI_SYNC_CLUSTER_ID"); }),
    case("FAIL  kube.rights", "denied: watch pods", 1, |it, _| it.kube.deny("watch", "pods")),
    case("FAIL  kube.rights", "denied: update leases.coordination.k8s.io/aci-sync in kube-system", 1, |it, command| { it.kube.deny("update", "leases"); command.env("ACI_SYNC_LEADER_ELECT", "true"); }),
    case("warn  kube.rights", "denied: create events.events.k8s.io", 0, |it, _| it.kube.deny("create", "events")),
    case("warn  kube.rights", "every right on everything", 0, |it, _| it.kube.allow("*", "*")),
    case("FAIL  kube.lists", "failed to list and watch objects of kind Service", 1, |it, _| it.kube.fault(answer("/services?", 403, &json!({"kind": "Status", "code": 403, "message": "no"})))),
    case("FAIL  kube.credential", "kubernetes_token: ended ", 1, |it, _| token(it, -3)),
    case("warn  kube.credential", "kubernetes_token: ends ", 0, |it, _| token(it, 29)),
    case("ok    kube.credential", "kubernetes_token: ends ", 0, |it, _| token(it, 365)),
    case("ok    kube.credential", "kubernetes_client_certificate: ends ", 0, |_, _| {}),
    case("ok    kube.credential", "no end is known", 0, |it, _| drop(it.folder.file("kubeconfig", &it.kube.kubeconfig(Credential::Token)))),
    case("skip  kube.clock", "no valid header Date", 0, |_, _| {}),
    case("warn  kube.clock", "s ahead of ours", 0, |it, _| it.kube.server().show_date(120)),
    case("FAIL  apic.reach", "failed to connect", 1, |it, _| it.apic.stop(0)),
    case("skip  fabric.vrf", "apic.login failed", 1, |it, _| it.apic.stop(0)),
    case("warn  apic.reach", "127.0.0.1:1: failed to connect", 0, |it, command| { command.env("ACI_APIC", format!("127.0.0.1:1,{}", it.apic.apic())); }),
    case("FAIL  apic.tls", "certificate not trusted", 1, |it, _| drop(it.folder.file("apic-ca.pem", &it.kube.ca_pem()))),
    case("warn  apic.clock", "s behind ours", 0, |it, _| it.apic.show_date(-120)),
    case("FAIL  apic.login", "Username or password is incorrect", 1, |it, _| it.apic.set_password("admin", "another")),
    case("warn  apic.login", "the APIC wants the password to be changed", 0, |it, _| it.apic.variants(|it| it.change_password = true)),
    case("FAIL  apic.websocket", "the APIC answers HTTP 405", 1, |it, _| it.apic.fault(Fault::on("/socket", Trouble::Answer(405, "text/html", String::new())))),
    case("FAIL  apic.websocket", "rejected by the APIC", 1, |it, _| it.apic.variants(|it| it.subscriptions_refused = true)),
    case("ok    apic.websocket", "opened; subscribed to uni/tn-T/out-L", 0, |it, _| it.apic.variants(|it| it.refresh_timeout_known = false)),
    Case { words: &[], ..case("ok    apic.websocket", "opened; there is no L3Out to subscribe to", 0, |_, _| {}) },
    case("FAIL  apic.version", "APIC 3.1(2m) has no annotations", 1, |it, _| it.apic.variants(|it| it.version = "3.1(2m)")),
    case("warn  apic.version", "APIC 4.2(3l) is older than 4.2(4)", 0, |it, _| it.apic.variants(|it| it.version = "4.2(3l)")),
    case("warn  apic.version", "unknown APIC release \"simsim\"", 0, |it, _| it.apic.variants(|it| it.version = "simsim")),
    case("warn  fabric.marks", "1 object with the annotation orchestrator:aci-k8-haystack", 0, |it, _| mark(it, "orchestrator:aci-k8-haystack")),
    case("warn  fabric.marks", "1 object with the annotation orchestrator:aci-sync:other", 0, |it, _| mark(it, "orchestrator:aci-sync:other")),
    case("ok    fabric.marks", "1 object with our owner annotation orchestrator:aci-sync:me", 0, |it, _| mark(it, "orchestrator:aci-sync:me")),
    Case { words: &["NONE/L"], ..case("FAIL  fabric.tenant", "uni/tn-NONE: not found", 1, |_, _| {}) },
    Case { words: &["NONE/L"], ..case("skip  fabric.l3out", "uni/tn-NONE/out-L: fabric.tenant failed", 1, |_, _| {}) },
    Case { words: &["T/NONE"], ..case("FAIL  fabric.l3out", "uni/tn-T/out-NONE: not found", 1, |_, _| {}) },
    Case { words: &["T/NONE", "T/L"], ..case("skip  fabric.vrf", "uni/tn-T/out-NONE: fabric.l3out failed", 1, |_, _| {}) },
    Case { words: &[], ..case("skip  fabric.tenant", "no workload names an L3Out", 0, |_, _| {}) },
    case("FAIL  fabric.write", "uni/tn-T: read only", 1, |it, _| it.apic.variants(|it| it.write_privileges = Some("tenant-security,ops"))),
    case("ok    fabric.write", "write privilege tenant-ext-connectivity", 0, |it, _| it.apic.variants(|it| it.write_privileges = Some("ops|tenant-ext-connectivity"))),
    case("warn  fabric.write", "does not say whether the user may write", 0, |it, _| it.apic.variants(|it| it.write_privileges = None)),
    case("warn  fabric.vrf", "uni/tn-T/out-L: ", 0, |it, _| it.apic.set("uni/tn-T/out-L/rsectx", "l3extRsEctx", &[("tnFvCtxName", "NONE")]).unwrap()),
    case("warn  fabric.deployed", "uni/tn-T/out-L: no path, no floating SVI and no BGP peer", 0, |_, _| {}),
    case("warn  fabric.faults", "uni/tn-T/out-L/instP-E: fault F0467 (1 time)", 0, |it, _| fault(it)),
    case("ok    fabric.faults", "no fault F0467 about 1 EPG", 0, |it, _| ended_fault(it)),
    case("ok    fabric.faults", "no fault F0467 about 1 EPG", 0, |it, _| other_fault(it)),
    case("skip  fabric.faults", "no workload names an EPG", 0, |_, _| {}),
    Case { words: &["T/L", "--default-l3out", "T/M"], ..case("warn  discovery", "no Pod names the address of a node", 0, |_, _| {}) },
    case("warn  daemon", "Lease kube-system/aci-sync: no process holds it", 0, |it, command| { lease(it, ""); command.env("ACI_SYNC_LEADER_ELECT", "true"); }),
    case("warn  daemon", "Lease kube-system/aci-sync: no process holds it", 0, |_, command| { command.env("ACI_SYNC_LEADER_ELECT", "true"); }),
    case("ok    daemon", "Lease kube-system/aci-sync: held by other", 0, |it, command| { lease(it, "other"); command.env("ACI_SYNC_LEADER_ELECT", "true"); }),
    case("warn  daemon", "no daemon answers", 0, |_, _| {}),
];

fn mark(world: &World, annotation: &str) {
    world.apic.set("uni/tn-T/out-L/instP-X", "l3extInstP", &[("annotation", annotation)]).unwrap();
}

/// The EPG that a Deployment names has a prefix that another EPG had first.
fn fault(world: &World) {
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    for name in ["X", "E"] {
        let subnet = json!({"l3extSubnet": {"attributes": {"ip": "10.0.0.1/32"}}});
        let epg = json!({"l3extInstP": {"attributes": {"name": name}, "children": [subnet]}});
        world.apic.admin_post("uni/tn-T/out-L", &epg).unwrap();
    }
}

/// It had, and the fabric still shows the fault.
fn ended_fault(world: &World) {
    world.apic.variants(|it| it.faults_retained = true);
    fault(world);
    world.apic.admin_delete("uni/tn-T/out-L/instP-X").unwrap();
    assert_eq!(world.apic.class("faultInst").len(), 1);
}

/// A fault of the same code with another cause.
fn other_fault(world: &World) {
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.apic.raise_fault("uni/tn-T/out-L/instP-E", "encap-already-in-use", "Encap Already Used in Another EPG");
}

/// T6, A4: each id finds its flaw, says so in one line, and with a fix if something is to be done. One login at most is
/// sent, also if it is refused.
#[test]
fn each_id_finds_its_flaw() {
    let examine = |case: &Case| {
        let world = World::new();
        let (text, code) = check(&world, case.words, |command| (case.flaw)(&world, command));
        assert_eq!(code, Some(case.code), "{} {}\n{text}", case.line, case.says);
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|it| {
            let is_id = it.strip_prefix(case.line).is_some_and(|rest| rest.starts_with(' '));
            is_id && it.contains(case.says)
        });
        let at = at.unwrap_or_else(|| panic!("{} {}\n{text}", case.line, case.says));
        let has_fix = lines[at + 1].starts_with("      fix: ");
        assert_eq!(has_fix, case.line.starts_with("FAIL") || case.line.starts_with("warn"), "{text}");
        assert!(lines.last().unwrap().ends_with(" skipped"), "{text}");
        assert!(!text.contains(world.apic.password()), "{text}");
        assert!(logins(&world) <= 1, "{text}");
    };
    for cases in CASES.chunks(4) {
        std::thread::scope(|scope| cases.iter().for_each(|case| drop(scope.spawn(|| examine(case)))));
    }
    let flawed = CASES.iter().filter(|it| it.line.starts_with("FAIL") || it.line.starts_with("warn"));
    let mut ids: BTreeSet<&str> = flawed.map(|it| it.line[6..].trim()).collect();
    ids.insert("apic.others"); // It needs several controllers: below.
    assert_eq!(ids, CHECKS.iter().map(|it| it.id).collect(), "each id fails or warns at least once");
}

/// T6: a certificate that ends soon is a warning.
#[test]
fn a_certificate_that_ends_soon_is_a_warning() {
    let authority = sim::pki::Authority::new("our-ca");
    let identity = Some(authority.server_for(&["127.0.0.1"], 5));
    let fabric = apic::Options { authority: Some(authority), identity, ..apic::Options::default() };
    let world = World::with(kube::Options::default(), fabric);
    let (text, code) = check(&world, &["T/L"], |_| {});
    assert!(code == Some(0) && text.contains("warn  apic.tls "), "{text}");
    assert!(text.contains("days)\n      fix: renew the certificate"), "{text}");
}

/// T6, W8: a refused login is sent once, although there are three controllers and each would answer.
#[test]
fn a_refused_login_is_not_tried_elsewhere() {
    let world = World::with(kube::Options::default(), apic::Options { controllers: 3, ..apic::Options::default() });
    world.apic.set_password("admin", "another");
    let (text, code) = check(&world, &["T/L"], |_| {});
    assert!(code == Some(1) && text.contains("FAIL  apic.login "), "{text}");
    assert_eq!(logins(&world), 1);
    let tried: BTreeSet<usize> = world.apic.journal().iter().map(|it| it.controller).collect();
    assert_eq!(tried.len(), 3, "all three were looked at");
}

/// T6: one that has ended is a failure, as the daemon would not trust it, and with its fingerprint a warning.
#[test]
fn a_certificate_that_has_ended_fails() {
    let authority = sim::pki::Authority::new("our-ca");
    let identity = Some(authority.expired_server(&["127.0.0.1"]));
    let fabric = apic::Options { authority: Some(authority), identity, ..apic::Options::default() };
    let world = World::with(kube::Options::default(), fabric);
    let (text, code) = check(&world, &["T/L"], |_| {});
    assert!(code == Some(1) && text.contains("FAIL  apic.tls "), "{text}");
    let (text, code) = check(&world, &["T/L"], |command| {
        command.env_remove("ACI_SYNC_APIC_CA").env("ACI_SYNC_APIC_FINGERPRINT", world.apic.fingerprint());
    });
    assert!(code == Some(0) && text.contains("certificate accepted; it ended "), "{text}");
}

/// T6, W8: the other controllers are logged in at, apart from one another, and no login follows a refused one.
#[test]
fn other_controllers_are_tried_once() {
    let world = World::with(kube::Options::default(), apic::Options { controllers: 4, ..apic::Options::default() });
    let (text, code) = check(&world, &["T/L"], |_| {});
    assert_eq!((code, text.matches("ok    apic.others ").count()), (Some(0), 3), "{text}");
    let journal = world.apic.journal();
    let logins_at: Vec<Instant> = journal.iter().filter(|it| it.path == "/api/aaaLogin.json").map(|it| it.at).collect();
    assert!(logins_at.windows(2).all(|it| it[1] - it[0] >= Duration::from_millis(600)), "{logins_at:?}");

    let refusal =
        json!({"imdata": [{"error": {"attributes": {"code": "401", "text": "Username or password is incorrect"}}}]});
    world.apic.fault_at(2, answer("aaaLogin", 401, &refusal));
    let (text, code) = check(&world, &["T/L"], |_| {});
    let lines: Vec<&str> = text.lines().filter(|it| it.contains(" apic.others ")).map(|it| &it[..4]).collect();
    assert_eq!((code, lines), (Some(0), vec!["ok  ", "warn", "skip"]), "{text}");
    assert_eq!((world.apic.troubled(), logins(&world)), (1, 4 + 2), "{text}");
}

/// T6: one namespace that names very many L3Outs costs requests for 20 of them, those that others name are looked at all the
/// same, and one line has the number of the rest.
#[test]
fn one_namespace_cannot_make_it_long() {
    let world = World::new();
    let invented = |n: usize| format!(r#"{{"tenant":"A{n:02}","l3out":"L","epg":"E"}}"#);
    (0..60).for_each(|n| drop(world.kube.deploy("loud", &format!("web{n}"), Some(&invented(n)), &[])));
    world.kube.deploy("quiet", "web", Some(E), &[]);
    let (text, code) = check(&world, &["A50/L", "A05/L"], |_| {});
    assert_eq!(code, Some(1), "{text}");
    for line in [
        "ok    kube.lists      all 3 kinds; workloads name 61 L3Outs",
        "warn  kube.lists      39 L3Outs not looked at: at most 20 of a namespace are, and namespace loud names 60",
        "ok    fabric.l3out    uni/tn-T/out-L: found",
        "FAIL  fabric.tenant   uni/tn-A19: not found",
        "FAIL  fabric.tenant   uni/tn-A50: not found",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    let lines_of = |id: &str| text.lines().filter(|it| it.split_whitespace().nth(1) == Some(id)).count();
    for id in ["fabric.tenant", "fabric.l3out", "fabric.write", "fabric.vrf", "fabric.deployed"] {
        assert_eq!(lines_of(id), 22, "{id}\n{text}");
    }
    let asked = world.apic.journal().iter().filter(|it| it.path.starts_with("/api/mo/uni/tn-A")).count();
    assert!(asked <= 22 + 1, "one read a tenant, and the subscription: {asked}");
}

/// T6, W8: a login whose answer is lost is sent once, and the login at the next controller is the session.
#[test]
fn a_login_without_an_answer_is_not_repeated() {
    let world = World::with(kube::Options::default(), apic::Options { controllers: 3, ..apic::Options::default() });
    let lost = |trouble| Fault { times: Some(1), ..Fault::on("aaaLogin", trouble) };
    for trouble in [Trouble::LoseAnswer, Trouble::CutAfter(60)] {
        world.apic.clear_journal();
        world.apic.fault_at(0, lost(trouble));
        let text = String::from_utf8(world.output(&["check", "T/L"]).stdout).unwrap();
        let lines: Vec<&str> = text.lines().filter(|it| it.contains(" apic.others ")).collect();
        assert!(lines.len() == 2 && lines[0].starts_with("warn ") && lines[1].starts_with("ok   "), "{text}");
        assert!(lines[0].ends_with("no valid answer to the login of apic.login; not tried again"), "{text}");
        let journal = world.apic.journal();
        let logins = journal.iter().filter(|it| it.path == "/api/aaaLogin.json").map(|it| it.controller);
        assert_eq!(logins.collect::<Vec<_>>(), [0, 1, 2], "{text}");
    }
}

/// T6, X3: a controller that makes the TLS handshake and then says nothing costs ten seconds.
#[test]
fn a_silent_controller_holds_nothing_up() {
    let world = World::new();
    world.apic.fault(Fault::on("aaaListDomains", Trouble::Hang));
    let begun = Instant::now();
    let (text, code) = check(&world, &["T/L"], |_| {});
    assert!(code == Some(0) && text.contains("ok    apic.login "), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{text}");
}

/// T6, T8: `-o json` prints one object, whatever the exit code.
#[test]
fn json_is_one_object() {
    let world = World::new();
    let run = |words: &[&str]| {
        let (text, code) = check(&world, &[words, &["-o", "json"]].concat(), |_| {});
        assert_eq!(text.lines().count(), 1, "{text}");
        (serde_json::from_str::<Value>(&text).unwrap(), code)
    };
    let (report, code) = run(&["T/L", "T/NONE"]);
    assert_eq!((code, &report["schema"], &report["result"]), (Some(1), &"aci-sync.check.v1".into(), &"fail".into()));
    let checks = report["checks"].as_array().unwrap();
    let count = |status: &str| checks.iter().filter(|it| it["status"] == status).count();
    let counts = json!({"ok": count("ok"), "warn": count("warn"), "fail": count("fail"), "skip": count("skip")});
    assert_eq!(report["counts"], counts);
    let expected = json!({
        "id": "fabric.l3out", "subject": "uni/tn-T/out-NONE", "status": "fail", "text": "not found",
        "fix": "create the L3Out, or correct its name",
    });
    assert!(checks.contains(&expected), "{report}");
    let (report, code) = run(&["T/L"]);
    assert_eq!((code, &report["result"]), (Some(0), &"warn".into()));
}

/// X4: arguments that name no L3Out are errors of the command line, before the first request.
#[test]
fn arguments_are_l3outs() {
    let world = World::new();
    for (words, complaint) in [
        (&["T"][..], "it is not TENANT/L3OUT"),
        (&["T/L/E"], "the L3Out may have only"),
        (&["T x/L"], "the tenant may have only"),
        (&["T/L", "-o", "yaml"], "\"yaml\" is neither text nor json"),
    ] {
        let done = world.output(&[&["check"], words].concat());
        let error = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.code() == Some(64) && error.contains(complaint), "{words:?}: {error}");
    }
    assert!(world.apic.journal().is_empty() && world.kube.journal().is_empty());
}
