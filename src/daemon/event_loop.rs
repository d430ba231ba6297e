//! The reconciler's loop: the one place that waits, the one place that handles.
//!
//! When a reconcile is due is the scheduler's business, and what it does the reconciler's.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, select, tick};
use log::{debug, info, warn};

use super::service_manager::{ServiceManager, Status};
use super::watchdog::{BEAT, Heartbeat};
use crate::apic::adapters::{Counted, Supervised};
use crate::apic::traits::ApicRead;
use crate::apic::{self, Client, SessionHandle, SubscriptionId};
use crate::backoff::{random_unit, stopped};
use crate::kube;
use crate::leadership::Leadership;
use crate::model::mo::MoChange;
use crate::model::plan::Tally;
use crate::reconcile::scheduler::{EndedReconcile, NextStep, Scheduler};
use crate::reconcile::{ReconcileContext, Reconciler};

/// After so long a reconcile sends nothing more and leaves the rest to the next one: what it plans on must not get old (W1).
const MAX_RECONCILE: Duration = Duration::from_secs(30);

/// Where the APIC serves so few requests a second that the reads of a reconcile take that long, so many writes are sent all the
/// same, up to this age: else such a reconcile would read again and again, and never write.
/// Deletions are not among them, because the view of the cluster that they were planned on is as old (W1).
const LEAST_WRITES: usize = 20;
const MAX_READING: Duration = Duration::from_secs(120);

/// A wish of the person at the terminal.
#[derive(Debug, Clone, Copy)]
pub enum Command {
    /// SIGUSR1: log the full status.
    LogStatus,
    /// SIGUSR2: the deletions that the deletion guard holds may go on (W4).
    ApproveDeletions,
}

/// Everything that can happen to the reconciler.
enum Event {
    Cluster(kube::Event),
    Fabric(apic::Event),
    Command(Command),
    /// A term of leadership may have begun or ended (K4).
    Leadership,
    /// A deadline has come: a reconcile or a full sync is due.
    Timer,
    /// Nothing happened: the loop turns all the same (X1).
    Beat,
    /// The program is stopping, or nobody is left who could say anything.
    Stop,
}

/// The thread that owns all state.
pub struct EventLoop {
    reconciler: Reconciler,
    inbox: Inbox,
    link: SessionHandle,
    leadership: Leadership,
    /// The term in which the reconciler's view of the fabric was read.
    term: Option<u64>,
    heartbeat: Heartbeat,
    beat: Receiver<Instant>,
    client: Option<Client>,
    scheduler: Scheduler,
    events: Option<kube::events::Queue>,
    manager: ServiceManager,
    /// What the last reconcile of this session on a whole view led to, as far as that is still so.
    outcome: Option<Status>,
}

/// What the reconciler waits for.
#[derive(Clone)]
pub struct Inbox {
    /// What the watchers say.
    pub cluster: Receiver<kube::Event>,
    /// What the APIC listener and the subscription refresh say.
    pub fabric: Receiver<apic::Event>,
    /// What people ask.
    pub commands: Receiver<Command>,
    /// Closed when the program stops.
    pub stop: Receiver<()>,
}

/// What goes on around a reconcile. Each write brings its own echo: it is taken out of the queue on the way, so that the queue
/// does not overflow (W7). What is about the session, and what came after it, waits for the pass to end.
struct LiveContext<'a> {
    inbox: &'a Inbox,
    leadership: &'a Leadership,
    /// The term of the view that is reconciled.
    term: Option<u64>,
    begun: Instant,
    /// How many writes have had their turn.
    writes: Cell<usize>,
    later: RefCell<Option<apic::Event>>,
}

impl LiveContext<'_> {
    fn has_time(&self) -> bool {
        let longest = if self.writes.get() < LEAST_WRITES { MAX_READING } else { MAX_RECONCILE };
        self.begun.elapsed() < longest
    }
}

impl ReconcileContext for LiveContext<'_> {
    fn should_continue(&self) -> bool {
        !stopped(&self.inbox.stop) && self.has_time() && self.term.is_some() && self.leadership.term() == self.term
    }

    fn may_delete(&self) -> bool {
        self.begun.elapsed() < MAX_RECONCILE
    }

    fn now(&self) -> Option<Instant> {
        Some(Instant::now())
    }

    fn drain_events(&self, hear: &mut dyn FnMut(&[SubscriptionId], &[MoChange])) {
        self.writes.set(self.writes.get() + 1);
        let mut later = self.later.borrow_mut();
        if later.is_some() {
            return;
        }
        // Not more than were waiting: who never stops talking does not keep anybody from writing.
        for _ in 0..self.inbox.fabric.len() {
            match self.inbox.fabric.try_recv() {
                Ok(apic::Event::Changed { subscriptions, changes }) => hear(&subscriptions, &changes),
                other => {
                    *later = other.ok();
                    return;
                }
            }
        }
    }
}

impl EventLoop {
    /// A reconciler that has not seen anything yet.
    pub fn new(
        reconciler: Reconciler,
        inbox: Inbox,
        link: SessionHandle,
        leadership: Leadership,
        heartbeat: Heartbeat,
        resync: Duration,
    ) -> Self {
        let scheduler = Scheduler::new(resync, Instant::now());
        let beat = tick(BEAT);
        let (client, events, manager, outcome) = (None, None, ServiceManager::default(), None);
        let term = Some(Leadership::PERMANENT_TERM);
        EventLoop {
            reconciler,
            inbox,
            link,
            leadership,
            term,
            heartbeat,
            beat,
            client,
            scheduler,
            events,
            manager,
            outcome,
        }
    }

    /// What is new after a reconcile goes to the cluster's Events (K5), how it stands to the service manager.
    pub fn telling(self, events: Option<kube::events::Queue>, manager: ServiceManager) -> Self {
        EventLoop { events, manager, ..self }
    }

    /// Serves events until the program stops.
    pub fn run(mut self) {
        loop {
            self.heartbeat.beat();
            match self.next_event() {
                Event::Stop => {
                    // The process ends. To give back a large cluster's memory piece by piece would only hold that up.
                    std::mem::forget(self.reconciler);
                    return;
                }
                event => self.serve(event),
            }
            self.publish_status();
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
        if term.is_some() {
            info!("new term of leadership; starting with a full sync");
            self.scheduler.reconcile_soon(Instant::now());
        }
    }

    fn publish_status(&self) {
        if !stopped(&self.inbox.stop) {
            self.manager.set_status(self.current_status(Instant::now()));
        }
    }

    /// What was so before may not be so any more.
    fn invalidate_status(&mut self) {
        self.outcome = self.outcome.map(|_| Status::Syncing);
    }

    fn current_status(&self, now: Instant) -> Status {
        match self.outcome {
            _ if !self.reconciler.inventory.incomplete(now).is_empty() => Status::WaitingForKubernetes,
            _ if !self.leadership.is_leader() => Status::Standby,
            _ if self.client.is_none() => Status::WaitingForApic,
            outcome => outcome.unwrap_or(Status::FirstSync),
        }
    }

    fn next_event(&self) -> Event {
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
                    self.invalidate_status();
                }
                if self.reconciler.cluster_changed(event, now) {
                    self.scheduler.reconcile_soon(now);
                }
            }
            Event::Fabric(apic::Event::Changed { subscriptions, changes }) => {
                if self.reconciler.fabric_changed(&subscriptions, &changes) {
                    self.scheduler.reconcile_soon(now);
                }
            }
            Event::Fabric(apic::Event::Connected(client)) => {
                info!("logged in at the APIC {}, websocket open", client.controller());
                self.reconciler.subscriptions_lost(None);
                self.client = Some(client);
                self.outcome = None;
                self.scheduler.connected(now);
            }
            Event::Fabric(apic::Event::Gap { why }) => {
                info!("events from the APIC may have been lost ({why}): everything is compared");
                let session = self.client.as_ref().map(|client| Supervised { client, should_continue: &|| true });
                self.reconciler.subscriptions_lost(session.as_ref().map(|it| it as &dyn ApicRead));
                self.invalidate_status();
                self.scheduler.reconcile_soon(now);
            }
            Event::Fabric(apic::Event::Disconnected { why }) => {
                warn!("the APIC session is gone: {why}");
                self.reconciler.subscriptions_lost(None);
                self.client = None;
            }
            Event::Command(Command::LogStatus) => self.log_status(now),
            Event::Command(Command::ApproveDeletions) => {
                if self.reconciler.approve_deletions() {
                    self.scheduler.reconcile_soon(now);
                }
            }
            Event::Timer => {
                if self.scheduler.take_due(&mut self.reconciler, self.client.is_some(), now) {
                    self.reconcile(now);
                }
            }
            Event::Leadership | Event::Beat | Event::Stop => {}
        }
    }

    fn reconcile(&mut self, now: Instant) {
        let Some(client) = self.client.clone() else { return };
        // It may take a while.
        self.publish_status();
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
            later: RefCell::default(),
        };
        let outcome = self.reconciler.reconcile(&apic, now, &context);
        let later = context.later.into_inner();
        let (reads, writes) = (apic.reads(), apic.writes());
        self.reconcile_ended(&client, &EndedReconcile { outcome: &outcome, reads, writes });
        later.into_iter().for_each(|event| self.handle(Event::Fabric(event)));
    }

    fn reconcile_ended(&mut self, client: &Client, ended: &EndedReconcile<'_>) {
        let outcome = ended.outcome;
        let is_view_whole = self.reconciler.inventory.incomplete(Instant::now()).is_empty();
        let status = match (outcome, self.reconciler.open_findings()) {
            (Ok(report), _) if report.withheld => Status::Observing,
            (Ok(report), 0) if !report.unfinished => Status::InSync(self.reconciler.findings().len()),
            (Ok(report), open) if !report.unfinished => Status::NeedsAttention(open),
            _ => Status::Retrying,
        };
        if let Ok(report) = outcome
            && !report.done.is_empty()
        {
            info!("pass done: {}", Tally::of(&report.done).past());
        } else if outcome.as_ref().is_ok_and(|it| !it.unfinished && !it.withheld)
            && is_view_whole
            && self.outcome.is_none()
        {
            info!(
                "compared: {}",
                nothing_to_change(self.reconciler.blocked_deletions(), outcome.as_ref().map_or(0, |it| it.kept))
            );
        }
        if let (Ok(report), Some(events)) = (outcome, &self.events) {
            events.publish(&report.notices);
        }
        if stopped(&self.inbox.stop) {
            return;
        }
        if is_view_whole {
            self.outcome = Some(status);
        } else {
            self.invalidate_status();
        }
        let why = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
        match self.scheduler.reconcile_ended(ended, random_unit(), Instant::now()) {
            NextStep::Done => {}
            NextStep::RetryIn(_) if outcome.as_ref().is_ok_and(|it| it.unread > 0) => {
                debug!("more L3Outs are to be read: the next pass comes at once");
            }
            NextStep::RetryIn(pause) if outcome.is_ok() => {
                info!("the pass left something; the next one comes in {:.1} s", pause.as_secs_f64());
            }
            NextStep::RetryIn(pause) => {
                warn!("the pass ended early: {why}; the next one comes in {:.1} s", pause.as_secs_f64());
            }
            NextStep::Relogin => {
                self.client = None;
                self.link.relogin(client, &why);
            }
            NextStep::Reconnect => {
                warn!("the pass ended early: {why}; another session is tried");
                self.client = None;
                self.link.reconnect(client, &why);
            }
        }
    }

    fn log_status(&self, now: Instant) {
        match &self.client {
            _ if !self.leadership.is_leader() => {
                info!("status: this process does not lead; it watches the cluster and waits");
            }
            Some(client) => info!("status: logged in at the APIC {}", client.controller()),
            None => info!("status: no session at an APIC"),
        }
        for line in self.reconciler.status(now) {
            info!("status: {line}");
        }
    }
}

/// What a full sync that changed nothing came to: deletions that do not go are no agreement (W4, W5).
fn nothing_to_change(held: usize, kept: usize) -> String {
    match (held, kept) {
        (0, 0) => "there is nothing to change".to_owned(),
        (held, 0) => format!("there is nothing to change but {held} deletions that are held"),
        (_, kept) => format!("there is nothing to change; objects kept under --policy upsert-only: {kept}"),
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
        let (link, heartbeat) = (SessionHandle::default(), Heartbeat::default());
        let mut event_loop = EventLoop::new(reconciler, inbox, link, leadership.clone(), heartbeat, hour);
        leadership.extend(Instant::now() + hour);
        event_loop.enter_term();
        event_loop.outcome = Some(Status::InSync(0));
        let first_term = event_loop.term;
        let may_continue = |event_loop: &EventLoop, term| {
            let (inbox, leadership) = (&event_loop.inbox, &event_loop.leadership);
            let (begun, writes, later) = (Instant::now(), Cell::default(), RefCell::default());
            LiveContext { inbox, leadership, term, begun, writes, later }.should_continue()
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
