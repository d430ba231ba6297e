//! `plan -o apic`: the requests that a run would send, and those that take them back, `aci-sync.plan-apic.v1` (T8).

use serde_json::{Value, json};

use super::Seen;
use crate::apic::writer::Undo;
use crate::apic::writer::request::WriteRequest;

/// The name of the form.
pub(super) const SCHEMA: &str = "aci-sync.plan-apic.v1";

/// The whole text.
pub(super) fn plan(seen: &Seen) -> String {
    let verdict = seen.verdict();
    let object = json!({
        "schema": SCHEMA,
        "result": verdict.result(),
        "summary": verdict.to_string(),
        "do": seen.requests.iter().map(request).collect::<Vec<_>>(),
        "undo": seen.undo.iter().map(undo).collect::<Vec<_>>(),
    });
    format!("{object}\n")
}

fn request(request: &WriteRequest) -> Value {
    let mut form = json!({"method": request.method(), "path": request.target()});
    if let Some(body) = request.body() {
        form["body"] = json!(body);
    }
    form
}

/// A POST that takes back a request.
pub(in crate::commands) fn undo(Undo { dn, body }: &Undo) -> Value {
    json!({"method": "POST", "path": format!("/api/mo/{dn}.json"), "body": body})
}
