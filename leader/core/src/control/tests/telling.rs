//! What a leader tells people of notices and drains, and what it leaves to agents.

use drover_common::call::Kind;
use drover_common::id::{InstanceId, NodeName, provider_id};
use drover_common::protocol::{DrainPhase, DrainReport, NoticeKind, Report};
use jiff::SignedDuration;
use serde_json::json;

use super::super::*;
use super::rig::*;

/// A node of ours, whose agent was heard before, and its report of a notice.
fn noticed() -> (Rig, Report) {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    rig.world.holds_pods = true;
    let instance = rig.world.running_instances()[0].instance.clone();
    let report = rig.report(&instance, None);
    tell(&mut rig, &report, 1);
    let report = rig.report(&instance, Some(NoticeKind::SpotTerminate));
    (rig, report)
}

/// Reports; returns whether the agent has to tell of it.
fn tell(rig: &mut Rig, report: &Report, sequence: u64) -> bool {
    let report = Report { sequence, sent_at: rig.world.now, ..report.clone() };
    rig.step(Input::Report(Box::new(report.clone())));
    assert!(rig.control.notices_committed(&rig.state, &report), "it is not to be told again");
    rig.control.leaves_telling(&report)
}

/// The reasons of the events on a Node.
fn told(rig: &Rig, node: &NodeName) -> Vec<String> {
    let events = rig.world.list(Kind::Event).into_iter();
    let of_node = events.filter(|event| event["involvedObject"]["name"] == node.as_str());
    of_node.map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_the_agent_of_a_node_without_a_claim_reports_it_tells_itself() {
    let (mut rig, mut report) = noticed();
    assert!(!tell(&mut rig, &report, 2));
    assert_eq!(told(&rig, &report.node), ["SpotInterrupted"]);
    let instance = InstanceId::from("i-managed");
    report.node = NodeName::from("managed");
    rig.world.put(
        Kind::Node,
        json!({
            "metadata": {"name": "managed"},
            "spec": {"providerID": provider_id("us-east-1a", &instance)},
        }),
    );
    rig.run(1);
    report.instance = Some(instance.clone());
    let notices = std::mem::take(&mut report.notices);
    tell(&mut rig, &report, 1);
    report.notices = notices;
    report.notices[0].instance = instance;
    assert!(tell(&mut rig, &report, 2));
    // What it drained is counted once, and told by it alone.
    report.drain = Some(DrainReport {
        disruption: None,
        phase: DrainPhase::Drained,
        evicted: 3,
        clipped: 0,
        forced: 0,
        remaining: Vec::new(),
    });
    assert!(tell(&mut rig, &report, 3) && tell(&mut rig, &report, 4));
    assert_eq!(told(&rig, &report.node), [] as [&str; 0]);
    assert_eq!(rig.control.status(&rig.state, rig.world.now).told.evicted, 3);
}

#[test]
fn a_leader_that_only_observes_leaves_telling_to_agents() {
    let (mut rig, report) = noticed();
    rig.world.seize_lease("karpenter");
    rig.run(10);
    assert!(!rig.control.may_act(rig.world.now));
    assert!(tell(&mut rig, &report, 2));
    // The other is gone. Of what the agent has told the leader is silent.
    rig.run(40);
    assert!(!tell(&mut rig, &report, 3));
    assert!(!told(&rig, &report.node).contains(&"SpotInterrupted".to_owned()));
}

#[test]
fn a_leader_that_has_told_too_much_leaves_telling_to_agents() {
    let (mut rig, report) = noticed();
    rig.control.settings.agent_silence = SignedDuration::from_mins(10);
    let now = rig.world.now;
    for number in 0..500 {
        rig.control.node_event(&report.node, "Test", &number.to_string(), false, now);
    }
    assert!(tell(&mut rig, &report, 2));
    assert!(!told(&rig, &report.node).contains(&"SpotInterrupted".to_owned()));
    rig.run(100);
    assert!(tell(&mut rig, &report, 3));
    rig.run(25);
    assert!(!tell(&mut rig, &report, 4));
}

#[test]
fn all_pods_without_a_place_are_counted_and_the_first_are_named() {
    let mut rig = Rig::new();
    rig.world.add_pods("big", 150, 100_000);
    rig.run(5);
    let status = rig.control.status(&rig.state, rig.world.now);
    assert_eq!((status.unschedulable_count, status.unschedulable.len()), (150, 100));
}
