//! How a plan is sent, and what follows if the APIC does not accept it.

use std::collections::{BTreeMap, BTreeSet};

use log::{error, info, warn};

use super::outgoing::Outgoing;
use super::run::Run;
use super::{MAX_REJECTIONS, Reconciler};
use crate::apic::traits::{Requests, WriteAnswer};
use crate::apic::writer::request::WriteRequest;
use crate::apic::writer::{Accepted, Confirmation, Refusal};
use crate::apic::{Error, SubscriptionId};
use crate::metrics::{self, Action, Class};
use crate::model::dn::{EpgDn, ObjectDn, ParsedDn};
use crate::model::finding::{Code, Few, Finding};
use crate::model::mo::{MoChange, Status};
use crate::model::plan::{Change, RequestShape, Tally, Transaction};
use crate::model::plan_input::TagFailure;
use crate::model::staleness::{Staleness, subject};

/// The most events about an EPG with a request in flight that wait for its answer.
const MAX_HELD: usize = 4096;

/// What becomes of the rest of a plan after one transaction.
#[derive(PartialEq)]
enum Next {
    /// It goes on.
    Continue,
    /// What is planned for the same EPG is dropped, the rest goes on.
    DropEpg,
    /// What is planned for the same L3Out is dropped: it was read again.
    DropL3out,
    /// The transaction is sent in these parts instead (W3).
    Split([Transaction; 2]),
    /// Nothing more is sent.
    Stop,
}

impl Reconciler {
    /// Sends a plan. A transaction about something that another writer has just changed is not sent, but planned again on
    /// what is known then. A transaction that is not done stops those that follow it in its EPG.
    ///
    /// While requests are sent the time moves on, for pauses and deadlines that begin with them. The plans of one reconcile
    /// are all made for its beginning: what becomes due meanwhile, a deferred object or a view, was not counted by the
    /// deletion guard (W4) nor seen whole (W1).
    pub(super) fn apply(&mut self, run: &mut Run<'_>, transactions: Vec<Transaction>) -> Result<(), Error> {
        let planned_at = run.now;
        let result = self.send_all(run, transactions);
        run.now = planned_at;
        result
    }

    fn send_all(&mut self, run: &mut Run<'_>, transactions: Vec<Transaction>) -> Result<(), Error> {
        let quota = &self.guards.quota;
        let mut outgoing = Outgoing::new(transactions, |epg| quota.named_by(epg).map(|namespace| &**namespace));
        let mut changed_meanwhile = Vec::new();
        loop {
            let apic = run.apic;
            let mut window = Window {
                reconciler: self,
                run,
                outgoing: &mut outgoing,
                changed_meanwhile: &mut changed_meanwhile,
                started: 0,
                in_flight: BTreeMap::new(),
                refused: BTreeMap::new(),
            };
            apic.write_all(&mut window);
            let refused = window.refused;
            if refused.is_empty() || self.refused(run, refused, &mut outgoing)? == Next::Stop {
                return Ok(());
            }
        }
    }

    /// Handles what the APIC did not accept. Nothing is in flight: it may read.
    fn refused(&mut self, run: &mut Run<'_>, refused: Refused, outgoing: &mut Outgoing) -> Result<Next, Error> {
        let mut result = Ok(Next::Continue);
        let mut read_again = BTreeSet::new();
        for (transaction, refusal) in refused.into_values() {
            let epg = transaction.epg.clone();
            if result.is_err() && refusal.needs_a_read() {
                // The session may have ended: what became of this one is read in the next reconcile.
                if creates_epg(&transaction) {
                    self.fabric.created(&epg, run.now);
                }
                self.fabric.stale_l3outs.insert(epg.l3out);
                continue;
            }
            match self.refusal(run, transaction, refusal) {
                Ok(Next::Continue) => {}
                Ok(Next::DropEpg) => outgoing.drop(|it| *it == epg),
                Ok(Next::DropL3out) => {
                    outgoing.drop(|it| it.l3out == epg.l3out);
                    read_again.insert(epg.l3out.clone());
                }
                // What was in flight with the cause of that was planned on the same view.
                Ok(Next::Split(_)) if read_again.contains(&epg.l3out) => {}
                Ok(Next::Split(parts)) => outgoing.split(parts),
                Ok(Next::Stop) => result = result.and(Ok(Next::Stop)),
                // What the others came to is noted, too.
                Err(error) => result = result.and(Err(error)),
            }
            outgoing.done(&epg);
        }
        result
    }

    fn refusal(&mut self, run: &mut Run<'_>, transaction: Transaction, refusal: Refusal) -> Result<Next, Error> {
        match refusal {
            Refusal::Apic(error) if transaction.shape == RequestShape::Tag => {
                self.tag_rejected(run, &transaction, error)
            }
            Refusal::Apic(error @ Error::Rejected { code: 102, .. }) => {
                // A parent is missing: the L3Out is gone, and what was planned there is out of date.
                let dn = &transaction.epg;
                info!(epg:% = dn, error:%; "write rejected, a parent is missing; reading the L3Out again");
                self.guards.defer(ObjectDn::Epg(dn.clone()), &error, run.now);
                self.fabric.stale_l3outs.insert(dn.l3out.clone());
                self.read_l3out(run, &dn.l3out)?;
                Ok(Next::DropL3out)
            }
            Refusal::Apic(error @ (Error::Rejected { .. } | Error::Forbidden(_)))
                if transaction.restores_relations() =>
            {
                // The EPG is right without them, and the finding lists them.
                let dn = &transaction.epg;
                warn!(epg:% = dn, error:%; "failed to restore the contract relations of the EPG; giving up");
                self.fabric.cache.relations_refused(dn);
                Ok(Next::Continue)
            }
            Refusal::Apic(error @ Error::AnswerLost(_)) if transaction.restores_relations() => {
                // They are there now or never: to try again and again would hold up all else in this EPG (W7).
                self.fabric.cache.relations_refused(&transaction.epg);
                self.write_failed(run, &transaction, error).map(|()| Next::DropEpg)
            }
            Refusal::Apic(error) if self.is_about_content(&transaction.epg, &error) => {
                Ok(self.content_rejected(run, &transaction, &error))
            }
            Refusal::Apic(error) => self.write_failed(run, &transaction, error).map(|()| Next::DropEpg),
            Refusal::WrongPlan(why) => {
                error!(epg:% = transaction.epg, reason = why; "bug: plan failed the ownership check; request not sent");
                let text = format!("bug: plan failed the ownership check; nothing written: {why}");
                let finding = Finding::new(Code::Rejected, &transaction.epg, text);
                self.guards.deferrals.defer(&ObjectDn::Epg(transaction.epg), run.now, finding);
                Ok(Next::DropEpg)
            }
            Refusal::TooLate => Ok(Next::Stop),
            Refusal::Policy => Ok(Next::DropEpg),
        }
    }

    /// The APIC accepted a transaction. What its answer does not confirm is read before the next plan (A6); the rest of this
    /// plan is as right as before.
    fn accepted(&mut self, run: &mut Run<'_>, transaction: Transaction, accepted: Accepted) -> Next {
        let Accepted { confirmation, swept } = accepted;
        let dn = transaction.epg.clone();
        if !swept.is_empty() {
            let objects = Few::of(&swept);
            warn!(epg:% = dn, objects:%; "EPG deleted with objects that another writer had created in it a moment before");
            run.report.swept.extend(swept.iter().map(|object| format!("{dn}: {object}")));
        }
        self.reporter.log_done(&transaction, &self.guards.quota, run.now);
        count_done(&transaction);
        self.fabric.cache.apply(&transaction);
        if confirmation == Confirmation::Recreated {
            info!(epg:% = dn; "another writer had just deleted what was written to; reading the EPG again");
            self.fabric.cache.recreated(&dn, transaction.restores_relations());
        }
        if confirmation != Confirmation::Complete {
            self.fabric.stale_epgs.insert(dn.clone());
        }
        if creates_epg(&transaction) || confirmation == Confirmation::Recreated {
            self.fabric.created(&dn, run.now);
        }
        if transaction.shape != RequestShape::Tag {
            self.fabric.subscriptions.written(&dn.l3out, run.now);
        }
        if !transaction.changes.iter().all(Change::is_delete) {
            self.reporter.notices.written(&dn);
        }
        self.guards.deferrals.release(&ObjectDn::Epg(dn.clone()));
        for object in transaction.objects() {
            self.guards.deferrals.release(&object);
            self.guards.drift.written(&object, run.now);
        }
        run.report.written = run.report.written.and(Tally::of([&transaction]));
        if run.context.keeps_done() {
            run.report.done.push(transaction);
        }
        if confirmation == Confirmation::Recreated { Next::DropEpg } else { Next::Continue }
    }

    /// The content of a transaction was rejected: it is sent in parts, and an object that is rejected alone is left alone for
    /// a while (W3).
    fn content_rejected(&mut self, run: &mut Run<'_>, transaction: &Transaction, error: &Error) -> Next {
        run.rejections += 1;
        if run.rejections > MAX_REJECTIONS {
            return Next::Stop;
        }
        if let Some(parts) = transaction.parts() {
            return Next::Split(parts);
        }
        let rejected: Vec<ObjectDn> = transaction.objects().collect();
        for object in &rejected {
            self.guards.defer(object.clone(), error, run.now);
        }
        let is_epg = rejected.contains(&ObjectDn::Epg(transaction.epg.clone()));
        if is_epg { Next::DropEpg } else { Next::Continue }
    }

    /// Whether a change by another writer makes a transaction one that would not be planned any more. A writer that changes
    /// other objects in the same EPG holds nothing up: two clusters may share an EPG (O5).
    fn is_overtaken(&self, transaction: &Transaction, by: &Staleness) -> bool {
        let dn = &transaction.epg;
        match by {
            Staleness::Fresh => false,
            Staleness::L3out(l3out) => *l3out == dn.l3out,
            Staleness::Object(object) if object.epg() == dn => transaction.changes.iter().any(|change| match object {
                ObjectDn::Subnet(_, prefix) => change.deletes_epg() || change.prefix() == Some(*prefix),
                _ => true,
            }),
            // Another writer may have put the address elsewhere in the VRF (S3).
            Staleness::Object(ObjectDn::Subnet(elsewhere, prefix)) => {
                let is_same_vrf = self.fabric.cache.vrf(&elsewhere.l3out) == self.fabric.cache.vrf(&dn.l3out);
                let creates = |change: &Change| change.is_create() && change.prefix() == Some(*prefix);
                is_same_vrf && transaction.changes.iter().any(creates)
            }
            Staleness::Object(_) => false,
        }
    }

    /// Whether an error is about what was sent (W3). If something is present that was taken for absent, that is so only if
    /// the error comes again after a fresh read.
    fn is_about_content(&mut self, dn: &EpgDn, error: &Error) -> bool {
        match error {
            Error::Rejected { code: 103, .. } => self.guards.deferrals.again(&ObjectDn::Epg(dn.clone())),
            Error::Rejected { .. } => true,
            _ => false,
        }
    }

    /// A write failed, but not for its content (W2, W7, W8). An error that concerns the session ends the reconcile.
    fn write_failed(&mut self, run: &mut Run<'_>, transaction: &Transaction, error: Error) -> Result<(), Error> {
        let dn = &transaction.epg;
        match &error {
            // No answer again and again: this EPG may be the cause, and it must not be tried without pauses.
            Error::AnswerLost(_) if self.guards.deferrals.again(&ObjectDn::Epg(dn.clone())) => {
                self.guards.defer(ObjectDn::Epg(dn.clone()), &error, run.now);
                self.look(run, transaction)
            }
            // Something is present that was taken for absent, or it is not known what became of the write: look.
            Error::Rejected { .. } | Error::AnswerLost(_) => {
                info!(epg:% = dn, error:%; "write not confirmed; reading the EPG again");
                self.look(run, transaction)
            }
            Error::Forbidden(_) => {
                self.fabric.stale_epgs.insert(dn.clone());
                self.guards.defer(ObjectDn::Epg(dn.clone()), &error, run.now);
                Ok(())
            }
            Error::Busy(_) | Error::Unreachable(_) | Error::Unauthorized(_) | Error::Malformed(_) | Error::NotSent => {
                self.fabric.stale_epgs.insert(dn.clone());
                Err(error)
            }
        }
    }

    /// Reads what became of a transaction. If it was to create its EPG and that is there, or may be, the EPG is new (R3).
    fn look(&mut self, run: &mut Run<'_>, transaction: &Transaction) -> Result<(), Error> {
        let dn = &transaction.epg;
        let result = self.read_epg(run, dn);
        if creates_epg(transaction) && (result.is_err() || self.fabric.cache.epg(dn).is_some()) {
            self.fabric.created(dn, run.now);
        }
        result
    }

    /// A tag that the APIC does not accept stops nothing (O4): what it should have recorded, this process remembers.
    fn tag_rejected(&mut self, run: &mut Run<'_>, transaction: &Transaction, error: Error) -> Result<Next, Error> {
        let dn = &transaction.epg;
        let tag = ObjectDn::Tag(dn.clone());
        match &error {
            // The tag is present, the L3Out is missing, or it is not known what became of the write: look, once.
            Error::Rejected { code: 102 | 103, .. } | Error::AnswerLost(_) if !self.guards.deferrals.again(&tag) => {
                self.fabric.stale_l3outs.insert(dn.l3out.clone());
                self.read_l3out(run, &dn.l3out)?;
                Ok(Next::DropL3out)
            }
            Error::Rejected { .. } | Error::Forbidden(_) | Error::AnswerLost(_) => {
                if transaction.deletes() {
                    self.guards.defer(tag, &error, run.now);
                } else {
                    let failure = TagFailure { why: error.to_string(), try_again: false };
                    self.guards.tag_failures.insert(dn.clone(), failure);
                }
                Ok(Next::Continue)
            }
            _ => Err(error),
        }
    }
}

/// What was not accepted, by the number of its request.
type Refused = BTreeMap<usize, (Transaction, Refusal)>;

/// Transactions in flight (W9). What is accepted is noted at once, and the next transaction follows; once one is not accepted,
/// nothing more is sent until it has been handled.
struct Window<'w, 'a> {
    reconciler: &'w mut Reconciler,
    run: &'w mut Run<'a>,
    outgoing: &'w mut Outgoing,
    /// What other writers have changed since the plan was made.
    changed_meanwhile: &'w mut Vec<Staleness>,
    started: usize,
    in_flight: BTreeMap<usize, InFlight>,
    refused: Refused,
}

struct InFlight {
    transaction: Transaction,
    /// Events about its EPG, or that its L3Out is gone. The echo of a write may come before the answer: it is compared with the
    /// cache when that holds what was written.
    events: Vec<(Staleness, Vec<SubscriptionId>, MoChange)>,
}

impl Window<'_, '_> {
    /// Takes an event. Beyond a limit those about an EPG with a request in flight wait for nothing; at worst that costs a read.
    fn take_event(&mut self, subscriptions: &[SubscriptionId], change: &MoChange) {
        let fabric = &mut self.reconciler.fabric;
        let about = match ParsedDn::parse(&change.mo.dn) {
            Some(ParsedDn::L3out(dn)) if change.status == Status::Deleted => Staleness::L3out(dn),
            _ => subject(&fabric.cache, change).map_or(Staleness::Fresh, Staleness::Object),
        };
        let concerns = |dn: &EpgDn| match &about {
            Staleness::Fresh => false,
            Staleness::L3out(l3out) => dn.l3out == *l3out,
            Staleness::Object(object) => dn == object.epg(),
        };
        if let Some(it) = self.in_flight.values_mut().find(|it| concerns(&it.transaction.epg))
            && it.events.len() < MAX_HELD
        {
            it.events.push((about, subscriptions.to_vec(), change.clone()));
        } else {
            self.changed_meanwhile.extend(fabric.receive(subscriptions, std::slice::from_ref(change)).stale);
        }
    }

    /// Whether a transaction would not be planned any more.
    fn is_out_of_date(&self, transaction: &Transaction) -> bool {
        let held = self.in_flight.values().flat_map(|it| &it.events).map(|(staleness, ..)| staleness);
        (transaction.deletes() && !self.run.context.may_delete())
            || self.changed_meanwhile.iter().chain(held).any(|by| self.reconciler.is_overtaken(transaction, by))
    }
}

impl Requests<WriteRequest, WriteAnswer> for Window<'_, '_> {
    fn next(&mut self) -> Option<(usize, WriteRequest)> {
        while self.refused.is_empty()
            && let Some(transaction) = self.outgoing.next()
        {
            let context = self.run.context;
            context.drain_events(&mut |subscriptions, changes| {
                changes.iter().for_each(|change| self.take_event(subscriptions, change));
            });
            self.run.now = context.now().unwrap_or(self.run.now);
            if self.is_out_of_date(&transaction) {
                self.outgoing.drop(|epg| *epg == transaction.epg);
                continue;
            }
            self.started += 1;
            match self.reconciler.writer.request(&self.reconciler.fabric.cache, &transaction) {
                Ok(request) => {
                    self.in_flight.insert(self.started, InFlight { transaction, events: Vec::new() });
                    return Some((self.started, request));
                }
                Err(refusal) => self.refused.insert(self.started, (transaction, refusal)),
            };
        }
        None
    }

    fn should_send(&self, number: usize) -> bool {
        let context = self.run.context;
        context.should_continue()
            && (context.may_delete() || !self.in_flight.get(&number).is_some_and(|it| it.transaction.deletes()))
    }

    fn answered(&mut self, number: usize, answer: Result<WriteAnswer, Error>) {
        let Some(InFlight { transaction, events }) = self.in_flight.remove(&number) else { return };
        let reconciler = &mut *self.reconciler;
        match reconciler.writer.answered(&reconciler.fabric.cache, &transaction, answer) {
            Ok(accepted) => {
                let epg = transaction.epg.clone();
                if reconciler.accepted(self.run, transaction, accepted) == Next::DropEpg {
                    self.outgoing.drop(|it| *it == epg);
                }
                self.outgoing.done(&epg);
            }
            Err(refusal) => {
                self.refused.insert(number, (transaction, refusal));
            }
        }
        events.iter().for_each(|(_, subscriptions, change)| self.take_event(subscriptions, change));
    }
}

fn creates_epg(transaction: &Transaction) -> bool {
    transaction.changes.iter().any(|change| matches!(change, Change::CreateEpg { .. }))
}

/// Counts what was written, for the metrics.
fn count_done(transaction: &Transaction) {
    for change in &transaction.changes {
        match change {
            Change::CreateEpg { .. } => metrics::changed(Class::Epg, Action::Create, 1),
            Change::SetEpgOwner { .. } | Change::RestoreRelation { .. } => {
                metrics::changed(Class::Epg, Action::Repair, 1)
            }
            Change::DeleteEpg { subnets, .. } => {
                metrics::changed(Class::Epg, Action::Delete, 1);
                metrics::changed(Class::Subnet, Action::Delete, *subnets);
            }
            Change::CreateSubnet { .. } => metrics::changed(Class::Subnet, Action::Create, 1),
            Change::RepairSubnet { .. } => metrics::changed(Class::Subnet, Action::Repair, 1),
            Change::DeleteSubnet { .. } => metrics::changed(Class::Subnet, Action::Delete, 1),
            Change::CreateTag => metrics::changed(Class::Tag, Action::Create, 1),
            Change::DeleteTag { .. } => metrics::changed(Class::Tag, Action::Delete, 1),
        }
    }
}
