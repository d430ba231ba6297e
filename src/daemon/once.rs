//! `run --once` (X5) and `plan`: one look at both sides, without watches and without a websocket.

use std::time::{Duration, Instant};

use log::{info, warn};

use super::threads::Failure;
use super::{apic_settings, reconciler_for};
use crate::apic::access::{Access, ReadOnly, WithoutEvents};
use crate::apic::{self, Client};
use crate::backoff::Backoff;
use crate::config::{Config, EXIT_CONFIG, EXIT_USAGE, Policy};
use crate::kube;
use crate::model::kube::{Kind, Pool};
use crate::model::plan::{Tally, describe};
use crate::reconcile::{Reconciler, Report};

/// How often a reconcile that ended early, or left something for later, is tried again.
const TRIES: u32 = 6;

/// How long a busy APIC is asked for a session, and the pauses meanwhile.
const MAX_LOGIN: Duration = Duration::from_secs(30);
const FIRST_LOGIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_LOGIN_PAUSE: Duration = Duration::from_secs(8);

/// What `plan` found.
pub struct Preview {
    /// The text for people.
    pub text: String,
    /// Whether a run would change anything.
    pub changes: bool,
}

/// What a run would change. Sends nothing but reads.
pub fn plan(mut config: Config, cluster: &kube::Client) -> Result<Preview, Failure> {
    let policy = config.policy;
    if policy == Policy::Observe {
        config.policy = Policy::Sync;
    }
    config.epg_grace = Duration::ZERO;
    let mut reconciler = listed_reconciler(&config, cluster)?;
    let client = login(&config)?;
    let report = reconcile(&mut reconciler, &ReadOnly(&client));
    client.logout();
    let report = report?;

    let mut text = describe(&report.done);
    for finding in reconciler.findings() {
        text += &format!("finding: {finding}\n");
    }
    let held = reconciler.blocked_deletions();
    let changes = !report.done.is_empty() || held > 0;
    text += &match (changes, policy) {
        (true, _) if held > 0 => {
            format!("Plan: {}; a run would hold {held} more deletions.\n", Tally::of(&report.done))
        }
        (false, _) if reconciler.findings().is_empty() => {
            "Nothing to change: the fabric is in step with the cluster.\n".to_owned()
        }
        (false, _) => format!("Nothing that a run would change; {} findings.\n", reconciler.findings().len()),
        (true, Policy::Observe) => {
            format!("Plan: {}. The policy is observe: a run sends none of it.\n", Tally::of(&report.done))
        }
        (true, _) => format!("Plan: {}.\n", Tally::of(&report.done)),
    };
    Ok(Preview { text, changes })
}

/// One full sync with its writes, and a read to check. True where nothing is left to do.
pub fn once(config: &Config, cluster: &kube::Client) -> Result<bool, Failure> {
    if config.policy == Policy::Observe {
        let why = "--once and --policy observe together do nothing; `plan` tells what a run would change".to_owned();
        return Err(Failure { code: EXIT_USAGE, why });
    }
    let mut reconciler = listed_reconciler(config, cluster)?;
    let client = login(config)?;
    let outcome = sync_and_check(&mut reconciler, &client, config.policy);
    client.logout();
    outcome
}

fn sync_and_check(reconciler: &mut Reconciler, client: &Client, policy: Policy) -> Result<bool, Failure> {
    let mut written = Tally::default();
    loop {
        let report = reconcile(reconciler, &WithoutEvents(client))?;
        written = written.and(Tally::of(&report.done));
        let now = Instant::now();
        // What is never deleted needs no grace (X5).
        let Some(end) = reconciler.next_grace_end().filter(|_| policy != Policy::UpsertOnly) else { break };
        let pause = end.saturating_duration_since(now);
        info!(
            "waiting {} s until the grace of {} unwanted EPGs is over",
            pause.as_secs() + 1,
            reconciler.graces_running(now)
        );
        std::thread::park_timeout(pause);
    }
    reconciler.request_full_sync();
    let left = reconcile(reconciler, &ReadOnly(client))?;
    let open = reconciler.open_findings();
    let kept = match left.kept {
        0 => String::new(),
        kept => format!("; objects kept under --policy upsert-only: {kept}"),
    };
    info!("done: {}; left: {}{kept}; findings that need somebody: {open}", written.past(), Tally::of(&left.done));
    Ok(left.done.is_empty() && !left.unfinished && open == 0)
}

/// A reconcile, and further ones while the APIC is busy or something is left for later.
fn reconcile(reconciler: &mut Reconciler, apic: &dyn Access) -> Result<Report, Failure> {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(8));
    let mut all = Report::default();
    let mut tries_left = TRIES;
    while tries_left > 0 {
        tries_left -= 1;
        match reconciler.reconcile(apic, Instant::now(), &|| true) {
            Ok(report) => {
                all.done.extend(report.done);
                (all.unfinished, all.kept) = (report.unfinished, report.kept);
                if !report.unfinished {
                    return Ok(all);
                }
                if report.unread > 0 {
                    tries_left = TRIES;
                    continue;
                }
            }
            Err(error) if tries_left == 0 => return Err(apic_failure(&error)),
            Err(error) => warn!("the pass ended early: {error}; trying again"),
        }
        std::thread::park_timeout(backoff.pause());
    }
    Ok(all)
}

/// A reconciler with all three lists in it.
fn listed_reconciler(config: &Config, cluster: &kube::Client) -> Result<Reconciler, Failure> {
    let failed = |error: kube::Error| {
        let code =
            if matches!(error, kube::Error::Unauthorized | kube::Error::Forbidden { .. }) { EXIT_CONFIG } else { 1 };
        Failure { code, why: format!("Kubernetes: {error}") }
    };
    let mut reconciler = reconciler_for(config, cluster).map_err(failed)?;
    for kind in Kind::ALL {
        let (objects, _) = cluster.list(kind, &mut Pool::default()).map_err(failed)?;
        reconciler.cluster_changed(kube::Event::Listed { kind, objects }, Instant::now());
        reconciler.cluster_changed(kube::Event::Live { kind }, Instant::now());
    }
    Ok(reconciler)
}

/// A login. An APIC throttles logins (503), so a busy one is waited for, as `run` does, for a while.
fn login(config: &Config) -> Result<Client, Failure> {
    let settings = apic_settings(config)?;
    let (end, mut backoff) = (Instant::now() + MAX_LOGIN, Backoff::new(FIRST_LOGIN_PAUSE, MAX_LOGIN_PAUSE));
    loop {
        match apic::login(&settings) {
            Err(error @ apic::Error::Busy(_)) => {
                let pause = backoff.pause();
                if Instant::now() + pause >= end {
                    return Err(apic_failure(&error));
                }
                warn!(
                    "login: {error}; trying again in {:.1} s, for up to {} s",
                    pause.as_secs_f64(),
                    MAX_LOGIN.as_secs()
                );
                std::thread::park_timeout(pause);
            }
            done => return done.map_err(|error| apic_failure(&error)),
        }
    }
}

fn apic_failure(error: &apic::Error) -> Failure {
    let code = if matches!(error, apic::Error::Unauthorized(_)) { EXIT_CONFIG } else { 1 };
    Failure { code, why: format!("APIC: {error}") }
}
