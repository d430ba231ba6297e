//! The brake: a full sync that would delete very much at once holds these deletions until somebody consents (W4).
//!
//! What it guards against is a view that is complete and wrong: an API server restored from an old backup, or the
//! kubeconfig of another cluster.

use std::collections::BTreeSet;

use super::dn::ObjectDn;
use super::finding::{Code, Few, Finding};
use super::plan::Plan;
use super::rules::MaxDeletes;

/// What is held, and whether the next plan is counted.
#[derive(Debug)]
pub struct Brake {
    due: bool,
    held: BTreeSet<ObjectDn>,
    /// What somebody consented to and is not done yet, such as an EPG in its grace: it is not counted again.
    released: BTreeSet<ObjectDn>,
}

impl Default for Brake {
    /// The first plan of a process is counted.
    fn default() -> Self {
        Brake { due: true, held: BTreeSet::new(), released: BTreeSet::new() }
    }
}

impl Brake {
    /// A complete list or a full sync came in: the next plan is counted.
    pub fn count_next(&mut self) {
        self.due = true;
    }

    /// Counts a plan if it is due, before anything of it is sent. True where its deletions are held now, so that
    /// another plan has to be made.
    pub fn count(&mut self, plan: &Plan, objects: usize, most: MaxDeletes) -> bool {
        let deletions: BTreeSet<&ObjectDn> = plan.deletions.iter().filter(|it| !self.released.contains(it)).collect();
        let exceeded = std::mem::take(&mut self.due) && most.is_exceeded(deletions.len(), objects);
        if exceeded {
            self.held.extend(deletions.into_iter().cloned());
        }
        exceeded
    }

    /// What must not be deleted.
    pub fn held(&self) -> &BTreeSet<ObjectDn> {
        &self.held
    }

    /// What is desired again, moves, or is gone leaves the hold. `is_unknown` tells what the plan could not look at.
    pub fn keep(&mut self, plan: &Plan, is_unknown: impl Fn(&ObjectDn) -> bool) {
        self.held.retain(|object| plan.held.contains(object) || is_unknown(object));
        self.released.retain(|object| plan.deletions.contains(object) || is_unknown(object));
    }

    /// Somebody consents; how many deletions that concerns.
    pub fn release(&mut self) -> usize {
        self.released.append(&mut self.held.clone());
        std::mem::take(&mut self.held).len()
    }

    /// What people should know.
    pub fn finding(&self) -> Option<Finding> {
        let text = format!(
            "{} deletions are held, because one comparison called for more than --max-deletes allows ({}); look \
             whether the cluster's side is as it should be, and let them go with SIGUSR2",
            self.held.len(),
            Few::of(&self.held)
        );
        (!self.held.is_empty()).then(|| Finding::new(Code::Held, "the brake", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dn::{L3outDn, Name};

    /// W4: only the plan after a list or a full sync is counted; what was released is not held again by the next one,
    /// until it was desired in between.
    #[test]
    fn consent_holds_until_it_is_used() {
        let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
        let object = |name: &str| ObjectDn::Epg(l3out.epg(Name::object(name).unwrap()));
        let plan = Plan { deletions: BTreeSet::from([object("A"), object("B")]), ..Plan::default() };
        let most = MaxDeletes::Number(1);
        let mut brake = Brake::default();
        assert!(brake.count(&plan, 9, most) && brake.held().len() == 2);
        assert_eq!(brake.release(), 2);
        brake.keep(&plan, |_| false);
        brake.count_next();
        assert!(!brake.count(&plan, 9, most) && brake.held().is_empty());
        brake.keep(&Plan::default(), |_| false);
        assert!(!brake.count(&plan, 9, most), "an event alone is not counted");
        brake.count_next();
        assert!(brake.count(&plan, 9, most));
    }
}
