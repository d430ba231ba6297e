//! What people who look at an object of the cluster are told (K5): which notices follow from what a reconcile came to.
//!
//! Findings are about Deployments and Services, or about EPGs and L3Outs; the latter are notices for each Deployment that
//! names them. How notices become Kubernetes Events, and how many of them, is `kube::recorder`'s.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::cache::FabricCache;
use super::desired::{DesiredEpg, DesiredState};
use super::dn::{EpgDn, ObjectDn};
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
    /// What sort of notices it is.
    pub reason: EventReason,
    /// The whole of it, for people.
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

/// The sorts of notices; people see and look for their names.
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
    /// Somebody may have to do something about it.
    pub fn is_warning(self) -> bool {
        matches!(self, EventReason::Finding(code) if !matches!(code, Code::Paused | Code::OtherClusterObjects))
    }
}

impl fmt::Display for EventReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventReason::Finding(code) => write!(f, "{code:?}"),
            done => write!(f, "{done:?}"),
        }
    }
}

/// The most Deployments that are kept in mind. Those that have gone may never be released, as where nothing is deleted.
const MAX_TRACKED: usize = 16_384;

/// What has been told, so that nothing is notices twice.
#[derive(Debug, Default)]
pub struct NoticeTracker {
    /// What each finding was about. The text counts where the finding is about the object itself: somebody changed it.
    /// What is said of an EPG changes with each Pod, and is notices only where there was nothing before.
    findings: BTreeMap<(ObjectRef, Code), String>,
    /// Each managed Deployment's way onto the fabric and off it.
    presences: BTreeMap<ObjectRef, Presence>,
    /// The EPGs in which something was made since the last end of a reconcile.
    written: BTreeSet<EpgDn>,
}

/// A Deployment's time in an EPG.
#[derive(Debug)]
struct Presence {
    epg: EpgDn,
    /// This process made something there since.
    written: bool,
    /// All was there once.
    synced: bool,
}

impl NoticeTracker {
    /// Something was made or changed in an EPG.
    pub fn written(&mut self, epg: &EpgDn) {
        self.written.insert(epg.clone());
    }

    /// What is new at the end of a reconcile.
    pub fn reconcile_ended(
        &mut self,
        inventory: &Inventory,
        desired: &DesiredState,
        fabric: &FabricCache,
        findings: &BTreeSet<Finding>,
    ) -> Vec<EventNotice> {
        let mut notices = self.found(inventory, desired, findings);
        notices.extend(self.done(inventory, desired, fabric, findings));
        notices
    }

    /// Findings that an object has now and had not before. Several of one sort are told together.
    fn found(
        &mut self,
        inventory: &Inventory,
        desired: &DesiredState,
        findings: &BTreeSet<Finding>,
    ) -> Vec<EventNotice> {
        let mut notes: BTreeMap<(ObjectRef, Code), Vec<String>> = BTreeMap::new();
        let mut now: BTreeMap<(ObjectRef, Code), String> = BTreeMap::new();
        for finding in findings {
            let (note, counts) = match &finding.subject {
                Subject::Cluster(..) => (finding.note().to_owned(), finding.note()),
                subject => (format!("{subject}: {}", finding.note()), ""),
            };
            for about in affected(&finding.subject, inventory, desired) {
                now.entry((about.clone(), finding.code)).or_default().push_str(counts);
                notes.entry((about, finding.code)).or_default().push(note.clone());
            }
        }
        let before = std::mem::replace(&mut self.findings, now);
        notes.retain(|it, _| before.get(it) != self.findings.get(it));
        let notices = notes.into_iter();
        notices
            .map(|((about, code), notes)| EventNotice {
                about,
                reason: EventReason::Finding(code),
                note: notes.join("; "),
            })
            .collect()
    }

    /// What was done for Deployments. A restart on a converged fabric has nothing to tell.
    fn done(
        &mut self,
        inventory: &Inventory,
        desired: &DesiredState,
        fabric: &FabricCache,
        findings: &BTreeSet<Finding>,
    ) -> Vec<EventNotice> {
        let mut notices = Vec::new();
        let written = std::mem::take(&mut self.written);
        let mut left = std::mem::take(&mut self.presences);
        for (dn, epg) in &desired.epgs {
            let is_synced = LazyCell::new(|| is_synced(epg, fabric.epg(dn)));
            for about in epg.workloads.iter().filter_map(|it| object_ref(inventory, it)) {
                let stay = left.remove(&about).filter(|it| it.epg == *dn);
                let mut stay = stay.unwrap_or(Presence { epg: dn.clone(), written: false, synced: false });
                stay.written |= written.contains(dn);
                if !stay.synced && *is_synced {
                    stay.synced = true;
                    if stay.written {
                        let note = format!("{dn} is on the fabric with {}", counted(epg.subnets.len(), "subnet"));
                        notices.push(EventNotice { about: about.clone(), reason: EventReason::Synced, note });
                    }
                }
                self.presences.insert(about, stay);
            }
        }
        for (about, stay) in left {
            // What is not read any more is of no interest any more.
            if fabric.l3out(&stay.epg.l3out).is_none() {
                continue;
            }
            match (rest(&stay.epg, desired, fabric, findings), stay.written || stay.synced) {
                (None, _) if self.presences.len() < MAX_TRACKED => drop(self.presences.insert(about, stay)),
                (Some(note), true) => notices.push(EventNotice { about, reason: EventReason::Released, note }),
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

/// Whether all that is desired is there. Without an address there is nothing yet that anybody could use.
fn is_synced(desired: &DesiredEpg, epg: Option<&Epg>) -> bool {
    !desired.subnets.is_empty() && epg.is_some_and(|it| desired.subnets.keys().all(|at| it.subnets.contains_key(at)))
}

/// What became of an EPG that a Deployment names no more; nothing while something of it is still to go.
fn rest(dn: &EpgDn, desired: &DesiredState, fabric: &FabricCache, findings: &BTreeSet<Finding>) -> Option<String> {
    let Some(epg) = fabric.epg(dn) else { return Some(format!("{dn} is gone from the fabric")) };
    let still = desired.epgs.get(dn);
    let is_left = |at| still.is_none_or(|it| !it.subnets.contains_key(at));
    if epg.subnets.iter().any(|(at, it)| it.ownership == Ownership::Owned && is_left(at)) {
        return None;
    }
    let subject = Subject::Fabric(ObjectDn::Epg(dn.clone()));
    let presences = || findings.iter().any(|it| it.code == Code::EpgRetained && it.subject == subject);
    (still.is_some() || epg.ownership != Ownership::Owned || presences())
        .then(|| format!("subnets of the Deployment were removed from {dn}; the EPG stays"))
}
