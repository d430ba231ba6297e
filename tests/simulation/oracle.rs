//! What the fabric should hold in the end, written down as simply as possible and apart from the program: plain
//! strings, loops over everything, no code of the model.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::apic::{Marks, PYTHON, Snapshot};
use crate::cluster::{Annotation, Deployment, Name, Pod, Records};

/// The configuration's part.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `--expose`: Pods, Services.
    pub expose: (bool, bool),
    /// `--allow`: only the namespace `a` may name anything.
    pub only_a: bool,
    pub keep_contracted: bool,
}

/// What is expected.
#[derive(Debug, Default, PartialEq)]
pub struct Expected {
    /// DNs of EEPGs that are ours.
    pub eepgs: BTreeSet<String>,
    /// DNs of subnets that are ours, with their names.
    pub subnets: BTreeMap<String, String>,
}

fn dn(l3out: &str, epg: &str) -> String {
    format!("uni/tn-T/out-{l3out}/instP-{epg}")
}

fn subnet(eepg: &str, ip: &IpAddr) -> String {
    format!("{eepg}/extsubnet-[{ip}/{}]", if ip.is_ipv4() { 32 } else { 128 })
}

fn l3out_of(eepg: &str) -> String {
    eepg.split("/instP-").next().unwrap().to_owned()
}

/// The EEPG that a Deployment names, where that counts.
fn names(settings: &Settings, key: &Name, it: &Deployment) -> Option<String> {
    match &it.annotation {
        Annotation::Names(l3out, epg, _) if !settings.only_a || key.0 == "a" => Some(dn(l3out, epg)),
        _ => None,
    }
}

fn exports(settings: &Settings, it: &Deployment) -> (bool, bool) {
    match &it.annotation {
        Annotation::Names(_, _, Some(exports)) => *exports,
        // Whatever it may have exported (D3).
        Annotation::Broken => (true, true),
        _ => settings.expose,
    }
}

fn owner<'a>(cluster: &'a Records, key: &Name, pod: &Pod) -> Option<(Name, &'a Deployment)> {
    let key = (key.0, pod.owner.clone()?);
    cluster.deployments.get(&key).map(|it| (key, it))
}

/// What a cluster calls for, whatever the fabric holds.
#[derive(Debug, Default)]
pub struct CalledFor {
    /// Every EEPG that a Deployment names.
    pub eepgs: BTreeSet<String>,
    /// Those of them where a Deployment is paused (D2).
    pub paused: BTreeSet<String>,
    /// DNs of subnets, with their names.
    pub subnets: BTreeMap<String, String>,
    /// Addresses of Deployments of which nobody knows what they name (D3).
    pub unplaced: BTreeSet<IpAddr>,
}

/// What a cluster calls for.
pub fn called_for(cluster: &Records, settings: &Settings, vrf: &dyn Fn(&str) -> String) -> CalledFor {
    let mut called_for = CalledFor::default();
    for (key, it) in &cluster.deployments {
        let eepg = names(settings, key, it);
        called_for.paused.extend(eepg.clone().filter(|_| it.paused));
        called_for.eepgs.extend(eepg);
    }

    // Who claims which address for which Deployment: (address, Deployment, Service before Pod, name).
    let mut claims: Vec<(IpAddr, Name, bool, String)> = Vec::new();
    let claiming = |it: &&Pod| !it.host_network && !it.ended;
    let all: BTreeSet<IpAddr> = cluster.pods.values().filter(claiming).flat_map(|it| it.ips.clone()).collect();
    for ip in all {
        let candidates = cluster.pods.iter().filter(|(_, it)| claiming(it) && it.ips.contains(&ip));
        let (key, pod) = candidates.max_by_key(|(_, it)| (!it.terminating, it.created, it.uid)).unwrap();
        if let Some((owner, deployment)) = owner(cluster, key, pod)
            && exports(settings, deployment).0
        {
            claims.push((ip, owner, true, format!("{}::{}", key.0, key.1)));
        }
    }
    for (key, service) in cluster.services.iter().filter(|(_, it)| it.load_balancer) {
        let Some(app) = service.selector else { continue };
        for (owner_key, deployment) in cluster.deployments.iter().filter(|(it, _)| it.0 == key.0) {
            let of_a_pod = cluster.pods.iter().any(|(pod_key, pod)| {
                !pod.ended && pod.app == app && owner(cluster, pod_key, pod).is_some_and(|it| it.0 == *owner_key)
            });
            if (deployment.app == app || of_a_pod) && exports(settings, deployment).1 {
                claims.extend(
                    service.ips.iter().map(|ip| (*ip, owner_key.clone(), false, format!("{}::{}", key.0, key.1))),
                );
            }
        }
    }
    let is_unplaced = |owner: &Name| cluster.deployments[owner].annotation == Annotation::Broken;
    called_for.unplaced.extend(claims.iter().filter(|it| is_unplaced(&it.1)).map(|it| it.0));

    // In each VRF an address goes to the EEPG of the oldest Deployment that claims it.
    let eepg_of = |owner: &Name| names(settings, owner, &cluster.deployments[owner]);
    let mut winners: BTreeMap<(String, IpAddr), (u64, Name, String)> = BTreeMap::new();
    for (ip, owner, ..) in &claims {
        let Some(eepg) = eepg_of(owner) else { continue };
        let mine = (cluster.deployments[owner].created, owner.clone(), eepg.clone());
        let place = winners.entry((vrf(&l3out_of(&eepg)), *ip)).or_insert_with(|| mine.clone());
        if (mine.0, &mine.1) < (place.0, &place.1) {
            *place = mine;
        }
    }
    for ((_, ip), (_, _, eepg)) in &winners {
        let sources = claims.iter().filter(|it| it.0 == *ip && eepg_of(&it.1).as_ref() == Some(eepg));
        let name = sources.map(|it| (it.2, it.3.clone())).min().unwrap().1;
        called_for.subnets.insert(subnet(eepg, ip), name);
    }
    called_for
}

/// What the cluster and everybody else's objects on the fabric come to in the end.
pub fn expected(
    cluster: &Records,
    settings: &Settings,
    marks: &Marks,
    fabric: &Snapshot,
    vrf: &dyn Fn(&str) -> String,
) -> Expected {
    let mut expected = Expected::default();
    let CalledFor { eepgs: wanted, subnets, .. } = called_for(cluster, settings, vrf);
    let mark = |dn: &str| fabric.get(dn).map(|it| it.1.get("annotation").cloned().unwrap_or_default());
    let is_ours = |dn: &str| mark(dn).is_some_and(|it| it == marks.own || it == PYTHON);
    // The L3Outs that are looked at: named by somebody, or with something of ours in them.
    let mut looked_at: BTreeSet<String> = wanted.iter().map(|it| l3out_of(it)).collect();
    looked_at.extend(fabric.keys().filter(|it| it.contains("/instP-") && is_ours(it)).map(|it| l3out_of(it)));
    for (here, name) in subnets {
        let (eepg, rn) = here.split_at(here.find("/extsubnet-").unwrap());
        if !fabric.contains_key(&l3out_of(eepg)) {
            continue;
        }
        let foreign_elsewhere = fabric.iter().any(|(dn, (class, _))| {
            let l3out = l3out_of(dn);
            class == "l3extSubnet"
                && *dn != here
                && !is_ours(dn)
                && dn.ends_with(rn)
                && looked_at.contains(&l3out)
                && vrf(&l3out) == vrf(&l3out_of(eepg))
        });
        let foreign_here = fabric.contains_key(&here) && !is_ours(&here) && {
            let it = &fabric[&here].1;
            !(it["annotation"].is_empty() && it["name"] == name)
        };
        if !foreign_here && (!foreign_elsewhere || is_ours(&here)) {
            expected.subnets.insert(here, name);
        }
    }
    for eepg in &wanted {
        let foreign = fabric.contains_key(eepg) && !is_ours(eepg);
        if fabric.contains_key(&l3out_of(eepg)) && !foreign {
            expected.eepgs.insert(eepg.clone());
        }
    }
    // What nobody wants stays only where strangers are in it, or contracts that are to be kept.
    for (eepg, _) in fabric.iter().filter(|(dn, it)| it.0 == "l3extInstP" && !wanted.contains(*dn)) {
        let inside = |class: &str, foreign: bool| {
            fabric.iter().any(|(dn, it)| {
                dn.starts_with(&format!("{eepg}/"))
                    && it.0 == class
                    && (!foreign || mark(dn) != Some(marks.own.clone()))
            })
        };
        let stays = inside("l3extSubnet", true) || (settings.keep_contracted && inside("fvRsCons", false));
        if stays && mark(eepg) == Some(marks.own.clone()) {
            expected.eepgs.insert(eepg.clone());
        }
    }
    expected
}

/// What there is of ours.
pub fn actual(marks: &Marks, fabric: &Snapshot) -> Expected {
    let mut actual = Expected::default();
    for (dn, (class, it)) in fabric.iter().filter(|(_, (_, it))| it.get("annotation") == Some(&marks.own)) {
        if class == "l3extInstP" {
            actual.eepgs.insert(dn.clone());
        } else if class == "l3extSubnet" {
            let scope = if it["scope"].split(',').any(|it| it == "import-security") { "" } else { " without scope" };
            actual.subnets.insert(dn.clone(), format!("{}{scope}", it["name"]));
        }
    }
    actual
}
