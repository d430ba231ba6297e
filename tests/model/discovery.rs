//! J1: which L3Outs the nodes are behind, by what the L3Outs have below them.

use aci_sync::model::discovery::{Answer, Discovery, Outcome, Strength};
use aci_sync::model::mo::{Attributes, Mo};

/// The objects of a fabric, one a line: `L peer 10.1.1.11`, `L interface 10.1.1.1/24`, `L vrf V`, or `CLASS DN ADDRESS`.
fn discover(nodes: &str, fabric: &str) -> Discovery {
    let mut discovery = Discovery::new(nodes.split_whitespace().map(|it| it.parse().unwrap()));
    for line in fabric.lines().flat_map(|it| it.split("; ")).map(str::trim).filter(|it| !it.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        let [first, second, third] = words[..] else { panic!("what is {line:?}?") };
        let interfaces = format!("uni/tn-T/out-{first}/lnodep-N/lifp-I");
        let svi = format!("{interfaces}/vlifp-[topology/pod-1/node-101]-[vlan-100]");
        let (class, dn) = match second {
            "peer" => ("bgpPeerP", format!("{svi}/peerP-[{third}]")),
            "interface" => ("l3extVirtualLIfP", svi),
            "vrf" => ("l3extRsEctx", format!("uni/tn-T/out-{first}/rsectx")),
            dn => (first, dn.to_owned()),
        };
        let mut attributes = Attributes { address: Some(third.into()), ..Attributes::default() };
        if class == "l3extRsEctx" {
            attributes =
                Attributes { target_dn: Some(format!("uni/tn-T/ctx-{third}").into()), ..Attributes::default() };
        }
        discovery.add(&Mo { class: class.to_owned(), dn, attributes });
    }
    discovery
}

/// The outcome, and each candidate with its nodes at each strength.
fn summary(answer: &Answer<'_>) -> String {
    let candidate = |it: &aci_sync::model::discovery::Candidate<'_>| format!("{} {:?}", it.l3out.l3out, it.evidence());
    let candidates: Vec<String> = answer.candidates.iter().map(candidate).collect();
    format!("{}: {}", answer.outcome.name(), candidates.join(", ")).trim_end().to_owned()
}

/// J1: unique, several, ambiguous or none, and by which evidence; nodes at 3, 2 and 1 are counted in this order.
#[test]
fn answers() {
    for (nodes, fabric, expected) in [
        // A peer, a prefix of peers, an interface; the best of an L3Out counts.
        ("10.1.1.11 10.1.1.12", "L peer 10.1.1.11; L peer 10.1.1.12", "unique: L [2, 0, 0]"),
        ("10.1.1.11 10.1.1.12", "L peer 10.1.1.0/24", "unique: L [0, 2, 0]"),
        ("10.1.1.11 10.1.1.12", "L interface 10.1.1.1/24", "unique: L [0, 0, 2]"),
        ("10.1.1.11", "L interface 10.1.1.1/24; L peer 10.1.1.0/24; L peer 10.1.1.11", "unique: L [1, 0, 0]"),
        ("10.1.1.11", "L peer 10.1.1.11/32", "unique: L [1, 0, 0]"),
        // Evidence of another L3Out that is weaker does not count for a node.
        ("10.1.1.11", "L peer 10.1.1.11; M interface 10.1.1.1/24", "unique: L [1, 0, 0]"),
        ("10.1.1.11", "L peer 10.1.1.0/24; M peer 10.1.1.11", "unique: M [1, 0, 0]"),
        // An L3Out with peers among the nodes wins where interfaces are all that is known of a node.
        (
            "10.1.1.11 10.1.1.12",
            "L peer 10.1.1.11; L interface 10.1.1.1/24; M interface 10.1.1.1/24",
            "unique: L [1, 0, 1]",
        ),
        // Racks.
        ("10.1.1.11 10.1.2.11", "L peer 10.1.1.11; M peer 10.1.2.11", "several: L [1, 0, 0], M [1, 0, 0]"),
        (
            "10.1.1.11 10.1.2.11",
            "L interface 10.1.1.1/24; M interface 10.1.2.1/24",
            "several: L [0, 0, 1], M [0, 0, 1]",
        ),
        ("10.1.1.11 10.1.2.11", "L peer 10.1.1.11; M interface 10.1.2.1/24", "several: L [1, 0, 0], M [0, 0, 1]"),
        // Reused addresses, and peers that two L3Outs of one VRF have.
        ("10.1.1.11", "L vrf V; M vrf W; L peer 10.1.1.11; M peer 10.1.1.11", "ambiguous: L [1, 0, 0], M [1, 0, 0]"),
        ("10.1.1.11", "L vrf V; M vrf V; L peer 10.1.1.11; M peer 10.1.1.11", "ambiguous: L [1, 0, 0], M [1, 0, 0]"),
        ("10.1.1.11", "L peer 10.1.1.0/24; M peer 10.1.0.0/16", "ambiguous: L [0, 1, 0], M [0, 1, 0]"),
        ("10.1.1.11", "L interface 10.1.1.1/24; M interface 10.1.1.2/24", "ambiguous: L [0, 0, 1], M [0, 0, 1]"),
        (
            "10.1.1.11 10.1.1.12 10.1.2.11",
            "L vrf V; M vrf W; L peer 10.1.1.11; M peer 10.1.1.11; L peer 10.1.1.12; L peer 10.1.2.11",
            "ambiguous: L [3, 0, 0], M [1, 0, 0]",
        ),
        // Within one VRF the longest prefix wins; in different ones it says nothing.
        ("10.1.1.11", "L vrf V; M vrf V; L interface 10.1.0.1/16; M interface 10.1.1.1/24", "unique: M [0, 0, 1]"),
        ("10.1.1.11", "L vrf V; M vrf V; L peer 10.1.1.0/25; M peer 10.1.0.0/16", "unique: L [0, 1, 0]"),
        (
            "10.1.1.11",
            "L vrf V; M vrf W; L interface 10.1.0.1/16; M interface 10.1.1.1/24",
            "ambiguous: L [0, 0, 1], M [0, 0, 1]",
        ),
        // A node that nothing matches leaves the answer as it is.
        ("10.1.1.11 10.9.9.9", "L peer 10.1.1.11", "unique: L [1, 0, 0]"),
        ("10.9.9.9", "L peer 10.1.1.11; L interface 10.1.1.1/24", "none:"),
        ("10.1.1.11", "", "none:"),
        // IPv6.
        ("fd00:1::11", "L peer fd00:1::11; M interface fd00:1::1/64", "unique: L [1, 0, 0]"),
        ("fd00:1::11", "L interface fd00:1::1/64", "unique: L [0, 0, 1]"),
        ("::ffff:10.1.1.11", "L peer 10.1.1.11", "unique: L [1, 0, 0]"),
        // An interface with the node's own address is not the way to it.
        ("10.1.1.11", "L interface 10.1.1.11/24", "none:"),
        ("10.1.1.11", "L interface 10.1.1.11/32", "none:"),
    ] {
        let discovery = discover(nodes, fabric);
        assert_eq!(summary(&discovery.answer()), expected, "{nodes}: {fabric}");
        let backwards: Vec<&str> = fabric.split("; ").collect();
        let backwards: Vec<&str> = backwards.into_iter().rev().collect();
        assert_eq!(summary(&discover(nodes, &backwards.join("; ")).answer()), expected, "backwards: {fabric}");
    }
}

/// J1: each class counts at each of its places, with the address in its attribute.
#[test]
fn places_of_addresses() {
    let path = "uni/tn-T/out-L/lnodep-N/lifp-I/rspathL3OutAtt-[topology/pod-1/protpaths-101-102/pathep-[vpc]]";
    let floating = "uni/tn-T/out-L/lnodep-N/lifp-I/vlifp-[topology/pod-1/node-101]-[vlan-100]";
    for (class, dn) in [
        (
            "l3extRsPathL3OutAtt",
            "uni/tn-T/out-L/lnodep-N/lifp-I/rspathL3OutAtt-[topology/pod-1/paths-101/pathep-[eth1/1]]",
        ),
        ("l3extMember", &format!("{path}/mem-A")),
        ("l3extIp", &format!("{path}/addr-[10.1.1.1/24]")),
        ("l3extIp", &format!("{path}/mem-B/addr-[10.1.1.1/24]")),
        ("l3extVirtualLIfP", floating),
        ("l3extIp", &format!("{floating}/addr-[10.1.1.1/24]")),
        ("l3extRsDynPathAtt", &format!("{floating}/rsdynPathAtt-[uni/phys-P]")),
    ] {
        let discovery = discover("10.1.1.11", &format!("{class} {dn} 10.1.1.1/24"));
        let answer = discovery.answer();
        assert_eq!(summary(&answer), "unique: L [0, 0, 1]", "{class} {dn}");
        let (node, evidence) = &answer.candidates[0].nodes[0];
        assert_eq!((node.to_string(), &*evidence.dn, evidence.strength), ("10.1.1.11".into(), dn, Strength::Interface));
    }
    for dn in [
        format!("{path}/peerP-[10.1.1.11]"),
        format!("{floating}/peerP-[10.1.1.11]"),
        "uni/tn-T/out-L/lnodep-N/peerP-[10.1.1.11]".to_owned(),
    ] {
        let discovery = discover("10.1.1.11", &format!("bgpPeerP {dn} 10.1.1.11"));
        assert_eq!(summary(&discovery.answer()), "unique: L [1, 0, 0]", "{dn}");
    }
}

/// J1: addresses that are none, and DNs that lie elsewhere or are malformed, say nothing; nor do special addresses of nodes.
#[test]
fn what_says_nothing() {
    let below = "uni/tn-T/out-L/lnodep-N/lifp-I";
    for fabric in [
        "L peer 0.0.0.0; L peer 0.0.0.0/0; L peer ::; L peer ::/0; L interface 0.0.0.0/0; L interface 0.0.0.0",
        "L peer 10.1.1.11/33; L peer 10.1.1; L peer x; L peer 10.1.1.11%x; L interface 10.1.1.1; L interface 10.1.1.1/x",
        "L peer 10.1.1.011; L peer 10.1.1.0/+24; L interface [10.1.1.1/24]; L peer fd00::/129",
        "bgpPeerP uni/tn-infra/out-L/lnodep-N/peerP-[10.1.1.11] 10.1.1.11",
        "bgpPeerP uni/infra/x/peerP-[10.1.1.11] 10.1.1.11",
        "bgpPeerP topology/pod-1/node-101/sys/bgp/peerP-[10.1.1.11] 10.1.1.11",
        "bgpPeerP uni/tn-T/BD-L/peerP-[10.1.1.11] 10.1.1.11",
        "bgpPeerP uni/tn-T/out-a[b/lnodep-N/peerP-[10.1.1.11] 10.1.1.11",
        "bgpPeerP uni/tn-T/out-/peerP-[10.1.1.11] 10.1.1.11",
        "bgpPeerP uni/tn-T/out-L/instP-E/peerP-[10.1.1.11] 10.1.1.11",
        &format!("l3extIp {below}/sharedipcont/addr-[10.1.1.1/24] 10.1.1.1/24"),
        &format!("l3extIp {below}/sharedipcont-[a/b]/addr-[10.1.1.1/24] 10.1.1.1/24"),
        &format!("l3extLIfP {below} 10.1.1.1/24"),
        "l3extOut uni/tn-T/out-L 10.1.1.1/24",
    ] {
        assert_eq!(summary(&discover("10.1.1.11", fabric).answer()), "none:", "{fabric}");
    }
    let special = discover("0.0.0.0 127.0.0.1 :: ::1 fe80::1 169.254.0.1 224.0.0.1", "L interface 128.0.0.1/1");
    assert!(special.nodes().is_empty() && special.answer().outcome == Outcome::None);
}

/// J1: the evidence that is shown of an L3Out for a node is the best one, whatever the order, with its VRF.
#[test]
fn evidence_of_a_node() {
    let shown = |fabric: &str| {
        let discovery = discover("10.1.1.11", fabric);
        let answer = discovery.answer();
        let candidate = &answer.candidates[0];
        let it = candidate.nodes[0].1;
        format!("{it} in {} ({})", it.dn, candidate.vrf.unwrap_or("unknown"))
    };
    let svi = "uni/tn-T/out-L/lnodep-N/lifp-I/vlifp-[topology/pod-1/node-101]-[vlan-100]";
    for (fabric, expected) in [
        (
            "L peer 10.1.0.0/16; L peer 10.1.1.0/24; L vrf V",
            format!("BGP peers 10.1.1.0/24 in {svi}/peerP-[10.1.1.0/24] (uni/tn-T/ctx-V)"),
        ),
        (
            "L interface 10.1.1.1/24; L peer 10.1.1.11",
            format!("BGP peer 10.1.1.11 in {svi}/peerP-[10.1.1.11] (unknown)"),
        ),
        ("L interface 10.1.1.1/24; L interface 10.1.0.1/16", format!("interface 10.1.1.1/24 in {svi} (unknown)")),
        (
            "l3extMember uni/tn-T/out-L/lnodep-N/mem-B 10.1.1.3/24; l3extMember uni/tn-T/out-L/lnodep-N/mem-A 10.1.1.2/24",
            "interface 10.1.1.2/24 in uni/tn-T/out-L/lnodep-N/mem-A (unknown)".to_owned(),
        ),
    ] {
        assert_eq!(shown(fabric), expected);
    }
}

/// J1, X3: what is kept has an end; a fabric beyond it has no answer but "ambiguous".
#[test]
fn what_is_kept_has_an_end() {
    let nodes: Vec<String> = (0..2000).map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1)).collect();
    let l3outs = |count: usize| (0..count).map(|n| format!("L{n} interface 10.0.0.1/8")).collect::<Vec<_>>().join("; ");
    let small = discover(&nodes.join(" "), &l3outs(50));
    assert!(!small.is_cut() && small.answer().candidates.len() == 50);
    let large = discover(&nodes.join(" "), &l3outs(51));
    assert!(large.is_cut() && large.answer().outcome == Outcome::Ambiguous);
    assert_eq!(large.answer().candidates.len(), 50);
}

/// J1, X3: objects that each cover all nodes cost no more than so many comparisons; 60,000 of them would take minutes.
#[test]
fn what_is_compared_has_an_end() {
    let nodes = (0..10_000).map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1).parse().unwrap());
    let mut discovery = Discovery::new(nodes);
    let object = |n: usize| Mo {
        class: "l3extIp".to_owned(),
        dn: format!("uni/tn-T/out-L/lnodep-N/lifp-I/addr-{n}"),
        attributes: Attributes { address: Some("10.0.0.1/8".into()), ..Attributes::default() },
    };
    (0..200).for_each(|n| discovery.add(&object(n)));
    assert!(!discovery.is_cut() && discovery.answer().outcome == Outcome::Unique);
    (200..60_000).for_each(|n| discovery.add(&object(n)));
    assert!(discovery.is_cut() && discovery.answer().outcome == Outcome::Ambiguous);
}
