//! The API server and the credentials for it, from kubeconfig files or the environment of a Pod (K3).
//!
//! Facts: client-go `tools/clientcmd/loader.go` (merging, relative paths) and `rest/config.go` (in-cluster).

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use log::warn;
use serde_json::{Value, json};
use ureq::http::Uri;
use ureq::http::uri::Authority;

use super::error::ConfigError;
use super::plugin::{self, Plugin, is_header_value};
use super::yaml::{self, PLAIN};
use crate::files;
use crate::net::{ClientIdentity, Peer, Roots, TlsSettings, Verify};
use crate::secret::Secret;

/// The largest kubeconfig, certificate or token file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The beginning of PEM that was encoded as base64.
const ENCODED_PEM: &[u8] = b"LS0tLS1CRUdJTi";

/// The folder of a ServiceAccount's files inside a Pod.
const IN_CLUSTER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

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
    let roots = Roots::Pem(read(&file, "the CA of the cluster")?);
    let token = folder.join("token");
    read_token(&token)?;
    let roots_from = file.display().to_string();
    let tls = TlsSettings { roots, roots_from, peer: Peer::Kubernetes, ..TlsSettings::default() };
    Ok(ClusterConfig { server: format!("https://{host}:{port}"), tls, token: Some(Token::File(token)) })
}

/// Reads a token file.
pub fn read_token(file: &Path) -> Result<Secret, ConfigError> {
    let bytes = read(file, "the token file")?;
    let text = String::from_utf8(bytes).ok().map(|it| it.trim().to_owned()).filter(|it| is_header_value(it));
    text.map(Secret::new).ok_or_else(|| ConfigError(format!("token file {}: no valid token in it", file.display())))
}

fn read(file: &Path, what: &str) -> Result<Vec<u8>, ConfigError> {
    files::read(file, MAX_FILE).map_err(|why| ConfigError(format!("failed to read {what} {}: {why}", file.display())))
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

/// A cluster, user or context, with the file it comes from: relative paths start at that file's folder.
struct Entry<'a> {
    what: String,
    file: &'a Path,
    value: &'a Value,
}

impl Kubeconfig {
    fn read(files: impl IntoIterator<Item = PathBuf>) -> Result<Kubeconfig, ConfigError> {
        let mut read_files = Vec::new();
        for file in files {
            let error = |why: &str| ConfigError(format!("kubeconfig {}: {why}", file.display()));
            let bytes = read(&file, "the kubeconfig")?;
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

impl<'a> Entry<'a> {
    fn error(&self, why: impl fmt::Display) -> ConfigError {
        ConfigError(format!("kubeconfig {}: {}: {why}", self.file.display(), self.what))
    }

    /// A text field; `None` if it is absent or null.
    fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        match &self.value[key] {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            _ => Err(self.error(format!("{key} is not text"))),
        }
    }

    fn is_on(&self, key: &str) -> Result<bool, ConfigError> {
        match &self.value[key] {
            Value::Null => Ok(false),
            Value::Bool(is_on) => Ok(*is_on),
            _ => Err(self.error(format!("{key} must be true or false, without quotes"))),
        }
    }

    /// Rejects fields that would change the identity or the server and are not supported.
    fn reject(&self, keys: &[&str]) -> Result<(), ConfigError> {
        for key in keys {
            let value = &self.value[*key];
            let is_empty = value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty);
            if !is_empty {
                let remedy = "use a client certificate or a token, and a direct connection";
                return Err(self.error(format!("{key} is not supported; {remedy}")));
            }
        }
        Ok(())
    }

    /// The bytes of `{key}-data`, which is base64, or else of the file named by `{key}`.
    fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>, ConfigError> {
        if let Some(data) = self.text(&format!("{key}-data"))?.filter(|it| !it.is_empty()) {
            let encoded: String = data.split_ascii_whitespace().collect();
            let bytes = openssl::base64::decode_block(&encoded)
                .map_err(|_| self.error(format!("{key}-data is not base64; {PLAIN}")))?;
            if bytes.starts_with(ENCODED_PEM) {
                return Err(self.error(format!("{key}-data is encoded as base64 twice; {PLAIN}")));
            }
            return Ok(Some(bytes));
        }
        let Some(file) = self.path(key)? else { return Ok(None) };
        let bytes = read(&file, key).map_err(|error| self.error(error))?;
        if bytes.starts_with(ENCODED_PEM) {
            let why = "is PEM encoded as base64; decode it with `base64 -d`, or use";
            return Err(self.error(format!("{key} {} {why} {key}-data", file.display())));
        }
        Ok(Some(bytes))
    }

    fn path(&self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        let file = self.text(key)?.filter(|it| !it.is_empty());
        let folder = self.file.parent().unwrap_or(Path::new(""));
        Ok(file.map(|it| folder.join(it)))
    }

    fn server(&self) -> Result<String, ConfigError> {
        let server = self.text("server")?.unwrap_or_default().trim_end_matches('/');
        if server.contains('@') {
            // The part before it may hold a password, so nothing of it is shown (A4).
            return Err(self.error("server must be https://host[:port][/path] without a user"));
        }
        // A URL's scheme has no case.
        let rest = server.split_at_checked(8).filter(|it| it.0.eq_ignore_ascii_case("https://")).map(|it| it.1);
        let rest = rest.ok_or_else(|| {
            self.error(format!("server {server:?} must begin with https://; credentials are sent over TLS only"))
        })?;
        let server = format!("https://{rest}");
        // Checked now and not at every request.
        let address: Option<Uri> = server.parse().ok().filter(|_| !rest.contains(['?', '#']));
        let authority = address.as_ref().and_then(Uri::authority);
        let is_whole = |it: &Authority| !it.host().is_empty() && (it.port().is_some() || it.as_str() == it.host());
        if !authority.is_some_and(is_whole) {
            return Err(self.error(format!("server {server:?} must be https://host[:port][/path]")));
        }
        Ok(server)
    }

    fn trust(&self) -> Result<TlsSettings, ConfigError> {
        let ca = self.bytes("certificate-authority")?;
        let insecure = self.is_on("insecure-skip-tls-verify")?;
        if insecure && ca.is_some() {
            return Err(self.error("insecure-skip-tls-verify and certificate-authority exclude each other; remove one"));
        }
        if insecure {
            warn!("insecure-skip-tls-verify is set: another host can pose as the API server and take the credentials");
        }
        Ok(TlsSettings {
            roots: ca.map_or(Roots::System, Roots::Pem),
            roots_from: format!("certificate-authority of {} in kubeconfig {}", self.what, self.file.display()),
            verify: if insecure { Verify::Nothing } else { Verify::Chain },
            identity: None,
            peer: Peer::Kubernetes,
            server_name: self.text("tls-server-name")?.filter(|it| !it.is_empty()).map(str::to_owned),
        })
    }

    fn credentials(&self) -> Result<(Option<ClientIdentity>, Option<Token>), ConfigError> {
        self.reject(&["username", "password", "auth-provider", "as", "as-uid", "as-groups", "as-user-extra"])?;
        let identity = match (self.bytes("client-certificate")?, self.bytes("client-key")?) {
            (Some(chain), Some(key)) => {
                let key = String::from_utf8(key).map_err(|_| self.error("client-key is not PEM"))?;
                Some(ClientIdentity { chain, key: Secret::new(key) })
            }
            (None, None) => None,
            (Some(_), None) => return Err(self.error("client-certificate without client-key")),
            (None, Some(_)) => return Err(self.error("client-key without client-certificate")),
        };
        // A token file may be renewed, so it takes precedence over a token beside it.
        let token = match (self.path("tokenFile")?, self.text("token")?.filter(|it| !it.is_empty())) {
            (Some(file), _) => {
                read_token(&file)?;
                Some(Token::File(file))
            }
            (None, Some(token)) if is_header_value(token) => Some(Token::Fixed(Secret::new(token))),
            (None, Some(_)) => return Err(self.error("token with invalid characters")),
            (None, None) => None,
        };
        Ok((identity, token))
    }

    /// The plugin of a user.
    fn exec(&self) -> Option<Entry<'a>> {
        let value = &self.value["exec"];
        (!value.is_null()).then(|| Entry { what: format!("exec of {}", self.what), file: self.file, value })
    }

    fn plugin(&self, cluster: Option<Value>, path: Option<OsString>) -> Result<Plugin, ConfigError> {
        let needed = |key: &str| {
            let text = self.text(key)?.filter(|it| !it.is_empty());
            text.ok_or_else(|| self.error(format!("missing {key}")))
        };
        let api_version = needed("apiVersion")?;
        if !plugin::API_VERSIONS.contains(&api_version) {
            let known = plugin::API_VERSIONS.join(" or ");
            return Err(self.error(format!("apiVersion {api_version:?} is not supported; use {known}")));
        }
        match self.text("interactiveMode")? {
            Some("Never" | "IfAvailable") => {}
            Some("Always") => {
                return Err(self.error("interactiveMode Always is not supported: a daemon has no terminal"));
            }
            None | Some("") if api_version.ends_with("beta1") => {}
            None | Some("") => {
                return Err(self.error("missing interactiveMode; v1 needs Never or IfAvailable"));
            }
            _ => return Err(self.error("invalid interactiveMode; use Never or IfAvailable")),
        }
        let hint = plugin::one_line(self.text("installHint")?.unwrap_or_default());
        let hint = if hint.is_empty() { hint } else { format!("; {hint}") };
        let mut spec = json!({"interactive": false});
        if let Some(cluster) = cluster {
            spec["cluster"] = cluster;
        }
        Ok(Plugin {
            program: self.program(needed("command")?, path, &hint)?,
            arguments: self.list("args", |it| {
                it.as_str().map(str::to_owned).ok_or("args must be text; put them in quotes".to_owned())
            })?,
            environment: self.list("env", |it| {
                let name = it["name"].as_str().filter(|it| !it.is_empty() && !it.contains('='));
                let name = name.ok_or("env has an entry without a valid name")?;
                match &it["value"] {
                    Value::Null => Ok((name.to_owned(), String::new())),
                    Value::String(value) => Ok((name.to_owned(), value.clone())),
                    _ => Err(format!("the value of {name:?} in env must be text; put it in quotes")),
                }
            })?,
            api_version: api_version.to_owned(),
            info: json!({"kind": "ExecCredential", "apiVersion": api_version, "spec": spec}).to_string(),
            hint,
        })
    }

    /// The path of a program: relative to the kubeconfig, or found in `PATH` if it has no slash.
    fn program(&self, command: &str, path: Option<OsString>, hint: &str) -> Result<PathBuf, ConfigError> {
        let places: Vec<PathBuf> = if command.contains('/') {
            vec![self.file.parent().unwrap_or(Path::new("")).join(command)]
        } else {
            std::env::split_paths(&path.unwrap_or_default())
                .filter(|it| it.is_absolute())
                .map(|it| it.join(command))
                .collect()
        };
        let is_program =
            |it: &PathBuf| std::fs::metadata(it).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
        let program = places.into_iter().find(is_program);
        program.ok_or_else(|| self.error(format!("program {command:?} not found{hint}")))
    }

    fn list<T>(&self, key: &str, read: impl Fn(&Value) -> Result<T, String>) -> Result<Vec<T>, ConfigError> {
        match &self.value[key] {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => items.iter().map(|it| read(it).map_err(|why| self.error(why))).collect(),
            _ => Err(self.error(format!("{key} must be a list"))),
        }
    }

    /// What a plugin gets to know about a cluster.
    fn info_for_plugin(&self, server: &str, trust: &TlsSettings) -> Value {
        let mut cluster = json!({"server": server});
        if let Roots::Pem(ca) = &trust.roots {
            cluster["certificate-authority-data"] = openssl::base64::encode_block(ca).into();
        }
        if let Some(name) = &trust.server_name {
            cluster["tls-server-name"] = name.as_str().into();
        }
        if matches!(trust.verify, Verify::Nothing) {
            cluster["insecure-skip-tls-verify"] = true.into();
        }
        let mut extensions = self.value["extensions"].as_array().into_iter().flatten();
        let own = extensions.find(|it| it["name"] == "client.authentication.k8s.io/exec");
        if let Some(own) = own {
            cluster["config"] = own["extension"].clone();
        }
        cluster
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
