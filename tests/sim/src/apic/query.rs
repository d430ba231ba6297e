//! Reads: what a path and its parameters select, and how the answer is written.

use std::collections::BTreeMap;

use super::classes::{Class, Prop};
use super::dn::is_below;
use super::error::ApiError;
use super::filter::Filter;
use super::rules::Rule;
use super::tree::{Mo, Tree};
use super::variants::Variants;
use super::{dn, json};

/// Where a query begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// One object.
    Object(String),
    /// All objects of a class; below a DN if there is one.
    Class {
        /// The class.
        class: String,
        /// The DN that they are below.
        below: Option<String>,
    },
}

impl Scope {
    /// Whether it is a class anywhere.
    fn is_fabric(&self) -> bool {
        matches!(self, Scope::Class { below: None, .. })
    }
}

/// How far a query or its answer reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The objects themselves.
    Own,
    /// Their children.
    Children,
    /// They and all that is below them.
    Subtree,
}

/// Which properties an answer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    All,
    Configured,
    Naming,
}

/// A query, understood.
#[derive(Debug, Clone)]
pub struct Query {
    /// Where it begins.
    pub scope: Scope,
    target: Reach,
    target_classes: Vec<String>,
    filter: Option<Filter>,
    subtree: Reach,
    subtree_classes: Vec<String>,
    subtree_filter: Option<Filter>,
    required: bool,
    shown: Shown,
    order: Vec<(String, bool)>,
    page: Option<(usize, usize)>,
    /// `subscription=yes` (or `no`).
    pub subscription: Option<bool>,
    /// `refresh-timeout` in seconds.
    pub refresh_timeout: Option<u64>,
}

impl Query {
    /// Understands the parameters of a request for `scope`.
    pub fn new(scope: Scope, parameters: &[(String, String)], variants: &Variants) -> Result<Query, ApiError> {
        let mut query = Query {
            scope,
            target: Reach::Own,
            target_classes: Vec::new(),
            filter: None,
            subtree: Reach::Own,
            subtree_classes: Vec::new(),
            subtree_filter: None,
            required: false,
            shown: Shown::All,
            order: Vec::new(),
            page: None,
            subscription: None,
            refresh_timeout: None,
        };
        let (mut page, mut page_size) = (None, None);
        for (name, value) in parameters {
            let invalid = || ApiError::bad(400, format!("Invalid value {value} of query parameter {name}"));
            match name.as_str() {
                "query-target" => query.target = reach(value, "self").ok_or_else(invalid)?,
                "target-subtree-class" => query.target_classes = classes(value)?,
                "query-target-filter" => query.filter = Some(Filter::parse(value, variants)?),
                "rsp-subtree" => query.subtree = reach(value, "no").ok_or_else(invalid)?,
                "rsp-subtree-class" => query.subtree_classes = classes(value)?,
                "rsp-subtree-filter" => query.subtree_filter = Some(Filter::parse(value, variants)?),
                "rsp-subtree-include" => query.required = value.split(',').any(|it| it == "required"),
                "rsp-prop-include" => {
                    query.shown = match value.as_str() {
                        "all" => Shown::All,
                        "config-only" => Shown::Configured,
                        "naming-only" => Shown::Naming,
                        _ => return Err(invalid()),
                    }
                }
                "order-by" => query.order = value.split(',').map(order).collect::<Option<_>>().ok_or_else(invalid)?,
                "page" => page = Some(value.parse().map_err(|_| invalid())?),
                "page-size" => page_size = Some(value.parse().ok().filter(|it| *it > 0).ok_or_else(invalid)?),
                "subscription" => query.subscription = Some(yes_or_no(value).ok_or_else(invalid)?),
                "refresh-timeout" if variants.refresh_timeout_known => {
                    query.refresh_timeout = Some(value.parse().ok().filter(|it| *it > 0).ok_or_else(invalid)?);
                }
                // Browsers add it against caches.
                "_dc" => {}
                _ => return Err(ApiError::bad(400, format!("Invalid query parameter {name}"))),
            }
        }
        if page.is_some() || page_size.is_some() {
            let size = page_size.unwrap_or(100).min(variants.page_cap.unwrap_or(usize::MAX));
            query.page = Some((page.unwrap_or(0), size));
        }
        // A class scope needs a class, and the words of a DN are checked before anything is looked up.
        if let Scope::Class { class, .. } = &query.scope
            && !Class::is_known(class)
        {
            return Err(ApiError::bad(400, format!("Request failed, unresolved class for {class}")));
        }
        Ok(query)
    }

    /// Runs it: how many objects there are in all, and the JSON of those of this page, separated by commas.
    pub fn run(&self, tree: &Tree, variants: &Variants) -> Result<(usize, String), ApiError> {
        if variants.visible_tenants.is_some() && variants.class_queries_refused && self.scope.is_fabric() {
            return Err(ApiError::new(403, 403, "User does not have domain access to all objects of the class"));
        }
        let mut found = self.select(tree);
        found.retain(|(dn, _)| variants.shows(dn));
        found.retain(|(dn, mo)| self.filter.as_ref().is_none_or(|it| it.matches(dn, mo)));
        if self.required && self.subtree != Reach::Own {
            found.retain(|(dn, _)| tree.below(dn).any(|(child, mo)| self.shows_below(child, mo)));
        }
        for (property, ascending) in self.order.iter().rev() {
            // What is equal stays in the order of the properties that follow.
            found.sort_by(|a, b| {
                let order = ordering(a, property).cmp(ordering(b, property));
                if *ascending { order } else { order.reverse() }
            });
        }
        let total = found.len();
        if let Some((page, size)) = self.page {
            let shift = if page == 0 { 0 } else { variants.pages_shift };
            let from = page.saturating_mul(size).saturating_add_signed(-shift).min(total);
            found = found[from..from.saturating_add(size).min(total)].to_vec();
        }
        let mut out = String::with_capacity(found.len() * 600);
        let mut count = found.len();
        for (dn, mo) in found {
            if !out.is_empty() {
                out.push(',');
            }
            count += self.write_root(&mut out, tree, dn, mo, variants);
        }
        if count > variants.result_limit {
            return Err(ApiError::bad(400, "Unable to process the query, result dataset is too big"));
        }
        Ok((total, out))
    }

    /// Whether a change of this object is news for a subscription of this query.
    pub fn watches(&self, dn: &str, mo: &Mo) -> bool {
        let in_reach = match (&self.scope, self.target) {
            (Scope::Object(root), Reach::Own) => dn == root,
            (Scope::Object(root), Reach::Children) => mo.parent == *root,
            (Scope::Object(root), Reach::Subtree) => dn == root || is_below(dn, root),
            (Scope::Class { class, below }, reach) => {
                let inside = below.as_ref().is_none_or(|root| is_below(dn, root));
                inside
                    && match reach {
                        Reach::Own => mo.class.name == class,
                        Reach::Children => class_of(&mo.parent) == Some(class),
                        Reach::Subtree => mo.class.name == class || ancestors(dn).any(|it| class_of(it) == Some(class)),
                    }
            }
        };
        let desired = self.target_classes.is_empty() || self.target_classes.iter().any(|it| it == mo.class.name);
        in_reach && desired && self.filter.as_ref().is_none_or(|it| it.matches(dn, mo))
    }

    fn select<'a>(&self, tree: &'a Tree) -> Vec<(&'a str, &'a Mo)> {
        let roots: Vec<(&str, &Mo)> = match &self.scope {
            Scope::Object(dn) => tree.entry(dn).into_iter().collect(),
            Scope::Class { class, below } => {
                tree.of_class(class).filter(|(dn, _)| below.as_ref().is_none_or(|root| is_below(dn, root))).collect()
            }
        };
        let mut found = BTreeMap::new();
        for (dn, mo) in roots {
            match self.target {
                Reach::Own => drop(found.insert(dn, mo)),
                Reach::Children => found.extend(tree.below(dn).filter(|(_, child)| child.parent == dn)),
                Reach::Subtree => {
                    found.insert(dn, mo);
                    found.extend(tree.below(dn));
                }
            }
        }
        found
            .retain(|_, mo| self.target_classes.is_empty() || self.target_classes.iter().any(|it| it == mo.class.name));
        found.into_iter().collect()
    }

    fn shows_below(&self, dn: &str, mo: &Mo) -> bool {
        let class = self.subtree_classes.is_empty() || self.subtree_classes.iter().any(|it| it == mo.class.name);
        class && self.subtree_filter.as_ref().is_none_or(|it| it.matches(dn, mo))
    }

    /// Writes an object of the top level with what the answer shows below it; returns how many objects that was.
    fn write_root(&self, out: &mut String, tree: &Tree, dn: &str, mo: &Mo, variants: &Variants) -> usize {
        let mut children: BTreeMap<&str, Vec<(&str, &Mo)>> = BTreeMap::new();
        let mut count = 0;
        if self.subtree != Reach::Own {
            let in_reach = |it: &(&str, &Mo)| self.subtree == Reach::Subtree || it.1.parent == dn;
            for (child, mo) in tree.below(dn).filter(in_reach) {
                // With a class list the objects between the root and those asked for are containers.
                let holds = || tree.below(child).any(|(dn, mo)| self.shows_below(dn, mo));
                let container = variants.containers_kept && self.subtree == Reach::Subtree;
                if self.shows_below(child, mo) || (container && holds()) {
                    children.entry(&mo.parent).or_default().push((child, mo));
                    count += 1;
                }
            }
        }
        self.write(out, &children, dn, mo, true);
        count
    }

    fn write(&self, out: &mut String, children: &BTreeMap<&str, Vec<(&str, &Mo)>>, dn: &str, mo: &Mo, top: bool) {
        out.push_str("{\"");
        out.push_str(mo.class.name);
        out.push_str("\":{\"attributes\":{");
        // A child is named by its `rn`; only the objects of the top level carry their DN.
        let name = if top { ("dn", dn) } else { ("rn", mo.rn.as_str()) };
        let shown = mo.attributes.iter().filter(|(name, _)| self.shows(mo.class, name));
        let shown = shown.map(|(name, value)| (*name, value.as_str())).chain([name]);
        json::members(out, shown);
        out.push('}');
        if let Some(below) = children.get(dn) {
            out.push_str(",\"children\":[");
            for (index, (child, mo)) in below.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                self.write(out, children, child, mo, false);
            }
            out.push(']');
        }
        out.push_str("}}");
    }

    fn shows(&self, class: &Class, property: &str) -> bool {
        let writable = |it: &Prop| it.rule != Rule::ReadOnly;
        match self.shown {
            Shown::All => true,
            Shown::Configured => class.prop(property).is_some_and(writable),
            Shown::Naming => class.names("").iter().any(|(name, _)| *name == property),
        }
    }
}

/// The whole subtree of one object, as an answer shows it.
pub fn whole(tree: &Tree, dn: &str, variants: &Variants) -> Option<String> {
    let parameters = [("rsp-subtree".to_owned(), "full".to_owned())];
    let query = Query::new(Scope::Object(dn.to_owned()), &parameters, variants).ok()?;
    let (_, json) = query.run(tree, variants).ok()?;
    (!json.is_empty()).then_some(json)
}

/// What an object is put in order by.
fn ordering<'a>((dn, mo): &(&'a str, &'a Mo), property: &str) -> &'a str {
    if property == "dn" { dn } else { mo.get(property) }
}

fn ancestors(dn: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(dn::split(dn).map(|it| it.0), |dn| dn::split(dn).map(|it| it.0))
}

fn class_of(dn: &str) -> Option<&'static str> {
    dn::place(dn, &Variants::default()).ok().map(|it| it.class)
}

fn reach(value: &str, own: &str) -> Option<Reach> {
    match value {
        "children" => Some(Reach::Children),
        "subtree" | "full" => Some(Reach::Subtree),
        other => (other == own).then_some(Reach::Own),
    }
}

fn yes_or_no(value: &str) -> Option<bool> {
    match value {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn classes(value: &str) -> Result<Vec<String>, ApiError> {
    let known = |class: &str| match Class::is_known(class) {
        true => Ok(class.to_owned()),
        false => Err(ApiError::bad(12, format!("Unknown class {class}"))),
    };
    value.split(',').map(known).collect()
}

/// `class.property`, with `|asc` or `|desc`.
fn order(text: &str) -> Option<(String, bool)> {
    let (name, direction) = text.split_once('|').unwrap_or((text, "asc"));
    let property = name.split_once('.')?.1.to_owned();
    matches!(direction, "asc" | "desc").then_some((property, direction == "asc"))
}
