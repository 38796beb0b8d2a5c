//! Voluntary disruption: what planning is told of nodes.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::Node;
use drover_common::crd::{
    Condition, DisruptionReason as BudgetReason, NodeClaim, NodePool, allowed_disruptions,
};
use drover_common::id::{NodeClaimName, NodeName, NodePoolName};
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use jiff::Timestamp;

use super::Control;
use super::object::after;
use crate::planner::{ManagedNode, PoolNodes};
use crate::state::{ClaimRecord, Stage, State};

/// Why a node is kept until the drains of others are over.
pub(super) const AWAITS_PODS: &str = "pods of nodes that leave are to come to it";

/// The nodes that planning may take down, and their claims.
#[derive(Clone, Debug, Default)]
pub(super) struct Managed {
    pub(super) nodes: BTreeMap<NodeName, ManagedNode>,
    pub(super) claims: BTreeMap<NodeName, NodeClaimName>,
}

impl Control {
    pub(super) fn pool_counts(&self, state: &State) -> BTreeMap<NodePoolName, PoolNodes> {
        let mut counts: BTreeMap<NodePoolName, PoolNodes> = BTreeMap::new();
        for record in state.claims.values() {
            let Some(pool) = &record.nodepool else { continue };
            // As in Karpenter's count, a node whose instance is being terminated is none any more.
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

    /// How many nodes of each pool its budgets let go now.
    pub(super) fn allowed_disruptions(
        &self,
        state: &State,
        now: Timestamp,
    ) -> BTreeMap<NodePoolName, BTreeMap<&'static str, u32>> {
        let counts = self.pool_counts(state);
        let reasons = [
            (BudgetReason::Empty, "Empty"),
            (BudgetReason::Underutilized, "Underutilized"),
            (BudgetReason::Drifted, "Drifted"),
        ];
        let allowed = |name: &NodePoolName, pool: &NodePool, reason| {
            let nodes = counts.get(name).copied().unwrap_or_default();
            allowed_disruptions(pool, reason, nodes.initialized, now)
                .saturating_sub(nodes.unwell)
                .saturating_sub(nodes.disrupting)
                .min(nodes.initialized)
        };
        self.view
            .pools()
            .iter()
            .map(|(name, pool)| {
                let each = reasons.map(|(reason, word)| (word, allowed(name, pool, reason)));
                (name.clone(), BTreeMap::from(each))
            })
            .collect()
    }

    /// Every node that has a claim and does not leave, as planning sees it.
    pub(super) fn managed(&self, state: &State, now: Timestamp) -> Managed {
        let nominated = self.provisioning.nominated(now);
        let awaiting = self.awaiting_nodes(state);
        // The last leader knew which nodes await pods. This one's first plan tells.
        let unknown =
            !self.provisioning.has_planned() && !self.leaving_nodes(state, now).is_empty();
        let replacing: BTreeSet<&NodeClaimName> =
            state.disruptions.values().flat_map(|record| &record.disruption.replacements).collect();
        let mut managed = Managed::default();
        for (name, record) in &state.claims {
            if record.is_leaving() {
                continue;
            }
            let (Some(pool), Some(node)) = (&record.nodepool, self.node_of(record)) else {
                continue;
            };
            let node = NodeName::from(node.metadata.name.as_str());
            let claim = self.view.claims().get(name);
            let held = if replacing.contains(name) {
                Some("it replaces nodes that are being disrupted".to_owned())
            } else if self.undecided.contains(name) {
                Some("its disruption is being committed".to_owned())
            } else if nominated.contains(&node) {
                Some("pods were planned onto it moments ago".to_owned())
            } else if awaiting.contains(&node) {
                Some(AWAITS_PODS.to_owned())
            } else if unknown {
                Some("where pods of nodes that leave are to go is not planned yet".to_owned())
            } else {
                self.held(state, name, record, claim.map(AsRef::as_ref), now)
            };
            // The condition is a round trip behind what is known here.
            let still = || {
                let last = self.activity.last(&node)?;
                let rule = &self.view.pools().get(pool)?.spec.disruption;
                Some(after(last, rule.consolidates_after()?) <= now)
            };
            let quiet = still() != Some(false)
                && claim.is_some_and(|claim| {
                    let status = claim.status.as_ref();
                    status.is_some_and(|s| Condition::is_true(&s.conditions, "Consolidatable"))
                });
            let instance = record.instance.as_ref();
            let one = ManagedNode {
                nodepool: pool.clone(),
                capacity_type: instance.map_or(CapacityType::OnDemand, |i| i.capacity_type),
                price_micro: record.hourly_price_micro,
                initialized_at: record.initialized_at,
                quiet,
                held,
            };
            managed.nodes.insert(node.clone(), one);
            managed.claims.insert(node, name.clone());
        }
        managed
    }

    /// Whether something forbids the voluntary disruption of a claim for now.
    pub(super) fn is_held(
        &self,
        state: &State,
        name: &NodeClaimName,
        record: &ClaimRecord,
        now: Timestamp,
    ) -> bool {
        let claim = self.view.claims().get(name).map(AsRef::as_ref);
        self.held(state, name, record, claim, now).is_some()
            || self.node_of(record).is_some_and(|node| protection_of_node(&node).is_some())
    }

    fn held(
        &self,
        state: &State,
        name: &NodeClaimName,
        record: &ClaimRecord,
        claim: Option<&NodeClaim>,
        now: Timestamp,
    ) -> Option<String> {
        if state.is_paused(record.nodepool.as_ref()) {
            return Some("an operator paused it".to_owned());
        }
        let pool = record.nodepool.as_ref().and_then(|pool| self.view.pools().get(pool));
        if pool.is_some_and(|pool| pool.spec.replicas.is_some()) {
            return Some("its NodePool keeps a fixed number of nodes".to_owned());
        }
        let holds_pods = || record.node.as_ref().map(|node| self.has_pods_to_move(node, None, now));
        // With pods on it, it may be replaced by one with as much room.
        let kept = self.kept_for_buffers(name, record);
        if let Some(reason) = kept.filter(|_| holds_pods() != Some(true)) {
            return Some(reason);
        }
        let Some(claim) = claim else { return Some("its NodeClaim is not there".to_owned()) };
        if let Some(reason) = protection(claim) {
            return Some(reason);
        }
        // Pods it was launched for may not be bound yet.
        let young = |at: Timestamp| now.duration_since(at) < self.settings.nominated_for;
        if record.initialized_at.is_some_and(young) {
            return Some("it became ready moments ago".to_owned());
        }
        // An empty node goes on another ground than what was given up.
        self.consolidation.given_up(name, now).filter(|_| holds_pods() != Some(false))
    }
}

/// What on a NodeClaim forbids its voluntary disruption.
pub(super) fn protection(claim: &NodeClaim) -> Option<String> {
    protected(claim.metadata.annotations.as_ref()?, "NodeClaim")
}

/// What on a Node forbids its voluntary disruption. Repacks look at it by themselves.
pub(super) fn protection_of_node(node: &Node) -> Option<String> {
    protected(&node.metadata.annotations, "Node")
}

fn protected(annotations: &BTreeMap<String, String>, kind: &str) -> Option<String> {
    let value = annotations.get(labels::DO_NOT_DISRUPT);
    value
        .is_some_and(|value| value == "true")
        .then(|| format!("its {kind} has {}", labels::DO_NOT_DISRUPT))
}
