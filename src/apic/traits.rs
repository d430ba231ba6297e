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

/// The answer to a subscription: its id, if the session has a websocket, and what was read.
pub type Subscribed = (Option<SubscriptionId>, Vec<Mo>);

/// Requests of which several may be in flight together (W9). All is asked and given on the thread that sends them.
pub trait Requests<R, T> {
    /// The next request, with a number of its own. Asked as soon as one more may be in flight; if there is none now, again
    /// after the next answer.
    fn next(&mut self) -> Option<(usize, R)>;

    /// Asked right before each attempt, and each second while the request waits: whether to send it still.
    fn should_send(&self, _number: usize) -> bool {
        true
    }

    /// A request is answered.
    fn answered(&mut self, number: usize, answer: Result<T, Error>);
}

/// Sends one request after the other.
fn one_by_one<R, T>(requests: &mut dyn Requests<R, T>, send: impl Fn(&R, &ShouldSend<'_>) -> Result<T, Error>) {
    while let Some((number, request)) = requests.next() {
        let answer = send(&request, &|| requests.should_send(number));
        requests.answered(number, answer);
    }
}

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
    /// Sends reads until there is none and all are answered. A session that has several requests in flight overrides it.
    fn read_all(&self, reads: &mut dyn Requests<Read, Subscribed>) {
        one_by_one(
            reads,
            |Read { query, subscribe }, _| {
                if *subscribe { self.subscribe(query) } else { Ok((None, self.read(query)?)) }
            },
        );
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

    /// The same as [`ApicRead::read_all`], for writes.
    fn write_all(&self, writes: &mut dyn Requests<WriteRequest, WriteAnswer>) {
        one_by_one(writes, |request, should_send| self.write(request, should_send));
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
