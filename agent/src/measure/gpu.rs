//! Asks the exporter of GPU metrics on the node, where there are GPUs.

use std::time::Duration;

use drover_agent_core::usage::{GpuReading, GpuUse, Lines};
use drover_common::protocol::UsageDigest;
use reqwest::{Client, StatusCode};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::pace::{LASTING, pause, rest};
use crate::body::innermost;
use crate::config::GpuChoice;
use crate::question::PodNamesQuestion;

/// How often the exporter measures, unless it's told otherwise.
const INTERVAL: Duration = Duration::from_secs(30);
/// How soon it is asked again while no pod is known whose a GPU could be: the agent has just started.
const SOON: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Sixteen GPUs with a hundred fields each have under 1 MB.
const LONGEST_BODY: usize = 8 * 1024 * 1024;
/// What the exporter told is held true for so long after it fell silent.
const HOLDS: Duration = Duration::from_secs(120);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("no answer: {}", innermost(.0))]
    Unreachable(#[from] reqwest::Error),
    #[error("status {0}")]
    Refused(StatusCode),
    #[error("the answer is longer than {LONGEST_BODY} bytes")]
    TooLong,
    #[error("it tells of no GPU")]
    Nothing,
}

/// What the exporter told last. The task that asks ends when this is dropped.
pub(super) struct Gpus {
    told: watch::Receiver<Option<GpuUse>>,
    _task: AbortOnDropHandle<()>,
}

impl Gpus {
    /// Asks from now on, or from when the Node is seen to have GPUs; `None` where nobody is to be asked.
    pub(super) fn start(
        choice: GpuChoice,
        has_gpus: watch::Receiver<bool>,
        pod_names: PodNamesQuestion,
    ) -> Option<Self> {
        let (url, has_gpus) = match choice {
            GpuChoice::Off => return None,
            GpuChoice::OnceThereAre(url) => (url, Some(has_gpus)),
            GpuChoice::Url(url) => (url, None),
        };
        let (sender, told) = watch::channel(None);
        let task = tokio::spawn(follow(url, has_gpus, pod_names, sender));
        Some(Self { told, _task: AbortOnDropHandle::new(task) })
    }

    /// Writes what is known into a digest.
    pub(super) fn write(&self, digest: &mut UsageDigest) {
        if let Some(told) = &*self.told.borrow() {
            told.write(digest);
        }
    }
}

async fn follow(
    url: String,
    has_gpus: Option<watch::Receiver<bool>>,
    pod_names: PodNamesQuestion,
    told: watch::Sender<Option<GpuUse>>,
) {
    if let Some(mut has_gpus) = has_gpus
        && has_gpus.wait_for(|has| *has).await.is_err()
    {
        return;
    }
    let client = match client(&url) {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "The client for GPU metrics can't be built.");
            return;
        }
    };
    let mut heard_at = Instant::now();
    let mut failures = 0_u32;
    let mut told_silent = false;
    loop {
        let mut interval = INTERVAL;
        match ask(&client, &url, &pod_names).await {
            Ok((usage, are_pods_known)) => {
                if std::mem::take(&mut told_silent) {
                    tracing::info!(%url, "The exporter of GPU metrics answers again.");
                }
                (failures, heard_at) = (0, Instant::now());
                told.send_replace(Some(usage));
                if !are_pods_known {
                    interval = SOON;
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                if failures >= LASTING && !std::mem::replace(&mut told_silent, true) {
                    tracing::warn!(%url, %error, "No exporter tells GPU metrics; GPUs' use is unknown.");
                }
            }
        }
        let holds = match failures {
            0 => Duration::MAX,
            _ => HOLDS.saturating_sub(heard_at.elapsed()),
        };
        rest(&told, pause(interval, failures), holds).await;
    }
}

fn client(url: &str) -> Result<Client, reqwest::Error> {
    let mut builder = Client::builder()
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(1)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none());
    if url.starts_with("http://") {
        builder = builder.tls_certs_only([]);
    }
    builder.build()
}

/// What it tells, and whether pods of this node were known by then.
async fn ask(
    client: &Client,
    url: &str,
    pod_names: &PodNamesQuestion,
) -> Result<(GpuUse, bool), AskError> {
    let names = pod_names.ask().await;
    let mut response = client.get(url).timeout(TIMEOUT).send().await?;
    if !response.status().is_success() {
        return Err(AskError::Refused(response.status()));
    }
    let (mut lines, mut reading) = (Lines::default(), GpuReading::default());
    let mut length = 0_usize;
    while let Some(piece) = response.chunk().await? {
        length = length.saturating_add(piece.len());
        if length > LONGEST_BODY {
            return Err(AskError::TooLong);
        }
        lines.feed(&piece, |line| reading.take(line, &names));
    }
    let usage = reading.usage().ok_or(AskError::Nothing)?;
    Ok((usage, !names.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn nobody_is_asked_before_the_node_has_gpus() {
        drover_kubernetes::install_crypto_provider();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let exporter = axum::Router::new().route(
            "/metrics",
            axum::routing::get(async move || {
                counted.fetch_add(1, Ordering::Relaxed);
                "DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 50\n"
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, exporter).await.unwrap() });
        let (gpus, has_gpus) = watch::channel(false);
        let (sender, mut told) = watch::channel(None);
        // Nobody answers which pods run.
        let (names, _) = PodNamesQuestion::channel();
        let task = tokio::spawn(follow(url, Some(has_gpus), names, sender));
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        gpus.send_replace(true);
        let wait = told.wait_for(Option::is_some);
        tokio::time::timeout(Duration::from_secs(5), wait).await.expect("it is asked").unwrap();
        assert!(asked.load(Ordering::Relaxed) > 0);
        task.abort();
    }
}
