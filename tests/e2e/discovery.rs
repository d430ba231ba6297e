//! J1: `check --discover` against fabrics as they are built: SVIs on vPCs, floating SVIs, BGP peers, reused addresses, and
//! users that may see a part of the fabric.

use serde_json::{Value, json};
use sim::apic::{self, Variants};
use sim::kube;
use sim::net::{Fault, Trouble};

use crate::world::{E, World};

/// A Pod on a node with these addresses.
fn node(world: &World, addresses: &[&str]) {
    let all: Vec<Value> = addresses.iter().map(|it| json!({"ip": it})).collect();
    let name = format!("on-{}", addresses[0].replace([':', '.'], "-"));
    let status = json!({"phase": "Running", "hostIP": addresses[0], "hostIPs": all, "podIP": addresses[0]});
    let metadata = json!({"namespace": "kube-system", "name": name});
    world.kube.apply("pods", json!({"metadata": metadata, "spec": {"hostNetwork": true}, "status": status}));
}

fn nodes(world: &World) {
    for address in ["10.1.1.11", "10.1.1.12", "10.1.1.13"] {
        node(world, &[address]);
    }
}

/// Puts interfaces into an L3Out.
fn interfaces(world: &World, l3out: &str, children: Value) {
    let profile = json!({"l3extLIfP": {"attributes": {"name": "I"}, "children": children}});
    let node = json!({"l3extLNodeP": {"attributes": {"name": "N"}, "children": [profile]}});
    world.apic.admin_post(l3out, &node).unwrap();
}

fn peers(addresses: &[&str]) -> Value {
    addresses.iter().map(|it| json!({"bgpPeerP": {"attributes": {"addr": it}}})).collect()
}

/// A floating SVI with BGP peers.
fn floating(world: &World, l3out: &str, address: &str, floating: &str, peer: &[&str]) {
    let path = json!({"tDn": "uni/phys-P", "floatingAddr": floating});
    let mut children = peers(peer);
    children.as_array_mut().unwrap().push(json!({"l3extRsDynPathAtt": {"attributes": path}}));
    let svi = json!({"nodeDn": "topology/pod-1/node-101", "encap": "vlan-100", "addr": address, "ifInstT": "ext-svi"});
    interfaces(world, l3out, json!([{"l3extVirtualLIfP": {"attributes": svi, "children": children}}]));
}

/// An SVI on a vPC: the addresses are those of its members, with one that both share.
fn vpc(world: &World, l3out: &str, addresses: [&str; 2], shared: &str) {
    let shared = json!({"l3extIp": {"attributes": {"addr": shared}}});
    let member = |side: &str, address: &str| json!({"l3extMember": {"attributes": {"side": side, "addr": address}, "children": [shared]}});
    let path = "topology/pod-1/protpaths-101-102/pathep-[vpc]";
    let svi = json!({"tDn": path, "addr": "0.0.0.0", "encap": "vlan-200", "ifInstT": "ext-svi"});
    let members = json!([member("A", addresses[0]), member("B", addresses[1])]);
    interfaces(world, l3out, json!([{"l3extRsPathL3OutAtt": {"attributes": svi, "children": members}}]));
}

/// What it prints and its exit code. It has sent reads, one login and one logout, and reads of Pods and not of nodes.
fn discover(world: &World, words: &[&str]) -> (String, Option<i32>) {
    world.apic.clear_journal();
    let done = world.output(&[&["check", "--discover"], words].concat());
    for it in world.apic.journal() {
        let is_session = matches!(it.path.as_str(), "/api/aaaLogin.json" | "/api/aaaLogout.json");
        assert!(it.method == "GET" || it.method == "POST" && is_session, "{} {}", it.method, it.path);
    }
    assert!(world.kube.journal().iter().all(|it| it.method == "GET" && !it.target.contains("/nodes")));
    assert_eq!(world.apic.sessions(), 0, "the session was logged out");
    (String::from_utf8(done.stdout).unwrap(), done.status.code())
}

fn document(world: &World, words: &[&str]) -> (Value, Option<i32>) {
    let (text, code) = discover(world, &[words, &["-o", "json"]].concat());
    (serde_json::from_str(&text).unwrap(), code)
}

fn l3outs(document: &Value) -> Vec<String> {
    let candidates = document["discovery"]["candidates"].as_array().unwrap();
    candidates.iter().map(|it| it["l3out"].as_str().unwrap().to_owned()).collect()
}

/// J1: all nodes are BGP peers of one L3Out: the answer is unique, with the evidence, and the line for the settings.
#[test]
fn one_l3out_has_all_nodes_as_peers() {
    World::both(|world| {
        nodes(world);
        floating(world, "uni/tn-T/out-L", "10.1.1.1/24", "10.1.1.3/24", &["10.1.1.11", "10.1.1.12", "10.1.1.0/24"]);
        vpc(world, "uni/tn-T/out-M", ["10.8.1.2/24", "10.8.1.3/24"], "10.8.1.1/24");
        let (text, code) = discover(world, &[]);
        assert_eq!(code, Some(0), "{text}");
        let (_, table) = text.split_once("\n\n").unwrap();
        let evidence = "lnodep-N/lifp-I/vlifp-[topology/pod-1/node-101]-[vlan-100]/peerP-[10.1.1.11]";
        let expected = format!(
            "L3Out           VRF             NODES   EVIDENCE\n\
             uni/tn-T/out-L  uni/tn-T/ctx-V  3 of 3  BGP peer 10.1.1.11 in {evidence}, and for 2 more nodes\n\
             unique. For the settings: ACI_SYNC_DEFAULT_L3OUT=T/L\n"
        );
        assert_eq!(table, expected, "{text}");
        assert!(text.contains("ok    discovery       uni/tn-T/out-L: 3 of 3 nodes behind it"), "{text}");
        assert!(!text.contains("fabric.") && !text.contains("kube.rights"), "the other checks are not run: {text}");

        let (document, code) = document(world, &[]);
        let found = &document["discovery"];
        assert_eq!(
            (code, &found["result"], &document["schema"]),
            (Some(0), &json!("unique"), &json!("aci-sync.check.v1"))
        );
        let svi = "uni/tn-T/out-L/lnodep-N/lifp-I/vlifp-[topology/pod-1/node-101]-[vlan-100]";
        let third = json!({"address": "10.1.1.13", "strength": 2, "via": "BGP peers 10.1.1.0/24",
            "dn": format!("{svi}/peerP-[10.1.1.0/24]")});
        assert_eq!(found["candidates"][0]["nodes"][2], third, "{document}");
        assert_eq!(found["candidates"][0]["vrf"], "uni/tn-T/ctx-V");
    });
}

/// J1: interfaces are enough, if one L3Out has them: of a vPC, of a floating SVI, and secondary ones; a node of both families
/// counts with each address.
#[test]
fn interfaces_are_evidence() {
    World::both(|world| {
        node(world, &["10.2.2.11", "fd00:2::11"]);
        vpc(world, "uni/tn-T/out-M", ["10.8.1.2/24", "fd00:2::2/64"], "10.2.2.1/24");
        let (document, code) = document(world, &[]);
        assert_eq!((code, l3outs(&document)), (Some(0), vec!["uni/tn-T/out-M".to_owned()]), "{document}");
        let nodes = document["discovery"]["candidates"][0]["nodes"].as_array().unwrap();
        let path = "uni/tn-T/out-M/lnodep-N/lifp-I/rspathL3OutAtt-[topology/pod-1/protpaths-101-102/pathep-[vpc]]";
        let dns: Vec<&str> = nodes.iter().map(|it| it["dn"].as_str().unwrap()).collect();
        assert_eq!(dns, [format!("{path}/mem-A/addr-[10.2.2.1/24]"), format!("{path}/mem-B")], "{document}");
    });
    let world = World::new();
    node(&world, &["10.3.3.11"]);
    floating(&world, "uni/tn-T/out-L", "10.9.9.1/24", "10.3.3.3/24", &[]);
    let (text, code) = discover(&world, &[]);
    assert!(code == Some(0) && text.contains("interface 10.3.3.3/24 in lnodep-N/"), "{text}");
}

/// J1: racks are several, reused addresses of two VRFs are ambiguous, and no evidence is none. Nothing is chosen.
#[test]
fn several_ambiguous_and_none() {
    World::both(|world| {
        nodes(world);
        let (text, code) = discover(world, &[]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.ends_with("behind no L3Out: 10.1.1.11, 10.1.1.12, 10.1.1.13\nnone: nothing matches among 0 interfaces and BGP peers.\n"), "{text}");

        floating(world, "uni/tn-T/out-L", "10.1.1.1/28", "10.1.1.2/28", &["10.1.1.11", "10.1.1.12"]);
        floating(world, "uni/tn-T/out-M", "10.1.2.1/24", "10.1.2.2/24", &["10.1.1.13"]);
        let (found, code) = document(world, &[]);
        assert_eq!((code, &found["discovery"]["result"]), (Some(2), &json!("several")), "{found}");
        assert_eq!(l3outs(&found), ["uni/tn-T/out-L", "uni/tn-T/out-M"]);

        // Another tenant reuses the addresses in a VRF of its own.
        world.apic.setup_tenant("U", "W", &["X"]).unwrap();
        floating(world, "uni/tn-U/out-X", "10.1.1.1/24", "10.1.1.2/24", &["10.1.1.11"]);
        let (found, code) = document(world, &[]);
        assert_eq!((code, &found["discovery"]["result"]), (Some(2), &json!("ambiguous")), "{found}");
        let vrf_of_x =
            found["discovery"]["candidates"].as_array().unwrap().iter().find(|it| it["l3out"] == "uni/tn-U/out-X");
        assert_eq!(vrf_of_x.unwrap()["vrf"], "uni/tn-U/ctx-W");
        let (text, _) = discover(world, &[]);
        assert!(text.lines().last().unwrap().starts_with("ambiguous: "), "{text}");
        assert!(!text.contains("ACI_SYNC_DEFAULT_L3OUT="), "{text}");
    });
}

/// J1: a user who may see his tenants only gets his part, whether class queries show it or are refused; then the tenants are
/// those of the arguments, of Deployments and of the default.
#[test]
fn a_user_of_some_tenants() {
    for variants in [Variants::default(), Variants::opposite()] {
        let variants = Variants { visible_tenants: Some(&["T"]), ..variants };
        let refuses = variants.class_queries_refused;
        let world = World::with(kube::Options::default(), apic::Options { variants, ..apic::Options::default() });
        nodes(&world);
        world.apic.setup_tenant("U", "W", &["X"]).unwrap();
        for l3out in ["uni/tn-T/out-L", "uni/tn-U/out-X"] {
            floating(&world, l3out, "10.1.1.1/24", "10.1.1.2/24", &["10.1.1.0/24"]);
        }
        let (text, code) = discover(&world, &[]);
        assert_eq!(code, Some(if refuses { 1 } else { 0 }), "{text}");
        assert_eq!(
            text.contains("FAIL  discovery       the query for all l3extRsPathL3OutAtt failed"),
            refuses,
            "{text}"
        );
        for words in [&["T/M"][..], &["--default-l3out", "T/M"]] {
            let (found, code) = document(&world, words);
            assert_eq!((code, l3outs(&found)), (Some(0), vec!["uni/tn-T/out-L".to_owned()]), "{found}");
            assert_eq!(found.to_string().contains("read only T: the query for all"), refuses, "{found}");
        }
        world.kube.deploy("a", "web", Some(E), &[]);
        let (text, code) = discover(&world, &[]);
        assert!(code == Some(0) && text.ends_with("ACI_SYNC_DEFAULT_L3OUT=T/L\n"), "{text}");
        let (text, code) = discover(&world, &["U/X"]);
        assert!(code == Some(0) && text.ends_with("ACI_SYNC_DEFAULT_L3OUT=T/L\n"), "{text}");
    }
}

/// J1, X3: a query that is too large for the APIC, and one whose pages do not hold what the APIC counts, are no answer; the
/// tenants are read instead.
#[test]
fn answers_that_are_incomplete() {
    let world = World::new();
    nodes(&world);
    floating(&world, "uni/tn-T/out-L", "10.1.1.1/24", "10.1.1.2/24", &["10.1.1.11", "10.1.1.12", "10.1.1.13"]);
    let error = json!({"imdata": [{"error": {"attributes": {"code": "400",
        "text": "Unable to process the query, result dataset is too big"}}}]});
    let short = json!({"totalCount": "5", "imdata": []});
    for (code, body, says) in [(400, error, "dataset is too big"), (200, short, "incomplete, with 0 of 5 objects")] {
        let fault = Fault::on("/api/class/bgpPeerP", Trouble::Answer(code, "application/json", body.to_string()));
        world.apic.fault(fault);
        let (text, code) = discover(&world, &[]);
        assert!(code == Some(1) && text.contains("FAIL  discovery ") && text.contains(says), "{text}");
        let (text, code) = discover(&world, &["T/L"]);
        assert!(
            code == Some(0) && text.contains("warn  discovery       read only T: ") && text.contains(says),
            "{text}"
        );
        // A tenant that cannot be read either keeps no other one from being read.
        let refusal = json!({"imdata": [{"error": {"attributes": {"code": "403", "text": "no access"}}}]});
        let fault = Trouble::Answer(403, "application/json", refusal.to_string());
        world.apic.fault(Fault::on("/api/mo/uni/tn-U", fault));
        let (text, code) = discover(&world, &["T/L", "U/X"]);
        assert!(code == Some(0) && text.contains("; failed to read U (missing APIC privilege"), "{text}");
        let (text, code) = discover(&world, &["U/X"]);
        assert!(code == Some(1) && text.contains("; failed to read U (missing APIC privilege"), "{text}");
        world.apic.clear_faults();
    }
}

/// J1: what a fabric may hold besides: a peer that is not deployed, addresses that are none, DNs from elsewhere. Nothing of it
/// is evidence, and nothing of it gets to the terminal as it is.
#[test]
fn hostile_objects() {
    let world = World::new();
    nodes(&world);
    floating(&world, "uni/tn-T/out-L", "10.1.1.1/24", "10.1.1.2/24", &["10.1.1.11"]);
    let peer = |dn: &str, address: &str| json!({"bgpPeerP": {"attributes": {"dn": dn, "addr": address}}});
    let objects = [
        peer("uni/tn-T/out-M/lnodep-N/lifp-\u{1b}[31m\n/peerP-[10.1.1.12]", "10.1.1.12"),
        peer("uni/tn-infra/out-I/lnodep-N/peerP-[10.1.1.11]", "10.1.1.11"),
        peer("uni/tn-T/out-X/lnodep-N/lifp-I/sharedipcont/peerP-[10.1.1.11]", "10.1.1.11"),
        peer("uni/tn-T/out-/peerP-[10.1.1.11]", "10.1.1.11"),
        peer("uni/tn-T/out-Y/lnodep-N/peerP-[0.0.0.0]", "0.0.0.0"),
        peer("uni/tn-T/out-Z/lnodep-N/peerP-[x]", "10.1.1.11 OR 1"),
        peer("", "10.1.1.11"),
    ];
    let body = json!({"totalCount": "6", "imdata": objects});
    world.apic.fault(Fault::on("/api/class/bgpPeerP", Trouble::Answer(200, "application/json", body.to_string())));
    let (text, code) = discover(&world, &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("uni/tn-T/out-M") && text.contains("uni/tn-T/out-L"), "{text}");
    assert!(!["out-I", "out-X", "out-Y", "out-Z"].iter().any(|it| text.contains(it)), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

/// J1, X4: without Pods, or where one of the peers does not answer, there is no answer, and the exit code says so.
#[test]
fn what_it_needs() {
    let world = World::new();
    let (text, code) = discover(&world, &[]);
    assert!(code == Some(1) && text.contains("FAIL  discovery       no Pod names the address of a node"), "{text}");
    nodes(&world);
    world.kube.deny("list", "pods");
    let (text, code) = discover(&world, &[]);
    assert!(code == Some(1) && text.contains("skip  discovery       kube.lists failed"), "{text}");
    world.kube.allow("list", "pods");
    world.apic.set_password("admin", "another");
    let (text, code) = discover(&world, &[]);
    assert!(code == Some(1) && text.contains("skip  discovery       apic.login failed"), "{text}");
    let (text, code) = discover(&world, &["--default-l3out", "T"]);
    assert!(
        code == Some(78) && text.contains("FAIL  config          --default-l3out: \"T\": it is not TENANT/L3OUT"),
        "{text}"
    );
}

/// J1, T6: plain `check` looks for the nodes if a default L3Out is set; it warns if they are behind another one, and its exit
/// code is as without it.
#[test]
fn check_compares_the_default_with_the_nodes() {
    let world = World::new();
    nodes(&world);
    let check = |words: &[&str]| {
        let done = world.output(&[&["check"], words].concat());
        (String::from_utf8(done.stdout).unwrap(), done.status.code())
    };
    let (text, code) = check(&["T/L"]);
    assert!(code == Some(0) && text.contains("ok    discovery       not asked: there is neither"), "{text}");
    let (text, code) = check(&["--default-l3out", "T/L"]);
    let expected =
        "warn  discovery       uni/tn-T/out-L: no L3Out has a BGP peer or interface for 3 nodes\n      fix: ";
    assert!(code == Some(0) && text.contains(expected), "{text}");
    floating(&world, "uni/tn-T/out-M", "10.1.1.1/24", "10.1.1.2/24", &["10.1.1.0/24"]);
    let (text, code) = check(&["--default-l3out", "T/L"]);
    let expected =
        "warn  discovery       uni/tn-T/out-L: the nodes are behind another L3Out: uni/tn-T/out-M\n      fix: ";
    assert!(code == Some(0) && text.contains(expected), "{text}");
    let (text, code) = check(&["--default-l3out", "T/M"]);
    assert!(code == Some(0) && text.contains("ok    discovery       uni/tn-T/out-M: 3 of 3 nodes behind it"), "{text}");
    assert!(text.contains("ok    fabric.l3out    uni/tn-T/out-M: found"), "{text}");
    let (text, code) = check(&["--default-l3out", "T/NONE"]);
    assert!(code == Some(1) && text.contains("FAIL  fabric.l3out    uni/tn-T/out-NONE: not found"), "{text}");
}
