//! The one place that sends a write (W5). It knows the policy, it looks once more at whose object it is given, and it
//! knows the two forms of a request (W2). What should be written is the plan's business.

use std::collections::{BTreeMap, BTreeSet};

use super::Error;
use super::access::{Access, WriteAnswer};
use super::body::Body;
use crate::model::cache::FabricCache;
use crate::model::dn::{EpgDn, ObjectDn, ParsedDn, Prefix};
use crate::model::mo::{MoChange, Status};
use crate::model::observed::{CONTRACTS, EPG, Epg, SUBNET, Subnet, TAG, relation};
use crate::model::owner::{OwnerIdentity, Ownership};
use crate::model::plan::{Change, RequestShape, Transaction};
use crate::model::rules::Policy;

/// The value of our tags, for people: what counts is the key (O4).
const TAG_VALUE: &str = "external EPG of somebody else, in use";

/// Why a transaction was not done.
#[derive(Debug)]
pub enum Refusal {
    /// The policy does not allow it; it was not sent.
    Policy,
    /// It would touch something that is not ours, or that was not read in this reconcile; it was not sent. A plan that
    /// leads here is a bug, and the fabric is safe from it.
    NotOurs(String),
    /// Its time is over, such as that of a leader (K4); it was not sent.
    Late,
    /// The APIC did not do it, or did not say.
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

    /// Whether the policy has anything deleted, or told where it never writes.
    pub fn deletes(&self) -> bool {
        self.policy != Policy::UpsertOnly
    }

    /// Whether the policy lets anything be written.
    pub fn writes(&self) -> bool {
        self.policy != Policy::Observe
    }

    /// Sends one transaction; the APIC does all of it or nothing. `fabric` is the cache that
    /// it was planned on; `should_continue` is asked right before the request is sent, each time it is sent (W8).
    pub fn send(
        &self,
        apic: &dyn Access,
        fabric: &FabricCache,
        transaction: &Transaction,
        should_continue: &dyn Fn() -> bool,
    ) -> Result<Accepted, Refusal> {
        let deletes = transaction.changes.iter().any(Change::is_delete);
        if !self.writes() || (deletes && !self.deletes()) {
            return Err(Refusal::Policy);
        }
        check(fabric, transaction).map_err(|why| Refusal::NotOurs(format!("{}: {why}", transaction.epg)))?;
        let written = match request(fabric.owner(), transaction) {
            Request::Post { to, body } => apic.post(&to, &body, should_continue),
            // Once that is answered the object is gone.
            Request::Delete { dn } => apic.delete(&dn, should_continue).map(|()| WriteAnswer::Assumed),
        };
        match written {
            Ok(WriteAnswer::Changes(answer)) => {
                let swept = fabric.epg(&transaction.epg).map_or_else(Vec::new, |it| swept(it, transaction, &answer));
                Ok(Accepted { confirmation: confirmation(transaction, &answer), swept })
            }
            Ok(WriteAnswer::Assumed) => Ok(Accepted { confirmation: Confirmation::Complete, swept: Vec::new() }),
            Err(Error::Withdrawn) => Err(Refusal::Late),
            Err(error) => Err(Refusal::Apic(error)),
        }
    }
}

/// O1 and W7 once more, right before sending: what is changed or deleted is ours on the object as read in this reconcile,
/// and what is created is not known to be there.
fn check(fabric: &FabricCache, transaction: &Transaction) -> Result<(), String> {
    let epg = fabric.epg(&transaction.epg);
    let is_tag = |it: &Change| matches!(it, Change::Remember | Change::Forget { .. });
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
        [Change::Remember] => Ok(()),
        [Change::Forget { tag }] if known(tag) => Ok(()),
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
        Change::CreateEpg { .. } | Change::Remember | Change::Forget { .. } => Ok(()),
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

/// A transaction as it goes over the wire.
#[derive(Debug, PartialEq)]
enum Request {
    Post { to: String, body: Body },
    Delete { dn: String },
}

/// W2: in an EPG of ours one POST rooted at the `l3extInstP` and sent to the L3Out's URL, so that a missing L3Out is
/// an error and is never made; in a foreign EPG one subnet at a time, sent to the EPG's URL for the same reason.
///
/// Whatever a request can create carries our mark, also where it is believed present: another writer may delete it after
/// it was read, and what the request then creates must not be left without an owner.
fn request(owner: &OwnerIdentity, transaction: &Transaction) -> Request {
    let (dn, annotation) = (&transaction.epg, owner.annotation());
    if transaction.shape != RequestShape::EpgTree
        && let [change] = transaction.changes.as_slice()
    {
        return match change {
            Change::DeleteSubnet { before, .. } => Request::Delete { dn: dn.subnet(&before.ip) },
            Change::Forget { tag } => Request::Delete { dn: tag.to_string() },
            Change::Remember => {
                let tag = Body::new(TAG).with("key", owner.tag_key(&dn.name)).with("value", TAG_VALUE);
                Request::Post { to: dn.l3out.to_string(), body: tag.with("status", "created") }
            }
            other => Request::Post { to: dn.to_string(), body: child(annotation, other).unwrap_or(Body::new(SUBNET)) },
        };
    }
    let has = |kind: fn(&Change) -> bool| transaction.changes.iter().any(kind);
    let status = if has(|it| matches!(it, Change::DeleteEpg { .. })) {
        Some("deleted")
    } else {
        has(|it| matches!(it, Change::CreateEpg { .. })).then_some("created")
    };
    let root = Body::new(EPG)
        .with("name", dn.name.as_str())
        .with_some("annotation", (status != Some("deleted")).then_some(annotation))
        .with_some("status", status)
        .with_children(transaction.changes.iter().filter_map(|change| child(annotation, change)));
    Request::Post { to: dn.l3out.to_string(), body: root }
}

/// The `l3extSubnet` of one change. What is believed absent is sent with `status=created`, so that something that is
/// there after all comes back as error 103 and is not overwritten.
fn child(annotation: &str, change: &Change) -> Option<Body> {
    let subnet = Body::new(SUBNET);
    match change {
        Change::CreateSubnet { prefix, name, scope, .. } => {
            let subnet = subnet.with("ip", prefix.to_string()).with("name", name).with("scope", scope.to_string());
            Some(subnet.with("annotation", annotation).with("status", "created"))
        }
        Change::RepairSubnet { before, name, scope, .. } => {
            let subnet = subnet.with("ip", &*before.ip).with("annotation", annotation);
            Some(subnet.with_some("name", name.as_deref()).with_some("scope", scope.as_ref().map(ToString::to_string)))
        }
        Change::DeleteSubnet { before, .. } => Some(subnet.with("ip", &*before.ip).with("status", "deleted")),
        Change::CreateEpg { .. }
        | Change::SetEpgOwner { .. }
        | Change::DeleteEpg { .. }
        | Change::Remember
        | Change::Forget { .. } => None,
    }
}

/// What an answer says of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// All that was sent, and nothing else.
    Complete,
    /// Not all of it. Answers may be partial or empty although everything was done (reference: 8.2); or something was as
    /// it should be already.
    Partial,
    /// Something was created that was believed present: another writer had just deleted it.
    Recreated,
}

/// What became of a transaction that the APIC took.
#[derive(Debug)]
pub struct Accepted {
    /// What the answer says of it.
    pub confirmation: Confirmation,
    /// Objects of other writers that went with an EPG of ours: they were created after it was read.
    pub swept: Vec<String>,
}

/// What the answer to an EPG's deletion shows that was not in it when it was read (O2). Not every APIC shows what went
/// with an object.
fn swept(epg: &Epg, transaction: &Transaction, answer: &[MoChange]) -> Vec<String> {
    if !transaction.changes.iter().any(Change::takes_all) {
        return Vec::new();
    }
    let gone = answer.iter().filter(|it| it.status == Status::Deleted);
    let foreign = gone.filter_map(|it| match ParsedDn::parse(&it.mo.dn)? {
        ParsedDn::Subnet(dn, ip) if dn == transaction.epg => match ip.parse::<Prefix>() {
            Ok(prefix) => (!epg.subnets.contains_key(&prefix)).then(|| format!("subnet {prefix}")),
            Err(()) => Some("a subnet that cannot be read".to_owned()),
        },
        ParsedDn::BelowEpg(dn) if dn == transaction.epg && CONTRACTS.contains(&it.mo.class.as_str()) => {
            let relation = relation(&it.mo);
            (!epg.relations.contains(&relation)).then(|| relation.into())
        }
        _ => None,
    });
    foreign.collect()
}

/// Compares the answer to a transaction with what was sent (A6).
fn confirmation(transaction: &Transaction, answer: &[MoChange]) -> Confirmation {
    if transaction.shape == RequestShape::Tag {
        // The status alone says it: a tag that is there already is error 103.
        return Confirmation::Complete;
    }
    let created: BTreeSet<ObjectDn> =
        transaction.changes.iter().filter(|it| it.is_create()).map(|it| it.object(&transaction.epg)).collect();
    let told: BTreeMap<ObjectDn, Status> =
        answer.iter().filter_map(|it| Some((object_in(&transaction.epg, &it.mo.dn)?, it.status))).collect();
    if told.iter().any(|(object, status)| *status == Status::Created && !created.contains(object)) {
        return Confirmation::Recreated;
    }
    if transaction.objects().all(|object| told.contains_key(&object)) {
        Confirmation::Complete
    } else {
        Confirmation::Partial
    }
}

/// The EPG or a subnet of it, if that is what a DN names.
fn object_in(epg: &EpgDn, dn: &str) -> Option<ObjectDn> {
    match ParsedDn::parse(dn)? {
        ParsedDn::Epg(dn) if dn == *epg => Some(ObjectDn::Epg(dn)),
        ParsedDn::Subnet(dn, ip) if dn == *epg => Some(ObjectDn::Subnet(dn, ip.parse().ok()?)),
        _ => None,
    }
}
