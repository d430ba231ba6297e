//! The cluster's side of the state. It lives as long as the process: a standby watches the cluster as the leader does, and
//! a take-over (K4) keeps it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Rules;
use crate::model::desired::{DesiredState, Vrf, desired_state, named_l3outs};
use crate::model::dn::{EpgDn, L3outDn};
use crate::model::inventory::{Changed, Inventory, ManagedWorkload};
use crate::model::missing_pods::MissingPods;

/// The most addresses that are remembered as out of date. A standby, or a leader without an APIC, computes nothing for a long
/// time, and for so many it is no dearer to compute everything.
const MAX_OUTDATED: usize = 10_000;

/// What the watches have delivered, and what is computed from it.
#[derive(Default)]
pub struct ClusterState {
    /// The objects, and how complete the view of them is.
    pub(super) inventory: Inventory,
    /// The desired state as it was last computed.
    desired: Option<(Basis, Arc<DesiredState>)>,
    /// What of it is out of date since then.
    outdated: Outdated,
    /// Workloads whose Pods are not found (P1).
    pub(super) missing_pods: MissingPods,
    missing_pods_are_current: bool,
}

/// How much of the desired state is out of date.
#[derive(Debug, PartialEq, Eq)]
enum Outdated {
    /// Which EPG has these addresses.
    Addresses(BTreeSet<IpAddr>),
    Everything,
}

impl Default for Outdated {
    fn default() -> Self {
        Outdated::Addresses(BTreeSet::new())
    }
}

/// Which EPGs a new desired state is different for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    /// At most these.
    Epgs(BTreeSet<EpgDn>),
    /// Perhaps all.
    All,
}

/// What the desired state depends on besides the inventory and the rules.
#[derive(PartialEq)]
struct Basis {
    vrfs: Vec<(L3outDn, Vrf)>,
    beyond_quota: BTreeSet<EpgDn>,
}

impl ClusterState {
    /// Nothing is known yet.
    pub(super) fn new(rules: &Rules) -> ClusterState {
        ClusterState { inventory: Inventory::new(rules), ..ClusterState::default() }
    }

    /// An object has changed: what was computed is out of date. False if it is not.
    pub(super) fn changed(&mut self, by: Changed) -> bool {
        match (by, &mut self.outdated) {
            (Changed::Nothing, _) => return false,
            (Changed::Addresses(more), Outdated::Addresses(addresses)) if addresses.len() < MAX_OUTDATED => {
                addresses.extend(more);
            }
            (Changed::Addresses(_) | Changed::Everything, outdated) => *outdated = Outdated::Everything,
        }
        self.missing_pods_are_current = false;
        true
    }

    /// The desired state (R6), and for which EPGs it is another one than the last. Only what is out of date is computed.
    /// `beyond_quota`: the EPGs that are not served.
    pub(super) fn desired(
        &mut self,
        rules: &Rules,
        vrf_of: &dyn Fn(&L3outDn) -> Vrf,
        beyond_quota: BTreeSet<EpgDn>,
    ) -> (Arc<DesiredState>, Renewed) {
        let named = named_l3outs(&self.inventory, rules, &BTreeSet::new());
        let vrfs = named.into_iter().map(|dn| (dn.clone(), vrf_of(&dn))).collect();
        let basis = Basis { vrfs, beyond_quota };
        let outdated = std::mem::take(&mut self.outdated);
        let last = self.desired.take().filter(|(of, _)| *of == basis).map(|(_, desired)| desired);
        let compute = || desired_state(&self.inventory, rules, vrf_of, &basis.beyond_quota);
        let (desired, renewed) = match last.and_then(|it| self.updated(it, rules, vrf_of, &outdated)) {
            Some((desired, epgs)) => {
                debug_assert_eq!(*desired, compute(), "R6");
                (desired, Renewed::Epgs(epgs))
            }
            None => (Arc::new(compute()), Renewed::All),
        };
        self.desired = Some((basis, desired.clone()));
        (desired, renewed)
    }

    /// The last desired state with these changes; nothing if it is to be computed as a whole.
    fn updated(
        &self,
        mut desired: Arc<DesiredState>,
        rules: &Rules,
        vrf_of: &dyn Fn(&L3outDn) -> Vrf,
        outdated: &Outdated,
    ) -> Option<(Arc<DesiredState>, BTreeSet<EpgDn>)> {
        let Outdated::Addresses(addresses) = outdated else { return None };
        if addresses.is_empty() {
            return Some((desired, BTreeSet::new()));
        }
        let epgs = Arc::make_mut(&mut desired).update(&self.inventory, rules, vrf_of, addresses)?;
        Some((desired, epgs))
    }

    /// The desired state as it was last computed; events may have come in since.
    pub(super) fn last_desired(&self) -> Option<&DesiredState> {
        self.desired.as_ref().map(|(_, desired)| &**desired)
    }

    /// The same, unless events have come in since.
    pub(super) fn present_desired(&self) -> Option<&DesiredState> {
        self.last_desired().filter(|_| self.outdated == Outdated::default())
    }

    /// Finds the workloads whose Pods are not found (P1). While the views are incomplete no Pod is missing.
    pub(super) fn find_missing_pods(&mut self, rules: &Rules, now: Instant) {
        if !self.inventory.incomplete(now).is_empty() {
            self.missing_pods.update(BTreeSet::new(), now);
            self.missing_pods_are_current = false;
        } else if !std::mem::replace(&mut self.missing_pods_are_current, true) {
            let exposes_pods = |managed: &ManagedWorkload| {
                let Some(binding) = &managed.binding else { return false };
                let is_allowed = rules.admits(&managed.key().namespace, &binding.epg);
                is_allowed && binding.expose.unwrap_or(rules.expose).pods
            };
            self.missing_pods.update(self.inventory.missing_pods(exposes_pods), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// R6: Pods that come and go while nothing is computed, as in a standby, take no memory without limit.
    #[test]
    fn outdated_addresses_are_limited() {
        let mut cluster = ClusterState::default();
        let mut come = |n: u32| assert!(cluster.changed(Changed::Addresses(vec![Ipv4Addr::from_bits(n).into()])));
        (0..10_000).for_each(&mut come);
        come(0);
        assert_eq!(cluster.outdated, Outdated::Everything);
    }
}
