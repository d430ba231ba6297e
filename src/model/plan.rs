//! The plan: what is to be sent, as plain data, and its form for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::cause::{Cause, list};
use super::dn::{EpgDn, L3outDn, ObjectDn, Prefix};
use super::finding::{Few, Finding, counted};
use super::kubernetes::Workload;
use super::observed::Subnet;
use super::owner::Ownership;
use super::scope::Scope;
use super::source::Source;

/// What has to be done so that the fabric holds what is desired.
#[derive(Debug, Default)]
pub struct Plan {
    /// EPGs that have to be read whole first (W7). While there are any, the transactions are not for sending: read, then plan
    /// again.
    pub reads: BTreeSet<EpgDn>,
    /// What to send, in this order. A transaction that fails stops those that follow it in the same EPG.
    pub transactions: Vec<Transaction>,
    /// What people should know about it.
    pub findings: Vec<Finding>,
    /// Owned EPGs that are not desired and hold nothing that stays: their grace runs (D6).
    pub undesired: BTreeSet<EpgDn>,
    /// Foreign EPGs whose tag is not written, because another writer keeps deleting it (O4, R5).
    pub untagged: BTreeSet<EpgDn>,
    /// What it deletes, now or once a grace is over: cascades included, moves not (W4).
    pub deletions: BTreeSet<ObjectDn>,
    /// The subnets that would leave for another EPG, now or once that EPG can be used, unless moves are free (J3).
    pub moves: BTreeSet<ObjectDn>,
    /// What it would delete or move if it were not blocked (W4, J3).
    pub blocked: BTreeSet<ObjectDn>,
    /// What it would delete if deletions were possible now (W1, W5).
    pub withheld: BTreeSet<ObjectDn>,
    /// The EPGs that it looked at, and about which there is nothing to do, now or later, and nothing to say. As long as neither
    /// they nor what is desired there changes, no other plan has to look at them: all that is there is where it belongs, and
    /// so nothing there depends on other EPGs.
    pub settled: Vec<EpgDn>,
}

impl Plan {
    /// Whether both ask for the same, however many EPGs each has looked at (R6).
    pub fn is_same(&self, other: &Plan) -> bool {
        let Plan {
            reads,
            transactions,
            findings,
            undesired,
            untagged,
            deletions,
            moves,
            blocked,
            withheld,
            settled: _,
        } = self;
        let of_epgs = (reads, undesired, untagged) == (&other.reads, &other.undesired, &other.untagged);
        let of_objects =
            (deletions, moves, blocked, withheld) == (&other.deletions, &other.moves, &other.blocked, &other.withheld);
        of_epgs && of_objects && (transactions, findings) == (&other.transactions, &other.findings)
    }
}

/// Changes in one EPG that are sent as one request. The APIC does all of them or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The EPG.
    pub epg: EpgDn,
    /// How it is sent.
    pub shape: RequestShape,
    /// The changes; exactly one if the shape is [`RequestShape::OneSubnet`].
    pub changes: Vec<Change>,
}

/// How a transaction is sent (W2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestShape {
    /// Into an owned EPG: a POST rooted at the `l3extInstP`, sent to the L3Out's URL.
    EpgTree,
    /// Into a foreign EPG: a POST rooted at one `l3extSubnet` and sent to the EPG's URL, or a DELETE of it.
    OneSubnet,
    /// A tag of the L3Out that marks the EPG as foreign (O4): a POST rooted at the `tagAnnotation` and sent to the L3Out's
    /// URL, or a DELETE of it.
    Tag,
}

impl Transaction {
    /// A transaction that was rejected for its content, in two parts: the EPG itself and the rest, or two halves. Nothing if
    /// it is one object (W3).
    pub fn parts(&self) -> Option<[Transaction; 2]> {
        let own = self.changes.iter().take_while(|it| it.is_of_epg()).count();
        let at = if own > 0 { own } else { self.changes.len() / 2 };
        let (first, rest) = self.changes.split_at(at);
        let part = |changes: &[Change]| Transaction { changes: changes.to_vec(), ..self.clone() };
        (!first.is_empty() && !rest.is_empty()).then(|| [part(first), part(rest)])
    }

    /// Whether it deletes anything.
    pub fn deletes(&self) -> bool {
        self.changes.iter().any(Change::is_delete)
    }

    /// Whether it puts back contract relations, and does nothing else (R7).
    pub fn restores_relations(&self) -> bool {
        matches!(self.changes.first(), Some(Change::RestoreRelation { .. }))
    }

    /// The objects that it creates, changes or deletes. A contract relation is not one of aci-sync's.
    pub fn objects(&self) -> impl Iterator<Item = ObjectDn> {
        let own = self.changes.iter().filter(|it| !matches!(it, Change::RestoreRelation { .. }));
        own.map(|it| it.object(&self.epg))
    }
}

/// One change of one object. A first plan may create 100,000 subnets, so what only other changes need is kept apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Creates the EPG, with our owner annotation.
    CreateEpg {
        /// The workloads that name it.
        workloads: Vec<Workload>,
        /// Why (R8).
        why: Cause,
    },
    /// Gives the EPG our owner annotation: a legacy one (O3), or one whose annotation another writer changed (R2).
    SetEpgOwner {
        /// Whose it is by its present annotation.
        from: Ownership,
        /// Why (R8).
        why: Cause,
    },
    /// Deletes the EPG, with all that is in it (D6).
    DeleteEpg {
        /// How many owned subnets go with it.
        subnets: usize,
        /// Why (R8).
        why: Cause,
    },
    /// Creates a subnet, with our owner annotation.
    CreateSubnet {
        /// The address.
        prefix: Prefix,
        /// Its `scope`.
        scope: Scope,
        /// The Pod or Service that the address comes from; its `name` follows from it (O1).
        source: Source,
        /// Why (R8).
        why: Cause,
    },
    /// Puts back what another writer changed at a subnet (R2), or takes it over (O3).
    RepairSubnet {
        /// The address.
        prefix: Prefix,
        /// The subnet as it was read.
        before: Box<Subnet>,
        /// Our owner annotation is written.
        set_owner: bool,
        /// The `name` that is written.
        name: Option<String>,
        /// The whole `scope` that is written: what was there, and what was missing.
        scope: Option<Scope>,
        /// Why (R8).
        why: Vec<Cause>,
    },
    /// Deletes a subnet.
    DeleteSubnet {
        /// The address.
        prefix: Prefix,
        /// The subnet as it was read.
        before: Box<Subnet>,
        /// The EPG that the address moves to, if it moves (D5, S3).
        moves_to: Option<Box<EpgDn>>,
        /// Why (R8).
        why: Cause,
    },
    /// Gives the EPG a contract relation again that it had when another writer deleted it (R7).
    RestoreRelation {
        /// Its RN, such as `rscons-web`.
        relation: Box<str>,
    },
    /// Creates the tag at the L3Out that marks the EPG as foreign (O4).
    CreateTag,
    /// Deletes that tag.
    DeleteTag {
        /// Its DN as the APIC spells it.
        tag: Box<str>,
    },
}

impl Change {
    /// Whether it deletes something.
    pub fn is_delete(&self) -> bool {
        matches!(self, Change::DeleteEpg { .. } | Change::DeleteSubnet { .. } | Change::DeleteTag { .. })
    }

    /// Whether it concerns the EPG itself.
    fn is_of_epg(&self) -> bool {
        matches!(self, Change::CreateEpg { .. } | Change::SetEpgOwner { .. } | Change::DeleteEpg { .. })
    }

    /// Whether it deletes the EPG with all that is in it, also what other writers put there.
    pub fn deletes_epg(&self) -> bool {
        matches!(self, Change::DeleteEpg { .. })
    }

    /// The address, if it is about a subnet.
    pub fn prefix(&self) -> Option<Prefix> {
        match self {
            Change::CreateSubnet { prefix, .. }
            | Change::RepairSubnet { prefix, .. }
            | Change::DeleteSubnet { prefix, .. } => Some(*prefix),
            _ => None,
        }
    }

    /// The object that it creates, changes or deletes.
    pub fn object(&self, epg: &EpgDn) -> ObjectDn {
        let epg = epg.clone();
        match (self, self.prefix()) {
            (_, Some(prefix)) => ObjectDn::Subnet(epg, prefix),
            (Change::CreateTag | Change::DeleteTag { .. }, _) => ObjectDn::Tag(epg),
            _ => ObjectDn::Epg(epg),
        }
    }

    /// Whether it creates something that is believed absent.
    pub fn is_create(&self) -> bool {
        matches!(self, Change::CreateEpg { .. } | Change::CreateSubnet { .. } | Change::CreateTag)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::CreateEpg { workloads, why } => {
                write!(f, "+ EPG  ({}{})", Few::of(workloads), after(why))
            }
            Change::SetEpgOwner { why, .. } => write!(f, "~ EPG  ({why})"),
            Change::DeleteEpg { subnets: 0, why } => write!(f, "- EPG  ({why})"),
            Change::DeleteEpg { subnets, why } => {
                write!(f, "- EPG  ({why}; deleted with {})", counted(*subnets, "owned subnet"))
            }
            Change::CreateSubnet { prefix, scope, source, why, .. } => {
                write!(f, "+ {prefix}  {scope}  ({source}{})", after(why))
            }
            Change::RepairSubnet { prefix, before, name, scope, why, .. } => {
                write!(f, "~ {prefix}")?;
                if let Some(name) = name.as_ref().filter(|it| ***it != *before.name) {
                    write!(f, "  name {:?} -> {name:?}", before.name)?;
                }
                if let Some(scope) = scope {
                    write!(f, "  scope {} -> {scope}", before.scope)?;
                }
                write!(f, "  ({})", list(why))
            }
            Change::DeleteSubnet { prefix, before, why, .. } => {
                write!(f, "- {prefix}  was {:?}  ({why})", before.name)
            }
            Change::RestoreRelation { relation } => {
                write!(f, "~ EPG  contract relation {relation}  (another writer deleted it with the EPG)")
            }
            Change::CreateTag => f.write_str("+ tag on the L3Out  (marks the EPG as foreign)"),
            Change::DeleteTag { .. } => f.write_str("- tag on the L3Out  (no longer needed)"),
        }
    }
}

/// The cause of a creation, unless it is the usual one (R8).
fn after(why: &Cause) -> String {
    if *why == Cause::Desired { String::new() } else { format!("; {why}") }
}

/// The number of changes of each sort.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Objects created.
    pub created: usize,
    /// Objects changed.
    pub updated: usize,
    /// Objects deleted, cascades included.
    pub deleted: usize,
}

impl Tally {
    /// Counts the objects that transactions touch.
    pub fn of<'a>(transactions: impl IntoIterator<Item = &'a Transaction>) -> Tally {
        let mut tally = Tally::default();
        for change in transactions.into_iter().flat_map(|it| &it.changes) {
            match change {
                Change::CreateEpg { .. } | Change::CreateSubnet { .. } | Change::CreateTag => tally.created += 1,
                Change::SetEpgOwner { .. } | Change::RepairSubnet { .. } | Change::RestoreRelation { .. } => {
                    tally.updated += 1;
                }
                Change::DeleteEpg { subnets, .. } => tally.deleted += 1 + subnets,
                Change::DeleteSubnet { .. } | Change::DeleteTag { .. } => tally.deleted += 1,
            }
        }
        tally
    }

    /// Whether nothing was counted.
    pub fn is_empty(self) -> bool {
        self == Tally::default()
    }

    /// Both together.
    pub fn and(self, other: Tally) -> Tally {
        Tally {
            created: self.created + other.created,
            updated: self.updated + other.updated,
            deleted: self.deleted + other.deleted,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to create, {} to change, {} to delete", self.created, self.updated, self.deleted)
    }
}

/// Transactions for people: by L3Out and EPG, each change with its reason.
pub fn describe(transactions: &[Transaction]) -> String {
    describe_with(transactions, &|_| Vec::new())
}

/// The same, with further lines about each EPG.
pub fn describe_with(transactions: &[Transaction], more: &dyn Fn(&EpgDn) -> Vec<String>) -> String {
    let mut by_l3out: BTreeMap<&L3outDn, BTreeMap<&EpgDn, Vec<&Change>>> = BTreeMap::new();
    for transaction in transactions {
        let epgs = by_l3out.entry(&transaction.epg.l3out).or_default();
        epgs.entry(&transaction.epg).or_default().extend(&transaction.changes);
    }
    let mut text = String::new();
    for (l3out, epgs) in by_l3out {
        text += &format!("L3Out {l3out}\n");
        for (epg, changes) in epgs {
            text += &format!("  EPG {}\n", epg.name);
            for change in changes {
                text += &format!("    {change}\n");
            }
            for line in more(epg) {
                text += &format!("    {line}\n");
            }
        }
    }
    text
}
