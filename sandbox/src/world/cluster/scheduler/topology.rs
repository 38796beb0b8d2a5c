//! Rules between pods: hard topology spread, required affinity and anti-affinity, both ways.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{
    LabelSelector, LabelSelectorRequirement, Node, Pod, PodAffinity, PodAffinityTerm,
    TopologySpreadConstraint,
};
use drover_common::taint;
use serde_json::Value;

use super::super::Turn;
use super::super::index::PodEntry;
use super::NodeRules;
use crate::world::resource::NAMESPACES;
use crate::world::store::Store;

/// What the pods that are there mean for a new one.
#[derive(Debug, Default)]
pub(super) struct Topology {
    spread: Vec<Spread>,
    affinity: Vec<Affinity>,
    /// Domains that the pod keeps away from.
    avoided: BTreeSet<(String, String)>,
    /// Domains whose pods keep it away.
    guarded: BTreeSet<(String, String)>,
}

#[derive(Debug)]
struct Spread {
    key: String,
    most: i64,
    own: i64,
    least: i64,
    counts: BTreeMap<String, i64>,
}

#[derive(Debug)]
struct Affinity {
    key: String,
    domains: BTreeSet<String>,
    /// Nobody matches yet, and the pod matches itself: the first may go anywhere.
    first: bool,
}

impl Topology {
    pub(super) fn of(turn: &Turn<'_>, pod: &Pod) -> Self {
        let affinity = &pod.spec.affinity;
        let required = |affinity: &Option<PodAffinity>| {
            affinity.as_ref().map_or(Vec::new(), |own| own.required.clone())
        };
        let hard = |constraint: &&TopologySpreadConstraint| {
            constraint.when_unsatisfiable != "ScheduleAnyway"
        };
        let mut topology = Self {
            spread: pod
                .spec
                .topology_spread_constraints
                .iter()
                .filter(hard)
                .map(|constraint| spread(turn, pod, constraint))
                .collect(),
            ..Self::default()
        };
        let terms = required(&affinity.pod_affinity);
        let mut found: Vec<BTreeSet<String>> = Vec::new();
        for term in &terms {
            let domains = domains(turn, pod, term);
            found.push(domains.into_iter().map(|(_, domain)| domain).collect());
        }
        let nobody = found.iter().all(BTreeSet::is_empty);
        let itself = terms.iter().all(|term| picks(turn.store, term, pod, pod));
        topology.affinity = terms
            .into_iter()
            .zip(found)
            .map(|(term, domains)| Affinity {
                key: term.topology_key,
                domains,
                first: nobody && itself,
            })
            .collect();
        for term in required(&affinity.pod_anti_affinity) {
            topology.avoided.extend(domains(turn, pod, &term));
        }
        topology.guarded = guarded(turn, pod);
        topology
    }

    /// Why a node will not do, in kube-scheduler's words.
    pub(super) fn refusal(&self, node: &Node) -> Option<&'static str> {
        let label = |key: &str| node.metadata.labels.get(key);
        for spread in &self.spread {
            let Some(domain) = label(&spread.key) else {
                return Some(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                );
            };
            let count = spread.counts.get(domain).copied().unwrap_or(0);
            if count + spread.own - spread.least > spread.most {
                return Some("node(s) didn't match pod topology spread constraints");
            }
        }
        for affinity in &self.affinity {
            let there =
                label(&affinity.key).is_some_and(|domain| affinity.domains.contains(domain));
            let first = affinity.first && label(&affinity.key).is_some();
            if !there && !first {
                return Some("node(s) didn't match pod affinity rules");
            }
        }
        let within = |domains: &BTreeSet<(String, String)>| {
            domains.iter().any(|(key, value)| label(key) == Some(value))
        };
        if within(&self.avoided) {
            return Some("node(s) didn't match pod anti-affinity rules");
        }
        within(&self.guarded).then_some("node(s) didn't satisfy existing pods anti-affinity rules")
    }
}

/// Pods that take room, with their nodes.
fn placed<'a>(turn: &'a Turn<'_>) -> impl Iterator<Item = (&'a PodEntry, &'a Node)> {
    turn.index.on_node.iter().flat_map(move |(name, keys)| {
        let node = turn.index.nodes.get(name);
        keys.iter().filter_map(move |key| {
            let entry = turn.index.pods.get(key).filter(|entry| entry.takes_room())?;
            Some((&**entry, &**node?))
        })
    })
}

/// The domains that hold a pod which `pod`'s term picks.
fn domains(turn: &Turn<'_>, pod: &Pod, term: &PodAffinityTerm) -> BTreeSet<(String, String)> {
    placed(turn)
        .filter_map(|(other, node)| {
            let domain = node.metadata.labels.get(&term.topology_key)?;
            picks(turn.store, term, pod, &other.pod)
                .then(|| (term.topology_key.clone(), domain.clone()))
        })
        .collect()
}

/// The domains of pods whose anti-affinity is against `pod`.
fn guarded(turn: &Turn<'_>, pod: &Pod) -> BTreeSet<(String, String)> {
    let mut domains = BTreeSet::new();
    for entry in turn.index.anti_affine.iter().filter_map(|key| turn.index.pods.get(key)) {
        let Some(node) = turn.index.nodes.get(&entry.pod.spec.node_name) else { continue };
        let anti = entry.pod.spec.affinity.pod_anti_affinity.as_ref();
        for term in anti.into_iter().flat_map(|anti| &anti.required) {
            if let Some(domain) = node.metadata.labels.get(&term.topology_key)
                && picks(turn.store, term, &entry.pod, pod)
            {
                domains.insert((term.topology_key.clone(), domain.clone()));
            }
        }
    }
    domains
}

/// Whether a term of `owner` picks `other`.
fn picks(store: &Store, term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
    let namespace = &other.metadata.namespace;
    let in_namespace = if term.namespaces.is_empty() && term.namespace_selector.is_none() {
        *namespace == owner.metadata.namespace
    } else {
        term.namespaces.contains(namespace)
            || term
                .namespace_selector
                .as_ref()
                .is_some_and(|selector| selector.matches(&namespace_labels(store, namespace)))
    };
    in_namespace
        && selector_with_keys(
            term.label_selector.as_ref(),
            owner,
            &term.match_label_keys,
            &term.mismatch_label_keys,
        )
        .is_some_and(|selector| selector.matches(&other.metadata.labels))
}

fn namespace_labels(store: &Store, namespace: &str) -> BTreeMap<String, String> {
    store
        .find(&NAMESPACES, "", namespace)
        .and_then(|found| found.pointer("/metadata/labels"))
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// A selector narrowed by label keys whose values are the pod's own.
fn selector_with_keys(
    selector: Option<&LabelSelector>,
    pod: &Pod,
    same: &[String],
    different: &[String],
) -> Option<LabelSelector> {
    let mut selector = selector?.clone();
    for (keys, operator) in [(same, "In"), (different, "NotIn")] {
        for key in keys {
            if let Some(value) = pod.metadata.labels.get(key) {
                selector.match_expressions.push(LabelSelectorRequirement {
                    key: key.clone(),
                    operator: operator.to_owned(),
                    values: vec![value.clone()],
                });
            }
        }
    }
    Some(selector)
}

fn spread(turn: &Turn<'_>, pod: &Pod, constraint: &TopologySpreadConstraint) -> Spread {
    let key = &constraint.topology_key;
    let rules = NodeRules::of(pod);
    let honor_affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let honor_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    let counted = |node: &Node| {
        (!honor_affinity || rules.match_node(node))
            && (!honor_taints
                || taint::tolerates_all(&node.spec.taints, &pod.spec.tolerations).is_ok())
    };
    let selector = selector_with_keys(
        constraint.label_selector.as_ref(),
        pod,
        &constraint.match_label_keys,
        &[],
    );
    let mut counts: BTreeMap<String, i64> = turn
        .index
        .nodes
        .values()
        .filter(|node| counted(node))
        .filter_map(|node| Some((node.metadata.labels.get(key)?.clone(), 0)))
        .collect();
    for (other, node) in placed(turn) {
        let same_namespace = other.pod.metadata.namespace == pod.metadata.namespace;
        if !same_namespace || other.pod.is_terminating() || !counted(node) {
            continue;
        }
        let picked = LabelSelector::picks(selector.as_ref(), &other.pod.metadata.labels);
        let domain = node.metadata.labels.get(key);
        if let Some(count) = domain.filter(|_| picked).and_then(|domain| counts.get_mut(domain)) {
            *count += 1;
        }
    }
    let few = i64::try_from(counts.len()).unwrap_or(i64::MAX)
        < i64::from(constraint.min_domains.unwrap_or(1));
    Spread {
        key: key.clone(),
        most: i64::from(constraint.max_skew),
        own: i64::from(LabelSelector::picks(selector.as_ref(), &pod.metadata.labels)),
        least: if few { 0 } else { counts.values().min().copied().unwrap_or(0) },
        counts,
    }
}
