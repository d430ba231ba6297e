//! The settings of the systemd service for the commands that people type on its machine: what the unit gives `run` by
//! `EnvironmentFile` and `LoadCredential` is read from the same folder (T13). `run` never reads it.
//!
//! The folder is for root only, so nothing is read for other users.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::cli::{Command, Invocation, variable};
use crate::exit::ExitError;
use crate::files;

/// Where `scripts/install` puts settings and credentials.
const FOLDER: &str = "/etc/aci-sync";

/// Where the service sees the credentials of that folder, under the same names.
const CREDENTIALS: &str = "/run/credentials/aci-sync.service/";

/// The largest settings file, in bytes.
const MAX_SETTINGS: u64 = 1 << 20;

/// The settings that name a peer or prove who we are. If one of them is given, the service's settings are not meant.
const PEERS: [&str; 10] = [
    "kubeconfig",
    "context",
    "apic",
    "apic-ca",
    "apic-fingerprint",
    "apic-insecure",
    "password-file",
    "apic-certificate-dn",
    "apic-private-key-file",
    "cluster-id",
];

/// The flags whose values are files.
const FILES: [&str; 4] = ["kubeconfig", "apic-ca", "password-file", "apic-private-key-file"];

/// Adds the settings of the service below those of the command line and the environment, unless these name a peer.
pub fn add(invocation: &mut Invocation, environment: &mut BTreeMap<String, String>) -> Result<(), ExitError> {
    let is_for_people = matches!(
        invocation.command,
        Command::Plan | Command::Explain | Command::Check | Command::Status | Command::Purge
    );
    let names_peer = PEERS.iter().any(|flag| invocation.get(flag).is_some())
        || ["ACI_USERNAME", "ACI_PASSWORD"].iter().any(|name| environment.get(*name).is_some_and(|it| !it.is_empty()));
    if !is_for_people || names_peer {
        return Ok(());
    }
    let folder = environment.get("CONFIGURATION_DIRECTORY").and_then(|it| it.split(':').next());
    let folder = PathBuf::from(folder.filter(|it| it.starts_with('/')).unwrap_or(FOLDER));
    let file = folder.join("aci-sync.env");
    let bytes = match files::read(&file, MAX_SETTINGS) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Ok(()),
        bytes => bytes.map_err(|why| ExitError::config(format!("failed to read {}: {why}", file.display())))?,
    };
    let text = String::from_utf8(bytes).map_err(|_| ExitError::config(format!("{} is not UTF-8", file.display())))?;
    let settings =
        parse(&text).map_err(|(line, why)| ExitError::config(format!("{}: line {line} {why}", file.display())))?;

    let mut values: BTreeMap<String, String> =
        settings.iter().map(|(name, (_, value))| (name.clone(), value.clone())).collect();
    let kubeconfig = folder.join("kubeconfig");
    if kubeconfig.exists() {
        // As the unit does it.
        values.entry(variable("kubeconfig")).or_insert_with(|| kubeconfig.display().to_string());
    }
    for name in FILES.map(variable) {
        if let Some(value) = values.get_mut(&name) {
            *value = in_folder(value, &folder);
        }
    }
    invocation.add_variables(&values, &|name| match settings.get(name) {
        Some((line, _)) => format!("{}: line {line}: ", file.display()),
        None => String::new(),
    })?;
    for name in ["ACI_USERNAME", "ACI_PASSWORD"] {
        environment.extend(values.remove(name).map(|value| (name.to_owned(), value)));
    }
    environment.entry("CREDENTIALS_DIRECTORY".to_owned()).or_insert_with(|| folder.display().to_string());
    invocation.settings_file = Some(file);
    Ok(())
}

fn in_folder(path: &str, folder: &Path) -> String {
    path.strip_prefix(CREDENTIALS).map_or_else(|| path.to_owned(), |name| folder.join(name).display().to_string())
}

/// The file that systemd copies a credential from; what is no credential of the service is its own original.
pub fn original(path: &Path) -> PathBuf {
    path.strip_prefix(CREDENTIALS).map_or_else(|_| path.to_owned(), |name| Path::new(FOLDER).join(name))
}

/// The settings with their lines, read as systemd reads an `EnvironmentFile`. More complicated syntax is refused, as by
/// `scripts/install`. An error does not show the line, which could be a password.
fn parse(text: &str) -> Result<BTreeMap<String, (usize, String)>, (usize, String)> {
    let mut settings = BTreeMap::new();
    for (line, text) in (1..).zip(text.lines()) {
        let failed = |why: &str| Err((line, why.to_owned()));
        let text = text.trim_matches([' ', '\t', '\r']);
        if text.starts_with(['#', ';']) {
            // Before systemd 254 the next line belongs to the comment.
            if text.ends_with('\\') {
                return failed("is a comment that ends in a backslash; remove the backslash");
            }
            continue;
        }
        if text.is_empty() {
            continue;
        }
        let Some((name, value)) = text.split_once('=') else { return failed("is not NAME=VALUE") };
        let (name, value) = (name.trim_end(), value.trim_start());
        let is_name = |it: &str| it.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_') && !it.is_empty();
        if !is_name(name) || name.starts_with(|it: char| it.is_ascii_digit()) {
            return failed("is not NAME=VALUE");
        }
        let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
        let value = match (quoted('\''), quoted('"')) {
            (Some(value), _) if !value.contains('\'') => value,
            (_, Some(value)) if !value.contains(['"', '\\']) => value,
            _ if !value.contains(['\'', '"', '\\']) => value,
            _ => return Err((line, format!("has a quote or a backslash; put the value of {name} into single quotes"))),
        };
        settings.insert(name.to_owned(), (line, value.to_owned()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T13: a settings file is read as systemd and `scripts/install` read it, and an error names the line without its text.
    #[test]
    fn the_file_is_read_as_systemd_reads_it() {
        let text = "# comment\n\n ; another\nA=1\n B = x y \nC='a \\ \"b'\nD=\"q 'r\"\nE=\nA=2\r\nF=a=b#c";
        let read = parse(text).unwrap();
        let read: Vec<_> = read.iter().map(|(name, (line, value))| (&**name, *line, &**value)).collect();
        let expected =
            [("A", 9, "2"), ("B", 5, "x y"), ("C", 6, "a \\ \"b"), ("D", 7, "q 'r"), ("E", 8, ""), ("F", 10, "a=b#c")];
        assert_eq!(read, expected);
        for (text, expected) in [
            ("A=1\nhunter2", (2, "is not NAME=VALUE")),
            ("1A=hunter2", (1, "is not NAME=VALUE")),
            ("=hunter2", (1, "is not NAME=VALUE")),
            ("A='hunter2", (1, "has a quote or a backslash; put the value of A into single quotes")),
            ("A='hun'ter2'", (1, "has a quote or a backslash; put the value of A into single quotes")),
            ("A=hunter2\\", (1, "has a quote or a backslash; put the value of A into single quotes")),
            ("# x \\\nA=hunter2", (1, "is a comment that ends in a backslash; remove the backslash")),
        ] {
            assert_eq!(parse(text), Err((expected.0, expected.1.to_owned())), "{text}");
        }
    }
}
