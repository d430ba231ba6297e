//! The fabric's side of the state: what is known of it, and what has to be read again. It lives as long as a term of
//! leadership; a take-over drops it (K4).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use log::debug;

use super::deferrals::Deferrals;
use super::subscriptions::Subscriptions;
use crate::apic::SubscriptionId;
use crate::metrics::FullSyncCause;
use crate::model::cache::FabricCache;
use crate::model::dn::{EpgDn, L3outDn, Name, ParsedDn};
use crate::model::mo::{MoChange, Status};
use crate::model::observed::L3out;
use crate::model::owner::OwnerIdentity;
use crate::model::staleness::{Staleness, apply_event};

/// An L3Out in which an L3Out or an EPG of ours has just appeared is read again this much later: events of the first
/// children of a new object may be lost (R3).
const REREAD_AFTER: Duration = Duration::from_secs(5);

/// Objects that appear in an L3Out one after the other cause one read, after the last of them, but not later than this
/// after the first read was due: a namespace may let something appear all the time (X3).
const MAX_REREAD_DELAY: Duration = Duration::from_secs(15);

/// The cache, its subscriptions, and the reads that are due.
pub struct FabricState {
    pub(super) cache: FabricCache,
    pub(super) subscriptions: Subscriptions,
    /// L3Outs in which a class query found an owner annotation of ours or of a legacy installation (R4).
    pub(super) with_annotation: BTreeSet<L3outDn>,
    /// Why the APIC could not be asked for everything that is ours, in whatever L3Out (R4).
    pub(super) ownership_query_error: Option<String>,
    /// How many faults F0467 each EPG had at the last full sync (S3).
    pub(super) faults: BTreeMap<EpgDn, usize>,
    /// The next reconcile reads everything (R4); the first cause of that.
    pub(super) full_sync_due: Option<FullSyncCause>,
    /// Everything was read since the last full sync began, perhaps except L3Outs that were named later.
    pub(super) all_read: bool,
    /// L3Outs and EPGs that are not what the cache says.
    pub(super) stale_l3outs: BTreeSet<L3outDn>,
    pub(super) stale_epgs: BTreeSet<EpgDn>,
    /// L3Outs that were announced as deleted and not read since: if they are there, they are new.
    pub(super) deleted_l3outs: BTreeSet<L3outDn>,
    /// L3Outs that hold nothing of ours and are read in their turn.
    pub(super) unread: BTreeSet<L3outDn>,
    /// L3Outs that are read again at a later time.
    rereads: BTreeMap<L3outDn, Reread>,
    /// When this process created EPGs, until they were read that much later.
    new_epgs: BTreeMap<L3outDn, BTreeMap<Name, Instant>>,
    /// L3Outs that the APIC refuses to give us.
    pub(super) deferred: Deferrals<L3outDn>,
}

/// When an L3Out is read again because something has appeared in it (R3).
#[derive(Debug)]
struct Reread {
    due: Instant,
    latest: Instant,
    /// When it should be read for what appeared last.
    requested: Instant,
}

impl Reread {
    fn new(at: Instant) -> Self {
        Reread { due: at, latest: at + MAX_REREAD_DELAY, requested: at }
    }

    fn postpone(&mut self, at: Instant) {
        self.due = at.min(self.latest);
        self.requested = at;
    }
}

/// What websocket events say that the cache does not know.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// What is not what the cache says.
    pub(super) stale: Vec<Staleness>,
    /// The events belong to subscriptions that were given up.
    pub(super) is_late: bool,
}

impl FabricState {
    /// Nothing is known: the first reconcile is a full sync.
    pub(super) fn new(owner: OwnerIdentity, cause: FullSyncCause) -> Self {
        FabricState {
            cache: FabricCache::new(owner),
            subscriptions: Subscriptions::default(),
            with_annotation: BTreeSet::new(),
            ownership_query_error: None,
            faults: BTreeMap::new(),
            full_sync_due: Some(cause),
            all_read: false,
            stale_l3outs: BTreeSet::new(),
            stale_epgs: BTreeSet::new(),
            deleted_l3outs: BTreeSet::new(),
            unread: BTreeSet::new(),
            rereads: BTreeMap::new(),
            new_epgs: BTreeMap::new(),
            deferred: Deferrals::default(),
        }
    }

    /// Takes websocket events: what they say that the cache does not know is read again.
    ///
    /// A late event, of a subscription that was given up, costs no read (R3). But a deletion is noted even then: an object
    /// that another writer puts there afterwards is not an object of ours that lost its owner annotation (R2).
    pub(super) fn receive(&mut self, subscriptions: &[SubscriptionId], changes: &[MoChange]) -> Received {
        let is_late = !self.subscriptions.received(subscriptions);
        let mut stale = Vec::new();
        for change in changes.iter().filter(|it| !is_late || it.status == Status::Deleted) {
            let staleness = apply_event(&mut self.cache, change);
            let dn = &change.mo.dn;
            match &staleness {
                Staleness::Fresh => continue,
                Staleness::Object(object) if is_late => self.cache.relations_in_doubt(object.epg()),
                Staleness::L3out(_) if is_late => {}
                Staleness::Object(object) => {
                    debug!(dn:%, status:? = change.status; "event: the EPG is read again");
                    self.stale_epgs.insert(object.epg().clone());
                }
                Staleness::L3out(l3out) => {
                    debug!(dn:%, status:? = change.status; "event: the L3Out is read again");
                    self.stale_l3outs.insert(l3out.clone());
                    if matches!(ParsedDn::parse(dn), Some(ParsedDn::L3out(_))) && change.status == Status::Deleted {
                        self.deleted_l3outs.insert(l3out.clone());
                    }
                }
            }
            stale.push(staleness);
        }
        Received { stale, is_late }
    }

    /// Something has appeared in an L3Out: it is read again a little later.
    pub(super) fn schedule_reread(&mut self, dn: &L3outDn, now: Instant) {
        let at = now + REREAD_AFTER;
        self.rereads.entry(dn.clone()).or_insert_with(|| Reread::new(at)).postpone(at);
    }

    /// This process created an EPG, or was about to when another writer did.
    pub(super) fn created(&mut self, dn: &EpgDn, now: Instant) {
        self.new_epgs.entry(dn.l3out.clone()).or_default().insert(dn.name.clone(), now);
        self.schedule_reread(&dn.l3out, now);
    }

    /// An L3Out was read as a whole: what is below its older EPGs is known from now on. R7: if another writer has deleted one
    /// that was new, people may have removed relations before without an event.
    pub(super) fn l3out_was_read(&mut self, dn: &L3outDn, now: Instant) {
        let Some(mut new) = self.new_epgs.remove(dn) else { return };
        new.retain(|name, created| {
            let epg = dn.epg(name.clone());
            let is_there = self.cache.epg(&epg).is_some();
            if !is_there {
                self.cache.relations_in_doubt(&epg);
            }
            is_there && now < *created + REREAD_AFTER
        });
        if !new.is_empty() {
            self.new_epgs.insert(dn.clone(), new);
        }
    }

    /// An EPG was read: the same for it alone.
    pub(super) fn epg_was_read(&mut self, dn: &EpgDn) {
        if self.cache.epg(dn).is_none()
            && self.new_epgs.get_mut(&dn.l3out).is_some_and(|it| it.remove(&dn.name).is_some())
        {
            self.cache.relations_in_doubt(dn);
        }
    }

    /// Rereads that are due make their L3Outs stale.
    pub(super) fn take_due_rereads(&mut self, now: Instant) {
        for (dn, reread) in std::mem::take(&mut self.rereads) {
            if reread.due > now {
                self.rereads.insert(dn, reread);
                continue;
            }
            if reread.requested > reread.due {
                self.rereads.insert(dn.clone(), Reread::new(reread.requested));
            }
            self.stale_l3outs.insert(dn);
        }
    }

    /// An L3Out has to be read: at once if it is present or holds something of ours, in its turn if it is new or was missing.
    pub(super) fn queue_read(&mut self, dn: L3outDn) {
        let is_present = matches!(self.cache.l3out(&dn), Some(L3out::Present { .. }));
        if is_present || self.with_annotation.contains(&dn) {
            self.stale_l3outs.insert(dn);
        } else {
            self.unread.insert(dn);
        }
    }

    /// An L3Out was read, or is left alone.
    pub(super) fn read_done(&mut self, dn: &L3outDn) {
        self.stale_l3outs.remove(dn);
        self.unread.remove(dn);
    }

    /// The L3Outs that hold something of ours or of a legacy installation, as a class query found or the cache shows.
    pub(super) fn with_ours(&self) -> BTreeSet<L3outDn> {
        self.with_annotation.iter().cloned().chain(self.cache.l3outs_with_owned()).collect()
    }

    /// Whether the APIC refuses to give us an L3Out that holds something of ours, or may hold it. A namespace may name any
    /// L3Out that the user may not read.
    pub(super) fn may_hide_ours(&self) -> bool {
        if self.ownership_query_error.is_some() {
            return self.deferred.findings().next().is_some();
        }
        self.with_ours().iter().any(|dn| self.deferred.is_known(dn))
    }

    /// An L3Out is of no interest any more; its subscription.
    pub(super) fn forget(&mut self, dn: &L3outDn) -> Option<SubscriptionId> {
        self.cache.forget(dn);
        self.deleted_l3outs.remove(dn);
        self.rereads.remove(dn);
        self.new_epgs.remove(dn);
        self.subscriptions.remove(dn)
    }

    /// All subscriptions are void. What the APIC refused may be served by the next session.
    pub(super) fn subscriptions_lost(&mut self) -> Vec<SubscriptionId> {
        self.deferred = Deferrals::default();
        self.full_sync_due.get_or_insert(FullSyncCause::EventsLost);
        self.subscriptions.take_all().collect()
    }

    /// When a read is due next.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let reread = self.rereads.values().map(|it| it.due).min();
        [reread, self.deferred.next_end(), self.subscriptions.next_wake()].into_iter().flatten().min()
    }
}
