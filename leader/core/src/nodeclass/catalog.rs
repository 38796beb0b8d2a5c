//! The instance types of a class: what nodes of them are like, and how they can be bought.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use drover_common::catalog::reference;
use drover_common::crd::{
    AmiFamily, Ec2NodeClass, Ec2NodeClassSpec, InstanceStorePolicy, RawQuantity,
};
use drover_common::instance_type::{
    CapacityType, InstanceType, InstanceTypeFacts, NodeSettings, Offering,
};
use drover_common::resources::{ResourceName, Resources};

use super::facts::CloudFacts;
use super::reservation::reserved_offerings;
use super::resolve::ResolvedClass;

const GIB: i64 = 1 << 30;

/// The instance types of one EC2NodeClass, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeClassCatalog {
    /// Types that an image is for and a subnet of the class has.
    pub instance_types: Vec<InstanceType>,
    /// Whether on-demand prices are those of the reference region, because Pricing told none.
    pub estimated: bool,
    /// Kept, because each plan asks for them.
    label_keys: BTreeSet<String>,
}

impl NodeClassCatalog {
    /// A catalogue of these types, in order of names.
    pub fn new(instance_types: Vec<InstanceType>, estimated: bool) -> Self {
        let mut label_keys = BTreeSet::new();
        for key in instance_types.iter().flat_map(|kind| kind.labels.keys()) {
            if !label_keys.contains(key) {
                label_keys.insert(key.clone());
            }
        }
        Self { instance_types, estimated, label_keys }
    }

    /// The same with the ids of its zones, by name.
    #[must_use]
    pub fn with_zone_ids(mut self, ids: &BTreeMap<&str, &str>) -> Self {
        let known = |zone: &str| ids.get(zone).filter(|id| !id.is_empty());
        for offering in self.instance_types.iter_mut().flat_map(|kind| &mut kind.offerings) {
            offering.zone_id = known(&offering.zone).map(|id| (*id).to_owned());
        }
        self
    }

    /// Keys of labels that some type decides.
    pub fn label_keys(&self) -> &BTreeSet<String> {
        &self.label_keys
    }
}

/// Flags of the leader that change what nodes are like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogFlags {
    /// AWS region.
    pub region: String,
    /// `VM_MEMORY_OVERHEAD_PERCENT` in millionths.
    pub vm_memory_overhead_ppm: u32,
    /// `RESERVED_ENIS`.
    pub reserved_enis: u32,
}

/// On-demand prices of the reference region, micro-dollars an hour by type: the estimate where
/// Pricing tells none.
static ESTIMATES: LazyLock<BTreeMap<String, u64>> = LazyLock::new(|| {
    let on_demand = |offering: &&Offering| offering.capacity_type == CapacityType::OnDemand;
    reference()
        .into_iter()
        .filter_map(|entry| {
            let price = entry.offerings.iter().find(on_demand)?.price?;
            Some((entry.facts.name, price))
        })
        .collect()
});

/// The instance types of a class. A price that is not known is `None`, except that on-demand prices
/// are estimated by those of the reference region where Pricing told none at all: an endpoint
/// without Pricing would make all types look alike. [`NodeClassCatalog::estimated`] says so.
pub fn catalog(
    class: &Ec2NodeClass,
    resolved: &ResolvedClass,
    cloud: &CloudFacts,
    flags: &CatalogFlags,
) -> NodeClassCatalog {
    let settings = node_settings(&class.spec, flags);
    let zones: BTreeSet<&str> =
        resolved.subnets.iter().map(|subnet| subnet.zone.as_str()).collect();
    let estimated = cloud.on_demand_prices.is_empty();
    let on_demand = if estimated { &*ESTIMATES } else { &cloud.on_demand_prices };
    let reservations = resolved.reservations.as_deref().unwrap_or_default();
    let instance_types = cloud
        .instance_types
        .values()
        .filter_map(|facts| {
            let on_demand = on_demand.get(&facts.name).copied();
            let mut offerings = offerings(facts, cloud, &zones, on_demand);
            let reserved = reserved_offerings(reservations, &facts.name, on_demand);
            offerings.extend(reserved.filter(|offering| zones.contains(offering.zone.as_str())));
            if offerings.is_empty() {
                return None;
            }
            let built = InstanceType::from_facts(facts, &settings, &flags.region, offerings);
            resolved.images.iter().any(|image| image.is_for(&built.labels)).then_some(built)
        })
        .collect();
    let ids = resolved.subnets.iter().map(|subnet| (subnet.zone.as_str(), subnet.zone_id.as_str()));
    NodeClassCatalog::new(instance_types, estimated).with_zone_ids(&ids.collect())
}

fn offerings(
    facts: &InstanceTypeFacts,
    cloud: &CloudFacts,
    zones: &BTreeSet<&str>,
    on_demand: Option<u64>,
) -> Vec<Offering> {
    let offered = cloud.offerings.get(&facts.name);
    let spot_prices = cloud.spot_prices.get(&facts.name);
    let mut list = Vec::new();
    for zone in offered.into_iter().flatten().filter(|zone| zones.contains(zone.as_str())) {
        let mut push = |capacity_type, price| {
            list.push(Offering {
                zone: zone.clone(),
                zone_id: None,
                capacity_type,
                price,
                available: true,
                reservation: None,
            });
        };
        if facts.spot {
            push(CapacityType::Spot, spot_prices.and_then(|prices| prices.get(zone)).copied());
        }
        push(CapacityType::OnDemand, on_demand);
    }
    list
}

/// What a class says of kubelet and disks, for [`InstanceType::from_facts`]. Texts that are no
/// quantities are left out; [`drover_common::crd::validate_node_class`] reports them.
pub fn node_settings(spec: &Ec2NodeClassSpec, flags: &CatalogFlags) -> NodeSettings {
    let family = spec.family().unwrap_or(AmiFamily::Custom);
    let kubelet = spec.kubelet.clone().unwrap_or_default();
    NodeSettings {
        ami_family: family.lower_case().to_owned(),
        max_pods: kubelet.max_pods,
        pods_per_core: kubelet.pods_per_core.filter(|pods| *pods > 0),
        kube_reserved: amounts(&kubelet.kube_reserved),
        system_reserved: amounts(&kubelet.system_reserved),
        eviction_hard: kubelet.eviction_hard,
        root_volume_gib: root_volume_gib(spec, family),
        instance_store_raid0: spec.instance_store_policy == Some(InstanceStorePolicy::Raid0),
        vm_memory_overhead_ppm: flags.vm_memory_overhead_ppm,
        reserved_enis: flags.reserved_enis,
    }
}

fn amounts(texts: &BTreeMap<String, String>) -> Resources {
    let mut resources = Resources::new();
    for (name, text) in texts {
        if let Ok(amount) = Resources::from_quantities([(name.as_str(), text.as_str())]) {
            resources.add(&amount);
        }
    }
    resources
}

/// The device that holds pods' storage on images of a family; `None` where the last disk does.
fn ephemeral_device(family: AmiFamily) -> Option<&'static str> {
    match family {
        AmiFamily::Al2 | AmiFamily::Al2023 => Some("/dev/xvda"),
        AmiFamily::Bottlerocket => Some("/dev/xvdb"),
        AmiFamily::Windows2019 | AmiFamily::Windows2022 | AmiFamily::Windows2025 => {
            Some("/dev/sda1")
        }
        AmiFamily::Custom => None,
    }
}

/// The disk that counts as ephemeral storage: the one marked, else the family's device, else what
/// the family has by default.
fn root_volume_gib(spec: &Ec2NodeClassSpec, family: AmiFamily) -> u64 {
    let mappings = &spec.block_device_mappings;
    let marked = mappings.iter().find(|mapping| mapping.root_volume == Some(true));
    let disk = marked.or_else(|| match ephemeral_device(family) {
        Some(device) => {
            mappings.iter().find(|mapping| mapping.device_name.as_deref() == Some(device))
        }
        None => mappings.last(),
    });
    disk.and_then(|disk| disk.ebs.as_ref()?.volume_size.as_ref())
        .and_then(size_gib)
        .map_or_else(|| if family.is_windows() { 50 } else { 20 }, u64::from)
}

/// A volume size in GiB, rounded up.
pub(super) fn size_gib(size: &RawQuantity) -> Option<u32> {
    let name = ResourceName::EphemeralStorage;
    let text = size.to_string();
    let bytes = Resources::from_quantities([(name.as_str(), text.as_str())]).ok()?.get(&name);
    u32::try_from(bytes.max(0).saturating_add(GIB - 1) / GIB).ok()
}
