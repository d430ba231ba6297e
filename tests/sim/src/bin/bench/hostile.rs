//! What one namespace can do to the others: time against size for shapes that somebody who may write Deployments and
//! Services, and nothing more, can make. Twice the size should take about twice the time.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sim::apic::{self, SimApic};
use sim::kube::{self, SimKube};
use sim::lab::{Folder, Lab};

use crate::daemon::{Daemon, NO_RATE};

const KEY: &str = "aci.haystacknetworks.com/l3o";

/// The namespace that is hostile; its name comes before all others, so nothing is decided in the others' favour by it.
const HOSTILE: &str = "0-hostile";
/// The namespace of somebody else, with its EPG in an L3Out of its own.
const OTHER: &str = "shop";
const OTHER_EPG: &str = "uni/tn-T/out-S/instP-W";
const LATE_EPG: &str = "uni/tn-T/out-S/instP-X";

/// No measurement goes on for longer.
const LIMIT: Duration = Duration::from_secs(300);
/// An L3Out in which an EPG was made is read once more five seconds later. That belongs to no measurement.
const SETTLED: Duration = Duration::from_secs(6);
/// Of so many changes the median counts, and of so many tries where a try is one change.
const CHANGES: usize = 5;
const TRIES: usize = 3;
/// The EPGs of those shapes that are not about their number: fewer than any limit on them.
const EPGS: usize = 60;

/// What was measured of one size, and the most memory that the daemon ever had, in KiB.
struct Measured {
    times: Vec<(&'static str, Duration)>,
    peak: u64,
}

/// One shape.
struct Shape {
    /// For `--only`.
    word: &'static str,
    name: &'static str,
    sizes: [usize; 4],
    measure: fn(&Run<'_>, usize) -> io::Result<Measured>,
}

const SHAPES: [Shape; 5] = [
    Shape {
        word: "labels",
        name: "Deployments and as many Services, each with the same 3,000 labels",
        sizes: [10, 20, 40, 75],
        measure: |run, size| run.present(|lab| labels(lab, size)),
    },
    Shape {
        word: "services",
        name: "Deployments under the same 60 Services",
        sizes: [1_500, 3_000, 6_000, 12_000],
        measure: |run, size| run.present(|lab| services(lab, size)),
    },
    Shape {
        word: "deletions",
        name: "Deployments, each with an EPG, deleted one by one",
        sizes: [625, 1_250, 2_500, 5_000],
        measure: |run, size| median(|| run.deletions(size)),
    },
    Shape {
        word: "keys",
        name: "annotations of 4 KiB with 579 unknown keys each",
        sizes: [190, 375, 750, 1_500],
        measure: |run, size| run.present(|lab| unknown_keys(lab, size)),
    },
    Shape {
        word: "l3outs",
        name: "missing L3Outs",
        sizes: [375, 750, 1_500, 3_000],
        measure: |run, size| median(|| run.missing_l3outs(size)),
    },
];

const FIRST_SYNC: &str = "CPU of the first sync";
const CHANGE: &str = "CPU of another namespace's change";
const WAIT: &str = "wait of another namespace's change";

/// All shapes, or one of them.
pub fn table(program: &Path, dir: &Path, only: Option<&str>) -> io::Result<()> {
    let run = Run { program, folder: Folder(dir.to_owned()), flags: flags(program)? };
    println!("### What one namespace can do to the others\n");
    println!("CPU is that of all threads of the daemon, simulators not counted.");
    println!("A wait ends when what the other namespace has changed is on the APIC.");
    println!("The daemon runs with `--apic-rate off {}`.\n", run.flags.join(" "));
    println!("| shape | measured | size | time | ratio to the row before | peak memory |");
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    for shape in SHAPES.iter().filter(|it| only.is_none_or(|word| word == it.word)) {
        let mut measured = Vec::new();
        for size in shape.sizes {
            let done = (shape.measure)(&run, size);
            measured.push((size, done.map_err(|error| io::Error::other(format!("{size} {}: {error}", shape.name)))?));
        }
        print(shape, &measured);
    }
    println!();
    Ok(())
}

fn print(shape: &Shape, measured: &[(usize, Measured)]) {
    let of: Vec<&'static str> = measured[0].1.times.iter().map(|it| it.0).collect();
    for (n, what) in of.into_iter().enumerate() {
        let mut before: Option<Duration> = None;
        for (size, Measured { times, peak }) in measured {
            let time = times[n].1;
            let ratio =
                before.map_or(String::new(), |before| format!("{:.2}", time.as_secs_f64() / before.as_secs_f64()));
            let (time_shown, peak) = (time.as_secs_f64() * 1e3, *peak as f64 / 1024.0);
            println!("| {} | {what} | {size} | {time_shown:.1} ms | {ratio} | {peak:.1} MiB |", shape.name);
            before = Some(time);
        }
    }
}

/// No Events, which would go on for minutes at their own pace. A limit on EPGs, where there is one, would keep some of
/// these shapes from being what they are.
fn flags(program: &Path) -> io::Result<Vec<&'static str>> {
    let help = Command::new(program).arg("--help").output()?;
    let is_limited = String::from_utf8_lossy(&help.stdout).contains("--max-epgs");
    Ok(["--events=false"]
        .into_iter()
        .chain(if is_limited { &["--max-epgs", "off"][..] } else { &[] }.iter().copied())
        .collect())
}

struct Run<'a> {
    program: &'a Path,
    folder: Folder,
    flags: Vec<&'static str>,
}

impl Run<'_> {
    fn start(&self, lab: &Lab) -> io::Result<Daemon> {
        lab.describe(&self.folder)?;
        Daemon::start_with(self.program, &self.folder, NO_RATE, &self.flags)
    }

    /// A shape that is there before the daemon is. What it makes tells how many EPGs and subnets come of it.
    fn present(&self, make: impl Fn(&Lab) -> (usize, usize)) -> io::Result<Measured> {
        let lab = lab();
        let (epgs, subnets) = make(&lab);
        lab.kube.compact();
        lab.kube.render();
        let daemon = self.start(&lab)?;
        let is_synced = || lab.apic.count("l3extInstP") == epgs + 1 && lab.apic.count("l3extSubnet") == subnets;
        until(&lab, "the fabric is in sync", is_synced)?;
        daemon.calm()?;
        let first = daemon.cpu_of_threads();
        sleep(SETTLED);
        let mut times = Vec::new();
        for n in 0..CHANGES {
            daemon.calm()?;
            let before = daemon.cpu_of_threads();
            other_changes(&lab, n)?;
            daemon.calm()?;
            times.push(daemon.cpu_of_threads().saturating_sub(before));
        }
        times.sort();
        Ok(Measured { times: vec![(FIRST_SYNC, first), (CHANGE, times[CHANGES / 2])], peak: daemon.peak() })
    }

    /// The daemon is stopped while they are deleted, so all deletions are there at once when it goes on: what is
    /// measured is the daemon, and not how fast the simulated API server deletes.
    fn deletions(&self, size: usize) -> io::Result<Measured> {
        let lab = lab();
        for n in 0..size {
            lab.kube.apply("deployments", deployment(n, &annotation("L", &format!("M{n}")), &json!({"app": "x"})));
        }
        lab.kube.compact();
        lab.kube.render();
        let daemon = self.start(&lab)?;
        until(&lab, "the fabric is in sync", || lab.apic.count("l3extInstP") == size + 1)?;
        daemon.calm()?;
        drop(daemon);
        // An EPG that this very process made and that never held a subnet is deleted without a grace. That would
        // measure the requests to the APIC, so the EPGs are those of another process.
        let daemon = self.start(&lab)?;
        until(&lab, "another process has logged in", || lab.apic.logins() == 2)?;
        sleep(SETTLED);
        daemon.calm()?;
        daemon.signal("STOP")?;
        for n in 0..size {
            lab.kube.delete("deployments", HOSTILE, &format!("d{n}"));
        }
        let before = daemon.cpu_of_threads();
        let wait = in_the_backlog(&lab, &daemon)?;
        daemon.calm()?;
        let cpu = daemon.cpu_of_threads().saturating_sub(before);
        Ok(Measured { times: vec![("CPU of all deletions", cpu), (WAIT, wait)], peak: daemon.peak() })
    }

    /// They are named at once, and the other namespace changes something then and again and again until all are read.
    fn missing_l3outs(&self, size: usize) -> io::Result<Measured> {
        let lab = lab();
        let daemon = self.start(&lab)?;
        until(&lab, "the fabric is in sync", || lab.apic.count("l3extInstP") == 1)?;
        sleep(SETTLED);
        daemon.calm()?;
        daemon.signal("STOP")?;
        for n in 0..size {
            lab.kube.apply("deployments", deployment(n, &annotation(&format!("A{n:04}"), "E"), &json!({"app": "x"})));
        }
        let (before, asked) = (daemon.cpu_of_threads(), lab.apic.requests());
        let mut waits = vec![in_the_backlog(&lab, &daemon)?];
        while lab.apic.requests() < asked + size {
            waits.push(other_changes(&lab, waits.len())?);
        }
        daemon.calm()?;
        let cpu = daemon.cpu_of_threads().saturating_sub(before);
        waits.sort();
        let longest = waits.last().copied().unwrap_or_default();
        let times = vec![("CPU until all are read", cpu), (WAIT, longest)];
        Ok(Measured { times, peak: daemon.peak() })
    }
}

/// The median of each time over some tries: how many reconciles a burst of events takes is a matter of luck.
fn median(measure: impl Fn() -> io::Result<Measured>) -> io::Result<Measured> {
    let tries = (0..TRIES).map(|_| measure()).collect::<io::Result<Vec<Measured>>>()?;
    let middle = |n: usize| {
        let mut times: Vec<(&str, Duration)> = tries.iter().map(|it| it.times[n]).collect();
        times.sort_by_key(|it| it.1);
        times[TRIES / 2]
    };
    let peak = tries.iter().map(|it| it.peak).max().unwrap_or_default();
    Ok(Measured { times: (0..tries[0].times.len()).map(middle).collect(), peak })
}

/// Both sides, with the other namespace's Deployment in an EPG of its own.
fn lab() -> Lab {
    let (kube, apic) = (SimKube::start(kube::Options::default()), SimApic::start(apic::Options::default()));
    apic.setup_tenant("T", "V", &["L", "S"]).expect("an empty fabric takes tenants");
    kube.deploy(OTHER, "web", Some(&annotation("S", "W")), &[]);
    Lab { apic, kube }
}

/// Another namespace's change: a new Pod. How long it takes until its address is on the APIC.
fn other_changes(lab: &Lab, n: usize) -> io::Result<Duration> {
    let begun = Instant::now();
    let address = other_pod(lab, n);
    until(lab, "another namespace's change is on the APIC", || lab.apic.subnets(OTHER_EPG).contains_key(&address))?;
    Ok(begun.elapsed())
}

/// Another namespace's change while the daemon is stopped: a new Deployment, which comes behind all those that the same
/// watch has for it already. The time counts from when it goes on until the EPG is on the APIC.
fn in_the_backlog(lab: &Lab, daemon: &Daemon) -> io::Result<Duration> {
    lab.kube.deploy(OTHER, "late", Some(&annotation("S", "X")), &[]);
    // Whatever the sockets hold has been sent by then.
    sleep(Duration::from_secs(1));
    let begun = Instant::now();
    daemon.signal("CONT")?;
    until(lab, "another namespace's change is on the APIC", || lab.apic.get(LATE_EPG).is_some())?;
    Ok(begun.elapsed())
}

fn other_pod(lab: &Lab, n: usize) -> String {
    let address = format!("10.1.{}.{}", n / 250, 1 + n % 250);
    lab.kube.pod(OTHER, "web", &format!("n{n}"), &[&address]);
    format!("{address}/32")
}

fn until(lab: &Lab, what: &str, condition: impl Fn() -> bool) -> io::Result<()> {
    let done = lab.apic.wait_until(LIMIT, |_| condition());
    done.then_some(()).ok_or_else(|| io::Error::other(format!("it never came about that {what}")))
}

fn annotation(l3out: &str, epg: &str) -> String {
    json!({"tenant": "T", "l3out": l3out, "epg": epg}).to_string()
}

/// A Deployment of the hostile namespace. Those that come later are older: whoever looks for the oldest finds it last.
fn deployment(n: usize, annotation: &str, labels: &Value) -> Value {
    let created = format!("2026-01-01T00:00:{:02}Z", 59 - n % 60);
    json!({"metadata": {"name": format!("d{n}"), "namespace": HOSTILE, "creationTimestamp": created,
            "annotations": {KEY: annotation}},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}})
}

fn service(n: usize, selector: &Value) -> Value {
    let address = format!("10.9.{}.{}", n / 250, 1 + n % 250);
    json!({"metadata": {"name": format!("s{n}"), "namespace": HOSTILE},
        "spec": {"type": "LoadBalancer", "selector": selector, "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": address}]}}})
}

/// Every Service selects every Deployment, and no label tells two of them apart.
fn labels(lab: &Lab, size: usize) -> (usize, usize) {
    let selector: BTreeMap<String, &str> = (0..3_000).map(|n| (format!("label-of-some-length-{n}"), "x")).collect();
    let selector = json!(selector);
    for n in 0..size {
        let mut labels = selector.clone();
        labels["own"] = n.to_string().into();
        lab.kube.apply("deployments", deployment(n, &annotation("L", &format!("M{n}")), &labels));
        lab.kube.apply("services", service(n, &selector));
    }
    (size, size)
}

/// Every Service selects every Deployment, and each of its addresses is desired in all EPGs.
fn services(lab: &Lab, size: usize) -> (usize, usize) {
    const SERVICES: usize = 60;
    let labels = json!({"app": "x"});
    for n in 0..size {
        lab.kube.apply("deployments", deployment(n, &annotation("L", &format!("M{}", n % EPGS)), &labels));
    }
    (0..SERVICES).for_each(|n| drop(lab.kube.apply("services", service(n, &labels))));
    (EPGS, SERVICES)
}

/// As many keys as an annotation has room for.
fn unknown_keys(lab: &Lab, size: usize) -> (usize, usize) {
    const KEYS: usize = 579;
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
    let key = |n: usize| [n / LETTERS.len(), n % LETTERS.len()].map(|it| char::from(LETTERS[it])).into_iter();
    let mut annotation = annotation("L", "E");
    annotation.pop();
    (0..KEYS).for_each(|n| annotation += &format!(",\"{}\":0", key(n).collect::<String>()));
    annotation.push('}');
    for n in 0..size {
        lab.kube.apply("deployments", deployment(n, &annotation, &json!({"app": "x"})));
    }
    (1, 0)
}
