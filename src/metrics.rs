//! Counters and histograms of the whole process, which threads increment as things happen (T4). No labels with names: every
//! series exists from the start. What they are called and how they are served is in `status::metrics`; this module knows the
//! clock and no other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time;

/// The values of the label `kind`, in the order of `Kind`.
pub const KINDS: [&str; 5] = ["deployment", "statefulset", "daemonset", "pod", "service"];

/// Those of workloads.
pub const WORKLOADS: [&str; 3] = ["deployment", "statefulset", "daemonset"];

/// The methods of APIC requests.
pub const METHODS: [&str; 3] = ["get", "post", "delete"];

/// How APIC requests are answered. `none`: no complete answer.
pub const APIC_CODES: [&str; 8] = ["2xx", "400", "401", "403", "429", "503", "other", "none"];

/// The verbs of requests to the API server.
pub const VERBS: [&str; 5] = ["list", "watch", "get", "create", "update"];

/// How requests to the API server are answered. `none`: no answer.
pub const KUBERNETES_CODES: [&str; 10] = ["2xx", "401", "403", "404", "409", "410", "429", "5xx", "other", "none"];

/// The APIC's codes of refused transactions.
pub const REFUSALS: [&str; 10] = ["102", "103", "104", "106", "107", "120", "121", "403", "801", "other"];

/// The classes of objects that are written.
pub const CLASSES: [&str; 3] = ["l3extInstP", "l3extSubnet", "tagAnnotation"];

/// What is done to an object.
pub const ACTIONS: [&str; 3] = ["create", "repair", "delete"];

/// What another writer does to an owned object.
pub const DRIFTS: [&str; 2] = ["deleted", "changed"];

/// Why a full sync begins.
pub const FULL_SYNC_CAUSES: [&str; 4] = ["start", "resync", "events_lost", "leadership"];

/// The queues between threads.
pub const QUEUES: [&str; 4] = ["cluster", "fabric", "events", "log"];

/// The levels of log messages.
pub const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];

/// The paths of the status server.
pub const HTTP_PATHS: [&str; 7] = ["/", "/healthz", "/livez", "/metrics", "/readyz", "/status.json", "other"];

/// The HTTP statuses of its answers.
pub const HTTP_CODES: [&str; 9] = ["200", "400", "404", "405", "414", "421", "431", "503", "other"];

/// The credentials whose ends are known.
pub const CREDENTIALS: [&str; 6] = [
    "apic_certificate",
    "apic_user_certificate",
    "kubernetes_ca",
    "kubernetes_server_certificate",
    "kubernetes_client_certificate",
    "kubernetes_token",
];

/// The upper bounds of a histogram's buckets: as they are printed, in seconds, and in microseconds.
pub const BOUNDS: [(&str, u64); 9] = [
    ("0.005", 5_000),
    ("0.025", 25_000),
    ("0.1", 100_000),
    ("0.5", 500_000),
    ("1", 1_000_000),
    ("5", 5_000_000),
    ("10", 10_000_000),
    ("30", 30_000_000),
    ("60", 60_000_000),
];

/// The method of an APIC request, in the order of [`METHODS`].
#[derive(Debug, Clone, Copy)]
pub enum Method {
    /// Reads, subscriptions and refreshes.
    Get,
    /// Logins, logouts and writes.
    Post,
    /// Writes that delete one object.
    Delete,
}

/// The verb of a request to the API server, in the order of [`VERBS`].
#[derive(Debug, Clone, Copy)]
pub enum Verb {
    /// One page of a list.
    List,
    /// The opening of a watch.
    Watch,
    /// One object.
    Get,
    /// A new object.
    Create,
    /// An object that is replaced.
    Update,
}

/// A class, in the order of [`CLASSES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// An external EPG.
    Epg,
    /// A subnet.
    Subnet,
    /// A tag.
    Tag,
}

/// What was done to an object, in the order of [`ACTIONS`].
#[derive(Debug, Clone, Copy)]
pub enum Action {
    /// It was created.
    Create,
    /// It was repaired, or taken over.
    Repair,
    /// It was deleted.
    Delete,
}

/// What another writer did, in the order of [`DRIFTS`].
#[derive(Debug, Clone, Copy)]
pub enum Drift {
    /// It deleted the object.
    Deleted,
    /// It changed the object.
    Changed,
}

/// Why a full sync begins, in the order of [`FULL_SYNC_CAUSES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullSyncCause {
    /// The process has just started.
    Start,
    /// It is time for one (`--resync`).
    Resync,
    /// Events of the APIC may have been lost, or the session is new.
    EventsLost,
    /// A term of leadership began.
    Leadership,
}

/// A queue between threads, in the order of [`QUEUES`].
#[derive(Debug, Clone, Copy)]
pub enum Queue {
    /// Events of the watches. A full queue holds the watch streams back and drops nothing.
    Cluster,
    /// Events of the APIC.
    Fabric,
    /// Kubernetes Events.
    Events,
    /// Log lines.
    Log,
}

/// A credential that ends, in the order of [`CREDENTIALS`].
#[derive(Debug, Clone, Copy)]
pub enum Credential {
    /// The certificate of the controller.
    ApicCertificate,
    /// Our certificate for the APIC.
    ApicUserCertificate,
    /// Of the certificates that the API server's was verified with, the one that ends first.
    KubernetesCa,
    /// The certificate of the API server.
    KubernetesServerCertificate,
    /// Our certificate for the API server.
    KubernetesClientCertificate,
    /// Our bearer token.
    KubernetesToken,
}

/// A distribution of durations.
#[derive(Debug)]
pub struct Histogram {
    /// How many there were up to each bound and above the one before; then those above all bounds.
    pub buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Their sum, in microseconds.
    pub sum: AtomicU64,
}

impl Histogram {
    const fn new() -> Histogram {
        Histogram { buckets: zeros(), sum: AtomicU64::new(0) }
    }

    fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|(_, bound)| micros <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }
}

const fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

// A family with two labels is a table: the first label's values are the rows.

/// APIC requests by method and code.
pub static APIC_REQUESTS: [AtomicU64; METHODS.len() * APIC_CODES.len()] = zeros();
/// How long APIC requests took, by method.
pub static APIC_DURATIONS: [Histogram; METHODS.len()] = [const { Histogram::new() }; METHODS.len()];
/// Logins that the APIC accepted.
pub static APIC_LOGINS: [AtomicU64; 1] = zeros();
/// Logins that failed.
pub static APIC_LOGIN_FAILURES: [AtomicU64; 1] = zeros();
/// APIC sessions that were lost.
pub static APIC_SESSIONS_LOST: [AtomicU64; 1] = zeros();
/// Events of the APIC.
pub static APIC_EVENTS: [AtomicU64; 1] = zeros();
/// Refused transactions by code.
pub static APIC_REFUSALS: [AtomicU64; REFUSALS.len()] = zeros();
/// Requests to the API server by verb and code.
pub static KUBERNETES_REQUESTS: [AtomicU64; VERBS.len() * KUBERNETES_CODES.len()] = zeros();
/// Complete lists by kind.
pub static LISTS: [AtomicU64; KINDS.len()] = zeros();
/// When a watch last delivered something, by kind, in seconds since 1970.
pub static WATCH_EVENT_TIMES: [AtomicU64; KINDS.len()] = zeros();
/// Reconciles that began.
pub static RECONCILES: [AtomicU64; 1] = zeros();
/// Reconciles that ended early or left something.
pub static RECONCILE_FAILURES: [AtomicU64; 1] = zeros();
/// How long reconciles took.
pub static RECONCILE_DURATIONS: [Histogram; 1] = [const { Histogram::new() }; 1];
/// From the first change that a reconcile served to its end.
pub static CHANGE_LATENCIES: [Histogram; 1] = [const { Histogram::new() }; 1];
/// Full syncs by cause.
pub static FULL_SYNCS: [AtomicU64; FULL_SYNC_CAUSES.len()] = zeros();
/// Objects written, by class and action.
pub static CHANGES: [AtomicU64; CLASSES.len() * ACTIONS.len()] = zeros();
/// Owned objects that another writer deleted or changed, by class.
pub static DRIFT: [AtomicU64; CLASSES.len() * DRIFTS.len()] = zeros();
/// When the event loop last made progress, in seconds since 1970.
pub static HEARTBEAT_TIME: [AtomicU64; 1] = zeros();
/// How many elements wait, by queue.
pub static QUEUE_LENGTHS: [AtomicU64; QUEUES.len()] = zeros();
/// What was dropped, by queue.
pub static QUEUE_DROPS: [AtomicU64; QUEUES.len()] = zeros();
/// When credentials end, in seconds since 1970; 0: unused or endless.
pub static CREDENTIAL_ENDS: [AtomicU64; CREDENTIALS.len()] = zeros();
/// Log messages by level.
pub static LOG_MESSAGES: [AtomicU64; LEVELS.len()] = zeros();
/// Answers of the status server by path and code.
pub static HTTP_REQUESTS: [AtomicU64; HTTP_PATHS.len() * HTTP_CODES.len()] = zeros();
/// Connections to the status server that were one too many.
pub static HTTP_CONNECTIONS_REFUSED: [AtomicU64; 1] = zeros();

fn add(cells: &[AtomicU64], index: usize, count: u64) {
    if let Some(cell) = cells.get(index) {
        cell.fetch_add(count, Ordering::Relaxed);
    }
}

fn set_to_now(cells: &[AtomicU64], index: usize) {
    let now = time::unix_now();
    if let Some(cell) = cells.get(index) {
        cell.store(now, Ordering::Relaxed);
    }
}

/// The index of a code: itself, its class such as `2xx`, or `other`; `none` for 0.
fn code_index(codes: &[&str], code: u32) -> usize {
    let position = |text: &str| codes.iter().position(|it| *it == text);
    let known = match code {
        0 => position("none"),
        code => position(&code.to_string()).or_else(|| position(&format!("{}xx", code / 100))),
    };
    known.or_else(|| position("other")).unwrap_or_default()
}

/// An APIC request ended. `status` is the HTTP status; 0 if there was no complete answer.
pub fn apic_request(method: Method, status: u16, took: Duration) {
    add(&APIC_REQUESTS, method as usize * APIC_CODES.len() + code_index(&APIC_CODES, status.into()), 1);
    APIC_DURATIONS[method as usize].observe(took);
}

/// A login ended.
pub fn apic_login(is_accepted: bool) {
    add(if is_accepted { &APIC_LOGINS } else { &APIC_LOGIN_FAILURES }, 0, 1);
}

/// An APIC session was lost.
pub fn apic_session_lost() {
    add(&APIC_SESSIONS_LOST, 0, 1);
}

/// Events of the APIC arrived.
pub fn apic_events(count: usize) {
    add(&APIC_EVENTS, 0, count as u64);
}

/// The APIC refused a transaction.
pub fn apic_refusal(code: u32) {
    add(&APIC_REFUSALS, code_index(&REFUSALS, code), 1);
}

/// A request to the API server was answered. `status` is the HTTP status; 0 if there was no answer.
pub fn kubernetes_request(verb: Verb, status: u16) {
    let code = code_index(&KUBERNETES_CODES, status.into());
    add(&KUBERNETES_REQUESTS, verb as usize * KUBERNETES_CODES.len() + code, 1);
}

/// A kind was listed completely.
pub fn listed(kind: usize) {
    add(&LISTS, kind, 1);
}

/// The watch of a kind delivered something.
pub fn watch_delivered(kind: usize) {
    set_to_now(&WATCH_EVENT_TIMES, kind);
}

/// A reconcile begins.
pub fn reconcile_begins() {
    add(&RECONCILES, 0, 1);
}

/// A reconcile ended. `is_complete`: it neither ended early nor left anything.
pub fn reconcile_ended(took: Duration, is_complete: bool) {
    RECONCILE_DURATIONS[0].observe(took);
    add(&RECONCILE_FAILURES, 0, u64::from(!is_complete));
}

/// Everything that followed from a change was written.
pub fn change_served(latency: Duration) {
    CHANGE_LATENCIES[0].observe(latency);
}

/// A full sync begins.
pub fn full_sync(cause: FullSyncCause) {
    add(&FULL_SYNCS, cause as usize, 1);
}

/// The APIC accepted changes of objects.
pub fn changed(class: Class, action: Action, count: usize) {
    add(&CHANGES, class as usize * ACTIONS.len() + action as usize, count as u64);
}

/// Another writer deleted or changed an owned object.
pub fn drifted(class: Class, drift: Drift) {
    add(&DRIFT, class as usize * DRIFTS.len() + drift as usize, 1);
}

/// The event loop makes progress.
pub fn heartbeat() {
    set_to_now(&HEARTBEAT_TIME, 0);
}

/// So many elements wait in a queue.
pub fn queue_length(queue: Queue, length: usize) {
    QUEUE_LENGTHS[queue as usize].store(length as u64, Ordering::Relaxed);
}

/// An element is about to be put into a queue. It is counted before, so that its removal never comes first.
pub fn enqueued(queue: Queue) {
    QUEUE_LENGTHS[queue as usize].fetch_add(1, Ordering::Relaxed);
}

/// An element was taken out of a queue, or found no room in it.
pub fn dequeued(queue: Queue) {
    QUEUE_LENGTHS[queue as usize].fetch_sub(1, Ordering::Relaxed);
}

/// A queue was full.
pub fn dropped(queue: Queue) {
    add(&QUEUE_DROPS, queue as usize, 1);
}

/// A credential ends then, in seconds since 1970; nothing if it is unused or endless.
pub fn credential_ends(credential: Credential, end: Option<u64>) {
    CREDENTIAL_ENDS[credential as usize].store(end.unwrap_or_default(), Ordering::Relaxed);
}

/// A message is logged.
pub fn logged(level: log::Level) {
    // `Level::Error` is 1. Trace messages count as debug messages.
    add(&LOG_MESSAGES, (level as usize).clamp(1, LEVELS.len()) - 1, 1);
}

/// The status server answers. A request that cannot be read has no path.
pub fn http_request(path: Option<&str>, status: u16) {
    let position = HTTP_PATHS.iter().position(|it| Some(*it) == path);
    let path = position.unwrap_or(HTTP_PATHS.len() - 1);
    add(&HTTP_REQUESTS, path * HTTP_CODES.len() + code_index(&HTTP_CODES, status.into()), 1);
}

/// There were too many connections to the status server.
pub fn http_connection_refused() {
    add(&HTTP_CONNECTIONS_REFUSED, 0, 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T4: a code counts as itself, as one of its class, or as another one.
    #[test]
    fn codes_are_a_closed_set() {
        for (codes, code, label) in [
            (&APIC_CODES[..], 200, "2xx"),
            (&APIC_CODES, 503, "503"),
            (&APIC_CODES, 500, "other"),
            (&APIC_CODES, 0, "none"),
            (&KUBERNETES_CODES, 503, "5xx"),
            (&KUBERNETES_CODES, 429, "429"),
            (&KUBERNETES_CODES, 302, "other"),
            (&REFUSALS, 102, "102"),
            (&REFUSALS, 999, "other"),
            (&HTTP_CODES, 505, "other"),
        ] {
            assert_eq!(codes[code_index(codes, code)], label, "{code}");
        }
    }

    /// T4: a duration is in the first bucket that holds it.
    #[test]
    fn durations_are_in_their_bucket() {
        let histogram = Histogram::new();
        for (millis, bucket) in [(0, 0), (5, 0), (6, 1), (1000, 4), (60_000, 8), (60_001, 9), (3_600_000, 9)] {
            let before = histogram.buckets[bucket].load(Ordering::Relaxed);
            histogram.observe(Duration::from_millis(millis));
            assert_eq!(histogram.buckets[bucket].load(Ordering::Relaxed), before + 1, "{millis} ms");
        }
    }
}
