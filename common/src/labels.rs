//! Well-known label, annotation, taint, finalizer and tag names. The strings are Kubernetes' and
//! Karpenter's interface and are exact.

/// The NodePool a node belongs to (label and EC2 tag).
pub const NODEPOOL: &str = "karpenter.sh/nodepool";
/// `spot`, `on-demand` or `reserved`.
pub const CAPACITY_TYPE: &str = "karpenter.sh/capacity-type";
/// Set to `true` once registered.
pub const REGISTERED: &str = "karpenter.sh/registered";
/// Set to `true` once initialized.
pub const INITIALIZED: &str = "karpenter.sh/initialized";
/// The EC2NodeClass of a node (label and EC2 tag).
pub const NODECLASS: &str = "karpenter.k8s.aws/ec2nodeclass";
/// The NodeClaim of an instance (EC2 tag).
pub const NODECLAIM_TAG: &str = "karpenter.sh/nodeclaim";
/// Zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Region.
pub const REGION: &str = "topology.kubernetes.io/region";
/// Zone id.
pub const ZONE_ID: &str = "topology.k8s.aws/zone-id";
/// Instance type.
pub const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
/// CPU architecture.
pub const ARCH: &str = "kubernetes.io/arch";
/// Operating system.
pub const OS: &str = "kubernetes.io/os";
/// Host name.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// Keeps a node out of load balancers; the value says who set it.
pub const EXCLUDE_FROM_LOAD_BALANCERS: &str =
    "node.kubernetes.io/exclude-from-external-load-balancers";

/// Nodes and pods that must not be disrupted voluntarily.
pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";
/// When a NodeClaim's drain may pass budgets, RFC 3339.
pub const TERMINATION_TIMESTAMP: &str = "karpenter.sh/nodeclaim-termination-timestamp";
/// Which disruption a Node is drained for (annotation). An agent starts a voluntary drain only
/// while this bears the directive's id.
pub const DISRUPTION: &str = "drover.dev/disruption";
/// Who cordoned a node, why and until when (annotation, JSON).
pub const CORDONED: &str = "drover.dev/cordoned";

/// Taint (NoSchedule) of a node that is being disrupted.
pub const DISRUPTED_TAINT: &str = "karpenter.sh/disrupted";
/// Taint (NoExecute) a node registers with, removed when its labels are synced.
pub const UNREGISTERED_TAINT: &str = "karpenter.sh/unregistered";
/// Finalizer on NodeClaims and Nodes.
pub const TERMINATION_FINALIZER: &str = "karpenter.sh/termination";
/// Finalizer on EC2NodeClasses.
pub const NODECLASS_FINALIZER: &str = "karpenter.k8s.aws/termination";

/// EC2 tag: the intent that launched an instance.
pub const INTENT_TAG: &str = "drover.dev/intent";
/// EC2 tag: the kube-system namespace's UID; an instance of another cluster is never touched.
pub const CLUSTER_UID_TAG: &str = "drover.dev/cluster-uid";
/// EC2 tag: the cluster's name.
pub const CLUSTER_NAME_TAG: &str = "eks:eks-cluster-name";
