//! What the leader drains for a silent agent is told as what an agent drains.

use drover_common::call::Kind;
use drover_common::protocol::{DrainPhase, NoticeKind};
use jiff::SignedDuration;

use super::super::*;
use super::rig::*;

fn events(rig: &Rig, reason: &str) -> Vec<String> {
    let all = rig.world.list(Kind::Event);
    let own = all.iter().filter(|event| event["reason"] == reason);
    own.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

/// A node with two pods whose agent tells of a spot loss and falls silent.
fn lost(holds_pods: bool) -> Rig {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    rig.world.holds_pods = holds_pods;
    let doomed = rig.world.running_instances()[0].instance.clone();
    let report = rig.report(&doomed, Some(NoticeKind::SpotTerminate));
    rig.step(Input::Report(Box::new(report)));
    rig
}

#[test]
fn a_drain_for_a_silent_agent_is_told_and_counted() {
    let mut rig = lost(false);
    rig.run(60);
    let drained = events(&rig, "Drained");
    assert_eq!(drained.len(), 1, "{drained:?}");
    assert!(drained[0].contains("2 pods evicted"), "{drained:?}");
    let told = rig.control.status(&rig.state, rig.world.now).told;
    assert_eq!((told.evicted, told.forced, told.clipped, told.left), (2, 0, 0, 0));
    assert_eq!(told.drained.values().collect::<Vec<_>>(), [&1]);
}

#[test]
fn pods_that_do_not_go_are_named_and_those_deleted_past_a_budget_are_counted() {
    let mut rig = lost(true);
    rig.run(50);
    let blocked = events(&rig, "FailedDraining");
    assert_eq!(blocked.len(), 1, "{blocked:?}");
    assert!(blocked[0].contains("2 pods are waiting"), "{blocked:?}");
    let status = rig.control.status(&rig.state, rig.world.now);
    assert_eq!(status.draining_pods, 2);
    let node = rig.control.nodes(&rig.state).into_iter().find_map(|node| node.drain).unwrap();
    assert_eq!((node.phase, node.remaining.len()), (DrainPhase::Draining, 2));
    rig.run(80);
    let told = rig.control.status(&rig.state, rig.world.now).told;
    assert_eq!((told.evicted, told.forced, told.left), (0, 2, 0));
}

#[test]
fn pods_that_are_left_when_the_time_of_a_notice_runs_out_are_counted_once() {
    let mut rig = lost(true);
    // The API server takes no deletion, either.
    rig.world.refuses_deletions = true;
    rig.run(119);
    assert_eq!(rig.control.status(&rig.state, rig.world.now).told.left, 0);
    rig.run(5);
    let told = rig.control.status(&rig.state, rig.world.now).told;
    assert_eq!((told.left, told.forced), (2, 0));
    let left = events(&rig, "FailedDraining");
    assert!(left.iter().any(|note| note.contains("ran out with 2 pods left")), "{left:?}");
}

#[test]
fn how_late_a_notice_was_read_is_counted_where_its_source_says_when_it_was_issued() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let instance = rig.world.running_instances()[0].instance.clone();
    let mut report = rig.report(&instance, Some(NoticeKind::Rebalance));
    report.notices[0].issued_at = Some(rig.world.now - SignedDuration::from_millis(2_500));
    rig.step(Input::Report(Box::new(report.clone())));
    report.sequence += 1;
    rig.step(Input::Report(Box::new(report)));
    let told = rig.control.status(&rig.state, rig.world.now).told;
    assert_eq!((told.detection.count, told.detection.milliseconds), (1, 2_500));
    let notes = events(&rig, "SpotRebalanceRecommendation");
    assert!(notes[0].ends_with("read 2.5 s after it was issued"), "{notes:?}");
}
