//! R6: what a change of Pods computes again, and which EPGs are planned after it. That the result is the one of a full
//! computation is asserted after each event of each simulated world.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::fixtures::{DN_E, MARK, SECOND, Session, apic, deployment, listed, pods, reconcile, with_subnets};
use aci_sync::kube::objects;
use aci_sync::model::cache::FabricCache;
use aci_sync::model::desired::{DesiredState, Vrf, desired_state};
use aci_sync::model::dn::{EpgDn, L3outDn, Name};
use aci_sync::model::inventory::{Changed, Inventory};
use aci_sync::model::kubernetes::{Key, Kind, Object};
use aci_sync::model::mo::{Attributes, Mo};
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::plan::Plan;
use aci_sync::model::plan_input::{Moves, PlanInput};
use aci_sync::model::planner::plan;
use aci_sync::model::rules::{Policy, Rules};
use serde_json::{Value, json};

fn l3out() -> L3outDn {
    L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() }
}

fn epg(name: &str) -> EpgDn {
    l3out().epg(Name::object(name).unwrap())
}

/// A cluster of two Deployments with an EPG each, and a Service that selects Pods with the label `tier: front`.
struct World {
    inventory: Inventory,
    rules: Rules,
}

impl World {
    fn new() -> World {
        let mut world = World { inventory: Inventory::default(), rules: Rules::default() };
        for kind in Kind::DEFAULT {
            world.inventory.listed(kind, Vec::new(), Instant::now());
        }
        for (name, epg) in [("web", "E"), ("api", "F")] {
            let annotation = format!(r#"{{"tenant":"T","l3out":"L","epg":"{epg}"}}"#);
            let metadata = json!({"namespace": "shop", "name": name, "uid": name,
                "annotations": {"aci.haystacknetworks.com/l3o": annotation}});
            world.upsert(Kind::Deployment, &json!({"metadata": metadata}));
        }
        let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        world.upsert(
            Kind::Service,
            &json!({"metadata": {"namespace": "shop", "name": "front", "uid": "s"}, "status": status,
                "spec": {"type": "LoadBalancer", "selector": {"tier": "front"}}}),
        );
        world
    }

    fn upsert(&mut self, kind: Kind, json: &Value) -> Changed {
        self.inventory.upsert(objects::decode(kind, json.to_string().as_bytes()).unwrap())
    }

    fn pod(&mut self, deployment: &str, name: &str, address: &str, tier: &str) -> Changed {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{deployment}-5d4"), "uid": "r",
            "controller": true}]);
        let metadata = json!({"namespace": "shop", "name": name, "uid": name, "ownerReferences": owner,
            "labels": {"pod-template-hash": "5d4", "tier": tier}});
        let status = json!({"podIP": address, "podIPs": [{"ip": address}], "phase": "Running"});
        self.upsert(Kind::Pod, &json!({"metadata": metadata, "spec": {}, "status": status}))
    }

    fn gone(&mut self, name: &str) -> Changed {
        self.inventory.gone(Kind::Pod, &Key::new("shop", name))
    }

    fn vrf_of() -> impl Fn(&L3outDn) -> Vrf {
        |_| Vrf::Known("uni/tn-T/ctx-V".to_owned())
    }

    fn desired(&self) -> DesiredState {
        desired_state(&self.inventory, &self.rules, &World::vrf_of(), &BTreeSet::new())
    }

    fn plan(&self, desired: &DesiredState, fabric: &FabricCache) -> Plan {
        let (blocked, tag_failures) = (BTreeSet::new(), BTreeMap::new());
        plan(&PlanInput {
            desired,
            inventory: &self.inventory,
            fabric,
            rules: &self.rules,
            may_delete: true,
            grace: None,
            is_grace_over: &|_| true,
            is_deferred: &|_| false,
            is_throttled: &|_| false,
            blocked: &blocked,
            moves: Moves::Free,
            whole: false,
            tag_failures: &tag_failures,
        })
    }
}

fn addresses(all: &[&str]) -> Changed {
    Changed::Addresses(all.iter().map(|it| it.parse().unwrap()).collect())
}

/// R6: an ordinary Pod changes its addresses, and nothing else.
#[test]
fn a_pod_changes_its_addresses() {
    let mut world = World::new();
    world.pod("web", "web-1", "10.0.0.1", "back");
    assert_eq!(world.pod("web", "web-2", "10.0.0.2", "back"), addresses(&["10.0.0.2"]));
    assert_eq!(world.pod("web", "web-2", "10.0.0.2", "back"), Changed::Nothing);
    assert_eq!(world.pod("web", "web-2", "10.0.0.3", "back"), addresses(&["10.0.0.2", "10.0.0.3"]));
    assert_eq!(world.gone("web-2"), addresses(&["10.0.0.3"]));
    assert_eq!(world.gone("web-2"), Changed::Nothing);
}

/// R6, S1, P2: a Pod whose labels no other Pod of its Deployment has may let a Service select the Deployment, and addresses
/// that cannot be read are a finding; both concern more than the Pod's addresses.
#[test]
fn a_pod_of_a_new_sort_changes_everything() {
    let mut world = World::new();
    world.pod("web", "web-1", "10.0.0.1", "back");
    world.pod("web", "web-2", "10.0.0.2", "back");
    assert_eq!(world.pod("web", "web-3", "10.0.0.3", "front"), Changed::Everything);
    assert!(world.desired().epgs[&epg("E")].subnets.len() == 4, "with the Service's address");
    assert_eq!(world.pod("web", "web-4", "10.0.0.4", "front"), addresses(&["10.0.0.4"]));
    assert_eq!(world.gone("web-3"), addresses(&["10.0.0.3"]));
    assert_eq!(world.gone("web-4"), Changed::Everything);
    assert_eq!(world.pod("web", "web-2", "10.0.0.999", "back"), Changed::Everything);
}

/// S1: no Service selects a Deployment by a Pod that is gone, also if a list had that Pod twice.
#[test]
fn a_pod_that_is_listed_twice_is_one() {
    for (tiers, selected, changed) in
        [(["front", "back"], 0, addresses(&["10.0.0.1"])), (["back", "front"], 1, Changed::Everything)]
    {
        let mut world = World::new();
        let mut listed = Vec::new();
        for tier in tiers {
            world.pod("web", "web-1", "10.0.0.1", tier);
            listed.extend(world.inventory.pods.iter().cloned().map(|it| Object::Pod(Box::new(it))));
        }
        world.inventory.listed(Kind::Pod, listed, Instant::now());
        let subnets = |world: &World| world.desired().epgs[&epg("E")].subnets.len();
        assert_eq!(subnets(&world), 1 + selected, "with the Service's address if it is selected now");
        assert_eq!(world.gone("web-1"), changed);
        assert_eq!(subnets(&world), 0);
    }
}

/// R6: the desired state follows a change of Pods and names the EPGs that it concerns; an address that a finding is about,
/// before or after, cannot be followed.
#[test]
fn the_desired_state_follows_pods() {
    let mut world = World::new();
    world.pod("web", "web-1", "10.0.0.1", "back");
    world.pod("api", "api-1", "10.0.0.9", "back");
    let mut desired = world.desired();
    let mut follow = |world: &World, changed| match changed {
        Changed::Addresses(all) => {
            let all = all.into_iter().collect();
            let epgs = desired.update(&world.inventory, &world.rules, &World::vrf_of(), &all);
            if epgs.is_some() {
                assert_eq!(desired, world.desired(), "R6");
            }
            desired = world.desired();
            epgs.map(|it| it.iter().map(|dn| dn.name.to_string()).collect::<Vec<_>>().join(" "))
        }
        other => panic!("{other:?}"),
    };
    let changed = world.pod("web", "web-2", "10.0.0.2", "back");
    assert_eq!(follow(&world, changed).as_deref(), Some("E"));
    // The address goes from one Deployment to another.
    let changed = world.gone("web-2");
    assert_eq!(follow(&world, changed).as_deref(), Some("E"));
    let changed = world.pod("api", "api-2", "10.0.0.2", "back");
    assert_eq!(follow(&world, changed).as_deref(), Some("F"));
    // Two Deployments claim it (P5): a finding says so, until one of them leaves.
    let changed = world.pod("web", "web-3", "10.0.0.2", "back");
    assert_eq!(follow(&world, changed), None);
    let changed = world.gone("web-3");
    assert_eq!(follow(&world, changed), None);
    // One that is never exposed (P6) is a finding, too.
    let changed = world.pod("web", "web-4", "169.254.0.1", "back");
    assert_eq!(follow(&world, changed), None);
    let changed = world.pod("web", "web-5", "10.0.0.5", "back");
    assert_eq!(follow(&world, changed).as_deref(), Some("E"));
}

/// R6: an EPG about which there is nothing to do and nothing to say is planned again once it, or what is desired in it, has
/// changed.
#[test]
fn settled_epgs_are_left_out() {
    let mut world = World::new();
    world.pod("web", "web-1", "10.0.0.1", "back");
    world.pod("api", "api-1", "10.0.0.9", "back");
    let mut fabric = FabricCache::new(OwnerIdentity::new("me", &[]));
    let this = Mo { class: "l3extOut".to_owned(), dn: l3out().to_string(), attributes: Attributes::default() };
    fabric.put_l3out(&l3out(), &[this], false);
    let mut desired = world.desired();
    let settled = |world: &World, desired: &DesiredState, fabric: &mut FabricCache| {
        let plan = world.plan(desired, fabric);
        plan.transactions.iter().for_each(|it| fabric.apply(it));
        fabric.settle(&plan.settled);
        let names = plan.settled.iter().map(|dn| dn.name.to_string()).collect::<Vec<_>>().join(" ");
        (plan.transactions.len(), names)
    };
    assert_eq!(settled(&world, &desired, &mut fabric), (2, String::new()));
    assert_eq!(settled(&world, &desired, &mut fabric), (0, "E F".to_owned()));
    assert_eq!(settled(&world, &desired, &mut fabric), (0, String::new()));
    let Changed::Addresses(all) = world.pod("web", "web-2", "10.0.0.2", "back") else { panic!("more") };
    let all = all.into_iter().collect();
    let changed = desired.update(&world.inventory, &world.rules, &World::vrf_of(), &all).unwrap();
    changed.iter().for_each(|dn| fabric.unsettle(dn));
    assert_eq!(settled(&world, &desired, &mut fabric), (1, String::new()));
    assert_eq!(settled(&world, &desired, &mut fabric), (0, "E".to_owned()));
    fabric.recreated(&epg("F"), false);
    assert_eq!(settled(&world, &desired, &mut fabric), (0, "F".to_owned()));
}

/// R5, R6: an EPG whose owner annotation another writer keeps changing gets it back once the pause is over, although nothing has
/// happened since.
#[test]
fn a_conflict_about_an_epg_is_taken_up_again() {
    let (apic, start) = (apic(), Instant::now());
    with_subnets(&apic, 1);
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    reconcile(&mut reconciler, &session, start);
    let owner = || apic.admin.get(DN_E).unwrap()["annotation"].clone();
    for n in 1..=7 {
        assert_eq!(owner(), MARK, "{n}");
        apic.admin.set(DN_E, "l3extInstP", &[("annotation", "orchestrator:terraform")]).unwrap();
        session.deliver_events(&mut reconciler);
        reconcile(&mut reconciler, &session, start + n * SECOND);
    }
    assert_ne!(owner(), MARK, "left alone for now");
    let end = reconciler.next_wake().unwrap();
    reconcile(&mut reconciler, &session, end);
    assert_eq!(owner(), MARK);
}
