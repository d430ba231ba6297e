//! What the other threads of the APIC side report to the refresher.

use crossbeam_channel::Receiver;

use super::client::Client;
use super::subscription::SubscriptionChange;

/// A report to the refresher.
#[derive(Debug)]
pub(super) enum Task {
    /// A new session with its subscriptions: everything of the old one is void.
    Session(Client, Receiver<SubscriptionChange>),
    /// The session ended.
    Ended,
    /// The session manager dropped events, because the queue was full.
    Overflow,
}
