//! Instance types: what EC2 says of them, and the labels, capacity and offerings that follow.

mod capacity;
#[cfg(test)]
mod tests;
mod type_labels;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::resources::Resources;

/// How an instance is billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityType {
    /// A capacity reservation.
    Reserved,
    /// Spot.
    Spot,
    /// On demand.
    OnDemand,
}

impl CapacityType {
    /// The value of the label `karpenter.sh/capacity-type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            CapacityType::Reserved => "reserved",
            CapacityType::Spot => "spot",
            CapacityType::OnDemand => "on-demand",
        }
    }
}

impl fmt::Display for CapacityType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// An instance type as `DescribeInstanceTypes` tells it, nothing derived.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceTypeFacts {
    /// Name, e.g. `m5.large`.
    pub name: String,
    /// `amd64` or `arm64`.
    pub arch: String,
    /// Default vCPUs.
    pub vcpus: u32,
    /// MiB.
    pub memory_mib: u64,
    /// Interfaces on the default card.
    pub network_interfaces: u32,
    /// IPv4 addresses an interface.
    pub ipv4_per_interface: u32,
    /// `nitro`, `xen`, or empty for metal.
    pub hypervisor: String,
    /// `intel`, `amd`, `aws`, …; empty if unknown.
    pub cpu_manufacturer: String,
    /// Sustained clock, MHz.
    pub clock_mhz: Option<u32>,
    /// EBS baseline bandwidth, Mbps.
    pub ebs_mbps: Option<u32>,
    /// Network baseline bandwidth, Mbps.
    pub network_mbps: Option<u32>,
    /// Total local NVMe, GB.
    pub nvme_gb: Option<u64>,
    /// Encryption in transit between instances.
    pub encryption_in_transit: bool,
    /// Nitro Enclaves can be run on it.
    #[serde(default)]
    pub nitro_enclaves: bool,
    /// Bare metal.
    pub bare_metal: bool,
    /// Spot is offered.
    pub spot: bool,
    /// GPUs, if any.
    pub gpu: Option<GpuFacts>,
    /// Inference or training accelerators, if any.
    pub accelerator: Option<AcceleratorFacts>,
    /// EFA interfaces.
    pub efa_interfaces: u32,
}

/// The GPUs of a type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuFacts {
    /// Lower case with dashes, e.g. `a10g`.
    pub name: String,
    /// `nvidia`, `amd`, …
    pub manufacturer: String,
    /// How many.
    pub count: u32,
    /// MiB each.
    pub memory_mib: u64,
}

/// The accelerators (Neuron, Gaudi) of a type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AcceleratorFacts {
    /// Lower case, e.g. `inferentia2`.
    pub name: String,
    /// `aws`, `habana`, …
    pub manufacturer: String,
    /// How many.
    pub count: u32,
    /// Neuron cores of all of them together; 0 where there are none.
    #[serde(default)]
    pub cores: u32,
}

/// One way to buy a type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offering {
    /// Zone.
    pub zone: String,
    /// The zone's id, which is the same in all accounts; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone_id: Option<String>,
    /// Billing.
    pub capacity_type: CapacityType,
    /// Micro-dollars an hour. `None`: unknown, which never counts as free.
    pub price: Option<u64>,
    /// Whether EC2 is thought to have it.
    pub available: bool,
    /// The capacity reservation that it stands for, where it is one's own and counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<Reservation>,
}

/// What an offering of reserved capacity is bought from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reservation {
    /// Its id.
    pub id: String,
    /// An on-demand reservation or a capacity block.
    pub kind: ReservationKind,
    /// Whether its owner may take its instances back.
    pub interruptible: bool,
    /// Instances that it still has room for.
    pub free: u32,
}

/// How capacity was reserved.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum ReservationKind {
    /// An On-Demand Capacity Reservation.
    #[default]
    Default,
    /// A Capacity Block for ML: it was paid for in advance, and ends.
    CapacityBlock,
}

impl ReservationKind {
    /// EC2's word, and the value of the label `karpenter.k8s.aws/capacity-reservation-type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ReservationKind::Default => "default",
            ReservationKind::CapacityBlock => "capacity-block",
        }
    }
}

/// An instance type as the planner sees it, for one kubelet and image configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceType {
    /// Name.
    pub name: String,
    /// Every label a node of it bears, save zone, capacity type and hostname.
    pub labels: BTreeMap<String, String>,
    /// `status.capacity` of such a node.
    pub capacity: Resources,
    /// `status.allocatable` of such a node.
    pub allocatable: Resources,
    /// Ways to buy it.
    pub offerings: Vec<Offering>,
}

/// What changes capacity and allocatable besides the type: kubelet settings and disks of an
/// EC2NodeClass, and flags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSettings {
    /// Lower case image family: `al2023`, `bottlerocket`, `custom`, `windows2022`, …
    pub ami_family: String,
    /// `kubelet.maxPods`.
    pub max_pods: Option<u32>,
    /// `kubelet.podsPerCore`.
    pub pods_per_core: Option<u32>,
    /// `kubelet.kubeReserved`; overrides the formula key by key.
    pub kube_reserved: Resources,
    /// `kubelet.systemReserved`.
    pub system_reserved: Resources,
    /// `kubelet.evictionHard`, raw (quantity or percentage by signal).
    pub eviction_hard: BTreeMap<String, String>,
    /// Root volume, GiB.
    pub root_volume_gib: u64,
    /// `instanceStorePolicy: RAID0`.
    pub instance_store_raid0: bool,
    /// `VM_MEMORY_OVERHEAD_PERCENT` in millionths (75,000 is 7.5 %).
    pub vm_memory_overhead_ppm: u32,
    /// `RESERVED_ENIS`.
    pub reserved_enis: u32,
}

impl Default for NodeSettings {
    /// Amazon Linux 2023 with a 20 GiB root volume, and Karpenter's memory overhead of 7.5 %.
    fn default() -> Self {
        Self {
            ami_family: "al2023".to_owned(),
            max_pods: None,
            pods_per_core: None,
            kube_reserved: Resources::new(),
            system_reserved: Resources::new(),
            eviction_hard: BTreeMap::new(),
            root_volume_gib: 20,
            instance_store_raid0: false,
            vm_memory_overhead_ppm: 75_000,
            reserved_enis: 0,
        }
    }
}

impl InstanceType {
    /// What nodes of this type are like with these settings: Karpenter's formulas for its AWS
    /// provider 1.14. `memory` of a real node may be put in place of the estimate later.
    pub fn from_facts(
        facts: &InstanceTypeFacts,
        settings: &NodeSettings,
        region: &str,
        offerings: Vec<Offering>,
    ) -> Self {
        let capacity = settings.capacity(facts);
        let allocatable =
            settings.allocatable(&capacity, facts.vcpus, settings.interface_pods(facts, 0));
        Self {
            name: facts.name.clone(),
            labels: type_labels::labels(facts, settings, region),
            capacity,
            allocatable,
            offerings,
        }
    }
}
