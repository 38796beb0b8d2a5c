//! Where the scheduler put pods, against where they were planned. A plan follows the bindings; how
//! often they differ tells how well the two agree.

use std::collections::BTreeMap;

use drover_common::cluster::ObjectKey;
use drover_common::id::NodeName;
use jiff::{SignedDuration, Timestamp};

use super::Control;
use crate::planner::PlacementTarget;
use crate::state::State;

/// A pod that is still not bound after this long is no longer waited for.
const PATIENCE: SignedDuration = SignedDuration::from_mins(30);

/// Planned places of pods that are not bound yet, and how earlier ones turned out.
#[derive(Clone, Debug, Default)]
pub(super) struct Bindings {
    planned: BTreeMap<ObjectKey, (PlacementTarget, Timestamp)>,
    followed: u64,
    diverged: u64,
    /// Divergence since the last plan: what was planned has to be looked at again.
    surprised: bool,
}

impl Bindings {
    pub(super) fn expect(&mut self, pod: &ObjectKey, target: PlacementTarget, now: Timestamp) {
        self.planned.insert(pod.clone(), (target, now));
    }

    /// Pods bound where they were planned, and elsewhere, since this replica leads.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.followed, self.diverged)
    }

    pub(super) fn is_surprised(&self) -> bool {
        self.surprised
    }

    pub(super) fn calm_down(&mut self) {
        self.surprised = false;
    }
}

impl Control {
    /// Compares new bindings with what was planned.
    pub(super) fn follow_bindings(&mut self, state: &State, now: Timestamp) {
        let mut bindings = std::mem::take(&mut self.provisioning.bindings);
        let (mut followed, mut diverged) = (0, 0);
        bindings.planned.retain(|key, (target, since)| {
            let Some(pod) = self.view.pod(key).filter(|pod| !pod.is_terminal()) else {
                return false;
            };
            if pod.spec.node_name.is_empty() {
                return now.duration_since(*since) < PATIENCE;
            }
            let node = NodeName::from(pod.spec.node_name.as_str());
            let meant = match target {
                PlacementTarget::Node(name) => Some(name.clone()),
                PlacementTarget::Claim(claim) => state
                    .claims
                    .get(claim)
                    .and_then(|record| self.node_of(record))
                    .map(|node| NodeName::from(node.metadata.name.as_str())),
            };
            if meant == Some(node) {
                followed += 1;
            } else {
                diverged += 1;
            }
            false
        });
        bindings.followed += followed;
        bindings.diverged += diverged;
        bindings.surprised |= diverged > 0;
        self.provisioning.bindings = bindings;
    }
}
