//! What a plan is made from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drover_common::cluster::{ObjectKey, Pod};
use drover_common::id::{NodeClaimName, NodeName, NodePoolName};
use drover_common::instance_type::CapacityType;
use drover_common::requirement::Requirements;
use drover_common::resources::Resources;
use drover_common::taint::Taint;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Placement;
use crate::nodeclass::catalog::NodeClassCatalog;
use crate::view::View;

/// Everything [`super::plan`] reads. Equal inputs give equal plans.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// The cluster as the watches tell it.
    pub view: &'a View,
    /// Instance types by EC2NodeClass name. A class that is absent is not ready.
    pub catalogs: &'a BTreeMap<String, NodeClassCatalog>,
    /// Pods that are not there, and are planned for all the same.
    pub virtual_pods: &'a [VirtualPods],
    /// Claims committed or launched that have no usable Node yet; they take pods like nodes.
    pub in_flight: &'a [InFlightNode],
    /// Places on nodes that were decided before, for pods that wait or are to leave theirs: they are given these
    /// first, as far as they still hold.
    pub seats: &'a [Placement],
    /// Nodes being drained or interrupted: they take no pods, and their reschedulable pods count
    /// as pending.
    pub leaving: &'a BTreeSet<NodeName>,
    /// Pods on those that nothing may evict: they keep their places for as long as those last.
    pub staying: &'a BTreeSet<ObjectKey>,
    /// Offerings that EC2 lately could not provide, and until when they are left alone.
    pub unavailable: &'a BTreeMap<UnavailableOffering, Timestamp>,
    /// Nodes on their way into a capacity reservation that its room does not tell of yet, by its id.
    pub reserved: &'a BTreeMap<String, u32>,
    /// Capacity in use by NodePool, launches in flight included, with the count of nodes under
    /// `nodes`; limits are judged by it.
    pub pool_usage: &'a BTreeMap<NodePoolName, Resources>,
    /// Settings.
    pub settings: &'a PlannerSettings,
    /// The time of planning.
    pub now: Timestamp,
}

/// Equal pods that are not there: replicas that their owner is yet to make, or room that a
/// CapacityBuffer keeps free.
#[derive(Clone, Debug)]
pub struct VirtualPods {
    /// What each of them is like, without volumes; its name does not matter.
    pub pod: Arc<Pod>,
    /// Their names, sorted, unlike those of any pod that is there.
    pub keys: Vec<ObjectKey>,
    /// Whether they stand for room that is to be free: it may be on another node as well, and nobody is evicted for that.
    pub keep_room: bool,
}

impl VirtualPods {
    /// So many pods like one that is there, or like a template. Volumes are left out: they have no
    /// claims yet. `name` must not be the beginning of other pods' names.
    pub fn like(pod: &Pod, name: &str, count: usize) -> Self {
        let mut pod = pod.clone();
        pod.spec.volumes.clear();
        pod.spec.node_name.clear();
        let namespace = &pod.metadata.namespace;
        let mut keys: Vec<ObjectKey> = (0..count)
            .map(|number| ObjectKey::new(namespace.clone(), format!("{name}#{number}")))
            .collect();
        keys.sort();
        Self { pod: Arc::new(pod), keys, keep_room: false }
    }
}

/// A node that is on its way.
#[derive(Clone, Debug)]
pub struct InFlightNode {
    /// Its claim.
    pub claim: NodeClaimName,
    /// Its Node, once it has joined: pods that are bound to it take room already.
    pub node: Option<NodeName>,
    /// Its pool.
    pub nodepool: NodePoolName,
    /// Labels it is sure to have.
    pub labels: BTreeMap<String, String>,
    /// What else it may turn out to be; keys already among the labels may be repeated.
    pub requirements: Requirements,
    /// Taints that stay (startup taints left out).
    pub taints: Vec<Taint>,
    /// The least allocatable over its possible types.
    pub allocatable: Resources,
    /// Pods the launch was planned for: they keep their place as long as they are pending and fit.
    pub pods: Vec<ObjectKey>,
}

/// An offering to leave alone for a while; `None` stands for all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnavailableOffering {
    /// Billing.
    pub capacity_type: CapacityType,
    /// One type, or all.
    pub instance_type: Option<String>,
    /// One zone, or all.
    pub zone: Option<String>,
    /// One capacity reservation, or all.
    pub reservation: Option<String>,
}

/// What to do with preferences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PreferencePolicy {
    /// Preferences are met where possible, and dropped one by one where not.
    #[default]
    Respect,
    /// Preferences are dropped from the start.
    Ignore,
}

/// What to do where a NodePool's `minValues` can't be met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MinValuesPolicy {
    /// No node is planned.
    #[default]
    Strict,
    /// The node is planned with as many values as there are.
    BestEffort,
}

/// The planner's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannerSettings {
    /// Larger types are taken only for pods that fit nothing smaller.
    pub max_node_vcpus: u32,
    /// Most instance types a launch.
    pub max_instance_types: usize,
    /// Fewest types of a spot launch, where that many fit.
    pub min_spot_types: usize,
    /// Spot nodes are planned at the price of the n-th cheapest type of their launch: EC2 seldom
    /// gives the cheapest one.
    pub spot_price_rank: usize,
    /// Preferences.
    pub preference_policy: PreferencePolicy,
    /// `minValues`.
    pub min_values_policy: MinValuesPolicy,
    /// Passes of value correction over the packing; more is slower and cheaper.
    pub packing_passes: u32,
    /// Steps that a plan may take for pods whose places depend on each other: about a second for each
    /// twenty million. A plan that first puts low priorities before high ones takes them twice. Pods they
    /// do not suffice for are left, with that reason, until the next look.
    #[serde(default = "max_exact_steps")]
    pub max_exact_steps: u64,
}

fn max_exact_steps() -> u64 {
    PlannerSettings::default().max_exact_steps
}

impl Default for PlannerSettings {
    fn default() -> Self {
        Self {
            max_node_vcpus: 32,
            max_instance_types: 60,
            min_spot_types: 15,
            spot_price_rank: 5,
            preference_policy: PreferencePolicy::Respect,
            min_values_policy: MinValuesPolicy::Strict,
            packing_passes: 12,
            max_exact_steps: 40_000_000,
        }
    }
}
