//! What a reconcile publishes: changes and findings as log lines, each namespace within its share of the log (X3), and
//! notices for Kubernetes Events (K5). It lives as long as a term of leadership.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::survey::Survey;
use crate::model::cache::FabricCache;
use crate::model::desired::DesiredState;
use crate::model::dn::EpgDn;
use crate::model::finding::{Finding, Subject, within_limits};
use crate::model::inventory::Inventory;
use crate::model::notices::{EventNotice, NoticeTracker, Outcome};
use crate::model::plan::{Plan, Tally, Transaction, describe};
use crate::model::quota::Quota;

/// The time of a share of the log.
const WINDOW: Duration = Duration::from_secs(600);

/// The findings of the last reconcile, and what was logged and published.
#[derive(Debug, Default)]
pub struct Reporter {
    pub(super) findings: BTreeSet<Finding>,
    pub(super) notices: NoticeTracker,
    /// What there is, as of the last reconcile.
    pub(super) survey: Survey,
    shares: LogShares,
    /// The plan that the policy withheld, as it was logged last.
    last_withheld: String,
}

impl Reporter {
    /// Logs which findings appeared and which are resolved; the new notices for Events.
    pub(super) fn publish(
        &mut self,
        findings: BTreeSet<Finding>,
        inventory: &Inventory,
        desired: &DesiredState,
        cache: &FabricCache,
        quota: &Quota,
        now: Instant,
    ) -> Vec<EventNotice> {
        let namespaces_naming = desired.namespaces();
        let namespaces_of = |subject: &Subject| match (namespaces_naming(subject), subject) {
            // An EPG that no workload names any more concerns the namespace that named it last.
            (none, Subject::Fabric(object)) if none.is_empty() => {
                quota.named_by(object.epg()).into_iter().cloned().collect()
            }
            (namespaces, _) => namespaces,
        };
        let (findings, left_out) = within_limits(findings, namespaces_of);
        self.shares.log_changes(&self.findings, &findings, namespaces_of, now);
        self.findings = findings;
        let findings = &self.findings;
        self.notices.reconcile_ended(Outcome { inventory, desired, fabric: cache, findings, left_out: &left_out }, now)
    }

    /// Logs what was written: each change of a small transaction, the numbers of a large one.
    pub(super) fn log_done(&mut self, transaction: &Transaction, quota: &Quota, now: Instant) {
        const MAX_LINES: usize = 20;
        let dn = &transaction.epg;
        let is_large = transaction.changes.len() > MAX_LINES;
        if is_large && self.has_room_for_change(dn, quota, now) {
            let Tally { created, updated, deleted } = Tally::of([transaction]);
            info!(epg:% = dn, created, updated, deleted; "written");
        }
        for change in &transaction.changes {
            if !is_large && self.has_room_for_change(dn, quota, now) {
                info!(epg:% = dn, change:%; "written");
            } else {
                debug!(epg:% = dn, change:%; "written");
            }
        }
    }

    fn has_room_for_change(&mut self, dn: &EpgDn, quota: &Quota, now: Instant) -> bool {
        self.shares.begin(now);
        self.shares.count_line(About::Changes, quota.named_by(dn).map_or(&[], std::slice::from_ref))
    }

    /// Logs a plan that the policy `observe` does not send, if it is another one than the last.
    pub(super) fn log_withheld(&mut self, plan: &Plan, quota: &Quota, now: Instant) {
        let text = describe(&plan.transactions);
        if text != self.last_withheld {
            info!(policy = "observe", changes:% = Tally::of(&plan.transactions); "changes not sent");
            for transaction in &plan.transactions {
                for change in &transaction.changes {
                    if self.has_room_for_change(&transaction.epg, quota, now) {
                        info!(epg:% = transaction.epg, change:%; "would change");
                    }
                }
            }
            self.last_withheld = text;
        }
    }
}

/// What lines of the log are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum About {
    Findings,
    Changes,
}

impl About {
    /// The most lines of one namespace within [`WINDOW`].
    fn max(self) -> usize {
        match self {
            About::Findings => 100,
            About::Changes => 1000,
        }
    }

    fn word(self) -> &'static str {
        match self {
            About::Findings => "findings",
            About::Changes => "changes",
        }
    }
}

/// How much of the log each namespace has had.
#[derive(Debug, Default)]
struct LogShares {
    begun: Option<Instant>,
    lines: HashMap<(About, Arc<str>), usize>,
    /// Whom each finding of the last reconcile concerns: once it is resolved, no workload may name its subject any more.
    namespaces: HashMap<Subject, Vec<Arc<str>>>,
}

impl LogShares {
    /// Begins a new window if the last one is over.
    fn begin(&mut self, now: Instant) {
        if self.begun.is_some_and(|begun| now.saturating_duration_since(begun) < WINDOW) {
            return;
        }
        self.begun = Some(now);
        for ((about, namespace), lines) in self.lines.drain().filter(|((about, _), lines)| *lines > about.max()) {
            info!(namespace:%, subject = about.word(), count = lines - about.max(); "log lines were left out");
        }
    }

    /// Counts one more line. False if all namespaces that it concerns have used up their share.
    fn count_line(&mut self, about: About, namespaces: &[Arc<str>]) -> bool {
        let mut has_room = namespaces.is_empty();
        for namespace in namespaces {
            let lines = self.lines.entry((about, namespace.clone())).or_default();
            *lines += 1;
            has_room |= *lines <= about.max();
            if *lines == about.max() + 1 {
                warn!(namespace:%, subject = about.word(), count = about.max();
                    "too many log lines of one namespace in ten minutes; leaving out more");
            }
        }
        has_room
    }

    fn log_changes(
        &mut self,
        before: &BTreeSet<Finding>,
        findings: &BTreeSet<Finding>,
        namespaces_of: impl Fn(&Subject) -> Vec<Arc<str>>,
        now: Instant,
    ) {
        self.begin(now);
        let namespaces_before = std::mem::take(&mut self.namespaces);
        for finding in findings {
            self.namespaces.insert(finding.subject.clone(), namespaces_of(&finding.subject));
        }
        for finding in findings.difference(before) {
            let namespaces = self.namespaces.get(&finding.subject).cloned().unwrap_or_default();
            if !self.count_line(About::Findings, &namespaces) {
                continue;
            }
            let Finding { code, subject, text, .. } = finding;
            if code.is_notice() {
                info!(code:?, subject:%, text; "finding");
            } else {
                warn!(code:?, subject:%, text; "finding");
            }
        }
        for finding in before.difference(findings) {
            if self.count_line(About::Findings, namespaces_before.get(&finding.subject).map_or(&[], Vec::as_slice)) {
                let Finding { code, subject, text, .. } = finding;
                info!(code:?, subject:%, text; "finding resolved");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dn::{L3outDn, Name};
    use crate::model::finding::Code;

    /// X3: a namespace that changes what is found all the time has its share of the log, what goes counted like what
    /// comes, and takes nothing from others; a new window starts over.
    #[test]
    fn a_namespace_has_its_share_of_the_log() {
        let epg = |n: usize| -> EpgDn {
            let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
            l3out.epg(Name::object(&format!("E{n}")).unwrap())
        };
        let found = |n: usize| BTreeSet::from([Finding::new(Code::L3OutNotFound, &epg(n), "x")]);
        let (start, mut shares, mut before) = (Instant::now(), LogShares::default(), BTreeSet::new());
        for n in 0..200 {
            let now = found(n);
            shares.log_changes(&before, &now, |_| vec!["evil".into()], start);
            before = now;
        }
        assert_eq!(shares.lines.get(&(About::Findings, "evil".into())), Some(&399));
        assert!(!shares.count_line(About::Findings, &["evil".into()]));
        assert!(shares.count_line(About::Findings, &["evil".into(), "shop".into()]));
        assert!(shares.count_line(About::Findings, &[]));
        // Changes have a share of their own.
        assert_eq!((0..2000).filter(|_| shares.count_line(About::Changes, &["evil".into()])).count(), 1000);
        shares.log_changes(&before, &before, |_| vec!["evil".into()], start + WINDOW);
        assert!(
            shares.count_line(About::Findings, &["evil".into()]) && shares.count_line(About::Changes, &["evil".into()])
        );
        assert_eq!(shares.namespaces.len(), 1, "of what is found now");
    }
}
