//! Pods that are deleted, evicted, adopted or dual-stack.

use serde_json::{Value, json};

use crate::node::{self, BY_HAND, DUAL, NODE};
use crate::world::World;

/// P3: a Pod that is deleted, or deleted by force, leaves, and its successor comes.
#[test]
fn deleted_pods() {
    let world = World::new();
    let _daemon = world.run(&[]);
    world.deploy("web", Some("E"), 2);
    world.until_follows("E", "web", 2, &[]);
    world.kubectl(&["delete", "pod", &world.a_pod("web")]);
    world.until_follows("E", "web", 2, &[]);
    world.kubectl(&["delete", "pod", &world.a_pod("web"), "--grace-period=0", "--force"]);
    world.until_follows("E", "web", 2, &[]);
}

/// P3: a Pod that terminates slowly keeps its address until it is gone.
#[test]
fn a_terminating_pod_keeps_its_address() {
    let world = World::new();
    let _daemon = world.run(&[]);
    let mut manifest = world.deployment("web", Some("E"), 1);
    manifest["spec"]["template"]["metadata"]["annotations"] = json!({BY_HAND: "yes"});
    world.cluster.apply(&manifest.to_string());
    world.until("the Pod is there", || world.pods("web").len() == 1);
    let pod = world.pods("web").remove(0);
    let path = node::path(&pod);
    world.settle();
    world.until_holds("E", &[]);

    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "node"}});
    assert_eq!(world.cluster.send("POST", &format!("{path}/binding"), &binding), 201);
    let status = node::running(&["10.250.0.1".to_owned()]);
    assert_eq!(world.cluster.send("PATCH", &format!("{path}/status"), &status), 200);
    world.until_holds("E", &["10.250.0.1"]);

    world.kubectl(&["delete", "pod", &world.a_pod("web"), "--wait=false"]);
    world.until("it is terminating", || world.cluster.read(&path)["metadata"]["deletionTimestamp"].is_string());
    world.settle();
    world.until_holds("E", &["10.250.0.1"]);
    assert_eq!(world.cluster.delete(&format!("{path}?gracePeriodSeconds=0")), 200);
    world.until_holds("E", &[]);
}

/// P2: an evicted Pod keeps its address in its status, but no longer owns it.
#[test]
fn an_evicted_pod_has_no_address() {
    let world = World::new();
    let _daemon = world.run(&[]);
    world.deploy("web", Some("E"), 2);
    world.until_follows("E", "web", 2, &[]);
    let evicted = world.pods("web").remove(0);
    let ip = evicted["status"]["podIP"].clone();
    let status = json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"}});
    assert_eq!(world.cluster.send("PATCH", &format!("{}/status", node::path(&evicted)), &status), 200);
    // Its successor may even have been given the same address.
    world.until("its successor is there", || world.pods("web").len() == 3);
    world.until_follows("E", "web", 2, &[]);
    assert_eq!(world.cluster.read(&node::path(&evicted))["status"]["podIP"], ip);
}

/// P2: the address of a hostNetwork Pod is the node's.
#[test]
fn hostnetwork() {
    let world = World::new();
    let _daemon = world.run(&[]);
    let mut manifest = world.deployment("agent", Some("E"), 2);
    manifest["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    world.cluster.apply(&manifest.to_string());
    world.until("both Pods run", || world.addresses("agent").len() == 1 && world.pods("agent").len() == 2);
    assert!(world.addresses("agent").contains(&format!("{NODE}/32")));
    world.settle();
    world.until_holds("E", &[]);
}

/// P2: both addresses of a Pod.
#[test]
fn dual_stack() {
    let world = World::new();
    let _daemon = world.run(&[]);
    let mut manifest = world.deployment("web", Some("E"), 2);
    manifest["spec"]["template"]["metadata"]["annotations"] = json!({DUAL: "yes"});
    world.cluster.apply(&manifest.to_string());
    world.until_follows("E", "web", 2, &[]);
    world.until("there are four addresses", || world.subnets("E").len() == 4);
    assert_eq!(world.subnets("E").iter().filter(|it| it.ends_with("/128")).count(), 2);
}

/// P1: a Pod that loses its label belongs to no Deployment, and belongs again when it gets it back.
#[test]
fn orphaned_and_adopted_pods() {
    let world = World::new();
    let _daemon = world.run(&[]);
    world.deploy("web", Some("E"), 2);
    world.until_follows("E", "web", 2, &[]);
    let orphan = world.pods("web").remove(0);
    let name = orphan["metadata"]["name"].as_str().unwrap();
    let owners = || world.cluster.read(&node::path(&orphan))["metadata"]["ownerReferences"].clone();
    world.kubectl(&["label", "pod", name, "app-"]);
    world.until("it is released", || owners() == Value::Null);
    world.until_follows("E", "web", 2, &[]);
    assert!(!world.subnets("E").contains(&crate::world::prefix(&orphan["status"]["podIP"])));

    // One too many: the one that came instead may go, or the orphan again.
    world.kubectl(&["scale", "deployment", "web", "--replicas=3"]);
    world.kubectl(&["label", "pod", name, "app=web"]);
    world.until_follows("E", "web", 3, &[]);
}

/// P1: a Deployment that adopted a ReplicaSet made by hand owns Pods whose names and labels do not show it: a finding
/// after a minute. A rollout replaces the ReplicaSet, and its Pods are found.
#[test]
fn an_adopted_replica_set() {
    let world = World::new();
    let daemon = world.run(&[]);
    let deployment = world.deployment("shop", Some("E"), 1);
    let mut replica_set = deployment.clone();
    replica_set["kind"] = json!("ReplicaSet");
    replica_set["metadata"] = json!({"name": "legacy", "namespace": world.namespace, "labels": {"app": "shop"}});
    world.cluster.apply(&replica_set.to_string());
    world.until("its Pod runs", || world.addresses("shop").len() == 1);
    world.cluster.apply(&deployment.to_string());
    let path = format!("/apis/apps/v1/namespaces/{}/replicasets/legacy", world.namespace);
    let is_adopted = || world.cluster.read(&path)["metadata"]["ownerReferences"][0]["kind"] == "Deployment";
    world.until("the Deployment has adopted it", is_adopted);
    let finding = format!("code=PodsNotFound subject=\"Deployment {}/shop\"", world.namespace);
    let reported = || daemon.count(&format!("finding {finding}")) == 1;
    world.until("it is reported that no Pod was found", reported);
    world.kubectl(&["rollout", "restart", "deployment", "shop"]);
    world.until_follows("E", "shop", 1, &[]);
    daemon.until_logged(&format!("finding resolved {finding}"));
}
