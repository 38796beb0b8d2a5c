//! Draining in place of an agent that is silent.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::call::{Call, KubernetesFailure};
use drover_common::cluster::Pod;
use drover_common::drain::{
    DrainCall, DrainInput, DrainKey, DrainState, Purpose, last_moment, step,
};
use drover_common::id::{NodeClaimName, NodeName};
use drover_common::news::Progress;
use drover_common::protocol::{DrainPhase, DrainReport};
use jiff::Timestamp;

use super::Control;
use super::calls::CallKey;
use crate::command::Disruption;
use crate::state::{Stage, State};

/// The drains this leader does itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Drains {
    by_claim: BTreeMap<NodeClaimName, OwnDrain>,
}

#[derive(Clone, Debug)]
struct OwnDrain {
    node: NodeName,
    purpose: Purpose,
    state: DrainState,
    outcomes: Vec<(DrainKey, Result<(), KubernetesFailure>)>,
    progress: Progress,
}

impl OwnDrain {
    fn new(node: NodeName, purpose: Purpose) -> Self {
        Self {
            node,
            purpose,
            state: DrainState::default(),
            outcomes: Vec::new(),
            progress: Progress::default(),
        }
    }
}

impl Drains {
    /// How a claim's drain goes, if this leader does it.
    pub(super) fn report(&self, claim: &NodeClaimName) -> Option<DrainReport> {
        self.by_claim.get(claim).map(|own| own.state.report())
    }

    /// Pods left on the nodes that this leader drains.
    pub(super) fn pods(&self) -> usize {
        self.by_claim.values().map(|own| own.state.report().remaining.len()).sum()
    }

    /// Keeps an answer until the drain's next step.
    pub(super) fn record(
        &mut self,
        claim: &NodeClaimName,
        uid: &str,
        attempt: u32,
        outcome: Result<(), KubernetesFailure>,
    ) {
        if let Some(own) = self.by_claim.get_mut(claim) {
            own.outcomes.push((DrainKey { uid: uid.to_owned(), attempt }, outcome));
        }
    }
}

impl Control {
    /// Steps the drain of every draining claim whose agent is silent. Where an agent speaks up
    /// again, the leader stops.
    pub(super) fn drain_for_silent_agents(&mut self, state: &State, now: Timestamp) {
        let mut wanted: BTreeMap<NodeClaimName, (NodeName, Purpose)> = BTreeMap::new();
        for (name, record) in &state.claims {
            if record.stage != Stage::Draining || record.drained_at.is_some() {
                continue;
            }
            let Some(node) = self.node_of(record) else { continue };
            let node = NodeName::from(node.metadata.name.as_str());
            let disruption = record.disruption.as_ref().and_then(|id| state.disruptions.get(id));
            let Some(disruption) = disruption else { continue };
            if self.agent_is_silent(&node, now) {
                let purpose = purpose(state, name, &disruption.disruption, now);
                wanted.insert(name.clone(), (node, purpose));
            }
        }
        let (kept, over) = std::mem::take(&mut self.drains.by_claim)
            .into_iter()
            .partition(|(name, _)| wanted.contains_key(name));
        self.drains.by_claim = kept;
        for (name, own) in over {
            self.end_own_drain(state, &name, own, now);
        }
        for (name, (node, purpose)) in wanted {
            let own = self.drains.by_claim.remove(&name);
            let own = own.unwrap_or_else(|| OwnDrain::new(node, purpose.clone()));
            let own = self.step_own_drain(&name, OwnDrain { purpose, ..own }, now);
            self.drains.by_claim.insert(name, own);
        }
    }

    fn step_own_drain(
        &mut self,
        name: &NodeClaimName,
        mut own: OwnDrain,
        now: Timestamp,
    ) -> OwnDrain {
        for call in self.own_calls(&mut own, now) {
            let key = CallKey::Drain(name.clone(), call.key.uid, call.key.attempt);
            self.calls.call(key, Call::Kubernetes(call.call), now);
        }
        let report = own.state.report();
        self.tell_progress(&own.node, &mut own.progress, Some(&report), now);
        own
    }

    fn own_calls(&self, own: &mut OwnDrain, now: Timestamp) -> Vec<DrainCall> {
        let pods: Vec<&Pod> = self.view.pods_on(&own.node).map(Arc::as_ref).collect();
        let outcomes = std::mem::take(&mut own.outcomes);
        let input = DrainInput {
            pods: &pods,
            complete: !self.view.is_stale(),
            purpose: &own.purpose,
            now,
            outcomes: &outcomes,
        };
        step(&mut own.state, input)
    }

    /// What is told of a drain last, unless its agent goes on with it.
    fn end_own_drain(
        &mut self,
        state: &State,
        name: &NodeClaimName,
        mut own: OwnDrain,
        now: Timestamp,
    ) {
        if state.claims.get(name).is_none_or(|claim| claim.drained_at.is_none()) {
            return;
        }
        // The last answers count; nothing is left to be called for.
        drop(self.own_calls(&mut own, now));
        let mut report = own.state.report();
        if !self.has_pods_to_move(&own.node, own.purpose.budgets_end, now) {
            report.phase = DrainPhase::Drained;
        }
        self.tell_progress(&own.node, &mut own.progress, Some(&report), now);
    }
}

/// What a claim is drained for. Where budgets hold to the end, no pod is kept waiting until its machine
/// is stopped under it, either.
fn purpose(
    state: &State,
    name: &NodeClaimName,
    disruption: &Disruption,
    now: Timestamp,
) -> Purpose {
    let purpose = disruption.purpose();
    let announced = state.hard_notices(name, now).filter_map(|record| record.notice.deadline);
    let end = announced.map(last_moment).chain(purpose.end).min();
    Purpose { end, ..purpose }
}
