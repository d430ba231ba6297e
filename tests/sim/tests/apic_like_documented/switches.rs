//! What could not be verified: each switch, both settings.

use std::time::Duration;

use serde_json::json;
use sim::apic::{HostBits, Order, PostAnswer, TokenStyle, Variants};

use crate::client::{Client, EPG, apic, ends, epg, next, next_json, token_in};

const L3OUT: &str =
    "/api/mo/uni/tn-T/out-L.json?query-target=subtree&target-subtree-class=l3extInstP,l3extSubnet,tagAnnotation";

#[test]
fn tokens() {
    for (expired_status, token_style) in [(403, TokenStyle::Base64), (401, TokenStyle::Jwt)] {
        let apic = apic(|variants| {
            variants.expired_status = expired_status;
            variants.token_style = token_style;
        });
        let mut client = Client::new(&apic, 0);
        let token = token_in(&client.login(apic.username(), apic.password()));
        let old_style = token.contains('/') && token.contains('+') && token.contains('=');
        assert_eq!((old_style, token.matches('.').count()), if expired_status == 403 { (true, 0) } else { (false, 2) });
        drop(client.socket());
        apic.expire_tokens();
        assert_eq!(client.get("/api/mo/uni.json").status, expired_status);
    }
}

#[test]
fn the_old_token_after_a_refresh() {
    for (old_token_lives, status) in [(true, 200), (false, 403)] {
        let apic = apic(|variants| variants.old_token_lives = old_token_lives);
        let client = Client::logged_in(&apic);
        assert_eq!(client.get("/api/aaaRefresh.json").status, 200);
        assert_eq!(client.get("/api/mo/uni.json").status, status);
    }
}

#[test]
fn the_websocket_when_the_token_ends() {
    let apic = apic(|variants| variants.socket_ends_with_token = false);
    let client = Client::logged_in(&apic);
    let mut socket = client.socket();
    client.subscribe(L3OUT);
    apic.expire_tokens();
    apic.admin_post("uni/tn-T/out-L", &epg("E", &[])).unwrap();
    assert_eq!(next(&mut socket).1, EPG, "served until it is closed");
    apic.variants(|variants| variants.socket_ends_with_token = true);
    let client = Client::logged_in(&apic);
    let socket = client.socket();
    apic.expire_tokens();
    assert!(ends(socket));
}

/// What a user of some tenants is shown by a class query is not established: his part, or a refusal.
#[test]
fn a_user_of_some_tenants() {
    for class_queries_refused in [false, true] {
        let apic = apic(|variants| {
            variants.visible_tenants = Some(&["T"]);
            variants.class_queries_refused = class_queries_refused;
        });
        apic.setup_tenant("U", "W", &["X"]).unwrap();
        let client = Client::logged_in(&apic);
        let all = client.get("/api/class/l3extOut.json?order-by=l3extOut.dn&page-size=10&page=0");
        assert_eq!(all.status, if class_queries_refused { 403 } else { 200 });
        assert!(!all.body.contains("uni/tn-U"));
        for (dn, count) in [("uni/tn-T/out-L", "1"), ("uni/tn-U/out-X", "0")] {
            let answer = client.get(&format!("/api/mo/{dn}.json"));
            assert_eq!((answer.status, &answer.json()["totalCount"]), (200, &json!(count)), "{dn}");
        }
    }
}

#[test]
fn prefixes() {
    let table = [
        (true, HostBits::Kept, "FD00::0:1/128", Some("fd00::1/128")),
        (false, HostBits::Kept, "FD00::0:1/128", Some("FD00::0:1/128")),
        (true, HostBits::Kept, "10.0.0.1/24", Some("10.0.0.1/24")),
        (true, HostBits::Cleared, "10.0.0.1/24", Some("10.0.0.0/24")),
        (true, HostBits::Refused, "10.0.0.1/24", None),
    ];
    for (ipv6_canonical, host_bits, ip, expected) in table {
        let apic = apic(|variants| {
            variants.ipv6_canonical = ipv6_canonical;
            variants.host_bits = host_bits;
        });
        let client = Client::logged_in(&apic);
        client.post("/api/mo/uni/tn-T/out-L.json", &epg("E", &[ip]));
        assert_eq!(apic.subnets(EPG).keys().next().map(String::as_str), expected, "{ip}");
    }
}

#[test]
fn two_tenants_in_a_post() {
    for (reject_multi_tenant, status) in [(true, 400), (false, 200)] {
        let apic = apic(|variants| variants.reject_multi_tenant = reject_multi_tenant);
        let client = Client::logged_in(&apic);
        let tenant = |name: &str| json!({"fvTenant": {"attributes": {"name": name}}});
        let body = json!({"polUni": {"attributes": {}, "children": [tenant("A"), tenant("B")]}});
        let answer = client.post("/api/mo/uni.json", &body);
        assert_eq!((answer.status, apic.get("uni/tn-A").is_some()), (status, status == 200));
        assert_eq!(answer.body.contains("requires distributed transaction"), status == 400);
    }
}

#[test]
fn events_of_tags() {
    for tag_events in [true, false] {
        let apic = apic(|variants| variants.tag_events = tag_events);
        let client = Client::logged_in(&apic);
        let mut socket = client.socket();
        client.subscribe(L3OUT);
        let tag = json!({"tagAnnotation": {"attributes": {"key": "k", "value": "v"}}});
        apic.admin_post("uni/tn-T/out-L", &tag).unwrap();
        apic.admin_post("uni/tn-T/out-L", &epg("E", &[])).unwrap();
        assert_eq!(next(&mut socket).0, if tag_events { "tagAnnotation" } else { "l3extInstP" });
    }
}

#[test]
fn order_of_events() {
    let subnet = format!("{EPG}/extsubnet-[10.0.0.1/32]");
    let other = "uni/tn-T/out-L/instP-F";
    let table = [
        (Order::ParentsFirst, vec![EPG, &subnet, EPG, &subnet, other]),
        (Order::ChildrenFirst, vec![&subnet, EPG, &subnet, EPG, other]),
        (Order::ParentsOnly, vec![EPG, EPG, other]),
    ];
    for (order, expected) in table {
        let apic = apic(|variants| {
            variants.created_order = order;
            variants.deleted_order = order;
        });
        let client = Client::logged_in(&apic);
        let mut socket = client.socket();
        client.subscribe(L3OUT);
        apic.admin_post("uni/tn-T/out-L", &epg("E", &["10.0.0.1/32"])).unwrap();
        apic.admin_delete(EPG).unwrap();
        apic.admin_post("uni/tn-T/out-L", &epg("F", &[])).unwrap();
        let got: Vec<String> = expected.iter().map(|_| next(&mut socket).1).collect();
        assert_eq!(got, expected, "{order:?}");
    }
}

/// What falls together has the same time, and no other deletion has it; or each object has that of its last change.
#[test]
fn times_of_deletions() {
    for (have_time, equal) in [(true, [true, false]), (false, [false, false])] {
        let apic = apic(|variants| variants.deletions_have_time = have_time);
        let client = Client::logged_in(&apic);
        let mut socket = client.socket();
        apic.admin_post("uni/tn-T/out-L", &epg("E", &[])).unwrap();
        apic.admin_post("uni/tn-T/out-L", &epg("E", &["10.0.0.1/32"])).unwrap();
        apic.admin_post("uni/tn-T/out-L", &epg("E", &["10.0.0.2/32"])).unwrap();
        client.subscribe(L3OUT);
        apic.admin_delete(&format!("{EPG}/extsubnet-[10.0.0.2/32]")).unwrap();
        apic.admin_delete(EPG).unwrap();
        let mut time = || {
            let event = next_json(&mut socket);
            let object = event["imdata"][0].as_object().unwrap().values().next().unwrap();
            object["attributes"]["modTs"].clone()
        };
        let [before, parent, child] = [time(), time(), time()];
        assert_eq!([parent == child, parent == before], equal, "{have_time}");
    }
}

#[test]
fn events_below_a_new_parent() {
    let apic = apic(|variants| variants.settle = Duration::from_secs(5));
    let client = Client::logged_in(&apic);
    let mut socket = client.socket();
    client.subscribe(L3OUT);
    apic.advance(Duration::from_secs(6));
    apic.admin_post("uni/tn-T/out-L", &epg("E", &["10.0.0.1/32"])).unwrap();
    assert_eq!(next(&mut socket).1, EPG);
    assert_eq!(next(&mut socket).1, format!("{EPG}/extsubnet-[10.0.0.1/32]"), "of the same request");
    apic.admin_post("uni/tn-T/out-L", &epg("E", &["10.0.0.2/32"])).unwrap();
    apic.advance(Duration::from_secs(6));
    apic.admin_post("uni/tn-T/out-L", &epg("E", &["10.0.0.3/32"])).unwrap();
    assert_eq!(next(&mut socket).1, format!("{EPG}/extsubnet-[10.0.0.3/32]"));
}

#[test]
fn a_missing_dn() {
    for missing_dn_announced in [true, false] {
        let apic = apic(|variants| variants.missing_dn_announced = missing_dn_announced);
        let client = Client::logged_in(&apic);
        let mut socket = client.socket();
        client.subscribe("/api/mo/uni/tn-N.json?query-target=subtree");
        client.subscribe("/api/mo/uni/tn-T.json");
        apic.setup_tenant("N", "V", &[]).unwrap();
        apic.set("uni/tn-T", "fvTenant", &[("descr", "x")]).unwrap();
        assert_eq!(next(&mut socket).1, if missing_dn_announced { "uni/tn-N" } else { "uni/tn-T" });
    }
}

#[test]
fn subscriptions() {
    let old = apic(|variants| variants.refresh_timeout_known = false);
    let client = Client::logged_in(&old);
    let _socket = client.socket();
    let target = "/api/mo/uni/tn-T.json?subscription=yes";
    assert_eq!(client.get(&format!("{target}&refresh-timeout=300")).error().0, 400);
    assert_eq!(client.get(target).status, 200);

    let apic = apic(|variants| variants.lapsed_are_silent = false);
    let client = Client::logged_in(&apic);
    let mut socket = client.socket();
    let id = client.subscribe(L3OUT);
    apic.advance(Duration::from_secs(61));
    assert_eq!(client.get(&format!("/api/subscriptionRefresh.json?id={id}")).status, 400);
    apic.admin_post("uni/tn-T/out-L", &epg("E", &[])).unwrap();
    assert_eq!(next(&mut socket).1, EPG, "events go on past a missed refresh");
}

#[test]
fn answers() {
    let apic = apic(|variants| {
        variants.numeric_total = true;
        variants.escaped_slashes = true;
        variants.implicit_children = false;
        variants.modified_upserts = false;
        variants.missing_parent_code = 400;
        variants.unknown_property_code = 121;
        variants.children_first_code = 822;
        variants.validation_names_dn = false;
        variants.filter_limit = None;
        variants.post_answer = PostAnswer::Flat;
    });
    let client = Client::logged_in(&apic);
    assert_eq!(client.get("/api/mo/uni/tn-T.json").json()["totalCount"], 1);
    let missing = client.post("/api/mo/uni/tn-X/out-L.json", &epg("E", &[]));
    assert!(missing.body.contains(r"uni\/tn-X\/out-L"), "{}", missing.body);
    assert_eq!(missing.error().1, "400");
    let flat = client.post("/api/mo/uni/tn-T/out-L.json?rsp-subtree=full", &epg("E", &["10.0.0.1/32"]));
    assert_eq!(flat.dns(), [EPG, "uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32]"]);
    assert!(apic.get(&format!("{EPG}/rscustQosPol")).is_none());
    let modified = json!({"l3extInstP": {"attributes": {"name": "N", "status": "modified"}}});
    assert_eq!(client.post("/api/mo/uni/tn-T/out-L.json", &modified).status, 400);
    let unknown = json!({"l3extInstP": {"attributes": {"name": "E", "colour": "red"}}});
    assert_eq!(client.post("/api/mo/uni/tn-T/out-L.json", &unknown).error().1, "121");
    let children_first = r#"{"l3extInstP":{"children":[],"attributes":{"name":"E"}}}"#;
    let (_, code, text) = client.send("POST", "/api/mo/uni/tn-T/out-L.json", children_first).error();
    assert_eq!((code.as_str(), text.as_str()), ("822", "naming property ('l3extInstP.name') is not set."));
    let malformed = json!({"l3extInstP": {"attributes": {"name": "E", "annotation": "a,b"}}});
    let (_, _, text) = client.post("/api/mo/uni/tn-T/out-L.json", &malformed).error();
    assert_eq!(text, "property annotation of instP-E failed validation for value 'a,b'");
    let many = vec!["true()"; 30].join(",");
    assert_eq!(client.get(&format!("/api/class/l3extOut.json?query-target-filter=and({many})")).status, 200);
    apic.variants(|variants| variants.unescaped_quotes = true);
    let broken = client.get("/api/class/l3extSubnet.json?query-target-filter=contains(a.b,%22c%22)");
    assert!(broken.status == 400 && serde_json::from_str::<serde_json::Value>(&broken.body).is_err());
}

#[test]
fn pages_and_containers() {
    let apic = apic(|variants| {
        variants.page_cap = Some(3);
        variants.pages_shift = -1;
    });
    let ips: Vec<String> = (1..6).map(|it| format!("10.0.0.{it}/32")).collect();
    apic.admin_post("uni/tn-T/out-L", &epg("E", &ips.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
    let client = Client::logged_in(&apic);
    let page = |page: usize| {
        let answer =
            client.get(&format!("/api/class/l3extSubnet.json?order-by=l3extSubnet.dn&page={page}&page-size=1000"));
        answer.dns().iter().map(|it| it.chars().nth_back(4).unwrap()).collect::<String>()
    };
    assert_eq!((page(0), page(1)), ("123".to_owned(), "5".to_owned()), "one slipped through between two pages");
    let tag = json!({"tagAnnotation": {"attributes": {"key": "k", "value": "v"}}});
    apic.admin_post(&format!("{EPG}/extsubnet-[10.0.0.1/32]"), &tag).unwrap();
    for (containers_kept, expected) in [(true, 1), (false, 0)] {
        apic.variants(|variants| variants.containers_kept = containers_kept);
        let answer = client.get(&format!("/api/mo/{EPG}.json?rsp-subtree=full&rsp-subtree-class=tagAnnotation")).json();
        let children = answer["imdata"][0]["l3extInstP"]["children"].as_array().map_or(0, Vec::len);
        assert_eq!(children, expected);
    }
}

/// The contrary settings are a cluster that works.
#[test]
fn everything_the_other_way_round() {
    let apic = apic(|variants| *variants = Variants::opposite());
    let client = Client::logged_in(&apic);
    assert_eq!(client.post("/api/mo/uni/tn-T/out-L.json", &epg("E", &["10.0.0.1/32"])).status, 200);
    assert_eq!(apic.subnets(EPG).len(), 1);
}
