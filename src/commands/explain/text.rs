//! An explanation as people read it.

use std::io;

use super::memory::Memory;
use crate::logging::one_line;
use crate::model::explain::{
    AddressPart, AddressState, EpgPart, Explanation, HolderPart, NotExposed, NotExposedPart, ObjectPart, SubjectPart,
    Verdict,
};
use crate::model::finding::{Code, counted};
use crate::model::rules::Policy;

/// The most Services that are shown one by one although they select other Pods.
const MAX_OTHERS: usize = 3;

/// The widest column, in characters; a peer may name things at any length.
const MAX_WIDTH: usize = 60;

/// The text of one explanation; each line ends with a line feed.
pub(super) fn explanation(it: &Explanation, memory: &io::Result<Memory>, policy: Policy) -> String {
    let mut lines = vec![format!("{}: {} ({})", it.subject.text(), it.summary, it.verdict.name())];
    lines.extend(chain(it, memory, policy).into_iter().map(|(label, text)| row(label, &text)));
    lines.extend(table(it));
    lines.extend(cluster(it));
    lines.extend(fabric(it));
    if it.left_out > 0 {
        lines.push(row("", &format!("{} more not shown", it.left_out)));
    }
    lines.extend(daemon(it, memory));
    lines.extend(to_do(it, memory).map(|it| format!("To do: {it}")));
    lines.iter().map(|line| one_line(line).trim_end().to_owned() + "\n").collect()
}

fn row(label: &str, text: &str) -> String {
    format!("  {label:<11} {text}")
}

/// The chain from the annotation to the EPG.
fn chain<'a>(it: &'a Explanation, memory: &io::Result<Memory>, policy: Policy) -> Vec<(&'a str, String)> {
    let mut rows = Vec::new();
    if let Some((kind, name)) = it.workload.as_ref().and_then(|it| it.split_once(' ')) {
        rows.push((kind, name.to_owned()));
    }
    if let Some(annotation) = &it.annotation {
        let epg = annotation.epg.as_deref().unwrap_or_default();
        let text = match &annotation.error {
            None => format!("{}: {epg}; exposes {}", annotation.state, exposed(&annotation.expose)),
            Some(error) => {
                let last = memory.as_ref().ok().and_then(|memory| memory.last_valid(it));
                let kept = last.map(|dn| format!("; the daemon keeps the last valid one: {dn}"));
                format!("{}: {error}{}", annotation.state, kept.unwrap_or_default())
            }
        };
        rows.push(("annotation", text));
    }
    if let Some(rule) = &it.allowed_by {
        rows.push(("allowed", format!("by --allow {rule}")));
    }
    if !it.paused_by.is_empty() {
        rows.push(("paused", it.paused_by.join(", ")));
    }
    if policy != Policy::Sync && it.epg.is_some() {
        rows.push(("policy", policy.to_string()));
    }
    if let Some(l3out) = &it.l3out {
        let vrf = l3out.vrf.as_ref().map(|vrf| format!("; VRF {vrf}")).unwrap_or_default();
        rows.push(("L3Out", format!("{}: {}{vrf}", l3out.state, l3out.dn)));
    }
    if let Some(epg) = &it.epg {
        let mut text = format!("{}: {}", epg.state, epg.dn);
        if let Some(owner) = epg.owner {
            text += &format!("; {owner}; contracts: {} provided, {} consumed", epg.provided, epg.consumed);
        }
        match epg.faults {
            None => text += "; faults could not be read",
            Some(0) => {}
            Some(count) => {
                text += &format!("; {} F0467: another EPG of the VRF has a prefix of it", counted(count, "fault"))
            }
        }
        if let Some(code) = epg.code {
            text += &format!("  {code}");
        }
        rows.push(("EPG", text));
    }
    rows
}

fn exposed(words: &[&str]) -> String {
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

/// The addresses, and what is not exposed.
fn table(it: &Explanation) -> Vec<String> {
    let mut rows: Vec<[String; 3]> = Vec::new();
    let has_one_epg = it.epg.is_some();
    for part in &it.addresses {
        let from = part.from.as_ref().map_or_else(|| "-".to_owned(), |from| named(from, it));
        let at = if has_one_epg { String::new() } else { format!(" in {}", part.epg) };
        rows.push([part.prefix.clone(), from, state(part, &at)]);
    }
    let is_other = |it: &&NotExposedPart| it.reason == NotExposed::Selector;
    let others = it.not_exposed.iter().filter(is_other).count();
    let shown = it.not_exposed.iter().filter(|it| others <= MAX_OTHERS || !is_other(it));
    for part in shown {
        rows.push(["-".to_owned(), named(&part.object, it), format!("not exposed: {}", part.text)]);
    }
    if rows.is_empty() {
        return Vec::new();
    }
    rows.insert(0, ["ADDRESS", "FROM", "STATE"].map(str::to_owned));
    if others > MAX_OTHERS {
        rows.push(["-".to_owned(), format!("{others} Services"), "not exposed: they select other Pods".to_owned()]);
    }
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default().min(MAX_WIDTH)
    };
    let (first, second) = (width(0), width(1));
    let mut lines = vec![String::new()];
    lines.extend(rows.iter().map(|[prefix, from, state]| format!("  {prefix:<first$}  {from:<second$}  {state}")));
    lines.push(String::new());
    lines
}

/// A Pod or Service; its namespace is the workload's, unless the subject is of the fabric.
fn named(object: &ObjectPart, it: &Explanation) -> String {
    if it.annotation.is_some() {
        format!("{} {}", object.kind, object.name)
    } else {
        format!("{} {}/{}", object.kind, object.namespace, object.name)
    }
}

fn state(part: &AddressPart, at: &str) -> String {
    let state = match part.state {
        AddressState::Present if at.is_empty() => "in the fabric",
        AddressState::Present => "is",
        AddressState::Different => "DIFFERENT",
        AddressState::Missing => "NOT THERE",
        AddressState::Surplus => "SURPLUS",
    };
    let reason = match (&part.code, part.reason.is_empty()) {
        (Some(code), false) => format!("  {code}: {}", part.reason),
        (Some(code), true) => format!("  {code}"),
        (None, false) => format!("  {}", part.reason),
        (None, true) if part.state == AddressState::Missing => "  the next reconcile creates it".to_owned(),
        (None, true) => String::new(),
    };
    format!("{state}{at}{reason}")
}

/// The Pods and Services that have an address.
fn cluster(it: &Explanation) -> Vec<String> {
    let mut lines = Vec::new();
    for claim in &it.claims {
        let has = if claim.wins { "has it" } else { "has it too, which does not count," };
        let terminating = if claim.terminating { " (terminating)" } else { "" };
        let managed = if claim.managed { "and exposes it" } else { "and no annotated workload exposes it" };
        let ObjectPart { kind, namespace, name } = &claim.object;
        let label = if lines.is_empty() { "cluster" } else { "" };
        lines.push(row(label, &format!("{kind} {namespace}/{name}{terminating} {has} {managed}")));
    }
    if lines.is_empty() && matches!(it.subject, SubjectPart::Address { .. }) {
        lines.push(row("cluster", "no Pod and no LoadBalancer Service has it"));
    }
    lines
}

/// The EPGs that hold an address.
fn fabric(it: &Explanation) -> Vec<String> {
    let contracts = |holder: &HolderPart| match (holder.provided, holder.consumed) {
        (Some(provided), Some(consumed)) => format!("; contracts: {provided} provided, {consumed} consumed"),
        _ => String::new(),
    };
    let vrf = |holder: &HolderPart| holder.vrf.as_ref().map(|it| format!(" of VRF {it}")).unwrap_or_default();
    let mut rows: Vec<String> = Vec::new();
    for holder in &it.held_by {
        rows.push(format!(
            "{} in {}{} ({}){}",
            holder.prefix,
            holder.epg,
            vrf(holder),
            holder.owner,
            contracts(holder)
        ));
    }
    for holder in &it.longest_match {
        rows.push(format!("longest match{}: {} in {} ({})", vrf(holder), holder.prefix, holder.epg, holder.owner));
        rows.push(format!("so its traffic there is that EPG's{}", contracts(holder)));
    }
    if rows.is_empty() && matches!(it.subject, SubjectPart::Address { .. }) {
        rows.push("no EPG has it, and no prefix in the L3Outs that were read holds it".to_owned());
    }
    rows.iter().enumerate().map(|(n, text)| row(if n == 0 { "fabric" } else { "" }, text)).collect()
}

/// What the daemon remembers.
fn daemon(it: &Explanation, memory: &io::Result<Memory>) -> Vec<String> {
    let memory = match memory {
        Ok(memory) => memory,
        Err(error) => return vec![row("daemon", &error.to_string())],
    };
    let mut texts = Vec::new();
    for finding in memory.findings(it) {
        let part = |name: &str| finding[name].as_str().unwrap_or_default();
        texts.push(format!("since {}: {} {}: {}", part("since"), part("code"), part("subject"), part("text")));
    }
    let blocked = memory.objects("blocked", it).len();
    if blocked > 0 {
        texts.push(format!("{} in this EPG until an operator approves them", counted(blocked, "blocked deletion")));
    }
    for deferred in memory.objects("deferred", it) {
        let part = |name: &str| deferred[name].as_str().unwrap_or_default();
        texts.push(format!("deferred until {}: {}", part("until"), part("dn")));
    }
    if let Some(until) = memory.epg(it).and_then(|it| it["grace_until"].as_str()) {
        texts.push(format!("the EPG is in its grace until {until}"));
    }
    if it.verdict == Verdict::Unknown {
        return Vec::new();
    }
    let agrees = match memory.agrees(it) {
        Some(true) => "sees the same",
        Some(false) => "DISAGREES: it knows something else than this command saw",
        None => "cannot say: it has not looked at this fabric, or leaves findings out",
    };
    let count = if texts.is_empty() { "; it has no finding about it" } else { "" };
    texts.insert(0, format!("{} {agrees}{count}", memory.instance()));
    texts.iter().enumerate().map(|(n, text)| row(if n == 0 { "daemon" } else { "" }, text)).collect()
}

/// What ends the worst that is wrong; nothing if no person has to act.
pub(super) fn to_do(it: &Explanation, memory: &io::Result<Memory>) -> Option<String> {
    let without_contracts = |it: &EpgPart| it.state == "present" && it.provided + it.consumed == 0;
    match it.code() {
        Some(Code::SubnetRetained) => {
            let part = it.addresses.iter().find(|it| it.code == Some(Code::SubnetRetained))?;
            Some(format!("It is kept until this ends: {}.", part.reason))
        }
        Some(code) => Some(code.remedy().to_owned()),
        None if it.verdict == Verdict::Pending && memory.is_err() => {
            Some("Start aci-sync: no daemon answers.".to_owned())
        }
        None if it.verdict == Verdict::InSync && it.epg.as_ref().is_some_and(without_contracts) => {
            Some("Give the EPG a contract if traffic does not pass: it has none.".to_owned())
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T7, X3: a name of any length widens no other row, and is no panic.
    #[test]
    fn names_of_any_length() {
        let about = SubjectPart::Address { kind: "Address", prefix: "10.0.0.1/32".to_owned() };
        let mut it = Explanation::new(about, Verdict::Pending, "");
        for name in ["short", &"x".repeat(100_000)] {
            it.addresses.push(AddressPart {
                prefix: "10.0.0.1/32".to_owned(),
                from: Some(ObjectPart { kind: "Pod".to_owned(), namespace: "a".to_owned(), name: name.to_owned() }),
                epg: "uni/tn-T/out-L/instP-E".to_owned(),
                state: AddressState::Surplus,
                code: None,
                holder: None,
                reason: String::new(),
            });
        }
        let lines = table(&it);
        assert!(lines[2].len() < 160, "{}", lines[2]);
    }
}
