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
/// When that disruption's drain may pass budgets, RFC 3339 (annotation); without it, never.
pub const DISRUPTION_DEADLINE: &str = "drover.dev/disruption-deadline";
/// Why that disruption (annotation): the kind of the notice that it follows, as
/// [`crate::protocol::NoticeKind::name`] has it, or Karpenter's word for the reason.
pub const DISRUPTION_REASON: &str = "drover.dev/disruption-reason";
/// What a NodePool wants of a rebalance recommendation (annotation): `ignore`, `replace` or `drain`.
pub const REBALANCE: &str = "drover.dev/rebalance";
/// Who cordoned a node, why and until when (annotation, JSON).
pub const CORDONED: &str = "drover.dev/cordoned";
/// The instance for whose end the leaders put [`OUT_OF_SERVICE_TAINT`] on a Node (annotation).
pub const OUT_OF_SERVICE: &str = "drover.dev/out-of-service";
/// Annotation of a Node: the nonce by which its agent proves to the leaders whose it is.
pub const AGENT_NONCE: &str = "drover.dev/agent-nonce";

/// Taint (NoSchedule) of a node that is being disrupted.
pub const DISRUPTED_TAINT: &str = "karpenter.sh/disrupted";
/// Taint (PreferNoSchedule) of a node that consolidation would take down when its time comes.
pub const CANDIDATE_TAINT: &str = "drover.dev/consolidation-candidate";
/// Taint (PreferNoSchedule) of a node that EC2 recommends to leave.
pub const REBALANCE_TAINT: &str = "drover.dev/rebalance-recommended";
/// Taint (NoExecute) of a node whose machine is known to be off: its pods and volumes are waited for no longer.
pub const OUT_OF_SERVICE_TAINT: &str = "node.kubernetes.io/out-of-service";
/// That taint's value.
pub const OUT_OF_SERVICE_VALUE: &str = "nodeshutdown";
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

/// The capacity reservation of a reserved node.
pub const RESERVATION_ID: &str = "karpenter.k8s.aws/capacity-reservation-id";
/// `default` or `capacity-block`.
pub const RESERVATION_TYPE: &str = "karpenter.k8s.aws/capacity-reservation-type";
/// Whether the reservation's owner may take its instances back: `true` or `false`.
pub const RESERVATION_INTERRUPTIBLE: &str = "karpenter.k8s.aws/capacity-reservation-interruptible";
/// The labels that reserved nodes alone have.
pub const RESERVATION_LABELS: [&str; 3] =
    [RESERVATION_ID, RESERVATION_TYPE, RESERVATION_INTERRUPTIBLE];

/// Windows build of an image.
pub const WINDOWS_BUILD: &str = "node.kubernetes.io/windows-build";
/// Prefix of Karpenter's AWS labels.
pub const AWS_PREFIX: &str = "karpenter.k8s.aws/";

/// The names after [`AWS_PREFIX`] that instance types and offerings define.
const AWS_WELL_KNOWN: [&str; 28] = [
    "capacity-reservation-id",
    "capacity-reservation-interruptible",
    "capacity-reservation-type",
    "instance-accelerator-count",
    "instance-accelerator-manufacturer",
    "instance-accelerator-name",
    "instance-capability-flex",
    "instance-category",
    "instance-cpu",
    "instance-cpu-manufacturer",
    "instance-cpu-sustained-clock-speed-mhz",
    "instance-ebs-bandwidth",
    "instance-encryption-in-transit-supported",
    "instance-family",
    "instance-generation",
    "instance-gpu-count",
    "instance-gpu-manufacturer",
    "instance-gpu-memory",
    "instance-gpu-name",
    "instance-hypervisor",
    "instance-local-nvme",
    "instance-memory",
    "instance-network-bandwidth",
    "instance-size",
    "instance-tenancy",
    "nitro-sandbox",
    "placement-group-id",
    "placement-group-partition",
];

/// Every label of Karpenter's AWS domain that users may name, in order.
pub fn aws_labels() -> Vec<String> {
    let defined = AWS_WELL_KNOWN.iter().map(|name| format!("{AWS_PREFIX}{name}"));
    let mut all: Vec<String> = defined.chain([NODECLASS.to_owned()]).collect();
    all.sort();
    all
}

/// Whether users may not name `key` among a NodePool's template labels and requirements: the domains that
/// Karpenter keeps for itself, but for the labels that it documents there. The CRDs' CEL rules say the same.
pub fn is_restricted(key: &str) -> bool {
    let domain = key.split('/').next().unwrap_or_default();
    if domain.ends_with("karpenter.sh") {
        return key != CAPACITY_TYPE;
    }
    if domain.ends_with("karpenter.k8s.aws") {
        return key != NODECLASS && !is_well_known(key);
    }
    key == HOSTNAME
}

/// Whether `key` is a label that instance types, offerings or NodePools define by themselves, so
/// that a pod may ask for it though its NodePool does not name it.
pub fn is_well_known(key: &str) -> bool {
    match key.strip_prefix(AWS_PREFIX) {
        Some(name) => AWS_WELL_KNOWN.contains(&name),
        None => matches!(
            key,
            NODEPOOL
                | CAPACITY_TYPE
                | ZONE
                | REGION
                | ZONE_ID
                | INSTANCE_TYPE
                | ARCH
                | OS
                | WINDOWS_BUILD
        ),
    }
}

/// The stable name of a label whose beta name is still accepted; any other key as it is.
pub fn stable_name(key: &str) -> &str {
    match key {
        "failure-domain.beta.kubernetes.io/zone" => ZONE,
        "failure-domain.beta.kubernetes.io/region" => REGION,
        "beta.kubernetes.io/arch" => ARCH,
        "beta.kubernetes.io/os" => OS,
        "beta.kubernetes.io/instance-type" => INSTANCE_TYPE,
        // The EBS driver's own name of the zone, on volumes and in storage classes.
        "topology.ebs.csi.aws.com/zone" => ZONE,
        other => other,
    }
}
