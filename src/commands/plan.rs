//! `plan`: what a run would change, and why. It sends nothing but reads.

use std::time::Duration;

use super::one_shot::{listed_reconciler, login, reconcile};
use super::{Setup, print};
use crate::apic::adapters::ReadOnly;
use crate::config::Config;
use crate::exit::ExitError;
use crate::kube;
use crate::model::finding::counted;
use crate::model::plan::{Tally, describe};
use crate::model::rules::Policy;

/// The exit code of a plan that has changes.
const CHANGES: u8 = 2;

/// Prints the plan; 2 if a run would change something.
pub fn run(setup: Setup) -> Result<u8, ExitError> {
    let Preview { text, changes } = preview(setup.config, &setup.cluster)?;
    print(&text);
    Ok(if changes { CHANGES } else { 0 })
}

/// What `plan` found.
struct Preview {
    /// The text for people.
    text: String,
    /// Whether a run would change anything.
    changes: bool,
}

/// What a run would change. Sends nothing but reads.
fn preview(mut config: Config, cluster: &kube::Client) -> Result<Preview, ExitError> {
    let policy = config.policy;
    if policy == Policy::Observe {
        config.policy = Policy::Sync;
    }
    config.epg_grace = Duration::ZERO;
    let (mut reconciler, _) = listed_reconciler(&config, cluster)?;
    let client = login(&config)?;
    let report = reconcile(&mut reconciler, &ReadOnly(&client));
    client.logout();
    let report = report?;

    let mut text = describe(&report.done);
    for finding in reconciler.findings() {
        text += &format!("finding: {finding}\n");
    }
    let blocked = reconciler.blocked_deletions();
    let changes = !report.done.is_empty() || blocked > 0;
    text += &summary(Tally::of(&report.done), blocked, reconciler.findings().len(), policy);
    Ok(Preview { text, changes })
}

/// The last line.
fn summary(changes: Tally, blocked: usize, findings: usize, policy: Policy) -> String {
    if blocked > 0 {
        return format!("Plan: {changes}; {} more would be blocked.\n", counted(blocked, "deletion"));
    }
    let is_empty = (changes.created, changes.updated, changes.deleted) == (0, 0, 0);
    match (is_empty, policy) {
        (true, _) if findings == 0 => "No changes: the fabric is in sync with the cluster.\n".to_owned(),
        (true, _) => format!("No changes; {}.\n", counted(findings, "finding")),
        (false, Policy::Observe) => format!("Plan: {changes}. The policy is observe: a run sends none of it.\n"),
        (false, _) => format!("Plan: {changes}.\n"),
    }
}
