//! A small world to drive the brain in: objects with finalizers, one EC2 with client tokens,
//! kubelets that register when told, a scheduler that knows CPU and taints.

mod by_hand;
mod cloud;
mod machines;
mod region;
mod reservations;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use drover_common::call::{
    Call, Kind, KubernetesCall, KubernetesFailure, KubernetesFailureKind, Outcome, Target,
};
use drover_common::cluster::{ClusterEvent, ClusterObject, ObjectKey};
use drover_common::ec2::{
    Ec2Answer, Ec2Call, Ec2Failure, Ec2FailureKind, FleetAnswer, FleetError, FleetRequest,
    Instance, InstanceQuery, InstanceState, LaunchTemplate, LaunchedInstance, QueueMessage,
    ReservationUse, Tags,
};
use drover_common::id::{InstanceId, provider_id};
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use jiff::Timestamp;
use serde_json::{Value, json};

use region::describe_region;

type Name = (Kind, String, String);

/// Everything outside the brain.
#[derive(Debug, Default)]
pub(super) struct World {
    objects: BTreeMap<Name, Value>,
    version: u64,
    pub(super) events: VecDeque<ClusterEvent>,
    pub(super) instances: BTreeMap<InstanceId, Instance>,
    fleets: BTreeMap<String, (FleetRequest, FleetAnswer)>,
    pub(super) templates: BTreeMap<String, LaunchTemplate>,
    /// Types EC2 has none of.
    pub(super) sold_out: BTreeSet<String>,
    /// Whether EC2 has none as spot.
    pub(super) spot_is_sold_out: bool,
    /// The code by which EC2 refuses every fleet, if it does.
    pub(super) refuses_fleets: Option<&'static str>,
    /// How many fleets it was asked for.
    pub(super) fleets_asked: usize,
    /// Capacity reservations: how many instances each is for.
    reservations: BTreeMap<String, u32>,
    /// Those of them that are capacity blocks.
    blocks: BTreeSet<String>,
    /// What launch templates say of reservations.
    uses: BTreeMap<String, ReservationUse>,
    /// The code by which EC2 refuses what it told it had room for, if it does.
    pub(super) refuses_reserved: Option<&'static str>,
    /// Launches into a reservation that were refused.
    pub(super) overuses: usize,
    /// Whether the API server refuses NodeClaims as invalid.
    pub(super) refuses_claims: bool,
    /// How often reservations were read.
    pub(super) reservation_reads: usize,
    /// Messages of the interruption queue, and whether they were handed out.
    pub(super) queue: Vec<(QueueMessage, bool)>,
    sent: usize,
    /// How often all instances were read.
    pub(super) instance_reads: usize,
    /// Whether no subnet is like what classes ask for.
    pub(super) lacks_subnets: bool,
    /// Whether a budget refuses every eviction.
    pub(super) holds_pods: bool,
    /// Whether the API server takes no change of a Node.
    pub(super) refuses_nodes: bool,
    /// Whether no pod can be deleted.
    pub(super) refuses_deletions: bool,
    /// Pods that were made to leave, in order.
    pub(super) ended: Vec<Ended>,
    /// Terminate calls, by instance.
    pub(super) terminated: Vec<InstanceId>,
    /// Nodes whose kubelet is up stay so until their instance ends.
    booted: BTreeSet<InstanceId>,
    pub(super) now: Timestamp,
    launched: usize,
    /// Whether startup taints are taken off.
    pub(super) warms_up: bool,
}

/// How a pod was made to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) pod: String,
    pub(super) at: Timestamp,
    /// By deletion, past any budget.
    pub(super) forced: bool,
    pub(super) grace_seconds: Option<u32>,
}

impl World {
    pub(super) fn new(now: Timestamp) -> Self {
        let mut world = Self { now, warms_up: true, ..Self::default() };
        world.put(Kind::Namespace, json!({"metadata": {"name": "kube-system"}}));
        world.put(Kind::Namespace, json!({"metadata": {"name": "default"}}));
        world.put(
            Kind::Ec2NodeClass,
            json!({
                "metadata": {"name": "default"},
                "spec": {
                    "amiFamily": "AL2023",
                    "amiSelectorTerms": [{"id": "ami-1"}],
                    "role": "nodes",
                    "subnetSelectorTerms": [{"tags": {"discovery": "yes"}}],
                    "securityGroupSelectorTerms": [{"tags": {"discovery": "yes"}}],
                },
            }),
        );
        world.put(Kind::NodePool, json!({
            "metadata": {"name": "general"},
            "spec": {
                "template": {
                    "metadata": {"labels": {"team": "web"}},
                    "spec": {
                        "requirements": [
                            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]},
                        ],
                        "nodeClassRef": {
                            "group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default",
                        },
                        "startupTaints": [{"key": "example.com/warming", "effect": "NoSchedule"}],
                    },
                },
                "disruption": {"consolidateAfter": "30s", "budgets": [{"nodes": "100%"}]},
            },
        }));
        world
    }

    /// A user's creation of an object.
    pub(super) fn put(&mut self, kind: Kind, object: Value) {
        let text = |pointer: &str| {
            object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let name = (kind, text("/metadata/namespace"), text("/metadata/name"));
        self.create(&name, object).unwrap();
    }

    /// Pods of a ReplicaSet that ask for so much CPU, pending as the scheduler leaves them.
    pub(super) fn add_pods(&mut self, prefix: &str, count: usize, milli_cpu: u32) {
        for number in 0..count {
            self.add_pod_of(("ReplicaSet", "web"), &format!("{prefix}-{number}"), milli_cpu);
        }
    }

    /// A pod of an owner's.
    pub(super) fn add_pod_of(&mut self, owner: (&str, &str), name: &str, milli_cpu: u32) {
        self.put(
            Kind::Pod,
            json!({
                "metadata": {
                    "name": name, "namespace": "default",
                    "ownerReferences": [{
                        "apiVersion": "v1", "kind": owner.0, "name": owner.1, "uid": "rs",
                        "controller": true,
                    }],
                },
                "spec": {"containers": [{
                    "name": "main",
                    "resources": {"requests": {"cpu": format!("{milli_cpu}m"), "memory": "64Mi"}},
                }]},
                "status": {"phase": "Pending", "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"},
                ]},
            }),
        );
    }

    pub(super) fn remove_pods(&mut self, prefix: &str) {
        let names: Vec<Name> = self
            .objects
            .keys()
            .filter(|(kind, _, name)| *kind == Kind::Pod && name.starts_with(prefix))
            .cloned()
            .collect();
        for name in names {
            self.delete(&name);
        }
    }

    pub(super) fn list(&self, kind: Kind) -> Vec<&Value> {
        self.objects.iter().filter(|((k, ..), _)| *k == kind).map(|(_, object)| object).collect()
    }

    pub(super) fn running_instances(&self) -> Vec<&Instance> {
        self.instances.values().filter(|i| !i.state.is_gone()).collect()
    }

    /// Everything as a first list of watches would tell it.
    pub(super) fn list_events(&self) -> Vec<ClusterEvent> {
        let kinds = Kind::ALL.into_iter().filter(|kind| kind.is_watched());
        let mut events = Vec::new();
        for kind in kinds {
            events.push(ClusterEvent::Restarted(kind));
            for object in self.list(kind) {
                events.push(ClusterEvent::Applied(
                    ClusterObject::from_json(kind, object.clone()).unwrap(),
                ));
            }
            events.push(ClusterEvent::Synced(kind));
        }
        events
    }

    fn stamp(&mut self, name: &Name, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        object["kind"] = json!(name.0.endpoint().kind);
        self.objects.insert(name.clone(), object.clone());
        if let Ok(slim) = ClusterObject::from_json(name.0, object.clone()) {
            self.events.push_back(ClusterEvent::Applied(slim));
        }
        object
    }

    fn create(&mut self, name: &Name, mut object: Value) -> Result<Value, KubernetesFailure> {
        if self.objects.contains_key(name) {
            return Err(failure(KubernetesFailureKind::AlreadyExists));
        }
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("uid-{}", self.version));
        metadata["generation"] = json!(1);
        metadata["creationTimestamp"] = json!(whole_seconds(self.now));
        Ok(self.stamp(name, object))
    }

    fn patch(
        &mut self,
        name: &Name,
        status: bool,
        patch: &Value,
    ) -> Result<Value, KubernetesFailure> {
        let mut object =
            self.objects.get(name).cloned().ok_or(failure(KubernetesFailureKind::NotFound))?;
        for field in ["uid", "resourceVersion"] {
            if let Some(wanted) = patch["metadata"].get(field)
                && object["metadata"][field] != *wanted
            {
                return Err(failure(KubernetesFailureKind::Conflict));
            }
        }
        if status {
            merge(&mut object["status"], &patch["status"]);
        } else {
            let before = object["status"].take();
            merge(&mut object, patch);
            object["status"] = before;
        }
        if object["metadata"].get("deletionTimestamp").is_some() && finalizers(&object) == 0 {
            self.forget(name);
            return Ok(object);
        }
        Ok(self.stamp(name, object))
    }

    fn delete(&mut self, name: &Name) -> bool {
        let Some(mut object) = self.objects.get(name).cloned() else { return false };
        if finalizers(&object) == 0 {
            self.forget(name);
        } else if object["metadata"].get("deletionTimestamp").is_none() {
            object["metadata"]["deletionTimestamp"] = json!(whole_seconds(self.now));
            self.stamp(name, object);
        }
        true
    }

    /// A user's deletion.
    pub(super) fn delete_named(&mut self, kind: Kind, name: &str) -> bool {
        self.delete(&(kind, String::new(), name.to_owned()))
    }

    fn forget(&mut self, name: &Name) {
        self.objects.remove(name);
        let key = ObjectKey::new(name.1.clone(), name.2.clone());
        self.events.push_back(ClusterEvent::Deleted(name.0, key));
    }

    /// Carries a call out.
    pub(super) fn execute(&mut self, call: &Call) -> Outcome {
        match call {
            Call::Kubernetes(call) => Outcome::Kubernetes(self.kubernetes(call)),
            Call::Ec2(call) => Outcome::Ec2(self.ec2(call)),
        }
    }

    fn kubernetes(&mut self, call: &KubernetesCall) -> Result<Value, KubernetesFailure> {
        let name = |target: &Target| {
            (target.kind, target.namespace.clone().unwrap_or_default(), target.name.clone())
        };
        match call {
            KubernetesCall::Get { target } => {
                let found = self.objects.get(&name(target)).cloned();
                found.ok_or(failure(KubernetesFailureKind::NotFound))
            }
            KubernetesCall::Create { target, .. }
                if self.refuses_claims && target.kind == Kind::NodeClaim =>
            {
                Err(failure(KubernetesFailureKind::Invalid))
            }
            KubernetesCall::Create { target, object } => self.create(&name(target), object.clone()),
            KubernetesCall::MergePatch { target, .. }
                if target.kind == Kind::Node && self.refuses_nodes =>
            {
                Err(failure(KubernetesFailureKind::ServerError))
            }
            KubernetesCall::MergePatch { target, status, patch } => {
                self.patch(&name(target), *status, patch)
            }
            KubernetesCall::Delete { target, .. }
                if target.kind == Kind::Pod && self.refuses_deletions =>
            {
                Err(failure(KubernetesFailureKind::ServerError))
            }
            KubernetesCall::Delete { target, uid, grace_seconds } => {
                let forced = (target.kind == Kind::Pod).then_some((true, *grace_seconds));
                self.remove(&name(target), uid.as_deref(), forced)
            }
            KubernetesCall::Evict { .. } if self.holds_pods => {
                Err(failure(KubernetesFailureKind::DisruptionBudget))
            }
            KubernetesCall::Evict { target, uid, grace_seconds } => {
                self.remove(&name(target), Some(uid), Some((false, *grace_seconds)))
            }
        }
    }

    fn remove(
        &mut self,
        name: &Name,
        uid: Option<&str>,
        how: Option<(bool, Option<u32>)>,
    ) -> Result<Value, KubernetesFailure> {
        let object = self.objects.get(name).ok_or(failure(KubernetesFailureKind::NotFound))?;
        if uid.is_some_and(|uid| object["metadata"]["uid"] != uid) {
            return Err(failure(KubernetesFailureKind::Conflict));
        }
        let cpu = object["spec"]["containers"][0]["resources"]["requests"]["cpu"].clone();
        self.delete(name);
        if let Some((forced, grace_seconds)) = how {
            let (pod, at) = (name.2.clone(), self.now);
            self.ended.push(Ended { pod, at, forced, grace_seconds });
        }
        if name.0 == Kind::Pod {
            let milli = cpu.as_str().and_then(|t| t.strip_suffix('m')?.parse().ok()).unwrap_or(0);
            self.add_pod_of(("ReplicaSet", "web"), &format!("{}-again", name.2), milli);
        }
        Ok(Value::Null)
    }

    /// Pods that run on a Node that exists.
    pub(super) fn running_pods(&self) -> usize {
        self.list(Kind::Pod)
            .iter()
            .filter(|pod| {
                pod["spec"]["nodeName"].as_str().is_some_and(|node| {
                    self.objects.contains_key(&(Kind::Node, String::new(), node.to_owned()))
                })
            })
            .count()
    }
}

fn failure(kind: KubernetesFailureKind) -> KubernetesFailure {
    KubernetesFailure { kind, message: String::new(), retry_after_seconds: None }
}

/// Kubernetes' times have no fractions.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap()
}

fn finalizers(object: &Value) -> usize {
    object["metadata"]["finalizers"].as_array().map_or(0, Vec::len)
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}
