//! Decoding of list pages, watch lines and Leases; objects are decoded in `objects`.

use std::cell::Cell;
use std::fmt;
use std::io::BufRead;
use std::marker::PhantomData;
use std::rc::Rc;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::election::Lease;
use super::error::Error;
use super::objects;
use super::status::Status;
use crate::model::kubernetes::{Key, Kind, Object};
use crate::net::describe_io_error;

/// The longest line of a watch stream that is decoded, in bytes. Objects are at most about 1.5 MiB in etcd, and six times
/// as long on the wire if each byte becomes an escape such as `\u003c`.
pub const MAX_LINE: usize = 16 << 20;

/// What an object of a list is decoded into.
pub trait Item: Sized {
    /// Decodes an object of this kind.
    fn decode<'de, D: Deserializer<'de>>(kind: Kind, deserializer: D) -> Result<Self, D::Error>;

    /// Its namespace and name.
    fn key(&self) -> Key;
}

/// One page of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// Its objects, also those that no rule needs.
    pub objects: Vec<T>,
    /// Where to watch from; the same on all pages of a list.
    pub resource_version: String,
    /// The token for the next page; empty on the last one.
    pub next: String,
}

/// What a line of a watch stream says.
#[derive(Debug)]
pub enum WatchLine {
    /// The object was added, changed or deleted.
    Changed {
        /// The object as it is, or as it last was.
        object: Object,
        /// It was deleted.
        deleted: bool,
        /// The new version.
        resource_version: String,
    },
    /// Nothing changed; the version of the stream now.
    Bookmark(String),
    /// The server ends the stream because it is busy (429): the watch can go on later from the same version.
    Busy(Error),
    /// The server ends the stream for another reason: the same version would most probably fail again (K2).
    Failed(Error),
    /// An unknown type, cut for the log.
    Unknown(String),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    next: Option<String>,
}

impl ListMeta {
    /// The version. A watch from "" would report no deletion that came before it.
    fn version(self, what: &str) -> Result<String, Error> {
        if self.resource_version.is_empty() {
            return Err(Error::Malformed(format!("{what}: no resourceVersion")));
        }
        Ok(self.resource_version)
    }
}

/// What was decoded of a page, also if the rest cannot be read.
#[derive(Debug, Default)]
pub struct Progress {
    /// How many objects were whole.
    pub items: usize,
    /// The last one of them.
    pub last: Option<Key>,
    /// How many bytes came in so far.
    pub bytes: Rc<Cell<u64>>,
    /// The largest of them, with its size by the buffers that came in.
    pub largest: Option<(u64, Key)>,
}

/// Decodes a list page that is in memory.
pub fn page<T: Item>(kind: Kind, body: &[u8]) -> Result<Page<T>, Error> {
    let malformed = |error| Error::malformed("list", &error);
    decode_page(kind, serde_json::Deserializer::from_slice(body), &mut Progress::default()).map_err(malformed)?
}

/// Decodes a list page while it comes in, object by object, so its size on the wire costs no memory (X3).
pub fn read_page<T: Item>(kind: Kind, body: impl BufRead, progress: &mut Progress) -> Result<Page<T>, Error> {
    let failed = |error: serde_json::Error| {
        if error.is_io() {
            return Error::Unreachable(describe_io_error(&error.into()));
        }
        Error::malformed("list", &error)
    };
    decode_page(kind, serde_json::Deserializer::from_reader(body), progress).map_err(failed)?
}

/// Accepts only a list of that kind with its items: another answer with 200, such as a proxy's, must never pass for an
/// empty cluster (W1).
fn decode_page<'de, T: Item, R: serde_json::de::Read<'de>>(
    kind: Kind,
    mut json: serde_json::Deserializer<R>,
    progress: &mut Progress,
) -> Result<Result<Page<T>, Error>, serde_json::Error> {
    let list: List<T> = json.deserialize_map(ListVisitor(Items { kind, progress, item: PhantomData }))?;
    json.end()?;
    if list.kind != format!("{kind}List") {
        return Ok(Err(Error::Malformed(format!("not a {kind}List"))));
    }
    let next = list.metadata.next.clone().unwrap_or_default();
    let page = |resource_version| Page { objects: list.objects, resource_version, next };
    Ok(list.metadata.version("list").map(page))
}

struct List<T> {
    kind: String,
    metadata: ListMeta,
    objects: Vec<T>,
}

struct ListVisitor<'a, T>(Items<'a, T>);

impl<'de, T: Item> Visitor<'de> for ListVisitor<'_, T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<List<T>, A::Error> {
        let (mut kind, mut metadata, mut objects) = (String::new(), None, None);
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "kind" => kind = map.next_value()?,
                "metadata" => metadata = Some(map.next_value()?),
                "items" if objects.is_some() => return Err(A::Error::custom("duplicate field items")),
                "items" => objects = Some(map.next_value_seed(&mut self.0)?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let missing = |field| A::Error::missing_field(field);
        let metadata = metadata.ok_or_else(|| missing("metadata"))?;
        Ok(List { kind, metadata, objects: objects.ok_or_else(|| missing("items"))? })
    }
}

/// The items of a list. `null` is how Go writes an empty one.
struct Items<'a, T> {
    kind: Kind,
    progress: &'a mut Progress,
    item: PhantomData<T>,
}

impl<'de, T: Item> DeserializeSeed<'de> for &mut Items<'_, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Item> Visitor<'de> for &mut Items<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut objects = Vec::new();
        let mut begin = self.progress.bytes.get();
        while let Some(object) = items.next_element_seed(OfKind::<T>(self.kind, PhantomData))? {
            self.progress.items += 1;
            self.progress.last = Some(object.key());
            let end = self.progress.bytes.get();
            let size = end - std::mem::replace(&mut begin, end);
            if self.progress.largest.as_ref().is_none_or(|(largest, _)| *largest < size) {
                self.progress.largest = Some((size, object.key()));
            }
            objects.push(object);
        }
        Ok(objects)
    }
}

/// One object of a list.
struct OfKind<T>(Kind, PhantomData<T>);

impl<'de, T: Item> DeserializeSeed<'de> for OfKind<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::decode(self.0, deserializer)
    }
}

/// The object of a watch line, by the line's beginning.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LineStart {
    /// It was deleted.
    pub deleted: bool,
    /// Which one it is.
    pub key: Option<Key>,
    /// The new version.
    pub resource_version: Option<String>,
}

/// Reads the beginning of a watch line that is too long to be decoded. An API server writes the type first, and an
/// object's name before all fields that may be long.
pub fn line_start(line: &[u8]) -> LineStart {
    let mut fields = Fields::default();
    let mut json = serde_json::Deserializer::from_slice(line);
    // It always fails at the cut; the fields before it are in `fields`.
    let _ = Start { depth: 0, fields: &mut fields }.deserialize(&mut json);
    let is_event = matches!(fields.event.as_str(), "ADDED" | "MODIFIED" | "DELETED");
    let (Some(namespace), Some(name), true) = (fields.namespace, fields.name, is_event) else {
        return LineStart::default();
    };
    LineStart {
        deleted: fields.event == "DELETED",
        key: Some(Key::new(&namespace, &name)),
        resource_version: fields.resource_version.filter(|it| !it.is_empty()),
    }
}

#[derive(Default)]
struct Fields {
    event: String,
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
}

/// An event, its object, or the object's metadata.
struct Start<'a> {
    depth: usize,
    fields: &'a mut Fields,
}

impl<'de> DeserializeSeed<'de> for Start<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Start<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the beginning of a watch event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key::<String>()? {
            match (self.depth, field.as_str()) {
                (0, "type") => self.fields.event = map.next_value()?,
                (0, "object") | (1, "metadata") => {
                    map.next_value_seed(Start { depth: self.depth + 1, fields: &mut *self.fields })?;
                }
                (2, "name") => self.fields.name = Some(map.next_value()?),
                (2, "namespace") => self.fields.namespace = Some(map.next_value()?),
                (2, "resourceVersion") => self.fields.resource_version = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Decodes a line of a watch stream: the type first, then the object, because a bookmark's object has only a version.
pub fn line(kind: Kind, line: &[u8]) -> Result<WatchLine, Error> {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(rename = "type")]
        kind: String,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(default)]
        kind: String,
        metadata: ListMeta,
    }
    let malformed = |error: serde_json::Error| Error::malformed("watch event", &error);
    let wire: Wire<'_> = serde_json::from_slice(line).map_err(malformed)?;
    let object = wire.object.get();
    let version = || -> Result<String, Error> {
        let versioned: Versioned = serde_json::from_str(object).map_err(malformed)?;
        if versioned.kind != kind.to_string() {
            return Err(Error::Malformed(format!("watch event: not about a {kind}")));
        }
        versioned.metadata.version("watch event")
    };
    Ok(match wire.kind.as_str() {
        "ADDED" | "MODIFIED" | "DELETED" => WatchLine::Changed {
            object: objects::decode(kind, object.as_bytes()).map_err(malformed)?,
            deleted: wire.kind == "DELETED",
            resource_version: version()?,
        },
        "BOOKMARK" => WatchLine::Bookmark(version()?),
        "ERROR" => {
            let status = Status::parse(object.as_bytes());
            let error = Error::of_status(&status, None);
            if status.code == 429 { WatchLine::Busy(error) } else { WatchLine::Failed(error) }
        }
        unknown => WatchLine::Unknown(unknown.chars().take(40).collect()),
    })
}

/// A Lease.
pub fn lease(body: &[u8]) -> Result<Lease, Error> {
    serde_json::from_slice(body).map_err(|error| Error::malformed("Lease", &error))
}
