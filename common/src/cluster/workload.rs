//! Workload owners, namespaces and disruption budgets.

use serde::{Deserialize, Serialize};

use super::{LabelSelector, Metadata, PodCondition, PodSpec};

/// A DaemonSet: its pods take room on every node they match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSet {
    /// Metadata.
    pub metadata: Metadata,
    /// Spec.
    pub spec: TemplateSpec,
}

/// A ReplicaSet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSet {
    /// Metadata.
    pub metadata: Metadata,
    /// Spec.
    pub spec: TemplateSpec,
    /// Status.
    pub status: ReplicaStatus,
}

/// A StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSet {
    /// Metadata.
    pub metadata: Metadata,
    /// Spec.
    pub spec: TemplateSpec,
    /// Status.
    pub status: ReplicaStatus,
}

/// Replicas and template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TemplateSpec {
    /// Wanted replicas; 1 if absent, unused by DaemonSets.
    pub replicas: Option<i32>,
    /// `Parallel` or `OrderedReady` (default), of StatefulSets.
    pub pod_management_policy: String,
    /// The pod template.
    pub template: PodTemplate,
}

/// A pod template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Labels and annotations of the pods.
    pub metadata: Metadata,
    /// Their spec.
    pub spec: PodSpec,
}

/// A PodTemplate object: a CapacityBuffer may name one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamedPodTemplate {
    /// Metadata.
    pub metadata: Metadata,
    /// The template.
    pub template: PodTemplate,
}

/// Replicas that exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaStatus {
    /// Created so far.
    pub replicas: i32,
    /// Conditions; `ReplicaFailure` of ReplicaSets.
    pub conditions: Vec<PodCondition>,
}

/// A Job: it makes pods until enough have succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Job {
    /// Metadata.
    pub metadata: Metadata,
    /// Spec.
    pub spec: JobSpec,
    /// Status.
    pub status: JobStatus,
}

/// How many pods a Job wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobSpec {
    /// At once; 1 if absent.
    pub parallelism: Option<i32>,
    /// That succeed; if absent, one that has ends the Job.
    pub completions: Option<i32>,
    /// Whether it makes none for now.
    pub suspend: bool,
}

/// How far a Job is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus {
    /// Pods that have succeeded.
    pub succeeded: i32,
}

impl Job {
    /// Pods that it wants to run now.
    pub fn wanted(&self) -> i32 {
        let parallelism = self.spec.parallelism.unwrap_or(1).max(0);
        let succeeded = self.status.succeeded.max(0);
        match self.spec.completions {
            _ if self.spec.suspend => 0,
            Some(completions) => parallelism.min(completions.saturating_sub(succeeded)).max(0),
            None if succeeded > 0 => 0,
            None => parallelism,
        }
    }
}

/// A Namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespace {
    /// Metadata.
    pub metadata: Metadata,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodDisruptionBudget {
    /// Metadata.
    pub metadata: Metadata,
    /// Spec.
    pub spec: BudgetSpec,
    /// Status.
    pub status: BudgetStatus,
}

/// A budget's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetSpec {
    /// Pods covered; none if absent, all in the namespace if empty.
    pub selector: Option<LabelSelector>,
    /// `IfHealthyBudget` (default) or `AlwaysAllow`.
    pub unhealthy_pod_eviction_policy: Option<String>,
}

/// A budget's status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetStatus {
    /// Evictions allowed now.
    pub disruptions_allowed: i32,
    /// Ready pods.
    pub current_healthy: i32,
    /// Ready pods wanted.
    pub desired_healthy: i32,
    /// Pods counted.
    pub expected_pods: i32,
    /// Spec generation it was computed for.
    pub observed_generation: i64,
}

/// A PriorityClass: what a pod's `priorityClassName` stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PriorityClass {
    /// Metadata.
    pub metadata: Metadata,
    /// The priority.
    pub value: i32,
    /// Whether pods that name no class get it.
    pub global_default: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_wants_what_is_left_of_it() {
        let wanted = |parallelism, completions, succeeded, suspend| {
            let spec = JobSpec { parallelism, completions, suspend };
            Job { spec, status: JobStatus { succeeded }, ..Job::default() }.wanted()
        };
        assert_eq!(wanted(None, None, 0, false), 1);
        assert_eq!(wanted(Some(8), Some(20), 5, false), 8);
        assert_eq!(wanted(Some(8), Some(20), 15, false), 5);
        assert_eq!(wanted(Some(8), Some(20), 30, false), 0);
        assert_eq!(wanted(Some(8), None, 1, false), 0, "a work queue that is done");
        assert_eq!(wanted(Some(8), Some(20), 0, true), 0);
        assert_eq!(wanted(Some(i32::MIN), Some(i32::MIN), i32::MAX, false), 0);
    }
}
