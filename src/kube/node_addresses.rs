//! The addresses of the nodes, as the Pods on them name them: the right to read nodes is not needed (J1).

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::client::{Client, MAX_PAGE, PAGE_TIMEOUT, reject_html};
use super::error::Error;
use super::list::path_of_page;
use crate::metrics::Verb;
use crate::model::address;
use crate::model::discovery::MAX_NODES;
use crate::model::kubernetes::Kind;
use crate::net::describe_io_error;

/// Pods in a page.
const PAGE: usize = 200;

/// The most pages of a list; how often a list starts over because its continue token expired.
const MAX_PAGES: usize = 10_000;
const TRIES: usize = 3;

#[derive(Deserialize)]
struct Pods {
    kind: String,
    metadata: ListMetadata,
    #[serde(default, deserialize_with = "addresses_in")]
    items: BTreeSet<IpAddr>,
}

#[derive(Deserialize)]
struct ListMetadata {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Pod {
    status: Option<PodStatus>,
}

#[derive(Deserialize)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    #[serde(rename = "hostIPs")]
    host_ips: Option<Vec<HostIp>>,
}

#[derive(Deserialize)]
struct HostIp {
    ip: Option<String>,
}

/// The addresses in the items of a list, of which nothing else is kept. `null` is how Go writes an empty list.
fn addresses_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<IpAddr>, D::Error> {
    struct Items;
    impl<'de> Visitor<'de> for Items {
        type Value = BTreeSet<IpAddr>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of Pods")
        }

        fn visit_unit<E: de::Error>(self) -> Result<BTreeSet<IpAddr>, E> {
            Ok(BTreeSet::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<BTreeSet<IpAddr>, A::Error> {
            let mut addresses = BTreeSet::new();
            while let Some(pod) = items.next_element::<Pod>()? {
                addresses.extend(pod.status.into_iter().flat_map(PodStatus::addresses));
                if addresses.len() > MAX_NODES + 1 {
                    return Err(A::Error::custom("too many nodes"));
                }
            }
            Ok(addresses)
        }
    }
    deserializer.deserialize_any(Items)
}

impl PodStatus {
    /// A Pod that has ended may have run on a node that is gone.
    fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let has_ended = matches!(self.phase.as_deref(), Some("Succeeded" | "Failed"));
        let more = self.host_ips.into_iter().flatten().filter_map(|it| it.ip);
        let texts = self.host_ip.into_iter().chain(more).filter(move |_| !has_ended);
        texts.filter_map(|it| address::parse(&it))
    }
}

impl Client {
    /// The different addresses of nodes with Pods: `status.hostIP` and `status.hostIPs`. `should_continue` is asked before
    /// each page.
    pub fn node_addresses(&self, should_continue: impl Fn() -> bool) -> Result<BTreeSet<IpAddr>, Error> {
        let mut addresses = BTreeSet::new();
        let (mut next, mut tries) = (String::new(), 1);
        for _ in 0..MAX_PAGES {
            if !should_continue() {
                return Err(Error::Unreachable("no time left".to_owned()));
            }
            let (page, more) = match self.page_of_pods(&next) {
                Err(Error::Expired) if tries < TRIES => {
                    (next, tries) = (String::new(), tries + 1);
                    continue;
                }
                page => page?,
            };
            addresses.extend(page);
            if addresses.len() > MAX_NODES {
                return Err(Error::TooLarge(format!("Pods on nodes with more than {MAX_NODES} addresses")));
            }
            match more.as_str() {
                "" => return Ok(addresses),
                same if same == next => break,
                _ => next = more,
            }
        }
        Err(Error::Malformed("list: a page without progress".to_owned()))
    }

    fn page_of_pods(&self, next: &str) -> Result<(BTreeSet<IpAddr>, String), Error> {
        let path = path_of_page(Kind::Pod, PAGE, next);
        let response =
            self.get(Verb::List, &path, |request| request.config().timeout_global(Some(PAGE_TIMEOUT)).build())?;
        let body = response.into_body().into_with_config().limit(MAX_PAGE).reader();
        let mut body = BufReader::with_capacity(64 * 1024, body);
        reject_html(body.fill_buf().map_err(|error| Error::Unreachable(describe_io_error(&error)))?)?;
        page(body)
    }
}

/// The addresses in a page, and the token for the next one, which is empty on the last one.
pub fn page(body: impl Read) -> Result<(BTreeSet<IpAddr>, String), Error> {
    let pods: Pods = serde_json::from_reader(body).map_err(|error| match error.is_io() {
        true => Error::Unreachable(describe_io_error(&error.into())),
        false => Error::malformed("list", &error),
    })?;
    if pods.kind != "PodList" {
        return Err(Error::Malformed("not a PodList".to_owned()));
    }
    Ok((pods.items, pods.metadata.next.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(items: &str) -> Result<Vec<String>, Error> {
        let list = format!(r#"{{"kind":"PodList","metadata":{{}},"items":{items}}}"#);
        let (addresses, _) = page(list.as_bytes())?;
        Ok(addresses.iter().map(ToString::to_string).collect())
    }

    /// J1: both fields count, in every spelling that API servers have; a Pod that has ended or has no node, and what is no
    /// address, say nothing.
    #[test]
    fn addresses_of_nodes() {
        for (items, expected) in [
            ("null", &[][..]),
            ("[]", &[]),
            (r#"[{"status":{"phase":"Running","hostIP":"10.1.1.11"}}]"#, &["10.1.1.11"]),
            (
                r#"[{"status":{"hostIP":"10.1.1.11","hostIPs":[{"ip":"10.1.1.11"},{"ip":"fd00::11"}]}}]"#,
                &["10.1.1.11", "fd00::11"],
            ),
            (
                r#"[{"status":{"hostIP":"10.1.1.12"}},{"status":{"hostIP":"10.1.1.11"}},{"status":{"hostIP":"10.1.1.12"}}]"#,
                &["10.1.1.11", "10.1.1.12"],
            ),
            (
                r#"[{"status":{"phase":"Succeeded","hostIP":"10.1.1.11"}},{"status":{"phase":"Failed","hostIPs":[{"ip":"10.1.1.12"}]}}]"#,
                &[],
            ),
            (
                r#"[{},{"status":null},{"status":{}},{"status":{"hostIP":null,"hostIPs":null}},{"status":{"hostIPs":[{}]}}]"#,
                &[],
            ),
            (r#"[{"status":{"hostIP":"node-1"}},{"status":{"hostIP":""}},{"status":{"hostIP":"10.1.1.11/24"}}]"#, &[]),
        ] {
            assert_eq!(addresses(items).unwrap(), expected, "{items}");
        }
        assert!(addresses(r#"[{"status":{"hostIP":7}}]"#).is_err());
        let (_, next) = page(r#"{"kind":"PodList","metadata":{"continue":"abc"},"items":[]}"#.as_bytes()).unwrap();
        assert_eq!(next, "abc");
        assert!(page(r#"{"kind":"ServiceList","metadata":{},"items":[]}"#.as_bytes()).is_err());
    }

    /// J1, X3: a list of Pods on more nodes than there can be is an error, and is not kept.
    #[test]
    fn more_than_so_many_are_an_error() {
        let pod = |n: usize| format!(r#"{{"status":{{"hostIP":"10.{}.{}.{}"}}}}"#, n >> 16, n >> 8 & 255, n & 255);
        let pods = |count: usize| format!("[{}]", (0..count).map(pod).collect::<Vec<_>>().join(","));
        assert_eq!(addresses(&pods(MAX_NODES)).unwrap().len(), MAX_NODES);
        assert!(addresses(&pods(MAX_NODES + 2)).is_err());
    }
}
