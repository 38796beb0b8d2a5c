//! Notices of every kind: when nodes leave for them, by when, and what a notice that comes later changes.

use drover_common::call::Kind;
use drover_common::ec2::{Ec2Call, InstanceState};
use drover_common::id::InstanceId;
use drover_common::labels;
use drover_common::protocol::{NoticeKind, Report};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::*;
use super::rig::*;
use crate::command::{Change, DisruptionReason};
use crate::state::Stage;

/// A node with two pods, its instance and its agent's first report.
fn settled() -> (Rig, InstanceId, Report) {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let instance = rig.world.running_instances()[0].instance.clone();
    let report = rig.report(&instance, None);
    (rig, instance, report)
}

fn tell(rig: &mut Rig, report: &mut Report, kind: Option<NoticeKind>, deadline: Option<Timestamp>) {
    let instance = report.instance.clone().unwrap();
    let told = rig.report(&instance, kind);
    report.notices = told.notices;
    for notice in &mut report.notices {
        notice.deadline = deadline;
    }
    report.sequence += 1;
    report.sent_at = rig.world.now;
    rig.step(Input::Report(Box::new(report.clone())));
}

fn reasons(rig: &Rig) -> Vec<DisruptionReason> {
    rig.state.disruptions.values().map(|record| record.disruption.reason).collect()
}

fn deadlines(rig: &Rig) -> Vec<Option<Timestamp>> {
    rig.state.disruptions.values().map(|record| record.disruption.deadline).collect()
}

fn annotation(rig: &Rig, key: &str) -> Value {
    rig.world.list(Kind::Node)[0]["metadata"]["annotations"][key].clone()
}

fn after(rig: &Rig, seconds: i64) -> Timestamp {
    rig.world.now + SignedDuration::from_secs(seconds)
}

#[test]
fn maintenance_is_acted_on_half_an_hour_before_its_date() {
    let (mut rig, instance, mut report) = settled();
    rig.world.holds_pods = true;
    let date = after(&rig, 3_600);
    tell(&mut rig, &mut report, Some(NoticeKind::Maintenance), Some(date));
    for _ in 0..59 {
        rig.run(30);
        tell(&mut rig, &mut report, Some(NoticeKind::Maintenance), Some(date));
    }
    assert_eq!((rig.state.notices.len(), rig.stages()), (1, vec![Stage::Initialized]));
    rig.run(35);
    assert_eq!(reasons(&rig), [DisruptionReason::Interruption]);
    assert_eq!(deadlines(&rig), [None], "it passes no budget");
    assert_eq!(annotation(&rig, labels::DISRUPTION_REASON), "maintenance");
    rig.run(1_900);
    assert!(rig.world.ended.is_empty(), "{:?}", rig.world.ended);
    assert!(!rig.world.terminated.contains(&instance));
}

#[test]
fn maintenance_without_a_date_is_acted_on_at_once() {
    let (mut rig, _, mut report) = settled();
    tell(&mut rig, &mut report, Some(NoticeKind::Maintenance), None);
    rig.run(2);
    assert_eq!(reasons(&rig), [DisruptionReason::Interruption]);
}

#[test]
fn maintenance_that_is_called_off_changes_nothing() {
    let (mut rig, instance, mut report) = settled();
    let date = after(&rig, 2_400);
    tell(&mut rig, &mut report, Some(NoticeKind::Maintenance), Some(date));
    rig.run(60);
    assert!(rig.state.notices.contains_key(&instance));
    // An agent that was just started has not read it yet.
    tell(&mut rig, &mut report, None, None);
    rig.run(10);
    tell(&mut rig, &mut report, Some(NoticeKind::Maintenance), Some(date));
    rig.run(60);
    tell(&mut rig, &mut report, None, None);
    assert!(rig.state.notices.contains_key(&instance));
    for _ in 0..6 {
        rig.run(10);
        tell(&mut rig, &mut report, None, None);
    }
    assert!(rig.state.notices.is_empty(), "its agent tells of it no more");
    for _ in 0..250 {
        rig.run(10);
        tell(&mut rig, &mut report, None, None);
    }
    assert!(rig.world.now > date);
    assert_eq!(rig.stages(), [Stage::Initialized]);
    let verbs: Vec<&str> = rig.state.journal.decisions().map(|d| d.verb.as_str()).collect();
    assert_eq!(verbs, ["create-intent", "record-notice", "withdraw-notice"]);
}

/// Why nodes left, also those that are gone by now.
fn left_for(rig: &Rig) -> Vec<&str> {
    let left =
        rig.state.journal.decisions().filter(|decision| decision.verb == "commit-disruption");
    left.map(|decision| decision.why.as_str()).collect()
}

#[test]
fn a_hibernated_instance_keeps_its_node_and_comes_back() {
    let (mut rig, instance, mut report) = settled();
    let now = rig.world.now;
    tell(&mut rig, &mut report, Some(NoticeKind::SpotHibernate), Some(now));
    rig.run(5);
    for state in [InstanceState::Stopping, InstanceState::Stopped] {
        rig.world.instances.get_mut(&instance).unwrap().state = state;
        rig.run(4_000);
        // With each entry of the log, what is over is dropped.
        let change = Change::SetPause {
            nodepool: None,
            paused: false,
            by: "test".to_owned(),
            reason: String::new(),
        };
        rig.apply(&Command { at: rig.world.now, change });
        rig.run(5);
        assert_eq!(rig.stages(), [Stage::Initialized], "{state:?}");
    }
    assert!(rig.world.ended.is_empty() && rig.world.terminated.is_empty());
    rig.world.instances.get_mut(&instance).unwrap().state = InstanceState::Running;
    for _ in 0..6 {
        rig.run(10);
        tell(&mut rig, &mut report, None, None);
    }
    assert!(rig.state.notices.is_empty());
    // One that is stopped otherwise does not come back by itself.
    rig.world.instances.get_mut(&instance).unwrap().state = InstanceState::Stopping;
    rig.run(40);
    assert_eq!(left_for(&rig), ["Interruption"]);
}

#[test]
fn a_machine_that_is_back_from_hibernation_does_not_go_by_how_ec2_was_read_before() {
    for last_read in [InstanceState::Stopping, InstanceState::Stopped] {
        let (mut rig, instance, mut report) = settled();
        let now = rig.world.now;
        tell(&mut rig, &mut report, Some(NoticeKind::SpotHibernate), Some(now));
        rig.run(5);
        rig.world.instances.get_mut(&instance).unwrap().state = last_read;
        rig.run(60);
        rig.throttles = Some(|call| matches!(call, Ec2Call::DescribeInstances(_)));
        rig.world.instances.get_mut(&instance).unwrap().state = InstanceState::Running;
        for _ in 0..6 {
            rig.run(10);
            tell(&mut rig, &mut report, None, None);
        }
        rig.run(30);
        assert!(rig.state.notices.is_empty(), "its agent has said so");
        assert_eq!(left_for(&rig), [] as [&str; 0], "{last_read:?}");
        rig.throttles = None;
        rig.run(60);
        assert_eq!(left_for(&rig), [] as [&str; 0], "{last_read:?}");
        // Now it is off, and nothing promises that it comes back.
        rig.world.instances.get_mut(&instance).unwrap().state = last_read;
        rig.run(40);
        assert_eq!(left_for(&rig), ["Interruption"], "{last_read:?}");
    }
}

#[test]
fn a_spot_stop_passes_budgets_and_an_auto_scaling_group_does_not() {
    for (kind, passes) in [(NoticeKind::SpotStop, true), (NoticeKind::AutoScaling, false)] {
        let (mut rig, instance, mut report) = settled();
        rig.world.holds_pods = true;
        let deadline = after(&rig, 120);
        tell(&mut rig, &mut report, Some(kind), passes.then_some(deadline));
        rig.run(118);
        let latest = deadline - SignedDuration::from_secs(35);
        let forced: Vec<_> = rig.world.ended.iter().filter(|ended| ended.forced).collect();
        assert_eq!(forced.len(), if passes { 2 } else { 0 }, "{kind:?}: {forced:?}");
        for ended in forced {
            assert!(ended.at >= latest, "{ended:?}, not before {latest}");
            assert_eq!(ended.grace_seconds, Some(30), "five seconds are kept: {ended:?}");
        }
        rig.world.holds_pods = false;
        rig.run(60);
        assert!(rig.world.terminated.contains(&instance), "{kind:?}");
        assert_eq!(rig.world.running_pods(), 2, "{kind:?}");
    }
}

/// When a protected pod of a silent agent's node is made to leave, in seconds from the notice on.
fn protected_leaves_after(kind: NoticeKind, seconds: i64) -> Option<i64> {
    let (mut rig, _, mut report) = settled();
    rig.world.annotate_pod("web-0", labels::DO_NOT_DISRUPT, "true");
    let noticed_at = rig.world.now;
    let deadline = after(&rig, seconds);
    tell(&mut rig, &mut report, Some(kind), Some(deadline));
    rig.run(seconds);
    let ended = rig.world.ended.iter().find(|ended| ended.pod == "web-0")?;
    assert!(!ended.forced, "no budget holds it");
    Some(ended.at.duration_since(noticed_at).as_secs())
}

#[test]
fn a_spot_loss_keeps_no_pod_waiting_where_the_agent_is_silent() {
    assert_eq!(protected_leaves_after(NoticeKind::SpotTerminate, 120), Some(30));
    // Before maintenance it is waited for, until only its grace is left.
    assert_eq!(protected_leaves_after(NoticeKind::Maintenance, 600), Some(565));
}

#[test]
fn the_node_says_by_when_and_why_it_is_disrupted() {
    let (mut rig, _, mut report) = settled();
    rig.world.holds_pods = true;
    let deadline = after(&rig, 120);
    tell(&mut rig, &mut report, Some(NoticeKind::SpotTerminate), Some(deadline));
    rig.run(3);
    let last_moment = (deadline - SignedDuration::from_secs(5)).to_string();
    assert_eq!(annotation(&rig, labels::DISRUPTION_DEADLINE), last_moment);
    assert_eq!(annotation(&rig, labels::DISRUPTION_REASON), "spot-terminate");
    let directives = rig.control.directives(&rig.state, &report.node, None);
    assert_eq!(directives[0].deadline.map(|at| at.to_string()), Some(last_moment));
}

/// A drain that a budget holds up, begun because someone deleted the NodeClaim.
fn held_up() -> (Rig, InstanceId, Report) {
    let (mut rig, instance, report) = settled();
    rig.world.holds_pods = true;
    let claim = rig.world.list(Kind::NodeClaim)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(rig.world.delete_named(Kind::NodeClaim, &claim));
    rig.run(60);
    assert_eq!((reasons(&rig), deadlines(&rig)), (vec![DisruptionReason::Deletion], vec![None]));
    assert_eq!(annotation(&rig, labels::DISRUPTION_REASON), "Deletion");
    (rig, instance, report)
}

#[test]
fn a_notice_that_comes_later_tightens_a_drain_under_way() {
    let (mut rig, instance, _) = held_up();
    rig.control.settings.interruption_queue = Some("test".to_owned());
    let detail = json!({"instance-id": instance, "instance-action": "terminate"});
    let time = rig.world.now;
    let kind = "EC2 Spot Instance Interruption Warning";
    let event = json!({"source": "aws.ec2", "detail-type": kind, "time": time, "detail": detail});
    rig.world.send(&event.to_string());
    let ids: Vec<_> = rig.state.disruptions.keys().cloned().collect();
    rig.run(3);
    let deadline = time + SignedDuration::from_secs(115);
    assert_eq!(reasons(&rig), [DisruptionReason::Interruption]);
    assert_eq!(deadlines(&rig), [Some(deadline)]);
    assert_eq!(rig.state.disruptions.keys().cloned().collect::<Vec<_>>(), ids, "the same one");
    assert_eq!(annotation(&rig, labels::DISRUPTION_DEADLINE), deadline.to_string());
    rig.run(114);
    let forced: Vec<_> = rig.world.ended.iter().map(|ended| ended.grace_seconds).collect();
    assert_eq!(forced, [Some(30); 2], "{:?}", rig.world.ended);
    let tightened = rig.state.journal.decisions().filter(|d| d.verb == "tighten-disruption");
    assert_eq!(tightened.count(), 1);
}

#[test]
fn the_earliest_of_the_notices_that_pass_budgets_counts_and_others_do_not() {
    let (mut rig, instance, mut report) = held_up();
    let date = after(&rig, 40);
    tell(&mut rig, &mut report, Some(NoticeKind::Maintenance), Some(date));
    rig.run(2);
    assert_eq!((reasons(&rig), deadlines(&rig)), (vec![DisruptionReason::Deletion], vec![None]));
    let maintenance = report.notices.clone();
    let end = after(&rig, 110);
    tell(&mut rig, &mut report, Some(NoticeKind::SpotStop), Some(end));
    report.notices.extend(maintenance);
    report.sequence += 1;
    rig.step(Input::Report(Box::new(report.clone())));
    rig.run(2);
    let last_moment = end - SignedDuration::from_secs(5);
    assert_eq!(deadlines(&rig), [Some(last_moment)]);
    // A second one, that leaves less.
    let earlier = after(&rig, 60);
    report.notices.extend(rig.report(&instance, Some(NoticeKind::ReservationReclaim)).notices);
    report.notices.last_mut().unwrap().deadline = Some(earlier);
    report.sequence += 1;
    rig.step(Input::Report(Box::new(report.clone())));
    rig.run(2);
    assert_eq!(deadlines(&rig), [Some(earlier - SignedDuration::from_secs(5))]);
}

#[test]
fn maintenance_beside_a_spot_notice_does_not_hide_it() {
    let (mut rig, instance, mut report) = settled();
    rig.world.holds_pods = true;
    let (past, end) = (after(&rig, -600), after(&rig, 120));
    report.notices = rig.report(&instance, Some(NoticeKind::Maintenance)).notices;
    report.notices[0].deadline = Some(past);
    report.notices.extend(rig.report(&instance, Some(NoticeKind::ReservationReclaim)).notices);
    rig.step(Input::Report(Box::new(report)));
    rig.run(2);
    assert_eq!(deadlines(&rig), [Some(end - SignedDuration::from_secs(5))]);
    rig.run(116);
    let graces: Vec<_> = rig.world.ended.iter().map(|ended| ended.grace_seconds).collect();
    assert_eq!(graces, [Some(30); 2], "{:?}", rig.world.ended);
}

#[test]
fn maintenance_that_the_queue_tells_of_waits_for_its_date_and_follows_it() {
    let (mut rig, instance, _) = settled();
    rig.control.settings.interruption_queue = Some("test".to_owned());
    let send = |rig: &mut Rig, age: i64, date: Timestamp| {
        send_health(rig, &instance, age, "upcoming", Some(date));
    };
    let (first, moved) = (after(&rig, 2_000), after(&rig, 5_000));
    // Both wait in the queue, and are handed out in any order.
    send(&mut rig, 60, moved);
    send(&mut rig, 7_200, first);
    rig.run(3);
    let date = |rig: &Rig| rig.state.notices[&instance][&NoticeKind::Maintenance].notice.deadline;
    assert_eq!(date(&rig), Some(moved));
    assert!(rig.world.queue.is_empty());
    rig.run(2_500);
    assert_eq!(rig.stages(), [Stage::Initialized]);
    rig.run(730);
    assert_eq!(left_for(&rig), ["Interruption"]);
}

/// What AWS Health said so many seconds ago of maintenance.
fn send_health(
    rig: &mut Rig,
    instance: &InstanceId,
    age: i64,
    status: &str,
    date: Option<Timestamp>,
) {
    let date = date.map(|date| date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
    let event = json!({
        "source": "aws.health", "detail-type": "AWS Health Event",
        "time": rig.world.now - SignedDuration::from_secs(age),
        "detail": {
            "service": "EC2", "eventTypeCategory": "scheduledChange", "statusCode": status,
            "startTime": date, "affectedEntities": [{"entityValue": instance}],
        },
    });
    rig.world.send(&event.to_string());
}

#[test]
fn maintenance_that_the_queue_calls_off_changes_nothing() {
    let (mut rig, instance, _) = settled();
    rig.control.settings.interruption_queue = Some("test".to_owned());
    let date = after(&rig, 2_400);
    send_health(&mut rig, &instance, 60, "upcoming", Some(date));
    rig.run(3);
    assert!(rig.state.notices.contains_key(&instance));
    send_health(&mut rig, &instance, 0, "closed", Some(date));
    rig.run(3);
    assert!(rig.state.notices.is_empty());
    // Both are handed out once more, in any order.
    send_health(&mut rig, &instance, 3, "closed", Some(date));
    send_health(&mut rig, &instance, 66, "upcoming", Some(date));
    rig.run(45);
    assert!(rig.world.queue.is_empty());
    rig.run(2_500);
    assert!(rig.world.now > date);
    assert_eq!(rig.stages(), [Stage::Initialized]);
    let why: Vec<&str> = rig.state.journal.decisions().map(|d| d.why.as_str()).collect();
    assert!(why[2].ends_with("of the interruption queue, over or called off"), "{why:?}");
    assert_eq!(why.len(), 3, "{why:?}");
}

#[test]
fn only_what_the_queue_itself_told_and_of_that_date_is_called_off() {
    let (mut rig, instance, mut report) = settled();
    rig.control.settings.interruption_queue = Some("test".to_owned());
    let (date, other) = (after(&rig, 5_000), after(&rig, 9_000));
    let known = |rig: &Rig| rig.state.notices.contains_key(&instance);
    send_health(&mut rig, &instance, 60, "upcoming", Some(date));
    send_health(&mut rig, &instance, 0, "closed", Some(other));
    send_health(&mut rig, &instance, 90, "closed", None);
    rig.run(45);
    assert!(known(&rig), "another is called off, or what was announced before");
    assert!(rig.world.queue.is_empty());
    tell(&mut rig, &mut report, Some(NoticeKind::Maintenance), Some(date));
    send_health(&mut rig, &instance, 0, "closed", Some(date));
    rig.run(45);
    assert!(known(&rig), "its agent reads it and is nearer to it");
    assert!(rig.world.queue.is_empty());
    tell(&mut rig, &mut report, None, None);
    rig.run(61);
    tell(&mut rig, &mut report, None, None);
    assert!(!known(&rig));
    send_health(&mut rig, &instance, 60, "upcoming", Some(date));
    rig.run(3);
    assert!(known(&rig));
    send_health(&mut rig, &instance, 0, "closed", None);
    rig.run(3);
    assert!(!known(&rig), "no date is any date");
}

#[test]
fn a_pod_whose_deletion_was_shortened_to_the_deadline_is_waited_for_until_then() {
    let (mut rig, instance, mut report) = settled();
    // Its object shows an end that is long past: what it was given last, from when it was first told to end.
    let end = after(&rig, -90).to_string();
    rig.world.patch_pod(
        "web-0",
        &json!({
            "metadata": {
                "finalizers": ["example.com/kubelet"],
                "deletionTimestamp": end,
                "deletionGracePeriodSeconds": 100,
            },
            "spec": {"terminationGracePeriodSeconds": 600},
        }),
    );
    let deadline = after(&rig, 105);
    tell(&mut rig, &mut report, Some(NoticeKind::SpotTerminate), Some(deadline));
    rig.run(90);
    assert!(!rig.world.terminated.contains(&instance), "ten seconds are left");
    rig.run(60);
    assert!(rig.world.terminated.contains(&instance));
}
