//! K5: what `kubectl describe` shows, and that sending it holds up nothing.

use std::time::{Duration, Instant};

use crate::world::{DN_E, Daemon, E, F, LIMIT, World};
use serde_json::{Value, json};
use sim::net::{Fault, Trouble};

/// X2's deadline is a hang guard here, at five times its value.
const PROMPT: Duration = Duration::from_secs(10);

/// The Events about a namespace's objects, oldest first: reason and object.
fn reported(world: &World, namespace: &str) -> Vec<String> {
    let events = world.kube.all("events").into_iter().filter(|it| it["metadata"]["namespace"] == namespace);
    let word = |it: &Value| it.as_str().unwrap().to_owned();
    let mut events: Vec<_> = events
        .map(|it| {
            let about = &it["regarding"];
            (
                word(&it["eventTime"]),
                format!("{} {} {}", word(&it["reason"]), word(&about["kind"]), word(&about["name"])),
            )
        })
        .collect();
    events.sort();
    events.into_iter().map(|(_, it)| it).collect()
}

/// The Event with this reason about a Deployment of the namespace `a`.
fn event(world: &World, reason: &str, name: &str) -> Option<Value> {
    let mut events = world.kube.all("events").into_iter();
    events.find(|it| it["reason"] == reason && it["regarding"]["name"] == name && it["metadata"]["namespace"] == "a")
}

/// Waits until something is true of the cluster, of which the fabric says nothing.
#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "it never came about that {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Waits until all earlier notices are sent; they are sent in order.
fn until_sent(world: &World, marker: &str) {
    let annotation = json!({"tenant": "T", "l3out": "M", "epg": marker}).to_string();
    world.kube.deploy("marker", marker, Some(&annotation), &[&format!("10.9.9.{}", marker.len())]);
    until("all was sent", || world.kube.all("events").iter().any(|it| it["regarding"]["name"] == marker));
}

/// The requests about Events.
fn requests(world: &World) -> Vec<String> {
    let journal = world.kube.journal().into_iter().filter(|it| it.target.contains("/events"));
    journal.map(|it| format!("{} {}", it.method, it.target)).collect()
}

/// Whether the daemon has a thread for Events.
fn has_thread(daemon: &Daemon) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
    let mut names = threads.filter_map(|it| std::fs::read_to_string(it.unwrap().path().join("comm")).ok());
    // The kernel keeps fifteen letters of a name.
    names.any(|it| it.trim() == "kubernetes-even")
}

/// K5: the first sync and the release of a Deployment are reported, on the very object that `kubectl describe` looks
/// for; changes of its Pods are not, and a restart on a converged fabric reports nothing.
#[test]
fn sync_and_release_are_reported() {
    let world = World::new();
    let mut daemon = world.run(&["--epg-grace", "0"]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    until("it was reported", || event(&world, "Synced", "web").is_some());
    let synced = event(&world, "Synced", "web").unwrap();
    let uid = &world.kube.get("deployments", "a", "web").unwrap()["metadata"]["uid"];
    let regarding = json!({"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "a", "name": "web", "uid": uid});
    assert_eq!(synced["regarding"], regarding);
    assert_eq!((&synced["type"], &synced["action"]), (&json!("Normal"), &json!("Sync")));
    assert!(synced["note"].as_str().unwrap().starts_with(DN_E));
    assert!(has_thread(&daemon));

    world.kube.pod("a", "web", "1", &["10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(daemon.stop().0, Some(0));
    let mut daemon = world.run(&["--epg-grace", "0"]);
    until_sent(&world, "restarted");
    assert_eq!(reported(&world, "a"), ["Synced Deployment web"]);

    world.kube.delete("deployments", "a", "web");
    until("its release was reported", || event(&world, "Released", "web").is_some());
    assert!(world.apic.get(DN_E).is_none());
    assert_eq!(reported(&world, "a"), ["Synced Deployment web", "Released Deployment web"]);
    assert_eq!(daemon.stop().0, Some(0));
    assert_eq!(daemon.text("err"), "");
}

/// K5: findings are reported on the objects that they concern; the same again is another Event, and the only right used
/// is create.
#[test]
fn findings_are_reported() {
    let world = World::new();
    world.apic.set("uni/tn-T/out-L/instP-F", "l3extInstP", &[]).unwrap();
    let _daemon = world.run(&["--foreign-epg", "refuse"]);
    let nowhere = r#"{"tenant":"T","l3out":"NO","epg":"E"}"#;
    for (name, annotation, reason, note) in [
        ("typo", "{", "InvalidAnnotation", "invalid annotation: "),
        ("foreign", F, "ForeignEpgRefused", "uni/tn-T/out-L/instP-F: "),
        ("lost", nowhere, "L3OutNotFound", "uni/tn-T/out-NO: L3Out not found; waiting for it to be created"),
    ] {
        world.kube.deploy("a", name, Some(annotation), &[]);
        until(&format!("{reason} was reported"), || event(&world, reason, name).is_some());
        let found = event(&world, reason, name).unwrap();
        assert!(found["note"].as_str().unwrap().starts_with(note), "{found}");
        assert_eq!(found["type"], "Warning");
    }
    let invalid = |world: &World| reported(world, "a").iter().filter(|it| it.starts_with("InvalidAnnotation")).count();
    for annotation in [E, "{"] {
        world.kube.annotate("a", "typo", Some(annotation));
        world.settle();
    }
    until("it is reported again", || invalid(&world) == 2);
    assert!(requests(&world).iter().all(|it| it.starts_with("POST ")));
}

/// K5: a finding that no longer holds is reported on the object, once, and by the process that has warned of it.
#[test]
fn the_end_of_a_finding_is_reported() {
    let world = World::new();
    let mut daemon = world.run(&[]);
    let later = r#"{"tenant":"T","l3out":"LATER","epg":"E"}"#;
    world.kube.deploy("a", "web", Some(later), &["10.0.0.1"]);
    world.kube.deploy("a", "typo", Some("{"), &[]);
    until("both were reported", || {
        event(&world, "L3OutNotFound", "web").is_some() && event(&world, "InvalidAnnotation", "typo").is_some()
    });
    world.kube.annotate("a", "typo", Some(E));
    until("the correction was reported", || event(&world, "Resolved", "typo").is_some());
    let resolved = event(&world, "Resolved", "typo").unwrap();
    assert_eq!((&resolved["type"], &resolved["note"]), (&json!("Normal"), &json!("InvalidAnnotation no longer holds")));

    // The next process knows of the missing L3Out by itself, and so of its end, but of nothing that ended before.
    assert_eq!(daemon.stop().0, Some(0));
    world.kube.annotate("a", "typo", Some("{"));
    let _daemon = world.run(&[]);
    until("it was reported again", || {
        reported(&world, "a").iter().filter(|it| *it == "L3OutNotFound Deployment web").count() == 2
    });
    world.apic.setup_tenant("T", "V", &["LATER"]).unwrap();
    until("the end was reported", || event(&world, "Resolved", "web").is_some());
    until_sent(&world, "marker");
    let resolved: Vec<_> = reported(&world, "a").into_iter().filter(|it| it.starts_with("Resolved")).collect();
    assert_eq!(resolved, ["Resolved Deployment typo", "Resolved Deployment web"]);
}

/// K5: without the right there is one line, one try for each namespace, and all else goes on.
#[test]
fn a_missing_events_permission_is_one_line() {
    let world = World::new();
    world.kube.deny("create", "events");
    let mut daemon = world.run(&[]);
    for (n, namespace) in ["a", "a", "b", "a", "b", "c"].into_iter().enumerate() {
        let (name, epg) = (format!("web-{n}"), format!("N{n}"));
        let annotation = json!({"tenant": "T", "l3out": "L", "epg": epg}).to_string();
        world.kube.deploy(namespace, &name, Some(&annotation), &[&format!("10.0.0.{n}")]);
        world.until_holds(&epg, &[&format!("10.0.0.{n}")]);
    }
    let path = |namespace: &str| format!("POST /apis/events.k8s.io/v1/namespaces/{namespace}/events");
    until("the last was tried", || requests(&world).contains(&path("c")));
    assert_eq!(daemon.stop().0, Some(0));
    assert_eq!(requests(&world), ["a", "b", "c"].map(path));
    let complaints = daemon.text("err");
    assert_eq!(complaints.lines().count(), 1, "{complaints}");
    assert!(complaints.contains("cannot create resource") && complaints.contains("--events=false"));
}

/// K5: in a namespace that is being deleted no Event can be created, which is no warning.
#[test]
fn a_terminating_namespace_causes_no_warning() {
    let world = World::new();
    world.kube.apply("namespaces", json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}}));
    let mut daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    until_sent(&world, "marker");
    assert!(requests(&world)[0].contains("/namespaces/a/"), "it was tried");
    assert_eq!(reported(&world, "a"), [""; 0]);
    assert_eq!(daemon.stop().0, Some(0));
    assert_eq!(daemon.text("err"), "");
}

/// K5, X2: an endpoint that hangs or fails holds up neither the fabric nor the stop, and lost Events are logged once.
#[test]
fn a_failing_events_api_delays_nothing() {
    for trouble in [Trouble::Hang, Trouble::Cut, Trouble::Answer(500, "text/plain", "no".to_owned())] {
        let world = World::new();
        world.kube.fault(Fault::on("/events", trouble.clone()));
        let mut daemon = world.run(&[]);
        for n in 1..=50 {
            let annotation = json!({"tenant": "T", "l3out": "L", "epg": format!("N{n}")}).to_string();
            world.kube.deploy("a", &format!("web-{n}"), Some(&annotation), &[&format!("10.0.0.{n}")]);
        }
        until("an Event was tried", || world.kube.server().troubled() > 0);
        world.kube.deploy("a", "web", Some(E), &["10.0.1.1"]);
        world.until_holds("E", &["10.0.1.1"]);
        let (code, time) = daemon.stop();
        assert_eq!(code, Some(0));
        assert!(time < PROMPT, "{trouble:?}: {time:?}");
        assert!(daemon.text("err").lines().count() <= 1, "{trouble:?}");
        assert_eq!(daemon.count("threads still running"), 0, "{trouble:?}");
    }
}

/// K5: an answer that is lost makes no second Event, and a failure that lasts is one line until it is over.
#[test]
fn a_lost_answer_creates_no_second_event() {
    let world = World::new();
    world.kube.fault(Fault::on("/events", Trouble::LoseAnswer).times(1));
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    until_sent(&world, "marker");
    assert_eq!(reported(&world, "a"), ["Synced Deployment web"]);
    assert_eq!(daemon.text("err"), "");

    world.kube.fault(Fault::on("/events", Trouble::Answer(422, "application/json", "{}".to_owned())).times(2));
    for (name, epg) in [("one", "N1"), ("two", "N2")] {
        let annotation = json!({"tenant": "T", "l3out": "L", "epg": epg}).to_string();
        world.kube.deploy("a", name, Some(&annotation), &[if name == "one" { "10.0.0.2" } else { "10.0.0.3" }]);
    }
    until("both were tried", || world.kube.server().troubled() == 3);
    until_sent(&world, "afterwards");
    assert_eq!(reported(&world, "a"), ["Synced Deployment web"], "a rejected Event is not retried");
    daemon.until_logged("Kubernetes Events are accepted again");
    assert_eq!((daemon.count("failed to create a Kubernetes Event"), daemon.text("err").lines().count()), (1, 1));
}

/// K4, K5: of two replicas only the leader reports, and a take-over on a converged fabric reports nothing.
#[test]
fn only_the_leader_reports() {
    let world = World::new();
    let mut replicas = [world.run(&["--leader-elect"]), world.run(&["--leader-elect"])];
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    until("it was reported", || event(&world, "Synced", "web").is_some());
    let leader = replicas.iter().position(|it| it.count("APIC session established") == 1).unwrap();
    assert_eq!(replicas[leader].stop().0, Some(0));
    replicas[1 - leader].until_logged("APIC session established");
    until_sent(&world, "marker");
    assert_eq!(reported(&world, "a"), ["Synced Deployment web"]);
    assert_eq!(requests(&world).len(), 2);
}

/// K5, W5, X5: `--events=false`, `observe`, `plan` and `--once` write no Event.
#[test]
fn no_events_are_written_when_they_are_off() {
    let world = World::new();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.kube.deploy("a", "typo", Some("{"), &[]);
    for flags in [&["--policy", "observe"][..], &["--events=false"]] {
        let mut daemon = world.run(flags);
        daemon.until_logged(if flags[0] == "--events=false" { "reconciled created=" } else { "would change" });
        assert!(!has_thread(&daemon), "{flags:?}");
        assert_eq!(daemon.stop().0, Some(0));
    }
    world.kube.pod("a", "web", "9", &["10.0.0.9"]);
    for words in [&["plan"][..], &["run", "--once"]] {
        world.output(words);
    }
    assert!(world.holds("E", &["10.0.0.1", "10.0.0.9"]), "they did all else");
    assert_eq!(requests(&world), [""; 0]);
}
