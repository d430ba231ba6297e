//! The deletion guard: if a full sync would delete very much at once, these deletions are blocked until an operator
//! approves them (W4).
//!
//! The first reconcile of a process counts moves, too (J3): another default L3Out moves every workload that relies on it.
//!
//! It guards against a view that is complete and wrong: an API server restored from an old backup, or the kubeconfig of
//! another cluster.

use std::collections::BTreeSet;

use crate::model::dn::ObjectDn;
use crate::model::finding::{Code, Few, Finding, counted};
use crate::model::plan::Plan;
use crate::model::plan_input::Moves;
use crate::model::rules::MaxDeletes;

/// What is blocked, and whether the next plan is counted.
#[derive(Debug)]
pub struct DeletionGuard {
    check_next: bool,
    blocked: BTreeSet<ObjectDn>,
    /// What was approved and is not done yet, such as an EPG in its grace: it is not counted again.
    approved: BTreeSet<ObjectDn>,
    /// Moves were counted at least once.
    has_counted_moves: bool,
    /// Moves are counted, until there was a count after everything was read.
    counts_moves: bool,
    /// The subnets whose moves are blocked.
    blocked_moves: BTreeSet<ObjectDn>,
}

impl Default for DeletionGuard {
    /// The first plan of a process is counted, with its moves.
    fn default() -> Self {
        DeletionGuard {
            check_next: true,
            blocked: BTreeSet::new(),
            approved: BTreeSet::new(),
            has_counted_moves: false,
            counts_moves: true,
            blocked_moves: BTreeSet::new(),
        }
    }
}

impl DeletionGuard {
    /// A complete list or a full sync came in: the next plan is counted.
    pub fn check_next(&mut self) {
        self.check_next = true;
    }

    /// Something of ours is read that could not be read at the start: moves are counted once more (J3).
    pub fn count_moves(&mut self) {
        self.counts_moves = true;
    }

    /// Counts a plan if that is due, before anything of it is sent. True if the plan has to be made again, because deletions or
    /// moves are blocked now, or moves need not wait any more. `objects` counts the owned ones; `all_read` says whether the plan
    /// was made on all that is ours.
    pub fn check(&mut self, plan: &Plan, objects: impl FnOnce() -> usize, most: MaxDeletes, all_read: bool) -> bool {
        if !std::mem::take(&mut self.check_next) {
            return false;
        }
        let objects = objects();
        let counted = |all: &BTreeSet<ObjectDn>| -> Vec<ObjectDn> {
            let counted: Vec<ObjectDn> = all.difference(&self.approved).cloned().collect();
            if most.is_exceeded(counted.len(), objects) { counted } else { Vec::new() }
        };
        let deletions = counted(&plan.deletions);
        let moves = if self.counts_moves { counted(&plan.moves) } else { Vec::new() };
        let waited = !std::mem::replace(&mut self.has_counted_moves, true) && !plan.moves.is_empty();
        self.counts_moves &= !all_read;
        let again = waited || !deletions.is_empty() || !moves.is_empty();
        self.blocked.extend(deletions);
        self.blocked_moves.extend(moves);
        again
    }

    /// Which moves wait (J3).
    pub fn moves(&self) -> Moves<'_> {
        if !self.has_counted_moves {
            Moves::Uncounted
        } else if self.counts_moves || !self.blocked_moves.is_empty() {
            Moves::Blocked(&self.blocked_moves)
        } else {
            Moves::Free
        }
    }

    /// What must not be deleted.
    pub fn blocked(&self) -> &BTreeSet<ObjectDn> {
        &self.blocked
    }

    /// What waits for approval: a move begins with a deletion.
    pub fn all_blocked(&self) -> BTreeSet<ObjectDn> {
        &self.blocked | &self.blocked_moves
    }

    /// What is desired again, moves, or is gone is no longer blocked. `is_unknown` says which objects the plan left out.
    /// An approval holds until it is used, also while the plan has no use for it, as for a subnet whose EPG in another VRF cannot
    /// be used yet: `is_left` says what is not desired and is, or may be, still there.
    pub fn keep(&mut self, plan: &Plan, is_unknown: impl Fn(&ObjectDn) -> bool, is_left: impl Fn(&ObjectDn) -> bool) {
        for blocked in [&mut self.blocked, &mut self.blocked_moves] {
            blocked.retain(|object| plan.blocked.contains(object) || is_unknown(object));
        }
        let is_planned = |object: &ObjectDn| plan.deletions.contains(object) || plan.moves.contains(object);
        self.approved.retain(|object| is_planned(object) || is_left(object));
    }

    /// An operator approves all blocked deletions and moves. Their number is returned.
    pub fn approve(&mut self) -> usize {
        let mut approved = self.all_blocked();
        let count = approved.len();
        self.approved.append(&mut approved);
        self.blocked.clear();
        self.blocked_moves.clear();
        count
    }

    /// The finding about blocked deletions.
    pub fn finding(&self) -> Option<Finding> {
        let what = match (self.blocked.len(), self.blocked_moves.len()) {
            (0, 0) => return None,
            (deletions, 0) => counted(deletions, "deletion"),
            (0, moves) => counted(moves, "move"),
            (deletions, moves) => format!("{} and {}", counted(deletions, "deletion"), counted(moves, "move")),
        };
        let and_l3outs = if self.blocked_moves.is_empty() { "" } else { " with the right L3Outs" };
        let text = format!(
            "{what} blocked: full sync exceeds --max-deletes. Check that this is the right, complete cluster{and_l3outs}, \
             then approve with `kill -USR2` ({})",
            Few::of(self.all_blocked())
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
        assert!(deletion_guard.check(&plan, || 9, most, true) && deletion_guard.blocked().len() == 2);
        assert_eq!(deletion_guard.approve(), 2);
        deletion_guard.keep(&plan, |_| false, |_| false);
        deletion_guard.check_next();
        assert!(!deletion_guard.check(&plan, || 9, most, true) && deletion_guard.blocked().is_empty());
        deletion_guard.keep(&Plan::default(), |_| false, |_| false);
        assert!(!deletion_guard.check(&plan, || 9, most, true), "an event alone is not counted");
        deletion_guard.check_next();
        assert!(deletion_guard.check(&plan, || 9, most, true));
    }

    /// J3: moves are counted at the start, apart from deletions, until there was a count after everything was read; until the
    /// first one all wait. What was approved is not counted again, and what is no move any more is not blocked.
    #[test]
    fn moves_are_counted_at_the_start() {
        let l3out = L3outDn::parse("T/L").unwrap();
        let object = |name: &str| ObjectDn::Epg(l3out.epg(Name::object(name).unwrap()));
        let plan = |moves: &[&str], deletions: &[&str]| Plan {
            moves: moves.iter().map(|it| object(it)).collect(),
            deletions: deletions.iter().map(|it| object(it)).collect(),
            ..Plan::default()
        };
        let most = MaxDeletes::Number(1);
        let state = |guard: &DeletionGuard| match guard.moves() {
            Moves::Free => "free".to_owned(),
            Moves::Uncounted => "uncounted".to_owned(),
            Moves::Blocked(blocked) => format!("{} blocked", blocked.len()),
        };

        let mut guard = DeletionGuard::default();
        assert_eq!(state(&guard), "uncounted");
        assert!(guard.check(&plan(&["A"], &["B"]), || 9, most, true), "the move that waited can be planned");
        assert_eq!(state(&guard), "free");
        guard.check_next();
        assert!(!guard.check(&plan(&["A", "B"], &[]), || 9, most, true), "later full syncs count no moves");

        let mut guard = DeletionGuard::default();
        assert!(!guard.check(&plan(&[], &[]), || 9, most, false), "nothing waited");
        assert_eq!(state(&guard), "0 blocked");
        guard.check_next();
        assert!(guard.check(&plan(&["A", "B"], &["C"]), || 9, most, true), "what was read later");
        assert_eq!((state(&guard), guard.blocked().len(), guard.all_blocked().len()), ("2 blocked".to_owned(), 0, 2));
        let text = guard.finding().unwrap().text;
        assert!(text.starts_with("2 moves blocked: full sync exceeds --max-deletes"), "{text}");
        guard.keep(&Plan { blocked: BTreeSet::from([object("A")]), ..plan(&["A"], &[]) }, |_| false, |_| false);
        assert_eq!((state(&guard), guard.approve()), ("1 blocked".to_owned(), 1));
        assert_eq!((state(&guard), guard.finding()), ("free".to_owned(), None));

        let mut guard = DeletionGuard::default();
        assert!(guard.check(&plan(&["A", "B"], &[]), || 9, most, false) && guard.approve() == 2);
        guard.keep(&plan(&["A", "B"], &[]), |_| false, |_| false);
        guard.check_next();
        assert!(!guard.check(&plan(&["A", "B"], &[]), || 9, most, true), "approved");
        assert_eq!(state(&guard), "free");
    }
}
