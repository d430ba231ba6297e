//! T7: verdicts and reasons that the simulated worlds do not reach, the subjects, and that the document has all of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aci_sync::kube::{Event, objects};
use aci_sync::model::dn::{EpgDn, ParsedDn};
use aci_sync::model::explain::{Explanation, LookedAt, NotExposed, Subject, Verdict};
use aci_sync::model::finding::Code;
use aci_sync::model::kubernetes::{Kind, Object};
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::rules::{Policy, Rules};
use aci_sync::reconcile::Reconciler;
use serde_json::{Value, json};
use sim::apic::{InMemoryApic, Variants};

use crate::fixtures::{DN_E, Session};

const E: &str = r#"{"tenant":"T","l3out":"L","epg":"E"}"#;

fn deployment(name: &str, annotation: &str) -> Value {
    json!({"metadata": {"namespace": "a", "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"aci.haystacknetworks.com/l3o": annotation}},
        "spec": {"template": {"metadata": {"labels": {"app": name, "all": "yes"}}}}})
}

fn pod(of: &str, n: usize, ips: &[&str]) -> Value {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"metadata": {"namespace": "a", "name": format!("{of}-5d9c7-{n}"), "uid": format!("{of}{n}"),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"app": of, "all": "yes", "pod-template-hash": "5d9c7"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": format!("{of}-5d9c7"), "controller": true}]},
        "status": {"phase": "Running", "podIPs": ips}})
}

fn service(name: &str, kind: &str, selector: &Value, ips: &[&str]) -> Value {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"metadata": {"namespace": "a", "name": name, "uid": name},
        "spec": {"type": kind, "selector": selector}, "status": {"loadBalancer": {"ingress": ips}}})
}

/// What was looked at.
struct Look {
    reconciler: Reconciler,
    unneeded: Vec<Object>,
}

/// One reconcile of these objects.
fn look(apic: &InMemoryApic, rules: Rules, policy: Policy, objects: [&[Value]; 3]) -> Look {
    let mut reconciler = Reconciler::new(OwnerIdentity::new("me", &[]), rules, policy, Duration::ZERO);
    let (now, mut unneeded) = (Instant::now(), Vec::new());
    for (kind, all) in Kind::DEFAULT.into_iter().zip(objects) {
        let decode = |it: &Value| objects::decode(kind, it.to_string().as_bytes()).unwrap();
        let (kept, others): (Vec<_>, Vec<_>) = all.iter().map(decode).partition(Object::is_kept);
        unneeded.extend(others);
        reconciler.cluster_changed(Event::Listed { kind, objects: kept }, now);
        reconciler.cluster_changed(Event::Live { kind }, now);
    }
    let session = Session::at(apic);
    reconciler.reconcile(&session, now, &session).unwrap();
    Look { reconciler, unneeded }
}

/// The same with the default rules, and everything is written.
fn synced(apic: &InMemoryApic, objects: [&[Value]; 3]) -> Look {
    look(apic, Rules::default(), Policy::Sync, objects)
}

impl Look {
    fn all(&self, policy: Policy, subject: &str) -> Vec<Explanation> {
        let more = LookedAt { policy, unneeded: &self.unneeded, subnets: &[], faults: None };
        self.reconciler.explain(&Subject::parse(subject).unwrap(), &more, Instant::now())
    }

    fn one(&self, subject: &str) -> Explanation {
        let mut all = self.all(Policy::Sync, subject);
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    fn verdict(&self, subject: &str) -> Verdict {
        self.one(subject).verdict
    }
}

fn fabric() -> InMemoryApic {
    let apic = InMemoryApic::new(Variants::default());
    apic.admin.setup_tenant("T", "V", &["L"]).unwrap();
    apic
}

/// T7: what a policy does not send, what the configuration refuses, and an address that cannot be read.
#[test]
fn verdicts_of_settings() {
    let apic = fabric();
    let web = [deployment("web", E)];
    let only_looked = look(&apic, Rules::default(), Policy::Observe, [&web, &[pod("web", 1, &["10.0.0.1"])], &[]]);
    for subject in ["a/web", "pod/a/web-5d9c7-1", "10.0.0.1", DN_E] {
        let of = |policy| only_looked.all(policy, subject)[0].verdict;
        assert_eq!((of(Policy::Sync), of(Policy::Observe)), (Verdict::Pending, Verdict::Observing), "{subject}");
    }
    let bad = synced(&apic, [&web, &[pod("web", 1, &["10.0.0"])], &[]]).one("pod/a/web-5d9c7-1");
    assert_eq!((bad.not_exposed[0].reason, bad.verdict), (NotExposed::InvalidAddress, Verdict::Blocked));
    let apic = fabric();
    apic.admin.set(DN_E, "l3extInstP", &[("annotation", "orchestrator:terraform")]).unwrap();
    let rules = Rules { use_foreign: false, ..Rules::default() };
    let refused = look(&apic, rules, Policy::Sync, [&web, &[pod("web", 1, &["10.0.0.1"])], &[]]).one("a/web");
    let json = serde_json::to_value(&refused).unwrap();
    assert_eq!(json["subject"], json!({"kind": "Deployment", "namespace": "a", "name": "web"}));
    assert_eq!((&json["verdict"], &json["epg"]["code"]), (&json!("refused"), &json!("ForeignEpgRefused")));
    assert_eq!((&json["addresses"][0]["state"], refused.code()), (&json!("missing"), Some(Code::ForeignEpgRefused)));
}

/// T7, P5, S3: an address that is not served is never in sync.
#[test]
fn what_is_not_served_is_not_in_sync() {
    let apic = fabric();
    let web = [deployment("web", E)];
    let mut younger = pod("other", 1, &["10.0.0.1"]);
    younger["metadata"]["creationTimestamp"] = json!("2026-05-01T00:00:00Z");
    let claimed = synced(&apic, [&web, &[pod("web", 1, &["10.0.0.1"]), pod("web", 2, &["10.0.0.2"]), younger], &[]]);
    assert_eq!((claimed.verdict("a/web"), claimed.verdict("pod/a/web-5d9c7-2")), (Verdict::Conflict, Verdict::InSync));
    let selector = json!({"app": "web"});
    let waits = [pod("web", 1, &["10.0.0.1"]), pod("web", 2, &[])];
    let waiting = synced(&apic, [&web, &waits, &[service("lb", "LoadBalancer", &selector, &[])]]);
    for subject in ["a/web", "pod/a/web-5d9c7-2", "a/lb"] {
        assert_eq!(waiting.verdict(subject), Verdict::Pending, "{subject}");
    }
    assert_eq!(waiting.verdict("pod/a/web-5d9c7-1"), Verdict::InSync);
    let fault = BTreeMap::from([(epg(), 1)]);
    let more = LookedAt { policy: Policy::Sync, unneeded: &[], subnets: &[], faults: Some(&fault) };
    let subject = Subject::parse("pod/a/web-5d9c7-2").unwrap();
    let explained = claimed.reconciler.explain(&subject, &more, Instant::now()).remove(0);
    assert_eq!((explained.verdict, explained.code()), (Verdict::Conflict, Some(Code::FabricFault)));

    let invalid = synced(&apic, [&[deployment("web", "{}")], &[pod("web", 1, &["10.0.0.1"])], &[]]);
    for subject in ["a/web", "pod/a/web-5d9c7-1", "10.0.0.1"] {
        assert_eq!(invalid.verdict(subject), Verdict::Invalid, "{subject}");
    }
    assert!(!invalid.one("10.0.0.1").claims[0].managed);
}

fn epg() -> EpgDn {
    match ParsedDn::parse(DN_E) {
        Some(ParsedDn::Epg(dn)) => dn,
        _ => panic!("no EPG"),
    }
}

/// T7: one subnet of an EPG with more subnets than an explanation lists.
#[test]
fn subnets_of_a_large_epg() {
    let apic = fabric();
    let pods: Vec<Value> = (0..1005).map(|n| pod("web", n, &[&format!("10.0.{}.{}", n / 256, n % 256)])).collect();
    let synced = synced(&apic, [&[deployment("web", E)], &pods, &[]]);
    let epg = synced.one(DN_E);
    assert_eq!((epg.verdict, epg.addresses.len(), epg.left_out), (Verdict::InSync, 1000, 5));
    for ip in ["10.0.0.0", "10.0.3.236"] {
        assert_eq!(synced.verdict(&format!("{DN_E}/extsubnet-[{ip}/32]")), Verdict::InSync);
    }
    assert_eq!(synced.verdict(&format!("{DN_E}/extsubnet-[10.0.9.9/32]")), Verdict::NotDesired);
}

/// T7, D6, O3: EPGs that are taken over, and those that no Deployment names any more.
#[test]
fn epgs_that_change() {
    let apic = fabric();
    let objects = ([deployment("web", E)], [pod("web", 1, &["10.0.0.1"])]);
    synced(&apic, [&objects.0, &objects.1, &[]]);
    apic.admin.set(DN_E, "l3extInstP", &[("annotation", "orchestrator:aci-k8-haystack")]).unwrap();
    let legacy = look(&apic, Rules::default(), Policy::Observe, [&objects.0, &objects.1, &[]]);
    assert_eq!((legacy.verdict("a/web"), legacy.verdict(DN_E)), (Verdict::Pending, Verdict::Pending));
    synced(&apic, [&objects.0, &objects.1, &[]]);
    let left = look(&apic, Rules::default(), Policy::Observe, [&[], &[], &[]]);
    let of = |policy| left.all(policy, DN_E)[0].verdict;
    let expected = (Verdict::Pending, Verdict::Observing, Verdict::NotDesired);
    assert_eq!((of(Policy::Sync), of(Policy::Observe), of(Policy::UpsertOnly)), expected);
    apic.admin.set(&format!("{DN_E}/extsubnet-[10.9.9.0/24]"), "l3extSubnet", &[]).unwrap();
    let kept = look(&apic, Rules::default(), Policy::Observe, [&[], &[], &[]]).one(DN_E);
    assert_eq!((kept.verdict, kept.code()), (Verdict::Blocked, Some(Code::EpgRetained)));
}

/// T7, X3: a Service that selects many Deployments: the worst comes first, and the rest is counted.
#[test]
fn a_service_of_many_deployments() {
    let apic = fabric();
    let only_pods = r#"{"tenant":"T","l3out":"L","epg":"E","expose":["pods"]}"#;
    let mut deployments: Vec<Value> = (0..120).map(|n| deployment(&format!("d{n:03}"), only_pods)).collect();
    deployments.push(deployment("z", r#"{"tenant":"T","l3out":"NONE","epg":"Z"}"#));
    let all = json!({"all": "yes"});
    let synced = synced(&apic, [&deployments, &[], &[service("lb", "LoadBalancer", &all, &["10.5.5.5"])]]);
    let explained = synced.all(Policy::Sync, "service/a/lb");
    assert_eq!((explained.len(), explained[0].verdict), (100, Verdict::Blocked));
    assert_eq!((explained[0].workload.as_deref(), explained[99].left_out), (Some("Deployment a/z"), 21));
    let epg = explained[1].epg.as_ref().unwrap();
    assert_eq!((epg.workloads.len(), epg.workloads_total), (20, 120));
}

/// T7: only a subnet with the scope flag `import-security` classifies traffic.
#[test]
fn longest_match() {
    let apic = fabric();
    for (name, prefix, scope) in [
        ("A", "0.0.0.0/0", "import-security"),
        ("B", "10.0.0.0/8", "import-rtctrl"),
        ("C", "10.7.0.0/16", "export-rtctrl,import-security"),
    ] {
        let dn = format!("uni/tn-T/out-L/instP-{name}");
        apic.admin.set(&dn, "l3extInstP", &[]).unwrap();
        apic.admin.set(&format!("{dn}/extsubnet-[{prefix}]"), "l3extSubnet", &[("scope", scope)]).unwrap();
    }
    let synced = synced(&apic, [&[deployment("web", E)], &[], &[]]);
    for (ip, prefix) in [("10.7.7.7", "10.7.0.0/16"), ("10.8.0.1", "0.0.0.0/0"), ("192.0.2.1", "0.0.0.0/0")] {
        let prefixes: Vec<String> = synced.one(ip).longest_match.into_iter().map(|it| it.prefix).collect();
        assert_eq!(prefixes, [prefix], "{ip}");
    }
    assert!(synced.one("fd00::1").longest_match.is_empty());
}

/// T7: what is left of another Deployment in a shared EPG is not this one's.
#[test]
fn two_deployments_in_one_epg() {
    let apic = fabric();
    let both = [deployment("one", E), deployment("two", E)];
    synced(&apic, [&both, &[pod("one", 1, &["10.0.0.1"]), pod("two", 1, &["10.0.0.2"])], &[]]);
    let after = look(&apic, Rules::default(), Policy::Observe, [&both, &[pod("one", 1, &["10.0.0.1"])], &[]]);
    assert_eq!((after.verdict("a/one"), after.verdict(DN_E)), (Verdict::InSync, Verdict::Pending));
}

/// T7: what a subject can be.
#[test]
fn subjects() {
    for (text, expected) in [
        ("shop/web", "Named(None, Key { namespace: \"shop\", name: \"web\" })"),
        ("Pod/shop/web-1", "Named(Some(Pod), Key { namespace: \"shop\", name: \"web-1\" })"),
        ("10.0.0.1", "Address(10.0.0.1)"),
        ("10.0.0.1/32", "Address(10.0.0.1)"),
        ("FD00::1/128", "Address(fd00::1)"),
    ] {
        assert_eq!(format!("{:?}", Subject::parse(text).unwrap()), expected);
    }
    assert!(matches!(Subject::parse(DN_E), Ok(Subject::Epg(dn)) if dn.to_string() == DN_E));
    assert!(matches!(Subject::parse(&format!("{DN_E}/extsubnet-[10.0.0.1/32]")), Ok(Subject::Subnet(..))));
    for bad in [
        "",
        "web",
        "a/b/c/d",
        "node/a/b",
        "10.0.0.0/24",
        "uni/tn-T/out-L",
        "uni/tn-T/out-L/instP-E/rscons-x",
        "../x",
        "a/B",
    ] {
        assert!(Subject::parse(bad).is_err(), "{bad:?}");
    }
}

/// T7: docs/explain.md has each verdict with its exit code, and each reason.
#[test]
fn the_document_has_all_words() {
    let document = std::fs::read_to_string("docs/explain.md").unwrap();
    let all = [
        Verdict::InSync,
        Verdict::NotManaged,
        Verdict::NotDesired,
        Verdict::Pending,
        Verdict::Observing,
        Verdict::Paused,
        Verdict::Blocked,
        Verdict::Refused,
        Verdict::Conflict,
        Verdict::Foreign,
        Verdict::NotAllowed,
        Verdict::Invalid,
        Verdict::Unknown,
    ];
    for verdict in all {
        assert_eq!(json!(verdict), verdict.name());
        let row = format!("| `{}` | {} |", verdict.name(), verdict.exit_code());
        assert!(document.contains(&row), "{row}");
    }
    let reasons = [
        NotExposed::HostNetwork,
        NotExposed::Phase,
        NotExposed::NoAddress,
        NotExposed::InvalidAddress,
        NotExposed::Expose,
        NotExposed::Type,
        NotExposed::NoSelector,
        NotExposed::Selector,
        NotExposed::HostnameOnly,
        NotExposed::BelongsToAnother,
        NotExposed::Address,
    ];
    for reason in reasons {
        let row = format!("| `{}` |", json!(reason).as_str().unwrap());
        assert!(document.contains(&row), "{row}");
    }
}
