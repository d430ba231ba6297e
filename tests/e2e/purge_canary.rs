//! T11: what the first deletion of `purge` proves, and what it does not: an aci-sync that is alive is noticed also if something
//! goes wrong while it is looked for.

use std::time::Duration;

use serde_json::json;
use sim::net::{Fault, Trouble};
use sim::{apic, kube};

use crate::purge::{in_sync, purge, stderr, stdout};
use crate::world::{DN_E, DN_F, Daemon, E, MARK, World, side_by_side};

fn owned(world: &World, name: &str, children: serde_json::Value) {
    let epg = json!({"l3extInstP": {"attributes": {"name": name, "annotation": MARK}, "children": children}});
    world.apic.admin_post("uni/tn-T/out-L", &epg).unwrap();
}

/// A daemon that no socket and no Lease shows, and that restores what is deleted.
fn hidden_daemon(world: &World) -> Daemon {
    let daemon = world.run(&["--policy", "upsert-only"]);
    daemon.until_logged("full sync complete");
    world.kube.deny("get", "leases");
    daemon
}

/// T11: the canary is back, but the read that would show it is refused: nothing more may go.
fn a_canary_that_cannot_be_read_proves_nothing() {
    let world = World::new();
    in_sync(&world);
    let big = world.apic.birth(DN_E);
    world.kube.deny("get", "leases");
    let mut run = Daemon::start(world.command(&["purge", "--yes"]));
    run.until_logged("waiting 10 s");
    // The daemon of another machine.
    owned(&world, "F", json!([]));
    let error =
        json!({"totalCount": "1", "imdata": [{"error": {"attributes": {"code": "1", "text": "query failed"}}}]});
    let refused = Trouble::Answer(400, "application/json", error.to_string());
    world.apic.fault(Fault::on("instP-F.json", refused).method("GET").times(1));
    let code = run.wait().code();
    assert_eq!(world.apic.birth(DN_E), big, "{code:?} {}", run.log());
}

/// T11: the canary could not be deleted: the next one must be one that a daemon would restore.
fn the_next_canary_is_named_too() {
    let world = World::new();
    in_sync(&world);
    owned(&world, "A", json!([]));
    let _daemon = hidden_daemon(&world);
    world.apic.forbid(DN_F, None);
    let text = stdout(&purge(&world, &["--yes"], 1));
    assert!(text.contains("instP-E is back") && text.contains("0 objects deleted, 6 left: "), "{text}");
}

/// T11: nothing of a paused Deployment is restored, so its EPG proves nothing.
fn a_paused_deployment_names_no_canary() {
    let world = World::new();
    in_sync(&world);
    let p = json!({"tenant": "T", "l3out": "L", "epg": "P"}).to_string();
    world.kube.deploy("a", "paused", Some(&p), &[]);
    assert_eq!(world.output(&["run", "--once"]).status.code(), Some(0));
    world.kube.patch(
        "deployments",
        "a",
        "paused",
        json!({"metadata": {"annotations": {"aci.haystacknetworks.com/pause": "true"}}}),
    );
    let _daemon = hidden_daemon(&world);
    let big = world.apic.birth(DN_E);
    let text = stdout(&purge(&world, &["--yes"], 1));
    assert_eq!(world.apic.birth(DN_E), big, "{text}");
}

/// T11: an EPG that no Deployment names is no canary while Deployments name EPGs of others with subnets of ours.
fn an_unnamed_epg_is_no_canary() {
    let world = World::new();
    world.apic.set(DN_E, "l3extInstP", &[("descr", "by hand")]).unwrap();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(world.output(&["run", "--once"]).status.code(), Some(0));
    owned(&world, "A", json!([]));
    let _daemon = hidden_daemon(&world);
    world.apic.clear_journal();
    let text = stdout(&purge(&world, &["--yes"], 1));
    let deletes = world.apic.writes().iter().filter(|it| it.method == "DELETE").count();
    assert!(deletes <= 1, "{deletes} subnets were deleted beside a living daemon: {text}");
}

/// T11: with `--cluster-id`, a single failure of the list of Deployments must not hide a leader.
fn one_failed_list_hides_no_leader() {
    let world = World::new();
    in_sync(&world);
    owned(&world, "A", json!([]));
    let daemon = world.run(&["--policy", "upsert-only", "--leader-elect"]);
    daemon.until_logged("full sync complete");
    let big = world.apic.birth(DN_E);
    world.kube.fault(Fault::on("/deployments?limit", Trouble::Cut));
    let done = purge(&world, &["--yes"], 1);
    assert_eq!(world.apic.birth(DN_E), big, "{}{}", stdout(&done), stderr(&done));
}

/// T11: a daemon of this machine that does not know its cluster id yet may be ours.
fn a_socket_without_an_id() {
    let world = World::new();
    in_sync(&world);
    let listen = format!("unix:{}", world.folder.path().join("aci-sync.sock").display());
    world.kube.fault(Fault::on("/api/v1/namespaces/kube-system", Trouble::Cut));
    let mut command = world.command(&["run", "--listen", &listen]);
    command.env_remove("ACI_SYNC_CLUSTER_ID");
    let daemon = Daemon::start(command);
    daemon.until_logged("status server listening");
    world.kube.deny("get", "leases");
    let text = stdout(&world.output(&["purge", "--yes", "--listen", &listen]));
    assert!(text.contains("Refused"), "{text}");
}

/// T11: the undo of a large fabric takes longer than a token lives.
fn a_long_preview_keeps_its_session() {
    let options = apic::Options { token_lifetime: Duration::from_secs(4), ..apic::Options::default() };
    let world = World::with(kube::Options::default(), options);
    in_sync(&world);
    for n in 0..30 {
        owned(&world, &format!("X{n}"), json!([]));
    }
    world.kube.deny("get", "leases");
    world.apic.variants(|it| it.latency = Duration::from_millis(250));
    let text = stdout(&purge(&world, &["-o", "json"], 2));
    assert!(text.contains("planned"), "{text}");
}

/// T11: the API server answered a moment ago, and the first look at the Lease fails: it may have a living holder.
fn a_first_look_that_fails() {
    let world = World::new();
    in_sync(&world);
    world.kube.fault(Fault::on("/leases/aci-sync", Trouble::Cut));
    let text = stdout(&purge(&world, &["--yes"], 1));
    assert!(text.contains("Refused; nothing was deleted: the API server stopped answering: "), "{text}");
    assert_eq!(world.writes(), [""; 0]);
}

/// T11: beside a living aci-sync no more than one object or EPG goes, whatever hides it. Each first deletion is watched for
/// 10 s, so the stories go side by side.
#[test]
fn what_hides_a_living_aci_sync() {
    side_by_side(&[
        &a_canary_that_cannot_be_read_proves_nothing,
        &the_next_canary_is_named_too,
        &a_paused_deployment_names_no_canary,
        &an_unnamed_epg_is_no_canary,
        &one_failed_list_hides_no_leader,
        &a_socket_without_an_id,
        &a_long_preview_keeps_its_session,
        &a_first_look_that_fails,
    ]);
}
