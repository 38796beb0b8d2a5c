//! Groups of real replicas over loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_core::command::{Change, Command};
use drover_raft::parts::ReplicaAddress;
use drover_raft::{
    Group, GroupConfig, GroupStatus, MemberId, Peer, ProposeError, ReplicaId, Role, Timings,
    Transport,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// Beyond what the entries of most tests take together.
pub(crate) const MOST_BYTES: usize = 100_000;

fn replica_config(
    replica: ReplicaId,
    peers: &BTreeMap<ReplicaId, Peer>,
    folder: &Path,
) -> GroupConfig {
    GroupConfig {
        name: "test".to_owned(),
        replica,
        peers: peers.clone(),
        folder: folder.to_owned(),
        timings: Timings {
            snapshot_after_entries: 50,
            snapshot_after_bytes: MOST_BYTES,
            ..Timings::default()
        },
    }
}

pub(crate) fn pause_by(name: &str) -> Command {
    let change = Change::SetPause {
        nodepool: Some(name.into()),
        paused: true,
        by: "test".to_owned(),
        reason: "test".to_owned(),
    };
    Command { at: jiff::Timestamp::UNIX_EPOCH, change }
}

fn slot(replica: ReplicaId) -> usize {
    usize::try_from(replica - 1).unwrap()
}

/// How long a group may take for what it comes to by itself: the machine may be busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for what a group comes to by itself.
pub(crate) fn wait_until(what: &str, mut come: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !come() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A replica on a runtime of its own, so that it can be killed like a process.
pub(crate) struct Replica {
    pub(crate) runtime: Runtime,
    pub(crate) group: Arc<Group>,
}

pub(crate) struct Cluster {
    folders: Vec<TempDir>,
    addresses: Vec<SocketAddr>,
    pub(crate) peers: BTreeMap<ReplicaId, Peer>,
    pub(crate) replicas: BTreeMap<ReplicaId, Replica>,
}

impl Cluster {
    /// Replicas that all start at once.
    pub(crate) fn start(size: u64) -> Self {
        let mut cluster = Self::of(size);
        for replica in 1..=size {
            cluster.start_replica(replica);
        }
        cluster
    }

    /// Replicas that are yet to start.
    pub(crate) fn of(size: u64) -> Self {
        let listeners: Vec<_> =
            (0..size).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> =
            listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        drop(listeners);
        let peers = (1..).zip(&addresses).map(|(replica, address)| {
            (replica, Peer { raft: address.to_string(), api: "127.0.0.1:1".to_owned() })
        });
        Self {
            folders: (0..size).map(|_| tempfile::tempdir().unwrap()).collect(),
            peers: peers.collect(),
            addresses,
            replicas: BTreeMap::new(),
        }
    }

    /// Members as membership entries tell them.
    pub(crate) fn nodes<const N: usize>(
        &self,
        members: [(MemberId, ReplicaId); N],
    ) -> BTreeMap<MemberId, ReplicaAddress> {
        let nodes = members.map(|(member, replica)| {
            let raft = self.peers[&replica].raft.clone();
            (member, ReplicaAddress { replica: Some(replica), raft, api: String::new() })
        });
        BTreeMap::from(nodes)
    }

    pub(crate) fn start_replica(&mut self, replica: ReplicaId) {
        let config = replica_config(replica, &self.peers, self.folder(replica));
        let address = self.addresses[slot(replica)];
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let group = runtime.block_on(async {
            let listener = TcpListener::bind(address).await.unwrap();
            Group::start(config, Transport::clear(listener)).await.unwrap()
        });
        self.replicas.insert(replica, Replica { runtime, group: Arc::new(group) });
    }

    /// Ends a replica in the middle of whatever it does.
    pub(crate) fn kill(&mut self, replica: ReplicaId) {
        let Replica { runtime, group } = self.replicas.remove(&replica).unwrap();
        drop(group);
        runtime.shutdown_timeout(Duration::from_secs(5));
    }

    /// Loses a replica's volume, while it is down or by killing it.
    pub(crate) fn wipe(&mut self, replica: ReplicaId) {
        if self.replicas.contains_key(&replica) {
            self.kill(replica);
        }
        self.folders[slot(replica)] = tempfile::tempdir().unwrap();
    }

    /// Where a replica's volume is.
    pub(crate) fn folder(&self, replica: ReplicaId) -> &Path {
        self.folders[slot(replica)].path()
    }

    /// What replicas know of their group.
    pub(crate) fn status(&self, replica: ReplicaId) -> GroupStatus {
        self.replicas[&replica].group.status()
    }

    /// Waits until a replica knows itself to be a voter of a group without changes under way.
    pub(crate) fn wait_for_vote(&self, replica: ReplicaId) {
        wait_until(&format!("replica {replica} has a vote"), || {
            let status = self.status(replica);
            matches!(status.role, Role::Leader | Role::Follower)
                && status.members.contains_key(&status.member)
                && status.members.len() == self.peers.len()
                && !status.changing
        });
    }

    /// Posts a request to a replica's Raft listener, and tells how it is answered.
    pub(crate) fn post(&self, replica: ReplicaId, path: &str, request: &Value) -> u16 {
        let url = format!("http://{}/raft/v1/{path}", self.peers[&replica].raft);
        let asking = reqwest::Client::new().post(url).json(request).send();
        self.replicas[&replica].runtime.block_on(asking).unwrap().status().as_u16()
    }

    /// All that run but one.
    pub(crate) fn others(&self, than: ReplicaId) -> Vec<ReplicaId> {
        self.replicas.keys().copied().filter(|replica| *replica != than).collect()
    }

    /// Waits until all that run have applied an entry, and sees that their states are equal.
    pub(crate) fn wait_until_equal(&self, index: u64) {
        for replica in self.replicas.keys() {
            self.wait_applied(*replica, index);
        }
        let mut states = self.replicas.values().map(|running| running.group.state());
        let first = states.next().unwrap();
        assert!(states.all(|state| state == first), "states differ");
    }

    pub(crate) fn leader(&self, patience: Duration) -> (ReplicaId, u64) {
        let begun = Instant::now();
        loop {
            for (replica, running) in &self.replicas {
                if let Some(term) = running.group.leadership().borrow().term() {
                    return (*replica, term);
                }
            }
            assert!(
                begun.elapsed() < patience,
                "no leader after {patience:?}: {:?}",
                self.replicas.keys().map(|replica| self.status(*replica)).collect::<Vec<_>>()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn propose(
        &self,
        replica: ReplicaId,
        term: u64,
        command: Command,
    ) -> Result<u64, ProposeError> {
        let Replica { runtime, group } = &self.replicas[&replica];
        let group = Arc::clone(group);
        runtime
            .block_on(runtime.spawn(async move { group.submit(term, command).await?.await }))
            .unwrap()
            .map(|(index, _)| index)
    }

    /// Commits a command, whoever leads meanwhile. It may be in the log twice then, which changes nothing.
    pub(crate) fn commit(&self, command: &Command) -> u64 {
        let begun = Instant::now();
        loop {
            let (leader, term) = self.leader(PATIENCE);
            match self.propose(leader, term, command.clone()) {
                Ok(index) => return index,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "not committed: {error}"),
            }
        }
    }

    pub(crate) fn wait_applied(&self, replica: ReplicaId, index: u64) {
        wait_until(&format!("replica {replica} has applied {index}"), || {
            *self.replicas[&replica].group.applied().borrow() >= index
        });
    }
}
