//! NodeClaim (`karpenter.sh/v1`): one node that was asked for.

use jiff::{SignedDuration, Timestamp};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, RawResources, parse_duration, schema};
use crate::requirement::Requirement;
use crate::taint::Taint;

/// What is asked of one node. Immutable once written.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "karpenter.sh",
    version = "v1",
    kind = "NodeClaim",
    plural = "nodeclaims",
    category = "karpenter",
    status = "NodeClaimStatus",
    printcolumn(
        name = "Type",
        type_ = "string",
        json_path = r".metadata.labels.node\.kubernetes\.io/instance-type"
    ),
    printcolumn(
        name = "Capacity",
        type_ = "string",
        json_path = r".metadata.labels.karpenter\.sh/capacity-type"
    ),
    printcolumn(
        name = "Zone",
        type_ = "string",
        json_path = r".metadata.labels.topology\.kubernetes\.io/zone"
    ),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "ImageID", type_ = "string", json_path = ".status.imageID", priority = 1),
    printcolumn(name = "ID", type_ = "string", json_path = ".status.providerID", priority = 1),
    printcolumn(
        name = "NodePool",
        type_ = "string",
        json_path = r".metadata.labels.karpenter\.sh/nodepool",
        priority = 1
    ),
    printcolumn(
        name = "NodeClass",
        type_ = "string",
        json_path = ".spec.nodeClassRef.name",
        priority = 1
    ),
    printcolumn(
        name = "Drifted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Drifted")].status"#,
        priority = 1
    ),
    derive = "PartialEq",
    doc = "One node that was asked for, and what became of it."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("self == oldSelf", "the spec is immutable"),
])))]
pub struct NodeClaimSpec {
    /// Taints of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::taints")]
    pub taints: Vec<Taint>,
    /// Taints of the node that something else removes once it has started; pods need not tolerate
    /// them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::taints")]
    pub startup_taints: Vec<Taint>,
    /// What the node's labels must fulfil.
    #[schemars(schema_with = "schema::claim_requirements")]
    pub requirements: Vec<Requirement>,
    /// What the node must have room for.
    #[serde(default, skip_serializing_if = "ResourceRequirements::is_empty")]
    pub resources: ResourceRequirements,
    /// The class that says how the instance is made.
    pub node_class_ref: NodeClassReference,
    /// How long a drain may take before pods are deleted regardless; waits for ever if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(s|m|h))+$"))]
    pub termination_grace_period: Option<String>,
    /// The node's greatest age, or `Never`.
    #[serde(default = "default_expire_after")]
    #[schemars(regex(pattern = r"^(([0-9]+(s|m|h))+|Never)$"))]
    pub expire_after: String,
}

impl NodeClaimSpec {
    /// The node's greatest age; `None` for `Never`, and for a text that is no duration, so that
    /// nothing expires for a misspelling.
    pub fn expires_after(&self) -> Option<SignedDuration> {
        parse_duration(&self.expire_after)
    }

    /// How long a drain may take; `None` if it may take for ever.
    pub fn drain_deadline(&self) -> Option<SignedDuration> {
        self.termination_grace_period.as_deref().and_then(parse_duration)
    }
}

/// Karpenter's default for `expireAfter`: 30 days.
pub(super) fn default_expire_after() -> String {
    "720h".to_owned()
}

/// Resources a claim must have room for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRequirements {
    /// The sum of the requests of the pods it was made for, and of daemons.
    #[serde(default, skip_serializing_if = "RawResources::is_empty")]
    pub requests: RawResources,
}

impl ResourceRequirements {
    /// Whether nothing is requested.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

/// Names a node class.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("self.group == oldSelf.group", "the group of a nodeClassRef is immutable"),
    ("self.kind == oldSelf.kind", "the kind of a nodeClassRef is immutable"),
])))]
pub struct NodeClassReference {
    /// Kind, `EC2NodeClass`.
    #[schemars(length(min = 1))]
    pub kind: String,
    /// Name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// API group, `karpenter.k8s.aws`.
    #[schemars(length(min = 1), regex(pattern = r"^[^/]+$"))]
    pub group: String,
}

/// What became of a claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeClaimStatus {
    /// The Node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// `aws:///<zone>/<instance id>`.
    #[serde(default, rename = "providerID", skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// The image it runs.
    #[serde(default, rename = "imageID", skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// Estimated capacity of the node, measured once it is registered.
    #[serde(default, skip_serializing_if = "RawResources::is_empty")]
    pub capacity: RawResources,
    /// The part of it that pods may use.
    #[serde(default, skip_serializing_if = "RawResources::is_empty")]
    pub allocatable: RawResources,
    /// Launched, Registered, Initialized, Ready, Consolidatable, Drifted, Drained,
    /// VolumesDetached, InstanceTerminating, ConsistentStateFound, DisruptionReason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// When a pod was last bound, ended or began to end here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::timestamp")]
    pub last_pod_event_time: Option<Timestamp>,
}
