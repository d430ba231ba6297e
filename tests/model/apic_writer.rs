//! W2, W5, W7: what the writer sends, byte by byte, and what it refuses to send.

use std::cell::RefCell;

use aci_sync::apic::Error;
use aci_sync::apic::traits::{ApicWrite, ShouldSend, WriteAnswer};
use aci_sync::apic::writer::request::WriteRequest;
use aci_sync::apic::writer::{Confirmation, Refusal, Writer};
use aci_sync::model::cache::FabricCache;
use aci_sync::model::cause::Cause;
use aci_sync::model::dn::{EpgDn, L3outDn, Name, Prefix};
use aci_sync::model::kubernetes::{Key, Kind, Workload};
use aci_sync::model::mo::{Attributes, Mo, MoChange, Status};
use aci_sync::model::observed::Subnet;
use aci_sync::model::owner::{OwnerIdentity, Ownership};
use aci_sync::model::plan::{Change, RequestShape, Transaction};
use aci_sync::model::rules::Policy;
use aci_sync::model::scope::Scope;
use aci_sync::model::source::Source;
use serde_json::{Value, json};

/// Accepts every write and records it.
#[derive(Default)]
struct Recorder(RefCell<Vec<(String, Value)>>, Vec<MoChange>);

impl ApicWrite for Recorder {
    fn write(&self, request: &WriteRequest, should_send: &ShouldSend<'_>) -> Result<WriteAnswer, Error> {
        if !should_send() {
            return Err(Error::NotSent);
        }
        let body = request.body().map_or(Value::Null, |it| serde_json::to_value(it).unwrap());
        self.0.borrow_mut().push((format!("{} {}", request.method(), request.dn()), body));
        Ok(WriteAnswer::Changes(self.1.clone()))
    }
}

fn l3out() -> L3outDn {
    L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() }
}

fn epg(name: &str) -> EpgDn {
    l3out().epg(Name::object(name).unwrap())
}

/// An L3Out with an EPG for each annotation; each EPG holds a subnet for each annotation.
fn fabric() -> FabricCache {
    let marks =
        [("OURS", "orchestrator:aci-sync:me"), ("OLD", "orchestrator:aci-k8-haystack"), ("NONE", ""), ("OTHER", "x")];
    let mo = |class: &str, dn: String, annotation: &str, name: &str| {
        let attributes = Attributes {
            annotation: Some(annotation.into()),
            name: Some(name.into()),
            scope: Some("import-security".into()),
            ..Attributes::default()
        };
        Mo { class: class.to_owned(), dn, attributes }
    };
    let mut mos = vec![mo("l3extOut", l3out().to_string(), "", "L")];
    for (name, annotation) in marks {
        mos.push(mo("l3extInstP", epg(name).to_string(), annotation, name));
        for (n, (_, annotation)) in marks.iter().enumerate() {
            mos.push(mo("l3extSubnet", epg(name).subnet(&format!("10.0.0.{n}/32")), annotation, "a::b"));
        }
    }
    let tag = l3out().tag("aci-sync:me:OTHER");
    mos.push(Mo { class: "tagAnnotation".to_owned(), dn: tag, attributes: Attributes::default() });
    mos.push(mo("l3extInstP", epg("PURE").to_string(), marks[0].1, "PURE"));
    mos.push(mo("l3extSubnet", epg("PURE").subnet("10.1.0.0/32"), marks[0].1, "a::b"));
    let mut fabric = FabricCache::new(OwnerIdentity::new("me", &[]));
    fabric.put_l3out(&l3out(), &mos, false);
    fabric
}

fn prefix(n: u8) -> Prefix {
    Prefix::host([10, 0, 0, n].into())
}

fn before(n: u8) -> Box<Subnet> {
    Box::new(fabric().epg(&epg("OURS")).unwrap().subnets[&prefix(n)].clone())
}

fn create(n: u8) -> Change {
    let source = Source { is_pod: true, key: Key::new("a", "b") };
    Change::CreateSubnet { prefix: prefix(n), scope: Scope::parse("import-security"), source, why: Cause::Desired }
}

fn delete(n: u8, moves: bool) -> Change {
    Change::DeleteSubnet {
        prefix: prefix(n),
        before: before(n),
        moves_to: moves.then(|| Box::new(epg("PURE"))),
        why: Cause::Undesired,
    }
}

fn repair(n: u8, mark: bool) -> Change {
    let scope = Some(Scope::parse("import-security,shared-rtctrl"));
    let name = (n != 2).then(|| "a::c".to_owned());
    Change::RepairSubnet { prefix: prefix(n), before: before(n), set_owner: mark, name, scope, why: Vec::new() }
}

fn forget(key: &str) -> Change {
    Change::DeleteTag { tag: l3out().tag(key).into() }
}

fn transaction(name: &str, shape: RequestShape, changes: Vec<Change>) -> Transaction {
    Transaction { epg: epg(name), shape, changes }
}

fn send(policy: Policy, transaction: &Transaction, fabric: &FabricCache) -> Result<(String, Value), Refusal> {
    let recorder = Recorder::default();
    Writer::new(policy).send(&recorder, fabric, transaction, &|| true)?;
    let mut sent = recorder.0.into_inner();
    assert_eq!(sent.len(), 1);
    Ok(sent.remove(0))
}

/// W2: the form of every request; whatever a request can create carries the owner annotation.
#[test]
fn requests() {
    let mark = "orchestrator:aci-sync:me";
    let made = json!({"l3extSubnet": {"attributes": {"ip": "10.0.0.9/32", "name": "a::b", "scope": "import-security",
        "annotation": mark, "status": "created"}}});
    let workloads = vec![Workload { kind: Kind::Deployment, key: Key::new("a", "web") }];
    for (transaction, target, body) in [
        (
            transaction(
                "NEW",
                RequestShape::EpgTree,
                vec![Change::CreateEpg { workloads, why: Cause::Desired }, create(9)],
            ),
            "POST uni/tn-T/out-L",
            json!({"l3extInstP": {"attributes": {"name": "NEW", "annotation": mark, "status": "created"}, "children": [made]}}),
        ),
        (
            transaction("OURS", RequestShape::EpgTree, vec![create(9), repair(0, false), delete(0, false)]),
            "POST uni/tn-T/out-L",
            json!({"l3extInstP": {"attributes": {"name": "OURS", "annotation": mark}, "children": [
                made,
                {"l3extSubnet": {"attributes": {"ip": "10.0.0.0/32", "name": "a::c", "annotation": mark,
                    "scope": "import-security,shared-rtctrl"}}},
                {"l3extSubnet": {"attributes": {"ip": "10.0.0.0/32", "status": "deleted"}}},
            ]}}),
        ),
        (
            transaction(
                "OLD",
                RequestShape::EpgTree,
                vec![Change::SetEpgOwner { from: Ownership::Legacy, why: Cause::TakenOver }, repair(1, true)],
            ),
            "POST uni/tn-T/out-L",
            json!({"l3extInstP": {"attributes": {"name": "OLD", "annotation": mark}, "children": [
                {"l3extSubnet": {"attributes": {"ip": "10.0.0.1/32", "annotation": mark, "name": "a::c",
                    "scope": "import-security,shared-rtctrl"}}},
            ]}}),
        ),
        (
            transaction("PURE", RequestShape::EpgTree, vec![Change::DeleteEpg { subnets: 1, why: Cause::Unnamed }]),
            "POST uni/tn-T/out-L",
            json!({"l3extInstP": {"attributes": {"name": "PURE", "status": "deleted"}}}),
        ),
        (
            transaction("OTHER", RequestShape::OneSubnet, vec![create(9)]),
            "POST uni/tn-T/out-L/instP-OTHER",
            made.clone(),
        ),
        (
            transaction("OTHER", RequestShape::OneSubnet, vec![delete(0, false)]),
            "DELETE uni/tn-T/out-L/instP-OTHER/extsubnet-[10.0.0.0/32]",
            Value::Null,
        ),
        (
            transaction("NONE", RequestShape::Tag, vec![Change::CreateTag]),
            "POST uni/tn-T/out-L",
            json!({"tagAnnotation": {"attributes": {"key": "aci-sync:me:NONE",
                "value": "foreign external EPG, used by workloads", "status": "created"}}}),
        ),
        (
            transaction("OTHER", RequestShape::Tag, vec![forget("aci-sync:me:OTHER")]),
            "DELETE uni/tn-T/out-L/annotationKey-[aci-sync:me:OTHER]",
            Value::Null,
        ),
    ] {
        assert_eq!(send(Policy::Sync, &transaction, &fabric()).unwrap(), (target.to_owned(), body));
    }
}

/// W5, O1: a plan that is wrong about the owner of an object is refused.
#[test]
fn writes_to_foreign_objects_are_refused() {
    use RequestShape::{EpgTree, OneSubnet, Tag};
    for (epg, shape, changes) in [
        ("OTHER", EpgTree, vec![create(9)]),
        ("NONE", EpgTree, vec![create(9)]),
        ("OLD", EpgTree, vec![create(9)]),
        ("OTHER", EpgTree, vec![Change::SetEpgOwner { from: Ownership::Foreign, why: Cause::OwnerChanged }]),
        ("OTHER", OneSubnet, vec![create(8), create(9)]),
        ("GONE", OneSubnet, vec![create(9)]),
        ("GONE", EpgTree, vec![create(9)]),
        ("GONE", EpgTree, vec![delete(0, false)]),
        ("OURS", EpgTree, vec![Change::CreateEpg { workloads: vec![], why: Cause::Desired }]),
        ("OURS", EpgTree, vec![create(0)]),
        ("OURS", EpgTree, vec![delete(1, false)]),
        ("OURS", EpgTree, vec![delete(2, true)]),
        ("OURS", EpgTree, vec![delete(3, true)]),
        ("OURS", EpgTree, vec![repair(1, false)]),
        ("OURS", EpgTree, vec![repair(3, true)]),
        ("OURS", EpgTree, vec![Change::DeleteEpg { subnets: 1, why: Cause::Unnamed }]),
        ("OTHER", EpgTree, vec![Change::DeleteEpg { subnets: 0, why: Cause::Unnamed }]),
        ("OTHER", OneSubnet, vec![delete(3, false)]),
        ("OTHER", Tag, vec![forget("aci-sync:other:OTHER")]),
        ("NONE", Tag, vec![forget("aci-sync:me:OTHER")]),
        ("OTHER", Tag, vec![create(9)]),
        ("OTHER", OneSubnet, vec![forget("aci-sync:me:OTHER")]),
        ("OURS", EpgTree, vec![create(9), Change::CreateTag]),
    ] {
        let transaction = transaction(epg, shape, changes);
        let sent = send(Policy::Sync, &transaction, &fabric());
        assert!(matches!(sent, Err(Refusal::WrongPlan(_))), "{transaction:?}: {sent:?}");
    }
}

/// W7: nothing is written into an EPG that was not read in the same reconcile.
#[test]
fn changes_need_a_fresh_read() {
    let mut stale = fabric();
    stale.begin_reconcile();
    for change in [delete(0, false), repair(0, false), create(9)] {
        let transaction = transaction("OURS", RequestShape::EpgTree, vec![change]);
        assert!(matches!(send(Policy::Sync, &transaction, &stale), Err(Refusal::WrongPlan(_))), "{transaction:?}");
    }
}

/// A6: what an answer shows of a transaction decides whether the EPG has to be read.
#[test]
fn an_incomplete_answer_requires_a_read() {
    use Status::{Created, Deleted, Modified};
    let own = epg("OURS").to_string();
    let at = |n: u8| epg("OURS").subnet(&format!("10.0.0.{n}/32"));
    let transaction = transaction("OURS", RequestShape::EpgTree, vec![create(9), repair(0, false)]);
    for (answer, expected) in [
        (vec![(Created, at(9)), (Modified, at(0))], Confirmation::Complete),
        (vec![(Modified, own.clone()), (Created, at(9)), (Modified, at(0))], Confirmation::Complete),
        (vec![(Created, at(9))], Confirmation::Partial),
        (vec![], Confirmation::Partial),
        (vec![(Created, own.clone()), (Created, at(9)), (Modified, at(0))], Confirmation::Recreated),
        (vec![(Created, at(9)), (Created, at(0))], Confirmation::Recreated),
        (vec![(Created, at(9)), (Modified, epg("OTHER").subnet("10.0.0.0/32"))], Confirmation::Partial),
        (vec![(Created, at(9)), (Deleted, at(0))], Confirmation::Complete),
    ] {
        let changes = answer.iter().map(|(status, dn)| MoChange {
            status: *status,
            mo: Mo { class: "l3extSubnet".to_owned(), dn: dn.clone(), attributes: Attributes::default() },
        });
        let recorder = Recorder(RefCell::default(), changes.collect());
        let shown = Writer::new(Policy::Sync).send(&recorder, &fabric(), &transaction, &|| true);
        assert_eq!(shown.unwrap().confirmation, expected, "{answer:?}");
    }
}

/// K4: leadership is checked last, and nothing is sent after a no.
#[test]
fn lost_leadership_stops_a_write() {
    let recorder = Recorder::default();
    let creates = transaction("OURS", RequestShape::EpgTree, vec![create(9)]);
    let sent = Writer::new(Policy::Sync).send(&recorder, &fabric(), &creates, &|| false);
    assert!(matches!(sent, Err(Refusal::TooLate)));
    assert!(recorder.0.into_inner().is_empty());
}

/// W5: the writer keeps to the policy.
#[test]
fn policies() {
    let creates = transaction("OURS", RequestShape::EpgTree, vec![create(9)]);
    let deletes = transaction("OURS", RequestShape::EpgTree, vec![create(9), delete(0, false)]);
    send(Policy::UpsertOnly, &creates, &fabric()).unwrap();
    for (policy, transaction) in
        [(Policy::UpsertOnly, &deletes), (Policy::Observe, &creates), (Policy::Observe, &deletes)]
    {
        assert!(matches!(send(policy, transaction, &fabric()), Err(Refusal::Policy)), "{policy:?}");
    }
}
