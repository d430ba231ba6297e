//! T7: what `explain` says of each object of a world agrees with the simple description of what should be there and with
//! what is there.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use aci_sync::model::explain::{AddressPart, AddressState, Explanation, LookedAt, NotExposed, Subject, Verdict};
use aci_sync::model::finding::Code;
use aci_sync::model::kubernetes::{Key, Kind};
use aci_sync::model::rules::Policy;

use crate::apic::Snapshot;
use crate::cluster::{Annotation, Id, Name, Records};
use crate::coverage::Coverage;
use crate::oracle::{self, CalledFor, Settings};
use crate::world::Side;

/// Asks about each object of one side.
pub fn check(
    side: &Side,
    fabric: &Snapshot,
    vrf: &dyn Fn(&str) -> String,
    coverage: &RefCell<Coverage>,
    now: Instant,
) -> Result<(), String> {
    let (cluster, settings, unneeded) = (side.cluster.known(), &side.settings, side.cluster.unneeded());
    let called_for = oracle::calls_for(&cluster, settings, &side.line.marks, fabric, vrf);
    let world = World { cluster: &cluster, settings, called_for: &called_for, fabric, coverage };
    let more = LookedAt { policy: Policy::Sync, unneeded: &unneeded, subnets: &[], faults: None };
    world.check(&|subject| side.reconciler.explain(subject, &more, now))
}

/// One side at the end of a world.
struct World<'a> {
    cluster: &'a Records,
    settings: &'a Settings,
    called_for: &'a CalledFor,
    fabric: &'a Snapshot,
    coverage: &'a RefCell<Coverage>,
}

type Explain<'a> = dyn Fn(&Subject) -> Vec<Explanation> + 'a;

/// The desired addresses of an explanation, by their DNs.
fn desired(explanation: &Explanation) -> BTreeMap<String, &AddressPart> {
    let parts = explanation.addresses.iter().filter(|it| it.state != AddressState::Surplus);
    parts.map(|it| (format!("{}/extsubnet-[{}]", it.epg, it.prefix), it)).collect()
}

impl World<'_> {
    fn check(&self, explain: &Explain<'_>) -> Result<(), String> {
        for id in self.cluster.workloads.keys() {
            self.workload(id, explain)?;
        }
        for name in self.cluster.pods.keys() {
            self.source(Kind::Pod, name, explain)?;
        }
        for name in self.cluster.services.keys() {
            self.source(Kind::Service, name, explain)?;
        }
        let of_pods = self.cluster.pods.values().flat_map(|it| &it.ips);
        let all: BTreeSet<_> = of_pods.chain(self.cluster.services.values().flat_map(|it| &it.ips)).collect();
        all.into_iter().try_for_each(|ip| self.address(*ip, explain))
    }

    fn cover(&self, explanation: &Explanation) {
        let coverage = &mut self.coverage.borrow_mut();
        coverage.count(&format!("verdict: {}", explanation.verdict.name()));
        for part in &explanation.not_exposed {
            coverage.count(&format!("not exposed: {:?}", part.reason));
        }
    }

    fn explain(&self, kind: Kind, name: &Name, explain: &Explain<'_>) -> Vec<Explanation> {
        let all = explain(&Subject::Named(Some(kind), Key::new(name.0, &name.1)));
        all.iter().for_each(|it| self.cover(it));
        all
    }

    /// A workload: the verdict, the addresses that it exposes, and which of them are there.
    fn workload(&self, id: &Id, explain: &Explain<'_>) -> Result<(), String> {
        let all = self.explain(id.1, &id.0, explain);
        let [explanation] = all.as_slice() else { return Err(format!("{id:?}: {} explanations", all.len())) };
        let wrong = |why: &str| Err(format!("{id:?}: {why}: {explanation:#?}"));
        let workload = &self.cluster.workloads[id];
        let epg = match (&workload.annotation, oracle::names(self.settings, id, workload)) {
            (Annotation::None, _) => return expect(explanation, Verdict::NotManaged),
            (Annotation::Broken, _) => return expect(explanation, Verdict::Invalid),
            (_, None) => return expect(explanation, Verdict::NotAllowed),
            (_, Some(epg)) => epg,
        };
        let claims = self.called_for.claims.iter().filter(|it| it.owner == *id);
        let expected: BTreeSet<String> = claims.map(|it| oracle::subnet(&epg, &it.ip)).collect();
        let parts = desired(explanation);
        if expected != parts.keys().cloned().collect() {
            return wrong(&format!("exposes {expected:#?}"));
        }
        self.states(&parts).or_else(|why| wrong(&why))?;
        let is_there = self.fabric.contains_key(&epg) && expected.iter().all(|it| self.fabric.contains_key(it));
        match explanation.verdict {
            Verdict::InSync | Verdict::NotDesired if !is_there => wrong("it is not in sync"),
            Verdict::Pending | Verdict::Observing | Verdict::Unknown | Verdict::NotManaged if is_there => {
                let waits = |it: &AddressPart| it.state != AddressState::Present;
                let has_none = explanation.not_exposed.iter().any(|it| it.reason == NotExposed::NoAddress);
                if has_none || explanation.addresses.iter().any(waits) { Ok(()) } else { wrong("nothing is pending") }
            }
            _ => Ok(()),
        }
    }

    /// A Pod or Service: the addresses that it exposes, for each workload, and which of them are there.
    fn source(&self, kind: Kind, name: &Name, explain: &Explain<'_>) -> Result<(), String> {
        let all = self.explain(kind, name, explain);
        let text = format!("{}::{}", name.0, name.1);
        let own = self.called_for.claims.iter().filter(|it| it.name == text && it.is_pod == (kind == Kind::Pod));
        let expected: BTreeSet<String> = own.filter_map(|it| Some(oracle::subnet(it.epg.as_ref()?, &it.ip))).collect();
        let parts: BTreeMap<String, &AddressPart> = all.iter().flat_map(desired).collect();
        if expected != parts.keys().cloned().collect() {
            return Err(format!("{kind} {name:?} exposes {expected:#?}: {all:#?}"));
        }
        self.states(&parts).map_err(|why| format!("{kind} {name:?}: {why}: {all:#?}"))
    }

    /// An address: where it is desired, and whether it is there.
    fn address(&self, ip: std::net::IpAddr, explain: &Explain<'_>) -> Result<(), String> {
        let all = explain(&Subject::Address(ip));
        let [explanation] = all.as_slice() else { return Err(format!("{ip}: {} explanations", all.len())) };
        self.cover(explanation);
        let is_own = |dn: &&String| {
            dn.split_once("/extsubnet-").is_some_and(|it| oracle::ip_of(&format!("/extsubnet-{}", it.1)) == ip)
        };
        let expected: BTreeSet<String> = self.called_for.subnets.keys().filter(is_own).cloned().collect();
        let parts = desired(explanation);
        if expected != parts.keys().cloned().collect() {
            return Err(format!("{ip} is desired in {expected:#?}: {explanation:#?}"));
        }
        self.states(&parts).map_err(|why| format!("{ip}: {why}: {explanation:#?}"))
    }

    fn states(&self, parts: &BTreeMap<String, &AddressPart>) -> Result<(), String> {
        for (dn, part) in parts {
            let says = matches!(part.state, AddressState::Present | AddressState::Different);
            if part.state == AddressState::Missing && part.code == Some(Code::TooManyEpgs) {
                // Its L3Out may not be read; the command reads it.
                continue;
            }
            if says != self.fabric.contains_key(dn) {
                return Err(format!("{dn} is {}there", if says { "not " } else { "" }));
            }
            if part.state == AddressState::Missing && part.code.is_none() {
                return Err(format!("{dn} is missing without a reason"));
            }
        }
        Ok(())
    }
}

fn expect(explanation: &Explanation, verdict: Verdict) -> Result<(), String> {
    if explanation.verdict == verdict { Ok(()) } else { Err(format!("not {}: {explanation:#?}", verdict.name())) }
}
