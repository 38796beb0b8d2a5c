//! The envelope every Raft request travels in, and the paths they are posted to.

use serde::{Deserialize, Serialize};

use super::types::{ReplicaId, SnapshotMeta, Vote};

/// Raised when a request or an answer changes its meaning.
pub(super) const PROTOCOL: u32 = 1;

/// Where a replica tells who it is.
pub(super) const IDENTITY_PATH: &str = "/raft/v1/identity";

/// The requests of the Raft protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rpc {
    Append,
    Vote,
    PreVote,
    Snapshot,
    TransferLeader,
}

impl Rpc {
    pub(super) const fn path(self) -> &'static str {
        match self {
            Rpc::Append => "/raft/v1/append",
            Rpc::Vote => "/raft/v1/vote",
            Rpc::PreVote => "/raft/v1/pre-vote",
            Rpc::Snapshot => "/raft/v1/snapshot",
            Rpc::TransferLeader => "/raft/v1/transfer-leader",
        }
    }
}

/// From whom, to whom, in which group. The receiver refuses what is not for it: Raft is safe only
/// while every request reaches the replica it was meant for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) protocol: u32,
    pub(super) cluster: String,
    pub(super) sender: ReplicaId,
    pub(super) receiver: ReplicaId,
    pub(super) body: T,
}

/// The first line of a snapshot request; the state's bytes follow after a line break.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SnapshotHeader {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
}

/// What a replica tells of itself to one that starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct IdentityAnswer {
    pub(super) replica: ReplicaId,
    pub(super) cluster: Option<String>,
}
