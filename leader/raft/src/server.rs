//! The receiving side of the Raft transport.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use openraft::Snapshot;
use openraft::raft::AppendEntriesResponse;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::heard::Heard;
use crate::identity::IdentityFile;
use crate::state_machine::StateMachine;
use crate::types::{MemberId, ReplicaId, TypeConfig};
use crate::wire::{
    Envelope, IDENTITY_PATH, IdentityAnswer, JOIN_PATH, JoinRequest, PROTOCOL, Rpc, SnapshotHeader,
};

/// A snapshot of ten thousand nodes is some tens of megabytes.
const LARGEST_REQUEST: usize = 512 << 20;

type Raft = openraft::Raft<TypeConfig, StateMachine>;

#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) raft: Raft,
    pub(crate) replica: ReplicaId,
    pub(crate) member: MemberId,
    pub(crate) identity: Arc<IdentityFile>,
    pub(crate) admission: Admission,
    pub(crate) heard: Heard,
}

/// Why a request was not handed to Raft.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the request is unreadable: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("the snapshot has no header line")]
    NoHeader,
    #[error("protocol {0} is not spoken here, {PROTOCOL} is")]
    Protocol(u32),
    #[error("this is member {own}, and the request is for {receiver}")]
    OtherReceiver { own: MemberId, receiver: MemberId },
    #[error("sender {0} is not another replica of the peer list")]
    UnknownSender(ReplicaId),
    #[error("this replica does not lead")]
    NotLeading,
    #[error(transparent)]
    Identity(#[from] crate::identity::IdentityError),
    #[error("Raft has stopped: {0}")]
    Stopped(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Refusal::Unreadable(_) | Refusal::NoHeader | Refusal::Protocol(_) => {
                StatusCode::BAD_REQUEST
            }
            Refusal::OtherReceiver { .. } => StatusCode::MISDIRECTED_REQUEST,
            Refusal::UnknownSender(_) => StatusCode::FORBIDDEN,
            Refusal::Identity(_) => StatusCode::CONFLICT,
            Refusal::NotLeading | Refusal::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, self.to_string()).into_response()
    }
}

impl Receiver {
    fn open<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, Refusal> {
        let envelope: Envelope<T> = serde_json::from_slice(bytes)?;
        if envelope.protocol != PROTOCOL {
            return Err(Refusal::Protocol(envelope.protocol));
        }
        if envelope.receiver != self.member {
            return Err(Refusal::OtherReceiver { own: self.member, receiver: envelope.receiver });
        }
        let sender = envelope.replica.unwrap_or_else(|| envelope.sender.as_replica());
        if !self.admission.knows(sender) {
            return Err(Refusal::UnknownSender(sender));
        }
        self.identity.adopt(&envelope.cluster)?;
        Ok(envelope.body)
    }
}

fn answer<T: Serialize, E: std::fmt::Display>(result: Result<T, E>) -> Result<Json<T>, Refusal> {
    result.map(Json).map_err(|error| Refusal::Stopped(error.to_string()))
}

/// Where requests are attended to: in tasks of the group, none of which calls Raft after `stop`.
///
/// Neither the end of a connection nor that of Raft may drop such a call: where Raft has ended, the first caller
/// waits for it on behalf of all others, and openraft panics in those if that one is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Reception {
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

async fn attend(State(reception): State<Reception>, request: Request, next: Next) -> Response {
    let Reception { tasks, stop } = reception;
    let answer = stop.run_until_cancelled_owned(next.run(request));
    match tasks.spawn(answer).await {
        Ok(Some(answer)) => answer,
        Ok(None) | Err(_) => {
            Refusal::Stopped("this replica is stopping".to_owned()).into_response()
        }
    }
}

/// The routes of the Raft listener.
pub(crate) fn router(receiver: Receiver, reception: Reception) -> Router {
    Router::new()
        .route(Rpc::Append.path(), post(append))
        .route(Rpc::Vote.path(), post(vote))
        .route(Rpc::PreVote.path(), post(pre_vote))
        .route(Rpc::Snapshot.path(), post(snapshot))
        .route(Rpc::TransferLeader.path(), post(transfer_leader))
        .route(IDENTITY_PATH, get(identity))
        .route(JOIN_PATH, post(join))
        .layer(DefaultBodyLimit::max(LARGEST_REQUEST))
        .layer(from_fn_with_state(reception, attend))
        .with_state(receiver)
}

async fn append(State(receiver): State<Receiver>, body: Bytes) -> Result<Response, Refusal> {
    let request = receiver.open(&body)?;
    let answered = receiver.raft.append_entries(request).await;
    // Whoever has a vote that is behind leads nobody here.
    if answered.as_ref().is_ok_and(|answer| !matches!(answer, AppendEntriesResponse::HigherVote(_)))
    {
        receiver.heard.again();
    }
    Ok(answer(answered)?.into_response())
}

async fn vote(State(receiver): State<Receiver>, body: Bytes) -> Result<Response, Refusal> {
    let request = receiver.open(&body)?;
    Ok(answer(receiver.raft.vote(request).await)?.into_response())
}

async fn pre_vote(State(receiver): State<Receiver>, body: Bytes) -> Result<Response, Refusal> {
    let request = receiver.open(&body)?;
    Ok(answer(receiver.raft.pre_vote(request).await)?.into_response())
}

async fn snapshot(State(receiver): State<Receiver>, body: Bytes) -> Result<Response, Refusal> {
    let end = body.iter().position(|byte| *byte == b'\n').ok_or(Refusal::NoHeader)?;
    let SnapshotHeader { vote, meta } = receiver.open(&body.slice(..end))?;
    let snapshot = Snapshot { meta, snapshot: body.slice(end.saturating_add(1)..) };
    Ok(answer(receiver.raft.install_full_snapshot(vote, snapshot).await)?.into_response())
}

async fn transfer_leader(
    State(receiver): State<Receiver>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let request = receiver.open(&body)?;
    Ok(answer(receiver.raft.handle_transfer_leader(request).await)?.into_response())
}

async fn identity(State(receiver): State<Receiver>) -> Json<IdentityAnswer> {
    Json(IdentityAnswer {
        replica: receiver.replica,
        member: Some(receiver.member),
        cluster: receiver.identity.cluster(),
    })
}

/// Answers at once: a new member may have a long log to catch up with.
async fn join(State(receiver): State<Receiver>, body: Bytes) -> Result<StatusCode, Refusal> {
    let request: JoinRequest = serde_json::from_slice(&body)?;
    if request.protocol != PROTOCOL {
        return Err(Refusal::Protocol(request.protocol));
    }
    if !receiver.admission.knows(request.replica) {
        return Err(Refusal::UnknownSender(request.replica));
    }
    if let Some(cluster) = &request.cluster {
        receiver.identity.check(cluster)?;
    }
    if !receiver.admission.begin(request.replica, request.member) {
        return Err(Refusal::NotLeading);
    }
    Ok(StatusCode::ACCEPTED)
}
