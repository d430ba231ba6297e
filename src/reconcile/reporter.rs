//! What a reconcile says in the log: the findings that appear and go, and each namespace its share of the lines (X3).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::Reconciler;
use crate::model::desired::DesiredState;
use crate::model::finding::{Code, Finding, Subject, within_limits};
use crate::model::notices::EventNotice;
use crate::model::plan::{Plan, Tally, describe};

/// The most lines about the findings of one namespace in so long a time.
const MAX_LINES: usize = 100;
const WINDOW: Duration = Duration::from_secs(600);

/// How much of the log each namespace has had.
#[derive(Debug, Default)]
pub(super) struct LogShares {
    begun: Option<Instant>,
    lines: HashMap<Arc<str>, usize>,
    /// Whose each finding of the last reconcile is: once it has gone, nobody may name its subject any more.
    namespaces: HashMap<Subject, Vec<Arc<str>>>,
}

impl LogShares {
    /// A new window begins where the last one is over.
    fn begin(&mut self, now: Instant) {
        if self.begun.is_some_and(|it| now.saturating_duration_since(it) < WINDOW) {
            return;
        }
        self.begun = Some(now);
        for (namespace, lines) in self.lines.drain().filter(|(_, lines)| *lines > MAX_LINES) {
            info!("Namespace {namespace}: lines about findings that were left out: {}", lines - MAX_LINES);
        }
    }

    /// Whether one more line about a finding is within the share of one of the namespaces that it concerns.
    fn takes(&mut self, namespaces: &[Arc<str>]) -> bool {
        let mut has_room = namespaces.is_empty();
        for namespace in namespaces {
            let lines = self.lines.entry(namespace.clone()).or_default();
            *lines += 1;
            has_room |= *lines <= MAX_LINES;
            if *lines == MAX_LINES + 1 {
                let minutes = WINDOW.as_secs() / 60;
                warn!(
                    "Namespace {namespace}: more than {MAX_LINES} lines about findings in {minutes} minutes; further \
                     ones are left out, SIGUSR1 shows what is found"
                );
            }
        }
        has_room
    }

    /// Says which findings are new and which are gone.
    fn tell(
        &mut self,
        before: &BTreeSet<Finding>,
        findings: &BTreeSet<Finding>,
        namespaces_of: impl Fn(&Subject) -> Vec<Arc<str>>,
        now: Instant,
    ) {
        self.begin(now);
        let gone_of = std::mem::take(&mut self.namespaces);
        for finding in findings {
            self.namespaces.insert(finding.subject.clone(), namespaces_of(&finding.subject));
        }
        for finding in findings.difference(before) {
            let namespaces = self.namespaces.get(&finding.subject).cloned().unwrap_or_default();
            match self.takes(&namespaces) {
                true if finding.code.is_notice() => info!("{finding}"),
                true => warn!("{finding}"),
                false => {}
            }
        }
        for finding in before.difference(findings) {
            if self.takes(gone_of.get(&finding.subject).map_or(&[], Vec::as_slice)) {
                info!("no longer: {finding}");
            }
        }
    }
}

impl Reconciler {
    /// Under `observe` a plan is told and not sent.
    pub(super) fn log_withheld(&mut self, plan: &Plan) {
        if self.writer.writes() {
            return;
        }
        let text = describe(&plan.transactions);
        if text != self.last_withheld {
            info!("policy observe, nothing is sent: {}", Tally::of(&plan.transactions));
            text.lines().for_each(|line| info!("would change: {line}"));
            self.last_withheld = text;
        }
    }

    /// A finding is told when it appears and when it goes.
    pub(super) fn report_findings(&mut self, desired: &DesiredState, plan: Plan, now: Instant) -> Vec<EventNotice> {
        let mut findings: BTreeSet<Finding> = desired.findings.iter().cloned().chain(plan.findings).collect();
        findings.extend(self.deferrals.findings().chain(self.deferred_l3outs.findings()).cloned());
        findings.extend(self.drift.findings(now));
        findings.extend(self.subscriptions.findings());
        findings.extend(self.missing_pods.findings(now));
        findings.extend(self.deletion_guard.finding());
        findings.extend(self.ownership_query_error.as_ref().map(|why| {
            let text = format!(
                "failed to query owned objects: {why}; those in L3Outs that no Deployment names may stay until it succeeds"
            );
            Finding::new(Code::Unavailable, "APIC", text)
        }));
        let named = desired.namespaces();
        let namespaces_of = |subject: &Subject| match (named(subject), subject) {
            // An EPG that nobody names any more is the affair of whoever did.
            (none, Subject::Fabric(object)) if none.is_empty() => {
                self.quota.named_by(object.epg()).into_iter().cloned().collect()
            }
            (namespaces, _) => namespaces,
        };
        let findings = within_limits(findings, namespaces_of);
        self.log_shares.tell(&self.findings, &findings, namespaces_of, now);
        self.findings = findings;
        self.notices.reconcile_ended(&self.inventory, desired, &self.fabric, &self.findings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dn::{EpgDn, L3outDn, Name};

    /// X3: a namespace that changes what is found all the time has its share of the log, what goes counted like what
    /// comes, and takes nothing from others; a new window begins anew.
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
            shares.tell(&before, &now, |_| vec!["evil".into()], start);
            before = now;
        }
        assert_eq!(shares.lines.get("evil"), Some(&399));
        assert!(!shares.takes(&["evil".into()]));
        assert!(shares.takes(&["evil".into(), "shop".into()]) && shares.takes(&[]));
        shares.tell(&before, &before, |_| vec!["evil".into()], start + WINDOW);
        assert!(shares.takes(&["evil".into()]));
        assert_eq!(shares.namespaces.len(), 1, "of what is found now");
    }
}
