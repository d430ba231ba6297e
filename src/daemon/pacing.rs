//! When a pass is due, and what its end leads to. It decides and does not wait: the loop around it is the reconciler's.

use std::time::{Duration, Instant};

use super::engine::{Engine, Report};
use crate::apic::Error;
use crate::backoff::Backoff;

/// A pass starts this long after the first event that it serves, so that events that belong together share it.
const GATHER: Duration = Duration::from_millis(20);

/// How long the first pass waits for all three lists. What is known by then is created; nothing is deleted (W1).
const FIRST_LISTS: Duration = Duration::from_secs(10);

/// After so many passes in a row that could not reach the APIC the session is given up for another controller (A1).
const PATIENCE: u32 = 3;

/// What the end of a pass leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is left to do.
    Done,
    /// The next pass comes after this pause.
    Again(Duration),
    /// The session is not accepted: a new login (W8).
    Relogin,
    /// The controller cannot be reached: another one (A1).
    Reconnect,
}

/// The deadlines of the reconciler.
#[derive(Debug)]
pub struct Pacing {
    pass_at: Option<Instant>,
    compare_at: Instant,
    resync: Duration,
    lists_due: Instant,
    backoff: Backoff,
    failures: u32,
}

impl Pacing {
    /// For a program that starts now and compares everything every so often.
    pub fn new(resync: Duration, now: Instant) -> Self {
        Pacing {
            pass_at: None,
            compare_at: now + resync,
            resync,
            lists_due: now + FIRST_LISTS,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
            failures: 0,
        }
    }

    /// Asks for a pass; the first one who asks sets the time. A pass that waits for the first lists has gathered enough:
    /// with each event it is looked at once whether it still has to wait.
    pub fn pass_soon(&mut self, now: Instant) {
        let waits_for_lists = self.pass_at.take_if(|at| *at == self.lists_due).is_some();
        self.pass_at.get_or_insert(if waits_for_lists { now } else { now + GATHER });
    }

    /// A new session is open.
    pub fn connected(&mut self, now: Instant) {
        self.failures = 0;
        self.pass_soon(now);
    }

    /// When something is due. `wake` is when the engine wants a pass; one that is due already is not brought forward
    /// by it: it may be waiting because the APIC is busy (W8).
    pub fn deadline(&self, wake: Option<Instant>) -> Instant {
        self.pass_at.or(wake).map_or(self.compare_at, |at| at.min(self.compare_at))
    }

    /// The deadline has come: whether a pass is made now. A comparison that is due is asked for.
    pub fn is_pass_due(&mut self, engine: &mut Engine, has_session: bool, now: Instant) -> bool {
        if self.compare_at <= now {
            self.compare_at = now + self.resync;
            engine.compare_all();
        }
        self.pass_at = None;
        if !has_session {
            return false;
        }
        let waits = !engine.is_listed() && now < self.lists_due;
        self.pass_at = waits.then_some(self.lists_due);
        !waits
    }

    /// A pass ended. `random` is a random number in [0, 1).
    pub fn pass_ended(&mut self, outcome: &Result<Report, Error>, random: f64, now: Instant) -> Verdict {
        match outcome {
            Ok(report) => {
                self.failures = 0;
                if !report.unfinished {
                    self.backoff.reset();
                    return Verdict::Done;
                }
            }
            Err(Error::Unauthorized(_)) => return Verdict::Relogin,
            Err(_) => self.failures += 1,
        }
        let pause = self.backoff.pause_by(random);
        self.pass_at = Some(now + pause);
        if matches!(outcome, Err(Error::Unreachable(_))) && self.failures >= PATIENCE {
            self.failures = 0;
            return Verdict::Reconnect;
        }
        Verdict::Again(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Policy;
    use crate::kube;

    use crate::model::kube::Kind;
    use crate::model::owner::Owner;
    use crate::model::rules::Rules;

    fn engine() -> Engine {
        Engine::new(Owner::new("me", &[]), Rules::default(), Policy::Sync, Duration::ZERO)
    }

    /// W1: the first pass waits for the lists, and no longer than for the last of them.
    #[test]
    fn the_first_pass_waits_for_the_lists_only() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut engine = engine();
        let mut pacing = Pacing::new(600 * second, start);
        pacing.connected(start);
        for (n, kind) in (1..).zip(Kind::ALL) {
            let due = pacing.deadline(None);
            assert_eq!(due, start + (n - 1) * second + if n == 1 { GATHER } else { Duration::ZERO });
            assert!(!pacing.is_pass_due(&mut engine, true, due), "{kind}s are not listed");
            assert_eq!(pacing.deadline(None), start + FIRST_LISTS);
            assert!(engine.cluster_changed(kube::Event::Listed { kind, objects: Vec::new() }, start + n * second));
            pacing.pass_soon(start + n * second);
        }
        let due = pacing.deadline(None);
        assert_eq!(due, start + 3 * second);
        assert!(pacing.is_pass_due(&mut engine, true, due));
    }

    /// W1: a list that does not come holds the first pass up for a while only.
    #[test]
    fn the_first_pass_waits_ten_seconds_at_most() {
        let start = Instant::now();
        let mut engine = engine();
        let mut pacing = Pacing::new(60 * FIRST_LISTS, start);
        pacing.connected(start);
        assert!(!pacing.is_pass_due(&mut engine, true, start + GATHER));
        assert!(pacing.is_pass_due(&mut engine, true, pacing.deadline(None)));
    }
}
