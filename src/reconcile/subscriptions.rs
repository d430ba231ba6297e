//! Which L3Outs are subscribed, and whether events about them can be relied on (R3, A6). What an event means is
//! `model::staleness`'s business.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::apic::SubscriptionId;
use crate::model::dn::L3outDn;
use crate::model::finding::{Code, Finding};

/// An L3Out without events is read this often.
const WITHOUT_EVENTS: Duration = Duration::from_secs(60);

/// An event about a write of our own must arrive within this time. Longer than a reconcile, which receives events between
/// its writes.
const ECHO: Duration = Duration::from_secs(60);

/// A subscription to an L3Out that did not exist yet is renewed this long after it has appeared.
const RENEWAL: Duration = Duration::from_secs(10);

/// The subscriptions of one session.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(BTreeMap<L3outDn, State>);

#[derive(Debug, Default)]
struct State {
    id: Option<SubscriptionId>,
    /// Why there are no events, and when the L3Out is read next.
    without_events: Option<(String, Instant)>,
    /// An event about a write of our own must arrive by then.
    echo: Option<Instant>,
    /// No event came for a write of our own, so the L3Out was subscribed once more.
    was_silent: bool,
    /// It is subscribed once more then.
    renewal: Option<Instant>,
    /// It was read in a session without a websocket, where nothing can be subscribed (X5).
    is_read: bool,
}

/// What has to be done now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// L3Outs to read, because no events come for them.
    pub(super) reads: Vec<L3outDn>,
    /// Subscriptions to give up; the L3Outs are subscribed again.
    pub(super) renewals: Vec<(L3outDn, SubscriptionId)>,
}

impl Subscriptions {
    /// The subscription of an L3Out.
    pub(super) fn is_subscribed(&self, dn: &L3outDn) -> bool {
        self.0.get(dn).is_some_and(|it| it.id.is_some())
    }

    /// Whether an L3Out is subscribed, or read now and then in place of that.
    pub(super) fn is_served(&self, dn: &L3outDn) -> bool {
        self.0.get(dn).is_some_and(|it| it.id.is_some() || it.without_events.is_some() || it.is_read)
    }

    /// An L3Out is subscribed.
    pub(super) fn subscribed(&mut self, dn: &L3outDn, id: SubscriptionId) {
        let state = self.0.entry(dn.clone()).or_default();
        state.id = Some(id);
        (state.echo, state.renewal) = (None, None);
        if !state.was_silent {
            state.without_events = None;
        }
    }

    /// An L3Out was read in a session that subscribes nothing.
    pub(super) fn read_without_websocket(&mut self, dn: &L3outDn) {
        self.0.entry(dn.clone()).or_default().is_read = true;
    }

    /// The APIC refused to subscribe an L3Out, which it lets us read.
    pub(super) fn refused(&mut self, dn: &L3outDn, why: &str, now: Instant) {
        let state = self.0.entry(dn.clone()).or_default();
        let why = format!("the APIC refused the subscription ({why})");
        *state = State { without_events: Some((why, now + WITHOUT_EVENTS)), ..State::default() };
    }

    /// An L3Out was read; nothing else has to be read until the next time.
    pub(super) fn was_read(&mut self, dn: &L3outDn, now: Instant) {
        if let Some((_, next)) = self.0.get_mut(dn).and_then(|it| it.without_events.as_mut()) {
            *next = now + WITHOUT_EVENTS;
        }
    }

    /// An L3Out has appeared. What was made below it at once may not be covered by the subscription to its DN.
    pub(super) fn appeared(&mut self, dn: &L3outDn, now: Instant) {
        if let Some(state) = self.0.get_mut(dn).filter(|it| it.id.is_some()) {
            state.renewal = Some(now + RENEWAL);
        }
    }

    /// Something was written in an L3Out: there must be an event about it.
    pub(super) fn written(&mut self, dn: &L3outDn, now: Instant) {
        if let Some(state) = self.0.get_mut(dn).filter(|it| it.id.is_some()) {
            state.echo.get_or_insert(now + ECHO);
        }
    }

    /// An event has come for these subscriptions. False where all of them were given up.
    pub(super) fn received(&mut self, ids: &[SubscriptionId]) -> bool {
        let mut is_known = false;
        for state in self.0.values_mut().filter(|it| it.id.as_ref().is_some_and(|id| ids.contains(id))) {
            is_known = true;
            (state.echo, state.was_silent, state.without_events) = (None, false, None);
        }
        is_known
    }

    /// Tries refused subscriptions again.
    pub(super) fn retry_refused(&mut self) {
        self.0.retain(|_, it| it.id.is_some());
    }

    /// An L3Out is of no interest any more; its subscription.
    pub(super) fn remove(&mut self, dn: &L3outDn) -> Option<SubscriptionId> {
        self.0.remove(dn)?.id
    }

    /// All of them are void.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = SubscriptionId> + use<> {
        std::mem::take(&mut self.0).into_values().filter_map(|it| it.id)
    }

    /// What has to be done now.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        for (dn, state) in &mut self.0 {
            let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            let is_silent = is_over(state.echo);
            if is_silent && state.was_silent {
                let why = "no event came for changes by aci-sync itself".to_owned();
                state.echo = None;
                state.without_events.get_or_insert((why, now));
            } else if is_silent || is_over(state.renewal) {
                state.was_silent |= is_silent;
                (state.echo, state.renewal) = (None, None);
                due.renewals.extend(state.id.take().map(|id| (dn.clone(), id)));
            }
            if is_over(state.without_events.as_ref().map(|it| it.1)) {
                due.reads.push(dn.clone());
            }
        }
        due
    }

    /// When something has to be done next.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let times = |it: &State| [it.echo, it.renewal, it.without_events.as_ref().map(|it| it.1)];
        self.0.values().flat_map(times).flatten().min()
    }

    /// A finding for each L3Out without events.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        self.0.iter().filter_map(|(dn, state)| {
            let (why, _) = state.without_events.as_ref()?;
            let text = format!("{why}; reading the L3Out once a minute instead, so drift is noticed later");
            Some(Finding::new(Code::NoEvents, dn, text))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dn::Name;

    const SECOND: Duration = Duration::from_secs(1);

    fn l3out() -> L3outDn {
        L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() }
    }

    fn id(text: &str) -> SubscriptionId {
        SubscriptionId::new(text).unwrap()
    }

    /// A6: an L3Out whose subscription is refused is served, read once a minute, with a finding, until it is subscribed.
    #[test]
    fn a_refused_subscription_costs_a_read_a_minute() {
        let (start, mut all) = (Instant::now(), Subscriptions::default());
        all.refused(&l3out(), "code 400", start);
        assert!(all.is_served(&l3out()) && !all.is_subscribed(&l3out()));
        assert_eq!(all.next_wake(), Some(start + 60 * SECOND));
        assert_eq!(all.due(start + 59 * SECOND), Due::default());
        assert_eq!(all.due(start + 60 * SECOND).reads, [l3out()]);
        all.was_read(&l3out(), start + 61 * SECOND);
        assert_eq!(all.next_wake(), Some(start + 121 * SECOND));
        assert_eq!(all.findings().count(), 1);
        all.retry_refused();
        assert!(!all.is_served(&l3out()));
        all.subscribed(&l3out(), id("1"));
        assert_eq!((all.findings().count(), all.next_wake()), (0, None));
    }

    /// A6: a subscription that says nothing of a write of our own is made once more; one that goes on like that is as good
    /// as none, until it speaks.
    #[test]
    fn a_silent_subscription_is_noticed() {
        let (start, mut all) = (Instant::now(), Subscriptions::default());
        all.subscribed(&l3out(), id("1"));
        all.written(&l3out(), start);
        all.written(&l3out(), start + 30 * SECOND);
        let due = all.due(start + 60 * SECOND);
        assert_eq!((due.renewals, due.reads), (vec![(l3out(), id("1"))], Vec::new()));
        all.subscribed(&l3out(), id("2"));
        assert_eq!(all.findings().count(), 0);
        all.written(&l3out(), start + 70 * SECOND);
        assert_eq!(all.due(start + 130 * SECOND), Due { reads: vec![l3out()], renewals: Vec::new() });
        assert_eq!(all.findings().count(), 1);
        assert!(!all.received(&[id("1")]) && all.received(&[id("2")]));
        assert_eq!((all.findings().count(), all.next_wake()), (0, None));
    }

    /// R3: a subscription that was made before its L3Out is made once more ten seconds after it has appeared.
    #[test]
    fn a_new_l3out_is_subscribed_once_more() {
        let (start, mut all) = (Instant::now(), Subscriptions::default());
        all.subscribed(&l3out(), id("1"));
        all.appeared(&l3out(), start);
        assert_eq!(all.due(start + 9 * SECOND), Due::default());
        assert_eq!(all.due(start + 10 * SECOND).renewals, [(l3out(), id("1"))]);
        all.subscribed(&l3out(), id("2"));
        assert_eq!(all.next_wake(), None);
    }
}
