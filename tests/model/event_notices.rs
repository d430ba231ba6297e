//! K5 over time: warnings that last, that end, and that are too many at once. The clock is an argument.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aci_sync::kube::Event;
use aci_sync::model::kubernetes::{Key, Kind, Object};
use aci_sync::model::rules::{Policy, Rules};
use aci_sync::reconcile::Reconciler;
use sim::apic::{InMemoryApic, Variants};

use crate::fixtures::*;

const MINUTE: Duration = Duration::from_secs(60);

/// The notices of a reconcile: reason, object, and whether it is a warning.
fn notices(reconciler: &mut Reconciler, session: &Session, now: Instant) -> Vec<String> {
    let notices = reconcile(reconciler, session, now).notices.into_iter();
    notices
        .map(|it| format!("{}{} {}", if it.reason.is_warning() { "! " } else { "" }, it.reason, it.about.key))
        .collect()
}

fn without_l3out() -> InMemoryApic {
    let apic = InMemoryApic::new(Variants::default());
    apic.admin.setup_tenant("T", "V", &[]).unwrap();
    apic
}

/// A Deployment whose annotation cannot be read.
fn invalid(namespace: &str, name: &str) -> Object {
    naming(namespace, name, "T/L/no name")
}

/// K5: a warning that lasts is repeated every 30 minutes, the reconciler wakes for it, and its end is a Normal Event that
/// names it. What is Normal is said once.
#[test]
fn lasting_warnings_are_repeated_and_their_end_is_reported() {
    let (apic, start) = (without_l3out(), Instant::now());
    let session = Session::at(&apic);
    let all = vec![deployment("web", "E", &[]), deployment("still", "E", &[("pause", "true")])];
    let mut reconciler = listed(Policy::Sync, all, Vec::new(), start);
    let missing = ["! L3OutNotFound a/still", "! L3OutNotFound a/web"];
    assert_eq!(notices(&mut reconciler, &session, start), ["Paused a/still", missing[0], missing[1]]);
    for (minute, expected) in [(1, &[][..]), (29, &[]), (30, &missing), (31, &[]), (59, &[]), (60, &missing)] {
        let now = start + minute * MINUTE;
        let next = reconciler.next_wake().unwrap();
        assert!(next > now - MINUTE && (expected.is_empty() || next == now), "minute {minute}");
        assert_eq!(notices(&mut reconciler, &session, now), expected, "minute {minute}");
    }

    apic.admin.setup_tenant("T", "V", &["L"]).unwrap();
    session.deliver_events(&mut reconciler);
    let ended = reconcile(&mut reconciler, &session, start + 61 * MINUTE).notices;
    let ended: Vec<_> = ended.iter().map(|it| (it.reason.to_string(), it.about.key.to_string(), &*it.note)).collect();
    let resolved = |key: &str| ("Resolved".to_owned(), key.to_owned(), "L3OutNotFound no longer holds");
    assert_eq!(ended, [resolved("a/still"), resolved("a/web")]);

    hears(&mut reconciler, deployment("still", "E", &[]), start + 62 * MINUTE);
    for minute in [62, 91, 120] {
        assert_eq!(notices(&mut reconciler, &session, start + minute * MINUTE), [""; 0], "minute {minute}");
    }
}

/// K4, K5: a new leader says what holds, and never that something has ended of which it did not warn.
#[test]
fn a_new_leader_resolves_only_what_it_warned_of() {
    let (apic, start) = (without_l3out(), Instant::now());
    let session = Session::at(&apic);
    let all = vec![deployment("web", "E", &[]), invalid("a", "bad")];
    let mut reconciler = listed(Policy::Sync, all, Vec::new(), start);
    assert_eq!(notices(&mut reconciler, &session, start), ["! InvalidAnnotation a/bad", "! L3OutNotFound a/web"]);

    reconciler.start_over();
    apic.admin.setup_tenant("T", "V", &["L"]).unwrap();
    assert_eq!(notices(&mut reconciler, &session, start + MINUTE), ["! InvalidAnnotation a/bad"]);
    hears(&mut reconciler, naming("a", "bad", "T/L/E"), start + MINUTE);
    assert_eq!(notices(&mut reconciler, &session, start + MINUTE), ["Resolved a/bad"], "of this it has warned");
}

/// K5, X3: a finding that merely finds no room within the limits has not ended, and nothing says so.
#[test]
fn what_is_not_shown_has_not_ended() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let all = (10..30).map(|n| invalid("a", &format!("d{n}"))).collect();
    let mut reconciler = listed(Policy::Sync, all, Vec::new(), start);
    assert_eq!(notices(&mut reconciler, &session, start).len(), 20);
    hears(&mut reconciler, invalid("a", "d00"), start);
    assert_eq!(notices(&mut reconciler, &session, start), ["! InvalidAnnotation a/d00"], "d29 has lost its place");

    let gone = |name: &str| Event::Gone { kind: Kind::Deployment, key: Key::new("a", name) };
    reconciler.cluster_changed(gone("d29"), start);
    assert_eq!(notices(&mut reconciler, &session, start), ["Resolved a/d29"]);
    reconciler.cluster_changed(gone("d00"), start);
    assert_eq!(notices(&mut reconciler, &session, start), ["Resolved a/d00"]);
}

/// K5, X3: what is too much for the queue of Events, or for the share of a namespace, comes later, and nothing of it is
/// lost; other namespaces do not wait for it.
#[test]
fn too_many_notices_take_turns() {
    let (apic, start) = (without_l3out(), Instant::now());
    let session = Session::at(&apic);
    let mut all: Vec<Object> = (0..250).map(|n| naming("evil", &format!("d{n:03}"), "T/L/E")).collect();
    all.push(naming("shop", "web", "T/L/W"));
    let mut reconciler = reconciler(Rules::default(), Policy::Sync, all, Vec::new(), start);
    let mut seen = BTreeSet::new();
    for (minute, expected) in [(0, 101), (1, 100), (2, 50), (3, 0), (30, 101), (31, 100)] {
        let now = start + minute * MINUTE;
        assert!(minute == 0 || expected == 0 || reconciler.next_wake().is_some_and(|at| at <= now), "minute {minute}");
        let new = notices(&mut reconciler, &session, now);
        assert_eq!(new.len(), expected, "minute {minute}");
        assert_eq!(new.contains(&"! L3OutNotFound shop/web".to_owned()), expected == 101, "minute {minute}");
        assert!(minute >= 30 || new.into_iter().all(|it| seen.insert(it)), "twice");
        assert_eq!(notices(&mut reconciler, &session, now), [""; 0], "the share of this minute is used up");
    }
    assert_eq!(seen.len(), 251);

    // All namespaces together have a limit, too, which is less than the queue holds.
    let all = (0..600).map(|n| naming(&format!("n{n}"), "web", "T/L/E")).collect();
    let mut reconciler = crate::fixtures::reconciler(Rules::default(), Policy::Sync, all, Vec::new(), start);
    assert_eq!(
        [0, 0, 1, 2].map(|minute| notices(&mut reconciler, &session, start + minute * MINUTE).len()),
        [500, 0, 100, 0]
    );
}

/// K5: the first sync and the release of a Deployment wait for their turn as well.
#[test]
fn a_sync_and_a_release_wait_for_their_turn() {
    let (apic, start) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let names: Vec<String> = (0..120).map(|n| format!("d{n:03}")).collect();
    let deployments = names.iter().map(|name| deployment(name, "E", &[])).collect();
    let mut reconciler = listed(Policy::Sync, deployments, vec![pod("d000", 1, "10.0.0.1")], start);
    let count = |reconciler: &mut Reconciler, minute: u32, reason: &str| {
        let all = notices(reconciler, &session, start + minute * MINUTE);
        assert!(all.iter().all(|it| it.starts_with(reason)), "{all:?}");
        all.len()
    };
    assert_eq!([0, 1, 2].map(|minute| count(&mut reconciler, minute, "Synced ")), [100, 20, 0]);
    for name in &names {
        reconciler
            .cluster_changed(Event::Gone { kind: Kind::Deployment, key: Key::new("a", name) }, start + 3 * MINUTE);
    }
    assert_eq!([3, 4, 5].map(|minute| count(&mut reconciler, minute, "Released ")), [100, 20, 0]);
}
