//! What the fabric finds out about a configuration that it has accepted: relations that lead nowhere, and F0467, the
//! fault about one prefix in two external EPGs of a VRF.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::classes::Class;
use super::dn;
use super::rules;
use super::tree::{Attributes, Mo, Transaction, Tree};
use super::variants::{HostBits, Variants};

/// An F0467 that was raised: this EPG could not have this prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PrefixInUse {
    /// The DN of the EPG.
    pub epg: String,
    /// The prefix that another EPG of the VRF holds.
    pub prefix: String,
}

/// Who holds which prefix, and the faults raised about it.
#[derive(Debug, Default)]
pub struct Conflicts {
    /// Subnets with `import-security` by prefix.
    holders: HashMap<String, BTreeSet<String>>,
    /// Prefixes that an EPG cannot have, by EPG.
    raised: BTreeMap<String, BTreeSet<String>>,
    /// All that was ever raised.
    history: Vec<PrefixInUse>,
}

/// Relations: class, the property with the target's name, the target's prefix.
const RELATIONS: &[(&str, &str, &str)] = &[
    ("l3extRsEctx", "tnFvCtxName", "ctx-"),
    ("fvRsCons", "tnVzBrCPName", "brc-"),
    ("fvRsProv", "tnVzBrCPName", "brc-"),
    ("fvRsIntraEpg", "tnVzBrCPName", "brc-"),
];

/// Resolves the relations whose ends were touched: in the own tenant, else in `common`, else nowhere.
pub fn resolve_relations(tx: &mut Transaction<'_>) {
    let touched: Vec<String> = tx.touched().map(str::to_owned).collect();
    let class_of = |tx: &Transaction<'_>, dn: &str| tx.tree().get(dn).or(tx.before(dn)).map(|it| it.class.name);
    let classes: BTreeSet<&str> = touched.iter().filter_map(|dn| class_of(tx, dn)).collect();
    for (class, property, prefix) in RELATIONS {
        let target_touched =
            (*prefix == "ctx-" && classes.contains("fvCtx")) || (*prefix == "brc-" && classes.contains("vzBrCP"));
        let concerned: Vec<String> = if target_touched {
            tx.tree().of_class(class).map(|(dn, _)| dn.to_owned()).collect()
        } else {
            touched.iter().filter(|dn| tx.tree().get(dn).is_some_and(|it| it.class.name == *class)).cloned().collect()
        };
        for dn in concerned {
            let target = target(tx.tree(), &dn, property, prefix);
            let state = if target.is_empty() { "missing-target" } else { "formed" };
            tx.set(&dn, "tDn", target);
            tx.set(&dn, "state", state.to_owned());
        }
    }
}

fn target(tree: &Tree, dn: &str, property: &str, prefix: &str) -> String {
    let name = tree.get(dn).map_or("", |mo| mo.get(property));
    let tenants = [dn::tenant(dn).unwrap_or_default(), "uni/tn-common".to_owned()];
    let candidates = tenants.into_iter().map(|tenant| format!("{tenant}/{prefix}{name}"));
    if name.is_empty() {
        String::new()
    } else {
        candidates.into_iter().find(|it| tree.get(it).is_some()).unwrap_or_default()
    }
}

impl Conflicts {
    /// Raises and clears F0467 after what was touched. Nothing may fail after this.
    pub fn update(&mut self, tx: &mut Transaction<'_>, retains: bool, sequence: &mut u64) {
        let touched: Vec<String> = tx.touched().map(str::to_owned).collect();
        let mut prefixes = BTreeSet::new();
        let mut bindings_changed = false;
        for dn in touched {
            let class = tx.tree().get(&dn).or(tx.before(&dn)).map_or("", |it| it.class.name);
            bindings_changed |= matches!(class, "l3extRsEctx" | "fvCtx");
            if class != "l3extSubnet" {
                continue;
            }
            let (was, is) = (tx.before(&dn).and_then(held), tx.tree().get(&dn).and_then(held));
            if let Some(prefix) = &was {
                self.holders.entry(prefix.clone()).or_default().remove(&dn);
            }
            if let Some(prefix) = &is {
                self.holders.entry(prefix.clone()).or_default().insert(dn);
            }
            prefixes.extend(was.into_iter().chain(is));
        }
        self.holders.retain(|_, dns| !dns.is_empty());
        if bindings_changed {
            prefixes.extend(self.holders.iter().filter(|(_, dns)| dns.len() > 1).map(|(prefix, _)| prefix.clone()));
            prefixes.extend(self.raised.values().flatten().cloned());
        }
        let mut changed = BTreeSet::new();
        for prefix in &prefixes {
            changed.extend(self.judge(tx.tree(), prefix));
        }
        for epg in changed {
            self.publish(tx, &epg, retains, sequence);
        }
    }

    /// The faults that stand now.
    pub fn standing(&self) -> Vec<PrefixInUse> {
        let all = self.raised.iter().flat_map(|(epg, prefixes)| prefixes.iter().map(move |prefix| (epg, prefix)));
        all.map(|(epg, prefix)| PrefixInUse { epg: epg.clone(), prefix: prefix.clone() }).collect()
    }

    /// All faults that were ever raised, also those that have gone.
    pub fn history(&self) -> &[PrefixInUse] {
        &self.history
    }

    /// Finds who cannot have this prefix: all but the first in each VRF. Returns the EPGs whose faults changed.
    fn judge(&mut self, tree: &Tree, prefix: &str) -> BTreeSet<String> {
        let mut by_vrf: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
        for dn in self.holders.get(prefix).into_iter().flatten() {
            let Some(mo) = tree.get(dn) else { continue };
            if let Some(vrf) = vrf(tree, &mo.parent) {
                by_vrf.entry(vrf).or_default().push((mo.sequence, mo.parent.clone()));
            }
        }
        let mut losers = BTreeSet::new();
        for holders in by_vrf.values_mut() {
            holders.sort();
            let winner = holders[0].1.clone();
            losers.extend(holders.drain(..).map(|it| it.1).filter(|it| *it != winner));
        }
        let mut changed = BTreeSet::new();
        for (epg, prefixes) in &mut self.raised {
            if !losers.contains(epg) && prefixes.remove(prefix) {
                changed.insert(epg.clone());
            }
        }
        for epg in losers {
            if self.raised.entry(epg.clone()).or_default().insert(prefix.to_owned()) {
                self.history.push(PrefixInUse { epg: epg.clone(), prefix: prefix.to_owned() });
                changed.insert(epg);
            }
        }
        self.raised.retain(|_, prefixes| !prefixes.is_empty());
        changed
    }

    /// One `faultInst` an EPG, as long as there is a prefix that it cannot have; then it goes, or is retained.
    fn publish(&self, tx: &mut Transaction<'_>, epg: &str, retains: bool, sequence: &mut u64) {
        let dn = fault_dn(epg);
        let Some(prefix) = self.raised.get(epg).and_then(|it| it.first()) else {
            if retains {
                tx.set(&dn, "severity", "cleared".to_owned());
                tx.set(&dn, "lc", "retaining".to_owned());
            } else {
                tx.remove(&dn);
            }
            return;
        };
        let detail = format!("Prefix entry sys/ctx-[vxlan-2621440]/pfx-[{prefix}] is in use;");
        raise(tx, epg, "prefix-entry-already-in-use", "Prefix Entry Already Used in Another EPG", &detail, sequence);
    }
}

/// The DN of an EPG's fault on a leaf. All causes share it: `configuration failed` is one fault.
fn fault_dn(epg: &str) -> String {
    format!("topology/pod-1/node-101/local/svc-policyelem-id-0/uni/epp/rtd-[{epg}]/nwissues/fault-F0467")
}

/// Raises F0467, whose texts are those of the examples in Cisco's ACI-Pre-Upgrade-Validation-Script.
pub fn raise(tx: &mut Transaction<'_>, epg: &str, cause: &str, words: &str, detail: &str, sequence: &mut u64) {
    let dn = fault_dn(epg);
    let (Some(class), Some((parent, rn))) = (Class::named("faultInst"), dn.rsplit_once('/')) else { return };
    let mut attributes: Attributes = class.all_props().map(|it| (it.name, it.default.to_owned())).collect();
    attributes.insert("code", "F0467".to_owned());
    let debug = format!("debugMessage:{cause}: {detail}");
    attributes.insert("changeSet", format!("configQual:{cause}, configSt:failed-to-apply, {debug}, temporaryError:no"));
    attributes
        .insert("descr", format!("Configuration failed for {epg} due to {words}, debug message: {cause}: {detail}"));
    if tx.tree().get(&dn).is_some() {
        attributes.into_iter().for_each(|(name, value)| tx.set(&dn, name, value));
        return;
    }
    *sequence += 1;
    let (parent, rn) = (parent.to_owned(), rn.to_owned());
    tx.put(&dn, Mo { class, parent, rn, attributes, sequence: *sequence, born: Default::default(), transaction: 0 });
}

/// The prefix that a subnet classifies by: with `import-security`, in one spelling.
fn held(mo: &Mo) -> Option<String> {
    let one_spelling = Variants { ipv6_canonical: true, host_bits: HostBits::Cleared, ..Variants::default() };
    mo.get("scope").split(',').any(|it| it == "import-security").then(|| rules::prefix(mo.get("ip"), &one_spelling))?
}

/// The VRF of an EPG's L3Out; `None` if the relation leads nowhere: then nothing is deployed.
fn vrf(tree: &Tree, epg: &str) -> Option<String> {
    let (l3out, _) = dn::split(epg)?;
    let vrf = tree.get(&format!("{l3out}/rsectx"))?.get("tDn").to_owned();
    (!vrf.is_empty()).then_some(vrf)
}
