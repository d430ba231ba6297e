//! What happens on the fabric in the middle of a pass, and what that leads to: heard of before the next write, or later.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

#[path = "support/desk.rs"]
mod desk;

use std::cell::{Cell, RefCell};
use std::time::Instant;

use aci_sync::apic::{Error, SubscriptionId};
use aci_sync::config::Policy;
use aci_sync::daemon::engine::{Around, Engine, Report};
use aci_sync::kube::Event;
use aci_sync::model::finding::Code;
use aci_sync::model::kube::{Key, Kind};
use aci_sync::model::mo::{MoChange, Status};
use aci_sync::model::owner::Owner;
use aci_sync::model::rules::Rules;
use desk::*;
use serde_json::json;

/// Somebody's hand moves before each write, and what it does is heard of at once.
struct Hand<'a>(&'a Session, RefCell<Box<dyn FnMut() + 'a>>);

impl<'a> Hand<'a> {
    fn new(session: &'a Session, act: impl FnMut() + 'a) -> Self {
        Hand(session, RefCell::new(Box::new(act)))
    }
}

impl Around for Hand<'_> {
    fn go_on(&self) -> bool {
        true
    }

    fn listen(&self, hear: &mut dyn FnMut(&[SubscriptionId], &[MoChange])) {
        (self.1.borrow_mut())();
        self.0.listen(hear);
    }
}

/// A pass that hears its websocket before each write, or only once it has ended.
fn pass_that(hears: bool, engine: &mut Engine, session: &Session, now: Instant) -> Report {
    if hears { engine.pass(session, now, session).unwrap() } else { pass(engine, session, now) }
}

/// Deletes an object in the moment of the next POST.
fn delete_at_the_next_post(desk: &sim::apic::Desk, session: &Session, dn: &str) {
    let (door, dn, once) = (desk.door.clone(), dn.to_owned(), Cell::new(true));
    session.trouble(move |method, _, _| {
        if method == "POST" && once.take() {
            door.admin_delete(&dn).unwrap();
        }
        None
    });
}

/// An engine with one subnet in an EEPG of ours, whose repair has just made it anew because somebody deleted `dn` in that
/// moment. The mark could not be put back yet.
fn made_by_the_way(desk: &sim::apic::Desk, session: &Session, dn: &str, start: Instant) -> Engine {
    with_subnets(desk, 1);
    let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    pass(&mut engine, session, start);
    desk.door.set(&subnet(1), "l3extSubnet", &[("scope", "")]).unwrap();
    session.tell(&mut engine);
    let (door, posts, dn) = (desk.door.clone(), Cell::new(0), dn.to_owned());
    session.trouble(move |method, _, _| {
        posts.set(posts.get() + u32::from(method == "POST"));
        match (method, posts.get()) {
            ("POST", 1) => door.admin_delete(&dn).map(|_| None).unwrap(),
            ("POST", _) => Some(Error::Forbidden("no".to_owned())),
            _ => None,
        }
    });
    pass(&mut engine, session, start + SECOND);
    session.trouble(|_, _, _| None);
    session.writes.borrow_mut().clear();
    engine
}

/// Tells an engine what the websocket said, without what is lost on the way.
fn tell_but(session: &Session, engine: &mut Engine, is_lost: impl Fn(&MoChange) -> bool) {
    for (ids, changes) in session.told() {
        let told: Vec<MoChange> = changes.into_iter().filter(|it| !is_lost(it)).collect();
        engine.fabric_changed(&ids, &told);
    }
}

/// Passes enough, with what the websocket says in between.
fn settle(engine: &mut Engine, session: &Session, start: Instant) {
    for later in [60, 120, 180] {
        pass(engine, session, start + later * SECOND);
        session.tell(engine);
    }
}

/// R1: an EEPG that is deleted between the read and the write of a pass comes back whole and as ours, whenever its
/// deletion is heard of.
#[test]
fn a_deletion_within_a_pass_is_not_forgotten() {
    for hears in [true, false] {
        let (desk, start) = (desk(), Instant::now());
        with_subnets(&desk, 3);
        let session = Session::at(&desk);
        let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(3), start);
        pass(&mut engine, &session, start);
        engine.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-3") }, start);
        engine.cluster_changed(Event::Upsert(pod("web", 4, "10.0.0.4")), start);
        delete_at_the_next_post(&desk, &session, DN_E);
        let report = pass_that(hears, &mut engine, &session, start + SECOND);
        let wants_a_pass = session.tell(&mut engine);
        if report.unfinished || wants_a_pass || engine.next_wake().is_some() {
            pass(&mut engine, &session, start + 10 * SECOND);
        }
        let there: Vec<String> = desk.door.subnets(DN_E).into_keys().collect();
        assert_eq!(there, ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.4/32"], "hears: {hears}");
        assert_eq!(desk.door.get(DN_E).unwrap()["annotation"], MARK, "hears: {hears}");
    }
}

/// R2, W2: a subnet of ours that is deleted between the read and its repair is made by the repair, and stays ours,
/// whenever its deletion is heard of: it goes with its Pod.
#[test]
fn a_subnet_deleted_in_the_moment_of_its_repair_stays_ours() {
    for hears in [true, false] {
        let (desk, start) = (desk(), Instant::now());
        with_subnets(&desk, 1);
        let session = Session::at(&desk);
        let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
        pass(&mut engine, &session, start);
        desk.door.set(&subnet(1), "l3extSubnet", &[("scope", "")]).unwrap();
        session.tell(&mut engine);
        delete_at_the_next_post(&desk, &session, &subnet(1));
        pass_that(hears, &mut engine, &session, start + SECOND);
        let made = desk.door.get(&subnet(1)).unwrap();
        assert_eq!((&made["annotation"], &made["name"]), (&json!(MARK), &json!("a::web-1")), "hears: {hears}");
        session.tell(&mut engine);
        pass(&mut engine, &session, start + 2 * SECOND);
        engine.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-1") }, start);
        pass(&mut engine, &session, start + 3 * SECOND);
        assert!(desk.door.get(&subnet(1)).is_none(), "hears: {hears}");
    }
}

/// D6, R2: an EEPG that nobody names any more and that somebody deletes in the moment in which it is emptied is made by
/// that very write. It gets our mark, and goes.
#[test]
fn an_unwanted_epg_deleted_in_the_moment_it_is_emptied_leaves_nothing() {
    for hears in [true, false] {
        let (desk, start) = (desk(), Instant::now());
        with_subnets(&desk, 3);
        let session = Session::at(&desk);
        let engine = Engine::new(Owner::new("me", &[]), Rules::default(), Policy::Sync, 60 * SECOND);
        let mut engine = hears_lists(engine, vec![deployment("web", "E", &[])], pods(3), start);
        pass(&mut engine, &session, start);
        engine.cluster_changed(Event::Gone { kind: Kind::Deployment, key: Key::new("a", "web") }, start);
        delete_at_the_next_post(&desk, &session, DN_E);
        pass_that(hears, &mut engine, &session, start + SECOND);
        assert!(desk.door.get(DN_E).is_some(), "the write made it: hears: {hears}");
        for later in [2, 63, 126] {
            session.tell(&mut engine);
            pass_that(hears, &mut engine, &session, start + later * SECOND);
        }
        assert!(desk.door.get(DN_E).is_none(), "hears: {hears}");
    }
}

/// R2: a subnet that a repair made in that way, and that is not wanted any more when the mark could be put back, gets it
/// and goes.
#[test]
fn a_repair_that_nobody_wants_any_more_leaves_nothing() {
    let (desk, start) = (desk(), Instant::now());
    let session = Session::at(&desk);
    let mut engine = made_by_the_way(&desk, &session, &subnet(1), start);
    session.tell(&mut engine);
    engine.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-1") }, start);
    settle(&mut engine, &session, start);
    assert!(desk.door.get(&subnet(1)).is_none());
}

/// R2, R3: what somebody makes in the place of what a repair made is theirs, also where some of the events are lost: that
/// about the making of the subnet, below an EEPG that was just made; that about its deletion, with its EEPG's.
#[test]
fn lost_events_make_nothing_ours() {
    let created = |it: &MoChange| it.status == Status::Created && it.mo.dn == subnet(1);
    let deleted = |it: &MoChange| it.status == Status::Deleted && it.mo.dn == subnet(1);
    for (with_epg, is_wanted) in [(false, true), (false, false), (true, true), (true, false)] {
        let (desk, start) = (desk(), Instant::now());
        let session = Session::at(&desk);
        let made = if with_epg { subnet(1) } else { DN_E.to_owned() };
        let mut engine = made_by_the_way(&desk, &session, &made, start);
        tell_but(&session, &mut engine, |it| !with_epg && created(it));
        if !is_wanted {
            engine.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-1") }, start);
        }
        if with_epg {
            desk.door.admin_delete(DN_E).unwrap();
            desk.door.set(DN_E, "l3extInstP", &[]).unwrap();
        } else {
            desk.door.admin_delete(&subnet(1)).unwrap();
        }
        desk.door.set(&subnet(1), "l3extSubnet", &[("name", "theirs")]).unwrap();
        tell_but(&session, &mut engine, |it| with_epg && deleted(it));
        settle(&mut engine, &session, start);
        let now = desk.door.get(&subnet(1)).unwrap_or_default();
        assert_eq!(
            (now["annotation"].as_str(), now["name"].as_str()),
            (Some(""), Some("theirs")),
            "{with_epg} {is_wanted}"
        );
    }
}

/// O5, R3: what another cluster has marked since is not ours any more, whatever becomes of that mark, and keeps nothing
/// of interest.
#[test]
fn what_another_cluster_has_marked_is_theirs() {
    for (dn, class) in [(subnet(1), "l3extSubnet"), (DN_E.to_owned(), "l3extInstP")] {
        let (desk, start) = (desk(), Instant::now());
        let session = Session::at(&desk);
        let mut engine = made_by_the_way(&desk, &session, &dn, start);
        session.tell(&mut engine);
        let (kind, name) = if class == "l3extSubnet" { (Kind::Pod, "web-1") } else { (Kind::Deployment, "web") };
        engine.cluster_changed(Event::Gone { kind, key: Key::new("a", name) }, start);
        for mark in ["orchestrator:aci-sync:you", ""] {
            desk.door.set(&dn, class, &[("annotation", mark)]).unwrap();
            session.tell(&mut engine);
            settle(&mut engine, &session, start);
            engine.compare_all();
        }
        assert!(desk.door.get(&dn).is_some_and(|it| it["annotation"] == ""), "{dn}");
        assert!(engine.findings().iter().all(|it| it.code != Code::Rejected), "{dn}: {:?}", engine.findings());
    }
}

/// R2: of what was made by a repair in that way, one deletion is the one before it, and the next one is another: what
/// somebody makes after that is theirs.
#[test]
fn what_is_made_anew_by_somebody_after_a_repair_is_theirs() {
    for hears in [true, false] {
        let (desk, start) = (desk(), Instant::now());
        with_subnets(&desk, 1);
        let session = Session::at(&desk);
        let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
        pass(&mut engine, &session, start);
        desk.door.set(&subnet(1), "l3extSubnet", &[("scope", "")]).unwrap();
        session.tell(&mut engine);
        let (door, posts) = (desk.door.clone(), Cell::new(0));
        // It is made by the first POST, and the second, which would put the mark back, does not get through.
        session.trouble(move |method, _, _| {
            posts.set(posts.get() + u32::from(method == "POST"));
            match (method, posts.get()) {
                ("POST", 1) => door.admin_delete(&subnet(1)).map(|_| None).unwrap(),
                ("POST", _) => Some(Error::Forbidden("no".to_owned())),
                _ => None,
            }
        });
        pass_that(hears, &mut engine, &session, start + SECOND);
        desk.door.admin_delete(&subnet(1)).unwrap();
        let theirs = [("annotation", "orchestrator:terraform"), ("name", "theirs")];
        desk.door.set(&subnet(1), "l3extSubnet", &theirs).unwrap();
        session.trouble(|_, _, _| None);
        for later in [60, 120] {
            session.tell(&mut engine);
            pass_that(hears, &mut engine, &session, start + later * SECOND);
        }
        let now = desk.door.get(&subnet(1)).unwrap();
        assert_eq!((now["annotation"].as_str(), now["name"].as_str()), (Some(theirs[0].1), Some(theirs[1].1)));
    }
}

/// O5, W7: who is busy with other objects in the same EEPG holds nothing up, and does not have it read again and again.
#[test]
fn a_busy_neighbour_holds_nothing_up() {
    for is_foreign in [true, false] {
        let (desk, start) = (desk(), Instant::now());
        if is_foreign {
            desk.door.set(DN_E, "l3extInstP", &[]).unwrap();
        } else {
            with_subnets(&desk, 0);
        }
        let session = Session::at(&desk);
        let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(2), start);
        pass(&mut engine, &session, start);
        session.tell(&mut engine);
        engine.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-1") }, start);
        engine.cluster_changed(Event::Upsert(pod("web", 4, "10.0.0.4")), start);
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
            desk.door.set(&dn, "l3extSubnet", &[("annotation", "orchestrator:aci-sync:you")]).unwrap();
        });
        let report = engine.pass(&session, start + SECOND, &busy).unwrap();
        assert!(!report.unfinished, "foreign: {is_foreign}");
        assert!(desk.door.get(&subnet(4)).is_some() && desk.door.get(&subnet(1)).is_none(), "foreign: {is_foreign}");
        assert!(reads.get() <= 4, "foreign: {is_foreign}, {} reads", reads.get());
    }
}

/// S3, W2: an address that somebody has just put into another EEPG of the VRF is not put beside it.
#[test]
fn an_address_that_somebody_has_just_taken_is_left_to_them() {
    let (desk, start) = (desk(), Instant::now());
    with_subnets(&desk, 1);
    let theirs = "uni/tn-T/out-L/instP-F";
    desk.door.set(theirs, "l3extInstP", &[]).unwrap();
    let session = Session::at(&desk);
    let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    pass(&mut engine, &session, start);
    session.tell(&mut engine);
    engine.cluster_changed(Event::Upsert(pod("web", 4, "10.0.0.4")), start);
    let mut once = true;
    let hand = Hand::new(&session, || {
        if std::mem::take(&mut once) {
            desk.door.set(&format!("{theirs}/extsubnet-[10.0.0.4/32]"), "l3extSubnet", &[]).unwrap();
        }
    });
    engine.pass(&session, start + SECOND, &hand).unwrap();
    assert!(desk.door.get(&subnet(4)).is_none(), "{:?}", session.writes.borrow());
    assert!(desk.door.faults_raised().is_empty(), "{:?}", desk.door.faults_raised());
    assert!(engine.findings().iter().any(|it| it.code == Code::HeldByForeign), "{:?}", engine.findings());
}

/// O2, D6: what somebody has put into an EEPG in the middle of a pass, and the fabric has told of, is not deleted with it.
#[test]
fn a_foreign_subnet_told_of_in_time_survives() {
    let (desk, start) = (desk(), Instant::now());
    with_subnets(&desk, 1);
    let (f, foreign) = ("uni/tn-T/out-L/instP-F", "uni/tn-T/out-L/instP-F/extsubnet-[10.9.9.9/32]");
    desk.door.set(f, "l3extInstP", &[("annotation", MARK)]).unwrap();
    let session = Session::at(&desk);
    let mut engine =
        listed(Policy::Sync, vec![deployment("web", "E", &[]), deployment("other", "F", &[])], pods(1), start);
    pass(&mut engine, &session, start);
    session.tell(&mut engine);
    for name in ["web", "other"] {
        engine.cluster_changed(Event::Gone { kind: Kind::Deployment, key: Key::new("a", name) }, start);
    }
    let (door, mut once) = (desk.door.clone(), true);
    session.trouble(move |method, _, body| {
        if method == "POST" && body.contains(r#""E","status":"deleted""#) && std::mem::take(&mut once) {
            door.set(foreign, "l3extSubnet", &[("annotation", "orchestrator:terraform")]).unwrap();
        }
        None
    });
    engine.pass(&session, start + SECOND, &session).unwrap();
    assert!(desk.door.get(DN_E).is_none(), "the other one has gone");
    assert!(desk.door.get(foreign).is_some(), "{:?}", session.writes.borrow());
}

/// R2: what somebody has made in the place of an object of ours in the middle of a pass is theirs.
#[test]
fn what_is_made_anew_by_somebody_in_mid_pass_is_theirs() {
    let (desk, start) = (desk(), Instant::now());
    with_subnets(&desk, 3);
    let session = Session::at(&desk);
    let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(3), start);
    pass(&mut engine, &session, start);
    session.tell(&mut engine);
    engine.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-3") }, start);
    let (door, mut once) = (desk.door.clone(), true);
    let theirs = [("annotation", "orchestrator:terraform"), ("name", "theirs")];
    session.trouble(move |method, target, _| {
        if method == "GET" && target.contains(DN_E) && std::mem::take(&mut once) {
            door.admin_delete(&subnet(1)).unwrap();
            door.set(&subnet(1), "l3extSubnet", &theirs).unwrap();
        }
        None
    });
    engine.pass(&session, start + SECOND, &session).unwrap();
    let now = desk.door.get(&subnet(1)).unwrap();
    assert_eq!((now["annotation"].as_str(), now["name"].as_str()), (Some(theirs[0].1), Some(theirs[1].1)));
    assert!(desk.door.get(&subnet(3)).is_none(), "what is ours there goes on");
}
