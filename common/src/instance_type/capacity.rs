//! Capacity and allocatable of a node, by the formulas of Karpenter's AWS provider (1.14).

use super::{InstanceTypeFacts, NodeSettings};
use crate::resources::{ResourceName, Resources, parse_quantity};

const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
/// Pods that Windows nodes take by default.
const WINDOWS_PODS: i64 = 110;
/// What arm64 firmware keeps for itself, MiB.
const ARM_FIRMWARE_MIB: u64 = 64;

impl NodeSettings {
    pub(crate) fn is_windows(&self) -> bool {
        self.ami_family.starts_with("windows")
    }

    fn is_bottlerocket(&self) -> bool {
        self.ami_family == "bottlerocket"
    }

    /// `status.capacity` of a node of this type, its memory estimated.
    pub fn capacity(&self, facts: &InstanceTypeFacts) -> Resources {
        let mut capacity = Resources::from_iter([
            (ResourceName::Cpu, i64::from(facts.vcpus).saturating_mul(1000)),
            (ResourceName::Memory, self.estimated_memory(facts)),
            (ResourceName::EphemeralStorage, self.ephemeral_storage(facts)),
            (ResourceName::Pods, self.most_pods(facts)),
        ]);
        let mut extend = |name: &str, count: u32| {
            if count > 0 {
                capacity.set(ResourceName::from(name), i64::from(count));
            }
        };
        extend("vpc.amazonaws.com/efa", facts.efa_interfaces);
        if let Some(gpu) = &facts.gpu {
            match gpu.manufacturer.as_str() {
                "nvidia" => extend("nvidia.com/gpu", gpu.count),
                "amd" => extend("amd.com/gpu", gpu.count),
                _ => {}
            }
        }
        if let Some(accelerator) = &facts.accelerator {
            match accelerator.manufacturer.as_str() {
                "aws" => {
                    extend("aws.amazon.com/neuron", accelerator.count);
                    extend("aws.amazon.com/neuroncore", accelerator.cores);
                }
                "habana" => extend("habana.ai/gaudi", accelerator.count),
                _ => {}
            }
        }
        capacity
    }

    /// What EC2 states, less what hypervisor and firmware are taken to keep.
    fn estimated_memory(&self, facts: &InstanceTypeFacts) -> i64 {
        let firmware = if facts.arch == "arm64" { ARM_FIRMWARE_MIB } else { 0 };
        let stated = facts.memory_mib.saturating_sub(firmware);
        let overhead =
            stated.saturating_mul(u64::from(self.vm_memory_overhead_ppm)).div_ceil(1_000_000);
        i64::try_from(stated.saturating_sub(overhead)).unwrap_or(i64::MAX).saturating_mul(MIB)
    }

    fn ephemeral_storage(&self, facts: &InstanceTypeFacts) -> i64 {
        let (amount, unit) = match facts.nvme_gb {
            Some(total) if self.instance_store_raid0 && total > 0 => (total, 1_000_000_000),
            _ => (self.root_volume_gib, GIB),
        };
        i64::try_from(amount).unwrap_or(i64::MAX).saturating_mul(unit)
    }

    /// Pods that network interfaces have addresses for; `reserved` interfaces are not used.
    pub(crate) fn interface_pods(&self, facts: &InstanceTypeFacts, reserved: u32) -> i64 {
        let usable = i64::from(facts.network_interfaces.saturating_sub(reserved));
        if usable == 0 {
            return 0;
        }
        usable.saturating_mul(i64::from(facts.ipv4_per_interface) - 1).saturating_add(2)
    }

    fn most_pods(&self, facts: &InstanceTypeFacts) -> i64 {
        let most = match self.max_pods {
            Some(pods) => i64::from(pods),
            None if self.is_windows() => WINDOWS_PODS,
            None => self.interface_pods(facts, self.reserved_enis),
        };
        self.bounded_by_cores(most, i64::from(facts.vcpus))
    }

    /// Pods of a type that has addresses for `interface_pods`.
    pub(crate) fn bounded_pods(&self, interface_pods: i64, cores: i64) -> i64 {
        self.bounded_by_cores(self.max_pods.map_or(interface_pods, i64::from), cores)
    }

    fn bounded_by_cores(&self, pods: i64, cores: i64) -> i64 {
        match self.pods_per_core {
            Some(per_core) if per_core > 0 && !self.is_bottlerocket() => {
                pods.min(i64::from(per_core).saturating_mul(cores))
            }
            _ => pods,
        }
    }

    /// `capacity` less what kubelet, system and eviction thresholds keep. `interface_pods` counts
    /// all interfaces: the images other than Bottlerocket and Windows reserve memory by it, whatever
    /// `maxPods` says.
    pub(crate) fn allocatable(
        &self,
        capacity: &Resources,
        vcpus: u32,
        interface_pods: i64,
    ) -> Resources {
        let pods = if self.is_bottlerocket() || self.is_windows() {
            capacity.get(&ResourceName::Pods)
        } else {
            interface_pods
        };
        let mut reserved = Resources::from_iter([
            (ResourceName::Cpu, reserved_cpu(vcpus)),
            (ResourceName::Memory, pods.saturating_mul(11).saturating_add(255).saturating_mul(MIB)),
            (ResourceName::EphemeralStorage, GIB),
        ]);
        for (name, amount) in self.kube_reserved.iter() {
            reserved.set(name.clone(), amount);
        }
        reserved.add(&self.system_reserved);
        reserved.add(&self.eviction_thresholds(capacity));
        capacity
            .iter()
            .map(|(name, amount)| {
                let left = amount.saturating_sub(reserved.get(name)).max(0);
                (name.clone(), left)
            })
            .collect()
    }

    fn eviction_thresholds(&self, capacity: &Resources) -> Resources {
        let threshold = |signal: &str, name: &ResourceName, default: i64| {
            let amount = self
                .eviction_hard
                .get(signal)
                .and_then(|text| eviction_threshold(text, capacity.get(name)))
                .unwrap_or(default);
            (name.clone(), amount)
        };
        let storage = capacity.get(&ResourceName::EphemeralStorage);
        Resources::from_iter([
            threshold("memory.available", &ResourceName::Memory, 100 * MIB),
            threshold(
                "nodefs.available",
                &ResourceName::EphemeralStorage,
                storage / 10 + i64::from(storage % 10 != 0),
            ),
        ])
    }
}

/// A quantity, or a percentage of `capacity` rounded up; 100 % turns the signal off. `None` if the
/// text is neither.
fn eviction_threshold(text: &str, capacity: i64) -> Option<i64> {
    let Some(percent) = text.strip_suffix('%') else {
        return parse_quantity(text).ok().map(|quantity| quantity.units());
    };
    // Percentages may have decimals: count in thousandths of one.
    let thousandths = i128::from(parse_quantity(percent).ok()?.thousandths());
    if thousandths == 100_000 {
        return Some(0);
    }
    let product = i128::from(capacity).saturating_mul(thousandths);
    let rounded_up = product / 100_000 + i128::from(product % 100_000 != 0);
    i64::try_from(rounded_up).ok()
}

/// 6 % of the first core, 1 % of the second, 0.5 % of the next two and 0.25 % of the rest, in
/// thousandths of a core, each part truncated.
fn reserved_cpu(vcpus: u32) -> i64 {
    // (cores up to which the share holds, hundredths of a percent)
    const SHARES: [(i64, i64); 4] = [(1, 600), (2, 100), (4, 50), (i64::MAX, 25)];
    let cores = i64::from(vcpus);
    let mut reserved = 0;
    let mut start = 0;
    for (end, share) in SHARES {
        let covered = cores.min(end).saturating_sub(start).max(0);
        reserved += covered * 1000 * share / 10_000;
        start = end;
    }
    reserved
}
