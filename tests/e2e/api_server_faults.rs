//! What goes wrong on the Kubernetes side while the daemon runs: a server that is away, forgets, repeats itself or
//! reports less than there is.

use std::collections::BTreeSet;
use std::io::Read;
use std::time::Duration;

use crate::world::{DN_E, E, F, LIMIT, World};
use aci_sync::kube::Token;
use aci_sync::kube::{Client, ClusterConfig};
use aci_sync::model::kubernetes::Kind;
use aci_sync::net::{Roots, TlsSettings};
use aci_sync::secret::Secret;
use serde_json::{Value, json};
use sim::apic;
use sim::kube::{Options, SimKube, TOKEN};
use sim::net::{Fault, Trouble};
use sim::wire::{Flow, Wire};

const JSON: &str = "application/json";

/// The newest version of anything in the cluster.
fn version(kube: &SimKube) -> String {
    let all = ["deployments", "pods", "services", "replicasets"].into_iter().flat_map(|it| kube.all(it));
    let versions = all.map(|it| it["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap());
    versions.max().unwrap().to_string()
}

/// Ends all watches, and lets the next one of a resource answer with these lines.
fn say(world: &World, resource: &str, lines: &[Value]) {
    let lines: String = lines.iter().map(|it| format!("{it}\n")).collect();
    let target = format!("/{resource}?watch=true");
    world.kube.fault(Fault::on(&target, Trouble::Answer(200, JSON, lines)).times(1));
    world.kube.server().cut_all();
}

/// How many requests took something away that has this text in it.
fn deletions(world: &World, text: &str) -> usize {
    let takes = |it: &&apic::Entry| it.method == "DELETE" || it.body.contains("deleted");
    world.apic.writes().iter().filter(takes).filter(|it| it.target.contains(text) || it.body.contains(text)).count()
}

/// F1, F2 (W1, K2, I1): while the API server is away nothing is written; when it is back, all that happened meanwhile
/// is done, each deletion once, whether the history is still there, or forgotten, reported by status or within the
/// stream.
#[test]
fn an_api_server_outage_loses_nothing() {
    for (gone_as_status, forgets) in [(false, false), (false, true), (true, true)] {
        let world = World::with(Options { gone_as_status, ..Options::default() }, apic::Options::default());
        let daemon = world.run(&["--epg-grace", "0"]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
        world.kube.deploy("b", "gone", Some(F), &["10.0.1.1"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("F", &["10.0.1.1"]);
        world.apic.clear_journal();

        world.kube.server().pause();
        world.kube.delete("pods", "a", "web-646c8dfd75-1");
        world.kube.delete("deployments", "b", "gone");
        world.kube.pod("a", "web", "3", &["10.0.0.3"]);
        for kind in ["Deployment", "Pod", "Service"] {
            daemon.until_logged(&format!("failed to watch kind={kind} error=\"failed to reach the API server"));
        }
        assert_eq!(world.writes(), [""; 0], "there is nothing new to write");
        if forgets {
            world.kube.compact();
        }
        world.kube.server().resume();
        world.until_holds("E", &["10.0.0.1", "10.0.0.3"]);
        world.until("the other EPG is gone", |world| world.subnets("F").is_empty());
        world.settle();
        assert_eq!(deletions(&world, "10.0.0.2/32"), 1);
        let expected = if forgets { 3 } else { 0 };
        daemon.until_logged_times("(410)", expected);
        assert_eq!(daemon.count("(410)"), expected, "each kind is relisted if necessary");
    }
}

/// F3, F4 (K2): a watch whose peer fell silent without an end of the connection, or gives a byte now and then and never
/// an event, is over a little after the time that it was asked for.
#[test]
fn a_dead_watch_is_closed() {
    let kube = SimKube::start(Options::default());
    kube.deploy("a", "web", None, &["10.0.0.1"]);
    let wire = Wire::to(kube.server().address());
    let tls = TlsSettings { roots: Roots::Pem(kube.ca_pem().into_bytes()), ..TlsSettings::default() };
    let token = Some(Token::Fixed(Secret::new(TOKEN)));
    let client =
        |server: String| Client::new(&ClusterConfig { server, tls: tls.clone(), token: token.clone() }).unwrap();
    let version = version(&kube);
    let (send, ended) = crossbeam_channel::unbounded();
    let open = |what: &'static str, client: Client| {
        let (mut stream, send) = (client.watch(Kind::Pod, &version, Duration::from_secs(1)).unwrap(), send.clone());
        std::thread::spawn(move || send.send((what, stream.read_to_end(&mut Vec::new()).is_err())));
    };
    let drip = Trouble::Endless {
        begin: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        over: b"1\r\n{\r\n".to_vec(),
        pause: Duration::from_millis(300),
    };
    kube.fault(Fault::on("watch=true", drip).times(1));
    open("drips", client(kube.url()));
    open("is silent", client(format!("https://{}", wire.address())));
    wire.set(Flow::Mute);
    let mut both = [ended.recv_timeout(LIMIT).unwrap(), ended.recv_timeout(LIMIT).unwrap()];
    both.sort();
    assert_eq!(both, [("drips", true), ("is silent", true)]);
}

/// F6 (R6, I6): events that come twice, out of order, or about what was never there do no harm, and a list puts right
/// what was wrong in them.
#[test]
fn the_latest_state_wins_after_any_sequence_of_events() {
    let world = World::new();
    let daemon = world.run(&["--epg-grace", "0"]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);

    let pod = |name: &str, address: &str| {
        let mut pod = world.kube.get("pods", "a", "web-646c8dfd75-0").unwrap();
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["uid"] = json!(format!("uid-of-{name}"));
        pod["metadata"]["resourceVersion"] = json!(version(&world.kube));
        pod["status"]["podIP"] = json!(address);
        pod["status"]["podIPs"] = json!([{"ip": address}]);
        pod
    };
    let event = |what: &str, object: Value| json!({"type": what, "object": object});
    say(
        &world,
        "pods",
        &[
            event("DELETED", pod("never", "10.0.0.1")),
            event("MODIFIED", pod("early", "10.0.0.7")),
            event("ADDED", pod("early", "10.0.0.7")),
            event("ADDED", pod("early", "10.0.0.7")),
            event("DELETED", pod("web-646c8dfd75-1", "10.0.0.2")),
            event("DELETED", pod("web-646c8dfd75-1", "10.0.0.2")),
            event("ADDED", pod("brief", "10.0.0.8")),
            event("DELETED", pod("brief", "10.0.0.8")),
        ],
    );
    world.until_holds("E", &["10.0.0.1", "10.0.0.7"]);

    // Half of the events were false, and no event corrects them: the next list does.
    world.kube.server().pause();
    world.kube.apply("services", json!({"metadata": {"namespace": "z", "name": "anything"}}));
    world.kube.compact();
    world.kube.server().resume();
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(daemon.count("panicked"), 0);
}

/// F7 (D4, D6): a Deployment that was deleted and made again under its name, with another EPG and other Pods, is the
/// new one, whether both were reported, a list came instead, or it was reported as one change.
#[test]
fn a_recreated_deployment_replaces_the_old_one() {
    for order in ["both", "a list", "one change"] {
        let world = World::new();
        let _daemon = world.run(&["--epg-grace", "0"]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        world.kube.server().pause();
        for (resource, name) in [
            ("deployments", "web"),
            ("replicasets", "web-646c8dfd75"),
            ("pods", "web-646c8dfd75-0"),
            ("pods", "web-646c8dfd75-1"),
        ] {
            world.kube.delete(resource, "a", name);
        }
        world.kube.deploy("a", "web", Some(F), &["10.0.0.1", "10.0.0.5"]);
        match order {
            "a list" => world.kube.compact(),
            "one change" => {
                let now = world.kube.get("deployments", "a", "web").unwrap();
                say(&world, "deployments", &[json!({"type": "MODIFIED", "object": now})]);
            }
            _ => {}
        }
        world.kube.server().resume();
        world.until_holds("F", &["10.0.0.1", "10.0.0.5"]);
        world.until("the old EPG has gone", |world| world.apic.get(DN_E).is_none());
    }
}

/// F8 (P5, R6): an address that a Pod of another Deployment got before the old Pod's end was reported is in the new EPG
/// only, stays there when that end comes at last, and was in both in no moment.
#[test]
fn a_reused_address_follows_its_new_pod() {
    World::both(|world| {
        let _daemon = world.run(&[]);
        world.kube.deploy("a", "one", Some(E), &["10.0.0.1", "10.0.0.2"]);
        world.kube.deploy("b", "two", Some(F), &["10.0.1.1"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("F", &["10.0.1.1"]);
        let old = json!({"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}});
        world.kube.patch("pods", "a", "one-646c8dfd75-0", old);
        world.kube.pod("b", "two", "late", &["10.0.0.1"]);
        world.until_holds("F", &["10.0.0.1", "10.0.1.1"]);
        world.until_holds("E", &["10.0.0.2"]);
        world.kube.delete("pods", "a", "one-646c8dfd75-0");
        world.settle();
        assert!(world.holds("F", &["10.0.0.1", "10.0.1.1"]) && world.holds("E", &["10.0.0.2"]));
        assert!(world.apic.faults_raised().is_empty(), "F0467");
    });
}

/// F10 (I4, I7): a kind that may be listed and not watched is logged with the missing permission; the other kinds are
/// served all the same, and so is this one once it may be watched.
#[test]
fn a_forbidden_watch_does_not_stop_the_other_kinds() {
    let world = World::new();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.kube.deny("watch", "pods");
    let daemon = world.run(&[]);
    daemon.until_logged("failed to watch kind=Pod error=\"permission denied: ");
    assert!(daemon.log().contains("cannot watch resource"), "{}", daemon.log());
    world.until_holds("E", &["10.0.0.1"]);
    world.kube.pod("a", "web", "2", &["10.0.0.2"]);
    world.kube.load_balancer("a", "svc", "web", &["10.4.0.10"]);
    world.until_holds("E", &["10.0.0.1", "10.4.0.10"]);
    world.kube.allow("watch", "pods");
    world.until_holds("E", &["10.0.0.1", "10.0.0.2", "10.4.0.10"]);
    daemon.until_logged("list and watch recovered kind=Pod");
    assert_eq!(daemon.count("list and watch recovered kind=Pod"), 1);
}

/// F10 (W1, I4): a permission that is revoked while the daemon runs is logged with its verb and resource, and nothing
/// is deleted meanwhile; when it is given back, what was missed is done.
#[test]
fn a_revoked_permission_deletes_nothing() {
    let world = World::new();
    let daemon = world.run(&["--epg-grace", "0"]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    world.kube.deny("list", "pods");
    world.kube.server().pause();
    world.kube.delete("pods", "a", "web-646c8dfd75-1");
    world.kube.compact();
    world.kube.server().resume();
    daemon.until_logged("failed to list kind=Pod error=\"permission denied: ");
    assert!(daemon.log().contains("cannot list resource"), "{}", daemon.log());
    world.kube.delete("deployments", "a", "web");
    world.kube.deploy("b", "other", Some(F), &[]);
    world.until("creates go on", |world| world.apic.get("uni/tn-T/out-L/instP-F").is_some());
    world.settle();
    assert!(world.holds("E", &["10.0.0.1", "10.0.0.2"]));
    assert!(world.apic.writes().iter().all(|it| !it.body.contains("deleted") && it.method != "DELETE"));
    world.kube.allow("list", "pods");
    world.until("what was missed is done", |world| world.subnets("E").is_empty());
}

/// F1 (K2, X3): a server that asks for a pause with 429 gets it, for lists and for watches.
#[test]
fn retry_after_is_honored() {
    let world = World::new();
    let busy = || {
        let head =
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n";
        Trouble::Bytes(format!("{head}Connection: close\r\n\r\nbusy").into_bytes())
    };
    world.kube.fault(Fault::on("/pods?limit", busy()).times(1));
    world.kube.fault(Fault::on("/services?watch", busy()).times(1));
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    daemon.until_logged("failed to list kind=Pod error=\"the API server is busy: ");
    daemon.until_logged("failed to watch kind=Service error=\"the API server is busy: ");
    world.until_holds("E", &["10.0.0.1"]);
    let first = |target: &str| world.kube.journal().into_iter().find(|it| it.target.contains(target)).unwrap().at;
    let listed = first("/deployments?limit");
    assert!(first("/pods?limit") >= listed + Duration::from_secs(2), "our own pause would be less than a second");
    world.until("the watch is open", |world| {
        world.kube.journal().iter().any(|it| it.target.contains("/services?watch"))
    });
    assert!(first("/services?watch") >= first("/services?limit") + Duration::from_secs(3));
}

/// F11 (W4, I5): an empty list, with 200 and all, takes nothing away from a fabric that holds much; the next true list
/// ends the hold.
#[test]
fn an_empty_list_deletes_nothing() {
    for (resource, kind) in [("deployments", "Deployment"), ("pods", "Pod")] {
        let world = World::new();
        let addresses: Vec<String> = (1..=12).map(|n| format!("10.0.0.{n}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        world.kube.deploy("a", "web", Some(E), &addresses);
        let daemon = world.run(&["--epg-grace", "0"]);
        world.until_holds("E", &addresses);
        let list = json!({"kind": format!("{kind}List"), "apiVersion": "v1", "items": [],
            "metadata": {"resourceVersion": version(&world.kube)}});
        let target = format!("/{resource}?limit=500");
        world.kube.fault(Fault::on(&target, Trouble::Answer(200, JSON, list.to_string())).times(1));
        say(&world, resource, &[json!("nonsense")]);
        daemon.until_logged(&format!("listed kind={kind} relevant=0"));
        daemon.until_logged("deletions blocked: full sync exceeds --max-deletes");
        world.settle();
        assert!(world.holds("E", &addresses), "{kind}");
        say(&world, resource, &[json!("nonsense")]);
        daemon.until_logged(r#"finding resolved code=DeletionsBlocked subject="deletion guard""#);
        world.settle();
        assert!(world.holds("E", &addresses), "{kind}");
        assert_eq!(deletions(&world, "10.0.0."), 0);
    }
}

/// F29, F2 (I9): thousands of Pods, a page token that expires in the middle of them, and objects with a megabyte that
/// of unused data: all is exported, in little memory.
#[test]
fn thousands_of_pods_take_little_memory() {
    let world = World::new();
    let addresses: Vec<String> = (0..3000).map(|n| format!("10.1.{}.{}", n / 250, n % 250)).collect();
    world.kube.deploy("a", "web", Some(E), &[]);
    for (n, address) in addresses.iter().enumerate() {
        world.kube.pod("a", "web", &n.to_string(), &[address]);
    }
    let ballast = json!({"metadata": {"annotations": {"other.example/ballast": "x".repeat(1 << 20)}}});
    world.kube.patch("deployments", "a", "web", ballast.clone());
    for n in 0..20 {
        world.kube.patch("pods", "a", &format!("web-646c8dfd75-{n}"), ballast.clone());
    }
    let expired = json!({"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410}).to_string();
    world.kube.fault(Fault::on("/pods?limit=500&continue=", Trouble::Answer(410, JSON, expired)).times(1));
    let daemon = world.run(&[]);
    let expected: BTreeSet<String> = addresses.iter().map(|it| format!("{it}/32")).collect();
    world.until("all Pods are exported", |world| world.subnets("E") == expected);
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let peak = status.lines().find_map(|it| it.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    assert!(peak.parse::<u64>().unwrap() < 200_000, "{peak} kB at most");
}
