//! Plans of whatever a cluster and a fabric may hold: an input is a line for each object of Kubernetes and for each
//! answer of an APIC. What must hold of any plan is checked, not which one is right; that is the simulation's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use aci_sync::apic;
use aci_sync::kube::objects;
use aci_sync::model::cache::FabricCache;
use aci_sync::model::desired::{desired_state, named_l3outs};
use aci_sync::model::dn::{L3outDn, ParsedDn};
use aci_sync::model::inventory::Inventory;
use aci_sync::model::kubernetes::Kind;
use aci_sync::model::mo::{Attributes, Mo};
use aci_sync::model::owner::{OwnerIdentity, Ownership};
use aci_sync::model::plan::{Change, describe};
use aci_sync::model::plan_input::{Moves, PlanInput};
use aci_sync::model::planner::plan;
use aci_sync::model::quota::Quota;
use aci_sync::model::rules::{Allow, Rules};

use crate::targets::check_text;

/// A longer text is cut, be it a finding's or an Event's (X3).
const MAX_LENGTH: usize = 1024;

/// Worlds of a few lines.
pub fn seeds() -> Vec<Vec<u8>> {
    let worlds = include_str!("seeds/worlds.txt").split("\n\n");
    worlds.map(|it| it.as_bytes().to_vec()).collect()
}

/// A plan ends, creates nothing but addresses of the cluster in EPGs that a Deployment names, and deletes nothing
/// foreign.
pub fn plans(input: &[u8]) {
    let mut inventory = Inventory::watching(&Kind::ALL);
    Kind::ALL.iter().for_each(|kind| inventory.listed(*kind, Vec::new(), Instant::now()));
    let mut mos: Vec<Mo> = Vec::new();
    for line in input.split(|it| *it == b'\n') {
        let kinds = Kind::ALL.iter().filter(|kind| line.windows(20).any(|it| is_kind(it, **kind)));
        for object in kinds.filter_map(|kind| objects::decode(*kind, line).ok()) {
            inventory.upsert(object);
        }
        mos.extend(apic::decode::read(200, line).map(|it| it.mos).unwrap_or_default());
    }
    let allow = vec![Allow::parse("a*=T/L/E*").unwrap()];
    let limited = Rules { allow, use_foreign: false, max_epgs: Some(1), ..Rules::default() };
    for rules in [Rules::default(), limited] {
        check(&inventory, &mos, &rules);
    }
}

fn is_kind(text: &[u8], kind: Kind) -> bool {
    text.starts_with(format!("\"kind\":\"{kind}\"").as_bytes())
}

fn check(inventory: &Inventory, mos: &[Mo], rules: &Rules) {
    let mut fabric = FabricCache::new(OwnerIdentity::new("me", &[]));
    let beyond = Quota::default().beyond(inventory, rules, |_| false);
    let l3out = |mo: &Mo| match ParsedDn::parse(&mo.dn)? {
        ParsedDn::L3out(dn) | ParsedDn::Tag(dn, _) | ParsedDn::BelowL3out(dn) => Some(dn),
        ParsedDn::Epg(dn) | ParsedDn::Subnet(dn, _) | ParsedDn::BelowEpg(dn) => Some(dn.l3out),
    };
    let mut l3outs: BTreeSet<L3outDn> = named_l3outs(inventory, rules, &beyond);
    l3outs.extend(mos.iter().filter_map(l3out));
    for dn in &l3outs {
        let mut own: Vec<Mo> = mos.iter().filter(|mo| l3out(mo).as_ref() == Some(dn)).cloned().collect();
        if !own.len().is_multiple_of(3) {
            let attributes = Attributes { target_dn: Some("uni/tn-T/ctx-V".into()), ..Attributes::default() };
            own.push(Mo { class: "l3extRsEctx".to_owned(), dn: format!("{dn}/rsectx"), attributes });
        }
        fabric.put_l3out(dn, &own, false);
    }
    let (held, untagged) = (BTreeSet::new(), BTreeMap::new());
    for round in 0.. {
        let desired = desired_state(inventory, rules, &|dn| fabric.vrf(dn), &beyond);
        let input = PlanInput {
            desired: &desired,
            inventory,
            fabric: &fabric,
            rules,
            may_delete: true,
            grace: None,
            is_grace_over: &|_| true,
            is_deferred: &|_| false,
            is_throttled: &|_| false,
            blocked: &held,
            moves: Moves::Free,
            whole: false,
            tag_failures: &untagged,
        };
        let (plan, whole) = (plan(&input), plan(&PlanInput { whole: true, ..input }));
        assert!(plan.is_same(&whole), "R6: {plan:?}\nis not {whole:?}");

        for finding in desired.findings.iter().chain(&plan.findings) {
            check_text(&finding.to_string(), MAX_LENGTH + 512);
            check_text(finding.note(), MAX_LENGTH);
        }
        assert!(describe(&plan.transactions).lines().all(|line| !line.contains(char::is_control)));
        fabric.settle(&plan.settled);
        if plan.transactions.is_empty() {
            break;
        }
        assert!(round < 12, "no end:\n{}", describe(&plan.transactions));
        for transaction in &plan.transactions {
            let epg = fabric.epg(&transaction.epg);
            for change in &transaction.changes {
                let subnet = change.prefix().and_then(|it| epg?.subnets.get(&it));
                match change {
                    Change::CreateSubnet { prefix, source, .. } => {
                        assert!(subnet.is_none() && desired.epgs[&transaction.epg].subnets.contains_key(prefix));
                        assert!(rules.refuses(prefix.address).is_none() && source.subnet_name().chars().count() <= 63);
                    }
                    Change::CreateEpg { .. } => {
                        assert!(epg.is_none() && desired.epgs.contains_key(&transaction.epg));
                    }
                    Change::DeleteSubnet { .. } => {
                        assert!(subnet.is_some_and(|it| matches!(it.ownership, Ownership::Owned | Ownership::Legacy)));
                    }
                    Change::DeleteEpg { .. } => assert!(epg.is_some_and(|it| it.ownership == Ownership::Owned
                        && it.subnets.values().all(|it| it.ownership == Ownership::Owned)
                        && it.unreadable == 0)),
                    _ => {}
                }
            }
            fabric.apply(transaction);
        }
    }
}
