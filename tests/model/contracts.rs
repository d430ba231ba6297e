//! R7: with `--restore-contracts` an EPG that another writer deleted gets the contract relations again that it had.

use std::cell::Cell;
use std::time::Instant;

use crate::fixtures::*;
use aci_sync::apic::Error;
use aci_sync::kube::Event;
use aci_sync::model::finding::Code;
use aci_sync::model::kubernetes::{Key, Kind};
use aci_sync::model::rules::{Policy, Rules};
use aci_sync::reconcile::Reconciler;
use sim::apic::{InMemoryApic, Order};

/// The EPG is there and consumes the contract `web`; a relation of each other class is there, too.
fn contracted(session: &Session, apic: &InMemoryApic, now: Instant) -> Reconciler {
    with_subnets(apic, 1);
    let rules = Rules { restore_contracts: true, batch: 2, ..Rules::default() };
    let mut reconciler = reconciler(rules, Policy::Sync, vec![deployment("web", "E", &[])], pods(1), now);
    changes(&mut reconciler, session, now);
    relate(apic, "web");
    for (rn, class) in RELATIONS {
        apic.admin.set(&format!("{DN_E}/{rn}"), class, &[]).unwrap();
    }
    assert!(changes(&mut reconciler, session, now).is_empty());
    reconciler
}

const RELATIONS: [(&str, &str); 4] = [
    ("rsconsIf-exported", "fvRsConsIf"),
    ("rsintraEpg-inside", "fvRsIntraEpg"),
    ("rsprotBy-taboo", "fvRsProtBy"),
    ("rsprov-api", "fvRsProv"),
];

fn relations(apic: &InMemoryApic) -> usize {
    ["fvRsCons", "fvRsConsIf", "fvRsIntraEpg", "fvRsProtBy", "fvRsProv"]
        .map(|it| apic.admin.class(it).len())
        .iter()
        .sum()
}

/// R7: all of them come back in one request after the EPG, without an owner annotation; there is nothing to find then, and
/// who removes one afterwards is not reverted.
#[test]
fn relations_come_back_with_their_epg() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = contracted(&session, &apic, now);
    apic.admin.admin_delete(DN_E).unwrap();
    session.writes.borrow_mut().clear();
    let line = |rn: &str| format!("~ EPG  contract relation {rn}  (another writer deleted it with the EPG)");
    let restored = changes(&mut reconciler, &session, now);
    assert_eq!(
        restored[..2],
        [
            "+ EPG  (Deployment a/web; deleted by another writer)".to_owned(),
            "+ 10.0.0.1/32  import-security  (Pod a/web-1; deleted by another writer)".to_owned(),
        ]
    );
    assert_eq!(
        restored[2..],
        ["rscons-web", "rsconsIf-exported", "rsintraEpg-inside", "rsprotBy-taboo", "rsprov-api"].map(line)
    );
    let writes = session.writes.take();
    assert_eq!(writes.len(), 2, "{writes:?}");
    let children = r#""children":[{"fvRsCons":{"attributes":{"tnVzBrCPName":"web"}}},{"fvRsConsIf":{"attributes":{"tnVzCPIfName":"exported"}}},{"fvRsIntraEpg":{"attributes":{"tnVzBrCPName":"inside"}}},{"fvRsProtBy":{"attributes":{"tnVzTabooName":"taboo"}}},{"fvRsProv":{"attributes":{"tnVzBrCPName":"api"}}}]"#;
    assert!(writes[1].contains(children), "{}", writes[1]);
    assert_eq!(relations(&apic), 5);
    assert!(findings(&reconciler, Code::ContractsLost).is_empty());

    let later = now + 5 * SECOND;
    apic.admin.admin_delete(&format!("{DN_E}/rscons-web")).unwrap();
    assert!(changes(&mut reconciler, &session, later).is_empty());
    apic.admin.admin_delete(DN_E).unwrap();
    changes(&mut reconciler, &session, later);
    assert_eq!((relations(&apic), apic.admin.class("fvRsCons").len()), (4, 0), "what people removed stays removed");
}

/// R7: after a time without events people may have removed a relation unseen; none comes back then, and the finding lists them.
#[test]
fn relations_stay_away_if_events_were_lost() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = contracted(&session, &apic, now);
    apic.admin.admin_delete(&format!("{DN_E}/rscons-web")).unwrap();
    apic.admin.admin_delete(DN_E).unwrap();
    reconciler.subscriptions_lost(None);
    reconcile(&mut reconciler, &session, now);
    assert_eq!(relations(&apic), 0);
    let found = findings(&reconciler, Code::ContractsLost);
    assert!(found.len() == 1 && found[0].contains("rscons-web, rsconsIf-exported"), "{found:?}");
    reconcile(&mut reconciler, &session, now);
    assert_eq!(relations(&apic), 0);
}

/// R7: the relations of an EPG come back all together, however few objects a request may hold: after a failure the rest would not
/// be missed.
#[test]
fn relations_come_back_together() {
    for failing in 1..=2 {
        let (apic, now) = (apic(), Instant::now());
        let session = Session::at(&apic);
        let mut reconciler = contracted(&session, &apic, now);
        apic.admin.admin_delete(DN_E).unwrap();
        session.deliver_events(&mut reconciler);
        let mut requests = 0;
        session.trouble(move |_, _, body| {
            let is_one = body.contains("fvRs");
            requests += usize::from(is_one);
            (is_one && requests == failing).then(|| Error::Busy("simulated".to_owned()))
        });
        for second in 0..3 {
            let _ = reconciler.reconcile(&session, now + second * SECOND, &|| true);
        }
        assert_eq!((relations(&apic), findings(&reconciler, Code::ContractsLost).len()), (5, 0), "{failing}");
    }
}

/// R7: an APIC that refuses relations is asked once. The EPG and its subnets are right without them.
#[test]
fn refused_relations_are_not_tried_again() {
    for error in [
        Error::Rejected { code: 121, text: "no".to_owned() },
        Error::Forbidden("user may not write fvRsCons".to_owned()),
    ] {
        let (apic, now) = (apic(), Instant::now());
        let session = Session::at(&apic);
        let mut reconciler = contracted(&session, &apic, now);
        apic.admin.admin_delete(DN_E).unwrap();
        session.trouble(move |_, _, body| body.contains("fvRsCons").then(|| error.clone()));
        session.writes.borrow_mut().clear();
        changes(&mut reconciler, &session, now);
        assert_eq!((session.writes.take().len(), apic.admin.subnets(DN_E).len(), relations(&apic)), (2, 1, 0));
        assert_eq!(findings(&reconciler, Code::ContractsLost).len(), 1);
        assert!(findings(&reconciler, Code::Rejected).is_empty());
        changes(&mut reconciler, &session, now + 600 * SECOND);
        assert_eq!(session.writes.take().len(), 0);
    }
}

/// How an APIC may announce what falls with an EPG.
fn orders(test: impl Fn(&InMemoryApic)) {
    for order in [Order::ParentsFirst, Order::ChildrenFirst, Order::ParentsOnly] {
        let apic = apic();
        apic.admin.variants(|it| it.deleted_order = order);
        test(&apic);
    }
}

/// The EPG is back with its address and without its relations, which a finding lists.
#[track_caller]
fn assert_stays_away(apic: &InMemoryApic, reconciler: &Reconciler) {
    let there = (apic.admin.subnets(DN_E).len(), relations(apic), findings(reconciler, Code::ContractsLost).len());
    assert_eq!(there, (1, 0, 1));
}

/// R7: what falls with its EPG comes back, whichever of them is announced first, and also if the EPG held no subnet.
#[test]
fn relations_come_back_in_any_order_of_events() {
    orders(|apic| {
        let now = Instant::now();
        let session = Session::at(apic);
        let mut reconciler = contracted(&session, apic, now);
        apic.admin.admin_delete(DN_E).unwrap();
        changes(&mut reconciler, &session, now);
        assert_eq!(relations(apic), 5);
        let later = now + 5 * SECOND;
        reconciler.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-1") }, later);
        changes(&mut reconciler, &session, later);
        apic.admin.admin_delete(DN_E).unwrap();
        changes(&mut reconciler, &session, later);
        assert_eq!((apic.admin.subnets(DN_E).len(), relations(apic)), (0, 5));
        assert!(findings(&reconciler, Code::ContractsLost).is_empty());
    });
}

/// R7: the same if a read shows that the EPG is gone before the events do, as with an EPG of many subnets.
#[test]
fn relations_come_back_if_a_read_overtakes_the_events() {
    orders(|apic| {
        let now = Instant::now();
        let session = Session::at(apic);
        let mut reconciler = contracted(&session, apic, now);
        apic.admin.admin_delete(DN_E).unwrap();
        let events = session.take_events();
        reconciler.request_full_sync();
        reconcile(&mut reconciler, &session, now);
        assert_eq!((relations(apic), findings(&reconciler, Code::ContractsLost).len()), (0, 1));
        for (ids, changes) in events {
            reconciler.fabric_changed(&ids, &changes);
            reconcile(&mut reconciler, &session, now);
        }
        assert_eq!((relations(apic), findings(&reconciler, Code::ContractsLost).len()), (5, 0));
    });
}

/// R7: a relation that people remove stays away, also if they delete the EPG before aci-sync has looked, or a read overtakes the
/// events. The finding lists the others, too.
#[test]
fn a_relation_removed_before_its_epg_stays_removed() {
    for overtaken in [false, true] {
        orders(|apic| {
            let now = Instant::now();
            let session = Session::at(apic);
            let mut reconciler = contracted(&session, apic, now);
            apic.admin.admin_delete(&format!("{DN_E}/rscons-web")).unwrap();
            apic.admin.admin_delete(DN_E).unwrap();
            if overtaken {
                reconciler.request_full_sync();
                reconcile(&mut reconciler, &session, now);
            }
            changes(&mut reconciler, &session, now);
            assert_stays_away(apic, &reconciler);
        });
    }
}

/// R7: a late event about an EPG that is back, and has other relations by now, says nothing about those.
#[test]
fn a_late_event_brings_back_no_removed_relation() {
    orders(|apic| {
        let now = Instant::now();
        let session = Session::at(apic);
        let mut reconciler = contracted(&session, apic, now);
        apic.admin.admin_delete(DN_E).unwrap();
        let late = session.take_events();
        let full_sync = |reconciler: &mut Reconciler| {
            reconciler.request_full_sync();
            reconcile(reconciler, &session, now);
        };
        full_sync(&mut reconciler);
        relate(apic, "web");
        full_sync(&mut reconciler);
        apic.admin.admin_delete(&format!("{DN_E}/rscons-web")).unwrap();
        for (ids, changes) in late {
            reconciler.fabric_changed(&ids, &changes);
            reconcile(&mut reconciler, &session, now);
        }
        changes(&mut reconciler, &session, now);
        assert_eq!(relations(apic), 0);
    });
}

/// R7, R3: the same for an event of a subscription that was given up, which causes no read.
#[test]
fn an_event_of_a_former_subscription_brings_back_no_removed_relation() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = contracted(&session, &apic, now);
    apic.admin.admin_delete(DN_E).unwrap();
    let former = session.take_events();
    reconciler.subscriptions_lost(None);
    reconcile(&mut reconciler, &session, now);
    relate(&apic, "web");
    assert!(changes(&mut reconciler, &session, now).is_empty());
    assert!(!hear(&mut reconciler, &former));
    apic.admin.admin_delete(&format!("{DN_E}/rscons-web")).unwrap();
    apic.admin.admin_delete(DN_E).unwrap();
    changes(&mut reconciler, &session, now);
    assert_eq!((apic.admin.subnets(DN_E).len(), relations(&apic)), (1, 0));
}

/// R7, R3: of what is below a new EPG events may be lost, so nothing is put back until it was read 5 s later.
#[test]
fn relations_of_a_new_epg_stay_away() {
    for (seconds, returning) in [(4, 0), (5, 4)] {
        let (apic, now) = (apic(), Instant::now());
        let session = Session::at(&apic);
        let mut reconciler = contracted(&session, &apic, now);
        apic.admin.admin_delete(DN_E).unwrap();
        changes(&mut reconciler, &session, now);
        assert_eq!(relations(&apic), 5);
        session.take_events();
        apic.admin.admin_delete(&format!("{DN_E}/rscons-web")).unwrap();
        session.take_events();
        reconcile(&mut reconciler, &session, now + seconds * SECOND);
        apic.admin.admin_delete(DN_E).unwrap();
        changes(&mut reconciler, &session, now + seconds * SECOND);
        assert_eq!((apic.admin.subnets(DN_E).len(), relations(&apic)), (1, returning), "{seconds}");
    }
}

/// R7: if an APIC announces children first, and not when they fell, people may have removed them.
#[test]
fn relations_stay_away_if_their_time_is_unknown() {
    let (apic, now) = (apic(), Instant::now());
    apic.admin.variants(|it| (it.deleted_order, it.deletions_have_time) = (Order::ChildrenFirst, false));
    let session = Session::at(&apic);
    let mut reconciler = contracted(&session, &apic, now);
    apic.admin.admin_delete(DN_E).unwrap();
    changes(&mut reconciler, &session, now);
    assert_eq!((relations(&apic), findings(&reconciler, Code::ContractsLost).len()), (0, 1));
}

/// R7: after the EPG is back, and before its relations are, people may act: what they add and remove again is theirs, and after a
/// time without events they may have done so unseen.
#[test]
fn relations_stay_away_if_people_act_before() {
    for is_seen in [true, false] {
        let (apic, now) = (apic(), Instant::now());
        let session = Session::at(&apic);
        let mut reconciler = contracted(&session, &apic, now);
        apic.admin.admin_delete(DN_E).unwrap();
        session.deliver_events(&mut reconciler);
        session.trouble(|_, _, body| body.contains("fvRs").then(|| Error::Busy("simulated".to_owned())));
        reconciler.reconcile(&session, now, &|| true).unwrap_err();
        session.trouble(|_, _, _| None);
        relate(&apic, "web");
        apic.admin.admin_delete(&format!("{DN_E}/rscons-web")).unwrap();
        if !is_seen {
            session.take_events();
            reconciler.subscriptions_lost(None);
        }
        changes(&mut reconciler, &session, now);
        assert_eq!((relations(&apic), findings(&reconciler, Code::ContractsLost).len()), (0, 1), "{is_seen}");
    }
}

/// R7: a relation that people remove right after it has come back stays away, although the EPG has none then.
#[test]
fn relations_come_back_once() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = contracted(&session, &apic, now);
    apic.admin.admin_delete(DN_E).unwrap();
    changes(&mut reconciler, &session, now);
    assert_eq!(relations(&apic), 5);
    for rn in RELATIONS.iter().map(|it| it.0).chain(["rscons-web"]) {
        apic.admin.admin_delete(&format!("{DN_E}/{rn}")).unwrap();
    }
    assert!(changes(&mut reconciler, &session, now).is_empty());
    assert_eq!(relations(&apic), 0);
    assert!(findings(&reconciler, Code::ContractsLost).is_empty());
}

/// R7, O4: an EPG that another writer makes under the same name is another one: what the owned one had does not return when
/// that one is gone in its turn, whenever aci-sync looks.
#[test]
fn relations_do_not_outlive_another_writers_epg() {
    for looks in [[false, true], [true, true], [false, false]] {
        let (apic, now) = (apic(), Instant::now());
        let session = Session::at(&apic);
        let mut reconciler = contracted(&session, &apic, now);
        let mut look = |looks: bool| {
            if looks {
                session.deliver_events(&mut reconciler);
                let _ = reconciler.reconcile(&session, now, &|| true);
            }
        };
        session.trouble(|method, _, _| (method == "POST").then(|| Error::Busy("simulated".to_owned())));
        apic.admin.admin_delete(DN_E).unwrap();
        look(looks[0]);
        session.trouble(|_, _, _| None);
        apic.admin.set(DN_E, "l3extInstP", &[]).unwrap();
        look(looks[1]);
        apic.admin.admin_delete(DN_E).unwrap();
        changes(&mut reconciler, &session, now);
        if looks[1] {
            assert_eq!(findings(&reconciler, Code::ForeignEpgDeleted).len(), 1, "{looks:?}");
            apic.admin.admin_delete(TAG).unwrap();
            changes(&mut reconciler, &session, now);
        }
        assert_eq!((apic.admin.subnets(DN_E).len(), relations(&apic)), (1, 0), "{looks:?}");
        let lost = usize::from(looks == [false, false]);
        assert_eq!(findings(&reconciler, Code::ContractsLost).len(), lost, "{looks:?}");
    }
}

/// R7, W7: relations whose answer is lost are not tried again and again, which would hold up what else the EPG needs.
#[test]
fn relations_without_an_answer_hold_nothing_up() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = contracted(&session, &apic, now);
    apic.admin.admin_delete(DN_E).unwrap();
    session.trouble(|method, _, body| {
        (method == "POST" && body.contains("fvRsCons")).then(|| Error::AnswerLost("no answer in time".to_owned()))
    });
    changes(&mut reconciler, &session, now);
    assert!(findings(&reconciler, Code::Rejected).is_empty());
    assert_eq!(findings(&reconciler, Code::ContractsLost).len(), 1);
    hears(&mut reconciler, pod("web", 2, "10.0.0.2"), now);
    changes(&mut reconciler, &session, now);
    assert_eq!(apic.admin.subnets(DN_E).len(), 2);
}

/// R7: the EPG that another writer makes together with its L3Out is another one, too, and of what is below a new L3Out events may be
/// lost (R3).
#[test]
fn relations_do_not_outlive_their_l3out() {
    for (is_noticed, is_heard) in [(true, true), (true, false), (false, true), (false, false)] {
        orders(|apic| {
            let now = Instant::now();
            let session = Session::at(apic);
            let mut reconciler = contracted(&session, apic, now);
            apic.admin.admin_delete("uni/tn-T/out-L").unwrap();
            session.deliver_events(&mut reconciler);
            if is_noticed {
                reconcile(&mut reconciler, &session, now);
            }
            apic.admin.setup_tenant("T", "V", &["L"]).unwrap();
            session.deliver_events(&mut reconciler);
            apic.admin.set(DN_E, "l3extInstP", &[]).unwrap();
            apic.admin.admin_delete(DN_E).unwrap();
            if !is_heard {
                session.take_events();
            }
            changes(&mut reconciler, &session, now);
            let there = (apic.admin.subnets(DN_E).len(), relations(apic));
            assert_eq!(there, (1, 0), "noticed {is_noticed}, heard {is_heard}");
            assert_eq!(findings(&reconciler, Code::ContractsLost).len(), 1);
        });
    }
}

/// R7: an event about an EPG that is back may be a second one about an EPG before it. What people remove of the present one, before
/// they delete that, stays away.
#[test]
fn an_event_that_comes_twice_brings_back_no_removed_relation() {
    orders(|apic| {
        let now = Instant::now();
        let session = Session::at(apic);
        let mut reconciler = contracted(&session, apic, now);
        apic.admin.admin_delete(DN_E).unwrap();
        let events = session.take_events();
        hear(&mut reconciler, &events);
        hear(&mut reconciler, &events);
        reconcile(&mut reconciler, &session, now);
        assert_eq!(relations(apic), 5);
        let later = now + 5 * SECOND;
        changes(&mut reconciler, &session, later);
        hear(&mut reconciler, &events);
        apic.admin.admin_delete(&format!("{DN_E}/rscons-web")).unwrap();
        apic.admin.admin_delete(DN_E).unwrap();
        changes(&mut reconciler, &session, later);
        assert_stays_away(apic, &reconciler);
    });
}

/// R7: once the session is lost, people may do anything unseen, also in an L3Out that the APIC does not let aci-sync read again.
#[test]
fn relations_stay_away_if_their_l3out_is_not_read_again() {
    let (apic, now) = (apic(), Instant::now());
    apic.admin.set("uni/tn-T/out-L/instP-F", "l3extInstP", &[("annotation", MARK)]).unwrap();
    let session = Session::at(&apic);
    let mut reconciler = contracted(&session, &apic, now);
    apic.admin.admin_delete(DN_E).unwrap();
    session.deliver_events(&mut reconciler);
    reconciler.reconcile(&session, now, &|| false).unwrap();
    reconciler.subscriptions_lost(None);
    apic.admin.set(DN_E, "l3extInstP", &[]).unwrap();
    apic.admin.admin_delete(DN_E).unwrap();
    session.take_events();
    session.trouble(|method, target, _| {
        let is_read = method == "GET" && target.contains("uni/tn-T/out-L.json");
        is_read.then(|| Error::Rejected { code: 1, text: "simulated".to_owned() })
    });
    changes(&mut reconciler, &session, now);
    assert_stays_away(&apic, &reconciler);
}

/// R7, R3: an EPG is new, too, if the APIC did not answer its creation.
#[test]
fn relations_of_a_new_epg_without_an_answer_stay_away() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = contracted(&session, &apic, now);
    apic.admin.admin_delete(DN_E).unwrap();
    let (admin, once) = (apic.admin.clone(), Cell::new(true));
    session.trouble(move |method, _, body| {
        (method == "POST" && once.take()).then(|| {
            admin.admin_post("uni/tn-T/out-L", &serde_json::from_str(body).unwrap()).unwrap();
            Error::AnswerLost("no answer in time".to_owned())
        })
    });
    changes(&mut reconciler, &session, now);
    assert_eq!((apic.admin.subnets(DN_E).len(), relations(&apic)), (1, 5));
    assert!(reconciler.next_wake().is_some_and(|it| it <= now + 5 * SECOND), "R3");
    session.take_events();
    apic.admin.admin_delete(&format!("{DN_E}/rscons-web")).unwrap();
    session.take_events();
    apic.admin.admin_delete(DN_E).unwrap();
    changes(&mut reconciler, &session, now + SECOND);
    assert_eq!((apic.admin.subnets(DN_E).len(), relations(&apic)), (1, 0));
}

/// R7, R3: the same if the read that follows is not served either: nothing says yet whether the EPG is new.
#[test]
fn relations_of_an_epg_that_may_be_new_stay_away() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = contracted(&session, &apic, now);
    apic.admin.admin_delete(DN_E).unwrap();
    session.deliver_events(&mut reconciler);
    let (admin, requests) = (apic.admin.clone(), Cell::new(0));
    session.trouble(move |method, _, body| {
        requests.set(requests.get() + usize::from(method == "POST" || requests.get() > 0));
        match requests.get() {
            1 => {
                admin.admin_post("uni/tn-T/out-L", &serde_json::from_str(body).unwrap()).unwrap();
                Some(Error::AnswerLost("no answer in time".to_owned()))
            }
            2 => Some(Error::Busy("503".to_owned())),
            _ => None,
        }
    });
    assert!(reconciler.reconcile(&session, now, &|| true).is_err());
    changes(&mut reconciler, &session, now);
    assert_eq!((apic.admin.subnets(DN_E).len(), relations(&apic)), (1, 5));
    assert!(reconciler.next_wake().is_some_and(|it| it <= now + 5 * SECOND), "R3");
    session.take_events();
    apic.admin.admin_delete(&format!("{DN_E}/rscons-web")).unwrap();
    session.take_events();
    apic.admin.admin_delete(DN_E).unwrap();
    changes(&mut reconciler, &session, now + SECOND);
    assert_eq!((apic.admin.subnets(DN_E).len(), relations(&apic)), (1, 0));
}
