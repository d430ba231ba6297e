//! Owned objects that this process saw and that another writer then deleted: what is restored (R8), and which contract
//! relations an EPG had (R7).

use std::collections::{BTreeMap, BTreeSet};

use super::dn::{EpgDn, ObjectDn};
use super::observed::{Epg, contract_of};
use super::owner::Ownership;

/// What was deleted and is not restored yet, and the contract relations that are still missing.
#[derive(Debug, Default)]
pub struct ExternalDeletions {
    /// Owned objects that this process saw, and that another writer deleted.
    objects: BTreeSet<ObjectDn>,
    /// The contract relations that owned EPGs had when another writer deleted them.
    relations: BTreeMap<EpgDn, LostRelations>,
}

#[derive(Debug)]
struct LostRelations {
    all: BTreeSet<Box<str>>,
    /// They were there when the EPG was deleted: every change of the L3Out came as an event, and so did that deletion, before
    /// any of a relation. Otherwise people may have removed one before.
    may_return: bool,
}

impl ExternalDeletions {
    /// Whether this process saw an owned object there, and then that another writer had deleted it.
    pub fn has(&self, object: &ObjectDn) -> bool {
        self.objects.contains(object)
    }

    /// The contract relations that an owned EPG lost when another writer deleted it.
    pub fn relations(&self, dn: &EpgDn) -> Option<&BTreeSet<Box<str>>> {
        Some(&self.relations.get(dn)?.all)
    }

    /// Those of them that may be put back.
    pub fn returning(&self, dn: &EpgDn) -> impl Iterator<Item = &str> {
        let lost = self.relations.get(dn).filter(|it| it.may_return);
        lost.into_iter().flat_map(|it| &it.all).map(|it| &**it).filter(|it| contract_of(it).is_some())
    }

    /// One of them is back: who removes it from now on removes it for good.
    pub(super) fn relation_restored(&mut self, dn: &EpgDn, relation: &str) {
        if let Some(lost) = self.relations.get_mut(dn) {
            lost.all.remove(relation);
            if lost.all.is_empty() {
                self.relations.remove(dn);
            }
        }
    }

    /// The APIC does not take them back.
    pub(super) fn relations_refused(&mut self, dn: &EpgDn) {
        if let Some(lost) = self.relations.get_mut(dn) {
            lost.may_return = false;
        }
    }

    /// Forgets what is not desired any more.
    pub(super) fn keep(&mut self, is_desired: impl Fn(&ObjectDn) -> bool) {
        self.objects.retain(&is_desired);
        self.relations.retain(|dn, _| is_desired(&ObjectDn::Epg(dn.clone())));
    }

    /// An object was created.
    pub(super) fn restored(&mut self, object: &ObjectDn) {
        self.objects.remove(object);
    }

    /// Compares an EPG as it is read now with what was known of it. `is_watched` says that every change since then came as an
    /// event.
    pub(super) fn note(&mut self, dn: &EpgDn, before: &Epg, now: Option<&Epg>, is_watched: bool) {
        let is_gone = |prefix| now.is_none_or(|now| !now.subnets.contains_key(prefix));
        for (prefix, subnet) in &before.subnets {
            if subnet.ownership == Ownership::Owned && is_gone(prefix) {
                self.objects.insert(ObjectDn::Subnet(dn.clone(), *prefix));
            }
        }
        let was_owned = before.ownership == Ownership::Owned;
        if now.is_none() && was_owned {
            self.objects.insert(ObjectDn::Epg(dn.clone()));
        }
        let was_deleted = now.is_none() || before.deleted;
        // Another writer's EPG of that name is another EPG, whatever becomes of it.
        if now.is_some_and(|it| !it.relations.is_empty() || !it.is_ours()) {
            self.relations.remove(dn);
        } else if was_owned && was_deleted && !before.relations.is_empty() {
            // Only an event takes `was_owned` from an EPG that was owned when it was read.
            let may_return = is_watched && before.deleted && !before.was_owned && !before.relation_removed;
            let lost = LostRelations { all: before.relations.clone(), may_return };
            self.relations.insert(dn.clone(), lost);
        }
    }
}
