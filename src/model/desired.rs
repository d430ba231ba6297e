//! What the cluster's present state calls for: which EPGs, and which subnets in them.
//!
//! A pure function of the inventory, the rules and which VRF each L3Out is in. What the fabric holds does not matter
//! here.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::binding::UnknownKeys;
use super::dn::{EpgDn, L3outDn, Prefix};
use super::finding::{Code, Few, Finding, Subject, counted};
use super::inventory::{Inventory, ManagedDeployment};
use super::kubernetes::{BINDING_ANNOTATION, Key, Kind, Labels, PAUSE_ANNOTATION, Pod};
use super::rules::{Exports, Rules};
use super::selection::Selection;

/// The longest `name` of a subnet, in characters (O1).
pub(super) const MAX_NAME: usize = 63;

/// The EPGs and subnets that should be there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DesiredState {
    /// Each EPG that a Deployment names, also without addresses (D4).
    pub epgs: BTreeMap<EpgDn, DesiredEpg>,
    /// Addresses of Deployments that are paused (D2), or whose EPG is not known (D3): nothing is written for them, and
    /// subnets of their own stay.
    pub kept: BTreeMap<Prefix, Vec<Kept>>,
    /// What is odd about the cluster's side.
    pub findings: Vec<Finding>,
}

impl DesiredState {
    /// The namespaces that a finding counts for (X3): of an EPG or L3Out those of the Deployments that name it.
    pub fn namespaces(&self) -> impl Fn(&Subject) -> Vec<Arc<str>> {
        let mut l3outs: HashMap<&L3outDn, BTreeSet<&Arc<str>>> = HashMap::new();
        for (dn, epg) in &self.epgs {
            l3outs.entry(&dn.l3out).or_default().extend(epg.deployments.iter().map(|it| &it.namespace));
        }
        move |subject| match subject {
            Subject::Cluster(_, key) => vec![key.namespace.clone()],
            Subject::Namespace(name) => vec![name.clone()],
            Subject::L3out(dn) => l3outs.get(dn).into_iter().flatten().map(|it| (*it).clone()).collect(),
            Subject::Fabric(object) => {
                let deployments = self.epgs.get(object.epg()).map(|it| &it.deployments);
                let namespaces: BTreeSet<&Arc<str>> =
                    deployments.into_iter().flatten().map(|it| &it.namespace).collect();
                namespaces.into_iter().cloned().collect()
            }
            Subject::Part(_) => Vec::new(),
        }
    }
}

/// One desired EPG.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DesiredEpg {
    /// The Deployments that name it.
    pub deployments: Vec<Key>,
    /// How many of them are paused (D2).
    pub paused: usize,
    /// It is beyond what its namespaces may have (W6): it is not created.
    pub beyond_quota: bool,
    /// Its subnets.
    pub subnets: BTreeMap<Prefix, DesiredSubnet>,
}

impl DesiredEpg {
    /// D2: it is left alone as a whole, because every Deployment that names it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused == self.deployments.len()
    }
}

/// One desired subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredSubnet {
    /// Where the address comes from; the subnet is named after it (S4).
    pub source: Source,
    /// Other Pods and Services that the address comes from (S4).
    pub also: Box<[Source]>,
    /// The Deployment that it is for, or one of several.
    pub deployment: Key,
    /// All Deployments that it is for are paused: it is neither created nor changed (D2).
    pub paused: bool,
}

/// An address that a Deployment has, and for which nothing is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Where the address comes from.
    pub source: Source,
    /// The Deployment.
    pub deployment: Key,
    /// It is paused (D2); else its EPG is not known (D3).
    pub paused: bool,
}

/// The Pod or Service that an address comes from. The order is S4's: a Service before a Pod, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Pods come after Services.
    pub is_pod: bool,
    /// Namespace and name.
    pub key: Key,
}

impl Source {
    /// The `name` of a subnet for its address: `{namespace}::{pod or service}`, cut at 63 characters (O1).
    pub fn subnet_name(&self) -> String {
        format!("{}::{}", self.key.namespace, self.key.name).chars().take(MAX_NAME).collect()
    }

    /// Whether a subnet of this name is for it; decided without making the name, since that is asked for each subnet of
    /// each EPG in each reconcile.
    ///
    /// A subnet of ours with an address that this Pod or Service has now and with its name was put there for it: the
    /// address is not another one's any more, and the name never was (D5). No memory is needed for that (R6).
    pub fn is_named(&self, name: &str) -> bool {
        let Key { namespace, name: own } = &self.key;
        match name.strip_prefix(&**namespace).and_then(|it| it.strip_prefix("::")) {
            Some(rest) if name.len() < MAX_NAME => *rest == **own,
            _ => *name == self.subnet_name(),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", if self.is_pod { Kind::Pod } else { Kind::Service }, self.key)
    }
}

/// A VRF as far as S3 needs one: the L3Out's `l3extRsEctx.tDn`, or the L3Out itself where that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vrf {
    /// The DN of the `fvCtx`.
    Known(String),
    /// The L3Out, taken for a VRF of its own.
    Own(L3outDn),
}

/// A Deployment as far as its addresses are concerned.
struct Exporter<'a> {
    managed: &'a ManagedDeployment,
    exports: Exports,
    /// The place of its EPG among all that are desired, where it is known.
    epg: Option<usize>,
}

/// A Pod, and the place of the managed Deployment that it belongs to.
type Claimant<'a> = (Option<usize>, &'a Pod);

/// All exporters, and the place of each by namespace and name.
struct Exporters<'a> {
    all: Vec<Exporter<'a>>,
    places: HashMap<(&'a str, &'a str), usize>,
}

impl<'a> Exporters<'a> {
    fn new(inventory: &'a Inventory, rules: &Rules, epgs: &[(EpgDn, DesiredEpg)]) -> Self {
        let place = |epg: &EpgDn| epgs.binary_search_by_key(&epg, |(dn, _)| dn).ok();
        let exporter = |managed: &'a ManagedDeployment| {
            let epg = bound_epg(managed, rules).and_then(place);
            Exporter { managed, exports: exports(managed, rules), epg }
        };
        let name = |(n, key): (usize, &'a Key)| ((&*key.namespace, &*key.name), n);
        Exporters {
            all: inventory.managed.values().map(exporter).collect(),
            places: inventory.managed.keys().enumerate().map(name).collect(),
        }
    }

    /// P1: the place of the managed Deployment that a Pod belongs to.
    fn owner(&self, pod: &'a Pod) -> Option<usize> {
        self.places.get(&(&*pod.key.namespace, pod.deployment.as_deref()?)).copied()
    }

    /// P1 to P5: where the Deployment of the Pod that an address belongs to is managed, the address is exported.
    fn pod_claim(&self, &(address, (owner, pod)): &(IpAddr, Claimant<'a>)) -> Option<Claim<'a>> {
        let place = owner?;
        let Exporter { managed, exports, epg } = &self.all[place];
        let (prefix, epg) = (Prefix::host(address), *epg);
        exports.pods.then_some(Claim { prefix, is_pod: true, key: &pod.key, place, managed, epg })
    }
}

/// An address that a Deployment exports.
#[derive(Clone, Copy)]
struct Claim<'a> {
    prefix: Prefix,
    is_pod: bool,
    /// The Pod or Service.
    key: &'a Key,
    /// The place of the Deployment among all exporters, which are sorted by name.
    place: usize,
    managed: &'a ManagedDeployment,
    epg: Option<usize>,
}

impl Claim<'_> {
    /// By address, a Service before a Pod (S4), then by its name and that of the Deployment. Where a Service selects
    /// thousands of Deployments, no name is looked at (X3).
    fn order(&self, other: &Claim<'_>) -> Ordering {
        let by_name = || if std::ptr::eq(self.key, other.key) { Ordering::Equal } else { self.key.cmp(other.key) };
        let by_address = (self.prefix, self.is_pod).cmp(&(other.prefix, other.is_pod));
        by_address.then_with(by_name).then(self.place.cmp(&other.place))
    }

    fn source(&self) -> Source {
        Source { is_pod: self.is_pod, key: self.key.clone() }
    }

    fn is_paused(&self) -> bool {
        self.managed.deployment.paused
    }

    /// D2, D3: nothing is written for it. What its namespace may not name is as if it were not annotated (W6).
    fn kept(&self) -> Option<Kept> {
        let is_unknown = self.managed.binding.is_none();
        let keeps = is_unknown || (self.is_paused() && self.epg.is_some());
        let (deployment, paused) = (self.managed.deployment.key.clone(), self.is_paused());
        keeps.then(|| Kept { source: self.source(), deployment, paused })
    }
}

/// The L3Outs that Deployments name, but for those of EPGs that are not created (W6).
pub fn named_l3outs(inventory: &Inventory, rules: &Rules, beyond_quota: &BTreeSet<EpgDn>) -> BTreeSet<L3outDn> {
    let named = inventory.managed.values().filter_map(|it| bound_epg(it, rules));
    named.filter(|it| !beyond_quota.contains(it)).map(|it| it.l3out.clone()).collect()
}

/// Computes what is desired. `vrf_of` tells which VRF an L3Out is in, `beyond_quota` has the EPGs that are not created
/// (W6).
pub fn desired_state(
    inventory: &Inventory,
    rules: &Rules,
    vrf_of: &dyn Fn(&L3outDn) -> Vrf,
    beyond_quota: &BTreeSet<EpgDn>,
) -> DesiredState {
    let mut desired = DesiredState::default();
    for managed in inventory.managed.values() {
        desired.findings.extend(annotation_findings(managed, rules));
        if let Some(epg) = bound_epg(managed, rules) {
            let beyond_quota = beyond_quota.contains(epg);
            let epg = desired.epgs.entry(epg.clone()).or_default();
            epg.beyond_quota = beyond_quota;
            epg.deployments.push(managed.deployment.key.clone());
            epg.paused += usize::from(managed.deployment.paused);
        }
    }
    for (key, it) in &inventory.mistaken {
        let subject = (Kind::Deployment, key);
        desired.findings.push(Finding::new(Code::UnknownKey, subject, unknown_annotations(&it.unknown_keys)));
    }
    // From here on an EPG is its place in this list: names are long, and there is a claim for each Pod.
    let mut epgs: Vec<(EpgDn, DesiredEpg)> = std::mem::take(&mut desired.epgs).into_iter().collect();
    let vrfs: Vec<Vrf> = epgs.iter().map(|(dn, _)| vrf_of(&dn.l3out)).collect();
    let exporters = Exporters::new(inventory, rules, &epgs);

    let pods: Vec<Claimant<'_>> = inventory.pods.values().map(|pod| (exporters.owner(pod), pod)).collect();
    let addresses = by_address(&pods);
    desired.findings.extend(claimed(&addresses, &exporters));
    let owners: Vec<(IpAddr, Claimant<'_>)> =
        addresses.chunk_by(|a, b| a.0 == b.0).filter_map(|it| it.last()).copied().collect();
    let mut claims: Vec<Claim<'_>> = owners.iter().filter_map(|owner| exporters.pod_claim(owner)).collect();
    desired.findings.extend(unreadable_addresses(&pods, &exporters));
    claims.extend(service_claims(inventory, &pods, &exporters, &mut desired.findings));
    desired.findings.extend(refuse(&mut claims, rules));
    claims.sort_unstable_by(Claim::order);
    let mut conflicts = Conflicts::new();
    for claims in claims.chunk_by(|a, b| a.prefix == b.prefix) {
        let kept: Vec<Kept> = claims.iter().filter_map(Claim::kept).collect();
        if !kept.is_empty() {
            desired.kept.insert(claims[0].prefix, kept);
        }
        assign_address(claims, &vrfs, &mut epgs, &mut conflicts);
    }
    desired.findings.extend(conflicts.into_iter().map(|(key, (texts, notes))| {
        let finding = Finding::new(Code::AddressConflict, (Kind::Deployment, &key), texts.to_string());
        finding.with_note(notes.to_string())
    }));
    desired.epgs = epgs.into_iter().collect();
    desired.findings.sort();
    desired.findings.dedup();
    desired
}

/// What each Deployment does not get, because an older one has it: for the log, and for Events.
type Conflicts = BTreeMap<Key, (Few, Few)>;

/// P6: takes out the claims to addresses that are never exposed.
fn refuse(claims: &mut Vec<Claim<'_>>, rules: &Rules) -> Vec<Finding> {
    let mut refused: BTreeMap<(Kind, Key), BTreeSet<String>> = BTreeMap::new();
    claims.retain(|claim| {
        let Some(why) = rules.refuses(claim.prefix.address) else { return true };
        if claim.epg.is_some() {
            let kind = if claim.is_pod { Kind::Deployment } else { Kind::Service };
            let subject = if claim.is_pod { &claim.managed.deployment.key } else { claim.key };
            let text = format!("{} of {} ({why})", claim.prefix.address, claim.source());
            refused.entry((kind, subject.clone())).or_default().insert(text);
        }
        false
    });
    let finding = |((kind, key), texts): ((Kind, Key), BTreeSet<String>)| {
        let text = format!("addresses not exposed: {}", Few::of(texts));
        Finding::new(Code::AddressNotExposed, (kind, &key), text)
    };
    refused.into_iter().map(finding).collect()
}

/// Puts one address, which all these claims are about, into the EPGs that may have it. The claims are sorted.
fn assign_address(claims: &[Claim<'_>], vrfs: &[Vrf], epgs: &mut [(EpgDn, DesiredEpg)], conflicts: &mut Conflicts) {
    // D4 and S4: within one EPG the claims unite, and the first source names the subnet; one of a Deployment that is
    // paused only if there is no other (D2).
    let mut by_epg: BTreeMap<usize, Vec<&Claim<'_>>> = BTreeMap::new();
    for claim in claims {
        if let Some(epg) = claim.epg {
            by_epg.entry(epg).or_default().push(claim);
        }
    }
    // S3: in one VRF an address can be in one EPG only; the oldest Deployment among the claimants gets it. Those that get
    // nothing at all take it from nobody; what they have stays (W6, D5).
    let mut winners: HashMap<&Vrf, (usize, &Claim<'_>)> = HashMap::new();
    for (&epg, claims) in by_epg.iter().filter(|(epg, _)| !epgs[**epg].1.beyond_quota) {
        for claim in claims {
            let winner = winners.entry(&vrfs[epg]).or_insert((epg, claim));
            if age(claim.managed) < age(winner.1.managed) {
                *winner = (epg, claim);
            }
        }
    }
    for (epg, claims) in by_epg {
        let Some(first) = claims.iter().min_by_key(|it| it.is_paused()) else { continue };
        let winner = winners.get(&vrfs[epg]).filter(|it| it.0 != epg);
        let Some((winner, older)) = winner else {
            let deployment = first.managed.deployment.key.clone();
            let sources = claims.iter().map(|it| it.source()).filter(|it| *it != first.source());
            let also = sources.collect();
            let subnet = DesiredSubnet { source: first.source(), also, deployment, paused: first.is_paused() };
            epgs[epg].1.subnets.insert(first.prefix, subnet);
            continue;
        };
        let loser = claims.iter().min_by_key(|it| age(it.managed));
        if let Some(loser) = loser.filter(|_| !epgs[epg].1.beyond_quota) {
            let (what, to) = (format!("{} ({})", first.prefix, first.source()), &epgs[epg].0);
            let (older, elsewhere) = (&older.managed.deployment.key, &epgs[*winner].0);
            let (texts, notes) = conflicts.entry(loser.managed.deployment.key.clone()).or_default();
            texts.push(format_args!(
                "{what} not added to {to}: older Deployment {older} has the address in {elsewhere} (same VRF)"
            ));
            notes.push(format_args!(
                "{what} not added to {to}: an older Deployment has the address in another EPG of the VRF"
            ));
        }
    }
}

/// The EPG that a Deployment's addresses belong to, if one is known. An annotation that names what its namespace may
/// not have counts as none (W6).
pub fn bound_epg<'a>(managed: &'a ManagedDeployment, rules: &Rules) -> Option<&'a EpgDn> {
    let epg = &managed.binding.as_ref()?.epg;
    rules.admits(&managed.deployment.key.namespace, epg).then_some(epg)
}

/// D2: what a Deployment exports. Where its binding is not known, all that it may ever have exported (D3).
pub(super) fn exports(managed: &ManagedDeployment, rules: &Rules) -> Exports {
    match &managed.binding {
        Some(binding) => binding.expose.unwrap_or(rules.expose),
        None => Exports { pods: true, services: true },
    }
}

/// S3: the older Deployment comes first, then namespace/name.
pub(super) fn age(managed: &ManagedDeployment) -> (&str, &Key) {
    (&managed.deployment.created, &managed.deployment.key)
}

/// What is odd about the annotations of a Deployment. Where its namespace may not have what it names, nothing else about
/// it matters (W6).
fn annotation_findings(managed: &ManagedDeployment, rules: &Rules) -> Vec<Finding> {
    let deployment = &managed.deployment;
    let subject = (Kind::Deployment, &deployment.key);
    if let Some(binding) = &managed.binding
        && bound_epg(managed, rules).is_none()
    {
        let why = if rules.allow.is_empty() {
            format!(
                "tenant {} belongs to the fabric itself, and no --allow rule names it; annotation ignored",
                binding.epg.l3out.tenant
            )
        } else {
            let namespace = &deployment.key.namespace;
            format!("namespace {namespace} may not use {}: no --allow rule matches; annotation ignored", binding.epg)
        };
        return vec![Finding::new(Code::NotAllowed, subject, why)];
    }
    let mut findings = Vec::new();
    let mut invalid = Vec::new();
    match (&managed.annotation, &managed.binding) {
        (Ok(_), _) => {}
        (Err(why), Some(last)) => {
            invalid.push(format!("invalid annotation: {why}; keeping the last valid binding ({})", last.epg))
        }
        (Err(why), None) => {
            invalid.push(format!(
                "invalid annotation: {why}; nothing is created for the Deployment until it is corrected"
            ));
        }
    }
    invalid.extend(deployment.odd_pause.as_ref().map(|value| {
        format!("{PAUSE_ANNOTATION} is {value:?}, neither true nor false; treating the Deployment as paused")
    }));
    if !invalid.is_empty() {
        findings.push(Finding::new(Code::InvalidAnnotation, subject, invalid.join("; ")));
    }
    let mut unknown = Vec::new();
    if let Some(keys) = managed.annotation.as_ref().ok().map(|it| &it.unknown_keys).filter(|it| !it.is_empty()) {
        unknown.push(format!("unknown annotation keys ignored: {keys}"));
    }
    if !deployment.unknown_keys.is_empty() {
        unknown.push(unknown_annotations(&deployment.unknown_keys));
    }
    if !unknown.is_empty() {
        findings.push(Finding::new(Code::UnknownKey, subject, unknown.join("; ")));
    }
    if let Some(epg) = bound_epg(managed, rules).filter(|_| deployment.paused) {
        let text = format!("addresses in {epg} are not added, removed or repaired while the Deployment is paused");
        findings.push(Finding::new(Code::Paused, subject, text));
    }
    findings
}

/// D2: keys that begin like those of our annotations.
fn unknown_annotations(keys: &UnknownKeys) -> String {
    format!("unknown annotations ignored: {keys}; aci-sync reads {BINDING_ANNOTATION} and {PAUSE_ANNOTATION}")
}

/// Each address with each Pod that has it; the one that it belongs to comes last (P5).
fn by_address<'a>(pods: &[Claimant<'a>]) -> Vec<(IpAddr, Claimant<'a>)> {
    let with_address = |claimant: &Claimant<'a>| {
        let claimant = *claimant;
        claimant.1.addresses.iter().map(move |address| (*address, claimant))
    };
    let mut addresses: Vec<(IpAddr, Claimant<'a>)> = pods.iter().flat_map(with_address).collect();
    addresses.sort_unstable_by_key(|&(address, (_, pod))| (address, precedence(pod)));
    addresses
}

/// P5: what the Pods of each Deployment have lost to others. What they lose to each other is exported all the same.
fn claimed(addresses: &[(IpAddr, Claimant<'_>)], exporters: &Exporters<'_>) -> Vec<Finding> {
    let mut lost: BTreeMap<usize, (Few, Few)> = BTreeMap::new();
    for claimants in addresses.chunk_by(|a, b| a.0 == b.0) {
        let Some(((address, (winner, by)), others)) = claimants.split_last() else { continue };
        for (_, (owner, pod)) in others {
            let Some(owner) = owner.filter(|it| exporters.all[*it].epg.is_some() && Some(*it) != *winner) else {
                continue;
            };
            if exporters.all[owner].exports.pods {
                let (texts, notes) = lost.entry(owner).or_default();
                texts.push(format_args!("{address} of Pod {} (now Pod {})", pod.key, by.key));
                notes.push(format_args!("{address} of Pod {}", pod.key));
            }
        }
    }
    let finding = |(owner, (texts, notes)): (usize, (Few, Few))| {
        let subject = (Kind::Deployment, &exporters.all[owner].managed.deployment.key);
        let say = |all: &Few| format!("addresses not exposed because other Pods have them now: {all}");
        Finding::new(Code::AddressClaimed, subject, say(&texts)).with_note(say(&notes))
    };
    lost.into_iter().map(finding).collect()
}

/// P2: what a Deployment's Pods have as an address and what is none. One finding a Deployment, about its first such Pod.
fn unreadable_addresses(pods: &[Claimant<'_>], exporters: &Exporters<'_>) -> Vec<Finding> {
    let mut odd: BTreeMap<usize, (&Pod, usize)> = BTreeMap::new();
    for (owner, pod) in pods.iter().filter(|(_, pod)| pod.unreadable.is_some()) {
        let Some(owner) = owner.filter(|it| exporters.all[*it].exports.pods) else { continue };
        let (first, count) = odd.entry(owner).or_insert((*pod, 0));
        *count += 1;
        if pod.key < first.key {
            *first = pod;
        }
    }
    let finding = |(owner, (pod, count)): (usize, (&Pod, usize))| {
        let (key, quote) = (&pod.key, pod.unreadable.as_deref().unwrap_or_default());
        let others = match count - 1 {
            0 => String::new(),
            others => format!("; {} with invalid addresses", counted(others, "more Pod")),
        };
        let text = format!("invalid address of Pod {key} not exposed: {quote}{others}");
        Finding::new(Code::InvalidAddress, (Kind::Deployment, &exporters.all[owner].managed.deployment.key), text)
    };
    odd.into_iter().map(finding).collect()
}

/// P5: a Pod that is not terminating wins, then the younger one.
pub(super) fn precedence(pod: &Pod) -> (bool, &str, &str) {
    (!pod.terminating, &pod.created, &pod.uid)
}

/// S1: a LoadBalancer Service exports its addresses for every Deployment that it selects, by the labels of its template
/// or of one of its Pods.
fn service_claims<'a>(
    inventory: &'a Inventory,
    pods: &[Claimant<'a>],
    exporters: &Exporters<'a>,
    findings: &mut Vec<Finding>,
) -> Vec<Claim<'a>> {
    if inventory.services.is_empty() {
        return Vec::new();
    }
    // The Pods of a Deployment mostly bear the same labels: each set is looked at once.
    let template = |it: &Exporter<'a>| HashSet::from([&it.managed.deployment.template_labels]);
    let mut borne: Vec<HashSet<&Labels>> = exporters.all.iter().map(template).collect();
    for (owner, pod) in pods {
        if let Some(owner) = *owner {
            borne[owner].insert(&pod.labels);
        }
    }
    let namespaces = exporters.all.iter().map(|it| &*it.managed.deployment.key.namespace);
    let mut selection = Selection::new(namespaces.zip(borne));

    let mut claims = Vec::new();
    for service in inventory.services.values() {
        // One that has nothing to expose yet costs nothing: a namespace may have thousands of them (X3).
        if service.addresses.is_empty() && service.unreadable.is_none() && !service.hostname_only {
            continue;
        }
        let owners = selection.of(service);
        for owner in owners.iter() {
            let Exporter { managed, exports, epg } = &exporters.all[*owner];
            if exports.services {
                claims.extend(service.addresses.iter().map(|address| Claim {
                    prefix: Prefix::host(*address),
                    is_pod: false,
                    key: &service.key,
                    place: *owner,
                    managed,
                    epg: *epg,
                }));
            }
        }
        if let Some(quote) = service.unreadable.as_ref().filter(|_| !owners.is_empty()) {
            let text = format!("invalid address not exposed: {quote}");
            findings.push(Finding::new(Code::InvalidAddress, (Kind::Service, &service.key), text));
        }
        if service.hostname_only && !owners.is_empty() {
            findings.push(Finding::new(
                Code::HostnameOnly,
                (Kind::Service, &service.key),
                "load balancer has a host name and no IP address; nothing to expose until it gets one",
            ));
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    /// O1: names are cut at 63 characters, wherever a letter of several bytes stands, and are known again.
    #[test]
    fn names_are_cut_by_characters() {
        for (name, cut) in [
            ("x".repeat(60), format!("a::{}", "x".repeat(60))),
            ("x".repeat(61), format!("a::{}", "x".repeat(60))),
            (format!("{}\u{e9}y", "x".repeat(59)), format!("a::{}\u{e9}", "x".repeat(59))),
            (format!("{}\u{1f600}yz", "x".repeat(58)), format!("a::{}\u{1f600}y", "x".repeat(58))),
        ] {
            let source = Source { is_pod: true, key: Key::new("a", &name) };
            assert_eq!(source.subnet_name(), cut);
            let shorter: String = cut.chars().skip(1).collect();
            assert!(source.is_named(&cut) && !source.is_named(&shorter) && !source.is_named(""));
        }
    }
}
