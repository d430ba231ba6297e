//! What the checks found: as text while they run, or as one JSON object at the end.

use serde_json::{Value, json};

use crate::logging::one_line;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, but people should know.
    Warn,
    /// A run would not work.
    Fail,
    /// Not asked.
    Skip,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
            Status::Skip => "skip",
        }
    }
}

/// What a check found out about one subject.
#[derive(Debug, Clone)]
pub struct Outcome {
    status: Status,
    /// The controller, tenant or L3Out; empty if there is only one.
    subject: String,
    text: String,
    /// What to do; empty if there is nothing to do.
    fix: String,
}

impl Outcome {
    fn new(status: Status, subject: &str, text: impl Into<String>, fix: &str) -> Outcome {
        // A line break of a peer must not become one in the output.
        let line = |text: &str| one_line(&text.replace(char::is_control, " "));
        Outcome { status, subject: line(subject), text: line(&text.into()), fix: line(fix) }
    }

    /// As it should be.
    pub fn ok(subject: &str, text: impl Into<String>) -> Outcome {
        Outcome::new(Status::Ok, subject, text, "")
    }

    /// It works, but people should know.
    pub fn warn(subject: &str, text: impl Into<String>, fix: &str) -> Outcome {
        Outcome::new(Status::Warn, subject, text, fix)
    }

    /// A run would not work.
    pub fn fail(subject: &str, text: impl Into<String>, fix: &str) -> Outcome {
        Outcome::new(Status::Fail, subject, text, fix)
    }

    /// Whether it is as it should be.
    pub fn is_ok(&self) -> bool {
        self.status == Status::Ok
    }

    /// Not asked, with the reason.
    pub fn skip(subject: &str, text: impl Into<String>) -> Outcome {
        Outcome::new(Status::Skip, subject, text, "")
    }
}

/// All outcomes so far.
pub struct Report {
    as_json: bool,
    outcomes: Vec<(&'static str, Outcome)>,
}

impl Report {
    /// An empty one.
    pub fn new(as_json: bool) -> Report {
        Report { as_json, outcomes: Vec::new() }
    }

    /// Adds an outcome; what to print now.
    pub fn add(&mut self, id: &'static str, outcome: Outcome) -> String {
        let text = if self.as_json { String::new() } else { line(id, &outcome) };
        self.outcomes.push((id, outcome));
        text
    }

    /// Whether a check failed or was skipped, for a subject or for any.
    pub fn is_without(&self, id: &str, subject: &str) -> bool {
        let about = self.outcomes.iter().filter(|(it, _)| *it == id);
        let mut about = about.filter(|(_, it)| subject.is_empty() || it.subject == subject);
        about.any(|(_, it)| matches!(it.status, Status::Fail | Status::Skip))
    }

    /// Whether a check ended so.
    pub fn has(&self, id: &str, status: Status) -> bool {
        self.outcomes.iter().any(|(it, outcome)| *it == id && outcome.status == status)
    }

    /// How many outcomes there are.
    pub fn count(&self, status: Status) -> usize {
        self.outcomes.iter().filter(|(_, it)| it.status == status).count()
    }

    /// Whether the report is one JSON object.
    pub fn is_json(&self) -> bool {
        self.as_json
    }

    /// The last line, or the JSON object, with what a discovery found.
    pub fn end(&self, discovery: Option<Value>) -> String {
        let [ok, warn, fail, skip] = [Status::Ok, Status::Warn, Status::Fail, Status::Skip].map(|it| self.count(it));
        if !self.as_json {
            let warnings = if warn == 1 { "warning" } else { "warnings" };
            return format!("{fail} failed, {warn} {warnings}, {ok} ok, {skip} skipped\n");
        }
        let result = match (fail, warn) {
            (0, 0) => Status::Ok,
            (0, _) => Status::Warn,
            _ => Status::Fail,
        };
        let checks: Vec<Value> = self.outcomes.iter().map(|(id, outcome)| as_json(id, outcome)).collect();
        let mut object = json!({
            "schema": "aci-sync.check.v1",
            "result": result.word(),
            "counts": {"ok": ok, "warn": warn, "fail": fail, "skip": skip},
            "checks": checks,
        });
        if let Some(discovery) = discovery {
            object["discovery"] = discovery;
        }
        format!("{object}\n")
    }
}

fn as_json(id: &str, outcome: &Outcome) -> Value {
    let Outcome { status, subject, text, fix } = outcome;
    json!({"id": id, "subject": subject, "status": status.word(), "text": text, "fix": fix})
}

fn line(id: &str, outcome: &Outcome) -> String {
    let Outcome { status, subject, text, fix } = outcome;
    let word = if *status == Status::Fail { "FAIL" } else { status.word() };
    let subject = if subject.is_empty() { String::new() } else { format!("{subject}: ") };
    let mut lines = format!("{word:<5} {id:<15} {subject}{text}\n");
    if !fix.is_empty() {
        lines += &format!("      fix: {fix}\n");
    }
    lines
}
