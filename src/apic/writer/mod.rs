//! The only code that writes (W5). It knows the policy, checks ownership once more and knows the forms of a request (W2).
//! What to write is the plan's business.

mod answer;
mod body;
pub mod request;

pub use answer::{Accepted, Confirmation};
pub use body::Body;

use self::request::WriteRequest;
use super::error::Error;
use super::traits::{ApicWrite, ShouldSend, WriteAnswer};
use crate::model::cache::FabricCache;
use crate::model::dn::Prefix;
use crate::model::observed::{Epg, Subnet};
use crate::model::owner::Ownership;
use crate::model::plan::{Change, RequestShape, Transaction};
use crate::model::rules::Policy;

/// Why a transaction was not done.
#[derive(Debug)]
pub enum Refusal {
    /// The policy does not allow it; it was not sent.
    Policy,
    /// It would touch an object that is not owned, or that was not read in this reconcile; it was not sent. A plan that
    /// leads here is a bug, and the fabric is safe from it.
    NotOurs(String),
    /// It came too late, for instance after leadership was lost (K4); it was not sent.
    Late,
    /// The APIC did not do it, or did not say whether it did.
    Apic(Error),
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

    /// Sends one transaction; the APIC does all of it or nothing. `fabric` is the cache that it was planned on.
    /// `should_send` is asked right before each attempt (W8).
    pub fn send(
        &self,
        apic: &dyn ApicWrite,
        fabric: &FabricCache,
        transaction: &Transaction,
        should_send: &ShouldSend<'_>,
    ) -> Result<Accepted, Refusal> {
        let deletes = transaction.changes.iter().any(Change::is_delete);
        if !self.writes() || (deletes && !self.deletes()) {
            return Err(Refusal::Policy);
        }
        let epg = &transaction.epg;
        check(fabric, transaction).map_err(|why| Refusal::NotOurs(format!("{epg}: {why}")))?;
        let request = WriteRequest::of(fabric.owner(), transaction)
            .ok_or_else(|| Refusal::NotOurs(format!("{epg}: more than one change at once")))?;
        match apic.write(&request, should_send) {
            // The answer to a DELETE is its HTTP status.
            Ok(WriteAnswer::Changes(_)) if request.body().is_none() => Ok(Accepted::complete()),
            Ok(WriteAnswer::Changes(answer)) => Ok(Accepted::from_answer(transaction, fabric.epg(epg), &answer)),
            Ok(WriteAnswer::Assumed) => Ok(Accepted::complete()),
            Err(Error::Withdrawn) => Err(Refusal::Late),
            Err(error) => Err(Refusal::Apic(error)),
        }
    }
}

/// O1 and W7 once more, right before sending: what is changed or deleted is ours on the object as read in this reconcile,
/// and what is created is not known to be there.
fn check(fabric: &FabricCache, transaction: &Transaction) -> Result<(), String> {
    let epg = fabric.epg(&transaction.epg);
    let is_tag = |it: &Change| matches!(it, Change::CreateTag | Change::DeleteTag { .. });
    if transaction.shape == RequestShape::Tag {
        return check_tag(fabric, transaction);
    }
    if transaction.changes.iter().any(is_tag) {
        return Err("a tag is no part of an EPG".into());
    }
    let marks =
        transaction.changes.iter().any(|it| matches!(it, Change::CreateEpg { .. } | Change::SetEpgOwner { .. }));
    match (transaction.shape, epg) {
        (RequestShape::EpgTree, Some(epg)) if epg.ownership != Ownership::Owned && !marks => {
            return Err("the EPG is not ours".into());
        }
        (RequestShape::OneSubnet, Some(_)) if transaction.changes.len() != 1 => {
            return Err("more than one change at once".into());
        }
        (RequestShape::OneSubnet, None) => return Err("the EPG is not there".into()),
        // Such a request would make the EPG, without our mark.
        (RequestShape::EpgTree, None) if !marks => return Err("the EPG is not there".into()),
        _ => {}
    }
    transaction.changes.iter().try_for_each(|change| check_change(epg, change))
}

/// A tag is ours by its key: only one that the cache holds under our prefix is deleted (O4).
fn check_tag(fabric: &FabricCache, transaction: &Transaction) -> Result<(), String> {
    let known = |tag: &str| fabric.tags().any(|(epg, dn)| epg == transaction.epg && dn == tag);
    match transaction.changes.as_slice() {
        [Change::CreateTag] => Ok(()),
        [Change::DeleteTag { tag }] if known(tag) => Ok(()),
        _ => Err("the tag is not ours".into()),
    }
}

fn check_change(epg: Option<&Epg>, change: &Change) -> Result<(), String> {
    let need = |holds: bool, why: &str| if holds { Ok(()) } else { Err(why.to_owned()) };
    if let Change::CreateEpg { .. } = change {
        return need(epg.is_none(), "the EPG is there already");
    }
    let subnet = |epg: &Epg, prefix: &Prefix| epg.subnets.get(prefix).cloned();
    let Some(epg) = epg else {
        return need(change.is_create(), "the EPG is not there");
    };
    need(epg.fresh, "the EPG was not read in this pass")?;
    match change {
        Change::CreateEpg { .. } | Change::CreateTag | Change::DeleteTag { .. } => Ok(()),
        Change::SetEpgOwner { .. } => need(epg.is_ours() || epg.ownership == Ownership::Legacy, "the EPG is not ours"),
        Change::DeleteEpg { .. } => {
            let only_ours = epg.subnets.values().all(|it| it.ownership == Ownership::Owned) && epg.unreadable == 0;
            need(epg.ownership == Ownership::Owned, "the EPG is not ours")?;
            need(only_ours, "the EPG holds subnets that are not ours")
        }
        Change::CreateSubnet { prefix, .. } => {
            need(subnet(epg, prefix).is_none(), &format!("{prefix} is there already"))
        }
        Change::RepairSubnet { prefix, set_owner, name, .. } => {
            let ours = |it: &Subnet| {
                let bears_our_name = it.ownership == Ownership::Unmarked && name.is_none();
                it.ownership == Ownership::Owned
                    || (*set_owner && (it.ownership == Ownership::Legacy || it.was_ours || bears_our_name))
            };
            need(subnet(epg, prefix).as_ref().is_some_and(ours), &format!("{prefix} is not ours"))
        }
        Change::DeleteSubnet { prefix, moves_to, .. } => {
            let ours = |it: &Subnet| {
                it.ownership == Ownership::Owned || (it.ownership == Ownership::Legacy && moves_to.is_some())
            };
            need(subnet(epg, prefix).as_ref().is_some_and(ours), &format!("{prefix} is not ours"))
        }
    }
}
