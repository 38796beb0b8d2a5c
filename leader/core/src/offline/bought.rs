//! What a plan buys, as a leader counts it from then on.

use std::collections::BTreeMap;

use drover_common::id::{NodeClaimName, NodePoolName};
use drover_common::instance_type::InstanceType;
use drover_common::requirement::Requirements;
use drover_common::resources::{ResourceName, Resources};

use super::OfflineCluster;
use crate::planner::{InFlightNode, Launch, Plan};

/// What is counted once a plan's launches are committed. What comes after the plan meets its nodes, and has
/// what they leave.
#[derive(Debug)]
pub(super) struct Bought {
    /// Nodes that were on their way before, and the plan's.
    pub in_flight: Vec<InFlightNode>,
    /// What pools hold of their limits, launches as the largest they may become.
    pub pool_usage: BTreeMap<NodePoolName, Resources>,
    /// Room taken of capacity reservations.
    pub reserved: BTreeMap<String, u32>,
}

impl Bought {
    pub(super) fn of(cluster: &OfflineCluster, plan: &Plan) -> Self {
        let mut bought = Self {
            in_flight: cluster.in_flight.clone(),
            pool_usage: cluster.pool_usage.clone(),
            reserved: cluster.reserved.clone(),
        };
        let types = types_by_class(cluster);
        let fixed = cluster.static_launches.values();
        fixed.chain(&plan.launches).for_each(|launch| bought.count(&types, launch));
        // No object can have such a name.
        let named = plan.launches.iter().enumerate().map(|(number, launch)| {
            in_flight_of(NodeClaimName::from(format!("launch/{number}")), launch)
        });
        bought.in_flight.extend(named);
        bought
    }

    fn count(&mut self, types: &TypesByClass<'_>, launch: &Launch) {
        let own = types.get(launch.nodeclass.as_str());
        let may_be = launch.offerings.iter();
        let may_be = may_be.filter_map(|one| own?.get(one.instance_type.as_str()));
        // What overlays add is known from the launch alone.
        let mut most =
            may_be.fold(launch.allocatable.clone(), |most, kind| most.maximum(&kind.capacity));
        most.set(ResourceName::from("nodes"), 1);
        self.pool_usage.entry(launch.nodepool.clone()).or_default().add(&most);
        if let Some(target) = &launch.reservation {
            let taken = self.reserved.entry(target.id.clone()).or_default();
            *taken = taken.saturating_add(1);
        }
    }
}

type TypesByClass<'c> = BTreeMap<&'c str, BTreeMap<&'c str, &'c InstanceType>>;

fn types_by_class(cluster: &OfflineCluster) -> TypesByClass<'_> {
    let classes = cluster.catalogs.iter().map(|(class, catalog)| {
        let types = catalog.instance_types.iter().map(|kind| (kind.name.as_str(), kind));
        (class.as_str(), types.collect())
    });
    classes.collect()
}

/// A launch as a node on its way, with the pods that it is for.
pub(super) fn in_flight_of(claim: NodeClaimName, launch: &Launch) -> InFlightNode {
    InFlightNode {
        claim,
        node: None,
        nodepool: launch.nodepool.clone(),
        labels: launch.labels.clone(),
        // Requirements of a launch are those that its pool was read with.
        requirements: Requirements::from_requirements(&launch.requirements).unwrap_or_default(),
        taints: launch.taints.clone(),
        allocatable: launch.allocatable.clone(),
        pods: launch.pods.clone(),
    }
}
