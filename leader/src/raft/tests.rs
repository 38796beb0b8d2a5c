use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use drover_core::command::Change;
use openraft::storage::RaftLogStorage;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{RaftLogReader, StorageError};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::*;
use types::{Entry, LogId};

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let log = LogStore::open(&folder.path().join("log.redb")).unwrap();
        let machine = StateMachine::open(&folder.path().join("snapshots")).unwrap();
        Ok((folder, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_pass_the_conformance_suite() {
    Suite::test_all(OnDisk).await.unwrap();
}

fn entry(index: u64) -> Entry {
    Entry { log_id: LogId::new_term_index(1, index), payload: openraft::EntryPayload::Blank }
}

async fn append(log: &mut LogStore, indexes: std::ops::RangeInclusive<u64>) {
    let (done, flushed) = TypeConfig::oneshot();
    let callback = openraft::storage::IOFlushed::signal(done);
    log.append(indexes.map(entry), callback).await.unwrap();
    flushed.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_reported_as_written_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.redb");
    let mut log = LogStore::open(&path).unwrap();
    assert!(log.is_empty());
    append(&mut log, 0..=9).await;
    log.truncate_after(Some(LogId::new_term_index(1, 7))).await.unwrap();
    log.purge(LogId::new_term_index(1, 2)).await.unwrap();
    let vote = types::Vote::new(4, 2);
    log.save_vote(&vote).await.unwrap();
    drop(log);

    let mut log = LogStore::open(&path).unwrap();
    let kept = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(kept.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.last_purged(), Some(LogId::new_term_index(1, 2)));
    assert!(!log.is_empty());
}

#[tokio::test]
async fn a_damaged_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.redb");
    let mut log = LogStore::open(&path).unwrap();
    append(&mut log, 0..=300).await;
    drop(log);
    drop(LogStore::open(&path).unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    // The file's head holds two copies of what matters; its pages hold one.
    let text = bytes.windows(12).rposition(|window| window == b"\"index\":300}").unwrap();
    bytes[text + 8] = b'9';
    std::fs::write(&path, bytes).unwrap();
    assert!(LogStore::open(&path).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_snapshot_is_lost_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(&folder.path().join("log.redb")).unwrap();
    append(&mut log, 0..=9).await;
    log.purge(LogId::new_term_index(1, 5)).await.unwrap();
    drop(log);
    let config = replica_config(1, &one_peer(), folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = Group::start(config, Transport::clear(listener)).await;
    assert!(matches!(refused, Err(GroupError::SnapshotLost { purged: 5, applied: 0, .. })));
}

fn one_peer() -> BTreeMap<ReplicaId, Peer> {
    BTreeMap::from([(1, Peer { raft: "127.0.0.1:1".to_owned(), api: "127.0.0.1:2".to_owned() })])
}

/// Beyond what the entries of most tests take together.
const MOST_BYTES: usize = 100_000;

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

fn pause_by(name: &str) -> Command {
    let change = Change::SetPause {
        nodepool: Some(name.into()),
        paused: true,
        by: "test".to_owned(),
        reason: "test".to_owned(),
    };
    Command { at: jiff::Timestamp::UNIX_EPOCH, change }
}

/// A replica on a runtime of its own, so that it can be killed like a process.
struct Replica {
    runtime: Runtime,
    group: Arc<Group>,
}

struct Cluster {
    folders: Vec<TempDir>,
    addresses: Vec<SocketAddr>,
    peers: BTreeMap<ReplicaId, Peer>,
    replicas: BTreeMap<ReplicaId, Replica>,
}

impl Cluster {
    fn start(size: u64) -> Self {
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

    fn start_replica(&mut self, replica: ReplicaId) {
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
    fn kill(&mut self, replica: ReplicaId) {
        let Replica { runtime, group } = self.replicas.remove(&replica).unwrap();
        drop(group);
        runtime.shutdown_timeout(Duration::from_secs(5));
    }

    fn leader(&self, patience: Duration) -> (ReplicaId, u64) {
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

    fn propose(
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

    fn wait_applied(&self, replica: ReplicaId, index: u64) {
        let begun = Instant::now();
        while *self.replicas[&replica].group.applied().borrow() < index {
            assert!(begun.elapsed() < Duration::from_secs(15), "replica {replica} lags");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_killed_leader_is_replaced_and_catches_up_from_its_disk() {
    let mut cluster = Cluster::start(3);
    let (first, term) = cluster.leader(Duration::from_secs(10));
    let index = cluster.propose(first, term, pause_by("before")).unwrap();
    let follower = cluster.replicas.keys().copied().find(|other| *other != first).unwrap();
    cluster.wait_applied(follower, index);
    let refused = cluster.propose(follower, term, pause_by("by a follower"));
    assert!(matches!(refused, Err(ProposeError::NotLeading)), "{refused:?}");

    cluster.kill(first);
    let begun = Instant::now();
    let (second, later_term) = cluster.leader(Duration::from_secs(6));
    eprintln!("a new leader after {:?}", begun.elapsed());
    assert!(second != first && later_term > term);
    let fenced = cluster.propose(second, term, pause_by("decided in the old term"));
    assert!(matches!(fenced, Err(ProposeError::NotLeading)), "{fenced:?}");
    // Enough entries that the log the old leader needs is purged: it gets a snapshot.
    let mut last = index;
    for number in 0..180 {
        last = cluster.propose(second, later_term, pause_by(&format!("pool-{number}"))).unwrap();
    }

    cluster.start_replica(first);
    cluster.wait_applied(first, last);
    let state = |replica| cluster.replicas[&replica].group.state();
    assert_eq!(state(first), state(second));
    assert!(state(first).is_paused(Some(&"before".into())));
    assert!(!state(first).is_paused(Some(&"decided in the old term".into())));
}

#[test]
fn a_log_of_few_but_large_entries_is_compacted_and_who_was_away_catches_up() {
    let mut cluster = Cluster::start(3);
    let (leader, term) = cluster.leader(Duration::from_secs(10));
    let away = cluster.replicas.keys().copied().find(|other| *other != leader).unwrap();
    cluster.kill(away);
    let mut last = 0;
    for number in 0..20 {
        let large = pause_by(&format!("{number}-{}", "x".repeat(20_000)));
        last = cluster.propose(leader, term, large).unwrap();
    }
    let bytes = |cluster: &Cluster, replica| cluster.replicas[&replica].group.log.bytes();
    assert!(bytes(&cluster, leader) > MOST_BYTES, "it was to be large at first");
    let begun = Instant::now();
    while cluster.replicas.keys().any(|replica| bytes(&cluster, *replica) > MOST_BYTES) {
        assert!(begun.elapsed() < Duration::from_secs(15), "a log stays large");
        std::thread::sleep(Duration::from_millis(10));
    }
    cluster.start_replica(away);
    cluster.wait_applied(away, last);
    let state = |replica| cluster.replicas[&replica].group.state();
    assert_eq!(state(away), state(leader));
}

#[test]
fn leadership_is_handed_over_at_once() {
    let cluster = Cluster::start(3);
    let (first, term) = cluster.leader(Duration::from_secs(10));
    let index = cluster.propose(first, term, pause_by("x")).unwrap();
    for replica in 1..=3 {
        cluster.wait_applied(replica, index);
    }
    let Replica { runtime, group } = &cluster.replicas[&first];
    let begun = Instant::now();
    runtime.block_on(group.transfer_leadership());
    assert_ne!(group.leadership().borrow().term(), Some(term + 1));
    let begun_waiting = Instant::now();
    while cluster.leader(Duration::from_secs(2)).0 == first {
        assert!(begun_waiting.elapsed() < Duration::from_secs(2), "nobody took over");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn one_replica_is_a_group_and_survives_a_restart() {
    let mut cluster = Cluster::start(1);
    let (leader, term) = cluster.leader(Duration::from_secs(10));
    let index = cluster.propose(leader, term, pause_by("kept")).unwrap();
    cluster.kill(leader);
    cluster.start_replica(leader);
    let (leader, later_term) = cluster.leader(Duration::from_secs(10));
    assert!(later_term > term);
    cluster.wait_applied(leader, index);
    assert!(cluster.replicas[&leader].group.state().is_paused(Some(&"kept".into())));
}
