//! The plan: what is to be sent, as plain data, and how a person reads it.

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

/// What one look at desired and fabric calls for.
#[derive(Debug, Default)]
pub struct Plan {
    /// EPGs that have to be read whole before anything can be said about them (W7). While there are any, the
    /// transactions are not for sending: read, then plan again.
    pub reads: BTreeSet<EpgDn>,
    /// What to send, in this order. A transaction that fails stops those that follow it in the same EPG.
    pub transactions: Vec<Transaction>,
    /// What people should know.
    pub findings: Vec<Finding>,
    /// EPGs of ours that nothing wants and nothing holds: their grace runs (D6).
    pub undesired: BTreeSet<EpgDn>,
    /// Foreign EPGs whose tag is not written, because somebody keeps deleting it (O4, R5).
    pub untagged: BTreeSet<EpgDn>,
    /// What it deletes, or will once a grace is over: cascades included, moves not (W4).
    pub deletions: BTreeSet<ObjectDn>,
    /// What it would delete if it were not held (W4).
    pub blocked: BTreeSet<ObjectDn>,
    /// What it would delete if anything might be deleted (W1, W5).
    pub withheld: BTreeSet<ObjectDn>,
}

/// Changes in one EPG that are sent as one request, and are done by the APIC all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The EPG.
    pub epg: EpgDn,
    /// How it is sent.
    pub shape: RequestShape,
    /// The changes; exactly one of them where the form is [`RequestShape::OneSubnet`].
    pub changes: Vec<Change>,
}

/// The two ways of writing into an EPG (W2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestShape {
    /// An EPG of ours: a POST rooted at the `l3extInstP`, sent to the L3Out's URL.
    EpgTree,
    /// A foreign EPG: a POST rooted at one `l3extSubnet` and sent to the EPG's URL, or a DELETE of it.
    OneSubnet,
    /// A tag of the L3Out that remembers the EPG (O4): a POST rooted at the `tagAnnotation` and sent to the L3Out's
    /// URL, or a DELETE of it.
    Tag,
}

impl Transaction {
    /// A transaction that was refused for its content, in parts: what concerns the EPG itself alone, then the rest;
    /// or two halves. Nothing where it is one object
    /// already (W3).
    pub fn parts(&self) -> Option<[Transaction; 2]> {
        let own = self.changes.iter().take_while(|it| it.is_of_epg()).count();
        let at = if own > 0 { own } else { self.changes.len() / 2 };
        let (first, rest) = self.changes.split_at(at);
        let part = |changes: &[Change]| Transaction { changes: changes.to_vec(), ..self.clone() };
        (!first.is_empty() && !rest.is_empty()).then(|| [part(first), part(rest)])
    }

    /// The objects that it makes, changes or deletes.
    pub fn objects(&self) -> impl Iterator<Item = ObjectDn> {
        self.changes.iter().map(|it| it.object(&self.epg))
    }
}

/// One change of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The EPG is not there and is made, with our mark.
    CreateEpg {
        /// The Deployments that name it.
        workloads: Vec<Workload>,
        /// Why (R8).
        why: Cause,
    },
    /// The EPG gets our mark: a predecessor's (O3), or ours that somebody changed (R2).
    SetEpgOwner {
        /// Whose mark it bears now.
        from: Ownership,
        /// Why (R8).
        why: Cause,
    },
    /// The EPG goes, with all that is in it (D6).
    DeleteEpg {
        /// How many subnets of ours fall with it.
        subnets: usize,
        /// Why (R8).
        why: Cause,
    },
    /// A subnet is not there and is made, with our mark.
    CreateSubnet {
        /// The address.
        prefix: Prefix,
        /// Its `name`.
        name: String,
        /// Its `scope`.
        scope: Scope,
        /// The Pod or Service it comes from.
        source: Source,
        /// Why (R8).
        why: Cause,
    },
    /// A subnet gets back what somebody changed (R2), or becomes ours (O3).
    RepairSubnet {
        /// The address.
        prefix: Prefix,
        /// The subnet as it was read.
        before: Subnet,
        /// Our mark is written.
        set_owner: bool,
        /// The `name` that is written.
        name: Option<String>,
        /// The whole `scope` that is written: what was there, and what was missing.
        scope: Option<Scope>,
        /// Why (R8).
        why: Vec<Cause>,
    },
    /// A subnet goes.
    DeleteSubnet {
        /// The address.
        prefix: Prefix,
        /// The subnet as it was read.
        before: Subnet,
        /// The EPG that it moves to, where it moves (D5, S3).
        moves_to: Option<EpgDn>,
        /// Why (R8).
        why: Cause,
    },
    /// The L3Out gets the tag that remembers that the EPG is not ours (O4).
    CreateTag,
    /// That tag goes.
    DeleteTag {
        /// Its DN as the APIC spells it.
        tag: Box<str>,
    },
}

impl Change {
    /// Whether something is taken away.
    pub fn is_delete(&self) -> bool {
        matches!(self, Change::DeleteEpg { .. } | Change::DeleteSubnet { .. } | Change::DeleteTag { .. })
    }

    /// Whether it concerns the EPG itself.
    fn is_of_epg(&self) -> bool {
        matches!(self, Change::CreateEpg { .. } | Change::SetEpgOwner { .. } | Change::DeleteEpg { .. })
    }

    /// Whether the EPG goes with all that is in it, whosever that is.
    pub fn deletes_epg(&self) -> bool {
        matches!(self, Change::DeleteEpg { .. })
    }

    /// The subnet that it makes, changes or deletes, where it is about one.
    pub fn prefix(&self) -> Option<Prefix> {
        match self {
            Change::CreateSubnet { prefix, .. }
            | Change::RepairSubnet { prefix, .. }
            | Change::DeleteSubnet { prefix, .. } => Some(*prefix),
            _ => None,
        }
    }

    /// The object that it makes, changes or deletes.
    pub fn object(&self, epg: &EpgDn) -> ObjectDn {
        let epg = epg.clone();
        match (self, self.prefix()) {
            (_, Some(prefix)) => ObjectDn::Subnet(epg, prefix),
            (Change::CreateTag | Change::DeleteTag { .. }, _) => ObjectDn::Tag(epg),
            _ => ObjectDn::Epg(epg),
        }
    }

    /// Whether something is made that is believed absent.
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
            Change::CreateTag => f.write_str("+ tag on the L3Out  (marks the EPG as foreign)"),
            Change::DeleteTag { .. } => f.write_str("- tag on the L3Out  (no longer needed)"),
        }
    }
}

/// What a creation adds to whom it is for (R8).
fn after(why: &Cause) -> String {
    if *why == Cause::Desired { String::new() } else { format!("; {why}") }
}

/// How many of each there are, for a summary in one line.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Objects made.
    pub created: usize,
    /// Objects changed.
    pub changed: usize,
    /// Objects taken away, cascades included.
    pub deleted: usize,
}

impl Tally {
    /// Counts the objects that transactions touch.
    pub fn of<'a>(transactions: impl IntoIterator<Item = &'a Transaction>) -> Tally {
        let mut tally = Tally::default();
        for change in transactions.into_iter().flat_map(|it| &it.changes) {
            match change {
                Change::CreateEpg { .. } | Change::CreateSubnet { .. } | Change::CreateTag => tally.created += 1,
                Change::SetEpgOwner { .. } | Change::RepairSubnet { .. } => tally.changed += 1,
                Change::DeleteEpg { subnets, .. } => tally.deleted += 1 + subnets,
                Change::DeleteSubnet { .. } | Change::DeleteTag { .. } => tally.deleted += 1,
            }
        }
        tally
    }
}

impl Tally {
    /// Both together.
    pub fn and(self, other: Tally) -> Tally {
        Tally {
            created: self.created + other.created,
            changed: self.changed + other.changed,
            deleted: self.deleted + other.deleted,
        }
    }

    /// The same in words, once it is done.
    pub fn past(&self) -> String {
        format!("{} created, {} changed, {} deleted", self.created, self.changed, self.deleted)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to create, {} to change, {} to delete", self.created, self.changed, self.deleted)
    }
}

/// Writes transactions for a person: by L3Out and EPG, each change with its reason.
pub fn describe(transactions: &[Transaction]) -> String {
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
        }
    }
    text
}
