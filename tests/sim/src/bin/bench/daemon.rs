//! The daemon as it is shipped, seen from outside: its start and its end, and what the kernel knows of it.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sim::lab::Folder;

/// What `/proc` counts CPU time in: `getconf CLK_TCK` is 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// `--apic-rate` against an APIC without a throttle: what is measured is the daemon, not its patience.
pub const NO_RATE: Option<&str> = Some("off");

/// `--apic-rate` as it is by default.
pub const DEFAULT_RATE: Option<&str> = None;

/// A running daemon. It is killed when it is dropped.
pub struct Daemon {
    child: Child,
    /// When it was started.
    pub begun: Instant,
}

impl Daemon {
    /// Starts one with this `--apic-rate` against the lab that is described in the folder; its log goes there, too. All that
    /// is measured is in one namespace, so that has no limit.
    pub fn start(program: &Path, folder: &Folder, rate: Option<&str>) -> io::Result<Daemon> {
        Daemon::start_with(program, folder, rate, &["--max-epgs", "off"])
    }

    /// The same with some flags more.
    pub fn start_with(program: &Path, folder: &Folder, rate: Option<&str>, flags: &[&str]) -> io::Result<Daemon> {
        let log = File::create(folder.0.join("daemon.log"))?;
        let mut command = Command::new(program);
        command.arg("run").args(flags).env_clear().stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        for line in fs::read_to_string(folder.0.join("lab.env"))?.lines() {
            if let Some((name, value)) = line.split_once('=') {
                command.env(name, value.trim_matches('\''));
            }
        }
        // As in systemd's unit and in the manifests.
        command.env("MALLOC_ARENA_MAX", "1");
        if let Some(rate) = rate {
            command.args(["--apic-rate", rate]);
        }
        let begun = Instant::now();
        Ok(Daemon { child: command.spawn()?, begun })
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap_or_default()
    }

    /// The most memory that it ever had, in KiB.
    pub fn peak(&self) -> u64 {
        let status = self.file("status");
        let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
        line.and_then(|it| it.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    }

    /// The CPU time of all its threads so far.
    pub fn cpu(&self) -> Duration {
        cpu_of(&self.file("stat"))
    }

    /// The same to the nanosecond, but without threads that have ended.
    pub fn cpu_of_threads(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let times = threads.filter_map(|it| {
            let text = fs::read_to_string(it.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(times.sum())
    }

    /// Waits until it has nothing to do.
    pub fn calm(&self) -> io::Result<()> {
        const LOOK: Duration = Duration::from_millis(50);
        const LOOKS: usize = 5;
        const LIMIT: Duration = Duration::from_secs(300);
        let end = Instant::now() + LIMIT;
        let mut quiet = 0;
        while quiet < LOOKS {
            let before = self.cpu_of_threads();
            sleep(LOOK);
            // A look around, such as that of its watchdog, is nothing.
            let is_quiet = self.cpu_of_threads().saturating_sub(before) < LOOK / 100;
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if Instant::now() > end {
                return Err(io::Error::other("the daemon does not come to rest"));
            }
        }
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) -> io::Result<()> {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status()?;
        sent.success().then_some(()).ok_or_else(|| io::Error::other("the daemon has ended"))
    }

    /// SIGTERM, and how long it takes from there to the end; nothing where it does not end well.
    pub fn stop(mut self) -> Option<Duration> {
        let begun = Instant::now();
        let sent = self.signal("TERM");
        let ended = self.child.wait();
        (sent.is_ok() && ended.is_ok_and(|it| it.success())).then(|| begun.elapsed())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The CPU time of this process, which is that of the simulators.
pub fn own_cpu() -> Duration {
    cpu_of(&fs::read_to_string("/proc/self/stat").unwrap_or_default())
}

fn cpu_of(stat: &str) -> Duration {
    // The name of the program may contain anything; what follows it does not.
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|it| it.parse::<u32>().ok());
    TICK * ticks.sum()
}
