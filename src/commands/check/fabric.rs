//! The fabric's objects: marks of aci-sync, and the tenants and L3Outs that workloads or arguments name.

use std::collections::BTreeSet;

use super::report::Outcome;
use super::{World, each, passed};
use crate::apic::{Client, Error, Identity, Query};
use crate::commands::one_shot::count_annotations;
use crate::model::dn::{L3outDn, Name};
use crate::model::finding::counted;
use crate::model::mo::Mo;
use crate::model::observed::{FAULT, PREFIX_IN_USE, faults_by_epg};
use crate::model::owner::{OwnerIdentity, Ownership};

/// The privileges either of which lets aci-sync write external EPGs.
const PRIVILEGES: [&str; 2] = ["admin", "tenant-ext-connectivity"];

const NO_L3OUT: &str = "no workload names an L3Out; give TENANT/L3OUT as an argument";

/// The VRF of an L3Out.
#[derive(Debug, Clone, Default)]
pub(super) struct Vrf {
    /// Empty if there is none.
    dn: String,
    /// Whether the fabric has resolved the relation.
    is_formed: bool,
}

fn read(session: &Client, query: &Query) -> Result<Vec<Mo>, Error> {
    session.read(query, &|| true)
}

/// The objects with an owner annotation, by annotation (R4).
pub(super) fn marks(world: &mut World<'_>) -> Vec<Outcome> {
    let (Some(session), Some(config)) = (&world.session, &world.config) else { return Vec::new() };
    let Some(id) = &world.cluster_id else {
        return vec![Outcome::skip("", "the cluster id is unknown: kube.auth failed, and there is no --cluster-id")];
    };
    let mut counts = match count_annotations(session) {
        Ok(counts) => counts,
        Err(error) => {
            let fix = "let the user read all tenants that workloads name";
            return vec![Outcome::fail("", format!("failed to find owned objects: {error}"), fix)];
        }
    };
    let owner = OwnerIdentity::new(id, &config.adopt_ids);
    let own = counts.remove(owner.annotation()).unwrap_or(0);
    let mut outcomes =
        vec![Outcome::ok("", format!("{} with our owner annotation {}", counted(own, "object"), owner.annotation()))];
    for (annotation, count) in counts {
        let text = format!("{} with the annotation {annotation}", counted(count, "object"));
        match owner.classify(&annotation) {
            Ownership::Legacy => {
                let fix = "stop the former installation before a run; aci-sync takes over what it desires itself";
                outcomes.push(Outcome::warn("", text, fix));
            }
            Ownership::OtherCluster => {
                let fix = "if this cluster had that id before, add it with --adopt-id; else leave the objects alone";
                outcomes.push(Outcome::warn("", text, fix));
            }
            // The text of a query is a pattern; the answer may hold more.
            Ownership::Owned | Ownership::Unmarked | Ownership::Foreign => {}
        }
    }
    outcomes
}

/// Each tenant of the L3Outs.
pub(super) fn tenant(world: &mut World<'_>) -> Vec<Outcome> {
    let Some(session) = &world.session else { return Vec::new() };
    let tenants: BTreeSet<Name> = world.l3outs.iter().map(|it| it.tenant.clone()).collect();
    or_none(each(passed(world.end), tenants, |tenant| {
        let dn = format!("uni/tn-{tenant}");
        let outcome = match read(session, &Query::object(&dn)) {
            Ok(mos) if mos.is_empty() => Outcome::fail(&dn, "not found", "create the tenant, or correct its name"),
            Ok(_) => Outcome::ok(&dn, "found"),
            Err(error) => Outcome::fail(&dn, error.to_string(), "let the user read this tenant"),
        };
        world.tenants.insert(tenant, outcome.is_ok());
        outcome
    }))
}

fn or_none(outcomes: Vec<Outcome>) -> Vec<Outcome> {
    if outcomes.is_empty() { vec![Outcome::skip("", NO_L3OUT)] } else { outcomes }
}

/// Each L3Out, with the VRF that a later check looks at.
pub(super) fn l3out(world: &mut World<'_>) -> Vec<Outcome> {
    let Some(session) = &world.session else { return Vec::new() };
    or_none(each(passed(world.end), &world.l3outs, |l3out| {
        let dn = l3out.to_string();
        if !world.tenants.get(&l3out.tenant).is_some_and(|is_good| *is_good) {
            return Outcome::skip(&dn, "fabric.tenant failed");
        }
        match read_vrf(session, l3out) {
            Ok(Some(vrf)) => {
                world.vrfs.insert(l3out.clone(), vrf);
                Outcome::ok(&dn, "found")
            }
            Ok(None) => Outcome::fail(&dn, "not found", "create the L3Out, or correct its name"),
            Err(error) => Outcome::fail(&dn, error.to_string(), "let the user read this tenant"),
        }
    }))
}

/// The VRF of an L3Out; nothing if there is no such L3Out.
fn read_vrf(session: &Client, l3out: &L3outDn) -> Result<Option<Vrf>, Error> {
    let mos = read(session, &Query::object(l3out).subtree(&["l3extOut", "l3extRsEctx"]))?;
    if !mos.iter().any(|it| it.class == "l3extOut") {
        return Ok(None);
    }
    let relation = mos.into_iter().find(|it| it.class == "l3extRsEctx").map(|it| it.attributes);
    Ok(Some(relation.map_or_else(Vrf::default, |it| Vrf {
        dn: it.target_dn.unwrap_or_default().into(),
        is_formed: it.is_formed.unwrap_or(false),
    })))
}

/// Whether the user may write external EPGs, as the login answer says it for each tenant.
pub(super) fn write(world: &mut World<'_>) -> Vec<Outcome> {
    let Some(session) = &world.session else { return Vec::new() };
    if world.config.as_ref().is_some_and(|it| matches!(it.identity, Identity::Certificate(_))) {
        let text = "not known: the APIC says what a user may write only in the answer to a login with a password";
        return vec![Outcome::skip("", text)];
    }
    let entries = &session.login_answer().write_privileges;
    let fix = "give the user the privilege tenant-ext-connectivity in a security domain of that tenant";
    let mut outcomes = Vec::new();
    for (tenant, is_good) in &world.tenants {
        let dn = format!("uni/tn-{tenant}");
        if !is_good {
            outcomes.push(Outcome::skip(&dn, "fabric.tenant failed"));
            continue;
        }
        outcomes.push(match entries.iter().find(|(it, _)| *it == dn) {
            None => Outcome::warn(&dn, "the APIC does not say whether the user may write", fix),
            Some((_, privileges)) => {
                let found = privileges.split([',', '|', ' ']).find(|it| PRIVILEGES.contains(it));
                match found {
                    Some(privilege) => Outcome::ok(&dn, format!("write privilege {privilege}")),
                    None => Outcome::fail(&dn, format!("read only: write privileges {privileges:?}"), fix),
                }
            }
        });
    }
    or_none(outcomes)
}

/// The VRF of each L3Out: aci-sync finds foreign subnets of the same VRF by it (S3).
pub(super) fn vrf(world: &mut World<'_>) -> Vec<Outcome> {
    let fix = "give the L3Out its VRF; until then aci-sync does not see foreign subnets of the same VRF";
    let mut outcomes = Vec::new();
    for l3out in &world.l3outs {
        let dn = l3out.to_string();
        outcomes.push(match world.vrfs.get(l3out) {
            None => Outcome::skip(&dn, "fabric.l3out failed"),
            Some(vrf) if vrf.dn.is_empty() => Outcome::warn(&dn, "has no VRF", fix),
            Some(vrf) if !vrf.is_formed => Outcome::warn(&dn, format!("VRF {} not found by the APIC", vrf.dn), fix),
            Some(vrf) => Outcome::ok(&dn, vrf.dn.clone()),
        });
    }
    or_none(outcomes)
}

/// What deploys an L3Out on leaves, and what people call it.
const INTERFACES: [(&str, &str); 3] =
    [("l3extRsPathL3OutAtt", "path"), ("l3extVirtualLIfP", "floating SVI"), ("bgpPeerP", "BGP peer")];

/// Whether each L3Out is on any leaf.
pub(super) fn deployed(world: &mut World<'_>) -> Vec<Outcome> {
    let Some(session) = &world.session else { return Vec::new() };
    or_none(each(passed(world.end), &world.l3outs, |l3out| {
        let dn = l3out.to_string();
        if !world.vrfs.contains_key(l3out) {
            return Outcome::skip(&dn, "fabric.l3out failed");
        }
        let found = match read(session, &Query::object(l3out).subtree(&INTERFACES.map(|it| it.0))) {
            Ok(found) => found,
            Err(error) => return Outcome::warn(&dn, error.to_string(), "let the user read this tenant"),
        };
        let counts = INTERFACES.map(|(class, name)| (found.iter().filter(|it| it.class == class).count(), name));
        let parts: Vec<String> = counts.into_iter().filter(|it| it.0 > 0).map(|(n, name)| counted(n, name)).collect();
        if parts.is_empty() {
            let text = "no path, no floating SVI and no BGP peer: its EPGs are on no leaf";
            Outcome::warn(&dn, text, "give the L3Out a node profile with an interface")
        } else {
            Outcome::ok(&dn, parts.join(", "))
        }
    }))
}

/// Faults about prefixes that two EPGs of a VRF have, for the EPGs that workloads name.
pub(super) fn faults(world: &mut World<'_>) -> Vec<Outcome> {
    let Some(session) = &world.session else { return Vec::new() };
    if world.epgs.is_empty() {
        return vec![Outcome::skip("", "no workload names an EPG")];
    }
    let faults = match read(session, &Query::class(FAULT).with_value("code", PREFIX_IN_USE)) {
        Ok(faults) => faults,
        Err(error) => return vec![Outcome::warn("", format!("failed to read: {error}"), "let the user read faults")],
    };
    let mut outcomes = Vec::new();
    let faults = faults_by_epg(&faults);
    for epg in &world.epgs {
        let count = faults.get(epg).copied().unwrap_or_default();
        if count > 0 {
            let text = format!("fault F0467 ({}): another EPG of the VRF has a prefix of it", counted(count, "time"));
            let fix = "look at the fault in the APIC's GUI, and remove the prefix from the other EPG";
            outcomes.push(Outcome::warn(&epg.to_string(), text, fix));
        }
    }
    let none = || vec![Outcome::ok("", format!("no fault F0467 about {}", counted(world.epgs.len(), "EPG")))];
    if outcomes.is_empty() { none() } else { outcomes }
}
