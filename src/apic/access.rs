//! What the reconciler needs of a session at an APIC: the seam at which tests and `plan` put something else.

use std::cell::Cell;

use super::body::Body;
use super::{Client, Error, Query, SubscriptionId};
use crate::model::mo::{Mo, MoChange};

/// Asked right before a request is sent, each time it is sent, and each second while it waits for its turn: whether it may
/// be sent.
pub type MaySend<'a> = dyn Fn() -> bool + 'a;

/// The answer to a write that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteAnswer {
    /// What it created, changed and deleted, as far as the APIC says.
    Changes(Vec<MoChange>),
    /// It was not sent at all, and counts as done: `plan`.
    Assumed,
}

/// Reads, subscriptions and writes of one session.
pub trait Access {
    /// Reads objects; children come flattened, with their DNs.
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error>;
    /// Reads objects and hears of their changes from then on. Nothing for a session without a websocket.
    fn subscribe(&self, query: &Query) -> Result<(Option<SubscriptionId>, Vec<Mo>), Error>;
    /// A subscription that is not needed any more.
    fn forget(&self, id: &SubscriptionId);
    /// Sends a transaction. Only the writer calls it.
    fn post(&self, dn: &str, body: &Body, may_send: &MaySend<'_>) -> Result<WriteAnswer, Error>;
    /// Deletes one object. Only the writer calls it.
    fn delete(&self, dn: &str, may_send: &MaySend<'_>) -> Result<(), Error>;
}

/// What became of the requests of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Requests that the controller served, be it with an error about their content.
    pub served: usize,
    /// Requests that it did not: busy, out of reach, silent, or not making sense.
    pub failed: usize,
}

/// A session whose requests are counted by what became of them, so that a controller that serves none can be told from one
/// that serves few (W8).
pub struct Counted<'a> {
    apic: &'a dyn Access,
    reads: Cell<Outcomes>,
    writes: Cell<Outcomes>,
}

impl<'a> Counted<'a> {
    /// Counts from now on.
    pub fn new(apic: &'a dyn Access) -> Self {
        Counted { apic, reads: Cell::default(), writes: Cell::default() }
    }

    /// What became of the reads until now.
    pub fn reads(&self) -> Outcomes {
        self.reads.get()
    }

    /// What became of the writes until now.
    pub fn writes(&self) -> Outcomes {
        self.writes.get()
    }
}

fn count<T>(outcomes: &Cell<Outcomes>, result: Result<T, Error>) -> Result<T, Error> {
    let mut now = outcomes.get();
    match &result {
        Err(Error::Busy(_) | Error::Unreachable(_) | Error::AnswerLost(_) | Error::Malformed(_)) => now.failed += 1,
        Err(Error::Withdrawn) => {}
        _ => now.served += 1,
    }
    outcomes.set(now);
    result
}

impl Access for Counted<'_> {
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        count(&self.reads, self.apic.read(query))
    }

    fn subscribe(&self, query: &Query) -> Result<(Option<SubscriptionId>, Vec<Mo>), Error> {
        count(&self.reads, self.apic.subscribe(query))
    }

    fn forget(&self, id: &SubscriptionId) {
        self.apic.forget(id);
    }

    fn post(&self, dn: &str, body: &Body, may_send: &MaySend<'_>) -> Result<WriteAnswer, Error> {
        count(&self.writes, self.apic.post(dn, body, may_send))
    }

    fn delete(&self, dn: &str, may_send: &MaySend<'_>) -> Result<(), Error> {
        count(&self.writes, self.apic.delete(dn, may_send))
    }
}

/// A session with a websocket, as long as the reconciler may go on. That is asked before each request and each second of
/// waiting, so that it also serves as a heartbeat: what sends requests, each within its time, does not hang (X1).
pub struct Supervised<'a> {
    /// The session.
    pub client: &'a Client,
    /// Whether the reconciler may go on.
    pub may_continue: &'a MaySend<'a>,
}

impl Access for Supervised<'_> {
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        self.client.read(query, self.may_continue)
    }

    fn subscribe(&self, query: &Query) -> Result<(Option<SubscriptionId>, Vec<Mo>), Error> {
        self.client.subscribe(query, self.may_continue).map(|(id, mos)| (Some(id), mos))
    }

    fn forget(&self, id: &SubscriptionId) {
        self.client.forget(id);
    }

    fn post(&self, dn: &str, body: &Body, may_send: &MaySend<'_>) -> Result<WriteAnswer, Error> {
        self.client.post(dn, body, &|| (self.may_continue)() && may_send()).map(WriteAnswer::Changes)
    }

    fn delete(&self, dn: &str, may_send: &MaySend<'_>) -> Result<(), Error> {
        self.client.delete(dn, &|| (self.may_continue)() && may_send())
    }
}

/// A session without a websocket: what is subscribed elsewhere is only read (`run --once`, X5).
pub struct WithoutEvents<'a>(pub &'a Client);

impl Access for WithoutEvents<'_> {
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        self.0.read(query, &|| true)
    }

    fn subscribe(&self, query: &Query) -> Result<(Option<SubscriptionId>, Vec<Mo>), Error> {
        Ok((None, self.read(query)?))
    }

    fn forget(&self, _: &SubscriptionId) {}

    fn post(&self, dn: &str, body: &Body, may_send: &MaySend<'_>) -> Result<WriteAnswer, Error> {
        self.0.post(dn, body, may_send).map(WriteAnswer::Changes)
    }

    fn delete(&self, dn: &str, may_send: &MaySend<'_>) -> Result<(), Error> {
        self.0.delete(dn, may_send)
    }
}

/// A session that reads and takes every write for done without sending it: `plan` runs a whole reconcile on it.
pub struct ReadOnly<'a>(pub &'a Client);

impl Access for ReadOnly<'_> {
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        self.0.read(query, &|| true)
    }

    fn subscribe(&self, query: &Query) -> Result<(Option<SubscriptionId>, Vec<Mo>), Error> {
        Ok((None, self.read(query)?))
    }

    fn forget(&self, _: &SubscriptionId) {}

    fn post(&self, _: &str, _: &Body, _: &MaySend<'_>) -> Result<WriteAnswer, Error> {
        Ok(WriteAnswer::Assumed)
    }

    fn delete(&self, _: &str, _: &MaySend<'_>) -> Result<(), Error> {
        Ok(())
    }
}
