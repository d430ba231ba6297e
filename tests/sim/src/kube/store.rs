//! The objects with their versions and history: what etcd and the watch cache are to a real API server.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Namespace and name.
type Key = (String, String);

/// One change, as a watch sends it.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) resource: &'static str,
    namespace: Box<str>,
    pub(super) line: Arc<[u8]>,
}

/// An object, and how a list shows it: rendered once.
pub(super) struct Stored {
    value: Value,
    item: OnceLock<Box<[u8]>>,
}

impl Stored {
    fn new(value: Value) -> Arc<Stored> {
        Arc::new(Stored { value, item: OnceLock::new() })
    }

    pub(super) fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// An item of a list has no kind of its own.
    pub(super) fn item(&self) -> &[u8] {
        self.item.get_or_init(|| {
            let mut item = self.value.clone();
            let fields = item.as_object_mut().unwrap();
            fields.remove("kind");
            fields.remove("apiVersion");
            encoded(&item).into()
        })
    }
}

/// All objects of a resource at one moment.
type State = Vec<(Key, Arc<Stored>)>;

#[derive(Clone, Default)]
pub(super) struct Content {
    version: u64,
    compacted: u64,
    objects: BTreeMap<&'static str, BTreeMap<Key, Arc<Stored>>>,
    history: Vec<Change>,
    /// Lists that are being paged, by resource and version: a page comes from the same state as the one before it.
    snapshots: HashMap<(&'static str, u64), Arc<State>>,
    made: u64,
}

/// The store.
#[derive(Default)]
pub(crate) struct Store {
    content: Mutex<Content>,
    changed: Condvar,
}

/// Why a write is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Exists,
    Missing,
    Conflict,
}

/// A page of a list.
pub(super) struct Page {
    pub(super) version: u64,
    pub(super) items: Vec<Arc<Stored>>,
    /// The key after which the next page begins, and how many objects are left.
    pub(super) rest: Option<(String, usize)>,
}

/// The resources, with `apiVersion` and kind.
pub(super) const RESOURCES: &[(&str, &str, &str)] = &[
    ("deployments", "apps/v1", "Deployment"),
    ("statefulsets", "apps/v1", "StatefulSet"),
    ("daemonsets", "apps/v1", "DaemonSet"),
    ("replicasets", "apps/v1", "ReplicaSet"),
    ("pods", "v1", "Pod"),
    ("services", "v1", "Service"),
    ("namespaces", "v1", "Namespace"),
    ("leases", "coordination.k8s.io/v1", "Lease"),
    ("events", "events.k8s.io/v1", "Event"),
];

/// The resource's own name, `apiVersion` and kind.
pub(super) fn resource(name: &str) -> Option<(&'static str, &'static str, &'static str)> {
    RESOURCES.iter().find(|it| it.0 == name).copied()
}

/// JSON as Go writes it: what HTML could take for its own is escaped, and is six times as long then.
fn encoded(value: &Value) -> Vec<u8> {
    let plain = serde_json::to_string(value).unwrap();
    plain.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026").into_bytes()
}

/// Seconds of RFC 3339.
pub(super) fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    openssl::asn1::Asn1Time::from_unix(seconds).map(|it| rfc3339(&it.to_string())).unwrap_or_default()
}

/// `Nov 23 05:43:51 2026 GMT` as RFC 3339.
fn rfc3339(text: &str) -> String {
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts: Vec<&str> = text.split_whitespace().collect();
    let month = months.iter().position(|it| *it == parts[0]).unwrap() + 1;
    format!("{}-{month:02}-{:0>2}T{}Z", parts[3], parts[1], parts[2])
}

fn key_of(object: &Value) -> Key {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

impl Content {
    fn record(&mut self, resource: &'static str, kind: &str, object: &Value) {
        let mut line = encoded(&json!({"type": kind, "object": object}));
        line.push(b'\n');
        let namespace = key_of(object).0.into();
        self.history.push(Change { version: self.version, resource, namespace, line: line.into() });
    }

    /// Gives an object its new version.
    fn stamp(&mut self, object: &mut Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
    }
}

impl Store {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }

    /// Makes an object.
    pub(super) fn create(&self, name: &str, mut object: Value) -> Result<Value, Refusal> {
        let (resource, api, kind) = resource(name).unwrap();
        let mut content = self.content();
        let key = key_of(&object);
        if content.objects.get(resource).is_some_and(|it| it.contains_key(&key)) {
            return Err(Refusal::Exists);
        }
        content.made += 1;
        let metadata = &mut object["metadata"];
        let uid = format!("{:08x}-0000-4000-8000-{:012x}", std::process::id(), content.made);
        metadata["uid"] = uid.into();
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = now().into();
        }
        metadata["managedFields"] = managed_fields(api);
        object["apiVersion"] = api.into();
        object["kind"] = kind.into();
        match resource {
            "pods" if object["status"]["phase"].is_null() => object["status"]["phase"] = "Pending".into(),
            "services" if object["status"]["loadBalancer"].is_null() => object["status"]["loadBalancer"] = json!({}),
            _ => {}
        }
        content.stamp(&mut object);
        content.record(resource, "ADDED", &object);
        content.objects.entry(resource).or_default().insert(key, Stored::new(object.clone()));
        self.changed.notify_all();
        Ok(object)
    }

    /// Replaces an object; a version in it must be the present one.
    pub(super) fn replace(&self, name: &str, mut object: Value) -> Result<Value, Refusal> {
        let (resource, ..) = resource(name).unwrap();
        let mut content = self.content();
        let key = key_of(&object);
        let Some(before) = content.objects.get(resource).and_then(|it| it.get(&key)).cloned() else {
            return Err(Refusal::Missing);
        };
        let before = &before.value;
        let version = &object["metadata"]["resourceVersion"];
        if !version.is_null() && *version != before["metadata"]["resourceVersion"] {
            return Err(Refusal::Conflict);
        }
        for kept in ["uid", "creationTimestamp"] {
            object["metadata"][kept] = before["metadata"][kept].clone();
        }
        object["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
        if object == *before {
            return Ok(object);
        }
        content.stamp(&mut object);
        content.record(resource, "MODIFIED", &object);
        content.objects.entry(resource).or_default().insert(key, Stored::new(object.clone()));
        self.changed.notify_all();
        Ok(object)
    }

    /// A merge patch (RFC 7396). A Service that is no load balancer any more loses its status in the same write.
    pub(super) fn patch(&self, name: &str, namespace: &str, object: &str, patch: &Value) -> Result<Value, Refusal> {
        let mut patched = self.get(name, namespace, object).ok_or(Refusal::Missing)?;
        merge(&mut patched, patch);
        if name == "services" && patched["spec"]["type"] != "LoadBalancer" {
            patched["status"]["loadBalancer"] = json!({});
        }
        self.replace(name, patched)
    }

    /// Makes an object, or patches it.
    pub(super) fn apply(&self, name: &str, object: Value) -> Value {
        let (namespace, own) = key_of(&object);
        match self.create(name, object.clone()) {
            Ok(done) => done,
            Err(_) => self.patch(name, &namespace, &own, &object).unwrap(),
        }
    }

    /// Removes an object; its last state, with the version of the removal.
    pub(super) fn delete(&self, name: &str, namespace: &str, object: &str) -> Option<Value> {
        let (resource, ..) = resource(name).unwrap();
        let mut content = self.content();
        let key = (namespace.to_owned(), object.to_owned());
        let mut object = content.objects.get_mut(resource)?.remove(&key)?.value.clone();
        content.stamp(&mut object);
        content.record(resource, "DELETED", &object);
        self.changed.notify_all();
        Some(object)
    }

    /// One object.
    pub(super) fn get(&self, name: &str, namespace: &str, object: &str) -> Option<Value> {
        let key = (namespace.to_owned(), object.to_owned());
        Some(self.content().objects.get(name)?.get(&key)?.value.clone())
    }

    /// All objects of a resource (in a namespace), and the version of that state.
    pub(super) fn list(&self, name: &str, namespace: &str) -> (u64, Vec<Value>) {
        let (version, items) = self.state(name, namespace);
        (version, items.into_iter().map(|(_, it)| it.value.clone()).collect())
    }

    fn state(&self, name: &str, namespace: &str) -> (u64, State) {
        let content = self.content();
        let all = content.objects.get(name).into_iter().flatten();
        let desired = all.filter(|((it, _), _)| namespace.is_empty() || it == namespace);
        (content.version, desired.map(|(key, it)| (key.clone(), it.clone())).collect())
    }

    /// A page. `after` is where the page before ended, with the version of its list; nothing if that is forgotten.
    pub(super) fn page(&self, name: &str, namespace: &str, limit: usize, after: Option<(u64, &str)>) -> Option<Page> {
        let (resource, ..) = resource(name)?;
        let (version, items) = match after {
            None => {
                let (version, items) = self.state(name, namespace);
                (version, Arc::new(items))
            }
            Some((version, _)) => (version, self.content().snapshots.get(&(resource, version))?.clone()),
        };
        let place = |(namespace, name): &Key| format!("{namespace}/{name}\0");
        let start = after.map_or(0, |(_, after)| {
            let (namespace, name) = after.trim_end_matches('\0').split_once('/').unwrap_or_default();
            items.partition_point(|(key, _)| (key.0.as_str(), key.1.as_str()) <= (namespace, name))
        });
        let end = if limit == 0 { items.len() } else { (start + limit).min(items.len()) };
        let rest = (end < items.len()).then(|| (place(&items[end - 1].0), items.len() - end));
        let page = items[start..end].iter().map(|(_, it)| it.clone()).collect();
        if rest.is_some() {
            self.content().snapshots.insert((resource, version), items);
        }
        Some(Page { version, items: page, rest })
    }

    /// Renders all objects.
    pub(super) fn render(&self) {
        let all: Vec<_> = self.content().objects.values().flat_map(BTreeMap::values).cloned().collect();
        for object in &all {
            let _ = object.item();
        }
    }

    /// Forgets the history and the states that are being paged.
    pub(super) fn compact(&self) {
        let mut content = self.content();
        content.version += 1;
        content.compacted = content.version;
        content.history.clear();
        content.snapshots.clear();
        self.changed.notify_all();
    }

    /// A copy of everything.
    pub(super) fn backup(&self) -> Content {
        self.content().clone()
    }

    /// Everything is as it was in the copy, the version too. UIDs are never given twice.
    pub(super) fn restore(&self, backup: &Content) {
        let mut content = self.content();
        let made = content.made;
        *content = backup.clone();
        content.made = made;
        self.changed.notify_all();
    }

    /// The present version.
    pub(super) fn version(&self) -> u64 {
        self.content().version
    }

    /// The changes of a resource (in a namespace) after a version, and the version up to which they go. Waits until
    /// there is one, at most for a while. Nothing if the version is too old.
    pub(super) fn changes(
        &self,
        name: &str,
        namespace: &str,
        after: u64,
        patience: Duration,
    ) -> Option<(u64, Vec<Change>)> {
        let mut content = self.content();
        if content.version <= after {
            content = self.changed.wait_timeout(content, patience).unwrap().0;
        }
        if after < content.compacted {
            return None;
        }
        let newer = content.history.partition_point(|it| it.version <= after);
        let is_meant = |it: &&Change| it.resource == name && (namespace.is_empty() || *it.namespace == *namespace);
        let changes = content.history[newer..].iter().filter(is_meant).cloned().collect();
        Some((content.version.max(after), changes))
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

/// Something of the size and shape that fills a third of every real object.
fn managed_fields(api: &str) -> Value {
    let fields = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}, "f:pod-template-hash": {}}, "f:ownerReferences": {".": {}}},
        "f:spec": {"f:containers": {"k:{\"name\":\"main\"}": {".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
        "f:resources": {}, "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}}}, "f:dnsPolicy": {}, "f:restartPolicy": {}}});
    json!([{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": api, "time": now(),
        "fieldsType": "FieldsV1", "fieldsV1": fields}])
}
