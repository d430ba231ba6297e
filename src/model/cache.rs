//! The cache: what each L3Out of interest holds, as read and as written since, and whose it is (O1 to O3).

use std::collections::{BTreeMap, BTreeSet};

use super::desired::Vrf;
use super::dn::{EpgDn, L3outDn, Name, ObjectDn, ParsedDn, Prefix};
use super::external_deletions::ExternalDeletions;
use super::mo::{Mo, MoChange, Status};
use super::owner::{OwnerIdentity, Ownership, other_cluster};
use super::plan::{Change, Transaction};
use super::scope::Scope;

/// The class of an L3Out.
pub const L3OUT: &str = "l3extOut";
/// The class of an external EPG.
pub const EPG: &str = "l3extInstP";
/// The class of a subnet of an external EPG.
pub const SUBNET: &str = "l3extSubnet";
/// The class of a tag, such as the one that remembers a foreign EPG (O4).
pub const TAG: &str = "tagAnnotation";
/// The class that ties an L3Out to its VRF.
pub const VRF_RELATION: &str = "l3extRsEctx";
/// The classes of an external EPG's contract relations.
pub const CONTRACTS: [&str; 5] = ["fvRsCons", "fvRsProv", "fvRsConsIf", "fvRsProtBy", "fvRsIntraEpg"];

/// A subnet as the fabric holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The address as the APIC spells it: it names the object in a request.
    pub ip: Box<str>,
    /// Whose it is.
    pub ownership: Ownership,
    /// This process saw our mark on it and has heard of no deletion since (R2).
    pub was_ours: bool,
    /// Its `name`.
    pub name: Box<str>,
    /// Its `scope`.
    pub scope: Scope,
    /// What it was before another writer changed it, where this process saw that (R8).
    pub before_drift: Option<Box<Original>>,
}

/// The attributes of a subnet that aci-sync keeps, as they were before another writer changed them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// The `name`.
    pub name: Box<str>,
    /// The `scope`.
    pub scope: Scope,
}

/// An external EPG as the fabric holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epg {
    /// Whose it is.
    pub ownership: Ownership,
    /// This process saw our mark on it and has heard of no deletion since (R2).
    pub was_ours: bool,
    /// Its subnets.
    pub subnets: BTreeMap<Prefix, Subnet>,
    /// Subnets whose address cannot be read; they are somebody else's.
    pub unreadable: usize,
    /// The ids of other aci-syncs whose marks it or its subnets bear (O6).
    pub other_clusters: BTreeSet<Box<str>>,
    /// Its contract relations by their RNs, where it is ours or a predecessor's (R7).
    pub relations: BTreeSet<Box<str>>,
    /// It may have held a subnet: only what this process created, and has seen empty since, is known to have held none (D6).
    pub may_have_held: bool,
    /// Another writer deleted it since it was read: an event says so, or the answer to a write that made it again.
    pub deleted: bool,
    /// It was read or created in this reconcile (W7).
    pub fresh: bool,
}

impl Epg {
    /// Ours, or ours with its mark taken away (R2).
    pub fn is_ours(&self) -> bool {
        self.ownership == Ownership::Owned || self.was_ours
    }

    /// The EPG was deleted: whatever has this DN from now on was made by another writer, and so was what is in it.
    fn deleted(&mut self) {
        (self.was_ours, self.deleted) = (false, true);
        self.subnets.values_mut().for_each(|it| it.was_ours = false);
    }

    /// Ours, was ours until somebody changed its mark (R2), or becomes ours (O3).
    pub fn belongs_to_us(&self) -> bool {
        self.is_ours() || self.ownership == Ownership::Legacy
    }

    /// D6: nobody can have done anything with it, so that it may go without a grace: it never held a subnet, and has no
    /// contract relations.
    pub fn is_unused(&self) -> bool {
        !self.may_have_held && self.relations.is_empty()
    }

    /// Somebody else's, and no aci-sync's: only such a one is remembered as foreign (O4).
    pub fn is_foreign(&self) -> bool {
        matches!(self.ownership, Ownership::Unmarked | Ownership::Foreign) && !self.was_ours
    }
}

/// What is known of an L3Out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum L3out {
    /// It was looked for and is not there (R3).
    Missing,
    /// It was read.
    Present {
        /// The DN of its VRF, where it could be read.
        vrf: Option<String>,
        /// Its external EPGs.
        epgs: BTreeMap<Name, Epg>,
        /// The foreign EPGs that our tags remember, each with its tag's DN as the APIC spells it (O4).
        tags: BTreeMap<Name, Box<str>>,
    },
}

/// The L3Outs of interest. One that is not in here was not read yet.
#[derive(Debug)]
pub struct FabricCache {
    owner: OwnerIdentity,
    l3outs: BTreeMap<L3outDn, L3out>,
    lost: ExternalDeletions,
}

/// What an event means to the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Staleness {
    /// The cache knows it already, mostly because we did it; or it concerns nothing that the cache holds.
    Fresh,
    /// This EPG or subnet is not what the cache says: its EPG is to be read again.
    Object(ObjectDn),
    /// This L3Out appeared or went: read it again.
    L3out(L3outDn),
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
    pub fn l3outs_with_ours(&self) -> BTreeSet<L3outDn> {
        let is_ours = |it| matches!(it, Ownership::Owned | Ownership::Legacy);
        self.epgs()
            .filter(|(_, epg)| is_ours(epg.ownership) || epg.subnets.values().any(|it| is_ours(it.ownership)))
            .map(|(dn, _)| dn.l3out)
            .chain(self.tags().map(|(dn, _)| dn.l3out))
            .collect()
    }

    /// How many objects are ours (W4).
    pub fn count_ours(&self) -> usize {
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
        let vrf = mos.iter().find(|mo| mo.class == VRF_RELATION && mo.dn == relation).map(|mo| mo.get("tDn"));
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

    /// Compares an event with the cache (W7: our own echo costs no read). The cache itself is changed by reads and
    /// by our own writes only; an event at most says that something has to be read again.
    pub fn staleness_after(&mut self, change: &MoChange) -> Staleness {
        let hint = self.meaning(change);
        if change.status != Status::Deleted {
            return hint;
        }
        match ParsedDn::parse(&change.mo.dn) {
            Some(ParsedDn::Epg(dn)) => {
                if let Some(epg) = self.epg_mut(&dn) {
                    epg.deleted();
                }
            }
            Some(ParsedDn::Subnet(dn, _)) => {
                let subnets = self.epg_mut(&dn).map(|it| &mut it.subnets);
                let subnet = prefix_of(&change.mo.dn).and_then(|it| subnets?.get_mut(&it));
                subnet.into_iter().for_each(|it| it.was_ours = false);
            }
            _ => {}
        }
        hint
    }

    fn meaning(&self, change: &MoChange) -> Staleness {
        let gone = change.status == Status::Deleted;
        let Some(place) = ParsedDn::parse(&change.mo.dn) else { return Staleness::Fresh };
        match (change.mo.class.as_str(), place) {
            (L3OUT, ParsedDn::L3out(dn)) => match self.l3outs.get(&dn) {
                Some(L3out::Present { .. }) if gone => Staleness::L3out(dn),
                Some(L3out::Missing) if !gone => Staleness::L3out(dn),
                _ => Staleness::Fresh,
            },
            (EPG, ParsedDn::Epg(dn)) | (SUBNET, ParsedDn::Subnet(dn, _)) => match self.l3outs.get(&dn.l3out) {
                None => Staleness::Fresh,
                // An L3Out with something in it is there, whatever became of its own event.
                Some(L3out::Missing) if gone => Staleness::Fresh,
                Some(L3out::Missing) => Staleness::L3out(dn.l3out),
                Some(L3out::Present { .. }) if change.mo.class == EPG => self.epg_meaning(dn, change),
                Some(L3out::Present { .. }) => self.subnet_meaning(dn, change),
            },
            (class, ParsedDn::BelowEpg(dn)) if CONTRACTS.contains(&class) => self.relation_meaning(dn, change),
            // The relation to a VRF is resolved after it is made, and may be changed (S3).
            (VRF_RELATION, ParsedDn::BelowL3out(dn)) => match self.l3outs.get(&dn) {
                Some(L3out::Present { vrf, .. })
                    if change.mo.sent("tDn").is_some_and(|it| Some(it) != vrf.as_deref()) =>
                {
                    Staleness::L3out(dn)
                }
                _ => Staleness::Fresh,
            },
            (TAG, ParsedDn::Tag(dn, key)) => match (self.l3outs.get(&dn), self.owner.tagged(&key)) {
                (Some(L3out::Present { tags, .. }), Some(name)) if tags.contains_key(&name) == gone => {
                    Staleness::L3out(dn)
                }
                _ => Staleness::Fresh,
            },
            _ => Staleness::Fresh,
        }
    }

    fn epg_meaning(&self, dn: EpgDn, change: &MoChange) -> Staleness {
        let as_known = match (change.status, self.epg(&dn)) {
            (Status::Deleted, known) => known.is_none(),
            (Status::Created, Some(epg)) => self.owner.classify(change.mo.get("annotation")) == epg.ownership,
            (Status::Modified, Some(epg)) => {
                change.mo.sent("annotation").is_none_or(|it| self.owner.classify(it) == epg.ownership)
            }
            (_, None) => false,
        };
        if as_known { Staleness::Fresh } else { Staleness::Object(ObjectDn::Epg(dn)) }
    }

    /// R7: contract relations matter on EPGs of ours only. Those of an EPG that is not there come and go with it.
    fn relation_meaning(&self, dn: EpgDn, change: &MoChange) -> Staleness {
        let is_there = change.status != Status::Deleted;
        let known = self.epg(&dn).filter(|it| it.belongs_to_us()).map(|it| &it.relations);
        match known {
            Some(known) if known.contains(&*relation(&change.mo)) != is_there => Staleness::Object(ObjectDn::Epg(dn)),
            _ => Staleness::Fresh,
        }
    }

    fn subnet_meaning(&self, dn: EpgDn, change: &MoChange) -> Staleness {
        let Some(prefix) = prefix_of(&change.mo.dn) else { return Staleness::Object(ObjectDn::Epg(dn)) };
        let known = self.epg(&dn).and_then(|epg| epg.subnets.get(&prefix));
        let attribute = |name: &str| {
            let sent = change.mo.sent(name);
            if change.status == Status::Created { Some(sent.unwrap_or_default()) } else { sent }
        };
        let as_known = match (change.status, known) {
            (Status::Deleted, known) => known.is_none(),
            (_, Some(subnet)) => {
                attribute("annotation").is_none_or(|it| self.owner.classify(it) == subnet.ownership)
                    && attribute("name").is_none_or(|it| it == &*subnet.name)
                    && attribute("scope").is_none_or(|it| Scope::parse(it) == subnet.scope)
            }
            (_, None) => false,
        };
        if as_known { Staleness::Fresh } else { Staleness::Object(ObjectDn::Subnet(dn, prefix)) }
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
                        was_ours: true,
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
                        (epg.ownership, epg.was_ours) = (Ownership::Owned, true);
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
                        was_ours: true,
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
                            (subnet.ownership, subnet.was_ours) = (Ownership::Owned, true);
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
                Change::Remember => {
                    tags.insert(dn.name.clone(), dn.l3out.tag(&key).into());
                }
                Change::Forget { .. } => {
                    tags.remove(&dn.name);
                }
            }
        }
    }
}

/// The prefix in a subnet's DN.
fn prefix_of(dn: &str) -> Option<Prefix> {
    match ParsedDn::parse(dn)? {
        ParsedDn::Subnet(_, ip) => ip.parse().ok(),
        _ => None,
    }
}

/// Compares an EPG with what the cache had of it. What was ours may have lost its mark
/// only (R2). NoticeTracker is what
/// of ours has gone or has changed, which only somebody else can have done: our own writes are in the cache already
/// (R5). What falls with its EPG is not told.
fn compare(dn: &EpgDn, before: &Epg, now: Option<&mut Epg>) -> Vec<ObjectDn> {
    let mut reverted = Vec::new();
    let Some(now) = now else {
        reverted.extend((before.ownership == Ownership::Owned).then(|| ObjectDn::Epg(dn.clone())));
        return reverted;
    };
    now.was_ours = still_ours(before.was_ours, now.ownership);
    now.may_have_held = before.may_have_held || before.deleted || !now.subnets.is_empty() || now.unreadable > 0;
    if before.ownership == Ownership::Owned && now.ownership != Ownership::Owned {
        reverted.push(ObjectDn::Epg(dn.clone()));
    }
    for (prefix, before) in &before.subnets {
        let now = now.subnets.get_mut(prefix);
        let as_before = now.as_ref().is_some_and(|now| {
            now.ownership == before.ownership && now.name == before.name && now.scope.has(&before.scope)
        });
        if before.ownership == Ownership::Owned && !as_before {
            reverted.push(ObjectDn::Subnet(dn.clone(), *prefix));
        }
        if let Some(now) = now {
            now.was_ours = still_ours(before.was_ours, now.ownership);
            now.before_drift = original(before).filter(|it| it.name != now.name || !now.scope.has(&it.scope));
        }
    }
    reverted
}

/// What a subnet of ours was before another writer changed it, as far as this process saw it (R8).
fn original(seen: &Subnet) -> Option<Box<Original>> {
    let as_seen = || Box::new(Original { name: seen.name.clone(), scope: seen.scope.clone() });
    seen.before_drift.clone().or_else(|| (seen.ownership == Ownership::Owned).then(as_seen))
}

/// A contract relation by its RN, such as `rscons-web`: a part of messages, so one that no APIC would give is known by
/// its class alone.
pub fn relation(mo: &Mo) -> Box<str> {
    let rn = mo.dn.rsplit('/').next().unwrap_or_default();
    let is_plain = rn.len() <= 128 && rn.bytes().all(|it| it.is_ascii_alphanumeric() || b"_.:-".contains(&it));
    (if is_plain { rn } else { &mo.class }).into()
}

/// Whether an object that was ours is still taken for ours when a read shows this mark (R2). What another aci-sync has
/// marked is its own: two that each took it back would never end (O5).
fn still_ours(was_ours: bool, ownership: Ownership) -> bool {
    ownership == Ownership::Owned || (was_ours && ownership != Ownership::OtherCluster)
}

/// Builds the EPGs of one L3Out out of a flat answer. Objects of other L3Outs in it are passed over.
fn read_epgs(owner: &OwnerIdentity, mos: &[Mo], l3out: &L3outDn) -> BTreeMap<Name, Epg> {
    let mut epgs = BTreeMap::new();
    for mo in mos.iter().filter(|mo| mo.class == EPG) {
        if let Some(ParsedDn::Epg(dn)) = ParsedDn::parse(&mo.dn)
            && dn.l3out == *l3out
        {
            let ownership = owner.classify(mo.get("annotation"));
            let epg = Epg {
                ownership,
                was_ours: ownership == Ownership::Owned,
                subnets: BTreeMap::new(),
                unreadable: 0,
                other_clusters: other_cluster(mo.get("annotation"), ownership).into_iter().collect(),
                relations: BTreeSet::new(),
                may_have_held: true,
                deleted: false,
                fresh: true,
            };
            epgs.insert(dn.name, epg);
        }
    }
    for mo in mos.iter().filter(|mo| CONTRACTS.contains(&mo.class.as_str())) {
        let Some(ParsedDn::BelowEpg(dn)) = ParsedDn::parse(&mo.dn) else { continue };
        if let Some(epg) = epgs.get_mut(&dn.name).filter(|_| dn.l3out == *l3out) {
            epg.relations.insert(relation(mo));
        }
    }
    for mo in mos.iter().filter(|mo| mo.class == SUBNET) {
        let Some(ParsedDn::Subnet(dn, ip)) = ParsedDn::parse(&mo.dn) else { continue };
        let Some(epg) = epgs.get_mut(&dn.name).filter(|_| dn.l3out == *l3out) else { continue };
        let Ok(prefix) = ip.parse() else {
            epg.unreadable += 1;
            continue;
        };
        let ownership = owner.classify(mo.get("annotation"));
        epg.other_clusters.extend(other_cluster(mo.get("annotation"), ownership));
        let subnet = Subnet {
            ip: ip.into(),
            ownership,
            was_ours: ownership == Ownership::Owned,
            name: mo.get("name").into(),
            scope: Scope::parse(mo.get("scope")),
            before_drift: None,
        };
        epg.subnets.insert(prefix, subnet);
    }
    epgs
}
