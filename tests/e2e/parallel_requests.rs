//! Several requests to the APIC in flight together (W9).

use std::time::Duration;

use crate::purge::in_sync;
use crate::world::World;
use serde_json::json;
use sim::apic::{ApiError, Throttle};
use sim::net::{Fault, Trouble};

const EPGS: usize = 16;

/// A world with EPGs in four L3Outs, and an APIC that takes its time for each answer.
fn slow_world() -> World {
    let world = World::new();
    world.apic.setup_tenant("P", "V", &["L0", "L1", "L2", "L3"]).unwrap();
    for n in 0..EPGS {
        let annotation = json!({"tenant": "P", "l3out": format!("L{}", n % 4), "epg": format!("E{n}")}).to_string();
        world.kube.deploy("a", &format!("app-{n}"), Some(&annotation), &[&format!("10.0.1.{n}")]);
    }
    world.apic.variants(|it| it.latency = Duration::from_millis(150));
    world
}

fn is_served(world: &World) -> bool {
    world.apic.count("l3extInstP") == EPGS && world.apic.count("l3extSubnet") == EPGS
}

/// W9: up to `--parallel` requests are in flight, and with 1 never two.
#[test]
fn so_many_requests_are_in_flight_as_configured() {
    for (flags, most) in [(&[][..], 4), (&["--parallel", "2"][..], 2), (&["--parallel", "1"][..], 1)] {
        let world = slow_world();
        let _daemon = world.run(flags);
        world.until("all is served", is_served);
        assert_eq!(world.apic.most_in_flight(), most, "{flags:?}");
        assert_eq!(world.apic.writes().len(), EPGS, "{flags:?}: each EPG is written once");
    }
}

/// W9: a request that gets no answer holds up no other EPG.
#[test]
fn a_slow_answer_holds_no_other_up() {
    let world = slow_world();
    world.apic.fault(Fault::on("out-L0.json", Trouble::Hang).method("POST").times(1));
    let daemon = world.run(&[]);
    world.until("all others are served", |world| world.apic.count("l3extSubnet") == EPGS - 1);
    assert_eq!(daemon.count("write not confirmed"), 0, "{}", daemon.log());
}

/// W9, X5: `run --once` sends several requests, too.
#[test]
fn a_single_reconcile_sends_several() {
    let world = slow_world();
    // A busy machine needs a while for eight connections.
    world.apic.variants(|it| it.latency = Duration::from_secs(1));
    let output = world.output(&["run", "--once", "--parallel", "8"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(is_served(&world));
    assert_eq!(world.apic.most_in_flight(), 8);
}

/// W9, W8: a refusal halves the number for a minute; nothing is lost by it.
#[test]
fn a_refusal_halves_the_number() {
    let world = slow_world();
    world.apic.variants(|it| it.request_throttle = Some(Throttle { per_second: 20.0, burst: 1, retry_after: false }));
    let _daemon = world.run(&[]);
    world.until("a request was refused", |world| world.apic.refused() > 0);
    world.apic.variants(|it| it.request_throttle = None);
    world.until("all is served", is_served);
    world.apic.forget_most_in_flight();
    for n in 0..EPGS {
        world.kube.deploy(
            "b",
            &format!("more-{n}"),
            Some(&json!({"tenant": "P", "l3out": "L0", "epg": format!("F{n}")}).to_string()),
            &[],
        );
    }
    world.until("the others are served, too", |world| world.apic.count("l3extInstP") == 2 * EPGS);
    assert_eq!(world.apic.most_in_flight(), 2);
}

/// W9, W7: several answers are lost together, and the first read after that shows that the controller is gone: the others are
/// not read, one after the other, from a controller that does not answer.
#[test]
fn a_dead_controller_is_left_at_once() {
    let world = World::new();
    world.apic.setup_tenant("P", "V", &["L0", "L1", "L2", "L3"]).unwrap();
    for n in 0..4 {
        let epg = json!({"tenant": "P", "l3out": format!("L{n}"), "epg": "E"}).to_string();
        world.kube.deploy("a", &format!("app-{n}"), Some(&epg), &[]);
    }
    world.apic.fault(Fault::on("/api/mo/uni/tn-P", Trouble::LoseAnswer).method("POST"));
    world.apic.fault(Fault::on("instP-E.json", Trouble::Cut).method("GET"));
    let daemon = world.run(&[]);
    daemon.until_logged("reconcile failed");
    assert_eq!(daemon.count("reading the EPG again"), 1, "{}", daemon.log());
}

/// W9, W3: of two requests in flight one is rejected because the L3Out is gone, the other for its content. Its parts are not
/// sent to an L3Out that was read again meanwhile.
#[test]
fn parts_of_an_l3out_that_is_gone_are_not_sent() {
    let world = World::new();
    in_sync(&world);
    let daemon = world.run(&[]);
    daemon.until_logged("full sync complete");
    // No event says it earlier.
    world.apic.set_deaf(true);
    world.apic.reject("\"F\"", ApiError::bad(120, "no"), None);
    world.apic.reject("\"E\"", ApiError::bad(102, "no parent"), None);
    world.apic.then("POST", "out-L.json", |apic| apic.admin_delete("uni/tn-T/out-L").unwrap());
    // A slow APIC brings them together.
    world.apic.variants(|it| it.latency = Duration::from_millis(200));
    for (name, address) in [("web", "10.0.0.7"), ("web", "10.0.0.8"), ("front", "10.0.1.7"), ("front", "10.0.1.8")] {
        world.kube.pod("a", name, &address[7..], &[address]);
    }
    daemon.until_logged("a parent is missing");
    daemon.until_logged("code=L3OutNotFound");
    assert_eq!(daemon.count("bug:"), 0);
}

/// A world with as many L3Outs as requests may be in flight, each with an EPG to serve.
fn eight_l3outs(world: &World) {
    let names: Vec<String> = (0..8).map(|n| format!("L{n}")).collect();
    world.apic.setup_tenant("P", "V", &names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    for name in &names {
        let epg = json!({"tenant": "P", "l3out": name, "epg": "E"}).to_string();
        world.kube.deploy("a", &name.to_lowercase(), Some(&epg), &[]);
    }
}

/// X2: a stop with many requests in flight that are never answered.
#[test]
fn a_stop_waits_for_no_request() {
    let world = World::new();
    let mut daemon = world.run(&["--parallel", "8"]);
    daemon.until_logged("full sync complete");
    world.apic.variants(|it| it.latency = Duration::from_secs(20));
    eight_l3outs(&world);
    world.until("many are in flight", |world| world.apic.most_in_flight() >= 5);
    let (code, time) = daemon.stop();
    // Five times the deadline of the rule, because the machine may be busy.
    assert!(code == Some(0) && time < Duration::from_secs(10), "{code:?} {time:?}");
}
