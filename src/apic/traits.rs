//! What the reconciler needs of an APIC session. Tests and the commands put different things behind these traits.
//!
//! Everything may read. Writing takes a [`WriteRequest`], and only [`super::writer::Writer`] can make one, so no other
//! code can write (W5).

use super::error::Error;
use super::query::Query;
use super::subscription::SubscriptionId;
use super::writer::request::WriteRequest;
use crate::model::mo::{Mo, MoChange};

/// Asked right before a request is sent, at each attempt and each second while it waits: whether to send it still.
pub type ShouldSend<'a> = dyn Fn() -> bool + 'a;

/// The same for one of several writes.
pub type ShouldWrite<'a> = dyn Fn(&WriteRequest) -> bool + 'a;

/// The answer to a subscription: its id, if the session has a websocket, and what was read.
pub type Subscribed = (Option<SubscriptionId>, Vec<Mo>);

/// One of several reads.
#[derive(Debug, Clone)]
pub struct Read {
    /// What is read.
    pub query: Query,
    /// Whether to subscribe to its changes, too.
    pub subscribe: bool,
}

/// Reads and subscriptions.
pub trait ApicRead {
    /// How many requests may be in flight together at present (W9).
    fn at_once(&self) -> usize {
        1
    }

    /// Sends several reads; the answers come in the order of the reads. A session that has several requests in flight
    /// sends them together.
    fn read_all(&self, reads: &[Read]) -> Vec<Result<Subscribed, Error>> {
        let read = |it: &Read| if it.subscribe { self.subscribe(&it.query) } else { Ok((None, self.read(&it.query)?)) };
        reads.iter().map(read).collect()
    }

    /// Reads objects; children come flattened, with their DNs.
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error>;

    /// Reads objects and subscribes to their changes; no id from a session without a websocket.
    fn subscribe(&self, query: &Query) -> Result<Subscribed, Error>;

    /// Lets a subscription lapse.
    fn unsubscribe(&self, id: &SubscriptionId);
}

/// Writes.
pub trait ApicWrite {
    /// Sends a write; `should_send` is asked before each attempt.
    fn write(&self, request: &WriteRequest, should_send: &ShouldSend<'_>) -> Result<WriteAnswer, Error>;

    /// Sends several writes; the answers come in the order of the writes. A session that has several requests in flight
    /// sends them together.
    fn write_all(&self, requests: &[WriteRequest], should_send: &ShouldWrite<'_>) -> Vec<Result<WriteAnswer, Error>> {
        requests.iter().map(|request| self.write(request, &|| should_send(request))).collect()
    }
}

/// The answer to a write that the APIC took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteAnswer {
    /// What it created, changed and deleted. The APIC may leave some or all of it out.
    Changes(Vec<MoChange>),
    /// Nothing was sent, and the write counts as done (`plan`).
    Assumed,
}

/// A session as the reconciler gets it: it reads for itself and hands the session to the writer.
pub trait ApicSession: ApicRead + ApicWrite {}

impl<T: ApicRead + ApicWrite> ApicSession for T {}
