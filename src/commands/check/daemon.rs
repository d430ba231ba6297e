//! The running daemon of this host, if there is one.

use super::World;
use super::report::Outcome;
use crate::commands::status;

/// Asks the status server: the daemon should be this version, for this cluster.
pub(super) fn daemon(world: &mut World<'_>) -> Vec<Outcome> {
    let status = match status::ask(world.invocation, world.environment) {
        Ok(status) => status,
        Err(error) => {
            let fix = "start aci-sync, or name the address of its status server with --listen";
            return vec![Outcome::warn("", error.message, fix)];
        }
    };
    let (version, id) = (status["version"].as_str().unwrap_or_default(), status["cluster_id"].as_str());
    let ours = env!("CARGO_PKG_VERSION");
    vec![if version != ours {
        let text = format!("the daemon is version {version}, this program is {ours}");
        Outcome::warn("", text, "restart the daemon after an upgrade")
    } else if world.cluster_id.is_some() && id != world.cluster_id.as_deref() {
        let text = format!("the daemon has the cluster id {}, check has another", id.unwrap_or("none"));
        Outcome::warn("", text, "give check the settings of the daemon")
    } else {
        Outcome::ok("", format!("version {version}: {}", status["summary"].as_str().unwrap_or_default()))
    }]
}
