//! Whether the event loop still turns: a daemon that looks alive and does nothing is worse than none (X1).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often the idle loop turns, and how often somebody looks.
pub const BEAT: Duration = Duration::from_secs(5);

/// After so many looks without a turn in between the loop stands still: 60 s. Looks are counted and not seconds, so
/// that a process that was stopped and goes on is not taken for a hanging one.
const PATIENCE: u32 = 12;

/// Counts the turns of the loop, the bounded requests within it included.
#[derive(Debug, Clone, Default)]
pub struct Heart(Arc<AtomicU64>);

impl Heart {
    /// The loop turns.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a look at a heart finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// The loop turned since the last look.
    Turned,
    /// It did not, perhaps by chance.
    Waits,
    /// It did not for several looks; that may be a long request.
    Busy,
    /// It has not turned for too long.
    StandsStill,
}

/// Looks at a heart, once a [`BEAT`].
#[derive(Debug)]
pub struct Monitor {
    heart: Heart,
    last: u64,
    looks: u32,
}

impl Monitor {
    /// A monitor that has not looked yet.
    pub fn new(heart: Heart) -> Monitor {
        Monitor { heart, last: 0, looks: 0 }
    }

    /// Looks.
    pub fn look(&mut self) -> Look {
        let now = self.heart.0.load(Ordering::Relaxed);
        // Before its first turn there is no loop that could stand still: what comes then is bounded by itself.
        self.looks = if now == self.last && now > 0 { self.looks + 1 } else { 0 };
        self.last = now;
        match self.looks {
            0 => Look::Turned,
            1 => Look::Waits,
            PATIENCE.. => Look::StandsStill,
            _ => Look::Busy,
        }
    }
}
