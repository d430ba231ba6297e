//! Why each change is made (R8): a closed set. How the cause of a deletion is found is in `deletion_causes`.
//!
//! A cause is always true. If the present cannot distinguish several, as for a change while no aci-sync ran, the cause
//! given is one that holds for all of them.

use std::fmt;

use super::dn::EpgDn;
use super::finding::Few;
use super::kubernetes::Workload;
use super::source::Source;

/// Why a change is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Created: it is desired, and this process has not seen it before.
    Desired,
    /// Created: this process saw it, and then that another writer had deleted it (R1).
    Deleted,

    /// Changed: another writer changed or removed the owner annotation, as this process saw.
    OwnerChanged,
    /// Changed: it has a legacy mark (O3).
    TakenOver,
    /// Changed: it has the name that aci-sync would give it, and no annotation (R2).
    OurName,
    /// Changed: another writer changed the name, as this process saw.
    NameChanged,
    /// Changed: another writer changed the scope, as this process saw.
    ScopeChanged,
    /// Changed: it has another name than the source of its address gives it.
    Source(Source),
    /// Changed: it lacks a flag of `--subnet-scope`.
    ScopeSetting,

    /// Deleted: the address goes to another EPG of the VRF (D5, S3).
    Moves(Box<EpgDn>),
    /// Deleted: the address belongs to another Pod or Service than the one that the subnet is named after (P5).
    BelongsTo(Source),
    /// Deleted: no Pod or Service that could be exposed has its name.
    SourceGone,
    /// Deleted: its Pod or Service has other addresses.
    AddressGone(Source),
    /// Deleted: its Pod belongs to no workload of a kind that is watched (G1).
    NoWorkload(Source),
    /// Deleted: the workload of its Pod is gone, or its annotation was removed (D6).
    Unmanaged(Workload),
    /// Deleted: the workload may not name the EPG that it names (W6).
    NotAllowed(Vec<Workload>),
    /// Deleted: the workload names another EPG (D5).
    NamesAnother(Workload, Box<EpgDn>),
    /// Deleted: the workload exposes no Pods, or no Services (D2).
    NotExposed(Workload, &'static str),
    /// Deleted: the address may not be exposed (P6).
    Refused(&'static str),
    /// Deleted: no workload that names the EPG exposes the address. This holds for everything that is deleted there.
    Undesired,
    /// Deleted: no valid annotation names the EPG. It was removed or changed, or its workload is gone (D6).
    Unnamed,
    /// Deleted by `purge`: it carries our owner annotation (T11).
    Purge,
    /// Deleted by `purge --legacy`: it carries a legacy mark (T11).
    PurgeLegacy,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Desired => f.write_str("desired"),
            Cause::Deleted => f.write_str("deleted by another writer"),
            Cause::OwnerChanged => f.write_str("owner annotation changed by another writer"),
            Cause::TakenOver => f.write_str("legacy object taken over"),
            Cause::OurName => f.write_str("our name, but no annotation"),
            Cause::NameChanged => f.write_str("name changed by another writer"),
            Cause::ScopeChanged => f.write_str("scope changed by another writer"),
            Cause::Source(source) => write!(f, "address belongs to {source}"),
            Cause::ScopeSetting => f.write_str("required by --subnet-scope"),
            Cause::Moves(epg) => write!(f, "moves to {epg}"),
            Cause::BelongsTo(source) => write!(f, "address belongs to {source}"),
            Cause::SourceGone => f.write_str("Pod or Service is gone or can no longer be exposed"),
            Cause::AddressGone(source) => write!(f, "{source} no longer has the address"),
            Cause::NoWorkload(source) => write!(f, "{source} belongs to no workload that is watched"),
            Cause::Unmanaged(workload) => write!(f, "{workload} is gone or not annotated"),
            Cause::NotAllowed(workloads) => write!(f, "not allowed for {}", Few::of(workloads)),
            Cause::NamesAnother(workload, epg) => write!(f, "{workload} names {epg}"),
            Cause::NotExposed(workload, what) => write!(f, "{workload} does not expose {what}"),
            Cause::Refused(why) => write!(f, "address is never exposed: {why}"),
            Cause::Undesired => f.write_str("no workload that names this EPG exposes the address"),
            Cause::Unnamed => f.write_str("no valid annotation names the EPG any more"),
            Cause::Purge => f.write_str("purge"),
            Cause::PurgeLegacy => f.write_str("purge of a legacy object"),
        }
    }
}

/// Several causes of one change.
pub(super) fn list(causes: &[Cause]) -> String {
    causes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
