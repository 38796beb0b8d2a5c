//! What a pod asks of a node and takes of it, worked out phase by phase.

use drover_common::cluster::{Container, ContainerStatus, Pod};
use drover_common::resources::{ResourceName, Resources};

/// Address, protocol and port.
pub(super) type Port = (String, String, i32);

/// The room a pod takes: in each phase of its start the containers that run then, and at most that
/// of any phase; or what the pod as a whole asks for; and its overhead.
pub(super) fn requests(pod: &Pod) -> Resources {
    let stuck =
        pod.status.conditions.iter().any(|condition| {
            condition.kind == "PodResizePending" && condition.reason == "Infeasible"
        });
    let mut most = Resources::new();
    let mut staying = Resources::new();
    for container in &pod.spec.init_containers {
        let own = container_requests(container, &pod.status.init_container_statuses, stuck);
        let mut phase = staying.clone();
        phase.add(&own);
        most = most.maximum(&phase);
        if stays(container) {
            staying.add(&own);
        }
    }
    for container in &pod.spec.containers {
        staying.add(&container_requests(container, &pod.status.container_statuses, stuck));
    }
    most = most.maximum(&staying);
    if let Some(whole) = &pod.spec.resources {
        for (name, amount) in whole.limits.iter() {
            if !most.contains(name) {
                most.set(name.clone(), amount);
            }
        }
        for (name, amount) in whole.requests.iter() {
            most.set(name.clone(), whole_request(pod, name, amount, stuck));
        }
    }
    most.add(&pod.spec.overhead);
    most.set(ResourceName::Pods, 1);
    most
}

/// Whether some part of the pod asks for less than nothing.
pub(super) fn asks_below_zero(pod: &Pod) -> bool {
    let below = |resources: &Resources| resources.iter().any(|(_, amount)| amount < 0);
    let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let mut parts = containers.map(|container| &container.resources).chain(&pod.spec.resources);
    below(&pod.spec.overhead) || parts.any(|part| below(&part.requests))
}

/// One resource of the pod as a whole: what is held during a resize counts, too.
fn whole_request(pod: &Pod, name: &ResourceName, asked: i64, stuck: bool) -> i64 {
    let actual = pod.status.resources.as_ref().map(|actual| &actual.requests);
    let held = [Some(&pod.status.allocated_resources), actual];
    let held = held.into_iter().flatten().filter(|held| held.contains(name));
    match held.map(|held| held.get(name)).max() {
        Some(held) if stuck => held,
        Some(held) => asked.max(held),
        None => asked,
    }
}

/// Whether an init container runs beside the others for good.
fn stays(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn container_requests(
    container: &Container,
    statuses: &[ContainerStatus],
    stuck: bool,
) -> Resources {
    let mut asked = container.resources.limits.clone();
    for (name, amount) in container.resources.requests.iter() {
        asked.set(name.clone(), amount);
    }
    let Some(status) = statuses.iter().find(|status| status.name == container.name) else {
        return asked;
    };
    let mut held = status.allocated_resources.clone();
    if let Some(actual) = &status.resources {
        held = held.maximum(&actual.requests);
    }
    if stuck && !held.is_empty() { held } else { asked.maximum(&held) }
}

/// Ports of the node that a pod takes.
pub(super) fn ports_of(pod: &Pod) -> Vec<Port> {
    let sidecars = pod.spec.init_containers.iter().filter(|container| stays(container));
    let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    ports
        .map(|port| {
            let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
            let is_own = port.host_port == 0 && pod.spec.host_network;
            let number = if is_own { port.container_port } else { port.host_port };
            (port.host_ip.clone(), protocol.to_owned(), number)
        })
        .filter(|port| port.2 != 0)
        .collect()
}

/// Whether two ports can't be on one node.
pub(super) fn same_port(a: &Port, b: &Port) -> bool {
    let wide = |address: &str| matches!(address, "" | "0.0.0.0" | "::");
    a.2 == b.2 && a.1 == b.1 && (a.0 == b.0 || wide(&a.0) || wide(&b.0))
}
