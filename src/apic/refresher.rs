//! The thread that keeps a session alive: its token, and each of its subscriptions (A3, R3). It also tells of gaps, its
//! own and the listener's, because it can wait until there is room in the queue.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};
use log::debug;

use super::client::{Client, DEFAULT_LIFE, Lifetimes, SubscriptionId};
use super::error::Error;
use super::event_sender::OverflowFlag;
use super::{Event, SessionHandle};

/// The least pause between two tries to refresh the same token.
const RETRY: Duration = Duration::from_secs(1);

/// What the refresher is told.
#[derive(Debug)]
pub(super) enum Task {
    /// A new session: everything of the old one is void.
    Session(Client),
    /// The session ended.
    Ended,
    /// A subscription of a session, how long it lives without a refresh, and since when.
    Keep { client: Client, id: SubscriptionId, life: Duration, since: Instant },
    /// A subscription that is not needed any more.
    Forget(SubscriptionId),
    /// The listener had to drop events, because the queue was full.
    Overflow,
}

/// The subscription refresh thread.
pub struct Refresher {
    tasks: Receiver<Task>,
    events: Sender<Event>,
    stop: Receiver<()>,
    link: SessionHandle,
    overflowed: OverflowFlag,
    session: Option<(Client, RefreshSchedule)>,
    /// Why a full sync is due, until there is room to say so.
    gap: Option<String>,
}

/// What is due when. It only reckons: the clock and the requests are the refresher's.
#[derive(Debug)]
struct RefreshSchedule {
    /// When the token is refreshed next.
    token_at: Instant,
    /// When the token ends unless it is refreshed.
    token_end: Instant,
    /// When a new login is made whatever happens.
    session_end: Instant,
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
}

/// A subscription's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Subscription {
    life: Duration,
    refresh_at: Instant,
    ends_at: Instant,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// Nothing yet.
    Nothing,
    /// A new login.
    Login,
    /// The token is to be refreshed.
    Token,
    /// A subscription is to be refreshed.
    Subscription(SubscriptionId, Subscription),
}

impl Subscription {
    fn refreshed(life: Duration, now: Instant) -> Self {
        Subscription { life, refresh_at: now + life / 3, ends_at: now + life }
    }

    /// The refresh failed: there are a few more tries before it ends.
    fn later(self, now: Instant) -> Self {
        Subscription { refresh_at: now + self.life / 12, ..self }
    }
}

impl RefreshSchedule {
    fn new(lifetimes: Lifetimes, since: Instant) -> Self {
        RefreshSchedule {
            token_at: since + lifetimes.token / 2,
            token_end: since + lifetimes.token,
            session_end: since + lifetimes.session.mul_f64(0.95),
            subscriptions: BTreeMap::new(),
        }
    }

    /// The earliest time at which something is due.
    fn next(&self) -> Instant {
        let subscription = self.subscriptions.values().map(|it| it.refresh_at).min();
        let token = self.token_at.min(self.session_end);
        subscription.map_or(token, |it| it.min(token))
    }

    fn due(&self, now: Instant) -> Due {
        if now >= self.session_end {
            return Due::Login;
        }
        if now >= self.token_at {
            return Due::Token;
        }
        let subscription = self.subscriptions.iter().find(|(_, it)| it.refresh_at <= now);
        subscription.map_or(Due::Nothing, |(id, it)| Due::Subscription(id.clone(), *it))
    }

    fn token_refreshed(&mut self, token: Duration, since: Instant) {
        self.token_at = since + token / 2;
        self.token_end = since + token;
    }

    /// The refresh of the token failed: it is tried again, more often towards its end.
    fn token_later(&mut self, now: Instant) {
        self.token_at = now + (self.token_end.saturating_duration_since(now) / 8).max(RETRY);
    }
}

impl Refresher {
    pub(super) fn new(
        tasks: Receiver<Task>,
        events: Sender<Event>,
        stop: Receiver<()>,
        link: SessionHandle,
        overflowed: OverflowFlag,
    ) -> Self {
        Refresher { tasks, events, stop, link, overflowed, session: None, gap: None }
    }

    /// Refreshes until the program stops.
    pub fn run(mut self) {
        // Nobody receives there, so nothing is ever sent: the send side of `never`.
        let (nowhere, _nobody) = bounded(0);
        loop {
            let timer = self
                .session
                .as_ref()
                .map_or_else(never, |(_, schedule)| after(schedule.next().saturating_duration_since(Instant::now())));
            let gaps = if self.gap.is_some() { self.events.clone() } else { nowhere.clone() };
            select! {
                recv(self.stop) -> _ => return,
                recv(self.tasks) -> task => match task {
                    Ok(task) => self.take(task),
                    Err(_) => return,
                },
                send(gaps, Event::Gap { why: self.gap.take().unwrap_or_default() }) -> sent => if sent.is_err() {
                    return;
                },
                recv(timer) -> _ => self.serve(),
            }
        }
    }

    fn take(&mut self, task: Task) {
        match task {
            Task::Session(client) => {
                let schedule = RefreshSchedule::new(client.lifetimes(), client.since());
                self.session = Some((client, schedule));
            }
            Task::Ended => self.session = None,
            Task::Keep { client, id, life, since } => {
                // One that an older session made is of no use at this one.
                if let Some((_, schedule)) = self.session.as_mut().filter(|(it, _)| it.is(&client)) {
                    schedule.subscriptions.insert(id, Subscription::refreshed(life, since));
                }
            }
            Task::Forget(id) => {
                if let Some((_, schedule)) = &mut self.session {
                    schedule.subscriptions.remove(&id);
                }
            }
            Task::Overflow => {
                self.overflowed.taken_up();
                self.gap("too many events at once".to_owned());
            }
        }
    }

    fn gap(&mut self, why: String) {
        self.gap.get_or_insert(why);
    }

    /// Does what is due.
    fn serve(&mut self) {
        let Some((client, mut schedule)) = self.session.take() else { return };
        let now = Instant::now();
        let may_continue = match schedule.due(now) {
            Due::Nothing => true,
            Due::Login => {
                self.link.reconnect(&client, "the session has nearly reached its longest life");
                false
            }
            Due::Token => self.refresh_token(&client, &mut schedule, now),
            Due::Subscription(id, subscription) => {
                self.refresh_subscription(&client, &mut schedule, id, subscription, now)
            }
        };
        if may_continue {
            self.session = Some((client, schedule));
        }
    }

    /// Refreshes the token; false where the session is given up.
    fn refresh_token(&self, client: &Client, schedule: &mut RefreshSchedule, since: Instant) -> bool {
        let error = match client.refresh() {
            Ok(lifetimes) => {
                schedule.token_refreshed(lifetimes.token, since);
                return true;
            }
            Err(error) => error,
        };
        let now = Instant::now();
        let may_continue = !matches!(error, Error::Unauthorized(_)) && now < schedule.token_end;
        if may_continue {
            debug!("the token could not be refreshed yet: {error}");
            schedule.token_later(now);
        } else {
            self.link.relogin(client, &format!("the token could not be refreshed: {error}"));
        }
        may_continue
    }

    /// Refreshes one subscription; false where the session is given up.
    fn refresh_subscription(
        &mut self,
        client: &Client,
        schedule: &mut RefreshSchedule,
        id: SubscriptionId,
        subscription: Subscription,
        since: Instant,
    ) -> bool {
        match client.refresh_subscription(&id) {
            Ok(()) => {
                schedule.subscriptions.insert(id, Subscription::refreshed(subscription.life, since));
            }
            Err(error @ Error::Unauthorized(_)) => {
                self.link.relogin(client, &error.to_string());
                return false;
            }
            Err(Error::Rejected { text, .. }) => {
                // One that was asked for too late says nothing of what the APIC grants.
                if subscription.life > DEFAULT_LIFE && Instant::now() < subscription.ends_at {
                    client.do_not_extend();
                }
                schedule.subscriptions.remove(&id);
                self.gap(format!("a subscription has lapsed ({text})"));
            }
            Err(error) if Instant::now() >= subscription.ends_at => {
                schedule.subscriptions.remove(&id);
                self.gap(format!("a subscription could not be refreshed ({error})"));
            }
            Err(error) => {
                debug!("a subscription could not be refreshed yet: {error}");
                schedule.subscriptions.insert(id, subscription.later(Instant::now()));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apic::client::EXTENDED_LIFE;

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
            (600, 86_400, 82_080, Due::Login),
            (600, 100, 94, Due::Nothing),
            (600, 100, 95, Due::Login),
        ] {
            let schedule = schedule(token, session, start);
            assert_eq!(schedule.due(start + seconds(at)), due, "{token} {session} at {at}");
        }
        assert_eq!(schedule(600, 86_400, start).next(), start + seconds(300));
        assert_eq!(schedule(600, 100, start).next(), start + seconds(95));
    }

    /// A3, W8: a refreshed token lives anew; one that could not be refreshed is tried again until its end, never in a
    /// hot loop.
    #[test]
    fn failed_refreshes_of_the_token() {
        let start = Instant::now();
        let mut schedule = schedule(600, 86_400, start);
        schedule.token_refreshed(seconds(300), start + seconds(301));
        assert_eq!((schedule.token_at, schedule.token_end), (start + seconds(451), start + seconds(601)));
        let (mut now, mut tries) = (schedule.token_at, 0);
        while now < schedule.token_end {
            schedule.token_later(now);
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
            let subscription = Subscription::refreshed(life, start);
            let mut schedule = schedule(600, 86_400, start);
            schedule.subscriptions.insert(id.clone(), subscription);
            assert_eq!(schedule.next(), start + seconds(due_at));
            assert_eq!(schedule.due(start + seconds(due_at - 1)), Due::Nothing);
            let due = start + seconds(due_at);
            assert_eq!(schedule.due(due), Due::Subscription(id.clone(), subscription));
            let later = subscription.later(due);
            assert_eq!((later.refresh_at, later.ends_at), (start + seconds(again_at), start + life));
            schedule.subscriptions.insert(id, later);
            assert_eq!(schedule.due(due), Due::Nothing);
        }
    }

    /// R3: a subscription that an older session made is not refreshed at the new one, a forgotten one not at all.
    #[test]
    fn only_what_is_needed_is_refreshed() {
        use crate::apic::client::tests::session;
        let (old, new) = (session(), session());
        let (_tasks, tasks) = crossbeam_channel::unbounded();
        let (events, _queue) = bounded(1);
        let (_stop, stop) = bounded(0);
        let mut refresher = Refresher::new(tasks, events, stop, SessionHandle::default(), OverflowFlag::default());
        let keep = |client: &Client, id: &str| {
            let (id, since) = (SubscriptionId::new(id).unwrap(), Instant::now());
            Task::Keep { client: client.clone(), id, life: DEFAULT_LIFE, since }
        };
        let ids = |refresher: &Refresher| -> Vec<String> {
            let session = refresher.session.as_ref();
            session.map(|(_, it)| it.subscriptions.keys().map(|it| it.0.clone()).collect()).unwrap_or_default()
        };
        refresher.take(Task::Session(old.clone()));
        refresher.take(keep(&old, "1"));
        assert_eq!(ids(&refresher), ["1"]);
        refresher.take(Task::Session(new.clone()));
        refresher.take(keep(&old, "2"));
        refresher.take(keep(&new, "3"));
        refresher.take(keep(&new, "4"));
        refresher.take(Task::Forget(SubscriptionId::new("3").unwrap()));
        assert_eq!(ids(&refresher), ["4"]);
        refresher.take(Task::Ended);
        refresher.take(keep(&new, "5"));
        assert_eq!(ids(&refresher), Vec::<String>::new());
    }
}
