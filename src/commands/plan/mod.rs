//! `plan`: what a run would change, and why. It sends nothing but reads. The text is here; the last sentence and the exit
//! code are in `verdict`, `-o json` in `json`, and `-o apic` in `requests`.

pub(super) mod json;
pub(super) mod requests;
mod verdict;

use std::collections::BTreeSet;
use std::time::Duration;

use super::one_shot::{apic_failure, listed_reconciler, login, preview};
use super::{Environment, Setup, print, set_up};
use crate::apic::adapters::ReadOnly;
use crate::apic::writer::request::WriteRequest;
use crate::apic::writer::{Undo, undo};
use crate::cli::Invocation;
use crate::exit::ExitError;
use crate::model::dn::ObjectDn;
use crate::model::finding::Finding;
use crate::model::owner::OwnerIdentity;
use crate::model::plan::{Transaction, describe};
use crate::model::rules::Policy;

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    /// The requests of a run, and those that take them back.
    Apic,
}

/// Prints the plan; the exit code is its verdict's.
pub fn run(invocation: &Invocation, environment: Environment) -> Result<u8, ExitError> {
    let format = match invocation.get("output").map(|given| (given, given.values[0].as_str())) {
        None | Some((_, "text")) => Format::Text,
        Some((_, "json")) => Format::Json,
        Some((_, "apic")) => Format::Apic,
        Some((given, other)) => return Err(given.invalid(format!("{other:?} is not text, json or apic"))),
    };
    let result = set_up(invocation, environment).and_then(|setup| look(setup, format == Format::Apic));
    match (&result, format) {
        (Ok(seen), Format::Text) => print(&text(seen)),
        (Ok(seen), Format::Json) => print(&json::plan(seen)),
        (Ok(seen), Format::Apic) => print(&requests::plan(seen)),
        (Err(_), Format::Text) => {}
        (Err(error), Format::Json) => print(&json::failure(json::SCHEMA, &error.message)),
        (Err(error), Format::Apic) => print(&json::failure(requests::SCHEMA, &error.message)),
    }
    result.map(|seen| seen.verdict().exit_code())
}

/// What `plan` saw.
struct Seen {
    owner: OwnerIdentity,
    policy: Policy,
    /// What a run would do.
    transactions: Vec<Transaction>,
    findings: BTreeSet<Finding>,
    /// How many of them hold something desired back.
    open: usize,
    blocked: BTreeSet<ObjectDn>,
    /// How many objects stay although they are not desired, because the policy deletes nothing.
    kept: usize,
    unfinished: bool,
    /// The requests of a run, in order, and what takes them back.
    requests: Vec<WriteRequest>,
    undo: Vec<Undo>,
}

/// Looks at both sides, with reads alone.
fn look(setup: Setup, with_undo: bool) -> Result<Seen, ExitError> {
    let Setup { mut config, cluster, .. } = setup;
    let policy = config.policy;
    if policy == Policy::Observe {
        config.policy = Policy::Sync;
    }
    config.epg_grace = Duration::ZERO;
    let (mut reconciler, _) = listed_reconciler(&config, &cluster)?;
    let client = login(&config)?;
    let session = ReadOnly::new(&client);
    let report = preview(&mut reconciler, &session);
    let requests = session.requests();
    let undo = match &report {
        Ok(_) if with_undo => undo(&requests, |dn| client.configuration(dn)).map_err(|error| apic_failure(&error)),
        _ => Ok(Vec::new()),
    };
    client.logout();
    let (report, undo) = (report?, undo?);
    Ok(Seen {
        owner: reconciler.owner().clone(),
        policy,
        transactions: report.done,
        findings: reconciler.findings().clone(),
        open: reconciler.open_findings(),
        blocked: reconciler.blocked_deletions(),
        kept: report.kept,
        unfinished: report.unfinished,
        requests,
        undo,
    })
}

fn text(seen: &Seen) -> String {
    let findings: String = seen.findings.iter().map(|finding| format!("finding: {finding}\n")).collect();
    format!("{}{findings}{}\n", describe(&seen.transactions), seen.verdict())
}
