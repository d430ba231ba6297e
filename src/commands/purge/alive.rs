//! Whether an aci-sync with this cluster id is alive: its socket, and the Lease, which `purge` holds while it deletes. What
//! neither shows, the canary does (`send`).

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use super::Setup;
use super::report::Report;
use super::who::Who;
use crate::commands::status;
use crate::kube::election::Lease;
use crate::kube::{Error, LeaderElector, LeaseLock};
use crate::leadership::Leadership;

/// How long the Lease is looked at: a leader renews it every 2 s, whatever its clock says.
const LOOK: Duration = Duration::from_secs(20);

/// The pause between two looks at it.
const POLL: Duration = Duration::from_secs(1);

/// How much of the name of another process is shown, in characters.
const MAX_NAME: usize = 120;

/// What a look found: no sign of life.
pub(super) struct Looked {
    /// The Lease can be asked for.
    lock: Option<LeaseLock>,
    /// As it was seen, and since when it has not changed.
    lease: Option<(Lease, Instant)>,
}

/// Looks for a living aci-sync; the error says which.
pub(super) fn look(setup: &Setup<'_>, who: &Who, ids: &[&str], report: &Report) -> Result<Looked, String> {
    let daemons = status::ask_all(setup.invocation, setup.environment).map_err(|error| error.message)?;
    if let Some(daemon) = daemons.iter().find(|it| ids.iter().any(|id| it["cluster_id"] == *id)) {
        let instance: String = daemon["instance"].as_str().unwrap_or_default().chars().take(MAX_NAME).collect();
        return Err(format!("aci-sync runs on {instance} with this cluster id; stop it everywhere first"));
    }
    if let Some(daemon) = daemons.iter().find(|it| it["cluster_id"].is_null()) {
        let instance: String = daemon["instance"].as_str().unwrap_or_default().chars().take(MAX_NAME).collect();
        return Err(format!("aci-sync runs on {instance} and does not know its cluster id yet; stop it first"));
    }
    let unseen = |why: &str| {
        report.note(&format!("the Lease cannot be looked at: {why}"));
        Looked { lock: None, lease: None }
    };
    let (client, (namespace, name)) = match (&who.cluster, &setup.config.lease) {
        (Ok(client), Some(lease)) => (client, lease),
        (Err(why), _) => return Ok(unseen(why)),
        (Ok(_), None) => return Ok(unseen("it has no name")),
    };
    let lock = LeaseLock::new(client.clone(), namespace, name);
    let (since, first) = match (Instant::now(), lock.look()) {
        (since, Ok(Some(lease))) => (since, lease),
        (_, Ok(None)) => return Ok(Looked { lock: Some(lock), lease: None }),
        (_, Err(error)) if who.has_answered && !is_refusal(&error) => {
            return Err(format!("the API server stopped answering: {error}"));
        }
        (_, Err(error)) => return Ok(unseen(&error.to_string())),
    };
    let holder: String = first.spec.holder_identity.iter().flat_map(|it| it.chars()).take(MAX_NAME).collect();
    report.note(&format!("looking at the Lease {lock} for {} s", LOOK.as_secs()));
    while since.elapsed() < LOOK {
        std::thread::park_timeout(POLL);
        match lock.look() {
            Ok(Some(lease)) if lease.spec == first.spec => {}
            Ok(_) => return Err(format!("an aci-sync is alive: the Lease {lock} changes; stop all of them first")),
            Err(error) if holder.is_empty() => return Ok(unseen(&error.to_string())),
            Err(error) => {
                let why = format!("{holder} holds the Lease {lock}, and whether it is alive is unknown: {error}");
                return Err(why);
            }
        }
    }
    Ok(Looked { lock: Some(lock), lease: Some((first, since)) })
}

/// The API server has understood the request and does not do it.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Forbidden { .. } | Error::Unauthorized)
}

impl Looked {
    /// Takes the Lease if the right is there, and holds it until the end.
    pub(super) fn take_lease(self, report: &Report) -> Result<Option<Held>, String> {
        let Some(lock) = self.lock else { return Ok(None) };
        let (stop, stopped) = bounded(0);
        let leadership = Leadership::not_yet();
        let mut elector = LeaderElector::new(lock.clone(), leadership.clone(), stopped);
        if let Some((lease, since)) = self.lease {
            elector = elector.having_seen(lease, since);
        }
        match elector.acquire() {
            Ok(true) => {}
            Ok(false) | Err(Error::Conflict) => return Err(format!("another process holds the Lease {lock}")),
            Err(error @ (Error::Forbidden { .. } | Error::NotFound | Error::Unauthorized)) => {
                report.note(&format!("the Lease {lock} is not taken: {error}"));
                return Ok(None);
            }
            Err(error) => return Err(format!("failed to take the Lease {lock}: {error}")),
        }
        let Some(term) = leadership.term() else { return Err(format!("failed to hold the Lease {lock}")) };
        let thread = std::thread::Builder::new().name("lease".to_owned()).spawn(move || elector.run(&|_| {}));
        let thread = thread.map_err(|error| format!("failed to start the lease thread: {error}"))?;
        Ok(Some(Held { leadership, term, lock, stop: Some(stop), thread: Some(thread) }))
    }
}

/// The Lease in our hands; released when it is dropped.
pub(super) struct Held {
    leadership: Leadership,
    term: u64,
    lock: LeaseLock,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Held {
    /// Whether no other process can have had it since it was taken.
    pub(super) fn is_held(&self) -> bool {
        self.leadership.term() == Some(self.term)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.lock.release();
    }
}
