//! Checked names, and distinguished names built from them.
//!
//! Every string that reaches a DN, a URL or a filter went through a constructor here (D1). The allowed characters
//! contain none of `/ [ ] " ? & = # %`, so a DN can be put into a URL path as it is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a tenant, an L3Out or an external EPG, by the APIC's own rules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// A tenant's name: 1-63 of `[a-zA-Z0-9_.-]`. The error is a predicate, for a sentence that begins with the name.
    pub fn tenant(name: &str) -> Result<Name, String> {
        Name::checked(name, 63, "_.-")
    }

    /// The name of an L3Out or an external EPG: 1-64 of `[a-zA-Z0-9_.:-]`.
    pub fn object(name: &str) -> Result<Name, String> {
        Name::checked(name, 64, "_.:-")
    }

    fn checked(name: &str, longest: usize, punctuation: &str) -> Result<Name, String> {
        if name.is_empty() || name.len() > longest {
            return Err(format!("must have 1 to {longest} characters"));
        }
        if !name.chars().all(|it| it.is_ascii_alphanumeric() || punctuation.contains(it)) {
            return Err(format!("may have only letters, digits and {punctuation}"));
        }
        if matches!(name, "." | "..") || name.starts_with("__ui_") || name.starts_with("__int_") {
            return Err("is a name that the APIC reserves".to_owned());
        }
        Ok(Name(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An L3Out: `uni/tn-{tenant}/out-{l3out}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct L3outDn {
    /// The tenant's name.
    pub tenant: Name,
    /// The L3Out's name.
    pub l3out: Name,
}

impl L3outDn {
    /// Reads `TENANT/L3OUT`. The error is the end of a sentence.
    pub fn parse(text: &str) -> Result<L3outDn, String> {
        let (tenant, l3out) = text.split_once('/').ok_or("it is not TENANT/L3OUT")?;
        let tenant = Name::tenant(tenant).map_err(|why| format!("the tenant {why}"))?;
        let l3out = Name::object(l3out).map_err(|why| format!("the L3Out {why}"))?;
        Ok(L3outDn { tenant, l3out })
    }

    /// The DN of one of its external EPGs.
    pub fn epg(&self, name: Name) -> EpgDn {
        EpgDn { l3out: self.clone(), name }
    }

    /// The DN of a `tagAnnotation` of it.
    pub fn tag(&self, key: &str) -> String {
        format!("{self}/annotationKey-[{key}]")
    }
}

impl fmt::Display for L3outDn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uni/tn-{}/out-{}", self.tenant, self.l3out)
    }
}

/// An external EPG: `uni/tn-{tenant}/out-{l3out}/instP-{epg}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpgDn {
    /// The L3Out that it is in.
    pub l3out: L3outDn,
    /// Its own name.
    pub name: Name,
}

impl EpgDn {
    /// The DN of a subnet in it, with the address as the APIC spells it.
    pub fn subnet(&self, ip: &str) -> String {
        format!("{self}/extsubnet-[{ip}]")
    }
}

impl fmt::Display for EpgDn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/instP-{}", self.l3out, self.name)
    }
}

/// An address and a prefix length. IPv6 is shown in RFC 5952 form (P2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address; its host bits are kept as they were written.
    pub address: IpAddr,
    /// The prefix length in bits.
    pub length: u8,
}

impl Prefix {
    /// The host prefix of one address: /32 or /128.
    pub fn host(address: IpAddr) -> Self {
        Prefix { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, length) = text.split_once('/').ok_or(())?;
        let address: IpAddr = address.parse().map_err(|_| ())?;
        // Digits only: Rust would take "+32" as well, and the text gets into a URL as it is.
        if !length.bytes().all(|it| it.is_ascii_digit()) {
            return Err(());
        }
        let length: u8 = length.parse().map_err(|_| ())?;
        if length > Prefix::host(address).length {
            return Err(());
        }
        Ok(Prefix { address, length })
    }
}

/// An object that aci-sync may write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectDn {
    /// An external EPG.
    Epg(EpgDn),
    /// A subnet of an external EPG.
    Subnet(EpgDn, Prefix),
    /// The `tagAnnotation` that marks an external EPG as foreign (O4).
    Tag(EpgDn),
}

impl ObjectDn {
    /// The prefix of a subnet.
    pub fn prefix(&self) -> Option<&Prefix> {
        match self {
            ObjectDn::Subnet(_, prefix) => Some(prefix),
            ObjectDn::Epg(_) | ObjectDn::Tag(_) => None,
        }
    }

    /// The external EPG itself, that of the subnet, or the one that the tag is about.
    pub fn epg(&self) -> &EpgDn {
        match self {
            ObjectDn::Epg(epg) | ObjectDn::Subnet(epg, _) | ObjectDn::Tag(epg) => epg,
        }
    }
}

impl fmt::Display for ObjectDn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectDn::Epg(epg) => epg.fmt(f),
            ObjectDn::Subnet(epg, prefix) => f.write_str(&epg.subnet(&prefix.to_string())),
            ObjectDn::Tag(epg) => write!(f, "the tag about {epg}"),
        }
    }
}

/// A DN from the fabric, parsed into the classes that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParsedDn {
    /// The L3Out itself.
    L3out(L3outDn),
    /// An external EPG.
    Epg(EpgDn),
    /// A subnet of an external EPG, with the text between the brackets.
    Subnet(EpgDn, String),
    /// Something below an external EPG that is not a subnet.
    BelowEpg(EpgDn),
    /// A `tagAnnotation` of the L3Out, with its key.
    Tag(L3outDn, String),
    /// Something else below an L3Out.
    BelowL3out(L3outDn),
}

impl ParsedDn {
    /// The L3Out that an EPG, a subnet or a tag is in. Other objects never show that an L3Out holds something of ours (R4).
    pub fn l3out_of_owned(self) -> Option<L3outDn> {
        match self {
            ParsedDn::Epg(dn) | ParsedDn::Subnet(dn, _) => Some(dn.l3out),
            ParsedDn::Tag(dn, _) => Some(dn),
            ParsedDn::L3out(_) | ParsedDn::BelowEpg(_) | ParsedDn::BelowL3out(_) => None,
        }
    }

    /// Reads a DN. Nothing for one that lies outside every L3Out or is malformed.
    pub fn parse(dn: &str) -> Option<ParsedDn> {
        let mut rns = split_rns(dn).into_iter();
        if rns.next()? != "uni" {
            return None;
        }
        let tenant = Name::tenant(rns.next()?.strip_prefix("tn-")?).ok()?;
        let l3out = Name::object(rns.next()?.strip_prefix("out-")?).ok()?;
        let l3out = L3outDn { tenant, l3out };
        let Some(rn) = rns.next() else { return Some(ParsedDn::L3out(l3out)) };
        if let Some(key) = rn.strip_prefix("annotationKey-") {
            // Written with brackets and, by old releases and tools, without.
            let key = key.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(key);
            let is_tag = rns.next().is_none() && !key.contains(['[', ']']);
            return Some(if is_tag { ParsedDn::Tag(l3out, key.to_owned()) } else { ParsedDn::BelowL3out(l3out) });
        }
        let Some(name) = rn.strip_prefix("instP-") else { return Some(ParsedDn::BelowL3out(l3out)) };
        let epg = l3out.epg(Name::object(name).ok()?);
        let Some(rn) = rns.next() else { return Some(ParsedDn::Epg(epg)) };
        let subnet = rn.strip_prefix("extsubnet-[").and_then(|it| it.strip_suffix(']'));
        match (subnet, rns.next()) {
            (Some(ip), None) => Some(ParsedDn::Subnet(epg, ip.to_owned())),
            _ => Some(ParsedDn::BelowEpg(epg)),
        }
    }
}

/// The DN of the parent.
pub fn parent(dn: &str) -> &str {
    let rn = split_rns(dn).pop().unwrap_or_default();
    dn.strip_suffix(rn).map_or("", |it| it.trim_end_matches('/'))
}

/// Whether one of the RNs of a DN begins so.
pub(super) fn has_rn(dn: &str, beginning: &str) -> bool {
    split_rns(dn).iter().any(|it| it.starts_with(beginning))
}

/// Splits a DN into its RNs. A slash inside brackets belongs to the RN: `extsubnet-[10.0.0.1/32]`.
fn split_rns(dn: &str) -> Vec<&str> {
    let mut rns = Vec::new();
    let (mut start, mut depth) = (0, 0usize);
    for (at, byte) in dn.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b'/' if depth == 0 => {
                rns.push(&dn[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    rns.push(&dn[start..]);
    rns
}
