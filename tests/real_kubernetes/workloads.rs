//! StatefulSets and DaemonSets with their real controllers, and the rights of `scripts/kubernetes-rbac-workloads.yaml`.

use std::path::Path;

use serde_json::{Value, json};

use crate::world::{KEY, World};

const ALL: [&str; 2] = ["--workloads", "deployments,statefulsets,daemonsets"];

/// What the story adds to the cluster beside its namespace; it goes when this is dropped.
struct Extra<'a> {
    world: &'a World,
    rights: String,
}

impl<'a> Extra<'a> {
    /// A node, because a DaemonSet has a Pod for each.
    fn new(world: &'a World) -> Extra<'a> {
        let rights = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kubernetes-rbac-workloads.yaml");
        world.cluster.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}}).to_string());
        Extra { world, rights: rights.to_str().unwrap().to_owned() }
    }

    fn grant(&self) {
        self.world.cluster.kubectl(&["apply", "--filename", &self.rights]);
    }
}

impl Drop for Extra<'_> {
    fn drop(&mut self) {
        self.world.cluster.delete("/api/v1/nodes/node");
        for kind in ["clusterroles", "clusterrolebindings"] {
            self.world.cluster.delete(&format!("/apis/rbac.authorization.k8s.io/v1/{kind}/aci-sync-workloads"));
        }
    }
}

/// A StatefulSet or DaemonSet `web` whose Pods have the label `app: {app}`.
fn web(world: &World, kind: &str, app: &str, epg: &str) -> Value {
    let mut manifest = world.deployment("web", None, 2);
    manifest["kind"] = json!(kind);
    manifest["metadata"]["annotations"] = json!({KEY: world.annotation(epg)});
    let spec = &mut manifest["spec"];
    spec["selector"]["matchLabels"] = json!({"app": app});
    spec["template"]["metadata"]["labels"] = json!({"app": app});
    if kind == "StatefulSet" {
        spec["serviceName"] = json!("web");
    } else {
        // No kubelet says that the node is ready.
        spec["template"]["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        spec.as_object_mut().unwrap().remove("replicas");
    }
    manifest
}

/// G1, G2, K3, K5: three workloads of one name. Without the rights on the other two kinds only the Deployment is served; with
/// them all are, each with its own Pods and Events, and each goes by itself.
#[test]
fn three_kinds_of_one_name() {
    let world = World::new();
    let extra = Extra::new(&world);
    world.deploy("web", Some("D"), 1);
    world.cluster.apply(&web(&world, "StatefulSet", "db", "S").to_string());
    world.cluster.apply(&web(&world, "DaemonSet", "probe", "X").to_string());
    let mut daemon = world.run(&[&ALL[..], &["--epg-grace", "0"]].concat());
    for resource in ["statefulsets", "daemonsets"] {
        daemon.until_logged(&format!("cannot list resource \\\"{resource}\\\""));
    }
    world.until_follows("D", "web", 1, &[]);
    assert!(!world.exists("S") && !world.exists("X"));
    extra.grant();
    world.until_follows("S", "db", 2, &[]);
    world.until_follows("X", "probe", 1, &[]);

    world.kubectl(&["scale", "statefulset", "web", "--replicas=3"]);
    world.until_follows("S", "db", 3, &[]);
    world.kubectl(&["delete", "pod", "web-1"]);
    world.until_follows("S", "db", 3, &[]);
    for kind in ["statefulset", "daemonset"] {
        world.until("the first sync is described", || {
            let text = world.kubectl(&["describe", kind, "web"]);
            text.lines().any(|line| line.contains("Synced") && line.contains("aci-sync"))
        });
    }
    world.kubectl(&["delete", "deployment", "web"]);
    world.until_gone("D");
    world.until_follows("S", "db", 3, &[]);
    world.kubectl(&["delete", "statefulset", "web"]);
    world.until_gone("S");
    world.until_follows("X", "probe", 1, &[]);
    assert_eq!(daemon.stop().0, Some(0));
}
