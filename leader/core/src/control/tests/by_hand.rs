//! NodeClaims that users make, of no NodePool.

use drover_common::call::{Call, Kind};
use drover_common::ec2::Ec2Call;
use drover_common::id::InstanceId;
use serde_json::{Value, json};

use super::super::*;
use super::rig::*;
use crate::state::Stage;

fn claim<'r>(rig: &'r Rig, name: &str) -> Option<&'r Value> {
    rig.world.list(Kind::NodeClaim).into_iter().find(|claim| claim["metadata"]["name"] == name)
}

/// Reason and message of the claim's condition Launched.
fn launched(rig: &Rig, name: &str) -> (String, String) {
    let claim = claim(rig, name).unwrap();
    let conditions = claim["status"]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == "Launched").unwrap();
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    (text("reason"), text("message"))
}

#[test]
fn a_claim_of_no_pool_is_launched_registered_and_terminated() {
    let mut rig = Rig::new();
    let requirements = json!([
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]},
        {"key": "example.com/rack", "operator": "In", "values": ["r1"]},
    ]);
    let taints = json!([{"key": "example.com/own", "effect": "NoSchedule"}]);
    rig.world.add_claim_by_hand("mine", &json!({"requirements": requirements, "taints": taints}));
    rig.run(10);
    assert_eq!(rig.rejected, Vec::<String>::new());
    assert_eq!(rig.stages(), [Stage::Initialized]);
    rig.check_settled();
    let made = claim(&rig, "mine").unwrap();
    assert_eq!(conditions(made), ["Initialized", "Launched", "Ready", "Registered"]);
    assert_eq!(made["metadata"]["finalizers"], json!(["karpenter.sh/termination"]));
    assert_eq!(made["metadata"]["labels"]["karpenter.k8s.aws/ec2nodeclass"], "default");
    let instance = rig.world.running_instances()[0].clone();
    assert_eq!(instance.instance_type, "m5.large", "the cheapest");
    assert_eq!(instance.tags["karpenter.sh/nodepool"], "", "found by it as Karpenter's are");
    assert_eq!(instance.tags["karpenter.sh/nodeclaim"], "mine");
    let node = rig.world.list(Kind::Node)[0];
    for (label, value) in
        [("team", "own"), ("example.com/rack", "r1"), ("karpenter.sh/capacity-type", "spot")]
    {
        assert_eq!(node["metadata"]["labels"][label], value, "{label}");
    }
    assert!(node["metadata"]["labels"].get("karpenter.sh/nodepool").is_none());
    assert_eq!(node["spec"]["taints"][0]["key"], "example.com/own");
    // It is nobody's to disrupt, though it is empty; reads of EC2 go on showing it.
    rig.run(20 * 60);
    assert_eq!(rig.stages(), [Stage::Initialized]);
    assert!(rig.world.delete_named(Kind::NodeClaim, "mine"));
    rig.run(60);
    assert_eq!(rig.world.terminated, [instance.instance]);
    assert!(claim(&rig, "mine").is_none());
    rig.check_settled();
}

#[test]
fn a_leader_that_ends_at_any_call_launches_a_claim_made_by_hand_once() {
    for fate in [Fate::NeverSent, Fate::Unheard] {
        let mut at = 1;
        loop {
            let mut rig = Rig::new();
            rig.run(5);
            rig.world.add_claim_by_hand("mine", &json!({}));
            rig.crash = Some((rig.calls + at, fate));
            rig.run(100);
            assert_eq!(rig.world.instances.len(), 1, "leader ended at call {at}, {fate:?}");
            assert_eq!(rig.stages(), [Stage::Initialized], "leader ended at call {at}, {fate:?}");
            rig.check_settled();
            if rig.crash.is_some() {
                break;
            }
            at += 1;
        }
    }
}

#[test]
fn a_log_that_is_lost_finds_the_instance_again() {
    let mut rig = Rig::new();
    rig.world.add_claim_by_hand("mine", &json!({}));
    // EC2's answer is lost with the log: nothing but the intent's tag tells of the instance.
    rig.fail = Some(|call| matches!(call, Call::Ec2(Ec2Call::CreateFleet(_))));
    while rig.world.instances.is_empty() {
        rig.step(Input::Tick);
        rig.world.now += jiff::SignedDuration::from_millis(250);
    }
    rig.state = State::default();
    rig.lead();
    rig.run(60);
    assert_eq!(rig.world.instances.len(), 1);
    assert_eq!(rig.stages(), [Stage::Initialized]);
    rig.check_settled();
}

#[test]
fn what_leaves_no_type_is_told_and_given_up_after_five_minutes() {
    let arm = json!([{"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}]);
    let many =
        json!([{"key": "node.kubernetes.io/instance-type", "operator": "Exists", "minValues": 9}]);
    let other = json!({"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "other"});
    for (spec, reason) in [
        (
            json!({"requirements": arm}),
            "spec.requirements: kubernetes.io/arch In [arm64] leaves no type of the EC2NodeClass",
        ),
        (
            json!({"resources": {"requests": {"cpu": "64"}}}),
            "spec.resources.requests: no allowed type has room for cpu: 64, memory: 1Gi",
        ),
        (
            json!({"requirements": many}),
            "spec.requirements: minValues of node.kubernetes.io/instance-type is 9, and only 4 can be had",
        ),
        (json!({"nodeClassRef": other}), "EC2NodeClass other is not ready"),
    ] {
        let mut rig = Rig::new();
        rig.world.add_claim_by_hand("mine", &spec);
        rig.run(280);
        assert_eq!(launched(&rig, "mine"), ("LaunchFailed".to_owned(), reason.to_owned()));
        rig.run(40);
        assert!(claim(&rig, "mine").is_none(), "{reason}");
        assert!(rig.world.instances.is_empty());
        rig.check_settled();
    }
}

#[test]
fn a_claim_of_another_provider_is_left_alone() {
    let mut rig = Rig::new();
    let class = json!({"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"});
    rig.world.add_claim_by_hand("theirs", &json!({"nodeClassRef": class}));
    rig.world.add_pods("web", 1, 800);
    rig.run(600);
    assert_eq!(rig.world.running_pods(), 1);
    let theirs = claim(&rig, "theirs").unwrap();
    assert!(theirs.get("status").is_none() && theirs["metadata"].get("finalizers").is_none());
}

#[test]
fn a_claim_that_is_deleted_before_its_launch_launches_nothing() {
    let mut rig = Rig::new();
    rig.run(5);
    rig.world.add_claim_by_hand("mine", &json!({}));
    rig.world.add_claim_by_hand("held", &json!({}));
    rig.world.hold("held", "example.com/backup");
    for event in rig.world.events.drain(..).collect::<Vec<_>>() {
        rig.control.step(&rig.state, Input::Cluster(event), rig.world.now);
    }
    // The intents are committed; their claims go before anything else happens.
    for effect in rig.control.step(&rig.state, Input::Tick, rig.world.now) {
        if let Effect::Propose(command) = effect {
            rig.apply(&command);
        }
    }
    assert_eq!(rig.state.intents.len(), 2);
    assert!(rig.world.delete_named(Kind::NodeClaim, "mine"));
    assert!(rig.world.delete_named(Kind::NodeClaim, "held"));
    rig.run(30);
    assert!(rig.world.instances.is_empty());
    assert!(rig.state.claims.keys().all(|name| name.as_str() == "held"), "{:?}", rig.state.claims);
    rig.world.release("held");
    rig.run(5);
    rig.check_settled();
}

#[test]
fn pending_pods_are_planned_onto_it() {
    let mut rig = Rig::new();
    rig.world.add_claim_by_hand("mine", &json!({}));
    rig.world.add_pods("web", 2, 800);
    rig.run(20);
    assert_eq!((rig.world.instances.len(), rig.world.running_pods()), (1, 2));
    rig.check_settled();
}

#[test]
fn what_another_driver_launched_for_a_claim_of_no_pool_is_taken_over() {
    let mut rig = Rig::new();
    rig.world.add_claim_by_hand("theirs", &json!({}));
    rig.world.launched_elsewhere("theirs", "i-theirs");
    rig.run(40);
    assert_eq!(rig.world.instances.len(), 1);
    assert_eq!(rig.stages(), [Stage::Initialized]);
    assert!(rig.world.delete_named(Kind::NodeClaim, "theirs"));
    rig.run(60);
    assert_eq!(rig.world.terminated, [InstanceId::from("i-theirs")]);
    rig.check_settled();
}
