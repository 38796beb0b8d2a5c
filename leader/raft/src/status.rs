//! What a replica knows of the group, for operators and metrics.

use std::collections::{BTreeMap, BTreeSet};

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant, RaftMetrics};
use serde::Serialize;

use crate::Group;
use crate::types::{LogId, MemberId, ReplicaId, TypeConfig, replica_of};

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
    /// It has no vote: it takes the log, or is yet to be let in.
    Learner,
    /// It has stopped.
    Stopped,
}

/// A replica's view of the group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupStatus {
    /// This replica.
    pub replica: ReplicaId,
    /// What Raft knows its volume by.
    pub member: MemberId,
    /// The group's id, once there is one.
    pub cluster: Option<String>,
    /// What this replica is.
    pub role: Role,
    /// The term it is in.
    pub term: u64,
    /// Who leads, if known: it was heard lately, or leads here with a majority that answers.
    pub leader: Option<ReplicaId>,
    /// The group's members, voters or not, and which replica each is: two of one replica while a new volume
    /// is let in, and the replica's number itself for one that has never been there.
    pub members: BTreeMap<MemberId, ReplicaId>,
    /// The replicas that count in a majority.
    pub voters: BTreeSet<ReplicaId>,
    /// Whether the voters are being changed: until that is over, a majority of those before counts, too.
    pub changing: bool,
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
    /// On the leader: last entry each other replica is known to have.
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
        let position = |log_id: Option<LogId>| log_id.map_or(0, |id| id.index);
        let membership = &metrics.membership_config;
        let replica = |member| replica_of(membership, member);
        // While a replica's new member takes the place of its old one, what it has is the new one's.
        let mut followers = BTreeMap::new();
        for (member, matching) in metrics.replication.iter().flatten() {
            if *member != metrics.id
                && let Some(replica) = replica(*member)
            {
                let known: &mut u64 = followers.entry(replica).or_default();
                *known = position(*matching).max(*known);
            }
        }
        GroupStatus {
            replica: self.config.replica,
            member: metrics.id,
            cluster: self.identity.cluster(),
            role,
            term: metrics.current_term,
            leader: metrics
                .current_leader
                .filter(|leader| self.is_heard(&metrics, *leader))
                .and_then(replica),
            members: membership.nodes().map(|(id, node)| (*id, node.replica_of(*id))).collect(),
            voters: membership.voter_ids().filter_map(replica).collect(),
            changing: membership.membership().get_joint_config().len() > 1,
            last_log: metrics.last_log_index.unwrap_or(0),
            log_bytes: self.log.bytes(),
            committed: position(metrics.local_committed.max(metrics.cluster_committed)),
            applied: position(metrics.last_applied),
            snapshot: position(metrics.snapshot),
            followers,
            quorum_silence_millis: metrics
                .last_quorum_acked
                .map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Whether the member that led last still leads, as far as this replica can tell.
    fn is_heard(&self, metrics: &RaftMetrics<TypeConfig>, leader: MemberId) -> bool {
        let span = self.config.timings.election_max * 2;
        if leader != metrics.id {
            return self.heard.is_within(span);
        }
        let alone = metrics.membership_config.membership().voter_ids().count() <= 1;
        alone || metrics.last_quorum_acked.is_some_and(|at| at.elapsed() <= span)
    }

    /// Milliseconds the slowest write to the log's disk took since the last call.
    pub fn slowest_flush_millis(&self) -> u64 {
        self.log.slowest_flush_millis()
    }
}
