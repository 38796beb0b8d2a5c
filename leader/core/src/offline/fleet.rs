//! Nodes before and after a plan, by pool and type: how many, how full, and what they cost. Those on their way are
//! there already: they are paid for.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{Node, ObjectKey};
use drover_common::id::NodeName;
use drover_common::instance_type::{CapacityType, InstanceType};
use drover_common::labels;
use drover_common::resources::Resources;

use super::OfflineCluster;
use super::flying::pods_of_claims;
use super::repack::{carried_out, key_of};
use crate::planner::{Launch, NodePrices, PlacementTarget, Plan, PlannerSettings, RepackPlan};

/// Nodes that cost and look the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FleetKey {
    /// NodePool; empty for nodes that no pool manages.
    pub nodepool: String,
    /// Instance type; empty if a node does not say.
    pub instance_type: String,
    /// `spot`, `on-demand`, `reserved`; empty if a node does not say.
    pub capacity_type: String,
}

/// Nodes of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetRow {
    /// How many there are.
    pub nodes_now: usize,
    /// How many there will be.
    pub nodes_after: usize,
    /// Pods on them afterwards.
    pub pods_after: usize,
    /// What those request, daemons of new nodes included.
    pub requested_after: Resources,
    /// What the nodes offer afterwards.
    pub allocatable_after: Resources,
    /// Micro-dollars an hour now.
    pub price_now: u64,
    /// Micro-dollars an hour afterwards.
    pub price_after: u64,
    /// Nodes, now or afterwards, of no known price.
    pub unpriced: usize,
}

/// The cluster's nodes before and after a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// By pool and type.
    pub rows: BTreeMap<FleetKey, FleetRow>,
}

impl Fleet {
    /// What a plan makes of the cluster's nodes. Nodes that are being deleted are gone afterwards.
    pub fn of(cluster: &OfflineCluster, plan: &Plan) -> Self {
        Self::with(cluster, plan, &cluster.leaving)
    }

    /// The same, with a repack carried out after the plan.
    pub fn repacked(cluster: &OfflineCluster, plan: &Plan, repack: &RepackPlan) -> Self {
        let (mut leaving, plan) = carried_out(plan, repack);
        leaving.extend(cluster.leaving.iter().cloned());
        Self::with(cluster, &plan, &leaving)
    }

    fn with(cluster: &OfflineCluster, plan: &Plan, leaving: &BTreeSet<NodeName>) -> Self {
        let mut fleet = Self::default();
        let types = types_by_name(cluster);
        let settings = PlannerSettings::default();
        let mut prices = NodePrices::of(&cluster.plan_input(&settings));
        let mut price = |node: &Node| prices.of_node(node).or_else(|| price_of_node(&types, node));
        let placed = placed_on_nodes(cluster, plan);
        for (name, node) in cluster.view.nodes() {
            let new = placed.get(name).into_iter().flatten().copied();
            fleet.add_node(cluster, price(node), leaving, node, new);
        }
        let on_claims = pods_of_claims(plan);
        for flying in cluster.without_node() {
            let node = cluster.likeness(flying);
            let new = on_claims.get(&flying.claim).into_iter().copied().flatten();
            fleet.add_node(cluster, price(&node), leaving, &node, new);
        }
        for launch in plan.launches.iter().chain(&cluster.static_launches_with_pods(plan)) {
            fleet.add_launch(launch, &types);
        }
        fleet
    }

    fn add_node<'p>(
        &mut self,
        cluster: &OfflineCluster,
        price: Option<u64>,
        leaving: &BTreeSet<NodeName>,
        node: &Node,
        new_pods: impl Iterator<Item = &'p ObjectKey>,
    ) {
        let name = NodeName::from(node.metadata.name.as_str());
        let key = key_of(node);
        let row = self.rows.entry(key).or_default();
        row.nodes_now += 1;
        row.unpriced += usize::from(price.is_none());
        row.price_now = row.price_now.saturating_add(price.unwrap_or(0));
        if leaving.contains(&name) {
            return;
        }
        row.nodes_after += 1;
        row.price_after = row.price_after.saturating_add(price.unwrap_or(0));
        row.allocatable_after.add(&node.status.allocatable);
        let view = &cluster.view;
        if let Some(pods) = view.node_pods(&name) {
            for (shape, count) in &pods.shapes {
                let Some(shape) = view.shape(*shape) else { continue };
                row.pods_after += *count as usize;
                for (name, amount) in shape.requests.iter() {
                    let sum = amount.saturating_mul(i64::from(*count));
                    row.requested_after.add(&Resources::from_iter([(name.clone(), sum)]));
                }
            }
        }
        for requests in new_pods.filter_map(|key| cluster.requests_of(key)) {
            row.pods_after += 1;
            row.requested_after.add(&requests);
        }
    }

    fn add_launch(&mut self, launch: &Launch, types: &BTreeMap<&str, &InstanceType>) {
        let first = launch.offerings.first();
        let instance_type = first.map(|offering| offering.instance_type.clone());
        let key = FleetKey {
            nodepool: launch.nodepool.to_string(),
            instance_type: instance_type.unwrap_or_default().into(),
            capacity_type: launch.capacity_type.to_string(),
        };
        let allocatable = types
            .get(key.instance_type.as_str())
            .map_or(&launch.allocatable, |kind| &kind.allocatable)
            .clone();
        let row = self.rows.entry(key).or_default();
        row.nodes_after += 1;
        row.pods_after += launch.pods.len();
        row.requested_after.add(&launch.requests);
        row.allocatable_after.add(&allocatable);
        row.price_after = row.price_after.saturating_add(launch.hourly_price_micro);
        row.unpriced += usize::from(launch.hourly_price_micro == 0);
    }

    /// Micro-dollars an hour, now and afterwards.
    pub fn prices(&self) -> (u64, u64) {
        self.rows.values().fold((0, 0), |(now, after), row| {
            (now.saturating_add(row.price_now), after.saturating_add(row.price_after))
        })
    }
}

/// What a plan places on nodes that are there, be they ready for pods or not.
fn placed_on_nodes<'p>(
    cluster: &'p OfflineCluster,
    plan: &'p Plan,
) -> BTreeMap<&'p NodeName, Vec<&'p ObjectKey>> {
    let joined = cluster.joined();
    let mut placed: BTreeMap<&NodeName, Vec<&ObjectKey>> = BTreeMap::new();
    for placement in &plan.placements {
        let node = match &placement.node_or_claim {
            PlacementTarget::Node(name) => Some(name),
            PlacementTarget::Claim(claim) => joined.get(claim).copied(),
        };
        if let Some(node) = node {
            placed.entry(node).or_default().extend(&placement.pods);
        }
    }
    placed
}

pub(super) fn types_by_name(cluster: &OfflineCluster) -> BTreeMap<&str, &InstanceType> {
    let all = cluster.catalogs.values().flat_map(|catalog| &catalog.instance_types);
    let mut names = BTreeSet::new();
    all.filter(|kind| names.insert(kind.name.as_str()))
        .map(|kind| (kind.name.as_str(), kind))
        .collect()
}

/// What the catalogue asks for a node like this, whoever made it. Reserved capacity is paid for already: it
/// costs the least there is, for zero is a price that is not known.
pub(super) fn price_of_node(types: &BTreeMap<&str, &InstanceType>, node: &Node) -> Option<u64> {
    let key = key_of(node);
    let zone = node.metadata.labels.get(labels::ZONE).map_or("", String::as_str);
    if key.capacity_type == CapacityType::Reserved.as_str() {
        return Some(1);
    }
    let offerings = &types.get(key.instance_type.as_str())?.offerings;
    let in_zone = offerings.iter().find(|offering| {
        offering.zone == zone && offering.capacity_type.as_str() == key.capacity_type
    });
    // On-demand prices are the same in every zone, and what a node without the label is billed by.
    let on_demand = || {
        let plain = matches!(key.capacity_type.as_str(), "" | "on-demand");
        offerings.iter().find(|o| plain && o.capacity_type == CapacityType::OnDemand)
    };
    in_zone.or_else(on_demand)?.price
}
