//! W1, D3, R6: what counts as a complete view, and what an event changes.

use std::time::Instant;

use aci_sync::kube::objects;
use aci_sync::model::inventory::{CLOSED_WATCH_LIMIT, Changed, Inventory, WATCH_PROVEN};
use aci_sync::model::kubernetes::{Key, Kind, Object, Workload};
use serde_json::json;

fn deployment(uid: &str, annotation: &str) -> Object {
    let json = json!({"metadata": {"namespace": "n", "name": "d", "uid": uid,
        "annotations": {"aci.haystacknetworks.com/l3o": annotation}}});
    objects::decode(Kind::Deployment, json.to_string().as_bytes()).unwrap()
}

const VALID: &str = r#"{"tenant":"T","l3out":"L","epg":"E"}"#;

/// W1: complete means listed, no relist due, and an open watch within the last 60 s.
#[test]
fn completeness() {
    let start = Instant::now();
    let mut inventory = Inventory::default();
    assert_eq!(inventory.incomplete(start).len(), 3);
    inventory.live(Kind::Pod);
    assert_eq!(inventory.incomplete(start).len(), 3, "an open watch without a list is no view");
    for kind in Kind::DEFAULT {
        inventory.listed(kind, vec![], start);
    }
    assert_eq!(inventory.incomplete(start), []);
    assert_eq!(inventory.incomplete(start + CLOSED_WATCH_LIMIT).len(), 3, "no watch was ever opened");
    for kind in Kind::DEFAULT {
        inventory.live(kind);
    }
    let later = start + 100 * CLOSED_WATCH_LIMIT;
    assert_eq!(inventory.incomplete(later), []);
    inventory.interrupted(Kind::Pod, later);
    inventory.interrupted(Kind::Pod, later + CLOSED_WATCH_LIMIT / 2);
    assert_eq!(inventory.incomplete(later + CLOSED_WATCH_LIMIT / 2), []);
    assert_eq!(inventory.incomplete(later + CLOSED_WATCH_LIMIT), [Kind::Pod], "counted from the first end");
    inventory.live(Kind::Pod);
    inventory.relisting(Kind::Service);
    inventory.live(Kind::Service);
    assert_eq!(inventory.incomplete(later), [Kind::Service], "a relist is over when its list is there");
}

/// W1: a watch that was opened is not live before it delivered something or lasted; until then the minute runs on,
/// also over watch after watch that ends at once.
#[test]
fn an_opened_watch_is_not_live_yet() {
    let second = std::time::Duration::from_secs(1);
    let start = Instant::now();
    let mut inventory = Inventory::default();
    for kind in Kind::DEFAULT {
        inventory.listed(kind, vec![], start);
        inventory.live(kind);
    }
    inventory.interrupted(Kind::Pod, start);
    for n in 0..59 {
        inventory.opened(Kind::Pod, start + n * second);
        inventory.interrupted(Kind::Pod, start + n * second + second / 2);
    }
    assert_eq!(inventory.incomplete(start + 59 * second), []);
    assert_eq!(inventory.incomplete(start + 60 * second), [Kind::Pod]);

    inventory.opened(Kind::Pod, start + 70 * second);
    let proven = start + 70 * second + WATCH_PROVEN;
    assert_eq!(inventory.incomplete(proven - second), [Kind::Pod]);
    assert_eq!(inventory.next_complete(), Some(proven), "deletes wait for that moment");
    assert_eq!(inventory.incomplete(proven), []);
    inventory.settle(proven);
    assert_eq!(inventory.next_complete(), None);
    inventory.interrupted(Kind::Pod, proven + second);
    assert_eq!(inventory.incomplete(proven + 60 * second), [], "it counts from the end of the live one");
    inventory.opened(Kind::Pod, proven + 2 * second);
    assert_eq!(inventory.next_complete(), None, "nothing waits for it");
    inventory.live(Kind::Pod);
    assert_eq!(inventory.incomplete(proven + 100 * second), []);
}

/// D3: a typo leaves the last valid binding of the same Deployment in force, also over a relist; a Deployment
/// that was created again starts without one.
#[test]
fn a_typo_keeps_the_last_valid_binding() {
    let id = Workload { key: Key::new("n", "d"), kind: Kind::Deployment };
    let mut inventory = Inventory::default();
    inventory.upsert(deployment("1", "{"));
    assert_eq!(inventory.managed[&id].binding, None);
    inventory.upsert(deployment("1", VALID));
    inventory.upsert(deployment("1", "{"));
    assert!(inventory.managed[&id].annotation.is_err());
    assert!(inventory.managed[&id].binding.is_some());
    inventory.listed(Kind::Deployment, vec![deployment("1", "{{")], Instant::now());
    assert!(inventory.managed[&id].binding.is_some());
    inventory.listed(Kind::Deployment, vec![deployment("2", "{{")], Instant::now());
    assert_eq!(inventory.managed[&id].binding, None);
}

/// D2: every value but `false` and none pauses a Deployment, and keys that begin like ours are remembered, even if the
/// Deployment is not managed.
#[test]
fn pauses_and_misannotated_keys() {
    let decode = |annotations: serde_json::Value| {
        let metadata = json!({"namespace": "n", "name": "d", "uid": "1", "annotations": annotations});
        objects::decode(Kind::Deployment, json!({"metadata": metadata}).to_string().as_bytes()).unwrap()
    };
    for (value, paused, odd) in [
        ("true", true, None),
        ("false", false, None),
        ("", false, None),
        ("yes", true, Some("yes")),
        ("False", true, Some("False")),
        ("0", true, Some("0")),
    ] {
        let Object::Workload(it) = decode(json!({"aci.haystacknetworks.com/pause": value})) else { panic!() };
        assert_eq!((it.paused, it.invalid_pause.as_deref()), (paused, odd), "{value:?}");
        assert!(!Object::Workload(it).is_kept());
    }
    let key = Key::new("n", "d");
    let id = Workload { key: key.clone(), kind: Kind::Deployment };
    let mut inventory = Inventory::default();
    let mistaken = || decode(json!({"aci.haystacknetworks.com/l3out": VALID, "other.example/l3o": VALID}));
    assert_eq!([inventory.upsert(mistaken()), inventory.upsert(mistaken())], [Changed::Everything, Changed::Nothing]);
    assert_eq!(inventory.misannotated[&id].unknown_keys.to_string(), r#""aci.haystacknetworks.com/l3out""#);
    assert_eq!(inventory.upsert(deployment("1", VALID)), Changed::Everything);
    assert!(inventory.misannotated.is_empty());
    assert_eq!(inventory.upsert(mistaken()), Changed::Everything);
    assert!(inventory.managed.is_empty());
    inventory.listed(Kind::Deployment, vec![mistaken()], Instant::now());
    assert!(inventory.managed.is_empty() && inventory.misannotated.len() == 1);
    let mut gone = || inventory.gone(Kind::Deployment, &key);
    assert_eq!([gone(), gone()], [Changed::Everything, Changed::Nothing]);
}

/// X3: what has no name that an API server accepts is no object.
#[test]
fn names_are_those_of_kubernetes() {
    let decode = |namespace: &str, name: &str| {
        let json = json!({"metadata": {"namespace": namespace, "name": name}});
        Kind::ALL.map(|kind| objects::decode(kind, json.to_string().as_bytes()).is_ok())
    };
    let longest = "x".repeat(253);
    for name in ["a", "web-5d9c7-x", "a.b-c.d", "0", &longest] {
        assert_eq!(decode("n", name), [true; 5], "{name}");
    }
    for name in ["", "A", "a_b", "a/b", "a..b", "-a", "a-", "a\u{e9}", "a b", "a\n", &format!("{longest}x")] {
        assert_eq!(decode("n", name), [false; 5], "{name}");
    }
    for namespace in ["N", "a.b", "a/b", "", &"x".repeat(64)] {
        assert_eq!(decode(namespace, "a"), [false; 5], "{namespace}");
    }
}

/// R6: an event that changes no record is no cause for a reconcile.
#[test]
fn equal_records_change_nothing() {
    let mut inventory = Inventory::default();
    assert_eq!(inventory.upsert(deployment("1", VALID)), Changed::Everything);
    assert_eq!(inventory.upsert(deployment("1", VALID)), Changed::Nothing);
    assert_eq!(inventory.gone(Kind::Deployment, &Key::new("n", "d")), Changed::Everything);
    assert_eq!(inventory.gone(Kind::Deployment, &Key::new("n", "d")), Changed::Nothing);
}
