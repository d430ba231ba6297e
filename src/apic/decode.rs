//! Bytes into objects and events: `imdata` envelopes, error bodies, websocket messages. Pure; sockets are elsewhere.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::error::Error;
use crate::model::mo::{Mo, MoChange, Status};

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
}

/// Attributes are strings on the wire; anything else is taken for its text.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn envelope(body: &[u8]) -> Result<Envelope, Error> {
    serde_json::from_slice(body)
        .map_err(|error| Error::Malformed(format!("not the JSON of an APIC ({})", category(&error))))
}

fn category(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Syntax => "it is not JSON",
        _ => "a field has the wrong type",
    }
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
        flatten(entry, None, &mut mos);
    }
    Ok(Answer { total, mos, top_level, subscription })
}

/// Children carry an `rn` in place of a `dn`; a child without either has no place and is passed over. The answer to a
/// login is at the top level and has neither, because it is no object of the tree.
fn flatten(entry: BTreeMap<String, Body>, parent: Option<&str>, mos: &mut Vec<Mo>) {
    for (class, body) in entry {
        let dn = body.attribute("dn").filter(|it| !it.is_empty());
        let rn = || body.attribute("rn").filter(|it| !it.is_empty());
        let dn = match (dn, parent) {
            (Some(dn), _) => dn,
            (None, None) => String::new(),
            (None, Some(parent)) => match rn() {
                Some(rn) => format!("{parent}/{rn}"),
                None => continue,
            },
        };
        mos.push(mo(class, dn.clone(), &body.attributes));
        for child in body.children {
            flatten(child, Some(&dn), mos);
        }
    }
}

fn mo(class: String, dn: String, attributes: &BTreeMap<String, Value>) -> Mo {
    let own = |name: &str| !matches!(name, "dn" | "rn" | "status" | "childAction");
    let attributes = attributes.iter().filter(|(name, _)| own(name)).map(|(name, value)| (name.clone(), text(value)));
    Mo { class, dn, attributes: attributes.collect() }
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
    let (code, text) = envelope(body)
        .ok()
        .and_then(|it| error_in(&it))
        .or_else(|| error_in_broken_json(body))
        .unwrap_or_else(|| (http.into(), format!("HTTP {http} without an explanation")));
    let token = ["Token was invalid", "Need a valid webtoken", "Token timeout"].iter().any(|it| text.contains(it));
    match http {
        401 => Error::Unauthorized(text),
        403 if token => Error::Unauthorized(text),
        403 => Error::Forbidden(text),
        405 => Error::Unauthorized(text),
        400 | 413 | 414 => Error::Rejected { code, text },
        429 | 503 => Error::Busy(text),
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
        let (Some(dn), Some(status)) = (body.attribute("dn"), body.attribute("status")) else { continue };
        let status = match status.as_str() {
            "created" => Status::Created,
            "deleted" => Status::Deleted,
            _ => Status::Modified,
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads: `totalCount` is a string, children carry an `rn` whose slash may stand in brackets.
    #[test]
    fn an_answer_is_flattened() {
        let body = br#"{"totalCount":"7","subscriptionId":"72059075820650497","imdata":[{"l3extInstP":{"attributes":
            {"dn":"uni/tn-T/out-L/instP-E","annotation":"x","childAction":"","status":""},"children":[
            {"l3extSubnet":{"attributes":{"rn":"extsubnet-[10.0.0.1/32]","name":"a"}}},
            {"l3extSubnet":{"attributes":{"name":"nowhere"}}}]}}]}"#;
        let answer = answer(body).unwrap();
        assert_eq!((answer.total, answer.top_level), (7, 1));
        assert_eq!(answer.subscription.as_deref(), Some("72059075820650497"));
        let dns: Vec<&str> = answer.mos.iter().map(|it| it.dn.as_str()).collect();
        assert_eq!(dns, ["uni/tn-T/out-L/instP-E", "uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32]"]);
        assert_eq!(answer.mos[0].get("annotation"), "x");
        assert!(!answer.mos[0].attributes.contains_key("childAction"));
    }

    /// A1: the answer to a login carries no DN.
    #[test]
    fn a_login_is_read() {
        let body =
            br#"{"totalCount":"1","imdata":[{"aaaLogin":{"attributes":{"token":"abc","refreshTimeoutSeconds":"600"},
            "children":[{"aaaUserDomain":{"attributes":{"name":"all","rn":"userdomain-all"}}}]}}]}"#;
        assert_eq!(answer(body).unwrap().mos[0].get("token"), "abc");
    }

    /// A missing object is an empty answer, with the count as a string or as a number.
    #[test]
    fn nothing_is_an_answer() {
        for body in [&br#"{"totalCount":"0","imdata":[]}"#[..], br#"{"totalCount":0,"imdata":[]}"#] {
            assert_eq!(answer(body), Ok(Answer::default()));
        }
        for body in [&b""[..], b"<html>", b"{", br#"{"imdata":{}}"#, b"[]", b"\xff\xfe"] {
            assert!(matches!(answer(body), Err(Error::Malformed(_))), "{body:?}");
        }
    }

    /// W3, W8: what each refusal leads to.
    #[test]
    fn refusals_are_decisions() {
        let body = |code: &str, text: &str| {
            format!(
                r#"{{"totalCount":"1","imdata":[{{"error":{{"attributes":{{"code":"{code}","text":"{text}"}}}}}}]}}"#
            )
        };
        let word = |http: u16, body: &str, is_write: bool| match refusal(http, body.as_bytes(), is_write) {
            Error::Unreachable(_) => "unreachable".to_owned(),
            Error::Busy(_) => "busy".to_owned(),
            Error::Unauthorized(_) => "login".to_owned(),
            Error::Forbidden(_) => "forbidden".to_owned(),
            Error::Rejected { code, .. } => format!("rejected {code}"),
            Error::AnswerLost(_) => "lost".to_owned(),
            Error::Malformed(_) => "malformed".to_owned(),
        };
        let html = "<html><h1>503 Service Temporarily Unavailable</h1></html>";
        for (http, body, is_write, decision) in [
            (401, body("401", "Username or password is incorrect - FAILED local authentication"), false, "login"),
            (403, body("403", "Token was invalid (Error: Token timeout)"), true, "login"),
            (403, body("403", "Need a valid webtoken cookie (named APIC-Cookie) or ..."), false, "login"),
            (403, body("403", "User has insufficient privileges"), true, "forbidden"),
            (403, "<html>".to_owned(), true, "forbidden"),
            (405, body("405", "unable to locate opened web socket"), false, "login"),
            (400, body("102", "configured object ((Dn0)) not found Dn0=uni, "), true, "rejected 102"),
            (400, body("103", "Cannot create; object uni\\/tn-T already exists."), true, "rejected 103"),
            (
                400,
                "{\"imdata\":[{\"error\":{\"attributes\":{\"text\":\"an \"unescaped\" quote\"}}}]}".to_owned(),
                true,
                "rejected 400",
            ),
            (400, body("103", r#"object "x" already exists."#), true, "rejected 103"),
            (403, body("403", r#"Token was invalid ("timeout")"#), false, "login"),
            (403, body("403", r#"no privilege for "x""#), true, "forbidden"),
            (414, html.to_owned(), false, "rejected 414"),
            (429, String::new(), true, "busy"),
            (503, html.to_owned(), true, "busy"),
            (504, html.to_owned(), true, "lost"),
            (502, html.to_owned(), false, "busy"),
            (404, html.to_owned(), false, "malformed"),
        ] {
            assert_eq!(word(http, &body, is_write), decision, "{http} {body}");
        }
        assert_eq!(
            refusal(400, body("103", "object uni\\/tn-T exists\\nnow").as_bytes(), true),
            Error::Rejected { code: 103, text: "object uni/tn-T exists now".to_owned() }
        );
        let broken =
            r#"{"totalCount":"1","imdata":[{"error":{"attributes":{"code":"801","text":"value 'a"b' is bad"}}}]}"#;
        assert_eq!(
            refusal(400, broken.as_bytes(), true),
            Error::Rejected { code: 801, text: "value 'a\"b' is bad".to_owned() }
        );
    }

    /// Websocket events in the recorded shapes: created carries all, modified what changed, deleted nothing.
    #[test]
    fn messages() {
        let body = br#"{"subscriptionId":["1","2"],"imdata":[{"l3extSubnet":{"attributes":{"childAction":"",
            "dn":"uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32]","modTs":"x","rn":"","status":"modified","scope":"a,b"}}},
            {"l3extOut":{"attributes":{"dn":"uni/tn-T/out-L","status":"deleted"}}},{"odd":{}}]}"#;
        let message = message(body).unwrap();
        assert_eq!(message.subscriptions, ["1", "2"]);
        assert_eq!(message.changes.len(), 2);
        assert_eq!(message.changes[0].status, Status::Modified);
        assert_eq!(message.changes[0].mo.get("scope"), "a,b");
        assert_eq!(message.changes[1].status, Status::Deleted);
    }
}
