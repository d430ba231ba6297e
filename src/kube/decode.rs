//! Bytes into events: list pages, watch lines, Leases, Status bodies. Pure; sockets are the client's.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::election::Lease;
use super::error::Error;
use crate::model::kube::{Kind, Object};

/// The longest line of a watch stream, in bytes. Objects are at most about 1.5 MiB in etcd.
pub const LONGEST_LINE: usize = 4 << 20;

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// The objects worth keeping.
    pub objects: Vec<Object>,
    /// How many objects the page held.
    pub total: usize,
    /// Where to watch from; the same on all pages of a list.
    pub resource_version: String,
    /// The token for the next page; empty on the last one.
    pub next: String,
}

/// What a line of a watch stream says.
#[derive(Debug)]
pub enum Line {
    /// The object was added or changed, or is no longer there; and the version that the stream is at now.
    Changed {
        /// The object as it is, or as it last was.
        object: Object,
        /// It was deleted.
        deleted: bool,
        /// The new version.
        resource_version: String,
    },
    /// Nothing changed; the version that the stream is at now.
    Bookmark(String),
    /// The server ends the stream because it is busy (429): the watch can go on later from the same version.
    Busy(Error),
    /// The server ends the stream for another reason: the same version would most probably fail again (K2).
    Failed(Error),
    /// A type that nobody knows yet, cut for the log.
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
    /// The version. Without one nothing can be watched from there, and a watch from "" would tell of no deletion.
    fn version(self, what: &str) -> Result<String, Error> {
        if self.resource_version.is_empty() {
            return Err(Error::Malformed(format!("{what} has no resource version")));
        }
        Ok(self.resource_version)
    }
}

/// Decodes a list page. A page is at most a few MiB, so it is in memory once as bytes and once as what is kept.
///
/// Only a list of that kind with its items counts: what else a proxy answers with 200 must never pass for an empty
/// cluster (W1).
pub fn page(kind: Kind, body: &[u8]) -> Result<Page, Error> {
    #[derive(Deserialize)]
    #[serde(bound = "T: Deserialize<'de>")]
    struct Wire<T> {
        #[serde(default)]
        kind: String,
        metadata: ListMeta,
        // `null` is how Go writes an empty list. By this detour serde does not take a missing one for the same.
        #[serde(deserialize_with = "Option::deserialize")]
        items: Option<Vec<T>>,
    }
    fn decode<T>(kind: Kind, body: &[u8], wrap: fn(T) -> Object) -> Result<Page, Error>
    where
        T: for<'de> Deserialize<'de>,
    {
        let mut wire: Wire<T> = serde_json::from_slice(body).map_err(|error| Error::malformed("a list", &error))?;
        if wire.kind != format!("{kind}List") {
            return Err(Error::Malformed(format!("something else in place of a {kind}List")));
        }
        let items = wire.items.unwrap_or_default();
        let total = items.len();
        let objects = items.into_iter().map(wrap).filter(Object::is_kept).collect();
        let next = wire.metadata.next.take().unwrap_or_default();
        Ok(Page { objects, total, resource_version: wire.metadata.version("a list")?, next })
    }
    match kind {
        Kind::Deployment => decode(kind, body, Object::Deployment),
        Kind::Pod => decode(kind, body, Object::Pod),
        Kind::Service => decode(kind, body, Object::Service),
    }
}

/// Decodes a line of a watch stream: the type first, then the object, because a bookmark's object has nothing in it
/// but a version.
pub fn line(kind: Kind, line: &[u8]) -> Result<Line, Error> {
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
    let malformed = |error: serde_json::Error| Error::malformed("a watch event", &error);
    let wire: Wire<'_> = serde_json::from_slice(line).map_err(malformed)?;
    let object = wire.object.get();
    let version = || -> Result<String, Error> {
        let versioned: Versioned = serde_json::from_str(object).map_err(malformed)?;
        if versioned.kind != kind.to_string() {
            return Err(Error::Malformed(format!("a watch event of something else than a {kind}")));
        }
        versioned.metadata.version("a watch event")
    };
    Ok(match wire.kind.as_str() {
        "ADDED" | "MODIFIED" | "DELETED" => Line::Changed {
            object: Object::decode(kind, object.as_bytes()).map_err(malformed)?,
            deleted: wire.kind == "DELETED",
            resource_version: version()?,
        },
        "BOOKMARK" => Line::Bookmark(version()?),
        "ERROR" => {
            let status = status(object.as_bytes());
            let error = Error::of_status(&status, None);
            if status.code == 429 { Line::Busy(error) } else { Line::Failed(error) }
        }
        unknown => Line::Unknown(unknown.chars().take(40).collect()),
    })
}

/// A `Status` body, as far as it matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The HTTP code.
    pub code: u16,
    /// The reason in one word.
    pub reason: String,
    /// The message for people; it names verb and resource where a right is missing.
    pub message: String,
    /// More about it.
    pub details: Option<Details>,
}

/// More about a refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Details {
    /// Why, where it has several reasons or a special one.
    pub causes: Option<Vec<Cause>>,
}

/// One cause of a refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// Its reason in one word.
    pub reason: String,
}

impl Status {
    /// Whether one of its causes has this reason.
    pub fn has_cause(&self, reason: &str) -> bool {
        let causes = self.details.as_ref().and_then(|it| it.causes.as_deref());
        causes.unwrap_or_default().iter().any(|it| it.reason == reason)
    }
}

/// Reads a `Status`; empty where the body is none.
pub fn status(body: &[u8]) -> Status {
    serde_json::from_slice(body).unwrap_or_default()
}

/// A Lease.
pub fn lease(body: &[u8]) -> Result<Lease, Error> {
    serde_json::from_slice(body).map_err(|error| Error::malformed("the Lease", &error))
}
