//! An APIC that does not report changes: subscriptions refused, or silent. That costs freshness, and nothing else
//! (A6).

use std::time::Instant;

use crate::fixtures::*;
use aci_sync::kube::{Event, objects};
use aci_sync::model::finding::Code;
use aci_sync::model::kubernetes::{Key, Kind};
use aci_sync::model::rules::Policy;
use aci_sync::reconcile::Reconciler;

fn has_no_events(reconciler: &Reconciler) -> bool {
    reconciler.findings().iter().any(|it| it.code == Code::NoEvents)
}

/// A6: an L3Out that may be read and not subscribed is served, with a finding; what changes there is noticed within a
/// minute, and it is subscribed again with the next full sync.
#[test]
fn a_refused_subscription_costs_freshness_only() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    apic.admin.variants(|it| it.subscriptions_refused = true);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(2), start);
    reconcile(&mut reconciler, &session, start);
    assert_eq!(apic.admin.subnets(DN_E).len(), 2);
    assert!(has_no_events(&reconciler));

    reconcile(&mut reconciler, &session, start + 10 * SECOND);
    apic.admin.admin_delete(&subnet(1)).unwrap();
    let wake = reconciler.next_wake().expect("it looks by itself");
    assert!(wake <= start + 70 * SECOND);
    reconcile(&mut reconciler, &session, wake);
    assert_eq!(apic.admin.subnets(DN_E).len(), 2, "noticed within a minute");

    apic.admin.variants(|it| it.subscriptions_refused = false);
    reconciler.request_full_sync();
    reconcile(&mut reconciler, &session, start + 600 * SECOND);
    assert!(!has_no_events(&reconciler));
    session.take_events();
    apic.admin.admin_delete(&subnet(1)).unwrap();
    assert!(session.deliver_events(&mut reconciler), "it is subscribed");
}

/// A6: one L3Out that may not be subscribed changes nothing for the others.
#[test]
fn a_refused_subscription_affects_only_its_l3out() {
    let (apic, start) = (apic(), Instant::now());
    apic.admin.setup_tenant("T", "V", &["M"]).unwrap();
    apic.admin.refuse_subscriptions("out-M");
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    let other = serde_json::json!({"metadata": {"namespace": "a", "name": "other", "annotations":
        {"aci.haystacknetworks.com/l3o": r#"{"tenant":"T","l3out":"M","epg":"F"}"#}}});
    let other = objects::decode(Kind::Deployment, other.to_string().as_bytes()).unwrap();
    reconciler.cluster_changed(Event::Upsert(other), start);
    reconcile(&mut reconciler, &session, start);
    assert!(apic.admin.get(DN_E).is_some() && apic.admin.get("uni/tn-T/out-M/instP-F").is_some());
    let concerned: Vec<String> =
        reconciler.findings().iter().filter(|it| it.code == Code::NoEvents).map(|it| it.subject.to_string()).collect();
    assert_eq!(concerned, ["uni/tn-T/out-M"]);
    assert_eq!(reconciler.open_findings(), 0, "nothing that is desired waits because of it");
}

/// A6: a websocket that is open, answers pings and delivers nothing is noticed by the missing echo of our own writes.
/// It is subscribed once more; if that does not help there is a finding, and the L3Out is read once a minute until an
/// event comes.
#[test]
fn a_silent_websocket_is_noticed_by_its_missing_echo() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    reconcile(&mut reconciler, &session, start);
    session.deliver_events(&mut reconciler);
    reconcile(&mut reconciler, &session, start + 10 * SECOND);

    apic.admin.variants(|it| it.events_lost = true);
    let ids = apic.admin.subscription_ids();
    for (n, seconds) in [(2, 100), (3, 200)] {
        reconciler.cluster_changed(Event::Upsert(pod("web", n, &format!("10.0.0.{n}"))), start + seconds * SECOND);
        reconcile(&mut reconciler, &session, start + seconds * SECOND);
        assert!(!session.deliver_events(&mut reconciler));
        assert!(!has_no_events(&reconciler), "not yet");
        reconcile(&mut reconciler, &session, start + (seconds + 60) * SECOND);
        assert_ne!(apic.admin.subscription_ids(), ids, "it was subscribed once more");
    }
    assert!(has_no_events(&reconciler));
    apic.admin.admin_delete(&subnet(1)).unwrap();
    let wake = reconciler.next_wake().expect("it looks by itself");
    assert!(wake <= start + 320 * SECOND);
    reconcile(&mut reconciler, &session, wake);
    assert!(apic.admin.get(&subnet(1)).is_some());

    apic.admin.variants(|it| it.events_lost = false);
    reconciler.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-3") }, start);
    reconcile(&mut reconciler, &session, start + 400 * SECOND);
    session.deliver_events(&mut reconciler);
    reconcile(&mut reconciler, &session, start + 401 * SECOND);
    assert!(!has_no_events(&reconciler), "its echo has come");
}

/// R3: an L3Out that appears is subscribed once more ten seconds later, because its first subscription was to nothing.
#[test]
fn a_new_l3out_is_subscribed_twice() {
    let (apic, start) = (apic(), Instant::now());
    apic.admin.admin_delete("uni/tn-T/out-L").unwrap();
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    reconcile(&mut reconciler, &session, start);
    let first = apic.admin.subscription_ids();
    apic.admin.setup_tenant("T", "V", &["L"]).unwrap();
    session.deliver_events(&mut reconciler);
    reconcile(&mut reconciler, &session, start + SECOND);
    session.deliver_events(&mut reconciler);
    assert_eq!(apic.admin.subscription_ids(), first);
    while let Some(wake) = reconciler.next_wake().filter(|it| *it <= start + 11 * SECOND) {
        reconcile(&mut reconciler, &session, wake);
        session.deliver_events(&mut reconciler);
    }
    assert_eq!(apic.admin.subscription_ids().len(), 2, "a new one beside the one that lapses by itself");
    assert!(apic.admin.get(DN_E).is_some());
}

/// S3: the VRF of an L3Out is in the same answer as its EPGs, and a change of it is heard.
#[test]
fn a_change_of_the_vrf_is_noticed() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    reconcile(&mut reconciler, &session, start);
    session.deliver_events(&mut reconciler);
    reconcile(&mut reconciler, &session, start + 10 * SECOND);
    apic.admin.set("uni/tn-T/ctx-W", "fvCtx", &[]).unwrap();
    apic.admin.set("uni/tn-T/out-L/rsectx", "l3extRsEctx", &[("tnFvCtxName", "W")]).unwrap();
    assert!(session.deliver_events(&mut reconciler), "the L3Out is read again");
    reconcile(&mut reconciler, &session, start + 11 * SECOND);
    assert_eq!(apic.admin.subnets(DN_E).len(), 1);
}

/// A6: answers to writes that show nothing cost a read and no reconcile: the subnets of a foreign EPG, one request
/// each, all go in within one reconcile.
#[test]
fn empty_answers_cost_no_reconciles() {
    let (apic, start) = (apic(), Instant::now());
    apic.admin.variants(|it| it.write_answer = sim::apic::WriteAnswer::Empty);
    apic.admin.set(DN_E, "l3extInstP", &[]).unwrap();
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(60), start);
    let report = reconcile(&mut reconciler, &session, start);
    assert_eq!((apic.admin.subnets(DN_E).len(), report.unfinished), (60, false));
}

/// R3: an L3Out that goes and comes back before it is read has just appeared, too.
#[test]
fn a_replaced_l3out_is_read_again() {
    let (apic, now) = (apic(), Instant::now());
    apic.admin.set(DN_E, "l3extInstP", &[]).unwrap();
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], Vec::new(), now);
    reconcile(&mut reconciler, &session, now);
    assert_eq!(reconciler.next_wake(), None);
    apic.admin.admin_delete("uni/tn-T/out-L").unwrap();
    apic.admin.setup_tenant("T", "V", &["L"]).unwrap();
    apic.admin.set(DN_E, "l3extInstP", &[]).unwrap();
    session.deliver_events(&mut reconciler);
    reconcile(&mut reconciler, &session, now);
    assert_eq!(reconciler.next_wake(), Some(now + 5 * SECOND));
    let ids = apic.admin.subscription_ids();
    for later in [5, 10, 15] {
        changes(&mut reconciler, &session, now + later * SECOND);
    }
    assert_ne!(apic.admin.subscription_ids(), ids, "it was subscribed once more");
    assert_eq!(reconciler.next_wake(), None);
}
