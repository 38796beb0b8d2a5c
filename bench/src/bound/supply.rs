//! What can be bought, and the room on nodes that are there.

use std::collections::BTreeMap;

use drover_common::cluster::Pod;
use drover_common::instance_type::{CapacityType, InstanceType};
use drover_common::labels;
use drover_common::requirement::Requirements;
use drover_common::resources::{ResourceName, Resources};

use super::demand::Demand;
use super::{Amounts, BoundError};
use crate::workload::Workload;

/// One way to buy a node.
#[derive(Clone, Debug)]
pub(super) struct Offer<'w> {
    pub(super) instance_type: &'w InstanceType,
    pub(super) zone: &'w str,
    pub(super) capacity_type: CapacityType,
    /// Micro-dollars an hour.
    pub(super) price: u64,
    /// Allocatable less DaemonSets.
    pub(super) room: Amounts,
    pub(super) vcpus: i64,
    /// GPUs, accelerators or bare metal.
    pub(super) exotic: bool,
}

/// Free room of nodes that the same classes may use.
#[derive(Clone, Debug)]
pub(super) struct FreeRoom {
    /// Which classes.
    pub(super) classes: Vec<bool>,
    pub(super) room: Amounts,
    /// How many nodes.
    pub(super) nodes: i64,
}

/// Whole KiB: rooms are rounded up and requests down, so that the bound stays one.
pub(super) fn room_amounts(resources: &Resources) -> Amounts {
    amounts(resources, |bytes| bytes.max(0).saturating_add(1023) / 1024)
}

/// See [`room_amounts`].
pub(super) fn request_amounts(resources: &Resources) -> Amounts {
    amounts(resources, |bytes| bytes.max(0) / 1024)
}

fn amounts(resources: &Resources, kibibytes: impl Fn(i64) -> i64) -> Amounts {
    [
        resources.get(&ResourceName::Cpu).max(0),
        kibibytes(resources.get(&ResourceName::Memory)),
        resources.get(&ResourceName::Pods).max(0),
        resources.get(&ResourceName::from("nvidia.com/gpu")).max(0),
    ]
}

/// Everything the one NodePool allows.
pub(super) fn offers(workload: &Workload) -> Result<Vec<Offer<'_>>, BoundError> {
    let mut pools = workload.view.pools().values();
    let (Some(pool), None) = (pools.next(), pools.next()) else {
        return Err(BoundError::Unknown("more than one NodePool".to_owned()));
    };
    let spec = &pool.spec.template.spec;
    if !spec.taints.is_empty() || !pool.spec.limits.is_empty() {
        return Err(BoundError::Unknown("a NodePool with taints or limits".to_owned()));
    }
    let allowed = Requirements::from_requirements(&spec.requirements)
        .map_err(|error| BoundError::Unknown(error.to_string()))?;
    let daemons = daemons(workload)?;
    let mut offers = Vec::new();
    for instance_type in workload.types() {
        let has = |key: &str| instance_type.labels.get(key).is_some_and(|count| count != "0");
        let mut free = instance_type.allocatable.clone();
        free.subtract(&daemons);
        for offering in &instance_type.offerings {
            let mut labels = instance_type.labels.clone();
            labels.insert(labels::ZONE.to_owned(), offering.zone.clone());
            labels.insert(labels::CAPACITY_TYPE.to_owned(), offering.capacity_type.to_string());
            let Some(price) = offering.price.filter(|_| offering.available) else { continue };
            if !allowed.matches_labels(&labels) {
                continue;
            }
            offers.push(Offer {
                instance_type,
                zone: &offering.zone,
                capacity_type: offering.capacity_type,
                price,
                room: room_amounts(&free),
                vcpus: instance_type.capacity.get(&ResourceName::Cpu) / 1000,
                exotic: has("karpenter.k8s.aws/instance-gpu-count")
                    || has("karpenter.k8s.aws/instance-accelerator-count")
                    || instance_type.name.contains(".metal"),
            });
        }
    }
    Ok(offers)
}

/// What DaemonSets take of every node.
fn daemons(workload: &Workload) -> Result<Resources, BoundError> {
    let mut taken = Resources::new();
    for set in workload.view.daemon_sets().values() {
        let spec = &set.spec.template.spec;
        if !spec.node_selector.is_empty() || spec.affinity.node_affinity.is_some() {
            return Err(BoundError::Unknown("a DaemonSet that selects nodes".to_owned()));
        }
        taken.add(&Pod { spec: spec.clone(), ..Pod::default() }.requests());
    }
    Ok(taken)
}

/// Free room on nodes that are there, by the classes that have a pod which fits.
pub(super) fn free_rooms(
    workload: &Workload,
    demands: &[Demand],
    classes: usize,
) -> Result<Vec<FreeRoom>, BoundError> {
    let daemons = daemons(workload)?;
    let mut rooms: BTreeMap<Vec<bool>, FreeRoom> = BTreeMap::new();
    for (name, node) in workload.view.nodes() {
        let mut free = node.status.allocatable.clone();
        free.subtract(&daemons);
        for pod in workload.view.pods_on(name) {
            free.subtract(&pod.requests());
        }
        let room = room_amounts(&free);
        let mut admitted = vec![false; classes];
        for demand in demands {
            let fits = demand.each.iter().zip(&room).all(|(each, room)| each <= room);
            let selected = demand
                .selector
                .iter()
                .all(|(key, value)| node.metadata.labels.get(key) == Some(value));
            if let Some(slot) = admitted.get_mut(demand.class)
                && fits
                && selected
            {
                *slot = true;
            }
        }
        if admitted.contains(&true) {
            let entry = rooms.entry(admitted.clone()).or_insert(FreeRoom {
                classes: admitted,
                room: [0; super::RESOURCES],
                nodes: 0,
            });
            entry.nodes += 1;
            for (sum, free) in entry.room.iter_mut().zip(room) {
                *sum += free;
            }
        }
    }
    Ok(rooms.into_values().collect())
}
