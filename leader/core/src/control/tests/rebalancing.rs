//! Nodes that EC2 recommends to leave.

use std::collections::BTreeSet;

use drover_common::call::{Call, Kind, KubernetesCall, Target};
use drover_common::id::{InstanceId, NodeClaimName};
use drover_common::protocol::NoticeKind;
use serde_json::{Value, json};

use super::super::*;
use super::rig::*;
use crate::command::DisruptionReason;
use crate::state::Stage;

fn patch(rig: &mut Rig, target: Target, patch: Value) {
    let call = KubernetesCall::MergePatch { target, status: false, patch };
    rig.world.execute(&Call::Kubernetes(call));
}

fn patch_pool(rig: &mut Rig, change: Value) {
    patch(rig, Target::cluster(Kind::NodePool, "general"), change);
}

/// So many nodes with two pods each, old enough, and a policy.
fn settled(nodes: usize, policy: &str) -> Rig {
    let mut rig = Rig::new();
    patch_pool(
        &mut rig,
        json!({
            "metadata": {"annotations": {"drover.dev/rebalance": policy}},
            "spec": {"disruption": {"consolidateAfter": "Never"}},
        }),
    );
    rig.world.add_pods("web", nodes * 2, 800);
    rig.run(150);
    assert_eq!(rig.stages(), vec![Stage::Initialized; nodes]);
    rig
}

fn instances(rig: &Rig) -> Vec<InstanceId> {
    rig.world.running_instances().iter().map(|one| one.instance.clone()).collect()
}

fn recommend(rig: &mut Rig, instance: &InstanceId) {
    let report = rig.report(instance, Some(NoticeKind::Rebalance));
    rig.step(Input::Report(Box::new(report)));
}

fn reasons(rig: &Rig) -> Vec<DisruptionReason> {
    rig.state.disruptions.values().map(|record| record.disruption.reason).collect()
}

#[test]
fn the_replacement_is_up_before_any_pod_is_asked_to_go() {
    let mut rig = settled(1, "replace");
    let doomed = instances(&rig)[0].clone();
    recommend(&mut rig, &doomed);
    rig.run(1);
    let record = rig.state.disruptions.values().next().unwrap().clone();
    assert_eq!(record.disruption.reason, DisruptionReason::Rebalance);
    assert_eq!(record.disruption.deadline, None, "it never passes a budget");
    insta::assert_snapshot!(record.disruption.explanation, @"EC2 recommends to leave Node i-0000.ec2.internal; NodePool general wants it replaced, 1 new nodes first");
    let new: NodeClaimName = record.disruption.replacements[0].clone();
    for _ in 0..120 {
        rig.run(1);
        let up = rig.state.claims.get(&new).is_some_and(|one| one.stage == Stage::Initialized);
        assert!(up || rig.world.running_pods() == 2, "nothing moves before there is a place");
    }
    assert_eq!(rig.world.terminated, [doomed]);
    assert_eq!(rig.world.running_pods(), 2);
    let kind = &rig.world.running_instances()[0].instance_type;
    assert_eq!(kind, "m5a.large", "the offering that was recommended against is left alone");
    assert_eq!(rig.rejected, Vec::<String>::new());
    rig.check_settled();
}

#[test]
fn a_pool_may_want_its_nodes_drained_at_once() {
    let mut rig = settled(1, "drain");
    let doomed = instances(&rig)[0].clone();
    recommend(&mut rig, &doomed);
    rig.run(5);
    assert_eq!(reasons(&rig), [DisruptionReason::Rebalance]);
    let record = rig.state.disruptions.values().next().unwrap();
    assert!(record.disruption.replacements.is_empty());
    assert!(record.draining_since.is_some(), "nothing is waited for but the taint");
    rig.run(100);
    assert_eq!((rig.world.terminated.clone(), rig.world.running_pods()), (vec![doomed], 2));
    rig.check_settled();
}

#[test]
fn what_replaces_a_node_is_not_replaced_in_turn() {
    let mut rig = settled(1, "replace");
    let doomed = instances(&rig)[0].clone();
    // EC2 recommends to leave whatever is launched, and its agent tells that once it runs.
    let mut told = BTreeSet::new();
    let mut run = |rig: &mut Rig, seconds: i64| {
        for _ in 0..seconds {
            for instance in instances(rig) {
                let joined = rig.control.view.node_of_instance(&instance).is_some();
                if joined && told.insert(instance.clone()) {
                    recommend(rig, &instance);
                }
            }
            rig.run(1);
        }
    };
    run(&mut rig, 100);
    assert_eq!(rig.world.terminated, [doomed]);
    assert_eq!((rig.world.instances.len(), rig.world.running_pods()), (2, 2));
    // When it has been there for a while, it may go.
    run(&mut rig, 120);
    assert_eq!(rig.world.terminated.len(), 2);
}

#[test]
fn no_more_go_at_once_than_budgets_allow() {
    let mut rig = settled(3, "replace");
    patch_pool(&mut rig, json!({"spec": {"disruption": {"budgets": [{"nodes": "1"}]}}}));
    for instance in instances(&rig) {
        recommend(&mut rig, &instance);
    }
    for _ in 0..400 {
        rig.run(1);
        let going = [Stage::Disrupting, Stage::Draining];
        let leaving = rig.stages().iter().filter(|stage| going.contains(stage)).count();
        assert!(leaving <= 1, "{leaving} at once");
    }
    assert_eq!((rig.world.terminated.len(), rig.world.running_pods()), (3, 6));
    rig.check_settled();

    let mut rig = settled(1, "replace");
    patch_pool(
        &mut rig,
        json!({"spec": {"disruption": {"budgets": [
        {"nodes": "0", "reasons": ["Drifted"]}]}}}),
    );
    let instance = instances(&rig)[0].clone();
    recommend(&mut rig, &instance);
    rig.run(60);
    assert!(rig.state.disruptions.is_empty());
}

#[test]
fn nobody_is_to_move_to_a_node_that_goes_as_well() {
    let mut rig = settled(2, "replace");
    patch_pool(&mut rig, json!({"spec": {"disruption": {"budgets": [{"nodes": "2"}]}}}));
    // Each has room for what is left on the other.
    let mut nodes = BTreeSet::new();
    let gone = rig.world.list(Kind::Pod).into_iter().filter(|pod| {
        let node = pod["spec"]["nodeName"].as_str().unwrap();
        !nodes.insert(node.to_owned())
    });
    let gone: Vec<String> =
        gone.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    for name in &gone {
        rig.world.remove_pods(name);
    }
    rig.run(2);
    for instance in instances(&rig) {
        recommend(&mut rig, &instance);
    }
    rig.run(3);
    let bought: Vec<usize> =
        rig.state.disruptions.values().map(|one| one.disruption.replacements.len()).collect();
    assert_eq!(bought.iter().sum::<usize>(), 1, "{bought:?}");
    rig.run(200);
    assert_eq!((rig.world.terminated.len(), rig.world.running_pods()), (2, 2));
    rig.check_settled();
}

#[test]
fn no_more_go_at_once_while_the_log_stalls() {
    for deleted in [false, true] {
        let mut rig = settled(3, "drain");
        patch_pool(&mut rig, json!({"spec": {"disruption": {"budgets": [{"nodes": "1"}]}}}));
        rig.run(2);
        rig.stalled = Some(Vec::new());
        if deleted {
            let name = rig.state.claims.keys().next().unwrap().to_string();
            rig.world.delete_named(Kind::NodeClaim, &name);
            rig.run(1);
            assert_eq!(rig.to_leave().len(), 1);
        }
        for instance in instances(&rig) {
            recommend(&mut rig, &instance);
        }
        // The notices get through; what follows from them does not.
        let noticed = rig.stalled.iter().flatten().cloned().collect::<Vec<_>>();
        for command in noticed.iter().filter(|c| matches!(c.change, Change::RecordNotice { .. })) {
            rig.apply(command);
        }
        rig.run(60);
        assert_eq!(rig.to_leave().len(), 1, "deleted: {deleted}");
        rig.end_stall();
        rig.step(Input::Tick);
        assert_eq!(rig.state.disruptions.len(), 1, "deleted: {deleted}");
    }
}

#[test]
fn protected_pods_keep_their_node() {
    let mut rig = settled(1, "drain");
    let mut pod = Target::namespaced(Kind::Pod, "default", "web-0");
    let protects =
        |value: Value| json!({"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": value}}});
    patch(&mut rig, pod.clone(), protects(json!("true")));
    let instance = instances(&rig)[0].clone();
    recommend(&mut rig, &instance);
    rig.run(30);
    assert!(rig.state.disruptions.is_empty());
    pod.name = "web-0".to_owned();
    patch(&mut rig, pod, protects(Value::Null));
    rig.run(2);
    assert_eq!(reasons(&rig), [DisruptionReason::Rebalance]);
}

#[test]
fn nothing_is_bought_for_a_node_that_may_not_be_disrupted() {
    for kind in [Kind::NodeClaim, Kind::Node] {
        let mut rig = settled(1, "replace");
        let name = match kind {
            Kind::Node => rig.world.list(kind)[0]["metadata"]["name"].as_str().unwrap().to_owned(),
            _ => rig.state.claims.keys().next().unwrap().to_string(),
        };
        let forbids = |value: Value| json!({"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": value}}});
        rig.world.change(kind, "", &name, &forbids(json!("true")));
        let instance = instances(&rig)[0].clone();
        recommend(&mut rig, &instance);
        rig.run(30);
        assert_eq!(rig.world.instances.len(), 1, "{kind:?}");
        rig.world.change(kind, "", &name, &forbids(Value::Null));
        rig.run(2);
        assert_eq!(rig.world.instances.len(), 2, "{kind:?}: it need not rest");
    }
}

#[test]
fn a_replacement_that_does_not_come_leaves_the_node_alone() {
    let mut rig = settled(1, "replace");
    let instance = instances(&rig)[0].clone();
    rig.world.sold_out =
        ["m5.large", "m5a.large", "m6i.large", "m5.4xlarge"].map(str::to_owned).into();
    recommend(&mut rig, &instance);
    rig.run(60);
    assert_eq!(rig.world.terminated, []);
    assert_eq!(rig.stages(), [Stage::Initialized]);
    let tried = rig.state.closed_intents.len();
    rig.run(50);
    assert_eq!(rig.state.closed_intents.len(), tried, "it is not tried over and over");
}

#[test]
fn an_unreadable_policy_is_told_and_followed_by_nobody() {
    let mut rig = settled(1, "sometimes");
    let instance = instances(&rig)[0].clone();
    recommend(&mut rig, &instance);
    rig.run(30);
    assert!(rig.state.disruptions.is_empty());
    let status = rig.control.status(&rig.state, rig.world.now);
    insta::assert_snapshot!(status.problems["recommendations of NodePool general"], @r#"annotation drover.dev/rebalance: "sometimes" is none of ignore, replace and drain; taken as ignore"#);
    patch_pool(&mut rig, json!({"metadata": {"annotations": {"drover.dev/rebalance": "ignore"}}}));
    rig.run(1);
    let status = rig.control.status(&rig.state, rig.world.now);
    assert!(!status.problems.contains_key("recommendations of NodePool general"));
}

#[test]
fn a_spot_loss_takes_over_from_a_recommendation() {
    let mut rig = settled(1, "replace");
    let instance = instances(&rig)[0].clone();
    rig.boots = false;
    recommend(&mut rig, &instance);
    rig.run(5);
    assert_eq!(reasons(&rig), [DisruptionReason::Rebalance]);
    let report = rig.report(&instance, Some(NoticeKind::SpotTerminate));
    rig.step(Input::Report(Box::new(report)));
    rig.run(2);
    assert_eq!(reasons(&rig), [DisruptionReason::Interruption]);
    let launched = rig.world.instances.len();
    rig.boots = true;
    rig.run(120);
    assert_eq!((rig.world.instances.len(), rig.world.running_pods()), (launched, 2));
    rig.check_settled();
}

/// Of how many nodes the scheduler had better stay away, because EC2 recommends to leave them.
fn discouraged(rig: &Rig) -> usize {
    let nodes = rig.world.list(Kind::Node);
    let taints = nodes.iter().filter_map(|node| node["spec"]["taints"].as_array()).flatten();
    let ours = taints.filter(|taint| {
        taint["key"] == "drover.dev/rebalance-recommended" && taint["effect"] == "PreferNoSchedule"
    });
    ours.count()
}

#[test]
fn new_pods_rather_go_elsewhere_while_a_recommendation_is_in_force() {
    let mut rig = settled(2, "ignore");
    let instance = instances(&rig)[1].clone();
    let mut report = rig.report(&instance, Some(NoticeKind::Rebalance));
    rig.step(Input::Report(Box::new(report.clone())));
    rig.run(2);
    assert_eq!((discouraged(&rig), rig.stages()), (1, vec![Stage::Initialized; 2]));
    report.notices.clear();
    for _ in 0..7 {
        report.sequence += 1;
        rig.step(Input::Report(Box::new(report.clone())));
        rig.run(10);
    }
    assert_eq!(discouraged(&rig), 0);
}

#[test]
fn consolidation_rather_takes_nodes_that_ec2_recommends_to_leave() {
    for position in [0, 1] {
        let mut rig = settled(3, "ignore");
        rig.world.remove_pods("web-1");
        rig.world.remove_pods("web-3");
        let half_empty: Vec<InstanceId> = instances(&rig)
            .into_iter()
            .filter(|instance| {
                let node = rig.world.instances[instance].private_dns_name.clone();
                let pods = rig.world.list(Kind::Pod);
                pods.iter().filter(|pod| pod["spec"]["nodeName"] == node.as_str()).count() == 1
            })
            .collect();
        assert_eq!(half_empty.len(), 2);
        recommend(&mut rig, &half_empty[position]);
        rig.run(2);
        patch_pool(&mut rig, json!({"spec": {"disruption": {"consolidateAfter": "30s"}}}));
        rig.run(240);
        assert_eq!(rig.world.terminated, [half_empty[position].clone()], "{position}");
    }
}
