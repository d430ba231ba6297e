//! SimKube: lists, watches and writes as a kube-apiserver answers them (reference: recordings of kube-apiserver 1.36
//! and client-go's sources), enough of them for Deployments, ReplicaSets, Pods, Services, namespaces, Leases and
//! Events.

mod api;
mod controllers;
mod events;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};

use crate::net::{Fault, Server};
use crate::pki::{Authority, KeyForm, Pair, base64};
use store::Store;

/// How a SimKube is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 takes any.
    pub address: SocketAddr,
    /// Deployments get their ReplicaSet and running Pods by themselves.
    pub controllers: bool,
    /// A path in front of every path, as a proxy in front of several clusters has.
    pub prefix: String,
    /// The names in the server's certificate.
    pub names: Vec<String>,
    /// A watch that is too old is refused with HTTP 410; real servers do it in the stream.
    pub gone_as_status: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            address: ([127, 0, 0, 1], 0).into(),
            controllers: false,
            prefix: String::new(),
            names: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
            gone_as_status: false,
        }
    }
}

/// One request as it was answered.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When it was read.
    pub at: Instant,
    /// The method.
    pub method: String,
    /// The request target.
    pub target: String,
    /// Who asked.
    pub user: String,
}

/// A credential in a kubeconfig.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// A client certificate whose key has this form.
    Certificate(KeyForm),
    /// A bearer token.
    Token,
    /// None at all.
    Nothing,
}

/// The token that is accepted at first.
pub const TOKEN: &str = "sim-kube-token-1";

/// When a watch handed a change to TLS, by the version of the change; kept only on request.
#[derive(Default)]
pub(crate) struct Handed(Option<BTreeMap<u64, Instant>>);

impl Handed {
    pub(crate) fn note(&mut self, version: u64) {
        if let Some(kept) = &mut self.0 {
            kept.entry(version).or_insert_with(Instant::now);
        }
    }
}

pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) ca: Authority,
    pub(crate) options: Options,
    pub(crate) journal: Mutex<Vec<Entry>>,
    pub(crate) denied: Mutex<BTreeSet<(String, String)>>,
    pub(crate) tokens: Mutex<BTreeSet<String>>,
    pub(crate) refused: Mutex<BTreeSet<String>>,
    pub(crate) handed: Mutex<Handed>,
    pub(crate) failing: Mutex<Option<(u16, String)>>,
}

/// A copy of the storage at one moment.
pub struct Backup(store::Content);

/// A simulated API server. It stops when it is dropped.
pub struct SimKube {
    shared: Arc<Shared>,
    server: Server,
}

impl SimKube {
    /// Starts one with an empty cluster, but for the namespaces every cluster has.
    pub fn start(options: Options) -> SimKube {
        let ca = Authority::new("sim-kubernetes-ca");
        let names: Vec<&str> = options.names.iter().map(String::as_str).collect();
        let identity: Pair = ca.server(&names);
        let address = options.address;
        let shared = Arc::new(Shared {
            store: Store::default(),
            ca,
            options,
            journal: Mutex::default(),
            // Only a review asks for it: this user is no administrator, unless a test allows it.
            denied: Mutex::new([("*".to_owned(), "*".to_owned())].into()),
            tokens: Mutex::new([TOKEN.to_owned()].into()),
            refused: Mutex::default(),
            handed: Mutex::default(),
            failing: Mutex::default(),
        });
        for name in ["kube-system", "default"] {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            shared.store.create("namespaces", namespace).unwrap();
        }
        let server = Server::start(address, &identity, shared.clone()).unwrap();
        SimKube { shared, server }
    }

    /// `https://host:port` and the prefix.
    pub fn url(&self) -> String {
        format!("https://{}{}", self.server.address(), self.shared.options.prefix)
    }

    /// The HTTPS server, for trouble and for being away.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Adds trouble.
    pub fn fault(&self, fault: Fault) {
        self.server.fault(fault);
    }

    /// The CA's certificate.
    pub fn ca_pem(&self) -> String {
        self.shared.ca.pem()
    }

    /// A client certificate of the cluster's CA.
    pub fn client(&self, user: &str, form: KeyForm) -> Pair {
        self.shared.ca.client(user, &["system:masters"], form)
    }

    /// Another way in to the same cluster, for trouble that concerns one client only.
    pub fn another_server(&self) -> Server {
        let options = &self.shared.options;
        let names: Vec<&str> = options.names.iter().map(String::as_str).collect();
        let address = SocketAddr::new(options.address.ip(), 0);
        Server::start(address, &self.shared.ca.server(&names), self.shared.clone()).unwrap()
    }

    /// A kubeconfig with everything in it.
    pub fn kubeconfig(&self, credential: Credential) -> String {
        self.kubeconfig_at(&self.server, credential)
    }

    /// The same for one way in.
    pub fn kubeconfig_at(&self, server: &Server, credential: Credential) -> String {
        let user = match credential {
            Credential::Certificate(form) => {
                let pair = self.client("kubernetes-admin", form);
                json!({
                    "client-certificate-data": base64(&pair.certificate_pem()),
                    "client-key-data": base64(&pair.key_pem(form)),
                })
            }
            Credential::Token => json!({"token": TOKEN}),
            Credential::Nothing => json!({}),
        };
        let url = format!("https://{}{}", server.address(), self.shared.options.prefix);
        let cluster = json!({"server": url, "certificate-authority-data": base64(&self.ca_pem())});
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "sim",
            "contexts": [{"name": "sim", "context": {"cluster": "sim", "user": "sim"}}],
            "clusters": [{"name": "sim", "cluster": cluster}],
            "users": [{"name": "sim", "user": user}],
        });
        serde_json::to_string_pretty(&config).unwrap()
    }

    /// What was asked so far.
    pub fn journal(&self) -> Vec<Entry> {
        self.shared.journal.lock().unwrap().clone()
    }

    /// Takes a permission away from all users: a verb (`list`, `watch`, `get` ...) on a resource (`pods` ...).
    pub fn deny(&self, verb: &str, resource: &str) {
        self.shared.denied.lock().unwrap().insert((verb.to_owned(), resource.to_owned()));
    }

    /// Gives it back.
    pub fn allow(&self, verb: &str, resource: &str) {
        self.shared.denied.lock().unwrap().remove(&(verb.to_owned(), resource.to_owned()));
    }

    /// Replaces the accepted tokens.
    pub fn accept_tokens(&self, tokens: &[&str]) {
        *self.shared.tokens.lock().unwrap() = tokens.iter().map(|it| (*it).to_owned()).collect();
    }

    /// Refuses certificates of a user from now on, as if they had run out.
    pub fn refuse_user(&self, user: &str) {
        self.shared.refused.lock().unwrap().insert(user.to_owned());
    }

    /// Forgets the history, so that older versions get their 410, and with it the continue tokens.
    pub fn compact(&self) {
        self.shared.store.compact();
    }

    /// From now on a watch from a version that is forgotten gets this in its stream in place of the 410: code and
    /// message, as an API server passes on what its etcd says.
    pub fn fail_old_watches(&self, code: u16, message: &str) {
        *self.shared.failing.lock().unwrap() = Some((code, message.to_owned()));
    }

    /// A copy of the whole storage.
    pub fn backup(&self) -> Backup {
        Backup(self.shared.store.backup())
    }

    /// Puts a copy back, as after a restore of etcd: versions go back, and the watches that are open hear nothing of
    /// it.
    pub fn restore(&self, backup: &Backup) {
        self.shared.store.restore(&backup.0);
    }

    /// Renders everything that lists will show, so that it costs nothing when they are asked for.
    pub fn render(&self) {
        self.shared.store.render();
    }

    /// From now on it is noted when each change is first handed to a watch's TLS; what was noted so far, by the
    /// change's version.
    pub fn handed(&self) -> BTreeMap<u64, Instant> {
        self.shared.handed.lock().unwrap().0.replace(BTreeMap::new()).unwrap_or_default()
    }

    /// The UID of a namespace.
    pub fn namespace_uid(&self, name: &str) -> String {
        self.get("namespaces", "", name).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// One object. The resource is the plural word of the URL.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.shared.store.get(resource, namespace, name)
    }

    /// All objects of a resource.
    pub fn all(&self, resource: &str) -> Vec<Value> {
        self.shared.store.list(resource, "").1
    }

    /// Makes an object, or changes it as a merge patch does.
    pub fn apply(&self, resource: &str, object: Value) -> Value {
        let done = self.shared.store.apply(resource, object);
        self.settle();
        done
    }

    /// A merge patch, of the status too.
    pub fn patch(&self, resource: &str, namespace: &str, name: &str, patch: Value) -> Value {
        let done = self.shared.store.patch(resource, namespace, name, &patch).unwrap();
        self.settle();
        done
    }

    /// Removes an object at once.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        self.shared.store.delete(resource, namespace, name);
        self.settle();
    }

    /// Lets the controllers do what there is to do.
    fn settle(&self) {
        if self.shared.options.controllers {
            controllers::settle(&self.shared.store);
        }
    }

    /// A Deployment with one running Pod for each address. The Pods are `{name}-{hash}-{n}`; their names come back.
    pub fn deploy(&self, namespace: &str, name: &str, annotation: Option<&str>, addresses: &[&str]) -> Vec<String> {
        self.apply("deployments", controllers::deployment(namespace, name, annotation, addresses.len()));
        let addresses = addresses.iter().enumerate();
        addresses.map(|(n, address)| self.pod(namespace, name, &n.to_string(), &[address])).collect()
    }

    /// A running Pod of a Deployment, by the ReplicaSet in between; its name.
    pub fn pod(&self, namespace: &str, deployment: &str, suffix: &str, addresses: &[&str]) -> String {
        let replica_set = controllers::replica_set(&self.shared.store, namespace, deployment);
        let name = format!("{}-{suffix}", replica_set["metadata"]["name"].as_str().unwrap());
        self.apply("pods", controllers::pod(&replica_set, &name));
        self.patch("pods", namespace, &name, controllers::running(addresses));
        name
    }

    /// A StatefulSet or DaemonSet with one running Pod for each address, by the plural word of its kind. The Pods are
    /// `{name}-{n}`, those of a DaemonSet `{name}-node-{n}`.
    pub fn deploy_as(&self, resource: &str, namespace: &str, name: &str, annotation: Option<&str>, addresses: &[&str]) {
        self.apply(resource, controllers::deployment(namespace, name, annotation, addresses.len()));
        for (n, address) in addresses.iter().enumerate() {
            self.pod_of(resource, namespace, name, &n.to_string(), &[address]);
        }
    }

    /// A running Pod of a StatefulSet or DaemonSet.
    pub fn pod_of(&self, resource: &str, namespace: &str, name: &str, suffix: &str, addresses: &[&str]) {
        let owner = self.get(resource, namespace, name).unwrap();
        let node = if resource == "daemonsets" { "node-" } else { "" };
        let pod = format!("{name}-{node}{suffix}");
        self.apply("pods", controllers::pod_of(&owner, &pod));
        self.patch("pods", namespace, &pod, controllers::running(addresses));
    }

    /// A Service of type LoadBalancer that selects `app: {app}`, with its addresses.
    pub fn load_balancer(&self, namespace: &str, name: &str, app: &str, addresses: &[&str]) {
        self.apply("services", controllers::load_balancer(namespace, name, app));
        self.patch("services", namespace, name, controllers::ingress(addresses));
    }

    /// Changes the annotation, or removes it.
    pub fn annotate(&self, namespace: &str, deployment: &str, annotation: Option<&str>) {
        let annotations = json!({controllers::ANNOTATION: annotation});
        self.patch("deployments", namespace, deployment, json!({"metadata": {"annotations": annotations}}));
    }
}
