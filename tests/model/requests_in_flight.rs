//! Several writes in flight together (W9): what the APIC says between a write and its answer, and what follows a refusal.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use crate::fixtures::*;
use aci_sync::apic::traits::{ApicRead, ApicWrite, Requests, ShouldSend, Subscribed, WriteAnswer};
use aci_sync::apic::writer::request::WriteRequest;
use aci_sync::apic::{Error, Query, SubscriptionId};
use aci_sync::model::finding::Code;
use aci_sync::model::kubernetes::Object;
use aci_sync::model::mo::{Mo, MoChange};
use aci_sync::model::rules::Policy;
use aci_sync::reconcile::{ReconcileContext, Reconciler};
use sim::apic::Order;

/// A session with two writes in flight. The APIC does each at once; the answers come later, the oldest first.
struct Together<'a> {
    session: &'a Session,
    /// Which EPGs were written to, and which of these writes were answered, in order.
    log: RefCell<Vec<String>>,
    /// Reads after the first write.
    reads: Cell<usize>,
    /// How often each event comes.
    copies: usize,
    /// Another writer acts when as many writes were sent.
    act: (usize, Box<dyn Fn()>),
}

impl<'a> Together<'a> {
    fn new(session: &'a Session) -> Self {
        Together { session, log: RefCell::default(), reads: Cell::new(0), copies: 1, act: (0, Box::new(|| {})) }
    }

    fn count_read(&self) {
        self.reads.set(self.reads.get() + usize::from(!self.log.borrow().is_empty()));
    }
}

impl ReconcileContext for Together<'_> {
    fn should_continue(&self) -> bool {
        true
    }

    fn drain_events(&self, hear: &mut dyn FnMut(&[SubscriptionId], &[MoChange])) {
        if self.log.borrow().len() == self.act.0 {
            (self.act.1)();
        }
        for (ids, changes) in self.session.take_events() {
            (0..self.copies).for_each(|_| hear(&ids, &changes));
        }
    }
}

impl ApicRead for Together<'_> {
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        self.count_read();
        self.session.read(query)
    }

    fn subscribe(&self, query: &Query) -> Result<Subscribed, Error> {
        self.count_read();
        self.session.subscribe(query)
    }

    fn unsubscribe(&self, _: &SubscriptionId) {}
}

impl ApicWrite for Together<'_> {
    fn write(&self, request: &WriteRequest, should_send: &ShouldSend<'_>) -> Result<WriteAnswer, Error> {
        self.session.write(request, should_send)
    }

    fn write_all(&self, writes: &mut dyn Requests<WriteRequest, WriteAnswer>) {
        let mut in_flight = VecDeque::new();
        loop {
            while in_flight.len() < 2
                && let Some((number, request)) = writes.next()
            {
                let answer = self.write(&request, &|| writes.should_send(number));
                let body = serde_json::to_value(request.body()).unwrap();
                let epg = body["l3extInstP"]["attributes"]["name"].as_str().unwrap_or("another").to_owned();
                self.log.borrow_mut().push(format!("write {epg}"));
                in_flight.push_back((number, epg, answer));
            }
            let Some((number, epg, answer)) = in_flight.pop_front() else { return };
            self.log.borrow_mut().push(format!("answer {epg}"));
            writes.answered(number, answer);
        }
    }
}

/// A cluster whose Deployments, one a letter, name EPGs with these names, with an address each.
fn cluster(letters: &str, now: Instant) -> Reconciler {
    let name = |letter: char| letter.to_lowercase().to_string();
    let deployments = letters.chars().map(|it| deployment(&name(it), &it.to_string(), &[])).collect();
    let pod = |(n, letter)| pod(&name(letter), n, &format!("10.0.0.{n}"));
    let pods: Vec<Object> = letters.chars().enumerate().map(pod).collect();
    listed(Policy::Sync, deployments, pods, now)
}

/// W9, W7: the next write follows as soon as one is answered. The echo of a write comes before its answer, and costs no
/// read; of more events than are held some count as they come, which costs no more than a read.
#[test]
fn an_echo_before_the_answer_costs_no_read() {
    for (copies, reads) in [(1, 0), (5000, 1)] {
        let (apic, now) = (apic(), Instant::now());
        let session = Session::at(&apic);
        let mut reconciler = cluster("EFGH", now);
        let together = Together { copies, ..Together::new(&session) };
        let report = reconciler.reconcile(&together, now, &together).unwrap();
        assert_eq!(report.done.len(), 4);
        let log = together.log.borrow().join(", ");
        assert_eq!(
            log, "write E, write F, answer E, write G, answer F, write H, answer G, answer H",
            "{copies} copies"
        );
        assert_eq!(together.reads.get(), reads, "{copies} copies");
        assert_eq!(apic.admin.class("l3extSubnet").len(), 4);
    }
}

/// W9, W7: another writer puts an address into an EPG with a write in flight. The address is not put elsewhere.
#[test]
fn a_change_in_an_epg_in_flight_counts_for_others() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = cluster("EF", now);
    let admin = apic.admin.clone();
    let theirs = move || {
        admin.set(&format!("{DN_E}/extsubnet-[10.0.0.1/32]"), "l3extSubnet", &[("annotation", "theirs")]).unwrap();
    };
    let together = Together { act: (1, Box::new(theirs)), ..Together::new(&session) };
    reconciler.reconcile(&together, now, &together).unwrap();
    assert_eq!(together.log.borrow()[0], "write E");
    assert!(apic.admin.subnets("uni/tn-T/out-L/instP-F").is_empty());
    assert!(reconciler.findings().iter().any(|it| it.code == Code::ForeignSubnet), "{:?}", reconciler.findings());
}

/// W9, W3: after a refusal nothing is sent until the others in flight are answered. Then it is sent in parts.
#[test]
fn a_refusal_waits_for_those_in_flight() {
    let (apic, now) = (apic(), Instant::now());
    let session = Session::at(&apic);
    let mut reconciler = cluster("EFG", now);
    let refused = Rc::new(Cell::new(false));
    session.trouble(move |method, _, body| {
        let is_first = method == "POST" && body.contains("\"E\"") && !refused.replace(true);
        is_first.then(|| Error::Rejected { code: 120, text: "no".to_owned() })
    });
    let together = Together::new(&session);
    reconciler.reconcile(&together, now, &together).unwrap();
    let log = together.log.borrow().join(", ");
    assert!(log.starts_with("write E, write F, answer E, answer F, write E, write G, answer E"), "{log}");
    assert_eq!(apic.admin.class("l3extSubnet").len(), 3);
}

/// W9, R2: an L3Out goes, comes back and gets an EPG of another writer, all between a write and its answer. That EPG is not ours,
/// also if an APIC announces the L3Out alone.
#[test]
fn an_epg_of_a_new_l3out_is_foreign_while_a_write_is_in_flight() {
    for order in [Order::ParentsFirst, Order::ChildrenFirst, Order::ParentsOnly] {
        let (apic, now) = (apic(), Instant::now());
        apic.admin.variants(|it| it.deleted_order = order);
        let session = Session::at(&apic);
        let mut reconciler = cluster("EF", now);
        let admin = apic.admin.clone();
        let theirs = move || {
            admin.admin_delete("uni/tn-T/out-L").unwrap();
            admin.setup_tenant("T", "V", &["L"]).unwrap();
            admin.set(DN_E, "l3extInstP", &[]).unwrap();
        };
        let together = Together { act: (1, Box::new(theirs)), ..Together::new(&session) };
        reconciler.reconcile(&together, now, &together).unwrap();
        changes(&mut reconciler, &session, now + SECOND);
        assert_eq!(apic.admin.get(DN_E).unwrap()["annotation"], "", "{order:?}");
        assert_eq!(apic.admin.class("l3extSubnet").len(), 2, "{order:?}");
    }
}
