//! What the cluster's present state calls for: which EEPGs, and which subnets in them.
//!
//! A pure function of the inventory, the rules and which VRF each L3Out is in. What the fabric holds does not matter
//! here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use super::dn::{EepgDn, L3outDn, Prefix};
use super::finding::{Code, Finding};
use super::inventory::{Inventory, Member};
use super::kube::{Key, Kind, Labels, Pod};
use super::rules::{Exports, Rules};

/// The EEPGs and subnets that should be there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Each EEPG that a Deployment names, also without addresses (D4).
    pub eepgs: BTreeMap<EepgDn, WantedEepg>,
    /// Present addresses of Deployments whose EEPG is not known: our subnets that hold them stay (D3, D5).
    pub unplaced: BTreeSet<Prefix>,
    /// There is a Deployment whose annotation is wrong and of which no valid one is known (D3).
    pub is_one_unknown: bool,
    /// What is odd about the cluster's side.
    pub findings: Vec<Finding>,
}

/// One wanted EEPG.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WantedEepg {
    /// The Deployments that name it.
    pub deployments: Vec<Key>,
    /// Those of them whose pause keeps all hands off it (D2).
    pub paused_by: Vec<Key>,
    /// Its subnets.
    pub subnets: BTreeMap<Prefix, WantedSubnet>,
}

/// One wanted subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedSubnet {
    /// Where the address comes from; the subnet is named after it (S4).
    pub source: Source,
}

impl WantedSubnet {
    /// The subnet's `name`: `{namespace}::{pod or service}`, cut at 63 characters (O1).
    pub fn name(&self) -> String {
        let mut name = format!("{}::{}", self.source.key.namespace, self.source.key.name);
        name.truncate(63);
        name
    }

    /// Whether that is its name; told without making it, since it is asked for each subnet of each EEPG in each pass.
    pub fn is_named(&self, name: &str) -> bool {
        let Key { namespace, name: own } = &self.source.key;
        match name.strip_prefix(&**namespace).and_then(|it| it.strip_prefix("::")) {
            Some(rest) if name.len() < 63 => *rest == **own,
            _ => *name == self.name(),
        }
    }
}

/// The Pod or Service that an address comes from. The order is S4's: a Service before a Pod, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Pods come after Services.
    pub is_pod: bool,
    /// Namespace and name.
    pub key: Key,
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
    member: &'a Member,
    exports: Exports,
    /// The place of its EEPG among all that are wanted, where it is known.
    eepg: Option<usize>,
}

/// A Pod, and the place of the enrolled Deployment that it belongs to.
type Claimant<'a> = (Option<usize>, &'a Pod);

/// All exporters, and the place of each by namespace and name.
struct Exporters<'a> {
    all: Vec<Exporter<'a>>,
    places: HashMap<(&'a str, &'a str), usize>,
}

impl<'a> Exporters<'a> {
    fn new(inventory: &'a Inventory, rules: &Rules, eepgs: &[(EepgDn, WantedEepg)]) -> Self {
        let place = |eepg: &EepgDn| eepgs.binary_search_by_key(&eepg, |(dn, _)| dn).ok();
        let exporter = |member: &'a Member| {
            let eepg = placed(member, rules).and_then(place);
            Exporter { member, exports: exports(member, rules), eepg }
        };
        let name = |(n, key): (usize, &'a Key)| ((&*key.namespace, &*key.name), n);
        Exporters {
            all: inventory.members.values().map(exporter).collect(),
            places: inventory.members.keys().enumerate().map(name).collect(),
        }
    }

    /// P1: the place of the enrolled Deployment that a Pod belongs to.
    fn owner(&self, pod: &'a Pod) -> Option<usize> {
        self.places.get(&(&*pod.key.namespace, pod.deployment.as_deref()?)).copied()
    }
}

/// An address that a Deployment exports.
#[derive(Clone, Copy)]
struct Claim<'a> {
    prefix: Prefix,
    is_pod: bool,
    /// The Pod or Service.
    key: &'a Key,
    member: &'a Member,
    eepg: Option<usize>,
}

/// The L3Outs that Deployments name.
pub fn named_l3outs(inventory: &Inventory, rules: &Rules) -> BTreeSet<L3outDn> {
    inventory.members.values().filter_map(|it| placed(it, rules)).map(|it| it.l3out.clone()).collect()
}

/// Computes what is wanted. `vrf_of` tells which VRF an L3Out is in.
pub fn wanted(inventory: &Inventory, rules: &Rules, vrf_of: &dyn Fn(&L3outDn) -> Vrf) -> Wanted {
    let mut wanted = Wanted::default();
    for member in inventory.members.values() {
        wanted.findings.extend(annotation_findings(member, rules));
        wanted.is_one_unknown |= member.in_force.is_none();
        if let Some(eepg) = placed(member, rules) {
            let key = &member.deployment.key;
            let eepg = wanted.eepgs.entry(eepg.clone()).or_default();
            eepg.deployments.push(key.clone());
            eepg.paused_by.extend(member.deployment.paused.then(|| key.clone()));
        }
    }
    // From here on an EEPG is its place in this list: names are long, and there is a claim for each Pod.
    let mut eepgs: Vec<(EepgDn, WantedEepg)> = std::mem::take(&mut wanted.eepgs).into_iter().collect();
    let vrfs: Vec<Vrf> = eepgs.iter().map(|(dn, _)| vrf_of(&dn.l3out)).collect();
    let exporters = Exporters::new(inventory, rules, &eepgs);

    let pods: Vec<Claimant<'_>> = inventory.pods.values().map(|pod| (exporters.owner(pod), pod)).collect();
    let mut claims = pod_claims(&pods, &exporters);
    wanted.findings.extend(unreadable_addresses(&pods, &exporters));
    claims.extend(service_claims(inventory, &pods, &exporters, &mut wanted.findings));
    claims.sort_unstable_by_key(|it| (it.prefix, it.is_pod, it.key, &it.member.deployment.key));
    for claims in claims.chunk_by(|a, b| a.prefix == b.prefix) {
        if claims.iter().any(|it| it.member.in_force.is_none()) {
            wanted.unplaced.insert(claims[0].prefix);
        }
        share_out(claims, &vrfs, &mut eepgs, &mut wanted.findings);
    }
    wanted.eepgs = eepgs.into_iter().collect();
    wanted.findings.sort();
    wanted.findings.dedup();
    wanted
}

/// Puts one address, which all these claims are about, into the EEPGs that may have it. The claims are sorted.
fn share_out(claims: &[Claim<'_>], vrfs: &[Vrf], eepgs: &mut [(EepgDn, WantedEepg)], findings: &mut Vec<Finding>) {
    // D4 and S4: within one EEPG the claims unite, and the first source names the subnet. The oldest Deployment
    // among the claimants stands for the EEPG when another EEPG wants the same address (S3).
    let mut by_eepg: BTreeMap<usize, (Claim<'_>, &Member)> = BTreeMap::new();
    for claim in claims {
        let Some(eepg) = claim.eepg else { continue };
        let (_, oldest) = by_eepg.entry(eepg).or_insert((*claim, claim.member));
        if age(claim.member) < age(oldest) {
            *oldest = claim.member;
        }
    }
    for (&eepg, (claim, member)) in &by_eepg {
        // S3: in one VRF an address can be in one EEPG only; the older Deployment gets it.
        let rivals = by_eepg.iter().filter(|(rival, _)| vrfs[**rival] == vrfs[eepg]);
        let Some((&winner, (_, older))) = rivals.min_by_key(|(_, (_, rival))| age(rival)) else { continue };
        let source = Source { is_pod: claim.is_pod, key: claim.key.clone() };
        if winner == eepg {
            eepgs[eepg].1.subnets.insert(claim.prefix, WantedSubnet { source });
        } else {
            findings.push(Finding::new(
                Code::AddressConflict,
                (Kind::Deployment, &member.deployment.key),
                format!(
                    "{} ({source}) is not put into {}: the older Deployment {} has it in {} of the same VRF",
                    claim.prefix, eepgs[eepg].0, older.deployment.key, eepgs[winner].0
                ),
            ));
        }
    }
}

/// The EEPG that a Deployment's addresses belong to, if one is known. An annotation that names what its namespace may
/// not have counts as none (W6).
fn placed<'a>(member: &'a Member, rules: &Rules) -> Option<&'a EepgDn> {
    let eepg = &member.in_force.as_ref()?.eepg;
    rules.admits(&member.deployment.key.namespace, eepg).then_some(eepg)
}

/// D2: what a Deployment exports. Where its enrolment is not known, all that it may ever have exported (D3).
fn exports(member: &Member, rules: &Rules) -> Exports {
    match &member.in_force {
        Some(enrolment) => enrolment.expose.unwrap_or(rules.expose),
        None => Exports { pods: true, services: true },
    }
}

/// S3: the older Deployment comes first, then namespace/name.
fn age(member: &Member) -> (&str, &Key) {
    (&member.deployment.created, &member.deployment.key)
}

fn annotation_findings(member: &Member, rules: &Rules) -> Vec<Finding> {
    let subject = (Kind::Deployment, &member.deployment.key);
    let mut findings = Vec::new();
    match (&member.annotation, &member.in_force) {
        (Err(why), Some(enrolment)) => findings.push(Finding::new(
            Code::InvalidAnnotation,
            subject,
            format!("its annotation {why}; until it is mended, the last valid one ({}) counts", enrolment.eepg),
        )),
        (Err(why), None) => findings.push(Finding::new(
            Code::InvalidAnnotation,
            subject,
            format!("its annotation {why}; nothing is made for it until it is mended"),
        )),
        (Ok(enrolment), _) => findings.extend(enrolment.unknown_keys.iter().map(|key| {
            Finding::new(
                Code::UnknownKey,
                subject,
                format!("its annotation has the unknown key {key:?}, which does nothing"),
            )
        })),
    }
    if let Some(enrolment) = &member.in_force
        && placed(member, rules).is_none()
    {
        let why = if rules.allow.is_empty() {
            format!("the tenant {} is the fabric's own, and no --allow names it", enrolment.eepg.l3out.tenant)
        } else {
            let namespace = &member.deployment.key.namespace;
            format!("no --allow lets the namespace {namespace} use {}: the annotation counts as none", enrolment.eepg)
        };
        findings.push(Finding::new(Code::NotAllowed, subject, why));
    }
    findings
}

/// P1 to P5: each address belongs to one Pod of the cluster; where that Pod's Deployment is enrolled, it is exported.
fn pod_claims<'a>(pods: &[Claimant<'a>], exporters: &Exporters<'a>) -> Vec<Claim<'a>> {
    let with_address = |claimant: &Claimant<'a>| {
        let claimant = *claimant;
        claimant.1.addresses.iter().map(move |address| (*address, claimant))
    };
    let mut addresses: Vec<(IpAddr, Claimant<'a>)> = pods.iter().flat_map(with_address).collect();
    addresses.sort_unstable_by_key(|(address, _)| *address);
    let claim = |claimants: &[(IpAddr, Claimant<'a>)]| {
        let &(address, (owner, pod)) = claimants.iter().max_by_key(|(_, (_, pod))| precedence(pod))?;
        let Exporter { member, exports, eepg } = &exporters.all[owner?];
        let (prefix, eepg) = (Prefix::host(address), *eepg);
        exports.pods.then_some(Claim { prefix, is_pod: true, key: &pod.key, member, eepg })
    };
    addresses.chunk_by(|a, b| a.0 == b.0).filter_map(claim).collect()
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
        let others =
            if count > 1 { format!("; other Pods with such an address: {}", count - 1) } else { String::new() };
        let text =
            format!("Pod {key} has what is no address as Kubernetes reads them, so not exported: {quote}{others}");
        Finding::new(Code::UnreadableAddress, (Kind::Deployment, &exporters.all[owner].member.deployment.key), text)
    };
    odd.into_iter().map(finding).collect()
}

/// P5: a Pod that is not terminating wins, then the younger one.
fn precedence(pod: &Pod) -> (bool, &str, &str) {
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
    let template = |it: &Exporter<'a>| HashSet::from([&it.member.deployment.template_labels]);
    let mut borne: Vec<HashSet<&Labels>> = exporters.all.iter().map(template).collect();
    for (owner, pod) in pods {
        if let Some(owner) = *owner {
            borne[owner].insert(&pod.labels);
        }
    }
    // A selector holds only where its first label is borne, so that not every Service looks at all of them.
    let mut bearers: HashMap<(&str, &str, &str), BTreeSet<usize>> = HashMap::new();
    for (owner, labels) in borne.iter().enumerate().flat_map(|(n, sets)| sets.iter().map(move |it| (n, it))) {
        let namespace = &*exporters.all[owner].member.deployment.key.namespace;
        for (label, value) in labels.iter() {
            bearers.entry((namespace, label, value)).or_default().insert(owner);
        }
    }

    let mut claims = Vec::new();
    for service in inventory.services.values() {
        let Some((label, value)) = service.selector.iter().next() else { continue };
        let bearers = bearers.get(&(&service.key.namespace, label, value)).into_iter().flatten().copied();
        let mut is_selecting = false;
        for owner in bearers.filter(|it| borne[*it].iter().any(|labels| service.selector.select(labels))) {
            is_selecting = true;
            let Exporter { member, exports, eepg } = &exporters.all[owner];
            if exports.services {
                claims.extend(service.addresses.iter().map(|address| Claim {
                    prefix: Prefix::host(*address),
                    is_pod: false,
                    key: &service.key,
                    member,
                    eepg: *eepg,
                }));
            }
        }
        if let Some(quote) = service.unreadable.as_ref().filter(|_| is_selecting) {
            let text = format!("not an address as Kubernetes reads them, so not exported: {quote}");
            findings.push(Finding::new(Code::UnreadableAddress, (Kind::Service, &service.key), text));
        }
        if service.hostname_only && is_selecting {
            findings.push(Finding::new(
                Code::HostnameOnly,
                (Kind::Service, &service.key),
                "its load balancer gives a host name and no IP address: there is nothing to export",
            ));
        }
    }
    claims
}
