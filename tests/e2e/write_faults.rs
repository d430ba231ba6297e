//! Faults of writes: answers that are lost, reconciles that end in the middle, processes that are killed, controllers
//! that die, fall behind or refuse. Whatever happens, the same fabric comes out, nothing foreign is touched, and what
//! was refused is not tried without a pause.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::world::{DN_E, DN_F, Daemon, E, F, LIMIT, World};
use serde_json::{Value, json};
use sim::apic::{self, Held, Variants};
use sim::kube;
use sim::net::{Fault, Trouble};

const L3OUT: &str = "/api/mo/uni/tn-T/out-L.json";
/// An EPG in another L3Out.
const M: &str = r#"{"tenant":"T","l3out":"M","epg":"G"}"#;
/// A foreign EPG.
const X: &str = r#"{"tenant":"T","l3out":"L","epg":"X"}"#;

fn busy() -> Trouble {
    Trouble::Answer(503, "text/html", "<html>503 Service Temporarily Unavailable</html>".to_owned())
}

fn controllers(controllers: usize, variants: Variants) -> World {
    World::with(kube::Options::default(), apic::Options { controllers, variants, ..apic::Options::default() })
}

/// A foreign EPG with a subnet, used by us; one of the Python application; one that we made before and that no
/// Deployment names; and two that are to come.
fn begin(world: &World) {
    let foreign = [("annotation", "orchestrator:terraform"), ("descr", "theirs")];
    world.apic.set("uni/tn-T/out-L/instP-X", "l3extInstP", &foreign).unwrap();
    world.apic.set("uni/tn-T/out-L/instP-X/extsubnet-[10.7.0.0/16]", "l3extSubnet", &foreign).unwrap();
    let python = [("annotation", "orchestrator:aci-k8-haystack")];
    world.apic.set(DN_F, "l3extInstP", &python).unwrap();
    world.apic.set(&format!("{DN_F}/extsubnet-[10.0.1.1/32]"), "l3extSubnet", &python).unwrap();
    world.apic.set(&format!("{DN_F}/extsubnet-[10.0.1.9/32]"), "l3extSubnet", &python).unwrap();
    let ours = [("annotation", crate::world::MARK)];
    world.apic.set("uni/tn-T/out-M/instP-OLD", "l3extInstP", &ours).unwrap();
    world.apic.set("uni/tn-T/out-M/instP-OLD/extsubnet-[10.0.9.9/32]", "l3extSubnet", &ours).unwrap();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    world.kube.deploy("b", "heir", Some(F), &["10.0.1.1", "10.0.1.2"]);
    world.kube.deploy("c", "guest", Some(X), &["10.0.2.1", "10.0.2.2"]);
}

fn has_begun(world: &World) -> bool {
    world.holds("E", &["10.0.0.1", "10.0.0.2", "10.0.0.3"])
        && world.holds("F", &["10.0.1.1", "10.0.1.2", "10.0.1.9"])
        && world.subnets("X").len() == 3
        && world.apic.get("uni/tn-T/out-M/instP-OLD").is_none()
}

/// Pods come and go, a Deployment moves, another goes, and another writer interferes.
fn go_on(world: &World) {
    world.kube.delete("pods", "a", "web-646c8dfd75-0");
    world.kube.pod("a", "web", "new", &["10.0.0.4"]);
    world.kube.annotate("b", "heir", Some(E));
    world.kube.delete("deployments", "c", "guest");
    world.apic.set(&format!("{DN_E}/extsubnet-[10.0.0.2/32]"), "l3extSubnet", &[("scope", "shared-rtctrl")]).unwrap();
}

fn is_done(world: &World) -> bool {
    let scope = |ip: &str| world.apic.subnets(DN_E).get(ip).map(|it| it["scope"].clone());
    world.holds("E", &["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.1.1", "10.0.1.2"])
        && scope("10.0.0.2/32") == Some(json!("import-security,shared-rtctrl"))
        && world.holds("F", &["10.0.1.9"])
        && world.subnets("X").len() == 1
        && world.apic.class("tagAnnotation").is_empty()
}

/// What is foreign, and must stay as it is.
fn strangers(world: &World) -> Vec<Value> {
    let dns = [
        "uni/tn-T/out-L/instP-X",
        "uni/tn-T/out-L/instP-X/extsubnet-[10.7.0.0/16]",
        "uni/tn-T/out-L/instP-F/extsubnet-[10.0.1.9/32]",
        "uni/tn-T/out-L",
        "uni/tn-T/out-M",
        "uni/tn-T",
    ];
    let of = |dn: &&str| {
        let mut mo = world.apic.get(dn).unwrap_or_else(|| panic!("{dn} has gone"));
        // These the fabric sets by itself, a moment after an EPG was made.
        let own: &[&str] = if mo["configSt"].is_null() { &[] } else { &["configSt", "pcTag", "scope", "modTs", "uid"] };
        own.iter().for_each(|it| drop(mo.as_object_mut().unwrap().remove(*it)));
        mo
    };
    dns.iter().map(of).collect()
}

/// Every object of the tenant with what we care for: what a converged fabric is.
fn fabric(world: &World) -> BTreeMap<String, Vec<Value>> {
    let classes = ["l3extInstP", "l3extSubnet", "tagAnnotation"].into_iter().flat_map(|it| world.apic.class(it));
    let of = |mo: &Value| ["annotation", "name", "scope", "descr"].map(|it| mo[it].clone()).to_vec();
    classes.map(|(dn, mo)| (dn, of(&mo))).filter(|(dn, _)| !dn.contains("settle")).collect()
}

/// Every write has one of our forms (W2), and none names what is foreign.
fn check_journal(world: &World) {
    for write in world.apic.writes() {
        let what = format!("{} {} {}", write.method, write.path, write.body);
        assert!(!what.contains("10.7.0.0") && !what.contains("10.0.1.9"), "a stranger: {what}");
        let last = write.path.rsplit('/').next().unwrap();
        let body: Value = serde_json::from_str(&write.body).unwrap_or_default();
        let class = body.as_object().and_then(|it| it.keys().next()).map(String::as_str);
        match (write.method.as_str(), class) {
            ("POST", Some("l3extInstP")) => {
                assert!(last.starts_with("out-") && !what.contains("instP-X") && !what.contains("\"X\""), "{what}");
            }
            ("POST", Some("tagAnnotation")) => assert!(last.starts_with("out-") && what.contains(":me:X"), "{what}"),
            ("POST", Some("l3extSubnet")) => assert!(last.starts_with("instP-X"), "{what}"),
            ("DELETE", None) => {
                assert!(what.contains("instP-X/extsubnet-[10.0.2.") || what.contains(":me:X"), "{what}")
            }
            _ => panic!("no form of ours: {what}"),
        }
    }
}

/// Waits for a condition or for the held request; true if the request was first.
fn reaches(world: &World, held: Option<&Held>, condition: fn(&World) -> bool) -> bool {
    let end = Instant::now() + LIMIT;
    loop {
        if held.is_some_and(Held::has_arrived) {
            return true;
        }
        if condition(world) {
            return false;
        }
        assert!(Instant::now() < end, "it never came about: {:#?}", world.apic.tree("uni/tn-T"));
        world.apic.wait_until(Duration::from_millis(20), |_| false);
    }
}

const FLAGS: [&str; 2] = ["--epg-grace", "0"];

/// The whole story, with a SIGKILL at one request; false if there was no such request any more.
fn is_killed(
    skip: usize,
    done: bool,
    variants: Variants,
    expected: Option<&BTreeMap<String, Vec<Value>>>,
) -> (bool, BTreeMap<String, Vec<Value>>) {
    let world = controllers(1, variants);
    begin(&world);
    let before = strangers(&world);
    let mut held = expected.is_some().then(|| world.apic.hold(skip, done));
    let mut daemon = world.run(&FLAGS);
    let mut was_killed = false;
    for (step, reached) in [(None, has_begun as fn(&World) -> bool), (Some(go_on as fn(&World)), is_done)] {
        if let Some(step) = step {
            step(&world);
        }
        if reaches(&world, held.as_ref(), reached) {
            daemon.kill();
            held = None;
            was_killed = true;
            daemon = world.run(&FLAGS);
            reaches(&world, None, reached);
        }
    }
    drop(held);
    assert_eq!(strangers(&world), before, "killed at request {skip}");
    check_journal(&world);
    let result = fabric(&world);
    if let Some(expected) = expected {
        assert_eq!(&result, expected, "killed at request {skip}");
    }
    if was_killed {
        // I2: a start on a converged fabric sends nothing but reads.
        daemon.kill();
        world.apic.clear_journal();
        let daemon = world.run(&FLAGS);
        daemon.until_logged("APIC session established");
        world.settle();
        let writes = world.writes();
        assert!(writes.iter().all(|it| it.contains("out-M")) && writes.len() <= 2, "request {skip}: {writes:?}");
    }
    (was_killed, result)
}

/// F21 (I1 to I5, R6): SIGKILL at every single request of a story, before it is done and after it was done but before
/// its answer. After a restart the daemon ends up with the same fabric, never touches what is foreign, and then rests.
#[test]
fn a_kill_at_any_request_changes_nothing() {
    for variants in [Variants::default(), Variants::opposite()] {
        let (_, expected) = is_killed(0, false, variants.clone(), None);
        let (next, kills) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        let (was_killed, _) = is_killed(number / 2, number % 2 == 1, variants.clone(), Some(&expected));
                        if !was_killed {
                            return;
                        }
                        kills.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        let kills = kills.load(Ordering::SeqCst);
        assert!(kills >= 40, "only {kills} kills");
    }
}

/// F18 (W7): every write is done and never answered. Each is followed by a read, and none is repeated blindly, be it a
/// create, a repair, a move, a deletion, in an EPG of ours or in a foreign one.
#[test]
fn unanswered_writes_are_done_once() {
    World::both(|world| {
        begin(world);
        let before = strangers(world);
        for method in ["POST", "DELETE"] {
            world.apic.fault(Fault::on("/api/mo/", Trouble::LoseAnswer).method(method));
        }
        let _daemon = world.run(&FLAGS);
        world.until("it has begun", has_begun);
        go_on(world);
        world.until("it is done", is_done);
        assert_eq!(strangers(world), before);
        check_journal(world);
        let writes = world.apic.writes();
        assert!(writes.iter().all(|it| it.status == 200), "nothing was tried that was done already");
        let mut sent: Vec<_> = writes.iter().map(|it| (&it.path, &it.body)).collect();
        sent.sort();
        sent.dedup();
        assert_eq!(sent.len(), writes.len(), "nothing was sent twice");
    });
}

/// F18 (W8): writes that get no answer, done or not, are not repeated without pauses.
#[test]
fn unanswered_writes_are_retried_with_pauses() {
    let story = |trouble: Trouble| {
        let world = World::new();
        world.apic.fault(Fault::on(L3OUT, trouble.clone()).method("POST"));
        let daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        daemon.until_logged("unknown outcome of a write");
        daemon.until_logged("failed to write: unknown outcome of a write");
        // What waits for an answer that never comes delays no other request.
        world.kube.deploy("b", "other", Some(M), &["10.0.1.1"]);
        world.until("the other is served", |world| world.apic.subnets("uni/tn-T/out-M/instP-G").len() == 1);
        assert_eq!(world.apic.troubled(), 2, "{trouble:?}: it was tried twice and then left alone");
        world.apic.clear_faults();
        world.until_holds("E", &["10.0.0.1"]);
    };
    std::thread::scope(|scope| {
        for trouble in [
            Trouble::Cut,
            Trouble::Answer(500, "text/html", "<html>".to_owned()),
            Trouble::Answer(504, "text/html", "<html>".to_owned()),
            Trouble::Answer(200, "application/json", "{".to_owned()),
        ] {
            scope.spawn(move || story(trouble));
        }
    });
}

/// F19 (R6): k of n requests are taken, then the APIC refuses. What was done stays, nothing is taken back, and the rest
/// follows; each object is asked for once.
#[test]
fn an_interrupted_reconcile_is_completed() {
    let addresses: Vec<String> = (1..=7).map(|n| format!("10.0.0.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    std::thread::scope(|scope| {
        for taken in 0..4 {
            let addresses = &addresses;
            scope.spawn(move || {
                let world = World::new();
                // As often as a request is sent before a reconcile leaves it to the next one.
                world.apic.fault(Fault::on(L3OUT, busy()).method("POST").after(taken).times(5));
                world.kube.deploy("a", "web", Some(E), addresses);
                let daemon = world.run(&["--batch", "2"]);
                daemon.until_logged("reconcile failed");
                assert!(world.subnets("E").len() <= 2 * taken, "{taken}: the rest comes later");
                world.until_holds("E", addresses);
                let writes = world.apic.writes();
                assert!(writes.iter().all(|it| it.status == 200 && !it.body.contains("deleted")), "{taken}");
                let sent: usize = writes.iter().map(|it| it.body.matches("l3extSubnet").count()).sum();
                assert_eq!(sent, addresses.len(), "{taken}: each once");
            });
        }
    });
}

/// F16 (A1): a controller dies in the middle of a write, before or after it was done; the next one completes it.
#[test]
fn a_controller_may_fail_during_a_write() {
    std::thread::scope(|scope| {
        for (done, variants) in
            [(false, Variants::default()), (true, Variants::opposite()), (true, Variants::default())]
        {
            scope.spawn(move || {
                let world = controllers(2, variants);
                let daemon = world.run(&[]);
                daemon.until_logged("APIC session established");
                world.kube.deploy("s", "settled", Some(F), &["10.0.1.1"]);
                world.until_holds("F", &["10.0.1.1"]);
                let held = world.apic.hold(0, done);
                world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
                reaches(&world, Some(&held), |_| false);
                world.apic.stop(0);
                drop(held);
                world.until_holds("E", &["10.0.0.1"]);
                world.until_holds("F", &["10.0.1.1"]);
                daemon.until_logged_times("APIC session established", 2);
                assert!(world.apic.writes().iter().all(|it| !it.body.contains("deleted")));
            });
        }
    });
}

/// F16 (W2, W7): the controller that serves after a failover is behind the others. What it does not show is not
/// overwritten; once it has caught up all is well, without a step back in between.
#[test]
fn a_controller_with_stale_data_does_no_harm() {
    for variants in [Variants::default(), Variants::opposite()] {
        let world = controllers(2, variants);
        world.apic.set("uni/tn-T/out-L/instP-X", "l3extInstP", &[]).unwrap();
        world.kube.deploy("c", "guest", Some(X), &["10.0.2.1"]);
        let daemon = world.run(&[]);
        world.until("it is served", |world| world.subnets("X").len() == 1);
        world.apic.fall_behind(1);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        // Theirs, with an address that will be desired.
        let theirs = "uni/tn-T/out-L/instP-X/extsubnet-[10.0.2.2/32]";
        world.apic.set(theirs, "l3extSubnet", &[("name", "theirs")]).unwrap();
        let before = world.apic.get(theirs);
        world.apic.stop(0);
        world.kube.pod("c", "guest", "2", &["10.0.2.2"]);
        world.kube.deploy("b", "other", Some(F), &["10.0.1.1"]);
        world.until_holds("F", &["10.0.1.1"]);
        daemon.until_logged_times("APIC session established", 2);
        daemon.until_logged("rejected by the APIC with code 103");
        assert!(world.holds("E", &["10.0.0.1", "10.0.0.2"]));
        world.apic.catch_up(1);
        world.kube.pod("a", "web", "3", &["10.0.0.3"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        world.settle();
        assert_eq!(world.apic.get(theirs), before);
        assert!(world.apic.writes().iter().all(|it| !it.body.contains("deleted") && it.method != "DELETE"));
    }
}

/// F16 (A1, W8): a controller that answers reads and refuses every write for a minute, as one that is cut off from the
/// others does, is left for another one.
#[test]
fn a_controller_that_refuses_writes_is_replaced() {
    let world = controllers(2, Variants::default());
    world.apic.fault_at(0, Fault::on("/api/mo/", busy()).method("POST"));
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    assert!(world.apic.wait_until(2 * LIMIT, |_| world.holds("E", &["10.0.0.1"])), "{}", daemon.log());
    daemon.until_logged_times("APIC session established", 2);
    assert!(world.apic.writes().iter().all(|it| it.controller == 1));
}

/// F22 (X2): SIGTERM while a write is in flight, held by the APIC: the stop is prompt, and what the write was about is
/// completed by the next start.
#[test]
fn a_shutdown_during_a_write_leaves_nothing_unfinished() {
    for done in [false, true] {
        let world = World::new();
        let mut daemon = world.run(&[]);
        world.kube.deploy("s", "settled", Some(F), &["10.0.1.1"]);
        world.until_holds("F", &["10.0.1.1"]);
        let held = world.apic.hold(0, done);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        reaches(&world, Some(&held), |_| false);
        let (code, time): (_, Duration) = Daemon::stop(&mut daemon);
        assert_eq!((code, daemon.count("threads still running")), (Some(0), 0), "{}", daemon.log());
        assert!(time < Duration::from_secs(10), "{time:?}");
        drop(held);
        assert_eq!(world.apic.get(DN_E).is_some(), done);
        let _daemon = world.run(&[]);
        world.until_holds("E", &["10.0.0.1"]);
        world.until_holds("F", &["10.0.1.1"]);
    }
}
