//! What the answer to a write shows of its transaction (A6, O2).

use std::collections::{BTreeMap, BTreeSet};

use crate::model::dn::{EpgDn, ObjectDn, ParsedDn, Prefix};
use crate::model::mo::{MoChange, Status};
use crate::model::observed::{CONTRACTS, Epg, relation};
use crate::model::plan::{Change, RequestShape, Transaction};

/// How much of a transaction the answer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// All of it, and nothing else.
    Complete,
    /// Not all of it. An answer may be partial or empty although everything was done (reference: apic-wire 8.2), and it
    /// leaves out what did not have to change.
    Partial,
    /// It created an object that was believed present: another writer had just deleted it.
    Recreated,
}

/// A transaction that the APIC took.
#[derive(Debug)]
pub struct Accepted {
    /// How much of it the answer shows.
    pub confirmation: Confirmation,
    /// Objects of other writers that were deleted together with an owned EPG: they were created after it was read.
    pub swept: Vec<String>,
}

impl Accepted {
    /// All of it was done; there is nothing else to say.
    pub(super) fn complete() -> Accepted {
        Accepted { confirmation: Confirmation::Complete, swept: Vec::new() }
    }

    /// What an answer shows. `epg` is the EPG as it was read before.
    pub(super) fn from_answer(transaction: &Transaction, epg: Option<&Epg>, answer: &[MoChange]) -> Accepted {
        let swept = match epg {
            Some(epg) if transaction.changes.iter().any(Change::deletes_epg) => swept(&transaction.epg, epg, answer),
            _ => Vec::new(),
        };
        Accepted { confirmation: confirmation(transaction, answer), swept }
    }
}

/// What went with a deleted EPG and was not in it when it was read (O2). Not every APIC shows this.
fn swept(dn: &EpgDn, epg: &Epg, answer: &[MoChange]) -> Vec<String> {
    let mut swept = Vec::new();
    for change in answer.iter().filter(|it| it.status == Status::Deleted) {
        match ParsedDn::parse(&change.mo.dn) {
            Some(ParsedDn::Subnet(of, ip)) if of == *dn => match ip.parse::<Prefix>() {
                Ok(prefix) if epg.subnets.contains_key(&prefix) => {}
                Ok(prefix) => swept.push(format!("subnet {prefix}")),
                Err(()) => swept.push("a subnet that cannot be read".to_owned()),
            },
            Some(ParsedDn::BelowEpg(of)) if of == *dn && CONTRACTS.contains(&change.mo.class.as_str()) => {
                let relation = relation(&change.mo);
                if !epg.relations.contains(&relation) {
                    swept.push(relation.into());
                }
            }
            _ => {}
        }
    }
    swept
}

/// Compares the answer to a transaction with what was sent (A6).
fn confirmation(transaction: &Transaction, answer: &[MoChange]) -> Confirmation {
    if transaction.shape == RequestShape::Tag {
        // The HTTP status is enough: the APIC rejects a tag that is present with error 103.
        return Confirmation::Complete;
    }
    let dn = &transaction.epg;
    let shown: BTreeMap<ObjectDn, Status> =
        answer.iter().filter_map(|it| Some((object_in(dn, &it.mo.dn)?, it.status))).collect();
    let creates: BTreeSet<ObjectDn> =
        transaction.changes.iter().filter(|it| it.is_create()).map(|it| it.object(dn)).collect();
    let is_unexpected = |object: &ObjectDn, status: Status| status == Status::Created && !creates.contains(object);
    if shown.iter().any(|(object, status)| is_unexpected(object, *status)) {
        Confirmation::Recreated
    } else if transaction.objects().all(|object| shown.contains_key(&object)) {
        Confirmation::Complete
    } else {
        Confirmation::Partial
    }
}

/// The EPG itself or a subnet of it, if the DN names one.
fn object_in(epg: &EpgDn, dn: &str) -> Option<ObjectDn> {
    match ParsedDn::parse(dn)? {
        ParsedDn::Epg(dn) if dn == *epg => Some(ObjectDn::Epg(dn)),
        ParsedDn::Subnet(dn, ip) if dn == *epg => Some(ObjectDn::Subnet(dn, ip.parse().ok()?)),
        _ => None,
    }
}
