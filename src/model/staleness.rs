//! What an event of the APIC means to the cache: nothing, because the cache knows it already, or that something has to be
//! read again (W7). An event changes nothing else in the cache; that is done by reads and by our own writes.

use super::cache::FabricCache;
use super::dn::{EpgDn, L3outDn, ObjectDn, ParsedDn};
use super::mo::{MoChange, Status};
use super::observed::{CONTRACTS, EPG, L3OUT, L3out, SUBNET, TAG, VRF_RELATION, prefix_of, relation};
use super::owner::Ownership;
use super::scope::Scope;

/// What an event means to the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Staleness {
    /// The cache has it already, mostly because we wrote it; or it concerns nothing that the cache holds.
    Fresh,
    /// This EPG or subnet is not what the cache says: its EPG has to be read again.
    Object(ObjectDn),
    /// This L3Out appeared or is gone: it has to be read again.
    L3out(L3outDn),
}

/// Compares an event with the cache. The echo of our own write is in the cache already, and costs no read.
pub fn apply_event(cache: &mut FabricCache, change: &MoChange) -> Staleness {
    let staleness = staleness(cache, change);
    let annotation = change.mo.attributes.annotation.as_deref().unwrap_or_default();
    let is_ours = cache.owner().classify(annotation) == Ownership::Owned;
    match (change.status, &staleness) {
        (Status::Deleted, _) => cache.deleted(&change.mo),
        (Status::Created, Staleness::Object(ObjectDn::Epg(dn))) if !is_ours => cache.created_by_another(dn),
        _ => {}
    }
    staleness
}

/// What an event is about, if that is an EPG, or something in an EPG or about one.
pub fn subject(cache: &FabricCache, change: &MoChange) -> Option<ObjectDn> {
    match ParsedDn::parse(&change.mo.dn)? {
        ParsedDn::Epg(dn) | ParsedDn::BelowEpg(dn) => Some(ObjectDn::Epg(dn)),
        ParsedDn::Subnet(dn, _) => Some(match prefix_of(&change.mo.dn) {
            Some(prefix) => ObjectDn::Subnet(dn, prefix),
            None => ObjectDn::Epg(dn),
        }),
        ParsedDn::Tag(dn, key) => Some(ObjectDn::Tag(dn.epg(cache.owner().tagged(&key)?))),
        ParsedDn::L3out(_) | ParsedDn::BelowL3out(_) => None,
    }
}

fn staleness(cache: &FabricCache, change: &MoChange) -> Staleness {
    let gone = change.status == Status::Deleted;
    let attributes = &change.mo.attributes;
    let Some(place) = ParsedDn::parse(&change.mo.dn) else { return Staleness::Fresh };
    match (change.mo.class.as_str(), place) {
        (L3OUT, ParsedDn::L3out(dn)) => match cache.l3out(&dn) {
            Some(L3out::Present { .. }) if gone => Staleness::L3out(dn),
            Some(L3out::Missing) if !gone => Staleness::L3out(dn),
            _ => Staleness::Fresh,
        },
        (EPG, ParsedDn::Epg(dn)) | (SUBNET, ParsedDn::Subnet(dn, _)) => match cache.l3out(&dn.l3out) {
            None => Staleness::Fresh,
            // An L3Out with something in it is there, also if its own event was lost.
            Some(L3out::Missing) if gone => Staleness::Fresh,
            Some(L3out::Missing) => Staleness::L3out(dn.l3out),
            Some(L3out::Present { .. }) if change.mo.class == EPG => of_epg(cache, dn, change),
            Some(L3out::Present { .. }) => of_subnet(cache, dn, change),
        },
        (class, ParsedDn::BelowEpg(dn)) if CONTRACTS.contains(&class) => of_relation(cache, dn, change),
        // The target of the relation to a VRF is set after its creation, and may change (S3).
        (VRF_RELATION, ParsedDn::BelowL3out(dn)) => match cache.l3out(&dn) {
            Some(L3out::Present { vrf, .. })
                if attributes.target_dn.as_deref().is_some_and(|it| Some(it) != vrf.as_deref()) =>
            {
                Staleness::L3out(dn)
            }
            _ => Staleness::Fresh,
        },
        (TAG, ParsedDn::Tag(dn, key)) => match (cache.l3out(&dn), cache.owner().tagged(&key)) {
            (Some(L3out::Present { tags, .. }), Some(name)) if tags.contains_key(&name) == gone => Staleness::L3out(dn),
            _ => Staleness::Fresh,
        },
        _ => Staleness::Fresh,
    }
}

/// An attribute that an event says something about. The event of a creation leaves out what is empty.
fn sent(status: Status, attribute: &Option<Box<str>>) -> Option<&str> {
    match (status, attribute.as_deref()) {
        (Status::Created, None) => Some(""),
        (_, sent) => sent,
    }
}

fn of_epg(cache: &FabricCache, dn: EpgDn, change: &MoChange) -> Staleness {
    let as_known = match (change.status, cache.epg(&dn)) {
        (Status::Deleted, known) => known.is_none(),
        (status, Some(epg)) => {
            sent(status, &change.mo.attributes.annotation).is_none_or(|it| cache.owner().classify(it) == epg.ownership)
        }
        (_, None) => false,
    };
    if as_known { Staleness::Fresh } else { Staleness::Object(ObjectDn::Epg(dn)) }
}

/// R7: contract relations matter on our EPGs only. Those of an EPG that is not there come and go with it.
fn of_relation(cache: &FabricCache, dn: EpgDn, change: &MoChange) -> Staleness {
    let is_there = change.status != Status::Deleted;
    let known = cache.epg(&dn).filter(|it| it.belongs_to_us()).map(|it| &it.relations);
    match known {
        Some(known) if known.contains(&*relation(&change.mo)) != is_there => Staleness::Object(ObjectDn::Epg(dn)),
        _ => Staleness::Fresh,
    }
}

fn of_subnet(cache: &FabricCache, dn: EpgDn, change: &MoChange) -> Staleness {
    let Some(prefix) = prefix_of(&change.mo.dn) else { return Staleness::Object(ObjectDn::Epg(dn)) };
    let known = cache.epg(&dn).and_then(|epg| epg.subnets.get(&prefix));
    let (status, attributes) = (change.status, &change.mo.attributes);
    let as_known = match (status, known) {
        (Status::Deleted, known) => known.is_none(),
        (_, Some(subnet)) => {
            sent(status, &attributes.annotation).is_none_or(|it| cache.owner().classify(it) == subnet.ownership)
                && sent(status, &attributes.name).is_none_or(|it| it == &*subnet.name)
                && sent(status, &attributes.scope).is_none_or(|it| Scope::parse(it) == subnet.scope)
        }
        (_, None) => false,
    };
    if as_known { Staleness::Fresh } else { Staleness::Object(ObjectDn::Subnet(dn, prefix)) }
}
