//! The cache: what each L3Out of interest was last seen to hold, as read and as written since.

use std::collections::{BTreeMap, BTreeSet};

use super::desired::Vrf;
use super::dn::{EpgDn, L3outDn, ObjectDn, ParsedDn};
use super::external_deletions::ExternalDeletions;
use super::mo::Mo;
use super::observed::{Epg, L3OUT, L3out, Subnet, compare, prefix_of, read_epgs, read_tags, read_vrf, relation};
use super::owner::{OwnerIdentity, Ownership};
use super::plan::{Change, Transaction};

/// After so many changes at once the subnets of an EPG are worth a new map.
const MANY: usize = 50;

/// The L3Outs of interest. One that is not in here was not read yet.
#[derive(Debug)]
pub struct FabricCache {
    owner: OwnerIdentity,
    l3outs: BTreeMap<L3outDn, L3out>,
    lost: ExternalDeletions,
}

impl FabricCache {
    /// An empty cache.
    pub fn new(owner: OwnerIdentity) -> Self {
        FabricCache { owner, l3outs: BTreeMap::new(), lost: ExternalDeletions::default() }
    }

    /// By which objects are recognized as ours.
    pub fn owner(&self) -> &OwnerIdentity {
        &self.owner
    }

    /// What is known of an L3Out; nothing if it was not read.
    pub fn l3out(&self, dn: &L3outDn) -> Option<&L3out> {
        self.l3outs.get(dn)
    }

    /// The L3Outs that were read.
    pub fn l3outs(&self) -> impl Iterator<Item = &L3outDn> {
        self.l3outs.keys()
    }

    /// The L3Outs that hold something owned or legacy, or a tag of ours.
    pub fn l3outs_with_owned(&self) -> BTreeSet<L3outDn> {
        let counts = |it| matches!(it, Ownership::Owned | Ownership::Legacy);
        let holds_any = |epg: &Epg| counts(epg.ownership) || epg.subnets.values().any(|it| counts(it.ownership));
        let epgs = self.epgs().filter(|(_, epg)| holds_any(epg)).map(|(dn, _)| dn.l3out);
        epgs.chain(self.tags().map(|(dn, _)| dn.l3out)).collect()
    }

    /// The number of owned objects (W4).
    pub fn count_owned(&self) -> usize {
        let mut count = self.tags().count();
        for (_, epg) in self.epgs() {
            count += usize::from(epg.ownership == Ownership::Owned);
            count += epg.subnets.values().filter(|it| it.ownership == Ownership::Owned).count();
        }
        count
    }

    /// Our tags: the EPG that each is about, and its own DN (O4).
    pub fn tags(&self) -> impl Iterator<Item = (EpgDn, &str)> {
        self.l3outs.iter().flat_map(|(dn, l3out)| {
            let tags = match l3out {
                L3out::Present { tags, .. } => Some(tags),
                L3out::Missing => None,
            };
            tags.into_iter().flatten().map(|(name, tag)| (dn.epg(name.clone()), &**tag))
        })
    }

    /// Our tag that marks an EPG as foreign (O4).
    pub fn tag(&self, dn: &EpgDn) -> Option<&str> {
        match self.l3outs.get(&dn.l3out)? {
            L3out::Present { tags, .. } => tags.get(&dn.name).map(|tag| &**tag),
            L3out::Missing => None,
        }
    }

    /// Whether there is such a tag.
    pub fn is_tagged(&self, dn: &EpgDn) -> bool {
        self.tag(dn).is_some()
    }

    /// All external EPGs that the cache holds.
    pub fn epgs(&self) -> impl Iterator<Item = (EpgDn, &Epg)> {
        self.l3outs.iter().flat_map(|(dn, l3out)| {
            let epgs = match l3out {
                L3out::Present { epgs, .. } => Some(epgs),
                L3out::Missing => None,
            };
            epgs.into_iter().flatten().map(|(name, epg)| (dn.epg(name.clone()), epg))
        })
    }

    /// One external EPG.
    pub fn epg(&self, dn: &EpgDn) -> Option<&Epg> {
        match self.l3outs.get(&dn.l3out)? {
            L3out::Present { epgs, .. } => epgs.get(&dn.name),
            L3out::Missing => None,
        }
    }

    /// An EPG that changes: it is not settled any more.
    fn epg_mut(&mut self, dn: &EpgDn) -> Option<&mut Epg> {
        let Some(L3out::Present { epgs, .. }) = self.l3outs.get_mut(&dn.l3out) else { return None };
        let epg = epgs.get_mut(&dn.name)?;
        epg.settled = false;
        Some(epg)
    }

    /// The VRF of an L3Out (S3).
    pub fn vrf(&self, dn: &L3outDn) -> Vrf {
        match self.l3outs.get(dn) {
            Some(L3out::Present { vrf: Some(vrf), .. }) => Vrf::Known(vrf.clone()),
            _ => Vrf::Own(dn.clone()),
        }
    }

    /// A reconcile begins: nothing was read in it yet (W7).
    pub fn begin_reconcile(&mut self) {
        for l3out in self.l3outs.values_mut() {
            if let L3out::Present { epgs, .. } = l3out {
                epgs.values_mut().for_each(|it| it.fresh = false);
            }
        }
    }

    /// A plan has found nothing to do and nothing to say about these EPGs, so those to come leave them out until they change.
    pub fn settle(&mut self, epgs: &[EpgDn]) {
        for dn in epgs {
            if let Some(epg) = self.epg_mut(dn) {
                epg.settled = true;
            }
        }
    }

    /// Something else is desired in this EPG.
    pub fn unsettle(&mut self, dn: &EpgDn) {
        self.epg_mut(dn);
    }

    /// Something else is desired, perhaps everywhere.
    pub fn unsettle_all(&mut self) {
        for l3out in self.l3outs.values_mut() {
            if let L3out::Present { epgs, .. } = l3out {
                epgs.values_mut().for_each(|it| it.settled = false);
            }
        }
    }

    /// Forgets an L3Out that is not relevant any more.
    pub fn forget(&mut self, dn: &L3outDn) {
        self.l3outs.remove(dn);
    }

    /// What another writer deleted (R7, R8).
    pub fn lost(&self) -> &ExternalDeletions {
        &self.lost
    }

    /// Forgets what another writer deleted and is not desired any more.
    pub fn keep(&mut self, is_desired: impl Fn(&ObjectDn) -> bool) {
        self.lost.keep(is_desired);
    }

    /// R7: an L3Out is neither subscribed nor read. People may do anything there without an event.
    pub fn unwatched(&mut self, dn: &L3outDn) {
        self.lost.all_in_doubt(dn);
    }

    /// R7: the APIC does not take back the contract relations that an EPG had.
    pub fn relations_refused(&mut self, dn: &EpgDn) {
        self.lost.relations_stay_away(dn);
    }

    /// The answer to a write shows that the write created what another writer had just deleted. `with_relations`: what relations
    /// there are were in that write.
    pub fn recreated(&mut self, dn: &EpgDn, with_relations: bool) {
        let Some(L3out::Present { epgs, .. }) = self.l3outs.get_mut(&dn.l3out) else { return };
        if let Some(epg) = epgs.get_mut(&dn.name) {
            if !with_relations {
                self.lost.epg_lost(dn, epg, epg.deletion.clone());
                epg.relations.clear();
            }
            (epg.may_have_held, epg.settled) = (true, false);
        }
    }

    /// Takes the answer to a read of a whole L3Out: its own object, EPGs, subnets and tags (R3), and the relation to its VRF.
    /// Returns the owned objects that another writer deleted or changed since the cache last saw them (R5). `is_watched` says
    /// that every change since then came as an event (R7).
    pub fn put_l3out(&mut self, dn: &L3outDn, mos: &[Mo], is_watched: bool) -> Vec<ObjectDn> {
        let this = Some(ParsedDn::L3out(dn.clone()));
        if !mos.iter().any(|mo| mo.class == L3OUT && ParsedDn::parse(&mo.dn) == this) {
            if let Some(L3out::Present { epgs, .. }) = self.l3outs.insert(dn.clone(), L3out::Missing) {
                epgs.iter().for_each(|(name, before)| self.lost.note(&dn.epg(name.clone()), before, None));
            }
            // Once it is back, events about what is made below it may be lost (R3).
            self.lost.all_in_doubt(dn);
            return Vec::new();
        }
        let mut epgs = read_epgs(&self.owner, mos, dn);
        let tags = read_tags(&self.owner, mos, dn);
        let mut reverted = Vec::new();
        if let Some(L3out::Present { epgs: epgs_before, tags: tags_before, .. }) = self.l3outs.remove(dn) {
            for (name, before) in epgs_before {
                let epg = dn.epg(name.clone());
                reverted.extend(compare(&epg, &before, epgs.get_mut(&name)));
                self.lost.note(&epg, &before, epgs.get(&name));
            }
            let gone = tags_before.into_keys().filter(|name| !tags.contains_key(name));
            reverted.extend(gone.map(|name| ObjectDn::Tag(dn.epg(name))));
        }
        epgs.iter().for_each(|(name, now)| self.lost.found(dn, name, now));
        self.lost.was_read(dn, is_watched);
        self.l3outs.insert(dn.clone(), L3out::Present { vrf: read_vrf(mos, dn), epgs, tags });
        reverted
    }

    /// Takes the answer to a read of one whole EPG with its subnets and contract relations (W7). Returns what
    /// [`FabricCache::put_l3out`] returns.
    pub fn put_epg(&mut self, dn: &EpgDn, mos: &[Mo], is_watched: bool) -> Vec<ObjectDn> {
        let Some(L3out::Present { epgs, .. }) = self.l3outs.get_mut(&dn.l3out) else { return Vec::new() };
        let mut now = read_epgs(&self.owner, mos, &dn.l3out).remove(&dn.name);
        let mut reverted = Vec::new();
        if let Some(before) = epgs.remove(&dn.name) {
            reverted = compare(dn, &before, now.as_mut());
            self.lost.note(dn, &before, now.as_ref());
        }
        if let Some(now) = now {
            self.lost.found(&dn.l3out, &dn.name, &now);
            epgs.insert(dn.name.clone(), now);
        }
        self.lost.was_read(&dn.l3out, is_watched);
        reverted
    }

    /// An event says that an object was deleted, at this time: whatever has its DN from now on was created by another writer (R2).
    pub(super) fn deleted(&mut self, mo: &Mo) {
        let at = mo.attributes.modified.as_deref();
        match ParsedDn::parse(&mo.dn) {
            Some(ParsedDn::L3out(dn)) => {
                self.lost.all_in_doubt(&dn);
                if let Some(L3out::Present { epgs, .. }) = self.l3outs.get_mut(&dn) {
                    epgs.values_mut().for_each(Epg::deleted_with_l3out);
                }
            }
            Some(ParsedDn::Epg(dn)) => {
                self.lost.epg_deleted(&dn, at);
                if let Some(epg) = self.epg_mut(&dn) {
                    epg.deleted(at);
                }
            }
            Some(ParsedDn::Subnet(epg, _)) => {
                if let Some(prefix) = prefix_of(&mo.dn)
                    && let Some(subnet) = self.epg_mut(&epg).and_then(|it| it.subnets.get_mut(&prefix))
                {
                    subnet.was_owned = false;
                }
            }
            Some(ParsedDn::BelowEpg(dn)) => {
                let relation = relation(mo);
                self.lost.relation_deleted(&dn, &relation, at);
                if let Some(epg) = self.epg_mut(&dn).filter(|it| it.relations.contains(&relation)) {
                    epg.deletion.relation_deleted(at);
                }
            }
            _ => {}
        }
    }

    /// An event says that another writer created an EPG: ours is gone (R2).
    pub(super) fn created_by_another(&mut self, dn: &EpgDn) {
        self.relations_in_doubt(dn);
        if let Some(epg) = self.epg_mut(dn) {
            epg.replaced();
        }
    }

    /// R7: another writer has made an EPG or a contract relation of it, or an event was late. What was heard of a deletion may be
    /// about another EPG.
    pub fn relations_in_doubt(&mut self, dn: &EpgDn) {
        self.lost.relations_stay_away(dn);
        if let Some(epg) = self.epg_mut(dn) {
            epg.deletion.in_doubt();
        }
    }

    /// The APIC did a transaction: the cache follows, so that its echo is nothing new.
    pub fn apply(&mut self, transaction: &Transaction) {
        for change in &transaction.changes {
            self.apply_change(&transaction.epg, change);
        }
        if let Some(epg) = self.epg_mut(&transaction.epg)
            && transaction.changes.len() > MANY
        {
            epg.compact();
        }
    }

    fn apply_change(&mut self, dn: &EpgDn, change: &Change) {
        let Some(L3out::Present { epgs, tags, .. }) = self.l3outs.get_mut(&dn.l3out) else { return };
        match change {
            Change::CreateEpg { .. } => {
                self.lost.restored(&ObjectDn::Epg(dn.clone()));
                epgs.insert(dn.name.clone(), Epg::created());
            }
            Change::SetEpgOwner { .. } => {
                if let Some(epg) = epgs.get_mut(&dn.name) {
                    (epg.ownership, epg.was_owned) = (Ownership::Owned, true);
                }
            }
            Change::DeleteEpg { .. } => {
                epgs.remove(&dn.name);
            }
            Change::CreateSubnet { prefix, source, scope, .. } => {
                self.lost.restored(&ObjectDn::Subnet(dn.clone(), *prefix));
                if let Some(epg) = epgs.get_mut(&dn.name) {
                    epg.may_have_held = true;
                    epg.subnets.insert(*prefix, Subnet::created(source.subnet_name(), scope));
                }
            }
            Change::RepairSubnet { prefix, set_owner, name, scope, .. } => {
                if let Some(subnet) = epgs.get_mut(&dn.name).and_then(|it| it.subnets.get_mut(prefix)) {
                    subnet.repaired(*set_owner, name.as_deref(), scope.as_ref());
                }
            }
            Change::DeleteSubnet { prefix, .. } => {
                if let Some(epg) = epgs.get_mut(&dn.name) {
                    epg.subnets.remove(prefix);
                }
            }
            Change::RestoreRelation { relation } => {
                self.lost.relations_restored(dn);
                if let Some(epg) = epgs.get_mut(&dn.name) {
                    epg.relations.insert(relation.clone());
                }
            }
            Change::CreateTag => {
                let tag = dn.l3out.tag(&self.owner.tag_key(&dn.name));
                tags.insert(dn.name.clone(), tag.into());
            }
            Change::DeleteTag { .. } => {
                tags.remove(&dn.name);
            }
        }
    }
}
