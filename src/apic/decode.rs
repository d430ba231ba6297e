//! Bytes into objects and events: `imdata` envelopes, error bodies, websocket messages. Pure; sockets are elsewhere.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::error::Error;
use crate::model::mo::{Mo, MoChange, Status};
use crate::net::strangers;

/// The longest DN that is believed, in bytes. A child's DN begins with its parent's, so without a limit the DNs could be
/// far larger than the answer that they come from.
const LONGEST_DN: usize = 4096;

/// An answer: how many objects there are in all, and those of this page, children flattened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `totalCount`: the whole result, not the page.
    pub total: usize,
    /// The objects, parents before their children.
    pub mos: Vec<Mo>,
    /// How many of them stood at the top level.
    pub top_level: usize,
    /// `subscriptionId`, where one was asked for.
    pub subscription: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(default)]
    total_count: Value,
    imdata: Vec<BTreeMap<String, Body>>,
    #[serde(default)]
    subscription_id: Value,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    attributes: BTreeMap<String, Value>,
    #[serde(default)]
    children: Vec<BTreeMap<String, Body>>,
}

impl Body {
    fn attribute(&self, name: &str) -> Option<String> {
        self.attributes.get(name).map(text)
    }

    /// Its DN, or the one that its RN gives below a parent; nothing for an object that has neither.
    fn place(&self, parent: Option<&str>) -> Result<Option<String>, Error> {
        let given = |name: &str| self.attribute(name).filter(|it| !it.is_empty());
        let dn = given("dn").or_else(|| Some(format!("{}/{}", parent?, given("rn")?)));
        match dn {
            Some(dn) if dn.len() > LONGEST_DN => Err(Error::Malformed(format!("a DN of more than {LONGEST_DN} bytes"))),
            dn => Ok(dn),
        }
    }

    /// What happened to it; nothing where it only leads to what is below it.
    fn status(&self) -> Option<Status> {
        match self.attribute("status")?.as_str() {
            "" => None,
            "created" => Some(Status::Created),
            "deleted" => Some(Status::Deleted),
            _ => Some(Status::Modified),
        }
    }
}

/// Attributes are strings on the wire; anything else is taken for its text.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn envelope(body: &[u8]) -> Result<Envelope, Error> {
    serde_json::from_slice(body).map_err(|error| {
        let why = if strangers::is_html(body) {
            "an HTML page; is this an APIC, or a proxy or a login page in front of it?"
        } else {
            category(&error)
        };
        Error::Malformed(format!("not the JSON of an APIC ({why})"))
    })
}

fn category(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Syntax => "it is not JSON",
        _ => "a field has the wrong type",
    }
}

/// The answer to a read, with its HTTP status.
pub fn read(http: u16, body: &[u8]) -> Result<Answer, Error> {
    if (200..300).contains(&http) { answer(body) } else { Err(refusal(http, body, false)) }
}

/// The answer to a write: what it made, changed and deleted, as far as it says. One that makes no sense is none.
pub fn written(http: u16, body: &[u8]) -> Result<Vec<MoChange>, Error> {
    if !(200..300).contains(&http) {
        return Err(refusal(http, body, true));
    }
    let changes = envelope(body).and_then(|envelope| match error_in(&envelope) {
        Some((code, text)) => Err(Error::Rejected { code, text }),
        None => {
            let mut changes = Vec::new();
            envelope.imdata.into_iter().try_for_each(|entry| changes_in(entry, None, &mut changes))?;
            Ok(changes)
        }
    });
    match changes {
        Err(Error::Malformed(why)) => Err(Error::AnswerLost(why)),
        other => other,
    }
}

/// The changes in the answer to a write. With `rsp-subtree=modified` they are nested under the posted root, children
/// with an `rn` in place of a `dn`; what only leads to them has no status (reference: apic-wire 8.2). In the events of
/// the websocket and in the answers of some releases they come one beside the other.
fn changes_in(entry: BTreeMap<String, Body>, parent: Option<&str>, changes: &mut Vec<MoChange>) -> Result<(), Error> {
    for (class, body) in entry {
        let Some(dn) = body.place(parent)? else { continue };
        if let Some(status) = body.status() {
            changes.push(MoChange { status, mo: mo(class, dn.clone(), &body.attributes) });
        }
        for child in body.children {
            changes_in(child, Some(&dn), changes)?;
        }
    }
    Ok(())
}

/// Decodes the body of a successful answer.
pub fn answer(body: &[u8]) -> Result<Answer, Error> {
    let envelope = envelope(body)?;
    if let Some((code, text)) = error_in(&envelope) {
        return Err(Error::Rejected { code, text });
    }
    let total = text(&envelope.total_count).parse().unwrap_or(envelope.imdata.len());
    let subscription = ids(&envelope.subscription_id).into_iter().next();
    let top_level = envelope.imdata.len();
    let mut mos = Vec::with_capacity(top_level);
    for entry in envelope.imdata {
        flatten(entry, None, &mut mos)?;
    }
    Ok(Answer { total, mos, top_level, subscription })
}

/// Children carry an `rn` in place of a `dn`; a child without either has no place and is passed over. The answer to a
/// login is at the top level and has neither, because it is no object of the tree.
fn flatten(entry: BTreeMap<String, Body>, parent: Option<&str>, mos: &mut Vec<Mo>) -> Result<(), Error> {
    for (class, body) in entry {
        let dn = match (body.place(parent)?, parent) {
            (Some(dn), _) => dn,
            (None, None) => String::new(),
            (None, Some(_)) => continue,
        };
        mos.push(mo(class, dn.clone(), &body.attributes));
        for child in body.children {
            flatten(child, Some(&dn), mos)?;
        }
    }
    Ok(())
}

/// The attributes that anything is decided on. An object has some thirty, and thousands may wait for a pass to end.
const KEPT: [&str; 7] =
    ["annotation", "name", "scope", "tDn", "token", "refreshTimeoutSeconds", "maximumLifetimeSeconds"];

fn mo(class: String, dn: String, attributes: &BTreeMap<String, Value>) -> Mo {
    let kept = KEPT.iter().filter_map(|name| Some((*name, text(attributes.get(*name)?))));
    Mo { class, dn, attributes: kept.collect() }
}

fn error_in(envelope: &Envelope) -> Option<(u32, String)> {
    let error = envelope.imdata.iter().find_map(|it| it.get("error"))?;
    let code = error.attribute("code").and_then(|it| it.parse().ok()).unwrap_or(0);
    Some((code, printable(&error.attribute("text").unwrap_or_default())))
}

/// The code and the text of an error body that is not valid JSON: the APIC leaves quotes within the text as they are.
fn error_in_broken_json(body: &[u8]) -> Option<(u32, String)> {
    let body = std::str::from_utf8(body).ok()?;
    let (_, error) = body.split_once("\"error\"")?;
    let after = |name: &str| Some(error.split_once(name)?.1.trim_start_matches([' ', ':', '"']));
    let code: String = after("\"code\"")?.chars().take_while(char::is_ascii_digit).collect();
    let text = after("\"text\"").unwrap_or_default();
    let text = text.rsplit_once("\"}").map_or(text, |(text, _)| text).trim_end_matches(['"', '}', ' ']);
    Some((code.parse().ok()?, printable(text)))
}

/// The text is the APIC's; a line break in it must not become one in the log.
fn printable(text: &str) -> String {
    text.chars().take(400).map(|it| if it.is_control() { ' ' } else { it }).collect()
}

/// The decision that an unsuccessful answer calls for. Errors of the web server in front are HTML: there the HTTP
/// status decides.
pub fn refusal(http: u16, body: &[u8], is_write: bool) -> Error {
    let told = envelope(body).ok().and_then(|it| error_in(&it)).or_else(|| error_in_broken_json(body));
    let is_told = told.is_some();
    let (code, text) = told.unwrap_or_else(|| {
        let is_page = strangers::is_html(body);
        let how = if is_page { "with an HTML page of a web server or a proxy" } else { "without an explanation" };
        (http.into(), format!("HTTP {http} {how}"))
    });
    let token = ["Token was invalid", "Need a valid webtoken", "Token timeout"].iter().any(|it| text.contains(it));
    match http {
        401 => Error::Unauthorized(text),
        // A 403 that is not the APIC's own is the web server's, which knows no privileges, only sessions.
        403 if token || !is_told => Error::Unauthorized(text),
        403 => Error::Forbidden(text),
        405 => Error::Unauthorized(text),
        400 | 413 | 414 => Error::Rejected { code, text },
        // The web server in front did not let it through; the APIC's own 503 says that something within took too long.
        429 => Error::Busy(text),
        503 if !(is_write && is_told) => Error::Busy(text),
        500..=599 if is_write => Error::AnswerLost(text),
        500..=599 => Error::Busy(text),
        _ => Error::Malformed(text),
    }
}

/// What a websocket message says: for which subscriptions, and which objects.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// The subscriptions that it is for.
    pub subscriptions: Vec<String>,
    /// The changes, one object each.
    pub changes: Vec<MoChange>,
}

/// Decodes a websocket message: no `totalCount`, and a list of subscription ids.
pub fn message(body: &[u8]) -> Result<Message, Error> {
    let envelope = envelope(body)?;
    let mut changes = Vec::new();
    for (class, body) in envelope.imdata.into_iter().flatten() {
        let (Some(dn), Some(status)) = (body.attribute("dn"), body.status()) else { continue };
        changes.push(MoChange { status, mo: mo(class, dn, &body.attributes) });
    }
    Ok(Message { subscriptions: ids(&envelope.subscription_id), changes })
}

fn ids(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        Value::Null => Vec::new(),
        one => vec![text(one)],
    }
}
