//! Why each change is made (R8): a closed set, and how the cause of a deletion is found.
//!
//! A cause is always true. Where the present cannot tell one from another, such as what was changed while no aci-sync
//! ran, the cause is one that holds for all of them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

use super::desired::{MAX_NAME, Source, exports, precedence};
use super::dn::{EpgDn, Prefix};
use super::finding::Few;
use super::inventory::{Inventory, ManagedDeployment};
use super::kubernetes::{Key, Pod, Service};
use super::plan::{Change, Plan};
use super::planner::PlanInput;
use super::rules::Rules;

/// Why a change is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Created: it is desired, and this process has not seen it before.
    Desired,
    /// Created: this process saw it, and then that another writer had deleted it (R1).
    Deleted,

    /// Changed: another writer changed or removed the owner mark, as this process saw.
    MarkChanged,
    /// Changed: it has a predecessor's mark (O3).
    TakenOver,
    /// Changed: it has our name and no mark (R2).
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
    Moves(EpgDn),
    /// Deleted: the address belongs to another Pod or Service than the one that the subnet is named after (P5).
    BelongsTo(Source),
    /// Deleted: no Pod or Service that could be exposed has its name.
    SourceGone,
    /// Deleted: its Pod or Service has other addresses.
    AddressGone(Source),
    /// Deleted: no Deployment owns its Pod.
    NoWorkload(Source),
    /// Deleted: the Deployment of its Pod is gone, or its annotation was removed (D6).
    Unmanaged(Key),
    /// Deleted: the Deployment may not name the EPG that it names (W6).
    NotAllowed(Vec<Key>),
    /// Deleted: the Deployment names another EPG (D5).
    NamesAnother(Key, EpgDn),
    /// Deleted: the Deployment exposes no Pods, or no Services (D2).
    NotExposed(Key, &'static str),
    /// Deleted: the address may not be exposed (P6).
    Refused(&'static str),
    /// Deleted: no Deployment that names the EPG exposes the address. This holds for whatever is deleted there.
    Undesired,
    /// Deleted: no valid annotation names the EPG. It was removed or changed, or its Deployment is gone (D6).
    Unnamed,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Desired => f.write_str("desired"),
            Cause::Deleted => f.write_str("deleted by another writer"),
            Cause::MarkChanged => f.write_str("owner annotation changed by another writer"),
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
            Cause::NoWorkload(source) => write!(f, "{source} belongs to no Deployment"),
            Cause::Unmanaged(key) => write!(f, "Deployment {key} is gone or not annotated"),
            Cause::NotAllowed(keys) => write!(f, "not allowed for Deployment {}", Few::of(keys)),
            Cause::NamesAnother(key, epg) => write!(f, "Deployment {key} names {epg}"),
            Cause::NotExposed(key, what) => write!(f, "Deployment {key} does not expose {what}"),
            Cause::Refused(why) => write!(f, "address is never exposed: {why}"),
            Cause::Undesired => f.write_str("no Deployment that names this EPG exposes the address"),
            Cause::Unnamed => f.write_str("no valid annotation names the EPG any more"),
        }
    }
}

/// Several causes of one change.
pub(super) fn list(causes: &[Cause]) -> String {
    causes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Finds the cause of each deletion in a plan that is no move. The cluster is walked through once, and not at all where
/// nothing is deleted.
pub(super) fn explain(plan: &mut Plan, input: &PlanInput<'_>) {
    let deletions = || plan.transactions.iter().flat_map(|it| &it.changes).filter(|it| it.is_delete());
    if deletions().next().is_none() {
        return;
    }
    let mut asked = Asked::default();
    for change in deletions() {
        if let Change::DeleteSubnet { prefix, before, moves_to: None, .. } = change {
            asked.holders.insert(prefix.address);
            if before.name.chars().count() >= MAX_NAME {
                asked.long_names.insert(before.name.clone());
            }
        }
    }
    let deletes_epg = deletions().any(Change::takes_all);
    let inventory = input.inventory;
    let cluster = Cluster::new(inventory, &asked);
    let refused = if deletes_epg { refused(inventory, input.rules) } else { HashMap::new() };
    for transaction in &mut plan.transactions {
        for change in &mut transaction.changes {
            match change {
                Change::DeleteSubnet { moves_to: Some(epg), why, .. } => *why = Cause::Moves(epg.clone()),
                Change::DeleteSubnet { prefix, before, why, .. } => {
                    *why = cluster.subnet(input, &transaction.epg, *prefix, &before.name);
                }
                Change::DeleteEpg { why, .. } => {
                    let keys = refused.get(&transaction.epg);
                    *why = keys.map_or(Cause::Unnamed, |it| Cause::NotAllowed(it.clone()));
                }
                _ => {}
            }
        }
    }
}

/// The Deployments that name what they may not, by what they name (W6).
fn refused(inventory: &Inventory, rules: &Rules) -> HashMap<EpgDn, Vec<Key>> {
    let mut refused: HashMap<EpgDn, Vec<Key>> = HashMap::new();
    for ManagedDeployment { deployment, binding, .. } in inventory.managed.values() {
        if let Some(epg) = binding.as_ref().map(|it| &it.epg).filter(|it| !rules.admits(&deployment.key.namespace, it))
        {
            refused.entry(epg.clone()).or_default().push(deployment.key.clone());
        }
    }
    refused
}

/// What has to be known of the cluster.
#[derive(Default)]
struct Asked {
    holders: HashSet<IpAddr>,
    /// Names that may have been cut (O1).
    long_names: HashSet<Box<str>>,
}

/// Who has an address now.
#[derive(Default)]
struct Holders<'a> {
    /// The Pod that it belongs to (P5).
    pod: Option<&'a Pod>,
    services: Vec<&'a Service>,
}

/// The Pod and the Services that each of these addresses belongs to now (P5).
pub(super) fn sources_of(inventory: &Inventory, addresses: HashSet<IpAddr>) -> HashMap<IpAddr, Vec<Source>> {
    if addresses.is_empty() {
        return HashMap::new();
    }
    let cluster = Cluster::new(inventory, &Asked { holders: addresses, long_names: HashSet::new() });
    let source = |is_pod, key: &Key| Source { is_pod, key: key.clone() };
    let sources = |it: Holders<'_>| {
        let services = it.services.into_iter().map(|it| source(false, &it.key));
        it.pod.map(|it| source(true, &it.key)).into_iter().chain(services).collect()
    };
    cluster.holders.into_iter().map(|(address, it)| (address, sources(it))).collect()
}

/// The cluster, as far as it is about what is deleted.
struct Cluster<'a> {
    inventory: &'a Inventory,
    holders: HashMap<IpAddr, Holders<'a>>,
    /// The Pods and Services whose subnets have names that may have been cut.
    long: HashMap<Box<str>, Source>,
}

impl<'a> Cluster<'a> {
    fn new(inventory: &'a Inventory, asked: &Asked) -> Self {
        let mut holders: HashMap<IpAddr, Holders<'a>> =
            asked.holders.iter().map(|it| (*it, Holders::default())).collect();
        let mut long = HashMap::new();
        let mut named = |is_pod: bool, key: &Key| {
            if !asked.long_names.is_empty() && key.namespace.len() + 2 + key.name.len() >= MAX_NAME {
                let source = Source { is_pod, key: key.clone() };
                let name = source.subnet_name();
                if asked.long_names.contains(&*name) {
                    long.insert(name.into(), source);
                }
            }
        };
        for pod in inventory.pods.values() {
            for address in &pod.addresses {
                if let Some(holders) = holders.get_mut(address)
                    && holders.pod.is_none_or(|it| precedence(it) < precedence(pod))
                {
                    holders.pod = Some(pod);
                }
            }
            named(true, &pod.key);
        }
        for service in inventory.services.values() {
            for address in &service.addresses {
                holders.get_mut(address).into_iter().for_each(|it| it.services.push(service));
            }
            named(false, &service.key);
        }
        Cluster { inventory, holders, long }
    }

    /// Why a subnet of an EPG is not desired there, by what it is named after and who has its address.
    fn subnet(&self, input: &PlanInput<'_>, dn: &EpgDn, prefix: Prefix, name: &str) -> Cause {
        let Some(holders) = self.holders.get(&prefix.address).filter(|_| prefix == Prefix::host(prefix.address)) else {
            return Cause::Undesired;
        };
        let source = |is_pod, key: &Key| Source { is_pod, key: key.clone() };
        let is_named = |it: &Source| it.is_named(name);
        if let Some(pod) = holders.pod.filter(|it| is_named(&source(true, &it.key))) {
            return self.pod(input.rules, dn, prefix, pod);
        }
        if let Some(service) = holders.services.iter().find(|it| is_named(&source(false, &it.key))) {
            return self.service(input, dn, prefix, service);
        }
        let pod = holders.pod.map(|it| source(true, &it.key));
        if let Some(other) = holders.services.first().map(|it| source(false, &it.key)).or(pod) {
            return Cause::BelongsTo(other);
        }
        self.named(name).map_or(Cause::SourceGone, Cause::AddressGone)
    }

    /// The Pod or Service that a subnet of this name is named after, if there is one.
    fn named(&self, name: &str) -> Option<Source> {
        if let Some(source) = self.long.get(name) {
            return Some(source.clone());
        }
        let (namespace, name) = name.split_once("::")?;
        let key = Key::new(namespace, name);
        let is_pod = self.inventory.pods.contains_key(&key);
        (is_pod || self.inventory.services.contains_key(&key)).then_some(Source { is_pod, key })
    }

    /// Why the address of a Pod is not desired in an EPG.
    fn pod(&self, rules: &Rules, dn: &EpgDn, prefix: Prefix, pod: &Pod) -> Cause {
        let Some(deployment) = pod.deployment.as_ref() else {
            return Cause::NoWorkload(Source { is_pod: true, key: pod.key.clone() });
        };
        let key = Key::new(&pod.key.namespace, deployment);
        let Some(managed) = self.inventory.managed.get(&key) else { return Cause::Unmanaged(key) };
        let Some(epg) = managed.binding.as_ref().map(|it| &it.epg) else { return Cause::Undesired };
        if !rules.admits(&key.namespace, epg) {
            Cause::NotAllowed(vec![key])
        } else if epg != dn {
            Cause::NamesAnother(key, epg.clone())
        } else if !exports(managed, rules).pods {
            Cause::NotExposed(key, "its Pods")
        } else {
            rules.refuses(prefix.address).map_or(Cause::Undesired, Cause::Refused)
        }
    }

    /// Why the address of a Service is not desired in an EPG. Which Deployments it selected is not known; those that name
    /// the EPG are looked at.
    fn service(&self, input: &PlanInput<'_>, dn: &EpgDn, prefix: Prefix, service: &Service) -> Cause {
        let deployments = input.desired.epgs.get(dn).into_iter().flat_map(|it| &it.deployments);
        let mut selected = deployments.filter_map(|key| self.inventory.managed.get(key)).filter(|it| {
            let deployment = &it.deployment;
            deployment.key.namespace == service.key.namespace && service.selector.select(&deployment.template_labels)
        });
        match selected.next() {
            Some(it) if !exports(it, input.rules).services => {
                Cause::NotExposed(it.deployment.key.clone(), "its Services")
            }
            Some(_) => input.rules.refuses(prefix.address).map_or(Cause::Undesired, Cause::Refused),
            None => Cause::Undesired,
        }
    }
}
