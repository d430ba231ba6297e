//! DesiredState against fabric gives a plan. The result depends on what is passed in and on nothing else (R6).

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::cause::Cause;
use super::desired::{DesiredEpg, DesiredSubnet};
use super::dn::{EpgDn, L3outDn, ObjectDn, Prefix};
use super::explain::explain;
use super::finding::{Code, Few, Finding, counted};
use super::kubernetes::Workload;
use super::observed::{Epg, Subnet};
use super::owner::Ownership;
use super::placement::{BlockReason, Placement, Reason, Retained, block_reason};
use super::plan::{Change, Plan, RequestShape, Transaction};
use super::plan_input::{PlanInput, TagFailure};
use super::scope::IMPORT_SECURITY;

/// Compares and plans.
///
/// A move is not one step: this plan takes the address away where it is, and the create follows in the plan that is
/// made once the cache shows it free. So a reconcile plans and sends until nothing is left (W2).
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let mut planner = Planner::new(input);
    for (dn, desired) in &input.desired.epgs {
        planner.plan_desired(dn, desired);
    }
    for (dn, epg) in input.fabric.epgs() {
        if !input.desired.epgs.contains_key(&dn) {
            planner.plan_unwanted(dn, epg);
        }
    }
    planner.needless_tags();
    planner.finish()
}

/// Why an address that is desired in one EPG is not put there: who holds it elsewhere in the VRF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    /// We or a predecessor: a move, which waits until the old subnet is gone.
    Us,
    /// A Deployment that is paused (D2).
    Paused,
    /// Somebody else, and it stays there.
    Foreign,
}

struct Planner<'a> {
    input: &'a PlanInput<'a>,
    plan: Plan,
    placement: Placement<'a>,
    /// Which EPGs hold an address that is desired in another one of the VRF.
    holders: HashMap<(usize, Prefix), Vec<(EpgDn, Holder)>>,
    /// Subnets that stay although nothing wants them where they are, by EPG.
    retained: BTreeMap<(EpgDn, Retained<'a>), Vec<Prefix>>,
    /// Addresses that could not be put into an EPG, by EPG, holder and where they are held.
    waiting: BTreeMap<(&'a EpgDn, Holder, EpgDn), Vec<Prefix>>,
    /// The Deployments that wait for each missing L3Out.
    missing: BTreeMap<&'a L3outDn, Vec<&'a Workload>>,
}

impl<'a> Planner<'a> {
    fn new(input: &'a PlanInput<'a>) -> Self {
        let placement = Placement::new(input);
        let mut holders: HashMap<_, Vec<_>> = HashMap::new();
        for (dn, epg) in input.fabric.epgs() {
            let vrf = placement.vrf(&dn);
            for (prefix, subnet) in &epg.subnets {
                if placement.target(&dn, *prefix).is_some_and(|it| *it.dn != dn) {
                    let is_paused = || placement.retained(&dn, *prefix, subnet).is_some_and(|it| it.reason.is_pause());
                    let holder = match subnet.ownership {
                        Ownership::Owned | Ownership::Legacy if is_paused() => Holder::Paused,
                        Ownership::Owned | Ownership::Legacy => Holder::Us,
                        _ => Holder::Foreign,
                    };
                    holders.entry((vrf, *prefix)).or_default().push((dn.clone(), holder));
                }
            }
        }
        let (plan, retained) = (Plan::default(), BTreeMap::new());
        let (waiting, missing) = (BTreeMap::new(), BTreeMap::new());
        Planner { input, plan, placement, holders, retained, waiting, missing }
    }

    fn is_left_alone(&self, object: &ObjectDn) -> bool {
        (self.input.deferred)(object) || (self.input.throttled)(object)
    }

    fn finding(&mut self, code: Code, subject: &EpgDn, text: String) {
        self.plan.findings.push(Finding::new(code, subject, text));
    }

    fn plan_desired(&mut self, dn: &'a EpgDn, desired: &'a DesiredEpg) {
        let fabric = self.input.fabric;
        if let Some(block_reason) = block_reason(self.input, dn, desired) {
            return self.plan_blocked(dn, desired, block_reason);
        }
        let mut changes = Vec::new();
        let Some(epg) = fabric.epg(dn) else {
            let why = self.created(&ObjectDn::Epg(dn.clone()));
            changes.push(Change::CreateEpg { workloads: desired.workloads.clone(), why });
            for (prefix, subnet) in &desired.subnets {
                changes.extend(self.create(dn, *prefix, subnet));
            }
            self.send(dn, None, RequestShape::EpgTree, changes);
            return;
        };
        // While somebody fights over the EPG's mark (R5), its subnets are written as in a foreign one.
        let lost = epg.ownership != Ownership::Owned && (self.input.throttled)(&ObjectDn::Epg(dn.clone()));
        let shape = if epg.belongs_to_us() && !lost { RequestShape::EpgTree } else { RequestShape::OneSubnet };
        if shape == RequestShape::EpgTree && epg.ownership != Ownership::Owned {
            let why = if epg.was_ours { Cause::MarkChanged } else { Cause::TakenOver };
            changes.push(Change::SetEpgOwner { from: epg.ownership, why });
        }
        if epg.is_foreign() && !desired.subnets.is_empty() {
            self.remember(dn);
        }
        if !epg.other_clusters.is_empty() {
            let ids = Few::of(&epg.other_clusters);
            let text = format!(
                "EPG holds objects of another cluster's aci-sync ({ids}); leaving them alone. If that is this cluster's \
                 former id, --adopt-id takes them over"
            );
            self.finding(Code::OtherClusterObjects, dn, text);
        }
        self.contracts_lost(dn, epg);
        let mut without_security = Vec::new();
        for (prefix, subnet) in &desired.subnets {
            match epg.subnets.get(prefix) {
                None => changes.extend(self.create(dn, *prefix, subnet)),
                Some(_) if subnet.paused => {}
                Some(present) if may_repair(present, subnet) => {
                    changes.extend(self.repair(dn, *prefix, present, subnet));
                }
                Some(foreign) if !foreign.scope.has_flag(IMPORT_SECURITY) => without_security.push(*prefix),
                Some(_) => {}
            }
        }
        if !without_security.is_empty() {
            let text = format!(
                "traffic is not classified until {IMPORT_SECURITY} is added to foreign subnets: {}",
                Few::of(without_security)
            );
            self.finding(Code::ForeignScope, dn, text);
        }
        changes.extend(self.plan_surplus(dn, epg, Some(desired)));
        self.send(dn, Some(epg), shape, changes);
    }

    fn plan_unwanted(&mut self, dn: EpgDn, epg: &'a Epg) {
        let deletes = self.input.deletes;
        let changes = self.plan_surplus(&dn, epg, None);
        let object = ObjectDn::Epg(dn.clone());
        let is_blocked = self.input.blocked.contains(&object) && epg.ownership == Ownership::Owned;
        self.plan.blocked.extend(is_blocked.then(|| object.clone()));
        if (self.input.deferred)(&ObjectDn::Epg(dn.clone())) {
            self.plan.unwanted.extend((epg.ownership == Ownership::Owned).then_some(dn));
            return;
        }
        if epg.ownership != Ownership::Owned {
            match epg.ownership {
                _ if epg.was_ours => {
                    self.finding(
                        Code::OwnerMarkLost,
                        &dn,
                        "owner annotation was removed and the EPG is not desired; leaving it alone".into(),
                    );
                }
                Ownership::Legacy => {
                    let text = "legacy EPG that no Deployment names; leaving it alone".into();
                    self.finding(Code::LegacyObject, &dn, text);
                }
                _ => {}
            }
            self.send(&dn, Some(epg), RequestShape::OneSubnet, changes);
            return;
        }
        // What keeps it: strangers for good, subnets of a Deployment's own until they have a place (D5), those that move
        // until their EPG is made, and a predecessor's until they have moved, in a round of their own.
        let (mut foreign, mut stays, mut waits, mut moves) = (epg.unreadable, false, false, false);
        for (prefix, subnet) in &epg.subnets {
            match (subnet.ownership, self.placement.retained(&dn, *prefix, subnet)) {
                (Ownership::Owned, Some(stay)) => (stays, waits) = (stays || stay.reason != Reason::Moves, true),
                (Ownership::Owned, None) => {}
                (Ownership::Legacy, _) if self.placement.target(&dn, *prefix).is_some() => moves = true,
                _ => foreign += 1,
            }
        }
        if !waits {
            self.plan.unwanted.insert(dn.clone());
        }
        if foreign > 0 {
            let text = format!("no longer desired; keeping it while it holds {}", counted(foreign, "foreign subnet"));
            self.finding(Code::EpgRetained, &dn, text);
        } else if self.input.rules.keep_contracted && !epg.relations.is_empty() {
            let text = "no longer desired; keeping it empty while it has contract relations (--keep-contracted)".into();
            self.finding(Code::EpgRetained, &dn, text);
        } else if !stays && !self.holds_back(&dn) {
            if !waits {
                self.in_grace(&dn, epg);
            }
            if !deletes {
                self.plan.kept.insert(object);
                return self.send(&dn, Some(epg), RequestShape::EpgTree, changes);
            }
            // It is counted (W4) also where it goes later: moves that are over in this very reconcile let it go.
            self.plan.deletions.insert(object);
            if !waits && !moves && (epg.is_unused() || (self.input.grace_over)(&dn)) {
                let (subnets, why) = (epg.subnets.len(), Cause::Unnamed);
                self.send(&dn, Some(epg), RequestShape::EpgTree, vec![Change::DeleteEpg { subnets, why }]);
                return;
            }
        }
        self.send(&dn, Some(epg), RequestShape::EpgTree, changes);
    }

    /// Whether the EPG, or a subnet in it, must not be deleted yet (W4).
    fn holds_back(&self, dn: &EpgDn) -> bool {
        let first = ObjectDn::Subnet(dn.clone(), Prefix { address: Ipv4Addr::UNSPECIFIED.into(), length: 0 });
        let held = &self.plan.blocked;
        held.contains(&ObjectDn::Epg(dn.clone())) || held.range(first..).next().is_some_and(|it| it.epg() == dn)
    }

    /// D6: a running grace is visible. The text is the same in each reconcile, so it names the length and not what is left.
    fn in_grace(&mut self, dn: &EpgDn, epg: &Epg) {
        let ends_later = !epg.is_unused() && !(self.input.grace_over)(dn);
        let Some(length) = self.input.grace.filter(|_| ends_later) else { return };
        let relations = match epg.relations.len() {
            0 => String::new(),
            some => format!(", with {}", counted(some, "contract relation")),
        };
        let text = format!("no longer desired; deleting it after a grace of {} s{relations}", length.as_secs());
        self.finding(Code::EpgInGrace, dn, text);
    }

    /// A subnet that is not there. Nothing where the address is still held elsewhere in the VRF (W2, S3).
    fn create(&mut self, dn: &'a EpgDn, prefix: Prefix, desired: &DesiredSubnet) -> Option<Change> {
        let vrf = self.placement.vrf(dn);
        if desired.paused {
            return None;
        }
        if let Some((at, holder)) = self.holders.get(&(vrf, prefix)).and_then(|it| it.iter().max_by_key(|it| it.1)) {
            self.waiting.entry((dn, *holder, at.clone())).or_default().push(prefix);
            return None;
        }
        if self.is_left_alone(&ObjectDn::Subnet(dn.clone(), prefix)) {
            return None;
        }
        let (scope, source) = (self.input.rules.scope.clone(), desired.source.clone());
        let why = self.created(&ObjectDn::Subnet(dn.clone(), prefix));
        Some(Change::CreateSubnet { prefix, name: source.subnet_name(), scope, source, why })
    }

    /// R8: a first creation and a restoration are told apart by what this process saw.
    fn created(&self, object: &ObjectDn) -> Cause {
        if self.input.fabric.lost().has(object) { Cause::Deleted } else { Cause::Desired }
    }

    /// R7: an EPG of ours that came back has lost its contract relations, until it has one again.
    fn contracts_lost(&mut self, dn: &EpgDn, epg: &Epg) {
        let lost = self.input.fabric.lost().relations(dn).filter(|_| epg.is_ours() && epg.relations.is_empty());
        if let Some(lost) = lost {
            let text = format!(
                "another writer deleted the EPG; restored without its contract relations: {}; add those that are still \
                 needed",
                Few::of(lost)
            );
            self.finding(Code::ContractsLost, dn, text);
        }
    }

    /// R2: the name, the required scope flags and the mark are put back; everything else stays as it is.
    fn repair(&self, dn: &EpgDn, prefix: Prefix, present: &Subnet, desired: &DesiredSubnet) -> Option<Change> {
        let required = &self.input.rules.scope;
        let set_owner = present.ownership != Ownership::Owned;
        let name = (!desired.source.is_named(&present.name)).then(|| desired.source.subnet_name());
        let scope = (!present.scope.has(required)).then(|| present.scope.and(required));
        let drifted = set_owner || name.is_some() || scope.is_some();
        if !drifted || self.is_left_alone(&ObjectDn::Subnet(dn.clone(), prefix)) {
            return None;
        }
        // R8: what this process saw another writer change is drift. What it found so may have been changed while it did
        // not run, or be due to a former source or setting: what is said then holds for all of these.
        let mut why = Vec::new();
        why.extend(set_owner.then_some(match present.ownership {
            _ if present.was_ours => Cause::MarkChanged,
            Ownership::Legacy => Cause::TakenOver,
            _ => Cause::OurName,
        }));
        let seen = present.before_drift.as_ref();
        why.extend(name.is_some().then(|| match seen.filter(|it| it.name != present.name) {
            Some(_) => Cause::NameChanged,
            None => Cause::Source(desired.source.clone()),
        }));
        why.extend(scope.is_some().then(|| match seen.filter(|it| it.scope.has(required)) {
            Some(_) => Cause::ScopeChanged,
            None => Cause::ScopeSetting,
        }));
        Some(Change::RepairSubnet { prefix, before: present.clone(), set_owner, name, scope, why })
    }

    /// An EPG that cannot be had: nothing is written there, and its addresses stay where they are (D5).
    fn plan_blocked(&mut self, dn: &'a EpgDn, desired: &'a DesiredEpg, block_reason: BlockReason) {
        match block_reason {
            // The finding about that is the reconciler's: it knows why.
            BlockReason::Unread | BlockReason::LeftAlone => {}
            BlockReason::L3OutNotFound => {
                self.missing.entry(&dn.l3out).or_default().extend(&desired.workloads);
            }
            BlockReason::Paused => {
                if let Some(epg) = self.input.fabric.epg(dn) {
                    // Nothing but the addresses of other Pods and Services leaves.
                    let mut changes = self.plan_surplus(dn, epg, Some(desired));
                    changes.retain(Change::is_delete);
                    let shape =
                        if epg.ownership == Ownership::Owned { RequestShape::EpgTree } else { RequestShape::OneSubnet };
                    self.send(dn, Some(epg), shape, changes);
                }
            }
            BlockReason::Refused | BlockReason::BeyondQuota => {
                if block_reason == BlockReason::Refused {
                    let text = "foreign EPG, and --foreign-epg is refuse; nothing is written to it".to_owned();
                    self.finding(Code::ForeignEpgRefused, dn, text);
                } else {
                    self.too_many_epgs(dn, desired);
                }
                if let Some(epg) = self.input.fabric.epg(dn) {
                    let changes = self.plan_surplus(dn, epg, Some(desired));
                    self.send(dn, Some(epg), RequestShape::OneSubnet, changes);
                }
            }
            BlockReason::ForeignEpgDeleted => {
                let tag = self.input.fabric.tag(dn);
                let consent = tag.map_or_else(|| "restart aci-sync".to_owned(), |tag| format!("delete the tag {tag}"));
                let text =
                    format!("foreign EPG was deleted; not recreating it. To let aci-sync create and own it, {consent}");
                self.finding(Code::ForeignEpgDeleted, dn, text);
            }
        }
    }

    /// W6: the log names the namespaces and Deployments; an Event says nothing of other namespaces.
    fn too_many_epgs(&mut self, dn: &EpgDn, desired: &DesiredEpg) {
        let most = self.input.rules.max_epgs.unwrap_or_default();
        let namespaces: Vec<&Arc<str>> = desired.namespaces().collect();
        let who = if namespaces.len() == 1 { "namespace" } else { "namespaces" };
        let limit = format!("reached --max-epgs ({most}), counting EPGs in their grace");
        let text = format!(
            "nothing is written to the EPG: {who} {} {limit} ({})",
            Few::of(namespaces),
            Few::of(&desired.workloads)
        );
        let note = format!("nothing is written to the EPG: the namespace {limit}");
        self.plan.findings.push(Finding::new(Code::TooManyEpgs, dn, text).with_note(note));
    }

    /// O4: before the first subnet goes into a foreign EPG, a tag remembers that it is foreign. One that carries any
    /// aci-sync's mark is never remembered so: it may be ours from before.
    fn remember(&mut self, dn: &EpgDn) {
        if self.input.fabric.is_tagged(dn) {
            return;
        }
        if (self.input.throttled)(&ObjectDn::Tag(dn.clone())) {
            self.plan.untagged.insert(dn.clone());
            return;
        }
        match self.input.tag_failures.get(dn) {
            Some(TagFailure { why, try_again: false }) => {
                let text = format!(
                    "failed to write the tag that marks the EPG as foreign: {why}; using the EPG, but if it is \
                     deleted, aci-sync creates it as its own after a restart"
                );
                self.finding(Code::TagWriteFailed, dn, text);
            }
            _ => self.send(dn, None, RequestShape::Tag, vec![Change::Remember]),
        }
    }

    /// O4: tags about EPGs that no Deployment names any more, or that are not foreign any more, go.
    fn needless_tags(&mut self) {
        let input = self.input;
        for (dn, tag) in input.fabric.tags() {
            let desired = input.desired.epgs.get(&dn);
            let is_foreign = input.fabric.epg(&dn).is_none_or(Epg::is_foreign);
            let needed = match desired {
                Some(it) => is_foreign || it.is_paused(),
                // A Deployment of which no valid annotation is known may name it, or come back to it, if subnets of its
                // own are there (D3, D5). What holds none is no concern of a Deployment that names it no more.
                None => input.fabric.epg(&dn).is_some_and(|it| self.retains_any(&dn, it)),
            };
            let object = ObjectDn::Tag(dn.clone());
            if needed || (input.deferred)(&object) {
                continue;
            }
            if input.blocked.contains(&object) {
                self.plan.blocked.insert(object);
            } else if !input.deletes {
                self.plan.kept.insert(object);
            } else {
                self.plan.deletions.insert(object);
                self.send(&dn, None, RequestShape::Tag, vec![Change::Forget { tag: tag.into() }]);
            }
        }
    }

    fn retains_any(&self, dn: &EpgDn, epg: &Epg) -> bool {
        epg.subnets
            .iter()
            .any(|(prefix, it)| it.ownership == Ownership::Owned && self.placement.retained(dn, *prefix, it).is_some())
    }

    /// Subnets in an EPG that are not desired there: ours go, a predecessor's go with a move, all others stay (O2, O3).
    fn plan_surplus(&mut self, dn: &EpgDn, epg: &Epg, desired: Option<&DesiredEpg>) -> Vec<Change> {
        let mut changes = Vec::new();
        let (mut legacy, mut lost) = (Vec::new(), Vec::new());
        for (prefix, subnet) in &epg.subnets {
            if desired.is_some_and(|it| it.subnets.contains_key(prefix)) {
                continue;
            }
            let target = self.placement.target(dn, *prefix);
            let goes = match subnet.ownership {
                Ownership::Owned => true,
                Ownership::Legacy if target.is_some() => target.is_some_and(|it| it.is_there),
                Ownership::Legacy => {
                    legacy.push(*prefix);
                    false
                }
                Ownership::Unmarked | Ownership::OtherCluster | Ownership::Foreign => {
                    if subnet.was_ours {
                        lost.push(*prefix);
                    }
                    false
                }
            };
            if !goes {
                continue;
            }
            if let Some(stay) = self.placement.retained(dn, *prefix, subnet) {
                self.retained.entry((dn.clone(), stay)).or_default().push(*prefix);
                continue;
            }
            let moves_to = target.map(|it| it.dn.clone());
            let object = ObjectDn::Subnet(dn.clone(), *prefix);
            let is_blocked = moves_to.is_none() && self.input.blocked.contains(&object);
            if is_blocked && !self.placement.belongs_to_another(*prefix, &subnet.name) {
                self.plan.blocked.insert(object);
            } else if (self.input.deferred)(&object) {
                continue;
            } else if !self.input.deletes {
                self.plan.kept.insert(object);
            } else {
                if moves_to.is_none() {
                    self.plan.deletions.insert(object);
                }
                let (before, why) = (subnet.clone(), Cause::Undesired);
                changes.push(Change::DeleteSubnet { prefix: *prefix, before, moves_to, why });
            }
        }
        if !legacy.is_empty() {
            let text = format!("legacy subnets that are not desired; leaving them alone: {}", Few::of(legacy));
            self.finding(Code::LegacyObject, dn, text);
        }
        if !lost.is_empty() {
            let text = format!("owner annotation was removed and not desired; leaving alone: {}", Few::of(lost));
            self.finding(Code::OwnerMarkLost, dn, text);
        }
        changes
    }

    /// Puts changes into transactions, or asks for the read that has to come first (W7).
    fn send(&mut self, dn: &EpgDn, epg: Option<&Epg>, shape: RequestShape, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        if shape != RequestShape::Tag && epg.is_some_and(|it| !it.fresh) {
            self.plan.reads.insert(dn.clone());
        }
        let at_once = if shape == RequestShape::EpgTree { self.input.rules.batch.max(1) } else { 1 };
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let changes = changes.by_ref().take(at_once).collect();
            self.plan.transactions.push(Transaction { epg: dn.clone(), shape, changes });
        }
    }

    fn finish(mut self) -> Plan {
        for ((dn, holder, at), prefixes) in &self.waiting {
            let prefixes = Few::of(prefixes);
            let (code, text, note) = match holder {
                Holder::Us if self.input.deletes => (
                    Code::MovePending,
                    format!("waiting for removal from {at}: {prefixes}"),
                    "waiting for removal from another EPG",
                ),
                Holder::Us => (
                    Code::MovePending,
                    format!("waiting until deletions from {at} are possible: {prefixes}"),
                    "waiting until deletions from another EPG are possible",
                ),
                Holder::Paused => (
                    Code::MovePending,
                    format!("waiting for the pause in {at} to end: {prefixes}"),
                    "waiting for the pause of another Deployment to end",
                ),
                Holder::Foreign => (
                    Code::ForeignSubnet,
                    format!("not created: foreign subnet in {at} has the same prefix in this VRF: {prefixes}"),
                    "not created: foreign subnet in another EPG has the same prefix in this VRF",
                ),
            };
            let note = format!("{note}: {prefixes}");
            self.plan.findings.push(Finding::new(code, *dn, text).with_note(note));
        }
        for ((dn, Retained { workload, reason }), prefixes) in &self.retained {
            let finding = match workload {
                _ if *reason == Reason::Moves => continue,
                Some(workload) => {
                    let text = format!("keeping {} in {dn}: {reason}", Few::of(prefixes));
                    Finding::new(Code::SubnetRetained, *workload, text)
                }
                None => Finding::new(Code::SubnetRetained, dn, format!("keeping {}: {reason}", Few::of(prefixes))),
            };
            self.plan.findings.push(finding);
        }
        for (dn, workloads) in &self.missing {
            let note = "L3Out not found; waiting for it to be created";
            let text = format!("{note} ({})", Few::of(workloads));
            self.plan.findings.push(Finding::new(Code::L3OutNotFound, *dn, text).with_note(note));
        }
        self.plan.findings.sort();
        explain(&mut self.plan, self.input);
        self.plan
    }
}

/// R2, O3: ours, a predecessor's that is desired where it is, or one without a mark that bears our name for it.
fn may_repair(present: &Subnet, desired: &DesiredSubnet) -> bool {
    match present.ownership {
        Ownership::Owned | Ownership::Legacy => true,
        Ownership::Unmarked => present.was_ours || desired.source.is_named(&present.name),
        Ownership::OtherCluster | Ownership::Foreign => present.was_ours,
    }
}
