//! Where pods of nodes that are to leave were planned. The log tells what a replacement was bought for until it is
//! initialized, and not where the other pods fit; the last look, which comes after that, is to judge the plan
//! that was committed. To pack the same pods anew may come to another end, and all was bought for nothing.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::ObjectKey;
use drover_common::id::{DisruptionId, NodeClaimName, NodeName};

use super::Control;
use super::disrupt::Managed;
use crate::planner::{Batch, MoveTarget, Placement, PlacementTarget};
use crate::state::{DisruptionRecord, State};

/// What this leader knows of such places. Who does not know them lets pods look for any.
#[derive(Clone, Debug, Default)]
pub(super) struct Assignments {
    /// By replacement.
    bought: BTreeMap<NodeClaimName, Vec<ObjectKey>>,
    /// On nodes that stay, by the claim whose node the pods are to leave.
    free: BTreeMap<NodeClaimName, Vec<(ObjectKey, NodeName)>>,
}

impl Assignments {
    /// A batch was proposed: its moves to nodes that stay.
    pub(super) fn note_batch(&mut self, managed: &Managed, batch: &Batch) {
        for node in &batch.nodes {
            let to_node = |target: &MoveTarget| match target {
                MoveTarget::Node(node) => Some(node.clone()),
                MoveTarget::Replacement(_) => None,
            };
            let moves = batch.moves.iter().filter(|one| one.from == *node);
            let moves = moves.filter_map(|one| Some((one.pod.clone(), to_node(&one.to)?)));
            if let Some(claim) = managed.claims.get(node) {
                self.free.insert(claim.clone(), moves.collect());
            }
        }
    }

    /// Takes in what the log tells of replacements, and forgets what is over.
    pub(super) fn follow(&mut self, state: &State, is_proposed: impl Fn(&NodeClaimName) -> bool) {
        let waiting = |record: &&DisruptionRecord| record.draining_since.is_none();
        let open = || state.disruptions.values().filter(waiting).map(|record| &record.disruption);
        let replacements: BTreeSet<&NodeClaimName> =
            open().flat_map(|disruption| &disruption.replacements).collect();
        self.bought.retain(|claim, _| replacements.contains(claim));
        for name in replacements {
            let planned = state.claims.get(name).and_then(|claim| claim.planned.as_ref());
            if let Some(planned) = planned.filter(|_| !self.bought.contains_key(name)) {
                self.bought.insert(name.clone(), planned.pods.clone());
            }
        }
        let left: BTreeSet<&NodeClaimName> = open().flat_map(|one| &one.claims).collect();
        self.free.retain(|claim, _| left.contains(claim) || is_proposed(claim));
    }
}

impl Control {
    /// The places of the pods that these disruptions move.
    pub(super) fn seats_of(&self, state: &State, disruptions: &[&DisruptionId]) -> Vec<Placement> {
        let assigned = &self.assignments;
        let mut seats: BTreeMap<NodeName, Vec<ObjectKey>> = BTreeMap::new();
        let records = disruptions.iter().filter_map(|id| state.disruptions.get(*id));
        for disruption in records.map(|record| &record.disruption) {
            for name in &disruption.replacements {
                let node = state.claims.get(name).and_then(|claim| claim.node.clone());
                if let Some((node, pods)) = node.zip(assigned.bought.get(name)) {
                    seats.entry(node).or_default().extend(pods.iter().cloned());
                }
            }
            let moves = disruption.claims.iter().filter_map(|claim| assigned.free.get(claim));
            for (pod, node) in moves.flatten() {
                seats.entry(node.clone()).or_default().push(pod.clone());
            }
        }
        let seat = |(node, pods)| Placement { node_or_claim: PlacementTarget::Node(node), pods };
        seats.into_iter().map(seat).collect()
    }
}
