//! The answer as users and their tools read it. Its JSON is a stable interface.

use std::collections::BTreeSet;

use drover_common::cluster::ObjectKey;
use drover_common::resources::Resources;
use serde::Serialize;

use super::OfflineCluster;
use crate::planner::{Launch, PlacementTarget, Plan, RepackPlan, Unschedulable};

/// What a leader would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// In numbers.
    pub summary: AnsweredSummary,
    /// Nodes to launch.
    pub launches: Vec<AnsweredLaunch>,
    /// Pods that nodes take which are there, or on their way.
    pub placements: Vec<AnsweredPlacement>,
    /// Pods left.
    pub unschedulable: Vec<AnsweredUnschedulable>,
    /// Nodes to disrupt; absent where that was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disruptions: Option<Vec<AnsweredDisruption>>,
}

/// A plan in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnsweredSummary {
    /// Pods that wait, or have to move.
    pub pods: usize,
    /// Those that nodes take which are there, or on their way.
    pub on_existing: usize,
    /// Those on new nodes.
    pub on_new: usize,
    /// Those left.
    pub unschedulable: usize,
    /// New nodes.
    pub launches: usize,
    /// Dollars an hour of the new nodes.
    pub hourly_cost: f64,
    /// Wall time of planning alone, seconds.
    pub plan_seconds: f64,
}

/// A node to launch.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnsweredLaunch {
    /// NodePool.
    pub node_pool: String,
    /// `spot`, `on-demand` or `reserved`.
    pub capacity_type: &'static str,
    /// Zones it may be in.
    pub zones: Vec<String>,
    /// Types it may become, cheapest first.
    pub instance_types: Vec<String>,
    /// Dollars an hour of the first type where it is cheapest; 0 if its price is not known.
    pub hourly_price: f64,
    /// Requests of its pods and daemons.
    pub requests: Resources,
    /// Its pods, `namespace/name`.
    pub pods: Vec<String>,
}

/// Pods that one node takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnsweredPlacement {
    /// The node's name; a node that has not joined yet goes by its claim's.
    pub node: String,
    /// The NodeClaim, if the node is on its way, or has joined and is not initialized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_claim: Option<String>,
    /// Its new pods, `namespace/name`.
    pub pods: Vec<String>,
}

/// A pod left.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnsweredUnschedulable {
    /// `namespace/name`.
    pub pod: String,
    /// Why, by NodePool.
    pub reasons: Vec<AnsweredReason>,
}

/// Why a pod is left.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnsweredReason {
    /// The NodePool; empty where it concerns none in particular.
    pub node_pool: String,
    /// The reason.
    pub reason: String,
}

/// Nodes that leave together.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnsweredDisruption {
    /// `Empty`, `Underutilized` or `Drifted`; `Deletion` of what a static pool has too many.
    pub reason: String,
    /// 1 may begin at once, each next one when the one before is done.
    pub wave: u32,
    /// Whether its moves are only right once all entries of earlier waves are done; if not, it stands without them.
    pub follows: bool,
    /// Their names.
    pub nodes: Vec<String>,
    /// Nodes launched in their place.
    pub replacements: Vec<AnsweredLaunch>,
    /// Dollars an hour saved.
    pub savings_per_hour: f64,
    /// Where their pods go.
    pub moves: Vec<AnsweredMove>,
}

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnsweredMove {
    /// `namespace/name`.
    pub pod: String,
    /// A node's name, or `replacement/N` by index.
    pub to: String,
}

/// Micro-dollars as dollars.
pub(super) fn dollars(micro: u64) -> f64 {
    // Exact below 2^53 micro-dollars; nine billion dollars an hour.
    micro as f64 / 1e6
}

fn names(pods: &[ObjectKey]) -> Vec<String> {
    pods.iter().map(ToString::to_string).collect()
}

impl AnsweredLaunch {
    /// A launch of a plan.
    pub fn of(launch: &Launch) -> Self {
        let mut seen = BTreeSet::new();
        let types = launch.offerings.iter().map(|offering| offering.instance_type.as_str());
        Self {
            node_pool: launch.nodepool.to_string(),
            capacity_type: launch.capacity_type.as_str(),
            zones: launch.zones.clone(),
            instance_types: types.filter(|name| seen.insert(*name)).map(str::to_owned).collect(),
            hourly_price: dollars(launch.hourly_price_micro),
            requests: launch.requests.clone(),
            pods: names(&launch.pods),
        }
    }
}

fn unschedulable(entry: &Unschedulable) -> AnsweredUnschedulable {
    let reasons = entry.reasons.iter().map(|(pool, reason)| AnsweredReason {
        node_pool: pool.to_string(),
        reason: reason.clone(),
    });
    AnsweredUnschedulable { pod: entry.pod.to_string(), reasons: reasons.collect() }
}

/// Pods on nodes that are there, or on their way; those on launches of static pools stand with the launches.
fn placements(cluster: &OfflineCluster, plan: &Plan) -> Vec<AnsweredPlacement> {
    let joined = cluster.joined();
    let placed = plan.placements.iter().filter_map(|placement| {
        let (node, node_claim) = match &placement.node_or_claim {
            PlacementTarget::Claim(name) if cluster.static_launches.contains_key(name) => {
                return None;
            }
            PlacementTarget::Node(name) => (name.to_string(), None),
            PlacementTarget::Claim(name) => {
                let node = joined.get(name).map_or_else(|| name.to_string(), ToString::to_string);
                (node, Some(name.to_string()))
            }
        };
        Some(AnsweredPlacement { node, node_claim, pods: names(&placement.pods) })
    });
    placed.collect()
}

impl Answer {
    /// The answer that a plan for the cluster is.
    pub fn of(
        cluster: &OfflineCluster,
        plan: &Plan,
        repack: Option<&RepackPlan>,
        plan_seconds: f64,
    ) -> Self {
        let fixed = cluster.static_launches_with_pods(plan);
        let bought = plan.launches.iter().chain(&fixed);
        let cost: u64 = bought.clone().map(|launch| launch.hourly_price_micro).sum();
        let launches: Vec<AnsweredLaunch> = bought.map(AnsweredLaunch::of).collect();
        let placements = placements(cluster, plan);
        let mut left: Vec<&Unschedulable> =
            plan.unschedulable.iter().chain(&cluster.set_aside).collect();
        left.sort_by(|a, b| a.pod.cmp(&b.pod));
        let on_existing = placements.iter().map(|placement| placement.pods.len()).sum();
        let on_new = launches.iter().map(|launch| launch.pods.len()).sum();
        let summary = AnsweredSummary {
            pods: on_existing + on_new + left.len(),
            on_existing,
            on_new,
            unschedulable: left.len(),
            launches: launches.len(),
            hourly_cost: dollars(cost),
            plan_seconds,
        };
        Self {
            summary,
            launches,
            placements,
            unschedulable: left.into_iter().map(unschedulable).collect(),
            disruptions: repack.map(|repack| {
                let batches = repack.batches.iter().map(AnsweredDisruption::of);
                AnsweredDisruption::of_static(cluster).into_iter().chain(batches).collect()
            }),
        }
    }
}
