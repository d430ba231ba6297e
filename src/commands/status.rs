//! `status`: asks the daemon of this machine for its state. It needs neither a kubeconfig nor a password.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Environment, print};
use crate::cli::Invocation;
use crate::config;
use crate::exit::ExitError;
use crate::logging::one_line;
use crate::net::{DeadlineStream, Socket};
use crate::status::listen::ListenAddress;
use crate::time;

/// How long the daemon may take to answer, once connected.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer, in bytes.
const MAX_ANSWER: u64 = 16 << 20;

/// The most entries of a list, and the most characters of a line, that the text has. A daemon sends no more.
const MAX_LISTED: usize = 1000;
const MAX_LINE: usize = 2000;

/// The exit code if the daemon is neither in sync nor a standby.
const NOT_IN_SYNC: u8 = 2;

/// The lines of the metrics that mean that the daemon is in sync or a standby.
const STATES_IN_SYNC: [&str; 2] = ["aci_sync_state{state=\"in_sync\"} 1\n", "aci_sync_state{state=\"standby\"} 1\n"];

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Prometheus,
}

impl Format {
    fn path(self) -> &'static str {
        match self {
            Format::Text | Format::Json => "/status.json",
            Format::Prometheus => "/metrics",
        }
    }
}

/// Prints the state; 2 if it is neither in sync nor a standby, 1 if no daemon answers.
pub fn run(invocation: &Invocation, environment: &Environment) -> Result<u8, ExitError> {
    let format = match invocation.get("output").map(|given| (given, given.values[0].as_str())) {
        None | Some((_, "text")) => Format::Text,
        Some((_, "json")) => Format::Json,
        Some((_, "prometheus")) => Format::Prometheus,
        Some((given, other)) => return Err(given.invalid(format!("{other:?} is not text, json or prometheus"))),
    };
    show(&fetch(invocation, environment, format.path())?, format)
}

/// The state of the daemon, decoded. Its lists have an end, whatever answers.
pub(super) fn ask(invocation: &Invocation, environment: &Environment) -> Result<Value, ExitError> {
    let mut status = decoded(&fetch(invocation, environment, "/status.json")?)?;
    let lists = status.as_object_mut().into_iter().flatten().filter_map(|(_, it)| it.as_array_mut());
    lists.for_each(|list| list.truncate(MAX_LISTED));
    Ok(status)
}

/// The state of every daemon that answers. What serves an address and cannot be asked is an error: it may be one (T11).
pub(super) fn ask_all(invocation: &Invocation, environment: &Environment) -> Result<Vec<Value>, ExitError> {
    let mut all = Vec::new();
    for address in addresses(invocation, environment)? {
        let stream = match address.connect() {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ExitError::failed(denied(&address, &error)));
            }
            Err(_) => continue,
        };
        let failed = |why: String| ExitError::failed(format!("{address}: a daemon may run there: {why}"));
        let answer = get(stream, "/status.json").map_err(|error| failed(error.to_string()))?;
        all.push(decoded(&answer).map_err(|error| failed(error.message))?);
    }
    Ok(all)
}

fn denied(address: &ListenAddress, error: &io::Error) -> String {
    format!("failed to connect to {address}: {error}; run it as root, such as with sudo")
}

/// The addresses of `--listen`, or else where the service listens.
fn addresses(invocation: &Invocation, environment: &Environment) -> Result<Vec<ListenAddress>, ExitError> {
    let mut addresses = config::listen(invocation, environment)?;
    if addresses.is_empty() && invocation.get("listen").is_none() {
        addresses.push(ListenAddress::Unix("/run/aci-sync/aci-sync.sock".into()));
    }
    // A socket file belongs to this machine's daemon, whatever answers on a port.
    addresses.sort_by_key(|address| !matches!(address, ListenAddress::Unix(_)));
    Ok(addresses)
}

/// The answer of the first address of `--listen` that answers.
fn fetch(invocation: &Invocation, environment: &Environment, path: &str) -> Result<String, ExitError> {
    let addresses = addresses(invocation, environment)?;
    let mut errors = Vec::new();
    for address in &addresses {
        match address.connect().and_then(|stream| get(stream, path)) {
            Ok(answer) => return Ok(answer),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ExitError::failed(denied(address, &error)));
            }
            Err(error) => errors.push(format!("{address}: {error}")),
        }
    }
    let errors = if errors.is_empty() { "--listen is off".to_owned() } else { errors.join("; ") };
    Err(ExitError::failed(format!("no daemon answers: {errors}; name its address with --listen")))
}

/// One request, whose answer is read to its end.
fn get(stream: Arc<dyn Socket>, path: &str) -> io::Result<String> {
    let mut stream = DeadlineStream::new(stream, TIMEOUT);
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let count = stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let text = String::from_utf8(answer).map_err(|_| io::Error::other("the answer is not UTF-8"))?;
    if count as u64 == MAX_ANSWER {
        return Err(io::Error::other("the answer is too long"));
    }
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        Some((head, _)) => Err(io::Error::other(format!("it answered {:?}", head.lines().next().unwrap_or_default()))),
        None => Err(io::Error::other("it is no status server")),
    }
}

fn show(answer: &str, format: Format) -> Result<u8, ExitError> {
    if format == Format::Prometheus {
        print(answer);
        return Ok(exit_code(STATES_IN_SYNC.iter().any(|line| answer.contains(line))));
    }
    let status = decoded(answer)?;
    print(&if format == Format::Json { answer.to_owned() } else { text(&status) });
    Ok(exit_code(matches!(status["state"].as_str(), Some("in_sync" | "standby"))))
}

fn exit_code(is_good: bool) -> u8 {
    if is_good { 0 } else { NOT_IN_SYNC }
}

fn decoded(answer: &str) -> Result<Value, ExitError> {
    let failed = || ExitError::failed("the answer is no status of aci-sync");
    let status: Value = serde_json::from_str(answer).map_err(|_| failed())?;
    if status["schema"] != "aci-sync.status.v1" {
        return Err(failed());
    }
    Ok(status)
}

fn text(status: &Value) -> String {
    let word = |value: &Value| match value {
        Value::String(text) => text.chars().take(MAX_LINE).collect(),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    };
    let list =
        |value: &Value| -> Vec<Value> { value.as_array().into_iter().flatten().take(MAX_LISTED).cloned().collect() };
    let mut lines = vec![format!(
        "aci-sync {} on {}: {}   ({} s old)",
        word(&status["version"]),
        word(&status["instance"]),
        word(&status["summary"]),
        word(&status["snapshot_age_seconds"]),
    )];
    let leader = match (&status["leader"]["lease"], status["leader"]["holding"] == true) {
        (Value::Null, _) => "yes, without leader election".to_owned(),
        (lease, true) => format!("yes, Lease {}", word(lease)),
        (lease, false) => format!("no, standby for the Lease {}", word(lease)),
    };
    let (policy, cluster) = (word(&status["policy"]), word(&status["cluster_id"]));
    lines.push(format!("leader      {leader}; policy {policy}; cluster {cluster}"));
    let kinds: Vec<String> = list(&status["kubernetes"]["kinds"])
        .iter()
        .map(|kind| {
            let view = if kind["complete"] == true { "" } else { " (incomplete)" };
            format!("{}s {}{view}", word(&kind["kind"]), word(&kind["objects"]))
        })
        .collect();
    lines.push(format!("Kubernetes  {}; {}", word(&status["kubernetes"]["server"]), kinds.join(", ")));
    lines.push(format!(
        "APIC        {}; last full sync {}",
        status["apic"]["session"].as_str().map_or("no session".to_owned(), |it| format!("session at {it}")),
        word(&status["apic"]["last_full_sync"]),
    ));
    for objects in list(&status["objects"]) {
        let count = |name: &str| word(&objects[name]);
        lines.push(format!(
            "objects     {}: {} desired, {} owned, {} missing, {} surplus",
            count("class"),
            count("desired"),
            count("owned"),
            count("missing"),
            count("surplus"),
        ));
    }
    if status["blocked_total"] != 0 {
        let blocked = word(&status["blocked_total"]);
        lines.push(format!(
            "blocked     deletions: {blocked}; see docs/troubleshooting.md before SIGUSR2 approves them"
        ));
    }
    let ends = list(&status["credentials"]);
    let ends = ends.iter().filter_map(|it| Some((time::parse_rfc3339(it["ends"].as_str()?)?, word(&it["name"]))));
    let mut ends: Vec<(u64, String)> = ends.collect();
    ends.sort();
    if !ends.is_empty() {
        let now = time::unix_now();
        let ends: Vec<String> =
            ends.iter().map(|(end, name)| format!("{name} {}", time::distance(*end, now))).collect();
        lines.push(format!("ends        {}", ends.join(", ")));
    }
    for finding in list(&status["findings"]) {
        let part = |name: &str| word(&finding[name]);
        lines.push(format!("finding     {}  {}  {}: {}", part("since"), part("code"), part("subject"), part("text")));
    }
    // Texts of findings may come from the APIC, and something else than a daemon may have answered.
    let cut = |line: &String| line.chars().take(MAX_LINE).collect::<String>();
    lines.iter().map(|line| one_line(&cut(line)) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// T5: whatever answers, the text has an end: of each list the first entries, of each line the beginning.
    #[test]
    fn text_has_an_end() {
        let long = "x".repeat(3000);
        let entry = json!({"since": long, "code": long, "subject": long, "text": {"a": long}, "class": long, "kind": long,
            "name": "n", "ends": "2030-01-01T00:00:00Z", "desired": [long]});
        let list = vec![entry; MAX_LISTED + 1];
        let status = json!({"version": long, "summary": long, "kubernetes": {"kinds": list}, "objects": list,
            "findings": list, "credentials": list});
        let text = text(&status);
        let longest = text.lines().map(str::len).max().unwrap();
        assert_eq!(
            (longest, text.matches("\nfinding ").count(), text.matches("\nobjects ").count()),
            (2000, 1000, 1000)
        );
    }
}
