//! What people read at an object of the cluster (K5): which notices follow from the outcome of a reconcile.
//!
//! Findings are about Deployments and Services, or about EPGs and L3Outs; the latter become notices for each Deployment that
//! names them. How notices become Kubernetes Events, and how many of them, is decided in `kube::recorder`.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::cache::FabricCache;
use super::desired::{DesiredEpg, DesiredState};
use super::dn::EpgDn;
use super::finding::{Code, Finding, Subject, counted};
use super::inventory::Inventory;
use super::kubernetes::{Key, Kind, Workload};
use super::observed::Epg;
use super::owner::Ownership;

/// Something new about an object of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventNotice {
    /// The object.
    pub about: ObjectRef,
    /// The reason of the Kubernetes Event.
    pub reason: EventReason,
    /// The text, for people.
    pub note: String,
}

/// An object of the cluster: this very one, and not another of the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: Key,
    /// Its `metadata.uid`.
    pub uid: Box<str>,
}

/// The reasons of notices. People see their names and search for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventReason {
    /// The Deployment's EPG and all subnets in it are on the fabric, for the first time.
    Synced,
    /// Nothing of what the Deployment had is left on the fabric.
    Released,
    /// There is a finding.
    Finding(Code),
}

impl EventReason {
    /// Whether people may have to do something about it.
    pub fn is_warning(self) -> bool {
        matches!(self, EventReason::Finding(code) if !matches!(code, Code::Paused | Code::OtherClusterObjects))
    }
}

impl fmt::Display for EventReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventReason::Finding(code) => code.fmt(f),
            done => write!(f, "{done:?}"),
        }
    }
}

/// The most Deployments that are remembered. Deployments that are gone may never be released, for example if nothing is ever
/// deleted.
const MAX_TRACKED: usize = 16_384;

/// What was reported before, so that nothing is reported twice.
#[derive(Debug, Default)]
pub struct NoticeTracker {
    /// The findings about each object. A finding about the object itself has its text here: a new text is a new notice,
    /// because the object was changed. The text of a finding about an EPG changes with each Pod, so it does not count.
    findings: BTreeMap<(ObjectRef, Code), String>,
    /// Each managed Deployment's way onto the fabric and off it.
    presences: BTreeMap<ObjectRef, Presence>,
    /// The EPGs that were written to since the end of the last reconcile.
    written: BTreeSet<EpgDn>,
}

/// A Deployment's time in an EPG.
#[derive(Debug)]
struct Presence {
    epg: EpgDn,
    /// This process has written there since.
    written: bool,
    /// All of it was there once.
    synced: bool,
}

/// What is known at the end of a reconcile.
#[derive(Clone, Copy)]
pub struct Outcome<'a> {
    /// The cluster.
    pub inventory: &'a Inventory,
    /// What it calls for.
    pub desired: &'a DesiredState,
    /// What the fabric holds.
    pub fabric: &'a FabricCache,
    /// All findings.
    pub findings: &'a BTreeSet<Finding>,
}

impl NoticeTracker {
    /// Something was created or changed in an EPG.
    pub fn written(&mut self, epg: &EpgDn) {
        self.written.insert(epg.clone());
    }

    /// What is new at the end of a reconcile.
    pub fn reconcile_ended(&mut self, outcome: Outcome<'_>) -> Vec<EventNotice> {
        let mut notices = self.new_findings(outcome);
        let mut former = std::mem::take(&mut self.presences);
        notices.extend(self.arrivals(outcome, &mut former));
        notices.extend(self.departures(outcome, former));
        notices
    }

    /// Findings that an object did not have before. Those of one code share a notice.
    fn new_findings(&mut self, Outcome { inventory, desired, findings, .. }: Outcome<'_>) -> Vec<EventNotice> {
        let mut notes: BTreeMap<(ObjectRef, Code), Vec<String>> = BTreeMap::new();
        let mut now: BTreeMap<(ObjectRef, Code), String> = BTreeMap::new();
        for finding in findings {
            let (note, own_text) = match &finding.subject {
                Subject::Cluster(..) => (finding.note().to_owned(), finding.note()),
                subject => (format!("{subject}: {}", finding.note()), ""),
            };
            for about in affected(&finding.subject, inventory, desired) {
                now.entry((about.clone(), finding.code)).or_default().push_str(own_text);
                notes.entry((about, finding.code)).or_default().push(note.clone());
            }
        }
        let before = std::mem::replace(&mut self.findings, now);
        notes.retain(|it, _| before.get(it) != self.findings.get(it));
        let mut notices = Vec::new();
        for ((about, code), notes) in notes {
            notices.push(EventNotice { about, reason: EventReason::Finding(code), note: notes.join("; ") });
        }
        notices
    }

    /// Deployments that are on the fabric for the first time. A restart on a converged fabric reports none. The presences
    /// that go on are taken out of `former`.
    fn arrivals(&mut self, outcome: Outcome<'_>, former: &mut BTreeMap<ObjectRef, Presence>) -> Vec<EventNotice> {
        let mut notices = Vec::new();
        let written = std::mem::take(&mut self.written);
        for (dn, epg) in &outcome.desired.epgs {
            let is_synced = LazyCell::new(|| is_synced(epg, outcome.fabric.epg(dn)));
            for about in epg.workloads.iter().filter_map(|it| object_ref(outcome.inventory, it)) {
                let presence = former.remove(&about).filter(|it| it.epg == *dn);
                let mut presence = presence.unwrap_or(Presence { epg: dn.clone(), written: false, synced: false });
                presence.written |= written.contains(dn);
                if !presence.synced && *is_synced {
                    presence.synced = true;
                    if presence.written {
                        let note = format!("{dn} is on the fabric with {}", counted(epg.subnets.len(), "subnet"));
                        notices.push(EventNotice { about: about.clone(), reason: EventReason::Synced, note });
                    }
                }
                self.presences.insert(about, presence);
            }
        }
        notices
    }

    /// Deployments of which nothing is left in the EPG that they named.
    fn departures(&mut self, outcome: Outcome<'_>, former: BTreeMap<ObjectRef, Presence>) -> Vec<EventNotice> {
        let mut notices = Vec::new();
        for (about, presence) in former {
            // An L3Out that is not read any more is not relevant any more.
            if outcome.fabric.l3out(&presence.epg.l3out).is_none() {
                continue;
            }
            match released(&presence.epg, outcome) {
                Some(note) if presence.written || presence.synced => {
                    notices.push(EventNotice { about, reason: EventReason::Released, note });
                }
                None if self.presences.len() < MAX_TRACKED => {
                    self.presences.insert(about, presence);
                }
                _ => {}
            }
        }
        notices
    }
}

/// The objects of the cluster that a finding is about.
fn affected(subject: &Subject, inventory: &Inventory, desired: &DesiredState) -> Vec<ObjectRef> {
    let naming = |epg: &DesiredEpg| epg.workloads.iter().filter_map(|it| object_ref(inventory, it)).collect::<Vec<_>>();
    match subject {
        Subject::Cluster(kind @ Kind::Deployment, key) => {
            object_ref(inventory, &Workload { kind: *kind, key: key.clone() }).into_iter().collect()
        }
        Subject::Cluster(kind @ Kind::Service, key) => {
            let uid = inventory.services.get(key).map(|it| it.uid.clone());
            uid.map(|uid| ObjectRef { kind: *kind, key: key.clone(), uid }).into_iter().collect()
        }
        Subject::Fabric(object) => desired.epgs.get(object.epg()).map(naming).unwrap_or_default(),
        Subject::L3out(dn) => {
            desired.epgs.iter().filter(|(epg, _)| epg.l3out == *dn).flat_map(|(_, epg)| naming(epg)).collect()
        }
        Subject::Cluster(Kind::Pod, _) | Subject::Namespace(_) | Subject::Part(_) => Vec::new(),
    }
}

fn object_ref(inventory: &Inventory, workload: &Workload) -> Option<ObjectRef> {
    let Workload { kind, key } = workload;
    let managed = inventory.workload(workload).map(|it| &it.deployment);
    let uid = managed.or_else(|| inventory.misannotated.get(key))?.uid.clone();
    Some(ObjectRef { kind: *kind, key: key.clone(), uid })
}

/// Whether all that is desired is there. An EPG without an address is of no use yet.
fn is_synced(desired: &DesiredEpg, epg: Option<&Epg>) -> bool {
    !desired.subnets.is_empty() && epg.is_some_and(|it| desired.subnets.keys().all(|at| it.subnets.contains_key(at)))
}

/// What became of an EPG that a Deployment no longer names; nothing while something in it is still to go.
fn released(dn: &EpgDn, outcome: Outcome<'_>) -> Option<String> {
    let Some(epg) = outcome.fabric.epg(dn) else { return Some(format!("{dn} is gone from the fabric")) };
    let desired = outcome.desired.epgs.get(dn);
    let is_desired = |prefix| desired.is_some_and(|it| it.subnets.contains_key(prefix));
    if epg.subnets.iter().any(|(prefix, it)| it.ownership == Ownership::Owned && !is_desired(prefix)) {
        return None;
    }
    let subject = Subject::from(dn);
    let is_retained = || outcome.findings.iter().any(|it| it.code == Code::EpgRetained && it.subject == subject);
    let stays = desired.is_some() || epg.ownership != Ownership::Owned || is_retained();
    stays.then(|| format!("subnets of the Deployment were removed from {dn}; the EPG stays"))
}
