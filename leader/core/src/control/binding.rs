//! Where the scheduler put pods, against where they were planned. A plan follows the bindings; how
//! often they differ tells how well the two agree.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::ObjectKey;
use drover_common::id::NodeName;
use jiff::{SignedDuration, Timestamp};

use super::Control;
use super::object::after;
use crate::planner::PlacementTarget;
use crate::state::State;

/// A pod that is still not bound after this long is no longer waited for.
const PATIENCE: SignedDuration = SignedDuration::from_mins(30);

/// The place that a plan has for a pod.
#[derive(Clone, Debug)]
struct Planned {
    target: PlacementTarget,
    since: Timestamp,
    /// The node that it is to leave, while it is there.
    leaves: Option<NodeName>,
}

/// Planned places of pods that are not bound yet, or not gone from nodes that leave, and how earlier ones turned out.
#[derive(Clone, Debug, Default)]
pub(super) struct Bindings {
    planned: BTreeMap<ObjectKey, Planned>,
    followed: u64,
    diverged: u64,
    /// Divergence since the last plan: what was planned has to be looked at again.
    surprised: bool,
}

/// Whether a pod is to leave its node yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    ToCome,
    Past,
    /// Its node stays, or it does until its node is gone.
    CalledOff,
}

impl Bindings {
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
    /// A plan has this place for a pod.
    pub(super) fn expect_binding(
        &mut self,
        pod: &ObjectKey,
        target: PlacementTarget,
        now: Timestamp,
    ) {
        let on = self.view.pod(pod).map(|pod| pod.spec.node_name.as_str()).unwrap_or_default();
        let leaves = (!on.is_empty()).then(|| NodeName::from(on));
        let planned = Planned { target, since: now, leaves };
        self.provisioning.bindings.planned.insert(pod.clone(), planned);
    }

    /// Compares new bindings with what was planned.
    pub(super) fn follow_bindings(&mut self, state: &State, now: Timestamp) {
        let mut bindings = std::mem::take(&mut self.provisioning.bindings);
        self.follow_departures(&mut bindings, state, now);
        let (mut followed, mut diverged) = (0, 0);
        bindings.planned.retain(|key, planned| {
            if planned.leaves.is_some() {
                return true;
            }
            let Some(pod) = self.view.pod(key).filter(|pod| !pod.is_terminal()) else {
                return false;
            };
            if pod.spec.node_name.is_empty() {
                return now.duration_since(planned.since) < PATIENCE;
            }
            let node = NodeName::from(pod.spec.node_name.as_str());
            if self.node_meant(state, &planned.target) == Some(node) {
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

    /// Takes note of pods that left their nodes since. Whoever follows them is not planned for yet, and their places
    /// are kept for it for a moment.
    fn follow_departures(&mut self, bindings: &mut Bindings, state: &State, now: Timestamp) {
        if bindings.planned.values().all(|planned| planned.leaves.is_none()) {
            return;
        }
        let leaving = self.leaving_nodes(state, now);
        let staying = self.staying(state, &leaving, now);
        let mut awaiting = BTreeSet::new();
        bindings.planned.retain(|key, planned| {
            let Some(from) = &planned.leaves else { return true };
            match self.departure(key, from, planned.since, (&leaving, &staying), now) {
                Departure::ToCome => true,
                Departure::CalledOff => false,
                Departure::Past => {
                    awaiting.extend(self.node_meant(state, &planned.target));
                    (planned.leaves, planned.since) = (None, now);
                    true
                }
            }
        });
        self.provisioning.nominate(awaiting, after(now, self.settings.nominated_for));
    }

    fn departure(
        &self,
        key: &ObjectKey,
        from: &NodeName,
        since: Timestamp,
        (leaving, staying): (&BTreeSet<NodeName>, &BTreeSet<ObjectKey>),
        now: Timestamp,
    ) -> Departure {
        let pod = self.view.pod(key);
        if !pod.is_some_and(|pod| pod.spec.node_name == from.as_str() && !pod.is_terminal()) {
            return Departure::Past;
        }
        // The pod's object may outlast its Node until it is collected.
        let orphaned =
            || !self.view.nodes().contains_key(from) && now.duration_since(since) < PATIENCE;
        if !staying.contains(key) && (leaving.contains(from) || orphaned()) {
            Departure::ToCome
        } else {
            Departure::CalledOff
        }
    }

    /// Nodes that pods of leaving nodes are to come to.
    pub(super) fn awaiting_nodes(&self, state: &State) -> BTreeSet<NodeName> {
        let planned = self.provisioning.bindings.planned.values();
        let targets: BTreeSet<&PlacementTarget> =
            planned.filter(|it| it.leaves.is_some()).map(|it| &it.target).collect();
        targets.into_iter().filter_map(|target| self.node_meant(state, target)).collect()
    }

    fn node_meant(&self, state: &State, target: &PlacementTarget) -> Option<NodeName> {
        match target {
            PlacementTarget::Node(name) => Some(name.clone()),
            PlacementTarget::Claim(claim) => {
                let node = self.node_of(state.claims.get(claim)?)?;
                Some(NodeName::from(node.metadata.name.as_str()))
            }
        }
    }
}
