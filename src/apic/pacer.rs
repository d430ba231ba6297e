//! How the threads of the APIC side wait before they send a request: for its turn (W8), and never past a stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never};
use log::info;

use super::error::Error;
use super::rate::RateLimit;
use super::traits::ShouldSend;
use crate::backoff::stopped_within;

/// A wait is cut into pieces of this length, to ask in between whether it still makes sense.
const PIECE: Duration = Duration::from_secs(1);

/// The pause between a login and the opening of its websocket, which a web server that counts requests would otherwise
/// take for one burst.
const AFTER_LOGIN: Duration = Duration::from_millis(250);

/// The pace of all requests of this process. Clones are the same pace.
#[derive(Debug, Clone)]
pub struct RequestPacer {
    limit: Arc<RateLimit>,
    stop: Receiver<()>,
}

impl RequestPacer {
    /// So many requests a second, or as many as there are.
    pub fn new(per_second: Option<u32>) -> Self {
        RequestPacer { limit: Arc::new(RateLimit::new(per_second, Instant::now())), stop: never() }
    }

    /// The same pace; its waits end when the program stops.
    pub fn until(self, stop: Receiver<()>) -> Self {
        RequestPacer { stop, ..self }
    }

    /// Waits for the turn of one request.
    pub(super) fn wait_for_turn(&self, should_send: &ShouldSend<'_>) -> Result<(), Error> {
        self.wait(self.limit.next_turn(Instant::now()), should_send)
    }

    /// Waits, and asks at the end whether the request may still be sent.
    pub(super) fn wait(&self, pause: Duration, should_send: &ShouldSend<'_>) -> Result<(), Error> {
        let end = Instant::now() + pause;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if !should_send() || (!left.is_zero() && stopped_within(&self.stop, left.min(PIECE))) {
                return Err(Error::Withdrawn);
            }
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// Waits between a login and the websocket that follows from it.
    pub(super) fn wait_after_login(&self) -> Result<(), Error> {
        if self.limit.is_limited() { self.wait(AFTER_LOGIN, &|| true) } else { Ok(()) }
    }

    /// A request was refused: 503 or 429.
    pub(super) fn refused(&self) {
        if let Some(rate) = self.limit.refused(Instant::now()) {
            info!("the APIC refuses requests (503 or 429): at most {rate:.1} a second from now on, without bursts");
        }
    }

    /// A request was answered otherwise.
    pub(super) fn answered(&self) {
        self.limit.answered();
    }
}
