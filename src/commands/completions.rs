//! `completions SHELL`: the completions of a shell. They are made in `cli::completions`.

use crate::cli::Invocation;
use crate::cli::completions::SHELLS;
use crate::exit::ExitError;

/// The text for the shell that the arguments name.
pub fn text(invocation: &Invocation) -> Result<String, ExitError> {
    let found = match invocation.arguments.as_slice() {
        [name] => SHELLS.iter().find(|(shell, _)| shell == name),
        _ => None,
    };
    let usage = || ExitError::usage("completions needs one shell: bash, zsh or fish; see aci-sync help");
    found.map(|(_, make)| make()).ok_or_else(usage)
}
