//! Pods by namespace and name. A map would hold each key twice, which is megabytes with 100,000 Pods.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use super::kubernetes::{Key, Pod};

/// Pods, one of each key.
#[derive(Debug, Default)]
pub struct Pods(HashSet<ByKey>);

impl Pods {
    /// None, and room for so many.
    pub(super) fn with_capacity(count: usize) -> Pods {
        Pods(HashSet::with_capacity(count))
    }

    /// The Pod with this key.
    pub fn get(&self, key: &Key) -> Option<&Pod> {
        self.0.get(key).map(|it| &*it.0)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Pod> {
        self.0.iter().map(|it| &*it.0)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the Pod that had the key before.
    pub(super) fn insert(&mut self, pod: Box<Pod>) -> Option<Box<Pod>> {
        self.0.replace(ByKey(pod)).map(|it| it.0)
    }

    /// Returns the Pod that had the key.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Box<Pod>> {
        self.0.take(key).map(|it| it.0)
    }
}

/// A Pod that is found by its key.
#[derive(Debug)]
struct ByKey(Box<Pod>);

impl Borrow<Key> for ByKey {
    fn borrow(&self) -> &Key {
        &self.0.key
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &ByKey) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}
