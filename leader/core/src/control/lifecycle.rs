//! Following claims from launch to ready: their own objects, their Nodes, and what is recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::call::{Call, Kind, KubernetesCall, Target};
use drover_common::cluster::{ClusterEvent, ClusterObject, Node, Pod};
use drover_common::crd::{NodeClaim, parse_resources};
use drover_common::id::{NodeClaimName, NodeName};
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Control;
use super::calls::CallKey;
use super::{claim_status, node_patch, object};
use crate::command::Change;
use crate::joined::{is_passing, is_startup};
use crate::state::{ClaimRecord, Stage, State};
use crate::view::View;

/// When pods last came to, ended on or began to leave each node. Kept by followers, too.
#[derive(Clone, Debug, Default)]
pub(super) struct PodActivity {
    last: BTreeMap<NodeName, Timestamp>,
    changes: u64,
    /// Of changes that follow each other closely: when the first came, and the latest.
    burst: Option<(Timestamp, Timestamp)>,
}

/// After so long without a change a burst of them is over.
const SETTLED: SignedDuration = SignedDuration::from_secs(2);

/// Where changes do not end, what is there by then is taken for settled.
const LONGEST_BURST: SignedDuration = SignedDuration::from_secs(10);

impl PodActivity {
    /// Notes what a change does to its pod's node. Call it before the view takes the change in.
    pub(super) fn observe(&mut self, view: &View, event: &ClusterEvent, now: Timestamp) {
        let node = match event {
            ClusterEvent::Applied(ClusterObject::Pod(pod)) => {
                let key = drover_common::cluster::ObjectKey::from(&pod.metadata);
                let before = view.pod(&key);
                let bound = !pod.spec.node_name.is_empty() && !pod.is_node_bound();
                let changed = before.is_none_or(|before| phase(before) != phase(pod));
                // A first list is no news: what a claim's status tells is older and truer.
                (bound && changed && view.is_synced()).then_some(&pod.spec.node_name).cloned()
            }
            ClusterEvent::Applied(ClusterObject::Node(_)) => None,
            ClusterEvent::Deleted(Kind::Pod, key) => view
                .pod(key)
                .filter(|pod| !pod.is_node_bound() && !pod.spec.node_name.is_empty())
                .map(|pod| pod.spec.node_name.clone()),
            ClusterEvent::Deleted(Kind::Node, key) => {
                self.last.remove(&NodeName::from(key.name.as_str()));
                None
            }
            _ => None,
        };
        if let Some(node) = node {
            self.last.insert(NodeName::from(node), now);
            self.changes = self.changes.saturating_add(1);
            let going_on = self.burst.filter(|(_, latest)| now.duration_since(*latest) < SETTLED);
            self.burst = Some((going_on.map_or(now, |(first, _)| first), now));
        }
    }

    /// Whether more changes are likely to come at once: a Deployment's pods go one after the other.
    pub(super) fn is_in_burst(&self, now: Timestamp) -> bool {
        self.burst.is_some_and(|(first, latest)| {
            now.duration_since(latest) < SETTLED && now.duration_since(first) < LONGEST_BURST
        })
    }

    /// How many changes this replica saw.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// When pods last changed on the node, as far as this replica saw.
    pub(super) fn last(&self, node: &NodeName) -> Option<Timestamp> {
        self.last.get(node).copied()
    }
}

/// What makes a pod's change an event for its node.
fn phase(pod: &Pod) -> (&str, bool, bool) {
    (&pod.spec.node_name, pod.is_terminal(), pod.is_terminating())
}

impl Control {
    pub(super) fn follow_claims(&mut self, state: &State, now: Timestamp) {
        for (name, record) in &state.claims {
            let object = self.view.claims().get(name).cloned();
            let node = self.node_of(record);
            self.follow_reservation(name, record, now);
            if let Some(claim) = &object {
                self.follow_claim_object(state, name, record, claim, node.as_deref(), now);
            }
            let Some(node) = node else { continue };
            self.follow_node(state, name, record, object.as_deref(), &node, now);
            if record.stage < Stage::Terminating {
                self.record_progress(name, record, object.as_deref(), &node, now);
            }
        }
    }

    /// Whether EC2 still shows a reserved instance in its reservation, once it surely shows it.
    fn follow_reservation(&mut self, name: &NodeClaimName, record: &ClaimRecord, now: Timestamp) {
        let Some(instance) = &record.instance else { return };
        let settled = record
            .launched_at
            .is_some_and(|at| now.duration_since(at) >= self.settings.absence_interval);
        let reserved = instance.capacity_type == CapacityType::Reserved;
        if !reserved || !settled || record.stage >= Stage::Terminating {
            return;
        }
        let shown = self.cloud.get(&instance.id).filter(|shown| !shown.state.is_gone());
        if shown.is_some_and(|shown| shown.capacity_type == CapacityType::OnDemand)
            && self.knows_prices_of(&record.nodeclass)
        {
            let price = self.discovery.price(
                &record.nodeclass,
                &instance.instance_type,
                &instance.zone,
                CapacityType::OnDemand,
            );
            let claim = name.clone();
            let hourly_price_micro = price.unwrap_or(0);
            self.propose(Change::RecordReservationLapsed { claim, hourly_price_micro }, now);
        }
    }

    /// Whether prices under a class are known as far as they will be: what is recorded stands.
    fn knows_prices_of(&self, class: &str) -> bool {
        let is_known = self.discovery.catalogs().contains_key(class);
        let is_gone = !self.view.classes().contains_key(class);
        self.discovery.is_ready(&self.calls) && (is_known || is_gone)
    }

    /// The Node of a claim: the one with its instance's providerID.
    pub(super) fn node_of(&self, record: &ClaimRecord) -> Option<Arc<Node>> {
        let instance = record.instance.as_ref()?;
        self.view.node_of_instance(&instance.id).cloned()
    }

    fn follow_claim_object(
        &mut self,
        state: &State,
        name: &NodeClaimName,
        record: &ClaimRecord,
        claim: &NodeClaim,
        node: Option<&Node>,
        now: Timestamp,
    ) {
        if let Some(patch) = self.claim_metadata_patch(record, claim) {
            self.patch_claim(name, CallKey::PatchClaim(name.clone()), false, patch, now);
        }
        if record.stage == Stage::Gone {
            return;
        }
        let instance_type = record.instance.as_ref().and_then(|instance| {
            self.discovery.instance_type(&record.nodeclass, &instance.instance_type)
        });
        let inputs = claim_status::Inputs {
            record,
            claim,
            node,
            instance_type,
            volumes_attached: record.drained_at.is_some()
                && node.is_some_and(|node| self.has_attached_volumes(node)),
            last_pod_event: node
                .and_then(|node| self.activity.last(&NodeName::from(node.metadata.name.as_str()))),
            consolidate_after: record
                .nodepool
                .as_ref()
                .and_then(|pool| self.view.pools().get(pool))
                .and_then(|pool| pool.spec.disruption.consolidates_after()),
            disrupted: state.reason_of(name).filter(|reason| reason.is_voluntary()),
            now,
        };
        let before = object::status_of(claim);
        let wanted = claim_status::wanted(&inputs);
        if wanted != before
            && let Ok(status) = serde_json::to_value(&wanted)
        {
            let patch = json!({ "status": status });
            self.patch_claim(name, CallKey::PatchClaimStatus(name.clone()), true, patch, now);
        }
    }

    /// Labels that are known once there is an instance, and the drain's deadline.
    fn claim_metadata_patch(&self, record: &ClaimRecord, claim: &NodeClaim) -> Option<Value> {
        let instance = record.instance.as_ref()?;
        if record.stage == Stage::Gone {
            return None;
        }
        let mut wanted: BTreeMap<String, Option<String>> = self
            .discovery
            .instance_type(&record.nodeclass, &instance.instance_type)
            .map(|kind| kind.labels.iter().map(|(key, value)| (key.clone(), Some(value.clone()))))
            .into_iter()
            .flatten()
            .collect();
        let mut want = |key: &str, value| drop(wanted.insert(key.to_owned(), value));
        want(labels::INSTANCE_TYPE, Some(instance.instance_type.clone()));
        want(labels::ZONE, Some(instance.zone.clone()));
        let kind = self.discovery.instance_type(&record.nodeclass, &instance.instance_type);
        let sold = kind.and_then(|kind| kind.offerings.iter().find(|o| o.zone == instance.zone));
        if let Some(id) = sold.and_then(|offering| offering.zone_id.clone()) {
            want(labels::ZONE_ID, Some(id));
        }
        want(labels::CAPACITY_TYPE, Some(instance.capacity_type.to_string()));
        match &instance.reservation {
            Some(id) => {
                want(labels::RESERVATION_ID, Some(id.clone()));
                let class = &record.nodeclass;
                if let Some(known) = self.discovery.reservation(class, &instance.instance_type, id)
                {
                    want(labels::RESERVATION_TYPE, Some(known.kind.as_str().to_owned()));
                    want(labels::RESERVATION_INTERRUPTIBLE, Some(known.interruptible.to_string()));
                }
            }
            None => labels::RESERVATION_LABELS.into_iter().for_each(|key| want(key, None)),
        }
        let present = object::labels_of(claim);
        wanted.retain(|key, value| present.get(key) != value.as_ref());
        let resource_version = claim.metadata.resource_version.clone();
        (!wanted.is_empty())
            .then(|| json!({"metadata": {"labels": wanted, "resourceVersion": resource_version}}))
    }

    pub(super) fn patch_claim(
        &mut self,
        name: &NodeClaimName,
        key: CallKey,
        status: bool,
        patch: Value,
        now: Timestamp,
    ) {
        let target = Target::cluster(Kind::NodeClaim, name.to_string());
        let call = Call::Kubernetes(KubernetesCall::MergePatch { target, status, patch });
        self.calls.call(key, call, now);
    }

    fn follow_node(
        &mut self,
        state: &State,
        name: &NodeClaimName,
        record: &ClaimRecord,
        claim: Option<&NodeClaim>,
        node: &Node,
        now: Timestamp,
    ) {
        let draining = record
            .disruption
            .as_ref()
            .filter(|_| record.stage == Stage::Draining)
            .or_else(|| record.disruption.as_ref().filter(|_| record.stage > Stage::Draining))
            .and_then(|id| state.disruptions.get(id))
            .map(|record| &record.disruption);
        let initializes = claim.is_some_and(|claim| is_initialized(claim, node));
        let candidate = self
            .consolidation
            .candidates()
            .map(|candidates| candidates.contains(&NodeName::from(node.metadata.name.as_str())));
        let recommended = state.is_recommended_to_leave(record);
        let out_of_service = self.out_of_service(state, name, record, node, now);
        let wanted = node_patch::Wanted {
            name,
            record,
            claim,
            draining,
            initializes,
            candidate,
            recommended,
            out_of_service,
        };
        if let Some(patch) = node_patch::patch(node, &wanted) {
            let node_name = NodeName::from(node.metadata.name.as_str());
            let call = Call::Kubernetes(KubernetesCall::MergePatch {
                target: Target::cluster(Kind::Node, node.metadata.name.clone()),
                status: false,
                patch,
            });
            self.calls.call(CallKey::PatchNode(node_name), call, now);
        }
    }

    fn record_progress(
        &mut self,
        name: &NodeClaimName,
        record: &ClaimRecord,
        claim: Option<&NodeClaim>,
        node: &Node,
        now: Timestamp,
    ) {
        let is_set = |label: &str| node.metadata.labels.get(label).is_some_and(|v| v == "true");
        let unregistered =
            node.spec.taints.iter().any(|taint| taint.key == labels::UNREGISTERED_TAINT);
        if record.registered_at.is_none() {
            if is_set(labels::REGISTERED) && !unregistered {
                let node = NodeName::from(node.metadata.name.as_str());
                self.propose(Change::RecordRegistered { claim: name.clone(), node }, now);
            }
        } else if record.initialized_at.is_none()
            && is_set(labels::INITIALIZED)
            && claim.is_none_or(|claim| is_initialized(claim, node))
        {
            self.propose(Change::RecordInitialized { claim: name.clone() }, now);
        }
    }
}

/// Whether a registered Node is ready for pods: Ready, free of startup and passing taints, and with
/// every resource the claim asks for. Returns why not.
pub(super) fn not_initialized(claim: &NodeClaim, node: &Node) -> Option<(&'static str, String)> {
    if !node.is_ready() {
        return Some(("NodeNotReady", "Node status is NotReady".to_owned()));
    }
    let mut taints = node.spec.taints.iter();
    let startup = taints.find(|taint| is_startup(taint, &claim.spec.startup_taints));
    if let Some(taint) = startup {
        return Some(("StartupTaintsExist", format!("StartupTaint {} still exists", taint.key)));
    }
    if let Some(taint) = node.spec.taints.iter().find(|taint| is_passing(taint)) {
        let message = format!("KnownEphemeralTaint {} still exists", taint.key);
        return Some(("KnownEphemeralTaintsExist", message));
    }
    let requested = parse_resources(&claim.spec.resources.requests).unwrap_or_default();
    let missing = requested
        .iter()
        .find(|(name, amount)| *amount > 0 && node.status.allocatable.get(name) == 0);
    missing.map(|(name, _)| {
        ("ResourceNotRegistered", format!("Resource {name} was requested but not registered"))
    })
}

fn is_initialized(claim: &NodeClaim, node: &Node) -> bool {
    not_initialized(claim, node).is_none()
}
