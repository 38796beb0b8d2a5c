//! What is told of problems, and when it is over.

use drover_common::call::Kind;
use serde_json::json;

use super::super::*;
use super::rig::*;
use crate::command::Change;

fn told(rig: &Rig, subject: &str) -> Option<String> {
    let problems = rig.control.status(&rig.state, rig.world.now).problems;
    problems.into_iter().find(|(about, _)| about.starts_with(subject)).map(|(_, words)| words)
}

#[test]
fn a_call_that_is_not_made_any_more_is_no_problem() {
    let mut rig = Rig::new();
    // Nothing that a Node needs to be registered can be written.
    rig.world.refuses_nodes = true;
    rig.world.add_pods("web", 1, 800);
    rig.run(15);
    let node = rig.world.list(Kind::Node)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(told(&rig, &format!("patching Node {node}")).is_some());
    rig.world.remove_pods("web");
    // It goes for another reason, and nobody patches it any more.
    rig.world.instances.clear();
    rig.world.delete_named(Kind::Node, &node);
    rig.run(200);
    assert_eq!(told(&rig, &format!("patching Node {node}")), None);
}

#[test]
fn a_wait_is_told_as_long_as_it_lasts() {
    let mut rig = Rig::new();
    let set = |paused| Change::SetPause {
        nodepool: Some("general".into()),
        paused,
        by: "ada".to_owned(),
        reason: "maintenance".to_owned(),
    };
    let at = rig.world.now;
    rig.apply(&Command { at, change: set(true) });
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    assert_eq!(told(&rig, "launches of").as_deref(), Some("paused by an operator"));
    rig.world.remove_pods("web");
    rig.run(10);
    assert!(told(&rig, "launches of").is_some());
    rig.apply(&Command { at, change: set(false) });
    rig.run(2);
    assert_eq!(told(&rig, "launches of"), None);
}

#[test]
fn what_no_node_could_be_made_for_is_forgotten_once_nobody_wants_one() {
    let mut rig = Rig::new();
    rig.run(5);
    // What every intent is named after.
    rig.world.delete_named(Kind::Namespace, "kube-system");
    rig.world.add_pods("web", 1, 800);
    rig.run(700);
    assert!(told(&rig, "launches of NodePool general").is_some(), "it is met again and again");
    rig.world.remove_pods("web");
    rig.run(300);
    assert!(told(&rig, "launches of NodePool general").is_some());
    rig.run(400);
    assert_eq!(told(&rig, "launches of NodePool general"), None);
}

#[test]
fn replacements_that_could_not_be_made_are_told_until_they_are() {
    let mut rig = Rig::new();
    rig.world.add_pods("big", 1, 3_000);
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    rig.world.delete_named(Kind::Namespace, "kube-system");
    rig.world.remove_pods("big");
    rig.run(120);
    assert!(told(&rig, "replacements of NodePool general").is_some());
    rig.world.put(Kind::Namespace, json!({"metadata": {"name": "kube-system"}}));
    rig.run(60);
    assert_eq!(told(&rig, "replacements of NodePool general"), None);
}

#[test]
fn a_pool_that_no_node_can_be_made_of_is_told_until_one_can() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    assert_eq!(told(&rig, "NodePool general"), None);
    let class = rig.world.list(Kind::Ec2NodeClass)[0]["spec"].clone();
    rig.world.delete_named(Kind::Ec2NodeClass, "default");
    rig.run(2);
    let words = "EC2NodeClass default is being deleted";
    assert_eq!(told(&rig, "NodePool general").as_deref(), Some(words));
    rig.world.remove_pods("web");
    rig.run(120);
    let words = "EC2NodeClass default does not exist";
    assert_eq!(told(&rig, "NodePool general").as_deref(), Some(words));
    rig.world
        .put(Kind::Ec2NodeClass, json!({"metadata": {"name": "default"}, "spec": class.clone()}));
    rig.run(10);
    assert_eq!(told(&rig, "NodePool general"), None);
    rig.world.lacks_subnets = true;
    rig.world.change(Kind::Ec2NodeClass, "", "default", &json!({"metadata": {"generation": 9}}));
    rig.run(10);
    let words = told(&rig, "NodePool general").unwrap();
    assert!(words.contains("EC2NodeClass default, SubnetsReady: "), "{words}");
    rig.world.delete_named(Kind::NodePool, "general");
    rig.run(2);
    assert_eq!(told(&rig, "NodePool general"), None);
}
