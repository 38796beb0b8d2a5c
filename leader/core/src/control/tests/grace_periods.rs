//! From when a terminationGracePeriod counts.

use drover_common::call::Kind;
use drover_common::protocol::NoticeKind;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::super::*;
use super::rig::*;
use crate::command::Change;

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

/// A drain of half an hour that is yet to begin, because nobody can see it, and then EC2 takes the machine in two
/// minutes. That is in the log, and nothing was decided since. Also by when the pods have to be gone.
fn noticed_before_its_drain() -> (Rig, Timestamp) {
    let mut rig = unchangeable();
    rig.world.set_termination_grace("30m");
    expire(&mut rig);
    rig.run(20);
    assert_eq!(rig.state.disruptions.values().next().unwrap().draining_since, None);
    let doomed = rig.world.running_instances()[0].instance.clone();
    let loss = rig.world.now + SignedDuration::from_secs(115);
    let report = rig.report(&doomed, Some(NoticeKind::SpotTerminate));
    rig.step(Input::Report(Box::new(report)));
    assert_eq!(rig.state.notices.len(), 1);
    (rig, loss)
}

#[test]
fn the_entry_that_begins_a_drain_gives_no_time_back_that_a_notice_took() {
    let (mut rig, loss) = noticed_before_its_drain();
    let mut begun = 0;
    for _ in 0..10 {
        rig.run(1);
        let record = rig.state.disruptions.values().next().unwrap();
        if record.draining_since.is_some() {
            assert_eq!(record.disruption.deadline, Some(loss));
            begun += 1;
        }
    }
    assert!(begun >= 8, "it begins at once");
}

/// What is proposed now of disruptions; the log takes nothing of it.
fn proposed(rig: &mut Rig) -> Vec<Change> {
    let changes = rig.proposed(Input::Tick).into_iter().map(|command| command.change);
    let is_theirs = |change: &Change| {
        matches!(change, Change::StartDrain { .. } | Change::TightenDisruption { .. })
    };
    changes.filter(is_theirs).collect()
}

#[test]
fn no_drain_begins_while_what_tightens_it_is_on_its_way_to_the_log() {
    let (mut rig, loss) = noticed_before_its_drain();
    let mut tightens = Vec::new();
    for _ in 0..12 {
        rig.world.now += SignedDuration::from_millis(250);
        tightens.extend(proposed(&mut rig));
    }
    let [tighten @ Change::TightenDisruption { .. }] = tightens.as_slice() else {
        panic!("{tightens:?}");
    };
    rig.apply(&Command { at: rig.world.now, change: tighten.clone() });
    assert_eq!(deadline(&rig), Some(loss));
    let begins = proposed(&mut rig);
    assert!(matches!(begins.as_slice(), [Change::StartDrain { deadline: None, .. }]), "{begins:?}");
}

#[test]
fn a_notice_that_is_put_off_before_the_drain_begins_gives_no_time_back() {
    let (mut rig, loss) = noticed_before_its_drain();
    let tighten = proposed(&mut rig);
    rig.apply(&Command { at: rig.world.now, change: tighten[0].clone() });
    let doomed = rig.world.running_instances()[0].instance.clone();
    rig.world.now += SignedDuration::from_secs(30);
    let report = rig.report(&doomed, Some(NoticeKind::SpotTerminate));
    for notice in rig.state.notices.values_mut().flat_map(|kinds| kinds.values_mut()) {
        notice.notice.deadline = report.notices[0].deadline;
    }
    seconds_to_drain(&mut rig);
    assert_eq!(deadline(&rig), Some(loss));
}
