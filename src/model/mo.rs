//! Managed objects as the APIC's JSON carries them, before they become typed: class, DN and string attributes.

/// One managed object out of an `imdata` array.
///
/// Nested `children` carry an `rn` instead of a `dn` on the wire; whoever decodes them rebuilds the DN and puts
/// them into one flat list, parents first (reference: APIC REST guide, "rsp-subtree").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mo {
    /// The class, such as `l3extSubnet`.
    pub class: String,
    /// The distinguished name as the APIC spells it.
    pub dn: String,
    /// Those attributes of what was sent that anything is decided on.
    pub attributes: Vec<(&'static str, String)>,
}

impl Mo {
    /// An attribute's value; what was not sent reads as empty, as the APIC's own defaults do.
    pub fn get(&self, attribute: &str) -> &str {
        self.sent(attribute).unwrap_or_default()
    }

    /// An attribute's value where it was sent: an event of a change carries only what changed.
    pub fn sent(&self, attribute: &str) -> Option<&str> {
        self.attributes.iter().find(|(name, _)| *name == attribute).map(|(_, value)| value.as_str())
    }
}

/// What a websocket event says happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is there now; the event carries all attributes.
    Created,
    /// It changed; the event carries the changed attributes only.
    Modified,
    /// It is gone; the event carries the DN only.
    Deleted,
}

/// One object's change out of a websocket event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoChange {
    /// What happened.
    pub status: Status,
    /// The object, with the attributes that the event carried.
    pub mo: Mo,
}
