//! A plan from a dump of objects alone: what `drover simulate` answers.
//!
//! A [`Dump`] takes objects in any order. [`Dump::into_cluster`] reads them as a leader that has just
//! seen all of them would: a view, instance types by class, nodes in flight, pools in use. The plan
//! itself is [`crate::planner::plan`]'s, the leader's own.

mod answer;
mod bought;
mod catalogs;
mod claims;
mod deployments;
mod dump;
mod fleet;
mod flying;
mod pods;
mod repack;
mod static_pools;
mod surroundings;
#[cfg(test)]
mod tests;
mod times;

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::ObjectKey;
use drover_common::id::{NodeClaimName, NodeName, NodePoolName};
use drover_common::resources::Resources;
use jiff::Timestamp;

use crate::nodeclass::catalog::NodeClassCatalog;
use crate::planner::{
    InFlightNode, Launch, PlanInput, PlannerSettings, UnavailableOffering, Unschedulable,
    VirtualPods,
};
use crate::view::View;

pub use answer::{
    Answer, AnsweredDisruption, AnsweredLaunch, AnsweredMove, AnsweredPlacement, AnsweredReason,
    AnsweredSummary, AnsweredUnschedulable,
};
pub use catalogs::{InstanceTypes, NodeFlags};
pub use deployments::Deployment;
pub use dump::{Dump, DumpKind, DumpObject};
pub use fleet::{Fleet, FleetKey, FleetRow};

/// A cluster as a dump tells it, ready to be planned for.
#[derive(Debug)]
pub struct OfflineCluster {
    /// Its objects. Pods without a node count as found unschedulable, whatever their conditions say.
    pub view: View,
    /// Instance types by EC2NodeClass.
    pub catalogs: BTreeMap<String, NodeClassCatalog>,
    /// NodeClaims whose node takes no pods yet.
    pub in_flight: Vec<InFlightNode>,
    /// Managed nodes that are being deleted.
    pub leaving: BTreeSet<NodeName>,
    /// Pods on those that nothing may evict.
    staying: BTreeSet<ObjectKey>,
    /// Capacity in use by NodePool.
    pub pool_usage: BTreeMap<NodePoolName, Resources>,
    /// Pods that are not there and are planned for all the same: replicas that their owner is yet to
    /// make, and room that CapacityBuffers keep free.
    pub expected: Vec<VirtualPods>,
    /// Pods without a node for which no leader would plan, and why not.
    pub set_aside: Vec<Unschedulable>,
    /// Nodes that static pools lack and that are launched whatever pods wait; they are in flight when
    /// pods are planned for.
    pub static_launches: BTreeMap<NodeClaimName, Launch>,
    /// Nodes that static pools have too many, claims of those that have not joined among them: they leave.
    pub static_excess: BTreeMap<NodePoolName, Vec<String>>,
    /// What was odd about the input, one sentence each.
    pub warnings: Vec<String>,
    /// The time that ages and windows are judged by.
    pub now: Timestamp,
    unavailable: BTreeMap<UnavailableOffering, Timestamp>,
    /// A dump tells nothing of launches that EC2 has not counted.
    reserved: BTreeMap<String, u32>,
}

impl OfflineCluster {
    /// What the planner is given.
    pub fn plan_input<'a>(&'a self, settings: &'a PlannerSettings) -> PlanInput<'a> {
        PlanInput {
            view: &self.view,
            catalogs: &self.catalogs,
            virtual_pods: &self.expected,
            in_flight: &self.in_flight,
            seats: &[],
            leaving: &self.leaving,
            staying: &self.staying,
            unavailable: &self.unavailable,
            reserved: &self.reserved,
            pool_usage: &self.pool_usage,
            settings,
            now: self.now,
        }
    }

    /// What a pod asks for, be it there or expected.
    fn requests_of(&self, pod: &ObjectKey) -> Option<Resources> {
        if let Some(entry) = self.view.pods().get(pod) {
            return Some(self.view.shape(entry.shape)?.requests.clone());
        }
        let expected = self.expected.iter().find(|pods| pods.keys.binary_search(pod).is_ok())?;
        Some(expected.pod.requests())
    }
}
