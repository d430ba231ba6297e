//! One kind's watcher: list, watch, and what to do when either ends (K1, K2). It tells the reconciler what it knows
//! and how much that is worth; it decides nothing about the fabric.

use std::io::{self, BufRead, Read};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};
use log::{debug, warn};

use super::Event;
use super::client::{Client, io_words};
use super::decode::{self, LONGEST_LINE, Line};
use super::error::Error;
use crate::backoff::{Backoff, random_unit, stopped, stopped_within};
use crate::model::inventory::CLOSED_WATCH_LIMIT;
use crate::model::kube::{Kind, Object, Pool};

/// A watch that ended sooner than this and said nothing does not work: the next step is a list.
const TOO_SHORT: Duration = Duration::from_secs(1);

/// The pause before a watch is opened again after a normal end.
const FLOOR: Duration = Duration::from_millis(100);

/// After so long without trouble the pauses start over.
const HEALTHY: Duration = Duration::from_secs(120);

/// The longest pause that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// The watcher of one kind.
pub struct Watcher {
    client: Client,
    kind: Kind,
    events: Sender<Event>,
    stop: Receiver<()>,
    backoff: Backoff,
    pool: Pool,
    /// The trouble that was told last; the same is not told again.
    told: Option<String>,
    /// When the last list was whole, or the last watch ended.
    watched: Instant,
    /// After so long without a watch there is a list.
    longest_gap: Duration,
    /// The version behind which an event was cut last.
    cut_behind: String,
}

/// How a watch ended.
enum End {
    /// The server closed it, or the connection was cut: go on from the last version.
    Resume,
    /// It could not be opened, or the server is busy: wait, then go on from the last version.
    Wait(Error),
    /// What was seen is not enough to go on: list again.
    Relist(String),
}

/// The program is stopping, or nobody listens any more.
struct Stopped;

impl Watcher {
    /// A watcher that has not begun yet.
    pub fn new(client: Client, kind: Kind, events: Sender<Event>, stop: Receiver<()>) -> Self {
        // client-go's numbers (tools/cache/reflector.go).
        let backoff = Backoff::new(Duration::from_millis(800), Duration::from_secs(30));
        let (watched, longest_gap) = (Instant::now(), CLOSED_WATCH_LIMIT);
        let pool = Pool::default();
        Watcher {
            client,
            kind,
            events,
            stop,
            backoff,
            pool,
            told: None,
            watched,
            longest_gap,
            cut_behind: String::new(),
        }
    }

    /// The same, which lists again when it had no watch for so long (W1's minute, unless a test is in a hurry).
    pub fn with_longest_gap(self, longest_gap: Duration) -> Self {
        Watcher { longest_gap, ..self }
    }

    /// Lists and watches until the program stops.
    pub fn run(mut self) {
        let (mut why, mut pause) = ("start".to_owned(), Duration::ZERO);
        loop {
            // That the view is not whole is told before the pause.
            if self.send(Event::Relisting { kind: self.kind, why }).is_err() || stopped_within(&self.stop, pause) {
                return;
            }
            match self.list_and_watch() {
                Ok(next) => (why, pause) = (next, self.backoff.pause()),
                Err(Stopped) => return,
            }
        }
    }

    /// One list and the watches that follow it; why a new list is needed.
    fn list_and_watch(&mut self) -> Result<String, Stopped> {
        let kind = self.kind;
        let mut version = loop {
            match self.client.list(kind, &mut self.pool) {
                Ok((objects, version)) => {
                    self.send(Event::Listed { kind, objects })?;
                    break version;
                }
                Err(error) => self.wait(&format!("{kind}s cannot be listed"), &error)?,
            }
        };
        let listed = Instant::now();
        self.watched = listed;
        loop {
            let opened = Instant::now();
            let end = self.watch(&mut version)?;
            if opened.elapsed() >= HEALTHY {
                self.backoff.reset();
            }
            match end {
                End::Resume => {
                    self.send(Event::Interrupted { kind })?;
                    if stopped_within(&self.stop, FLOOR) {
                        return Err(Stopped);
                    }
                }
                End::Wait(error) => {
                    self.send(Event::Interrupted { kind })?;
                    self.wait(&format!("{kind}s cannot be watched"), &error)?;
                    // Most probably the server would say 410, a moment after it took the watch.
                    if self.watched.elapsed() >= self.longest_gap {
                        return Ok("there was no watch for too long".to_owned());
                    }
                }
                End::Relist(why) => {
                    // The pauses of an outage are no reason to wait once it is over.
                    if listed.elapsed() >= HEALTHY {
                        self.backoff.reset();
                    }
                    return Ok(why);
                }
            }
        }
    }

    /// One watch from its opening to its end.
    fn watch(&mut self, version: &mut String) -> Result<End, Stopped> {
        let kind = self.kind;
        // Spread, so that the three watches do not end in the same moment; below the usual idle limits of 5 minutes.
        let lifetime = Duration::from_secs(240) + Duration::from_secs(50).mul_f64(random_unit());
        let mut stream = match self.client.watch(kind, version, lifetime) {
            Ok(stream) => stream,
            Err(Error::Expired) => return Ok(End::Relist("the watch is too old (410)".to_owned())),
            // The server does not take this version, and asking again will not change its mind.
            Err(error @ (Error::Malformed(_) | Error::NotFound)) => return Ok(End::Relist(error.to_string())),
            Err(error) => return Ok(End::Wait(error)),
        };
        self.healthy();
        self.send(Event::Live { kind })?;
        let end = self.follow(&mut stream, version);
        self.watched = Instant::now();
        end
    }

    /// Reads an open watch to its end.
    fn follow(&mut self, stream: &mut impl BufRead, version: &mut String) -> Result<End, Stopped> {
        let (kind, opened) = (self.kind, Instant::now());
        let mut line = Vec::new();
        let mut events = 0usize;
        loop {
            match read_line(stream, &mut line) {
                Ok(true) => {}
                Ok(false) | Err(ReadError::Cut(_)) if stopped(&self.stop) => return Err(Stopped),
                Ok(false) => {
                    debug!("the watch of {kind}s ended after {events} events");
                    return Ok(if events == 0 && opened.elapsed() < TOO_SHORT {
                        End::Relist("the watch ended at once".to_owned())
                    } else {
                        End::Resume
                    });
                }
                Err(ReadError::Cut(why)) => {
                    debug!("the watch of {kind}s was cut after {events} events: {why}");
                    // Perhaps it never gets through whole, and what is behind it neither.
                    if !line.is_empty() && std::mem::replace(&mut self.cut_behind, version.clone()) == *version {
                        return Ok(End::Relist("the same event was cut twice".to_owned()));
                    }
                    return Ok(if events == 0 && opened.elapsed() < TOO_SHORT {
                        End::Wait(Error::Unreachable(why))
                    } else {
                        End::Resume
                    });
                }
                Err(ReadError::TooLong) => return Ok(End::Relist("a watch event is too long".to_owned())),
            }
            events += 1;
            match decode::line(kind, &line) {
                Ok(Line::Changed { mut object, deleted, resource_version }) => {
                    self.pool.share(&mut object);
                    *version = resource_version;
                    self.send(changed(object, deleted))?;
                }
                Ok(Line::Bookmark(resource_version)) => *version = resource_version,
                Ok(Line::Failed(error @ (Error::Busy { .. } | Error::Unauthorized | Error::Forbidden { .. }))) => {
                    return Ok(End::Wait(error));
                }
                Ok(Line::Failed(error)) | Err(error) => return Ok(End::Relist(error.to_string())),
                Ok(Line::Unknown(kind)) => debug!("a watch event of the unknown type {kind:?} is passed over"),
            }
        }
    }

    /// Waits before the next try; the trouble is told once.
    fn wait(&mut self, what: &str, error: &Error) -> Result<(), Stopped> {
        if stopped(&self.stop) {
            return Err(Stopped);
        }
        let pause = pause(self.backoff.pause(), error);
        let text = format!("{what}: {error}");
        if self.told.as_ref() == Some(&text) {
            debug!("{text}; trying again in {:.1} s", pause.as_secs_f64());
        } else {
            warn!("{text}; trying again with growing pauses");
            self.told = Some(text);
        }
        if stopped_within(&self.stop, pause) { Err(Stopped) } else { Ok(()) }
    }

    fn healthy(&mut self) {
        if let Some(trouble) = self.told.take() {
            log::info!("{}s are listed and watched again; it was: {trouble}", self.kind);
        }
    }

    /// Hands an event over; a full queue holds the stream back, a stop does not wait.
    fn send(&self, event: Event) -> Result<(), Stopped> {
        select! {
            send(self.events, event) -> sent => sent.map_err(|_| Stopped),
            recv(self.stop) -> _ => Err(Stopped),
        }
    }
}

/// How long to wait: what the server asks for counts where it is longer than our own pause, within reason.
fn pause(own: Duration, error: &Error) -> Duration {
    let asked = if let Error::Busy { after, .. } = error { *after } else { None };
    own.max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

/// What is no longer worth keeping is the same as gone.
fn changed(object: Object, deleted: bool) -> Event {
    if deleted || !object.is_kept() {
        Event::Gone { kind: object.kind(), key: object.key().clone() }
    } else {
        Event::Upsert(object)
    }
}

/// Why there is no whole line.
#[derive(Debug)]
pub enum ReadError {
    /// The connection ended or failed; the part of a line that was read is worth nothing.
    Cut(String),
    /// The line is longer than [`LONGEST_LINE`].
    TooLong,
}

/// Reads one line; false at the end of the stream.
pub fn read_line(stream: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, ReadError> {
    line.clear();
    let limit = LONGEST_LINE as u64 + 1;
    match stream.by_ref().take(limit).read_until(b'\n', line) {
        Ok(0) => Ok(false),
        Ok(_) if line.ends_with(b"\n") => Ok(true),
        Ok(_) if line.len() > LONGEST_LINE => Err(ReadError::TooLong),
        Ok(_) => Err(ReadError::Cut("in the middle of an event".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(ReadError::Cut("the connection ended".to_owned()))
        }
        Err(error) => Err(ReadError::Cut(io_words(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// X3: a server may ask for a pause, but not for ever.
    #[test]
    fn pauses_that_a_server_asks_for() {
        let seconds = Duration::from_secs;
        let busy = |after| Error::Busy { message: String::new(), after };
        assert_eq!(pause(seconds(2), &busy(None)), seconds(2));
        assert_eq!(pause(seconds(2), &busy(Some(seconds(1)))), seconds(2));
        assert_eq!(pause(seconds(2), &busy(Some(seconds(30)))), seconds(30));
        assert_eq!(pause(seconds(2), &busy(Some(Duration::MAX))), LONGEST_ASKED);
        assert_eq!(pause(seconds(2), &Error::NotFound), seconds(2));
    }
}
