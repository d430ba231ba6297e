//! The cluster as the watches reported it, and whether that view is complete (W1).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::binding::{self, Binding};
use super::dn::{EpgDn, L3outDn};
use super::kubernetes::{Key, Kind, Labels, Object, Pod, Service, Workload, WorkloadRecord};
use super::pods::Pods;
use super::rules::{Exposed, Rules};

/// How long a view without an open watch still counts as complete (W1).
pub const CLOSED_WATCH_LIMIT: Duration = Duration::from_secs(60);

/// A watch that has delivered nothing yet counts as live after it has been open for this long (W1). A server may accept a
/// watch and end it with an error in the stream, at once or after a look at its own storage.
pub const WATCH_PROVEN: Duration = Duration::from_secs(5);

/// A workload that carries the annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedWorkload {
    /// The workload as last seen.
    pub record: WorkloadRecord,
    /// The binding in its annotation now, or what is wrong with the annotation.
    pub annotation: Result<Binding, String>,
    /// The binding in effect: the last valid one that this process has seen of this very workload (D3).
    pub binding: Option<Binding>,
}

impl ManagedWorkload {
    /// Its name and kind.
    pub fn workload(&self) -> &Workload {
        &self.record.id
    }

    /// Its namespace and name.
    pub fn key(&self) -> &Key {
        &self.record.id.key
    }

    /// The EPG that its addresses belong to, if one is known. An annotation that names what its namespace may not use is
    /// ignored (W6).
    pub fn bound_epg(&self, rules: &Rules) -> Option<&EpgDn> {
        let epg = &self.binding.as_ref()?.epg;
        rules.admits(&self.key().namespace, epg).then_some(epg)
    }

    /// D2: what it exposes. Without a known binding, all that it may ever have exposed (D3).
    pub(super) fn exposed(&self, rules: &Rules) -> Exposed {
        match &self.binding {
            Some(binding) => binding.expose.unwrap_or(rules.expose),
            None => Exposed { pods: true, services: true },
        }
    }

    /// S3: the older workload comes first, then by namespace/name, then by kind.
    pub(super) fn age(&self) -> (&str, &Workload) {
        (&self.record.created, &self.record.id)
    }
}

/// How much is known of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// Never listed, or a relist is due or under way.
    Incomplete,
    /// Listed, and the watch is live.
    Live,
    /// Listed, and a watch is open that has not delivered anything yet.
    Opened {
        /// Since when there is no live watch.
        closed: Instant,
        /// When this one was opened.
        opened: Instant,
    },
    /// Listed, and without a live watch since then.
    Closed(Instant),
}

/// What an event can change in the desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Nothing.
    Nothing,
    /// Only which EPG has these addresses: a Pod of a known sort came, went or changed. That happens all the time, and costs
    /// no look at all the others.
    Addresses(Vec<IpAddr>),
    /// Anything.
    Everything,
}

impl Changed {
    fn everything_if(it: bool) -> Changed {
        if it { Changed::Everything } else { Changed::Nothing }
    }
}

/// Workloads, Pods and Services by namespace and name.
#[derive(Debug)]
pub struct Inventory {
    /// The L3Out of annotations that name none (J2).
    default_l3out: Option<L3outDn>,
    /// The annotated workloads.
    pub managed: BTreeMap<Workload, ManagedWorkload>,
    /// The workloads without it that have an unknown annotation of aci-sync's prefix: perhaps a typing error (D2).
    pub misannotated: BTreeMap<Workload, WorkloadRecord>,
    /// The Pods worth keeping (see [`Object::is_kept`]).
    pub pods: Pods,
    /// The Services of type LoadBalancer that have a selector.
    pub services: BTreeMap<Key, Service>,
    /// For each workload that Pods belong to (P1, G2) the different sets of labels that they have, and how many have each.
    labels: HashMap<Workload, HashMap<Labels, usize>>,
    /// How many Services have each label in their selectors, by [`selected_label`].
    selected_labels: HashMap<String, usize>,
    /// How much is known of each kind that is watched.
    views: BTreeMap<Kind, View>,
    listed: BTreeMap<Kind, bool>,
}

impl Default for Inventory {
    fn default() -> Self {
        Inventory::watching(&Kind::DEFAULT)
    }
}

impl Inventory {
    /// Nothing is known yet. It takes in the kinds and the default L3Out of these rules.
    pub fn new(rules: &Rules) -> Self {
        Inventory { default_l3out: rules.default_l3out.clone(), ..Inventory::watching(&rules.kinds) }
    }

    /// Of these kinds nothing is known yet. Other kinds are not watched (G1).
    pub fn watching(kinds: &[Kind]) -> Self {
        Inventory {
            default_l3out: None,
            managed: BTreeMap::new(),
            misannotated: BTreeMap::new(),
            pods: Pods::default(),
            services: BTreeMap::new(),
            labels: HashMap::new(),
            selected_labels: HashMap::new(),
            views: kinds.iter().map(|kind| (*kind, View::Incomplete)).collect(),
            listed: kinds.iter().map(|kind| (*kind, false)).collect(),
        }
    }

    /// The kinds that are watched.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.views.keys().copied()
    }

    /// A complete list replaces the old view of its kind at once, never piecemeal (W1). It counts like a live watch until the
    /// watch that follows it is open.
    pub fn listed(&mut self, kind: Kind, objects: Vec<Object>, now: Instant) {
        let known = match kind {
            Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet => {
                self.misannotated.retain(|it, _| it.kind != kind);
                let known: BTreeMap<_, _>;
                (known, self.managed) = std::mem::take(&mut self.managed).into_iter().partition(|it| it.0.kind == kind);
                known
            }
            Kind::Pod => {
                self.pods = Pods::with_capacity(objects.len());
                self.labels.clear();
                BTreeMap::new()
            }
            Kind::Service => {
                self.services.clear();
                self.selected_labels.clear();
                BTreeMap::new()
            }
        };
        for object in objects {
            if !object.is_kept() {
                continue;
            }
            match object {
                Object::Workload(it) if it.annotation.is_none() => {
                    self.misannotated.insert(it.id.clone(), *it);
                }
                Object::Workload(it) => {
                    let before = known.get(&it.id);
                    let managed = managed(*it, before, self.default_l3out.as_ref());
                    self.managed.insert(managed.workload().clone(), managed);
                }
                Object::Pod(it) => {
                    self.add_labels(&it);
                    if let Some(twice) = self.pods.insert(it) {
                        self.remove_labels(&twice);
                    }
                }
                Object::Service(it) => self.insert_service(*it),
            }
        }
        self.views.insert(kind, View::Closed(now));
        self.listed.insert(kind, true);
    }

    /// An object was added or changed.
    pub fn upsert(&mut self, object: Object) -> Changed {
        if !object.is_kept() {
            return self.gone(object.kind(), object.key());
        }
        match object {
            Object::Workload(it) if it.annotation.is_none() => {
                if self.misannotated.get(&it.id) == Some(&*it) {
                    return Changed::Nothing;
                }
                self.managed.remove(&it.id);
                self.misannotated.insert(it.id.clone(), *it);
                Changed::Everything
            }
            Object::Workload(it) => {
                self.misannotated.remove(&it.id);
                let before = self.managed.get(&it.id);
                if before.is_some_and(|before| before.record == *it) {
                    return Changed::Nothing;
                }
                let managed = managed(*it, before, self.default_l3out.as_ref());
                self.managed.insert(managed.workload().clone(), managed);
                Changed::Everything
            }
            Object::Pod(it) => {
                if self.pods.get(&it.key) == Some(&*it) {
                    return Changed::Nothing;
                }
                let before = self.pods.remove(&it.key);
                let changed = self.pod_changed(before.as_deref(), Some(&it));
                self.pods.insert(it);
                changed
            }
            Object::Service(it) => {
                let is_new = self.services.get(&it.key) != Some(&*it);
                self.insert_service(*it);
                Changed::everything_if(is_new)
            }
        }
    }

    /// An object is gone, or no rule needs it any more.
    pub fn gone(&mut self, kind: Kind, key: &Key) -> Changed {
        match kind {
            Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet => {
                let id = Workload { key: key.clone(), kind };
                let was_known = self.managed.remove(&id).is_some() | self.misannotated.remove(&id).is_some();
                Changed::everything_if(was_known)
            }
            Kind::Pod => match self.pods.remove(key) {
                Some(before) => self.pod_changed(Some(&before), None),
                None => Changed::Nothing,
            },
            Kind::Service => Changed::everything_if(self.remove_service(key)),
        }
    }

    /// What a different Pod changes: its addresses, before and after; more if Services may select other workloads now
    /// (S1), or if it has addresses that cannot be read.
    fn pod_changed(&mut self, before: Option<&Pod>, after: Option<&Pod>) -> Changed {
        // In this order a Pod that keeps its labels makes no set new.
        let is_new_set = after.is_some_and(|it| self.add_labels(it));
        let was_last_of_set = before.is_some_and(|it| self.remove_labels(it));
        let pods = || before.into_iter().chain(after);
        let can_select_others = (is_new_set || was_last_of_set) && pods().any(|it| self.may_be_selected_by(it));
        if can_select_others || pods().any(|it| it.unreadable.is_some()) {
            return Changed::Everything;
        }
        Changed::Addresses(pods().flat_map(|it| it.addresses.iter()).copied().collect())
    }

    /// Whether a Service may select a managed workload for the labels of this Pod, and not for those of its template. Each Pod of
    /// a StatefulSet has labels of its own, so this decides what one that comes or goes costs. It looks at labels and not at
    /// Services, of which a namespace may have as many as Pods (X3).
    fn may_be_selected_by(&self, pod: &Pod) -> bool {
        let Some(managed) = pod.workload().and_then(|it| self.managed.get(&it)) else { return false };
        let template = &managed.record.template_labels;
        let mut own = pod.labels.iter().filter(|(label, value)| template.get(label) != Some(value));
        own.any(|(label, value)| self.selected_labels.contains_key(&selected_label(&pod.key.namespace, label, value)))
    }

    fn insert_service(&mut self, service: Service) {
        self.remove_service(&service.key);
        for (label, value) in service.selector.iter() {
            *self.selected_labels.entry(selected_label(&service.key.namespace, label, value)).or_default() += 1;
        }
        self.services.insert(service.key.clone(), service);
    }

    /// False if it was not known.
    fn remove_service(&mut self, key: &Key) -> bool {
        let Some(service) = self.services.remove(key) else { return false };
        for (label, value) in service.selector.iter() {
            if let Entry::Occupied(mut count) = self.selected_labels.entry(selected_label(&key.namespace, label, value))
            {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
        true
    }

    /// True if no other Pod of its workload has the same labels.
    fn add_labels(&mut self, pod: &Pod) -> bool {
        let Some(owner) = pod.workload() else { return false };
        let count = self.labels.entry(owner).or_default().entry(pod.labels.clone()).or_default();
        *count += 1;
        *count == 1
    }

    /// The same for a Pod that is gone.
    fn remove_labels(&mut self, pod: &Pod) -> bool {
        let Some(owner) = pod.workload() else { return false };
        let Entry::Occupied(mut sets) = self.labels.entry(owner) else { return false };
        let Some(count) = sets.get_mut().get_mut(&pod.labels) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        sets.get_mut().remove(&pod.labels);
        if sets.get().is_empty() {
            sets.remove();
        }
        true
    }

    /// The different sets of labels that the Pods of a workload have (P1, G2).
    pub(super) fn labels_of_pods(&self, workload: &Workload) -> impl Iterator<Item = &Labels> {
        self.labels.get(workload).into_iter().flat_map(HashMap::keys)
    }

    /// The workloads whose status counts Pods while no Pod of theirs is known (P1), if they pass the filter.
    pub fn missing_pods(&self, filter: impl Fn(&ManagedWorkload) -> bool) -> BTreeSet<Workload> {
        let has_no_pods = |managed: &&ManagedWorkload| {
            managed.record.has_replicas && !self.labels.contains_key(managed.workload()) && filter(managed)
        };
        self.managed.values().filter(has_no_pods).map(|it| it.workload().clone()).collect()
    }

    /// The server accepted a watch. It is not live yet, so the minute of W1 goes on.
    pub fn opened(&mut self, kind: Kind, now: Instant) {
        if let Some(view) = self.views.get_mut(&kind)
            && let View::Closed(closed) = *view
        {
            *view = View::Opened { closed, opened: now };
        }
    }

    /// A watch is live. That ends no relist; only [`Inventory::listed`] does.
    pub fn live(&mut self, kind: Kind) {
        if let Some(view @ (View::Closed(_) | View::Opened { .. })) = self.views.get_mut(&kind) {
            *view = View::Live;
        }
    }

    /// A watch ended and is being resumed.
    pub fn interrupted(&mut self, kind: Kind, now: Instant) {
        if let Some(view) = self.views.get_mut(&kind) {
            match *view {
                View::Live => *view = View::Closed(now),
                View::Opened { opened, .. } if is_proven(opened, now) => *view = View::Closed(now),
                View::Opened { closed, .. } => *view = View::Closed(closed),
                View::Closed(_) | View::Incomplete => {}
            }
        }
    }

    /// Watches that have been open for long enough are live from now on, also without an event.
    pub fn settle(&mut self, now: Instant) {
        for view in self.views.values_mut() {
            if matches!(*view, View::Opened { opened, .. } if is_proven(opened, now)) {
                *view = View::Live;
            }
        }
    }

    /// When the next view becomes complete again because its watch has been open for long enough.
    pub fn next_complete(&self) -> Option<Instant> {
        let ends = self.views.values().filter_map(|view| match view {
            View::Opened { closed, opened } => {
                Some(*opened + WATCH_PROVEN).filter(|end| *end >= *closed + CLOSED_WATCH_LIMIT)
            }
            _ => None,
        });
        ends.min()
    }

    /// A relist is due or under way.
    pub fn relisting(&mut self, kind: Kind) {
        self.views.insert(kind, View::Incomplete);
    }

    /// Whether this kind was listed completely at least once.
    pub fn was_listed(&self, kind: Kind) -> bool {
        self.listed.get(&kind).copied().unwrap_or(false)
    }

    /// How many workloads of each kind have a binding in effect.
    pub fn count_bound(&self) -> BTreeMap<Kind, usize> {
        let mut counts = BTreeMap::new();
        for managed in self.managed.values().filter(|it| it.binding.is_some()) {
            *counts.entry(managed.workload().kind).or_default() += 1;
        }
        counts
    }

    /// Whether all workloads are known: each kind of them that is watched was listed.
    pub fn workloads_are_listed(&self) -> bool {
        self.kinds().filter(|it| it.is_workload()).all(|it| self.was_listed(it))
    }

    /// The kinds whose view is incomplete now. While there is one, nothing is deleted (W1).
    pub fn incomplete(&self, now: Instant) -> Vec<Kind> {
        let incomplete = |view: &View| match view {
            View::Incomplete => true,
            View::Live => false,
            View::Opened { opened, .. } if is_proven(*opened, now) => false,
            View::Opened { closed: since, .. } | View::Closed(since) => {
                now.saturating_duration_since(*since) >= CLOSED_WATCH_LIMIT
            }
        };
        self.views.iter().filter(|(_, view)| incomplete(view)).map(|(kind, _)| *kind).collect()
    }
}

/// A label of a Service's selector. If two were the same in this form, a Pod would only cost more than it has to.
fn selected_label(namespace: &str, label: &str, value: &str) -> String {
    #[cfg(test)]
    super::kubernetes::steps::count();
    format!("{namespace}/{label}={value}")
}

fn is_proven(opened: Instant, now: Instant) -> bool {
    now.saturating_duration_since(opened) >= WATCH_PROVEN
}

/// D3: while the annotation is invalid, the last valid binding of the same workload stays in effect.
fn managed(
    record: WorkloadRecord,
    before: Option<&ManagedWorkload>,
    default_l3out: Option<&L3outDn>,
) -> ManagedWorkload {
    let annotation = binding::parse(record.annotation.as_deref().unwrap_or_default(), default_l3out);
    let before = before.filter(|it| it.record.uid == record.uid).and_then(|it| it.binding.clone());
    let binding = annotation.clone().ok().or(before);
    ManagedWorkload { record, annotation, binding }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::binding::UnknownKeys;
    use crate::model::kubernetes::{Birth, steps};

    fn labels(all: &[(&str, &str)]) -> Labels {
        all.iter().map(|(label, value)| ((*label).into(), (*value).into())).collect::<BTreeMap<_, _>>().into()
    }

    fn service(n: usize) -> Object {
        Object::Service(Box::new(Service {
            key: Key::new("a", &format!("s{n}")),
            uid: "".into(),
            selector: labels(&[("app", "web"), ("n", &n.to_string()), ("revision", "old")]),
            addresses: Vec::new(),
            unreadable: None,
            hostname_only: false,
            load_balancer: true,
        }))
    }

    fn stateful_set() -> Workload {
        Workload { key: Key::new("a", "web"), kind: Kind::StatefulSet }
    }

    fn pod(n: usize) -> Object {
        Object::Pod(Box::new(Pod {
            key: Key::new("a", &format!("web-{n}")),
            birth: Birth::new("", ""),
            owner: Some(stateful_set().key.name),
            owner_kind: Kind::StatefulSet,
            labels: labels(&[("app", "web"), ("pod", &format!("web-{n}")), ("revision", "new")]),
            addresses: vec![[10, 0, 0, n as u8].into()].into(),
            unreadable: None,
            host_network: false,
            terminating: false,
            terminal: false,
        }))
    }

    /// S1, X3, R6: what a Pod of a StatefulSet costs that comes or goes does not depend on how many Services its namespace has,
    /// whatever they select.
    #[test]
    fn a_pod_with_labels_of_its_own_is_not_compared_with_all_services() {
        let mut inventory = Inventory::watching(&Kind::ALL);
        inventory.upsert(Object::Workload(Box::new(WorkloadRecord {
            id: stateful_set(),
            uid: "".into(),
            created: "".into(),
            annotation: Some("{}".into()),
            paused: false,
            invalid_pause: None,
            unknown_keys: UnknownKeys::default(),
            template_labels: labels(&[("app", "web")]),
            has_replicas: true,
        })));
        let size = 200;
        for n in 0..size {
            inventory.upsert(service(n));
        }
        steps::take();
        for n in 0..size {
            assert!(matches!(inventory.upsert(pod(n)), Changed::Addresses(_)), "{n}");
        }
        for n in 0..size {
            let key = Key::new("a", &format!("web-{n}"));
            assert!(matches!(inventory.gone(Kind::Pod, &key), Changed::Addresses(_)), "{n}");
        }
        let steps = steps::take();
        assert!((1..=6 * size).contains(&steps), "{steps} steps for {size} Pods and Services");
        for n in 0..size {
            inventory.gone(Kind::Service, &Key::new("a", &format!("s{n}")));
        }
        assert_eq!(inventory.selected_labels.len(), 0);
    }
}
