//! Makes the plan: desired state against what the fabric holds. The result depends on the input and on nothing else (R6).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use super::cause::Cause;
use super::deletion_causes::find_causes;
use super::desired::{DesiredEpg, DesiredSubnet};
use super::dn::{EpgDn, ObjectDn, Prefix};
use super::observed::{Epg, Subnet};
use super::owner::Ownership;
use super::placement::{Placement, common};
use super::plan::{Change, Plan, RequestShape, Transaction};
use super::plan_findings::{Holder, PlanFindings};
use super::plan_input::{Moves, PlanInput, TagFailure};
use super::retained::{Reason, Unusable, why_unusable};
use super::scope::IMPORT_SECURITY;

/// Compares and plans.
///
/// A move is not one step: this plan deletes the address where it is, and the create follows in the plan that is made
/// once the cache shows the address free. So a reconcile plans and sends until nothing is left (W2).
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let epgs = epgs_to_plan(input);
    let mut planner = Planner::new(input, &epgs);
    for (dn, desired, present) in &epgs {
        planner.plan_epg(dn, *desired, *present);
    }
    planner.plan_needless_tags();
    let mut plan = planner.plan;
    plan.findings = planner.findings.finish(input.may_delete);
    find_causes(&mut plan, input);
    plan
}

/// An EPG with what is desired in it and what it holds.
type EpgToPlan<'a> = (Cow<'a, EpgDn>, Option<&'a DesiredEpg>, Option<&'a Epg>);

/// The EPGs that are not settled: those that are desired, and then the others.
fn epgs_to_plan<'a>(input: &PlanInput<'a>) -> Vec<EpgToPlan<'a>> {
    let is_looked_at = |epg: &Epg| input.whole || !epg.settled;
    let desired = input.desired.epgs.iter().map(|(dn, it)| (Cow::Borrowed(dn), Some(it), input.fabric.epg(dn)));
    let desired = desired.filter(|(_, _, epg)| epg.is_none_or(is_looked_at));
    let present = input.fabric.epgs().filter(|(_, epg)| is_looked_at(epg));
    let others = present.filter(|(dn, _)| !input.desired.epgs.contains_key(dn));
    desired.chain(others.map(|(dn, epg)| (Cow::Owned(dn), None, Some(epg)))).collect()
}

/// The addresses that some EPG holds and that are missing in one of these EPGs, or surplus there. Of the others none is in
/// its way.
fn in_question(input: &PlanInput<'_>, epgs: &[EpgToPlan<'_>]) -> HashSet<Prefix> {
    let (mut absent, mut in_question) = (HashSet::new(), HashSet::new());
    for (_, desired, present) in epgs {
        let (desired, present) = (desired.map(|it| &it.subnets), present.map(|it| &it.subnets));
        let all = desired.into_iter().flat_map(|it| it.keys());
        absent.extend(all.filter(|it| present.is_none_or(|all| !all.contains_key(it))));
        let all = present.into_iter().flat_map(|it| it.keys());
        in_question.extend(all.filter(|it| desired.is_none_or(|all| !all.contains_key(it))));
    }
    for (_, epg) in input.fabric.epgs() {
        in_question.extend(common(&absent, &epg.subnets).into_iter().map(|(prefix, _)| *prefix));
    }
    in_question
}

struct Planner<'a> {
    input: &'a PlanInput<'a>,
    plan: Plan,
    findings: PlanFindings<'a>,
    /// Something may have to be done in the EPG that is looked at although it does not change: it is left alone for now, or
    /// waits for another EPG.
    may_go_on: bool,
    placement: Placement<'a>,
    /// For each address of a VRF that is desired in one EPG, the other EPGs that hold it.
    holders: HashMap<(usize, Prefix), Vec<(EpgDn, Holder)>>,
}

/// Whether a tag has to stay (O4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TagNeed {
    Needed,
    /// Until the subnets of ours in its EPG have moved, which this reconcile may do.
    UntilMoved,
    Needless,
}

/// What keeps an EPG that is not desired.
#[derive(Default)]
struct Ties {
    /// Foreign subnets, which stay for good.
    foreign: usize,
    /// A workload's own subnet has no other place yet (D5).
    retained: bool,
    /// A workload's own subnet moves once its new EPG is created.
    moves_later: bool,
    /// A legacy subnet moves, in a round of its own.
    legacy_moves: bool,
}

impl<'a> Planner<'a> {
    fn new(input: &'a PlanInput<'a>, epgs: &[EpgToPlan<'a>]) -> Self {
        let placement = Placement::new(input, Some(in_question(input, epgs)));
        let holders = placement.holders();
        let (plan, findings) = (Plan::default(), PlanFindings::default());
        Planner { input, plan, findings, may_go_on: false, placement, holders }
    }

    fn is_left_alone(&mut self, object: &ObjectDn) -> bool {
        let is_left_alone = (self.input.is_deferred)(object) || (self.input.is_throttled)(object);
        self.may_go_on |= is_left_alone;
        is_left_alone
    }

    fn is_deferred(&mut self, object: &ObjectDn) -> bool {
        let is_deferred = (self.input.is_deferred)(object);
        self.may_go_on |= is_deferred;
        is_deferred
    }

    fn plan_epg(&mut self, dn: &'a EpgDn, desired: Option<&'a DesiredEpg>, present: Option<&'a Epg>) {
        self.may_go_on = false;
        let before = self.extent();
        match (desired, present) {
            (Some(desired), _) => self.plan_desired(dn, desired),
            (None, Some(epg)) => self.plan_undesired(dn.clone(), epg),
            (None, None) => {}
        }
        if present.is_some() && !self.may_go_on && self.extent() == before {
            self.plan.settled.push(dn.clone());
        }
    }

    /// How much was planned and found so far.
    fn extent(&self) -> usize {
        let Plan {
            reads,
            transactions,
            findings,
            undesired,
            untagged,
            deletions,
            moves,
            blocked,
            withheld,
            settled: _,
        } = &self.plan;
        let epgs = reads.len() + undesired.len() + untagged.len();
        let objects = deletions.len() + moves.len() + blocked.len() + withheld.len();
        transactions.len() + findings.len() + epgs + objects + self.findings.count()
    }

    fn plan_desired(&mut self, dn: &'a EpgDn, desired: &'a DesiredEpg) {
        if let Some(reason) = why_unusable(self.input, dn, desired) {
            return self.plan_unusable(dn, desired, reason);
        }
        match self.input.fabric.epg(dn) {
            Some(epg) => self.plan_present(dn, epg, desired),
            None => self.plan_absent(dn, desired),
        }
    }

    /// A desired EPG that is not there.
    /// One that would hold nothing but addresses whose moves wait is not created: it may be in the wrong L3Out (J3).
    fn plan_absent(&mut self, dn: &'a EpgDn, desired: &DesiredEpg) {
        let why = self.why_created(&ObjectDn::Epg(dn.clone()));
        let mut changes = vec![Change::CreateEpg { workloads: desired.workloads.clone(), why }];
        for (prefix, subnet) in &desired.subnets {
            changes.extend(self.create(dn, *prefix, subnet));
        }
        let waits = |(prefix, it): (&Prefix, &DesiredSubnet)| self.placement.waits_for_move(dn, *prefix, it).is_some();
        if !desired.subnets.is_empty() && desired.subnets.iter().all(waits) {
            return;
        }
        self.send(dn, None, RequestShape::EpgTree, changes);
    }

    /// A desired EPG that is there.
    fn plan_present(&mut self, dn: &'a EpgDn, epg: &'a Epg, desired: &DesiredEpg) {
        let mut changes = Vec::new();
        // During a conflict about the EPG's owner annotation its subnets are written as in a foreign EPG (R5).
        let is_owned = epg.ownership == Ownership::Owned;
        let in_conflict = !is_owned && (self.input.is_throttled)(&ObjectDn::Epg(dn.clone()));
        self.may_go_on |= in_conflict;
        let shape = if epg.belongs_to_us() && !in_conflict { RequestShape::EpgTree } else { RequestShape::OneSubnet };
        if shape == RequestShape::EpgTree && !is_owned {
            let why = if epg.was_owned { Cause::OwnerChanged } else { Cause::TakenOver };
            changes.push(Change::SetEpgOwner { from: epg.ownership, why });
        }
        if epg.is_foreign() && !desired.subnets.is_empty() {
            self.plan_tag(dn);
        }
        self.findings.other_clusters(dn, epg);
        if let Some(lost) = self.input.fabric.lost().relations(dn)
            && epg.is_ours()
            && epg.relations.is_empty()
        {
            let returning: Vec<&str> = self.input.fabric.lost().returning(dn).collect();
            if self.input.rules.restore_contracts && !returning.is_empty() && is_owned {
                let restore = |it: &str| Change::RestoreRelation { relation: it.into() };
                self.send(dn, Some(epg), RequestShape::EpgTree, returning.into_iter().map(restore).collect());
            } else {
                self.findings.contracts_lost(dn, lost);
            }
        }
        let mut not_classified = Vec::new();
        for (prefix, subnet) in &desired.subnets {
            match epg.subnets.get(prefix) {
                None => changes.extend(self.create(dn, *prefix, subnet)),
                Some(_) if subnet.paused => {}
                Some(present) if may_repair(present, subnet) => {
                    changes.extend(self.repair(dn, *prefix, present, subnet));
                }
                Some(foreign) if !foreign.scope.has_flag(IMPORT_SECURITY) => not_classified.push(*prefix),
                Some(_) => {}
            }
        }
        self.findings.not_classified(dn, not_classified);
        changes.extend(self.plan_surplus(dn, epg, Some(desired)));
        self.send(dn, Some(epg), shape, changes);
    }

    /// An EPG that is not desired.
    fn plan_undesired(&mut self, dn: EpgDn, epg: &'a Epg) {
        let is_owned = epg.ownership == Ownership::Owned;
        let changes = self.plan_surplus(&dn, epg, None);
        let object = ObjectDn::Epg(dn.clone());
        if is_owned && self.input.blocked.contains(&object) {
            self.plan.blocked.insert(object.clone());
        }
        if self.is_deferred(&object) {
            self.plan.undesired.extend(is_owned.then_some(dn));
        } else if is_owned {
            self.plan_undesired_owned(dn, epg, changes);
        } else {
            if epg.was_owned {
                self.findings.epg_lost_owner(&dn);
            } else if epg.ownership == Ownership::Legacy {
                self.findings.legacy_epg(&dn);
            }
            self.send(&dn, Some(epg), RequestShape::OneSubnet, changes);
        }
    }

    /// D6: an owned EPG that is not desired goes after its grace, unless something keeps it. `changes` delete the subnets in
    /// it that go by themselves.
    fn plan_undesired_owned(&mut self, dn: EpgDn, epg: &'a Epg, changes: Vec<Change>) {
        let object = ObjectDn::Epg(dn.clone());
        let ties = self.ties(&dn, epg);
        let has_own = ties.retained || ties.moves_later;
        if !has_own {
            self.plan.undesired.insert(dn.clone());
        }
        let is_over = epg.is_unused() || (self.input.is_grace_over)(&dn);
        if ties.foreign > 0 {
            self.findings.holds_foreign(&dn, ties.foreign);
        } else if self.input.rules.keep_contracted && !epg.relations.is_empty() {
            self.findings.keeps_contracts(&dn);
        } else if !ties.retained && !self.is_blocked_in_part(&dn) {
            if let Some(length) = self.input.grace.filter(|_| !has_own && !is_over) {
                self.findings.in_grace(&dn, epg, length);
            }
            if !self.input.may_delete {
                self.plan.withheld.insert(object);
            } else {
                // It counts (W4) also if it goes later: moves that end within this reconcile let it go.
                self.plan.deletions.insert(object);
                if !has_own && !ties.legacy_moves && is_over {
                    let delete = Change::DeleteEpg { subnets: epg.subnets.len(), why: Cause::Unnamed };
                    return self.send(&dn, Some(epg), RequestShape::EpgTree, vec![delete]);
                }
            }
        }
        self.send(&dn, Some(epg), RequestShape::EpgTree, changes);
    }

    fn ties(&self, dn: &EpgDn, epg: &Epg) -> Ties {
        let mut ties = Ties { foreign: epg.unreadable, ..Ties::default() };
        for (prefix, subnet) in &epg.subnets {
            match subnet.ownership {
                Ownership::Owned => match self.placement.retained(dn, *prefix, subnet) {
                    Some(it) if it.reason == Reason::Moves => ties.moves_later = true,
                    Some(_) => ties.retained = true,
                    None => {}
                },
                Ownership::Legacy if self.placement.target(dn, *prefix).is_some() => ties.legacy_moves = true,
                _ => ties.foreign += 1,
            }
        }
        ties
    }

    /// Whether the EPG, or a subnet in it, must not be deleted yet (W4).
    fn is_blocked_in_part(&self, dn: &EpgDn) -> bool {
        let blocked = &self.plan.blocked;
        let first = ObjectDn::Subnet(dn.clone(), Prefix { address: Ipv4Addr::UNSPECIFIED.into(), length: 0 });
        blocked.contains(&ObjectDn::Epg(dn.clone())) || blocked.range(first..).next().is_some_and(|it| it.epg() == dn)
    }

    /// A subnet that is not there; nothing while the address is still held elsewhere in the VRF (W2, S3).
    fn create(&mut self, dn: &'a EpgDn, prefix: Prefix, desired: &DesiredSubnet) -> Option<Change> {
        if desired.paused {
            return None;
        }
        if let Some((at, holder)) = self.placement.waits_for_move(dn, prefix, desired) {
            self.findings.waits(dn, prefix, holder, at);
            return None;
        }
        let holders = self.holders.get(&(self.placement.vrf(dn), prefix));
        if let Some((at, holder)) = holders.and_then(|it| it.iter().max_by_key(|it| it.1)) {
            self.findings.waits(dn, prefix, *holder, at);
            return None;
        }
        let object = ObjectDn::Subnet(dn.clone(), prefix);
        if self.is_left_alone(&object) {
            return None;
        }
        let (scope, source) = (self.input.rules.scope.clone(), desired.source.clone());
        let why = self.why_created(&object);
        Some(Change::CreateSubnet { prefix, scope, source, why })
    }

    /// R8: what this process saw distinguishes a first creation from a restoration.
    fn why_created(&self, object: &ObjectDn) -> Cause {
        if self.input.fabric.lost().has(object) { Cause::Deleted } else { Cause::Desired }
    }

    /// R2: the name, the required scope flags and the owner annotation are put back; everything else stays as it is.
    fn repair(&mut self, dn: &EpgDn, prefix: Prefix, present: &Subnet, desired: &DesiredSubnet) -> Option<Change> {
        let required = &self.input.rules.scope;
        let set_owner = present.ownership != Ownership::Owned;
        let name = (!desired.source.is_named(&present.name)).then(|| desired.source.subnet_name());
        let scope = (!present.scope.has(required)).then(|| present.scope.and(required));
        let drifted = set_owner || name.is_some() || scope.is_some();
        if !drifted || self.is_left_alone(&ObjectDn::Subnet(dn.clone(), prefix)) {
            return None;
        }
        // R8: a change that this process saw is drift. What it found at its start may be drift, or be due to a former source
        // or setting, and the cause given holds for all of these.
        let mut why = Vec::new();
        if set_owner {
            why.push(match present.ownership {
                _ if present.was_owned => Cause::OwnerChanged,
                Ownership::Legacy => Cause::TakenOver,
                _ => Cause::OurName,
            });
        }
        let seen = present.before_drift.as_ref();
        if name.is_some() {
            let is_drift = seen.is_some_and(|it| it.name != present.name);
            why.push(if is_drift { Cause::NameChanged } else { Cause::Source(desired.source.clone()) });
        }
        if scope.is_some() {
            let is_drift = seen.is_some_and(|it| it.scope.has(required));
            why.push(if is_drift { Cause::ScopeChanged } else { Cause::ScopeSetting });
        }
        Some(Change::RepairSubnet { prefix, before: Box::new(present.clone()), set_owner, name, scope, why })
    }

    /// An EPG that cannot be used: nothing is created there, and its addresses stay where they are (D5).
    fn plan_unusable(&mut self, dn: &'a EpgDn, desired: &'a DesiredEpg, reason: Unusable) {
        let fabric = self.input.fabric;
        match reason {
            // The reconciler has the finding about that, since it knows the error.
            Unusable::Unread | Unusable::LeftAlone => self.may_go_on = true,
            Unusable::L3OutNotFound => self.findings.l3out_not_found(&dn.l3out, &desired.workloads),
            Unusable::ForeignEpgDeleted => self.findings.foreign_epg_deleted(dn, fabric.tag(dn)),
            Unusable::Paused => {
                if let Some(epg) = fabric.epg(dn) {
                    // Only addresses of other Pods and Services leave.
                    let mut changes = self.plan_surplus(dn, epg, Some(desired));
                    changes.retain(Change::is_delete);
                    let is_owned = epg.ownership == Ownership::Owned;
                    let shape = if is_owned { RequestShape::EpgTree } else { RequestShape::OneSubnet };
                    self.send(dn, Some(epg), shape, changes);
                }
            }
            Unusable::Refused | Unusable::BeyondQuota => {
                if reason == Unusable::Refused {
                    self.findings.foreign_epg_refused(dn);
                } else {
                    self.findings.too_many_epgs(dn, desired, self.input.rules.max_epgs.unwrap_or_default());
                }
                if let Some(epg) = fabric.epg(dn) {
                    let changes = self.plan_surplus(dn, epg, Some(desired));
                    self.send(dn, Some(epg), RequestShape::OneSubnet, changes);
                }
            }
        }
    }

    /// O4: before the first subnet goes into a foreign EPG, a tag marks the EPG as foreign. One that carries the annotation of
    /// any aci-sync is never marked: it may be ours from before.
    fn plan_tag(&mut self, dn: &EpgDn) {
        if self.input.fabric.is_tagged(dn) {
            return;
        }
        if (self.input.is_throttled)(&ObjectDn::Tag(dn.clone())) {
            self.plan.untagged.insert(dn.clone());
            return;
        }
        match self.input.tag_failures.get(dn) {
            Some(TagFailure { why, try_again: false }) => self.findings.tag_write_failed(dn, why),
            _ => self.send(dn, None, RequestShape::Tag, vec![Change::CreateTag]),
        }
    }

    /// O4: tags about EPGs that no workload names any more, or that are not foreign any more, go.
    fn plan_needless_tags(&mut self) {
        let input = self.input;
        for (dn, tag) in input.fabric.tags() {
            let object = ObjectDn::Tag(dn.clone());
            let need = self.tag_need(&dn);
            if need == TagNeed::Needed || (input.is_deferred)(&object) {
                continue;
            }
            if input.blocked.contains(&object) {
                self.plan.blocked.insert(object);
            } else if !input.may_delete {
                self.plan.withheld.insert(object);
            } else {
                // It counts (W4) also if it goes later, after moves within this reconcile.
                self.plan.deletions.insert(object);
                if need == TagNeed::Needless {
                    self.send(&dn, None, RequestShape::Tag, vec![Change::DeleteTag { tag: tag.into() }]);
                }
            }
        }
    }

    /// A workload without a known valid annotation may name the EPG, or return to it, if a subnet of its own is there (D3,
    /// D5). A workload that names another EPG does not need a tag for one that holds nothing of its own.
    fn tag_need(&self, dn: &EpgDn) -> TagNeed {
        let epg = self.input.fabric.epg(dn);
        if let Some(desired) = self.input.desired.epgs.get(dn) {
            let is_needed = desired.is_paused() || epg.is_none_or(Epg::is_foreign);
            return if is_needed { TagNeed::Needed } else { TagNeed::Needless };
        }
        let mut need = TagNeed::Needless;
        for (prefix, subnet) in epg.into_iter().flat_map(|epg| &epg.subnets) {
            if subnet.ownership != Ownership::Owned {
                continue;
            }
            match self.placement.retained(dn, *prefix, subnet) {
                Some(it) if it.reason == Reason::Moves => need = TagNeed::UntilMoved,
                Some(_) => return TagNeed::Needed,
                None => {}
            }
        }
        need
    }

    /// Subnets in an EPG that are not desired there: owned ones go, legacy ones go with a move, all others stay (O2, O3).
    fn plan_surplus(&mut self, dn: &EpgDn, epg: &Epg, desired: Option<&DesiredEpg>) -> Vec<Change> {
        let mut changes = Vec::new();
        let (mut legacy, mut lost_owner) = (Vec::new(), Vec::new());
        for (prefix, subnet) in &epg.subnets {
            if desired.is_some_and(|it| it.subnets.contains_key(prefix)) {
                continue;
            }
            if self.placement.move_of(dn, *prefix, subnet).is_some() {
                let object = ObjectDn::Subnet(dn.clone(), *prefix);
                if matches!(self.input.moves, Moves::Blocked(blocked) if blocked.contains(&object)) {
                    self.plan.blocked.insert(object.clone());
                }
                self.plan.moves.insert(object);
            }
            let target = self.placement.target(dn, *prefix);
            let goes = match (subnet.ownership, target) {
                (Ownership::Owned, _) => true,
                (Ownership::Legacy, Some(target)) => {
                    self.may_go_on |= !target.is_there;
                    target.is_there
                }
                (Ownership::Legacy, None) => {
                    legacy.push(*prefix);
                    false
                }
                (Ownership::Unmarked | Ownership::OtherCluster | Ownership::Foreign, _) => {
                    lost_owner.extend(subnet.was_owned.then_some(*prefix));
                    false
                }
            };
            if goes {
                changes.extend(self.delete(dn, *prefix, subnet, target.map(|it| it.dn)));
            }
        }
        self.findings.legacy_subnets(dn, legacy);
        self.findings.subnets_lost_owner(dn, lost_owner);
        changes
    }

    /// A subnet that goes, unless it is retained, blocked, deferred or nothing may be deleted now.
    fn delete(&mut self, dn: &EpgDn, prefix: Prefix, subnet: &Subnet, moves_to: Option<&EpgDn>) -> Option<Change> {
        if let Some(retained) = self.placement.retained(dn, prefix, subnet) {
            self.findings.retained(dn, prefix, retained);
            return None;
        }
        let object = ObjectDn::Subnet(dn.clone(), prefix);
        let is_blocked = moves_to.is_none() && self.input.blocked.contains(&object);
        if is_blocked && !self.placement.belongs_to_another(prefix, &subnet.name) {
            self.plan.blocked.insert(object);
            return None;
        }
        if self.is_deferred(&object) {
            return None;
        }
        if !self.input.may_delete {
            self.plan.withheld.insert(object);
            return None;
        }
        if moves_to.is_none() {
            self.plan.deletions.insert(object);
        }
        let (before, moves_to) = (Box::new(subnet.clone()), moves_to.cloned().map(Box::new));
        Some(Change::DeleteSubnet { prefix, before, moves_to, why: Cause::Undesired })
    }

    /// Puts changes into transactions, or asks for the read that has to come first (W7).
    fn send(&mut self, dn: &EpgDn, epg: Option<&Epg>, shape: RequestShape, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        if shape != RequestShape::Tag && epg.is_some_and(|it| !it.fresh) {
            self.plan.reads.insert(dn.clone());
        }
        let at_once = match (shape, changes.first()) {
            // R7: if only some relations came back, the rest would look like what people removed.
            (RequestShape::EpgTree, Some(Change::RestoreRelation { .. })) => changes.len(),
            (RequestShape::EpgTree, _) => self.input.rules.batch.max(1),
            (RequestShape::OneSubnet | RequestShape::Tag, _) => 1,
        };
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let changes = changes.by_ref().take(at_once).collect();
            self.plan.transactions.push(Transaction { epg: dn.clone(), shape, changes });
        }
    }
}

/// R2, O3: an owned subnet, a legacy one that is desired where it is, or one without an annotation that has our name for it.
pub(super) fn may_repair(present: &Subnet, desired: &DesiredSubnet) -> bool {
    match present.ownership {
        Ownership::Owned | Ownership::Legacy => true,
        Ownership::Unmarked => present.was_owned || desired.source.is_named(&present.name),
        Ownership::OtherCluster | Ownership::Foreign => present.was_owned,
    }
}
