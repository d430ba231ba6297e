//! Compact records of workloads, Pods and Services: a record holds only what a rule needs.
//!
//! `kube::objects` decodes them from JSON and applies the rules about one object alone (P1, P2). How objects relate is
//! in `inventory`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use super::binding::UnknownKeys;

/// The annotation that binds a workload (D1).
pub const BINDING_ANNOTATION: &str = "aci.haystacknetworks.com/l3o";

/// The annotation that pauses a workload (D2).
pub const PAUSE_ANNOTATION: &str = "aci.haystacknetworks.com/pause";

/// The prefix of all annotations of aci-sync; a key with it that is neither of the two above is unknown (D2).
pub const ANNOTATION_PREFIX: &str = "aci.haystacknetworks.com/";

/// The kinds that matter. Which of the workloads are watched is a setting (G1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` StatefulSet.
    StatefulSet,
    /// `apps/v1` DaemonSet.
    DaemonSet,
    /// `v1` Pod.
    Pod,
    /// `v1` Service.
    Service,
}

impl Kind {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Kind; 5] = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::Pod, Kind::Service];

    /// Those that are watched by default (G1).
    pub const DEFAULT: [Kind; 3] = [Kind::Deployment, Kind::Pod, Kind::Service];

    /// Whether it may have the annotation (D1, G2).
    pub fn is_workload(self) -> bool {
        matches!(self, Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
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

/// What addresses are exposed for. Workloads of several kinds may have one name (G2); they are in the order of their names,
/// then of their kinds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// Namespace and name.
    pub key: Key,
    /// Its kind.
    pub kind: Kind,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

/// Labels or a selector, sorted by key. Copies share the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let index = self.0.binary_search_by(|it| (*it.0).cmp(key)).ok()?;
        self.0.get(index).map(|it| &*it.1)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether another copy shares the text.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Whether all of these are among `labels`. An empty selector would select everything; such a Service is never kept.
    pub fn select(&self, labels: &Labels) -> bool {
        #[cfg(test)]
        steps::count();
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

/// A workload, as far as its annotations and Services need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadRecord {
    /// Its name and kind.
    pub id: Workload,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.creationTimestamp`; the API server's spelling sorts by time.
    pub created: Box<str>,
    /// The value of [`BINDING_ANNOTATION`].
    pub annotation: Option<Box<str>>,
    /// Its [`PAUSE_ANNOTATION`] is there, and neither `false` nor empty.
    pub paused: bool,
    /// The first characters of that annotation if it is neither `true` nor `false` (D2: a finding).
    pub invalid_pause: Option<Box<str>>,
    /// Other annotations with aci-sync's prefix.
    pub unknown_keys: UnknownKeys,
    /// `spec.template.metadata.labels`, for S1.
    pub template_labels: Labels,
    /// Its status counts Pods. The number changes all the time, and no rule needs it.
    pub has_replicas: bool,
}

/// A Pod that may expose an address, that a Service may select for a workload, or that claims an address (P5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: Key,
    /// When it was created, and its `metadata.uid`.
    pub birth: Birth,
    /// The name of the workload that it belongs to (P1, G2), whether that exists or not.
    pub owner: Option<Arc<str>>,
    /// The kind of that workload.
    pub owner_kind: Kind,
    /// Its labels; empty if it belongs to no workload, because S1 does not need them then.
    pub labels: Labels,
    /// The addresses that it claims by P2: none for `hostNetwork` (they are the node's), none after it has ended.
    pub addresses: Addresses,
    /// Its addresses that cannot be read, quoted for a finding.
    pub unreadable: Option<Box<str>>,
    /// It has the network of its node, and so no address of its own (P2).
    pub host_network: bool,
    /// It has a deletion timestamp (P3, P5).
    pub terminating: bool,
    /// Its phase is Succeeded or Failed.
    pub terminal: bool,
}

impl Pod {
    /// The workload that it belongs to (P1, G2), whether that exists or not.
    pub fn workload(&self) -> Option<Workload> {
        let name = self.owner.clone()?;
        Some(Workload { key: Key { namespace: self.key.namespace.clone(), name }, kind: self.owner_kind })
    }

    /// P5: of several Pods with one address it belongs to the one that is not terminating, then to the younger one. That
    /// one comes last.
    pub(super) fn precedence(&self) -> (bool, &Birth) {
        (!self.terminating, &self.birth)
    }
}

/// `metadata.creationTimestamp` and `metadata.uid` of a Pod, in the order of these texts; the API server's spelling of the
/// first one sorts by time. A cluster may have 100,000 Pods, so the spelling of every API server needs no memory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Birth {
    /// `2026-11-22T21:14:50Z`, and a UUID in lower case.
    Usual {
        /// The first text.
        created: [u8; 20],
        /// The number that the UUID spells.
        uid: [u8; 16],
    },
    /// Anything else.
    Other(Box<(Box<str>, Box<str>)>),
}

impl Birth {
    /// From both texts.
    pub fn new(created: &str, uid: &str) -> Birth {
        match (created.as_bytes().try_into(), number_of(uid)) {
            (Ok(created), Some(number)) => Birth::Usual { created, uid: number.to_be_bytes() },
            _ => Birth::Other(Box::new((created.into(), uid.into()))),
        }
    }

    fn texts(&self) -> (String, String) {
        match self {
            Birth::Usual { created, uid } => {
                (String::from_utf8_lossy(created).into_owned(), uuid(u128::from_be_bytes(*uid)))
            }
            Birth::Other(texts) => (texts.0.to_string(), texts.1.to_string()),
        }
    }
}

/// The number that a UUID spells, unless it has another spelling than [`uuid`]'s.
fn number_of(text: &str) -> Option<u128> {
    let number = u128::from_str_radix(&text.replace('-', ""), 16).ok()?;
    (uuid(number) == text).then_some(number)
}

fn uuid(number: u128) -> String {
    let digits = format!("{number:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

impl Ord for Birth {
    fn cmp(&self, other: &Birth) -> Ordering {
        match (self, other) {
            (Birth::Usual { created, uid }, Birth::Usual { created: other, uid: other_uid }) => {
                (created, uid).cmp(&(other, other_uid))
            }
            _ => self.texts().cmp(&other.texts()),
        }
    }
}

impl PartialOrd for Birth {
    fn partial_cmp(&self, other: &Birth) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The addresses of a Pod. Nearly every Pod has one, which needs no memory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// One.
    One(IpAddr),
    /// None, or several.
    Several(Box<[IpAddr]>),
}

impl From<Vec<IpAddr>> for Addresses {
    fn from(addresses: Vec<IpAddr>) -> Addresses {
        match addresses[..] {
            [address] => Addresses::One(address),
            _ => Addresses::Several(addresses.into()),
        }
    }
}

impl Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        match self {
            Addresses::One(address) => std::slice::from_ref(address),
            Addresses::Several(addresses) => addresses,
        }
    }
}

/// A Service of type LoadBalancer with a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// There are ingress entries, and none of them has an IP, readable or not (S1: a finding).
    pub hostname_only: bool,
    /// `spec.type` is LoadBalancer.
    pub load_balancer: bool,
}

/// One object of any kind. Lists of 100,000 are handed over as a whole (W1), so it is no larger than a
/// pointer and its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A Deployment, StatefulSet or DaemonSet.
    Workload(Box<WorkloadRecord>),
    /// A Pod.
    Pod(Box<Pod>),
    /// A Service.
    Service(Box<Service>),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Object::Workload(it) => it.id.kind,
            Object::Pod(_) => Kind::Pod,
            Object::Service(_) => Kind::Service,
        }
    }

    /// Its namespace and name.
    pub fn key(&self) -> &Key {
        match self {
            Object::Workload(it) => &it.id.key,
            Object::Pod(it) => &it.key,
            Object::Service(it) => &it.key,
        }
    }

    /// Whether any rule needs it. Other objects are treated as if they were not there, so an ended Pod, a removed annotation
    /// and a changed Service type are the same as a deletion.
    pub fn is_kept(&self) -> bool {
        match self {
            Object::Workload(it) => it.annotation.is_some() || !it.unknown_keys.is_empty(),
            Object::Pod(it) => !it.terminal && (it.owner.is_some() || !it.addresses.is_empty()),
            Object::Service(it) => it.load_balancer && !it.selector.is_empty(),
        }
    }

    /// G1: a Pod of a kind of workload that is not watched belongs to none, and its labels need no memory.
    pub fn forget_unwatched_owner(&mut self, watched: &[Kind]) {
        if let Object::Pod(pod) = self
            && !watched.contains(&pod.owner_kind)
        {
            (pod.owner, pod.labels) = (None, Labels::default());
        }
    }
}

/// The longest name of an object, in bytes (RFC 1123 subdomain).
pub const MAX_NAME: usize = 253;

/// RFC 1123: a label, or several with dots between them. Names of objects have this form, and become part of URLs and
/// texts.
pub fn is_dns_name(text: &str, longest: usize, labels: bool) -> bool {
    let is_label = |it: &str| {
        let good = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
        !it.is_empty() && it.bytes().all(good) && !it.starts_with('-') && !it.ends_with('-')
    };
    text.len() <= longest && if labels { text.split('.').all(is_label) } else { is_label(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P5: Pods are ordered by the texts of their times and uids, however these are spelled, and no spelling is taken for
    /// another one.
    #[test]
    fn births_are_ordered_by_their_texts() {
        let times = ["", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", "2026-01-01T00:00:00.5Z"];
        let uid = "0f0e0d0c-0b0a-0908-0706-050403020100";
        let uids = ["", "u1", uid, "ff0e0d0c-0b0a-0908-0706-050403020100", &uid.to_uppercase(), &uid.replace('-', "")];
        let texts = || times.iter().flat_map(|time| uids.iter().map(move |uid| (*time, *uid)));
        for (one, other) in texts().flat_map(|one| texts().map(move |other| (one, other))) {
            let births = [one, other].map(|(created, uid)| Birth::new(created, uid));
            assert_eq!(births[0].cmp(&births[1]), one.cmp(&other), "{one:?} {other:?}");
            assert_eq!(births[0] == births[1], one == other);
        }
        assert!(matches!(Birth::new(times[1], uid), Birth::Usual { .. }));
    }
}

/// How often labels were looked at, for tests about what an event costs (X3).
#[cfg(test)]
pub(super) mod steps {
    use std::cell::Cell;

    thread_local! {
        static COUNT: Cell<usize> = const { Cell::new(0) };
    }

    pub(in crate::model) fn count() {
        COUNT.set(COUNT.get() + 1);
    }

    /// Since the last call.
    pub(in crate::model) fn take() -> usize {
        COUNT.take()
    }
}
