//! What a repack is made from.

use std::collections::BTreeMap;

use drover_common::id::{NodeName, NodePoolName};
use drover_common::instance_type::CapacityType;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::planner::PlanInput;

/// Everything [`super::repack`] reads. Equal inputs give equal plans.
#[derive(Clone, Copy, Debug)]
pub struct RepackInput<'a> {
    /// What [`crate::planner::plan`] would read now. Pods that wait, and those of leaving nodes, are
    /// given their places before any pod is moved; nodes with seats stay.
    pub plan: PlanInput<'a>,
    /// The nodes that may be taken down, by name; all others stay, and take pods.
    pub nodes: &'a BTreeMap<NodeName, ManagedNode>,
    /// The nodes of each pool, counted for its disruption budgets.
    pub pools: &'a BTreeMap<NodePoolName, PoolNodes>,
    /// Settings.
    pub settings: &'a RepackSettings,
}

/// A node that Drover launched.
#[derive(Clone, Debug, PartialEq)]
pub struct ManagedNode {
    /// Its pool.
    pub nodepool: NodePoolName,
    /// How it is billed.
    pub capacity_type: CapacityType,
    /// What it cost when it was launched, micro-dollars an hour; 0 if unknown. It counts where its like is not
    /// sold now: see [`crate::planner::NodePrices`].
    pub price_micro: u64,
    /// When it was ready for pods; `None` if it is not yet.
    pub initialized_at: Option<Timestamp>,
    /// Whether no pod came or went for the pool's `consolidateAfter`.
    pub quiet: bool,
    /// Why the caller wants it left alone, if so.
    pub held: Option<String>,
}

/// The nodes of one pool, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolNodes {
    /// Initialized ones, leaving ones included.
    pub initialized: u32,
    /// Of those: the Node is not Ready, or not there.
    pub unwell: u32,
    /// Of those: being disrupted.
    pub disrupting: u32,
}

impl PoolNodes {
    /// Whether over a fifth of the nodes are unwell: the fault may then be the network's or ours.
    pub fn is_doubtful(self) -> bool {
        self.unwell.saturating_mul(5) > self.initialized
    }
}

/// The settings of repacking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepackSettings {
    /// A replacement must save so much of the price of the nodes it replaces, in percent.
    pub min_saving_percent: u32,
    /// Nodes that hold pods are left alone for so long after they were ready.
    pub min_node_age: SignedDuration,
    /// Whether spot nodes are replaced by cheaper spot nodes.
    pub spot_to_spot: bool,
    /// Fewest types that spot nodes' spot replacements must be able to become, so that the next ones are not as
    /// likely to be taken back. All of them must be cheap enough. Where fewer fit, all that do.
    pub min_spot_types: usize,
    /// What one eviction must save at least, micro-dollars an hour.
    pub eviction_micro: u64,
    /// Most nodes of one batch.
    pub max_batch_nodes: usize,
    /// Whether pods without a controller are taken to come back; if not, they hold their nodes.
    pub moves_bare_pods: bool,
    /// Take every wait (`consolidateAfter`, node age) as passed.
    pub skip_waits: bool,
}

impl Default for RepackSettings {
    fn default() -> Self {
        Self {
            min_saving_percent: 10,
            min_node_age: SignedDuration::from_mins(10),
            spot_to_spot: true,
            min_spot_types: 15,
            eviction_micro: 200,
            max_batch_nodes: 32,
            moves_bare_pods: false,
            skip_waits: false,
        }
    }
}
