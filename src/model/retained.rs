//! Why a subnet stays where it is not desired (D2, D3, D5), and why an EPG cannot be used (D5).

use std::fmt;

use super::desired::DesiredEpg;
use super::dn::{EpgDn, ObjectDn};
use super::kubernetes::Workload;
use super::observed::L3out;
use super::plan_input::PlanInput;

/// Why a subnet stays, and for which workload; nothing if it stays for all that name its EPG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Retained<'a> {
    pub(super) workload: Option<&'a Workload>,
    pub(super) reason: Reason<'a>,
}

/// Why a subnet stays where it is not desired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason<'a> {
    /// The workload is paused (D2).
    Paused,
    /// Every workload that names the EPG is paused (D2).
    EpgPaused,
    /// No valid annotation of the workload is known (D3).
    Unknown,
    /// The EPG that the workload names cannot be used (D5).
    Unusable(&'a EpgDn, Unusable),
    /// Its move to that EPG waits for an operator's approval (J3).
    MoveBlocked(&'a EpgDn),
    /// That EPG is created in this reconcile, and then the subnet moves; or moves were not counted yet (J3).
    Moves,
}

impl Reason<'_> {
    /// Whether it stays for a pause, whatever else is desired.
    pub(super) fn is_pause(self) -> bool {
        matches!(self, Reason::Paused | Reason::EpgPaused)
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Paused => f.write_str("the workload is paused"),
            Reason::EpgPaused => f.write_str("all workloads that name the EPG are paused"),
            Reason::Unknown => f.write_str("no valid annotation of the workload is known"),
            Reason::Moves => f.write_str("its new EPG is created first"),
            Reason::MoveBlocked(dn) => write!(f, "the move to {dn} waits for approval"),
            Reason::Unusable(dn, Unusable::BeyondQuota) => write!(f, "{dn} exceeds --max-epgs"),
            Reason::Unusable(dn, Unusable::Unread) => write!(f, "{} was not read yet", dn.l3out),
            Reason::Unusable(dn, Unusable::L3OutNotFound) => write!(f, "L3Out {} not found", dn.l3out),
            Reason::Unusable(dn, Unusable::Paused) => write!(f, "{dn} is paused"),
            Reason::Unusable(dn, Unusable::LeftAlone) => {
                write!(f, "{dn} is deferred after a rejection or a conflict")
            }
            Reason::Unusable(dn, Unusable::Refused) => write!(f, "{dn} is foreign and --foreign-epg is refuse"),
            Reason::Unusable(dn, Unusable::ForeignEpgDeleted) => write!(f, "{dn} is foreign and was deleted"),
        }
    }
}

/// Why an EPG that a workload names cannot be used (D5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unusable {
    /// It is beyond what its namespaces may have (W6).
    BeyondQuota,
    /// Its L3Out was not read.
    Unread,
    /// Its L3Out is missing (R3).
    L3OutNotFound,
    /// Every workload that names it is paused (D2).
    Paused,
    /// It is left alone for now (W3, W8, R5).
    LeftAlone,
    /// It is foreign, and foreign EPGs are refused (W6).
    Refused,
    /// It is foreign, and another writer deleted it (O4).
    ForeignEpgDeleted,
}

/// D5: why an EPG cannot be used. That it has yet to be created is no reason.
pub(super) fn why_unusable(input: &PlanInput<'_>, dn: &EpgDn, desired: &DesiredEpg) -> Option<Unusable> {
    let fabric = input.fabric;
    if desired.beyond_quota {
        return Some(Unusable::BeyondQuota);
    }
    match fabric.l3out(&dn.l3out) {
        None => return Some(Unusable::Unread),
        Some(L3out::Missing) => return Some(Unusable::L3OutNotFound),
        Some(L3out::Present { .. }) => {}
    }
    let object = ObjectDn::Epg(dn.clone());
    match fabric.epg(dn) {
        _ if desired.is_paused() => Some(Unusable::Paused),
        Some(epg) if !epg.belongs_to_us() && !input.rules.use_foreign => Some(Unusable::Refused),
        None if fabric.is_tagged(dn) || input.tag_failures.contains_key(dn) => Some(Unusable::ForeignEpgDeleted),
        epg => {
            let is_left_alone = (input.is_deferred)(&object) || (epg.is_none() && (input.is_throttled)(&object));
            is_left_alone.then_some(Unusable::LeftAlone)
        }
    }
}
