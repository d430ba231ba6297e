//! What another writer took away of ours, as this process saw it: what is restored (R8), and which contract relations an
//! EEPG had (R7).

use std::collections::{BTreeMap, BTreeSet};

use super::dn::{EepgDn, ObjectDn};
use super::fabric::Eepg;
use super::owner::Mark;

/// What was lost and not restored, or not made up for, yet.
#[derive(Debug, Default)]
pub struct Lost {
    /// Objects of ours that this process saw, and that another writer deleted.
    objects: BTreeSet<ObjectDn>,
    /// The contract relations that EEPGs of ours had when another writer deleted them.
    relations: BTreeMap<EepgDn, BTreeSet<Box<str>>>,
}

impl Lost {
    /// Whether this process saw an object of ours there, and then that another writer had deleted it.
    pub fn has(&self, object: &ObjectDn) -> bool {
        self.objects.contains(object)
    }

    /// The contract relations that an EEPG of ours lost when another writer deleted it.
    pub fn relations(&self, dn: &EepgDn) -> Option<&BTreeSet<Box<str>>> {
        self.relations.get(dn)
    }

    /// What is not wanted any more is of no interest.
    pub(super) fn keep(&mut self, is_wanted: impl Fn(&ObjectDn) -> bool) {
        self.objects.retain(&is_wanted);
        self.relations.retain(|dn, _| is_wanted(&ObjectDn::Eepg(dn.clone())));
    }

    /// An object was created.
    pub(super) fn restored(&mut self, object: &ObjectDn) {
        self.objects.remove(object);
    }

    /// Compares an EEPG as it is read now with what was known of it.
    pub(super) fn note(&mut self, dn: &EepgDn, before: &Eepg, now: Option<&Eepg>) {
        let is_gone = |prefix| now.is_none_or(|now| !now.subnets.contains_key(prefix));
        let subnets = before.subnets.iter().filter(|(prefix, it)| it.mark == Mark::Ours && is_gone(*prefix));
        self.objects.extend(subnets.map(|(prefix, _)| ObjectDn::Subnet(dn.clone(), *prefix)));
        if now.is_none() && before.mark == Mark::Ours {
            self.objects.insert(ObjectDn::Eepg(dn.clone()));
        }
        if now.is_some_and(|it| !it.relations.is_empty()) {
            self.relations.remove(dn);
        } else if !before.relations.is_empty() && before.mark == Mark::Ours && (now.is_none() || before.deleted) {
            self.relations.insert(dn.clone(), before.relations.clone());
        }
    }
}
