//! How a plan is sent, and what follows where the APIC does not take it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use log::{debug, error, info, warn};

use super::{MAX_REFUSALS, ReconcileContext, Reconciler, Report};
use crate::apic::Error;
use crate::apic::traits::{ApicRead, ApicSession};
use crate::apic::writer::{Accepted, Confirmation, Refusal};
use crate::model::dn::{EpgDn, ObjectDn};
use crate::model::finding::{Code, Few, Finding};
use crate::model::plan::{Change, RequestShape, Tally, Transaction};
use crate::model::plan_input::TagFailure;
use crate::model::staleness::Staleness;

impl Reconciler {
    /// Sends what the plan says. One that is about what somebody else has just changed is not sent, but planned anew on
    /// what is known then. A transaction that is not done stops those that follow it in its EPG.
    pub(super) fn send(
        &mut self,
        apic: &dyn ApicSession,
        transactions: Vec<Transaction>,
        now: Instant,
        context: &dyn ReconcileContext,
        report: &mut Report,
    ) -> Result<(), Error> {
        let (mut failed, mut heard) = (BTreeSet::new(), Vec::new());
        let mut queue = self.in_turns(transactions);
        while let Some(transaction) = queue.pop_front() {
            let dn = transaction.epg.clone();
            context.drain_events(&mut |subscriptions, changes| heard.extend(self.receive(subscriptions, changes).0));
            let now = context.now().unwrap_or(now);
            let deletes = transaction.changes.iter().any(Change::is_delete);
            if failed.contains(&dn) {
                continue;
            }
            if deletes && !context.may_delete() {
                failed.insert(dn);
                continue;
            }
            if heard.iter().any(|it| self.is_overtaken(&transaction, it)) {
                failed.insert(dn);
                continue;
            }
            match self.writer.send(apic, &self.fabric, &transaction, &|| {
                context.should_continue() && (!deletes || context.may_delete())
            }) {
                Ok(Accepted { confirmation, swept }) => {
                    if !swept.is_empty() {
                        warn!(
                            "{dn}: deleted with objects that another writer had created in it a moment before: {}",
                            Few::of(&swept)
                        );
                        report.swept.extend(swept.iter().map(|it| format!("{dn}: {it}")));
                    }
                    self.done(&transaction, confirmation, now);
                    report.done.push(transaction);
                    // What is not shown is read before the next plan; the rest of this one is as right as before.
                    if confirmation != Confirmation::Recreated {
                        continue;
                    }
                }
                Err(Refusal::Apic(error)) if transaction.shape == RequestShape::Tag => {
                    if self.tag_not_done(apic, &transaction, error, now)? {
                        queue.retain(|it| it.epg.l3out != dn.l3out);
                    }
                    continue;
                }
                Err(Refusal::Apic(error @ Error::Rejected { code: 102, .. })) => {
                    // A parent is missing: the L3Out has gone. What was planned there is out of date.
                    info!("{dn}: {error}; its L3Out is read again");
                    self.defer(ObjectDn::Epg(dn.clone()), &error, now);
                    self.stale_l3outs.insert(dn.l3out.clone());
                    self.read_l3out(apic, &dn.l3out, now)?;
                    queue.retain(|it| it.epg.l3out != dn.l3out);
                    continue;
                }
                Err(Refusal::Apic(error)) if self.is_about_content(&dn, &error) => {
                    self.refusals += 1;
                    if self.refusals > MAX_REFUSALS {
                        return Ok(());
                    }
                    if let Some(parts) = transaction.parts() {
                        parts.into_iter().rev().for_each(|it| queue.push_front(it));
                        continue;
                    }
                    let refused: Vec<ObjectDn> = transaction.objects().collect();
                    refused.iter().for_each(|it| self.defer(it.clone(), &error, now));
                    if !refused.contains(&ObjectDn::Epg(dn.clone())) {
                        continue;
                    }
                }
                Err(Refusal::Apic(error)) => self.not_done(apic, &transaction, error, now)?,
                Err(Refusal::NotOurs(why)) => {
                    error!("not sent, because the plan is wrong; please report this: {why}");
                    let finding = Finding::new(
                        Code::Rejected,
                        &dn,
                        format!("bug: plan failed the ownership check; nothing written: {why}"),
                    );
                    self.deferrals.defer(&ObjectDn::Epg(dn.clone()), now, finding);
                }
                Err(Refusal::Late) => return Ok(()),
                Err(Refusal::Policy) => {}
            }
            failed.insert(dn);
        }
        Ok(())
    }

    /// The namespaces take turns, so that none waits for what another one has made necessary (X3). What is in one EPG stays
    /// in its order.
    fn in_turns(&self, transactions: Vec<Transaction>) -> VecDeque<Transaction> {
        let mut counts: HashMap<Option<&str>, usize> = HashMap::new();
        let mut turns = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            let turn = counts.entry(self.quota.named_by(&transaction.epg).map(|it| &**it)).or_default();
            *turn += 1;
            turns.push((*turn, transaction));
        }
        turns.sort_by_key(|it| it.0);
        turns.into_iter().map(|it| it.1).collect()
    }

    /// Whether what somebody has just done makes a transaction one that would not be planned any more. Who changes other
    /// objects in the same EPG holds nothing up: two clusters may share one (O5).
    fn is_overtaken(&self, transaction: &Transaction, by: &Staleness) -> bool {
        let dn = &transaction.epg;
        match by {
            Staleness::Fresh => false,
            Staleness::L3out(l3out) => *l3out == dn.l3out,
            Staleness::Object(object) if object.epg() == dn => transaction.changes.iter().any(|change| match object {
                ObjectDn::Subnet(_, prefix) => change.deletes_epg() || change.prefix() == Some(*prefix),
                _ => true,
            }),
            // An address that somebody has put elsewhere in the VRF, perhaps (S3).
            Staleness::Object(ObjectDn::Subnet(elsewhere, prefix)) => {
                let creates = |it: &Change| it.is_create() && it.prefix() == Some(*prefix);
                transaction.changes.iter().any(creates)
                    && self.fabric.vrf(&elsewhere.l3out) == self.fabric.vrf(&dn.l3out)
            }
            Staleness::Object(_) => false,
        }
    }

    /// W3: whether an error is about what was sent. That something is there which was taken for absent is so only if it
    /// comes again after the fresh read.
    fn is_about_content(&mut self, dn: &EpgDn, error: &Error) -> bool {
        match error {
            Error::Rejected { code: 103, .. } => self.deferrals.again(&ObjectDn::Epg(dn.clone())),
            Error::Rejected { .. } => true,
            _ => false,
        }
    }

    /// A transaction was taken. What its answer does not show is read (A6).
    fn done(&mut self, transaction: &Transaction, confirmation: Confirmation, now: Instant) {
        log_done(transaction);
        self.fabric.apply(transaction);
        if confirmation == Confirmation::Recreated {
            info!("{}: another writer had just deleted what was written to; it is read again", transaction.epg);
            self.fabric.recreated(&transaction.epg);
        }
        if confirmation != Confirmation::Complete {
            self.stale_epgs.insert(transaction.epg.clone());
        }
        let creates_epg = transaction.changes.iter().any(|it| matches!(it, Change::CreateEpg { .. }));
        if creates_epg || confirmation == Confirmation::Recreated {
            self.schedule_reread(&transaction.epg.l3out, now);
        }
        if transaction.shape != RequestShape::Tag {
            self.subscriptions.written(&transaction.epg.l3out, now);
        }
        if !transaction.changes.iter().all(Change::is_delete) {
            self.notices.written(&transaction.epg);
        }
        self.deferrals.release(&ObjectDn::Epg(transaction.epg.clone()));
        for object in transaction.objects() {
            self.deferrals.release(&object);
            self.drift.written(&object, now);
        }
    }

    /// What follows from an error on a write (W2, W7, W8), apart from a content that is refused (W3). An error that
    /// concerns the session ends the reconcile.
    fn not_done(
        &mut self,
        apic: &dyn ApicRead,
        transaction: &Transaction,
        error: Error,
        now: Instant,
    ) -> Result<(), Error> {
        let dn = &transaction.epg;
        match &error {
            // No answer, again and again: one EPG may be the cause, and it must not be tried without pauses.
            Error::AnswerLost(_) if self.deferrals.again(&ObjectDn::Epg(dn.clone())) => {
                self.defer(ObjectDn::Epg(dn.clone()), &error, now);
                self.read_epg(apic, dn, now)
            }
            // Something is there that we took for absent, or nobody knows what became of the write: look.
            Error::Rejected { .. } | Error::AnswerLost(_) => {
                info!("{dn}: {error}; it is read again");
                self.read_epg(apic, dn, now)
            }
            Error::Forbidden(_) => {
                self.stale_epgs.insert(dn.clone());
                self.defer(ObjectDn::Epg(dn.clone()), &error, now);
                Ok(())
            }
            Error::Busy(_)
            | Error::Unreachable(_)
            | Error::Unauthorized(_)
            | Error::Malformed(_)
            | Error::Withdrawn => {
                self.stale_epgs.insert(dn.clone());
                Err(error)
            }
        }
    }

    /// O4: a tag that the fabric does not take stops nothing. What it should have remembered, this process remembers.
    /// True where the L3Out was read again, so that what was planned there is out of date.
    fn tag_not_done(
        &mut self,
        apic: &dyn ApicRead,
        transaction: &Transaction,
        error: Error,
        now: Instant,
    ) -> Result<bool, Error> {
        let dn = &transaction.epg;
        let tag = ObjectDn::Tag(dn.clone());
        match &error {
            // The tag is there, the L3Out is not, or nobody knows: look, once.
            Error::Rejected { code: 102 | 103, .. } | Error::AnswerLost(_) if !self.deferrals.again(&tag) => {
                self.stale_l3outs.insert(dn.l3out.clone());
                self.read_l3out(apic, &dn.l3out, now).map(|()| true)
            }
            Error::Rejected { .. } | Error::Forbidden(_) | Error::AnswerLost(_) => {
                if transaction.changes.iter().any(Change::is_delete) {
                    self.defer(tag, &error, now);
                } else {
                    self.tag_failures.insert(dn.clone(), TagFailure { why: error.to_string(), try_again: false });
                }
                Ok(false)
            }
            _ => Err(error),
        }
    }
}

fn log_done(transaction: &Transaction) {
    const TOLD_ONE_BY_ONE: usize = 20;
    let dn = &transaction.epg;
    if transaction.changes.len() > TOLD_ONE_BY_ONE {
        info!("{dn}: {}", Tally::of([transaction]).past());
    }
    for change in &transaction.changes {
        if transaction.changes.len() > TOLD_ONE_BY_ONE {
            debug!("{dn}: {change}");
        } else {
            info!("{dn}: {change}");
        }
    }
}
