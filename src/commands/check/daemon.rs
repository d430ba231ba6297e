//! The running daemon of this host, if there is one, and the process that leads.

use super::World;
use super::report::Outcome;
use crate::commands::status;
use crate::kube::{Error, LeaseLock};

/// The daemon, and with leader election the holder of the Lease.
pub(super) fn daemon(world: &mut World<'_>) -> Vec<Outcome> {
    std::iter::once(status_of(world)).chain(holder(world)).collect()
}

fn holder(world: &World<'_>) -> Option<Outcome> {
    let (cluster, config) = (world.cluster.as_ref()?, world.config.as_ref()?);
    let (namespace, name) = config.lease.as_ref()?;
    let subject = format!("Lease {namespace}/{name}");
    if !world.is_accepted {
        return Some(Outcome::skip(&subject, "kube.auth failed"));
    }
    let free = || Outcome::warn(&subject, "no process holds it", "start aci-sync with --leader-elect");
    Some(match LeaseLock::new(cluster.clone(), namespace, name).holder() {
        Ok(identity) if identity.is_empty() => free(),
        Ok(identity) => Outcome::ok(&subject, format!("held by {identity}")),
        Err(Error::NotFound) => free(),
        Err(error) => Outcome::warn(&subject, format!("failed to read: {error}"), super::kube::RBAC),
    })
}

/// Asks the status server: the daemon should be this version, for this cluster.
fn status_of(world: &World<'_>) -> Outcome {
    let status = match status::ask(world.invocation, world.environment) {
        Ok(status) => status,
        Err(error) => {
            let fix = "start aci-sync, or name the address of its status server with --listen";
            return Outcome::warn("", error.message, fix);
        }
    };
    let (version, id) = (status["version"].as_str().unwrap_or_default(), status["cluster_id"].as_str());
    let ours = env!("CARGO_PKG_VERSION");
    if version != ours {
        let text = format!("the daemon is version {version}, this program is {ours}");
        Outcome::warn("", text, "restart the daemon after an upgrade")
    } else if world.cluster_id.is_some() && id != world.cluster_id.as_deref() {
        let text = format!("the daemon has the cluster id {}, check has another", id.unwrap_or("none"));
        Outcome::warn("", text, "give check the settings of the daemon")
    } else {
        Outcome::ok("", format!("version {version}: {}", status["summary"].as_str().unwrap_or_default()))
    }
}
