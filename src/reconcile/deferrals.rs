//! Objects that are left alone for a while after the APIC rejected a request about them (W3, W8).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::model::finding::Finding;

const FIRST_PAUSE: Duration = Duration::from_secs(10);
const MAX_PAUSE: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Deferral {
    until: Instant,
    pause: Duration,
    finding: Finding,
}

/// The deferred objects, each with its finding.
#[derive(Debug)]
pub struct Deferrals<K> {
    deferred: BTreeMap<K, Deferral>,
    /// Objects about which one write met something that was believed absent, or got no answer. Only a second time in a row
    /// leads to a pause (W3, W7).
    surprises: BTreeSet<K>,
}

impl<K: Ord> Default for Deferrals<K> {
    fn default() -> Self {
        Deferrals { deferred: BTreeMap::new(), surprises: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Deferrals<K> {
    /// Leaves an object alone, each time in a row for twice as long.
    pub fn defer(&mut self, object: &K, now: Instant, finding: Finding) {
        let pause = self.deferred.get(object).map_or(FIRST_PAUSE, |it| (it.pause * 2).min(MAX_PAUSE));
        self.deferred.insert(object.clone(), Deferral { until: now + pause, pause, finding });
    }

    /// Whether a request about an object was rejected and none has been accepted since.
    pub fn is_known(&self, object: &K) -> bool {
        self.deferred.contains_key(object)
    }

    /// Whether an object is left alone now.
    pub fn is_deferred(&self, object: &K, now: Instant) -> bool {
        self.deferred.get(object).is_some_and(|it| it.until > now)
    }

    /// Notes a surprise; true if it is not the first one since the last success.
    pub fn again(&mut self, object: &K) -> bool {
        !self.surprises.insert(object.clone())
    }

    /// A request about the object was accepted.
    pub fn release(&mut self, object: &K) {
        self.deferred.remove(object);
        self.surprises.remove(object);
    }

    /// Forgets the objects that are of no interest any more.
    pub fn keep(&mut self, of_interest: impl Fn(&K) -> bool) {
        self.deferred.retain(|object, _| of_interest(object));
        self.surprises.retain(|object| of_interest(object));
    }

    /// A reconcile found nothing left to do: objects whose pause is over need no further try.
    pub fn all_done(&mut self, now: Instant) {
        self.deferred.retain(|_, it| it.until > now);
        self.surprises.clear();
    }

    /// The objects whose pause is over.
    pub fn due(&self, now: Instant) -> impl Iterator<Item = &K> {
        self.deferred.iter().filter(move |(_, it)| it.until <= now).map(|(object, _)| object)
    }

    /// When the next pause is over.
    pub fn next_end(&self) -> Option<Instant> {
        self.deferred.values().map(|it| it.until).min()
    }

    /// A finding for each object.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.ends().map(|(finding, _)| finding)
    }

    /// The same, each with the end of its pause.
    pub fn ends(&self) -> impl Iterator<Item = (&Finding, Instant)> {
        self.deferred.values().map(|it| (&it.finding, it.until))
    }
}
