//! Subscriptions: their ids, and how long they live without a refresh (R3).

use std::time::{Duration, Instant};

/// How long a subscription lives if the APIC honors `refresh-timeout`.
pub(super) const EXTENDED_LIFE: Duration = Duration::from_secs(300);

/// How long it lives otherwise.
pub(super) const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// The longest id, in bytes; an APIC's has 17 digits.
const MAX_ID: usize = 64;

/// The id of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(String);

impl SubscriptionId {
    /// Checks an id that an APIC sent. It goes into a URL, so only letters and digits are allowed.
    pub fn new(text: &str) -> Option<SubscriptionId> {
        let is_id = (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_alphanumeric());
        is_id.then(|| SubscriptionId(text.to_owned()))
    }

    /// The id as the APIC sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a session reports about its subscriptions to the refresher.
#[derive(Debug)]
pub(super) enum SubscriptionChange {
    /// There is a new one; it ends this long after `since` unless it is refreshed.
    Made { id: SubscriptionId, life: Duration, since: Instant },
    /// It is not needed any more.
    Dropped(SubscriptionId),
}
