//! Hosts as the check sees them: labels, taints, free room and ports, from the objects themselves.

use std::collections::BTreeMap;

use drover_common::cluster::{NodeSelectorTerm, Pod};
use drover_common::crd::NodePool;
use drover_common::id::NodeName;
use drover_common::instance_type::InstanceType;
use drover_common::labels;
use drover_common::requirement::{Operator, Requirement, Requirements};
use drover_common::resources::Resources;
use drover_common::taint::{Taint, TaintEffect};

use super::overlay;
use super::requests::{Port, ports_of, requests};
use super::volume::{self, Attached};
use crate::planner::{InFlightNode, Launch, PlacementTarget, PlanInput};

/// A place for pods.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub free: Resources,
    pub ports: Vec<Port>,
    /// The Node, if it is there.
    pub node: Option<NodeName>,
    pub attached: Attached,
}

pub(super) fn matches(requirements: &[Requirement], labels: &BTreeMap<String, String>) -> bool {
    requirements.iter().all(|requirement| {
        Requirements::from_requirements(std::slice::from_ref(requirement))
            .is_ok_and(|parsed| parsed.matches_labels(labels))
    })
}

/// Whether one of the terms holds for a node of this name, or a new one, which has none yet.
fn any_term(
    terms: &[NodeSelectorTerm],
    labels: &BTreeMap<String, String>,
    name: Option<&NodeName>,
) -> bool {
    let holds = |field: &Requirement| {
        let listed = name.is_some_and(|name| field.values.iter().any(|one| one == name.as_str()));
        field.key == "metadata.name"
            && field.values.len() == 1
            && match field.operator {
                Operator::In => listed,
                Operator::NotIn => !listed,
                _ => false,
            }
    };
    terms.iter().any(|term| {
        !(term.match_expressions.is_empty() && term.match_fields.is_empty())
            && term.match_fields.iter().all(holds)
            && matches(&term.match_expressions, labels)
    })
}

/// Node selector and required node affinity.
pub(super) fn selects_node(
    pod: &Pod,
    labels: &BTreeMap<String, String>,
    name: Option<&NodeName>,
) -> Result<(), String> {
    for (key, value) in &pod.spec.node_selector {
        if labels.get(labels::stable_name(key)) != Some(value) {
            return Err(format!("node selector {key}={value} does not hold"));
        }
    }
    let required = pod.spec.affinity.node_affinity.as_ref().and_then(|a| a.required.as_ref());
    match required {
        Some(selector) if !any_term(&selector.node_selector_terms, labels, name) => {
            Err("required node affinity does not hold".to_owned())
        }
        _ => Ok(()),
    }
}

/// The first taint that keeps the pod away.
pub(super) fn tolerates(pod: &Pod, taints: &[Taint]) -> Result<(), String> {
    let hard = taints.iter().filter(|taint| taint.effect != TaintEffect::PreferNoSchedule);
    let mut untolerated =
        hard.filter(|taint| !pod.spec.tolerations.iter().any(|t| t.tolerates(taint)));
    match untolerated.next() {
        Some(taint) => Err(format!("taint {} is not tolerated", taint.key)),
        None => Ok(()),
    }
}

impl Host {
    /// Node selector, required node affinity, taints and volumes.
    pub(super) fn admits(&self, input: &PlanInput<'_>, pod: &Pod) -> Result<(), String> {
        selects_node(pod, &self.labels, self.node.as_ref())?;
        tolerates(pod, &self.taints)?;
        volume::admit(input, pod, &self.labels)
    }

    fn hold(&mut self, input: &PlanInput<'_>, node: &NodeName) {
        for pod in input.view.pods_on(node).filter(|pod| !pod.is_terminal()) {
            self.free.subtract(&requests(pod));
            self.ports.extend(ports_of(pod));
            volume::attach(input, pod, &mut self.attached);
        }
    }
}

/// The hosts that a placement may be on: one, unless what the node will be is still open. None if
/// it takes no pods at all.
pub(super) fn hosts_of_target(input: &PlanInput<'_>, target: &PlacementTarget) -> Vec<Host> {
    match target {
        PlacementTarget::Claim(name) => {
            let node = input.in_flight.iter().find(|node| node.claim == *name);
            node.map(|node| in_flight_hosts(input, node)).unwrap_or_default()
        }
        PlacementTarget::Node(name) => {
            let node = input.view.nodes().get(name).filter(|node| {
                !input.leaving.contains(name)
                    && !node.spec.unschedulable
                    && node.is_ready()
                    && node.metadata.deletion_timestamp.is_none()
            });
            let Some(node) = node else { return Vec::new() };
            let mut host = Host {
                name: name.to_string(),
                labels: node.metadata.labels.clone(),
                taints: node.spec.taints.clone(),
                free: node.status.allocatable.clone(),
                ports: Vec::new(),
                node: Some(name.clone()),
                attached: Attached::new(),
            };
            subtract_daemons(input, &mut host);
            host.hold(input, name);
            vec![host]
        }
    }
}

/// One host as far as it is known, and one for each value that is still open.
fn in_flight_hosts(input: &PlanInput<'_>, node: &InFlightNode) -> Vec<Host> {
    let mut labels = node.labels.clone();
    if let Some((name, joined)) =
        node.node.as_ref().zip(node.node.as_ref().and_then(|name| input.view.nodes().get(name)))
    {
        let host = joined.metadata.labels.get(labels::HOSTNAME).cloned();
        labels.insert(labels::HOSTNAME.to_owned(), host.unwrap_or_else(|| name.to_string()));
    }
    let mut open = Vec::new();
    for requirement in node.requirements.to_requirements() {
        if requirement.operator == Operator::In && !labels.contains_key(&requirement.key) {
            if let Some(first) = requirement.values.first() {
                labels.insert(requirement.key.clone(), first.clone());
            }
            open.extend(
                requirement.values.into_iter().skip(1).map(|v| (requirement.key.clone(), v)),
            );
        }
    }
    let base = Host {
        name: node.claim.to_string(),
        labels,
        taints: node.taints.clone(),
        free: node.allocatable.clone(),
        ports: Vec::new(),
        node: node.node.clone(),
        attached: Attached::new(),
    };
    let undecided = open.iter().any(|(key, _)| key == labels::INSTANCE_TYPE);
    let mut hosts = vec![base.clone()];
    for (key, value) in open {
        let mut host = base.clone();
        host.labels.insert(key, value);
        hosts.push(host);
    }
    // What is not known of the node follows from its type, whatever more its pool would allow.
    let class = input.view.pools().get(&node.nodepool);
    let class = class.map(|pool| pool.spec.template.spec.node_class_ref.name.clone());
    let catalog = class.and_then(|class| input.catalogs.get(&class));
    for host in &mut hosts {
        let name = host.labels.get(labels::INSTANCE_TYPE);
        let kind = catalog
            .and_then(|catalog| catalog.instance_types.iter().find(|t| Some(&t.name) == name));
        let Some(kind) = kind else { continue };
        for (key, value) in kind.labels.iter().filter(|(key, _)| !node.labels.contains_key(*key)) {
            host.labels.insert(key.clone(), value.clone());
        }
        let zone = host.labels.get(labels::ZONE).cloned().unwrap_or_default();
        if !node.labels.contains_key(labels::ZONE_ID) {
            add_zone_id(kind, &zone, &mut host.labels);
        }
        for (name, amount) in kind.allocatable.iter().filter(|_| undecided) {
            host.free.set(name.clone(), amount);
        }
    }
    for host in &mut hosts {
        subtract_daemons(input, host);
        if let Some(name) = &node.node {
            host.hold(input, name);
        }
    }
    hosts
}

/// The labels of a launch's node that becomes this type in this zone.
pub(super) fn labels_in(
    pool: &NodePool,
    launch: &Launch,
    instance_type: &InstanceType,
    zone: &str,
) -> BTreeMap<String, String> {
    let mut labels = instance_type.labels.clone();
    labels.extend(pool.spec.template.metadata.labels.clone());
    labels.extend(launch.labels.clone());
    labels.insert(labels::INSTANCE_TYPE.to_owned(), instance_type.name.clone());
    labels.insert(labels::ZONE.to_owned(), zone.to_owned());
    add_zone_id(instance_type, zone, &mut labels);
    labels.insert(labels::CAPACITY_TYPE.to_owned(), launch.capacity_type.as_str().to_owned());
    labels.extend(reservation_labels(instance_type, launch));
    labels
}

fn add_zone_id(kind: &InstanceType, zone: &str, labels: &mut BTreeMap<String, String>) {
    let sold = kind.offerings.iter().find(|offering| offering.zone == zone);
    if let Some(id) = sold.and_then(|offering| offering.zone_id.clone()) {
        labels.insert(labels::ZONE_ID.to_owned(), id);
    }
}

/// One host for every type and zone that a launch lists: each must hold all its pods.
pub(super) fn hosts_of_launch(
    input: &PlanInput<'_>,
    number: usize,
    launch: &Launch,
) -> Result<Vec<Host>, String> {
    let pool = input
        .view
        .pools()
        .get(&launch.nodepool)
        .ok_or_else(|| format!("NodePool {} does not exist", launch.nodepool))?;
    let catalog = input
        .catalogs
        .get(&launch.nodeclass)
        .ok_or_else(|| format!("EC2NodeClass {} is not ready", launch.nodeclass))?;
    let mut hosts = Vec::new();
    let mut types: Vec<&InstanceType> = Vec::new();
    for offering in &launch.offerings {
        let found = catalog
            .instance_types
            .iter()
            .find(|t| t.name == offering.instance_type)
            .ok_or_else(|| format!("type {} does not exist", offering.instance_type))?;
        let target = launch.reservation.as_ref().map(|target| &target.id);
        let sold = found.offerings.iter().any(|o| {
            o.zone == offering.zone
                && o.capacity_type == launch.capacity_type
                && o.available
                && (target.is_none() || o.reservation.as_ref().map(|r| &r.id) == target)
        });
        let gone = input.unavailable.keys().any(|gone| {
            gone.capacity_type == launch.capacity_type
                && gone.instance_type.as_ref().is_none_or(|name| *name == found.name)
                && gone.zone.as_ref().is_none_or(|zone| *zone == offering.zone)
                && gone.reservation.as_ref().is_none_or(|id| Some(id) == target)
        });
        if !sold || gone {
            return Err(format!("{} is not sold in {}", found.name, offering.zone));
        }
        if !types.iter().any(|known| known.name == found.name) {
            types.push(found);
        }
    }
    for instance_type in types {
        for zone in &launch.zones {
            let labels = labels_in(pool, launch, instance_type, zone);
            if !matches(&pool.spec.template.spec.requirements, &labels) {
                return Err(format!("{} is not of the NodePool", instance_type.name));
            }
            let mut free = instance_type.allocatable.clone();
            free.add(&overlay::added(input, &labels));
            let mut host = Host {
                name: format!("launch {number} as {} in {zone}", instance_type.name),
                labels,
                taints: pool.spec.template.spec.taints.clone(),
                free,
                ports: Vec::new(),
                node: None,
                attached: Attached::new(),
            };
            subtract_daemons(input, &mut host);
            hosts.push(host);
        }
    }
    Ok(hosts)
}

/// Labels that a node has for its capacity reservation.
fn reservation_labels(instance_type: &InstanceType, launch: &Launch) -> Vec<(String, String)> {
    let Some(target) = &launch.reservation else { return Vec::new() };
    let reservations = instance_type.offerings.iter().filter_map(|o| o.reservation.as_ref());
    let own = reservations.filter(|one| one.id == target.id);
    own.flat_map(|one| {
        [
            (labels::RESERVATION_ID.to_owned(), one.id.clone()),
            (labels::RESERVATION_TYPE.to_owned(), one.kind.as_str().to_owned()),
            (labels::RESERVATION_INTERRUPTIBLE.to_owned(), one.interruptible.to_string()),
        ]
    })
    .collect()
}

/// Takes off what the cluster's DaemonSets will take and do not take yet.
fn subtract_daemons(input: &PlanInput<'_>, host: &mut Host) {
    for (key, set) in input.view.daemon_sets() {
        let runs = host.node.iter().flat_map(|node| input.view.pods_on(node)).any(|pod| {
            let owner = pod.metadata.controller();
            !pod.is_terminal()
                && pod.metadata.namespace == key.namespace
                && owner.is_some_and(|o| o.kind == "DaemonSet" && o.name == key.name)
        });
        let pod = Pod { spec: set.spec.template.spec.clone(), ..Pod::default() };
        if !runs && host.admits(input, &pod).is_ok() {
            let made = input.view.daemon_requests(key).cloned().unwrap_or_default();
            host.free.subtract(&requests(&pod).maximum(&made));
            host.ports.extend(ports_of(&pod));
        }
    }
}
