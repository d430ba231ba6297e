//! Arguments to command to exit code.

use std::io::Write;
use std::process::ExitCode;

use aci_sync::exit::ExitError;
use aci_sync::{cli, commands, logging};

fn main() -> ExitCode {
    let code = run();
    log::logger().flush();
    code.map_or_else(|error| report(&error), ExitCode::from)
}

fn run() -> Result<u8, ExitError> {
    let environment = cli::environment(std::env::vars_os())?;
    let invocation = cli::parse(std::env::args_os().skip(1), &environment)?;
    commands::dispatch(invocation, environment)
}

fn report(error: &ExitError) -> ExitCode {
    let _ = std::io::stderr().write_all(logging::last_line(&error.message).as_bytes());
    ExitCode::from(error.code)
}
