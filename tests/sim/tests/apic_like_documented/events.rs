//! The events of subscriptions.

use std::time::Duration;

use serde_json::{Value, json};
use sim::apic::SimApic;
use tungstenite::Message;

use crate::client::{Client, EPG, LIMIT, apic, epg, next, next_json};

const L3OUT: &str = "/api/mo/uni/tn-T/out-L.json?query-target=subtree&target-subtree-class=l3extOut,l3extInstP,l3extSubnet,tagAnnotation";

fn seen(class: &str, dn: &str, status: &str) -> (String, String, String) {
    (class.to_owned(), dn.to_owned(), status.to_owned())
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn events_have_the_recorded_shapes() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    let mut socket = client.socket();
    let (tree, class) = (client.subscribe(L3OUT), client.subscribe("/api/class/l3extSubnet.json"));
    let dn = format!("{EPG}/extsubnet-[10.0.0.1/32]");
    client.post("/api/mo/uni/tn-T/out-L.json", &epg("E", &["10.0.0.1/32"]));
    assert_eq!(next(&mut socket), seen("l3extInstP", EPG, "created"));
    let created = next_json(&mut socket);
    assert_eq!(keys(&created), ["imdata", "subscriptionId"], "no totalCount");
    assert_eq!(created["subscriptionId"], json!([tree, class]), "one message for both");
    let attributes = &created["imdata"][0]["l3extSubnet"]["attributes"];
    for (name, value) in [
        ("dn", dn.as_str()),
        ("rn", ""),
        ("childAction", ""),
        ("status", "created"),
        ("ip", "10.0.0.1/32"),
        ("scope", "import-security"),
        ("uid", "15374"),
    ] {
        assert_eq!(attributes[name], value, "{name}");
    }
    // Only what changed, with a few that always come; nothing if nothing changed.
    apic.set(&dn, "l3extSubnet", &[("descr", "")]).unwrap();
    apic.set(&dn, "l3extSubnet", &[("descr", "x"), ("scope", "import-security")]).unwrap();
    let modified = next_json(&mut socket);
    assert_eq!(
        keys(&modified["imdata"][0]["l3extSubnet"]["attributes"]),
        ["childAction", "descr", "dn", "modTs", "rn", "status"]
    );
    client.delete(&format!("/api/mo/{dn}.json"));
    let deleted = next_json(&mut socket);
    assert_eq!(
        keys(&deleted["imdata"][0]["l3extSubnet"]["attributes"]),
        ["childAction", "dn", "modTs", "rn", "status"]
    );
    assert_eq!(deleted["imdata"][0]["l3extSubnet"]["attributes"]["status"], "deleted");
}

#[test]
fn a_subscription_covers_its_query() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    let mut socket = client.socket();
    // The object alone: its subnets are not reported.
    client.subscribe(&format!("/api/mo/{EPG}.json"));
    client.subscribe("/api/class/l3extSubnet.json?query-target-filter=wcard(l3extSubnet.ip,%2210.9.%22)");
    client.subscribe("/api/class/l3extOut.json?query-target=subtree&target-subtree-class=l3extRsEctx");
    apic.admin_post("uni/tn-T/out-L", &epg("E", &["10.0.0.1/32", "10.9.0.1/32"])).unwrap();
    apic.admin_delete("uni/tn-T/ctx-V").unwrap();
    assert_eq!(next(&mut socket), seen("l3extInstP", EPG, "created"), "the DN was missing when it was subscribed");
    assert_eq!(next(&mut socket), seen("l3extSubnet", &format!("{EPG}/extsubnet-[10.9.0.1/32]"), "created"));
    assert_eq!(next(&mut socket), seen("l3extRsEctx", "uni/tn-T/out-L/rsectx", "modified"), "it leads nowhere now");
}

#[test]
fn each_object_below_a_deleted_one_is_reported() {
    let apic = apic(|_| {});
    apic.admin_post("uni/tn-T/out-L", &epg("E", &["10.0.0.1/32"])).unwrap();
    let client = Client::logged_in(&apic);
    let mut socket = client.socket();
    client.subscribe(L3OUT);
    apic.admin_delete("uni/tn-T").unwrap();
    assert_eq!(next(&mut socket), seen("l3extOut", "uni/tn-T/out-L", "deleted"));
    assert_eq!(next(&mut socket), seen("l3extInstP", EPG, "deleted"));
    assert_eq!(next(&mut socket), seen("l3extSubnet", &format!("{EPG}/extsubnet-[10.0.0.1/32]"), "deleted"));
}

#[test]
fn the_fabric_changes_things_by_itself_later() {
    let apic = apic(|variants| variants.late_changes = Some(Duration::from_millis(20)));
    let client = Client::logged_in(&apic);
    let mut socket = client.socket();
    client.subscribe(L3OUT);
    client.post("/api/mo/uni/tn-T/out-L.json", &epg("E", &[]));
    let created = next_json(&mut socket);
    assert_eq!(created["imdata"][0]["l3extInstP"]["attributes"]["configSt"], "not-applied");
    let late = next_json(&mut socket);
    let attributes = &late["imdata"][0]["l3extInstP"]["attributes"];
    assert_eq!((&attributes["status"], &attributes["configSt"]), (&json!("modified"), &json!("applied")));
    assert_ne!(apic.get(EPG).unwrap()["pcTag"], "0");
}

/// Deaf: open and silent, not even a pong; what happened meanwhile is lost.
#[test]
fn a_deaf_websocket_is_silent_and_loses_events() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    let mut socket = client.socket();
    client.subscribe(L3OUT);
    apic.set_deaf(true);
    apic.admin_post("uni/tn-T/out-L", &epg("E", &[])).unwrap();
    socket.send(Message::Ping("one".into())).unwrap();
    apic.set_deaf(false);
    socket.send(Message::Ping("two".into())).unwrap();
    let mut pongs = Vec::new();
    while pongs.last().map(Vec::as_slice) != Some(b"two") {
        match socket.read().unwrap() {
            Message::Pong(bytes) => pongs.push(bytes.to_vec()),
            other => panic!("{other}"),
        }
    }
    apic.admin_post("uni/tn-T/out-L", &epg("F", &[])).unwrap();
    assert_eq!(next(&mut socket), seen("l3extInstP", "uni/tn-T/out-L/instP-F", "created"));
}

#[test]
fn many_events_come_in_order_while_the_client_sends_too() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    let mut socket = client.socket();
    client.subscribe("/api/class/l3extSubnet.json");
    let ips: Vec<String> = (0..600).map(|it| format!("10.0.{}.{}/32", it / 200, it % 200)).collect();
    let all: Vec<&str> = ips.iter().map(String::as_str).collect();
    apic.admin_post("uni/tn-T/out-L", &epg("E", &all)).unwrap();
    for (index, ip) in ips.iter().enumerate() {
        if index % 50 == 0 {
            socket.send(Message::Ping(vec![1; 100].into())).unwrap();
        }
        assert_eq!(next(&mut socket), seen("l3extSubnet", &format!("{EPG}/extsubnet-[{ip}]"), "created"));
    }
    drop(socket);
    assert!(gone(&apic));
}

fn gone(apic: &SimApic) -> bool {
    apic.wait_until(LIMIT, |admin| admin.websockets() == 0)
}
