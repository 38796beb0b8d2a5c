//! Hosts as the check sees them: labels, taints, free room and ports, from the objects themselves.

use std::collections::BTreeMap;

use drover_common::cluster::{NodeSelectorTerm, ObjectKey, Pod};
use drover_common::instance_type::InstanceType;
use drover_common::labels;
use drover_common::requirement::{Operator, Requirement, Requirements};
use drover_common::resources::Resources;
use drover_common::taint::{Taint, TaintEffect};

use crate::planner::{InFlightNode, Launch, PlacementTarget, PlanInput};
use crate::view::requests_of;

/// Address, protocol and port.
pub(super) type Port = (String, String, i32);

/// A place for pods.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub free: Resources,
    pub ports: Vec<Port>,
}

pub(super) fn ports_of(pod: &Pod) -> Vec<Port> {
    let mut ports = Vec::new();
    for container in &pod.spec.containers {
        for port in container.ports.iter().filter(|port| port.host_port != 0) {
            let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
            ports.push((port.host_ip.clone(), protocol.to_owned(), port.host_port));
        }
    }
    ports
}

pub(super) fn same_port(a: &Port, b: &Port) -> bool {
    let wide = |address: &str| address.is_empty() || address == "0.0.0.0" || address == "::";
    a.2 == b.2 && a.1 == b.1 && (a.0 == b.0 || wide(&a.0) || wide(&b.0))
}

fn matches(requirements: &[Requirement], labels: &BTreeMap<String, String>) -> bool {
    requirements.iter().all(|requirement| {
        Requirements::from_requirements(std::slice::from_ref(requirement))
            .is_ok_and(|parsed| parsed.matches_labels(labels))
    })
}

fn any_term(terms: &[NodeSelectorTerm], labels: &BTreeMap<String, String>) -> bool {
    terms.iter().any(|term| {
        !term.match_expressions.is_empty()
            && term.match_fields.is_empty()
            && matches(&term.match_expressions, labels)
    })
}

impl Host {
    /// Node selector, required node affinity, taints and volumes.
    pub(super) fn admits(&self, input: &PlanInput<'_>, pod: &Pod) -> Result<(), String> {
        for (key, value) in &pod.spec.node_selector {
            if self.labels.get(key) != Some(value) {
                return Err(format!("node selector {key}={value} does not hold"));
            }
        }
        let required = pod.spec.affinity.node_affinity.as_ref().and_then(|a| a.required.as_ref());
        if let Some(selector) = required
            && !any_term(&selector.node_selector_terms, &self.labels)
        {
            return Err("required node affinity does not hold".to_owned());
        }
        for taint in &self.taints {
            let soft = taint.effect == TaintEffect::PreferNoSchedule;
            if !soft && !pod.spec.tolerations.iter().any(|t| t.tolerates(taint)) {
                return Err(format!("taint {} is not tolerated", taint.key));
            }
        }
        self.admits_volumes(input, pod)
    }

    fn admits_volumes(&self, input: &PlanInput<'_>, pod: &Pod) -> Result<(), String> {
        for volume in &pod.spec.volumes {
            let name = match (&volume.persistent_volume_claim, &volume.ephemeral) {
                (Some(claim), _) => claim.claim_name.clone(),
                (None, Some(_)) => format!("{}-{}", pod.metadata.name, volume.name),
                (None, None) => continue,
            };
            let key = ObjectKey { namespace: pod.metadata.namespace.clone(), name };
            let bound = input
                .view
                .volume_claims()
                .get(&key)
                .and_then(|claim| input.view.volumes().get(&claim.spec.volume_name));
            let Some(required) =
                bound.and_then(|v| v.spec.node_affinity.as_ref()).and_then(|a| a.required.as_ref())
            else {
                continue;
            };
            let mut labels = self.labels.clone();
            for term in &required.node_selector_terms {
                for expression in &term.match_expressions {
                    if expression.key == labels::HOSTNAME
                        && expression.operator == Operator::In
                        && let Some(host) = expression.values.first()
                    {
                        labels.insert(expression.key.clone(), host.clone());
                    }
                }
            }
            if !any_term(&required.node_selector_terms, &labels) {
                return Err(format!("volume claim {key} can't be attached"));
            }
        }
        Ok(())
    }
}

/// The host of a placement, if it takes pods at all.
pub(super) fn host_of_target(input: &PlanInput<'_>, target: &PlacementTarget) -> Option<Host> {
    match target {
        PlacementTarget::Claim(name) => {
            let node = input.in_flight.iter().find(|node| node.claim == *name)?;
            Some(in_flight_host(input, node))
        }
        PlacementTarget::Node(name) => {
            let node = input.view.nodes().get(name)?;
            if input.leaving.contains(name) || node.spec.unschedulable || !node.is_ready() {
                return None;
            }
            let mut free = node.status.allocatable.clone();
            let mut ports = Vec::new();
            for pod in input.view.pods_on(name).filter(|pod| !pod.is_terminal()) {
                free.subtract(&requests_of(&pod.spec, &pod.status.container_statuses));
                ports.extend(ports_of(pod));
            }
            Some(Host {
                name: name.to_string(),
                labels: node.metadata.labels.clone(),
                taints: node.spec.taints.clone(),
                free,
                ports,
            })
        }
    }
}

fn in_flight_host(input: &PlanInput<'_>, node: &InFlightNode) -> Host {
    let mut labels = node.labels.clone();
    for requirement in node.requirements.to_requirements() {
        if let (Operator::In, Some(value)) = (requirement.operator, requirement.values.first()) {
            labels.entry(requirement.key).or_insert_with(|| value.clone());
        }
    }
    let mut host = Host {
        name: node.claim.to_string(),
        labels,
        taints: node.taints.clone(),
        free: node.allocatable.clone(),
        ports: Vec::new(),
    };
    subtract_daemons(input, &mut host);
    host
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
        let sold = found.offerings.iter().any(|o| {
            o.zone == offering.zone && o.capacity_type == launch.capacity_type && o.available
        });
        if !sold {
            return Err(format!("{} is not sold in {}", found.name, offering.zone));
        }
        if !types.iter().any(|known| known.name == found.name) {
            types.push(found);
        }
    }
    for instance_type in types {
        for zone in &launch.zones {
            let mut labels = instance_type.labels.clone();
            labels.extend(pool.spec.template.metadata.labels.clone());
            labels.extend(launch.labels.clone());
            labels.insert(labels::INSTANCE_TYPE.to_owned(), instance_type.name.clone());
            labels.insert(labels::ZONE.to_owned(), zone.clone());
            labels
                .insert(labels::CAPACITY_TYPE.to_owned(), launch.capacity_type.as_str().to_owned());
            if !matches(&pool.spec.template.spec.requirements, &labels) {
                return Err(format!("{} is not of the NodePool", instance_type.name));
            }
            let mut host = Host {
                name: format!("launch {number} as {} in {zone}", instance_type.name),
                labels,
                taints: pool.spec.template.spec.taints.clone(),
                free: instance_type.allocatable.clone(),
                ports: Vec::new(),
            };
            subtract_daemons(input, &mut host);
            hosts.push(host);
        }
    }
    Ok(hosts)
}

/// Takes off what the cluster's DaemonSets will take.
fn subtract_daemons(input: &PlanInput<'_>, host: &mut Host) {
    for set in input.view.daemon_sets().values() {
        let pod = Pod { spec: set.spec.template.spec.clone(), ..Pod::default() };
        if host.admits(input, &pod).is_ok() {
            host.free.subtract(&requests_of(&pod.spec, &[]));
            host.ports.extend(ports_of(&pod));
        }
    }
}
