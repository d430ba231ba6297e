//! The thread that keeps a session alive: its token and its subscriptions (A3, R3). It reports gaps in the events, its own
//! and the session manager's, because it can wait until the queue has room.

use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};
use log::debug;

use super::client::Client;
use super::error::Error;
use super::event::Event;
use super::event_sender::OverflowFlag;
use super::handle::SessionHandle;
use super::refresh_schedule::{Due, RefreshSchedule, Subscription};
use super::subscription::{DEFAULT_LIFE, SubscriptionChange, SubscriptionId};
use super::task::Task;

/// The subscription refresh thread.
pub struct Refresher {
    tasks: Receiver<Task>,
    events: Sender<Event>,
    stop: Receiver<()>,
    handle: SessionHandle,
    overflow: OverflowFlag,
    session: Option<Session>,
    /// The reason of a gap that is not reported yet.
    gap: Option<String>,
}

/// A session whose token and subscriptions are refreshed.
struct Session {
    client: Client,
    /// What the client reports about its subscriptions.
    subscriptions: Receiver<SubscriptionChange>,
    schedule: RefreshSchedule,
}

/// What follows from a refresh.
enum Next {
    Continue,
    /// A new session was requested.
    GiveUp,
}

impl Refresher {
    pub(super) fn new(
        tasks: Receiver<Task>,
        events: Sender<Event>,
        stop: Receiver<()>,
        handle: SessionHandle,
        overflow: OverflowFlag,
    ) -> Self {
        Refresher { tasks, events, stop, handle, overflow, session: None, gap: None }
    }

    /// Refreshes until the program stops.
    pub fn run(mut self) {
        // `select!` needs a channel to send to even if there is no gap. Nothing is received from this one.
        let (no_gap, _no_receiver) = bounded(0);
        loop {
            let (timer, subscriptions) = match &self.session {
                Some(session) => {
                    let next = session.schedule.next().saturating_duration_since(Instant::now());
                    (after(next), session.subscriptions.clone())
                }
                None => (never(), never()),
            };
            let gaps = if self.gap.is_some() { self.events.clone() } else { no_gap.clone() };
            select! {
                recv(self.stop) -> _ => return,
                recv(self.tasks) -> task => match task {
                    Ok(task) => self.handle(task),
                    Err(_) => return,
                },
                recv(subscriptions) -> change => if let Ok(change) = change {
                    self.subscription_changed(change);
                },
                send(gaps, Event::Gap { reason: self.gap.take().unwrap_or_default() }) -> sent => if sent.is_err() {
                    return;
                },
                recv(timer) -> _ => self.refresh(),
            }
        }
    }

    fn handle(&mut self, task: Task) {
        match task {
            Task::Session(client, subscriptions) => {
                let schedule = RefreshSchedule::new(client.lifetimes(), client.since());
                self.session = Some(Session { client, subscriptions, schedule });
            }
            Task::Ended => self.session = None,
            Task::Overflow => {
                self.overflow.clear();
                self.report_gap("too many events at once".to_owned());
            }
        }
    }

    fn subscription_changed(&mut self, change: SubscriptionChange) {
        let Some(session) = &mut self.session else { return };
        match change {
            SubscriptionChange::Made { id, life, since } => {
                session.schedule.subscriptions.insert(id, Subscription::new(life, since));
            }
            SubscriptionChange::Dropped(id) => drop(session.schedule.subscriptions.remove(&id)),
        }
    }

    /// One gap is enough: the full sync that follows covers all that happened before it.
    fn report_gap(&mut self, reason: String) {
        self.gap.get_or_insert(reason);
    }

    /// Refreshes what is due.
    fn refresh(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        let now = Instant::now();
        let next = match session.schedule.due(now) {
            Due::Nothing => Next::Continue,
            Due::NewSession => {
                self.handle.reconnect(&session.client, "the session nearly reached its maximum lifetime");
                Next::GiveUp
            }
            Due::Token => self.refresh_token(&mut session, now),
            Due::Subscription(id, subscription) => self.refresh_subscription(&mut session, id, subscription, now),
        };
        if matches!(next, Next::Continue) {
            self.session = Some(session);
        }
    }

    fn refresh_token(&self, session: &mut Session, since: Instant) -> Next {
        let Session { client, schedule, .. } = session;
        let error = match client.refresh() {
            Ok(lifetimes) => {
                schedule.token_refreshed(lifetimes.token, since);
                return Next::Continue;
            }
            Err(error) => error,
        };
        let now = Instant::now();
        if matches!(error, Error::Unauthorized(_)) || !schedule.is_token_alive(now) {
            self.handle.relogin(client, &format!("failed to refresh the token: {error}"));
            return Next::GiveUp;
        }
        debug!(error:%; "failed to refresh the APIC token; trying again");
        schedule.retry_token(now);
        Next::Continue
    }

    fn refresh_subscription(
        &mut self,
        session: &mut Session,
        id: SubscriptionId,
        subscription: Subscription,
        since: Instant,
    ) -> Next {
        let Session { client, schedule, .. } = session;
        match client.refresh_subscription(&id) {
            Ok(()) => {
                schedule.subscriptions.insert(id, Subscription::new(subscription.life, since));
            }
            Err(error @ Error::Unauthorized(_)) => {
                self.handle.relogin(client, &error.to_string());
                return Next::GiveUp;
            }
            Err(Error::Rejected { text, .. }) => {
                // If the refresh was in time, the APIC does not honor the longer life that was asked for.
                if subscription.life > DEFAULT_LIFE && Instant::now() < subscription.ends_at {
                    client.do_not_extend();
                }
                schedule.subscriptions.remove(&id);
                self.report_gap(format!("a subscription lapsed: {text}"));
            }
            Err(error) if Instant::now() >= subscription.ends_at => {
                schedule.subscriptions.remove(&id);
                self.report_gap(format!("failed to refresh a subscription: {error}"));
            }
            Err(error) => {
                debug!(error:%; "failed to refresh a subscription; trying again");
                schedule.subscriptions.insert(id, subscription.retry(Instant::now()));
            }
        }
        Next::Continue
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;
    use crate::apic::client::tests::session;

    /// R3: a subscription of an older session is not refreshed at the new one, and one that was dropped not at all.
    #[test]
    fn only_current_subscriptions_are_refreshed() {
        let (_tasks, tasks) = unbounded();
        let (events, _queue) = bounded(1);
        let (_stop, stop) = bounded(0);
        let mut refresher = Refresher::new(tasks, events, stop, SessionHandle::default(), OverflowFlag::default());
        let id = |id: &str| SubscriptionId::new(id).unwrap();
        let made = |name: &str| SubscriptionChange::Made { id: id(name), life: DEFAULT_LIFE, since: Instant::now() };
        let ids = |refresher: &Refresher| -> Vec<String> {
            let subscriptions = refresher.session.iter().flat_map(|it| it.schedule.subscriptions.keys());
            subscriptions.map(|it| it.as_str().to_owned()).collect()
        };
        refresher.handle(Task::Session(session(), never()));
        refresher.subscription_changed(made("1"));
        assert_eq!(ids(&refresher), ["1"]);
        refresher.handle(Task::Session(session(), never()));
        refresher.subscription_changed(made("3"));
        refresher.subscription_changed(made("4"));
        refresher.subscription_changed(SubscriptionChange::Dropped(id("3")));
        assert_eq!(ids(&refresher), ["4"]);
        refresher.handle(Task::Ended);
        refresher.subscription_changed(made("5"));
        assert_eq!(ids(&refresher), Vec::<String>::new());
    }
}
