//! Pods.

mod container_id;
mod requests;
mod selector;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Metadata;
use crate::requirement::Requirement;
use crate::resources::Resources;
use crate::taint::Toleration;

pub use container_id::ContainerId;

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Metadata.
    pub metadata: Metadata,
    /// Spec.
    pub spec: PodSpec,
    /// Status.
    pub status: PodStatus,
}

/// A Pod's spec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The node it is bound to; empty while pending.
    pub node_name: String,
    /// Scheduler that should bind it.
    pub scheduler_name: String,
    /// Containers.
    pub containers: Vec<Container>,
    /// Init containers and sidecars.
    pub init_containers: Vec<Container>,
    /// Pod-level resources.
    pub resources: Option<ResourceRequirements>,
    /// Sandbox overhead.
    pub overhead: Resources,
    /// Labels the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Affinities.
    pub affinity: Affinity,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// Spread.
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Volumes.
    pub volumes: Vec<Volume>,
    /// Priority.
    pub priority: Option<i32>,
    /// Priority class.
    pub priority_class_name: String,
    /// Grace on termination, seconds; Kubernetes' default is 30.
    pub termination_grace_period_seconds: Option<i64>,
    /// Whether host ports are those of the node.
    pub host_network: bool,
    /// Gates.
    pub scheduling_gates: Vec<serde_json::Value>,
    /// Devices by claim (dynamic resource allocation).
    pub resource_claims: Vec<serde_json::Value>,
}

/// A container's scheduling side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Resources.
    pub resources: ResourceRequirements,
    /// `Always` on an init container makes it a sidecar.
    pub restart_policy: Option<String>,
    /// Ports.
    pub ports: Vec<ContainerPort>,
}

/// Requests and limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceRequirements {
    /// Requests.
    pub requests: Resources,
    /// Limits; a resource with a limit and no request requests its limit.
    pub limits: Resources,
}

/// A port of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// The port inside.
    pub container_port: i32,
    /// Host port; 0 is none.
    pub host_port: i32,
    /// Host address; empty is any.
    #[serde(rename = "hostIP")]
    pub host_ip: String,
    /// `TCP` if empty.
    pub protocol: String,
}

impl ContainerPort {
    /// The port that it takes of its node; 0 is none. In the node's network it is the container's own, which API
    /// servers write into pods, but not into templates.
    pub fn on_host(&self, host_network: bool) -> i32 {
        if self.host_port == 0 && host_network { self.container_port } else { self.host_port }
    }
}

/// Affinities.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Affinity {
    /// To nodes.
    pub node_affinity: Option<NodeAffinity>,
    /// To pods.
    pub pod_affinity: Option<PodAffinity>,
    /// Away from pods.
    pub pod_anti_affinity: Option<PodAffinity>,
}

/// Node affinity.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeAffinity {
    /// Hard.
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelector>,
    /// Soft.
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Vec<PreferredSchedulingTerm>,
}

/// Alternatives of which one must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelector {
    /// The alternatives.
    pub node_selector_terms: Vec<NodeSelectorTerm>,
}

/// One alternative: all expressions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelectorTerm {
    /// On labels.
    pub match_expressions: Vec<Requirement>,
    /// On fields (`metadata.name`).
    pub match_fields: Vec<Requirement>,
}

/// A weighted preference.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PreferredSchedulingTerm {
    /// 1 to 100.
    pub weight: i32,
    /// The preference.
    pub preference: NodeSelectorTerm,
}

/// Affinity or anti-affinity to pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodAffinity {
    /// Hard.
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Vec<PodAffinityTerm>,
    /// Soft.
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Vec<WeightedPodAffinityTerm>,
}

/// A weighted pod affinity term.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WeightedPodAffinityTerm {
    /// 1 to 100.
    pub weight: i32,
    /// The term.
    pub pod_affinity_term: PodAffinityTerm,
}

/// Which pods, counted over which topology.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodAffinityTerm {
    /// Pods.
    pub label_selector: Option<LabelSelector>,
    /// Their namespaces; the pod's own if this and the selector are absent.
    pub namespaces: Vec<String>,
    /// Namespaces by label.
    pub namespace_selector: Option<LabelSelector>,
    /// Node label that defines a domain.
    pub topology_key: String,
    /// Label keys whose value is taken from the pod.
    pub match_label_keys: Vec<String>,
    /// Label keys whose value must differ from the pod's.
    pub mismatch_label_keys: Vec<String>,
}

/// A label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Equalities.
    pub match_labels: BTreeMap<String, String>,
    /// Expressions.
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// `In`, `NotIn`, `Exists` or `DoesNotExist` on a label of a pod or namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelectorRequirement {
    /// Key.
    pub key: String,
    /// Operator.
    pub operator: String,
    /// Values.
    pub values: Vec<String>,
}

/// A spread constraint.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopologySpreadConstraint {
    /// Largest difference allowed.
    pub max_skew: i32,
    /// Node label that defines a domain.
    pub topology_key: String,
    /// `DoNotSchedule` or `ScheduleAnyway`.
    pub when_unsatisfiable: String,
    /// Pods counted.
    pub label_selector: Option<LabelSelector>,
    /// Fewest domains.
    pub min_domains: Option<i32>,
    /// `Honor` (default) or `Ignore`.
    pub node_affinity_policy: Option<String>,
    /// `Honor` or `Ignore` (default).
    pub node_taints_policy: Option<String>,
    /// Label keys whose value is taken from the pod.
    pub match_label_keys: Vec<String>,
}

/// A volume, as far as it ties a pod to places.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// Name.
    pub name: String,
    /// A claim: `{"claimName": …}`.
    pub persistent_volume_claim: Option<ClaimSource>,
    /// A generic ephemeral volume; its claim is named `<pod>-<volume>`.
    pub ephemeral: Option<serde_json::Value>,
}

/// `persistentVolumeClaim` of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSource {
    /// Claim name.
    pub claim_name: String,
}

/// A Pod's status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// Conditions.
    pub conditions: Vec<PodCondition>,
    /// A node a preemption made room on.
    pub nominated_node_name: String,
    /// Start.
    pub start_time: Option<Timestamp>,
    /// By container: for in-place resize what is allocated and actual, and its id.
    pub container_statuses: Vec<ContainerStatus>,
    /// The same of init containers; sidecars can be resized, too.
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Allocated requests of the pod as a whole, where its spec has any (KEP-5419).
    #[serde(skip_serializing_if = "Resources::is_empty")]
    pub allocated_resources: Resources,
    /// Actual resources of the pod as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// A container's status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Name.
    pub name: String,
    /// The runtime's id of the one that runs, or ran last. `None`: none has been made yet, or its id has
    /// another form.
    #[serde(
        rename = "containerID",
        with = "container_id",
        skip_serializing_if = "Option::is_none"
    )]
    pub container_id: Option<ContainerId>,
    /// Allocated requests.
    pub allocated_resources: Resources,
    /// Actual resources.
    pub resources: Option<ResourceRequirements>,
}

/// A condition of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    /// `PodScheduled`, `Ready`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// E.g. `Unschedulable`, `SchedulingGated`.
    pub reason: String,
    /// Since when.
    pub last_transition_time: Option<Timestamp>,
}

/// The annotation of a static pod's mirror.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

impl Pod {
    /// Whether it has ended for good.
    pub fn is_terminal(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether it is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Whether it is a mirror of a static pod (annotation `kubernetes.io/config.mirror`).
    pub fn is_mirror(&self) -> bool {
        self.metadata.annotations.contains_key(MIRROR)
    }

    /// Whether a DaemonSet or the node itself owns it, so that no node is ever made for it.
    pub fn is_node_bound(&self) -> bool {
        self.metadata
            .owner_references
            .iter()
            .any(|owner| matches!(owner.kind.as_str(), "DaemonSet" | "Node"))
    }

    /// Whether the condition `Ready` is `True`.
    pub fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True")
    }

    /// Whether the scheduler found no node for it: the trigger of provisioning.
    pub fn is_unschedulable(&self) -> bool {
        self.spec.node_name.is_empty()
            && self.status.conditions.iter().any(|c| {
                c.kind == "PodScheduled" && c.status == "False" && c.reason == "Unschedulable"
            })
    }
}
