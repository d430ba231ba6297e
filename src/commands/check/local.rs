//! The settings and the secrets on this host. Nothing is sent.

use std::path::{Path, PathBuf};

use super::report::Outcome;
use super::{World, judge_end};
use crate::cli::Given;
use crate::commands::cluster;
use crate::config::{self, Config};
use crate::metrics::{CREDENTIALS, Credential};
use crate::net::Verify;
use crate::status::CredentialEnds;

/// The subjects of `secrets`.
pub(super) const PASSWORD: &str = "password";
pub(super) const PRIVATE_KEY: &str = "private_key";
const USER_CERTIFICATE: &str = CREDENTIALS[Credential::ApicUserCertificate as usize];
pub(super) const KUBECONFIG: &str = "kubeconfig";

const CHMOD: &str = "run chmod 600 on it";

/// All values but the secrets, and rules that can never match.
pub(super) fn config(world: &mut World<'_>) -> Vec<Outcome> {
    let config = match config::load_without_secret(world.invocation, world.environment) {
        Ok(config) => config,
        Err(error) => return vec![Outcome::fail("", error.message, "correct the flag or the variable")],
    };
    let mut outcomes = useless_rules(&config, world.invocation.get("allow"));
    if matches!(config.apic_tls.verify, Verify::Nothing) {
        let text = "the APIC's certificate is not verified; an attacker in the network can take over the login";
        outcomes.push(Outcome::warn("", text, "replace --apic-insecure by --apic-ca or --apic-fingerprint"));
    }
    if outcomes.is_empty() {
        let file = world.invocation.settings_file.as_ref();
        let from = file.map(|file| format!("; those of the service are in {}", file.display()));
        outcomes.push(Outcome::ok("", format!("all settings are valid{}", from.unwrap_or_default())));
    }
    world.cluster_id.clone_from(&config.cluster_id);
    world.l3outs.extend(config.rules.default_l3out.clone());
    world.config = Some(config);
    outcomes
}

fn useless_rules(config: &Config, given: Option<&Given>) -> Vec<Outcome> {
    let texts = given.map(|given| given.values.as_slice()).unwrap_or_default();
    let rules = config.rules.allow.iter().zip(texts).filter(|(rule, _)| !rule.can_match());
    let warn = |text: &String| {
        let text = format!("the rule {text:?} of --allow can never match: no namespace can have such a name");
        Outcome::warn("", text, "names of namespaces have lower-case letters, digits and - only; correct the rule")
    };
    rules.map(|(_, text)| warn(text)).collect()
}

/// The password or the private key, the end of a certificate beside the key, and the kubeconfig.
pub(super) fn secrets(world: &mut World<'_>) -> Vec<Outcome> {
    let subject = if world.invocation.get("apic-private-key-file").is_some() { PRIVATE_KEY } else { PASSWORD };
    let apic = match config::secret(world.invocation, world.environment) {
        Err(error) => Outcome::fail(subject, error.message, "see docs/credentials-and-permissions.md"),
        Ok(secret) => {
            world.secret = Some(secret);
            let path = config::secret_file(world.invocation).map(|it| Path::new(&it.values[0]));
            readable(subject, path.into_iter())
        }
    };
    let first = |flag: &str| world.invocation.get(flag).and_then(|it| it.values.first()).cloned();
    let given = first("kubeconfig").map(PathBuf::from);
    let kubeconfig = match cluster(given.clone(), first("context")) {
        Err(error) => Outcome::fail(KUBECONFIG, error.to_string(), "see docs/credentials-and-permissions.md"),
        Ok(cluster) => {
            world.cluster = Some(cluster);
            let list = world.environment.get("KUBECONFIG").filter(|_| given.is_none());
            let listed = list.into_iter().flat_map(|list| std::env::split_paths(list).collect::<Vec<_>>());
            let files: Vec<PathBuf> = given.into_iter().chain(listed).collect();
            readable(KUBECONFIG, files.iter().map(PathBuf::as_path))
        }
    };
    let mut outcomes = vec![apic];
    let fix = "renew it; see \"Login by certificate\" in docs/credentials-and-permissions.md";
    let ends = CredentialEnds::now(false);
    let end = ends.iter().find(|(name, _)| *name == USER_CERTIFICATE).and_then(|(_, end)| end);
    outcomes.extend(end.map(|end| judge_end(USER_CERTIFICATE, "", end, fix, Outcome::warn)));
    outcomes.push(kubeconfig);
    outcomes
}

fn readable<'a>(subject: &str, mut files: impl Iterator<Item = &'a Path>) -> Outcome {
    match files.find(|file| config::is_readable_by_others(file)) {
        Some(file) => Outcome::warn(subject, format!("{} can be read by other users", file.display()), CHMOD),
        None => Outcome::ok(subject, "can be used"),
    }
}
