//! How time and memory grow from 10,000 Pods to 100,000 in 500 EPGs: the same for each Pod is the goal.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use crate::daemon::{Daemon, NO_RATE};
use crate::measure::{Bench, Sync, millis, seconds, wait};
use crate::world::{Shape, World};

const SIZES: [usize; 2] = [10_000, 100_000];

/// Every Deployment is enrolled, so there is an EPG for every 200 Pods.
const SHAPE: Shape = Shape { pods_each: 200, enrolled_one_of: 1 };

/// An L3Out in which an EPG was made is read once more five seconds later. That belongs to no measurement.
const SETTLED: Duration = Duration::from_secs(6);

/// Of so many changes the median counts.
const CHANGES: usize = 9;

/// What was measured of one process that found the fabric as it should be.
struct Restart {
    /// The CPU time for one more Pod.
    change: Duration,
    /// The most memory that it had, in KiB.
    peak: u64,
}

/// All sizes.
pub fn table(bench: &Bench) -> io::Result<()> {
    println!("### From 10,000 Pods to 100,000, all of them in EPGs, 200 in each\n");
    println!("A first sync is the best of three; its memory is the most of the three.");
    println!("A change of one Pod is measured after a restart of the daemon on the fabric that is in sync.\n");
    println!(
        "| Pods | EPGs | subnets | time | CPU | time per Pod | ratio | CPU per Pod | peak memory | peak memory after a \
         restart | CPU of a change of one Pod |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut first: Option<Duration> = None;
    for pods in SIZES {
        let mut world = World::of_shape(pods, SHAPE);
        let subnets = world.subnets;
        let sync = bench.best(&mut world)?;
        let restart = restart(bench, &mut world, pods)?;
        let Sync { took, cpu, peak, .. } = sync;
        let ratio = took.as_secs_f64() / pods as f64 / first.unwrap_or(took / pods as u32).as_secs_f64();
        first.get_or_insert(took / pods as u32);
        let each = |time: Duration| format!("{:.1} µs", time.as_secs_f64() * 1e6 / pods as f64);
        let mebibytes = |peak: u64| format!("{:.1} MiB", peak as f64 / 1024.0);
        println!(
            "| {pods} | {} | {subnets} | {} | {} | {} | {ratio:.2} | {} | {} | {} | {} |",
            world.epgs,
            seconds(took),
            seconds(cpu),
            each(took),
            each(cpu),
            mebibytes(peak),
            mebibytes(restart.peak),
            millis(restart.change),
        );
    }
    println!();
    Ok(())
}

/// Without Events, which would go on for minutes at their own pace.
fn restart(bench: &Bench, world: &mut World, pods: usize) -> io::Result<Restart> {
    let daemon =
        Daemon::start_with(&bench.program, &bench.folder(), NO_RATE, &["--max-epgs", "off", "--events=false"])?;
    sleep(SETTLED);
    daemon.calm()?;
    let mut times = Vec::new();
    for n in 0..CHANGES {
        daemon.calm()?;
        let before = daemon.cpu_of_threads();
        world.subnets += 1;
        world.one_more(pods + n, &format!("12.0.0.{}", n + 1));
        wait(world, &daemon)?;
        daemon.calm()?;
        times.push(daemon.cpu_of_threads().saturating_sub(before));
    }
    times.sort();
    Ok(Restart { change: times[CHANGES / 2], peak: daemon.peak() })
}
