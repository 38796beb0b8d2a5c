//! Nodes that are there or on their way, as places for pods.

use std::collections::BTreeMap;

use drover_common::cluster::{Node, ObjectKey};
use drover_common::id::{NodeClaimName, NodeName};
use drover_common::labels;
use drover_common::taint::Taint;

use super::daemon::Daemon;
use super::dimension::{Amounts, Dimensions, add_times};
use super::group::Group;
use super::rules::NodeRules;
use super::{InFlightNode, PlacementTarget, PlanInput};
use crate::view::{HostPort, View};

/// A place that costs nothing more.
#[derive(Clone, Debug)]
pub(super) struct ExistingNode {
    pub target: PlacementTarget,
    pub labels: BTreeMap<String, String>,
    /// Labels whose value is not decided yet, with all it may be.
    pub open: Vec<(String, Vec<String>)>,
    pub taints: Vec<Taint>,
    pub room: Amounts,
    pub used: Amounts,
    pub ports: Vec<HostPort>,
    /// Volumes that can still be attached, by the one driver with a limit that counts most.
    pub attachable: Option<i64>,
    /// Pods meant for it when it was launched.
    pub meant: Vec<ObjectKey>,
    pub pods: Vec<ObjectKey>,
}

impl ExistingNode {
    /// The node's value of a topology key; its name stands in for an absent host name.
    pub(super) fn domain(&self, key: &str) -> Option<String> {
        if let Some(value) = self.labels.get(key) {
            return Some(value.clone());
        }
        (key == labels::HOSTNAME).then(|| match &self.target {
            PlacementTarget::Node(name) => name.to_string(),
            PlacementTarget::Claim(name) => format!("claim/{name}"),
        })
    }

    /// Whether labels and taints let a group in, whatever the open labels turn out to be.
    pub(super) fn admits(&self, rules: &NodeRules) -> bool {
        if rules.repelled_by(&self.taints).is_some() {
            return false;
        }
        let mut labels = self.labels.clone();
        self.admits_open(rules, &mut labels, &self.open)
    }

    fn admits_open(
        &self,
        rules: &NodeRules,
        labels: &mut BTreeMap<String, String>,
        open: &[(String, Vec<String>)],
    ) -> bool {
        let Some(((key, values), rest)) = open.split_first() else {
            return rules.admit(&|key| labels.get(key).map(String::as_str));
        };
        // Only keys that the rules speak of can matter.
        let spoken = rules.all.iter().chain(rules.any.iter().flatten().flatten());
        if !spoken.into_iter().any(|requirement| requirement.key == *key) {
            return self.admits_open(rules, labels, rest);
        }
        let all = values.iter().all(|value| {
            labels.insert(key.clone(), value.clone());
            self.admits_open(rules, labels, rest)
        });
        labels.remove(key);
        all
    }

    /// Whether host ports and attachments allow one more.
    pub(super) fn has_ports_for(&self, group: &Group) -> bool {
        let conflict =
            group.shape.ports.iter().any(|own| self.ports.iter().any(|port| own.conflicts(port)));
        let volumes = i64::try_from(group.shape.volumes.len()).unwrap_or(i64::MAX);
        !conflict && self.attachable.is_none_or(|left| volumes <= left)
    }

    /// Books pods of a group.
    pub(super) fn book(&mut self, group: &Group, pods: Vec<ObjectKey>) {
        let count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        add_times(&mut self.used, &group.request, count);
        for _ in 0..count.min(1) {
            self.ports.extend(group.shape.ports.iter().cloned());
        }
        if let Some(left) = &mut self.attachable {
            let each = i64::try_from(group.shape.volumes.len()).unwrap_or(i64::MAX);
            *left = left.saturating_sub(each.saturating_mul(i64::from(count)));
        }
        self.pods.extend(pods);
    }
}

/// Every place there is: nodes by name, then what is in flight in the order given.
pub(super) fn existing_nodes(
    input: &PlanInput<'_>,
    dimensions: &Dimensions,
    daemons: &[Daemon],
) -> Vec<ExistingNode> {
    let view = input.view;
    let flying: std::collections::BTreeSet<&NodeClaimName> =
        input.in_flight.iter().map(|node| &node.claim).collect();
    let mut places = Vec::new();
    for (name, node) in view.nodes() {
        let in_flight =
            claim_name(view, node).is_some_and(|claim| flying.contains(&NodeClaimName(claim)));
        if !in_flight && takes_pods(input, name, node) {
            places.push(existing_node(view, dimensions, daemons, name, node));
        }
    }
    places.extend(input.in_flight.iter().map(|node| in_flight_node(dimensions, daemons, node)));
    places
}

fn claim_name(view: &View, node: &Node) -> Option<String> {
    view.claim_of_node(node)?.metadata.name.clone()
}

fn takes_pods(input: &PlanInput<'_>, name: &NodeName, node: &Node) -> bool {
    !input.leaving.contains(name)
        && node.metadata.deletion_timestamp.is_none()
        && !node.spec.unschedulable
        && node.is_ready()
}

fn existing_node(
    view: &View,
    dimensions: &Dimensions,
    daemons: &[Daemon],
    name: &NodeName,
    node: &Node,
) -> ExistingNode {
    let mut used = vec![0; dimensions.len()];
    let mut ports = Vec::new();
    let mut volumes = 0_i64;
    if let Some(pods) = view.node_pods(name) {
        for (shape, count) in &pods.shapes {
            let Some(shape) = view.shape(*shape) else { continue };
            add_times(&mut used, &dimensions.dense(&shape.requests), *count);
            ports.extend(shape.ports.iter().cloned());
            let each = i64::try_from(shape.volumes.len()).unwrap_or(0);
            volumes = volumes.saturating_add(each.saturating_mul(i64::from(*count)));
        }
    }
    let label = |key: &str| node.metadata.labels.get(key).map(String::as_str);
    for daemon in daemons {
        let running =
            view.node_pods(name).is_some_and(|pods| pods.daemons.contains_key(&daemon.key));
        if !running && daemon.runs_on(&label, &node.spec.taints, &|_| false) {
            add_times(&mut used, &dimensions.dense(&daemon.shape.requests), 1);
            ports.extend(daemon.shape.ports.iter().cloned());
        }
    }
    ExistingNode {
        target: PlacementTarget::Node(name.clone()),
        labels: node.metadata.labels.clone(),
        open: Vec::new(),
        taints: lasting_taints(node),
        room: dimensions.dense(&node.status.allocatable),
        used,
        ports,
        attachable: attach_limit(view, name).map(|limit| limit.saturating_sub(volumes)),
        meant: Vec::new(),
        pods: Vec::new(),
    }
}

/// Taints that count for a plan. That a node may be consolidated one day keeps no pod from it that
/// would otherwise need a new node.
fn lasting_taints(node: &Node) -> Vec<Taint> {
    let taints = node.spec.taints.iter();
    taints.filter(|taint| taint.key != labels::CANDIDATE_TAINT).cloned().collect()
}

/// The smallest attach limit that a driver reports for the node. Drivers are not told apart: a
/// volume counts against the tightest one.
fn attach_limit(view: &View, name: &NodeName) -> Option<i64> {
    let drivers = &view.csi_nodes().get(name)?.spec.drivers;
    drivers.iter().filter_map(|driver| driver.allocatable.as_ref()?.count).map(i64::from).min()
}

fn in_flight_node(
    dimensions: &Dimensions,
    daemons: &[Daemon],
    node: &InFlightNode,
) -> ExistingNode {
    let mut used = vec![0; dimensions.len()];
    let mut ports = Vec::new();
    let label = |key: &str| node.labels.get(key).map(String::as_str);
    let unknown = |key: &str| !node.labels.contains_key(key);
    for daemon in daemons.iter().filter(|d| d.runs_on(&label, &node.taints, &unknown)) {
        add_times(&mut used, &dimensions.dense(&daemon.shape.requests), 1);
        ports.extend(daemon.shape.ports.iter().cloned());
    }
    let mut known = node.labels.clone();
    let mut open = Vec::new();
    for requirement in node.requirements.to_requirements() {
        if known.contains_key(&requirement.key)
            || requirement.operator != drover_common::requirement::Operator::In
        {
            continue;
        }
        match requirement.values.as_slice() {
            [only] => drop(known.insert(requirement.key.clone(), only.clone())),
            _ => open.push((requirement.key, requirement.values)),
        }
    }
    ExistingNode {
        target: PlacementTarget::Claim(node.claim.clone()),
        labels: known,
        open,
        taints: node.taints.clone(),
        room: dimensions.dense(&node.allocatable),
        used,
        ports,
        attachable: None,
        meant: node.pods.clone(),
        pods: Vec::new(),
    }
}
