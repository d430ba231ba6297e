//! What is delayed on purpose: pauses, the deletion guard, conflicts with other writers, rejected objects, foreign EPGs
//! that were deleted, and what a namespace may not have.

use crate::world::{DN_E, DN_F, E, F, MARK, World};
use serde_json::json;
use sim::apic::ApiError;

const TAG: &str = "uni/tn-T/out-L/annotationKey-[aci-sync:me:E]";

/// D2: a pause leaves an EPG as it is, drift and vanished Pods included, but for an address that another Pod has got
/// (P5); without it everything is caught up.
#[test]
fn a_paused_epg_is_left_alone() {
    World::both(|world| {
        let daemon = world.run(&["--epg-grace", "0"]);
        let pods = world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2", "10.0.0.4"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2", "10.0.0.4"]);
        let pause = |value| json!({"metadata": {"annotations": {"aci.haystacknetworks.com/pause": value}}});
        world.kube.patch("deployments", "a", "web", pause(json!("true")));
        daemon.until_logged("addresses in uni/tn-T/out-L/instP-E are not added, removed or repaired");
        world.kube.delete("pods", "a", &pods[1]);
        world.kube.delete("pods", "a", &pods[2]);
        world.kube.pod("a", "web", "new", &["10.0.0.3"]);
        world.apic.set(&format!("{DN_E}/extsubnet-[10.0.0.1/32]"), "l3extSubnet", &[("name", "drifted")]).unwrap();
        // Another Deployment gets the address of a Pod that has gone.
        world.kube.deploy("b", "heir", Some(F), &["10.0.0.2"]);
        world.until_holds("F", &["10.0.0.2"]);
        daemon.until_logged("keeping 10.0.0.4/32: all workloads that name the EPG are paused");
        world.settle();
        assert!(world.holds("E", &["10.0.0.1", "10.0.0.4"]));
        assert_eq!(world.apic.subnets(DN_E)["10.0.0.1/32"]["name"], "drifted");

        world.kube.patch("deployments", "a", "web", pause(json!(null)));
        world.until_holds("E", &["10.0.0.1", "10.0.0.3"]);
        world.until("the drift is reverted", |world| world.apic.subnets(DN_E)["10.0.0.1/32"]["name"] != "drifted");
        daemon.until_logged(r#"finding resolved code=Paused subject="Deployment a/web" text="addresses in"#);
    });
}

/// O4: a foreign EPG that was used and that another writer deleted is not recreated, after a restart either; made
/// again, it gets its subnets back; without the tag it is made as ours; and the tag goes with the last Deployment.
#[test]
fn a_deleted_foreign_epg_is_not_recreated() {
    World::both(|world| {
        let make = || world.apic.set(DN_E, "l3extInstP", &[("annotation", "orchestrator:terraform")]).unwrap();
        make();
        let mut daemon = world.run(&["--epg-grace", "0", "--resync", "10s"]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        let order: Vec<bool> = world.apic.writes().iter().map(|it| it.body.contains("tagAnnotation")).collect();
        assert_eq!(order, [true, false], "the tag comes before the first subnet");

        world.apic.admin_delete(DN_E).unwrap();
        daemon.until_logged("foreign EPG was deleted; not recreating it");
        world.settle();
        assert!(world.apic.get(DN_E).is_none());
        daemon.kill();
        let daemon = world.run(&["--epg-grace", "0", "--resync", "10s"]);
        daemon.until_logged("foreign EPG was deleted; not recreating it");
        world.settle();
        assert!(world.apic.get(DN_E).is_none(), "after a restart either");

        make();
        world.until_holds("E", &["10.0.0.1"]);
        assert_eq!(world.apic.get(DN_E).unwrap()["annotation"], "orchestrator:terraform");
        world.apic.admin_delete(TAG).unwrap();
        world.until("the tag is written again", |world| world.apic.get(TAG).is_some());

        world.apic.admin_delete(DN_E).unwrap();
        world.apic.admin_delete(TAG).unwrap();
        world.until_holds("E", &["10.0.0.1"]);
        assert_eq!(world.apic.get(DN_E).unwrap()["annotation"], MARK);

        world.apic.set(DN_F, "l3extInstP", &[]).unwrap();
        world.kube.deploy("b", "other", Some(F), &["10.0.0.2"]);
        world.until_holds("F", &["10.0.0.2"]);
        assert_eq!(world.apic.class("tagAnnotation").len(), 1);
        world.kube.delete("deployments", "b", "other");
        world.until("the tag has gone", |world| world.apic.class("tagAnnotation").is_empty());
        assert!(world.apic.get(DN_F).is_some());
    });
}

/// O4: the tag of a Deployment that went while aci-sync was down is found in an L3Out that no Deployment names any
/// more.
#[test]
fn a_leftover_tag_is_found() {
    World::both(|world| {
        world.apic.set(DN_E, "l3extInstP", &[]).unwrap();
        let mut daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        daemon.kill();
        world.kube.delete("deployments", "a", "web");
        world.apic.admin_delete(&format!("{DN_E}/extsubnet-[10.0.0.1/32]")).unwrap();
        let _daemon = world.run(&[]);
        world.until("the tag has gone", |world| world.apic.get(TAG).is_none());
    });
}

/// O4, W8: an account that may not write the tag uses the foreign EPG all the same, and says what that means.
#[test]
fn a_failed_tag_write_stops_nothing() {
    World::both(|world| {
        world.apic.set(DN_E, "l3extInstP", &[]).unwrap();
        world.apic.forbid("uni/tn-T/out-L", Some("tagAnnotation"));
        let daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        daemon.until_logged("failed to write the tag that marks the EPG as foreign");
        world.apic.admin_delete(DN_E).unwrap();
        daemon.until_logged("foreign EPG was deleted; not recreating it");
        world.settle();
        assert!(world.apic.get(DN_E).is_none());
    });
}

/// W3, F20: one bad object among five hundred is a finding; all others go through, in few requests.
#[test]
fn a_rejected_object_does_not_stop_the_others() {
    World::both(|world| {
        world.apic.reject("10.1.0.77", ApiError::bad(120, "unknown property value"), None);
        let addresses: Vec<String> = (0..=255).map(|n| format!("10.1.0.{n}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        world.kube.deploy("a", "web", Some(E), &addresses);
        let daemon = world.run(&[]);
        world.until("all but one are there", |world| world.subnets("E").len() == 255);
        daemon.until_logged("failed to write: rejected by the APIC with code 120");
        let first = world.apic.writes().len();
        assert!(first < 24, "{first} requests");
        world.apic.clear_rejections();
        world.until("the last one is tried again", |world| world.subnets("E").len() == 256);
        daemon.until_logged("finding resolved code=Rejected subject=uni/tn-T/out-L/instP-E/extsubnet-[10.1.0.77/32]");
    });
}

/// W4, I5: a start that finds the cluster's Deployments gone deletes nothing until an administrator approves, a restart
/// does not change that, and what is desired again leaves the hold.
#[test]
fn a_mass_deletion_waits_for_approval() {
    World::both(|world| {
        let flags = ["--epg-grace", "0", "--resync", "10s"];
        let mut daemon = world.run(&flags);
        let addresses: Vec<String> = (1..=12).map(|n| format!("10.0.0.{n}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        world.kube.deploy("a", "web", Some(E), &addresses);
        world.kube.deploy("b", "other", Some(F), &["10.0.1.1"]);
        world.until_holds("E", &addresses);
        world.until_holds("F", &["10.0.1.1"]);
        daemon.kill();
        world.kube.delete("deployments", "a", "web");
        world.kube.delete("deployments", "b", "other");

        for _ in 0..2 {
            let mut daemon = world.run(&flags);
            daemon.until_logged("deletions blocked: full sync exceeds --max-deletes");
            world.settle();
            assert!(world.holds("E", &addresses) && world.holds("F", &["10.0.1.1"]), "{}", daemon.log());
            daemon.kill();
        }
        let daemon = world.run(&flags);
        daemon.until_logged("deletions blocked: full sync exceeds --max-deletes");
        world.kube.deploy("b", "other", Some(F), &["10.0.1.1"]);
        daemon.until_logged_times("deletions blocked: full sync exceeds --max-deletes", 3);
        daemon.signal("USR2");
        world.until("what was released is gone", |world| world.apic.get(DN_E).is_none());
        assert!(world.holds("F", &["10.0.1.1"]));
        daemon.until_logged(r#"finding resolved code=DeletionsBlocked subject="deletion guard""#);

        // A mass deletion that comes as events is what people asked for.
        world.kube.deploy("a", "web", Some(E), &addresses);
        world.until_holds("E", &addresses);
        world.kube.delete("deployments", "a", "web");
        world.until("it goes at once", |world| world.apic.get(DN_E).is_none());
    });
}

/// W4: with the deletion guard off everything goes.
#[test]
fn the_deletion_guard_can_be_turned_off() {
    World::both(|world| {
        let addresses: Vec<String> = (1..=12).map(|n| format!("10.0.0.{n}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &addresses);
        world.until_holds("E", &addresses);
        daemon.kill();
        world.kube.delete("deployments", "a", "web");
        let _daemon = world.run(&["--epg-grace", "0", "--max-deletes", "off"]);
        world.until("it is gone", |world| world.apic.get(DN_E).is_none());
    });
}

/// R5: what another writer reverts again and again is repaired six times and then left alone for a minute; everything
/// else goes on.
#[test]
fn a_conflict_with_another_writer_is_throttled() {
    World::both(|world| {
        let daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        let dn = format!("{DN_E}/extsubnet-[10.0.0.1/32]");
        for _ in 0..6 {
            world.apic.admin_delete(&dn).unwrap();
            world.until_holds("E", &["10.0.0.1"]);
        }
        world.apic.admin_delete(&dn).unwrap();
        daemon.until_logged("another writer keeps reverting it");
        world.kube.pod("a", "web", "2", &["10.0.0.2"]);
        world.until_holds("E", &["10.0.0.2"]);
        world.settle();
        assert!(world.holds("E", &["10.0.0.2"]));
    });
}

/// W6: a namespace gets what --allow names and nothing else, and what it had before it was refused goes; with
/// --foreign-epg refuse a foreign EPG gets nothing.
#[test]
fn a_namespace_gets_only_what_it_may_use() {
    World::both(|world| {
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.kube.deploy("b", "web", Some(F), &["10.0.0.2"]);
        let mut daemon = world.run(&["--epg-grace", "0"]);
        world.until_holds("E", &["10.0.0.1"]);
        world.until_holds("F", &["10.0.0.2"]);
        daemon.kill();
        world.apic.set("uni/tn-T/out-L/instP-X", "l3extInstP", &[]).unwrap();
        world.kube.deploy("a", "foreign", Some(r#"{"tenant":"T","l3out":"L","epg":"X"}"#), &["10.0.0.3"]);
        let flags = ["--epg-grace", "0", "--foreign-epg", "refuse", "--allow", "a=T/L,settle=T/M"];
        let daemon = world.run(&flags);
        daemon.until_logged("namespace b may not use uni/tn-T/out-L/instP-F");
        daemon.until_logged("foreign EPG, and --foreign-epg is refuse");
        world.until("what b had goes", |world| world.apic.get(DN_F).is_none());
        world.settle();
        assert!(world.holds("E", &["10.0.0.1"]) && world.holds("X", &[]));
    });
}
