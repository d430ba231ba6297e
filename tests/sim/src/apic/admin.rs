//! The admin API for tests: what an administrator does, what the tree holds, what was asked, and trouble on demand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster::{Cluster, Entry, Hold, Hook, Rejection, User};
use super::conflicts::PrefixInUse;
use super::error::ApiError;
use super::fabric::Author;
use super::tree::Mo;
use super::variants::Variants;
use super::write::Forbidden;
use crate::pki::Pair;

/// A handle on the admin API; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct AdminApi {
    pub(super) cluster: Arc<Cluster>,
}

/// A request that is held: its connection ends without an answer when this is dropped.
pub struct Held {
    arrived: Receiver<()>,
    _key: Sender<()>,
}

impl Held {
    /// Whether the request has come by now.
    pub fn has_arrived(&self) -> bool {
        self.arrived.try_recv().is_ok()
    }
}

/// The admin API's changes are another administrator's.
const OTHER_ADMIN: Author<'_> = Author { user: "", uid: "15399" };

impl AdminApi {
    /// Changes the tree as another administrator would by a POST; events go out.
    pub fn admin_post(&self, dn: &str, body: &Value) -> Result<(), ApiError> {
        self.cluster.change(|state| {
            let now = state.now();
            let (_, changes) = state.fabric.post(now, OTHER_ADMIN, dn, body.to_string().as_bytes())?;
            state.announce(&changes);
            Ok(())
        })
    }

    /// Changes properties of one object that is there or not: `set("uni/…/instP-E", "l3extInstP", &[("descr", "x")])`.
    pub fn set(&self, dn: &str, class: &str, attributes: &[(&str, &str)]) -> Result<(), ApiError> {
        let attributes: serde_json::Map<String, Value> =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        self.admin_post(dn, &json!({class: {"attributes": attributes}}))
    }

    /// Deletes an object and all that is below it, as another administrator would.
    pub fn admin_delete(&self, dn: &str) -> Result<(), ApiError> {
        self.cluster.change(|state| {
            let now = state.now();
            let changes = state.fabric.delete(now, OTHER_ADMIN, dn)?;
            state.announce(&changes);
            Ok(())
        })
    }

    /// Makes a tenant with a VRF and L3Outs that belong to it.
    pub fn setup_tenant(&self, tenant: &str, vrf: &str, l3outs: &[&str]) -> Result<(), ApiError> {
        let mut children = vec![json!({"fvCtx": {"attributes": {"name": vrf}}})];
        for name in l3outs {
            let relation = json!({"l3extRsEctx": {"attributes": {"tnFvCtxName": vrf}}});
            children.push(json!({"l3extOut": {"attributes": {"name": name}, "children": [relation]}}));
        }
        self.admin_post("uni", &json!({"fvTenant": {"attributes": {"name": tenant}, "children": children}}))
    }

    /// Puts an L3Out on a leaf: a routed port, a floating SVI, and a BGP peer below each.
    pub fn deploy_l3out(&self, l3out: &str) -> Result<(), ApiError> {
        let peer = |addr: &str| json!({"bgpPeerP": {"attributes": {"addr": addr}}});
        let port =
            json!({"tDn": "topology/pod-1/paths-101/pathep-[eth1/1]", "addr": "10.9.0.1/24", "ifInstT": "l3-port"});
        let svi = json!({"nodeDn": "topology/pod-1/node-101", "encap": "vlan-100", "addr": "10.9.1.1/24", "ifInstT": "ext-svi"});
        let interfaces = json!({"l3extLIfP": {"attributes": {"name": "I"}, "children": [
            {"l3extRsPathL3OutAtt": {"attributes": port, "children": [peer("10.9.0.5")]}},
            {"l3extVirtualLIfP": {"attributes": svi, "children": [peer("10.9.1.0/24")]}},
        ]}});
        let node =
            json!({"l3extRsNodeL3OutAtt": {"attributes": {"tDn": "topology/pod-1/node-101", "rtrId": "10.9.9.1"}}});
        self.admin_post(l3out, &json!({"l3extLNodeP": {"attributes": {"name": "N"}, "children": [node, interfaces]}}))
    }

    /// The properties of an object, its `dn` included.
    pub fn get(&self, dn: &str) -> Option<Value> {
        let state = self.cluster.look();
        state.fabric.tree.get(dn).map(|mo| properties(dn, mo))
    }

    /// The identity of an object: one that is recreated under the same DN gets another.
    pub fn birth(&self, dn: &str) -> Option<u64> {
        self.cluster.look().fabric.tree.get(dn).map(|mo| mo.sequence)
    }

    /// Class and DN of everything below a DN, in order of the DN; `uni` for all.
    pub fn tree(&self, dn: &str) -> Vec<(String, String)> {
        let state = self.cluster.look();
        state.fabric.tree.below(dn).map(|(dn, mo)| (mo.class.name.to_owned(), dn.to_owned())).collect()
    }

    /// The DNs of all objects with this `annotation`.
    pub fn bearing(&self, mark: &str) -> Vec<String> {
        let state = self.cluster.look();
        state
            .fabric
            .tree
            .below("uni")
            .filter(|(_, mo)| mo.get("annotation") == mark)
            .map(|it| it.0.to_owned())
            .collect()
    }

    /// The properties of all objects of a class by DN.
    pub fn class(&self, class: &str) -> BTreeMap<String, Value> {
        let state = self.cluster.look();
        state.fabric.tree.of_class(class).map(|(dn, mo)| (dn.to_owned(), properties(dn, mo))).collect()
    }

    /// How many objects of a class there are.
    pub fn count(&self, class: &str) -> usize {
        self.cluster.look().fabric.tree.count(class)
    }

    /// The names of the EPGs of an L3Out.
    pub fn epgs(&self, l3out: &str) -> Vec<String> {
        self.children(l3out, "l3extInstP")
            .into_values()
            .map(|it| it["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// The subnets of an EPG by prefix.
    pub fn subnets(&self, epg: &str) -> BTreeMap<String, Value> {
        let subnets = self.children(epg, "l3extSubnet").into_values();
        subnets.map(|it| (it["ip"].as_str().unwrap_or_default().to_owned(), it)).collect()
    }

    fn children(&self, dn: &str, class: &str) -> BTreeMap<String, Value> {
        let state = self.cluster.look();
        let below = state.fabric.tree.below(dn).filter(|(_, mo)| mo.parent == dn && mo.class.name == class);
        below.map(|(dn, mo)| (dn.to_owned(), properties(dn, mo))).collect()
    }

    /// Every request that was answered, in order. Secrets stand in it as they were sent.
    pub fn journal(&self) -> Vec<Entry> {
        self.cluster.look().journal.clone()
    }

    /// The requests among them that change the tree.
    pub fn writes(&self) -> Vec<Entry> {
        self.cluster.look().journal.iter().filter(|it| it.is_write()).cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn clear_journal(&self) {
        self.cluster.change(|state| state.journal.clear());
    }

    /// All F0467 that were ever raised, also those that have gone.
    pub fn faults_raised(&self) -> Vec<PrefixInUse> {
        self.cluster.look().fabric.conflicts().history().to_vec()
    }

    /// The F0467 that stand now.
    pub fn faults_standing(&self) -> Vec<PrefixInUse> {
        self.cluster.look().fabric.conflicts().standing()
    }

    /// Raises F0467 about an EPG for another cause than a prefix in use, such as `encap-already-in-use`.
    pub fn raise_fault(&self, epg: &str, cause: &str, words: &str) {
        self.cluster.change(|state| {
            let changes = state.fabric.raise_fault(epg, cause, words);
            state.announce(&changes);
        });
    }

    /// Turns switches.
    pub fn variants(&self, turn: impl FnOnce(&mut Variants)) {
        self.cluster.change(|state| turn(&mut state.fabric.variants));
    }

    /// Puts the controllers' clock forward: lifetimes are that much nearer to their end.
    pub fn advance(&self, time: Duration) {
        self.cluster.change(|state| state.skipped += time);
    }

    /// All tokens end now.
    pub fn expire_tokens(&self) {
        self.cluster.change(|state| {
            let now = state.now();
            state.sessions.end_tokens(&state.fabric.variants, now);
        });
    }

    /// All subscriptions end now, without a message.
    pub fn lapse_subscriptions(&self) {
        self.cluster.change(|state| state.sessions.end_subscriptions());
    }

    /// Closes all websockets; the sessions stay.
    pub fn drop_websockets(&self) {
        self.cluster.change(|state| state.sessions.close_all());
    }

    /// Websockets stay open and say nothing, not even to a ping; or speak again. What happened meanwhile is lost.
    pub fn set_deaf(&self, deaf: bool) {
        self.cluster.change(|state| state.deaf = deaf);
    }

    /// Another password from now on; sessions stay.
    pub fn set_password(&self, user: &str, password: &str) {
        self.cluster.change(|state| {
            state.users.retain(|it| it.name != user);
            state.users.push(User { name: user.to_owned(), password: password.to_owned() });
        });
    }

    /// Gives a user a certificate; its DN. A former one of that name is replaced.
    pub fn add_certificate(&self, user: &str, name: &str, certificate: &Pair) -> String {
        let dn = format!("uni/userext/user-{user}/usercert-{name}");
        let certificate = certificate.certificate.clone();
        self.cluster.change(|state| state.certificates.0.insert(dn.clone(), certificate));
        dn
    }

    /// Takes a certificate from its user.
    pub fn remove_certificate(&self, dn: &str) {
        self.cluster.change(|state| state.certificates.0.remove(dn));
    }

    /// Takes the privilege to write at and below a DN from every user: 403.
    pub fn forbid(&self, dn: &str, class: Option<&str>) {
        let forbidden = Forbidden { user: None, dn: dn.to_owned(), class: class.map(str::to_owned) };
        self.cluster.change(|state| state.fabric.forbidden.push(forbidden));
    }

    /// Gives all privileges back.
    pub fn allow(&self) {
        self.cluster.change(|state| state.fabric.forbidden.clear());
    }

    /// Refuses writes whose DN or body contains a text, `times` times or for ever.
    pub fn reject(&self, containing: &str, error: ApiError, times: Option<usize>) {
        self.cluster
            .change(|state| state.rejections.push(Rejection { containing: containing.to_owned(), error, times }));
    }

    /// The next `times` requests get the JSON 503 of an APIC whose query took too long. Websocket upgrades
    /// are not among them.
    pub fn busy_json(&self, times: usize) {
        self.cluster.change(|state| state.front.be_busy(times));
    }

    /// Refuses subscriptions whose target contains a text with a 400; the same read without a subscription works.
    pub fn refuse_subscriptions(&self, containing: &str) {
        self.cluster.change(|state| state.refused_subscriptions.push(containing.to_owned()));
    }

    /// Accepts all subscriptions again, to the extent of the switch `subscriptions_refused` does.
    pub fn allow_subscriptions(&self) {
        self.cluster.change(|state| state.refused_subscriptions.clear());
    }

    /// How many requests arrived in all, refused ones included.
    pub fn requests(&self) -> usize {
        self.cluster.look().front.requests()
    }

    /// The most requests that were in flight together, websockets not counted.
    pub fn most_in_flight(&self) -> usize {
        self.cluster.look().front.most_in_flight()
    }

    /// Counts them from now on.
    pub fn forget_most_in_flight(&self) {
        self.cluster.change(|state| state.front.forget_most_in_flight());
    }

    /// How many of them `request_throttle`, `refuse_every` or `fail_share` refused.
    pub fn refused(&self) -> usize {
        self.cluster.look().front.refused()
    }

    /// How many logins were successful.
    pub fn logins(&self) -> usize {
        self.cluster.look().sessions.logins()
    }

    /// Ends all rejections.
    pub fn clear_rejections(&self) {
        self.cluster.change(|state| state.rejections.clear());
    }

    /// Does something once, right after the next request of this method whose target contains a text was done and
    /// before its answer is sent: the moment between a read and the write that follows from it.
    pub fn then(&self, method: &str, target: &str, then: impl FnOnce(&AdminApi) + Send + 'static) {
        let hook = Hook { method: method.to_owned(), target: target.to_owned(), then: Box::new(then) };
        self.cluster.change(|state| state.hooks.push(hook));
    }

    /// Holds one request: the one that comes after `skip` others, before it is done or after.
    pub fn hold(&self, skip: usize, done: bool) -> Held {
        let ((arrived, arrival), (_key, key)) = (channel(), channel());
        self.cluster.change(|state| state.hold = Some(Hold { skip, done, arrived, key }));
        Held { arrived: arrival, _key }
    }

    /// A controller falls behind: it takes writes, and shows what there is now from now on.
    pub fn fall_behind(&self, controller: usize) {
        self.cluster.change(|state| state.lagging.insert(controller, state.fabric.tree.clone()));
    }

    /// It has caught up.
    pub fn catch_up(&self, controller: usize) {
        self.cluster.change(|state| state.lagging.remove(&controller));
    }

    /// Sends bytes on all websockets, whatever the protocol says of them.
    pub fn websocket_bytes(&self, bytes: &[u8]) {
        self.cluster.change(|state| state.sessions.send_bytes(bytes));
    }

    /// The ids of all subscriptions.
    pub fn subscription_ids(&self) -> Vec<String> {
        self.cluster.look().sessions.subscription_ids()
    }

    /// The request targets that are subscribed now.
    pub fn subscribed(&self) -> Vec<String> {
        let state = self.cluster.look();
        state.sessions.subscribed(state.now())
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.cluster.look().sessions.counts().0
    }

    /// How many websockets are open.
    pub fn websockets(&self) -> usize {
        self.cluster.look().sessions.counts().1
    }

    /// Waits until a condition holds, looking again whenever something has happened here, and now and then, as it may
    /// be about something else, too; false when it does not within this time.
    pub fn wait_until(&self, limit: Duration, mut condition: impl FnMut(&AdminApi) -> bool) -> bool {
        let end = Instant::now() + limit;
        loop {
            let version = self.cluster.look().version;
            if condition(self) {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.cluster.wait_while(left.min(Duration::from_millis(20)), |state| state.version == version);
        }
    }
}

fn properties(dn: &str, mo: &Mo) -> Value {
    let pairs = mo.attributes.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
    Value::Object(pairs.chain([("dn".to_owned(), json!(dn))]).collect())
}
