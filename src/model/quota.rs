//! How many external EPGs one namespace may have (W6, `--max-epgs`): the right to annotate workloads in one namespace
//! must not be enough to fill the fabric. An EPG beyond the limit is not created; one that is there already is served.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::cache::FabricCache;
use super::desired::DesiredEpg;
use super::dn::EpgDn;
use super::inventory::Inventory;
use super::observed::Epg;
use super::rules::Rules;

/// Which namespace named each external EPG last. An EPG that is left still counts for that namespace, because a workload
/// that changes its annotation all the time would leave one behind each time.
#[derive(Debug, Default)]
pub struct Quota {
    named_by: BTreeMap<EpgDn, Arc<str>>,
}

impl Quota {
    /// The namespace that named an EPG last.
    pub fn named_by(&self, dn: &EpgDn) -> Option<&Arc<str>> {
        self.named_by.get(dn)
    }

    /// Takes which namespaces name which EPGs now. EPGs that are no longer named are remembered while they are there.
    pub fn update(&mut self, desired: &BTreeMap<EpgDn, DesiredEpg>, fabric: &FabricCache) {
        let is_there = |dn: &EpgDn| fabric.epg(dn).is_some_and(Epg::is_ours);
        self.named_by.retain(|dn, _| desired.contains_key(dn) || is_there(dn));
        for (dn, it) in desired {
            let Some(first) = it.workloads.first() else { continue };
            match self.named_by.get_mut(dn) {
                Some(namespace) => *namespace = first.key.namespace.clone(),
                None => {
                    self.named_by.insert(dn.clone(), first.key.namespace.clone());
                }
            }
        }
    }

    /// The EPGs that are named and beyond what each of their namespaces may have: those that only its younger workloads
    /// name. `is_left` says whether an EPG that is no longer named still counts for the namespace that named it.
    pub fn beyond(&self, inventory: &Inventory, rules: &Rules, is_left: impl Fn(&EpgDn) -> bool) -> BTreeSet<EpgDn> {
        let Some(most) = rules.max_epgs else { return BTreeSet::new() };
        // Of each namespace the EPGs that it names, each with the oldest workload that does.
        let mut named: HashMap<&str, HashMap<&EpgDn, _>> = HashMap::new();
        let mut all = HashSet::new();
        for managed in inventory.managed.values() {
            if let Some(epg) = managed.bound_epg(rules) {
                all.insert(epg);
                let oldest = named.entry(&managed.key().namespace).or_default().entry(epg);
                let oldest = oldest.or_insert_with(|| managed.age());
                *oldest = managed.age().min(*oldest);
            }
        }
        let mut left: HashMap<&str, usize> = HashMap::new();
        for (_, namespace) in self.named_by.iter().filter(|(dn, _)| !all.contains(dn) && is_left(dn)) {
            *left.entry(namespace).or_default() += 1;
        }
        let (mut within, mut beyond) = (HashSet::new(), Vec::new());
        for (namespace, epgs) in &named {
            let most = most.saturating_sub(left.get(namespace).copied().unwrap_or_default());
            let mut epgs: Vec<_> = epgs.iter().map(|(dn, age)| (*age, *dn)).collect();
            if epgs.len() > most {
                epgs.sort_unstable();
                beyond.extend(epgs.split_off(most).into_iter().map(|it| it.1));
            }
            within.extend(epgs.into_iter().map(|it| it.1));
        }
        beyond.into_iter().filter(|it| !within.contains(it)).cloned().collect()
    }
}
