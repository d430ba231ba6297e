//! The lease thread: it acquires and renews the Lease (K4), and releases it at the stop (X2). What an answer means is
//! decided in `election`.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use log::{debug, info, warn};
use serde_json::json;

use super::client::{Client, Verb};
use super::decode;
use super::election::{ElectionState, Lease, Write};
use super::error::Error;
use crate::backoff::{Backoff, random_unit, stopped, stopped_within};
use crate::leadership::Leadership;
use crate::net::CONNECT_TIMEOUT;
use crate::time::micro_now;

/// How long the release may take at the end of a command, and at the stop of the daemon (X2).
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
const QUICK_RELEASE_TIMEOUT: Duration = Duration::from_millis(400);

/// How much of another holder's identity is logged, in characters.
const MAX_IDENTITY: usize = 120;

/// One Lease, as one process sees it. Clones are the same.
#[derive(Debug, Clone)]
pub struct LeaseLock {
    client: Client,
    namespace: String,
    name: String,
    identity: String,
}

impl fmt::Display for LeaseLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl LeaseLock {
    /// The lock of this process, with an identity that no other process has. Nothing is sent yet.
    pub fn new(client: Client, namespace: &str, name: &str) -> LeaseLock {
        LeaseLock { client, namespace: namespace.to_owned(), name: name.to_owned(), identity: identity() }
    }

    fn path(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }

    /// The identity of the process that holds it; empty if it is free.
    pub fn holder(&self) -> Result<String, Error> {
        let lease = self.read(CONNECT_TIMEOUT)?;
        Ok(lease.spec.holder_identity.unwrap_or_default().chars().take(MAX_IDENTITY).collect())
    }

    /// The Lease as it is; `None` if there is none.
    pub fn look(&self) -> Result<Option<Lease>, Error> {
        match self.read(CONNECT_TIMEOUT) {
            Ok(lease) => Ok(Some(lease)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&self, limit: Duration) -> Result<Lease, Error> {
        decode::lease(&self.client.get_object(&format!("{}/{}", self.path(), self.name), limit)?)
    }

    fn create(&self, mut lease: Lease, limit: Duration) -> Result<Lease, Error> {
        lease.metadata = json!({"name": self.name, "namespace": self.namespace});
        decode::lease(&self.client.put_object(Verb::Create, &self.path(), &body(&lease), limit)?)
    }

    fn update(&self, lease: &Lease, limit: Duration) -> Result<Lease, Error> {
        let path = format!("{}/{}", self.path(), self.name);
        decode::lease(&self.client.put_object(Verb::Update, &path, &body(lease), limit)?)
    }

    /// Makes the Lease free for the others, best effort. Uses connections of its own, because the client may be shut down.
    pub fn release(&self) {
        self.release_within(RELEASE_TIMEOUT);
    }

    /// The same in the daemon, whose stop does not wait longer (X2).
    pub fn release_quickly(&self) {
        self.release_within(QUICK_RELEASE_TIMEOUT);
    }

    fn release_within(&self, limit: Duration) {
        let lock = LeaseLock { client: self.client.with_own_agent(), ..self.clone() };
        let end = Instant::now() + limit;
        let left = || end.saturating_duration_since(Instant::now());
        let released = lock.read(left()).and_then(|lease| {
            let lease = ElectionState::release(&self.identity, lease, &micro_now());
            lease.map(|lease| lock.update(&lease, left())).transpose()
        });
        match released {
            Ok(Some(_)) => info!(lease:% = self; "released the lease"),
            Ok(None) => debug!(lease:% = self; "lease not released: another process holds it"),
            Err(error) => debug!(lease:% = self, error:%; "failed to release the lease"),
        }
    }
}

fn body(lease: &Lease) -> String {
    let (metadata, spec) = (&lease.metadata, &lease.spec);
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}).to_string()
}

/// The host's name, for people.
pub fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host.chars().filter(|it| it.is_ascii_alphanumeric() || "-.".contains(*it)).take(63).collect()
}

/// The host's name, and what makes it unique: the keys of the standard library's hashes are random.
fn identity() -> String {
    let host = host();
    let random = [0u8, 1].map(|it| RandomState::new().hash_one((it, Instant::now(), std::process::id())));
    format!("{host}_{:016x}{:016x}", random[0], random[1])
}

/// The lease thread.
pub struct LeaderElector {
    lock: LeaseLock,
    election: ElectionState,
    leadership: Leadership,
    stop: Receiver<()>,
    /// The pauses while the API server refuses what is asked.
    refusals: Backoff,
    /// The last failure that was logged; a repetition is not.
    logged: Option<(bool, Error)>,
    /// The last try met a Lease that another process had just written.
    was_conflict: bool,
}

impl LeaderElector {
    /// A standby that has not tried yet. Its successes and losses are reported to `leadership`.
    pub fn new(lock: LeaseLock, leadership: Leadership, stop: Receiver<()>) -> LeaderElector {
        let election = ElectionState::new(lock.identity.clone());
        let refusals = Backoff::new(Duration::from_secs(4), Duration::from_secs(30));
        LeaderElector { lock, election, leadership, stop, refusals, logged: None, was_conflict: false }
    }

    /// The same, after a look at the Lease: this is how it has been since then.
    pub fn having_seen(mut self, lease: Lease, since: Instant) -> LeaderElector {
        self.election.saw(lease, since);
        self
    }

    /// One try before [`LeaderElector::run`]; whether it made this process the leader.
    pub fn acquire(&mut self) -> Result<bool, Error> {
        self.try_acquire_or_renew(&|_| {})?;
        Ok(self.leadership.is_leader())
    }

    /// Takes part until the program stops. `lost` is called at the end of each term.
    pub fn run(mut self, lost: &dyn Fn(&str)) {
        info!(lease:% = self.lock, identity = self.lock.identity.as_str(); "taking part in leader election");
        loop {
            let tried = self.try_acquire_or_renew(lost);
            if stopped(&self.stop) {
                return;
            }
            let pause = self.pause_after(tried);
            if stopped_within(&self.stop, pause) {
                return;
            }
        }
    }

    /// One try, and what it means for the other threads.
    fn try_acquire_or_renew(&mut self, lost: &dyn Fn(&str)) -> Result<(), Error> {
        const TOO_LATE: &str = "not renewed in time";
        // After a sleep the deadline may have passed: the old term ends before another can begin.
        if self.election.end_if_expired(Instant::now()) {
            self.lose(lost, TOO_LATE);
        }
        let was_leading = self.election.leads_until().is_some();
        let holder_before = self.election.holder().to_owned();
        let tried = self.request();
        if stopped(&self.stop) {
            return tried;
        }
        let is_late = self.election.end_if_expired(Instant::now());
        match self.election.leads_until() {
            Some(until) => {
                if !was_leading {
                    info!(lease:% = self.lock; "acquired leadership");
                }
                self.leadership.extend(until);
            }
            None if was_leading && is_late => self.lose(lost, TOO_LATE),
            None if was_leading => match self.holder() {
                holder if holder.is_empty() => self.lose(lost, "another writer changed or deleted the lease"),
                holder => self.lose(lost, &format!("{holder} holds the lease")),
            },
            None => {
                let holder = self.election.holder();
                if holder != holder_before && !holder.is_empty() && holder != self.lock.identity {
                    info!(lease:% = self.lock, identity = self.holder(); "standby: another process leads");
                }
            }
        }
        tried
    }

    /// The holder's identity, cut for messages; empty for a free Lease.
    fn holder(&self) -> String {
        self.election.holder().chars().take(MAX_IDENTITY).collect()
    }

    fn lose(&self, lost: &dyn Fn(&str), reason: &str) {
        self.leadership.end();
        warn!(lease:% = self.lock, reason; "lost leadership; writes disabled");
        lost(&format!("lost leadership: {reason}"));
    }

    /// The requests of one try: at most three, each bounded, none past the deadline.
    fn request(&mut self) -> Result<(), Error> {
        let mut failed = None;
        if let Some(renewal) = self.election.renewal(&micro_now()) {
            match self.write(renewal) {
                Ok(()) => return Ok(()),
                // What was seen last is out of date, or the answer was lost.
                Err(error) => {
                    debug!(lease:% = self.lock, error:%; "failed to renew the lease; reading it");
                    failed = Some(error);
                }
            }
        }
        let timeout = self.timeout().map_err(|too_late| failed.unwrap_or(too_late))?;
        let found = match self.lock.read(timeout) {
            Ok(lease) => Some(lease),
            Err(Error::NotFound) => None,
            Err(error) => return Err(error),
        };
        match self.election.observe(found, Instant::now(), &micro_now()) {
            Some(write) => self.write(write),
            None => Ok(()),
        }
    }

    fn write(&mut self, write: Write) -> Result<(), Error> {
        let (sent, timeout) = (Instant::now(), self.timeout()?);
        let answer = match write {
            Write::Create(lease) => self.lock.create(lease, timeout),
            Write::Update(lease) => self.lock.update(&lease, timeout),
        }?;
        if self.election.accept_answer(answer, sent) {
            Ok(())
        } else {
            Err(Error::Malformed("the written Lease names another holder".to_owned()))
        }
    }

    fn timeout(&self) -> Result<Duration, Error> {
        let too_late = || Error::Unreachable("no time left to renew the Lease".to_owned());
        self.election.timeout(Instant::now()).ok_or_else(too_late)
    }

    /// How long to wait after a try; logs why it failed. What the API server refuses is asked for less and less often.
    fn pause_after(&mut self, tried: Result<(), Error>) -> Duration {
        let usual = self.election.pause(Instant::now(), random_unit());
        let was_conflict = std::mem::replace(&mut self.was_conflict, tried == Err(Error::Conflict));
        let error = match tried {
            Ok(()) => {
                self.refusals.reset();
                self.logged = None;
                return usual;
            }
            // Another process was faster, as one of them must be in an election.
            Err(Error::Conflict) if !was_conflict => return usual,
            Err(error) => error,
        };
        let leads = self.leadership.is_leader();
        let may_pass = matches!(error, Error::Unreachable(_) | Error::Busy { .. });
        let logged = Some((leads, error));
        if self.logged != logged {
            self.logged = logged;
            self.log_failure();
        }
        if leads || may_pass { usual } else { self.refusals.pause() }
    }

    fn log_failure(&self) {
        let Some((leads, error)) = &self.logged else { return };
        let error = match error {
            Error::NotFound => format!("namespace {} not found", self.lock.namespace),
            error => error.to_string(),
        };
        if *leads {
            warn!(lease:% = self.lock, error; "failed to renew the lease; retrying until the term ends");
        } else {
            warn!(lease:% = self.lock, error; "failed to acquire the lease; writes stay disabled");
        }
    }
}
