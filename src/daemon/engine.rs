//! All state, and one pass over it: read what is stale, plan, send, until nothing is left to do.
//!
//! The engine decides and asks; it knows no threads and no clock. Its loop of events and timers is the reconciler's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};

use super::parking::Parking;
use crate::apic::access::Access;
use crate::apic::writer::{Refusal, Writer};
use crate::apic::{Error, Query, SubscriptionId};
use crate::config::Policy;
use crate::kube;
use crate::model::diff::{self, Rules, Situation};
use crate::model::dn::{EepgDn, L3outDn, Place};
use crate::model::fabric::{CONTRACTS, EEPG, Fabric, Hint, L3OUT, L3out, Owner, SUBNET, VRF_RELATION};
use crate::model::finding::{Code, Finding};
use crate::model::grace::Grace;
use crate::model::inventory::Inventory;
use crate::model::kube::Kind;
use crate::model::mo::{Mo, MoChange};
use crate::model::plan::{Change, Plan, Tally, Transaction, describe};
use crate::model::wanted::{Wanted, wanted};

/// An L3Out in which something has just appeared that can have children, be it the L3Out itself or an EEPG of ours, is
/// read again this much later: events of the first children of a new object may be lost (R3).
const SETTLE: Duration = Duration::from_secs(5);

/// How often a pass plans anew before it leaves the rest to the next one. A create, a move and a fresh read after an
/// error need five.
const ROUNDS: usize = 12;

/// What a pass did.
#[derive(Debug, Default)]
pub struct Report {
    /// The transactions that the APIC took, in order.
    pub done: Vec<Transaction>,
    /// Something is left that the next pass, a little later, may be able to do.
    pub unfinished: bool,
}

/// The state of the whole program.
pub struct Engine {
    /// The cluster's side.
    pub inventory: Inventory,
    fabric: Fabric,
    rules: Rules,
    writer: Writer,
    grace: Grace,
    parking: Parking,
    subscriptions: BTreeMap<L3outDn, SubscriptionId>,
    /// L3Outs where a class query found something that bears our mark or a predecessor's (R4).
    marked: BTreeSet<L3outDn>,
    comparison_due: bool,
    stale_l3outs: BTreeSet<L3outDn>,
    stale_eepgs: BTreeSet<EepgDn>,
    settling: BTreeMap<L3outDn, Instant>,
    findings: BTreeSet<Finding>,
    observed: String,
}

impl Engine {
    /// An engine that knows nothing yet: its first pass is a full comparison.
    pub fn new(owner: Owner, rules: Rules, policy: Policy, grace: Duration) -> Self {
        Engine {
            inventory: Inventory::default(),
            fabric: Fabric::new(owner),
            rules,
            writer: Writer::new(policy),
            grace: Grace::new(grace),
            parking: Parking::default(),
            subscriptions: BTreeMap::new(),
            marked: BTreeSet::new(),
            comparison_due: true,
            stale_l3outs: BTreeSet::new(),
            stale_eepgs: BTreeSet::new(),
            settling: BTreeMap::new(),
            findings: BTreeSet::new(),
            observed: String::new(),
        }
    }

    /// What people should know now, as of the last pass.
    pub fn findings(&self) -> &BTreeSet<Finding> {
        &self.findings
    }

    /// Takes over what a watcher says. True where a pass may find something to do.
    pub fn cluster_changed(&mut self, event: kube::Event, now: Instant) -> bool {
        match event {
            kube::Event::Listed { kind, objects } => {
                info!("{kind}s listed: {} that matter", objects.len());
                self.inventory.listed(kind, objects, now);
                true
            }
            kube::Event::Upsert(object) => self.inventory.upsert(object),
            kube::Event::Gone { kind, key } => self.inventory.gone(kind, &key),
            kube::Event::Live { kind } => {
                let held_up = !self.inventory.incomplete(now).is_empty();
                self.inventory.live(kind);
                held_up
            }
            kube::Event::Interrupted { kind } => {
                self.inventory.interrupted(kind, now);
                false
            }
            kube::Event::Relisting { kind, why } => {
                info!("{kind}s are listed anew: {why}");
                self.inventory.relisting(kind);
                false
            }
        }
    }

    /// Whether all three kinds were listed at least once.
    pub fn is_listed(&self) -> bool {
        Kind::ALL.into_iter().all(|kind| self.inventory.was_listed(kind))
    }

    /// Takes over a websocket event. True where it says something that the mirror does not know.
    pub fn fabric_changed(&mut self, subscriptions: &[SubscriptionId], changes: &[MoChange]) -> bool {
        if !subscriptions.iter().any(|id| self.subscriptions.values().any(|it| it == id)) {
            return false;
        }
        let before = self.stale_eepgs.len() + self.stale_l3outs.len();
        for change in changes {
            match self.fabric.hint(change) {
                Hint::Nothing => {}
                Hint::Eepg(dn) => {
                    debug!("{} {:?}: {dn} is read again", change.mo.dn, change.status);
                    self.stale_eepgs.insert(dn);
                }
                Hint::L3out(dn) => {
                    debug!("{} {:?}: {dn} is read again", change.mo.dn, change.status);
                    self.stale_l3outs.insert(dn);
                }
            }
        }
        self.stale_eepgs.len() + self.stale_l3outs.len() > before
    }

    /// Events may have been lost, or time has passed: the next pass compares everything (R4).
    pub fn compare_all(&mut self) {
        self.comparison_due = true;
    }

    /// What was subscribed is void: the session ended, or a subscription lapsed. The next pass subscribes anew.
    pub fn subscriptions_lost(&mut self, apic: Option<&dyn Access>) {
        for (_, id) in std::mem::take(&mut self.subscriptions) {
            if let Some(apic) = apic {
                apic.forget(&id);
            }
        }
        self.comparison_due = true;
    }

    /// When the engine wants a pass although nothing happened.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        let settled = self.settling.values().min().copied();
        [self.grace.next_end(now), self.parking.next_end(), settled].into_iter().flatten().min()
    }

    /// When the next grace that still runs will be over (D6).
    pub fn next_grace_end(&self, now: Instant) -> Option<Instant> {
        self.grace.next_end(now)
    }

    /// How many EEPGs wait for their grace to end.
    pub fn graces_running(&self, now: Instant) -> usize {
        self.grace.running(now)
    }

    /// One pass (R6). An error ends it early; everything it learned is kept, and a later pass goes on from there.
    /// `go_on` is asked before each write; `now` is the time of the pass.
    pub fn pass(&mut self, apic: &dyn Access, now: Instant, go_on: &dyn Fn() -> bool) -> Result<Report, Error> {
        self.fabric.begin_pass();
        self.settle(now);
        self.read_stale(apic, now)?;
        let mut report = Report { unfinished: true, ..Report::default() };
        for _ in 0..ROUNDS {
            let wanted = wanted(&self.inventory, &|l3out| self.fabric.vrf(l3out));
            let plan = self.plan(&wanted, now);
            if !plan.reads.is_empty() {
                for eepg in &plan.reads {
                    self.read_eepg(apic, eepg)?;
                }
                continue;
            }
            if self.inventory.was_listed(Kind::Deployment) {
                self.grace.update(&plan.unwanted, now);
            }
            self.parking.keep(|eepg| wanted.eepgs.contains_key(eepg) || self.fabric.eepg(eepg).is_some());
            if plan.transactions.is_empty() {
                self.parking.all_done(now);
            }
            if plan.transactions.is_empty() || !self.writer.writes() || !go_on() {
                self.observe(&plan);
                report.unfinished = !plan.transactions.is_empty() && self.writer.writes();
                self.tell(wanted, plan);
                self.forget_unneeded(apic);
                return Ok(report);
            }
            self.send(apic, plan.transactions, now, go_on, &mut report)?;
        }
        Ok(report)
    }

    fn plan(&self, wanted: &Wanted, now: Instant) -> Plan {
        diff::plan(&Situation {
            wanted,
            fabric: &self.fabric,
            rules: &self.rules,
            deletes: self.writer.deletes() && self.inventory.incomplete(now).is_empty(),
            grace_over: &|eepg| self.grace.is_over(eepg, now),
            parked: &|eepg| self.parking.is_parked(eepg, now),
        })
    }

    /// L3Outs whose time to settle is over are read again (R3).
    fn settle(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.settling).into_iter().partition(|(_, at)| *at <= now);
        self.settling = later;
        let due: BTreeMap<L3outDn, Instant> = due;
        self.stale_l3outs.extend(due.into_keys());
    }

    /// Reads all that the mirror cannot be trusted for. What was read successfully is not read again when a later
    /// read fails.
    fn read_stale(&mut self, apic: &dyn Access, now: Instant) -> Result<(), Error> {
        if self.comparison_due {
            self.marked = self.find_marked(apic)?;
            self.stale_l3outs.extend(self.marked.iter().cloned());
            self.stale_l3outs.extend(self.fabric.l3outs().cloned());
            self.comparison_due = false;
        }
        let named = self.named();
        for dn in &named {
            if self.fabric.l3out(dn).is_none() || !self.subscriptions.contains_key(dn) {
                self.stale_l3outs.insert(dn.clone());
            }
        }
        let needed: BTreeSet<L3outDn> = named.into_iter().chain(self.with_marks()).collect();
        while let Some(dn) = self.stale_l3outs.first().cloned() {
            if needed.contains(&dn) {
                self.read_l3out(apic, &dn, now)?;
            } else {
                self.forget(apic, &dn);
            }
            self.stale_l3outs.remove(&dn);
        }
        while let Some(dn) = self.stale_eepgs.first().cloned() {
            self.read_eepg(apic, &dn)?;
        }
        Ok(())
    }

    /// The L3Outs that hold something of ours or a predecessor's, as found by a class query or seen in the mirror.
    fn with_marks(&self) -> BTreeSet<L3outDn> {
        self.marked.iter().cloned().chain(self.fabric.l3outs_with_marks()).collect()
    }

    /// The L3Outs that Deployments name.
    fn named(&self) -> BTreeSet<L3outDn> {
        let members = self.inventory.members.values();
        members.filter_map(|it| it.in_force.as_ref()).map(|it| it.eepg.l3out.clone()).collect()
    }

    /// R4: everything that bears our mark or a predecessor's, in whatever L3Out.
    fn find_marked(&self, apic: &dyn Access) -> Result<BTreeSet<L3outDn>, Error> {
        let mut l3outs = BTreeSet::new();
        for mark in self.fabric.owner().all_marks() {
            for class in [EEPG, SUBNET] {
                for mo in apic.read(&Query::class(class).with_value("annotation", mark))? {
                    match Place::of(&mo.dn) {
                        Some(Place::Eepg(dn) | Place::Subnet(dn, _)) => l3outs.insert(dn.l3out),
                        _ => false,
                    };
                }
            }
        }
        Ok(l3outs)
    }

    /// Reads an L3Out whole, by a subscription where there is none yet: its answer is the snapshot (R3).
    fn read_l3out(&mut self, apic: &dyn Access, dn: &L3outDn, now: Instant) -> Result<(), Error> {
        let query = Query::object(dn).subtree(&[L3OUT, EEPG, SUBNET, "tagAnnotation"]);
        let mos = if self.subscriptions.contains_key(dn) {
            apic.read(&query)?
        } else {
            let (id, mos) = apic.subscribe(&query)?;
            if let Some(id) = id {
                self.subscriptions.insert(dn.clone(), id);
            }
            mos
        };
        let vrf = if mos.is_empty() { None } else { read_vrf(apic, dn)? };
        let was_missing = self.fabric.l3out(dn) == Some(&L3out::Missing);
        self.fabric.put_l3out(dn, &mos, vrf);
        if was_missing && self.fabric.l3out(dn) != Some(&L3out::Missing) {
            info!("{dn} has appeared");
            self.settling.insert(dn.clone(), now + SETTLE);
        }
        self.stale_eepgs.retain(|eepg| eepg.l3out != *dn);
        Ok(())
    }

    /// Reads one EEPG whole, with its contract relations (W7).
    fn read_eepg(&mut self, apic: &dyn Access, dn: &EepgDn) -> Result<(), Error> {
        let mut classes = vec![SUBNET, "tagAnnotation"];
        classes.extend(CONTRACTS);
        let mos = apic.read(&Query::object(dn).with_children(&classes))?;
        self.fabric.put_eepg(dn, &mos);
        self.stale_eepgs.remove(dn);
        Ok(())
    }

    /// Sends what the plan says. A transaction that is not done stops those that follow it in its EEPG.
    fn send(
        &mut self,
        apic: &dyn Access,
        transactions: Vec<Transaction>,
        now: Instant,
        go_on: &dyn Fn() -> bool,
        report: &mut Report,
    ) -> Result<(), Error> {
        let mut failed = BTreeSet::new();
        for transaction in transactions {
            if failed.contains(&transaction.eepg) {
                continue;
            }
            if !go_on() {
                return Ok(());
            }
            let dn = transaction.eepg.clone();
            match self.writer.send(apic, &self.fabric, &transaction) {
                Ok(()) => {
                    log_done(&transaction);
                    self.fabric.apply(&transaction);
                    if transaction.changes.iter().any(|it| matches!(it, Change::CreateEepg { .. })) {
                        self.settling.insert(dn.l3out.clone(), now + SETTLE);
                    }
                    self.parking.release(&dn);
                    report.done.push(transaction);
                    continue;
                }
                Err(Refusal::Apic(error)) => self.not_done(apic, &dn, error, now)?,
                Err(Refusal::NotOurs(why)) => {
                    error!("not sent, because the plan is wrong; please report this: {why}");
                    self.parking.park(&dn, now, Finding::new(Code::Rejected, &dn, format!("not written: {why}")));
                }
                Err(Refusal::Policy) => {}
            }
            failed.insert(dn);
        }
        Ok(())
    }

    /// What follows from an error on a write (W2, W3, W7, W8). An error that concerns the session ends the pass.
    fn not_done(&mut self, apic: &dyn Access, dn: &EepgDn, error: Error, now: Instant) -> Result<(), Error> {
        match &error {
            // Something is there that we took for absent, or nobody knows what became of the write: look.
            Error::Rejected { code: 103, .. } | Error::AnswerLost(_) => {
                info!("{dn}: {error}; it is read again");
                self.stale_eepgs.insert(dn.clone());
                if matches!(error, Error::Rejected { .. }) && self.parking.again(dn) {
                    self.parking.park(dn, now, rejected(dn, &error));
                }
                self.read_eepg(apic, dn)
            }
            // A parent is missing: the L3Out has gone.
            Error::Rejected { code: 102, .. } => {
                info!("{dn}: {error}; its L3Out is read again");
                self.stale_l3outs.insert(dn.l3out.clone());
                self.parking.park(dn, now, rejected(dn, &error));
                self.read_l3out(apic, &dn.l3out, now)?;
                self.stale_l3outs.remove(&dn.l3out);
                Ok(())
            }
            Error::Rejected { .. } | Error::Forbidden(_) => {
                self.stale_eepgs.insert(dn.clone());
                self.parking.park(dn, now, rejected(dn, &error));
                Ok(())
            }
            Error::Unreachable(_) | Error::Busy { .. } | Error::Unauthorized(_) | Error::Malformed(_) => {
                self.stale_eepgs.insert(dn.clone());
                Err(error)
            }
        }
    }

    /// Under `observe` a plan is told and not sent.
    fn observe(&mut self, plan: &Plan) {
        if self.writer.writes() {
            return;
        }
        let text = describe(&plan.transactions);
        if text != self.observed {
            info!("policy observe, nothing is sent: {}", Tally::of(&plan.transactions));
            text.lines().for_each(|line| info!("would change: {line}"));
            self.observed = text;
        }
    }

    /// A finding is told when it appears and when it goes.
    fn tell(&mut self, wanted: Wanted, plan: Plan) {
        let mut findings: BTreeSet<Finding> = wanted.findings.into_iter().chain(plan.findings).collect();
        findings.extend(self.parking.findings().cloned());
        for finding in findings.difference(&self.findings) {
            warn!("{finding}");
        }
        for finding in self.findings.difference(&findings) {
            info!("settled: {finding}");
        }
        self.findings = findings;
    }

    /// An L3Out that nobody names and that holds nothing of ours or a predecessor's is of no interest any more (R3).
    fn forget_unneeded(&mut self, apic: &dyn Access) {
        let mut needed = self.named();
        needed.extend(self.fabric.l3outs_with_marks());
        self.marked.retain(|dn| needed.contains(dn));
        let unneeded: Vec<L3outDn> = self.fabric.l3outs().filter(|dn| !needed.contains(dn)).cloned().collect();
        for dn in unneeded {
            self.forget(apic, &dn);
        }
    }

    fn forget(&mut self, apic: &dyn Access, dn: &L3outDn) {
        if let Some(id) = self.subscriptions.remove(dn) {
            apic.forget(&id);
        }
        self.fabric.forget(dn);
        self.settling.remove(dn);
    }

    /// The state in lines, for SIGUSR1.
    pub fn status(&self, now: Instant) -> Vec<String> {
        let incomplete = self.inventory.incomplete(now);
        let mut lines = vec![format!(
            "{} Deployments enrolled, {} Pods and {} Services known{}",
            self.inventory.members.len(),
            self.inventory.pods.len(),
            self.inventory.services.len(),
            if incomplete.is_empty() { String::new() } else { format!("; incomplete: {incomplete:?}, deletes wait") }
        )];
        for dn in self.fabric.l3outs() {
            let state = match self.fabric.l3out(dn) {
                Some(L3out::Present { eepgs, .. }) => format!("{} EEPGs", eepgs.len()),
                _ => "missing".to_owned(),
            };
            let subscription = if self.subscriptions.contains_key(dn) { "subscribed" } else { "not subscribed" };
            lines.push(format!("{dn}: {state}, {subscription}"));
        }
        lines.extend(self.findings.iter().map(|it| format!("finding: {it}")));
        lines
    }
}

fn rejected(dn: &EepgDn, error: &Error) -> Finding {
    Finding::new(
        Code::Rejected,
        dn,
        format!("the APIC does not take what is written there: {error}; it is tried again"),
    )
}

/// S3: the VRF that an L3Out is in.
fn read_vrf(apic: &dyn Access, dn: &L3outDn) -> Result<Option<String>, Error> {
    let mos: Vec<Mo> = apic.read(&Query::object(&format_args!("{dn}/rsectx")))?;
    let vrf = mos.iter().find(|mo| mo.class == VRF_RELATION).map(|mo| mo.get("tDn"));
    Ok(vrf.filter(|it| !it.is_empty()).map(str::to_owned))
}

fn log_done(transaction: &Transaction) {
    const TOLD_ONE_BY_ONE: usize = 20;
    let dn = &transaction.eepg;
    if transaction.changes.len() > TOLD_ONE_BY_ONE {
        info!("{dn}: {}", Tally::of([transaction]).past());
    }
    for change in &transaction.changes {
        if transaction.changes.len() > TOLD_ONE_BY_ONE {
            debug!("{dn}: {change}");
        } else {
            info!("{dn}: {change}");
        }
    }
}
