//! In which order the transactions of a plan are sent, and which of them may be in flight together. How they are sent and
//! what follows from the answers is [`super::apply`]'s.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::model::dn::EpgDn;
use crate::model::plan::{Change, Transaction};

/// When the next transaction of an EPG is sent: what makes addresses reachable comes first (W9), and namespaces take turns,
/// so that none waits for the writes that another one has caused (X3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    only_removes: bool,
    turn: usize,
}

/// The transactions that are still to be sent. Those of one EPG keep their order.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    by_epg: BTreeMap<EpgDn, VecDeque<(Rank, Transaction)>>,
    /// The EPGs of which no transaction is in flight, each at the rank of its next one.
    ready: BTreeSet<(Rank, EpgDn)>,
}

impl Outgoing {
    /// All transactions of a plan. `namespace` says who named an EPG.
    pub(super) fn new<'a>(transactions: Vec<Transaction>, namespace: impl Fn(&EpgDn) -> Option<&'a str>) -> Outgoing {
        let mut outgoing = Outgoing::default();
        for transaction in transactions {
            let rank = Rank { only_removes: only_removes(&transaction), turn: 0 };
            outgoing.by_epg.entry(transaction.epg.clone()).or_default().push_back((rank, transaction));
        }
        // A namespace's deletions do not put off its creations.
        let mut turns: HashMap<(Option<&str>, bool), usize> = HashMap::new();
        for (epg, transactions) in &mut outgoing.by_epg {
            // What precedes a creation in its EPG must not hold it up.
            let mut follows_creation = false;
            for (rank, _) in transactions.iter_mut().rev() {
                follows_creation |= !rank.only_removes;
                rank.only_removes = !follows_creation;
            }
            for (rank, _) in transactions.iter_mut() {
                let turn = turns.entry((namespace(epg), rank.only_removes)).or_default();
                *turn += 1;
                rank.turn = *turn;
            }
            outgoing.ready.extend(transactions.front().map(|(rank, _)| (*rank, epg.clone())));
        }
        outgoing
    }

    /// The next transaction. Nothing more of its EPG is sent until [`Outgoing::done`].
    pub(super) fn next(&mut self) -> Option<Transaction> {
        let (_, epg) = self.ready.pop_first()?;
        self.by_epg.get_mut(&epg)?.pop_front().map(|(_, transaction)| transaction)
    }

    /// The transaction of this EPG that was in flight is answered.
    pub(super) fn done(&mut self, epg: &EpgDn) {
        if let Some((rank, _)) = self.by_epg.get(epg).and_then(VecDeque::front) {
            self.ready.insert((*rank, epg.clone()));
        }
    }

    /// The transaction that was in flight is sent in these parts instead; before [`Outgoing::done`].
    pub(super) fn split(&mut self, parts: [Transaction; 2]) {
        for part in parts.into_iter().rev() {
            let at_once = Rank { only_removes: false, turn: 0 };
            self.by_epg.entry(part.epg.clone()).or_default().push_front((at_once, part));
        }
    }

    /// Nothing more is sent of the EPGs for which this holds.
    pub(super) fn drop(&mut self, is_dropped: impl Fn(&EpgDn) -> bool) {
        self.by_epg.retain(|epg, _| !is_dropped(epg));
        self.ready.retain(|(_, epg)| !is_dropped(epg));
    }
}

/// Whether a transaction makes nothing reachable. The deletions of a move are followed by its creations.
fn only_removes(transaction: &Transaction) -> bool {
    transaction.changes.iter().all(|change| match change {
        Change::DeleteSubnet { moves_to, .. } => moves_to.is_none(),
        other => other.is_delete(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cause::Cause;
    use crate::model::dn::{L3outDn, Name};
    use crate::model::plan::RequestShape;

    fn epg(name: &str) -> EpgDn {
        let l3out = L3outDn { tenant: Name::tenant("T").unwrap(), l3out: Name::object("L").unwrap() };
        l3out.epg(Name::object(name).unwrap())
    }

    /// `+` creates, `-` deletes; then the name of the EPG, whose first letter is its namespace.
    fn transactions(all: &[&str]) -> Vec<Transaction> {
        let transaction = |it: &&str| {
            let (sign, name) = it.split_at(1);
            let change = match sign {
                "+" => Change::CreateTag,
                _ => Change::DeleteEpg { subnets: 0, why: Cause::Unnamed },
            };
            Transaction { epg: epg(name), shape: RequestShape::EpgTree, changes: vec![change] }
        };
        all.iter().map(transaction).collect()
    }

    fn outgoing(all: &[&str]) -> Outgoing {
        Outgoing::new(transactions(all), |epg| Some(if epg.name.as_str().starts_with('a') { "a" } else { "b" }))
    }

    fn name(it: &Transaction) -> String {
        format!("{}{}", if it.deletes() { '-' } else { '+' }, it.epg.name)
    }

    /// What may be sent before anything is answered.
    fn together(outgoing: &mut Outgoing) -> Vec<String> {
        std::iter::from_fn(|| outgoing.next()).map(|it| name(&it)).collect()
    }

    /// What is sent, one after the other.
    fn sent(mut outgoing: Outgoing) -> Vec<String> {
        let mut sent = Vec::new();
        while let Some(next) = outgoing.next() {
            sent.push(name(&next));
            outgoing.done(&next.epg);
        }
        sent
    }

    /// W9: what makes addresses reachable goes before what only deletes, and before a creation of its EPG goes what
    /// precedes it there.
    #[test]
    fn creations_go_before_deletions() {
        assert_eq!(sent(outgoing(&["-a1", "+a2", "-a3", "+a4"])), ["+a2", "+a4", "-a1", "-a3"]);
        assert_eq!(sent(outgoing(&["-a1", "+a1", "-a1", "+a2"])), ["-a1", "+a1", "+a2", "-a1"]);
    }

    /// W9: never two of one EPG together.
    #[test]
    fn an_epg_has_one_request_in_flight() {
        let mut all = outgoing(&["+a1", "+a1", "-a2", "+a3"]);
        assert_eq!(together(&mut all), ["+a1", "+a3", "-a2"]);
        all.done(&epg("a3"));
        assert_eq!(together(&mut all), [""; 0]);
        all.done(&epg("a1"));
        assert_eq!(together(&mut all), ["+a1"]);
    }

    /// X3: namespaces take turns.
    #[test]
    fn namespaces_take_turns() {
        assert_eq!(sent(outgoing(&["+a1", "+a2", "+a3", "+b4", "+b5"])), ["+a1", "+b4", "+a2", "+b5", "+a3"]);
    }

    /// X3, W9: the deletions of a namespace do not hold up its creation behind all of another one.
    #[test]
    fn deletions_take_no_turns_of_creations() {
        assert_eq!(sent(outgoing(&["-a1", "-a2", "-a3", "+a4", "+b5", "+b6", "+b7"]))[..2], ["+a4", "+b5"]);
    }

    /// W3: the parts of a rejected transaction go next in their EPG; what is dropped goes no more.
    #[test]
    fn parts_and_dropped_ones() {
        let mut all = outgoing(&["+a1", "-a1", "+a2"]);
        assert_eq!(all.next().map(|it| name(&it)).as_deref(), Some("+a1"));
        let parts = transactions(&["-a1", "+a1"]);
        all.split([parts[0].clone(), parts[1].clone()]);
        all.done(&epg("a1"));
        all.drop(|it| *it == epg("a2"));
        assert_eq!(sent(all), ["-a1", "+a1", "-a1"]);
    }
}
