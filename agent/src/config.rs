//! Settings, from flags and the environment.

use std::path::PathBuf;
use std::time::Duration;

use drover_common::id::NodeName;
use reqwest::Url;

/// The flags of an agent.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The name of this machine's Node.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// A kubeconfig file; by default KUBECONFIG, ~/.kube/config or the pod's service account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; by default the current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The instance metadata service; a path prefix is kept.
    #[arg(
        long,
        env = "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        default_value = "http://169.254.169.254",
        value_name = "URL"
    )]
    imds_endpoint: String,
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
    /// How often IMDS is asked for a spot notice.
    #[arg(long, default_value = "500ms", value_parser = parse_duration)]
    imds_interval: Duration,
    /// How often use is measured.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    sample_interval: Duration,
    /// How often the leaders get a report when there is no news.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    report_interval: Duration,
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Node's name.
    pub node: NodeName,
    /// A kubeconfig file; the environment's if `None`.
    pub kubeconfig: Option<PathBuf>,
    /// Its context.
    pub context: Option<String>,
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
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let node = args.node_name.trim();
        if node.is_empty() {
            return Err(ConfigError::NodeName);
        }
        let leaders = args.leaders.split(',').map(str::trim).filter(|url| !url.is_empty());
        Ok(Self {
            node: NodeName::from(node),
            kubeconfig: args.kubeconfig,
            context: args.context,
            imds: base_url("--imds-endpoint", &args.imds_endpoint)?,
            leaders: leaders.map(|url| base_url("--leaders", url)).collect::<Result<_, _>>()?,
            leaders_ca: args.leaders_ca,
            token_file: args.token_file,
            host_root: args.host_root,
            state_dir: args.state_dir,
            imds_interval: args.imds_interval,
            sample_interval: args.sample_interval,
            report_interval: args.report_interval,
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

/// `500ms`, `10s` or `1m`; at least 50 ms, so that no service is hammered.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = [("ms", 1), ("s", 1_000), ("m", 60_000)]
        .into_iter()
        .find_map(|(unit, scale)| {
            let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
            number.checked_mul(scale)
        })
        .map(Duration::from_millis)
        .ok_or("expected a duration such as 500ms, 10s or 1m")?;
    if duration < Duration::from_millis(50) {
        return Err("at least 50ms".to_owned());
    }
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
    fn durations() {
        assert_eq!(parse_duration("1m"), Ok(Duration::from_secs(60)));
        for bad in ["", "5", "ms", "-1s", "10ms", "99999999999999999999s", "18446744073709551615m"]
        {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
