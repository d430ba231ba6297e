//! What the machine below does to the daemon: no descriptors left, no reader of its output, a clock that jumps.

use std::net::ToSocketAddrs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::{Daemon, E, LIMIT, World};
use serde_json::json;
use sim::apic;
use sim::kube::Options;
use sim::net::{Fault, Trouble};

/// Changes how many descriptors a running process may have.
fn allow_descriptors(daemon: &Daemon, soft: u32) {
    let limit = format!("--nofile={soft}:");
    let status = Command::new("prlimit").args(["--pid", &daemon.id().to_string(), &limit]).status().unwrap();
    assert!(status.success());
}

/// F34, F1 (W1, W8, X1): if no connection can be made because the process has no descriptors left, it says so,
/// changes nothing, and goes on by itself once there are some again.
#[test]
fn a_process_out_of_descriptors_recovers() {
    let world = World::new();
    let mut daemon = world.run(&["--epg-grace", "0"]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    world.apic.clear_journal();
    // What is open stays open; nothing new can be.
    allow_descriptors(&daemon, 3);
    world.kube.server().cut_all();
    world.apic.cut(0);
    daemon.until_logged("failed to watch kind=Pod error=\"failed to reach the API server: ");
    daemon.until_logged("failed to watch kind=Deployment error=\"failed to reach the API server: ");
    daemon.until_logged("failed to open an APIC session");
    daemon.until_logged("Too many open files");
    world.kube.delete("pods", "a", "web-646c8dfd75-1");
    world.kube.pod("a", "web", "3", &["10.0.0.3"]);
    assert_eq!(world.writes(), [""; 0]);
    allow_descriptors(&daemon, 1024);
    world.until_holds("E", &["10.0.0.1", "10.0.0.3"]);
    assert_eq!(daemon.stop().0, Some(0));
    assert_eq!(daemon.count("panicked"), 0);
}

/// F34, F1, F13 (X3, I9): connections that end again and again leave nothing behind: no descriptor and no thread.
#[test]
fn lost_connections_leak_nothing() {
    let world = World::new();
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", daemon.id())).unwrap().count();
    let (descriptors, threads) = (count("fd"), count("task"));
    // A watch that said something and then ends is opened again at once.
    let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "Service", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}}});
    let over = Trouble::Bytes(format!("HTTP/1.1 200 OK\r\n\r\n{bookmark}\n").into_bytes());
    world.kube.fault(Fault::on("/services?watch=true", over).times(50));
    world.kube.server().cut_all();
    for n in 2..5 {
        world.apic.drop_websockets();
        let address = format!("10.0.0.{n}");
        world.kube.pod("a", "web", &n.to_string(), &[&address]);
        world.until("the new session serves", |world| world.subnets("E").contains(&format!("{address}/32")));
    }
    let asked = || world.kube.journal().iter().filter(|it| it.target.contains("/services?watch=true")).count();
    let served = || asked() > 1 && count("fd") <= descriptors + 4 && count("task") <= threads;
    let end = Instant::now() + LIMIT;
    while !served() {
        assert!(Instant::now() < end, "{} descriptors, {} threads", count("fd"), count("task"));
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// F34 (X1, X6): the fabric is kept in sync even if stdout and stderr are closed, full, or without a reader; and a
/// stop is a stop.
#[test]
fn closed_or_full_outputs_do_not_stop_the_daemon() {
    for outputs in [">&- 2>&-", ">/dev/full 2>/dev/full", "| true", "2>&1 | true", "<&- >&- 2>&-"] {
        let world = World::new();
        // The shell's exit code is the daemon's, or lost in the pipe.
        let program = world.command(&[]).get_program().to_str().unwrap().to_owned();
        let pid = world.folder.path().join("pid");
        let script = format!("sh -c 'echo $$ >\"$PID\"; exec \"$0\" run --epg-grace 0' '{program}' {outputs}");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env_clear().env("PID", &pid).stdin(Stdio::null());
        for (name, value) in world.command(&[]).get_envs() {
            command.env(name, value.unwrap());
        }
        let mut shell = Daemon::start(command);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
        world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
        // Warnings, too, have nowhere to go.
        world.kube.server().cut_all();
        world.apic.drop_websockets();
        world.kube.delete("pods", "a", "web-646c8dfd75-1");
        world.until_holds("E", &["10.0.0.1"]);
        let pid = std::fs::read_to_string(&pid).unwrap();
        assert!(Command::new("kill").args(["-TERM", pid.trim()]).status().unwrap().success(), "{outputs}: it is alive");
        assert_eq!(shell.wait().code(), Some(0), "{outputs}");
        let process = Path::new("/proc").join(pid.trim());
        world.until("it has ended", |_| !process.exists());
        assert_eq!(world.subnets("E").len(), 1, "what is on the fabric stays");
    }
}

/// F25: no deadline depends on the time of day, which may jump; only log lines show it, and a plugin's credential ends
/// at one, which is made a span of time as soon as it is read. The ends of certificates are only shown.
#[test]
fn deadlines_ignore_clock_jumps() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if !["time.rs", "plugin.rs", "dial.rs", "trust.rs"].iter().any(|it| path.ends_with(it)) {
                let text = std::fs::read_to_string(&path).unwrap();
                // Unit tests may make certificates.
                let text = text.split("#[cfg(test)]").next().unwrap();
                for word in ["SystemTime", "UNIX_EPOCH", "Asn1Time"] {
                    assert!(!text.contains(word), "{} uses {word}", path.display());
                }
            }
        }
    }
}

/// F33 (A1): a cluster and a fabric that only IPv6 leads to.
#[test]
fn an_ipv6_only_setup_is_served() {
    let loopback = std::net::Ipv6Addr::LOCALHOST;
    let cluster = Options { address: (loopback, 0).into(), names: vec!["::1".to_owned()], ..Options::default() };
    let world = World::with(cluster, apic::Options { ip: loopback.into(), ..apic::Options::default() });
    assert!(world.kube.url().starts_with("https://[::1]:") && world.apic.apic().starts_with("[::1]:"));
    let _daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["fd00:10:244::1"]);
    world.until_holds("E", &["fd00:10:244::1"]);
}

/// F33 (A1): a name is tried at each of its addresses, on both sides and for the websocket too. `localhost` has two on
/// most machines, and the servers are at one of them.
#[test]
fn every_address_of_a_name_is_tried() {
    for ip in ("localhost", 0).to_socket_addrs().unwrap().map(|it| it.ip()) {
        let names = ["::1", "127.0.0.1", "localhost"].map(str::to_owned).to_vec();
        let cluster = Options { address: (ip, 0).into(), names, ..Options::default() };
        let world = World::with(cluster, apic::Options { ip, ..apic::Options::default() });
        let by_name = |text: &str| text.replace("[::1]", "localhost").replace("127.0.0.1", "localhost");
        let kubeconfig = std::fs::read_to_string(world.folder.path().join("kubeconfig")).unwrap();
        world.folder.file("kubeconfig", &by_name(&kubeconfig));
        let mut command = world.command(&["run"]);
        command.env("ACI_APIC", by_name(&world.apic.apic()));
        let _daemon = Daemon::start(command);
        world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
        world.until_holds("E", &["10.0.0.1"]);
    }
}

/// F33 (W8): names that do not resolve are logged, on both sides, and tried again; a stop does not wait for them.
#[test]
fn unresolvable_names_are_retried() {
    let world = World::new();
    let kubeconfig = std::fs::read_to_string(world.folder.path().join("kubeconfig")).unwrap();
    world.folder.file("kubeconfig", &kubeconfig.replace("127.0.0.1", "nowhere.invalid"));
    let mut command = world.command(&["run"]);
    command.env("ACI_APIC", "nowhere.invalid");
    let mut daemon = Daemon::start(command);
    daemon.until_logged("failed to list kind=Pod error=\"failed to reach the API server: failed to lookup address");
    daemon.until_logged("controller=nowhere.invalid:443 error=\"failed to reach the APIC: failed to lookup address");
    assert_eq!(daemon.stop().0, Some(0));
}

/// F34 (X1, X2, X3): a process that holds the pipe of the log and does not read it delays neither the fabric, nor
/// not a stop.
#[test]
fn an_unread_log_pipe_does_not_block_the_daemon() {
    let world = World::new();
    let mut command = world.command(&["run", "--epg-grace", "0"]);
    command.env("RUST_LOG", "debug").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // More lines than a pipe holds, and than wait.
    let addresses: Vec<String> = (0..1200).map(|n| format!("10.1.{}.{}", n / 250, n % 250)).collect();
    for (n, address) in addresses.iter().enumerate() {
        world.kube.pod("a", "web", &n.to_string(), &[address]);
    }
    for epg in ["E", "F", "G"] {
        let annotation = json!({"tenant": "T", "l3out": "L", "epg": epg}).to_string();
        world.kube.deploy("a", "web", Some(&annotation), &[]);
        world.until("all Pods are exported", |world| world.subnets(epg).len() == addresses.len());
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut log = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut log).unwrap();
    assert!(log.contains("APIC session established"), "what the pipe held is there");
}
