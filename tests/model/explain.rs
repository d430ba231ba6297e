//! T7: verdicts and reasons that the simulated worlds do not reach, the subjects, and that the document has all of them.

use std::time::{Duration, Instant};

use aci_sync::kube::{Event, objects};
use aci_sync::model::explain::{Explanation, LookedAt, NotExposed, Subject, Verdict};
use aci_sync::model::kubernetes::Kind;
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::rules::{Policy, Rules};
use aci_sync::reconcile::Reconciler;
use serde_json::{Value, json};
use sim::apic::{InMemoryApic, Variants};

use crate::fixtures::{DN_E, Session};

/// What `explain` says of a Deployment `a/web` with one Pod, if only a look at it was taken.
fn explained(apic: &InMemoryApic, rules: Rules, policy: Policy, pod: &Value, subject: &str) -> Explanation {
    let mut reconciler = Reconciler::new(OwnerIdentity::new("me", &[]), rules, Policy::Observe, Duration::ZERO);
    let annotation = r#"{"tenant":"T","l3out":"L","epg":"E"}"#;
    let deployment = json!({"metadata": {"namespace": "a", "name": "web", "uid": "u1",
        "annotations": {"aci.haystacknetworks.com/l3o": annotation}},
        "spec": {"template": {"metadata": {"labels": {"app": "web"}}}}});
    let now = Instant::now();
    for (kind, all) in [(Kind::Deployment, vec![&deployment]), (Kind::Pod, vec![pod]), (Kind::Service, vec![])] {
        let decoded = all.into_iter().map(|it| objects::decode(kind, it.to_string().as_bytes()).unwrap()).collect();
        reconciler.cluster_changed(Event::Listed { kind, objects: decoded }, now);
        reconciler.cluster_changed(Event::Live { kind }, now);
    }
    let session = Session::at(apic);
    reconciler.reconcile(&session, now, &session).unwrap();
    assert!(session.writes.borrow().is_empty());
    let subject = Subject::parse(subject).unwrap();
    let mut all = reconciler.explain(&subject, &LookedAt { policy, unneeded: &[], subnets: &[], faults: None }, now);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn pod(ips: &Value) -> Value {
    json!({"metadata": {"namespace": "a", "name": "web-1", "uid": "u2", "labels": {"app": "web", "pod-template-hash": "5d9c7"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d9c7", "controller": true}]},
        "status": {"phase": "Running", "podIPs": ips}})
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
    let one = pod(&json!([{"ip": "10.0.0.1"}]));
    let of = |policy, subject| explained(&apic, Rules::default(), policy, &one, subject).verdict;
    for subject in ["a/web", "pod/a/web-1", "10.0.0.1", DN_E] {
        assert_eq!((of(Policy::Sync, subject), of(Policy::Observe, subject)), (Verdict::Pending, Verdict::Observing));
    }
    let bad = explained(&apic, Rules::default(), Policy::Sync, &pod(&json!([{"ip": "10.0.0"}])), "pod/a/web-1");
    assert_eq!(bad.not_exposed[0].reason, NotExposed::InvalidAddress);
    apic.admin.set(DN_E, "l3extInstP", &[("annotation", "orchestrator:terraform")]).unwrap();
    let rules = Rules { use_foreign: false, ..Rules::default() };
    let refused = explained(&apic, rules, Policy::Sync, &one, "a/web");
    assert_eq!(refused.verdict, Verdict::Refused, "{refused:#?}");
    let json = serde_json::to_value(&refused).unwrap();
    assert_eq!(json["subject"], json!({"kind": "Deployment", "namespace": "a", "name": "web"}));
    assert_eq!((&json["verdict"], &json["epg"]["code"]), (&json!("refused"), &json!("ForeignEpgRefused")));
    assert_eq!(json["addresses"][0]["state"], "missing");
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
