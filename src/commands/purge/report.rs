//! What `purge` prints: the plan, a line for each EPG, and the outcome, from which the last sentence and the exit code are
//! made (X4). With `-o json` stdout is one object, whose undo of each request is there before the request is sent; all that
//! is for people goes to stderr then.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;

use serde_json::json;

use super::who::Naming;
use crate::apic::writer::Undo;
use crate::commands::for_terminal;
use crate::commands::plan::{json, requests};
use crate::exit::ExitError;
use crate::logging::one_line;
use crate::model::cache::FabricCache;
use crate::model::dn::{EpgDn, ObjectDn};
use crate::model::finding::{Few, counted};
use crate::model::observed::EPG;
use crate::model::plan::{Tally, Transaction, describe_with};
use crate::model::purge::EpgPurge;
use crate::model::rules::Policy;

/// The name of the form.
pub(super) const SCHEMA: &str = "aci-sync.purge.v1";

/// The most objects that are left and are listed; the count counts all.
const MAX_LISTED: usize = 1000;

/// Why nothing was sent although there is a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    /// No terminal and no `--yes`.
    Consent,
    /// Another answer than the number.
    Number(String),
    /// `--policy observe`.
    Policy,
}

/// What it came to: the last sentence and the exit code are both made of this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing is left.
    Purged { deleted: usize },
    /// Something is left.
    Left { deleted: usize, left: BTreeSet<String>, why: Option<String> },
    /// Nothing was sent without consent.
    Planned { missing: Missing },
    /// Nothing was sent, because it would be wrong.
    Refused { why: String },
}

impl Outcome {
    /// After a run: what was deleted, what is left, and why it ended early, if it did.
    pub(super) fn of(deleted: BTreeSet<ObjectDn>, left: BTreeSet<String>, why: Option<String>) -> Outcome {
        let deleted = deleted.len();
        if left.is_empty() && why.is_none() {
            return Outcome::Purged { deleted };
        }
        Outcome::Left { deleted, left, why }
    }

    /// A refusal; that the undo could not be shown is a part of it.
    pub(super) fn refused(preview: Result<(), String>, why: String) -> Outcome {
        match preview {
            Ok(()) => Outcome::Refused { why },
            Err(failure) => Outcome::Refused { why: format!("{why}; the undo is incomplete: {failure}") },
        }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Outcome::Purged { .. } => 0,
            Outcome::Left { .. } | Outcome::Refused { .. } => 1,
            Outcome::Planned { .. } => 2,
        }
    }

    fn result(&self) -> &'static str {
        match self {
            Outcome::Purged { .. } => "purged",
            Outcome::Left { .. } => "left",
            Outcome::Planned { .. } => "planned",
            Outcome::Refused { .. } => "refused",
        }
    }

    /// What is left.
    fn listed(&self) -> Vec<&String> {
        match self {
            Outcome::Left { left, .. } => left.iter().take(MAX_LISTED).collect(),
            _ => Vec::new(),
        }
    }

    fn deleted(&self) -> usize {
        match self {
            Outcome::Purged { deleted } | Outcome::Left { deleted, .. } => *deleted,
            Outcome::Planned { .. } | Outcome::Refused { .. } => 0,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Purged { deleted: 0 } => f.write_str("Nothing to delete, and nothing is left."),
            Outcome::Purged { deleted } => write!(f, "{} deleted; nothing is left.", counted(*deleted, "object")),
            Outcome::Left { deleted, left, why } => {
                write!(f, "{} deleted, {} left", counted(*deleted, "object"), left.len())?;
                if !left.is_empty() {
                    write!(f, ": {}", Few::of(left))?;
                }
                match why {
                    Some(why) => write!(f, ". Ended early: {why}. A second run continues."),
                    None => f.write_str("."),
                }
            }
            Outcome::Planned { missing } => {
                f.write_str("Nothing was deleted: ")?;
                match missing {
                    Missing::Consent => f.write_str("there is no terminal to ask for consent, and no --yes."),
                    Missing::Number(answer) => write!(f, "{answer:?} is not the number of objects."),
                    Missing::Policy => f.write_str("the policy is observe; give --policy sync."),
                }
            }
            Outcome::Refused { why } => write!(f, "Refused; nothing was deleted: {why}."),
        }
    }
}

/// Where it is printed.
pub(super) struct Report {
    as_json: bool,
    /// How many undos are in the object so far.
    undos: Cell<usize>,
    /// A line for people could not be written.
    lost: Cell<bool>,
}

impl Report {
    pub(super) fn new(as_json: bool) -> Report {
        Report { as_json, undos: Cell::new(0), lost: Cell::new(false) }
    }

    pub(super) fn is_json(&self) -> bool {
        self.as_json
    }

    /// Prints the plan, and begins the JSON object.
    pub(super) fn plan(
        &self,
        fabric: &FabricCache,
        policy: Policy,
        plan: &[EpgPurge],
        named: &Naming,
    ) -> Result<(), ExitError> {
        let transactions: Vec<Transaction> = plan.iter().flat_map(|it| it.transactions.clone()).collect();
        let tally = Tally::of(&transactions);
        self.text(&text(&transactions, plan, named.workloads));
        if tally.deleted > 0 {
            self.line(&format!("Plan: {tally}."));
        }
        if !self.as_json {
            return Ok(());
        }
        let relations: BTreeMap<String, &EpgPurge> = plan.iter().map(|it| (it.epg.to_string(), it)).collect();
        let mut changes = json::deletions(fabric.owner(), &transactions);
        for change in changes.iter_mut().filter(|it| it["class"] == EPG) {
            if let Some(purge) = change["dn"].as_str().and_then(|dn| relations.get(dn)) {
                change["relations"] = json!(purge.relations);
            }
        }
        let findings = plan.iter().filter_map(|it| it.stays.as_ref()).map(
            |it| json!({"code": it.code.to_string(), "subject": it.subject.to_string(), "text": it.text, "open": it.code.is_open()}),
        );
        let head = json!({
            "schema": SCHEMA,
            "cluster_id": fabric.owner().cluster_id(),
            "policy": policy.to_string(),
            "counts": {
                "delete": tally.deleted,
                "relations": plan.iter().map(|it| it.relations.len()).sum::<usize>(),
                "workloads": named.workloads,
            },
            "changes": changes,
            "findings": findings.collect::<Vec<_>>(),
        });
        let head = head.to_string();
        let head = head.strip_suffix('}').unwrap_or(&head);
        self.json(&format!("{head},\"undo\":[")).map_err(ExitError::failed)
    }

    /// Adds an undo to the object; it is out of our hands when this returns.
    pub(super) fn undo(&self, undo: &Undo) -> Result<(), String> {
        let comma = if self.undos.replace(self.undos.get() + 1) == 0 { "" } else { "," };
        self.json(&format!("{comma}{}", requests::undo(undo)))
    }

    /// Prints the last sentence, and ends the object.
    pub(super) fn end(&self, outcome: &Outcome) -> Result<(), ExitError> {
        self.line(&outcome.to_string());
        if !self.as_json {
            return Ok(());
        }
        let tail = json!({
            "deleted": outcome.deleted(), "left": outcome.listed(), "result": outcome.result(), "summary": outcome.to_string(),
        });
        let tail = tail.to_string();
        let tail = format!("],{}\n", tail.strip_prefix('{').unwrap_or(&tail));
        self.json(&tail).map_err(ExitError::failed)
    }

    /// One line for people.
    pub(super) fn line(&self, text: &str) {
        self.text(&(one_line(text) + "\n"));
    }

    /// What people should know and no program reads.
    pub(super) fn note(&self, text: &str) {
        let _ = std::io::stderr().write_all(for_terminal(&(one_line(text) + "\n")).as_bytes());
    }

    /// The question for the number of objects.
    pub(super) fn ask(&self, count: usize) {
        let question = format!("To delete these {}, type their number: ", counted(count, "object"));
        let _ = std::io::stderr().write_all(question.as_bytes());
    }

    fn text(&self, text: &str) {
        if self.as_json {
            let _ = std::io::stderr().write_all(for_terminal(text).as_bytes());
        } else {
            self.lost.set(self.lost.get() | write_stdout(text).is_err());
        }
    }

    /// Whether people can no longer see what is done.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.get()
    }

    fn json(&self, text: &str) -> Result<(), String> {
        write_stdout(text).map_err(|error| format!("failed to write the undo file: {error}"))
    }
}

fn write_stdout(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(for_terminal(text).as_bytes())?;
    stdout.flush()
}

/// The plan for people, as `plan` prints it, with what goes with each EPG.
fn text(transactions: &[Transaction], plan: &[EpgPurge], named: usize) -> String {
    let relations: BTreeMap<&EpgDn, &EpgPurge> = plan.iter().map(|it| (&it.epg, it)).collect();
    let mut text = describe_with(transactions, &|epg| {
        let relations = relations.get(epg).into_iter().flat_map(|it| &it.relations);
        relations.map(|it| format!("- {it}  (contract relation of the EPG)")).collect()
    });
    for finding in plan.iter().filter_map(|it| it.stays.as_ref()) {
        text += &format!("finding: {finding}\n");
    }
    if named > 0 {
        let (workloads, verb) = (counted(named, "workload"), if named == 1 { "names" } else { "name" });
        text += &format!(
            "warning: {workloads} still {verb} these EPGs; the next aci-sync creates again what is deleted, without contracts\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// X4, T11: the last sentence, the result and the exit code come from one value; the lists have an end.
    #[test]
    fn the_sentence_and_the_code_agree() {
        let left = |count: usize| (0..count).map(|it| format!("dn-{it:04}")).collect::<BTreeSet<_>>();
        let early = |why: &str| Some(why.to_owned());
        for (outcome, code, result, sentence) in [
            (Outcome::of(BTreeSet::new(), left(0), None), 0, "purged", "Nothing to delete, and nothing is left."),
            (Outcome::Purged { deleted: 1 }, 0, "purged", "1 object deleted; nothing is left."),
            (Outcome::Left { deleted: 2, left: left(1), why: None }, 1, "left", "2 objects deleted, 1 left: dn-0000."),
            (
                Outcome::of(BTreeSet::new(), left(2000), early("a signal")),
                1,
                "left",
                "0 objects deleted, 2000 left: dn-0000, dn-0001, dn-0002, dn-0003, dn-0004 and 1995 more. Ended early: a \
                 signal. A second run continues.",
            ),
            (
                Outcome::of(BTreeSet::new(), left(0), early("a signal")),
                1,
                "left",
                "0 objects deleted, 0 left. Ended early: a signal. A second run continues.",
            ),
            (
                Outcome::Planned { missing: Missing::Number("y".to_owned()) },
                2,
                "planned",
                "Nothing was deleted: \"y\" is not the number of objects.",
            ),
            (
                Outcome::refused(Err("no".to_owned()), "it lives".to_owned()),
                1,
                "refused",
                "Refused; nothing was deleted: it lives; the undo is incomplete: no.",
            ),
        ] {
            assert_eq!((outcome.exit_code(), outcome.result(), &*outcome.to_string()), (code, result, sentence));
            assert!(outcome.listed().len() <= 1000);
        }
    }
}
