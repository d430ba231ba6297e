//! What people read at an object of the cluster (K5): which notices follow from the outcome of a reconcile.
//!
//! Findings are about workloads and Services, or about EPGs and L3Outs; the latter become notices for each workload that
//! names them. How notices become Kubernetes Events, and how many of them, is decided in `kube::recorder`.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// The workload's EPG and all subnets in it are on the fabric, for the first time.
    Synced,
    /// Nothing of what the workload had is left on the fabric.
    Released,
    /// A finding that was sent as a warning no longer holds.
    Resolved,
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

/// The most workloads that are remembered. Workloads that are gone may never be released, for example if nothing is ever
/// deleted.
const MAX_TRACKED: usize = 16_384;

/// A warning that lasts is sent again after this long: an API server keeps Events for an hour, by default.
const REPEAT: Duration = Duration::from_secs(1800);

/// The most notices within [`WINDOW`], of one namespace and in all. What is over is due in the next one, so nothing is lost.
/// The queue of Events has room for more, and sends more in that time.
const WINDOW: Duration = Duration::from_secs(60);
const MAX_OF_NAMESPACE: usize = 100;
const MAX_TOTAL: usize = 500;

/// What was reported before, so that nothing is reported twice.
#[derive(Debug, Default)]
pub struct NoticeTracker {
    /// The findings that were reported on each object. A tracker that is new knows none, and so resolves none.
    reported: BTreeMap<(ObjectRef, Code), Reported>,
    /// Each managed workload's way onto the fabric and off it.
    presences: BTreeMap<ObjectRef, Presence>,
    /// The EPGs that were written to since the end of the last reconcile.
    written: BTreeSet<EpgDn>,
    /// Notices of what happened once that wait for their turn.
    waiting: Vec<EventNotice>,
    share: Share,
    /// When a notice is due although nothing has changed.
    due: Option<Instant>,
}

/// A finding as it was reported on an object; those of one code share a notice.
#[derive(Debug)]
struct Reported {
    /// The text of findings about the object itself: a new text is a new notice, because the object was changed. The text of
    /// a finding about an EPG changes with each Pod, so it does not count.
    text: String,
    /// What the findings were about.
    subjects: Vec<Subject>,
    at: Instant,
}

/// The findings of one code that concern an object.
type Holding<'a> = BTreeMap<(ObjectRef, Code), Vec<&'a Finding>>;

/// How many notices there were in the present window.
#[derive(Debug, Default)]
struct Share {
    begun: Option<Instant>,
    of_namespace: BTreeMap<Arc<str>, usize>,
    total: usize,
    /// One has found no room since the last reconcile began.
    is_short: bool,
}

impl Share {
    /// Makes room for one more notice about an object, or says that it has to wait.
    fn take(&mut self, about: &ObjectRef, now: Instant) -> bool {
        if self.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= WINDOW) {
            *self = Share { begun: Some(now), is_short: self.is_short, ..Share::default() };
        }
        let count = self.of_namespace.entry(about.key.namespace.clone()).or_default();
        let has_room = *count < MAX_OF_NAMESPACE && self.total < MAX_TOTAL;
        *count += usize::from(has_room);
        self.total += usize::from(has_room);
        self.is_short |= !has_room;
        has_room
    }
}

/// A workload's time in an EPG.
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
    /// All findings within the limits.
    pub findings: &'a BTreeSet<Finding>,
    /// The findings beyond the limits (X3): they hold, and are not shown.
    pub left_out: &'a BTreeSet<(Code, Subject)>,
}

impl NoticeTracker {
    /// Something was created or changed in an EPG.
    pub fn written(&mut self, epg: &EpgDn) {
        self.written.insert(epg.clone());
    }

    /// When a notice is due although nothing has changed: a warning is to be repeated, or one waits for its turn.
    pub fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// What is new at the end of a reconcile, and what is to be said again.
    pub fn reconcile_ended(&mut self, outcome: Outcome<'_>, now: Instant) -> Vec<EventNotice> {
        self.share.is_short = false;
        let holding = holding(outcome);
        let mut notices = self.ended_findings(outcome, &holding, now);
        notices.extend(self.new_findings(&holding, now));
        let mut former = std::mem::take(&mut self.presences);
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.extend(self.arrivals(outcome, &mut former));
        waiting.extend(self.departures(outcome, former));
        waiting.truncate(MAX_TRACKED);
        for notice in waiting {
            let has_room = self.share.take(&notice.about, now);
            if has_room { &mut notices } else { &mut self.waiting }.push(notice);
        }
        notices.extend(self.lasting_findings(&holding, now));
        let warnings = self.reported.iter().filter(|((_, code), _)| EventReason::Finding(*code).is_warning());
        let repeats = warnings.map(|(_, reported)| reported.at + REPEAT).filter(|at| *at > now);
        let next_window = self.share.begun.filter(|_| self.share.is_short).map(|begun| begun + WINDOW);
        self.due = repeats.chain(next_window).min();
        notices
    }

    /// Findings that no longer hold on an object. A finding that only found no room within the limits does (X3).
    fn ended_findings(&mut self, outcome: Outcome<'_>, holding: &Holding<'_>, now: Instant) -> Vec<EventNotice> {
        let mut notices = Vec::new();
        let share = &mut self.share;
        self.reported.retain(|(about, code), reported| {
            let is_left_out = |subject: &Subject| {
                outcome.left_out.contains(&(*code, subject.clone()))
                    && affected(subject, outcome.inventory, outcome.desired).contains(about)
            };
            if holding.contains_key(&(about.clone(), *code)) || reported.subjects.iter().any(is_left_out) {
                return true;
            }
            if !EventReason::Finding(*code).is_warning() {
                return false;
            }
            let has_room = share.take(about, now);
            if has_room {
                let note = format!("{code} no longer holds");
                notices.push(EventNotice { about: about.clone(), reason: EventReason::Resolved, note });
            }
            !has_room
        });
        notices
    }

    /// Findings that an object did not have before.
    fn new_findings(&mut self, holding: &Holding<'_>, now: Instant) -> Vec<EventNotice> {
        let mut notices = Vec::new();
        for ((about, code), findings) in holding {
            let own = findings.iter().filter(|it| matches!(it.subject, Subject::Cluster(..)));
            let text: String = own.map(|it| it.note()).collect();
            let reported = self.reported.get_mut(&(about.clone(), *code));
            let subjects = || findings.iter().map(|it| it.subject.clone()).collect();
            match reported {
                Some(reported) if reported.text == text => reported.subjects = subjects(),
                _ if !self.share.take(about, now) => {}
                _ => {
                    notices.push(notice(about, *code, findings));
                    self.reported.insert((about.clone(), *code), Reported { text, subjects: subjects(), at: now });
                }
            }
        }
        notices
    }

    /// Warnings that have lasted for a while since they were sent.
    fn lasting_findings(&mut self, holding: &Holding<'_>, now: Instant) -> Vec<EventNotice> {
        let mut notices = Vec::new();
        for ((about, code), reported) in &mut self.reported {
            let is_due = now.saturating_duration_since(reported.at) >= REPEAT;
            if is_due
                && EventReason::Finding(*code).is_warning()
                && let Some(findings) = holding.get(&(about.clone(), *code))
                && self.share.take(about, now)
            {
                reported.at = now;
                notices.push(notice(about, *code, findings));
            }
        }
        notices
    }

    /// Workloads that are on the fabric for the first time. A restart on a converged fabric reports none. The presences
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

    /// Workloads of which nothing is left in the EPG that they named.
    fn departures(&mut self, outcome: Outcome<'_>, former: BTreeMap<ObjectRef, Presence>) -> Vec<EventNotice> {
        let mut notices = Vec::new();
        for (about, presence) in former {
            // An L3Out that is not read any more is not relevant any more.
            if outcome.fabric.l3out(&presence.epg.l3out).is_none() {
                continue;
            }
            match released(about.kind, &presence.epg, outcome) {
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

/// The findings by the objects that they are about.
fn holding<'a>(outcome: Outcome<'a>) -> Holding<'a> {
    let mut holding = Holding::new();
    for finding in outcome.findings {
        for about in affected(&finding.subject, outcome.inventory, outcome.desired) {
            holding.entry((about, finding.code)).or_default().push(finding);
        }
    }
    holding
}

fn notice(about: &ObjectRef, code: Code, findings: &[&Finding]) -> EventNotice {
    let note = |finding: &&Finding| match &finding.subject {
        Subject::Cluster(..) => finding.note().to_owned(),
        subject => format!("{subject}: {}", finding.note()),
    };
    let note = findings.iter().map(note).collect::<Vec<_>>().join("; ");
    EventNotice { about: about.clone(), reason: EventReason::Finding(code), note }
}

/// The objects of the cluster that a finding is about.
fn affected(subject: &Subject, inventory: &Inventory, desired: &DesiredState) -> Vec<ObjectRef> {
    let naming = |epg: &DesiredEpg| epg.workloads.iter().filter_map(|it| object_ref(inventory, it)).collect::<Vec<_>>();
    match subject {
        Subject::Cluster(kind, key) if kind.is_workload() => {
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
        Subject::Cluster(..) | Subject::Namespace(_) | Subject::Part(_) => Vec::new(),
    }
}

fn object_ref(inventory: &Inventory, workload: &Workload) -> Option<ObjectRef> {
    let managed = inventory.managed.get(workload).map(|it| &it.record);
    let uid = managed.or_else(|| inventory.misannotated.get(workload))?.uid.clone();
    Some(ObjectRef { kind: workload.kind, key: workload.key.clone(), uid })
}

/// Whether all that is desired is there. An EPG without an address is of no use yet.
fn is_synced(desired: &DesiredEpg, epg: Option<&Epg>) -> bool {
    !desired.subnets.is_empty() && epg.is_some_and(|it| desired.subnets.keys().all(|at| it.subnets.contains_key(at)))
}

/// What became of an EPG that a workload no longer names; nothing while something in it is still to go.
fn released(kind: Kind, dn: &EpgDn, outcome: Outcome<'_>) -> Option<String> {
    let Some(epg) = outcome.fabric.epg(dn) else { return Some(format!("{dn} is gone from the fabric")) };
    let desired = outcome.desired.epgs.get(dn);
    let is_desired = |prefix| desired.is_some_and(|it| it.subnets.contains_key(prefix));
    if epg.subnets.iter().any(|(prefix, it)| it.ownership == Ownership::Owned && !is_desired(prefix)) {
        return None;
    }
    let subject = Subject::from(dn);
    let is_retained = || outcome.findings.iter().any(|it| it.code == Code::EpgRetained && it.subject == subject);
    let stays = desired.is_some() || epg.ownership != Ownership::Owned || is_retained();
    stays.then(|| format!("subnets of the {kind} were removed from {dn}; the EPG stays"))
}
