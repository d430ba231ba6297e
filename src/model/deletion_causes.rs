//! Finds the cause of each deletion (R8), and which Pod and Services have an address now (P5).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use super::cause::Cause;
use super::dn::{EpgDn, Prefix};
use super::inventory::Inventory;
use super::kubernetes::{Key, Pod, Service, Workload};
use super::plan::{Change, Plan};
use super::plan_input::PlanInput;
use super::rules::Rules;
use super::source::{MAX_NAME, Source};

/// Finds the cause of each deletion in a plan that is no move. The cluster is walked through once, and only if something
/// is deleted.
pub(super) fn find_causes(plan: &mut Plan, input: &PlanInput<'_>) {
    let deletions = || plan.transactions.iter().flat_map(|it| &it.changes).filter(|it| it.is_delete());
    if deletions().next().is_none() {
        return;
    }
    let mut questions = Questions::default();
    for change in deletions() {
        if let Change::DeleteSubnet { prefix, before, moves_to: None, .. } = change {
            questions.addresses.insert(prefix.address);
            if before.name.chars().count() >= MAX_NAME {
                questions.long_names.insert(before.name.clone());
            }
        }
    }
    let deletes_epg = deletions().any(Change::deletes_epg);
    let cluster = Cluster::new(input.inventory, questions);
    let refused = if deletes_epg { refused(input.inventory, input.rules) } else { BTreeMap::new() };
    for transaction in &mut plan.transactions {
        for change in &mut transaction.changes {
            match change {
                Change::DeleteSubnet { moves_to: Some(epg), why, .. } => *why = Cause::Moves(epg.clone()),
                Change::DeleteSubnet { prefix, before, why, .. } => {
                    *why = cluster.why_not_desired(input, &transaction.epg, *prefix, &before.name);
                }
                Change::DeleteEpg { why, .. } => {
                    let workloads = refused.get(&transaction.epg).cloned();
                    *why = workloads.map_or(Cause::Unnamed, Cause::NotAllowed);
                }
                _ => {}
            }
        }
    }
}

/// The workloads that name an EPG which they may not use, by that EPG (W6).
fn refused(inventory: &Inventory, rules: &Rules) -> BTreeMap<EpgDn, Vec<Workload>> {
    let mut refused: BTreeMap<EpgDn, Vec<Workload>> = BTreeMap::new();
    for managed in inventory.managed.values() {
        if let Some(binding) = &managed.binding
            && managed.bound_epg(rules).is_none()
        {
            refused.entry(binding.epg.clone()).or_default().push(managed.workload().clone());
        }
    }
    refused
}

/// The Pod and the Services that each of these addresses belongs to now (P5).
pub(super) fn sources_of(inventory: &Inventory, addresses: HashSet<IpAddr>) -> HashMap<IpAddr, Vec<Source>> {
    if addresses.is_empty() {
        return HashMap::new();
    }
    let cluster = Cluster::new(inventory, Questions { addresses, long_names: HashSet::new() });
    cluster.holders.into_iter().map(|(address, it)| (address, it.sources())).collect()
}

/// What has to be known of the cluster.
#[derive(Default)]
struct Questions {
    addresses: HashSet<IpAddr>,
    /// Names of subnets that may have been cut (O1).
    long_names: HashSet<Box<str>>,
}

/// What has an address now.
#[derive(Default)]
struct Holders<'a> {
    /// The Pod that it belongs to (P5).
    pod: Option<&'a Pod>,
    services: Vec<&'a Service>,
}

impl Holders<'_> {
    fn sources(&self) -> Vec<Source> {
        let services = self.services.iter().map(|it| Source::service(&it.key));
        self.pod.map(|it| Source::pod(&it.key)).into_iter().chain(services).collect()
    }
}

/// The answers: what has the addresses in question, and which Pods and Services have the long names.
struct Cluster<'a> {
    inventory: &'a Inventory,
    holders: HashMap<IpAddr, Holders<'a>>,
    long_names: HashMap<Box<str>, Source>,
}

impl<'a> Cluster<'a> {
    fn new(inventory: &'a Inventory, questions: Questions) -> Self {
        let holders = questions.addresses.iter().map(|it| (*it, Holders::default())).collect();
        let mut cluster = Cluster { inventory, holders, long_names: HashMap::new() };
        for pod in inventory.pods.iter() {
            for address in pod.addresses.iter() {
                if let Some(holders) = cluster.holders.get_mut(address)
                    && holders.pod.is_none_or(|it| it.precedence() < pod.precedence())
                {
                    holders.pod = Some(pod);
                }
            }
            cluster.note_long_name(&questions, Source::pod, &pod.key);
        }
        for service in inventory.services.values() {
            for address in &service.addresses {
                if let Some(holders) = cluster.holders.get_mut(address) {
                    holders.services.push(service);
                }
            }
            cluster.note_long_name(&questions, Source::service, &service.key);
        }
        cluster
    }

    fn note_long_name(&mut self, questions: &Questions, source: fn(&Key) -> Source, key: &Key) {
        if !questions.long_names.is_empty() && key.namespace.len() + 2 + key.name.len() >= MAX_NAME {
            let source = source(key);
            let name = source.subnet_name();
            if questions.long_names.contains(&*name) {
                self.long_names.insert(name.into(), source);
            }
        }
    }

    /// Why a subnet of an EPG is not desired there, by what it is named after and what has its address.
    fn why_not_desired(&self, input: &PlanInput<'_>, dn: &EpgDn, prefix: Prefix, name: &str) -> Cause {
        let Some(holders) = self.holders.get(&prefix.address).filter(|_| prefix == Prefix::host(prefix.address)) else {
            return Cause::Undesired;
        };
        if let Some(pod) = holders.pod.filter(|it| Source::pod(&it.key).is_named(name)) {
            return self.why_not_of_pod(input.rules, dn, prefix, pod);
        }
        if let Some(service) = holders.services.iter().find(|it| Source::service(&it.key).is_named(name)) {
            return self.why_not_of_service(input, dn, prefix, service);
        }
        if let Some(service) = holders.services.first() {
            return Cause::BelongsTo(Source::service(&service.key));
        }
        if let Some(pod) = holders.pod {
            return Cause::BelongsTo(Source::pod(&pod.key));
        }
        self.named(name).map_or(Cause::SourceGone, Cause::AddressGone)
    }

    /// The Pod or Service that a subnet of this name is named after, if there is one.
    fn named(&self, name: &str) -> Option<Source> {
        if let Some(source) = self.long_names.get(name) {
            return Some(source.clone());
        }
        let (namespace, name) = name.split_once("::")?;
        let key = Key::new(namespace, name);
        let is_pod = self.inventory.pods.get(&key).is_some();
        (is_pod || self.inventory.services.contains_key(&key)).then_some(Source { is_pod, key })
    }

    /// Why the address of a Pod is not desired in an EPG.
    fn why_not_of_pod(&self, rules: &Rules, dn: &EpgDn, prefix: Prefix, pod: &Pod) -> Cause {
        let Some(workload) = pod.workload() else { return Cause::NoWorkload(Source::pod(&pod.key)) };
        let Some(managed) = self.inventory.managed.get(&workload) else { return Cause::Unmanaged(workload) };
        let Some(binding) = &managed.binding else { return Cause::Undesired };
        if managed.bound_epg(rules).is_none() {
            Cause::NotAllowed(vec![workload])
        } else if binding.epg != *dn {
            Cause::NamesAnother(workload, Box::new(binding.epg.clone()))
        } else if !managed.exposed(rules).pods {
            Cause::NotExposed(workload, "its Pods")
        } else {
            rules.refuses(prefix.address).map_or(Cause::Undesired, Cause::Refused)
        }
    }

    /// Why the address of a Service is not desired in an EPG. Which workloads it selected before is not known, so those
    /// that name the EPG are looked at.
    fn why_not_of_service(&self, input: &PlanInput<'_>, dn: &EpgDn, prefix: Prefix, service: &Service) -> Cause {
        let workloads = input.desired.epgs.get(dn).into_iter().flat_map(|it| &it.workloads);
        let selected = workloads.filter_map(|it| self.inventory.managed.get(it)).find(|it| {
            it.key().namespace == service.key.namespace && service.selector.select(&it.record.template_labels)
        });
        match selected {
            Some(it) if !it.exposed(input.rules).services => Cause::NotExposed(it.workload().clone(), "its Services"),
            Some(_) => input.rules.refuses(prefix.address).map_or(Cause::Undesired, Cause::Refused),
            None => Cause::Undesired,
        }
    }
}
