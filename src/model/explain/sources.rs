//! Which Pods and Services a workload exposes, and why it does not expose the others of its namespace that could count.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use super::workload::Shown;
use super::{Explainer, NotExposed, NotExposedPart, ObjectPart};
use crate::model::deletion_causes::sources_of;
use crate::model::finding::Code;
use crate::model::inventory::ManagedWorkload;
use crate::model::kubernetes::{Key, Kind, Labels, Object, Pod, Service, WorkloadRecord};
use crate::model::source::Source;

/// What a workload exposes, and what not.
#[derive(Default)]
pub(super) struct Sources {
    /// Each address with the Pods and Services that it comes from.
    pub(super) exposed: BTreeMap<IpAddr, Vec<Source>>,
    pub(super) not_exposed: Vec<NotExposedPart>,
}

impl Sources {
    fn refuse(&mut self, kind: Kind, key: &Key, reason: NotExposed, text: impl Into<String>) {
        let (object, text) = (ObjectPart::of(kind, key), text.into());
        let code = (reason == NotExposed::InvalidAddress).then_some(Code::InvalidAddress);
        let is_pending = reason == NotExposed::NoAddress;
        self.not_exposed.push(NotExposedPart { object, reason, text, code, is_pending });
    }
}

impl<'a> Explainer<'a> {
    /// The Pods of a workload, and the Services of its namespace that select it or could (P1 to P6, S1).
    pub(super) fn sources(&self, managed: &ManagedWorkload, shown: Shown<'_>) -> Sources {
        let key = managed.key();
        let is_own = |pod: &&Pod| pod.workload().as_ref() == Some(managed.workload());
        let (mut pods, mut services): (Vec<&Pod>, Vec<&Service>) = match shown {
            Shown::All => {
                let services = self.services().filter(|it| it.key.namespace == key.namespace);
                (self.pods().filter(is_own).collect(), services.collect())
            }
            Shown::Pod(pod) => (vec![pod], Vec::new()),
            Shown::Service(service) => (Vec::new(), vec![service]),
        };
        pods.sort_by(|a, b| a.key.cmp(&b.key));
        services.sort_by(|a, b| a.key.cmp(&b.key));

        let addresses: HashSet<IpAddr> = pods.iter().flat_map(|it| it.addresses.iter().copied()).collect();
        let owners = sources_of(self.input.inventory, addresses);
        let mut sources = Sources::default();
        for pod in &pods {
            self.add_pod(&mut sources, managed, pod, &owners);
        }
        for service in services {
            self.add_service(&mut sources, managed, service);
        }
        sources
    }

    /// All Pods that were listed.
    pub(super) fn pods(&self) -> impl Iterator<Item = &'a Pod> {
        let unneeded = self.look.unneeded.iter().filter_map(|it| match it {
            Object::Pod(it) => Some(&**it),
            _ => None,
        });
        self.input.inventory.pods.iter().chain(unneeded)
    }

    /// All Services that were listed.
    pub(super) fn services(&self) -> impl Iterator<Item = &'a Service> {
        let unneeded = self.look.unneeded.iter().filter_map(|it| match it {
            Object::Service(it) => Some(&**it),
            _ => None,
        });
        self.input.inventory.services.values().chain(unneeded)
    }

    fn add_pod(
        &self,
        sources: &mut Sources,
        managed: &ManagedWorkload,
        pod: &Pod,
        owners: &HashMap<IpAddr, Vec<Source>>,
    ) {
        let (key, rules) = (&pod.key, self.input.rules);
        if pod.terminal {
            return sources.refuse(Kind::Pod, key, NotExposed::Phase, "it has ended (Succeeded or Failed)");
        }
        if pod.host_network {
            return sources.refuse(Kind::Pod, key, NotExposed::HostNetwork, "hostNetwork: its address is the node's");
        }
        if !managed.exposed(rules).pods {
            let text = format!("the {} does not expose its Pods", managed.workload().kind);
            return sources.refuse(Kind::Pod, key, NotExposed::Expose, text);
        }
        if let Some(quote) = &pod.unreadable {
            sources.refuse(Kind::Pod, key, NotExposed::InvalidAddress, format!("invalid address {quote}"));
        } else if pod.addresses.is_empty() && !pod.terminating {
            sources.refuse(Kind::Pod, key, NotExposed::NoAddress, "it has no address yet");
        }
        for address in pod.addresses.iter() {
            let owner = owners.get(address).and_then(|it| it.iter().find(|it| it.is_pod));
            if let Some(owner) = owner.filter(|it| it.key != *key) {
                let text = format!("{address} belongs to {owner} now");
                sources.refuse(Kind::Pod, key, NotExposed::BelongsToAnother, text);
                let is_own =
                    self.input.inventory.pods.get(&owner.key).is_some_and(|it| it.workload() == pod.workload());
                if !is_own && !pod.terminating {
                    sources.not_exposed.last_mut().into_iter().for_each(|it| it.code = Some(Code::AddressClaimed));
                }
            } else if let Some(why) = rules.refuses(*address) {
                sources.refuse(Kind::Pod, key, NotExposed::Address, format!("{address} is never exposed: {why}"));
            } else {
                sources.exposed.entry(*address).or_default().push(Source::pod(key));
            }
        }
    }

    fn add_service(&self, sources: &mut Sources, managed: &ManagedWorkload, service: &Service) {
        let (key, rules) = (&service.key, self.input.rules);
        let has_selector = !service.selector.is_empty();
        let selects = self.selected_by(service).any(|it| it.workload() == managed.workload());
        if !service.load_balancer {
            if selects {
                sources.refuse(Kind::Service, key, NotExposed::Type, "its type is not LoadBalancer");
            }
            return;
        }
        if !has_selector {
            return sources.refuse(Kind::Service, key, NotExposed::NoSelector, "it has no selector");
        }
        if !selects {
            let text = difference(&service.selector, &managed.record);
            return sources.refuse(Kind::Service, key, NotExposed::Selector, text);
        }
        if !managed.exposed(rules).services {
            let text = format!("the {} does not expose its Services", managed.workload().kind);
            return sources.refuse(Kind::Service, key, NotExposed::Expose, text);
        }
        if service.hostname_only {
            sources.refuse(Kind::Service, key, NotExposed::HostnameOnly, "its load balancer has a host name only");
        } else if let Some(quote) = &service.unreadable {
            sources.refuse(Kind::Service, key, NotExposed::InvalidAddress, format!("invalid address {quote}"));
        } else if service.addresses.is_empty() {
            sources.refuse(Kind::Service, key, NotExposed::NoAddress, "its load balancer has no address yet");
        }
        for address in &service.addresses {
            if let Some(why) = rules.refuses(*address) {
                sources.refuse(Kind::Service, key, NotExposed::Address, format!("{address} is never exposed: {why}"));
            } else {
                sources.exposed.entry(*address).or_default().push(Source::service(key));
            }
        }
    }
}

/// The first key by which a selector does not select the labels of a workload's template.
fn difference(selector: &Labels, workload: &WorkloadRecord) -> String {
    let (kind, labels) = (workload.id.kind, &workload.template_labels);
    let differs = selector.iter().find(|(key, value)| labels.get(key) != Some(value));
    let Some((key, value)) = differs else { return format!("its selector selects no Pod of the {kind}") };
    match labels.get(key) {
        Some(own) => format!("its selector wants {key}={value:?}, and the {kind}'s Pods have {own:?}"),
        None => format!("its selector wants {key}={value:?}, and the {kind}'s Pods have no such label"),
    }
}
