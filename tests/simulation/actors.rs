//! What other actors do: users to their clusters, other writers and administrators to the fabric.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::LazyLock;

use aci_sync::apic::Query;
use aci_sync::apic::traits::ApicRead;
use aci_sync::apic::writer::{Refusal, Writer};
use aci_sync::model::cache::FabricCache;
use aci_sync::model::cause::Cause;
use aci_sync::model::dn::{self, EpgDn, L3outDn};
use aci_sync::model::kubernetes::{Key, Kind};
use aci_sync::model::observed::Epg;
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::plan::{Change, RequestShape, Transaction};
use aci_sync::model::rules::Policy;
use aci_sync::model::scope::Scope;
use aci_sync::model::source::Source;
use serde_json::json;

use crate::apic::PYTHON;
use crate::cluster::{Annotation, Id, Name, Pod, Service, Workload};
use crate::judge;
use crate::random::Random;
use crate::world::World;

pub const L3OUTS: [&str; 3] = ["L", "M", "N"];
const EPGS: [&str; 4] = ["E0", "E1", "E2", "E3"];
/// What a crowd names, some of it in use by other Deployments.
static CROWD: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let own = (0..200).map(|n| &*format!("C{n}").leak());
    EPGS[2..].iter().copied().chain(own).collect()
});

/// A small pool, so that addresses are used again and again.
fn ip(random: &mut Random) -> IpAddr {
    let host = random.below(8);
    // What belongs to no Pod, whatever its status says (P6).
    let special = ["127.0.0.5", "169.254.0.6", "255.255.255.255", "::1", "fe80::5", "ff02::1", "0.0.0.0"];
    if random.percent(3) {
        return special[random.below(7) as usize].parse().unwrap();
    }
    let text = if random.percent(25) { format!("fd00::{host}") } else { format!("10.0.0.{host}") };
    text.parse().unwrap()
}

fn name(random: &mut Random, prefix: &str, most: u64) -> Name {
    (if random.percent(70) { "a" } else { "b" }, format!("{prefix}{}", random.below(most)))
}

fn annotation(random: &mut Random) -> Annotation {
    match random.below(12) {
        0 => Annotation::None,
        1 => Annotation::Broken,
        _ => {
            let exposes = random.percent(30).then(|| (random.percent(70), random.percent(70)));
            // X is never there.
            let l3out = if random.percent(6) { "X" } else { L3OUTS[random.below(3) as usize] };
            let l3out = if random.percent(30) { "" } else { l3out };
            Annotation::Names(l3out, EPGS[random.below(4) as usize], exposes)
        }
    }
}

/// One actor does something.
pub fn act(world: &mut World) {
    let side = world.random.below(world.sides.len() as u64) as usize;
    match world.random.below(100) {
        0..=13 => workload(world, side),
        14..=20 => hostile(world, side),
        21..=45 => pod(world, side),
        46..=55 => service(world, side),
        56..=82 => fabric(world),
        83 => change_workloads(world, side),
        84 | 85 => lapse(world, side),
        86 => world.take_over(side),
        87..=89 => {
            world.sides[side].late = !world.sides[side].late;
            world.coverage.borrow_mut().count("fault: late events");
        }
        90 => world.restart(side),
        91 | 92 => {
            world.change_default(side);
            world.restart(side);
        }
        93 => world.release(side),
        94 | 95 => wrong_plan(world, side),
        _ => refusal(world),
    }
}

fn count(world: &World, what: &str) {
    world.coverage.borrow_mut().count(what);
}

/// Deployments most of all.
fn workload_kind(random: &mut Random) -> Kind {
    [Kind::Deployment, Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet][random.below(4) as usize]
}

/// What `--workloads` may say (G1).
pub fn kinds(random: &mut Random) -> Vec<Kind> {
    let some = [(Kind::Deployment, 85), (Kind::StatefulSet, 60), (Kind::DaemonSet, 60)]
        .map(|(kind, percent)| (kind, random.percent(percent)));
    let is_watched = |kind: &Kind| some.iter().all(|(it, is_watched)| it != kind || *is_watched);
    Kind::ALL.into_iter().filter(is_watched).collect()
}

/// The program starts again with other kinds of workloads (G1).
fn change_workloads(world: &mut World, side: usize) {
    world.sides[side].rules.kinds = kinds(&mut world.random);
    count(world, "actor: change --workloads");
    world.say(format!("{} watches {:?}", world.sides[side].id, world.sides[side].rules.kinds));
    world.restart(side);
}

fn workload(world: &mut World, side: usize) {
    let key: Id = (name(&mut world.random, "d", 3), workload_kind(&mut world.random));
    let number = world.sides[side].cluster.number();
    let random = &mut world.random;
    let workloads = &mut world.sides[side].cluster.is.workloads;
    let what = match (workloads.get_mut(&key), random.below(10)) {
        (None, _) => {
            let app = random.below(3);
            let annotation = annotation(random);
            workloads.insert(key.clone(), Workload { uid: number, created: number, annotation, paused: false, app });
            "actor: deploy"
        }
        (Some(_), 0 | 1) => {
            workloads.remove(&key);
            "actor: delete a workload"
        }
        (Some(it), 2 | 3) => {
            it.paused = !it.paused;
            "actor: pause"
        }
        (Some(it), 4) => {
            // Deleted and made again, seen as one change.
            (it.uid, it.created) = (number, number);
            it.annotation = annotation(random);
            "actor: replace a workload"
        }
        (Some(it), _) => {
            it.annotation = annotation(random);
            "actor: annotate"
        }
    };
    count(world, what);
    let text = format!("{:?}", world.sides[side].cluster.is.workloads.get(&key));
    world.say(format!("{} {what} {key:?} {text}", world.sides[side].id));
    world.sides[side].cluster.changed(key.1, &key.0);
}

fn pod(world: &mut World, side: usize) {
    let key = name(&mut world.random, "p", 6);
    let number = world.sides[side].cluster.number();
    let random = &mut world.random;
    let pods = &mut world.sides[side].cluster.is.pods;
    let what = match (pods.get_mut(&key), random.below(10)) {
        (None, _) => {
            let mut ips: Vec<IpAddr> = (0..random.below(3)).map(|_| ip(random)).collect();
            ips.dedup();
            let owner = random.percent(80).then(|| (format!("d{}", random.below(3)), workload_kind(random)));
            let (app, host_network) = (random.below(3), random.percent(8));
            let pod =
                Pod { uid: number, created: number, owner, app, ips, host_network, ended: false, terminating: false };
            pods.insert(key.clone(), pod);
            "actor: start a Pod"
        }
        (Some(_), 0..=3) => {
            pods.remove(&key);
            "actor: remove a Pod"
        }
        (Some(it), 4) => {
            it.ended = true;
            "actor: end a Pod"
        }
        (Some(it), 5 | 6) => {
            it.terminating = true;
            "actor: terminate a Pod"
        }
        (Some(it), _) => {
            it.ips.push(ip(random));
            it.ips.dedup();
            "actor: give a Pod an address"
        }
    };
    count(world, what);
    let text = format!("{:?}", world.sides[side].cluster.is.pods.get(&key));
    world.say(format!("{} {what} {key:?} {text}", world.sides[side].id));
    world.sides[side].cluster.changed(Kind::Pod, &key);
}

/// A tenant who wants to have all there is: many workloads, each with an external EPG of its own, some in an L3Out
/// that is not there, and Services that select whatever there is. As often as not it takes them all away again.
fn crowd(world: &mut World, side: usize) {
    // Now and then more than a namespace may have by default (W6).
    let many = if world.random.percent(4) { 105 + world.random.below(60) } else { 3 + world.random.below(12) };
    let takes_away = world.random.percent(40);
    for n in 0..many {
        let key = (("b", format!("crowd{n}")), Kind::Deployment);
        let number = world.sides[side].cluster.number();
        let random = &mut world.random;
        let workloads = &mut world.sides[side].cluster.is.workloads;
        if takes_away {
            workloads.remove(&key);
        } else {
            let l3out = if random.percent(20) { "X" } else { L3OUTS[random.below(3) as usize] };
            let annotation = Annotation::Names(l3out, CROWD[random.below(many) as usize], None);
            let (app, paused) = (random.below(3), random.percent(10));
            workloads.insert(key.clone(), Workload { uid: number, created: number, annotation, paused, app });
        }
        world.sides[side].cluster.changed(key.1, &key.0);
    }
    count(world, if takes_away { "actor: a crowd goes" } else { "actor: a crowd comes" });
    world.say(format!("{} a crowd of {many} {}", world.sides[side].id, if takes_away { "goes" } else { "comes" }));
}

/// A tenant who wants to be where another one's addresses are classified: a Pod of another namespace gets the address
/// of one that terminates or is gone, and its workload says nothing that can be done.
fn hostile(world: &mut World, side: usize) {
    if world.random.percent(15) {
        return crowd(world, side);
    }
    let (number, younger) = (world.sides[side].cluster.number(), world.sides[side].cluster.number());
    let random = &mut world.random;
    let cluster = &mut world.sides[side].cluster;
    let victims: Vec<Name> =
        cluster.is.pods.iter().filter(|(_, it)| !it.ips.is_empty()).map(|it| it.0.clone()).collect();
    let Some(victim) = random.one_of(&victims).cloned() else { return };
    let Some(pod) = cluster.is.pods.get_mut(&victim) else { return };
    let ip = pod.ips[random.below(pod.ips.len() as u64) as usize];
    pod.terminating = true;
    cluster.changed(Kind::Pod, &victim);
    let namespace = if victim.0 == "a" { "b" } else { "a" };
    let (thief, owner) = ((namespace, format!("p{}", random.below(6))), (namespace, "d9".to_owned()));
    let kind = workload_kind(random);
    let (annotation, paused) = match random.below(5) {
        0 | 1 => (Annotation::Broken, random.percent(30)),
        2 => (Annotation::Names("X", "E0", None), false),
        3 => (Annotation::Names(L3OUTS[random.below(3) as usize], EPGS[random.below(4) as usize], None), true),
        _ => (annotation(random), random.percent(30)),
    };
    let workload = Workload { uid: number, created: number, annotation, paused, app: 9 };
    let ips = vec![ip];
    let (owned, host_network) = (Some((owner.1.clone(), kind)), false);
    let (ended, terminating) = (false, false);
    let pod = Pod { uid: younger, created: younger, owner: owned, app: 9, ips, host_network, ended, terminating };
    let text = format!("{} {owner:?} {workload:?}, {thief:?} {pod:?}", world.sides[side].id);
    let cluster = &mut world.sides[side].cluster;
    cluster.is.workloads.insert((owner.clone(), kind), workload);
    cluster.is.pods.insert(thief.clone(), pod);
    cluster.changed(kind, &owner);
    cluster.changed(Kind::Pod, &thief);
    count(world, "actor: take over an address");
    world.say(format!("{text} takes {ip} from {victim:?}"));
}

fn service(world: &mut World, side: usize) {
    let key = name(&mut world.random, "s", 3);
    let random = &mut world.random;
    let services = &mut world.sides[side].cluster.is.services;
    if services.contains_key(&key) && random.percent(30) {
        services.remove(&key);
    } else {
        let service = Service {
            load_balancer: random.percent(85),
            selector: random.percent(90).then(|| random.below(3)),
            ips: (0..random.below(3)).map(|_| ip(random)).collect(),
            hostname: random.percent(15),
        };
        services.insert(key.clone(), service);
    }
    count(world, "actor: change a Service");
    let text = format!("{:?}", world.sides[side].cluster.is.services.get(&key));
    world.say(format!("{} Service {key:?} {text}", world.sides[side].id));
    world.sides[side].cluster.changed(Kind::Service, &key);
}

/// An administrator at the fabric.
fn fabric(world: &mut World) {
    let apic = world.apic.clone();
    let admin = &apic.admin;
    let epgs: Vec<String> = admin.class("l3extInstP").into_keys().collect();
    let subnets: Vec<String> = admin.class("l3extSubnet").into_keys().collect();
    let tags: Vec<String> = admin.class("tagAnnotation").into_keys().collect();
    let contracts: Vec<String> = admin.class("fvRsCons").into_keys().collect();
    let random = &mut world.random;
    let l3out = L3OUTS[random.below(3) as usize];
    let epg = format!("uni/tn-T/out-{l3out}/instP-{}", EPGS[random.below(4) as usize]);
    let marks = ["orchestrator:terraform", "", PYTHON, "orchestrator:terraform"];
    let mark = marks[random.below(4) as usize];
    let (what, dn) = match random.below(26) {
        0..=2 => ("actor: delete an EPG", random.one_of(&epgs).cloned()),
        3..=6 => ("actor: delete a subnet", random.one_of(&subnets).cloned()),
        7..=9 => ("actor: change a scope", random.one_of(&subnets).cloned()),
        10 => ("actor: change a name", random.one_of(&subnets).cloned()),
        11 | 12 => ("actor: change a mark", random.one_of(&[&epgs[..], &subnets[..]].concat()).cloned()),
        13 => ("actor: describe", random.one_of(&[&epgs[..], &subnets[..]].concat()).cloned()),
        14..=16 if random.percent(30) => ("actor: remove a contract", random.one_of(&contracts).cloned()),
        14..=16 => ("actor: contract", random.one_of(&epgs).cloned()),
        17..=19 => ("actor: make an EPG", Some(epg)),
        20..=22 => {
            let host = random.below(8);
            ("actor: make a subnet", random.one_of(&epgs).map(|it| format!("{it}/extsubnet-[10.0.0.{host}/32]")))
        }
        23 => ("actor: delete a tag", random.one_of(&tags).cloned()),
        24 => ("actor: delete an L3Out", Some(format!("uni/tn-T/out-{l3out}"))),
        _ => ("actor: make an L3Out", Some(format!("uni/tn-T/out-{l3out}"))),
    };
    let Some(dn) = dn else { return };
    let class = if dn.contains("/extsubnet-") { "l3extSubnet" } else { "l3extInstP" };
    match what {
        "actor: delete an EPG" | "actor: delete a subnet" | "actor: delete a tag" => {
            admin.admin_delete(&dn).unwrap();
            let epg = judge::epg_of(&dn);
            for side in &world.sides {
                side.line.inner.borrow_mut().emptied.insert(epg.to_owned());
            }
        }
        "actor: delete an L3Out" => {
            if world.random.percent(60) {
                return;
            }
            admin.admin_delete(&dn).unwrap();
        }
        "actor: change a scope" => {
            let scope = ["", "import-security,shared-rtctrl", "export-rtctrl", "import-security,export-rtctrl"];
            admin.set(&dn, class, &[("scope", scope[world.random.below(4) as usize])]).unwrap();
        }
        "actor: change a name" => admin.set(&dn, class, &[("name", "renamed")]).unwrap(),
        "actor: change a mark" => {
            // Other writers neither set our mark nor remove that of the Python application.
            let mark = if mark == PYTHON { "orchestrator:mine" } else { mark };
            admin.set(&dn, class, &[("annotation", mark)]).unwrap();
        }
        "actor: describe" => admin.set(&dn, class, &[("descr", "by hand")]).unwrap(),
        "actor: contract" => {
            let contract = json!({"fvRsCons": {"attributes": {"tnVzBrCPName": "web"}}});
            admin.admin_post(&dn, &contract).unwrap();
            change_contracts(world, |all| {
                all.insert(format!("{dn}/rscons-web"));
            });
        }
        "actor: remove a contract" => {
            admin.admin_delete(&dn).unwrap();
            change_contracts(world, |all| {
                all.remove(&dn);
            });
            if world.random.percent(50) {
                admin.admin_delete(dn.rsplit_once('/').unwrap().0).unwrap();
            }
        }
        "actor: make an L3Out" => make_l3out(world, &dn),
        _ => {
            let parent = dn.rsplit_once(if class == "l3extSubnet" { "/extsubnet" } else { "/instP" }).unwrap().0;
            if admin.get(parent).is_none() || admin.get(&dn).is_some() {
                return;
            }
            let _ = admin.set(&dn, class, &[("annotation", mark)]);
        }
    }
    count(world, what);
    world.say(format!("{what} {dn} {mark}"));
}

/// Changes which contract relations people want.
fn change_contracts(world: &World, change: impl Fn(&mut BTreeSet<String>)) {
    world.sides.iter().for_each(|it| change(&mut it.line.inner.borrow_mut().contracts));
}

fn make_l3out(world: &mut World, dn: &str) {
    if world.apic.admin.get(dn).is_some() {
        return;
    }
    let name = dn.rsplit_once("out-").unwrap().1;
    let vrf = if name == "N" { "W" } else { "V" };
    let relation = json!({"l3extRsEctx": {"attributes": {"tnFvCtxName": vrf}}});
    let l3out = json!({"l3extOut": {"attributes": {"name": name}, "children": [relation]}});
    world.apic.admin.admin_post("uni/tn-T", &l3out).unwrap();
}

/// Events are lost: with the knowledge of the program, or without.
fn lapse(world: &mut World, side: usize) {
    match world.random.below(4) {
        0 => {
            count(world, "fault: subscriptions lapse unheard");
            world.apic.admin.lapse_subscriptions();
            world.say("subscriptions lapse");
        }
        1 => {
            count(world, "fault: gap");
            world.say("a gap");
            world.gap(side);
        }
        2 => {
            world.apic.admin.drop_websockets();
            world.say("websockets end");
        }
        _ => {
            let deaf = world.random.percent(50);
            count(world, "fault: deaf");
            world.apic.admin.set_deaf(deaf);
            world.say(format!("deaf: {deaf}"));
        }
    }
}

/// The fabric refuses something for a while: an address for its content, or an EPG for want of a privilege.
fn refusal(world: &mut World) {
    let random = &mut world.random;
    let admin = &world.apic.admin;
    match random.below(5) {
        0 | 1 => {
            let codes = [104, 106, 107, 120, 121, 801, 103, 102, 400];
            let code = codes[random.below(codes.len() as u64) as usize];
            let text = format!("10.0.0.{}/", random.below(8));
            let times = random.percent(50).then(|| 1 + random.below(4) as usize);
            admin.reject(&text, sim::apic::ApiError::bad(code, "simulated"), times);
            world.coverage.borrow_mut().count("fault: refused content");
            world.log.push(format!("{text} is refused with {code}, {times:?}"));
        }
        2 => {
            let dn = format!("uni/tn-T/out-{}", L3OUTS[random.below(3) as usize]);
            let class = random.percent(60).then_some("tagAnnotation");
            admin.forbid(&dn, class);
            world.coverage.borrow_mut().count("fault: forbidden");
            world.log.push(format!("forbidden: {dn} {class:?}"));
        }
        3 => admin.allow(),
        _ => admin.clear_rejections(),
    }
}

/// A plan that is wrong: the writer gets whatever comes to mind, with a cache that was just read. It is the second lock
/// behind the planner; what it lets through is judged like everything else (I3).
fn wrong_plan(world: &mut World, side: usize) {
    let owner = OwnerIdentity::new(world.sides[side].id, &[]);
    let line = &world.sides[side].line;
    if line.inner.borrow().session.is_none() {
        return;
    }
    let trouble = std::mem::take(&mut line.inner.borrow_mut().trouble);
    let mut cache = FabricCache::new(owner);
    for l3out in L3OUTS {
        let dn = L3outDn { tenant: dn::Name::tenant("T").unwrap(), l3out: dn::Name::object(l3out).unwrap() };
        let query = Query::object(&dn).subtree(&["l3extOut", "l3extInstP", "l3extSubnet", "tagAnnotation"]);
        let mos = line.read(&query).unwrap_or_default();
        cache.put_l3out(&dn, &mos, false);
    }
    let random = &mut world.random;
    let epgs: Vec<(EpgDn, Epg)> = cache.epgs().map(|(dn, epg)| (dn, epg.clone())).collect();
    let tags: Vec<String> = world.apic.admin.class("tagAnnotation").into_keys().collect();
    if let Some((dn, epg)) = random.one_of(&epgs).cloned() {
        let subnets: Vec<_> = epg.subnets.iter().collect();
        let subnet = random.one_of(&subnets).map(|(prefix, it)| (**prefix, Box::new((*it).clone())));
        let scope = || Scope::parse("import-security");
        let change = match (random.below(7), subnet) {
            (0, _) => Some(Change::DeleteEpg { subnets: 0, why: Cause::Unnamed }),
            (1, _) => Some(Change::SetEpgOwner { from: epg.ownership, why: Cause::OwnerChanged }),
            (2, _) => random.one_of(&tags).map(|it| Change::DeleteTag { tag: it.as_str().into() }),
            (3, Some((prefix, before))) => {
                let moves_to = random.percent(50).then(|| Box::new(dn.clone()));
                Some(Change::DeleteSubnet { prefix, before, moves_to, why: Cause::Undesired })
            }
            (4, Some((prefix, before))) => {
                let (mark, name) = (random.percent(50), Some("wrong".to_owned()));
                Some(Change::RepairSubnet { prefix, before, set_owner: mark, name, scope: None, why: Vec::new() })
            }
            (5, Some((prefix, _))) => {
                let source = Source { is_pod: true, key: Key::new("a", "wrong") };
                Some(Change::CreateSubnet { prefix, scope: scope(), source, why: Cause::Desired })
            }
            (6, _) => Some(Change::CreateEpg { workloads: Vec::new(), why: Cause::Desired }),
            _ => None,
        };
        if let Some(change) = change {
            let form = match &change {
                Change::DeleteTag { .. } => RequestShape::Tag,
                _ if random.percent(50) => RequestShape::EpgTree,
                _ => RequestShape::OneSubnet,
            };
            world.log.push(format!("{} gets a wrong plan: {form:?} {change:?} in {dn}", world.sides[side].id));
            let line = &world.sides[side].line;
            (line.inner.borrow_mut().may_delete, line.inner.borrow_mut().wrong_plan) = (true, true);
            let transaction = Transaction { epg: dn, shape: form, changes: vec![change] };
            let what = match Writer::new(Policy::Sync).send(line, &cache, &transaction, &|| true) {
                Ok(_) => "wrong plan: harmless",
                Err(Refusal::WrongPlan(_)) => "wrong plan: refused by the writer",
                Err(_) => "wrong plan: refused by the fabric",
            };
            let mut inner = line.inner.borrow_mut();
            inner.wrong_plan = false;
            world.log.append(&mut inner.log);
            world.coverage.borrow_mut().count(what);
        }
    }
    world.sides[side].line.inner.borrow_mut().trouble = trouble;
}

/// Another writer begins to delete an object of ours again and again, and stops some time later.
pub fn revert_repeatedly(world: &mut World) {
    match &world.reverted_object {
        None if world.random.percent(3) => {
            let ours = |it: &serde_json::Value| it["annotation"].as_str().is_some_and(|it| it.contains("aci-sync:"));
            let subnets = world.apic.admin.class("l3extSubnet").into_iter().filter(|it| ours(&it.1)).map(|it| it.0);
            let subnets: Vec<String> = subnets.collect();
            world.reverted_object = world.random.one_of(&subnets).cloned();
        }
        Some(_) if world.random.percent(7) => world.reverted_object = None,
        Some(dn) if world.apic.admin.get(dn).is_some() => {
            world.log.push(format!("another writer deletes {dn}"));
            world.apic.admin.admin_delete(dn).unwrap();
            count(world, "actor: undo what aci-sync did");
        }
        _ => {}
    }
}

/// Fixes what only an administrator can fix: privileges, refusals. Missing L3Outs, broken annotations and pauses in
/// half of the worlds only: the others show what they leave on the fabric.
pub fn fix_mistakes(world: &mut World) {
    world.apic.admin.allow();
    world.apic.admin.clear_rejections();
    world.apic.admin.set_deaf(false);
    world.reverted_object = None;
    if world.random.percent(50) {
        count(world, "actor: leave mistakes");
        return world.say("mistakes stay");
    }
    for l3out in L3OUTS {
        make_l3out(world, &format!("uni/tn-T/out-{l3out}"));
    }
    for side in 0..world.sides.len() {
        let keys: Vec<Id> = world.sides[side].cluster.is.workloads.keys().cloned().collect();
        for key in keys {
            let cluster = &mut world.sides[side].cluster;
            let Some(it) = cluster.is.workloads.get_mut(&key) else { continue };
            it.paused = false;
            if it.annotation == Annotation::Broken {
                it.annotation = Annotation::None;
            }
            cluster.changed(key.1, &key.0);
        }
    }
}
