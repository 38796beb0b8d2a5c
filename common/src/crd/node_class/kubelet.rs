//! Kubelet settings of an EC2NodeClass.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::schema;

/// Kubelet settings. Those that change scheduling are typed; any other key of Kubernetes'
/// KubeletConfiguration is kept and passed on where the image family can take it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    (
        "has(self.evictionSoft) == has(self.evictionSoftGracePeriod)",
        "evictionSoft and evictionSoftGracePeriod need each other",
    ),
    (
        "!has(self.evictionSoft) || !has(self.evictionSoftGracePeriod) || \
         (self.evictionSoft.all(k, k in self.evictionSoftGracePeriod) && \
         self.evictionSoftGracePeriod.all(k, k in self.evictionSoft))",
        "evictionSoft and evictionSoftGracePeriod name the same signals",
    ),
    (
        "!has(self.imageGCHighThresholdPercent) || !has(self.imageGCLowThresholdPercent) || \
         self.imageGCHighThresholdPercent > self.imageGCLowThresholdPercent",
        "imageGCHighThresholdPercent is greater than imageGCLowThresholdPercent",
    ),
])))]
pub struct KubeletConfiguration {
    /// Addresses of the cluster's DNS.
    #[serde(default, rename = "clusterDNS", skip_serializing_if = "Vec::is_empty")]
    pub cluster_dns: Vec<String>,
    /// The most pods a node may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_pods: Option<u32>,
    /// The most pods a node may run for each of its cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub pods_per_core: Option<u32>,
    /// Set aside for the system: cpu, memory, ephemeral-storage, pid.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::reserved")]
    pub system_reserved: BTreeMap<String, String>,
    /// Set aside for Kubernetes' daemons: cpu, memory, ephemeral-storage, pid.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::reserved")]
    pub kube_reserved: BTreeMap<String, String>,
    /// Below which amounts pods are evicted at once, by signal; a quantity or a percentage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::by_eviction_signal")]
    pub eviction_hard: BTreeMap<String, String>,
    /// Below which amounts pods are evicted after a grace period, by signal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::by_eviction_signal")]
    pub eviction_soft: BTreeMap<String, String>,
    /// Those grace periods, by signal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::by_eviction_signal")]
    pub eviction_soft_grace_period: BTreeMap<String, String>,
    /// The most grace a pod gets in a soft eviction, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction_max_pod_grace_period: Option<i32>,
    /// Disk use in percent above which images are always collected.
    #[serde(
        default,
        rename = "imageGCHighThresholdPercent",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0, max = 100))]
    pub image_gc_high_threshold_percent: Option<i32>,
    /// Disk use in percent below which images are never collected.
    #[serde(
        default,
        rename = "imageGCLowThresholdPercent",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0, max = 100))]
    pub image_gc_low_threshold_percent: Option<i32>,
    /// Whether CPU limits are enforced.
    #[serde(default, rename = "cpuCFSQuota", skip_serializing_if = "Option::is_none")]
    pub cpu_cfs_quota: Option<bool>,
    /// Any other key.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}
