//! The only code that writes (W5). It knows the policy, checks ownership once more and knows the forms of a request (W2).
//! What to write is the plan's business.

mod answer;
mod body;
mod check;
pub mod request;
mod undo;

pub use answer::{Accepted, Confirmation};
pub use body::Body;
pub use undo::{Undo, undo};

use self::request::WriteRequest;
use super::error::Error;
use super::traits::{ApicWrite, ShouldSend, WriteAnswer};
use crate::model::cache::FabricCache;
use crate::model::plan::Transaction;
use crate::model::rules::Policy;

/// Why a transaction was not done.
#[derive(Debug)]
pub enum Refusal {
    /// The policy does not allow it; it was not sent.
    Policy,
    /// The plan is wrong: the transaction would touch an object that is not owned, or that was not read in this reconcile; it
    /// was not sent.
    WrongPlan(String),
    /// It came too late, for instance after leadership was lost (K4); it was not sent.
    TooLate,
    /// The APIC did not do it, or did not say whether it did.
    Apic(Error),
}

impl Refusal {
    /// Whether it has to be read what became of the transaction, or what was taken for absent or present.
    pub fn needs_a_read(&self) -> bool {
        matches!(self, Refusal::Apic(Error::AnswerLost(_) | Error::Rejected { code: 102 | 103, .. }))
    }
}

/// Sends transactions.
#[derive(Debug, Clone, Copy)]
pub struct Writer {
    policy: Policy,
}

impl Writer {
    /// A writer that keeps to a policy.
    pub fn new(policy: Policy) -> Self {
        Writer { policy }
    }

    /// The policy.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Whether the policy plans deletions. `observe` plans them too, and reports what it does not send.
    pub fn deletes(&self) -> bool {
        self.policy != Policy::UpsertOnly
    }

    /// Whether the policy allows any write.
    pub fn writes(&self) -> bool {
        self.policy != Policy::Observe
    }

    /// Sends one transaction. `should_send` is asked right before each attempt (W8).
    pub fn send(
        &self,
        apic: &dyn ApicWrite,
        fabric: &FabricCache,
        transaction: &Transaction,
        should_send: &ShouldSend<'_>,
    ) -> Result<Accepted, Refusal> {
        let request = self.request(fabric, transaction)?;
        self.answered(fabric, transaction, apic.write(&request, should_send))
    }

    /// The request for a transaction, if it may be sent. The APIC does all of it or nothing. `fabric` is the cache that it was
    /// planned on.
    pub fn request(&self, fabric: &FabricCache, transaction: &Transaction) -> Result<WriteRequest, Refusal> {
        if !self.writes() || (transaction.deletes() && !self.deletes()) {
            return Err(Refusal::Policy);
        }
        check::check(fabric, transaction).map_err(Refusal::WrongPlan)?;
        WriteRequest::of(fabric.owner(), transaction)
            .ok_or_else(|| Refusal::WrongPlan("no request has this shape".to_owned()))
    }

    /// What the answer to that request says. The cache is still that of before.
    pub fn answered(
        &self,
        fabric: &FabricCache,
        transaction: &Transaction,
        answer: Result<WriteAnswer, Error>,
    ) -> Result<Accepted, Refusal> {
        match answer {
            // The answer to a DELETE is its HTTP status.
            Ok(WriteAnswer::Changes(_)) if request::is_delete(transaction) => Ok(Accepted::complete()),
            Ok(WriteAnswer::Changes(answer)) => {
                Ok(Accepted::from_answer(transaction, fabric.epg(&transaction.epg), &answer))
            }
            Ok(WriteAnswer::Assumed) => Ok(Accepted::complete()),
            Err(Error::NotSent) => Err(Refusal::TooLate),
            Err(error) => Err(Refusal::Apic(error)),
        }
    }
}
