//! Draining in place of an agent that is silent.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::call::{Call, KubernetesFailure};
use drover_common::cluster::Pod;
use drover_common::drain::{DrainInput, DrainKey, DrainState, Purpose, last_moment, step};
use drover_common::id::{NodeClaimName, NodeName};
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

#[derive(Clone, Debug, Default)]
struct OwnDrain {
    state: DrainState,
    outcomes: Vec<(DrainKey, Result<(), KubernetesFailure>)>,
}

impl Drains {
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
        let mut wanted: Vec<(NodeClaimName, NodeName, Purpose)> = Vec::new();
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
                wanted.push((name.clone(), node, purpose));
            }
        }
        self.drains.by_claim.retain(|name, _| wanted.iter().any(|(claim, ..)| claim == name));
        for (name, node, purpose) in wanted {
            self.step_own_drain(&name, &node, &purpose, now);
        }
    }

    fn step_own_drain(
        &mut self,
        name: &NodeClaimName,
        node: &NodeName,
        purpose: &Purpose,
        now: Timestamp,
    ) {
        let pods: Vec<Arc<Pod>> = self.view.pods_on(node).cloned().collect();
        let pods: Vec<&Pod> = pods.iter().map(Arc::as_ref).collect();
        let own = self.drains.by_claim.entry(name.clone()).or_default();
        let outcomes = std::mem::take(&mut own.outcomes);
        let input = DrainInput {
            pods: &pods,
            complete: !self.view.is_stale(),
            purpose,
            now,
            outcomes: &outcomes,
        };
        for call in step(&mut own.state, input) {
            let key = CallKey::Drain(name.clone(), call.key.uid, call.key.attempt);
            self.calls.call(key, Call::Kubernetes(call.call), now);
        }
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
