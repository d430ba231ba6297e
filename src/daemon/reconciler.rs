//! The reconciler's loop: the one place that waits, the one place that handles, and when a pass is due.
//!
//! What a pass does is the engine's business.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, never, select, tick};
use log::{info, warn};

use super::engine::Engine;
use super::heart::{BEAT, Heart};
use crate::apic::access::Watched;
use crate::apic::{self, Client, Link};
use crate::backoff::{Backoff, stopped};
use crate::kube;
use crate::model::plan::Tally;

/// A pass starts this long after the first event that it serves, so that events that belong together share it.
const GATHER: Duration = Duration::from_millis(20);

/// How long the first pass waits for all three lists. What is known by then is created; nothing is deleted (W1).
const FIRST_LISTS: Duration = Duration::from_secs(10);

/// After so many passes in a row that could not reach the APIC the session is given up for another controller (A1).
const PATIENCE: u32 = 3;

/// A wish of the person at the terminal.
#[derive(Debug, Clone, Copy)]
pub enum Command {
    /// SIGUSR1: log the full status.
    LogStatus,
    /// SIGUSR2: the deletions that the brake holds may go on (W4).
    ReleaseHeld,
}

/// Everything that can happen to the reconciler.
enum Event {
    Cluster(kube::Event),
    Fabric(apic::Event),
    Command(Command),
    /// A deadline has come: a pass or a comparison is due.
    Timer,
    /// Nothing happened: the loop turns all the same (X1).
    Beat,
    /// The program is stopping, or nobody is left who could say anything.
    Stop,
}

/// The thread that owns all state.
pub struct Reconciler {
    engine: Engine,
    inbox: Inbox,
    link: Link,
    heart: Heart,
    beat: Receiver<Instant>,
    resync: Duration,
    client: Option<Client>,
    pass_at: Option<Instant>,
    compare_at: Instant,
    started: Instant,
    backoff: Backoff,
    failures: u32,
}

/// What the reconciler waits for.
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

impl Reconciler {
    /// A reconciler that has not seen anything yet.
    pub fn new(engine: Engine, inbox: Inbox, link: Link, heart: Heart, resync: Duration) -> Self {
        let now = Instant::now();
        Reconciler {
            engine,
            inbox,
            link,
            heart,
            beat: tick(BEAT),
            resync,
            client: None,
            pass_at: None,
            compare_at: now + resync,
            started: now,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
            failures: 0,
        }
    }

    /// Serves events until the program stops.
    pub fn run(mut self) {
        loop {
            self.heart.beat();
            match self.next_event() {
                Event::Stop => return,
                event => self.handle(event),
            }
        }
    }

    fn next_event(&self) -> Event {
        let now = Instant::now();
        let wake = self.engine.next_wake(now).filter(|_| self.client.is_some());
        // A pass that is due already is not brought forward: it may be waiting because the APIC is busy (W8).
        let deadline = [self.pass_at.or(wake), Some(self.compare_at)].into_iter().flatten().min();
        let timer = deadline.map_or_else(never, |it| after(it.saturating_duration_since(now)));
        select! {
            recv(self.inbox.stop) -> _ => Event::Stop,
            recv(self.inbox.cluster) -> event => event.map_or(Event::Stop, Event::Cluster),
            recv(self.inbox.fabric) -> event => event.map_or(Event::Stop, Event::Fabric),
            recv(self.inbox.commands) -> command => command.map_or(Event::Stop, Event::Command),
            recv(timer) -> _ => Event::Timer,
            recv(self.beat) -> _ => Event::Beat,
        }
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Cluster(event) => {
                if self.engine.cluster_changed(event, now) {
                    self.pass_soon(now);
                }
            }
            Event::Fabric(apic::Event::Changed { subscriptions, changes }) => {
                if self.engine.fabric_changed(&subscriptions, &changes) {
                    self.pass_soon(now);
                }
            }
            Event::Fabric(apic::Event::Connected(client)) => {
                info!("logged in at the APIC {}, websocket open", client.controller());
                self.engine.subscriptions_lost(None);
                self.client = Some(client);
                self.failures = 0;
                self.pass_soon(now);
            }
            Event::Fabric(apic::Event::Gap { why }) => {
                info!("events from the APIC may have been lost ({why}): everything is compared");
                self.engine.subscriptions_lost(self.client.as_ref().map(|it| it as &dyn apic::access::Access));
                self.pass_soon(now);
            }
            Event::Fabric(apic::Event::Disconnected { why }) => {
                warn!("the APIC session is gone: {why}");
                self.engine.subscriptions_lost(None);
                self.client = None;
            }
            Event::Command(Command::LogStatus) => self.log_status(now),
            Event::Command(Command::ReleaseHeld) => {
                if self.engine.release_held() {
                    self.pass_soon(now);
                }
            }
            Event::Timer => {
                if self.compare_at <= now {
                    self.compare_at = now + self.resync;
                    self.engine.compare_all();
                }
                self.pass(now);
            }
            Event::Beat | Event::Stop => {}
        }
    }

    /// Asks for a pass; the first one who asks sets the time.
    fn pass_soon(&mut self, now: Instant) {
        self.pass_at.get_or_insert(now + GATHER);
    }

    fn pass(&mut self, now: Instant) {
        self.pass_at = None;
        let Some(client) = self.client.clone() else { return };
        let lists_due = self.started + FIRST_LISTS;
        if !self.engine.is_listed() && now < lists_due {
            self.pass_at = Some(lists_due);
            return;
        }
        let stop = self.inbox.stop.clone();
        let apic = Watched { client: &client, goes_on: &|| self.heart.beat() };
        let outcome = self.engine.pass(&apic, now, &|| !stopped(&stop));
        let now = Instant::now();
        match outcome {
            Ok(report) => {
                self.failures = 0;
                if !report.done.is_empty() {
                    info!("pass done: {}", Tally::of(&report.done).past());
                }
                if report.unfinished {
                    self.pass_at = Some(now + self.backoff.pause());
                } else {
                    self.backoff.reset();
                }
            }
            Err(_) if stopped(&stop) => {}
            Err(error @ apic::Error::Unauthorized(_)) => {
                self.client = None;
                self.link.relogin(&client, &error.to_string());
            }
            Err(error) => {
                self.failures += 1;
                let pause = self.backoff.pause();
                warn!("the pass ended early: {error}; the next one comes in {:.1} s", pause.as_secs_f64());
                self.pass_at = Some(now + pause);
                if matches!(error, apic::Error::Unreachable(_)) && self.failures >= PATIENCE {
                    self.failures = 0;
                    self.client = None;
                    self.link.reconnect(&client, &error.to_string());
                }
            }
        }
    }

    fn log_status(&self, now: Instant) {
        match &self.client {
            Some(client) => info!("status: logged in at the APIC {}", client.controller()),
            None => info!("status: no session at an APIC"),
        }
        for line in self.engine.status(now) {
            info!("status: {line}");
        }
    }
}
