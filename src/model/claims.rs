//! Which managed workloads claim which addresses: those of their Pods (P1 to P6), and those of the Services that select
//! them (S1). Which EPG gets an address is decided in `desired`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::dn::{EpgDn, Prefix};
use super::finding::{Code, Few, Finding, Subject, counted};
use super::inventory::{Inventory, ManagedWorkload};
use super::kubernetes::{Key, Kind, Labels, Pod, Service, Workload, WorkloadRecord};
use super::rules::{Exposed, Rules};
use super::selection::Selection;
use super::source::Source;

/// A managed workload, and what it exposes.
pub(super) struct Claimant<'a> {
    pub(super) managed: &'a ManagedWorkload,
    /// Each of its subnets names it.
    pub(super) workload: Arc<Workload>,
    exposed: Exposed,
    /// The index of its EPG among all that are desired, if it is known.
    epg: Option<usize>,
    /// The workload by itself. One that may not use the EPG that it names claims nothing (W6).
    group: Option<Rc<Group>>,
}

/// All managed workloads, in their order.
pub(super) struct Claimants<'a> {
    all: Vec<Claimant<'a>>,
    indices: HashMap<(&'a str, &'a str, Kind), usize>,
}

/// Workloads that name one EPG, or of which no valid annotation is known; each by its index among the claimants. A
/// Service may select thousands of them, so only those are kept that a decision can depend on (X3).
#[derive(Clone, Copy)]
pub(super) struct Group {
    /// The EPG that they name, if it is known.
    pub(super) epg: Option<usize>,
    /// The first of those that are not paused.
    pub(super) active: Option<usize>,
    /// The first of those that are paused (D2).
    pub(super) paused: Option<usize>,
    /// The oldest of all (S3).
    pub(super) oldest: usize,
}

impl Group {
    fn of(managed: &ManagedWorkload, index: usize, epg: Option<usize>) -> Option<Rc<Group>> {
        if epg.is_none() && managed.binding.is_some() {
            return None;
        }
        let is_paused = managed.record.paused;
        let (active, paused) = if is_paused { (None, Some(index)) } else { (Some(index), None) };
        Some(Rc::new(Group { epg, active, paused, oldest: index }))
    }
}

/// An address of a Pod or Service that workloads of one group expose. There may be 100,000 of them.
pub(super) struct Claim<'a> {
    pub(super) prefix: Prefix,
    pub(super) is_pod: bool,
    /// The Pod or Service.
    pub(super) key: &'a Key,
    pub(super) group: Rc<Group>,
}

/// What claims come to.
#[derive(Default)]
pub(super) struct Claims<'a> {
    /// Sorted by address and source (S4).
    pub(super) all: Vec<Claim<'a>>,
    /// What is said of addresses that are not claimed, and of Services.
    pub(super) findings: Vec<Finding>,
    /// The addresses that these findings are about.
    pub(super) with_findings: BTreeSet<IpAddr>,
}

/// Which addresses are looked at.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    All,
    These(&'a BTreeSet<IpAddr>),
}

impl Which<'_> {
    fn has(self, address: &IpAddr) -> bool {
        match self {
            Which::All => true,
            Which::These(addresses) => addresses.contains(address),
        }
    }

    /// How many addresses of so many Pods there are, more or less.
    fn count(self, pods: usize) -> usize {
        match self {
            Which::All => pods,
            Which::These(addresses) => addresses.len(),
        }
    }
}

/// A Pod, and the index of the managed workload that it belongs to.
#[derive(Clone, Copy)]
struct OwnedPod<'a> {
    owner: Option<usize>,
    pod: &'a Pod,
}

/// An address that a Pod has, whether it belongs to that Pod or not.
struct PodAddress<'a> {
    address: IpAddr,
    by: OwnedPod<'a>,
}

impl<'a> Claimants<'a> {
    /// `epgs` are all EPGs that are desired, sorted.
    pub(super) fn new(inventory: &'a Inventory, rules: &Rules, epgs: &[&EpgDn]) -> Self {
        let mut claimants = Claimants { all: Vec::new(), indices: HashMap::new() };
        for (Workload { key, kind }, managed) in &inventory.managed {
            claimants.indices.insert((&key.namespace, &key.name, *kind), claimants.all.len());
            let epg = managed.bound_epg(rules).and_then(|it| epgs.binary_search(&it).ok());
            let (workload, exposed) = (Arc::new(managed.workload().clone()), managed.exposed(rules));
            let group = Group::of(managed, claimants.all.len(), epg);
            claimants.all.push(Claimant { managed, workload, exposed, epg, group });
        }
        claimants
    }

    pub(super) fn get(&self, index: usize) -> &'a ManagedWorkload {
        self.all[index].managed
    }

    pub(super) fn workload(&self, index: usize) -> &Arc<Workload> {
        &self.all[index].workload
    }

    /// P1, G2: the index of the managed workload that a Pod belongs to.
    fn owner(&self, pod: &Pod) -> Option<usize> {
        self.indices.get(&(&*pod.key.namespace, pod.owner.as_deref()?, pod.owner_kind)).copied()
    }

    /// The groups of those workloads that expose Services. The indices ascend.
    fn groups_of_service(&self, selected: &[usize]) -> Vec<Rc<Group>> {
        let mut groups: BTreeMap<Option<usize>, Group> = BTreeMap::new();
        for index in selected.iter().copied().filter(|it| self.all[*it].exposed.services) {
            let Some(one) = &self.all[index].group else { continue };
            let group = groups.entry(one.epg).or_insert(**one);
            group.active = group.active.or(one.active);
            group.paused = group.paused.or(one.paused);
            if self.get(index).age() < self.get(group.oldest).age() {
                group.oldest = index;
            }
        }
        groups.into_values().map(Rc::new).collect()
    }
}

impl Claim<'_> {
    pub(super) fn source(&self) -> Source {
        Source { is_pod: self.is_pod, key: self.key.clone() }
    }
}

/// The claims to these addresses.
pub(super) fn claims<'a>(
    inventory: &'a Inventory,
    rules: &Rules,
    claimants: &Claimants<'a>,
    which: Which<'_>,
) -> Claims<'a> {
    let addresses = by_address(inventory, claimants, which);
    let mut claims = Claims { all: pod_claims(&addresses, claimants), ..Claims::default() };
    claims.find_lost(&addresses, claimants);
    drop(addresses);
    if matches!(which, Which::All) {
        claims.findings.extend(unreadable_addresses(inventory, claimants));
    }
    claims.claim_for_services(inventory, claimants, which);
    claims.drop_refused(rules, claimants);
    claims.all.sort_unstable_by(|a, b| {
        (a.prefix, a.is_pod, a.key, a.group.epg).cmp(&(b.prefix, b.is_pod, b.key, b.group.epg))
    });
    claims
}

/// The addresses of Pods; of those with the same address the Pod that it belongs to comes last (P5).
fn by_address<'a>(inventory: &'a Inventory, claimants: &Claimants<'a>, which: Which<'_>) -> Vec<PodAddress<'a>> {
    let mut addresses = Vec::with_capacity(which.count(inventory.pods.len()));
    for pod in inventory.pods.iter() {
        for address in pod.addresses.iter().filter(|it| which.has(it)) {
            addresses.push(PodAddress { address: *address, by: OwnedPod { owner: claimants.owner(pod), pod } });
        }
    }
    addresses.sort_unstable_by_key(|it| (it.address, it.by.pod.precedence()));
    addresses
}

/// P1 to P5: an address is claimed if the workload of the Pod that it belongs to is managed and exposes Pods.
fn pod_claims<'a>(addresses: &[PodAddress<'a>], claimants: &Claimants<'a>) -> Vec<Claim<'a>> {
    let mut claims = Vec::with_capacity(addresses.len());
    for PodAddress { address, by } in addresses.chunk_by(|a, b| a.address == b.address).filter_map(<[_]>::last) {
        if let Some(owner) = by.owner
            && claimants.all[owner].exposed.pods
            && let Some(group) = claimants.all[owner].group.clone()
        {
            claims.push(Claim { prefix: Prefix::host(*address), is_pod: true, key: &by.pod.key, group });
        }
    }
    claims
}

/// P2: addresses of a workload's Pods that cannot be read. One finding a workload, about its first such Pod.
fn unreadable_addresses(inventory: &Inventory, claimants: &Claimants<'_>) -> Vec<Finding> {
    let mut unreadable: BTreeMap<usize, (&Pod, usize)> = BTreeMap::new();
    for pod in inventory.pods.iter().filter(|it| it.unreadable.is_some()) {
        let Some(owner) = claimants.owner(pod).filter(|it| claimants.all[*it].exposed.pods) else { continue };
        let (first, count) = unreadable.entry(owner).or_insert((pod, 0));
        *count += 1;
        if pod.key < first.key {
            *first = pod;
        }
    }
    let mut findings = Vec::new();
    for (owner, (first, count)) in unreadable {
        let others = match count - 1 {
            0 => String::new(),
            others => format!("; {} with invalid addresses", counted(others, "more Pod")),
        };
        let quote = first.unreadable.as_deref().unwrap_or_default();
        let text = format!("invalid address of Pod {} not exposed: {quote}{others}", first.key);
        findings.push(Finding::new(Code::InvalidAddress, &**claimants.workload(owner), text));
    }
    findings
}

/// What a selector selects.
struct Selected {
    is_empty: bool,
    groups: Vec<Rc<Group>>,
}

impl<'a> Claims<'a> {
    /// P5: addresses that Pods of a workload have lost to Pods that are not of it.
    fn find_lost(&mut self, addresses: &[PodAddress<'_>], claimants: &Claimants<'_>) {
        let mut lost: BTreeMap<usize, (Few, Few)> = BTreeMap::new();
        for same in addresses.chunk_by(|a, b| a.address == b.address) {
            let Some((winner, others)) = same.split_last() else { continue };
            for PodAddress { address, by } in others {
                let Some(owner) = by.owner.filter(|it| Some(*it) != winner.by.owner) else { continue };
                let Claimant { epg, exposed, .. } = &claimants.all[owner];
                if epg.is_some() && exposed.pods {
                    let (texts, notes) = lost.entry(owner).or_default();
                    texts.push(format_args!("{address} of Pod {} (now Pod {})", by.pod.key, winner.by.pod.key));
                    notes.push(format_args!("{address} of Pod {}", by.pod.key));
                    self.with_findings.insert(*address);
                }
            }
        }
        let say = |all: Few| format!("addresses not exposed because other Pods have them now: {all}");
        for (owner, (texts, notes)) in lost {
            let finding = Finding::new(Code::AddressClaimed, &**claimants.workload(owner), say(texts));
            self.findings.push(finding.with_note(say(notes)));
        }
    }

    /// S1: a LoadBalancer Service exposes its addresses for every workload that it selects, by the labels of its template
    /// or of one of its Pods.
    fn claim_for_services(&mut self, inventory: &'a Inventory, claimants: &Claimants<'a>, which: Which<'_>) {
        let is_looked_at = |service: &&Service| match which {
            // One that has nothing to expose yet costs nothing: a namespace may have thousands of them (X3).
            Which::All => !service.addresses.is_empty() || service.unreadable.is_some() || service.hostname_only,
            Which::These(_) => service.addresses.iter().any(|it| which.has(it)),
        };
        let mut services = inventory.services.values().filter(is_looked_at).peekable();
        if services.peek().is_none() {
            return;
        }
        let selection = selection(inventory, claimants);
        let mut claims = Vec::new();
        // Many Services select the same workloads.
        let mut known: HashMap<BTreeSet<usize>, Selected> = HashMap::new();
        for service in services {
            let Some(lists) = selection.lists(service) else { continue };
            let selected = known.entry(lists).or_insert_with_key(|lists| {
                let selected = selection.common(lists);
                Selected { is_empty: selected.is_empty(), groups: claimants.groups_of_service(&selected) }
            });
            if selected.is_empty {
                continue;
            }
            for address in service.addresses.iter().filter(|it| which.has(it)) {
                let prefix = Prefix::host(*address);
                let claim =
                    |group: &Rc<Group>| Claim { prefix, is_pod: false, key: &service.key, group: group.clone() };
                claims.extend(selected.groups.iter().map(claim));
            }
            let subject = (Kind::Service, &service.key);
            if let Some(quote) = &service.unreadable {
                let text = format!("invalid address not exposed: {quote}");
                self.findings.push(Finding::new(Code::InvalidAddress, subject, text));
            }
            if service.hostname_only {
                let text = "load balancer has a host name and no IP address; nothing to expose until it gets one";
                self.findings.push(Finding::new(Code::HostnameOnly, subject, text));
            }
        }
        // To double the room of 100,000 claims for a few more would cost megabytes.
        self.all.reserve_exact(claims.len());
        self.all.extend(claims);
    }

    /// P6: drops claims to addresses that are never exposed.
    fn drop_refused(&mut self, rules: &Rules, claimants: &Claimants<'_>) {
        let mut refused: BTreeMap<Subject, BTreeSet<String>> = BTreeMap::new();
        self.all.retain(|claim| {
            let Some(why) = rules.refuses(claim.prefix.address) else { return true };
            if claim.group.epg.is_some() {
                let subject = if claim.is_pod {
                    Subject::from(&**claimants.workload(claim.group.oldest))
                } else {
                    Subject::from((Kind::Service, claim.key))
                };
                let text = format!("{} of {} ({why})", claim.prefix.address, claim.source());
                refused.entry(subject).or_default().insert(text);
                self.with_findings.insert(claim.prefix.address);
            }
            false
        });
        for (subject, texts) in refused {
            let text = format!("addresses not exposed: {}", Few::of(texts));
            self.findings.push(Finding::new(Code::AddressNotExposed, subject, text));
        }
    }
}

/// The same selection for all managed workloads, by their place in the inventory.
pub(super) fn selection_in<'a>(inventory: &'a Inventory, rules: &Rules) -> Selection<'a> {
    selection(inventory, &Claimants::new(inventory, rules, &[]))
}

/// The labels by which Services select workloads: those of their templates and of their Pods.
fn selection<'a>(inventory: &'a Inventory, claimants: &Claimants<'a>) -> Selection<'a> {
    Selection::new(claimants.all.iter().map(|it| {
        let WorkloadRecord { id, template_labels, .. } = &it.managed.record;
        let sets: HashSet<&Labels> = inventory.labels_of_pods(id).chain([template_labels]).collect();
        (&*id.key.namespace, sets)
    }))
}
