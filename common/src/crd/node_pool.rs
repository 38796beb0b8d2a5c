//! NodePool (`karpenter.sh/v1`): which nodes may be made, and when they may be disrupted.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::node_claim::default_expire_after;
use super::{
    Condition, NodeClaimSpec, NodeClassReference, RawResources, ResourceRequirements,
    parse_duration, schema,
};
use crate::requirement::Requirement;
use crate::taint::Taint;

/// Which nodes may be made.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "karpenter.sh",
    version = "v1",
    kind = "NodePool",
    plural = "nodepools",
    category = "karpenter",
    status = "NodePoolStatus",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.nodes"),
    printcolumn(
        name = "NodeClass",
        type_ = "string",
        json_path = ".spec.template.spec.nodeClassRef.name"
    ),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.weight", priority = 1),
    printcolumn(name = "CPU", type_ = "string", json_path = ".status.resources.cpu", priority = 1),
    printcolumn(
        name = "Memory",
        type_ = "string",
        json_path = ".status.resources.memory",
        priority = 1
    ),
    derive = "PartialEq",
    doc = "Which nodes may be made, and when they may be disrupted."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("!(has(self.weight) && has(self.replicas))", "weight and replicas exclude each other"),
    (
        "has(self.replicas) == has(oldSelf.replicas)",
        "replicas can be neither added nor removed after creation",
    ),
    (
        "!has(self.replicas) || !has(self.limits) || self.limits.size() == 0 || \
         (self.limits.size() == 1 && 'nodes' in self.limits)",
        "with replicas, nodes is the only limit",
    ),
])))]
pub struct NodePoolSpec {
    /// What every node of the pool is like.
    pub template: NodeClaimTemplate,
    /// When nodes may be disrupted.
    #[serde(default)]
    #[schemars(extend("default" = serde_json::json!({"consolidateAfter": "0s"})))]
    pub disruption: Disruption,
    /// The most the pool's nodes may add up to, by resource; `nodes` counts them.
    #[serde(default, skip_serializing_if = "RawResources::is_empty")]
    pub limits: RawResources,
    /// Pools of greater weight are tried first; absent is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: Option<i32>,
    /// Keeps exactly this many nodes, whatever the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i64>,
}

/// The template of a pool's claims.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeClaimTemplate {
    /// Labels and annotations of the nodes.
    #[serde(default, skip_serializing_if = "TemplateMetadata::is_empty")]
    pub metadata: TemplateMetadata,
    /// The claims' spec.
    pub spec: NodeClaimTemplateSpec,
}

/// Labels and annotations of a pool's nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::template_labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl TemplateMetadata {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// What a pool's claims have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeClaimTemplateSpec {
    /// Taints of the nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::taints")]
    pub taints: Vec<Taint>,
    /// Taints of the nodes that something else removes once they have started; pods need not
    /// tolerate them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::taints")]
    pub startup_taints: Vec<Taint>,
    /// What the nodes' labels must fulfil.
    #[schemars(schema_with = "schema::pool_requirements")]
    pub requirements: Vec<Requirement>,
    /// The class that says how instances are made.
    pub node_class_ref: NodeClassReference,
    /// How long a drain may take before pods are deleted regardless; waits for ever if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(s|m|h))+$"))]
    pub termination_grace_period: Option<String>,
    /// The nodes' greatest age, or `Never`.
    #[serde(default = "default_expire_after")]
    #[schemars(regex(pattern = r"^(([0-9]+(s|m|h))+|Never)$"))]
    pub expire_after: String,
}

impl NodeClaimTemplateSpec {
    /// The spec of one claim of this template, for these requirements and requests.
    pub fn claim(&self, requirements: Vec<Requirement>, requests: RawResources) -> NodeClaimSpec {
        NodeClaimSpec {
            taints: self.taints.clone(),
            startup_taints: self.startup_taints.clone(),
            requirements,
            resources: ResourceRequirements { requests },
            node_class_ref: self.node_class_ref.clone(),
            termination_grace_period: self.termination_grace_period.clone(),
            expire_after: self.expire_after.clone(),
        }
    }
}

/// When a pool's nodes may be disrupted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// How long a node must be free of pod changes before it may be consolidated, or `Never`.
    #[serde(default = "default_consolidate_after")]
    #[schemars(regex(pattern = r"^(([0-9]+(s|m|h))+|Never)$"))]
    pub consolidate_after: String,
    /// Which nodes may be consolidated.
    #[serde(default)]
    pub consolidation_policy: ConsolidationPolicy,
    /// How many nodes may be disrupted at a time; the smallest active one counts.
    #[serde(default = "default_budgets")]
    #[schemars(length(max = 50), extend("x-kubernetes-validations" = schema::rules(&[(
        "self.all(x, has(x.schedule) == has(x.duration))",
        "a budget has both schedule and duration, or neither",
    )])))]
    pub budgets: Vec<Budget>,
}

impl Default for Disruption {
    fn default() -> Self {
        Self {
            consolidate_after: default_consolidate_after(),
            consolidation_policy: ConsolidationPolicy::default(),
            budgets: default_budgets(),
        }
    }
}

impl Disruption {
    /// How long a node must be free of pod changes; `None` for `Never`, and for a text that is no
    /// duration, so that nothing is consolidated for a misspelling.
    pub fn consolidates_after(&self) -> Option<SignedDuration> {
        parse_duration(&self.consolidate_after)
    }
}

fn default_consolidate_after() -> String {
    "0s".to_owned()
}

fn default_budgets() -> Vec<Budget> {
    vec![Budget { nodes: default_budget_nodes(), ..Budget::default() }]
}

fn default_budget_nodes() -> String {
    "10%".to_owned()
}

/// Which nodes consolidation may touch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum ConsolidationPolicy {
    /// Nodes without pods that would have to move.
    WhenEmpty,
    /// Those, and nodes whose pods fit elsewhere or on cheaper nodes.
    #[default]
    WhenEmptyOrUnderutilized,
    /// The same, where the savings are worth the moves.
    Balanced,
}

/// A limit on how many nodes may be disrupted at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// A number of nodes, or a percentage of the pool's (rounded up).
    #[serde(default = "default_budget_nodes")]
    #[schemars(regex(pattern = r"^((100|[0-9]{1,2})%|[0-9]+)$"))]
    pub nodes: String,
    /// The reasons it limits; all if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub reasons: Vec<DisruptionReason>,
    /// When it begins to be active, cron in UTC; always active if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(
        pattern = r"^(@(annually|yearly|monthly|weekly|daily|midnight|hourly))|((.+)\s(.+)\s(.+)\s(.+)\s(.+))$"
    ))]
    pub schedule: Option<String>,
    /// How long it is active from each such time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^((([0-9]+(h|m))|([0-9]+h[0-9]+m))(0s)?)$"))]
    pub duration: Option<String>,
}

/// The disruptions that budgets limit.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum DisruptionReason {
    /// Consolidation of nodes with pods.
    Underutilized,
    /// Removal of nodes without pods.
    Empty,
    /// Replacement of nodes that no longer match pool or class.
    Drifted,
}

/// What a pool adds up to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePoolStatus {
    /// The sum of its nodes' capacities.
    #[serde(default, skip_serializing_if = "RawResources::is_empty")]
    pub resources: RawResources,
    /// How many nodes it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = 0))]
    pub nodes: Option<i64>,
    /// The class's generation when the registration health was last reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_class_observed_generation: Option<i64>,
    /// Ready, ValidationSucceeded, NodeClassReady, NodeRegistrationHealthy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
