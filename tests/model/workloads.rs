//! G1, G2: workloads of three kinds, of which some are watched: equal names, replacements, incremental computation, what
//! people read of them. What is desired of them is in `stories/workloads.txt`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use aci_sync::kube::{Event, objects};
use aci_sync::model::desired::{Vrf, desired_state};
use aci_sync::model::dn::L3outDn;
use aci_sync::model::explain::{Explanation, LookedAt, Subject, Verdict};
use aci_sync::model::inventory::{Changed, Inventory};
use aci_sync::model::kubernetes::{Key, Kind, Object, Workload};
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::rules::{Policy, Rules};
use aci_sync::reconcile::Reconciler;
use serde_json::{Value, json};
use sim::apic::InMemoryApic;

use crate::fixtures::{DN_E, SECOND, Session, apic, epgs, reconcile};

const WORKLOADS: [Kind; 3] = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet];

fn decode(kind: Kind, json: &Value) -> Object {
    objects::decode(kind, json.to_string().as_bytes()).unwrap()
}

/// A workload `a/{name}` that names an EPG, or has an annotation that is not valid.
fn workload(kind: Kind, name: &str, epg: &str) -> Object {
    let value = match epg {
        "" => "{".to_owned(),
        epg => json!({"tenant": "T", "l3out": "L", "epg": epg}).to_string(),
    };
    let metadata = json!({"namespace": "a", "name": name, "uid": format!("{kind}-{name}"),
        "annotations": {"aci.haystacknetworks.com/l3o": value}});
    let status = json!({"replicas": i32::from(kind != Kind::DaemonSet),
        "currentNumberScheduled": i32::from(kind == Kind::DaemonSet)});
    let template = json!({"metadata": {"labels": {"app": name}}});
    decode(kind, &json!({"metadata": metadata, "spec": {"template": template}, "status": status}))
}

/// A Pod of `a/{of}`.
fn pod(kind: Kind, of: &str, name: &str, address: &str) -> Object {
    let mut labels = json!({"app": of});
    let (owner, owner_name) = if kind == Kind::Deployment {
        labels["pod-template-hash"] = json!("5d9c7");
        ("ReplicaSet".to_owned(), format!("{of}-5d9c7"))
    } else {
        labels["controller-revision-hash"] = json!(format!("{of}-5d9c7"));
        (kind.to_string(), of.to_owned())
    };
    let owners = json!([{"apiVersion": "apps/v1", "kind": owner, "name": owner_name, "uid": "o", "controller": true}]);
    let metadata = json!({"namespace": "a", "name": name, "uid": name, "labels": labels, "ownerReferences": owners});
    decode(Kind::Pod, &json!({"metadata": metadata, "status": {"phase": "Running", "podIPs": [{"ip": address}]}}))
}

fn id(kind: Kind) -> Workload {
    Workload { key: Key::new("a", "web"), kind }
}

fn kinds(workloads: &[Kind]) -> Vec<Kind> {
    Kind::ALL.into_iter().filter(|it| !it.is_workload() || workloads.contains(it)).collect()
}

/// A reconciler that watches these kinds, has listed them, and has heard of these objects. What is about other kinds does not
/// reach it, and Pods come as the client hands them on.
fn reconciler(workloads: &[Kind], policy: Policy, all: Vec<Object>, now: Instant) -> Reconciler {
    let rules = Rules { kinds: kinds(workloads), ..Rules::default() };
    let mut reconciler = Reconciler::new(OwnerIdentity::new("me", &[]), rules.clone(), policy, Duration::ZERO);
    for kind in rules.kinds.iter().copied() {
        let mut objects: Vec<Object> = all.iter().filter(|it| it.kind() == kind).cloned().collect();
        objects.iter_mut().for_each(|it| it.forget_unwatched_owner(&rules.kinds));
        reconciler.cluster_changed(Event::Listed { kind, objects }, now);
        reconciler.cluster_changed(Event::Live { kind }, now);
    }
    reconciler
}

/// G1, W1: only the kinds that are named have a view, and each of them has to be complete before anything is deleted.
#[test]
fn only_the_named_kinds_have_a_view() {
    let now = Instant::now();
    let mut inventory = Inventory::watching(&kinds(&[Kind::StatefulSet, Kind::DaemonSet]));
    assert_eq!(inventory.incomplete(now), [Kind::StatefulSet, Kind::DaemonSet, Kind::Pod, Kind::Service]);
    for kind in [Kind::StatefulSet, Kind::Pod, Kind::Service] {
        inventory.listed(kind, Vec::new(), now);
    }
    assert_eq!((inventory.incomplete(now), inventory.workloads_are_listed()), (vec![Kind::DaemonSet], false));
    inventory.listed(Kind::DaemonSet, Vec::new(), now);
    assert_eq!((inventory.incomplete(now), inventory.workloads_are_listed()), (vec![], true));
    assert_eq!(Inventory::default().kinds().collect::<Vec<_>>(), Kind::DEFAULT, "Deployments alone by default");
}

/// G2: a list, an event and an end of one kind concern that kind alone, whatever has the same name.
#[test]
fn equal_names_are_different_workloads() {
    let now = Instant::now();
    let mut inventory = Inventory::watching(&Kind::ALL);
    for kind in WORKLOADS {
        assert_eq!(inventory.upsert(workload(kind, "web", "E")), Changed::Everything);
        assert_eq!(inventory.upsert(workload(kind, "web", "E")), Changed::Nothing);
    }
    assert_eq!(inventory.managed.len(), 3);
    inventory.listed(Kind::StatefulSet, Vec::new(), now);
    assert!(inventory.managed.keys().eq([&id(Kind::Deployment), &id(Kind::DaemonSet)]));
    assert_eq!(inventory.gone(Kind::StatefulSet, &Key::new("a", "web")), Changed::Nothing);
    assert_eq!(inventory.gone(Kind::Deployment, &Key::new("a", "web")), Changed::Everything);
    assert!(inventory.managed.keys().eq([&id(Kind::DaemonSet)]));
}

/// G2, D3: a StatefulSet in place of a Deployment of its name inherits no binding, not even within one list.
#[test]
fn a_replacement_of_another_kind_inherits_no_binding() {
    let now = Instant::now();
    let mut inventory = Inventory::watching(&Kind::ALL);
    inventory.upsert(workload(Kind::Deployment, "web", "E"));
    inventory.upsert(workload(Kind::StatefulSet, "web", ""));
    assert_eq!(inventory.managed[&id(Kind::StatefulSet)].binding, None);
    inventory.upsert(workload(Kind::Deployment, "web", ""));
    assert!(inventory.managed[&id(Kind::Deployment)].binding.is_some(), "its own last one stays");
    inventory.listed(Kind::Deployment, Vec::new(), now);
    inventory.listed(Kind::StatefulSet, vec![workload(Kind::StatefulSet, "web", "")], now);
    assert_eq!(inventory.managed[&id(Kind::StatefulSet)].binding, None);
}

/// G2, R6: a Pod of any kind of workload changes its addresses and no more, and what is computed for them is what a full
/// computation gives, with equal names across kinds.
#[test]
fn pods_of_any_kind_change_their_addresses() {
    let (mut inventory, rules) = (Inventory::watching(&Kind::ALL), Rules::default());
    for (kind, epg) in WORKLOADS.into_iter().zip(["D", "S", "X"]) {
        inventory.upsert(workload(kind, "web", epg));
    }
    let vrf_of = |_: &L3outDn| Vrf::Known("uni/tn-T/ctx-V".to_owned());
    let full = |inventory: &Inventory| desired_state(inventory, &rules, &vrf_of, &BTreeSet::new());
    let mut desired = full(&inventory);
    let mut follow = |inventory: &Inventory, changed: Changed, in_epg: &str| {
        let Changed::Addresses(addresses) = changed else { panic!("{changed:?}") };
        let epgs = desired.update(inventory, &rules, &vrf_of, &addresses.into_iter().collect()).unwrap();
        assert_eq!(desired, full(inventory), "R6");
        assert_eq!(epgs.into_iter().map(|it| it.name.to_string()).collect::<Vec<_>>(), [in_epg]);
    };
    for (n, (kind, epg)) in WORKLOADS.into_iter().zip(["D", "S", "X"]).enumerate() {
        let of = |name: &str, host: usize| pod(kind, "web", name, &format!("10.0.{n}.{host}"));
        let first = inventory.upsert(of(&format!("p{n}"), 1));
        follow(&inventory, first, epg);
        let moved = inventory.upsert(of(&format!("p{n}"), 2));
        follow(&inventory, moved, epg);
    }
    let gone = inventory.gone(Kind::Pod, &Key::new("a", "p1"));
    follow(&inventory, gone, "S");
    // The same Pod name again, now of another kind of workload.
    let came = inventory.upsert(pod(Kind::DaemonSet, "web", "p1", "10.0.9.1"));
    follow(&inventory, came, "X");
}

/// G2, R6, S1: each Pod of a StatefulSet has a label of its own. One that comes changes no more than its addresses, although
/// a Service selects it by the labels of the template; more if a Service selects it by its own label.
#[test]
fn a_pod_with_labels_of_its_own_changes_its_addresses() {
    let mut inventory = Inventory::watching(&Kind::ALL);
    inventory.upsert(workload(Kind::StatefulSet, "web", "S"));
    let service = |name: &str, selector: Value| {
        let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        decode(
            Kind::Service,
            &json!({"metadata": {"namespace": "a", "name": name, "uid": name}, "status": status,
                "spec": {"type": "LoadBalancer", "selector": selector}}),
        )
    };
    let of = |n: usize| {
        let Object::Pod(mut pod) = pod(Kind::StatefulSet, "web", &format!("web-{n}"), &format!("10.0.0.{n}")) else {
            panic!()
        };
        let labels = [("app", "web".to_owned()), ("statefulset.kubernetes.io/pod-name", format!("web-{n}"))];
        pod.labels =
            labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect::<BTreeMap<_, _>>().into();
        Object::Pod(pod)
    };
    inventory.upsert(service("all", json!({"app": "web"})));
    let addresses = |n: usize| Changed::Addresses(vec![format!("10.0.0.{n}").parse().unwrap()]);
    assert_eq!([inventory.upsert(of(0)), inventory.upsert(of(1))], [addresses(0), addresses(1)]);
    inventory.upsert(service("second", json!({"statefulset.kubernetes.io/pod-name": "web-2"})));
    assert_eq!([inventory.upsert(of(2)), inventory.upsert(of(3))], [Changed::Everything, addresses(3)]);
    let mut gone = |n: usize| inventory.gone(Kind::Pod, &Key::new("a", &format!("web-{n}")));
    assert_eq!([gone(0), gone(2)], [addresses(0), Changed::Everything]);
}

/// G1, X3: of a Pod whose workload is of a kind that is not watched nothing is kept but what P5 needs.
#[test]
fn pods_of_other_kinds_cost_no_labels() {
    for (kind, is_kept) in [(Kind::Deployment, true), (Kind::StatefulSet, false), (Kind::DaemonSet, false)] {
        let mut object = pod(kind, "web", "p", "10.0.0.1");
        let Object::Pod(before) = object.clone() else { panic!() };
        assert_eq!(before.workload(), Some(id(kind)));
        object.forget_unwatched_owner(&Kind::DEFAULT);
        let Object::Pod(after) = object else { panic!() };
        assert_eq!((after.workload() == Some(id(kind)), !after.labels.is_empty()), (is_kept, is_kept), "{kind}");
        assert_eq!(after.addresses, before.addresses);
    }
}

/// G2, P1: a StatefulSet or DaemonSet whose status counts Pods and that has none is a finding of its own kind.
#[test]
fn missing_pods_are_those_of_the_kind() {
    let mut inventory = Inventory::watching(&Kind::ALL);
    WORKLOADS.into_iter().for_each(|kind| drop(inventory.upsert(workload(kind, "web", "E"))));
    inventory.upsert(pod(Kind::Deployment, "web", "p", "10.0.0.1"));
    assert_eq!(inventory.missing_pods(|_| true), BTreeSet::from([id(Kind::StatefulSet), id(Kind::DaemonSet)]));
    inventory.upsert(pod(Kind::DaemonSet, "web", "q", "10.0.0.2"));
    assert_eq!(inventory.missing_pods(|_| true), BTreeSet::from([id(Kind::StatefulSet)]));
}

fn notices(reconciler: &mut Reconciler, session: &Session, now: Instant) -> Vec<String> {
    let notices = reconcile(reconciler, session, now).notices.into_iter();
    notices.map(|it| format!("{} {} {} {}", it.reason, it.about.kind, it.about.key, it.about.uid)).collect()
}

/// G2, D6, K5: a Deployment is replaced by a StatefulSet of the same name and EPG: the EPG stays, the subnets change, and the
/// Events are on the right object.
#[test]
fn a_deployment_becomes_a_statefulset() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let all = vec![workload(Kind::Deployment, "web", "E"), pod(Kind::Deployment, "web", "web-1", "10.0.0.1")];
    let mut reconciler = reconciler(&WORKLOADS, Policy::Sync, all, now);
    assert_eq!(notices(&mut reconciler, &session, now), ["Synced Deployment a/web Deployment-web"]);
    let contract = json!({"fvRsCons": {"attributes": {"tnVzBrCPName": "web"}}});
    apic.admin.admin_post(DN_E, &contract).unwrap();
    let gone = |kind, name: &str| Event::Gone { kind, key: Key::new("a", name) };
    for event in [
        Event::Upsert(workload(Kind::StatefulSet, "web", "E")),
        gone(Kind::Deployment, "web"),
        gone(Kind::Pod, "web-1"),
        Event::Upsert(pod(Kind::StatefulSet, "web", "web-0", "10.0.0.2")),
    ] {
        reconciler.cluster_changed(event, now + SECOND);
    }
    let notices = notices(&mut reconciler, &session, now + SECOND);
    assert_eq!(notices, ["Synced StatefulSet a/web StatefulSet-web", "Released Deployment a/web Deployment-web"]);
    let subnets: Vec<String> = apic.admin.class("l3extSubnet").into_keys().collect();
    assert_eq!(subnets, [format!("{DN_E}/extsubnet-[10.0.0.2/32]")]);
    assert_eq!(apic.admin.class("fvRsCons").len(), 1, "the EPG was not created again");
}

/// G1, W1, I4: while a kind that is named is not listed nothing is deleted, and the workloads of the others get what is
/// theirs; when the list is there, it goes on.
#[test]
fn a_kind_without_a_list_keeps_deletions_back() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let all = || vec![workload(Kind::StatefulSet, "old", "OLD"), workload(Kind::Deployment, "web", "E")];
    reconcile(&mut reconciler(&WORKLOADS, Policy::Sync, all(), now), &session, now);
    assert_eq!(epgs(&apic), ["E", "OLD"]);
    let rules = Rules { kinds: Kind::ALL.into(), ..Rules::default() };
    let mut reconciler = Reconciler::new(OwnerIdentity::new("me", &[]), rules, Policy::Sync, Duration::ZERO);
    for kind in Kind::ALL.into_iter().filter(|it| *it != Kind::StatefulSet) {
        let is_new = kind == Kind::DaemonSet;
        let objects = if is_new { vec![workload(kind, "new", "NEW")] } else { Vec::new() };
        reconciler.cluster_changed(Event::Listed { kind, objects }, now);
        reconciler.cluster_changed(Event::Live { kind }, now);
    }
    reconcile(&mut reconciler, &session, now);
    assert_eq!(epgs(&apic), ["E", "NEW", "OLD"]);
    let kind = Kind::StatefulSet;
    reconciler.cluster_changed(Event::Listed { kind, objects: vec![workload(kind, "old", "OLD")] }, now + SECOND);
    reconcile(&mut reconciler, &session, now + SECOND);
    assert_eq!(epgs(&apic), ["NEW", "OLD"]);
}

/// G1, W4, I2: the flag is taken away and given back. With fewer kinds the EPG of the other kind goes as one that nothing
/// names, within the limit of the deletion guard; a restart with the same kinds writes nothing.
#[test]
fn a_kind_is_no_longer_named() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let all = || {
        let mut all = vec![workload(Kind::Deployment, "web", "E"), workload(Kind::StatefulSet, "web", "F")];
        all.push(pod(Kind::Deployment, "web", "web-1", "10.0.0.1"));
        all.extend((0..12).map(|n| pod(Kind::StatefulSet, "web", &format!("web-s{n}"), &format!("10.0.1.{n}"))));
        all
    };
    let restart = |workloads: &[Kind]| {
        let mut reconciler = reconciler(workloads, Policy::Sync, all(), now);
        reconcile(&mut reconciler, &session, now);
        reconciler
    };
    restart(&WORKLOADS);
    let (before, writes) = (apic.admin.class("l3extSubnet"), session.writes.borrow().len());
    assert_eq!(before.len(), 13);
    restart(&WORKLOADS);
    let mut fewer = restart(&[Kind::Deployment]);
    assert_eq!(apic.admin.class("l3extSubnet"), before, "blocked: 13 of 15");
    assert_eq!(session.writes.borrow().len(), writes, "I2");
    assert!(fewer.findings().iter().any(|it| it.to_string().starts_with("DeletionsBlocked")));
    restart(&WORKLOADS);
    assert_eq!(session.writes.borrow().len(), writes, "I2");
    assert!(fewer.approve_deletions());
    reconcile(&mut fewer, &session, now + SECOND);
    assert_eq!((epgs(&apic), apic.admin.class("l3extSubnet").len()), (vec!["E".to_owned()], 1));
    restart(&WORKLOADS);
    assert!(apic.admin.class("l3extSubnet").keys().eq(before.keys()));
}

fn explain(reconciler: &Reconciler, subject: &str) -> Vec<Explanation> {
    let more = LookedAt { policy: Policy::Sync, unneeded: &[], subnets: &[], faults: None };
    reconciler.explain(&Subject::parse(subject).unwrap(), &more, Instant::now())
}

fn one_look(apic: &InMemoryApic, workloads: &[Kind]) -> Reconciler {
    let now = Instant::now();
    let mut all: Vec<Object> =
        WORKLOADS.into_iter().zip(["D", "S", "X"]).map(|(it, epg)| workload(it, "web", epg)).collect();
    all.push(pod(Kind::StatefulSet, "web", "web-0", "10.0.0.1"));
    let mut reconciler = reconciler(workloads, Policy::Sync, all, now);
    reconcile(&mut reconciler, &Session::at(apic), now);
    reconciler
}

/// T7, G2: a name alone means each object of that name, with a kind it is one; a Pod is explained by the workload of its own
/// kind.
#[test]
fn explanations_name_the_kind() {
    let apic = apic();
    let reconciler = one_look(&apic, &WORKLOADS);
    let subjects = |subject: &str| -> Vec<String> {
        explain(&reconciler, subject).iter().map(|it| format!("{} {}", it.subject.text(), it.verdict.name())).collect()
    };
    assert_eq!(
        subjects("a/web"),
        ["Deployment a/web pending", "StatefulSet a/web in_sync", "DaemonSet a/web pending"],
        "those whose status counts Pods that are not there wait for them"
    );
    assert_eq!(subjects("statefulset/a/web"), ["StatefulSet a/web in_sync"]);
    assert_eq!(subjects("DaemonSet/a/web"), ["DaemonSet a/web pending"]);
    assert_eq!(
        Subject::parse("job/a/web"),
        Err("has a kind that is not deployment, statefulset, daemonset, pod or service")
    );
    let of_pod = serde_json::to_value(&explain(&reconciler, "pod/a/web-0")[0]).unwrap();
    assert_eq!(of_pod["workload"], "StatefulSet a/web");
    assert_eq!(
        (&of_pod["epg"]["workloads"], &of_pod["epg"]["workloads_total"]),
        (&json!(["StatefulSet a/web"]), &json!(1))
    );
    let unknown = &explain(&reconciler, "a/other")[0];
    assert_eq!(
        (unknown.verdict, unknown.summary.as_str()),
        (Verdict::Unknown, "no Deployment, StatefulSet, DaemonSet, Pod or Service of this name in the namespace a")
    );
}

/// T7, G1: what is asked about a kind that is not watched is answered with that.
#[test]
fn explanations_of_kinds_that_are_not_watched() {
    let apic = apic();
    let reconciler = one_look(&apic, &[Kind::Deployment]);
    let of = |subject: &str| {
        let it = explain(&reconciler, subject).remove(0);
        (it.verdict, it.summary)
    };
    let text = "objects of kind StatefulSet are not watched: --workloads does not name them";
    assert_eq!(of("statefulset/a/web"), (Verdict::NotManaged, text.to_owned()));
    assert_eq!(of("pod/a/web-0"), (Verdict::NotManaged, "it belongs to no workload that is watched".to_owned()));
    let text = "no Deployment, Pod or Service of this name in the namespace a; not watched (--workloads): StatefulSet and DaemonSet";
    assert_eq!(of("a/db"), (Verdict::Unknown, text.to_owned()));
}
