//! What the fabric should hold in the end, written down as simply as possible and apart from the program: plain
//! strings, loops over everything, no code of the model.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::apic::{Attributes, Marks, PYTHON, Snapshot};
use crate::cluster::{Annotation, Id, Name, Pod, Records, Workload};

/// The configuration's part.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `--expose`: Pods, Services.
    pub expose: (bool, bool),
    /// `--allow`: only the namespace `a` may name anything.
    pub only_a: bool,
    pub keep_contracted: bool,
    pub restore_contracts: bool,
    /// `--addresses`: only those that end in 0 to 3.
    pub few_addresses: bool,
    /// `--max-epgs`.
    pub max_epgs: usize,
    /// `--default-l3out`.
    pub default: &'static str,
}

/// What is expected.
#[derive(Debug, Default, PartialEq)]
pub struct Expected {
    /// DNs of EPGs that are ours.
    pub epgs: BTreeSet<String>,
    /// DNs of subnets that are ours, with their names.
    pub subnets: BTreeMap<String, String>,
}

fn dn(l3out: &str, epg: &str) -> String {
    format!("uni/tn-T/out-{l3out}/instP-{epg}")
}

pub fn subnet(epg: &str, ip: &IpAddr) -> String {
    format!("{epg}/extsubnet-[{ip}/{}]", if ip.is_ipv4() { 32 } else { 128 })
}

fn l3out_of(epg: &str) -> String {
    epg.split("/instP-").next().unwrap().to_owned()
}

/// The EPG that a workload names, if that counts.
pub fn names(settings: &Settings, id: &Id, it: &Workload) -> Option<String> {
    match &it.annotation {
        Annotation::Names(l3out, epg, _) if !settings.only_a || id.0.0 == "a" => {
            Some(dn(if l3out.is_empty() { settings.default } else { l3out }, epg))
        }
        _ => None,
    }
}

/// P6: what is exposed of the addresses that there are in these worlds.
fn is_exposed(settings: &Settings, ip: &IpAddr) -> bool {
    let text = ip.to_string();
    let host = text.strip_prefix("10.0.0.").or_else(|| text.strip_prefix("fd00::"));
    let host = host.and_then(|it| if it.is_empty() { Some(0) } else { it.parse::<u64>().ok() });
    host.is_some_and(|it| it < if settings.few_addresses { 4 } else { 8 })
}

fn exposes(settings: &Settings, it: &Workload) -> (bool, bool) {
    match &it.annotation {
        Annotation::Names(_, _, Some(exposes)) => *exposes,
        // Whatever it may have exported (D3).
        Annotation::Broken => (true, true),
        _ => settings.expose,
    }
}

fn owner<'a>(cluster: &'a Records, key: &Name, pod: &Pod) -> Option<(Id, &'a Workload)> {
    let (name, kind) = pod.owner.clone()?;
    let id = ((key.0, name), kind);
    cluster.workloads.get(&id).map(|it| (id, it))
}

/// An address that a workload has, and the name that a subnet for it gets.
#[derive(Debug)]
pub struct Claim {
    pub ip: IpAddr,
    /// Its workload.
    pub owner: Id,
    /// Services come before Pods.
    pub is_pod: bool,
    pub name: String,
    /// The EPG that it belongs to, if that is known.
    pub epg: Option<String>,
    /// Its workload is paused.
    pub paused: bool,
}

/// What a cluster calls for, whatever the fabric holds.
#[derive(Debug, Default)]
pub struct CalledFor {
    /// Every EPG that a workload names.
    pub epgs: BTreeSet<String>,
    /// Those of them whose workloads are all paused (D2).
    pub paused: BTreeSet<String>,
    /// Those of them that no namespace may have that names them (W6).
    pub beyond: BTreeSet<String>,
    /// DNs of subnets, with their names.
    pub subnets: BTreeMap<String, String>,
    /// Those of them that only paused workloads call for: they are neither made nor changed (D2).
    pub untouched: BTreeSet<String>,
    /// Who has which address.
    pub claims: Vec<Claim>,
    /// The names that the present Pods and Services of the whole cluster give to subnets for their addresses.
    pub sources: BTreeMap<IpAddr, BTreeSet<String>>,
}

impl CalledFor {
    /// D2: what stays in an EPG that is left alone as a whole: not the address of another Pod or Service.
    pub fn stays_in_pause(&self, ip: &IpAddr, name: &str) -> bool {
        self.sources.get(ip).is_none_or(|it| it.contains(name))
    }

    /// Whether any Pod or Service claims the address of a subnet for its EPG, under this name.
    pub fn claims(&self, dn: &str, name: Option<&String>) -> bool {
        let (epg, rn) = split(dn);
        let ip = ip_of(rn);
        let is_it = |it: &&Claim| it.ip == ip && it.epg.as_deref() == Some(epg);
        self.claims.iter().filter(is_it).any(|it| name.is_none_or(|name| *name == it.name))
    }

    /// D2, D3, D5: whether a subnet of ours with this name is a workload's own, and has nowhere to go. If the
    /// address is desired in an EPG of the same VRF that can be had, it goes there (D5), but for a pause.
    pub fn retains(
        &self,
        dn: &str,
        name: &str,
        can_be_had: &dyn Fn(&str) -> bool,
        same_vrf: &dyn Fn(&str, &str) -> bool,
    ) -> bool {
        let (epg, rn) = split(dn);
        let ip = ip_of(rn);
        let mut own = self.claims.iter().filter(|it| it.ip == ip && it.name == name);
        let goes = self.subnets.keys().any(|it| {
            let (target, other) = split(it);
            other == rn && same_vrf(target, epg) && !self.untouched.contains(it) && can_be_had(target)
        });
        // What an older workload has in the VRF that it names has no place to wait for (S3).
        let waits = |epg: &String| !can_be_had(epg) && self.subnets.contains_key(&subnet(epg, &ip));
        let has_no_place = |it: &Claim| it.epg.as_ref().is_none_or(waits);
        own.any(|it| it.paused || (has_no_place(it) && !goes))
    }
}

/// A subnet's DN: the EPG, and the rest.
pub fn split(dn: &str) -> (&str, &str) {
    dn.split_at(dn.find("/extsubnet-").unwrap_or(dn.len()))
}

/// The address in what `split` calls the rest.
pub fn ip_of(rn: &str) -> IpAddr {
    rn.trim_start_matches("/extsubnet-[").split('/').next().and_then(|it| it.parse().ok()).unwrap()
}

/// W6: what is beyond `--max-epgs`. In each namespace the EPGs of the oldest workloads count first.
fn beyond(cluster: &Records, settings: &Settings) -> BTreeSet<String> {
    let (mut within, mut beyond) = (BTreeSet::new(), BTreeSet::new());
    for namespace in ["a", "b"] {
        let mut workloads: Vec<_> = cluster.workloads.iter().filter(|(id, _)| id.0.0 == namespace).collect();
        workloads.sort_by_key(|(id, it)| (it.created, (*id).clone()));
        let mut own: Vec<String> = Vec::new();
        for epg in workloads.into_iter().filter_map(|(id, it)| names(settings, id, it)) {
            if !own.contains(&epg) {
                own.push(epg);
            }
        }
        for (n, epg) in own.into_iter().enumerate() {
            (if n < settings.max_epgs { &mut within } else { &mut beyond }).insert(epg);
        }
    }
    beyond.difference(&within).cloned().collect()
}

/// What a cluster calls for. Beyond `--max-epgs` only those EPGs count that `is_served` has.
pub fn called_for(
    cluster: &Records,
    settings: &Settings,
    vrf: &dyn Fn(&str) -> String,
    is_served: &dyn Fn(&str) -> bool,
) -> CalledFor {
    let mut called_for = CalledFor::default();
    let mut awake = BTreeSet::new();
    for (id, it) in &cluster.workloads {
        let Some(epg) = names(settings, id, it) else { continue };
        called_for.epgs.insert(epg.clone());
        awake.extend((!it.paused).then_some(epg));
    }
    called_for.beyond = beyond(cluster, settings).into_iter().filter(|it| !is_served(it)).collect();
    called_for.paused = called_for.epgs.difference(&awake).cloned().collect();

    // Who claims which address for which workload.
    let mut claims: Vec<Claim> = Vec::new();
    let claim = |ip: IpAddr, owner: &Id, is_pod: bool, source: &Name| {
        let workload = &cluster.workloads[owner];
        let epg = names(settings, owner, workload);
        // What a namespace may not name counts as no annotation (W6).
        let counts = epg.is_some() || workload.annotation == Annotation::Broken;
        let name = format!("{}::{}", source.0, source.1);
        (counts && is_exposed(settings, &ip)).then(|| Claim {
            ip,
            owner: owner.clone(),
            is_pod,
            name,
            epg,
            paused: workload.paused,
        })
    };
    let claiming = |it: &&Pod| !it.host_network && !it.ended;
    let all: BTreeSet<IpAddr> = cluster.pods.values().filter(claiming).flat_map(|it| it.ips.clone()).collect();
    for ip in all {
        let candidates = cluster.pods.iter().filter(|(_, it)| claiming(it) && it.ips.contains(&ip));
        let (key, pod) = candidates.max_by_key(|(_, it)| (!it.terminating, it.created, it.uid)).unwrap();
        called_for.sources.entry(ip).or_default().insert(format!("{}::{}", key.0, key.1));
        if let Some((owner, workload)) = owner(cluster, key, pod)
            && exposes(settings, workload).0
        {
            claims.extend(claim(ip, &owner, true, key));
        }
    }
    for (key, service) in cluster.services.iter().filter(|(_, it)| it.load_balancer) {
        let Some(app) = service.selector else { continue };
        for ip in &service.ips {
            called_for.sources.entry(*ip).or_default().insert(format!("{}::{}", key.0, key.1));
        }
        for (id, workload) in cluster.workloads.iter().filter(|(id, _)| id.0.0 == key.0) {
            let of_a_pod = cluster.pods.iter().any(|(pod_key, pod)| {
                !pod.ended && pod.app == app && owner(cluster, pod_key, pod).is_some_and(|it| it.0 == *id)
            });
            if (workload.app == app || of_a_pod) && exposes(settings, workload).1 {
                claims.extend(service.ips.iter().filter_map(|ip| claim(*ip, id, false, key)));
            }
        }
    }

    // In each VRF an address goes to the EPG of the oldest workload that claims it, among those that get anything.
    let mut winners: BTreeMap<(String, IpAddr), (u64, Id, String)> = BTreeMap::new();
    for Claim { ip, owner, epg, .. } in &claims {
        let Some(epg) = epg.as_ref().filter(|it| !called_for.beyond.contains(*it)) else { continue };
        let mine = (cluster.workloads[owner].created, owner.clone(), epg.clone());
        let place = winners.entry((vrf(&l3out_of(epg)), *ip)).or_insert_with(|| mine.clone());
        if (mine.0, &mine.1) < (place.0, &place.1) {
            *place = mine;
        }
    }
    let mut places: BTreeSet<(IpAddr, String)> = winners.iter().map(|(at, it)| (at.1, it.2.clone())).collect();
    // What gets nothing has the addresses that no other workload gets there.
    for Claim { ip, epg, .. } in &claims {
        let Some(epg) = epg.as_ref().filter(|it| called_for.beyond.contains(*it)) else { continue };
        if !winners.contains_key(&(vrf(&l3out_of(epg)), *ip)) {
            places.insert((*ip, epg.clone()));
        }
    }
    for (ip, epg) in &places {
        let there = || claims.iter().filter(|it| it.ip == *ip && it.epg.as_ref() == Some(epg));
        let dn = subnet(epg, ip);
        // Of those that are not paused, if there are any (D2, S4).
        let name = there().map(|it| (it.paused, it.is_pod, it.name.clone())).min().unwrap().2;
        called_for.untouched.extend(there().all(|it| it.paused).then(|| dn.clone()));
        called_for.subnets.insert(dn, name);
    }
    called_for.claims = claims;
    called_for
}

/// What a cluster calls for, in the first place, and as the program may take it: each L3Out for itself, as while one of
/// them is missing (S3); and what is beyond `--max-epgs` for ours and there, before it was read (W6).
pub fn may_be_called_for(cluster: &Records, settings: &Settings, is_ours: &dyn Fn(&str) -> bool) -> Vec<CalledFor> {
    let vrf = |l3out: &str| match l3out.rsplit_once("out-").unwrap_or_default().1 {
        "L" | "M" => "V".to_owned(),
        other => other.to_owned(),
    };
    let apart = |l3out: &str| l3out.to_owned();
    let call = |vrf: &dyn Fn(&str) -> String, is_served| called_for(cluster, settings, vrf, is_served);
    let mut all = vec![call(&vrf, is_ours), call(&apart, is_ours)];
    if !all[0].beyond.is_empty() {
        all.extend([call(&vrf, &|_: &str| true), call(&apart, &|_: &str| true)]);
    }
    all
}

/// The L3Outs that are looked at: named by a workload that gets something there, or with something of ours in them. The
/// VRFs of the others are not known (S3, W6).
fn looked_at(cluster: &Records, settings: &Settings, marks: &Marks, fabric: &Snapshot) -> BTreeSet<String> {
    let is_ours = |dn: &str| is_ours(marks, fabric, dn);
    let too_many = beyond(cluster, settings);
    let gets_something = |it: &String| is_ours(it) || !too_many.contains(it);
    let named = cluster.workloads.iter().filter_map(|(id, it)| names(settings, id, it)).filter(gets_something);
    let mut looked_at: BTreeSet<String> = named.map(|it| l3out_of(&it)).collect();
    looked_at.extend(fabric.keys().filter(|it| it.contains("/instP-") && is_ours(it)).map(|it| l3out_of(it)));
    let is_tag = |it: &Attributes| it.get("key").is_some_and(|key| key.starts_with(&marks.tag_prefix));
    let tags = fabric.iter().filter(|(_, (class, it))| class == "tagAnnotation" && is_tag(it));
    looked_at.extend(tags.filter_map(|(dn, _)| dn.split_once("/annotationKey-")).map(|it| it.0.to_owned()));
    looked_at
}

fn is_ours(marks: &Marks, fabric: &Snapshot, dn: &str) -> bool {
    fabric.get(dn).and_then(|it| it.1.get("annotation")).is_some_and(|it| *it == marks.own || it == PYTHON)
}

/// What the cluster calls for, with the VRFs that are known.
pub fn calls_for(
    cluster: &Records,
    settings: &Settings,
    marks: &Marks,
    fabric: &Snapshot,
    vrf: &dyn Fn(&str) -> String,
) -> CalledFor {
    let looked_at = looked_at(cluster, settings, marks, fabric);
    let vrf = |l3out: &str| if looked_at.contains(l3out) { vrf(l3out) } else { l3out.to_owned() };
    called_for(cluster, settings, &vrf, &|dn| is_ours(marks, fabric, dn))
}

/// The expected end state, from the cluster and the foreign objects on the fabric.
pub fn expected(
    cluster: &Records,
    settings: &Settings,
    marks: &Marks,
    fabric: &Snapshot,
    vrf: &dyn Fn(&str) -> String,
) -> Expected {
    let mut expected = Expected::default();
    let mark = |dn: &str| fabric.get(dn).map(|it| it.1.get("annotation").cloned().unwrap_or_default());
    let is_ours = |dn: &str| is_ours(marks, fabric, dn);
    let looked_at = looked_at(cluster, settings, marks, fabric);
    let vrf = |l3out: &str| if looked_at.contains(l3out) { vrf(l3out) } else { l3out.to_owned() };
    let called_for = called_for(cluster, settings, &vrf, &is_ours);
    let CalledFor { epgs: desired, paused, beyond, subnets, untouched, .. } = &called_for;
    let is_own = |dn: &str| mark(dn).is_some_and(|it| it == marks.own);
    let may_have = |epg: &str| !beyond.contains(epg);
    let can_be_had = |epg: &str| fabric.contains_key(&l3out_of(epg)) && !paused.contains(epg) && may_have(epg);
    let same_vrf = |one: &str, other: &str| vrf(&l3out_of(one)) == vrf(&l3out_of(other));
    for (here, name) in subnets {
        let (epg, rn) = split(here);
        if !can_be_had(epg) || untouched.contains(here) {
            // It is left as it is.
            expected.subnets.extend(is_own(here).then(|| (here.clone(), described(&fabric[here].1))));
            continue;
        }
        let foreign_elsewhere = fabric.iter().any(|(dn, (class, _))| {
            class == "l3extSubnet"
                && dn != here
                && !is_ours(dn)
                && dn.ends_with(rn)
                && looked_at.contains(&l3out_of(dn))
                && same_vrf(dn, epg)
        });
        // What a pause retains elsewhere in the VRF.
        let held = fabric.iter().any(|(dn, (class, it))| {
            let is_other = class == "l3extSubnet" && dn != here && is_own(dn) && split(dn).1 == rn;
            is_other && same_vrf(dn, epg) && stays(&called_for, dn, &it["name"], &can_be_had, &same_vrf)
        });
        let foreign_here = fabric.contains_key(here) && !is_ours(here) && {
            let it = &fabric[here].1;
            !(it["annotation"].is_empty() && it["name"] == *name)
        };
        if !foreign_here && (!(foreign_elsewhere || held) || is_ours(here)) {
            expected.subnets.insert(here.clone(), name.clone());
        }
    }
    for epg in desired {
        let foreign = fabric.contains_key(epg) && !is_ours(epg);
        if fabric.contains_key(&l3out_of(epg)) && may_have(epg) && !foreign && (!paused.contains(epg) || is_own(epg)) {
            expected.epgs.insert(epg.clone());
        }
    }
    // What is undesired there stays if it is a workload's own address that has nowhere to go.
    for (dn, (class, it)) in fabric.iter().filter(|(dn, _)| !subnets.contains_key(*dn)) {
        if class == "l3extSubnet" && is_own(dn) && stays(&called_for, dn, &it["name"], &can_be_had, &same_vrf) {
            expected.subnets.insert(dn.clone(), described(it));
            expected.epgs.extend(is_own(split(dn).0).then(|| split(dn).0.to_owned()));
        }
    }
    // And if foreign subnets are in it, or contracts that are to be kept.
    for (epg, _) in fabric.iter().filter(|(dn, it)| it.0 == "l3extInstP" && !desired.contains(*dn)) {
        let inside = |class: &str, foreign: bool| {
            fabric
                .iter()
                .any(|(dn, it)| dn.starts_with(&format!("{epg}/")) && it.0 == class && (!foreign || !is_own(dn)))
        };
        let stays = inside("l3extSubnet", true) || (settings.keep_contracted && inside("fvRsCons", false));
        if stays && is_own(epg) {
            expected.epgs.insert(epg.clone());
        }
    }
    expected
}

/// Whether a subnet of ours stays although it is undesired there.
fn stays(
    called_for: &CalledFor,
    dn: &str,
    name: &str,
    can_be_had: &dyn Fn(&str) -> bool,
    same_vrf: &dyn Fn(&str, &str) -> bool,
) -> bool {
    let (epg, rn) = split(dn);
    (called_for.paused.contains(epg) && called_for.stays_in_pause(&ip_of(rn), name))
        || called_for.retains(dn, name, can_be_had, same_vrf)
}

/// What matters of a subnet.
fn described(it: &Attributes) -> String {
    let scope = if it["scope"].split(',').any(|it| it == "import-security") { "" } else { " without scope" };
    format!("{}{scope}", it["name"])
}

/// What there is of ours.
pub fn actual(marks: &Marks, fabric: &Snapshot) -> Expected {
    let mut actual = Expected::default();
    for (dn, (class, it)) in fabric.iter().filter(|(_, (_, it))| it.get("annotation") == Some(&marks.own)) {
        if class == "l3extInstP" {
            actual.epgs.insert(dn.clone());
        } else if class == "l3extSubnet" {
            actual.subnets.insert(dn.clone(), described(it));
        }
    }
    actual
}
