//! The answers to writes with `rsp-subtree=modified`: what changed, in the shape that a switch chooses.

use std::collections::{BTreeMap, BTreeSet};

use super::dn;
use super::json;
use super::tree::{Change, Mo, Tree};
use super::variants::{Variants, WriteAnswer};

/// The objects of the answer to a POST.
pub fn written(tree: &Tree, root: &str, changes: &[Change], variants: &Variants) -> Vec<String> {
    let partial = match variants.write_answer {
        WriteAnswer::Empty => return Vec::new(),
        WriteAnswer::Flat => return flat(changes),
        WriteAnswer::Nested => false,
        WriteAnswer::Partial => true,
    };
    let nest = Nest::new(tree, root, changes, partial);
    if nest.changes.contains_key(root) {
        return vec![nest.object(root, true)];
    }
    match variants.bare_root {
        true if nest.below.is_empty() => Vec::new(),
        true => vec![nest.object(root, true)],
        false => nest.topmost(root).into_iter().map(|dn| nest.object(dn, true)).collect(),
    }
}

/// The objects of the answer to a DELETE: the one deleted, with all that it had.
pub fn deleted(changes: &[Change], variants: &Variants) -> Vec<String> {
    if variants.write_answer == WriteAnswer::Empty {
        return Vec::new();
    }
    let first = changes.iter().find(|it| matches!(it, Change::Deleted { .. }));
    first
        .map(|it| {
            object(
                it.mo(),
                all(it.mo()),
                &[("childAction", ""), ("dn", it.dn()), ("rn", ""), ("status", "deleted")],
                "",
            )
        })
        .into_iter()
        .collect()
}

/// All changes, one beside the other.
pub fn flat(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|it| json::event_object(it, it.mo().get("modTs"))).collect()
}

/// Changes by DN, and for each DN the DNs of what is shown below it.
struct Nest<'a> {
    tree: &'a Tree,
    changes: BTreeMap<&'a str, &'a Change>,
    below: BTreeMap<&'a str, Vec<&'a str>>,
    /// What has its place below another.
    placed: BTreeSet<&'a str>,
}

impl<'a> Nest<'a> {
    fn new(tree: &'a Tree, root: &'a str, changes: &'a [Change], partial: bool) -> Nest<'a> {
        let inside = |it: &&Change| it.dn() == root || dn::is_below(it.dn(), root);
        let gone: BTreeSet<&str> =
            changes.iter().filter(|it| matches!(it, Change::Deleted { .. })).map(Change::dn).collect();
        // What fell with a deleted parent is not shown.
        let fell = |it: &&Change| gone.contains(it.mo().parent.as_str());
        let shown = changes.iter().filter(inside).filter(|it| !fell(it));
        let mut nest = Nest { tree, changes: BTreeMap::new(), below: BTreeMap::new(), placed: BTreeSet::new() };
        let mut children = 0;
        for change in shown {
            children += usize::from(change.dn() != root);
            if partial && change.dn() != root && children % 2 == 1 {
                continue;
            }
            nest.changes.insert(change.dn(), change);
            nest.hang(change.dn(), root);
        }
        for below in nest.below.values_mut() {
            // As recorded: [fvCtx, fvAp] came back as [fvAp, one of the fabric's own, fvCtx].
            below.reverse();
            if below.len() > 2 {
                below[1..].rotate_right(1);
            }
        }
        nest
    }

    /// Makes an object and the containers above it, up to the root, each the child of the one above.
    fn hang(&mut self, dn: &'a str, root: &str) {
        let mut child = dn;
        while child != root {
            let Some((parent, _)) = dn::split(child) else { return };
            if !self.placed.insert(child) {
                return;
            }
            self.below.entry(parent).or_default().push(child);
            child = parent;
        }
    }

    /// The changed objects that no changed object is above.
    fn topmost(&self, dn: &str) -> Vec<&'a str> {
        let below = self.below.get(dn).into_iter().flatten();
        below
            .flat_map(|child| if self.changes.contains_key(child) { vec![*child] } else { self.topmost(child) })
            .collect()
    }

    fn object(&self, dn: &str, top: bool) -> String {
        let below = self.below.get(dn).into_iter().flatten();
        let children: Vec<String> = below.map(|child| self.object(child, false)).collect();
        let rn = dn::split(dn).map_or(dn, |it| it.1);
        let mut names = vec![("childAction", "")];
        names.extend(if top { vec![("dn", dn), ("rn", "")] } else { vec![("rn", rn)] });
        let (mo, own, status): (Option<&Mo>, Vec<(&str, &str)>, _) = match self.changes.get(dn) {
            Some(Change::Created { mo, .. }) => (Some(mo), all(mo), "created"),
            Some(Change::Modified { mo, changed, .. }) => {
                (Some(mo), changed.iter().chain(&["modTs"]).map(|name| (*name, mo.get(name))).collect(), "modified")
            }
            Some(Change::Deleted { mo, .. }) => (Some(mo), all(mo), "deleted"),
            None => (self.tree.get(dn), Vec::new(), ""),
        };
        names.push(("status", status));
        mo.map(|mo| object(mo, own, &names, &children.join(","))).unwrap_or_default()
    }
}

/// All attributes that an object has of its own.
fn all(mo: &Mo) -> Vec<(&str, &str)> {
    let own = mo.attributes.iter().map(|(name, value)| (*name, value.as_str()));
    own.filter(|(name, _)| !matches!(*name, "childAction" | "status")).collect()
}

fn object(mo: &Mo, own: Vec<(&str, &str)>, names: &[(&str, &str)], children: &str) -> String {
    let mut out = format!("{{\"{}\":{{\"attributes\":{{", mo.class.name);
    json::members(&mut out, own.into_iter().chain(names.iter().copied()));
    out.push('}');
    if !children.is_empty() {
        out.push_str(&format!(",\"children\":[{children}]"));
    }
    out.push_str("}}");
    out
}
