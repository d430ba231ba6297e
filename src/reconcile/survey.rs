//! What a reconcile has come to, for those who look at the daemon: how many objects there are, and each EPG. It decides nothing.

use std::sync::Arc;
use std::time::Instant;

use super::guards::Guards;
use crate::model::cache::FabricCache;
use crate::model::desired::{DesiredEpg, DesiredState};
use crate::model::dn::{EpgDn, ObjectDn};
use crate::model::observed::{EPG, Epg, SUBNET};
use crate::model::owner::Ownership;
use crate::status::{EpgView, Totals};

/// Desired state and cache side by side, as of the last reconcile.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// How many EPGs and subnets are desired, owned, missing and surplus.
    pub(super) totals: Vec<Totals>,
    /// The EPGs that are desired or hold something owned, by DN. Snapshots share them.
    pub(super) epgs: Arc<Vec<EpgView>>,
    /// What another writer keeps reverting (R5).
    pub(super) conflicts: Vec<ObjectDn>,
}

impl Survey {
    /// A reconcile has ended. What has not changed stays shared.
    pub(super) fn update(&mut self, desired: &DesiredState, cache: &FabricCache, guards: &Guards, now: Instant) {
        let mut epgs = Totals { class: EPG, desired: desired.epgs.len(), ..Totals::default() };
        let mut subnets = Totals { class: SUBNET, ..Totals::default() };
        let mut views = Vec::with_capacity(desired.epgs.len());
        for (dn, epg) in cache.epgs() {
            epgs.count(epg.ownership);
            epg.subnets.values().for_each(|subnet| subnets.count(subnet.ownership));
            let view = view(&dn, desired.epgs.get(&dn), Some(epg), guards.grace.end(&dn, now));
            subnets.surplus += view.surplus;
            let is_surplus = !view.is_desired() && epg.ownership == Ownership::Owned;
            epgs.surplus += usize::from(is_surplus);
            if view.is_desired() || is_surplus || view.surplus > 0 {
                views.push(view);
            }
        }
        let missing = desired.epgs.iter().filter(|(dn, _)| cache.epg(dn).is_none());
        views.extend(missing.map(|(dn, epg)| view(dn, Some(epg), None, None)));
        for view in &views {
            epgs.missing += usize::from(view.owner.is_none());
            subnets.desired += view.desired;
            subnets.missing += view.desired - view.present;
        }
        views.sort_unstable_by(|a, b| a.dn.cmp(&b.dn));
        if *self.epgs != views {
            self.epgs = Arc::new(views);
        }
        self.totals = vec![epgs, subnets];
        self.conflicts = guards.drift.in_conflict(now).cloned().collect();
    }
}

fn view(dn: &EpgDn, desired: Option<&DesiredEpg>, present: Option<&Epg>, grace_until: Option<Instant>) -> EpgView {
    let workloads = desired.map(|epg| epg.workloads.as_slice()).unwrap_or_default();
    let mut view = EpgView {
        dn: dn.clone(),
        owner: present.map(|epg| epg.ownership),
        workloads: workloads.iter().take(EpgView::MAX_WORKLOADS).cloned().collect(),
        workloads_total: workloads.len(),
        desired: desired.map_or(0, |epg| epg.subnets.len()),
        present: 0,
        surplus: 0,
        contracts: present.map_or(0, |epg| epg.relations.len()),
        grace_until,
    };
    for (prefix, subnet) in present.into_iter().flat_map(|epg| &epg.subnets) {
        let is_desired = desired.is_some_and(|epg| epg.subnets.contains_key(prefix));
        view.present += usize::from(is_desired);
        view.surplus += usize::from(!is_desired && subnet.ownership == Ownership::Owned);
    }
    view
}
