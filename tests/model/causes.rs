//! R7, R8: what is said of changes is true, by what this process saw.

use std::time::{Duration, Instant};

use crate::fixtures::*;
use aci_sync::kube::Event;
use aci_sync::model::finding::Code;
use aci_sync::model::kubernetes::{Key, Kind};
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::rules::Policy;
use aci_sync::model::rules::Rules;
use aci_sync::reconcile::Reconciler;
use sim::apic::{InMemoryApic, Variants, WriteAnswer};

/// R8: what another writer deleted is restored, and is not called created for the first time; with the EPG everything
/// in it, but for what is new.
#[test]
fn a_restoration_differs_from_a_first_creation() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(2), now);
    let first = ["+ EPG  (Deployment a/web)", "+ 10.0.0.1/32  import-security  (Pod a/web-1)"];
    assert_eq!(changes(&mut reconciler, &session, now)[..2], first);

    apic.admin.admin_delete(&subnet(1)).unwrap();
    let again = "+ 10.0.0.1/32  import-security  (Pod a/web-1; deleted by another writer)";
    assert_eq!(changes(&mut reconciler, &session, now), [again]);

    apic.admin.admin_delete(DN_E).unwrap();
    reconciler.cluster_changed(Event::Upsert(pod("web", 3, "10.0.0.3")), now);
    let all = [
        "+ EPG  (Deployment a/web; deleted by another writer)",
        again,
        "+ 10.0.0.2/32  import-security  (Pod a/web-2; deleted by another writer)",
        "+ 10.0.0.3/32  import-security  (Pod a/web-3)",
    ];
    assert_eq!(changes(&mut reconciler, &session, now), all);

    // What aci-sync deletes itself is no restoration when it comes back.
    for n in [2, 3] {
        reconciler.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", &format!("web-{n}")) }, now);
    }
    assert_eq!(changes(&mut reconciler, &session, now).len(), 2);
    reconciler.cluster_changed(Event::Upsert(pod("web", 2, "10.0.0.2")), now);
    assert_eq!(changes(&mut reconciler, &session, now), ["+ 10.0.0.2/32  import-security  (Pod a/web-2)"]);
}

/// R8: what another writer changed is drift, attribute by attribute; an address that another Pod has got is none, also
/// if there was drift before.
#[test]
fn drift_differs_from_a_change_of_source() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), now);
    reconcile(&mut reconciler, &session, now);
    let scopes = "scope export-rtctrl -> export-rtctrl,import-security";
    apic.admin.set(&subnet(1), "l3extSubnet", &[("name", "mine"), ("scope", "export-rtctrl")]).unwrap();
    assert_eq!(
        changes(&mut reconciler, &session, now),
        [format!(
            "~ 10.0.0.1/32  name \"mine\" -> \"a::web-1\"  {scopes}  (name changed by another writer; scope changed by \
             another writer)"
        )]
    );
    reconciler.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-1") }, now);
    reconciler.cluster_changed(Event::Upsert(pod("web", 2, "10.0.0.1")), now);
    assert_eq!(
        changes(&mut reconciler, &session, now),
        ["~ 10.0.0.1/32  name \"a::web-1\" -> \"a::web-2\"  (address belongs to Pod a/web-2)"]
    );
    apic.admin.set(&subnet(1), "l3extSubnet", &[("annotation", "")]).unwrap();
    assert_eq!(
        changes(&mut reconciler, &session, now),
        ["~ 10.0.0.1/32  (owner annotation changed by another writer)"]
    );
}

/// R8: another scope by configuration is no drift.
#[test]
fn a_changed_setting_is_no_drift() {
    let (apic, now) = (apic(), Instant::now());
    with_subnets(&apic, 1);
    let session = Session::at(&apic);
    apic.admin.set(&subnet(1), "l3extSubnet", &[("scope", "export-rtctrl")]).unwrap();
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), now);
    let repaired = changes(&mut reconciler, &session, now);
    assert!(repaired[0].ends_with("(required by --subnet-scope)"), "{repaired:?}");
}

/// R7: an EPG that another writer deletes comes back without its contract relations, which is a finding and an Event
/// that list them, until it has one again or is not desired any more.
#[test]
fn lost_contracts_are_listed() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), now);
    reconcile(&mut reconciler, &session, now);
    for n in 1..=7 {
        relate(&apic, &format!("c{n}"));
    }
    apic.admin.set(&format!("{DN_E}/rsprov-web"), "fvRsProv", &[]).unwrap();
    assert!(changes(&mut reconciler, &session, now).is_empty());
    assert!(findings(&reconciler, Code::ContractsLost).is_empty());

    apic.admin.admin_delete(DN_E).unwrap();
    session.deliver_events(&mut reconciler);
    let notices = reconcile(&mut reconciler, &session, now).notices;
    let text = "another writer deleted the EPG; restored without its contract relations: rscons-c1, \
                rscons-c2, rscons-c3, rscons-c4, rscons-c5 and 3 more; add those that are still needed";
    assert_eq!(findings(&reconciler, Code::ContractsLost), [text]);
    let notices: Vec<_> =
        notices.iter().map(|it| (it.reason.to_string(), it.reason.is_warning(), it.note.clone())).collect();
    assert_eq!(notices, [("ContractsLost".to_owned(), true, format!("{DN_E}: {text}"))]);
    changes(&mut reconciler, &session, now + 10 * SECOND);
    assert_eq!(findings(&reconciler, Code::ContractsLost), [text], "until it has one again");

    relate(&apic, "web");
    changes(&mut reconciler, &session, now + 10 * SECOND);
    assert!(findings(&reconciler, Code::ContractsLost).is_empty());
    apic.admin.admin_delete(DN_E).unwrap();
    changes(&mut reconciler, &session, now + 10 * SECOND);
    assert!(findings(&reconciler, Code::ContractsLost)[0].contains("relations: rscons-web;"));
    reconciler.cluster_changed(Event::Upsert(deployment("web", "F", &[])), now);
    changes(&mut reconciler, &session, now + 10 * SECOND);
    assert!(findings(&reconciler, Code::ContractsLost).is_empty());
}

/// R7: relations that people remove one by one are not lost, and neither are those of an EPG that aci-sync deletes.
#[test]
fn removed_contracts_are_not_lost() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), now);
    reconcile(&mut reconciler, &session, now);
    relate(&apic, "web");
    changes(&mut reconciler, &session, now);
    apic.admin.admin_delete(&format!("{DN_E}/rscons-web")).unwrap();
    changes(&mut reconciler, &session, now);
    apic.admin.admin_delete(DN_E).unwrap();
    changes(&mut reconciler, &session, now);
    assert!(findings(&reconciler, Code::ContractsLost).is_empty());

    relate(&apic, "web");
    changes(&mut reconciler, &session, now);
    reconciler.cluster_changed(Event::Upsert(deployment("web", "F", &[])), now);
    changes(&mut reconciler, &session, now);
    reconciler.cluster_changed(Event::Upsert(deployment("web", "E", &[])), now);
    assert_eq!(changes(&mut reconciler, &session, now)[0], "+ EPG  (Deployment a/web)");
    assert!(findings(&reconciler, Code::ContractsLost).is_empty());
}

/// R7, W2: nor are they forgotten if a write of aci-sync itself creates the EPG again that another writer had deleted
/// in that very moment.
#[test]
fn contracts_lost_during_a_write_are_reported() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), now);
    reconcile(&mut reconciler, &session, now);
    relate(&apic, "web");
    changes(&mut reconciler, &session, now);
    reconciler.cluster_changed(Event::Upsert(pod("web", 2, "10.0.0.2")), now);
    let (admin, mut done) = (apic.admin.clone(), false);
    session.trouble(move |method, _, _| {
        if method == "POST" && !std::mem::replace(&mut done, true) {
            admin.admin_delete(DN_E).unwrap();
        }
        None
    });
    reconcile(&mut reconciler, &session, now);
    assert_eq!(apic.admin.subnets(DN_E).len(), 2);
    assert_eq!(findings(&reconciler, Code::ContractsLost).len(), 1);
}

/// D6: while its grace runs an EPG is a finding that holds nothing back, the same in each reconcile.
#[test]
fn a_running_grace_is_visible() {
    for policy in [Policy::Sync, Policy::UpsertOnly] {
        let (apic, now) = (apic(), Instant::now());
        with_subnets(&apic, 1);
        relate(&apic, "web");
        let session = Session::at(&apic);
        let reconciler =
            Reconciler::new(OwnerIdentity::new("me", &[]), Rules::default(), policy, Duration::from_secs(60));
        let mut reconciler = hears_lists(reconciler, Vec::new(), Vec::new(), now);
        let report = reconcile(&mut reconciler, &session, now);
        if policy == Policy::UpsertOnly {
            assert_eq!((reconciler.findings().len(), report.kept), (0, 2), "nothing ends there");
            continue;
        }
        let text = "no longer desired; deleting it after a grace of 60 s, with 1 contract relation";
        assert_eq!(findings(&reconciler, Code::EpgInGrace), [text]);
        assert_eq!((reconciler.open_findings(), report.kept), (0, 0));
        let before = reconciler.findings().clone();
        reconcile(&mut reconciler, &session, now + 59 * SECOND);
        assert_eq!(*reconciler.findings(), before);
        reconcile(&mut reconciler, &session, now + 60 * SECOND);
        assert!(reconciler.findings().is_empty() && apic.admin.get(DN_E).is_none());
    }
}

/// O2: what another writer put into an EPG of ours in the moment of its deletion goes with it; if the answer shows
/// that, it is reported.
#[test]
fn objects_deleted_in_a_race_are_reported() {
    let apic = InMemoryApic::new(Variants { write_answer: WriteAnswer::Flat, ..Variants::default() });
    apic.admin.setup_tenant("T", "V", &["L"]).unwrap();
    with_subnets(&apic, 1);
    let (session, now) = (Session::at(&apic), Instant::now());
    let mut reconciler = listed(Policy::Sync, Vec::new(), Vec::new(), now);
    let admin = apic.admin.clone();
    session.trouble(move |method, _, _| {
        if method == "POST" {
            admin.set(&subnet(9), "l3extSubnet", &[("name", "theirs")]).unwrap();
        }
        None
    });
    let report = reconcile(&mut reconciler, &session, now);
    assert!(apic.admin.get(DN_E).is_none());
    assert_eq!(report.swept, [format!("{DN_E}: subnet 10.0.0.9/32")]);
}
