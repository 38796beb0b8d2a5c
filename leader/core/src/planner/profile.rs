//! Nodes that no rule of a plan tells apart.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::instance_type::InstanceType;
use drover_common::taint::Taint;

use super::existing::ExistingNode;
use super::market::type_label;
use super::rules::NodeRules;

/// What rules can see of a node: values of the keys that some rule speaks of, and taints; of one that is not decided
/// yet, also what of those may be.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen<'n> {
    values: Values<'n>,
    open: Vec<&'n (String, Vec<String>)>,
    by_type: BTreeSet<Values<'n>>,
    taints: &'n [Taint],
}

/// By key.
type Values<'n> = Vec<Option<&'n str>>;

impl<'n> Seen<'n> {
    pub(super) fn of(node: &'n ExistingNode<'_>, keys: &BTreeSet<&str>) -> Self {
        let of_type = |kind: &&'n InstanceType| {
            let kind: &'n InstanceType = kind;
            keys.iter().map(|key| type_label(kind, key)).collect()
        };
        Self {
            values: keys.iter().map(|key| node.label(key)).collect(),
            open: node.open.iter().filter(|(key, _)| keys.contains(key.as_str())).collect(),
            by_type: node.readings.iter().map(of_type).collect(),
            taints: &node.taints,
        }
    }
}

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
            let profile = *known.entry(Seen::of(node, keys)).or_insert(next);
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
