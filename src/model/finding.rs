//! What people should know: never a crash, never a stop for others.

use std::fmt;

use super::dn::{EepgDn, L3outDn, ObjectDn};
use super::kube::{Key, Kind};

/// One thing that people should know, as long as it holds.
///
/// Two passes that see the same thing yield equal findings; that is how one knows that a finding is new or gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What sort of thing it is.
    pub code: Code,
    /// What it is about.
    pub subject: Subject,
    /// The rest of the sentence, with what can be done about it.
    pub text: String,
    /// The same for the people of the namespaces concerned, who read it in a Kubernetes Event (K5): without the names of
    /// other namespaces' objects. Nothing where the text has none.
    note: Option<String>,
}

impl Finding {
    /// A finding about an object.
    pub fn new(code: Code, subject: impl Into<Subject>, text: impl Into<String>) -> Self {
        Finding { code, subject: subject.into(), text: text.into(), note: None }
    }

    /// The same finding, whose text names objects of other namespaces.
    pub fn with_note(self, note: impl Into<String>) -> Self {
        Finding { note: Some(note.into()), ..self }
    }

    /// The text for the people of the namespaces concerned.
    pub fn note(&self) -> &str {
        self.note.as_ref().unwrap_or(&self.text)
    }
}

/// The first five of a list, and how many more there are.
pub fn few(all: &[impl fmt::Display]) -> String {
    const NAMED: usize = 5;
    let mut text = all.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        text += &format!(" and {} more", all.len() - NAMED);
    }
    text
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.text)
    }
}

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An object of the cluster.
    Cluster(Kind, Key),
    /// An L3Out.
    L3out(L3outDn),
    /// An EEPG, or what is in it.
    Fabric(ObjectDn),
    /// A part of the whole, such as the APIC.
    Part(&'static str),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Cluster(kind, key) => write!(f, "{kind} {key}"),
            Subject::L3out(dn) => dn.fmt(f),
            Subject::Fabric(dn) => dn.fmt(f),
            Subject::Part(name) => f.write_str(name),
        }
    }
}

impl From<(Kind, &Key)> for Subject {
    fn from((kind, key): (Kind, &Key)) -> Self {
        Subject::Cluster(kind, key.clone())
    }
}

impl From<&L3outDn> for Subject {
    fn from(dn: &L3outDn) -> Self {
        Subject::L3out(dn.clone())
    }
}

impl From<&EepgDn> for Subject {
    fn from(dn: &EepgDn) -> Self {
        Subject::Fabric(ObjectDn::Eepg(dn.clone()))
    }
}

impl From<&ObjectDn> for Subject {
    fn from(dn: &ObjectDn) -> Self {
        Subject::Fabric(dn.clone())
    }
}

impl From<&'static str> for Subject {
    fn from(name: &'static str) -> Self {
        Subject::Part(name)
    }
}

/// The sorts of findings. Their names are the reasons of Kubernetes Events (K5), which people look for: they stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// An annotation that is not a valid enrolment (D1, D3).
    InvalidAnnotation,
    /// An annotation with a key that nobody knows (D2).
    UnknownKey,
    /// An annotation that names what its namespace may not have (W6).
    NotAllowed,
    /// A Deployment that is paused, or an EEPG that is left alone because all its Deployments are (D2).
    Paused,
    /// A Service whose ingress has host names only (S1).
    HostnameOnly,
    /// An address of a Pod or of a Service's ingress that is none as Kubernetes reads them (P2, S1).
    UnreadableAddress,
    /// A Deployment whose status counts replicas while none of its Pods is found (P1).
    PodsNotFound,
    /// Two Deployments want one address in two EEPGs of one VRF (S3).
    AddressConflict,
    /// A Pod of an enrolled Deployment has an address that belongs to another Pod now (P5).
    AddressClaimed,
    /// An address that is never exposed (P6).
    AddressNotExposed,
    /// A foreign object holds a wanted address (S3).
    HeldByForeign,
    /// A foreign subnet that is relied on lacks `import-security` (O2).
    ForeignScope,
    /// A tenant or an L3Out that is not there (R3).
    L3outMissing,
    /// A foreign EEPG that a Deployment names and may not use (W6).
    ForeignRefused,
    /// A foreign EEPG that was used, and that somebody deleted (O4).
    ForeignGone,
    /// The fabric does not take the tag that remembers a foreign EEPG (O4).
    Unremembered,
    /// Objects of another aci-sync where ours are wanted (O6).
    OtherCluster,
    /// A move that cannot be made yet (D5, W2).
    Waiting,
    /// A subnet of a Deployment's own that stays where nothing wants it, because its address has no place yet (D3, D5).
    SubnetRetained,
    /// An unwanted EEPG of ours that has to stay (D6).
    EepgStays,
    /// An unwanted object of a predecessor (O3).
    Predecessor,
    /// An object that lost our mark (R2).
    MarkLost,
    /// Somebody undoes again and again what we do (R5).
    Fight,
    /// Deletions that wait for somebody's consent (W4).
    Held,
    /// A write that the APIC refused (W3, W8).
    Rejected,
    /// An L3Out of whose changes the APIC tells nothing (A6).
    NoEvents,
    /// A side that cannot be reached, or deletes that wait for it (W1, W8).
    Unavailable,
}

impl Code {
    /// Whether something that is wanted waits because of it.
    pub fn is_open(self) -> bool {
        matches!(
            self,
            Code::Rejected
                | Code::PodsNotFound
                | Code::Waiting
                | Code::SubnetRetained
                | Code::Held
                | Code::Fight
                | Code::Paused
                | Code::L3outMissing
                | Code::ForeignGone
                | Code::ForeignRefused
                | Code::HeldByForeign
        )
    }
}
