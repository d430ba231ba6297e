//! The event loop: the one place that waits, the one place that handles events, the one thread that owns all state.
//!
//! When a reconcile is due is the scheduler's business, and what it does the reconciler's.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, select, tick};
use log::{debug, info, warn};

use super::watchdog::{BEAT, Heartbeat};
use crate::apic::adapters::{Counted, Supervised};
use crate::apic::traits::ApicRead;
use crate::apic::{self, Client, SessionHandle, SubscriptionId};
use crate::backoff::{random_unit, seconds, stopped};
use crate::kube;
use crate::leadership::Leadership;
use crate::metrics;
use crate::model::finding::Finding;
use crate::model::mo::MoChange;
use crate::model::plan::Tally;
use crate::reconcile::scheduler::{EndedReconcile, NextStep, Scheduler};
use crate::reconcile::{ReconcileContext, Reconciler, Report};
use crate::status::service_manager::ServiceManager;
use crate::status::{
    Activity, CredentialEnds, EndWarnings, FabricView, Identity, Publisher, ReconcileEntry, Snapshot, State, Why,
};
use crate::time;

/// After this long a reconcile sends nothing more and leaves the rest to the next one: the view that it planned on must not
/// get old (W1).
const MAX_RECONCILE: Duration = Duration::from_secs(30);

/// If the APIC serves so few requests a second that the reads of a reconcile take that long, this many writes are
/// sent anyway, up to [`MAX_READING`]: otherwise such a reconcile would read again and again, and never write. Deletions are
/// not among them, because the view of the cluster that they were planned on is as old (W1).
const LEAST_WRITES: usize = 20;
const MAX_READING: Duration = Duration::from_secs(120);

/// What an operator asks for by a signal.
#[derive(Debug, Clone, Copy)]
pub enum Command {
    /// SIGUSR2: the blocked deletions may go on (W4).
    ApproveDeletions,
}

/// Everything that can happen to the event loop.
enum Event {
    Cluster(kube::Event),
    Fabric(apic::Event),
    Command(Command),
    /// A term of leadership may have begun or ended (K4).
    Leadership,
    /// A deadline has come: a reconcile or a full sync is due.
    Timer,
    /// Nothing happened; the loop goes round all the same (X1).
    Beat,
    /// The program is stopping, or no sender is left.
    Stop,
}

/// The thread that owns all state.
pub struct EventLoop {
    reconciler: Reconciler,
    inbox: Inbox,
    session: SessionHandle,
    leadership: Leadership,
    /// The term in which the reconciler's view of the fabric was read.
    term: Option<u64>,
    heartbeat: Heartbeat,
    beat: Receiver<Instant>,
    client: Option<Client>,
    scheduler: Scheduler,
    events: Option<kube::events::Queue>,
    publisher: Publisher,
    /// What the last reconcile of this session on a complete view came to, while that still holds.
    outcome: Option<State>,
    /// As of the last reconcile, for the snapshots.
    fabric: Arc<FabricView>,
    activity: Arc<Activity>,
    /// A full sync has read everything in this session.
    synced: bool,
    cluster_id: Arc<str>,
    end_warnings: EndWarnings,
    /// The first change that no reconcile has served yet.
    changed_at: Option<Instant>,
    /// Why the next reconcile runs.
    why: Option<Why>,
}

/// What the event loop waits for.
#[derive(Clone)]
pub struct Inbox {
    /// Events of the watches.
    pub cluster: Receiver<kube::Event>,
    /// Events of the APIC session and of the subscription refresh.
    pub fabric: Receiver<apic::Event>,
    /// What operators ask for.
    pub commands: Receiver<Command>,
    /// Closed when the program stops.
    pub stop: Receiver<()>,
}

/// The context of a running reconcile. Each write brings its own echo: it is taken out of the queue on the way, so the queue
/// does not overflow (W7). An event about the session, and what comes after it, waits for the end of the reconcile.
struct LiveContext<'a> {
    inbox: &'a Inbox,
    leadership: &'a Leadership,
    /// The term of the view that is reconciled.
    term: Option<u64>,
    begun: Instant,
    /// How many writes were about to be sent.
    writes: Cell<usize>,
    session_event: RefCell<Option<apic::Event>>,
}

impl LiveContext<'_> {
    fn has_time(&self) -> bool {
        let longest = if self.writes.get() < LEAST_WRITES { MAX_READING } else { MAX_RECONCILE };
        self.begun.elapsed() < longest
    }
}

impl ReconcileContext for LiveContext<'_> {
    fn should_continue(&self) -> bool {
        let is_same_term = self.term.is_some() && self.leadership.term() == self.term;
        !stopped(&self.inbox.stop) && self.has_time() && is_same_term
    }

    fn may_delete(&self) -> bool {
        self.begun.elapsed() < MAX_RECONCILE
    }

    fn now(&self) -> Option<Instant> {
        Some(Instant::now())
    }

    fn keeps_done(&self) -> bool {
        false
    }

    fn drain_events(&self, receive: &mut dyn FnMut(&[SubscriptionId], &[MoChange])) {
        self.writes.set(self.writes.get() + 1);
        let mut session_event = self.session_event.borrow_mut();
        if session_event.is_some() {
            return;
        }
        // Not more than were waiting: an APIC that never stops sending events must not keep the reconcile from writing.
        for _ in 0..self.inbox.fabric.len() {
            match self.inbox.fabric.try_recv() {
                Ok(apic::Event::Changed { subscriptions, changes }) => receive(&subscriptions, &changes),
                other => {
                    *session_event = other.ok();
                    return;
                }
            }
        }
    }
}

impl EventLoop {
    /// A loop that has not received anything yet.
    pub fn new(
        reconciler: Reconciler,
        inbox: Inbox,
        session: SessionHandle,
        leadership: Leadership,
        heartbeat: Heartbeat,
        resync: Duration,
    ) -> Self {
        EventLoop {
            cluster_id: reconciler.cluster_id().into(),
            reconciler,
            inbox,
            session,
            leadership,
            term: Some(Leadership::PERMANENT_TERM),
            heartbeat,
            beat: tick(BEAT),
            client: None,
            scheduler: Scheduler::new(resync, Instant::now()),
            events: None,
            publisher: Publisher::new(Identity::default(), ServiceManager::default()),
            outcome: None,
            fabric: Arc::default(),
            activity: Arc::default(),
            synced: false,
            end_warnings: EndWarnings::default(),
            changed_at: None,
            why: None,
        }
    }

    /// With notices for Kubernetes Events (K5), and snapshots for readers.
    pub fn with_outputs(self, events: Option<kube::events::Queue>, publisher: Publisher) -> Self {
        EventLoop { events, publisher, ..self }
    }

    /// Handles events until the program stops.
    pub fn run(mut self) {
        loop {
            self.heartbeat.beat();
            match self.next_event() {
                Event::Stop => {
                    // The process ends. To free a large cluster's memory piece by piece would only delay that.
                    std::mem::forget(self.reconciler);
                    return;
                }
                event => self.serve(event),
            }
            self.publish();
        }
    }

    fn serve(&mut self, event: Event) {
        // The session of a new term may be reported before the term itself.
        self.enter_term();
        self.handle(event);
    }

    /// K4: what was read of the fabric in one term is not used in another.
    fn enter_term(&mut self) {
        let term = self.leadership.term();
        if term == self.term {
            return;
        }
        self.term = term;
        self.reconciler.start_over();
        self.outcome = None;
        self.changed_at = None;
        self.fabric = Arc::default();
        if term.is_some() {
            info!("new term of leadership; starting with a full sync");
            self.why = Some(Why::NewTerm);
            self.scheduler.reconcile_soon(Instant::now());
        }
    }

    fn publish(&self) {
        if stopped(&self.inbox.stop) {
            return;
        }
        let now = Instant::now();
        self.publisher.publish(Snapshot {
            made: now,
            state: self.state(now),
            leader: self.leadership.is_leader(),
            controller: self.client.as_ref().map(|client| client.controller().to_string()),
            incomplete: self.reconciler.incomplete_kinds(now),
            objects: self.reconciler.object_counts(),
            fabric: self.fabric.clone(),
            activity: self.activity.clone(),
            synced: self.synced,
            cluster_id: Some(self.cluster_id.clone()),
            credentials: self.credential_ends(),
        });
    }

    fn credential_ends(&self) -> CredentialEnds {
        CredentialEnds::now(self.leadership.is_leader())
    }

    /// What the last reconcile came to may not hold any more.
    fn invalidate_outcome(&mut self) {
        self.outcome = self.outcome.map(|_| State::Syncing);
    }

    fn state(&self, now: Instant) -> State {
        if !self.reconciler.incomplete_kinds(now).is_empty() {
            State::WaitingForKubernetes
        } else if !self.leadership.is_leader() {
            State::Standby
        } else if self.client.is_none() {
            State::WaitingForApic
        } else {
            self.outcome.unwrap_or(State::FirstSync)
        }
    }

    fn next_event(&self) -> Event {
        metrics::queue_length(metrics::Queue::Cluster, self.inbox.cluster.len());
        metrics::queue_length(metrics::Queue::Fabric, self.inbox.fabric.len());
        let now = Instant::now();
        let wake = || self.reconciler.next_wake().filter(|_| self.client.is_some());
        let timer = after(self.scheduler.deadline(wake).saturating_duration_since(now));
        select! {
            recv(self.inbox.stop) -> _ => Event::Stop,
            recv(self.inbox.cluster) -> event => event.map_or(Event::Stop, Event::Cluster),
            recv(self.inbox.fabric) -> event => event.map_or(Event::Stop, Event::Fabric),
            recv(self.inbox.commands) -> command => command.map_or(Event::Stop, Event::Command),
            recv(self.leadership.changes()) -> _ => Event::Leadership,
            recv(timer) -> _ => Event::Timer,
            recv(self.beat) -> _ => Event::Beat,
        }
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Cluster(event) => {
                if matches!(event, kube::Event::Listed { .. } | kube::Event::Relisting { .. }) {
                    self.invalidate_outcome();
                }
                if self.reconciler.cluster_changed(event, now) {
                    self.changed_at.get_or_insert(now);
                    self.why.get_or_insert(Why::ClusterChanged);
                    self.scheduler.reconcile_soon(now);
                }
            }
            Event::Fabric(event) => self.handle_fabric(event, now),
            Event::Command(Command::ApproveDeletions) => {
                if self.reconciler.approve_deletions() {
                    self.why.get_or_insert(Why::DeletionsApproved);
                    self.scheduler.reconcile_soon(now);
                }
            }
            Event::Timer => {
                if self.scheduler.take_due(&mut self.reconciler, self.client.is_some(), now) {
                    self.reconcile(now);
                }
            }
            Event::Beat => {
                self.update_fabric_view();
                self.note_in_sync(now);
                self.end_warnings.log(&self.credential_ends(), time::unix_now());
            }
            Event::Leadership | Event::Stop => {}
        }
    }

    fn handle_fabric(&mut self, event: apic::Event, now: Instant) {
        match event {
            apic::Event::Changed { subscriptions, changes } => {
                if self.reconciler.fabric_changed(&subscriptions, &changes) {
                    self.changed_at.get_or_insert(now);
                    self.why.get_or_insert(Why::FabricChanged);
                    self.scheduler.reconcile_soon(now);
                }
            }
            apic::Event::Connected(client) => {
                info!(controller:% = client.controller(); "APIC session established");
                self.reconciler.subscriptions_lost(None);
                self.client = Some(client);
                self.outcome = None;
                self.synced = false;
                self.why = Some(Why::NewSession);
                self.scheduler.connected(now);
            }
            apic::Event::Gap { reason } => {
                info!(reason; "APIC events may be lost; starting a full sync");
                let session = self.client.as_ref().map(|client| Supervised { client, should_continue: &|| true });
                self.reconciler.subscriptions_lost(session.as_ref().map(|session| session as &dyn ApicRead));
                self.invalidate_outcome();
                self.why = Some(Why::EventsLost);
                self.scheduler.reconcile_soon(now);
            }
            apic::Event::Disconnected { reason } => {
                warn!(reason; "APIC session lost");
                self.reconciler.subscriptions_lost(None);
                self.client = None;
            }
        }
    }

    fn reconcile(&mut self, now: Instant) {
        let Some(client) = self.client.clone() else { return };
        // It may take a while.
        self.publish();
        metrics::reconcile_begins();
        let should_continue = || {
            self.heartbeat.beat();
            !stopped(&self.inbox.stop)
        };
        let session = Supervised { client: &client, should_continue: &should_continue };
        let apic = Counted::new(&session);
        let context = LiveContext {
            inbox: &self.inbox,
            leadership: &self.leadership,
            term: self.term,
            begun: now,
            writes: Cell::default(),
            session_event: RefCell::default(),
        };
        let had_read_everything = self.reconciler.has_read_everything();
        let no_event = if had_read_everything { Why::WaitOver } else { Why::Resync };
        let why = self.why.take().unwrap_or(no_event);
        let outcome = self.reconciler.reconcile(&apic, now, &context);
        let session_event = context.session_event.into_inner();
        let (reads, writes) = (apic.reads(), apic.writes());
        let ended = EndedReconcile { outcome: &outcome, reads, writes, took: now.elapsed() };
        let ends_full_sync = !had_read_everything && self.reconciler.has_read_everything();
        self.synced |= ends_full_sync;
        self.reconcile_ended(&client, &ended);
        self.record(&ended, why, ends_full_sync);
        if let Some(event) = session_event {
            self.handle_fabric(event, Instant::now());
        }
    }

    fn reconcile_ended(&mut self, client: &Client, ended: &EndedReconcile<'_>) {
        self.update_fabric_view();
        let view_is_complete = self.reconciler.incomplete_kinds(Instant::now()).is_empty();
        if let Ok(report) = ended.outcome {
            self.log_report(report, view_is_complete);
            if let Some(events) = &self.events {
                events.publish(&report.notices);
            }
        }
        if stopped(&self.inbox.stop) {
            return;
        }
        if view_is_complete {
            self.outcome = Some(self.state_after(ended.outcome));
        } else {
            self.invalidate_outcome();
        }
        let error = ended.outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let next = self.scheduler.reconcile_ended(ended, random_unit(), Instant::now());
        if matches!(next, NextStep::RetryIn(_)) {
            self.why.get_or_insert(Why::Retry);
        }
        match next {
            NextStep::Done => {}
            NextStep::RetryIn(_) if ended.outcome.as_ref().is_ok_and(|report| report.unread > 0) => {
                debug!("more L3Outs are to be read; reconciling again at once");
            }
            NextStep::RetryIn(pause) if ended.outcome.is_ok() => {
                info!(retry_in = seconds(pause); "reconcile incomplete");
            }
            NextStep::RetryIn(pause) => warn!(error, retry_in = seconds(pause); "reconcile failed"),
            NextStep::Relogin => {
                self.client = None;
                self.session.relogin(client, &error);
            }
            NextStep::Reconnect => {
                let controller = client.controller();
                warn!(controller:%, error; "reconcile failed; the controller does not serve requests, trying another session");
                self.client = None;
                self.session.reconnect(client, &error);
            }
        }
    }

    fn update_fabric_view(&mut self) {
        let now = time::unix_now();
        let known = &self.fabric.findings;
        let since = |finding: &Finding| known.get(finding).copied().unwrap_or(now);
        let mut view = self.reconciler.fabric_view(&since);
        for finding in self.publisher.findings() {
            let since = since(&finding);
            view.findings.insert(finding, since);
        }
        self.fabric = Arc::new(view);
    }

    /// Notes what a reconcile did, for the snapshots.
    fn record(&mut self, ended: &EndedReconcile<'_>, why: Why, ends_full_sync: bool) {
        let is_complete = ended.outcome.as_ref().is_ok_and(|report| !report.unfinished);
        metrics::reconcile_ended(ended.took, is_complete);
        // What a reconcile leaves is served by a later one.
        if is_complete && let Some(changed_at) = self.changed_at.take() {
            let has_written = ended.outcome.as_ref().is_ok_and(|report| !report.written.is_empty());
            if has_written {
                metrics::change_served(changed_at.elapsed());
            }
        }
        let now = time::unix_now();
        let activity = Arc::make_mut(&mut self.activity);
        activity.push(ReconcileEntry {
            at: now,
            took: ended.took,
            why,
            changes: ended.outcome.as_ref().map_or_else(|_| Tally::default(), |report| report.written),
            error: ended.outcome.as_ref().err().map(ToString::to_string),
        });
        if ends_full_sync {
            activity.last_full_sync = Some(now);
        }
        self.note_in_sync(Instant::now());
    }

    /// Notes that the fabric holds exactly what is desired, if it does.
    fn note_in_sync(&mut self, now: Instant) {
        if matches!(self.state(now), State::InSync(_)) {
            Arc::make_mut(&mut self.activity).last_in_sync = Some(time::unix_now());
        }
    }

    fn log_report(&self, report: &Report, view_is_complete: bool) {
        if !report.written.is_empty() {
            let Tally { created, updated, deleted } = report.written;
            info!(created, updated, deleted; "reconciled");
        } else if !report.unfinished && !report.withheld && view_is_complete && self.outcome.is_none() {
            match (self.reconciler.blocked_deletions().len(), report.kept) {
                (0, 0) => info!("full sync complete: up to date"),
                (0, kept) => info!(count = kept; "full sync complete: objects kept by --policy upsert-only"),
                (blocked, _) => info!(count = blocked; "full sync complete: deletions blocked"),
            }
        }
    }

    fn state_after(&self, outcome: &Result<Report, apic::Error>) -> State {
        match (outcome, self.reconciler.open_findings()) {
            (Ok(report), _) if report.withheld => State::Observing,
            (Ok(report), 0) if !report.unfinished => State::InSync(self.reconciler.findings().len()),
            (Ok(report), open) if !report.unfinished => State::NeedsAttention(open),
            _ => State::Retrying,
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{bounded, never};

    use super::*;
    use crate::model::owner::OwnerIdentity;
    use crate::model::rules::{Policy, Rules};

    /// K4: the view of an earlier term is dropped before the first event of the next one, also if that event is the new
    /// session; and a reconcile that began in one term does not go on in another.
    #[test]
    fn a_session_may_be_reported_before_its_term() {
        let ((report, fabric), (_keep, stop)) = (bounded(1), bounded(0));
        let inbox = Inbox { cluster: never(), fabric, commands: never(), stop };
        let (leadership, hour) = (Leadership::not_yet(), Duration::from_secs(3600));
        let reconciler = Reconciler::new(OwnerIdentity::new("me", &[]), Rules::default(), Policy::Sync, hour);
        let (session, heartbeat) = (SessionHandle::default(), Heartbeat::default());
        let mut event_loop = EventLoop::new(reconciler, inbox, session, leadership.clone(), heartbeat, hour);
        leadership.extend(Instant::now() + hour);
        event_loop.enter_term();
        event_loop.outcome = Some(State::InSync(0));
        let first_term = event_loop.term;
        let may_continue = |event_loop: &EventLoop, term| {
            let (inbox, leadership) = (&event_loop.inbox, &event_loop.leadership);
            let (begun, writes, session_event) = (Instant::now(), Cell::default(), RefCell::default());
            LiveContext { inbox, leadership, term, begun, writes, session_event }.should_continue()
        };
        assert!(may_continue(&event_loop, first_term));

        leadership.end();
        leadership.extend(Instant::now() + hour);
        assert!(!may_continue(&event_loop, first_term), "that reconcile knows the fabric of another term");
        // The signal of the lease thread is still unread.
        assert_eq!(leadership.changes().len(), 1);
        report.send(apic::Event::Connected(apic::test_session())).unwrap();
        let Ok(event) = event_loop.inbox.fabric.recv() else { panic!("nothing was reported") };
        event_loop.serve(Event::Fabric(event));
        assert_eq!((event_loop.term, event_loop.outcome), (Some(2), None));
        assert!(may_continue(&event_loop, event_loop.term));
    }
}
