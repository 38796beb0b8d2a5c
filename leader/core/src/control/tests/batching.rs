//! Which pods are planned together, what is planned for siblings to come, and what becomes of plans
//! that the scheduler does not follow.

use drover_common::call::Kind;
use jiff::SignedDuration;
use serde_json::json;

use super::rig::*;
use crate::control::Input;

fn replica_set(rig: &mut Rig, replicas: usize, failing: bool) {
    let conditions =
        if failing { json!([{"type": "ReplicaFailure", "status": "True"}]) } else { json!([]) };
    rig.world.put(
        Kind::ReplicaSet,
        json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": replicas}, "status": {"conditions": conditions},
        }),
    );
}

#[test]
fn a_rollout_is_bought_as_one() {
    let mut rig = Rig::new();
    rig.run(2);
    replica_set(&mut rig, 6, false);
    rig.world.add_pods("web", 1, 800);
    rig.run(3);
    assert_eq!(rig.world.instances.len(), 3, "two pods a node, for all six");
    assert_eq!(rig.state.closed_intents.len(), 1);
    for number in 1..6 {
        rig.world.add_pods(&format!("web-{number}"), 1, 800);
    }
    rig.run(10);
    assert_eq!((rig.world.running_pods(), rig.world.instances.len()), (6, 3));
    rig.check_settled();
}

#[test]
fn a_jobs_pods_are_bought_as_one() {
    let mut rig = Rig::new();
    rig.run(2);
    let job = json!({
        "metadata": {"name": "sums", "namespace": "default"},
        "spec": {"parallelism": 8, "completions": 20}, "status": {"succeeded": 14},
    });
    rig.world.put(Kind::Job, job);
    rig.world.add_pod_of(("Job", "sums"), "sums-x1", 800);
    rig.run(3);
    assert_eq!(rig.world.instances.len(), 3, "two pods a node, for the six that are left");
    for number in 2..7 {
        rig.world.add_pod_of(("Job", "sums"), &format!("sums-x{number}"), 800);
    }
    rig.run(10);
    assert_eq!((rig.world.running_pods(), rig.world.instances.len()), (6, 3));
}

#[test]
fn of_a_stateful_set_that_makes_one_pod_after_the_other_none_is_waited_for() {
    for (policy, nodes) in [("OrderedReady", 1), ("Parallel", 3)] {
        let mut rig = Rig::new();
        rig.run(2);
        let set = json!({
            "metadata": {"name": "db", "namespace": "default"},
            "spec": {"replicas": 6, "podManagementPolicy": policy},
        });
        rig.world.put(Kind::StatefulSet, set);
        rig.world.add_pod_of(("StatefulSet", "db"), "db-0", 800);
        rig.run(3);
        assert_eq!(rig.world.instances.len(), nodes, "{policy}");
    }
}

#[test]
fn replicas_that_a_quota_keeps_back_are_not_waited_for() {
    let mut rig = Rig::new();
    rig.run(2);
    replica_set(&mut rig, 6, true);
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    assert_eq!(rig.world.instances.len(), 1);
}

#[test]
fn an_owner_that_makes_no_more_pods_is_taken_at_what_it_made() {
    let mut rig = Rig::new();
    rig.world
        .sold_out
        .extend(["m5.large", "m5a.large", "m6i.large", "m5.4xlarge"].map(str::to_owned));
    replica_set(&mut rig, 6, false);
    rig.world.add_pods("web", 1, 800);
    rig.run(30);
    rig.world.sold_out.clear();
    rig.run(200);
    assert_eq!(rig.world.instances.len(), 1, "the other five never came");
}

#[test]
fn a_batch_ends_when_none_came_for_a_while_or_after_a_longer_while() {
    let mut rig = Rig::new();
    rig.run(3);
    let begin = rig.world.now;
    let mut number = 0;
    let mut decided_after = None;
    while decided_after.is_none() && number < 40 {
        rig.world.now += SignedDuration::from_millis(60);
        rig.world.add_pods(&format!("drip-{number}"), 1, 100);
        rig.step(Input::Tick);
        rig.step(Input::Tick);
        number += 1;
        if !rig.state.claims.is_empty() {
            decided_after = Some(rig.world.now.duration_since(begin).as_millis());
        }
    }
    let decided_after = decided_after.unwrap();
    assert!((1_000..1_200).contains(&decided_after), "{decided_after} ms for a steady drip");

    let mut rig = Rig::new();
    rig.run(3);
    rig.world.add_pods("alone", 1, 100);
    rig.step(Input::Tick);
    rig.step(Input::Tick);
    assert!(rig.state.claims.is_empty());
    rig.world.now += SignedDuration::from_millis(100);
    rig.step(Input::Tick);
    assert_eq!(rig.state.claims.len(), 1, "after 100 ms of quiet");
}

#[test]
fn only_pods_that_wait_for_a_node_open_a_batch() {
    let mut rig = Rig::new();
    rig.run(3);
    let unschedulable =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
    let gated = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"});
    for (name, owner, condition, spec, nominated) in [
        ("gated", "ReplicaSet", &gated, json!({"schedulingGates": [{"name": "g"}]}), ""),
        ("nominated", "ReplicaSet", &unschedulable, json!({}), "n1"),
        ("daemon", "DaemonSet", &unschedulable, json!({}), ""),
        ("static", "Node", &unschedulable, json!({}), ""),
    ] {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "main", "resources": {"requests": {"cpu": "100m"}}}]);
        rig.world.put(Kind::Pod, json!({
            "metadata": {"name": name, "namespace": "default",
                "ownerReferences": [{"kind": owner, "name": "o", "uid": "o", "controller": true}]},
            "spec": spec,
            "status": {"phase": "Pending", "conditions": [condition], "nominatedNodeName": nominated},
        }));
    }
    rig.step(Input::Tick);
    rig.step(Input::Tick);
    assert_eq!(rig.control.next_wakeup(), None, "no batch is open");
    rig.run(20);
    assert!(rig.state.claims.is_empty());
    assert!(rig.world.instances.is_empty());
}

#[test]
fn a_binding_elsewhere_is_counted_and_the_plan_follows_it() {
    let mut rig = Rig::new();
    rig.world.add_pods("a", 1, 800);
    rig.run(10);
    let node = rig.world.list(Kind::Node)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let status = rig.control.status(&rig.state, rig.world.now);
    assert_eq!((status.bindings_followed, status.bindings_diverged), (1, 0));
    rig.boots = false;
    rig.world.add_pods("b", 1, 1_500);
    rig.run(2);
    assert_eq!(rig.state.claims.len(), 2, "a node is made for it");
    rig.world.bind("b-0", &node);
    rig.run(1);
    let status = rig.control.status(&rig.state, rig.world.now);
    assert_eq!((status.bindings_followed, status.bindings_diverged), (1, 1));
    // The room it leaves is free for another.
    rig.world.add_pods("c", 1, 1_500);
    rig.run(5);
    assert_eq!(rig.state.claims.len(), 2);
    rig.boots = true;
    rig.run(10);
    assert_eq!(rig.world.running_pods(), 3);
}
