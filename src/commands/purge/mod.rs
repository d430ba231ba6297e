//! `purge`: deletes from the fabric what carries our owner annotation, and our tags (T11). The order of its steps and the
//! consent are here; whose objects they are and whether an aci-sync is alive is in `who` and `alive`, what is read in
//! `fabric`, what is sent in `send`, what is printed in `report`. What is deleted and why is the model's.

mod alive;
mod fabric;
mod report;
mod send;
mod who;

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal, Read};

use self::fabric::Fabric;
use self::report::{Missing, Outcome, Report};
use self::send::Deletion;
use self::who::Naming;
use super::plan::json::failure;
use super::{Environment, l3outs, print, start, wants_json};
use crate::cli::Invocation;
use crate::config::{self, Config};
use crate::exit::ExitError;
use crate::model::dn::L3outDn;
use crate::model::finding::Few;
use crate::model::owner::OwnerIdentity;
use crate::model::plan::Tally;
use crate::model::purge;
use crate::model::rules::Policy;

/// The longest answer to the question for consent that is read, in bytes.
const MAX_ANSWER: u64 = 64;

/// What it was called with.
struct Setup<'a> {
    invocation: &'a Invocation,
    environment: &'a Environment,
    config: Config,
    /// Nothing is deleted elsewhere; empty: everywhere.
    l3outs: BTreeSet<L3outDn>,
    /// The objects of former installations, too.
    legacy: bool,
}

/// Deletes after a plan and consent; the exit code is that of the outcome.
pub fn run(invocation: &Invocation, environment: &Environment) -> Result<u8, ExitError> {
    let report = Report::new(wants_json(invocation)?);
    let outcome = set_up(invocation, environment).and_then(|setup| purge(&setup, &report));
    match outcome {
        Ok(outcome) => {
            report.end(&outcome)?;
            Ok(outcome.exit_code())
        }
        Err(error) => {
            if report.is_json() {
                print(&failure(report::SCHEMA, &error.message));
            }
            Err(error)
        }
    }
}

fn set_up<'a>(invocation: &'a Invocation, environment: &'a Environment) -> Result<Setup<'a>, ExitError> {
    let (l3outs, legacy) = (l3outs(invocation)?, invocation.is_on("legacy"));
    if legacy && l3outs.is_empty() {
        let why = "purge --legacy needs TENANT/L3OUT arguments: the mark of the Python application has no cluster id, and \
                   another cluster may use the same fabric";
        return Err(ExitError::usage(why));
    }
    start(invocation)?;
    let config = config::load(invocation, environment)?;
    if config.policy == Policy::UpsertOnly {
        return Err(ExitError::config("purge deletes, and --policy is upsert-only; give --policy sync"));
    }
    Ok(Setup { invocation, environment, config, l3outs, legacy })
}

fn purge(setup: &Setup<'_>, report: &Report) -> Result<Outcome, ExitError> {
    let mut who = who::identify(setup)?;
    let owner = OwnerIdentity::purging(&who.id, &setup.config.adopt_ids, setup.legacy);
    let mut fabric = Fabric::log_in(setup, owner)?;
    let outcome = fabric.read_all().and_then(|()| purge_of(setup, report, &mut who, &mut fabric));
    fabric.log_out();
    outcome
}

/// What follows the look at the fabric. From the first line of JSON on everything is an outcome.
fn purge_of(
    setup: &Setup<'_>,
    report: &Report,
    who: &mut who::Who,
    fabric: &mut Fabric<'_>,
) -> Result<Outcome, ExitError> {
    fabric.missing().for_each(|dn| report.note(&format!("warning: L3Out {dn} does not exist")));
    if !setup.l3outs.is_empty() {
        report.note(&format!("only in {}", Few::of(&setup.l3outs)));
    }
    let rules = &setup.config.rules;
    let naming = who.naming(rules, report);
    let plan = purge::plan(&fabric.cache, rules, |epg| naming.get(epg).is_some_and(|it| it.is_restored));
    let mut named = Naming::default();
    for it in plan.iter().filter_map(|it| naming.get(&it.epg)) {
        named.workloads += it.workloads;
    }
    report.plan(&fabric.cache, setup.config.policy, &plan, &named)?;
    let tally = Tally::of(plan.iter().flat_map(|it| &it.transactions));
    if tally.deleted == 0 {
        return Ok(fabric.marked().map_or_else(
            |error| Outcome::Refused { why: error.message },
            |left| Outcome::of(BTreeSet::new(), left, None),
        ));
    }
    let adopted = if setup.legacy { &setup.config.adopt_ids[..] } else { &[] };
    let ids: Vec<&str> = std::iter::once(&who.id).chain(adopted).map(String::as_str).collect();
    let looked = match alive::look(setup, who, &ids, report) {
        Ok(looked) => looked,
        Err(why) => return Ok(Outcome::refused(send::preview(fabric, &plan, report), why)),
    };
    if let Err(missing) = consent(setup, tally.deleted, report) {
        return Ok(match send::preview(fabric, &plan, report) {
            Ok(()) => Outcome::Planned { missing },
            Err(why) => Outcome::Refused { why },
        });
    }
    let lease = match looked.take_lease(report) {
        Ok(lease) => lease,
        Err(why) => return Ok(Outcome::refused(send::preview(fabric, &plan, report), why)),
    };
    let mut deletion = match Deletion::new(fabric, rules, report, lease.as_ref()) {
        Ok(deletion) => deletion,
        Err(why) => return Ok(Outcome::Refused { why }),
    };
    let result = deletion.run(&plan);
    Ok(deletion.outcome(&plan, result))
}

/// The consent: a flag, or on a terminal the number of objects.
fn consent(setup: &Setup<'_>, count: usize, report: &Report) -> Result<(), Missing> {
    if setup.config.policy == Policy::Observe {
        return Err(Missing::Policy);
    }
    if setup.invocation.is_on("yes") {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Missing::Consent);
    }
    report.ask(count);
    let mut answer = String::new();
    let read = stdin.lock().take(MAX_ANSWER).read_line(&mut answer);
    let answer = answer.trim().to_owned();
    if read.is_ok() && answer == count.to_string() { Ok(()) } else { Err(Missing::Number(answer)) }
}
