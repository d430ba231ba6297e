//! The default L3Out (J2), and moves at the start (J3).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::world::{DN_E, World};

const SHORT: &str = r#"{"epg":"E"}"#;
const DN_M: &str = "uni/tn-T/out-M/instP-E";

const BLOCKED: &str = "12 moves blocked: full sync exceeds --max-deletes";

fn addresses() -> Vec<String> {
    (1..=12).map(|n| format!("10.0.0.{n}")).collect()
}

fn prefixes(world: &World, epg: &str) -> BTreeSet<String> {
    world.apic.subnets(epg).into_keys().collect()
}

/// A world in which a daemon with the default `T/L` has put the twelve addresses of a short annotation there.
fn started(world: &World) -> BTreeSet<String> {
    let addresses = addresses();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    world.kube.deploy("a", "web", Some(SHORT), &addresses);
    let mut daemon = world.run(&["--default-l3out", "T/L"]);
    world.until_holds("E", &addresses);
    assert_eq!(daemon.stop().0, Some(0));
    prefixes(world, DN_E)
}

/// J2, W6: an annotation may leave out tenant and l3out together; all commands know the default, --allow sees the completed
/// name, and without the flag the annotation is invalid and its subnets stay (D3).
#[test]
fn a_short_annotation() {
    World::both(|world| {
        world.kube.deploy("a", "web", Some(SHORT), &["10.0.0.1"]);
        world.kube.deploy("b", "half", Some(r#"{"l3out":"L","epg":"H"}"#), &["10.0.0.2"]);
        let default = ["--default-l3out", "T/L"];
        let mut daemon = world.run(&default);
        world.until_holds("E", &["10.0.0.1"]);
        daemon.until_logged(
            "tenant is missing; leave out both tenant and l3out for the default L3Out uni/tn-T/out-L, or none",
        );
        assert_eq!(daemon.stop().0, Some(0));

        let text = |words: &[&str]| String::from_utf8(world.output(words).stdout).unwrap();
        let explained = text(&["explain", "a/web", default[0], default[1]]);
        assert!(explained.contains("valid: uni/tn-T/out-L/instP-E"), "{explained}");
        let checked = text(&["check", default[0], default[1]]);
        assert!(checked.contains("workloads name 1 L3Out"), "{checked}");
        let planned = world.output(&["plan", default[0], default[1]]);
        assert_eq!(planned.status.code(), Some(0), "{}", String::from_utf8_lossy(&planned.stdout));
        let planned = text(&["plan", default[0], default[1], "--allow", "a=T/M"]);
        assert!(
            planned.contains("NotAllowed Deployment a/web: namespace a may not use uni/tn-T/out-L/instP-E"),
            "{planned}"
        );

        let daemon = world.run(&[]);
        daemon.until_logged("tenant is missing; without --default-l3out both tenant and l3out are needed");
        world.settle();
        assert!(world.holds("E", &["10.0.0.1"]));
    });
}

/// J3: a start with another default L3Out moves nothing beyond --max-deletes: all stays as it is, `plan`, `explain` and `run --once` say
/// so, a restart changes nothing, and with SIGUSR2 all moves.
#[test]
fn a_changed_default_waits_for_approval() {
    World::both(|world| {
        let before = started(world);
        let other = ["--default-l3out", "T/M", "--epg-grace", "0"];
        let intact = || {
            assert_eq!(prefixes(world, DN_E), before);
            assert!(world.apic.get(DN_M).is_none(), "the EPG in the other L3Out is not created");
        };
        let plan = world.output(&["plan", other[0], other[1], "-o", "json"]);
        let document: Value = serde_json::from_slice(&plan.stdout).unwrap();
        assert_eq!((plan.status.code(), &document["counts"]["blocked"]), (Some(2), &json!(12)), "{document}");
        assert_eq!(document["changes"], json!([]));
        let explained = world.output(&["explain", "a/web", other[0], other[1]]);
        let text = String::from_utf8(explained.stdout).unwrap();
        let says = format!("DeletionsBlocked: {DN_E} has it; the move waits for approval");
        assert_eq!((explained.status.code(), text.matches(&says).count()), (Some(2), 12), "{text}");
        let once = world.output(&["run", "--once", other[0], other[1]]);
        assert_eq!(once.status.code(), Some(1), "{}", String::from_utf8_lossy(&once.stdout));
        intact();

        for _ in 0..2 {
            let mut daemon = world.run(&other);
            daemon.until_logged(BLOCKED);
            daemon.until_logged("the move to uni/tn-T/out-M/instP-E waits for approval");
            intact();
            daemon.kill();
        }
        let daemon = world.run(&other);
        daemon.until_logged(BLOCKED);
        // Creations go on, also in the EPG that the moves lead to.
        world.kube.pod("a", "web", "new", &["10.0.0.20"]);
        world.until("a new address goes into the new EPG", |world| prefixes(world, DN_M).len() == 1);
        assert_eq!(prefixes(world, DN_E), before);
        daemon.signal("USR2");
        world.until("all have moved", |world| prefixes(world, DN_M).len() == 13);
        world.until("the old EPG has gone", |world| world.apic.get(DN_E).is_none());
        daemon.until_logged(r#"finding resolved code=DeletionsBlocked subject="deletion guard""#);

        // A move that comes as an event is what people asked for.
        let back = json!({"metadata": {"annotations": {"aci.haystacknetworks.com/l3o": crate::world::E}}});
        world.kube.patch("deployments", "a", "web", back);
        world.until("it moves at once", |world| prefixes(world, DN_E).len() == 13);
    });
}

/// J3: the same in another VRF, where an address may be twice: no half of a move is made; and the default back as it was
/// leaves nothing to approve.
#[test]
fn a_default_in_another_vrf() {
    World::both(|world| {
        let before = started(world);
        world.apic.setup_tenant("U", "W", &["X"]).unwrap();
        let mut daemon = world.run(&["--default-l3out", "U/X"]);
        daemon.until_logged(BLOCKED);
        world.settle();
        assert_eq!(prefixes(world, DN_E), before);
        assert!(world.apic.epgs("uni/tn-U/out-X").is_empty());
        assert_eq!(daemon.stop().0, Some(0));
        let writes = world.apic.writes().len();
        let daemon = world.run(&["--default-l3out", "T/L"]);
        daemon.until_logged("full sync complete: up to date");
        assert_eq!((world.apic.writes().len(), daemon.count("blocked")), (writes, 0), "{}", daemon.log());
    });
}

/// J3, K4: a standby with another default that takes over blocks the moves as a start does.
#[test]
fn a_standby_with_another_default() {
    let world = World::new();
    let addresses = addresses();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    world.kube.deploy("a", "web", Some(SHORT), &addresses);
    let mut leader = world.run(&["--leader-elect", "--default-l3out", "T/L"]);
    world.until_holds("E", &addresses);
    let before = prefixes(&world, DN_E);
    let standby = world.run(&["--leader-elect", "--default-l3out", "T/M"]);
    standby.until_logged("listed");
    assert_eq!(leader.stop().0, Some(0));
    standby.until_logged(BLOCKED);
    world.settle();
    assert_eq!(prefixes(&world, DN_E), before);
    assert!(world.apic.get(DN_M).is_none());
}

/// J3: as many moves as --max-deletes allows go at the start, and with `off` all.
#[test]
fn moves_within_the_limit_go() {
    for limit in ["12", "off"] {
        let world = World::new();
        let before = started(&world);
        let _daemon = world.run(&["--default-l3out", "T/M", "--max-deletes", limit]);
        world.until("all have moved", |world| prefixes(world, DN_M) == before && prefixes(world, DN_E).is_empty());
    }
}
