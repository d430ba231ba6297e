//! The Kubernetes side: the API server, our identity, our rights.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::report::Outcome;
use super::{World, compare_clocks, judge_end, rights};
use crate::kube::{Client, Error, Pool, kinds};
use crate::model::dn::{EpgDn, L3outDn};
use crate::model::finding::counted;
use crate::model::inventory::Inventory;
use crate::model::rules::Rules;
use crate::status::CredentialEnds;

/// The oldest minor version of Kubernetes 1 that aci-sync is tested with.
const OLDEST: u32 = 20;

/// The L3Outs of one namespace that are looked at: what one tenant of the cluster writes must not make the answer long.
const MAX_L3OUTS: usize = 20;

pub(super) const RBAC: &str =
    "kubectl apply -f scripts/kubernetes-rbac.yaml, and use the kubeconfig of that ServiceAccount";

/// What grants a right on objects of a resource.
fn grant(resource: &str) -> &'static str {
    match resource {
        "statefulsets" | "daemonsets" => {
            "kubectl apply -f scripts/kubernetes-rbac-workloads.yaml, or leave the kind out of --workloads"
        }
        _ => RBAC,
    }
}

/// DNS, TCP, TLS and `GET /version`.
pub(super) fn reach(world: &mut World<'_>) -> Vec<Outcome> {
    let Some(cluster) = &world.cluster else { return Vec::new() };
    let server = cluster.server();
    let version = match cluster.version() {
        Ok(version) => version,
        // It answers; who we are is the next question.
        Err(Error::Unauthorized | Error::Forbidden { .. }) => {
            return vec![Outcome::ok(server, "answers; its version is not shown to us")];
        }
        Err(error) => {
            let fix = "check server and certificate-authority-data of the kubeconfig, and the way to the API server";
            return vec![Outcome::fail(server, error.to_string(), fix)];
        }
    };
    world.kube_date = version.date;
    let name = version.version;
    vec![if is_older(&name) {
        let text = format!("Kubernetes {name} is older than 1.{OLDEST}, the oldest that aci-sync is tested with");
        Outcome::warn(server, text, "upgrade the cluster")
    } else {
        Outcome::ok(server, format!("Kubernetes {name}"))
    }]
}

fn is_older(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map(|it| it.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) < (Some(1), Some(OLDEST))
}

/// Who we are: the namespace `kube-system` gives the cluster id.
pub(super) fn auth(world: &mut World<'_>) -> Vec<Outcome> {
    let Some(cluster) = &world.cluster else { return Vec::new() };
    let outcome = match (cluster.cluster_uid(), &world.cluster_id) {
        (Ok(_), Some(id)) => Outcome::ok("", format!("accepted; cluster id {id} (--cluster-id)")),
        (Ok(uid), None) => {
            let outcome = Outcome::ok("", format!("accepted; cluster id {uid}"));
            world.cluster_id = Some(uid);
            outcome
        }
        (Err(Error::Forbidden { .. } | Error::NotFound), Some(id)) => {
            Outcome::ok("", format!("accepted; cluster id {id} (--cluster-id)"))
        }
        (Err(error @ Error::Forbidden { .. }), None) => {
            Outcome::fail("", format!("failed to read the cluster id: {error}"), RBAC)
        }
        (Err(error), _) => {
            let fix = "renew the credentials in the kubeconfig; see docs/credentials-and-permissions.md";
            Outcome::fail("", error.to_string(), fix)
        }
    };
    world.is_accepted = outcome.is_ok();
    vec![outcome]
}

/// Each right that these settings need, and whether there are far more.
pub(super) fn rights(world: &mut World<'_>) -> Vec<Outcome> {
    let (Some(cluster), Some(config)) = (&world.cluster, &world.config) else { return Vec::new() };
    match ask_rights(cluster, &rights::needed(config)) {
        Ok(outcomes) => outcomes,
        Err(error) => vec![Outcome::fail("", format!("failed to ask for the rights: {error}"), RBAC)],
    }
}

fn ask_rights(cluster: &Client, needed: &[rights::Needed<'_>]) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = Vec::new();
    for rights::Needed { right, is_optional } in needed {
        if cluster.has_right(right)? {
            continue;
        }
        let what = rights::describe(right);
        outcomes.push(if *is_optional {
            Outcome::warn("", format!("denied: {what}; findings are not shown as Events"), RBAC)
        } else {
            Outcome::fail("", format!("denied: {what}"), grant(right.resource))
        });
    }
    if cluster.has_right(&rights::EVERYTHING)? {
        let text = "every right on everything is allowed; aci-sync needs a few rights only";
        outcomes.push(Outcome::warn("", text, RBAC));
    }
    if outcomes.is_empty() {
        let count = needed.len();
        outcomes.push(Outcome::ok("", format!("{count} of {count} rights; no right on everything")));
    }
    Ok(outcomes)
}

/// Lists and watches, which a rights review does not prove. Workloads name the L3Outs that are checked later.
pub(super) fn lists(world: &mut World<'_>) -> Vec<Outcome> {
    let (Some(cluster), Some(config)) = (&world.cluster, &world.config) else { return Vec::new() };
    for &kind in &config.rules.kinds {
        let version = cluster.newest_version(kind);
        if let Err(error) = version.and_then(|version| cluster.watch(kind, &version, Duration::from_secs(1))) {
            let text = format!("failed to list and watch objects of kind {kind}: {error}");
            return vec![Outcome::fail("", text, grant(kinds::info(kind).plural))];
        }
    }
    match bound_epgs(cluster, &config.rules) {
        Ok(epgs_by_namespace) => {
            let kinds = config.rules.kinds.len();
            name_l3outs(world, kinds, epgs_by_namespace)
        }
        Err(error) => vec![Outcome::fail("", format!("failed to list all workloads: {error}"), RBAC)],
    }
}

fn bound_epgs(cluster: &Client, rules: &Rules) -> Result<BTreeMap<String, BTreeSet<EpgDn>>, Error> {
    let mut inventory = Inventory::new(rules);
    for &kind in rules.kinds.iter().filter(|it| it.is_workload()) {
        let (workloads, _) = cluster.list(kind, &mut Pool::default())?;
        inventory.listed(kind, workloads, Instant::now());
    }
    let mut bound: BTreeMap<String, BTreeSet<EpgDn>> = BTreeMap::new();
    for managed in inventory.managed.values() {
        if let Some(epg) = managed.bound_epg(rules) {
            bound.entry(managed.key().namespace.to_string()).or_default().insert(epg.clone());
        }
    }
    Ok(bound)
}

/// The EPGs, and the first L3Outs of each namespace, are looked at.
fn name_l3outs(
    world: &mut World<'_>,
    kinds: usize,
    epgs_by_namespace: BTreeMap<String, BTreeSet<EpgDn>>,
) -> Vec<Outcome> {
    let (mut named, mut most) = (BTreeSet::new(), (0, String::new()));
    for (namespace, epgs) in epgs_by_namespace {
        let l3outs: BTreeSet<L3outDn> = epgs.iter().map(|it| it.l3out.clone()).collect();
        world.l3outs.extend(l3outs.iter().take(MAX_L3OUTS).cloned());
        world.epgs.extend(epgs);
        most = most.max((l3outs.len(), namespace));
        named.extend(l3outs);
    }
    let text = format!("all {kinds} kinds; workloads name {}", counted(named.len(), "L3Out"));
    let mut outcomes = vec![Outcome::ok("", text)];
    let rest = named.difference(&world.l3outs).count();
    if rest > 0 {
        let (count, namespace) = most;
        let text = format!(
            "{} not looked at: at most {MAX_L3OUTS} of a namespace are, and namespace {namespace} names {count}",
            counted(rest, "L3Out")
        );
        let fix =
            "correct the annotations in that namespace, limit it with --allow, or give TENANT/L3OUT as an argument";
        outcomes.push(Outcome::warn("", text, fix));
    }
    outcomes
}

/// The ends of our client certificate and token, as they are in the kubeconfig.
pub(super) fn credential(_: &mut World<'_>) -> Vec<Outcome> {
    let fix = "renew it; see docs/credentials-and-permissions.md";
    let known = CredentialEnds::now(false);
    let own = known.iter().filter(|(name, _)| matches!(*name, "kubernetes_client_certificate" | "kubernetes_token"));
    let ends = own.filter_map(|(name, end)| Some(judge_end(name, "", end?, fix, Outcome::fail)));
    let outcomes: Vec<Outcome> = ends.collect();
    if outcomes.is_empty() {
        return vec![Outcome::ok("", "no end is known, or a program renews it in time")];
    }
    outcomes
}

/// The API server's clock against ours.
pub(super) fn clock(world: &mut World<'_>) -> Vec<Outcome> {
    vec![compare_clocks("", world.kube_date.as_deref())]
}
