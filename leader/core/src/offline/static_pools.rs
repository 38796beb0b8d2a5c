//! Nodes that static NodePools (`spec.replicas`) lack.

use drover_common::id::{NodeClaimName, NodePoolName};
use drover_common::labels;

use super::OfflineCluster;
use super::bought::in_flight_of;
use crate::planner::{Launch, MOST_STATIC_NODES, PlannerSettings, plan_static};

impl OfflineCluster {
    /// Launches what static pools lack, before pods are planned for: they may have a place there. Pools
    /// whose nodes can't be made are told of in the warnings.
    pub fn launch_static(&mut self, settings: &PlannerSettings) {
        for (pool, missing) in self.missing_static() {
            let made = plan_static(&self.plan_input(settings), &pool, missing);
            let launches = made.unwrap_or_else(|reason| {
                self.warnings
                    .push(format!("static NodePool {pool} lacks {missing} nodes: {reason}"));
                Vec::new()
            });
            let rest = missing - launches.len();
            if launches.len() == MOST_STATIC_NODES && rest > 0 {
                self.warnings.push(format!(
                    "static NodePool {pool}: {rest} of {missing} nodes are not planned for"
                ));
            } else if !launches.is_empty() && rest > 0 {
                self.warnings.push(format!(
                    "static NodePool {pool}: {rest} of {missing} nodes can't be made"
                ));
            }
            for launch in launches {
                self.add_static(launch);
            }
        }
    }

    /// How many nodes each static pool lacks, by name.
    fn missing_static(&self) -> Vec<(NodePoolName, usize)> {
        let pools = self.view.pools().values();
        let lacking = pools.filter_map(|pool| {
            let name = NodePoolName::from(pool.metadata.name.clone().unwrap_or_default());
            let wanted = usize::try_from(pool.spec.replicas?).unwrap_or(0);
            if pool.metadata.deletion_timestamp.is_some() {
                return None;
            }
            let nodes = self.view.nodes().iter().filter(|(node, found)| {
                found.metadata.labels.get(labels::NODEPOOL).is_some_and(|pool| *pool == *name.0)
                    && !self.leaving.contains(*node)
            });
            let flying = self.in_flight.iter();
            let flying = flying.filter(|claim| claim.nodepool == name && claim.node.is_none());
            let missing = wanted.saturating_sub(nodes.count() + flying.count());
            (missing > 0).then_some((name, missing))
        });
        lacking.collect()
    }

    fn add_static(&mut self, launch: Launch) {
        let number = self.static_launches.len();
        let claim = NodeClaimName::from(format!("{}-static-{number}", launch.nodepool));
        self.in_flight.push(in_flight_of(claim.clone(), &launch));
        self.static_launches.insert(claim, launch);
    }
}
