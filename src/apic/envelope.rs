//! Reads the JSON around an APIC's objects in one pass. Only what is used is kept, and too many objects end the read.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::Error;
use crate::model::discovery;
use crate::model::mo::{Attributes, Status};
use crate::model::observed::{CONTRACTS, EPG, FAULT, VRF_RELATION};
use crate::net::wrong_peer;
use crate::secret::Secret;

/// The class of an error.
pub(super) const ERROR: &str = "error";

/// The classes of the answer to a login and to a token refresh, with a password and with a certificate.
const LOGIN: &str = "aaaLogin";
const SIGNED_LOGIN: &str = "webtokenSession";

/// The class of what a user may do below a DN, in the answer to a login.
pub(super) const PRIVILEGES: &str = "DnDomainMapEntry";

/// The cause of a fault that another EPG of the VRF has a prefix of an EPG (S3).
const PREFIX_IN_USE_CAUSE: &str = "prefix-entry-already-in-use";

/// The most objects that an answer or a message may hold; an APIC itself refuses to send about 100,000.
pub const MAX_OBJECTS: usize = 200_000;

/// An answer or a message.
pub(super) struct Envelope {
    /// `totalCount`, if there is one that is a number.
    pub(super) total_count: Option<usize>,
    /// The objects at the top level.
    pub(super) imdata: Vec<Node>,
    /// How many entries there are at the top level; each is one object.
    pub(super) top_level: usize,
    /// One id or several.
    pub(super) subscriptions: Vec<String>,
}

/// One object with its children, and what is used of its attributes.
#[derive(Default)]
pub(super) struct Node {
    pub(super) class: String,
    /// `dn`, which a child does not have.
    pub(super) dn: Option<String>,
    /// `rn`.
    pub(super) rn: Option<String>,
    /// What happened to it; nothing if it only leads to its children.
    pub(super) status: Option<Status>,
    pub(super) attributes: Attributes,
    /// Of the class `error`.
    pub(super) error: Option<Box<ErrorObject>>,
    /// Of the class `aaaLogin` or `webtokenSession`.
    pub(super) login: Option<Box<Login>>,
    /// Of the class `DnDomainMapEntry`.
    pub(super) write_privileges: Option<Box<str>>,
    pub(super) children: Vec<Node>,
}

/// The attributes of an error.
#[derive(Default)]
pub(super) struct ErrorObject {
    /// 0 if there is none.
    pub(super) code: u32,
    pub(super) text: String,
}

/// The answer to a login or a token refresh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// `token`.
    pub token: Secret,
    /// `refreshTimeoutSeconds`.
    pub refresh_timeout: Option<u64>,
    /// `maximumLifetimeSeconds`.
    pub maximum_lifetime: Option<u64>,
    /// `version` of the APIC, if it says so.
    pub version: String,
    /// `changePassword`: the password has to be changed.
    pub must_change_password: bool,
    /// The DNs with what the user may write at and below them.
    pub write_privileges: Vec<(String, String)>,
}

/// Reads an answer or a message.
pub(super) fn read(body: &[u8]) -> Result<Envelope, Error> {
    let left = Cell::new(MAX_OBJECTS);
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = EnvelopeSeed { left: &left }.deserialize(&mut json).and_then(|it| json.end().map(|()| it));
    read.map_err(|error| {
        if left.get() == 0 {
            return Error::Malformed(format!("more than {MAX_OBJECTS} objects in one answer"));
        }
        let reason = if wrong_peer::is_html(body) {
            "an HTML page; is this an APIC, or a proxy or a login page in front of it?"
        } else {
            category(&error)
        };
        Error::Malformed(format!("not the JSON of an APIC: {reason}"))
    })
}

fn category(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends early",
        serde_json::error::Category::Syntax => "it is not JSON",
        _ => "a field has the wrong type",
    }
}

/// Counts one object; fails if there are too many.
fn spend<E: serde::de::Error>(left: &Cell<usize>) -> Result<(), E> {
    left.set(left.get().saturating_sub(1));
    if left.get() == 0 { Err(E::custom("too many objects")) } else { Ok(()) }
}

#[derive(Clone, Copy)]
struct EnvelopeSeed<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for EnvelopeSeed<'_> {
    type Value = Envelope;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Envelope, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed<'_> {
    type Value = Envelope;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope, A::Error> {
        let left = self.left;
        let (mut total_count, mut entries, mut subscriptions) = (None, None, Vec::new());
        while let Some(field) = map.next_key_seed(Text)? {
            match field.as_str() {
                "totalCount" => total_count = map.next_value_seed(Text)?.parse().ok(),
                "imdata" if entries.is_some() => return Err(A::Error::duplicate_field("imdata")),
                "imdata" => entries = Some(map.next_value_seed(Entries { left })?),
                "subscriptionId" => subscriptions = map.next_value_seed(Ids { left })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let (imdata, top_level) = entries.ok_or_else(|| A::Error::missing_field("imdata"))?;
        Ok(Envelope { total_count, imdata, top_level, subscriptions })
    }
}

/// A list of objects, and how many entries it has.
struct Entries<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = (Vec<Node>, usize);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = (Vec<Node>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let (mut nodes, mut count) = (Vec::new(), 0);
        while entries.next_element_seed(Entry { left: self.left, nodes: &mut nodes })?.is_some() {
            count += 1;
        }
        Ok((nodes, count))
    }
}

/// One entry of such a list: an object under the name of its class. It may hold several.
struct Entry<'a> {
    left: &'a Cell<usize>,
    nodes: &'a mut Vec<Node>,
}

impl<'de> DeserializeSeed<'de> for Entry<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        spend(self.left)?;
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entry<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let begin = self.nodes.len();
        while let Some(class) = map.next_key_seed(Text)? {
            if self.nodes.len() > begin {
                spend(self.left)?;
            }
            let node = map.next_value_seed(Body { left: self.left, class })?;
            self.nodes.push(node);
        }
        if self.nodes.len() > begin + 1 {
            // As in a map: sorted by name, and the last one of a name counts.
            let mut entry = self.nodes.split_off(begin);
            entry.reverse();
            entry.sort_by(|a, b| a.class.cmp(&b.class));
            entry.dedup_by(|a, b| a.class == b.class);
            self.nodes.append(&mut entry);
        }
        Ok(())
    }
}

/// The attributes and children of an object.
struct Body<'a> {
    left: &'a Cell<usize>,
    class: String,
}

impl<'de> DeserializeSeed<'de> for Body<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("attributes and children")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut node = Node { class: self.class, ..Node::default() };
        let (mut has_attributes, mut has_children) = (false, false);
        while let Some(field) = map.next_key_seed(Text)? {
            match field.as_str() {
                "attributes" if has_attributes => return Err(A::Error::duplicate_field("attributes")),
                "attributes" => {
                    has_attributes = true;
                    map.next_value_seed(AttributesOf(&mut node))?;
                }
                "children" if has_children => return Err(A::Error::duplicate_field("children")),
                "children" => {
                    has_children = true;
                    node.children = map.next_value_seed(Entries { left: self.left })?.0;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(node)
    }
}

/// The attributes of an object. Those that are not used are skipped; the last one of a name counts.
struct AttributesOf<'a>(&'a mut Node);

impl<'de> DeserializeSeed<'de> for AttributesOf<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for AttributesOf<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("attributes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let node = self.0;
        while let Some(name) = map.next_key_seed(Text)? {
            match (node.class.as_str(), name.as_str()) {
                (_, "dn") => node.dn = Some(map.next_value_seed(Text)?),
                (_, "rn") => node.rn = Some(map.next_value_seed(Text)?),
                (_, "status") => node.status = status(&map.next_value_seed(Text)?),
                (_, "annotation") => node.attributes.annotation = Some(map.next_value_seed(Text)?.into()),
                (_, "name") => node.attributes.name = Some(map.next_value_seed(Text)?.into()),
                (_, "scope") => node.attributes.scope = Some(map.next_value_seed(Text)?.into()),
                (_, "tDn") => node.attributes.target_dn = Some(map.next_value_seed(Text)?.into()),
                (class, "modTs") if class == EPG || CONTRACTS.contains(&class) => {
                    node.attributes.modified = Some(map.next_value_seed(Text)?.into());
                }
                (class, name @ ("addr" | "floatingAddr")) if discovery::address_of(class) == Some(name) => {
                    node.attributes.address = Some(map.next_value_seed(Text)?.into());
                }
                (ERROR, "code") => {
                    node.error.get_or_insert_default().code = map.next_value_seed(Text)?.parse().unwrap_or(0);
                }
                (ERROR, "text") => node.error.get_or_insert_default().text = map.next_value_seed(Text)?,
                (LOGIN | SIGNED_LOGIN, "token") => {
                    node.login.get_or_insert_default().token = Secret::new(map.next_value_seed(Text)?);
                }
                (LOGIN, "refreshTimeoutSeconds") => {
                    node.login.get_or_insert_default().refresh_timeout = map.next_value_seed(Text)?.parse().ok();
                }
                (LOGIN, "version") => node.login.get_or_insert_default().version = map.next_value_seed(Text)?,
                (LOGIN, "changePassword") => {
                    node.login.get_or_insert_default().must_change_password = map.next_value_seed(Text)? == "yes";
                }
                (PRIVILEGES, "writePrivileges") => node.write_privileges = Some(map.next_value_seed(Text)?.into()),
                (VRF_RELATION, "state") => node.attributes.is_formed = Some(map.next_value_seed(Text)? == "formed"),
                (FAULT, "changeSet" | "descr") => {
                    node.attributes.is_prefix_in_use |= map.next_value_seed(Text)?.contains(PREFIX_IN_USE_CAUSE);
                }
                (FAULT, "severity") => node.attributes.is_over |= map.next_value_seed(Text)? == "cleared",
                (FAULT, "lc") => node.attributes.is_over |= map.next_value_seed(Text)? == "retaining",
                (LOGIN, "maximumLifetimeSeconds") => {
                    node.login.get_or_insert_default().maximum_lifetime = map.next_value_seed(Text)?.parse().ok();
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

fn status(text: &str) -> Option<Status> {
    match text {
        "" => None,
        "created" => Some(Status::Created),
        "deleted" => Some(Status::Deleted),
        _ => Some(Status::Modified),
    }
}

/// A value as text. Values are strings on the wire; a number, a boolean and `null` become their text, a list and an object
/// the empty text.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_u64<E>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E>(self, number: f64) -> Result<String, E> {
        Ok(serde_json::Value::from(number).to_string())
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_unit<E>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<String, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(String::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(String::new())
    }
}

/// The ids of subscriptions: one, several, or `null`.
struct Ids<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Ids<'_> {
    type Value = Vec<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<String>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Ids<'_> {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ids of subscriptions")
    }

    fn visit_str<E>(self, text: &str) -> Result<Vec<String>, E> {
        Ok(vec![text.to_owned()])
    }

    fn visit_u64<E>(self, number: u64) -> Result<Vec<String>, E> {
        Ok(vec![number.to_string()])
    }

    fn visit_unit<E>(self) -> Result<Vec<String>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
        let mut ids = Vec::new();
        while let Some(id) = seq.next_element_seed(Text)? {
            spend(self.left)?;
            ids.push(id);
        }
        Ok(ids)
    }
}
