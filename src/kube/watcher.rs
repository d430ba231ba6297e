//! One kind's watcher: list, watch, and what to do when either ends (K1, K2). It tells the reconciler what it knows
//! and how much that is worth; it decides nothing about the fabric.

use std::io::{self, BufRead, Read};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};
use log::{debug, warn};

use super::Event;
use super::client::{Client, MAX_PAGE, describe_io_error};
use super::decode::{self, MAX_LINE, WatchLine};
use super::error::Error;
use super::pool::Pool;
use crate::backoff::{Backoff, random_unit, stopped, stopped_within};
use crate::model::inventory::{CLOSED_WATCH_LIMIT, WATCH_PROVEN};
use crate::model::kubernetes::{Key, Kind, Object};

/// A watch that ended sooner than this and said nothing does not work: the next step is a list.
const TOO_SHORT: Duration = Duration::from_secs(1);

/// The pause before a watch is opened again after a normal end.
const FLOOR: Duration = Duration::from_millis(100);

/// After so long without trouble the pauses start over.
const HEALTHY: Duration = Duration::from_secs(120);

/// Each kind is listed again at least this often, whatever its watch says (K2, R4). The watch of a server whose storage
/// was put back to an older state says nothing wrong and nothing at all.
const LIST_EVERY: Duration = Duration::from_secs(3600);

/// A list that was due by the clock alone and failed is tried again this much later.
const LIST_AGAIN: Duration = Duration::from_secs(300);

/// The room for a line is kept for the next one up to this size, in bytes.
const USUAL_LINE: usize = 1 << 20;

/// The longest pause that a server may ask for.
const MAX_ASKED: Duration = Duration::from_secs(60);

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
    /// When the last list was whole, or the last live watch ended.
    watched: Instant,
    /// After so long without a live watch there is a list.
    longest_gap: Duration,
    /// How often there is a list at least, and when the next one is due.
    list_every: Duration,
    list_at: Instant,
    /// The last watch did not end at its time. What serves the next one may be an older state than we have seen.
    doubtful: bool,
    /// The version behind which an event was cut last.
    cut_behind: String,
    /// The object that was logged last because its events are too long.
    too_long: Option<Key>,
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

/// What an open watch is worth so far.
struct Opened {
    at: Instant,
    /// How long the server was asked to keep it open.
    lifetime: Duration,
    /// It delivered an event or a bookmark.
    is_live: bool,
    /// The watch before it did not end at its time.
    doubtful: bool,
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
            list_every: LIST_EVERY,
            list_at: watched,
            doubtful: false,
            cut_behind: String::new(),
            too_long: None,
        }
    }

    /// The same, which lists again when it had no watch for so long (W1's minute, unless a test is in a hurry).
    pub fn with_longest_gap(self, longest_gap: Duration) -> Self {
        Watcher { longest_gap, ..self }
    }

    /// The same, which lists so often at least (an hour, unless a test is in a hurry).
    #[doc(hidden)]
    pub fn with_list_every(self, list_every: Duration) -> Self {
        Watcher { list_every, ..self }
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
            match self.list() {
                Ok(version) => break version?,
                Err(error) => self.wait(&format!("{kind}s cannot be listed"), &error)?,
            }
        };
        let listed = Instant::now();
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
                    self.list_by_the_clock(&mut version)?;
                }
                End::Wait(error) => {
                    self.send(Event::Interrupted { kind })?;
                    self.wait(&format!("{kind}s cannot be watched"), &error)?;
                }
                End::Relist(why) => {
                    // The pauses of an outage are no reason to wait once it is over.
                    if listed.elapsed() >= HEALTHY {
                        self.backoff.reset();
                    }
                    return Ok(why);
                }
            }
            // Most probably the server would say 410, a moment after it took the watch.
            if self.watched.elapsed() >= self.longest_gap {
                return Ok("there was no live watch for too long".to_owned());
            }
        }
    }

    /// One list, which replaces the old view at once; the version to watch from.
    fn list(&mut self) -> Result<Result<String, Stopped>, Error> {
        let kind = self.kind;
        let (objects, version) = self.client.list(kind, &mut self.pool)?;
        self.watched = Instant::now();
        // Spread, so that neither the three kinds nor several daemons list in the same moment; and early enough for the
        // longest watch to end within the hour.
        self.list_at = self.watched + self.list_every.mul_f64(0.5 + 0.4 * random_unit());
        self.doubtful = false;
        Ok(self.send(Event::Listed { kind, objects }).map(|()| version))
    }

    /// K2, R4: lists where the last list is too old. The view is in no doubt: where the list fails, the watch goes on.
    fn list_by_the_clock(&mut self, version: &mut String) -> Result<(), Stopped> {
        if Instant::now() < self.list_at {
            return Ok(());
        }
        debug!("{}s are listed again, as they are from time to time", self.kind);
        match self.list() {
            Ok(listed) => *version = listed?,
            Err(error) => {
                // The view is what it was, and the watch goes on from there.
                self.watched = Instant::now();
                self.list_at = Instant::now() + LIST_AGAIN.min(self.list_every);
                self.wait(&format!("{}s cannot be listed again", self.kind), &error)?;
            }
        }
        Ok(())
    }

    /// K2: after a watch that did not end at its time, whether what the server has now is older than what we have seen.
    /// A watch would not tell: a server whose storage was put back takes the newer version and delivers nothing.
    fn look_back(&mut self, version: &str) -> Option<End> {
        match self.client.newest_version(self.kind) {
            Ok(newest) if is_lower(&newest, version) => {
                Some(End::Relist(format!("the API server went back from version {version} to {newest}")))
            }
            Ok(_) => None,
            // The watch may be allowed where the list is not, and the list by the clock finds out all the same.
            Err(error @ (Error::Forbidden { .. } | Error::NotFound | Error::Malformed(_) | Error::Expired)) => {
                debug!("the version of {}s cannot be asked for: {error}", self.kind);
                None
            }
            Err(error) => Some(End::Wait(error)),
        }
    }

    /// One watch from its opening to its end.
    fn watch(&mut self, version: &mut String) -> Result<End, Stopped> {
        let kind = self.kind;
        // Spread, so that the three watches do not end in the same moment; below the usual idle limits of 5 minutes.
        let lifetime = Duration::from_secs(240) + Duration::from_secs(50).mul_f64(random_unit());
        // A list that is due soon waits for no watch; the server counts whole seconds.
        let due = self.list_at.saturating_duration_since(Instant::now()) + Duration::from_secs(1);
        let lifetime = lifetime.min(due);
        if self.doubtful
            && let Some(end) = self.look_back(version)
        {
            return Ok(end);
        }
        let mut stream = match self.client.watch(kind, version, lifetime) {
            Ok(stream) => stream,
            Err(Error::Expired) => return Ok(End::Relist("the watch is too old (410)".to_owned())),
            // The server does not take this version, and asking again will not change its mind.
            Err(error @ (Error::Malformed(_) | Error::NotFound)) => return Ok(End::Relist(error.to_string())),
            Err(error) => {
                self.doubtful |= matches!(error, Error::Unreachable(_));
                return Ok(End::Wait(error));
            }
        };
        self.send(Event::Opened { kind })?;
        let doubtful = std::mem::take(&mut self.doubtful);
        let mut opened = Opened { at: Instant::now(), lifetime, is_live: false, doubtful };
        let end = self.follow(&mut stream, version, &mut opened);
        if opened.is_live || opened.at.elapsed() >= WATCH_PROVEN {
            self.watched = Instant::now();
            self.healthy();
        }
        end
    }

    /// The open watch delivered something.
    fn live(&mut self, opened: &mut Opened) -> Result<(), Stopped> {
        if std::mem::replace(&mut opened.is_live, true) {
            return Ok(());
        }
        self.healthy();
        self.send(Event::Live { kind: self.kind })
    }

    /// Reads an open watch to its end.
    fn follow(&mut self, stream: &mut impl BufRead, version: &mut String, opened: &mut Opened) -> Result<End, Stopped> {
        let kind = self.kind;
        let mut line = Vec::new();
        let mut events = 0usize;
        loop {
            match read_line(stream, &mut line) {
                Ok(true) => {}
                Ok(false) | Err(ReadError::Cut(_)) if stopped(&self.stop) => return Err(Stopped),
                Ok(false) => {
                    debug!("the watch of {kind}s ended after {events} events");
                    // The server counts whole seconds.
                    self.doubtful = opened.at.elapsed() + Duration::from_secs(1) < opened.lifetime;
                    return Ok(if events == 0 && opened.at.elapsed() < TOO_SHORT {
                        End::Relist("the watch ended at once".to_owned())
                    } else {
                        End::Resume
                    });
                }
                Err(ReadError::Cut(why)) => {
                    debug!("the watch of {kind}s was cut after {events} events: {why}");
                    self.doubtful = true;
                    // Perhaps it never gets through whole, and what is behind it neither.
                    if !line.is_empty() && std::mem::replace(&mut self.cut_behind, version.clone()) == *version {
                        return Ok(End::Relist("the same event was cut twice".to_owned()));
                    }
                    return Ok(if events == 0 && opened.at.elapsed() < TOO_SHORT {
                        End::Wait(Error::Unreachable(why))
                    } else {
                        End::Resume
                    });
                }
                Err(ReadError::TooLong) => {
                    let start = decode::line_start(&line);
                    line = Vec::new();
                    if let Err(why) = skip_line(stream) {
                        return Ok(End::Relist(why));
                    }
                    events += 1;
                    if let Err(why) = self.too_long(start, version, opened)? {
                        return Ok(End::Relist(why));
                    }
                    continue;
                }
            }
            events += 1;
            let decoded = decode::line(kind, &line);
            if line.capacity() > USUAL_LINE {
                line = Vec::new();
            }
            match decoded {
                Ok(WatchLine::Changed { resource_version: new, .. } | WatchLine::Bookmark(new))
                    if opened.doubtful && is_lower(&new, version) =>
                {
                    return Ok(End::Relist(format!("the API server went back from version {version} to {new}")));
                }
                Ok(WatchLine::Changed { mut object, deleted, resource_version }) => {
                    self.live(opened)?;
                    self.pool.share(&mut object);
                    *version = resource_version;
                    self.send(changed(object, deleted))?;
                }
                Ok(WatchLine::Bookmark(resource_version)) => {
                    self.live(opened)?;
                    *version = resource_version;
                }
                Ok(WatchLine::Busy(error)) => return Ok(End::Wait(error)),
                Ok(WatchLine::Failed(Error::Busy { message, .. })) => {
                    return Ok(End::Relist(format!("the API server ended the watch with an error: {message}")));
                }
                Ok(WatchLine::Failed(error)) | Err(error) => return Ok(End::Relist(error.to_string())),
                Ok(WatchLine::Unknown(kind)) => debug!("a watch event of the unknown type {kind:?} is passed over"),
            }
        }
    }

    /// X3: an event that is too long costs no more than the object that it is about, which is asked for by itself. An
    /// object that cannot be had that way leads to a list; why.
    fn too_long(
        &mut self,
        start: decode::LineStart,
        version: &mut String,
        opened: &mut Opened,
    ) -> Result<Result<(), String>, Stopped> {
        let kind = self.kind;
        let longest = MAX_LINE >> 20;
        let Some(key) = start.key else {
            return Ok(Err(format!("a watch event about an unknown {kind} is longer than {longest} MiB")));
        };
        let text = format!("{kind} {key}: its watch events are longer than {longest} MiB; reading it on its own");
        if self.too_long.as_ref() != Some(&key) {
            warn!("{text}");
            self.too_long = Some(key.clone());
        } else {
            debug!("{text}");
        }
        let event = if start.deleted {
            Event::Gone { kind, key }
        } else {
            match self.client.look_up(kind, &key) {
                Ok(Some(mut object)) => {
                    self.pool.share(&mut object);
                    Event::Upsert(object)
                }
                Ok(None) => Event::Gone { kind, key },
                Err(_) if stopped(&self.stop) => return Err(Stopped),
                Err(error) => return Ok(Err(format!("{kind} {key} cannot be read on its own: {error}"))),
            }
        };
        self.live(opened)?;
        if let Some(new) = start.resource_version {
            *version = new;
        }
        self.send(event).map(Ok)
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
    own.max(asked.unwrap_or_default().min(MAX_ASKED))
}

/// Whether a version is older than another one of the same kind. Versions that are no numbers cannot be compared.
fn is_lower(version: &str, than: &str) -> bool {
    matches!((version.parse::<u64>(), than.parse::<u64>()), (Ok(version), Ok(than)) if version < than)
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
    /// The line is longer than [`MAX_LINE`].
    TooLong,
}

/// Reads one line; false at the end of the stream.
pub fn read_line(stream: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, ReadError> {
    line.clear();
    let limit = MAX_LINE as u64 + 1;
    match stream.by_ref().take(limit).read_until(b'\n', line) {
        Ok(0) => Ok(false),
        Ok(_) if line.ends_with(b"\n") => Ok(true),
        Ok(_) if line.len() > MAX_LINE => Err(ReadError::TooLong),
        Ok(_) => Err(ReadError::Cut("in the middle of an event".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(ReadError::Cut("the connection ended".to_owned()))
        }
        Err(error) => Err(ReadError::Cut(describe_io_error(&error))),
    }
}

/// Skips the rest of a line; why that has no end.
fn skip_line(stream: &mut impl BufRead) -> Result<(), String> {
    let mut skipped = 0;
    loop {
        let (length, is_end) = match stream.fill_buf() {
            Ok([]) => return Err("a watch event that is too long was cut".to_owned()),
            Ok(piece) => match piece.iter().position(|it| *it == b'\n') {
                Some(at) => (at + 1, true),
                None => (piece.len(), false),
            },
            Err(error) => return Err(format!("a watch event that is too long was cut: {}", describe_io_error(&error))),
        };
        stream.consume(length);
        skipped += length as u64;
        if is_end {
            return Ok(());
        }
        if skipped > MAX_PAGE {
            return Err(format!("a watch event is longer than {} MiB", MAX_PAGE >> 20));
        }
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
        assert_eq!(pause(seconds(2), &busy(Some(Duration::MAX))), MAX_ASKED);
        assert_eq!(pause(seconds(2), &Error::NotFound), seconds(2));
    }
}
