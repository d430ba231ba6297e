//! What the configuration says about what is wanted and what may be planned.

use super::dn::{EepgDn, Name};
use super::scope::{IMPORT_SECURITY, Scope};

/// The configuration's part of every decision.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What a Deployment exports whose annotation does not say (`--expose`).
    pub expose: Exports,
    /// Which namespaces may name which EEPGs; none given: all, but for the fabric's own tenants (`--allow`, W6).
    pub allow: Vec<Allow>,
    /// A foreign EEPG may be used (`--foreign-epg`, W6).
    pub use_foreign: bool,
    /// The flags that a subnet of ours always has (`--subnet-scope`).
    pub scope: Scope,
    /// An unwanted EEPG with contract relations stays, empty (`--keep-contracted`).
    pub keep_contracted: bool,
    /// The most objects in one request (`--batch`).
    pub batch: usize,
    /// How much one comparison may delete (`--max-deletes`, W4).
    pub max_deletes: MaxDeletes,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            expose: Exports { pods: true, services: true },
            allow: Vec::new(),
            use_foreign: true,
            scope: Scope::parse(IMPORT_SECURITY),
            keep_contracted: false,
            batch: 500,
            max_deletes: MaxDeletes::Percent(30),
        }
    }
}

impl Rules {
    /// W6: whether a Deployment of this namespace may name this EEPG. `infra` and `mgmt` carry the fabric's own life:
    /// only a rule that names them lets anybody in.
    pub fn admits(&self, namespace: &str, eepg: &EepgDn) -> bool {
        if self.allow.is_empty() {
            return !matches!(eepg.l3out.tenant.as_str(), "infra" | "mgmt");
        }
        self.allow.iter().any(|it| it.admits(namespace, eepg))
    }
}

/// Which addresses a Deployment exports (D2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exports {
    /// Those of its Pods.
    pub pods: bool,
    /// Those of the Services that select it.
    pub services: bool,
}

impl Exports {
    /// Reads a list out of `pods` and `services`; the error is the word that is neither.
    pub fn of<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Exports, &'a str> {
        let mut exports = Exports::default();
        for word in words {
            match word {
                "pods" => exports.pods = true,
                "services" => exports.services = true,
                other => return Err(other),
            }
        }
        Ok(exports)
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

    fn admits(&self, namespace: &str, eepg: &EepgDn) -> bool {
        self.tenant == eepg.l3out.tenant
            && self.l3out == eepg.l3out.l3out
            && self.namespace.fits(namespace)
            && self.epg.fits(eepg.epg.as_str())
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

    /// The usual walk with one mark to come back to: linear in text times pattern, without recursion.
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
    /// So many objects.
    Number(usize),
    /// So many percent of our objects, and never less than [`MaxDeletes::FLOOR`].
    Percent(usize),
    /// Any number.
    Off,
}

impl MaxDeletes {
    /// What a percentage lets through in any case: a small cluster must be able to change.
    pub const FLOOR: usize = 10;

    /// Whether so many deletions out of so many objects are too many.
    pub fn is_exceeded(self, deletions: usize, objects: usize) -> bool {
        match self {
            MaxDeletes::Number(most) => deletions > most,
            MaxDeletes::Percent(most) => deletions > MaxDeletes::FLOOR && deletions * 100 > objects * most,
            MaxDeletes::Off => false,
        }
    }
}
