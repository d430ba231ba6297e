//! What an API server takes for an Event of events.k8s.io/v1: recorded, and the rest by its source
//! (pkg/apis/core/validation/events.go). The field names in its refusals are those of the old API.

use serde_json::{Value, json};

/// The field, and what is wrong with it.
pub(super) type Wrong = (&'static str, String);

fn longer_than(text: &Value, longest: usize) -> bool {
    text.as_str().unwrap_or_default().len() > longest
}

fn too_long(longest: usize) -> String {
    format!("Invalid value: \"\": can have at most {longest} characters")
}

/// A new Event. It gets the fields that every Event has.
pub(super) fn made(event: &mut Value) -> Result<(), Wrong> {
    let is_empty = |field: &str| event[field].as_str().unwrap_or_default().is_empty();
    for (field, name, longest) in [
        ("reportingController", "reportingController", usize::MAX),
        ("reportingInstance", "reportingInstance", 128),
        ("action", "action", 128),
        ("reason", "reason", 128),
        ("note", "message", 1024),
    ] {
        if is_empty(field) && field != "note" {
            return Err((name, "Required value".to_owned()));
        }
        if longer_than(&event[field], longest) {
            return Err((name, too_long(longest)));
        }
    }
    if !is_micro_time(&event["eventTime"]) {
        return Err(("eventTime", "Required value".to_owned()));
    }
    if !matches!(event["type"].as_str(), Some("Normal" | "Warning")) {
        return Err(("type", format!("Invalid value: {}: has invalid value", event["type"])));
    }
    check_series(&event["series"])?;
    event["deprecatedSource"] = json!({});
    for field in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp"] {
        event[field] = Value::Null;
    }
    Ok(())
}

/// A change: nothing but the series.
pub(super) fn patched(before: &Value, patch: &Value) -> Result<(), Wrong> {
    for (field, name) in [
        ("note", "message"),
        ("reason", "reason"),
        ("action", "action"),
        ("type", "type"),
        ("regarding", "involvedObject"),
        ("eventTime", "eventTime"),
        ("reportingController", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        if !patch[field].is_null() && patch[field] != before[field] {
            return Err((name, format!("Invalid value: {}: field is immutable", patch[field])));
        }
    }
    check_series(&patch["series"])
}

fn check_series(series: &Value) -> Result<(), Wrong> {
    if series.is_null() {
        return Ok(());
    }
    if series["count"].as_u64().unwrap_or_default() < 2 {
        return Err(("series.count", "Invalid value: \"\": should be at least 2".to_owned()));
    }
    if !is_micro_time(&series["lastObservedTime"]) {
        return Err(("series.lastObservedTime", "Required value".to_owned()));
    }
    Ok(())
}

/// `2026-11-22T21:14:53.943416Z`: six digits, no more and no fewer.
fn is_micro_time(time: &Value) -> bool {
    let form = b"0000-00-00T00:00:00.000000Z";
    let text = time.as_str().unwrap_or_default().as_bytes();
    let fits = |(it, form): (&u8, &u8)| if *form == b'0' { it.is_ascii_digit() } else { it == form };
    text.len() == form.len() && text.iter().zip(form).all(fits)
}
