//! What the simulated worlds came to: a simulation that never reaches a rule proves nothing.

use std::collections::BTreeMap;

use aci_sync::model::plan::Change;

/// How often each thing happened.
#[derive(Debug, Clone, Default)]
pub struct Coverage(pub BTreeMap<String, u64>);

impl Coverage {
    /// It happened once more.
    pub fn count(&mut self, what: &str) {
        match self.0.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(what.to_owned(), 1)),
        }
    }

    /// Both together.
    pub fn add(&mut self, other: Coverage) {
        for (what, count) in other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

/// What a change counts as.
pub fn name_of(change: &Change) -> &'static str {
    match change {
        Change::CreateEpg { .. } => "change: EPG made",
        Change::SetEpgOwner { .. } => "change: EPG marked",
        Change::DeleteEpg { .. } => "change: EPG deleted",
        Change::CreateSubnet { .. } => "change: subnet made",
        Change::RepairSubnet { .. } => "change: subnet repaired",
        Change::DeleteSubnet { moves_to: Some(_), .. } => "change: subnet moved",
        Change::DeleteSubnet { .. } => "change: subnet deleted",
        Change::RestoreRelation { .. } => "change: contract restored",
        Change::CreateTag => "change: tag written",
        Change::DeleteTag { .. } => "change: tag deleted",
    }
}
