//! Spread, affinity and anti-affinity over everything that runs and everything planned.
//!
//! Judged by the final state: anti-affinity must hold for every pair, affinity must find a mate, and
//! no domain that the plan added to may exceed the emptiest one by more than the skew.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{LabelSelector, Pod, PodAffinityTerm};
use drover_common::labels;

use super::host::{Host, host_of_target, hosts_of_launch};
use super::{Violation, pods_of, violation};
use crate::planner::{Plan, PlanInput};

/// A pod and where it is.
struct Located<'v> {
    pod: &'v Pod,
    /// Labels of its node, the host name always among them. Labels that a launch leaves open are
    /// absent.
    node: usize,
    new: bool,
}

pub(super) fn check(input: &PlanInput<'_>, plan: &Plan, violations: &mut Vec<Violation>) {
    let (nodes, pods) = locate(input, plan);
    if !pods.iter().any(|located| has_topology(located.pod)) {
        return;
    }
    for located in &pods {
        let Some(labels) = nodes.get(located.node) else { continue };
        check_anti_affinity(input, located, labels, &nodes, &pods, violations);
        if located.new {
            check_affinity(input, located, labels, &nodes, &pods, violations);
            check_spread(located, labels, &nodes, &pods, violations);
        }
    }
}

fn has_topology(pod: &Pod) -> bool {
    !pod.spec.topology_spread_constraints.is_empty()
        || pod.spec.affinity.pod_affinity.is_some()
        || pod.spec.affinity.pod_anti_affinity.is_some()
}

type Labels = BTreeMap<String, String>;

/// Node labels, and every pod with the number of its node.
fn locate<'v>(input: &PlanInput<'v>, plan: &Plan) -> (Vec<Labels>, Vec<Located<'v>>) {
    let mut nodes: Vec<Labels> = Vec::new();
    let mut pods = Vec::new();
    let planned: BTreeSet<_> = plan
        .placements
        .iter()
        .flat_map(|placement| &placement.pods)
        .chain(plan.launches.iter().flat_map(|launch| &launch.pods))
        .collect();
    let mut numbers = BTreeMap::new();
    for (name, node) in input.view.nodes() {
        let mut labels = node.metadata.labels.clone();
        labels.entry(labels::HOSTNAME.to_owned()).or_insert_with(|| name.to_string());
        numbers.insert(name.to_string(), nodes.len());
        nodes.push(labels);
    }
    for (key, entry) in input.view.pods() {
        if let Some(node) = numbers.get(&entry.pod.spec.node_name)
            && !entry.pod.is_terminal()
            && !planned.contains(key)
        {
            pods.push(Located { pod: &entry.pod, node: *node, new: false });
        }
    }
    let mut add =
        |host: Host, keys: &[drover_common::cluster::ObjectKey], nodes: &mut Vec<Labels>| {
            let number = numbers.get(&host.name).copied().unwrap_or_else(|| {
                let mut labels = host.labels.clone();
                labels.entry(labels::HOSTNAME.to_owned()).or_insert_with(|| host.name.clone());
                nodes.push(labels);
                nodes.len() - 1
            });
            let located = pods_of(input, keys).into_iter();
            pods.extend(located.map(|pod| Located { pod, node: number, new: true }));
        };
    for placement in &plan.placements {
        if let Some(host) = host_of_target(input, &placement.node_or_claim) {
            add(host, &placement.pods, &mut nodes);
        }
    }
    for (number, launch) in plan.launches.iter().enumerate() {
        let hosts = hosts_of_launch(input, number, launch).unwrap_or_default();
        let Some(mut host) = hosts.first().cloned() else { continue };
        // What the launch may still become differently is not known.
        host.labels
            .retain(|key, value| hosts.iter().all(|other| other.labels.get(key) == Some(value)));
        add(host, &launch.pods, &mut nodes);
    }
    (nodes, pods)
}

pub(super) fn selected(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return false };
    let equal = selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().all(|expression| {
            let value = labels.get(&expression.key);
            match expression.operator.as_str() {
                "In" => value.is_some_and(|value| expression.values.contains(value)),
                "NotIn" => value.is_none_or(|value| !expression.values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// Whether a term of `owner` is about `other`.
fn about(input: &PlanInput<'_>, owner: &Pod, term: &PodAffinityTerm, other: &Pod) -> bool {
    let space = &other.metadata.namespace;
    let by_selector = term.namespace_selector.as_ref().is_some_and(|selector| {
        *selector == LabelSelector::default()
            || input
                .view
                .namespaces()
                .get(space)
                .is_some_and(|found| selected(Some(selector), &found.metadata.labels))
    });
    let own = term.namespaces.is_empty()
        && term.namespace_selector.is_none()
        && *space == owner.metadata.namespace;
    let same = |key: &String| {
        let mine = owner.metadata.labels.get(key);
        mine.is_none() || mine == other.metadata.labels.get(key)
    };
    let differs = |key: &String| {
        let mine = owner.metadata.labels.get(key);
        mine.is_none() || mine != other.metadata.labels.get(key)
    };
    (own || by_selector || term.namespaces.contains(space))
        && selected(term.label_selector.as_ref(), &other.metadata.labels)
        && term.match_label_keys.iter().all(same)
        && term.mismatch_label_keys.iter().all(differs)
}

fn check_anti_affinity(
    input: &PlanInput<'_>,
    located: &Located<'_>,
    own: &Labels,
    nodes: &[Labels],
    pods: &[Located<'_>],
    violations: &mut Vec<Violation>,
) {
    let affinity = located.pod.spec.affinity.pod_anti_affinity.as_ref();
    for term in affinity.map_or(&[][..], |affinity| &affinity.required) {
        let Some(domain) = own.get(&term.topology_key) else { continue };
        let clash = pods.iter().find(|other| {
            (located.new || other.new)
                && !std::ptr::eq(other.pod, located.pod)
                && nodes.get(other.node).and_then(|labels| labels.get(&term.topology_key))
                    == Some(domain)
                && about(input, located.pod, term, other.pod)
        });
        if let Some(other) = clash {
            let rule = format!(
                "anti-affinity over {} with {} is broken",
                term.topology_key, other.pod.metadata.name
            );
            violations.push(violation(&located.pod.metadata.name, rule));
        }
    }
}

fn check_affinity(
    input: &PlanInput<'_>,
    located: &Located<'_>,
    own: &Labels,
    nodes: &[Labels],
    pods: &[Located<'_>],
    violations: &mut Vec<Violation>,
) {
    let affinity = located.pod.spec.affinity.pod_affinity.as_ref();
    for term in affinity.map_or(&[][..], |affinity| &affinity.required) {
        let domain = own.get(&term.topology_key);
        let mut elsewhere = false;
        let found = pods.iter().any(|other| {
            if std::ptr::eq(other.pod, located.pod) || !about(input, located.pod, term, other.pod) {
                return false;
            }
            elsewhere = true;
            let place = nodes.get(other.node).and_then(|labels| labels.get(&term.topology_key));
            domain.is_some() && place == domain
        });
        // The first of pods that like each other has nobody to join.
        let first = !elsewhere && about(input, located.pod, term, located.pod);
        if !found && !first {
            let rule = format!("affinity over {} finds nobody", term.topology_key);
            violations.push(violation(&located.pod.metadata.name, rule));
        }
    }
}

fn check_spread(
    located: &Located<'_>,
    own: &Labels,
    nodes: &[Labels],
    pods: &[Located<'_>],
    violations: &mut Vec<Violation>,
) {
    let constraints = &located.pod.spec.topology_spread_constraints;
    for constraint in constraints.iter().filter(|c| c.when_unsatisfiable != "ScheduleAnyway") {
        let key = &constraint.topology_key;
        let Some(domain) = own.get(key) else {
            let rule = format!("its node has no {key} to spread over");
            violations.push(violation(&located.pod.metadata.name, rule));
            continue;
        };
        // Counted pods without the constraint may come in any order, so they only count where they
        // relax it.
        let counts = |strict: bool| {
            let mut counts: BTreeMap<&String, i64> = BTreeMap::new();
            for other in pods.iter().filter(|other| !other.pod.is_terminating()) {
                let same_space = other.pod.metadata.namespace == located.pod.metadata.namespace;
                let bound = !other.new || constraints_equal(other.pod, located.pod);
                let matches = same_space
                    && selected(constraint.label_selector.as_ref(), &other.pod.metadata.labels)
                    && constraint.match_label_keys.iter().all(|key| {
                        other.pod.metadata.labels.get(key) == located.pod.metadata.labels.get(key)
                    });
                if matches
                    && (bound || !strict)
                    && let Some(place) = nodes.get(other.node).and_then(|labels| labels.get(key))
                {
                    *counts.entry(place).or_default() += 1;
                }
            }
            counts
        };
        let here = counts(true).get(domain).copied().unwrap_or(0);
        let all = counts(false);
        let least = if key == labels::HOSTNAME {
            0
        } else {
            nodes
                .iter()
                .filter_map(|labels| labels.get(key))
                .map(|place| all.get(place).copied().unwrap_or(0))
                .min()
                .unwrap_or(0)
        };
        let skew = i64::from(constraint.max_skew.max(1));
        // Domains that node affinity keeps out of the count are left to the planner's own tests.
        let filtered = located.pod.spec.affinity.node_affinity.is_some()
            || !located.pod.spec.node_selector.is_empty();
        if !filtered && here - least > skew {
            let rule = format!("{here} pods in {key}={domain} against {least}, skew {skew}");
            violations.push(violation(&located.pod.metadata.name, rule));
        }
    }
}

fn constraints_equal(a: &Pod, b: &Pod) -> bool {
    a.spec.topology_spread_constraints == b.spec.topology_spread_constraints
}
