//! An independent check of plans: does every pod's place obey what the scheduler would enforce?
//!
//! It shares nothing with the planner's own fitting: it goes pod by pod over the slim objects and
//! the catalogues, with the requirement algebra of `drover-common`, so that a mistake in one is not
//! repeated in the other. Used in tests, in debug builds and in shadow mode.

mod host;
mod repack;
mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use drover_common::cluster::{ObjectKey, Pod};
use drover_common::resources::{ResourceName, Resources};
use serde::{Deserialize, Serialize};

use super::{Launch, PlacementTarget, Plan, PlanInput};
use crate::view::requests_of;
use host::{Host, host_of_target, hosts_of_launch};
pub use repack::check_repack;

/// A rule that a plan breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The pod, or the launch's number in the plan.
    pub subject: String,
    /// What is wrong.
    pub rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.subject, self.rule)
    }
}

/// Everything a plan does that the scheduler, or the NodePools, would not allow.
pub fn check(input: &PlanInput<'_>, plan: &Plan) -> Vec<Violation> {
    let mut violations = Vec::new();
    check_accounting(input, plan, &mut violations);
    for placement in &plan.placements {
        match host_of_target(input, &placement.node_or_claim) {
            Some(host) => check_host(input, &host, &placement.pods, &mut violations),
            None => violations.push(violation(
                target_name(&placement.node_or_claim),
                "is no node that takes pods".to_owned(),
            )),
        }
    }
    for (number, launch) in plan.launches.iter().enumerate() {
        check_launch(input, number, launch, &mut violations);
    }
    check_limits(input, plan, &mut violations);
    topology::check(input, plan, &mut violations);
    violations
}

fn violation(subject: impl Into<String>, rule: impl Into<String>) -> Violation {
    Violation { subject: subject.into(), rule: rule.into() }
}

fn target_name(target: &PlacementTarget) -> String {
    match target {
        PlacementTarget::Node(name) => format!("node {name}"),
        PlacementTarget::Claim(name) => format!("claim {name}"),
    }
}

/// Every pod has one place or one reason, and had to be placed at all.
fn check_accounting(input: &PlanInput<'_>, plan: &Plan, violations: &mut Vec<Violation>) {
    let mut seen = BTreeSet::new();
    let placed = plan.placements.iter().flat_map(|placement| &placement.pods);
    let launched = plan.launches.iter().flat_map(|launch| &launch.pods);
    let left = plan.unschedulable.iter().map(|entry| &entry.pod);
    for key in placed.chain(launched).chain(left) {
        if !seen.insert(key) {
            violations.push(violation(key.to_string(), "is in the plan twice"));
        }
        match input.view.pod(key) {
            None => violations.push(violation(key.to_string(), "is not in the cluster")),
            Some(pod) => {
                let leaving = input.leaving.iter().any(|n| n.as_str() == pod.spec.node_name);
                if !pod.spec.node_name.is_empty() && !leaving {
                    violations.push(violation(key.to_string(), "runs already"));
                }
            }
        }
    }
    for entry in &plan.unschedulable {
        if entry.reasons.is_empty() {
            violations.push(violation(entry.pod.to_string(), "is left without a reason"));
        }
    }
}

fn check_launch(
    input: &PlanInput<'_>,
    number: usize,
    launch: &Launch,
    violations: &mut Vec<Violation>,
) {
    let subject = format!("launch {number}");
    let types: BTreeSet<&str> =
        launch.offerings.iter().map(|offering| offering.instance_type.as_str()).collect();
    if launch.offerings.is_empty() {
        violations.push(violation(&subject, "offers nothing"));
    }
    if types.len() > input.settings.max_instance_types {
        violations.push(violation(&subject, format!("lists {} types", types.len())));
    }
    if launch.pods.is_empty() {
        violations.push(violation(&subject, "is for no pod"));
    }
    match hosts_of_launch(input, number, launch) {
        Ok(hosts) => {
            for host in hosts {
                check_host(input, &host, &launch.pods, violations);
            }
        }
        Err(reason) => violations.push(violation(subject, reason)),
    }
}

/// Every pod is allowed on the host, and all of them fit at once.
fn check_host(
    input: &PlanInput<'_>,
    host: &Host,
    pods: &[ObjectKey],
    violations: &mut Vec<Violation>,
) {
    let mut total = Resources::default();
    let mut asked: BTreeSet<ResourceName> = BTreeSet::new();
    let mut ports = host.ports.clone();
    for key in pods {
        let Some(pod) = input.view.pod(key) else { continue };
        if let Err(rule) = host.admits(input, pod) {
            violations.push(violation(key.to_string(), format!("{rule} on {}", host.name)));
        }
        let requests = requests_of(&pod.spec, &pod.status.container_statuses);
        asked.extend(requests.iter().filter(|(_, n)| *n > 0).map(|(name, _)| name.clone()));
        total.add(&requests);
        for port in host::ports_of(pod) {
            if ports.iter().any(|taken| host::same_port(taken, &port)) {
                let rule = format!("host port {} is taken on {}", port.2, host.name);
                violations.push(violation(key.to_string(), rule));
            }
            ports.push(port);
        }
    }
    for name in asked {
        if total.get(&name) > host.free.get(&name) {
            let rule = format!("{} {name} asked, {} free", total.get(&name), host.free.get(&name));
            violations.push(violation(&host.name, rule));
        }
    }
}

/// Launches stay within their pools' limits, whatever types they become.
fn check_limits(input: &PlanInput<'_>, plan: &Plan, violations: &mut Vec<Violation>) {
    let mut added: BTreeMap<&str, Resources> = BTreeMap::new();
    for launch in &plan.launches {
        let Some(catalog) = input.catalogs.get(&launch.nodeclass) else { continue };
        let mut most = Resources::default();
        for offering in &launch.offerings {
            let named =
                |t: &&drover_common::instance_type::InstanceType| t.name == offering.instance_type;
            if let Some(found) = catalog.instance_types.iter().find(named) {
                most = most.maximum(&found.capacity);
            }
        }
        most.set(ResourceName::from("nodes"), 1);
        added.entry(launch.nodepool.as_str()).or_default().add(&most);
    }
    for (name, mut used) in added {
        let pool = drover_common::id::NodePoolName::from(name);
        let Some(object) = input.view.pools().get(&pool) else {
            violations.push(violation(name, "is no NodePool"));
            continue;
        };
        if let Some(before) = input.pool_usage.get(&pool) {
            used.add(before);
        }
        for (resource, quantity) in &object.spec.limits {
            let text = quantity.to_string();
            let Ok(limit) = Resources::from_quantities([(resource.as_str(), text.as_str())]) else {
                continue;
            };
            let resource = ResourceName::from(resource.as_str());
            if used.get(&resource) > limit.get(&resource) {
                let rule = format!("limit of {resource} exceeded: {}", used.get(&resource));
                violations.push(violation(name, rule));
            }
        }
    }
}

/// Pods by key, for the parts of the check.
fn pods_of<'v>(input: &PlanInput<'v>, keys: &[ObjectKey]) -> Vec<&'v Pod> {
    keys.iter().filter_map(|key| input.view.pod(key).map(AsRef::as_ref)).collect()
}
