//! The taint that frees pods and volumes of machines that are off, and of no others.

use drover_common::call::Kind;
use drover_common::ec2::{Ec2Call, InstanceState};
use drover_common::id::InstanceId;
use drover_common::labels;
use drover_common::protocol::NoticeKind;
use serde_json::{Value, json};

use super::super::*;
use super::rig::*;
use crate::state::Stage;

/// A node with a pod that nobody can make leave, and its instance.
fn stuck() -> (Rig, InstanceId) {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    rig.world.holds_pods = true;
    rig.world.refuses_deletions = true;
    let instance = rig.world.running_instances()[0].instance.clone();
    (rig, instance)
}

fn enter(rig: &mut Rig, instance: &InstanceId, state: InstanceState) {
    rig.world.instances.get_mut(instance).unwrap().state = state;
}

/// How far the claim of an instance is.
fn stage(rig: &Rig, instance: &InstanceId) -> Stage {
    rig.state.claim_of_instance(instance).map_or(Stage::Gone, |(_, claim)| claim.stage)
}

/// The node of an instance, while there is one.
fn node_of<'a>(rig: &'a Rig, instance: &InstanceId) -> Option<&'a Value> {
    let of_instance = |node: &&&Value| {
        node["spec"]["providerID"].as_str().is_some_and(|id| id.ends_with(instance.as_str()))
    };
    rig.world.list(Kind::Node).iter().find(of_instance).copied()
}

/// The values of its out-of-service taints, and whether it is marked as ours.
fn shown(rig: &Rig, instance: &InstanceId) -> (Vec<String>, bool) {
    let node = node_of(rig, instance).unwrap();
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let ours = taints.iter().filter(|taint| taint["key"] == labels::OUT_OF_SERVICE_TAINT);
    let ours = ours.map(|taint| taint["value"].as_str().unwrap_or_default().to_owned());
    let marked = node["metadata"]["annotations"].get(labels::OUT_OF_SERVICE).is_some();
    (ours.collect(), marked)
}

#[test]
fn a_machine_that_is_stopped_is_out_of_service_until_it_runs_again() {
    let (mut rig, instance) = stuck();
    enter(&mut rig, &instance, InstanceState::Stopping);
    rig.run(40);
    assert_eq!(stage(&rig, &instance), Stage::Draining);
    assert_eq!(shown(&rig, &instance), (vec![], false), "it may still write");
    enter(&mut rig, &instance, InstanceState::Stopped);
    rig.run(40);
    assert_eq!(shown(&rig, &instance), (vec!["nodeshutdown".to_owned()], true));
    enter(&mut rig, &instance, InstanceState::Running);
    rig.run(40);
    assert_eq!(shown(&rig, &instance), (vec![], false));
}

#[test]
fn a_machine_that_is_merely_silent_is_not() {
    let (mut rig, instance) = stuck();
    rig.world.set_ready(0, false);
    let node = node_of(&rig, &instance).unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    rig.world.delete_named(Kind::Node, &node);
    rig.run(120);
    assert_eq!(stage(&rig, &instance), Stage::Draining);
    assert_eq!(shown(&rig, &instance), (vec![], false));
}

#[test]
fn a_machine_that_ec2_lists_no_more_is_not() {
    let (mut rig, instance) = stuck();
    // That EC2 lists nothing at all would not be believed.
    rig.world.add_pods("others", 2, 800);
    rig.run(10);
    let name = node_of(&rig, &instance).unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    let silent = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    rig.world.change(Kind::Node, "", &name, &silent);
    // Somebody else keeps the Node, so that one sees how it is left.
    let kept =
        json!({"metadata": {"finalizers": [labels::TERMINATION_FINALIZER, "example.com/kept"]}});
    rig.world.change(Kind::Node, "", &name, &kept);
    rig.world.instances.remove(&instance);
    for _ in 0..900 {
        rig.run(1);
        if stage(&rig, &instance) == Stage::Gone {
            break;
        }
    }
    rig.run(30);
    let finalizers = &node_of(&rig, &instance).unwrap()["metadata"]["finalizers"];
    assert_eq!(*finalizers, json!(["example.com/kept"]), "it is not held for what no taint frees");
    assert_eq!(shown(&rig, &instance), (vec![], false));
}

#[test]
fn a_hibernated_machine_keeps_its_pods() {
    let (mut rig, instance) = stuck();
    let report = rig.report(&instance, Some(NoticeKind::SpotHibernate));
    rig.step(Input::Report(Box::new(report)));
    let claim = rig.world.list(Kind::NodeClaim)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    rig.world.delete_named(Kind::NodeClaim, &claim);
    rig.run(5);
    enter(&mut rig, &instance, InstanceState::Stopped);
    rig.run(40);
    assert_eq!(stage(&rig, &instance), Stage::Draining);
    assert_eq!(shown(&rig, &instance), (vec![], false));
}

#[test]
fn a_machine_that_is_back_from_hibernation_keeps_them_however_ec2_was_read_before() {
    let (mut rig, instance) = stuck();
    let mut report = rig.report(&instance, Some(NoticeKind::SpotHibernate));
    rig.step(Input::Report(Box::new(report.clone())));
    let claim = rig.world.list(Kind::NodeClaim)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    rig.world.delete_named(Kind::NodeClaim, &claim);
    rig.run(5);
    enter(&mut rig, &instance, InstanceState::Stopped);
    rig.run(40);
    rig.throttles = Some(|call| matches!(call, Ec2Call::DescribeInstances(_)));
    enter(&mut rig, &instance, InstanceState::Running);
    report.notices.clear();
    for _ in 0..6 {
        rig.run(10);
        report.sequence += 1;
        report.sent_at = rig.world.now;
        rig.step(Input::Report(Box::new(report.clone())));
    }
    rig.run(20);
    assert!(rig.state.notices.is_empty());
    assert_eq!(
        (stage(&rig, &instance), shown(&rig, &instance)),
        (Stage::Draining, (vec![], false))
    );
    // Nobody hears of it any more, and EC2 says that it is off.
    rig.throttles = None;
    enter(&mut rig, &instance, InstanceState::Stopped);
    rig.run(40);
    assert_eq!(shown(&rig, &instance), (vec!["nodeshutdown".to_owned()], true));
}

#[test]
fn the_taint_of_somebody_else_stays() {
    let (mut rig, instance) = stuck();
    enter(&mut rig, &instance, InstanceState::Stopping);
    rig.run(40);
    let node = node_of(&rig, &instance).unwrap();
    let mut taints = node["spec"]["taints"].as_array().cloned().unwrap();
    let name = node["metadata"]["name"].as_str().unwrap().to_owned();
    taints
        .push(json!({"key": labels::OUT_OF_SERVICE_TAINT, "value": "own", "effect": "NoExecute"}));
    rig.world.change(Kind::Node, "", &name, &json!({"spec": {"taints": taints}}));
    for state in [InstanceState::Stopped, InstanceState::Running] {
        enter(&mut rig, &instance, state);
        rig.run(40);
        assert_eq!(shown(&rig, &instance), (vec!["own".to_owned()], false), "{state:?}");
    }
}

/// EC2 ends a machine; how many seconds later its node is gone. `ready` as its node shows itself until then.
fn node_stays_for(ready: bool, pods: bool, prepare: impl FnOnce(&mut Rig, &str)) -> i64 {
    let (mut rig, instance) = stuck();
    let name = node_of(&rig, &instance).unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    prepare(&mut rig, &name);
    if !pods {
        rig.world.remove_pods("web");
    }
    rig.world.set_ready(0, ready);
    enter(&mut rig, &instance, InstanceState::Terminated);
    while stage(&rig, &instance) != Stage::Gone {
        rig.step(Input::Tick);
        rig.world.now += jiff::SignedDuration::from_millis(250);
    }
    let mut seconds = 0;
    while node_of(&rig, &instance).is_some() {
        rig.run(1);
        seconds += 1;
        assert!(seconds < 300, "it never goes");
        if seconds == 10 {
            let metadata = &node_of(&rig, &instance).unwrap()["metadata"];
            assert!(metadata.get("deletionTimestamp").is_some());
            assert_eq!(shown(&rig, &instance), (vec!["nodeshutdown".to_owned()], true));
            if !pods {
                rig.world.delete_named(Kind::VolumeAttachment, "attach-data");
            }
        }
    }
    seconds
}

#[test]
fn a_node_outlives_its_machine_until_its_pods_and_volumes_are_free() {
    assert!(node_stays_for(true, true, |_, _| {}) <= 1, "the taint would free nothing yet");
    assert!(node_stays_for(false, false, |_, _| {}) <= 1, "nothing is on it");
    let by_volume = node_stays_for(false, false, |rig, node| {
        rig.world.attach_volume("data", node, None);
    });
    assert!((11..=12).contains(&by_volume), "{by_volume}");
    let by_pod = node_stays_for(false, true, |_, _| {});
    assert!((59..=62).contains(&by_pod), "{by_pod}: its deletion frees them, too");
}
