//! The HTTP API: for operators (`/v1`), for agents (`/agent/v1`), for probes and scrapes.

mod agents;
mod decisions;
mod gate;
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
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use drover_raft::Group;
use drover_tls::ClientCredentials;
use serde_json::json;

pub(crate) use gate::Gate;
use gate::Refusal;

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
    /// `http` or `https`, as the other replicas serve their APIs.
    scheme: &'static str,
    gate: Gate,
}

impl Shared {
    pub(crate) fn new(
        group: Arc<Group>,
        brain: BrainHandle,
        counters: Arc<Counters>,
        gate: Gate,
        peers: Option<&ClientCredentials>,
    ) -> Result<Self, reqwest::Error> {
        // A connection for each request: what agents wait for is held open for long, and would use up the
        // streams that one HTTP/2 connection may have.
        let builder =
            reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).no_proxy().http1_only();
        let (scheme, builder) = match peers {
            None => ("http", builder),
            Some(peers) => ("https", builder.tls_certs_only(peers.authorities.clone())),
        };
        Ok(Self { group, brain, counters, leader_client: builder.build()?, scheme, gate })
    }

    fn is_leading(&self) -> bool {
        self.group.leadership().borrow().term().is_some()
    }
}

/// All routes.
pub(crate) fn router(shared: Shared) -> Router {
    let operators = axum::middleware::from_fn_with_state(shared.clone(), gate::operators);
    Router::new()
        .route("/v1/status", get(status::status))
        .route("/v1/nodes", get(status::nodes))
        .route("/v1/decisions", get(decisions::decisions))
        .route_layer(operators)
        .route("/agent/v1/reports", post(agents::reports))
        .route("/agent/v1/directives", get(agents::directives))
        .route("/agent/v1/nonces", post(agents::nonces))
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
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.to_string() }));
        match self {
            ApiError::BadRequest(_) => (StatusCode::BAD_REQUEST, body).into_response(),
            ApiError::Refused(Refusal::NoToken | Refusal::UnknownToken) => {
                (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], body).into_response()
            }
            ApiError::Refused(Refusal::Forbidden(_)) => {
                (StatusCode::FORBIDDEN, body).into_response()
            }
            ApiError::NoLeader | ApiError::LeaderSilent(_) | ApiError::Stopping(_) => {
                let headers = [(RETRY_AFTER, "1"), (proxy::NO_LEADER, "1")];
                (StatusCode::SERVICE_UNAVAILABLE, headers, body).into_response()
            }
            ApiError::Refused(Refusal::Unreviewed(_) | Refusal::Busy) => {
                (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], body).into_response()
            }
        }
    }
}
