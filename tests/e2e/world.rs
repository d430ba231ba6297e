//! A simulated cluster, a simulated fabric, and the real daemon between them as a process of its own.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use sim::apic::Variants;
use sim::apic::{self, SimApic};
use sim::kube::{self, Credential, SimKube};
use sim::pki::KeyForm;

use sim::folder::Folder;

/// How long anything may take before a test gives up: a guard against hanging, not a measure. A machine with slow cores and
/// twenty tests at once needs much of it.
pub const LIMIT: Duration = Duration::from_secs(180);

/// The annotation of the EPG `E` of the L3Out `L` of the tenant `T`.
pub const E: &str = r#"{"tenant":"T","l3out":"L","epg":"E"}"#;
/// The same for the EPG `F`.
pub const F: &str = r#"{"tenant":"T","l3out":"L","epg":"F"}"#;
/// The DN of the EPG `E`.
pub const DN_E: &str = "uni/tn-T/out-L/instP-E";
/// The DN of the EPG `F`.
pub const DN_F: &str = "uni/tn-T/out-L/instP-F";
/// The mark of the cluster id that all tests use.
pub const MARK: &str = "orchestrator:aci-sync:me";

/// Both sides. The tenant `T` has the VRF `V` and the L3Outs `L` and `M` in it.
pub struct World {
    /// The cluster.
    pub kube: SimKube,
    /// The fabric.
    pub apic: SimApic,
    /// Where its files are.
    pub folder: Folder,
}

impl World {
    /// With the APIC's likely habits.
    pub fn new() -> World {
        World::with(kube::Options::default(), apic::Options::default())
    }

    /// The same story for an APIC with its likely habits, and for one with the contrary of each.
    pub fn both(story: impl Fn(&World)) {
        for variants in [Variants::default(), Variants::opposite()] {
            let options = apic::Options { variants, ..apic::Options::default() };
            story(&World::with(kube::Options::default(), options));
        }
    }

    /// With everything chosen.
    pub fn with(cluster: kube::Options, fabric: apic::Options) -> World {
        let kube = SimKube::start(cluster);
        let apic = SimApic::start(fabric);
        apic.setup_tenant("T", "V", &["L", "M"]).unwrap();
        // What is below a new object may not be announced for a while; this tenant has been there for long.
        apic.advance(Duration::from_secs(60));
        let folder = Folder::new();
        folder.file("kubeconfig", &kube.kubeconfig(Credential::Certificate(KeyForm::Sec1)));
        folder.file("apic-ca.pem", &apic.ca_pem());
        folder.file("password", apic.password());
        World { kube, apic, folder }
    }

    /// The program with all that it needs to know, and some words more.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = bare_command(words);
        let file = |name: &str| self.folder.path().join(name);
        command
            .env("ACI_USERNAME", self.apic.username())
            .env("ACI_SYNC_PASSWORD_FILE", file("password"))
            .env("ACI_SYNC_APIC_CA", file("apic-ca.pem"))
            .env("ACI_SYNC_KUBECONFIG", file("kubeconfig"))
            .env("ACI_SYNC_CLUSTER_ID", "me")
            // This APIC has no throttle, unless a test gives it one.
            .env("ACI_SYNC_APIC_RATE", "off")
            .env("ACI_APIC", self.apic.apic());
        command
    }

    /// Starts `run` with some flags more.
    pub fn run(&self, flags: &[&str]) -> Daemon {
        Daemon::start(self.command(&[&["run"], flags].concat()))
    }

    /// Runs a command to its end.
    pub fn output(&self, words: &[&str]) -> Output {
        output(self.command(words))
    }

    /// The prefixes that an EPG of `T/L` holds.
    pub fn subnets(&self, epg: &str) -> BTreeSet<String> {
        self.apic.subnets(&format!("uni/tn-T/out-L/instP-{epg}")).into_keys().collect()
    }

    /// Whether an EPG of `T/L` is there and holds exactly these host addresses.
    pub fn holds(&self, epg: &str, addresses: &[&str]) -> bool {
        let host = |it: &&str| format!("{it}/{}", if it.contains(':') { 128 } else { 32 });
        let expected: BTreeSet<String> = addresses.iter().map(host).collect();
        self.apic.get(&format!("uni/tn-T/out-L/instP-{epg}")).is_some() && self.subnets(epg) == expected
    }

    /// Waits until an EPG of `T/L` holds exactly these host addresses.
    pub fn until_holds(&self, epg: &str, addresses: &[&str]) {
        self.until(&format!("{epg} holds {addresses:?}"), |world| world.holds(epg, addresses));
    }

    /// Waits until something is true.
    #[track_caller]
    pub fn until(&self, what: &str, condition: impl Fn(&World) -> bool) {
        if !self.apic.wait_until(LIMIT, |_| condition(self)) {
            let tree = self.apic.tree("uni/tn-T");
            panic!("it never came about that {what}; the fabric: {tree:#?}");
        }
    }

    /// Waits until the fabric was left alone for a moment after everything that was asked of it before: a change in
    /// another EPG is asked for and done, so what came before it has been served.
    pub fn settle(&self) {
        let name = format!("settle-{}", self.apic.writes().len());
        let annotation = json!({"tenant": "T", "l3out": "M", "epg": name}).to_string();
        self.kube.deploy("settle", &name, Some(&annotation), &[]);
        self.until("the daemon has served everything", |world| {
            world.apic.get(&format!("uni/tn-T/out-M/instP-{name}")).is_some()
        });
        self.kube.delete("deployments", "settle", &name);
    }

    /// Waits until the L3Out `L` was read again, as it is a while after an EPG was made in it: what happened before
    /// that may not have been announced, from then on every change has an event.
    pub fn until_read_again(&self) {
        self.until("the L3Out was read again", |world| {
            let is_read = |target: &str| target.contains("out-L.json?query-target=subtree");
            let journal = world.apic.journal();
            journal.iter().filter(|it| it.method == "GET" && it.status == 200 && is_read(&it.target)).count() >= 2
        });
    }

    /// The requests that changed the tree, in short: method and path.
    pub fn writes(&self) -> Vec<String> {
        self.apic.writes().iter().map(|it| format!("{} {}", it.method, it.path)).collect()
    }
}

/// Runs stories side by side.
pub fn side_by_side(stories: &[&(dyn Fn() + Sync)]) {
    std::thread::scope(|scope| stories.iter().for_each(|story| drop(scope.spawn(story))));
}

/// The daemon with nothing in its environment but what the machine needs.
pub fn bare_command(words: &[&str]) -> Command {
    let program = std::env::var("ACI_SYNC_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_aci-sync").to_owned());
    let mut command = Command::new(program);
    // A service on the machine that tests is not meant.
    command.args(words).env_clear().env("CONFIGURATION_DIRECTORY", "/nonexistent").stdin(Stdio::null());
    for name in ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs a command to its end, which must come.
pub fn output(command: Command) -> Output {
    let mut daemon = Daemon::start(command);
    let status = daemon.wait();
    let (stdout, stderr) = (daemon.text("out"), daemon.text("err"));
    Output { status, stdout: stdout.into_bytes(), stderr: stderr.into_bytes() }
}

/// A running daemon. It is killed when it is dropped; a failing test shows what it logged.
pub struct Daemon {
    child: Child,
    lines: Arc<Mutex<Vec<(&'static str, String)>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Daemon {
    /// Starts a command and reads what it prints.
    pub fn start(mut command: Command) -> Daemon {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines: Arc<Mutex<Vec<_>>> = Arc::default();
        let pipes: [(&'static str, Box<dyn Read + Send>); 2] =
            [("out", Box::new(child.stdout.take().unwrap())), ("err", Box::new(child.stderr.take().unwrap()))];
        let readers = pipes.into_iter().map(|(name, pipe)| {
            let lines = lines.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    lines.lock().unwrap().push((name, line));
                }
            })
        });
        let readers = readers.collect();
        Daemon { child, lines, readers }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What was printed to stdout (`out`) or stderr (`err`).
    pub fn text(&self, pipe: &str) -> String {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|(it, _)| *it == pipe).map(|(_, line)| format!("{line}\n")).collect()
    }

    /// Everything that was printed.
    pub fn log(&self) -> String {
        self.lines.lock().unwrap().iter().map(|(_, line)| format!("{line}\n")).collect()
    }

    /// How many lines contain a text.
    pub fn count(&self, text: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|(_, line)| line.contains(text)).count()
    }

    /// Waits until a line contains a text.
    #[track_caller]
    pub fn until_logged(&self, text: &str) {
        self.until_logged_times(text, 1);
    }

    /// Waits until that number of lines contain a text.
    #[track_caller]
    pub fn until_logged_times(&self, text: &str, times: usize) {
        let end = Instant::now() + LIMIT;
        while self.count(text) < times {
            assert!(Instant::now() < end, "{text:?} was never logged {times} times");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Sends a signal, without another process that would take its time to start.
    pub fn signal(&self, signal: &str) {
        let signal = match signal {
            "HUP" => Signal::HUP,
            "INT" => Signal::INT,
            "TERM" => Signal::TERM,
            "USR1" => Signal::USR1,
            "USR2" => Signal::USR2,
            "STOP" => Signal::STOP,
            "CONT" => Signal::CONT,
            other => panic!("SIG{other} is none of the daemon's"),
        };
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end, which must come.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                for reader in self.readers.drain(..) {
                    reader.join().unwrap();
                }
                return status;
            }
            assert!(Instant::now() < end, "the daemon does not end");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// SIGTERM, and the exit code with the time until the end.
    #[track_caller]
    pub fn stop(&mut self) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        self.signal("TERM");
        let status = self.wait();
        (status.code(), begun.elapsed())
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    #[expect(clippy::print_stderr, reason = "it belongs to the test's own output")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon said\n{}---", self.log());
        }
    }
}

/// The largest amount of memory that a process has had so far, in kB.
pub fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find_map(|it| it.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    peak.parse().unwrap()
}
