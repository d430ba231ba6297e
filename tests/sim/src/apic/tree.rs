//! The tree of managed objects, kept flat by DN, and transactions over it: all or nothing, with a record of what
//! changed. What may change is decided in `write.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Duration;

use super::classes::Class;
use super::variants::Variants;

/// Properties by name.
pub type Attributes = BTreeMap<&'static str, String>;

/// One managed object.
#[derive(Debug, Clone)]
pub struct Mo {
    /// Its class.
    pub class: &'static Class,
    /// The DN above it.
    pub parent: String,
    /// Its own name below that.
    pub rn: String,
    /// Its properties, `dn` not among them.
    pub attributes: Attributes,
    /// Position among all that was ever made.
    pub sequence: u64,
    /// When it was made, on the simulator's clock.
    pub born: Duration,
    /// Which transaction made it.
    pub transaction: u64,
}

impl Mo {
    /// The value of a property; empty if the class has no such property.
    pub fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// What happened to one object in one transaction.
#[derive(Debug, Clone)]
pub enum Change {
    /// It was made.
    Created {
        /// Its DN.
        dn: String,
        /// As it is now.
        mo: Mo,
    },
    /// Some properties changed.
    Modified {
        /// Its DN.
        dn: String,
        /// As it is now.
        mo: Mo,
        /// The names of the changed properties.
        changed: Vec<&'static str>,
    },
    /// It went.
    Deleted {
        /// Its DN.
        dn: String,
        /// As it was.
        mo: Mo,
        /// When it went.
        at: String,
    },
}

impl Change {
    /// The DN concerned.
    pub fn dn(&self) -> &str {
        let (Change::Created { dn, .. } | Change::Modified { dn, .. } | Change::Deleted { dn, .. }) = self;
        dn
    }

    /// The object, as it is or was.
    pub fn mo(&self) -> &Mo {
        let (Change::Created { mo, .. } | Change::Modified { mo, .. } | Change::Deleted { mo, .. }) = self;
        mo
    }

    /// `modTs` in its event.
    pub fn mod_ts(&self, variants: &Variants) -> &str {
        match self {
            Change::Deleted { at, .. } if variants.deletions_have_time => at,
            change => change.mo().get("modTs"),
        }
    }
}

/// All objects by DN, and the DNs of each class.
#[derive(Debug, Default, Clone)]
pub struct Tree {
    mos: BTreeMap<String, Mo>,
    classes: HashMap<&'static str, BTreeSet<String>>,
}

impl Tree {
    /// The object there.
    pub fn get(&self, dn: &str) -> Option<&Mo> {
        self.mos.get(dn)
    }

    /// The object there, with its DN as the tree keeps it.
    pub fn entry(&self, dn: &str) -> Option<(&str, &Mo)> {
        self.mos.get_key_value(dn).map(|(dn, mo)| (dn.as_str(), mo))
    }

    /// Everything below `dn`, in order of the DN; the object itself is not among them.
    pub fn below<'a>(&'a self, dn: &str) -> impl Iterator<Item = (&'a str, &'a Mo)> + use<'a> {
        // "0" follows "/", so this is exactly what continues with a slash.
        let (from, to) = (format!("{dn}/"), format!("{dn}0"));
        let range = self.mos.range::<str, _>((Bound::Included(from.as_str()), Bound::Excluded(to.as_str())));
        range.map(|(dn, mo)| (dn.as_str(), mo))
    }

    /// All objects of a class, in order of the DN.
    pub fn of_class(&self, class: &str) -> impl Iterator<Item = (&str, &Mo)> {
        let dns = self.classes.get(class).into_iter().flatten();
        dns.filter_map(|dn| self.mos.get_key_value(dn).map(|(dn, mo)| (dn.as_str(), mo)))
    }

    /// How many objects of a class there are.
    pub fn count(&self, class: &str) -> usize {
        self.classes.get(class).map_or(0, BTreeSet::len)
    }

    fn put(&mut self, dn: &str, mo: Mo) -> Option<Mo> {
        self.classes.entry(mo.class.name).or_default().insert(dn.to_owned());
        self.mos.insert(dn.to_owned(), mo)
    }

    fn take(&mut self, dn: &str) -> Option<Mo> {
        let mo = self.mos.remove(dn)?;
        self.classes.entry(mo.class.name).or_default().remove(dn);
        Some(mo)
    }
}

/// Changes that become one, or none. Dropped without `commit`, it leaves the tree as it was.
#[derive(Debug)]
pub struct Transaction<'a> {
    tree: &'a mut Tree,
    /// The first state of each object that was touched, in order of the touching.
    before: Vec<(String, Option<Mo>)>,
    touched: HashMap<String, usize>,
}

impl<'a> Transaction<'a> {
    /// Begins.
    pub fn new(tree: &'a mut Tree) -> Transaction<'a> {
        Transaction { tree, before: Vec::new(), touched: HashMap::new() }
    }

    /// The tree as it is in the middle of this.
    pub fn tree(&self) -> &Tree {
        self.tree
    }

    /// Puts an object there.
    pub fn put(&mut self, dn: &str, mo: Mo) {
        let before = self.tree.put(dn, mo);
        self.remember(dn, before);
    }

    /// Changes one property of an object that is there.
    pub fn set(&mut self, dn: &str, name: &'static str, value: String) {
        let Some(mo) = self.tree.mos.get_mut(dn) else { return };
        if mo.get(name) == value {
            return;
        }
        let before = (!self.touched.contains_key(dn)).then(|| mo.clone());
        mo.attributes.insert(name, value);
        if before.is_some() {
            self.remember(dn, before);
        }
    }

    /// Takes an object and all that is below it away.
    pub fn remove(&mut self, dn: &str) {
        let below: Vec<String> = self.tree.below(dn).map(|(dn, _)| dn.to_owned()).collect();
        for dn in std::iter::once(dn.to_owned()).chain(below) {
            if let Some(mo) = self.tree.take(&dn) {
                self.remember(&dn, Some(mo));
            }
        }
    }

    /// The DNs touched so far.
    pub fn touched(&self) -> impl Iterator<Item = &str> {
        self.before.iter().map(|(dn, _)| dn.as_str())
    }

    /// The state of an object before this.
    pub fn before(&self, dn: &str) -> Option<&Mo> {
        match self.touched.get(dn) {
            Some(index) => self.before[*index].1.as_ref(),
            None => self.tree.get(dn),
        }
    }

    fn remember(&mut self, dn: &str, before: Option<Mo>) {
        if !self.touched.contains_key(dn) {
            self.touched.insert(dn.to_owned(), self.before.len());
            self.before.push((dn.to_owned(), before));
        }
    }

    /// Ends it. What really changed gets `modTs` and `uid`, and is reported in the order of the changes.
    pub fn commit(mut self, mod_ts: &str, uid: &str) -> Vec<Change> {
        let mut changes = Vec::new();
        for (dn, before) in std::mem::take(&mut self.before) {
            let now = self.tree.mos.get_mut(&dn);
            let changed = match (&before, &now) {
                (Some(old), Some(new)) => difference(old, new),
                _ => Vec::new(),
            };
            if before.is_some() && now.is_some() && changed.is_empty() {
                continue;
            }
            let now = now.map(|mo| {
                mo.attributes.insert("modTs", mod_ts.to_owned());
                if mo.class.prop("uid").is_some() && !uid.is_empty() {
                    mo.attributes.insert("uid", uid.to_owned());
                }
                mo.clone()
            });
            changes.extend(match (before, now) {
                (None, Some(mo)) => Some(Change::Created { dn, mo }),
                (Some(_), Some(mo)) => Some(Change::Modified { dn, mo, changed }),
                (Some(mo), None) => Some(Change::Deleted { dn, mo, at: mod_ts.to_owned() }),
                (None, None) => None,
            });
        }
        changes
    }
}

fn difference(old: &Mo, new: &Mo) -> Vec<&'static str> {
    let changed = |(name, value): (&&'static str, &String)| (old.get(name) != value).then_some(*name);
    new.attributes.iter().filter_map(changed).filter(|name| !matches!(*name, "modTs" | "uid")).collect()
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        for (dn, before) in std::mem::take(&mut self.before).into_iter().rev() {
            match before {
                Some(mo) => drop(self.tree.put(&dn, mo)),
                None => drop(self.tree.take(&dn)),
            }
        }
    }
}
