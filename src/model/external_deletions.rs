//! What another writer took away of ours, as this process saw it: what is restored (R8), and which contract relations an
//! EPG had (R7).

use std::collections::{BTreeMap, BTreeSet};

use super::dn::{EpgDn, ObjectDn};
use super::observed::Epg;
use super::owner::Ownership;

/// What was lost and not restored, or not made up for, yet.
#[derive(Debug, Default)]
pub struct ExternalDeletions {
    /// Objects of ours that this process saw, and that another writer deleted.
    objects: BTreeSet<ObjectDn>,
    /// The contract relations that EPGs of ours had when another writer deleted them.
    relations: BTreeMap<EpgDn, BTreeSet<Box<str>>>,
}

impl ExternalDeletions {
    /// Whether this process saw an object of ours there, and then that another writer had deleted it.
    pub fn has(&self, object: &ObjectDn) -> bool {
        self.objects.contains(object)
    }

    /// The contract relations that an EPG of ours lost when another writer deleted it.
    pub fn relations(&self, dn: &EpgDn) -> Option<&BTreeSet<Box<str>>> {
        self.relations.get(dn)
    }

    /// What is not desired any more is of no interest.
    pub(super) fn keep(&mut self, is_desired: impl Fn(&ObjectDn) -> bool) {
        self.objects.retain(&is_desired);
        self.relations.retain(|dn, _| is_desired(&ObjectDn::Epg(dn.clone())));
    }

    /// An object was created.
    pub(super) fn restored(&mut self, object: &ObjectDn) {
        self.objects.remove(object);
    }

    /// Compares an EPG as it is read now with what was known of it.
    pub(super) fn note(&mut self, dn: &EpgDn, before: &Epg, now: Option<&Epg>) {
        let is_gone = |prefix| now.is_none_or(|now| !now.subnets.contains_key(prefix));
        let subnets = before.subnets.iter().filter(|(prefix, it)| it.ownership == Ownership::Owned && is_gone(*prefix));
        self.objects.extend(subnets.map(|(prefix, _)| ObjectDn::Subnet(dn.clone(), *prefix)));
        if now.is_none() && before.ownership == Ownership::Owned {
            self.objects.insert(ObjectDn::Epg(dn.clone()));
        }
        if now.is_some_and(|it| !it.relations.is_empty()) {
            self.relations.remove(dn);
        } else if !before.relations.is_empty()
            && before.ownership == Ownership::Owned
            && (now.is_none() || before.deleted)
        {
            self.relations.insert(dn.clone(), before.relations.clone());
        }
    }
}
