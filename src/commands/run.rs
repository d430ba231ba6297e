//! `run`: the daemon; and `run --once`: one full sync with its writes (X5).

use std::time::Instant;

use log::info;

use super::Setup;
use super::one_shot::{listed_reconciler, login, preview, reconcile};
use crate::apic::Client;
use crate::apic::adapters::{ReadOnly, WithoutEvents};
use crate::cli::Invocation;
use crate::config::{self, Config};
use crate::daemon::supervisor;
use crate::exit::ExitError;
use crate::kube;
use crate::model::plan::Tally;
use crate::model::rules::Policy;
use crate::reconcile::Reconciler;

/// Keeps the fabric in sync until a signal; or once, with `--once`: 0 if nothing is left to do.
pub fn run(setup: Setup, invocation: Invocation) -> Result<u8, ExitError> {
    if invocation.is_on("once") {
        return once(&setup.config, &setup.cluster).map(|all_done| u8::from(!all_done));
    }
    let environment = setup.environment;
    supervisor::run(setup.config, setup.cluster, Box::new(move || config::load(&invocation, &environment)))
}

/// One full sync with its writes, and a read to check. True if nothing is left to do.
fn once(config: &Config, cluster: &kube::Client) -> Result<bool, ExitError> {
    if config.policy == Policy::Observe {
        let why = "--once and --policy observe together do nothing; `aci-sync plan` prints what a run would change";
        return Err(ExitError::usage(why));
    }
    let (mut reconciler, _) = listed_reconciler(config, cluster)?;
    let client = login(config)?;
    let outcome = sync_and_check(&mut reconciler, &client, config.policy);
    client.logout();
    outcome
}

fn sync_and_check(reconciler: &mut Reconciler, client: &Client, policy: Policy) -> Result<bool, ExitError> {
    let mut written = Tally::default();
    loop {
        let report = reconcile(reconciler, &WithoutEvents(client))?;
        written = written.and(report.written);
        let now = Instant::now();
        // What is never deleted needs no grace (X5).
        let Some(end) = reconciler.next_grace_end().filter(|_| policy != Policy::UpsertOnly) else { break };
        let pause = end.saturating_duration_since(now);
        info!(count = reconciler.graces_running(now), retry_in = format!("{}s", pause.as_secs() + 1); "waiting for the grace of EPGs that are no longer desired");
        std::thread::park_timeout(pause);
    }
    reconciler.request_full_sync();
    let left = preview(reconciler, &ReadOnly::new(client))?;
    let open = reconciler.open_findings();
    let Tally { created, updated, deleted } = written;
    info!(created, updated, deleted, left:% = left.written, kept = left.kept, open_findings = open; "run finished");
    Ok(left.written.is_empty() && !left.unfinished && open == 0)
}
