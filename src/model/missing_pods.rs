//! Managed workloads whose Pods are not found although their status counts some (P1, G2).
//!
//! The name of a ReplicaSet says which Deployment owns a Pod. So Pods of an adopted ReplicaSet without
//! `pod-template-hash`, or of one whose name was cut, have no owner here. For a moment Pods are missing now and then,
//! because the watches of workloads and Pods are independent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::finding::{Code, Finding};
use super::kubernetes::{Kind, Workload};

/// How long Pods may be missing without a finding.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The workloads without Pods, each since when.
#[derive(Debug, Default)]
pub struct MissingPods {
    since: BTreeMap<Workload, Instant>,
    /// The time of the last look. What was due then does not wake the reconciler again.
    looked: Option<Instant>,
}

impl MissingPods {
    /// Takes the workloads that have none now. The time of one whose Pods were found in between starts over.
    pub fn update(&mut self, missing_pods: BTreeSet<Workload>, now: Instant) {
        self.since.retain(|key, _| missing_pods.contains(key));
        for key in missing_pods {
            self.since.entry(key).or_insert(now);
        }
    }

    /// A finding for each that has had none for too long.
    pub fn findings(&mut self, now: Instant) -> Vec<Finding> {
        self.looked = Some(now);
        let due = self.since.iter().filter(|(_, since)| now.saturating_duration_since(**since) >= PATIENCE);
        due.map(|(workload, _)| {
            let text = format!(
                "status counts replicas, but no Pod was found for a minute; nothing is exposed for them until they are \
                 found. Pods are recognized by {}",
                recognized_by(workload.kind)
            );
            Finding::new(Code::PodsNotFound, workload, text)
        })
        .collect()
    }

    /// When the next finding is due that was not at the last look.
    pub fn next_end(&self) -> Option<Instant> {
        let ends = self.since.values().map(|since| *since + PATIENCE);
        ends.filter(|end| self.looked.is_none_or(|it| *end > it)).min()
    }
}

/// How the Pods of a kind of workload are recognized (P1, G2).
fn recognized_by(kind: Kind) -> &'static str {
    if kind == Kind::Deployment {
        "the name of their ReplicaSet and the label pod-template-hash: an adopted ReplicaSet lacks that label (`kubectl \
         rollout restart` creates one that has it), and names of more than 240 characters are cut"
    } else {
        "their controller ownerReference"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kubernetes::Key;

    /// P1: a minute counts from the moment in which the Pods were missing first, and starts over once they were found.
    #[test]
    fn pods_may_be_missing_for_a_minute() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let one = || BTreeSet::from([Workload { key: Key::new("a", "web"), kind: Kind::Deployment }]);
        let mut missing_pods = MissingPods::default();
        assert_eq!((missing_pods.findings(start).len(), missing_pods.next_end()), (0, None));
        missing_pods.update(one(), start);
        missing_pods.update(one(), start + 59 * second);
        assert_eq!(missing_pods.findings(start + 59 * second), []);
        assert_eq!(missing_pods.next_end(), Some(start + 60 * second));
        assert_eq!(missing_pods.findings(start + 60 * second).len(), 1);
        assert_eq!(missing_pods.next_end(), None, "it is reported once");
        missing_pods.update(BTreeSet::new(), start + 61 * second);
        assert_eq!(missing_pods.findings(start + 61 * second), []);
        missing_pods.update(one(), start + 62 * second);
        assert_eq!(missing_pods.findings(start + 121 * second), []);
        assert_eq!(missing_pods.findings(start + 122 * second).len(), 1);
    }
}
