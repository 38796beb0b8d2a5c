//! A group's life: leaders come and go, replicas fall behind and catch up.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod holding;
mod log;
mod members;
mod stopping;
mod strangers;

use std::time::{Duration, Instant};

use cluster::{Cluster, MOST_BYTES, Replica, pause_by, wait_until};
use drover_raft::{ProposeError, Role};

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
        last = cluster.commit(&pause_by(&format!("pool-{number}")));
    }

    cluster.start_replica(first);
    cluster.wait_until_equal(last);
    let state = |replica| cluster.replicas[&replica].group.state();
    assert!(state(first).is_paused(Some(&"before".into())));
    assert!(!state(first).is_paused(Some(&"decided in the old term".into())));
}

#[test]
fn a_log_of_few_but_large_entries_is_compacted_and_who_was_away_catches_up() {
    let mut cluster = Cluster::start(3);
    let (leader, _) = cluster.leader(Duration::from_secs(10));
    let away = cluster.replicas.keys().copied().find(|other| *other != leader).unwrap();
    cluster.kill(away);
    let mut last = 0;
    for number in 0..20 {
        last = cluster.commit(&pause_by(&format!("{number}-{}", "x".repeat(20_000))));
    }
    let bytes = |cluster: &Cluster, replica| cluster.replicas[&replica].group.status().log_bytes;
    assert!(bytes(&cluster, leader) > MOST_BYTES, "it was to be large at first");
    let begun = Instant::now();
    while cluster.replicas.keys().any(|replica| bytes(&cluster, *replica) > MOST_BYTES) {
        assert!(begun.elapsed() < Duration::from_secs(15), "a log stays large");
        std::thread::sleep(Duration::from_millis(10));
    }
    cluster.start_replica(away);
    cluster.wait_until_equal(last);
}

#[test]
fn leadership_is_handed_over_at_once() {
    let cluster = Cluster::start(3);
    // More than once, so that whoever has the highest member id hands over, too.
    for _ in 0..3 {
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
}

#[test]
fn nobody_is_named_as_leader_who_is_not_heard_any_more() {
    let mut cluster = Cluster::start(3);
    let (leader, term) = cluster.leader(Duration::from_secs(10));
    let index = cluster.propose(leader, term, pause_by("x")).unwrap();
    for replica in 1..=3 {
        cluster.wait_applied(replica, index);
        assert_eq!(cluster.status(replica).leader, Some(leader));
    }
    let others = cluster.others(leader);
    cluster.kill(leader);
    cluster.kill(others[0]);
    wait_until("it names nobody", || cluster.status(others[1]).leader.is_none());
    cluster.start_replica(others[0]);
    wait_until("it names the new one", || cluster.status(others[1]).leader.is_some());
    // Nor does one that leads nobody.
    let (leader, _) = cluster.leader(Duration::from_secs(10));
    let other = if leader == others[0] { others[1] } else { others[0] };
    cluster.kill(other);
    wait_until("it leads nobody", || cluster.status(leader).leader.is_none());
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

#[test]
fn a_replica_that_waits_for_its_peers_can_be_stopped() {
    let mut cluster = Cluster::of(3);
    cluster.start_replica(1);
    let status = cluster.status(1);
    assert_eq!((status.role, status.leader, status.cluster), (Role::Learner, None, None));
    let Replica { runtime, group } = &cluster.replicas[&1];
    let stopping = async { tokio::time::timeout(Duration::from_secs(10), group.shutdown()).await };
    runtime.block_on(stopping).unwrap();
    assert_eq!(cluster.status(1).role, Role::Stopped);
}
