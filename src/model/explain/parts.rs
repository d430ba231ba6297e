//! The parts of an explanation, as they are serialized.

use serde::Serialize;

use super::Verdict;
use crate::model::dn::Prefix;
use crate::model::finding::Code;
use crate::model::kubernetes::{Key, Kind};
use crate::model::rules::Policy;
use crate::model::source::Source;

/// What an explanation is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum SubjectPart {
    /// An object of the cluster.
    Object(ObjectPart),
    /// An address.
    Address {
        /// Always `Address`.
        kind: &'static str,
        /// The address with its length.
        prefix: String,
    },
    /// An object of the fabric.
    Fabric {
        /// `EPG` or `Subnet`.
        kind: &'static str,
        /// Its DN.
        dn: String,
    },
}

impl SubjectPart {
    pub(super) fn object(kind: Kind, key: &Key) -> SubjectPart {
        SubjectPart::Object(ObjectPart::of(kind, key))
    }

    /// The subject as findings and people write it.
    pub fn text(&self) -> String {
        match self {
            SubjectPart::Object(ObjectPart { kind, namespace, name }) if kind.is_empty() => {
                format!("{namespace}/{name}")
            }
            SubjectPart::Object(ObjectPart { kind, namespace, name }) => format!("{kind} {namespace}/{name}"),
            SubjectPart::Address { prefix, .. } => prefix.clone(),
            SubjectPart::Fabric { dn, .. } => dn.clone(),
        }
    }
}

/// The annotation of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnnotationPart {
    /// `valid`, `invalid` or `none`.
    pub state: &'static str,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The DN of the EPG that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epg: Option<String>,
    /// What the workload exposes.
    pub expose: Vec<&'static str>,
}

/// An L3Out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct L3outPart {
    /// Its DN.
    pub dn: String,
    /// `present`, `missing` or `unread`.
    pub state: &'static str,
    /// The DN of its VRF.
    pub vrf: Option<String>,
}

/// An EPG.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EpgPart {
    /// Its DN.
    pub dn: String,
    /// `present`, `different` (its owner annotation has to be written), `missing` or `unread`.
    pub state: &'static str,
    /// Whose it is.
    pub owner: Option<&'static str>,
    /// The first of the workloads that name it, with their kinds.
    pub workloads: Vec<String>,
    /// How many workloads name it.
    pub workloads_total: usize,
    /// How many contracts it provides.
    pub provided: usize,
    /// How many contracts it consumes.
    pub consumed: usize,
    /// How many faults F0467 it has: another EPG of the VRF has a prefix of it. Nothing if faults could not be read.
    pub faults: Option<usize>,
    /// What keeps the EPG as a whole from being as desired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

/// One address in an EPG.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AddressPart {
    /// The address with its length.
    pub prefix: String,
    /// The Pod or Service that it comes from; nothing if that is not known.
    pub from: Option<ObjectPart>,
    /// The DN of the EPG.
    pub epg: String,
    /// Whether it is there.
    pub state: AddressState,
    /// Why it is not as desired; nothing if the next reconcile does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// The EPG that has the address instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Why, for people; empty if there is nothing to say.
    pub reason: String,
}

/// Whether an address is in its EPG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressState {
    /// It is there as desired.
    Present,
    /// It is there and has to be repaired, or does not classify traffic.
    Different,
    /// It is desired and not there.
    Missing,
    /// It is there and not desired.
    Surplus,
}

impl AddressPart {
    pub(super) fn order(&self) -> Option<Prefix> {
        self.prefix.parse().ok()
    }

    /// Whether a subnet for it is there.
    pub(super) fn is_there(&self) -> bool {
        matches!(self.state, AddressState::Present | AddressState::Different)
    }

    pub(super) fn verdict(&self, policy: Policy) -> Verdict {
        match (self.state, self.code) {
            (AddressState::Present, _) => Verdict::InSync,
            (_, Some(code)) => Verdict::of(code),
            (AddressState::Surplus, None) if policy == Policy::UpsertOnly => Verdict::InSync,
            (_, None) if policy == Policy::Observe => Verdict::Observing,
            (_, None) => Verdict::Pending,
        }
    }
}

/// An object of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ObjectPart {
    /// Its kind; empty for one that was asked about and is not there.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectPart {
    pub(super) fn of(kind: Kind, key: &Key) -> ObjectPart {
        let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
        ObjectPart { kind: kind.to_string(), namespace, name }
    }

    pub(super) fn source(source: &Source) -> ObjectPart {
        ObjectPart::of(if source.is_pod { Kind::Pod } else { Kind::Service }, &source.key)
    }
}

/// A Pod or Service, or one address of it, that is not exposed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotExposedPart {
    /// The Pod or Service.
    #[serde(flatten)]
    pub object: ObjectPart,
    /// The one reason.
    pub reason: NotExposed,
    /// The reason for people.
    pub text: String,
    /// The code of the finding about it, if it is more than how things are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// It gets its address by itself, a little later.
    #[serde(skip)]
    pub(super) is_pending: bool,
}

impl NotExposedPart {
    pub(super) fn verdict(&self) -> Verdict {
        self.code.map_or(if self.is_pending { Verdict::Pending } else { Verdict::InSync }, Verdict::of)
    }
}

/// Why a Pod or Service is not exposed: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NotExposed {
    /// The Pod has the addresses of its node (P2).
    HostNetwork,
    /// The Pod has ended (P2).
    Phase,
    /// It has no address yet.
    NoAddress,
    /// Its address cannot be read (P2, S1).
    InvalidAddress,
    /// The workload does not expose its kind (D2).
    Expose,
    /// The Service is of another type (S1).
    Type,
    /// The Service has no selector (S1).
    NoSelector,
    /// The selector of the Service does not select the workload (S1).
    Selector,
    /// The load balancer has a host name only (S1).
    HostnameOnly,
    /// The address belongs to another Pod now (P5).
    BelongsToAnother,
    /// The address is never exposed (P6).
    Address,
}

/// A Pod or Service that has an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClaimPart {
    /// The Pod or Service.
    #[serde(flatten)]
    pub object: ObjectPart,
    /// The Pod is terminating.
    pub terminating: bool,
    /// The address belongs to it (P5).
    pub wins: bool,
    /// A workload with a valid binding exposes it.
    pub managed: bool,
}

/// A subnet of an EPG that holds an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HolderPart {
    /// The prefix.
    pub prefix: String,
    /// The DN of its EPG.
    pub epg: String,
    /// Whose the subnet is.
    pub owner: &'static str,
    /// It classifies traffic: it has the scope flag `import-security`.
    pub classifies: bool,
    /// The DN of the VRF, if it is known.
    pub vrf: Option<String>,
    /// How many contracts the EPG provides; nothing if the EPG was not read.
    pub provided: Option<usize>,
    /// How many contracts the EPG consumes.
    pub consumed: Option<usize>,
}
