//! The thread that sends Kubernetes Events (K5). It is in nobody's way: notices that find no room in its queue are left
//! out, and so are those that the API server does not take. What is sent, and how much, is the recorder's.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use log::{debug, info, warn};

use super::client::Client;
use super::error::Error;
use super::lease::host;
use super::recorder::{Next, Recorder};
use crate::backoff::{Backoff, stopped_within};
use crate::leadership::Leadership;
use crate::model::notices::EventNotice;
use crate::time::micro_now;

/// News that wait to be sent.
const QUEUE: usize = 1024;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often one piece of notices is tried.
const TRIES: u32 = 3;

/// Where the reconciler leaves notices. It never waits.
#[derive(Debug)]
pub struct Queue {
    sender: Sender<(EventNotice, String)>,
    left_out: Arc<AtomicU64>,
}

impl Queue {
    /// Hands notices over; those that find no room are left out and counted.
    pub fn publish(&self, notices: &[EventNotice]) {
        for notices in notices {
            if self.sender.try_send((notices.clone(), micro_now())).is_err() {
                self.left_out.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The thread's side of the queue.
pub struct Emitter {
    client: Client,
    recorder: Recorder,
    /// Each with the time of day when it was told.
    notices: Receiver<(EventNotice, String)>,
    left_out: Arc<AtomicU64>,
    leadership: Leadership,
    stop: Receiver<()>,
    /// The missing right was told; once is enough.
    told: bool,
    /// Since the last success something was lost and told.
    failing: bool,
}

/// The program is stopping.
struct Stopped;

/// A queue, and what sends the notices in it.
pub fn events(client: Client, leadership: Leadership, stop: Receiver<()>) -> (Queue, Emitter) {
    let (sender, notices) = bounded(QUEUE);
    let left_out = Arc::new(AtomicU64::new(0));
    // The keys of the standard library's hashes are random: no other process begins at the same number.
    let recorder = Recorder::new(&host(), RandomState::new().hash_one(std::process::id()));
    let (told, failing) = (false, false);
    let emitter = Emitter { client, recorder, notices, left_out: left_out.clone(), leadership, stop, told, failing };
    (Queue { sender, left_out }, emitter)
}

impl Emitter {
    /// Sends until the program stops.
    pub fn run(mut self) {
        loop {
            let (notices, at) = select! {
                recv(self.stop) -> _ => return,
                recv(self.notices) -> notices => match notices {
                    Ok(notices) => notices,
                    // Without a reconciler the program is about to end: that is told by its end, not by this one's.
                    Err(_) => {
                        let _ = self.stop.recv();
                        return;
                    }
                },
            };
            // Whoever leads by now tells what there is to tell (K4).
            if self.leadership.is_leader()
                && let Err(Stopped) = self.serve(&notices, &at)
            {
                return;
            }
            if self.notices.is_empty() {
                match self.left_out.swap(0, Ordering::Relaxed) {
                    left_out if left_out > 0 && !self.told => {
                        warn!("{left_out} Kubernetes Events were left out: there was more news than can be told");
                    }
                    _ => {}
                }
            }
        }
    }

    fn serve(&mut self, notices: &EventNotice, at: &str) -> Result<(), Stopped> {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let Some(mut request) = self.recorder.request(notices, Instant::now(), at) else { return Ok(()) };
        for tries_left in (0..TRIES).rev() {
            while let Err(pause) = self.recorder.pace(Instant::now()) {
                self.wait(pause)?;
            }
            let Err(error) = self.client.put_object(request.verb, &request.path, &request.body, TIMEOUT) else {
                if std::mem::take(&mut self.failing) {
                    info!("Kubernetes Events are told again");
                }
                return Ok(());
            };
            // A stop ends requests too, and that is no trouble.
            self.wait(Duration::ZERO)?;
            match self.recorder.failed(notices, request.verb, &error, Instant::now()) {
                Next::Again if tries_left > 0 => self.wait(backoff.pause())?,
                Next::Anew => match self.recorder.request(notices, Instant::now(), at) {
                    Some(anew) => request = anew,
                    None => return Ok(()),
                },
                Next::Again | Next::Drop => {
                    self.lost(notices, &error);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn lost(&mut self, notices: &EventNotice, error: &Error) {
        let key = &notices.about.key;
        match error {
            Error::Forbidden { message } if !self.told => {
                self.told = true;
                warn!(
                    "no Kubernetes Events where they are not allowed, as in the namespace {} ({message}); allow create \
                     and patch on them, or give --events=false; this is told once",
                    key.namespace
                );
            }
            // The namespace goes or has gone, or the answer to a first try was lost: no trouble.
            Error::Forbidden { .. } | Error::Terminating | Error::NotFound | Error::Conflict => {
                debug!("no Kubernetes Event about {key}: {error}");
            }
            _ if self.failing => debug!("no Kubernetes Event about {key}: {error}"),
            _ => {
                self.failing = true;
                warn!("no Kubernetes Event about {key}, and maybe about others: {error}");
            }
        }
    }

    fn wait(&self, pause: Duration) -> Result<(), Stopped> {
        if stopped_within(&self.stop, pause) { Err(Stopped) } else { Ok(()) }
    }
}
