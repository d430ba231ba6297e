//! L3Outs, external EPGs and subnets as the fabric holds them, decoded from the APIC's objects, with their ownership (O1 to
//! O3). What is kept over time is in `cache`.

use std::collections::{BTreeMap, BTreeSet};

use super::dn::{EpgDn, L3outDn, Name, ObjectDn, ParsedDn, Prefix};
use super::external_deletions::Deletion;
use super::mo::Mo;
use super::owner::{OwnerIdentity, Ownership, other_cluster};
use super::scope::Scope;

/// The class of an L3Out.
pub const L3OUT: &str = "l3extOut";
/// The class of an external EPG.
pub const EPG: &str = "l3extInstP";
/// The class of a subnet of an external EPG.
pub const SUBNET: &str = "l3extSubnet";
/// The class of tags, such as those that mark foreign EPGs (O4).
pub const TAG: &str = "tagAnnotation";
/// The class that ties an L3Out to its VRF.
pub const VRF_RELATION: &str = "l3extRsEctx";
/// The class of faults.
pub const FAULT: &str = "faultInst";
/// The code of the fault that another EPG of the VRF has a prefix of an EPG; it has other causes, too (S3).
pub const PREFIX_IN_USE: &str = "F0467";
/// The classes of an external EPG's contract relations.
pub const CONTRACTS: [&str; 5] = ["fvRsCons", "fvRsProv", "fvRsConsIf", "fvRsProtBy", "fvRsIntraEpg"];
/// How the RN of such a relation begins, its class, and the attribute that names the contract (reference: object model of
/// `fvRsCons` and the others).
const RELATIONS: [(&str, &str, &str); 5] = [
    ("rscons-", "fvRsCons", "tnVzBrCPName"),
    ("rsprov-", "fvRsProv", "tnVzBrCPName"),
    ("rsconsIf-", "fvRsConsIf", "tnVzCPIfName"),
    ("rsprotBy-", "fvRsProtBy", "tnVzTabooName"),
    ("rsintraEpg-", "fvRsIntraEpg", "tnVzBrCPName"),
];

/// A subnet as the fabric holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The address as the APIC spells it, if that is not the spelling of its prefix; see [`Subnet::ip`].
    spelling: Option<Box<str>>,
    /// Whose it is.
    pub ownership: Ownership,
    /// This process saw our owner annotation on it, and has seen no deletion since (R2).
    pub was_owned: bool,
    /// Its `name`.
    pub name: Box<str>,
    /// Its `scope`.
    pub scope: Scope,
    /// What it was before another writer changed it, if this process saw that (R8).
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

impl Subnet {
    /// A subnet that aci-sync has just created.
    pub(super) fn created(name: String, scope: &Scope) -> Subnet {
        Subnet {
            spelling: None,
            ownership: Ownership::Owned,
            was_owned: true,
            name: name.into(),
            scope: scope.clone(),
            before_drift: None,
        }
    }

    /// The address as the APIC spells it: it names the object in a request.
    pub fn ip(&self, prefix: &Prefix) -> String {
        self.spelling.as_deref().map_or_else(|| prefix.to_string(), str::to_owned)
    }

    /// aci-sync has just written these attributes.
    pub(super) fn repaired(&mut self, set_owner: bool, name: Option<&str>, scope: Option<&Scope>) {
        self.before_drift = None;
        if set_owner {
            (self.ownership, self.was_owned) = (Ownership::Owned, true);
        }
        if let Some(name) = name {
            self.name = name.into();
        }
        if let Some(scope) = scope {
            self.scope = scope.clone();
        }
    }
}

/// An external EPG as the fabric holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epg {
    /// Whose it is.
    pub ownership: Ownership,
    /// This process saw our owner annotation on it, and has seen no deletion since (R2).
    pub was_owned: bool,
    /// Its subnets.
    pub subnets: BTreeMap<Prefix, Subnet>,
    /// The number of subnets whose address cannot be read; they are foreign.
    pub unreadable: usize,
    /// The ids of other clusters whose owner annotation it or its subnets have (O6).
    pub other_clusters: BTreeSet<Box<str>>,
    /// Its contract relations by their RNs (R7).
    pub relations: BTreeSet<Box<str>>,
    /// It may have held a subnet. Only an EPG that this process created, and has always seen empty, has certainly held none
    /// (D6).
    pub may_have_held: bool,
    /// What events have said since it was read.
    pub deletion: Deletion,
    /// It was read or created in this reconcile (W7).
    pub fresh: bool,
    /// A plan found nothing to do and nothing to say about it, and neither it nor what is desired there has changed since.
    pub settled: bool,
}

impl Epg {
    /// An EPG that aci-sync has just created.
    pub(super) fn created() -> Epg {
        Epg { may_have_held: false, ..Epg::read("", Ownership::Owned) }
    }

    /// An EPG as a read shows it, without what is in it.
    fn read(annotation: &str, ownership: Ownership) -> Epg {
        Epg {
            ownership,
            was_owned: ownership == Ownership::Owned,
            subnets: BTreeMap::new(),
            unreadable: 0,
            other_clusters: other_cluster(annotation, ownership).into_iter().collect(),
            relations: BTreeSet::new(),
            may_have_held: true,
            deletion: Deletion::default(),
            fresh: true,
            settled: false,
        }
    }

    /// Many subnets were inserted in their order, which leaves a map half empty; made at once of a sorted list it is full.
    pub(super) fn compact(&mut self) {
        self.subnets = std::mem::take(&mut self.subnets).into_iter().collect();
    }

    /// Owned, or owned until another writer changed its annotation (R2).
    pub fn is_ours(&self) -> bool {
        self.ownership == Ownership::Owned || self.was_owned
    }

    /// An event says that the EPG was deleted: another writer created what has this DN from now on, and what is in it.
    pub(super) fn deleted(&mut self, at: Option<&str>) {
        self.deletion.epg_deleted(at);
        self.replaced();
    }

    /// Another writer created what has this DN, and what is in it.
    pub(super) fn replaced(&mut self) {
        self.was_owned = false;
        self.subnets.values_mut().for_each(|it| it.was_owned = false);
    }

    /// The same of its L3Out. Of what is below a new one events may be lost (R3), so this one's relations stay away (R7).
    pub(super) fn deleted_with_l3out(&mut self) {
        self.deleted(None);
        (self.deletion, self.settled) = (Deletion::InDoubt, false);
    }

    /// [Ours](Epg::is_ours), or to be taken over (O3).
    pub fn belongs_to_us(&self) -> bool {
        self.is_ours() || self.ownership == Ownership::Legacy
    }

    /// D6: it never held a subnet and has no contract relations, so nothing is lost if it goes without a grace.
    pub fn is_unused(&self) -> bool {
        !self.may_have_held && self.relations.is_empty()
    }

    /// Neither owned nor legacy nor another cluster's: only such an EPG is marked as foreign by a tag (O4).
    pub fn is_foreign(&self) -> bool {
        matches!(self.ownership, Ownership::Unmarked | Ownership::Foreign) && !self.was_owned
    }
}

/// What is known of an L3Out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum L3out {
    /// It was read, and is not there (R3).
    Missing,
    /// It was read.
    Present {
        /// The DN of its VRF, if it could be read.
        vrf: Option<String>,
        /// Its external EPGs.
        epgs: BTreeMap<Name, Epg>,
        /// The EPGs that our tags mark as foreign, each with the DN of its tag as the APIC spells it (O4).
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

/// A contract relation by its RN, such as `rscons-web`. It becomes part of messages, so an RN that no APIC would give is
/// replaced by the class.
pub fn relation(mo: &Mo) -> Box<str> {
    let rn = mo.dn.rsplit('/').next().unwrap_or_default();
    let is_plain = rn.len() <= 128 && rn.bytes().all(|it| it.is_ascii_alphanumeric() || b"_.:-".contains(&it));
    (if is_plain { rn } else { &mo.class }).into()
}

/// The class of a contract relation, the attribute that names the contract, and its name, by the RN. Nothing if it is not an
/// RN that [`relation`] takes from an APIC.
pub fn contract_of(relation: &str) -> Option<(&'static str, &'static str, &str)> {
    let of = |(begin, class, attribute)| Some((class, attribute, relation.strip_prefix(begin)?));
    RELATIONS.into_iter().find_map(of).filter(|(.., name)| !name.is_empty())
}

/// How many of these faults say that another EPG of the VRF has a prefix of an EPG, and are not over, for each EPG (S3).
/// They hang below its deployment on a leaf, whose DN names it.
pub fn faults_by_epg(faults: &[Mo]) -> BTreeMap<EpgDn, usize> {
    let mut counts = BTreeMap::new();
    for mo in faults.iter().filter(|mo| mo.attributes.is_prefix_in_use && !mo.attributes.is_over) {
        let deployed = mo.dn.split_once("/rtd-[").and_then(|(_, rest)| rest.split_once("]/"));
        if let Some(ParsedDn::Epg(dn)) = deployed.and_then(|(dn, _)| ParsedDn::parse(dn)) {
            *counts.entry(dn).or_default() += 1;
        }
    }
    counts
}

/// The DN of the VRF of an L3Out.
pub(super) fn read_vrf(mos: &[Mo], l3out: &L3outDn) -> Option<String> {
    let dn = format!("{l3out}/rsectx");
    let relation = mos.iter().find(|mo| mo.class == VRF_RELATION && mo.dn == dn)?;
    relation.attributes.target_dn.as_deref().filter(|it| !it.is_empty()).map(str::to_owned)
}

/// The EPGs of an L3Out that our tags mark as foreign, with the DNs of the tags.
pub(super) fn read_tags(owner: &OwnerIdentity, mos: &[Mo], l3out: &L3outDn) -> BTreeMap<Name, Box<str>> {
    let mut tags = BTreeMap::new();
    for mo in mos.iter().filter(|mo| mo.class == TAG) {
        if let Some(ParsedDn::Tag(dn, key)) = ParsedDn::parse(&mo.dn)
            && dn == *l3out
            && let Some(name) = owner.tagged(&key)
        {
            tags.insert(name, mo.dn.as_str().into());
        }
    }
    tags
}

/// The EPGs of an L3Out with what is in them, from a flat answer. Objects of other L3Outs in it are left out.
pub(super) fn read_epgs(owner: &OwnerIdentity, mos: &[Mo], l3out: &L3outDn) -> BTreeMap<Name, Epg> {
    let mut epgs = BTreeMap::new();
    for mo in mos.iter().filter(|mo| mo.class == EPG) {
        if let Some(ParsedDn::Epg(dn)) = ParsedDn::parse(&mo.dn)
            && dn.l3out == *l3out
        {
            let annotation = mo.attributes.annotation.as_deref().unwrap_or_default();
            let ownership = owner.classify(annotation);
            epgs.insert(dn.name, Epg::read(annotation, ownership));
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
        let Ok(prefix) = ip.parse::<Prefix>() else {
            epg.unreadable += 1;
            continue;
        };
        let annotation = mo.attributes.annotation.as_deref().unwrap_or_default();
        let ownership = owner.classify(annotation);
        epg.other_clusters.extend(other_cluster(annotation, ownership));
        let subnet = Subnet {
            spelling: (ip != prefix.to_string()).then(|| ip.into()),
            ownership,
            was_owned: ownership == Ownership::Owned,
            name: mo.attributes.name.clone().unwrap_or_default(),
            scope: Scope::parse(mo.attributes.scope.as_deref().unwrap_or_default()),
            before_drift: None,
        };
        epg.subnets.insert(prefix, subnet);
    }
    epgs.values_mut().for_each(Epg::compact);
    epgs
}

/// Compares an EPG with what the cache had of it, and carries over what a read does not show (R2, R8). Returns the owned
/// objects that are gone or changed: another writer did that, because our own writes are in the cache already (R5). Subnets
/// that went with their EPG do not count.
pub(super) fn compare(dn: &EpgDn, before: &Epg, now: Option<&mut Epg>) -> Vec<ObjectDn> {
    let mut reverted = Vec::new();
    let Some(now) = now else {
        reverted.extend((before.ownership == Ownership::Owned).then(|| ObjectDn::Epg(dn.clone())));
        return reverted;
    };
    now.was_owned = still_ours(before.was_owned, now.ownership);
    now.may_have_held =
        before.may_have_held || before.deletion.is_heard() || !now.subnets.is_empty() || now.unreadable > 0;
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

/// What an owned subnet was before another writer changed it, if this process saw that (R8).
fn original(seen: &Subnet) -> Option<Box<Original>> {
    let as_seen = || Box::new(Original { name: seen.name.clone(), scope: seen.scope.clone() });
    seen.before_drift.clone().or_else(|| (seen.ownership == Ownership::Owned).then(as_seen))
}

/// Whether an object that was owned still counts as ours if a read shows this ownership (R2). What another aci-sync has
/// marked is its own: if each of two took it back, that would never end (O5).
fn still_ours(was_owned: bool, ownership: Ownership) -> bool {
    ownership == Ownership::Owned || (was_owned && ownership != Ownership::OtherCluster)
}
