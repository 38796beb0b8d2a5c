//! Static pools: a NodePool with `spec.replicas` keeps so many nodes, whatever the pods.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::crd::NodePool;
use drover_common::id::{NodeClaimName, NodePoolName};
use jiff::Timestamp;

use super::Control;
use super::problem::Subject;
use crate::command::DisruptionReason;
use crate::planner::{MOST_STATIC_NODES, plan_static};
use crate::replicas::{MayGo, first_to_go, pods_to_move, wanted_nodes};
use crate::state::{ClaimRecord, Stage, State};

/// What is remembered of static pools between steps.
#[derive(Clone, Debug, Default)]
pub(super) struct StaticPools {
    /// When nodes of a pool could last not be made.
    failed_at: BTreeMap<NodePoolName, Timestamp>,
}

impl Control {
    /// Makes the nodes that static pools lack, and lets those go that they have too many.
    pub(super) fn keep_static_pools(&mut self, state: &State, now: Timestamp) {
        let pools: Vec<(NodePoolName, Arc<NodePool>)> = self
            .view
            .pools()
            .iter()
            .filter(|(_, pool)| {
                pool.spec.replicas.is_some() && pool.metadata.deletion_timestamp.is_none()
            })
            .map(|(name, pool)| (name.clone(), Arc::clone(pool)))
            .collect();
        for (name, pool) in pools {
            let wanted = wanted_nodes(&pool);
            let there: Vec<(&NodeClaimName, &ClaimRecord)> = state
                .claims
                .iter()
                .filter(|(_, record)| record.nodepool.as_ref() == Some(&name))
                .filter(|(_, record)| !record.is_leaving() && record.failure.is_none())
                .collect();
            if there.len() < wanted {
                self.make_static_nodes(state, &name, wanted - there.len(), now);
            } else if there.len() > wanted {
                self.let_static_nodes_go(state, &name, &there, wanted, now);
            }
        }
    }

    fn make_static_nodes(
        &mut self,
        state: &State,
        pool: &NodePoolName,
        missing: usize,
        now: Timestamp,
    ) {
        let waits = self
            .provisioning
            .static_pools
            .failed_at
            .get(pool)
            .is_some_and(|at| now.duration_since(*at) < self.settings.retry_unschedulable);
        if waits || !self.can_plan(state, now) {
            return;
        }
        if let Some(reason) = self.launches_wait(state, pool, now) {
            self.problems.tell_wait(pool, reason, now);
            return;
        }
        let missing = missing.min(MOST_STATIC_NODES);
        let subject = Subject::StaticNodes(pool.clone());
        let planned = self.plan_with(state, now, |input| plan_static(input, pool, missing));
        match planned {
            Ok(launches) => {
                if launches.len() < missing {
                    self.provisioning.static_pools.failed_at.insert(pool.clone(), now);
                    let words =
                        format!("{} of {missing} can't be made for now", missing - launches.len());
                    self.problems.tell(subject, words, now);
                } else {
                    self.problems.mended(&subject);
                }
                // Nothing that is proposed would keep the next look from planning them again.
                if !self.propose_launches(state, launches, now) {
                    self.provisioning.static_pools.failed_at.insert(pool.clone(), now);
                }
            }
            Err(reason) => {
                self.provisioning.static_pools.failed_at.insert(pool.clone(), now);
                self.problems.tell(subject, reason, now);
            }
        }
    }

    fn let_static_nodes_go(
        &mut self,
        state: &State,
        pool: &NodePoolName,
        there: &[(&NodeClaimName, &ClaimRecord)],
        wanted: usize,
        now: Timestamp,
    ) {
        if self.view.is_stale() || !self.cloud.is_read() || state.is_paused(Some(pool)) {
            return;
        }
        // Those of them whose end is on its way into the log are counted as there until it shows.
        if there.iter().any(|(name, _)| self.undecided.contains(name)) {
            return;
        }
        // What is being launched can't be called back; it goes once it is there.
        let settled = there.iter().filter(|(_, record)| record.stage >= Stage::Launched);
        let settled = settled.map(|(name, record)| MayGo {
            pods: record.node.as_ref().map_or(0, |node| pods_to_move(&self.view, node)),
            created_at: Reverse(record.created_at),
            name: (*name).clone(),
        });
        let claims = first_to_go(settled.collect(), there.len().saturating_sub(wanted));
        if claims.is_empty() {
            return;
        }
        let words = format!("NodePool {pool} keeps {wanted} nodes and has {}", there.len());
        self.commit_disruption(state, claims, DisruptionReason::Deletion, words, now);
    }
}
