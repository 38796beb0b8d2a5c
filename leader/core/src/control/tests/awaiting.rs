//! Nodes that pods of leaving nodes are to come to, and pods that no budget lets leave.

use drover_common::call::Kind;
use drover_common::ec2::Ec2Call;
use serde_json::json;

use super::super::*;
use super::rig::*;

/// A pod on a node whose NodeClaim is deleted, after `prepare`.
fn leaving(prepare: impl FnOnce(&mut Rig)) -> Rig {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 1, 1_500);
    rig.run(10);
    assert_eq!(rig.world.running_pods(), 1);
    prepare(&mut rig);
    rig.run(1);
    let claim = rig.world.list(Kind::NodeClaim)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(rig.world.delete_named(Kind::NodeClaim, &claim));
    rig
}

fn bought(rig: &Rig) -> usize {
    rig.state.intents.len() + rig.state.closed_intents.len()
}

/// A budget over all pods, as the API server counts it.
fn budget(rig: &mut Rig, expected: i32, desired: i32) {
    rig.world.budget_pods(0);
    count_budget(rig, expected, desired, 0);
}

fn count_budget(rig: &mut Rig, expected: i32, desired: i32, allowed: i32) {
    let status = json!({"status": {
        "expectedPods": expected, "currentHealthy": desired, "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
    }});
    rig.world.count_budget(&status);
}

/// Everything is well: one node with the one pod, and it stays.
fn settles(mut rig: Rig) {
    rig.run(120);
    assert_eq!((rig.world.running_pods(), rig.state.claims.len()), (1, 1));
    rig.check_settled();
    rig.world.remove_pods("web");
    rig.run(120);
    assert!(rig.state.claims.is_empty(), "without pods it goes as ever");
    assert_eq!(bought(&rig), 2);
}

#[test]
fn a_node_is_kept_for_pods_whose_drain_waits_for_their_budget() {
    // Others of its pods are not healthy yet.
    let mut rig = leaving(|rig| {
        budget(rig, 3, 2);
        rig.world.holds_pods = true;
    });
    for _ in 0..20 {
        rig.run(30);
        assert_eq!((bought(&rig), rig.state.claims.len()), (2, 2), "one replacement, and it stays");
    }
    let managed = rig.control.managed(&rig.state, rig.world.now);
    let held: Vec<_> = managed.nodes.values().map(|node| node.held.as_deref()).collect();
    assert_eq!(held, [Some("pods of nodes that leave are to come to it")]);
    count_budget(&mut rig, 3, 2, 1);
    rig.world.holds_pods = false;
    settles(rig);
}

#[test]
fn nothing_is_bought_for_a_pod_that_no_budget_lets_go() {
    let mut rig = leaving(|rig| {
        budget(rig, 1, 1);
        rig.world.holds_pods = true;
    });
    rig.run(600);
    assert_eq!((bought(&rig), rig.world.running_pods()), (1, 1));
    // Once a second replica is there, one may go.
    count_budget(&mut rig, 2, 1, 1);
    rig.run(10);
    assert_eq!(bought(&rig), 2);
    rig.world.holds_pods = false;
    settles(rig);
}

#[test]
fn what_two_budgets_cover_is_never_evicted() {
    let mut rig = leaving(|rig| {
        rig.world.budget_pods(1);
        rig.world.put(
            Kind::PodDisruptionBudget,
            json!({
                "metadata": {"name": "other", "namespace": "default"},
                "spec": {"selector": {}}, "status": {"disruptionsAllowed": 1},
            }),
        );
        rig.world.holds_pods = true;
    });
    rig.run(60);
    assert_eq!(bought(&rig), 1);
}

#[test]
fn where_time_runs_out_a_replacement_is_bought_once_and_kept_until_the_pod_comes() {
    let mut rig = leaving(|rig| {
        budget(rig, 1, 1);
        rig.world.holds_pods = true;
        rig.world.set_termination_grace("300s");
    });
    for _ in 0..26 {
        rig.run(10);
        assert_eq!((bought(&rig), rig.state.claims.len()), (2, 2));
        assert_eq!(rig.world.ended, []);
    }
    rig.run(60);
    assert!(rig.world.ended[0].forced);
    settles(rig);
}

#[test]
fn a_node_is_kept_for_the_pod_that_comes_when_the_last_one_has_ended() {
    let mut rig = leaving(|_| {});
    rig.run(2);
    assert_eq!(bought(&rig), 2);
    // As of a StatefulSet: nobody takes its place before its time to end is over.
    rig.world.patch_pod("web-0", &json!({"metadata": {"finalizers": ["example.com/ends"]}}));
    rig.world.delete_object(Kind::Pod, "default", "web-0");
    // Nobody who ends already stays for a budget.
    budget(&mut rig, 1, 1);
    rig.run(50);
    assert_eq!((bought(&rig), rig.state.claims.len()), (2, 2));
    rig.world.patch_pod("web-0", &json!({"metadata": {"finalizers": []}}));
    rig.world.remove_pods("web-0");
    rig.run(1);
    rig.world.add_pods("web", 1, 1_500);
    settles(rig);
}

#[test]
fn a_node_whose_pods_are_gone_is_kept_for_nobody() {
    let mut rig = leaving(|rig| {
        budget(rig, 3, 2);
        rig.world.holds_pods = true;
    });
    rig.run(60);
    assert_eq!(rig.state.claims.len(), 2);
    rig.world.remove_pods("web");
    rig.run(120);
    assert!(rig.state.claims.is_empty());
    rig.check_settled();
}

#[test]
fn a_new_leader_keeps_nodes_that_await_pods() {
    let mut rig = leaving(|rig| {
        budget(rig, 3, 2);
        rig.world.holds_pods = true;
    });
    rig.run(60);
    // It can't plan at first.
    rig.throttles = Some(|call| matches!(call, Ec2Call::DescribeInstanceTypes));
    rig.lead();
    rig.run(60);
    assert!(!rig.control.provisioning.has_planned());
    assert_eq!((bought(&rig), rig.state.claims.len()), (2, 2));
    rig.throttles = None;
    rig.run(60);
    assert!(rig.control.provisioning.has_planned());
    assert_eq!((bought(&rig), rig.state.claims.len()), (2, 2));
}

#[test]
fn a_node_that_was_to_go_as_empty_stays_for_pods_that_were_planned_onto_it_meanwhile() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 1_500);
    rig.run(60);
    budget(&mut rig, 3, 2);
    rig.world.holds_pods = true;
    rig.stalled = Some(Vec::new());
    rig.world.remove_pods("web-1");
    rig.run(40);
    let empty = rig.to_leave();
    assert_eq!(empty.len(), 1);
    let other = rig.state.claims.keys().find(|claim| !empty.contains(*claim)).cloned().unwrap();
    assert!(rig.world.delete_named(Kind::NodeClaim, other.as_str()));
    rig.run(1);
    // The log takes this one first.
    let of_other = |command: &mut Command| {
        matches!(&command.change, Change::CommitDisruption { disruption, .. }
            if disruption.claims.contains(&other))
    };
    let first: Vec<Command> = rig.stalled.as_mut().unwrap().extract_if(.., of_other).collect();
    assert_eq!(first.len(), 1);
    rig.apply(&first[0]);
    rig.run(2);
    rig.end_stall();
    for _ in 0..10 {
        rig.run(30);
        assert_eq!((bought(&rig), rig.state.claims.len()), (1, 2));
    }
}
