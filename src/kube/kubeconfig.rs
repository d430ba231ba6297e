//! The API server and the credentials for it, from kubeconfig files or the environment of a Pod (K3).
//!
//! Facts: client-go `tools/clientcmd/loader.go` (merging, relative paths) and `rest/config.go` (in-cluster).

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use log::warn;
use serde_json::Value;

use super::error::ConfigError;
use super::kubeconfig_entry::Entry;
use super::token::{Token, read_file, read_token};
use super::yaml::{self, PLAIN};
use crate::net::{Peer, Roots, TlsSettings};

/// The folder of a ServiceAccount's files inside a Pod.
const IN_CLUSTER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// An API server and the credentials for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// `https://host[:port][/prefix]`, without a slash at the end.
    pub server: String,
    /// Trust and client certificate.
    pub tls: TlsSettings,
    /// The bearer token.
    pub token: Option<Token>,
}

/// Finds the configuration: the given file, the files of `KUBECONFIG`, `~/.kube/config`, the Pod's own.
pub fn load(
    file: Option<&Path>,
    context: Option<&str>,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<ClusterConfig, ConfigError> {
    let given = |name: &str| env(name).filter(|it| !it.is_empty());
    if let Some(file) = file {
        return Kubeconfig::read([file.to_owned()])?.choose(context, env);
    }
    if let Some(list) = given("KUBECONFIG") {
        let mut files: Vec<PathBuf> = Vec::new();
        for file in std::env::split_paths(&list) {
            if !file.as_os_str().is_empty() && !files.contains(&file) && file.exists() {
                files.push(file);
            }
        }
        if files.is_empty() {
            return Err(ConfigError(format!("no file of KUBECONFIG exists: {}", list.to_string_lossy())));
        }
        return Kubeconfig::read(files)?.choose(context, env);
    }
    let home = given("HOME").map(|it| PathBuf::from(it).join(".kube/config")).filter(|it| it.exists());
    if let Some(file) = home {
        return Kubeconfig::read([file])?.choose(context, env);
    }
    match (given("KUBERNETES_SERVICE_HOST"), given("KUBERNETES_SERVICE_PORT")) {
        (Some(host), Some(port)) => in_cluster(Path::new(IN_CLUSTER), &host.to_string_lossy(), &port.to_string_lossy()),
        _ => {
            Err(ConfigError("no kubeconfig found; use --kubeconfig or KUBECONFIG, or create ~/.kube/config".to_owned()))
        }
    }
}

fn in_cluster(folder: &Path, host: &str, port: &str) -> Result<ClusterConfig, ConfigError> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let file = folder.join("ca.crt");
    let roots = Roots::Pem(read_file(&file, "the CA of the cluster")?);
    let token = folder.join("token");
    read_token(&token)?;
    let roots_from = file.display().to_string();
    let tls = TlsSettings { roots, roots_from, peer: Peer::Kubernetes, ..TlsSettings::default() };
    Ok(ClusterConfig { server: format!("https://{host}:{port}"), tls, token: Some(Token::File(token)) })
}

/// Several files as one. A named entry comes from the first file that has it; entries are not merged.
struct Kubeconfig {
    files: Vec<(PathBuf, Value)>,
}

/// The format of a file that is not YAML.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16 text instead of UTF-8"),
        // Without a byte order mark: every other byte of plain English is zero.
        [0, _, ..] | [_, 0, ..] => Some("UTF-16 text or binary data instead of UTF-8"),
        [0x30, 0x80..=0x84, ..] => Some("a certificate or key in DER instead of a kubeconfig"),
        _ if bytes.starts_with(b"-----BEGIN ") => Some("a certificate or key in PEM instead of a kubeconfig"),
        // "apiVersion", "kind", "clusters", "current-context" and "---" as base64.
        _ if [&b"YXBpVmVyc2lvb"[..], b"a2luZD", b"Y2x1c3RlcnM6", b"Y3VycmVudC1jb250ZXh0", b"LS0tCm"]
            .iter()
            .any(|it| bytes.starts_with(it)) =>
        {
            Some("encoded as base64; decode it with `base64 -d`")
        }
        _ => None,
    }
}

/// Rejects what client-go rejects, and what would otherwise count as absent.
fn check_entries(value: &Value) -> Result<(), String> {
    for kind in ["cluster", "user", "context"] {
        let entries = match &value[format!("{kind}s")] {
            Value::Null => continue,
            Value::Array(entries) => entries,
            _ => return Err(format!("{kind}s is not a list")),
        };
        let mut names = HashSet::new();
        for name in entries.iter().filter_map(|it| it["name"].as_str()) {
            if !names.insert(name) {
                return Err(format!("{kind} {name:?} is defined twice"));
            }
        }
    }
    match &value["current-context"] {
        Value::Null | Value::String(_) => Ok(()),
        _ => Err("current-context is not text".to_owned()),
    }
}

impl Kubeconfig {
    fn read(files: impl IntoIterator<Item = PathBuf>) -> Result<Kubeconfig, ConfigError> {
        let mut read_files = Vec::new();
        for file in files {
            let error = |why: &str| ConfigError(format!("kubeconfig {}: {why}", file.display()));
            let bytes = read_file(&file, "the kubeconfig")?;
            if let Some(what) = other_format(&bytes) {
                return Err(error(&format!("{what}; {PLAIN}")));
            }
            let text = String::from_utf8(bytes).map_err(|_| error(&format!("not UTF-8 text; {PLAIN}")))?;
            let document = yaml::parse(text.trim_start_matches('\u{feff}')).map_err(|why| error(&why))?;
            if document.has_more {
                warn!(name:% = file.display(); "kubeconfig has several YAML documents; using the first");
            }
            check_entries(&document.value).map_err(|why| error(&why))?;
            read_files.push((file, document.value));
        }
        Ok(Kubeconfig { files: read_files })
    }

    /// The entry of a kind (`cluster`, `user`, `context`) with a name.
    fn entry(&self, kind: &str, name: &str) -> Result<Entry<'_>, ConfigError> {
        for (file, value) in &self.files {
            let entries = value[format!("{kind}s")].as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(entry) = entries.iter().find(|it| it["name"] == name) {
                return Ok(Entry { what: format!("{kind} {name:?}"), file, value: &entry[kind] });
            }
        }
        Err(ConfigError(format!("kubeconfig {}: {kind} {name:?} not found", self.names())))
    }

    fn names(&self) -> String {
        self.files.iter().map(|(file, _)| file.display().to_string()).collect::<Vec<_>>().join(", ")
    }

    fn choose(
        &self,
        context: Option<&str>,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<ClusterConfig, ConfigError> {
        let current = self.files.iter().filter_map(|(_, value)| value["current-context"].as_str());
        let name = context.or_else(|| current.clone().find(|it| !it.is_empty()));
        let no_context = || {
            let is_empty = self.files.iter().all(|(_, value)| value.is_null());
            let why = if is_empty { "the file is empty" } else { "no current-context; choose one with --context" };
            ConfigError(format!("kubeconfig {}: {why}", self.names()))
        };
        let context = self.entry("context", name.ok_or_else(no_context)?)?;
        let cluster = self.entry("cluster", context.text("cluster")?.unwrap_or_default())?;
        let user = match context.text("user")? {
            Some(user) if !user.is_empty() => Some(self.entry("user", user)?),
            _ => None,
        };
        cluster.reject(&["proxy-url"])?;
        let (server, trust) = (cluster.server()?, cluster.trust()?);
        let (identity, mut token) = match &user {
            Some(user) => user.credentials()?,
            None => (None, None),
        };
        let exec = user.as_ref().and_then(Entry::exec);
        if let Some(exec) = exec {
            if token.is_some() || identity.is_some() {
                return Err(exec.error("not allowed beside a token or a client-certificate; remove one"));
            }
            let info = exec.is_on("provideClusterInfo")?.then(|| cluster.info_for_plugin(&server, &trust));
            token = Some(Token::Plugin(Box::new(exec.plugin(info, env("PATH"))?)));
        }
        Ok(ClusterConfig { server, tls: TlsSettings { identity, ..trust }, token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Verify;

    /// K3: inside a Pod, the ServiceAccount's files and two variables are enough; IPv6 gets its brackets.
    #[test]
    fn in_a_pod() {
        let folder = std::env::temp_dir().join(format!("aci-sync-pod-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        assert!(in_cluster(&folder, "10.96.0.1", "443").unwrap_err().0.contains("ca.crt: "));
        std::fs::write(folder.join("ca.crt"), "CA").unwrap();
        assert!(in_cluster(&folder, "10.96.0.1", "443").unwrap_err().0.contains("/token: "));
        std::fs::write(folder.join("token"), "t\n").unwrap();
        for (host, server) in [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")] {
            let config = in_cluster(&folder, host, "443").unwrap();
            assert_eq!((config.server.as_str(), config.token), (server, Some(Token::File(folder.join("token")))));
            assert_eq!((config.tls.roots, config.tls.verify), (Roots::Pem(b"CA".to_vec()), Verify::Chain));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
