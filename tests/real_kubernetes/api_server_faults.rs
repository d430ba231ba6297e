//! What a cluster goes through: an API server that is restarted, one that is away for long, a history that is
//! forgotten, and more objects than one page holds.

use std::time::{Duration, Instant};

use aci_sync::kube::{Client, Event, Watcher, load};
use aci_sync::model::kubernetes::Kind;
use serde_json::json;

use crate::e2e_world::LIMIT;
use crate::world::World;

/// K2, R6: the API server is restarted; what happens afterwards is followed, and nothing is deleted for it.
#[test]
fn a_restarted_api_server() {
    let world = World::new();
    let daemon = world.run(&[]);
    world.deploy("web", Some("E"), 3);
    world.until_follows("E", "web", 3, &[]);
    let writes = world.apic.writes().len();
    world.cluster.stop("kube-apiserver");
    daemon.until_logged("failed to reach the API server");
    world.cluster.start("kube-apiserver");
    world.deploy("api", Some("F"), 1);
    world.until_follows("F", "api", 1, &[]);
    world.until_follows("E", "web", 3, &[]);
    let deleted = |it: &sim::apic::Entry| it.method == "DELETE" || it.body.contains("\"deleted\"");
    assert_eq!(world.apic.writes()[writes..].iter().filter(|it| deleted(it)).count(), 0);
}

/// K2, R6: the API server is away for a minute while Deployments are being scaled.
#[test]
fn an_api_server_that_is_away_for_a_minute() {
    let world = World::new();
    let _daemon = world.run(&[]);
    for n in 0..4 {
        world.deploy(&format!("web-{n}"), Some(&format!("E{n}")), 2);
    }
    for n in 0..4 {
        world.until_follows(&format!("E{n}"), &format!("web-{n}"), 2, &[]);
    }
    for n in 0..4 {
        world.kubectl(&["scale", "deployment", &format!("web-{n}"), &format!("--replicas={}", n * 3)]);
    }
    world.cluster.stop("kube-apiserver");
    // The test needs the whole minute: there is no event to wait for.
    let back = Instant::now() + Duration::from_secs(60);
    while Instant::now() < back {
        std::thread::park_timeout(back - Instant::now());
    }
    world.cluster.start("kube-apiserver");
    for n in 0..4 {
        let name = format!("web-{n}");
        world.until("all Pods are there", || world.addresses(&name).len() == n * 3);
        world.until_follows(&format!("E{n}"), &name, n * 3, &[]);
    }
    assert_eq!(world.apic.faults_raised().len(), 0);
}

/// K2: while the daemon hears nothing, Pods change, etcd forgets, and the API server restarts: the watch gets its
/// 410, and a new list shows what happened.
#[test]
fn an_expired_history_leads_to_a_list() {
    let world = World::new();
    let mut daemon = world.run(&[]);
    world.deploy("web", Some("E"), 2);
    world.until_follows("E", "web", 2, &[]);
    daemon.signal("STOP");
    world.kubectl(&["scale", "deployment", "web", "--replicas=5"]);
    world.until("five Pods run", || world.addresses("web").len() == 5);
    world.kubectl(&["delete", "pod", &world.a_pod("web")]);
    world.until("five others run", || world.pods("web").len() == 5 && world.addresses("web").len() == 5);
    world.cluster.stop("kube-apiserver");
    world.cluster.compact();
    world.cluster.start("kube-apiserver");
    daemon.signal("CONT");
    daemon.until_logged("resource version expired (410)");
    world.until_follows("E", "web", 5, &[]);
    assert_eq!(daemon.stop().0, Some(0));
}

/// K1: 300 Deployments with 3,000 Pods are listed page by page.
#[test]
fn thousands_of_pods_are_listed_in_pages() {
    let world = World::new();
    let lists = || world.cluster.requests().iter().filter(|(verb, of)| verb == "list" && of == "pods").count();
    let manifests: Vec<_> =
        (0..300).map(|n| world.deployment(&format!("web-{n}"), Some(&format!("E{}", n % 30)), 10)).collect();
    world.cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": manifests}).to_string());
    let path = format!("/api/v1/namespaces/{}/pods", world.namespace);
    let running = || {
        let pods = world.cluster.read(&path)["items"].as_array().cloned().unwrap_or_default();
        pods.iter().filter(|it| it["status"]["podIP"].is_string()).count()
    };
    world.until_within(5 * LIMIT, "3,000 Pods run", || running() == 3_000);
    let before = lists();
    let mut daemon = world.run(&[]);
    let held = || (0..30).map(|n| world.subnets(&format!("E{n}")).len()).sum::<usize>();
    world.until("3,000 subnets are there", || held() == 3_000);
    assert!(lists() - before >= 6, "they came in pages of 500");
    assert_eq!(daemon.stop().0, Some(0));
}

/// K2, R4: each kind is listed again from time to time, here every few seconds in place of an hour; the watch goes on
/// from there, and the view is not called incomplete for it.
#[test]
fn a_periodic_list_keeps_the_watch() {
    let world = World::new();
    let kubeconfig = world.cluster.file("service-account.kubeconfig");
    let client = Client::new(&load(Some(&kubeconfig), None, &|_| None).unwrap()).unwrap();
    let (sender, events) = crossbeam_channel::unbounded();
    let (stop, stopped) = crossbeam_channel::bounded(0);
    let watcher =
        Watcher::new(client.clone(), Kind::Deployment, sender, stopped).with_relist_every(Duration::from_secs(6));
    let watching = std::thread::spawn(move || watcher.run());
    let next = || events.recv_timeout(LIMIT).unwrap();
    assert!(matches!(next(), Event::Relisting { .. }));
    let (mut lists, mut found) = (0, false);
    world.deploy("web", Some("E"), 1);
    while lists < 3 || !found {
        match next() {
            Event::Listed { objects, .. } => {
                lists += 1;
                found |= objects.iter().any(|it| *it.key().namespace == world.namespace);
            }
            Event::Upsert(object) => found |= *object.key().namespace == world.namespace,
            Event::Relisting { why, .. } => panic!("{why}"),
            _ => {}
        }
    }
    drop(stop);
    client.shutdown();
    watching.join().unwrap();
}
