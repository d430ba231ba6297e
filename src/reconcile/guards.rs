//! What limits the writes of a reconcile, with what it remembers. It lives as long as a term of leadership; a take-over drops
//! it (K4).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::deferrals::Deferrals;
use crate::apic::Error;
use crate::model::cache::FabricCache;
use crate::model::desired::{DesiredEpg, DesiredState};
use crate::model::dn::{EpgDn, ObjectDn};
use crate::model::finding::{Code, Finding};
use crate::model::guards::deletion::DeletionGuard;
use crate::model::guards::drift::DriftThrottle;
use crate::model::guards::grace::Grace;
use crate::model::inventory::ManagedWorkload;
use crate::model::observed::Epg;
use crate::model::plan::Plan;
use crate::model::plan_input::TagFailure;
use crate::model::quota::Quota;
use crate::model::rules::Rules;

/// The guards, and the objects that are left alone for a while.
pub struct Guards {
    /// Mass deletions (W4).
    pub(super) deletion: DeletionGuard,
    /// Conflicts with other writers (R5).
    pub(super) drift: DriftThrottle,
    /// How long EPGs stay that nothing names any more (D6).
    pub(super) grace: Grace,
    /// How many EPGs a namespace may have (W6).
    pub(super) quota: Quota,
    /// Objects that are left alone after the APIC rejected a write (W3, W8).
    pub(super) deferrals: Deferrals<ObjectDn>,
    /// Foreign EPGs whose tag could not be written (O4).
    pub(super) tag_failures: BTreeMap<EpgDn, TagFailure>,
}

impl Guards {
    /// Guards that have seen nothing yet.
    pub(super) fn new(grace: Duration) -> Self {
        Guards {
            deletion: DeletionGuard::default(),
            drift: DriftThrottle::default(),
            grace: Grace::new(grace),
            quota: Quota::default(),
            deferrals: Deferrals::default(),
            tag_failures: BTreeMap::new(),
        }
    }

    /// An object is left alone for a while.
    pub(super) fn defer(&mut self, object: ObjectDn, error: &Error, now: Instant) {
        let text = format!("failed to write: {error}; retrying with growing pauses");
        self.deferrals.defer(&object, now, Finding::new(Code::Rejected, &object, text));
    }

    /// What a workload names has its whole grace before it, even if it was named only between two reconciles (D6). Only
    /// workloads that have just changed are looked at: a namespace may delete thousands of others one by one (X3). A
    /// binding that `--allow` forbids does not count (W6).
    pub(super) fn restart_graces<'a>(&mut self, rules: &Rules, changed: impl IntoIterator<Item = &'a ManagedWorkload>) {
        for managed in changed {
            if let Some(epg) = managed.bound_epg(rules) {
                self.grace.named(epg);
            }
        }
    }

    /// Forgets what concerns objects that are of no interest any more. `deletes`: whether this reconcile may delete.
    pub(super) fn prune(
        &mut self,
        desired: &DesiredState,
        plan: &Plan,
        cache: &FabricCache,
        deletes: bool,
        now: Instant,
    ) {
        for epg in &plan.untagged {
            let failure = TagFailure { why: "another writer keeps deleting it".to_owned(), try_again: true };
            self.tag_failures.entry(epg.clone()).or_insert(failure);
        }
        self.deferrals.keep(|object| is_desired(desired, object) || is_present(cache, object));
        self.drift.keep(now, |object| is_desired(desired, object));
        let may_be_foreign = |epg: &EpgDn| cache.epg(epg).is_none_or(Epg::is_foreign);
        self.tag_failures
            .retain(|epg, _| desired.epgs.contains_key(epg) && may_be_foreign(epg) && !cache.is_tagged(epg));
        let is_out_of_reach = |epg: &EpgDn| {
            let is_paused = desired.epgs.get(epg).is_some_and(DesiredEpg::is_paused);
            let is_deferred = self.deferrals.is_deferred(&ObjectDn::Epg(epg.clone()), now);
            is_paused || is_deferred || cache.l3out(&epg.l3out).is_none()
        };
        let is_unknown = |object: &ObjectDn| !deletes || is_out_of_reach(object.epg());
        // No tag is desired about an EPG that is not foreign (O4).
        let is_needless = |object: &ObjectDn| matches!(object, ObjectDn::Tag(epg) if !may_be_foreign(epg));
        let is_left = |object: &ObjectDn| {
            (is_needless(object) || !is_desired(desired, object)) && (is_present(cache, object) || is_unknown(object))
        };
        self.deletion.keep(plan, is_unknown, is_left);
    }

    /// The EPGs of ours that count towards a namespace's quota although no workload names them any more: all that are left
    /// if the policy deletes nothing, otherwise those in their grace or with a blocked deletion.
    pub(super) fn counts_for_quota(
        &self,
        cache: &FabricCache,
        policy_deletes: bool,
        epg: &EpgDn,
        now: Instant,
    ) -> bool {
        let is_kept =
            || self.grace.is_running(epg, now) || self.deletion.blocked().contains(&ObjectDn::Epg(epg.clone()));
        cache.epg(epg).is_some_and(Epg::is_ours) && (!policy_deletes || is_kept())
    }

    /// When something is due that the guards hold back.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        [self.deferrals.next_end(), self.drift.next_end(), self.grace.next_end()].into_iter().flatten().min()
    }

    /// What people should know.
    pub(super) fn findings(&self, now: Instant) -> BTreeSet<Finding> {
        let deferred = self.deferrals.findings().cloned();
        deferred.chain(self.drift.findings(now)).chain(self.deletion.finding()).collect()
    }
}

pub(super) fn is_desired(desired: &DesiredState, object: &ObjectDn) -> bool {
    match (desired.epgs.get(object.epg()), object) {
        (Some(epg), ObjectDn::Subnet(_, prefix)) => epg.subnets.contains_key(prefix),
        (epg, _) => epg.is_some(),
    }
}

fn is_present(cache: &FabricCache, object: &ObjectDn) -> bool {
    match object {
        ObjectDn::Tag(epg) => cache.is_tagged(epg),
        ObjectDn::Epg(epg) => cache.epg(epg).is_some(),
        ObjectDn::Subnet(epg, prefix) => cache.epg(epg).is_some_and(|it| it.subnets.contains_key(prefix)),
    }
}
