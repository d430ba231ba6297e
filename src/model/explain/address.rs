//! Explains an address: who has it in the cluster, which EPG has it, and if none does, which prefix classifies its traffic.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use super::{AddressState, ClaimPart, Explainer, Explanation, HolderPart, ObjectPart, SubjectPart, Verdict, relations};
use crate::model::deletion_causes::sources_of;
use crate::model::dn::{EpgDn, ParsedDn, Prefix};
use crate::model::inventory::ManagedWorkload;
use crate::model::kubernetes::Kind;
use crate::model::observed::{Epg, Subnet};
use crate::model::owner::Ownership;
use crate::model::rules::{Cidr, Exposed};
use crate::model::scope::{IMPORT_SECURITY, Scope};
use crate::model::source::Source;

impl Explainer<'_> {
    /// One address.
    pub(super) fn address(&self, address: IpAddr) -> Explanation {
        let prefix = Prefix::host(address);
        let about = SubjectPart::Address { kind: "Address", prefix: prefix.to_string() };
        let mut it = Explanation::new(about, Verdict::InSync, "");
        let sources = sources_of(self.input.inventory, HashSet::from([address])).remove(&address).unwrap_or_default();
        it.claims = self.claims(address, &sources);
        for (dn, epg) in &self.input.desired.epgs {
            if let Some(subnet) = epg.subnets.get(&prefix) {
                it.addresses.push(self.address_part(dn, prefix, subnet));
            }
        }
        let holders: Vec<(EpgDn, &Epg, &Subnet)> = self.holders(prefix).collect();
        for (dn, _, subnet) in holders.iter().filter(|it| it.2.ownership == Ownership::Owned) {
            let is_desired = self.input.desired.epgs.get(dn).is_some_and(|it| it.subnets.contains_key(&prefix));
            it.addresses.extend((!is_desired).then(|| self.surplus_part(dn, prefix, subnet)));
        }
        it.held_by = holders.iter().map(|(dn, epg, subnet)| self.holder_part(dn, prefix, epg, subnet)).collect();
        it.held_by.extend(self.elsewhere(prefix, &holders));
        if !it.held_by.iter().any(|it| it.classifies) {
            it.longest_match = self.longest_match(address);
        }
        let wanted = || it.addresses.iter().filter(|part| part.state != AddressState::Surplus);
        let (is_desired, is_missing) =
            (wanted().next().is_some(), wanted().any(|part| part.state == AddressState::Missing));
        let verdict = it.addresses.iter().map(|it| it.verdict(self.look.policy)).max();
        let place = match it.held_by.as_slice() {
            [] => String::new(),
            [holder] => format!("in {}", holder.epg),
            holders => format!("in {} EPGs", holders.len()),
        };
        let of_claims = self.of_claims(&sources).unwrap_or(Verdict::NotDesired);
        let of_parts = verdict.map(|it| it.max(if of_claims == Verdict::NotDesired { it } else { of_claims }));
        it.verdict = of_parts.unwrap_or(if it.held_by.iter().any(|it| it.owner != "owned") {
            of_claims.max(Verdict::NotManaged)
        } else {
            of_claims
        });
        it.summary = match (is_desired, it.held_by.is_empty()) {
            (true, true) => "desired, but not in the fabric".to_owned(),
            (true, false) if is_missing => format!("desired, but in the fabric elsewhere: {place}"),
            (true, false) => format!("desired, and in the fabric {place}"),
            (false, true) => "not desired, and not in the fabric".to_owned(),
            (false, false) => format!("not desired, but in the fabric {place}"),
        };
        it.limited()
    }

    /// What keeps the workloads that have an address from naming an EPG; nothing if none has it, or if all do.
    fn of_claims(&self, sources: &[Source]) -> Option<Verdict> {
        let inventory = self.input.inventory;
        let mut verdicts = Vec::new();
        for source in sources {
            if source.is_pod {
                let workload = inventory.pods.get(&source.key).and_then(|it| it.workload());
                verdicts.extend(workload.and_then(|it| inventory.managed.get(&it)).and_then(|it| self.unbound(it)));
            } else if let Some(service) = inventory.services.get(&source.key) {
                verdicts.extend(self.selected_by(service).filter_map(|it| self.unbound(it)));
            }
        }
        verdicts.into_iter().max()
    }

    /// The Pods and Services that have an address now; those in `sources` count.
    fn claims(&self, address: IpAddr, sources: &[Source]) -> Vec<ClaimPart> {
        let owner = sources.iter().find(|it| it.is_pod).map(|it| &it.key);
        let managed = &self.input.inventory.managed;
        let mut claims = Vec::new();
        for pod in self.pods().filter(|it| it.addresses.contains(&address)) {
            claims.push(ClaimPart {
                object: ObjectPart::of(Kind::Pod, &pod.key),
                terminating: pod.terminating,
                wins: owner == Some(&pod.key),
                managed: pod.workload().and_then(|it| managed.get(&it)).is_some_and(|it| self.exposes(it).pods),
            });
        }
        for service in self.services().filter(|it| it.addresses.contains(&address)) {
            claims.push(ClaimPart {
                object: ObjectPart::of(Kind::Service, &service.key),
                terminating: false,
                wins: service.load_balancer,
                managed: service.load_balancer && self.selected_by(service).any(|it| self.exposes(it).services),
            });
        }
        claims.sort_by(|a, b| (!a.wins, &a.object).cmp(&(!b.wins, &b.object)));
        claims
    }

    /// What a workload with a valid binding exposes; nothing without one.
    fn exposes(&self, managed: &ManagedWorkload) -> Exposed {
        if self.unbound(managed).is_some() { Exposed::default() } else { managed.exposed(self.input.rules) }
    }

    /// The subnets with this prefix in the L3Outs that were read.
    fn holders(&self, prefix: Prefix) -> impl Iterator<Item = (EpgDn, &Epg, &Subnet)> {
        self.input.fabric.epgs().filter_map(move |(dn, epg)| Some((dn, epg, epg.subnets.get(&prefix)?)))
    }

    /// The subnets with this prefix in other L3Outs.
    fn elsewhere(&self, prefix: Prefix, known: &[(EpgDn, &Epg, &Subnet)]) -> Vec<HolderPart> {
        let mut parts = Vec::new();
        for mo in self.look.subnets {
            let Some(ParsedDn::Subnet(dn, ip)) = ParsedDn::parse(&mo.dn) else { continue };
            if ip.parse() != Ok(prefix) || known.iter().any(|it| it.0 == dn) {
                continue;
            }
            let annotation = mo.attributes.annotation.as_deref().unwrap_or_default();
            parts.push(HolderPart {
                prefix: prefix.to_string(),
                epg: dn.to_string(),
                owner: self.input.fabric.owner().classify(annotation).name(),
                classifies: Scope::parse(mo.attributes.scope.as_deref().unwrap_or_default()).has_flag(IMPORT_SECURITY),
                vrf: self.vrf_dn(&dn.l3out),
                provided: None,
                consumed: None,
            });
        }
        parts
    }

    /// The longest prefix that holds the address and classifies traffic, in each VRF of the L3Outs that were read.
    fn longest_match(&self, address: IpAddr) -> Vec<HolderPart> {
        let mut longest: BTreeMap<usize, (u8, HolderPart)> = BTreeMap::new();
        for (dn, epg) in self.input.fabric.epgs() {
            let vrf = self.placement.vrf(&dn);
            for (prefix, subnet) in &epg.subnets {
                let is_longer = longest.get(&vrf).is_none_or(|(length, _)| *length < prefix.length);
                if is_longer && subnet.scope.has_flag(IMPORT_SECURITY) && Cidr::around(*prefix).contains(address) {
                    let part = self.holder_part(&dn, *prefix, epg, subnet);
                    longest.insert(vrf, (prefix.length, part));
                }
            }
        }
        longest.into_values().map(|it| it.1).collect()
    }

    fn holder_part(&self, dn: &EpgDn, prefix: Prefix, epg: &Epg, subnet: &Subnet) -> HolderPart {
        HolderPart {
            prefix: prefix.to_string(),
            epg: dn.to_string(),
            owner: subnet.ownership.name(),
            classifies: subnet.scope.has_flag(IMPORT_SECURITY),
            vrf: self.vrf_dn(&dn.l3out),
            provided: Some(relations(epg, "rsprov-")),
            consumed: Some(relations(epg, "rscons-")),
        }
    }
}
