//! The envelope every Raft request travels in, and the paths they are posted to.

use serde::{Deserialize, Serialize};

use crate::types::{MemberId, ReplicaId, SnapshotMeta, Vote};

/// Raised when a request or an answer changes its meaning.
pub(crate) const PROTOCOL: u32 = 1;

/// Where a replica tells who it is.
pub(crate) const IDENTITY_PATH: &str = "/raft/v1/identity";

/// Where a replica asks the leader for a vote in the group.
pub(crate) const JOIN_PATH: &str = "/raft/v1/join";

/// The requests of the Raft protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rpc {
    Append,
    Vote,
    PreVote,
    Snapshot,
    TransferLeader,
}

impl Rpc {
    pub(crate) const fn path(self) -> &'static str {
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
/// while every request reaches the member it was meant for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Envelope<T> {
    pub(crate) protocol: u32,
    pub(crate) cluster: String,
    pub(crate) sender: MemberId,
    /// The sender's number in the peer list; before there were member ids they were the numbers.
    #[serde(default)]
    pub(crate) replica: Option<ReplicaId>,
    pub(crate) receiver: MemberId,
    pub(crate) body: T,
}

/// The first line of a snapshot request; the state's bytes follow after a line break.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotHeader {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
}

/// What a replica tells of itself to one that starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IdentityAnswer {
    /// Its number in the peer list.
    pub replica: ReplicaId,
    /// What Raft knows it by; `None` from replicas that do not know of such ids.
    #[serde(default)]
    pub member: Option<MemberId>,
    /// The group it is in, if any.
    pub cluster: Option<String>,
}

/// A replica's wish to have a vote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    pub(crate) protocol: u32,
    /// The group it was told of before, if any.
    pub(crate) cluster: Option<String>,
    pub(crate) replica: ReplicaId,
    pub(crate) member: MemberId,
}
