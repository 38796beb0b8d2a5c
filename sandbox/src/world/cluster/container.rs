//! Containers of pods that run: the ids their runtime gives them, and their parts of the pod's use.

use drover_common::cluster::{Container, Pod};
use drover_common::resources::ResourceName;
use sha2::{Digest, Sha256};

/// A whole, of which containers have shares.
const WHOLE: i64 = 1000;

/// A running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUse {
    /// The runtime's id: 64 hexadecimal digits.
    pub id: String,
    /// Its part of the pod's cpu, in thousandths.
    pub cpu_share: i64,
    /// Its part of the pod's memory, in thousandths.
    pub memory_share: i64,
}

/// A container's id, as containerd's look: the same for the same pod, name and restart.
pub(super) fn container_id(pod_uid: &str, name: &str, restarts: u32) -> String {
    let digest = Sha256::digest(format!("{pod_uid}/{name}/{restarts}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The pod's containers and sidecars, each with a part of the pod's use as of its requests; equal parts where
/// nothing is requested. Simulated containers are never restarted.
pub(super) fn containers(pod: &Pod) -> Vec<ContainerUse> {
    let sidecar = |one: &&Container| one.restart_policy.as_deref() == Some("Always");
    let sidecars = pod.spec.init_containers.iter().filter(sidecar);
    let running: Vec<&Container> = pod.spec.containers.iter().chain(sidecars).collect();
    let shares = |name: &ResourceName| {
        let request = |one: &&Container| {
            let resources = &one.resources;
            let of = if resources.requests.contains(name) {
                &resources.requests
            } else {
                &resources.limits
            };
            of.get(name).max(0)
        };
        split(&running.iter().map(request).collect::<Vec<_>>())
    };
    let shares = shares(&ResourceName::Cpu).into_iter().zip(shares(&ResourceName::Memory));
    let containers = running.iter().zip(shares);
    containers
        .map(|(one, (cpu_share, memory_share))| ContainerUse {
            id: container_id(&pod.metadata.uid, &one.name, 0),
            cpu_share,
            memory_share,
        })
        .collect()
}

/// Thousandths as of the weights, rounded down.
fn split(weights: &[i64]) -> Vec<i64> {
    let sum: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
    let equal = i64::try_from(weights.len()).ok().and_then(|count| WHOLE.checked_div(count));
    let part = |weight: &i64| {
        let part = (i128::from(*weight) * i128::from(WHOLE)).checked_div(sum);
        part.and_then(|part| i64::try_from(part).ok()).or(equal).unwrap_or(0)
    };
    weights.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_share_their_pods_use_by_requests() {
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"uid": "u"},
            "spec": {
                "containers": [{"name": "web", "resources": cpu("300m")}, {"name": "log"}],
                "initContainers": [{"name": "ends", "resources": cpu("1")},
                    {"name": "mesh", "restartPolicy": "Always", "resources": cpu("100m")}],
            },
        }))
        .unwrap();
        let found = containers(&pod);
        let shares: Vec<_> = found.iter().map(|one| (one.cpu_share, one.memory_share)).collect();
        assert_eq!(shares, [(750, 333), (0, 333), (250, 333)]);
        assert_eq!(found[0].id, container_id("u", "web", 0));
        assert_eq!(found[0].id.len(), 64);
        let others =
            [container_id("u", "web", 1), container_id("v", "web", 0), found[1].id.clone()];
        assert!(!others.contains(&found[0].id));
        assert_eq!(split(&[]), [0_i64; 0]);
    }
}
