//! The JSON around an APIC's objects, read in one go: nothing is kept but what is used, and what is too much ends it.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::Error;
use crate::net::wrong_peer;

/// The most objects that an answer or a message may hold; an APIC itself refuses to send about 100,000.
pub const MAX_OBJECTS: usize = 200_000;

/// The attributes that anything is decided on, in the order in which they are kept. An object has some thirty, and
/// thousands may wait for a reconcile to end.
pub(super) const KEPT: [&str; 7] =
    ["annotation", "name", "scope", "tDn", "token", "refreshTimeoutSeconds", "maximumLifetimeSeconds"];

/// Attributes that are used while decoding.
const USED: [&str; 3] = ["dn", "rn", "status"];

/// Those of an error, in place of all others.
const OF_ERRORS: [&str; 2] = ["code", "text"];

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

/// One object with what is below it.
pub(super) struct Node {
    pub(super) class: String,
    attributes: Vec<(&'static str, String)>,
    pub(super) children: Vec<Node>,
}

impl Node {
    /// An attribute that was sent.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|it| it.0 == name).map(|it| it.1.as_str())
    }

    /// The attributes that are kept, in one order for all.
    pub(super) fn kept(&mut self) -> Vec<(&'static str, String)> {
        let place = |name: &str| KEPT.iter().position(|it| *it == name);
        let mut kept = std::mem::take(&mut self.attributes);
        kept.retain(|it| place(it.0).is_some());
        kept.sort_by_key(|it| place(it.0));
        kept.shrink_to_fit();
        kept
    }
}

/// Reads one.
pub(super) fn read(body: &[u8]) -> Result<Envelope, Error> {
    let left = Cell::new(MAX_OBJECTS);
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = EnvelopeSeed { left: &left }.deserialize(&mut json).and_then(|it| json.end().map(|()| it));
    read.map_err(|error| {
        if left.get() == 0 {
            return Error::Malformed(format!("more than {MAX_OBJECTS} objects in one answer"));
        }
        let why = if wrong_peer::is_html(body) {
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

/// Counts one object more.
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

/// One entry of such a list: an object under the name of its class. More than one stand side by side.
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
            // As a map has it: by name, and the last one of a name counts.
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
        let is_error = self.class == "error";
        let (mut attributes, mut children) = (None, None);
        while let Some(field) = map.next_key_seed(Text)? {
            match field.as_str() {
                "attributes" if attributes.is_some() => return Err(A::Error::duplicate_field("attributes")),
                "attributes" => attributes = Some(map.next_value_seed(Attributes { is_error })?),
                "children" if children.is_some() => return Err(A::Error::duplicate_field("children")),
                "children" => children = Some(map.next_value_seed(Entries { left: self.left })?.0),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let (attributes, children) = (attributes.unwrap_or_default(), children.unwrap_or_default());
        Ok(Node { class: self.class, attributes, children })
    }
}

/// The attributes of an object that are used.
struct Attributes {
    is_error: bool,
}

impl<'de> DeserializeSeed<'de> for Attributes {
    type Value = Vec<(&'static str, String)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Attributes {
    type Value = Vec<(&'static str, String)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("attributes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut attributes: Vec<(&'static str, String)> = Vec::new();
        let of_errors = if self.is_error { &OF_ERRORS[..] } else { &[] };
        while let Some(name) = map.next_key_seed(Text)? {
            let Some(name) = KEPT.iter().chain(&USED).chain(of_errors).find(|it| **it == name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = map.next_value_seed(Text)?;
            match attributes.iter_mut().find(|it| it.0 == *name) {
                Some(known) => known.1 = value,
                None => attributes.push((name, value)),
            }
        }
        Ok(attributes)
    }
}

/// Values are strings on the wire; a number, a truth value or `null` is taken for its text, anything else for nothing.
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
