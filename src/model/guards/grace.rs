//! The grace: an owned EPG is deleted only after it has not been desired for some time, because a reinstall of its
//! workload must not cost the contracts that people gave it (D6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::model::dn::EpgDn;

/// The owned EPGs that are not desired, each since when.
#[derive(Debug)]
pub struct Grace {
    length: Duration,
    since: BTreeMap<EpgDn, Instant>,
    /// Those that a workload named since the last look: their grace starts over with the next look.
    named: BTreeSet<EpgDn>,
    /// The time of the last look. A grace that was over then does not wake the reconciler again.
    looked: Option<Instant>,
}

impl Grace {
    /// No grace runs yet.
    pub fn new(length: Duration) -> Self {
        Grace { length, since: BTreeMap::new(), named: BTreeSet::new(), looked: None }
    }

    /// How long it is.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Takes the EPGs that are not desired now. The grace of one that was desired in between starts over. True if one is new
    /// and goes at once.
    pub fn update(&mut self, undesired: &BTreeSet<EpgDn>, now: Instant) -> bool {
        let named = std::mem::take(&mut self.named);
        self.since.retain(|epg, _| undesired.contains(epg) && !named.contains(epg));
        let is_new = undesired.iter().any(|epg| !self.since.contains_key(epg));
        for epg in undesired {
            self.since.entry(epg.clone()).or_insert(now);
        }
        self.looked = Some(now);
        is_new && self.length.is_zero()
    }

    /// A workload names this EPG now: its grace starts over, also if no reconcile sees that.
    pub fn named(&mut self, epg: &EpgDn) {
        if self.since.contains_key(epg) {
            self.named.insert(epg.clone());
        }
    }

    /// Whether the grace of an EPG runs.
    pub fn is_running(&self, epg: &EpgDn, now: Instant) -> bool {
        self.since.contains_key(epg) && !self.is_over(epg, now)
    }

    /// When the grace of an EPG ends, while it runs.
    pub fn end(&self, epg: &EpgDn, now: Instant) -> Option<Instant> {
        self.since.get(epg).filter(|_| !self.is_over(epg, now)).map(|since| *since + self.length)
    }

    /// Whether an EPG has not been desired for long enough to go.
    pub fn is_over(&self, epg: &EpgDn, now: Instant) -> bool {
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= self.length;
        self.since.get(epg).is_some_and(is_over) && !self.named.contains(epg)
    }

    /// When the next grace is over that was not at the last look; it may be over by now.
    pub fn next_end(&self) -> Option<Instant> {
        self.since.values().map(|since| *since + self.length).filter(|end| self.looked.is_none_or(|it| *end > it)).min()
    }

    /// How many graces run.
    pub fn running(&self, now: Instant) -> usize {
        self.since.keys().filter(|epg| !self.is_over(epg, now)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dn::{L3outDn, Name};

    /// D6: the grace counts from when the EPG was not desired any more, and starts over if it was desired in between.
    #[test]
    fn grace_runs_and_starts_over() {
        let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
        let epg = l3out.epg(Name::object("E").unwrap());
        let undesired = BTreeSet::from([epg.clone()]);
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut grace = Grace::new(60 * second);
        assert!(!grace.is_over(&epg, start));
        grace.update(&undesired, start);
        grace.update(&undesired, start + 59 * second);
        assert!(!grace.is_over(&epg, start + 59 * second));
        assert_eq!(grace.end(&epg, start + 59 * second), Some(start + 60 * second));
        assert_eq!(grace.end(&epg, start + 60 * second), None);
        assert_eq!(grace.next_end(), Some(start + 60 * second), "also if the reconcile takes longer than that");
        assert!(grace.is_over(&epg, start + 60 * second));
        grace.update(&undesired, start + 60 * second);
        assert_eq!(grace.next_end(), None);
        grace.update(&BTreeSet::new(), start + 60 * second);
        grace.update(&undesired, start + 61 * second);
        assert!(!grace.is_over(&epg, start + 62 * second));
        assert_eq!(grace.running(start + 62 * second), 1);
        grace.named(&epg);
        grace.update(&undesired, start + 120 * second);
        assert!(!grace.is_over(&epg, start + 179 * second));
        assert!(grace.is_over(&epg, start + 180 * second));
    }

    /// D6: without a grace an EPG goes in the reconcile that notices that it is not desired; once.
    #[test]
    fn no_grace_is_over_at_once() {
        let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
        let undesired = BTreeSet::from([l3out.epg(Name::object("E").unwrap())]);
        let mut grace = Grace::new(Duration::ZERO);
        let now = Instant::now();
        assert!(grace.update(&undesired, now));
        assert!(!grace.update(&undesired, now));
        assert_eq!(grace.next_end(), None);
    }
}
