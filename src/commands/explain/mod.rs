//! `explain`: why an object of the cluster or an address is in the fabric, or why not (T7). The look at both sides and the
//! wait are here, what the daemon remembers in `memory`, the text in `text`; the answer itself is the model's.

mod memory;
mod text;

use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::memory::Memory;
use super::one_shot::{listed_reconciler, login, preview};
use super::{Setup, print, wants_json};
use crate::apic::Query;
use crate::apic::adapters::ReadOnly;
use crate::apic::traits::ApicRead;
use crate::cli::Invocation;
use crate::config;
use crate::exit::ExitError;
use crate::model::dn::{L3outDn, Prefix};
use crate::model::explain::{Explanation, LookedAt, Subject, Verdict};
use crate::model::observed::{FAULT, PREFIX_IN_USE, SUBNET, faults_by_epg};
use crate::model::rules::Policy;

/// The pause between two questions to the daemon, with `--wait`.
const POLL: Duration = Duration::from_secs(1);

/// The pauses between two looks: each lists the whole cluster, and logs in.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The part of a pause after which a look follows if the daemon knows of nothing that is wrong.
const EARLY: u32 = 5;

/// The exit code if the time of `--wait` is over.
const NOT_IN_SYNC: u8 = 2;

/// Prints the explanations; the exit code is that of the worst verdict.
pub fn run(setup: &Setup, invocation: &Invocation) -> Result<u8, ExitError> {
    let as_json = wants_json(invocation)?;
    let [argument] = invocation.arguments.as_slice() else {
        return Err(ExitError::usage("explain needs one subject; see aci-sync help"));
    };
    let subject = Subject::parse(argument);
    let subject = subject.map_err(|why| ExitError::usage(format!("invalid subject {argument:?}: it {why}")))?;
    let wait = config::wait(invocation)?;
    let end = Instant::now() + wait.unwrap_or_default();
    let mut pause = FIRST_PAUSE;
    let (explanations, memory) = loop {
        let looked = Instant::now();
        let (explanations, cluster_id) = look(setup, &subject)?;
        let memory = memory::ask(invocation, &setup.environment, &cluster_id);
        if is_in_sync(&explanations) || Instant::now() >= end {
            break (explanations, memory);
        }
        pause_before_next_look(&explanations, looked, pause.min(end.saturating_duration_since(looked)), &|| {
            memory::ask(invocation, &setup.environment, &cluster_id)
        });
        pause = (pause * 2).min(MAX_PAUSE);
    };
    let verdict = worst(&explanations);
    if as_json {
        let all: Vec<Value> = explanations.iter().map(|it| object(it, &memory)).collect();
        let document = json!({"schema": "aci-sync.explain.v1", "verdict": verdict.name(), "explanations": all});
        print(&format!("{document}\n"));
    } else {
        let texts: Vec<String> =
            explanations.iter().map(|it| text::explanation(it, &memory, setup.config.policy)).collect();
        print(&texts.join("\n"));
    }
    // A wait is for `in_sync`, and a script must notice that it was in vain.
    let is_late = wait.is_some() && verdict.exit_code() == 0 && !is_in_sync(&explanations);
    Ok(if is_late { NOT_IN_SYNC } else { verdict.exit_code() })
}

/// Whether what is managed is in sync. That a Service of the same name exposes nothing does not matter.
fn is_in_sync(explanations: &[Explanation]) -> bool {
    let matters = |it: &&Explanation| !matches!(it.verdict, Verdict::NotManaged | Verdict::NotDesired);
    let mut verdicts = explanations.iter().filter(matters).map(|it| it.verdict).peekable();
    verdicts.peek().is_some() && verdicts.all(|it| it == Verdict::InSync)
}

fn worst(explanations: &[Explanation]) -> Verdict {
    explanations.iter().map(|it| it.verdict).max().unwrap_or(Verdict::Unknown)
}

fn object(explanation: &Explanation, memory: &io::Result<Memory>) -> Value {
    let mut object = serde_json::to_value(explanation).unwrap_or_default();
    object["daemon"] = memory.as_ref().map_or(Value::Null, |it| it.about(explanation));
    object["to_do"] = text::to_do(explanation, memory).map_or(Value::Null, Value::from);
    object
}

/// Waits for the next look: for the pause, or for a part of it if the daemon then knows of nothing that is wrong.
fn pause_before_next_look(
    explanations: &[Explanation],
    looked: Instant,
    pause: Duration,
    ask: &dyn Fn() -> io::Result<Memory>,
) {
    let (early, end) = (looked + pause / EARLY, looked + pause);
    loop {
        let now = Instant::now();
        if now >= end {
            return;
        }
        std::thread::park_timeout(POLL.min(end - now));
        let is_settled = |memory: Memory| explanations.iter().all(|it| memory.is_settled(it));
        if Instant::now() >= early && ask().is_ok_and(is_settled) {
            return;
        }
    }
}

/// One look at both sides, which sends nothing but reads; and the cluster id.
fn look(setup: &Setup, subject: &Subject) -> Result<(Vec<Explanation>, String), ExitError> {
    // Under this policy a reconcile reads everything and leaves what it read as it is.
    let mut config = setup.config.clone();
    config.policy = Policy::Observe;
    let (mut reconciler, unneeded) = listed_reconciler(&config, &setup.cluster)?;
    let client = login(&config)?;
    let session = ReadOnly::new(&client);
    let mut look = || {
        preview(&mut reconciler, &session)?;
        let failed = |error| ExitError::failed(format!("APIC: {error}"));
        let mut subnets = Vec::new();
        match subject {
            Subject::Address(address) => {
                let query = Query::class(SUBNET).with_value("ip", &Prefix::host(*address).to_string());
                subnets = session.read(&query).map_err(failed)?;
            }
            Subject::Epg(dn) | Subject::Subnet(dn, _) => {
                reconciler.look_at(&session, &dn.l3out, Instant::now()).map_err(failed)?;
            }
            Subject::Named(..) => {}
        }
        // Faults are an extra: a user who may not read them gets the rest.
        let faults = session.read(&Query::class(FAULT).with_value("code", PREFIX_IN_USE)).ok();
        let faults = faults.map(|it| faults_by_epg(&it));
        let (policy, faults) = (setup.config.policy, faults.as_ref());
        let more = LookedAt { policy, unneeded: &unneeded, subnets: &subnets, faults };
        let mut explanations = reconciler.explain(subject, &more, Instant::now());
        // A reconcile reads no L3Out for an EPG that exceeds --max-epgs.
        let unread: Vec<L3outDn> = explanations.iter().filter_map(Explanation::unread_l3out).collect();
        if !unread.is_empty() {
            for dn in &unread {
                // The answer says of one that cannot be read that it was not.
                let _ = reconciler.look_at(&session, dn, Instant::now());
            }
            explanations = reconciler.explain(subject, &more, Instant::now());
        }
        Ok((explanations, reconciler.cluster_id().to_owned()))
    };
    let explanations = look();
    client.logout();
    explanations
}
