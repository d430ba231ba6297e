//! Arguments to configuration to command to exit code.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use aci_sync::cli::{self, Command, Invocation};
use aci_sync::config::{self, Config, ConfigError, EXIT_CONFIG};
use aci_sync::daemon::threads::Failure;
use aci_sync::daemon::{once, run};
use aci_sync::logging::{self, Output};
use aci_sync::{kube, manual, secret, selftest};

fn main() -> ExitCode {
    let environment = cli::environment(std::env::vars_os());
    let read = environment.and_then(|it| Ok((cli::parse(std::env::args_os().skip(1), &it)?, it)));
    let (invocation, environment) = match read {
        Ok(read) => read,
        Err(ConfigError { code, why }) => return report(&Failure { code, why }),
    };
    let once = invocation.is_on("once");
    let done = match invocation.command {
        Command::Help => Ok(print(&manual::help(), 0)),
        Command::Man => Ok(print(&manual::man(), 0)),
        Command::Version => Ok(print(&version(), 0)),
        Command::VersionLine => Ok(print(VERSION, 0)),
        Command::SelfTest => selftest::run().map(|done| print(&(done + "\n"), 0)).map_err(failed),
        Command::Plan => configured(&invocation, &environment)
            .and_then(|(config, cluster)| once::plan(config, &cluster))
            .map(|preview| print(&preview.text, if preview.changes { 2 } else { 0 })),
        Command::Run if once => configured(&invocation, &environment)
            .and_then(|(config, cluster)| once::once(&config, &cluster))
            .map(|all_done| u8::from(!all_done)),
        Command::Run => configured(&invocation, &environment)
            .and_then(|(config, cluster)| run::run(config, cluster, Box::new(move || load(&invocation, &environment)))),
    };
    log::logger().flush();
    done.map_or_else(|failure| report(&failure), ExitCode::from)
}

const VERSION: &str = concat!("aci-sync ", env!("CARGO_PKG_VERSION"), "\n");

/// The version, and what the program was built from; `build.rs` knows what cargo does not.
fn version() -> String {
    let (commit, rustc) = (env!("BUILD_COMMIT"), env!("BUILD_RUSTC"));
    let linked = if cfg!(target_feature = "crt-static") { "static" } else { "dynamic" };
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let openssl = openssl::version::version();
    format!("{VERSION}commit  {commit}\ntarget  {target}, {linked}\nrustc   {rustc}\nopenssl {openssl}\n")
}

fn failed(why: String) -> Failure {
    Failure { code: 1, why }
}

fn configured(
    invocation: &Invocation,
    environment: &BTreeMap<String, String>,
) -> Result<(Config, kube::Client), Failure> {
    if let Some(flaw) = selftest::flaw() {
        // It does not go away by starting again.
        return Err(Failure { code: EXIT_CONFIG, why: flaw.to_owned() });
    }
    let output = if invocation.command == Command::Run { Output::Split } else { Output::Stderr };
    logging::start(output).map_err(|why| Failure { code: EXIT_CONFIG, why })?;
    if let Err(error) = secret::keep_out_of_core_files() {
        log::warn!("a core file of this process may hold the password: {error}");
    }
    let config = load(invocation, environment)?;
    let failed = |error: kube::ConfigError| Failure { code: EXIT_CONFIG, why: error.to_string() };
    let (file, context) = (config.kubeconfig.clone(), config.context.clone());
    let read = move || kube::load(file.as_deref(), context.as_deref(), &|name| std::env::var_os(name));
    Ok((config, kube::Client::renewable(Box::new(read)).map_err(failed)?))
}

fn load(invocation: &Invocation, environment: &BTreeMap<String, String>) -> Result<Config, Failure> {
    config::load(invocation, environment).map_err(|error| Failure { code: error.code, why: error.why })
}

/// A closed output is no reason to fail.
fn print(text: &str, code: u8) -> u8 {
    let _ = std::io::stdout().write_all(text.as_bytes());
    code
}

fn report(failure: &Failure) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "aci-sync: {}", logging::one_line(&failure.why));
    ExitCode::from(failure.code)
}
