//! The cluster's side of the state. It lives as long as the process: a standby watches the cluster as the leader does, and
//! a take-over (K4) keeps it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::Rules;
use crate::model::desired::{DesiredState, Vrf, desired_state, named_l3outs};
use crate::model::dn::{EpgDn, L3outDn};
use crate::model::inventory::{Inventory, ManagedDeployment};
use crate::model::missing_pods::MissingPods;

/// What the watches have delivered, and what is computed from it.
#[derive(Default)]
pub struct ClusterState {
    /// The objects, and how complete the view of them is.
    pub(super) inventory: Inventory,
    /// The desired state, until something that it was computed from changes.
    desired: Option<(Basis, Arc<DesiredState>)>,
    /// Deployments whose Pods are not found (P1).
    pub(super) missing_pods: MissingPods,
    missing_pods_are_current: bool,
}

/// What the desired state depends on besides the inventory and the rules.
#[derive(PartialEq)]
struct Basis {
    vrfs: Vec<(L3outDn, Vrf)>,
    beyond_quota: BTreeSet<EpgDn>,
}

impl ClusterState {
    /// An object has changed: what was computed is out of date.
    pub(super) fn changed(&mut self) {
        self.desired = None;
        self.missing_pods_are_current = false;
    }

    /// The desired state (R6). It is computed only if something that it depends on has changed. `beyond_quota`: the EPGs
    /// that are not served.
    pub(super) fn desired(
        &mut self,
        rules: &Rules,
        vrf_of: &dyn Fn(&L3outDn) -> Vrf,
        beyond_quota: BTreeSet<EpgDn>,
    ) -> Arc<DesiredState> {
        let named = named_l3outs(&self.inventory, rules, &BTreeSet::new());
        let vrfs = named.into_iter().map(|dn| (dn.clone(), vrf_of(&dn))).collect();
        let basis = Basis { vrfs, beyond_quota };
        let compute = || desired_state(&self.inventory, rules, vrf_of, &basis.beyond_quota);
        if let Some((_, desired)) = self.desired.as_ref().filter(|(of, _)| *of == basis) {
            debug_assert_eq!(**desired, compute(), "R6");
            return desired.clone();
        }
        let desired = Arc::new(compute());
        self.desired = Some((basis, desired.clone()));
        desired
    }

    /// The desired state as it was last computed.
    pub(super) fn last_desired(&self) -> Option<&DesiredState> {
        self.desired.as_ref().map(|(_, desired)| &**desired)
    }

    /// Finds the Deployments whose Pods are not found (P1). While the views are incomplete no Pod is missing.
    pub(super) fn find_missing_pods(&mut self, rules: &Rules, now: Instant) {
        if !self.inventory.incomplete(now).is_empty() {
            self.missing_pods.update(BTreeSet::new(), now);
            self.missing_pods_are_current = false;
        } else if !std::mem::replace(&mut self.missing_pods_are_current, true) {
            let exposes_pods = |managed: &ManagedDeployment| {
                let Some(binding) = &managed.binding else { return false };
                let is_allowed = rules.admits(&managed.deployment.key.namespace, &binding.epg);
                is_allowed && binding.expose.unwrap_or(rules.expose).pods
            };
            self.missing_pods.update(self.inventory.missing_pods(exposes_pods), now);
        }
    }
}
