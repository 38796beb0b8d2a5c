//! A notice that its node's agent tells again and again is one notice, however long it lasts.

use drover_common::id::InstanceId;
use drover_common::protocol::{NoticeKind, Report};
use jiff::SignedDuration;

use super::super::*;
use super::rig::*;

/// A node whose agent reads a recommendation that was issued a second ago.
fn recommended() -> (Rig, InstanceId, Report) {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let instance = rig.world.running_instances()[0].instance.clone();
    let mut report = rig.report(&instance, Some(NoticeKind::Rebalance));
    report.notices[0].deadline = None;
    report.notices[0].issued_at = Some(rig.world.now - SignedDuration::from_secs(1));
    (rig, instance, report)
}

/// The agent says the same for so long, every ten seconds.
fn repeat(rig: &mut Rig, report: &mut Report, time: SignedDuration) {
    for _ in 0..time.as_secs() / 10 {
        report.sequence += 1;
        rig.step(Input::Report(Box::new(report.clone())));
        rig.run(10);
    }
}

fn journal<'a>(rig: &'a Rig, verb: &str) -> Vec<&'a str> {
    let of_verb = rig.state.journal.decisions().filter(|decision| decision.verb == verb);
    of_verb.map(|decision| decision.why.as_str()).collect()
}

#[test]
fn a_recommendation_that_is_issued_anew_is_another_one() {
    let (mut rig, instance, mut report) = recommended();
    let detected = |rig: &Rig| rig.control.status(&rig.state, rig.world.now).told.detection.count;
    repeat(&mut rig, &mut report, SignedDuration::from_mins(10));
    assert_eq!((journal(&rig, "record-notice").len(), detected(&rig)), (1, 1));
    let notice = &mut report.notices[0];
    notice.detected_at = rig.world.now;
    notice.issued_at = Some(rig.world.now - SignedDuration::from_secs(2));
    assert!(!rig.control.notices_committed(&rig.state, &report));
    repeat(&mut rig, &mut report, SignedDuration::from_mins(10));
    assert!(rig.control.notices_committed(&rig.state, &report));
    assert_eq!((journal(&rig, "record-notice").len(), detected(&rig)), (2, 2));
    let record = &rig.state.notices[&instance][&NoticeKind::Rebalance];
    assert_eq!(record.notice.issued_at, report.notices[0].issued_at);
    assert_eq!(journal(&rig, "withdraw-notice"), [] as [&str; 0]);
}

#[test]
fn what_is_told_for_hours_is_recorded_once() {
    for kind in [NoticeKind::Rebalance, NoticeKind::Problem, NoticeKind::Maintenance] {
        let (mut rig, instance, mut report) = recommended();
        report.notices[0].kind = kind;
        // Maintenance that has begun and goes on.
        let begins = kind == NoticeKind::Maintenance;
        report.notices[0].deadline = begins.then_some(rig.world.now);
        for _ in 0..13 {
            repeat(&mut rig, &mut report, SignedDuration::from_mins(5));
            assert!(rig.state.notices.contains_key(&instance), "{kind:?}");
        }
        assert_eq!(journal(&rig, "record-notice").len(), 1, "{kind:?}");
        assert_eq!(journal(&rig, "withdraw-notice").len(), 0, "{kind:?}");
        // Not even another leader, which has heard nobody yet, makes it anything new.
        rig.lead();
        repeat(&mut rig, &mut report, SignedDuration::from_mins(5));
        assert_eq!(journal(&rig, "record-notice").len(), 1, "{kind:?}");
        report.notices.clear();
        repeat(&mut rig, &mut report, SignedDuration::from_mins(1));
        assert!(rig.state.notices.is_empty(), "{kind:?}");
        assert_eq!(journal(&rig, "withdraw-notice").len(), 1, "{kind:?}");
    }
}

#[test]
fn what_a_silent_agent_told_holds_for_an_hour() {
    let (mut rig, _, mut report) = recommended();
    repeat(&mut rig, &mut report, SignedDuration::from_mins(2));
    rig.run(3_500);
    assert_eq!(rig.state.notices.len(), 1);
    rig.run(200);
    assert!(rig.state.notices.is_empty());
    assert_eq!(journal(&rig, "withdraw-notice").len(), 1);
    // It speaks again.
    repeat(&mut rig, &mut report, SignedDuration::from_mins(1));
    assert_eq!((rig.state.notices.len(), journal(&rig, "record-notice").len()), (1, 2));
}
