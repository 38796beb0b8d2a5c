//! What a repack is.

use drover_common::cluster::ObjectKey;
use drover_common::crd::DisruptionReason;
use drover_common::id::NodeName;
use serde::{Deserialize, Serialize};

use crate::planner::Launch;

/// Nodes to take down, in batches, and why the others stay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RepackPlan {
    /// Batches by wave, and within one the most savings for what its evictions cost first.
    pub batches: Vec<Batch>,
    /// Nodes left alone, and why; by name.
    pub left: Vec<LeftAlone>,
    /// The plan in numbers.
    pub report: RepackReport,
}

/// Nodes that go together. A batch needs no other batch, unless it follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// `Empty` or `Underutilized`.
    pub reason: DisruptionReason,
    /// When disruption budgets let it begin: 0 is now, each next one after the one before is done.
    pub wave: u32,
    /// Whether its pods' new places are only right once all batches of earlier waves are done: where pods
    /// are to be spread, or kept from others, depends on where those go.
    #[serde(default)]
    pub follows: bool,
    /// The nodes, by name.
    pub nodes: Vec<NodeName>,
    /// Where their pods go, by pod.
    pub moves: Vec<Move>,
    /// Nodes to launch first.
    pub replacements: Vec<Launch>,
    /// What the nodes cost, micro-dollars an hour.
    pub price_micro: u64,
    /// The most that the replacements may cost, whatever they become.
    pub dearest_micro: u64,
    /// What is saved at the expected price of the replacements.
    pub saving_micro: i64,
    /// What the evictions cost by Karpenter's formula, in thousandths: a pod of no priority is 1,000.
    pub eviction_cost: i64,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            reason: DisruptionReason::Underutilized,
            wave: 0,
            follows: false,
            nodes: Vec::new(),
            moves: Vec::new(),
            replacements: Vec::new(),
            price_micro: 0,
            dearest_micro: 0,
            saving_micro: 0,
            eviction_cost: 0,
        }
    }
}

/// A pod that moves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Move {
    /// The pod.
    pub pod: ObjectKey,
    /// Where it is now.
    pub from: NodeName,
    /// Where it will fit.
    pub to: MoveTarget,
}

/// Where a pod will fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MoveTarget {
    /// A node that stays.
    Node(NodeName),
    /// The batch's replacement of this number.
    Replacement(usize),
}

/// A node that stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeftAlone {
    /// The node.
    pub node: NodeName,
    /// Why.
    pub reason: String,
    /// What kind of reason that is.
    pub kind: LeftKind,
}

/// Kinds of reasons to leave a node alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LeftKind {
    /// Something on it or on its pods forbids it.
    Blocked,
    /// Its time has not come.
    Waits,
    /// Too little would be saved.
    NoGain,
}

/// A repack in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepackReport {
    /// Nodes that Drover launched.
    pub nodes: usize,
    /// Of those: may be taken down.
    pub candidates: usize,
    /// Of those: are taken down.
    pub removed: usize,
    /// Replacements.
    pub launched: usize,
    /// Pods that move.
    pub moves: usize,
    /// What all nodes cost, micro-dollars an hour.
    pub price_micro: u64,
    /// What all batches save.
    pub saving_micro: i64,
    /// Things that went wrong.
    pub problems: Vec<String>,
}
