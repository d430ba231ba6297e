//! An APIC that limits the requests per second, or fails now and then: everything is done nevertheless, by the same
//! session (W8). The benchmark measures how long that takes.

use std::time::Duration;

use crate::world::{DN_E, E, World, side_by_side};
use serde_json::json;
use sim::apic::{self, Throttle, Variants};
use sim::kube;
use sim::net::{Fault, Trouble};

/// A world with 30 EPGs in two L3Outs to serve.
fn many(turn: impl FnOnce(&mut Variants)) -> World {
    let world = World::new();
    for n in 0..30 {
        let l3out = if n % 2 == 0 { "L" } else { "M" };
        let annotation = json!({"tenant": "T", "l3out": l3out, "epg": format!("E{n}")}).to_string();
        world.kube.deploy(
            "a",
            &format!("app-{n}"),
            Some(&annotation),
            &[&format!("10.0.1.{n}"), &format!("10.0.2.{n}")],
        );
    }
    world.apic.variants(turn);
    world
}

fn is_served(world: &World) -> bool {
    world.apic.count("l3extInstP") == 30 && world.apic.count("l3extSubnet") == 60
}

fn throttled(per_second: f64, burst: u32, retry_after: bool) -> Option<Throttle> {
    Some(Throttle { per_second, burst, retry_after })
}

/// W8, F17: a throttle, with a burst or without, and an APIC that answers slowly: the whole first sync is one reconcile
/// of one session, although requests are refused.
#[test]
fn a_throttled_apic_is_served_by_one_session() {
    let story = |throttle: Option<Throttle>, latency: u64| {
        let world = many(|it| {
            it.request_throttle = throttle;
            it.latency = Duration::from_millis(latency);
        });
        let daemon = world.run(&["--apic-rate", "20"]);
        world.until("all is served", is_served);
        assert_eq!(world.apic.logins(), 1, "{throttle:?}");
        for trouble in ["reconcile failed", "APIC session lost", "failed to open an APIC session"] {
            assert_eq!(daemon.count(trouble), 0, "{throttle:?}: {trouble}");
        }
    };
    side_by_side(&[
        &|| story(throttled(30.0, 30, false), 20),
        &|| story(throttled(30.0, 0, false), 0),
        &|| story(throttled(10.0, 0, true), 0),
        &|| story(throttled(10.0, 5, false), 0),
    ]);
}

/// W8, F17, F19: every seventh request is refused, or requests fail now and then in several ways: one session, and each
/// EPG is written once.
#[test]
fn occasional_failures_are_retried() {
    let story = |turn: fn(&mut Variants), repeats: bool| {
        let world = many(turn);
        let _daemon = world.run(&["--apic-rate", "off"]);
        world.until("all is served", is_served);
        assert_eq!(world.apic.logins(), 1);
        let created = world.apic.writes().iter().filter(|it| it.status == 200).count();
        assert!(created == 30 || repeats, "{created} writes");
    };
    side_by_side(&[
        &|| story(|it| it.refuse_every = Some(7), false),
        &|| story(|it| it.fail_share = 0.05, true),
        &|| story(|it| it.fail_share = 0.2, true),
    ]);
}

/// W8, X5: `plan` and `run --once` are as patient as the daemon.
#[test]
fn commands_retry_like_the_daemon() {
    let world = many(|it| it.request_throttle = throttled(10.0, 0, false));
    let plan = world.output(&["plan", "--apic-rate", "20"]);
    let text = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert_eq!(plan.status.code(), Some(2), "{text}{}", String::from_utf8_lossy(&plan.stderr));
    assert_eq!(text.matches("    + EPG  ").count(), 30, "{text}");
    assert!(world.apic.writes().is_empty());
    let once = world.output(&["run", "--once", "--apic-rate", "20"]);
    assert!(once.status.success(), "{}", String::from_utf8_lossy(&once.stderr));
    assert!(is_served(&world));
    assert_eq!(world.apic.logins(), 2, "one each");
}

/// X3, X5: `plan` and `run --once` read each of dozens of missing L3Outs once, and go on.
#[test]
fn many_missing_l3outs_are_read_once() {
    let world = World::new();
    for n in 0..50 {
        let annotation = json!({"tenant": "T", "l3out": format!("missing-{n}"), "epg": "E"}).to_string();
        world.kube.deploy("a", &format!("app-{n}"), Some(&annotation), &[]);
    }
    for words in [&["plan"][..], &["run", "--once"]] {
        let before = world.apic.requests();
        let output = world.output(words);
        assert!(
            output.status.code() == Some(if words[0] == "plan" { 3 } else { 1 }),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let requests = world.apic.requests() - before;
        assert!((50..130).contains(&requests), "{words:?}: {requests} requests");
    }
}

/// W8: if a controller is too busy to open the websocket, aci-sync asks again without another login; if it refuses the
/// session there, aci-sync logs in again.
#[test]
fn a_busy_websocket_costs_no_login() {
    let story = |status: u16, logins: usize| {
        let world = World::new();
        let answer = Trouble::Answer(status, "text/html", "<html>".to_owned());
        world.apic.fault(Fault::on("/socket", answer).times(if logins == 1 { 3 } else { 1 }));
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        let _daemon = world.run(&[]);
        world.until_holds("E", &["10.0.0.1"]);
        assert_eq!(world.apic.logins(), logins, "{status}");
    };
    side_by_side(&[&|| story(503, 1), &|| story(429, 1), &|| story(403, 2), &|| story(401, 2)]);
}

/// W8: a 403 that is a web page means a lost session, not a missing privilege: one login, and nothing is deferred.
#[test]
fn a_403_web_page_is_a_lost_session() {
    let variants = Variants { html_forbidden: true, ..Variants::default() };
    let world = World::with(kube::Options::default(), apic::Options { variants, ..apic::Options::default() });
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    let daemon = world.run(&[]);
    world.until_holds("E", &["10.0.0.1"]);
    world.apic.expire_tokens();
    world.kube.pod("a", "web", "2", &["10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(world.apic.logins(), 2);
    assert_eq!(daemon.count("missing APIC privilege"), 0);
}

/// W8: an APIC that says in JSON that something within it took too long is busy.
#[test]
fn a_busy_apic_is_recognized_by_its_json() {
    let world = World::new();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    let daemon = world.run(&[]);
    world.until_holds("E", &["10.0.0.1"]);
    world.apic.busy_json(3);
    world.apic.admin_delete(DN_E).unwrap();
    world.until_holds("E", &["10.0.0.1"]);
    assert_eq!((world.apic.logins(), daemon.count("reconcile failed")), (1, 0));
}

/// X2, K4: a stop does not wait for the turn of a request.
#[test]
fn a_shutdown_does_not_wait_for_the_rate_limit() {
    let world = many(|_| {});
    let mut daemon = world.run(&["--apic-rate", "1"]);
    world.until("it has begun", |world| world.apic.count("l3extInstP") > 0);
    let (code, time) = daemon.stop();
    assert_eq!(code, Some(0), "{}", daemon.log());
    assert!(time < Duration::from_secs(10), "{time:?}");
    assert!(!is_served(&world));
}
