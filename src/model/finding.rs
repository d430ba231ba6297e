//! Findings: conditions that people should know. A finding is never a crash and never stops other objects.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use super::dn::{EpgDn, L3outDn, ObjectDn};
use super::kubernetes::{Key, Kind, Workload};

/// The longest text, in bytes (X3).
pub const MAX_LENGTH: usize = 1024;

/// The most findings of one code for one namespace, and the most in all (X3).
const MAX_OF_NAMESPACE: usize = 20;
const MAX_TOTAL: usize = 2000;

/// A condition that people should know, while it lasts.
///
/// Two reconciles that see the same condition yield equal findings; so a comparison shows which are new and which ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The sort of condition.
    pub code: Code,
    /// What it is about.
    pub subject: Subject,
    /// What is wrong, what aci-sync does meanwhile, and what ends it.
    pub text: String,
    /// The text for a Kubernetes Event (K5), without names of other namespaces' objects; nothing if the text has none.
    note: Option<String>,
}

impl Finding {
    /// A finding about an object.
    pub fn new(code: Code, subject: impl Into<Subject>, text: impl Into<String>) -> Self {
        Finding { code, subject: subject.into(), text: cut(text.into()), note: None }
    }

    /// The same finding, whose text names objects of other namespaces.
    pub fn with_note(self, note: impl Into<String>) -> Self {
        Finding { note: Some(cut(note.into())), ..self }
    }

    /// The text for a Kubernetes Event.
    pub fn note(&self) -> &str {
        self.note.as_ref().unwrap_or(&self.text)
    }
}

fn cut(mut text: String) -> String {
    const END: &str = " ...";
    if text.len() > MAX_LENGTH {
        let at = (0..=MAX_LENGTH - END.len()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(at);
        text += END;
    }
    text
}

/// A list for people: its first five elements, and the number of the others (X3).
#[derive(Debug, Default)]
pub struct Few {
    first: Vec<String>,
    count: usize,
}

impl Few {
    const NAMED: usize = 5;

    /// Appends an element.
    pub fn push(&mut self, it: impl fmt::Display) {
        self.count += 1;
        if self.first.len() < Few::NAMED {
            self.first.push(it.to_string());
        }
    }

    /// The list of all these elements.
    pub fn of(all: impl IntoIterator<Item: fmt::Display>) -> Few {
        let mut few = Few::default();
        all.into_iter().for_each(|it| few.push(it));
        few
    }
}

impl fmt::Display for Few {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join(", "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A number of things: "1 deletion", "2 deletions".
pub fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// X3: limits findings to a number that people can read, whatever one namespace does: of each namespace the first ones of
/// each code, and the number of the others. A finding about several namespaces is kept if one of them has room.
/// `namespaces_of` says which namespaces a subject concerns. Also returns what is left out: it holds all the same.
pub fn within_limits(
    findings: BTreeSet<Finding>,
    namespaces_of: impl Fn(&Subject) -> Vec<Arc<str>>,
) -> (BTreeSet<Finding>, BTreeSet<(Code, Subject)>) {
    let mut left_out = BTreeSet::new();
    let mut shares: HashMap<(Code, Arc<str>), Share> = HashMap::new();
    let mut ranked: Vec<(usize, Finding)> = Vec::new();
    for finding in findings {
        let keys: Vec<_> = namespaces_of(&finding.subject).into_iter().map(|it| (finding.code, it)).collect();
        let rank = keys.iter().map(|it| shares.get(it).map_or(0, |it| it.kept)).min().unwrap_or_default();
        let is_kept = rank < MAX_OF_NAMESPACE;
        for key in keys {
            let share = shares.entry(key).or_default();
            *(if is_kept { &mut share.kept } else { &mut share.left_out }) += 1;
        }
        if is_kept {
            ranked.push((rank, finding));
        } else {
            left_out.insert((finding.code, finding.subject));
        }
    }
    // The first ones of all namespaces before the second ones of any.
    let all = ranked.len();
    ranked.sort();
    left_out.extend(ranked.drain(MAX_TOTAL.min(all)..).map(|(_, it)| (it.code, it.subject)));
    let mut kept: BTreeSet<Finding> = ranked.into_iter().map(|it| it.1).collect();
    for ((code, namespace), share) in shares.into_iter().filter(|(_, it)| it.left_out > 0) {
        let text = format!("{} of this kind not shown", counted(share.left_out, "more finding"));
        kept.insert(Finding::new(code, Subject::Namespace(namespace), text));
    }
    if all > MAX_TOTAL {
        kept.insert(Finding::new(
            Code::Unavailable,
            "findings",
            format!("{} not shown", counted(all - MAX_TOTAL, "more finding")),
        ));
    }
    (kept, left_out)
}

/// How many findings of one code a namespace has.
#[derive(Default)]
struct Share {
    kept: usize,
    left_out: usize,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code, self.subject, self.text)
    }
}

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// An object of the cluster.
    Cluster(Kind, Key),
    /// An L3Out.
    L3out(L3outDn),
    /// An EPG, or what is in it.
    Fabric(ObjectDn),
    /// Several objects of a namespace.
    Namespace(Arc<str>),
    /// A part of the whole, such as the APIC.
    Part(&'static str),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Cluster(kind, key) => write!(f, "{kind} {key}"),
            Subject::L3out(dn) => dn.fmt(f),
            Subject::Fabric(dn) => dn.fmt(f),
            Subject::Namespace(name) => write!(f, "Namespace {name}"),
            Subject::Part(name) => f.write_str(name),
        }
    }
}

impl From<(Kind, &Key)> for Subject {
    fn from((kind, key): (Kind, &Key)) -> Self {
        Subject::Cluster(kind, key.clone())
    }
}

impl From<&Workload> for Subject {
    fn from(workload: &Workload) -> Self {
        Subject::Cluster(workload.kind, workload.key.clone())
    }
}

impl From<&L3outDn> for Subject {
    fn from(dn: &L3outDn) -> Self {
        Subject::L3out(dn.clone())
    }
}

impl From<&EpgDn> for Subject {
    fn from(dn: &EpgDn) -> Self {
        Subject::Fabric(ObjectDn::Epg(dn.clone()))
    }
}

impl From<&ObjectDn> for Subject {
    fn from(dn: &ObjectDn) -> Self {
        Subject::Fabric(dn.clone())
    }
}

impl From<&'static str> for Subject {
    fn from(name: &'static str) -> Self {
        Subject::Part(name)
    }
}

/// The sorts of findings. Their names are also reasons of Kubernetes Events (K5), which people search for, so a name never
/// changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Code {
    /// An annotation that is not a valid binding (D1, D3).
    InvalidAnnotation,
    /// An annotation with an unknown key (D2).
    UnknownKey,
    /// An annotation that names what its namespace may not use (W6).
    NotAllowed,
    /// An EPG that is not created, because its namespace has as many as it may have (W6).
    TooManyEpgs,
    /// A workload that is paused, or an EPG that is left alone because all its workloads are (D2).
    Paused,
    /// A Service whose ingress has host names only (S1).
    HostnameOnly,
    /// An address of a Pod or of a Service's ingress that cannot be read (P2, S1).
    InvalidAddress,
    /// A workload whose status counts replicas while none of its Pods is found (P1, G2).
    PodsNotFound,
    /// Two EPGs of one VRF would get one address (S3).
    AddressConflict,
    /// A Pod of a managed workload has an address that belongs to another Pod now (P5).
    AddressClaimed,
    /// An address that is never exposed (P6).
    AddressNotExposed,
    /// A foreign subnet has a desired address (S3).
    ForeignSubnet,
    /// A foreign subnet that is relied on lacks `import-security` (O2).
    ForeignScope,
    /// A missing tenant or L3Out (R3).
    L3OutNotFound,
    /// A foreign EPG that a workload names and may not use (W6).
    ForeignEpgRefused,
    /// A foreign EPG that was used, and that another writer deleted (O4).
    ForeignEpgDeleted,
    /// The tag that marks an EPG as foreign cannot be written (O4).
    TagWriteFailed,
    /// Objects of another cluster's aci-sync in a desired EPG (O6).
    OtherClusterObjects,
    /// A move that cannot be made yet (D5, W2).
    MovePending,
    /// A workload's own subnet that stays where it is not desired, because its address has no other place yet (D3, D5).
    SubnetRetained,
    /// An owned EPG that is not desired and has to stay (D6).
    EpgRetained,
    /// An owned EPG that is not desired and goes after its grace (D6).
    EpgInGrace,
    /// An owned EPG that another writer deleted, restored without the contract relations that it had (R7).
    ContractsLost,
    /// A legacy object that is not desired (O3).
    LegacyObject,
    /// An object that lost our owner annotation (R2).
    OwnerMarkLost,
    /// The APIC has a fault about an EPG: another EPG of the VRF has a prefix of it (S3).
    FabricFault,
    /// Another writer keeps reverting an object (R5).
    WriterConflict,
    /// Deletions that wait for an operator's approval (W4).
    DeletionsBlocked,
    /// A request that the APIC rejected (W3, W8).
    Rejected,
    /// An L3Out without events from the APIC (A6).
    NoEvents,
    /// A peer that does not answer what is needed (R4).
    Unavailable,
    /// An address of the status server could not be bound (T12).
    ListenFailed,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Code {
    /// All of them.
    pub const ALL: [Code; 32] = [
        Code::InvalidAnnotation,
        Code::UnknownKey,
        Code::NotAllowed,
        Code::TooManyEpgs,
        Code::Paused,
        Code::HostnameOnly,
        Code::InvalidAddress,
        Code::PodsNotFound,
        Code::AddressConflict,
        Code::AddressClaimed,
        Code::AddressNotExposed,
        Code::ForeignSubnet,
        Code::ForeignScope,
        Code::L3OutNotFound,
        Code::ForeignEpgRefused,
        Code::ForeignEpgDeleted,
        Code::TagWriteFailed,
        Code::OtherClusterObjects,
        Code::MovePending,
        Code::SubnetRetained,
        Code::EpgRetained,
        Code::EpgInGrace,
        Code::ContractsLost,
        Code::LegacyObject,
        Code::OwnerMarkLost,
        Code::FabricFault,
        Code::WriterConflict,
        Code::DeletionsBlocked,
        Code::Rejected,
        Code::NoEvents,
        Code::Unavailable,
        Code::ListenFailed,
    ];

    /// What to do about it. The same is in `docs/observability.md`.
    pub fn remedy(self) -> &'static str {
        match self {
            Code::InvalidAnnotation => "Correct the annotation.",
            Code::UnknownKey => "Correct the spelling, or remove the key.",
            Code::NotAllowed => "Name an allowed EPG, or extend --allow.",
            Code::TooManyEpgs => "Raise --max-epgs, or name fewer EPGs.",
            Code::Paused => "Remove the pause annotation when you are done.",
            Code::HostnameOnly => "Use a load balancer that sets ip, or \"expose\":[\"pods\"].",
            Code::InvalidAddress => "Look at the CNI or load balancer that wrote it.",
            Code::PodsNotFound => {
                "Of a Deployment: kubectl rollout restart makes a ReplicaSet with the label pod-template-hash."
            }
            Code::AddressConflict => "Let the Service select one workload, or name the same EPG in both annotations.",
            Code::AddressClaimed => "Nothing if the Pod terminates; else look at the CNI.",
            Code::AddressNotExposed => "Nothing, or extend --addresses.",
            Code::ForeignSubnet => "Remove that subnet, or leave it: aci-sync leaves it alone.",
            Code::ForeignScope => "Add import-security to that subnet, or delete it.",
            Code::L3OutNotFound => "Create the tenant and L3Out, or correct the annotation.",
            Code::ForeignEpgRefused => "Name another EPG, or allow --foreign-epg use.",
            Code::ForeignEpgDeleted => "Create the EPG again, or delete the tag that the line names.",
            Code::TagWriteFailed => "Give the APIC user the right to write tagAnnotation.",
            Code::OtherClusterObjects => "Nothing, or --adopt-id.",
            Code::FabricFault => "Look at the fault in the APIC's GUI, and remove the prefix from the other EPG.",
            Code::MovePending => "Mostly nothing: it ends with the deletion in the other EPG.",
            Code::SubnetRetained => "The reason at the end of the line says what has to change.",
            Code::EpgRetained => "Remove these subnets or contract relations if the EPG may go.",
            Code::EpgInGrace => "Deploy again within the grace to keep the EPG with its contract relations.",
            Code::ContractsLost => "Add the contract relations that are still needed.",
            Code::LegacyObject => "Delete it if it is not needed; see migrating from Python.",
            Code::OwnerMarkLost => "Delete it if it is not needed.",
            Code::WriterConflict => "Find the other writer (the audit log of the APIC), and stop it.",
            Code::DeletionsBlocked => {
                "Check that this is the right, complete cluster, and --default-l3out if moves are blocked, then approve them."
            }
            Code::Rejected => {
                "Look at the APIC's code and text. The object is tried again after 10 s, doubling to 10 min."
            }
            Code::NoEvents => "Look at the subscriptions and the load of the APIC.",
            Code::Unavailable => "Give the APIC user the right to the class query.",
            Code::ListenFailed => {
                "Another process uses the address, or the folder does not exist; change --listen or end that process."
            }
        }
    }

    /// Whether it only says what goes on, and needs no attention.
    pub fn is_notice(self) -> bool {
        self == Code::EpgInGrace
    }

    /// Whether something desired is held back by it.
    pub fn is_open(self) -> bool {
        matches!(
            self,
            Code::Rejected
                | Code::TooManyEpgs
                | Code::PodsNotFound
                | Code::MovePending
                | Code::SubnetRetained
                | Code::DeletionsBlocked
                | Code::WriterConflict
                | Code::Paused
                | Code::L3OutNotFound
                | Code::ForeignEpgDeleted
                | Code::ForeignEpgRefused
                | Code::ForeignSubnet
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// X3: no text is longer than 1 KiB, and lists name five.
    #[test]
    fn texts_have_an_end() {
        for text in ["x".repeat(5000), "\u{e9}".repeat(600), "\u{1f600}".repeat(300)] {
            let finding = Finding::new(Code::Rejected, "x", text.clone()).with_note(text.clone());
            assert!(
                finding.text.len() <= MAX_LENGTH
                    && finding.text.len() > MAX_LENGTH - 8
                    && finding.text.ends_with(" ...")
            );
            assert_eq!(finding.note(), finding.text);
        }
        assert_eq!(Finding::new(Code::Rejected, "x", "y".repeat(MAX_LENGTH)).text.len(), MAX_LENGTH);
        assert_eq!(Few::of(0..5).to_string(), "0, 1, 2, 3, 4");
        assert_eq!(Few::of(0..7).to_string(), "0, 1, 2, 3, 4 and 2 more");
    }

    /// X3: one namespace may cause twenty findings of a code, and pushes out nothing of another one's.
    #[test]
    fn a_namespace_has_its_share() {
        let of = |code, namespace: &str, n: usize| {
            Finding::new(code, (Kind::Deployment, &Key::new(namespace, &format!("d{n:05}"))), "x")
        };
        let namespaces_of = |subject: &Subject| match subject {
            Subject::Cluster(_, key) => vec![key.namespace.clone()],
            _ => Vec::new(),
        };
        let texts = |all: BTreeSet<Finding>| -> Vec<String> {
            within_limits(all, namespaces_of).0.iter().map(ToString::to_string).collect()
        };
        let mut all: BTreeSet<Finding> = (0..20).map(|n| of(Code::UnknownKey, "evil", n)).collect();
        assert_eq!(texts(all.clone()).len(), 20);
        all.extend((20..3000).map(|n| of(Code::UnknownKey, "evil", n)));
        all.insert(of(Code::UnknownKey, "shop", 0));
        all.insert(of(Code::Paused, "evil", 0));
        let left_out = within_limits(all.clone(), namespaces_of).1;
        assert_eq!(left_out.len(), 2980);
        assert!(left_out.contains(&(Code::UnknownKey, of(Code::UnknownKey, "evil", 20).subject)));
        let kept = texts(all);
        assert_eq!(kept.len(), 20 + 1 + 2, "{kept:#?}");
        assert!(kept.contains(&"UnknownKey Namespace evil: 2980 more findings of this kind not shown".to_owned()));
        assert!(kept.contains(&"UnknownKey Deployment shop/d00000: x".to_owned()));

        let mut all: BTreeSet<Finding> =
            (0..300).flat_map(|n| (0..20).map(move |m| of(Code::UnknownKey, &format!("n{n:03}"), m))).collect();
        all.insert(of(Code::UnknownKey, "zz", 0));
        let kept = texts(all);
        assert_eq!(kept.len(), MAX_TOTAL + 1);
        assert!(kept.contains(&"UnknownKey Deployment zz/d00000: x".to_owned()));
        assert!(kept.contains(&"Unavailable findings: 4001 more findings not shown".to_owned()));
    }
}
