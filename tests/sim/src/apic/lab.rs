//! `/lab/…`: what REST cannot say, for people and scripts that play with a running lab. No login.
//!
//! | request | what it does |
//! | --- | --- |
//! | `GET /lab/journal` | the requests so far, without bodies of logins |
//! | `DELETE /lab/journal` | forgets them |
//! | `GET /lab/subscriptions` | what is subscribed |
//! | `GET /lab/faults` | the F0467 that stand, and all that were ever raised |
//! | `POST /lab/drop-websockets` | closes all websockets |
//! | `POST /lab/expire-tokens` | ends all tokens |
//! | `POST /lab/lapse-subscriptions` | ends all subscriptions, silently |
//! | `POST /lab/deaf?on=yes` | websockets stay open and silent; `on=no` ends it |
//! | `POST /lab/advance?seconds=N` | puts the controllers' clock forward |
//! | `POST /lab/forbid?dn=DN[&class=C]` | takes the privilege to write there; `POST /lab/allow` gives it back |

use std::time::Duration;

use serde_json::{Value, json};

use super::admin::AdminApi;
use super::cluster::Entry;
use super::conflicts::PrefixInUse;
use crate::net::Request;

/// Answers a request: status and body.
pub fn answer(admin: &AdminApi, request: &Request) -> (u16, String) {
    let what = request.path.trim_start_matches("/lab/");
    let body = match (request.method.as_str(), what) {
        ("GET", "journal") => admin.journal().iter().map(entry).collect(),
        ("GET", "subscriptions") => json!(admin.subscribed()),
        ("GET", "faults") => json!({
            "standing": admin.faults_standing().iter().map(fault).collect::<Vec<_>>(),
            "raised": admin.faults_raised().iter().map(fault).collect::<Vec<_>>(),
        }),
        (method, what) => match act(admin, method, what, request) {
            Ok(()) => json!({}),
            Err((status, why)) => return (status, json!({"error": why}).to_string() + "\n"),
        },
    };
    (200, body.to_string() + "\n")
}

fn act(admin: &AdminApi, method: &str, what: &str, request: &Request) -> Result<(), (u16, &'static str)> {
    let parameter = |name: &str| request.parameter(name).unwrap_or_default();
    match (method, what) {
        ("DELETE", "journal") => admin.clear_journal(),
        ("POST", "drop-websockets") => admin.drop_websockets(),
        ("POST", "expire-tokens") => admin.expire_tokens(),
        ("POST", "lapse-subscriptions") => admin.lapse_subscriptions(),
        ("POST", "deaf") => admin.set_deaf(parameter("on") != "no"),
        ("POST", "advance") => {
            let seconds = parameter("seconds").parse().map_err(|_| (400, "seconds must be a number"))?;
            admin.advance(Duration::from_secs(seconds));
        }
        ("POST", "forbid") => admin.forbid(parameter("dn"), request.parameter("class")),
        ("POST", "allow") => admin.allow(),
        _ => return Err((404, "no such thing in the lab")),
    }
    Ok(())
}

fn entry(entry: &Entry) -> Value {
    let secret = entry.path.contains("aaaLogin") || entry.path.starts_with("/socket");
    json!({
        "controller": entry.controller,
        "user": entry.user,
        "method": entry.method,
        "target": if entry.path.starts_with("/socket") { "/socket…" } else { &entry.target },
        "body": if secret { "" } else { &entry.body },
        "status": entry.status,
    })
}

fn fault(fault: &PrefixInUse) -> Value {
    json!({"epg": fault.epg, "prefix": fault.prefix})
}
