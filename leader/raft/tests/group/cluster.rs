//! Groups of real replicas over loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_core::command::{Change, Command};
use drover_raft::{Group, GroupConfig, Peer, ProposeError, ReplicaId, Timings, Transport};
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

/// A replica on a runtime of its own, so that it can be killed like a process.
pub(crate) struct Replica {
    pub(crate) runtime: Runtime,
    pub(crate) group: Arc<Group>,
}

pub(crate) struct Cluster {
    folders: Vec<TempDir>,
    addresses: Vec<SocketAddr>,
    peers: BTreeMap<ReplicaId, Peer>,
    pub(crate) replicas: BTreeMap<ReplicaId, Replica>,
}

impl Cluster {
    pub(crate) fn start(size: u64) -> Self {
        let listeners: Vec<_> =
            (0..size).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> =
            listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        drop(listeners);
        let peers = (1..).zip(&addresses).map(|(replica, address)| {
            (replica, Peer { raft: address.to_string(), api: "127.0.0.1:1".to_owned() })
        });
        let mut cluster = Self {
            folders: (0..size).map(|_| tempfile::tempdir().unwrap()).collect(),
            peers: peers.collect(),
            addresses,
            replicas: BTreeMap::new(),
        };
        for replica in 1..=size {
            cluster.start_replica(replica);
        }
        cluster
    }

    pub(crate) fn start_replica(&mut self, replica: ReplicaId) {
        let slot = usize::try_from(replica - 1).unwrap();
        let config = replica_config(replica, &self.peers, self.folders[slot].path());
        let address = self.addresses[slot];
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

    pub(crate) fn leader(&self, patience: Duration) -> (ReplicaId, u64) {
        let begun = Instant::now();
        loop {
            for (replica, running) in &self.replicas {
                if let Some(term) = running.group.leadership().borrow().term() {
                    return (*replica, term);
                }
            }
            assert!(begun.elapsed() < patience, "no leader after {patience:?}");
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

    pub(crate) fn wait_applied(&self, replica: ReplicaId, index: u64) {
        let begun = Instant::now();
        while *self.replicas[&replica].group.applied().borrow() < index {
            assert!(begun.elapsed() < Duration::from_secs(15), "replica {replica} lags");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
