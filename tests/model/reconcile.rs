//! Single reconciles of the reconciler against a fabric without sockets, with trouble at chosen requests: what a
//! reconcile keeps in mind for the next one.

use std::time::Instant;

use crate::fixtures::*;
use aci_sync::apic::Error;
use aci_sync::kube::{Event, objects};
use aci_sync::model::finding::Code;
use aci_sync::model::kubernetes::{Key, Kind, Object, WorkloadRecord};
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::rules::Policy;
use aci_sync::model::rules::Rules;
use aci_sync::reconcile::Reconciler;
use serde_json::json;
use sim::apic::{InMemoryApic, Variants};

/// W4: what is blocked stays blocked while its EPG is refused or paused, and afterwards.
#[test]
fn blocked_deletions_survive_a_rejection_and_a_pause() {
    let (apic, start) = (apic(), Instant::now());
    with_subnets(&apic, 40);
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], Vec::new(), start);
    reconcile(&mut reconciler, &session, start);
    session.trouble(|method, _, _| (method == "POST").then(|| Error::Forbidden("no".to_owned())));
    reconciler.cluster_changed(Event::Upsert(pod("web", 99, "10.0.9.9")), start);
    reconcile(&mut reconciler, &session, start + SECOND);
    session.trouble(|_, _, _| None);
    reconcile(&mut reconciler, &session, start + 12 * SECOND);
    assert_eq!(apic.admin.subnets(DN_E).len(), 41, "those that are held, and the new one");
    for paused in ["true", "false"] {
        reconciler.cluster_changed(Event::Upsert(deployment("web", "E", &[("pause", paused)])), start);
        reconcile(&mut reconciler, &session, start + 13 * SECOND);
    }
    assert_eq!(apic.admin.subnets(DN_E).len(), 41);
    assert!(reconciler.approve_deletions());
    reconcile(&mut reconciler, &session, start + 14 * SECOND);
    assert_eq!(apic.admin.subnets(DN_E).len(), 1);
}

/// P1, K5: a Deployment whose status counts replicas while none of its Pods is found, as those of a ReplicaSet that it
/// adopted or whose name was cut, is a finding after a minute, in a reconcile of its own; a Pod that is found ends it.
#[test]
fn missing_pods_are_reported() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let replicas = |object: Object| match object {
        Object::Workload(it) => Object::Workload(Box::new(WorkloadRecord { has_replicas: true, ..*it })),
        other => other,
    };
    let web = replicas(deployment("web", "E", &[]));
    let adopted = json!({"metadata": {"namespace": "a", "name": "legacy-1", "labels": {"app": "web"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "legacy", "controller": true}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}});
    let adopted = objects::decode(Kind::Pod, adopted.to_string().as_bytes()).unwrap();
    let mut reconciler = listed(Policy::Sync, vec![web, deployment("none", "F", &[])], vec![adopted], start);
    let codes = |reconciler: &Reconciler| {
        let findings = reconciler.findings().iter().filter(|it| it.code == Code::PodsNotFound);
        findings.map(|it| it.subject.to_string()).collect::<Vec<_>>()
    };
    reconcile(&mut reconciler, &session, start);
    assert_eq!(codes(&reconciler), [""; 0]);
    reconcile(&mut reconciler, &session, start + 6 * SECOND);
    assert_eq!(reconciler.next_wake(), Some(start + 60 * SECOND), "nothing else will happen");
    let notices = reconcile(&mut reconciler, &session, start + 60 * SECOND).notices;
    assert_eq!(codes(&reconciler), ["Deployment a/web"]);
    assert!(notices.iter().any(|it| it.reason.to_string() == "PodsNotFound"), "{notices:?}");
    assert!(reconciler.open_findings() > 0 && reconciler.next_wake().is_none_or(|it| it > start + 60 * SECOND));
    reconciler.cluster_changed(Event::Upsert(pod("web", 2, "10.0.0.2")), start + 61 * SECOND);
    reconcile(&mut reconciler, &session, start + 61 * SECOND);
    assert_eq!(codes(&reconciler), [""; 0]);

    reconciler.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-2") }, start + 62 * SECOND);
    reconciler.cluster_changed(Event::Relisting { kind: Kind::Pod, why: "a test".to_owned() }, start + 62 * SECOND);
    reconcile(&mut reconciler, &session, start + 200 * SECOND);
    assert_eq!(codes(&reconciler), [""; 0], "while Pods are being listed none is missing");
}

/// P1: a ReplicaSet's name of 253 characters may have been cut, so it says nothing about whose its Pods are.
#[test]
fn a_truncated_name_identifies_no_deployment() {
    for (length, is_owned) in [(252, true), (253, false)] {
        let deployment = "c".repeat(length - 6);
        let metadata = json!({"namespace": "a", "name": "p", "labels": {"pod-template-hash": "5d9c7"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": format!("{deployment}-5d9c7"), "controller": true}]});
        let pod = json!({"metadata": metadata, "status": {"podIPs": [{"ip": "10.0.0.1"}]}});
        let Object::Pod(pod) = objects::decode(Kind::Pod, pod.to_string().as_bytes()).unwrap() else { panic!() };
        assert_eq!(pod.owner.is_some(), is_owned, "{length}");
        assert_eq!(pod.addresses.len(), 1, "it claims its address all the same (P5)");
    }
}

/// W4: a full sync that could not read an EPG has not counted it; it is counted once it can be read.
#[test]
fn unread_epgs_are_counted_later() {
    let (apic, start) = (apic(), Instant::now());
    with_subnets(&apic, 40);
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(40), start);
    reconcile(&mut reconciler, &session, start);
    assert_eq!(session.writes.borrow().len(), 0);
    reconciler.cluster_changed(Event::Listed { kind: Kind::Pod, objects: Vec::new() }, start);
    session.trouble(|_, target, _| target.contains("instP-E.json").then(|| Error::Forbidden("no".to_owned())));
    reconcile(&mut reconciler, &session, start);
    session.trouble(|_, _, _| None);
    reconcile(&mut reconciler, &session, start + 11 * SECOND);
    assert_eq!(apic.admin.subnets(DN_E).len(), 40);
    assert!(reconciler.findings().iter().any(|it| it.code == Code::DeletionsBlocked));
}

/// W5, W8: under `observe` an EPG that could not be read for a while is no reason to look again and again.
#[test]
fn an_observer_does_not_loop() {
    let (apic, start) = (apic(), Instant::now());
    with_subnets(&apic, 1);
    apic.admin.set(&subnet(1), "l3extSubnet", &[("name", "drifted")]).unwrap();
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Observe, vec![deployment("web", "E", &[])], pods(1), start);
    session.trouble(|_, target, _| target.contains("instP-E.json").then(|| Error::Forbidden("no".to_owned())));
    reconcile(&mut reconciler, &session, start);
    session.trouble(|_, _, _| None);
    let later = start + 20 * SECOND;
    reconcile(&mut reconciler, &session, later);
    assert!(reconciler.next_wake().is_none_or(|it| it > later));
}

/// W3: an EPG full of refused objects starves no other.
#[test]
fn rejected_objects_delay_no_other_epg() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut pods: Vec<Object> = (1..=240).map(|n| pod("bad", n, &format!("10.1.0.{n}"))).collect();
    pods.extend([pod("good", 1, "10.2.0.1"), pod("good", 2, "10.1.1.1")]);
    let deployments = vec![deployment("bad", "A", &[]), deployment("good", "B", &[])];
    let mut reconciler = listed(Policy::Sync, deployments, pods, start);
    session.trouble(|_, _, body| {
        body.contains("10.1.").then(|| Error::Rejected { code: 801, text: "property ip failed validation".to_owned() })
    });
    let mut now = start;
    while reconcile(&mut reconciler, &session, now).unfinished && now < start + 600 * SECOND {
        now += 2 * SECOND;
    }
    let good: Vec<String> = apic.admin.subnets("uni/tn-T/out-L/instP-B").into_keys().collect();
    assert_eq!(good, ["10.2.0.1/32"]);
    assert!(now < start + 8 * SECOND, "within a few reconciles");
}

/// W3: the codes 1, 100 and 105 mean a temporary error, and an APIC uses them for permanent ones, too: what is refused
/// with them is tried again after growing pauses, with a finding, and holds up nothing else.
#[test]
fn repeated_transient_errors_back_off() {
    for code in [1, 100, 105] {
        let (apic, start) = (apic(), Instant::now());
        let session = Session::at(&apic);
        let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(3), start);
        session.trouble(move |method, _, body| {
            let refused = method == "POST" && body.contains("10.0.0.2");
            refused.then(|| Error::Rejected { code, text: "object transient".to_owned() })
        });
        for later in 0..600 {
            reconcile(&mut reconciler, &session, start + later * SECOND);
        }
        assert_eq!(apic.admin.subnets(DN_E).len(), 2, "{code}: the others are there");
        assert!(reconciler.findings().iter().any(|it| it.code == Code::Rejected), "{code}");
        let tries = session.writes.borrow().iter().filter(|it| it.contains("10.0.0.2")).count();
        assert!((5..20).contains(&tries), "{code}: {tries} tries in ten minutes");
    }
}

/// O5, R2: another cluster's mark on what bore ours is never taken back: two that each did so would never end.
#[test]
fn another_clusters_mark_is_not_overwritten() {
    let (apic, start) = (apic(), Instant::now());
    with_subnets(&apic, 1);
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    reconcile(&mut reconciler, &session, start);
    for (mark, restored) in [("orchestrator:terraform", true), ("orchestrator:aci-sync:you", false)] {
        apic.admin.set(&subnet(1), "l3extSubnet", &[("annotation", mark)]).unwrap();
        assert!(session.deliver_events(&mut reconciler));
        reconcile(&mut reconciler, &session, start + SECOND);
        session.deliver_events(&mut reconciler);
        assert_eq!(apic.admin.get(&subnet(1)).unwrap()["annotation"] == MARK, restored, "{mark}");
    }
}

/// R2, R3: a deletion that is reported late, by a subscription that was given up, is a deletion all the same: what
/// another writer put there after it is not ours.
#[test]
fn a_late_deletion_event_counts() {
    let (apic, start) = (apic(), Instant::now());
    with_subnets(&apic, 1);
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    reconcile(&mut reconciler, &session, start);
    reconciler.subscriptions_lost(Some(&session));
    for (dn, class) in [(DN_E.to_owned(), "l3extInstP"), (subnet(1), "l3extSubnet")] {
        apic.admin.admin_delete(&dn).unwrap();
        apic.admin.set(&dn, class, &[("annotation", "orchestrator:terraform")]).unwrap();
    }
    assert!(!session.deliver_events(&mut reconciler), "late events cost no reconcile");
    reconcile(&mut reconciler, &session, start + SECOND);
    for dn in [DN_E.to_owned(), subnet(1)] {
        assert_eq!(apic.admin.get(&dn).unwrap()["annotation"], "orchestrator:terraform", "{dn}");
    }
}

/// D6: an EPG that is named while no reconcile can be made has its whole grace before it afterwards.
#[test]
fn a_grace_restarts_without_a_reconcile() {
    let (apic, start) = (apic(), Instant::now());
    with_subnets(&apic, 0);
    let session = Session::at(&apic);
    let reconciler = Reconciler::new(OwnerIdentity::new("me", &[]), Rules::default(), Policy::Sync, 60 * SECOND);
    let mut reconciler = hears_lists(reconciler, Vec::new(), Vec::new(), start);
    reconcile(&mut reconciler, &session, start);
    reconciler.cluster_changed(Event::Upsert(deployment("web", "E", &[])), start + 50 * SECOND);
    let key = Key { namespace: "a".into(), name: "web".into() };
    reconciler.cluster_changed(Event::Gone { kind: Kind::Deployment, key }, start + 51 * SECOND);
    reconcile(&mut reconciler, &session, start + 61 * SECOND);
    assert!(apic.admin.get(DN_E).is_some());
    reconcile(&mut reconciler, &session, start + 121 * SECOND);
    assert!(apic.admin.get(DN_E).is_none());
}

/// O4, D3: a typo after a restart does not cost the memory of a foreign EPG.
#[test]
fn a_typo_keeps_the_tag_of_a_foreign_epg() {
    let (apic, start) = (apic(), Instant::now());
    apic.admin.set(DN_E, "l3extInstP", &[("annotation", "orchestrator:terraform")]).unwrap();
    apic.admin.set(&subnet(1), "l3extSubnet", &[("annotation", MARK), ("name", "a::web-1")]).unwrap();
    apic.admin.set(TAG, "tagAnnotation", &[("value", "x")]).unwrap();
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "not/allowed", &[])], pods(1), start);
    reconcile(&mut reconciler, &session, start);
    assert!(apic.admin.get(TAG).is_some() && apic.admin.get(&subnet(1)).is_some());
    apic.admin.admin_delete(DN_E).unwrap();
    session.deliver_events(&mut reconciler);
    reconciler.cluster_changed(Event::Upsert(deployment("web", "E", &[])), start);
    reconcile(&mut reconciler, &session, start + SECOND);
    assert!(apic.admin.get(DN_E).is_none());
}

/// O4, R5: if another writer deletes the tag again and again, the process itself remembers.
#[test]
fn a_repeatedly_deleted_tag_is_remembered() {
    let (apic, start) = (apic(), Instant::now());
    apic.admin.set(DN_E, "l3extInstP", &[]).unwrap();
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    for n in 0..8 {
        reconcile(&mut reconciler, &session, start + n * SECOND);
        apic.admin.admin_delete(TAG).unwrap();
        reconciler.request_full_sync();
    }
    let tags = session.writes.borrow().iter().filter(|it| it.contains("tagAnnotation")).count();
    assert_eq!(tags, 7, "six repairs after the first");
    apic.admin.admin_delete(DN_E).unwrap();
    reconcile(&mut reconciler, &session, start + 10 * SECOND);
    assert!(apic.admin.get(DN_E).is_none());
}

/// R4, W8: an APIC that does not say what is ours, wherever it is, stops nothing that is named.
#[test]
fn a_forbidden_query_does_not_stop_the_others() {
    for class in ["tagAnnotation", "l3extInstP", "l3extSubnet"] {
        let (apic, start) = (apic(), Instant::now());
        let session = Session::at(&apic);
        session.trouble(move |_, target, _| {
            target.contains(&format!("class/{class}")).then(|| Error::Forbidden("no".to_owned()))
        });
        let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
        reconcile(&mut reconciler, &session, start);
        assert!(apic.admin.get(&subnet(1)).is_some());
        assert!(reconciler.findings().iter().any(|it| it.code == Code::Unavailable));
    }
}

/// The notices of a reconcile, in short.
fn notices(reconciler: &mut Reconciler, session: &Session, now: Instant) -> Vec<String> {
    let notices = reconcile(reconciler, session, now).notices.into_iter();
    notices
        .map(|it| format!("{} {} {} {}: {}", it.reason, it.about.kind, it.about.key, it.about.uid, it.note))
        .collect()
}

/// K5: that a Deployment is on the fabric is reported once, and so is that nothing of it is left; a restart has nothing
/// to report, and neither has a Pod that comes or goes.
#[test]
fn a_sync_is_reported_once() {
    const SYNCED: &str = "is on the fabric with";
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], Vec::new(), now);
    assert_eq!(notices(&mut reconciler, &session, now), [""; 0], "an EPG without an address has no use yet");
    reconciler.cluster_changed(Event::Upsert(pod("web", 1, "10.0.0.1")), now);
    assert_eq!(
        notices(&mut reconciler, &session, now),
        [format!("Synced Deployment a/web web: {DN_E} {SYNCED} 1 subnet")]
    );
    reconciler.cluster_changed(Event::Upsert(pod("web", 2, "10.0.0.2")), now);
    assert_eq!(notices(&mut reconciler, &session, now), [""; 0]);

    // After a restart too: what is there was made before.
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(2), now);
    assert_eq!(notices(&mut reconciler, &session, now), [""; 0]);
    reconciler.cluster_changed(Event::Upsert(deployment("late", "E", &[])), now);
    reconciler.cluster_changed(Event::Upsert(pod("late", 3, "10.0.0.3")), now);
    assert_eq!(
        notices(&mut reconciler, &session, now),
        [format!("Synced Deployment a/late late: {DN_E} {SYNCED} 3 subnets")]
    );

    // A move is reported by its result.
    reconciler.cluster_changed(Event::Upsert(deployment("late", "F", &[])), now);
    let dn_f = DN_E.replace("-E", "-F");
    assert_eq!(
        notices(&mut reconciler, &session, now),
        [format!("Synced Deployment a/late late: {dn_f} {SYNCED} 1 subnet")]
    );
    reconciler.cluster_changed(Event::Upsert(deployment("late", "E", &[])), now);
    assert_eq!(notices(&mut reconciler, &session, now).len(), 1);

    for (name, rest) in [
        ("web", format!("subnets of the Deployment were removed from {DN_E}; the EPG stays")),
        ("late", format!("{DN_E} is gone from the fabric")),
    ] {
        reconciler.cluster_changed(Event::Gone { kind: Kind::Deployment, key: Key::new("a", name) }, now);
        assert_eq!(notices(&mut reconciler, &session, now), [format!("Released Deployment a/{name} {name}: {rest}")]);
        assert_eq!(notices(&mut reconciler, &session, now), [""; 0]);
    }
}

/// K5: nothing is called released while something is still there, be it the EPG or a subnet in a shared one.
#[test]
fn a_deployment_with_leftovers_is_not_released() {
    for others in [vec![], vec![deployment("other", "E", &[])]] {
        let (apic, now) = (apic(), Instant::now());
        let session = Session::at(&apic);
        let deployments = [vec![deployment("web", "E", &[])], others].concat();
        let mut reconciler = listed(Policy::UpsertOnly, deployments.clone(), pods(1), now);
        assert_eq!(notices(&mut reconciler, &session, now).len(), deployments.len());
        reconciler.cluster_changed(Event::Gone { kind: Kind::Deployment, key: Key::new("a", "web") }, now);
        assert_eq!(notices(&mut reconciler, &session, now), [""; 0]);
        assert_eq!(apic.admin.subnets(DN_E).len(), 1);
    }
}

/// K5: a finding about an EPG is reported when it appears; how many of its addresses it concerns changes with each Pod.
#[test]
fn a_continuing_finding_is_not_reported_again() {
    let (apic, now) = (apic(), Instant::now());
    apic.admin.set("uni/tn-T/out-L/instP-X", "l3extInstP", &[]).unwrap();
    for n in 1..=2 {
        apic.admin.set(&format!("uni/tn-T/out-L/instP-X/extsubnet-[10.0.0.{n}/32]"), "l3extSubnet", &[]).unwrap();
    }
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), now);
    for count in [1, 0] {
        let notices = notices(&mut reconciler, &session, now);
        assert_eq!(notices.len(), count, "{notices:?}");
        assert!(
            notices.iter().all(|it| it.starts_with("ForeignSubnet Deployment a/web web: uni/tn-T/out-L/instP-E: "))
        );
        let text = reconciler.findings().iter().map(|it| it.text.clone()).collect::<String>();
        assert_eq!(text.contains("10.0.0.1/32, 10.0.0.2/32"), count == 0, "{text}");
        reconciler.cluster_changed(Event::Upsert(pod("web", 2, "10.0.0.2")), now);
    }
}

/// K5: a finding is reported on each Deployment or Service that it concerns when it appears; if it changes, it
/// is reported again; if it merely continues, it is not.
#[test]
fn findings_are_reported_on_the_objects_concerned() {
    let (apic, now) = (InMemoryApic::new(Variants::default()), Instant::now());
    apic.admin.setup_tenant("T", "V", &[]).unwrap();
    let session = Session::at(&apic);
    let mut reconciler =
        listed(Policy::Sync, vec![deployment("one", "E", &[]), deployment("two", "F", &[])], pods(1), now);
    let missing = |name: &str| {
        format!(
            "L3OutNotFound Deployment a/{name} {name}: uni/tn-T/out-L: L3Out not found; waiting for it to be created"
        )
    };
    assert_eq!(notices(&mut reconciler, &session, now), [missing("one"), missing("two")]);
    reconciler.cluster_changed(Event::Upsert(deployment("three", "F", &[])), now);
    assert_eq!(notices(&mut reconciler, &session, now), [missing("three")], "the others know");

    let annotated = |text: &str| {
        let annotations = json!({"aci.haystacknetworks.com/l3o": text});
        let json = json!({"metadata": {"namespace": "a", "name": "bad", "uid": "u", "annotations": annotations}});
        Event::Upsert(objects::decode(Kind::Deployment, json.to_string().as_bytes()).unwrap())
    };
    for (text, count) in [("{", 1), ("{", 0), ("[]", 1), ("{", 1)] {
        reconciler.cluster_changed(annotated(text), now);
        let notices = notices(&mut reconciler, &session, now);
        assert_eq!(notices.len(), count, "{text}: {notices:?}");
        assert!(
            notices.iter().all(|it| it.starts_with("InvalidAnnotation Deployment a/bad u: invalid annotation: ")),
            "{notices:?}"
        );
    }

    let service = json!({"metadata": {"namespace": "a", "name": "lb", "uid": "s"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "one"}},
        "status": {"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}}});
    let labels = json!({"metadata": {"labels": {"app": "one"}}});
    let one = json!({"metadata": {"namespace": "a", "name": "one", "uid": "one",
        "annotations": {"aci.haystacknetworks.com/l3o": r#"{"tenant":"T","l3out":"L","epg":"E"}"#}},
        "spec": {"template": labels}});
    for (kind, object) in [(Kind::Service, service), (Kind::Deployment, one)] {
        let object = objects::decode(kind, object.to_string().as_bytes()).unwrap();
        reconciler.cluster_changed(Event::Upsert(object), now);
    }
    let notices = notices(&mut reconciler, &session, now);
    assert!(notices.len() == 1 && notices[0].starts_with("HostnameOnly Service a/lb s: load balancer"), "{notices:?}");
}

/// K5: who reads the Events of one namespace learns no names of another one's objects, nor of its EPGs; the log has
/// them.
#[test]
fn events_name_nothing_of_other_namespaces() {
    let (apic, now) = (apic(), Instant::now());
    apic.admin.set("uni/tn-T/out-L/instP-E_EVIL", "l3extInstP", &[("annotation", MARK)]).unwrap();
    let held = "uni/tn-T/out-L/instP-E_EVIL/extsubnet-[10.0.0.7/32]";
    apic.admin.set(held, "l3extSubnet", &[("annotation", "orchestrator:terraform")]).unwrap();
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, Vec::new(), Vec::new(), now);
    let mut add = |kind: Kind, namespace: &str, name: &str, created: u8, mut json: serde_json::Value| {
        let metadata = &mut json["metadata"];
        (metadata["namespace"], metadata["name"]) = (json!(namespace), json!(name));
        metadata["uid"] = json!(format!("{namespace}-{name}"));
        metadata["creationTimestamp"] = json!(format!("2026-01-01T00:00:0{created}Z"));
        let object = objects::decode(kind, json.to_string().as_bytes()).unwrap();
        reconciler.cluster_changed(Event::Upsert(object), now);
    };
    for (namespace, name, l3out, epg, created) in [
        ("evil", "one", "L", "E_EVIL", 1),
        ("evil", "two", "NO", "E", 1),
        ("shop", "one", "L", "E", 2),
        ("shop", "two", "NO", "E", 2),
    ] {
        let value = json!({"tenant": "T", "l3out": l3out, "epg": epg}).to_string();
        let annotations = json!({"aci.haystacknetworks.com/l3o": value});
        let template = json!({"metadata": {"labels": {"app": name}}});
        let json = json!({"metadata": {"annotations": annotations}, "spec": {"template": template}});
        add(Kind::Deployment, namespace, name, created, json);
        if name == "two" {
            continue;
        }
        // An address of a load balancer that both share, and one that the Pod of the one has from the other.
        let ingress = json!({"loadBalancer": {"ingress": [{"ip": "10.9.0.1"}]}});
        let service = json!({"spec": {"type": "LoadBalancer", "selector": {"app": "one"}}, "status": ingress});
        add(Kind::Service, namespace, "lb", created, service);
        let owner = json!([{"kind": "ReplicaSet", "name": format!("{name}-1"), "controller": true}]);
        let metadata = json!({"labels": {"pod-template-hash": "1"}, "ownerReferences": owner});
        let own = if namespace == "shop" { "10.0.0.7" } else { "10.0.0.8" };
        let pod = json!({"metadata": metadata, "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": own}]}});
        add(Kind::Pod, namespace, &format!("{name}-1-x"), 9 - created, pod);
    }
    let notices = notices(&mut reconciler, &session, now);
    let of_shop: Vec<&String> = notices.iter().filter(|it| it.contains(" shop/")).collect();
    for reason in ["AddressConflict", "AddressClaimed", "ForeignSubnet", "L3OutNotFound"] {
        assert!(of_shop.iter().any(|it| it.starts_with(reason)), "{reason} is not among {of_shop:#?}");
    }
    assert!(of_shop.iter().all(|it| !it.to_lowercase().contains("evil")), "{of_shop:#?}");
    let log: Vec<String> = reconciler.findings().iter().map(ToString::to_string).collect();
    assert!(log.iter().any(|it| it.contains("now Pod evil/one-1-x")), "{log:#?}");
}

/// X3: a namespace has its share of the findings, whatever it writes; those of others are reported all the same.
#[test]
fn a_namespace_has_its_share_of_findings() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, Vec::new(), Vec::new(), now);
    let keys: String = (0..570).map(|n| format!(r#","k{n}":1"#)).collect();
    for (namespace, n) in (0..60).map(|n| ("evil", n)).chain([("shop", 0)]) {
        let text = match n % 3 {
            0 => format!(r#"{{"tenant":"{}"}}"#, "x\\n".repeat(800)),
            1 => format!(r#"{{"tenant":"T","l3out":"L","epg":"E"{keys}}}"#),
            _ => format!(r#"{{"tenant":"T","l3out":"NO-{n}","epg":"E"}}"#),
        };
        let annotations = json!({"aci.haystacknetworks.com/l3o": text});
        let metadata = json!({"namespace": namespace, "name": format!("d{n}"), "annotations": annotations});
        let json = json!({"metadata": metadata}).to_string();
        reconciler.cluster_changed(Event::Upsert(objects::decode(Kind::Deployment, json.as_bytes()).unwrap()), now);
    }
    reconcile(&mut reconciler, &session, now);
    let findings: Vec<String> = reconciler.findings().iter().map(ToString::to_string).collect();
    for code in ["InvalidAnnotation", "UnknownKey", "L3OutNotFound"] {
        let of_evil = findings.iter().filter(|it| it.starts_with(code) && !it.contains("shop/"));
        assert!(of_evil.count() <= 21, "{code}: {findings:#?}");
    }
    assert!(findings.iter().any(|it| it.starts_with("InvalidAnnotation Deployment shop/d0")), "{findings:#?}");
    assert!(reconciler.findings().iter().all(|it| it.text.len() <= 1024));
}

/// W6, D6: a Deployment that names another EPG each time leaves no more of them behind than its namespace may have,
/// those in their grace counted; its address stays where it is meanwhile (D5), and goes on once a grace is over.
#[test]
fn a_changing_annotation_piles_up_no_epgs() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let rules = Rules { max_epgs: Some(3), ..Rules::default() };
    let mut reconciler = reconciler(rules, Policy::Sync, vec![deployment("web", "E0", &[])], pods(1), start);
    let mut now = start;
    for n in 0..12 {
        now += SECOND;
        reconciler.cluster_changed(Event::Upsert(deployment("web", &format!("E{n}"), &[])), now);
        reconcile(&mut reconciler, &session, now);
    }
    assert_eq!(epgs(&apic), ["E0", "E1", "E2", "E3"]);
    assert_eq!(apic.admin.subnets("uni/tn-T/out-L/instP-E3").len(), 1, "it stays where it is");
    assert!(reconciler.findings().iter().any(|it| it.code == Code::TooManyEpgs));
    assert!(reconciler.open_findings() > 0);
    while now < start + 62 * SECOND {
        now = reconciler.next_wake().expect("graces end");
        reconcile(&mut reconciler, &session, now);
    }
    assert_eq!(epgs(&apic), ["E1", "E11", "E2", "E3"]);
    assert_eq!(apic.admin.subnets("uni/tn-T/out-L/instP-E11").len(), 1);
    assert!(reconciler.findings().iter().all(|it| it.code != Code::TooManyEpgs));
}

/// D6: an EPG that this process made, and that never held a subnet, goes without a grace; not if people have given it
/// contract relations, and not if another process may have put a subnet into it.
#[test]
fn an_epg_that_never_held_a_subnet_gets_no_grace() {
    let (apic, start) = (apic(), Instant::now());
    apic.admin.set("uni/tn-T/out-L/instP-BEFORE", "l3extInstP", &[("annotation", MARK)]).unwrap();
    let session = Session::at(&apic);
    let named = ["BEFORE", "EMPTY", "LINKED", "USED"].map(|epg| deployment(&epg.to_lowercase(), epg, &[]));
    let used = vec![pod("used", 1, "10.0.0.1")];
    let mut reconciler = reconciler(Rules::default(), Policy::Sync, named.to_vec(), used, start);
    reconcile(&mut reconciler, &session, start);
    assert_eq!(epgs(&apic), ["BEFORE", "EMPTY", "LINKED", "USED"]);
    apic.admin
        .admin_post("uni/tn-T/out-L/instP-LINKED", &json!({"fvRsProv": {"attributes": {"tnVzBrCPName": "web"}}}))
        .unwrap();
    for name in ["before", "empty", "linked", "used"] {
        reconciler.cluster_changed(Event::Gone { kind: Kind::Deployment, key: Key::new("a", name) }, start + SECOND);
    }
    reconcile(&mut reconciler, &session, start + SECOND);
    assert_eq!(epgs(&apic), ["BEFORE", "LINKED", "USED"]);
    let in_grace = reconciler.findings().iter().filter(|it| it.code == Code::EpgInGrace);
    assert_eq!(in_grace.count(), 3);
}

/// W8, X3: an L3Out that the APIC does not serve delays no other: it is left alone for a while, with a finding.
/// An APIC that serves nothing is another thing; and so is an L3Out that may hold something of ours, because an address
/// must not be created elsewhere meanwhile (W2).
#[test]
fn an_unserved_l3out_delays_no_other() {
    for holds_ours in [false, true] {
        let (apic, start) = (InMemoryApic::new(Variants::default()), Instant::now());
        apic.admin.setup_tenant("T", "V", &["A", "L"]).unwrap();
        if holds_ours {
            apic.admin.set("uni/tn-T/out-A/instP-OURS", "l3extInstP", &[("annotation", MARK)]).unwrap();
        }
        let session = Session::at(&apic);
        let slow = naming("a", "slow", "T/A/E");
        let mut reconciler = listed(Policy::Sync, vec![slow, deployment("web", "E", &[])], pods(1), start);
        let error = || Error::Unreachable("timed out".to_owned());

        session.trouble(move |_, _, _| Some(error()));
        for n in 0..3 {
            reconciler.reconcile(&session, start + n * SECOND, &|| true).unwrap_err();
        }
        session.trouble(move |_, target, _| target.contains("out-A").then(error));
        if holds_ours {
            reconciler.reconcile(&session, start + 3 * SECOND, &|| true).unwrap_err();
            reconciler.reconcile(&session, start + 4 * SECOND, &|| true).unwrap_err();
            assert_eq!(session.writes.borrow().len(), 0);
            continue;
        }
        assert!(reconcile(&mut reconciler, &session, start + 3 * SECOND).unfinished);
        reconcile(&mut reconciler, &session, start + 4 * SECOND);
        assert_eq!(apic.admin.subnets(DN_E).len(), 1);
        assert!(reconciler.findings().iter().any(|it| it.code == Code::Rejected && it.text.contains("timed out")));
        session.trouble(|_, _, _| None);
        reconcile(&mut reconciler, &session, start + 60 * SECOND);
        assert_eq!(epgs(&apic), ["E", "E"]);
        assert_eq!(reconciler.findings().len(), 0, "{:?}", reconciler.findings());
    }
}
