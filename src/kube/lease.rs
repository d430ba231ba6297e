//! The thread that wins, keeps and loses the Lease (K4), its requests, and the release at the stop (X2). What an answer
//! means is `election`'s business.

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
use crate::time::micro_now;

/// How long the release may take at the stop (X2).
const RELEASE_TIMEOUT: Duration = Duration::from_millis(400);

/// How much of another holder's identity is told, in characters.
const MAX_TOLD: usize = 120;

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
    /// A part in the election for a Lease, with an identity that no other process has. Nothing is sent yet.
    pub fn new(client: Client, namespace: &str, name: &str) -> LeaseLock {
        LeaseLock { client, namespace: namespace.to_owned(), name: name.to_owned(), identity: identity() }
    }

    fn path(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
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

    /// X2: leaves the Lease to the others, on an agent of its own, because the client's is shut down. Best effort.
    pub fn release(&self) {
        let lock = LeaseLock { client: self.client.with_own_agent(), ..self.clone() };
        let end = Instant::now() + RELEASE_TIMEOUT;
        let left = || end.saturating_duration_since(Instant::now());
        let released = lock.read(left()).and_then(|lease| {
            let lease = ElectionState::release(&self.identity, lease, &micro_now());
            lease.map(|lease| lock.update(&lease, left())).transpose()
        });
        match released {
            Ok(Some(_)) => info!("the Lease {self} is released"),
            Ok(None) => debug!("the Lease {self} is not ours to release"),
            Err(error) => debug!("the Lease {self} could not be released: {error}"),
        }
    }
}

fn body(lease: &Lease) -> String {
    let (metadata, spec) = (&lease.metadata, &lease.spec);
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}).to_string()
}

/// The host's name, for people.
pub(super) fn host() -> String {
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
    refused: Backoff,
    told: String,
    /// Whether the last try met a Lease that somebody else had just written.
    raced: bool,
}

impl LeaderElector {
    /// A candidate. Whether it leads stands in the term.
    pub fn new(lock: LeaseLock, leadership: Leadership, stop: Receiver<()>) -> LeaderElector {
        let election = ElectionState::new(lock.identity.clone());
        let refused = Backoff::new(Duration::from_secs(4), Duration::from_secs(30));
        LeaderElector { lock, election, leadership, stop, refused, told: String::new(), raced: false }
    }

    /// Takes part until the program stops. `lost` is called whenever this process leads no more.
    pub fn run(mut self, lost: &dyn Fn(&str)) {
        info!("leader election by the Lease {} as {}", self.lock, self.lock.identity);
        loop {
            let tried = self.try_acquire_or_renew(lost);
            if stopped(&self.stop) {
                return;
            }
            let pause = self.pause(tried);
            if stopped_within(&self.stop, pause) {
                return;
            }
        }
    }

    /// One try, and what follows from it for the others.
    fn try_acquire_or_renew(&mut self, lost: &dyn Fn(&str)) -> Result<(), Error> {
        // After a sleep the deadline may have passed: that comes first, and a new term is a new one.
        if self.election.is_over(Instant::now()) {
            self.lose(lost, "it could not be renewed in time");
        }
        let led = self.election.leads_until().is_some();
        let before = self.election.holder().to_owned();
        let tried = self.ask();
        if stopped(&self.stop) {
            return tried;
        }
        let is_late = self.election.is_over(Instant::now());
        match (led, self.election.leads_until()) {
            (true, None) if is_late => self.lose(lost, "it could not be renewed in time"),
            (true, None) => self.lose(lost, &format!("{} has it", self.holder())),
            (_, Some(until)) => {
                if !led {
                    info!("this process leads: the Lease {} is ours", self.lock);
                }
                self.leadership.extend(until);
            }
            (false, None) => {
                let holder = self.election.holder();
                if holder != before && !["", &self.lock.identity].contains(&holder) {
                    info!("{} leads; this process waits", self.holder());
                }
            }
        }
        tried
    }

    /// Who holds the Lease, in words.
    fn holder(&self) -> String {
        match self.election.holder() {
            "" => "nobody".to_owned(),
            holder => format!("{:?}", holder.chars().take(MAX_TOLD).collect::<String>()),
        }
    }

    fn lose(&self, lost: &dyn Fn(&str), why: &str) {
        self.leadership.end();
        warn!("this process leads no more: the Lease {} is lost, {why}; nothing is written from here", self.lock);
        lost(&format!("the Lease is lost, {why}"));
    }

    /// The requests of one try: at most three, each bounded, none past the deadline.
    fn ask(&mut self) -> Result<(), Error> {
        let mut failed = None;
        if let Some(renewal) = self.election.renewal(&micro_now()) {
            match self.write(renewal) {
                Ok(()) => return Ok(()),
                // What was seen last is out of date, or nobody knows what became of it: look.
                Err(error) => {
                    debug!("the Lease {} was not renewed: {error}; it is read", self.lock);
                    failed = Some(error);
                }
            }
        }
        let limit = self.limit().map_err(|over| failed.unwrap_or(over))?;
        let found = match self.lock.read(limit) {
            Ok(lease) => Some(lease),
            Err(Error::NotFound) => None,
            Err(error) => return Err(error),
        };
        match self.election.read(found, Instant::now(), &micro_now()) {
            Some(write) => self.write(write),
            None => Ok(()),
        }
    }

    fn write(&mut self, write: Write) -> Result<(), Error> {
        let (sent, limit) = (Instant::now(), self.limit()?);
        let lease = match write {
            Write::Create(lease) => self.lock.create(lease, limit),
            Write::Update(lease) => self.lock.update(&lease, limit),
        }?;
        let what = "a Lease that is not what was asked for";
        if self.election.written(lease, sent) { Ok(()) } else { Err(Error::Malformed(what.to_owned())) }
    }

    fn limit(&self) -> Result<Duration, Error> {
        let over = || Error::Unreachable("the time to renew the Lease is over".to_owned());
        self.election.limit(Instant::now()).ok_or_else(over)
    }

    /// How long to wait, and what to say, after a try. Nobody is asked again and again for what he refuses.
    fn pause(&mut self, tried: Result<(), Error>) -> Duration {
        let usual = self.election.pause(Instant::now(), random_unit());
        let raced = std::mem::replace(&mut self.raced, tried == Err(Error::Conflict));
        let error = match tried {
            Ok(()) => {
                self.refused.reset();
                self.told.clear();
                return usual;
            }
            // Somebody was faster, which is what an election is about; it happens once.
            Err(Error::Conflict) if !raced => return usual,
            Err(error) => error,
        };
        let leads = self.leadership.is_leader();
        let why = match &error {
            Error::NotFound => format!("there is no namespace {}", self.lock.namespace),
            error => error.to_string(),
        };
        let text = if leads {
            format!("the Lease {} cannot be renewed: {why}; it is tried again until its time is over", self.lock)
        } else {
            format!("the Lease {} cannot be had: {why}; nothing is written from here meanwhile", self.lock)
        };
        if self.told != text {
            warn!("{text}");
            self.told = text;
        }
        match error {
            _ if leads => usual,
            Error::Unreachable(_) | Error::Busy { .. } => usual,
            _ => self.refused.pause(),
        }
    }
}
