//! The controllers' common state behind one lock, and the thread that does what is due: tokens that end, changes
//! that the fabric makes by itself.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::admin::AdminApi;
use super::error::ApiError;
use super::fabric::Fabric;
use super::front::Front;
use super::session::Sessions;
use super::signed::Certificates;
use super::tree::{Change, Tree};

/// A request that was answered.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When its last byte was read.
    pub at: Instant,
    /// Which controller got it, from 0.
    pub controller: usize,
    /// The login name; empty without a session.
    pub user: String,
    /// `GET` and so on.
    pub method: String,
    /// The path, decoded.
    pub path: String,
    /// The request target as it was sent.
    pub target: String,
    /// All header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// The HTTP status of the answer.
    pub status: u16,
}

impl Entry {
    /// Whether it changes the tree: a POST or DELETE of objects.
    pub fn is_write(&self) -> bool {
        let path = self.path.strip_prefix("/api/node/").or(self.path.strip_prefix("/api/")).unwrap_or_default();
        let objects = path.starts_with("mo/") || path == "mo.json";
        objects && self.method != "GET"
    }
}

/// A user who can log in.
#[derive(Debug, Clone)]
pub struct User {
    /// The login name.
    pub name: String,
    /// The password.
    pub password: String,
}

/// Writes that are refused although nothing is wrong with them.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// What must be in the DN or the body.
    pub containing: String,
    /// What is answered.
    pub error: ApiError,
    /// How often; for ever without a number.
    pub times: Option<usize>,
}

/// Requests in the journal at most.
const LONGEST_JOURNAL: usize = 50_000;

type Then = Box<dyn FnOnce(&AdminApi) + Send>;

/// Something that happens right after a request was done, before its answer is sent.
pub(super) struct Hook {
    pub method: String,
    pub target: String,
    pub then: Then,
}

/// A request that is to be held.
pub(super) struct Hold {
    /// How many requests are let through before it.
    pub skip: usize,
    /// It is held after it was done, else before.
    pub done: bool,
    /// Receives a message when the request is held.
    pub arrived: Sender<()>,
    /// Ends when it is to be let go.
    pub key: Receiver<()>,
}

/// What the lock guards.
pub(super) struct State {
    pub fabric: Fabric,
    pub sessions: Sessions,
    pub front: Front,
    pub users: Vec<User>,
    pub domains: Vec<String>,
    pub certificates: Certificates,
    /// By how many seconds the controllers' clock is ahead of ours.
    pub ahead: i64,
    pub journal: Vec<Entry>,
    pub rejections: Vec<Rejection>,
    /// Subscriptions whose target contains one of these are refused.
    pub refused_subscriptions: Vec<String>,
    pub hooks: Vec<Hook>,
    pub hold: Option<Hold>,
    /// What controllers show that are behind the others.
    pub lagging: BTreeMap<usize, Tree>,
    /// Websockets stay open and hear and say nothing.
    pub deaf: bool,
    pub stopped: bool,
    /// Grows with everything that happens.
    pub version: u64,
    /// When the clock began to run; it stands still without that, and is only put forward.
    pub started: Option<Instant>,
    /// How far the clock was put forward.
    pub skipped: Duration,
}

impl State {
    /// Now, on the simulator's clock.
    pub fn now(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |it| it.elapsed()) + self.skipped
    }

    /// The hold, if it is for the request that comes now.
    pub fn next_hold(&mut self) -> Option<Hold> {
        match &mut self.hold {
            Some(Hold { skip: 0, .. }) => self.hold.take(),
            Some(hold) => {
                hold.skip -= 1;
                None
            }
            None => None,
        }
    }

    /// Keeps a request. A lab that runs for days forgets the oldest.
    pub fn note(&mut self, entry: Entry) {
        if self.journal.len() >= LONGEST_JOURNAL {
            self.journal.drain(..LONGEST_JOURNAL / 2);
        }
        self.journal.push(entry);
    }

    /// Notifies the subscriptions.
    pub fn announce(&mut self, changes: &[Change]) {
        if !self.deaf && !self.fabric.variants.events_lost {
            let now = self.now();
            self.sessions.announce(changes, &self.fabric, now);
        }
    }

    fn do_what_is_due(&mut self) {
        let now = self.now();
        self.sessions.expire(&self.fabric.variants, now);
        let changes = self.fabric.by_itself(now);
        self.announce(&changes);
    }

    fn next_due(&self) -> Option<Duration> {
        let now = self.now();
        let due = self.fabric.next_by_itself().into_iter().chain(self.sessions.next_end(now)).min()?;
        Some(due.saturating_sub(now))
    }
}

/// The state, its lock, and the bell that rings whenever something happened.
pub struct Cluster {
    state: Mutex<State>,
    bell: Condvar,
}

impl Cluster {
    pub(super) fn new(state: State) -> Cluster {
        Cluster { state: Mutex::new(state), bell: Condvar::new() }
    }

    /// Looks at the state.
    pub(super) fn look(&self) -> MutexGuard<'_, State> {
        // A test's failed assertion under the lock must not hide behind a second panic.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Changes the state, does what has become due, and rings.
    pub(super) fn change<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.look();
        let result = work(&mut state);
        state.do_what_is_due();
        state.version += 1;
        drop(state);
        self.bell.notify_all();
        result
    }

    /// Waits while something holds; false when it still holds after this time.
    pub(super) fn wait_while(&self, limit: Duration, mut holds: impl FnMut(&mut State) -> bool) -> bool {
        let state = self.look();
        let waited = self.bell.wait_timeout_while(state, limit, |it| holds(it));
        let (_state, timeout) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        !timeout.timed_out()
    }

    /// Does what is due when it is due, until the simulator stops.
    pub(super) fn keep(&self) {
        let mut state = self.look();
        while !state.stopped {
            let version = state.version;
            let limit = state.next_due().unwrap_or(Duration::from_secs(3600));
            let waited = self.bell.wait_timeout_while(state, limit, |it| it.version == version && !it.stopped);
            state = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            if state.version == version && !state.stopped {
                state.do_what_is_due();
                state.version += 1;
                self.bell.notify_all();
            }
        }
    }
}
