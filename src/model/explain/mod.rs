//! Explains one subject: what is desired of it, what the fabric holds, and why the two differ (T7).
//!
//! A pure function of what a reconcile looked at. Looking, the daemon's memory and the text for people are in
//! `commands::explain`.

mod address;
mod epg;
mod parts;
mod sources;
mod workload;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde::Serialize;

pub use self::parts::{
    AddressPart, AddressState, AnnotationPart, ClaimPart, EpgPart, HolderPart, L3outPart, NotExposed, NotExposedPart,
    ObjectPart, SubjectPart,
};

use super::address::parse as parse_address;
use super::claims::selection_in;
use super::dn::{EpgDn, L3outDn, ParsedDn, Prefix};
use super::finding::Code;
use super::inventory::ManagedWorkload;
use super::kubernetes::{Key, Kind, MAX_NAME, Object, is_dns_name};
use super::mo::Mo;
use super::observed::Epg;
use super::placement::Placement;
use super::plan_findings::Holder;
use super::plan_input::PlanInput;
use super::rules::Policy;
use super::selection::Selection;

/// The most rows of one list in an explanation.
const MAX_ROWS: usize = 1000;

/// The most workloads that are named of an EPG.
const MAX_NAMED: usize = 20;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Every object of this name, or the one of this kind.
    Named(Option<Kind>, Key),
    /// An address.
    Address(IpAddr),
    /// An EPG.
    Epg(EpgDn),
    /// A subnet of an EPG.
    Subnet(EpgDn, Prefix),
}

impl Subject {
    /// Reads `NAMESPACE/NAME`, `KIND/NAMESPACE/NAME`, an address with or without its length, or a DN. The error is the end of
    /// a sentence.
    pub fn parse(text: &str) -> Result<Subject, &'static str> {
        if text.starts_with("uni/") {
            return match ParsedDn::parse(text) {
                Some(ParsedDn::Epg(dn)) => Ok(Subject::Epg(dn)),
                Some(ParsedDn::Subnet(dn, ip)) => ip
                    .parse()
                    .map(|prefix| Subject::Subnet(dn, prefix))
                    .map_err(|()| "has no ADDRESS/LENGTH in brackets"),
                _ => Err("is not the DN of an EPG or of a subnet in one"),
            };
        }
        let (address, length) = text.split_once('/').map_or((text, None), |(it, length)| (it, Some(length)));
        if let Some(address) = parse_address(address) {
            let host = Prefix::host(address).length.to_string();
            let is_host = length.is_none_or(|it| it == host);
            return if is_host { Ok(Subject::Address(address)) } else { Err("is a block; give an address") };
        }
        let parts: Vec<&str> = text.split('/').collect();
        let (kind, namespace, name) = match parts.as_slice() {
            [namespace, name] => (None, namespace, name),
            [kind, namespace, name] => {
                let kind = Kind::ALL.into_iter().find(|it| it.to_string().eq_ignore_ascii_case(kind));
                (
                    Some(kind.ok_or("has a kind that is not deployment, statefulset, daemonset, pod or service")?),
                    namespace,
                    name,
                )
            }
            _ => return Err("is not NAMESPACE/NAME, KIND/NAMESPACE/NAME, an address or a DN"),
        };
        if !is_dns_name(namespace, 63, false) || !is_dns_name(name, MAX_NAME, true) {
            return Err("is not a valid namespace and name");
        }
        Ok(Subject::Named(kind, Key::new(namespace, name)))
    }
}

/// The answer in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All that is desired is in the fabric, and nothing else of it.
    InSync,
    /// No annotation binds it.
    NotManaged,
    /// Nothing calls for it.
    NotDesired,
    /// The next reconcile does it, or it waits for something that ends by itself.
    Pending,
    /// The policy sends nothing.
    Observing,
    /// It is paused (D2).
    Paused,
    /// Something on the fabric or a limit stands in the way.
    Blocked,
    /// The configuration or the APIC refuses it.
    Refused,
    /// Another EPG has the address, or another writer reverts it.
    Conflict,
    /// A foreign object stands in the way.
    Foreign,
    /// `--allow` does not admit it (W6).
    NotAllowed,
    /// The annotation is not valid (D1).
    Invalid,
    /// There is no such object.
    Unknown,
}

impl Verdict {
    /// What a finding of this code means for the object that it is about.
    fn of(code: Code) -> Verdict {
        match code {
            Code::InvalidAnnotation => Verdict::Invalid,
            Code::NotAllowed => Verdict::NotAllowed,
            Code::Paused => Verdict::Paused,
            Code::AddressConflict | Code::AddressClaimed | Code::WriterConflict | Code::FabricFault => {
                Verdict::Conflict
            }
            Code::ForeignSubnet | Code::ForeignScope | Code::ForeignEpgDeleted => Verdict::Foreign,
            Code::ForeignEpgRefused | Code::Rejected => Verdict::Refused,
            Code::TooManyEpgs
            | Code::L3OutNotFound
            | Code::DeletionsBlocked
            | Code::EpgRetained
            | Code::InvalidAddress => Verdict::Blocked,
            _ => Verdict::Pending,
        }
    }

    /// The exit code of `explain`.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::InSync | Verdict::NotManaged | Verdict::NotDesired => 0,
            Verdict::Unknown => 1,
            _ => 2,
        }
    }

    /// The word in JSON and texts.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::InSync => "in_sync",
            Verdict::NotManaged => "not_managed",
            Verdict::NotDesired => "not_desired",
            Verdict::Pending => "pending",
            Verdict::Observing => "observing",
            Verdict::Paused => "paused",
            Verdict::Blocked => "blocked",
            Verdict::Refused => "refused",
            Verdict::Conflict => "conflict",
            Verdict::Foreign => "foreign",
            Verdict::NotAllowed => "not_allowed",
            Verdict::Invalid => "invalid",
            Verdict::Unknown => "unknown",
        }
    }
}

/// What is known of one subject. Which parts there are depends on the subject.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// What it is about.
    pub subject: SubjectPart,
    /// The answer in one word.
    pub verdict: Verdict,
    /// The answer in one sentence without its subject.
    pub summary: String,
    /// The workload by which a Pod or Service is explained, with its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The annotation of the workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotation: Option<AnnotationPart>,
    /// The rule of `--allow` that admits the binding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_by: Option<String>,
    /// The workloads that name the EPG and are paused (D2).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paused_by: Vec<String>,
    /// The L3Out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3out: Option<L3outPart>,
    /// The EPG.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epg: Option<EpgPart>,
    /// The Pods and Services that have the address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimPart>,
    /// Addresses that are desired, or that are there although they are not.
    pub addresses: Vec<AddressPart>,
    /// Pods and Services that expose nothing, or an address that is not exposed.
    pub not_exposed: Vec<NotExposedPart>,
    /// The EPGs that have the address as a host prefix.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<HolderPart>,
    /// The longest prefix in each VRF that holds the address, if there is no host prefix: its EPG classifies the traffic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub longest_match: Vec<HolderPart>,
    /// How many rows of the lists are left out.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What an explanation is made of besides what a plan depends on.
pub struct LookedAt<'a> {
    /// What may be sent.
    pub policy: Policy,
    /// The listed objects that no rule needs: they are not exposed, and the reason is in them.
    pub unneeded: &'a [Object],
    /// Subnets of any L3Out that have the address asked about.
    pub subnets: &'a [Mo],
    /// How many faults F0467 each EPG has, if they could be read.
    pub faults: Option<&'a BTreeMap<EpgDn, usize>>,
}

/// Explains a subject: one explanation for each object that it names.
pub fn explain(input: &PlanInput<'_>, look: &LookedAt<'_>, subject: &Subject) -> Vec<Explanation> {
    let explainer = Explainer::new(input, look);
    match subject {
        Subject::Named(kind, key) => explainer.named(*kind, key),
        Subject::Address(address) => vec![explainer.address(*address)],
        Subject::Epg(dn) => vec![explainer.epg(dn)],
        Subject::Subnet(dn, prefix) => vec![explainer.subnet(dn, *prefix)],
    }
}

/// What all explanations of one look share.
struct Explainer<'a> {
    look: &'a LookedAt<'a>,
    input: &'a PlanInput<'a>,
    placement: Placement<'a>,
    /// What holds an address that goes to another EPG of the VRF.
    holders: HashMap<(usize, Prefix), Vec<(EpgDn, Holder)>>,
    /// In which EPGs of a VRF an address is desired: one, and those beyond the quota.
    desired_in: HashMap<(usize, Prefix), Vec<&'a EpgDn>>,
    /// Which managed workloads a Service selects (S1).
    selection: Selection<'a>,
    managed: Vec<&'a ManagedWorkload>,
}

impl<'a> Explainer<'a> {
    fn new(input: &'a PlanInput<'a>, look: &'a LookedAt<'a>) -> Self {
        let placement = Placement::new(input, None);
        let mut desired_in: HashMap<(usize, Prefix), Vec<&EpgDn>> = HashMap::new();
        for (dn, epg) in &input.desired.epgs {
            let vrf = placement.vrf(dn);
            epg.subnets.keys().for_each(|prefix| desired_in.entry((vrf, *prefix)).or_default().push(dn));
        }
        let (holders, selection) = (placement.holders(), selection_in(input.inventory, input.rules));
        let managed = input.inventory.managed.values().collect();
        Explainer { look, input, placement, holders, desired_in, selection, managed }
    }

    /// What the next reconcile will do is pending, unless the policy sends nothing.
    fn pending(&self) -> Verdict {
        if self.look.policy == Policy::Observe { Verdict::Observing } else { Verdict::Pending }
    }
}

impl Explanation {
    /// The L3Out that it is about, if that was not read.
    pub fn unread_l3out(&self) -> Option<L3outDn> {
        let l3out = self.l3out.as_ref().filter(|it| it.state == "unread")?;
        match ParsedDn::parse(&l3out.dn)? {
            ParsedDn::L3out(dn) => Some(dn),
            _ => None,
        }
    }

    pub(crate) fn new(subject: SubjectPart, verdict: Verdict, summary: impl Into<String>) -> Explanation {
        Explanation {
            subject,
            verdict,
            summary: summary.into(),
            workload: None,
            annotation: None,
            allowed_by: None,
            paused_by: Vec::new(),
            l3out: None,
            epg: None,
            claims: Vec::new(),
            addresses: Vec::new(),
            not_exposed: Vec::new(),
            held_by: Vec::new(),
            longest_match: Vec::new(),
            left_out: 0,
        }
    }

    /// Limits each list (X3).
    fn limited(mut self) -> Explanation {
        // What is wrong comes first.
        self.addresses.sort_by_cached_key(|it| (it.state == AddressState::Present, it.epg.clone(), it.order()));
        let mut left_out = limit(&mut self.addresses) + limit(&mut self.not_exposed) + limit(&mut self.claims);
        left_out += limit(&mut self.held_by) + limit(&mut self.longest_match);
        self.left_out += left_out;
        self
    }

    /// The code that the verdict comes from.
    pub fn code(&self) -> Option<Code> {
        let of_verdict = match self.verdict {
            Verdict::Invalid => Some(Code::InvalidAnnotation),
            Verdict::NotAllowed => Some(Code::NotAllowed),
            Verdict::Paused => Some(Code::Paused),
            _ => None,
        };
        let epg = self.epg.as_ref();
        let fault = epg.is_some_and(|it| it.faults.is_some_and(|it| it > 0)).then_some(Code::FabricFault);
        let of_parts = self.addresses.iter().filter_map(|it| it.code);
        let of_parts = of_parts.chain(self.not_exposed.iter().filter_map(|it| it.code));
        let all = of_verdict.into_iter().chain(epg.and_then(|it| it.code)).chain(of_parts).chain(fault);
        all.filter(|it| Verdict::of(*it) == self.verdict).min()
    }
}

/// How many rows of a list are left out.
fn limit<T>(rows: &mut Vec<T>) -> usize {
    let left_out = rows.len().saturating_sub(MAX_ROWS);
    rows.truncate(MAX_ROWS);
    left_out
}

/// How many contract relations of a class an EPG has, by the beginning of their RNs.
fn relations(epg: &Epg, begin: &str) -> usize {
    epg.relations.iter().filter(|it| it.starts_with(begin)).count()
}
