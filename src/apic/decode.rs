//! Bytes into objects and events: `imdata` envelopes, error bodies, websocket messages. Pure; sockets are elsewhere.

use super::envelope::{self, Envelope, Login, Node};
use super::error::Error;
use crate::model::mo::{Mo, MoChange};
use crate::net::wrong_peer;
use crate::secret::Secret;

/// The longest DN that is believed, in bytes. A child's DN begins with its parent's, so without a limit the DNs could be
/// far larger than the answer that they come from.
const MAX_DN: usize = 4096;

/// An answer: how many objects there are in all, and those of this page, children flattened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `totalCount`: the whole result, not the page.
    pub total: usize,
    /// The objects, parents before their children.
    pub mos: Vec<Mo>,
    /// How many of them stood at the top level.
    pub top_level: usize,
    /// `subscriptionId`, if one was asked for.
    pub subscription: Option<String>,
    /// The answer to a login or a token refresh.
    pub login: Option<Login>,
}

/// The largest sum of the DNs that are put together from an answer, in bytes: as much as the largest answer has.
const MAX_DN_BYTES: usize = 64 << 20;

/// The DNs of one answer. A child has an RN in place of one, and below a parent.
#[derive(Default)]
struct Dns {
    /// How much was put together so far.
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
            return Err(Error::Malformed(format!("a DN of more than {MAX_DN} bytes")));
        }
        if self.bytes > MAX_DN_BYTES {
            return Err(Error::Malformed(format!("DNs of more than {MAX_DN_BYTES} bytes in one answer")));
        }
        Ok(Some(dn))
    }
}

/// The answer to a read, with its HTTP status.
pub fn read(http: u16, body: &[u8]) -> Result<Answer, Error> {
    read_hiding(http, body, &[])
}

/// The same without these secrets in its errors: an APIC may repeat what it was sent (A4).
pub fn read_hiding(http: u16, body: &[u8], secrets: &[Secret]) -> Result<Answer, Error> {
    if !(200..300).contains(&http) {
        return Err(refusal_hiding(http, body, false, secrets));
    }
    answer_hiding(body, secrets)
}

/// The answer to a write: what it made, changed and deleted, as far as it says. One that makes no sense is none.
pub fn written(http: u16, body: &[u8]) -> Result<Vec<MoChange>, Error> {
    written_hiding(http, body, &[])
}

/// The same without these secrets in its errors.
pub fn written_hiding(http: u16, body: &[u8], secrets: &[Secret]) -> Result<Vec<MoChange>, Error> {
    if !(200..300).contains(&http) {
        return Err(refusal_hiding(http, body, true, secrets));
    }
    let changes = envelope::read(body).and_then(|envelope| match error_in(&envelope) {
        Some((code, text)) => Err(Error::Rejected { code, text: printable(text, secrets) }),
        None => {
            let (mut changes, mut dns) = (Vec::new(), Dns::default());
            envelope.imdata.into_iter().try_for_each(|node| changes_in(node, None, &mut dns, &mut changes))?;
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
    if let Some((code, text)) = error_in(&envelope) {
        return Err(Error::Rejected { code, text: printable(text, secrets) });
    }
    let login = envelope.imdata.first_mut().and_then(|it| it.login.take());
    let top_level = envelope.top_level;
    let (mut mos, mut dns) = (Vec::with_capacity(top_level), Dns::default());
    for node in envelope.imdata {
        flatten(node, None, &mut dns, &mut mos)?;
    }
    let subscription = envelope.subscriptions.into_iter().next();
    let total = envelope.total_count.unwrap_or(top_level);
    Ok(Answer { total, mos, top_level, subscription, login: login.map(|it| *it) })
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

/// The code and the text of an error.
fn error_in(envelope: &Envelope) -> Option<(u32, &str)> {
    let object = envelope.imdata.iter().find(|it| it.class == envelope::ERROR)?;
    Some(object.error.as_ref().map_or((0, ""), |it| (it.code, it.text.as_str())))
}

/// The code and the text of an error body that is not valid JSON: the APIC leaves quotes within the text as they are.
fn error_in_broken_json(body: &[u8]) -> Option<(u32, &str)> {
    let body = std::str::from_utf8(body).ok()?;
    let (_, error) = body.split_once("\"error\"")?;
    let after = |name: &str| Some(error.split_once(name)?.1.trim_start_matches([' ', ':', '"']));
    let code: String = after("\"code\"")?.chars().take_while(char::is_ascii_digit).collect();
    let text = after("\"text\"").unwrap_or_default();
    let text = text.rsplit_once("\"}").map_or(text, |(text, _)| text).trim_end_matches(['"', '}', ' ']);
    Some((code.parse().ok()?, text))
}

/// The text is the APIC's; a line break in it must not become one in the log, and a secret that it repeats must not be
/// shown (A4). Nothing behind the first few thousand characters is looked at.
fn printable(text: &str, secrets: &[Secret]) -> String {
    let begin: String = text.chars().take(20_000).map(|it| if it.is_control() { ' ' } else { it }).collect();
    hidden(&begin, secrets).chars().take(400).collect()
}

/// A text without secrets, be they as they are or as JSON writes them.
pub(super) fn hidden(text: &str, secrets: &[Secret]) -> String {
    let mut text = text.to_owned();
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

/// The decision that an unsuccessful answer calls for. Errors of the web server in front are HTML: there the HTTP
/// status decides.
pub fn refusal(http: u16, body: &[u8], is_write: bool) -> Error {
    refusal_hiding(http, body, is_write, &[])
}

/// How the text of an answer begins that holds no error of an APIC.
const UNEXPLAINED: &str = "HTTP";

/// Whether the text of a refusal is not the APIC's, but says that there was none.
pub(super) fn is_unexplained(text: &str) -> bool {
    text.starts_with(UNEXPLAINED)
}

fn refusal_hiding(http: u16, body: &[u8], is_write: bool, secrets: &[Secret]) -> Error {
    let envelope = envelope::read(body).ok();
    let told = envelope.as_ref().and_then(error_in).or_else(|| error_in_broken_json(body));
    let is_told = told.is_some();
    let code = told.map_or(http.into(), |it| it.0);
    let unexplained = || {
        let is_page = wrong_peer::is_html(body);
        let how = if is_page { "with an HTML page of a web server or a proxy" } else { "without an explanation" };
        format!("{UNEXPLAINED} {http} {how}")
    };
    let text = told.map_or_else(unexplained, |it| printable(it.1, secrets));
    let said = told.map(|it| printable(it.1, &[])).unwrap_or_default();
    let token = ["Token was invalid", "Need a valid webtoken", "Token timeout"].iter().any(|it| said.contains(it));
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
    let envelope = envelope::read(body)?;
    let mut changes = Vec::new();
    for mut node in envelope.imdata {
        if let (Some(dn), Some(status)) = (node.dn.take(), node.status) {
            changes.push(MoChange { status, mo: mo(node, dn) });
        }
    }
    Ok(Message { subscriptions: envelope.subscriptions, changes })
}
