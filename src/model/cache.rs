//! The cache: what each L3Out of interest was last seen to hold, as read and as written since.

use std::collections::{BTreeMap, BTreeSet};

use super::desired::Vrf;
use super::dn::{EpgDn, L3outDn, Name, ObjectDn, ParsedDn};
use super::external_deletions::ExternalDeletions;
use super::mo::Mo;
use super::observed::{Epg, L3OUT, L3out, Subnet, TAG, VRF_RELATION, compare, prefix_of, read_epgs};
use super::owner::{OwnerIdentity, Ownership};
use super::plan::{Change, Transaction};

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

    /// Whose objects are ours.
    pub fn owner(&self) -> &OwnerIdentity {
        &self.owner
    }

    /// What is known of an L3Out; nothing where it was not read.
    pub fn l3out(&self, dn: &L3outDn) -> Option<&L3out> {
        self.l3outs.get(dn)
    }

    /// The L3Outs that were read.
    pub fn l3outs(&self) -> impl Iterator<Item = &L3outDn> {
        self.l3outs.keys()
    }

    /// The L3Outs that hold something with our mark or a predecessor's, or a tag of ours.
    pub fn l3outs_with_owned(&self) -> BTreeSet<L3outDn> {
        let is_ours = |it| matches!(it, Ownership::Owned | Ownership::Legacy);
        self.epgs()
            .filter(|(_, epg)| is_ours(epg.ownership) || epg.subnets.values().any(|it| is_ours(it.ownership)))
            .map(|(dn, _)| dn.l3out)
            .chain(self.tags().map(|(dn, _)| dn.l3out))
            .collect()
    }

    /// How many objects are ours (W4).
    pub fn count_owned(&self) -> usize {
        let ours = |epg: &Epg| {
            usize::from(epg.ownership == Ownership::Owned)
                + epg.subnets.values().filter(|it| it.ownership == Ownership::Owned).count()
        };
        self.epgs().map(|(_, epg)| ours(epg)).sum::<usize>() + self.tags().count()
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

    /// The tag of ours that remembers that an EPG is not ours (O4).
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

    fn epg_mut(&mut self, dn: &EpgDn) -> Option<&mut Epg> {
        match self.l3outs.get_mut(&dn.l3out)? {
            L3out::Present { epgs, .. } => epgs.get_mut(&dn.name),
            L3out::Missing => None,
        }
    }

    /// The VRF of an L3Out (S3).
    pub fn vrf(&self, dn: &L3outDn) -> Vrf {
        match self.l3outs.get(dn) {
            Some(L3out::Present { vrf: Some(vrf), .. }) => Vrf::Known(vrf.clone()),
            _ => Vrf::Own(dn.clone()),
        }
    }

    /// A new reconcile begins: nothing was read in it yet (W7).
    pub fn begin_reconcile(&mut self) {
        for l3out in self.l3outs.values_mut() {
            if let L3out::Present { epgs, .. } = l3out {
                epgs.values_mut().for_each(|it| it.fresh = false);
            }
        }
    }

    /// An L3Out is of no interest any more.
    pub fn forget(&mut self, dn: &L3outDn) {
        self.l3outs.remove(dn);
    }

    /// What another writer took away of ours (R7, R8).
    pub fn lost(&self) -> &ExternalDeletions {
        &self.lost
    }

    /// What is remembered of objects that are not desired any more is forgotten.
    pub fn keep(&mut self, is_desired: impl Fn(&ObjectDn) -> bool) {
        self.lost.keep(is_desired);
    }

    /// The answer to a write shows that the write created what another writer had just deleted.
    pub fn recreated(&mut self, dn: &EpgDn) {
        self.epg_mut(dn).into_iter().for_each(|it| it.deleted = true);
    }

    /// Takes over the answer to a read of a whole L3Out: its own object, EPGs, subnets and tags (R3), and
    /// the relation to its VRF.
    /// What of ours somebody else took away or changed since the cache last saw it is told (R5).
    pub fn put_l3out(&mut self, dn: &L3outDn, mos: &[Mo]) -> Vec<ObjectDn> {
        let present =
            mos.iter().any(|mo| mo.class == L3OUT && ParsedDn::parse(&mo.dn) == Some(ParsedDn::L3out(dn.clone())));
        if !present {
            if let Some(L3out::Present { epgs, .. }) = self.l3outs.insert(dn.clone(), L3out::Missing) {
                epgs.iter().for_each(|(name, before)| self.lost.note(&dn.epg(name.clone()), before, None));
            }
            return Vec::new();
        }
        let relation = format!("{dn}/rsectx");
        let vrf = mos
            .iter()
            .find(|mo| mo.class == VRF_RELATION && mo.dn == relation)
            .and_then(|mo| mo.attributes.target_dn.as_deref());
        let vrf = vrf.filter(|it| !it.is_empty()).map(str::to_owned);
        let mut epgs = read_epgs(&self.owner, mos, dn);
        let mut reverted = Vec::new();
        let tags = mos.iter().filter(|mo| mo.class == TAG).filter_map(|mo| match ParsedDn::parse(&mo.dn)? {
            ParsedDn::Tag(l3out, key) if l3out == *dn => Some((self.owner.tagged(&key)?, mo.dn.as_str().into())),
            _ => None,
        });
        let tags: BTreeMap<Name, Box<str>> = tags.collect();
        if let Some(L3out::Present { epgs: before, tags: tags_before, .. }) = self.l3outs.remove(dn) {
            for (name, before) in before {
                let epg = dn.epg(name.clone());
                reverted.extend(compare(&epg, &before, epgs.get_mut(&name)));
                self.lost.note(&epg, &before, epgs.get(&name));
            }
            let gone = tags_before.keys().filter(|name| !tags.contains_key(name));
            reverted.extend(gone.map(|name| ObjectDn::Tag(dn.epg(name.clone()))));
        }
        self.l3outs.insert(dn.clone(), L3out::Present { vrf, epgs, tags });
        reverted
    }

    /// Takes over the answer to a read of one whole EPG with its subnets and contract relations (W7). What was
    /// undone is returned as by [`Fabric::put_l3out`].
    pub fn put_epg(&mut self, dn: &EpgDn, mos: &[Mo]) -> Vec<ObjectDn> {
        let mut epg = read_epgs(&self.owner, mos, &dn.l3out).remove(&dn.name);
        let Some(L3out::Present { epgs, .. }) = self.l3outs.get_mut(&dn.l3out) else { return Vec::new() };
        let before = epgs.remove(&dn.name);
        let Some(before) = before else {
            epgs.extend(epg.map(|it| (dn.name.clone(), it)));
            return Vec::new();
        };
        let reverted = compare(dn, &before, epg.as_mut());
        self.lost.note(dn, &before, epg.as_ref());
        if let Some(L3out::Present { epgs, .. }) = self.l3outs.get_mut(&dn.l3out) {
            epgs.extend(epg.map(|it| (dn.name.clone(), it)));
        }
        reverted
    }

    /// An event says that an object was deleted: whatever has its DN from now on was created by another writer (R2).
    pub(super) fn deleted(&mut self, dn: &str) {
        match ParsedDn::parse(dn) {
            Some(ParsedDn::Epg(dn)) => {
                if let Some(epg) = self.epg_mut(&dn) {
                    epg.deleted();
                }
            }
            Some(ParsedDn::Subnet(epg, _)) => {
                if let Some(prefix) = prefix_of(dn)
                    && let Some(subnet) = self.epg_mut(&epg).and_then(|it| it.subnets.get_mut(&prefix))
                {
                    subnet.was_owned = false;
                }
            }
            _ => {}
        }
    }

    /// A transaction was taken by the APIC: the cache follows, so that its echo says nothing new.
    pub fn apply(&mut self, transaction: &Transaction) {
        let dn = &transaction.epg;
        let key = self.owner.tag_key(&dn.name);
        let Some(L3out::Present { epgs, tags, .. }) = self.l3outs.get_mut(&dn.l3out) else { return };
        for change in &transaction.changes {
            match change {
                Change::CreateEpg { .. } => {
                    let epg = Epg {
                        ownership: Ownership::Owned,
                        was_owned: true,
                        subnets: BTreeMap::new(),
                        unreadable: 0,
                        other_clusters: BTreeSet::new(),
                        relations: BTreeSet::new(),
                        may_have_held: false,
                        deleted: false,
                        fresh: true,
                    };
                    self.lost.restored(&ObjectDn::Epg(dn.clone()));
                    epgs.insert(dn.name.clone(), epg);
                }
                Change::SetEpgOwner { .. } => {
                    if let Some(epg) = epgs.get_mut(&dn.name) {
                        (epg.ownership, epg.was_owned) = (Ownership::Owned, true);
                    }
                }
                Change::DeleteEpg { .. } => {
                    epgs.remove(&dn.name);
                }
                Change::CreateSubnet { prefix, name, scope, .. } => {
                    self.lost.restored(&ObjectDn::Subnet(dn.clone(), *prefix));
                    let subnet = Subnet {
                        ip: prefix.to_string().into(),
                        ownership: Ownership::Owned,
                        was_owned: true,
                        name: name.as_str().into(),
                        scope: scope.clone(),
                        before_drift: None,
                    };
                    if let Some(epg) = epgs.get_mut(&dn.name) {
                        epg.may_have_held = true;
                        epg.subnets.insert(*prefix, subnet);
                    }
                }
                Change::RepairSubnet { prefix, set_owner, name, scope, .. } => {
                    let subnet = epgs.get_mut(&dn.name).and_then(|it| it.subnets.get_mut(prefix));
                    if let Some(subnet) = subnet {
                        subnet.before_drift = None;
                        if *set_owner {
                            (subnet.ownership, subnet.was_owned) = (Ownership::Owned, true);
                        }
                        if let Some(name) = name {
                            subnet.name = name.as_str().into();
                        }
                        if let Some(scope) = scope {
                            subnet.scope = scope.clone();
                        }
                    }
                }
                Change::DeleteSubnet { prefix, .. } => {
                    if let Some(epg) = epgs.get_mut(&dn.name) {
                        epg.subnets.remove(prefix);
                    }
                }
                Change::CreateTag => {
                    tags.insert(dn.name.clone(), dn.l3out.tag(&key).into());
                }
                Change::DeleteTag { .. } => {
                    tags.remove(&dn.name);
                }
            }
        }
    }
}
