//! Defects of the Python original, each with a scenario that shows ours right. Those that other files show already are
//! not repeated here.

use crate::world::{DN_E, DN_F, E, F, MARK, World};
use serde_json::json;
use sim::kube;
use sim::net::{Fault, Trouble};

/// The original matched keys by `"haystacknetworks.com" in k`: a foreign key that contains it managed a Deployment.
#[test]
fn only_the_exact_key_manages_a_deployment() {
    let world = World::new();
    let _daemon = world.run(&[]);
    for (n, key) in [
        "haystacknetworks.com/l3o",
        "aci.haystacknetworks.com/l3out",
        "aci.haystacknetworks.com/l3o.bak",
        "xaci.haystacknetworks.com/l3o",
        "ACI.haystacknetworks.com/l3o",
        "aci.haystacknetworks.com.example/l3o",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("d{n}");
        world.kube.deploy("a", &name, None, &[&format!("10.0.9.{n}")]);
        world.kube.patch("deployments", "a", &name, json!({"metadata": {"annotations": {*key: E}}}));
    }
    world.settle();
    assert!(world.apic.get(DN_E).is_none());
    assert!(world.apic.writes().iter().all(|it| it.path.contains("out-M")), "{:?}", world.writes());
}

/// The original repaired a lost mark by joining with a comma, which the APIC refuses, and so never repaired it.
#[test]
fn an_owner_mark_is_restored_exactly() {
    World::both(|world| {
        let _daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        let subnet = format!("{DN_E}/extsubnet-[10.0.0.1/32]");
        for (dn, class) in [(DN_E, "l3extInstP"), (&*subnet, "l3extSubnet")] {
            world.apic.set(dn, class, &[("annotation", "orchestrator:terraform")]).unwrap();
            world.until("the mark is back", |world| world.apic.get(dn).unwrap()["annotation"] == MARK);
        }
        assert!(world.apic.writes().iter().all(|it| it.status == 200), "nothing was refused");
    });
}

/// The original took `items[0]` and `owner_references[0]` for granted and asked the live API about Pods that had gone:
/// a bare Pod ended it, and the subnets of a Pod whose Deployment went first leaked.
#[test]
fn pods_of_every_origin_are_handled() {
    World::both(|world| {
        let daemon = world.run(&["--epg-grace", "0"]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        let owner = |kind: &str, name: &str| json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": true}]);
        let labels = json!({"app": "web", "pod-template-hash": "646c8dfd75"});
        for (n, owners) in [
            json!(null),
            json!([]),
            owner("Job", "web-646c8dfd75"),
            owner("ReplicaSet", "web"),
            owner("ReplicaSet", "other-646c8dfd75"),
            owner("DaemonSet", "web-646c8dfd75"),
        ]
        .into_iter()
        .enumerate()
        {
            let metadata =
                json!({"name": format!("bare{n}"), "namespace": "a", "labels": labels, "ownerReferences": owners});
            let status = json!({"phase": "Running", "podIP": format!("10.0.9.{n}")});
            world.kube.apply("pods", json!({"metadata": metadata, "status": status}));
        }
        world.until_holds("E", &["10.0.0.1"]);
        (0..6).for_each(|n| world.kube.delete("pods", "a", &format!("bare{n}")));
        // The Deployment goes first, its ReplicaSet next, its Pod last.
        world.kube.deploy("a", "gone", Some(F), &["10.0.1.1"]);
        world.until_holds("F", &["10.0.1.1"]);
        world.kube.delete("deployments", "a", "gone");
        world.kube.delete("replicasets", "a", "gone-646c8dfd75");
        world.kube.delete("pods", "a", "gone-646c8dfd75-0");
        world.until("nothing leaks", |world| world.apic.get(DN_F).is_none());
        world.settle();
        assert!(world.holds("E", &["10.0.0.1"]));
        assert_eq!(daemon.text("err"), "");
    });
}

/// The original created a Service's address in the EPG of every Deployment that it matched: F0467 on the fabric.
#[test]
fn a_service_of_two_deployments_is_in_one_epg() {
    World::both(|world| {
        let daemon = world.run(&["--epg-grace", "0"]);
        world.kube.deploy("a", "old", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        let young = json!({"metadata": {"creationTimestamp": "2999-01-01T00:00:00Z"},
            "spec": {"template": {"metadata": {"labels": {"app": "old"}}}}});
        world.kube.deploy("a", "young", Some(F), &["10.0.1.1"]);
        world.kube.patch("deployments", "a", "young", young);
        world.kube.load_balancer("a", "both", "old", &["10.4.0.1"]);
        world.until_holds("E", &["10.0.0.1", "10.4.0.1"]);
        daemon.until_logged("older Deployment a/old has the address");
        world.settle();
        assert!(world.holds("F", &["10.0.1.1"]));
        world.kube.delete("deployments", "a", "old");
        world.until_holds("F", &["10.0.1.1", "10.4.0.1"]);
        assert_eq!(world.apic.faults_raised().len(), 0);
    });
}

/// The original's watchers died of the first API error, or asked for the same old version again without a pause.
#[test]
fn an_expired_watch_costs_one_list() {
    for gone_as_status in [false, true] {
        let options = kube::Options { gone_as_status, ..kube::Options::default() };
        let world = World::with(options, sim::apic::Options::default());
        let _daemon = world.run(&["--epg-grace", "0"]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        let requests = || world.kube.journal().len();
        let before = requests();
        world.kube.server().pause();
        world.kube.delete("pods", "a", "web-646c8dfd75-1");
        world.kube.compact();
        world.kube.server().resume();
        world.until_holds("E", &["10.0.0.1"]);
        world.settle();
        // Three kinds: the newest version asked for, a watch that is refused, a list, a watch.
        assert!(requests() - before <= 15, "{} requests", requests() - before);
    }
}

/// The original listed without `continue`: what was not on the first page did not exist for it.
#[test]
fn objects_beyond_the_first_page_are_served() {
    let world = World::new();
    let addresses: Vec<String> = (0..1200).map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1)).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    world.kube.deploy("a", "web", Some(E), &addresses);
    let mut daemon = world.run(&[]);
    world.until("all are served", |world| world.subnets("E").len() == 1200);
    daemon.kill();
    // A start with the third page missing for a while deletes nothing.
    world.kube.fault(Fault::on("continue=", Trouble::Cut).after(1).times(2));
    let writes = world.apic.writes().len();
    let _daemon = world.run(&[]);
    world.settle();
    assert_eq!(world.subnets("E").len(), 1200);
    assert!(world.apic.writes()[writes..].iter().all(|it| it.path.contains("out-M")));
}

/// The original read one event a second, and looked every half a second: a change among thousands came hours later.
/// Ours gathers what has come and serves it in few requests.
#[test]
fn a_thousand_changes_cost_a_few_requests() {
    let world = World::new();
    let _daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    let before = world.apic.writes().len();
    (0..1000).for_each(|n| {
        drop(world.kube.pod("a", "web", &format!("p{n}"), &[&format!("10.1.{}.{}", n / 250, n % 250 + 1)]))
    });
    world.until("all are there", |world| world.subnets("E").len() == 1001);
    let writes = world.apic.writes().len() - before;
    assert!(writes <= 250, "{writes} requests for a thousand changes");
}

/// The original left `mo` unbound when the APIC answered a create with anything but 400, and ended.
#[test]
fn every_answer_to_a_create_is_handled() {
    std::thread::scope(|scope| {
        for status in [302, 401, 403, 404, 405, 413, 414, 429, 500, 502, 503] {
            scope.spawn(move || {
                let world = World::new();
                let answer = Trouble::Answer(status, "text/html", "<html>nonsense</html>".to_owned());
                world.apic.fault(Fault::on("/api/mo/uni/tn-T/out-L.json", answer).method("POST").times(1));
                let daemon = world.run(&[]);
                world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
                world.until_holds("E", &["10.0.0.1"]);
                assert_eq!(daemon.count("panicked"), 0, "{status}");
            });
        }
    });
}
