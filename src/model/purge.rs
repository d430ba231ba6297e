//! What `purge` deletes of the fabric that was read, and what stays (T11): what carries the owner annotation, and our tags.
//! Whether it is sent is not decided here.

use std::collections::BTreeSet;

use super::cache::FabricCache;
use super::cause::Cause;
use super::dn::{EpgDn, ObjectDn, Prefix};
use super::finding::{Code, Finding, counted};
use super::observed::{Epg, Subnet};
use super::owner::Ownership;
use super::plan::{Change, RequestShape, Transaction};
use super::rules::Rules;

/// What is deleted of one EPG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpgPurge {
    /// The EPG.
    pub epg: EpgDn,
    /// What to send, in this order.
    pub transactions: Vec<Transaction>,
    /// All objects that these delete, the subnets that go with the EPG included.
    pub objects: BTreeSet<ObjectDn>,
    /// The contract relations that go with the EPG.
    pub relations: BTreeSet<Box<str>>,
    /// Why the EPG stays although it could be deleted for its owner annotation.
    pub stays: Option<Finding>,
}

impl EpgPurge {
    /// Whether it deletes the EPG itself.
    pub fn deletes_epg(&self) -> bool {
        self.objects.contains(&ObjectDn::Epg(self.epg.clone()))
    }

    /// Whether it deletes nothing that another one does not delete, too.
    pub fn is_part_of(&self, other: &EpgPurge) -> bool {
        self.objects.is_subset(&other.objects) && self.relations.is_subset(&other.relations)
    }

    /// The least of it: one request that tests whether another aci-sync restores what is deleted.
    pub fn canary(&self) -> Option<Transaction> {
        let first = self.transactions.first()?;
        let shape = if first.shape == RequestShape::Tag { RequestShape::Tag } else { RequestShape::OneSubnet };
        match first.changes.as_slice() {
            [Change::DeleteSubnet { .. }, ..] => {
                Some(Transaction { epg: first.epg.clone(), shape, changes: first.changes[..1].to_vec() })
            }
            _ => Some(first.clone()),
        }
    }
}

/// What is deleted of all L3Outs that were read, EPG by EPG. The first one that can be deleted tests whether another aci-sync
/// restores it. So those that a daemon restores come first, then EPGs before subnets, then the smaller ones.
pub fn plan(fabric: &FabricCache, rules: &Rules, is_restored: impl Fn(&EpgDn) -> bool) -> Vec<EpgPurge> {
    let epgs: BTreeSet<EpgDn> = fabric.epgs().map(|it| it.0).chain(fabric.tags().map(|it| it.0)).collect();
    let all = epgs.iter().map(|dn| plan_epg(fabric, rules, dn));
    let mut all: Vec<EpgPurge> = all.filter(|it| !it.objects.is_empty() || it.stays.is_some()).collect();
    let size = |it: &EpgPurge| (it.objects.len(), it.relations.len());
    all.sort_by_cached_key(|it| (it.objects.is_empty(), !is_restored(&it.epg), !it.deletes_epg(), size(it)));
    all
}

/// What is deleted of one EPG, as it was read.
pub fn plan_epg(fabric: &FabricCache, rules: &Rules, dn: &EpgDn) -> EpgPurge {
    let mut purge = EpgPurge {
        epg: dn.clone(),
        transactions: Vec::new(),
        objects: BTreeSet::new(),
        relations: BTreeSet::new(),
        stays: None,
    };
    if let Some(epg) = fabric.epg(dn) {
        add_epg(&mut purge, fabric, rules, epg);
    }
    if let Some(tag) = fabric.tag(dn) {
        purge.objects.insert(ObjectDn::Tag(dn.clone()));
        purge.add(RequestShape::Tag, vec![Change::DeleteTag { tag: tag.into() }]);
    }
    purge
}

impl EpgPurge {
    fn add(&mut self, shape: RequestShape, changes: Vec<Change>) {
        self.transactions.push(Transaction { epg: self.epg.clone(), shape, changes });
    }
}

fn add_epg(purge: &mut EpgPurge, fabric: &FabricCache, rules: &Rules, epg: &Epg) {
    let (owner, dn) = (fabric.owner(), purge.epg.clone());
    let may_go: Vec<(&Prefix, &Subnet)> =
        epg.subnets.iter().filter(|(_, subnet)| owner.may_delete(subnet.ownership)).collect();
    purge.objects.extend(may_go.iter().map(|(prefix, _)| ObjectDn::Subnet(dn.clone(), **prefix)));
    let foreign = epg.subnets.len() - may_go.len() + epg.unreadable;
    let is_deletable = owner.may_delete(epg.ownership);
    purge.stays = is_deletable.then(|| why_it_stays(rules, &dn, epg, foreign)).flatten();
    if is_deletable && purge.stays.is_none() {
        purge.objects.insert(ObjectDn::Epg(dn));
        purge.relations.clone_from(&epg.relations);
        let delete = Change::DeleteEpg { subnets: may_go.len(), why: cause(epg.ownership) };
        purge.add(RequestShape::EpgTree, vec![delete]);
        return;
    }
    let deletions = may_go.into_iter().map(|(prefix, subnet)| Change::DeleteSubnet {
        prefix: *prefix,
        before: Box::new(subnet.clone()),
        moves_to: None,
        why: cause(subnet.ownership),
    });
    if epg.ownership == Ownership::Owned {
        let deletions: Vec<Change> = deletions.collect();
        deletions.chunks(rules.batch).for_each(|it| purge.add(RequestShape::EpgTree, it.to_vec()));
    } else {
        deletions.for_each(|it| purge.add(RequestShape::OneSubnet, vec![it]));
    }
}

fn why_it_stays(rules: &Rules, dn: &EpgDn, epg: &Epg, foreign: usize) -> Option<Finding> {
    let text = if foreign > 0 {
        format!("the EPG stays: it holds {}", counted(foreign, "foreign subnet"))
    } else if rules.keep_contracted && !epg.relations.is_empty() {
        let relations = counted(epg.relations.len(), "contract relation");
        format!("the EPG stays: it has {relations} (--keep-contracted)")
    } else {
        return None;
    };
    Some(Finding::new(Code::EpgRetained, dn, text))
}

fn cause(ownership: Ownership) -> Cause {
    if ownership == Ownership::Owned { Cause::Purge } else { Cause::PurgeLegacy }
}
