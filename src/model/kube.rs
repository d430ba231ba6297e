//! What is remembered of Deployments, Pods and Services: compact records, decoded from the API server's JSON.
//!
//! The rules that look at one object alone are applied while decoding (P1, P2, and which objects are worth
//! remembering), so that a record holds nothing that no rule needs. How objects relate is the inventory's.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::binding::UnknownKeys;

/// The annotation that binds a Deployment (D1).
pub const BINDING_ANNOTATION: &str = "aci.haystacknetworks.com/l3o";

/// The annotation that pauses a Deployment (D2).
pub const PAUSE_ANNOTATION: &str = "aci.haystacknetworks.com/pause";

/// What the keys of our annotations begin with (D2).
const ANNOTATIONS: &str = "aci.haystacknetworks.com/";

/// So many characters of an odd value are quoted.
const MAX_QUOTE: usize = 64;

/// The three kinds that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `apps/v1` Deployment.
    Deployment,
    /// `v1` Pod.
    Pod,
    /// `v1` Service.
    Service,
}

impl Kind {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Kind; 3] = [Kind::Deployment, Kind::Pod, Kind::Service];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Deployment => "Deployment",
            Kind::Pod => "Pod",
            Kind::Service => "Service",
        })
    }
}

/// Namespace and name: what identifies an object of one kind at one time. Copies share the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name in it.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its two parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Key { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Labels or a selector, sorted by key. Copies share the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "BTreeMap<Box<str>, Box<str>>")]
pub struct Labels(Arc<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|it| *it.0 == *key).map(|it| &*it.1)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of these are among those. An empty selector, which would be so always, is never kept.
    pub fn select(&self, labels: &Labels) -> bool {
        // Both are sorted by key: one merge.
        let mut others = labels.0.iter();
        let mut is_among = |(key, value): &(Box<str>, Box<str>)| {
            others.find(|it| it.0 >= *key).is_some_and(|it| it.0 == *key && it.1 == *value)
        };
        self.0.len() <= labels.0.len() && self.0.iter().all(&mut is_among)
    }
}

impl From<BTreeMap<Box<str>, Box<str>>> for Labels {
    fn from(labels: BTreeMap<Box<str>, Box<str>>) -> Self {
        Labels(labels.into_iter().collect())
    }
}

/// What many objects have in common, such as the labels of a Deployment's Pods: it is kept once for all of them.
#[derive(Debug, Default)]
pub struct Pool {
    texts: HashSet<Arc<str>>,
    labels: HashSet<Labels>,
    /// With so many it is looked which of them are still in use.
    full: usize,
}

impl Pool {
    /// Makes an object share with all those that were here before.
    pub fn share(&mut self, object: &mut Object) {
        if let Object::Pod(pod) = object {
            self.text(&mut pod.key.namespace);
            pod.deployment.iter_mut().for_each(|it| self.text(it));
            match self.labels.get(&pod.labels) {
                Some(known) => pod.labels = known.clone(),
                None => drop(self.labels.insert(pod.labels.clone())),
            }
        }
        if self.texts.len() + self.labels.len() > self.full {
            self.texts.retain(|it| Arc::strong_count(it) > 1);
            self.labels.retain(|it| Arc::strong_count(&it.0) > 1);
            self.full = 2 * (self.texts.len() + self.labels.len()) + 100;
        }
    }

    fn text(&mut self, text: &mut Arc<str>) {
        match self.texts.get(text) {
            Some(known) => *text = known.clone(),
            None => drop(self.texts.insert(text.clone())),
        }
    }
}

/// An annotated Deployment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "wire::Deployment")]
pub struct Deployment {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.creationTimestamp`; the API server's spelling sorts by time.
    pub created: Box<str>,
    /// The value of [`BINDING_ANNOTATION`].
    pub annotation: Option<Box<str>>,
    /// Its [`PAUSE_ANNOTATION`] is there, and neither `false` nor empty.
    pub paused: bool,
    /// The first characters of that annotation where it is neither `true` nor `false` (D2: a finding).
    pub odd_pause: Option<Box<str>>,
    /// Other annotations whose keys begin like ours.
    pub unknown_keys: UnknownKeys,
    /// `spec.template.metadata.labels`, for S1.
    pub template_labels: Labels,
    /// `status.replicas` is more than zero. How many there are changes all the time and matters to nothing.
    pub has_replicas: bool,
}

/// A Pod that may export an address, that a Service may select for a Deployment, or that claims an address (P5).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "wire::Pod")]
pub struct Pod {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.creationTimestamp`; the API server's spelling sorts by time.
    pub created: Box<str>,
    /// The name of the Deployment that owns it by P1; whether one of that name exists is the inventory's to say.
    pub deployment: Option<Arc<str>>,
    /// Its labels; empty where no Deployment owns it, because S1 asks no more.
    pub labels: Labels,
    /// The addresses it claims by P2: none for `hostNetwork` (they are the node's) and none once it has ended.
    pub addresses: Box<[IpAddr]>,
    /// Its addresses that cannot be read, quoted for a finding.
    pub unreadable: Option<Box<str>>,
    /// It has a deletion timestamp (P3, P5).
    pub terminating: bool,
    /// Its phase is Succeeded or Failed.
    pub terminal: bool,
}

/// A Service of type LoadBalancer with a selector.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "wire::Service")]
pub struct Service {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `spec.selector`.
    pub selector: Labels,
    /// Each `status.loadBalancer.ingress[].ip`.
    pub addresses: Vec<IpAddr>,
    /// Those that cannot be read, quoted for a finding.
    pub unreadable: Option<Box<str>>,
    /// There are ingress entries, and none of them has an IP, be it readable or not (S1: a finding).
    pub hostname_only: bool,
    /// `spec.type` is LoadBalancer.
    pub load_balancer: bool,
}

/// One object of any of the three kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A Deployment.
    Deployment(Deployment),
    /// A Pod.
    Pod(Pod),
    /// A Service.
    Service(Service),
}

impl Object {
    /// Decodes one item of a list, or the object of a watch event.
    pub fn decode(kind: Kind, json: &[u8]) -> Result<Object, serde_json::Error> {
        Ok(match kind {
            Kind::Deployment => Object::Deployment(serde_json::from_slice(json)?),
            Kind::Pod => Object::Pod(serde_json::from_slice(json)?),
            Kind::Service => Object::Service(serde_json::from_slice(json)?),
        })
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Object::Deployment(_) => Kind::Deployment,
            Object::Pod(_) => Kind::Pod,
            Object::Service(_) => Kind::Service,
        }
    }

    /// Its namespace and name.
    pub fn key(&self) -> &Key {
        match self {
            Object::Deployment(it) => &it.key,
            Object::Pod(it) => &it.key,
            Object::Service(it) => &it.key,
        }
    }

    /// Whether any rule needs it. What is not worth keeping is treated as if it were not there, which makes an
    /// ended Pod, a removed annotation and a changed Service type the same as a deletion.
    pub fn is_kept(&self) -> bool {
        match self {
            Object::Deployment(it) => it.annotation.is_some() || !it.unknown_keys.is_empty(),
            Object::Pod(it) => !it.terminal && (it.deployment.is_some() || !it.addresses.is_empty()),
            Object::Service(it) => it.load_balancer && !it.selector.is_empty(),
        }
    }
}

/// Reads `null` as the default: API servers of all ages write empty lists and maps either way.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The longest name of an object, in bytes (RFC 1123 subdomain).
pub const MAX_NAME: usize = 253;

/// RFC 1123: a label, or several with points between them. Names of objects are such, and become part of URLs and texts.
pub fn is_dns_name(text: &str, longest: usize, labels: bool) -> bool {
    let is_label = |it: &str| {
        let good = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
        !it.is_empty() && it.bytes().all(good) && !it.starts_with('-') && !it.ends_with('-')
    };
    text.len() <= longest && if labels { text.split('.').all(is_label) } else { is_label(text) }
}

/// An API server gives no object another name; what does is none.
fn object_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    let name = Box::<str>::deserialize(deserializer)?;
    is_dns_name(&name, MAX_NAME, true)
        .then_some(name)
        .ok_or_else(|| D::Error::custom("the name of an object is no DNS name"))
}

fn namespace_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    let name = Box::<str>::deserialize(deserializer)?;
    is_dns_name(&name, 63, false)
        .then_some(name)
        .ok_or_else(|| D::Error::custom("the name of a namespace is no DNS label"))
}

/// The few fields that are decoded, in the API server's own shape. Everything else is skipped unread.
mod wire {
    use super::{
        ANNOTATIONS, Arc, BINDING_ANNOTATION, BTreeMap, Deserialize, Key, Labels, MAX_NAME, MAX_QUOTE,
        PAUSE_ANNOTATION, UnknownKeys, namespace_name, nullable, object_name,
    };
    use crate::model::address;

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        #[serde(deserialize_with = "object_name")]
        name: Box<str>,
        #[serde(default, deserialize_with = "namespace_name")]
        namespace: Box<str>,
        #[serde(default)]
        uid: Box<str>,
        #[serde(default, deserialize_with = "nullable")]
        creation_timestamp: Box<str>,
        #[serde(default)]
        deletion_timestamp: Option<Box<str>>,
        #[serde(default, deserialize_with = "nullable")]
        labels: Labels,
        #[serde(default, deserialize_with = "nullable")]
        owner_references: Vec<OwnerReference>,
    }

    impl Metadata {
        fn key(&self) -> Key {
            Key::new(&self.namespace, &self.name)
        }
    }

    #[derive(Deserialize)]
    struct OwnerReference {
        #[serde(default)]
        kind: Box<str>,
        #[serde(default)]
        name: Box<str>,
        #[serde(default)]
        controller: Option<bool>,
    }

    #[derive(Deserialize)]
    pub struct Deployment {
        metadata: AnnotatedMetadata,
        #[serde(default)]
        spec: DeploymentSpec,
        #[serde(default, deserialize_with = "nullable")]
        status: DeploymentStatus,
    }

    #[derive(Deserialize, Default)]
    struct DeploymentStatus {
        #[serde(default, deserialize_with = "nullable")]
        replicas: i64,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct AnnotatedMetadata {
        #[serde(deserialize_with = "object_name")]
        name: Box<str>,
        #[serde(default, deserialize_with = "namespace_name")]
        namespace: Box<str>,
        #[serde(default)]
        uid: Box<str>,
        #[serde(default, deserialize_with = "nullable")]
        creation_timestamp: Box<str>,
        #[serde(default, deserialize_with = "nullable")]
        annotations: BTreeMap<Box<str>, Box<str>>,
    }

    #[derive(Deserialize, Default)]
    struct DeploymentSpec {
        #[serde(default, deserialize_with = "nullable")]
        template: Template,
    }

    #[derive(Deserialize, Default)]
    struct Template {
        #[serde(default, deserialize_with = "nullable")]
        metadata: TemplateMetadata,
    }

    #[derive(Deserialize, Default)]
    struct TemplateMetadata {
        #[serde(default, deserialize_with = "nullable")]
        labels: Labels,
    }

    impl From<Deployment> for super::Deployment {
        fn from(wire: Deployment) -> Self {
            let mut metadata = wire.metadata;
            let pause = metadata.annotations.get(PAUSE_ANNOTATION).filter(|it| !it.is_empty() && &***it != "false");
            let mut unknown_keys = UnknownKeys::default();
            let ours = metadata.annotations.keys().filter(|it| it.starts_with(ANNOTATIONS));
            ours.filter(|it| ![BINDING_ANNOTATION, PAUSE_ANNOTATION].contains(&&***it))
                .for_each(|it| unknown_keys.push(it));
            super::Deployment {
                key: Key::new(&metadata.namespace, &metadata.name),
                uid: metadata.uid,
                created: metadata.creation_timestamp,
                paused: pause.is_some(),
                odd_pause: pause.filter(|it| &***it != "true").map(|it| it.chars().take(MAX_QUOTE).collect()),
                unknown_keys,
                annotation: metadata.annotations.remove(BINDING_ANNOTATION),
                template_labels: wire.spec.template.metadata.labels,
                has_replicas: wire.status.replicas > 0,
            }
        }
    }

    #[derive(Deserialize)]
    pub struct Pod {
        metadata: Metadata,
        #[serde(default, deserialize_with = "nullable")]
        spec: PodSpec,
        #[serde(default, deserialize_with = "nullable")]
        status: PodStatus,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct PodSpec {
        #[serde(default, deserialize_with = "nullable")]
        host_network: bool,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct PodStatus {
        #[serde(default, deserialize_with = "nullable")]
        phase: Box<str>,
        #[serde(default, rename = "podIP", deserialize_with = "nullable")]
        pod_ip: Box<str>,
        #[serde(default, rename = "podIPs", deserialize_with = "nullable")]
        pod_ips: Vec<Ip>,
    }

    #[derive(Deserialize)]
    struct Ip {
        #[serde(default, deserialize_with = "nullable")]
        ip: Box<str>,
    }

    impl From<Pod> for super::Pod {
        fn from(wire: Pod) -> Self {
            let deployment = owning_deployment(&wire.metadata);
            let terminal = matches!(&*wire.status.phase, "Succeeded" | "Failed");
            let all = wire.status.pod_ips.iter().map(|it| &*it.ip);
            let (mut addresses, mut unreadable) = address::read(all.clone());
            if addresses.is_empty() {
                (addresses, unreadable) = address::read(all.chain([&*wire.status.pod_ip]));
            }
            if wire.spec.host_network || terminal {
                (addresses, unreadable) = (Vec::new(), None);
            }
            super::Pod {
                key: wire.metadata.key(),
                uid: wire.metadata.uid,
                created: wire.metadata.creation_timestamp,
                labels: if deployment.is_some() { wire.metadata.labels } else { Labels::default() },
                deployment,
                addresses: addresses.into(),
                unreadable,
                terminating: wire.metadata.deletion_timestamp.is_some(),
                terminal,
            }
        }
    }

    /// P1: the controller is a ReplicaSet named `{deployment}-{hash}`, hash being the Pod's own label. A name of the
    /// greatest length was perhaps cut, and what is left of the Deployment's may be another one's whole name.
    fn owning_deployment(metadata: &Metadata) -> Option<Arc<str>> {
        let controller = metadata.owner_references.iter().find(|it| it.controller == Some(true))?;
        if &*controller.kind != "ReplicaSet" || controller.name.len() >= MAX_NAME {
            return None;
        }
        let hash = metadata.labels.get("pod-template-hash")?;
        let deployment = controller.name.strip_suffix(hash)?.strip_suffix('-')?;
        (!deployment.is_empty()).then(|| deployment.into())
    }

    #[derive(Deserialize)]
    pub struct Service {
        metadata: Metadata,
        #[serde(default, deserialize_with = "nullable")]
        spec: ServiceSpec,
        #[serde(default, deserialize_with = "nullable")]
        status: ServiceStatus,
    }

    #[derive(Deserialize, Default)]
    struct ServiceSpec {
        #[serde(default, rename = "type", deserialize_with = "nullable")]
        kind: Box<str>,
        #[serde(default, deserialize_with = "nullable")]
        selector: Labels,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct ServiceStatus {
        #[serde(default, deserialize_with = "nullable")]
        load_balancer: LoadBalancer,
    }

    #[derive(Deserialize, Default)]
    struct LoadBalancer {
        #[serde(default, deserialize_with = "nullable")]
        ingress: Vec<Ip>,
    }

    impl From<Service> for super::Service {
        fn from(wire: Service) -> Self {
            let ingress = &wire.status.load_balancer.ingress;
            let (addresses, unreadable) = address::read(ingress.iter().map(|it| &*it.ip));
            super::Service {
                key: wire.metadata.key(),
                uid: wire.metadata.uid,
                hostname_only: !ingress.is_empty() && addresses.is_empty() && unreadable.is_none(),
                addresses,
                unreadable,
                selector: wire.spec.selector,
                load_balancer: &*wire.spec.kind == "LoadBalancer",
            }
        }
    }
}
