//! What the engine needs of a session at an APIC: the seam at which tests and `plan` put something else.

use serde_json::Value;

use super::{Client, Error, Query, SubscriptionId};
use crate::model::mo::{Mo, MoChange};

/// Reads, subscriptions and writes of one session.
pub trait Access {
    /// Reads objects; children come flattened, with their DNs.
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error>;
    /// Reads objects and hears of their changes from then on. Nothing for a session without a websocket.
    fn subscribe(&self, query: &Query) -> Result<(Option<SubscriptionId>, Vec<Mo>), Error>;
    /// A subscription that is not needed any more.
    fn forget(&self, id: &SubscriptionId);
    /// Sends a transaction; what it made, changed and deleted, as far as the APIC says. Only the writer calls it.
    fn post(&self, dn: &str, body: &Value) -> Result<Vec<MoChange>, Error>;
    /// Deletes one object. Only the writer calls it.
    fn delete(&self, dn: &str) -> Result<(), Error>;
}

impl Access for Client {
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        Client::read(self, query)
    }

    fn subscribe(&self, query: &Query) -> Result<(Option<SubscriptionId>, Vec<Mo>), Error> {
        Client::subscribe(self, query, &|| {}).map(|(id, mos)| (Some(id), mos))
    }

    fn forget(&self, id: &SubscriptionId) {
        Client::forget(self, id);
    }

    fn post(&self, dn: &str, body: &Value) -> Result<Vec<MoChange>, Error> {
        Client::post(self, dn, body)
    }

    fn delete(&self, dn: &str) -> Result<(), Error> {
        Client::delete(self, dn)
    }
}

/// A session that beats before each request: each takes its bounded time, so whoever sends many is not hanging (X1).
pub struct Beating<'a> {
    /// The session.
    pub client: &'a Client,
    /// The heart.
    pub beat: &'a dyn Fn(),
}

impl Access for Beating<'_> {
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        self.client.read_pages(query, self.beat)
    }

    fn subscribe(&self, query: &Query) -> Result<(Option<SubscriptionId>, Vec<Mo>), Error> {
        self.client.subscribe(query, self.beat).map(|(id, mos)| (Some(id), mos))
    }

    fn forget(&self, id: &SubscriptionId) {
        self.client.forget(id);
    }

    fn post(&self, dn: &str, body: &Value) -> Result<Vec<MoChange>, Error> {
        (self.beat)();
        self.client.post(dn, body)
    }

    fn delete(&self, dn: &str) -> Result<(), Error> {
        (self.beat)();
        self.client.delete(dn)
    }
}

/// A session without a websocket: what is subscribed elsewhere is only read (`run --once`, X5).
pub struct WithoutEvents<'a>(pub &'a Client);

impl Access for WithoutEvents<'_> {
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        self.0.read(query)
    }

    fn subscribe(&self, query: &Query) -> Result<(Option<SubscriptionId>, Vec<Mo>), Error> {
        Ok((None, self.0.read(query)?))
    }

    fn forget(&self, _: &SubscriptionId) {}

    fn post(&self, dn: &str, body: &Value) -> Result<Vec<MoChange>, Error> {
        self.0.post(dn, body)
    }

    fn delete(&self, dn: &str) -> Result<(), Error> {
        self.0.delete(dn)
    }
}

/// A session that reads and takes every write for done without sending it: `plan` runs a whole pass on it.
pub struct ReadOnly<'a>(pub &'a Client);

impl Access for ReadOnly<'_> {
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        self.0.read(query)
    }

    fn subscribe(&self, query: &Query) -> Result<(Option<SubscriptionId>, Vec<Mo>), Error> {
        Ok((None, self.0.read(query)?))
    }

    fn forget(&self, _: &SubscriptionId) {}

    fn post(&self, _: &str, _: &Value) -> Result<Vec<MoChange>, Error> {
        Ok(Vec::new())
    }

    fn delete(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }
}
