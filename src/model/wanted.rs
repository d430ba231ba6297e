//! What the cluster's present state calls for: which EEPGs, and which subnets in them.
//!
//! A pure function of the inventory, the rules and which VRF each L3Out is in. What the fabric holds does not matter
//! here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use super::dn::{EepgDn, L3outDn, Prefix};
use super::finding::{Code, Finding};
use super::inventory::{Inventory, Member};
use super::kube::{Key, Kind, Pod};
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

/// An address that a Deployment exports.
struct Claim<'a> {
    deployment: &'a Key,
    prefix: Prefix,
    source: Source,
}

/// The L3Outs that Deployments name.
pub fn named_l3outs(inventory: &Inventory, rules: &Rules) -> BTreeSet<L3outDn> {
    inventory.members.values().filter_map(|it| placed(it, rules)).map(|it| it.l3out.clone()).collect()
}

/// Computes what is wanted. `vrf_of` tells which VRF an L3Out is in.
pub fn wanted(inventory: &Inventory, rules: &Rules, vrf_of: &dyn Fn(&L3outDn) -> Vrf) -> Wanted {
    let mut wanted = Wanted::default();
    let mut findings = Vec::new();
    for member in inventory.members.values() {
        findings.extend(annotation_findings(member, rules));
        wanted.is_one_unknown |= member.in_force.is_none();
        if let Some(eepg) = placed(member, rules) {
            let key = &member.deployment.key;
            let eepg = wanted.eepgs.entry(eepg.clone()).or_default();
            eepg.deployments.push(key.clone());
            eepg.paused_by.extend(member.deployment.paused.then(|| key.clone()));
        }
    }

    let mut claims = pod_claims(inventory);
    claims.extend(service_claims(inventory, &mut findings));

    // D4 and S4: within one EEPG the claims unite, and the first source names the subnet. The oldest Deployment
    // among the claimants stands for the EEPG when another EEPG wants the same address (S3).
    let mut by_eepg: BTreeMap<(Prefix, &EepgDn), (Source, &Member)> = BTreeMap::new();
    for claim in claims {
        let Some(member) = inventory.members.get(claim.deployment) else { continue };
        let exports = exports(member, rules);
        if !(if claim.source.is_pod { exports.pods } else { exports.services }) {
            continue;
        }
        if member.in_force.is_none() {
            wanted.unplaced.insert(claim.prefix);
        }
        let Some(eepg) = placed(member, rules) else { continue };
        by_eepg
            .entry((claim.prefix, eepg))
            .and_modify(|(source, oldest)| {
                if claim.source < *source {
                    *source = claim.source.clone();
                }
                if age(member) < age(oldest) {
                    *oldest = member;
                }
            })
            .or_insert((claim.source, member));
    }

    // S3: in one VRF an address can be in one EEPG only; the older Deployment gets it.
    let vrfs: BTreeMap<&L3outDn, Vrf> = wanted.eepgs.keys().map(|eepg| (&eepg.l3out, vrf_of(&eepg.l3out))).collect();
    let mut winners: HashMap<(Prefix, &Vrf), (&EepgDn, &Member)> = HashMap::with_capacity(by_eepg.len());
    for (&(prefix, eepg), &(_, member)) in &by_eepg {
        winners
            .entry((prefix, &vrfs[&eepg.l3out]))
            .and_modify(|winner| {
                if age(member) < age(winner.1) {
                    *winner = (eepg, member);
                }
            })
            .or_insert((eepg, member));
    }
    let mut subnets = Vec::with_capacity(by_eepg.len());
    for (&(prefix, eepg), (source, member)) in &by_eepg {
        let (winner, older) = winners[&(prefix, &vrfs[&eepg.l3out])];
        if winner == eepg {
            subnets.push((eepg.clone(), prefix, WantedSubnet { source: source.clone() }));
        } else {
            findings.push(Finding::new(
                Code::AddressConflict,
                (Kind::Deployment, &member.deployment.key),
                format!(
                    "{prefix} ({source}) is not put into {eepg}: the older Deployment {} has it in {winner} of the same VRF",
                    older.deployment.key
                ),
            ));
        }
    }
    for (eepg, prefix, subnet) in subnets {
        wanted.eepgs.entry(eepg).or_default().subnets.insert(prefix, subnet);
    }
    findings.sort();
    findings.dedup();
    wanted.findings = findings;
    wanted
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
fn pod_claims(inventory: &Inventory) -> Vec<Claim<'_>> {
    let mut winners: HashMap<IpAddr, &Pod> = HashMap::with_capacity(inventory.pods.len());
    for pod in inventory.pods.values() {
        for address in &pod.addresses {
            winners
                .entry(*address)
                .and_modify(|winner| {
                    if precedence(pod) > precedence(winner) {
                        *winner = pod;
                    }
                })
                .or_insert(pod);
        }
    }
    winners
        .into_iter()
        .filter_map(|(address, pod)| {
            let owner = owner(inventory, pod)?;
            let source = Source { is_pod: true, key: pod.key.clone() };
            Some(Claim { deployment: &owner.deployment.key, prefix: Prefix::host(address), source })
        })
        .collect()
}

/// P5: a Pod that is not terminating wins, then the younger one.
fn precedence(pod: &Pod) -> (bool, &str, &str) {
    (!pod.terminating, &pod.created, &pod.uid)
}

/// P1: the enrolled Deployment that a Pod belongs to.
fn owner<'a>(inventory: &'a Inventory, pod: &Pod) -> Option<&'a Member> {
    let deployment = pod.deployment.as_deref()?;
    inventory.members.get(&Key::new(&pod.key.namespace, deployment))
}

/// S1: a LoadBalancer Service exports its addresses for every Deployment that it selects.
fn service_claims<'a>(inventory: &'a Inventory, findings: &mut Vec<Finding>) -> Vec<Claim<'a>> {
    let mut pods: HashMap<&Key, Vec<&Pod>> = HashMap::new();
    if !inventory.services.is_empty() {
        for pod in inventory.pods.values() {
            if let Some(owner) = owner(inventory, pod) {
                pods.entry(&owner.deployment.key).or_default().push(pod);
            }
        }
    }
    let mut members: HashMap<&str, Vec<&Member>> = HashMap::new();
    for member in inventory.members.values() {
        members.entry(&member.deployment.key.namespace).or_default().push(member);
    }

    let mut claims = Vec::new();
    for service in inventory.services.values() {
        for &member in members.get(&*service.key.namespace).into_iter().flatten() {
            let key = &member.deployment.key;
            let selected = service.selector.select(&member.deployment.template_labels)
                || pods.get(key).into_iter().flatten().any(|pod| service.selector.select(&pod.labels));
            if !selected {
                continue;
            }
            if service.hostname_only {
                findings.push(Finding::new(
                    Code::HostnameOnly,
                    (Kind::Service, &service.key),
                    "its load balancer gives a host name and no IP address: there is nothing to export",
                ));
            }
            claims.extend(service.addresses.iter().map(|address| Claim {
                deployment: key,
                prefix: Prefix::host(*address),
                source: Source { is_pod: false, key: service.key.clone() },
            }));
        }
    }
    claims
}
