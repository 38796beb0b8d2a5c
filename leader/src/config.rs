//! Flags and environment variables → a checked [`Config`].
//!
//! Where Karpenter has a setting of the same meaning its variable's name is taken, so that a
//! Deployment's environment can be moved over as it is.

mod args;
pub mod gates;
mod peers;
mod security;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use drover_core::control::{LeaseSettings, Settings};
use drover_core::nodeclass::ClusterSettings;
use drover_core::planner::{MinValuesPolicy, PlannerSettings, PreferencePolicy, RepackSettings};
use drover_raft::{GroupConfig, Peer, ReplicaId, Timings};
use drover_tls::CertificateFiles;
use jiff::SignedDuration;

pub use args::Args;
pub use security::{AccountName, RaftSecurity};

/// The settings of one replica, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its part in the group.
    pub group: GroupConfig,
    /// Where its Raft listener binds.
    pub raft_listen: SocketAddr,
    /// How its peers are known.
    pub raft_security: RaftSecurity,
    /// The API's certificate; it speaks HTTP without one.
    pub api_certificate: Option<CertificateFiles>,
    /// The service account of agents; everybody is believed if `None`.
    pub agent_account: Option<AccountName>,
    /// Where its API binds.
    pub api_listen: SocketAddr,
    /// Where `/metrics` is served besides the API.
    pub metrics_listen: Option<SocketAddr>,
    /// Where `/healthz` and `/readyz` are served besides the API.
    pub health_listen: Option<SocketAddr>,
    /// The kubeconfig; the environment's, or the pod's service account, if `None`.
    pub kubeconfig: Option<PathBuf>,
    /// Requests a second to the Kubernetes API, and how many may come at once.
    pub kubernetes_rate: (u32, u32),
    /// AWS.
    pub aws: drover_ec2::Settings,
    /// What the leader decides by.
    pub control: Settings,
    /// What is logged.
    pub logging: Logging,
}

/// What is logged, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// A level or `tracing` directives.
    pub filter: String,
    /// One JSON object a line.
    pub json: bool,
}

/// A setting that can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag} ({variable}): {reason}")]
pub struct ConfigError {
    /// The flag.
    pub flag: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// What is wrong with the value.
    pub reason: String,
}

/// A flag and its variable, to name in errors.
#[derive(Clone, Copy)]
struct Setting(&'static str, &'static str);

impl Setting {
    fn error(self, reason: impl Into<String>) -> ConfigError {
        ConfigError { flag: self.0, variable: self.1, reason: reason.into() }
    }

    fn duration(self, text: &str) -> Result<Duration, ConfigError> {
        let parsed: SignedDuration =
            text.parse().map_err(|_| self.error(format!("{text:?} is no duration like 1m30s")))?;
        Duration::try_from(parsed).map_err(|_| self.error(format!("{text:?} is below zero")))
    }

    fn signed_duration(self, text: &str) -> Result<SignedDuration, ConfigError> {
        let duration = self.duration(text)?;
        SignedDuration::try_from(duration).map_err(|_| self.error(format!("{text:?} is too long")))
    }
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let replica = peers::parse_replica(&args.node_id)
            .map_err(|reason| Setting("--node-id", "DROVER_NODE_ID").error(reason))?;
        let peers = peer_list(&args, replica)?;
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Ok(Self {
            raft_security: security::raft(&args, peers.len())?,
            api_certificate: security::api(&args)?,
            agent_account: security::account(&args)?,
            group: GroupConfig {
                name: args.cluster_name.clone(),
                replica,
                peers,
                folder: args.data_dir.clone(),
                timings: timings(&args)?,
            },
            raft_listen: args.raft_listen,
            api_listen: args.api_listen,
            metrics_listen: args.metrics_port.map(|port| SocketAddr::new(any, port)),
            health_listen: args.health_probe_port.map(|port| SocketAddr::new(any, port)),
            kubeconfig: args.kubeconfig.clone(),
            kubernetes_rate: kubernetes_rate(&args)?,
            aws: aws(&args)?,
            control: control(&args)?,
            logging: Logging { filter: log_filter(&args.log_level), json: args.log_json },
        })
    }
}

fn peer_list(args: &Args, replica: ReplicaId) -> Result<BTreeMap<ReplicaId, Peer>, ConfigError> {
    let setting = Setting("--peers", "DROVER_PEERS");
    let Some(text) = args.peers.as_deref().filter(|text| !text.is_empty()) else {
        // One leader is a supported small set-up.
        let own = Peer { raft: args.raft_listen.to_string(), api: args.api_listen.to_string() };
        return Ok(BTreeMap::from([(replica, own)]));
    };
    let peers = peers::parse_peers(text).map_err(|reason| setting.error(reason))?;
    if !peers.contains_key(&replica) {
        return Err(setting.error(format!("replica {replica}, which this is, is not among them")));
    }
    Ok(peers)
}

fn timings(args: &Args) -> Result<Timings, ConfigError> {
    let election = Setting("--raft-election-max", "DROVER_RAFT_ELECTION_MAX");
    let timings = Timings {
        heartbeat: Setting("--raft-heartbeat", "DROVER_RAFT_HEARTBEAT")
            .duration(&args.raft_heartbeat)?,
        election_min: Setting("--raft-election-min", "DROVER_RAFT_ELECTION_MIN")
            .duration(&args.raft_election_min)?,
        election_max: election.duration(&args.raft_election_max)?,
        quorum_loss_probe: Setting("--raft-quorum-probe", "DROVER_RAFT_QUORUM_PROBE")
            .duration(&args.raft_quorum_probe)?,
        install_snapshot: Setting("--raft-snapshot-timeout", "DROVER_RAFT_SNAPSHOT_TIMEOUT")
            .duration(&args.raft_snapshot_timeout)?,
        snapshot_after_entries: args.raft_snapshot_entries.max(1),
        ..Timings::default()
    };
    if timings.election_min <= timings.heartbeat {
        return Err(Setting("--raft-election-min", "DROVER_RAFT_ELECTION_MIN")
            .error("it must be longer than the heartbeat"));
    }
    if timings.election_max <= timings.election_min {
        return Err(election.error("it must be longer than --raft-election-min"));
    }
    if timings.quorum_loss_probe < timings.election_max.saturating_mul(2) {
        return Err(Setting("--raft-quorum-probe", "DROVER_RAFT_QUORUM_PROBE")
            .error("it must be at least twice --raft-election-max"));
    }
    Ok(timings)
}

/// A level is one for our own words: kube logs every failed request by itself, which would tell each
/// outage many times over, and openraft each vote and each heartbeat that did not arrive, of which
/// `drover_raft` tells the first. Directives are taken as they are.
fn log_filter(text: &str) -> String {
    match text.trim().to_lowercase().as_str() {
        level @ ("error" | "warn" | "info") => {
            format!("{level},openraft=error,kube_client::client::builder=off")
        }
        _ => text.to_owned(),
    }
}

fn kubernetes_rate(args: &Args) -> Result<(u32, u32), ConfigError> {
    if args.kube_client_qps == 0 {
        return Err(Setting("--kube-client-qps", "KUBE_CLIENT_QPS").error("it must be above zero"));
    }
    Ok((args.kube_client_qps, args.kube_client_burst.max(1)))
}

fn aws(args: &Args) -> Result<drover_ec2::Settings, ConfigError> {
    if args.aws_region.is_empty() {
        return Err(Setting("--aws-region", "AWS_REGION").error("it must be set"));
    }
    let credentials = match (&args.aws_access_key_id, &args.aws_secret_access_key) {
        (Some(access_key_id), Some(secret_access_key)) => Some(drover_ec2::StaticCredentials {
            access_key_id: access_key_id.clone(),
            secret_access_key: secret_access_key.clone(),
        }),
        (None, None) => None,
        _ => {
            return Err(Setting("--aws-access-key-id", "")
                .error("--aws-access-key-id and --aws-secret-access-key go together"));
        }
    };
    let endpoint = |own: &Option<String>| {
        own.clone().or_else(|| args.aws_endpoint_url.clone()).filter(|url| !url.is_empty())
    };
    Ok(drover_ec2::Settings {
        region: args.aws_region.clone(),
        ec2_endpoint: endpoint(&args.aws_endpoint_url_ec2),
        ssm_endpoint: endpoint(&args.aws_endpoint_url_ssm),
        pricing_endpoint: endpoint(&args.aws_endpoint_url_pricing),
        sqs_endpoint: endpoint(&args.aws_endpoint_url_sqs),
        imds_endpoint: args.aws_ec2_metadata_service_endpoint.clone(),
        credentials,
    })
}

fn control(args: &Args) -> Result<Settings, ConfigError> {
    if args.cluster_name.is_empty() {
        return Err(Setting("--cluster-name", "CLUSTER_NAME").error("it must be set"));
    }
    let batch = Setting("--batch-max-duration", "BATCH_MAX_DURATION");
    let batch_idle = Setting("--batch-idle-duration", "BATCH_IDLE_DURATION")
        .signed_duration(&args.batch_idle_duration)?;
    let batch_max = batch.signed_duration(&args.batch_max_duration)?;
    if batch_max < batch_idle {
        return Err(batch.error("it must not be shorter than --batch-idle-duration"));
    }
    // Karpenter leaves these empty for its defaults.
    let or = |given: &String, usual: String| if given.is_empty() { usual } else { given.clone() };
    let usual = LeaseSettings::default();
    let lease = (!args.disable_leader_election).then(|| LeaseSettings {
        namespace: or(&args.leader_election_namespace, usual.namespace.clone()),
        name: or(&args.leader_election_name, usual.name.clone()),
        ..usual
    });
    Ok(Settings {
        cluster: ClusterSettings {
            name: args.cluster_name.clone(),
            endpoint: args.cluster_endpoint.clone(),
            ca_bundle: args.cluster_ca_bundle.clone(),
            kubernetes_version: args.kubernetes_version.clone(),
            service_cidr: args.service_cidr.clone(),
        },
        region: args.aws_region.clone(),
        batch_idle,
        batch_max,
        planner: PlannerSettings {
            preference_policy: preference_policy(&args.preference_policy)?,
            min_values_policy: min_values_policy(&args.min_values_policy)?,
            max_node_vcpus: max_node_vcpus(args.max_node_vcpus)?,
            ..PlannerSettings::default()
        },
        check_plans: args.check_plans,
        repack: repack(args)?,
        disruption_poll: Setting("--consolidation-period", "DROVER_CONSOLIDATION_PERIOD")
            .signed_duration(&args.consolidation_period)?,
        vm_memory_overhead_ppm: overhead_ppm(args.vm_memory_overhead_percent)?,
        reserved_enis: args.reserved_enis,
        reserved_capacity: feature_gates(args)?.get("ReservedCapacity").copied().unwrap_or(true),
        interruption_queue: Some(args.interruption_queue.trim().to_owned())
            .filter(|queue| !queue.is_empty()),
        lease,
        ..Settings::default()
    })
}

fn feature_gates(args: &Args) -> Result<BTreeMap<String, bool>, ConfigError> {
    gates::parse(&args.feature_gates)
        .map_err(|reason| Setting("--feature-gates", "FEATURE_GATES").error(reason))
}

fn repack(args: &Args) -> Result<RepackSettings, ConfigError> {
    let saving =
        Setting("--consolidation-min-saving-percent", "DROVER_CONSOLIDATION_MIN_SAVING_PERCENT");
    let percent = args.consolidation_min_saving_percent;
    if percent > 100 {
        return Err(saving.error(format!("{percent} is more than 100")));
    }
    let gates = feature_gates(args)?;
    let usual = RepackSettings::default();
    Ok(RepackSettings {
        min_saving_percent: percent,
        min_node_age: Setting("--consolidation-min-node-age", "DROVER_CONSOLIDATION_MIN_NODE_AGE")
            .signed_duration(&args.consolidation_min_node_age)?,
        spot_to_spot: gates.get("SpotToSpotConsolidation").copied().unwrap_or(usual.spot_to_spot),
        ..usual
    })
}

fn preference_policy(text: &str) -> Result<PreferencePolicy, ConfigError> {
    match text {
        "Respect" => Ok(PreferencePolicy::Respect),
        "Ignore" => Ok(PreferencePolicy::Ignore),
        _ => Err(Setting("--preference-policy", "PREFERENCE_POLICY")
            .error(format!("{text:?} is neither Respect nor Ignore"))),
    }
}

fn min_values_policy(text: &str) -> Result<MinValuesPolicy, ConfigError> {
    match text {
        "Strict" => Ok(MinValuesPolicy::Strict),
        "BestEffort" => Ok(MinValuesPolicy::BestEffort),
        _ => Err(Setting("--min-values-policy", "MIN_VALUES_POLICY")
            .error(format!("{text:?} is neither Strict nor BestEffort"))),
    }
}

fn max_node_vcpus(vcpus: u32) -> Result<u32, ConfigError> {
    if vcpus == 0 {
        return Err(
            Setting("--max-node-vcpus", "DROVER_MAX_NODE_VCPUS").error("it must be above zero")
        );
    }
    Ok(vcpus)
}

/// A fraction of a VM's memory, despite its name, in millionths.
fn overhead_ppm(fraction: f64) -> Result<u32, ConfigError> {
    if !(0.0..1.0).contains(&fraction) {
        return Err(Setting("--vm-memory-overhead-percent", "VM_MEMORY_OVERHEAD_PERCENT")
            .error(format!("{fraction} is not a fraction from 0 up to 1")));
    }
    // In range by the check above: a fraction below one is below a million millionths.
    Ok((fraction * 1_000_000.0).round() as u32)
}
