//! Which workloads a Service selects (S1). Labels that the same sets hold are alike to a selector: it looks at each
//! such list of sets once, however many labels Services and workloads have in common (X3).

use std::collections::{BTreeSet, HashMap, HashSet};

use super::kubernetes::{Labels, Service};

/// Sets of labels, each of one workload, and the lists that a selector compares.
pub(super) struct Selection<'a> {
    /// The index of the workload that each set is of.
    owners: Vec<usize>,
    /// For each label of a namespace the number of the list of those sets that hold it; equal lists are one.
    list_of: HashMap<(&'a str, &'a str, &'a str), usize>,
    lists: Vec<List>,
}

/// Sets of labels by their numbers, which ascend. A long list has a bit for each set: many selectors with many labels that
/// nearly all sets hold are then compared with 64 sets at once.
enum List {
    Short(Vec<usize>),
    Long(Vec<u64>, usize),
}

impl List {
    const BITS: usize = u64::BITS as usize;

    fn new(numbers: Vec<usize>, all: usize) -> List {
        if numbers.len() < all / List::BITS + 1 {
            return List::Short(numbers);
        }
        let mut bits = vec![0; all / List::BITS + 1];
        numbers.iter().for_each(|it| bits[it / List::BITS] |= 1 << (it % List::BITS));
        List::Long(bits, numbers.len())
    }

    fn len(&self) -> usize {
        match self {
            List::Short(numbers) => numbers.len(),
            List::Long(_, len) => *len,
        }
    }

    fn has(&self, number: usize) -> bool {
        match self {
            List::Short(numbers) => numbers.binary_search(&number).is_ok(),
            List::Long(bits, _) => bits[number / List::BITS] & (1 << (number % List::BITS)) != 0,
        }
    }

    /// What is in all of these lists, the shortest of which comes first.
    fn common(lists: &[&List]) -> Vec<usize> {
        let Some((first, others)) = lists.split_first() else { return Vec::new() };
        let bits = match first {
            List::Short(numbers) => {
                return numbers.iter().copied().filter(|it| others.iter().all(|list| list.has(*it))).collect();
            }
            List::Long(bits, _) => bits,
        };
        let mut bits = bits.clone();
        for other in others {
            if let List::Long(other, _) = other {
                bits.iter_mut().zip(other).for_each(|(bits, other)| *bits &= other);
            }
        }
        let mut numbers = Vec::new();
        for (n, word) in bits.into_iter().enumerate() {
            numbers.extend((0..List::BITS).filter(|bit| word & (1 << bit) != 0).map(|bit| n * List::BITS + bit));
        }
        numbers
    }
}

impl<'a> Selection<'a> {
    /// Takes the namespace of each workload, in the order of their indices, and its different sets of labels.
    pub(super) fn new(workloads: impl IntoIterator<Item = (&'a str, HashSet<&'a Labels>)>) -> Self {
        let mut owners = Vec::new();
        let mut holders: HashMap<(&str, &str, &str), Vec<usize>> = HashMap::new();
        for (index, (namespace, sets)) in workloads.into_iter().enumerate() {
            for labels in sets {
                for (label, value) in labels.iter() {
                    holders.entry((namespace, label, value)).or_default().push(owners.len());
                }
                owners.push(index);
            }
        }
        let mut numbers: HashMap<Vec<usize>, usize> = HashMap::new();
        let mut list_of = HashMap::new();
        for (label, list) in holders {
            let next = numbers.len();
            list_of.insert(label, *numbers.entry(list).or_insert(next));
        }
        let mut numbered: Vec<(usize, Vec<usize>)> = numbers.into_iter().map(|(list, number)| (number, list)).collect();
        numbered.sort_unstable_by_key(|it| it.0);
        let lists = numbered.into_iter().map(|it| List::new(it.1, owners.len())).collect();
        Selection { owners, list_of, lists }
    }

    /// The lists that hold what a Service selects: nothing if no workload has one of the labels.
    pub(super) fn lists(&self, service: &Service) -> Option<BTreeSet<usize>> {
        let namespace = &*service.key.namespace;
        service.selector.iter().map(|(label, value)| self.list_of.get(&(namespace, label, value)).copied()).collect()
    }

    /// The indices of the workloads that a Service selects, ascending.
    pub(super) fn selected(&self, service: &Service) -> Vec<usize> {
        self.lists(service).map(|lists| self.common(&lists)).unwrap_or_default()
    }

    /// The indices of the workloads that are in all of these lists, ascending. Without a list there are none.
    pub(super) fn common(&self, lists: &BTreeSet<usize>) -> Vec<usize> {
        let mut lists: Vec<&List> = lists.iter().map(|it| &self.lists[*it]).collect();
        lists.sort_by_key(|it| (matches!(it, List::Long(..)), it.len()));
        // The sets of one workload are next to each other.
        let mut owners: Vec<usize> = List::common(&lists).into_iter().map(|set| self.owners[set]).collect();
        owners.dedup();
        owners
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kubernetes::Key;

    fn labels(text: &str) -> Labels {
        let pairs = text.split(',').filter_map(|it| it.split_once(':'));
        pairs.map(|(label, value)| (label.into(), value.into())).collect::<std::collections::BTreeMap<_, _>>().into()
    }

    /// S1: a selector selects what holds all of it, in its namespace; each set of a workload counts by itself.
    #[test]
    fn all_labels_of_a_selector_count() {
        let sets = [
            ("a", vec![labels("app:x,own:0"), labels("app:x,hash:1")]),
            ("a", vec![labels("app:x,own:1,hash:2")]),
            ("a", vec![labels("app:y,own:0")]),
            ("b", vec![labels("app:x,own:0")]),
        ];
        let selection = Selection::new(sets.iter().map(|(namespace, sets)| (*namespace, sets.iter().collect())));
        for (namespace, selector, selected) in [
            ("a", "app:x", &[0, 1][..]),
            ("a", "own:0", &[0, 2]),
            ("a", "app:x,own:0", &[0]),
            ("a", "app:x,own:1", &[1]),
            ("a", "own:0,hash:1", &[]),
            ("a", "app:y,hash:1", &[]),
            ("a", "app:x,none:1", &[]),
            ("a", "", &[]),
            ("b", "app:x", &[3]),
            ("c", "app:x", &[]),
        ] {
            let service = Service {
                key: Key::new(namespace, "s"),
                uid: "".into(),
                selector: labels(selector),
                addresses: Vec::new(),
                unreadable: None,
                hostname_only: false,
                load_balancer: true,
            };
            let lists = selection.lists(&service).unwrap_or_default();
            assert_eq!(selection.common(&lists), selected, "{namespace} {selector}");
        }
    }

    /// S1, X3: lists of any length have the same in common.
    #[test]
    fn long_lists_are_compared_like_short_ones() {
        let (all, every) = (1000, |n: usize| (0..1000).filter(|it| it % n == 0).collect::<Vec<usize>>());
        let lists = [2, 3, 5, 7, 200, 999].map(every);
        for one in &lists {
            for other in &lists {
                let common: Vec<usize> = one.iter().copied().filter(|it| other.contains(it)).collect();
                let (mut pair, few) = ([one, other].map(|it| List::new(it.clone(), all)), 1000 / 64 + 1);
                assert!(pair.iter().all(|it| matches!(it, List::Long(..)) == (it.len() >= few)));
                pair.sort_by_key(|it| (matches!(it, List::Long(..)), it.len()));
                assert_eq!(List::common(&[&pair[0], &pair[1]]), common);
            }
        }
    }
}
