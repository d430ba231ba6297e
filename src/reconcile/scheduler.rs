//! When a reconcile is due, and what follows from its end. It decides and does not wait: waiting is the event loop's.

use std::time::{Duration, Instant};

use super::{Reconciler, Report};
use crate::apic::Error;
use crate::apic::adapters::Outcomes;
use crate::backoff::Backoff;

/// A reconcile starts this long after the first event that it serves, so that a burst of events shares it.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// While further events arrive within this time of one another, a reconcile waits for the end of the burst, up to
/// [`MAX_BURST`] after the first of them.
const QUIET: Duration = Duration::from_millis(5);
const MAX_BURST: Duration = Duration::from_millis(100);

/// The longest debounce. After a reconcile that only computed, the next one waits as long as that took: while a namespace
/// changes thousands of objects one by one, at most half of the time is spent on computing (X3).
const MAX_DEBOUNCE: Duration = Duration::from_millis(500);

/// How long the first reconcile waits for all lists. After that it creates what is known and deletes nothing (W1).
const MAX_FIRST_LISTS: Duration = Duration::from_secs(10);

/// After this long without a served read, or without a served write, the next controller is tried (A1).
const MAX_UNSERVED: Duration = Duration::from_secs(60);

/// What follows from the end of a reconcile.
#[derive(Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing is left to do.
    Done,
    /// The next reconcile comes after this pause.
    RetryIn(Duration),
    /// The APIC does not accept the session any more: log in again (W8).
    Relogin,
    /// The controller does not serve requests any more: try another one (A1).
    Reconnect,
}

/// The deadlines of the event loop.
#[derive(Debug)]
pub struct Scheduler {
    reconcile_at: Option<Instant>,
    full_sync_at: Instant,
    resync: Duration,
    lists_due: Instant,
    backoff: Backoff,
    debounce: Duration,
    /// The first event that the next reconcile serves.
    burst_since: Option<Instant>,
    /// Since when the controller has served no read, and no write.
    reads: Unserved,
    writes: Unserved,
}

/// Since when no request of a kind was served. Nothing while requests are served, and while there are none.
#[derive(Debug, Default)]
struct Unserved(Option<Instant>);

impl Unserved {
    fn observe(&mut self, outcomes: Outcomes, now: Instant) {
        if outcomes.served > 0 {
            self.0 = None;
        } else if outcomes.failed > 0 {
            self.0.get_or_insert(now);
        }
    }

    fn has_lasted(&self, now: Instant) -> bool {
        self.0.is_some_and(|since| now.saturating_duration_since(since) >= MAX_UNSERVED)
    }
}

/// What a reconcile came to.
#[derive(Debug)]
pub struct EndedReconcile<'a> {
    /// Its report, or what ended it early.
    pub outcome: &'a Result<Report, Error>,
    /// What became of its reads.
    pub reads: Outcomes,
    /// What became of its writes.
    pub writes: Outcomes,
    /// How long it took.
    pub took: Duration,
}

impl Scheduler {
    /// For a process that starts now. `resync`: the interval of full syncs.
    pub fn new(resync: Duration, now: Instant) -> Self {
        Scheduler {
            reconcile_at: None,
            full_sync_at: now + resync,
            resync,
            lists_due: now + MAX_FIRST_LISTS,
            debounce: DEBOUNCE,
            burst_since: None,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
            reads: Unserved::default(),
            writes: Unserved::default(),
        }
    }

    /// Requests a reconcile; the first request sets the time. While the first reconcile waits for the lists, each event
    /// causes one check whether it still has to wait.
    pub fn reconcile_soon(&mut self, now: Instant) {
        let waits_for_lists = self.reconcile_at.take_if(|at| *at == self.lists_due).is_some();
        match (self.reconcile_at, self.burst_since) {
            (None, _) if waits_for_lists => self.reconcile_at = Some(now),
            (None, _) => {
                self.burst_since = Some(now);
                self.reconcile_at = Some(now + self.debounce);
            }
            (Some(at), Some(since)) => self.reconcile_at = Some(at.max((now + QUIET).min(since + MAX_BURST))),
            // It waits for another reason, such as a busy APIC.
            (Some(_), None) => {}
        }
    }

    /// A new session is open.
    pub fn connected(&mut self, now: Instant) {
        (self.reads, self.writes) = Default::default();
        self.reconcile_soon(now);
    }

    /// When something is due. `wake` says when a reconcile is due although no event has arrived. It is called only if no
    /// reconcile is scheduled: it must not bring forward one that waits because the APIC is busy (W8), and it looks at much
    /// while this is called with every event (X3).
    pub fn deadline(&self, wake: impl FnOnce() -> Option<Instant>) -> Instant {
        self.reconcile_at.or_else(wake).map_or(self.full_sync_at, |at| at.min(self.full_sync_at))
    }

    /// The deadline has come: takes what is due. True if a reconcile starts now; a full sync that is due is requested.
    pub fn take_due(&mut self, reconciler: &mut Reconciler, has_session: bool, now: Instant) -> bool {
        if self.full_sync_at <= now {
            self.full_sync_at = now + self.resync;
            reconciler.request_full_sync();
        }
        self.reconcile_at = None;
        self.burst_since = None;
        if !has_session {
            return false;
        }
        let waits = !reconciler.is_listed() && now < self.lists_due;
        self.reconcile_at = waits.then_some(self.lists_due);
        !waits
    }

    /// A reconcile ended. `random` is a random number in [0, 1).
    ///
    /// The pauses start over after any progress: a throttled APIC serves a part of the work each time, and longer pauses
    /// would not help it.
    pub fn reconcile_ended(&mut self, ended: &EndedReconcile<'_>, random: f64, now: Instant) -> NextStep {
        let requests = ended.reads.total() + ended.writes.total();
        self.debounce = if requests == 0 { ended.took.clamp(DEBOUNCE, MAX_DEBOUNCE) } else { DEBOUNCE };
        self.reads.observe(ended.reads, now);
        self.writes.observe(ended.writes, now);
        match ended.outcome {
            Ok(report) if !report.unfinished => {
                // Deferred objects are no reason to give up the session.
                (self.reads, self.writes) = Default::default();
                self.backoff.reset();
                return NextStep::Done;
            }
            Err(Error::Unauthorized(_)) => return NextStep::Relogin,
            Ok(_) | Err(_) => {}
        }
        if self.reads.has_lasted(now) || self.writes.has_lasted(now) {
            (self.reads, self.writes) = Default::default();
            return NextStep::Reconnect;
        }
        if ended.outcome.as_ref().is_ok_and(|report| report.unread > 0) {
            // It read a part of what it has to, so that no change waits for the rest. What has come in meanwhile is heard
            // before the next one.
            self.backoff.reset();
            self.reconcile_at = Some(now + DEBOUNCE);
            return NextStep::RetryIn(DEBOUNCE);
        }
        let has_progress = match ended.outcome {
            Ok(report) => !report.written.is_empty(),
            Err(_) if ended.writes.failed > 0 => ended.writes.served > 0,
            Err(_) => ended.writes.served > 0 || ended.reads.served > 0,
        };
        if has_progress {
            self.backoff.reset();
        }
        let pause = self.backoff.pause_by(random);
        self.reconcile_at = Some(now + pause);
        NextStep::RetryIn(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube;
    use crate::model::rules::Policy;

    use crate::model::kubernetes::Kind;
    use crate::model::owner::OwnerIdentity;
    use crate::model::rules::Rules;

    fn reconciler() -> Reconciler {
        Reconciler::new(OwnerIdentity::new("me", &[]), Rules::default(), Policy::Sync, Duration::ZERO)
    }

    /// W1: the first reconcile waits for the lists, and no longer than for the last of them.
    #[test]
    fn the_first_pass_waits_for_the_lists_only() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut reconciler = reconciler();
        let mut scheduler = Scheduler::new(600 * second, start);
        scheduler.connected(start);
        for (n, kind) in (1..).zip(Kind::DEFAULT) {
            let due = scheduler.deadline(|| None);
            assert_eq!(due, start + (n - 1) * second + if n == 1 { DEBOUNCE } else { Duration::ZERO });
            assert!(!scheduler.take_due(&mut reconciler, true, due), "{kind}s are not listed");
            assert_eq!(scheduler.deadline(|| None), start + MAX_FIRST_LISTS);
            assert!(reconciler.cluster_changed(kube::Event::Listed { kind, objects: Vec::new() }, start + n * second));
            scheduler.reconcile_soon(start + n * second);
        }
        let due = scheduler.deadline(|| None);
        assert_eq!(due, start + 3 * second);
        assert!(scheduler.take_due(&mut reconciler, true, due));
    }

    /// W1: a list that does not come holds the first reconcile up for a while only.
    #[test]
    fn the_first_pass_waits_ten_seconds_at_most() {
        let start = Instant::now();
        let mut reconciler = reconciler();
        let mut scheduler = Scheduler::new(60 * MAX_FIRST_LISTS, start);
        scheduler.connected(start);
        assert!(!scheduler.take_due(&mut reconciler, true, start + DEBOUNCE));
        assert!(scheduler.take_due(&mut reconciler, true, scheduler.deadline(|| None)));
    }

    /// X3: what the reconciler waits for is not looked through with each event of a burst, only where no reconcile is due.
    #[test]
    fn a_burst_of_events_looks_at_nothing() {
        let start = Instant::now();
        let mut scheduler = Scheduler::new(60 * MAX_FIRST_LISTS, start);
        let looks = std::cell::Cell::new(0);
        let wake = || {
            looks.set(looks.get() + 1);
            Some(start + MAX_FIRST_LISTS)
        };
        assert_eq!((scheduler.deadline(wake), looks.get()), (start + MAX_FIRST_LISTS, 1));
        for _ in 0..5 {
            scheduler.reconcile_soon(start);
            assert_eq!((scheduler.deadline(wake), looks.get()), (start + DEBOUNCE, 1));
        }
    }

    /// A reconcile that did this, and what follows from it a moment later.
    fn ended(
        scheduler: &mut Scheduler,
        outcome: Result<Report, Error>,
        reads: (usize, usize),
        writes: (usize, usize),
        now: Instant,
    ) -> NextStep {
        let outcomes = |(served, failed)| Outcomes { served, failed };
        let ended = EndedReconcile {
            outcome: &outcome,
            reads: outcomes(reads),
            writes: outcomes(writes),
            took: Duration::ZERO,
        };
        scheduler.reconcile_ended(&ended, 1.0, now)
    }

    fn busy() -> Result<Report, Error> {
        Err(Error::Busy("503".to_owned()))
    }

    /// W8, A1: a session is given up when no read, or no write, was served for a minute, and not before, however many
    /// reconciles fail; one that is served starts the minute over.
    #[test]
    fn a_session_is_given_up_after_a_minute_without_service() {
        let second = Duration::from_secs(1);
        for (reads, writes) in [((0, 1), (0, 0)), ((5, 0), (0, 1))] {
            let start = Instant::now();
            let mut scheduler = Scheduler::new(600 * second, start);
            for at in 0..60 {
                let step = ended(&mut scheduler, busy(), reads, writes, start + at * second);
                assert!(matches!(step, NextStep::RetryIn(_)), "after {at} s");
            }
            ended(&mut scheduler, busy(), (1, 0), (1, 3), start + 60 * second);
            for at in 61..121 {
                let step = ended(&mut scheduler, busy(), reads, writes, start + at * second);
                assert!(matches!(step, NextStep::RetryIn(_)), "after {at} s");
            }
            assert_eq!(ended(&mut scheduler, busy(), reads, writes, start + 121 * second), NextStep::Reconnect);
            assert!(matches!(ended(&mut scheduler, busy(), reads, writes, start + 122 * second), NextStep::RetryIn(_)));
        }
    }

    /// X3: a reconcile that left L3Outs for the next one is followed by that at once, however often that happens.
    #[test]
    fn reads_in_turns_cost_no_pauses() {
        let start = Instant::now();
        let mut scheduler = Scheduler::new(Duration::from_secs(600), start);
        ended(&mut scheduler, busy(), (0, 1), (0, 0), start);
        for _ in 0..5 {
            let report = Report { unfinished: true, unread: 7, ..Report::default() };
            assert_eq!(ended(&mut scheduler, Ok(report), (20, 0), (0, 0), start), NextStep::RetryIn(DEBOUNCE));
            assert_eq!(scheduler.deadline(|| None), start + DEBOUNCE);
        }
    }

    /// W8: a write that was not served and is left alone since says nothing about the session an hour later; nor does the
    /// first one that is not served after reads that took their time.
    #[test]
    fn one_write_that_is_not_served_costs_no_session() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut scheduler = Scheduler::new(600 * second, start);
        let done = Ok(Report::default());
        assert_eq!(ended(&mut scheduler, done, (3, 0), (1, 1), start), NextStep::Done);
        let done = Ok(Report::default());
        assert_eq!(ended(&mut scheduler, done, (3, 0), (0, 1), start), NextStep::Done);
        let later = start + 3600 * second;
        assert!(matches!(ended(&mut scheduler, busy(), (0, 1), (0, 1), later), NextStep::RetryIn(_)));
    }

    /// W8: pauses grow while nothing is done, and start over after any progress.
    #[test]
    fn pauses_start_over_after_progress() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut scheduler = Scheduler::new(600 * second, start);
        for (reads, writes, pause) in [
            ((0, 1), (0, 0), 1),
            ((0, 1), (0, 0), 2),
            ((0, 1), (0, 0), 4),
            ((7, 1), (0, 0), 1),
            ((7, 0), (0, 1), 2),
            ((7, 0), (3, 1), 1),
            ((7, 0), (0, 1), 2),
        ] {
            let step = ended(&mut scheduler, busy(), reads, writes, start);
            assert_eq!(step, NextStep::RetryIn(pause * second), "{reads:?} {writes:?}");
        }
    }

    /// X3: a burst of events shares one reconcile, unless it does not end.
    #[test]
    fn a_burst_shares_one_reconcile() {
        let (start, milli) = (Instant::now(), Duration::from_millis(1));
        let mut scheduler = Scheduler::new(Duration::from_secs(600), start);
        for (at, due) in [(0, 20), (10, 20), (18, 23), (21, 26), (70, 75), (97, 100), (99, 100)] {
            scheduler.reconcile_soon(start + at * milli);
            assert_eq!(scheduler.deadline(|| None), start + due * milli, "after the event at {at} ms");
        }
    }

    /// X3: after a reconcile that only computed, the next one waits as long as that took; after one that waited for the
    /// APIC it does not.
    #[test]
    fn computing_takes_half_of_the_time() {
        let (start, milli) = (Instant::now(), Duration::from_millis(1));
        for (requests, took, debounce) in [(0, 5, 20), (0, 80, 80), (0, 3000, 500), (1, 80, 20)] {
            let mut scheduler = Scheduler::new(Duration::from_secs(600), start);
            let reads = Outcomes { served: requests, failed: 0 };
            let (outcome, writes) = (Ok(Report::default()), Outcomes::default());
            let ended = EndedReconcile { outcome: &outcome, reads, writes, took: took * milli };
            scheduler.reconcile_ended(&ended, 0.0, start);
            scheduler.reconcile_soon(start);
            assert_eq!(scheduler.deadline(|| None), start + debounce * milli, "{requests} {took}");
        }
    }
}
