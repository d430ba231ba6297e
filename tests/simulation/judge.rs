//! The judge: what one write did to the fabric is compared with what it was allowed to do.
//!
//! It knows what the process has heard and what the fabric held at that moment, so it can say more than that the end is
//! right: nothing is made without need, and nothing desired is taken away on the way.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::apic::{Attributes, Inner, Marks, PYTHON, Snapshot, is_below};
use crate::oracle::{CalledFor, ip_of, split};

/// Six repairs before it counts as a conflict, ten at one a minute, and a few that are no repairs: Pods come and go.
const MAX_REPAIRS: usize = 20;

/// `--epg-grace`.
pub const GRACE: Duration = Duration::from_secs(60);

fn annotation(it: &Attributes) -> &str {
    it.get("annotation").map_or("", String::as_str)
}

/// The EPG that an object is, or is in.
pub fn epg_of(dn: &str) -> &str {
    dn.split("/extsubnet-").next().unwrap_or(dn)
}

/// One write: the error is the broken promise.
pub fn judge(marks: &Marks, inner: &mut Inner, before: &Snapshot, after: &Snapshot) -> Result<(), String> {
    inner.existed.extend(before.iter().chain(after).filter(|it| it.1.0 == "l3extInstP").map(|it| it.0.clone()));
    for (dn, (class, was)) in before {
        match after.get(dn) {
            None => deleted(marks, inner, before, after, dn, class, was)?,
            Some((_, is)) if was != is => changed(marks, inner, dn, class, was, is)?,
            Some(_) => {}
        }
    }
    for (dn, (class, is)) in after.iter().filter(|(dn, _)| !before.contains_key(*dn)) {
        made(marks, inner, before, dn, class, is)?;
    }
    Ok(())
}

/// D2: nothing is made or changed in what is paused as a whole, nor for a workload that is paused.
fn paused(inner: &Inner, dn: &str) -> Result<(), String> {
    let called_for = &inner.called_for[0];
    let is_paused = called_for.paused.contains(epg_of(dn)) || called_for.untouched.contains(dn);
    match !inner.wrong_plan && is_paused {
        true => Err(format!("D2: {dn} was written to during a pause")),
        false => Ok(()),
    }
}

/// D2, D3, D5: nothing that is a workload's own is taken away while it is paused, or has nowhere to go.
fn retained(inner: &Inner, dn: &str, was: &Attributes) -> Result<(), String> {
    let (epg, rn) = split(dn);
    let name = was.get("name").map_or("", String::as_str);
    let paused = &inner.called_for[0].paused;
    if paused.contains(epg) && inner.called_for[0].stays_in_pause(&ip_of(rn), name) {
        return Err(format!("D2: {dn} was deleted during a pause"));
    }
    // What the process has seen of an EPG may be old: it counts as one that can be had if it ever was.
    let can_be_had = |epg: &str| inner.existed.contains(epg) && !paused.contains(epg);
    // Under both views of the VRFs.
    let retains = |it: &CalledFor| it.retains(dn, name, &can_be_had, &same_vrf);
    match inner.called_for.iter().all(retains) {
        true => Err(format!("D3, D5: {dn} was deleted and is a workload's own that has nowhere to go: {was:?}")),
        false => Ok(()),
    }
}

/// I3, I4, and that nothing is taken away that is desired where it is (D3, D4, D5, D6).
fn deleted(
    marks: &Marks,
    inner: &mut Inner,
    before: &Snapshot,
    after: &Snapshot,
    dn: &str,
    class: &str,
    was: &Attributes,
) -> Result<(), String> {
    // What falls with an EPG of ours.
    let falls = dn.contains("/instP-")
        && before.iter().any(|(parent, (class, it))| {
            class == "l3extInstP"
                && dn != parent
                && is_below(dn, parent)
                && !after.contains_key(parent)
                && annotation(it) == marks.own
        });
    let ours = match class {
        "l3extInstP" => annotation(was) == marks.own,
        "l3extSubnet" => annotation(was) == marks.own || (annotation(was) == PYTHON && !falls),
        "tagAnnotation" => dn.contains(&format!("[{}", marks.tag_prefix)) || falls,
        _ => falls,
    };
    let interfered = inner.unknown().any(|it| is_below(dn, it));
    if !(ours || interfered) {
        return Err(format!("I3: {dn} was deleted and is not ours: {was:?}"));
    }
    if !inner.may_delete {
        return Err(format!("I4: {dn} was deleted on an incomplete view"));
    }
    inner.deleted.insert(dn.to_owned());
    if !inner.wrong_plan {
        inner.contracts.remove(dn);
    }
    if inner.wrong_plan || interfered {
        return Ok(());
    }
    inner.ever_ours.remove(dn);
    let called_for = &inner.called_for;
    if class == "l3extInstP" {
        if called_for[0].epgs.contains(dn) {
            return Err(format!("D4: {dn} was deleted and a workload names it"));
        }
        let since = inner.named_at.get(dn).copied().unwrap_or(inner.started);
        let has_contracts = before.iter().any(|(it, (class, _))| class == "fvRsCons" && is_below(it, dn));
        let is_unused = inner.never_held.contains(dn) && !has_contracts;
        if inner.now - since < GRACE && !is_unused {
            return Err(format!("D6: {dn} was deleted {:?} after it was named", inner.now - since));
        }
    }
    if class == "l3extSubnet" {
        if !inner.crowded && called_for.iter().all(|it| it.subnets.contains_key(dn)) {
            return Err(format!("{dn} was deleted and is desired there"));
        }
        if annotation(was) == marks.own && !inner.crowded {
            retained(inner, dn, was)?;
        }
    }
    Ok(())
}

/// I3, I8, and that names are the right ones.
fn changed(
    marks: &Marks,
    inner: &mut Inner,
    dn: &str,
    class: &str,
    was: &Attributes,
    is: &Attributes,
) -> Result<(), String> {
    let changed: BTreeSet<&str> =
        is.keys().chain(was.keys()).filter(|it| was.get(*it) != is.get(*it)).map(String::as_str).collect();
    let managed: &[&str] = match class {
        "l3extInstP" => &["annotation"],
        "l3extSubnet" => &["annotation", "name", "scope"],
        _ => &[],
    };
    if let Some(other) = changed.iter().find(|it| !managed.contains(it)) {
        return Err(format!("I8: {other} of {dn} was changed: {was:?} -> {is:?}"));
    }
    let mark = annotation(was);
    let is_our_name = |name: Option<&String>| inner.called_for.iter().any(|it| it.subnets.get(dn) == name);
    let unmarked_with_our_name =
        class == "l3extSubnet" && mark.is_empty() && was.get("name") == is.get("name") && is_our_name(was.get("name"));
    let interfered = inner.unknown().any(|it| is_below(dn, it));
    let is_own = inner.ever_ours.contains(dn) || inner.still_own.contains(dn);
    let may = mark == marks.own || mark == PYTHON || is_own || unmarked_with_our_name || interfered;
    if !may {
        return Err(format!("I3: {dn} was changed and is not ours: {was:?} -> {is:?}"));
    }
    let flags = |it: &Attributes| -> BTreeSet<String> {
        let flags = it.get("scope").map(|it| it.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect());
        flags.unwrap_or_default()
    };
    if class == "l3extSubnet" && !flags(was).is_subset(&flags(is)) {
        return Err(format!("I8: {dn} lost a scope flag: {was:?} -> {is:?}"));
    }
    if annotation(is) == marks.own {
        inner.ever_ours.insert(dn.to_owned());
    }
    paused(inner, dn)?;
    let is_right = inner.called_for.iter().any(|it| it.subnets.get(dn) == is.get("name"));
    let is_right =
        is_right || (class == "l3extSubnet" && inner.crowded && inner.called_for[0].claims(dn, is.get("name")));
    if changed.contains("name") && !is_right && !inner.wrong_plan {
        return Err(format!("{dn} was given a wrong name: {was:?} -> {is:?}"));
    }
    Ok(())
}

/// O1, O4, R5, and that nothing is made without need.
fn made(
    marks: &Marks,
    inner: &mut Inner,
    before: &Snapshot,
    dn: &str,
    class: &str,
    is: &Attributes,
) -> Result<(), String> {
    if class == "fvRsCons" {
        let may_return = inner.contracts.contains(dn) && !inner.deleted.contains(dn);
        return if may_return { Ok(()) } else { Err(format!("R7: {dn} was made and people had not left it there")) };
    }
    let allowed = match class {
        // Whatever a write creates carries the mark, also what was to be there already and had just been deleted (W2).
        "l3extInstP" | "l3extSubnet" => annotation(is) == marks.own,
        "tagAnnotation" => is.get("key").is_some_and(|it| it.starts_with(&marks.tag_prefix)),
        // The fabric's own children of a new EPG.
        "fvRsCustQosPol" | "fvRsTenantMonPol" => true,
        _ => false,
    };
    if !allowed {
        return Err(format!("I3: {dn} ({class}) was made: {is:?}"));
    }
    if class != "tagAnnotation" {
        inner.ever_ours.insert(dn.to_owned());
    }
    inner.created.insert(dn.to_owned());
    match class {
        "l3extInstP" => inner.never_held.insert(dn.to_owned()),
        "l3extSubnet" => inner.never_held.remove(epg_of(dn)),
        _ => false,
    };
    let now = inner.now;
    let made = inner.made.entry(dn.to_owned()).or_default();
    made.retain(|at| now - *at < Duration::from_secs(600));
    made.push(now);
    if made.len() > MAX_REPAIRS {
        return Err(format!("R5: {dn} was made {} times in ten minutes", made.len()));
    }
    if inner.wrong_plan {
        return Ok(());
    }
    if !inner.unknown().any(|it| it == dn) {
        paused(inner, dn)?;
    }
    if class == "l3extInstP" && annotation(is) == marks.own {
        // If another writer has just deleted it, its mark was to be restored.
        if !inner.called_for[0].epgs.contains(dn) && !inner.unknown().any(|it| it == dn) {
            return Err(format!("{dn} was made and no Deployment names it"));
        }
        if inner.called_for[0].beyond.contains(dn) && !inner.unknown().any(|it| it == dn) {
            return Err(format!("W6: {dn} was made and is beyond --max-epgs"));
        }
        let (l3out, epg) = dn.split_once("/instP-").unwrap_or_default();
        let remembers = |tag: &String, it: &Attributes| {
            is_below(tag, l3out) && it.get("key").is_some_and(|key| *key == format!("{}{epg}", marks.tag_prefix))
        };
        if before.iter().any(|(tag, (class, it))| class == "tagAnnotation" && remembers(tag, it)) {
            return Err(format!("O4: {dn} was made although a tag remembers that it was not ours"));
        }
    }
    if class == "l3extSubnet" {
        let desired = |name: Option<&String>| {
            inner
                .called_for
                .iter()
                .any(|it| it.subnets.get(dn).is_some_and(|desired| name.is_none_or(|name| name == desired)))
        };
        // What is made by the way, by a repair of what another writer has just deleted, has no name yet.
        let name = is.get("name").filter(|it| !it.is_empty());
        let may_be_wanted = inner.crowded && inner.called_for[0].claims(dn, name);
        if !may_be_wanted && !desired(name) {
            return Err(format!("{dn} was made and is not desired there: {is:?}"));
        }
        let rn = &dn[epg_of(dn).len()..];
        let other = before.iter().find(|(other, (class, it))| {
            class == "l3extSubnet" && other.ends_with(rn) && same_vrf(other, dn) && annotation(it) == marks.own
        });
        if let Some((other, _)) = other.filter(|_| !inner.unknown().any(|it| it == dn)) {
            return Err(format!("W2: {dn} was made while {other} was still there"));
        }
    }
    Ok(())
}

/// A subnet that went from one EPG and came into another one.
pub fn has_moved(created: &BTreeSet<String>, dn: &str) -> bool {
    let (_, rn) = split(dn);
    !rn.is_empty() && created.iter().any(|it| it.ends_with(rn))
}

/// J3: how many subnets of ours this process deleted in one EPG while they came into another one for the same Pod or Service.
/// One that was there already, without its mark or with another name, did not come.
pub fn moves(own: &str, before: &Snapshot, after: &Snapshot, deleted: &BTreeSet<String>) -> usize {
    let ours = |all: &Snapshot| -> BTreeSet<(String, String)> {
        let is_ours = |class: &str, it: &Attributes| class == "l3extSubnet" && annotation(it) == own;
        let name = |it: &Attributes| it.get("name").cloned().unwrap_or_default();
        all.iter().filter(|(_, (class, it))| is_ours(class, it)).map(|(dn, (_, it))| (dn.clone(), name(it))).collect()
    };
    let (ours, after) = (ours(before), ours(after));
    let came = |(dn, name): &(String, String)| {
        let is_other = |other: &str| other != dn && split(other).1 == split(dn).1 && !before.contains_key(other);
        after.iter().any(|(other, of)| of == name && is_other(other))
    };
    ours.difference(&after).filter(|it| deleted.contains(&it.0) && came(it)).count()
}

/// L and M are in one VRF, N is in another one; X is never there, and in none.
fn same_vrf(one: &str, other: &str) -> bool {
    let vrf = |dn: &str| ["/out-N", "/out-X"].iter().position(|it| dn.contains(it));
    vrf(one) == vrf(other)
}
