//! The web server in front of each controller: which requests it refuses before the APIC's program sees them, and the
//! counts of what arrived.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::ApiError;
use super::requests::Reply;
use super::variants::{Throttle, Variants};

/// What the web servers of a cluster count.
#[derive(Debug, Default)]
pub struct Front {
    /// Requests that arrived, refused ones included.
    requests: u64,
    /// Requests that a throttle or one of the switches for failures refused.
    refused: usize,
    /// Requests that failed by `fail_share`.
    failed: usize,
    /// Requests that are not answered yet, and the most at any time.
    in_flight: usize,
    most_in_flight: usize,
    /// How many more requests get a JSON 503.
    busy: usize,
    /// Requests that each controller would still take at once, and when that was counted.
    buckets: BTreeMap<usize, (f64, Duration)>,
}

impl Front {
    /// Requests that arrived so far.
    pub fn requests(&self) -> usize {
        self.requests.try_into().unwrap_or(usize::MAX)
    }

    /// Requests that were refused so far.
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// A request arrived that is not answered yet.
    pub fn began(&mut self) {
        self.in_flight += 1;
        self.most_in_flight = self.most_in_flight.max(self.in_flight);
    }

    /// It is answered, or its connection has ended.
    pub fn ended(&mut self) {
        self.in_flight -= 1;
    }

    /// The most requests that were in flight together.
    pub fn most_in_flight(&self) -> usize {
        self.most_in_flight
    }

    /// Counts the most that are in flight together from now on.
    pub fn forget_most_in_flight(&mut self) {
        self.most_in_flight = self.in_flight;
    }

    /// This number of requests from now on get a JSON 503.
    pub fn be_busy(&mut self, times: usize) {
        self.busy = times;
    }

    /// Counts a request; returns the refusal if there is one.
    pub fn admit(&mut self, controller: usize, upgrade: bool, variants: &Variants, now: Duration) -> Option<Reply> {
        self.requests += 1;
        let refusal = self.refusal(controller, variants, now);
        self.refused += usize::from(refusal.is_some());
        if refusal.is_none() && self.busy > 0 && !upgrade {
            self.busy -= 1;
            let error = ApiError::new(503, 503, "Unable to deliver the message, Resolve timeout");
            return Some(Reply::error(&error, variants));
        }
        refusal
    }

    fn refusal(&mut self, controller: usize, variants: &Variants, now: Duration) -> Option<Reply> {
        if let Some(throttle) = variants.request_throttle
            && !self.takes_one_more(controller, throttle, now)
        {
            return Some(Reply { retry_after: throttle.retry_after, ..Reply::html(503) });
        }
        if variants.refuse_every.is_some_and(|every| every > 0 && self.requests.is_multiple_of(u64::from(every))) {
            return Some(Reply::html(503));
        }
        if chance(self.requests) < variants.fail_share {
            self.failed += 1;
            return Some(match self.failed % 4 {
                1 => Reply::html(503),
                2 => Reply::html(502),
                3 => Reply::html(504),
                _ => Reply::error(&ApiError::new(500, 500, "Internal server error"), variants),
            });
        }
        None
    }

    /// nginx counts the same the other way round: how far the requests are ahead of the rate. A refused one is free.
    fn takes_one_more(&mut self, controller: usize, throttle: Throttle, now: Duration) -> bool {
        let most = 1.0 + f64::from(throttle.burst);
        let (left, at) = self.buckets.entry(controller).or_insert((most, now));
        *left = (*left + now.saturating_sub(*at).as_secs_f64() * throttle.per_second).min(most);
        *at = now;
        // The sum of many small steps may end just below one.
        let takes = *left >= 1.0 - 1e-9;
        if takes {
            *left -= 1.0;
        }
        takes
    }
}

/// A number from 0 to 1 that depends on the request's number only (splitmix64).
fn chance(number: u64) -> f64 {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(throttle: Throttle, arrivals: &[u64]) -> Vec<bool> {
        let mut front = Front::default();
        let variants = Variants { request_throttle: Some(throttle), ..Variants::default() };
        let admit = |it: &u64| front.admit(0, false, &variants, Duration::from_millis(*it)).is_none();
        arrivals.iter().map(admit).collect()
    }

    #[test]
    fn a_throttle_takes_its_burst_and_then_its_rate() {
        let strict = Throttle { per_second: 10.0, burst: 0, retry_after: false };
        assert_eq!(taken(strict, &[0, 50, 100, 199, 200, 1000, 1001]), [true, false, true, false, true, true, false]);
        let burst = Throttle { burst: 2, ..strict };
        assert_eq!(
            taken(burst, &[0, 0, 0, 0, 99, 100, 300, 300, 300]),
            [true, true, true, false, false, true, true, true, false]
        );
    }

    #[test]
    fn the_share_that_fails_is_about_the_one_asked_for() {
        for (share, at_least, at_most) in [(0.0, 0, 0), (0.02, 100, 300), (0.5, 4800, 5200), (1.0, 10_000, 10_000)] {
            let mut front = Front::default();
            let variants = Variants { fail_share: share, ..Variants::default() };
            let mut statuses = BTreeMap::new();
            for _ in 0..10_000 {
                if let Some(reply) = front.admit(0, false, &variants, Duration::ZERO) {
                    *statuses.entry(reply.status).or_insert(0) += 1;
                }
            }
            let failed: usize = statuses.values().sum();
            assert!((at_least..=at_most).contains(&failed), "{share}: {failed}");
            assert_eq!((front.refused(), front.requests()), (failed, 10_000));
            assert_eq!(statuses.len(), if share > 0.0 { 4 } else { 0 }, "500, 502, 503 and 504 in turn");
        }
    }
}
