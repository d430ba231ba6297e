//! Text that many objects have in common, such as the labels of a workload's Pods, is kept once for all of them.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::kubernetes::{Labels, Object};

/// The texts in use.
#[derive(Debug, Default)]
pub struct Pool {
    texts: HashSet<Arc<str>>,
    labels: HashSet<Labels>,
    /// At this size, those that are no longer in use are dropped.
    full: usize,
}

impl Pool {
    /// Makes an object share its text with the objects before it.
    pub fn share(&mut self, object: &mut Object) {
        if let Object::Pod(pod) = object {
            self.text(&mut pod.key.namespace);
            pod.owner.iter_mut().for_each(|it| self.text(it));
            match self.labels.get(&pod.labels) {
                Some(known) => pod.labels = known.clone(),
                None => drop(self.labels.insert(pod.labels.clone())),
            }
        }
        if self.texts.len() + self.labels.len() > self.full {
            self.texts.retain(|it| Arc::strong_count(it) > 1);
            self.labels.retain(Labels::is_shared);
            self.full = 2 * (self.texts.len() + self.labels.len()) + 100;
        }
    }

    fn text(&mut self, text: &mut Arc<str>) {
        match self.texts.get(text) {
            Some(known) => *text = known.clone(),
            None => drop(self.texts.insert(text.clone())),
        }
    }
}
