//! `plan`: what a run would change, and why. It sends nothing but reads.

use std::time::Duration;

use super::one_shot::{listed_reconciler, login, reconcile};
use super::{Setup, print};
use crate::apic::adapters::ReadOnly;
use crate::config::Config;
use crate::exit::ExitError;
use crate::kube;
use crate::model::plan::{Tally, describe};
use crate::model::rules::Policy;

/// The exit code of a plan that has changes.
const CHANGES: u8 = 2;

/// Prints the plan; 2 where a run would change something.
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
