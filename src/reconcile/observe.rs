//! What a reconcile reads, and which L3Outs it reads and hears of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use log::{debug, info};

use super::{REREAD_AFTER, Reconciler};
use crate::apic::traits::ApicRead;
use crate::apic::{Error, Query};
use crate::model::desired::named_l3outs;
use crate::model::dn::{EpgDn, L3outDn, ObjectDn, ParsedDn};
use crate::model::finding::{Code, Finding};
use crate::model::observed::{CONTRACTS, EPG, L3OUT, L3out, SUBNET, TAG, VRF_RELATION};
use crate::model::plan::Plan;

/// Where so many EPGs of one L3Out are to be read, one request for the whole L3Out reads them: an APIC serves so many
/// requests a second (W8).
const TOGETHER: usize = 3;

/// The most L3Outs that a reconcile reads before it writes, of those that hold nothing that could have to be changed: the
/// ones that are named for the first time, and the ones that were missing. A namespace may name thousands (X3).
const MAX_NEW: usize = 20;

/// What appears in an L3Out one after the other is read once, after the last of it; but not later than this after the first
/// read was due, because a namespace may let something appear all the time (X3).
const MAX_REREAD_DELAY: Duration = Duration::from_secs(15);

/// When an L3Out is read again because something has appeared in it (R3).
#[derive(Debug)]
pub(super) struct Reread {
    pub(super) due: Instant,
    latest: Instant,
    /// When it should be read for the sake of what appeared last.
    asked: Instant,
}

impl Reread {
    fn new(at: Instant) -> Self {
        Reread { due: at, latest: at + MAX_REREAD_DELAY, asked: at }
    }

    fn postpone(&mut self, at: Instant) {
        (self.due, self.asked) = (at.min(self.latest), at);
    }
}

impl Reconciler {
    /// L3Outs whose time to settle is over are read again, and those that the APIC tells nothing about (R3, A6).
    pub(super) fn take_due_rereads(&mut self, apic: &dyn ApicRead, now: Instant) {
        for (dn, it) in std::mem::take(&mut self.rereads) {
            if it.due > now {
                self.rereads.insert(dn, it);
                continue;
            }
            if it.asked > it.due {
                self.rereads.insert(dn.clone(), Reread::new(it.asked));
            }
            self.stale_l3outs.insert(dn);
        }
        let due = self.subscriptions.due(now);
        for (dn, id) in due.renewals {
            debug!("{dn} is subscribed once more");
            apic.unsubscribe(&id);
            self.stale_l3outs.insert(dn);
        }
        due.reads.into_iter().for_each(|dn| self.queue_read(dn));
    }

    /// Something has appeared in an L3Out.
    pub(super) fn schedule_reread(&mut self, dn: &L3outDn, now: Instant) {
        let at = now + REREAD_AFTER;
        self.rereads.entry(dn.clone()).or_insert_with(|| Reread::new(at)).postpone(at);
    }

    /// Notes that an L3Out has to be read: at once where something is there, or ours; in its turn where it is new or was
    /// missing.
    fn queue_read(&mut self, dn: L3outDn) {
        let comes_first =
            matches!(self.fabric.l3out(&dn), Some(L3out::Present { .. })) || self.with_annotation.contains(&dn);
        let due = if comes_first { &mut self.stale_l3outs } else { &mut self.unread };
        due.insert(dn);
    }

    /// Notes what a reconcile has to read that no event has told of: all, where that is due, and what it does not know yet.
    pub(super) fn find_stale(&mut self, apic: &dyn ApicRead, now: Instant) -> Result<(), Error> {
        if self.full_sync_due {
            self.with_annotation = self.find_ours(apic)?;
            let known: Vec<L3outDn> = self.with_annotation.iter().chain(self.fabric.l3outs()).cloned().collect();
            known.into_iter().for_each(|dn| self.queue_read(dn));
            self.full_sync_due = false;
            self.all_read = false;
            self.deletion_guard.check_next();
            self.subscriptions.retry_refused();
            self.tag_failures.values_mut().for_each(|it| it.try_again = true);
        }
        let due: Vec<L3outDn> = self.deferred_l3outs.due(now).cloned().collect();
        due.into_iter().for_each(|dn| self.queue_read(dn));
        for dn in self.named() {
            let is_known = self.fabric.l3out(&dn).is_some() && self.subscriptions.is_served(&dn);
            if !is_known && !self.deferred_l3outs.is_deferred(&dn, now) {
                self.queue_read(dn);
            }
        }
        Ok(())
    }

    /// Reads some of the L3Outs that wait for their turn. The namespaces take turns, so that none waits for what another
    /// one names.
    pub(super) fn read_new(&mut self, apic: &dyn ApicRead, now: Instant) -> Result<(), Error> {
        if self.unread.is_empty() {
            self.all_read = true;
            return Ok(());
        }
        let named = self.named();
        self.unread.retain(|dn| named.contains(dn));
        let turn = self.by_turns(MAX_NEW);
        for dn in &turn {
            self.read_l3out(apic, dn, now)?;
            if self.left_one_out {
                break;
            }
        }
        self.all_read |= self.unread.is_empty();
        let marked = self.fabric.l3outs_with_ours();
        if turn.iter().any(|dn| marked.contains(dn)) {
            // What would be deleted there was not counted.
            self.deletion_guard.check_next();
        }
        Ok(())
    }

    /// The next L3Outs to read: the first of each namespace, then the second of each.
    fn by_turns(&self, most: usize) -> Vec<L3outDn> {
        let (mut places, mut seen) = (BTreeMap::new(), BTreeSet::new());
        let mut namespace = None;
        for managed in self.inventory.managed.values() {
            let Some(named) = managed.binding.as_ref().filter(|it| self.unread.contains(&it.epg.l3out)) else {
                continue;
            };
            let its = &managed.deployment.key.namespace;
            if namespace.replace(its) != Some(its) {
                seen.clear();
            }
            if seen.insert(&named.epg.l3out) {
                let place = places.entry(&named.epg.l3out).or_insert(usize::MAX);
                *place = seen.len().min(*place);
            }
        }
        let mut turns: Vec<(usize, &L3outDn)> = places.into_iter().map(|(dn, place)| (place, dn)).collect();
        turns.sort();
        turns.into_iter().take(most).map(|(_, dn)| dn.clone()).collect()
    }

    /// Reads all that the cache cannot be trusted for. What was read successfully is not read again when a later
    /// read fails.
    pub(super) fn read_stale(&mut self, apic: &dyn ApicRead, now: Instant) -> Result<(), Error> {
        if self.stale_l3outs.is_empty() {
            return self.read_stale_epgs(apic, now);
        }
        let needed: BTreeSet<L3outDn> = self.named().into_iter().chain(self.with_ours()).collect();
        while let Some(dn) = self.stale_l3outs.first().cloned() {
            if needed.contains(&dn) {
                self.read_l3out(apic, &dn, now)?;
            } else {
                self.forget(apic, &dn);
            }
            self.stale_l3outs.remove(&dn);
        }
        self.read_stale_epgs(apic, now)
    }

    /// Whether an error is about this very L3Out, and the reconcile goes on without it. One that is not served may be the
    /// session's fault: so only the first one is left out, and the next error ends the reconcile. Where it may hold
    /// something of ours nothing goes on: an address must not be created elsewhere in the VRF before it is known to be gone
    /// there (W2).
    fn is_left_out(&mut self, dn: &L3outDn, error: &Error) -> bool {
        match error {
            Error::Forbidden(_) | Error::Rejected { .. } => true,
            Error::Busy(_) | Error::Unreachable(_) | Error::Malformed(_) => {
                !self.with_ours().contains(dn) && !std::mem::replace(&mut self.left_one_out, true)
            }
            Error::Unauthorized(_) | Error::AnswerLost(_) | Error::Withdrawn => false,
        }
    }

    fn read_stale_epgs(&mut self, apic: &dyn ApicRead, now: Instant) -> Result<(), Error> {
        while let Some(dn) = self.stale_epgs.first().cloned() {
            let of_its_l3out = self.stale_epgs.iter().filter(|it| it.l3out == dn.l3out).count();
            if of_its_l3out >= TOGETHER {
                // Whatever becomes of it: what could not be read is not read one by one.
                self.stale_epgs.retain(|it| it.l3out != dn.l3out);
                self.stale_l3outs.insert(dn.l3out.clone());
                self.read_l3out(apic, &dn.l3out, now)?;
            } else {
                self.read_epg(apic, &dn, now)?;
            }
        }
        Ok(())
    }

    /// Reads what a plan needs to be sure of (W7).
    pub(super) fn read_for(&mut self, apic: &dyn ApicRead, plan: &Plan, now: Instant) -> Result<(), Error> {
        self.stale_epgs.extend(plan.reads.iter().cloned());
        self.read_stale_epgs(apic, now)
    }

    /// The L3Outs that hold something of ours or a predecessor's, as found by a class query or seen in the cache.
    fn with_ours(&self) -> BTreeSet<L3outDn> {
        self.with_annotation.iter().cloned().chain(self.fabric.l3outs_with_ours()).collect()
    }

    /// The L3Outs that Deployments name.
    pub(super) fn named(&self) -> BTreeSet<L3outDn> {
        named_l3outs(&self.inventory, &self.rules, &self.beyond_quota)
    }

    /// R4: the L3Outs with anything that bears our mark or a predecessor's, or with a tag of ours. An APIC that does not
    /// answer such a query stops nothing else: what is named is read all the same.
    fn find_ours(&mut self, apic: &dyn ApicRead) -> Result<BTreeSet<L3outDn>, Error> {
        let owner = self.fabric.owner();
        let tags = owner.tag_prefixes().iter().map(|prefix| Query::class(TAG).with_text("key", prefix));
        let mut queries: Vec<Query> = tags.collect();
        for annotation in owner.all_annotations() {
            queries.extend([EPG, SUBNET].map(|class| Query::class(class).with_value("annotation", annotation)));
        }
        let (mut l3outs, mut unasked) = (BTreeSet::new(), None);
        for query in queries {
            let mos = match apic.read(&query) {
                Err(error @ (Error::Forbidden(_) | Error::Rejected { .. })) => {
                    unasked = Some(error.to_string());
                    Vec::new()
                }
                other => other?,
            };
            l3outs.extend(mos.iter().filter_map(|mo| match ParsedDn::parse(&mo.dn)? {
                ParsedDn::Epg(dn) | ParsedDn::Subnet(dn, _) => Some(dn.l3out),
                ParsedDn::Tag(dn, key) => owner.tagged(&key).map(|_| dn),
                _ => None,
            }));
        }
        self.ownership_query_error = unasked;
        Ok(l3outs)
    }

    /// Reads an L3Out whole. One that the APIC does not let us read is left alone, and stops no other: nothing is
    /// written to what was not read.
    pub(super) fn read_l3out(&mut self, apic: &dyn ApicRead, dn: &L3outDn, now: Instant) -> Result<(), Error> {
        match self.subscribe_and_read(apic, dn, now) {
            Err(error) if self.is_left_out(dn, &error) => {
                // What is known of ours there is still there: in its VRF, and in nobody else's way (S3, W2).
                if !self.fabric.l3outs_with_ours().contains(dn) {
                    self.forget(apic, dn);
                }
                self.stale_l3outs.remove(dn);
                self.unread.remove(dn);
                let text = format!("failed to read: {error}; retrying with growing pauses");
                self.deferred_l3outs.defer(dn, now, Finding::new(Code::Rejected, dn, text));
                Ok(())
            }
            Ok(()) => {
                self.stale_l3outs.remove(dn);
                self.unread.remove(dn);
                if self.deferred_l3outs.is_known(dn) {
                    self.deferred_l3outs.release(dn);
                    self.deletion_guard.check_next();
                }
                Ok(())
            }
            other => other,
        }
    }

    /// Reads an L3Out whole, by a subscription where there is none yet: its answer is the snapshot (R3). One that the APIC
    /// does not let us subscribe is read all the same (A6).
    fn subscribe_and_read(&mut self, apic: &dyn ApicRead, dn: &L3outDn, now: Instant) -> Result<(), Error> {
        // R7: what contract relations an EPG had has to be known before another writer deletes it. As classes of the same
        // subscription they cost no request, and in the cache a short name each; a few of them are in an EPG, beside its
        // subnets by the thousand. To read each EPG alone for them would be a request for each, after each change.
        let mut classes = vec![L3OUT, EPG, SUBNET, TAG, VRF_RELATION];
        classes.extend(CONTRACTS);
        let query = Query::object(dn).subtree(&classes);
        let mos = if self.subscriptions.is_served(dn) {
            apic.read(&query)?
        } else {
            match apic.subscribe(&query) {
                Ok((id, mos)) => {
                    match id {
                        Some(id) => self.subscriptions.subscribed(dn, id),
                        None => self.subscriptions.read_without_websocket(dn),
                    }
                    mos
                }
                Err(error @ (Error::Forbidden(_) | Error::Rejected { .. })) => {
                    let mos = apic.read(&query)?;
                    self.subscriptions.refused(dn, &error.to_string(), now);
                    mos
                }
                Err(error) => return Err(error),
            }
        };
        self.subscriptions.was_read(dn, now);
        let was_missing = self.fabric.l3out(dn) == Some(&L3out::Missing);
        let reverted = self.fabric.put_l3out(dn, &mos);
        self.drift.reverted(reverted);
        if was_missing && self.fabric.l3out(dn) != Some(&L3out::Missing) {
            info!("{dn} has appeared");
            self.schedule_reread(dn, now);
            self.subscriptions.appeared(dn, now);
        }
        self.stale_epgs.retain(|epg| epg.l3out != *dn);
        Ok(())
    }

    /// Reads one EPG whole, with its contract relations (W7).
    pub(super) fn read_epg(&mut self, apic: &dyn ApicRead, dn: &EpgDn, now: Instant) -> Result<(), Error> {
        let mut classes = vec![SUBNET];
        classes.extend(CONTRACTS);
        self.stale_epgs.insert(dn.clone());
        match apic.read(&Query::object(dn).with_children(&classes)) {
            Ok(mos) => {
                let reverted = self.fabric.put_epg(dn, &mos);
                self.drift.reverted(reverted);
            }
            Err(error @ (Error::Forbidden(_) | Error::Rejected { .. })) => {
                self.defer(ObjectDn::Epg(dn.clone()), &error, now)
            }
            Err(error) => return Err(error),
        }
        self.stale_epgs.remove(dn);
        Ok(())
    }

    /// An L3Out that nobody names and that holds nothing of ours or a predecessor's is of no interest any more (R3).
    pub(super) fn forget_unneeded(&mut self, apic: &dyn ApicRead) {
        let mut needed = self.named();
        needed.extend(self.fabric.l3outs_with_ours());
        self.with_annotation.retain(|dn| needed.contains(dn));
        let unneeded: Vec<L3outDn> = self.fabric.l3outs().filter(|dn| !needed.contains(dn)).cloned().collect();
        for dn in unneeded {
            self.forget(apic, &dn);
        }
        self.deferred_l3outs.keep(|dn| needed.contains(dn));
    }

    fn forget(&mut self, apic: &dyn ApicRead, dn: &L3outDn) {
        if let Some(id) = self.subscriptions.remove(dn) {
            apic.unsubscribe(&id);
        }
        self.fabric.forget(dn);
        self.rereads.remove(dn);
    }
}
