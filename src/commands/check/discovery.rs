//! Which L3Outs the nodes are behind (J1): the reads, the outcome of the check, and the table and JSON of `--discover`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::report::Outcome;
use super::{SLOW_PEER, World, passed};
use crate::apic::{Client, Error, Query};
use crate::logging::one_line;
use crate::model::discovery::{self, Answer, CLASSES, Candidate, Discovery};
use crate::model::dn::{L3outDn, Name};
use crate::model::finding::{Few, counted};

/// The most pages of a class: 100,000 objects. A larger fabric is read by tenant.
const MAX_PAGES: usize = 10;

/// The most L3Outs and addresses in the text; JSON has all.
const MAX_SHOWN: usize = 20;

const READ: &str = "let the user read the tenants, and name those that matter: TENANT/L3OUT as an argument";

/// Looks for the nodes if that is asked for, or if a default L3Out is set.
pub(super) fn discovery(world: &mut World<'_>) -> Vec<Outcome> {
    let (Some(config), Some(cluster), Some(session)) = (&world.config, &world.cluster, &world.session) else {
        return Vec::new();
    };
    let default = config.rules.default_l3out.as_ref();
    let is_asked = world.invocation.is_on("discover");
    if default.is_none() && !is_asked {
        return vec![Outcome::ok("", "not asked: there is neither --discover nor --default-l3out")];
    }
    // Without --discover it is a warning at most, because a run would work.
    let failed = if is_asked { Outcome::fail } else { Outcome::warn };
    let is_late = passed(world.end);
    let mut discovery = match cluster.node_addresses(|| !is_late()) {
        Ok(addresses) => Discovery::new(addresses),
        Err(error) => {
            return vec![failed("", format!("failed to list the addresses of nodes: {error}"), super::kube::RBAC)];
        }
    };
    if discovery.nodes().is_empty() {
        let fix = "run it again when Pods are on the nodes: their status.hostIP has the addresses of the nodes";
        return vec![failed("", "no Pod names the address of a node".to_owned(), fix)];
    }
    let tenants: BTreeSet<Name> = world.l3outs.iter().map(|it| it.tenant.clone()).collect();
    let partial = match read(session, &mut discovery, &tenants, &is_late) {
        Ok(partial) => partial,
        Err(outcome) => return vec![failed("", outcome, if is_late() { SLOW_PEER } else { READ })],
    };
    let mut outcomes: Vec<Outcome> = partial.map(|text| Outcome::warn("", text, READ)).into_iter().collect();
    outcomes.push(judge(&discovery, default));
    world.discovery = Some(discovery);
    outcomes
}

/// Reads the whole fabric by class, as far as the user may see it; the tenants by name if that fails or finds nothing.
/// Returns what to say of a part of the fabric.
fn read(
    session: &Client,
    discovery: &mut Discovery,
    tenants: &BTreeSet<Name>,
    is_late: &dyn Fn() -> bool,
) -> Result<Option<String>, String> {
    let mut refused = None;
    for class in CLASSES {
        if let Err(error) = add(session, discovery, &Query::class(class).at_most(MAX_PAGES).strict(), is_late) {
            refused = Some(format!("the query for all {class} failed: {error}"));
            break;
        }
    }
    if refused.is_none() && !discovery.is_empty() {
        return Ok(None);
    }
    let (mut done, mut failed) = (Few::default(), Vec::new());
    for tenant in tenants {
        let query = Query::object(&format!("uni/tn-{tenant}")).subtree(&CLASSES);
        match add(session, discovery, &query, is_late) {
            Ok(()) => done.push(tenant),
            Err(error) => failed.push(format!("{tenant} ({error})")),
        }
    }
    let not_read = if failed.is_empty() { String::new() } else { format!("; failed to read {}", Few::of(&failed)) };
    match refused {
        None if failed.is_empty() => Ok(None),
        None => Ok(Some(format!("no node in what class queries show{not_read}"))),
        Some(why) if failed.len() == tenants.len() => Err(format!("{why}{not_read}")),
        Some(why) => Ok(Some(format!("read only {done}: {why}{not_read}"))),
    }
}

fn add(session: &Client, discovery: &mut Discovery, query: &Query, is_late: &dyn Fn() -> bool) -> Result<(), Error> {
    session.read(query, &|| !is_late())?.iter().for_each(|mo| discovery.add(mo));
    Ok(())
}

/// The outcome of the check. Which L3Out is right is for people to say.
fn judge(discovery: &Discovery, default: Option<&L3outDn>) -> Outcome {
    let answer = discovery.answer();
    let (nodes, l3outs) = (counted(discovery.nodes().len(), "node"), l3outs(&answer));
    let subject = default.map(ToString::to_string).unwrap_or_default();
    let fix = "look at the evidence with --discover, and name the right L3Out in annotations or --default-l3out";
    match answer.outcome {
        discovery::Outcome::None => {
            Outcome::warn(&subject, format!("no L3Out has a BGP peer or interface for {nodes}"), fix)
        }
        discovery::Outcome::Unique => {
            let [first, ..] = answer.candidates.as_slice() else { return Outcome::ok(&subject, "") };
            let text = format!("{} of {nodes} behind it", first.nodes.len());
            match default {
                Some(default) if default != first.l3out => {
                    let text = format!("the nodes are behind another L3Out: {}", first.l3out);
                    Outcome::warn(&subject, text, fix)
                }
                _ => Outcome::ok(&first.l3out.to_string(), text),
            }
        }
        discovery::Outcome::Several => {
            Outcome::warn(&subject, format!("the nodes are behind several L3Outs: {l3outs}"), fix)
        }
        discovery::Outcome::Ambiguous => {
            Outcome::warn(&subject, format!("nodes may be behind each of several L3Outs: {l3outs}"), fix)
        }
    }
}

fn l3outs(answer: &Answer<'_>) -> String {
    Few::of(answer.candidates.iter().map(|it| it.l3out)).to_string()
}

/// The table and the last sentence.
pub(super) fn text(discovery: &Discovery) -> String {
    let answer = discovery.answer();
    let all = discovery.nodes().len();
    let mut rows = vec![["L3Out", "VRF", "NODES", "EVIDENCE"].map(str::to_owned)];
    for candidate in answer.candidates.iter().take(MAX_SHOWN) {
        let nodes = format!("{} of {all}", candidate.nodes.len());
        let vrf = candidate.vrf.unwrap_or("unknown");
        rows.push([candidate.l3out.to_string(), line(vrf), nodes, evidence(candidate)]);
    }
    let mut text = String::new();
    if rows.len() > 1 {
        let width = |column: usize| rows.iter().map(|it| it[column].chars().count()).max().unwrap_or_default();
        let [l3out, vrf, nodes] = [0, 1, 2].map(width);
        for [a, b, c, d] in &rows {
            text += &format!("{a:<l3out$}  {b:<vrf$}  {c:<nodes$}  {d}\n");
        }
    }
    if answer.candidates.len() > MAX_SHOWN {
        text += &format!("and {}\n", counted(answer.candidates.len() - MAX_SHOWN, "more L3Out"));
    }
    if !answer.unmatched.is_empty() {
        text += &format!("behind no L3Out: {}\n", Few::of(&answer.unmatched));
    }
    let last = match (answer.outcome, answer.candidates.first()) {
        (discovery::Outcome::Unique, Some(it)) => {
            let L3outDn { tenant, l3out } = it.l3out;
            format!("unique. For the settings: ACI_SYNC_DEFAULT_L3OUT={tenant}/{l3out}")
        }
        (discovery::Outcome::Several, _) => {
            "several: groups of nodes are behind different L3Outs. Name the L3Out in each annotation.".to_owned()
        }
        _ if discovery.is_cut() => "ambiguous: too many L3Outs match to say more.".to_owned(),
        (discovery::Outcome::Ambiguous, _) => {
            "ambiguous: a node may be behind more than one L3Out. Compare VRF and evidence with the fabric.".to_owned()
        }
        _ => format!("none: nothing matches among {} interfaces and BGP peers.", discovery.objects()),
    };
    text + &last + "\n"
}

/// The evidence of the first nodes, with the object below the L3Out.
fn evidence(candidate: &Candidate<'_>) -> String {
    let prefix = format!("{}/", candidate.l3out);
    let mut nodes: Vec<_> = candidate.nodes.iter().collect();
    nodes.sort_by_key(|(node, it)| (std::cmp::Reverse(it.strength), *node));
    let (_, first) = nodes[0];
    let more =
        if nodes.len() > 1 { format!(", and for {}", counted(nodes.len() - 1, "more node")) } else { String::new() };
    line(&format!("{first} in {}{more}", first.dn.strip_prefix(&prefix).unwrap_or(&first.dn)))
}

/// What a peer wrote, in one line.
fn line(text: &str) -> String {
    one_line(&text.replace(char::is_control, " "))
}

/// The same for `-o json`.
pub(super) fn json(discovery: &Discovery) -> Value {
    let answer = discovery.answer();
    let node = |(address, it): &(std::net::IpAddr, &discovery::Evidence)| json!({"address": address.to_string(), "strength": it.strength as u8, "via": it.to_string(), "dn": &*it.dn});
    let candidate = |it: &Candidate<'_>| json!({"l3out": it.l3out.to_string(), "vrf": it.vrf, "nodes": it.nodes.iter().map(node).collect::<Vec<_>>()});
    let addresses = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>();
    json!({
        "result": answer.outcome.name(),
        "nodes": addresses(&mut discovery.nodes().iter().map(ToString::to_string)),
        "unmatched": addresses(&mut answer.unmatched.iter().map(ToString::to_string)),
        "candidates": answer.candidates.iter().map(candidate).collect::<Vec<_>>(),
    })
}
