//! Settings, from flags and the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use drover_agent_core::eks::is_cluster_name;
use drover_common::id::NodeName;
use drover_kubernetes::{KubeletTrust, Uri};
use reqwest::Url;

/// The flags of an agent.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The name of this machine's Node.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// A kubeconfig file; by default KUBECONFIG, or what --identity says.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Whom the agent is to the API server where no kubeconfig is named: the node, as its kubelet is
    /// (/var/lib/kubelet/kubeconfig), the service-account of its pod (or ~/.kube/config), or auto: the node
    /// on EKS, where that file's user is aws-iam-authenticator or `aws eks get-token`.
    #[arg(
        long,
        env = "DROVER_IDENTITY",
        default_value = "auto",
        hide_possible_values = true,
        value_name = "WHO"
    )]
    identity: IdentityChoice,
    /// The kubeconfig's context; by default the current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Show this EKS cluster tokens signed with the instance's role, whoever the kubeconfig's user
    /// is. Without it that is done where the user is aws-iam-authenticator or `aws eks get-token`.
    #[arg(long, env = "DROVER_EKS_CLUSTER", value_name = "NAME")]
    eks_cluster: Option<String>,
    /// The instance metadata service; a path prefix is kept. By default EC2's own.
    #[arg(long, env = "AWS_EC2_METADATA_SERVICE_ENDPOINT", value_name = "URL")]
    imds_endpoint: Option<String>,
    /// By which protocol EC2's own metadata service is reached: IPv4 or IPv6.
    #[arg(
        long,
        env = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
        default_value = "IPv4",
        value_parser = ["IPv4", "IPv6"],
        ignore_case = true,
        hide_possible_values = true,
        value_name = "MODE"
    )]
    imds_mode: String,
    /// Base URLs of the leaders, separated by commas; without any, the node is guarded alone.
    #[arg(long, env = "DROVER_LEADERS", default_value = "", value_name = "URLS")]
    leaders: String,
    /// Certificates to trust leaders by (PEM), in place of the system's.
    #[arg(long, env = "DROVER_LEADERS_CA", value_name = "FILE")]
    leaders_ca: Option<PathBuf>,
    /// A token for the leaders (a projected one, audience drover); read anew for each request.
    #[arg(long, env = "DROVER_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where the host's /proc and /sys are found.
    #[arg(long, env = "DROVER_HOST_ROOT", default_value = "/", value_name = "DIR")]
    host_root: PathBuf,
    /// Where notices and the instance's id are kept over restarts.
    #[arg(
        long,
        env = "DROVER_STATE_DIR",
        default_value = "/var/lib/drover-agent",
        value_name = "DIR"
    )]
    state_dir: PathBuf,
    /// How often IMDS is asked for spot notices; for rebalance recommendations and Auto Scaling's state a quarter as
    /// often, for maintenance a sixtieth.
    #[arg(long, default_value = "500ms", value_parser = parse_imds_interval)]
    imds_interval: Duration,
    /// How often CPU use is measured; the rest is with each report.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    sample_interval: Duration,
    /// How often the leaders get a report when there is no news.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    report_interval: Duration,
    /// Who is asked for pods' use: the kernel's control groups (cgroup), the kubelet, or auto: the
    /// kubelet while there are pods and no control group of theirs can be read (cgroup v1, no host
    /// mount, an unknown layout).
    #[arg(
        long,
        env = "DROVER_USAGE_SOURCE",
        default_value = "auto",
        hide_possible_values = true,
        value_name = "SOURCE"
    )]
    usage_source: SourceChoice,
    /// The kubelet; by default where the Node says that it listens (its InternalIP, port 10250).
    #[arg(long, env = "DROVER_KUBELET_URL", value_name = "URL")]
    kubelet_url: Option<String>,
    /// Certificates to trust the kubelet by (PEM), in place of the cluster's; for a self-signed one
    /// its own (/var/lib/kubelet/pki/kubelet.crt), with a --kubelet-url of the name it was made for.
    #[arg(long, env = "DROVER_KUBELET_CA", value_name = "FILE")]
    kubelet_ca: Option<PathBuf>,
    /// Do not check the kubelet's certificate. Whoever answers in its place gets the token by which
    /// the agent is known to the API server, and may do what the agent may.
    #[arg(long, env = "DROVER_KUBELET_INSECURE")]
    kubelet_insecure: bool,
    /// How often the kubelet is asked, where it is. It measures each 10 to 20 s.
    #[arg(long, default_value = "15s", value_parser = parse_kubelet_interval)]
    kubelet_interval: Duration,
    /// Where NVIDIA's DCGM exporter tells this node's GPU metrics: a URL, off, or auto:
    /// http://127.0.0.1:9400/metrics once the Node has GPUs.
    #[arg(long, env = "DROVER_GPU_METRICS", default_value = "auto", value_name = "URL")]
    gpu_metrics: String,
    /// Serve the agent's own metrics (GET /metrics, Prometheus' text format) at this address and port, as
    /// 127.0.0.1:9465 or [::]:9465, to whoever can connect; by default nowhere. A port that is taken is tried
    /// again and again.
    #[arg(long, env = "DROVER_METRICS_ADDRESS", default_value = "", value_name = "ADDRESS")]
    metrics_address: String,
    /// Cordon the node, too, while one of its conditions says that it is broken (KernelDeadlock,
    /// ReadonlyFilesystem, …). Otherwise that is only reported.
    #[arg(long, env = "DROVER_CORDON_ON_PROBLEM")]
    cordon_on_problem: bool,
    /// Never power the machine off. Otherwise that is done, by logind, when a spot loss is near, the
    /// API server is out of reach and only the pods' grace is left: the kubelet then ends them in good
    /// order, if its graceful shutdown is on. The system bus is looked for below --host-root.
    #[arg(long, env = "DROVER_NO_POWER_OFF")]
    no_power_off: bool,
    /// How long a drain for an interruption may go on when the agent is asked to stop; 0s for not at
    /// all: the next agent then goes on with it.
    #[arg(long, env = "DROVER_STOP_GRACE", default_value = "0s", value_parser = parse_pause)]
    stop_grace: Duration,
}

/// Whom the agent is to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IdentityChoice {
    /// The node on EKS, elsewhere the service account.
    Auto,
    /// The node.
    Node,
    /// The pod's service account.
    ServiceAccount,
}

/// Who is asked for pods' use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SourceChoice {
    /// Control groups, and the kubelet while they can't be read.
    Auto,
    /// Control groups alone.
    Cgroup,
    /// The kubelet alone, for the node, too.
    Kubelet,
}

/// Where DCGM's exporter usually listens.
const USUAL_EXPORTER: &str = "http://127.0.0.1:9400/metrics";

/// Who is asked for GPUs' use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuChoice {
    /// An exporter, once the Node has GPUs.
    OnceThereAre(String),
    /// Nobody.
    Off,
    /// The exporter at this address, whatever the Node says.
    Url(String),
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Node's name.
    pub node: NodeName,
    /// A kubeconfig file, if one is named.
    pub kubeconfig: Option<PathBuf>,
    /// Its context.
    pub context: Option<String>,
    /// Whom the agent is where no kubeconfig is named.
    pub identity: IdentityChoice,
    /// The EKS cluster that is shown tokens of the instance's role, whoever the kubeconfig's user is.
    pub eks_cluster: Option<String>,
    /// The metadata service, without a slash at the end.
    pub imds: String,
    /// Leaders' base URLs, without a slash at the end.
    pub leaders: Vec<String>,
    /// Certificates to trust leaders by.
    pub leaders_ca: Option<PathBuf>,
    /// The bearer token for leaders.
    pub token_file: Option<PathBuf>,
    /// The host's root.
    pub host_root: PathBuf,
    /// The agent's own folder.
    pub state_dir: PathBuf,
    /// Between two reads of the spot notice.
    pub imds_interval: Duration,
    /// Between two measurements.
    pub sample_interval: Duration,
    /// Between two reports without news.
    pub report_interval: Duration,
    /// Who is asked for pods' use.
    pub usage_source: SourceChoice,
    /// The kubelet; where its Node says that it is, if `None`.
    pub kubelet_url: Option<Uri>,
    /// How the kubelet's certificate is checked.
    pub kubelet_trust: KubeletTrust,
    /// Between two questions to the kubelet.
    pub kubelet_interval: Duration,
    /// Who is asked for GPUs' use.
    pub gpu_metrics: GpuChoice,
    /// Where the agent's own metrics are served, if they are.
    pub metrics_address: Option<SocketAddr>,
    /// Whether a Node that says it is broken is cordoned.
    pub cordon_on_problem: bool,
    /// Whether the machine may be powered off when the agent is cut off.
    pub may_power_off: bool,
    /// For how long an interruption's drain is finished before the agent stops.
    pub stop_grace: Duration,
}

/// A setting that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The Node's name is empty.
    #[error("--node-name (NODE_NAME) is empty")]
    NodeName,
    /// Not an http or https address.
    #[error("{setting}: {url:?} is no http or https URL")]
    Url {
        /// The flag.
        setting: &'static str,
        /// What was given.
        url: String,
    },
    /// No name that EKS gives.
    #[error("--eks-cluster: {name:?} is no EKS cluster's name")]
    EksCluster {
        /// What was given.
        name: String,
    },
    /// No address and port.
    #[error(
        "--metrics-address: {address:?} is no address and port, as 127.0.0.1:9465 or [::]:9465"
    )]
    MetricsAddress {
        /// What was given.
        address: String,
    },
    /// Two that contradict each other.
    #[error(
        "--kubelet-ca says by what the kubelet is verified, and --kubelet-insecure that it is not: give one"
    )]
    KubeletTrust,
    /// The token would travel in the clear.
    #[error(
        "--kubelet-url: {url:?} is not encrypted, so that others may read the agent's token; --kubelet-insecure permits it"
    )]
    PlainKubelet {
        /// What was given.
        url: String,
    },
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let node = args.node_name.trim();
        if node.is_empty() {
            return Err(ConfigError::NodeName);
        }
        let imds = args.imds_endpoint.as_deref().filter(|url| !url.trim().is_empty());
        let imds = imds.unwrap_or(match args.imds_mode.eq_ignore_ascii_case("IPv6") {
            true => "http://[fd00:ec2::254]",
            false => "http://169.254.169.254",
        });
        let kubelet_trust = match args.kubelet_ca.filter(|path| !path.as_os_str().is_empty()) {
            Some(_) if args.kubelet_insecure => return Err(ConfigError::KubeletTrust),
            Some(path) => KubeletTrust::Authority(path),
            None if args.kubelet_insecure => KubeletTrust::Unverified,
            None => KubeletTrust::Cluster,
        };
        let kubelet_url = args.kubelet_url.as_deref().filter(|url| !url.trim().is_empty());
        let kubelet_url = kubelet_url.map(|url| kubelet_url_of(url, &kubelet_trust)).transpose()?;
        let eks_cluster = args.eks_cluster.filter(|name| !name.is_empty());
        if let Some(name) = eks_cluster.as_ref().filter(|name| !is_cluster_name(name)) {
            return Err(ConfigError::EksCluster { name: name.clone() });
        }
        let leaders = args.leaders.split(',').map(str::trim).filter(|url| !url.is_empty());
        Ok(Self {
            node: NodeName::from(node),
            kubeconfig: args.kubeconfig,
            context: args.context,
            identity: args.identity,
            eks_cluster,
            imds: base_url("--imds-endpoint", imds)?,
            leaders: leaders.map(|url| base_url("--leaders", url)).collect::<Result<_, _>>()?,
            leaders_ca: args.leaders_ca,
            token_file: args.token_file,
            host_root: args.host_root,
            state_dir: args.state_dir,
            imds_interval: args.imds_interval,
            sample_interval: args.sample_interval,
            report_interval: args.report_interval,
            usage_source: args.usage_source,
            kubelet_url,
            kubelet_trust,
            kubelet_interval: args.kubelet_interval,
            gpu_metrics: match args.gpu_metrics.trim() {
                "" | "auto" => GpuChoice::OnceThereAre(USUAL_EXPORTER.to_owned()),
                "off" => GpuChoice::Off,
                url => GpuChoice::Url(base_url("--gpu-metrics", url)?),
            },
            metrics_address: address_of(&args.metrics_address)?,
            cordon_on_problem: args.cordon_on_problem,
            may_power_off: !args.no_power_off,
            stop_grace: args.stop_grace,
        })
    }
}

fn base_url(setting: &'static str, url: &str) -> Result<String, ConfigError> {
    let trimmed = url.trim().trim_end_matches('/');
    match Url::parse(trimmed) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => Ok(trimmed.to_owned()),
        _ => Err(ConfigError::Url { setting, url: url.to_owned() }),
    }
}

/// None where nothing is said.
fn address_of(text: &str) -> Result<Option<SocketAddr>, ConfigError> {
    let said = Some(text.trim()).filter(|text| !text.is_empty());
    let parsed = said.map(str::parse).transpose();
    parsed.map_err(|_| ConfigError::MetricsAddress { address: text.to_owned() })
}

fn kubelet_url_of(url: &str, trust: &KubeletTrust) -> Result<Uri, ConfigError> {
    const SETTING: &str = "--kubelet-url";
    let base = base_url(SETTING, url)?;
    if !base.to_ascii_lowercase().starts_with("https://") && *trust != KubeletTrust::Unverified {
        return Err(ConfigError::PlainKubelet { url: url.to_owned() });
    }
    base.parse().map_err(|_| ConfigError::Url { setting: SETTING, url: url.to_owned() })
}

/// As [`parse_duration`], but no faster than a kubelet measures.
fn parse_kubelet_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < Duration::from_secs(10) {
        return Err("at least 10s: a kubelet measures no faster".to_owned());
    }
    Ok(interval)
}

/// As [`parse_duration`], but often enough that an agent which hears nothing for fifteen seconds is one that nobody
/// answers.
fn parse_imds_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval > Duration::from_secs(5) {
        return Err("at most 5s: a spot notice is two minutes".to_owned());
    }
    Ok(interval)
}

/// `500ms`, `10s` or `1m`; at least 50 ms, so that no service is hammered.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_pause(text)?;
    if duration < Duration::from_millis(50) {
        return Err("at least 50ms".to_owned());
    }
    Ok(duration)
}

fn parse_pause(text: &str) -> Result<Duration, String> {
    let duration = [("ms", 1), ("s", 1_000), ("m", 60_000)]
        .into_iter()
        .find_map(|(unit, scale)| {
            let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
            number.checked_mul(scale)
        })
        .map(Duration::from_millis)
        .ok_or("expected a duration such as 500ms, 10s or 1m")?;
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn config(flags: &[&str]) -> Result<Config, ConfigError> {
        let flags = ["drover-agent", "--node-name", "n"].iter().chain(flags);
        Config::try_from(Command::try_parse_from(flags).unwrap().args)
    }

    #[test]
    fn urls_are_checked_and_keep_their_prefix() {
        let imds = ["--imds-endpoint", "http://127.0.0.1:1234/i-0abc/"];
        let leaders = ["--leaders", " http://a:1/, https://b ,"];
        let config = config(&[imds, leaders].concat()).unwrap();
        assert_eq!(config.imds, "http://127.0.0.1:1234/i-0abc");
        assert_eq!(config.leaders, ["http://a:1", "https://b"]);
        assert_eq!(config.imds_interval, Duration::from_millis(500));
        let error = self::config(&["--leaders", "a:b"]).unwrap_err();
        assert!(error.to_string().contains("--leaders"), "{error}");
    }

    #[test]
    fn clusters_have_names_of_eks() {
        assert_eq!(config(&["--eks-cluster", ""]).unwrap().eks_cluster, None);
        let named = config(&["--eks-cluster", "my-cluster_1"]).unwrap();
        assert_eq!(named.eks_cluster.as_deref(), Some("my-cluster_1"));
        let error = config(&["--eks-cluster", "a/b"]).unwrap_err();
        assert!(error.to_string().contains("--eks-cluster"), "{error}");
    }

    #[test]
    fn imds_is_ec2s_own_by_either_protocol() {
        assert_eq!(config(&[]).unwrap().imds, "http://169.254.169.254");
        assert_eq!(config(&["--imds-mode", "ipv6"]).unwrap().imds, "http://[fd00:ec2::254]");
        let both = ["--imds-mode", "IPv6", "--imds-endpoint", "http://127.0.0.1:1"];
        assert_eq!(config(&both).unwrap().imds, "http://127.0.0.1:1");
    }

    #[test]
    fn a_kubelet_is_checked_unless_the_operator_says_otherwise() {
        let default = config(&[]).unwrap();
        assert_eq!(default.usage_source, SourceChoice::Auto);
        assert_eq!((default.kubelet_url, default.kubelet_trust), (None, KubeletTrust::Cluster));
        let plain = ["--kubelet-url", "http://127.0.0.1:10255"];
        let error = config(&plain).unwrap_err();
        assert!(error.to_string().contains("--kubelet-insecure"), "{error}");
        let ca = ["--kubelet-ca", "ca.crt"];
        let both = config(&[ca.as_slice(), &["--kubelet-insecure"]].concat()).unwrap_err();
        assert_eq!(both, ConfigError::KubeletTrust);
        let insecure = config(&[plain.as_slice(), &["--kubelet-insecure"]].concat()).unwrap();
        assert_eq!(insecure.kubelet_trust, KubeletTrust::Unverified);
        let own = ["--kubelet-url", "HTTPS://node-1:10250/", "--kubelet-ca", "kubelet.crt"];
        let own = config(&own).unwrap();
        assert_eq!(own.kubelet_trust, KubeletTrust::Authority("kubelet.crt".into()));
        assert_eq!(own.kubelet_url.unwrap().host(), Some("node-1"));
        assert!(config(&["--kubelet-url", "HTTP://127.0.0.1:1"]).is_err());
        assert!(parse_kubelet_interval("9s").is_err());
    }

    #[test]
    fn imds_is_asked_often_enough_to_be_heard() {
        assert_eq!(parse_imds_interval("5s"), Ok(Duration::from_secs(5)));
        assert!(parse_imds_interval("6s").unwrap_err().contains("5s"));
        assert!(parse_imds_interval("10ms").is_err());
    }

    #[test]
    fn gpus_are_asked_for_where_they_are_told() {
        let usual = GpuChoice::OnceThereAre(USUAL_EXPORTER.to_owned());
        assert_eq!(config(&[]).unwrap().gpu_metrics, usual);
        assert_eq!(config(&["--gpu-metrics", "off"]).unwrap().gpu_metrics, GpuChoice::Off);
        let url = "http://dcgm:9400/metrics";
        let told = config(&["--gpu-metrics", url]).unwrap().gpu_metrics;
        assert_eq!(told, GpuChoice::Url(url.to_owned()));
        let error = config(&["--gpu-metrics", "on"]).unwrap_err();
        assert!(error.to_string().contains("--gpu-metrics"), "{error}");
    }

    #[test]
    fn metrics_are_served_where_that_is_asked_for() {
        for off in [&[][..], &["--metrics-address", " "]] {
            assert_eq!(config(off).unwrap().metrics_address, None);
        }
        let address = |text| config(&["--metrics-address", text]).map(|it| it.metrics_address);
        assert_eq!(address("[::]:9465").unwrap(), "[::]:9465".parse().ok());
        for bad in ["9465", ":9465", "localhost:9465", "127.0.0.1", "127.0.0.1:99999"] {
            let error = address(bad).unwrap_err();
            assert!(error.to_string().contains("--metrics-address"), "{error}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1m"), Ok(Duration::from_secs(60)));
        for bad in ["", "5", "ms", "-1s", "10ms", "99999999999999999999s", "18446744073709551615m"]
        {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
