//! T7, T8: `explain`: what it says about each sort of subject, with a daemon and without one, its exit codes, and that it
//! only reads.

use serde_json::{Value, json};

use crate::world::{DN_E, DN_F, Daemon, E, F, World};
use sim::net::{Fault, Trouble};

/// What `explain` printed to stdout, and its exit code. It must have sent nothing but reads, logins and logouts.
fn explain(world: &World, words: &[&str]) -> (String, Option<i32>) {
    let before = world.apic.writes().len();
    let answer = explain_beside_writes(world, words);
    let is_session = |path: &str| path.contains("/aaaLog");
    assert!(world.apic.writes()[before..].iter().all(|it| is_session(&it.path)), "explain only reads");
    answer
}

/// The same while the daemon may write.
fn explain_beside_writes(world: &World, words: &[&str]) -> (String, Option<i32>) {
    let done = world.output(&[&["explain"], words].concat());
    let (text, log) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    assert!(!log.contains("finding"), "other objects' findings are no part of the answer: {log}");
    (if text.is_empty() { log } else { text }, done.status.code())
}

fn document(world: &World, words: &[&str]) -> (Value, Option<i32>) {
    let (text, code) = explain(world, &[words, &["-o", "json"]].concat());
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["schema"], "aci-sync.explain.v1");
    (document, code)
}

fn daemon(world: &World) -> (Daemon, String) {
    let listen = format!("unix:{}", world.folder.path().join("aci-sync.sock").display());
    (world.run(&["--events=false", "--listen", &listen]), listen)
}

/// T7: the question at three in the morning. A Pod's address is not there because a foreign EPG of the VRF has it; the
/// Deployment, the Pod, the address and the two EPGs say so, with the daemon's memory.
#[test]
fn a_missing_address_is_explained() {
    World::both(|world| {
        let foreign = [("annotation", "orchestrator:terraform")];
        world.apic.set("uni/tn-T/out-M/instP-OLD", "l3extInstP", &foreign).unwrap();
        world.apic.set("uni/tn-T/out-M/instP-OLD/extsubnet-[10.0.0.2/32]", "l3extSubnet", &foreign).unwrap();
        world.kube.deploy("shop", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
        world.kube.deploy("other", "m", Some(r#"{"tenant":"T","l3out":"M","epg":"G"}"#), &["10.0.0.3"]);
        world.kube.load_balancer("shop", "lb", "web", &["10.9.0.1"]);
        world.kube.load_balancer("shop", "else", "other", &["10.9.0.2"]);
        let (daemon, listen) = daemon(world);
        daemon.until_logged("code=ForeignSubnet");
        let words = ["--listen", listen.as_str()];

        let (text, code) = explain(world, &[&["shop/web"], &words[..]].concat());
        assert_eq!(code, Some(2), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Deployment shop/web: 2 of 3 addresses are in the fabric (foreign)", "{text}");
        for line in [
            "  annotation  valid: uni/tn-T/out-L/instP-E; exposes pods, services",
            "  L3Out       present: uni/tn-T/out-L; VRF uni/tn-T/ctx-V",
            "  EPG         present: uni/tn-T/out-L/instP-E; owned; contracts: 0 provided, 0 consumed",
            "  ADDRESS      FROM                  STATE",
            "  10.0.0.1/32  Pod web-646c8dfd75-0  in the fabric",
            "  10.0.0.2/32  Pod web-646c8dfd75-1  NOT THERE  ForeignSubnet: uni/tn-T/out-M/instP-OLD has it and it is foreign",
            "  10.9.0.1/32  Service lb            in the fabric",
            "  -            Service else          not exposed: its selector wants app=\"other\", and the Deployment's Pods have \"web\"",
        ] {
            assert!(lines.contains(&line), "{line}\n{text}");
        }
        assert!(text.contains(" sees the same\n"), "{text}");
        assert!(
            text.contains("since 20") && text.contains("ForeignSubnet uni/tn-T/out-L/instP-E: not created"),
            "{text}"
        );
        assert!(lines.last().unwrap().starts_with("To do: "), "{text}");

        let (text, code) = explain(world, &[&["pod/shop/web-646c8dfd75-0"], &words[..]].concat());
        assert_eq!(
            (text.lines().next(), code),
            (Some("Pod shop/web-646c8dfd75-0: its address is in the fabric (in_sync)"), Some(0))
        );
        let (text, code) = explain(world, &[&["10.0.0.2"], &words[..]].concat());
        assert_eq!(
            text.lines().next(),
            Some("10.0.0.2/32: desired, but in the fabric elsewhere: in uni/tn-T/out-M/instP-OLD (foreign)")
        );
        assert_eq!(code, Some(2));
        let (document, code) = document(world, &[&[DN_E], &words[..]].concat());
        let it = &document["explanations"][0];
        assert_eq!((it["verdict"].as_str(), code), (Some("foreign"), Some(2)));
        assert_eq!(it["epg"]["workloads"][0], "Deployment shop/web");
        assert_eq!(it["addresses"][0]["holder"], "uni/tn-T/out-M/instP-OLD", "what is wrong comes first");
        assert_eq!(
            (&it["daemon"]["agrees"], it["daemon"]["findings"][0]["code"].as_str()),
            (&true.into(), Some("ForeignSubnet"))
        );
        let (text, code) = explain(world, &[&["uni/tn-T/out-M/instP-OLD"], &words[..]].concat());
        assert_eq!(
            text.lines().next(),
            Some("uni/tn-T/out-M/instP-OLD: no workload names it, and it is not owned (not_managed)")
        );
        assert_eq!(code, Some(0));
    });
}

/// T7: an address that nothing calls for: who has it, and which prefix classifies its traffic.
#[test]
fn an_address_without_a_deployment_is_explained() {
    let world = World::new();
    let all = "uni/tn-T/out-L/instP-ALL";
    world.apic.set(all, "l3extInstP", &[]).unwrap();
    world.apic.set(&format!("{all}/extsubnet-[10.7.0.0/16]"), "l3extSubnet", &[]).unwrap();
    world.apic.set(&format!("{all}/rscons-web"), "fvRsCons", &[("tnVzBrCPName", "web")]).unwrap();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.kube.deploy("a", "plain", None, &["10.7.7.7"]);
    let (text, code) = explain(&world, &["10.7.7.7/32"]);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "10.7.7.7/32: not desired, and not in the fabric (not_desired)",
        "  cluster     Pod a/plain-646c8dfd75-0 has it and no annotated workload exposes it",
        "  fabric      longest match of VRF uni/tn-T/ctx-V: 10.7.0.0/16 in uni/tn-T/out-L/instP-ALL (foreign)",
        "              so its traffic there is that EPG's; contracts: 0 provided, 1 consumed",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    assert!(text.contains("  daemon      no daemon answers: "), "it works without a daemon: {text}");
    let (text, _) = explain(&world, &["10.8.8.8"]);
    assert!(text.contains("no EPG has it, and no prefix in the L3Outs that were read holds it"), "{text}");
}

/// T7: a subject that is not there, and one that cannot be one: what was looked for and where.
#[test]
fn unknown_subjects() {
    let world = World::new();
    let (text, code) = explain(&world, &["shop/web"]);
    let expected = "shop/web: no Deployment, Pod or Service of this name in the namespace shop; not watched \
                    (--workloads): StatefulSet and DaemonSet (unknown)\n";
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(code, Some(1));
    let (text, code) = explain(&world, &["uni/tn-T/out-L/instP-NONE"]);
    assert!(
        text.starts_with("uni/tn-T/out-L/instP-NONE: no workload names it, and the APIC does not have it (unknown)\n"),
        "{text}"
    );
    assert_eq!(code, Some(1));
    for bad in ["web", "a/b/c", "10.0.0.0/8", "uni/tn-T", "A/b", ""] {
        let (text, code) = explain(&world, &[bad]);
        assert!(text.contains("invalid subject") && code == Some(64), "{bad:?}: {code:?} {text}");
    }
    assert_eq!(explain(&world, &[]).1, Some(64));
    assert_eq!(explain(&world, &["a/b", "c/d"]).1, Some(64));
}

/// T7: `--wait` returns as soon as what is managed is in sync, whatever else has the name, and with 2 at the end of the time.
#[test]
fn wait_for_the_verdict() {
    let world = World::new();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.kube.deploy("a", "plain", None, &["10.0.0.2"]);
    assert_eq!(explain(&world, &["a/web", "--wait", "1s"]).1, Some(2), "no daemon does it");
    let (text, code) = explain(&world, &["a/plain", "--wait", "1s"]);
    assert!(text.contains("(not_managed)") && code == Some(2), "a wait is for in_sync: {text}");
    let service = json!({"metadata": {"namespace": "a", "name": "web"},
        "spec": {"type": "ClusterIP", "selector": {"app": "web"}, "ports": [{"port": 80}]}});
    world.kube.apply("services", service);
    let (daemon, listen) = daemon(&world);
    daemon.until_logged("APIC session established");
    let wait = |limit: &str| explain_beside_writes(&world, &["a/web", "--wait", limit, "--listen", &listen]);
    let (text, code) = wait("60s");
    assert!(text.contains("not exposed: its type is not LoadBalancer") && code == Some(0), "{text}");
    world.kube.annotate("a", "web", Some(F));
    let (text, code) = wait("60s");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(DN_F), "{text}");
    let logins = || world.apic.journal().iter().filter(|it| it.path == "/api/aaaLogin.json").count();
    let before = logins();
    assert_eq!(wait("60s").1, Some(0));
    assert_eq!(logins(), before + 1, "it is in sync at the first look");
}

/// T7, W4: what the daemon has blocked is no disagreement.
#[test]
fn blocked_deletions_are_shown() {
    let world = World::new();
    let addresses: Vec<String> = (0..20).map(|n| format!("10.0.0.{n}")).collect();
    world.kube.deploy("a", "web", Some(E), &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(world.output(&["run", "--once"]).status.code(), Some(0));
    world.kube.delete("deployments", "a", "web");
    let (blocking, listen) = daemon(&world);
    blocking.until_logged("code=DeletionsBlocked");
    let (text, _) = explain(&world, &[DN_E, "--listen", &listen]);
    assert!(text.contains(" sees the same\n") && text.contains("21 blocked deletions in this EPG"), "{text}");
}

/// T7, D3: what no fresh look can know: the last valid annotation that the daemon keeps.
#[test]
fn the_daemon_remembers() {
    let world = World::new();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    let (daemon, listen) = daemon(&world);
    world.until_holds("E", &["10.0.0.1"]);
    world.kube.annotate("a", "web", Some("{}"));
    daemon.until_logged("code=InvalidAnnotation");
    let (text, code) = explain(&world, &["a/web", "--listen", &listen]);
    assert_eq!(code, Some(2), "{text}");
    let line = format!("  annotation  invalid: tenant is missing; the daemon keeps the last valid one: {DN_E}");
    assert!(text.lines().any(|it| it == line), "{text}");
}

/// T7, W6: the L3Out of an EPG beyond the limit is read for the answer.
#[test]
fn an_epg_beyond_the_limit_is_looked_at() {
    let world = World::new();
    world.apic.set("uni/tn-T/out-M/instP-G", "l3extInstP", &[]).unwrap();
    world.apic.set("uni/tn-T/out-M/instP-G/extsubnet-[10.0.0.9/32]", "l3extSubnet", &[]).unwrap();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.kube.deploy("a", "x", Some(r#"{"tenant":"T","l3out":"M","epg":"G"}"#), &["10.0.0.9"]);
    let (document, code) = document(&world, &["a/x", "--max-epgs", "1"]);
    assert_eq!(code, Some(2), "{document:#}");
    let explanation = &document["explanations"][0];
    assert_eq!(explanation["l3out"]["state"], "present", "{document:#}");
    assert_eq!(explanation["epg"]["code"], "TooManyEpgs", "{document:#}");
    assert_eq!(explanation["addresses"][0]["state"], "present", "{document:#}");
}

/// T7, S3, R4: a fault of the APIC about the EPG is shown and a finding; if faults may not be read, that is shown.
#[test]
fn faults_are_shown() {
    let world = World::new();
    // In an L3Out that no Deployment names, so aci-sync does not see it.
    world.apic.set("uni/tn-T/out-M/instP-OLD", "l3extInstP", &[]).unwrap();
    world.apic.set("uni/tn-T/out-M/instP-OLD/extsubnet-[10.0.0.1/32]", "l3extSubnet", &[]).unwrap();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    assert_eq!(world.output(&["run", "--once"]).status.code(), Some(0));
    // The fabric finds it a moment later.
    world.until("there is a fault", |it| !it.apic.class("faultInst").is_empty());
    let (text, code) = explain(&world, &["a/web"]);
    assert!(text.contains("; 1 fault F0467: another EPG of the VRF has a prefix of it\n"), "{text}");
    assert!(text.contains("(conflict)\n") && code == Some(2), "{text}");
    // One about an EPG that no Deployment names is not counted.
    world.apic.raise_fault("uni/tn-T/out-M/instP-OLD", "prefix-entry-already-in-use", "");
    let (daemon, listen) = daemon(&world);
    daemon.until_logged("code=FabricFault subject=uni/tn-T/out-L/instP-E text=\"1 fault F0467 at the last full sync");
    let metrics = world.output(&["status", "-o", "prometheus", "--listen", &listen]).stdout;
    assert!(String::from_utf8(metrics).unwrap().contains("aci_sync_fabric_faults{code=\"F0467\"} 1\n"));
    // It is over when the other EPG has gone, although the fabric goes on showing the fault.
    world.apic.variants(|it| it.faults_retained = true);
    world.apic.admin_delete("uni/tn-T/out-M/instP-OLD").unwrap();
    let (text, code) = explain(&world, &["a/web"]);
    assert!(code == Some(0) && !text.contains("F0467"), "{text}");
    assert_eq!(world.apic.class("faultInst").len(), 2);
    world.apic.fault(Fault::on("faultInst", Trouble::Answer(403, "application/json", String::new())));
    let (text, code) = explain_beside_writes(&world, &["a/web"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("; faults could not be read\n"), "{text}");
}
