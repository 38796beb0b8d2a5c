//! Nodes that no rule of a plan tells apart.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::taint::Taint;

use super::existing::ExistingNode;
use super::rules::NodeRules;

/// What rules can see of a node: values of the keys that some rule speaks of, and taints.
type Seen<'n> = (Vec<Option<&'n str>>, &'n [Taint]);

/// The profile of every node, so that rules are judged once a profile.
#[derive(Clone, Debug, Default)]
pub(super) struct Profiles {
    of_node: Vec<usize>,
    /// One node of each profile.
    examples: Vec<usize>,
}

impl Profiles {
    /// Profiles under the keys that the plan's rules speak of. (Terms ask for more: by the names of
    /// hosts, each node would be one of its own.)
    pub(super) fn of(nodes: &[ExistingNode<'_>], keys: &BTreeSet<&str>) -> Self {
        let mut profiles = Self::default();
        let mut known: BTreeMap<Seen<'_>, usize> = BTreeMap::new();
        for (number, node) in nodes.iter().enumerate() {
            let next = profiles.examples.len();
            let labels = keys.iter().map(|key| node.labels.get(*key).map(String::as_str)).collect();
            let profile = if node.is_decided() {
                *known.entry((labels, &node.taints)).or_insert(next)
            } else {
                next
            };
            if profile == next {
                profiles.examples.push(number);
            }
            profiles.of_node.push(profile);
        }
        profiles
    }

    /// The nodes whose labels and taints fulfil some rules, in order.
    pub(super) fn admitting(&self, nodes: &[ExistingNode<'_>], rules: &NodeRules) -> Vec<usize> {
        let admits = |example: &usize| nodes.get(*example).is_some_and(|node| node.admits(rules));
        let admitted: Vec<bool> = self.examples.iter().map(admits).collect();
        let profiles = self.of_node.iter().enumerate();
        let admitted = profiles.filter(|(_, profile)| admitted.get(**profile) == Some(&true));
        admitted.map(|(node, _)| node).collect()
    }
}
