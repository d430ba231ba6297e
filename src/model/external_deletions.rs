//! Owned objects that this process saw and that another writer then deleted: what is restored (R8), and which contract
//! relations an EPG had (R7).

use std::collections::{BTreeMap, BTreeSet};

use super::dn::{EpgDn, L3outDn, Name, ObjectDn};
use super::observed::{Epg, contract_of};
use super::owner::Ownership;

/// How another writer deleted an EPG, as far as events have said (R7).
///
/// The order of parents and children is not established. But what falls with its parent has the same time of change as that
/// (reference: `modTs` in recorded events of a deleted tenant), and what people remove before has an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Deletion {
    /// No event has said that the EPG is gone, or a contract relation of it.
    #[default]
    Unheard,
    /// Contract relations are gone: at this time, or, without one, at times that differ or are not known.
    OfRelations(Option<Box<str>>),
    /// The EPG is gone, since this time if it is known, and its contract relations went with it.
    Whole(Option<Box<str>>),
    /// The EPG is gone, and people may have removed a relation before, or changed something since.
    InDoubt,
}

impl Deletion {
    /// The EPG is gone.
    pub fn is_heard(&self) -> bool {
        matches!(self, Deletion::Whole(_) | Deletion::InDoubt)
    }

    /// An event says that a contract relation is gone.
    pub(super) fn relation_deleted(&mut self, at: Option<&str>) {
        *self = match self {
            Deletion::Unheard => Deletion::OfRelations(at.map(Into::into)),
            Deletion::OfRelations(before) if before.as_deref() != at => Deletion::OfRelations(None),
            Deletion::OfRelations(_) | Deletion::Whole(_) | Deletion::InDoubt => return,
        };
    }

    /// An event says that the EPG is gone.
    pub(super) fn epg_deleted(&mut self, at: Option<&str>) {
        *self = match self {
            Deletion::Unheard => Deletion::Whole(at.map(Into::into)),
            Deletion::OfRelations(Some(before)) | Deletion::Whole(Some(before)) if Some(&**before) == at => {
                Deletion::Whole(at.map(Into::into))
            }
            // If it was deleted twice, what was heard first is about an EPG before this one.
            Deletion::OfRelations(_) | Deletion::Whole(_) | Deletion::InDoubt => Deletion::InDoubt,
        };
    }

    /// What was heard may be about another EPG.
    pub(super) fn in_doubt(&mut self) {
        if self.is_heard() {
            *self = Deletion::InDoubt;
        }
    }
}

/// What was deleted and is not restored yet, and the contract relations that are still missing.
#[derive(Debug, Default)]
pub struct ExternalDeletions {
    /// Owned objects that this process saw, and that another writer deleted.
    objects: BTreeSet<ObjectDn>,
    /// The contract relations that owned EPGs had when another writer deleted them.
    relations: BTreeMap<L3outDn, BTreeMap<Name, LostRelations>>,
}

#[derive(Debug)]
struct LostRelations {
    all: BTreeSet<Box<str>>,
    /// A read may show that the EPG is gone before the events do.
    deletion: Deletion,
}

impl ExternalDeletions {
    /// Whether this process saw an owned object there, and then that another writer had deleted it.
    pub fn has(&self, object: &ObjectDn) -> bool {
        self.objects.contains(object)
    }

    fn lost(&self, dn: &EpgDn) -> Option<&LostRelations> {
        self.relations.get(&dn.l3out)?.get(&dn.name)
    }

    fn lost_mut(&mut self, dn: &EpgDn) -> Option<&mut LostRelations> {
        self.relations.get_mut(&dn.l3out)?.get_mut(&dn.name)
    }

    /// The contract relations that an owned EPG lost when another writer deleted it.
    pub fn relations(&self, dn: &EpgDn) -> Option<&BTreeSet<Box<str>>> {
        Some(&self.lost(dn)?.all)
    }

    /// Those of them that may be put back.
    pub fn returning(&self, dn: &EpgDn) -> impl Iterator<Item = &str> {
        let lost = self.lost(dn).filter(|it| matches!(it.deletion, Deletion::Whole(_)));
        lost.into_iter().flat_map(|it| &it.all).map(|it| &**it).filter(|it| contract_of(it).is_some())
    }

    /// They are back: who removes one from now on removes it for good.
    pub(super) fn relations_restored(&mut self, dn: &EpgDn) {
        if let Some(lost) = self.relations.get_mut(&dn.l3out) {
            lost.remove(&dn.name);
        }
    }

    /// The APIC does not take them back, or another writer has made something there.
    pub(super) fn relations_stay_away(&mut self, dn: &EpgDn) {
        if let Some(lost) = self.lost_mut(dn) {
            lost.deletion = Deletion::InDoubt;
        }
    }

    /// An L3Out was read. Unless every change since the last read came as an event, people may have done anything.
    pub(super) fn was_read(&mut self, l3out: &L3outDn, is_watched: bool) {
        if !is_watched {
            self.all_in_doubt(l3out);
        }
    }

    /// An L3Out is gone, or events about what is below it may be lost.
    pub(super) fn all_in_doubt(&mut self, l3out: &L3outDn) {
        let lost = self.relations.get_mut(l3out).into_iter().flat_map(BTreeMap::values_mut);
        lost.for_each(|it| it.deletion = Deletion::InDoubt);
    }

    /// An event says that a contract relation is gone.
    pub(super) fn relation_deleted(&mut self, dn: &EpgDn, relation: &str, at: Option<&str>) {
        if let Some(lost) = self.lost_mut(dn).filter(|it| it.all.contains(relation)) {
            lost.deletion.relation_deleted(at);
        }
    }

    /// An event says that an EPG is gone.
    pub(super) fn epg_deleted(&mut self, dn: &EpgDn, at: Option<&str>) {
        if let Some(lost) = self.lost_mut(dn) {
            lost.deletion.epg_deleted(at);
        }
    }

    /// Forgets what is not desired any more.
    pub(super) fn keep(&mut self, is_desired: impl Fn(&ObjectDn) -> bool) {
        self.objects.retain(&is_desired);
        self.relations.retain(|l3out, lost| {
            lost.retain(|name, _| is_desired(&ObjectDn::Epg(l3out.epg(name.clone()))));
            !lost.is_empty()
        });
    }

    /// An object was created.
    pub(super) fn restored(&mut self, object: &ObjectDn) {
        self.objects.remove(object);
    }

    /// Another writer deleted an EPG, as it was known.
    pub(super) fn epg_lost(&mut self, dn: &EpgDn, before: &Epg, deletion: Deletion) {
        if before.ownership == Ownership::Owned && !before.relations.is_empty() {
            let lost = LostRelations { all: before.relations.clone(), deletion };
            self.relations.entry(dn.l3out.clone()).or_default().insert(dn.name.clone(), lost);
        }
    }

    /// Compares an EPG as it is read now with what was known of it.
    pub(super) fn note(&mut self, dn: &EpgDn, before: &Epg, now: Option<&Epg>) {
        let is_gone = |prefix| now.is_none_or(|now| !now.subnets.contains_key(prefix));
        for (prefix, subnet) in &before.subnets {
            if subnet.ownership == Ownership::Owned && is_gone(prefix) {
                self.objects.insert(ObjectDn::Subnet(dn.clone(), *prefix));
            }
        }
        if now.is_none() && before.ownership == Ownership::Owned {
            self.objects.insert(ObjectDn::Epg(dn.clone()));
        }
        match now {
            None => self.epg_lost(dn, before, before.deletion.clone()),
            // The event may be a late one about an EPG before this one, of which people have removed relations since.
            Some(_) if before.deletion.is_heard() => self.epg_lost(dn, before, Deletion::InDoubt),
            Some(_) => {}
        }
    }

    /// An EPG is there, as it was read now. Another writer's EPG of that name is another EPG, whatever becomes of it.
    pub(super) fn found(&mut self, l3out: &L3outDn, name: &Name, now: &Epg) {
        if (!now.relations.is_empty() || !now.is_ours())
            && let Some(lost) = self.relations.get_mut(l3out)
        {
            lost.remove(name);
        }
    }
}
