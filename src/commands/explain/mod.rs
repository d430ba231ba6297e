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
use crate::model::dn::Prefix;
use crate::model::explain::{Explanation, LookedAt, Subject, Verdict};
use crate::model::observed::{FAULT, PREFIX_IN_USE, SUBNET, faults_by_epg};
use crate::model::rules::Policy;

/// The pause between two questions to the daemon, and the least pause between two looks, with `--wait`.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// Prints the explanations; the exit code is that of the worst verdict.
pub fn run(setup: &Setup, invocation: &Invocation) -> Result<u8, ExitError> {
    let as_json = wants_json(invocation)?;
    let [argument] = invocation.arguments.as_slice() else {
        return Err(ExitError::usage("explain needs one subject; see aci-sync help"));
    };
    let subject = Subject::parse(argument);
    let subject = subject.map_err(|why| ExitError::usage(format!("invalid subject {argument:?}: it {why}")))?;
    let end = Instant::now() + config::wait(invocation)?.unwrap_or_default();
    let (explanations, memory) = loop {
        let looked = Instant::now();
        let explanations = look(setup, &subject)?;
        let memory = memory::ask(invocation, &setup.environment);
        if worst(&explanations) == Verdict::InSync || Instant::now() >= end {
            break (explanations, memory);
        }
        wait(setup, invocation, &explanations, looked, end);
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
    Ok(verdict.exit_code())
}

fn worst(explanations: &[Explanation]) -> Verdict {
    explanations.iter().map(|it| it.verdict).max().unwrap_or(Verdict::Unknown)
}

fn object(explanation: &Explanation, memory: &io::Result<Memory>) -> Value {
    let mut object = serde_json::to_value(explanation).unwrap_or_default();
    object["daemon"] = memory.as_ref().map_or(Value::Null, |it| it.about(explanation));
    object["to_do"] = text::to_do(explanation).map_or(Value::Null, Value::from);
    object
}

/// Waits until another look may show more: until the daemon knows of nothing open about the subjects, or for a while.
fn wait(setup: &Setup, invocation: &Invocation, explanations: &[Explanation], looked: Instant, end: Instant) {
    loop {
        std::thread::park_timeout(PAUSE.min(end.saturating_duration_since(Instant::now())));
        let now = Instant::now();
        if now >= end {
            return;
        }
        let is_settled = match memory::ask(invocation, &setup.environment) {
            Ok(memory) => memory.is_settled() && explanations.iter().all(|it| memory.knows_nothing_of(it)),
            Err(_) => true,
        };
        if is_settled && now >= looked + PAUSE_BETWEEN_LOOKS {
            return;
        }
    }
}

/// One look at both sides, which sends nothing but reads.
fn look(setup: &Setup, subject: &Subject) -> Result<Vec<Explanation>, ExitError> {
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
        Ok(reconciler.explain(subject, &more, Instant::now()))
    };
    let explanations = look();
    client.logout();
    explanations
}
