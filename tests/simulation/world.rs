//! One seed's world: two clusters, a fabric, other actors, faults, and the program in the middle, step by step under a
//! clock that only this file moves.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aci_sync::apic::SubscriptionId;
use aci_sync::apic::adapters::Counted;
use aci_sync::model::dn::L3outDn;
use aci_sync::model::finding::Code;
use aci_sync::model::mo::MoChange;
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::rules::Policy;
use aci_sync::model::rules::{Allow, Cidr, Exposed, MaxDeletes, Rules};
use aci_sync::reconcile::scheduler::{EndedReconcile, NextStep, Scheduler};
use aci_sync::reconcile::{ReconcileContext, Reconciler};
use sim::apic::{InMemoryApic, Variants, WriteAnswer};

use crate::actors;
use crate::apic::{Line, PYTHON, Trouble, event_summary, snapshot, summary};
use crate::cluster::Cluster;
use crate::coverage::{Coverage, name_of};
use crate::explanations;
use crate::judge::{GRACE, has_moved, moves};
use crate::oracle::{self, Settings};
use crate::random::Random;

const RESYNC: Duration = Duration::from_secs(600);

/// A cluster and its program.
pub struct Side {
    pub id: &'static str,
    pub cluster: Cluster,
    pub settings: Settings,
    pub rules: Rules,
    pub reconciler: Reconciler,
    scheduler: Scheduler,
    pub line: Line,
    /// When a new session will be open, if there is none.
    connect_at: Option<Instant>,
    /// Websocket messages are held back.
    pub late: bool,
    /// Deletions that one reconcile after a full sync may do (W4), if such a reconcile comes next.
    counted: bool,
    /// No reconcile of this process has counted moves yet (J3).
    is_first: bool,
    full_sync_at: Instant,
    released: bool,
}

/// Everything of one seed.
pub struct World {
    pub random: Random,
    pub apic: Rc<InMemoryApic>,
    pub sides: Vec<Side>,
    pub coverage: Rc<RefCell<Coverage>>,
    pub now: Instant,
    pub log: Vec<String>,
    /// What another writer deletes again and again.
    pub reverted_object: Option<String>,
    steps: usize,
}

/// What the websocket says during a reconcile.
struct Ear<'a> {
    line: &'a Line,
    is_open: bool,
}

impl ReconcileContext for Ear<'_> {
    fn should_continue(&self) -> bool {
        !self.line.inner.borrow().dead
    }

    fn drain_events(&self, hear: &mut dyn FnMut(&[SubscriptionId], &[MoChange])) {
        let texts = self.line.inner.borrow().session.as_ref().filter(|_| self.is_open).and_then(|it| it.events());
        for text in texts.into_iter().flatten() {
            self.line.covered("events: within a reconcile");
            self.line.inner.borrow_mut().log.push(format!("      heard: {}", event_summary(&text)));
            let (ids, changes) = self.line.hear(&text);
            hear(&ids, &changes);
        }
    }
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let mut variants = if random.percent(50) { Variants::default() } else { Variants::opposite() };
        let shapes = [WriteAnswer::Nested, WriteAnswer::Flat, WriteAnswer::Partial, WriteAnswer::Empty];
        variants.write_answer = shapes[(seed % 4) as usize];
        variants.deletions_have_time = !seed.is_multiple_of(8);
        let apic = Rc::new(InMemoryApic::new(variants));
        apic.admin.setup_tenant("T", "V", &["L", "M"]).unwrap();
        apic.admin.setup_tenant("T", "W", &["N"]).unwrap();
        apic.admin.advance(Duration::from_secs(60));
        let coverage: Rc<RefCell<Coverage>> = Rc::default();
        let now = Instant::now();
        let mut sides = Vec::new();
        let ids: &[&'static str] = if random.percent(40) { &["me", "you"] } else { &["me"] };
        for id in ids {
            let settings = Settings {
                expose: (true, random.percent(85)),
                only_a: random.percent(15),
                keep_contracted: random.percent(20),
                restore_contracts: random.percent(80),
                few_addresses: random.percent(10),
                max_epgs: if random.percent(20) { 1 + random.below(4) as usize } else { 100 },
                default: "L",
            };
            let blocks = if settings.few_addresses { vec!["10.0.0.0/30", "fd00::/126"] } else { Vec::new() };
            let allow = if settings.only_a { vec!["a=T/L", "a=T/M", "a=T/N", "a=T/X"] } else { Vec::new() };
            let rules = Rules {
                kinds: actors::kinds(&mut random),
                default_l3out: L3outDn::parse("T/L").ok(),
                expose: Exposed { pods: settings.expose.0, services: settings.expose.1 },
                allow: allow.into_iter().map(|it| Allow::parse(it).unwrap()).collect(),
                addresses: blocks.into_iter().map(|it| Cidr::parse(it).unwrap()).collect(),
                keep_contracted: settings.keep_contracted,
                restore_contracts: settings.restore_contracts,
                batch: if random.percent(30) { 3 } else { 500 },
                max_deletes: match random.below(10) {
                    few @ 1..=4 => MaxDeletes::Number(few.min(2) as usize),
                    _ => MaxDeletes::Percent(30),
                },
                max_epgs: Some(settings.max_epgs),
                ..Rules::default()
            };
            let line = Line::new(apic.clone(), id, coverage.clone(), Random::new(random.next()), now);
            line.inner.borrow_mut().at_once = crate::at_once(seed);
            sides.push(Side {
                id,
                cluster: Cluster::new(&rules.kinds),
                settings,
                reconciler: Reconciler::new(OwnerIdentity::new(id, &[]), rules.clone(), Policy::Sync, GRACE),
                rules,
                scheduler: Scheduler::new(RESYNC, now),
                line,
                connect_at: Some(now),
                late: false,
                counted: true,
                is_first: true,
                full_sync_at: now + RESYNC,
                released: false,
            });
        }
        let steps = 30 + random.below(60) as usize;
        let mut world = World { random, apic, sides, coverage, now, log: Vec::new(), reverted_object: None, steps };
        for _ in 0..world.random.below(12) {
            actors::act(&mut world);
        }
        world
    }

    pub fn say(&mut self, what: impl Into<String>) {
        self.log.push(what.into());
    }

    /// Lives through a seed. The error is the broken promise.
    pub fn live(&mut self) -> Result<(), String> {
        for step in 0..self.steps {
            if step % 16 == 0 {
                self.choose_trouble();
            }
            actors::act(self);
            actors::revert_repeatedly(self);
            self.check_promises()?;
            for side in 0..self.sides.len() {
                self.watches(side);
                self.websocket(side);
            }
            let pause = match self.random.below(20) {
                0 => Duration::from_secs(700),
                1 | 2 => Duration::from_secs(70),
                3..=5 => Duration::from_secs(11),
                _ => Duration::from_millis(30 + self.random.below(900)),
            };
            self.pass_time(pause)?;
        }
        self.converge()
    }

    fn check_promises(&self) -> Result<(), String> {
        self.sides.iter().try_for_each(|it| it.line.inner.borrow_mut().broken.take().map_or(Ok(()), Err))
    }

    /// For the next steps: which trouble there is, and how often. Many worlds have none, or one sort only.
    fn choose_trouble(&mut self) {
        for side in 0..self.sides.len() {
            let mut trouble = Trouble::default();
            for rate in [
                &mut trouble.unreachable,
                &mut trouble.busy,
                &mut trouble.lost_before,
                &mut trouble.lost_after,
                &mut trouble.cut,
                &mut trouble.unauthorized,
                &mut trouble.dies,
                &mut trouble.admin,
            ] {
                if self.random.percent(25) {
                    *rate = 1 + self.random.below(15);
                }
            }
            self.sides[side].line.inner.borrow_mut().trouble = trouble;
        }
    }

    /// What the watches of a side deliver in this step.
    fn watches(&mut self, side: usize) {
        let now = self.now;
        for kind in self.sides[side].rules.kinds.clone() {
            let it = &mut self.sides[side];
            let mut events = Vec::new();
            match self.random.below(30) {
                0 => events.extend(it.cluster.expire(kind)),
                1 => events.extend(it.cluster.interrupt(kind, now)),
                2..=14 => {
                    events.extend(it.cluster.list(kind));
                    let waiting = it.cluster.watches[&kind].queue.len();
                    events.extend(it.cluster.resume(kind, self.random.below(4) as usize));
                    if it.cluster.watches[&kind].queue.len() > waiting {
                        self.coverage.borrow_mut().count("watch: repeated events");
                    }
                }
                _ => {}
            }
            if self.random.percent(70) {
                let most = self.random.below(6) as usize;
                events.extend(it.cluster.deliver(kind, most));
            }
            self.deliver(side, events);
        }
    }

    fn deliver(&mut self, side: usize, events: Vec<aci_sync::kube::Event>) {
        let now = self.now;
        let it = &mut self.sides[side];
        for event in events {
            let text = format!("{event:?}");
            let what = match &event {
                aci_sync::kube::Event::Listed { .. } => {
                    it.counted = true;
                    "watch: listed"
                }
                aci_sync::kube::Event::Relisting { .. } => "watch: relist",
                aci_sync::kube::Event::Interrupted { .. } => "watch: interrupted",
                _ => "watch: event",
            };
            self.coverage.borrow_mut().count(what);
            if it.reconciler.cluster_changed(event, now) {
                it.scheduler.reconcile_soon(now);
            }
            self.log.push(format!("    {} hears {}", it.id, text.chars().take(160).collect::<String>()));
        }
    }

    /// What the websocket of a side says in this step.
    fn websocket(&mut self, side: usize) {
        let now = self.now;
        if self.sides[side].late && self.random.percent(70) {
            return;
        }
        let it = &mut self.sides[side];
        let texts = it.line.inner.borrow().session.as_ref().map(|it| it.events());
        match texts {
            None => {}
            Some(None) => {
                it.line.inner.borrow_mut().session = None;
                it.reconciler.subscriptions_lost(None);
                it.counted = true;
                it.connect_at = Some(now + Duration::from_secs(1));
                self.coverage.borrow_mut().count("fault: websocket lost");
                self.say(format!("    {}'s websocket is gone", self.sides[side].id));
            }
            Some(Some(texts)) => {
                for text in texts {
                    self.log.push(format!("    {}'s websocket: {}", it.id, event_summary(&text)));
                    // An event may come twice.
                    for _ in 0..=u64::from(self.random.percent(10)) {
                        let (ids, changes) = it.line.hear(&text);
                        if it.reconciler.fabric_changed(&ids, &changes) {
                            it.scheduler.reconcile_soon(now);
                        }
                    }
                }
            }
        }
    }

    /// Time passes; what is due is done.
    fn pass_time(&mut self, pause: Duration) -> Result<(), String> {
        let end = self.now + pause;
        loop {
            let due = (0..self.sides.len()).map(|side| (self.deadline(side), side)).min();
            let Some((at, side)) = due.filter(|it| it.0 <= end) else { break };
            self.clock(at.max(self.now));
            self.turn(side)?;
        }
        self.clock(end);
        Ok(())
    }

    fn clock(&mut self, at: Instant) {
        self.apic.admin.advance(at - self.now);
        self.now = at;
    }

    fn deadline(&self, side: usize) -> Instant {
        let it = &self.sides[side];
        let wake = || it.reconciler.next_wake().filter(|_| it.connect_at.is_none());
        let deadline = it.scheduler.deadline(wake);
        it.connect_at.map_or(deadline, |at| at.min(deadline))
    }

    /// One turn of a side's loop: a new session, or a reconcile.
    fn turn(&mut self, side: usize) -> Result<(), String> {
        let now = self.now;
        let it = &mut self.sides[side];
        if it.connect_at.is_some_and(|at| at <= now) {
            it.connect_at = None;
            it.line.inner.borrow_mut().session = Some(self.apic.log_in(it.id));
            it.line.inner.borrow_mut().emptied.clear();
            it.reconciler.subscriptions_lost(None);
            it.counted = true;
            it.scheduler.connected(now);
            return Ok(());
        }
        let has_session = it.connect_at.is_none();
        if it.full_sync_at <= now {
            it.full_sync_at = now + RESYNC;
            it.counted = true;
            it.line.inner.borrow_mut().emptied.clear();
        }
        if !it.scheduler.take_due(&mut it.reconciler, has_session, now) {
            return Ok(());
        }
        self.reconcile(side)
    }

    fn reconcile(&mut self, side: usize) -> Result<(), String> {
        let now = self.now;
        let it = &mut self.sides[side];
        let may_delete = !it.cluster.watches.values().any(|it| it.is_incomplete(now));
        {
            let mut inner = it.line.inner.borrow_mut();
            inner.begin_reconcile(may_delete, now);
            let heard = &it.cluster.heard;
            let marks = it.line.marks.clone();
            let is_ours = |dn: &str| {
                let it = self.apic.admin.get(dn);
                it.is_some_and(|it| it["annotation"] == marks.own || it["annotation"] == PYTHON)
            };
            inner.called_for = oracle::may_be_called_for(heard, &it.settings, &is_ours);
            let named: Vec<(String, Instant)> = inner.called_for[0].epgs.iter().map(|it| (it.clone(), now)).collect();
            inner.named_at.extend(named);
            let recently = inner.named_at.values().filter(|at| now - **at <= GRACE).count();
            inner.crowded = recently > it.settings.max_epgs;
            inner.existed.extend(self.apic.admin.class("l3extInstP").into_keys());
        }
        let own = it.line.marks.own.clone();
        let ours = self.apic.admin.bearing(&own);
        let owned = ours.len();
        it.line.inner.borrow_mut().ever_ours.extend(ours.iter().cloned());
        let before = it.is_first.then(|| snapshot(&self.apic.admin));
        let line = &it.line;
        let apic = Counted::new(line);
        let outcome = it.reconciler.reconcile(&apic, now, &Ear { line, is_open: !it.late });
        let (reads, writes) = (apic.reads(), apic.writes());
        let mut inner = it.line.inner.borrow_mut();
        self.log.push(format!("    {} reconciles: {}", it.id, summary(&outcome)));
        self.log.append(&mut inner.log);
        if let Some(broken) = inner.broken.take() {
            return Err(broken);
        }
        if let Ok(report) = &outcome {
            let mut coverage = self.coverage.borrow_mut();
            for change in report.done.iter().flat_map(|it| &it.changes) {
                coverage.count(name_of(change));
            }
            for finding in it.reconciler.findings() {
                coverage.count(&format!("finding: {:?}", finding.code));
                let blocks = finding.text.contains(" moves blocked").then_some("guard: moves blocked");
                blocks.iter().for_each(|it| coverage.count(it));
                // A plan that the writer refuses is a bug in the plan.
                if finding.text.starts_with("not written") {
                    return Err(format!("the plan was wrong: {finding}"));
                }
            }
        }
        // I5: what one counted reconcile deletes of ours; what was released before is done without counting.
        if it.counted && !it.released {
            let moves = |dn: &str| has_moved(&inner.created, dn) || it.cluster.has_address(dn);
            let is_called_for = |dn: &str| inner.emptied.contains(dn);
            let gone = inner.deleted.iter().filter(|dn| ours.contains(*dn) && !moves(dn) && !is_called_for(dn)).count();
            if it.rules.max_deletes.is_exceeded(gone, owned) && outcome.is_ok() {
                return Err(format!("I5: one reconcile deleted {gone} of {owned}: {:?}", inner.deleted));
            }
        }
        let moved = before.map_or(0, |it| moves(&own, &it, &snapshot(&self.apic.admin), &inner.deleted));
        if it.rules.max_deletes.is_exceeded(moved, owned) && !it.released && outcome.is_ok() {
            return Err(format!("J3: the first reconcile moved {moved} of {owned}: {:?}", inner.deleted));
        }
        // While nothing may be deleted nothing is counted.
        it.counted &= !may_delete;
        it.is_first &= !may_delete;
        let dead = inner.dead;
        drop(inner);
        if dead {
            self.restart(side);
            return Ok(());
        }
        let it = &mut self.sides[side];
        let unit = self.random.unit();
        let ended = EndedReconcile { outcome: &outcome, reads, writes, took: Duration::ZERO };
        match it.scheduler.reconcile_ended(&ended, unit, now) {
            NextStep::Done | NextStep::RetryIn(_) => {}
            step => {
                it.line.inner.borrow_mut().session = None;
                it.connect_at = Some(now + Duration::from_secs(if step == NextStep::Relogin { 60 } else { 1 }));
            }
        }
        Ok(())
    }

    /// The process ends, however, and another one starts.
    pub fn restart(&mut self, side: usize) {
        self.coverage.borrow_mut().count("fault: restart");
        self.say(format!("  {} starts again", self.sides[side].id));
        let it = &mut self.sides[side];
        it.reconciler = Reconciler::new(OwnerIdentity::new(it.id, &[]), it.rules.clone(), Policy::Sync, GRACE);
        it.scheduler = Scheduler::new(RESYNC, self.now);
        it.full_sync_at = self.now + RESYNC;
        it.cluster.start_watching(&it.rules.kinds);
        self.begin(side);
    }

    /// Another default L3Out, from the next start on (J2, J3).
    pub fn change_default(&mut self, side: usize) {
        self.coverage.borrow_mut().count("actor: another default L3Out");
        let now = self.sides[side].settings.default;
        let others: Vec<_> = actors::L3OUTS.into_iter().take(3).filter(|it| *it != now).collect();
        let l3out = others[self.random.below(others.len() as u64) as usize];
        let it = &mut self.sides[side];
        it.settings.default = l3out;
        it.rules.default_l3out = L3outDn::parse(&format!("T/{l3out}")).ok();
    }

    /// It leads no more, and then it does again (K4): a start, but for what it knows of the cluster.
    pub fn take_over(&mut self, side: usize) {
        self.coverage.borrow_mut().count("fault: take-over");
        self.say(format!("  {} takes over", self.sides[side].id));
        self.sides[side].reconciler.start_over();
        self.begin(side);
    }

    fn begin(&mut self, side: usize) {
        let it = &mut self.sides[side];
        it.connect_at = Some(self.now + Duration::from_millis(100));
        (it.counted, it.is_first, it.released) = (true, true, false);
        let mut inner = it.line.inner.borrow_mut();
        inner.session = None;
        inner.dead = false;
        inner.ever_ours.clear();
        // Conflicts with other writers are in the process's own memory (R6).
        inner.made.clear();
        inner.named_at.clear();
        inner.existed.clear();
        inner.never_held.clear();
        inner.own.clear();
        inner.started = self.now;
    }

    /// Events were lost, and the program knows.
    pub fn gap(&mut self, side: usize) {
        let it = &mut self.sides[side];
        if it.connect_at.is_none() {
            it.reconciler.subscriptions_lost(Some(&it.line));
            it.counted = true;
            it.scheduler.reconcile_soon(self.now);
        }
    }

    /// SIGUSR2.
    pub fn release(&mut self, side: usize) {
        let it = &mut self.sides[side];
        if it.reconciler.approve_deletions() {
            it.released = true;
            it.scheduler.reconcile_soon(self.now);
            self.coverage.borrow_mut().count("actor: SIGUSR2");
        }
    }

    /// All events are delivered, and faults stop.
    fn flush(&mut self) {
        for side in 0..self.sides.len() {
            for kind in self.sides[side].rules.kinds.clone() {
                let cluster = &mut self.sides[side].cluster;
                let mut events = cluster.resume(kind, 0);
                events.extend(cluster.list(kind));
                events.extend(cluster.deliver(kind, usize::MAX));
                self.deliver(side, events);
            }
            self.sides[side].late = false;
            self.websocket(side);
        }
    }

    /// Faults stop and inputs stop changing: the fabric becomes what it should be, and then nothing is written any
    /// more.
    fn converge(&mut self) -> Result<(), String> {
        self.say("faults and changes stop");
        for it in &mut self.sides {
            it.line.inner.borrow_mut().trouble = Trouble::default();
        }
        actors::fix_mistakes(self);
        // Two resyncs and the longest back-off there are (I1), in pieces, so that the administrator can act in between.
        for _ in 0..24 {
            self.flush();
            self.pass_time(Duration::from_secs(150))?;
            for side in 0..self.sides.len() {
                self.release(side);
                let findings: Vec<_> = self.sides[side].reconciler.findings().iter().cloned().collect();
                for finding in findings.iter().filter(|it| it.code == Code::ForeignEpgDeleted) {
                    self.say(format!("  an administrator makes {} again", finding.subject));
                    let _ = self.apic.admin.set(&finding.subject.to_string(), "l3extInstP", &[]);
                }
            }
        }
        self.compare("after convergence")?;
        let writes = self.writes();
        for side in 0..self.sides.len() {
            self.gap(side);
            self.sides[side].line.inner.borrow_mut().requests = 0;
        }
        self.pass_time(Duration::from_secs(700))?;
        self.no_write_since(writes, "after a full sync")?;
        // I11: two full syncs, each with its class queries and L3Outs, and the EPGs that are read again.
        if let Some(it) = self.sides.iter().find(|it| it.line.inner.borrow().requests > 100) {
            return Err(format!(
                "I11: {} asked {} times while nothing changed",
                it.id,
                it.line.inner.borrow().requests
            ));
        }
        // A restart forgets the annotations that only the memory of a process kept in force (D3).
        let forgets = self.sides.iter().any(|it| it.cluster.remembers());
        for side in 0..self.sides.len() {
            self.restart(side);
        }
        self.flush();
        self.pass_time(Duration::from_secs(120))?;
        if forgets {
            // What one side gave up for that the other one has to hear of; and it may be more than goes at once (W4).
            (0..self.sides.len()).for_each(|side| self.release(side));
            self.flush();
            // What is not looked at any more since something of ours has gone there is noticed by a full sync (R3, R4).
            self.pass_time(Duration::from_secs(700))?;
        } else {
            self.no_write_since(writes, "after a restart")?;
        }
        self.compare("after a restart")
    }

    fn writes(&self) -> usize {
        self.sides.iter().map(|it| it.line.inner.borrow().writes).sum()
    }

    /// I2: a converged fabric is left alone.
    fn no_write_since(&self, writes: usize, when: &str) -> Result<(), String> {
        if self.writes() == writes { Ok(()) } else { Err(format!("I2: something was written {when}")) }
    }

    /// I1: the fabric holds of each side what the simple function says.
    fn compare(&self, when: &str) -> Result<(), String> {
        let fabric = snapshot(&self.apic.admin);
        let vrf = |l3out: &str| {
            let relation = self.apic.admin.get(&format!("{l3out}/rsectx"));
            relation.map_or(l3out.to_owned(), |it| it["tDn"].as_str().unwrap_or_default().to_owned())
        };
        for it in &self.sides {
            let expected = oracle::expected(&it.cluster.known(), &it.settings, &it.line.marks, &fabric, &vrf);
            let actual = oracle::actual(&it.line.marks, &fabric);
            if expected != actual {
                let findings: Vec<String> =
                    it.reconciler.findings().iter().map(|it| format!("{:?} {it}", it.code)).collect();
                let objects = fabric.iter().filter(|it| it.0.contains("/out-"));
                let objects: Vec<String> = objects.map(|(dn, it)| format!("{dn} {:?}", it.1)).collect();
                return Err(format!(
                    "I1: {} {when}:\n expected {expected:#?}\n there is {actual:#?}\n findings {findings:#?}\n fabric {objects:#?}",
                    it.id,
                ));
            }
            let checked = explanations::check(it, &fabric, &vrf, &self.coverage, self.now);
            checked.map_err(|why| format!("T7: {} {when}: {why}", it.id))?;
        }
        Ok(())
    }
}
