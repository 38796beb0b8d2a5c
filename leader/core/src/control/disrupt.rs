//! Voluntary disruption: which nodes are empty, how many may go, and what stops it all.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::crd::{
    Condition, DisruptionReason as BudgetReason, NodePool, allowed_disruptions,
};
use drover_common::id::{NodeClaimName, NodeName, NodePoolName};
use drover_common::labels;
use jiff::Timestamp;

use super::leave::Verdict;
use super::{Control, object};
use crate::command::DisruptionReason;
use crate::state::{ClaimRecord, DisruptionRecord, Stage, State};

/// The nodes of one pool, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolCount {
    /// Initialized claims, leaving ones included.
    pub(super) initialized: u32,
    /// Of those: the Node is not Ready, or not there.
    pub(super) unwell: u32,
    /// Of those: being disrupted.
    pub(super) disrupting: u32,
}

impl PoolCount {
    /// Whether over a fifth of the nodes are unwell: the fault may then be the network's or ours.
    pub(super) fn is_doubtful(self) -> bool {
        self.unwell.saturating_mul(5) > self.initialized
    }
}

impl Control {
    pub(super) fn pool_counts(&self, state: &State) -> BTreeMap<NodePoolName, PoolCount> {
        let mut counts: BTreeMap<NodePoolName, PoolCount> = BTreeMap::new();
        for record in state.claims.values() {
            let Some(pool) = &record.nodepool else { continue };
            if record.initialized_at.is_none() || record.stage >= Stage::Terminating {
                continue;
            }
            let count = counts.entry(pool.clone()).or_default();
            count.initialized = count.initialized.saturating_add(1);
            if record.is_leaving() {
                count.disrupting = count.disrupting.saturating_add(1);
            } else if !self.node_of(record).is_some_and(|node| node.is_ready()) {
                count.unwell = count.unwell.saturating_add(1);
            }
        }
        counts
    }

    /// Commits the disruption of empty nodes, as many as budgets allow, one disruption a pool.
    pub(super) fn disrupt_empty_nodes(&mut self, state: &State, now: Timestamp) {
        if self.view.is_stale() || !self.cloud.is_read() {
            return;
        }
        let counts = self.pool_counts(state);
        let pools: Vec<(NodePoolName, std::sync::Arc<NodePool>)> =
            self.view.pools().iter().map(|(n, p)| (n.clone(), p.clone())).collect();
        for (name, pool) in pools {
            let count = counts.get(&name).copied().unwrap_or_default();
            if count.is_doubtful() || state.is_paused(Some(&name)) {
                continue;
            }
            let total = count.initialized;
            let allowed = allowed_disruptions(&pool, BudgetReason::Empty, total, now)
                .saturating_sub(count.unwell)
                .saturating_sub(count.disrupting);
            let empty: Vec<NodeClaimName> = self
                .empty_claims(state, &name, now)
                .into_iter()
                .take(usize::try_from(allowed).unwrap_or(usize::MAX))
                .collect();
            if empty.is_empty() {
                continue;
            }
            let words = format!(
                "{} nodes of NodePool {name} hold no pod that would have to move; budgets allow {allowed} of {total}",
                empty.len()
            );
            self.commit_disruption(state, empty, DisruptionReason::Emptiness, words, now);
        }
    }

    fn empty_claims(
        &self,
        state: &State,
        pool: &NodePoolName,
        now: Timestamp,
    ) -> Vec<NodeClaimName> {
        let nominated: BTreeSet<NodeName> = self.provisioning.nominated(now);
        state
            .claims
            .iter()
            .filter(|(_, record)| record.nodepool.as_ref() == Some(pool))
            .filter(|(name, record)| {
                record.stage == Stage::Initialized
                    && !record.node.as_ref().is_some_and(|node| nominated.contains(node))
                    && self.is_empty(name, record, now)
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether a claim is quiet, unprotected and without a pod to move.
    fn is_empty(&self, name: &NodeClaimName, record: &ClaimRecord, now: Timestamp) -> bool {
        let Some(claim) = self.view.claims().get(name) else { return false };
        let Some(node) = self.node_of(record) else { return false };
        let status = object::status_of(claim);
        let protected = |annotations: &BTreeMap<String, String>| {
            annotations.get(labels::DO_NOT_DISRUPT).is_some_and(|value| value == "true")
        };
        let of_claim = claim.metadata.annotations.clone().unwrap_or_default();
        let node_name = NodeName::from(node.metadata.name.as_str());
        node.is_ready()
            && Condition::is_true(&status.conditions, "Consolidatable")
            && !protected(&of_claim)
            && !protected(&node.metadata.annotations)
            && !self.has_pods_to_move(&node_name, now)
            && !self.has_protected_pods(&node_name, now)
    }

    /// Pods that stay in a drain still hold their node if they are marked so.
    fn has_protected_pods(&self, node: &NodeName, now: Timestamp) -> bool {
        self.view.pods_on(node).any(|pod| {
            !pod.is_terminal() && drover_common::drain::has_active_do_not_disrupt(pod, now)
        })
    }

    /// Checks a committed voluntary disruption before its drain begins: the taint keeps new pods
    /// away by now, and what it was decided for still holds.
    pub(super) fn check_voluntary(
        &self,
        state: &State,
        record: &DisruptionRecord,
        now: Timestamp,
    ) -> Verdict {
        if self.view.is_stale() {
            return Verdict::Wait;
        }
        for name in &record.disruption.claims {
            let Some(claim) = state.claims.get(name) else { continue };
            if state.is_paused(claim.nodepool.as_ref()) {
                return Verdict::Cancel("an operator paused it".to_owned());
            }
            let Some(node) = self.node_of(claim) else { continue };
            let node_name = NodeName::from(node.metadata.name.as_str());
            if self.has_pods_to_move(&node_name, now) {
                return Verdict::Cancel(format!("a pod came to Node {node_name}"));
            }
            let tainted = node.spec.taints.iter().any(|taint| taint.key == labels::DISRUPTED_TAINT);
            if !tainted {
                return Verdict::Wait;
            }
        }
        let settled = now.duration_since(record.committed_at) >= self.settings.taint_settles;
        if settled { Verdict::Go } else { Verdict::Wait }
    }
}
