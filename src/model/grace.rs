//! How long each unwanted EEPG has been unwanted: a reinstall must not cost the contracts that people gave it (D6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::dn::EepgDn;

/// The unwanted EEPGs of ours, each since when.
#[derive(Debug)]
pub struct Grace {
    length: Duration,
    since: BTreeMap<EepgDn, Instant>,
    /// Those that were named since the last look: their grace starts over with the next one.
    named: BTreeSet<EepgDn>,
    /// The time of the last look: a grace that was over then is no reason to look again.
    looked: Option<Instant>,
}

impl Grace {
    /// No EEPG is unwanted yet.
    pub fn new(length: Duration) -> Self {
        Grace { length, since: BTreeMap::new(), named: BTreeSet::new(), looked: None }
    }

    /// How long it is.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Takes over which EEPGs are unwanted now. One that was wanted in between starts over. True where one is new and
    /// may go at once.
    pub fn update(&mut self, unwanted: &BTreeSet<EepgDn>, now: Instant) -> bool {
        let named = std::mem::take(&mut self.named);
        self.since.retain(|eepg, _| unwanted.contains(eepg) && !named.contains(eepg));
        let is_new = unwanted.iter().any(|eepg| !self.since.contains_key(eepg));
        for eepg in unwanted {
            self.since.entry(eepg.clone()).or_insert(now);
        }
        self.looked = Some(now);
        is_new && self.length.is_zero()
    }

    /// A Deployment names this EPG now: if it is not desired again it starts over, also without a reconcile in between.
    pub fn named(&mut self, eepg: &EepgDn) {
        if self.since.contains_key(eepg) {
            self.named.insert(eepg.clone());
        }
    }

    /// Whether an EPG is not desired, and not for long enough yet.
    pub fn is_running(&self, eepg: &EepgDn, now: Instant) -> bool {
        self.since.contains_key(eepg) && !self.is_over(eepg, now)
    }

    /// Whether an EEPG has been unwanted for long enough to go.
    pub fn is_over(&self, eepg: &EepgDn, now: Instant) -> bool {
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= self.length;
        self.since.get(eepg).is_some_and(is_over) && !self.named.contains(eepg)
    }

    /// When the next grace is over that was not at the last look; it may be over by now.
    pub fn next_end(&self) -> Option<Instant> {
        self.since.values().map(|since| *since + self.length).filter(|end| self.looked.is_none_or(|it| *end > it)).min()
    }

    /// How many EEPGs wait for their grace to end.
    pub fn running(&self, now: Instant) -> usize {
        self.since.keys().filter(|eepg| !self.is_over(eepg, now)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dn::{L3outDn, Name};

    /// D6: the grace counts from the moment nobody wanted the EEPG, and starts over when somebody did in between.
    #[test]
    fn grace_runs_and_starts_over() {
        let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
        let eepg = l3out.eepg(Name::object("E").unwrap());
        let unwanted = BTreeSet::from([eepg.clone()]);
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut grace = Grace::new(60 * second);
        assert!(!grace.is_over(&eepg, start));
        grace.update(&unwanted, start);
        grace.update(&unwanted, start + 59 * second);
        assert!(!grace.is_over(&eepg, start + 59 * second));
        assert_eq!(grace.next_end(), Some(start + 60 * second), "also where the pass takes longer than that");
        assert!(grace.is_over(&eepg, start + 60 * second));
        grace.update(&unwanted, start + 60 * second);
        assert_eq!(grace.next_end(), None);
        grace.update(&BTreeSet::new(), start + 60 * second);
        grace.update(&unwanted, start + 61 * second);
        assert!(!grace.is_over(&eepg, start + 62 * second));
        assert_eq!(grace.running(start + 62 * second), 1);
        grace.named(&eepg);
        grace.update(&unwanted, start + 120 * second);
        assert!(!grace.is_over(&eepg, start + 179 * second));
        assert!(grace.is_over(&eepg, start + 180 * second));
    }

    /// D6: without a grace what nobody wants goes in the pass that notices it; once.
    #[test]
    fn no_grace_is_over_at_once() {
        let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
        let unwanted = BTreeSet::from([l3out.eepg(Name::object("E").unwrap())]);
        let mut grace = Grace::new(Duration::ZERO);
        let now = Instant::now();
        assert!(grace.update(&unwanted, now));
        assert!(!grace.update(&unwanted, now));
        assert_eq!(grace.next_end(), None);
    }
}
