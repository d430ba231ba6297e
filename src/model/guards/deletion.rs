//! The deletion guard: if a full sync would delete very much at once, these deletions are blocked until an operator
//! approves them (W4).
//!
//! It guards against a view that is complete and wrong: an API server restored from an old backup, or the kubeconfig of
//! another cluster.

use std::collections::BTreeSet;

use crate::model::dn::ObjectDn;
use crate::model::finding::{Code, Few, Finding, counted};
use crate::model::plan::Plan;
use crate::model::rules::MaxDeletes;

/// What is blocked, and whether the next plan is counted.
#[derive(Debug)]
pub struct DeletionGuard {
    check_next: bool,
    blocked: BTreeSet<ObjectDn>,
    /// What was approved and is not done yet, such as an EPG in its grace: it is not counted again.
    approved: BTreeSet<ObjectDn>,
}

impl Default for DeletionGuard {
    /// The first plan of a process is counted.
    fn default() -> Self {
        DeletionGuard { check_next: true, blocked: BTreeSet::new(), approved: BTreeSet::new() }
    }
}

impl DeletionGuard {
    /// A complete list or a full sync came in: the next plan is counted.
    pub fn check_next(&mut self) {
        self.check_next = true;
    }

    /// Counts a plan if that is due, before anything of it is sent. True if its deletions are blocked now: the plan has to be
    /// made again. `objects` counts the owned ones.
    pub fn check(&mut self, plan: &Plan, objects: impl FnOnce() -> usize, most: MaxDeletes) -> bool {
        if !std::mem::take(&mut self.check_next) {
            return false;
        }
        let deletions: BTreeSet<&ObjectDn> = plan.deletions.iter().filter(|it| !self.approved.contains(it)).collect();
        let exceeded = most.is_exceeded(deletions.len(), objects());
        if exceeded {
            self.blocked.extend(deletions.into_iter().cloned());
        }
        exceeded
    }

    /// What must not be deleted.
    pub fn blocked(&self) -> &BTreeSet<ObjectDn> {
        &self.blocked
    }

    /// What is desired again, moves, or is gone is no longer blocked. `is_unknown` says which objects the plan left out.
    pub fn keep(&mut self, plan: &Plan, is_unknown: impl Fn(&ObjectDn) -> bool) {
        self.blocked.retain(|object| plan.blocked.contains(object) || is_unknown(object));
        self.approved.retain(|object| plan.deletions.contains(object) || is_unknown(object));
    }

    /// An operator approves all blocked deletions. Their number is returned.
    pub fn approve(&mut self) -> usize {
        self.approved.append(&mut self.blocked.clone());
        std::mem::take(&mut self.blocked).len()
    }

    /// The finding about blocked deletions.
    pub fn finding(&self) -> Option<Finding> {
        if self.blocked.is_empty() {
            return None;
        }
        let text = format!(
            "{} blocked: full sync exceeds --max-deletes. Check that this is the right, complete cluster, then approve \
             with `kill -USR2` ({})",
            counted(self.blocked.len(), "deletion"),
            Few::of(&self.blocked)
        );
        Some(Finding::new(Code::DeletionsBlocked, "deletion guard", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dn::{L3outDn, Name};

    /// W4: only the plan after a list or a full sync is counted; what was approved is not blocked again by the next one,
    /// until it was desired in between.
    #[test]
    fn approval_holds_until_it_is_used() {
        let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
        let object = |name: &str| ObjectDn::Epg(l3out.epg(Name::object(name).unwrap()));
        let plan = Plan { deletions: BTreeSet::from([object("A"), object("B")]), ..Plan::default() };
        let most = MaxDeletes::Number(1);
        let mut deletion_guard = DeletionGuard::default();
        assert!(deletion_guard.check(&plan, || 9, most) && deletion_guard.blocked().len() == 2);
        assert_eq!(deletion_guard.approve(), 2);
        deletion_guard.keep(&plan, |_| false);
        deletion_guard.check_next();
        assert!(!deletion_guard.check(&plan, || 9, most) && deletion_guard.blocked().is_empty());
        deletion_guard.keep(&Plan::default(), |_| false);
        assert!(!deletion_guard.check(&plan, || 9, most), "an event alone is not counted");
        deletion_guard.check_next();
        assert!(deletion_guard.check(&plan, || 9, most));
    }
}
