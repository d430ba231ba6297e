//! A cluster in memory: plain records, how they look on the wire, and watches that are late, repeat themselves, break
//! off and begin anew. Nothing of the rules is known here.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use aci_sync::kube::Event;
use aci_sync::model::kube::{Key, Kind, Object};
use serde_json::{Value, json};

/// Namespace and name.
pub type Name = (&'static str, String);

/// What a Deployment's annotation says.
#[derive(Debug, Clone, PartialEq)]
pub enum Annotation {
    /// No annotation.
    None,
    /// Something that cannot be used.
    Broken,
    /// L3Out, EPG, and what it exports where it says so (Pods, Services).
    Names(&'static str, &'static str, Option<(bool, bool)>),
}

#[derive(Debug, Clone)]
pub struct Deployment {
    pub uid: u64,
    pub created: u64,
    pub annotation: Annotation,
    pub paused: bool,
    pub app: u64,
}

#[derive(Debug, Clone)]
pub struct Pod {
    pub uid: u64,
    pub created: u64,
    pub owner: Option<String>,
    pub app: u64,
    pub ips: Vec<IpAddr>,
    pub host_network: bool,
    pub ended: bool,
    pub terminating: bool,
}

#[derive(Debug, Clone)]
pub struct Service {
    pub load_balancer: bool,
    pub selector: Option<u64>,
    pub ips: Vec<IpAddr>,
    pub hostname: bool,
}

/// How one kind is watched.
#[derive(Debug)]
pub struct Watch {
    /// What happened and was not told yet.
    queue: VecDeque<(Name, Option<Object>)>,
    /// What was told last: it may be told once more.
    told: Option<(Name, Option<Object>)>,
    /// A list is due or under way.
    pub relisting: bool,
    /// Listed at least once by this process.
    pub listed: bool,
    /// Without an open stream since then.
    pub closed: Option<Instant>,
}

impl Watch {
    fn new() -> Watch {
        Watch { queue: VecDeque::new(), told: None, relisting: true, listed: false, closed: None }
    }

    /// Whether the process knows that its view may be incomplete (W1), as the API server's side sees it.
    pub fn is_incomplete(&self, now: Instant) -> bool {
        self.relisting || !self.listed || self.closed.is_some_and(|it| now - it >= Duration::from_secs(60))
    }
}

/// Everything in it, and the three watches.
pub struct Cluster {
    pub deployments: BTreeMap<Name, Deployment>,
    pub pods: BTreeMap<Name, Pod>,
    pub services: BTreeMap<Name, Service>,
    pub watches: BTreeMap<Kind, Watch>,
    next: u64,
}

impl Cluster {
    pub fn new() -> Cluster {
        let watches = Kind::ALL.map(|kind| (kind, Watch::new())).into();
        Cluster { deployments: BTreeMap::new(), pods: BTreeMap::new(), services: BTreeMap::new(), watches, next: 1 }
    }

    /// A number that nobody had before: uids and times of creation.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Something about an object changed, or it went: the watch of its kind will tell.
    pub fn changed(&mut self, kind: Kind, name: &Name) {
        let object = self.wire(kind, name).map(|json| decode(kind, &json));
        if let Some(watch) = self.watches.get_mut(&kind) {
            watch.queue.push_back((name.clone(), object));
        }
    }

    fn names(&self, kind: Kind) -> Vec<Name> {
        match kind {
            Kind::Deployment => self.deployments.keys().cloned().collect(),
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::Service => self.services.keys().cloned().collect(),
        }
    }

    /// A process starts: it knows nothing.
    pub fn start_watching(&mut self) {
        for watch in self.watches.values_mut() {
            *watch = Watch::new();
        }
    }

    /// The next so many events of a kind, if its stream is open.
    pub fn deliver(&mut self, kind: Kind, most: usize) -> Vec<Event> {
        let Some(watch) = self.watches.get_mut(&kind) else { return Vec::new() };
        if watch.relisting || watch.closed.is_some() {
            return Vec::new();
        }
        let count = most.min(watch.queue.len());
        if count > 0 {
            watch.told = watch.queue.get(count - 1).cloned();
        }
        let events = watch.queue.drain(..count).map(|(name, object)| match object {
            Some(object) if object.is_kept() => Event::Upsert(object),
            _ => Event::Gone { kind, key: Key::new(name.0, &name.1) },
        });
        events.collect()
    }

    /// The stream breaks off; it will go on where it was.
    pub fn interrupt(&mut self, kind: Kind, now: Instant) -> Vec<Event> {
        let Some(watch) = self.watches.get_mut(&kind).filter(|it| !it.relisting && it.closed.is_none()) else {
            return Vec::new();
        };
        watch.closed = Some(now);
        vec![Event::Interrupted { kind }]
    }

    /// It goes on; some of what was told is told again.
    pub fn resume(&mut self, kind: Kind) -> Vec<Event> {
        let Some(watch) = self.watches.get_mut(&kind).filter(|it| !it.relisting && it.closed.is_some()) else {
            return Vec::new();
        };
        watch.closed = None;
        if let Some(told) = watch.told.take() {
            watch.queue.push_front(told);
        }
        vec![Event::Live { kind }]
    }

    /// 410: what is still in the queue is lost, and a list is due.
    pub fn expire(&mut self, kind: Kind) -> Vec<Event> {
        let Some(watch) = self.watches.get_mut(&kind).filter(|it| !it.relisting) else { return Vec::new() };
        watch.relisting = true;
        watch.told = None;
        watch.queue.clear();
        vec![Event::Relisting { kind, why: "simulated".to_owned() }]
    }

    /// The list comes, whole, and the watch after it.
    pub fn list(&mut self, kind: Kind) -> Vec<Event> {
        if !self.watches[&kind].relisting {
            return Vec::new();
        }
        let names = self.names(kind);
        let objects = names.iter().filter_map(|name| self.wire(kind, name)).map(|json| decode(kind, &json));
        let objects: Vec<Object> = objects.filter(Object::is_kept).collect();
        if let Some(watch) = self.watches.get_mut(&kind) {
            watch.queue.clear();
            (watch.told, watch.relisting, watch.listed, watch.closed) = (None, false, true, None);
        }
        vec![Event::Listed { kind, objects }, Event::Live { kind }]
    }

    /// An object as the API server writes it.
    fn wire(&self, kind: Kind, name: &Name) -> Option<Value> {
        let metadata = |uid: u64, created: u64| {
            json!({"namespace": name.0, "name": name.1, "uid": format!("u{uid:06}"),
                "creationTimestamp": format!("2026-01-01T{:02}:{:02}:{:02}Z", created / 3600, created / 60 % 60, created % 60)})
        };
        Some(match kind {
            Kind::Deployment => {
                let it = self.deployments.get(name)?;
                let mut metadata = metadata(it.uid, it.created);
                match &it.annotation {
                    Annotation::None => {}
                    Annotation::Broken => {
                        metadata["annotations"]["aci.haystacknetworks.com/l3o"] = json!("{\"tenant\":\"T/x\"}");
                    }
                    Annotation::Names(l3out, epg, exports) => {
                        let mut value = json!({"tenant": "T", "l3out": l3out, "epg": epg});
                        if let Some((pods, services)) = exports {
                            let words = [(*pods, "pods"), (*services, "services")];
                            value["expose"] = words.iter().filter(|it| it.0).map(|it| it.1).collect();
                        }
                        metadata["annotations"]["aci.haystacknetworks.com/l3o"] = json!(value.to_string());
                    }
                }
                if it.paused {
                    metadata["annotations"]["aci.haystacknetworks.com/pause"] = json!("true");
                }
                let labels = json!({"app": format!("x{}", it.app)});
                json!({"metadata": metadata, "spec": {"template": {"metadata": {"labels": labels}}}})
            }
            Kind::Pod => {
                let it = self.pods.get(name)?;
                let mut metadata = metadata(it.uid, it.created);
                metadata["labels"] = json!({"app": format!("x{}", it.app)});
                if let Some(owner) = &it.owner {
                    metadata["labels"]["pod-template-hash"] = json!("5d9c7");
                    let name = format!("{owner}-5d9c7");
                    metadata["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": name, "controller": true}]);
                }
                if it.terminating {
                    metadata["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
                }
                let ips: Vec<Value> = it.ips.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
                let phase = if it.ended { "Succeeded" } else { "Running" };
                json!({"metadata": metadata, "spec": {"hostNetwork": it.host_network}, "status": {"phase": phase, "podIPs": ips}})
            }
            Kind::Service => {
                let it = self.services.get(name)?;
                let mut ingress: Vec<Value> = it.ips.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
                if it.hostname {
                    ingress.push(json!({"hostname": "lb.example.org"}));
                }
                let selector = it.selector.map_or(json!({}), |app| json!({"app": format!("x{app}")}));
                let kind = if it.load_balancer { "LoadBalancer" } else { "ClusterIP" };
                json!({"metadata": metadata(0, 0), "spec": {"type": kind, "selector": selector},
                    "status": {"loadBalancer": {"ingress": ingress}}})
            }
        })
    }
}

fn decode(kind: Kind, json: &Value) -> Object {
    Object::decode(kind, json.to_string().as_bytes()).unwrap()
}
