//! Exec plugins: programs that print a credential (K3). Here one is run, within limits, and its answer decoded; when it
//! is run is decided in `credentials`.
//!
//! Facts: client-go `plugin/pkg/client/auth/exec/exec.go` and `pkg/apis/clientauthentication/v1/types.go`.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, TryRecvError, bounded, select};
use log::info;
use serde::Deserialize;

use super::error::ConfigError;
use crate::net::{self, ClientIdentity};
use crate::secret::Secret;
use crate::time;

/// The versions of the protocol; both have the same fields.
pub(super) const API_VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];

/// How long a plugin may take.
const MAX_RUN: Duration = Duration::from_secs(20);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// How much of a plugin's stderr is read, in bytes, and how much of it is shown, in characters.
const MAX_STDERR: u64 = 4096;
const MAX_SHOWN: usize = 300;

/// A credential is used at least so long, whatever its expiry: the clock here may be wrong, and the server decides.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// The longest life of a credential; after it the plugin runs again.
const MAX_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// A program that prints a credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Plugin {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) api_version: String,
    /// What `KUBERNETES_EXEC_INFO` holds.
    pub(super) info: String,
    /// How to get the program, from the kubeconfig.
    pub(super) hint: String,
}

/// Arguments and environment may hold secrets.
impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plugin({:?})", self.program)
    }
}

/// The credential that a plugin printed. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The bearer token.
    pub token: Option<Secret>,
    /// The client certificate.
    pub identity: Option<ClientIdentity>,
    /// When it expires, in seconds since 1970.
    pub expires: Option<u64>,
}

impl Credential {
    /// How long it is valid from now on.
    pub(super) fn life(&self) -> Option<Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let life = Duration::from_secs(self.expires?).saturating_sub(now);
        Some(life.clamp(SHORTEST_LIFE, MAX_LIFE))
    }
}

impl Plugin {
    /// Runs it once. A closed channel ends the wait at once.
    pub(super) fn run(&self, closed: &Receiver<()>) -> Result<Credential, ConfigError> {
        let mut child = self.command().spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.error(&format!("not found{}", self.hint)),
            _ => self.error(&format!("failed to start: {error}")),
        })?;
        let (status, answer, stderr) = self.wait(&mut child, closed).inspect_err(|_| end_group(&mut child))?;
        let details = if stderr.is_empty() { String::new() } else { format!("; stderr: {stderr}") };
        if !status.success() {
            return Err(self.error(&format!("failed ({status}){details}")));
        }
        let credential = decode(&answer, &self.api_version).map_err(|why| self.error(&format!("{why}{details}")))?;
        let token = credential.token.as_ref();
        if !stderr.is_empty() && !token.is_some_and(|it| stderr.contains(it.expose())) {
            info!(name:% = self.program.display(), reason = stderr; "credential plugin wrote to stderr");
        }
        Ok(credential)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            // The daemon's own; the environment of the kubeconfig takes precedence.
            .env_remove("ACI_PASSWORD")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("KUBERNETES_EXEC_INFO", &self.info)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }

    fn error(&self, why: &str) -> ConfigError {
        ConfigError(format!("credential plugin {:?}: {why}", self.program))
    }

    /// The error after the time limit: if the plugin itself has ended, a process that it started keeps its output open.
    fn held_open(&self, child: &mut Child, closed: &Receiver<()>, error: ConfigError) -> ConfigError {
        let is_closed = closed.try_recv() == Err(TryRecvError::Disconnected);
        match child.try_wait() {
            Ok(Some(_)) if !is_closed => self.error(&format!(
                "ended, but a process that it started kept its output open for {} s; that process must close or redirect it",
                MAX_RUN.as_secs()
            )),
            _ => error,
        }
    }

    /// Its exit status, stdout and stderr, all within the time limit.
    fn wait(&self, child: &mut Child, closed: &Receiver<()>) -> Result<(ExitStatus, Vec<u8>, String), ConfigError> {
        let deadline = Instant::now() + MAX_RUN;
        let too_long = || self.error(&format!("did not end within {} s and was killed", MAX_RUN.as_secs()));
        let failed = |error: io::Error| self.error(&format!("failed to read its output: {error}"));
        let answer = read_aside(child.stdout.take(), MAX_ANSWER + 1).map_err(failed)?;
        let stderr = read_aside(child.stderr.take(), MAX_STDERR).map_err(failed)?;
        let next = |pipe: &Receiver<Vec<u8>>| {
            select! {
                recv(pipe) -> bytes => Ok(bytes.unwrap_or_default()),
                recv(closed) -> _ => Err(self.error("stopped")),
                default(deadline.saturating_duration_since(Instant::now())) => Err(too_long()),
            }
        };
        let answer = next(&answer).map_err(|error| self.held_open(child, closed, error))?;
        if answer.len() as u64 > MAX_ANSWER {
            return Err(self.error(&format!("printed more than {MAX_ANSWER} bytes and was killed")));
        }
        let stderr = next(&stderr).map_err(|error| self.held_open(child, closed, error))?;
        let stderr = one_line(&String::from_utf8_lossy(&stderr));
        // Its pipes are closed, so it ends soon.
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok((status, answer, stderr));
            }
            if Instant::now() >= deadline {
                return Err(too_long());
            }
            select! {
                recv(closed) -> _ => return Err(self.error("stopped")),
                default(Duration::from_millis(5)) => {}
            }
        }
    }
}

/// What was printed instead of an ExecCredential.
fn no_credential(answer: &[u8]) -> String {
    let is_one = |it: &ExecCredential| it.kind == "ExecCredential";
    let begins_with_one = |bytes: &[u8]| {
        serde_json::Deserializer::from_slice(bytes)
            .into_iter::<ExecCredential>()
            .next()
            .is_some_and(|it| it.as_ref().is_ok_and(is_one))
    };
    let why = if answer.trim_ascii().is_empty() {
        ": empty output; run it by hand to see if it asks for a login"
    } else if begins_with_one(answer) {
        ": text after it; nothing else may go to stdout"
    } else if answer.iter().position(|it| *it == b'{').is_some_and(|at| at > 0 && begins_with_one(&answer[at..])) {
        ": text before it; nothing else may go to stdout"
    } else {
        ""
    };
    format!("printed no ExecCredential{why}")
}

/// Reads a pipe to its end in a thread of its own, and keeps the beginning. The thread is not joined: another process
/// may hold the pipe open.
fn read_aside(pipe: Option<impl Read + Send + 'static>, most: u64) -> io::Result<Receiver<Vec<u8>>> {
    let (sender, receiver) = bounded(1);
    let read = move || {
        let Some(mut pipe) = pipe else { return };
        let mut bytes = Vec::new();
        let _ = pipe.by_ref().take(most).read_to_end(&mut bytes);
        // A too long answer is an error; the rest of a long stderr is read and dropped.
        if most < MAX_ANSWER {
            let _ = io::copy(&mut pipe, &mut io::sink());
        }
        let _ = sender.send(bytes);
    };
    std::thread::Builder::new().name("credential-plugin".to_owned()).spawn(read)?;
    Ok(receiver)
}

/// Kills a plugin with all that it started. The standard library kills single processes only, so the program `kill` is
/// used; without it, the plugin alone is killed.
fn end_group(child: &mut Child) {
    let mut kill = Command::new("kill");
    kill.args(["-KILL", "--", &format!("-{}", child.id())]);
    let _ = kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let _ = child.kill();
    let _ = child.wait();
}

/// Whether a token fits into an HTTP header.
pub(super) fn is_header_value(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| (b'!'..=b'~').contains(&it))
}

/// A text from outside as a part of a line.
pub(super) fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).take(MAX_SHOWN).collect();
    line.trim().to_owned()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential {
    kind: String,
    api_version: String,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<String>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

/// Decodes the output of a plugin in the requested version. The error quotes nothing of it.
pub fn decode(answer: &[u8], api_version: &str) -> Result<Credential, String> {
    let not_one = || no_credential(answer);
    let answer: ExecCredential = serde_json::from_slice(answer).map_err(|_| not_one())?;
    if answer.kind != "ExecCredential" {
        return Err("printed no ExecCredential".to_owned());
    }
    if answer.api_version != api_version {
        return Err(format!("answered in another version than {api_version} of the kubeconfig"));
    }
    let status = answer.status.ok_or("printed an ExecCredential without a status")?;
    let given = |text: Option<String>| text.filter(|it| !it.is_empty());
    let token = given(status.token);
    if token.as_ref().is_some_and(|it| !is_header_value(it)) {
        return Err("printed a token with invalid characters".to_owned());
    }
    let identity = match (given(status.client_certificate_data), given(status.client_key_data)) {
        (Some(chain), Some(key)) => Some(ClientIdentity { chain: chain.into_bytes(), key: Secret::new(key) }),
        (None, None) => None,
        _ => return Err("printed a certificate without a key, or a key without a certificate".to_owned()),
    };
    if let Some(identity) = &identity {
        net::identity(identity).map_err(|why| format!("printed an unusable certificate: {why}"))?;
    }
    if token.is_none() && identity.is_none() {
        return Err("printed neither a token nor a certificate".to_owned());
    }
    let expires = given(status.expiration_timestamp)
        .map(|it| time::parse_rfc3339(&it).ok_or("printed an invalid expirationTimestamp"));
    Ok(Credential { token: token.map(Secret::new), identity, expires: expires.transpose()? })
}
