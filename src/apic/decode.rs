//! Decodes bytes into objects and events: `imdata` envelopes, error bodies, websocket messages. No sockets here.

use super::envelope::{self, Envelope, Login, Node};
use super::error::Error;
use super::writer::Body;
use crate::model::mo::{Mo, MoChange};
use crate::net::wrong_peer;
use crate::secret::Secret;

/// The longest DN that is accepted, in bytes. A child's DN begins with its parent's, so without a limit the DNs could be far
/// larger than the answer that they come from.
const MAX_DN: usize = 4096;

/// The answer to a read: the objects of one page, children flattened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `totalCount`: the number of objects in the whole result, not in the page.
    pub total: usize,
    /// The objects, parents before their children.
    pub mos: Vec<Mo>,
    /// How many of them are at the top level.
    pub top_level: usize,
    /// `subscriptionId`, if one was asked for.
    pub subscription: Option<String>,
    /// The answer to a login or a token refresh.
    pub login: Option<Login>,
}

/// The largest sum of the DNs that are joined from one answer's RNs, in bytes: the size of the largest answer.
const MAX_DN_BYTES: usize = 64 << 20;

/// Makes the DNs of one answer. A child has an RN in place of a DN.
#[derive(Default)]
struct Dns {
    /// The sum of the joined DNs so far.
    bytes: usize,
}

impl Dns {
    /// Takes an object's DN, or makes it of its parent's and its RN; nothing for an object without either.
    fn take(&mut self, node: &mut Node, parent: Option<&str>) -> Result<Option<String>, Error> {
        let dn = node.dn.take().filter(|it| !it.is_empty());
        let rn = node.rn.take().filter(|it| !it.is_empty());
        let dn = match (dn, parent, rn) {
            (Some(dn), ..) => dn,
            (None, Some(parent), Some(rn)) => {
                self.bytes += parent.len() + rn.len();
                format!("{parent}/{rn}")
            }
            _ => return Ok(None),
        };
        if dn.len() > MAX_DN {
            return Err(Error::Malformed(format!("DN longer than {MAX_DN} bytes")));
        }
        if self.bytes > MAX_DN_BYTES {
            return Err(Error::Malformed(format!("more than {MAX_DN_BYTES} bytes of DNs in one answer")));
        }
        Ok(Some(dn))
    }
}

/// The answer to a read, with its HTTP status.
pub fn read(http: u16, body: &[u8]) -> Result<Answer, Error> {
    read_hiding(http, body, &[])
}

/// The same, with these secrets removed from its errors: an APIC may repeat what it was sent (A4).
pub fn read_hiding(http: u16, body: &[u8], secrets: &[Secret]) -> Result<Answer, Error> {
    if !(200..300).contains(&http) {
        return Err(refusal_hiding(http, body, false, secrets));
    }
    answer_hiding(body, secrets)
}

/// The answer to a read of one object's configuration; nothing if the object is not there.
pub(super) fn configuration(http: u16, body: &[u8], secrets: &[Secret]) -> Result<Option<Body>, Error> {
    #[derive(serde::Deserialize)]
    struct Objects {
        imdata: Vec<Body>,
    }
    read_hiding(http, body, secrets)?;
    let objects: Objects =
        serde_json::from_slice(body).map_err(|_| Error::Malformed("not the configuration of an object".to_owned()))?;
    Ok(objects.imdata.into_iter().next().map(Body::configured))
}

/// The release in the answer to a read of what the controllers run; empty if there is none.
pub(super) fn release(http: u16, body: &[u8], secrets: &[Secret]) -> Result<String, Error> {
    read_hiding(http, body, secrets)?;
    let body: serde_json::Value =
        serde_json::from_slice(body).map_err(|_| Error::Malformed("not the release of an APIC".to_owned()))?;
    let release = &body["imdata"][0]["firmwareCtrlrRunning"]["attributes"]["version"];
    Ok(release.as_str().unwrap_or_default().to_owned())
}

/// The answer to a write: what it created, changed and deleted, if it says so. An answer that cannot be decoded counts as
/// lost.
pub fn written(http: u16, body: &[u8]) -> Result<Vec<MoChange>, Error> {
    written_hiding(http, body, &[])
}

/// The same, with these secrets removed from its errors.
pub fn written_hiding(http: u16, body: &[u8], secrets: &[Secret]) -> Result<Vec<MoChange>, Error> {
    if !(200..300).contains(&http) {
        return Err(refusal_hiding(http, body, true, secrets));
    }
    match written_changes(body, secrets) {
        Err(Error::Malformed(reason)) => Err(Error::AnswerLost(reason)),
        result => result,
    }
}

fn written_changes(body: &[u8], secrets: &[Secret]) -> Result<Vec<MoChange>, Error> {
    let envelope = envelope::read(body)?;
    if let Some(error) = error_in(&envelope) {
        return Err(error.rejected(secrets));
    }
    let (mut changes, mut dns) = (Vec::new(), Dns::default());
    for node in envelope.imdata {
        changes_in(node, None, &mut dns, &mut changes)?;
    }
    Ok(changes)
}

/// The changes in the answer to a write. With `rsp-subtree=modified` they are nested below the posted root, children with an
/// `rn` in place of a `dn`; an object that only leads to them has no status (reference: apic-wire 8.2). Some releases list
/// them side by side, as websocket events do.
fn changes_in(mut node: Node, parent: Option<&str>, dns: &mut Dns, changes: &mut Vec<MoChange>) -> Result<(), Error> {
    let Some(dn) = dns.take(&mut node, parent)? else { return Ok(()) };
    let children = std::mem::take(&mut node.children);
    if let Some(status) = node.status {
        changes.push(MoChange { status, mo: mo(node, dn.clone()) });
    }
    children.into_iter().try_for_each(|child| changes_in(child, Some(&dn), dns, changes))
}

/// Decodes the body of a successful answer.
pub fn answer(body: &[u8]) -> Result<Answer, Error> {
    answer_hiding(body, &[])
}

fn answer_hiding(body: &[u8], secrets: &[Secret]) -> Result<Answer, Error> {
    let mut envelope = envelope::read(body)?;
    if let Some(error) = error_in(&envelope) {
        return Err(error.rejected(secrets));
    }
    let mut login = envelope.imdata.first_mut().and_then(|it| it.login.take());
    if let Some(login) = &mut login {
        take_privileges(&mut envelope.imdata, &mut login.write_privileges);
    }
    let top_level = envelope.top_level;
    let (mut mos, mut dns) = (Vec::with_capacity(top_level), Dns::default());
    for node in envelope.imdata {
        flatten(node, None, &mut dns, &mut mos)?;
    }
    let subscription = envelope.subscriptions.into_iter().next();
    let total = envelope.total_count.unwrap_or(top_level);
    Ok(Answer { total, mos, top_level, subscription, login: login.map(|it| *it) })
}

/// What a user may write, from wherever it is in the answer to a login.
fn take_privileges(nodes: &mut [Node], found: &mut Vec<(String, String)>) {
    for node in nodes {
        if let (envelope::PRIVILEGES, Some(dn), Some(privileges)) =
            (node.class.as_str(), &node.dn, node.write_privileges.take())
        {
            found.push((dn.clone(), privileges.into()));
        }
        take_privileges(&mut node.children, found);
    }
}

/// Children carry an `rn` in place of a `dn`. An object without either is in no place of the tree, such as the answer to
/// a login, and is skipped.
fn flatten(mut node: Node, parent: Option<&str>, dns: &mut Dns, mos: &mut Vec<Mo>) -> Result<(), Error> {
    let Some(dn) = dns.take(&mut node, parent)? else { return Ok(()) };
    let children = std::mem::take(&mut node.children);
    mos.push(mo(node, dn.clone()));
    children.into_iter().try_for_each(|child| flatten(child, Some(&dn), dns, mos))
}

fn mo(node: Node, dn: String) -> Mo {
    Mo { class: node.class, dn, attributes: node.attributes }
}

/// What the APIC says about an error.
#[derive(Clone, Copy)]
struct Explanation<'a> {
    code: u32,
    text: &'a str,
}

impl Explanation<'_> {
    fn rejected(self, secrets: &[Secret]) -> Error {
        Error::Rejected { code: self.code, text: printable(self.text, secrets) }
    }
}

fn error_in(envelope: &Envelope) -> Option<Explanation<'_>> {
    let object = envelope.imdata.iter().find(|it| it.class == envelope::ERROR)?;
    Some(match &object.error {
        Some(error) => Explanation { code: error.code, text: &error.text },
        None => Explanation { code: 0, text: "" },
    })
}

/// The error in a body that is not valid JSON: the APIC does not escape quotes within the text.
fn error_in_broken_json(body: &[u8]) -> Option<Explanation<'_>> {
    let body = std::str::from_utf8(body).ok()?;
    let (_, error) = body.split_once("\"error\"")?;
    let after = |name: &str| Some(error.split_once(name)?.1.trim_start_matches([' ', ':', '"']));
    let code: String = after("\"code\"")?.chars().take_while(char::is_ascii_digit).collect();
    let text = after("\"text\"").unwrap_or_default();
    let text = text.rsplit_once("\"}").map_or(text, |(text, _)| text).trim_end_matches(['"', '}', ' ']);
    Some(Explanation { code: code.parse().ok()?, text })
}

/// The APIC's text without control characters, which could break a log line, and without secrets that it repeats (A4).
/// Only the first few thousand characters are looked at.
fn printable(text: &str, secrets: &[Secret]) -> String {
    let start: String = text.chars().take(20_000).map(|it| if it.is_control() { ' ' } else { it }).collect();
    hide(&start, secrets).chars().take(400).collect()
}

/// Removes secrets from a text, as they are and as JSON writes them, and signatures: a signed request can be sent again.
pub(super) fn hide(text: &str, secrets: &[Secret]) -> String {
    let mut parts = text.split(SIGNATURE);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|it: char| it.is_ascii_alphanumeric() || "+/=\\".contains(it));
        text = text + SIGNATURE + "[secret]" + rest;
    }
    for secret in secrets.iter().map(Secret::expose).filter(|it| !it.is_empty()) {
        let json = serde_json::Value::from(secret).to_string();
        for form in [secret, json.trim_matches('"')] {
            if !form.is_empty() && text.contains(form) {
                text = text.replace(form, "[secret]");
            }
        }
    }
    text
}

/// The cookie with the signature of a request (A5).
const SIGNATURE: &str = "APIC-Request-Signature=";

/// The start of the text of an error that the APIC did not explain.
const UNEXPLAINED: &str = "HTTP";

/// Whether the text of an error is not the APIC's.
pub(super) fn is_unexplained(text: &str) -> bool {
    text.starts_with(UNEXPLAINED)
}

/// The decision that an unsuccessful answer calls for. The web server in front answers with HTML; then the HTTP status
/// decides.
pub fn refusal(http: u16, body: &[u8], is_write: bool) -> Error {
    refusal_hiding(http, body, is_write, &[])
}

fn refusal_hiding(http: u16, body: &[u8], is_write: bool, secrets: &[Secret]) -> Error {
    let envelope = envelope::read(body).ok();
    let explanation = envelope.as_ref().and_then(error_in).or_else(|| error_in_broken_json(body));
    let is_explained = explanation.is_some();
    let code = explanation.map_or(http.into(), |it| it.code);
    let is_about_login = explanation.is_some_and(|it| is_about_login(&printable(it.text, &[])));
    let text = match explanation {
        Some(explanation) => printable(explanation.text, secrets),
        None if wrong_peer::is_html(body) => {
            format!("{UNEXPLAINED} {http} with an HTML page of a web server or a proxy")
        }
        None => format!("{UNEXPLAINED} {http} without an explanation"),
    };
    match http {
        401 | 405 => Error::Unauthorized(text),
        // A 403 that is not the APIC's own is the web server's, which knows no privileges, only sessions.
        403 if is_about_login || !is_explained => Error::Unauthorized(text),
        403 => Error::Forbidden(text),
        400 | 413 | 414 => Error::Rejected { code, text },
        // The web server in front did not let it through. The APIC's own 503 means that something within took too long.
        429 => Error::Busy(text),
        503 if !(is_write && is_explained) => Error::Busy(text),
        500..=599 if is_write => Error::AnswerLost(text),
        500..=599 => Error::Busy(text),
        _ => Error::Malformed(text),
    }
}

/// What an APIC says about a token, and about a signature, which is what OpenSSL says. No name can hold a space.
fn is_about_login(text: &str) -> bool {
    const TEXTS: [&str; 8] = [
        "Token was invalid",
        "Need a valid webtoken",
        "Token timeout",
        "bad signature",
        "invalid padding",
        "padding check failed",
        "certificate has expired",
        "certificate is not yet valid",
    ];
    TEXTS.iter().any(|it| text.contains(it))
}

/// A websocket message.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// The subscriptions that the changes belong to.
    pub subscriptions: Vec<String>,
    /// The changes, one object each.
    pub changes: Vec<MoChange>,
}

/// Decodes a websocket message, which has no `totalCount` and a list of subscription ids.
pub fn message(body: &[u8]) -> Result<Message, Error> {
    let envelope = envelope::read(body)?;
    let mut changes = Vec::new();
    for mut node in envelope.imdata {
        if let (Some(dn), Some(status)) = (node.dn.take(), node.status) {
            changes.push(MoChange { status, mo: mo(node, dn) });
        }
    }
    Ok(Message { subscriptions: envelope.subscriptions, changes })
}
