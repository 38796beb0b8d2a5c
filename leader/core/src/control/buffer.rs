//! CapacityBuffers: room kept free for pods to come, planned for as pods of the lowest priority.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::call::{Call, Kind, KubernetesCall, Target};
use drover_common::cluster::{ObjectKey, Pod, PodTemplate, TemplateSpec};
use drover_common::crd::{
    ACTIVE_CAPACITY, CapacityBuffer, CapacityBufferStatus, Condition, ConditionStatus,
    NameReference, parse_resources,
};
use jiff::Timestamp;
use serde_json::json;

use super::Control;
use super::calls::CallKey;
use super::object::condition;
use crate::planner::{Plan, VirtualPods};

/// What a buffer stands for, or why it stands for nothing.
type Reading = Result<Wanted, (&'static str, String)>;

/// The pods that a buffer keeps room for.
#[derive(Clone, Debug)]
struct Wanted {
    pod: Pod,
    count: usize,
    template: Option<(String, i64)>,
}

/// What the last plan made of buffers.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers {
    /// Why pods of a buffer have no room, by buffer; empty if all have.
    outcome: BTreeMap<ObjectKey, Vec<String>>,
}

/// What marks a virtual pod's name as a buffer's.
fn name_of(buffer: &ObjectKey) -> String {
    format!("buffer/{}", buffer.name)
}

impl Control {
    /// Virtual pods of all buffers.
    pub(super) fn buffered_pods(&self) -> Vec<VirtualPods> {
        let buffers = self.view.buffers().iter();
        buffers
            .filter_map(|(key, buffer)| {
                let wanted = self.read_buffer(key, buffer).ok()?;
                let pods = VirtualPods::like(&wanted.pod, &name_of(key), wanted.count);
                (wanted.count > 0).then_some(pods)
            })
            .collect()
    }

    /// How many pods each buffer wants room for: a change asks for a plan.
    pub(super) fn buffer_sizes(&self) -> BTreeMap<ObjectKey, usize> {
        let buffers = self.view.buffers().iter();
        buffers
            .filter_map(|(key, buffer)| {
                Some((key.clone(), self.read_buffer(key, buffer).ok()?.count))
            })
            .collect()
    }

    /// Remembers which buffers a plan found no room for.
    pub(super) fn judge_buffers(&mut self, plan: &Plan) {
        let mut outcome: BTreeMap<ObjectKey, Vec<String>> = BTreeMap::new();
        for key in self.view.buffers().keys() {
            let prefix = format!("{}#", name_of(key));
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
        self.provisioning.buffers.outcome = outcome;
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
        let ready = match self.read_buffer(key, buffer) {
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

    fn read_buffer(&self, key: &ObjectKey, buffer: &CapacityBuffer) -> Reading {
        let spec = &buffer.spec;
        if buffer.metadata.deletion_timestamp.is_some() {
            return Err(("Deleting", "the buffer is being deleted".to_owned()));
        }
        if spec.provisioning_strategy != ACTIVE_CAPACITY {
            let words = format!("spec.provisioningStrategy: only {ACTIVE_CAPACITY} is carried out");
            return Err(("UnsupportedStrategy", words));
        }
        let object =
            |name: &str| ObjectKey { namespace: key.namespace.clone(), name: name.to_owned() };
        let (template, replicas, named) = match (&spec.pod_template_ref, &spec.scalable_ref) {
            (Some(reference), None) => {
                let found = self.view.pod_templates().get(&object(&reference.name));
                let found = found.ok_or_else(|| {
                    let words = format!(
                        "spec.podTemplateRef: PodTemplate {} does not exist",
                        reference.name
                    );
                    ("PodTemplateNotFound", words)
                })?;
                let named = (reference.name.clone(), found.metadata.generation);
                (found.template.clone(), 0, Some(named))
            }
            (None, Some(reference)) => {
                let (template, replicas) =
                    self.workload(&reference.kind, &object(&reference.name)).ok_or_else(|| {
                        let words = format!(
                            "spec.scalableRef: {} {} does not exist, or is of a kind that can't be buffered",
                            reference.kind, reference.name
                        );
                        ("ScalableRefNotFound", words)
                    })?;
                (template, replicas, None)
            }
            _ => {
                let words = "spec: exactly one of podTemplateRef and scalableRef is needed";
                return Err(("Invalid", words.to_owned()));
            }
        };
        let pod = pod_of(key, &template);
        let limits = parse_resources(&spec.limits)
            .map_err(|error| ("Invalid", format!("spec.limits: {error}")))?;
        let requests = pod.requests();
        let most = limits
            .iter()
            .filter(|(name, _)| requests.get(name) > 0)
            .map(|(name, limit)| limit.max(0) / requests.get(name))
            .min()
            .map(|most| i32::try_from(most).unwrap_or(i32::MAX));
        let count = usize::try_from(spec.wanted(replicas, most)).unwrap_or(0);
        Ok(Wanted { pod, count, template: named })
    }

    /// A workload's pod template and how many replicas it asks for.
    fn workload(&self, kind: &str, key: &ObjectKey) -> Option<(PodTemplate, i32)> {
        let of = |spec: &TemplateSpec| (spec.template.clone(), spec.replicas.unwrap_or(1));
        match kind {
            "ReplicaSet" => self.view.replica_sets().get(key).map(|set| of(&set.spec)),
            "StatefulSet" => self.view.stateful_sets().get(key).map(|set| of(&set.spec)),
            // Of a Deployment, its ReplicaSets tell: the youngest has the present template.
            "Deployment" => {
                let sets: Vec<_> = self
                    .view
                    .replica_sets()
                    .iter()
                    .filter(|(set, _)| set.namespace == key.namespace)
                    .map(|(_, set)| set)
                    .filter(|set| {
                        let owner = set.metadata.controller();
                        owner.is_some_and(|o| o.kind == "Deployment" && o.name == key.name)
                    })
                    .collect();
                let replicas = sets.iter().filter_map(|set| set.spec.replicas).sum();
                let youngest = sets.iter().max_by_key(|set| set.metadata.creation_timestamp)?;
                Some((youngest.spec.template.clone(), replicas))
            }
            _ => None,
        }
    }
}

/// A pod of the template as the buffer plans for it: everything else goes before it.
fn pod_of(buffer: &ObjectKey, template: &PodTemplate) -> Pod {
    let mut pod = Pod { spec: template.spec.clone(), ..Pod::default() };
    pod.metadata.namespace.clone_from(&buffer.namespace);
    pod.metadata.labels.clone_from(&template.metadata.labels);
    pod.spec.priority = Some(i32::MIN);
    pod
}

/// Whether a pod's name is that of a buffer's virtual pod.
pub(super) fn is_buffered(pod: &ObjectKey) -> bool {
    pod.name.starts_with("buffer/")
}
