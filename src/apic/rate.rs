//! How fast requests to a controller may follow one another (W8): a token bucket that slows down when the controller
//! refuses requests. It only computes: the time is an argument, and the pause is the result.
//!
//! Cisco recommends a throttle of 30 requests a second on every APIC, enforced by its web server with a 503. How large a
//! burst that server lets through is not documented, so a refusal first of all ends our own bursts.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After idling, this many requests may follow one another without a pause.
const BURST: f64 = 20.0;

/// After a refusal there are no bursts, and the rate does not rise, for this long.
const CALM: Duration = Duration::from_secs(60);

/// After that the rate rises by a tenth of the configured one at this interval.
const RISE: Duration = Duration::from_secs(10);

/// If this many of the last requests were refused, the rate is too high. Fewer refusals have another cause, such as an
/// overload, and a lower rate would not help.
const REMEMBERED: usize = 10;
const TOO_MANY: usize = 4;

/// The rate is then multiplied by this. It is slightly less than a half: requests do not arrive as evenly as they are sent,
/// so some would be refused at exactly the controller's own limit.
const CUT: f64 = 0.48;

/// The rate never falls below this, in requests a second.
const SLOWEST: f64 = 0.5;

/// The token bucket. All sessions share one, because one controller is used at a time.
#[derive(Debug)]
pub struct RateLimit {
    /// Requests a second; `None`: no limit.
    configured: Option<f64>,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Requests that may be sent at once. Below zero: requests that already wait for their turn.
    tokens: f64,
    /// When the tokens were counted.
    counted: Instant,
    /// Requests a second at present.
    rate: f64,
    /// What follows from refusals, until the rate has recovered.
    calm: Option<Calm>,
    /// Whether each of the last requests was refused.
    recent: VecDeque<bool>,
}

/// No bursts and no rising rate.
#[derive(Debug, Clone, Copy)]
struct Calm {
    /// When the first refusal ended bursts.
    begun: Instant,
    /// The last refusal.
    refused: Instant,
    /// The rate right after it.
    rate: f64,
}

impl RateLimit {
    /// A limit of this many requests a second, or none.
    pub fn new(per_second: Option<u32>, now: Instant) -> Self {
        let configured = per_second.map(f64::from);
        let bucket = Bucket {
            tokens: BURST,
            counted: now,
            rate: configured.unwrap_or(f64::INFINITY),
            calm: None,
            recent: VecDeque::with_capacity(REMEMBERED),
        };
        RateLimit { configured, bucket: Mutex::new(bucket) }
    }

    /// Whether there is a limit at all.
    pub fn is_limited(&self) -> bool {
        self.configured.is_some()
    }

    /// Takes the next turn, and returns how long to wait for it.
    pub fn next_turn(&self, now: Instant) -> Duration {
        let Some(configured) = self.configured else { return Duration::ZERO };
        let bucket = &mut *self.bucket();
        bucket.recover(configured, now);
        bucket.tokens = bucket.tokens_at(now) - 1.0;
        bucket.counted = now;
        Duration::from_secs_f64((-bucket.tokens / bucket.rate).max(0.0))
    }

    /// Whether the next turn comes within this time.
    pub fn has_turn_within(&self, time: Duration, now: Instant) -> bool {
        let Some(configured) = self.configured else { return true };
        let bucket = &mut *self.bucket();
        bucket.recover(configured, now);
        bucket.tokens_at(now) + time.as_secs_f64() * bucket.rate >= 1.0
    }

    /// A request that was sent at `sent` was refused with 503 or 429. Returns the new rate if that, or the end of bursts,
    /// is new.
    pub fn refused(&self, sent: Instant, now: Instant) -> Option<f64> {
        let configured = self.configured?;
        let bucket = &mut *self.bucket();
        bucket.recover(configured, now);
        // Of several requests in flight, the others that a burst sent may be refused too: that says nothing about the rate.
        if bucket.calm.is_some_and(|calm| calm.begun < sent) {
            bucket.remember(true);
        }
        if bucket.recent.iter().filter(|refused| **refused).count() >= TOO_MANY {
            bucket.rate = (bucket.rate * CUT).max(SLOWEST.min(configured));
            bucket.recent.clear();
        }
        bucket.tokens = bucket.tokens.min(0.0);
        let begun = bucket.calm.map_or(now, |calm| calm.begun);
        let before = bucket.calm.replace(Calm { begun, refused: now, rate: bucket.rate });
        (before.is_none_or(|calm| calm.rate > bucket.rate)).then_some(bucket.rate)
    }

    /// A request was answered, whatever the answer says.
    pub fn answered(&self) {
        self.bucket().remember(false);
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn tokens_at(&self, now: Instant) -> f64 {
        let capacity = if self.calm.is_some() { 1.0 } else { BURST };
        let gained = now.saturating_duration_since(self.counted).as_secs_f64() * self.rate;
        (self.tokens + gained).min(capacity)
    }

    fn recover(&mut self, configured: f64, now: Instant) {
        let Some(Calm { refused, rate, .. }) = self.calm else { return };
        let Some(over) = now.checked_duration_since(refused + CALM) else { return };
        let steps = over.as_secs() / RISE.as_secs();
        self.rate = (rate + configured / 10.0 * steps as f64).min(configured);
        if self.rate >= configured {
            self.calm = None;
        }
    }

    fn remember(&mut self, refused: bool) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends requests, each at its turn, and returns when the last one was sent.
    fn send(limit: &RateLimit, requests: usize, mut now: Instant) -> Instant {
        for _ in 0..requests {
            now += limit.next_turn(now);
            limit.answered();
        }
        now
    }

    /// W8: a burst after idling, then the rate; without a limit nothing waits.
    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let limit = RateLimit::new(Some(20), start);
        let burst = send(&limit, 20, start);
        assert_eq!(burst, start);
        assert_eq!(send(&limit, 40, burst) - start, ms(2000));
        let idle = start + ms(60_000);
        assert_eq!(send(&limit, 21, idle) - idle, ms(50));
        let none = RateLimit::new(None, start);
        assert_eq!(none.refused(start, start), None);
        assert_eq!(send(&none, 10_000, start), start);
    }

    /// W8: threads that ask at the same time get one turn after the other.
    #[test]
    fn every_request_has_a_turn_of_its_own() {
        let start = Instant::now();
        let limit = RateLimit::new(Some(10), start);
        send(&limit, 20, start);
        let turns: Vec<Duration> = (0..3).map(|_| limit.next_turn(start)).collect();
        assert_eq!(turns, [ms(100), ms(200), ms(300)]);
    }

    /// W8: the first refusal ends bursts for a minute and leaves the rate as it is.
    #[test]
    fn a_refusal_ends_bursts() {
        let start = Instant::now();
        let limit = RateLimit::new(Some(20), start);
        assert_eq!(limit.refused(start, start), Some(20.0));
        assert_eq!(limit.refused(start, start), None, "nothing new");
        assert_eq!(send(&limit, 20, start) - start, ms(1000));
        let later = start + ms(59_000);
        assert_eq!(send(&limit, 3, later) - later, ms(100));
        let recovered = start + ms(61_000);
        assert_eq!(send(&limit, 20, recovered), recovered);
    }

    /// W8: the other requests of the refused burst do not lower the rate, however many were in flight. Later ones do.
    #[test]
    fn a_refused_burst_keeps_the_rate() {
        let start = Instant::now();
        let limit = RateLimit::new(Some(20), start);
        assert_eq!(limit.refused(start, start + ms(20)), Some(20.0));
        for _ in 0..7 {
            assert_eq!(limit.refused(start + ms(19), start + ms(40)), None);
        }
        let refusals: Vec<Option<f64>> = (0..4).map(|_| limit.refused(start + ms(50), start + ms(70))).collect();
        assert_eq!(refusals, [None, None, None, Some(9.6)]);
    }

    /// W8: a refusal now and then, as every seventh request, does not slow requests down; four of ten do, again and again.
    #[test]
    fn many_refusals_halve_the_rate() {
        let start = Instant::now();
        let limit = RateLimit::new(Some(20), start);
        let gap = |now: Instant| limit.next_turn(now).as_secs_f64();
        let mut now = start;
        for _ in 0..20 {
            limit.refused(now, now);
            now = send(&limit, 6, now);
        }
        assert!((gap(now) - 1.0 / 20.0).abs() < 1e-6);
        for rate in [9.6, 4.608, 2.212] {
            for _ in 0..4 {
                limit.refused(now, now);
            }
            now += ms(10_000);
            limit.next_turn(now);
            assert!((gap(now) - 1.0 / rate).abs() < 1e-3, "{rate}");
        }
        for _ in 0..100 {
            limit.refused(now, now);
        }
        now += ms(10_000);
        limit.next_turn(now);
        assert!((gap(now) - 2.0).abs() < 1e-6, "never slower than a request in two seconds");
    }

    /// W8: a minute after the last refusal the rate rises by a tenth of the configured one every ten seconds.
    #[test]
    fn the_rate_comes_back_slowly() {
        let start = Instant::now();
        let limit = RateLimit::new(Some(10), start);
        limit.refused(start - ms(1), start - ms(1));
        for _ in 0..4 {
            limit.refused(start, start);
        }
        for (seconds, rate) in [(59, 4.8), (60, 4.8), (70, 5.8), (89, 6.8), (110, 9.8)] {
            let now = start + Duration::from_secs(seconds);
            limit.next_turn(now);
            let gap = limit.next_turn(now).as_secs_f64();
            assert!((gap - 1.0 / rate).abs() < 1e-6, "{rate} after {seconds} s: {gap}");
        }
        let now = start + Duration::from_secs(121);
        assert_eq!(send(&limit, 1, now), now);
        assert!(limit.bucket().calm.is_none());
    }
}
