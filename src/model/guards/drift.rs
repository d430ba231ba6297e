//! Who keeps undoing what we do: repairs of an object that somebody fights over become rare (R5).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::model::dn::ObjectDn;
use crate::model::finding::{Code, Finding};

/// So many repairs of one object within [`WINDOW`] are a coincidence; more are a fight.
const MAX_REVERTS: usize = 5;
const WINDOW: Duration = Duration::from_secs(600);
/// How often an object is repaired that is fought over.
const PAUSE: Duration = Duration::from_secs(60);

/// What others undid, and when it was repaired.
#[derive(Debug, Default)]
pub struct DriftThrottle {
    /// Undone by somebody else and not repaired yet.
    reverted: BTreeSet<ObjectDn>,
    /// The last repairs of each object, oldest first.
    repairs: BTreeMap<ObjectDn, VecDeque<Instant>>,
    /// The time of the last look: what did not rest any more then is no reason to look again.
    looked: Option<Instant>,
}

impl DriftThrottle {
    /// Somebody else took an object of ours away, or changed it.
    pub fn reverted(&mut self, objects: impl IntoIterator<Item = ObjectDn>) {
        self.reverted.extend(objects);
    }

    /// We wrote an object. It is a repair where somebody else had undone it.
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

    /// Forgets what is of no interest any more: objects that nobody wants, and repairs of long ago.
    pub fn keep(&mut self, now: Instant, of_interest: impl Fn(&ObjectDn) -> bool) {
        self.looked = Some(now);
        self.reverted.retain(&of_interest);
        self.repairs.retain(|object, repairs| {
            repairs.retain(|at| now.saturating_duration_since(*at) < WINDOW);
            !repairs.is_empty() && of_interest(object)
        });
    }

    /// Whether an object is left alone now, because it is fought over and was repaired a moment ago.
    pub fn is_throttled(&self, object: &ObjectDn, now: Instant) -> bool {
        self.repairs.get(object).and_then(|it| throttled_until(it, now)).is_some_and(|end| end > now)
    }

    /// When the next object is repaired again that rested at the last look.
    pub fn next_end(&self) -> Option<Instant> {
        let looked = self.looked?;
        let waiting = self.reverted.iter().filter_map(|it| throttled_until(self.repairs.get(it)?, looked));
        waiting.filter(|end| *end > looked).min()
    }

    /// What people should know of them.
    pub fn findings(&self, now: Instant) -> impl Iterator<Item = Finding> {
        let fought_over = self.repairs.iter().filter(move |(_, repairs)| is_conflict(repairs, now));
        fought_over.map(|(object, _)| {
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

    /// R5: five repairs in ten minutes are none of anybody's business; a sixth begins a fight, which ends when nobody
    /// undoes anything for a while.
    #[test]
    fn a_fight_begins_and_ends() {
        let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
        let object = ObjectDn::Epg(l3out.epg(Name::object("E").unwrap()));
        let (second, start) = (Duration::from_secs(1), Instant::now());
        let mut fights = DriftThrottle::default();
        for n in 0..6 {
            let now = start + n * second;
            assert!(!fights.is_throttled(&object, now), "after {n} repairs");
            fights.written(&object, now);
            fights.reverted([object.clone()]);
            fights.written(&object, now);
        }
        let last = start + 5 * second;
        fights.reverted([object.clone()]);
        assert!(fights.is_throttled(&object, last + 59 * second));
        fights.keep(last, |_| true);
        assert_eq!(fights.next_end(), Some(last + 60 * second));
        assert!(!fights.is_throttled(&object, last + 60 * second));
        assert_eq!(fights.findings(last).count(), 1);
        assert_eq!(fights.findings(start + 601 * second).count(), 0);
        fights.keep(last, |_| false);
        assert!(!fights.is_throttled(&object, last));
    }
}
