//! An immutable picture of the daemon's state, published after each event and each reconcile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::info;

use super::credentials::CredentialEnds;
use super::service_manager::ServiceManager;
use crate::model::dn::{EpgDn, L3outDn, ObjectDn};
use crate::model::finding::{Code, Finding, Subject, counted};
use crate::model::kubernetes::{Kind, Workload};
use crate::model::owner::Ownership;
use crate::model::plan::Tally;
use crate::time;

/// How many blocked deletions the log shows.
const MAX_SHOWN: usize = 1000;

/// The state of the daemon in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A view of the cluster is incomplete, or the API server cannot be reached.
    WaitingForKubernetes,
    /// No session at an APIC.
    WaitingForApic,
    /// Another process leads (K4).
    Standby,
    /// The first full sync of this session.
    FirstSync,
    /// Events may have been lost, or a list has replaced a view: what follows from it is not done yet.
    Syncing,
    /// The last reconcile left nothing to do. The number of findings.
    InSync(usize),
    /// The last reconcile left what it cannot do. The number of findings that hold something back.
    NeedsAttention(usize),
    /// The last reconcile left what the policy `observe` does not send.
    Observing,
    /// The last reconcile left something that the next one may be able to do.
    Retrying,
    /// A request takes long.
    WaitingForAnswer,
}

impl State {
    /// All names.
    pub const NAMES: [&str; 10] = [
        "waiting_for_kubernetes",
        "waiting_for_apic",
        "standby",
        "first_full_sync",
        "full_sync",
        "in_sync",
        "needs_attention",
        "observing",
        "retrying",
        "waiting_for_answer",
    ];

    /// The name for JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            State::WaitingForKubernetes => "waiting_for_kubernetes",
            State::WaitingForApic => "waiting_for_apic",
            State::Standby => "standby",
            State::FirstSync => "first_full_sync",
            State::Syncing => "full_sync",
            State::InSync(_) => "in_sync",
            State::NeedsAttention(_) => "needs_attention",
            State::Observing => "observing",
            State::Retrying => "retrying",
            State::WaitingForAnswer => "waiting_for_answer",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            State::WaitingForKubernetes => f.write_str("waiting for Kubernetes"),
            State::WaitingForApic => f.write_str("waiting for the APIC"),
            State::Standby => f.write_str("standby: another process holds the Lease"),
            State::FirstSync => f.write_str("first full sync"),
            State::Syncing => f.write_str("full sync"),
            State::InSync(0) => f.write_str("in sync"),
            State::InSync(count) => write!(f, "in sync; {}", counted(count, "finding")),
            State::NeedsAttention(1) => f.write_str("out of sync: 1 finding needs attention"),
            State::NeedsAttention(count) => write!(f, "out of sync: {count} findings need attention"),
            State::Observing => f.write_str("observing: there are changes that the policy does not send"),
            State::Retrying => f.write_str("out of sync: retrying"),
            State::WaitingForAnswer => f.write_str("waiting for an answer of the APIC"),
        }
    }
}

/// What the last reconcile left behind.
#[derive(Debug, Default)]
pub struct FabricView {
    /// The L3Outs of interest.
    pub l3outs: Vec<L3outView>,
    /// The deletions that wait for approval (W4), those of blocked moves included (J3).
    pub blocked: BTreeSet<ObjectDn>,
    /// What people should know, each since when, in seconds since 1970.
    pub findings: BTreeMap<Finding, u64>,
    /// EPGs and subnets.
    pub totals: Vec<Totals>,
    /// The EPGs that are desired or hold something owned, in the order of the survey. Shared with the reconciler.
    pub epgs: Arc<Vec<EpgView>>,
    /// What is left alone for a while after a rejection.
    pub deferred: Vec<Deferred>,
    /// What another writer keeps reverting (R5).
    pub conflicts: Vec<ObjectDn>,
    /// How many faults F0467 about EPGs there were at the last full sync.
    pub faults: usize,
    /// How many workloads of each kind have a binding in effect.
    pub managed: BTreeMap<Kind, usize>,
}

/// How many objects of a class there are.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// The APIC's class.
    pub class: &'static str,
    /// The cluster calls for them.
    pub desired: usize,
    /// Owned objects in the L3Outs that were read.
    pub owned: usize,
    /// Desired and absent.
    pub missing: usize,
    /// Owned and not desired.
    pub surplus: usize,
    /// Legacy objects.
    pub legacy: usize,
    /// Objects of other clusters.
    pub other_cluster: usize,
    /// Other objects.
    pub foreign: usize,
}

impl Totals {
    /// One more object in an L3Out that was read.
    pub fn count(&mut self, ownership: Ownership) {
        match ownership {
            Ownership::Owned => self.owned += 1,
            Ownership::Legacy => self.legacy += 1,
            Ownership::OtherCluster => self.other_cluster += 1,
            Ownership::Unmarked | Ownership::Foreign => self.foreign += 1,
        }
    }
}

/// An EPG that is desired or holds something owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpgView {
    /// Its DN.
    pub dn: EpgDn,
    /// Whose it is; nothing if it is not on the fabric.
    pub owner: Option<Ownership>,
    /// Workloads that name it, up to [`EpgView::MAX_WORKLOADS`]; those first whose annotation is not valid now (D3).
    pub workloads: Vec<Workload>,
    /// How many workloads name it.
    pub workloads_total: usize,
    /// How many subnets it should hold.
    pub desired: usize,
    /// How many of these it holds.
    pub present: usize,
    /// How many owned subnets it holds that are not desired.
    pub surplus: usize,
    /// How many contract relations it has.
    pub contracts: usize,
    /// When it is deleted, while its grace runs (D6).
    pub grace_until: Option<Instant>,
}

impl EpgView {
    /// How many workloads are named.
    pub const MAX_WORKLOADS: usize = 3;

    /// Whether a workload names it.
    pub fn is_desired(&self) -> bool {
        self.workloads_total > 0
    }

    /// Its place in lists: 0 if it or a subnet of it is missing, 1 if it has a surplus or its grace runs, 2 if it is not
    /// desired, 3 if the fabric holds exactly what is desired of it.
    pub fn rank(&self) -> u8 {
        match self {
            _ if self.grace_until.is_some() => 1,
            _ if !self.is_desired() => 2,
            _ if self.owner.is_none() || self.present < self.desired => 0,
            _ if self.surplus > 0 => 1,
            _ => 3,
        }
    }
}

/// An object that is left alone for a while after a rejection (W3).
#[derive(Debug, Clone)]
pub struct Deferred {
    /// The object.
    pub subject: Subject,
    /// The sort of its finding.
    pub code: Code,
    /// Until when.
    pub until: Instant,
}

/// What stays the same while the process runs.
#[derive(Debug, Default)]
pub struct Identity {
    /// The host.
    pub instance: String,
    /// When the process started, in seconds since 1970.
    pub started: u64,
    /// The policy.
    pub policy: String,
    /// The kinds that are watched.
    pub kinds: Vec<Kind>,
    /// The API server's URL.
    pub server: String,
    /// The APIC controllers.
    pub controllers: Vec<String>,
    /// Namespace and name of the Lease, if there is an election.
    pub lease: Option<String>,
}

/// What happened lately. Times are in seconds since 1970.
#[derive(Debug, Clone, Default)]
pub struct Activity {
    /// When the fabric was last known to hold exactly what is desired.
    pub last_in_sync: Option<u64>,
    /// The end of the last full sync that read everything.
    pub last_full_sync: Option<u64>,
    /// The last reconciles, the oldest first.
    pub reconciles: VecDeque<ReconcileEntry>,
}

/// One reconcile.
#[derive(Debug, Clone)]
pub struct ReconcileEntry {
    /// When it ended.
    pub at: u64,
    /// How long it took.
    pub took: Duration,
    /// Why it ran.
    pub why: Why,
    /// What it changed.
    pub changes: Tally,
    /// What ended it early.
    pub error: Option<String>,
}

/// Why a reconcile ran: the first cause, if there were several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// An object of the cluster changed, or a list replaced a view.
    ClusterChanged,
    /// Another writer changed the fabric.
    FabricChanged,
    /// An operator approved blocked deletions (W4).
    DeletionsApproved,
    /// An APIC session was established.
    NewSession,
    /// Events of the APIC may be lost.
    EventsLost,
    /// A term of leadership began (K4).
    NewTerm,
    /// `--resync` was over.
    Resync,
    /// The reconcile before left something.
    Retry,
    /// A grace, a pause or another wait was over.
    WaitOver,
}

impl Why {
    /// The name for JSON.
    pub fn name(self) -> &'static str {
        match self {
            Why::ClusterChanged => "cluster_changed",
            Why::FabricChanged => "fabric_changed",
            Why::DeletionsApproved => "deletions_approved",
            Why::NewSession => "new_session",
            Why::EventsLost => "events_lost",
            Why::NewTerm => "new_term",
            Why::Resync => "resync",
            Why::Retry => "retry",
            Why::WaitOver => "wait_over",
        }
    }
}

impl Activity {
    /// How many reconciles are kept.
    const MAX_RECONCILES: usize = 20;

    /// One more reconcile.
    pub fn push(&mut self, entry: ReconcileEntry) {
        if self.reconciles.len() >= Activity::MAX_RECONCILES {
            self.reconciles.pop_front();
        }
        self.reconciles.push_back(entry);
    }
}

/// One L3Out.
#[derive(Debug)]
pub struct L3outView {
    /// Its DN.
    pub dn: L3outDn,
    /// How many external EPGs it holds; none if it is missing.
    pub epgs: Option<usize>,
    /// Whether the APIC sends events about it.
    pub subscribed: bool,
}

/// The state at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// When it was made.
    pub made: Instant,
    /// The state in one word.
    pub state: State,
    /// This process may write (K4).
    pub leader: bool,
    /// The controller of the APIC session, if there is one.
    pub controller: Option<String>,
    /// The kinds whose view is incomplete (W1).
    pub incomplete: Vec<Kind>,
    /// Of each kind that is watched the managed workloads, or the Pods and Services that are kept.
    pub objects: Vec<(Kind, usize)>,
    /// As of the last reconcile.
    pub fabric: Arc<FabricView>,
    /// What happened lately.
    pub activity: Arc<Activity>,
    /// A full sync has read everything in this session.
    pub synced: bool,
    /// This cluster's id, as soon as it is known (O1).
    pub cluster_id: Option<Arc<str>>,
    /// When credentials end (T10).
    pub credentials: CredentialEnds,
}

impl Snapshot {
    /// Nothing is known yet.
    pub(super) fn empty() -> Self {
        Snapshot {
            made: Instant::now(),
            state: State::WaitingForKubernetes,
            leader: false,
            controller: None,
            incomplete: Kind::DEFAULT.to_vec(),
            objects: Kind::DEFAULT.map(|kind| (kind, 0)).to_vec(),
            fabric: Arc::default(),
            activity: Arc::default(),
            synced: false,
            cluster_id: None,
            credentials: CredentialEnds::default(),
        }
    }

    /// Logs the state (SIGUSR1).
    pub fn log(&self) {
        let controller = self.controller.as_deref().unwrap_or("none");
        info!(state:% = self.state, leader = self.leader, controller; "status");
        for &(kind, count) in &self.objects {
            let complete = !self.incomplete.contains(&kind);
            info!(kind:%, count, complete; "status: view of the cluster");
        }
        let FabricView { l3outs, blocked, findings, .. } = &*self.fabric;
        for L3outView { dn, epgs, subscribed } in l3outs {
            match epgs {
                Some(epgs) => info!(l3out:% = dn, epgs, subscribed; "status: L3Out"),
                None => info!(l3out:% = dn, subscribed; "status: L3Out not found"),
            }
        }
        for object in blocked.iter().take(MAX_SHOWN) {
            info!(object:%; "status: blocked deletion");
        }
        for (Finding { code, subject, text, .. }, since) in findings {
            info!(code:?, subject:%, since = time::rfc3339(*since), text; "status: finding");
        }
    }
}

/// Publishes snapshots. Clones are the same.
#[derive(Clone)]
pub struct Publisher {
    latest: Arc<Mutex<Arc<Snapshot>>>,
    identity: Arc<Identity>,
    stalled: Arc<AtomicBool>,
    /// The addresses of the status server that could not be bound, each with its error.
    listen_errors: Arc<Mutex<BTreeMap<String, String>>>,
    manager: ServiceManager,
}

impl Publisher {
    /// Publishes to readers in this process, and the state to the service manager.
    pub fn new(identity: Identity, manager: ServiceManager) -> Self {
        let (incomplete, objects) = (identity.kinds.clone(), identity.kinds.iter().map(|kind| (*kind, 0)).collect());
        let latest = Arc::new(Mutex::new(Arc::new(Snapshot { incomplete, objects, ..Snapshot::empty() })));
        let (stalled, listen_errors) = (Arc::default(), Arc::default());
        Publisher { latest, identity: Arc::new(identity), stalled, listen_errors, manager }
    }

    /// Replaces the snapshot.
    pub fn publish(&self, snapshot: Snapshot) {
        self.manager.set_state(snapshot.state);
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }

    /// The latest snapshot.
    pub fn latest(&self) -> Arc<Snapshot> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What stays the same.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The watchdog has found the event loop stalled, or not.
    pub fn set_stalled(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
    }

    /// Whether the event loop makes no progress.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// An address of the status server could not be bound, or could.
    pub fn set_listen_error(&self, address: &str, error: Option<String>) {
        let mut errors = self.listen_errors.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(error) => drop(errors.insert(address.to_owned(), error)),
            None => drop(errors.remove(address)),
        }
    }

    /// Findings about the status server (T12).
    pub fn findings(&self) -> Vec<Finding> {
        let errors = self.listen_errors.lock().unwrap_or_else(PoisonError::into_inner);
        let finding_of = |(address, error): (&String, &String)| {
            let text = format!("failed to listen on {address}: {error}; retrying every 10 s");
            Finding::new(Code::ListenFailed, "status server", text)
        };
        errors.iter().map(finding_of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T4: every state of the daemon has its series.
    #[test]
    fn every_state_has_a_series() {
        let states = [
            State::WaitingForKubernetes,
            State::WaitingForApic,
            State::Standby,
            State::FirstSync,
            State::Syncing,
            State::InSync(2),
            State::NeedsAttention(2),
            State::Observing,
            State::Retrying,
            State::WaitingForAnswer,
        ];
        assert_eq!(states.map(State::name), State::NAMES);
    }
}
