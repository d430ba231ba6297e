//! `check`: a preflight by ids, which only reads (T6). The table of ids and the order are here; what is asked is in the
//! other files, by peer; how it is shown is in `report`.

mod apic;
mod daemon;
mod discovery;
mod fabric;
mod kube;
mod local;
mod report;
mod rights;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use self::report::{Outcome, Report, Status};
use super::{Environment, l3outs, print, start, wants_json};
use crate::apic::Controller;
use crate::cli::Invocation;
use crate::config::Config;
use crate::exit::{EXIT_CONFIG, ExitError};
use crate::model::discovery::{Discovery, Outcome as Found};
use crate::model::dn::{EpgDn, L3outDn, Name};
use crate::secret::Secret;
use crate::status::NEAR;
use crate::time;

/// How long all checks may take before the rest is not asked any more.
const TIMEOUT: Duration = Duration::from_secs(90);

/// One check.
pub struct Check {
    /// Its id, by which documents and scripts name it.
    pub id: &'static str,
    /// The checks without whose success this one is skipped, each with the subject that matters; empty: any.
    after: &'static [(&'static str, &'static str)],
    run: fn(&mut World<'_>) -> Vec<Outcome>,
}

const fn check(
    id: &'static str,
    after: &'static [(&'static str, &'static str)],
    run: fn(&mut World<'_>) -> Vec<Outcome>,
) -> Check {
    Check { id, after, run }
}

/// All checks, in their order. A login is sent once, and only to a controller whose certificate is trusted.
pub const CHECKS: &[Check] = &[
    check("config", &[], local::config),
    check("secrets", &[], local::secrets),
    check("kube.reach", &[("config", ""), ("secrets", local::KUBECONFIG)], kube::reach),
    check("kube.auth", &[("kube.reach", "")], kube::auth),
    check("kube.rights", &[("kube.auth", "")], kube::rights),
    check("kube.lists", &[("kube.auth", "")], kube::lists),
    check("kube.credential", &[("secrets", local::KUBECONFIG)], kube::credential),
    check("kube.clock", &[("kube.reach", "")], kube::clock),
    check("apic.reach", &[("config", "")], apic::reach),
    check("apic.tls", &[("apic.reach", "")], apic::tls),
    check("apic.clock", &[("apic.tls", "")], apic::clock),
    check(
        "apic.login",
        &[("apic.tls", ""), ("secrets", local::PASSWORD), ("secrets", local::PRIVATE_KEY)],
        apic::login,
    ),
    check("apic.others", &[("apic.login", "")], apic::others),
    check("apic.version", &[("apic.login", "")], apic::version),
    check("apic.websocket", &[("apic.login", "")], apic::websocket),
    check("fabric.marks", &[("apic.login", "")], fabric::marks),
    check("fabric.tenant", &[("apic.login", "")], fabric::tenant),
    check("fabric.l3out", &[("apic.login", "")], fabric::l3out),
    check("fabric.write", &[("apic.login", "")], fabric::write),
    check("fabric.vrf", &[("apic.login", "")], fabric::vrf),
    check("fabric.deployed", &[("apic.login", "")], fabric::deployed),
    check("fabric.faults", &[("apic.login", "")], fabric::faults),
    check("discovery", &[("apic.login", ""), ("kube.lists", "")], discovery::discovery),
    check("daemon", &[("config", "")], daemon::daemon),
];

/// Whether a check is needed for another one: it is that one, or one that it comes after.
fn is_needed(id: &str, by: &str) -> bool {
    let before = CHECKS.iter().filter(|it| it.id == by).flat_map(|it| it.after);
    id == by || before.into_iter().any(|(it, _)| is_needed(id, it))
}

/// What is known so far: later checks need what earlier ones found.
struct World<'a> {
    /// When nothing more is asked.
    end: Instant,
    invocation: &'a Invocation,
    environment: &'a Environment,
    config: Option<Config>,
    /// The password or the private key for the APIC.
    secret: Option<Secret>,
    cluster: Option<crate::kube::Client>,
    /// By `--cluster-id` or the namespace `kube-system`.
    cluster_id: Option<String>,
    /// The API server takes our credentials.
    is_accepted: bool,
    /// The header `Date` of the API server.
    kube_date: Option<String>,
    /// The connections to the controllers that can be reached, in the order of `--apic`.
    connections: Vec<apic::Connection>,
    apic: Option<crate::apic::Settings>,
    /// The controllers with a trusted certificate, each with its header `Date`.
    trusted: Vec<(Controller, Option<String>)>,
    session: Option<crate::apic::Client>,
    /// The L3Outs of the arguments, and those of workloads that are looked at.
    l3outs: BTreeSet<L3outDn>,
    /// The external EPGs that workloads name.
    epgs: BTreeSet<EpgDn>,
    tenants: BTreeMap<Name, bool>,
    vrfs: BTreeMap<L3outDn, fabric::Vrf>,
    discovery: Option<Discovery>,
}

/// Runs all checks; 0 if none failed, 78 if the settings are wrong, else 1. With `--discover` it runs those that the discovery
/// needs, and its answer decides between 0 and 2.
pub fn run(invocation: &Invocation, environment: &Environment) -> Result<u8, ExitError> {
    let l3outs = l3outs(invocation)?;
    let mut report = Report::new(wants_json(invocation)?);
    start(invocation)?;
    let mut world = World {
        end: Instant::now() + TIMEOUT,
        invocation,
        environment,
        config: None,
        secret: None,
        cluster: None,
        cluster_id: None,
        is_accepted: false,
        kube_date: None,
        connections: Vec::new(),
        apic: None,
        trusted: Vec::new(),
        session: None,
        l3outs,
        epgs: BTreeSet::new(),
        tenants: BTreeMap::new(),
        vrfs: BTreeMap::new(),
        discovery: None,
    };
    let discovers = invocation.is_on("discover");
    for check in CHECKS.iter().filter(|it| !discovers || is_needed(it.id, "discovery")) {
        let failed = check.after.iter().find(|(id, subject)| report.is_without(id, subject));
        let outcomes = match failed {
            Some((id, _)) => vec![Outcome::skip("", format!("{id} failed"))],
            None if passed(world.end)() => vec![late()],
            None => (check.run)(&mut world),
        };
        for outcome in outcomes {
            print(&report.add(check.id, outcome));
        }
    }
    if let Some(session) = world.session {
        session.logout();
    }
    let found = world.discovery.as_ref().filter(|_| discovers);
    print(&report.end(found.map(discovery::json)));
    if let Some(found) = found.filter(|_| !report.is_json()) {
        print(&format!("\n{}", discovery::text(found)));
    }
    Ok(exit_code(&report, found.map(|it| it.answer().outcome)))
}

fn exit_code(report: &Report, found: Option<Found>) -> u8 {
    if report.has("config", Status::Fail) || report.has("secrets", Status::Fail) {
        return EXIT_CONFIG;
    }
    match found {
        _ if report.count(Status::Fail) > 0 => 1,
        None | Some(Found::Unique) => 0,
        Some(Found::Several | Found::Ambiguous | Found::None) => 2,
    }
}

/// Whether a moment has passed.
fn passed(end: Instant) -> impl Fn() -> bool {
    move || Instant::now() >= end
}

const SLOW_PEER: &str = "look at the slow peer first, then run check again";

fn late() -> Outcome {
    Outcome::fail("", format!("not asked: the checks before took more than {} s", TIMEOUT.as_secs()), SLOW_PEER)
}

/// One outcome for each of these, until it is late: one warning has the number of the rest.
fn each<T>(
    is_late: impl Fn() -> bool,
    of: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    mut look: impl FnMut(T) -> Outcome,
) -> Vec<Outcome> {
    let (mut left, mut outcomes) = (of.into_iter(), Vec::new());
    while let Some(next) = left.next() {
        if is_late() {
            let text = format!("{} more not asked: the checks took more than {} s", left.len() + 1, TIMEOUT.as_secs());
            outcomes.push(Outcome::warn("", text, SLOW_PEER));
            break;
        }
        outcomes.push(look(next));
    }
    outcomes
}

/// The end of a credential, which is a warning within 30 days; `ended` is for one in the past.
fn judge_end(subject: &str, what: &str, end: u64, fix: &str, ended: fn(&str, String, &str) -> Outcome) -> Outcome {
    let now = time::unix_now();
    let (when, distance) = (time::rfc3339(end), time::distance(end, now));
    if end <= now {
        return ended(subject, format!("{what}ended {when} ({distance})"), fix);
    }
    let text = format!("{what}ends {when} ({distance})");
    if end < now + NEAR { Outcome::warn(subject, text, fix) } else { Outcome::ok(subject, text) }
}

/// The difference between a peer's clock and ours.
fn compare_clocks(subject: &str, date: Option<&str>) -> Outcome {
    let Some(ahead) = date.and_then(time::seconds_ahead) else {
        return Outcome::skip(subject, "the answer has no valid header Date");
    };
    if ahead.abs() <= time::CLOCK_TOLERANCE {
        return Outcome::ok(subject, format!("within {} s of ours", time::CLOCK_TOLERANCE));
    }
    Outcome::warn(
        subject,
        time::clock_difference(ahead),
        "synchronize both clocks with NTP; certificates and tokens depend on them",
    )
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// T6: the time limit ends a check between two of its requests, and one outcome says how many were not asked.
    #[test]
    fn time_ends_a_loop() {
        for (asked, expected) in [(0, "5 more not asked"), (3, "2 more not asked"), (4, "1 more not asked"), (5, "")] {
            let count = Cell::new(0);
            let outcomes = each(
                || count.get() >= asked,
                0..5,
                |it: usize| {
                    assert_eq!(it, count.get());
                    count.set(it + 1);
                    Outcome::ok("", "found")
                },
            );
            let texts: Vec<String> = outcomes.into_iter().map(|it| Report::new(false).add("id", it)).collect();
            assert_eq!(texts.iter().filter(|it| it.starts_with("ok ")).count(), asked);
            let rest: Vec<_> = texts.iter().skip(asked).collect();
            assert_eq!(rest.len(), usize::from(!expected.is_empty()), "{texts:?}");
            assert!(rest.iter().all(|it| it.starts_with("warn") && it.contains(expected)), "{texts:?}");
        }
    }
}
