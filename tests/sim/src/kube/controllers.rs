//! What controller manager, scheduler, kubelet and load balancer would do: Deployments get ReplicaSets and Pods, Pods
//! get addresses and run. Shapes as in the recordings.

use serde_json::{Value, json};

use super::store::Store;

/// The annotation that enrols a Deployment.
pub(super) const ANNOTATION: &str = "aci.haystacknetworks.com/l3o";

/// A Deployment whose Pods are labelled `app: {name}`.
pub(super) fn deployment(namespace: &str, name: &str, annotation: Option<&str>, replicas: usize) -> Value {
    let mut metadata = json!({"name": name, "namespace": namespace, "labels": {"app": name}});
    if let Some(annotation) = annotation {
        metadata["annotations"] = json!({ANNOTATION: annotation});
    }
    let template = json!({"metadata": {"labels": {"app": name}}, "spec": pod_spec()});
    json!({"metadata": metadata, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}})
}

fn pod_spec() -> Value {
    json!({"containers": [{"name": "main", "image": "registry.example/app:1.0", "resources": {}}], "restartPolicy": "Always"})
}

fn owner(kind: &str, api: &str, object: &Value) -> Value {
    json!([{"apiVersion": api, "kind": kind, "name": object["metadata"]["name"], "uid": object["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true}])
}

/// The ReplicaSet of a Deployment; it is made if there is none.
pub(super) fn replica_set(store: &Store, namespace: &str, deployment: &str) -> Value {
    let hash = "646c8dfd75";
    let name = format!("{deployment}-{hash}");
    if let Some(present) = store.get("replicasets", namespace, &name) {
        return present;
    }
    let owned =
        store.get("deployments", namespace, deployment).unwrap_or_else(|| json!({"metadata": {"name": deployment}}));
    let mut labels = owned["spec"]["template"]["metadata"]["labels"].clone();
    if labels.is_null() {
        labels = json!({"app": deployment});
    }
    labels["pod-template-hash"] = hash.into();
    let metadata = json!({"name": name, "namespace": namespace, "labels": labels,
        "ownerReferences": owner("Deployment", "apps/v1", &owned)});
    store.apply("replicasets", json!({"metadata": metadata, "spec": {"replicas": owned["spec"]["replicas"]}}))
}

/// A Pod of a ReplicaSet, as it is before a node has it.
pub(super) fn pod(replica_set: &Value, name: &str) -> Value {
    let metadata = json!({"name": name, "namespace": replica_set["metadata"]["namespace"],
        "labels": replica_set["metadata"]["labels"], "ownerReferences": owner("ReplicaSet", "apps/v1", replica_set)});
    json!({"metadata": metadata, "spec": pod_spec(), "status": {"phase": "Pending", "qosClass": "BestEffort"}})
}

/// The same of a StatefulSet or DaemonSet, which owns its Pods itself.
pub(super) fn pod_of(workload: &Value, name: &str) -> Value {
    let mut labels = workload["spec"]["template"]["metadata"]["labels"].clone();
    labels["controller-revision-hash"] = "5c8d7b9f4".into();
    if workload["kind"] == "StatefulSet" {
        labels["statefulset.kubernetes.io/pod-name"] = name.into();
    }
    let owners = owner(workload["kind"].as_str().unwrap_or_default(), "apps/v1", workload);
    let metadata = json!({"name": name, "namespace": workload["metadata"]["namespace"], "labels": labels,
        "ownerReferences": owners});
    json!({"metadata": metadata, "spec": pod_spec(), "status": {"phase": "Pending", "qosClass": "BestEffort"}})
}

/// A patch that makes a Pod run at its addresses.
pub(super) fn running(addresses: &[&str]) -> Value {
    let all: Vec<Value> = addresses.iter().map(|it| json!({"ip": it})).collect();
    let conditions = json!([{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]);
    json!({"spec": {"nodeName": "node-1"}, "status": {"phase": "Running", "hostIP": "192.168.39.11",
        "podIP": addresses.first(), "podIPs": all, "conditions": conditions}})
}

/// A LoadBalancer Service before it has an address.
pub(super) fn load_balancer(namespace: &str, name: &str, app: &str) -> Value {
    let spec = json!({"type": "LoadBalancer", "selector": {"app": app}, "ports": [{"protocol": "TCP", "port": 80}]});
    json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec, "status": {"loadBalancer": {}}})
}

/// A patch that gives a Service its addresses.
pub(super) fn ingress(addresses: &[&str]) -> Value {
    let all: Vec<Value> = addresses.iter().map(|it| json!({"ip": it, "ipMode": "VIP"})).collect();
    json!({"status": {"loadBalancer": {"ingress": all}}})
}

/// Brings Pods in line with their Deployments: as many as it says, none without it; each with an address of its own.
/// Pods that are asked to end do so at once.
pub(super) fn settle(store: &Store) {
    for pod in store.list("pods", "").1.iter().filter(|it| it["metadata"]["deletionTimestamp"].is_string()) {
        let text = |name: &str| pod["metadata"][name].as_str().unwrap_or_default();
        store.delete("pods", text("namespace"), text("name"));
    }
    let (_, deployments) = store.list("deployments", "");
    for deployment in &deployments {
        let text = |name: &str| deployment["metadata"][name].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let replicas = deployment["spec"]["replicas"].as_u64().unwrap_or(1) as usize;
        let replica_set = replica_set(store, namespace, name);
        let mine = pods_of(store, &replica_set);
        for surplus in mine.iter().skip(replicas) {
            store.delete("pods", namespace, surplus["metadata"]["name"].as_str().unwrap());
        }
        for _ in mine.len()..replicas {
            let number = store.version();
            let name = format!("{}-{number:05x}", replica_set["metadata"]["name"].as_str().unwrap());
            store.create("pods", pod(&replica_set, &name)).unwrap();
            let address = format!("10.244.{}.{}", 1 + number / 200 % 200, 10 + number % 200);
            store.patch("pods", namespace, &name, &running(&[&address])).unwrap();
        }
    }
    let (_, replica_sets) = store.list("replicasets", "");
    for replica_set in &replica_sets {
        let text = |name: &str| replica_set["metadata"][name].as_str().unwrap_or_default();
        let owner = replica_set["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or_default();
        if store.get("deployments", text("namespace"), owner).is_none() {
            for pod in pods_of(store, replica_set) {
                store.delete("pods", text("namespace"), pod["metadata"]["name"].as_str().unwrap());
            }
            store.delete("replicasets", text("namespace"), text("name"));
        }
    }
}

fn pods_of(store: &Store, replica_set: &Value) -> Vec<Value> {
    let namespace = replica_set["metadata"]["namespace"].as_str().unwrap_or_default();
    let (_, mut pods) = store.list("pods", namespace);
    pods.retain(|it| it["metadata"]["ownerReferences"][0]["uid"] == replica_set["metadata"]["uid"]);
    pods
}
