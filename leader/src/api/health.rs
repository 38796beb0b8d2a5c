//! Probes.

use axum::extract::State;
use axum::http::StatusCode;
use drover_raft::{Leadership, Role};

use super::Shared;

/// A replica further behind than this many entries is not ready.
const LARGEST_LAG: u64 = 100;

/// Alive: Raft runs. It says nothing of a quorum, or the loss of one would restart all replicas.
pub(super) async fn healthz(State(shared): State<Shared>) -> (StatusCode, String) {
    match &*shared.group.leadership().borrow() {
        Leadership::Failed { reason } => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("Raft has stopped: {reason}\n"))
        }
        Leadership::Leading { .. } | Leadership::Following { .. } => {
            (StatusCode::OK, "ok\n".to_owned())
        }
    }
}

/// Ready: a leader is known, and what is committed is applied here or nearly so.
pub(super) async fn readyz(State(shared): State<Shared>) -> (StatusCode, String) {
    let status = shared.group.status();
    let lag = status.committed.saturating_sub(status.applied);
    let reason = if status.role == Role::Stopped {
        Some("Raft has stopped".to_owned())
    } else if status.leader.is_none() {
        Some("no leader is known".to_owned())
    } else if lag > LARGEST_LAG {
        Some(format!("{lag} committed entries are not applied yet"))
    } else {
        None
    };
    match reason {
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        None => (StatusCode::OK, "ok\n".to_owned()),
    }
}
