//! What kubelets have measured: counters that grow with simulated use, as of the last measurement.

use std::collections::BTreeMap;

use drover_common::cluster::ObjectKey;
use drover_common::ec2::InstanceState;
use drover_common::id::InstanceId;
use jiff::{SignedDuration, Timestamp};

use super::{ClusterControllers, MachineUse, after};
use crate::world::cloud::Cloud;

/// How often a kubelet measures: cAdvisor's housekeeping interval. In between it tells what it knows.
const HOUSEKEEPING: SignedDuration = SignedDuration::from_secs(10);

/// What the kubelet of a node tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletStats {
    /// When it measured.
    pub at: Timestamp,
    /// The machine.
    pub node: Counter,
    /// Its pods, by namespace and name.
    pub pods: BTreeMap<ObjectKey, Counter>,
}

/// CPU time and memory of a machine or a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The pod's uid; another pod of the name counts anew.
    uid: String,
    /// CPU time since it was first measured, microseconds.
    pub cpu_usec: u64,
    /// Working set, bytes.
    pub memory: u64,
}

impl ClusterControllers {
    /// What the kubelet of a node tells; `None` where no machine of that name runs.
    pub fn kubelet_stats(
        &mut self,
        cloud: &Cloud,
        node: &str,
        now: Timestamp,
    ) -> Option<KubeletStats> {
        let runs = |id: &InstanceId| {
            cloud.instance(id).is_some_and(|machine| machine.state == InstanceState::Running)
        };
        self.stats.retain(|id, _| runs(id));
        let instance = cloud
            .instances()
            .find(|machine| runs(&machine.id) && machine.private_dns_name() == node)?;
        let pause = self.options.scaled(HOUSEKEEPING);
        let known = self.stats.get(&instance.id);
        if let Some(known) = known.filter(|known| now < after(known.at, pause)) {
            return Some(known.clone());
        }
        let measured = self.machine_usage(cloud, instance, now);
        let stats = KubeletStats::measure(known, &measured, now);
        self.stats.insert(instance.id.clone(), stats.clone());
        Some(stats)
    }
}

impl KubeletStats {
    /// Moves the counters on by what is used now.
    fn measure(before: Option<&Self>, machine: &MachineUse, now: Timestamp) -> Self {
        let elapsed = before.map_or(0, |before| now.duration_since(before.at).as_micros().max(0));
        let count = |before: Option<&Counter>, uid: &str, cpu: i64, memory: i64| {
            let spent = elapsed.saturating_mul(i128::from(cpu)) / 1000;
            let spent = u64::try_from(spent).unwrap_or(0);
            let before = before.filter(|before| before.uid == uid);
            Counter {
                uid: uid.to_owned(),
                cpu_usec: before.map_or(0, |before| before.cpu_usec.saturating_add(spent)),
                memory: u64::try_from(memory).unwrap_or(0),
            }
        };
        let pods = machine.pods.iter().map(|pod| {
            let known = before.and_then(|before| before.pods.get(&pod.key));
            (pod.key.clone(), count(known, &pod.uid, pod.cpu, pod.memory))
        });
        let known = before.map(|before| &before.node);
        Self { at: now, node: count(known, "", machine.cpu, machine.memory), pods: pods.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::cluster::PodUse;

    fn machine(uid: &str) -> MachineUse {
        MachineUse {
            instance: InstanceId::from("i-1"),
            boots: 1,
            cpu_capacity: 4_000,
            memory_capacity: 8 << 30,
            cpu: 1_500,
            cpu_unmet: 0,
            memory: 4 << 30,
            pods: vec![PodUse {
                key: ObjectKey::new("default", "web-0"),
                uid: uid.to_owned(),
                quality: "Burstable",
                cpu: 500,
                memory: 1 << 30,
                containers: Vec::new(),
            }],
        }
    }

    #[test]
    fn counters_grow_with_use_and_begin_anew_with_another_pod_of_the_name() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let at = |seconds| start + SignedDuration::from_secs(seconds);
        let first = KubeletStats::measure(None, &machine("a"), at(0));
        let second = KubeletStats::measure(Some(&first), &machine("a"), at(10));
        let web = ObjectKey::new("default", "web-0");
        assert_eq!((second.node.cpu_usec, second.node.memory), (15_000_000, 4 << 30));
        assert_eq!((second.pods[&web].cpu_usec, second.pods[&web].memory), (5_000_000, 1 << 30));
        let third = KubeletStats::measure(Some(&second), &machine("b"), at(20));
        assert_eq!((third.node.cpu_usec, third.pods[&web].cpu_usec), (30_000_000, 0));
    }
}
