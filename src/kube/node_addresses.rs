//! The addresses of the nodes, as the Pods on them name them: the right to read nodes is not needed (J1).

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer};

use super::client::Client;
use super::decode::{self, Item};
use super::error::Error;
use super::list::in_tries;
use super::objects::ObjectMetadata;
use crate::model::address;
use crate::model::discovery::MAX_NODES;
use crate::model::kubernetes::{Key, Kind};

/// A Pod, as far as it names its node.
#[derive(Deserialize)]
struct Pod {
    metadata: ObjectMetadata,
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

impl Item for Pod {
    fn decode<'de, D: Deserializer<'de>>(_: Kind, deserializer: D) -> Result<Pod, D::Error> {
        Pod::deserialize(deserializer)
    }

    fn key(&self) -> Key {
        self.metadata.key()
    }
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
    /// The different addresses of nodes with Pods: `status.hostIP` and `status.hostIPs`. `should_continue` is asked after
    /// each page.
    pub fn node_addresses(&self, should_continue: impl Fn() -> bool) -> Result<BTreeSet<IpAddr>, Error> {
        in_tries(|| {
            let mut addresses = BTreeSet::new();
            self.pages(Kind::Pod, &mut |pods| {
                add(&mut addresses, pods)?;
                if should_continue() { Ok(()) } else { Err(Error::Unreachable("no time left".to_owned())) }
            })?;
            Ok(addresses)
        })
    }
}

fn add(addresses: &mut BTreeSet<IpAddr>, pods: Vec<Pod>) -> Result<(), Error> {
    addresses.extend(pods.into_iter().filter_map(|it| it.status).flat_map(PodStatus::addresses));
    if addresses.len() > MAX_NODES {
        return Err(Error::TooLarge(format!("Pods on nodes with more than {MAX_NODES} addresses")));
    }
    Ok(())
}

/// The addresses in a page.
pub fn page(body: &[u8]) -> Result<BTreeSet<IpAddr>, Error> {
    let mut addresses = BTreeSet::new();
    add(&mut addresses, decode::page(Kind::Pod, body)?.objects)?;
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a list of Pods with these statuses names.
    fn addresses(statuses: &[&str]) -> Result<Vec<String>, Error> {
        let pods = statuses.iter().map(|it| format!(r#"{{"metadata":{{"name":"p"}},"status":{it}}}"#));
        let items = pods.collect::<Vec<_>>().join(",");
        let list = format!(r#"{{"kind":"PodList","metadata":{{"resourceVersion":"1"}},"items":[{items}]}}"#);
        Ok(page(list.as_bytes())?.iter().map(ToString::to_string).collect())
    }

    /// J1: both fields count, in every spelling that API servers have; a Pod that has ended or has no node, and what is no
    /// address, say nothing.
    #[test]
    fn addresses_of_nodes() {
        for (statuses, expected) in [
            (&[][..], &[][..]),
            (&[r#"{"phase":"Running","hostIP":"10.1.1.11"}"#], &["10.1.1.11"]),
            (
                &[r#"{"hostIP":"10.1.1.11","hostIPs":[{"ip":"10.1.1.11"},{"ip":"fd00::11"}]}"#],
                &["10.1.1.11", "fd00::11"],
            ),
            (
                &[r#"{"hostIP":"10.1.1.12"}"#, r#"{"hostIP":"10.1.1.11"}"#, r#"{"hostIP":"10.1.1.12"}"#],
                &["10.1.1.11", "10.1.1.12"],
            ),
            (
                &[
                    r#"{"phase":"Succeeded","hostIP":"10.1.1.11"}"#,
                    r#"{"phase":"Failed","hostIPs":[{"ip":"10.1.1.12"}]}"#,
                ],
                &[],
            ),
            (&["null", "{}", r#"{"hostIP":null,"hostIPs":null}"#, r#"{"hostIPs":[{}]}"#], &[]),
            (&[r#"{"hostIP":"node-1"}"#, r#"{"hostIP":""}"#, r#"{"hostIP":"10.1.1.11/24"}"#], &[]),
        ] {
            assert_eq!(addresses(statuses).unwrap(), expected, "{statuses:?}");
        }
        assert!(addresses(&[r#"{"hostIP":7}"#]).is_err());
    }

    /// J1, X3: a list of Pods on more nodes than there can be is an error, and is not kept.
    #[test]
    fn more_than_so_many_are_an_error() {
        let status = |n: usize| format!(r#"{{"hostIP":"10.{}.{}.{}"}}"#, n >> 16, n >> 8 & 255, n & 255);
        let statuses: Vec<String> = (0..=MAX_NODES).map(status).collect();
        let statuses: Vec<&str> = statuses.iter().map(String::as_str).collect();
        assert_eq!(addresses(&statuses[1..]).unwrap().len(), MAX_NODES);
        assert!(addresses(&statuses).is_err());
    }
}
