//! Which Deployments a Service selects (S1). Labels that the same sets hold are alike to a selector: it looks at each
//! such list of sets once, however many labels Services and Deployments have in common (X3).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use super::kubernetes::{Labels, Service};

/// Sets of labels, and what a selector has to know of them.
pub(super) struct Selection<'a> {
    /// The place of the Deployment that bears each set.
    owners: Vec<usize>,
    /// For each label of a namespace the list of the sets that hold it; equal lists are one.
    holders: HashMap<(&'a str, &'a str, &'a str), usize>,
    lists: Vec<List>,
    /// What was selected by all of these lists; many Services select the same.
    known: HashMap<BTreeSet<usize>, Rc<[usize]>>,
}

/// Sets of labels by their numbers, which ascend. A long list is a bit for each set there is: where many selectors have many
/// labels that nearly all sets hold, each of them is compared with 64 sets at once.
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
        let in_word = |(n, word): (usize, u64)| {
            (0..List::BITS).filter(move |bit| word & (1 << bit) != 0).map(move |bit| n * List::BITS + bit)
        };
        bits.into_iter().enumerate().flat_map(in_word).collect()
    }
}

impl<'a> Selection<'a> {
    /// Of each Deployment, in the order of their places, its namespace and the different sets of labels that it bears.
    pub(super) fn new(borne: impl IntoIterator<Item = (&'a str, HashSet<&'a Labels>)>) -> Self {
        let (mut owners, mut sets): (Vec<usize>, HashMap<_, Vec<usize>>) = Default::default();
        for (owner, (namespace, its)) in borne.into_iter().enumerate() {
            for labels in its {
                for (label, value) in labels.iter() {
                    sets.entry((namespace, label, value)).or_default().push(owners.len());
                }
                owners.push(owner);
            }
        }
        let mut numbers: HashMap<Vec<usize>, usize> = HashMap::new();
        let mut number = |list| {
            let next = numbers.len();
            *numbers.entry(list).or_insert(next)
        };
        let holders = sets.into_iter().map(|(label, list)| (label, number(list))).collect();
        let mut lists: Vec<(usize, List)> =
            numbers.into_iter().map(|(list, number)| (number, List::new(list, owners.len()))).collect();
        lists.sort_unstable_by_key(|it| it.0);
        let lists = lists.into_iter().map(|it| it.1).collect();
        Selection { owners, holders, lists, known: HashMap::new() }
    }

    /// The places of the Deployments that a Service selects, in ascending order. An empty selector selects none.
    pub(super) fn of(&mut self, service: &Service) -> Rc<[usize]> {
        let list = |(label, value)| self.holders.get(&(&*service.key.namespace, label, value)).copied();
        let Some(numbers) = service.selector.iter().map(list).collect::<Option<BTreeSet<usize>>>() else {
            return Rc::default();
        };
        if let Some(known) = self.known.get(&numbers) {
            return known.clone();
        }
        let mut lists: Vec<&List> = numbers.iter().map(|it| &self.lists[*it]).collect();
        lists.sort_by_key(|it| (matches!(it, List::Long(..)), it.len()));
        // A Deployment that bears several sets has them beside each other.
        let mut owners: Vec<usize> = List::common(&lists).into_iter().map(|set| self.owners[set]).collect();
        owners.dedup();
        let owners: Rc<[usize]> = owners.into();
        self.known.insert(numbers, owners.clone());
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

    /// S1: a selector selects what holds all of it, in its namespace; each set of a Deployment counts by itself.
    #[test]
    fn all_labels_of_a_selector_count() {
        let sets = [
            ("a", vec![labels("app:x,own:0"), labels("app:x,hash:1")]),
            ("a", vec![labels("app:x,own:1,hash:2")]),
            ("a", vec![labels("app:y,own:0")]),
            ("b", vec![labels("app:x,own:0")]),
        ];
        let mut selection = Selection::new(sets.iter().map(|(namespace, sets)| (*namespace, sets.iter().collect())));
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
            assert_eq!(*selection.of(&service), *selected, "{namespace} {selector}");
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
