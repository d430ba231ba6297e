//! What the fabric holds, as objects of the APIC decode into it: L3Outs, external EPGs and subnets, and whose they are
//! (O1 to O3). What is kept of it over time is the cache's.

use std::collections::{BTreeMap, BTreeSet};

use super::dn::{EpgDn, L3outDn, Name, ObjectDn, ParsedDn, Prefix};
use super::mo::Mo;
use super::owner::{OwnerIdentity, Ownership, other_cluster};
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
    pub was_owned: bool,
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
    pub was_owned: bool,
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
        self.ownership == Ownership::Owned || self.was_owned
    }

    /// The EPG was deleted: whatever has this DN from now on was made by another writer, and so was what is in it.
    pub(super) fn deleted(&mut self) {
        (self.was_owned, self.deleted) = (false, true);
        self.subnets.values_mut().for_each(|it| it.was_owned = false);
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
        matches!(self.ownership, Ownership::Unmarked | Ownership::Foreign) && !self.was_owned
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

/// The prefix in a subnet's DN.
pub(super) fn prefix_of(dn: &str) -> Option<Prefix> {
    match ParsedDn::parse(dn)? {
        ParsedDn::Subnet(_, ip) => ip.parse().ok(),
        _ => None,
    }
}

/// A contract relation by its RN, such as `rscons-web`: a part of messages, so one that no APIC would give is known by
/// its class alone.
pub fn relation(mo: &Mo) -> Box<str> {
    let rn = mo.dn.rsplit('/').next().unwrap_or_default();
    let is_plain = rn.len() <= 128 && rn.bytes().all(|it| it.is_ascii_alphanumeric() || b"_.:-".contains(&it));
    (if is_plain { rn } else { &mo.class }).into()
}

/// Builds the EPGs of one L3Out out of a flat answer. Objects of other L3Outs in it are passed over.
pub(super) fn read_epgs(owner: &OwnerIdentity, mos: &[Mo], l3out: &L3outDn) -> BTreeMap<Name, Epg> {
    let mut epgs = BTreeMap::new();
    for mo in mos.iter().filter(|mo| mo.class == EPG) {
        if let Some(ParsedDn::Epg(dn)) = ParsedDn::parse(&mo.dn)
            && dn.l3out == *l3out
        {
            let annotation = mo.attributes.annotation.as_deref().unwrap_or_default();
            let ownership = owner.classify(annotation);
            let epg = Epg {
                ownership,
                was_owned: ownership == Ownership::Owned,
                subnets: BTreeMap::new(),
                unreadable: 0,
                other_clusters: other_cluster(annotation, ownership).into_iter().collect(),
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
        let annotation = mo.attributes.annotation.as_deref().unwrap_or_default();
        let ownership = owner.classify(annotation);
        epg.other_clusters.extend(other_cluster(annotation, ownership));
        let subnet = Subnet {
            ip: ip.into(),
            ownership,
            was_owned: ownership == Ownership::Owned,
            name: mo.attributes.name.clone().unwrap_or_default(),
            scope: Scope::parse(mo.attributes.scope.as_deref().unwrap_or_default()),
            before_drift: None,
        };
        epg.subnets.insert(prefix, subnet);
    }
    epgs
}

/// Compares an EPG with what the cache had of it. What was ours may have lost its mark
/// only (R2). NoticeTracker is what
/// of ours has gone or has changed, which only somebody else can have done: our own writes are in the cache already
/// (R5). What falls with its EPG is not told.
pub(super) fn compare(dn: &EpgDn, before: &Epg, now: Option<&mut Epg>) -> Vec<ObjectDn> {
    let mut reverted = Vec::new();
    let Some(now) = now else {
        reverted.extend((before.ownership == Ownership::Owned).then(|| ObjectDn::Epg(dn.clone())));
        return reverted;
    };
    now.was_owned = still_ours(before.was_owned, now.ownership);
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
            now.was_owned = still_ours(before.was_owned, now.ownership);
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

/// Whether an object that was ours is still taken for ours when a read shows this mark (R2). What another aci-sync has
/// marked is its own: two that each took it back would never end (O5).
fn still_ours(was_owned: bool, ownership: Ownership) -> bool {
    ownership == Ownership::Owned || (was_owned && ownership != Ownership::OtherCluster)
}
