//! What a reconcile has come to, for those who look at the daemon: how many objects there are, and each EPG. It decides
//! nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::guards::Guards;
use crate::model::cache::FabricCache;
use crate::model::desired::{DesiredEpg, DesiredState};
use crate::model::dn::{EpgDn, ObjectDn};
use crate::model::inventory::Inventory;
use crate::model::kubernetes::Workload;
use crate::model::observed::{EPG, Epg, SUBNET};
use crate::model::owner::Ownership;
use crate::model::quota::Quota;
use crate::status::{EpgView, Totals};

/// Desired state and cache side by side, as of the last reconcile.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// How many EPGs and subnets are desired, owned, missing and surplus.
    pub(super) totals: Vec<Totals>,
    /// The EPGs that are desired or hold something owned, those first that differ from what is desired ([`EpgView::rank`]).
    /// Namespaces take turns, so that a list with a limit shows something of each; EPGs beyond `--max-epgs` come last. Snapshots share them.
    pub(super) epgs: Arc<Vec<EpgView>>,
    /// What another writer keeps reverting (R5).
    pub(super) conflicts: Vec<ObjectDn>,
}

impl Survey {
    /// A reconcile has ended. What has not changed stays shared.
    pub(super) fn update(
        &mut self,
        inventory: &Inventory,
        desired: &DesiredState,
        cache: &FabricCache,
        guards: &Guards,
        now: Instant,
    ) {
        let mut epgs = Totals { class: EPG, desired: desired.epgs.len(), ..Totals::default() };
        let mut subnets = Totals { class: SUBNET, ..Totals::default() };
        let mut views = Vec::with_capacity(desired.epgs.len());
        for (dn, epg) in cache.epgs() {
            epgs.count(epg.ownership);
            epg.subnets.values().for_each(|subnet| subnets.count(subnet.ownership));
            let view = view(inventory, &dn, desired.epgs.get(&dn), Some(epg), guards.grace.end(&dn, now));
            subnets.surplus += view.surplus;
            let is_surplus = !view.is_desired() && epg.ownership == Ownership::Owned;
            epgs.surplus += usize::from(is_surplus);
            if view.is_desired() || is_surplus || view.surplus > 0 {
                views.push(view);
            }
        }
        let missing = desired.epgs.iter().filter(|(dn, _)| cache.epg(dn).is_none());
        views.extend(missing.map(|(dn, epg)| view(inventory, dn, Some(epg), None, None)));
        for view in &views {
            epgs.missing += usize::from(view.owner.is_none());
            subnets.desired += view.desired;
            subnets.missing += view.desired - view.present;
        }
        let views = in_turns(views, desired, &guards.quota);
        if *self.epgs != views {
            self.epgs = Arc::new(views);
        }
        self.totals = vec![epgs, subnets];
        self.conflicts = guards.drift.in_conflict(now).cloned().collect();
    }
}

/// The order in which lists show EPGs.
fn in_turns(mut views: Vec<EpgView>, desired: &DesiredState, quota: &Quota) -> Vec<EpgView> {
    views.sort_unstable_by(|a, b| a.dn.cmp(&b.dn));
    // How many EPGs each namespace has so far of the same rank.
    let mut counts: HashMap<(u8, Option<&str>), usize> = HashMap::new();
    let mut ranked = Vec::with_capacity(views.len());
    for view in views {
        let (rank, epg) = (view.rank(), desired.epgs.get(&view.dn));
        let mut namespaces: Vec<_> = epg.into_iter().flat_map(DesiredEpg::namespaces).map(|it| Some(&**it)).collect();
        if namespaces.is_empty() {
            namespaces.push(quota.named_by(&view.dn).map(|it| &**it));
        }
        let count = |it: &Option<&str>| counts.get(&(rank, *it)).copied().unwrap_or_default();
        let turn = namespaces.iter().map(count).min().unwrap_or_default();
        namespaces.into_iter().for_each(|it| *counts.entry((rank, it)).or_default() += 1);
        ranked.push(((epg.is_some_and(|it| it.beyond_quota), rank, turn), view));
    }
    ranked.sort_by_key(|(place, _)| *place);
    ranked.into_iter().map(|(_, view)| view).collect()
}

fn view(
    inventory: &Inventory,
    dn: &EpgDn,
    desired: Option<&DesiredEpg>,
    present: Option<&Epg>,
    grace_until: Option<Instant>,
) -> EpgView {
    let workloads = desired.map(|epg| epg.workloads.as_slice()).unwrap_or_default();
    // `explain` asks for the EPG that is still in effect for a workload without a valid annotation (D3).
    let is_valid = |it: &Workload| inventory.managed.get(it).is_none_or(|it| it.annotation.is_ok());
    let of = |valid: bool| workloads.iter().filter(move |it| is_valid(it) == valid);
    let mut view = EpgView {
        dn: dn.clone(),
        owner: present.map(|epg| epg.ownership),
        workloads: of(false).chain(of(true)).take(EpgView::MAX_WORKLOADS).cloned().collect(),
        workloads_total: workloads.len(),
        desired: desired.map_or(0, |epg| epg.subnets.len()),
        present: 0,
        surplus: 0,
        contracts: present.map_or(0, |epg| epg.relations.len()),
        grace_until,
    };
    // Both are sorted: one merge.
    let mut prefixes = desired.into_iter().flat_map(|epg| epg.subnets.keys()).peekable();
    for (prefix, subnet) in present.into_iter().flat_map(|epg| &epg.subnets) {
        while prefixes.next_if(|it| *it < prefix).is_some() {}
        let is_desired = prefixes.next_if_eq(&prefix).is_some();
        view.present += usize::from(is_desired);
        view.surplus += usize::from(!is_desired && subnet.ownership == Ownership::Owned);
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dn::{L3outDn, Name};
    use crate::model::kubernetes::{Key, Kind};

    fn dn(name: &str) -> EpgDn {
        let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
        l3out.epg(Name::object(name).unwrap())
    }

    fn epg(namespace: &str, beyond_quota: bool) -> DesiredEpg {
        let workload = Workload { kind: Kind::Deployment, key: Key::new(namespace, "web") };
        DesiredEpg { workloads: vec![workload], beyond_quota, ..DesiredEpg::default() }
    }

    /// X3, T8: in a list of EPGs namespaces take turns, and those beyond the quota come last.
    #[test]
    fn no_namespace_fills_the_list_of_epgs() {
        let mut desired = DesiredState::default();
        for n in 0..2000 {
            desired.epgs.insert(dn(&format!("E{n:04}")), epg("evil", n >= 1500));
        }
        desired.epgs.insert(dn("Z1"), epg("shop", false));
        desired.epgs.insert(dn("Z2"), epg("shop", false));
        desired.epgs.insert(dn("Z3"), epg("bank", false));
        let inventory = Inventory::default();
        let views = desired.epgs.iter().map(|(dn, epg)| view(&inventory, dn, Some(epg), None, None)).collect();
        let views = in_turns(views, &desired, &Quota::default());
        let names: Vec<String> = views.iter().map(|it| it.dn.name.to_string()).collect();
        assert_eq!(names[..6], ["E0000", "Z1", "Z3", "E0001", "Z2", "E0002"]);
        assert_eq!((names.len(), names[1502..].first().unwrap().as_str()), (2003, "E1499"));
        assert_eq!(names[1503..], (1500..2000).map(|n| format!("E{n}")).collect::<Vec<_>>());
    }
}
