//! The findings of a plan, and their texts. What is said of many addresses of one EPG is said once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::desired::DesiredEpg;
use super::dn::{EpgDn, L3outDn, Prefix};
use super::finding::{Code, Few, Finding, counted};
use super::kubernetes::Workload;
use super::observed::Epg;
use super::retained::{Reason, Retained};
use super::scope::IMPORT_SECURITY;

/// What holds an address elsewhere in the VRF, so that it is not put where it is desired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// An owned or legacy subnet: a move, which waits until that subnet is gone.
    Moves,
    /// The same, but the move waits for an operator's approval (J3).
    Blocked,
    /// A subnet that a pause retains (D2).
    Paused,
    /// A foreign subnet, which stays there.
    Foreign,
}

/// Findings, and those that are gathered first.
#[derive(Default)]
pub(super) struct PlanFindings<'a> {
    findings: Vec<Finding>,
    /// Addresses that could not be put into an EPG, by EPG, holder and the EPG that has them.
    waiting: BTreeMap<(&'a EpgDn, Holder, EpgDn), Vec<Prefix>>,
    /// Subnets that stay although they are not desired where they are, by EPG.
    retained: BTreeMap<(EpgDn, Retained<'a>), Vec<Prefix>>,
    /// The workloads that wait for each missing L3Out.
    missing: BTreeMap<&'a L3outDn, Vec<&'a Workload>>,
}

impl<'a> PlanFindings<'a> {
    fn add(&mut self, code: Code, subject: &EpgDn, text: impl Into<String>) {
        self.findings.push(Finding::new(code, subject, text));
    }

    /// W2, S3: an address is not put into an EPG while it is in another one of the VRF.
    pub(super) fn waits(&mut self, dn: &'a EpgDn, prefix: Prefix, holder: Holder, at: &EpgDn) {
        self.waiting.entry((dn, holder, at.clone())).or_default().push(prefix);
    }

    /// D2, D3, D5: a subnet stays although it is not desired where it is.
    pub(super) fn retained(&mut self, dn: &EpgDn, prefix: Prefix, retained: Retained<'a>) {
        self.retained.entry((dn.clone(), retained)).or_default().push(prefix);
    }

    /// R3: an L3Out that workloads name is missing.
    pub(super) fn l3out_not_found(&mut self, dn: &'a L3outDn, workloads: &'a [Workload]) {
        self.missing.entry(dn).or_default().extend(workloads);
    }

    /// O6: objects of another cluster are in the EPG.
    pub(super) fn other_clusters(&mut self, dn: &EpgDn, epg: &Epg) {
        if !epg.other_clusters.is_empty() {
            let ids = Few::of(&epg.other_clusters);
            let text = format!(
                "EPG holds objects of another cluster's aci-sync ({ids}); leaving them alone. If that is this cluster's \
                 former id, --adopt-id takes them over"
            );
            self.add(Code::OtherClusterObjects, dn, text);
        }
    }

    /// R7: an EPG of ours that came back lacks the contract relations that it had, until it has one again.
    pub(super) fn contracts_lost(&mut self, dn: &EpgDn, relations: impl IntoIterator<Item = &'a Box<str>>) {
        let relations = Few::of(relations);
        let text = format!(
            "another writer deleted the EPG; restored without its contract relations: {relations}; add those that are \
             still needed"
        );
        self.add(Code::ContractsLost, dn, text);
    }

    /// O2: foreign subnets satisfy what is desired, but do not classify traffic.
    pub(super) fn not_classified(&mut self, dn: &EpgDn, subnets: Vec<Prefix>) {
        if !subnets.is_empty() {
            let subnets = Few::of(subnets);
            let text =
                format!("traffic is not classified until {IMPORT_SECURITY} is added to foreign subnets: {subnets}");
            self.add(Code::ForeignScope, dn, text);
        }
    }

    /// R2: an EPG that is not desired has lost its owner annotation.
    pub(super) fn epg_lost_owner(&mut self, dn: &EpgDn) {
        self.add(Code::OwnerMarkLost, dn, "owner annotation was removed and the EPG is not desired; leaving it alone");
    }

    /// R2: subnets that are not desired have lost their owner annotation.
    pub(super) fn subnets_lost_owner(&mut self, dn: &EpgDn, subnets: Vec<Prefix>) {
        if !subnets.is_empty() {
            let text = format!("owner annotation was removed and not desired; leaving alone: {}", Few::of(subnets));
            self.add(Code::OwnerMarkLost, dn, text);
        }
    }

    /// O3: a legacy EPG is not desired.
    pub(super) fn legacy_epg(&mut self, dn: &EpgDn) {
        self.add(Code::LegacyObject, dn, "legacy EPG that no workload names; leaving it alone");
    }

    /// O3: legacy subnets are not desired.
    pub(super) fn legacy_subnets(&mut self, dn: &EpgDn, subnets: Vec<Prefix>) {
        if !subnets.is_empty() {
            let text = format!("legacy subnets that are not desired; leaving them alone: {}", Few::of(subnets));
            self.add(Code::LegacyObject, dn, text);
        }
    }

    /// D6: an EPG stays because of the foreign subnets in it.
    pub(super) fn holds_foreign(&mut self, dn: &EpgDn, subnets: usize) {
        let text = format!("no longer desired; keeping it while it holds {}", counted(subnets, "foreign subnet"));
        self.add(Code::EpgRetained, dn, text);
    }

    /// D6: an EPG stays because of its contract relations.
    pub(super) fn keeps_contracts(&mut self, dn: &EpgDn) {
        let text = "no longer desired; keeping it empty while it has contract relations (--keep-contracted)";
        self.add(Code::EpgRetained, dn, text);
    }

    /// D6: a running grace is visible. The text is the same in each reconcile, so it has the length and not what is left.
    pub(super) fn in_grace(&mut self, dn: &EpgDn, epg: &Epg, length: Duration) {
        let relations = match epg.relations.len() {
            0 => String::new(),
            some => format!(", with {}", counted(some, "contract relation")),
        };
        let text = format!("no longer desired; deleting it after a grace of {} s{relations}", length.as_secs());
        self.add(Code::EpgInGrace, dn, text);
    }

    /// W6: a foreign EPG is not used.
    pub(super) fn foreign_epg_refused(&mut self, dn: &EpgDn) {
        self.add(Code::ForeignEpgRefused, dn, "foreign EPG, and --foreign-epg is refuse; nothing is written to it");
    }

    /// W6: an EPG is beyond the quota. The log has the namespaces and workloads; an Event has no other namespace's.
    pub(super) fn too_many_epgs(&mut self, dn: &EpgDn, desired: &DesiredEpg, most: usize) {
        let namespaces: Vec<&Arc<str>> = desired.namespaces().collect();
        let noun = if namespaces.len() == 1 { "namespace" } else { "namespaces" };
        let limit = format!("reached --max-epgs ({most}), counting EPGs in their grace");
        let (namespaces, workloads) = (Few::of(namespaces), Few::of(&desired.workloads));
        let text = format!("nothing is written to the EPG: {noun} {namespaces} {limit} ({workloads})");
        let note = format!("nothing is written to the EPG: the namespace {limit}");
        self.findings.push(Finding::new(Code::TooManyEpgs, dn, text).with_note(note));
    }

    /// O4: a foreign EPG that was used is gone. `tag` marks it as foreign, unless only this process remembers that.
    pub(super) fn foreign_epg_deleted(&mut self, dn: &EpgDn, tag: Option<&str>) {
        let consent = tag.map_or_else(|| "restart aci-sync".to_owned(), |tag| format!("delete the tag {tag}"));
        let text = format!("foreign EPG was deleted; not recreating it. To let aci-sync create and own it, {consent}");
        self.add(Code::ForeignEpgDeleted, dn, text);
    }

    /// O4: the tag about a foreign EPG cannot be written.
    pub(super) fn tag_write_failed(&mut self, dn: &EpgDn, why: &str) {
        let text = format!(
            "failed to write the tag that marks the EPG as foreign: {why}; using the EPG, but if it is deleted, aci-sync \
             creates it as its own after a restart"
        );
        self.add(Code::TagWriteFailed, dn, text);
    }

    /// How much was found so far about EPGs that are there. An L3Out that is missing has none.
    pub(super) fn count(&self) -> usize {
        self.findings.len() + self.waiting.len() + self.retained.len()
    }

    /// All findings, sorted. `may_delete` says whether moves can go on now.
    pub(super) fn finish(self, may_delete: bool) -> Vec<Finding> {
        let mut findings = self.findings;
        for ((dn, holder, at), prefixes) in self.waiting {
            findings.push(waiting(dn, holder, &at, &prefixes, may_delete));
        }
        for ((dn, Retained { workload, reason }), prefixes) in self.retained {
            let prefixes = Few::of(prefixes);
            let text = format!("keeping {prefixes} in {dn}: {reason}");
            match workload {
                _ if reason == Reason::Moves => {}
                Some(workload) => findings.push(Finding::new(Code::SubnetRetained, workload, text)),
                None => findings.push(Finding::new(Code::SubnetRetained, &dn, format!("keeping {prefixes}: {reason}"))),
            }
        }
        for (dn, workloads) in self.missing {
            let note = "L3Out not found; waiting for it to be created";
            let text = format!("{note} ({})", Few::of(workloads));
            findings.push(Finding::new(Code::L3OutNotFound, dn, text).with_note(note));
        }
        findings.sort();
        findings
    }
}

/// The note for Events leaves out the other EPG, which may be another namespace's.
fn waiting(dn: &EpgDn, holder: Holder, at: &EpgDn, prefixes: &[Prefix], may_delete: bool) -> Finding {
    let (code, text, note) = match holder {
        Holder::Moves if may_delete => {
            (Code::MovePending, format!("waiting for removal from {at}"), "waiting for removal from another EPG")
        }
        Holder::Moves => (
            Code::MovePending,
            format!("waiting until deletions from {at} are possible"),
            "waiting until deletions from another EPG are possible",
        ),
        Holder::Blocked => (
            Code::MovePending,
            format!("waiting for approval of the move from {at}"),
            "waiting for approval of the move from another EPG",
        ),
        Holder::Paused => (
            Code::MovePending,
            format!("waiting for the pause in {at} to end"),
            "waiting for the pause of another workload to end",
        ),
        Holder::Foreign => (
            Code::ForeignSubnet,
            format!("not created: foreign subnet in {at} has the same prefix in this VRF"),
            "not created: foreign subnet in another EPG has the same prefix in this VRF",
        ),
    };
    let prefixes = Few::of(prefixes);
    Finding::new(code, dn, format!("{text}: {prefixes}")).with_note(format!("{note}: {prefixes}"))
}
