//! What a plan comes to: the last sentence, the exit code and the result in JSON, all of one value (X4, T8).

use std::fmt;

use super::Seen;
use crate::model::finding::counted;
use crate::model::plan::Tally;
use crate::model::rules::Policy;

/// What a plan comes to: the last sentence and the exit code are both made of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is left to do.
    InSync { findings: usize },
    /// A run would change something, or would if deletions were not blocked.
    Changes { tally: Tally, blocked: usize, policy: Policy },
    /// Nothing can be changed, although something desired is missing.
    HeldBack { open: usize },
    /// The plan could not be made to its end.
    Incomplete { tally: Tally },
}

impl Verdict {
    /// X4.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Verdict::InSync { .. } => 0,
            Verdict::Incomplete { .. } => 1,
            Verdict::Changes { .. } => 2,
            Verdict::HeldBack { .. } => 3,
        }
    }

    /// Its name in JSON.
    pub(super) fn result(self) -> &'static str {
        match self {
            Verdict::InSync { .. } => "in_sync",
            Verdict::Changes { .. } => "changes",
            Verdict::HeldBack { .. } => "held_back",
            Verdict::Incomplete { .. } => "incomplete",
        }
    }
}

/// The last sentence.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Verdict::InSync { findings: 0 } => f.write_str("No changes: the fabric is in sync with the cluster."),
            Verdict::InSync { findings } => write!(f, "No changes; {}.", counted(findings, "finding")),
            Verdict::HeldBack { open } => {
                write!(f, "No changes, but something desired is held back by {}.", counted(open, "finding"))
            }
            Verdict::Changes { tally, blocked: 0, policy: Policy::Observe } => {
                write!(f, "Plan: {tally}. The policy is observe: a run sends none of it.")
            }
            Verdict::Changes { tally, blocked: 0, .. } => write!(f, "Plan: {tally}."),
            Verdict::Changes { tally, blocked, .. } => {
                write!(f, "Plan: {tally}; {} more would be blocked.", counted(blocked, "deletion"))
            }
            Verdict::Incomplete { tally } => write!(f, "Plan, incomplete: {tally} so far; try again."),
        }
    }
}

impl Seen {
    /// What it comes to.
    pub(super) fn verdict(&self) -> Verdict {
        let (tally, blocked) = (Tally::of(&self.transactions), self.blocked.len());
        if self.unfinished {
            Verdict::Incomplete { tally }
        } else if !self.transactions.is_empty() || blocked > 0 {
            Verdict::Changes { tally, blocked, policy: self.policy }
        } else if self.open > 0 {
            Verdict::HeldBack { open: self.open }
        } else {
            Verdict::InSync { findings: self.findings.len() }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{json, text};
    use super::*;
    use crate::model::dn::{L3outDn, Name, ObjectDn};
    use crate::model::finding::{Code, Finding};
    use crate::model::owner::OwnerIdentity;
    use crate::model::plan::{Change, RequestShape, Transaction};

    /// X4, T8: the last sentence and the exit code come from one value: "No changes" is never said with 2, nor a change
    /// with 0 or 3.
    #[test]
    fn the_sentence_and_the_code_agree() {
        let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
        let epg = l3out.epg(Name::object("E").unwrap());
        let tag = Transaction { epg: epg.clone(), shape: RequestShape::Tag, changes: vec![Change::CreateTag] };
        let finding = |code| Finding::new(code, &epg, "x");
        let observe = " The policy is observe: a run sends none of it.";
        for (changes, blocked, code, unfinished, policy, expected) in [
            (0, 0, None, false, Policy::Sync, (0, "in_sync", "No changes: the fabric is in sync with the cluster.")),
            (0, 0, Some(Code::ForeignScope), false, Policy::Sync, (0, "in_sync", "No changes; 1 finding.")),
            (
                0,
                0,
                Some(Code::L3OutNotFound),
                false,
                Policy::Sync,
                (3, "held_back", "No changes, but something desired is held back by 1 finding."),
            ),
            (
                1,
                0,
                Some(Code::L3OutNotFound),
                false,
                Policy::Sync,
                (2, "changes", "Plan: 1 to create, 0 to change, 0 to delete."),
            ),
            (
                1,
                0,
                None,
                false,
                Policy::Observe,
                (2, "changes", &format!("Plan: 1 to create, 0 to change, 0 to delete.{observe}")),
            ),
            (
                0,
                1,
                Some(Code::DeletionsBlocked),
                false,
                Policy::Sync,
                (2, "changes", "Plan: 0 to create, 0 to change, 0 to delete; 1 deletion more would be blocked."),
            ),
            (
                1,
                0,
                None,
                true,
                Policy::Sync,
                (1, "incomplete", "Plan, incomplete: 1 to create, 0 to change, 0 to delete so far; try again."),
            ),
        ] {
            let findings: BTreeSet<Finding> = code.map(finding).into_iter().collect();
            let seen = Seen {
                owner: OwnerIdentity::new("me", &[]),
                policy,
                transactions: vec![tag.clone(); changes],
                open: findings.iter().filter(|it| it.code.is_open()).count(),
                findings,
                blocked: vec![ObjectDn::Epg(epg.clone()); blocked].into_iter().collect(),
                kept: 0,
                unfinished,
                requests: Vec::new(),
                undo: Vec::new(),
            };
            let verdict = seen.verdict();
            assert_eq!((verdict.exit_code(), verdict.result(), &*verdict.to_string()), expected);
            assert_eq!(text(&seen).lines().last(), Some(expected.2));
            let json: serde_json::Value = serde_json::from_str(&json::plan(&seen)).unwrap();
            assert_eq!((&json["result"], &json["summary"]), (&expected.1.into(), &expected.2.into()));
        }
    }
}
