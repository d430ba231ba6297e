//! What happens on the fabric in the middle of a reconcile, and what that leads to: heard of before the next write, or
//! later.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use crate::fixtures::*;
use aci_sync::apic::{Error, SubscriptionId};
use aci_sync::kube::Event;
use aci_sync::model::finding::Code;
use aci_sync::model::kubernetes::{Key, Kind};
use aci_sync::model::mo::MoChange;
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::rules::Policy;
use aci_sync::model::rules::Rules;
use aci_sync::reconcile::{ReconcileContext, Reconciler, Report};
use serde_json::json;
use sim::apic::{Order, WriteAnswer};

/// Another writer acts before each write, and its change is reported at once.
struct Hand<'a>(&'a Session, RefCell<Box<dyn FnMut() + 'a>>);

impl<'a> Hand<'a> {
    fn new(session: &'a Session, act: impl FnMut() + 'a) -> Self {
        Hand(session, RefCell::new(Box::new(act)))
    }
}

impl ReconcileContext for Hand<'_> {
    fn should_continue(&self) -> bool {
        true
    }

    fn drain_events(&self, hear: &mut dyn FnMut(&[SubscriptionId], &[MoChange])) {
        (self.1.borrow_mut())();
        self.0.drain_events(hear);
    }
}

/// A reconcile that hears its websocket before each write, or only once it has ended.
fn reconcile_that(hears: bool, reconciler: &mut Reconciler, session: &Session, now: Instant) -> Report {
    if hears { reconciler.reconcile(session, now, session).unwrap() } else { reconcile(reconciler, session, now) }
}

/// Deletes an object in the moment of the next POST.
fn delete_at_the_next_post(apic: &sim::apic::InMemoryApic, session: &Session, dn: &str) {
    let (admin, dn, once) = (apic.admin.clone(), dn.to_owned(), Cell::new(true));
    session.trouble(move |method, _, _| {
        if method == "POST" && once.take() {
            admin.admin_delete(&dn).unwrap();
        }
        None
    });
}

/// How an APIC may answer a write (A6).
const SHAPES: [WriteAnswer; 4] = [WriteAnswer::Nested, WriteAnswer::Flat, WriteAnswer::Partial, WriteAnswer::Empty];

/// A fabric whose APIC answers writes in this way.
fn apic_with(shape: WriteAnswer) -> sim::apic::InMemoryApic {
    let apic = apic();
    apic.admin.variants(|it| it.write_answer = shape);
    apic
}

/// Runs a story with each shape of answers, hearing the websocket within the reconcile or after it.
fn with_each_shape(story: impl Fn(&sim::apic::InMemoryApic, bool, &str)) {
    for shape in SHAPES {
        for hears in [true, false] {
            story(&apic_with(shape), hears, &format!("{shape:?}, hears: {hears}"));
        }
    }
}

/// A reconciler with one subnet in an EPG of ours, whose repair has just created `dn` again, because another writer
/// deleted it in that moment.
fn recreated(apic: &sim::apic::InMemoryApic, session: &Session, dn: &str, start: Instant) -> Reconciler {
    with_subnets(apic, 1);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    reconcile(&mut reconciler, session, start);
    apic.admin.set(&subnet(1), "l3extSubnet", &[("scope", "")]).unwrap();
    session.deliver_events(&mut reconciler);
    delete_at_the_next_post(apic, session, dn);
    reconcile(&mut reconciler, session, start + SECOND);
    session.trouble(|_, _, _| None);
    session.writes.borrow_mut().clear();
    reconciler
}

/// Reconciles enough, with what the websocket says in between.
fn settle(reconciler: &mut Reconciler, session: &Session, start: Instant) {
    for later in [60, 120, 180] {
        reconcile(reconciler, session, start + later * SECOND);
        session.deliver_events(reconciler);
    }
}

/// R1, W2: an EPG that is deleted between the read and the write of a reconcile comes back whole and as ours, whenever
/// its deletion is heard of and whatever the answer shows.
#[test]
fn a_deletion_during_a_reconcile_is_repaired() {
    with_each_shape(|apic, hears, case| {
        let start = Instant::now();
        with_subnets(apic, 3);
        let session = Session::at(apic);
        let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(3), start);
        reconcile(&mut reconciler, &session, start);
        reconciler.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-3") }, start);
        reconciler.cluster_changed(Event::Upsert(pod("web", 4, "10.0.0.4")), start);
        delete_at_the_next_post(apic, &session, DN_E);
        let report = reconcile_that(hears, &mut reconciler, &session, start + SECOND);
        let wants_a_reconcile = session.deliver_events(&mut reconciler);
        if report.unfinished || wants_a_reconcile || reconciler.next_wake().is_some() {
            reconcile(&mut reconciler, &session, start + 10 * SECOND);
        }
        let there: Vec<String> = apic.admin.subnets(DN_E).into_keys().collect();
        assert_eq!(there, ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.4/32"], "{case}");
        assert_eq!(apic.admin.get(DN_E).unwrap()["annotation"], MARK, "{case}");
    });
}

/// A6: the same with an APIC whose answer and whose websocket say nothing: the read that follows the write finds it.
#[test]
fn an_unreported_deletion_is_found_by_the_read_after_the_write() {
    for shape in SHAPES {
        let (apic, start) = (apic_with(shape), Instant::now());
        with_subnets(&apic, 3);
        let session = Session::at(&apic);
        let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(3), start);
        reconcile(&mut reconciler, &session, start);
        reconciler.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-3") }, start);
        reconciler.cluster_changed(Event::Upsert(pod("web", 4, "10.0.0.4")), start);
        delete_at_the_next_post(&apic, &session, DN_E);
        reconcile(&mut reconciler, &session, start + SECOND);
        let there: Vec<String> = apic.admin.subnets(DN_E).into_keys().collect();
        assert_eq!(there, ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.4/32"], "{shape:?}");
    }
}

/// R2, W2: a subnet of ours that is deleted between the read and its repair is created by the repair, as ours, whenever
/// its deletion is heard of: it goes with its Pod.
#[test]
fn a_subnet_deleted_during_its_repair_stays_owned() {
    with_each_shape(|apic, hears, case| {
        let start = Instant::now();
        with_subnets(apic, 1);
        let session = Session::at(apic);
        let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
        reconcile(&mut reconciler, &session, start);
        apic.admin.set(&subnet(1), "l3extSubnet", &[("scope", "")]).unwrap();
        session.deliver_events(&mut reconciler);
        delete_at_the_next_post(apic, &session, &subnet(1));
        reconcile_that(hears, &mut reconciler, &session, start + SECOND);
        let made = apic.admin.get(&subnet(1)).unwrap();
        assert_eq!((&made["annotation"], &made["name"]), (&json!(MARK), &json!("a::web-1")), "{case}");
        session.deliver_events(&mut reconciler);
        reconcile(&mut reconciler, &session, start + 2 * SECOND);
        reconciler.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-1") }, start);
        reconcile(&mut reconciler, &session, start + 3 * SECOND);
        assert!(apic.admin.get(&subnet(1)).is_none(), "{case}");
    });
}

/// D6, W2: an EPG that no Deployment names any more and that is deleted in the moment in which it is emptied is created
/// by that very write. It carries our mark, and goes.
#[test]
fn an_undesired_epg_deleted_while_it_is_emptied_leaves_nothing() {
    with_each_shape(|apic, hears, case| {
        let start = Instant::now();
        with_subnets(apic, 3);
        let session = Session::at(apic);
        let reconciler = Reconciler::new(OwnerIdentity::new("me", &[]), Rules::default(), Policy::Sync, 60 * SECOND);
        let mut reconciler = hears_lists(reconciler, vec![deployment("web", "E", &[])], pods(3), start);
        reconcile(&mut reconciler, &session, start);
        reconciler.cluster_changed(Event::Gone { kind: Kind::Deployment, key: Key::new("a", "web") }, start);
        delete_at_the_next_post(apic, &session, DN_E);
        reconcile_that(hears, &mut reconciler, &session, start + SECOND);
        assert_eq!(apic.admin.get(DN_E).unwrap()["annotation"], MARK, "the write created it, as ours: {case}");
        for later in [2, 63, 126] {
            session.deliver_events(&mut reconciler);
            reconcile_that(hears, &mut reconciler, &session, start + later * SECOND);
        }
        assert!(apic.admin.get(DN_E).is_none(), "{case}");
    });
}

/// R2: a subnet that a repair created in that way goes when it is not desired any more.
#[test]
fn a_repaired_subnet_goes_when_it_is_undesired() {
    with_each_shape(|apic, hears, case| {
        let start = Instant::now();
        let session = Session::at(apic);
        let mut reconciler = recreated(apic, &session, &subnet(1), start);
        if hears {
            session.deliver_events(&mut reconciler);
        }
        reconciler.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-1") }, start);
        settle(&mut reconciler, &session, start);
        assert!(apic.admin.get(&subnet(1)).is_none(), "{case}");
    });
}

/// R2, O2: what another writer creates in the place of what a repair created is theirs, desired or not, even if the
/// event about the deletion of the subnet comes with that of its EPG only.
#[test]
fn an_object_recreated_by_another_writer_is_foreign() {
    for (with_epg, is_desired) in [(false, true), (false, false), (true, true), (true, false)] {
        let (apic, start) = (apic(), Instant::now());
        let session = Session::at(&apic);
        let mut reconciler = recreated(&apic, &session, &if with_epg { DN_E.to_owned() } else { subnet(1) }, start);
        session.deliver_events(&mut reconciler);
        if !is_desired {
            reconciler.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-1") }, start);
        }
        if with_epg {
            apic.admin.variants(|it| it.deleted_order = Order::ParentsOnly);
            apic.admin.admin_delete(DN_E).unwrap();
            apic.admin.set(DN_E, "l3extInstP", &[]).unwrap();
        } else {
            apic.admin.admin_delete(&subnet(1)).unwrap();
        }
        apic.admin.set(&subnet(1), "l3extSubnet", &[("name", "theirs")]).unwrap();
        session.deliver_events(&mut reconciler);
        settle(&mut reconciler, &session, start);
        let now = apic.admin.get(&subnet(1)).unwrap_or_default();
        let expected = (Some(""), Some("theirs"));
        assert_eq!((now["annotation"].as_str(), now["name"].as_str()), expected, "{with_epg} {is_desired}");
    }
}

/// O5, R3: what another cluster has marked since is not ours any more, whatever becomes of that mark, and keeps nothing
/// of interest.
#[test]
fn an_object_marked_by_another_cluster_is_foreign() {
    for (dn, class) in [(subnet(1), "l3extSubnet"), (DN_E.to_owned(), "l3extInstP")] {
        let (apic, start) = (apic(), Instant::now());
        let session = Session::at(&apic);
        let mut reconciler = recreated(&apic, &session, &dn, start);
        session.deliver_events(&mut reconciler);
        let (kind, name) = if class == "l3extSubnet" { (Kind::Pod, "web-1") } else { (Kind::Deployment, "web") };
        reconciler.cluster_changed(Event::Gone { kind, key: Key::new("a", name) }, start);
        for mark in ["orchestrator:aci-sync:you", ""] {
            apic.admin.set(&dn, class, &[("annotation", mark)]).unwrap();
            session.deliver_events(&mut reconciler);
            settle(&mut reconciler, &session, start);
            reconciler.request_full_sync();
        }
        assert!(apic.admin.get(&dn).is_some_and(|it| it["annotation"] == ""), "{dn}");
        assert!(reconciler.findings().iter().all(|it| it.code != Code::Rejected), "{dn}: {:?}", reconciler.findings());
    }
}

/// W2: what carrying the mark may do: an EPG that another writer deletes and creates again between our read and our
/// write becomes ours with that write. What they said of it besides stays, and nothing later or earlier is touched.
#[test]
fn an_epg_replaced_during_a_write_becomes_owned() {
    let (apic, start) = (apic(), Instant::now());
    with_subnets(&apic, 1);
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    reconcile(&mut reconciler, &session, start);
    session.deliver_events(&mut reconciler);
    reconciler.cluster_changed(Event::Upsert(pod("web", 4, "10.0.0.4")), start);
    let (admin, once) = (apic.admin.clone(), Cell::new(true));
    session.trouble(move |method, _, _| {
        if method == "POST" && once.take() {
            admin.admin_delete(DN_E).unwrap();
            let theirs = [("annotation", "orchestrator:terraform"), ("descr", "theirs")];
            admin.set(DN_E, "l3extInstP", &theirs).unwrap();
        }
        None
    });
    reconciler.reconcile(&session, start + SECOND, &session).unwrap();
    let now = apic.admin.get(DN_E).unwrap();
    assert_eq!((now["annotation"].as_str(), now["descr"].as_str()), (Some(MARK), Some("theirs")));
}

/// W7: an EPG that another writer has deleted and created again is theirs if aci-sync reads it before it writes, also
/// if no event reported it.
#[test]
fn an_epg_replaced_before_the_read_stays_foreign() {
    let (apic, start) = (apic(), Instant::now());
    with_subnets(&apic, 1);
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    reconcile(&mut reconciler, &session, start);
    session.deliver_events(&mut reconciler);
    apic.admin.admin_delete(DN_E).unwrap();
    apic.admin.set(DN_E, "l3extInstP", &[("annotation", "orchestrator:aci-sync:you")]).unwrap();
    session.take_events();
    reconciler.cluster_changed(Event::Upsert(pod("web", 4, "10.0.0.4")), start);
    reconciler.reconcile(&session, start + SECOND, &session).unwrap();
    assert_eq!(apic.admin.get(DN_E).unwrap()["annotation"], "orchestrator:aci-sync:you");
    assert!(apic.admin.get(&subnet(4)).is_some_and(|it| it["annotation"] == MARK), "as a guest");
}

/// O5, W7: who is busy with other objects in the same EPG holds nothing up, and does not have it read again and again.
#[test]
fn a_busy_neighbor_delays_nothing() {
    for is_foreign in [true, false] {
        let (apic, start) = (apic(), Instant::now());
        if is_foreign {
            apic.admin.set(DN_E, "l3extInstP", &[]).unwrap();
        } else {
            with_subnets(&apic, 0);
        }
        let session = Session::at(&apic);
        let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(2), start);
        reconcile(&mut reconciler, &session, start);
        session.deliver_events(&mut reconciler);
        reconciler.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-1") }, start);
        reconciler.cluster_changed(Event::Upsert(pod("web", 4, "10.0.0.4")), start);
        let reads = std::rc::Rc::new(Cell::new(0));
        let count = reads.clone();
        session.trouble(move |method, _, _| {
            count.set(count.get() + u32::from(method == "GET"));
            None
        });
        let mut n = 0;
        let busy = Hand::new(&session, || {
            n += 1;
            let dn = format!("{DN_E}/extsubnet-[10.7.0.{n}/32]");
            apic.admin.set(&dn, "l3extSubnet", &[("annotation", "orchestrator:aci-sync:you")]).unwrap();
        });
        let report = reconciler.reconcile(&session, start + SECOND, &busy).unwrap();
        assert!(!report.unfinished, "foreign: {is_foreign}");
        assert!(apic.admin.get(&subnet(4)).is_some() && apic.admin.get(&subnet(1)).is_none(), "foreign: {is_foreign}");
        assert!(reads.get() <= 4, "foreign: {is_foreign}, {} reads", reads.get());
    }
}

/// S3, W2: an address that another writer has just put into another EPG of the VRF is not put beside it.
#[test]
fn an_address_just_taken_by_another_writer_is_left_alone() {
    let (apic, start) = (apic(), Instant::now());
    with_subnets(&apic, 1);
    let theirs = "uni/tn-T/out-L/instP-F";
    apic.admin.set(theirs, "l3extInstP", &[]).unwrap();
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    reconcile(&mut reconciler, &session, start);
    session.deliver_events(&mut reconciler);
    reconciler.cluster_changed(Event::Upsert(pod("web", 4, "10.0.0.4")), start);
    let mut once = true;
    let hand = Hand::new(&session, || {
        if std::mem::take(&mut once) {
            apic.admin.set(&format!("{theirs}/extsubnet-[10.0.0.4/32]"), "l3extSubnet", &[]).unwrap();
        }
    });
    reconciler.reconcile(&session, start + SECOND, &hand).unwrap();
    assert!(apic.admin.get(&subnet(4)).is_none(), "{:?}", session.writes.borrow());
    assert!(apic.admin.faults_raised().is_empty(), "{:?}", apic.admin.faults_raised());
    assert!(reconciler.findings().iter().any(|it| it.code == Code::ForeignSubnet), "{:?}", reconciler.findings());
}

/// O2, D6: what another writer has put into an EPG during a reconcile, and the fabric has reported, is not deleted with
/// it.
#[test]
fn a_foreign_subnet_reported_in_time_survives() {
    let (apic, start) = (apic(), Instant::now());
    with_subnets(&apic, 1);
    let (f, foreign) = ("uni/tn-T/out-L/instP-F", "uni/tn-T/out-L/instP-F/extsubnet-[10.9.9.9/32]");
    apic.admin.set(f, "l3extInstP", &[("annotation", MARK)]).unwrap();
    let session = Session::at(&apic);
    let mut reconciler =
        listed(Policy::Sync, vec![deployment("web", "E", &[]), deployment("other", "F", &[])], pods(1), start);
    reconcile(&mut reconciler, &session, start);
    session.deliver_events(&mut reconciler);
    for name in ["web", "other"] {
        reconciler.cluster_changed(Event::Gone { kind: Kind::Deployment, key: Key::new("a", name) }, start);
    }
    let (admin, mut once) = (apic.admin.clone(), true);
    session.trouble(move |method, _, body| {
        if method == "POST" && body.contains(r#""E","status":"deleted""#) && std::mem::take(&mut once) {
            admin.set(foreign, "l3extSubnet", &[("annotation", "orchestrator:terraform")]).unwrap();
        }
        None
    });
    reconciler.reconcile(&session, start + SECOND, &session).unwrap();
    assert!(apic.admin.get(DN_E).is_none(), "the other one has gone");
    assert!(apic.admin.get(foreign).is_some(), "{:?}", session.writes.borrow());
}

/// R2: what another writer has created in the place of an object of ours during a reconcile is theirs.
#[test]
fn an_object_replaced_during_a_reconcile_is_foreign() {
    let (apic, start) = (apic(), Instant::now());
    with_subnets(&apic, 3);
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(3), start);
    reconcile(&mut reconciler, &session, start);
    session.deliver_events(&mut reconciler);
    reconciler.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-3") }, start);
    let (admin, mut once) = (apic.admin.clone(), true);
    let theirs = [("annotation", "orchestrator:terraform"), ("name", "theirs")];
    session.trouble(move |method, target, _| {
        if method == "GET" && target.contains(DN_E) && std::mem::take(&mut once) {
            admin.admin_delete(&subnet(1)).unwrap();
            admin.set(&subnet(1), "l3extSubnet", &theirs).unwrap();
        }
        None
    });
    reconciler.reconcile(&session, start + SECOND, &session).unwrap();
    let now = apic.admin.get(&subnet(1)).unwrap();
    assert_eq!((now["annotation"].as_str(), now["name"].as_str()), (Some(theirs[0].1), Some(theirs[1].1)));
    assert!(apic.admin.get(&subnet(3)).is_none(), "what is ours there goes on");
}

/// A context whose time moves on between the writes of a reconcile.
struct Later(Instant);

impl ReconcileContext for Later {
    fn should_continue(&self) -> bool {
        true
    }

    fn now(&self) -> Option<Instant> {
        Some(self.0)
    }
}

/// W4, W1: all plans of a reconcile are made for its beginning. An EPG that is deferred then is left alone to the end, even
/// if its pause is over while the reconcile writes elsewhere: its deletions were not counted.
#[test]
fn what_becomes_due_during_a_reconcile_waits() {
    let (apic, start) = (apic(), Instant::now());
    with_subnets(&apic, 40);
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(40), start);
    reconcile(&mut reconciler, &session, start);
    session.trouble(|method, _, _| (method == "POST").then(|| Error::Forbidden("no".to_owned())));
    reconciler.cluster_changed(Event::Upsert(pod("web", 99, "10.0.9.9")), start);
    reconcile(&mut reconciler, &session, start);
    session.trouble(|_, _, _| None);
    let other = vec![deployment("other", "F", &[]), deployment("web", "E", &[])];
    let mut reconciler = hears_lists(reconciler, other, vec![pod("other", 1, "10.0.8.8")], start + 8 * SECOND);
    let begun = start + 9 * SECOND;
    reconciler.reconcile(&session, begun, &Later(begun + 3 * SECOND)).unwrap();
    assert_eq!(apic.admin.subnets("uni/tn-T/out-L/instP-F").len(), 1);
    assert_eq!((apic.admin.subnets(DN_E).len(), reconciler.blocked_deletions().len()), (40, 0));
    reconcile(&mut reconciler, &session, start + 20 * SECOND);
    assert_eq!(
        (apic.admin.subnets(DN_E).len(), reconciler.blocked_deletions().len()),
        (40, 40),
        "now they are counted"
    );
}

/// R2: an EPG that another writer makes below a new L3Out is not ours, also if an APIC announces the L3Out alone.
#[test]
fn an_epg_of_a_new_l3out_is_foreign() {
    for order in [Order::ParentsFirst, Order::ChildrenFirst, Order::ParentsOnly] {
        let (apic, now) = (apic(), Instant::now());
        apic.admin.variants(|it| it.deleted_order = order);
        with_subnets(&apic, 1);
        let session = Session::at(&apic);
        let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), now);
        reconcile(&mut reconciler, &session, now);
        apic.admin.admin_delete("uni/tn-T/out-L").unwrap();
        apic.admin.setup_tenant("T", "V", &["L"]).unwrap();
        apic.admin.set(DN_E, "l3extInstP", &[]).unwrap();
        changes(&mut reconciler, &session, now);
        assert_eq!(apic.admin.get(DN_E).unwrap()["annotation"], "");
        assert_eq!(apic.admin.subnets(DN_E).len(), 1);
    }
}

/// R2, R1: an event about a deleted L3Out that comes late, or again and again, after the L3Out and what is ours are back takes
/// nothing away: our EPG stays ours, is repaired, and goes in the end.
#[test]
fn a_late_event_about_an_l3out_takes_nothing_away() {
    for order in [Order::ParentsFirst, Order::ChildrenFirst, Order::ParentsOnly] {
        let (apic, now) = (apic(), Instant::now());
        apic.admin.variants(|it| it.deleted_order = order);
        with_subnets(&apic, 2);
        let session = Session::at(&apic);
        let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(2), now);
        reconcile(&mut reconciler, &session, now);
        apic.admin.admin_delete("uni/tn-T/out-L").unwrap();
        apic.admin.setup_tenant("T", "V", &["L"]).unwrap();
        let late = session.take_events();
        reconciler.request_full_sync();
        reconcile(&mut reconciler, &session, now);
        assert_eq!(apic.admin.subnets(DN_E).len(), 2, "{order:?}");
        for n in 1..=3 {
            hear(&mut reconciler, &late);
            session.deliver_events(&mut reconciler);
            session.writes.borrow_mut().clear();
            reconcile(&mut reconciler, &session, now + n * 10 * SECOND);
            assert_eq!(session.writes.borrow().len(), 0, "{order:?}");
            apic.admin.set(DN_E, "l3extInstP", &[("annotation", "")]).unwrap();
            apic.admin.set(&subnet(1), "l3extSubnet", &[("annotation", "")]).unwrap();
            changes(&mut reconciler, &session, now + n * 10 * SECOND + SECOND);
            assert_eq!(apic.admin.get(DN_E).unwrap()["annotation"], MARK, "{order:?}");
            assert_eq!(apic.admin.get(&subnet(1)).unwrap()["annotation"], MARK, "{order:?}");
        }
        let found: Vec<_> = reconciler.findings().iter().map(|it| it.code).collect();
        assert!(found.is_empty(), "{order:?}: {found:?}");
        reconciler.cluster_changed(Event::Gone { kind: Kind::Deployment, key: Key::new("a", "web") }, now);
        for later in [100, 200, 300] {
            changes(&mut reconciler, &session, now + later * SECOND);
        }
        assert!(apic.admin.get(DN_E).is_none(), "{order:?}");
    }
}

/// R2: an EPG is not ours if its creation by another writer is announced, also if the deletion of ours is not: it may have gone with
/// its tenant.
#[test]
fn an_epg_that_another_writer_creates_is_foreign() {
    for gone in ["uni/tn-T", "uni/tn-T/out-L", DN_E] {
        let (apic, now) = (apic(), Instant::now());
        apic.admin.variants(|it| it.deleted_order = Order::ParentsOnly);
        with_subnets(&apic, 1);
        let session = Session::at(&apic);
        let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), now);
        reconcile(&mut reconciler, &session, now);
        apic.admin.admin_delete(gone).unwrap();
        session.take_events();
        if gone != DN_E {
            apic.admin.setup_tenant("T", "V", &["L"]).unwrap();
        }
        apic.admin.set(DN_E, "l3extInstP", &[]).unwrap();
        changes(&mut reconciler, &session, now);
        assert_eq!(apic.admin.get(DN_E).unwrap()["annotation"], "", "{gone}");
        assert_eq!(apic.admin.subnets(DN_E).len(), 1, "{gone}");
    }
}
