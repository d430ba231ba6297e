//! What the running daemon remembers of a subject, and no fresh look can know: since when, what is blocked, deferred or in
//! its grace.

use std::collections::BTreeSet;
use std::io;

use serde_json::{Value, json};

use crate::cli::Invocation;
use crate::commands::{Environment, status};
use crate::model::explain::{Explanation, Verdict};

/// The state of the daemon.
pub(super) struct Memory {
    status: Value,
    /// It is for this cluster, and has looked at the fabric.
    has_looked: bool,
}

/// Asks the daemon of this machine.
pub(super) fn ask(invocation: &Invocation, environment: &Environment, cluster_id: &str) -> io::Result<Memory> {
    let status = status::ask(invocation, environment).map_err(|error| io::Error::other(error.message))?;
    let state = status["state"].as_str();
    let is_blind =
        matches!(state, None | Some("standby" | "waiting_for_kubernetes" | "waiting_for_apic" | "first_full_sync"));
    let has_looked = !is_blind && status["cluster_id"] == cluster_id;
    Ok(Memory { status, has_looked })
}

impl Memory {
    /// The machine that it runs on.
    pub(super) fn instance(&self) -> &str {
        self.status["instance"].as_str().unwrap_or_default()
    }

    /// Whether it has nothing to do now, and knows of nothing that is wrong with a subject.
    pub(super) fn is_settled(&self, explanation: &Explanation) -> bool {
        let is_busy = matches!(self.status["state"].as_str(), Some("full_sync" | "retrying" | "waiting_for_answer"));
        self.has_looked && !is_busy && self.knows_nothing_of(explanation)
    }

    /// What it says about a subject, for JSON.
    pub(super) fn about(&self, explanation: &Explanation) -> Value {
        json!({
            "instance": self.instance(),
            "state": self.status["state"],
            "agrees": self.agrees(explanation),
            "findings": self.findings(explanation),
            "blocked": self.objects("blocked", explanation),
            "deferred": self.objects("deferred", explanation),
            "grace_until": self.epg(explanation).map_or(Value::Null, |it| it["grace_until"].clone()),
        })
    }

    /// Whether it knows of nothing that is wrong with a subject.
    fn knows_nothing_of(&self, explanation: &Explanation) -> bool {
        let is_paused = !explanation.paused_by.is_empty();
        let is_wrong = |it: &&Value| it["open"] == true && !(is_paused && it["code"] == "Paused");
        !self.findings(explanation).iter().any(is_wrong) && self.objects("blocked", explanation).is_empty()
    }

    /// Whether it sees what the fresh look saw; nothing if that cannot be said: it has not looked, or leaves findings out.
    /// What waits or is done right now may differ for a moment.
    pub(super) fn agrees(&self, explanation: &Explanation) -> Option<bool> {
        if !self.has_looked || explanation.verdict == Verdict::Unknown {
            return None;
        }
        let knows_nothing = self.knows_nothing_of(explanation);
        match explanation.verdict {
            Verdict::InSync => Some(knows_nothing),
            Verdict::Foreign
            | Verdict::Conflict
            | Verdict::Blocked
            | Verdict::Refused
            | Verdict::NotAllowed
            | Verdict::Invalid
                if knows_nothing && self.findings(explanation).is_empty() =>
            {
                (!self.leaves_out()).then_some(false)
            }
            _ => Some(true),
        }
    }

    /// Whether its list of findings has an end before its last one (X3).
    fn leaves_out(&self) -> bool {
        let all = self.status["findings"].as_array();
        let is_rest = |it: &Value| it["text"].as_str().is_some_and(|it| it.contains("not shown"));
        all.is_some_and(|all| all.len() >= 1000 || all.iter().any(is_rest))
    }

    /// The findings about a subject, its EPG or its L3Out. One that names addresses concerns it if one of its own is named.
    pub(super) fn findings(&self, explanation: &Explanation) -> Vec<&Value> {
        let (own, subjects) = (explanation.subject.text(), subjects(explanation));
        let all = self.status["findings"].as_array().into_iter().flatten();
        let concerns = |it: &&Value| {
            let (subject, text) = (it["subject"].as_str().unwrap_or_default(), it["text"].as_str().unwrap_or_default());
            let names_addresses = text.contains("/32") || text.contains("/128");
            let names_own = || explanation.addresses.iter().any(|it| names(text, &it.prefix));
            subject == own || subjects.contains(subject) && (!names_addresses || names_own() || text.contains(" more"))
        };
        all.filter(concerns).collect()
    }

    /// The entries of a list that are about the EPG of a subject or what is in it.
    pub(super) fn objects(&self, list: &str, explanation: &Explanation) -> Vec<&Value> {
        let epgs = epgs(explanation);
        let all = self.status[list].as_array().into_iter().flatten();
        let is_own = |it: &&Value| {
            let dn = it.as_str().or_else(|| it["dn"].as_str()).unwrap_or_default();
            epgs.iter().any(|epg| dn.strip_prefix(epg).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        };
        all.filter(is_own).collect()
    }

    /// The EPG of a subject.
    pub(super) fn epg(&self, explanation: &Explanation) -> Option<&Value> {
        let epgs = epgs(explanation);
        self.status["epgs"].as_array()?.iter().find(|it| it["dn"].as_str().is_some_and(|dn| epgs.contains(&dn)))
    }

    /// The EPG that the daemon still uses for a workload whose annotation is not valid any more (D3).
    pub(super) fn last_valid(&self, explanation: &Explanation) -> Option<&str> {
        let workload = explanation.workload.clone().unwrap_or_else(|| explanation.subject.text());
        let epgs = self.status["epgs"].as_array()?.iter();
        let names_it = |it: &&Value| it["workloads"].as_array().is_some_and(|all| all.iter().any(|it| *it == workload));
        epgs.filter(names_it).find_map(|it| it["dn"].as_str())
    }
}

/// Whether a text names a prefix, and not only one that ends like it.
fn names(text: &str, prefix: &str) -> bool {
    let is_part = |it: char| it.is_ascii_hexdigit() || matches!(it, '.' | ':');
    text.match_indices(prefix).any(|(at, _)| !text[..at].ends_with(is_part))
}

/// The DNs of the EPGs that an explanation is about.
fn epgs(explanation: &Explanation) -> Vec<&str> {
    let own = explanation.epg.as_ref().map(|it| it.dn.as_str());
    own.into_iter().chain(explanation.addresses.iter().map(|it| it.epg.as_str())).collect()
}

/// What findings about it have as their subject.
fn subjects(explanation: &Explanation) -> BTreeSet<String> {
    let mut subjects: BTreeSet<String> = epgs(explanation).into_iter().map(str::to_owned).collect();
    subjects.extend(explanation.l3out.as_ref().map(|it| it.dn.clone()));
    subjects.extend(explanation.addresses.iter().map(|it| format!("{}/extsubnet-[{}]", it.epg, it.prefix)));
    // A Pod's and a Service's findings are mostly its workload's.
    subjects.extend(explanation.epg.iter().flat_map(|it| &it.workloads).chain(&explanation.workload).cloned());
    subjects
}
