//! Writes: what a POST or DELETE means, checked like the APIC checks it. One request is one transaction.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::classes::{Class, Rn};
use super::dn::{self, Place};
use super::error::ApiError;
use super::quirks::Quirks;
use super::rules::{Refusal, Rule};
use super::tree::{Attributes, Mo, Transaction};

/// A privilege that is missing.
#[derive(Debug, Clone)]
pub struct Forbidden {
    /// The user; `None`: everybody but the side door.
    pub user: Option<String>,
    /// What is at or below this DN.
    pub dn: String,
    /// Only objects of this class; `None`: all.
    pub class: Option<String>,
}

/// One request that writes.
pub struct Edit<'a> {
    /// What becomes of it.
    pub tx: Transaction<'a>,
    /// The switches.
    pub quirks: &'a Quirks,
    /// Now, on the simulator's clock.
    pub now: Duration,
    /// The number of this transaction.
    pub number: u64,
    /// The last position that an object got.
    pub sequence: &'a mut u64,
    /// Whose request it is; empty for the fabric itself.
    pub user: &'a str,
    /// Missing privileges.
    pub forbidden: &'a [Forbidden],
    /// The tenants concerned.
    pub tenants: BTreeSet<String>,
}

/// A node of a posted body, its wrappers taken off.
struct Node<'j> {
    class: &'static Class,
    attributes: Vec<(&'j str, &'j str)>,
    children: &'j [Value],
}

impl<'j> Node<'j> {
    fn new(value: &'j Value) -> Result<Node<'j>, ApiError> {
        let object = value.as_object().filter(|it| it.len() == 1).ok_or_else(ApiError::incomplete)?;
        let (class, inner) = object.iter().next().ok_or_else(ApiError::incomplete)?;
        let class = Class::named(class).ok_or_else(|| ApiError::unknown_class(class))?;
        let inner = inner.as_object().ok_or_else(ApiError::incomplete)?;
        if inner.keys().any(|it| it != "attributes" && it != "children") {
            return Err(ApiError::incomplete());
        }
        let mut attributes = Vec::new();
        if let Some(object) = inner.get("attributes") {
            for (name, value) in object.as_object().ok_or_else(ApiError::incomplete)? {
                // Numbers and booleans are no values of a property: strings only.
                attributes.push((name.as_str(), value.as_str().ok_or_else(ApiError::incomplete)?));
            }
        }
        let none: &[Value] = &[];
        let children = match inner.get("children") {
            Some(list) => list.as_array().ok_or_else(ApiError::incomplete)?.as_slice(),
            None => none,
        };
        Ok(Node { class, attributes, children })
    }

    fn get(&self, name: &str) -> Option<&'j str> {
        self.attributes.iter().find(|(it, _)| *it == name).map(|(_, value)| *value)
    }
}

impl Edit<'_> {
    /// Applies a posted body; returns where its root is.
    pub fn post(&mut self, url: &str, body: &[u8]) -> Result<Place, ApiError> {
        let url = dn::place(url, self.quirks)?;
        let body: Value =
            serde_json::from_slice(body).map_err(|_| ApiError::bad(400, "Invalid JSON: incomplete node at line 1"))?;
        let node = Node::new(&body)?;
        let root = self.root(&url, &node)?;
        self.apply(&root, &node)?;
        if self.tenants.len() > 1 && self.quirks.reject_multi_tenant {
            let text = "Failed to update multiple items in a single operation - request requires distributed \
                        transaction. Please modify request to process each item individually";
            return Err(ApiError::bad(400, text));
        }
        Ok(root)
    }

    /// Deletes an object; fine where there is none.
    pub fn delete(&mut self, url: &str) -> Result<(), ApiError> {
        let place = dn::place(url, self.quirks)?;
        let class = class_of(&place)?;
        self.check_privilege(&place)?;
        self.remove(&place, class)
    }

    /// The URL names the posted object itself or its parent.
    fn root(&self, url: &Place, node: &Node<'_>) -> Result<Place, ApiError> {
        if let Some(own) = node.get("dn").filter(|it| !it.is_empty()) {
            let place = dn::place(own, self.quirks)?;
            let inside = place.dn == url.dn || place.dn.starts_with(&format!("{}/", url.dn));
            let fits = inside && place.class == node.class.name;
            return if fits { Ok(place) } else { Err(ApiError::bad_dn(own, own, 0)) };
        }
        if url.class == node.class.name { Ok(url.clone()) } else { self.child(url, node) }
    }

    fn child(&self, parent: &Place, node: &Node<'_>) -> Result<Place, ApiError> {
        let above = class_of(parent)?;
        if !above.children.contains(&node.class.name) {
            return Err(ApiError::misplaced(node.class.name, above.name));
        }
        let named = node.get("dn").filter(|it| !it.is_empty()).map(str::to_owned);
        let relative = node.get("rn").filter(|it| !it.is_empty()).map(|rn| format!("{}/{rn}", parent.dn));
        if let Some(own) = named.or(relative) {
            let place = dn::place(&own, self.quirks)?;
            let fits = place.class == node.class.name && dn::split(&place.dn).is_some_and(|it| it.0 == parent.dn);
            return if fits { Ok(place) } else { Err(ApiError::bad_dn(&own, &own, 0)) };
        }
        let value = match node.class.rn {
            Rn::Fixed(_) => "",
            Rn::Named(_, name) | Rn::Bracketed(_, name) => node.get(name).ok_or_else(|| {
                ApiError::bad(121, format!("Required naming property {name} of {} is missing", node.class.name))
            })?,
        };
        self.check_name(node.class, value)?;
        Ok(dn::below(&parent.dn, node.class, value, self.quirks))
    }

    fn check_name(&self, class: &'static Class, value: &str) -> Result<(), ApiError> {
        match class.naming() {
            Some(name) => self.stored(class, &class.rn(value), name, value).map(drop),
            None => Ok(()),
        }
    }

    fn apply(&mut self, place: &Place, node: &Node<'_>) -> Result<(), ApiError> {
        let class = node.class;
        self.check_privilege(place)?;
        self.tenants.extend(dn::tenant(&place.dn));
        let status = node.get("status").unwrap_or("");
        let exists = self.tx.tree().get(&place.dn).is_some();
        match status {
            // What is given below a deleted object is of no interest.
            "deleted" => return self.remove(place, class),
            // With a space it counts as `created`.
            "created" | "created, modified" if exists => {
                return Err(ApiError::exists(class.label, class.name, &place.dn));
            }
            "modified" if !exists && !self.quirks.modified_upserts => {
                return Err(ApiError::missing_parent(self.quirks.missing_parent_code, &place.dn));
            }
            "" | "created" | "modified" | "created,modified" | "created, modified" | "modified,created" => {}
            other => return Err(ApiError::unknown_value(other, "status", class.name)),
        }
        if !exists {
            self.create(place, class)?;
        }
        self.change(place, node)?;
        for child in node.children {
            let child = Node::new(child)?;
            let place = self.child(place, &child)?;
            self.apply(&place, &child)?;
        }
        Ok(())
    }

    fn create(&mut self, place: &Place, class: &'static Class) -> Result<(), ApiError> {
        let missing = || ApiError::missing_parent(self.quirks.missing_parent_code, &place.dn);
        let (parent, rn) = dn::split(&place.dn).ok_or_else(missing)?;
        if self.tx.tree().get(parent).is_none() {
            return Err(missing());
        }
        self.check_name(class, &place.value)?;
        let (parent, rn) = (parent.to_owned(), rn.to_owned());
        let mut attributes: Attributes = class.all_props().map(|it| (it.name, it.default.to_owned())).collect();
        if let Some(name) = class.naming() {
            attributes.insert(name, place.value.clone());
        }
        *self.sequence += 1;
        let (sequence, born, transaction) = (*self.sequence, self.now, self.number);
        self.tx.put(&place.dn, Mo { class, parent, rn, attributes, sequence, born, transaction });
        for child in class.implicit.iter().filter_map(|it| Class::named(it)).filter(|_| self.quirks.implicit_children) {
            self.create(&dn::below(&place.dn, child, "", self.quirks), child)?;
        }
        Ok(())
    }

    fn change(&mut self, place: &Place, node: &Node<'_>) -> Result<(), ApiError> {
        let class = node.class;
        let rn = dn::split(&place.dn).map_or("", |it| it.1);
        for (name, value) in &node.attributes {
            if matches!(*name, "dn" | "rn" | "status" | "childAction") {
                continue;
            }
            let Some(prop) = class.prop(name) else {
                let text = format!("unknown property {name}, class {} [(Dn0)] Dn0=, ", class.name);
                return Err(ApiError::bad(self.quirks.unknown_property_code, text));
            };
            let stored = self.stored(class, rn, prop.name, value)?;
            if class.naming() == Some(prop.name) {
                if stored != place.value {
                    return Err(ApiError::bad_dn(&place.dn, rn, dn::rns(&place.dn).map_or(0, |it| it.len() - 1)));
                }
                continue;
            }
            self.tx.set(&place.dn, prop.name, stored);
        }
        if class.name == "l3extSubnet" { self.check_subnet(place) } else { Ok(()) }
    }

    /// Flags that need others. The codes are not established.
    fn check_subnet(&self, place: &Place) -> Result<(), ApiError> {
        let Some(mo) = self.tx.tree().get(&place.dn) else { return Ok(()) };
        let has = |property: &str, flag: &str| mo.get(property).split(',').any(|it| it == flag);
        let refuse = |what: &str| {
            Err(ApiError::bad(
                121,
                format!("Invalid Configuration - {what}: {} [(Dn0)] Dn0={}, ", mo.get("scope"), place.dn),
            ))
        };
        if has("scope", "shared-security") && !has("scope", "import-security") {
            return refuse("scope shared-security needs import-security");
        }
        for flag in mo.get("aggregate").split(',').filter(|it| !it.is_empty()) {
            if !has("scope", flag) {
                return refuse("aggregate needs the same flag in scope");
            }
        }
        Ok(())
    }

    fn remove(&mut self, place: &Place, class: &'static Class) -> Result<(), ApiError> {
        if self.tx.tree().get(&place.dn).is_none() {
            return Ok(());
        }
        if class.permanent {
            return Err(ApiError::permanent(class.label, class.name, &place.dn));
        }
        self.tenants.extend(dn::tenant(&place.dn));
        self.tx.remove(&place.dn);
        Ok(())
    }

    fn stored(&self, class: &'static Class, rn: &str, name: &str, value: &str) -> Result<String, ApiError> {
        let rule = class.prop(name).map_or(Rule::ReadOnly, |it| it.rule);
        rule.stored(value, self.quirks).map_err(|refusal| match refusal {
            Refusal::ReadOnly => ApiError::bad(
                self.quirks.unknown_property_code,
                format!("property {name} of {rn} is read-only, class {}", class.name),
            ),
            Refusal::Unknown => ApiError::unknown_value(value, name, class.name),
            Refusal::Validation => ApiError::failed_validation(name, rn, value),
        })
    }

    fn check_privilege(&self, place: &Place) -> Result<(), ApiError> {
        let covers = |it: &Forbidden| {
            let user = it.user.as_ref().is_none_or(|it| it == self.user);
            let inside = place.dn == it.dn || place.dn.starts_with(&format!("{}/", it.dn));
            user && inside && it.class.as_ref().is_none_or(|it| it == place.class)
        };
        if self.user.is_empty() || !self.forbidden.iter().any(covers) {
            return Ok(());
        }
        let text = format!(
            "User {} does not have domain access to config Mo, class {}, Dn0={}",
            self.user, place.class, place.dn
        );
        Err(ApiError::new(403, 403, text))
    }
}

fn class_of(place: &Place) -> Result<&'static Class, ApiError> {
    Class::named(place.class).ok_or_else(|| ApiError::unknown_class(place.class))
}
