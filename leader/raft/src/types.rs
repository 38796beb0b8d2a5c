//! The types openraft is set up with. The leader sees none of them but [`ReplicaId`].

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use drover_core::command::Command;
use openraft::RaftTypeConfig;
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Serialize};

/// A replica's number in the peer list; never reused for a replica with an empty volume.
pub type ReplicaId = u64;

/// What a log entry carries. Shared, because the log store's readers hand out copies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogCommand(pub Arc<Command>);

impl fmt::Display for LogCommand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "command of {}", self.0.at)
    }
}

/// Where a replica listens, as the log's membership entry tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaAddress {
    /// `host:port` of its Raft listener.
    pub raft: String,
    /// `host:port` of its API.
    pub api: String,
}

openraft::declare_raft_types!(
    /// openraft's type configuration: standard Raft, one leader a term at most.
    pub TypeConfig:
        D = LogCommand,
        R = drover_core::state::Applied,
        NodeId = ReplicaId,
        Node = ReplicaAddress,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

type LeaderId = leader_id_std::LeaderId<u64, ReplicaId>;
type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;

/// A log entry.
pub type Entry = <TypeConfig as RaftTypeConfig>::Entry;
/// A replica's vote.
pub type Vote = openraft::impls::Vote<LeaderId>;
/// A log position and the leader that wrote it.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// A membership and the entry it came with.
pub type StoredMembership =
    openraft::StoredMembership<CommittedLeaderId, ReplicaId, ReplicaAddress>;
/// What a snapshot holds.
pub type SnapshotMeta =
    openraft::storage::SnapshotMeta<CommittedLeaderId, ReplicaId, ReplicaAddress>;
/// A snapshot whose data is the state as JSON.
pub type Snapshot =
    openraft::storage::Snapshot<CommittedLeaderId, ReplicaId, ReplicaAddress, Bytes>;
