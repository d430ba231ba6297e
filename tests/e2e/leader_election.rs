//! K4: several daemons with one Lease. Exactly one writes, whatever happens to it; another takes over in time, and none
//! lists the cluster again for it.

use std::time::{Duration, Instant};

use crate::world::{DN_E, Daemon, E, LIMIT, World, side_by_side};
use aci_sync::apic;
use aci_sync::apic::{Controller, Identity};
use aci_sync::daemon::event_loop::{EventLoop, Inbox};
use aci_sync::daemon::watchdog::Heartbeat;
use aci_sync::kube;
use aci_sync::kube::Pool;
use aci_sync::leadership::Leadership;
use aci_sync::model::kubernetes::Kind;
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::rules::Policy;
use aci_sync::model::rules::Rules;
use aci_sync::net::{Roots, Tls, TlsSettings};
use aci_sync::reconcile::Reconciler;
use aci_sync::secret::{Renewable, Secret};
use crossbeam_channel::bounded;
use serde_json::{Value, json};
use sim::apic::Entry;
use sim::kube::Credential;
use sim::net::{Fault, Server, Trouble};
use sim::pki::KeyForm;

const JSON: &str = "application/json";

/// How soon another takes over after a crash, and after a clean stop: then it does not wait for the 15 s of the Lease. A busy
/// machine needs a part of both.
const AFTER_A_CRASH: Duration = Duration::from_secs(25);
const AFTER_A_STOP: Duration = Duration::from_secs(12);

/// How long a leader leads after its last renewal.
const DEADLINE: Duration = Duration::from_secs(10);

const SECOND: Duration = Duration::from_secs(1);

/// A daemon with a way of its own to the API server and a user of its own at the APIC, so that the journals show which
/// one it was.
struct Replica {
    name: String,
    front: Server,
    daemon: Daemon,
}

impl Replica {
    fn start(world: &World, name: &str) -> Replica {
        let front = world.kube.another_server();
        let kubeconfig = world.kube.kubeconfig_at(&front, Credential::Certificate(KeyForm::Sec1));
        let kubeconfig = world.folder.file(&format!("{name}-kubeconfig"), &kubeconfig);
        world.apic.set_password(name, world.apic.password());
        let mut command = world.command(&["run", "--leader-elect", "--epg-grace", "0"]);
        command.env("ACI_SYNC_KUBECONFIG", kubeconfig).env("ACI_USERNAME", name);
        Replica { name: name.to_owned(), front, daemon: Daemon::start(command) }
    }

    /// Whether it holds the Lease, as the API server says.
    fn holds_the_lease(&self, world: &World) -> bool {
        let lease = world.kube.get("leases", "kube-system", "aci-sync").unwrap_or_default();
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        !holder.is_empty()
            && self
                .daemon
                .count(&format!("taking part in leader election lease=kube-system/aci-sync identity={holder}"))
                == 1
    }

    fn writes(&self, world: &World) -> Vec<Entry> {
        world.apic.writes().into_iter().filter(|it| it.user == self.name).collect()
    }
}

/// Several of them, started together.
fn replicas(world: &World, names: &[&str]) -> Vec<Replica> {
    let replicas: Vec<Replica> = names.iter().map(|it| Replica::start(world, it)).collect();
    until("all watch", || replicas.iter().all(|it| it.daemon.count(" listed kind=") == 3));
    replicas
}

/// Takes the one that holds the Lease and is logged in out of the others.
fn take_leader(world: &World, replicas: &mut Vec<Replica>) -> Replica {
    until("one leads", || replicas.iter().any(|it| it.holds_the_lease(world)));
    let at = replicas.iter().position(|it| it.holds_the_lease(world)).unwrap();
    replicas[at].daemon.until_logged("APIC session established");
    replicas.remove(at)
}

/// Waits until something is true of which the fabric knows nothing.
#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "it never came about that {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// How many lists there were, by all daemons.
fn lists(world: &World) -> usize {
    world.kube.journal().iter().filter(|it| it.target.contains("limit=500")).count()
}

fn logins(world: &World) -> usize {
    world.apic.journal().iter().filter(|it| it.path.contains("aaaLogin")).count()
}

fn subnet(address: &str) -> String {
    format!("{DN_E}/extsubnet-[{address}/32]")
}

/// Twenty Deployments that want an EPG each.
fn many_epgs(world: &World) -> Vec<String> {
    let names: Vec<String> = (0..20).map(|it| format!("epg-{it}")).collect();
    for name in &names {
        let annotation = json!({"tenant": "T", "l3out": "L", "epg": name}).to_string();
        world.kube.deploy("a", name, Some(&annotation), &[]);
    }
    names
}

fn are_there(world: &World, names: &[String]) -> bool {
    names.iter().all(|it| world.apic.get(&format!("uni/tn-T/out-L/instP-{it}")).is_some())
}

/// K4, W4: one of three leads. It is killed, and another finds what was done wrong meanwhile; that one is stopped, and
/// the last one goes on at once.
fn a_crash_and_a_stop() {
    let world = World::new();
    let mut replicas = replicas(&world, &["one", "two", "three"]);
    let mut leader = take_leader(&world, &mut replicas);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    assert_eq!((world.apic.sessions(), world.apic.websockets(), logins(&world)), (1, 1, 1), "one is logged in");

    leader.daemon.kill();
    let killed = Instant::now();
    world.apic.admin_delete(&subnet("10.0.0.1")).unwrap();
    world.kube.pod("a", "web", "late", &["10.0.0.3"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert!(killed.elapsed() < AFTER_A_CRASH, "{:?}", killed.elapsed());
    let mut second = take_leader(&world, &mut replicas);
    assert_eq!(second.daemon.count("new term of leadership"), 1);

    let (code, _) = second.daemon.stop();
    assert_eq!((code, second.daemon.count("released the lease")), (Some(0), 1));
    assert!(second.daemon.text("err").is_empty(), "nothing to complain about");
    let stopped = Instant::now();
    world.kube.pod("a", "web", "later", &["10.0.0.4"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    assert!(stopped.elapsed() < AFTER_A_STOP, "{:?}", stopped.elapsed());
    let third = take_leader(&world, &mut replicas);

    assert_eq!((lists(&world), logins(&world)), (9, 3), "none lists again, and only leaders log in");
    let wrote: Vec<String> = world.apic.writes().into_iter().map(|it| it.user).collect();
    let mut in_turn = wrote.clone();
    in_turn.dedup();
    assert_eq!(in_turn, [leader.name, second.name, third.name], "{wrote:?}");
    let lease = world.kube.get("leases", "kube-system", "aci-sync").unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], 2, "{lease}");
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    for it in world.kube.journal().iter().filter(|it| it.target.contains("/leases")) {
        let name = it.target.strip_prefix(path).unwrap();
        let has_right = matches!((it.method.as_str(), name), ("POST", "") | ("GET" | "PUT", "/aci-sync"));
        assert!(has_right, "no Role need grant {} {}", it.method, it.target);
    }
}

/// K4, F26: a leader is stopped by SIGSTOP in the middle of its writes and wakes up when another leads. It begins no
/// write more than a second after that, and there is no other overlap; it goes on as a candidate and leads again.
fn a_frozen_leader() {
    let world = World::new();
    let mut replicas = replicas(&world, &["one", "two", "three"]);
    let mut frozen = take_leader(&world, &mut replicas);
    world.apic.fault(Fault::on("out-L.json", Trouble::Delay(Duration::from_millis(500))).method("POST"));
    let names = many_epgs(&world);
    world.until("it is in the middle", |_| frozen.writes(&world).len() >= 3);
    frozen.daemon.signal("STOP");
    let stopped = Instant::now();
    assert!(frozen.writes(&world).len() < 18, "there is something left to do");
    world.apic.clear_faults();
    world.until("another has done the rest", |world| are_there(world, &names));
    assert!(stopped.elapsed() < AFTER_A_CRASH, "{:?}", stopped.elapsed());
    let mut leader = take_leader(&world, &mut replicas);
    // It has news to act upon when it wakes up.
    for name in &names[..10] {
        world.kube.delete("deployments", "a", name);
    }
    world.settle();

    let woken = Instant::now();
    frozen.daemon.signal("CONT");
    frozen.daemon.until_logged("lost leadership");
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    world.settle();
    let first = leader.writes(&world)[0].at;
    for late in frozen.writes(&world).iter().filter(|it| it.at > first) {
        assert!(late.at > woken && late.at < woken + SECOND, "{} {}", late.method, late.path);
    }
    world.until("its session is over", |world| world.apic.sessions() == 1);

    let (before, logins) = (frozen.daemon.count("acquired leadership"), logins(&world));
    replicas.clear();
    assert_eq!(leader.daemon.stop().0, Some(0));
    world.apic.admin_delete(&subnet("10.0.0.1")).unwrap();
    world.until_holds("E", &["10.0.0.1"]);
    assert_eq!(frozen.daemon.count("acquired leadership"), before + 1);
    assert_eq!((lists(&world), self::logins(&world)), (9, logins + 1), "none lists again");
    assert_eq!(frozen.daemon.stop().0, Some(0));
}

/// K4, F26: a leader that cannot reach the API server any more writes until its deadline and not after it; then its
/// session ends, another takes over, and once the API server is back it is a candidate like the others.
fn a_leader_that_is_cut_off() {
    let world = World::new();
    let mut replicas = replicas(&world, &["one", "two", "three"]);
    let lonely = take_leader(&world, &mut replicas);
    let addresses: Vec<String> = (1..=60).map(|it| format!("10.0.0.{it}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    world.kube.deploy("a", "web", Some(E), &addresses);
    world.until_holds("E", &addresses);
    lonely.front.pause();
    let cut = Instant::now();
    // Something to repair at any moment, another thing each time.
    for address in &addresses {
        let _ = world.apic.admin_delete(&subnet(address));
        let next = Instant::now() + Duration::from_millis(300);
        while Instant::now() < next {
            std::thread::park_timeout(next - Instant::now());
        }
    }
    world.until_holds("E", &addresses);
    let leader = take_leader(&world, &mut replicas);
    let first = leader.writes(&world)[0].at;
    assert!(first < cut + AFTER_A_CRASH, "{:?}", first - cut);
    let last = lonely.writes(&world).last().unwrap().at;
    assert!(last > cut && last < cut + DEADLINE + 3 * SECOND && last < first, "{:?}", last.checked_duration_since(cut));
    assert_eq!(lonely.daemon.count("not renewed in time"), 2, "it is logged, and the session ends for it");
    world.until("its session is over", |world| world.apic.sessions() == 1);

    lonely.front.resume();
    lonely.daemon.until_logged("standby: another process leads");
    world.kube.pod("a", "web", "late", &["10.0.1.1"]);
    world.settle();
    assert_eq!(lists(&world), 9, "none lists again");
    assert!(lonely.writes(&world).last().unwrap().at == last);
}

/// K4: a leader without rivals that slept past its deadline leads again, with a full sync: what was done to the fabric
/// meanwhile is found.
fn a_lone_leader_that_slept() {
    let world = World::new();
    let lone = Replica::start(&world, "lone");
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    lone.daemon.signal("STOP");
    let asleep = Instant::now();
    world.apic.admin_delete(&subnet("10.0.0.1")).unwrap();
    while asleep.elapsed() < DEADLINE + SECOND {
        std::thread::park_timeout(DEADLINE + SECOND - asleep.elapsed().min(DEADLINE));
    }
    lone.daemon.signal("CONT");
    lone.daemon.until_logged("lost leadership");
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    lone.daemon.until_logged_times("new term of leadership", 2);
    assert_eq!(lists(&world), 3);
    let lease = world.kube.get("leases", "kube-system", "aci-sync").unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], 0, "it was its own all the time: {lease}");
}

/// K4, W4: a take-over counts its deletions like a start, whatever the one who takes over has seen meanwhile.
fn a_take_over_is_a_start() {
    let world = World::new();
    let mut replicas = replicas(&world, &["one", "two"]);
    let mut leader = take_leader(&world, &mut replicas);
    let addresses: Vec<String> = (1..=12).map(|n| format!("10.0.0.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    world.kube.deploy("a", "web", Some(E), &addresses);
    world.until_holds("E", &addresses);
    leader.daemon.kill();
    world.kube.delete("deployments", "a", "web");
    let heir = &replicas[0];
    heir.daemon.until_logged("deletions blocked: full sync exceeds --max-deletes");
    world.settle();
    assert!(world.holds("E", &addresses));
    assert_eq!(lists(&world), 6, "none lists again");
    heir.daemon.signal("USR2");
    world.until("what was released is gone", |world| world.apic.get(DN_E).is_none());
}

/// K4: a leader whose requests for the Lease hang, and nothing else does, ends its session at its deadline; once they
/// are answered it leads again with a full sync.
fn a_leader_whose_lease_hangs() {
    let world = World::new();
    let lone = Replica::start(&world, "lone");
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    lone.front.fault(Fault::on("/leases", Trouble::Hang));
    lone.daemon.until_logged("lost leadership");
    world.until("its session is over", |world| world.apic.sessions() == 0);
    world.apic.admin_delete(&subnet("10.0.0.1")).unwrap();
    let (writes, troubled) = (lone.writes(&world).len(), lone.front.troubled());
    until("it was asked for again", || lone.front.troubled() >= troubled + 2);
    assert_eq!(lone.writes(&world).len(), writes);
    assert_eq!(lone.daemon.count("failed to acquire the lease; writes stay disabled lease=kube-system/aci-sync error=\"failed to reach the API server: no answer in time"), 1);
    lone.front.clear_faults();
    world.until_holds("E", &["10.0.0.1"]);
    assert_eq!((lists(&world), lone.daemon.count("new term of leadership")), (3, 2));
}

/// K4: a leader whose Lease another process takes, whether its time is over or not, or deletes, ends its session at
/// once and is a candidate like any other.
fn a_leader_whose_lease_is_taken_away() {
    let world = World::new();
    let lone = Replica::start(&world, "lone");
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    let spec =
        json!({"holderIdentity": "another", "leaseDurationSeconds": 1, "renewTime": "1970-01-01T00:00:00.000000Z"});
    world.kube.patch("leases", "kube-system", "aci-sync", json!({"spec": spec}));
    lone.daemon.until_logged("reason=\"another holds the lease\"");
    lone.daemon.until_logged_times("new term of leadership", 2);
    world.until("it is logged in again", |world| (world.apic.sessions(), logins(world)) == (1, 2));
    world.kube.delete("leases", "kube-system", "aci-sync");
    lone.daemon.until_logged("reason=\"another writer changed or deleted the lease\"");
    lone.daemon.until_logged_times("new term of leadership", 3);
    world.apic.admin_delete(&subnet("10.0.0.1")).unwrap();
    world.until_holds("E", &["10.0.0.1"]);
    assert_eq!(lists(&world), 3);
}

/// K4: who does not lead any more knows nothing of the fabric: the findings of its term are not those of now.
fn a_standby_forgets() {
    let world = World::new();
    let lone = Replica::start(&world, "lone");
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.kube.deploy("a", "waits", Some(r#"{"tenant":"NONE","l3out":"L","epg":"E"}"#), &[]);
    lone.daemon.until_logged("L3Out not found; waiting for it to be created");
    let log_status = || {
        let views = lone.daemon.count("status: view of the cluster kind=Deployment");
        lone.daemon.signal("USR1");
        lone.daemon.until_logged_times("status: view of the cluster kind=Deployment", views + 1);
    };
    until("the status has the finding", || {
        log_status();
        lone.daemon.count("status: finding ") > 0
    });
    let spec = json!({"holderIdentity": "another", "leaseDurationSeconds": 3600});
    world.kube.patch("leases", "kube-system", "aci-sync", json!({"spec": spec}));
    lone.daemon.until_logged("lost leadership");
    until("it is a standby", || {
        log_status();
        lone.daemon.count("state=\"standby") > 0
    });
    // The lines of one status may still come; those of the next one are all there when a third has begun.
    log_status();
    let known = || ["status: finding ", "status: L3Out l3out=uni/tn-T/out-L"].map(|it| lone.daemon.count(it));
    let before = known();
    (0..2).for_each(|_| log_status());
    assert_eq!(known(), before, "neither a finding nor an L3Out is known");
}

/// K4, X2: whatever happens to the one that leads, another takes over in time, and two never write at once.
#[test]
fn another_takes_over() {
    side_by_side(&[
        &a_crash_and_a_stop,
        &a_frozen_leader,
        &a_leader_that_is_cut_off,
        &a_lone_leader_that_slept,
        &a_take_over_is_a_start,
        &a_leader_whose_lease_hangs,
        &a_leader_whose_lease_is_taken_away,
        &a_standby_forgets,
    ]);
}

/// K4, W8: without a right on the Lease one message names the verb and the resource; none logs in, nothing is
/// written, and it is asked for less and less often until it is granted.
#[test]
fn nothing_is_written_without_permission_on_the_lease() {
    let story = |verb: &str| {
        let world = World::new();
        if verb == "update" {
            let spec = json!({"holderIdentity": "", "leaseDurationSeconds": 1});
            let metadata = json!({"name": "aci-sync", "namespace": "kube-system", "labels": {"a": "b"}});
            world.kube.apply("leases", json!({"metadata": metadata, "spec": spec}));
        }
        world.kube.deny(verb, "leases");
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        let replica = Replica::start(&world, "one");
        replica
            .daemon
            .until_logged(&format!("cannot {verb} resource \\\"leases\\\" in API group \\\"coordination.k8s.io\\\""));
        let asked = |world: &World| world.kube.journal().iter().filter(|it| it.target.contains("/leases")).count();
        let before = asked(&world);
        until("it is asked for again", || asked(&world) > before);
        assert_eq!(replica.daemon.count("failed to acquire the lease; writes stay disabled"), 1);
        assert_eq!((logins(&world), world.apic.writes().len()), (0, 0));
        world.kube.allow(verb, "leases");
        world.until_holds("E", &["10.0.0.1"]);
        let lease: Value = world.kube.get("leases", "kube-system", "aci-sync").unwrap();
        assert_eq!(
            lease["metadata"]["labels"]["a"].as_str(),
            (verb == "update").then_some("b"),
            "what others wrote stays"
        );
    };
    side_by_side(&[&|| story("get"), &|| story("create"), &|| story("update")]);
}

/// K4, X3: any other answer than a Lease is logged once and clearly, and nothing is written until there is one.
#[test]
fn nothing_is_written_without_a_valid_lease() {
    let refused = |code: u16, reason: &str| {
        let status = json!({"kind": "Status", "code": code, "reason": reason, "message": "no"});
        Trouble::Answer(code, JSON, status.to_string())
    };
    let others = json!({"kind": "Lease", "metadata": {"name": "aci-sync"}, "spec": {"holderIdentity": "another"}});
    let story = |method: &'static str, trouble: Trouble, complaint: &str| {
        let world = World::new();
        let replica = Replica::start(&world, "one");
        replica.front.fault(Fault::on("/leases", trouble).method(method));
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        replica.daemon.until_logged(&format!("writes stay disabled lease=kube-system/aci-sync error=\"{complaint}"));
        let troubled = replica.front.troubled();
        until("it is asked for again", || replica.front.troubled() > troubled);
        assert_eq!(replica.daemon.count("failed to acquire the lease; writes stay disabled"), 1, "{complaint}");
        assert_eq!((logins(&world), world.apic.writes().len()), (0, 0), "{complaint}");
        replica.front.clear_faults();
        world.until_holds("E", &["10.0.0.1"]);
    };
    side_by_side(&[
        &|| story("POST", refused(404, "NotFound"), "namespace kube-system not found"),
        &|| story("POST", refused(409, "AlreadyExists"), "changed by another writer (409)"),
        &|| story("GET", refused(503, "ServiceUnavailable"), "the API server is busy"),
        &|| story("GET", Trouble::Hang, "failed to reach the API server: no answer in time"),
        &|| story("GET", Trouble::Answer(200, "text/html", "<html>".to_owned()), "invalid answer from the API server"),
        &|| {
            story(
                "GET",
                Trouble::Answer(200, JSON, " ".repeat((1 << 20) + 1)),
                "failed to reach the API server: the answer is larger than 1048576",
            )
        },
        &|| story("POST", Trouble::Answer(201, JSON, others.to_string()), "invalid answer from the API server"),
    ]);
}

/// K4, W5: an observer takes no part in the election, so it does not keep a writer from leading.
#[test]
fn an_observer_does_not_join_the_election() {
    let world = World::new();
    let daemon = world.run(&["--leader-elect", "--policy", "observe"]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    daemon.until_logged("would change epg=uni/tn-T/out-L/instP-E change=\"+ EPG");
    assert_eq!(daemon.count("leader election is off because of --policy observe"), 1);
    assert!(!world.kube.journal().iter().any(|it| it.target.contains("/leases")));
}

/// K4: the term is checked right before each write: if it ends in the middle of a reconcile, no further write begins,
/// also while the session still exists.
#[test]
fn the_end_of_a_term_stops_the_next_write() {
    let world = World::new();
    let hour = Duration::from_secs(3600);
    let names = many_epgs(&world);
    let cluster = kube::load(Some(&world.folder.path().join("kubeconfig")), None, &|_| None).unwrap();
    let cluster = kube::Client::new(&cluster).unwrap();
    let tls = TlsSettings { roots: Roots::Pem(world.apic.ca_pem().into_bytes()), ..TlsSettings::default() };
    let address = world.apic.apic();
    let (host, port) = address.rsplit_once(':').unwrap();
    let settings = apic::Settings {
        controllers: vec![Controller { host: host.to_owned(), port: port.parse().unwrap() }],
        tls: Tls::new(&tls).unwrap(),
        credentials: Identity::User(world.apic.username().to_owned())
            .with(Renewable::new(Secret::new(world.apic.password()))),
        pacer: apic::RequestPacer::new(None, 1),
    };
    let ((stop, stopped), (_ask, commands)) = (bounded(0), bounded(1));
    let ((cluster_sender, cluster_events), (fabric_sender, fabric_events)) = (bounded(64), bounded(64));
    let leadership = Leadership::not_yet();
    leadership.extend(Instant::now() + hour);
    let (session, session_manager, refresher) =
        apic::session_threads(settings, leadership.clone(), fabric_sender.clone(), stopped.clone());
    let reconciler = Reconciler::new(OwnerIdentity::new("me", &[]), Rules::default(), Policy::Sync, hour);
    let inbox = Inbox { cluster: cluster_events, fabric: fabric_events, commands, stop: stopped };
    let reconciler = EventLoop::new(reconciler, inbox, session.clone(), leadership.clone(), Heartbeat::default(), hour);
    let slow = Trouble::Delay(Duration::from_millis(150));
    world.apic.fault(Fault::on("out-L.json", slow).method("POST"));
    std::thread::scope(|scope| {
        scope.spawn(|| session_manager.run());
        scope.spawn(|| refresher.run());
        scope.spawn(|| reconciler.run());
        for kind in Kind::DEFAULT {
            let (objects, _) = cluster.list(kind, &mut Pool::default()).unwrap();
            cluster_sender.send(kube::Event::Listed { kind, objects }).unwrap();
        }
        world.until("it is in the middle", |world| world.apic.writes().len() >= 3);
        leadership.end();
        let begun = world.apic.writes().len() + 1;
        let read =
            |world: &World| world.apic.journal().iter().filter(|it| it.target.contains("subscription=yes")).count();
        // The second full sync begins when the reconcile that the first one led to is over.
        for _ in 0..2 {
            let before = read(&world);
            fabric_sender.send(apic::Event::Gap { reason: "a test".to_owned() }).unwrap();
            world.until("it is compared", |world| read(world) > before);
        }
        let writes = world.apic.writes().len();
        leadership.extend(Instant::now() + hour);
        world.until("it goes on", |world| are_there(world, &names));
        drop(stop);
        session.stop();
        assert!(writes <= begun, "{writes} writes, and {begun} were begun in time");
    });
}
