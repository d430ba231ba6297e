//! Where each address goes, and which subnets stay where they are not desired until that is possible (D2, D3, D5).
//!
//! A subnet stays for a workload that has its address now (P5) and whose Pod or Service gave it its name; never for
//! its address alone. Another workload could have got that address, and would inherit the contracts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use super::deletion_causes::sources_of;
use super::desired::{DesiredEpg, DesiredSubnet, Vrf};
use super::dn::{EpgDn, L3outDn, ObjectDn, Prefix};
use super::kubernetes::Workload;
use super::observed::Subnet;
use super::owner::Ownership;
use super::plan_findings::Holder;
use super::plan_input::{Moves, PlanInput};
use super::retained::{Reason, Retained, why_unusable};
use super::source::Source;

/// Where an address is desired in a VRF, if that EPG can be used (D5).
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) dn: &'a EpgDn,
    /// Else it is created first.
    pub(super) is_there: bool,
}

/// A Pod or Service that has an address now, and for which nothing can be written; so a subnet of it stays.
struct Claim<'a> {
    source: &'a Source,
    retained: Retained<'a>,
}

/// Where addresses go, and for which workloads subnets stay.
pub(super) struct Placement<'a> {
    input: &'a PlanInput<'a>,
    /// The addresses that are placed; nothing if all are.
    in_question: Option<HashSet<Prefix>>,
    /// A number for each VRF, so that an address in a VRF is cheap to look up.
    vrfs: HashMap<L3outDn, usize>,
    targets: HashMap<(usize, Prefix), Target<'a>>,
    claims: HashMap<Prefix, Vec<Claim<'a>>>,
    /// The Pod and the Services that have an address now, for the addresses that a pause or the deletion guard would retain
    /// (P5).
    sources: HashMap<IpAddr, Vec<Source>>,
    /// Unless moves are free (J3): the EPGs where an address is desired, and the subnets whose moves wait.
    homes: HashMap<Prefix, Vec<(&'a EpgDn, &'a DesiredSubnet)>>,
    waiting: HashMap<Prefix, Vec<(EpgDn, &'a Subnet)>>,
}

impl<'a> Placement<'a> {
    /// Only what is asked about these addresses can be answered. Most of the addresses are where they are desired, and there is
    /// nothing to ask about them.
    pub(super) fn new(input: &'a PlanInput<'a>, in_question: Option<HashSet<Prefix>>) -> Self {
        let mut placement = Placement {
            input,
            in_question,
            vrfs: numbered_vrfs(input),
            targets: HashMap::new(),
            claims: HashMap::new(),
            sources: HashMap::new(),
            homes: HashMap::new(),
            waiting: HashMap::new(),
        };
        placement.sources = sources_of(input.inventory, placement.with_sources());
        for (prefix, unplaced) in placement.those_in_question(&input.desired.unplaced) {
            for it in unplaced {
                let reason = if it.paused { Reason::Paused } else { Reason::Unknown };
                placement.claim(*prefix, &it.source, &it.workload, reason);
            }
        }
        for (dn, epg) in &input.desired.epgs {
            placement.place(dn, epg);
        }
        if !placement.homes.is_empty() {
            placement.waiting = placement.waiting_moves();
        }
        placement
    }

    fn waiting_moves(&self) -> HashMap<Prefix, Vec<(EpgDn, &'a Subnet)>> {
        let mut waiting: HashMap<Prefix, Vec<(EpgDn, &Subnet)>> = HashMap::new();
        for (dn, epg) in self.input.fabric.epgs() {
            for (prefix, subnet) in self.those_in_question(&epg.subnets) {
                if self.move_waits(&dn, *prefix, subnet).is_some() {
                    waiting.entry(*prefix).or_default().push((dn.clone(), subnet));
                }
            }
        }
        waiting
    }

    /// J3: where a subnet would move, now or once that EPG can be used: its own Pod or Service desires the address there. A
    /// legacy subnet moves within its VRF only (O3). Nothing while moves are free.
    pub(super) fn move_of(&self, dn: &EpgDn, prefix: Prefix, subnet: &Subnet) -> Option<(&'a EpgDn, &'a Workload)> {
        let homes = self.homes.get(&prefix)?;
        let moves_to = |home: &EpgDn| match subnet.ownership {
            Ownership::Owned => true,
            Ownership::Legacy => self.vrf(home) == self.vrf(dn),
            _ => false,
        };
        if self.input.desired.epgs.get(dn).is_some_and(|it| it.subnets.contains_key(&prefix)) {
            return None;
        }
        // What is there already is no move any more, but the rest of one.
        let holds = |home: &EpgDn| self.input.fabric.epg(home).and_then(|it| it.subnets.get(&prefix));
        let is_done = |home: &EpgDn| holds(home).is_some_and(|it| it.ownership == Ownership::Owned);
        let is_home =
            |(home, it): &&(&EpgDn, &DesiredSubnet)| moves_to(home) && !is_done(home) && has_source(it, subnet);
        let home = homes.iter().find(is_home)?;
        Some((home.0, &home.1.workload))
    }

    /// The same for a move that waits.
    fn move_waits(&self, dn: &EpgDn, prefix: Prefix, subnet: &Subnet) -> Option<Retained<'a>> {
        let (home, workload) = self.move_of(dn, prefix, subnet)?;
        let reason = match self.input.moves {
            Moves::Free => return None,
            Moves::Uncounted => Reason::Moves,
            Moves::Blocked(blocked) if blocked.contains(&ObjectDn::Subnet(dn.clone(), prefix)) => {
                Reason::MoveBlocked(home)
            }
            Moves::Blocked(_) => return None,
        };
        Some(Retained { workload: Some(workload), reason })
    }

    /// J3: the EPG from which an address would move to this one, in whatever VRF, while that move waits.
    pub(super) fn waits_for_move(
        &self,
        dn: &EpgDn,
        prefix: Prefix,
        desired: &DesiredSubnet,
    ) -> Option<(&EpgDn, Holder)> {
        let is_from = |(at, subnet): &&(EpgDn, &Subnet)| {
            let same_vrf = || self.vrf(at) == self.vrf(dn);
            has_source(desired, subnet) && (subnet.ownership == Ownership::Owned || same_vrf())
        };
        let (at, _) = self.waiting.get(&prefix)?.iter().find(is_from)?;
        let holder = if matches!(self.input.moves, Moves::Uncounted) { Holder::Moves } else { Holder::Blocked };
        Some((at, holder))
    }

    /// Those of some addresses that are in question.
    fn those_in_question<'m, T>(&self, all: &'m BTreeMap<Prefix, T>) -> Vec<(&'m Prefix, &'m T)> {
        match &self.in_question {
            None => all.iter().collect(),
            Some(some) => common(some, all),
        }
    }

    /// The addresses in paused EPGs, and those whose deletion is blocked.
    fn with_sources(&self) -> HashSet<IpAddr> {
        let mut addresses = HashSet::new();
        for (dn, _) in self.input.desired.epgs.iter().filter(|(_, it)| it.is_paused()) {
            let subnets = self.input.fabric.epg(dn).into_iter().flat_map(|it| self.those_in_question(&it.subnets));
            addresses.extend(subnets.map(|(prefix, _)| prefix.address));
        }
        addresses.extend(self.input.blocked.iter().filter_map(ObjectDn::prefix).map(|it| it.address));
        addresses
    }

    /// The addresses of one EPG go there if it can be used. Until they do, subnets elsewhere stay for them.
    fn place(&mut self, dn: &'a EpgDn, epg: &'a DesiredEpg) {
        let subnets = self.those_in_question(&epg.subnets);
        if subnets.is_empty() {
            return;
        }
        let (vrf, is_there) = (self.vrf(dn), self.input.fabric.epg(dn).is_some());
        let why_unusable = why_unusable(self.input, dn, epg);
        let waits_for = match why_unusable {
            Some(reason) => Some(Reason::Unusable(dn, reason)),
            None if !is_there => Some(Reason::Moves),
            None => None,
        };
        for (prefix, subnet) in subnets.into_iter().filter(|(_, it)| !it.paused) {
            if !matches!(self.input.moves, Moves::Free) {
                self.homes.entry(*prefix).or_default().push((dn, subnet));
            }
            if why_unusable.is_none() {
                self.targets.insert((vrf, *prefix), Target { dn, is_there });
            }
            if let Some(reason) = waits_for {
                for source in [&subnet.source].into_iter().chain(&subnet.also) {
                    self.claim(*prefix, source, &subnet.workload, reason);
                }
            }
        }
    }

    fn claim(&mut self, prefix: Prefix, source: &'a Source, workload: &'a Workload, reason: Reason<'a>) {
        let retained = Retained { workload: Some(workload), reason };
        self.claims.entry(prefix).or_default().push(Claim { source, retained });
    }

    /// The number of an EPG's VRF.
    pub(super) fn vrf(&self, dn: &EpgDn) -> usize {
        self.vrfs[&dn.l3out]
    }

    /// Where an address goes in the VRF of an EPG.
    pub(super) fn target(&self, dn: &EpgDn, prefix: Prefix) -> Option<Target<'a>> {
        self.targets.get(&(self.vrf(dn), prefix)).copied()
    }

    /// Why an owned subnet stays although it is not desired where it is. One whose address goes to another EPG of the VRF
    /// stays for a pause only, so what stays blocks nothing else.
    pub(super) fn retained(&self, dn: &EpgDn, prefix: Prefix, subnet: &Subnet) -> Option<Retained<'a>> {
        let target = self.target(dn, prefix);
        let goes = || subnet.ownership != Ownership::Owned || target.is_some_and(|it| it.is_there);
        let claims = self.claims.get(&prefix).into_iter().flatten().filter(|it| it.source.is_named(&subnet.name));
        let reasons = claims.map(|it| it.retained).filter(|it| it.reason.is_pause() || !goes());
        let retained = reasons.min_by_key(|it| it.reason).map(|retained| {
            // As soon as its new EPG is there it goes, also if others claim the address.
            let moves = target.is_some() && !retained.reason.is_pause();
            if moves { Retained { reason: Reason::Moves, ..retained } } else { retained }
        });
        if let Some(waits) = self.move_waits(dn, prefix, subnet)
            && retained.is_none_or(|it| it.reason == Reason::Moves)
        {
            return Some(waits);
        }
        if retained.is_some() {
            return retained;
        }
        let is_paused = self.input.desired.epgs.get(dn).is_some_and(DesiredEpg::is_paused);
        let stays = is_paused && !self.belongs_to_another(prefix, &subnet.name);
        stays.then_some(Retained { workload: None, reason: Reason::EpgPaused })
    }

    /// For each address of a VRF that goes to one EPG, the other EPGs that hold it.
    pub(super) fn holders(&self) -> HashMap<(usize, Prefix), Vec<(EpgDn, Holder)>> {
        let mut holders: HashMap<(usize, Prefix), Vec<(EpgDn, Holder)>> = HashMap::new();
        for (dn, epg) in self.input.fabric.epgs() {
            for (prefix, subnet) in self.those_in_question(&epg.subnets) {
                let vrf = self.vrf(&dn);
                if self.target(&dn, *prefix).is_some_and(|it| *it.dn != dn) {
                    let holder = self.holder(&dn, *prefix, subnet);
                    holders.entry((vrf, *prefix)).or_default().push((dn.clone(), holder));
                }
            }
        }
        holders
    }

    /// How a subnet holds an address that is desired in another EPG of the VRF.
    fn holder(&self, dn: &EpgDn, prefix: Prefix, subnet: &Subnet) -> Holder {
        match subnet.ownership {
            Ownership::Owned | Ownership::Legacy => match self.retained(dn, prefix, subnet) {
                Some(it) if it.reason.is_pause() => Holder::Paused,
                Some(Retained { reason: Reason::MoveBlocked(_), .. }) => Holder::Blocked,
                _ => Holder::Moves,
            },
            _ => Holder::Foreign,
        }
    }

    /// P5: whether another Pod or Service has the address of a subnet now. The subnet then leaves also while its EPG is
    /// paused (D2) or its deletion is blocked (W4): that Pod or Service must not get the contracts of that EPG.
    pub(super) fn belongs_to_another(&self, prefix: Prefix, name: &str) -> bool {
        let sources = self.sources.get(&prefix.address).filter(|_| prefix == Prefix::host(prefix.address));
        sources.is_some_and(|it| !it.is_empty() && !it.iter().any(|it| it.is_named(name)))
    }
}

/// The addresses of a map that are among some others.
pub(super) fn common<'m, T>(some: &HashSet<Prefix>, all: &'m BTreeMap<Prefix, T>) -> Vec<(&'m Prefix, &'m T)> {
    if some.len() < all.len() {
        some.iter().filter_map(|it| all.get_key_value(it)).collect()
    } else {
        all.iter().filter(|(prefix, _)| some.contains(prefix)).collect()
    }
}

/// Whether the subnet has the name of a source of a desired one (S4).
fn has_source(desired: &DesiredSubnet, subnet: &Subnet) -> bool {
    [&desired.source].into_iter().chain(&desired.also).any(|it| it.is_named(&subnet.name))
}

/// Equal VRFs have the same number.
fn numbered_vrfs(input: &PlanInput<'_>) -> HashMap<L3outDn, usize> {
    let mut numbers: HashMap<Vrf, usize> = HashMap::new();
    let mut vrfs = HashMap::new();
    for dn in input.fabric.l3outs().chain(input.desired.epgs.keys().map(|it| &it.l3out)) {
        if !vrfs.contains_key(dn) {
            let next = numbers.len();
            vrfs.insert(dn.clone(), *numbers.entry(input.fabric.vrf(dn)).or_insert(next));
        }
    }
    vrfs
}
