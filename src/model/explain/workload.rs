//! Explains Deployments, and Pods and Services by their place in the Deployments that expose them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::sources::Sources;
use super::{About, AddressPart, AddressState, AnnotationPart, Explainer, Explanation, ObjectPart, Verdict};
use crate::model::dn::{EpgDn, Prefix};
use crate::model::finding::Code;
use crate::model::inventory::ManagedDeployment;
use crate::model::kubernetes::{Key, Kind, Labels, Object, Pod, Service};
use crate::model::rules::Policy;
use crate::model::source::Source;

/// The most Deployments that a Service is explained for.
const MAX_WORKLOADS: usize = 100;

impl Explainer<'_> {
    /// Every object of this name, or the one of this kind.
    pub(super) fn named(&self, kind: Option<Kind>, key: &Key) -> Vec<Explanation> {
        let mut all = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|it| kind.is_none_or(|kind| kind == *it)) {
            match kind {
                Kind::Deployment => all.extend(self.deployment(key)),
                Kind::Pod => all.extend(self.pods().find(|it| it.key == *key).map(|it| self.pod(it))),
                Kind::Service => {
                    all.extend(self.services().find(|it| it.key == *key).into_iter().flat_map(|it| self.service(it)));
                }
            }
        }
        if all.is_empty() {
            let what = kind.map_or("Deployment, Pod or Service".to_owned(), |it| it.to_string());
            let summary = format!("no {what} of this name in the namespace {}", key.namespace);
            let about = About::object(kind.unwrap_or(Kind::Deployment), key);
            all.push(Explanation::new(about, Verdict::Unknown, summary));
        }
        all
    }

    fn deployment(&self, key: &Key) -> Option<Explanation> {
        let about = About::object(Kind::Deployment, key);
        if let Some(managed) = self.input.inventory.managed.get(key) {
            return Some(self.workload(about, managed, &|_| true));
        }
        let is_unneeded = |it: &Object| it.kind() == Kind::Deployment && it.key() == key;
        let is_listed =
            self.input.inventory.misannotated.contains_key(key) || self.look.unneeded.iter().any(is_unneeded);
        is_listed.then(|| Explanation::new(about, Verdict::NotManaged, "it has no binding annotation"))
    }

    fn pod(&self, pod: &Pod) -> Explanation {
        let about = About::object(Kind::Pod, &pod.key);
        let Some(name) = &pod.deployment else {
            return Explanation::new(about, Verdict::NotManaged, "it belongs to no Deployment");
        };
        let key = Key { namespace: pod.key.namespace.clone(), name: name.clone() };
        let Some(managed) = self.input.inventory.managed.get(&key) else {
            let summary = format!("its Deployment {key} is gone or not annotated");
            return Explanation::new(about, Verdict::NotManaged, summary);
        };
        let own = ObjectPart::of(Kind::Pod, &pod.key);
        self.workload(about, managed, &|it| *it == own)
    }

    /// One explanation for each managed Deployment that the Service selects.
    fn service(&self, service: &Service) -> Vec<Explanation> {
        let about = About::object(Kind::Service, &service.key);
        let selected = self.selected_by(service);
        let own = ObjectPart::of(Kind::Service, &service.key);
        if selected.is_empty() {
            return vec![Explanation::new(about, Verdict::NotManaged, "it selects no managed Deployment")];
        }
        selected.iter().take(MAX_WORKLOADS).map(|it| self.workload(about.clone(), it, &|it| *it == own)).collect()
    }

    /// The managed Deployments that a Service selects (S1), whatever its type.
    pub(super) fn selected_by(&self, service: &Service) -> Vec<&ManagedDeployment> {
        if service.selector.is_empty() {
            return Vec::new();
        }
        let namespace = &service.key.namespace;
        let selects = |labels: &Labels| service.selector.select(labels);
        let pods =
            self.input.inventory.pods.values().filter(|it| it.key.namespace == *namespace && selects(&it.labels));
        let owners: std::collections::HashSet<&str> = pods.filter_map(|it| it.deployment.as_deref()).collect();
        let all = self.input.inventory.managed.values().filter(|it| it.deployment.key.namespace == *namespace);
        all.filter(|it| selects(&it.deployment.template_labels) || owners.contains(&*it.deployment.key.name)).collect()
    }

    /// The chain of a Deployment, in the order in which it can break: annotation, allowed, L3Out, EPG, addresses.
    /// `is_shown` narrows it to one Pod or Service.
    fn workload(
        &self,
        about: About,
        managed: &ManagedDeployment,
        is_shown: &dyn Fn(&ObjectPart) -> bool,
    ) -> Explanation {
        let (key, rules) = (&managed.deployment.key, self.input.rules);
        let mut it = Explanation::new(about, Verdict::InSync, "");
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
        if managed.deployment.paused {
            it.paused_by.push(managed.workload().to_string());
        }
        it.l3out = Some(self.l3out_part(&dn.l3out));
        it.epg = Some(self.epg_part(dn));
        let sources = self.sources(managed);
        self.add_addresses(&mut it, managed, dn, sources, is_shown);
        self.conclude(&mut it, managed);
        it.limited()
    }

    fn add_addresses(
        &self,
        it: &mut Explanation,
        managed: &ManagedDeployment,
        dn: &EpgDn,
        sources: Sources,
        is_shown: &dyn Fn(&ObjectPart) -> bool,
    ) {
        for (address, from) in &sources.exposed {
            if let Some(source) = from.iter().find(|it| is_shown(&ObjectPart::source(it))) {
                it.addresses.push(self.desired_address(dn, *address, source));
            }
        }
        it.not_exposed = sources.not_exposed.into_iter().filter(|it| is_shown(&it.object)).collect();
        // Subnets in the EPG that were made for Pods and Services of this namespace, and that nothing calls for now.
        let namespace = &managed.deployment.key.namespace;
        let exposed: BTreeSet<String> = it.addresses.iter().map(|it| it.prefix.clone()).collect();
        let is_own = |from: &ObjectPart| from.namespace == **namespace && is_shown(from);
        let mut surplus = self.surplus(dn);
        surplus.retain(|it| it.from.as_ref().is_some_and(is_own) && !exposed.contains(&it.prefix));
        it.addresses.extend(surplus);
    }

    /// The state of an address that a Deployment exposes.
    fn desired_address(&self, dn: &EpgDn, address: IpAddr, source: &Source) -> AddressPart {
        let prefix = Prefix::host(address);
        let desired = self.input.desired.epgs.get(dn);
        if let Some(subnet) = desired.and_then(|it| it.subnets.get(&prefix)) {
            return AddressPart { from: Some(ObjectPart::source(source)), ..self.address_part(dn, prefix, subnet) };
        }
        // S3: an older Deployment has it in another EPG of the VRF.
        let vrf = self.placement.vrf(dn);
        let others = self.input.desired.epgs.iter().filter(|(other, _)| self.placement.vrf(other) == vrf);
        let winner = others.filter_map(|(other, it)| Some((other, it.subnets.get(&prefix)?))).next();
        let (code, holder, reason) = match winner {
            Some((other, subnet)) => {
                let text = format!("older {} has it in {other} (same VRF)", subnet.workload);
                (Some(Code::AddressConflict), Some(other.to_string()), text)
            }
            None => (None, None, String::new()),
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
    fn conclude(&self, it: &mut Explanation, managed: &ManagedDeployment) {
        let wanted = it.addresses.iter().filter(|it| it.state != AddressState::Surplus);
        let (all, there) = (
            wanted.clone().count(),
            wanted.filter(|it| matches!(it.state, AddressState::Present | AddressState::Different)).count(),
        );
        let policy = self.look.policy;
        let of_addresses = it.addresses.iter().map(|it| it.verdict(policy)).max().unwrap_or(Verdict::InSync);
        let of_epg = match &it.epg {
            Some(epg) if epg.code.is_some() => epg.code.map_or(Verdict::InSync, Verdict::of),
            Some(epg) if epg.state != "present" && policy == Policy::Observe => Verdict::Observing,
            Some(epg) if epg.state != "present" => Verdict::Pending,
            _ => Verdict::InSync,
        };
        it.verdict = of_addresses.max(of_epg);
        if managed.deployment.paused && it.verdict != Verdict::InSync {
            it.verdict = Verdict::Paused;
        }
        it.summary = match (all, it.not_exposed.len()) {
            (0, 0) => "it has no address".to_owned(),
            (0, _) => "none of its addresses is exposed".to_owned(),
            (1, _) => format!("its address is {}in the fabric", if there == 1 { "" } else { "not " }),
            _ => format!("{there} of {all} addresses are in the fabric"),
        };
        // A Pod or Service that exposes nothing, and whose Deployment is in sync otherwise, calls for nothing.
        if all == 0 && it.verdict == Verdict::InSync && !it.not_exposed.is_empty() {
            it.verdict = Verdict::NotDesired;
        }
    }
}
