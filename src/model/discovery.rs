//! Which L3Outs the nodes of the cluster are behind, by interface addresses and BGP peers below each (J1).
//!
//! What is kept is the best evidence of each L3Out for each node, so the size of the fabric costs no memory. Nothing here
//! chooses an L3Out: the answer is for people.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::dn::{self, L3outDn, ParsedDn, Prefix};
use super::mo::Mo;
use super::observed::VRF_RELATION;
use super::rules::{Cidr, Rules};

const PEER: &str = "bgpPeerP";

/// What is read: interface addresses, BGP peers, and the VRF of each L3Out.
pub const CLASSES: [&str; 7] =
    ["l3extRsPathL3OutAtt", "l3extMember", "l3extIp", "l3extVirtualLIfP", "l3extRsDynPathAtt", PEER, VRF_RELATION];

/// The most node addresses that are looked for; Kubernetes supports 5,000 nodes, each of which may have one of both families.
pub const MAX_NODES: usize = 10_000;

/// The most pairs of a node and an L3Out that are kept.
const MAX_MATCHES: usize = 100_000;

/// The most comparisons of a node with an object that covers it: ten objects cover a node of a usual fabric.
const MAX_COMPARISONS: usize = 2_000_000;

/// The attribute of a class that has the address.
pub fn address_of(class: &str) -> Option<&'static str> {
    match class {
        "l3extRsPathL3OutAtt" | "l3extMember" | "l3extIp" | "l3extVirtualLIfP" | PEER => Some("addr"),
        "l3extRsDynPathAtt" => Some("floatingAddr"),
        _ => None,
    }
}

/// How much an object says about a node, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// The node is in the subnet of an interface.
    Interface = 1,
    /// The node is in the prefix of a dynamic BGP neighbour.
    PeerPrefix = 2,
    /// The node is a BGP peer.
    Peer = 3,
}

/// Why a node is taken to be behind an L3Out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// How much it says.
    pub strength: Strength,
    /// The address of the interface or peer.
    pub prefix: Prefix,
    /// The object.
    pub dn: Arc<str>,
}

impl Evidence {
    /// A longer prefix wins over a shorter one of the same strength; of equals the first DN.
    fn rank(&self) -> (Strength, u8, Reverse<&str>) {
        (self.strength, self.prefix.length, Reverse(&self.dn))
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.strength {
            Strength::Peer => write!(f, "BGP peer {}", self.prefix.address),
            Strength::PeerPrefix => write!(f, "BGP peers {}", self.prefix),
            Strength::Interface => write!(f, "interface {}", self.prefix),
        }
    }
}

/// What the L3Outs say about the nodes.
#[derive(Debug, Default)]
pub struct Discovery {
    nodes: BTreeSet<IpAddr>,
    vrfs: BTreeMap<L3outDn, Box<str>>,
    by_node: BTreeMap<IpAddr, BTreeMap<L3outDn, Evidence>>,
    matches: usize,
    comparisons: usize,
    objects: usize,
    is_cut: bool,
}

impl Discovery {
    /// Looks for the nodes with these addresses. Special addresses, such as loopback, say nothing.
    pub fn new(nodes: impl IntoIterator<Item = IpAddr>) -> Discovery {
        let all = Rules::default();
        let nodes = nodes.into_iter().map(|it| it.to_canonical()).filter(|it| all.refuses(*it).is_none());
        Discovery { nodes: nodes.collect(), ..Discovery::default() }
    }

    /// The addresses of nodes that are looked for.
    pub fn nodes(&self) -> &BTreeSet<IpAddr> {
        &self.nodes
    }

    /// How many interfaces and peers below L3Outs were looked at.
    pub fn objects(&self) -> usize {
        self.objects
    }

    /// More pairs of a node and an L3Out match than are kept or compared, so an answer is not possible.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Whether no L3Out matches any node so far.
    pub fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    /// Takes an object of one of [`CLASSES`]. What lies outside of the L3Outs of tenants says nothing, nor do the copies below
    /// `sharedipcont`.
    pub fn add(&mut self, mo: &Mo) {
        let Some(ParsedDn::BelowL3out(l3out)) = ParsedDn::parse(&mo.dn) else { return };
        if l3out.tenant.as_str() == "infra" || dn::has_rn(&mo.dn, "sharedipcont") {
            return;
        }
        if mo.class == VRF_RELATION {
            let vrf = mo.attributes.target_dn.clone().filter(|it| !it.is_empty());
            self.vrfs.extend(vrf.map(|it| (l3out, it)));
            return;
        }
        let Some(address) = mo.attributes.address.as_deref().filter(|_| address_of(&mo.class).is_some()) else {
            return;
        };
        self.objects += 1;
        let is_peer = mo.class == PEER;
        let host = || address.parse().ok().map(Prefix::host).filter(|_| is_peer);
        let Some(prefix) = address.parse().ok().or_else(host).filter(|it: &Prefix| !it.address.is_unspecified()) else {
            return;
        };
        let strength = match (is_peer, prefix == Prefix::host(prefix.address)) {
            (true, true) => Strength::Peer,
            (true, false) => Strength::PeerPrefix,
            (false, _) => Strength::Interface,
        };
        let evidence = Evidence { strength, prefix, dn: mo.dn.as_str().into() };
        let (first, last) = Cidr::around(prefix).ends();
        for node in self.nodes.range(first..=last) {
            self.comparisons += 1;
            if self.comparisons > MAX_COMPARISONS {
                self.is_cut = true;
                return;
            }
            // An interface's own address is the leaf's.
            if strength == Strength::Interface && *node == prefix.address {
                continue;
            }
            let known = self.by_node.get_mut(node).and_then(|it| it.get_mut(&l3out));
            if let Some(known) = known {
                if known.rank() < evidence.rank() {
                    *known = evidence.clone();
                }
            } else if self.matches < MAX_MATCHES {
                self.matches += 1;
                self.by_node.entry(*node).or_default().insert(l3out.clone(), evidence.clone());
            } else {
                self.is_cut = true;
            }
        }
    }

    /// What all of it comes to.
    pub fn answer(&self) -> Answer<'_> {
        let peering: BTreeSet<&L3outDn> = self
            .by_node
            .values()
            .flat_map(|it| it.iter().filter(|(_, it)| it.strength > Strength::Interface).map(|(l3out, _)| l3out))
            .collect();
        let mut by_l3out: BTreeMap<&L3outDn, Vec<(IpAddr, &Evidence)>> = BTreeMap::new();
        let mut is_ambiguous = self.is_cut;
        for (node, matches) in &self.by_node {
            let places = self.places(matches, &peering);
            is_ambiguous |= places.len() > 1;
            for (l3out, evidence) in places {
                by_l3out.entry(l3out).or_default().push((*node, evidence));
            }
        }
        let outcome = match by_l3out.len() {
            0 => Outcome::None,
            _ if is_ambiguous => Outcome::Ambiguous,
            1 => Outcome::Unique,
            _ => Outcome::Several,
        };
        let vrf = |l3out: &L3outDn| self.vrfs.get(l3out).map(|it| &**it);
        let candidate = |(l3out, nodes)| Candidate { l3out, vrf: vrf(l3out), nodes };
        let mut candidates: Vec<Candidate<'_>> = by_l3out.into_iter().map(candidate).collect();
        candidates.sort_by_key(|it| (Reverse(it.evidence()), it.l3out));
        Answer {
            outcome,
            candidates,
            unmatched: self.nodes.iter().filter(|it| !self.by_node.contains_key(it)).collect(),
        }
    }

    /// The L3Outs that one node may be behind: those with the best evidence. Within one VRF the longest prefix wins, as in a
    /// routing table; VRFs may reuse addresses. If interfaces are all there is, an L3Out that has BGP peers among the nodes
    /// wins over those that have none.
    fn places<'a>(
        &'a self,
        matches: &'a BTreeMap<L3outDn, Evidence>,
        peering: &BTreeSet<&L3outDn>,
    ) -> Vec<(&'a L3outDn, &'a Evidence)> {
        let best = matches.values().map(|it| it.strength).max();
        let mut longest: BTreeMap<Result<&str, &L3outDn>, u8> = BTreeMap::new();
        let vrf = |l3out: &'a L3outDn| self.vrfs.get(l3out).map(|it| &**it).ok_or(l3out);
        let at_best = || matches.iter().filter(|(_, it)| Some(it.strength) == best);
        for (l3out, evidence) in at_best() {
            let longest = longest.entry(vrf(l3out)).or_default();
            *longest = evidence.prefix.length.max(*longest);
        }
        let is_longest = |l3out, it: &Evidence| longest.get(&vrf(l3out)) == Some(&it.prefix.length);
        let mut places: Vec<_> = at_best().filter(|(l3out, it)| is_longest(l3out, it)).collect();
        if best == Some(Strength::Interface) && places.iter().any(|(l3out, _)| peering.contains(l3out)) {
            places.retain(|(l3out, _)| peering.contains(l3out));
        }
        places
    }
}

/// What a discovery comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All nodes that match are behind one L3Out.
    Unique,
    /// Nodes are behind different L3Outs, each behind one.
    Several,
    /// A node may be behind more than one L3Out.
    Ambiguous,
    /// No node is behind any L3Out.
    None,
}

impl Outcome {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Unique => "unique",
            Outcome::Several => "several",
            Outcome::Ambiguous => "ambiguous",
            Outcome::None => "none",
        }
    }
}

/// The answer with its evidence.
#[derive(Debug)]
pub struct Answer<'a> {
    /// What it comes to.
    pub outcome: Outcome,
    /// The L3Outs that nodes are or may be behind, those with the best evidence first.
    pub candidates: Vec<Candidate<'a>>,
    /// The addresses of nodes that are behind no L3Out.
    pub unmatched: Vec<&'a IpAddr>,
}

/// An L3Out that nodes are or may be behind.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The L3Out.
    pub l3out: &'a L3outDn,
    /// Its VRF, if that is known.
    pub vrf: Option<&'a str>,
    /// The nodes, each with the best evidence.
    pub nodes: Vec<(IpAddr, &'a Evidence)>,
}

impl Candidate<'_> {
    /// How many nodes it has at each strength, the highest first.
    pub fn evidence(&self) -> [usize; 3] {
        [Strength::Peer, Strength::PeerPrefix, Strength::Interface]
            .map(|strength| self.nodes.iter().filter(|(_, it)| it.strength == strength).count())
    }
}
