//! CapacityBuffers: what became of the room they ask for, in their status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drover_common::call::{Call, Kind, KubernetesCall, Target};
use drover_common::cluster::ObjectKey;
use drover_common::crd::{
    CapacityBuffer, CapacityBufferStatus, Condition, ConditionStatus, NameReference,
};
use drover_common::id::NodeClaimName;
use jiff::Timestamp;
use serde_json::json;

use super::Control;
use super::calls::CallKey;
use super::object::condition;
use crate::expected::{buffer_prefix, is_buffered, read_buffer};
use crate::planner::{PlacementTarget, Plan};
use crate::state::ClaimRecord;

/// What the last plan made of buffers.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers {
    /// Why pods of a buffer have no room, by buffer; empty if all have.
    outcome: BTreeMap<ObjectKey, Vec<String>>,
    /// What has the room that they count on, be it a node or still a claim; a claim stays its node's name
    /// for it until the next plan. `None` before this reign's first plan.
    counted_on: Option<BTreeSet<PlacementTarget>>,
}

impl Buffers {
    /// A claim was bought for a buffer.
    pub(super) fn count_on(&mut self, claim: NodeClaimName) {
        self.counted_on.get_or_insert_default().insert(PlacementTarget::Claim(claim));
    }
}

impl Control {
    /// How many pods each buffer wants room for: a change asks for a plan.
    pub(super) fn buffer_sizes(&self) -> BTreeMap<ObjectKey, usize> {
        let buffers = self.view.buffers().iter();
        buffers
            .filter_map(|(key, buffer)| {
                Some((key.clone(), read_buffer(&self.view, key, buffer).ok()?.count))
            })
            .collect()
    }

    /// Remembers which buffers a plan found no room for, and where it found room for the others.
    pub(super) fn judge_buffers(&mut self, plan: &Plan) {
        let mut outcome: BTreeMap<ObjectKey, Vec<String>> = BTreeMap::new();
        for key in self.view.buffers().keys() {
            let prefix = buffer_prefix(key);
            let mut reasons: Vec<String> = plan
                .unschedulable
                .iter()
                .filter(|left| left.pod.namespace == key.namespace)
                .filter(|left| left.pod.name.starts_with(&prefix))
                .flat_map(super::provisioning::reasons)
                .collect();
            reasons.sort();
            reasons.dedup();
            outcome.insert(key.clone(), reasons);
        }
        let placed = plan.placements.iter().filter(|one| one.pods.iter().any(is_buffered));
        self.provisioning.buffers = Buffers {
            outcome,
            counted_on: Some(placed.map(|placement| placement.node_or_claim.clone()).collect()),
        };
    }

    /// Whether it is known which nodes buffers count on.
    pub(super) fn knows_buffers(&self) -> bool {
        self.provisioning.buffers.counted_on.is_some() || self.view.buffers().is_empty()
    }

    /// Why buffers keep a node from being taken as empty, if they do.
    pub(super) fn kept_for_buffers(
        &self,
        name: &NodeClaimName,
        record: &ClaimRecord,
    ) -> Option<String> {
        let Some(counted_on) = &self.provisioning.buffers.counted_on else {
            let unknown = !self.knows_buffers();
            return unknown.then(|| "what CapacityBuffers count on is not planned yet".to_owned());
        };
        let is_counted_on = |target| counted_on.contains(&target);
        let node = record.node.clone().map(PlacementTarget::Node);
        (is_counted_on(PlacementTarget::Claim(name.clone())) || node.is_some_and(is_counted_on))
            .then(|| "a CapacityBuffer counts on its free room".to_owned())
    }

    /// Writes what came of each buffer into its status.
    pub(super) fn report_buffers(&mut self, now: Timestamp) {
        let buffers: Vec<(ObjectKey, Arc<CapacityBuffer>)> =
            self.view.buffers().iter().map(|(key, b)| (key.clone(), Arc::clone(b))).collect();
        for (key, buffer) in buffers {
            let before = buffer.status.clone().unwrap_or_default();
            let wanted = self.wanted_buffer_status(&key, &buffer, now);
            if wanted == before {
                continue;
            }
            let Ok(status) = serde_json::to_value(&wanted) else { continue };
            let call = KubernetesCall::MergePatch {
                target: Target::namespaced(
                    Kind::CapacityBuffer,
                    key.namespace.clone(),
                    key.name.clone(),
                ),
                status: true,
                patch: json!({ "status": status }),
            };
            self.calls.call(CallKey::PatchBufferStatus(key), Call::Kubernetes(call), now);
        }
    }

    fn wanted_buffer_status(
        &self,
        key: &ObjectKey,
        buffer: &CapacityBuffer,
        now: Timestamp,
    ) -> CapacityBufferStatus {
        let mut status = buffer.status.clone().unwrap_or_default();
        let generation = buffer.metadata.generation;
        let make = |kind: &str, status, reason: &str, message: &str| {
            condition(kind, status, reason, message, generation, now)
        };
        status.provisioning_strategy = Some(buffer.spec.provisioning_strategy.clone());
        let ready = match read_buffer(&self.view, key, buffer) {
            Ok(wanted) => {
                status.replicas = i32::try_from(wanted.count).ok();
                if let Some((name, generation)) = wanted.template {
                    status.pod_template_ref = Some(NameReference { name });
                    status.pod_template_generation = Some(generation);
                }
                make("ReadyForProvisioning", ConditionStatus::True, "", "")
            }
            Err((reason, message)) => {
                status.replicas = Some(0);
                make("ReadyForProvisioning", ConditionStatus::False, reason, &message)
            }
        };
        let is_ready = ready.status == ConditionStatus::True;
        Condition::set(&mut status.conditions, ready);
        let room = match self.provisioning.buffers.outcome.get(key) {
            _ if !is_ready => make("Provisioning", ConditionStatus::False, "NotReady", ""),
            None => make("Provisioning", ConditionStatus::Unknown, "AwaitingPlan", ""),
            Some(reasons) if reasons.is_empty() => {
                make("Provisioning", ConditionStatus::True, "", "")
            }
            Some(reasons) => {
                make("Provisioning", ConditionStatus::False, "NoRoom", &reasons.join("; "))
            }
        };
        Condition::set(&mut status.conditions, room);
        status
    }
}
