//! What the interruption queue tells is heeded, once, and then deleted.

use drover_common::call::Call;
use drover_common::ec2::{Ec2Call, InstanceState, QueueEventKind};
use drover_common::labels;
use drover_common::protocol::NoticeKind;
use jiff::SignedDuration;
use serde_json::json;

use super::super::*;
use super::rig::*;
use crate::command::{DisruptionReason, NoticeSource};
use crate::state::Stage;

/// A leader that listens to a queue, and two nodes with pods.
fn listening() -> Rig {
    let mut rig = Rig::new();
    rig.control.settings.interruption_queue = Some("test".to_owned());
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    rig
}

fn send(rig: &mut Rig, source: &str, kind: &str, age: i64, detail: serde_json::Value) {
    let time = rig.world.now - SignedDuration::from_secs(age);
    let body = json!({"source": source, "detail-type": kind, "time": time, "detail": detail});
    rig.world.send(&body.to_string());
}

const SPOT: &str = "EC2 Spot Instance Interruption Warning";
const STATE: &str = "EC2 Instance State-change Notification";
const RECOMMENDED: &str = "EC2 Instance Rebalance Recommendation";

fn first(rig: &Rig) -> String {
    rig.world.running_instances()[0].instance.to_string()
}

fn counts(rig: &Rig) -> QueueCounts {
    rig.control.status(&rig.state, rig.world.now).queue
}

#[test]
fn a_spot_warning_makes_a_node_leave_and_is_deleted_once_it_is_logged() {
    let mut rig = listening();
    let doomed = first(&rig);
    let detail = json!({"instance-id": doomed, "instance-action": "terminate"});
    send(&mut rig, "aws.ec2", SPOT, 3, detail.clone());
    send(&mut rig, "aws.ec2", SPOT, 3, detail);
    rig.run(1);
    let record = &rig.state.notices[&doomed.as_str().into()][&NoticeKind::SpotTerminate];
    assert_eq!(record.source, NoticeSource::Queue);
    assert_eq!(rig.state.unavailable.len(), 1, "what EC2 takes back is not bought again at once");
    rig.run(1);
    let leaving = rig.state.claims.values().filter(|claim| claim.stage > Stage::Initialized);
    assert_eq!(leaving.count(), 1);
    let reasons = rig.state.disruptions.values().map(|record| record.disruption.reason);
    assert_eq!(reasons.collect::<Vec<_>>(), [DisruptionReason::Interruption]);
    assert!(rig.world.queue.is_empty(), "both are deleted");
    let counts = counts(&rig);
    assert_eq!(counts.received[&QueueEventKind::SpotInterrupted], 2);
    assert_eq!((counts.deleted, counts.delays.count), (2, 2));
    assert!(counts.delays.milliseconds >= 6_000);
    rig.run(120);
    rig.check_settled();
}

#[test]
fn what_the_log_does_not_take_is_not_deleted() {
    let mut rig = listening();
    let detail = json!({"instance-id": first(&rig), "instance-action": "terminate"});
    send(&mut rig, "aws.ec2", SPOT, 0, detail);
    rig.refuses_proposals = true;
    rig.run(3);
    assert_eq!(rig.world.queue.len(), 1);
    // Another leader is handed it out again.
    rig.refuses_proposals = false;
    rig.lead();
    rig.control.settings.interruption_queue = Some("test".to_owned());
    rig.world.show_queue_again();
    rig.run(2);
    assert!(rig.world.queue.is_empty());
    assert_eq!(rig.state.notices.len(), 1);
}

#[test]
fn what_an_agent_read_is_not_replaced() {
    let mut rig = listening();
    let instance = rig.world.running_instances()[0].instance.clone();
    let report = rig.report(&instance, Some(NoticeKind::SpotTerminate));
    rig.step(Input::Report(Box::new(report)));
    let detail = json!({"instance-id": instance, "instance-action": "terminate"});
    send(&mut rig, "aws.ec2", SPOT, 0, detail);
    rig.run(2);
    let record = &rig.state.notices[&instance][&NoticeKind::SpotTerminate];
    assert_eq!(record.source, NoticeSource::Agent);
    assert!(rig.world.queue.is_empty());
}

#[test]
fn a_state_change_has_instances_read_until_ec2_shows_it() {
    let mut rig = listening();
    rig.run(60);
    let stopped = rig.world.running_instances()[0].instance.clone();
    let reads = rig.world.instance_reads;
    rig.run(2);
    assert_eq!(rig.world.instance_reads, reads, "it is not long since the last one");
    send(&mut rig, "aws.ec2", STATE, 0, json!({"instance-id": stopped, "state": "stopping"}));
    send(&mut rig, "aws.ec2", STATE, 0, json!({"instance-id": "i-other", "state": "stopping"}));
    rig.run(6);
    let asked = rig.world.instance_reads - reads;
    assert!((3..=4).contains(&asked), "every two seconds, not {asked} times");
    rig.world.instances.get_mut(&stopped).unwrap().state = InstanceState::Stopping;
    rig.run(4);
    let leaving = rig.state.claims.values().filter(|claim| claim.stage > Stage::Initialized);
    assert_eq!(leaving.count(), 1);
    rig.run(40);
    assert!(rig.world.queue.is_empty());
    let reads = rig.world.instance_reads;
    send(&mut rig, "aws.ec2", STATE, 0, json!({"instance-id": "i-other", "state": "stopping"}));
    rig.run(5);
    assert_eq!(rig.world.instance_reads, reads, "of others' instances nothing is asked");
}

#[test]
fn what_is_told_of_an_instance_before_its_launch_is_recorded_is_kept_until_then() {
    let mut rig = Rig::new();
    rig.control.settings.interruption_queue = Some("test".to_owned());
    rig.run(2);
    // The launch's answer is lost: the instance is there, and the log does not know.
    rig.fail = Some(|call| matches!(call, Call::Ec2(Ec2Call::CreateFleet(_))));
    rig.world.add_pods("web", 1, 800);
    while rig.world.instances.is_empty() {
        rig.run(1);
    }
    let doomed = first(&rig);
    let unknown = rig.state.claim_of_instance(&doomed.as_str().into()).is_none();
    assert!(unknown, "its launch is not recorded yet");
    send(&mut rig, "aws.ec2", SPOT, 0, json!({"instance-id": doomed}));
    rig.run(20);
    assert!(rig.state.notices.contains_key(&doomed.as_str().into()));
    assert!(rig.world.queue.is_empty());
}

/// Something about somebody else's instance.
fn send_of_others(rig: &mut Rig) {
    send(rig, "aws.ec2", RECOMMENDED, 0, json!({"instance-id": "i-other"}));
}

/// Time in which SQS hands out again what is not deleted.
fn run_with_redelivery(rig: &mut Rig, seconds: i64) {
    for _ in 0..seconds / 20 {
        rig.run(20);
        rig.world.show_queue_again();
    }
}

#[test]
fn what_concerns_nobody_is_deleted_once_ec2_was_read() {
    let mut rig = listening();
    rig.run(60);
    send_of_others(&mut rig);
    rig.run(25);
    assert!(rig.control.cloud.is_read_since(rig.world.now - SignedDuration::from_secs(20)));
    assert_eq!(rig.world.queue.len(), 1, "it may be one that is about to be known");
    run_with_redelivery(&mut rig, 20);
    assert!(rig.world.queue.is_empty());
    rig.throttles = Some(|call| matches!(call, Ec2Call::DescribeInstances(_)));
    send_of_others(&mut rig);
    run_with_redelivery(&mut rig, 120);
    assert_eq!(rig.world.queue.len(), 1, "EC2 was not read since");
    rig.throttles = None;
    run_with_redelivery(&mut rig, 60);
    assert!(rig.world.queue.is_empty());
    assert!(rig.state.notices.is_empty());
    assert_eq!(counts(&rig).received[&QueueEventKind::RebalanceRecommendation], 2);
}

#[test]
fn a_launch_that_began_before_a_message_may_be_of_its_instance_and_others_hold_nothing_up() {
    let mut rig = listening();
    rig.run(60);
    rig.throttles = Some(|call| matches!(call, Ec2Call::CreateFleet(_)));
    rig.world.add_pods("more", 3, 800);
    rig.run(3);
    assert!(!rig.state.intents.is_empty());
    send_of_others(&mut rig);
    run_with_redelivery(&mut rig, 100);
    assert_eq!(rig.world.queue.len(), 1, "the launch's outcome is not known");
    rig.throttles = None;
    run_with_redelivery(&mut rig, 40);
    assert!(rig.world.queue.is_empty());
    send_of_others(&mut rig);
    rig.run(1);
    rig.throttles = Some(|call| matches!(call, Ec2Call::CreateFleet(_)));
    rig.world.add_pods("yet-more", 3, 800);
    run_with_redelivery(&mut rig, 80);
    assert!(!rig.state.intents.is_empty());
    assert!(rig.world.queue.is_empty(), "what was launched later is another");
}

#[test]
fn others_messages_neither_pile_up_nor_stand_in_the_way_of_ours() {
    let mut rig = listening();
    rig.run(60);
    for _ in 0..5_100 {
        send_of_others(&mut rig);
    }
    for _ in 0..520 {
        rig.step(Input::Tick);
    }
    let fetched = rig.world.queue.iter().filter(|(_, handed_out)| *handed_out).count();
    assert!((5_000..=5_010).contains(&fetched), "{fetched}");
    let detail = json!({"instance-id": first(&rig)});
    send(&mut rig, "aws.ec2", SPOT, 0, detail);
    rig.run(40);
    assert_eq!(rig.state.notices.len(), 1);
}

#[test]
fn a_node_that_is_to_be_adopted_is_ours() {
    let mut rig = listening();
    rig.run(60);
    let doomed = rig.world.running_instances()[0].instance.clone();
    // The log is lost, and Karpenter's instances do not bear the cluster's uid.
    rig.world.instances.get_mut(&doomed).unwrap().tags.remove(labels::CLUSTER_UID_TAG);
    rig.state = State::default();
    send(&mut rig, "aws.ec2", SPOT, 0, json!({"instance-id": doomed}));
    rig.lead();
    rig.control.settings.interruption_queue = Some("test".to_owned());
    run_with_redelivery(&mut rig, 40);
    let noticed = rig.state.journal.decisions().filter(|decision| decision.verb == "record-notice");
    assert_eq!(noticed.count(), 1);
    assert!(rig.world.queue.is_empty());
}

#[test]
fn a_state_change_that_ec2_never_shows_is_let_be() {
    let mut rig = listening();
    rig.run(60);
    let instance = first(&rig);
    send(&mut rig, "aws.ec2", STATE, 0, json!({"instance-id": instance, "state": "stopping"}));
    run_with_redelivery(&mut rig, 40);
    assert!(rig.world.queue.is_empty());
    let reads = rig.world.instance_reads;
    rig.run(10);
    assert!(rig.world.instance_reads <= reads + 1);
}

#[test]
fn of_an_instance_that_leaves_no_state_change_is_news() {
    let mut rig = listening();
    rig.run(60);
    rig.world.holds_pods = true;
    let detail = json!({"instance-id": first(&rig)});
    send(&mut rig, "aws.ec2", SPOT, 0, detail);
    rig.run(3);
    let reads = rig.world.instance_reads;
    let detail = json!({"instance-id": first(&rig), "state": "shutting-down"});
    send(&mut rig, "aws.ec2", STATE, 0, detail);
    rig.run(2);
    assert!(rig.world.queue.is_empty());
    assert_eq!(rig.world.instance_reads, reads);
}

#[test]
fn what_the_queue_repeats_is_known_and_what_comes_much_later_is_not() {
    let mut rig = listening();
    rig.run(60);
    let recommend = |rig: &mut Rig| {
        let detail = json!({"instance-id": first(rig)});
        send(rig, "aws.ec2", RECOMMENDED, 0, detail);
        rig.run(2);
        let noticed = rig.state.journal.decisions().filter(|d| d.verb == "record-notice");
        noticed.count()
    };
    assert_eq!(recommend(&mut rig), 1);
    rig.run(60);
    assert_eq!(recommend(&mut rig), 1);
    rig.run(700);
    assert_eq!(recommend(&mut rig), 2);
    let told = rig.control.status(&rig.state, rig.world.now).told.detection.count;
    assert_eq!(told, 2, "how late they came is counted once each");
}

#[test]
fn how_late_a_notice_came_is_counted_once_however_often_it_is_proposed() {
    let mut rig = listening();
    rig.refuses_proposals = true;
    let detail = json!({"instance-id": first(&rig)});
    send(&mut rig, "aws.ec2", SPOT, 3, detail);
    rig.run(20);
    rig.refuses_proposals = false;
    rig.run(8);
    assert_eq!(rig.state.notices.len(), 1);
    assert_eq!(rig.control.status(&rig.state, rig.world.now).told.detection.count, 1);
}

#[test]
fn maintenance_that_is_over_is_no_news() {
    let mut rig = listening();
    let date = |at: jiff::Timestamp| at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let now = rig.world.now;
    for (from, until, noticed) in [(9_000, 7_000, 0), (9_000, -100, 1)] {
        let ago = |seconds| date(now - SignedDuration::from_secs(seconds));
        let detail = json!({
            "service": "EC2", "eventTypeCategory": "scheduledChange",
            "startTime": ago(from), "endTime": ago(until),
            "affectedEntities": [{"entityValue": first(&rig)}],
        });
        send(&mut rig, "aws.health", "AWS Health Event", 90_000, detail);
        rig.run(2);
        assert_eq!(rig.state.notices.len(), noticed);
    }
}

#[test]
fn hibernation_that_the_queue_told_of_ends_when_ec2_shows_the_instance_again() {
    let mut rig = listening();
    rig.run(60);
    let instance = rig.world.running_instances()[0].instance.clone();
    let detail = json!({"instance-id": instance, "instance-action": "hibernate"});
    send(&mut rig, "aws.ec2", SPOT, 0, detail);
    rig.run(2);
    rig.world.instances.get_mut(&instance).unwrap().state = InstanceState::Stopped;
    rig.run(4_000);
    assert!(rig.state.notices.contains_key(&instance));
    rig.world.instances.get_mut(&instance).unwrap().state = InstanceState::Running;
    rig.run(60);
    assert!(rig.state.notices.is_empty());
}

#[test]
fn an_agent_that_read_nothing_withdraws_what_the_queue_told_only_of_hibernation() {
    let mut rig = listening();
    rig.run(60);
    let instance = rig.world.running_instances()[0].instance.clone();
    send(&mut rig, "aws.ec2", RECOMMENDED, 0, json!({"instance-id": instance}));
    let detail = json!({"instance-id": instance, "instance-action": "hibernate"});
    send(&mut rig, "aws.ec2", SPOT, 0, detail);
    rig.run(2);
    assert_eq!(rig.state.notices[&instance].len(), 2);
    let mut report = rig.report(&instance, None);
    for _ in 0..6 {
        report.sequence += 1;
        rig.step(Input::Report(Box::new(report.clone())));
        rig.run(10);
    }
    let kinds: Vec<NoticeKind> = rig.state.notices[&instance].keys().copied().collect();
    assert_eq!(kinds, [NoticeKind::Rebalance]);
}

#[test]
fn where_nothing_can_be_deleted_the_queue_is_heeded_all_the_same() {
    let mut rig = listening();
    rig.throttles = Some(|call| matches!(call, Ec2Call::DeleteMessages { .. }));
    for _ in 0..250 {
        send(&mut rig, "aws.ec2", "EC2 Fleet Instance Change", 0, json!({}));
    }
    rig.run(30);
    let detail = json!({"instance-id": first(&rig)});
    send(&mut rig, "aws.ec2", SPOT, 0, detail);
    for _ in 0..20 {
        rig.world.show_queue_again();
        rig.run(20);
    }
    // Its node is gone by now, and the notice with it.
    let noticed = rig.state.journal.decisions().filter(|decision| decision.verb == "record-notice");
    assert_eq!(noticed.count(), 1);
    assert_eq!(rig.world.queue.len(), 251);
    let problems = rig.control.status(&rig.state, rig.world.now).problems;
    assert!(problems.keys().any(|subject| subject.contains("deleting messages")), "{problems:?}");
}

#[test]
fn an_agent_has_the_last_word_and_a_later_event_is_another() {
    let mut rig = listening();
    let instance = rig.world.running_instances()[0].instance.clone();
    send(
        &mut rig,
        "aws.ec2",
        "EC2 Instance Rebalance Recommendation",
        0,
        json!({"instance-id": instance}),
    );
    rig.run(1);
    let source = |rig: &Rig| rig.state.notices[&instance][&NoticeKind::Rebalance].source;
    assert_eq!(source(&rig), NoticeSource::Queue);
    let mut report = rig.report(&instance, Some(NoticeKind::Rebalance));
    rig.step(Input::Report(Box::new(report.clone())));
    rig.run(1);
    assert_eq!(source(&rig), NoticeSource::Agent);
    rig.run(900);
    send(
        &mut rig,
        "aws.ec2",
        "EC2 Instance Rebalance Recommendation",
        0,
        json!({"instance-id": instance}),
    );
    rig.run(2);
    assert_eq!(source(&rig), NoticeSource::Queue);
    // The agent goes on telling of what it reads, and one more message does not turn it round.
    report.sequence += 1;
    rig.step(Input::Report(Box::new(report.clone())));
    rig.run(1);
    assert_eq!(source(&rig), NoticeSource::Agent);
    send(&mut rig, "aws.ec2", RECOMMENDED, 0, json!({"instance-id": instance}));
    rig.run(2);
    assert_eq!(source(&rig), NoticeSource::Agent);
}

#[test]
fn health_events_reservations_and_recommendations_are_notices_of_their_kinds() {
    let mut rig = listening();
    let id = first(&rig);
    let health = json!({
        "service": "EC2", "eventTypeCategory": "scheduledChange",
        "affectedEntities": [{"entityValue": id}],
    });
    send(&mut rig, "aws.health", "AWS Health Event", 90_000, health);
    let one = json!({"instance-id": id});
    send(&mut rig, "aws.ec2", RECOMMENDED, 0, one.clone());
    let reservation = "EC2 Capacity Reservation Instance Interruption Warning";
    send(&mut rig, "aws.ec2", reservation, 0, one.clone());
    // What should have happened an hour ago has, or was called off.
    send(&mut rig, "aws.ec2", SPOT, 3_600, one);
    rig.world.send("no event");
    rig.run(1);
    let problems = rig.control.status(&rig.state, rig.world.now).problems;
    assert!(problems.keys().any(|subject| subject.contains("queue")), "{problems:?}");
    let kinds: Vec<NoticeKind> = rig.state.notices[&id.as_str().into()].keys().copied().collect();
    let wanted = [NoticeKind::Rebalance, NoticeKind::Maintenance, NoticeKind::ReservationReclaim];
    assert_eq!(kinds, wanted);
    rig.run(2);
    assert!(rig.world.queue.is_empty());
}

#[test]
fn without_a_queue_or_a_lease_nothing_is_fetched() {
    let mut rig = Rig::new();
    rig.world.send("{}");
    rig.run(5);
    assert_eq!(rig.world.queue.len(), 1);
    rig.control.settings.interruption_queue = Some("test".to_owned());
    rig.step(Input::Deposed);
    rig.run(5);
    assert_eq!(rig.world.queue.len(), 1);
}
