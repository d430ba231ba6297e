//! Exec plugins: programs that print a credential (K3). How one is run, for how long, and what is believed of its
//! answer; when it is run is the business of `credentials.rs`.
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

use super::kubeconfig::{ConfigError, is_header_value};
use crate::net::{self, ClientIdentity};
use crate::secret::Secret;
use crate::time;

/// The versions of the protocol; both have the same fields.
pub(super) const API_VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];

/// How long a plugin may take. A request that waits for one stays within the reconciler's minute.
const MAX_RUN: Duration = Duration::from_secs(20);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// How much is read of what a plugin complains about, in bytes, and how much of it is told, in characters.
const MAX_COMPLAINT: u64 = 4096;
const TOLD: usize = 300;

/// How long a credential counts whatever its expiry says: the clock here may be wrong, and the server decides.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// Beyond that nothing is believed; then the plugin is asked again.
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
    /// How to get the program, in the words of the kubeconfig.
    pub(super) hint: String,
}

/// Arguments and environment may hold secrets.
impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plugin({:?})", self.program)
    }
}

/// What a plugin printed. Nothing of it is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The bearer token.
    pub token: Option<Secret>,
    /// The client certificate.
    pub identity: Option<ClientIdentity>,
    /// When it ends, in seconds since 1970.
    pub expires: Option<u64>,
}

impl Credential {
    /// How long it counts from now on.
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
            io::ErrorKind::NotFound => self.error(&format!("cannot be found{}", self.hint)),
            _ => self.error(&format!("cannot be started: {error}")),
        })?;
        let (status, answer, complaint) = self.wait(&mut child, closed).inspect_err(|_| end_group(&mut child))?;
        let said = if complaint.is_empty() { String::new() } else { format!("; it said: {complaint}") };
        if !status.success() {
            return Err(self.error(&format!("failed ({status}){said}")));
        }
        let credential = decode(&answer, &self.api_version).map_err(|why| self.error(&format!("{why}{said}")))?;
        let token = credential.token.as_ref();
        if !complaint.is_empty() && !token.is_some_and(|it| complaint.contains(it.expose())) {
            info!("the credential plugin {:?} said: {complaint}", self.program);
        }
        Ok(credential)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            // What is none of its business; what the kubeconfig sets counts more.
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
        ConfigError(format!("the credential plugin {:?} {why}", self.program))
    }

    /// The plugin's time is over: where it has ended itself, something that it started keeps its output open.
    fn held_open(&self, child: &mut Child, closed: &Receiver<()>, error: ConfigError) -> ConfigError {
        let is_closed = closed.try_recv() == Err(TryRecvError::Disconnected);
        match child.try_wait() {
            Ok(Some(_)) if !is_closed => self.error(&format!(
                "has ended, but a process that it started kept its output open for {} s; that one must close it or send it \
                 elsewhere",
                MAX_RUN.as_secs()
            )),
            _ => error,
        }
    }

    /// Its end, its answer and its complaint, all within the time that it has.
    fn wait(&self, child: &mut Child, closed: &Receiver<()>) -> Result<(ExitStatus, Vec<u8>, String), ConfigError> {
        let deadline = Instant::now() + MAX_RUN;
        let too_long = || self.error(&format!("did not end within {} s and was killed", MAX_RUN.as_secs()));
        let failed = |error: io::Error| self.error(&format!("cannot be listened to: {error}"));
        let answer = read_aside(child.stdout.take(), MAX_ANSWER + 1).map_err(failed)?;
        let complaint = read_aside(child.stderr.take(), MAX_COMPLAINT).map_err(failed)?;
        let next = |pipe: &Receiver<Vec<u8>>| {
            select! {
                recv(pipe) -> bytes => Ok(bytes.unwrap_or_default()),
                recv(closed) -> _ => Err(self.error("was stopped")),
                default(deadline.saturating_duration_since(Instant::now())) => Err(too_long()),
            }
        };
        let answer = next(&answer).map_err(|error| self.held_open(child, closed, error))?;
        if answer.len() as u64 > MAX_ANSWER {
            return Err(self.error(&format!("printed more than {MAX_ANSWER} bytes and was killed")));
        }
        let complaint = next(&complaint).map_err(|error| self.held_open(child, closed, error))?;
        let complaint = words(&String::from_utf8_lossy(&complaint));
        // Its pipes are closed, so its end is near.
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok((status, answer, complaint));
            }
            if Instant::now() >= deadline {
                return Err(too_long());
            }
            select! {
                recv(closed) -> _ => return Err(self.error("was stopped")),
                default(Duration::from_millis(5)) => {}
            }
        }
    }
}

/// What was printed in place of an ExecCredential; the end of a sentence.
fn no_credential(answer: &[u8]) -> String {
    let is_one = |it: &ExecCredential| it.kind == "ExecCredential";
    let begins_with_one = |bytes: &[u8]| {
        serde_json::Deserializer::from_slice(bytes)
            .into_iter::<ExecCredential>()
            .next()
            .is_some_and(|it| it.as_ref().is_ok_and(is_one))
    };
    let why = if answer.trim_ascii().is_empty() {
        ": its output is empty; run it by hand to see whether somebody has to log in first"
    } else if begins_with_one(answer) {
        ": there is something behind it; nothing else may go to stdout"
    } else if answer.iter().position(|it| *it == b'{').is_some_and(|at| at > 0 && begins_with_one(&answer[at..])) {
        ": there is something in front of it; nothing else may go to stdout"
    } else {
        ""
    };
    format!("printed no ExecCredential{why}")
}

/// Reads a pipe to its end by a thread of its own, and keeps the beginning. Nobody waits for the thread: a pipe that
/// somebody holds open ends with that somebody.
fn read_aside(pipe: Option<impl Read + Send + 'static>, most: u64) -> io::Result<Receiver<Vec<u8>>> {
    let (sender, receiver) = bounded(1);
    let read = move || {
        let Some(mut pipe) = pipe else { return };
        let mut bytes = Vec::new();
        let _ = pipe.by_ref().take(most).read_to_end(&mut bytes);
        // More than the answer may hold is too much; more than a part of the complaint is not worth the memory.
        if most < MAX_ANSWER {
            let _ = io::copy(&mut pipe, &mut io::sink());
        }
        let _ = sender.send(bytes);
    };
    std::thread::Builder::new().name("credential-plugin".to_owned()).spawn(read)?;
    Ok(receiver)
}

/// Ends a plugin with all that it started. The standard library ends one process only, so the program `kill` helps;
/// where there is none, the plugin itself goes all the same.
fn end_group(child: &mut Child) {
    let mut kill = Command::new("kill");
    kill.args(["-KILL", "--", &format!("-{}", child.id())]);
    let _ = kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let _ = child.kill();
    let _ = child.wait();
}

/// Somebody else's text as a part of a line.
pub(super) fn words(text: &str) -> String {
    let line: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).take(TOLD).collect();
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

/// What a plugin printed, in the version that was asked for. The error is the end of a sentence and quotes nothing.
pub fn decode(answer: &[u8], api_version: &str) -> Result<Credential, String> {
    let none = || no_credential(answer);
    let answer: ExecCredential = serde_json::from_slice(answer).map_err(|_| none())?;
    if answer.kind != "ExecCredential" {
        return Err("printed no ExecCredential".to_owned());
    }
    if answer.api_version != api_version {
        return Err(format!("answers in another version than {api_version}, which the kubeconfig asks for"));
    }
    let status = answer.status.ok_or("printed an ExecCredential without a status")?;
    let given = |text: Option<String>| text.filter(|it| !it.is_empty());
    let token = given(status.token);
    if token.as_ref().is_some_and(|it| !is_header_value(it)) {
        return Err("printed a token with characters that no token has".to_owned());
    }
    let identity = match (given(status.client_certificate_data), given(status.client_key_data)) {
        (Some(chain), Some(key)) => Some(ClientIdentity { chain: chain.into_bytes(), key: Secret::new(key) }),
        (None, None) => None,
        _ => return Err("printed one of certificate and key without the other".to_owned()),
    };
    if let Some(identity) = &identity {
        net::identity(identity).map_err(|why| format!("printed what cannot be used: {why}"))?;
    }
    if token.is_none() && identity.is_none() {
        return Err("printed neither a token nor a certificate".to_owned());
    }
    let expires =
        given(status.expiration_timestamp).map(|it| time::parse_rfc3339(&it).ok_or("printed no time as expiry"));
    Ok(Credential { token: token.map(Secret::new), identity, expires: expires.transpose()? })
}
