//! From when a terminationGracePeriod counts.

use drover_common::call::Kind;
use drover_common::protocol::NoticeKind;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::super::*;
use super::rig::*;

/// A node whose claim has a terminationGracePeriod of 30 s, and whose Node takes no change.
fn unchangeable() -> Rig {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    rig.world.set_termination_grace("30s");
    rig.world.refuses_nodes = true;
    rig
}

/// The claim is too old from now on.
fn expire(rig: &mut Rig) {
    let name = rig.world.list(Kind::NodeClaim)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let patch = json!({"spec": {"expireAfter": "1s"}});
    rig.world.change(Kind::NodeClaim, "", &name, &patch);
}

/// Seconds until the drain begins, and when it did.
fn seconds_to_drain(rig: &mut Rig) -> (i64, Timestamp) {
    for second in 0..120 {
        let since = rig.state.disruptions.values().find_map(|record| record.draining_since);
        if let Some(since) = since {
            return (second, since);
        }
        rig.run(1);
    }
    panic!("no drain began");
}

fn deadline(rig: &Rig) -> Option<Timestamp> {
    rig.state.disruptions.values().next().unwrap().disruption.deadline
}

#[test]
fn no_termination_grace_period_runs_before_the_drain_can_be_seen() {
    let mut rig = unchangeable();
    expire(&mut rig);
    rig.run(20);
    let record = rig.state.disruptions.values().next().unwrap();
    assert_eq!(record.draining_since, None, "nobody can see it yet");
    let committed_at = record.committed_at;
    rig.world.refuses_nodes = false;
    let (_, since) = seconds_to_drain(&mut rig);
    assert!(since > committed_at + SignedDuration::from_secs(19));
    assert_eq!(deadline(&rig), Some(since + SignedDuration::from_secs(30)));
}

#[test]
fn a_drain_that_can_not_be_shown_begins_after_a_minute() {
    let mut rig = unchangeable();
    expire(&mut rig);
    let (seconds, since) = seconds_to_drain(&mut rig);
    assert!((60..65).contains(&seconds), "{seconds} s");
    assert_eq!(deadline(&rig), Some(since + SignedDuration::from_secs(30)));
}

#[test]
fn a_notice_leaves_little_time_to_show_a_drain() {
    let mut rig = unchangeable();
    let doomed = rig.world.running_instances()[0].instance.clone();
    let report = rig.report(&doomed, Some(NoticeKind::SpotTerminate));
    rig.step(Input::Report(Box::new(report)));
    let (seconds, since) = seconds_to_drain(&mut rig);
    assert!((10..15).contains(&seconds), "{seconds} s");
    assert_eq!(deadline(&rig), Some(since + SignedDuration::from_secs(30)));
}

#[test]
fn a_deleted_claim_shows_its_drain_and_counts_from_its_deletion() {
    let mut rig = unchangeable();
    let name = rig.world.list(Kind::NodeClaim)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let deleted_at = rig.world.now;
    assert!(rig.world.delete_named(Kind::NodeClaim, &name));
    let (seconds, _) = seconds_to_drain(&mut rig);
    assert!(seconds < 5, "{seconds} s");
    assert_eq!(deadline(&rig), Some(deleted_at + SignedDuration::from_secs(30)));
}

#[test]
fn without_a_termination_grace_period_nothing_is_waited_for() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    rig.world.refuses_nodes = true;
    expire(&mut rig);
    let (seconds, _) = seconds_to_drain(&mut rig);
    assert!(seconds < 5, "{seconds} s");
    assert_eq!(deadline(&rig), None);
}
