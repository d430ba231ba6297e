//! When the token and the subscriptions of a session are refreshed (A3, R3). It only computes: the caller passes the time
//! and sends the requests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::auth::Lifetimes;
use super::subscription::SubscriptionId;

/// The least pause between two attempts to refresh the same token.
const RETRY: Duration = Duration::from_secs(1);

/// The deadlines of one session.
#[derive(Debug)]
pub(super) struct RefreshSchedule {
    /// When the token is refreshed next.
    token_at: Instant,
    /// When the token ends unless it is refreshed.
    token_ends_at: Instant,
    /// When a new session is made in any case.
    session_ends_at: Instant,
    pub(super) subscriptions: BTreeMap<SubscriptionId, Subscription>,
}

/// The deadlines of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) life: Duration,
    refresh_at: Instant,
    pub(super) ends_at: Instant,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    NewSession,
    Token,
    Subscription(SubscriptionId, Subscription),
}

impl Subscription {
    /// A subscription that was made or refreshed at `since`.
    pub(super) fn new(life: Duration, since: Instant) -> Self {
        Subscription { life, refresh_at: since + life / 3, ends_at: since + life }
    }

    /// After a failed refresh there are a few more attempts before it ends.
    pub(super) fn retry(self, now: Instant) -> Self {
        Subscription { refresh_at: now + self.life / 12, ..self }
    }
}

impl RefreshSchedule {
    /// A session whose login was sent at `since`.
    pub(super) fn new(lifetimes: Lifetimes, since: Instant) -> Self {
        RefreshSchedule {
            token_at: since + lifetimes.token / 2,
            token_ends_at: since + lifetimes.token,
            session_ends_at: since + lifetimes.session.mul_f64(0.95),
            subscriptions: BTreeMap::new(),
        }
    }

    /// When the next thing is due.
    pub(super) fn next(&self) -> Instant {
        let first = self.token_at.min(self.session_ends_at);
        self.subscriptions.values().fold(first, |first, it| first.min(it.refresh_at))
    }

    /// What is due now.
    pub(super) fn due(&self, now: Instant) -> Due {
        if now >= self.session_ends_at {
            return Due::NewSession;
        }
        if now >= self.token_at {
            return Due::Token;
        }
        match self.subscriptions.iter().find(|(_, it)| it.refresh_at <= now) {
            Some((id, subscription)) => Due::Subscription(id.clone(), *subscription),
            None => Due::Nothing,
        }
    }

    pub(super) fn is_token_alive(&self, now: Instant) -> bool {
        now < self.token_ends_at
    }

    pub(super) fn token_refreshed(&mut self, life: Duration, since: Instant) {
        self.token_at = since + life / 2;
        self.token_ends_at = since + life;
    }

    /// After a failed refresh it is tried again, more often towards the token's end.
    pub(super) fn retry_token(&mut self, now: Instant) {
        let left = self.token_ends_at.saturating_duration_since(now);
        self.token_at = now + (left / 8).max(RETRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apic::subscription::{DEFAULT_LIFE, EXTENDED_LIFE};

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn schedule(token: u64, session: u64, start: Instant) -> RefreshSchedule {
        RefreshSchedule::new(Lifetimes { token: seconds(token), session: seconds(session) }, start)
    }

    /// A3: the token is due at half of its life, the login before the session's longest life; the login comes first.
    #[test]
    fn tokens_and_sessions() {
        let start = Instant::now();
        for (token, session, at, due) in [
            (600, 86_400, 299, Due::Nothing),
            (600, 86_400, 300, Due::Token),
            (600, 86_400, 82_079, Due::Token),
            (600, 86_400, 82_080, Due::NewSession),
            (600, 100, 94, Due::Nothing),
            (600, 100, 95, Due::NewSession),
        ] {
            let schedule = schedule(token, session, start);
            assert_eq!(schedule.due(start + seconds(at)), due, "{token} {session} at {at}");
        }
        assert_eq!(schedule(600, 86_400, start).next(), start + seconds(300));
        assert_eq!(schedule(600, 100, start).next(), start + seconds(95));
    }

    /// A3, W8: a refreshed token has its whole life again; a failed refresh is tried again until the token ends, never in a
    /// hot loop.
    #[test]
    fn failed_refreshes_of_the_token() {
        let start = Instant::now();
        let mut schedule = schedule(600, 86_400, start);
        schedule.token_refreshed(seconds(300), start + seconds(301));
        assert_eq!((schedule.token_at, schedule.token_ends_at), (start + seconds(451), start + seconds(601)));
        let (mut now, mut tries) = (schedule.token_at, 0);
        while now < schedule.token_ends_at {
            schedule.retry_token(now);
            assert!(schedule.token_at >= now + RETRY);
            now = schedule.token_at;
            tries += 1;
        }
        assert!((5..60).contains(&tries), "{tries}");
        assert!(now <= start + seconds(602));
    }

    /// R3: a subscription is due at a third of the life it was granted, and after a failure again before its end.
    #[test]
    fn subscriptions() {
        let start = Instant::now();
        for (life, due_at, again_at) in [(DEFAULT_LIFE, 20, 25), (EXTENDED_LIFE, 100, 125)] {
            let id = SubscriptionId::new("1").unwrap();
            let subscription = Subscription::new(life, start);
            let mut schedule = schedule(600, 86_400, start);
            schedule.subscriptions.insert(id.clone(), subscription);
            assert_eq!(schedule.next(), start + seconds(due_at));
            assert_eq!(schedule.due(start + seconds(due_at - 1)), Due::Nothing);
            let due = start + seconds(due_at);
            assert_eq!(schedule.due(due), Due::Subscription(id.clone(), subscription));
            let later = subscription.retry(due);
            assert_eq!((later.refresh_at, later.ends_at), (start + seconds(again_at), start + life));
            schedule.subscriptions.insert(id, later);
            assert_eq!(schedule.due(due), Due::Nothing);
        }
    }
}
