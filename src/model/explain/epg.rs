//! Explains EPGs and the subnets in them: what is desired there, what is there, and what stands in the way.

use std::collections::BTreeMap;

use super::{
    AddressPart, AddressState, EpgPart, Explainer, Explanation, L3outPart, MAX_NAMED, ObjectPart, SubjectPart, Verdict,
    relations,
};
use crate::model::desired::{DesiredEpg, DesiredSubnet, Vrf};
use crate::model::dn::{EpgDn, L3outDn, ObjectDn, Prefix};
use crate::model::finding::Code;
use crate::model::observed::{Epg, L3out, Subnet};
use crate::model::owner::Ownership;
use crate::model::plan_findings::Holder;
use crate::model::planner::may_repair;
use crate::model::retained::{Reason, Unusable, why_unusable};
use crate::model::rules::Policy;
use crate::model::scope::IMPORT_SECURITY;
use crate::model::source::MAX_NAME;

impl Explainer<'_> {
    /// An EPG with all that is desired in it, and with what is there of ours and not desired.
    pub(super) fn epg(&self, dn: &EpgDn) -> Explanation {
        let about = SubjectPart::Fabric { kind: "EPG", dn: dn.to_string() };
        let mut it = Explanation::new(about, Verdict::InSync, "");
        it.l3out = Some(self.l3out_part(&dn.l3out));
        let mut part = self.epg_part(dn);
        let desired = self.input.desired.epgs.get(dn);
        if let Some(desired) = desired {
            it.addresses =
                desired.subnets.iter().map(|(prefix, subnet)| self.address_part(dn, *prefix, subnet)).collect();
        }
        it.addresses.extend(self.surplus(dn));
        let policy = self.look.policy;
        let of_addresses = it.addresses.iter().map(|it| it.verdict(policy)).max().unwrap_or(Verdict::InSync);
        (it.verdict, it.summary) = match (desired, self.input.fabric.epg(dn)) {
            (None, None) => (Verdict::Unknown, "no workload names it, and the APIC does not have it".to_owned()),
            (None, Some(epg)) if epg.ownership != Ownership::Owned => {
                (of_addresses.max(Verdict::NotManaged), "no workload names it, and it is not owned".to_owned())
            }
            (None, Some(epg)) => self.left_epg(&mut part, epg),
            (Some(desired), epg) => {
                let there = it.addresses.iter().filter(|it| it.is_there()).count();
                let text = match epg {
                    None => "it is not there".to_owned(),
                    Some(_) => format!("{there} of {} desired addresses are there", desired.subnets.len()),
                };
                (of_addresses.max(self.epg_verdict(&part)), text)
            }
        };
        it.epg = Some(part);
        it.limited()
    }

    /// An owned EPG that no workload names any more (D6).
    fn left_epg(&self, part: &mut EpgPart, epg: &Epg) -> (Verdict, String) {
        let is_foreign = |it: &Subnet| !matches!(it.ownership, Ownership::Owned | Ownership::Legacy);
        let foreign = epg.unreadable > 0 || epg.subnets.values().any(is_foreign);
        let has_contracts = self.input.rules.keep_contracted && !epg.relations.is_empty();
        let text = "no workload names it any more; ";
        if foreign || has_contracts {
            part.code = Some(Code::EpgRetained);
            let kept =
                if foreign { "foreign subnets in it keep it" } else { "its contracts keep it (--keep-contracted)" };
            return (Verdict::of(Code::EpgRetained), format!("{text}{kept}"));
        }
        match self.look.policy {
            Policy::UpsertOnly => (Verdict::NotDesired, format!("{text}--policy upsert-only keeps it")),
            _ => (self.pending(), format!("{text}it goes after its grace, unless something keeps it")),
        }
    }

    /// What an EPG that is desired means for its workloads.
    pub(super) fn epg_verdict(&self, epg: &EpgPart) -> Verdict {
        let fault = if epg.faults.is_some_and(|it| it > 0) { Verdict::of(Code::FabricFault) } else { Verdict::InSync };
        let own = match epg.code {
            Some(code) => Verdict::of(code),
            None if epg.state != "present" => self.pending(),
            None => Verdict::InSync,
        };
        own.max(fault)
    }

    /// One subnet of an EPG.
    pub(super) fn subnet(&self, dn: &EpgDn, prefix: Prefix) -> Explanation {
        let about = SubjectPart::Fabric { kind: "Subnet", dn: dn.subnet(&prefix.to_string()) };
        let mut it = Explanation::new(about, Verdict::InSync, "");
        (it.l3out, it.epg) = (Some(self.l3out_part(&dn.l3out)), Some(self.epg_part(dn)));
        let epg = self.input.fabric.epg(dn);
        let there = epg.and_then(|it| it.subnets.get(&prefix));
        let desired = self.input.desired.epgs.get(dn).and_then(|it| it.subnets.get(&prefix));
        let part = match (desired, there) {
            (Some(desired), _) => Some(self.address_part(dn, prefix, desired)),
            (None, Some(subnet)) if subnet.ownership == Ownership::Owned => Some(self.surplus_part(dn, prefix, subnet)),
            _ => None,
        };
        (it.verdict, it.summary) = match (&part, there) {
            (Some(part), _) => (part.verdict(self.look.policy), sentence(part)),
            (None, Some(subnet)) => {
                let owner = subnet.ownership.name();
                (
                    Verdict::NotManaged,
                    format!("it is there and {owner}, and nothing calls for it; aci-sync leaves it alone"),
                )
            }
            (None, None) if epg.is_none() && !self.input.desired.epgs.contains_key(dn) => {
                (Verdict::Unknown, "no workload names its EPG, and the APIC does not have that".to_owned())
            }
            (None, None) => (Verdict::NotDesired, "nothing calls for it, and it is not there".to_owned()),
        };
        it.addresses.extend(part);
        it
    }

    pub(super) fn l3out_part(&self, dn: &L3outDn) -> L3outPart {
        let state = match self.input.fabric.l3out(dn) {
            None => "unread",
            Some(L3out::Missing) => "missing",
            Some(L3out::Present { .. }) => "present",
        };
        L3outPart { dn: dn.to_string(), state, vrf: self.vrf_dn(dn) }
    }

    pub(super) fn vrf_dn(&self, dn: &L3outDn) -> Option<String> {
        match self.input.fabric.vrf(dn) {
            Vrf::Known(vrf) => Some(vrf),
            Vrf::Own(_) => None,
        }
    }

    pub(super) fn epg_part(&self, dn: &EpgDn) -> EpgPart {
        let (epg, desired) = (self.input.fabric.epg(dn), self.input.desired.epgs.get(dn));
        let is_ours_by_mark = |it: &Epg| it.ownership == Ownership::Owned || !it.belongs_to_us();
        let state = match (epg, self.input.fabric.l3out(&dn.l3out)) {
            (Some(epg), _) if desired.is_none() || is_ours_by_mark(epg) => "present",
            (Some(_), _) => "different",
            (None, Some(_)) => "missing",
            (None, None) => "unread",
        };
        let code = self.block(dn).map(|it| it.0);
        let workloads = desired.map_or(&[][..], |it| &it.workloads);
        EpgPart {
            dn: dn.to_string(),
            state,
            owner: epg.map(|it| (if it.was_owned { Ownership::Owned } else { it.ownership }).name()),
            workloads: workloads.iter().take(MAX_NAMED).map(ToString::to_string).collect(),
            workloads_total: workloads.len(),
            provided: epg.map_or(0, |it| relations(it, "rsprov-")),
            consumed: epg.map_or(0, |it| relations(it, "rscons-")),
            faults: self.look.faults.map(|it| it.get(dn).copied().unwrap_or_default()),
            // A pause leaves alone what is there.
            code: code.filter(|it| *it != Code::Paused || epg.is_none()),
        }
    }

    /// What keeps a desired EPG from being used (D5).
    pub(super) fn block(&self, dn: &EpgDn) -> Option<(Code, &'static str)> {
        let desired = self.input.desired.epgs.get(dn)?;
        why_unusable(self.input, dn, desired).map(|it| (self.code_of(dn, it), unusable_because(it)))
    }

    fn code_of(&self, dn: &EpgDn, reason: Unusable) -> Code {
        match reason {
            Unusable::BeyondQuota => Code::TooManyEpgs,
            Unusable::L3OutNotFound => Code::L3OutNotFound,
            Unusable::Paused => Code::Paused,
            Unusable::Refused => Code::ForeignEpgRefused,
            Unusable::ForeignEpgDeleted => Code::ForeignEpgDeleted,
            Unusable::LeftAlone if (self.input.is_throttled)(&ObjectDn::Epg(dn.clone())) => Code::WriterConflict,
            Unusable::LeftAlone | Unusable::Unread => Code::Rejected,
        }
    }

    /// The state of one desired subnet.
    pub(super) fn address_part(&self, dn: &EpgDn, prefix: Prefix, desired: &DesiredSubnet) -> AddressPart {
        let there = self.input.fabric.epg(dn).and_then(|it| it.subnets.get(&prefix));
        let (state, code, holder, reason) = match there {
            Some(subnet) => self.present(subnet, desired),
            None => {
                let (code, holder, reason) = self.why_missing(dn, prefix, desired);
                (AddressState::Missing, code, holder, reason)
            }
        };
        AddressPart {
            prefix: prefix.to_string(),
            from: Some(ObjectPart::source(&desired.source)),
            epg: dn.to_string(),
            state,
            code,
            holder: holder.map(|it| it.to_string()),
            reason,
        }
    }

    fn present(&self, subnet: &Subnet, desired: &DesiredSubnet) -> (AddressState, Option<Code>, Option<EpgDn>, String) {
        if !may_repair(subnet, desired) {
            if subnet.scope.has_flag(IMPORT_SECURITY) {
                return (AddressState::Present, None, None, "a foreign subnet serves".to_owned());
            }
            let text = format!("the foreign subnet lacks {IMPORT_SECURITY}");
            return (AddressState::Different, Some(Code::ForeignScope), None, text);
        }
        let is_owned = subnet.ownership == Ownership::Owned;
        let is_as_desired =
            is_owned && desired.source.is_named(&subnet.name) && subnet.scope.has(&self.input.rules.scope);
        if is_as_desired {
            return (AddressState::Present, None, None, String::new());
        }
        let classifies = subnet.scope.has_flag(IMPORT_SECURITY);
        match desired.paused {
            true if classifies => (AddressState::Present, None, None, String::new()),
            true => (AddressState::Different, Some(Code::Paused), None, format!("it lacks {IMPORT_SECURITY}")),
            false => (AddressState::Different, None, None, "owner annotation, name or scope differ".to_owned()),
        }
    }

    /// What stands in the way of a desired subnet.
    fn why_missing(
        &self,
        dn: &EpgDn,
        prefix: Prefix,
        desired: &DesiredSubnet,
    ) -> (Option<Code>, Option<EpgDn>, String) {
        if let Some((code, reason)) = self.block(dn) {
            return (Some(code), None, reason.to_owned());
        }
        if desired.paused {
            return (Some(Code::Paused), None, "its workload is paused".to_owned());
        }
        let waits = self.placement.waits_for_move(dn, prefix, desired).map(|(at, holder)| (at.clone(), holder));
        if let Some((at, holder)) = waits.or_else(|| self.holder(dn, prefix)) {
            let (code, text) = match holder {
                Holder::Foreign => (Code::ForeignSubnet, format!("{at} has it and it is foreign")),
                Holder::Paused => (Code::MovePending, format!("{at} has it, and its workload is paused")),
                Holder::Moves => (Code::MovePending, format!("{at} has it; it moves")),
                Holder::Blocked => (Code::DeletionsBlocked, format!("{at} has it; the move waits for approval")),
            };
            return (Some(code), Some(at), text);
        }
        let object = ObjectDn::Subnet(dn.clone(), prefix);
        if (self.input.is_throttled)(&object) {
            return (Some(Code::WriterConflict), None, "another writer keeps deleting it".to_owned());
        }
        if (self.input.is_deferred)(&object) {
            return (Some(Code::Rejected), None, "the APIC rejected it".to_owned());
        }
        (None, None, String::new())
    }

    /// What holds an address in another EPG of the VRF.
    fn holder(&self, dn: &EpgDn, prefix: Prefix) -> Option<(EpgDn, Holder)> {
        let holders = self.holders.get(&(self.placement.vrf(dn), prefix))?;
        holders.iter().max_by_key(|it| it.1).cloned()
    }

    /// The subnets of ours in an EPG that are not desired there, each with why it is still there.
    pub(super) fn surplus(&self, dn: &EpgDn) -> Vec<AddressPart> {
        let desired = self.input.desired.epgs.get(dn);
        let is_surplus = |(prefix, subnet): &(&Prefix, &Subnet)| {
            subnet.ownership == Ownership::Owned
                && desired.is_none_or(|it: &DesiredEpg| !it.subnets.contains_key(prefix))
        };
        let none = BTreeMap::new();
        let subnets = self.input.fabric.epg(dn).map_or(&none, |it: &Epg| &it.subnets);
        subnets.iter().filter(is_surplus).map(|(prefix, subnet)| self.surplus_part(dn, *prefix, subnet)).collect()
    }

    pub(super) fn surplus_part(&self, dn: &EpgDn, prefix: Prefix, subnet: &Subnet) -> AddressPart {
        let object = ObjectDn::Subnet(dn.clone(), prefix);
        let target = self.placement.target(dn, prefix);
        let (code, reason) = if let Some(retained) = self.placement.retained(dn, prefix, subnet) {
            let is_blocked = matches!(retained.reason, Reason::MoveBlocked(_));
            let code = if is_blocked { Code::DeletionsBlocked } else { Code::SubnetRetained };
            (Some(code), retained.reason.to_string())
        } else if let Some(target) = target {
            (Some(Code::MovePending), format!("it moves to {}", target.dn))
        } else if self.input.blocked.contains(&object) {
            (Some(Code::DeletionsBlocked), "its deletion waits for approval".to_owned())
        } else if (self.input.is_deferred)(&object) {
            (Some(Code::Rejected), "the APIC rejected its deletion".to_owned())
        } else {
            (None, if self.look.policy == Policy::Sync { "it is deleted" } else { "kept by --policy" }.to_owned())
        };
        // Whose it was is in its name (O1).
        let name: String = subnet.name.chars().take(MAX_NAME).collect();
        let from = name.split_once("::").map(|(namespace, name)| ObjectPart {
            kind: "Pod or Service".to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        });
        AddressPart {
            prefix: prefix.to_string(),
            from,
            epg: dn.to_string(),
            state: AddressState::Surplus,
            code,
            holder: target.map(|it| it.dn.to_string()),
            reason,
        }
    }
}

fn unusable_because(reason: Unusable) -> &'static str {
    match reason {
        Unusable::BeyondQuota => "its EPG exceeds --max-epgs",
        Unusable::Unread => "its L3Out could not be read",
        Unusable::L3OutNotFound => "its L3Out is missing",
        Unusable::Paused => "all workloads that name its EPG are paused",
        Unusable::LeftAlone => "its EPG is deferred after a rejection or a conflict",
        Unusable::Refused => "its EPG is foreign, and --foreign-epg is refuse",
        Unusable::ForeignEpgDeleted => "its EPG is foreign and was deleted",
    }
}

/// The state of an address in one sentence.
fn sentence(part: &AddressPart) -> String {
    let state = match part.state {
        AddressState::Present => "it is there as desired",
        AddressState::Different => "it is there, not as desired",
        AddressState::Missing => "it is desired and not there",
        AddressState::Surplus => "it is there and not desired",
    };
    if part.reason.is_empty() { state.to_owned() } else { format!("{state}: {}", part.reason) }
}
