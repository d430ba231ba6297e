//! The setup of a test: a namespace of its own in the real cluster, a fabric of its own, and the daemon between them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sim::apic::{self, SimApic};

use crate::cluster::Cluster;
use crate::e2e_world::{Daemon, LIMIT, bare_command};
use crate::node;
use sim::folder::Folder;

/// The key of the annotation.
pub const KEY: &str = "aci.haystacknetworks.com/l3o";

/// Both sides. The tenant, whose name no other story has, has a VRF with the L3Outs `L` and `M` in it.
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// The namespace.
    pub namespace: String,
    /// The tenant.
    pub tenant: String,
    /// The L3Out that is meant if none is named.
    pub l3out: &'static str,
    /// The fabric.
    pub apic: SimApic,
    folder: Folder,
}

impl World {
    /// A new one.
    pub fn new() -> World {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        World::named(&format!("story-{}-{number}", std::process::id()), &format!("T{number}"), "L")
    }

    /// With these names.
    pub fn named(namespace: &str, tenant: &str, l3out: &'static str) -> World {
        node::start();
        let (namespace, tenant) = (namespace.to_owned(), tenant.to_owned());
        let apic = SimApic::start(apic::Options::default());
        apic.setup_tenant(&tenant, "V", &[l3out, "M"]).unwrap();
        // What is below a new object may not be announced for a while; this tenant has been there for long.
        apic.advance(Duration::from_secs(60));
        let folder = Folder::new();
        folder.file("apic-ca.pem", &apic.ca_pem());
        folder.file("password", apic.password());
        let world = World { cluster: Cluster::get(), namespace, tenant, l3out, apic, folder };
        world.make_namespace(&world.namespace);
        world
    }

    /// Makes a namespace in which Pods can be made: admission wants its ServiceAccount with a token.
    pub fn make_namespace(&self, name: &str) {
        self.cluster.kubectl(&["create", "namespace", name]);
        let path = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        self.until("the namespace can hold Pods", || self.cluster.read(&path)["secrets"][0].is_object());
    }

    /// Deletes a namespace and waits until there are no Pods in it.
    pub fn delete_namespace(&self, name: &str) {
        self.cluster.delete(&format!("/apis/apps/v1/namespaces/{name}/deployments?propagationPolicy=Background"));
        self.cluster.delete(&format!("/api/v1/namespaces/{name}"));
        let end = Instant::now() + LIMIT;
        let pods = format!("/api/v1/namespaces/{name}/pods");
        while Instant::now() < end && self.cluster.read(&pods)["items"][0].is_object() {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Starts the daemon as the ServiceAccount that `scripts/kubernetes-rbac.yaml` describes, with some flags more.
    pub fn run(&self, flags: &[&str]) -> Daemon {
        self.run_as("service-account.kubeconfig", flags)
    }

    /// The same with another kubeconfig of the control plane's folder.
    pub fn run_as(&self, kubeconfig: &str, flags: &[&str]) -> Daemon {
        Daemon::start(self.command(self.cluster.file(kubeconfig), &[&["run"], flags].concat()))
    }

    /// The program with all that it needs to know.
    pub fn command(&self, kubeconfig: PathBuf, words: &[&str]) -> std::process::Command {
        let mut command = bare_command(words);
        let file = |name: &str| self.folder.path().join(name);
        command
            .env("ACI_USERNAME", self.apic.username())
            .env("ACI_SYNC_PASSWORD_FILE", file("password"))
            .env("ACI_SYNC_APIC_CA", file("apic-ca.pem"))
            .env("ACI_SYNC_KUBECONFIG", kubeconfig)
            .env("ACI_APIC", self.apic.apic());
        command
    }

    /// kubectl in the story's namespace.
    #[track_caller]
    pub fn kubectl(&self, words: &[&str]) -> String {
        self.cluster.kubectl(&[&["--namespace", &self.namespace], words].concat())
    }

    /// The value of the annotation that names an EPG of the L3Out.
    pub fn annotation(&self, epg: &str) -> String {
        json!({"tenant": self.tenant, "l3out": self.l3out, "epg": epg}).to_string()
    }

    /// Applies a Deployment of a name, for an EPG or for none, with some replicas. Its Pods have the label `app:
    /// {name}`.
    pub fn deploy(&self, name: &str, epg: Option<&str>, replicas: usize) {
        self.cluster.apply(&self.deployment(name, epg, replicas).to_string());
    }

    /// Its manifest.
    pub fn deployment(&self, name: &str, epg: Option<&str>, replicas: usize) -> Value {
        let annotations = epg.map(|epg| json!({KEY: self.annotation(epg)}));
        let labels = json!({"app": name});
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": self.namespace, "annotations": annotations},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none"}]}},
            },
        })
    }

    /// The Pods with `app: {name}`, as the server shows them.
    pub fn pods(&self, app: &str) -> Vec<Value> {
        let path = format!("/api/v1/namespaces/{}/pods?labelSelector=app%3D{app}", self.namespace);
        self.cluster.read(&path)["items"].as_array().cloned().unwrap_or_default()
    }

    /// The name of one of them.
    pub fn a_pod(&self, app: &str) -> String {
        self.pods(app)[0]["metadata"]["name"].as_str().unwrap().to_owned()
    }

    /// The prefixes of the addresses of those that run.
    pub fn addresses(&self, app: &str) -> BTreeSet<String> {
        let pods = self.pods(app);
        let running = pods.iter().filter(|it| it["status"]["phase"] == "Running");
        running
            .flat_map(|it| it["status"]["podIPs"].as_array().into_iter().flatten())
            .map(|it| prefix(&it["ip"]))
            .collect()
    }

    /// The prefixes that an EPG holds.
    pub fn subnets(&self, epg: &str) -> BTreeSet<String> {
        self.apic.subnets(&self.dn(epg)).into_keys().collect()
    }

    /// Its DN.
    pub fn dn(&self, epg: &str) -> String {
        format!("uni/tn-{}/out-{}/instP-{epg}", self.tenant, self.l3out)
    }

    /// Whether an EPG is there.
    pub fn exists(&self, epg: &str) -> bool {
        self.apic.get(&self.dn(epg)).is_some()
    }

    /// Waits until this number of Pods with `app: {name}` are there that have not failed, all of them run, and the EPG
    /// holds their addresses and these besides, and nothing else.
    #[track_caller]
    pub fn until_follows(&self, epg: &str, app: &str, pods: usize, besides: &[&str]) {
        self.until(&format!("{epg} follows {pods} Pods of {app} and {besides:?}"), || {
            let expected = self.addresses(app);
            let there = self.pods(app).iter().filter(|it| it["status"]["phase"] != "Failed").count();
            let all_run = there == pods && expected.len() >= pods;
            let besides = besides.iter().map(|it| prefix(&json!(it)));
            all_run && self.exists(epg) && self.subnets(epg) == expected.into_iter().chain(besides).collect()
        });
    }

    /// Waits until an EPG holds exactly these host addresses.
    #[track_caller]
    pub fn until_holds(&self, epg: &str, addresses: &[&str]) {
        let expected: BTreeSet<String> = addresses.iter().map(|it| prefix(&json!(it))).collect();
        self.until(&format!("{epg} holds {addresses:?}"), || self.exists(epg) && self.subnets(epg) == expected);
    }

    /// Waits until an EPG is gone.
    #[track_caller]
    pub fn until_gone(&self, epg: &str) {
        self.until(&format!("{epg} is gone"), || !self.exists(epg));
    }

    /// Waits until something is true.
    #[track_caller]
    pub fn until(&self, what: &str, condition: impl Fn() -> bool) {
        self.until_within(LIMIT, what, condition);
    }

    /// The same with a time of its own.
    #[track_caller]
    pub fn until_within(&self, limit: Duration, what: &str, condition: impl Fn() -> bool) {
        let end = Instant::now() + limit;
        while !condition() {
            if Instant::now() >= end {
                let tree = self.apic.tree(&format!("uni/tn-{}", self.tenant));
                panic!("it never came about that {what}; the fabric: {tree:#?}");
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Waits until the daemon has served everything that was asked of it before: a new EPG is asked for, and served
    /// after all that came earlier.
    #[track_caller]
    pub fn settle(&self) {
        let epg = format!("settle-{}", self.apic.writes().len());
        self.deploy("settle", Some(&epg), 0);
        self.until("the daemon has served everything", || self.exists(&epg));
        self.kubectl(&["delete", "deployment", "settle"]);
    }
}

impl Drop for World {
    /// The next story finds a cluster without this one's objects.
    fn drop(&mut self) {
        self.delete_namespace(&self.namespace);
    }
}

/// The prefix of one address.
pub fn prefix(address: &Value) -> String {
    let address = address.as_str().unwrap();
    format!("{address}/{}", if address.contains(':') { 128 } else { 32 })
}
