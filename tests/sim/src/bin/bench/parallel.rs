//! What requests in flight together bring: the first sync, and a node that goes with a tenth of all Pods, on APICs that
//! take their time, with one request at a time and with several.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use sim::apic::Throttle;
use sim::lab::Folder;

use crate::daemon::{DEFAULT_RATE, Daemon, NO_RATE};
use crate::world::World;

/// The size that is measured.
const PODS: usize = 10_000;

/// No measurement goes on for longer.
const LIMIT: Duration = Duration::from_secs(300);

/// The daemon's own limit by default, in requests a second.
const OWN_RATE: f64 = 20.0;

const NUMBERS: [usize; 2] = [1, 4];

/// An APIC that takes so long for an answer, or that takes so many requests a second.
enum Apic {
    Latency(u64),
    Throttled,
}

const APICS: [Apic; 4] = [Apic::Latency(0), Apic::Latency(50), Apic::Latency(200), Apic::Throttled];

/// What happened until the fabric was as it should be.
struct Measured {
    /// Until the last new address was in its EPG.
    reachable: Duration,
    /// Until the last old one was out, too.
    done: Duration,
    requests: usize,
}

/// Both stories on all APICs.
pub fn table(program: &Path, dir: &Path) -> io::Result<()> {
    println!("### Requests in flight together, at {PODS} Pods\n");
    println!("\"A node goes\": a tenth of all Pods, some in each EPG, is replaced at once.");
    println!("Ideal: requests x latency / `--parallel`, or requests / rate.\n");
    println!(
        "| story | APIC | `--parallel` | all new addresses in | all old ones out | requests | for each EPG | ideal | \
         times the ideal | times faster |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for apic in &APICS {
        let mut before: [Option<Duration>; 2] = [None, None];
        for number in NUMBERS {
            let world = World::new(PODS);
            let stories = stories(&world, apic, number, program, &Folder(dir.to_owned()))?;
            for ((name, measured), before) in ["first sync", "a node goes"].into_iter().zip(stories).zip(&mut before) {
                print(name, apic, number, &world, &measured, *before);
                *before = Some(measured.done);
            }
        }
    }
    println!();
    Ok(())
}

fn stories(world: &World, apic: &Apic, number: usize, program: &Path, folder: &Folder) -> io::Result<[Measured; 2]> {
    world.lab.describe(folder)?;
    world.lab.apic.variants(|variants| match apic {
        Apic::Latency(latency) => variants.latency = Duration::from_millis(*latency),
        Apic::Throttled => {
            variants.request_throttle = Some(Throttle { per_second: 30.0, burst: 30, retry_after: false });
        }
    });
    let rate = if matches!(apic, Apic::Throttled) { DEFAULT_RATE } else { NO_RATE };
    let flags = ["--max-epgs", "off", "--events=false", "--parallel", &number.to_string()];
    let daemon = Daemon::start_with(program, folder, rate, &flags)?;
    let first = measure(world, daemon.begun, || world.is_converged())?;
    world.lab.apic.clear_journal();
    let (begun, replaced) = world.node_goes();
    let second = measure(world, begun, || world.is_converged() && world.are_in(&replaced))?;
    Ok([first, second])
}

/// Waits until the fabric is as it should be; the times are those of the requests.
fn measure(world: &World, begun: Instant, is_done: impl Fn() -> bool) -> io::Result<Measured> {
    let apic = &world.lab.apic;
    if !apic.wait_until(LIMIT, |_| is_done()) {
        return Err(io::Error::other(format!("the fabric was not as it should be after {LIMIT:?}")));
    }
    let took = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| at.saturating_duration_since(begun));
    let journal = apic.journal();
    let writes = || journal.iter().filter(|it| it.is_write());
    let creates = writes().filter(|it| it.body.contains("\"created\"")).map(|it| it.at).max();
    Ok(Measured { reachable: took(creates), done: took(writes().map(|it| it.at).max()), requests: journal.len() })
}

fn print(story: &str, apic: &Apic, number: usize, world: &World, measured: &Measured, before: Option<Duration>) {
    let Measured { reachable, done, requests } = measured;
    let done = done.as_secs_f64();
    let (name, ideal) = match apic {
        Apic::Latency(0) => ("instant".to_owned(), None),
        Apic::Latency(latency) => {
            (format!("{latency} ms"), Some(*requests as f64 * *latency as f64 / 1e3 / number as f64))
        }
        Apic::Throttled => ("30 requests/s".to_owned(), Some(*requests as f64 / OWN_RATE)),
    };
    let times = ideal.map_or(String::new(), |ideal| format!("{:.2}", done / ideal));
    println!(
        "| {story} | {name} | {number} | {:.2} s | {done:.2} s | {requests} | {:.2} | {} | {times} | {} |",
        reachable.as_secs_f64(),
        *requests as f64 / world.epgs as f64,
        ideal.map_or(String::new(), |ideal| format!("{ideal:.2} s")),
        before.map_or(String::new(), |before| format!("{:.2}", before.as_secs_f64() / done)),
    );
}
