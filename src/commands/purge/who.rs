//! Whose objects `purge` deletes: the cluster id, and the workloads that still name EPGs.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Setup;
use super::report::Report;
use crate::commands::cluster;
use crate::commands::one_shot::{count_annotations, login};
use crate::exit::ExitError;
use crate::kube::{Client, Pool};
use crate::model::dn::EpgDn;
use crate::model::finding::counted;
use crate::model::inventory::Inventory;
use crate::model::owner::id_in;
use crate::model::rules::Rules;

/// The cluster that is meant.
pub(super) struct Who {
    /// Its id.
    pub id: String,
    /// Its API server, or why it cannot be asked.
    pub cluster: Result<Client, String>,
    /// The API server has answered.
    pub has_answered: bool,
}

/// The workloads that name an EPG.
#[derive(Debug, Default)]
pub(super) struct Naming {
    /// How many.
    pub workloads: usize,
    /// A daemon would restore it: one of them is not paused (D2).
    pub is_restored: bool,
}

/// By `--cluster-id`, else by the namespace `kube-system`. If the cluster is gone, the error lists the ids on the fabric.
pub(super) fn identify(setup: &Setup<'_>) -> Result<Who, ExitError> {
    let config = &setup.config;
    let client = cluster(config.kubeconfig.clone(), config.context.clone()).map_err(|error| error.to_string());
    if let Some(id) = &config.cluster_id {
        return Ok(Who { id: id.clone(), cluster: client, has_answered: false });
    }
    let id = client.as_ref().map_err(Clone::clone).and_then(|client| {
        let failed = |error| format!("failed to read it from the cluster at {}: {error}", client.server());
        client.cluster_uid().map_err(failed)
    });
    match id {
        Ok(id) => Ok(Who { id, cluster: client, has_answered: true }),
        Err(why) => Err(ExitError::config(unknown(setup, &why)?)),
    }
}

/// What is said if the cluster id is not known.
fn unknown(setup: &Setup<'_>, why: &str) -> Result<String, ExitError> {
    let session = login(&setup.config)?;
    let counts = count_annotations(&session);
    session.logout();
    let ids = match counts {
        Ok(counts) => {
            let ids = counts.iter().filter_map(|(annotation, count)| Some((id_in(annotation)?, count)));
            let ids: Vec<String> = ids.map(|(id, count)| format!("{id} ({})", counted(*count, "object"))).collect();
            if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
        }
        Err(error) => format!("unknown, because the APIC says: {error}"),
    };
    let give = match &setup.invocation.settings_file {
        Some(file) => format!("set ACI_SYNC_CLUSTER_ID in {}", file.display()),
        None => "give --cluster-id".to_owned(),
    };
    Ok(format!("missing cluster id: {why}; {give}; the ids on the fabric: {ids}"))
}

impl Who {
    /// The workloads that name each EPG; nothing if the cluster cannot be asked.
    pub(super) fn naming(&mut self, rules: &Rules, report: &Report) -> BTreeMap<EpgDn, Naming> {
        let mut naming = BTreeMap::new();
        let Ok(client) = &self.cluster else { return naming };
        let mut inventory = Inventory::new(rules);
        for &kind in rules.kinds.iter().filter(|it| it.is_workload()) {
            match client.list_all(kind, &mut Pool::default()) {
                Ok(workloads) => inventory.listed(kind, workloads, Instant::now()),
                Err(error) => {
                    report.note(&format!("the workloads that name EPGs are not known: {error}"));
                    return naming;
                }
            }
            self.has_answered = true;
        }
        for managed in inventory.managed.values() {
            let Some(epg) = managed.bound_epg(rules) else { continue };
            let naming = naming.entry(epg.clone()).or_default();
            naming.workloads += 1;
            naming.is_restored |= !managed.record.paused;
        }
        naming
    }
}
