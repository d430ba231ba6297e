//! The commands, one file each, and what those need that talk to a cluster: logging, the configuration, a client.

pub mod check;
pub mod completions;
pub mod explain;
pub mod help;
mod one_shot;
pub mod plan;
pub mod purge;
pub mod run;
pub mod self_test;
pub mod status;
pub mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use crate::cli::{Command, Invocation, manual};
use crate::config::{self, Config};
use crate::exit::ExitError;
use crate::logging::{self, Output, is_invisible};
use crate::model::dn::L3outDn;
use crate::{kube, secret, service_settings};

/// Variables by name.
pub type Environment = BTreeMap<String, String>;

/// What a command that talks to the cluster starts with.
pub struct Setup {
    /// The checked configuration.
    pub config: Config,
    /// The API server.
    pub cluster: kube::Client,
    /// The environment, to read the configuration again.
    pub environment: Environment,
}

/// Runs a command; its exit code.
pub fn dispatch(mut invocation: Invocation, mut environment: Environment) -> Result<u8, ExitError> {
    service_settings::add(&mut invocation, &mut environment)?;
    let text = match invocation.command {
        Command::Run => return run::run(set_up(&invocation, environment)?, invocation),
        Command::Plan => return plan::run(&invocation, environment),
        Command::Purge => return purge::run(&invocation, &environment),
        Command::Explain => return explain::run(&set_up(&invocation, environment)?, &invocation),
        Command::Check => return check::run(&invocation, &environment),
        Command::Status => return status::run(&invocation, &environment),
        Command::Help => help::text(&invocation)?,
        Command::Man => manual::man(),
        Command::Completions => completions::text(&invocation)?,
        Command::Version => version::text(),
        Command::VersionLine => version::line().to_owned(),
        Command::SelfTest => self_test::run().map_err(ExitError::failed)? + "\n",
    };
    print(&text);
    Ok(0)
}

/// Whether `-o json` is given.
fn wants_json(invocation: &Invocation) -> Result<bool, ExitError> {
    match invocation.get("output").map(|given| (given, given.values[0].as_str())) {
        None | Some((_, "text")) => Ok(false),
        Some((_, "json")) => Ok(true),
        Some((given, other)) => Err(given.invalid(format!("{other:?} is neither text nor json"))),
    }
}

/// The L3Outs of the arguments.
fn l3outs(invocation: &Invocation) -> Result<BTreeSet<L3outDn>, ExitError> {
    let read = |text: &String| {
        L3outDn::parse(text).map_err(|why| ExitError::usage(format!("invalid argument {text:?}: {why}")))
    };
    invocation.arguments.iter().map(read).collect()
}

fn set_up(invocation: &Invocation, environment: Environment) -> Result<Setup, ExitError> {
    start(invocation)?;
    let config = config::load(invocation, &environment)?;
    let cluster = cluster(config.kubeconfig.clone(), config.context.clone());
    let cluster = cluster.map_err(|error| ExitError::config(error.to_string()))?.watching(&config.rules.kinds);
    Ok(Setup { config, cluster, environment })
}

/// What comes before everything else that talks to a peer.
fn start(invocation: &Invocation) -> Result<(), ExitError> {
    if let Some(flaw) = self_test::flaw() {
        // It does not go away by starting again.
        return Err(ExitError::config(flaw));
    }
    let (output, level) = match invocation.command {
        Command::Run => (Output::Split, "info"),
        // `plan` prints the findings itself, and `explain` is about one subject.
        Command::Explain | Command::Plan => (Output::Stderr, "warn,aci_sync::reconcile::reporter=error"),
        _ => (Output::Stderr, "warn"),
    };
    logging::start(output, level, config::log_format(invocation)?)?;
    if let Err(error) = secret::keep_out_of_core_files() {
        log::warn!(error:%; "failed to forbid core files; one could hold a secret");
    }
    Ok(())
}

/// A client for the API server of a kubeconfig. Nothing is sent yet.
fn cluster(file: Option<PathBuf>, context: Option<String>) -> Result<kube::Client, kube::ConfigError> {
    let read = move || kube::load(file.as_deref(), context.as_deref(), &|name| std::env::var_os(name));
    kube::Client::renewable(Box::new(read))
}

/// Prints, also to a terminal, which must not obey what a peer names. A closed output is no reason to fail.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(for_terminal(text).as_bytes());
}

/// Escapes invisible characters as JSON does. Lines of text have none (`logging::one_line`), and in JSON they can only be in
/// strings, but for white space.
fn for_terminal(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            '\0'..' ' => shown.push(' '),
            _ if is_invisible(character) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    shown.push_str(&format!("\\u{unit:04x}"));
                }
            }
            _ => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// T8: JSON on a terminal has nothing that the terminal obeys, and is the same JSON.
    #[test]
    fn json_is_safe_on_a_terminal() {
        let document =
            json!({"a\u{9b}": "\u{1b}[2J \u{9b}31m \u{7f} \u{202e} \u{200f} \u{61c} \u{e0041} \u{e9} \u{1f600}\n\t"});
        let text = format!("\r{}\r\n", serde_json::to_string_pretty(&document).unwrap());
        let shown = for_terminal(&text);
        assert!(!shown.chars().any(|it| is_invisible(it) && it != '\n'), "{shown:?}");
        assert!(
            shown.contains("\\u009b31m \\u007f \\u202e \\u200f \\u061c \\udb40\\udc41 \u{e9} \u{1f600}"),
            "{shown}"
        );
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), document);
    }
}
