//! What a reconcile reads: what is stale, what is named for the first time, and, in a full sync, everything.

use std::collections::{BTreeMap, BTreeSet};

use log::{debug, info};

use super::Reconciler;
use super::run::Run;
use crate::apic::traits::{Read, Requests, Subscribed};
use crate::apic::{Error, Query};
use crate::metrics::{self, Class, Drift};
use crate::model::desired::named_l3outs;
use crate::model::dn::{EpgDn, L3outDn, ObjectDn, ParsedDn};
use crate::model::finding::{Code, Finding};
use crate::model::mo::Mo;
use crate::model::observed::{
    CONTRACTS, EPG, FAULT, L3OUT, L3out, PREFIX_IN_USE, SUBNET, TAG, VRF_RELATION, faults_by_epg,
};
use crate::model::plan::Plan;

/// If this many EPGs of one L3Out are to be read, one request for the whole L3Out reads them: an APIC serves a limited number
/// of requests a second (W8).
const READ_TOGETHER: usize = 3;

/// The most L3Outs that one reconcile reads of those that hold nothing to be changed: L3Outs that are named for the first
/// time, and missing ones. A namespace may name thousands (X3).
const MAX_NEW: usize = 20;

impl Reconciler {
    /// Reads what is stale, and some of the L3Outs that wait for their turn.
    pub(super) fn observe(&mut self, run: &mut Run<'_>) -> Result<(), Error> {
        self.fabric.take_due_rereads(run.now);
        let due = self.fabric.subscriptions.due(run.now);
        for (dn, id) in due.renewals {
            debug!(l3out:% = dn; "subscribing once more");
            run.apic.unsubscribe(&id);
            self.fabric.stale_l3outs.insert(dn);
        }
        due.reads.into_iter().for_each(|dn| self.fabric.queue_read(dn));
        self.find_stale(run)?;
        self.read_stale(run)?;
        self.read_new(run)
    }

    /// Notes what has to be read although no event said so: everything if a full sync is due, and what is not known yet.
    fn find_stale(&mut self, run: &mut Run<'_>) -> Result<(), Error> {
        if let Some(cause) = self.fabric.full_sync_due {
            self.begin_full_sync(run)?;
            metrics::full_sync(cause);
        }
        let due: Vec<L3outDn> = self.fabric.deferred.due(run.now).cloned().collect();
        due.into_iter().for_each(|dn| self.fabric.queue_read(dn));
        for dn in self.named(run) {
            let is_known = self.fabric.cache.l3out(&dn).is_some() && self.fabric.subscriptions.is_served(&dn);
            if !is_known && !self.fabric.deferred.is_deferred(&dn, run.now) {
                self.fabric.queue_read(dn);
            }
        }
        Ok(())
    }

    /// R4: everything that is ours or named is read again.
    fn begin_full_sync(&mut self, run: &mut Run<'_>) -> Result<(), Error> {
        self.fabric.with_annotation = self.find_ours(run)?;
        // Faults are an extra that a user may not be allowed to read: whatever goes wrong here, the next read shows it.
        if let Ok(faults) = run.apic.read(&Query::class(FAULT).with_value("code", PREFIX_IN_USE)) {
            self.fabric.faults = faults_by_epg(&faults);
        }
        let known: Vec<L3outDn> =
            self.fabric.with_annotation.iter().chain(self.fabric.cache.l3outs()).cloned().collect();
        known.into_iter().for_each(|dn| self.fabric.queue_read(dn));
        self.fabric.full_sync_due = None;
        self.fabric.all_read = false;
        self.fabric.subscriptions.retry_refused();
        self.guards.deletion.check_next();
        self.guards.tag_failures.values_mut().for_each(|failure| failure.try_again = true);
        Ok(())
    }

    /// Reads some of the L3Outs that wait for their turn. Namespaces take turns, so that none waits for what another one
    /// names.
    fn read_new(&mut self, run: &mut Run<'_>) -> Result<(), Error> {
        if self.fabric.unread.is_empty() {
            self.fabric.all_read = true;
            return Ok(());
        }
        let named = self.named(run);
        self.fabric.unread.retain(|dn| named.contains(dn));
        let next = self.next_in_turn(MAX_NEW);
        let mut rest = &next[..];
        loop {
            rest = self.read_some_l3outs(run, rest)?;
            if rest.is_empty() || run.left_one_out {
                break;
            }
        }
        self.fabric.all_read |= self.fabric.unread.is_empty();
        let with_ours = self.fabric.cache.l3outs_with_owned();
        if next.iter().any(|dn| with_ours.contains(dn)) {
            // What would be deleted there was not counted.
            self.guards.deletion.check_next();
        }
        Ok(())
    }

    /// The next unread L3Outs: the first of each namespace, then the second of each.
    fn next_in_turn(&self, most: usize) -> Vec<L3outDn> {
        let mut rank_of: BTreeMap<&L3outDn, usize> = BTreeMap::new();
        let mut namespace = None;
        let mut named_by_namespace = BTreeSet::new();
        for managed in self.cluster.inventory.managed.values() {
            let Some(l3out) = managed.binding.as_ref().map(|binding| &binding.epg.l3out) else { continue };
            if !self.fabric.unread.contains(l3out) {
                continue;
            }
            let own = &managed.key().namespace;
            if namespace.replace(own) != Some(own) {
                named_by_namespace.clear();
            }
            if named_by_namespace.insert(l3out) {
                let rank = rank_of.entry(l3out).or_insert(usize::MAX);
                *rank = named_by_namespace.len().min(*rank);
            }
        }
        let mut ranked: Vec<(usize, &L3outDn)> = rank_of.into_iter().map(|(dn, rank)| (rank, dn)).collect();
        ranked.sort();
        ranked.into_iter().take(most).map(|(_, dn)| dn.clone()).collect()
    }

    /// Reads everything for which the cache cannot be trusted. What was read is not read again if a later read fails.
    pub(super) fn read_stale(&mut self, run: &mut Run<'_>) -> Result<(), Error> {
        if !self.fabric.stale_l3outs.is_empty() {
            let needed: BTreeSet<L3outDn> = self.named(run).into_iter().chain(self.fabric.with_ours()).collect();
            let (stale, unneeded): (Vec<L3outDn>, Vec<L3outDn>) =
                self.fabric.stale_l3outs.iter().cloned().partition(|dn| needed.contains(dn));
            for dn in unneeded {
                self.forget(run, &dn);
                self.fabric.stale_l3outs.remove(&dn);
            }
            self.read_l3outs(run, &stale)?;
        }
        self.read_stale_epgs(run)
    }

    fn read_stale_epgs(&mut self, run: &mut Run<'_>) -> Result<(), Error> {
        let mut epgs: BTreeMap<&L3outDn, usize> = BTreeMap::new();
        self.fabric.stale_epgs.iter().for_each(|epg| *epgs.entry(&epg.l3out).or_default() += 1);
        let whole: Vec<L3outDn> =
            epgs.into_iter().filter(|(_, count)| *count >= READ_TOGETHER).map(|(dn, _)| dn.clone()).collect();
        // Also if the read fails: what could not be read as a whole is not read one by one.
        self.fabric.stale_l3outs.extend(whole.iter().cloned());
        self.fabric.stale_epgs.retain(|epg| !whole.contains(&epg.l3out));
        self.read_l3outs(run, &whole)?;
        let rest: Vec<EpgDn> = self.fabric.stale_epgs.iter().cloned().collect();
        self.read_epgs(run, &rest)
    }

    /// Reads what a plan needs to be sure of (W7).
    pub(super) fn read_for(&mut self, run: &mut Run<'_>, plan: &Plan) -> Result<(), Error> {
        self.fabric.stale_epgs.extend(plan.reads.iter().cloned());
        self.read_stale_epgs(run)
    }

    /// The L3Outs that workloads name.
    fn named(&self, run: &Run<'_>) -> BTreeSet<L3outDn> {
        named_l3outs(&self.cluster.inventory, &self.rules, &run.beyond_quota)
    }

    /// The L3Outs with any owner annotation of ours or of a legacy installation, or with a tag of ours (R4). An APIC that
    /// refuses such a query stops nothing else: L3Outs that workloads name are read anyway.
    fn find_ours(&mut self, run: &mut Run<'_>) -> Result<BTreeSet<L3outDn>, Error> {
        let owner = self.fabric.cache.owner().clone();
        let tags = owner.tag_prefixes().iter().map(|prefix| Query::class(TAG).with_text("key", prefix));
        let mut queries: Vec<Query> = tags.collect();
        for annotation in owner.all_annotations() {
            let query = |class| Query::class(class).with_value("annotation", annotation).one_of_l3out();
            queries.extend([EPG, SUBNET].map(query));
        }
        let l3out_of = |mo: &Mo| match ParsedDn::parse(&mo.dn)? {
            ParsedDn::Tag(dn, key) => owner.tagged(&key).map(|_| dn),
            other => other.l3out_of_owned(),
        };
        let mut l3outs = BTreeSet::new();
        let mut refused = None;
        let read = |_: &Reconciler, query: &Query| Read { query: query.clone(), subscribe: false };
        let mut rest = &queries[..];
        while !rest.is_empty() {
            let found = self.read_until_failure(run, &mut rest, read, |_, _, _, (_, mos)| {
                l3outs.extend(mos.iter().filter_map(l3out_of));
            });
            for (_, error) in found {
                if !is_refusal(&error) {
                    return Err(error);
                }
                refused = Some(error.to_string());
            }
        }
        self.fabric.ownership_query_error = refused;
        Ok(l3outs)
    }

    /// Reads an L3Out whole.
    pub(super) fn read_l3out(&mut self, run: &mut Run<'_>, dn: &L3outDn) -> Result<(), Error> {
        self.read_l3outs(run, std::slice::from_ref(dn))
    }

    /// Reads L3Outs whole.
    fn read_l3outs(&mut self, run: &mut Run<'_>, dns: &[L3outDn]) -> Result<(), Error> {
        let mut rest = dns;
        while !rest.is_empty() {
            rest = self.read_some_l3outs(run, rest)?;
        }
        Ok(())
    }

    /// Reads L3Outs whole, until a read fails. Returns those that were not asked for.
    fn read_some_l3outs<'d>(&mut self, run: &mut Run<'_>, dns: &'d [L3outDn]) -> Result<&'d [L3outDn], Error> {
        let mut rest = dns;
        let failed = self.read_until_failure(run, &mut rest, Reconciler::read_of, Reconciler::put_l3out);
        let all_were_served = !run.left_one_out;
        let mut result = Ok(rest);
        for (dn, error) in failed {
            let is_first = !run.left_one_out;
            match self.l3out_failed(run, dn, error) {
                // It was asked for before it was known that another one is not served: it keeps its turn.
                Err(error) if all_were_served && !is_first && self.keeps_its_turn(dn, &error) => {}
                done => result = result.and_then(|rest| done.map(|()| rest)),
            }
        }
        result
    }

    /// Sends reads, several in flight together (W9), until one fails or all are answered. What is served is taken as it comes.
    /// Returns what failed, in order; `rest` is then what was not asked for.
    fn read_until_failure<'k, K>(
        &mut self,
        run: &mut Run<'_>,
        rest: &mut &'k [K],
        read: impl Fn(&Reconciler, &K) -> Read,
        served: impl FnMut(&mut Reconciler, &mut Run<'_>, &K, Subscribed),
    ) -> Vec<(&'k K, Error)> {
        let (apic, all) = (run.apic, *rest);
        let mut reads = Reads { reconciler: self, run, all, started: 0, read, served, failed: BTreeMap::new() };
        apic.read_all(&mut reads);
        *rest = all.get(reads.started..).unwrap_or_default();
        reads.failed.into_iter().filter_map(|(number, error)| Some((all.get(number)?, error))).collect()
    }

    fn keeps_its_turn(&self, dn: &L3outDn, error: &Error) -> bool {
        is_not_served(error) && self.fabric.unread.contains(dn)
    }

    /// How an L3Out is read whole. If it is not subscribed yet, the answer to the subscription is what is read (R3).
    ///
    /// The contract relations of an EPG have to be known before another writer deletes it (R7). As classes of the same
    /// subscription they cost no request, and in the cache a short name each. To read them EPG by EPG would cost a request
    /// for each EPG after each change.
    fn read_of(&self, dn: &L3outDn) -> Read {
        let mut classes = vec![L3OUT, EPG, SUBNET, TAG, VRF_RELATION];
        classes.extend(CONTRACTS);
        Read { query: Query::object(dn).subtree(&classes), subscribe: !self.fabric.subscriptions.is_served(dn) }
    }

    /// The read of an L3Out failed. If the APIC refuses to subscribe it, it is read without (A6). If it refuses that, too, the
    /// L3Out is left alone and stops no other: nothing is written to what was not read.
    fn l3out_failed(&mut self, run: &mut Run<'_>, dn: &L3outDn, error: Error) -> Result<(), Error> {
        let Read { query, subscribe } = self.read_of(dn);
        let answer = if subscribe && is_refusal(&error) { run.apic.read(&query) } else { Err(error.clone()) };
        match answer {
            Ok(mos) => {
                self.fabric.subscriptions.refused(dn, &error.to_string(), run.now);
                self.put_l3out(run, dn, (None, mos));
                Ok(())
            }
            Err(error) if self.may_be_left_out(run, dn, &error) => {
                run.left_one_out |= !is_refusal(&error);
                // What the cache has of ours there is still there: in its VRF, and in the way of no other L3Out (S3, W2).
                if !self.fabric.cache.l3outs_with_owned().contains(dn) {
                    self.forget(run, dn);
                }
                if subscribe {
                    self.fabric.cache.unwatched(dn);
                }
                self.fabric.read_done(dn);
                let text = format!("failed to read: {error}; retrying with growing pauses");
                self.fabric.deferred.defer(dn, run.now, Finding::new(Code::Rejected, dn, text));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether an error concerns this L3Out only, so that the reconcile goes on without it. If the APIC does not serve the
    /// read, that may be the session's fault: only the first such L3Out is left out, and the next error ends the reconcile.
    /// If the L3Out may hold something of ours nothing goes on: an address must not be created elsewhere in the VRF before
    /// it is known to be gone there (W2).
    fn may_be_left_out(&self, run: &Run<'_>, dn: &L3outDn, error: &Error) -> bool {
        is_refusal(error) || (is_not_served(error) && !run.left_one_out && !self.fabric.with_ours().contains(dn))
    }

    /// Takes the answer to the read of an L3Out.
    fn put_l3out(&mut self, run: &mut Run<'_>, dn: &L3outDn, (id, mos): Subscribed) {
        // A new subscription says that there was a time without one.
        let is_watched = id.is_none() && self.fabric.subscriptions.is_subscribed(dn);
        match id {
            Some(id) => self.fabric.subscriptions.subscribed(dn, id),
            None if self.fabric.subscriptions.is_served(dn) => {}
            None => self.fabric.subscriptions.read_without_websocket(dn),
        }
        self.fabric.subscriptions.was_read(dn, run.now);
        let was_read = self.fabric.cache.l3out(dn).is_some();
        let was_missing = self.fabric.deleted_l3outs.remove(dn) || self.fabric.cache.l3out(dn) == Some(&L3out::Missing);
        let reverted = self.fabric.cache.put_l3out(dn, &mos, is_watched);
        self.fabric.l3out_was_read(dn, run.now);
        self.reverted(reverted);
        if was_missing && self.fabric.cache.l3out(dn) != Some(&L3out::Missing) {
            info!(l3out:% = dn; "L3Out found");
            self.fabric.schedule_reread(dn, run.now);
            self.fabric.subscriptions.appeared(dn, run.now);
        }
        self.fabric.stale_epgs.retain(|epg| epg.l3out != *dn);
        self.fabric.read_done(dn);
        if self.fabric.deferred.is_known(dn) {
            self.fabric.deferred.release(dn);
            self.guards.deletion.check_next();
            if !was_read && self.fabric.cache.l3outs_with_owned().contains(dn) {
                self.guards.deletion.count_moves();
            }
        }
    }

    /// Another writer deleted or changed owned objects.
    fn reverted(&mut self, objects: Vec<ObjectDn>) {
        for object in &objects {
            let epg = self.fabric.cache.epg(object.epg());
            let (class, is_present) = match object {
                ObjectDn::Epg(_) => (Class::Epg, epg.is_some()),
                ObjectDn::Subnet(_, prefix) => (Class::Subnet, epg.is_some_and(|epg| epg.subnets.contains_key(prefix))),
                ObjectDn::Tag(dn) => (Class::Tag, self.fabric.cache.is_tagged(dn)),
            };
            metrics::drifted(class, if is_present { Drift::Changed } else { Drift::Deleted });
        }
        self.guards.drift.reverted(objects);
    }

    /// Reads one EPG whole, with its contract relations (W7).
    pub(super) fn read_epg(&mut self, run: &mut Run<'_>, dn: &EpgDn) -> Result<(), Error> {
        self.read_epgs(run, std::slice::from_ref(dn))
    }

    fn read_epgs(&mut self, run: &mut Run<'_>, dns: &[EpgDn]) -> Result<(), Error> {
        let mut classes = vec![SUBNET];
        classes.extend(CONTRACTS);
        let read =
            |_: &Reconciler, dn: &EpgDn| Read { query: Query::object(dn).with_children(&classes), subscribe: false };
        self.fabric.stale_epgs.extend(dns.iter().cloned());
        let mut rest = dns;
        let mut result = Ok(());
        while !rest.is_empty() && result.is_ok() {
            let failed = self.read_until_failure(run, &mut rest, read, |reconciler, _, dn, (_, mos)| {
                let is_watched = reconciler.fabric.subscriptions.is_subscribed(&dn.l3out);
                let reverted = reconciler.fabric.cache.put_epg(dn, &mos, is_watched);
                reconciler.fabric.epg_was_read(dn);
                reconciler.reverted(reverted);
                reconciler.fabric.stale_epgs.remove(dn);
            });
            for (dn, error) in failed {
                if is_refusal(&error) {
                    self.guards.defer(ObjectDn::Epg(dn.clone()), &error, run.now);
                    self.fabric.stale_epgs.remove(dn);
                } else {
                    result = result.and(Err(error));
                }
            }
        }
        result
    }

    /// Forgets L3Outs that no workload names and that hold nothing of ours or of a legacy installation (R3).
    pub(super) fn forget_unneeded(&mut self, run: &Run<'_>) {
        let mut needed = self.named(run);
        needed.extend(self.fabric.cache.l3outs_with_owned());
        self.fabric.with_annotation.retain(|dn| needed.contains(dn));
        let unneeded: Vec<L3outDn> = self.fabric.cache.l3outs().filter(|dn| !needed.contains(dn)).cloned().collect();
        unneeded.iter().for_each(|dn| self.forget(run, dn));
        self.fabric.deferred.keep(|dn| needed.contains(dn));
    }

    fn forget(&mut self, run: &Run<'_>, dn: &L3outDn) {
        if let Some(id) = self.fabric.forget(dn) {
            run.apic.unsubscribe(&id);
        }
    }
}

/// Reads in flight.
struct Reads<'r, 'a, 'k, K, R, S> {
    reconciler: &'r mut Reconciler,
    run: &'r mut Run<'a>,
    all: &'k [K],
    started: usize,
    read: R,
    served: S,
    failed: BTreeMap<usize, Error>,
}

impl<K, R, S> Requests<Read, Subscribed> for Reads<'_, '_, '_, K, R, S>
where
    R: Fn(&Reconciler, &K) -> Read,
    S: FnMut(&mut Reconciler, &mut Run<'_>, &K, Subscribed),
{
    fn next(&mut self) -> Option<(usize, Read)> {
        let number = self.started;
        let key = self.all.get(number).filter(|_| self.failed.is_empty())?;
        self.started += 1;
        Some((number, (self.read)(self.reconciler, key)))
    }

    fn answered(&mut self, number: usize, answer: Result<Subscribed, Error>) {
        match (self.all.get(number), answer) {
            (Some(key), Ok(answer)) => (self.served)(self.reconciler, self.run, key, answer),
            (_, Err(error)) => drop(self.failed.insert(number, error)),
            (None, Ok(_)) => {}
        }
    }
}

/// The APIC has understood the request and does not do it.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Forbidden(_) | Error::Rejected { .. })
}

/// The APIC did not serve the request, or not in a form that can be read.
fn is_not_served(error: &Error) -> bool {
    matches!(error, Error::Busy(_) | Error::Unreachable(_) | Error::Malformed(_))
}
