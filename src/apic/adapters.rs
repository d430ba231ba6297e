//! The sessions that the daemon and the commands hand to the reconciler, each around a [`Client`].

use std::cell::{Cell, RefCell};

use super::client::Client;
use super::error::Error;
use super::query::Query;
use super::subscription::SubscriptionId;
use super::traits::{ApicRead, ApicSession, ApicWrite, Read, Requests, ShouldSend, Subscribed, WriteAnswer};
use super::writer::request::WriteRequest;
use crate::model::mo::Mo;

/// How many requests of one kind the controller served and how many it did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Answered, even if with an error about the content.
    pub served: usize,
    /// Not served: busy, unreachable, no answer or an answer that cannot be read.
    pub failed: usize,
}

impl Outcomes {
    /// How many requests there were.
    pub fn total(self) -> usize {
        self.served + self.failed
    }
}

/// Counts the outcomes of a session's requests. A controller that serves none is treated differently from one that
/// serves some (W8).
pub struct Counted<'a> {
    apic: &'a dyn ApicSession,
    reads: Cell<Outcomes>,
    writes: Cell<Outcomes>,
}

impl<'a> Counted<'a> {
    /// Starts to count.
    pub fn new(apic: &'a dyn ApicSession) -> Self {
        Counted { apic, reads: Cell::default(), writes: Cell::default() }
    }

    /// The outcomes of the reads.
    pub fn reads(&self) -> Outcomes {
        self.reads.get()
    }

    /// The outcomes of the writes.
    pub fn writes(&self) -> Outcomes {
        self.writes.get()
    }
}

fn count<T>(outcomes: &Cell<Outcomes>, result: Result<T, Error>) -> Result<T, Error> {
    let Outcomes { served, failed } = outcomes.get();
    match &result {
        Err(Error::NotSent) => {}
        Err(Error::Busy(_) | Error::Unreachable(_) | Error::AnswerLost(_) | Error::Malformed(_)) => {
            outcomes.set(Outcomes { served, failed: failed + 1 });
        }
        Ok(_) | Err(Error::Unauthorized(_) | Error::Forbidden(_) | Error::Rejected { .. }) => {
            outcomes.set(Outcomes { served: served + 1, failed });
        }
    }
    result
}

/// Requests whose outcomes are counted.
struct CountedRequests<'a, R, T> {
    requests: &'a mut dyn Requests<R, T>,
    outcomes: &'a Cell<Outcomes>,
}

impl<R, T> Requests<R, T> for CountedRequests<'_, R, T> {
    fn next(&mut self) -> Option<(usize, R)> {
        self.requests.next()
    }

    fn should_send(&self, number: usize) -> bool {
        self.requests.should_send(number)
    }

    fn answered(&mut self, number: usize, answer: Result<T, Error>) {
        self.requests.answered(number, count(self.outcomes, answer));
    }
}

impl ApicRead for Counted<'_> {
    fn read_all(&self, reads: &mut dyn Requests<Read, Subscribed>) {
        self.apic.read_all(&mut CountedRequests { requests: reads, outcomes: &self.reads });
    }

    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        count(&self.reads, self.apic.read(query))
    }

    fn subscribe(&self, query: &Query) -> Result<Subscribed, Error> {
        count(&self.reads, self.apic.subscribe(query))
    }

    fn unsubscribe(&self, id: &SubscriptionId) {
        self.apic.unsubscribe(id);
    }
}

impl ApicWrite for Counted<'_> {
    fn write(&self, request: &WriteRequest, should_send: &ShouldSend<'_>) -> Result<WriteAnswer, Error> {
        count(&self.writes, self.apic.write(request, should_send))
    }

    fn write_all(&self, writes: &mut dyn Requests<WriteRequest, WriteAnswer>) {
        self.apic.write_all(&mut CountedRequests { requests: writes, outcomes: &self.writes });
    }
}

/// The daemon's session, with a websocket. `should_continue` is asked before each request and each second of waiting;
/// it serves as a heartbeat too, because a reconcile that sends bounded requests does not hang (X1).
pub struct Supervised<'a> {
    /// The session.
    pub client: &'a Client,
    /// Whether the reconcile may go on.
    pub should_continue: &'a ShouldSend<'a>,
}

impl ApicRead for Supervised<'_> {
    fn read_all(&self, reads: &mut dyn Requests<Read, Subscribed>) {
        self.client.send_all(reads, self.should_continue, |client, Read { query, subscribe }, may_send| {
            if *subscribe {
                client.subscribe(query, may_send).map(|(id, mos)| (Some(id), mos))
            } else {
                Ok((None, client.read(query, may_send)?))
            }
        });
    }

    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        self.client.read(query, self.should_continue)
    }

    fn subscribe(&self, query: &Query) -> Result<Subscribed, Error> {
        self.client.subscribe(query, self.should_continue).map(|(id, mos)| (Some(id), mos))
    }

    fn unsubscribe(&self, id: &SubscriptionId) {
        self.client.unsubscribe(id);
    }
}

impl ApicWrite for Supervised<'_> {
    fn write(&self, request: &WriteRequest, should_send: &ShouldSend<'_>) -> Result<WriteAnswer, Error> {
        self.client.write(request, &|| (self.should_continue)() && should_send()).map(WriteAnswer::Changes)
    }

    fn write_all(&self, writes: &mut dyn Requests<WriteRequest, WriteAnswer>) {
        self.client.send_all(writes, self.should_continue, |client, request, may_send| {
            client.write(request, may_send).map(WriteAnswer::Changes)
        });
    }
}

/// A session without a websocket, which only reads what it is asked to subscribe to (`run --once`, X5).
pub struct WithoutEvents<'a>(pub &'a Client);

impl ApicRead for WithoutEvents<'_> {
    fn read_all(&self, reads: &mut dyn Requests<Read, Subscribed>) {
        self.0.send_all(reads, &|| true, |client, read, may_send| Ok((None, client.read(&read.query, may_send)?)));
    }

    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        self.0.read(query, &|| true)
    }

    fn subscribe(&self, query: &Query) -> Result<Subscribed, Error> {
        Ok((None, self.read(query)?))
    }

    fn unsubscribe(&self, _: &SubscriptionId) {}
}

impl ApicWrite for WithoutEvents<'_> {
    fn write(&self, request: &WriteRequest, should_send: &ShouldSend<'_>) -> Result<WriteAnswer, Error> {
        self.0.write(request, should_send).map(WriteAnswer::Changes)
    }

    fn write_all(&self, writes: &mut dyn Requests<WriteRequest, WriteAnswer>) {
        self.0.send_all(writes, &|| true, |client, request, may_send| {
            client.write(request, may_send).map(WriteAnswer::Changes)
        });
    }
}

/// A session that counts every write as done without sending it, so that `plan` runs a whole reconcile.
pub struct ReadOnly<'a> {
    client: &'a Client,
    requests: RefCell<Vec<WriteRequest>>,
}

impl<'a> ReadOnly<'a> {
    /// A session around a client.
    pub fn new(client: &'a Client) -> Self {
        ReadOnly { client, requests: RefCell::default() }
    }

    /// What was not sent, in order.
    pub fn requests(&self) -> Vec<WriteRequest> {
        self.requests.take()
    }
}

impl ApicRead for ReadOnly<'_> {
    fn read_all(&self, reads: &mut dyn Requests<Read, Subscribed>) {
        WithoutEvents(self.client).read_all(reads);
    }

    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        WithoutEvents(self.client).read(query)
    }

    fn subscribe(&self, query: &Query) -> Result<Subscribed, Error> {
        WithoutEvents(self.client).subscribe(query)
    }

    fn unsubscribe(&self, _: &SubscriptionId) {}
}

impl ApicWrite for ReadOnly<'_> {
    fn write(&self, request: &WriteRequest, _: &ShouldSend<'_>) -> Result<WriteAnswer, Error> {
        self.requests.borrow_mut().push(request.clone());
        Ok(WriteAnswer::Assumed)
    }
}
