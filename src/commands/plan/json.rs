//! `plan -o json`: the plan as one JSON object, `aci-sync.plan.v1`. Fields are only ever added.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::Seen;
use crate::model::cause::Cause;
use crate::model::dn::{EpgDn, Prefix};
use crate::model::observed::{EPG, SUBNET, Subnet, TAG, contract_of};
use crate::model::owner::{OwnerIdentity, Ownership};
use crate::model::plan::{Change, Tally, Transaction};

/// The name of the form.
pub(super) const SCHEMA: &str = "aci-sync.plan.v1";

/// The most blocked deletions that are listed; the count counts all.
const MAX_LISTED: usize = 1000;

/// The whole text.
pub(super) fn plan(seen: &Seen) -> String {
    let (verdict, tally) = (seen.verdict(), Tally::of(&seen.transactions));
    let moves = Moves::of(&seen.transactions);
    let changes = entries(&seen.owner, &moves, &seen.transactions);
    let findings = seen.findings.iter().map(|finding| {
        json!({"code": finding.code.to_string(), "subject": finding.subject.to_string(), "text": finding.text,
            "open": finding.code.is_open()})
    });
    let object = json!({
        "schema": SCHEMA,
        "result": verdict.result(),
        "summary": verdict.to_string(),
        "cluster_id": seen.owner.cluster_id(),
        "policy": seen.policy.to_string(),
        "counts": {
            "create": tally.created,
            "change": tally.updated,
            "delete": tally.deleted,
            "move": moves.0.len(),
            "blocked": seen.blocked.len(),
            "kept": seen.kept,
            "findings": seen.findings.len(),
            "open_findings": seen.open,
        },
        "changes": changes,
        "blocked": seen.blocked.iter().take(MAX_LISTED).map(ToString::to_string).collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
    });
    format!("{object}\n")
}

/// The changes of a plan that moves nothing, as `purge` shows them.
pub(in crate::commands) fn deletions(owner: &OwnerIdentity, transactions: &[Transaction]) -> Vec<Value> {
    entries(owner, &Moves::of(transactions), transactions)
}

fn entries(owner: &OwnerIdentity, moves: &Moves<'_>, transactions: &[Transaction]) -> Vec<Value> {
    let in_order = transactions.iter().flat_map(|it| it.changes.iter().map(move |change| (&it.epg, change)));
    in_order.filter_map(|(epg, change)| entry(owner, moves, epg, change)).collect()
}

/// What is printed if there is no plan.
pub(in crate::commands) fn failure(schema: &str, message: &str) -> String {
    let object = json!({"schema": schema, "result": "failed", "summary": message});
    format!("{object}\n")
}

/// The addresses that leave one EPG and enter another, by where they go.
struct Moves<'a>(BTreeMap<(&'a EpgDn, Prefix), &'a Change>);

impl Moves<'_> {
    fn of(transactions: &[Transaction]) -> Moves<'_> {
        let changes = || transactions.iter().flat_map(|it| it.changes.iter().map(move |change| (&it.epg, change)));
        let leaving: BTreeSet<(&EpgDn, Prefix)> = changes()
            .filter_map(|(_, change)| match change {
                Change::DeleteSubnet { prefix, moves_to: Some(epg), .. } => Some((&**epg, *prefix)),
                _ => None,
            })
            .collect();
        let entering = changes().filter_map(|(epg, change)| match change {
            Change::CreateSubnet { prefix, .. } => Some(((epg, *prefix), change)),
            _ => None,
        });
        Moves(entering.filter(|(place, _)| leaving.contains(place)).collect())
    }
}

/// One change; nothing for the second half of a move.
fn entry(owner: &OwnerIdentity, moves: &Moves<'_>, epg: &EpgDn, change: &Change) -> Option<Value> {
    let form = |action: &str, class: &str, dn: String, why: String, before: Value, after: Value| json!({"action": action, "class": class, "dn": dn, "why": why, "before": before, "after": after});
    let (annotation, nothing) = (owner.annotation(), Value::Null);
    let with = |mut entry: Value, name: &str, value: Value| {
        entry[name] = value;
        entry
    };
    let dn = epg.to_string();
    Some(match change {
        Change::CreateEpg { workloads, why } => {
            let after = json!({"name": epg.name.as_str(), "annotation": annotation});
            let workloads: Vec<String> = workloads.iter().map(ToString::to_string).collect();
            with(form("create", EPG, dn, why.to_string(), nothing, after), "for", json!(workloads))
        }
        Change::SetEpgOwner { from, why } => {
            form("repair", EPG, dn, why.to_string(), json!(known(owner, *from)), json!({"annotation": annotation}))
        }
        Change::DeleteEpg { subnets, why } => {
            let ownership = if *why == Cause::PurgeLegacy { Ownership::Legacy } else { Ownership::Owned };
            let mut before = known(owner, ownership);
            before.insert("name".to_owned(), json!(epg.name.as_str()));
            let before = before.into();
            with(form("delete", EPG, dn, why.to_string(), before, nothing), "subnets", json!(subnets))
        }
        Change::CreateSubnet { prefix, .. } if moves.0.contains_key(&(epg, *prefix)) => return None,
        Change::CreateSubnet { prefix, source, why, .. } => {
            let entry = form(
                "create",
                SUBNET,
                epg.subnet(&prefix.to_string()),
                why.to_string(),
                nothing,
                created(owner, change),
            );
            with(entry, "for", json!([source.to_string()]))
        }
        Change::RepairSubnet { prefix, before, set_owner, name, scope, why } => {
            let mut after = Map::new();
            after.extend(set_owner.then(|| ("annotation".to_owned(), json!(annotation))));
            after.extend(name.as_ref().map(|name| ("name".to_owned(), json!(name))));
            after.extend(scope.as_ref().map(|scope| ("scope".to_owned(), json!(scope.to_string()))));
            let why: Vec<String> = why.iter().map(ToString::to_string).collect();
            form(
                "repair",
                SUBNET,
                epg.subnet(&before.ip(prefix)),
                why.join("; "),
                read(owner, prefix, before),
                after.into(),
            )
        }
        Change::DeleteSubnet { prefix, before, moves_to, why } => {
            let (dn, read) = (epg.subnet(&before.ip(prefix)), read(owner, prefix, before));
            let enters = moves_to.as_deref().and_then(|to| Some((to, moves.0.get(&(to, *prefix))?)));
            match enters {
                Some((to, change)) => {
                    let entry = form("move", SUBNET, dn, why.to_string(), read, created(owner, change));
                    with(entry, "to", json!(to.subnet(&prefix.to_string())))
                }
                None => form("delete", SUBNET, dn, why.to_string(), read, nothing),
            }
        }
        Change::RestoreRelation { relation } => {
            let (class, attribute, name) = contract_of(relation)?;
            let why = "another writer deleted it with the EPG".to_owned();
            form("create", class, format!("{dn}/{relation}"), why, nothing, json!({attribute: name}))
        }
        Change::CreateTag => {
            let (key, why) = (owner.tag_key(&epg.name), "marks the EPG as foreign".to_owned());
            form("create", TAG, epg.l3out.tag(&key), why, nothing, json!({"key": key}))
        }
        Change::DeleteTag { tag } => {
            form("delete", TAG, tag.to_string(), "no longer needed".to_owned(), nothing.clone(), nothing)
        }
    })
}

/// The attributes of a subnet that is created.
fn created(owner: &OwnerIdentity, change: &Change) -> Value {
    match change {
        Change::CreateSubnet { prefix, source, scope, .. } => {
            json!({"ip": prefix.to_string(), "name": source.subnet_name(),
            "scope": scope.to_string(), "annotation": owner.annotation()})
        }
        _ => Value::Null,
    }
}

/// The attributes of a subnet as it was read.
fn read(owner: &OwnerIdentity, prefix: &Prefix, subnet: &Subnet) -> Value {
    let mut attributes = known(owner, subnet.ownership);
    attributes.insert("ip".to_owned(), json!(subnet.ip(prefix)));
    attributes.insert("name".to_owned(), json!(subnet.name));
    attributes.insert("scope".to_owned(), json!(subnet.scope.to_string()));
    attributes.into()
}

/// The `annotation`, if it is known: of an object that another owner has marked only the owner is kept.
fn known(owner: &OwnerIdentity, ownership: Ownership) -> Map<String, Value> {
    let annotation = match ownership {
        Ownership::Owned => Some(owner.annotation()),
        Ownership::Unmarked => Some(""),
        Ownership::Legacy | Ownership::OtherCluster | Ownership::Foreign => None,
    };
    annotation.map(|it| ("annotation".to_owned(), json!(it))).into_iter().collect()
}
