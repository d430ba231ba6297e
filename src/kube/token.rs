//! The bearer token: its sources, and the file of a token.

use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::plugin::{Plugin, is_header_value};
use crate::files;
use crate::secret::Secret;

/// The largest kubeconfig, certificate or token file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The source of the bearer token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// The token in the kubeconfig.
    Fixed(Secret),
    /// A file, which may be renewed.
    File(PathBuf),
    /// A program that prints a token, a client certificate or both.
    Plugin(Box<Plugin>),
}

/// Reads a token file.
pub fn read_token(file: &Path) -> Result<Secret, ConfigError> {
    let bytes = read_file(file, "the token file")?;
    let text = String::from_utf8(bytes).ok().map(|it| it.trim().to_owned()).filter(|it| is_header_value(it));
    text.map(Secret::new).ok_or_else(|| ConfigError(format!("token file {}: no valid token in it", file.display())))
}

/// Reads a file that a kubeconfig names, or the kubeconfig itself.
pub(super) fn read_file(file: &Path, what: &str) -> Result<Vec<u8>, ConfigError> {
    files::read(file, MAX_FILE).map_err(|why| ConfigError(format!("failed to read {what} {}: {why}", file.display())))
}
