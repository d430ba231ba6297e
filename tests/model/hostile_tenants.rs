//! What one namespace could do to others: single reconciles of the reconciler against a fabric without sockets. Each
//! test is an attack that once went through.

use std::cell::Cell;
use std::time::Instant;

use crate::fixtures::*;
use aci_sync::apic::Error;
use aci_sync::apic::SubscriptionId;
use aci_sync::kube::{Event, objects};
use aci_sync::model::finding::Code;
use aci_sync::model::kubernetes::{Key, Kind, Object};
use aci_sync::model::mo::MoChange;
use aci_sync::model::rules::Policy;
use aci_sync::model::rules::{Allow, MaxDeletes, Rules};
use aci_sync::reconcile::{ReconcileContext, Reconciler};
use serde_json::json;
use sim::apic::{InMemoryApic, Variants};

/// W6, D6: a binding outside of all rules counts as no annotation, so it restarts no grace.
#[test]
fn a_forbidden_binding_keeps_no_epg() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let allow = ["shop=T/L/S-*", "evil=T/L/X-*"].map(|it| Allow::parse(it).unwrap()).to_vec();
    let rules = Rules { allow, ..Rules::default() };
    let mut reconciler = reconciler(
        rules,
        Policy::Sync,
        vec![naming("shop", "web", "T/L/S-1")],
        vec![pod_of("shop", "web", 1, "10.0.0.1", 1)],
        start,
    );
    reconcile(&mut reconciler, &session, start);
    reconciler.cluster_changed(Event::Gone { kind: Kind::Deployment, key: Key::new("shop", "web") }, start);
    reconcile(&mut reconciler, &session, start);
    for n in 1..10 {
        // Any update of such a Deployment does, also one that changes nothing that matters.
        hears(&mut reconciler, naming("evil", "x", "T/L/S-1"), start + n * 50 * SECOND);
        reconcile(&mut reconciler, &session, start + n * 50 * SECOND);
        reconcile(&mut reconciler, &session, start + (n * 50 + 49) * SECOND);
    }
    assert_eq!(epgs(&apic), [""; 0], "eight minutes later");
}

/// W6: EPGs in their grace count, also if something names them for a moment between two reconciles.
#[test]
fn epgs_in_their_grace_count_against_the_quota() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let rules = Rules { max_epgs: Some(3), ..Rules::default() };
    let mut reconciler = reconciler(
        rules,
        Policy::Sync,
        vec![naming("evil", "web", "T/L/E0")],
        vec![pod_of("evil", "web", 1, "10.0.0.1", 1)],
        start,
    );
    let mut now = start;
    reconcile(&mut reconciler, &session, now);
    for n in 1..30 {
        now += SECOND;
        // One helper Deployment names all that is in its grace, one after the other, and ends where it was.
        for old in 0..n - 1 {
            hears(&mut reconciler, naming("evil", "helper", &format!("T/L/E{old}")), now);
        }
        hears(&mut reconciler, naming("evil", "web", &format!("T/L/E{n}")), now);
        hears(&mut reconciler, naming("evil", "helper", &format!("T/L/E{n}")), now);
        reconcile(&mut reconciler, &session, now);
    }
    assert!((3..=6).contains(&epgs(&apic).len()), "limit 3: {} EPGs", epgs(&apic).len());
}

/// W6: under upsert-only what was named before stays for ever; the limit holds all the same.
#[test]
fn upsert_only_keeps_the_quota() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let rules = Rules { max_epgs: Some(3), ..Rules::default() };
    let mut reconciler = reconciler(rules, Policy::UpsertOnly, Vec::new(), Vec::new(), start);
    for n in 0..30 {
        let now = start + n * 70 * SECOND;
        hears(&mut reconciler, naming("evil", "web", &format!("T/L/E{n}")), now);
        reconcile(&mut reconciler, &session, now);
    }
    assert!((3..=6).contains(&epgs(&apic).len()), "limit 3: {} EPGs", epgs(&apic).len());
}

/// W8: two L3Outs that are never served delay no other, and neither does one.
#[test]
fn two_unserved_l3outs_delay_no_other() {
    let (apic, start) = (InMemoryApic::new(Variants::default()), Instant::now());
    apic.admin.setup_tenant("T", "V", &["A", "B", "L"]).unwrap();
    let session = Session::at(&apic);
    session.trouble(|_, target, _| {
        (target.contains("out-A") || target.contains("out-B")).then(|| Error::Unreachable("timed out".to_owned()))
    });
    let deployments = vec![naming("evil", "x", "T/A/E"), naming("evil", "y", "T/B/E"), deployment("web", "E", &[])];
    let mut reconciler = listed(Policy::Sync, deployments, pods(1), start);
    let mut failed = 0;
    for n in 0..1000 {
        if n % 60 == 59 {
            // What the reconciler does after a minute without a served read, and after each --resync.
            reconciler.subscriptions_lost(None);
            reconciler.request_full_sync();
        }
        failed += usize::from(reconciler.reconcile(&session, start + n * SECOND, &|| true).is_err());
    }
    assert!(apic.admin.get(&subnet(1)).is_some(), "after {failed} reconciles that ended early");
}

/// X3: a finding about an L3Out that several namespaces name does not go with what one of them floods.
#[test]
fn a_flood_hides_no_shared_l3out() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut all: Vec<Object> = (0..25).map(|n| naming("evil", &format!("d{n}"), &format!("T/A{n:02}/E"))).collect();
    all.push(naming("evil", "shared", "T/GONE/AAA"));
    all.push(naming("shop", "web", "T/GONE/WEB"));
    let mut reconciler = reconciler(Rules::default(), Policy::Sync, all, Vec::new(), start);
    let mut notices = Vec::new();
    for n in 0..5 {
        notices.extend(reconcile(&mut reconciler, &session, start + n * SECOND).notices);
    }
    let of_shop: Vec<_> = notices.iter().filter(|it| &*it.about.key.namespace == "shop").collect();
    let findings: Vec<String> = reconciler.findings().iter().map(ToString::to_string).collect();
    assert!(findings.iter().any(|it| it.contains("out-GONE")), "{findings:#?}");
    assert!(!of_shop.is_empty());
}

/// P5, W4: an address that another application's Pod has now leaves the EPG, even while the mass deletions of others
/// are blocked.
#[test]
fn an_address_of_another_pod_is_not_blocked() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut pods: Vec<Object> = (1..=40).map(|n| pod_of("evil", "x", n, &format!("10.0.1.{n}"), 1)).collect();
    pods.push(pod_of("shop", "web", 1, "10.0.0.1", 1));
    let mut reconciler = reconciler(
        Rules::default(),
        Policy::Sync,
        vec![naming("evil", "x", "T/L/X"), naming("shop", "web", "T/L/E")],
        pods,
        start,
    );
    reconcile(&mut reconciler, &session, start);
    assert!(apic.admin.get(&subnet(1)).is_some());
    // During a relist of the Pods, evil ends its Pods, and gets the address of one that shop ended.
    let objects = vec![pod_of("evil", "unmanaged", 1, "10.0.0.1", 2)];
    reconciler.cluster_changed(Event::Listed { kind: Kind::Pod, objects }, start + SECOND);
    for n in 1..700 {
        reconcile(&mut reconciler, &session, start + n * SECOND);
    }
    assert!(apic.admin.get(&subnet(1)).is_none(), "{:?}", reconciler.findings());
}

/// S3, W2: an address is not created elsewhere in the VRF while it is in an L3Out that cannot be read any more.
#[test]
fn a_rejected_l3out_keeps_its_addresses() {
    let mut twice = false;
    for error in [403, 400, 0] {
        let (apic, start) = (InMemoryApic::new(Variants::default()), Instant::now());
        apic.admin.setup_tenant("T", "V", &["A", "L"]).unwrap();
        let session = Session::at(&apic);
        let mut reconciler = reconciler(
            Rules::default(),
            Policy::Sync,
            vec![naming("a", "web", "T/A/E")],
            vec![pod_of("a", "web", 1, "10.0.0.1", 1)],
            start,
        );
        reconcile(&mut reconciler, &session, start);
        assert!(apic.admin.get("uni/tn-T/out-A/instP-E/extsubnet-[10.0.0.1/32]").is_some());
        session.trouble(move |method, target, _| {
            (method == "GET" && target.contains("out-A")).then(|| match error {
                403 => Error::Forbidden("no".to_owned()),
                400 => Error::Rejected { code: 107, text: "result dataset is too big".to_owned() },
                _ => Error::Unreachable("timed out".to_owned()),
            })
        });
        reconciler.request_full_sync();
        for n in 0..20 {
            drop(reconciler.reconcile(&session, start + n * SECOND, &|| true));
        }
        hears(&mut reconciler, naming("a", "web", "T/L/E"), start + 20 * SECOND);
        for n in 20..40 {
            drop(reconciler.reconcile(&session, start + n * SECOND, &|| true));
        }
        let both = ["uni/tn-T/out-A/instP-E/extsubnet-[10.0.0.1/32]".to_owned(), subnet(1)];
        twice |= both.iter().all(|it| apic.admin.get(it).is_some());
    }
    assert!(!twice, "in two EPGs of one VRF");
}

/// R4, X3: if the APIC does not say what is ours, one namespace's L3Outs delay no other namespace's deletions.
#[test]
fn new_names_do_not_stop_deletions() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    session.trouble(|_, target, _| target.contains("class/l3extInstP").then(|| Error::Forbidden("no".to_owned())));
    let mut reconciler = reconciler(
        Rules::default(),
        Policy::Sync,
        vec![naming("shop", "web", "T/L/E")],
        vec![pod_of("shop", "web", 1, "10.0.0.1", 1)],
        start,
    );
    reconcile(&mut reconciler, &session, start);
    for n in 1..100 {
        let now = start + n * SECOND;
        for m in 0..60 {
            hears(&mut reconciler, naming("evil", &format!("d{m}"), &format!("T/X{n}-{m}/E")), now);
        }
        if n == 1 {
            reconciler.cluster_changed(Event::Gone { kind: Kind::Pod, key: Key::new("shop", "web-1") }, now);
            hears(&mut reconciler, pod_of("evil", "unmanaged", 1, "10.0.0.1", 2), now);
        }
        reconcile(&mut reconciler, &session, now);
    }
    assert!(apic.admin.get(&subnet(1)).is_none());
}

/// W8: neither does one that is named while all else is known; echoes are heard, and after a minute without a served
/// read there is a new session.
#[test]
fn one_unserved_l3out_delays_no_other_across_reconnects() {
    let (apic, start) = (InMemoryApic::new(Variants::default()), Instant::now());
    apic.admin.setup_tenant("T", "V", &["A", "L"]).unwrap();
    let mut session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], pods(1), start);
    let mut now = start;
    for _ in 0..30 {
        reconciler.reconcile(&session, now, &session).unwrap();
        session.deliver_events(&mut reconciler);
        now += SECOND;
    }
    let slow = |session: &Session| {
        session.trouble(|_, target, _| target.contains("out-A").then(|| Error::Unreachable("timed out".to_owned())));
    };
    slow(&session);
    hears(&mut reconciler, naming("evil", "x", "T/A/E"), now);
    let (mut delays, mut failing_since, mut waiting, mut stalled) = (Vec::new(), None, None, 0);
    for n in 0..1800u32 {
        now += SECOND;
        if n % 20 == 0 && waiting.is_none() {
            let address = format!("10.0.{}.{}", 1 + n / 20 / 200, n / 20 % 200);
            hears(&mut reconciler, pod("web", 1000 + n as usize, &address), now);
            waiting = Some((n, format!("{DN_E}/extsubnet-[{address}/32]")));
        }
        let ended = reconciler.reconcile(&session, now, &session);
        session.deliver_events(&mut reconciler);
        match ended {
            Ok(_) => failing_since = None,
            Err(_) => {
                stalled += 1;
                if n - *failing_since.get_or_insert(n) >= 60 {
                    session = Session::at(&apic);
                    slow(&session);
                    reconciler.subscriptions_lost(None);
                    failing_since = None;
                }
            }
        }
        if let Some((since, _)) = waiting.take_if(|(_, dn)| apic.admin.get(dn).is_some()) {
            delays.push(n - since);
        }
    }
    let worst = delays.iter().max().copied().unwrap_or(9999);
    assert!(
        worst <= 10,
        "a Pod of another namespace waited {worst} s; nothing was planned in {stalled} of 1800 reconciles"
    );
}

/// X3: of one namespace there are at most 20 findings of a code, also about EPGs that it named before.
#[test]
fn findings_about_former_epgs_are_limited() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let named = |prefix: &str| {
        (0..100).map(|n| naming("evil", &format!("d{n}"), &format!("T/L/{prefix}{n}"))).collect::<Vec<_>>()
    };
    let pods = (0..100).map(|n| pod_of("evil", &format!("d{n}"), 1, &format!("10.0.1.{n}"), 1)).collect();
    let mut reconciler = reconciler(Rules::default(), Policy::Sync, named("A"), pods, start);
    reconcile(&mut reconciler, &session, start);
    for it in named("B") {
        hears(&mut reconciler, it, start);
    }
    reconcile(&mut reconciler, &session, start + SECOND);
    let count = reconciler.findings().iter().filter(|it| it.code == Code::EpgInGrace).count();
    assert!((20..=21).contains(&count), "{count} findings, none of which counts in the namespace's share of the log");
}

/// S3: two Deployments that a Service selects, and an L3Out that is refused for a moment; nothing else changes.
#[test]
fn a_rejected_l3out_stays_in_its_vrf() {
    let (apic, start) = (InMemoryApic::new(Variants::default()), Instant::now());
    apic.admin.setup_tenant("T", "V", &["A", "L"]).unwrap();
    let session = Session::at(&apic);
    let labelled = |name: &str, l3out: &str, created: u8| {
        let value = json!({"tenant": "T", "l3out": l3out, "epg": "E"}).to_string();
        let json = json!({"metadata": {"namespace": "a", "name": name, "uid": name,
            "creationTimestamp": format!("2026-01-01T00:00:0{created}Z"),
            "annotations": {"aci.haystacknetworks.com/l3o": value}},
            "spec": {"template": {"metadata": {"labels": {"app": "x"}}}}});
        objects::decode(Kind::Deployment, json.to_string().as_bytes()).unwrap()
    };
    let mut reconciler = reconciler(
        Rules::default(),
        Policy::Sync,
        vec![labelled("one", "A", 1), labelled("two", "L", 2)],
        Vec::new(),
        start,
    );
    let json = json!({"metadata": {"namespace": "a", "name": "s", "uid": "s"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "x"}},
        "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}});
    hears(&mut reconciler, objects::decode(Kind::Service, json.to_string().as_bytes()).unwrap(), start);
    reconcile(&mut reconciler, &session, start);
    let both = ["uni/tn-T/out-A/instP-E/extsubnet-[10.0.0.1/32]".to_owned(), subnet(1)];
    assert_eq!(both.each_ref().map(|it| apic.admin.get(it).is_some()), [true, false]);
    session.trouble(|method, target, _| {
        (method == "GET" && target.contains("mo/uni/tn-T/out-A")).then(|| Error::Forbidden("no".to_owned()))
    });
    reconciler.request_full_sync();
    reconcile(&mut reconciler, &session, start + SECOND);
    assert_eq!(both.each_ref().map(|it| apic.admin.get(it).is_some()), [true, false], "in two EPGs of one VRF");
}

/// A reconcile has time for this number of writes, as for 30 s at 20 a second.
struct Budget(Cell<usize>);

impl ReconcileContext for Budget {
    fn should_continue(&self) -> bool {
        self.0.get() <= 600
    }

    fn may_delete(&self) -> bool {
        self.should_continue()
    }

    fn drain_events(&self, _: &mut dyn FnMut(&[SubscriptionId], &[MoChange])) {
        self.0.set(self.0.get() + 1);
    }
}

/// X3: who makes many writes necessary, as in a foreign EPG (one a subnet), keeps no other EPG waiting.
#[test]
fn many_writes_delay_no_other_epg() {
    let (apic, start) = (apic(), Instant::now());
    apic.admin.set("uni/tn-T/out-L/instP-A", "l3extInstP", &[("annotation", "orchestrator:terraform")]).unwrap();
    let session = Session::at(&apic);
    let evil = |expose: bool| {
        let value =
            json!({"tenant": "T", "l3out": "L", "epg": "A", "expose": if expose { vec!["pods"] } else { vec![] }});
        let json = json!({"metadata": {"namespace": "evil", "name": "x", "uid": "x",
            "annotations": {"aci.haystacknetworks.com/l3o": value.to_string()}}});
        objects::decode(Kind::Deployment, json.to_string().as_bytes()).unwrap()
    };
    let mut pods: Vec<Object> =
        (0..1400).map(|n| pod_of("evil", "x", n, &format!("10.1.{}.{}", n / 200, n % 200), 1)).collect();
    pods.push(pod_of("shop", "web", 1, "10.0.0.1", 1));
    let mut reconciler =
        reconciler(Rules::default(), Policy::Sync, vec![evil(true), naming("shop", "web", "T/L/E")], pods, start);
    for n in 0..20 {
        // Whichever way leaves more to do.
        let there = apic.admin.subnets("uni/tn-T/out-L/instP-A").len();
        hears(&mut reconciler, evil(there < 700), start + n * 30 * SECOND);
        reconciler.reconcile(&session, start + n * 30 * SECOND, &Budget(Cell::new(0))).unwrap();
    }
    assert!(apic.admin.get(&subnet(1)).is_some(), "after 20 reconciles of 30 s");
}

/// W6, D6: nor does it take the quota of another namespace.
#[test]
fn a_forbidden_binding_takes_no_quota() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let allow = ["shop=T/L/S-*", "evil=T/L/X-*"].map(|it| Allow::parse(it).unwrap()).to_vec();
    let rules = Rules { allow, max_epgs: Some(2), ..Rules::default() };
    let pods = vec![pod_of("shop", "web", 1, "10.0.0.1", 1), pod_of("shop", "znew", 1, "10.0.0.2", 1)];
    let mut reconciler = reconciler(rules, Policy::Sync, vec![naming("shop", "web", "T/L/S-1")], pods, start);
    reconcile(&mut reconciler, &session, start);
    hears(&mut reconciler, naming("shop", "web", "T/L/S-2"), start);
    reconcile(&mut reconciler, &session, start);
    for n in 1..=10 {
        hears(&mut reconciler, naming("evil", "x", "T/L/S-1"), start + n * 50 * SECOND);
        reconcile(&mut reconciler, &session, start + n * 50 * SECOND);
        reconcile(&mut reconciler, &session, start + (n * 50 + 1) * SECOND);
    }
    // Eight minutes after S-1 should be gone.
    hears(&mut reconciler, naming("shop", "znew", "T/L/S-3"), start + 510 * SECOND);
    reconcile(&mut reconciler, &session, start + 510 * SECOND);
    let findings: Vec<String> = reconciler.findings().iter().map(|it| format!("{:?} {it}", it.code)).collect();
    assert_eq!(apic.admin.subnets("uni/tn-T/out-L/instP-S-3").len(), 1, "{findings:#?}");
}

/// X3, D6: new names each time cost little, although what was never used goes at once.
#[test]
fn unused_epgs_cost_little() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let all = (0..100)
        .map(|n| naming("evil", &format!("d{n}"), &format!("T/L/A0-{n}")))
        .chain([naming("shop", "web", "T/L/E")]);
    let mut reconciler = reconciler(Rules::default(), Policy::Sync, all.collect(), Vec::new(), start);
    reconcile(&mut reconciler, &session, start);
    let mut before = 0;
    for step in 1..20usize {
        let now = start + u32::try_from(step).unwrap() * SECOND;
        for n in 0..100 {
            hears(&mut reconciler, naming("evil", &format!("d{n}"), &format!("T/L/A{step}-{n}")), now);
        }
        hears(&mut reconciler, pod_of("shop", "web", step, &format!("10.0.0.{step}"), 1), now);
        let sent = session.writes.borrow().len();
        reconcile(&mut reconciler, &session, now);
        let of_shop = session.writes.borrow()[sent..].iter().position(|it| it.contains("10.0.0.")).unwrap();
        before = before.max(of_shop);
    }
    assert!(
        before < 40,
        "at 20 a second a Pod of another namespace waits for {before} requests that made and deleted unused EPGs"
    );
}

/// R3: an L3Out in which an EPG was created is read again 5 s later, even if more are created meanwhile.
#[test]
fn later_creations_do_not_postpone_the_read() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler =
        reconciler(Rules::default(), Policy::Sync, vec![naming("shop", "web", "T/L/E")], Vec::new(), start);
    reconciler.reconcile(&session, start, &session).unwrap();
    let reads = std::rc::Rc::new(Cell::new(0));
    let count = reads.clone();
    session.trouble(move |method, target, _| {
        if method == "GET" && target.contains("mo/uni/tn-T/out-L.json") {
            count.set(count.get() + 1);
        }
        None
    });
    for n in 1..30u32 {
        hears(&mut reconciler, naming("evil", "x", &format!("T/L/X{n}")), start + n * SECOND);
        reconciler.reconcile(&session, start + n * SECOND, &session).unwrap();
        session.deliver_events(&mut reconciler);
    }
    assert!(reads.get() > 0, "not once in 30 s");
}

/// J3, W4: moves are counted at the start. A namespace that names an L3Out which the user may not read does not make every
/// later list a start for all others.
#[test]
fn a_forbidden_l3out_does_not_prolong_the_start() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    session.trouble(|_, target, _| target.contains("tn-SECRET").then(|| Error::Forbidden("no access".to_owned())));
    let rules = Rules { max_deletes: MaxDeletes::Number(1), ..Rules::default() };
    let deployments = vec![deployment("web", "E", &[]), naming("evil", "web", "SECRET/L/E")];
    let mut reconciler = reconciler(rules, Policy::Sync, deployments, pods(2), now);
    reconcile(&mut reconciler, &session, now);
    assert_eq!((apic.admin.subnets(DN_E).len(), findings(&reconciler, Code::Rejected).len()), (2, 1));
    hears(&mut reconciler, deployment("web", "F", &[]), now);
    reconciler.cluster_changed(Event::Listed { kind: Kind::Pod, objects: pods(2) }, now);
    reconcile(&mut reconciler, &session, now);
    assert_eq!(
        (findings(&reconciler, Code::DeletionsBlocked), epgs(&apic)),
        (Vec::new(), vec!["E".into(), "F".into()])
    );
    assert_eq!((apic.admin.subnets(DN_E).len(), apic.admin.subnets("uni/tn-T/out-L/instP-F").len()), (0, 2));
}

/// J3: what the user may read only later, and holds something of ours, is counted with its moves when it is read.
#[test]
fn moves_from_an_l3out_that_is_read_late_are_counted() {
    let (apic, now) = (apic(), Instant::now());
    apic.admin.setup_tenant("T", "V", &["M"]).unwrap();
    let session = Session::at(&apic);
    session.trouble(|_, target, _| target.contains("out-M").then(|| Error::Forbidden("no access".to_owned())));
    let rules = Rules { max_deletes: MaxDeletes::Number(1), ..Rules::default() };
    let mut reconciler = reconciler(rules, Policy::Sync, vec![naming("a", "other", "T/M/X")], Vec::new(), now);
    reconcile(&mut reconciler, &session, now);
    apic.admin.set("uni/tn-T/out-M/instP-OLD", "l3extInstP", &[("annotation", MARK)]).unwrap();
    for n in 1..=2 {
        let (dn, name) = (format!("uni/tn-T/out-M/instP-OLD/extsubnet-[10.0.0.{n}/32]"), format!("a::web-{n}"));
        apic.admin.set(&dn, "l3extSubnet", &[("annotation", MARK), ("name", &name)]).unwrap();
    }
    session.trouble(|_, _, _| None);
    hears(&mut reconciler, deployment("web", "E", &[]), now);
    for pod in pods(2) {
        hears(&mut reconciler, pod, now);
    }
    reconcile(&mut reconciler, &session, now + 10 * SECOND);
    let found = findings(&reconciler, Code::DeletionsBlocked);
    assert!(found.len() == 1 && found[0].starts_with("2 moves blocked"), "{found:?}");
    assert_eq!(apic.admin.subnets("uni/tn-T/out-M/instP-OLD").len(), 2);
}

/// J3, W4: moves to another VRF that were approved before their EPG could be used are not counted again once it can, although they
/// are deletions for their VRF.
#[test]
fn approved_moves_are_not_counted_again() {
    let (apic, now) = (apic(), Instant::now());
    apic.admin.setup_tenant("T", "W", &["N"]).unwrap();
    let old = "uni/tn-T/out-N/instP-OLD";
    apic.admin.set(old, "l3extInstP", &[("annotation", MARK)]).unwrap();
    for n in 1..=3 {
        let (dn, name) = (format!("{old}/extsubnet-[10.0.0.{n}/32]"), format!("a::web-{n}"));
        apic.admin.set(&dn, "l3extSubnet", &[("annotation", MARK), ("name", &name)]).unwrap();
    }
    apic.admin.set(DN_E, "l3extInstP", &[]).unwrap();
    let session = Session::at(&apic);
    session.trouble(|_, target, _| target.contains("out-L").then(|| Error::Forbidden("no access".to_owned())));
    let rules = Rules { max_deletes: MaxDeletes::Number(1), ..Rules::default() };
    let mut reconciler = reconciler(rules, Policy::Sync, vec![deployment("web", "E", &[])], pods(3), now);
    let full_sync = |reconciler: &mut Reconciler, seconds: u32| {
        session.deliver_events(reconciler);
        reconciler.request_full_sync();
        reconcile(reconciler, &session, now + seconds * SECOND);
        (findings(reconciler, Code::DeletionsBlocked).len(), apic.admin.subnets(old).len())
    };
    assert_eq!(full_sync(&mut reconciler, 0), (1, 3), "blocked");
    assert!(reconciler.approve_deletions());
    assert_eq!([1, 2].map(|it| full_sync(&mut reconciler, it)), [(0, 3); 2], "their L3Out cannot be read");
    session.trouble(|_, _, _| None);
    assert_eq!(full_sync(&mut reconciler, 60), (0, 0));
    assert_eq!(apic.admin.subnets(DN_E).len(), 3);
}

/// W4: what was approved and was desired in between is counted again, also if that was while a view was incomplete.
#[test]
fn an_approval_ends_when_its_object_is_desired() {
    let (apic, now) = (apic(), Instant::now());
    with_subnets(&apic, 40);
    let session = Session::at(&apic);
    let mut reconciler = listed(Policy::Sync, vec![deployment("web", "E", &[])], Vec::new(), now);
    reconcile(&mut reconciler, &session, now);
    assert_eq!(reconciler.blocked_deletions().len(), 40);
    reconciler.cluster_changed(Event::Relisting { kind: Kind::Service, why: "test".to_owned() }, now);
    assert!(reconciler.approve_deletions());
    for (kind, objects) in [(Kind::Pod, pods(40)), (Kind::Pod, Vec::new()), (Kind::Service, Vec::new())] {
        reconciler.cluster_changed(Event::Listed { kind, objects }, now);
        reconciler.cluster_changed(Event::Live { kind }, now);
        reconcile(&mut reconciler, &session, now);
    }
    assert_eq!((apic.admin.subnets(DN_E).len(), reconciler.blocked_deletions().len()), (40, 40));
}

/// W4: an approved deletion of a tag outlasts an incomplete view: the EPG that the tag is about is desired, the tag is not.
#[test]
fn the_approval_of_a_tag_outlasts_an_incomplete_view() {
    let (apic, now) = (apic(), Instant::now());
    with_subnets(&apic, 1);
    let key = [("key", "aci-sync:me:E"), ("value", "foreign")];
    apic.admin.set(TAG, "tagAnnotation", &key).unwrap();
    let session = Session::at(&apic);
    let rules = Rules { max_deletes: MaxDeletes::Number(0), ..Rules::default() };
    let mut reconciler = reconciler(rules, Policy::Sync, vec![deployment("web", "E", &[])], pods(1), now);
    reconcile(&mut reconciler, &session, now);
    assert_eq!(reconciler.blocked_deletions().len(), 1);
    reconciler.cluster_changed(Event::Relisting { kind: Kind::Service, why: "test".to_owned() }, now);
    assert!(reconciler.approve_deletions());
    reconcile(&mut reconciler, &session, now);
    reconciler.cluster_changed(Event::Listed { kind: Kind::Service, objects: Vec::new() }, now);
    reconciler.cluster_changed(Event::Live { kind: Kind::Service }, now);
    reconcile(&mut reconciler, &session, now);
    assert_eq!((apic.admin.get(TAG).is_some(), reconciler.blocked_deletions().len()), (false, 0));
}
