//! What `purge` sends, EPG by EPG, through the one writer (W5): each EPG is read right before, nothing goes that the plan
//! did not show, and the first deletion is watched for a while: a daemon that nothing else shows restores it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::alive::Held;
use super::fabric::Fabric;
use super::report::{Outcome, Report};
use crate::apic::adapters::ReadOnly;
use crate::apic::traits::{ApicWrite, ShouldSend, WriteAnswer};
use crate::apic::writer::request::WriteRequest;
use crate::apic::writer::{Refusal, Writer, undo};
use crate::apic::{Client, Error};
use crate::backoff::Backoff;
use crate::model::dn::{EpgDn, ObjectDn};
use crate::model::finding::{Few, counted};
use crate::model::plan::{Change, Transaction};
use crate::model::purge::{EpgPurge, plan_epg};
use crate::model::rules::{Policy, Rules};

/// How long a running daemon gets to restore the first deletion.
const CANARY: Duration = Duration::from_secs(10);

/// How often a wait looks for a signal.
const TICK: Duration = Duration::from_millis(100);

/// A write within this time after the read of its EPG needs no other read.
const YOUNG: Duration = Duration::from_secs(1);

/// How many lost answers in one EPG are followed by another try.
const MAX_LOST: usize = 3;

/// How often in one EPG a busy APIC is asked again, and the pauses before: about half a minute in all. The EPG is read again
/// after each.
const MAX_BUSY: usize = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(8);

/// Writes the undo of what would be sent; nothing is sent.
pub(super) fn preview(fabric: &mut Fabric<'_>, plan: &[EpgPurge], report: &Report) -> Result<(), String> {
    if !report.is_json() {
        return Ok(());
    }
    for transaction in plan.iter().flat_map(|it| &it.transactions) {
        fabric.keep_session().map_err(|error| error.message)?;
        let session = ReadOnly::new(fabric.client());
        let sent = Writer::new(Policy::Sync).send(&session, &fabric.cache, transaction, &|| true);
        sent.map_err(|refusal| refused(refusal, &transaction.epg))?;
        for undo in undo(&session.requests(), |dn| fabric.client().configuration(dn)).map_err(|it| it.to_string())? {
            report.undo(&undo)?;
        }
    }
    Ok(())
}

/// A session whose writes come after their undo is in the report.
struct Recorded<'a> {
    client: &'a Client,
    report: &'a Report,
    /// Why the undo could not be written.
    failure: RefCell<Option<String>>,
}

impl ApicWrite for Recorded<'_> {
    fn write(&self, request: &WriteRequest, should_send: &ShouldSend<'_>) -> Result<WriteAnswer, Error> {
        if self.report.is_json() {
            for undo in undo(std::slice::from_ref(request), |dn| self.client.configuration(dn))? {
                if let Err(why) = self.report.undo(&undo) {
                    self.failure.replace(Some(why));
                    return Err(Error::NotSent);
                }
            }
        }
        self.client.write_once(request, should_send).map(WriteAnswer::Changes)
    }
}

/// The deletion of what a plan shows.
pub(super) struct Deletion<'a, 'f> {
    fabric: &'a mut Fabric<'f>,
    rules: &'a Rules,
    report: &'a Report,
    lease: Option<&'a Held>,
    stop: Arc<AtomicBool>,
    /// What was deleted.
    deleted: BTreeSet<ObjectDn>,
    /// The first deletion was watched, and was not restored.
    is_proven: bool,
}

/// What was done in one EPG.
#[derive(Default)]
struct Done {
    objects: BTreeSet<ObjectDn>,
    relations: usize,
    /// Of them what another writer has created again.
    back: BTreeSet<ObjectDn>,
    /// Sent, and its answer was lost.
    doubtful: BTreeSet<ObjectDn>,
    lost: usize,
    busy: usize,
    backoff: Option<Backoff>,
    read: Option<Instant>,
    /// It was the first deletion, and a daemon had its time to restore it.
    watched: bool,
}

/// Why no more is sent.
enum End {
    /// In this EPG; the others are purged all the same.
    Epg(String),
    /// At all.
    All(String),
}

impl<'a, 'f> Deletion<'a, 'f> {
    /// From here on SIGINT and SIGTERM end it between two requests.
    pub(super) fn new(
        fabric: &'a mut Fabric<'f>,
        rules: &'a Rules,
        report: &'a Report,
        lease: Option<&'a Held>,
    ) -> Result<Deletion<'a, 'f>, String> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let registered = signal_hook::flag::register(signal, stop.clone());
            registered.map_err(|error| format!("failed to listen for signals: {error}"))?;
        }
        Ok(Deletion { fabric, rules, report, lease, stop, deleted: BTreeSet::new(), is_proven: false })
    }

    /// Deletes what is there of the plan; the error says why it ended early.
    pub(super) fn run(&mut self, plan: &[EpgPurge]) -> Result<(), String> {
        for shown in plan.iter().filter(|it| !it.objects.is_empty()) {
            let mut done = Done::default();
            let end = self.purge_epg(shown, &mut done);
            self.report.line(&line(shown, &done));
            self.deleted.extend(done.objects.difference(&done.back).cloned());
            match end {
                Ok(()) => {}
                Err(End::Epg(why)) => self.report.line(&format!("not deleted: {}: {why}", shown.epg)),
                Err(End::All(why)) => return Err(why),
            }
        }
        Ok(())
    }

    /// What it came to; after a whole run the class queries say what is left.
    pub(super) fn outcome(self, plan: &[EpgPurge], result: Result<(), String>) -> Outcome {
        let rest = || {
            let objects = plan.iter().flat_map(|it| &it.objects).filter(|it| !self.deleted.contains(it));
            objects.map(ToString::to_string).collect()
        };
        match result.map(|()| self.fabric.marked()) {
            Ok(Ok(left)) => Outcome::of(self.deleted, left, None),
            Ok(Err(error)) => {
                let left = rest();
                Outcome::of(self.deleted, left, Some(format!("failed to look in the end: {}", error.message)))
            }
            Err(why) => {
                let left = rest();
                Outcome::of(self.deleted, left, Some(why))
            }
        }
    }

    /// Whether anything may still be sent.
    fn go_on(&self) -> Result<(), String> {
        if self.stop.load(Ordering::SeqCst) {
            return Err("a signal".to_owned());
        }
        if self.report.is_lost() {
            return Err("stdout cannot be written".to_owned());
        }
        match self.lease {
            Some(lease) if !lease.is_held() => Err("the Lease was lost, so another aci-sync may run".to_owned()),
            _ => Ok(()),
        }
    }

    fn purge_epg(&mut self, shown: &EpgPurge, done: &mut Done) -> Result<(), End> {
        let with_tag = shown.objects.contains(&ObjectDn::Tag(shown.epg.clone()));
        loop {
            self.go_on().map_err(End::All)?;
            self.fabric.keep_session().map_err(|error| End::All(error.message))?;
            if done.read.is_none_or(|it| it.elapsed() >= YOUNG) {
                let read = self.fabric.read_again(&shown.epg, with_tag);
                // Without it the first deletion proves nothing.
                let unknown = |error| if done.watched && !self.is_proven { unwatched(&error) } else { end(error) };
                read.map_err(unknown)?;
                done.read = Some(Instant::now());
            }
            let now = plan_epg(&self.fabric.cache, self.rules, &shown.epg);
            done.back = done.objects.intersection(&now.objects).cloned().collect();
            if let Some(back) = done.back.first() {
                let why = format!("another aci-sync restores what is deleted: {back} is back");
                let relations = counted(done.relations, "contract relation");
                let lost = if done.relations > 0 { format!(" without {relations}") } else { String::new() };
                return Err(End::All(why + &lost));
            }
            self.is_proven |= done.watched;
            let gone: BTreeSet<ObjectDn> = done.doubtful.difference(&now.objects).cloned().collect();
            done.doubtful.clear();
            done.objects.extend(gone);
            if !self.is_proven && !done.objects.is_empty() {
                self.wait_for_restoring(shown, done).map_err(End::All)?;
                continue;
            }
            if now.objects.is_empty() {
                return Ok(());
            }
            if !now.is_part_of(shown) {
                return Err(End::Epg("it has changed since it was shown; run purge again".to_owned()));
            }
            let next = if self.is_proven { now.transactions.first().cloned() } else { now.canary() };
            let Some(transaction) = next else { return Ok(()) };
            self.send(&transaction, &now, done)?;
        }
    }

    /// Waits long enough for any daemon, and has the EPG read again.
    fn wait_for_restoring(&mut self, shown: &EpgPurge, done: &mut Done) -> Result<(), String> {
        let text = format!("the first deletion is done, in {}; waiting {} s", shown.epg, CANARY.as_secs());
        self.report.note(&format!("{text} to see whether another aci-sync restores it"));
        self.wait(CANARY)?;
        done.watched = true;
        done.read = None;
        Ok(())
    }

    fn wait(&self, pause: Duration) -> Result<(), String> {
        let end = Instant::now() + pause;
        while Instant::now() < end {
            self.go_on()?;
            std::thread::park_timeout(TICK);
        }
        Ok(())
    }

    fn send(&mut self, transaction: &Transaction, now: &EpgPurge, done: &mut Done) -> Result<(), End> {
        let deletes_epg = transaction.changes.iter().any(Change::deletes_epg);
        let objects: Vec<ObjectDn> = if deletes_epg {
            now.objects.iter().filter(|it| !matches!(it, ObjectDn::Tag(_))).cloned().collect()
        } else {
            transaction.objects().collect()
        };
        let session = Recorded { client: self.fabric.client(), report: self.report, failure: RefCell::default() };
        let may_send = || self.go_on().is_ok();
        match Writer::new(Policy::Sync).send(&session, &self.fabric.cache, transaction, &may_send) {
            Ok(accepted) => {
                if !accepted.swept.is_empty() {
                    let swept = Few::of(&accepted.swept);
                    self.report.note(&format!("deleted with {}, created a moment before: {swept}", now.epg));
                }
                if deletes_epg {
                    done.relations = now.relations.len();
                }
                done.objects.extend(objects);
                self.fabric.cache.apply(transaction);
                Ok(())
            }
            Err(Refusal::Apic(Error::AnswerLost(_))) if done.lost < MAX_LOST => {
                done.lost += 1;
                done.doubtful.extend(objects);
                done.read = None;
                Ok(())
            }
            // What is there may change while a busy APIC is waited for.
            Err(Refusal::Apic(Error::Busy(_) | Error::Unreachable(_))) if done.busy < MAX_BUSY => {
                let backoff = done.backoff.get_or_insert_with(|| Backoff::new(FIRST_PAUSE, MAX_PAUSE));
                let pause = backoff.pause();
                done.busy += 1;
                done.read = None;
                self.wait(pause).map_err(End::All)
            }
            Err(Refusal::Apic(error)) => Err(end(error)),
            Err(Refusal::TooLate) => {
                let failure = session.failure.take();
                Err(End::All(failure.or(self.go_on().err()).unwrap_or_else(|| "no time left to send it".to_owned())))
            }
            Err(refusal) => Err(End::All(refused(refusal, &now.epg))),
        }
    }
}

/// What the APIC refuses concerns one EPG; without a session or an answer nothing goes on.
fn end(error: Error) -> End {
    match error {
        Error::Rejected { .. } | Error::Forbidden(_) | Error::AnswerLost(_) => End::Epg(error.to_string()),
        _ => End::All(format!("APIC: {error}")),
    }
}

/// The first deletion cannot be read again.
fn unwatched(error: &Error) -> End {
    End::All(format!("whether another aci-sync restores what is deleted is unknown: {error}"))
}

fn refused(refusal: Refusal, epg: &EpgDn) -> String {
    match refusal {
        Refusal::Apic(error) => format!("APIC: {error}"),
        Refusal::WrongPlan(why) => format!("bug: plan failed the ownership check in {epg}; nothing sent: {why}"),
        Refusal::Policy | Refusal::TooLate => format!("not sent for {epg}"),
    }
}

/// What was done in one EPG, for people.
fn line(shown: &EpgPurge, done: &Done) -> String {
    let epg = &shown.epg;
    let subnets = done.objects.iter().filter(|it| it.prefix().is_some()).count();
    let mut parts = Vec::new();
    if done.objects.contains(&ObjectDn::Epg(epg.clone())) {
        let relations = counted(done.relations, "contract relation");
        parts.push(format!("EPG {epg} with {} and {relations}", counted(subnets, "subnet")));
    } else if subnets > 0 {
        parts.push(format!("{} in {epg}", counted(subnets, "subnet")));
    }
    if done.objects.contains(&ObjectDn::Tag(epg.clone())) {
        parts.push(format!("the tag about {epg}"));
    }
    if parts.is_empty() { format!("nothing deleted in {epg}") } else { format!("deleted {}", parts.join(", and ")) }
}
