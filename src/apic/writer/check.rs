//! The last check before a write: it touches only owned objects that were read in this reconcile, and what it creates is
//! not known to be present (O1, O4, W7). A plan that fails here is a bug, and the fabric is safe from it.

use crate::model::cache::FabricCache;
use crate::model::dn::Prefix;
use crate::model::observed::{Epg, Subnet};
use crate::model::owner::{OwnerIdentity, Ownership};
use crate::model::plan::{Change, RequestShape, Transaction};

/// Fails with the reason for which a transaction must not be sent.
pub(super) fn check(fabric: &FabricCache, transaction: &Transaction) -> Result<(), String> {
    let epg = fabric.epg(&transaction.epg);
    let changes = transaction.changes.as_slice();
    match transaction.shape {
        RequestShape::Tag => return check_tag(fabric, transaction),
        RequestShape::EpgTree => check_epg_tree(fabric, epg, changes)?,
        RequestShape::OneSubnet => check_one_subnet(epg, changes)?,
    }
    changes.iter().try_for_each(|change| check_change(fabric.owner(), epg, change))
}

/// A tag is owned by its key: only one that the cache holds with our prefix is deleted (O4).
fn check_tag(fabric: &FabricCache, transaction: &Transaction) -> Result<(), String> {
    let is_known = |tag: &str| fabric.tags().any(|(epg, dn)| epg == transaction.epg && dn == tag);
    match transaction.changes.as_slice() {
        [Change::CreateTag] => Ok(()),
        [Change::DeleteTag { tag }] => require(is_known(tag), "the tag is not owned"),
        _ => Err("not the change of one tag".into()),
    }
}

/// The request carries the owner annotation for the EPG, so the EPG must be owned or become so by a planned change. One
/// that deletes the EPG carries none.
fn check_epg_tree(fabric: &FabricCache, epg: Option<&Epg>, changes: &[Change]) -> Result<(), String> {
    let sets_owner = |change: &Change| matches!(change, Change::CreateEpg { .. } | Change::SetEpgOwner { .. });
    if changes.iter().any(sets_owner) {
        return Ok(());
    }
    let deletes_epg = changes.iter().any(Change::deletes_epg);
    match epg {
        Some(epg) if deletes_epg => require(fabric.owner().may_delete(epg.ownership), "the EPG is not owned"),
        Some(epg) => require(epg.ownership == Ownership::Owned, "the EPG is not owned"),
        // The request would create it.
        None => Err("the EPG is not present".into()),
    }
}

fn check_one_subnet(epg: Option<&Epg>, changes: &[Change]) -> Result<(), String> {
    require(epg.is_some(), "the EPG is not present")?;
    require(changes.len() == 1, "more than one change at once")
}

fn check_change(owner: &OwnerIdentity, epg: Option<&Epg>, change: &Change) -> Result<(), String> {
    if matches!(change, Change::CreateTag | Change::DeleteTag { .. }) {
        return Err("a tag is not part of an EPG".into());
    }
    let Some(epg) = epg else {
        return require(change.is_create(), "the EPG is not present");
    };
    require(epg.fresh, "the EPG was not read in this reconcile")?;
    match change {
        Change::CreateEpg { .. } => Err("the EPG is present".into()),
        Change::SetEpgOwner { .. } => {
            require(epg.is_ours() || epg.ownership == Ownership::Legacy, "the EPG is not owned")
        }
        Change::DeleteEpg { .. } => {
            let may_go = |subnet: &Subnet| owner.may_delete(subnet.ownership);
            require(owner.may_delete(epg.ownership), "the EPG is not owned")?;
            require(epg.subnets.values().all(may_go) && epg.unreadable == 0, "the EPG holds foreign subnets")
        }
        Change::CreateSubnet { prefix, .. } => {
            require(!epg.subnets.contains_key(prefix), &format!("{prefix} is present"))
        }
        Change::RepairSubnet { prefix, set_owner, name, .. } => check_subnet(epg, prefix, |subnet| {
            let has_our_name = subnet.ownership == Ownership::Unmarked && name.is_none();
            let may_be_taken_over = subnet.ownership == Ownership::Legacy || subnet.was_owned || has_our_name;
            subnet.ownership == Ownership::Owned || (*set_owner && may_be_taken_over)
        }),
        Change::DeleteSubnet { prefix, moves_to, .. } => check_subnet(epg, prefix, |subnet| {
            let is_moving_legacy = subnet.ownership == Ownership::Legacy && moves_to.is_some();
            owner.may_delete(subnet.ownership) || is_moving_legacy
        }),
        Change::RestoreRelation { relation } => {
            require(epg.ownership == Ownership::Owned, "the EPG is not owned")?;
            require(!epg.relations.contains(relation), &format!("{relation} is present"))
        }
        Change::CreateTag | Change::DeleteTag { .. } => Ok(()),
    }
}

fn check_subnet(epg: &Epg, prefix: &Prefix, may_change: impl Fn(&Subnet) -> bool) -> Result<(), String> {
    require(epg.subnets.get(prefix).is_some_and(may_change), &format!("{prefix} is not owned"))
}

fn require(holds: bool, reason: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason.to_owned()) }
}
