//! The cluster as the three watches reported it, and whether that view is complete (W1).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::binding::{self, Binding};
use super::dn::EpgDn;
use super::kubernetes::{Deployment, Key, Kind, Labels, Object, Pod, Service, Workload};
use super::pods::Pods;
use super::rules::{Exposed, Rules};

/// How long a view without an open watch still counts as complete (W1).
pub const CLOSED_WATCH_LIMIT: Duration = Duration::from_secs(60);

/// A watch that has delivered nothing yet counts as live after it has been open for this long (W1). A server may accept a
/// watch and end it with an error in the stream, at once or after a look at its own storage.
pub const WATCH_PROVEN: Duration = Duration::from_secs(5);

/// A Deployment that carries the annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedDeployment {
    /// The Deployment as last seen.
    pub deployment: Deployment,
    /// The binding in its annotation now, or what is wrong with the annotation.
    pub annotation: Result<Binding, String>,
    /// The binding in effect: the last valid one that this process has seen of this very Deployment (D3).
    pub binding: Option<Binding>,
}

impl ManagedDeployment {
    /// Its kind and key.
    pub fn workload(&self) -> Workload {
        Workload { kind: Kind::Deployment, key: self.deployment.key.clone() }
    }

    /// The EPG that its addresses belong to, if one is known. An annotation that names what its namespace may not use is
    /// ignored (W6).
    pub fn bound_epg(&self, rules: &Rules) -> Option<&EpgDn> {
        let epg = &self.binding.as_ref()?.epg;
        rules.admits(&self.deployment.key.namespace, epg).then_some(epg)
    }

    /// D2: what it exposes. Without a known binding, all that it may ever have exposed (D3).
    pub(super) fn exposed(&self, rules: &Rules) -> Exposed {
        match &self.binding {
            Some(binding) => binding.expose.unwrap_or(rules.expose),
            None => Exposed { pods: true, services: true },
        }
    }

    /// S3: the older Deployment comes first, then namespace/name.
    pub(super) fn age(&self) -> (&str, &Key) {
        (&self.deployment.created, &self.deployment.key)
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

/// Deployments, Pods and Services by namespace and name.
#[derive(Debug)]
pub struct Inventory {
    /// The annotated Deployments.
    pub managed: BTreeMap<Key, ManagedDeployment>,
    /// The Deployments without it that have an unknown annotation of aci-sync's prefix: perhaps a typing error (D2).
    pub misannotated: BTreeMap<Key, Deployment>,
    /// The Pods worth keeping (see [`Object::is_kept`]).
    pub pods: Pods,
    /// The Services of type LoadBalancer that have a selector.
    pub services: BTreeMap<Key, Service>,
    /// For each Deployment that owns Pods (P1) the different sets of labels that they have, and how many have each.
    labels: HashMap<Key, HashMap<Labels, usize>>,
    views: BTreeMap<Kind, View>,
    listed: BTreeMap<Kind, bool>,
}

impl Default for Inventory {
    fn default() -> Self {
        Inventory {
            managed: BTreeMap::new(),
            misannotated: BTreeMap::new(),
            pods: Pods::default(),
            services: BTreeMap::new(),
            labels: HashMap::new(),
            views: Kind::ALL.map(|kind| (kind, View::Incomplete)).into(),
            listed: Kind::ALL.map(|kind| (kind, false)).into(),
        }
    }
}

impl Inventory {
    /// A complete list replaces the old view of its kind at once, never piecemeal (W1). It counts like a live watch until the
    /// watch that follows it is open.
    pub fn listed(&mut self, kind: Kind, objects: Vec<Object>, now: Instant) {
        let known = match kind {
            Kind::Deployment => {
                self.misannotated.clear();
                std::mem::take(&mut self.managed)
            }
            Kind::Pod => {
                self.pods = Pods::with_capacity(objects.len());
                self.labels.clear();
                BTreeMap::new()
            }
            Kind::Service => {
                self.services.clear();
                BTreeMap::new()
            }
        };
        for object in objects {
            if !object.is_kept() {
                continue;
            }
            match object {
                Object::Deployment(it) if it.annotation.is_none() => {
                    self.misannotated.insert(it.key.clone(), *it);
                }
                Object::Deployment(it) => {
                    let before = known.get(&it.key);
                    self.managed.insert(it.key.clone(), managed(*it, before));
                }
                Object::Pod(it) => {
                    self.add_labels(&it);
                    if let Some(twice) = self.pods.insert(it) {
                        self.remove_labels(&twice);
                    }
                }
                Object::Service(it) => {
                    self.services.insert(it.key.clone(), *it);
                }
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
            Object::Deployment(it) if it.annotation.is_none() => {
                if self.misannotated.get(&it.key) == Some(&*it) {
                    return Changed::Nothing;
                }
                self.managed.remove(&it.key);
                self.misannotated.insert(it.key.clone(), *it);
                Changed::Everything
            }
            Object::Deployment(it) => {
                self.misannotated.remove(&it.key);
                let before = self.managed.get(&it.key);
                if before.is_some_and(|before| before.deployment == *it) {
                    return Changed::Nothing;
                }
                let managed = managed(*it, before);
                self.managed.insert(managed.deployment.key.clone(), managed);
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
                self.services.insert(it.key.clone(), *it);
                Changed::everything_if(is_new)
            }
        }
    }

    /// A managed workload.
    pub fn workload(&self, workload: &Workload) -> Option<&ManagedDeployment> {
        match workload.kind {
            Kind::Deployment => self.managed.get(&workload.key),
            Kind::Pod | Kind::Service => None,
        }
    }

    /// An object is gone, or no rule needs it any more.
    pub fn gone(&mut self, kind: Kind, key: &Key) -> Changed {
        match kind {
            Kind::Deployment => {
                let was_known = self.managed.remove(key).is_some() | self.misannotated.remove(key).is_some();
                Changed::everything_if(was_known)
            }
            Kind::Pod => match self.pods.remove(key) {
                Some(before) => self.pod_changed(Some(&before), None),
                None => Changed::Nothing,
            },
            Kind::Service => Changed::everything_if(self.services.remove(key).is_some()),
        }
    }

    /// What a different Pod changes: its addresses, before and after; more if Services may select other Deployments now
    /// (S1), or if it has addresses that cannot be read.
    fn pod_changed(&mut self, before: Option<&Pod>, after: Option<&Pod>) -> Changed {
        // In this order a Pod that keeps its labels makes no set new.
        let is_new_set = after.is_some_and(|it| self.add_labels(it));
        let was_last_of_set = before.is_some_and(|it| self.remove_labels(it));
        let pods = || before.into_iter().chain(after);
        let has_service = |pod: &Pod| {
            let first = Key { namespace: pod.key.namespace.clone(), name: "".into() };
            let next = self.services.range(first..).next();
            next.is_some_and(|(key, _)| key.namespace == pod.key.namespace)
        };
        let can_select_others = (is_new_set || was_last_of_set) && pods().any(has_service);
        if can_select_others || pods().any(|it| it.unreadable.is_some()) {
            return Changed::Everything;
        }
        Changed::Addresses(pods().flat_map(|it| it.addresses.iter()).copied().collect())
    }

    /// True if no other Pod of its Deployment has the same labels.
    fn add_labels(&mut self, pod: &Pod) -> bool {
        let Some(owner) = pod.owner() else { return false };
        let count = self.labels.entry(owner).or_default().entry(pod.labels.clone()).or_default();
        *count += 1;
        *count == 1
    }

    /// The same for a Pod that is gone.
    fn remove_labels(&mut self, pod: &Pod) -> bool {
        let Some(owner) = pod.owner() else { return false };
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

    /// The different sets of labels that the Pods of a Deployment have (P1).
    pub(super) fn labels_of_pods(&self, deployment: &Key) -> impl Iterator<Item = &Labels> {
        self.labels.get(deployment).into_iter().flat_map(HashMap::keys)
    }

    /// The Deployments whose status counts replicas while no Pod of theirs is known (P1), if they pass the filter.
    pub fn missing_pods(&self, filter: impl Fn(&ManagedDeployment) -> bool) -> BTreeSet<Key> {
        let has_no_pods = |managed: &&ManagedDeployment| {
            managed.deployment.has_replicas && !self.labels.contains_key(&managed.deployment.key) && filter(managed)
        };
        self.managed.values().filter(has_no_pods).map(|it| it.deployment.key.clone()).collect()
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

fn is_proven(opened: Instant, now: Instant) -> bool {
    now.saturating_duration_since(opened) >= WATCH_PROVEN
}

/// D3: while the annotation is invalid, the last valid binding of the same Deployment stays in effect.
fn managed(deployment: Deployment, before: Option<&ManagedDeployment>) -> ManagedDeployment {
    let annotation = binding::parse(deployment.annotation.as_deref().unwrap_or_default());
    let before = before.filter(|it| it.deployment.uid == deployment.uid).and_then(|it| it.binding.clone());
    let binding = annotation.clone().ok().or(before);
    ManagedDeployment { deployment, annotation, binding }
}
