//! The thread that keeps a session alive: its token, and each of its subscriptions (A3, R3).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, never, select};
use log::debug;

use super::client::{Client, DEFAULT_LIFE, SubscriptionId};
use super::error::Error;
use super::{Event, Link};

/// What the refresher is told.
#[derive(Debug)]
pub(super) enum Task {
    /// A new session: everything of the old one is void.
    Session(Client),
    /// The session ended.
    Ended,
    /// A subscription of the session, and how long it lives without a refresh.
    Keep(SubscriptionId, Duration),
    /// A subscription that is not needed any more.
    Forget(SubscriptionId),
}

/// The subscription refresh thread.
pub struct Refresher {
    pub(super) tasks: Receiver<Task>,
    pub(super) events: Sender<Event>,
    pub(super) stop: Receiver<()>,
    pub(super) link: Link,
}

/// What is due when.
struct Timetable {
    client: Client,
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

impl Subscription {
    fn refreshed(life: Duration, now: Instant) -> Self {
        Subscription { life, refresh_at: now + life / 3, ends_at: now + life }
    }
}

impl Timetable {
    fn new(client: Client, now: Instant) -> Self {
        let lifetimes = client.lifetimes();
        Timetable {
            client,
            token_at: now + lifetimes.token / 2,
            token_end: now + lifetimes.token,
            session_end: now + lifetimes.session.mul_f64(0.95),
            subscriptions: BTreeMap::new(),
        }
    }

    fn next(&self) -> Instant {
        let subscription = self.subscriptions.values().map(|it| it.refresh_at).min();
        let token = self.token_at.min(self.session_end);
        subscription.map_or(token, |it| it.min(token))
    }
}

impl Refresher {
    /// Refreshes until the program stops.
    pub fn run(self) {
        let mut timetable: Option<Timetable> = None;
        loop {
            let now = Instant::now();
            let timer = timetable.as_ref().map_or_else(never, |it| after(it.next().saturating_duration_since(now)));
            select! {
                recv(self.stop) -> _ => return,
                recv(self.tasks) -> task => match task {
                    Ok(Task::Session(client)) => timetable = Some(Timetable::new(client, Instant::now())),
                    Ok(Task::Ended) => timetable = None,
                    Ok(Task::Keep(id, life)) => {
                        if let Some(it) = &mut timetable {
                            it.subscriptions.insert(id, Subscription::refreshed(life, Instant::now()));
                        }
                    }
                    Ok(Task::Forget(id)) => {
                        if let Some(it) = &mut timetable {
                            it.subscriptions.remove(&id);
                        }
                    }
                    Err(_) => return,
                },
                recv(timer) -> _ => {
                    if timetable.as_mut().is_some_and(|it| !self.serve(it)) {
                        timetable = None;
                    }
                }
            }
        }
    }

    /// Does what is due; false where the session is given up.
    fn serve(&self, timetable: &mut Timetable) -> bool {
        let now = Instant::now();
        if now >= timetable.session_end {
            self.link.relogin("the session has nearly reached its longest life");
            return false;
        }
        if now >= timetable.token_at {
            return self.refresh_token(timetable, now);
        }
        let due = timetable.subscriptions.iter().find(|(_, it)| it.refresh_at <= now);
        let Some((id, subscription)) = due.map(|(id, it)| (id.clone(), *it)) else { return true };
        match timetable.client.refresh_subscription(&id) {
            Ok(()) => {
                let life = subscription.life;
                timetable.subscriptions.insert(id, Subscription::refreshed(life, Instant::now()));
            }
            Err(error @ Error::Unauthorized(_)) => {
                self.link.relogin(&error.to_string());
                return false;
            }
            Err(Error::Rejected { text, .. }) => {
                if subscription.life > DEFAULT_LIFE {
                    timetable.client.do_not_extend();
                }
                timetable.subscriptions.remove(&id);
                self.gap(format!("a subscription has lapsed ({text})"));
            }
            Err(error) if Instant::now() >= subscription.ends_at => {
                timetable.subscriptions.remove(&id);
                self.gap(format!("a subscription could not be refreshed ({error})"));
            }
            Err(error) => {
                debug!("a subscription could not be refreshed yet: {error}");
                let later = Subscription { refresh_at: Instant::now() + subscription.life / 12, ..subscription };
                timetable.subscriptions.insert(id, later);
            }
        }
        true
    }

    fn refresh_token(&self, timetable: &mut Timetable, now: Instant) -> bool {
        match timetable.client.refresh() {
            Ok(lifetimes) => {
                timetable.token_at = now + lifetimes.token / 2;
                timetable.token_end = now + lifetimes.token;
            }
            Err(error) if matches!(error, Error::Unauthorized(_)) || Instant::now() >= timetable.token_end => {
                self.link.relogin(&format!("the token could not be refreshed: {error}"));
                return false;
            }
            Err(error) => {
                debug!("the token could not be refreshed yet: {error}");
                timetable.token_at = Instant::now() + (timetable.token_end - now) / 8 + Duration::from_millis(100);
            }
        }
        true
    }

    fn gap(&self, why: String) {
        select! {
            send(self.events, Event::Gap { why }) -> _ => {}
            recv(self.stop) -> _ => {}
        }
    }
}
