//! The metrics: one table of all families. Values come from the snapshot, from the counters in [`crate::metrics`] and from
//! the kernel. No label holds the name of an object, an address or a DN (T4). The text form is in `exposition.rs`.

use std::fmt::Write;
use std::sync::atomic::AtomicU64;

pub use super::exposition::{CONTENT_TYPE, exposition};
use super::process::Process;
use super::snapshot::{Identity, Snapshot, State, Totals};
use crate::metrics::{self as counters, Histogram};
use crate::model::finding::Code;
use crate::model::kubernetes::Kind;
use crate::model::observed::PREFIX_IN_USE;

/// A family of series.
pub struct Family {
    /// The name.
    pub name: &'static str,
    /// `gauge`, `counter` or `histogram`.
    pub kind: &'static str,
    /// The labels; of `le` every histogram has its own.
    pub labels: &'static [Label],
    /// What it means, in one line.
    pub help: &'static str,
    pub(super) values: Values,
}

/// A label.
pub struct Label {
    /// The name.
    pub name: &'static str,
    /// The values; none if they are not known before the start.
    pub values: &'static [&'static str],
}

/// Where the values of a family come from.
pub(super) enum Values {
    /// One for each combination of the labels' values; those of the last label change fastest.
    Cells(&'static [AtomicU64]),
    /// One for each value of the only label, or one.
    Histograms(&'static [Histogram]),
    /// Labels and values as of now.
    Now(fn(&View<'_>) -> Vec<Sample>),
}

/// What the values are computed from.
pub(super) struct View<'a> {
    pub(super) identity: &'a Identity,
    pub(super) snapshot: &'a Snapshot,
    pub(super) process: Process,
}

/// A series' labels and its value.
pub(super) struct Sample {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: f64,
}

impl View<'_> {
    /// Nothing is counted before the first reconcile.
    fn totals(&self, class: &str) -> Totals {
        self.snapshot.fabric.totals.iter().find(|totals| totals.class == class).cloned().unwrap_or_default()
    }
}

/// A series without labels.
fn single(value: impl Into<f64>) -> Vec<Sample> {
    vec![Sample { labels: Vec::new(), value: value.into() }]
}

fn count(value: usize) -> Vec<Sample> {
    single(value as f64)
}

/// One series for each value of a label.
fn by<T: ToString>(label: &'static str, values: impl IntoIterator<Item = (T, f64)>) -> Vec<Sample> {
    let sample_of = |(text, value): (T, f64)| Sample { labels: vec![(label, text.to_string())], value };
    values.into_iter().map(sample_of).collect()
}

fn by_class(view: &View<'_>, count_of: fn(&Totals) -> usize) -> Vec<Sample> {
    by("class", FABRIC_CLASSES.map(|class| (class, count_of(&view.totals(class)) as f64)))
}

/// A constant 1 whose labels say something.
fn info(labels: &[(&'static str, &str)]) -> Vec<Sample> {
    let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    vec![Sample { labels, value: 1.0 }]
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn seconds(time: Option<u64>) -> Vec<Sample> {
    single(time.unwrap_or_default() as f64)
}

fn name_of(kind: Kind) -> &'static str {
    counters::KINDS.get(kind as usize).copied().unwrap_or_default()
}

fn fabric_objects(view: &View<'_>) -> Vec<Sample> {
    let mut samples = Vec::new();
    for class in FABRIC_CLASSES {
        let totals = view.totals(class);
        for (owner, value) in
            OWNERS.into_iter().zip([totals.owned, totals.foreign, totals.legacy, totals.other_cluster])
        {
            let labels = vec![("class", class.to_owned()), ("owner", owner.to_owned())];
            samples.push(Sample { labels, value: value as f64 });
        }
    }
    samples
}

fn findings(view: &View<'_>) -> Vec<Sample> {
    let of_code = |code| view.snapshot.fabric.findings.keys().filter(|finding| finding.code == code).count() as f64;
    by("code", Code::ALL.map(|code| (code, of_code(code))))
}

/// A controller is named by its place in `--apic`, because its name or address must not be in a label.
fn sessions(view: &View<'_>) -> Vec<Sample> {
    let current = view.snapshot.controller.as_ref();
    let controllers = view.identity.controllers.iter().enumerate();
    by("apic", controllers.map(|(index, name)| (index + 1, flag(Some(name) == current))))
}

const FABRIC_CLASSES: [&str; 2] = ["l3extInstP", "l3extSubnet"];
const OWNERS: [&str; 4] = ["owned", "foreign", "legacy", "other_cluster"];

const KIND: Label = Label { name: "kind", values: &counters::KINDS };
const FABRIC_CLASS: Label = Label { name: "class", values: &FABRIC_CLASSES };
const CLASS: Label = Label { name: "class", values: &counters::CLASSES };
const QUEUE: Label = Label { name: "queue", values: &counters::QUEUES };
const METHOD: Label = Label { name: "method", values: &counters::METHODS };

const fn open(name: &'static str) -> Label {
    Label { name, values: &[] }
}

const fn gauge(
    name: &'static str,
    labels: &'static [Label],
    help: &'static str,
    now: fn(&View<'_>) -> Vec<Sample>,
) -> Family {
    Family { name, kind: "gauge", labels, help, values: Values::Now(now) }
}

const fn counter(
    name: &'static str,
    labels: &'static [Label],
    help: &'static str,
    cells: &'static [AtomicU64],
) -> Family {
    Family { name, kind: "counter", labels, help, values: Values::Cells(cells) }
}

const fn histogram(
    name: &'static str,
    labels: &'static [Label],
    help: &'static str,
    series: &'static [Histogram],
) -> Family {
    Family { name, kind: "histogram", labels, help, values: Values::Histograms(series) }
}

/// All families, in the order in which they are served and documented.
pub static FAMILIES: &[Family] = &[
    gauge("aci_sync_build_info", &[open("version"), open("revision"), open("openssl")], "What runs; always 1.", |_| {
        let openssl = openssl::version::version();
        info(&[("version", env!("CARGO_PKG_VERSION")), ("revision", env!("BUILD_COMMIT")), ("openssl", openssl)])
    }),
    gauge(
        "aci_sync_config_info",
        &[open("cluster_id"), open("policy")],
        "The settings that matter most; always 1. The cluster id is empty until it is known.",
        |view| {
            let cluster_id = view.snapshot.cluster_id.as_deref().unwrap_or_default();
            info(&[("cluster_id", cluster_id), ("policy", &view.identity.policy)])
        },
    ),
    gauge(
        "aci_sync_state",
        &[Label { name: "state", values: &State::NAMES }],
        "1 for the current state, 0 for the others.",
        |view| by("state", State::NAMES.map(|name| (name, flag(name == view.snapshot.state.name())))),
    ),
    gauge("aci_sync_leader", &[], "1 if this process may write.", |view| single(flag(view.snapshot.leader))),
    gauge(
        "aci_sync_last_in_sync_timestamp_seconds",
        &[],
        "When the fabric was last known to hold exactly what is desired; before that the start of the process.",
        |view| single(view.snapshot.activity.last_in_sync.unwrap_or(view.identity.started) as f64),
    ),
    gauge(
        "aci_sync_last_full_sync_timestamp_seconds",
        &[],
        "End of the last full sync that read everything; 0 before the first.",
        |view| seconds(view.snapshot.activity.last_full_sync),
    ),
    Family {
        name: "aci_sync_last_heartbeat_timestamp_seconds",
        kind: "gauge",
        labels: &[],
        help: "When the event loop last made progress; 0 before it runs.",
        values: Values::Cells(&counters::HEARTBEAT_TIME),
    },
    counter("aci_sync_reconciles_total", &[], "Reconciles that began.", &counters::RECONCILES),
    counter(
        "aci_sync_reconcile_failures_total",
        &[],
        "Reconciles that ended early or left something for the next one.",
        &counters::RECONCILE_FAILURES,
    ),
    histogram("aci_sync_reconcile_duration_seconds", &[], "How long a reconcile took.", &counters::RECONCILE_DURATIONS),
    counter(
        "aci_sync_full_syncs_total",
        &[Label { name: "cause", values: &counters::FULL_SYNC_CAUSES }],
        "Full syncs that began; a new APIC session counts as events_lost.",
        &counters::FULL_SYNCS,
    ),
    histogram(
        "aci_sync_change_latency_seconds",
        &[],
        "From the first change that a reconcile served until the APIC had accepted all that followed from it.",
        &counters::CHANGE_LATENCIES,
    ),
    gauge(
        "aci_sync_managed_workloads",
        &[Label { name: "kind", values: &counters::WORKLOADS }],
        "Workloads with a binding in effect.",
        |view| {
            let count = |kind| view.snapshot.fabric.managed.get(&kind).copied().unwrap_or_default();
            let kinds = Kind::ALL.into_iter().filter(|it| it.is_workload());
            by("kind", kinds.map(|kind| (name_of(kind), count(kind) as f64)))
        },
    ),
    gauge(
        "aci_sync_cluster_objects",
        &[KIND],
        "Objects that aci-sync keeps: annotated workloads, and the Pods and Services that may matter.",
        |view| {
            let objects = &view.snapshot.objects;
            let count = |kind| objects.iter().find(|it| it.0 == kind).map_or(0, |it| it.1);
            by("kind", Kind::ALL.map(|kind| (name_of(kind), count(kind) as f64)))
        },
    ),
    gauge("aci_sync_desired_objects", &[FABRIC_CLASS], "Objects that the cluster calls for.", |view| {
        by_class(view, |totals| totals.desired)
    }),
    gauge(
        "aci_sync_fabric_objects",
        &[FABRIC_CLASS, Label { name: "owner", values: &OWNERS }],
        "Objects in the L3Outs that were read, by owner annotation.",
        fabric_objects,
    ),
    gauge("aci_sync_missing_objects", &[FABRIC_CLASS], "Desired objects that are absent.", |view| {
        by_class(view, |totals| totals.missing)
    }),
    gauge("aci_sync_surplus_objects", &[FABRIC_CLASS], "Owned objects that are not desired.", |view| {
        by_class(view, |totals| totals.surplus)
    }),
    counter(
        "aci_sync_changes_total",
        &[CLASS, Label { name: "action", values: &counters::ACTIONS }],
        "Objects that the APIC created, changed or deleted for aci-sync, cascades included.",
        &counters::CHANGES,
    ),
    counter(
        "aci_sync_refusals_total",
        &[Label { name: "code", values: &counters::REFUSALS }],
        "Writes that the APIC refused, by its error code; 403: a privilege is missing.",
        &counters::APIC_REFUSALS,
    ),
    counter(
        "aci_sync_drift_total",
        &[CLASS, Label { name: "what", values: &counters::DRIFTS }],
        "Owned objects that another writer deleted or changed; subnets that went with their EPG do not count.",
        &counters::DRIFT,
    ),
    gauge("aci_sync_findings", &[open("code")], "Findings that hold now, by code.", findings),
    gauge("aci_sync_open_findings", &[], "Findings that hold something desired back.", |view| {
        count(view.snapshot.fabric.findings.keys().filter(|finding| finding.code.is_open()).count())
    }),
    gauge(
        "aci_sync_blocked_deletions",
        &[],
        "Deletions that wait for approval, those of blocked moves included.",
        |view| count(view.snapshot.fabric.blocked.len()),
    ),
    gauge("aci_sync_deferred_objects", &[], "Objects that are left alone for a while after a rejection.", |view| {
        count(view.snapshot.fabric.deferred.len())
    }),
    gauge(
        "aci_sync_fabric_faults",
        &[Label { name: "code", values: &[PREFIX_IN_USE] }],
        "Faults of the APIC about desired EPGs, at the last full sync.",
        |view| by("code", [(PREFIX_IN_USE, view.snapshot.fabric.faults as f64)]),
    ),
    gauge(
        "aci_sync_watch_up",
        &[KIND],
        "1 if the view of the kind is complete: it is listed and watched, or --workloads does not name it.",
        |view| {
            let is_up = |kind| flag(!view.snapshot.incomplete.contains(&kind));
            by("kind", Kind::ALL.map(|kind| (name_of(kind), is_up(kind))))
        },
    ),
    Family {
        name: "aci_sync_watch_last_event_timestamp_seconds",
        kind: "gauge",
        labels: &[KIND],
        help: "When the watch last delivered an event or a bookmark; 0 before the first.",
        values: Values::Cells(&counters::WATCH_EVENT_TIMES),
    },
    counter("aci_sync_lists_total", &[KIND], "Complete lists.", &counters::LISTS),
    counter(
        "aci_sync_kubernetes_requests_total",
        &[
            Label { name: "verb", values: &counters::VERBS },
            Label { name: "code", values: &counters::KUBERNETES_CODES },
        ],
        "Requests to the API server, by HTTP status; none: no answer.",
        &counters::KUBERNETES_REQUESTS,
    ),
    gauge(
        "aci_sync_apic_session_up",
        &[open("apic")],
        "1 for the controller of the present session; the label is its place in --apic, from 1.",
        sessions,
    ),
    counter("aci_sync_apic_logins_total", &[], "Logins that the APIC accepted.", &counters::APIC_LOGINS),
    counter(
        "aci_sync_apic_login_failures_total",
        &[],
        "Logins that were refused or not answered.",
        &counters::APIC_LOGIN_FAILURES,
    ),
    counter("aci_sync_apic_sessions_lost_total", &[], "APIC sessions that were lost.", &counters::APIC_SESSIONS_LOST),
    counter(
        "aci_sync_apic_requests_total",
        &[METHOD, Label { name: "code", values: &counters::APIC_CODES }],
        "REST requests to the APIC, by HTTP status; none: no complete answer.",
        &counters::APIC_REQUESTS,
    ),
    histogram(
        "aci_sync_apic_request_duration_seconds",
        &[METHOD],
        "How long a REST request to the APIC took, without the wait for its turn.",
        &counters::APIC_DURATIONS,
    ),
    gauge("aci_sync_apic_subscriptions", &[], "L3Outs about which the APIC sends events.", |view| {
        count(view.snapshot.fabric.l3outs.iter().filter(|l3out| l3out.subscribed).count())
    }),
    counter("aci_sync_apic_events_total", &[], "Changes that the APIC's events reported.", &counters::APIC_EVENTS),
    gauge(
        "aci_sync_credential_expiry_timestamp_seconds",
        &[Label { name: "credential", values: &counters::CREDENTIALS }],
        "When a credential ends, as last presented or read; 0: unused, endless, or renewed by an exec plugin or the like.",
        |view| by("credential", view.snapshot.credentials.iter().map(|(name, end)| (name, end.unwrap_or(0) as f64))),
    ),
    Family {
        name: "aci_sync_queue_length",
        kind: "gauge",
        labels: &[QUEUE],
        help: "What waits: events of the watches and of the APIC, Kubernetes Events, log lines.",
        values: Values::Cells(&counters::QUEUE_LENGTHS),
    },
    counter(
        "aci_sync_queue_dropped_total",
        &[QUEUE],
        "What a full queue dropped; after dropped events of the APIC a full sync follows, and those of the watches wait.",
        &counters::QUEUE_DROPS,
    ),
    counter(
        "aci_sync_log_messages_total",
        &[Label { name: "level", values: &counters::LEVELS }],
        "Messages that were logged.",
        &counters::LOG_MESSAGES,
    ),
    counter(
        "aci_sync_http_requests_total",
        &[Label { name: "path", values: &counters::HTTP_PATHS }, Label { name: "code", values: &counters::HTTP_CODES }],
        "Answers of the status server.",
        &counters::HTTP_REQUESTS,
    ),
    counter(
        "aci_sync_http_connections_refused_total",
        &[],
        "Connections that were one too many for the status server: it closed them, or an older one for them.",
        &counters::HTTP_CONNECTIONS_REFUSED,
    ),
    gauge(
        "leader_election_master_status",
        &[open("name")],
        "client-go's: 1 if this process leads; the label is the name of the Lease. Only with --leader-elect.",
        |view| {
            let lease = view.identity.lease.as_deref().and_then(|lease| lease.rsplit('/').next());
            by("name", lease.map(|name| (name, flag(view.snapshot.leader))))
        },
    ),
    gauge("process_start_time_seconds", &[], "When the process started.", |view| single(view.process.start_time)),
    Family {
        name: "process_cpu_seconds_total",
        kind: "counter",
        labels: &[],
        help: "CPU time that the process used.",
        values: Values::Now(|view| single(view.process.cpu_seconds)),
    },
    gauge("process_resident_memory_bytes", &[], "Resident memory.", |view| single(view.process.resident as f64)),
    gauge("process_virtual_memory_bytes", &[], "Virtual memory.", |view| single(view.process.virtual_memory as f64)),
    gauge("process_open_fds", &[], "Open file descriptors.", |view| single(view.process.open_fds as f64)),
    gauge("process_max_fds", &[], "The most file descriptors that the process may have open.", |view| {
        single(view.process.max_fds as f64)
    }),
];

/// The table of docs/metrics.md.
pub fn markdown() -> String {
    let mut text = String::from("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    for Family { name, kind, labels, help, .. } in FAMILIES {
        let label_text = |label: &Label| match label.values {
            [] => format!("`{}`", label.name),
            values => format!("`{}`: {}", label.name, values.join(", ")),
        };
        let labels: Vec<String> = labels.iter().map(label_text).collect();
        let _ = writeln!(text, "| `{name}` | {kind} | {} | {help} |", labels.join("; "));
    }
    text
}
