//! X1, X2, X4: the end of the daemon: prompt even if a peer hangs, and with the right exit code.

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use crate::world::{Daemon, E, World, bare_command, output};
use sim::net::{Fault, Trouble};

/// Five times the deadline of the rule, because the machine may be busy.
const PROMPT: Duration = Duration::from_secs(10);

/// X2, A3: SIGTERM logs out, leaves everything on the fabric as it is, and exits with 0; SIGINT does the same.
#[test]
fn a_shutdown_is_clean() {
    for signal in ["TERM", "INT"] {
        let world = World::new();
        let mut daemon = world.run(&["--epg-grace", "0"]);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(0));
        assert!(world.holds("E", &["10.0.0.1"]));
        assert_eq!(world.apic.sessions(), 0, "logged out");
        let log = daemon.log();
        assert!(log.contains("stopped") && !log.contains("threads still running"), "{log}");
        assert_eq!(daemon.text("err"), "", "nothing to complain about");
    }
}

/// X2, I15: a peer that hangs does not delay the stop, on either side, at any point.
#[test]
fn a_hanging_peer_does_not_delay_the_shutdown() {
    for (side, target) in [
        ("kube", "/api/v1/pods"),
        ("kube", "/api/v1/namespaces/kube-system"),
        ("kube", "/leases"),
        ("apic", "aaaLogin"),
        ("apic", "/api/class"),
        ("apic", "/api/mo/uni/tn-T/out-L.json"),
        ("apic", "aaaLogout"),
    ] {
        let world = World::new();
        let fault = Fault::on(target, Trouble::Hang);
        // It is made and renewed, but not read again for its release.
        let fault = if target == "/leases" { fault.method("GET").after(1) } else { fault };
        if side == "kube" {
            world.kube.fault(fault)
        } else {
            world.apic.fault(fault)
        }
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        let mut command = world.command(&["run"]);
        if target.ends_with("kube-system") {
            command.env_remove("ACI_SYNC_CLUSTER_ID");
        }
        if target == "/leases" {
            command.arg("--leader-elect");
        }
        let mut daemon = Daemon::start(command);
        match target {
            "/leases" | "aaaLogout" => world.until_holds("E", &["10.0.0.1"]),
            _ => world.until("a request waits for its answer", |world| {
                world.kube.server().troubled() + world.apic.troubled() > 0
            }),
        }
        let (code, time) = daemon.stop();
        assert_eq!(code, Some(0), "{side} {target}");
        assert!(time < PROMPT, "{side} {target}: {time:?}");
        assert_eq!(daemon.count("threads still running"), 0, "{side} {target}: all threads were joined");
    }
}

/// X2: two signals within half a second count as one, as when a service manager and a shell both send one: the stop is
/// clean.
#[test]
fn two_signals_at_once_count_as_one() {
    let world = World::new();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    let mut daemon = world.run(&[]);
    world.until_holds("E", &["10.0.0.1"]);
    // So that it has not ended before the second one comes.
    world.apic.fault(Fault::on("aaaLogout", Trouble::Delay(Duration::from_millis(200))));
    daemon.signal("TERM");
    daemon.signal("TERM");
    daemon.signal("INT");
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(world.apic.sessions(), 0, "logged out");
}

/// X2: a second signal some time after the first ends the process at once.
#[test]
fn a_second_signal_does_not_wait() {
    let world = World::new();
    world.apic.fault(Fault::on("/api/mo/uni/tn-T/out-L.json", Trouble::Hang));
    world.apic.fault(Fault::on("aaaLogout", Trouble::Hang));
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    let mut daemon = world.run(&[]);
    world.until("a request waits for its answer", |world| world.apic.troubled() == 1);
    daemon.signal("TERM");
    daemon.until_logged("shutting down");
    std::thread::sleep(Duration::from_millis(600));
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(1));
}

/// X2: SIGUSR1 logs the full status with the subscriptions.
#[test]
fn the_status_is_logged_on_demand() {
    let world = World::new();
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.kube.deploy("b", "typo", Some("{"), &[]);
    world.until_holds("E", &["10.0.0.1"]);
    daemon.until_logged("finding code=InvalidAnnotation");
    world.until("the snapshot has the finding", |_| {
        daemon.signal("USR1");
        daemon.count("status: finding code=InvalidAnnotation") > 0
    });
    daemon.until_logged("status: L3Out l3out=uni/tn-T/out-L epgs=1 subscribed=true");
    daemon.until_logged("status: view of the cluster kind=Deployment count=2 complete=true");
    daemon.until_logged(r#"status: finding code=InvalidAnnotation subject="Deployment b/typo""#);
    daemon.until_logged(&format!("leader=true controller={}", world.apic.apic()));
}

/// X4, X6: an invalid command line, a missing value or a bad file: one sentence on stderr, the right code, no
/// backtrace.
#[test]
fn errors_are_one_sentence() {
    let world = World::new();
    let file = |name: &str, text: &str| world.folder.file(name, text).display().to_string();
    let bad_config = file("bad-config", "current-context: gone");
    let bad_ca = file("bad-ca", "no certificate");
    let empty = file("empty", "");
    for (words, code, complaint) in [
        (vec!["run", "--colour"], 64, "unknown flag --colour"),
        (vec!["run", "--listen", "5"], 64, "--listen: \"5\" is not HOST:PORT"),
        (vec!["run", "--batch", "many"], 64, "--batch: \"many\" is not a number"),
        (vec!["run", "--kubeconfig", "/no/such/file"], 78, "failed to read the kubeconfig /no/such/file: "),
        (vec!["run", "--kubeconfig", &bad_config], 78, "context \"gone\" not found"),
        (vec!["plan", "--context", "other"], 78, "context \"other\" not found"),
        (vec!["run", "--apic-ca", &bad_ca], 78, "CA bundle: "),
        (vec!["run", "--password-file", &empty], 78, "is empty"),
        (vec!["run", "--apic", "http://x"], 64, "https only"),
    ] {
        let done = output(world.command(&words));
        let (out, err) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
        assert_eq!((done.status.code(), out.as_str()), (Some(code), ""), "{words:?}: {err}");
        assert!(err.contains(complaint) && err.lines().count() == 1, "{words:?}: {err}");
        assert!(!err.contains("panicked") && !err.contains(world.apic.password()), "{err}");
    }
    let done = output(bare_command(&["run"]));
    assert_eq!(done.status.code(), Some(78));
    assert!(String::from_utf8(done.stderr).unwrap().contains("missing APIC controllers; set --apic or ACI_APIC"));
}

/// X6: help and version go to stdout; `info` of `run` goes to stdout, warnings go to stderr.
#[test]
fn every_line_goes_where_it_belongs() {
    let help = output(bare_command(&["help"]));
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("--keep-contracted"));
    let version = String::from_utf8(output(bare_command(&["--version"])).stdout).unwrap();
    assert_eq!(version, format!("aci-sync {}\n", env!("CARGO_PKG_VERSION")));
    let world = World::new();
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some("{"), &[]);
    daemon.until_logged("invalid annotation: not a JSON object");
    assert!(daemon.text("err").lines().all(|it| it.contains(" WARN ")), "{}", daemon.text("err"));
    assert!(daemon.text("out").lines().all(|it| it.contains(" INFO ")), "{}", daemon.text("out"));
}

/// X2, X4: SIGHUP reads the password again; one that cannot be read leaves the old one in use.
#[test]
fn credentials_are_read_again_on_demand() {
    let world = World::new();
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    let old = world.apic.password();
    world.folder.file("password", "");
    daemon.signal("HUP");
    daemon.until_logged("the old ones stay in use");
    world.apic.drop_websockets();
    daemon.until_logged_times("APIC session established", 2);
    world.apic.set_password("admin", "Another-word-2");
    world.folder.file("password", "Another-word-2");
    daemon.signal("HUP");
    daemon.until_logged("credentials read again");
    world.apic.drop_websockets();
    daemon.until_logged_times("APIC session established", 3);
    assert!(!daemon.log().contains(old) && !daemon.log().contains("Another-word"));
}

/// X4, X3: SIGHUP if the password, a token or a CA has become a FIFO without a writer: it is logged, the old one stays
/// in use, and everything goes on.
#[test]
fn a_fifo_as_a_credential_blocks_nothing() {
    let world = World::new();
    let mut daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    let password = world.folder.path().join("password");
    std::fs::remove_file(&password).unwrap();
    assert!(Command::new("mkfifo").arg(&password).status().unwrap().success());
    daemon.signal("HUP");
    daemon.until_logged("the old ones stay in use");
    daemon.until_logged("not a regular file");
    daemon.signal("USR1");
    daemon.until_logged("leader=true controller=");
    world.kube.pod("a", "web", "1", &["10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    assert_eq!(daemon.stop().0, Some(0));
}

/// A4, I12: the daemon leaves no core file, whatever its limits are, and its user cannot read its memory and
/// environment.
#[test]
fn there_is_no_core_file() {
    let world = World::new();
    let daemon = world.run(&[]);
    daemon.until_logged("APIC session established");
    let process = format!("/proc/{}", daemon.id());
    let limits = std::fs::read_to_string(format!("{process}/limits")).unwrap();
    let core = limits.lines().find(|it| it.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..], ["0", "0", "bytes"]);
    // The kernel gives what cannot be dumped to root.
    let own = |file: &str| std::fs::metadata(format!("{process}/{file}")).unwrap().uid();
    assert_eq!((own("environ"), own("mem")), (0, 0));
}
