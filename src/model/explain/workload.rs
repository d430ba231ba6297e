//! Explains workloads, and Pods and Services by their place in the workloads that expose them.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{
    AddressPart, AddressState, AnnotationPart, Explainer, Explanation, NotExposedPart, ObjectPart, SubjectPart, Verdict,
};
use crate::model::dn::{EpgDn, Prefix};
use crate::model::finding::Code;
use crate::model::inventory::ManagedWorkload;
use crate::model::kubernetes::{Key, Kind, Object, Pod, Service, Workload};
use crate::model::source::Source;

/// The most workloads that a Service is explained for.
const MAX_WORKLOADS: usize = 100;

impl Explainer<'_> {
    /// Every object of this name, or the one of this kind.
    pub(super) fn named(&self, kind: Option<Kind>, key: &Key) -> Vec<Explanation> {
        let mut all = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|it| kind.is_none_or(|kind| kind == *it)) {
            match kind {
                Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet => {
                    all.extend(self.workload(&Workload { key: key.clone(), kind }));
                }
                Kind::Pod => all.extend(self.pods().find(|it| it.key == *key).map(|it| self.pod(it))),
                Kind::Service => {
                    all.extend(self.services().find(|it| it.key == *key).into_iter().flat_map(|it| self.service(it)));
                }
            }
        }
        if all.is_empty() {
            all.push(self.not_found(kind, key));
        }
        all
    }

    fn not_found(&self, kind: Option<Kind>, key: &Key) -> Explanation {
        let (watched, unwatched): (Vec<Kind>, Vec<Kind>) =
            Kind::ALL.into_iter().partition(|kind| self.input.inventory.kinds().any(|it| it == *kind));
        let names = |kinds: &[Kind], last: &str| match kinds {
            [others @ .., kind] if !others.is_empty() => {
                let others: Vec<String> = others.iter().map(ToString::to_string).collect();
                format!("{} {last} {kind}", others.join(", "))
            }
            kinds => kinds.iter().map(ToString::to_string).collect(),
        };
        if let Some(kind) = kind.filter(|it| unwatched.contains(it)) {
            let summary = format!("objects of kind {kind} are not watched: --workloads does not name them");
            return Explanation::new(SubjectPart::object(kind, key), Verdict::NotManaged, summary);
        }
        let what = kind.map_or_else(|| names(&watched, "or"), |it| it.to_string());
        let mut summary = format!("no {what} of this name in the namespace {}", key.namespace);
        let mut about = SubjectPart::object(kind.unwrap_or(Kind::Deployment), key);
        if let (None, SubjectPart::Object(object)) = (kind, &mut about) {
            object.kind.clear();
            if !unwatched.is_empty() {
                summary += &format!("; not watched (--workloads): {}", names(&unwatched, "and"));
            }
        }
        Explanation::new(about, Verdict::Unknown, summary)
    }

    fn workload(&self, workload: &Workload) -> Option<Explanation> {
        let about = SubjectPart::object(workload.kind, &workload.key);
        if let Some(managed) = self.input.inventory.managed.get(workload) {
            return Some(self.managed_workload(about, managed, Shown::All));
        }
        let is_unneeded = |it: &Object| matches!(it, Object::Workload(it) if it.id == *workload);
        let is_listed =
            self.input.inventory.misannotated.contains_key(workload) || self.look.unneeded.iter().any(is_unneeded);
        is_listed.then(|| Explanation::new(about, Verdict::NotManaged, "it has no binding annotation"))
    }

    fn pod(&self, pod: &Pod) -> Explanation {
        let about = SubjectPart::object(Kind::Pod, &pod.key);
        let Some(workload) = pod.workload() else {
            return Explanation::new(about, Verdict::NotManaged, "it belongs to no workload that is watched");
        };
        let Some(managed) = self.input.inventory.managed.get(&workload) else {
            let state = if self.workload(&workload).is_some() { "has no binding annotation" } else { "is gone" };
            return Explanation::new(about, Verdict::NotManaged, format!("its {workload} {state}"));
        };
        self.managed_workload(about, managed, Shown::Pod(pod))
    }

    /// One explanation for each managed workload that the Service selects, the worst first.
    fn service(&self, service: &Service) -> Vec<Explanation> {
        let about = SubjectPart::object(Kind::Service, &service.key);
        let shown = Shown::Service(service);
        let mut all: Vec<Explanation> =
            self.selected_by(service).map(|it| self.managed_workload(about.clone(), it, shown)).collect();
        if all.is_empty() {
            let selector: Vec<String> = service.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let selector = if selector.is_empty() { "it has no selector".to_owned() } else { selector.join(",") };
            let summary = format!("it selects no workload with the annotation: {selector}");
            return vec![Explanation::new(about, Verdict::NotManaged, summary)];
        }
        all.sort_by_key(|it| Reverse(it.verdict));
        let left_out = all.len().saturating_sub(MAX_WORKLOADS);
        all.truncate(MAX_WORKLOADS);
        all.last_mut().into_iter().for_each(|it| it.left_out += left_out);
        all
    }

    /// The managed workloads that a Service selects (S1), whatever its type.
    pub(super) fn selected_by(&self, service: &Service) -> impl Iterator<Item = &ManagedWorkload> {
        self.selection.selected(service).into_iter().map(|it| self.managed[it])
    }

    /// What a workload's own state means for its addresses; nothing if they are exposed in an EPG.
    pub(super) fn unbound(&self, managed: &ManagedWorkload) -> Option<Verdict> {
        match &managed.binding {
            None => Some(Verdict::Invalid),
            Some(_) if managed.bound_epg(self.input.rules).is_none() => Some(Verdict::NotAllowed),
            Some(_) => None,
        }
    }

    /// The chain of a workload, in the order in which it can break: annotation, allowed, L3Out, EPG, addresses.
    fn managed_workload(&self, about: SubjectPart, managed: &ManagedWorkload, shown: Shown<'_>) -> Explanation {
        let (key, rules) = (managed.key(), self.input.rules);
        let mut it = Explanation::new(about, Verdict::InSync, "");
        if !matches!(shown, Shown::All) {
            it.workload = Some(managed.workload().to_string());
        }
        let exposed = managed.exposed(rules);
        let words = [(exposed.pods, "pods"), (exposed.services, "services")];
        it.annotation = Some(AnnotationPart {
            state: if managed.annotation.is_ok() { "valid" } else { "invalid" },
            error: managed.annotation.as_ref().err().cloned(),
            epg: managed.binding.as_ref().map(|it| it.epg.to_string()),
            expose: words.into_iter().filter(|it| it.0).map(|it| it.1).collect(),
        });
        let Some(binding) = &managed.binding else {
            (it.verdict, it.summary) = (Verdict::Invalid, "its annotation is not valid".to_owned());
            return it;
        };
        let Some(dn) = managed.bound_epg(rules) else {
            it.verdict = Verdict::NotAllowed;
            it.summary = format!("no --allow rule lets namespace {} use {}", key.namespace, binding.epg);
            return it;
        };
        it.allowed_by = rules.admitted_by(&key.namespace, dn);
        if managed.record.paused {
            it.paused_by.push(managed.workload().to_string());
        }
        it.l3out = Some(self.l3out_part(&dn.l3out));
        it.epg = Some(self.epg_part(dn));
        self.add_addresses(&mut it, managed, dn, shown);
        self.conclude(&mut it, managed);
        it.limited()
    }

    fn add_addresses(&self, it: &mut Explanation, managed: &ManagedWorkload, dn: &EpgDn, shown: Shown<'_>) {
        let sources = self.sources(managed, shown);
        for (address, from) in &sources.exposed {
            it.addresses.extend(from.first().map(|source| self.desired_address(dn, *address, source)));
        }
        it.not_exposed = sources.not_exposed;
        // Subnets in the EPG that were made for Pods and Services of this namespace, and that nothing calls for now.
        let namespace = &managed.key().namespace;
        let exposed: BTreeSet<String> = it.addresses.iter().map(|it| it.prefix.clone()).collect();
        let is_own = |from: &ObjectPart| from.namespace == **namespace && shown.has(&from.name);
        let mut surplus = self.surplus(dn);
        surplus.retain(|it| it.from.as_ref().is_some_and(is_own) && !exposed.contains(&it.prefix));
        it.addresses.extend(surplus);
    }

    /// The state of an address that a workload exposes.
    fn desired_address(&self, dn: &EpgDn, address: IpAddr, source: &Source) -> AddressPart {
        let prefix = Prefix::host(address);
        let desired = self.input.desired.epgs.get(dn);
        if let Some(subnet) = desired.and_then(|it| it.subnets.get(&prefix)) {
            return AddressPart { from: Some(ObjectPart::source(source)), ..self.address_part(dn, prefix, subnet) };
        }
        // S3: another workload has it in another EPG of the VRF.
        let others = self.desired_in.get(&(self.placement.vrf(dn), prefix)).into_iter().flatten();
        let winner = others
            .filter_map(|other| Some((*other, self.input.desired.epgs.get(*other)?.subnets.get(&prefix)?)))
            .next();
        let (code, holder, reason) = match (self.block(dn), winner) {
            (Some((code, reason)), _) => (Some(code), None, reason.to_owned()),
            (None, Some((other, subnet))) => {
                let text = format!("{} has it in {other} (same VRF)", subnet.workload);
                (Some(Code::AddressConflict), Some(other.to_string()), text)
            }
            (None, None) => (None, None, String::new()),
        };
        let is_there = self.input.fabric.epg(dn).is_some_and(|it| it.subnets.contains_key(&prefix));
        AddressPart {
            prefix: prefix.to_string(),
            from: Some(ObjectPart::source(source)),
            epg: dn.to_string(),
            state: if is_there { AddressState::Different } else { AddressState::Missing },
            code,
            holder,
            reason,
        }
    }

    /// The verdict and the sentence, from the parts.
    fn conclude(&self, it: &mut Explanation, managed: &ManagedWorkload) {
        let wanted = it.addresses.iter().filter(|it| it.state != AddressState::Surplus);
        let (all, there) = (wanted.clone().count(), wanted.filter(|it| it.state != AddressState::Missing).count());
        // What is left of others in a shared EPG is not about this one.
        let is_shared = it.epg.as_ref().is_some_and(|it| it.workloads_total > 1);
        let counts = |it: &&AddressPart| !is_shared || it.state != AddressState::Surplus;
        let of_addresses = it.addresses.iter().filter(counts).map(|it| it.verdict(self.look.policy)).max();
        let of_others = it.not_exposed.iter().map(NotExposedPart::verdict).max();
        let of_epg = it.epg.as_ref().map_or(Verdict::InSync, |epg| self.epg_verdict(epg));
        it.verdict = of_epg.max(of_addresses.unwrap_or(Verdict::InSync)).max(of_others.unwrap_or(Verdict::InSync));
        if managed.record.paused && it.verdict != Verdict::InSync {
            it.verdict = Verdict::Paused;
        }
        it.summary = match (all, it.not_exposed.len()) {
            (0, 0) => "it has no address".to_owned(),
            (0, _) => "none of its addresses is exposed".to_owned(),
            (1, _) => format!("its address is {}in the fabric", if there == 1 { "" } else { "not " }),
            _ => format!("{there} of {all} addresses are in the fabric"),
        };
        if all == 0 && it.verdict == Verdict::InSync {
            // Pods that it should have are not found yet (P1), or it exposes nothing, and so calls for nothing.
            it.verdict =
                if managed.record.has_replicas && it.not_exposed.is_empty() && managed.exposed(self.input.rules).pods {
                    self.pending()
                } else {
                    Verdict::NotDesired
                };
        }
    }
}

/// What an explanation of a workload is narrowed to.
#[derive(Clone, Copy)]
pub(super) enum Shown<'a> {
    All,
    Pod(&'a Pod),
    Service(&'a Service),
}

impl Shown<'_> {
    /// Whether a Pod or Service of this name is shown.
    fn has(self, name: &str) -> bool {
        match self {
            Shown::All => true,
            Shown::Pod(it) => *it.key.name == *name,
            Shown::Service(it) => *it.key.name == *name,
        }
    }
}
