//! Spread, affinity and anti-affinity over everything that runs and everything planned.
//!
//! Judged by the final state: anti-affinity must hold for every pair, affinity must find its mates in
//! some order of arrival, and no domain that the plan added to may exceed the emptiest one by more
//! than the skew. A node that may still be in one of several domains counts for all of them where
//! that forbids, and for none where it permits.

mod spread;

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{LabelSelector, ObjectKey, Pod, PodAffinityTerm};
use drover_common::id::NodeName;
use drover_common::labels;
use drover_common::taint::Taint;

use super::host::{Host, hosts_of_launch, hosts_of_target};
use super::{Violation, pod_of, violation};
use crate::planner::{PlacementTarget, Plan, PlanInput};

/// Every value that each label may have.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// A node, there or planned.
struct Place {
    labels: Labels,
    taints: Vec<Taint>,
    /// Its name, if it has one yet.
    node: Option<NodeName>,
}

impl Place {
    /// Its domain, if it is decided.
    fn domain(&self, key: &str) -> Option<&str> {
        let mut values = self.labels.get(labels::stable_name(key))?.iter();
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    /// Whether it has such a label, decided or not.
    fn has(&self, key: &str) -> bool {
        self.labels.contains_key(labels::stable_name(key))
    }

    /// Whether it may be in one domain with another.
    fn may_share(&self, other: &Place, key: &str) -> bool {
        let key = labels::stable_name(key);
        let both = self.labels.get(key).zip(other.labels.get(key));
        both.is_some_and(|(own, others)| !own.is_disjoint(others))
    }
}

/// A pod and where it is.
struct Located<'v> {
    pod: &'v Pod,
    place: usize,
    new: bool,
}

/// All places and pods of the cluster once the plan is carried out.
struct Picture<'v> {
    places: Vec<Place>,
    pods: Vec<Located<'v>>,
}

pub(super) fn check(input: &PlanInput<'_>, plan: &Plan, violations: &mut Vec<Violation>) {
    let picture = Picture::of(input, plan);
    if !picture.pods.iter().any(|located| has_topology(located.pod)) {
        return;
    }
    for located in &picture.pods {
        check_anti_affinity(input, located, &picture, violations);
        if located.new {
            spread::check(located, &picture, violations);
        }
    }
    check_affinity(input, &picture, violations);
}

fn has_topology(pod: &Pod) -> bool {
    !pod.spec.topology_spread_constraints.is_empty()
        || pod.spec.affinity.pod_affinity.is_some()
        || pod.spec.affinity.pod_anti_affinity.is_some()
}

impl<'v> Picture<'v> {
    fn of(input: &PlanInput<'v>, plan: &Plan) -> Self {
        let mut picture = Self { places: Vec::new(), pods: Vec::new() };
        let planned: BTreeSet<&ObjectKey> = plan
            .placements
            .iter()
            .flat_map(|placement| &placement.pods)
            .chain(plan.launches.iter().flat_map(|launch| &launch.pods))
            .collect();
        let mut numbers = BTreeMap::new();
        for (name, node) in input.view.nodes() {
            numbers.insert(name.to_string(), picture.places.len());
            let mut labels = single(&node.metadata.labels);
            labels
                .entry(labels::HOSTNAME.to_owned())
                .or_insert_with(|| BTreeSet::from([name.to_string()]));
            let (taints, node) = (node.spec.taints.clone(), Some(name.clone()));
            picture.places.push(Place { labels, taints, node });
        }
        for (key, entry) in input.view.pods() {
            if let Some(place) = numbers.get(&entry.pod.spec.node_name)
                && !entry.pod.is_terminal()
                && !planned.contains(key)
            {
                picture.pods.push(Located { pod: &entry.pod, place: *place, new: false });
            }
        }
        for flying in input.in_flight {
            let target = PlacementTarget::Claim(flying.claim.clone());
            let pods = plan.placements.iter().find(|p| p.node_or_claim == target);
            let keys = pods.map(|p| p.pods.as_slice()).unwrap_or_default();
            let joined = flying.node.as_ref().and_then(|node| numbers.get(node.as_str()));
            let hosts = hosts_of_target(input, &target);
            match joined {
                Some(place) => picture.add_pods(input, *place, keys),
                None => picture.add(input, &hosts, &flying.claim.0, keys),
            }
        }
        for placement in &plan.placements {
            if let PlacementTarget::Node(name) = &placement.node_or_claim
                && let Some(place) = numbers.get(name.as_str())
            {
                picture.add_pods(input, *place, &placement.pods);
            }
        }
        for (number, launch) in plan.launches.iter().enumerate() {
            let hosts = hosts_of_launch(input, number, launch).unwrap_or_default();
            picture.add(input, &hosts, &format!("launch {number}"), &launch.pods);
        }
        picture
    }

    /// Adds a node that may be any of some hosts, with its pods.
    fn add(&mut self, input: &PlanInput<'v>, hosts: &[Host], name: &str, pods: &[ObjectKey]) {
        let mut labels = Labels::new();
        for host in hosts {
            for (key, value) in &host.labels {
                labels.entry(key.clone()).or_default().insert(value.clone());
            }
        }
        labels
            .entry(labels::HOSTNAME.to_owned())
            .or_insert_with(|| BTreeSet::from([format!("new/{name}")]));
        let taints = hosts.first().map(|host| host.taints.clone()).unwrap_or_default();
        self.places.push(Place { labels, taints, node: None });
        self.add_pods(input, self.places.len() - 1, pods);
    }

    fn add_pods(&mut self, input: &PlanInput<'v>, place: usize, keys: &[ObjectKey]) {
        let pods = keys.iter().filter_map(|key| pod_of(input, key));
        self.pods.extend(pods.map(|pod| Located { pod, place, new: true }));
    }

    fn place(&self, located: &Located<'_>) -> Option<&Place> {
        self.places.get(located.place)
    }
}

fn single(labels: &BTreeMap<String, String>) -> Labels {
    labels.iter().map(|(key, value)| (key.clone(), BTreeSet::from([value.clone()]))).collect()
}

pub(super) fn selected(
    selector: Option<&LabelSelector>,
    labels: &BTreeMap<String, String>,
) -> bool {
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
    picture: &Picture<'_>,
    violations: &mut Vec<Violation>,
) {
    let affinity = located.pod.spec.affinity.pod_anti_affinity.as_ref();
    let Some(own) = picture.place(located) else { return };
    for term in affinity.map_or(&[][..], |affinity| &affinity.required) {
        let clash = picture.pods.iter().find(|other| {
            (located.new || other.new)
                && !std::ptr::eq(*other, located)
                && picture
                    .place(other)
                    .is_some_and(|place| own.may_share(place, &term.topology_key))
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

fn affinity_of(pod: &Pod) -> &[PodAffinityTerm] {
    pod.spec.affinity.pod_affinity.as_ref().map_or(&[], |affinity| &affinity.required)
}

fn check_affinity(input: &PlanInput<'_>, picture: &Picture<'_>, violations: &mut Vec<Violation>) {
    for located in lonely(input, picture) {
        let keys: Vec<&str> =
            affinity_of(located.pod).iter().map(|term| term.topology_key.as_str()).collect();
        let rule = format!("affinity over {} finds nobody", keys.join(", "));
        violations.push(violation(&located.pod.metadata.name, rule));
    }
}

/// Lets new pods arrive in any order in which each finds its mates: pods that match all its terms,
/// one in each term's domain; or nobody anywhere, if it is of that kind itself. Who can't arrive is
/// misplaced. Source: kube-scheduler counts pods by the labels of their nodes, so that one on a node with
/// none of the terms' labels is nobody's mate (`satisfyPodAffinity`).
fn lonely<'p, 'v>(input: &PlanInput<'_>, picture: &'p Picture<'v>) -> Vec<&'p Located<'v>> {
    let needy = |located: &Located<'_>| located.new && !affinity_of(located.pod).is_empty();
    let mut there: Vec<&Located<'_>> = picture.pods.iter().filter(|pod| !needy(pod)).collect();
    let mut waiting: Vec<&Located<'_>> = picture.pods.iter().filter(|pod| needy(pod)).collect();
    loop {
        let before = waiting.len();
        waiting.retain(|located| {
            let arrives = finds_mates(input, picture, located, &there);
            if arrives {
                there.push(located);
            }
            !arrives
        });
        if waiting.is_empty() || waiting.len() == before {
            return waiting;
        }
    }
}

fn finds_mates(
    input: &PlanInput<'_>,
    picture: &Picture<'_>,
    located: &Located<'_>,
    there: &[&Located<'_>],
) -> bool {
    let terms = affinity_of(located.pod);
    let Some(own) = picture.place(located) else { return false };
    let is_mate = |other: &Pod| terms.iter().all(|term| about(input, located.pod, term, other));
    let mates: Vec<&Place> = there
        .iter()
        .filter(|other| is_mate(other.pod))
        .filter_map(|other| picture.place(other))
        .filter(|place| terms.iter().any(|term| place.has(&term.topology_key)))
        .collect();
    let labelled = terms.iter().all(|term| own.domain(&term.topology_key).is_some());
    let found = terms.iter().all(|term| {
        let key = &term.topology_key;
        mates.iter().any(|place| own.domain(key).is_some() && place.domain(key) == own.domain(key))
    });
    found || (labelled && mates.is_empty() && is_mate(located.pod))
}
