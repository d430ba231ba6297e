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
    /// The cluster itself, where the reason is found why something is no longer desired (R8).
    pub inventory: &'a Inventory,
    /// What the fabric holds.
    pub fabric: &'a FabricCache,
    /// What the configuration says.
    pub rules: &'a Rules,
    /// Whether anything may be deleted now (W1, W5).
    pub may_delete: bool,
    /// The grace of an EPG that is not desired any more; nothing if the policy never deletes (D6, W5).
    pub grace: Option<Duration>,
    /// Whether the grace of an EPG is over (D6).
    pub is_grace_over: &'a dyn Fn(&EpgDn) -> bool,
    /// Whether an object is left alone for now after a rejection (W3, W8); an EPG with all that is in it.
    pub is_deferred: &'a dyn Fn(&ObjectDn) -> bool,
    /// Whether an object is left alone for now because another writer keeps reverting it (R5).
    pub is_throttled: &'a dyn Fn(&ObjectDn) -> bool,
    /// What must not be deleted until an operator approves (W4).
    pub blocked: &'a BTreeSet<ObjectDn>,
    /// Which moves wait (J3).
    pub moves: Moves<'a>,
    /// Whether settled EPGs are looked at, too. That makes no difference.
    pub whole: bool,
    /// The foreign EPGs that only this process remembers (O4).
    pub tag_failures: &'a BTreeMap<EpgDn, TagFailure>,
}

/// Which moves wait (J3).
#[derive(Debug, Clone, Copy)]
pub enum Moves<'a> {
    /// None.
    Free,
    /// All, because this process has not counted them yet.
    Uncounted,
    /// Those of these subnets, until an operator approves.
    Blocked(&'a BTreeSet<ObjectDn>),
}

/// A foreign EPG whose tag cannot be written (O4).
#[derive(Debug, Clone)]
pub struct TagFailure {
    /// Why not.
    pub why: String,
    /// The tag is to be tried once more.
    pub try_again: bool,
}
