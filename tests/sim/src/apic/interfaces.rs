//! The class table, continued: what deploys an L3Out on leaves. Node and interface profiles, paths, floating SVIs, BGP peers.
//!
//! Source: the class catalogue of APIC 6.0(9c) and the DN forms of apic-wire (L3Outs behind a node).

use super::classes::Rn;
use super::classes::{ALIAS, ANNOTATION, Class, DESCR, NAME_64, USERDOM, class, key, rw};
use super::rules::Rule;

/// A DN or an address; the schema's own checks are not simulated.
const ANY: Rule = Rule::TagValue(512);
const ADDRESS: super::classes::Prop = rw("addr", "0.0.0.0", ANY);
const ENCAP: super::classes::Prop = rw("encap", "unknown", ANY);
const INTERFACE: super::classes::Prop =
    rw("ifInstT", "unspecified", Rule::OneOf(&["unspecified", "l3-port", "sub-interface", "ext-svi"]));

/// The classes.
pub static INTERFACES: &[Class] = &[
    class(
        "l3extLNodeP",
        "Logical Node Profile",
        Rn::Named("lnodep-", "name"),
        &["l3extRsNodeL3OutAtt", "l3extLIfP", "bgpPeerP"],
        &[key("name", NAME_64), ANNOTATION, DESCR, ALIAS, USERDOM],
    ),
    class(
        "l3extRsNodeL3OutAtt",
        "Fabric Node",
        Rn::Bracketed("rsnodeL3OutAtt-", "tDn"),
        &[],
        &[key("tDn", ANY), ANNOTATION, USERDOM, rw("rtrId", "", ANY), rw("rtrIdLoopBack", "yes", ANY)],
    ),
    class(
        "l3extLIfP",
        "Logical Interface Profile",
        Rn::Named("lifp-", "name"),
        &["l3extRsPathL3OutAtt", "l3extVirtualLIfP"],
        &[key("name", NAME_64), ANNOTATION, DESCR, ALIAS, USERDOM],
    ),
    class(
        "l3extRsPathL3OutAtt",
        "Leaf Port",
        Rn::Bracketed("rspathL3OutAtt-", "tDn"),
        &["l3extMember", "l3extIp", "bgpPeerP"],
        &[key("tDn", ANY), ANNOTATION, DESCR, USERDOM, ADDRESS, ENCAP, INTERFACE],
    ),
    class(
        "l3extMember",
        "Member Node Configuration",
        Rn::Named("mem-", "side"),
        &["l3extIp"],
        &[key("side", Rule::OneOf(&["A", "B"])), ANNOTATION, DESCR, ALIAS, USERDOM, ADDRESS],
    ),
    class(
        "l3extIp",
        "IP Address",
        Rn::Bracketed("addr-", "addr"),
        &[],
        &[key("addr", ANY), ANNOTATION, DESCR, ALIAS, USERDOM],
    ),
    class(
        "l3extVirtualLIfP",
        "Floating SVI",
        Rn::Paired("vlifp-", "nodeDn", "encap"),
        &["l3extRsDynPathAtt", "l3extMember", "l3extIp", "bgpPeerP"],
        &[key("nodeDn", ANY), key("encap", ANY), ANNOTATION, DESCR, USERDOM, ADDRESS, INTERFACE],
    ),
    class(
        "l3extRsDynPathAtt",
        "Floating Path",
        Rn::Bracketed("rsdynPathAtt-", "tDn"),
        &[],
        &[key("tDn", ANY), ANNOTATION, USERDOM, rw("floatingAddr", "0.0.0.0", ANY), ENCAP],
    ),
    class(
        "bgpPeerP",
        "BGP Peer Connectivity Profile",
        Rn::Bracketed("peerP-", "addr"),
        &["bgpAsP"],
        &[key("addr", ANY), ANNOTATION, DESCR, ALIAS, USERDOM, rw("ttl", "1", ANY)],
    ),
    class("bgpAsP", "Autonomous System Profile", Rn::Fixed("as"), &[], &[rw("asn", "0", ANY), ANNOTATION, USERDOM]),
];
