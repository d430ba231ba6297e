//! `/status.json`: the snapshot as one JSON object, `aci-sync.status.v1`. Fields are only ever added.

use serde::Serialize;

use super::snapshot::{Deferred, EpgView, Identity, Snapshot};
use crate::model::kubernetes::Kind;
use crate::model::owner::Ownership;
use crate::time;

/// The most entries that a list has; the totals count all.
const MAX_LISTED: usize = 1000;

#[derive(Serialize)]
struct Status<'a> {
    schema: &'static str,
    instance: &'a str,
    version: &'a str,
    revision: &'a str,
    started: String,
    snapshot_age_seconds: u64,
    state: &'static str,
    summary: String,
    cluster_id: Option<&'a str>,
    policy: &'a str,
    leader: Leader<'a>,
    kubernetes: Kubernetes<'a>,
    apic: Apic<'a>,
    objects: Vec<Objects>,
    l3outs_total: usize,
    l3outs: Vec<L3out>,
    epgs_total: usize,
    epgs: Vec<Epg>,
    blocked_total: usize,
    blocked: Vec<String>,
    deferred_total: usize,
    deferred: Vec<DeferredEntry>,
    conflicts_total: usize,
    conflicts: Vec<String>,
    findings_total: usize,
    findings: Vec<FindingEntry<'a>>,
    credentials: Vec<Credential>,
    last_reconciles: Vec<Reconcile>,
}

#[derive(Serialize)]
struct Leader<'a> {
    holding: bool,
    lease: Option<&'a str>,
}

#[derive(Serialize)]
struct Kubernetes<'a> {
    server: &'a str,
    kinds: Vec<KindEntry>,
}

#[derive(Serialize)]
struct KindEntry {
    kind: String,
    complete: bool,
    objects: usize,
}

#[derive(Serialize)]
struct Apic<'a> {
    controllers: &'a [String],
    session: Option<&'a str>,
    last_full_sync: Option<String>,
    last_in_sync: Option<String>,
}

#[derive(Serialize)]
struct Objects {
    class: &'static str,
    desired: usize,
    owned: usize,
    missing: usize,
    surplus: usize,
}

#[derive(Serialize)]
struct L3out {
    dn: String,
    present: bool,
    epgs: usize,
    subscribed: bool,
}

#[derive(Serialize)]
struct Epg {
    dn: String,
    owner: Option<&'static str>,
    workloads_total: usize,
    workloads: Vec<String>,
    desired: usize,
    present: usize,
    surplus: usize,
    contracts: usize,
    grace_until: Option<String>,
}

#[derive(Serialize)]
struct DeferredEntry {
    dn: String,
    code: String,
    until: String,
}

#[derive(Serialize)]
struct FindingEntry<'a> {
    code: String,
    subject: String,
    text: &'a str,
    since: String,
    open: bool,
}

#[derive(Serialize)]
struct Credential {
    name: &'static str,
    ends: Option<String>,
}

#[derive(Serialize)]
struct Reconcile {
    at: String,
    seconds: f64,
    why: &'static str,
    created: usize,
    updated: usize,
    deleted: usize,
    error: Option<String>,
}

fn epg(view: &EpgView) -> Epg {
    Epg {
        dn: view.dn.to_string(),
        owner: view.owner.map(Ownership::name),
        workloads_total: view.workloads_total,
        workloads: view.workloads.iter().map(ToString::to_string).collect(),
        desired: view.desired,
        present: view.present,
        surplus: view.surplus,
        contracts: view.contracts,
        grace_until: view.grace_until.map(|until| time::rfc3339(time::unix_of(until))),
    }
}

fn deferred(deferred: &Deferred) -> DeferredEntry {
    DeferredEntry {
        dn: deferred.subject.to_string(),
        code: deferred.code.to_string(),
        until: time::rfc3339(time::unix_of(deferred.until)),
    }
}

/// The whole text.
pub fn status(identity: &Identity, snapshot: &Snapshot) -> String {
    let fabric = &snapshot.fabric;
    let kind_entry = |&(kind, objects): &(Kind, usize)| KindEntry {
        kind: kind.to_string().to_ascii_lowercase(),
        complete: !snapshot.incomplete.contains(&kind),
        objects,
    };
    let status = Status {
        schema: "aci-sync.status.v1",
        instance: &identity.instance,
        version: env!("CARGO_PKG_VERSION"),
        revision: env!("BUILD_COMMIT"),
        started: time::rfc3339(identity.started),
        snapshot_age_seconds: snapshot.made.elapsed().as_secs(),
        state: snapshot.state.name(),
        summary: snapshot.state.to_string(),
        cluster_id: snapshot.cluster_id.as_deref(),
        policy: &identity.policy,
        leader: Leader { holding: snapshot.leader, lease: identity.lease.as_deref() },
        kubernetes: Kubernetes { server: &identity.server, kinds: snapshot.objects.iter().map(kind_entry).collect() },
        apic: Apic {
            controllers: &identity.controllers,
            session: snapshot.controller.as_deref(),
            last_full_sync: snapshot.activity.last_full_sync.map(time::rfc3339),
            last_in_sync: snapshot.activity.last_in_sync.map(time::rfc3339),
        },
        objects: fabric
            .totals
            .iter()
            .map(|it| Objects {
                class: it.class,
                desired: it.desired,
                owned: it.owned,
                missing: it.missing,
                surplus: it.surplus,
            })
            .collect(),
        l3outs_total: fabric.l3outs.len(),
        l3outs: fabric
            .l3outs
            .iter()
            .take(MAX_LISTED)
            .map(|it| L3out {
                dn: it.dn.to_string(),
                present: it.epgs.is_some(),
                epgs: it.epgs.unwrap_or_default(),
                subscribed: it.subscribed,
            })
            .collect(),
        epgs_total: fabric.epgs.len(),
        epgs: fabric.epgs.iter().take(MAX_LISTED).map(epg).collect(),
        blocked_total: fabric.blocked.len(),
        blocked: fabric.blocked.iter().take(MAX_LISTED).map(ToString::to_string).collect(),
        deferred_total: fabric.deferred.len(),
        deferred: fabric.deferred.iter().take(MAX_LISTED).map(deferred).collect(),
        conflicts_total: fabric.conflicts.len(),
        conflicts: fabric.conflicts.iter().take(MAX_LISTED).map(ToString::to_string).collect(),
        findings_total: fabric.findings.len(),
        findings: fabric
            .findings
            .iter()
            .take(MAX_LISTED)
            .map(|(finding, since)| FindingEntry {
                code: format!("{:?}", finding.code),
                subject: finding.subject.to_string(),
                text: &finding.text,
                since: time::rfc3339(*since),
                open: finding.code.is_open(),
            })
            .collect(),
        credentials: snapshot
            .credentials
            .iter()
            .map(|(name, end)| Credential { name, ends: end.map(time::rfc3339) })
            .collect(),
        last_reconciles: snapshot
            .activity
            .reconciles
            .iter()
            .map(|it| Reconcile {
                at: time::rfc3339(it.at),
                seconds: it.took.as_secs_f64(),
                why: it.why.name(),
                created: it.changes.created,
                updated: it.changes.updated,
                deleted: it.changes.deleted,
                error: it.error.clone(),
            })
            .collect(),
    };
    // Nothing in it can fail to be written as JSON.
    serde_json::to_string(&status).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::model::dn::{L3outDn, Name};
    use crate::model::kubernetes::{Key, Workload};
    use crate::status::{FabricView, L3outView};

    /// T8: a list has a limit and a total.
    #[test]
    fn lists_have_an_end() {
        let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
        let epg = |number: usize| EpgView {
            dn: l3out.epg(Name::object(&format!("E{number:04}")).unwrap()),
            owner: Some(Ownership::Owned),
            workloads: (0..3)
                .map(|it| Workload { kind: Kind::Deployment, key: Key::new("shop", &format!("d{it}")) })
                .collect(),
            workloads_total: 7,
            desired: 0,
            present: 0,
            surplus: 0,
            contracts: 0,
            grace_until: None,
        };
        let epgs = Arc::new((0..=MAX_LISTED).map(epg).collect());
        let l3outs = (0..=MAX_LISTED).map(|_| L3outView { dn: l3out.clone(), epgs: None, subscribed: false }).collect();
        let fabric = Arc::new(FabricView { epgs, l3outs, ..FabricView::default() });
        let text = status(&Identity::default(), &Snapshot { fabric, ..Snapshot::empty() });
        let status: Value = serde_json::from_str(&text).unwrap();
        let epgs = status["epgs"].as_array().unwrap();
        assert_eq!((&status["epgs_total"], epgs.len()), (&1001.into(), 1000));
        assert_eq!((&status["l3outs_total"], status["l3outs"].as_array().unwrap().len()), (&1001.into(), 1000));
        let workloads = serde_json::json!(["Deployment shop/d0", "Deployment shop/d1", "Deployment shop/d2"]);
        assert_eq!((&epgs[0]["workloads_total"], &epgs[0]["workloads"]), (&7.into(), &workloads));
        assert_eq!(
            ["uni/tn-T/out-L/instP-E0000", "uni/tn-T/out-L/instP-E0001"],
            [&epgs[0]["dn"], &epgs[1]["dn"]].map(|it| it.as_str().unwrap())
        );
    }
}
