//! Conflicts with another writer: an object that it reverts again and again is repaired at most once a minute (R5).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::model::dn::ObjectDn;
use crate::model::finding::{Code, Finding};

/// More repairs of one object than this within [`WINDOW`] are a conflict.
const MAX_REVERTS: usize = 5;
const WINDOW: Duration = Duration::from_secs(600);
/// How often an object in conflict is repaired.
const PAUSE: Duration = Duration::from_secs(60);

/// What other writers reverted, and when it was repaired.
#[derive(Debug, Default)]
pub struct DriftThrottle {
    /// Reverted by another writer and not repaired yet.
    reverted: BTreeSet<ObjectDn>,
    /// The last repairs of each object, oldest first.
    repairs: BTreeMap<ObjectDn, VecDeque<Instant>>,
    /// The time of the last look. A pause that was over then does not wake the reconciler again.
    looked: Option<Instant>,
}

impl DriftThrottle {
    /// Another writer deleted or changed owned objects.
    pub fn reverted(&mut self, objects: impl IntoIterator<Item = ObjectDn>) {
        self.reverted.extend(objects);
    }

    /// We wrote an object. It is a repair if another writer had reverted it.
    pub fn written(&mut self, object: &ObjectDn, now: Instant) {
        if !self.reverted.remove(object) {
            return;
        }
        let repairs = self.repairs.entry(object.clone()).or_default();
        repairs.push_back(now);
        while repairs.len() > MAX_REVERTS + 1 {
            repairs.pop_front();
        }
    }

    /// Forgets objects that are not relevant any more, and repairs of long ago.
    pub fn keep(&mut self, now: Instant, is_relevant: impl Fn(&ObjectDn) -> bool) {
        self.looked = Some(now);
        self.reverted.retain(&is_relevant);
        self.repairs.retain(|object, repairs| {
            repairs.retain(|at| now.saturating_duration_since(*at) < WINDOW);
            !repairs.is_empty() && is_relevant(object)
        });
    }

    /// Whether an object is left alone now, because it is in conflict and was just repaired.
    pub fn is_throttled(&self, object: &ObjectDn, now: Instant) -> bool {
        self.repairs.get(object).and_then(|it| throttled_until(it, now)).is_some_and(|end| end > now)
    }

    /// When the next object is repaired again that was left alone at the last look.
    pub fn next_end(&self) -> Option<Instant> {
        let looked = self.looked?;
        let ends = self.reverted.iter().filter_map(|it| throttled_until(self.repairs.get(it)?, looked));
        ends.filter(|end| *end > looked).min()
    }

    /// The objects in conflict.
    pub fn in_conflict(&self, now: Instant) -> impl Iterator<Item = &ObjectDn> {
        self.repairs.iter().filter(move |(_, repairs)| is_conflict(repairs, now)).map(|(object, _)| object)
    }

    /// A finding for each object in conflict.
    pub fn findings(&self, now: Instant) -> impl Iterator<Item = Finding> {
        self.in_conflict(now).map(|object| {
            let text = "another writer keeps reverting it; repairing it at most once a minute until that stops";
            Finding::new(Code::WriterConflict, object, text)
        })
    }
}

fn is_conflict(repairs: &VecDeque<Instant>, now: Instant) -> bool {
    repairs.iter().filter(|at| now.saturating_duration_since(**at) < WINDOW).count() > MAX_REVERTS
}

fn throttled_until(repairs: &VecDeque<Instant>, now: Instant) -> Option<Instant> {
    repairs.back().filter(|_| is_conflict(repairs, now)).map(|last| *last + PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dn::{L3outDn, Name};

    /// R5: five repairs in ten minutes are no conflict; with a sixth one begins, and it ends after a while without reverts.
    #[test]
    fn a_conflict_begins_and_ends() {
        let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
        let object = ObjectDn::Epg(l3out.epg(Name::object("E").unwrap()));
        let (second, start) = (Duration::from_secs(1), Instant::now());
        let mut throttle = DriftThrottle::default();
        for n in 0..6 {
            let now = start + n * second;
            assert!(!throttle.is_throttled(&object, now), "after {n} repairs");
            throttle.written(&object, now);
            throttle.reverted([object.clone()]);
            throttle.written(&object, now);
        }
        let last = start + 5 * second;
        throttle.reverted([object.clone()]);
        assert!(throttle.is_throttled(&object, last + 59 * second));
        throttle.keep(last, |_| true);
        assert_eq!(throttle.next_end(), Some(last + 60 * second));
        assert!(!throttle.is_throttled(&object, last + 60 * second));
        assert_eq!(throttle.findings(last).count(), 1);
        assert_eq!(throttle.findings(start + 601 * second).count(), 0);
        throttle.keep(last, |_| false);
        assert!(!throttle.is_throttled(&object, last));
    }
}
