//! What the running daemon remembers of a subject, and no fresh look can know: since when, what is blocked, deferred or in
//! its grace.

use std::collections::BTreeSet;
use std::io;

use serde_json::{Value, json};

use crate::cli::Invocation;
use crate::commands::{Environment, status};
use crate::model::explain::{About, Explanation, Verdict};

/// The state of the daemon.
pub(super) struct Memory(Value);

/// Asks the daemon of this machine.
pub(super) fn ask(invocation: &Invocation, environment: &Environment) -> io::Result<Memory> {
    status::ask(invocation, environment).map(Memory).map_err(|error| io::Error::other(error.message))
}

impl Memory {
    /// The machine that it runs on.
    pub(super) fn instance(&self) -> &str {
        self.0["instance"].as_str().unwrap_or_default()
    }

    /// Whether it has nothing to do now.
    pub(super) fn is_settled(&self) -> bool {
        !matches!(self.0["state"].as_str(), Some("first_full_sync" | "full_sync" | "retrying" | "waiting_for_answer"))
    }

    /// What it says about a subject, for JSON.
    pub(super) fn about(&self, explanation: &Explanation) -> Value {
        json!({
            "instance": self.instance(),
            "state": self.0["state"],
            "agrees": self.agrees(explanation),
            "findings": self.findings(explanation),
            "blocked": self.objects("blocked", explanation),
            "deferred": self.objects("deferred", explanation),
            "grace_until": self.epg(explanation).map_or(Value::Null, |it| it["grace_until"].clone()),
        })
    }

    /// Whether it knows of nothing that is wrong with a subject.
    pub(super) fn knows_nothing_of(&self, explanation: &Explanation) -> bool {
        !self.findings(explanation).iter().any(|it| it["open"] == true)
    }

    /// Whether it sees what the fresh look saw. What waits or is done right now may differ for a moment.
    pub(super) fn agrees(&self, explanation: &Explanation) -> bool {
        let knows_nothing = self.knows_nothing_of(explanation);
        match explanation.verdict {
            Verdict::InSync => knows_nothing,
            Verdict::Foreign
            | Verdict::Conflict
            | Verdict::Blocked
            | Verdict::Refused
            | Verdict::NotAllowed
            | Verdict::Invalid => !self.findings(explanation).is_empty(),
            _ => true,
        }
    }

    /// The findings about a subject, its EPG or its L3Out. One that names addresses concerns it if one of its own is named.
    pub(super) fn findings(&self, explanation: &Explanation) -> Vec<&Value> {
        let (own, subjects) = (explanation.subject.text(), subjects(explanation));
        let all = self.0["findings"].as_array().into_iter().flatten();
        let concerns = |it: &&Value| {
            let (subject, text) = (it["subject"].as_str().unwrap_or_default(), it["text"].as_str().unwrap_or_default());
            let names_addresses = text.contains("/32") || text.contains("/128");
            let names_own = || explanation.addresses.iter().any(|it| text.contains(&it.prefix));
            subject == own || subjects.contains(subject) && (!names_addresses || names_own() || text.contains(" more"))
        };
        all.filter(concerns).collect()
    }

    /// The entries of a list that are about the EPG of a subject or what is in it.
    pub(super) fn objects(&self, list: &str, explanation: &Explanation) -> Vec<&Value> {
        let epgs = epgs(explanation);
        let all = self.0[list].as_array().into_iter().flatten();
        let is_own = |it: &&Value| {
            let dn = it.as_str().or_else(|| it["dn"].as_str()).unwrap_or_default();
            epgs.iter().any(|epg| dn.strip_prefix(epg).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        };
        all.filter(is_own).collect()
    }

    /// The EPG of a subject.
    pub(super) fn epg(&self, explanation: &Explanation) -> Option<&Value> {
        let epgs = epgs(explanation);
        self.0["epgs"].as_array()?.iter().find(|it| it["dn"].as_str().is_some_and(|dn| epgs.contains(&dn)))
    }

    /// The EPG that the daemon still uses for a Deployment whose annotation is not valid any more (D3).
    pub(super) fn last_valid(&self, explanation: &Explanation) -> Option<&str> {
        let About::Object { namespace, name, .. } = &explanation.subject else { return None };
        let key = format!("{namespace}/{name}");
        let epgs = self.0["epgs"].as_array()?.iter();
        let names_it = |it: &&Value| it["deployments"].as_array().is_some_and(|all| all.iter().any(|it| *it == key));
        epgs.filter(names_it).find_map(|it| it["dn"].as_str())
    }
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
    // A Pod's and a Service's findings are mostly its Deployment's.
    let deployments = explanation.epg.iter().flat_map(|it| &it.deployments);
    subjects.extend(deployments.map(|it| format!("Deployment {it}")));
    subjects
}
