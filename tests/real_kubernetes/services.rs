//! Services whose addresses, type and selector change.

use serde_json::{Value, json};

use crate::world::World;

/// S1: the addresses of a load balancer are set, changed, taken away and set again, and its type changes.
#[test]
fn load_balancers() {
    let world = World::new();
    let _daemon = world.run(&[]);
    world.deploy("web", Some("E"), 1);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lb", "namespace": world.namespace},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]}});
    world.cluster.apply(&service.to_string());
    world.until_follows("E", "web", 1, &[]);
    let path = format!("/api/v1/namespaces/{}/services/lb/status", world.namespace);
    let give = |addresses: &[&str]| {
        let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        assert_eq!(world.cluster.send("PATCH", &path, &status), 200);
    };
    for addresses in [&["10.250.9.1"][..], &["10.250.9.2", "10.250.9.3"], &[], &["10.250.9.4"]] {
        give(addresses);
        world.until_follows("E", "web", 1, addresses);
    }
    world.kubectl(&["patch", "service", "lb", "--patch", r#"{"spec": {"type": "ClusterIP"}}"#]);
    world.until_follows("E", "web", 1, &[]);
}

/// S1: the selector decides; a Service that selects another application's Pods is removed.
#[test]
fn selectors() {
    let world = World::new();
    let _daemon = world.run(&[]);
    world.deploy("web", Some("E"), 1);
    world.deploy("api", Some("F"), 1);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lb", "namespace": world.namespace},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]}});
    world.cluster.apply(&service.to_string());
    let path = format!("/api/v1/namespaces/{}/services/lb/status", world.namespace);
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "10.250.9.1"}]}}});
    assert_eq!(world.cluster.send("PATCH", &path, &status), 200);
    world.until_follows("E", "web", 1, &["10.250.9.1"]);
    world.kubectl(&["patch", "service", "lb", "--patch", r#"{"spec": {"selector": {"app": "api"}}}"#]);
    world.until_follows("F", "api", 1, &["10.250.9.1"]);
    world.until_follows("E", "web", 1, &[]);
    world.kubectl(&["delete", "service", "lb"]);
    world.until_follows("F", "api", 1, &[]);
}

/// S1: an address in an old spelling is what the API server takes it for. Which spellings a server lets in depends on
/// its release; those that it lets in are followed.
#[test]
fn old_spellings() {
    let world = World::new();
    let daemon = world.run(&[]);
    world.deploy("web", Some("E"), 1);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lb", "namespace": world.namespace},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]}});
    world.cluster.apply(&service.to_string());
    let path = format!("/api/v1/namespaces/{}/services/lb/status", world.namespace);
    let mut followed = 0;
    for (spelling, address) in [("::ffff:10.250.9.11", "10.250.9.11"), ("010.250.009.012", "10.250.9.12")] {
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": spelling}]}}});
        if world.cluster.send("PATCH", &path, &status) == 200 {
            world.until_follows("E", "web", 1, &[address]);
            followed += 1;
        }
    }
    assert!(followed > 0, "the server lets one of them in");
    assert_eq!(daemon.count("host name"), 0);
}
