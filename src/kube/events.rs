//! The thread that sends Kubernetes Events (K5). It holds up no other thread: notices that find no room in its queue are
//! dropped, and so are those that the API server does not accept. The requests and their limits are in `recorder`.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use log::{debug, info, warn};

use super::client::{Client, Verb};
use super::error::Error;
use super::lease::host;
use super::recorder::{Next, Recorder, Request};
use crate::backoff::{Backoff, stopped_within};
use crate::leadership::Leadership;
use crate::metrics;
use crate::model::notices::EventNotice;
use crate::time::micro_now;

/// Notices that wait to be sent.
const QUEUE: usize = 1024;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often one Event is tried.
const TRIES: u32 = 3;

/// The event loop's end of the queue. It never waits.
#[derive(Debug)]
pub struct Queue {
    /// Each notice with its time of day.
    sender: Sender<(EventNotice, String)>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    /// Hands notices over; those that find no room are dropped and counted.
    pub fn publish(&self, notices: &[EventNotice]) {
        for notice in notices {
            metrics::enqueued(metrics::Queue::Events);
            if self.sender.try_send((notice.clone(), micro_now())).is_err() {
                metrics::dequeued(metrics::Queue::Events);
                self.dropped.fetch_add(1, Ordering::Relaxed);
                metrics::dropped(metrics::Queue::Events);
            }
        }
    }
}

/// The thread and its end of the queue.
pub struct Emitter {
    client: Client,
    recorder: Recorder,
    notices: Receiver<(EventNotice, String)>,
    dropped: Arc<AtomicU64>,
    leadership: Leadership,
    stop: Receiver<()>,
    /// The missing permission was logged; once is enough.
    forbidden_logged: bool,
    /// An Event was lost and logged since the last success.
    failing: bool,
}

/// The program is stopping.
struct Stopped;

/// A queue, and the emitter of its notices.
pub fn events(client: Client, leadership: Leadership, stop: Receiver<()>) -> (Queue, Emitter) {
    let (sender, notices) = bounded(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let queue = Queue { sender, dropped: dropped.clone() };
    // The keys of the standard library's hashes are random, so no other process begins at the same number.
    let recorder = Recorder::new(&host(), RandomState::new().hash_one(std::process::id()));
    let (forbidden_logged, failing) = (false, false);
    (queue, Emitter { client, recorder, notices, dropped, leadership, stop, forbidden_logged, failing })
}

impl Emitter {
    /// Sends until the program stops.
    pub fn run(mut self) {
        loop {
            let (notice, at) = select! {
                recv(self.stop) -> _ => return,
                recv(self.notices) -> notice => match notice {
                    Ok(notice) => notice,
                    // The event loop has ended, and its end is the one to be reported.
                    Err(_) => {
                        let _ = self.stop.recv();
                        return;
                    }
                },
            };
            metrics::dequeued(metrics::Queue::Events);
            // The present leader sends its own (K4).
            if self.leadership.is_leader()
                && let Err(Stopped) = self.send(&notice, &at)
            {
                return;
            }
            if self.notices.is_empty() {
                let count = self.dropped.swap(0, Ordering::Relaxed);
                if count > 0 && !self.forbidden_logged {
                    warn!(count; "Kubernetes Events dropped: too many at once");
                }
            }
        }
    }

    fn send(&mut self, notice: &EventNotice, at: &str) -> Result<(), Stopped> {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let Some(Request { path, body }) = self.recorder.request(notice, Instant::now(), at) else { return Ok(()) };
        for tries_left in (0..TRIES).rev() {
            while let Err(pause) = self.recorder.pace(Instant::now()) {
                self.wait(pause)?;
            }
            let Err(error) = self.client.put_object(Verb::Create, &path, &body, TIMEOUT) else {
                if std::mem::take(&mut self.failing) {
                    info!("Kubernetes Events are accepted again");
                }
                return Ok(());
            };
            // A stop ends requests too, which is no failure.
            self.wait(Duration::ZERO)?;
            match self.recorder.failed(notice, &error, Instant::now()) {
                Next::Retry if tries_left > 0 => self.wait(backoff.pause())?,
                Next::Retry | Next::Drop => {
                    self.log_lost(notice, &error);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn log_lost(&mut self, notice: &EventNotice, error: &Error) {
        let key = &notice.about.key;
        let (namespace, name) = (&*key.namespace, &*key.name);
        match error {
            Error::Forbidden { .. } if !self.forbidden_logged => {
                self.forbidden_logged = true;
                warn!(namespace, error:%;
                    "no permission to create Kubernetes Events; grant it, or set --events=false (logged once)");
            }
            // The namespace is being or was deleted, or the answer to the first try was lost.
            Error::Forbidden { .. } | Error::Terminating | Error::NotFound | Error::Conflict => {
                debug!(namespace, name, error:%; "Kubernetes Event not created");
            }
            _ if self.failing => debug!(namespace, name, error:%; "Kubernetes Event not created"),
            _ => {
                self.failing = true;
                let server = self.client.server();
                warn!(namespace, name, error:%, server; "failed to create a Kubernetes Event");
            }
        }
    }

    fn wait(&self, pause: Duration) -> Result<(), Stopped> {
        if stopped_within(&self.stop, pause) { Err(Stopped) } else { Ok(()) }
    }
}
