//! Everything that a plan depends on (R6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cache::FabricCache;
use super::desired::DesiredState;
use super::dn::{EpgDn, ObjectDn};
use super::inventory::Inventory;
use super::rules::Rules;

/// Everything that a plan depends on.
pub struct PlanInput<'a> {
    /// What the cluster calls for.
    pub desired: &'a DesiredState,
    /// The cluster that calls for it: why something is not desired any more is found there (R8).
    pub inventory: &'a Inventory,
    /// What the fabric holds.
    pub fabric: &'a FabricCache,
    /// What the configuration says.
    pub rules: &'a Rules,
    /// Whether anything may be deleted now (W1, W5).
    pub deletes: bool,
    /// How long the grace of an unwanted EPG is; nothing where the policy deletes none (D6, W5).
    pub grace: Option<Duration>,
    /// Whether the grace of an unwanted EPG is over (D6).
    pub grace_over: &'a dyn Fn(&EpgDn) -> bool,
    /// Whether an object is left alone for now because the APIC refused what was sent there (W3, W8); an EPG with all
    /// that is in it.
    pub deferred: &'a dyn Fn(&ObjectDn) -> bool,
    /// Whether an object is left alone for now because somebody fights over it (R5).
    pub throttled: &'a dyn Fn(&ObjectDn) -> bool,
    /// What must not be deleted until somebody consents (W4).
    pub blocked: &'a BTreeSet<ObjectDn>,
    /// The foreign EPGs that this process itself remembers (O4).
    pub tag_failures: &'a BTreeMap<EpgDn, TagFailure>,
}

/// A foreign EPG whose tag the fabric does not take (O4).
#[derive(Debug, Clone)]
pub struct TagFailure {
    /// Why not.
    pub why: String,
    /// The tag is to be tried once more.
    pub try_again: bool,
}
