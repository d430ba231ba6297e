//! Scheduler and kubelet for the Pods of the namespace kube-system, whose processes run: Pods are bound, started, probed,
//! restarted and stopped as their manifest says, and their status is written. `container.rs` is one of them; `node.rs` is
//! for all Pods without a process.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::container::{Container, Forward, grace};
use crate::node::{NODE, path};

/// Where aci-sync runs.
pub const NAMESPACE: &str = "kube-system";
/// Its Nodes, which are control plane nodes.
pub const NODES: [&str; 3] = ["master-1", "master-2", "master-3"];

/// Kubelet looks at Secrets and ConfigMaps again after a minute; the suite does not wait that long.
const REFRESH: Duration = Duration::from_secs(1);

/// It runs until it is dropped, and its processes end with it.
pub struct Kubelet {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

struct Shared {
    cluster: Cluster,
    folder: PathBuf,
    image: PathBuf,
    forwards: Vec<Forward>,
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: BTreeMap<String, Running>,
    /// Nodes that were lost.
    lost: BTreeSet<String>,
    addresses: u32,
}

struct Running {
    node: String,
    container: Container,
    live: Probe,
    ready: Probe,
    is_ready: bool,
    restarts: u32,
    refresh: Instant,
    /// When it is killed, once it has to stop.
    end: Option<Instant>,
}

/// A probe's next time, and its failures in a row.
struct Probe {
    at: Instant,
    failures: u64,
}

impl Probe {
    fn new() -> Probe {
        Probe { at: Instant::now(), failures: 0 }
    }

    /// Whether it succeeded, or has failed too often; `None` if neither is known now.
    fn turn(&mut self, container: &Container, pod: &Value, name: &str) -> Option<bool> {
        let probe = &pod["spec"]["containers"][0][name];
        if Instant::now() < self.at {
            return None;
        }
        let is_good = (200..400).contains(&container.probe(pod, probe));
        self.at = Instant::now() + Duration::from_secs(probe["periodSeconds"].as_u64().unwrap());
        self.failures = if is_good { 0 } else { self.failures + 1 };
        (is_good || self.failures >= probe["failureThreshold"].as_u64().unwrap()).then_some(is_good)
    }
}

impl Kubelet {
    /// Begins the work on all Nodes. Pods reach the API server at the address of the Service `kubernetes`, and what else
    /// is named here at its own; what is below `folder` is theirs.
    pub fn start(cluster: &Cluster, folder: &Path, others: &[String]) -> Kubelet {
        assert!(rustix::process::geteuid().is_root(), "namespaces, mounts and the user of a Pod need root");
        for node in NODES {
            let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
            cluster.send("POST", "/api/v1/nodes", &object);
            // Admission adds a taint that ends when a Node is ready; that of a control plane node stays.
            let taint = json!({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"});
            let spec = json!({"spec": {"taints": [taint]}});
            assert_eq!(cluster.send("PATCH", &format!("/api/v1/nodes/{node}"), &spec), 200);
        }
        let image = folder.join("aci-sync");
        let program = std::env::var("ACI_SYNC_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_aci-sync").to_owned());
        std::fs::copy(program, &image).unwrap();
        std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o755)).unwrap();

        let service = cluster.read("/api/v1/namespaces/default/services/kubernetes");
        let seen =
            format!("{}:{}", service["spec"]["clusterIP"].as_str().unwrap(), service["spec"]["ports"][0]["port"]);
        let server = std::fs::read_to_string(cluster.file("admin.kubeconfig")).unwrap();
        let server = server.split("https://").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let others = others.iter().map(|it| (it.clone(), it.clone()));
        let forwards = std::iter::once((seen, server)).chain(others).enumerate().map(|(number, (seen, target))| {
            let socket = folder.join(format!("{number}.sock"));
            forward(&socket, target);
            let (address, port) = seen.rsplit_once(':').unwrap();
            (address.to_owned(), port.to_owned(), socket)
        });
        let forwards = forwards.collect();
        let (stop, state) = (AtomicBool::new(false), Mutex::default());
        let shared =
            Arc::new(Shared { cluster: cluster.clone(), folder: folder.join("pods"), image, forwards, stop, state });
        let worker = shared.clone();
        let worker = thread::spawn(move || {
            while !worker.stop.load(Ordering::SeqCst) {
                worker.turn();
                thread::park_timeout(Duration::from_millis(50));
            }
        });
        Kubelet { shared, worker: Some(worker) }
    }

    /// The log of a Pod that runs or ran.
    pub fn log(&self, pod: &str) -> String {
        std::fs::read_to_string(self.shared.folder.join(pod).join("log")).unwrap_or_default()
    }

    /// The process id of a Pod.
    pub fn id(&self, pod: &str) -> u32 {
        self.shared.state.lock().unwrap().running[pod].container.id()
    }

    /// Where a Pod's volume is.
    pub fn volume(&self, pod: &str, volume: &str) -> PathBuf {
        self.shared.folder.join(pod).join("volumes").join(volume)
    }

    /// The folder of all Pods.
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// A Pod's process stops to run, or goes on.
    pub fn freeze(&self, pod: &str, is_frozen: bool) {
        let mut state = self.shared.state.lock().unwrap();
        state.running.get_mut(pod).unwrap().container.signal(if is_frozen { "STOP" } else { "CONT" });
    }

    /// A Node loses its power: its processes are killed, and nothing of it is served any more.
    pub fn lose(&self, node: &str) {
        let mut state = self.shared.state.lock().unwrap();
        state.lost.insert(node.to_owned());
        state.running.retain(|_, it| it.node != node);
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = self.worker.take().unwrap().join();
        self.shared.state.lock().unwrap().running.clear();
        for node in NODES {
            self.shared.cluster.delete(&format!("/api/v1/nodes/{node}"));
        }
    }
}

impl Shared {
    fn turn(&self) {
        let read = |path: &str| self.cluster.read(path)["items"].as_array().cloned();
        let all = read(&format!("/api/v1/namespaces/{NAMESPACE}/pods")).zip(read("/api/v1/nodes"));
        let Some((pods, nodes)) = all else { return };
        let mut state = self.state.lock().unwrap();
        // A Pod that was deleted by force has no process any more.
        state.running.retain(|name, _| pods.iter().any(|it| it["metadata"]["name"] == name.as_str()));
        // One at a time, so that the next one sees where this one is.
        if let Some(pod) = pods.iter().find(|it| !it["spec"]["nodeName"].is_string()) {
            self.schedule(&state, pod, &pods, &nodes);
        }
        for pod in &pods {
            match pod["spec"]["nodeName"].as_str() {
                None => {}
                Some(node) if state.lost.contains(node) => {}
                Some(_) if pod["metadata"]["deletionTimestamp"].is_string() => self.stop(&mut state, pod),
                Some(_) => self.serve(&mut state, pod),
            }
        }
    }

    /// On a Node that is not cordoned and whose taints are tolerated; of several, on the one with the fewest Pods that its
    /// anti-affinity names.
    fn schedule(&self, state: &State, pod: &Value, pods: &[Value], nodes: &[Value]) {
        let tolerates = |taint: &Value| {
            let tolerations = pod["spec"]["tolerations"].as_array().into_iter().flatten();
            tolerations.into_iter().any(|it| it["key"] == taint["key"] && it["effect"] == taint["effect"])
        };
        let fits = |node: &&Value| {
            let taints = node["spec"]["taints"].as_array().into_iter().flatten();
            let is_up = !state.lost.contains(node["metadata"]["name"].as_str().unwrap());
            is_up && node["spec"]["unschedulable"] != true && taints.into_iter().all(tolerates)
        };
        let preferred = &pod["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
        let avoided = preferred[0]["podAffinityTerm"]["labelSelector"]["matchLabels"].as_object();
        let is_avoided = |other: &&Value| {
            let labels = &other["metadata"]["labels"];
            avoided.is_some_and(|it| it.iter().all(|(name, value)| labels[name] == *value))
        };
        let load = |node: &&Value| {
            let here = pods.iter().filter(|it| it["spec"]["nodeName"] == node["metadata"]["name"]);
            here.filter(is_avoided).count()
        };
        if let Some(node) = nodes.iter().filter(fits).min_by_key(load) {
            let target = json!({"apiVersion": "v1", "kind": "Node", "name": node["metadata"]["name"]});
            let name = json!({"name": pod["metadata"]["name"]});
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": name, "target": target});
            self.cluster.send("POST", &format!("{}/binding", path(pod)), &binding);
        }
    }

    fn serve(&self, state: &mut State, pod: &Value) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let start = |address: String| {
            let folder = self.folder.join(name);
            Container::start(&self.cluster, pod, folder, address, &self.image, &self.forwards)
        };
        let Some(running) = state.running.get_mut(name) else {
            state.addresses += 1;
            if let Some(container) = start(format!("10.245.0.{}", state.addresses)) {
                let now = Instant::now();
                let node = pod["spec"]["nodeName"].as_str().unwrap().to_owned();
                let (live, ready) = (Probe::new(), Probe::new());
                let running = Running {
                    node,
                    container,
                    live,
                    ready,
                    is_ready: false,
                    restarts: 0,
                    refresh: now + REFRESH,
                    end: None,
                };
                self.report(pod, &running);
                state.running.insert(name.to_owned(), running);
            }
            return;
        };
        if running.refresh <= Instant::now() {
            running.container.refresh(&self.cluster, pod);
            running.refresh = Instant::now() + REFRESH;
        }
        let is_dead = running.live.turn(&running.container, pod, "livenessProbe") == Some(false);
        if is_dead || running.container.ended().is_some() {
            let Some(container) = start(running.container.address.clone()) else { return };
            running.container = container;
            (running.live, running.ready) = (Probe::new(), Probe::new());
            running.is_ready = false;
            running.restarts += 1;
            self.report(pod, running);
        } else if let Some(is_ready) = running.ready.turn(&running.container, pod, "readinessProbe")
            && is_ready != running.is_ready
        {
            running.is_ready = is_ready;
            self.report(pod, running);
        }
    }

    fn stop(&self, state: &mut State, pod: &Value) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        if let Some(running) = state.running.get_mut(name) {
            let end = *running.end.get_or_insert_with(|| {
                running.container.signal("TERM");
                Instant::now() + grace(pod)
            });
            if running.container.ended().is_none() && Instant::now() < end {
                return;
            }
            state.running.remove(name);
        }
        self.cluster.delete(&format!("{}?gracePeriodSeconds=0", path(pod)));
    }

    fn report(&self, pod: &Value, running: &Running) {
        let container = &pod["spec"]["containers"][0];
        let (address, ready) = (&running.container.address, if running.is_ready { "True" } else { "False" });
        let state = json!({"running": {"startedAt": "2024-01-01T00:00:00Z"}});
        let status = json!({"status": {
            "phase": "Running", "hostIP": NODE, "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2024-01-01T00:00:00Z"}],
            "containerStatuses": [{"name": container["name"], "image": container["image"], "imageID": "", "state": state,
                "ready": running.is_ready, "restartCount": running.restarts}],
        }});
        self.cluster.send("PATCH", &format!("{}/status", path(pod)), &status);
    }
}

/// Connections to a socket file lead to an address of this machine, as long as the test lives.
fn forward(socket: &Path, target: String) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for inside in listener.incoming().map_while(Result::ok) {
            let Ok(outside) = TcpStream::connect(&target) else { continue };
            let (from, to) = (inside.try_clone().unwrap(), outside.try_clone().unwrap());
            thread::spawn(move || pass(from, to, |it| drop(it.shutdown(std::net::Shutdown::Write))));
            thread::spawn(move || pass(outside, inside, |it: UnixStream| drop(it.shutdown(std::net::Shutdown::Write))));
        }
    });
}

fn pass<T: io::Write>(mut from: impl io::Read, mut to: T, end: impl Fn(T)) {
    let _ = io::copy(&mut from, &mut to);
    end(to);
}
