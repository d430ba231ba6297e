//! `aci-sync help`.

use crate::cli::{self, Invocation, manual};
use crate::exit::ExitError;

/// The help, or that of the command in the arguments.
///
/// # Errors
///
/// Exit code 64 for anything else than one command.
pub fn text(invocation: &Invocation) -> Result<String, ExitError> {
    match &invocation.arguments[..] {
        [] => Ok(manual::help()),
        [word] => Ok(manual::help_of(cli::command_of(word)?)),
        _ => Err(ExitError::usage("help takes one command; see aci-sync help")),
    }
}
