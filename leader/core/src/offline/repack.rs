//! The repack of a dumped cluster, as if every wait had passed.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{Node, ObjectKey};
use drover_common::id::{NodeName, NodePoolName};
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use jiff::Timestamp;

use super::answer::{AnsweredDisruption, AnsweredLaunch, AnsweredMove, dollars};
use super::bought::Bought;
use super::claims::is_initialized;
use super::fleet::{price_of_node, types_by_name};
use super::{FleetKey, OfflineCluster};
use crate::command::DisruptionReason;
use crate::planner::{
    Batch, ManagedNode, MoveTarget, Placement, PlacementTarget, Plan, PlanInput, PlannerSettings,
    PoolNodes, RepackInput, RepackPlan, RepackSettings, repack,
};

impl OfflineCluster {
    /// Which of the managed nodes a leader would take down after a plan is carried out, budgets respected wave by
    /// wave: what the plan launches holds its pods, and counts for limits. Pods without a controller are taken to
    /// come back, because a dump need not tell owners, and every wait to have passed.
    pub fn repack(
        &self,
        settings: &PlannerSettings,
        of_repack: &RepackSettings,
        plan: &Plan,
    ) -> RepackPlan {
        let (nodes, pools) = self.managed();
        let of_repack =
            RepackSettings { skip_waits: true, moves_bare_pods: true, ..of_repack.clone() };
        let bought = Bought::of(self, plan);
        let before = self.plan_input(settings);
        let seats = seats_of_pods(plan, &before);
        let after = PlanInput {
            in_flight: &bought.in_flight,
            pool_usage: &bought.pool_usage,
            reserved: &bought.reserved,
            seats: &seats,
            ..before
        };
        repack(&RepackInput { plan: after, nodes: &nodes, pools: &pools, settings: &of_repack })
    }

    fn managed(&self) -> (BTreeMap<NodeName, ManagedNode>, BTreeMap<NodePoolName, PoolNodes>) {
        let types = types_by_name(self);
        let mut nodes = BTreeMap::new();
        let mut pools: BTreeMap<NodePoolName, PoolNodes> = BTreeMap::new();
        for (name, node) in self.view.nodes() {
            let Some(pool) = node.metadata.labels.get(labels::NODEPOOL) else { continue };
            let claim = self.view.claim_of_node(node);
            let initialized = claim.is_none_or(|claim| is_initialized(claim, node));
            let pool = NodePoolName::from(pool.clone());
            if initialized {
                let count = pools.entry(pool.clone()).or_default();
                count.initialized = count.initialized.saturating_add(1);
                let leaving = self.leaving.contains(name);
                count.disrupting = count.disrupting.saturating_add(u32::from(leaving));
                let unwell = !leaving && !node.is_ready();
                count.unwell = count.unwell.saturating_add(u32::from(unwell));
            }
            let protected = claim
                .and_then(|claim| claim.metadata.annotations.as_ref()?.get(labels::DO_NOT_DISRUPT))
                .is_some_and(|value| value == "true");
            let key = key_of(node);
            let one = ManagedNode {
                nodepool: pool,
                capacity_type: capacity_type(&key.capacity_type),
                price_micro: price_of_node(&types, node).unwrap_or(0),
                initialized_at: initialized.then_some(Timestamp::UNIX_EPOCH),
                quiet: true,
                held: protected.then(|| format!("its NodeClaim has {}", labels::DO_NOT_DISRUPT)),
            };
            nodes.insert(name.clone(), one);
        }
        (nodes, pools)
    }
}

/// What a node is counted by.
pub(super) fn key_of(node: &Node) -> FleetKey {
    let label = |key: &str| node.metadata.labels.get(key).cloned().unwrap_or_default();
    FleetKey {
        nodepool: label(labels::NODEPOOL),
        instance_type: label(labels::INSTANCE_TYPE),
        capacity_type: label(labels::CAPACITY_TYPE),
    }
}

fn capacity_type(text: &str) -> CapacityType {
    [CapacityType::Reserved, CapacityType::Spot]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .unwrap_or(CapacityType::OnDemand)
}

impl AnsweredDisruption {
    /// What static pools let go. Their pods are among those that the plan has placed.
    pub fn of_static(cluster: &OfflineCluster) -> Vec<Self> {
        let types = types_by_name(cluster);
        let price = |name: &str| {
            let node = cluster.view.nodes().get(&NodeName::from(name))?;
            price_of_node(&types, node)
        };
        let entries = cluster.static_excess.values().map(|nodes| Self {
            reason: format!("{:?}", DisruptionReason::Deletion),
            wave: 1,
            follows: false,
            nodes: nodes.clone(),
            replacements: Vec::new(),
            savings_per_hour: dollars(nodes.iter().filter_map(|name| price(name)).sum()),
            moves: Vec::new(),
        });
        entries.collect()
    }

    /// A batch of a repack.
    pub fn of(batch: &Batch) -> Self {
        let moves = batch.moves.iter().map(|one| AnsweredMove {
            pod: one.pod.to_string(),
            to: match &one.to {
                MoveTarget::Node(name) => name.to_string(),
                MoveTarget::Replacement(number) => format!("replacement/{number}"),
            },
        });
        let saving = u64::try_from(batch.saving_micro).unwrap_or(0);
        Self {
            reason: format!("{:?}", batch.reason),
            wave: batch.wave.saturating_add(1),
            follows: batch.follows,
            nodes: batch.nodes.iter().map(|name| name.to_string()).collect(),
            replacements: batch.replacements.iter().map(AnsweredLaunch::of).collect(),
            savings_per_hour: dollars(saving),
            moves: moves.collect(),
        }
    }
}

/// A plan with a repack carried out after it: the nodes that leave, and where all pods go.
pub(super) fn carried_out(plan: &Plan, repack: &RepackPlan) -> (BTreeSet<NodeName>, Plan) {
    let mut leaving = BTreeSet::new();
    let mut done = plan.clone();
    let mut moved: BTreeMap<&NodeName, Vec<_>> = BTreeMap::new();
    for batch in &repack.batches {
        leaving.extend(batch.nodes.iter().cloned());
        done.launches.extend(batch.replacements.iter().cloned());
        for one in &batch.moves {
            if let MoveTarget::Node(node) = &one.to {
                moved.entry(node).or_default().push(one.pod.clone());
            }
        }
    }
    for placement in &mut done.placements {
        if let PlacementTarget::Node(name) = &placement.node_or_claim
            && let Some(more) = moved.remove(name)
        {
            placement.pods.extend(more);
        }
    }
    let rest = moved
        .into_iter()
        .map(|(name, pods)| Placement { node_or_claim: PlacementTarget::Node(name.clone()), pods });
    done.placements.extend(rest);
    (leaving, done)
}

/// Where the plan seats pods. Room that is kept free on a node holds nobody there: it moves with the node's pods.
fn seats_of_pods(plan: &Plan, input: &PlanInput<'_>) -> Vec<Placement> {
    let rooms = input.virtual_pods.iter().filter(|pods| pods.keep_room);
    let rooms: BTreeSet<&ObjectKey> = rooms.flat_map(|pods| &pods.keys).collect();
    let mut seats = plan.placements.clone();
    for seat in &mut seats {
        if let PlacementTarget::Node(_) = &seat.node_or_claim {
            seat.pods.retain(|pod| !rooms.contains(pod));
        }
    }
    seats.retain(|seat| !seat.pods.is_empty());
    seats
}
