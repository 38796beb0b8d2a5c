//! What plans are made from: the view, and what State tells of nodes that are not there yet.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{Node, ObjectKey};
use drover_common::id::{NodeClaimName, NodeName, NodePoolName};
use drover_common::labels;
use drover_common::requirement::Requirements;
use drover_common::resources::Resources;
use jiff::{SignedDuration, Timestamp};

use super::Control;
use super::lifecycle::not_initialized;
use crate::expected::expected_pods;
use crate::joined::{as_joined, is_labelled_registered, will_take_pods};
use crate::planner::{InFlightNode, Placement, PlanInput, UnavailableOffering, VirtualPods};
use crate::state::{ClaimRecord, Stage, State};
use crate::staying::staying_pods;

/// How long after a launch EC2's count of what a reservation has room for surely tells of it.
const COUNTED_AFTER: SignedDuration = SignedDuration::from_secs(5);

/// What plans are made from besides the view.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered {
    in_flight: Vec<InFlightNode>,
    /// Places that were decided before; the last look has some.
    seats: Vec<Placement>,
    reserved: BTreeMap<String, u32>,
    usage: BTreeMap<NodePoolName, Resources>,
    unavailable: BTreeMap<UnavailableOffering, Timestamp>,
    virtual_pods: Vec<VirtualPods>,
    staying: BTreeSet<ObjectKey>,
}

impl Gathered {
    /// The same, with places that were decided before.
    pub(super) fn with_seats(self, seats: Vec<Placement>) -> Self {
        Self { seats, ..self }
    }

    pub(super) fn input<'a>(
        &'a self,
        control: &'a Control,
        leaving: &'a BTreeSet<NodeName>,
        now: Timestamp,
    ) -> PlanInput<'a> {
        PlanInput {
            view: &control.view,
            catalogs: control.discovery.catalogs(),
            virtual_pods: &self.virtual_pods,
            in_flight: &self.in_flight,
            seats: &self.seats,
            leaving,
            staying: &self.staying,
            unavailable: &self.unavailable,
            reserved: &self.reserved,
            pool_usage: &self.usage,
            settings: &control.settings.planner,
            now,
        }
    }
}

impl Control {
    /// What plans are made from besides the view.
    pub(super) fn gather(&self, state: &State, now: Timestamp) -> Gathered {
        let leaving = self.leaving_nodes(state, now);
        Gathered {
            virtual_pods: expected_pods(&self.view, now),
            in_flight: self.in_flight_nodes(state, &leaving, now),
            seats: Vec::new(),
            reserved: self.reserved(state),
            usage: self.pool_usage(state),
            unavailable: unavailable_now(state, now),
            staying: self.staying(state, &leaving, now),
        }
    }

    /// Lets `make` plan from what is known now.
    pub(super) fn plan_with<R>(
        &self,
        state: &State,
        now: Timestamp,
        make: impl FnOnce(&PlanInput<'_>) -> R,
    ) -> R {
        let gathered = self.gather(state, now);
        make(&gathered.input(self, &self.leaving_nodes(state, now), now))
    }

    /// Nodes whose pods need another place now: draining ones, and those EC2 takes back. A voluntary
    /// disruption that has not begun to drain has no pods to place.
    pub(super) fn leaving_nodes(&self, state: &State, now: Timestamp) -> BTreeSet<NodeName> {
        state
            .claims
            .iter()
            .filter(|(name, claim)| {
                claim.stage > Stage::Disrupting
                    || state.hard_notice(name, now).is_some()
                    || state.reason_of(name).is_some_and(|reason| !reason.is_voluntary())
            })
            .filter_map(|(_, claim)| {
                let node = self.node_of(claim)?;
                Some(NodeName::from(node.metadata.name.as_str()))
            })
            .collect()
    }

    /// Pods on leaving nodes that nothing may evict. What EC2 takes back is left by all.
    pub(super) fn staying(
        &self,
        state: &State,
        leaving: &BTreeSet<NodeName>,
        now: Timestamp,
    ) -> BTreeSet<ObjectKey> {
        let is_taken = |name: &NodeName| {
            let node = self.view.nodes().get(name);
            let claim = node.and_then(|node| self.view.claim_of_node(node));
            let claim = claim.and_then(|claim| claim.metadata.name.clone());
            claim.is_some_and(|name| state.hard_notice(&name.into(), now).is_some())
        };
        staying_pods(&self.view, leaving.iter().filter(|name| !is_taken(name)), now)
    }

    /// Claims that will have a Node, or have one that takes no pods yet, but will.
    fn in_flight_nodes(
        &self,
        state: &State,
        leaving: &BTreeSet<NodeName>,
        now: Timestamp,
    ) -> Vec<InFlightNode> {
        let shut = self.shut_claims(state, leaving, now);
        on_their_way(state)
            .filter(|(name, _)| !shut.contains(*name))
            .filter_map(|(name, record)| {
                let Some(node) = self.node_of(record) else {
                    return Some(self.in_flight_node(name, record));
                };
                let claim = self.view.claims().get(name);
                if claim.is_some_and(|claim| not_initialized(claim, &node).is_none()) {
                    return None;
                }
                // Which taints come off only the claim tells.
                let is_registered = claim.is_some() && is_labelled_registered(&node);
                let startup = claim.map_or(&[][..], |claim| &claim.spec.startup_taints);
                let planned = self.in_flight_node(name, record);
                Some(as_joined(planned, &node, is_registered, startup))
            })
            .collect()
    }

    /// Claims on their way that no pod should wait for: EC2 takes them back, or their Node has joined and will take none.
    pub(super) fn shut_claims(
        &self,
        state: &State,
        leaving: &BTreeSet<NodeName>,
        now: Timestamp,
    ) -> BTreeSet<NodeClaimName> {
        let is_shut = |name: &NodeClaimName, record: &ClaimRecord| {
            let node = self.node_of(record);
            let shut = |node: &Node| {
                !will_take_pods(node)
                    || leaving.contains(&NodeName::from(node.metadata.name.as_str()))
            };
            state.hard_notice(name, now).is_some() || node.is_some_and(|node| shut(&node))
        };
        let shut = on_their_way(state).filter(|(name, record)| is_shut(name, record));
        shut.map(|(name, _)| name.clone()).collect()
    }

    fn in_flight_node(&self, name: &NodeClaimName, record: &ClaimRecord) -> InFlightNode {
        let nodepool = record.nodepool.clone().unwrap_or_default();
        let planned = record.planned.as_deref().cloned().unwrap_or_default();
        let mut labels = planned.labels;
        let mut allocatable = planned.allocatable;
        if let Some(instance) = &record.instance {
            let kind = self.discovery.instance_type(&record.nodeclass, &instance.instance_type);
            if let Some(kind) = kind {
                labels.extend(kind.labels.clone());
                // What overlays add is known from the plan alone.
                let mut known = kind.allocatable.clone();
                for (name, amount) in
                    allocatable.iter().filter(|(n, _)| !kind.allocatable.contains(n))
                {
                    known.set(name.clone(), amount);
                }
                allocatable = known;
            }
            labels.insert(labels::INSTANCE_TYPE.to_owned(), instance.instance_type.clone());
            labels.insert(labels::ZONE.to_owned(), instance.zone.clone());
            labels.insert(labels::CAPACITY_TYPE.to_owned(), instance.capacity_type.to_string());
        }
        if record.nodepool.is_some() {
            labels.insert(labels::NODEPOOL.to_owned(), nodepool.to_string());
        }
        InFlightNode {
            claim: name.clone(),
            node: self.node_of(record).map(|node| NodeName::from(node.metadata.name.as_str())),
            nodepool,
            labels,
            requirements: Requirements::from_requirements(&planned.requirements)
                .unwrap_or_default(),
            taints: planned.taints,
            allocatable,
            pods: planned.pods,
        }
    }

    /// Nodes on their way into each reservation that EC2 had not counted when it was last asked.
    pub(super) fn reserved(&self, state: &State) -> BTreeMap<String, u32> {
        let mut reserved: BTreeMap<String, u32> = BTreeMap::new();
        for record in state.claims.values().filter(|record| record.stage < Stage::Gone) {
            let id = match &record.instance {
                Some(instance) => instance.reservation.as_ref().filter(|id| {
                    let told = record.launched_at.zip(self.discovery.told_at(id));
                    told.is_none_or(|(launched, told)| {
                        told.duration_since(launched) < COUNTED_AFTER
                    })
                }),
                None => {
                    let intent = record.intent.as_ref().and_then(|id| state.intents.get(id));
                    intent.and_then(|intent| intent.reservation()).map(|target| &target.id)
                }
            };
            if let Some(id) = id {
                let count = reserved.entry(id.clone()).or_default();
                *count = count.saturating_add(1);
            }
        }
        reserved
    }
}

/// Offerings that are left alone for now, and until when.
pub(super) fn unavailable_now(
    state: &State,
    now: Timestamp,
) -> BTreeMap<UnavailableOffering, Timestamp> {
    state
        .unavailable
        .iter()
        .filter(|(_, until)| **until > now)
        .map(|(key, until)| {
            let offering = UnavailableOffering {
                capacity_type: key.capacity_type,
                instance_type: Some(key.instance_type.clone()),
                zone: Some(key.zone.clone()),
                reservation: key.reservation.clone(),
            };
            (offering, *until)
        })
        .collect()
}

/// Claims whose nodes are not initialized.
pub(super) fn on_their_way(state: &State) -> impl Iterator<Item = (&NodeClaimName, &ClaimRecord)> {
    state.claims.iter().filter(|(_, record)| record.stage < Stage::Initialized)
}
