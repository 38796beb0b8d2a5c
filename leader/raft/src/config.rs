//! What a replica is told of its group.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use openraft::SnapshotPolicy;

use crate::GroupError;
use crate::types::ReplicaId;

/// The group's timings. The defaults give a new leader about two seconds after a crash and ride out
/// a disk that stalls for half a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// How often a leader shows that it lives.
    pub heartbeat: Duration,
    /// The shortest silence after which a follower stands for election.
    pub election_min: Duration,
    /// The longest such silence, and how long a leader's lease lasts.
    pub election_max: Duration,
    /// How long a leader without a quorum stays silent before it tries again, so that the others
    /// can elect; at least twice `election_max`.
    pub quorum_loss_probe: Duration,
    /// How long sending a snapshot may take.
    pub install_snapshot: Duration,
    /// A snapshot is taken after this many entries.
    pub snapshot_after_entries: u64,
    /// And when those that are kept take so many bytes: in a large cluster entries are large.
    pub snapshot_after_bytes: usize,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
            quorum_loss_probe: Duration::from_millis(2000),
            install_snapshot: Duration::from_secs(20),
            snapshot_after_entries: 2_000,
            snapshot_after_bytes: 32 << 20,
        }
    }
}

/// One replica of a peer list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `host:port` of its Raft listener.
    pub raft: String,
    /// `host:port` of its API.
    pub api: String,
}

/// What a replica needs to take part.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// The group's name, for messages.
    pub name: String,
    /// This replica.
    pub replica: ReplicaId,
    /// Every replica, this one included.
    pub peers: BTreeMap<ReplicaId, Peer>,
    /// Where log, snapshots and identity are kept.
    pub folder: PathBuf,
    /// Timings.
    pub timings: Timings,
}

/// The configuration as openraft's.
///
/// # Errors
/// [`GroupError::Timings`]: they contradict each other.
pub(crate) fn raft_settings(config: &GroupConfig) -> Result<openraft::Config, GroupError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let timings = config.timings;
    openraft::Config {
        cluster_name: config.name.clone(),
        heartbeat_interval: millis(timings.heartbeat),
        election_timeout_min: millis(timings.election_min),
        election_timeout_max: millis(timings.election_max),
        quorum_loss_probe_interval: Some(millis(timings.quorum_loss_probe)),
        install_snapshot_timeout: millis(timings.install_snapshot),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(timings.snapshot_after_entries),
        max_in_snapshot_log_to_keep: timings.snapshot_after_entries / 4,
        purge_batch_size: 64,
        enable_pre_vote: Some(true),
        // The state machine is in memory: what a restarted leader has applied may be old.
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    }
    .validate()
    .map_err(|error| GroupError::Timings(error.to_string()))
}
