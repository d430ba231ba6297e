//! The promise on the first page: annotate a Deployment and the fabric follows, for as long as it lives.

use crate::world::{DN_E, DN_F, E, F, MARK, World};
use serde_json::json;
use sim::apic::{self, Variants};
use sim::kube;

/// D1, P2, P4, S1, S2, O1, W2: from the first apply to the last delete.
#[test]
fn a_deployment_from_create_to_delete() {
    World::both(|world| {
        let mut daemon = world.run(&["--epg-grace", "0"]);
        world.kube.deploy("multicast", "mcast", Some(E), &["10.244.1.16", "10.244.1.19"]);
        world.until_holds("E", &["10.244.1.16", "10.244.1.19"]);
        let epg = world.apic.get(DN_E).unwrap();
        assert_eq!(epg["annotation"], MARK);
        let subnet = &world.apic.subnets(DN_E)["10.244.1.16/32"];
        assert_eq!(subnet["annotation"], MARK);
        assert_eq!(subnet["scope"], "import-security");
        assert_eq!(subnet["name"], "multicast::mcast-646c8dfd75-0");

        world.kube.load_balancer("multicast", "mcast", "mcast", &["10.4.0.10", "fd00::10"]);
        world.until_holds("E", &["10.244.1.16", "10.244.1.19", "10.4.0.10", "fd00::10"]);
        world.kube.delete("pods", "multicast", "mcast-646c8dfd75-0");
        world.kube.pod("multicast", "mcast", "2", &["10.244.2.7", "fd00:0:0::2:7"]);
        world.until_holds("E", &["10.244.1.19", "10.244.2.7", "fd00::2:7", "10.4.0.10", "fd00::10"]);
        world.kube.patch("services", "multicast", "mcast", json!({"spec": {"type": "ClusterIP"}}));
        world.until_holds("E", &["10.244.1.19", "10.244.2.7", "fd00::2:7"]);

        world.kube.delete("deployments", "multicast", "mcast");
        world.until("the EPG has gone", |world| world.apic.get(DN_E).is_none());
        assert_eq!(daemon.stop().0, Some(0));
        let strangers = world.apic.writes().into_iter().filter(|it| !it.path.contains("uni/tn-T/out-L"));
        assert_eq!(strangers.count(), 0, "nothing was written elsewhere");
        assert_eq!(world.apic.faults_raised().len(), 0);
    });
}

/// D5, W2, F37: a changed annotation moves the addresses without a moment in two EPGs of one VRF (F0467).
#[test]
fn a_changed_annotation_moves_the_addresses() {
    World::both(|world| {
        let _daemon = world.run(&["--epg-grace", "0"]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        world.kube.annotate("a", "web", Some(F));
        world.until_holds("F", &["10.0.0.1", "10.0.0.2"]);
        world.until("the old EPG has gone", |world| world.apic.get(DN_E).is_none());
        assert_eq!(world.apic.faults_raised().len(), 0);

        // To an L3Out that is not there: everything stays until it is.
        world.kube.annotate("a", "web", Some(r#"{"tenant":"T","l3out":"LATER","epg":"G"}"#));
        world.kube.pod("a", "web", "3", &["10.0.0.3"]);
        world.settle();
        assert!(world.holds("F", &["10.0.0.1", "10.0.0.2"]), "it stays, and the new address waits");
        world.apic.set("uni/tn-T/out-LATER", "l3extOut", &[]).unwrap();
        let relation = json!({"l3extRsEctx": {"attributes": {"tnFvCtxName": "V"}}});
        world.apic.admin_post("uni/tn-T/out-LATER", &relation).unwrap();
        world.until("all three are there", |world| {
            world.apic.subnets("uni/tn-T/out-LATER/instP-G").len() == 3 && world.apic.get(DN_F).is_none()
        });
    });
}

/// D6, F37: a removed annotation takes the subnets at once and the EPG after its grace; a reinstall in between keeps
/// it, with the contracts that people gave it.
#[test]
fn a_reinstall_keeps_the_contracts() {
    World::both(|world| {
        let _daemon = world.run(&["--epg-grace", "1h"]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        let contract = json!({"fvRsCons": {"attributes": {"tnVzBrCPName": "web"}}});
        world.apic.admin_post(DN_E, &contract).unwrap();
        world.kube.delete("deployments", "a", "web");
        world.until_holds("E", &[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.2"]);
        world.until_holds("E", &["10.0.0.2"]);
        assert!(world.apic.get(&format!("{DN_E}/rscons-web")).is_some());
    });
}

/// D4, F37: an EPG that two Deployments name holds the addresses of both, and goes with the second.
#[test]
fn a_shared_epg_goes_with_its_last_deployment() {
    World::both(|world| {
        let _daemon = world.run(&["--epg-grace", "0"]);
        world.kube.deploy("a", "one", Some(E), &["10.0.0.1"]);
        world.kube.deploy("b", "two", Some(E), &["10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        world.kube.delete("deployments", "a", "one");
        world.until_holds("E", &["10.0.0.2"]);
        world.kube.annotate("b", "two", None);
        world.until("the EPG has gone", |world| world.apic.get(DN_E).is_none());
    });
}

/// P5: an address that another Pod of the cluster took over leaves the EPG, whatever the order of events.
#[test]
fn a_reused_address_leaves_the_old_epg() {
    World::both(|world| {
        let _daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        // Younger by its creation time, and not managed.
        let stranger = json!({"metadata": {"name": "stranger", "namespace": "z", "creationTimestamp": "2999-01-01T00:00:00Z"},
            "status": {"phase": "Running", "podIP": "10.0.0.1"}});
        world.kube.apply("pods", stranger);
        world.until_holds("E", &["10.0.0.2"]);
        world.kube.delete("pods", "z", "stranger");
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    });
}

/// D1, F30, I14: of a hostile annotation nothing reaches a request, and others are served all the same.
#[test]
fn hostile_annotations_reach_no_request() {
    let world = World::new();
    let daemon = world.run(&[]);
    let hostile = [
        "",
        "..",
        "a/../b",
        "T/out-X/instP-Y",
        "x]",
        "[x",
        "a\"b",
        "a'b",
        "a\nb",
        "a%2fb",
        "a?query-target=subtree",
        "a&x=y",
        "a#b",
        "a,b",
        "a)or(",
        &"x".repeat(65),
        "\u{422}EN",
        "a\u{0}b",
        " a",
        "a ",
        "__ui_x",
    ];
    for (n, text) in hostile.iter().enumerate() {
        for key in ["tenant", "l3out", "epg"] {
            let mut annotation = json!({"tenant": "T", "l3out": "L", "epg": "E"});
            annotation[key] = json!(format!("HOSTILE{text}"));
            if text.is_empty() {
                annotation[key] = json!("");
            }
            let bad = text.is_empty() || annotation[key].as_str().unwrap().len() > 64;
            let allowed = |it: char| it.is_ascii_alphanumeric() || "_.-".contains(it);
            if bad || !annotation[key].as_str().unwrap().chars().all(allowed) {
                // A namespace has its share of the log; each of these is in one of its own.
                world.kube.deploy(
                    &format!("h{n}-{key}"),
                    "d",
                    Some(&annotation.to_string()),
                    &[&format!("10.9.{n}.1")],
                );
            }
        }
    }
    for (n, raw) in [
        "",
        "null",
        "[]",
        "{",
        r#"{"tenant":7,"l3out":"L","epg":"HOSTILE"}"#,
        r#"{"tenant":"T","tenant":"HOSTILE","l3out":"L","epg":"E"}"#,
    ]
    .iter()
    .enumerate()
    {
        world.kube.deploy(&format!("raw{n}"), "d", Some(raw), &[&format!("10.8.{n}.1")]);
    }
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    world.settle();
    assert!(world.holds("E", &["10.0.0.1"]));
    for entry in world.apic.journal() {
        assert!(
            !entry.target.contains("HOSTILE") && !entry.body.contains("HOSTILE"),
            "{} {}",
            entry.target,
            entry.body
        );
    }
    assert!(daemon.count("invalid annotation") >= 50, "each is logged: {}", daemon.count("invalid annotation"));
    assert!(daemon.log().lines().all(|it| !it.chars().any(char::is_control)), "one finding is one line");
}

/// W7: the echo of three thousand objects, more than fit into the queue of events, costs no full sync.
#[test]
fn a_large_echo_causes_no_full_sync() {
    let world = World::new();
    let addresses: Vec<String> = (0..3000).map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1)).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    world.kube.deploy("a", "web", Some(E), &addresses);
    let daemon = world.run(&[]);
    world.until("all are there", |world| world.subnets("E").len() == 3000);
    world.settle();
    assert_eq!(daemon.count("APIC events may be lost"), 0);
}

/// R3: a tenant that does not exist is served as soon as it does, even if events of the first
/// children of a new parent are lost.
#[test]
fn a_tenant_created_later_is_served() {
    for variants in [Variants::default(), Variants::opposite()] {
        let options = apic::Options { variants, ..apic::Options::default() };
        let world = World::with(kube::Options::default(), options);
        let daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(r#"{"tenant":"NEW","l3out":"L","epg":"E"}"#), &["10.0.0.1"]);
        daemon.until_logged("L3Out not found; waiting for it to be created");
        assert_eq!(world.apic.writes().len(), 0, "a tenant is never made by us");
        world.apic.setup_tenant("NEW", "V", &["L"]).unwrap();
        world.until("it is served", |world| world.apic.subnets("uni/tn-NEW/out-L/instP-E").len() == 1);
        daemon.until_logged(r#"finding resolved code=L3OutNotFound subject=uni/tn-NEW/out-L text="L3Out not found"#);
    }
}
