//! What people should know: never a crash, never a stop for others.

use std::fmt;

/// One thing that people should know, as long as it holds.
///
/// Two passes that see the same thing yield equal findings; that is how one knows that a finding is new or gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What sort of thing it is.
    pub code: Code,
    /// The object it is about: `Deployment ns/name`, `Service ns/name` or a DN.
    pub subject: String,
    /// The rest of the sentence, with what can be done about it.
    pub text: String,
}

impl Finding {
    /// A finding about an object.
    pub fn new(code: Code, subject: impl fmt::Display, text: impl Into<String>) -> Self {
        Finding { code, subject: subject.to_string(), text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.text)
    }
}

/// The sorts of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// An annotation that is not a valid enrolment (D1, D3).
    InvalidAnnotation,
    /// An annotation with a key that nobody knows (D2).
    UnknownKey,
    /// An annotation that names what its namespace may not have (W6).
    NotAllowed,
    /// An EEPG that a Deployment's pause keeps as it is (D2).
    Paused,
    /// A Service whose ingress has host names only (S1).
    HostnameOnly,
    /// Two Deployments want one address in two EEPGs of one VRF (S3).
    AddressConflict,
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
    /// A side that cannot be reached, or deletes that wait for it (W1, W8).
    Unavailable,
}
