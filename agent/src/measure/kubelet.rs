//! Asks the own kubelet for the use of node and pods.
//!
//! `/metrics/resource` is what it has for that: some numbers a pod, in lines that need not be kept, open to
//! whoever may get `nodes/metrics`. `/stats/summary` tells pressure, too, but in one JSON text of a hundred
//! times the size, which the kubelet spends far more on.

#[cfg(test)]
mod tests;

use std::time::Duration;

use drover_agent_core::kubelet_address;
use drover_agent_core::usage::{KubeletFold, KubeletReading, KubeletUse, Lines};
use drover_common::call::{Kind, KubernetesCall, Target};
use drover_common::id::NodeName;
use drover_kubernetes::{Client, EksIdentity, KubeletError, KubeletTrust, Uri};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::pace::{LASTING, pause, rest};
use crate::config::Config;
use crate::kubeconfig::Way;
use crate::question::PodNamesQuestion;

const PATH: &str = "/metrics/resource";
const TIMEOUT: Duration = Duration::from_secs(10);
/// A node with 500 pods of four containers has under 1 MB.
const LONGEST_BODY: usize = 8 * 1024 * 1024;
/// What the kubelet told is held true for so long after it fell silent.
const HOLDS: Duration = Duration::from_secs(60);

/// Which kubelet, and as whom it is asked.
#[derive(Clone)]
pub(crate) struct KubeletSettings {
    way: Way,
    context: Option<String>,
    identity: Option<EksIdentity>,
    node: NodeName,
    url: Option<Uri>,
    trust: KubeletTrust,
    interval: Duration,
    /// The way to the API server, once there is one: the Node says where its kubelet is.
    clients: watch::Receiver<Option<Client>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("where it listens is not known: {0}")]
    Address(String),
    #[error(transparent)]
    Connect(#[from] drover_kubernetes::ConnectError),
    #[error(transparent)]
    Kubelet(#[from] KubeletError),
    #[error("{PATH} tells nothing of the node or its pods")]
    Nothing,
}

impl KubeletSettings {
    pub(crate) fn of(
        config: &Config,
        way: Way,
        clients: watch::Receiver<Option<Client>>,
        identity: Option<EksIdentity>,
    ) -> Self {
        Self {
            way,
            context: config.context.clone(),
            identity,
            node: config.node.clone(),
            url: config.kubelet_url.clone(),
            trust: config.kubelet_trust.clone(),
            interval: config.kubelet_interval,
            clients,
        }
    }

    async fn connect(&self) -> Result<Client, AskError> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => self.address().await.map_err(AskError::Address)?,
        };
        let context = self.context.as_deref();
        let kubeconfig = self.way.kubeconfig()?;
        let identity = self.identity.as_ref();
        let trust = &self.trust;
        let client = drover_kubernetes::connect_kubelet(
            kubeconfig.as_deref(),
            context,
            &url,
            trust,
            identity,
        )
        .await?;
        self.way.keep(kubeconfig);
        Ok(client)
    }

    async fn address(&self) -> Result<Uri, String> {
        let client = self.clients.borrow().clone();
        let client = client.ok_or("not connected to the Kubernetes API yet")?;
        let call = KubernetesCall::Get { target: Target::cluster(Kind::Node, self.node.as_str()) };
        let node = drover_kubernetes::execute(&client, &call, TIMEOUT)
            .await
            .map_err(|failure| failure.to_string())?;
        let address = kubelet_address(&node).ok_or("the Node names no InternalIP")?;
        address.parse().map_err(|_| format!("{address} is no address"))
    }
}

/// Asks again and again, tells what comes of it, and `None` once that is not known any more.
pub(super) async fn follow(
    settings: KubeletSettings,
    pod_names: PodNamesQuestion,
    told: watch::Sender<Option<KubeletUse>>,
) {
    if settings.trust == KubeletTrust::Unverified {
        tracing::warn!(
            "The kubelet is not verified: whoever answers in its place gets the agent's token."
        );
    }
    let mut client = None;
    let mut fold = KubeletFold::default();
    let mut heard_at = Instant::now();
    let mut failures = 0_u32;
    loop {
        match ask(&settings, &mut client, &pod_names).await {
            Ok(reading) => {
                if failures >= LASTING {
                    tracing::info!("The kubelet answers again.");
                }
                (failures, heard_at) = (0, Instant::now());
                fold.add(reading);
                told.send_replace(Some(fold.usage()));
            }
            Err(error) => {
                // Address, certificates and credentials may be others by now.
                client = None;
                failures = failures.saturating_add(1);
                if failures == LASTING {
                    tracing::warn!(%error, "The kubelet does not tell its metrics; use is unknown.");
                }
            }
        }
        let holds = match failures {
            0 => Duration::MAX,
            _ => HOLDS.saturating_sub(heard_at.elapsed()),
        };
        rest(&told, pause(settings.interval, failures), holds).await;
        if told.borrow().is_none() {
            fold = KubeletFold::default();
        }
    }
}

async fn ask(
    settings: &KubeletSettings,
    client: &mut Option<Client>,
    pod_names: &PodNamesQuestion,
) -> Result<KubeletReading, AskError> {
    let client = match client {
        Some(client) => client,
        None => client.insert(settings.connect().await?),
    };
    let names = pod_names.ask().await;
    let now = Timestamp::now();
    let (mut lines, mut reading) = (Lines::default(), KubeletReading::default());
    let take = |piece: &[u8]| lines.feed(piece, |line| reading.take(line, &names, now));
    drover_kubernetes::read_kubelet(client, PATH, TIMEOUT, LONGEST_BODY, take).await?;
    if reading.is_empty() { Err(AskError::Nothing) } else { Ok(reading) }
}
