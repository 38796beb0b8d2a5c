//! What machines and pods use: simulated, for those who measure.
//!
//! A running pod uses half of its requests, swaying gently, or what its annotations
//! `sandbox.drover.dev/cpu-use` and `sandbox.drover.dev/memory-use` say: a quantity, or a
//! percentage of the request.

use drover_common::cluster::{ObjectKey, Pod};
use drover_common::ec2::InstanceState;
use drover_common::id::InstanceId;
use drover_common::resources::{ResourceName, parse_quantity};
use jiff::Timestamp;

use super::ClusterControllers;
use super::container::{self, ContainerUse};
use crate::world::cloud::{Cloud, SimulatedInstance};

const CPU_USE: &str = "sandbox.drover.dev/cpu-use";
const MEMORY_USE: &str = "sandbox.drover.dev/memory-use";

/// What a pod without annotations uses, percent of its requests.
const DEFAULT_PERCENT: i64 = 50;
/// What a pod without requests uses: thousandths of a core, and bytes.
const UNREQUESTED_CPU: i64 = 10;
const UNREQUESTED_MEMORY: i64 = 32 << 20;
/// What kernel, kubelet and container runtime use.
const SYSTEM_CPU: i64 = 40;
const SYSTEM_MEMORY: i64 = 400 << 20;
/// Period and height of the sway: seconds, and percent up and down.
const SWAY_SECONDS: i64 = 240;
const SWAY_PERCENT: i64 = 10;

/// What a machine and its pods use at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineUse {
    /// The machine.
    pub instance: InstanceId,
    /// How often it has booted.
    pub boots: u32,
    /// Thousandths of a core that it has.
    pub cpu_capacity: i64,
    /// Bytes of memory that it has.
    pub memory_capacity: i64,
    /// Thousandths of a core in use, at most all.
    pub cpu: i64,
    /// Thousandths of a core that pods would use if there were more.
    pub cpu_unmet: i64,
    /// Bytes in use, at most all.
    pub memory: i64,
    /// Its running pods.
    pub pods: Vec<PodUse>,
}

/// What a pod uses at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUse {
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// `Guaranteed`, `Burstable` or `BestEffort`.
    pub quality: &'static str,
    /// Thousandths of a core.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Those of its containers that run.
    pub containers: Vec<ContainerUse>,
}

impl ClusterControllers {
    /// What every machine uses that runs or is about to. Where pods want more cpu than there is,
    /// all get a proportional part.
    pub fn usage(&self, cloud: &Cloud, now: Timestamp) -> Vec<MachineUse> {
        cloud
            .instances()
            .filter(|instance| is_up(instance))
            .map(|instance| self.machine_usage(cloud, instance, now))
            .collect()
    }

    pub(super) fn machine_usage(
        &self,
        cloud: &Cloud,
        instance: &SimulatedInstance,
        now: Timestamp,
    ) -> MachineUse {
        let facts = cloud.facts(&instance.instance_type);
        let memory_mib = facts.map_or(0, |facts| facts.memory_mib);
        let mut machine = MachineUse {
            instance: instance.id.clone(),
            boots: instance.boots,
            cpu_capacity: facts.map_or(0, |facts| i64::from(facts.vcpus) * 1000),
            memory_capacity: i64::try_from(memory_mib).unwrap_or(0).saturating_mul(1 << 20),
            cpu: SYSTEM_CPU,
            cpu_unmet: 0,
            memory: SYSTEM_MEMORY,
            pods: Vec::new(),
        };
        if instance.state == InstanceState::Running {
            machine.pods = self.pod_usage(&instance.private_dns_name(), now);
        }
        machine.settle();
        machine
    }

    fn pod_usage(&self, node: &str, now: Timestamp) -> Vec<PodUse> {
        let keys = self.index.on_node.get(node).into_iter().flatten();
        keys.filter_map(|key| self.index.pods.get(key))
            .filter(|entry| entry.pod.status.phase == "Running")
            .map(|entry| {
                let amount = |name, annotation, unrequested| {
                    let request = entry.requests.get(&name);
                    wish(&entry.pod, &name, annotation, request, unrequested)
                };
                let cpu = amount(ResourceName::Cpu, CPU_USE, UNREQUESTED_CPU);
                PodUse {
                    key: ObjectKey::from(&entry.pod.metadata),
                    uid: entry.pod.metadata.uid.clone(),
                    quality: quality(&entry.pod),
                    cpu: sway(cpu, &entry.pod.metadata.uid, now),
                    memory: amount(ResourceName::Memory, MEMORY_USE, UNREQUESTED_MEMORY),
                    containers: container::containers(&entry.pod),
                }
            })
            .collect()
    }
}

fn is_up(instance: &SimulatedInstance) -> bool {
    matches!(instance.state, InstanceState::Pending | InstanceState::Running)
}

impl MachineUse {
    /// Adds up the pods, within what there is.
    fn settle(&mut self) {
        let wanted: i64 = self.pods.iter().map(|pod| pod.cpu).sum();
        let left = self.cpu_capacity.saturating_sub(self.cpu).max(0);
        if wanted > left {
            self.cpu_unmet = wanted - left;
            for pod in &mut self.pods {
                pod.cpu = pod.cpu.saturating_mul(left).checked_div(wanted).unwrap_or(0);
            }
        }
        self.cpu = self.cpu.saturating_add(wanted.min(left));
        let memory: i64 = self.pods.iter().map(|pod| pod.memory).sum();
        self.memory = self.memory.saturating_add(memory).min(self.memory_capacity);
    }
}

/// An annotation's amount, or half of the request.
fn wish(pod: &Pod, name: &ResourceName, annotation: &str, request: i64, unrequested: i64) -> i64 {
    let said = pod.metadata.annotations.get(annotation).map(String::as_str);
    let share = |percent: i64| {
        let whole = if request > 0 { request } else { unrequested.saturating_mul(2) };
        i64::try_from(i128::from(whole) * i128::from(percent.max(0)) / 100).unwrap_or(i64::MAX)
    };
    match said.map(|text| (text.strip_suffix('%'), text)) {
        Some((Some(percent), _)) => share(percent.parse().unwrap_or(DEFAULT_PERCENT)),
        Some((None, text)) => match (parse_quantity(text), name) {
            (Ok(quantity), ResourceName::Cpu) => quantity.thousandths(),
            (Ok(quantity), _) => quantity.units(),
            (Err(_), _) => share(DEFAULT_PERCENT),
        },
        None => share(DEFAULT_PERCENT),
    }
}

/// Up and down in a straight line, each pod at its own time.
fn sway(amount: i64, uid: &str, now: Timestamp) -> i64 {
    let offset = uid.bytes().fold(0_i64, |sum, byte| (sum * 31 + i64::from(byte)) % SWAY_SECONDS);
    let place = now.as_second().saturating_add(offset).rem_euclid(SWAY_SECONDS);
    let quarter = SWAY_SECONDS / 4;
    // From the middle up, down through the middle, and back.
    let height = match place / quarter {
        0 => place,
        1 | 2 => 2 * quarter - place,
        _ => place - 4 * quarter,
    };
    amount.saturating_add(amount.saturating_mul(height * SWAY_PERCENT) / (quarter * 100))
}

/// The pod's quality of service, as Kubernetes tells it from requests and limits.
fn quality(pod: &Pod) -> &'static str {
    let containers = || pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let says_nothing = containers().all(|container| {
        container.resources.requests.is_empty() && container.resources.limits.is_empty()
    });
    if says_nothing {
        return "BestEffort";
    }
    let guaranteed = containers().all(|container| {
        [ResourceName::Cpu, ResourceName::Memory].iter().all(|name| {
            let limit = container.resources.limits.get(name);
            let request = &container.resources.requests;
            limit > 0 && (!request.contains(name) || request.get(name) == limit)
        })
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(annotations: serde_json::Value, resources: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"annotations": annotations},
            "spec": {"containers": [{"name": "main", "resources": resources}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_uses_what_it_says_or_half_of_what_it_requests() {
        for (annotations, request, expected) in [
            (json!({}), 1000, 500),
            (json!({CPU_USE: "80%"}), 1000, 800),
            (json!({CPU_USE: "2"}), 1000, 2000),
            (json!({CPU_USE: "lots"}), 1000, 500),
            (json!({}), 0, 10),
        ] {
            let pod = pod(annotations, json!({}));
            assert_eq!(wish(&pod, &ResourceName::Cpu, CPU_USE, request, UNREQUESTED_CPU), expected);
        }
    }

    #[test]
    fn use_sways_within_its_bounds_and_is_the_same_at_the_same_time() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let at = |second: i64| {
            sway(1000, "uid", Timestamp::from_second(start.as_second() + second).unwrap())
        };
        let all: Vec<i64> = (0..SWAY_SECONDS).map(at).collect();
        assert_eq!((all.iter().min(), all.iter().max()), (Some(&900), Some(&1100)));
        assert_eq!(at(0), at(SWAY_SECONDS));
    }

    #[test]
    fn pods_that_want_more_than_there_is_share_it() {
        let pods = [1500, 500].map(|cpu| PodUse {
            key: ObjectKey::default(),
            uid: String::new(),
            quality: "Burstable",
            cpu,
            memory: 1 << 30,
            containers: Vec::new(),
        });
        let mut machine = MachineUse {
            instance: InstanceId::from("i-1"),
            boots: 1,
            cpu_capacity: 1040,
            memory_capacity: 1 << 30,
            cpu: 40,
            cpu_unmet: 0,
            memory: 0,
            pods: pods.to_vec(),
        };
        machine.settle();
        assert_eq!((machine.cpu, machine.cpu_unmet, machine.memory), (1040, 1000, 1 << 30));
        assert_eq!(machine.pods.iter().map(|pod| pod.cpu).collect::<Vec<_>>(), [750, 250]);
    }

    #[test]
    fn qualities_are_told_from_requests_and_limits() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        for (resources, expected) in [
            (json!({}), "BestEffort"),
            (json!({"limits": both}), "Guaranteed"),
            (json!({"limits": both, "requests": {"cpu": "500m"}}), "Burstable"),
            (json!({"requests": both}), "Burstable"),
        ] {
            assert_eq!(quality(&pod(json!({}), resources)), expected);
        }
    }
}
