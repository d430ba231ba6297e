//! The reconciler: it owns all state, and brings the fabric in line with the cluster, one reconcile at a time.
//!
//! It decides and asks; it knows no threads and no clock. The loop of events and timers around it is
//! `daemon::event_loop`, when to reconcile is the [`scheduler`]'s. State is kept in parts that live equally long:
//! [`cluster`] as long as the process, [`fabric`], [`guards`] and [`reporter`] as long as a term of leadership, and
//! [`run`] as long as one reconcile.

mod apply;
mod cluster;
mod deferrals;
mod fabric;
mod guards;
mod observe;
mod outgoing;
mod reporter;
mod run;
pub mod scheduler;
mod subscriptions;
mod survey;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::info;

use self::cluster::{ClusterState, Renewed};
use self::fabric::{FabricState, Received};
use self::guards::Guards;
use self::reporter::Reporter;
use self::run::Run;
pub use self::run::{ReconcileContext, Report};
use crate::apic::traits::{ApicRead, ApicSession};
use crate::apic::writer::Writer;
use crate::apic::{Error, SubscriptionId};
use crate::kube;
use crate::metrics::FullSyncCause;
use crate::model::desired::DesiredState;
use crate::model::dn::{EpgDn, L3outDn, ObjectDn};
use crate::model::explain::{Explanation, LookedAt, Subject, explain};
use crate::model::finding::{Code, Finding, counted};
use crate::model::inventory::Changed;
use crate::model::kubernetes::{Kind, Object};
use crate::model::mo::MoChange;
use crate::model::observed::{Epg, L3out};
use crate::model::owner::OwnerIdentity;
use crate::model::plan::Plan;
use crate::model::plan_input::{Moves, PlanInput};
use crate::model::planner;
use crate::model::rules::{Policy, Rules};
use crate::status::{Deferred, FabricView, L3outView};

/// How often a reconcile plans before it leaves the rest to the next one. A create, a move and a fresh read after an error
/// need five rounds.
const ROUNDS: usize = 12;

/// After this many rejected objects the rest is left to the next reconcile (W3).
const MAX_REJECTIONS: usize = 200;

/// All state of the program, and the one writer.
pub struct Reconciler {
    rules: Rules,
    writer: Writer,
    cluster: ClusterState,
    fabric: FabricState,
    guards: Guards,
    reporter: Reporter,
}

/// Whether an event gives a reconcile something to do.
fn worth_reconciling(received: &Received) -> bool {
    !received.is_late && !received.stale.is_empty()
}

impl Reconciler {
    /// A reconciler that knows nothing yet: its first reconcile is a full sync.
    pub fn new(owner: OwnerIdentity, rules: Rules, policy: Policy, grace: Duration) -> Self {
        Reconciler {
            cluster: ClusterState::new(&rules),
            rules,
            writer: Writer::new(policy),
            fabric: FabricState::new(owner, FullSyncCause::Start),
            guards: Guards::new(grace),
            reporter: Reporter::default(),
        }
    }

    /// A term of leadership begins or has ended (K4): only what is known of the cluster stays, which was watched all the
    /// time.
    pub fn start_over(&mut self) {
        self.fabric = FabricState::new(self.fabric.cache.owner().clone(), FullSyncCause::Leadership);
        self.guards = Guards::new(self.guards.grace.length());
        self.reporter = Reporter::default();
    }

    /// What people should know, as of the last reconcile.
    pub fn findings(&self) -> &BTreeSet<Finding> {
        &self.reporter.findings
    }

    /// How many of the findings mean that something desired is not done.
    pub fn open_findings(&self) -> usize {
        self.findings().iter().filter(|finding| finding.code.is_open()).count()
    }

    /// The kinds whose view is incomplete (W1).
    pub fn incomplete_kinds(&self, now: Instant) -> Vec<Kind> {
        self.cluster.inventory.incomplete(now)
    }

    /// Takes an event of a watch. True if a reconcile may find something to do.
    pub fn cluster_changed(&mut self, event: kube::Event, now: Instant) -> bool {
        let inventory = &mut self.cluster.inventory;
        let changed = match event {
            kube::Event::Listed { kind, objects } => {
                info!(kind:%, relevant = objects.len(); "listed");
                inventory.listed(kind, objects, now);
                self.guards.deletion.check_next();
                if kind.is_workload() {
                    let managed = inventory.managed.values().filter(|it| it.workload().kind == kind);
                    self.guards.restart_graces(&self.rules, managed);
                }
                Changed::Everything
            }
            kube::Event::Upsert(object) => {
                let workload = if let Object::Workload(it) = &object { Some(it.id.clone()) } else { None };
                let changed = inventory.upsert(object);
                let managed = workload.and_then(|it| inventory.managed.get(&it));
                self.guards.restart_graces(&self.rules, managed);
                changed
            }
            kube::Event::Gone { kind, key } => inventory.gone(kind, &key),
            kube::Event::Opened { kind } => {
                inventory.opened(kind, now);
                return false;
            }
            kube::Event::Live { kind } => {
                let was_incomplete = !inventory.incomplete(now).is_empty();
                inventory.live(kind);
                return was_incomplete;
            }
            kube::Event::Interrupted { kind } => {
                inventory.interrupted(kind, now);
                return false;
            }
            kube::Event::Relisting { kind, why } => {
                info!(kind:%, reason = why; "relisting");
                inventory.relisting(kind);
                return false;
            }
        };
        self.cluster.changed(changed)
    }

    /// Whether all kinds were listed at least once.
    pub fn is_listed(&self) -> bool {
        self.cluster.inventory.kinds().all(|kind| self.cluster.inventory.was_listed(kind))
    }

    /// Takes websocket events. True if they say something that the cache does not know.
    pub fn fabric_changed(&mut self, subscriptions: &[SubscriptionId], changes: &[MoChange]) -> bool {
        worth_reconciling(&self.fabric.receive(subscriptions, changes))
    }

    /// Events may have been lost, or time has passed: the next reconcile is a full sync (R4).
    pub fn request_full_sync(&mut self) {
        self.fabric.full_sync_due.get_or_insert(FullSyncCause::Resync);
    }

    /// The subscriptions are void: the session ended, or one of them lapsed. The next reconcile subscribes again.
    pub fn subscriptions_lost(&mut self, apic: Option<&dyn ApicRead>) {
        for id in self.fabric.subscriptions_lost() {
            if let Some(apic) = apic {
                apic.unsubscribe(&id);
            }
        }
    }

    /// When a reconcile is due although no event has arrived.
    pub fn next_wake(&self) -> Option<Instant> {
        let cluster = [self.cluster.inventory.next_complete(), self.cluster.missing_pods.next_end()];
        let others = [self.guards.next_wake(), self.fabric.next_wake(), self.reporter.notices.next_due()];
        cluster.into_iter().chain(others).flatten().min()
    }

    /// An operator approves the blocked deletions (W4). True if there are any.
    pub fn approve_deletions(&mut self) -> bool {
        let approved = self.guards.deletion.approve();
        info!(count = approved; "blocked deletions approved");
        approved > 0
    }

    /// The blocked deletions, those that begin moves included (W4, J3).
    pub fn blocked_deletions(&self) -> BTreeSet<ObjectDn> {
        self.guards.deletion.all_blocked()
    }

    /// By which objects are recognized as ours.
    pub fn owner(&self) -> &OwnerIdentity {
        self.fabric.cache.owner()
    }

    /// When the next grace ends that was still running at the last reconcile (D6).
    pub fn next_grace_end(&self) -> Option<Instant> {
        self.guards.grace.next_end()
    }

    /// How many EPGs are in their grace.
    pub fn graces_running(&self, now: Instant) -> usize {
        self.guards.grace.running(now)
    }

    /// One reconcile (R6), as of `now`: reads what is stale, then plans and writes until nothing is left to do. An error
    /// ends it early; everything it learned is kept, and a later reconcile goes on from there.
    pub fn reconcile(
        &mut self,
        apic: &dyn ApicSession,
        now: Instant,
        context: &dyn ReconcileContext,
    ) -> Result<Report, Error> {
        let mut run = Run::new(apic, context, now);
        self.fabric.cache.begin_reconcile();
        self.cluster.inventory.settle(now);
        let counts = |epg: &EpgDn| self.guards.counts_for_quota(&self.fabric.cache, self.writer.deletes(), epg, now);
        run.beyond_quota = self.guards.quota.beyond(&self.cluster.inventory, &self.rules, counts);
        self.cluster.find_missing_pods(&self.rules, now);
        self.observe(&mut run)?;
        if self.guards.deferrals.due(now).any(|object| matches!(object, ObjectDn::Epg(_))) {
            // What would have been deleted there was not counted.
            self.guards.deletion.check_next();
        }
        run.report.unread = self.fabric.unread.len();
        for round in 1..=ROUNDS {
            if self.round(&mut run, round)? == Round::Last {
                return Ok(run.report);
            }
        }
        run.report.unfinished = true;
        Ok(run.report)
    }

    /// Plans on what is known now, and sends the plan.
    fn round(&mut self, run: &mut Run<'_>, round: usize) -> Result<Round, Error> {
        let now = run.now;
        self.read_stale(run)?;
        let desired = self.desired(run);
        let plan = self.plan(&desired, now);
        if !plan.reads.is_empty() {
            self.read_for(run, &plan)?;
            return Ok(Round::Next);
        }
        let owned = || self.fabric.cache.count_owned();
        let all_read = self.has_read_everything() && !self.fabric.may_hide_ours();
        let most = self.rules.max_deletes;
        if self.may_delete(now) && self.guards.deletion.check(&plan, owned, most, all_read) {
            return Ok(Round::Next);
        }
        let goes_at_once =
            self.cluster.inventory.workloads_are_listed() && self.guards.grace.update(&plan.undesired, now);
        let nothing_to_send = plan.transactions.is_empty() || !self.writer.writes();
        if goes_at_once && nothing_to_send {
            return Ok(Round::Next);
        }
        self.guards.quota.update(&desired.epgs, &self.fabric.cache);
        self.prune(&desired, &plan, now);
        if nothing_to_send {
            self.guards.deferrals.all_done(now);
        }
        let too_many_rejections = run.rejections > MAX_REJECTIONS;
        if nothing_to_send || !run.context.should_continue() || round == ROUNDS || too_many_rejections {
            self.finish(run, &desired, plan);
            return Ok(Round::Last);
        }
        self.apply(run, plan.transactions)?;
        Ok(Round::Next)
    }

    /// Says what is left, and publishes what was found.
    fn finish(&mut self, run: &mut Run<'_>, desired: &DesiredState, plan: Plan) {
        let writes = self.writer.writes();
        if !writes {
            self.reporter.log_withheld(&plan, &self.guards.quota, run.now);
        }
        let is_left = !plan.transactions.is_empty();
        run.report.unfinished = (is_left && writes) || run.report.unread > 0;
        run.report.withheld = is_left && !writes;
        run.report.kept = if self.writer.deletes() { 0 } else { plan.withheld.len() };
        self.reporter.survey.update(&self.cluster.inventory, desired, &self.fabric.cache, &self.guards, run.now);
        let findings = self.collect_findings(desired, plan, run.now);
        let (inventory, cache) = (&self.cluster.inventory, &self.fabric.cache);
        run.report.notices = self.reporter.publish(findings, inventory, desired, cache, &self.guards.quota, run.now);
        self.forget_unneeded(run);
    }

    fn collect_findings(&mut self, desired: &DesiredState, plan: Plan, now: Instant) -> BTreeSet<Finding> {
        let mut findings = self.guards.findings(now);
        findings.extend(desired.findings.iter().cloned());
        findings.extend(plan.findings);
        findings.extend(self.fabric.deferred.findings().cloned());
        findings.extend(self.fabric.subscriptions.findings());
        findings.extend(self.cluster.missing_pods.findings(now));
        for (dn, count) in self.desired_faults() {
            let text = format!(
                "{} F0467 at the last full sync: another EPG of the VRF has a prefix of this one, so leaves may not \
                 classify its traffic",
                counted(count, "fault")
            );
            findings.insert(Finding::new(Code::FabricFault, dn, text));
        }
        if let Some(error) = &self.fabric.ownership_query_error {
            let text = format!(
                "failed to query owned objects: {error}; those in L3Outs that no workload names may stay until it succeeds"
            );
            findings.insert(Finding::new(Code::Unavailable, "APIC", text));
        }
        findings
    }

    /// How many faults F0467 each desired EPG had at the last full sync.
    fn desired_faults(&self) -> impl Iterator<Item = (&EpgDn, usize)> {
        let is_desired = |dn: &EpgDn| self.cluster.last_desired().is_some_and(|it| it.epgs.contains_key(dn));
        self.fabric.faults.iter().filter(move |(dn, _)| is_desired(dn)).map(|(dn, count)| (dn, *count))
    }

    fn desired(&mut self, run: &Run<'_>) -> Arc<DesiredState> {
        let cache = &self.fabric.cache;
        let is_served = |dn: &&EpgDn| cache.epg(dn).is_some_and(Epg::belongs_to_us);
        let beyond_quota = run.beyond_quota.iter().filter(|dn| !is_served(dn)).cloned().collect();
        let (desired, renewed) = self.cluster.desired(&self.rules, &|l3out| cache.vrf(l3out), beyond_quota);
        match renewed {
            Renewed::Epgs(epgs) => epgs.iter().for_each(|epg| self.fabric.cache.unsettle(epg)),
            Renewed::All => self.fabric.cache.unsettle_all(),
        }
        desired
    }

    /// The plan on what is known now. It leaves out the EPGs about which the last one had nothing to say, unless they have
    /// changed (R6).
    fn plan(&mut self, desired: &DesiredState, now: Instant) -> Plan {
        let plan = self.with_input(desired, now, planner::plan);
        let whole = || self.with_input(desired, now, |input| planner::plan(&PlanInput { whole: true, ..*input }));
        debug_assert!(plan.is_same(&whole()), "R6: {plan:?}\nis not {:?}", whole());
        self.fabric.cache.settle(&plan.settled);
        plan
    }

    /// Explains a subject by what the last reconcile looked at (T7); nothing before the first one.
    pub fn explain(&self, subject: &Subject, more: &LookedAt<'_>, now: Instant) -> Vec<Explanation> {
        let Some(desired) = self.cluster.present_desired() else { return Vec::new() };
        self.with_input(desired, now, |input| explain(input, more, subject))
    }

    /// Reads an L3Out that no workload names, if it was not read yet.
    pub fn look_at(&mut self, apic: &dyn ApicSession, l3out: &L3outDn, now: Instant) -> Result<(), Error> {
        if self.fabric.cache.l3out(l3out).is_some() {
            return Ok(());
        }
        self.read_l3out(&mut Run::new(apic, &|| true, now), l3out)
    }

    fn with_input<T>(&self, desired: &DesiredState, now: Instant, f: impl FnOnce(&PlanInput<'_>) -> T) -> T {
        let guards = &self.guards;
        f(&PlanInput {
            desired,
            inventory: &self.cluster.inventory,
            fabric: &self.fabric.cache,
            rules: &self.rules,
            may_delete: self.may_delete(now),
            grace: self.writer.deletes().then(|| guards.grace.length()),
            is_grace_over: &|epg| guards.grace.is_over(epg, now),
            is_deferred: &|object| guards.deferrals.is_deferred(object, now),
            is_throttled: &|object| guards.drift.is_throttled(object, now),
            blocked: guards.deletion.blocked(),
            // Without deletions nothing moves.
            moves: if self.writer.deletes() { guards.deletion.moves() } else { Moves::Free },
            whole: false,
            tag_failures: &guards.tag_failures,
        })
    }

    /// Whether anything may be deleted now (W1, W4, W5). If the APIC did not say what is ours, it may be in any L3Out that
    /// was not read yet, and deletions there have to be counted first.
    fn may_delete(&self, now: Instant) -> bool {
        let knows_ours = self.fabric.ownership_query_error.is_none() || self.fabric.all_read;
        self.writer.deletes() && knows_ours && self.cluster.inventory.incomplete(now).is_empty()
    }

    fn prune(&mut self, desired: &DesiredState, plan: &Plan, now: Instant) {
        let deletes = self.may_delete(now);
        self.guards.prune(desired, plan, &self.fabric.cache, deletes, now);
        self.fabric.cache.keep(|object| guards::is_desired(desired, object));
    }

    /// What is known of the fabric, for a snapshot. `since` says when a finding appeared, in seconds since 1970.
    pub fn fabric_view(&self, since: &dyn Fn(&Finding) -> u64) -> FabricView {
        let FabricState { cache, subscriptions, .. } = &self.fabric;
        let view_of = |dn: &L3outDn| {
            let epgs = match cache.l3out(dn) {
                Some(L3out::Present { epgs, .. }) => Some(epgs.len()),
                _ => None,
            };
            L3outView { dn: dn.clone(), epgs, subscribed: subscriptions.is_subscribed(dn) }
        };
        let deferred = |(finding, until): (&Finding, Instant)| Deferred {
            subject: finding.subject.clone(),
            code: finding.code,
            until,
        };
        FabricView {
            l3outs: cache.l3outs().map(view_of).collect(),
            blocked: self.guards.deletion.all_blocked(),
            findings: self.findings().iter().map(|finding| (finding.clone(), since(finding))).collect(),
            totals: self.reporter.survey.totals.clone(),
            epgs: self.reporter.survey.epgs.clone(),
            deferred: self.guards.deferrals.ends().chain(self.fabric.deferred.ends()).map(deferred).collect(),
            conflicts: self.reporter.survey.conflicts.clone(),
            faults: self.desired_faults().map(|(_, count)| count).sum(),
            managed: self.cluster.inventory.count_bound(),
        }
    }

    /// Whether the last full sync has read everything.
    pub fn has_read_everything(&self) -> bool {
        self.fabric.all_read && self.fabric.full_sync_due.is_none()
    }

    /// The cluster's id (O1).
    pub fn cluster_id(&self) -> &str {
        self.fabric.cache.owner().cluster_id()
    }

    /// How many managed workloads, Pods and Services are known, for each kind that is watched.
    pub fn object_counts(&self) -> Vec<(Kind, usize)> {
        let inventory = &self.cluster.inventory;
        let count = |kind| match kind {
            Kind::Pod => inventory.pods.len(),
            Kind::Service => inventory.services.len(),
            workload => inventory.managed.keys().filter(|it| it.kind == workload).count(),
        };
        inventory.kinds().map(|kind| (kind, count(kind))).collect()
    }
}

/// Whether a reconcile goes on after a round.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    Next,
    Last,
}
