//! What stops the hand: silence, absence, other drivers, people.

use drover_common::call::Kind;
use drover_common::id::InstanceId;

use super::super::*;
use super::rig::*;
use crate::command::Change;
use crate::state::Stage;

#[test]
fn an_empty_log_is_rebuilt_without_a_launch_or_a_termination() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 5, 800);
    rig.run(10);
    let before: Vec<InstanceId> = rig.state.instances.keys().cloned().collect();
    rig.state = State::default();
    rig.lead();
    rig.run(600);
    assert_eq!(rig.state.instances.keys().cloned().collect::<Vec<_>>(), before);
    assert_eq!(rig.world.instances.len(), before.len());
    assert!(rig.world.terminated.is_empty());
    assert_eq!(rig.stages(), vec![Stage::Initialized; 3]);
    rig.check_settled();
}

#[test]
fn an_instance_without_a_claim_goes_only_after_proof() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    let owned = rig.world.running_instances()[0].clone();
    for (id, uid) in [("i-orphan", None), ("i-stranger", Some("another-cluster"))] {
        let mut copy = owned.clone();
        copy.instance = InstanceId::from(id);
        copy.launch_time = rig.world.now;
        copy.state = drover_common::ec2::InstanceState::Running;
        copy.tags.remove("karpenter.sh/nodeclaim");
        if let Some(uid) = uid {
            copy.tags.insert("drover.dev/cluster-uid".to_owned(), uid.to_owned());
        }
        rig.world.instances.insert(copy.instance.clone(), copy);
    }
    rig.boots = false;
    rig.run(5 * 60);
    assert!(rig.world.terminated.is_empty(), "five minutes and two reads");
    rig.run(2 * 60);
    assert_eq!(rig.world.terminated, [InstanceId::from("i-orphan")]);
}

#[test]
fn another_holder_of_the_lease_means_observe_only() {
    let mut rig = Rig::new();
    rig.run(2);
    assert_eq!(rig.control.status(&rig.state, rig.world.now).lease, "held");
    rig.world.seize_lease("karpenter-7c9");
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    rig.world.seize_lease("karpenter-7c9");
    rig.run(10);
    let status = rig.control.status(&rig.state, rig.world.now);
    assert_eq!(status.lease, "held by karpenter-7c9");
    assert!(rig.world.instances.len() <= 1, "nothing begins without the lease");
    let calls = rig.world.list(Kind::NodeClaim).len();
    rig.world.add_pods("more", 1, 1_800);
    rig.world.seize_lease("karpenter-7c9");
    rig.run(10);
    assert_eq!(rig.world.list(Kind::NodeClaim).len(), calls);
    // Its holder goes silent: the lease is taken over.
    rig.run(40);
    assert_eq!(rig.control.status(&rig.state, rig.world.now).lease, "held");
    assert_eq!(rig.world.running_pods(), 2);
}

#[test]
fn a_replica_that_does_not_lead_does_nothing() {
    let mut rig = Rig::new();
    rig.step(Input::Deposed);
    rig.world.add_pods("web", 1, 800);
    let before = rig.calls;
    rig.run(10);
    assert_eq!(rig.calls, before);
    assert!(rig.state.claims.is_empty());
}

#[test]
fn an_instance_that_ec2_no_longer_shows_is_given_up_only_after_proof() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    let lost = rig.world.running_instances()[0].instance.clone();
    let kept = rig.world.instances.remove(&lost).unwrap();
    rig.run(120);
    assert!(rig.state.instances.contains_key(&lost), "it is younger than five minutes");
    rig.world.instances.insert(lost.clone(), kept);
    rig.run(300);
    assert!(rig.state.instances.contains_key(&lost), "EC2 showed it again in time");
    rig.world.instances.remove(&lost);
    rig.run(40);
    assert!(rig.state.instances.contains_key(&lost), "one read proves nothing");
    rig.run(90);
    assert!(!rig.state.instances.contains_key(&lost));
    assert_eq!(rig.world.running_pods(), 0, "its Node is gone, too");
    assert!(!rig.world.terminated.contains(&lost));
}

#[test]
fn whoever_reads_another_clusters_instances_takes_no_ready_node_for_gone() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 3, 1_000);
    rig.run(400);
    let (claims, nodes) = (rig.world.list(Kind::NodeClaim).len(), rig.world.list(Kind::Node).len());
    assert!(claims > 0);
    // A group that knows nothing, as after a move from Karpenter, under a name that none of the instances has.
    rig.state = State::default();
    let instances = std::mem::take(&mut rig.world.instances);
    rig.lead();
    rig.world.remove_pods("web");
    rig.run(600);
    let left = (rig.world.list(Kind::NodeClaim).len(), rig.world.list(Kind::Node).len());
    assert_eq!(left, (claims, nodes));
    let problems = rig.control.status(&rig.state, rig.world.now).problems;
    assert!(problems["adoption of NodeClaims"].contains("its Node is Ready"), "{problems:?}");
    rig.world.instances = instances;
    rig.run(60);
    assert_eq!(rig.state.claims.len(), claims, "they are adopted once EC2 shows them");
}

#[test]
fn over_a_fifth_of_a_pool_unwell_stops_voluntary_disruption() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 6, 1_000);
    rig.run(10);
    assert_eq!(rig.stages().len(), 6);
    for node in 0..2 {
        rig.world.set_ready(node, false);
    }
    rig.world.remove_pods("web");
    rig.run(120);
    assert_eq!(rig.stages(), vec![Stage::Initialized; 6]);
    rig.world.set_ready(0, true);
    rig.run(120);
    assert_eq!(rig.stages().len(), 1, "a sixth is no reason to doubt; the unwell one stays");
}

#[test]
fn a_paused_cluster_launches_nothing_until_it_is_resumed() {
    let mut rig = Rig::new();
    let set = |paused| Change::SetPause {
        nodepool: None,
        paused,
        by: "ada".to_owned(),
        reason: "maintenance".to_owned(),
    };
    let at = rig.world.now;
    rig.apply(&Command { at, change: set(true) });
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    assert!(rig.world.instances.is_empty());
    rig.apply(&Command { at, change: set(false) });
    rig.run(10);
    assert_eq!(rig.world.running_pods(), 1);
}
