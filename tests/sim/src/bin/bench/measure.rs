//! What is measured, and the tables that are printed.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};

use sim::apic::Throttle;
use sim::lab::Folder;
use sim::net::{Fault, Trouble};

use crate::daemon::{DEFAULT_RATE, Daemon, NO_RATE, own_cpu};
use crate::floor::{self, TRIES};
use crate::world::{PODS_EACH, World};

/// No measurement goes on for longer.
const LIMIT: Duration = Duration::from_secs(300);

/// Nothing was written for so long: that was all.
const QUIET: Duration = Duration::from_secs(1);

/// The size at which everything but the first sync is measured.
const USUAL: usize = 10_000;

/// The slow APIC's time for an answer.
const SLOW: Duration = Duration::from_millis(50);

/// What is measured, and where its files go.
pub struct Bench {
    /// The daemon.
    pub program: PathBuf,
    /// A folder that is there.
    pub dir: PathBuf,
}

/// One first sync.
pub struct Sync {
    begun: Instant,
    first_list: Option<Duration>,
    /// Until the fabric was as it should be.
    pub took: Duration,
    /// The CPU time of the daemon.
    pub cpu: Duration,
    /// The most memory that it had, in KiB.
    pub peak: u64,
    simulators: Duration,
    requests: BTreeMap<&'static str, usize>,
    stop: Option<Duration>,
}

impl Bench {
    /// The folder.
    pub fn folder(&self) -> Folder {
        Folder(self.dir.clone())
    }

    /// From the start to the converged fabric, for each size, on an instant and on a slow APIC.
    pub fn sync(&self, sizes: &[usize]) -> io::Result<()> {
        println!("### From start to a converged fabric\n");
        println!(
            "| Pods | APIC | subnets in EPGs | first list asked | time | floor (curl) | times the floor | CPU | peak memory | logins | GETs | POSTs | \
             simulators' CPU | SIGTERM to exit |"
        );
        println!("| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        let mut growth = Vec::new();
        for &pods in sizes {
            let mut world = World::new(pods);
            let sync = self.best(&mut world)?;
            let floor = floor::of(&world, &self.folder(), sync.begun)?;
            print_sync(pods, "instant", &world, &sync, Some(floor));
            growth.push((pods, sync));
            drop(world);
            let world = World::new(pods);
            world.lab.describe(&self.folder())?;
            world.lab.apic.fault(Fault::on("", Trouble::Delay(SLOW)));
            let sync = self.first(&world, NO_RATE)?;
            print_sync(pods, "50 ms", &world, &sync, None);
            drop(world);
            let world = World::new(pods);
            world.lab.describe(&self.folder())?;
            throttle(&world);
            let sync = self.first(&world, DEFAULT_RATE)?;
            print_sync(pods, "throttled at 30/s", &world, &sync, None);
        }
        println!("\n### Growth: the same per Pod\n");
        println!(
            "| Pods | time | CPU | memory at its peak | a further Pod's memory |\n| ---: | ---: | ---: | ---: | ---: |"
        );
        let mut before: Option<(usize, u64)> = None;
        for (pods, sync) in &growth {
            let each = |time: Duration| format!("{:.0} µs", time.as_secs_f64() * 1e6 / *pods as f64);
            let further = before.map_or(String::new(), |(fewer, peak)| {
                format!("{:.2} KiB", (sync.peak as f64 - peak as f64) / (*pods as f64 - fewer as f64))
            });
            let memory = format!("{:.1} KiB", sync.peak as f64 / *pods as f64);
            println!("| {pods} | {} | {} | {memory} | {further} |", each(sync.took), each(sync.cpu));
            before = Some((*pods, sync.peak));
        }
        println!();
        Ok(())
    }

    /// The best of some first syncs on an instant APIC, which the world's fabric is from; with the most memory of all.
    pub fn best(&self, world: &mut World) -> io::Result<Sync> {
        let mut best: Option<Sync> = None;
        for _ in 0..TRIES {
            world.empty_fabric();
            world.lab.describe(&self.folder())?;
            let sync = self.first(world, NO_RATE)?;
            best = Some(match best {
                Some(best) if best.took <= sync.took => Sync { peak: best.peak.max(sync.peak), ..best },
                Some(best) => Sync { peak: best.peak.max(sync.peak), ..sync },
                None => sync,
            });
        }
        best.ok_or_else(|| io::Error::other("nothing was measured"))
    }

    fn first(&self, world: &World, rate: Option<&str>) -> io::Result<Sync> {
        let before = own_cpu();
        let daemon = Daemon::start(&self.program, &self.folder(), rate)?;
        let took = converged(world, &daemon)?;
        let simulators = own_cpu() - before;
        settled(world);
        let (cpu, peak) = (daemon.cpu(), daemon.peak());
        let mut requests = BTreeMap::new();
        for entry in world.lab.apic.journal() {
            let kind = match entry.method.as_str() {
                _ if entry.path.contains("aaaLogin") => "login",
                "GET" => "GET",
                _ => "POST",
            };
            *requests.entry(kind).or_default() += 1;
        }
        let lists =
            world.lab.kube.journal().into_iter().filter(|it| it.at >= daemon.begun && it.target.contains("limit="));
        let first_list = lists.map(|it| it.at).min().map(|it| it.saturating_duration_since(daemon.begun));
        let begun = daemon.begun;
        Ok(Sync { begun, first_list, took, cpu, peak, simulators, requests, stop: daemon.stop() })
    }

    /// From a Pod's address handed to TLS to the request that carries it, fully read.
    pub fn latency(&self) -> io::Result<()> {
        println!("### Change latency at {USUAL} Pods, 1,000 changes\n");
        println!("| APIC | changes a second | p50 | p99 | max |\n| --- | ---: | ---: | ---: | ---: |");
        for (apic, own_rate, rates) in
            [("instant", NO_RATE, &[20, 200][..]), ("throttled at 30/s", DEFAULT_RATE, &[5, 20])]
        {
            let world = World::new(USUAL);
            world.lab.describe(&self.folder())?;
            if own_rate == DEFAULT_RATE {
                throttle(&world);
            }
            let daemon = Daemon::start(&self.program, &self.folder(), own_rate)?;
            converged(&world, &daemon)?;
            settled(&world);
            for (number, rate) in rates.iter().enumerate() {
                let times = changes(&world, *rate, USUAL + number * 1000)?;
                let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
                println!("| {apic} | {rate} | {} | {} | {} |", millis(at(0.5)), millis(at(0.99)), millis(at(1.0)));
            }
        }
        println!();
        Ok(())
    }

    /// An EPG with a thousand subnets is deleted on the APIC.
    pub fn healing(&self) -> io::Result<()> {
        println!("### Healing at {USUAL} Pods\n");
        println!("| deleted on the APIC | time until all is back |\n| --- | ---: |");
        let mut world = World::new(USUAL);
        world.lab.describe(&self.folder())?;
        for n in 0..1_000 - PODS_EACH {
            world.one_of_large(USUAL + n);
        }
        let daemon = Daemon::start(&self.program, &self.folder(), NO_RATE)?;
        converged(&world, &daemon)?;
        settled(&world);
        let there = world.lab.apic.subnets(LARGE).len();
        let begun = Instant::now();
        world.lab.apic.admin_delete(LARGE).map_err(|error| io::Error::other(format!("{error:?}")))?;
        wait(&world, &daemon)?;
        println!("| an EPG with {there} subnets | {} |\n", millis(begun.elapsed()));
        Ok(())
    }

    /// A minute in which nothing happens.
    pub fn idle(&self) -> io::Result<()> {
        println!("### One quiet minute at {USUAL} Pods\n");
        println!(
            "| CPU | of one core | requests to the APIC | requests to Kubernetes |\n| ---: | ---: | ---: | ---: |"
        );
        let world = World::new(USUAL);
        world.lab.describe(&self.folder())?;
        let flags = ["--max-epgs", "off", "--events=false"];
        let daemon = Daemon::start_with(&self.program, &self.folder(), NO_RATE, &flags)?;
        converged(&world, &daemon)?;
        settled(&world);
        let asked = || (world.lab.apic.journal().len(), world.lab.kube.journal().len());
        // What follows a first sync by itself is over by then: the L3Outs are read once more. Events would go on for minutes.
        sleep(Duration::from_secs(30));
        let (cpu, (apic, kube)) = (daemon.cpu_of_threads(), asked());
        let minute = Duration::from_secs(60);
        sleep(minute);
        let cpu = daemon.cpu_of_threads().saturating_sub(cpu);
        let share = 100.0 * cpu.as_secs_f64() / minute.as_secs_f64();
        let (apic_now, kube_now) = asked();
        println!("| {} | {share:.3} % | {} | {} |\n", millis(cpu), apic_now - apic, kube_now - kube);
        Ok(())
    }
}

/// The APIC has the throttle that Cisco recommends, with room for a burst of the same size.
fn throttle(world: &World) {
    let throttle = Throttle { per_second: 30.0, burst: 30, retry_after: false };
    world.lab.apic.variants(|variants| variants.request_throttle = Some(throttle));
}

/// The EPG that is healed.
const LARGE: &str = "uni/tn-TEN_0/out-L3O_00/instP-EPG_00000";

fn print_sync(pods: usize, apic: &str, world: &World, sync: &Sync, floor: Option<Duration>) {
    let cores = available_parallelism().map_or(1, usize::from);
    let mark = if sync.simulators.as_secs_f64() > sync.took.as_secs_f64() * cores as f64 / 2.0 { " (!)" } else { "" };
    let count = |kind: &str| sync.requests.get(kind).copied().unwrap_or_default();
    println!(
        "| {pods} | {apic} | {} in {} | {} | {} | {} | {} | {} | {:.1} MiB | {} | {} | {} | {}{mark} | {} |",
        world.subnets,
        world.epgs,
        sync.first_list.map_or("never".to_owned(), millis),
        seconds(sync.took),
        floor.map_or(String::new(), seconds),
        floor.map_or(String::new(), |floor| format!("{:.2}", sync.took.as_secs_f64() / floor.as_secs_f64())),
        seconds(sync.cpu),
        sync.peak as f64 / 1024.0,
        count("login"),
        count("GET"),
        count("POST"),
        seconds(sync.simulators),
        sync.stop.map_or("failed".to_owned(), millis),
    );
}

fn converged(world: &World, daemon: &Daemon) -> io::Result<Duration> {
    wait(world, daemon)?;
    Ok(daemon.begun.elapsed())
}

/// Waits until the fabric is as it should be.
pub fn wait(world: &World, _running: &Daemon) -> io::Result<()> {
    let done = world.lab.apic.wait_until(LIMIT, |_| world.is_converged());
    let count = world.lab.apic.count("l3extSubnet");
    let why = || io::Error::other(format!("the fabric has {count} subnets of {} after {LIMIT:?}", world.subnets));
    done.then_some(()).ok_or_else(why)
}

/// Waits until nothing is written any more.
fn settled(world: &World) {
    let mut before = usize::MAX;
    while before != world.lab.apic.journal().len() {
        before = world.lab.apic.journal().len();
        sleep(QUIET);
    }
}

/// A thousand new Pods at a rate, and how long each took, the shortest first.
fn changes(world: &World, rate: u32, from: usize) -> io::Result<Vec<Duration>> {
    world.lab.apic.clear_journal();
    world.lab.kube.handed();
    let begun = Instant::now();
    let mut versions = Vec::new();
    for n in 0..1_000u32 {
        sleep((begun + Duration::from_secs(1) * n / rate).saturating_duration_since(Instant::now()));
        let address = format!("12.{}.{}.{}", from / 1000, n / 250, n % 250);
        versions.push((world.one_more(from + n as usize, &address), address));
    }
    settled(world);
    let handed = world.lab.kube.handed();
    let mut arrived = BTreeMap::new();
    for entry in world.lab.apic.writes() {
        for (_, rest) in entry.body.match_indices("\"12.").map(|(at, _)| entry.body.split_at(at + 1)) {
            if let Some((address, _)) = rest.split_once('/') {
                arrived.entry(address.to_owned()).or_insert(entry.at);
            }
        }
    }
    let mut times = Vec::new();
    for (version, address) in versions {
        let (Some(from), Some(to)) = (handed.get(&version), arrived.get(&address)) else {
            return Err(io::Error::other(format!("{address} was never written")));
        };
        times.push(to.saturating_duration_since(*from));
    }
    times.sort();
    Ok(times)
}

/// With two digits.
pub fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// With one digit.
pub fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
