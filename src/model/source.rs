//! The Pod or Service that an address comes from, and the `name` that a subnet gets from it (O1, S4).

use std::fmt;

use super::kubernetes::{Key, Kind};

/// The longest `name` of a subnet, in characters (O1).
pub(super) const MAX_NAME: usize = 63;

/// The Pod or Service that an address comes from. The order is S4's: a Service before a Pod, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Pods come after Services.
    pub is_pod: bool,
    /// Namespace and name.
    pub key: Key,
}

impl Source {
    /// A Pod.
    pub(super) fn pod(key: &Key) -> Source {
        Source { is_pod: true, key: key.clone() }
    }

    /// A Service.
    pub(super) fn service(key: &Key) -> Source {
        Source { is_pod: false, key: key.clone() }
    }

    /// The `name` of a subnet for its address: `{namespace}::{pod or service}`, cut at 63 characters (O1).
    pub fn subnet_name(&self) -> String {
        format!("{}::{}", self.key.namespace, self.key.name).chars().take(MAX_NAME).collect()
    }

    /// Whether a subnet of this name is for it. Each reconcile asks this for each subnet of each EPG, so the name is not
    /// built for the comparison.
    ///
    /// An owned subnet with an address that this Pod or Service has now, and with its name, was created for it: the
    /// address no longer belongs to another one, and the name never did (D5). No memory is needed for that (R6).
    pub fn is_named(&self, name: &str) -> bool {
        let Key { namespace, name: own } = &self.key;
        match name.strip_prefix(&**namespace).and_then(|it| it.strip_prefix("::")) {
            Some(rest) if name.len() < MAX_NAME => *rest == **own,
            _ => *name == self.subnet_name(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.is_pod { Kind::Pod } else { Kind::Service }, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// O1: names are cut at 63 characters, also between letters of several bytes, and recognized again.
    #[test]
    fn names_are_cut_by_characters() {
        for (name, cut) in [
            ("x".repeat(60), format!("a::{}", "x".repeat(60))),
            ("x".repeat(61), format!("a::{}", "x".repeat(60))),
            (format!("{}\u{e9}y", "x".repeat(59)), format!("a::{}\u{e9}", "x".repeat(59))),
            (format!("{}\u{1f600}yz", "x".repeat(58)), format!("a::{}\u{1f600}y", "x".repeat(58))),
        ] {
            let source = Source::pod(&Key::new("a", &name));
            assert_eq!(source.subnet_name(), cut);
            let shorter: String = cut.chars().skip(1).collect();
            assert!(source.is_named(&cut) && !source.is_named(&shorter) && !source.is_named(""));
        }
    }
}
