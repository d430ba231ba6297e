//! The brake: a comparison that would delete very much at once holds these deletions until somebody consents (W4).
//!
//! What it guards against is a view that is complete and wrong: an API server restored from an old backup, or the
//! kubeconfig of another cluster.

use std::collections::BTreeSet;

use super::dn::ObjectDn;
use super::finding::{Code, Finding};
use super::plan::Plan;
use super::rules::MaxDeletes;

/// How many of the held objects a finding names.
const NAMED: usize = 5;

/// What is held, and whether the next plan is counted.
#[derive(Debug)]
pub struct Brake {
    due: bool,
    held: BTreeSet<ObjectDn>,
}

impl Default for Brake {
    /// The first plan of a process is counted.
    fn default() -> Self {
        Brake { due: true, held: BTreeSet::new() }
    }
}

impl Brake {
    /// A complete list or a comparison came in: the next plan is counted.
    pub fn count_next(&mut self) {
        self.due = true;
    }

    /// Counts a plan if it is due, before anything of it is sent. True where its deletions are held now, so that
    /// another plan has to be made.
    pub fn count(&mut self, plan: &Plan, objects: usize, most: MaxDeletes) -> bool {
        let exceeded = std::mem::take(&mut self.due) && most.is_exceeded(plan.deletions.len(), objects);
        if exceeded {
            self.held.extend(plan.deletions.iter().cloned());
        }
        exceeded
    }

    /// What must not be deleted.
    pub fn held(&self) -> &BTreeSet<ObjectDn> {
        &self.held
    }

    /// What is wanted again, moves, or is gone leaves the hold.
    pub fn keep(&mut self, is_still_unwanted: impl Fn(&ObjectDn) -> bool) {
        self.held.retain(is_still_unwanted);
    }

    /// Somebody consents; how many deletions that concerns.
    pub fn release(&mut self) -> usize {
        std::mem::take(&mut self.held).len()
    }

    /// What people should know.
    pub fn finding(&self) -> Option<Finding> {
        let first: Vec<String> = self.held.iter().take(NAMED).map(ToString::to_string).collect();
        let more = if self.held.len() > NAMED { ", ..." } else { "" };
        let text = format!(
            "{} deletions are held, because one comparison called for more than --max-deletes allows ({}{more}); look \
             whether the cluster's side is as it should be, and let them go with SIGUSR2",
            self.held.len(),
            first.join(", ")
        );
        (!self.held.is_empty()).then(|| Finding::new(Code::Held, "the brake", text))
    }
}
