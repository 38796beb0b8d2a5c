//! What a plan is.

use std::collections::BTreeMap;

use drover_common::cluster::ObjectKey;
use drover_common::ec2::ReservationTarget;
use drover_common::id::{NodeClaimName, NodeName, NodePoolName};
use drover_common::instance_type::CapacityType;
use drover_common::requirement::Requirement;
use drover_common::resources::Resources;
use drover_common::taint::Taint;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Nodes to launch, pods that fit what exists, and pods that fit nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// One entry a node.
    pub launches: Vec<Launch>,
    /// Pods that existing and in-flight nodes take.
    pub placements: Vec<Placement>,
    /// Pods left, and why.
    pub unschedulable: Vec<Unschedulable>,
    /// The plan in numbers.
    pub report: PlanReport,
}

/// One node to launch: what it may become, and for whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Its pool.
    pub nodepool: NodePoolName,
    /// Its EC2NodeClass.
    pub nodeclass: String,
    /// Billing.
    pub capacity_type: CapacityType,
    /// The capacity reservation that it is to use, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<ReservationTarget>,
    /// What it may become, cheapest first; every pod fits every one.
    pub offerings: Vec<LaunchOffering>,
    /// Zones of the offerings, sorted.
    pub zones: Vec<String>,
    /// `spec.requirements` of the NodeClaim.
    pub requirements: Vec<Requirement>,
    /// Requests of its pods and of the daemons they will meet there.
    pub requests: Resources,
    /// Labels of the node, as far as they are fixed already.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Startup taints.
    pub startup_taints: Vec<Taint>,
    /// Whether it lists fewer values of some key than its pool's `minValues` (BestEffort alone).
    pub min_values_relaxed: bool,
    /// Pods it is for.
    pub pods: Vec<ObjectKey>,
    /// Price of the first offering in micro-dollars an hour; 0 only if it is unknown.
    pub hourly_price_micro: u64,
    /// Least allocatable over its possible types.
    pub allocatable: Resources,
}

/// One thing a launch may become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchOffering {
    /// Instance type.
    pub instance_type: SmolStr,
    /// Zone.
    pub zone: SmolStr,
    /// Micro-dollars an hour, if known.
    pub price_micro: Option<u64>,
}

/// A node that is there, or on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PlacementTarget {
    /// A Node.
    Node(NodeName),
    /// A claim in flight.
    Claim(NodeClaimName),
}

/// Pods that a node takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The node.
    pub node_or_claim: PlacementTarget,
    /// Its new pods, sorted.
    pub pods: Vec<ObjectKey>,
}

/// A pod without a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unschedulable {
    /// The pod.
    pub pod: ObjectKey,
    /// Why, by NodePool. A reason that concerns no pool in particular stands under an empty name.
    pub reasons: Vec<(NodePoolName, String)>,
}

/// A plan in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReport {
    /// Pods looked at.
    pub pods: usize,
    /// Distinct shapes among them.
    pub shapes: usize,
    /// Offerings that were possible.
    pub offerings: usize,
    /// Pods on nodes that exist or are in flight.
    pub on_existing: usize,
    /// Pods on new nodes.
    pub on_new: usize,
    /// Pods that nobody looked for a place for, because the plan's steps were spent.
    #[serde(default)]
    pub put_off: usize,
    /// Micro-dollars an hour of all launches.
    pub hourly_price_micro: u64,
    /// The same for plain grouped first fit, so far as it went: what it packed, at its cheapest types.
    pub first_fit_price_micro: u64,
    /// Things that were skipped, with object, field and reason.
    pub problems: Vec<String>,
}
