//! One replica: everything it is made of, started in order and stopped in reverse.

mod brain;
mod calls;
mod counters;
mod rate;
mod systemd;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use drover_common::call::Kind;
use drover_core::control::{Control, Settings};
use drover_ec2::Ec2;
use drover_raft::{Group, GroupError, Transport};
use drover_tls::{Callers, CertificateError, Credentials};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api;
use crate::config::{Config, RaftSecurity};

pub(crate) use brain::{Board, BrainClosed, BrainHandle, Reported};
pub(crate) use counters::Counters;

/// Changes that may wait between the watches and the brain; when it is full the watches wait.
const WAITING_EVENTS: usize = 4096;
/// How long a port of a replica that has just ended may stay taken.
const BIND_PATIENCE: Duration = Duration::from_secs(5);
/// Callers that wait to be accepted.
const MOST_WAITING: u32 = 4096;

/// How long the Kubernetes API server may be away when a replica starts.
const VERSION_PATIENCE: Duration = Duration::from_secs(60);
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);
const VERSION_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Why a replica ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener could not be bound.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// There is no way to the Kubernetes API.
    #[error(transparent)]
    Kubernetes(#[from] drover_kubernetes::ConnectError),
    /// The group can't be joined, or Raft has failed.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The API server does not tell its version, which images are chosen by.
    #[error("the Kubernetes API server's version can't be read: {reason}")]
    Version {
        /// Why.
        reason: String,
    },
    /// A certificate can't be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The threads for Raft can't start, or broke down.
    #[error("the threads of Raft: {0}")]
    Threads(#[source] std::io::Error),
    /// The API server can't start, or ended.
    #[error("the API server ended: {0}")]
    Api(String),
    /// The brain's task ended.
    #[error("the deciding task ended: {0}")]
    Brain(String),
}

/// Runs one replica until `shutdown` is cancelled, then hands leadership over and stops.
///
/// # Errors
/// The replica can't start or can't go on. The process should exit: Raft does not recover from a
/// disk that fails.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let raft = RaftRuntime::start()?;
    let api_credentials = (config.api_certificate.clone())
        .map(|files| Credentials::load(files, Callers::Anybody))
        .transpose()?;
    let api_listener = bind(config.api_listen).await?;
    let kubernetes = drover_kubernetes::connect(config.kubeconfig.as_deref(), None).await?;
    let ec2 = Ec2::connect(config.aws.clone()).await;
    let group = Arc::new(raft.take_part(&config).await?);
    tracing::info!(
        replica = config.group.replica,
        raft = %config.raft_listen,
        api = %config.api_listen,
        "The leader replica is up."
    );

    let asked = with_cluster_version(config.control.clone(), &kubernetes);
    let Some(settings) = shutdown.run_until_cancelled(asked).await else {
        group.shutdown().await;
        return Ok(());
    };
    let settings = settings?;
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let counters = Arc::new(Counters::default());
    let events = watch_cluster(&kubernetes, &tasks, &stop);
    let gate = gate(&config, &kubernetes)?;
    let caller = calls::Caller::new(kubernetes, ec2, config.kubernetes_rate, Arc::clone(&counters));
    let control = Control::new(settings);
    let (brain, deciding) =
        brain::start(control, Arc::clone(&group), caller, events, Arc::clone(&counters), &stop);
    let peers = api_credentials.as_ref().map(|own| Arc::clone(&own.clients().borrow()));
    let shared =
        api::Shared::new(Arc::clone(&group), brain, Arc::clone(&counters), gate, peers.as_deref())
            .map_err(|error| RunError::Api(error.to_string()))?;
    for (address, router) in [
        (config.metrics_listen, api::metrics_router(shared.clone())),
        (config.health_listen, api::health_router(shared.clone())),
    ] {
        if let Some(address) = address {
            let serving = axum::serve(bind(address).await?, router).into_future();
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(serving).await });
        }
    }
    let notifying = systemd::follow(counters);
    let stopping = stop.clone();
    tasks.spawn(async move { stopping.run_until_cancelled(notifying).await });
    let api_tls = api_credentials.as_ref().map(Credentials::server);
    if let Some(credentials) = api_credentials {
        let stop = stop.clone();
        tasks.spawn(async move { stop.run_until_cancelled(credentials.follow()).await });
    }
    let serving = drover_tls::serve(api_listener, api::router(shared), api_tls);

    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        error = group.failed() => Err(RunError::Group(error)),
        result = serving => Err(RunError::Api(format!("{result:?}"))),
        result = deciding => Err(RunError::Brain(format!("{result:?}"))),
    };
    if ended.is_ok() {
        group.transfer_leadership().await;
    }
    stop.cancel();
    group.shutdown().await;
    tasks.close();
    tasks.wait().await;
    tracing::info!(replica = config.group.replica, "The leader replica has stopped.");
    ended
}

/// Threads of Raft's own: however busy the API and the deciding are, heartbeats and votes come in time.
struct RaftRuntime(Option<Runtime>);

impl RaftRuntime {
    fn start() -> Result<Self, RunError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(2).thread_name("raft").enable_all();
        builder.build().map(|runtime| Self(Some(runtime))).map_err(RunError::Threads)
    }

    /// Takes part in the group on these threads.
    async fn take_part(&self, config: &Config) -> Result<Group, RunError> {
        let own = config.clone();
        let started =
            async move { Ok(Group::start(own.group.clone(), transport(&own).await?).await?) };
        let Some(runtime) = &self.0 else { return started.await };
        let ended = |error: JoinError| RunError::Threads(std::io::Error::other(error));
        runtime.spawn(started).await.map_err(ended)?
    }
}

impl Drop for RaftRuntime {
    fn drop(&mut self) {
        // To wait for the threads is not allowed on another runtime's.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What the replicas speak over, as configured.
async fn transport(config: &Config) -> Result<Transport, RunError> {
    match &config.raft_security {
        RaftSecurity::Alone => Ok(Transport::alone()),
        RaftSecurity::Insecure => {
            tracing::warn!(
                "Raft is spoken in the clear: whoever reaches {} can take the cluster over.",
                config.raft_listen
            );
            Ok(Transport::clear(bind(config.raft_listen).await?))
        }
        RaftSecurity::Mutual(files) => {
            Ok(Transport::mutual(bind(config.raft_listen).await?, files.clone())?)
        }
    }
}

/// Who is let in to the API, as configured.
fn gate(config: &Config, client: &drover_kubernetes::Client) -> Result<api::Gate, RunError> {
    Ok(match &config.agent_account {
        Some(account) => api::Gate::guarded(client.clone(), account.clone())
            .map_err(|_| RunError::Api("the system has no random numbers".to_owned()))?,
        None => {
            tracing::warn!(
                "Agents and operators are let in without a token: whoever reaches {} is believed.",
                config.api_listen
            );
            api::Gate::open()
        }
    })
}

/// Has the kernel hold more callers than it does by default: when a leader ends, all its agents call the
/// others at once.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(MOST_WAITING)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, RunError> {
    let give_up = Instant::now() + BIND_PATIENCE;
    loop {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(source)
                if source.kind() != std::io::ErrorKind::AddrInUse || Instant::now() > give_up =>
            {
                return Err(RunError::Listen { address, source });
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Fills in the API server's version where the operator named none.
async fn with_cluster_version(
    mut settings: Settings,
    client: &drover_kubernetes::Client,
) -> Result<Settings, RunError> {
    let give_up = Instant::now() + VERSION_PATIENCE;
    while settings.cluster.kubernetes_version.is_empty() {
        match tokio::time::timeout(VERSION_TIMEOUT, client.apiserver_version()).await {
            Ok(Ok(version)) => {
                // Managed clusters append a `+` to the minor version.
                let minor: String =
                    version.minor.chars().take_while(char::is_ascii_digit).collect();
                settings.cluster.kubernetes_version = format!("{}.{minor}", version.major);
            }
            failed if Instant::now() > give_up => {
                let reason = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => "it does not answer".to_owned(),
                };
                return Err(RunError::Version { reason });
            }
            _ => sleep(VERSION_AGAIN_AFTER).await,
        }
    }
    Ok(settings)
}

/// Follows every kind that decisions read. Each replica does, so that a new leader's view is warm.
fn watch_cluster(
    client: &drover_kubernetes::Client,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> mpsc::Receiver<drover_common::cluster::ClusterEvent> {
    let (sender, events) = mpsc::channel(WAITING_EVENTS);
    let watched = Kind::ALL.into_iter().filter(|kind| kind.is_watched());
    for kind in watched {
        let limits = drover_kubernetes::Limits::CLUSTER;
        let watch = drover_kubernetes::watch(client.clone(), kind, None, limits, sender.clone());
        let stop = stop.clone();
        tasks.spawn(async move { stop.run_until_cancelled(watch).await });
    }
    events
}
