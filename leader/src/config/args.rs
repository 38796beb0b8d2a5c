//! The flags of `drover-leader`.

use std::net::SocketAddr;
use std::path::PathBuf;

/// One replica of the leader group.
///
/// Every flag can be given as an environment variable; the flag wins.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// This replica: its number in the peer list, or a StatefulSet pod's name (`…-0` is replica 1).
    #[arg(long, env = "DROVER_NODE_ID", default_value = "1", value_name = "ID")]
    pub node_id: String,
    /// All replicas, this one included: `1=host:raft-port/api-port,2=…`, or with a host of its own
    /// for the API: `1=host:port/host:port`. Without it this replica is a group of its own.
    #[arg(long, env = "DROVER_PEERS", value_name = "LIST")]
    pub peers: Option<String>,
    /// Where the other replicas reach this one.
    #[arg(
        long,
        env = "DROVER_RAFT_LISTEN",
        default_value = "0.0.0.0:7400",
        value_name = "ADDRESS"
    )]
    pub raft_listen: SocketAddr,
    /// Where agents and operators reach this replica.
    #[arg(long, env = "DROVER_API_LISTEN", default_value = "0.0.0.0:7401", value_name = "ADDRESS")]
    pub api_listen: SocketAddr,
    /// This replica's certificate for Raft (PEM), which its peers check: it must name the host that
    /// the peer list gives it, for server and client use. Read anew when it changes.
    #[arg(long, env = "DROVER_RAFT_CERT", value_name = "FILE")]
    pub raft_cert: Option<PathBuf>,
    /// The certificate's key (PEM).
    #[arg(long, env = "DROVER_RAFT_KEY", value_name = "FILE")]
    pub raft_key: Option<PathBuf>,
    /// The authority of the replicas' certificates (PEM). Whoever holds one of its certificates is
    /// taken for a replica: give it no other use.
    #[arg(long, env = "DROVER_RAFT_CA", value_name = "FILE")]
    pub raft_ca: Option<PathBuf>,
    /// Speak Raft without certificates. Whoever reaches the Raft address can then take the cluster
    /// over: for loopback and tests alone.
    #[arg(long, env = "DROVER_RAFT_INSECURE", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    pub raft_insecure: bool,
    /// The API's certificate (PEM); without one the API speaks HTTP. Read anew when it changes.
    #[arg(long, env = "DROVER_API_CERT", value_name = "FILE")]
    pub api_cert: Option<PathBuf>,
    /// The certificate's key (PEM).
    #[arg(long, env = "DROVER_API_KEY", value_name = "FILE")]
    pub api_key: Option<PathBuf>,
    /// The authority by which replicas know each other's API; that of Raft by default.
    #[arg(long, env = "DROVER_API_CA", value_name = "FILE")]
    pub api_ca: Option<PathBuf>,
    /// Believe agents and operators without a token. Whoever reaches the API can then report notices
    /// for any node: for loopback and tests alone.
    #[arg(long, env = "DROVER_API_INSECURE", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    pub api_insecure: bool,
    /// The service account that agents run as.
    #[arg(
        long,
        env = "DROVER_AGENT_ACCOUNT",
        default_value = "drover-system/drover-agent",
        value_name = "NAMESPACE/NAME"
    )]
    pub agent_account: String,
    /// The volume for log and snapshots.
    #[arg(long, env = "DROVER_DATA_DIR", default_value = "/var/lib/drover", value_name = "FOLDER")]
    pub data_dir: PathBuf,

    /// The kubeconfig; without it the environment's or the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The cluster's name, as on instance tags.
    #[arg(long, env = "CLUSTER_NAME", default_value = "", value_name = "NAME")]
    pub cluster_name: String,
    /// The API server's address that new nodes join.
    #[arg(long, env = "CLUSTER_ENDPOINT", default_value = "", value_name = "URL")]
    pub cluster_endpoint: String,
    /// The API server's CA bundle for new nodes, base64.
    #[arg(long, env = "CLUSTER_CA_BUNDLE", default_value = "", value_name = "BASE64")]
    pub cluster_ca_bundle: String,
    /// The Kubernetes version of new nodes' images, `major.minor`; the API server's by default.
    #[arg(long, env = "KUBERNETES_VERSION", default_value = "", value_name = "VERSION")]
    pub kubernetes_version: String,
    /// The services' address range, which new nodes derive their DNS address from.
    #[arg(long, env = "SERVICE_CIDR", value_name = "CIDR")]
    pub service_cidr: Option<String>,
    /// Requests a second to the Kubernetes API.
    #[arg(long, env = "KUBE_CLIENT_QPS", default_value_t = 200, value_name = "COUNT")]
    pub kube_client_qps: u32,
    /// Requests to the Kubernetes API that may come at once.
    #[arg(long, env = "KUBE_CLIENT_BURST", default_value_t = 300, value_name = "COUNT")]
    pub kube_client_burst: u32,

    /// The AWS region.
    #[arg(long, env = "AWS_REGION", default_value = "", value_name = "REGION")]
    pub aws_region: String,
    /// Where EC2, SSM, Pricing and SQS are, if not at AWS.
    #[arg(long, env = "AWS_ENDPOINT_URL", value_name = "URL")]
    pub aws_endpoint_url: Option<String>,
    /// Where EC2 is, if not at AWS.
    #[arg(long, env = "AWS_ENDPOINT_URL_EC2", value_name = "URL")]
    pub aws_endpoint_url_ec2: Option<String>,
    /// Where SSM is, if not at AWS.
    #[arg(long, env = "AWS_ENDPOINT_URL_SSM", value_name = "URL")]
    pub aws_endpoint_url_ssm: Option<String>,
    /// Where Pricing is, if not at AWS.
    #[arg(long, env = "AWS_ENDPOINT_URL_PRICING", value_name = "URL")]
    pub aws_endpoint_url_pricing: Option<String>,
    /// Where SQS is, if not at AWS.
    #[arg(long, env = "AWS_ENDPOINT_URL_SQS", value_name = "URL")]
    pub aws_endpoint_url_sqs: Option<String>,
    /// Where the instance metadata service is, if not at its link-local address.
    #[arg(long, env = "AWS_EC2_METADATA_SERVICE_ENDPOINT", value_name = "URL")]
    pub aws_ec2_metadata_service_endpoint: Option<String>,
    /// An access key; without it the SDK's usual chain (environment, profile, web identity,
    /// container, metadata service).
    #[arg(long, value_name = "KEY")]
    pub aws_access_key_id: Option<String>,
    /// The access key's secret.
    #[arg(long, value_name = "SECRET")]
    pub aws_secret_access_key: Option<String>,

    /// An SQS queue, by name or URL, that EventBridge tells of interruptions, state changes and AWS Health
    /// events. Agents hear of interruptions without one.
    #[arg(long, env = "INTERRUPTION_QUEUE", default_value = "", value_name = "QUEUE")]
    pub interruption_queue: String,

    /// A batch of pending pods is planned at the latest so long after its first.
    #[arg(long, env = "BATCH_MAX_DURATION", default_value = "1s", value_name = "DURATION")]
    pub batch_max_duration: String,
    /// A batch of pending pods is planned when none came for so long.
    #[arg(long, env = "BATCH_IDLE_DURATION", default_value = "100ms", value_name = "DURATION")]
    pub batch_idle_duration: String,
    /// The fraction of an instance's memory that its hypervisor keeps.
    #[arg(
        long,
        env = "VM_MEMORY_OVERHEAD_PERCENT",
        default_value_t = 0.075,
        value_name = "FRACTION"
    )]
    pub vm_memory_overhead_percent: f64,
    /// Network interfaces that are not for pods.
    #[arg(long, env = "RESERVED_ENIS", default_value_t = 0, value_name = "COUNT")]
    pub reserved_enis: u32,
    /// Whether pods' preferences count: Respect or Ignore.
    #[arg(long, env = "PREFERENCE_POLICY", default_value = "Respect", value_name = "POLICY")]
    pub preference_policy: String,
    /// What happens where minValues can't be met: Strict or BestEffort.
    #[arg(long, env = "MIN_VALUES_POLICY", default_value = "Strict", value_name = "POLICY")]
    pub min_values_policy: String,
    /// The largest node, in vCPUs, unless a pod fits on none that is smaller: what is lost with one node.
    #[arg(long, env = "DROVER_MAX_NODE_VCPUS", default_value_t = 32, value_name = "COUNT")]
    pub max_node_vcpus: u32,
    /// Lets an independent check judge each plan before it is acted on; one that breaks a rule is logged,
    /// counted, and not acted on. It goes pod by pod, and passes over plans of more than 2,000 pods.
    #[arg(
        long,
        env = "DROVER_CHECK_PLANS",
        default_value_t = false,
        default_missing_value = "true",
        num_args = 0..=1,
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    pub check_plans: bool,
    /// Karpenter's feature gates as `Name=true,…`. Both that are known are true unless said otherwise:
    /// ReservedCapacity (capacity reservations that classes select are used) and
    /// SpotToSpotConsolidation (spot replaces spot that has 15 cheaper types to become).
    #[arg(long, env = "FEATURE_GATES", default_value = "", value_name = "GATES")]
    pub feature_gates: String,
    /// How often nodes that hold pods are looked at for consolidation; each node of the cluster adds
    /// 10 ms.
    #[arg(
        long,
        env = "DROVER_CONSOLIDATION_PERIOD",
        default_value = "10s",
        value_name = "DURATION"
    )]
    pub consolidation_period: String,
    /// Nodes that hold pods are not consolidated before they have been ready for so long.
    #[arg(
        long,
        env = "DROVER_CONSOLIDATION_MIN_NODE_AGE",
        default_value = "10m",
        value_name = "DURATION"
    )]
    pub consolidation_min_node_age: String,
    /// Replacements must save so much of what they replace, in percent, whatever they become.
    #[arg(
        long,
        env = "DROVER_CONSOLIDATION_MIN_SAVING_PERCENT",
        default_value_t = 10,
        value_name = "PERCENT"
    )]
    pub consolidation_min_saving_percent: u32,
    /// Drive the cluster without holding Karpenter's lease.
    #[arg(
        long,
        env = "DISABLE_LEADER_ELECTION",
        default_value_t = false,
        num_args = 0..=1,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    pub disable_leader_election: bool,
    /// The lease that keeps two drivers from one cluster.
    #[arg(
        long,
        env = "LEADER_ELECTION_NAME",
        default_value = "karpenter-leader-election",
        value_name = "NAME"
    )]
    pub leader_election_name: String,
    /// The lease's namespace.
    #[arg(
        long,
        env = "LEADER_ELECTION_NAMESPACE",
        default_value = "kube-system",
        value_name = "NAMESPACE"
    )]
    pub leader_election_namespace: String,

    /// Serve /metrics on this port, too.
    #[arg(long, env = "METRICS_PORT", value_name = "PORT")]
    pub metrics_port: Option<u16>,
    /// Serve /healthz and /readyz on this port, too.
    #[arg(long, env = "HEALTH_PROBE_PORT", value_name = "PORT")]
    pub health_probe_port: Option<u16>,
    /// A level (error, warn, info, debug, trace) or tracing directives.
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// Log one JSON object a line.
    #[arg(
        long,
        env = "LOG_JSON",
        default_value_t = false,
        num_args = 0..=1,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    pub log_json: bool,

    /// How often the Raft leader shows that it lives.
    #[arg(long, env = "DROVER_RAFT_HEARTBEAT", default_value = "100ms", value_name = "DURATION")]
    pub raft_heartbeat: String,
    /// The shortest silence after which a replica stands for election.
    #[arg(
        long,
        env = "DROVER_RAFT_ELECTION_MIN",
        default_value = "500ms",
        value_name = "DURATION"
    )]
    pub raft_election_min: String,
    /// The longest such silence.
    #[arg(long, env = "DROVER_RAFT_ELECTION_MAX", default_value = "1s", value_name = "DURATION")]
    pub raft_election_max: String,
    /// How long a leader without a quorum is silent before it tries again.
    #[arg(long, env = "DROVER_RAFT_QUORUM_PROBE", default_value = "2s", value_name = "DURATION")]
    pub raft_quorum_probe: String,
    /// How long sending a snapshot may take.
    #[arg(
        long,
        env = "DROVER_RAFT_SNAPSHOT_TIMEOUT",
        default_value = "20s",
        value_name = "DURATION"
    )]
    pub raft_snapshot_timeout: String,
    /// Take a snapshot after so many log entries.
    #[arg(
        long,
        env = "DROVER_RAFT_SNAPSHOT_ENTRIES",
        default_value_t = 2_000,
        value_name = "COUNT"
    )]
    pub raft_snapshot_entries: u64,
}
