//! All state, and one pass over it: read what is stale, plan, send, until nothing is left to do.
//!
//! The reconciler decides and asks; it knows no threads and no clock. Its loop of events and timers is the reconciler's.

mod apply;
mod deferrals;
mod observe;
mod reporter;
pub mod scheduler;
mod subscriptions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, info};

use self::deferrals::Deferrals;
use self::observe::Reread;
use self::reporter::LogShares;
use self::subscriptions::Subscriptions;
use crate::apic::traits::{ApicRead, ApicSession};
use crate::apic::writer::Writer;
use crate::apic::{Error, SubscriptionId};
use crate::kube;
use crate::model::cache::FabricCache;
use crate::model::desired::{DesiredEpg, DesiredState, Vrf, desired_state, named_l3outs};
use crate::model::dn::{EpgDn, L3outDn, ObjectDn};
use crate::model::finding::{Code, Finding};
use crate::model::guards::deletion::DeletionGuard;
use crate::model::guards::drift::DriftThrottle;
use crate::model::guards::grace::Grace;
use crate::model::inventory::{Inventory, ManagedDeployment};
use crate::model::kubernetes::Kind;
use crate::model::missing_pods::MissingPods;
use crate::model::mo::{MoChange, Status};
use crate::model::notices::{EventNotice, NoticeTracker};
use crate::model::observed::{Epg, L3out};
use crate::model::owner::OwnerIdentity;
use crate::model::plan::{Plan, Transaction};
use crate::model::plan_input::{PlanInput, TagFailure};
use crate::model::planner;
use crate::model::quota::Quota;
use crate::model::rules::Policy;
use crate::model::rules::Rules;
use crate::model::staleness::{Staleness, apply_event};

/// An L3Out in which something has just appeared that can have children, be it the L3Out itself or an EPG of ours, is
/// read again this much later: events of the first children of a new object may be lost (R3).
const REREAD_AFTER: Duration = Duration::from_secs(5);

/// How often a reconcile plans anew before it leaves the rest to the next one. A create, a move and a fresh read after an
/// error need five.
const ROUNDS: usize = 12;

/// After so many refused objects the rest of a reconcile is left for the next one (W3).
const MAX_REFUSALS: usize = 200;

/// How many held deletions the status names.
const MAX_TOLD: usize = 1000;

/// What a reconcile did.
#[derive(Debug, Default)]
pub struct Report {
    /// The transactions that the APIC took, in order.
    pub done: Vec<Transaction>,
    /// Something is left that the next reconcile, a little later, may be able to do.
    pub unfinished: bool,
    /// So many L3Outs are still to be read; the next reconcile goes on with them at once.
    pub unread: usize,
    /// Something is left that the policy keeps from being sent (W5).
    pub withheld: bool,
    /// Objects of other writers that went with an EPG of ours, because they were created after it was read (O2).
    pub swept: Vec<String>,
    /// How many objects are kept although nothing wants them, because the policy deletes nothing (W5).
    pub kept: usize,
    /// What is new for people who look at the cluster (K5).
    pub notices: Vec<EventNotice>,
}

/// What goes on around a reconcile. A function that says whether to go on is enough where nothing is heard meanwhile.
pub trait ReconcileContext {
    /// Asked right before each write: whether it may be sent.
    fn should_continue(&self) -> bool;

    /// Whether what the reconcile was planned on is young enough to delete something on it (W1).
    fn may_delete(&self) -> bool {
        true
    }

    /// The time by now, which a reconcile that waits for an APIC is not done in no time; nothing where it stands still.
    fn now(&self) -> Option<Instant> {
        None
    }

    /// Before each write, too: hands over what the fabric has told since the last one, in its order. Most of it is the
    /// echo of the reconcile itself (W7); the rest is somebody's hand at what was read.
    fn drain_events(&self, _hear: &mut dyn FnMut(&[SubscriptionId], &[MoChange])) {}
}

impl<F: Fn() -> bool> ReconcileContext for F {
    fn should_continue(&self) -> bool {
        self()
    }
}

/// What the desired state depends on beside the cluster and the rules.
#[derive(PartialEq)]
struct Basis {
    vrfs: BTreeMap<L3outDn, Vrf>,
    beyond_quota: BTreeSet<EpgDn>,
}

/// The state of the whole program.
pub struct Reconciler {
    /// The cluster's side.
    pub inventory: Inventory,
    /// What that calls for, with what it was computed from beside it; nothing where the cluster has changed since.
    desired_cache: Option<(Basis, Arc<DesiredState>)>,
    quota: Quota,
    /// The EPGs that are not served in this reconcile unless they are owned and there: their namespaces have enough (W6).
    beyond_quota: BTreeSet<EpgDn>,
    fabric: FabricCache,
    rules: Rules,
    writer: Writer,
    grace: Grace,
    /// Deployments whose Pods are not found (P1), and whether the cluster has changed since that was looked at.
    missing_pods: MissingPods,
    missing_pods_stale: bool,
    deferrals: Deferrals<ObjectDn>,
    /// L3Outs that the APIC does not give us.
    deferred_l3outs: Deferrals<L3outDn>,
    /// An L3Out that was not served was left out in this reconcile (W8).
    left_one_out: bool,
    drift: DriftThrottle,
    deletion_guard: DeletionGuard,
    tag_failures: BTreeMap<EpgDn, TagFailure>,
    subscriptions: Subscriptions,
    /// L3Outs where a class query found something that bears our mark or a predecessor's (R4).
    with_annotation: BTreeSet<L3outDn>,
    full_sync_due: bool,
    stale_l3outs: BTreeSet<L3outDn>,
    /// L3Outs that nothing of ours is in and that are read in their turn.
    unread: BTreeSet<L3outDn>,
    /// All that was to be read has been since the last full sync, perhaps but for what was named after that.
    all_read: bool,
    stale_epgs: BTreeSet<EpgDn>,
    rereads: BTreeMap<L3outDn, Reread>,
    findings: BTreeSet<Finding>,
    log_shares: LogShares,
    notices: NoticeTracker,
    last_withheld: String,
    /// How much the APIC refused in this reconcile.
    refusals: usize,
    /// Why it could not be asked for all that is ours, in whatever L3Out (R4).
    ownership_query_error: Option<String>,
}

impl Reconciler {
    /// A reconciler that knows nothing yet: its first reconcile is a full sync.
    pub fn new(owner: OwnerIdentity, rules: Rules, policy: Policy, grace: Duration) -> Self {
        Reconciler {
            inventory: Inventory::default(),
            desired_cache: None,
            quota: Quota::default(),
            beyond_quota: BTreeSet::new(),
            fabric: FabricCache::new(owner),
            rules,
            writer: Writer::new(policy),
            grace: Grace::new(grace),
            missing_pods: MissingPods::default(),
            missing_pods_stale: true,
            deferrals: Deferrals::default(),
            deferred_l3outs: Deferrals::default(),
            left_one_out: false,
            drift: DriftThrottle::default(),
            deletion_guard: DeletionGuard::default(),
            tag_failures: BTreeMap::new(),
            subscriptions: Subscriptions::default(),
            with_annotation: BTreeSet::new(),
            full_sync_due: true,
            stale_l3outs: BTreeSet::new(),
            unread: BTreeSet::new(),
            all_read: false,
            stale_epgs: BTreeSet::new(),
            rereads: BTreeMap::new(),
            findings: BTreeSet::new(),
            log_shares: LogShares::default(),
            notices: NoticeTracker::default(),
            last_withheld: String::new(),
            refusals: 0,
            ownership_query_error: None,
        }
    }

    /// This process takes over, or leads no more (K4): a start, but for the cluster's side, which it watched all the time.
    pub fn start_over(&mut self) {
        let new =
            Reconciler::new(self.fabric.owner().clone(), self.rules.clone(), self.writer.policy(), self.grace.length());
        let old = std::mem::replace(self, new);
        self.inventory = old.inventory;
    }

    /// What people should know now, as of the last reconcile.
    pub fn findings(&self) -> &BTreeSet<Finding> {
        &self.findings
    }

    /// How many of them mean that something desired is not done.
    pub fn open_findings(&self) -> usize {
        self.findings.iter().filter(|it| it.code.is_open()).count()
    }

    /// Takes over what a watcher says. True where a reconcile may find something to do.
    pub fn cluster_changed(&mut self, event: kube::Event, now: Instant) -> bool {
        let changed = match event {
            kube::Event::Listed { kind, objects } => {
                info!("{kind}s listed: {} that matter", objects.len());
                self.inventory.listed(kind, objects, now);
                self.deletion_guard.check_next();
                if kind == Kind::Deployment {
                    restart_graces(&mut self.grace, &self.rules, self.inventory.managed.values());
                }
                true
            }
            kube::Event::Upsert(object) => {
                let key = (object.kind() == Kind::Deployment).then(|| object.key().clone());
                let changed = self.inventory.upsert(object);
                restart_graces(&mut self.grace, &self.rules, key.and_then(|it| self.inventory.managed.get(&it)));
                changed
            }
            kube::Event::Gone { kind, key } => self.inventory.gone(kind, &key),
            kube::Event::Opened { kind } => {
                self.inventory.opened(kind, now);
                return false;
            }
            kube::Event::Live { kind } => {
                let held_up = !self.inventory.incomplete(now).is_empty();
                self.inventory.live(kind);
                return held_up;
            }
            kube::Event::Interrupted { kind } => {
                self.inventory.interrupted(kind, now);
                return false;
            }
            kube::Event::Relisting { kind, why } => {
                info!("{kind}s are listed anew: {why}");
                self.inventory.relisting(kind);
                return false;
            }
        };
        if changed {
            self.desired_cache = None;
            self.missing_pods_stale = true;
        }
        changed
    }

    /// Whether all three kinds were listed at least once.
    pub fn is_listed(&self) -> bool {
        Kind::ALL.into_iter().all(|kind| self.inventory.was_listed(kind))
    }

    /// Takes over a websocket event. True where it says something that the cache does not know.
    pub fn fabric_changed(&mut self, subscriptions: &[SubscriptionId], changes: &[MoChange]) -> bool {
        let (notices, is_late) = self.receive(subscriptions, changes);
        !is_late && !notices.is_empty()
    }

    /// What a websocket event says that the cache does not know, which is read again; and whether it comes late, of
    /// subscriptions that were given up.
    fn receive(&mut self, subscriptions: &[SubscriptionId], changes: &[MoChange]) -> (Vec<Staleness>, bool) {
        // A late event of a subscription that was given up costs no read (R3). That something was deleted is kept in mind
        // all the same: what somebody puts there after that is not an object of ours that lost its mark (R2).
        let is_late = !self.subscriptions.received(subscriptions);
        let mut notices = Vec::new();
        for change in changes.iter().filter(|it| !is_late || it.status == Status::Deleted) {
            let hint = apply_event(&mut self.fabric, change);
            match &hint {
                Staleness::Fresh => continue,
                _ if is_late => {}
                Staleness::Object(object) => {
                    debug!("{} {:?}: {} is read again", change.mo.dn, change.status, object.epg());
                    self.stale_epgs.insert(object.epg().clone());
                }
                Staleness::L3out(dn) => {
                    debug!("{} {:?}: {dn} is read again", change.mo.dn, change.status);
                    self.stale_l3outs.insert(dn.clone());
                }
            }
            notices.push(hint);
        }
        (notices, is_late)
    }

    /// Events may have been lost, or time has passed: the next reconcile compares everything (R4).
    pub fn request_full_sync(&mut self) {
        self.full_sync_due = true;
    }

    /// What was subscribed is void: the session ended, or a subscription lapsed. The next reconcile subscribes anew.
    pub fn subscriptions_lost(&mut self, apic: Option<&dyn ApicRead>) {
        for id in self.subscriptions.take_all() {
            if let Some(apic) = apic {
                apic.unsubscribe(&id);
            }
        }
        // What was not served may be served by another session.
        self.deferred_l3outs = Deferrals::default();
        self.full_sync_due = true;
    }

    /// When the reconciler wants a reconcile although nothing happened.
    pub fn next_wake(&self) -> Option<Instant> {
        let settled = self.rereads.values().map(|it| it.due).min();
        let tried_again = [self.deferrals.next_end(), self.deferred_l3outs.next_end(), self.drift.next_end()];
        let told = [self.inventory.next_complete(), self.missing_pods.next_end(), self.subscriptions.next_wake()];
        tried_again.into_iter().chain([self.grace.next_end(), settled]).chain(told).flatten().min()
    }

    /// Somebody consents to the deletions that are held (W4). True where there are any.
    pub fn approve_deletions(&mut self) -> bool {
        let released = self.deletion_guard.approve();
        info!("{released} deletions that were held may go on");
        released > 0
    }

    /// How many deletions are held (W4).
    pub fn blocked_deletions(&self) -> usize {
        self.deletion_guard.blocked().len()
    }

    /// When the next grace is over that was not at the last reconcile (D6).
    pub fn next_grace_end(&self) -> Option<Instant> {
        self.grace.next_end()
    }

    /// How many EPGs wait for their grace to end.
    pub fn graces_running(&self, now: Instant) -> usize {
        self.grace.running(now)
    }

    /// One reconcile (R6). An error ends it early; everything it learned is kept, and a later reconcile goes on from there.
    /// `now` is the time of the reconcile.
    pub fn reconcile(
        &mut self,
        apic: &dyn ApicSession,
        now: Instant,
        context: &dyn ReconcileContext,
    ) -> Result<Report, Error> {
        self.fabric.begin_reconcile();
        self.left_one_out = false;
        self.inventory.settle(now);
        // Where nothing is deleted, all that is left counts; else what is in its grace or held (W4).
        let counts = |epg: &EpgDn| {
            self.fabric.epg(epg).is_some_and(Epg::is_ours)
                && (!self.writer.deletes()
                    || self.grace.is_running(epg, now)
                    || self.deletion_guard.blocked().contains(&ObjectDn::Epg(epg.clone())))
        };
        self.beyond_quota = self.quota.beyond(&self.inventory, &self.rules, counts);
        self.find_missing_pods(now);
        self.take_due_rereads(apic, now);
        self.find_stale(apic, now)?;
        self.read_stale(apic, now)?;
        self.read_new(apic, now)?;
        if self.deferrals.due(now).any(|it| matches!(it, ObjectDn::Epg(_))) {
            // What it would have deleted there was not counted.
            self.deletion_guard.check_next();
        }
        self.refusals = 0;
        let mut report = Report { unfinished: true, unread: self.unread.len(), ..Report::default() };
        for round in 1..=ROUNDS {
            self.read_stale(apic, now)?;
            let desired = self.desired();
            let plan = self.plan(&desired, now);
            if !plan.reads.is_empty() {
                self.read_for(apic, &plan, now)?;
                continue;
            }
            if self.deletes(now) && self.deletion_guard.check(&plan, self.fabric.count_ours(), self.rules.max_deletes) {
                continue;
            }
            let goes_at_once = self.inventory.was_listed(Kind::Deployment) && self.grace.update(&plan.undesired, now);
            let nothing_to_send = plan.transactions.is_empty() || !self.writer.writes();
            if goes_at_once && nothing_to_send {
                continue;
            }
            self.quota.update(&desired.epgs, &self.fabric);
            self.prune(&desired, &plan, now);
            if nothing_to_send {
                self.deferrals.all_done(now);
            }
            if nothing_to_send || !context.should_continue() || round == ROUNDS || self.refusals > MAX_REFUSALS {
                self.log_withheld(&plan);
                let is_left = !plan.transactions.is_empty();
                (report.unfinished, report.withheld) =
                    ((is_left && self.writer.writes()) || report.unread > 0, is_left && !self.writer.writes());
                report.kept = if self.writer.deletes() { 0 } else { plan.withheld.len() };
                report.notices = self.report_findings(&desired, plan, now);
                self.forget_unneeded(apic);
                return Ok(report);
            }
            self.send(apic, plan.transactions, now, context, &mut report)?;
        }
        Ok(report)
    }

    /// P1: which Deployments have Pods that are not found. While the views are not whole nothing is missing.
    fn find_missing_pods(&mut self, now: Instant) {
        if !self.inventory.incomplete(now).is_empty() {
            self.missing_pods.update(BTreeSet::new(), now);
            self.missing_pods_stale = true;
        } else if std::mem::take(&mut self.missing_pods_stale) {
            let exports_pods = |it: &ManagedDeployment| {
                let namespace = &it.deployment.key.namespace;
                let binding = it.binding.as_ref().filter(|it| self.rules.admits(namespace, &it.epg));
                binding.is_some_and(|it| it.expose.unwrap_or(self.rules.expose).pods)
            };
            self.missing_pods.update(self.inventory.missing_pods(exports_pods), now);
        }
    }

    /// R6: it is computed anew where the cluster or its basis has changed.
    fn desired(&mut self) -> Arc<DesiredState> {
        let named = named_l3outs(&self.inventory, &self.rules, &BTreeSet::new());
        let vrfs = named.into_iter().map(|dn| (dn.clone(), self.fabric.vrf(&dn))).collect();
        let is_served = |dn: &&EpgDn| self.fabric.epg(dn).is_some_and(Epg::belongs_to_us);
        let beyond_quota = self.beyond_quota.iter().filter(|dn| !is_served(dn)).cloned().collect();
        let basis = Basis { vrfs, beyond_quota };
        let compute =
            || desired_state(&self.inventory, &self.rules, &|l3out| self.fabric.vrf(l3out), &basis.beyond_quota);
        if let Some((_, known)) = self.desired_cache.as_ref().filter(|(of, _)| *of == basis) {
            debug_assert_eq!(**known, compute(), "R6");
            return known.clone();
        }
        let desired = Arc::new(compute());
        self.desired_cache = Some((basis, desired.clone()));
        desired
    }

    fn plan(&self, desired: &DesiredState, now: Instant) -> Plan {
        planner::plan(&PlanInput {
            desired,
            inventory: &self.inventory,
            fabric: &self.fabric,
            rules: &self.rules,
            may_delete: self.deletes(now),
            grace: self.writer.deletes().then(|| self.grace.length()),
            is_grace_over: &|epg| self.grace.is_over(epg, now),
            is_deferred: &|object| self.deferrals.is_deferred(object, now),
            is_throttled: &|object| self.drift.is_throttled(object, now),
            blocked: self.deletion_guard.blocked(),
            tag_failures: &self.tag_failures,
        })
    }

    /// W1, W4, W5: whether anything may be deleted now. Where the APIC did not say what is ours, it may be in any L3Out that
    /// was not read yet, and what would be deleted there has to be counted first.
    fn deletes(&self, now: Instant) -> bool {
        let knows_ours = self.ownership_query_error.is_none() || self.all_read;
        self.writer.deletes() && knows_ours && self.inventory.incomplete(now).is_empty()
    }

    /// What is remembered of objects that are of no interest any more is forgotten.
    fn prune(&mut self, desired: &DesiredState, plan: &Plan, now: Instant) {
        let deletes = self.deletes(now);
        let is_desired = |object: &ObjectDn| match (desired.epgs.get(object.epg()), object) {
            (Some(epg), ObjectDn::Subnet(_, prefix)) => epg.subnets.contains_key(prefix),
            (epg, _) => epg.is_some(),
        };
        let fabric = &self.fabric;
        let is_there = |object: &ObjectDn| match object {
            ObjectDn::Tag(epg) => fabric.is_tagged(epg),
            object => fabric.epg(object.epg()).is_some(),
        };
        for epg in &plan.untagged {
            let untagged = TagFailure { why: "somebody keeps deleting it".to_owned(), try_again: true };
            self.tag_failures.entry(epg.clone()).or_insert(untagged);
        }
        self.deferrals.keep(|object| is_desired(object) || is_there(object));
        self.drift.keep(now, is_desired);
        self.fabric.keep(is_desired);
        let fabric = &self.fabric;
        self.tag_failures.retain(|epg, _| {
            let is_foreign = fabric.epg(epg).is_none_or(Epg::is_foreign);
            desired.epgs.contains_key(epg) && is_foreign && !fabric.is_tagged(epg)
        });
        let deferrals = &self.deferrals;
        let is_out_of_reach = |epg: &EpgDn| {
            let is_paused = desired.epgs.get(epg).is_some_and(DesiredEpg::is_paused);
            is_paused || deferrals.is_deferred(&ObjectDn::Epg(epg.clone()), now) || fabric.l3out(&epg.l3out).is_none()
        };
        self.deletion_guard.keep(plan, |object| !deletes || is_out_of_reach(object.epg()));
    }

    /// An object is left alone for a while.
    fn defer(&mut self, object: ObjectDn, error: &Error, now: Instant) {
        let text = format!("failed to write: {error}; retrying with growing pauses");
        self.deferrals.defer(&object, now, Finding::new(Code::Rejected, &object, text));
    }

    /// The state in lines, for SIGUSR1.
    pub fn status(&self, now: Instant) -> Vec<String> {
        let incomplete = self.inventory.incomplete(now);
        let mut lines = vec![format!(
            "{} Deployments managed, {} Pods and {} Services known{}",
            self.inventory.managed.len(),
            self.inventory.pods.len(),
            self.inventory.services.len(),
            if incomplete.is_empty() { String::new() } else { format!("; incomplete: {incomplete:?}, deletes wait") }
        )];
        for dn in self.fabric.l3outs() {
            let state = match self.fabric.l3out(dn) {
                Some(L3out::Present { epgs, .. }) => format!("{} EPGs", epgs.len()),
                _ => "missing".to_owned(),
            };
            let subscription = if self.subscriptions.is_subscribed(dn) { "subscribed" } else { "not subscribed" };
            lines.push(format!("{dn}: {state}, {subscription}"));
        }
        lines.extend(self.deletion_guard.blocked().iter().take(MAX_TOLD).map(|it| format!("held: {it}")));
        lines.extend(self.findings.iter().map(|it| format!("finding: {it}")));
        lines
    }
}

/// What a Deployment names has its whole grace before it, also where it is named between two reconciles only (D6). Only those
/// that have just been heard of are looked at: a namespace may end thousands of others, one by one (X3). A binding that
/// `--allow` forbids is none (W6).
fn restart_graces<'a>(grace: &mut Grace, rules: &Rules, heard_of: impl IntoIterator<Item = &'a ManagedDeployment>) {
    heard_of.into_iter().filter_map(|it| it.bound_epg(rules)).for_each(|it| grace.named(it));
}
