//! What the cluster's present state calls for: which EPGs, and which subnets in them.
//!
//! A pure function of the inventory, the rules and the VRF of each L3Out. What the fabric holds does not matter here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::annotations::{annotation_findings, unknown_annotations};
use super::claims::{Claim, Claimants, Which, claims};
use super::dn::{EpgDn, L3outDn, Prefix};
use super::finding::{Code, Few, Finding, Subject};
use super::inventory::Inventory;
use super::kubernetes::Workload;
use super::rules::Rules;
use super::source::Source;

/// The EPGs and subnets that should be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredState {
    /// Each EPG that a workload names, also without addresses (D4).
    pub epgs: BTreeMap<EpgDn, DesiredEpg>,
    /// Addresses of workloads that are paused (D2), or whose EPG is not known (D3): nothing is written for them, and
    /// subnets of their own stay.
    pub unplaced: BTreeMap<Prefix, Vec<Unplaced>>,
    /// What is wrong with objects of the cluster.
    pub findings: Vec<Finding>,
    /// The addresses that these findings are about.
    with_findings: BTreeSet<IpAddr>,
}

impl DesiredState {
    /// Follows a change of Pods that can have changed nothing but which EPG has these addresses. Returns the EPGs that have
    /// or had one of them. All other arguments are those that it was computed with.
    ///
    /// Nothing where findings may have changed: a finding says something of many addresses. It is to be computed as a whole
    /// then.
    pub fn update(
        &mut self,
        inventory: &Inventory,
        rules: &Rules,
        vrf_of: &dyn Fn(&L3outDn) -> Vrf,
        addresses: &BTreeSet<IpAddr>,
    ) -> Option<BTreeSet<EpgDn>> {
        if addresses.iter().any(|it| self.with_findings.contains(it)) {
            return None;
        }
        self.unplaced.retain(|prefix, _| !addresses.contains(&prefix.address));
        let mut changed = BTreeSet::new();
        for (dn, epg) in &mut self.epgs {
            let before = epg.subnets.len();
            if addresses.len() < before {
                addresses.iter().for_each(|it| drop(epg.subnets.remove(&Prefix::host(*it))));
            } else {
                epg.subnets.retain(|prefix, _| !addresses.contains(&prefix.address));
            }
            if epg.subnets.len() < before {
                changed.insert(dn.clone());
            }
        }
        let findings = self.findings.len();
        changed.extend(self.assign(inventory, rules, vrf_of, Which::These(addresses)));
        (self.findings.len() == findings).then_some(changed)
    }

    /// Puts addresses into EPGs, none of which has one of them yet. Returns the EPGs that get any.
    fn assign(
        &mut self,
        inventory: &Inventory,
        rules: &Rules,
        vrf_of: &dyn Fn(&L3outDn) -> Vrf,
        which: Which<'_>,
    ) -> BTreeSet<EpgDn> {
        // From here on an EPG is its index in this order: names are long, and there is a claim for each Pod.
        let epgs: Vec<(&EpgDn, &mut DesiredEpg)> = self.epgs.iter_mut().collect();
        let dns: Vec<&EpgDn> = epgs.iter().map(|(dn, _)| *dn).collect();
        let claimants = Claimants::new(inventory, rules, &dns);
        let claims = claims(inventory, rules, &claimants, which);
        self.findings.extend(claims.findings);
        self.with_findings.extend(claims.with_findings);
        let vrfs = numbered(dns.iter().map(|dn| vrf_of(&dn.l3out)));
        let (subnets, conflicts) = (epgs.iter().map(|_| Vec::new()).collect(), BTreeMap::new());
        let mut assignment = Assignment { claimants: &claimants, vrfs, epgs, subnets, conflicts };
        for claims in claims.all.chunk_by(|a, b| a.prefix == b.prefix) {
            let unplaced = unplaced(claims, &claimants);
            if !unplaced.is_empty() {
                self.unplaced.insert(claims[0].prefix, unplaced);
            }
            if assignment.assign(claims) {
                self.with_findings.insert(claims[0].prefix.address);
            }
        }
        for (workload, conflict) in assignment.conflicts {
            let finding = Finding::new(Code::AddressConflict, &workload, conflict.texts.to_string());
            self.findings.push(finding.with_note(conflict.notes.to_string()));
        }
        let mut changed = BTreeSet::new();
        for ((dn, epg), subnets) in assignment.epgs.into_iter().zip(assignment.subnets) {
            if subnets.is_empty() {
                continue;
            }
            changed.insert(dn.clone());
            // A map that is made of a sorted list at once takes little more than half the memory of one that grows.
            if epg.subnets.is_empty() {
                epg.subnets = subnets.into_iter().collect();
            } else {
                epg.subnets.extend(subnets);
            }
        }
        changed
    }

    /// The namespaces that a finding counts for (X3): of an EPG or L3Out those of the workloads that name it.
    pub fn namespaces(&self) -> impl Fn(&Subject) -> Vec<Arc<str>> {
        let mut l3outs: HashMap<&L3outDn, BTreeSet<&Arc<str>>> = HashMap::new();
        for (dn, epg) in &self.epgs {
            l3outs.entry(&dn.l3out).or_default().extend(epg.namespaces());
        }
        move |subject| match subject {
            Subject::Cluster(_, key) => vec![key.namespace.clone()],
            Subject::Namespace(name) => vec![name.clone()],
            Subject::L3out(dn) => l3outs.get(dn).into_iter().flatten().map(|it| (*it).clone()).collect(),
            Subject::Fabric(object) => {
                self.epgs.get(object.epg()).map(|it| it.namespaces().cloned().collect()).unwrap_or_default()
            }
            Subject::Part(_) => Vec::new(),
        }
    }
}

/// One desired EPG.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredEpg {
    /// The workloads that name it.
    pub workloads: Vec<Workload>,
    /// How many of them are paused (D2).
    pub paused: usize,
    /// It is beyond what its namespaces may have (W6): it is not created.
    pub beyond_quota: bool,
    /// Its subnets.
    pub subnets: BTreeMap<Prefix, DesiredSubnet>,
}

impl DesiredEpg {
    /// D2: it is left alone as a whole, because every workload that names it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused == self.workloads.len()
    }

    /// The namespaces of the workloads that name it, each once.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        let namespaces: BTreeSet<&Arc<str>> = self.workloads.iter().map(|it| &it.key.namespace).collect();
        namespaces.into_iter()
    }
}

/// One desired subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredSubnet {
    /// Where the address comes from; the subnet is named after it (S4).
    pub source: Source,
    /// Other Pods and Services that the address comes from (S4).
    pub also: Box<[Source]>,
    /// The workload that it is for, or one of several.
    pub workload: Arc<Workload>,
    /// All workloads that it is for are paused: it is neither created nor changed (D2).
    pub paused: bool,
}

/// An address that a workload has, and for which nothing is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    /// Where the address comes from.
    pub source: Source,
    /// The workload; if several have the address for the same reason, the first of them.
    pub workload: Arc<Workload>,
    /// It is paused (D2); else its EPG is not known (D3).
    pub paused: bool,
}

/// A VRF, in the sense of S3: the L3Out's `l3extRsEctx.tDn`, or the L3Out itself if that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vrf {
    /// The DN of the `fvCtx`.
    Known(String),
    /// The L3Out, taken for a VRF of its own.
    Own(L3outDn),
}

/// The L3Outs that workloads name, but for those of EPGs that are not created (W6).
pub fn named_l3outs(inventory: &Inventory, rules: &Rules, beyond_quota: &BTreeSet<EpgDn>) -> BTreeSet<L3outDn> {
    let named = inventory.managed.values().filter_map(|it| it.bound_epg(rules));
    named.filter(|it| !beyond_quota.contains(it)).map(|it| it.l3out.clone()).collect()
}

/// Computes what is desired. `vrf_of` gives the VRF that an L3Out is in, `beyond_quota` the EPGs that are not created (W6).
pub fn desired_state(
    inventory: &Inventory,
    rules: &Rules,
    vrf_of: &dyn Fn(&L3outDn) -> Vrf,
    beyond_quota: &BTreeSet<EpgDn>,
) -> DesiredState {
    let mut desired = DesiredState::default();
    for managed in inventory.managed.values() {
        desired.findings.extend(annotation_findings(managed, rules));
        if let Some(dn) = managed.bound_epg(rules) {
            let epg = desired.epgs.entry(dn.clone()).or_default();
            epg.beyond_quota = beyond_quota.contains(dn);
            epg.workloads.push(managed.workload().clone());
            epg.paused += usize::from(managed.record.paused);
        }
    }
    for (workload, it) in &inventory.misannotated {
        desired.findings.push(Finding::new(Code::UnknownKey, workload, unknown_annotations(&it.unknown_keys)));
    }
    desired.assign(inventory, rules, vrf_of, Which::All);
    desired.findings.sort();
    desired.findings.dedup();
    desired
}

/// Equal VRFs have the same number.
fn numbered(vrfs: impl Iterator<Item = Vrf>) -> Vec<usize> {
    let mut numbers: HashMap<Vrf, usize> = HashMap::new();
    let mut number = |vrf| {
        let next = numbers.len();
        *numbers.entry(vrf).or_insert(next)
    };
    vrfs.map(&mut number).collect()
}

/// D2, D3: the workloads that have this address while nothing is written for them, in the order of S4.
fn unplaced(claims: &[Claim<'_>], claimants: &Claimants<'_>) -> Vec<Unplaced> {
    let mut found = Vec::new();
    for claim in claims {
        let unknown = claim.group.active.filter(|_| claim.group.epg.is_none());
        for (index, paused) in [(claim.group.paused, true), (unknown, false)] {
            found.extend(index.map(|index| (claim, index, paused)));
        }
    }
    found.sort_unstable_by_key(|(claim, index, _)| (claim.is_pod, claim.key, *index));
    let unplaced = |(claim, index, paused): (&Claim<'_>, usize, bool)| Unplaced {
        source: claim.source(),
        workload: claimants.workload(index).clone(),
        paused,
    };
    found.into_iter().map(unplaced).collect()
}

/// What a workload does not get, because an older one has it: for the log, and for Events.
#[derive(Default)]
struct Conflict {
    texts: Few,
    notes: Few,
}

/// Puts addresses into EPGs. An EPG is its index in `epgs`; `vrfs` has the number of its VRF at the same index.
struct Assignment<'a> {
    claimants: &'a Claimants<'a>,
    vrfs: Vec<usize>,
    epgs: Vec<(&'a EpgDn, &'a mut DesiredEpg)>,
    /// What each EPG gets, by address.
    subnets: Vec<Vec<(Prefix, DesiredSubnet)>>,
    conflicts: BTreeMap<Workload, Conflict>,
}

/// The EPG that gets an address in a VRF, and the oldest workload there that claims it.
#[derive(Clone, Copy)]
struct Winner {
    epg: usize,
    oldest: usize,
}

impl Assignment<'_> {
    /// Puts one address, which all these claims are about, into the EPGs that may have it. The claims are sorted. True if
    /// one does not get it.
    fn assign(&mut self, claims: &[Claim<'_>]) -> bool {
        let mut by_epg: BTreeMap<usize, Vec<&Claim<'_>>> = BTreeMap::new();
        for claim in claims {
            if let Some(epg) = claim.group.epg {
                by_epg.entry(epg).or_default().push(claim);
            }
        }
        let winners = self.winners(&by_epg);
        let mut is_lost = false;
        for (epg, claims) in by_epg {
            match winners.get(&self.vrfs[epg]).filter(|it| it.epg != epg) {
                Some(winner) => {
                    is_lost = true;
                    self.lose(epg, &claims, *winner);
                }
                None => self.put(epg, &claims),
            }
        }
        is_lost
    }

    /// S3: in one VRF an address can be in one EPG only; the EPG of the oldest workload among the claimants gets it. An
    /// EPG beyond the quota takes it from none; the subnets that it has stay (W6, D5).
    fn winners(&self, by_epg: &BTreeMap<usize, Vec<&Claim<'_>>>) -> HashMap<usize, Winner> {
        let mut winners: HashMap<usize, Winner> = HashMap::new();
        for (&epg, claims) in by_epg.iter().filter(|(epg, _)| !self.epgs[**epg].1.beyond_quota) {
            let Some(oldest) = self.oldest(claims) else { continue };
            let winner = winners.entry(self.vrfs[epg]).or_insert(Winner { epg, oldest });
            if self.claimants.get(oldest).age() < self.claimants.get(winner.oldest).age() {
                *winner = Winner { epg, oldest };
            }
        }
        winners
    }

    fn oldest(&self, claims: &[&Claim<'_>]) -> Option<usize> {
        claims.iter().map(|it| it.group.oldest).min_by_key(|it| self.claimants.get(*it).age())
    }

    /// D4 and S4: within one EPG the claims unite, and the first source names the subnet; one of a workload that is
    /// paused only if there is no other (D2).
    fn put(&mut self, epg: usize, claims: &[&Claim<'_>]) {
        let Some(first) = first(claims) else { return };
        let Some(index) = first.group.active.or(first.group.paused) else { return };
        let source = first.source();
        let also = claims.iter().map(|it| it.source()).filter(|it| *it != source).collect();
        let (workload, paused) = (self.claimants.workload(index).clone(), first.group.active.is_none());
        self.subnets[epg].push((first.prefix, DesiredSubnet { source, also, workload, paused }));
    }

    /// S3: an older workload has the address in another EPG of the VRF.
    fn lose(&mut self, epg: usize, claims: &[&Claim<'_>], winner: Winner) {
        let (to, desired) = &self.epgs[epg];
        let (Some(first), Some(loser)) = (first(claims), self.oldest(claims)) else { return };
        if desired.beyond_quota {
            return;
        }
        let (what, elsewhere) = (format!("{} ({})", first.prefix, first.source()), self.epgs[winner.epg].0);
        let older = self.claimants.workload(winner.oldest);
        let conflict = self.conflicts.entry((**self.claimants.workload(loser)).clone()).or_default();
        conflict
            .texts
            .push(format_args!("{what} not added to {to}: older {older} has the address in {elsewhere} (same VRF)"));
        conflict.notes.push(format_args!(
            "{what} not added to {to}: an older workload has the address in another EPG of the VRF"
        ));
    }
}

/// The claim that names the subnet.
fn first<'a, 'c>(claims: &[&'c Claim<'a>]) -> Option<&'c Claim<'a>> {
    claims.iter().min_by_key(|it| it.group.active.is_none()).copied()
}
