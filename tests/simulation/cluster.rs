//! A cluster in memory: plain records, how they look on the wire, watches that are late, repeat themselves, break off
//! and start over, and what the process has heard of all that. The only rule here is that the last valid binding counts
//! (D3).

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use aci_sync::kube::{Event, objects};
use aci_sync::model::kubernetes::{Key, Kind, Object};
use serde_json::{Value, json};

/// Namespace and name.
pub type Name = (&'static str, String);

/// A workload: workloads of several kinds may have one name (G2).
pub type Id = (Name, Kind);

/// What a workload's annotation says.
#[derive(Debug, Clone, PartialEq)]
pub enum Annotation {
    /// No annotation.
    None,
    /// Something that cannot be used.
    Broken,
    /// L3Out (empty: the default one), EPG, and what it exposes if it says so (Pods, Services).
    Names(&'static str, &'static str, Option<(bool, bool)>),
}

#[derive(Debug, Clone)]
pub struct Workload {
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
    pub owner: Option<(String, Kind)>,
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

/// Workloads, Pods and Services.
#[derive(Debug, Clone, Default)]
pub struct Records {
    pub workloads: BTreeMap<Id, Workload>,
    pub pods: BTreeMap<Name, Pod>,
    pub services: BTreeMap<Name, Service>,
}

/// One of them, or that it is gone.
#[derive(Debug, Clone)]
pub enum Record {
    Workload(Kind, Option<Workload>),
    Pod(Option<Pod>),
    Service(Option<Service>),
}

impl Records {
    fn get(&self, kind: Kind, name: &Name) -> Record {
        match kind {
            Kind::Pod => Record::Pod(self.pods.get(name).cloned()),
            Kind::Service => Record::Service(self.services.get(name).cloned()),
            kind => Record::Workload(kind, self.workloads.get(&(name.clone(), kind)).cloned()),
        }
    }

    fn names(&self, kind: Kind) -> Vec<Name> {
        match kind {
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::Service => self.services.keys().cloned().collect(),
            kind => self.workloads.keys().filter(|it| it.1 == kind).map(|it| it.0.clone()).collect(),
        }
    }

    fn put(&mut self, name: &Name, record: Record) {
        fn put<K: Ord + Clone, T>(all: &mut BTreeMap<K, T>, key: &K, it: Option<T>) {
            match it {
                Some(it) => drop(all.insert(key.clone(), it)),
                None => drop(all.remove(key)),
            }
        }
        match record {
            Record::Workload(kind, it) => put(&mut self.workloads, &(name.clone(), kind), it),
            Record::Pod(it) => put(&mut self.pods, name, it),
            Record::Service(it) => put(&mut self.services, name, it),
        }
    }

    /// What is heard of an object. A workload whose annotation is broken keeps the last good one (D3).
    fn hear(&mut self, name: &Name, record: Record) {
        let record = match record {
            Record::Workload(kind, Some(mut it)) if it.annotation == Annotation::Broken => {
                if let Some(before) = self.workloads.get(&(name.clone(), kind)).filter(|before| before.uid == it.uid) {
                    // Without an annotation nothing was remembered.
                    if before.annotation != Annotation::None {
                        it.annotation = before.annotation.clone();
                    }
                }
                Record::Workload(kind, Some(it))
            }
            other => other,
        };
        self.put(name, record);
    }
}

/// How one kind is watched.
#[derive(Debug)]
pub struct Watch {
    /// What happened and was not delivered yet.
    pub queue: VecDeque<(Name, Record)>,
    /// What was delivered last on this watch.
    delivered: VecDeque<(Name, Record)>,
    /// A list is due or under way.
    pub relisting: bool,
    /// Listed at least once by this process.
    pub listed: bool,
    /// Without an open stream since then.
    pub closed: Option<Instant>,
}

/// How many of the last events of a watch may be delivered again.
const REPEATED: usize = 4;

impl Watch {
    fn new() -> Watch {
        Watch { queue: VecDeque::new(), delivered: VecDeque::new(), relisting: true, listed: false, closed: None }
    }

    /// Whether the process knows that its view may be incomplete (W1), as the API server's side sees it.
    pub fn is_incomplete(&self, now: Instant) -> bool {
        self.relisting || !self.listed || self.closed.is_some_and(|it| now - it >= Duration::from_secs(60))
    }
}

/// Everything in it, and the watches.
pub struct Cluster {
    pub is: Records,
    /// What the process has heard.
    pub heard: Records,
    pub watches: BTreeMap<Kind, Watch>,
    next: u64,
}

impl Cluster {
    pub fn new(kinds: &[Kind]) -> Cluster {
        let watches = kinds.iter().map(|kind| (*kind, Watch::new())).collect();
        Cluster { is: Records::default(), heard: Records::default(), watches, next: 1 }
    }

    /// A number that was never used before: uids and times of creation.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Something about an object changed, or it went: the watch of its kind will deliver it.
    pub fn changed(&mut self, kind: Kind, name: &Name) {
        let record = self.is.get(kind, name);
        if let Some(watch) = self.watches.get_mut(&kind) {
            watch.queue.push_back((name.clone(), record));
        }
    }

    /// Whether something has the address of a subnet: its deletion may be a move that waits.
    pub fn has_address(&self, dn: &str) -> bool {
        let ip = dn.split("extsubnet-[").nth(1).and_then(|it| it.split('/').next()?.parse().ok());
        ip.is_some_and(|ip| {
            self.is.pods.values().any(|it| it.ips.contains(&ip))
                || self.is.services.values().any(|it| it.ips.contains(&ip))
        })
    }

    /// What there is, with the annotations that count for a process which has heard all of it (D3).
    pub fn known(&self) -> Records {
        let mut known = self.is.clone();
        // A kind that is not watched counts as if it were not there (G1).
        known.workloads.retain(|(_, kind), _| self.watches.contains_key(kind));
        for (id, it) in &mut known.workloads {
            if let Some(heard) = self.heard.workloads.get(id) {
                it.annotation = heard.annotation.clone();
            }
        }
        known
    }

    /// All objects that no rule needs, as a list has them.
    pub fn unneeded(&self) -> Vec<Object> {
        let mut objects = Vec::new();
        for &kind in self.watches.keys() {
            let records = self.is.names(kind).into_iter().map(|name| (self.is.get(kind, &name), name));
            objects
                .extend(records.filter_map(|(record, name)| wire(&name, &record)).map(|json| self.decode(kind, &json)));
        }
        objects.retain(|it| !it.is_kept());
        objects
    }

    /// Whether a last good annotation counts in place of a broken one (D3).
    pub fn remembers(&self) -> bool {
        let known = self.known();
        known.workloads.iter().any(|(id, it)| self.is.workloads[id].annotation != it.annotation)
    }

    /// A process starts: it knows nothing.
    pub fn start_watching(&mut self, kinds: &[Kind]) {
        self.heard = Records::default();
        self.watches = kinds.iter().map(|kind| (*kind, Watch::new())).collect();
    }

    /// An object as the client hands it on (G1).
    fn decode(&self, kind: Kind, json: &Value) -> Object {
        let mut object = objects::decode(kind, json.to_string().as_bytes()).unwrap();
        object.forget_unwatched_owner(&self.watches.keys().copied().collect::<Vec<_>>());
        object
    }

    /// The next `most` events of a kind, if its stream is open.
    pub fn deliver(&mut self, kind: Kind, most: usize) -> Vec<Event> {
        let Some(watch) = self.watches.get_mut(&kind) else { return Vec::new() };
        if watch.relisting || watch.closed.is_some() {
            return Vec::new();
        }
        let count = most.min(watch.queue.len());
        let records: Vec<(Name, Record)> = watch.queue.drain(..count).collect();
        watch.delivered.extend(records.iter().cloned());
        let old = watch.delivered.len().saturating_sub(REPEATED);
        watch.delivered.drain(..old);
        let mut events = Vec::new();
        for (name, record) in records {
            events.push(match wire(&name, &record).map(|json| self.decode(kind, &json)) {
                Some(object) if object.is_kept() => Event::Upsert(object),
                _ => Event::Gone { kind, key: Key::new(name.0, &name.1) },
            });
            self.heard.hear(&name, record);
        }
        events
    }

    /// The stream breaks off; it will go on where it was.
    pub fn interrupt(&mut self, kind: Kind, now: Instant) -> Vec<Event> {
        let Some(watch) = self.watches.get_mut(&kind).filter(|it| !it.relisting && it.closed.is_none()) else {
            return Vec::new();
        };
        watch.closed = Some(now);
        vec![Event::Interrupted { kind }]
    }

    /// It goes on a few events before it broke off: those are delivered again, the oldest state first.
    pub fn resume(&mut self, kind: Kind, again: usize) -> Vec<Event> {
        let Some(watch) = self.watches.get_mut(&kind).filter(|it| !it.relisting && it.closed.is_some()) else {
            return Vec::new();
        };
        watch.closed = None;
        let known = watch.delivered.len().saturating_sub(again);
        for it in watch.delivered.split_off(known).into_iter().rev() {
            watch.queue.push_front(it);
        }
        vec![Event::Live { kind }]
    }

    /// 410: what is still in the queue is lost, and a list is due.
    pub fn expire(&mut self, kind: Kind) -> Vec<Event> {
        let Some(watch) = self.watches.get_mut(&kind).filter(|it| !it.relisting) else { return Vec::new() };
        watch.relisting = true;
        watch.queue.clear();
        vec![Event::Relisting { kind, why: "simulated".to_owned() }]
    }

    /// The list comes, whole, and the watch after it.
    pub fn list(&mut self, kind: Kind) -> Vec<Event> {
        if !self.watches[&kind].relisting {
            return Vec::new();
        }
        let names = self.is.names(kind);
        for gone in self.heard.names(kind).iter().filter(|it| !names.contains(it)) {
            self.heard.put(gone, self.is.get(kind, gone));
        }
        let mut objects = Vec::new();
        for name in &names {
            let record = self.is.get(kind, name);
            objects.extend(wire(name, &record).map(|json| self.decode(kind, &json)).filter(Object::is_kept));
            self.heard.hear(name, record);
        }
        if let Some(watch) = self.watches.get_mut(&kind) {
            *watch = Watch { relisting: false, listed: true, ..Watch::new() };
        }
        vec![Event::Listed { kind, objects }, Event::Live { kind }]
    }
}

/// An object as the API server writes it.
fn wire(name: &Name, record: &Record) -> Option<Value> {
    let metadata = |uid: u64, created: u64| {
        json!({"namespace": name.0, "name": name.1, "uid": format!("u{uid:06}"),
            "creationTimestamp": format!("2026-01-01T{:02}:{:02}:{:02}Z", created / 3600, created / 60 % 60, created % 60)})
    };
    Some(match record {
        Record::Workload(_, it) => {
            let it = it.as_ref()?;
            let mut metadata = metadata(it.uid, it.created);
            match &it.annotation {
                Annotation::None => {}
                Annotation::Broken => {
                    metadata["annotations"]["aci.haystacknetworks.com/l3o"] = json!("{\"tenant\":\"T/x\"}");
                }
                Annotation::Names(l3out, epg, exposes) => {
                    let mut value = match *l3out {
                        "" => json!({"epg": epg}),
                        l3out => json!({"tenant": "T", "l3out": l3out, "epg": epg}),
                    };
                    if let Some((pods, services)) = exposes {
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
        Record::Pod(it) => {
            let it = it.as_ref()?;
            let mut metadata = metadata(it.uid, it.created);
            metadata["labels"] = json!({"app": format!("x{}", it.app)});
            if let Some((owner, kind)) = &it.owner {
                let (kind, name) = if *kind == Kind::Deployment {
                    metadata["labels"]["pod-template-hash"] = json!("5d9c7");
                    ("ReplicaSet".to_owned(), format!("{owner}-5d9c7"))
                } else {
                    (kind.to_string(), owner.clone())
                };
                let reference = json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "controller": true});
                metadata["ownerReferences"] = json!([reference]);
            }
            if it.terminating {
                metadata["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
            }
            let ips: Vec<Value> = it.ips.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
            let phase = if it.ended { "Succeeded" } else { "Running" };
            json!({"metadata": metadata, "spec": {"hostNetwork": it.host_network}, "status": {"phase": phase, "podIPs": ips}})
        }
        Record::Service(it) => {
            let it = it.as_ref()?;
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
