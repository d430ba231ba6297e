//! A write as it goes over the wire. It has two forms (W2): a POST of an object tree and a DELETE of one object.

use super::body::Body;
use crate::model::observed::{EPG, SUBNET, TAG, contract_of};
use crate::model::owner::OwnerIdentity;
use crate::model::plan::{Change, RequestShape, Transaction};

/// The value of our tags, for people; the key is what counts (O4).
const TAG_VALUE: &str = "foreign external EPG, used by workloads";

/// A POST or a DELETE. Only the writer can make one.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteRequest {
    dn: String,
    /// `None`: a DELETE.
    body: Option<Body>,
}

impl WriteRequest {
    /// The object that the request is sent to.
    pub fn dn(&self) -> &str {
        &self.dn
    }

    /// What is posted; `None` for a DELETE.
    pub fn body(&self) -> Option<&Body> {
        self.body.as_ref()
    }

    /// The HTTP method.
    pub fn method(&self) -> &'static str {
        if self.body.is_some() { "POST" } else { "DELETE" }
    }

    /// The path and the query. The answer to a POST lists what it changed.
    pub fn target(&self) -> String {
        let query = if self.body.is_some() { "?rsp-subtree=modified" } else { "" };
        format!("/api/mo/{}.json{query}", self.dn)
    }

    /// The request for a transaction; nothing if its shape cannot hold its changes.
    ///
    /// Changes of an owned EPG are one POST rooted at the `l3extInstP` and sent to the L3Out's URL, so a missing L3Out is
    /// an error and is not created. A foreign EPG gets one subnet at a time, sent to the EPG's URL for the same reason
    /// (W2).
    ///
    /// Whatever a request can create carries the owner annotation, even an object believed present: another writer may
    /// delete it after the read, and what the request then creates must not be left without an owner (O2).
    pub(super) fn of(owner: &OwnerIdentity, transaction: &Transaction) -> Option<WriteRequest> {
        let (dn, body) = form(owner, transaction)?;
        Some(WriteRequest { dn, body })
    }
}

/// Whether a transaction is sent as a DELETE.
pub(super) fn is_delete(transaction: &Transaction) -> bool {
    transaction.shape != RequestShape::EpgTree && transaction.deletes()
}

/// Where a transaction is sent to, and what is posted there.
fn form(owner: &OwnerIdentity, transaction: &Transaction) -> Option<(String, Option<Body>)> {
    let dn = &transaction.epg;
    if transaction.shape == RequestShape::EpgTree {
        return Some((dn.l3out.to_string(), Some(epg_tree(owner, transaction))));
    }
    let [change] = transaction.changes.as_slice() else { return None };
    match change {
        Change::DeleteSubnet { prefix, before, .. } => Some((dn.subnet(&before.ip(prefix)), None)),
        Change::DeleteTag { tag } => Some((tag.to_string(), None)),
        Change::CreateTag => {
            let tag =
                Body::new(TAG).with("key", owner.tag_key(&dn.name)).with("value", TAG_VALUE).with("status", "created");
            Some((dn.l3out.to_string(), Some(tag)))
        }
        other => Some((dn.to_string(), Some(subnet(owner, other)?))),
    }
}

/// The `l3extInstP` with the subnets that change.
fn epg_tree(owner: &OwnerIdentity, transaction: &Transaction) -> Body {
    let changes = &transaction.changes;
    let deletes = changes.iter().any(|it| matches!(it, Change::DeleteEpg { .. }));
    let creates = changes.iter().any(|it| matches!(it, Change::CreateEpg { .. }));
    let epg = Body::new(EPG).with("name", transaction.epg.name.as_str());
    let epg = if deletes {
        epg.with("status", "deleted")
    } else {
        epg.with("annotation", owner.annotation()).with_some("status", creates.then_some("created"))
    };
    epg.with_children(changes.iter().filter_map(|change| subnet(owner, change).or_else(|| relation(change))))
}

/// A contract relation. It is people's, so it has no owner annotation (R7); if people add it at the same time, that is
/// the same relation.
fn relation(change: &Change) -> Option<Body> {
    let Change::RestoreRelation { relation } = change else { return None };
    let (class, attribute, name) = contract_of(relation)?;
    Some(Body::new(class).with(attribute, name))
}

/// The `l3extSubnet` of one change. A create has `status=created`, so the APIC answers with error 103 instead of
/// overwriting a subnet that is present after all.
fn subnet(owner: &OwnerIdentity, change: &Change) -> Option<Body> {
    let subnet = Body::new(SUBNET);
    match change {
        Change::CreateSubnet { prefix, source, scope, .. } => Some(
            subnet
                .with("ip", prefix.to_string())
                .with("name", source.subnet_name())
                .with("scope", scope.to_string())
                .with("annotation", owner.annotation())
                .with("status", "created"),
        ),
        Change::RepairSubnet { prefix, before, name, scope, .. } => Some(
            subnet
                .with("ip", before.ip(prefix))
                .with("annotation", owner.annotation())
                .with_some("name", name.as_deref())
                .with_some("scope", scope.as_ref().map(ToString::to_string)),
        ),
        Change::DeleteSubnet { prefix, before, .. } => {
            Some(subnet.with("ip", before.ip(prefix)).with("status", "deleted"))
        }
        Change::CreateEpg { .. }
        | Change::SetEpgOwner { .. }
        | Change::DeleteEpg { .. }
        | Change::RestoreRelation { .. }
        | Change::CreateTag
        | Change::DeleteTag { .. } => None,
    }
}
