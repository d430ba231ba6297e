//! A session at the simulated fabric without sockets, a few objects of a cluster, and a reconciler between them: for
//! tests of single reconciles.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use aci_sync::apic::decode::{self, Answer};
use aci_sync::apic::traits::{ApicRead, ApicWrite, ShouldSend, WriteAnswer};
use aci_sync::apic::writer::request::WriteRequest;
use aci_sync::apic::{Error, Query, SubscriptionId, reading};
use aci_sync::kube::{Event, objects};
use aci_sync::model::finding::Code;
use aci_sync::model::kubernetes::{Kind, Object};
use aci_sync::model::mo::{Mo, MoChange};
use aci_sync::model::owner::OwnerIdentity;
use aci_sync::model::plan::describe;
use aci_sync::model::rules::Policy;
use aci_sync::model::rules::Rules;
use aci_sync::reconcile::{ReconcileContext, Reconciler, Report};
use serde_json::json;
use sim::apic::{ApicSession, InMemoryApic, Variants};

pub const MARK: &str = "orchestrator:aci-sync:me";
pub const DN_E: &str = "uni/tn-T/out-L/instP-E";
pub const TAG: &str = "uni/tn-T/out-L/annotationKey-[aci-sync:me:E]";

/// What happens at a request: method, target and body are known, and an error ends it.
pub type Trouble = Box<dyn FnMut(&str, &str, &str) -> Option<Error>>;

/// A session at it.
pub struct Session {
    session: ApicSession,
    trouble: RefCell<Trouble>,
    /// All writes, as they were sent.
    pub writes: RefCell<Vec<String>>,
}

impl Session {
    pub fn at(apic: &InMemoryApic) -> Session {
        Session {
            session: apic.log_in("admin"),
            trouble: RefCell::new(Box::new(|_, _, _| None)),
            writes: RefCell::default(),
        }
    }

    pub fn trouble(&self, trouble: impl FnMut(&str, &str, &str) -> Option<Error> + 'static) {
        *self.trouble.borrow_mut() = Box::new(trouble);
    }

    pub fn ask(&self, method: &str, target: &str, body: &str) -> Result<(u16, String), Error> {
        if method != "GET" {
            self.writes.borrow_mut().push(format!("{method} {target} {body}"));
        }
        let trouble = (self.trouble.borrow_mut())(method, target, body);
        trouble.map_or_else(|| Ok(self.session.ask(method, target, body)), Err)
    }

    fn get(&self, target: &str) -> Result<Answer, Error> {
        let (status, body) = self.ask("GET", target, "")?;
        decode::read(status, body.as_bytes())
    }

    /// The websocket messages since the last call, as the session manager decodes them.
    pub fn take_events(&self) -> Vec<(Vec<SubscriptionId>, Vec<MoChange>)> {
        let messages = self.session.events().unwrap().into_iter().map(|it| decode::message(it.as_bytes()).unwrap());
        let ids = |texts: &[String]| texts.iter().filter_map(|it| SubscriptionId::new(it)).collect();
        messages.map(|it| (ids(&it.subscriptions), it.changes)).collect()
    }

    pub fn deliver_events(&self, reconciler: &mut Reconciler) -> bool {
        hear(reconciler, &self.take_events())
    }
}

/// The reconciler hears these messages. True if they say something that it does not know.
pub fn hear(reconciler: &mut Reconciler, messages: &[(Vec<SubscriptionId>, Vec<MoChange>)]) -> bool {
    let mut is_new = false;
    for (ids, changes) in messages {
        is_new |= reconciler.fabric_changed(ids, changes);
    }
    is_new
}

/// The websocket is heard during a reconcile, too.
impl ReconcileContext for Session {
    fn should_continue(&self) -> bool {
        true
    }

    fn drain_events(&self, hear: &mut dyn FnMut(&[SubscriptionId], &[MoChange])) {
        self.take_events().iter().for_each(|(ids, changes)| hear(ids, changes));
    }
}

impl ApicRead for Session {
    fn read(&self, query: &Query) -> Result<Vec<Mo>, Error> {
        reading::read(query, &mut |target| self.get(target))
    }

    fn subscribe(&self, query: &Query) -> Result<(Option<SubscriptionId>, Vec<Mo>), Error> {
        let (id, mos) = reading::snapshot(self.get(&query.target(&["subscription=yes".to_owned()]))?)?;
        Ok((Some(id), mos))
    }

    fn unsubscribe(&self, _: &SubscriptionId) {}
}

impl ApicWrite for Session {
    fn write(&self, request: &WriteRequest, should_send: &ShouldSend<'_>) -> Result<WriteAnswer, Error> {
        if !should_send() {
            return Err(Error::NotSent);
        }
        let body = request.body().map(ToString::to_string).unwrap_or_default();
        let (status, body) = self.ask(request.method(), &request.target(), &body)?;
        decode::written(status, body.as_bytes()).map(WriteAnswer::Changes)
    }
}

pub fn apic() -> InMemoryApic {
    let apic = InMemoryApic::new(Variants::default());
    apic.admin.setup_tenant("T", "V", &["L"]).unwrap();
    apic
}

/// An EPG `E` of ours with this number of subnets.
pub fn with_subnets(apic: &InMemoryApic, count: usize) {
    apic.admin.set(DN_E, "l3extInstP", &[("annotation", MARK)]).unwrap();
    for n in 1..=count {
        let name = format!("a::web-{n}");
        apic.admin.set(&subnet(n), "l3extSubnet", &[("annotation", MARK), ("name", &name)]).unwrap();
    }
}

pub fn subnet(n: usize) -> String {
    format!("{DN_E}/extsubnet-[10.0.0.{n}/32]")
}

pub fn deployment(name: &str, epg: &str, more: &[(&str, &str)]) -> Object {
    let mut annotations =
        json!({"aci.haystacknetworks.com/l3o": json!({"tenant": "T", "l3out": "L", "epg": epg}).to_string()});
    for (key, value) in more {
        annotations[format!("aci.haystacknetworks.com/{key}")] = json!(value);
    }
    let json = json!({"metadata": {"namespace": "a", "name": name, "uid": name, "annotations": annotations}});
    objects::decode(Kind::Deployment, json.to_string().as_bytes()).unwrap()
}

pub fn pod(of: &str, n: usize, address: &str) -> Object {
    pod_of("a", of, n, address, 0)
}

/// A Deployment of any namespace that names `TENANT/L3OUT/EPG`.
pub fn naming(namespace: &str, name: &str, place: &str) -> Object {
    let parts: Vec<&str> = place.split('/').collect();
    let value = json!({"tenant": parts[0], "l3out": parts[1], "epg": parts[2]}).to_string();
    let json = json!({"metadata": {"namespace": namespace, "name": name, "uid": format!("{namespace}{name}"),
        "annotations": {"aci.haystacknetworks.com/l3o": value}}});
    objects::decode(Kind::Deployment, json.to_string().as_bytes()).unwrap()
}

/// A Pod of any namespace.
pub fn pod_of(namespace: &str, of: &str, n: usize, address: &str, created: u8) -> Object {
    let owner = json!([{"kind": "ReplicaSet", "name": format!("{of}-5d9c7"), "controller": true}]);
    let metadata = json!({"namespace": namespace, "name": format!("{of}-{n}"), "uid": format!("{namespace}{of}{n}"),
        "creationTimestamp": format!("2026-01-01T00:00:0{created}Z"),
        "labels": {"pod-template-hash": "5d9c7"}, "ownerReferences": owner});
    let json = json!({"metadata": metadata, "status": {"phase": "Running", "podIPs": [{"ip": address}]}});
    objects::decode(Kind::Pod, json.to_string().as_bytes()).unwrap()
}

/// The names of the EPGs that there are.
pub fn epgs(apic: &InMemoryApic) -> Vec<String> {
    apic.admin.class("l3extInstP").into_keys().map(|dn| dn.rsplit_once("/instP-").unwrap().1.to_owned()).collect()
}

/// A reconciler with these rules and a grace of a minute.
pub fn reconciler(
    rules: Rules,
    policy: Policy,
    deployments: Vec<Object>,
    pods: Vec<Object>,
    now: Instant,
) -> Reconciler {
    hears_lists(Reconciler::new(OwnerIdentity::new("me", &[]), rules, policy, 60 * SECOND), deployments, pods, now)
}

pub fn hears(reconciler: &mut Reconciler, object: Object, now: Instant) -> bool {
    reconciler.cluster_changed(Event::Upsert(object), now)
}

pub fn pods(count: usize) -> Vec<Object> {
    (1..=count).map(|n| pod("web", n, &format!("10.0.0.{n}"))).collect()
}

pub fn listed(policy: Policy, deployments: Vec<Object>, pods: Vec<Object>, now: Instant) -> Reconciler {
    let reconciler = Reconciler::new(OwnerIdentity::new("me", &[]), Rules::default(), policy, Duration::ZERO);
    hears_lists(reconciler, deployments, pods, now)
}

pub fn hears_lists(
    mut reconciler: Reconciler,
    deployments: Vec<Object>,
    pods: Vec<Object>,
    now: Instant,
) -> Reconciler {
    for (kind, objects) in [(Kind::Deployment, deployments), (Kind::Pod, pods), (Kind::Service, Vec::new())] {
        reconciler.cluster_changed(Event::Listed { kind, objects }, now);
        reconciler.cluster_changed(Event::Live { kind }, now);
    }
    reconciler
}

pub fn reconcile(reconciler: &mut Reconciler, session: &Session, now: Instant) -> Report {
    reconciler.reconcile(session, now, &|| true).unwrap()
}

pub const SECOND: Duration = Duration::from_secs(1);

/// The changes of a reconcile, each in a line; events of the fabric are received first.
pub fn changes(reconciler: &mut Reconciler, session: &Session, now: Instant) -> Vec<String> {
    session.deliver_events(reconciler);
    let report = reconcile(reconciler, session, now);
    let text = describe(&report.done);
    text.lines().filter_map(|it| it.strip_prefix("    ")).map(str::to_owned).collect()
}

pub fn findings(reconciler: &Reconciler, code: Code) -> Vec<String> {
    reconciler.findings().iter().filter(|it| it.code == code).map(|it| it.text.clone()).collect()
}

/// Adds a contract relation to the EPG.
pub fn relate(apic: &InMemoryApic, contract: &str) {
    apic.admin.set(&format!("{DN_E}/rscons-{contract}"), "fvRsCons", &[]).unwrap();
}
