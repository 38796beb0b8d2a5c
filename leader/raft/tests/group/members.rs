//! Volumes are lost and come late: whoever has forgotten what it held and voted for has no vote until the
//! group gives it one.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use drover_raft::parts::{Entry, IdentityFile, LogId, LogStore, ReplicaAddress, TypeConfig, Vote};
use drover_raft::{MemberId, ReplicaId, Role};
use openraft::raft::VoteRequest;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, Membership};
use serde_json::json;

use crate::cluster::{Cluster, PATIENCE, pause_by, wait_until};

#[test]
fn every_volume_can_be_lost_one_after_the_other() {
    let mut cluster = Cluster::start(3);
    let mut last = 0;
    for lost in 1..=3 {
        last = cluster.commit(&pause_by(&format!("before {lost}")));
        cluster.wait_until_equal(last);
        let (group, old) = (cluster.status(lost).cluster, cluster.status(lost).member);

        cluster.wipe(lost);
        last = cluster.commit(&pause_by(&format!("without {lost}")));
        cluster.start_replica(lost);
        cluster.wait_for_vote(lost);
        let status = cluster.status(lost);
        assert_ne!(status.member, old);
        assert!(!status.members.contains_key(&old), "{status:?}");
        assert_eq!(status.voters, BTreeSet::from([1, 2, 3]));
        assert_eq!(status.cluster, group);
        let sender = cluster.others(lost)[0];
        assert_only_the_new_member_is_spoken_to(&cluster, sender, lost, old);
    }

    // The new volumes carry the group.
    cluster.wait_until_equal(last);
    cluster.kill(1);
    last = cluster.commit(&pause_by("after"));
    cluster.wait_until_equal(last);
    let state = cluster.replicas[&2].group.state();
    assert!(state.is_paused(Some(&"before 1".into())) && state.is_paused(Some(&"after".into())));
}

/// What is meant for a member that is no more is refused where the new one listens, and changes nothing.
fn assert_only_the_new_member_is_spoken_to(
    cluster: &Cluster,
    sender: ReplicaId,
    receiver: ReplicaId,
    old: MemberId,
) {
    let sender = cluster.status(sender);
    let status = cluster.status(receiver);
    let ask = |term: u64, member: MemberId| {
        let request = VoteRequest::<TypeConfig>::new(Vote::new(term, sender.member), None);
        let envelope = json!({
            "protocol": 1,
            "cluster": status.cluster,
            "sender": sender.member,
            "replica": sender.replica,
            "receiver": member,
            "body": request,
        });
        cluster.post(receiver, "vote", &envelope)
    };
    assert_eq!(ask(1_000, old), 421);
    assert_eq!(ask(0, status.member), 200);
    assert!(cluster.status(receiver).term < 1_000);
}

#[test]
fn who_lost_its_volume_elects_nobody_who_is_behind() {
    let mut cluster = Cluster::start(3);
    let before = cluster.commit(&pause_by("by all"));
    cluster.wait_until_equal(before);
    let (leader, _) = cluster.leader(PATIENCE);
    let [lost, behind] = cluster.others(leader)[..] else { panic!("there were to be three") };
    cluster.kill(behind);
    let index = cluster.commit(&pause_by("by two"));
    cluster.wait_until_equal(index);
    cluster.kill(leader);
    cluster.wipe(lost);
    cluster.start_replica(behind);
    cluster.start_replica(lost);

    // Time for several elections.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        for replica in [lost, behind] {
            assert_eq!(cluster.replicas[&replica].group.leadership().borrow().term(), None);
        }
        assert_eq!(cluster.status(lost).role, Role::Learner);
        std::thread::sleep(Duration::from_millis(50));
    }

    cluster.start_replica(leader);
    assert_eq!(cluster.leader(PATIENCE).0, leader);
    cluster.wait_for_vote(lost);
    cluster.wait_until_equal(index);
    assert!(cluster.replicas[&lost].group.state().is_paused(Some(&"by two".into())));
}

#[test]
fn an_interrupted_join_is_finished_by_the_next_leader() {
    let mut cluster = Cluster::start(3);
    let index = cluster.commit(&pause_by("before"));
    cluster.wait_until_equal(index);
    let (leader, _) = cluster.leader(PATIENCE);
    let [lost, other] = cluster.others(leader)[..] else { panic!("there were to be three") };
    cluster.wipe(lost);
    let member = open_log(cluster.folder(lost), lost).member();
    // The new volume's replica ends right after it has asked: it is a member and can't catch up.
    let request = json!({ "protocol": 1, "cluster": null, "replica": lost, "member": member });
    assert_eq!(cluster.post(other, "join", &request), 503);
    assert_eq!(cluster.post(leader, "join", &request), 202);
    wait_until("it is a member", || cluster.status(other).members.contains_key(&member));
    cluster.kill(leader);
    cluster.start_replica(leader);
    cluster.leader(PATIENCE);
    cluster.start_replica(lost);

    cluster.wait_for_vote(lost);
    assert_eq!(cluster.status(lost).member, member);
    let index = cluster.commit(&pause_by("after"));
    cluster.wait_until_equal(index);
}

#[test]
fn a_longer_peer_list_lets_new_replicas_in() {
    let mut cluster = Cluster::of(5);
    let all = cluster.peers.clone();
    cluster.peers.retain(|replica, _| *replica <= 3);
    (1..=3).for_each(|replica| cluster.start_replica(replica));
    let index = cluster.commit(&pause_by("by three"));
    cluster.wait_until_equal(index);
    let group = cluster.status(1).cluster;

    // As a StatefulSet does it: the new ones come first, then the others learn of them one by one.
    cluster.peers = all;
    [4, 5].into_iter().for_each(|replica| cluster.start_replica(replica));
    for replica in 1..=3 {
        cluster.kill(replica);
        cluster.start_replica(replica);
        cluster.leader(PATIENCE);
    }
    for replica in [4, 5] {
        cluster.wait_for_vote(replica);
    }
    assert_eq!(cluster.status(5).voters, BTreeSet::from([1, 2, 3, 4, 5]));
    assert_eq!(cluster.status(5).cluster, group);

    // Three of five carry on.
    cluster.kill(1);
    cluster.kill(2);
    let index = cluster.commit(&pause_by("by five"));
    cluster.wait_until_equal(index);
    assert!(cluster.replicas[&5].group.state().is_paused(Some(&"by three".into())));
}

#[test]
fn who_starts_late_for_the_first_time_is_let_in() {
    let mut cluster = Cluster::of(3);
    cluster.start_replica(1);
    cluster.start_replica(2);
    let index = cluster.commit(&pause_by("by two"));
    cluster.wait_until_equal(index);
    let absent = MemberId::from(3);
    assert_eq!(cluster.status(1).members.get(&absent), Some(&3));
    cluster.start_replica(3);
    cluster.wait_for_vote(3);
    assert!(!cluster.status(3).members.contains_key(&absent));

    cluster.kill(2);
    let index = cluster.commit(&pause_by("after"));
    cluster.wait_until_equal(index);
}

#[test]
fn a_change_that_was_half_done_is_finished_and_the_next_one_made() {
    let mut cluster = Cluster::of(3);
    let first = open_log(cluster.folder(1), 1);
    let second = open_log(cluster.folder(2), 2);
    let (old, new) = (MemberId::from(3), MemberId::from(1 << 53));
    let members = [(first.member(), 1), (second.member(), 2), (old, 3), (new, 3)];
    let nodes = cluster.nodes(members);
    let voters = |third| BTreeSet::from([first.member(), second.member(), third]);
    let joint = Membership::new(vec![voters(old), voters(new)], nodes).unwrap();
    let group = IdentityFile::open(cluster.folder(1), 1).unwrap().found(None).unwrap();
    IdentityFile::open(cluster.folder(2), 2).unwrap().adopt(&group).unwrap();
    for log in [first, second] {
        write_membership(log, joint.clone());
    }

    cluster.start_replica(1);
    cluster.start_replica(2);
    wait_until("the change is finished", || {
        let members = cluster.status(1).members;
        members.contains_key(&new) && !members.contains_key(&old)
    });
    let index = cluster.commit(&pause_by("by two"));

    cluster.start_replica(3);
    cluster.wait_for_vote(3);
    assert!(!cluster.status(3).members.contains_key(&new));
    cluster.wait_until_equal(index);
}

pub(crate) fn open_log(folder: &Path, replica: ReplicaId) -> LogStore {
    LogStore::open(&folder.join("log.redb"), replica).unwrap()
}

/// Writes a log of one entry, as a leader that has ended since would have left it.
pub(crate) fn write_membership(
    mut log: LogStore,
    membership: Membership<MemberId, ReplicaAddress>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        log.save_vote(&Vote::new(1, log.member())).await.unwrap();
        let entry = Entry {
            log_id: LogId::new_term_index(1, 0),
            payload: EntryPayload::Membership(membership),
        };
        let (done, flushed) = TypeConfig::oneshot();
        log.append([entry], IOFlushed::signal(done)).await.unwrap();
        flushed.await.unwrap().unwrap();
    });
}
