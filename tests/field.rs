//! Clusters and files as they are in the field: objects that old releases and other tools wrote.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod support;

use serde_json::json;
use support::world::{E, World};

/// P2, S1, P5: addresses in old spellings are what Kubernetes takes them for, also on an update; what is none is a
/// finding that quotes it, and not a host name.
#[test]
fn addresses_in_old_spellings() {
    let world = World::new();
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["010.004.000.012"]);
    world.kube.load_balancer("a", "lb", "web", &["10.4.0.10"]);
    world.until_holds("E", &["10.4.0.10", "10.4.0.12"]);
    let ingress = |ips: &[&str]| {
        let all: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        world.kube.patch("services", "a", "lb", json!({"status": {"loadBalancer": {"ingress": all}}}));
    };
    ingress(&["010.004.000.010", "::ffff:10.4.0.11"]);
    world.until_holds("E", &["10.4.0.10", "10.4.0.11", "10.4.0.12"]);
    ingress(&["10.4.0.10", "300.1.1.1\n"]);
    daemon.until_logged(r#"Service a/lb: not an address as Kubernetes reads them, so not exported: "300.1.1.1\n""#);
    ingress(&["300.1.1.1"]);
    daemon.until_logged(r#"not exported: "300.1.1.1""#);
    world.until_holds("E", &["10.4.0.12"]);
    assert_eq!(daemon.count("host name"), 0, "{}", daemon.log());
    let deleted =
        world.apic.writes().iter().filter(|it| it.body.contains("10.4.0.10/32") && it.body.contains("deleted")).count();
    assert_eq!(deleted, 1, "it left once only, when it was not there any more");
}
