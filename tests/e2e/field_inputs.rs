//! Clusters and files as they are in the field: objects that old releases and other tools wrote.

use crate::world::{E, World};
use serde_json::json;
use sim::net::{Fault, Trouble};
use sim::pki::Authority;
use sim::{apic, kube};

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
    let warning = format!(
        "skipping a certificate of a bundle name=\"--apic-ca: \\\"{}\\\"\" error=\"certificate block 1 is unreadable\"",
        file.display()
    );
    assert_eq!(daemon.count(&warning), 1, "{}", daemon.log());
    let warning = "certificate-authority of cluster \\\"sim\\\" in kubeconfig ";
    assert!(
        daemon.log().contains(warning) && daemon.log().contains("certificate block 2 is unreadable"),
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
    daemon.until_logged("invalid address not exposed: ");
    ingress(&["300.1.1.1"]);
    daemon.until_logged("300.1.1.1");
    world.until_holds("E", &["10.4.0.12"]);
    assert_eq!(daemon.count("host name"), 0, "{}", daemon.log());
    let deleted =
        world.apic.writes().iter().filter(|it| it.body.contains("10.4.0.10/32") && it.body.contains("deleted")).count();
    assert_eq!(deleted, 1, "it left once only, when it was not there any more");
}

/// F5, F31: a web page of a proxy or a login is reported as such on both sides, and nothing of it is quoted.
#[test]
fn web_pages_are_reported_as_such() {
    let world = World::new();
    let page = "<html>S3CRET</html>".to_owned();
    let html = |code| Trouble::Answer(code, "text/html", page.clone());
    world.kube.fault(Fault::on("/pods?limit=500", html(200)).times(1));
    world.kube.fault(Fault::on("/services?limit=500", html(403)).times(1));
    world.kube.fault(Fault::on("/deployments?limit=500", Trouble::Answer(403, "text/plain", "no".to_owned())).times(1));
    world.apic.fault(Fault::on("aaaLogin", html(200)).times(1));
    let daemon = world.run(&[]);
    daemon.until_logged(
        "failed to list kind=Pod error=\"invalid answer from the API server: an HTML page instead of JSON; check",
    );
    daemon.until_logged(
        "failed to list kind=Service error=\"permission denied: HTTP 403 with an HTML page; a proxy in between",
    );
    daemon
        .until_logged("failed to list kind=Deployment error=\"permission denied: HTTP 403 without a Kubernetes Status");
    daemon.until_logged(
        "not the JSON of an APIC: an HTML page; is this an APIC, or a proxy or a login page in front of it?",
    );
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    assert!(!daemon.log().contains("S3CRET"));
}
