//! Which Deployments a Service selects (S1). Labels that the same sets hold are alike to a selector: it looks at each
//! such list of sets once, however many labels Services and Deployments have in common (X3).

use std::collections::{BTreeSet, HashMap, HashSet};

use super::kube::{Labels, Service};

/// Sets of labels, and what a selector has to know of them.
pub(super) struct Selection<'a> {
    /// The place of the Deployment that bears each set.
    owners: Vec<usize>,
    /// For each label of a namespace the list of the sets that hold it; equal lists are one.
    holders: HashMap<(&'a str, &'a str, &'a str), usize>,
    lists: Vec<Vec<usize>>,
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
        let mut lists = vec![Vec::new(); numbers.len()];
        numbers.into_iter().for_each(|(list, number)| lists[number] = list);
        Selection { owners, holders, lists }
    }

    /// The places of the Deployments that a Service selects. An empty selector selects none.
    pub(super) fn of(&self, service: &Service) -> BTreeSet<usize> {
        let list = |(label, value)| self.holders.get(&(&*service.key.namespace, label, value)).copied();
        let Some(numbers) = service.selector.iter().map(list).collect::<Option<BTreeSet<usize>>>() else {
            return BTreeSet::new();
        };
        let lists: Vec<&Vec<usize>> = numbers.into_iter().map(|it| &self.lists[it]).collect();
        let shortest = lists.iter().min_by_key(|it| it.len());
        let is_in_all = |set: &&usize| lists.iter().all(|it| it.binary_search(set).is_ok());
        shortest.into_iter().flat_map(|it| it.iter()).filter(is_in_all).map(|set| self.owners[*set]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kube::Key;

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
            assert_eq!(selection.of(&service).into_iter().collect::<Vec<_>>(), selected, "{namespace} {selector}");
        }
    }
}
