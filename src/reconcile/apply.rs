//! How a plan is sent, and what follows if the APIC does not accept it.

use std::collections::BTreeSet;

use log::{error, info, warn};

use super::outgoing::Outgoing;
use super::run::Run;
use super::{MAX_REJECTIONS, Reconciler};
use crate::apic::Error;
use crate::apic::writer::request::WriteRequest;
use crate::apic::writer::{Accepted, Confirmation, Refusal};
use crate::metrics::{self, Action, Class};
use crate::model::dn::{EpgDn, ObjectDn};
use crate::model::finding::{Code, Few, Finding};
use crate::model::plan::{Change, RequestShape, Transaction};
use crate::model::plan_input::TagFailure;
use crate::model::staleness::Staleness;

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
        let mut changed_meanwhile: Vec<Staleness> = Vec::new();
        loop {
            let context = run.context;
            context.drain_events(&mut |subscriptions, changes| {
                changed_meanwhile.extend(self.fabric.receive(subscriptions, changes).stale);
            });
            run.now = context.now().unwrap_or(run.now);
            let mut together = outgoing.next(run.apic.at_once());
            if together.is_empty() {
                return Ok(());
            }
            together.retain(|transaction| {
                let deletes = transaction.changes.iter().any(Change::is_delete);
                let is_overtaken = || changed_meanwhile.iter().any(|by| self.is_overtaken(transaction, by));
                let is_dropped = (deletes && !context.may_delete()) || is_overtaken();
                if is_dropped {
                    outgoing.drop(|epg| *epg == transaction.epg);
                }
                !is_dropped
            });
            if self.send(run, together, &mut outgoing)? == Next::Stop {
                return Ok(());
            }
        }
    }

    /// Sends transactions together. What the APIC accepted is noted before anything is read again for what it did not.
    fn send(&mut self, run: &mut Run<'_>, together: Vec<Transaction>, outgoing: &mut Outgoing) -> Result<Next, Error> {
        let context = run.context;
        let may_send =
            |request: &WriteRequest| context.should_continue() && (!request.deletes() || context.may_delete());
        let answers = self.writer.send_together(run.apic, &self.fabric.cache, &together, &may_send);
        let (accepted, refused): (Vec<_>, Vec<_>) = together.into_iter().zip(answers).partition(|(_, it)| it.is_ok());
        let mut result = Ok(Next::Continue);
        let mut read_again = BTreeSet::new();
        for (transaction, answer) in accepted.into_iter().chain(refused) {
            let epg = transaction.epg.clone();
            if result.is_err() && answer.as_ref().is_err_and(Refusal::needs_a_read) {
                // The session may have ended: what became of this one is read in the next reconcile.
                self.fabric.stale_l3outs.insert(epg.l3out);
                continue;
            }
            match self.answered(run, transaction, answer) {
                Ok(Next::Continue) => {}
                Ok(Next::DropEpg) => outgoing.drop(|it| *it == epg),
                Ok(Next::DropL3out) => {
                    outgoing.drop(|it| it.l3out == epg.l3out);
                    read_again.insert(epg.l3out.clone());
                }
                // What was sent together with the cause of that was planned on the same view.
                Ok(Next::Split(_)) if read_again.contains(&epg.l3out) => {}
                Ok(Next::Split(parts)) => outgoing.split(parts),
                Ok(Next::Stop) => result = result.and(Ok(Next::Stop)),
                // The others are answered, too, and what they came to is noted.
                Err(error) => result = result.and(Err(error)),
            }
            outgoing.done(&epg);
        }
        result
    }

    fn answered(
        &mut self,
        run: &mut Run<'_>,
        transaction: Transaction,
        answer: Result<Accepted, Refusal>,
    ) -> Result<Next, Error> {
        match answer {
            Ok(accepted) => Ok(self.accepted(run, transaction, accepted)),
            Err(Refusal::Apic(error)) if transaction.shape == RequestShape::Tag => {
                self.tag_rejected(run, &transaction, error)
            }
            Err(Refusal::Apic(error @ Error::Rejected { code: 102, .. })) => {
                // A parent is missing: the L3Out is gone, and what was planned there is out of date.
                let dn = &transaction.epg;
                info!(epg:% = dn, error:%; "write rejected, a parent is missing; reading the L3Out again");
                self.guards.defer(ObjectDn::Epg(dn.clone()), &error, run.now);
                self.fabric.stale_l3outs.insert(dn.l3out.clone());
                self.read_l3out(run, &dn.l3out)?;
                Ok(Next::DropL3out)
            }
            Err(Refusal::Apic(error)) if self.is_about_content(&transaction.epg, &error) => {
                Ok(self.content_rejected(run, &transaction, &error))
            }
            Err(Refusal::Apic(error)) => self.write_failed(run, &transaction, error).map(|()| Next::DropEpg),
            Err(Refusal::WrongPlan(why)) => {
                error!(epg:% = transaction.epg, reason = why; "bug: plan failed the ownership check; request not sent");
                let text = format!("bug: plan failed the ownership check; nothing written: {why}");
                let finding = Finding::new(Code::Rejected, &transaction.epg, text);
                self.guards.deferrals.defer(&ObjectDn::Epg(transaction.epg), run.now, finding);
                Ok(Next::DropEpg)
            }
            Err(Refusal::TooLate) => Ok(Next::Stop),
            Err(Refusal::Policy) => Ok(Next::DropEpg),
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
            self.fabric.cache.recreated(&dn);
        }
        if confirmation != Confirmation::Complete {
            self.fabric.stale_epgs.insert(dn.clone());
        }
        let creates_epg = transaction.changes.iter().any(|change| matches!(change, Change::CreateEpg { .. }));
        if creates_epg || confirmation == Confirmation::Recreated {
            self.fabric.schedule_reread(&dn.l3out, run.now);
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
        run.report.done.push(transaction);
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
                self.read_epg(run, dn)
            }
            // Something is present that was taken for absent, or it is not known what became of the write: look.
            Error::Rejected { .. } | Error::AnswerLost(_) => {
                info!(epg:% = dn, error:%; "write not confirmed; reading the EPG again");
                self.read_epg(run, dn)
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
                if transaction.changes.iter().any(Change::is_delete) {
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

/// Counts what was written, for the metrics.
fn count_done(transaction: &Transaction) {
    for change in &transaction.changes {
        match change {
            Change::CreateEpg { .. } => metrics::changed(Class::Epg, Action::Create, 1),
            Change::SetEpgOwner { .. } => metrics::changed(Class::Epg, Action::Repair, 1),
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
