//! What the daemon reports to the service manager, over a socket as systemd's (sd_notify(3)).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::world::{Daemon, E, LIMIT, World, output};
use sim::net::{Fault, Trouble};

/// What systemd listens on.
struct Manager(UnixDatagram);

impl Manager {
    fn at(socket: UnixDatagram) -> Manager {
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Manager(socket)
    }

    /// Waits for a line; all lines up to and with it.
    #[track_caller]
    fn until(&self, desired: &str) -> Vec<String> {
        let end = Instant::now() + LIMIT;
        let (mut lines, mut buffer) = (Vec::new(), [0; 4096]);
        while !lines.iter().any(|it| it == desired) {
            assert!(Instant::now() < end, "{desired} was not reported, but {lines:?}");
            if let Ok(length) = self.0.recv(&mut buffer) {
                lines.extend(String::from_utf8(buffer[..length].to_vec()).unwrap().lines().map(str::to_owned));
            }
        }
        lines
    }
}

fn start(world: &World, socket: &str, flags: &[&str]) -> Daemon {
    let mut command = world.command(&[&["run"], flags].concat());
    command.env("NOTIFY_SOCKET", socket);
    Daemon::start(command)
}

/// X1: the daemon reports to systemd its readiness, each status, heartbeats without events, and its stop.
#[test]
fn status_is_reported_to_systemd() {
    let world = World::new();
    let path = world.folder.path().join("notify");
    let manager = Manager::at(UnixDatagram::bind(&path).unwrap());
    world.kube.fault(Fault::on("", Trouble::Cut));
    world.apic.fault(Fault::on("aaaLogin", Trouble::Cut));
    let mut daemon = start(&world, path.to_str().unwrap(), &[]);
    // Neither side is there: it is up all the same.
    let lines = manager.until("READY=1");
    assert!(lines.iter().all(|it| it == "READY=1" || it == "STATUS=waiting for Kubernetes"), "{lines:?}");
    world.kube.server().clear_faults();
    manager.until("STATUS=waiting for the APIC");
    world.apic.clear_faults();
    manager.until("STATUS=first full sync");
    manager.until("STATUS=in sync");

    world.kube.deploy("a", "web", Some(r#"{"tenant":"T","l3out":"NONE","epg":"E"}"#), &["10.0.0.1"]);
    manager.until("STATUS=out of sync: 1 finding needs attention");
    world.kube.annotate("a", "web", Some(E));
    manager.until("STATUS=in sync");

    // Nothing happens from here on, but the loop turns.
    manager.until("WATCHDOG=1");
    manager.until("WATCHDOG=1");
    assert_eq!(daemon.stop().0, Some(0));
    let lines = manager.until("STOPPING=1");
    assert!(lines.contains(&"STATUS=stopping".to_owned()), "{lines:?}");
}

/// K4: a standby reports that, over an abstract socket, which systemd may use.
#[test]
fn a_standby_says_so() {
    let world = World::new();
    let lease = ["--leader-elect"];
    let leader = world.run(&lease);
    leader.until_logged("APIC session established");
    let name = format!("aci-sync-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::at(UnixDatagram::bind_addr(&address).unwrap());
    let _standby = start(&world, &format!("@{name}"), &lease);
    let mut lines = manager.until("STATUS=standby: another process holds the Lease");
    if !lines.contains(&"READY=1".to_owned()) {
        lines.extend(manager.until("READY=1"));
    }
    assert!(!lines.iter().any(|it| it.contains("APIC")), "{lines:?}");
}

/// W5: an observer does not report the fabric as in sync while there are changes.
#[test]
fn an_observer_does_not_report_in_sync() {
    let world = World::new();
    let path = world.folder.path().join("notify");
    let manager = Manager::at(UnixDatagram::bind(&path).unwrap());
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    let daemon = start(&world, path.to_str().unwrap(), &["--policy", "observe"]);
    let lines = manager.until("STATUS=observing: there are changes that the policy does not send");
    assert!(!lines.iter().any(|it| it.starts_with("STATUS=in sync")), "{lines:?}");
    assert_eq!(daemon.count("up to date"), 0);
    world.kube.annotate("a", "web", None);
    manager.until("STATUS=in sync");
}

/// R4: after a relist the daemon reports the fabric as in sync only after the changes that follow from the list.
#[test]
fn a_relist_ends_the_status_in_sync() {
    let world = World::new();
    let path = world.folder.path().join("notify");
    let manager = Manager::at(UnixDatagram::bind(&path).unwrap());
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    let _daemon = start(&world, path.to_str().unwrap(), &[]);
    manager.until("STATUS=in sync");
    world.kube.server().pause();
    world.kube.pod("a", "web", "3", &["10.0.0.3"]);
    let expired = r#"{"kind":"Status","status":"Failure","reason":"Expired","code":410}"#.to_owned();
    world.kube.fault(Fault::on("/pods?watch", Trouble::Answer(410, "application/json", expired)).times(1));
    world.apic.fault(Fault { method: Some("POST"), ..Fault::on("out-L", Trouble::Hang) });
    world.kube.server().resume();
    manager.until("STATUS=waiting for Kubernetes");
    let lines = manager.until("STATUS=full sync");
    assert!(!lines.iter().any(|it| it.starts_with("STATUS=in sync")), "{lines:?}");
    assert_eq!(world.subnets("E").len(), 1);
    world.apic.clear_faults();
    let lines = manager.until("STATUS=in sync");
    world.until_holds("E", &["10.0.0.1", "10.0.0.3"]);
    assert!(!lines.contains(&"STATUS=first full sync".to_owned()), "{lines:?}");
}

/// X1: while a reconcile waits for an answer, the daemon does not report the fabric as in sync.
#[test]
fn a_waiting_reconcile_is_reported() {
    let world = World::new();
    let path = world.folder.path().join("notify");
    let manager = Manager::at(UnixDatagram::bind(&path).unwrap());
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    let _daemon = start(&world, path.to_str().unwrap(), &[]);
    manager.until("STATUS=in sync");
    world.apic.fault(Fault { method: Some("POST"), ..Fault::on("out-L", Trouble::Hang) });
    world.kube.pod("a", "web", "3", &["10.0.0.3"]);
    manager.until("STATUS=waiting for an answer of the APIC");
    world.apic.clear_faults();
    manager.until("STATUS=in sync");
    world.until_holds("E", &["10.0.0.1", "10.0.0.3"]);
}

/// X1: a status that the manager's full queue did not take is reported again.
#[test]
fn a_busy_manager_gets_the_status_later() {
    let world = World::new();
    let path = world.folder.path().join("notify");
    let manager = Manager::at(UnixDatagram::bind(&path).unwrap());
    let others = UnixDatagram::unbound().unwrap();
    others.set_nonblocking(true).unwrap();
    while others.send_to(b"OTHER=1", &path).is_ok() {}
    let _daemon = start(&world, path.to_str().unwrap(), &[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    let lines = manager.until("READY=1");
    assert!(lines.iter().filter(|it| *it == "OTHER=1").count() >= 1, "its queue was full: {lines:?}");
    if !lines.contains(&"STATUS=in sync".to_owned()) {
        manager.until("STATUS=in sync");
    }
}

/// X1: the daemon runs without a service manager, whatever NOTIFY_SOCKET is; a path that cannot be a socket is an
/// error.
#[test]
fn an_unusable_notify_socket() {
    let world = World::new();
    let mut command = world.command(&["run"]);
    command.env("NOTIFY_SOCKET", "");
    let mut daemon = Daemon::start(command);
    daemon.until_logged("APIC session established");
    assert_eq!(daemon.stop().0, Some(0));

    let mut command = world.command(&["run"]);
    command.env("NOTIFY_SOCKET", "/".repeat(200));
    assert_eq!(output(command).status.code(), Some(78));
    let mut daemon = start(&world, "/no/such/socket", &[]);
    daemon.until_logged("APIC session established");
    assert_eq!(daemon.stop().0, Some(0));
}
