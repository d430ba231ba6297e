//! Wanted against fabric gives a plan. The result depends on what is passed in and on nothing else (R6).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::dn::{EepgDn, L3outDn, ObjectDn, Prefix};
use super::fabric::{Eepg, Fabric, L3out, Subnet};
use super::finding::{Code, Finding};
use super::owner::Mark;
use super::plan::{Change, Form, Plan, Transaction};
use super::rules::Rules;
use super::scope::IMPORT_SECURITY;
use super::wanted::{Vrf, Wanted, WantedEepg, WantedSubnet};

/// Everything that a plan depends on.
pub struct Situation<'a> {
    /// What the cluster calls for.
    pub wanted: &'a Wanted,
    /// What the fabric holds.
    pub fabric: &'a Fabric,
    /// What the configuration says.
    pub rules: &'a Rules,
    /// Whether anything may be deleted now (W1, W5).
    pub deletes: bool,
    /// Whether the grace of an unwanted EEPG is over (D6).
    pub grace_over: &'a dyn Fn(&EepgDn) -> bool,
    /// Whether an object is left alone for now because the APIC refused what was sent there (W3, W8); an EEPG with all
    /// that is in it.
    pub parked: &'a dyn Fn(&ObjectDn) -> bool,
    /// Whether an object is left alone for now because somebody fights over it (R5).
    pub resting: &'a dyn Fn(&ObjectDn) -> bool,
    /// What must not be deleted until somebody consents (W4).
    pub held: &'a BTreeSet<ObjectDn>,
    /// The foreign EEPGs that this process itself remembers (O4).
    pub untagged: &'a BTreeMap<EepgDn, Untagged>,
}

/// A foreign EEPG whose tag the fabric does not take (O4).
#[derive(Debug, Clone)]
pub struct Untagged {
    /// Why not.
    pub why: String,
    /// The tag is to be tried once more.
    pub try_again: bool,
}

/// Compares and plans.
///
/// A move is not one step: this plan takes the address away where it is, and the create follows in the plan that is
/// made once the mirror shows it free. So a pass plans and sends until nothing is left (W2).
pub fn plan(situation: &Situation<'_>) -> Plan {
    let mut planner = Planner::new(situation);
    for (dn, wanted) in &situation.wanted.eepgs {
        planner.wanted_eepg(dn, wanted);
    }
    for (dn, eepg) in situation.fabric.eepgs() {
        if !situation.wanted.eepgs.contains_key(&dn) {
            planner.unwanted_eepg(dn, eepg);
        }
    }
    planner.needless_tags();
    planner.finish()
}

/// Why an address that is wanted in one EEPG is not put there: who holds it elsewhere in the VRF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    /// We or a predecessor: a move, which waits until the old subnet is gone.
    Us,
    /// An EEPG whose Deployment is paused (D2).
    Paused,
    /// Somebody else, and it stays there.
    Foreign,
}

/// Why an EEPG that a Deployment names cannot be had (D5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    /// Its L3Out was not read.
    Unread,
    /// There is no such L3Out (R3).
    L3outMissing,
    /// A Deployment that names it is paused (D2).
    Paused,
    /// It is left alone for now (W3, W8, R5).
    LeftAlone,
    /// It is not ours, and foreign ones are refused (W6).
    Refused,
    /// It was not ours, and somebody deleted it (O4).
    ForeignGone,
}

struct Planner<'a> {
    situation: &'a Situation<'a>,
    plan: Plan,
    /// A number for each VRF, so that an address in a VRF is cheap to look up.
    vrfs: HashMap<L3outDn, usize>,
    /// Where each address is wanted.
    targets: HashMap<(usize, Prefix), &'a EepgDn>,
    /// Which EEPGs hold an address that is wanted in another one of the VRF.
    holders: HashMap<(usize, Prefix), Vec<(EepgDn, Holder)>>,
    /// Addresses whose EEPG cannot be had yet: where they are in a subnet of ours, that stays (D3, D5).
    stay: BTreeSet<Prefix>,
    /// Addresses in paused EEPGs that would have to leave them (D2).
    pinned: HashMap<Prefix, EepgDn>,
    /// Addresses that could not be put into an EEPG, by EEPG, holder and where they are held.
    waiting: BTreeMap<(&'a EepgDn, Holder, EepgDn), Vec<Prefix>>,
    /// The Deployments that wait for each missing L3Out.
    missing: BTreeMap<&'a L3outDn, Vec<String>>,
}

impl<'a> Planner<'a> {
    fn new(situation: &'a Situation<'a>) -> Self {
        let (wanted, fabric) = (situation.wanted, situation.fabric);
        let mut numbers: HashMap<Vrf, usize> = HashMap::new();
        let mut vrfs = HashMap::new();
        for dn in fabric.l3outs().chain(wanted.eepgs.keys().map(|it| &it.l3out)) {
            let next = numbers.len();
            let number = *numbers.entry(fabric.vrf(dn)).or_insert(next);
            vrfs.insert(dn.clone(), number);
        }

        let mut targets = HashMap::new();
        let mut stay = wanted.unplaced.clone();
        for (dn, eepg) in &wanted.eepgs {
            let vrf = vrfs[&dn.l3out];
            targets.extend(eepg.subnets.keys().map(|prefix| ((vrf, *prefix), dn)));
            let can_be_had = fabric.eepg(dn).is_some() && obstacle(situation, dn, eepg).is_none();
            if !can_be_had {
                stay.extend(eepg.subnets.keys());
            }
        }

        let mut holders: HashMap<_, Vec<_>> = HashMap::new();
        let mut pinned = HashMap::new();
        for (dn, eepg) in fabric.eepgs() {
            let vrf = vrfs[&dn.l3out];
            let wanted = wanted.eepgs.get(&dn);
            for (prefix, subnet) in &eepg.subnets {
                let belongs = wanted.is_none_or(|it| it.paused_by.is_empty() || it.subnets.contains_key(prefix));
                if !belongs && matches!(subnet.mark, Mark::Ours | Mark::Predecessor) {
                    pinned.insert(*prefix, dn.clone());
                }
                if targets.get(&(vrf, *prefix)).is_some_and(|target| **target != dn) {
                    let ours = matches!(subnet.mark, Mark::Ours | Mark::Predecessor);
                    let holder = if ours { Holder::Us } else { Holder::Foreign };
                    holders.entry((vrf, *prefix)).or_default().push((dn.clone(), holder));
                }
            }
        }
        let (waiting, missing) = (BTreeMap::new(), BTreeMap::new());
        Planner { situation, plan: Plan::default(), vrfs, targets, holders, stay, pinned, waiting, missing }
    }

    fn is_left_alone(&self, object: &ObjectDn) -> bool {
        (self.situation.parked)(object) || (self.situation.resting)(object)
    }

    fn finding(&mut self, code: Code, subject: &EepgDn, text: String) {
        self.plan.findings.push(Finding::new(code, subject, text));
    }

    fn wanted_eepg(&mut self, dn: &'a EepgDn, wanted: &'a WantedEepg) {
        let fabric = self.situation.fabric;
        if let Some(obstacle) = obstacle(self.situation, dn, wanted) {
            return self.not_to_be_had(dn, wanted, obstacle);
        }
        let mut changes = Vec::new();
        let Some(eepg) = fabric.eepg(dn) else {
            changes.push(Change::CreateEepg { deployments: wanted.deployments.clone() });
            for (prefix, subnet) in &wanted.subnets {
                changes.extend(self.create(dn, *prefix, subnet));
            }
            self.send(dn, None, Form::Rooted, changes);
            return;
        };
        // While somebody fights over the EEPG's mark (R5), its subnets are written as in a foreign one.
        let lost = eepg.mark != Mark::Ours && (self.situation.resting)(&ObjectDn::Eepg(dn.clone()));
        let form = if belongs_to_us(eepg) && !lost { Form::Rooted } else { Form::Single };
        if form == Form::Rooted && eepg.mark != Mark::Ours {
            changes.push(Change::MarkEepg { from: eepg.mark });
        }
        if eepg.is_foreign() && !wanted.subnets.is_empty() {
            self.remember(dn);
        }
        if !eepg.other_clusters.is_empty() {
            let ids = eepg.other_clusters.iter().map(|it| &**it).collect::<Vec<_>>().join(", ");
            let text = format!(
                "it holds objects of another aci-sync ({ids}), which are not touched; if that was this cluster's own id \
                 before it was rebuilt, --adopt-id takes them over"
            );
            self.finding(Code::OtherCluster, dn, text);
        }
        let mut without_security = Vec::new();
        for (prefix, subnet) in &wanted.subnets {
            match eepg.subnets.get(prefix) {
                None => changes.extend(self.create(dn, *prefix, subnet)),
                Some(present) if may_repair(present, subnet) => {
                    changes.extend(self.repair(dn, *prefix, present, subnet));
                }
                Some(foreign) if !foreign.scope.has_flag(IMPORT_SECURITY) => without_security.push(*prefix),
                Some(_) => {}
            }
        }
        if !without_security.is_empty() {
            let text = format!(
                "without {IMPORT_SECURITY}, so its traffic is not classified, and not ours to change: {}",
                subnets(&without_security)
            );
            self.finding(Code::ForeignScope, dn, text);
        }
        changes.extend(self.leftovers(dn, eepg, Some(wanted)));
        self.send(dn, Some(eepg), form, changes);
    }

    fn unwanted_eepg(&mut self, dn: EepgDn, eepg: &'a Eepg) {
        let deletes = self.situation.deletes;
        let changes = self.leftovers(&dn, eepg, None);
        let object = ObjectDn::Eepg(dn.clone());
        let is_held = self.situation.held.contains(&object) && eepg.mark == Mark::Ours;
        self.plan.held.extend(is_held.then(|| object.clone()));
        if (self.situation.parked)(&ObjectDn::Eepg(dn.clone())) {
            self.plan.unwanted.extend((eepg.mark == Mark::Ours).then_some(dn));
            return;
        }
        if eepg.mark != Mark::Ours {
            match eepg.mark {
                _ if eepg.was_ours => {
                    self.finding(Code::MarkLost, &dn, "lost our owner mark and is not wanted: it is left alone".into());
                }
                Mark::Predecessor => {
                    let text = "bears a predecessor's mark and no Deployment names it: it is left alone".into();
                    self.finding(Code::Predecessor, &dn, text);
                }
                _ => {}
            }
            self.send(&dn, Some(eepg), Form::Single, changes);
            return;
        }
        // What keeps it: strangers for good, a Deployment of which nobody knows what it names (D3), ours until they can
        // move (D5), a predecessor's until they have moved, in a round of their own.
        let (mut strangers, mut unplaced, mut waits, mut moves) = (eepg.unreadable, false, false, false);
        for (prefix, subnet) in &eepg.subnets {
            let stays = self.stay.contains(prefix);
            let has_target = self.targets.contains_key(&(self.vrfs[&dn.l3out], *prefix));
            match subnet.mark {
                Mark::Ours => {
                    unplaced |= stays && !has_target;
                    waits |= stays;
                }
                Mark::Predecessor if has_target => moves = true,
                _ => strangers += 1,
            }
        }
        if !waits {
            self.plan.unwanted.insert(dn.clone());
        }
        if strangers > 0 {
            let text = format!(
                "no Deployment names it any more, but it holds subnets that are not ours ({strangers}): it stays"
            );
            self.finding(Code::EepgStays, &dn, text);
        } else if self.situation.rules.keep_contracted && eepg.contracts == Some(true) {
            let text =
                "no Deployment names it any more, but it has contracts: it stays, empty (--keep-contracted)".into();
            self.finding(Code::EepgStays, &dn, text);
        } else if deletes && !unplaced && !self.plan.held.iter().any(|it| *it.eepg() == dn) {
            // It is counted (W4) also where it goes later: moves that are over in this very pass let it go.
            self.plan.deletions.insert(object);
            if !waits && !moves && (self.situation.grace_over)(&dn) {
                if self.situation.rules.keep_contracted && eepg.contracts.is_none() {
                    self.plan.reads.insert(dn.clone());
                }
                let subnets = eepg.subnets.len();
                self.send(&dn, Some(eepg), Form::Rooted, vec![Change::DeleteEepg { subnets }]);
                return;
            }
        }
        self.send(&dn, Some(eepg), Form::Rooted, changes);
    }

    /// A subnet that is not there. Nothing where the address is still held elsewhere in the VRF (W2, S3).
    fn create(&mut self, dn: &'a EepgDn, prefix: Prefix, wanted: &WantedSubnet) -> Option<Change> {
        let vrf = self.vrfs[&dn.l3out];
        if let Some(at) = self.pinned.get(&prefix) {
            self.waiting.entry((dn, Holder::Paused, at.clone())).or_default().push(prefix);
            return None;
        }
        if let Some((at, holder)) = self.holders.get(&(vrf, prefix)).and_then(|it| it.iter().max_by_key(|it| it.1)) {
            self.waiting.entry((dn, *holder, at.clone())).or_default().push(prefix);
            return None;
        }
        if self.is_left_alone(&ObjectDn::Subnet(dn.clone(), prefix)) {
            return None;
        }
        let scope = self.situation.rules.scope.clone();
        Some(Change::CreateSubnet { prefix, name: wanted.name(), scope, source: wanted.source.clone() })
    }

    /// R2: the name, the required scope flags and the mark are put back; everything else stays as it is.
    fn repair(&self, dn: &EepgDn, prefix: Prefix, present: &Subnet, wanted: &WantedSubnet) -> Option<Change> {
        let required = &self.situation.rules.scope;
        let mark = present.mark != Mark::Ours;
        let name = (!wanted.is_named(&present.name)).then(|| wanted.name());
        let scope = (!present.scope.has(required)).then(|| present.scope.and(required));
        let drifted = mark || name.is_some() || scope.is_some();
        if !drifted || self.is_left_alone(&ObjectDn::Subnet(dn.clone(), prefix)) {
            return None;
        }
        Some(Change::RepairSubnet { prefix, before: present.clone(), mark, name, scope })
    }

    /// An EEPG that cannot be had: nothing is written there, and its addresses stay where they are (D5).
    fn not_to_be_had(&mut self, dn: &'a EepgDn, wanted: &'a WantedEepg, obstacle: Obstacle) {
        match obstacle {
            // The finding about that is the engine's: it knows why.
            Obstacle::Unread | Obstacle::LeftAlone => {}
            Obstacle::L3outMissing => {
                let waiting = wanted.deployments.iter().map(ToString::to_string);
                self.missing.entry(&dn.l3out).or_default().extend(waiting);
            }
            Obstacle::Paused => {
                let by = wanted.paused_by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let text = format!("nothing is written there while it is paused (by the Deployment {by})");
                self.finding(Code::Paused, dn, text);
                let stays = self.pinned.iter().filter(|(_, at)| *at == dn).map(|(prefix, _)| *prefix);
                let mut stays: Vec<Prefix> = stays.collect();
                stays.sort();
                if !stays.is_empty() {
                    let text = format!("stays there because of the pause, although not wanted: {}", subnets(&stays));
                    self.finding(Code::Paused, dn, text);
                }
            }
            Obstacle::Refused => {
                let text = "is not ours, and --foreign-epg is refuse: nothing is put there".to_owned();
                self.finding(Code::ForeignRefused, dn, text);
                if let Some(eepg) = self.situation.fabric.eepg(dn) {
                    let changes = self.leftovers(dn, eepg, Some(wanted));
                    self.send(dn, Some(eepg), Form::Single, changes);
                }
            }
            Obstacle::ForeignGone => {
                let tag = self.situation.fabric.tag(dn);
                let mend = tag.map_or_else(|| "start aci-sync anew".to_owned(), |tag| format!("delete {tag}"));
                let text = format!(
                    "was not ours and has been deleted: it is waited for, not made anew; if aci-sync shall make it, {mend}"
                );
                self.finding(Code::ForeignGone, dn, text);
            }
        }
    }

    /// O4: before the first subnet goes into a foreign EEPG, a tag remembers that it is foreign. One that carries any
    /// aci-sync's mark is never remembered so: it may be ours from before.
    fn remember(&mut self, dn: &EepgDn) {
        if self.situation.fabric.is_tagged(dn) {
            return;
        }
        if (self.situation.resting)(&ObjectDn::Tag(dn.clone())) {
            self.plan.unremembered.insert(dn.clone());
            return;
        }
        match self.situation.untagged.get(dn) {
            Some(Untagged { why, try_again: false }) => {
                let text = format!(
                    "is not ours, and the tag that remembers that cannot be written ({why}): it is used all the same, \
                     but if somebody deletes it, aci-sync makes it as its own after a restart"
                );
                self.finding(Code::Unremembered, dn, text);
            }
            _ => self.send(dn, None, Form::Tag, vec![Change::Remember]),
        }
    }

    /// O4: tags about EEPGs that no Deployment names any more, or that are not foreign any more, go.
    fn needless_tags(&mut self) {
        let situation = self.situation;
        for (dn, tag) in situation.fabric.tags() {
            let wanted = situation.wanted.eepgs.get(&dn);
            let is_foreign = situation.fabric.eepg(&dn).is_none_or(Eepg::is_foreign);
            // A Deployment whose enrolment is not known may name it (D3).
            let needed = match wanted {
                Some(it) => is_foreign || !it.paused_by.is_empty(),
                None => situation.wanted.is_one_unknown,
            };
            let object = ObjectDn::Tag(dn.clone());
            if needed || (situation.parked)(&object) {
                continue;
            }
            if situation.held.contains(&object) {
                self.plan.held.insert(object);
            } else if situation.deletes {
                self.plan.deletions.insert(object);
                self.send(&dn, None, Form::Tag, vec![Change::Forget { tag: tag.into() }]);
            }
        }
    }

    /// Subnets in an EEPG that are not wanted there: ours go, a predecessor's go with a move, all others stay (O2, O3).
    fn leftovers(&mut self, dn: &EepgDn, eepg: &Eepg, wanted: Option<&WantedEepg>) -> Vec<Change> {
        let vrf = self.vrfs[&dn.l3out];
        let mut changes = Vec::new();
        let (mut predecessors, mut lost) = (Vec::new(), Vec::new());
        for (prefix, subnet) in &eepg.subnets {
            if wanted.is_some_and(|it| it.subnets.contains_key(prefix)) {
                continue;
            }
            let moves_to = self.targets.get(&(vrf, *prefix)).map(|it| (*it).clone());
            let goes = match subnet.mark {
                Mark::Ours => true,
                Mark::Predecessor if moves_to.is_some() => true,
                Mark::Predecessor => {
                    predecessors.push(*prefix);
                    false
                }
                Mark::None | Mark::OtherCluster | Mark::Foreign => {
                    if subnet.was_ours {
                        lost.push(*prefix);
                    }
                    false
                }
            };
            if !goes || self.stay.contains(prefix) {
                continue;
            }
            let object = ObjectDn::Subnet(dn.clone(), *prefix);
            if moves_to.is_none() && self.situation.held.contains(&object) {
                self.plan.held.insert(object);
            } else if self.situation.deletes && !(self.situation.parked)(&object) {
                if moves_to.is_none() {
                    self.plan.deletions.insert(object);
                }
                changes.push(Change::DeleteSubnet { prefix: *prefix, before: subnet.clone(), moves_to });
            }
        }
        if !predecessors.is_empty() {
            let text = format!("not wanted, with a predecessor's mark, and left alone: {}", subnets(&predecessors));
            self.finding(Code::Predecessor, dn, text);
        }
        if !lost.is_empty() {
            let text = format!("not wanted, without the owner mark it had, and left alone: {}", subnets(&lost));
            self.finding(Code::MarkLost, dn, text);
        }
        changes
    }

    /// Puts changes into transactions, or asks for the read that has to come first (W7).
    fn send(&mut self, dn: &EepgDn, eepg: Option<&Eepg>, form: Form, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        if form != Form::Tag && eepg.is_some_and(|it| !it.fresh) {
            self.plan.reads.insert(dn.clone());
        }
        let at_once = if form == Form::Rooted { self.situation.rules.batch.max(1) } else { 1 };
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let changes = changes.by_ref().take(at_once).collect();
            self.plan.transactions.push(Transaction { eepg: dn.clone(), form, changes });
        }
    }

    fn finish(mut self) -> Plan {
        for ((dn, holder, at), prefixes) in &self.waiting {
            let prefixes = subnets(prefixes);
            let (code, text) = match holder {
                Holder::Us if self.situation.deletes => {
                    (Code::Waiting, format!("waiting for {at} to let go: {prefixes}"))
                }
                Holder::Us => (Code::Waiting, format!("waiting until something may be deleted from {at}: {prefixes}")),
                Holder::Paused => (Code::Waiting, format!("waiting for {at}, which is paused, to let go: {prefixes}")),
                Holder::Foreign => (
                    Code::HeldByForeign,
                    format!("not created, because {at} of the same VRF has it and it is not ours: {prefixes}"),
                ),
            };
            self.plan.findings.push(Finding::new(code, *dn, text));
        }
        for (dn, deployments) in &self.missing {
            let text = format!("there is no such L3Out; it is waited for by {}", deployments.join(", "));
            self.plan.findings.push(Finding::new(Code::L3outMissing, *dn, text));
        }
        self.plan.findings.sort();
        self.plan
    }
}

/// An EEPG that is ours, was ours until somebody changed its mark (R2), or becomes ours (O3).
fn belongs_to_us(eepg: &Eepg) -> bool {
    eepg.is_ours() || eepg.mark == Mark::Predecessor
}

/// D5: why an EEPG cannot be had, apart from not having been made yet.
fn obstacle(situation: &Situation<'_>, dn: &EepgDn, wanted: &WantedEepg) -> Option<Obstacle> {
    let fabric = situation.fabric;
    match fabric.l3out(&dn.l3out) {
        None => return Some(Obstacle::Unread),
        Some(L3out::Missing) => return Some(Obstacle::L3outMissing),
        Some(L3out::Present { .. }) => {}
    }
    let object = ObjectDn::Eepg(dn.clone());
    match fabric.eepg(dn) {
        _ if !wanted.paused_by.is_empty() => Some(Obstacle::Paused),
        Some(eepg) if !belongs_to_us(eepg) && !situation.rules.use_foreign => Some(Obstacle::Refused),
        None if fabric.is_tagged(dn) || situation.untagged.contains_key(dn) => Some(Obstacle::ForeignGone),
        eepg => {
            let is_left_alone = (situation.parked)(&object) || (eepg.is_none() && (situation.resting)(&object));
            is_left_alone.then_some(Obstacle::LeftAlone)
        }
    }
}

/// R2, O3: ours, a predecessor's that is wanted where it is, or one without a mark that bears our name for it.
fn may_repair(present: &Subnet, wanted: &WantedSubnet) -> bool {
    match present.mark {
        Mark::Ours | Mark::Predecessor => true,
        Mark::None => present.was_ours || wanted.is_named(&present.name),
        Mark::OtherCluster | Mark::Foreign => present.was_ours,
    }
}

/// A few prefixes in words.
fn subnets(prefixes: &[Prefix]) -> String {
    match prefixes {
        [one] => format!("subnet {one}"),
        [first, ..] => format!("{} subnets ({first} and others)", prefixes.len()),
        [] => "no subnets".to_owned(),
    }
}
