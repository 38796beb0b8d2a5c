//! What is on a replica's volume: that it is there after a crash, and that damage is found.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use drover_raft::parts::{
    Entry, IdentityAnswer, IdentityFile, LogId, LogStore, SnapshotFolder, SnapshotMeta,
    StateMachine, TypeConfig, Verdict, Vote, judge,
};
use drover_raft::{
    Group, GroupConfig, GroupError, IdentityError, MemberId, Peer, Timings, Transport,
};
use openraft::storage::RaftLogStorage;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{RaftLogReader, StorageError};
use tempfile::TempDir;
use tokio::net::TcpListener;

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let log = LogStore::open(&folder.path().join("log.redb"), 1).unwrap();
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
    let mut log = LogStore::open(&path, 1).unwrap();
    assert!(log.is_empty());
    append(&mut log, 0..=9).await;
    log.truncate_after(Some(LogId::new_term_index(1, 7))).await.unwrap();
    log.purge(LogId::new_term_index(1, 2)).await.unwrap();
    let vote = Vote::new(4, 2.into());
    log.save_vote(&vote).await.unwrap();
    drop(log);

    let mut log = LogStore::open(&path, 1).unwrap();
    let kept = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(kept.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.last_purged(), Some(LogId::new_term_index(1, 2)));
    assert!(!log.is_empty());
}

#[test]
fn a_log_is_made_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.redb");
    let unfinished = path.with_extension("unfinished");
    // What can't be made leaves nothing under the log's name.
    std::fs::create_dir(&unfinished).unwrap();
    assert!(LogStore::open(&path, 1).is_err());
    assert!(!path.exists());
    std::fs::remove_dir(&unfinished).unwrap();
    // Room that an earlier start had asked for when it was killed.
    std::fs::write(&unfinished, vec![0; 73_728]).unwrap();
    drop(LogStore::open(&path, 1).unwrap());
    assert!(path.exists() && !unfinished.exists());
    drop(let_go(&path));
    // Under the log's own name it may be all that is left of one, and is kept.
    std::fs::write(&path, vec![0; 73_728]).unwrap();
    assert!(LogStore::open(&path, 1).is_err());
    assert!(path.exists());
}

#[tokio::test]
async fn a_damaged_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.redb");
    let mut log = LogStore::open(&path, 1).unwrap();
    append(&mut log, 0..=300).await;
    drop(log);
    drop(let_go(&path));
    let mut bytes = std::fs::read(&path).unwrap();
    // The file's head holds two copies of what matters; its pages hold one.
    let text = bytes.windows(12).rposition(|window| window == b"\"index\":300}").unwrap();
    bytes[text + 8] = b'9';
    std::fs::write(&path, bytes).unwrap();
    assert!(LogStore::open(&path, 1).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_snapshot_is_lost_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(&folder.path().join("log.redb"), 1).unwrap();
    append(&mut log, 0..=9).await;
    log.purge(LogId::new_term_index(1, 5)).await.unwrap();
    drop(log);
    let peer = Peer { raft: "127.0.0.1:1".to_owned(), api: "127.0.0.1:2".to_owned() };
    let config = GroupConfig {
        name: "test".to_owned(),
        replica: 1,
        peers: BTreeMap::from([(1, peer)]),
        folder: folder.path().to_owned(),
        timings: Timings::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = Group::start(config, Transport::clear(listener)).await;
    assert!(matches!(refused, Err(GroupError::SnapshotLost { purged: 5, applied: 0, .. })));
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(LogId::new_term_index(3, index)), ..Default::default() }
}

/// A folder's snapshots by name, which is by log position.
fn newest_first(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|kind| kind == "snapshot")).collect();
    paths.sort_unstable_by(|left, right| right.cmp(left));
    paths
}

#[test]
fn the_newest_whole_snapshot_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = SnapshotFolder::open(folder.path()).unwrap();
    assert!(snapshots.newest().unwrap().is_none());
    for index in [9, 10, 200] {
        snapshots.save(&meta(index), format!("state {index}").as_bytes()).unwrap();
    }
    assert_eq!(snapshots.newest().unwrap().unwrap().state, "state 200");
    assert_eq!(newest_first(folder.path()).len(), 2);
}

#[test]
fn torn_and_altered_snapshots_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = SnapshotFolder::open(folder.path()).unwrap();
    snapshots.save(&meta(1), b"good").unwrap();
    snapshots.save(&meta(2), b"a longer state").unwrap();
    let newest = newest_first(folder.path()).remove(0);
    let whole = fs::read(&newest).unwrap();

    for cut in [0, 5, whole.len() - 1] {
        fs::write(&newest, &whole[..cut]).unwrap();
        assert_eq!(snapshots.newest().unwrap().unwrap().state, "good", "cut at {cut}");
    }
    let mut altered = whole.clone();
    *altered.last_mut().unwrap() ^= 1;
    fs::write(&newest, altered).unwrap();
    assert_eq!(snapshots.newest().unwrap().unwrap().state, "good");

    fs::write(folder.path().join("99999999999999999999-1.unfinished"), b"half").unwrap();
    fs::write(&newest, whole).unwrap();
    assert_eq!(snapshots.newest().unwrap().unwrap().state, "a longer state");
}

#[test]
fn a_volume_keeps_its_replica_and_group() {
    let folder = tempfile::tempdir().unwrap();
    let file = IdentityFile::open(folder.path(), 2).unwrap();
    assert_eq!(file.cluster(), None);
    file.adopt("abc").unwrap();
    assert!(matches!(file.adopt("xyz"), Err(IdentityError::OtherCluster { .. })));
    assert!(matches!(file.found(None), Err(IdentityError::InGroup(told)) if told == "abc"));

    let again = IdentityFile::open(folder.path(), 2).unwrap();
    assert_eq!(again.cluster().as_deref(), Some("abc"));
    assert!(matches!(again.found(Some("xyz")), Err(IdentityError::InGroup(_))));
    let founded = again.found(Some("abc")).unwrap();
    assert_ne!(founded, "abc");
    let again = IdentityFile::open(folder.path(), 2).unwrap();
    assert_eq!(again.cluster(), Some(founded));
    let other = IdentityFile::open(folder.path(), 3);
    assert!(matches!(other, Err(IdentityError::OtherReplica { found: 2, .. })));
}

#[test]
fn groups_get_distinct_ids() {
    let found = || {
        let folder = tempfile::tempdir().unwrap();
        IdentityFile::open(folder.path(), 1).unwrap().found(None).unwrap()
    };
    assert_ne!(found(), found());
}

#[tokio::test]
async fn a_log_keeps_its_member_and_a_lost_one_takes_it_along() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.redb");
    let mut log = LogStore::open(&path, 3).unwrap();
    let member = log.member();
    append(&mut log, 0..=1).await;
    drop(log);
    assert_eq!(LogStore::open(&path, 3).unwrap().member(), member);

    fs::remove_file(&path).unwrap();
    let other = LogStore::open(&path, 3).unwrap().member();
    assert!(other != member && other != MemberId::from(3), "{other} after {member}");
}

#[tokio::test]
async fn a_log_from_before_there_were_members_is_its_replicas() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.redb");
    let mut log = LogStore::open(&path, 3).unwrap();
    append(&mut log, 0..=1).await;
    drop(log);
    forget_member(&path);
    assert_eq!(LogStore::open(&path, 3).unwrap().member(), MemberId::from(3));
}

/// Makes a log's file what it would have been before there were member ids.
fn forget_member(path: &Path) {
    let marks: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("marks");
    let file = let_go(path);
    let write = file.begin_write().unwrap();
    let mut table = write.open_table(marks).unwrap();
    assert!(table.remove("member").unwrap().is_some());
    drop(table);
    write.commit().unwrap();
}

#[test]
fn a_group_is_founded_by_a_majority_without_one() {
    let answer = |replica, cluster: Option<&str>| IdentityAnswer {
        replica,
        member: Some(MemberId::from(1 << 52)),
        cluster: cluster.map(str::to_owned),
    };
    let free = || answer(2, None);
    let taken = || answer(3, Some("abc"));
    assert_eq!(judge(1, &[]), Verdict::Found);
    assert_eq!(judge(3, &[]), Verdict::Ask);
    assert_eq!(judge(3, &[free()]), Verdict::Linger);
    assert_eq!(judge(3, &[free(), free()]), Verdict::Found);
    assert_eq!(judge(3, &[free(), taken()]), Verdict::Join);
    assert_eq!(judge(3, &[taken()]), Verdict::Join);
    assert_eq!(judge(5, &[free()]), Verdict::Ask);
}

/// A log's file, once the thread of the store that was dropped has let go of it: what changes under its
/// hands it takes for its own fault, and panics.
fn let_go(path: &Path) -> redb::Database {
    loop {
        match redb::Database::open(path) {
            Ok(file) => return file,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}
