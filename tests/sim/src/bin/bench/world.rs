//! The world that is measured: a cluster of so many Pods, and the fabric it hangs off.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::{Value, json};
use sim::apic::{self, SimApic};
use sim::kube::{self, SimKube};
use sim::lab::Lab;

/// Pods of a Deployment, where nothing else is said.
pub const PODS_EACH: usize = 20;
const PODS_A_SERVICE: usize = 50;
const L3OUTS: usize = 20;
const TENANTS: usize = 7;
const NAMESPACE: &str = "bench";

/// A lab with so many Pods in it.
pub struct World {
    /// Both servers.
    pub lab: Lab,
    /// How many EPGs the fabric should have in the end.
    pub epgs: usize,
    /// How many subnets.
    pub subnets: usize,
    /// How many Pods the cluster has.
    pods: usize,
    shape: Shape,
}

/// How Pods are spread over Deployments.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Pods of a Deployment.
    pub pods_each: usize,
    /// One of so many Deployments is enrolled.
    pub enrolled_one_of: usize,
}

impl Shape {
    fn is_enrolled(self, deployment: usize) -> bool {
        deployment.is_multiple_of(self.enrolled_one_of)
    }
}

impl World {
    /// Half of the Deployments are enrolled.
    pub fn new(pods: usize) -> World {
        World::of_shape(pods, Shape { pods_each: PODS_EACH, enrolled_one_of: 2 })
    }

    /// Each enrolled Deployment has an EPG of its own; all bodies are rendered.
    pub fn of_shape(pods: usize, shape: Shape) -> World {
        let kube = SimKube::start(kube::Options::default());
        let deployments = pods.div_ceil(shape.pods_each);
        for n in 0..deployments {
            kube.apply("deployments", deployment(n, shape));
        }
        for n in 0..pods {
            kube.apply("pods", pod(n, n / shape.pods_each));
        }
        let mut subnets = (0..pods).filter(|n| shape.is_enrolled(n / shape.pods_each)).count();
        for n in 0..pods / PODS_A_SERVICE {
            let of = n * PODS_A_SERVICE / shape.pods_each;
            kube.load_balancer(NAMESPACE, &format!("lb-{n:05}"), &name(of), &[&address(11, n)]);
            subnets += usize::from(shape.is_enrolled(of));
        }
        // What happened before the start is nothing that a watch would be told.
        kube.compact();
        kube.render();
        let epgs = (0..deployments).filter(|n| shape.is_enrolled(*n)).count();
        World { lab: Lab { apic: fabric(), kube }, epgs, subnets, pods, shape }
    }

    /// The same cluster on an empty fabric.
    pub fn empty_fabric(&mut self) {
        self.lab.apic = fabric();
    }

    /// One more Pod in one of the enrolled Deployments; the version of the change.
    pub fn one_more(&self, n: usize, address: &str) -> u64 {
        let mut pod = pod(n, n % self.epgs.min(100) * self.shape.enrolled_one_of);
        pod["status"]["podIP"] = address.into();
        pod["status"]["podIPs"] = json!([{"ip": address}]);
        let made = self.lab.kube.apply("pods", pod);
        made["metadata"]["resourceVersion"].as_str().and_then(|it| it.parse().ok()).unwrap_or_default()
    }

    /// A tenth of all Pods is replaced at once. Returns when that began, and the new addresses that are exposed.
    pub fn node_goes(&self) -> (Instant, Vec<String>) {
        let (mut exposed, mut replaced) = (Vec::new(), Vec::new());
        for n in (0..self.pods).step_by(10) {
            let of = n / self.shape.pods_each;
            let old = pod(n, of);
            let mut new = pod(self.pods + n, of);
            let address = address(13, n);
            new["status"]["podIP"] = address.clone().into();
            new["status"]["podIPs"] = json!([{"ip": address}]);
            replaced.push((old["metadata"]["name"].as_str().unwrap_or_default().to_owned(), new));
            exposed.extend(self.shape.is_enrolled(of).then_some(format!("[{address}/32]")));
        }
        let begun = Instant::now();
        for (old, new) in replaced {
            self.lab.kube.delete("pods", NAMESPACE, &old);
            self.lab.kube.apply("pods", new);
        }
        (begun, exposed)
    }

    /// Whether these addresses are on the fabric.
    pub fn are_in(&self, addresses: &[String]) -> bool {
        let subnets = self.lab.apic.class("l3extSubnet");
        let there: BTreeSet<&str> = subnets.keys().filter_map(|dn| Some(&dn[dn.rfind('[')?..])).collect();
        addresses.iter().all(|it| there.contains(&**it))
    }

    /// One more Pod in the first Deployment.
    pub fn one_of_large(&mut self, n: usize) {
        self.lab.kube.apply("pods", pod(n, 0));
        self.subnets += 1;
    }

    /// The whole fabric is as it should be.
    pub fn is_converged(&self) -> bool {
        self.lab.apic.count("l3extSubnet") == self.subnets && self.lab.apic.count("l3extInstP") == self.epgs
    }
}

/// A fabric with the tenants and L3Outs, and nothing in them.
pub fn fabric() -> SimApic {
    let apic = SimApic::start(apic::Options::default());
    for tenant in 0..TENANTS {
        let l3outs: Vec<String> = (tenant..L3OUTS).step_by(TENANTS).map(l3out).collect();
        let l3outs: Vec<&str> = l3outs.iter().map(String::as_str).collect();
        apic.setup_tenant(&format!("TEN_{tenant}"), "VRF", &l3outs).expect("an empty fabric takes tenants");
    }
    apic.clear_journal();
    apic
}

fn l3out(n: usize) -> String {
    format!("L3O_{n:02}")
}

fn name(deployment: usize) -> String {
    format!("app-{deployment:05}")
}

fn address(first: usize, n: usize) -> String {
    format!("{first}.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255)
}

fn deployment(n: usize, shape: Shape) -> Value {
    let name = name(n);
    let mut metadata = json!({"name": name, "namespace": NAMESPACE, "labels": {"app": name}});
    if shape.is_enrolled(n) {
        let at = n / shape.enrolled_one_of % L3OUTS;
        let epg = json!({"tenant": format!("TEN_{}", at % TENANTS), "l3out": l3out(at), "epg": format!("EPG_{n:05}")});
        metadata["annotations"] = json!({"aci.haystacknetworks.com/l3o": epg.to_string()});
    }
    let template = json!({"metadata": {"labels": {"app": name}}, "spec": spec()});
    json!({"metadata": metadata, "spec": {"replicas": shape.pods_each, "selector": {"matchLabels": {"app": name}},
        "template": template}})
}

fn pod(n: usize, of: usize) -> Value {
    let (app, hash, address) = (name(of), "646c8dfd75", address(10, n));
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-{hash}"),
        "uid": format!("b2c3d4e5-0000-4000-8000-{of:012x}"), "controller": true, "blockOwnerDeletion": true}]);
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-11-22T21:14:53Z"});
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    let mut spec = spec();
    spec["nodeName"] = format!("node-{:03}", n % 200).into();
    json!({
        "metadata": {"name": format!("{app}-{hash}-{n:06}"), "generateName": format!("{app}-{hash}-"),
            "namespace": NAMESPACE, "labels": {"app": app, "pod-template-hash": hash}, "ownerReferences": owner,
            "annotations": {"cni.projectcalico.org/podIP": format!("{address}/32"),
                "cni.projectcalico.org/podIPs": format!("{address}/32"),
                "cni.projectcalico.org/containerID": format!("{n:064x}")}},
        "spec": spec,
        "status": {"phase": "Running", "qosClass": "Burstable", "hostIP": "192.168.39.11", "podIP": address,
            "podIPs": [{"ip": address}], "startTime": "2026-11-22T21:14:50Z",
            "conditions": conditions,
            "containerStatuses": [{"name": "main", "ready": true, "started": true, "restartCount": 0,
                "image": "registry.example/team/app:1.0", "imageID": format!("registry.example/team/app@sha256:{n:064x}"),
                "containerID": format!("containerd://{n:064x}"), "lastState": {},
                "state": {"running": {"startedAt": "2026-11-22T21:14:52Z"}}}]},
    })
}

/// As much as a real Pod has to say.
fn spec() -> Value {
    let variables: Vec<Value> = (0..16)
        .map(|n| json!({"name": format!("SETTING_{n:02}"), "value": format!("https://service-{n:02}.example.svc.cluster.local:8443/path")}))
        .collect();
    json!({"containers": [{"name": "main", "image": "registry.example/team/app:1.0", "imagePullPolicy": "IfNotPresent",
            "env": variables, "ports": [{"containerPort": 8080, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "volumeMounts": [{"name": "kube-api-access", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}],
        "volumes": [{"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}}],
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "default", "schedulerName": "default-scheduler", "enableServiceLinks": true,
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]})
}
