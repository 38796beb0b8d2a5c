//! What a decision may ask a shell to do, and what comes back.
//!
//! Calls are values: the leader's executor and the agent's drain engine produce them, a shell turns
//! each into one request, and the answer returns as an [`Outcome`]. The sandbox's world takes the
//! same calls in process, which is what makes whole-system simulation possible.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ec2::{Ec2Answer, Ec2Call, Ec2Failure};

/// A request to one of the outside parties.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Call {
    /// To the Kubernetes API.
    Kubernetes(KubernetesCall),
    /// To EC2, SSM or Pricing.
    Ec2(Ec2Call),
}

/// The answer to a [`Call`] of the same variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// From the Kubernetes API; the object as it is after the call (`Null` where there is none).
    Kubernetes(Result<Value, KubernetesFailure>),
    /// From EC2, SSM or Pricing.
    Ec2(Result<Ec2Answer, Ec2Failure>),
}

/// The kinds Drover itself reads or writes; group, version and plural are fixed by Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// core/v1 Pod
    Pod,
    /// core/v1 Node
    Node,
    /// core/v1 Namespace
    Namespace,
    /// core/v1 PersistentVolumeClaim
    PersistentVolumeClaim,
    /// core/v1 PersistentVolume
    PersistentVolume,
    /// apps/v1 DaemonSet
    DaemonSet,
    /// apps/v1 ReplicaSet
    ReplicaSet,
    /// apps/v1 StatefulSet
    StatefulSet,
    /// batch/v1 Job
    Job,
    /// policy/v1 PodDisruptionBudget
    PodDisruptionBudget,
    /// storage.k8s.io/v1 StorageClass
    StorageClass,
    /// storage.k8s.io/v1 CSINode
    CsiNode,
    /// storage.k8s.io/v1 VolumeAttachment
    VolumeAttachment,
    /// coordination.k8s.io/v1 Lease
    Lease,
    /// v1 Event: the API of its own for events (`events.k8s.io`) is not granted to kubelets, as whom agents may speak.
    Event,
    /// karpenter.sh/v1 NodePool
    NodePool,
    /// karpenter.sh/v1 NodeClaim
    NodeClaim,
    /// karpenter.k8s.aws/v1 EC2NodeClass
    Ec2NodeClass,
    /// karpenter.sh/v1alpha1 NodeOverlay
    NodeOverlay,
    /// autoscaling.x-k8s.io/v1beta1 CapacityBuffer
    CapacityBuffer,
    /// core/v1 PodTemplate
    PodTemplate,
}

/// Where a [`Kind`] lives in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// API group; empty for core.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// The kind's name.
    pub kind: &'static str,
    /// The path segment.
    pub plural: &'static str,
    /// Whether objects lie in a namespace.
    pub namespaced: bool,
}

impl Kind {
    /// Every kind, in declaration order.
    pub const ALL: [Kind; 21] = [
        Kind::Pod,
        Kind::Node,
        Kind::Namespace,
        Kind::PersistentVolumeClaim,
        Kind::PersistentVolume,
        Kind::DaemonSet,
        Kind::ReplicaSet,
        Kind::StatefulSet,
        Kind::Job,
        Kind::PodDisruptionBudget,
        Kind::StorageClass,
        Kind::CsiNode,
        Kind::VolumeAttachment,
        Kind::Lease,
        Kind::Event,
        Kind::NodePool,
        Kind::NodeClaim,
        Kind::Ec2NodeClass,
        Kind::NodeOverlay,
        Kind::CapacityBuffer,
        Kind::PodTemplate,
    ];

    /// Group, version, kind, plural and scope.
    pub const fn endpoint(self) -> Endpoint {
        let (group, kind, plural, namespaced) = match self {
            Kind::Pod => ("", "Pod", "pods", true),
            Kind::Node => ("", "Node", "nodes", false),
            Kind::Namespace => ("", "Namespace", "namespaces", false),
            Kind::PersistentVolumeClaim => {
                ("", "PersistentVolumeClaim", "persistentvolumeclaims", true)
            }
            Kind::PersistentVolume => ("", "PersistentVolume", "persistentvolumes", false),
            Kind::DaemonSet => ("apps", "DaemonSet", "daemonsets", true),
            Kind::ReplicaSet => ("apps", "ReplicaSet", "replicasets", true),
            Kind::StatefulSet => ("apps", "StatefulSet", "statefulsets", true),
            Kind::Job => ("batch", "Job", "jobs", true),
            Kind::PodDisruptionBudget => {
                ("policy", "PodDisruptionBudget", "poddisruptionbudgets", true)
            }
            Kind::StorageClass => ("storage.k8s.io", "StorageClass", "storageclasses", false),
            Kind::CsiNode => ("storage.k8s.io", "CSINode", "csinodes", false),
            Kind::VolumeAttachment => {
                ("storage.k8s.io", "VolumeAttachment", "volumeattachments", false)
            }
            Kind::Lease => ("coordination.k8s.io", "Lease", "leases", true),
            Kind::Event => ("", "Event", "events", true),
            Kind::NodePool => ("karpenter.sh", "NodePool", "nodepools", false),
            Kind::NodeClaim => ("karpenter.sh", "NodeClaim", "nodeclaims", false),
            Kind::Ec2NodeClass => ("karpenter.k8s.aws", "EC2NodeClass", "ec2nodeclasses", false),
            Kind::NodeOverlay => ("karpenter.sh", "NodeOverlay", "nodeoverlays", false),
            Kind::CapacityBuffer => {
                ("autoscaling.x-k8s.io", "CapacityBuffer", "capacitybuffers", true)
            }
            Kind::PodTemplate => ("", "PodTemplate", "podtemplates", true),
        };
        let version = match self {
            Kind::NodeOverlay => "v1alpha1",
            Kind::CapacityBuffer => "v1beta1",
            _ => "v1",
        };
        Endpoint { group, version, kind, plural, namespaced }
    }

    /// Whether leaders and agents follow objects of this kind.
    pub const fn is_watched(self) -> bool {
        !matches!(self, Kind::Lease | Kind::Event)
    }

    /// Whether a cluster may do without the kind: decisions don't wait for its watch.
    pub const fn is_optional(self) -> bool {
        matches!(self, Kind::NodeOverlay | Kind::CapacityBuffer | Kind::PodTemplate | Kind::Job)
    }

    /// `apiVersion` as written in manifests.
    pub fn api_version(self) -> String {
        let endpoint = self.endpoint();
        if endpoint.group.is_empty() {
            endpoint.version.to_owned()
        } else {
            format!("{}/{}", endpoint.group, endpoint.version)
        }
    }
}

/// One object's place in the API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    /// What it is.
    pub kind: Kind,
    /// Its namespace; `None` for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Target {
    /// A cluster-scoped object.
    pub fn cluster(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, namespace: None, name: name.into() }
    }

    /// A namespaced object.
    pub fn namespaced(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: Some(namespace.into()), name: name.into() }
    }
}

/// A request to the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KubernetesCall {
    /// Reads one object.
    Get {
        /// Which.
        target: Target,
    },
    /// Creates an object; fails with [`KubernetesFailureKind::AlreadyExists`] if there is one.
    Create {
        /// Kind and place; the name must be that of the object.
        target: Target,
        /// The whole object as JSON, `apiVersion` and `kind` included.
        object: Value,
    },
    /// A JSON merge patch (RFC 7386). Put `metadata.resourceVersion` and `metadata.uid` into the
    /// patch to make it conditional. Another version fails with [`KubernetesFailureKind::Conflict`]; another
    /// UID with [`KubernetesFailureKind::Invalid`], for an API server takes it for a change of a field that
    /// may not change (`metadata.uid: field is immutable`, apimachinery's `ValidateObjectMetaUpdate`).
    MergePatch {
        /// Which.
        target: Target,
        /// Whether the `status` subresource is patched.
        status: bool,
        /// The patch.
        patch: Value,
    },
    /// Deletes an object (finalizers are honoured).
    Delete {
        /// Which.
        target: Target,
        /// Precondition.
        uid: Option<String>,
        /// Grace for pods, seconds.
        grace_seconds: Option<u32>,
    },
    /// Evicts a pod through `pods/eviction` (policy/v1).
    Evict {
        /// The pod.
        target: Target,
        /// Precondition.
        uid: String,
        /// Grace, seconds; the pod's own if `None`.
        grace_seconds: Option<u32>,
    },
}

/// Why the Kubernetes API did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{kind:?}: {message}")]
pub struct KubernetesFailure {
    /// What a caller branches on.
    pub kind: KubernetesFailureKind,
    /// The server's words.
    pub message: String,
    /// Seconds after which to try again, where the server said so.
    pub retry_after_seconds: Option<u32>,
}

/// The failures that lead to different next steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KubernetesFailureKind {
    /// 404
    NotFound,
    /// 409 on create
    AlreadyExists,
    /// Any other 409: a precondition does not hold
    Conflict,
    /// 429 with cause DisruptionBudget; 403 about the budget: it allows less than none, or waits for too many pods that
    /// were let go already; 409 about the budget: others changed it each time that it was to be charged
    DisruptionBudget,
    /// 429 of API priority and fairness
    TooManyRequests,
    /// 401, and any other 403
    Forbidden,
    /// 403 with cause NamespaceTerminating: nothing is made in a namespace that is being deleted, evictions included. Its
    /// pods are deleted with it
    NamespaceTerminating,
    /// 400 or 422
    Invalid,
    /// 500 on an eviction covered by more than one budget: it can never succeed
    OverlappingBudgets,
    /// Any other 5xx: try again
    ServerError,
    /// No answer: whether it was done is unknown
    Unreachable,
}
