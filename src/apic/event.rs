//! What the APIC side reports to the reconciler.

use super::client::Client;
use super::subscription::SubscriptionId;
use crate::model::mo::MoChange;

/// An event of the session or of the fabric.
#[derive(Debug)]
pub enum Event {
    /// Logged in, and the websocket is open. Earlier reads and subscriptions are void.
    Connected(Client),
    /// Objects changed.
    Changed {
        /// The subscriptions that the changes belong to.
        subscriptions: Vec<SubscriptionId>,
        /// The changes.
        changes: Vec<MoChange>,
    },
    /// Events may have been lost; the session goes on.
    Gap {
        /// The reason, for the log.
        reason: String,
    },
    /// The session is lost; a new one is being made.
    Disconnected {
        /// The reason, for the log.
        reason: String,
    },
}
