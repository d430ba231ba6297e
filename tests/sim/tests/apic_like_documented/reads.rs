//! Queries: what is selected, what the answer looks like.

use serde_json::json;

use crate::client::{Client, EPG, apic, epg};

#[test]
fn a_missing_object_is_an_empty_answer() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    for target in ["/api/mo/uni/tn-X.json", "/api/node/mo/uni/tn-T/out-L/instP-E.json", "/api/class/l3extSubnet.json"] {
        let answer = client.get(target);
        assert_eq!((answer.status, answer.json()), (200, json!({"totalCount": "0", "imdata": []})), "{target}");
    }
}

#[test]
fn top_level_objects_carry_dn_and_children_rn() {
    let apic = apic(|_| {});
    apic.admin_post("uni/tn-T/out-L", &epg("E", &["10.0.0.1/32", "10.0.0.2/32"])).unwrap();
    let client = Client::logged_in(&apic);
    let answer =
        client.get(&format!("/api/mo/{EPG}.json?rsp-subtree=full&rsp-subtree-class=l3extSubnet,tagAnnotation"));
    let json = answer.json();
    assert_eq!(json["totalCount"], "1", "a string, and children do not count");
    let epg = &json["imdata"][0]["l3extInstP"];
    assert_eq!(epg["attributes"]["dn"], EPG);
    assert!(epg["attributes"].get("rn").is_none());
    let children = epg["children"].as_array().unwrap();
    assert_eq!(children.len(), 2, "fvRsCustQosPol was not asked for");
    let first = &children[0]["l3extSubnet"]["attributes"];
    assert_eq!(first["rn"], "extsubnet-[10.0.0.1/32]");
    assert!(first.get("dn").is_none());
    assert_eq!((&first["scope"], &first["ip"]), (&json!("import-security"), &json!("10.0.0.1/32")));
}

/// apic-wire, L3Outs behind a node: one query for what deploys the L3Outs of a tenant, and the forms of the DNs.
#[test]
fn interfaces_and_peers_of_an_l3out_are_found() {
    let apic = apic(|_| {});
    apic.deploy_l3out("uni/tn-T/out-L").unwrap();
    let client = Client::logged_in(&apic);
    let classes = "l3extRsPathL3OutAtt,l3extMember,l3extIp,l3extVirtualLIfP,l3extRsDynPathAtt,bgpPeerP";
    let answer = client.get(&format!("/api/mo/uni/tn-T.json?query-target=subtree&target-subtree-class={classes}"));
    let below = "uni/tn-T/out-L/lnodep-N/lifp-I";
    let path = format!("{below}/rspathL3OutAtt-[topology/pod-1/paths-101/pathep-[eth1/1]]");
    let svi = format!("{below}/vlifp-[topology/pod-1/node-101]-[vlan-100]");
    let peers = [format!("{path}/peerP-[10.9.0.5]"), format!("{svi}/peerP-[10.9.1.0/24]")];
    assert_eq!(answer.dns(), [path.as_str(), &peers[0], &svi, &peers[1]]);
    let svi = &answer.json()["imdata"][2]["l3extVirtualLIfP"]["attributes"];
    assert_eq!((&svi["nodeDn"], &svi["encap"]), (&json!("topology/pod-1/node-101"), &json!("vlan-100")));
    let peers = client.get("/api/class/bgpPeerP.json?order-by=bgpPeerP.dn&page=0&page-size=10000").json();
    assert_eq!(
        (&peers["totalCount"], &peers["imdata"][0]["bgpPeerP"]["attributes"]["addr"]),
        (&json!("2"), &json!("10.9.0.5"))
    );
}

#[test]
fn query_targets_have_the_documented_scope() {
    let apic = apic(|_| {});
    apic.admin_post("uni/tn-T/out-L", &epg("E", &["10.0.0.1/32"])).unwrap();
    apic.admin_post("uni/tn-T/out-M", &epg("F", &["10.0.0.2/32"])).unwrap();
    let client = Client::logged_in(&apic);
    let (e1, f2) = ("uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32]", "uni/tn-T/out-M/instP-F/extsubnet-[10.0.0.2/32]");
    let table: &[(&str, &[&str])] = &[
        ("/api/mo/uni/tn-T/out-L.json", &["uni/tn-T/out-L"]),
        ("/api/mo/uni/tn-T/out-L.json?query-target=children&target-subtree-class=l3extInstP", &[EPG]),
        (
            "/api/mo/uni/tn-T/out-L.json?query-target=subtree&target-subtree-class=l3extOut,l3extInstP,l3extSubnet",
            &["uni/tn-T/out-L", EPG, e1],
        ),
        ("/api/class/l3extSubnet.json?order-by=l3extSubnet.dn", &[e1, f2]),
        ("/api/class/l3extSubnet.json?order-by=l3extSubnet.dn|desc", &[f2, e1]),
        ("/api/class/uni/tn-T/out-M/l3extSubnet.json", &[f2]),
        ("/api/node/class/l3extOut.json?query-target=subtree&target-subtree-class=l3extSubnet", &[e1, f2]),
        ("/api/class/l3extSubnet.json?query-target-filter=eq(l3extSubnet.ip,%2210.0.0.2/32%22)", &[f2]),
        ("/api/class/l3extSubnet.json?query-target-filter=eq(l3extInstP.name,%22E%22)", &[]),
        (
            "/api/class/l3extInstP.json?rsp-subtree=children&rsp-subtree-class=l3extSubnet&rsp-subtree-include=required&rsp-subtree-filter=wcard(l3extSubnet.ip,%22.0.1%22)",
            &[EPG],
        ),
        ("/api/mo/uni/tn-T/out-L/rsectx.json?rsp-prop-include=config-only", &["uni/tn-T/out-L/rsectx"]),
    ];
    for (target, expected) in table {
        assert_eq!(client.get(target).dns(), *expected, "{target}");
    }
}

#[test]
fn pages_count_the_whole() {
    let apic = apic(|_| {});
    let ips: Vec<String> = (0..25).map(|it| format!("10.0.1.{it}/32")).collect();
    apic.admin_post("uni/tn-T/out-L", &epg("E", &ips.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
    let client = Client::logged_in(&apic);
    let mut seen = Vec::new();
    for (page, size) in [(0, 10), (1, 10), (2, 5), (3, 0)] {
        let answer =
            client.get(&format!("/api/class/l3extSubnet.json?order-by=l3extSubnet.dn&page={page}&page-size=10"));
        assert_eq!((answer.json()["totalCount"].as_str(), answer.dns().len()), (Some("25"), size), "{page}");
        seen.extend(answer.dns());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 25);
}

#[test]
fn bad_reads_are_refused_as_documented() {
    let apic = apic(|variants| variants.result_limit = 2);
    apic.admin_post("uni/tn-T/out-L", &epg("E", &["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"])).unwrap();
    let client = Client::logged_in(&apic);
    let table = [
        ("/api/class/foo.json", "400", "Request failed, unresolved class for foo"),
        ("/api/class/l3extSubnet.json", "400", "Unable to process the query, result dataset is too big"),
        ("/api/mo/uni/tn-T.json?query-target=subtree&target-subtree-class=foo", "12", "Unknown class foo"),
        ("/api/mo/xyz/tn-T.json", "104", "Invalid DN xyz/tn-T wrong rn prefix xyz at position 0"),
        (
            "/api/mo/uni/tn-T/out-[x.json",
            "104",
            "Invalid DN uni/tn-T/out-[x wrong rn prefix uni/tn-T/out-[x at position 0",
        ),
        ("/api/subscriptionRefresh.json?id=72059075820650497", "400", "Subscription refresh timeout"),
    ];
    for (target, code, text) in table {
        assert_eq!(client.get(target).error(), (400, code.to_owned(), text.to_owned()), "{target}");
    }
    let (status, code, _) = client.get("/api/class/l3extSubnet.json?query-target-filter=contains(a.b,%22c%22)").error();
    assert_eq!((status, code.as_str()), (400, "400"));
}

#[test]
fn the_web_server_in_front_answers_in_html() {
    let apic = apic(|_| {});
    let client = Client::logged_in(&apic);
    let long = format!("/api/mo/uni.json?query-target-filter=eq(fvTenant.name,%22{}%22)", "x".repeat(9000));
    for (target, status) in [(long.as_str(), 414), ("/nothing", 404)] {
        let answer = client.get(target);
        assert_eq!(answer.status, status);
        assert!(
            answer.head.contains("Content-Type: text/html") && answer.body.starts_with("<html>"),
            "{}",
            answer.body
        );
    }
}
