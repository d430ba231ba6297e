//! T11, T8: what `purge` deletes, after which consent, and the undo file. When it refuses is in `purge_refusals`.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use sim::apic::Variants;
use sim::kube::Credential;
use sim::net::{Fault, Trouble};
use sim::pki::KeyForm;
use sim::{apic, kube};

use crate::plan_output::Hand;
use crate::world::{DN_E, DN_F, Daemon, E, F, MARK, World, output, side_by_side};

/// The mark of the Python application.
const PYTHON: &str = "orchestrator:aci-k8-haystack";
/// The owner annotation of another cluster, whose id begins with ours.
const OTHER: &str = "orchestrator:aci-sync:me.too";

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs `purge`, which must end with this exit code.
#[track_caller]
pub fn purge(world: &World, words: &[&str], code: i32) -> Output {
    let before = world.apic.sessions();
    let done = world.output(&[&["purge"], words].concat());
    assert_eq!(done.status.code(), Some(code), "{}{}", stdout(&done), stderr(&done));
    assert_eq!(world.apic.sessions(), before, "the session was logged out");
    done
}

/// The JSON that it prints, whatever its exit code.
#[track_caller]
fn purge_json(world: &World, words: &[&str], code: i32) -> Value {
    let done = purge(world, &[&["-o", "json"], words].concat(), code);
    let out = stdout(&done);
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

/// What aci-sync made for two Deployments: `E` with two subnets, `F` with one.
pub fn in_sync(world: &World) {
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
    world.kube.deploy("a", "front", Some(F), &["10.0.1.1"]);
    assert_eq!(world.output(&["run", "--once"]).status.code(), Some(0));
    world.apic.clear_journal();
}

fn epg(world: &World, name: &str, annotation: &str, subnets: &[(&str, &str)]) {
    let subnet = |(ip, mark): &(&str, &str)| json!({"l3extSubnet": {"attributes": {"ip": ip, "annotation": mark}}});
    let children: Vec<Value> = subnets.iter().map(subnet).collect();
    let attributes = json!({"name": name, "annotation": annotation});
    world
        .apic
        .admin_post("uni/tn-T/out-L", &json!({"l3extInstP": {"attributes": attributes, "children": children}}))
        .unwrap();
}

fn is_there(world: &World, epg: &str) -> bool {
    world.apic.get(&format!("uni/tn-T/out-L/instP-{epg}")).is_some()
}

fn writes(world: &World) -> Vec<String> {
    world.writes()
}

/// T11: without consent there is the plan and exit code 2: no terminal and no `--yes`, or the policy `observe`. The plan has
/// the contract relations that go with an EPG, and the Deployments that still name it. `--yes` is no setting.
#[test]
fn without_consent_there_is_a_plan() {
    let world = World::new();
    in_sync(&world);
    let contract = json!({"fvRsProv": {"attributes": {"tnVzBrCPName": "web"}}});
    world.apic.admin_post(DN_E, &contract).unwrap();
    let plan = "L3Out uni/tn-T/out-L\n  EPG E\n    - EPG  (purge; deleted with 2 owned subnets)\n    - rsprov-web  (contract relation of the EPG)\n  EPG F\n    - EPG  (purge; deleted with 1 owned subnet)\n\
        warning: 2 workloads still name these EPGs; the next aci-sync creates again what is deleted, without contracts\n\
        Plan: 0 to create, 0 to change, 5 to delete.\nNothing was deleted: ";
    let text = stdout(&purge(&world, &[], 2));
    assert_eq!(text, format!("{plan}there is no terminal to ask for consent, and no --yes.\n"));
    let text = stdout(&purge(&world, &["--yes", "--policy", "observe"], 2));
    assert_eq!(text, format!("{plan}the policy is observe; give --policy sync.\n"));
    let refused = purge(&world, &["--yes", "--policy", "upsert-only"], 78);
    assert!(stderr(&refused).contains("--policy is upsert-only"), "{}", stderr(&refused));

    for name in ["ACI_SYNC_YES", "ACI_SYNC_LEGACY"] {
        let mut command = world.command(&["purge"]);
        command.env(name, "true");
        let done = output(command);
        assert!(done.status.code() == Some(64) && stderr(&done).contains("unknown variable"), "{}", stderr(&done));
    }
    assert_eq!(world.output(&["run", "--yes"]).status.code(), Some(64));
    let typo = stderr(&purge(&world, &["T/TYPO"], 0));
    assert!(typo.contains("warning: L3Out uni/tn-T/out-TYPO does not exist"), "{typo}");
    let none = purge_json(&world, &["T/M"], 0);
    assert_eq!((&none["result"], &none["undo"], &none["changes"]), (&json!("purged"), &json!([]), &json!([])));
    assert_eq!(writes(&world), [""; 0]);
    let leases = world.kube.journal().into_iter().filter(|it| it.target.contains("/leases"));
    assert_eq!(leases.filter(|it| it.method != "GET").count(), 0, "the Lease is taken for a deletion only");
}

/// T11, T8: everything with exactly our owner annotation goes, and our tags; nothing else is written to. What is deleted is in
/// the JSON as POSTs that bring all of it back, with what people had added. A second run finishes, a third one finds nothing.
fn everything_of_ours_goes_and_can_come_back(variants: Variants) {
    let options = apic::Options { variants, ..apic::Options::default() };
    let world = &World::with(kube::Options::default(), options);
    epg(world, "USED", "", &[]);
    epg(world, "THEIRS", OTHER, &[("10.9.0.1/32", OTHER), ("10.9.0.2/32", "")]);
    epg(world, "PYTHON", PYTHON, &[("10.9.1.1/32", PYTHON)]);
    let used = json!({"tenant": "T", "l3out": "L", "epg": "USED"}).to_string();
    world.kube.deploy("a", "guest", Some(&used), &["10.0.2.1", "10.0.2.2"]);
    in_sync(world);
    world
        .apic
        .admin_post(DN_E, &json!({"fvRsProv": {"attributes": {"tnVzBrCPName": "web", "prio": "level2"}}}))
        .unwrap();
    world.apic.admin_post(DN_E, &json!({"tagAnnotation": {"attributes": {"key": "k", "value": "v"}}})).unwrap();
    world.apic.set(DN_E, "l3extInstP", &[("descr", "the shop")]).unwrap();
    world.apic.set(&format!("{DN_F}/extsubnet-[10.9.2.1/32]"), "l3extSubnet", &[("descr", "by hand")]).unwrap();
    let tags = || world.apic.class("tagAnnotation").into_keys().filter(|it| it.contains("aci-sync:me:")).count();
    assert_eq!(tags(), 1);
    world.apic.clear_journal();
    let hand = Hand::of(world);
    let before = hand.configuration();

    let planned = purge_json(world, &[], 2);
    let file = purge_json(world, &["--yes"], 1);
    assert_eq!((&file["schema"], &file["cluster_id"]), (&json!("aci-sync.purge.v1"), &json!("me")));
    assert_eq!(file["counts"], json!({"delete": 7, "relations": 1, "workloads": 3}));
    assert_eq!((&file["deleted"], &file["left"], &file["result"]), (&json!(7), &json!([DN_F]), &json!("left")));
    assert_eq!(file["findings"][0]["code"], "EpgRetained");
    let deleted = file["changes"].as_array().unwrap().iter().find(|it| it["dn"] == DN_E).unwrap();
    assert_eq!(
        *deleted,
        json!({"action": "delete", "class": "l3extInstP", "dn": DN_E, "why": "purge", "subnets": 2,
            "relations": ["rsprov-web"], "before": {"name": "E", "annotation": MARK}, "after": null})
    );
    assert_eq!((&planned["changes"], &planned["undo"]), (&file["changes"], &file["undo"]));

    let journal = world.writes();
    let ours = |it: &String| {
        let is_ours = ["out-L.json", "instP-USED/extsubnet-[10.0.2.", "annotationKey-[aci-sync:me:"];
        is_ours.iter().any(|part| it.contains(part))
    };
    assert!(journal.iter().all(ours), "{journal:#?}");
    assert_eq!(world.apic.bearing(MARK), [DN_F]);
    assert!(is_there(world, "USED") && world.subnets("USED").is_empty() && tags() == 0);
    assert_eq!(world.subnets("THEIRS").len(), 2);
    assert!(world.holds("PYTHON", &["10.9.1.1"]) && world.holds("F", &["10.9.2.1"]));

    let undo: Vec<Value> = file["undo"].as_array().unwrap().clone();
    hand.post(&json!(undo));
    assert_eq!(hand.configuration(), before);
    assert!(world.apic.get(&format!("{DN_E}/rsprov-web")).is_some(), "the contract is back");

    world.apic.admin_delete(&format!("{DN_F}/extsubnet-[10.9.2.1/32]")).unwrap();
    let text = stdout(&purge(world, &["--yes"], 0));
    assert!(text.contains(&format!("deleted EPG {DN_E} with 2 subnets and 1 contract relation\n")), "{text}");
    assert!(text.contains("deleted 2 subnets in uni/tn-T/out-L/instP-USED, and the tag about "), "{text}");
    assert!(text.ends_with("8 objects deleted; nothing is left.\n"), "{text}");
    assert!(world.apic.bearing(MARK).is_empty());
    assert_eq!(world.apic.bearing(OTHER).len(), 2);
    assert_eq!(stdout(&purge(world, &["--yes"], 0)), "Nothing to delete, and nothing is left.\n");
}

/// T11: the smallest EPG goes first; arguments narrow it.
fn the_smallest_goes_first_and_arguments_narrow() {
    let world = World::new();
    in_sync(&world);
    let elsewhere = json!({"tenant": "T", "l3out": "M", "epg": "X"}).to_string();
    world.kube.deploy("a", "elsewhere", Some(&elsewhere), &[]);
    assert_eq!(world.output(&["run", "--once"]).status.code(), Some(0));
    let text = stdout(&purge(&world, &["T/L", "--yes"], 0));
    let lines: Vec<&str> = text.lines().filter(|it| it.starts_with("deleted EPG")).collect();
    let line = |dn: &str, subnets: &str| format!("deleted EPG {dn} with {subnets} and 0 contract relations");
    assert_eq!(lines, [line(DN_F, "1 subnet"), line(DN_E, "2 subnets")], "{text}");
    assert_eq!(world.apic.bearing(MARK), ["uni/tn-T/out-M/instP-X"]);
}

/// T11: with `--keep-contracted` an EPG with contract relations stays, empty, and is left.
fn contracted_epgs_can_stay() {
    let world = World::new();
    in_sync(&world);
    world.apic.admin_post(DN_E, &json!({"fvRsCons": {"attributes": {"tnVzBrCPName": "db"}}})).unwrap();
    let text = stdout(&purge(&world, &["--yes", "--keep-contracted", "--batch", "1"], 1));
    assert!(
        text.contains(&format!("finding: EpgRetained {DN_E}: the EPG stays: it has 1 contract relation")),
        "{text}"
    );
    assert!(text.contains(&format!("deleted 2 subnets in {DN_E}\n")), "{text}");
    assert!(text.ends_with(&format!("4 objects deleted, 1 left: {DN_E}.\n")), "{text}");
    assert!(world.holds("E", &[]) && !is_there(&world, "F"));
    assert!(world.apic.get(&format!("{DN_E}/rscons-db")).is_some());
}

/// T11, O3: `--legacy` takes the objects of the Python application and of each `--adopt-id`, in named L3Outs only. Our own
/// objects there go with them.
fn legacy_objects_need_named_l3outs() {
    let world = World::new();
    in_sync(&world);
    let old = "orchestrator:aci-sync:old";
    epg(&world, "PYTHON", PYTHON, &[("10.9.1.1/32", PYTHON), ("10.9.1.2/32", old)]);
    epg(&world, "OLD", old, &[("10.9.2.1/32", old)]);
    epg(&world, "MIXED", PYTHON, &[("10.9.3.1/32", PYTHON), ("10.9.3.2/32", OTHER)]);
    let other_l3out = json!({"l3extInstP": {"attributes": {"name": "THERE", "annotation": PYTHON}}});
    world.apic.admin_post("uni/tn-T/out-M", &other_l3out).unwrap();
    let tag = json!({"tagAnnotation": {"attributes": {"key": "aci-sync:old:GONE", "value": "x"}}});
    world.apic.admin_post("uni/tn-T/out-L", &tag).unwrap();
    world.apic.clear_journal();

    let refused = purge(&world, &["--legacy", "--yes"], 64);
    assert!(stderr(&refused).contains("needs TENANT/L3OUT arguments"), "{}", stderr(&refused));
    let plan = stdout(&purge(&world, &["--adopt-id", "old"], 2));
    assert!(plan.contains(", 5 to delete") && !plan.contains("10.9."), "without --legacy only ours: {plan}");
    let plan = stdout(&purge(&world, &["--legacy", "T/L"], 2));
    assert!(plan.contains("    - 10.9.1.1/32  was \"\"  (purge of a legacy object)\n"), "{plan}");
    assert!(plan.contains(", 7 to delete") && !plan.contains("EPG OLD"), "without --adopt-id: {plan}");
    assert_eq!(writes(&world), [""; 0]);

    let file = purge_json(&world, &["--legacy", "--adopt-id", "old", "T/L", "--yes"], 1);
    assert_eq!((&file["deleted"], &file["left"]), (&json!(12), &json!(["uni/tn-T/out-L/instP-MIXED"])), "{file:#}");
    let before = file["changes"].as_array().unwrap().iter().find(|it| it["dn"] == "uni/tn-T/out-L/instP-OLD").unwrap();
    assert_eq!((&before["before"], &before["why"]), (&json!({"name": "OLD"}), &json!("purge of a legacy object")));
    assert!(["E", "F", "PYTHON", "OLD"].iter().all(|it| !is_there(&world, it)));
    assert_eq!(world.subnets("MIXED"), BTreeSet::from(["10.9.3.2/32".to_owned()]));
    assert_eq!(world.apic.get("uni/tn-T/out-L/instP-MIXED").unwrap()["annotation"], PYTHON);
    assert!(world.apic.get("uni/tn-T/out-M/instP-THERE").is_some());
    assert!(!world.apic.class("tagAnnotation").keys().any(|it| it.contains("aci-sync:old:")));
}

/// `purge` on a terminal, on which this is typed.
fn typed(world: &World, words: &str, answer: &str) -> (Option<i32>, String) {
    let plain = world.command(&[]);
    let program = plain.get_program().to_str().unwrap();
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &format!("{program} purge {words}"), "/dev/null"]);
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(answer.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    (done.status.code(), stdout(&done))
}

/// T11: on a terminal the number of objects has to be typed, and nothing else will do.
fn a_terminal_asks_for_the_number() {
    let world = World::new();
    in_sync(&world);
    for answer in ["y", "4", "05", "-5"] {
        let (code, text) = typed(&world, "", &format!("{answer}\n"));
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("To delete these 5 objects, type their number: "), "{text}");
        assert!(text.contains(&format!("{answer:?} is not the number of objects.")), "{text}");
    }
    assert_eq!(writes(&world), [""; 0]);
    let (code, text) = typed(&world, "", "5\n");
    assert!(code == Some(0) && text.contains("5 objects deleted; nothing is left."), "{code:?} {text}");
}

/// T11: without a cluster and without an id, the sentence lists the ids on the fabric; one of them is enough then.
fn a_cluster_that_is_gone_is_purged_by_its_id() {
    let world = World::new();
    in_sync(&world);
    epg(&world, "THEIRS", OTHER, &[]);
    epg(&world, "PYTHON", PYTHON, &[]);
    let kubeconfig = world.kube.kubeconfig(Credential::Certificate(KeyForm::Sec1));
    world.folder.file("kubeconfig", &kubeconfig.replace(&world.kube.url(), "https://127.0.0.1:1"));
    let mut command = world.command(&["purge", "--yes", "-o", "json"]);
    command.env_remove("ACI_SYNC_CLUSTER_ID");
    let done = output(command);
    assert_eq!(done.status.code(), Some(78), "{}", stderr(&done));
    let sentence = stderr(&done);
    assert!(
        sentence.contains("give --cluster-id; the ids on the fabric: me (5 objects), me.too (1 object)"),
        "{sentence}"
    );
    let failed: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&failed["schema"], &failed["result"]), (&json!("aci-sync.purge.v1"), &json!("failed")));
    assert_eq!(writes(&world), [""; 0]);

    let planned = purge(&world, &[], 2);
    assert!(stderr(&planned).contains("the Lease cannot be looked at: failed to reach"), "{}", stderr(&planned));
    let mut command = world.command(&["purge", "--yes"]);
    command.env("ACI_SYNC_KUBECONFIG", "/dev/null");
    let done = output(command);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(stderr(&done).contains("the Lease cannot be looked at"), "{}", stderr(&done));
    assert!(world.apic.bearing(MARK).is_empty() && is_there(&world, "THEIRS") && is_there(&world, "PYTHON"));
}

/// T11: a signal ends it between two requests with what is left; a second run continues.
fn an_interrupted_run_is_continued() {
    let world = World::new();
    in_sync(&world);
    let mut run = Daemon::start(world.command(&["purge", "--yes"]));
    run.until_logged("waiting 10 s");
    run.signal("INT");
    assert_eq!(run.wait().code(), Some(1));
    let text = run.text("out");
    assert!(text.contains("2 objects deleted, 3 left: ") && text.contains("A second run continues."), "{text}");
    assert!(is_there(&world, "E") && !is_there(&world, "F") && world.apic.sessions() == 0);
    assert_eq!(world.kube.get("leases", "kube-system", "aci-sync").unwrap()["spec"]["holderIdentity"], "");
    assert!(stdout(&purge(&world, &["--yes"], 0)).ends_with("3 objects deleted; nothing is left.\n"));
}

/// T11, W1, W7: a class query or an L3Out that is not whole, and an EPG that the APIC does not show, delete nothing. An EPG
/// that changes after it was shown is left, the others go.
#[test]
fn nothing_goes_on_an_incomplete_view() {
    let world = World::new();
    in_sync(&world);
    let partial =
        json!({"totalCount": "3", "imdata": [{"l3extInstP": {"attributes": {"dn": DN_E, "annotation": MARK}}}]});
    for target in ["/api/class/l3extInstP.json", "/api/mo/uni/tn-T/out-L.json"] {
        let answer = Trouble::Answer(200, "application/json", partial.to_string());
        world.apic.fault(Fault::on(target, answer).times(1));
        let done = purge(&world, &["--yes"], 1);
        assert!(stderr(&done).contains("incomplete, with 1 of "), "{}", stderr(&done));
    }
    assert_eq!(writes(&world), [""; 0]);

    let late = json!({"l3extSubnet": {"attributes": {"ip": "10.0.0.9/32", "annotation": MARK}}});
    world.apic.then("GET", "instP-F.json", move |apic| apic.admin_post(DN_E, &late).unwrap());
    world.apic.forbid(DN_F, None);
    let text = stdout(&purge(&world, &["--yes"], 1));
    assert!(text.contains(&format!("not deleted: {DN_F}: missing APIC privilege")), "{text}");
    assert!(text.contains(&format!("not deleted: {DN_E}: it has changed since it was shown")), "{text}");
    assert!(text.contains("0 objects deleted, 6 left: "), "{text}");
    assert_eq!(world.apic.bearing(MARK).len(), 6);
}

/// T11, W7: a deletion whose answer is lost is looked up, not sent again.
fn a_lost_answer_is_looked_up() {
    let world = World::new();
    in_sync(&world);
    world.apic.fault(Fault::on("out-L.json", Trouble::LoseAnswer).method("POST").times(2));
    let text = stdout(&purge(&world, &["--yes"], 0));
    assert!(text.ends_with("5 objects deleted; nothing is left.\n"), "{text}");
    assert_eq!(world.writes().len(), 2);
}

/// T11, T8: if the undo cannot be written, nothing is deleted.
#[test]
fn without_an_undo_file_nothing_is_deleted() {
    let world = World::new();
    in_sync(&world);
    let mut command = world.command(&["purge", "--yes", "-o", "json"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let done = command.stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert!(
        done.status.code() == Some(1) && stderr(&done).contains("failed to write the undo file"),
        "{}",
        stderr(&done)
    );
    assert_eq!(writes(&world), [""; 0]);
}

/// The blocks of code in `docs/purge.md` that begin with these words.
fn documented(begin: &str) -> String {
    let text = std::fs::read_to_string("docs/purge.md").unwrap();
    let mut blocks = text.split("\n```").skip(1).step_by(2).filter_map(|it| it.split_once('\n')).map(|it| it.1);
    blocks.find(|it| it.starts_with(begin)).unwrap().trim_end().to_owned()
}

/// T11: docs/purge.md shows what `purge` prints.
fn the_document_shows_a_real_purge() {
    let world = World::new();
    world.apic.setup_tenant("TEN_SHOP", "VRF", &["L3O_SHOP"]).unwrap();
    let epg = |name: &str| json!({"tenant": "TEN_SHOP", "l3out": "L3O_SHOP", "epg": name}).to_string();
    world.kube.deploy("shop", "web", Some(&epg("EPG_WEB")), &["10.244.1.14"]);
    world.kube.deploy("shop", "db", Some(&epg("EPG_DB")), &["10.244.1.15", "10.244.1.16"]);
    let id = ["--cluster-id", "prod-1"];
    assert_eq!(world.output(&[&["run", "--once"], &id[..]].concat()).status.code(), Some(0));
    let dn = "uni/tn-TEN_SHOP/out-L3O_SHOP/instP-EPG_WEB";
    world.apic.admin_post(dn, &json!({"fvRsProv": {"attributes": {"tnVzBrCPName": "web"}}})).unwrap();
    let by_hand = "uni/tn-TEN_SHOP/out-L3O_SHOP/instP-EPG_DB/extsubnet-[10.99.0.0/16]";
    world.apic.set(by_hand, "l3extSubnet", &[("descr", "by hand")]).unwrap();
    let text = stdout(&purge(&world, &[&["--yes"], &id[..]].concat(), 1));
    assert_eq!(format!("$ aci-sync purge --yes\n{}", text.trim_end()), documented("$ aci-sync purge --yes\n"));
}

/// T11, T8, O3: what is deleted, after which consent, and what brings it back. Each deletion is watched for 10 s, so the
/// stories go side by side.
#[test]
fn what_carries_the_owner_annotation_goes() {
    side_by_side(&[
        &|| everything_of_ours_goes_and_can_come_back(Variants::default()),
        &|| everything_of_ours_goes_and_can_come_back(Variants::opposite()),
        &the_smallest_goes_first_and_arguments_narrow,
        &contracted_epgs_can_stay,
        &legacy_objects_need_named_l3outs,
        &a_terminal_asks_for_the_number,
        &a_cluster_that_is_gone_is_purged_by_its_id,
        &an_interrupted_run_is_continued,
        &a_lost_answer_is_looked_up,
        &the_document_shows_a_real_purge,
    ]);
}
