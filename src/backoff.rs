//! Pauses that grow with each failure, with jitter, and that a stop ends.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

/// The pauses between tries: doubling from the first to the longest, each spread over [d/2, d], so that several daemons
/// that lost the same server do not come back at the same moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from about `first` up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Backoff { first, longest, next: first }
    }

    /// The pause to make now; the following one is twice as long.
    pub fn pause(&mut self) -> Duration {
        self.pause_by(random_unit())
    }

    /// The same, with the caller's random number in [0, 1).
    pub fn pause_by(&mut self, random: f64) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(self.longest);
        pause.mul_f64(0.5 + random / 2.0)
    }

    /// After a success the pauses start over.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A pause as log lines show it (`retry_in`): `2.0s`.
pub fn seconds(pause: Duration) -> String {
    format!("{:.1}s", pause.as_secs_f64())
}

/// A random number in [0, 1): the standard library's hash keys are random, and jitter needs no more.
pub fn random_unit() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// Waits on the stop channel; true if the program is stopping. Nothing is ever sent on it: main drops its sender, and
/// every receiver wakes with an error.
pub fn stopped_within(stop: &Receiver<()>, pause: Duration) -> bool {
    !matches!(stop.recv_timeout(pause), Err(RecvTimeoutError::Timeout))
}

/// True once the stop channel is closed.
pub fn stopped(stop: &Receiver<()>) -> bool {
    stopped_within(stop, Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W8: pauses double, stay under the longest, never fall below half of their step, and start over.
    #[test]
    fn pauses_grow_and_start_over() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 4 * second);
        for step in [1, 2, 4, 4] {
            let pause = backoff.pause();
            assert!(pause >= step * second / 2 && pause <= step * second, "{pause:?} in step {step}");
        }
        backoff.reset();
        assert!(backoff.pause() <= second);
    }

    /// X2: a closed stop channel ends a wait at once.
    #[test]
    fn a_closed_channel_stops() {
        let (sender, stop) = crossbeam_channel::bounded::<()>(0);
        assert!(!stopped(&stop));
        drop(sender);
        assert!(stopped_within(&stop, Duration::from_secs(3600)));
    }
}
