//! A NodePool with replicas keeps so many nodes.

use drover_common::call::Kind;
use serde_json::{Value, json};

use super::rig::*;

fn fixed(replicas: u32, limits: &Value) -> Value {
    json!({
        "metadata": {"name": "fixed"},
        "spec": {
            "replicas": replicas, "limits": limits,
            "template": {"spec": {
                "requirements": [
                    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]}],
                "nodeClassRef": {
                    "group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
            }},
            "disruption": {"consolidateAfter": "10s", "budgets": [{"nodes": "100%"}]},
        },
    })
}

fn scale(rig: &mut Rig, replicas: u32) {
    rig.world.change(Kind::NodePool, "", "fixed", &json!({"spec": {"replicas": replicas}}));
}

#[test]
fn a_static_pool_keeps_its_nodes_whatever_the_pods() {
    let mut rig = Rig::new();
    rig.world.put(Kind::NodePool, fixed(2, &json!({})));
    rig.run(10);
    assert_eq!(rig.world.running_instances().len(), 2);
    rig.run(180);
    assert_eq!(rig.world.running_instances().len(), 2, "empty nodes stay");
    rig.check_settled();
    // Pods use them, and none is made for pods that do not fit.
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    assert_eq!((rig.world.running_pods(), rig.world.running_instances().len()), (2, 2));
}

#[test]
fn scaling_makes_nodes_and_lets_the_emptiest_go() {
    let mut rig = Rig::new();
    rig.world.put(Kind::NodePool, fixed(1, &json!({})));
    rig.run(10);
    rig.world.add_pods("web", 1, 800);
    rig.run(5);
    scale(&mut rig, 3);
    rig.run(10);
    assert_eq!(rig.world.running_instances().len(), 3);
    scale(&mut rig, 1);
    rig.run(120);
    assert_eq!(rig.world.running_instances().len(), 1);
    assert_eq!(rig.world.running_pods(), 1, "the node with the pod stayed");
    rig.check_settled();
    let pool = rig.world.list(Kind::NodePool);
    let pool = pool.iter().find(|pool| pool["metadata"]["name"] == "fixed").unwrap();
    assert_eq!(pool["status"]["nodes"], 1);
}

#[test]
fn no_more_go_than_are_too_many_while_the_log_stalls() {
    let mut rig = Rig::new();
    rig.world.put(Kind::NodePool, fixed(1, &json!({})));
    rig.run(10);
    rig.world.add_pods("web", 1, 800);
    rig.run(5);
    let with_pod = rig.state.claims.keys().next().unwrap().clone();
    scale(&mut rig, 3);
    rig.run(30);
    assert_eq!(rig.state.claims.len(), 3);
    rig.stalled = Some(Vec::new());
    rig.world.delete_named(Kind::NodeClaim, with_pod.as_str());
    rig.run(1);
    // The one that goes anyhow is the one too many.
    scale(&mut rig, 2);
    rig.run(30);
    assert_eq!(rig.to_leave(), [with_pod].into());
    rig.end_stall();
    rig.run(120);
    assert_eq!(rig.world.instances.len(), 3, "none was made in another's place");
    assert_eq!((rig.world.running_instances().len(), rig.world.running_pods()), (2, 1));
    rig.check_settled();
}

#[test]
fn a_node_that_is_lost_is_made_anew_and_limits_hold() {
    let mut rig = Rig::new();
    rig.world.put(Kind::NodePool, fixed(3, &json!({"nodes": 2})));
    rig.run(10);
    assert_eq!(rig.world.running_instances().len(), 2);
    let name = rig.state.claims.keys().next().unwrap().to_string();
    rig.world.delete_named(Kind::NodeClaim, &name);
    rig.run(60);
    assert_eq!(rig.world.running_instances().len(), 2);
    assert!(!rig.state.claims.keys().any(|claim| claim.0 == name), "another stands in for it");
}

#[test]
fn nodes_that_can_not_be_made_are_not_planned_at_every_look() {
    let mut rig = Rig::new();
    rig.run(5);
    // What every intent is named after.
    rig.world.delete_named(Kind::Namespace, "kube-system");
    rig.world.put(Kind::NodePool, fixed(1, &json!({})));
    rig.run(2);
    let problems = rig.control.status(&rig.state, rig.world.now).problems;
    assert!(problems.contains_key("launches of NodePool fixed"), "{problems:?}");
    rig.world.put(Kind::Namespace, json!({"metadata": {"name": "kube-system"}}));
    rig.run(5);
    assert_eq!(rig.world.fleets_asked, 0, "it waits");
    rig.run(10);
    assert_eq!(rig.world.fleets_asked, 1);
}

#[test]
fn a_leader_that_ends_makes_no_node_too_many() {
    for at in 1..14 {
        let mut rig = Rig::new();
        rig.crash = Some((rig.calls + at, Fate::Unheard));
        rig.world.put(Kind::NodePool, fixed(2, &json!({})));
        rig.run(30);
        assert_eq!(rig.world.instances.len(), 2, "leader ended at call {at}");
    }
}

/// A pool of so many nodes, none of which EC2 will launch.
fn refused(nodes: u32) -> Rig {
    let mut rig = Rig::new();
    rig.world.refuses_fleets = Some("InvalidParameterValue");
    rig.world.put(Kind::NodePool, fixed(nodes, &json!({})));
    rig
}

#[test]
fn what_ec2_refuses_is_tried_again_after_longer_and_longer_waits_and_told() {
    let mut rig = refused(1);
    rig.run(100);
    assert_eq!(rig.world.fleets_asked, 4, "at once, and after 10, 20 and 40 s");
    let problems = rig.control.status(&rig.state, rig.world.now).problems;
    let told = problems.get("launches of NodePool fixed").cloned().unwrap_or_default();
    assert!(told.starts_with("the last 4 launches failed, InvalidParameterValue"), "{problems:?}");
    rig.run(1_300);
    assert_eq!(rig.world.fleets_asked, 9, "after 80, 160 and then each 300 s");
    // Whoever mends it need not wait.
    rig.world.refuses_fleets = None;
    rig.world.change(Kind::NodePool, "", "fixed", &json!({"metadata": {"generation": 2}}));
    rig.run(10);
    assert_eq!(rig.world.running_instances().len(), 1);
    let problems = rig.control.status(&rig.state, rig.world.now).problems;
    assert!(!problems.contains_key("launches of NodePool fixed"), "{problems:?}");
}

#[test]
fn what_was_told_of_a_pool_goes_with_it() {
    let mut rig = refused(1);
    let policy = json!({"metadata": {"annotations": {"drover.dev/rebalance": "sometimes"}}});
    for pool in ["fixed", "general"] {
        rig.world.change(Kind::NodePool, "", pool, &policy);
    }
    rig.run(5);
    let told = |rig: &Rig| -> Vec<String> {
        let problems = rig.control.status(&rig.state, rig.world.now).problems.into_keys();
        problems.filter(|subject| subject.contains("NodePool")).collect()
    };
    let of_fixed = ["launches of NodePool fixed", "recommendations of NodePool fixed"];
    let of_general = "recommendations of NodePool general";
    assert_eq!(told(&rig), [of_fixed[0], of_fixed[1], of_general]);
    rig.world.delete_named(Kind::NodePool, "fixed");
    rig.run(2);
    assert_eq!(told(&rig), [of_general]);
    // Another of that name begins anew.
    rig.world.refuses_fleets = None;
    rig.world.put(Kind::NodePool, fixed(1, &json!({})));
    rig.run(3);
    assert_eq!(rig.world.running_instances().len(), 1);
}

#[test]
fn what_is_refused_together_lengthens_the_wait_once() {
    // More than one intent has room for.
    let mut rig = refused(101);
    rig.run(25);
    assert_eq!(rig.world.fleets_asked, 4, "two at once, and two after 10 s");
    rig.run(15);
    assert_eq!(rig.world.fleets_asked, 6, "and after 20 s");
}
