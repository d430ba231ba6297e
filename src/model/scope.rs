//! The `scope` of a subnet: a set of flags that says what the subnet is for.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The flag that classifies traffic into the EPG.
pub const IMPORT_SECURITY: &str = "import-security";

/// A subnet's `scope`, a set of flags; the APIC returns them in an order of its own (R2). It is kept as a sorted comma
/// list: every subnet has one, and nearly all are the same. Copies share the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope(Arc<str>);

impl Scope {
    /// Reads a comma list.
    pub fn parse(text: &str) -> Scope {
        Scope::of(text.split(',').map(str::trim).filter(|it| !it.is_empty()))
    }

    fn of<'a>(flags: impl Iterator<Item = &'a str>) -> Scope {
        Scope(flags.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",").into())
    }

    fn flags(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').filter(|it| !it.is_empty())
    }

    /// Whether all flags of `other` are in it.
    pub fn has(&self, other: &Scope) -> bool {
        self == other || other.flags().all(|it| self.has_flag(it))
    }

    /// Whether one flag is in it.
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags().any(|it| it == flag)
    }

    /// All flags of both.
    pub fn and(&self, other: &Scope) -> Scope {
        Scope::of(self.flags().chain(other.flags()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
