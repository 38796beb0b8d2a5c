//! The types openraft is set up with. The leader sees none of them but [`ReplicaId`]
//! and [`MemberId`].

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use drover_core::command::Command;
use openraft::RaftTypeConfig;
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Serialize};

/// A replica's number in the peer list: what operators configure and see.
pub type ReplicaId = u64;

/// What Raft knows a volume by. It is kept in the log's file and lost with it: whoever has forgotten what it
/// voted for and what it holds must not vote again under the name that it did so under.
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MemberId(u64);

impl MemberId {
    /// An id that no volume has ever had: 52 random bits, above all replicas' numbers, and below 2^53, so
    /// that every reader of JSON takes it as it is.
    pub(crate) fn random() -> Self {
        Self((random_word() >> 11) | (1 << 52))
    }

    /// The member that stands for a replica with no volume of its own: in a new group, a replica that has
    /// never answered. No volume takes such an id. In groups from before there were ids the replica has it.
    pub(crate) fn of_replica(replica: ReplicaId) -> Self {
        Self(replica)
    }

    /// The replica that has this id, in groups from before there were ids.
    pub(crate) fn as_replica(self) -> ReplicaId {
        self.0
    }
}

impl From<u64> for MemberId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// 64 random bits: the standard library seeds every `RandomState` from the system.
pub(crate) fn random_word() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What a log entry carries. Shared, because the log store's readers hand out copies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogCommand(pub Arc<Command>);

impl fmt::Display for LogCommand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "command of {}", self.0.at)
    }
}

/// Which replica a member is and where it listens, as the log's membership entry tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaAddress {
    /// Its number; entries from before there were member ids lack it.
    #[serde(default)]
    pub replica: Option<ReplicaId>,
    /// `host:port` of its Raft listener.
    pub raft: String,
    /// `host:port` of its API.
    pub api: String,
}

impl ReplicaAddress {
    /// The number of the replica that `member` is.
    pub(crate) fn replica_of(&self, member: MemberId) -> ReplicaId {
        self.replica.unwrap_or_else(|| member.as_replica())
    }
}

/// The number of the replica that a member is, where the membership knows it.
pub(crate) fn replica_of(membership: &StoredMembership, member: MemberId) -> Option<ReplicaId> {
    membership.get_node(&member).map(|address| address.replica_of(member))
}

openraft::declare_raft_types!(
    /// openraft's type configuration: standard Raft, one leader a term at most.
    pub TypeConfig:
        D = LogCommand,
        R = drover_core::state::Applied,
        NodeId = MemberId,
        Node = ReplicaAddress,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

type LeaderId = leader_id_std::LeaderId<u64, MemberId>;
type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;

/// A log entry.
pub type Entry = <TypeConfig as RaftTypeConfig>::Entry;
/// A replica's vote.
pub type Vote = openraft::impls::Vote<LeaderId>;
/// A log position and the leader that wrote it.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// A membership and the entry it came with.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, MemberId, ReplicaAddress>;
/// What a snapshot holds.
pub type SnapshotMeta =
    openraft::storage::SnapshotMeta<CommittedLeaderId, MemberId, ReplicaAddress>;
pub(crate) type MembershipChange = openraft::ChangeMembers<MemberId, ReplicaAddress>;
/// A snapshot whose data is the state as JSON.
pub type Snapshot = openraft::storage::Snapshot<CommittedLeaderId, MemberId, ReplicaAddress, Bytes>;
