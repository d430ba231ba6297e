//! Whether the event loop still turns: a daemon that checks alive and does nothing is worse than none (X1).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often the idle loop turns, and how often the watchdog checks.
pub const BEAT: Duration = Duration::from_secs(5);

/// After so many checks without a turn in between the loop stands still: 60 s. Checks are counted and not seconds, so
/// that a process that was stopped and goes on is not taken for a hanging one.
const STALLED_AFTER: u32 = 12;

/// Counts the turns of the loop, the bounded requests within it included.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// The loop turns.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a check at a heartbeat finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Liveness {
    /// The loop turned since the last check.
    Alive,
    /// It did not, perhaps by chance.
    Waiting,
    /// It did not for several checks; that may be a long request.
    Slow,
    /// It has not turned for too long.
    Stalled,
}

/// Checks at a heartbeat, once a [`BEAT`].
#[derive(Debug)]
pub struct Watchdog {
    heartbeat: Heartbeat,
    last: u64,
    checks: u32,
}

impl Watchdog {
    /// A watchdog that has not looked yet.
    pub fn new(heartbeat: Heartbeat) -> Watchdog {
        Watchdog { heartbeat, last: 0, checks: 0 }
    }

    /// Checks.
    pub fn check(&mut self) -> Liveness {
        let now = self.heartbeat.0.load(Ordering::Relaxed);
        // Before its first turn there is no loop that could stand still: what comes then is bounded by itself.
        self.checks = if now == self.last && now > 0 { self.checks + 1 } else { 0 };
        self.last = now;
        match self.checks {
            0 => Liveness::Alive,
            1 => Liveness::Waiting,
            STALLED_AFTER.. => Liveness::Stalled,
            _ => Liveness::Slow,
        }
    }
}
