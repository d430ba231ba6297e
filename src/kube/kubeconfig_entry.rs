//! The clusters, users and contexts of a kubeconfig: their fields, checked.

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
use super::token::{Token, read_file, read_token};
use super::yaml::PLAIN;
use crate::net::{ClientIdentity, Peer, Roots, TlsSettings, Verify};
use crate::secret::Secret;

/// The beginning of PEM that was encoded as base64.
const ENCODED_PEM: &[u8] = b"LS0tLS1CRUdJTi";

/// A cluster, user or context, with the file it comes from: relative paths start at that file's folder.
pub(super) struct Entry<'a> {
    pub what: String,
    pub file: &'a Path,
    pub value: &'a Value,
}

impl<'a> Entry<'a> {
    pub fn error(&self, why: impl fmt::Display) -> ConfigError {
        ConfigError(format!("kubeconfig {}: {}: {why}", self.file.display(), self.what))
    }

    /// A text field; `None` if it is absent or null.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        match &self.value[key] {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            _ => Err(self.error(format!("{key} is not text"))),
        }
    }

    pub fn is_on(&self, key: &str) -> Result<bool, ConfigError> {
        match &self.value[key] {
            Value::Null => Ok(false),
            Value::Bool(is_on) => Ok(*is_on),
            _ => Err(self.error(format!("{key} must be true or false, without quotes"))),
        }
    }

    /// Rejects fields that would change the identity or the server and are not supported.
    pub fn reject(&self, keys: &[&str]) -> Result<(), ConfigError> {
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
        let bytes = read_file(&file, key).map_err(|error| self.error(error))?;
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

    pub fn server(&self) -> Result<String, ConfigError> {
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

    pub fn trust(&self) -> Result<TlsSettings, ConfigError> {
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

    pub fn credentials(&self) -> Result<(Option<ClientIdentity>, Option<Token>), ConfigError> {
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
    pub fn exec(&self) -> Option<Entry<'a>> {
        let value = &self.value["exec"];
        (!value.is_null()).then(|| Entry { what: format!("exec of {}", self.what), file: self.file, value })
    }

    pub fn plugin(&self, cluster: Option<Value>, path: Option<OsString>) -> Result<Plugin, ConfigError> {
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
    pub fn info_for_plugin(&self, server: &str, trust: &TlsSettings) -> Value {
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
