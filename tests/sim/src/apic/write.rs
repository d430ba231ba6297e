//! Writes: what a POST or DELETE means, checked like the APIC checks it. One request is one transaction.

use std::collections::BTreeSet;
use std::time::Duration;

use super::body::Node;
use super::classes::Class;
use super::dn::{self, Place};
use super::error::ApiError;
use super::rules::{Refusal, Rule};
use super::tree::{Attributes, Mo, Transaction};
use super::variants::Variants;

/// A privilege that is missing.
#[derive(Debug, Clone)]
pub struct Forbidden {
    /// The user; `None`: any user but the admin API.
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
    pub variants: &'a Variants,
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

impl Edit<'_> {
    /// Applies a posted body; returns where its root is. An empty URL leaves it to the body's `dn` where that is.
    pub fn post(&mut self, url: &str, body: &[u8]) -> Result<Place, ApiError> {
        let url = if url.is_empty() { None } else { Some(dn::place(url, self.variants)?) };
        let node = Node::parse(body, self.variants)?;
        let root = self.root(url.as_ref(), &node)?;
        self.apply(&root, &node)?;
        if self.tenants.len() > 1 && self.variants.reject_multi_tenant {
            let text = "Failed to update multiple items in a single operation - request requires distributed \
                        transaction. Please modify request to process each item individually";
            return Err(ApiError::bad(400, text));
        }
        Ok(root)
    }

    /// Deletes an object; fine if there is none.
    pub fn delete(&mut self, url: &str) -> Result<(), ApiError> {
        let place = dn::place(url, self.variants)?;
        let class = class_of(&place)?;
        self.check_privilege(&place)?;
        self.remove(&place, class)
    }

    /// The URL names the posted object itself or something above it; or there is none.
    fn root(&self, url: Option<&Place>, node: &Node) -> Result<Place, ApiError> {
        if let Some(own) = node.given("dn") {
            let wrong = || ApiError::wrong_dn(own, node.class.name);
            let place = dn::place(own, self.variants).map_err(|_| wrong())?;
            let inside = url.is_none_or(|url| place.dn == url.dn || dn::is_below(&place.dn, &url.dn));
            return if inside && place.class == node.class.name { Ok(place) } else { Err(wrong()) };
        }
        match url {
            Some(url) if url.class == node.class.name => Ok(url.clone()),
            Some(url) => self.child(url, node),
            None => Err(ApiError::wrong_dn("", node.class.name)),
        }
    }

    fn child(&self, parent: &Place, node: &Node) -> Result<Place, ApiError> {
        let above = class_of(parent)?;
        let class = node.class;
        let value = class.value_of(|name| node.get(name).map(str::to_owned));
        if !above.children.contains(&class.name) {
            let rn = node.given("rn").map_or_else(|| class.rn(&value.unwrap_or_default()), str::to_owned);
            return Err(ApiError::misplaced(&rn, &parent.dn));
        }
        if let Some(own) = node.given("dn") {
            let place = dn::place(own, self.variants).ok();
            let fits = |it: &Place| it.class == class.name && dn::split(&it.dn).is_some_and(|it| it.0 == parent.dn);
            return place.filter(fits).ok_or_else(|| ApiError::wrong_dn(own, class.name));
        }
        if let Some(rn) = node.given("rn") {
            let place = dn::place(&format!("{}/{rn}", parent.dn), self.variants)?;
            return if place.class == class.name { Ok(place) } else { Err(ApiError::bad_rn(rn)) };
        }
        let value = value.map_err(|name| ApiError::naming_missing(class.name, name))?;
        self.check_name(class, &parent.dn, &value)?;
        Ok(dn::below(&parent.dn, class, &value, self.variants))
    }

    fn check_name(&self, class: &'static Class, parent: &str, value: &str) -> Result<(), ApiError> {
        let dn = format!("{parent}/{}", class.rn(value));
        class.names(value).into_iter().try_for_each(|(name, value)| self.stored(class, &dn, name, value).map(drop))
    }

    fn apply(&mut self, place: &Place, node: &Node) -> Result<(), ApiError> {
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
            "modified" if !exists && !self.variants.modified_upserts => {
                return Err(ApiError::missing_parent(self.variants.missing_parent_code, &place.dn));
            }
            "" | "created" | "modified" | "created,modified" | "created, modified" | "modified,created" => {}
            other => return Err(ApiError::unknown_value(other, "status", class.name)),
        }
        if !exists {
            self.create(place, class)?;
        }
        self.change(place, node)?;
        for child in &node.children {
            let place = self.child(place, child)?;
            self.apply(&place, child)?;
        }
        Ok(())
    }

    fn create(&mut self, place: &Place, class: &'static Class) -> Result<(), ApiError> {
        let missing = || ApiError::missing_parent(self.variants.missing_parent_code, &place.dn);
        let (parent, rn) = dn::split(&place.dn).ok_or_else(missing)?;
        if self.tx.tree().get(parent).is_none() {
            return Err(missing());
        }
        self.check_name(class, parent, &place.value)?;
        let (parent, rn) = (parent.to_owned(), rn.to_owned());
        let mut attributes: Attributes = class.all_props().map(|it| (it.name, it.default.to_owned())).collect();
        attributes.extend(class.names(&place.value).into_iter().map(|(name, value)| (name, value.to_owned())));
        *self.sequence += 1;
        let (sequence, born, transaction) = (*self.sequence, self.now, self.number);
        self.tx.put(&place.dn, Mo { class, parent, rn, attributes, sequence, born, transaction });
        for child in class.implicit.iter().filter_map(|it| Class::named(it)).filter(|_| self.variants.implicit_children)
        {
            self.create(&dn::below(&place.dn, child, "", self.variants), child)?;
        }
        Ok(())
    }

    fn change(&mut self, place: &Place, node: &Node) -> Result<(), ApiError> {
        let class = node.class;
        for (name, value) in &node.attributes {
            if matches!(name.as_str(), "dn" | "rn" | "status" | "childAction") {
                continue;
            }
            let prop = class.prop(name).ok_or_else(|| ApiError::unknown_attribute(name, class.name, self.variants))?;
            let stored = self.stored(class, &place.dn, prop.name, value)?;
            if let Some((_, own)) = class.names(&place.value).into_iter().find(|(name, _)| *name == prop.name) {
                if stored != own {
                    // The URL is taken for the parent then.
                    return Err(ApiError::misplaced(&class.rn(&stored), &place.dn));
                }
                continue;
            }
            self.tx.set(&place.dn, prop.name, stored);
        }
        if class.name == "l3extSubnet" { self.check_subnet(place) } else { Ok(()) }
    }

    /// Flags that need something else. The texts are recorded, the code is the one that others of their kind have.
    fn check_subnet(&self, place: &Place) -> Result<(), ApiError> {
        let Some(mo) = self.tx.tree().get(&place.dn) else { return Ok(()) };
        let has = |property: &str, flag: &str| mo.get(property).split(',').any(|it| it == flag);
        if has("scope", "shared-security") && !has("scope", "import-security") {
            let text = "External subnet's shared_security scope also needs import_security.";
            return Err(ApiError::bad(1, format!("{text} Dn0={}, ", place.dn)));
        }
        let routes = has("aggregate", "import-rtctrl") || has("aggregate", "export-rtctrl");
        if routes && !matches!(mo.get("ip"), "0.0.0.0/0" | "::/0") {
            let text = "Invalid Configuration - Import/Export Subnet Aggregation Supported Only for 0.0.0.0/0 or ::/0";
            return Err(ApiError::bad(1, format!("{text} [(Dn0)] Dn0={}, ", place.dn)));
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

    fn stored(&self, class: &'static Class, dn: &str, name: &str, value: &str) -> Result<String, ApiError> {
        let rule = class.prop(name).map_or(Rule::ReadOnly, |it| it.rule);
        let rn = dn::split(dn).map_or(dn, |it| it.1);
        rule.stored(value, self.variants).map_err(|refusal| match refusal {
            // Code and text are not established.
            Refusal::ReadOnly => {
                ApiError::bad(120, format!("property {name} of {rn} is read-only, class {}", class.name))
            }
            Refusal::Unknown => ApiError::unknown_value(value, name, class.name),
            Refusal::Validation => {
                ApiError::failed_validation(name, if self.variants.validation_names_dn { dn } else { rn }, value)
            }
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
