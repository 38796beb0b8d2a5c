//! Disruptions on their way into the log. However long that takes, they may be committed until State or the log
//! says otherwise; budgets, counts of nodes and plans that don't know of them would let as many go again.

use std::collections::BTreeSet;

use drover_common::id::NodeClaimName;
use jiff::Timestamp;

use super::Control;
use crate::command::{Change, Disruption, LaunchIntent};
use crate::state::State;

/// Claims whose disruption was proposed and does not show in State yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Undecided(BTreeSet<NodeClaimName>);

impl Undecided {
    /// Whether State shows all that was proposed.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the claim's disruption is on its way into the log.
    pub(super) fn contains(&self, claim: &NodeClaimName) -> bool {
        self.0.contains(claim)
    }

    /// Forgets what State shows by now, or has no use for any more.
    pub(super) fn follow(&mut self, state: &State) {
        self.0.retain(|claim| state.claims.get(claim).is_some_and(|record| !record.is_leaving()));
    }

    /// These claims' disruption will not be in State.
    pub(super) fn stop_expecting(&mut self, claims: &[NodeClaimName]) {
        self.0.retain(|claim| !claims.contains(claim));
    }
}

impl Control {
    /// Proposes a disruption and the launches of its replacements, unless the same was proposed moments ago.
    pub(super) fn propose_disruption(
        &mut self,
        disruption: Disruption,
        intents: Vec<LaunchIntent>,
        now: Timestamp,
    ) -> bool {
        let claims = disruption.claims.clone();
        let disruption = Box::new(disruption);
        let proposed = self.propose(Change::CommitDisruption { disruption, intents }, now);
        if proposed {
            self.undecided.0.extend(claims);
        }
        proposed
    }
}
