//! T11: `purge` refuses beside a living aci-sync of the same cluster id: by its socket, by the Lease, and by what it restores.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sim::net::{Fault, Trouble};

use crate::purge::{in_sync, purge, stderr, stdout};
use crate::world::{DN_E, DN_F, Daemon, MARK, World, side_by_side};

fn lease(world: &World, holder: &str, renewed: u32) {
    let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": format!("{renewed}")});
    world.kube.apply("leases", json!({"metadata": {"namespace": "kube-system", "name": "aci-sync"}, "spec": spec}));
}

fn holder(world: &World) -> Value {
    world.kube.get("leases", "kube-system", "aci-sync").unwrap_or_default()["spec"]["holderIdentity"].take()
}

/// T11: a daemon whose socket answers with this id is alive; one with another id is not meant. What takes a connection and
/// gives no status may be one.
fn a_socket_that_answers() {
    let world = World::new();
    in_sync(&world);
    let listen = format!("unix:{}", world.folder.path().join("aci-sync.sock").display());
    let mut daemon = world.run(&["--policy", "observe", "--events=false", "--listen", &listen]);
    daemon.until_logged("status server listening");
    world.until("it is in sync", |world| world.output(&["status", "--listen", &listen]).status.code() == Some(0));
    let text = stdout(&world.output(&["purge", "--yes", "--listen", &listen]));
    assert!(
        text.contains("Refused; nothing was deleted: aci-sync runs on ") && text.contains("with this cluster id"),
        "{text}"
    );
    let legacy = world.output(&[
        "purge",
        "--yes",
        "--listen",
        &listen,
        "--cluster-id",
        "new",
        "--legacy",
        "--adopt-id",
        "me",
        "T/L",
    ]);
    assert!(legacy.status.code() == Some(1) && stdout(&legacy).contains("Refused"), "{}", stdout(&legacy));
    let other = world.output(&["purge", "--yes", "--listen", &listen, "--cluster-id", "other"]);
    assert_eq!((other.status.code(), &*stdout(&other)), (Some(0), "Nothing to delete, and nothing is left.\n"));
    assert_eq!(daemon.stop().0, Some(0));
    assert_eq!(world.writes(), [""; 0]);
    assert!(
        purge(&world, &["--yes", "--listen", &format!("{},{listen}", world.apic.apic())], 1).status.code() == Some(1)
    );
    assert_eq!(world.writes(), [""; 0]);
}

/// T11: a Lease that changes is alive, whatever its times say.
fn a_lease_that_changes() {
    let world = World::new();
    in_sync(&world);
    lease(&world, "master-1", 0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let end = Instant::now() + Duration::from_secs(60);
            for number in 1.. {
                if is_over.load(Ordering::SeqCst) || Instant::now() > end {
                    break;
                }
                lease(&world, "master-1", number);
                std::thread::park_timeout(Duration::from_secs(1));
            }
        });
        let text = stdout(&purge(&world, &["--yes"], 1));
        is_over.store(true, Ordering::SeqCst);
        assert!(text.contains("an aci-sync is alive: the Lease kube-system/aci-sync changes"), "{text}");
    });
    assert_eq!((holder(&world), world.writes().len()), (json!("master-1"), 0));
}

/// T11: the API server stops answering while the holder of the Lease is looked at.
fn an_api_server_that_stops() {
    let world = World::new();
    in_sync(&world);
    lease(&world, "master-1", 0);
    let mut run = Daemon::start(world.command(&["purge", "--yes"]));
    run.until_logged("looking at the Lease");
    world.kube.fault(Fault::on("/leases/aci-sync", Trouble::Cut));
    assert_eq!(run.wait().code(), Some(1));
    let text = run.text("out");
    assert!(
        text.contains("master-1 holds the Lease kube-system/aci-sync, and whether it is alive is unknown"),
        "{text}"
    );
    assert_eq!(world.writes(), [""; 0]);
}

/// T11, K4: a Lease of a dead holder is taken, renewed to the end and released; a daemon with leader election stands by.
fn a_lease_is_held_to_the_end() {
    let world = World::new();
    in_sync(&world);
    lease(&world, "dead", 0);
    let mut run = Daemon::start(world.command(&["purge", "--yes"]));
    run.until_logged("waiting 10 s");
    let held = holder(&world);
    assert!(held != "dead" && held != "", "{held}");
    let mut standby = world.run(&["--leader-elect"]);
    standby.until_logged("standby: another process leads");
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
    assert!(world.apic.writes().iter().all(|it| it.method == "POST"), "two EPGs went");
    // The Deployments still name the EPGs.
    standby.until_logged("acquired leadership");
    assert_eq!(standby.stop().0, Some(0));
}

/// T11: without the right to the Lease the canary decides. A daemon that no socket and no Lease shows restores the first
/// deletion, and no more is deleted.
fn a_daemon_that_restores() {
    let world = World::new();
    in_sync(&world);
    let big = world.apic.birth(DN_E);
    for dn in [DN_E, DN_F] {
        world.apic.admin_post(dn, &json!({"fvRsProv": {"attributes": {"tnVzBrCPName": "web"}}})).unwrap();
    }
    let mut daemon = world.run(&[]);
    daemon.until_logged("full sync complete");
    world.kube.deny("get", "leases");
    let done = purge(&world, &["--yes"], 1);
    let text = stdout(&done);
    assert!(text.contains("another aci-sync restores what is deleted: "), "{text}");
    assert!(text.contains(" is back without 1 contract relation"), "{text}");
    assert!(text.contains("0 objects deleted, 5 left: "), "{text}");
    assert!(stderr(&done).contains("the Lease cannot be looked at: permission denied"), "{}", stderr(&done));
    world.until_holds("F", &["10.0.1.1"]);
    assert_eq!(world.apic.birth(DN_E), big, "the larger EPG was never deleted");
    assert_eq!(daemon.stop().0, Some(0));
}

/// T11: the same without any EPG of ours: a subnet in an EPG of others is the canary.
fn a_subnet_is_the_canary() {
    let world = World::new();
    world.apic.set(DN_E, "l3extInstP", &[("descr", "by hand")]).unwrap();
    world.kube.deploy("a", "web", Some(crate::world::E), &["10.0.0.1", "10.0.0.2"]);
    let mut daemon = world.run(&[]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    let text = stdout(&purge(&world, &["--yes"], 1));
    assert!(text.contains("another aci-sync restores what is deleted: "), "{text}");
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    let deletes = world.apic.writes().iter().filter(|it| it.method == "DELETE").count();
    assert_eq!(deletes, 1, "one subnet, and not the tag");
    assert_eq!(daemon.stop().0, Some(0));
    let text = stdout(&purge(&world, &["--yes"], 0));
    assert!(text.ends_with("3 objects deleted; nothing is left.\n"), "{text}");
    assert!(world.apic.bearing(MARK).is_empty() && world.apic.get(DN_E).is_some());
}

/// T11, W7: a deletion that a busy APIC refuses is decided again on what is there then.
fn a_busy_apic_is_looked_at_again() {
    let world = World::new();
    in_sync(&world);
    world.kube.deny("get", "leases");
    let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    world.apic.fault(Fault::on("out-L.json", Trouble::Bytes(busy.into())).method("POST").times(4));
    let mut run = Daemon::start(world.command(&["purge", "--yes", "-o", "json"]));
    let reads =
        |it: &sim::apic::Entry| it.method == "GET" && it.target.contains("instP-F") && it.target.contains("config");
    world.until("the first deletion was refused", |world| {
        world.apic.journal().iter().filter(|it| reads(it)).count() > 1
    });
    let foreign = format!("{DN_F}/extsubnet-[10.77.0.0/16]");
    world.apic.set(&foreign, "l3extSubnet", &[("descr", "by hand")]).unwrap();
    assert_eq!(run.wait().code(), Some(1), "{}", run.log());
    assert!(world.apic.get(&foreign).is_some(), "{}", run.log());
}

/// T11: nothing is deleted that people cannot see.
fn nothing_is_deleted_unseen() {
    let world = World::new();
    in_sync(&world);
    world.kube.deny("get", "leases");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let done = world.command(&["purge", "--yes"]).stdout(full).output().unwrap();
    assert_eq!((done.status.code(), world.apic.writes().len()), (Some(1), 0), "{}", stderr(&done));
}

/// T11: each sign of life, and what is done without one.
#[test]
fn a_living_aci_sync_is_noticed() {
    side_by_side(&[
        &a_socket_that_answers,
        &a_lease_that_changes,
        &an_api_server_that_stops,
        &a_lease_is_held_to_the_end,
        &a_daemon_that_restores,
        &a_subnet_is_the_canary,
        &a_busy_apic_is_looked_at_again,
        &nothing_is_deleted_unseen,
    ]);
}
