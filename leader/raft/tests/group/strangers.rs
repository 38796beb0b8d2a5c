//! What does not go well between replicas: it harms nobody else, is told once, and is tried again.

use std::io::Read;
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use drover_raft::parts::IdentityFile;
use drover_raft::{MemberId, ReplicaId, Role};
use openraft::Membership;
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE, pause_by, wait_until};
use crate::log;
use crate::members::{open_log, write_membership};

fn wish(replica: ReplicaId, member: MemberId) -> Value {
    json!({ "protocol": 1, "cluster": null, "replica": replica, "member": member })
}

#[test]
fn a_leader_without_a_quorum_lets_nobody_in() {
    let mut cluster = Cluster::start(3);
    let (leader, _) = cluster.leader(PATIENCE);
    let [lost, other] = cluster.others(leader)[..] else { panic!("there were to be three") };
    cluster.kill(lost);
    cluster.kill(other);
    let leadership = cluster.replicas[&leader].group.leadership();
    wait_until("it sees that it is alone", || leadership.borrow().term().is_none());
    assert_eq!(cluster.status(leader).role, Role::Leader, "Raft lets it lead on");
    assert_eq!(cluster.post(leader, "join", &wish(lost, MemberId::from(1 << 53))), 503);
}

#[test]
fn an_admission_that_fails_is_not_tried_at_once_again() {
    log::keep();
    let cluster = Cluster::start(3);
    let (leader, _) = cluster.leader(PATIENCE);
    let [replica, other] = cluster.others(leader)[..] else { panic!("there were to be three") };
    let taken = cluster.status(other).member;
    let told = || log::count(&["A replica was not let in.", &taken.to_string()]);
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(cluster.post(leader, "join", &wish(replica, taken)), 202);
    }
    wait_until("it is told", || told() > 0);
    let most = begun.elapsed().as_secs() + 1;
    assert!(told() as u64 <= most, "{} in {most} s", told());
    wait_until("it is tried again later", || {
        cluster.post(leader, "join", &wish(replica, taken));
        told() as u64 > most
    });
}

#[test]
fn who_belongs_to_another_group_is_told_so_once() {
    log::keep();
    let mut cluster = Cluster::start(3);
    let index = cluster.commit(&pause_by("by all"));
    cluster.wait_until_equal(index);
    let (leader, _) = cluster.leader(PATIENCE);
    let stranger = cluster.others(leader)[0];
    let group = cluster.status(leader).cluster.unwrap();
    let sender = format!("the sender to {group}");
    let receiver = format!("this replica belongs to group {group}");

    // Its volume is taken for another group's, as when two groups' volumes were mixed up.
    cluster.kill(stranger);
    let file = cluster.folder(stranger).join("identity.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&group, "elsewhere")).unwrap();
    cluster.start_replica(stranger);
    let told = || {
        let reach = "Raft does not reach a peer.";
        (log::count(&[reach, &sender]), log::count(&[reach, &receiver]))
    };
    wait_until("the leader and the stranger say so", || told().0 >= 1 && told().1 >= 2);
    std::thread::sleep(Duration::from_secs(2));
    // Some twenty heartbeats later each has said it of each that it calls. On a busy machine an answer may
    // be late meanwhile, which is other news.
    assert!(told().0 <= 4 && told().1 <= 4, "{:?}", told());

    // Its log is lost, and its identity is not.
    cluster.wipe(stranger);
    let identity = IdentityFile::open(cluster.folder(stranger), stranger).unwrap();
    identity.adopt("elsewhere").unwrap();
    cluster.start_replica(stranger);
    let told = || log::count(&["A peer refuses to let this replica in.", "409", &receiver]);
    wait_until("both refuse it", || told() == 2);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(told(), 2);
    let index = cluster.commit(&pause_by("by two"));
    cluster.wait_applied(leader, index);
}

#[test]
fn a_new_group_is_not_taken_for_an_old_one() {
    let mut cluster = Cluster::of(3);
    // The founder's log was lost, and its identity was not.
    IdentityFile::open(cluster.folder(1), 1).unwrap().adopt("of old").unwrap();
    for replica in 1..=3 {
        cluster.start_replica(replica);
    }
    let index = cluster.commit(&pause_by("by all"));
    cluster.wait_until_equal(index);
    let group = cluster.status(1).cluster.unwrap();
    assert_ne!(group, "of old");
    assert!((2..=3).all(|replica| cluster.status(replica).cluster.as_ref() == Some(&group)));
}

#[test]
fn a_disk_that_fails_delays_a_group_and_does_not_prevent_it() {
    let mut cluster = Cluster::of(3);
    drop(IdentityFile::open(cluster.folder(1), 1).unwrap());
    // Where the file is made anew there is a folder.
    let obstacle = cluster.folder(1).join("identity.unfinished");
    std::fs::create_dir(&obstacle).unwrap();
    for replica in 1..=3 {
        cluster.start_replica(replica);
    }
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(cluster.status(1).cluster, None);
    std::fs::remove_dir(&obstacle).unwrap();
    let index = cluster.commit(&pause_by("by all"));
    cluster.wait_until_equal(index);
}

#[test]
fn a_vote_that_is_written_and_not_committed_is_asked_for_again() {
    let mut cluster = Cluster::of(3);
    let log = open_log(cluster.folder(1), 1);
    let members = [(log.member(), 1), (MemberId::from(2), 2), (MemberId::from(3), 3)];
    let nodes = cluster.nodes(members);
    let voters = nodes.keys().copied().collect();
    write_membership(log, Membership::new(vec![voters], nodes).unwrap());
    IdentityFile::open(cluster.folder(1), 1).unwrap().adopt("some").unwrap();
    let asked = listen(&cluster.peers[&2].raft, "POST /raft/v1/join ");

    cluster.start_replica(1);
    wait_until("it asks", || asked.is_finished());
    assert_ne!(cluster.status(1).role, Role::Leader);
}

/// Ends when somebody has sent a request that begins so to `address`. Nobody gets an answer.
fn listen(address: &str, wanted: &'static str) -> JoinHandle<()> {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut begun = vec![0; wanted.len()];
            let read = connection.and_then(|mut connection| connection.read_exact(&mut begun));
            if read.is_ok() && begun == wanted.as_bytes() {
                return;
            }
        }
    })
}
