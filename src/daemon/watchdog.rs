//! Whether the event loop makes progress: a daemon that looks alive and does nothing is worse than none (X1).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics;

/// How often the idle loop turns, and how often the watchdog checks.
pub const BEAT: Duration = Duration::from_secs(5);

/// After this many checks without progress the loop is stalled: 60 s. Checks are counted and not seconds, so that a process
/// that was suspended is not taken for a stalled one.
const STALLED_AFTER: u32 = 12;

/// Counts the progress of the loop, including each bounded request within a reconcile.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// The loop makes progress.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        metrics::heartbeat();
    }
}

/// What a check finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Liveness {
    /// There was progress since the last check.
    Alive,
    /// There was none, perhaps by chance.
    Waiting,
    /// There was none for several checks; a request may take long.
    Slow,
    /// There was none for too long.
    Stalled,
}

/// Checks a heartbeat, once every [`BEAT`].
#[derive(Debug)]
pub struct Watchdog {
    heartbeat: Heartbeat,
    last: u64,
    checks: u32,
}

impl Watchdog {
    /// A watchdog that has not checked yet.
    pub fn new(heartbeat: Heartbeat) -> Watchdog {
        Watchdog { heartbeat, last: 0, checks: 0 }
    }

    /// Checks for progress since the last call.
    pub fn check(&mut self) -> Liveness {
        let now = self.heartbeat.0.load(Ordering::Relaxed);
        // Before the first beat there is no loop yet; what runs before it has limits of its own.
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
