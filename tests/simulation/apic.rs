//! A session at the simulated fabric, with faults of the network and other writers in it, and a judge of each
//! write: was it allowed to touch what it touched?

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

use aci_sync::apic::decode::{self, Answer};
use aci_sync::apic::traits::{ApicRead, ApicWrite, Read, Requests, ShouldSend, Subscribed, WriteAnswer};
use aci_sync::apic::writer::request::WriteRequest;
use aci_sync::apic::{Error, Query, SubscriptionId, reading};
use aci_sync::model::mo::{Mo, MoChange, Status};
use aci_sync::reconcile::Report;
use sim::apic::{AdminApi, ApicSession, InMemoryApic};

use crate::coverage::Coverage;
use crate::judge;
use crate::oracle::CalledFor;
use crate::random::Random;

/// One object as the judge sees it: its attributes without what the fabric changes by itself.
pub type Attributes = BTreeMap<String, String>;

/// The objects that aci-sync may write, and all others by class alone.
pub type Snapshot = BTreeMap<String, (String, Attributes)>;

/// Marks and keys of one side.
#[derive(Clone)]
pub struct Marks {
    pub own: String,
    pub tag_prefix: String,
}

impl Marks {
    pub fn of(id: &str) -> Marks {
        Marks { own: format!("orchestrator:aci-sync:{id}"), tag_prefix: format!("aci-sync:{id}:") }
    }
}

/// The mark of the Python application.
pub const PYTHON: &str = "orchestrator:aci-k8-haystack";

/// How often, in percent of the requests, each trouble comes.
#[derive(Clone, Default)]
pub struct Trouble {
    pub unreachable: u64,
    pub busy: u64,
    pub lost_before: u64,
    pub lost_after: u64,
    pub cut: u64,
    pub unauthorized: u64,
    pub dies: u64,
    pub admin: u64,
}

/// What one side's session is like, and what was seen on it.
pub struct Line {
    pub apic: Rc<InMemoryApic>,
    pub marks: Marks,
    pub coverage: Rc<RefCell<Coverage>>,
    pub inner: RefCell<Inner>,
}

pub struct Inner {
    pub session: Option<ApicSession>,
    pub random: Random,
    pub trouble: Trouble,
    /// How many requests are in flight together (W9).
    pub at_once: usize,
    /// Requests that the APIC has done and whose answers are still on their way.
    pub on_the_way: usize,
    /// The process was killed at a request.
    pub dead: bool,
    /// Nothing may be deleted now (W1).
    pub may_delete: bool,
    /// Requests and writes since it was last asked.
    pub requests: usize,
    pub writes: usize,
    /// Writes that changed something.
    pub changes: usize,
    /// The time of the reconcile.
    pub now: Instant,
    /// What the process has heard may call for; the first is the right one.
    pub called_for: Vec<CalledFor>,
    /// More EPGs than `--max-epgs` were named within the last grace, so only the process knows which of them a
    /// namespace may have: those in their grace count (W6). Then any claimant of an address may get it.
    pub crowded: bool,
    /// When a reconcile last found each EPG named by what the process has heard (D6).
    pub named_at: BTreeMap<String, Instant>,
    /// When the process started.
    pub started: Instant,
    /// The EPGs that have been there since the process started.
    pub existed: BTreeSet<String>,
    /// The EPGs that it made and has put no subnet into: they need no grace (D6).
    pub never_held: BTreeSet<String>,
    /// The contract relations that people have made, and that neither they have removed one by one nor this process has
    /// deleted with their EPG (R7).
    pub contracts: BTreeSet<String>,
    /// When each subnet was made (R5).
    pub made: BTreeMap<String, Vec<Instant>>,
    /// Deleted by this process in this reconcile.
    pub deleted: BTreeSet<String>,
    /// Made by it in this reconcile.
    pub created: BTreeSet<String>,
    /// What is written comes from a wrong plan: the program itself does not know of it, and only I3 and I8 hold.
    pub wrong_plan: bool,
    /// What this process saw our mark on, and of whose deletion it has not heard: it may be marked again (R2).
    pub ever_ours: BTreeSet<String>,
    /// What this process made, with its birth: as long as that very object is there it is ours, whatever was
    /// heard of its DN.
    pub own: BTreeMap<String, u64>,
    /// What of that is still there.
    pub still_own: BTreeSet<String>,
    /// What was read whole in this reconcile.
    pub read: BTreeSet<String>,
    /// What an administrator changed in this reconcile after it had been read: the process cannot know of it.
    pub interfered: BTreeSet<String>,
    /// The EPGs of which an administrator deleted something since the last full sync: that calls for their deletion, whenever
    /// the process learns of it, and not a list (I5).
    pub emptied: BTreeSet<String>,
    /// What of that the websocket has said since, in order.
    heard: Vec<String>,
    /// What of that it said after the request had been sent that the APIC does now.
    too_late: BTreeSet<String>,
    /// The first broken promise.
    pub broken: Option<String>,
    pub log: Vec<String>,
}

impl Inner {
    /// Another writer changes an object during a reconcile.
    fn interfere(&mut self, dn: &str) {
        if self.read.iter().any(|it| is_below(dn, it)) {
            self.interfered.insert(dn.to_owned());
        }
    }

    /// What the process could not know when it sent the request that is done now.
    pub fn unknown(&self) -> impl Iterator<Item = &String> {
        self.interfered.iter().chain(&self.too_late)
    }

    /// A reconcile begins.
    pub fn begin_reconcile(&mut self, may_delete: bool, now: Instant) {
        (self.may_delete, self.now) = (may_delete, now);
        self.deleted.clear();
        self.created.clear();
        self.read.clear();
        self.interfered.clear();
        self.heard.clear();
        self.log.clear();
    }
}

impl Inner {
    /// What this process made and no other writer has replaced.
    fn look_for_own(&mut self, admin: &AdminApi) {
        self.own.retain(|dn, birth| admin.birth(dn) == Some(*birth));
        self.still_own = self.own.keys().cloned().collect();
    }

    fn take_note_of_own(&mut self, admin: &AdminApi, before: &Snapshot, after: &Snapshot) {
        for (dn, (class, _)) in after {
            if !before.contains_key(dn) && matches!(class.as_str(), "l3extInstP" | "l3extSubnet") {
                self.own.extend(admin.birth(dn).map(|birth| (dn.clone(), birth)));
            }
        }
    }
}

/// What an event of the websocket says, for the log.
pub fn event_summary(text: &str) -> String {
    let message = decode::message(text.as_bytes()).unwrap();
    let changes: Vec<String> = message.changes.iter().map(|it| format!("{:?} {}", it.status, it.mo.dn)).collect();
    changes.join(", ")
}

/// A request in flight.
struct InFlight<R, T> {
    number: usize,
    request: R,
    /// How much had been heard when it was sent.
    heard: usize,
    /// Set as soon as the APIC has done it.
    answer: Option<Result<T, Error>>,
}

impl Line {
    /// Takes an event of the websocket: the subscriptions that it is for, and what has changed.
    pub fn hear(&self, text: &str) -> (Vec<SubscriptionId>, Vec<MoChange>) {
        let message = decode::message(text.as_bytes()).unwrap();
        self.take_note(&message.changes);
        if self.inner.borrow().on_the_way > 0 {
            self.covered("events: before an answer");
        }
        let ids = message.subscriptions.iter().filter_map(|it| SubscriptionId::new(it)).collect();
        (ids, message.changes)
    }

    fn take_note(&self, changes: &[MoChange]) {
        let inner = &mut *self.inner.borrow_mut();
        let seen = &mut inner.ever_ours;
        for change in changes {
            inner.heard.extend(inner.interfered.take(&change.mo.dn));
            if change.status == Status::Deleted {
                seen.retain(|dn| !is_below(dn, &change.mo.dn));
            } else if change.mo.attributes.annotation.as_deref() == Some(&*self.marks.own) {
                seen.insert(change.mo.dn.clone());
            }
        }
    }

    pub fn new(
        apic: Rc<InMemoryApic>,
        id: &str,
        coverage: Rc<RefCell<Coverage>>,
        random: Random,
        now: Instant,
    ) -> Line {
        let inner = Inner {
            session: None,
            random,
            trouble: Trouble::default(),
            at_once: 1,
            on_the_way: 0,
            dead: false,
            may_delete: false,
            requests: 0,
            writes: 0,
            changes: 0,
            now,
            called_for: vec![CalledFor::default()],
            crowded: false,
            named_at: BTreeMap::new(),
            started: now,
            existed: BTreeSet::new(),
            never_held: BTreeSet::new(),
            contracts: BTreeSet::new(),
            made: BTreeMap::new(),
            deleted: BTreeSet::new(),
            created: BTreeSet::new(),
            wrong_plan: false,
            ever_ours: BTreeSet::new(),
            own: BTreeMap::new(),
            still_own: BTreeSet::new(),
            read: BTreeSet::new(),
            interfered: BTreeSet::new(),
            emptied: BTreeSet::new(),
            heard: Vec::new(),
            too_late: BTreeSet::new(),
            broken: None,
            log: Vec::new(),
        };
        Line { apic, marks: Marks::of(id), coverage, inner: RefCell::new(inner) }
    }

    pub fn covered(&self, what: &'static str) {
        self.coverage.borrow_mut().count(what);
    }

    /// The trouble that comes before a request, if any.
    fn before(&self) -> Result<(), Error> {
        let mut inner = self.inner.borrow_mut();
        inner.requests += 1;
        let trouble = inner.trouble.clone();
        if inner.dead {
            return Err(Error::Unreachable("dead".to_owned()));
        }
        let fails = [
            (trouble.unreachable, "fault: unreachable", Error::Unreachable("simulated".to_owned())),
            (trouble.busy, "fault: 503", Error::Busy("simulated".to_owned())),
            (trouble.unauthorized, "fault: token refused", Error::Unauthorized("simulated".to_owned())),
        ];
        for (percent, name, error) in fails {
            if inner.random.percent(percent) {
                self.covered(name);
                return Err(error);
            }
        }
        if inner.random.percent(trouble.dies) {
            inner.dead = true;
            self.covered("fault: killed before a request");
            return Err(Error::Unreachable("killed".to_owned()));
        }
        if inner.random.percent(trouble.admin) {
            self.interfere(&mut inner);
        }
        Ok(())
    }

    /// Another writer acts between two requests of a reconcile: it deletes an object, or creates a missing one.
    /// (No client can protect an object that changes after it was read.)
    fn interfere(&self, inner: &mut Inner) {
        let admin = &self.apic.admin;
        let epgs: Vec<String> = admin.class("l3extInstP").into_keys().collect();
        let subnets: Vec<String> = admin.class("l3extSubnet").into_keys().collect();
        let all: Vec<String> = epgs.iter().chain(&subnets).cloned().collect();
        if inner.random.percent(50) {
            let Some(dn) = inner.random.one_of(&all).cloned() else { return };
            self.covered("actor: delete within a reconcile");
            inner.log.push(format!("      meanwhile {dn} is deleted"));
            inner.interfere(&dn);
            inner.emptied.insert(judge::epg_of(&dn).to_owned());
            admin.admin_delete(&dn).unwrap();
        } else {
            let (l3out, epg) = (["L", "M", "N"][inner.random.below(3) as usize], inner.random.below(4));
            let epg = format!("uni/tn-T/out-{l3out}/instP-E{epg}");
            let host = inner.random.below(8);
            let (dn, class) = match inner.random.percent(40) {
                true => (epg, "l3extInstP"),
                false => (format!("{epg}/extsubnet-[10.0.0.{host}/32]"), "l3extSubnet"),
            };
            let parent_is_there = class == "l3extInstP" || admin.get(dn.rsplit_once("/ext").unwrap().0).is_some();
            if admin.get(&format!("uni/tn-T/out-{l3out}")).is_some() && parent_is_there && admin.get(&dn).is_none() {
                self.covered("actor: create within a reconcile");
                inner.log.push(format!("      meanwhile {dn} is made"));
                inner.interfere(&dn);
                let _ = admin.set(&dn, class, &[("annotation", "orchestrator:terraform")]);
                inner.existed.extend((class == "l3extInstP").then_some(dn));
            }
        }
    }

    /// Sends requests. Which of those in flight the APIC does next, which answer comes next, and whether another one is sent
    /// before that, is a matter of chance.
    fn send_all<R, T>(
        &self,
        requests: &mut dyn Requests<R, T>,
        send: impl Fn(&R, &ShouldSend<'_>) -> Result<T, Error>,
    ) {
        let mut in_flight: Vec<InFlight<R, T>> = Vec::new();
        loop {
            while self.may_start(in_flight.len())
                && let Some((number, request)) = requests.next()
            {
                let heard = self.inner.borrow().heard.len();
                in_flight.push(InFlight { number, request, heard, answer: None });
            }
            match in_flight.len() {
                0 => return,
                1 => {}
                _ => self.covered("requests in flight together"),
            }
            let at = self.inner.borrow_mut().random.below(in_flight.len() as u64) as usize;
            let InFlight { number, request, heard, answer } = &mut in_flight[at];
            if let Some(answer) = answer.take() {
                let number = *number;
                in_flight.swap_remove(at);
                self.inner.borrow_mut().on_the_way -= 1;
                requests.answered(number, answer);
                continue;
            }
            {
                let inner = &mut *self.inner.borrow_mut();
                inner.too_late = inner.heard[*heard..].iter().cloned().collect();
            }
            *answer = Some(send(request, &|| requests.should_send(*number)));
            let mut inner = self.inner.borrow_mut();
            inner.too_late.clear();
            inner.on_the_way += 1;
        }
    }

    /// Fewer than might be are in flight after a refusal, and if their turns are far away.
    fn may_start(&self, in_flight: usize) -> bool {
        let mut inner = self.inner.borrow_mut();
        in_flight == 0 || (in_flight < inner.at_once && inner.random.percent(80))
    }

    fn get(&self, target: &str) -> Result<Answer, Error> {
        self.before()?;
        let mut inner = self.inner.borrow_mut();
        let Some(session) = &inner.session else { return Err(Error::Unauthorized("no session".to_owned())) };
        let (status, mut body) = session.ask("GET", target, "");
        let cut = inner.trouble.cut;
        if inner.random.percent(cut) && !body.is_empty() {
            self.covered("fault: half an answer");
            let at = inner.random.below(body.len() as u64) as usize;
            body.truncate((0..=at).rev().find(|at| body.is_char_boundary(*at)).unwrap_or(0));
        } else if status == 200
            && let Some(dn) = target.strip_prefix("/api/mo/").and_then(|it| it.split(".json").next())
        {
            inner.interfered.retain(|it| !is_below(it, dn));
            inner.read.insert(dn.to_owned());
        }
        decode::read(status, body.as_bytes())
    }

    fn send_write(&self, method: &str, target: &str, body: &str) -> Result<Vec<MoChange>, Error> {
        self.before()?;
        let mut inner = self.inner.borrow_mut();
        let trouble = inner.trouble.clone();
        if inner.random.percent(trouble.lost_before) {
            self.covered("fault: a write is lost");
            return Err(Error::AnswerLost("simulated".to_owned()));
        }
        let before = snapshot(&self.apic.admin);
        inner.look_for_own(&self.apic.admin);
        let Some(session) = &inner.session else { return Err(Error::Unauthorized("no session".to_owned())) };
        let (status, answer) = session.ask(method, target, body);
        let after = snapshot(&self.apic.admin);
        inner.writes += 1;
        inner.changes += usize::from(before != after);
        inner.log.push(format!("      {method} {target} {body} -> {status}"));
        if inner.broken.is_none() {
            inner.broken = judge::judge(&self.marks, &mut inner, &before, &after)
                .err()
                .map(|why| format!("{method} {target}: {why}"));
        }
        inner.take_note_of_own(&self.apic.admin, &before, &after);
        if inner.random.percent(trouble.dies) {
            inner.dead = true;
            self.covered("fault: killed after a write");
            return Err(Error::AnswerLost("killed".to_owned()));
        }
        if inner.random.percent(trouble.lost_after) {
            self.covered("fault: an answer is lost");
            return Err(Error::AnswerLost("simulated".to_owned()));
        }
        decode::written(status, answer.as_bytes())
    }
}

/// Whether a DN is another one or below it.
pub fn is_below(dn: &str, parent: &str) -> bool {
    dn.strip_prefix(parent).is_some_and(|it| it.is_empty() || it.starts_with('/'))
}

/// Everything that is configured below the tenant.
pub fn snapshot(admin: &AdminApi) -> Snapshot {
    let mut all: Snapshot = admin.tree("uni").into_iter().map(|(class, dn)| (dn, (class, Attributes::new()))).collect();
    for class in ["l3extInstP", "l3extSubnet", "tagAnnotation"] {
        for (dn, object) in admin.class(class) {
            let kept = ["annotation", "name", "scope", "descr", "nameAlias", "key", "ip", "prefGrMemb"];
            // The EPG's own `scope` is the VRF's number, which the fabric sets by itself.
            let kept = kept.iter().filter(|it| class != "l3extInstP" || **it != "scope");
            let kept = kept.filter_map(|it| Some(((*it).to_owned(), object[*it].as_str()?.to_owned())));
            all.insert(dn, (class.to_owned(), kept.collect()));
        }
    }
    all
}

impl ApicRead for Line {
    fn read_all(&self, reads: &mut dyn Requests<Read, Subscribed>) {
        self.send_all(reads, |read, _| {
            if read.subscribe { self.subscribe(&read.query) } else { Ok((None, self.read(&read.query)?)) }
        });
    }

    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        reading::read(query, &mut |target| self.get(target))
    }

    fn subscribe(&self, query: &Query) -> Result<Subscribed, Error> {
        let (id, mos) = reading::snapshot(self.get(&query.target(&["subscription=yes".to_owned()]))?)?;
        Ok((Some(id), mos))
    }

    fn unsubscribe(&self, _: &SubscriptionId) {}
}

impl ApicWrite for Line {
    fn write(&self, request: &WriteRequest, should_send: &ShouldSend<'_>) -> Result<WriteAnswer, Error> {
        if !should_send() {
            return Err(Error::NotSent);
        }
        let body = request.body().map(ToString::to_string).unwrap_or_default();
        self.send_write(request.method(), &request.target(), &body).map(WriteAnswer::Changes)
    }

    fn write_all(&self, writes: &mut dyn Requests<WriteRequest, WriteAnswer>) {
        self.send_all(writes, |request, should_send| self.write(request, should_send));
    }
}

/// What a reconcile came to, for the log.
pub fn summary(outcome: &Result<Report, Error>) -> String {
    match outcome {
        Ok(report) => {
            format!("{} transactions{}", report.done.len(), if report.unfinished { ", unfinished" } else { "" })
        }
        Err(error) => error.to_string(),
    }
}
