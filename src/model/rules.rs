//! What the configuration says about what is desired and what may be planned.

use std::fmt;
use std::net::IpAddr;

use super::dn::{EpgDn, L3outDn, Name, Prefix};
use super::kubernetes::Kind;
use super::scope::{IMPORT_SECURITY, Scope};

/// The configuration's part of every decision.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The kinds that are listed and watched: Pods, Services, and the workloads of `--workloads` (G1).
    pub kinds: Vec<Kind>,
    /// The L3Out of annotations that name neither a tenant nor an L3Out (`--default-l3out`, J2).
    pub default_l3out: Option<L3outDn>,
    /// What a workload exposes if its annotation does not say (`--expose`).
    pub expose: Exposed,
    /// Which addresses may be exposed at all; none given: all that P6 does not exclude (`--addresses`).
    pub addresses: Vec<Cidr>,
    /// Which namespaces may name which EPGs; none given: all, except in the fabric's own tenants (`--allow`, W6).
    pub allow: Vec<Allow>,
    /// A foreign EPG may be used (`--foreign-epg`, W6).
    pub use_foreign: bool,
    /// The flags that a subnet of ours always has (`--subnet-scope`).
    pub scope: Scope,
    /// An EPG that is not desired stays, empty, if it has contract relations (`--keep-contracted`).
    pub keep_contracted: bool,
    /// An owned EPG that another writer deleted gets its contract relations back (`--restore-contracts`, R7).
    pub restore_contracts: bool,
    /// The most objects in one request (`--batch`).
    pub batch: usize,
    /// How much one full sync may delete (`--max-deletes`, W4).
    pub max_deletes: MaxDeletes,
    /// The most EPGs that one namespace may have; nothing without a limit (`--max-epgs`, W6).
    pub max_epgs: Option<usize>,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            kinds: Kind::DEFAULT.into(),
            default_l3out: None,
            expose: Exposed { pods: true, services: true },
            addresses: Vec::new(),
            allow: Vec::new(),
            use_foreign: true,
            scope: Scope::parse(IMPORT_SECURITY),
            keep_contracted: false,
            restore_contracts: false,
            batch: 500,
            max_deletes: MaxDeletes::Percent(30),
            max_epgs: Some(100),
        }
    }
}

impl Rules {
    /// W6: whether a workload of this namespace may name this EPG. The tenants `infra` and `mgmt` belong to the fabric
    /// itself, so they need a rule that names them.
    pub fn admits(&self, namespace: &str, epg: &EpgDn) -> bool {
        if self.allow.is_empty() {
            return !matches!(epg.l3out.tenant.as_str(), "infra" | "mgmt");
        }
        self.allow.iter().any(|it| it.admits(namespace, epg))
    }

    /// The rule that admits it, as it was given; nothing without rules.
    pub(super) fn admitted_by(&self, namespace: &str, epg: &EpgDn) -> Option<String> {
        self.allow.iter().find(|it| it.admits(namespace, epg)).map(|it| it.to_string())
    }

    /// P6: why an address is never exposed. Special addresses belong to no Pod and no Service, whatever their status says: as
    /// a subnet they would classify the traffic of others.
    pub fn refuses(&self, address: IpAddr) -> Option<&'static str> {
        let address = address.to_canonical();
        let (link_local, broadcast) = match address {
            IpAddr::V4(it) => (it.is_link_local(), it.is_broadcast()),
            IpAddr::V6(it) => (it.is_unicast_link_local(), false),
        };
        match address {
            _ if address.is_unspecified() => Some("unspecified"),
            _ if address.is_loopback() => Some("loopback"),
            _ if link_local => Some("link-local"),
            _ if address.is_multicast() => Some("multicast"),
            _ if broadcast => Some("broadcast"),
            _ if self.addresses.is_empty() || self.addresses.iter().any(|it| it.contains(address)) => None,
            _ => Some("not within --addresses"),
        }
    }
}

/// A block of addresses (`--addresses`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr(Prefix);

impl Cidr {
    /// Reads `ADDRESS/LENGTH`. The error is the end of a sentence.
    pub fn parse(text: &str) -> Result<Cidr, String> {
        let prefix: Prefix = text.parse().map_err(|()| "is not ADDRESS/LENGTH".to_owned())?;
        let first = Cidr::masked(prefix.address, prefix.length);
        if first != prefix.address {
            return Err(format!("has bits behind its length; the block is {first}/{}", prefix.length));
        }
        Ok(Cidr(prefix))
    }

    /// The block of a prefix, whatever its host bits.
    pub(super) fn around(prefix: Prefix) -> Cidr {
        Cidr(Prefix { address: Cidr::masked(prefix.address, prefix.length), ..prefix })
    }

    /// Whether an address is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.0.address.is_ipv4() && Cidr::masked(address, self.0.length) == self.0.address
    }

    /// The first and the last address of the block.
    pub(super) fn ends(self) -> (IpAddr, IpAddr) {
        let Cidr(Prefix { address, length }) = self;
        let hosts = |bits: u32| bits - u32::from(length);
        let last = match address {
            IpAddr::V4(it) => IpAddr::V4((it.to_bits() | !u32::MAX.checked_shl(hosts(32)).unwrap_or(0)).into()),
            IpAddr::V6(it) => IpAddr::V6((it.to_bits() | !u128::MAX.checked_shl(hosts(128)).unwrap_or(0)).into()),
        };
        (address, last)
    }

    fn masked(address: IpAddr, length: u8) -> IpAddr {
        let length = u32::from(length);
        match address {
            IpAddr::V4(it) => IpAddr::V4((it.to_bits() & u32::MAX.checked_shl(32 - length).unwrap_or(0)).into()),
            IpAddr::V6(it) => IpAddr::V6((it.to_bits() & u128::MAX.checked_shl(128 - length).unwrap_or(0)).into()),
        }
    }
}

/// Which addresses a workload exposes (D2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exposed {
    /// Those of its Pods.
    pub pods: bool,
    /// Those of the Services that select it.
    pub services: bool,
}

impl Exposed {
    /// Reads a list out of `pods` and `services`; the error is the word that is neither.
    pub fn of<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Exposed, &'a str> {
        let mut exposed = Exposed::default();
        for word in words {
            match word {
                "pods" => exposed.pods = true,
                "services" => exposed.services = true,
                other => return Err(other),
            }
        }
        Ok(exposed)
    }
}

/// `NAMESPACE=TENANT/L3OUT/EPG`, with globs in NAMESPACE and EPG; without EPG all of the L3Out's are meant (W6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    namespace: Glob,
    tenant: Name,
    l3out: Name,
    epg: Glob,
}

impl Allow {
    /// Reads a rule. The error is the end of a sentence.
    pub fn parse(text: &str) -> Result<Allow, String> {
        let shape = || "is not NAMESPACE=TENANT/L3OUT or NAMESPACE=TENANT/L3OUT/EPG".to_owned();
        let (namespace, rest) = text.split_once('=').ok_or_else(shape)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let (tenant, l3out, epg) = match parts.as_slice() {
            [tenant, l3out] => (*tenant, *l3out, "*"),
            [tenant, l3out, epg] => (*tenant, *l3out, *epg),
            _ => return Err(shape()),
        };
        Ok(Allow {
            namespace: Glob::parse(namespace).ok_or_else(shape)?,
            tenant: Name::tenant(tenant).map_err(|why| format!("has a tenant that {why}"))?,
            l3out: Name::object(l3out).map_err(|why| format!("has an L3Out that {why}"))?,
            epg: Glob::parse(epg).ok_or_else(shape)?,
        })
    }

    /// Whether a namespace can have a name that fits: such a name is a DNS label.
    pub fn can_match(&self) -> bool {
        let glob = &self.namespace.0;
        let is_label = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "-*?".contains(it);
        let literal = glob.chars().filter(|it| *it != '*').count();
        glob.chars().all(is_label) && literal <= 63 && !glob.starts_with('-') && !glob.ends_with('-')
    }

    fn admits(&self, namespace: &str, epg: &EpgDn) -> bool {
        self.tenant == epg.l3out.tenant
            && self.l3out == epg.l3out.l3out
            && self.namespace.fits(namespace)
            && self.epg.fits(epg.name.as_str())
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}/{}", self.namespace.0, self.tenant, self.l3out)?;
        if &*self.epg.0 == "*" { Ok(()) } else { write!(f, "/{}", self.epg.0) }
    }
}

/// A name in which `*` stands for any characters and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Glob(Box<str>);

impl Glob {
    fn parse(text: &str) -> Option<Glob> {
        let known = |it: u8| it.is_ascii_alphanumeric() || b"_.:-*?".contains(&it);
        ((1..=128).contains(&text.len()) && text.bytes().all(known)).then(|| Glob(text.into()))
    }

    /// Backtracks to the last star only: at most text times pattern steps, without recursion.
    fn fits(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at, mut seen, mut star) = (0, 0, None);
        while seen < text.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, seen));
                    at += 1;
                }
                Some(it) if *it == b'?' || *it == text[seen] => (at, seen) = (at + 1, seen + 1),
                _ => {
                    let Some((from, taken)) = star else { return false };
                    star = Some((from, taken + 1));
                    (at, seen) = (from + 1, taken + 1);
                }
            }
        }
        pattern[at..].iter().all(|it| *it == b'*')
    }
}

/// How much may be deleted at once (W4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxDeletes {
    /// This number of objects.
    Number(usize),
    /// This percentage of the owned objects, and never less than [`MaxDeletes::FLOOR`].
    Percent(usize),
    /// Any number.
    Off,
}

impl MaxDeletes {
    /// This many deletions are always allowed with a percentage: a small cluster must be able to change.
    pub const FLOOR: usize = 10;

    /// Whether these deletions, out of all owned objects, are too many.
    pub fn is_exceeded(self, deletions: usize, objects: usize) -> bool {
        match self {
            MaxDeletes::Number(most) => deletions > most,
            MaxDeletes::Percent(most) => deletions > MaxDeletes::FLOOR && deletions * 100 > objects * most,
            MaxDeletes::Off => false,
        }
    }
}

/// What may be sent to the fabric (W5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Everything.
    Sync,
    /// Nothing that deletes.
    UpsertOnly,
    /// Nothing.
    Observe,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Policy::Sync => "sync",
            Policy::UpsertOnly => "upsert-only",
            Policy::Observe => "observe",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P6: special addresses of both families are refused, also where `--addresses` has them; their neighbours are not.
    #[test]
    fn special_addresses_are_refused() {
        let all = Rules {
            addresses: vec![Cidr::parse("0.0.0.0/0").unwrap(), Cidr::parse("::/0").unwrap()],
            ..Rules::default()
        };
        for (address, why) in [
            ("0.0.0.0", Some("unspecified")),
            ("::", Some("unspecified")),
            ("127.0.0.1", Some("loopback")),
            ("127.255.0.9", Some("loopback")),
            ("::1", Some("loopback")),
            ("::ffff:127.0.0.1", Some("loopback")),
            ("169.254.169.254", Some("link-local")),
            ("fe80::1", Some("link-local")),
            ("febf:ffff::1", Some("link-local")),
            ("224.0.0.1", Some("multicast")),
            ("239.255.255.255", Some("multicast")),
            ("ff02::1", Some("multicast")),
            ("255.255.255.255", Some("broadcast")),
            ("126.255.255.255", None),
            ("128.0.0.0", None),
            ("169.255.0.1", None),
            ("223.255.255.255", None),
            ("::2", None),
            ("fec0::1", None),
            ("fd00::1", None),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(Rules::default().refuses(address), why, "{address}");
            assert_eq!(all.refuses(address), why, "{address}");
        }
    }

    /// P6: `--addresses` limits the rest, each family by its own blocks.
    #[test]
    fn blocks_of_addresses() {
        let blocks = ["10.244.0.0/15", "192.0.2.7/32", "fd00:10::/47", "2001:db8::1/128"];
        let addresses = blocks.iter().map(|it| Cidr::parse(it).unwrap()).collect();
        let rules = Rules { addresses, ..Rules::default() };
        for (address, is_in) in [
            ("10.244.0.0", true),
            ("10.245.255.255", true),
            ("10.246.0.0", false),
            ("10.243.255.255", false),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
            ("fd00:10::1", true),
            ("fd00:10:1:ffff::", true),
            ("fd00:10:2::", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
            ("::ffff:10.244.0.9", true),
        ] {
            let refused = rules.refuses(address.parse().unwrap());
            assert_eq!(refused, (!is_in).then_some("not within --addresses"), "{address}");
        }
        let bad = |text: &str| Cidr::parse(text).unwrap_err();
        for text in
            ["", "10.0.0.1", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/+8", "fd00::/129", "fd00::/-1", "x/8", "10.0.0.0/8/8"]
        {
            assert_eq!(bad(text), "is not ADDRESS/LENGTH", "{text}");
        }
        assert_eq!(bad("10.1.0.0/8"), "has bits behind its length; the block is 10.0.0.0/8");
        assert_eq!(bad("fd00::1/64"), "has bits behind its length; the block is fd00::/64");
    }
}
