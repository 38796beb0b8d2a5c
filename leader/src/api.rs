//! The HTTP API: for operators (`/v1`), for agents (`/agent/v1`), for probes and scrapes.

mod agents;
mod decisions;
mod health;
mod metrics;
mod proxy;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::json;

use crate::raft::Group;
use crate::run::{BrainClosed, BrainHandle, Counters};

/// How long a connection to the leader may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// What every handler reads.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    group: Arc<Group>,
    brain: BrainHandle,
    counters: Arc<Counters>,
    leader_client: reqwest::Client,
}

impl Shared {
    pub(crate) fn new(
        group: Arc<Group>,
        brain: BrainHandle,
        counters: Arc<Counters>,
    ) -> Result<Self, reqwest::Error> {
        let leader_client =
            reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).no_proxy().build()?;
        Ok(Self { group, brain, counters, leader_client })
    }

    fn is_leading(&self) -> bool {
        self.group.leadership().borrow().term().is_some()
    }
}

/// All routes.
pub(crate) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(status::status))
        .route("/v1/nodes", get(status::nodes))
        .route("/v1/decisions", get(decisions::decisions))
        .route("/agent/v1/reports", post(agents::reports))
        .route("/agent/v1/directives", get(agents::directives))
        .with_state(shared.clone())
        .merge(health_router(shared.clone()))
        .merge(metrics_router(shared))
}

/// `/healthz` and `/readyz` alone.
pub(crate) fn health_router(shared: Shared) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .with_state(shared)
}

/// `/metrics` alone.
pub(crate) fn metrics_router(shared: Shared) -> Router {
    Router::new().route("/metrics", get(metrics::metrics)).with_state(shared)
}

/// Why a request was not answered as asked.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("there is no leader at the moment")]
    NoLeader,
    #[error("the leader did not answer: {0}")]
    LeaderSilent(reqwest::Error),
    #[error(transparent)]
    Stopping(#[from] BrainClosed),
    #[error("{0}")]
    BadRequest(String),
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.to_string() }));
        match self {
            ApiError::BadRequest(_) => (StatusCode::BAD_REQUEST, body).into_response(),
            ApiError::NoLeader | ApiError::LeaderSilent(_) | ApiError::Stopping(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], body).into_response()
            }
        }
    }
}
