//! The first sync on an APIC that serves so many requests a second, or fails now and then: how long it takes, beside what
//! such an APIC allows. The fabric is the one of a report from the field: 188 EPGs with 632 subnets in 21 L3Outs.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use sim::apic::{SimApic, Throttle, Variants};
use sim::kube::{self, SimKube};
use sim::lab::{Folder, Lab};

use crate::daemon::{DEFAULT_RATE, Daemon};

const EPGS: usize = 188;
const SUBNETS: usize = 632;
const L3OUTS: usize = 21;

/// So many requests the fabric needed before aci-sync paced them; what a throttle allows is counted by them.
const REQUESTS: f64 = 249.0;

/// The daemon's own limit by default, in requests a second.
const OWN_RATE: f64 = 20.0;

/// No sync goes on for longer.
const LIMIT: Duration = Duration::from_secs(300);

/// One way in which an APIC is short of time.
struct Case {
    name: &'static str,
    /// Requests a second that it serves, where that is limited.
    rate: Option<f64>,
    turn: fn(&mut Variants),
}

const fn throttled(per_second: f64, burst: u32) -> Option<Throttle> {
    Some(Throttle { per_second, burst, retry_after: false })
}

const CASES: [Case; 8] = [
    Case { name: "30 requests/s, burst 30", rate: Some(30.0), turn: |it| it.request_throttle = throttled(30.0, 30) },
    Case { name: "30 requests/s, no burst", rate: Some(30.0), turn: |it| it.request_throttle = throttled(30.0, 0) },
    Case {
        name: "30 requests/s, no burst, `Retry-After`",
        rate: Some(30.0),
        turn: |it| it.request_throttle = Some(Throttle { per_second: 30.0, burst: 0, retry_after: true }),
    },
    Case { name: "5 requests/s, burst 5", rate: Some(5.0), turn: |it| it.request_throttle = throttled(5.0, 5) },
    Case { name: "5 requests/s, no burst", rate: Some(5.0), turn: |it| it.request_throttle = throttled(5.0, 0) },
    Case { name: "every 7th request refused", rate: None, turn: |it| it.refuse_every = Some(7) },
    Case { name: "2 % of requests fail", rate: None, turn: |it| it.fail_share = 0.02 },
    Case { name: "5 % of requests fail", rate: None, turn: |it| it.fail_share = 0.05 },
];

/// All cases, each with three latencies.
pub fn table(program: &Path, dir: &Path) -> io::Result<()> {
    println!(
        "### First sync of {EPGS} EPGs with {SUBNETS} subnets in {L3OUTS} L3Outs on an APIC that is short of time\n"
    );
    println!("The daemon has its default `--apic-rate 20`. Allowed: {REQUESTS:.0} requests, one after the other.\n");
    println!("| APIC | latency | time | allowed | ratio | requests | refused | logins | SIGTERM to exit |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for case in &CASES {
        for latency in [0, 20, 100].map(Duration::from_millis) {
            row(case, latency, program, dir)?;
        }
    }
    println!();
    Ok(())
}

fn row(case: &Case, latency: Duration, program: &Path, dir: &Path) -> io::Result<()> {
    let lab = lab();
    let folder = Folder(dir.to_owned());
    lab.describe(&folder)?;
    lab.apic.variants(|variants| {
        (case.turn)(variants);
        variants.latency = latency;
    });
    let begun = Instant::now();
    let daemon = Daemon::start(program, &folder, DEFAULT_RATE)?;
    let done =
        lab.apic.wait_until(LIMIT, |apic| apic.count("l3extSubnet") == SUBNETS && apic.count("l3extInstP") == EPGS);
    let took = begun.elapsed().as_secs_f64();
    let (requests, refused, logins) = (lab.apic.requests(), lab.apic.refused(), lab.apic.logins());
    let allowed = REQUESTS * (1.0 / case.rate.unwrap_or(OWN_RATE)).max(latency.as_secs_f64());
    let stop = daemon.stop().map_or("failed".to_owned(), |it| format!("{:.0} ms", it.as_secs_f64() * 1e3));
    let time = if done { format!("{took:.1} s") } else { format!("not in {took:.0} s") };
    println!(
        "| {} | {} ms | {time} | {allowed:.1} s | {:.2} | {requests} | {refused} | {logins} | {stop} |",
        case.name,
        latency.as_millis(),
        took / allowed,
    );
    Ok(())
}

fn lab() -> Lab {
    let kube = SimKube::start(kube::Options::default());
    let apic = SimApic::start(sim::apic::Options::default());
    for tenant in 0..3 {
        let l3outs: Vec<String> = (tenant..L3OUTS).step_by(3).map(|n| format!("L{n}")).collect();
        let l3outs: Vec<&str> = l3outs.iter().map(String::as_str).collect();
        apic.setup_tenant(&format!("T{tenant}"), "V", &l3outs).expect("an empty fabric takes tenants");
    }
    for n in 0..EPGS {
        let l3out = n % L3OUTS;
        let annotation =
            json!({"tenant": format!("T{}", l3out % 3), "l3out": format!("L{l3out}"), "epg": format!("E{n}")});
        let addresses: Vec<String> = (n..SUBNETS)
            .step_by(EPGS)
            .map(|it| format!("10.{}.{}.{}", it / 62_500, it / 250 % 250, it % 250 + 1))
            .collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        kube.deploy("field", &format!("app-{n}"), Some(&annotation.to_string()), &addresses);
    }
    apic.clear_journal();
    Lab { apic, kube }
}
