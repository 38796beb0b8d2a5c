//! Voluntary disruption: what planning is told of nodes, and the last look before a drain begins.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::crd::{
    Condition, DisruptionReason as BudgetReason, NodeClaim, NodePool, allowed_disruptions,
};
use drover_common::id::{DisruptionId, NodeClaimName, NodeName, NodePoolName};
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use jiff::Timestamp;

use super::Control;
use super::grace_period::is_tainted;
use super::leave::Verdict;
use super::soundness::{PlanPurpose, judged};
use crate::command::{Change, DisruptionReason};
use crate::planner::{ManagedNode, PlacementTarget, PoolNodes, RepackInput, refusal};
use crate::state::{ClaimRecord, DisruptionRecord, Stage, State};

/// Disruptions that are looked at one by one in a step, where all at once don't fit.
const MOST_SINGLE_LOOKS: usize = 8;

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
            } else if self.consolidation.is_proposed(name, now) {
                Some("its disruption is being committed".to_owned())
            } else if nominated.contains(&node) {
                Some("pods were planned onto it moments ago".to_owned())
            } else {
                self.held(state, name, record, claim.map(AsRef::as_ref), now)
            };
            let quiet = claim.is_some_and(|claim| {
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
        if let Some(reason) = self.kept_for_buffers(name, record) {
            return Some(reason);
        }
        let Some(claim) = claim else { return Some("its NodeClaim is not there".to_owned()) };
        let annotations = claim.metadata.annotations.as_ref();
        let protection = annotations.and_then(|a| a.get(labels::DO_NOT_DISRUPT));
        if protection.is_some_and(|value| value == "true") {
            return Some(format!("its NodeClaim has {}", labels::DO_NOT_DISRUPT));
        }
        // Pods it was launched for may not be bound yet.
        let young = |at: Timestamp| now.duration_since(at) < self.settings.nominated_for;
        if record.initialized_at.is_some_and(young) {
            return Some("it became ready moments ago".to_owned());
        }
        // An empty node goes on another ground than what was given up.
        self.consolidation.given_up(name, now).filter(|_| {
            record.node.as_ref().is_none_or(|node| self.has_pods_to_move(node, None, now))
        })
    }

    /// Checks a committed voluntary disruption before its drain begins: the taint keeps new pods
    /// away by now, replacements are up, and what it was decided for still holds.
    pub(super) fn check_voluntary(
        &self,
        state: &State,
        record: &DisruptionRecord,
        now: Timestamp,
    ) -> Verdict {
        if self.view.is_stale() {
            return Verdict::Wait;
        }
        let counts = self.pool_counts(state);
        for name in &record.disruption.claims {
            let Some(claim) = state.claims.get(name) else { continue };
            if let Some(reason) = self.stopped(state, record, (name, claim), &counts, now) {
                return Verdict::Cancel(reason);
            }
        }
        match self.replacements_up(state, record, now) {
            Verdict::Go => {}
            other => return other,
        }
        let tainted = record.disruption.claims.iter().all(|name| {
            let node = state.claims.get(name).and_then(|claim| self.node_of(claim));
            node.is_none_or(|node| is_tainted(&node))
        });
        let settled = now.duration_since(record.committed_at) >= self.settings.taint_settles;
        if tainted && settled { Verdict::Go } else { Verdict::Wait }
    }

    /// What forbids the disruption of a claim by now.
    fn stopped(
        &self,
        state: &State,
        record: &DisruptionRecord,
        (claim_name, claim): (&NodeClaimName, &ClaimRecord),
        counts: &BTreeMap<NodePoolName, PoolNodes>,
        now: Timestamp,
    ) -> Option<String> {
        if state.is_paused(claim.nodepool.as_ref()) {
            return Some("an operator paused it".to_owned());
        }
        let node = self.node_of(claim)?;
        let node_name = NodeName::from(node.metadata.name.as_str());
        let empty = record.disruption.reason == DisruptionReason::Emptiness;
        if empty && self.has_pods_to_move(&node_name, None, now) {
            return Some(format!("a pod came to Node {node_name}"));
        }
        // A plan may have placed a buffer there while the disruption was on its way into the log.
        if let Some(reason) = self.kept_for_buffers(claim_name, claim).filter(|_| empty) {
            return Some(reason);
        }
        let name = claim.nodepool.as_ref()?;
        let nodes = counts.get(name).copied().unwrap_or_default();
        if nodes.is_doubtful() {
            let (unwell, all) = (nodes.unwell, nodes.initialized);
            return Some(format!("{unwell} of {all} nodes of NodePool {name} are not Ready"));
        }
        let reason = match record.disruption.reason {
            DisruptionReason::Emptiness => BudgetReason::Empty,
            DisruptionReason::Rebalance => BudgetReason::Drifted,
            _ => BudgetReason::Underutilized,
        };
        let pool = self.view.pools().get(name)?;
        (allowed_disruptions(pool, reason, nodes.initialized, now) == 0)
            .then(|| format!("the budgets of NodePool {name} allow none by now"))
    }

    fn replacements_up(&self, state: &State, record: &DisruptionRecord, now: Timestamp) -> Verdict {
        for name in &record.disruption.replacements {
            let Some(claim) = state.claims.get(name) else {
                return Verdict::Cancel(format!("its replacement {name} is gone"));
            };
            if claim.is_leaving() {
                let why = claim.failure.clone().unwrap_or_else(|| "it leaves".to_owned());
                return Verdict::Cancel(format!("its replacement {name} did not come up: {why}"));
            }
            if claim.stage < Stage::Initialized {
                let waited = now.duration_since(record.committed_at);
                return if waited > self.settings.registration_liveness {
                    Verdict::Cancel(format!("its replacement {name} was not ready in {waited:#}"))
                } else {
                    Verdict::Wait
                };
            }
        }
        Verdict::Go
    }

    /// Begins the drains of consolidations whose pods still fit elsewhere as things are now.
    pub(super) fn start_consolidations(
        &mut self,
        state: &State,
        ready: &[&DisruptionId],
        now: Timestamp,
    ) {
        let mut going = BTreeSet::new();
        let all: BTreeSet<NodeName> =
            ready.iter().flat_map(|id| self.nodes_of(state, id)).collect();
        if ready.is_empty() {
            return;
        }
        if self.still_sound(state, &all, now).is_ok() {
            for id in ready {
                self.start_drain(state, id, now);
            }
            return;
        }
        for id in ready.iter().take(MOST_SINGLE_LOOKS) {
            let nodes = self.nodes_of(state, id);
            let with: BTreeSet<NodeName> = going.iter().chain(&nodes).cloned().collect();
            match self.still_sound(state, &with, now) {
                Ok(()) => {
                    going = with;
                    self.start_drain(state, id, now);
                }
                Err(reason) => self.give_up(state, id, reason, now),
            }
        }
    }

    fn nodes_of(&self, state: &State, id: &DisruptionId) -> Vec<NodeName> {
        let claims = state.disruptions.get(id).map(|record| &record.disruption.claims);
        claims
            .into_iter()
            .flatten()
            .filter_map(|name| state.claims.get(name)?.node.clone())
            .collect()
    }

    fn start_drain(&mut self, state: &State, id: &DisruptionId, now: Timestamp) {
        if let Some(record) = state.disruptions.get(id) {
            let note =
                format!("Disrupting Node: Underutilized ({})", record.disruption.explanation);
            for node in self.nodes_of(state, id) {
                self.node_event(&node, "DisruptionTerminating", &note, false, now);
            }
        }
        let record = state.disruptions.get(id);
        let deadline = record.and_then(|record| self.deadline_at_start(state, record, now));
        self.propose(Change::StartDrain { disruption: id.clone(), deadline }, now);
    }

    /// Gives a disruption up whose drain has not begun, and leaves its claims alone for a while.
    pub(super) fn give_up(
        &mut self,
        state: &State,
        id: &DisruptionId,
        reason: String,
        now: Timestamp,
    ) {
        if let Some(record) = state.disruptions.get(id) {
            let note = format!("Disruption given up: {reason}");
            for claim in &record.disruption.claims {
                self.claim_event(claim, "DisruptionBlocked", &note, false, now);
            }
        }
        let claims = state.disruptions.get(id).map(|record| record.disruption.claims.clone());
        let change = Change::CancelDisruption { disruption: id.clone(), reason: reason.clone() };
        if self.propose(change, now) {
            self.consolidation.note_given_up(claims.unwrap_or_default(), &reason, now);
        }
    }

    /// Whether nothing forbids taking these nodes down, and every pod on them has a place on nodes
    /// that are up, with all pods that wait in theirs.
    fn still_sound(
        &mut self,
        state: &State,
        nodes: &BTreeSet<NodeName>,
        now: Timestamp,
    ) -> Result<(), String> {
        let gathered = self.gather(state, now);
        let mut leaving = self.leaving_nodes(state, now);
        self.still_permitted(state, nodes, &leaving, now)?;
        leaving.extend(nodes.iter().cloned());
        let input = gathered.input(self, &leaving, now);
        let (made, verdict) = judged(self.settings.check_plans, &input);
        if !self.trusts(PlanPurpose::LastLook, verdict) {
            return Err("the plan for its pods did not pass the check".to_owned());
        }
        let ours = |pod: &drover_common::cluster::ObjectKey| {
            self.view
                .pod(pod)
                .is_some_and(|pod| nodes.contains(&NodeName::from(pod.spec.node_name.as_str())))
        };
        let bought = made.launches.iter().flat_map(|launch| &launch.pods);
        let promised = made
            .placements
            .iter()
            .filter(|placement| matches!(placement.node_or_claim, PlacementTarget::Claim(_)))
            .flat_map(|placement| &placement.pods);
        let left = made.unschedulable.iter().map(|entry| &entry.pod);
        match bought.chain(promised).chain(left).find(|pod| ours(pod)) {
            Some(pod) => Err(format!("Pod {pod} has no place on the other nodes any more")),
            None => Ok(()),
        }
    }

    /// Whether pods' and nodes' own protections let these nodes go; waits are over by now.
    fn still_permitted(
        &self,
        state: &State,
        nodes: &BTreeSet<NodeName>,
        leaving: &BTreeSet<NodeName>,
        now: Timestamp,
    ) -> Result<(), String> {
        let mut managed = BTreeMap::new();
        for record in state.claims.values() {
            let (Some(node), Some(pool)) = (&record.node, &record.nodepool) else { continue };
            if nodes.contains(node) {
                let instance = record.instance.as_ref();
                let one = ManagedNode {
                    nodepool: pool.clone(),
                    capacity_type: instance.map_or(CapacityType::OnDemand, |i| i.capacity_type),
                    price_micro: record.hourly_price_micro,
                    initialized_at: record.initialized_at,
                    quiet: true,
                    held: None,
                };
                managed.insert(node.clone(), one);
            }
        }
        // Their own disruption uses the budgets up already.
        let mut pools = self.pool_counts(state);
        for count in pools.values_mut() {
            count.disrupting = 0;
            count.unwell = 0;
        }
        let settings =
            crate::planner::RepackSettings { skip_waits: true, ..self.settings.repack.clone() };
        let leaving: BTreeSet<NodeName> = leaving.difference(nodes).cloned().collect();
        let gathered = super::gather::Gathered::default();
        let input = RepackInput {
            plan: gathered.input(self, &leaving, now),
            nodes: &managed,
            pools: &pools,
            seats: &[],
            settings: &settings,
        };
        refusal(&input).map_or(Ok(()), |left| Err(format!("Node {}: {}", left.node, left.reason)))
    }
}
