//! CapacityBuffer (`autoscaling.x-k8s.io/v1beta1`): room that is kept free for pods to come.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, RawResources, schema};

/// The only strategy that Drover carries out.
pub const ACTIVE_CAPACITY: &str = "buffer.x-k8s.io/active-capacity";

/// Room that is kept free for pods to come.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "autoscaling.x-k8s.io",
    version = "v1beta1",
    kind = "CapacityBuffer",
    plural = "capacitybuffers",
    shortname = "cb",
    namespaced,
    status = "CapacityBufferStatus",
    printcolumn(name = "Strategy", type_ = "string", json_path = ".status.provisioningStrategy"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ReadyForProvisioning")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    derive = "PartialEq",
    doc = "Room that is kept free for pods to come."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    (
        "has(self.podTemplateRef) != has(self.scalableRef)",
        "exactly one of podTemplateRef and scalableRef is needed",
    ),
    (
        "!has(self.podTemplateRef) || has(self.replicas) || has(self.limits)",
        "podTemplateRef needs replicas or limits",
    ),
])))]
pub struct CapacityBufferSpec {
    /// How the room is had.
    #[serde(default = "active_capacity")]
    pub provisioning_strategy: String,
    /// A PodTemplate that says what a pod to come is like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template_ref: Option<NameReference>,
    /// A workload whose pods are like those to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scalable_ref: Option<ScalableReference>,
    /// Room for so many pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
    /// Room for so many percent of the workload's replicas, rounded up, at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub percentage: Option<i32>,
    /// The most that the room may add up to.
    #[serde(default, skip_serializing_if = "RawResources::is_empty")]
    pub limits: RawResources,
}

fn active_capacity() -> String {
    ACTIVE_CAPACITY.to_owned()
}

/// An object of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameReference {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
}

/// A workload of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalableReference {
    /// Its API group.
    #[serde(default)]
    pub api_group: String,
    /// `Deployment`, `StatefulSet` or `ReplicaSet`.
    #[schemars(length(min = 1))]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
}

/// What a buffer came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacityBufferStatus {
    /// The strategy that is carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning_strategy: Option<String>,
    /// The PodTemplate that was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template_ref: Option<NameReference>,
    /// The PodTemplate's generation that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template_generation: Option<i64>,
    /// Room for so many pods is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// ReadyForProvisioning, Provisioning, LimitedByQuotas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl CapacityBufferSpec {
    /// For how many pods room is kept: the larger of `replicas` and `percentage`; where neither is
    /// given, as many as the limits (`most`) allow; never more than those.
    pub fn wanted(&self, workload_replicas: i32, most: Option<i32>) -> i32 {
        let of_workload = self.percentage.map(|percent| {
            let share = i64::from(workload_replicas.max(0)) * i64::from(percent.max(0));
            i32::try_from((share + 99) / 100).unwrap_or(i32::MAX).max(i32::from(percent > 0))
        });
        let asked = self.replicas.max(of_workload);
        match (asked, most) {
            (Some(asked), Some(most)) => asked.min(most).max(0),
            (Some(asked), None) => asked.max(0),
            (None, most) => most.unwrap_or(0).max(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_number_and_share_is_wanted_within_limits() {
        for (replicas, percentage, workload, most, expected) in [
            (Some(3), None, 0, None, 3),
            (None, Some(20), 10, None, 2),
            (None, Some(5), 10, None, 1),
            (Some(3), Some(50), 10, None, 5),
            (Some(9), None, 0, Some(4), 4),
            (None, None, 0, Some(4), 4),
            (None, None, 0, None, 0),
            (Some(0), None, 0, None, 0),
        ] {
            let spec = CapacityBufferSpec { replicas, percentage, ..Default::default() };
            assert_eq!(spec.wanted(workload, most), expected, "{replicas:?} {percentage:?}");
        }
    }
}
