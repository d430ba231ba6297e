//! What never happens: a delete on an incomplete view, a touch of what is not ours, a write that the policy forbids.

use crate::world::{DN_E, DN_F, E, F, MARK, World};
use serde_json::json;
use sim::apic::ApiError;
use sim::net::{Fault, Trouble};

/// W1: with one of three kinds not to be listed nothing is deleted; creates go on.
#[test]
fn nothing_is_deleted_on_an_incomplete_view() {
    World::both(|world| {
        let mut daemon = world.run(&["--epg-grace", "0"]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        daemon.kill();
        world.kube.delete("pods", "a", "web-646c8dfd75-1");
        for kind in ["pods", "services", "deployments"] {
            world.kube.deny("list", kind);
            let mut daemon = world.run(&["--epg-grace", "0"]);
            daemon.until_logged("permission denied: ");
            assert!(
                daemon.log().contains(&format!("cannot list resource \\\"{kind}\\\"")),
                "it names verb and resource"
            );
            if kind != "deployments" {
                // A create is served, so everything that could be deleted would have been, too.
                world.kube.deploy("b", kind, Some(F), &[]);
                world.until("creates go on", |world| world.apic.get(DN_F).is_some());
            } else {
                daemon.until_logged("APIC session established");
            }
            assert!(world.holds("E", &["10.0.0.1", "10.0.0.2"]), "without {kind}");
            assert!(world.apic.writes().iter().all(|it| !it.body.contains("deleted") && it.method != "DELETE"));
            daemon.kill();
            world.kube.allow("list", kind);
        }
        let _daemon = world.run(&["--epg-grace", "0"]);
        world.until_holds("E", &["10.0.0.1"]);
    });
}

/// W2: what we believe absent and is there after all is read and not overwritten.
#[test]
fn a_create_never_overwrites() {
    World::both(|world| {
        let _daemon = world.run(&[]);
        world.kube.deploy("settled", "x", Some(r#"{"tenant":"T","l3out":"L","epg":"X"}"#), &[]);
        world.until("the L3Out is known", |world| world.apic.get("uni/tn-T/out-L/instP-X").is_some());
        // Another writer creates the same EPG, without an event, before we do.
        world.apic.set_deaf(true);
        world.apic.set(DN_E, "l3extInstP", &[("annotation", "orchestrator:terraform"), ("descr", "theirs")]).unwrap();
        world.apic.set(&format!("{DN_E}/extsubnet-[10.0.0.1/32]"), "l3extSubnet", &[("name", "theirs")]).unwrap();
        world.apic.set_deaf(false);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        assert_eq!(world.apic.get(DN_E).unwrap()["annotation"], "orchestrator:terraform");
        assert_eq!(world.apic.subnets(DN_E)["10.0.0.1/32"]["name"], "theirs");
        assert_eq!(world.apic.subnets(DN_E)["10.0.0.2/32"]["annotation"], MARK);

        // The same for a subnet in an EPG of ours, when a create trusts the cache.
        world.apic.set_deaf(true);
        let dn = "uni/tn-T/out-L/instP-X/extsubnet-[10.0.0.5/32]";
        world.apic.set(dn, "l3extSubnet", &[("name", "theirs"), ("scope", "export-rtctrl")]).unwrap();
        world.apic.set_deaf(false);
        world.kube.pod("settled", "x", "5", &["10.0.0.5", "10.0.0.6"]);
        world.until_holds("X", &["10.0.0.5", "10.0.0.6"]);
        let theirs = world.apic.get(dn).unwrap();
        assert_eq!((&theirs["name"], &theirs["scope"]), (&json!("theirs"), &json!("export-rtctrl")));
    });
}

/// W2: a missing L3Out or tenant is never made, whatever the cache believes.
#[test]
fn a_tenant_is_never_created() {
    World::both(|world| {
        let daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        world.apic.set_deaf(true);
        world.apic.admin_delete("uni/tn-T").unwrap();
        world.kube.pod("a", "web", "2", &["10.0.0.2"]);
        world.kube.deploy("a", "more", Some(F), &["10.0.0.3"]);
        daemon.until_logged("L3Out not found; waiting for it to be created");
        assert!(world.apic.get("uni/tn-T").is_none());
        world.apic.set_deaf(false);
        world.apic.setup_tenant("T", "V", &["L"]).unwrap();
        world.until("it is served again", |world| {
            world.holds("E", &["10.0.0.1", "10.0.0.2"]) && world.holds("F", &["10.0.0.3"])
        });
    });
}

/// W7: what is deleted is deleted on the answer to a read of the same reconcile, and only if that still shows our mark.
#[test]
fn ownership_is_checked_on_what_was_just_read() {
    World::both(|world| {
        let _daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        // Another writer takes the subnet over, without an event: deletes and recreates it with another mark.
        let dn = format!("{DN_E}/extsubnet-[10.0.0.1/32]");
        world.apic.set_deaf(true);
        world.apic.admin_delete(&dn).unwrap();
        world.apic.set(&dn, "l3extSubnet", &[("annotation", "orchestrator:terraform")]).unwrap();
        world.apic.set_deaf(false);
        world.kube.delete("pods", "a", "web-646c8dfd75-0");
        world.settle();
        world.kube.delete("pods", "a", "web-646c8dfd75-1");
        world.until("our own has gone", |world| !world.subnets("E").contains("10.0.0.2/32"));
        assert!(world.subnets("E").contains("10.0.0.1/32"), "theirs stays");
        let journal = world.apic.journal();
        let writes = journal
            .iter()
            .enumerate()
            .filter(|(_, it)| it.is_write() && it.body.contains("deleted") && it.body.contains("\"E\""));
        for (at, _) in writes {
            let read =
                journal[..at].iter().rev().take(4).any(|it| it.method == "GET" && it.target.contains("instP-E.json"));
            assert!(read, "a read of the EPG comes right before the delete");
        }
    });
}

/// W7: a write whose answer was lost is followed by a read, whether it was done or not.
#[test]
fn a_lost_answer_is_followed_by_a_read() {
    World::both(|world| {
        let _daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        for (n, trouble) in [Trouble::LoseAnswer, Trouble::Cut, Trouble::CutAfter(20)].into_iter().enumerate() {
            world.apic.fault(Fault::on("/api/mo/uni/tn-T/out-L.json", trouble).method("POST").times(1));
            let address = format!("10.0.1.{n}");
            world.kube.pod("a", "web", &format!("lost{n}"), &[&address]);
            world.until("it is there", |world| world.subnets("E").contains(&format!("{address}/32")));
        }
        assert_eq!(world.subnets("E").len(), 4);
    });
}

/// W5: `observe` writes nothing and reports what it would do; `upsert-only` deletes nothing.
#[test]
fn policies() {
    let world = World::new();
    let mut daemon = world.run(&["--policy", "observe"]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    daemon.until_logged(r#"change="+ 10.0.0.1/32"#);
    assert!(world.apic.writes().iter().all(|it| it.path.contains("aaaLog")), "{:?}", world.writes());
    daemon.kill();

    let mut daemon = world.run(&["--policy", "upsert-only", "--epg-grace", "0"]);
    world.until_holds("E", &["10.0.0.1"]);
    world.kube.pod("a", "web", "2", &["10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    world.kube.delete("deployments", "a", "web");
    world.settle();
    assert!(world.holds("E", &["10.0.0.1", "10.0.0.2"]));
    daemon.kill();

    let writes = world.writes();
    let mut daemon = world.run(&["--policy", "observe", "--epg-grace", "0"]);
    daemon.until_logged(r#"change="- EPG"#);
    daemon.kill();
    assert!(world.writes().iter().skip(writes.len()).all(|it| it.contains("aaaLog")), "{:?}", world.writes());
    let once = world.output(&["run", "--once", "--policy", "observe"]);
    assert_eq!(once.status.code(), Some(64), "it would do nothing");

    let _daemon = world.run(&["--epg-grace", "0"]);
    world.until("sync does all", |world| world.apic.get(DN_E).is_none());
}

/// W3, W8, F20: what the APIC refuses in one EPG stops no other, and is done once it may be.
#[test]
fn a_rejection_does_not_stop_the_others() {
    World::both(|world| {
        world.apic.forbid(DN_E, None);
        let daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        daemon.until_logged("missing APIC privilege");
        world.kube.deploy("b", "other", Some(F), &["10.0.0.2"]);
        world.until_holds("F", &["10.0.0.2"]);
        assert_eq!(daemon.count("APIC session established"), 1, "a missing privilege is no reason to log in again");
        world.apic.allow();
        world.until_holds("E", &["10.0.0.1"]);
        daemon.until_logged(r#"finding resolved code=Rejected subject=uni/tn-T/out-L/instP-E text="failed to write"#);

        world.apic.reject("10.0.0.3", ApiError::bad(801, "property ip failed validation"), Some(1));
        world.kube.pod("a", "web", "3", &["10.0.0.3"]);
        daemon.until_logged("rejected by the APIC with code 801");
        world.kube.pod("b", "other", "4", &["10.0.0.4"]);
        world.until_holds("F", &["10.0.0.2", "10.0.0.4"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.3"]);
    });
}

/// W8: an APIC that is busy or unreachable ends nothing; the fabric is in step once it answers.
#[test]
fn a_busy_apic_is_retried() {
    World::both(|world| {
        let busy = || Trouble::Answer(503, "text/html", "<html>503</html>".to_owned());
        let daemon = world.run(&[]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        // Once more than a request is sent within one reconcile.
        world.apic.fault(Fault::on("/api/mo", busy()).times(6));
        world.kube.pod("a", "web", "2", &["10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        daemon.until_logged("the APIC is busy");
        world
            .apic
            .fault(Fault::on("/api/mo", Trouble::Answer(200, "application/json", "{\"imdata\":[".to_owned())).times(2));
        world.kube.pod("a", "web", "3", &["10.0.0.3"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    });
}

/// W7: an answer that says itself that it is not whole is not believed: nothing is deleted on it, and nothing created.
#[test]
fn an_incomplete_answer_is_not_used() {
    let world = World::new();
    let l3out = json!({"l3extOut": {"attributes": {"dn": "uni/tn-T/out-L", "name": "L"}}});
    let half = json!({"totalCount": "7", "subscriptionId": "72057594037927999", "imdata": [l3out]}).to_string();
    world
        .apic
        .fault(Fault::on("/api/mo/uni/tn-T/out-L.json?", Trouble::Answer(200, "application/json", half)).times(1));
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    daemon.until_logged("incomplete, with 1 of 7 objects");
    assert!(world.apic.writes().iter().all(|it| it.path.contains("aaaLog")));
    world.until_holds("E", &["10.0.0.1"]);
}

/// W8: while the APIC is busy the pauses grow, also when something else has become due meanwhile.
#[test]
fn retries_against_a_busy_apic_slow_down() {
    let world = World::new();
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    world.apic.forbid(DN_E, None);
    world.kube.pod("a", "web", "2", &["10.0.0.2"]);
    daemon.until_logged("missing APIC privilege");
    // From here on every reconcile ends early, and after ten seconds the refused EPG is due again.
    world.apic.fault(Fault::on("/api/mo", Trouble::Answer(503, "text/html", "<html>503</html>".to_owned())));
    world.apic.admin_delete("uni/tn-T/out-L").unwrap();
    daemon.until_logged_times("reconcile failed", 4);
    daemon.signal("USR1");
    daemon.until_logged("status state=");
    assert!(daemon.count("reconcile failed") <= 5, "{}", daemon.count("reconcile failed"));
}

/// D6: an EPG that holds another writer's subnet stays when its Deployment goes.
#[test]
fn an_epg_with_foreign_subnets_stays() {
    World::both(|world| {
        let daemon = world.run(&["--epg-grace", "0"]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        let dn = format!("{DN_E}/extsubnet-[10.7.0.0/16]");
        world.apic.set_deaf(true);
        world.apic.set(&dn, "l3extSubnet", &[]).unwrap();
        world.apic.set_deaf(false);
        world.kube.delete("deployments", "a", "web");
        daemon.until_logged("no longer desired; keeping it while it holds");
        assert_eq!(world.subnets("E").into_iter().collect::<Vec<_>>(), ["10.7.0.0/16"]);
        world.apic.admin_delete(&dn).unwrap();
        world.until("the EPG goes once it holds nothing else", |world| world.apic.get(DN_E).is_none());
    });
}

/// D6: with `--keep-contracted` an EPG with contracts stays, empty, even if the contract came without an event.
#[test]
fn keep_contracted_keeps_an_epg_with_contracts() {
    let world = World::new();
    let daemon = world.run(&["--epg-grace", "0", "--keep-contracted"]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    world.apic.admin_post(DN_E, &json!({"fvRsCons": {"attributes": {"tnVzBrCPName": "web"}}})).unwrap();
    world.kube.delete("deployments", "a", "web");
    daemon.until_logged("keeping it empty while it has contract relations");
    world.until_holds("E", &[]);
}

/// O1: without a given id the mark carries the UID of kube-system; an unreachable API server is retried, one that
/// refuses is not.
#[test]
fn the_cluster_id() {
    let world = World::new();
    let without_id = |flags: &[&str]| {
        let mut command = world.command(&[&["run"], flags].concat());
        command.env_remove("ACI_SYNC_CLUSTER_ID");
        crate::world::Daemon::start(command)
    };
    world.kube.server().pause();
    let mut daemon = without_id(&[]);
    daemon.until_logged("failed to reach the API server");
    world.kube.server().resume();
    let mark = format!("orchestrator:aci-sync:{}", world.kube.namespace_uid("kube-system"));
    daemon.until_logged(&format!("owner annotation annotation={mark}"));
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    assert_eq!(world.apic.get(DN_E).unwrap()["annotation"], mark);
    daemon.kill();

    world.kube.deny("get", "namespaces");
    let mut daemon = without_id(&[]);
    assert_eq!(daemon.wait().code(), Some(78));
    assert!(
        daemon.text("err").contains("failed to read the cluster id") && daemon.text("err").contains("--cluster-id")
    );
}
