//! Where each address goes, and what stays where nothing wants it until that is possible (D2, D3, D5).
//!
//! A subnet stays for a Deployment that has its address now (P5) and whose Pod or Service gave it its name; never for
//! the sake of the address alone. Another Deployment could have got that address, and would inherit the contracts.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use super::desired::{DesiredEpg, Vrf};
use super::dn::{EpgDn, L3outDn, ObjectDn, Prefix};
use super::explain::sources_of;
use super::kubernetes::Workload;
use super::observed::{L3out, Subnet};
use super::owner::Ownership;
use super::plan_input::PlanInput;
use super::source::Source;

/// Where an address is desired in a VRF, if that EPG can be had (D5).
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) dn: &'a EpgDn,
    /// Else it is created first.
    pub(super) is_there: bool,
}

/// A subnet that stays: for which Deployment, unless for all of its EPG, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Retained<'a> {
    pub(super) workload: Option<&'a Workload>,
    pub(super) reason: Reason<'a>,
}

/// Why a subnet stays where nothing wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason<'a> {
    /// The Deployment is paused (D2).
    Paused,
    /// Every Deployment that names the EPG is (D2).
    EpgPaused,
    /// No valid annotation of the Deployment is known (D3).
    Unknown,
    /// The EPG that the Deployment names cannot be had (D5).
    Blocked(&'a EpgDn, BlockReason),
    /// That EPG is created in this very reconcile, and the subnet moves then.
    Moves,
}

impl Reason<'_> {
    /// It is kept by a pause, whatever else is desired.
    pub(super) fn is_pause(self) -> bool {
        matches!(self, Reason::Paused | Reason::EpgPaused)
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Paused => f.write_str("the Deployment is paused"),
            Reason::EpgPaused => f.write_str("all Deployments that name the EPG are paused"),
            Reason::Unknown => f.write_str("no valid annotation of the Deployment is known"),
            Reason::Moves => f.write_str("its new EPG is created first"),
            Reason::Blocked(dn, BlockReason::BeyondQuota) => write!(f, "{dn} exceeds --max-epgs"),
            Reason::Blocked(dn, BlockReason::Unread) => write!(f, "{} was not read yet", dn.l3out),
            Reason::Blocked(dn, BlockReason::L3OutNotFound) => write!(f, "L3Out {} not found", dn.l3out),
            Reason::Blocked(dn, BlockReason::Paused) => write!(f, "{dn} is paused"),
            Reason::Blocked(dn, BlockReason::LeftAlone) => {
                write!(f, "{dn} is deferred after a rejection or a conflict")
            }
            Reason::Blocked(dn, BlockReason::Refused) => write!(f, "{dn} is foreign and --foreign-epg is refuse"),
            Reason::Blocked(dn, BlockReason::ForeignEpgDeleted) => write!(f, "{dn} is foreign and was deleted"),
        }
    }
}

/// Why an EPG that a Deployment names cannot be had (D5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum BlockReason {
    /// It is beyond what its namespaces may have (W6).
    BeyondQuota,
    /// Its L3Out was not read.
    Unread,
    /// There is no such L3Out (R3).
    L3OutNotFound,
    /// Every Deployment that names it is paused (D2).
    Paused,
    /// It is left alone for now (W3, W8, R5).
    LeftAlone,
    /// It is not ours, and foreign ones are refused (W6).
    Refused,
    /// It was not ours, and somebody deleted it (O4).
    ForeignEpgDeleted,
}

/// D5: why an EPG cannot be had, apart from not having been made yet.
pub(super) fn block_reason(input: &PlanInput<'_>, dn: &EpgDn, desired: &DesiredEpg) -> Option<BlockReason> {
    let fabric = input.fabric;
    if desired.beyond_quota {
        return Some(BlockReason::BeyondQuota);
    }
    match fabric.l3out(&dn.l3out) {
        None => return Some(BlockReason::Unread),
        Some(L3out::Missing) => return Some(BlockReason::L3OutNotFound),
        Some(L3out::Present { .. }) => {}
    }
    let object = ObjectDn::Epg(dn.clone());
    match fabric.epg(dn) {
        _ if desired.is_paused() => Some(BlockReason::Paused),
        Some(epg) if !epg.belongs_to_us() && !input.rules.use_foreign => Some(BlockReason::Refused),
        None if fabric.is_tagged(dn) || input.tag_failures.contains_key(dn) => Some(BlockReason::ForeignEpgDeleted),
        epg => {
            let is_left_alone = (input.is_deferred)(&object) || (epg.is_none() && (input.is_throttled)(&object));
            is_left_alone.then_some(BlockReason::LeftAlone)
        }
    }
}

/// A Pod or Service that has an address now, and for which nothing can be written.
struct Claim<'a> {
    source: &'a Source,
    stay: Retained<'a>,
}

/// Where addresses go, and for whom they stay.
pub(super) struct Placement<'a> {
    input: &'a PlanInput<'a>,
    /// A number for each VRF, so that an address in a VRF is cheap to look up.
    vrfs: HashMap<L3outDn, usize>,
    targets: HashMap<(usize, Prefix), Target<'a>>,
    claims: HashMap<Prefix, Vec<Claim<'a>>>,
    /// The Pod and the Services that have an address now, of those that a pause or the deletion guard would retain (P5).
    sources: HashMap<IpAddr, Vec<Source>>,
}

impl<'a> Placement<'a> {
    pub(super) fn new(input: &'a PlanInput<'a>) -> Self {
        let (desired, fabric) = (input.desired, input.fabric);
        let mut numbers: HashMap<Vrf, usize> = HashMap::new();
        let mut vrfs = HashMap::new();
        for dn in fabric.l3outs().chain(desired.epgs.keys().map(|it| &it.l3out)) {
            let next = numbers.len();
            let number = *numbers.entry(fabric.vrf(dn)).or_insert(next);
            vrfs.insert(dn.clone(), number);
        }

        let paused = desired.epgs.iter().filter(|(_, it)| it.is_paused()).filter_map(|(dn, _)| fabric.epg(dn));
        let paused = paused.flat_map(|it| it.subnets.keys());
        let blocked = input.blocked.iter().filter_map(ObjectDn::prefix);
        let sources = sources_of(input.inventory, paused.chain(blocked).map(|it| it.address).collect());
        let mut placement = Placement { input, vrfs, targets: HashMap::new(), claims: HashMap::new(), sources };
        for (prefix, unplaced) in &desired.unplaced {
            for it in unplaced {
                let reason = if it.paused { Reason::Paused } else { Reason::Unknown };
                placement.claim(*prefix, &it.source, &it.workload, reason);
            }
        }
        for (dn, epg) in &desired.epgs {
            let vrf = placement.vrf(dn);
            let (block_reason, is_there) = (block_reason(input, dn, epg), fabric.epg(dn).is_some());
            for (prefix, subnet) in epg.subnets.iter().filter(|(_, it)| !it.paused) {
                if block_reason.is_none() {
                    placement.targets.insert((vrf, *prefix), Target { dn, is_there });
                }
                if block_reason.is_some() || !is_there {
                    let reason = block_reason.map_or(Reason::Moves, |it| Reason::Blocked(dn, it));
                    for source in [&subnet.source].into_iter().chain(&subnet.also) {
                        placement.claim(*prefix, source, &subnet.workload, reason);
                    }
                }
            }
        }
        placement
    }

    fn claim(&mut self, prefix: Prefix, source: &'a Source, workload: &'a Workload, reason: Reason<'a>) {
        let stay = Retained { workload: Some(workload), reason };
        self.claims.entry(prefix).or_default().push(Claim { source, stay });
    }

    /// The number of an EPG's VRF.
    pub(super) fn vrf(&self, dn: &EpgDn) -> usize {
        self.vrfs[&dn.l3out]
    }

    /// Where an address goes in the VRF of an EPG.
    pub(super) fn target(&self, dn: &EpgDn, prefix: Prefix) -> Option<Target<'a>> {
        self.targets.get(&(self.vrf(dn), prefix)).copied()
    }

    /// Why a subnet of ours that nothing wants where it is stays there. What goes to an EPG of the same VRF does not
    /// stay, but for a pause; so what stays stands in nobody's way.
    pub(super) fn retained(&self, dn: &EpgDn, prefix: Prefix, subnet: &Subnet) -> Option<Retained<'a>> {
        let goes = || subnet.ownership != Ownership::Owned || self.target(dn, prefix).is_some_and(|it| it.is_there);
        let claims = self.claims.get(&prefix).into_iter().flatten().filter(|it| it.source.is_named(&subnet.name));
        let stays = claims.map(|it| it.stay).filter(|it| it.reason.is_pause() || !goes()).min_by_key(|it| it.reason);
        stays.or_else(|| {
            let is_paused = self.input.desired.epgs.get(dn).is_some_and(DesiredEpg::is_paused);
            let stays = is_paused && !self.belongs_to_another(prefix, &subnet.name);
            stays.then_some(Retained { workload: None, reason: Reason::EpgPaused })
        })
    }

    /// P5: whether another Pod or Service has the address of a subnet now. It then leaves also while its EPG is paused (D2)
    /// or its deletion is held (W4): whoever has the address must not get the contracts of that EPG.
    pub(super) fn belongs_to_another(&self, prefix: Prefix, name: &str) -> bool {
        let sources = self.sources.get(&prefix.address).filter(|_| prefix == Prefix::host(prefix.address));
        sources.is_some_and(|it| !it.is_empty() && !it.iter().any(|it| it.is_named(name)))
    }
}
