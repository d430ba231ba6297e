//! Single passes of the engine against a fabric without sockets, with trouble at chosen requests: what a pass keeps in
//! mind for the next one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

use std::cell::RefCell;
use std::time::{Duration, Instant};

use aci_sync::apic::access::Access;
use aci_sync::apic::decode::{self, Answer};
use aci_sync::apic::{Error, Query, SubscriptionId, reading};
use aci_sync::config::Policy;
use aci_sync::daemon::engine::{Around, Engine, Report};
use aci_sync::kube::Event;
use aci_sync::model::finding::Code;
use aci_sync::model::kube::{Key, Kind, Object};
use aci_sync::model::mo::{Mo, MoChange};
use aci_sync::model::owner::Owner;
use aci_sync::model::rules::Rules;
use serde_json::{Value, json};
use sim::apic::{Desk, Quirks, Seat};

const MARK: &str = "orchestrator:aci-sync:me";
const DN_E: &str = "uni/tn-T/out-L/instP-E";
const TAG: &str = "uni/tn-T/out-L/annotationKey-[aci-sync:me:E]";

/// What happens at a request: method, target and body are known, and an error ends it.
type Trouble = Box<dyn FnMut(&str, &str, &str) -> Option<Error>>;

/// A session at the desk.
struct Session {
    seat: Seat,
    trouble: RefCell<Trouble>,
    writes: RefCell<Vec<String>>,
}

impl Session {
    fn at(desk: &Desk) -> Session {
        Session {
            seat: desk.sit_down("admin"),
            trouble: RefCell::new(Box::new(|_, _, _| None)),
            writes: RefCell::default(),
        }
    }

    fn trouble(&self, trouble: impl FnMut(&str, &str, &str) -> Option<Error> + 'static) {
        *self.trouble.borrow_mut() = Box::new(trouble);
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> Result<(u16, String), Error> {
        if method != "GET" {
            self.writes.borrow_mut().push(format!("{method} {target} {body}"));
        }
        let trouble = (self.trouble.borrow_mut())(method, target, body);
        trouble.map_or_else(|| Ok(self.seat.ask(method, target, body)), Err)
    }

    fn get(&self, target: &str) -> Result<Answer, Error> {
        let (status, body) = self.ask("GET", target, "")?;
        decode::read(status, body.as_bytes())
    }

    /// What the websocket said since it was last asked, as the listener tells it.
    fn told(&self) -> Vec<(Vec<SubscriptionId>, Vec<MoChange>)> {
        let messages = self.seat.events().unwrap().into_iter().map(|it| decode::message(it.as_bytes()).unwrap());
        let ids = |texts: &[String]| texts.iter().filter_map(|it| SubscriptionId::new(it)).collect();
        messages.map(|it| (ids(&it.subscriptions), it.changes)).collect()
    }

    fn tell(&self, engine: &mut Engine) -> bool {
        self.told()
            .iter()
            .fold(false, |wants_a_pass, (ids, changes)| engine.fabric_changed(ids, changes) | wants_a_pass)
    }
}

/// The websocket is heard during a pass, too.
impl Around for Session {
    fn go_on(&self) -> bool {
        true
    }

    fn listen(&self, hear: &mut dyn FnMut(&[SubscriptionId], &[MoChange])) {
        self.told().iter().for_each(|(ids, changes)| hear(ids, changes));
    }
}

impl Access for Session {
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        reading::read(query, &mut |target| self.get(target))
    }

    fn subscribe(&self, query: &Query) -> Result<(Option<SubscriptionId>, Vec<Mo>), Error> {
        let (id, mos) = reading::snapshot(self.get(&query.target(&["subscription=yes".to_owned()]))?)?;
        Ok((Some(id), mos))
    }

    fn forget(&self, _: &SubscriptionId) {}

    fn post(&self, dn: &str, body: &Value) -> Result<Vec<MoChange>, Error> {
        let (status, body) = self.ask("POST", &format!("/api/mo/{dn}.json?rsp-subtree=modified"), &body.to_string())?;
        decode::written(status, body.as_bytes())
    }

    fn delete(&self, dn: &str) -> Result<(), Error> {
        let (status, body) = self.ask("DELETE", &format!("/api/mo/{dn}.json"), "")?;
        decode::written(status, body.as_bytes()).map(drop)
    }
}

fn desk() -> Desk {
    let desk = Desk::new(Quirks::default());
    desk.door.setup_tenant("T", "V", &["L"]).unwrap();
    desk
}

/// An EEPG `E` of ours with so many subnets.
fn with_subnets(desk: &Desk, count: usize) {
    desk.door.set(DN_E, "l3extInstP", &[("annotation", MARK)]).unwrap();
    for n in 1..=count {
        let name = format!("a::web-{n}");
        desk.door.set(&subnet(n), "l3extSubnet", &[("annotation", MARK), ("name", &name)]).unwrap();
    }
}

fn subnet(n: usize) -> String {
    format!("{DN_E}/extsubnet-[10.0.0.{n}/32]")
}

fn deployment(name: &str, epg: &str, more: &[(&str, &str)]) -> Object {
    let mut annotations =
        json!({"aci.haystacknetworks.com/l3o": json!({"tenant": "T", "l3out": "L", "epg": epg}).to_string()});
    for (key, value) in more {
        annotations[format!("aci.haystacknetworks.com/{key}")] = json!(value);
    }
    let json = json!({"metadata": {"namespace": "a", "name": name, "uid": name, "annotations": annotations}});
    Object::decode(Kind::Deployment, json.to_string().as_bytes()).unwrap()
}

fn pod(of: &str, n: usize, address: &str) -> Object {
    let owner = json!([{"kind": "ReplicaSet", "name": format!("{of}-5d9c7"), "controller": true}]);
    let metadata = json!({"namespace": "a", "name": format!("{of}-{n}"), "uid": format!("{of}{n}"),
        "labels": {"pod-template-hash": "5d9c7"}, "ownerReferences": owner});
    let json = json!({"metadata": metadata, "status": {"phase": "Running", "podIPs": [{"ip": address}]}});
    Object::decode(Kind::Pod, json.to_string().as_bytes()).unwrap()
}

fn pods(count: usize) -> Vec<Object> {
    (1..=count).map(|n| pod("web", n, &format!("10.0.0.{n}"))).collect()
}

fn listed(policy: Policy, deployments: Vec<Object>, pods: Vec<Object>, now: Instant) -> Engine {
    let engine = Engine::new(Owner::new("me", &[]), Rules::default(), policy, Duration::ZERO);
    hears_lists(engine, deployments, pods, now)
}

fn hears_lists(mut engine: Engine, deployments: Vec<Object>, pods: Vec<Object>, now: Instant) -> Engine {
    for (kind, objects) in [(Kind::Deployment, deployments), (Kind::Pod, pods), (Kind::Service, Vec::new())] {
        engine.cluster_changed(Event::Listed { kind, objects }, now);
        engine.cluster_changed(Event::Live { kind }, now);
    }
    engine
}

fn pass(engine: &mut Engine, session: &Session, now: Instant) -> Report {
    engine.pass(session, now, &|| true).unwrap()
}

const SECOND: Duration = Duration::from_secs(1);

/// W4: what is held stays held while its EEPG is refused or paused, and afterwards.
#[test]
fn a_hold_outlives_a_refusal_and_a_pause() {
    let (desk, start) = (desk(), Instant::now());
    with_subnets(&desk, 40);
    let session = Session::at(&desk);
    let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], Vec::new(), start);
    pass(&mut engine, &session, start);
    session.trouble(|method, _, _| (method == "POST").then(|| Error::Forbidden("no".to_owned())));
    engine.cluster_changed(Event::Upsert(pod("web", 99, "10.0.9.9")), start);
    pass(&mut engine, &session, start + SECOND);
    session.trouble(|_, _, _| None);
    pass(&mut engine, &session, start + 12 * SECOND);
    assert_eq!(desk.door.subnets(DN_E).len(), 41, "those that are held, and the new one");
    for paused in ["true", "false"] {
        engine.cluster_changed(Event::Upsert(deployment("web", "E", &[("pause", paused)])), start);
        pass(&mut engine, &session, start + 13 * SECOND);
    }
    assert_eq!(desk.door.subnets(DN_E).len(), 41);
    assert!(engine.release_held());
    pass(&mut engine, &session, start + 14 * SECOND);
    assert_eq!(desk.door.subnets(DN_E).len(), 1);
}

/// W4: a comparison that could not read an EEPG has not counted it; it is counted once it can be read.
#[test]
fn what_could_not_be_read_is_counted_later() {
    let (desk, start) = (desk(), Instant::now());
    with_subnets(&desk, 40);
    let session = Session::at(&desk);
    let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(40), start);
    pass(&mut engine, &session, start);
    assert_eq!(session.writes.borrow().len(), 0);
    engine.cluster_changed(Event::Listed { kind: Kind::Pod, objects: Vec::new() }, start);
    session.trouble(|_, target, _| target.contains("instP-E.json").then(|| Error::Forbidden("no".to_owned())));
    pass(&mut engine, &session, start);
    session.trouble(|_, _, _| None);
    pass(&mut engine, &session, start + 11 * SECOND);
    assert_eq!(desk.door.subnets(DN_E).len(), 40);
    assert!(engine.findings().iter().any(|it| it.code == Code::Held));
}

/// W5, W8: under `observe` an EEPG that could not be read for a while is no reason to look again and again.
#[test]
fn an_observer_does_not_loop() {
    let (desk, start) = (desk(), Instant::now());
    with_subnets(&desk, 1);
    desk.door.set(&subnet(1), "l3extSubnet", &[("name", "drifted")]).unwrap();
    let session = Session::at(&desk);
    let mut engine = listed(Policy::Observe, vec![deployment("web", "E", &[])], pods(1), start);
    session.trouble(|_, target, _| target.contains("instP-E.json").then(|| Error::Forbidden("no".to_owned())));
    pass(&mut engine, &session, start);
    session.trouble(|_, _, _| None);
    let later = start + 20 * SECOND;
    pass(&mut engine, &session, later);
    assert!(engine.next_wake().is_none_or(|it| it > later));
}

/// W3: an EEPG full of refused objects starves no other.
#[test]
fn refused_objects_starve_nobody() {
    let (desk, start) = (desk(), Instant::now());
    let session = Session::at(&desk);
    let mut pods: Vec<Object> = (1..=240).map(|n| pod("bad", n, &format!("10.1.0.{n}"))).collect();
    pods.extend([pod("good", 1, "10.2.0.1"), pod("good", 2, "10.1.1.1")]);
    let deployments = vec![deployment("bad", "A", &[]), deployment("good", "B", &[])];
    let mut engine = listed(Policy::Sync, deployments, pods, start);
    session.trouble(|_, _, body| {
        body.contains("10.1.").then(|| Error::Rejected { code: 801, text: "property ip failed validation".to_owned() })
    });
    let mut now = start;
    while pass(&mut engine, &session, now).unfinished && now < start + 600 * SECOND {
        now += 2 * SECOND;
    }
    let good: Vec<String> = desk.door.subnets("uni/tn-T/out-L/instP-B").into_keys().collect();
    assert_eq!(good, ["10.2.0.1/32"]);
    assert!(now < start + 8 * SECOND, "within a few passes");
}

/// R1: an EEPG that is deleted between the read and the write of a pass comes back whole, with the pass or with the
/// event about it.
#[test]
fn a_deletion_within_a_pass_is_not_forgotten() {
    let (desk, start) = (desk(), Instant::now());
    with_subnets(&desk, 3);
    let session = Session::at(&desk);
    let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(3), start);
    pass(&mut engine, &session, start);
    engine.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("a", "web-3") }, start);
    engine.cluster_changed(Event::Upsert(pod("web", 4, "10.0.0.4")), start);
    let (door, mut once) = (desk.door.clone(), true);
    session.trouble(move |method, _, _| {
        if method == "POST" && std::mem::take(&mut once) {
            door.admin_delete(DN_E).unwrap();
        }
        None
    });
    let report = pass(&mut engine, &session, start + SECOND);
    let wants_a_pass = session.tell(&mut engine);
    if report.unfinished || wants_a_pass || engine.next_wake().is_some() {
        pass(&mut engine, &session, start + 10 * SECOND);
    }
    let there: Vec<String> = desk.door.subnets(DN_E).into_keys().collect();
    assert_eq!(there, ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.4/32"]);
    assert_eq!(desk.door.get(DN_E).unwrap()["annotation"], MARK);
}

/// R2, W2: a subnet of ours that is deleted between the read and its repair is made by the repair, and stays ours.
#[test]
fn a_subnet_deleted_in_the_moment_of_its_repair_stays_ours() {
    let (desk, start) = (desk(), Instant::now());
    with_subnets(&desk, 1);
    desk.door.set(&subnet(1), "l3extSubnet", &[("scope", "")]).unwrap();
    let session = Session::at(&desk);
    let (door, mut once) = (desk.door.clone(), true);
    session.trouble(move |method, _, _| {
        if method == "POST" && std::mem::take(&mut once) {
            door.admin_delete(&subnet(1)).unwrap();
        }
        None
    });
    let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    pass(&mut engine, &session, start);
    let made = desk.door.get(&subnet(1)).unwrap();
    assert_eq!((&made["annotation"], &made["name"]), (&json!(MARK), &json!("a::web-1")));
}

/// O5, R2: another cluster's mark on what bore ours is never taken back: two that each did so would never end.
#[test]
fn another_clusters_mark_is_not_taken_back() {
    let (desk, start) = (desk(), Instant::now());
    with_subnets(&desk, 1);
    let session = Session::at(&desk);
    let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    pass(&mut engine, &session, start);
    for (mark, restored) in [("orchestrator:terraform", true), ("orchestrator:aci-sync:you", false)] {
        desk.door.set(&subnet(1), "l3extSubnet", &[("annotation", mark)]).unwrap();
        assert!(session.tell(&mut engine));
        pass(&mut engine, &session, start + SECOND);
        session.tell(&mut engine);
        assert_eq!(desk.door.get(&subnet(1)).unwrap()["annotation"] == MARK, restored, "{mark}");
    }
}

/// R2, R3: a deletion that is told late, by a subscription that was given up, is a deletion all the same: what somebody
/// put there after it is not ours.
#[test]
fn a_late_deletion_is_not_forgotten() {
    let (desk, start) = (desk(), Instant::now());
    with_subnets(&desk, 1);
    let session = Session::at(&desk);
    let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    pass(&mut engine, &session, start);
    engine.subscriptions_lost(Some(&session));
    for (dn, class) in [(DN_E.to_owned(), "l3extInstP"), (subnet(1), "l3extSubnet")] {
        desk.door.admin_delete(&dn).unwrap();
        desk.door.set(&dn, class, &[("annotation", "orchestrator:terraform")]).unwrap();
    }
    assert!(!session.tell(&mut engine), "late events cost no pass");
    pass(&mut engine, &session, start + SECOND);
    for dn in [DN_E.to_owned(), subnet(1)] {
        assert_eq!(desk.door.get(&dn).unwrap()["annotation"], "orchestrator:terraform", "{dn}");
    }
}

/// D6: an EPG that is named while no pass can be made has its whole grace before it afterwards.
#[test]
fn a_grace_starts_over_unseen() {
    let (desk, start) = (desk(), Instant::now());
    with_subnets(&desk, 0);
    let session = Session::at(&desk);
    let engine = Engine::new(Owner::new("me", &[]), Rules::default(), Policy::Sync, 60 * SECOND);
    let mut engine = hears_lists(engine, Vec::new(), Vec::new(), start);
    pass(&mut engine, &session, start);
    engine.cluster_changed(Event::Upsert(deployment("web", "E", &[])), start + 50 * SECOND);
    let key = Key { namespace: "a".into(), name: "web".into() };
    engine.cluster_changed(Event::Gone { kind: Kind::Deployment, key }, start + 51 * SECOND);
    pass(&mut engine, &session, start + 61 * SECOND);
    assert!(desk.door.get(DN_E).is_some());
    pass(&mut engine, &session, start + 121 * SECOND);
    assert!(desk.door.get(DN_E).is_none());
}

/// O4, D3: a typo after a restart does not cost the memory of a foreign EEPG.
#[test]
fn a_typo_forgets_no_foreign_epg() {
    let (desk, start) = (desk(), Instant::now());
    desk.door.set(DN_E, "l3extInstP", &[("annotation", "orchestrator:terraform")]).unwrap();
    desk.door.set(&subnet(1), "l3extSubnet", &[("annotation", MARK), ("name", "a::web-1")]).unwrap();
    desk.door.set(TAG, "tagAnnotation", &[("value", "x")]).unwrap();
    let session = Session::at(&desk);
    let mut engine = listed(Policy::Sync, vec![deployment("web", "not/allowed", &[])], pods(1), start);
    pass(&mut engine, &session, start);
    assert!(desk.door.get(TAG).is_some() && desk.door.get(&subnet(1)).is_some());
    desk.door.admin_delete(DN_E).unwrap();
    session.tell(&mut engine);
    engine.cluster_changed(Event::Upsert(deployment("web", "E", &[])), start);
    pass(&mut engine, &session, start + SECOND);
    assert!(desk.door.get(DN_E).is_none());
}

/// O4, R5: where somebody deletes the tag again and again, the process itself remembers.
#[test]
fn a_tag_that_is_fought_over_is_remembered() {
    let (desk, start) = (desk(), Instant::now());
    desk.door.set(DN_E, "l3extInstP", &[]).unwrap();
    let session = Session::at(&desk);
    let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    for n in 0..8 {
        pass(&mut engine, &session, start + n * SECOND);
        desk.door.admin_delete(TAG).unwrap();
        engine.compare_all();
    }
    let tags = session.writes.borrow().iter().filter(|it| it.contains("tagAnnotation")).count();
    assert_eq!(tags, 7, "six repairs after the first");
    desk.door.admin_delete(DN_E).unwrap();
    pass(&mut engine, &session, start + 10 * SECOND);
    assert!(desk.door.get(DN_E).is_none());
}

/// R4, W8: an APIC that does not say what is ours, wherever it is, stops nothing that is named.
#[test]
fn a_forbidden_query_stops_nothing_else() {
    for class in ["tagAnnotation", "l3extInstP", "l3extSubnet"] {
        let (desk, start) = (desk(), Instant::now());
        let session = Session::at(&desk);
        session.trouble(move |_, target, _| {
            target.contains(&format!("class/{class}")).then(|| Error::Forbidden("no".to_owned()))
        });
        let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
        pass(&mut engine, &session, start);
        assert!(desk.door.get(&subnet(1)).is_some());
        assert!(engine.findings().iter().any(|it| it.code == Code::Unavailable));
    }
}

/// What people are told, in short.
fn told(engine: &mut Engine, session: &Session, now: Instant) -> Vec<String> {
    let told = pass(engine, session, now).news.into_iter();
    told.map(|it| format!("{} {} {} {}: {}", it.reason, it.about.kind, it.about.key, it.about.uid, it.note)).collect()
}

/// K5: that a Deployment is on the fabric is told once, and so is that nothing of it is left; a restart has nothing to
/// tell, and neither has a Pod that comes or goes.
#[test]
fn what_was_done_is_told_once() {
    const SYNCED: &str = "is on the fabric; subnets in it:";
    let (desk, now) = (desk(), Instant::now());
    let session = Session::at(&desk);
    let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], Vec::new(), now);
    assert_eq!(told(&mut engine, &session, now), [""; 0], "an EPG without an address serves nobody yet");
    engine.cluster_changed(Event::Upsert(pod("web", 1, "10.0.0.1")), now);
    assert_eq!(told(&mut engine, &session, now), [format!("Synced Deployment a/web web: {DN_E} {SYNCED} 1")]);
    engine.cluster_changed(Event::Upsert(pod("web", 2, "10.0.0.2")), now);
    assert_eq!(told(&mut engine, &session, now), [""; 0]);

    // After a restart too: what is there was made before.
    let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(2), now);
    assert_eq!(told(&mut engine, &session, now), [""; 0]);
    engine.cluster_changed(Event::Upsert(deployment("late", "E", &[])), now);
    engine.cluster_changed(Event::Upsert(pod("late", 3, "10.0.0.3")), now);
    assert_eq!(told(&mut engine, &session, now), [format!("Synced Deployment a/late late: {DN_E} {SYNCED} 3")]);

    // A move is told as what it comes to.
    engine.cluster_changed(Event::Upsert(deployment("late", "F", &[])), now);
    let dn_f = DN_E.replace("-E", "-F");
    assert_eq!(told(&mut engine, &session, now), [format!("Synced Deployment a/late late: {dn_f} {SYNCED} 1")]);
    engine.cluster_changed(Event::Upsert(deployment("late", "E", &[])), now);
    assert_eq!(told(&mut engine, &session, now).len(), 1);

    for (name, rest) in [
        ("web", format!("nothing of its own is left in {DN_E}, which stays")),
        ("late", format!("{DN_E} is gone from the fabric")),
    ] {
        engine.cluster_changed(Event::Gone { kind: Kind::Deployment, key: Key::new("a", name) }, now);
        assert_eq!(told(&mut engine, &session, now), [format!("Released Deployment a/{name} {name}: {rest}")]);
        assert_eq!(told(&mut engine, &session, now), [""; 0]);
    }
}

/// K5: nothing is called released while something is still there, be it the EPG or a subnet in a shared one.
#[test]
fn what_stays_is_not_released() {
    for others in [vec![], vec![deployment("other", "E", &[])]] {
        let (desk, now) = (desk(), Instant::now());
        let session = Session::at(&desk);
        let deployments = [vec![deployment("web", "E", &[])], others].concat();
        let mut engine = listed(Policy::UpsertOnly, deployments.clone(), pods(1), now);
        assert_eq!(told(&mut engine, &session, now).len(), deployments.len());
        engine.cluster_changed(Event::Gone { kind: Kind::Deployment, key: Key::new("a", "web") }, now);
        assert_eq!(told(&mut engine, &session, now), [""; 0]);
        assert_eq!(desk.door.subnets(DN_E).len(), 1);
    }
}

/// K5: a finding about an EPG is told when there is one; how many of its addresses it concerns changes with each Pod.
#[test]
fn a_finding_that_goes_on_is_no_news() {
    let (desk, now) = (desk(), Instant::now());
    desk.door.set("uni/tn-T/out-L/instP-X", "l3extInstP", &[]).unwrap();
    for n in 1..=2 {
        desk.door.set(&format!("uni/tn-T/out-L/instP-X/extsubnet-[10.0.0.{n}/32]"), "l3extSubnet", &[]).unwrap();
    }
    let session = Session::at(&desk);
    let mut engine = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), now);
    for count in [1, 0] {
        let told = told(&mut engine, &session, now);
        assert_eq!(told.len(), count, "{told:?}");
        assert!(told.iter().all(|it| it.starts_with("HeldByForeign Deployment a/web web: uni/tn-T/out-L/instP-E: ")));
        let text = engine.findings().iter().map(|it| it.text.clone()).collect::<String>();
        assert_eq!(text.contains("2 subnets"), count == 0, "{text}");
        engine.cluster_changed(Event::Upsert(pod("web", 2, "10.0.0.2")), now);
    }
}

/// K5: a finding is told of each Deployment or Service that it concerns when it appears; what somebody changed about it
/// is told again, what merely goes on is not.
#[test]
fn findings_are_told_to_those_concerned() {
    let (desk, now) = (Desk::new(Quirks::default()), Instant::now());
    desk.door.setup_tenant("T", "V", &[]).unwrap();
    let session = Session::at(&desk);
    let mut engine = listed(Policy::Sync, vec![deployment("one", "E", &[]), deployment("two", "F", &[])], pods(1), now);
    let missing = |name: &str| {
        format!("L3outMissing Deployment a/{name} {name}: uni/tn-T/out-L: there is no such L3Out; it is waited for")
    };
    assert_eq!(told(&mut engine, &session, now), [missing("one"), missing("two")]);
    engine.cluster_changed(Event::Upsert(deployment("three", "F", &[])), now);
    assert_eq!(told(&mut engine, &session, now), [missing("three")], "the others know");

    let annotated = |text: &str| {
        let annotations = json!({"aci.haystacknetworks.com/l3o": text});
        let json = json!({"metadata": {"namespace": "a", "name": "bad", "uid": "u", "annotations": annotations}});
        Event::Upsert(Object::decode(Kind::Deployment, json.to_string().as_bytes()).unwrap())
    };
    for (text, count) in [("{", 1), ("{", 0), ("[]", 1), ("{", 1)] {
        engine.cluster_changed(annotated(text), now);
        let told = told(&mut engine, &session, now);
        assert_eq!(told.len(), count, "{text}: {told:?}");
        assert!(
            told.iter().all(|it| it.starts_with("InvalidAnnotation Deployment a/bad u: its annotation ")),
            "{told:?}"
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
        let object = Object::decode(kind, object.to_string().as_bytes()).unwrap();
        engine.cluster_changed(Event::Upsert(object), now);
    }
    let told = told(&mut engine, &session, now);
    assert!(told.len() == 1 && told[0].starts_with("HostnameOnly Service a/lb s: its load balancer"), "{told:?}");
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
