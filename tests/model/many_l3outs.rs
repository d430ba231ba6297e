//! X3, R4, W4: L3Outs that one namespace names by the thousand delay no other namespace, by counts of requests.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::fixtures::{
    DN_E, MARK, SECOND, Session, apic, deployment, hears_lists, naming, pod, pods, reconcile, subnet, with_subnets,
};
use aci_sync::apic::Error;
use aci_sync::kube::Event;
use aci_sync::model::finding::Code;
use aci_sync::model::kubernetes::Object;
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::rules::Policy;
use aci_sync::model::rules::Rules;
use aci_sync::reconcile::Reconciler;

/// How many L3Outs the hostile namespace names.
const MANY: usize = 300;

/// The most reads that another namespace's change waits for: those of one reconcile.
const FEW: usize = 40;

/// Deployments of a namespace that comes before all others, which name L3Outs that are not there.
fn hostile() -> Vec<Object> {
    (0..MANY).map(|n| naming("0-hostile", &format!("d{n}"), &format!("T/A{n:04}/E"))).collect()
}

/// A reconciler for which namespaces may have this number of EPGs.
fn reconciler(max_epgs: Option<usize>, deployments: Vec<Object>, pods: Vec<Object>, now: Instant) -> Reconciler {
    let rules = Rules { max_epgs, ..Rules::default() };
    hears_lists(
        Reconciler::new(OwnerIdentity::new("me", &[]), rules, Policy::Sync, Duration::ZERO),
        deployments,
        pods,
        now,
    )
}

/// The requests that a session gets from now on: method and target.
fn requests(session: &Session) -> Rc<RefCell<Vec<String>>> {
    let requests = Rc::new(RefCell::new(Vec::new()));
    let seen = requests.clone();
    session.trouble(move |method, target, _| {
        seen.borrow_mut().push(format!("{method} {target}"));
        None
    });
    requests
}

/// How many requests come before the first one that contains a text.
fn before(requests: &[String], text: &str) -> usize {
    requests.iter().position(|it| it.contains(text)).unwrap_or_else(|| panic!("no {text} in {requests:#?}"))
}

/// Reconciles until all is read; how many.
fn until_read(reconciler: &mut Reconciler, session: &Session, now: Instant) -> usize {
    (1..=MANY).find(|_| reconcile(reconciler, session, now).unread == 0).expect("an end")
}

/// X3, R4: at the start, at a change and at a full sync another namespace's L3Out is read first and its changes are
/// sent a few reads later. All L3Outs are read in the end, each once.
#[test]
fn one_namespace_delays_no_other() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut deployments = hostile();
    deployments.push(deployment("web", "E", &[]));
    let mut reconciler = reconciler(None, deployments, pods(1), now);

    let seen = requests(&session);
    let report = reconcile(&mut reconciler, &session, now);
    assert!(report.unread > MANY - FEW && report.unfinished, "{} unread", report.unread);
    assert!(before(&seen.borrow(), "POST /api/mo/uni/tn-T/out-L") <= FEW);
    assert_eq!(apic.admin.subnets(DN_E).len(), 1);

    reconciler.cluster_changed(Event::Upsert(pod("web", 2, "10.0.0.2")), now);
    let seen_later = requests(&session);
    reconcile(&mut reconciler, &session, now);
    assert!(before(&seen_later.borrow(), "POST /api/mo/uni/tn-T/out-L") <= FEW);
    let reconciles = until_read(&mut reconciler, &session, now);
    assert!(reconciles < MANY / 10, "{reconciles} reconciles");
    let mut reads: BTreeMap<String, usize> = BTreeMap::new();
    for request in seen.borrow().iter().chain(seen_later.borrow().iter()).filter(|it| it.contains("out-A")) {
        *reads.entry(request.clone()).or_default() += 1;
    }
    assert_eq!((reads.len(), reads.values().max()), (MANY, Some(&1)));
    let missing = reconciler.findings().iter().filter(|it| it.code == Code::L3OutNotFound).count();
    assert_eq!(missing, 21, "twenty of the namespace, and one that counts the rest");

    apic.admin.set(&subnet(1), "l3extSubnet", &[("name", "drifted")]).unwrap();
    reconciler.cluster_changed(Event::Upsert(pod("web", 3, "10.0.0.3")), now);
    reconciler.request_full_sync();
    let seen = requests(&session);
    assert!(reconcile(&mut reconciler, &session, now).unread > 0);
    assert!(before(&seen.borrow(), "POST /api/mo/uni/tn-T/out-L") <= FEW);
    assert_eq!(apic.admin.subnets(DN_E).len(), 3);
    until_read(&mut reconciler, &session, now);
    assert_eq!(seen.borrow().iter().filter(|it| it.contains("out-A")).count(), MANY, "the full sync read all of them");
    assert!(!reconcile(&mut reconciler, &session, now).unfinished);
}

/// X3: a namespace that names its first L3Out while those of another one are still being read does not wait for them.
#[test]
fn namespaces_take_turns() {
    let (apic, now) = (apic(), Instant::now());
    apic.admin.setup_tenant("T", "V", &["L", "Z"]).unwrap();
    let session = Session::at(&apic);
    let mut reconciler = reconciler(None, hostile(), Vec::new(), now);
    assert!(reconcile(&mut reconciler, &session, now).unread > 0);
    reconciler.cluster_changed(Event::Upsert(naming("z", "web", "T/Z/E")), now);
    let seen = requests(&session);
    assert!(reconcile(&mut reconciler, &session, now).unread > 0);
    assert!(before(&seen.borrow(), "GET /api/mo/uni/tn-T/out-Z") < 5);
    assert!(before(&seen.borrow(), "POST /api/mo/uni/tn-T/out-Z") <= FEW);
}

/// W4: a full sync counts its deletions before the first one goes, however many L3Outs are still to be read: what is
/// ours is read first. If the APIC does not say what is ours, nothing is deleted before all is read.
#[test]
fn deletions_are_counted_before_all_is_read() {
    for is_refused in [false, true] {
        let (apic, now) = (apic(), Instant::now());
        with_subnets(&apic, 40);
        let session = Session::at(&apic);
        session.trouble(move |_, target, _| {
            (is_refused && target.starts_with("/api/class")).then(|| Error::Forbidden("no".to_owned()))
        });
        let mut deployments = hostile();
        deployments.push(deployment("web", "E", &[]));
        let mut reconciler = reconciler(None, deployments, pods(1), now);
        reconcile(&mut reconciler, &session, now);
        assert_eq!(reconciler.blocked_deletions().len(), if is_refused { 0 } else { 39 });
        until_read(&mut reconciler, &session, now);
        reconcile(&mut reconciler, &session, now + SECOND);
        assert_eq!(
            (reconciler.blocked_deletions().len(), apic.admin.subnets(DN_E).len()),
            (39, 40),
            "refused: {is_refused}"
        );
    }
}

/// W1, W4: a few deletions go on while L3Outs are still to be read.
#[test]
fn a_few_deletions_do_not_wait_for_all_reads() {
    let (apic, now) = (apic(), Instant::now());
    with_subnets(&apic, 2);
    let session = Session::at(&apic);
    let mut deployments = hostile();
    deployments.push(deployment("web", "E", &[]));
    let mut reconciler = reconciler(None, deployments, pods(1), now);
    assert!(reconcile(&mut reconciler, &session, now).unread > 0);
    assert_eq!(apic.admin.subnets(DN_E).len(), 1);
}

/// W6: an L3Out is not read for the sake of EPGs that are beyond what their namespace may have. One that holds such an
/// EPG of ours is, and the EPG is served also after a start.
#[test]
fn epgs_beyond_the_quota_cost_no_read() {
    let (apic, now) = (apic(), Instant::now());
    apic.admin.setup_tenant("T", "V", &["L", "A0299"]).unwrap();
    let kept = "uni/tn-T/out-A0299/instP-E";
    apic.admin.set(kept, "l3extInstP", &[("annotation", MARK)]).unwrap();
    let session = Session::at(&apic);
    let seen = requests(&session);
    let mut reconciler = reconciler(Some(20), hostile(), Vec::new(), now);
    until_read(&mut reconciler, &session, now);
    assert_eq!(seen.borrow().iter().filter(|it| it.contains("/out-A")).count(), 21);
    reconcile(&mut reconciler, &session, now + 100 * SECOND);
    assert!(apic.admin.get(kept).is_some());
    assert!(reconciler.findings().iter().any(|it| it.code == Code::TooManyEpgs));
}
