//! An immutable picture of the daemon's state, published after each event and each reconcile.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use log::info;

use super::service_manager::ServiceManager;
use crate::model::dn::{L3outDn, ObjectDn};
use crate::model::finding::Finding;
use crate::model::kubernetes::Kind;

/// How many blocked deletions and findings the log shows.
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

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings = |count: usize| if count == 1 { "1 finding".to_owned() } else { format!("{count} findings") };
        match *self {
            State::WaitingForKubernetes => f.write_str("waiting for Kubernetes"),
            State::WaitingForApic => f.write_str("waiting for the APIC"),
            State::Standby => f.write_str("standby: another process holds the Lease"),
            State::FirstSync => f.write_str("first full sync"),
            State::Syncing => f.write_str("full sync"),
            State::InSync(0) => f.write_str("in sync"),
            State::InSync(count) => write!(f, "in sync; {} in the log", findings(count)),
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
    /// The deletions that wait for approval (W4).
    pub blocked: BTreeSet<ObjectDn>,
    /// What people should know.
    pub findings: BTreeSet<Finding>,
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
    /// Managed Deployments, and the Pods and Services that are kept.
    pub objects: [(Kind, usize); 3],
    /// As of the last reconcile.
    pub fabric: Arc<FabricView>,
}

impl Snapshot {
    /// Nothing is known yet.
    fn empty() -> Self {
        Snapshot {
            made: Instant::now(),
            state: State::WaitingForKubernetes,
            leader: false,
            controller: None,
            incomplete: Kind::ALL.to_vec(),
            objects: Kind::ALL.map(|kind| (kind, 0)),
            fabric: Arc::default(),
        }
    }

    /// Logs the state (SIGUSR1).
    pub fn log(&self) {
        let controller = self.controller.as_deref().unwrap_or("none");
        info!(state:% = self.state, leader = self.leader, controller; "status");
        for (kind, count) in self.objects {
            let complete = !self.incomplete.contains(&kind);
            info!(kind:%, count, complete; "status: view of the cluster");
        }
        let FabricView { l3outs, blocked, findings } = &*self.fabric;
        for L3outView { dn, epgs, subscribed } in l3outs {
            match epgs {
                Some(epgs) => info!(l3out:% = dn, epgs, subscribed; "status: L3Out"),
                None => info!(l3out:% = dn, subscribed; "status: L3Out not found"),
            }
        }
        for object in blocked.iter().take(MAX_SHOWN) {
            info!(object:%; "status: blocked deletion");
        }
        for Finding { code, subject, text, .. } in findings.iter().take(MAX_SHOWN) {
            info!(code:?, subject:%, text; "status: finding");
        }
    }
}

/// Publishes snapshots. Clones are the same.
#[derive(Clone)]
pub struct Publisher {
    latest: Arc<Mutex<Arc<Snapshot>>>,
    manager: ServiceManager,
}

impl Publisher {
    /// Publishes to readers in this process, and the state to the service manager.
    pub fn new(manager: ServiceManager) -> Self {
        Publisher { latest: Arc::new(Mutex::new(Arc::new(Snapshot::empty()))), manager }
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
}
