//! Kubernetes objects from JSON into the records of the model.
//!
//! The rules about one object alone are applied here (P1, P2); how objects relate is the model's business. Each struct
//! below names the few fields that are needed, in the API server's shape; all others are skipped unread.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::decode::Item;
use crate::model::address;
use crate::model::binding::UnknownKeys;
use crate::model::kubernetes::{
    ANNOTATION_PREFIX, BINDING_ANNOTATION, Birth, Key, Kind, Labels, MAX_NAME, Object, PAUSE_ANNOTATION, Pod, Service,
    Workload, WorkloadRecord, is_dns_name,
};

/// How many characters of an unexpected value are quoted.
const MAX_QUOTE: usize = 64;

/// Decodes one object of a kind.
pub fn decode(kind: Kind, json: &[u8]) -> Result<Object, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let object = Object::decode(kind, &mut deserializer)?;
    deserializer.end()?;
    Ok(object)
}

impl Item for Object {
    fn decode<'de, D: Deserializer<'de>>(kind: Kind, deserializer: D) -> Result<Object, D::Error> {
        Ok(match kind {
            kind @ (Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet) => {
                Object::Workload(Box::new(WorkloadJson::deserialize(deserializer)?.record(kind)))
            }
            Kind::Pod => Object::Pod(Box::new(PodJson::deserialize(deserializer)?.into())),
            Kind::Service => Object::Service(Box::new(ServiceJson::deserialize(deserializer)?.into())),
        })
    }

    fn key(&self) -> Key {
        self.key().clone()
    }
}

/// Reads `null` as the default: API servers of all ages write empty lists and maps either way.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Names become part of URLs and texts, so only names that an API server accepts are taken.
fn object_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    let name = Box::<str>::deserialize(deserializer)?;
    if is_dns_name(&name, MAX_NAME, true) { Ok(name) } else { Err(D::Error::custom("invalid object name")) }
}

fn namespace_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    let name = Box::<str>::deserialize(deserializer)?;
    if is_dns_name(&name, 63, false) { Ok(name) } else { Err(D::Error::custom("invalid namespace name")) }
}

/// Labels, annotations or a selector.
type TextMap = BTreeMap<Box<str>, Box<str>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectMetadata {
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
    labels: TextMap,
    #[serde(default, deserialize_with = "nullable")]
    owner_references: Vec<OwnerReference>,
}

impl ObjectMetadata {
    pub(super) fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnerReference {
    #[serde(default)]
    api_version: Box<str>,
    #[serde(default)]
    kind: Box<str>,
    #[serde(default)]
    name: Box<str>,
    #[serde(default)]
    controller: Option<bool>,
}

#[derive(Deserialize)]
struct WorkloadJson {
    metadata: WorkloadMetadata,
    #[serde(default)]
    spec: WorkloadSpec,
    #[serde(default, deserialize_with = "nullable")]
    status: WorkloadStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct WorkloadStatus {
    #[serde(default, deserialize_with = "nullable")]
    replicas: i64,
    /// A DaemonSet's count of nodes that have a Pod of it.
    #[serde(default, deserialize_with = "nullable")]
    current_number_scheduled: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadMetadata {
    #[serde(deserialize_with = "object_name")]
    name: Box<str>,
    #[serde(default, deserialize_with = "namespace_name")]
    namespace: Box<str>,
    #[serde(default)]
    uid: Box<str>,
    #[serde(default, deserialize_with = "nullable")]
    creation_timestamp: Box<str>,
    #[serde(default, deserialize_with = "nullable")]
    annotations: TextMap,
}

#[derive(Deserialize, Default)]
struct WorkloadSpec {
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
    labels: TextMap,
}

impl WorkloadJson {
    fn record(self, kind: Kind) -> WorkloadRecord {
        let mut metadata = self.metadata;
        let pause = metadata.annotations.get(PAUSE_ANNOTATION).filter(|it| !it.is_empty() && &***it != "false");
        let mut unknown_keys = UnknownKeys::default();
        for key in metadata.annotations.keys().filter(|it| it.starts_with(ANNOTATION_PREFIX)) {
            if ![BINDING_ANNOTATION, PAUSE_ANNOTATION].contains(&&**key) {
                unknown_keys.push(key);
            }
        }
        WorkloadRecord {
            id: Workload { key: Key::new(&metadata.namespace, &metadata.name), kind },
            uid: metadata.uid,
            created: metadata.creation_timestamp,
            paused: pause.is_some(),
            invalid_pause: pause.filter(|it| &***it != "true").map(|it| it.chars().take(MAX_QUOTE).collect()),
            unknown_keys,
            annotation: metadata.annotations.remove(BINDING_ANNOTATION),
            template_labels: self.spec.template.metadata.labels.into(),
            has_replicas: self.status.replicas > 0 || self.status.current_number_scheduled > 0,
        }
    }
}

#[derive(Deserialize)]
struct PodJson {
    metadata: ObjectMetadata,
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

impl From<PodJson> for Pod {
    fn from(json: PodJson) -> Self {
        let owner = owner(&json.metadata);
        let terminal = matches!(&*json.status.phase, "Succeeded" | "Failed");
        let all = json.status.pod_ips.iter().map(|it| &*it.ip);
        let (mut addresses, mut unreadable) = address::read(all.clone());
        if addresses.is_empty() {
            (addresses, unreadable) = address::read(all.chain([&*json.status.pod_ip]));
        }
        if json.spec.host_network || terminal {
            (addresses, unreadable) = (Vec::new(), None);
        }
        Pod {
            key: json.metadata.key(),
            birth: Birth::new(&json.metadata.creation_timestamp, &json.metadata.uid),
            labels: if owner.is_some() { json.metadata.labels.into() } else { Labels::default() },
            owner_kind: owner.as_ref().map_or(Kind::Deployment, |it| it.0),
            owner: owner.map(|it| it.1),
            addresses: addresses.into(),
            unreadable,
            host_network: json.spec.host_network,
            terminating: json.metadata.deletion_timestamp.is_some(),
            terminal,
        }
    }
}

/// The workload that a Pod belongs to, by its controller (P1, G2).
fn owner(metadata: &ObjectMetadata) -> Option<(Kind, Arc<str>)> {
    let controller = metadata.owner_references.iter().find(|it| it.controller == Some(true))?;
    // Other groups have kinds of these names, too.
    let is_of_apps = controller.api_version.split_once('/').is_some_and(|(group, _)| group == "apps");
    let kind = match &*controller.kind {
        "ReplicaSet" => return Some((Kind::Deployment, owning_deployment(controller, &metadata.labels)?)),
        "StatefulSet" => Kind::StatefulSet,
        "DaemonSet" => Kind::DaemonSet,
        _ => return None,
    };
    (is_of_apps && !controller.name.is_empty()).then(|| (kind, controller.name.as_ref().into()))
}

/// P1: a ReplicaSet is named `{deployment}-{hash}`, where the hash is the Pod's own label. A name of the greatest length
/// may have been cut, and the rest of the Deployment's name may be another Deployment's whole name.
fn owning_deployment(controller: &OwnerReference, labels: &TextMap) -> Option<Arc<str>> {
    if controller.name.len() >= MAX_NAME {
        return None;
    }
    let hash = labels.get("pod-template-hash")?;
    let deployment = controller.name.strip_suffix(&**hash)?.strip_suffix('-')?;
    (!deployment.is_empty()).then(|| deployment.into())
}

#[derive(Deserialize)]
struct ServiceJson {
    metadata: ObjectMetadata,
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
    selector: TextMap,
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

impl From<ServiceJson> for Service {
    fn from(json: ServiceJson) -> Self {
        let ingress = &json.status.load_balancer.ingress;
        let (addresses, unreadable) = address::read(ingress.iter().map(|it| &*it.ip));
        Service {
            key: json.metadata.key(),
            uid: json.metadata.uid,
            hostname_only: !ingress.is_empty() && addresses.is_empty() && unreadable.is_none(),
            addresses,
            unreadable,
            selector: json.spec.selector.into(),
            load_balancer: &*json.spec.kind == "LoadBalancer",
        }
    }
}
