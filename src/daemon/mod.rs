//! The running program: the reconciler that owns all state, the event loop around it, and the supervision of all
//! threads.

pub mod event_loop;
mod reload;
mod signals;
pub mod threads;
pub mod watchdog;

pub mod supervisor;

use crate::apic;
use crate::config::Config;
use crate::exit::ExitError;
use crate::kube;
use crate::model::owner::OwnerIdentity;
use crate::net::{Tls, Verify};
use crate::reconcile::Reconciler;
use crate::secret::Renewable;

/// A reconciler for this cluster: its id comes from the configuration or from the namespace `kube-system` (O1).
pub(crate) fn reconciler_for(config: &Config, cluster: &kube::Client) -> Result<Reconciler, kube::Error> {
    let id = match &config.cluster_id {
        Some(id) => id.clone(),
        None => cluster.cluster_uid()?,
    };
    let owner = OwnerIdentity::new(&id, &config.adopt_ids);
    log::info!(annotation = owner.annotation(); "owner annotation");
    Ok(Reconciler::new(owner, config.rules.clone(), config.policy, config.epg_grace))
}

/// The APIC side's settings. An invalid certificate or fingerprint is an error.
pub(crate) fn apic_settings(config: &Config) -> Result<apic::Settings, ExitError> {
    let failed = |error| ExitError::config(format!("invalid TLS settings for the APIC: {error}"));
    if matches!(config.apic_tls.verify, Verify::Nothing) {
        log::warn!(
            "--apic-insecure: the APIC's certificate is not verified; an attacker in the network can take over the login"
        );
    }
    Ok(apic::Settings {
        controllers: config.controllers.clone(),
        tls: Tls::new(&config.apic_tls).map_err(failed)?,
        credentials: config.identity.with(Renewable::new(config.secret.clone())),
        pacer: apic::RequestPacer::new(config.apic_rate, config.parallel),
    })
}
