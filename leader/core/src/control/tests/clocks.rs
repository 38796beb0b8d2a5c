//! Clocks of agents and leaders that are minutes off take no time from a node.

use drover_common::id::InstanceId;
use drover_common::protocol::{NoticeKind, Report};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::super::*;
use super::rig::*;

/// A node with two pods that no budget lets go, and a notice of its agent, whose clock is ahead by so many seconds.
fn noticed(kind: NoticeKind, ahead: i64) -> (Rig, InstanceId, Report) {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    rig.world.holds_pods = true;
    let instance = rig.world.running_instances()[0].instance.clone();
    let mut report = rig.report(&instance, Some(kind));
    let ahead = SignedDuration::from_secs(ahead);
    report.notices[0].detected_at += ahead;
    report.notices[0].deadline = report.notices[0].deadline.map(|at| at + ahead);
    (rig, instance, report)
}

/// The agent, whose clock is ahead by so many seconds, reports anew, and that takes so many to arrive.
fn tell(rig: &mut Rig, report: &mut Report, ahead: i64, under_way: i64) {
    report.sent_at = rig.world.now + SignedDuration::from_secs(ahead - under_way);
    report.sequence += 1;
    rig.step(Input::Report(Box::new(report.clone())));
    assert!(rig.control.notices_committed(&rig.state, report));
}

fn recorded(rig: &Rig) -> usize {
    rig.state.journal.decisions().filter(|decision| decision.verb == "record-notice").count()
}

/// By when the log has it that pods are to be gone.
fn deadline(rig: &Rig) -> Option<Timestamp> {
    rig.state.disruptions.values().next()?.disruption.deadline
}

#[test]
fn a_notice_leaves_what_it_leaves_by_its_agents_clock() {
    for ahead in [-600, -60, -4, 0, 9, 60, 600] {
        let (mut rig, instance, mut report) = noticed(NoticeKind::SpotTerminate, ahead);
        let began_at = rig.world.now;
        let jitter = [0, 3, 1, 6, 2];
        let mut run = |rig: &mut Rig, seconds: usize| {
            for under_way in (0..seconds / 2).map(|turn| jitter[turn % jitter.len()]) {
                tell(rig, &mut report, ahead, under_way);
                rig.run(2);
            }
        };
        run(&mut rig, 60);
        let left = deadline(&rig).unwrap().duration_since(began_at).as_secs();
        let expected = if ahead.abs() < 10 { 115 + ahead } else { 115 };
        assert_eq!(left, expected, "{ahead}");
        run(&mut rig, 70);
        assert!(!rig.world.terminated.contains(&instance), "{ahead}");
        assert_eq!(recorded(&rig), 1, "{ahead}: it is the same one all along");
        // The next leader's clock is as good as the last one's.
        rig.lead();
        run(&mut rig, 4);
        assert_eq!(recorded(&rig), 1, "{ahead}");
        run(&mut rig, 26);
        assert!(rig.world.terminated.contains(&instance), "{ahead}");
    }
}

#[test]
fn a_leader_whose_clock_is_another_counts_a_notice_anew() {
    let (mut rig, instance, mut report) = noticed(NoticeKind::SpotTerminate, 0);
    tell(&mut rig, &mut report, 0, 0);
    rig.lead();
    tell(&mut rig, &mut report, -600, 0);
    let known = rig.state.notices[&instance][&NoticeKind::SpotTerminate].notice.clone();
    assert_eq!(known.deadline, Some(rig.world.now + SignedDuration::from_secs(720)));
    assert_eq!(known.detected_at, rig.world.now + SignedDuration::from_secs(600));
    assert_eq!(recorded(&rig), 2);
}

#[test]
fn the_date_of_maintenance_is_not_by_its_agents_clock() {
    let (mut rig, instance, mut report) = noticed(NoticeKind::Maintenance, 0);
    let date = report.notices[0].deadline;
    for ahead in [-600, 600] {
        tell(&mut rig, &mut report, ahead, 0);
        let known = &rig.state.notices[&instance][&NoticeKind::Maintenance].notice;
        assert_eq!(known.deadline, date);
    }
    assert_eq!(recorded(&rig), 1);
}

#[test]
fn a_spot_notice_whose_time_is_over_already_leaves_its_node_two_minutes() {
    let (mut rig, instance, _) = noticed(NoticeKind::SpotTerminate, 0);
    rig.world.refuses_deletions = true;
    rig.control.settings.interruption_queue = Some("test".to_owned());
    let event = json!({
        "source": "aws.ec2", "detail-type": "EC2 Spot Instance Interruption Warning",
        "time": rig.world.now - SignedDuration::from_secs(500),
        "detail": {"instance-id": instance, "instance-action": "terminate"},
    });
    rig.world.send(&event.to_string());
    rig.run(115);
    assert!(deadline(&rig).is_some_and(|at| at < rig.world.now));
    assert!(!rig.world.terminated.contains(&instance), "its pods are there, and so is its machine");
    rig.run(15);
    assert!(rig.world.terminated.contains(&instance));
}
