//! What belongs to one reconcile: its session, its time, its context, and what it has come to so far.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::apic::SubscriptionId;
use crate::apic::traits::ApicSession;
use crate::model::dn::EpgDn;
use crate::model::mo::MoChange;
use crate::model::notices::EventNotice;
use crate::model::plan::{Tally, Transaction};

/// What a reconcile did.
#[derive(Debug, Default)]
pub struct Report {
    /// How many objects the APIC created, changed and deleted.
    pub written: Tally,
    /// The transactions that it accepted, in order, if the context keeps them.
    pub done: Vec<Transaction>,
    /// Something is left that the next reconcile, a little later, may be able to do.
    pub unfinished: bool,
    /// How many L3Outs are still to be read; the next reconcile goes on with them at once.
    pub unread: usize,
    /// Something is left that the policy does not send (W5).
    pub withheld: bool,
    /// Objects of other writers that were deleted with an EPG of ours, because they were created after it was read (O2).
    pub swept: Vec<String>,
    /// How many objects are kept although they are not desired, because the policy deletes nothing (W5).
    pub kept: usize,
    /// New notices for the people who look at the cluster (K5).
    pub notices: Vec<EventNotice>,
}

/// What a reconcile asks of its surroundings. A function that says whether to continue is enough if no events arrive
/// meanwhile.
pub trait ReconcileContext {
    /// Asked right before each write: whether it may be sent.
    fn should_continue(&self) -> bool;

    /// Whether the view that the reconcile was planned on is young enough to delete something (W1).
    fn may_delete(&self) -> bool {
        true
    }

    /// The present time, if it moves on during the reconcile.
    fn now(&self) -> Option<Instant> {
        None
    }

    /// Whether the transactions that are done are kept for the report: a first sync has one change for each Pod.
    fn keeps_done(&self) -> bool {
        true
    }

    /// Called before each write: hands over the events that have arrived since the last call, in their order. Most are the
    /// echo of the reconcile itself (W7); the others are changes by other writers.
    fn drain_events(&self, _receive: &mut dyn FnMut(&[SubscriptionId], &[MoChange])) {}
}

impl<F: Fn() -> bool> ReconcileContext for F {
    fn should_continue(&self) -> bool {
        self()
    }
}

/// One reconcile.
pub(super) struct Run<'a> {
    pub(super) apic: &'a dyn ApicSession,
    pub(super) context: &'a dyn ReconcileContext,
    /// The beginning of the reconcile; while a plan is sent, the time of the request.
    pub(super) now: Instant,
    /// The EPGs that are not served unless they are owned and present: their namespaces have as many as they may have (W6).
    pub(super) beyond_quota: BTreeSet<EpgDn>,
    /// One L3Out that was not served has been left out (W8).
    pub(super) left_one_out: bool,
    /// How many writes the APIC rejected.
    pub(super) rejections: usize,
    pub(super) report: Report,
}

impl<'a> Run<'a> {
    pub(super) fn new(apic: &'a dyn ApicSession, context: &'a dyn ReconcileContext, now: Instant) -> Self {
        Run {
            apic,
            context,
            now,
            beyond_quota: BTreeSet::new(),
            left_one_out: false,
            rejections: 0,
            report: Report::default(),
        }
    }
}
