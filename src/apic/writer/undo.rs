//! What takes back a request: POSTs that bring back what was there before (T8). Nothing here is sent; `plan -o apic` prints
//! it.
//!
//! Requests build on each other, as in a move: first the subnet leaves one EPG, then it enters another. So the undo of
//! each brings back what was there right before it, and all of them are for posting in the reverse order.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::body::Body;
use super::request::WriteRequest;
use crate::model::dn;
use crate::model::observed::{EPG, SUBNET};

/// What an answer names beside the configuration: the place of the object, and what happened to it.
const NOT_CONFIGURED: [&str; 4] = ["dn", "rn", "status", "childAction"];

/// A POST that takes back a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undo {
    /// The object that it is sent to.
    pub dn: String,
    /// What is posted.
    pub body: Body,
}

/// What takes back these requests, in the order in which it is to be posted. `read` reads an object by its DN, with its
/// configurable attributes and all that is below it; nothing if it is not there.
pub fn undo<E>(
    requests: &[WriteRequest],
    mut read: impl FnMut(&str) -> Result<Option<Body>, E>,
) -> Result<Vec<Undo>, E> {
    let mut fabric: BTreeMap<String, Option<Body>> = BTreeMap::new();
    let mut undos = Vec::new();
    for request in requests {
        let root =
            request.body().map_or_else(|| request.dn().to_owned(), |body| format!("{}/{}", request.dn(), body.rn()));
        let before = match fabric.remove(&root) {
            Some(known) => known,
            None => read(&root)?,
        };
        let (undo, after) = match request.body() {
            Some(body) => (body.undo(before.as_ref()), body.applied_to(before)),
            None => (before, None),
        };
        undos.extend(undo.map(|body| Undo { dn: dn::parent(&root).to_owned(), body }));
        fabric.insert(root, after);
    }
    undos.reverse();
    Ok(undos)
}

impl Body {
    /// The configuration of an object that was read, as it can be posted.
    pub fn configured(mut self) -> Body {
        self.inner.attributes.retain(|name, _| !NOT_CONFIGURED.contains(&&**name));
        self.inner.children = self.inner.children.into_iter().map(Body::configured).collect();
        self
    }

    /// The attribute that names an object of a class that aci-sync writes.
    fn naming(&self) -> &'static str {
        match &*self.class {
            EPG => "name",
            SUBNET => "ip",
            _ => "key",
        }
    }

    fn get(&self, attribute: &str) -> &str {
        self.inner.attributes.get(attribute).map_or("", String::as_str)
    }

    fn rn(&self) -> String {
        let name = self.get(self.naming());
        match &*self.class {
            EPG => format!("instP-{name}"),
            SUBNET => format!("extsubnet-[{name}]"),
            _ => format!("annotationKey-[{name}]"),
        }
    }

    /// An object of the same class and name, without anything else.
    fn bare(&self) -> Body {
        let body = Body { class: self.class.clone(), inner: super::body::Inner::default() };
        body.with(self.naming(), self.get(self.naming()))
    }

    fn is_same(&self, other: &Body) -> bool {
        self.class == other.class && self.get(self.naming()) == other.get(self.naming())
    }

    /// The attributes that it sets.
    fn set(&self) -> impl Iterator<Item = (&Cow<'static, str>, &String)> {
        self.inner.attributes.iter().filter(|(name, _)| *name != "status" && *name != self.naming())
    }

    /// What takes back this part of a request; nothing if there is nothing to take back.
    fn undo(&self, before: Option<&Body>) -> Option<Body> {
        let Some(before) = before else {
            return (self.get("status") != "deleted").then(|| self.bare().with("status", "deleted"));
        };
        if self.get("status") == "deleted" {
            return Some(before.clone());
        }
        let mut undo = self.bare();
        undo.inner.attributes.extend(self.set().map(|(name, _)| (name.clone(), before.get(name).to_owned())));
        let children = &before.inner.children;
        let below = |child: &Body| child.undo(children.iter().find(|it| it.is_same(child)));
        Some(undo.with_children(self.inner.children.iter().filter_map(below)))
    }

    /// What is there after this part of a request.
    fn applied_to(&self, before: Option<Body>) -> Option<Body> {
        if self.get("status") == "deleted" {
            return None;
        }
        let mut after = before.unwrap_or_else(|| self.bare());
        after.inner.attributes.extend(self.set().map(|(name, value)| (name.clone(), value.clone())));
        for child in &self.inner.children {
            let children = &mut after.inner.children;
            let known = children.iter().position(|it| it.is_same(child)).map(|at| children.swap_remove(at));
            children.extend(child.applied_to(known));
        }
        Some(after)
    }
}
