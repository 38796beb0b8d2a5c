//! What a replica knows of the group, for operators and metrics.

use std::collections::BTreeMap;

use openraft::Instant;
use openraft::async_runtime::WatchReceiver;
use serde::Serialize;

use crate::Group;
use crate::types::ReplicaId;

/// What a replica is in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows.
    Follower,
    /// It stands for election.
    Candidate,
    /// It takes the log but has no vote.
    Learner,
    /// It has stopped.
    Stopped,
}

/// A replica's view of the group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupStatus {
    /// This replica.
    pub replica: ReplicaId,
    /// The group's id, once there is one.
    pub cluster: Option<String>,
    /// What this replica is.
    pub role: Role,
    /// The term it is in.
    pub term: u64,
    /// Who leads, if known.
    pub leader: Option<ReplicaId>,
    /// The voters.
    pub voters: Vec<ReplicaId>,
    /// Last entry in this replica's log.
    pub last_log: u64,
    /// Bytes of this replica's log, without what was purged into its snapshot.
    pub log_bytes: usize,
    /// Last entry known to be committed.
    pub committed: u64,
    /// Last entry applied here.
    pub applied: u64,
    /// Last entry in this replica's snapshot.
    pub snapshot: u64,
    /// On the leader: last entry each follower is known to have.
    pub followers: BTreeMap<ReplicaId, u64>,
    /// On the leader: milliseconds since a quorum answered.
    pub quorum_silence_millis: Option<u64>,
}

impl Group {
    /// What this replica knows of the group.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let role = match metrics.state {
            openraft::ServerState::Leader => Role::Leader,
            openraft::ServerState::Follower => Role::Follower,
            openraft::ServerState::Candidate => Role::Candidate,
            openraft::ServerState::Learner => Role::Learner,
            openraft::ServerState::Shutdown => Role::Stopped,
        };
        let position = |log_id: Option<crate::types::LogId>| log_id.map_or(0, |id| id.index);
        let followers = metrics.replication.into_iter().flatten();
        GroupStatus {
            replica: metrics.id,
            cluster: self.identity.cluster(),
            role,
            term: metrics.current_term,
            leader: metrics.current_leader,
            voters: metrics.membership_config.membership().voter_ids().collect(),
            last_log: metrics.last_log_index.unwrap_or(0),
            log_bytes: self.log.bytes(),
            committed: position(metrics.local_committed.max(metrics.cluster_committed)),
            applied: position(metrics.last_applied),
            snapshot: position(metrics.snapshot),
            followers: followers.map(|(id, matching)| (id, position(matching))).collect(),
            quorum_silence_millis: metrics
                .last_quorum_acked
                .map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Milliseconds the slowest write to the log's disk took since the last call.
    pub fn slowest_flush_millis(&self) -> u64 {
        self.log.slowest_flush_millis()
    }
}
