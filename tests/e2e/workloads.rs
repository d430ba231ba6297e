//! G1, G2: StatefulSets and DaemonSets beside Deployments, by the flag `--workloads`: lists, watches, rights, Events, and what
//! the commands say of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::world::{DN_E, DN_F, Daemon, E, F, World};

const ALL: [&str; 2] = ["--workloads", "deployments,statefulsets,daemonsets"];

/// The annotation of the EPG `G`.
const G: &str = r#"{"tenant":"T","l3out":"L","epg":"G"}"#;

/// The workload `a/web` as all three kinds, each with an EPG of its own.
fn three_of_one_name(world: &World) {
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.kube.deploy_as("statefulsets", "a", "web", Some(F), &["10.0.0.2", "10.0.0.3"]);
    world.kube.deploy_as("daemonsets", "a", "web", Some(G), &["10.0.0.4"]);
}

/// The names of the daemon's watcher threads; the kernel keeps fifteen letters.
fn watchers(daemon: &Daemon) -> BTreeSet<String> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
    let names = threads.filter_map(|it| std::fs::read_to_string(it.unwrap().path().join("comm")).ok());
    names.map(|it| it.trim().to_owned()).filter(|it| it.contains("-wat")).collect()
}

/// The paths of lists and watches that were asked for.
fn asked_for(world: &World, resource: &str) -> usize {
    world.kube.journal().iter().filter(|it| it.target.contains(&format!("/{resource}?"))).count()
}

/// The Event with this reason about a kind of `a/web`.
fn event(world: &World, reason: &str, kind: &str) -> Option<Value> {
    let mut events = world.kube.all("events").into_iter();
    events.find(|it| it["reason"] == reason && it["regarding"]["kind"] == kind && it["regarding"]["name"] == "web")
}

/// G1, G2, X1, K5: three workloads of one name, each with its own EPG, Pods and Events, from the lists and then by the
/// watches; there is one watcher thread for each kind.
#[test]
fn three_kinds_of_one_name() {
    World::both(|world| {
        three_of_one_name(world);
        let daemon = world.run(&[&ALL[..], &["--epg-grace", "0"]].concat());
        world.until_holds("E", &["10.0.0.1"]);
        world.until_holds("F", &["10.0.0.2", "10.0.0.3"]);
        world.until_holds("G", &["10.0.0.4"]);
        let expected = ["daemonset-watch", "deployment-watc", "pod-watcher", "service-watcher", "statefulset-wat"];
        assert_eq!(watchers(&daemon), expected.map(str::to_owned).into());

        world.kube.pod_of("statefulsets", "a", "web", "2", &["10.0.0.5"]);
        world.until_holds("F", &["10.0.0.2", "10.0.0.3", "10.0.0.5"]);
        world.kube.load_balancer("a", "db", "web", &["10.9.0.1"]);
        daemon.until_logged("code=AddressConflict");
        world.kube.delete("services", "a", "db");
        for (kind, resource) in [("StatefulSet", "statefulsets"), ("DaemonSet", "daemonsets")] {
            world.until("it was reported", |_| event(world, "Synced", kind).is_some());
            let uid = &world.kube.get(resource, "a", "web").unwrap()["metadata"]["uid"];
            let regarding = json!({"apiVersion": "apps/v1", "kind": kind, "namespace": "a", "name": "web", "uid": uid});
            assert_eq!(event(world, "Synced", kind).unwrap()["regarding"], regarding);
        }

        world.kube.delete("statefulsets", "a", "web");
        world.until("its EPG is gone", |world| world.apic.get(DN_F).is_none());
        assert!(world.holds("E", &["10.0.0.1"]) && world.holds("G", &["10.0.0.4"]));
        world.until("it was reported", |_| event(world, "Released", "StatefulSet").is_some());
        assert!(event(world, "Released", "Deployment").is_none());
    });
}

/// G1, K1: by default nothing is asked for but Deployments, Pods and Services, and the annotation counts on nothing else.
#[test]
fn only_the_named_kinds_are_asked_for() {
    let world = World::new();
    three_of_one_name(&world);
    let daemon = world.run(&[]);
    world.until_holds("E", &["10.0.0.1"]);
    assert_eq!(watchers(&daemon).len(), 3);
    assert_eq!(["statefulsets", "daemonsets"].map(|it| asked_for(&world, it)), [0, 0]);
    assert!(asked_for(&world, "deployments") > 0);
    assert!(world.apic.get(DN_F).is_none() && world.apic.get("uni/tn-T/out-L/instP-G").is_none());
    drop(daemon);

    let mut command = world.command(&["run"]);
    command.env("ACI_SYNC_WORKLOADS", "statefulsets");
    let before = asked_for(&world, "deployments");
    let _daemon = Daemon::start(command);
    world.until_holds("F", &["10.0.0.2", "10.0.0.3"]);
    assert_eq!(asked_for(&world, "deployments"), before);
}

/// G1, W1, F10: without the right to list one kind nothing is deleted, the others are served, the log names the right; when
/// the right is there, it goes on by itself.
#[test]
fn one_kind_may_not_be_listed() {
    World::both(|world| {
        three_of_one_name(world);
        let mut daemon = world.run(&[&ALL[..], &["--epg-grace", "0"]].concat());
        world.until_holds("F", &["10.0.0.2", "10.0.0.3"]);
        world.until_holds("E", &["10.0.0.1"]);
        daemon.kill();
        world.kube.delete("pods", "a", "web-646c8dfd75-0");
        world.kube.deny("list", "statefulsets");
        let daemon = world.run(&[&ALL[..], &["--epg-grace", "0"]].concat());
        daemon.until_logged("cannot list resource \\\"statefulsets\\\"");
        world.kube.deploy_as("daemonsets", "b", "new", Some(r#"{"tenant":"T","l3out":"L","epg":"H"}"#), &["10.0.1.1"]);
        world.until_holds("H", &["10.0.1.1"]);
        assert!(world.holds("E", &["10.0.0.1"]) && world.holds("F", &["10.0.0.2", "10.0.0.3"]));
        world.kube.allow("list", "statefulsets");
        world.until_holds("E", &[]);
        assert!(world.holds("F", &["10.0.0.2", "10.0.0.3"]));
    });
}

/// G1, D6, R8: a kind that is no longer named loses its subnets and then its EPG; the log says why. What shares an EPG with a
/// kind that is named stays.
#[test]
fn the_flag_is_taken_away() {
    World::both(|world| {
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.kube.deploy_as("statefulsets", "a", "web", Some(E), &["10.0.0.2"]);
        world.kube.deploy_as("statefulsets", "a", "db", Some(F), &["10.0.0.3"]);
        let mut daemon = world.run(&ALL);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("F", &["10.0.0.3"]);
        daemon.kill();
        let plan = world.output(&["plan"]);
        let text = String::from_utf8(plan.stdout).unwrap();
        assert!(
            text.contains("- 10.0.0.2/32  was \"a::web-0\"  (Pod a/web-0 belongs to no workload that is watched)"),
            "{text}"
        );
        let _daemon = world.run(&["--epg-grace", "0"]);
        world.until_holds("E", &["10.0.0.1"]);
        world.until("the EPG that nothing names is gone", |world| world.apic.get(DN_F).is_none());
    });
}

/// G2, T5, T6, T7, T8, T11, X5: what the commands say of a StatefulSet has its kind, and the rights of its kind are looked at.
#[test]
fn commands_name_the_kind() {
    let world = World::new();
    world.kube.deploy_as("statefulsets", "shop", "db", Some(E), &["10.0.0.1"]);
    let run = |words: &[&str]| {
        let done = world.output(words);
        (String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap(), done.status.code())
    };
    let with = |words: &[&str]| run(&[words, &ALL[..]].concat());
    assert!(with(&["plan"]).0.contains("+ EPG  (StatefulSet shop/db)"));

    let (text, code) = run(&["explain", "statefulset/shop/db"]);
    assert!(
        text.contains("StatefulSet shop/db: objects of kind StatefulSet are not watched") && code == Some(0),
        "{text}"
    );
    let (text, code) = run(&["explain", "shop/db"]);
    assert!(text.contains("not watched (--workloads): StatefulSet and DaemonSet") && code == Some(1), "{text}");

    let listen = format!("unix:{}", world.folder.path().join("aci-sync.sock").display());
    let mut daemon = world.run(&[&ALL[..], &["--listen", &listen]].concat());
    world.until_holds("E", &["10.0.0.1"]);
    daemon.until_logged("reconciled");
    let (text, code) = with(&["explain", "pod/shop/db-0", "--wait", "60s", "--listen", &listen]);
    assert!(text.contains("StatefulSet shop/db") && !text.contains("Deployment"), "{text}");
    assert_eq!(code, Some(0), "{text}");
    let status = run(&["status", "-o", "json", "--listen", &listen]).0;
    let status: Value = serde_json::from_str(&status).unwrap();
    let epg = &status["epgs"][0];
    assert_eq!((&epg["workloads"], &epg["workloads_total"]), (&json!(["StatefulSet shop/db"]), &json!(1)));
    let kinds: Vec<&Value> = status["kubernetes"]["kinds"].as_array().unwrap().iter().map(|it| &it["kind"]).collect();
    assert_eq!(kinds, ["deployment", "statefulset", "daemonset", "pod", "service"]);
    let metrics = run(&["status", "-o", "prometheus", "--listen", &listen]).0;
    for line in [
        "aci_sync_managed_workloads{kind=\"statefulset\"} 1",
        "aci_sync_managed_workloads{kind=\"deployment\"} 0",
        "aci_sync_watch_up{kind=\"statefulset\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }

    assert!(with(&["check"]).0.contains("ok    kube.lists      all 5 kinds; workloads name 1 L3Out"));
    for verb in ["list", "watch"] {
        world.kube.deny(verb, "statefulsets");
        let (text, code) = with(&["check"]);
        assert!(text.contains(&format!("denied: {verb} statefulsets.apps")) && code == Some(1), "{text}");
        assert!(text.contains("kubectl apply -f scripts/kubernetes-rbac-workloads.yaml"), "{text}");
        world.kube.allow(verb, "statefulsets");
    }
    assert_eq!(daemon.stop().0, Some(0));
    let (text, code) = with(&["purge"]);
    assert!(text.contains("warning: 1 workload still names these EPGs") && code == Some(2), "{text}");
    assert!(world.apic.get(DN_E).is_some());
}
