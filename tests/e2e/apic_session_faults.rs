//! Faults of the APIC session: tokens, subscriptions, storms, and messages that no APIC sends. Whatever happens, the
//! daemon goes on, the fabric ends up in sync, and no account gets locked.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::world::{DN_E, Daemon, E, F, World, side_by_side};
use serde_json::json;
use sim::apic::{self, Variants};
use sim::kube;
use sim::net::{Fault, Trouble};

const L3OUT: &str = "/api/mo/uni/tn-T/out-L.json";

fn busy() -> Trouble {
    Trouble::Answer(503, "text/html", "<html>503 Service Temporarily Unavailable</html>".to_owned())
}

fn with_short_tokens(seconds: u64) -> World {
    let token_lifetime = Duration::from_secs(seconds);
    World::with(kube::Options::default(), apic::Options { token_lifetime, ..apic::Options::default() })
}

fn logins(world: &World) -> usize {
    world.apic.journal().iter().filter(|it| it.path.contains("aaaLogin")).count()
}

/// How many requests of the journal have this in their target and were answered with 200.
fn asked(world: &World, target: &str) -> usize {
    world.apic.journal().iter().filter(|it| it.target.contains(target) && it.status == 200).count()
}

/// F12: a token that ends at any point of a reconcile costs one login, and nothing is written twice.
#[test]
fn a_token_may_expire_during_a_reconcile() {
    let moments = [("GET", "/api/class/"), ("GET", L3OUT), ("POST", L3OUT)];
    let story = |method: &str, target: &str, variants: Variants| {
        let world = World::with(kube::Options::default(), apic::Options { variants, ..apic::Options::default() });
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
        world.kube.deploy("b", "other", Some(F), &["10.0.1.1"]);
        world.apic.then(method, target, |admin| admin.expire_tokens());
        let daemon = world.run(&[]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("F", &["10.0.1.1"]);
        // Writes that were in flight together may all be done before it is noticed.
        daemon.until_logged("APIC session lost");
        world.until("it has logged in again", |world| logins(world) > 1);
        assert_eq!(logins(&world), 2, "{method} {target}");
        let taken = world.apic.writes().iter().filter(|it| it.status == 200).count();
        assert_eq!(taken, 2, "{method} {target}: one write for each EPG");
    };
    std::thread::scope(|scope| {
        for (method, target) in moments {
            for variants in [Variants::default(), Variants::opposite()] {
                scope.spawn(move || story(method, target, variants));
            }
        }
    });
}

/// F12 (A3): a refresh of the token that fails once is tried again before the token ends; the session stays.
#[test]
fn a_refresh_that_fails_once_is_retried() {
    let world = with_short_tokens(8);
    world.apic.fault(Fault::on("aaaRefresh", busy()).times(1));
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until("the token was refreshed", |world| asked(world, "aaaRefresh") == 1);
    world.apic.admin_delete(DN_E).unwrap();
    world.until_holds("E", &["10.0.0.1"]);
    assert_eq!((logins(&world), world.apic.troubled()), (1, 1));
    assert_eq!(daemon.count("APIC session lost"), 0);
}

/// F12 (A3, W8): if no refresh succeeds, a new login comes before the session is lost, and drift of that time is found.
#[test]
fn a_refresh_that_keeps_failing_leads_to_a_login() {
    let world = with_short_tokens(8);
    world.apic.fault(Fault::on("aaaRefresh", busy()));
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    daemon.until_logged("APIC session lost");
    // The next session shall last.
    world.apic.clear_faults();
    world.apic.admin_delete(DN_E).unwrap();
    world.until_holds("E", &["10.0.0.1"]);
    assert!(world.apic.troubled() >= 2, "the refresh was tried several times");
    assert_eq!(logins(&world), 2);
}

/// F14 (R3, R4): if a refresh is answered with 200 although the subscription is dead, drift is found after `--resync`
/// at the latest; an answer with 405 means that the websocket is unknown there, and leads to a new session.
#[test]
fn a_refresh_of_a_dead_subscription_is_noticed() {
    let begin = || {
        let world = World::new();
        world.apic.variants(|it| {
            it.refresh_timeout_known = false;
            it.dead_ids_refreshed = true;
        });
        let daemon = world.run(&["--resync", "10s"]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        (world, daemon)
    };
    let lies = || {
        let (world, daemon) = begin();
        world.apic.lapse_subscriptions();
        world.until("the dead subscription was refreshed", |world| asked(world, "subscriptionRefresh") == 1);
        world.apic.admin_delete(DN_E).unwrap();
        world.until_holds("E", &["10.0.0.1"]);
        assert_eq!(daemon.count("a subscription lapsed"), 0, "unnoticed");
    };
    let unknown = || {
        let (world, daemon) = begin();
        let error = json!({"error": {"attributes": {"code": "405", "text": "unable to locate opened web socket"}}});
        let body = json!({"totalCount": "1", "imdata": [error]}).to_string();
        world.apic.fault(Fault::on("subscriptionRefresh", Trouble::Answer(405, "application/json", body)).times(1));
        daemon.until_logged_times("APIC session established", 2);
        world.apic.admin_delete(DN_E).unwrap();
        world.until_holds("E", &["10.0.0.1"]);
        assert_eq!(logins(&world), 2);
    };
    side_by_side(&[&lies, &unknown]);
}

/// 2,000 addresses.
fn many() -> Vec<String> {
    (0..2000).map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1)).collect()
}

/// A world with 2,000 subnets in an EPG, which are all deleted while the daemon waits for the answer to a read. It
/// waits until the returned sender is dropped.
fn storm(world: &World) -> (Daemon, Sender<()>) {
    let addresses = many();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    world.kube.deploy("a", "web", Some(E), &addresses);
    assert!(world.output(&["run", "--once"]).status.success());
    assert_eq!(world.subnets("E").len(), 2000);
    // From now on everything is announced.
    world.apic.advance(Duration::from_secs(60));
    let mut command = world.command(&["run"]);
    command.env("RUST_LOG", "debug");
    let daemon = Daemon::start(command);
    world.until("it follows the L3Out", |world| asked(world, "subscription=yes") == 1);
    let (go_on, held) = channel::<()>();
    world.apic.then("GET", "instP-E.json", move |admin| {
        admin.admin_delete(DN_E).unwrap();
        let _ = held.recv();
    });
    let one = format!("{DN_E}/extsubnet-[10.1.0.1/32]");
    world.apic.set(&one, "l3extSubnet", &[("name", "drifted")]).unwrap();
    daemon.until_logged("event queue full; dropping events");
    (daemon, go_on)
}

/// F15 (X3, R4): the events of 2,000 deleted subnets do not fit into the queue. Nothing waits for it and nothing is
/// lost: one full sync, and all subnets are back after a few requests.
#[test]
fn a_burst_of_events_is_one_full_sync() {
    World::both(|world| {
        let (daemon, go_on) = storm(world);
        let (writes, logins_before) = (world.apic.writes().len(), logins(world));
        drop(go_on);
        world.until("all are back", |world| world.subnets("E").len() == 2000);
        daemon.until_logged(r#"APIC events may be lost; starting a full sync reason="too many events at once"#);
        world.settle();
        assert!(world.apic.writes().len() - writes <= 10, "few requests: {:?}", &world.writes()[writes..]);
        assert_eq!((logins(world), world.subnets("E").len()), (logins_before, 2000));
    });
}

/// F22 (X2): a stop while the reconciler waits and its queue is full is prompt and clean.
#[test]
fn a_full_queue_does_not_delay_the_shutdown() {
    let world = World::new();
    let (mut daemon, go_on) = storm(&world);
    let (code, time) = daemon.stop();
    assert_eq!((code, daemon.count("threads still running")), (Some(0), 0), "{}", daemon.log());
    assert!(time < Duration::from_secs(10), "{time:?}");
    drop(go_on);
}

/// F17 (W8, I11): while the APIC is busy for long, with 503 or 429, the session is kept, a refused request is sent
/// again up to four times, and what is not served then is left to a later reconcile.
#[test]
fn a_busy_apic_causes_no_extra_logins() {
    let story = |status: u16| {
        let world = World::new();
        let daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        let refusals = 12;
        world.apic.fault(Fault::on("/api/", Trouble::Answer(status, "text/html", "<html>".to_owned())).times(refusals));
        world.apic.admin_delete(DN_E).unwrap();
        world.kube.pod("a", "web", "2", &["10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        assert_eq!(daemon.count("reconcile failed"), refusals / 5, "five tries a request: {status}");
        assert_eq!((logins(&world), daemon.count("APIC session lost")), (1, 0), "{status}");
    };
    // A throttled login is not a refused password.
    let throttled = || {
        let world = World::new();
        world.apic.fault(Fault::on("aaaLogin", busy()).times(7));
        let daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        assert_eq!(daemon.count("failed to open an APIC session; trying"), 1, "the same error is logged once");
    };
    side_by_side(&[&|| story(503), &|| story(429), &throttled]);
}

/// A frame of a server: its first byte and its payload.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut frame = vec![first];
    match length {
        0..126 => frame.push(length as u8),
        126..65_536 => frame.extend([&[126], &(length as u16).to_be_bytes()[..]].concat()),
        _ => frame.extend([&[127], &(length as u64).to_be_bytes()[..]].concat()),
    }
    frame.extend(payload);
    frame
}

/// The most memory that a process ever held, in KiB.
fn peak(daemon: &Daemon) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find(|it| it.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// F32 (X3): whatever comes over the websocket costs at most the session, never the daemon or its memory, and the drift
/// of that time is repaired.
#[test]
fn a_hostile_websocket_costs_at_most_a_session() {
    const TEXT: u8 = 0x81;
    const PING: u8 = 0x89;
    let huge = [&[TEXT, 127][..], &(1u64 << 30).to_be_bytes()].concat();
    let mut endless = frame(0x01, &[b' '; 1 << 20]);
    (0..20).for_each(|_| endless.extend(frame(0x00, &[b' '; 1 << 20])));
    let deep = format!("{}{}", "{\"imdata\":[".repeat(50_000), "]}".repeat(50_000));
    let fatal: [(&str, Vec<u8>); 9] = [
        ("a frame of 1 GB", [huge, vec![b' '; 1 << 16]].concat()),
        ("endless fragments", endless),
        ("a control frame in fragments", frame(0x09, b"half")),
        ("a control frame that is too long", frame(PING, &[0; 200])),
        ("a frame with a reserved meaning", frame(0x83, b"?")),
        ("reserved bits", frame(0xF1, b"{}")),
        ("a fragment of nothing", frame(0x80, b"{}")),
        ("text that is none", frame(TEXT, &[0xFF, 0xFE, 0xC0])),
        ("no frame at all", b"HTTP/1.1 200 OK\r\n\r\n<html>".repeat(100)),
    ];
    let harmless: [(&str, Vec<u8>); 6] = [
        ("a flood of pings", frame(PING, b"are you there?").repeat(20_000)),
        ("pongs without a ping", frame(0x8A, b"here").repeat(1000)),
        ("garbage", frame(TEXT, b"\0garbage{[").repeat(3)),
        ("an empty message", frame(TEXT, b"")),
        ("a deep message", frame(TEXT, deep.as_bytes())),
        ("binary garbage", frame(0x82, &[0xFF; 5000])),
    ];
    let story = |what: &str, bytes: &[u8], sessions: usize| {
        let world = World::new();
        let daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        world.apic.websocket_bytes(bytes);
        if sessions > 1 {
            daemon.until_logged_times("APIC session established", sessions);
        }
        if bytes.len() > 1 << 16 && sessions > 1 {
            daemon.until_logged("a message is too large");
        }
        world.apic.admin_delete(DN_E).unwrap();
        world.until_holds("E", &["10.0.0.1"]);
        assert_eq!(daemon.count("APIC session established"), sessions, "{what}: {}", daemon.log());
        assert!(peak(&daemon) < 200 << 10, "{what}: {} KiB", peak(&daemon));
        let log = daemon.log();
        assert!(log.lines().all(|it| it.len() < 1000 && !it.chars().any(char::is_control)), "{what}: {log}");
    };
    for (stories, sessions) in [(&fatal[..], 2), (&harmless[..], 1)] {
        std::thread::scope(|scope| {
            for (what, bytes) in stories {
                scope.spawn(move || story(what, bytes, sessions));
            }
        });
    }
}

/// F32 (R3): events about objects that were not subscribed, or with invalid DNs, lead to no request; events of unknown
/// subscriptions are ignored.
#[test]
fn events_out_of_scope_are_ignored() {
    let world = World::new();
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    world.settle();
    let ids = world.apic.subscription_ids();
    let own = |dn: &str| format!("uni/tn-T/out-L/instP-{dn}");
    let strange = [
        "uni/tn-HOSTILE/out-L/instP-E".to_owned(),
        "uni/tn-T/out-HOSTILE".to_owned(),
        own("HOSTILE/../E"),
        own("HOSTILE?query-target=subtree"),
        own("HOSTILE\r\nX: y"),
        own("E/extsubnet-[HOSTILE]"),
        own("E/extsubnet-[10.0.0.1/32]/HOSTILE"),
        format!("uni/{}", "HOSTILE/".repeat(2000)),
        String::new(),
    ];
    let event = |ids: &[String], class: &str, dn: &str, status: &str| {
        let attributes =
            json!({"dn": dn, "status": status, "annotation": "orchestrator:aci-sync:me", "name": "HOSTILE"});
        json!({"subscriptionId": ids, "imdata": [{class: {"attributes": attributes}}]}).to_string()
    };
    let before = world.apic.journal().len();
    // An unknown subscription, whether the event is true or not.
    let unknown = ["72059999999999999".to_owned()];
    world.apic.websocket_bytes(&frame(0x81, event(&unknown, "l3extInstP", DN_E, "deleted").as_bytes()));
    world.settle();
    let after = world.apic.journal().split_off(before);
    assert!(after.iter().all(|it| !it.target.contains("instP-E")), "no read follows from it");
    for dn in &strange {
        for class in ["l3extInstP", "l3extSubnet", "l3extOut", "fvTenant"] {
            for status in ["created", "modified", "deleted", "HOSTILE"] {
                world.apic.websocket_bytes(&frame(0x81, event(&ids, class, dn, status).as_bytes()));
            }
        }
    }
    world.settle();
    let after = world.apic.journal().split_off(before);
    assert!(after.iter().all(|it| !it.target.contains("HOSTILE") && !it.body.contains("HOSTILE")), "{after:#?}");
    assert!(world.holds("E", &["10.0.0.1"]));
    assert_eq!(daemon.count("APIC session established"), 1);
    // A false event about an owned object costs a read and changes nothing.
    let reads = asked(&world, "instP-E.json");
    world.apic.websocket_bytes(&frame(0x81, event(&ids, "l3extInstP", DN_E, "deleted").as_bytes()));
    world.until("it was read", |world| asked(world, "instP-E.json") > reads);
    world.settle();
    assert!(world.apic.journal().split_off(before).iter().all(|it| !it.is_write() || it.body.contains("settle")));
}

/// F35 (K3, A1): the Kubernetes token and the APIC password are rotated under a running daemon. The token's file is
/// read again by itself, the password's on SIGHUP, and the fabric stays in sync without a deletion.
#[test]
fn credentials_may_be_rotated() {
    let world = World::new();
    let mut config: serde_json::Value = serde_json::from_str(&world.kube.kubeconfig(kube::Credential::Token)).unwrap();
    let token = world.folder.file("token", kube::TOKEN);
    config["users"][0]["user"] = json!({"tokenFile": token});
    world.folder.file("kubeconfig", &config.to_string());
    let daemon = world.run(&["--epg-grace", "0"]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);

    world.kube.accept_tokens(&["rotated"]);
    world.folder.file("token", "rotated");
    world.kube.server().cut_all();
    world.kube.pod("a", "web", "2", &["10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);

    world.apic.set_password("admin", "Another-word-2");
    world.folder.file("password", "Another-word-2");
    daemon.signal("HUP");
    daemon.until_logged("credentials read again");
    world.apic.expire_tokens();
    world.kube.pod("a", "web", "3", &["10.0.0.3"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!((logins(&world), daemon.count("check the credentials")), (2, 0));
    assert!(world.apic.writes().iter().all(|it| !it.body.contains("deleted")));
    let log = daemon.log();
    assert!([kube::TOKEN, "rotated", "Another-word", world.apic.password()].iter().all(|it| !log.contains(it)));
}
