//! Nodes go: notices, emptiness, deletion.

use drover_common::call::Kind;
use drover_common::cluster::{ClusterEvent, ClusterObject, ObjectKey};
use drover_common::ec2::Tags;
use drover_common::protocol::NoticeKind;
use jiff::SignedDuration;
use serde_json::json;

use super::super::*;
use super::rig::*;
use crate::command::DisruptionReason;
use crate::state::Stage;

#[test]
fn a_notice_brings_a_replacement_at_once_and_the_node_goes() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let doomed = rig.world.running_instances()[0].instance.clone();
    let report = rig.report(&doomed, Some(NoticeKind::SpotTerminate));
    assert!(!rig.control.notices_committed(&rig.state, &report));
    rig.step(Input::Report(Box::new(report.clone())));
    assert!(rig.control.notices_committed(&rig.state, &report));
    let before = rig.state.intents.len() + rig.state.closed_intents.len();
    rig.run(1);
    let after = rig.state.intents.len() + rig.state.closed_intents.len();
    assert_eq!(after, before + 1, "the replacement is committed within a second");
    assert_eq!(rig.state.unavailable.len(), 1, "the offering is left alone");
    let directives = rig.control.directives(&rig.state, &report.node, Some(&doomed));
    assert_eq!(directives.len(), 1);
    // The agent's silence makes the leader drain in its place.
    rig.run(90);
    assert_eq!(rig.world.running_pods(), 2);
    assert!(rig.world.terminated.contains(&doomed));
    assert_eq!(rig.state.claims.len(), 1);
    rig.check_settled();
}

#[test]
fn a_node_can_not_speak_for_anothers_instance() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 4, 800);
    rig.run(10);
    let running = rig.world.running_instances();
    let (liar, other) = (running[0].instance.clone(), running[1].instance.clone());
    let name = rig.report(&liar, None).node;
    // Everything in it is the sender's word but the name of its node.
    let mut report = rig.report(&other, Some(NoticeKind::SpotTerminate));
    report.node = name;
    rig.step(Input::Report(Box::new(report)));
    rig.run(2);
    assert!(rig.state.notices.is_empty());
    assert_eq!(rig.stages(), [Stage::Initialized; 2]);
    let report = rig.report(&other, Some(NoticeKind::SpotTerminate));
    rig.step(Input::Report(Box::new(report)));
    assert_eq!(rig.state.notices.keys().collect::<Vec<_>>(), [&other]);
}

#[test]
fn a_rebalance_recommendation_is_only_recorded() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let instance = rig.world.running_instances()[0].instance.clone();
    let report = rig.report(&instance, Some(NoticeKind::Rebalance));
    rig.step(Input::Report(Box::new(report)));
    rig.run(20);
    assert_eq!(rig.state.notices.len(), 1);
    assert_eq!((rig.stages(), rig.world.instances.len()), (vec![Stage::Initialized], 1));
}

#[test]
fn an_empty_node_goes_after_its_time_with_all_its_objects() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    rig.world.remove_pods("web");
    rig.run(20);
    assert_eq!(rig.stages(), [Stage::Initialized], "consolidateAfter is 30 s");
    rig.run(40);
    assert_eq!(rig.stages(), Vec::<Stage>::new());
    assert!(rig.world.running_instances().is_empty());
    rig.check_settled();
    let verbs: Vec<&str> = rig.state.journal.decisions().map(|d| d.verb.as_str()).collect();
    assert_eq!(
        verbs,
        ["create-intent", "commit-disruption", "commit-termination", "record-terminated"]
    );
    assert_eq!(rig.rejected, Vec::<String>::new());
}

#[test]
fn an_instance_ends_only_after_its_volumes_are_detached() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let node = rig.control.view().nodes().keys().next().cloned().unwrap();
    let attachment: drover_common::cluster::VolumeAttachment = serde_json::from_value(json!({
        "metadata": {"name": "csi-1"},
        "spec": {"nodeName": node, "attacher": "ebs.csi.aws.com",
            "source": {"persistentVolumeName": "pv-1"}},
    }))
    .unwrap();
    let object = ClusterObject::VolumeAttachment(Box::new(attachment));
    rig.step(Input::Cluster(ClusterEvent::Applied(object)));
    rig.world.remove_pods("web");
    rig.run(90);
    assert_eq!(rig.stages(), [Stage::Draining], "drained, and its volume is not detached");
    let key = ObjectKey::cluster("csi-1");
    rig.step(Input::Cluster(ClusterEvent::Deleted(Kind::VolumeAttachment, key)));
    rig.run(20);
    assert_eq!(rig.stages(), Vec::<Stage>::new());
    rig.check_settled();
}

#[test]
fn a_pod_that_comes_in_time_saves_its_node() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    rig.world.remove_pods("web");
    while rig.state.disruptions.is_empty() {
        rig.step(Input::Tick);
        rig.world.now += SignedDuration::from_millis(250);
    }
    // Bound just before the scheduler saw the taint.
    let node = rig.world.list(Kind::Node)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    rig.world.add_pods("late", 1, 100);
    rig.world.bind("late-0", &node);
    rig.run(20);
    assert_eq!(rig.stages(), [Stage::Initialized]);
    assert!(rig.world.terminated.is_empty());
    let taints = rig.world.list(Kind::Node)[0]["spec"]["taints"].as_array().map_or(0, Vec::len);
    assert_eq!(taints, 0, "the taint is taken off again");
}

#[test]
fn a_leader_that_ends_at_any_call_of_a_removal_leaves_nothing_behind() {
    let mut at = 1;
    loop {
        let mut rig = Rig::new();
        rig.world.add_pods("web", 2, 800);
        rig.run(10);
        rig.world.remove_pods("web");
        rig.crash = Some((rig.calls + at, Fate::Unheard));
        rig.run(100);
        assert_eq!(rig.stages(), Vec::<Stage>::new(), "leader ended at call {at}");
        rig.check_settled();
        if rig.crash.is_some() {
            break;
        }
        at += 3;
    }
}

#[test]
fn deleting_a_claim_or_a_node_drains_and_replaces_it() {
    for kind in [Kind::NodeClaim, Kind::Node] {
        let mut rig = Rig::new();
        rig.world.add_pods("web", 2, 800);
        rig.run(10);
        let name = rig.world.list(kind)[0]["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(rig.world.delete_named(kind, &name));
        rig.run(2);
        let reasons: Vec<DisruptionReason> =
            rig.state.disruptions.values().map(|record| record.disruption.reason).collect();
        assert_eq!(reasons, [DisruptionReason::Deletion], "{kind:?}");
        rig.run(90);
        assert_eq!(rig.world.running_pods(), 2, "{kind:?}");
        assert_eq!(rig.state.claims.len(), 1, "{kind:?}");
        rig.check_settled();
    }
}

#[test]
fn an_instance_that_ec2_ends_takes_its_claim_and_node_with_it() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let lost = rig.world.running_instances()[0].instance.clone();
    rig.world.end_instance(&lost);
    rig.world.end_instance(&lost);
    rig.run(60);
    assert!(!rig.state.instances.contains_key(&lost));
    rig.world.remove_pods("web");
    rig.run(90);
    rig.check_settled();
    assert!(rig.world.terminated.len() <= 1, "only what replaced it: {:?}", rig.world.terminated);
}

#[test]
fn launch_templates_that_no_launch_names_any_more_are_deleted() {
    let mut rig = Rig::new();
    let other = || Tags::from([("drover.dev/cluster-uid".to_owned(), "another".to_owned())]);
    rig.world.add_template("karpenter.k8s.aws/other-cluster", other());
    rig.world.add_template("karpenter.k8s.aws/karpenter's", Tags::new());
    let kept = rig.world.templates.len();
    rig.world.add_pods("web", 2, 800);
    rig.run(280);
    assert_eq!(rig.world.templates.len(), kept + 1, "it is young");
    rig.run(600);
    assert_eq!(rig.world.templates.len(), kept, "only ours goes");
    // The next launch makes it anew.
    rig.world.add_pods("more", 2, 800);
    rig.run(10);
    assert_eq!((rig.world.running_pods(), rig.world.templates.len()), (4, kept + 1));
    rig.check_settled();
    let status = rig.control.status(&rig.state, rig.world.now);
    assert!(!status.problems.keys().any(|key| key.contains("template")), "{:?}", status.problems);
}

#[test]
fn a_template_that_is_swept_while_it_is_needed_is_made_again() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    // Gone between its creation and the fleet that names it.
    rig.sweep_before_fleet = true;
    rig.run(10);
    assert_eq!(rig.world.running_pods(), 2);
    rig.check_settled();
}

#[test]
fn a_pod_that_stays_has_no_node_made_for_it_until_its_own_is_taken() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    rig.world.annotate_pod("web-0", "karpenter.sh/do-not-disrupt", "true");
    rig.run(1);
    let claim = rig.world.list(Kind::NodeClaim)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(rig.world.delete_named(Kind::NodeClaim, &claim));
    rig.run(60);
    let intents = |rig: &Rig| rig.state.intents.len() + rig.state.closed_intents.len();
    assert_eq!(intents(&rig), 1, "its own is all there is");
    assert_eq!(rig.world.running_pods(), 1);
    let doomed = rig.world.running_instances()[0].instance.clone();
    let report = rig.report(&doomed, Some(NoticeKind::SpotTerminate));
    rig.step(Input::Report(Box::new(report)));
    rig.run(1);
    assert_eq!(intents(&rig), 2);
}

/// A node with one pod that leaves and a volume that stays attached; its NodeClaim is deleted.
fn with_an_attached_volume(prepare: impl FnOnce(&mut Rig, &str)) -> (Rig, String) {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    let node = rig.world.list(Kind::Node)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    prepare(&mut rig, &node);
    rig.run(1);
    let claim = rig.world.list(Kind::NodeClaim)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(rig.world.delete_named(Kind::NodeClaim, &claim));
    rig.run(120);
    (rig, claim)
}

/// Status and reason of the claim's VolumesDetached.
fn volumes_detached(rig: &Rig, claim: &str) -> Option<(String, String)> {
    let claims = rig.world.list(Kind::NodeClaim);
    let claim = claims.iter().find(|object| object["metadata"]["name"] == claim)?;
    let found = claim["status"]["conditions"].as_array()?;
    let found = found.iter().find(|condition| condition["type"] == "VolumesDetached")?;
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    Some((text("status"), text("reason")))
}

#[test]
fn an_instance_ends_only_when_its_volumes_are_off() {
    let (mut rig, claim) = with_an_attached_volume(|rig, node| {
        rig.world.attach_volume("data", node, Some("web-0"));
    });
    let waits = ("Unknown".to_owned(), "AwaitingVolumeDetachment".to_owned());
    assert_eq!(volumes_detached(&rig, &claim), Some(waits));
    assert_eq!(rig.world.terminated, []);
    assert!(rig.stages().contains(&Stage::Draining), "{:?}", rig.stages());
    assert!(rig.world.delete_named(Kind::VolumeAttachment, "attach-data"));
    rig.run(1);
    assert_eq!(rig.world.terminated.len(), 1);
    rig.run(20);
    assert_eq!(volumes_detached(&rig, &claim), None, "the claim is gone");
    rig.check_settled();
}

#[test]
fn volumes_of_pods_that_stay_hold_nothing_up() {
    let (rig, _) = with_an_attached_volume(|rig, node| {
        rig.world.add_pods("log", 1, 100);
        rig.world.bind("log-0", node);
        rig.world.tolerate_all("log-0");
        rig.world.attach_volume("log", node, Some("log-0"));
        rig.world.attach_volume("elsewhere", "another-node", None);
    });
    assert_eq!(rig.world.terminated.len(), 1);
}

#[test]
fn a_kubelet_that_is_silent_is_not_waited_for_with_its_volumes() {
    let (rig, _) = with_an_attached_volume(|rig, node| {
        rig.world.attach_volume("data", node, Some("web-0"));
        rig.world.set_ready(0, false);
    });
    assert_eq!(rig.world.terminated.len(), 1);
}

#[test]
fn the_wait_for_volumes_ends_with_the_termination_grace_period() {
    let (mut rig, claim) = with_an_attached_volume(|rig, node| {
        rig.world.attach_volume("data", node, None);
        rig.world.set_termination_grace("300s");
    });
    assert_eq!(rig.world.terminated, []);
    rig.run(175);
    assert_eq!(rig.world.terminated, []);
    while rig.world.terminated.is_empty() {
        rig.world.now += SignedDuration::from_millis(250);
        rig.step(Input::Tick);
    }
    let late = ("False".to_owned(), "TerminationGracePeriodElapsed".to_owned());
    assert_eq!(volumes_detached(&rig, &claim), Some(late));
    rig.run(20);
    rig.check_settled();
}
