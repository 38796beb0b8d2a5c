//! What operators look at.

use axum::extract::State;
use axum::response::Json;
use drover_core::control::{NodeSummary, Status};
use drover_raft::{GroupStatus, Role};
use serde::Serialize;

use super::{ApiError, Shared};

/// `/v1/status`: this replica at a glance. Figures of the state are the same on all replicas; what
/// only a leader knows is empty elsewhere.
#[derive(Debug, Serialize)]
pub(super) struct ReplicaStatus {
    role: Role,
    leader: Option<u64>,
    term: u64,
    cost_per_hour_dollars: f64,
    raft: GroupStatus,
    #[serde(flatten)]
    status: Status,
}

pub(super) async fn status(State(shared): State<Shared>) -> Result<Json<ReplicaStatus>, ApiError> {
    let mut raft = shared.group.status();
    // A replica says that it leads only once it may act as a leader.
    if raft.role == Role::Leader && !shared.is_leading() {
        raft.role = Role::Candidate;
    }
    let status = *shared.brain.status().await?;
    Ok(Json(ReplicaStatus {
        role: raft.role,
        leader: raft.leader,
        term: raft.term,
        cost_per_hour_dollars: dollars(status.hourly_price_micro),
        raft,
        status,
    }))
}

#[derive(Debug, Serialize)]
pub(super) struct Nodes {
    nodes: Vec<NodeSummary>,
}

/// `/v1/nodes`: every claim that is not gone.
pub(super) async fn nodes(State(shared): State<Shared>) -> Result<Json<Nodes>, ApiError> {
    Ok(Json(Nodes { nodes: shared.brain.nodes().await? }))
}

/// Micro-dollars in dollars, for people. No decision reads it.
pub(super) fn dollars(micro: u64) -> f64 {
    micro as f64 / 1e6
}
