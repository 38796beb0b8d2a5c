//! What nodes that are there cost if they were bought now.
//!
//! What they cost when they were launched is no measure of what is gained by their going: spot prices
//! move, and NodeOverlays come and go. Replacements are priced as they are sold now, so a node is too.

use std::collections::BTreeMap;

use drover_common::cluster::Node;
use drover_common::id::{NodeName, NodePoolName};
use drover_common::instance_type::{CapacityType, InstanceType};
use drover_common::labels;

use super::PlanInput;
use super::overlay::Overlays;
use super::repack::{ManagedNode, RepackInput};

/// Today's prices of a cluster's nodes, NodeOverlays in them.
#[derive(Debug)]
pub struct NodePrices<'a> {
    /// Types by name, by class.
    types: BTreeMap<&'a str, BTreeMap<&'a str, &'a InstanceType>>,
    input: PlanInput<'a>,
    overlays: Overlays,
}

impl<'a> NodePrices<'a> {
    /// The prices that a plan for this input would buy at.
    pub fn of(input: &PlanInput<'a>) -> Self {
        let types = input.catalogs.iter().map(|(class, catalog)| {
            let types = catalog.instance_types.iter().map(|kind| (kind.name.as_str(), kind));
            (class.as_str(), types.collect())
        });
        Self { types: types.collect(), input: *input, overlays: Overlays::of(input.view) }
    }

    /// Micro-dollars an hour of a node of a pool, by its labels; `None` where its pool's class does not offer
    /// the like now, or at no known price. Reserved capacity is paid for in any case: it costs the least
    /// there is, for zero is a price that is not known.
    pub fn of_node(&mut self, node: &Node) -> Option<u64> {
        let label = |key: &str| node.metadata.labels.get(key).map(String::as_str);
        let billed = label(labels::CAPACITY_TYPE).unwrap_or(CapacityType::OnDemand.as_str());
        if billed == CapacityType::Reserved.as_str() {
            return Some(1);
        }
        let pool = NodePoolName::from(label(labels::NODEPOOL)?);
        let pool = self.input.view.pools().get(&pool)?;
        let class = pool.spec.template.spec.node_class_ref.name.as_str();
        let kind = self.types.get(class)?.get(label(labels::INSTANCE_TYPE)?)?;
        let alike = kind.offerings.iter().filter(|one| one.capacity_type.as_str() == billed);
        let in_zone = alike.clone().find(|one| Some(one.zone.as_str()) == label(labels::ZONE));
        // On-demand prices are the same in every zone.
        let on_demand = || {
            let mut alike = alike.clone();
            alike.find(|one| one.capacity_type == CapacityType::OnDemand)
        };
        let price = in_zone.or_else(on_demand)?.price;
        if self.overlays.is_empty() { price } else { self.overlays.price(&label, price) }
    }
}

/// The nodes of a repack at today's prices, where those are known.
pub(super) fn at_todays_prices(input: &RepackInput<'_>) -> BTreeMap<NodeName, ManagedNode> {
    let mut prices = NodePrices::of(&input.plan);
    let priced = input.nodes.iter().map(|(name, managed)| {
        let node = input.plan.view.nodes().get(name);
        let today = node.and_then(|node| prices.of_node(node)).unwrap_or(managed.price_micro);
        (name.clone(), ManagedNode { price_micro: today, ..managed.clone() })
    });
    priced.collect()
}
