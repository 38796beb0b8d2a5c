//! An independent check of plans: does every pod's place obey what the scheduler would enforce?
//!
//! It shares nothing with the planner's own fitting: it goes pod by pod over the slim objects and
//! the catalogues, with the requirement algebra of `drover-common`, so that a mistake in one is not
//! repeated in the other. Used in tests, in debug builds and in shadow mode.

mod diversity;
mod fixed;
mod host;
mod listing;
mod overlay;
mod repack;
mod requests;
mod reservations;
mod topology;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use drover_common::cluster::{ObjectKey, Pod};
use drover_common::resources::{ResourceName, Resources};
use serde::{Deserialize, Serialize};

use super::{Launch, PlacementTarget, Plan, PlanInput};
use crate::planner::MinValuesPolicy;
pub use fixed::check_static;
use host::{Host, hosts_of_launch, hosts_of_target, labels_in};
pub use repack::check_repack;
use requests::{asks_below_zero, ports_of, requests, same_port};

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
    let mut violations = check_places(input, plan);
    check_completeness(input, plan, &mut violations);
    listing::check(input, plan, &mut violations);
    violations
}

/// The same for a plan that need not be for every pod that waits.
fn check_places(input: &PlanInput<'_>, plan: &Plan) -> Vec<Violation> {
    let mut violations = Vec::new();
    check_accounting(input, plan, &mut violations);
    for placement in &plan.placements {
        let hosts = hosts_of_target(input, &placement.node_or_claim);
        if hosts.is_empty() {
            let rule = "is no node that takes pods";
            violations.push(violation(target_name(&placement.node_or_claim), rule));
        }
        for host in hosts {
            check_host(input, &host, &placement.pods, &mut violations);
        }
    }
    for (number, launch) in plan.launches.iter().enumerate() {
        check_launch(input, number, launch, &mut violations);
    }
    check_pools(input, plan, &mut violations);
    check_limits(input, &plan.launches, &mut violations);
    reservations::check(input, plan, &mut violations);
    topology::check(input, plan, &mut violations);
    volume::check_sole_use(input, plan, &mut violations);
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

/// Pods of the plan wait, and have one place or one reason each.
fn check_accounting(input: &PlanInput<'_>, plan: &Plan, violations: &mut Vec<Violation>) {
    let mut seen = BTreeSet::new();
    let placed = plan.placements.iter().flat_map(|placement| &placement.pods);
    let launched = plan.launches.iter().flat_map(|launch| &launch.pods);
    let left = plan.unschedulable.iter().map(|entry| &entry.pod);
    for key in placed.chain(launched).chain(left) {
        if !seen.insert(key) {
            violations.push(violation(key.to_string(), "is in the plan twice"));
        }
        match pod_of(input, key) {
            None => violations.push(violation(key.to_string(), "is not in the cluster")),
            Some(_) if input.view.pod(key).is_none() => {}
            Some(pod) => {
                if let Err(rule) = waits(input, pod) {
                    violations.push(violation(key.to_string(), rule));
                }
            }
        }
    }
    for entry in &plan.unschedulable {
        if entry.reasons.iter().all(|(_, reason)| reason.is_empty()) {
            violations.push(violation(entry.pod.to_string(), "is left without a reason"));
        }
    }
}

/// Every pod that waits is in the plan.
fn check_completeness(input: &PlanInput<'_>, plan: &Plan, violations: &mut Vec<Violation>) {
    let placed = plan.placements.iter().flat_map(|placement| &placement.pods);
    let launched = plan.launches.iter().flat_map(|launch| &launch.pods);
    let left = plan.unschedulable.iter().map(|entry| &entry.pod);
    let seen: BTreeSet<&ObjectKey> = placed.chain(launched).chain(left).collect();
    let pending = input.view.pods().iter().filter(|(_, entry)| {
        entry.pod.spec.node_name.is_empty() && waits(input, &entry.pod).is_ok()
    });
    let virtual_pods = input.virtual_pods.iter().flat_map(|pods| &pods.keys);
    for key in pending.map(|(key, _)| key).chain(virtual_pods) {
        if !seen.contains(key) {
            violations.push(violation(key.to_string(), "waits and is not in the plan"));
        }
    }
}

/// Whether a pod is one to plan for: found unschedulable, or on a node that leaves.
fn waits(input: &PlanInput<'_>, pod: &Pod) -> Result<(), &'static str> {
    let owned = |kind: &str| pod.metadata.owner_references.iter().any(|owner| owner.kind == kind);
    if owned("DaemonSet") || owned("Node") {
        return Err("belongs to a DaemonSet or a node");
    }
    if pod.metadata.deletion_timestamp.is_some()
        || matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
    {
        return Err("is ending");
    }
    if !pod.spec.node_name.is_empty() {
        let leaving = input.leaving.iter().any(|name| name.as_str() == pod.spec.node_name);
        return match (leaving, input.staying.contains(&ObjectKey::from(&pod.metadata))) {
            (true, false) => Ok(()),
            (true, true) => Err("stays where it is"),
            (false, _) => Err("runs already"),
        };
    }
    let unschedulable = pod.status.conditions.iter().any(|condition| {
        (condition.kind.as_str(), condition.status.as_str(), condition.reason.as_str())
            == ("PodScheduled", "False", "Unschedulable")
    });
    if !unschedulable || !pod.spec.scheduling_gates.is_empty() {
        return Err("was not found unschedulable, or is gated");
    }
    if !pod.status.nominated_node_name.is_empty() {
        return Err("is nominated to a node");
    }
    Ok(())
}

/// What is wrong with a launch as such, whatever the rest of the plan.
pub(super) fn check_launch(
    input: &PlanInput<'_>,
    number: usize,
    launch: &Launch,
    violations: &mut Vec<Violation>,
) {
    if launch.pods.is_empty() {
        violations.push(violation(format!("launch {number}"), "is for no pod"));
    }
    check_offered(input, number, launch, violations);
}

/// What is wrong with what a launch offers, and with its pods there.
fn check_offered(
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
    match hosts_of_launch(input, number, launch) {
        Ok(hosts) => {
            for host in &hosts {
                check_host(input, host, &launch.pods, violations);
            }
            check_min_values(input, &subject, launch, &hosts, violations);
            check_prices(input, &subject, launch, &hosts, violations);
        }
        Err(reason) => violations.push(violation(subject, reason)),
    }
}

/// Prices are those of the catalogue under the overlays, cheapest first.
fn check_prices(
    input: &PlanInput<'_>,
    subject: &str,
    launch: &Launch,
    hosts: &[Host],
    violations: &mut Vec<Violation>,
) {
    let Some(catalog) = input.catalogs.get(&launch.nodeclass) else { return };
    let label = |host: &Host, key: &str| host.labels.get(key).cloned().unwrap_or_default();
    for offering in &launch.offerings {
        let host = hosts.iter().find(|host| {
            label(host, drover_common::labels::INSTANCE_TYPE) == offering.instance_type
                && label(host, drover_common::labels::ZONE) == offering.zone
        });
        let kind = catalog.instance_types.iter().find(|t| t.name == offering.instance_type);
        let Some((host, kind)) = host.zip(kind) else { continue };
        let sold = kind
            .offerings
            .iter()
            .find(|o| o.zone == offering.zone && o.capacity_type == launch.capacity_type);
        let price = overlay::price(input, &host.labels, sold.and_then(|sold| sold.price));
        if price != offering.price_micro {
            let rule = format!("{} costs {price:?}", offering.instance_type);
            violations.push(violation(subject, rule));
        }
    }
    let costs: Vec<u64> =
        launch.offerings.iter().map(|o| o.price_micro.unwrap_or(u64::MAX)).collect();
    if !costs.is_sorted()
        || launch.offerings.first().and_then(|o| o.price_micro).unwrap_or(0)
            != launch.hourly_price_micro
    {
        violations.push(violation(subject, "is not priced as its cheapest offering"));
    }
}

/// A launch lists as many values as its pool wants, unless the policy lets it list fewer and it
/// says so.
fn check_min_values(
    input: &PlanInput<'_>,
    subject: &str,
    launch: &Launch,
    hosts: &[Host],
    violations: &mut Vec<Violation>,
) {
    let Some(pool) = input.view.pools().get(&launch.nodepool) else { return };
    // Values are something to fall back on, and what is reserved is there.
    if launch.reservation.is_some() {
        return;
    }
    for requirement in &pool.spec.template.spec.requirements {
        let Some(least) = requirement.min_values else { continue };
        let key = drover_common::labels::stable_name(&requirement.key);
        if key == drover_common::labels::CAPACITY_TYPE {
            continue;
        }
        let values: BTreeSet<&String> =
            hosts.iter().filter_map(|host| host.labels.get(key)).collect();
        let admitted = input.settings.min_values_policy == MinValuesPolicy::BestEffort
            && launch.min_values_relaxed;
        if values.len() < least as usize && !admitted {
            let rule = format!("lists {} values of {key}, minValues is {least}", values.len());
            violations.push(violation(subject, rule));
        }
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
    let mut attached = host.attached.clone();
    for key in pods {
        let Some(pod) = pod_of(input, key) else { continue };
        if let Err(rule) = host.admits(input, pod) {
            violations.push(violation(key.to_string(), format!("{rule} on {}", host.name)));
        }
        if asks_below_zero(pod) {
            violations.push(violation(key.to_string(), "asks for less than nothing"));
        }
        if !pod.spec.resource_claims.is_empty() {
            violations.push(violation(key.to_string(), "asks for devices by claims"));
        }
        let requests = requests(pod);
        asked.extend(requests.iter().filter(|(_, n)| *n > 0).map(|(name, _)| name.clone()));
        total.add(&requests);
        let own = ports_of(pod);
        for port in &own {
            if ports.iter().any(|taken| same_port(taken, port)) {
                let rule = format!("host port {} is taken on {}", port.2, host.name);
                violations.push(violation(key.to_string(), rule));
            }
        }
        ports.extend(own);
        volume::attach(input, pod, &mut attached);
    }
    for name in asked {
        if total.get(&name) > host.free.get(&name) {
            let rule = format!("{} {name} asked, {} free", total.get(&name), host.free.get(&name));
            violations.push(violation(&host.name, rule));
        }
    }
    let limits = host.node.as_ref().and_then(|node| input.view.csi_nodes().get(node));
    if let Some(rule) = limits.and_then(|limits| volume::too_many(limits, &attached))
        && !pods.is_empty()
    {
        violations.push(violation(&host.name, rule));
    }
}

/// Nodes for pods are of pools that make nodes for pods.
fn check_pools(input: &PlanInput<'_>, plan: &Plan, violations: &mut Vec<Violation>) {
    let names: BTreeSet<_> = plan.launches.iter().map(|launch| &launch.nodepool).collect();
    for name in names {
        let Some(pool) = input.view.pools().get(name) else { continue };
        if pool.spec.replicas.is_some() || pool.metadata.deletion_timestamp.is_some() {
            let rule = "is static or being deleted and gets no such node";
            violations.push(violation(name.as_str(), rule));
        }
    }
}

/// Launches stay within their pools' limits, whatever types they become.
fn check_limits(input: &PlanInput<'_>, launches: &[Launch], violations: &mut Vec<Violation>) {
    let mut added: BTreeMap<&str, Resources> = BTreeMap::new();
    for launch in launches {
        let Some(catalog) = input.catalogs.get(&launch.nodeclass) else { continue };
        let mut most = Resources::default();
        for offering in &launch.offerings {
            let named =
                |t: &&drover_common::instance_type::InstanceType| t.name == offering.instance_type;
            if let Some(found) = catalog.instance_types.iter().find(named) {
                let mut capacity = found.capacity.clone();
                if let Some(pool) = input.view.pools().get(&launch.nodepool) {
                    let labels = labels_in(pool, launch, found, &offering.zone);
                    capacity.add(&overlay::added(input, &labels));
                }
                most = most.maximum(&capacity);
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

/// A pod of the cluster, or one that is planned for as if it were there.
fn pod_of<'v>(input: &PlanInput<'v>, key: &ObjectKey) -> Option<&'v Pod> {
    let found = input.view.pod(key).or_else(|| {
        let holds = |pods: &&super::VirtualPods| pods.keys.binary_search(key).is_ok();
        input.virtual_pods.iter().find(holds).map(|pods| &pods.pod)
    });
    found.map(AsRef::as_ref)
}
