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

/// Reads and subscriptions.
pub trait ApicRead {
    /// Reads objects; children come flattened, with their DNs.
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error>;

    /// Reads objects and subscribes to their changes; no id from a session without a websocket.
    fn subscribe(&self, query: &Query) -> Result<(Option<SubscriptionId>, Vec<Mo>), Error>;

    /// Lets a subscription lapse.
    fn unsubscribe(&self, id: &SubscriptionId);
}

/// Writes.
pub trait ApicWrite {
    /// Sends a write; `should_send` is asked before each attempt.
    fn write(&self, request: &WriteRequest, should_send: &ShouldSend<'_>) -> Result<WriteAnswer, Error>;
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
