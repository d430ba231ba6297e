//! Managed objects (MOs) as decoded from the APIC's JSON, before the cache makes EPGs and subnets of them.

/// One managed object of an answer or an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mo {
    /// The class, such as `l3extSubnet`.
    pub class: String,
    /// The distinguished name as the APIC spells it.
    pub dn: String,
    /// The attributes that were sent.
    pub attributes: Attributes,
}

/// The attributes that decisions depend on, each if it was sent: an event of a change carries only what changed.
/// An object has some thirty attributes, and thousands of objects may wait for a reconcile to end, so only these are
/// kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `annotation`: of an EPG, a subnet.
    pub annotation: Option<Box<str>>,
    /// `name`: of an EPG, a subnet.
    pub name: Option<Box<str>>,
    /// `scope`: the flags of a subnet.
    pub scope: Option<Box<str>>,
    /// `modTs`, the time of the last change: of an EPG and of a contract relation.
    pub modified: Option<Box<str>>,
    /// `tDn`: the target of a relation, such as an L3Out's VRF.
    pub target_dn: Option<Box<str>>,
    /// Whether `state` is `formed`: of an L3Out's relation to its VRF.
    pub is_formed: Option<bool>,
    /// `addr`, or `floatingAddr` of a floating path: of an interface and of a BGP peer below an L3Out.
    pub address: Option<Box<str>>,
    /// Whether `changeSet` or `descr` has `prefix-entry-already-in-use`: of a fault.
    pub is_prefix_in_use: bool,
    /// Whether `severity` is `cleared` or `lc` is `retaining`: of a fault that is over, and kept for people to see.
    pub is_over: bool,
}

/// What a websocket event says happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It was created; the event carries all attributes.
    Created,
    /// It was changed; the event carries the changed attributes only.
    Modified,
    /// It was deleted; the event carries the DN only.
    Deleted,
}

/// One object's change, from a websocket event or from the answer to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoChange {
    /// What happened.
    pub status: Status,
    /// The object, with the attributes that were sent.
    pub mo: Mo,
}
