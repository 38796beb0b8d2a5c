//! The last look at a voluntary disruption before its drain begins: whether what it was decided for still
//! holds.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::crd::{DisruptionReason as BudgetReason, allowed_disruptions};
use drover_common::id::{DisruptionId, NodeClaimName, NodeName, NodePoolName};
use drover_common::instance_type::CapacityType;
use jiff::{SignedDuration, Timestamp};

use super::Control;
use super::disrupt::{AWAITS_PODS, protection, protection_of_node};
use super::gather::Gathered;
use super::grace_period::is_tainted;
use super::leave::Verdict;
use super::soundness::{PlanPurpose, judged};
use crate::command::{Change, DisruptionReason};
use crate::planner::{ManagedNode, PlacementTarget, PoolNodes, RepackInput, refusal};
use crate::state::{ClaimRecord, DisruptionRecord, Stage, State};

/// Disruptions that are looked at one by one in a step, where all at once don't fit.
const MOST_SINGLE_LOOKS: usize = 8;

impl Control {
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
        // The last leader knew. This one's first plan is to come.
        if record.disruption.reason == DisruptionReason::Emptiness && !self.knows_buffers() {
            return Verdict::Wait;
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
        // Both may have come with the disruption on its way; nobody looks again once the drain has begun.
        let object = self.view.claims().get(claim_name);
        if let Some(reason) = object.and_then(|object| protection(object)) {
            return Some(reason);
        }
        let node = self.node_of(claim)?;
        if let Some(reason) = protection_of_node(&node) {
            return Some(reason);
        }
        let node_name = NodeName::from(node.metadata.name.as_str());
        let empty = record.disruption.reason == DisruptionReason::Emptiness;
        if empty && self.has_pods_to_move(&node_name, None, now) {
            return Some(format!("a pod came to Node {node_name}"));
        }
        // A plan may have placed pods or a buffer there while the disruption was on its way into the log.
        if empty && self.awaiting_nodes(state).contains(&node_name) {
            return Some(AWAITS_PODS.to_owned());
        }
        let counts_on = empty && self.knows_buffers();
        if let Some(reason) = self.kept_for_buffers(claim_name, claim).filter(|_| counts_on) {
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
                    let waited = SignedDuration::from_secs(waited.as_secs());
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
        let mut going = Vec::new();
        if ready.is_empty() {
            return;
        }
        if self.still_sound(state, ready, now).is_ok() {
            for id in ready {
                self.start_drain(state, id, now);
            }
            return;
        }
        for id in ready.iter().take(MOST_SINGLE_LOOKS) {
            going.push(*id);
            match self.still_sound(state, &going, now) {
                Ok(()) => self.start_drain(state, id, now),
                Err(reason) => {
                    going.pop();
                    self.give_up(state, id, reason, now);
                }
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
        if let Some(record) = record {
            self.consolidation.forget_given_up(&record.disruption.claims);
        }
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

    /// Whether nothing forbids taking these disruptions' nodes down, and every pod on them has a place on nodes
    /// that are up: the one that was planned, or, where that does not hold any more, another that pods which
    /// wait leave it.
    fn still_sound(
        &mut self,
        state: &State,
        disruptions: &[&DisruptionId],
        now: Timestamp,
    ) -> Result<(), String> {
        let nodes: BTreeSet<NodeName> =
            disruptions.iter().flat_map(|id| self.nodes_of(state, id)).collect();
        let seats = self.seats_of(state, disruptions);
        let gathered = self.gather(state, now).with_seats(seats);
        let mut leaving = self.leaving_nodes(state, now);
        self.still_permitted(state, &nodes, &leaving, now)?;
        leaving.extend(nodes.iter().cloned());
        let input = gathered.input(self, &leaving, now);
        let (made, verdict) = judged(self.settings.check_plans, &input);
        if !self.trusts(PlanPurpose::LastLook, verdict, now) {
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
        for (name, record) in &state.claims {
            let (Some(node), Some(pool)) = (&record.node, &record.nodepool) else { continue };
            if nodes.contains(node) {
                let instance = record.instance.as_ref();
                let claim = self.view.claims().get(name);
                let one = ManagedNode {
                    nodepool: pool.clone(),
                    capacity_type: instance.map_or(CapacityType::OnDemand, |i| i.capacity_type),
                    price_micro: record.hourly_price_micro,
                    initialized_at: record.initialized_at,
                    quiet: true,
                    held: claim.and_then(|claim| protection(claim)),
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
        let gathered = Gathered::default();
        let input = RepackInput {
            plan: gathered.input(self, &leaving, now),
            nodes: &managed,
            pools: &pools,
            settings: &settings,
        };
        refusal(&input).map_or(Ok(()), |left| Err(format!("Node {}: {}", left.node, left.reason)))
    }
}
