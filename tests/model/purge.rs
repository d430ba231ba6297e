//! T11: what `purge` deletes of a fabric and what stays, as tables, and what the writer sends of it.

use std::cell::RefCell;

use aci_sync::apic::Error;
use aci_sync::apic::traits::{ApicWrite, ShouldSend, WriteAnswer};
use aci_sync::apic::writer::request::WriteRequest;
use aci_sync::apic::writer::{Refusal, Writer};
use aci_sync::model::cache::FabricCache;
use aci_sync::model::dn::{EpgDn, L3outDn, Name, ObjectDn};
use aci_sync::model::mo::{Attributes, Mo};
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::purge::{EpgPurge, plan, plan_epg};
use aci_sync::model::rules::{Policy, Rules};

/// Annotations by a word of a table.
const MARKS: [(&str, &str); 7] = [
    ("own", "orchestrator:aci-sync:me"),
    ("longer", "orchestrator:aci-sync:me2"),
    ("shorter", "orchestrator:aci-sync:m"),
    ("other", "orchestrator:terraform"),
    ("none", ""),
    ("python", "orchestrator:aci-k8-haystack"),
    ("old", "orchestrator:aci-sync:old"),
];

fn l3out() -> L3outDn {
    L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() }
}

fn epg(name: &str) -> EpgDn {
    l3out().epg(Name::object(name).unwrap())
}

fn mark(word: &str) -> Box<str> {
    MARKS.iter().find(|it| it.0 == word).unwrap_or_else(|| panic!("{word}")).1.into()
}

/// An L3Out of lines such as `E own: own own none rscons-web`: an EPG, its subnets by annotation (`broken`: its address cannot
/// be read), and its relations. `tag KEY` is a tag.
fn objects(world: &str) -> Vec<Mo> {
    let mo = |class: &str, dn: String, annotation: Box<str>| {
        let attributes =
            Attributes { annotation: Some(annotation), name: Some("a::b".into()), ..Attributes::default() };
        Mo { class: class.to_owned(), dn, attributes }
    };
    let mut mos = vec![mo("l3extOut", l3out().to_string(), "".into())];
    for line in world.lines().map(str::trim).filter(|it| !it.is_empty()) {
        if let Some(key) = line.strip_prefix("tag ") {
            mos.push(mo("tagAnnotation", l3out().tag(key), "".into()));
            continue;
        }
        let (head, rest) = line.split_once(':').unwrap();
        let (name, annotation) = head.split_once(' ').unwrap();
        mos.push(mo("l3extInstP", epg(name).to_string(), mark(annotation)));
        for (n, word) in rest.split_whitespace().enumerate() {
            mos.push(match word {
                "broken" => mo("l3extSubnet", epg(name).subnet("10.0.0.x"), mark("own")),
                _ if word.starts_with("rs") => mo("fvRsCons", format!("{}/{word}", epg(name)), "".into()),
                _ => mo("l3extSubnet", epg(name).subnet(&format!("10.0.0.{n}/32")), mark(word)),
            });
        }
    }
    mos
}

fn fabric(world: &str, owner: OwnerIdentity) -> FabricCache {
    let mut fabric = FabricCache::new(owner);
    fabric.put_l3out(&l3out(), &objects(world), false);
    fabric
}

fn own() -> OwnerIdentity {
    OwnerIdentity::purging("me", &["old".to_owned()], false)
}

fn legacy() -> OwnerIdentity {
    OwnerIdentity::purging("me", &["old".to_owned()], true)
}

/// Takes every write and keeps it in short: its method, its DN, and its root's `status`.
#[derive(Default)]
struct Sent(RefCell<Vec<String>>);

impl ApicWrite for Sent {
    fn write(&self, request: &WriteRequest, _: &ShouldSend<'_>) -> Result<WriteAnswer, Error> {
        let dn = request.dn().replace("uni/tn-T/out-L", "L").replace("/instP-", " ").replace("/extsubnet-", " ");
        let text = match request.body().map(|it| serde_json::to_value(it).unwrap()) {
            None => format!("DELETE {dn}"),
            Some(body) => {
                let root = &body["l3extInstP"];
                assert!(root["attributes"]["annotation"].is_null() || root["attributes"]["annotation"] == *mark("own"));
                let subnets = root["children"].as_array().map_or(0, Vec::len);
                let status = root["attributes"]["status"].as_str().unwrap_or("-");
                format!("POST {dn} {} {status} {subnets}", root["attributes"]["name"].as_str().unwrap())
            }
        };
        self.0.borrow_mut().push(text);
        Ok(WriteAnswer::Changes(Vec::new()))
    }
}

/// What is sent for a plan, in its order, and why EPGs stay.
fn sent(fabric: &FabricCache, plan: &[EpgPurge]) -> Vec<String> {
    let session = Sent::default();
    for it in plan {
        for transaction in &it.transactions {
            Writer::new(Policy::Sync).send(&session, fabric, transaction, &|| true).unwrap();
        }
        if let Some(stays) = &it.stays {
            session.0.borrow_mut().push(format!("{}: {}", it.epg.name, stays.text));
        }
    }
    session.0.into_inner()
}

/// T11, W2, O3: exactly our annotation goes, EPGs with foreign subnets or, with `--keep-contracted`, contract relations stay,
/// and legacy objects go with `--legacy` alone. An EPG that is not ours is never written to.
#[test]
fn what_goes_and_what_stays() {
    let keep = |rules: Rules| Rules { keep_contracted: true, ..rules };
    let small = |rules: Rules| Rules { batch: 2, ..rules };
    let same = |rules: Rules| rules;
    for (world, owner, rules, expected) in [
        ("", own(), same as fn(Rules) -> Rules, &[][..]),
        ("E own:", own(), same, &["POST L E deleted 0"]),
        ("E own: own own rscons-a", own(), same, &["POST L E deleted 0"]),
        (
            "E own: own own rscons-a",
            own(),
            keep,
            &["POST L E - 2", "E: the EPG stays: it has 1 contract relation (--keep-contracted)"],
        ),
        ("E own: own own", own(), keep, &["POST L E deleted 0"]),
        (
            "E own: own none own own",
            own(),
            small,
            &["POST L E - 2", "POST L E - 1", "E: the EPG stays: it holds 1 foreign subnet"],
        ),
        ("E own: longer", own(), same, &["E: the EPG stays: it holds 1 foreign subnet"]),
        ("E own: python old", own(), same, &["E: the EPG stays: it holds 2 foreign subnets"]),
        ("E own: broken", own(), same, &["E: the EPG stays: it holds 1 foreign subnet"]),
        ("E none: own other none own", own(), same, &["DELETE L E [10.0.0.0/32]", "DELETE L E [10.0.0.3/32]"]),
        ("E longer: own longer", own(), same, &["DELETE L E [10.0.0.0/32]"]),
        ("E longer: longer\nF shorter: shorter\nG other: none\nH python: python\nI old: old", own(), same, &[]),
        (
            "tag aci-sync:me:E\ntag aci-sync:me2:E\ntag aci-sync:old:F\ntag me:E\ntag x-aci-sync:me:E",
            own(),
            same,
            &["DELETE L/annotationKey-[aci-sync:me:E]"],
        ),
        (
            "E none: own\ntag aci-sync:me:E",
            own(),
            same,
            &["DELETE L E [10.0.0.0/32]", "DELETE L/annotationKey-[aci-sync:me:E]"],
        ),
        ("E own: python old own", legacy(), same, &["POST L E deleted 0"]),
        ("E python: python own\nF old:", legacy(), same, &["POST L F deleted 0", "POST L E deleted 0"]),
        (
            "E python: python none",
            legacy(),
            same,
            &["DELETE L E [10.0.0.0/32]", "E: the EPG stays: it holds 1 foreign subnet"],
        ),
        ("E own: longer python", legacy(), same, &["POST L E - 1", "E: the EPG stays: it holds 1 foreign subnet"]),
        ("tag aci-sync:me2:E\ntag aci-sync:old:F", legacy(), same, &["DELETE L/annotationKey-[aci-sync:old:F]"]),
    ] {
        let fabric = fabric(world, owner);
        let plan = plan(&fabric, &rules(Rules::default()), |_| false);
        assert_eq!(sent(&fabric, &plan), expected, "{world}");
    }
}

/// T11: what a daemon restores goes first: the smallest EPG, without an EPG that goes one subnet alone.
#[test]
fn the_first_deletion_is_the_smallest() {
    let canary = |world: &str, named: &str| {
        let fabric = fabric(world, own());
        let plan = plan(&fabric, &Rules::default(), |epg| named.contains(epg.name.as_str()));
        let session = Sent::default();
        let first = plan[0].canary().unwrap();
        Writer::new(Policy::Sync).send(&session, &fabric, &first, &|| true).unwrap();
        session.0.into_inner().remove(0)
    };
    for (world, named, expected) in [
        ("A own: own own\nB own: own\nC own: own own own", "", "POST L B deleted 0"),
        ("A own: own own\nB own: own\nC own: own own own", "AC", "POST L A deleted 0"),
        ("A none: own\nB own: own own", "A", "DELETE L A [10.0.0.0/32]"),
        ("A none: own\nB own: own own", "", "POST L B deleted 0"),
        ("A none: own own own\nB none: own own", "", "DELETE L B [10.0.0.0/32]"),
        ("A own: own own none", "", "DELETE L A [10.0.0.0/32]"),
        ("A own: none\nB none: own", "A", "DELETE L B [10.0.0.0/32]"),
        ("tag aci-sync:me:E", "", "DELETE L/annotationKey-[aci-sync:me:E]"),
    ] {
        assert_eq!(canary(world, named), expected, "{world}");
    }
}

/// T11: the number to type counts EPGs, subnets and tags, those that go with an EPG included; what is not part of what was shown
/// is noticed.
#[test]
fn more_than_was_shown_is_noticed() {
    let purge = |world: &str| plan_epg(&fabric(world, own()), &Rules::default(), &epg("E"));
    let shown = purge("E own: own own rscons-a\ntag aci-sync:me:E");
    let count = |prefix: bool| shown.objects.iter().filter(|it| it.prefix().is_some() == prefix).count();
    assert_eq!((shown.objects.len(), count(true), shown.relations.len(), shown.deletes_epg()), (4, 2, 1, true));
    for (world, is_part) in [
        ("", true),
        ("E own: own own rscons-a", true),
        ("E own: own", true),
        ("E own: own none", true),
        ("E none: own own", true),
        ("E own: own own own", false),
        ("E own: own own rscons-a rscons-b", false),
    ] {
        assert_eq!(purge(world).is_part_of(&shown), is_part, "{world}");
    }
    let stays = purge("E own: own none");
    assert!(!stays.objects.contains(&ObjectDn::Epg(epg("E"))));
    assert!(!purge("E own: own").is_part_of(&stays), "the EPG itself was not shown");
}

/// T11, W5, W7: the writer refuses what the last read does not show as ours, and legacy objects without `--legacy`.
#[test]
fn the_writer_checks_once_more() {
    let refused = |world: &str, planned_by: OwnerIdentity, now: &str, owner: OwnerIdentity| {
        let planned = plan(&fabric(world, planned_by), &Rules::default(), |_| false);
        let session = Sent::default();
        let fabric = fabric(now, owner);
        let result = Writer::new(Policy::Sync).send(&session, &fabric, &planned[0].transactions[0], &|| true);
        assert!(session.0.borrow().is_empty() == result.is_err());
        matches!(result, Err(Refusal::WrongPlan(_)))
    };
    for (world, now) in [
        ("E own: own", "E longer: own"),
        ("E own: own", "E own: longer"),
        ("E own: own", ""),
        ("E none: own", "E none: none"),
        ("tag aci-sync:me:E", "tag aci-sync:me2:E"),
    ] {
        assert!(refused(world, own(), now, own()), "{world} -> {now}");
        assert!(!refused(world, own(), world, own()), "{world}");
    }
    for world in ["E python: python", "E none: python", "E old:"] {
        assert!(!refused(world, legacy(), world, legacy()) && refused(world, legacy(), world, own()), "{world}");
    }
    // Outside of `purge` they stay, too.
    let daemon = || OwnerIdentity::new("me", &["old".to_owned()]);
    assert!(
        refused("E old:", legacy(), "E old:", daemon()) && refused("E none: old", legacy(), "E none: old", daemon())
    );
}
