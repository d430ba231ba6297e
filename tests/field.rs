//! Clusters and files as they are in the field: objects that old releases and other tools wrote.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod support;

use serde_json::json;
use sim::pki::Authority;
use sim::{apic, kube};
use support::world::{E, World};

/// A2: the issuing CA alone is trusted, as an APIC's and an API server's; a block of its file that cannot be read is a
/// warning that names file and number.
#[test]
fn an_intermediate_ca_is_enough() {
    let issuer = Authority::new("root").intermediate("between");
    let (identity, authority) = (Some(issuer.server(&["127.0.0.1"])), Some(issuer.clone()));
    let world =
        World::with(kube::Options::default(), apic::Options { identity, authority, ..apic::Options::default() });
    let broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let file = world.folder.file("ca.pem", &format!("{broken}{}", issuer.pem()));
    let mut config: serde_json::Value = serde_json::from_str(&world.kube.kubeconfig(kube::Credential::Token)).unwrap();
    let both = format!("{}{broken}", world.kube.ca_pem());
    config["clusters"][0]["cluster"]["certificate-authority-data"] = json!(sim::pki::base64(&both));
    world.folder.file("kubeconfig", &config.to_string());
    let daemon = world.run(&["--apic-ca", file.to_str().unwrap()]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    let warning = format!("{file:?}: certificate block 1 cannot be read; the other certificates in it are used");
    assert_eq!(daemon.count(&warning), 1, "{}", daemon.log());
    let warning = "the certificate-authority of cluster \"sim\" in the kubeconfig ";
    assert!(
        daemon.log().contains(warning) && daemon.log().contains(": certificate block 2 cannot be read"),
        "{}",
        daemon.log()
    );
}

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
