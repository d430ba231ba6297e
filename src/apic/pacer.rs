//! How requests wait before they are sent: for their turn (W8), and never past a stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never};
use log::info;

use super::error::Error;
use super::parallel::Parallel;
use super::rate::RateLimit;
use super::traits::ShouldSend;
use crate::backoff::stopped_within;

/// How often a wait asks whether the request is still to be sent.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The pause between a login and the opening of its websocket, which a web server that counts requests would otherwise
/// take for one burst.
const AFTER_LOGIN: Duration = Duration::from_millis(250);

/// A request that is sent with others waits for its turn at most this long: what it was decided on must not get old (W7).
const LONGEST_TURN: Duration = Duration::from_millis(250);

/// The pace of all requests of this process. Clones share it.
#[derive(Debug, Clone)]
pub struct RequestPacer {
    limit: Arc<RateLimit>,
    parallel: Arc<Parallel>,
    stop: Receiver<()>,
}

impl RequestPacer {
    /// At most this many requests a second, or no limit, and at most `at_once` of a reconcile in flight.
    pub fn new(per_second: Option<u32>, at_once: usize) -> Self {
        let limit = Arc::new(RateLimit::new(per_second, Instant::now()));
        RequestPacer { limit, parallel: Arc::new(Parallel::new(at_once)), stop: never() }
    }

    /// The same pace; its waits end when the program stops.
    pub fn until(self, stop: Receiver<()>) -> Self {
        RequestPacer { stop, ..self }
    }

    /// Whether one more request may be sent with so many in flight: not more than may be, and if its turn comes soon.
    pub(super) fn may_start(&self, in_flight: usize) -> bool {
        let now = Instant::now();
        in_flight == 0 || (in_flight < self.parallel.at_once(now) && self.limit.has_turn_within(LONGEST_TURN, now))
    }

    /// Waits for the turn of one request.
    pub(super) fn wait_for_turn(&self, should_send: &ShouldSend<'_>) -> Result<(), Error> {
        self.wait(self.limit.next_turn(Instant::now()), should_send)
    }

    /// Waits; fails if the program is stopping or the request is not to be sent any more.
    pub(super) fn wait(&self, pause: Duration, should_send: &ShouldSend<'_>) -> Result<(), Error> {
        let end = Instant::now() + pause;
        loop {
            if !should_send() {
                return Err(Error::NotSent);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if stopped_within(&self.stop, left.min(CHECK_INTERVAL)) {
                return Err(Error::NotSent);
            }
        }
    }

    /// Waits between a login and its websocket.
    pub(super) fn wait_after_login(&self) -> Result<(), Error> {
        if self.limit.is_limited() { self.wait(AFTER_LOGIN, &|| true) } else { Ok(()) }
    }

    /// A request that was sent then was refused with 503 or 429.
    pub(super) fn refused(&self, sent: Instant) {
        let now = Instant::now();
        self.parallel.not_served(now);
        if let Some(rate) = self.limit.refused(sent, now) {
            info!(rate:% = format_args!("{rate:.1}/s"); "requests throttled by the APIC (503 or 429); sending fewer, without bursts");
        }
    }

    /// A request was not answered in time, or at all.
    pub(super) fn unanswered(&self) {
        self.parallel.not_served(Instant::now());
        self.limit.answered();
    }

    /// A request was answered otherwise.
    pub(super) fn answered(&self) {
        self.limit.answered();
    }
}
