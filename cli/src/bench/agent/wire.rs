//! What an agent talks to, with its bytes counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::Json;
use axum::extract::State;
use axum::routing::{get, post};
use drover_common::protocol::{Directives, Report, ReportAnswer};
use tokio::net::{TcpListener, TcpStream};

/// How long a leader holds a poll for directives.
const POLL: Duration = Duration::from_secs(25);

/// Carries connections on and counts the bytes of both directions.
pub(super) struct Forwarder {
    /// Where it listens, as a URL.
    pub(super) url: String,
    bytes: Arc<AtomicU64>,
}

impl Forwarder {
    /// Forwards to the server at `url`.
    pub(super) async fn start(url: &str) -> anyhow::Result<Self> {
        let target = url.strip_prefix("http://").context("not an http URL")?;
        let target = target.split('/').next().unwrap_or_default().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let bytes = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&bytes);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (target, count) = (target.clone(), Arc::clone(&count));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    let (from, to) = (stream.into_split(), server.into_split());
                    tokio::join!(
                        carry(from.0, to.1, Arc::clone(&count)),
                        carry(to.0, from.1, count),
                    );
                });
            }
        });
        Ok(Self { url, bytes })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    count: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::io::AsyncReadExt::read(&mut from, &mut buffer).await.unwrap_or(0);
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { return };
        count.fetch_add(u64::try_from(read).unwrap_or(0), Ordering::Relaxed);
        if tokio::io::AsyncWriteExt::write_all(&mut to, part).await.is_err() {
            return;
        }
    }
}

/// Takes reports and has no directives.
pub(super) struct Leader {
    pub(super) url: String,
    reports: Arc<AtomicU64>,
}

impl Leader {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let reports = Arc::new(AtomicU64::new(0));
        let router = axum::Router::new()
            .route("/agent/v1/reports", post(take))
            .route("/agent/v1/directives", get(hold))
            .with_state(Arc::clone(&reports));
        tokio::spawn(axum::serve(listener, router).into_future());
        Ok(Self { url, reports })
    }

    pub(super) fn reports(&self) -> u64 {
        self.reports.load(Ordering::Relaxed)
    }
}

async fn take(
    State(reports): State<Arc<AtomicU64>>,
    Json(_report): Json<Report>,
) -> Json<ReportAnswer> {
    reports.fetch_add(1, Ordering::Relaxed);
    Json(ReportAnswer { committed: true, ..ReportAnswer::default() })
}

async fn hold() -> Json<Directives> {
    tokio::time::sleep(POLL).await;
    Json(Directives::default())
}
