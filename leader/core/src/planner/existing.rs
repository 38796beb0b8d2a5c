//! Nodes that are there or on their way, as places for pods.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Deref;

use drover_common::cluster::{Node, ObjectKey};
use drover_common::id::{NodeClaimName, NodeName};
use drover_common::instance_type::InstanceType;
use drover_common::labels;
use drover_common::taint::Taint;

use super::attach::AttachLimits;
use super::daemon::Daemon;
use super::dimension::{Amounts, Dimensions, add_times};
use super::group::Group;
use super::in_flight::in_flight_node;
use super::market::type_label;
use super::rules::{NODE_NAME, NodeRules};
use super::topology::{TermKind, Tracked};
use super::{PlacementTarget, PlanInput};
use crate::view::{HostPort, NodePods, View};

/// What is asked for a label's value.
type Label<'a, 'l> = dyn Fn(&str) -> Option<&'l str> + 'a;

/// Combinations of open labels that are tried for each type.
const MOST_COMBINATIONS: usize = 1_000;

/// A node's labels: those of the Node itself, or what is known of one that is yet to come.
#[derive(Clone, Debug)]
pub(super) enum NodeLabels<'a> {
    Node(&'a Node),
    Known(BTreeMap<String, String>),
}

impl Deref for NodeLabels<'_> {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        match self {
            NodeLabels::Node(node) => &node.metadata.labels,
            NodeLabels::Known(labels) => labels,
        }
    }
}

/// A place that costs nothing more.
#[derive(Clone, Debug)]
pub(super) struct ExistingNode<'a> {
    pub target: PlacementTarget,
    pub labels: NodeLabels<'a>,
    /// Labels whose value is not decided yet, with all it may be.
    pub open: Vec<(String, Vec<String>)>,
    /// The types that it may become, each with what its labels will be besides.
    pub readings: Vec<&'a InstanceType>,
    pub taints: Vec<Taint>,
    pub room: Amounts,
    pub used: Amounts,
    pub ports: Vec<HostPort>,
    /// Pods meant for it when it was launched.
    pub meant: Vec<ObjectKey>,
    pub pods: Vec<ObjectKey>,
}

impl<'a> ExistingNode<'a> {
    /// The value of a label, or the node's name, if it has one yet.
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        match &self.target {
            PlacementTarget::Node(name) if key == NODE_NAME => Some(name.as_str()),
            _ => self.labels.get(key).map(String::as_str),
        }
    }

    /// The node's value of a topology key; its name stands in for an absent host name.
    pub(super) fn domain(&self, key: &str) -> Option<Cow<'_, str>> {
        if let Some(value) = self.labels.get(key) {
            return Some(value.into());
        }
        (key == labels::HOSTNAME).then(|| match &self.target {
            PlacementTarget::Node(name) => name.as_str().into(),
            PlacementTarget::Claim(name) => format!("claim/{name}").into(),
        })
    }

    /// The node's domain of a term, if its pods count for the term or may.
    pub(super) fn counted_domain(&self, tracked: &Tracked) -> Option<Cow<'_, str>> {
        let domain = self.domain(&tracked.term.key)?;
        self.may_count(tracked, None).then_some(domain)
    }

    /// The domains of a term that the node may be in where its pods count for the term, or may.
    pub(super) fn possible_domains(&self, tracked: &Tracked) -> Vec<String> {
        let key = tracked.term.key.as_str();
        if !self.is_open(key) {
            return self.counted_domain(tracked).into_iter().map(Cow::into_owned).collect();
        }
        let open = self.open.iter().filter(|(open, _)| open == key).flat_map(|(_, all)| all);
        let read = self.readings.iter().filter_map(|kind| type_label(kind, key));
        let counts = |value: &&str| self.may_count(tracked, Some((key, value)));
        open.map(String::as_str).chain(read).filter(counts).map(str::to_owned).collect()
    }

    /// Whether a term counts the node's pods, whatever the open labels turn out to be or for some of
    /// what they may: what is not counted could break a spread later.
    fn may_count<'n>(&'n self, tracked: &'n Tracked, known: Option<(&'n str, &'n str)>) -> bool {
        let TermKind::Spread { nodes, .. } = &tracked.term.kind else { return true };
        if !tracked.has_keys(&|key| self.labels.contains_key(key) || self.is_open(key)) {
            return false;
        }
        let misses = |label: &Label<'_, 'n>| !tracked.counts_node(label, &self.taints);
        !self.in_every_reading(nodes, known, &misses)
    }

    /// Whether labels and taints let a group in, whatever the open labels turn out to be.
    pub(super) fn admits(&self, rules: &NodeRules) -> bool {
        rules.repelled_by(&self.taints).is_none()
            && self.in_every_reading(rules, None, &|label| rules.admit(label))
    }

    /// Whether pods that were planned onto it may still come, without their preferences where need be. Their rules on
    /// labels held for all that it might become; of a Node that is there, those that it has by now count.
    pub(super) fn still_admits(&self, group: &Group) -> bool {
        let is_told = self.label(NODE_NAME).is_some() && self.is_decided();
        group.variants.iter().any(|variant| {
            variant.rules.repelled_by(&self.taints).is_none()
                && (!is_told || self.admits(&variant.rules))
        })
    }

    /// Whether something holds whatever the open labels turn out to be that `rules` speak of. Where those are too many
    /// combinations to try it is taken not to.
    fn in_every_reading<'n>(
        &'n self,
        rules: &'n NodeRules,
        known: Option<(&'n str, &'n str)>,
        holds: &dyn Fn(&Label<'_, 'n>) -> bool,
    ) -> bool {
        let mut chosen: Vec<(&str, &str)> = known.into_iter().collect();
        let spoken = |key: &str| rules.keys().any(|spoken| spoken == key);
        let open = self.open.iter().filter(|(key, _)| spoken(key));
        let combinations = open.fold(1_usize, |all, (_, values)| all.saturating_mul(values.len()));
        if combinations > MOST_COMBINATIONS {
            return false;
        }
        if self.readings.is_empty() {
            return self.holds_for_open(rules, None, &mut chosen, &self.open, holds);
        }
        self.readings
            .iter()
            .all(|kind| self.holds_for_open(rules, Some(kind), &mut chosen, &self.open, holds))
    }

    fn holds_for_open<'n>(
        &'n self,
        rules: &'n NodeRules,
        reading: Option<&'n InstanceType>,
        chosen: &mut Vec<(&'n str, &'n str)>,
        open: &'n [(String, Vec<String>)],
        holds: &dyn Fn(&Label<'_, 'n>) -> bool,
    ) -> bool {
        let Some(((key, values), rest)) = open.split_first() else {
            return holds(&|key| {
                let decided = chosen.iter().find(|(own, _)| *own == key).map(|(_, value)| *value);
                let read = || type_label(reading?, key);
                decided.or_else(|| self.label(key)).or_else(read)
            });
        };
        // Only keys that the rules speak of can matter, and that are not decided yet.
        let decided = chosen.iter().any(|(own, _)| own == key);
        if decided || !rules.keys().any(|spoken| spoken == key) {
            return self.holds_for_open(rules, reading, chosen, rest, holds);
        }
        values.iter().all(|value| {
            chosen.push((key, value));
            let held = self.holds_for_open(rules, reading, chosen, rest, holds);
            chosen.pop();
            held
        })
    }

    /// Whether all its labels are known.
    pub(super) fn is_decided(&self) -> bool {
        self.open.is_empty() && self.readings.is_empty()
    }

    /// Whether its value of a key is not decided yet.
    pub(super) fn is_open(&self, key: &str) -> bool {
        !self.labels.contains_key(key)
            && (self.open.iter().any(|(open, _)| open == key)
                || self.readings.iter().any(|kind| type_label(kind, key).is_some()))
    }

    /// Whether host ports allow one more.
    pub(super) fn has_ports_for(&self, group: &Group) -> bool {
        !group.shape.ports.iter().any(|own| self.ports.iter().any(|port| own.conflicts(port)))
    }

    /// Books pods of a group.
    pub(super) fn book(&mut self, group: &Group, pods: Vec<ObjectKey>) {
        let count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        add_times(&mut self.used, &group.request, count);
        for _ in 0..count.min(1) {
            self.ports.extend(group.shape.ports.iter().cloned());
        }
        self.pods.extend(pods);
    }
}

impl<'a> ExistingNode<'a> {
    /// A place without pods to come, all its labels known.
    pub(super) fn new(
        target: PlacementTarget,
        labels: NodeLabels<'a>,
        taints: Vec<Taint>,
        room: Amounts,
        used: Amounts,
    ) -> Self {
        Self {
            target,
            labels,
            open: Vec::new(),
            readings: Vec::new(),
            taints,
            room,
            used,
            ports: Vec::new(),
            meant: Vec::new(),
            pods: Vec::new(),
        }
    }
}

/// Every place there is: nodes by name, then what is in flight in the order given.
pub(super) fn existing_nodes<'a>(
    input: &PlanInput<'a>,
    dimensions: &Dimensions,
    daemons: &[Daemon],
    limits: &AttachLimits,
) -> Vec<ExistingNode<'a>> {
    let view = input.view;
    let flying: std::collections::BTreeSet<&NodeClaimName> =
        input.in_flight.iter().map(|node| &node.claim).collect();
    let mut places = Vec::new();
    for (name, node, pods) in view.nodes_with_pods() {
        let in_flight = !flying.is_empty()
            && claim_name(view, node)
                .is_some_and(|claim| flying.contains(&NodeClaimName::from(claim)));
        if !in_flight && takes_pods(input, name, node) {
            places.push(existing_node(view, dimensions, daemons, limits, name, node, pods));
        }
    }
    let flying = input.in_flight.iter();
    places.extend(flying.map(|node| in_flight_node(input, dimensions, daemons, limits, node)));
    let seats: BTreeMap<&PlacementTarget, &Vec<ObjectKey>> =
        input.seats.iter().map(|seat| (&seat.node_or_claim, &seat.pods)).collect();
    for place in &mut places {
        let pods = seats.get(&place.target).into_iter().copied().flatten();
        place.meant.extend(pods.cloned());
    }
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

/// What the pods bound to a node take.
pub(super) fn bound(
    view: &View,
    dimensions: &Dimensions,
    pods: Option<&NodePods>,
) -> (Amounts, Vec<HostPort>) {
    let Some(pods) = pods else {
        return (vec![0; dimensions.len()], Vec::new());
    };
    let used = dimensions.dense(&pods.requests);
    let mut ports = Vec::new();
    // Few nodes have more to add up than that.
    for shape in pods.shapes.keys().filter(|_| pods.specials > 0) {
        let Some(shape) = view.shape(*shape) else { continue };
        ports.extend(shape.ports.iter().cloned());
    }
    (used, ports)
}

/// Whether a pod of a DaemonSet is among a node's already.
pub(super) fn runs_already(pods: Option<&NodePods>, daemon: &Daemon) -> bool {
    pods.is_some_and(|pods| pods.daemons.contains_key(&daemon.key))
}

fn existing_node<'a>(
    view: &View,
    dimensions: &Dimensions,
    daemons: &[Daemon],
    limits: &AttachLimits,
    name: &NodeName,
    node: &'a Node,
    pods: Option<&NodePods>,
) -> ExistingNode<'a> {
    let label = |key: &str| node.metadata.labels.get(key).map(String::as_str);
    let (mut used, mut ports) = bound(view, dimensions, pods);
    for daemon in daemons {
        if !runs_already(pods, daemon) && daemon.runs_on(&label, &node.spec.taints, &|_| false) {
            add_times(&mut used, &dimensions.dense(&daemon.shape.requests), 1);
            ports.extend(daemon.shape.ports.iter().cloned());
        }
    }
    let attached = limits.used_on(view, name);
    if !attached.is_empty() {
        add_times(&mut used, &dimensions.dense(&attached), 1);
    }
    let mut room = dimensions.dense(&node.status.allocatable);
    limits.set_node_room(name, dimensions, &mut room);
    let target = PlacementTarget::Node(name.clone());
    let labels = NodeLabels::Node(node);
    let taints = lasting_taints(node);
    ExistingNode { ports, ..ExistingNode::new(target, labels, taints, room, used) }
}

/// Taints that count for a plan. That a node may be consolidated one day keeps no pod from it that
/// would otherwise need a new node.
fn lasting_taints(node: &Node) -> Vec<Taint> {
    let taints = node.spec.taints.iter();
    taints.filter(|taint| taint.key != labels::CANDIDATE_TAINT).cloned().collect()
}
