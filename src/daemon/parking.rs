//! EEPGs that are left alone for a while, because the APIC refused what was sent there (W3, W8).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::model::dn::EepgDn;
use crate::model::finding::Finding;

const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Parked {
    until: Instant,
    pause: Duration,
    finding: Finding,
}

/// The parked EEPGs, each with its finding.
#[derive(Debug, Default)]
pub struct Parking {
    parked: BTreeMap<EepgDn, Parked>,
    /// EEPGs where something was found that was believed absent, once (W3: only a second time is a refusal).
    surprises: BTreeSet<EepgDn>,
}

impl Parking {
    /// Leaves an EEPG alone; each time in a row for twice as long.
    pub fn park(&mut self, eepg: &EepgDn, now: Instant, finding: Finding) {
        let pause = self.parked.get(eepg).map_or(FIRST_PAUSE, |it| (it.pause * 2).min(LONGEST_PAUSE));
        self.parked.insert(eepg.clone(), Parked { until: now + pause, pause, finding });
    }

    /// Whether an EEPG is left alone now.
    pub fn is_parked(&self, eepg: &EepgDn, now: Instant) -> bool {
        self.parked.get(eepg).is_some_and(|it| it.until > now)
    }

    /// Notes a surprise; true where it is not the first one since the last success.
    pub fn again(&mut self, eepg: &EepgDn) -> bool {
        !self.surprises.insert(eepg.clone())
    }

    /// A write was taken: all is well there.
    pub fn release(&mut self, eepg: &EepgDn) {
        self.parked.remove(eepg);
        self.surprises.remove(eepg);
    }

    /// Forgets the EEPGs that are of no interest any more.
    pub fn keep(&mut self, of_interest: impl Fn(&EepgDn) -> bool) {
        self.parked.retain(|eepg, _| of_interest(eepg));
        self.surprises.retain(|eepg| of_interest(eepg));
    }

    /// A pass found nothing left to do: what was to be tried again needs no try any more.
    pub fn all_done(&mut self, now: Instant) {
        self.parked.retain(|_, it| it.until > now);
    }

    /// When the next EEPG is tried again.
    pub fn next_end(&self) -> Option<Instant> {
        self.parked.values().map(|it| it.until).min()
    }

    /// What people should know of them.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.parked.values().map(|it| &it.finding)
    }
}
