//! One kind's watcher: list, watch, and what to do when either ends (K1, K2). It reports what it sees and whether that
//! view is complete; it decides nothing about the fabric.

use std::io::BufRead;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};
use log::{debug, info, warn};

use super::client::Client;
use super::decode::{self, MAX_LINE, WatchLine};
use super::error::Error;
use super::pool::Pool;
use super::watch_event::Event;
use super::watch_lines::{ReadError, read_line, skip_line};
use crate::backoff::{Backoff, random_unit, seconds, stopped, stopped_within};
use crate::metrics;
use crate::model::inventory::{CLOSED_WATCH_LIMIT, WATCH_PROVEN};
use crate::model::kubernetes::{Key, Kind, Object};

/// A watch that ended sooner than this without an event does not work: the next step is a list.
const TOO_SHORT: Duration = Duration::from_secs(1);

/// The pause before a watch is opened again after a normal end.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// After so long without trouble the pauses start over.
const HEALTHY: Duration = Duration::from_secs(120);

/// The longest time between two lists of a kind, whatever its watch reports (K2, R4): if the server's storage is restored
/// from an older state, its watches report neither an error nor an event.
const RELIST_EVERY: Duration = Duration::from_secs(3600);

/// The pause after a periodic list that failed.
const RELIST_RETRY: Duration = Duration::from_secs(300);

/// The buffer of a line is kept for the next one up to this size, in bytes.
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
    /// The resource version of the last list or event.
    version: String,
    /// The failure that was logged last; a repetition is logged as `debug`.
    logged: Option<(&'static str, Error)>,
    /// When the last list was complete, or the last live watch ended.
    last_live: Instant,
    /// After so long without a live watch the watcher relists.
    longest_gap: Duration,
    /// The longest time between two lists, and when the next one is due.
    relist_every: Duration,
    relist_at: Instant,
    /// The last watch ended before its time. The server of the next one may have an older state.
    ended_early: bool,
    /// The version after which an event was cut last.
    cut_after: String,
    /// The object that was logged last for its too large events.
    too_large: Option<Key>,
}

/// How a watch ended.
enum End {
    /// The server closed it, or the connection broke: go on from the last version.
    Resume,
    /// It could not be opened, or the server is busy: wait, then go on from the last version.
    Wait(Error),
    /// The watch cannot go on from the last version: list again.
    Relist(String),
}

/// An open watch.
struct OpenWatch {
    since: Instant,
    /// How long the server was asked to keep it open.
    lifetime: Duration,
    /// It delivered an event or a bookmark.
    is_live: bool,
    /// The watch before it ended before its time.
    after_early_end: bool,
    /// How many events it delivered.
    events: usize,
}

impl OpenWatch {
    /// It ends without having worked.
    fn is_futile(&self) -> bool {
        self.events == 0 && self.since.elapsed() < TOO_SHORT
    }
}

/// The program is stopping, or the event loop has ended.
struct Stopped;

impl Watcher {
    /// A watcher that has not begun yet.
    pub fn new(client: Client, kind: Kind, events: Sender<Event>, stop: Receiver<()>) -> Self {
        let now = Instant::now();
        Watcher {
            client,
            kind,
            events,
            stop,
            // client-go's numbers (tools/cache/reflector.go).
            backoff: Backoff::new(Duration::from_millis(800), Duration::from_secs(30)),
            pool: Pool::default(),
            version: String::new(),
            logged: None,
            last_live: now,
            longest_gap: CLOSED_WATCH_LIMIT,
            relist_every: RELIST_EVERY,
            relist_at: now,
            ended_early: false,
            cut_after: String::new(),
            too_large: None,
        }
    }

    /// Sets how long it goes on without a live watch before it relists; for tests (W1's minute otherwise).
    pub fn with_longest_gap(self, longest_gap: Duration) -> Self {
        Watcher { longest_gap, ..self }
    }

    /// Sets the longest time between two lists; for tests.
    #[doc(hidden)]
    pub fn with_relist_every(self, relist_every: Duration) -> Self {
        Watcher { relist_every, ..self }
    }

    /// Lists and watches until the program stops.
    pub fn run(mut self) {
        let (mut why, mut pause) = ("start".to_owned(), Duration::ZERO);
        loop {
            // Reported before the pause, so that the view counts as incomplete during it.
            if self.send(Event::Relisting { kind: self.kind, why }).is_err() || stopped_within(&self.stop, pause) {
                return;
            }
            match self.list_and_watch() {
                Ok(next) => (why, pause) = (next, self.backoff.pause()),
                Err(Stopped) => return,
            }
        }
    }

    /// One list and the watches that follow it; returns why a new list is needed.
    fn list_and_watch(&mut self) -> Result<String, Stopped> {
        let kind = self.kind;
        let listed = loop {
            match self.list() {
                Ok(listed) => break listed,
                Err(error) => self.wait("failed to list", error)?,
            }
        };
        self.send(listed)?;
        let listed_at = Instant::now();
        loop {
            let opened = Instant::now();
            let end = self.watch()?;
            if opened.elapsed() >= HEALTHY {
                self.backoff.reset();
            }
            match end {
                End::Resume => {
                    self.send(Event::Interrupted { kind })?;
                    if stopped_within(&self.stop, REOPEN_PAUSE) {
                        return Err(Stopped);
                    }
                    self.relist_if_due()?;
                }
                End::Wait(error) => {
                    self.send(Event::Interrupted { kind })?;
                    self.wait("failed to watch", error)?;
                }
                End::Relist(why) => {
                    // The pauses of an outage are no reason to wait after it.
                    if listed_at.elapsed() >= HEALTHY {
                        self.backoff.reset();
                    }
                    return Ok(why);
                }
            }
            // The server would most probably accept the watch and answer 410 a moment later.
            if self.last_live.elapsed() >= self.longest_gap {
                return Ok("no live watch for too long".to_owned());
            }
        }
    }

    /// One list, which replaces the old view at once.
    fn list(&mut self) -> Result<Event, Error> {
        let (objects, version) = self.client.list(self.kind, &mut self.pool)?;
        self.version = version;
        self.last_live = Instant::now();
        // Spread, so that neither the kinds nor several daemons list at the same moment; and early enough for the
        // longest watch to end within the hour.
        self.relist_at = self.last_live + self.relist_every.mul_f64(0.5 + 0.4 * random_unit());
        self.ended_early = false;
        Ok(Event::Listed { kind: self.kind, objects })
    }

    /// K2, R4: lists if the last list is too old. The view is not in doubt, so if the list fails, the watch goes on.
    fn relist_if_due(&mut self) -> Result<(), Stopped> {
        if Instant::now() < self.relist_at {
            return Ok(());
        }
        debug!(kind:% = self.kind; "periodic list");
        match self.list() {
            Ok(listed) => self.send(listed),
            Err(error) => {
                self.last_live = Instant::now();
                self.relist_at = Instant::now() + RELIST_RETRY.min(self.relist_every);
                self.wait("failed to relist", error)
            }
        }
    }

    /// K2: after a watch that ended before its time, whether the server's state is older than what was seen. A watch does
    /// not show that: a server whose storage was restored accepts the newer version and delivers nothing.
    fn check_version(&mut self) -> Option<End> {
        match self.client.newest_version(self.kind) {
            Ok(newest) if is_lower(&newest, &self.version) => Some(self.went_back(&newest)),
            Ok(_) => None,
            // The watch may be allowed if the list is not, and the periodic list detects the same.
            Err(error @ (Error::Forbidden { .. } | Error::NotFound | Error::Malformed(_) | Error::Expired)) => {
                debug!(kind:% = self.kind, error:%; "failed to read the newest resource version");
                None
            }
            Err(error) => Some(End::Wait(error)),
        }
    }

    fn went_back(&self, version: &str) -> End {
        End::Relist(format!("resource version went back from {} to {version}", self.version))
    }

    /// One watch from its opening to its end.
    fn watch(&mut self) -> Result<End, Stopped> {
        let kind = self.kind;
        // Spread, so that the watches do not end at the same moment; below the usual idle limits of 5 minutes.
        let lifetime = Duration::from_secs(240) + Duration::from_secs(50).mul_f64(random_unit());
        // A list that is due soon waits for no watch; the server counts whole seconds.
        let until_relist = self.relist_at.saturating_duration_since(Instant::now()) + Duration::from_secs(1);
        let lifetime = lifetime.min(until_relist);
        if self.ended_early
            && let Some(end) = self.check_version()
        {
            return Ok(end);
        }
        let mut stream = match self.client.watch(kind, &self.version, lifetime) {
            Ok(stream) => stream,
            // The server does not accept this version, now or later.
            Err(error @ (Error::Expired | Error::Malformed(_) | Error::NotFound)) => {
                return Ok(End::Relist(error.to_string()));
            }
            Err(error) => {
                self.ended_early |= matches!(error, Error::Unreachable(_));
                return Ok(End::Wait(error));
            }
        };
        self.send(Event::Opened { kind })?;
        let after_early_end = std::mem::take(&mut self.ended_early);
        let mut watch = OpenWatch { since: Instant::now(), lifetime, is_live: false, after_early_end, events: 0 };
        let end = self.follow(&mut stream, &mut watch);
        if watch.is_live || watch.since.elapsed() >= WATCH_PROVEN {
            self.last_live = Instant::now();
            self.recovered();
        }
        end
    }

    /// Reads an open watch to its end.
    fn follow(&mut self, stream: &mut impl BufRead, watch: &mut OpenWatch) -> Result<End, Stopped> {
        let mut line = Vec::new();
        loop {
            let end = match read_line(stream, &mut line) {
                Ok(true) => {
                    watch.events += 1;
                    self.handle_line(&line, watch)?
                }
                Ok(false) | Err(ReadError::Cut(_)) if stopped(&self.stop) => return Err(Stopped),
                Ok(false) => Some(self.closed(watch)),
                Err(ReadError::Cut(error)) => Some(self.cut(error, !line.is_empty(), watch)),
                Err(ReadError::TooLong) => {
                    watch.events += 1;
                    let start = decode::line_start(&line);
                    // It is large, and what follows may take a while.
                    line = Vec::new();
                    match skip_line(stream) {
                        Ok(()) => self.read_alone(start, watch)?,
                        Err(why) => Some(End::Relist(why)),
                    }
                }
            };
            if let Some(end) = end {
                return Ok(end);
            }
            if line.capacity() > USUAL_LINE {
                line = Vec::new();
            }
        }
    }

    /// The server closed the watch.
    fn closed(&mut self, watch: &OpenWatch) -> End {
        debug!(kind:% = self.kind, count = watch.events; "watch closed");
        // The server counts whole seconds.
        self.ended_early = watch.since.elapsed() + Duration::from_secs(1) < watch.lifetime;
        if watch.is_futile() { End::Relist("watch closed at once".to_owned()) } else { End::Resume }
    }

    /// The connection broke, perhaps within a line.
    fn cut(&mut self, error: String, is_within_line: bool, watch: &OpenWatch) -> End {
        debug!(kind:% = self.kind, count = watch.events, error:%; "watch cut");
        self.ended_early = true;
        if is_within_line {
            // An event that never arrives whole keeps back all that follow it.
            let last_cut = std::mem::replace(&mut self.cut_after, self.version.clone());
            if last_cut == self.version {
                return End::Relist("the same event was cut twice".to_owned());
            }
        }
        if watch.is_futile() { End::Wait(Error::Unreachable(error)) } else { End::Resume }
    }

    /// Handles one line; returns how the watch ends, if it does.
    fn handle_line(&mut self, line: &[u8], watch: &mut OpenWatch) -> Result<Option<End>, Stopped> {
        match decode::line(self.kind, line) {
            Ok(WatchLine::Changed { resource_version, .. } | WatchLine::Bookmark(resource_version))
                if watch.after_early_end && is_lower(&resource_version, &self.version) =>
            {
                return Ok(Some(self.went_back(&resource_version)));
            }
            Ok(WatchLine::Changed { mut object, deleted, resource_version }) => {
                self.mark_live(watch)?;
                object.forget_unwatched_owner(&self.client.kinds);
                self.pool.share(&mut object);
                self.version = resource_version;
                self.send(changed(object, deleted))?;
            }
            Ok(WatchLine::Bookmark(resource_version)) => {
                self.mark_live(watch)?;
                self.version = resource_version;
            }
            Ok(WatchLine::Busy(error)) => return Ok(Some(End::Wait(error))),
            Ok(WatchLine::Failed(Error::Busy { message, .. })) => {
                return Ok(Some(End::Relist(format!("the API server ended the watch: {message}"))));
            }
            Ok(WatchLine::Failed(error)) | Err(error) => return Ok(Some(End::Relist(error.to_string()))),
            Ok(WatchLine::Unknown(reason)) => {
                debug!(kind:% = self.kind, reason; "ignoring a watch event of unknown type")
            }
        }
        Ok(None)
    }

    /// The open watch delivered something.
    fn mark_live(&mut self, watch: &mut OpenWatch) -> Result<(), Stopped> {
        metrics::watch_delivered(self.kind as usize);
        if std::mem::replace(&mut watch.is_live, true) {
            return Ok(());
        }
        self.recovered();
        self.send(Event::Live { kind: self.kind })
    }

    /// X3: an event that is too large costs no more than its object, which is read alone. If that fails, the watcher
    /// relists.
    fn read_alone(&mut self, start: decode::LineStart, watch: &mut OpenWatch) -> Result<Option<End>, Stopped> {
        let kind = self.kind;
        let Some(key) = start.key else {
            let why = format!("watch event about an unknown object is larger than {} MiB", MAX_LINE >> 20);
            return Ok(Some(End::Relist(why)));
        };
        if self.too_large.as_ref() != Some(&key) {
            warn!(kind:%, namespace = &*key.namespace, name = &*key.name; "watch event too large; reading the object alone");
            self.too_large = Some(key.clone());
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
                Err(error) => return Ok(Some(End::Relist(format!("failed to read {kind} {key} alone: {error}")))),
            }
        };
        self.mark_live(watch)?;
        if let Some(version) = start.resource_version {
            self.version = version;
        }
        self.send(event)?;
        Ok(None)
    }

    /// Waits before the next try. A failure that repeats is a warning once.
    fn wait(&mut self, what: &'static str, error: Error) -> Result<(), Stopped> {
        if stopped(&self.stop) {
            return Err(Stopped);
        }
        let pause = pause(self.backoff.pause(), &error);
        let (kind, server, retry_in) = (self.kind, self.client.server(), seconds(pause));
        let failure = Some((what, error));
        let is_repeated = self.logged == failure;
        if let Some((what, error)) = &failure {
            let level = if is_repeated { log::Level::Debug } else { log::Level::Warn };
            log::log!(level, kind:%, error:%, server, retry_in; "{what}");
        }
        self.logged = failure;
        if stopped_within(&self.stop, pause) { Err(Stopped) } else { Ok(()) }
    }

    fn recovered(&mut self) {
        if let Some((_, error)) = self.logged.take() {
            info!(kind:% = self.kind, reason:% = error; "list and watch recovered");
        }
    }

    /// Reports an event. A full queue holds the stream back; a stop does not wait.
    fn send(&self, event: Event) -> Result<(), Stopped> {
        select! {
            send(self.events, event) -> sent => sent.map_err(|_| Stopped)?,
            recv(self.stop) -> _ => return Err(Stopped),
        }
        metrics::queue_length(metrics::Queue::Cluster, self.events.len());
        Ok(())
    }
}

/// How long to wait: the longer of our own pause and the one that the server asks for, up to a limit.
fn pause(own: Duration, error: &Error) -> Duration {
    let asked = if let Error::Busy { after, .. } = error { *after } else { None };
    own.max(asked.unwrap_or_default().min(MAX_ASKED))
}

/// Whether a version is older than another one of the same kind. Versions that are not numbers cannot be compared.
fn is_lower(version: &str, than: &str) -> bool {
    matches!((version.parse::<u64>(), than.parse::<u64>()), (Ok(version), Ok(than)) if version < than)
}

/// An object that no rule needs counts as deleted.
fn changed(object: Object, deleted: bool) -> Event {
    if deleted || !object.is_kept() {
        Event::Gone { kind: object.kind(), key: object.key().clone() }
    } else {
        Event::Upsert(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// X3: a server may ask for a pause up to a limit.
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
