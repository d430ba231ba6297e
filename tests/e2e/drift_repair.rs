//! What aci-sync made, it keeps: deleted objects come back, what matters is put back, everything else is left alone;
//! also when the news of it was lost.

use std::time::Duration;

use crate::world::{DN_E, DN_F, E, F, MARK, World};
use serde_json::json;
use sim::apic::{self, Variants, WriteAnswer};
use sim::kube;

const ONE: &str = "uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32]";

fn served(world: &World) {
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
}

/// R1: a deleted EPG comes back with all its subnets, a deleted subnet by itself.
#[test]
fn deleted_objects_come_back() {
    World::both(|world| {
        let _daemon = world.run(&[]);
        served(world);
        world.until_read_again();
        world.apic.admin_delete(DN_E).unwrap();
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        assert_eq!(world.apic.get(DN_E).unwrap()["annotation"], MARK);
        world.apic.admin_delete(ONE).unwrap();
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    });
}

/// R7: with `--restore-contracts` a deleted EPG comes back with its contract relations, which stay people's.
#[test]
fn contract_relations_come_back_if_asked() {
    World::both(|world| {
        let daemon = world.run(&["--restore-contracts"]);
        served(world);
        world.until_read_again();
        let relations = [("fvRsProv", "tnVzBrCPName", "rsprov-web"), ("fvRsConsIf", "tnVzCPIfName", "rsconsIf-shared")];
        for (class, attribute, rn) in relations {
            let name = rn.split_once('-').unwrap().1;
            world.apic.admin_post(DN_E, &json!({class: {"attributes": {attribute: name}}})).unwrap();
        }
        world.settle();
        world.apic.admin_delete(DN_E).unwrap();
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        for (.., rn) in relations {
            let relation = format!("{DN_E}/{rn}");
            world.until(rn, |world| world.apic.get(&relation).is_some());
            assert_eq!(world.apic.get(&relation).unwrap()["annotation"], "");
        }
        assert_eq!(daemon.count("restored without its contract relations"), 0);
    });
}

/// R2: name, required scope and owner mark are put back; added flags, descriptions and contracts stay.
#[test]
fn managed_attributes_are_repaired() {
    World::both(|world| {
        let _daemon = world.run(&[]);
        served(world);
        let attribute = |dn: &str, name: &str| world.apic.get(dn).unwrap()[name].as_str().unwrap().to_owned();
        let changes = [("scope", "shared-rtctrl"), ("name", "mine"), ("descr", "by hand"), ("nameAlias", "alias")];
        world.apic.set(ONE, "l3extSubnet", &changes).unwrap();
        world.until("scope and name are back", |_| {
            attribute(ONE, "scope") == "import-security,shared-rtctrl" && attribute(ONE, "name").starts_with("a::web-")
        });
        assert_eq!((attribute(ONE, "descr"), attribute(ONE, "nameAlias")), ("by hand".to_owned(), "alias".to_owned()));

        world.apic.set(ONE, "l3extSubnet", &[("annotation", "orchestrator:terraform")]).unwrap();
        world.until("the subnet's mark is back", |_| attribute(ONE, "annotation") == MARK);
        world.apic.set(DN_E, "l3extInstP", &[("annotation", ""), ("descr", "an EPG")]).unwrap();
        world.until("the EPG's mark is back", |_| attribute(DN_E, "annotation") == MARK);
        assert_eq!(attribute(DN_E, "descr"), "an EPG");

        let contract = json!({"fvRsProv": {"attributes": {"tnVzBrCPName": "web"}}});
        world.apic.admin_post(DN_E, &contract).unwrap();
        let writes = world.apic.writes().len();
        world.apic.set(ONE, "l3extSubnet", &[("descr", "again")]).unwrap();
        world.settle();
        let after = world.apic.writes();
        assert!(
            after[writes..].iter().all(|it| !it.body.contains("\"E\"")),
            "changes of other attributes are not reverted"
        );
        assert!(world.apic.get(&format!("{DN_E}/rsprov-web")).is_some());
    });
}

/// W7: an EPG is read before it is written to; our own writes come back as events and cost neither a read nor a
/// reconcile.
#[test]
fn own_writes_cause_no_reconcile() {
    World::both(|world| {
        let daemon = world.run(&[]);
        served(world);
        world.settle();
        world.apic.clear_journal();
        let reconciles = daemon.count("reconciled created=");
        world.kube.pod("a", "web", "3", &["10.0.0.3"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        world.settle();
        let about_e = |method: &str| {
            world
                .apic
                .journal()
                .iter()
                .filter(|it| it.method == method && format!("{}{}", it.target, it.body).contains("E"))
                .count()
        };
        let journal = world.apic.journal();
        let written = journal.iter().position(|it| it.method == "POST" && it.body.contains("10.0.0.3")).unwrap();
        let reads = |entries: &[apic::Entry]| entries.iter().filter(|it| it.target.contains("instP-E")).count();
        assert_eq!((reads(&journal[..written]), reads(&journal[written..])), (1, 0), "no read follows our own write");
        assert!(about_e("POST") >= 1);
        assert!(
            daemon.count("reconciled created=") <= reconciles + 3,
            "one reconcile for the Pod, and those of the settling"
        );
    });
}

/// R3, R4: changes in the gap of a lost websocket are found by the full sync that follows.
#[test]
fn a_lost_websocket_loses_no_change() {
    World::both(|world| {
        let daemon = world.run(&[]);
        served(world);
        world.apic.set_deaf(true);
        world.apic.admin_delete(DN_E).unwrap();
        world.apic.set_deaf(false);
        world.apic.drop_websockets();
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        daemon.until_logged("APIC session lost");
        daemon.until_logged_times("APIC session established", 2);
    });
}

/// R3, R4: subscriptions that lapse without a word are noticed at their next refresh, which is due after a third of the
/// default life if the APIC does not know `refresh-timeout`.
#[test]
fn lapsed_subscriptions_are_noticed() {
    let world = World::new();
    world.apic.variants(|it| it.refresh_timeout_known = false);
    let daemon = world.run(&[]);
    served(&world);
    world.apic.lapse_subscriptions();
    world.apic.admin_delete(DN_E).unwrap();
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    daemon.until_logged("a subscription lapsed");
}

/// R4: if nothing says that events were lost, the full sync of `--resync` finds it.
#[test]
fn a_silent_websocket_is_covered_by_the_resync() {
    World::both(|world| {
        let _daemon = world.run(&["--resync", "10s"]);
        served(world);
        world.apic.set_deaf(true);
        world.apic.admin_delete(DN_E).unwrap();
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    });
}

/// R6, R4: a restart on a converged fabric writes nothing; what is ours is found again although no Deployment names it
/// now.
#[test]
fn a_restart_writes_nothing_and_finds_all_owned_objects() {
    World::both(|world| {
        let mut daemon = world.run(&[]);
        served(world);
        let relation = r#"{"tenant":"T","l3out":"M","epg":"LOST"}"#;
        world.kube.deploy("b", "lost", Some(relation), &["10.0.1.1"]);
        world.until("the second is there", |world| world.apic.subnets("uni/tn-T/out-M/instP-LOST").len() == 1);
        daemon.kill();
        let writes = world.apic.writes().len();
        let mut daemon = world.run(&[]);
        daemon.until_logged("APIC session established");
        world.settle();
        let new = &world.apic.writes()[writes..];
        assert!(new.iter().all(|it| it.path.contains("aaaLog") || it.body.contains("settle")), "{new:#?}");
        daemon.kill();
        world.kube.delete("deployments", "b", "lost");
        world.kube.delete("pods", "b", "lost-646c8dfd75-0");
        let _daemon = world.run(&["--epg-grace", "0"]);
        world.until("what no Deployment names any more has gone", |world| {
            world.apic.get("uni/tn-T/out-M/instP-LOST").is_none()
        });
        assert!(world.holds("E", &["10.0.0.1", "10.0.0.2"]));
    });
}

/// R3: what is no longer needed is not subscribed any more.
#[test]
fn unneeded_subscriptions_end() {
    let world = World::new();
    world.apic.variants(|it| it.refresh_timeout_known = false);
    let _daemon = world.run(&["--epg-grace", "0"]);
    served(&world);
    world.kube.deploy("b", "other", Some(r#"{"tenant":"T","l3out":"M","epg":"G"}"#), &["10.0.1.1"]);
    world.until("both L3Outs are subscribed", |world| world.apic.subscribed().len() == 2);
    world.kube.delete("deployments", "b", "other");
    world.until("its EPG has gone", |world| world.apic.get("uni/tn-T/out-M/instP-G").is_none());
    world.apic.advance(Duration::from_secs(50));
    world.until("the other one lapses, ours is refreshed", |world| {
        let subscribed = world.apic.subscribed();
        world.apic.advance(Duration::from_secs(1));
        subscribed.iter().all(|it| it.contains("out-L")) || subscribed.is_empty()
    });
}

/// O2, O3: a foreign EPG is used and stays untouched; what the Python application made is taken over.
#[test]
fn foreign_epgs_are_used_and_legacy_objects_adopted() {
    World::both(|world| {
        world.apic.set(DN_E, "l3extInstP", &[("annotation", "orchestrator:terraform")]).unwrap();
        world.apic.set(&format!("{DN_E}/extsubnet-[10.7.0.0/16]"), "l3extSubnet", &[]).unwrap();
        let python = [("annotation", "orchestrator:aci-k8-haystack")];
        world.apic.set(DN_F, "l3extInstP", &python).unwrap();
        world.apic.set(&format!("{DN_F}/extsubnet-[10.0.0.8/32]"), "l3extSubnet", &python).unwrap();
        world.apic.set(&format!("{DN_F}/extsubnet-[10.0.0.9/32]"), "l3extSubnet", &python).unwrap();
        let daemon = world.run(&["--epg-grace", "0"]);
        served_in_foreign(world);
        world.kube.deploy("b", "heir", Some(F), &["10.0.0.8"]);
        let mark = |dn: &str| world.apic.get(dn).unwrap()["annotation"].as_str().unwrap().to_owned();
        world.until("the heir's subnet is ours", |_| mark(&format!("{DN_F}/extsubnet-[10.0.0.8/32]")) == MARK);
        assert_eq!(mark(DN_F), MARK);
        daemon.until_logged("legacy subnets that are not desired; leaving them alone");
        world.settle();
        assert_eq!(mark(&format!("{DN_F}/extsubnet-[10.0.0.9/32]")), "orchestrator:aci-k8-haystack");

        world.kube.delete("deployments", "a", "web");
        world.until("ours has left the foreign EPG", |world| world.subnets("E").len() == 1);
        world.settle();
        assert_eq!(mark(DN_E), "orchestrator:terraform");
    });
}

fn served_in_foreign(world: &World) {
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until("our subnet is in the foreign EPG", |world| world.subnets("E").len() == 2);
    let touched = |it: &apic::Entry| it.body.contains("l3extInstP") && it.body.contains("\"E\"");
    assert!(!world.apic.writes().iter().any(touched), "{:?}", world.apic.writes());
}

/// K1, K2, W1: watches that are cut, too old, truncated or refused, and an API server that is away for a moment: the
/// fabric follows all the same, and nothing is deleted that should not be.
#[test]
fn lost_watches_lose_no_change() {
    use sim::net::{Fault, Trouble};
    World::both(|world| {
        let _daemon = world.run(&["--epg-grace", "0"]);
        served(world);
        let troubles: [(&str, &dyn Fn()); 5] = [
            ("cut", &|| world.kube.server().cut_all()),
            ("too old", &|| {
                world.kube.compact();
                world.kube.server().cut_all();
            }),
            ("truncated", &|| {
                world.kube.fault(Fault::on("watch=true", Trouble::CutAfter(700)).times(3));
                world.kube.server().cut_all();
            }),
            ("garbage", &|| {
                let garbage =
                    Trouble::Answer(200, "application/json", "{\"type\":\"ADDED\",\"object\":{\"meta\n".to_owned());
                world.kube.fault(Fault::on("watch=true", garbage).times(3));
                world.kube.server().cut_all();
            }),
            ("away", &|| {
                world.kube.server().pause();
                world.kube.fault(
                    Fault::on("/api", Trouble::Answer(429, "text/plain", "Too many requests".to_owned())).times(4),
                );
                world.kube.server().resume();
            }),
        ];
        for (n, (what, trouble)) in troubles.into_iter().enumerate() {
            trouble();
            let address = format!("10.0.1.{n}");
            world.kube.pod("a", "web", &format!("t{n}"), &[&address]);
            world.until(&format!("it is served after: {what}"), |world| {
                world.subnets("E").contains(&format!("{address}/32"))
            });
        }
        assert_eq!(world.subnets("E").len(), 7);
        assert!(world.apic.writes().iter().all(|it| !it.body.contains("deleted") && it.method != "DELETE"));
    });
}

/// W2, R1, A6: an EPG of ours that another writer deletes between our read and our write is created by that write, as
/// ours and whole, with each shape of the APIC's answers, and whether or not the websocket reports it.
#[test]
fn an_epg_deleted_during_a_write_stays_owned() {
    let story = |shape: WriteAnswer, events_lost: bool| {
        let variants = Variants { write_answer: shape, ..Variants::default() };
        let world = World::with(kube::Options::default(), apic::Options { variants, ..apic::Options::default() });
        let _daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        world.settle();
        world.apic.variants(|it| it.events_lost = events_lost);
        world.apic.then("GET", "instP-E.json", |admin| admin.admin_delete(DN_E).unwrap());
        world.kube.pod("a", "web", "2", &["10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        let marks = |it: &World| {
            it.apic.subnets(DN_E).into_values().chain(it.apic.get(DN_E)).all(|it| it["annotation"] == MARK)
        };
        assert!(marks(&world), "{shape:?}, events lost: {events_lost}");
    };
    let shapes = [WriteAnswer::Nested, WriteAnswer::Flat, WriteAnswer::Partial, WriteAnswer::Empty];
    std::thread::scope(|scope| {
        for shape in shapes {
            scope.spawn(move || [false, true].map(|events_lost| story(shape, events_lost)));
        }
    });
}
