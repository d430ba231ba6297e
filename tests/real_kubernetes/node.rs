//! Scheduler, CNI and kubelet of a node that is not there: Pods are bound, get their addresses, run, and end, through
//! the same subresources that the real ones use. An address is given out again as soon as its Pod begins to end, the
//! one that came back last first: a CNI does no better.
//! No process runs. Those of the namespace kube-system are left to `kubelet.rs`, where the processes run.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::kubelet;

/// A Pod with this annotation is left to the story.
pub const BY_HAND: &str = "suite/by-hand";
/// A Pod with this annotation gets an IPv6 address too.
pub const DUAL: &str = "suite/dual";
/// The address of the node.
pub const NODE: &str = "192.0.2.10";

/// How many do the node's work. One Pod's is always done by the same.
const HANDS: u64 = 3;

struct Node {
    cluster: Cluster,
    addresses: Mutex<Addresses>,
}

#[derive(Default)]
struct Addresses {
    given: u32,
    free: Vec<u32>,
    by_pod: BTreeMap<String, u32>,
}

impl Addresses {
    fn of(&mut self, uid: &str) -> u32 {
        if let Some(number) = self.by_pod.get(uid) {
            return *number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.given += 1;
            self.given
        });
        self.by_pod.insert(uid.to_owned(), number);
        number
    }

    fn release(&mut self, uid: &str) {
        self.free.extend(self.by_pod.remove(uid));
    }
}

/// Begins the node's work, once for all stories.
pub fn start() {
    static NODE: OnceLock<()> = OnceLock::new();
    NODE.get_or_init(|| {
        let node = Arc::new(Node { cluster: Cluster::get(), addresses: Mutex::default() });
        let hands: Vec<Sender<Value>> = (0..HANDS)
            .map(|_| {
                let (send, pods) = channel();
                let node = node.clone();
                thread::spawn(move || pods.into_iter().for_each(|pod| node.serve(&pod)));
                send
            })
            .collect();
        thread::spawn(move || node.watch(&hands));
    });
}

impl Node {
    fn watch(&self, hands: &[Sender<Value>]) {
        loop {
            for mut event in self.cluster.watch("/api/v1/pods") {
                let pod = event["object"].take();
                if pod["metadata"]["namespace"] == kubelet::NAMESPACE {
                    continue;
                }
                let uid = uid(&pod);
                if event["type"] == "DELETED" {
                    self.addresses.lock().unwrap().release(&uid);
                    continue;
                }
                let mut hash = DefaultHasher::new();
                uid.hash(&mut hash);
                hands[(hash.finish() % HANDS) as usize].send(pod).unwrap();
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn serve(&self, pod: &Value) {
        let metadata = &pod["metadata"];
        let path = path(pod);
        let (uid, phase) = (uid(pod), pod["status"]["phase"].as_str().unwrap_or_default());
        if metadata["annotations"][BY_HAND].is_string() {
            return;
        }
        if metadata["deletionTimestamp"].is_string() {
            self.addresses.lock().unwrap().release(&uid);
            self.insist(|cluster| cluster.delete(&format!("{path}?gracePeriodSeconds=0")));
        } else if matches!(phase, "Succeeded" | "Failed") {
            self.addresses.lock().unwrap().release(&uid);
        } else if !pod["spec"]["nodeName"].is_string() {
            let target = json!({"apiVersion": "v1", "kind": "Node", "name": "node"});
            let name = json!({"name": metadata["name"]});
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": name, "target": target});
            self.insist(|cluster| cluster.send("POST", &format!("{path}/binding"), &binding));
        } else if !pod["status"]["podIP"].is_string() {
            let number = self.addresses.lock().unwrap().of(&uid);
            let (high, low) = (number >> 8, number & 0xff);
            let host = pod["spec"]["hostNetwork"] == true;
            let mut ips = vec![if host { NODE.to_owned() } else { format!("10.244.{high}.{low}") }];
            if metadata["annotations"][DUAL].is_string() {
                ips.push(format!("fd00:10:244::{number:x}"));
            }
            self.insist(|cluster| cluster.send("PATCH", &format!("{path}/status"), &running(&ips)));
        }
    }

    /// Again and again, until the server did it or will not do it.
    fn insist(&self, work: impl Fn(&Cluster) -> u16) {
        while matches!(work(&self.cluster), 0 | 429 | 500..=599) {
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The status of a Pod that runs and is ready.
pub fn running(ips: &[String]) -> Value {
    let list: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"});
    let status = json!({"phase": "Running", "hostIP": NODE, "podIP": ips[0], "podIPs": list, "conditions": [ready]});
    json!({"status": status})
}

/// Where a Pod is.
pub fn path(pod: &Value) -> String {
    let word = |name: &str| pod["metadata"][name].as_str().unwrap_or_default().to_owned();
    format!("/api/v1/namespaces/{}/pods/{}", word("namespace"), word("name"))
}

fn uid(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}
