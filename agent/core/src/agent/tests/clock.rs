//! A wall clock that is set, by an hour, forward and back.

use super::*;

/// So many milliseconds on, with the wall clock set by so many seconds.
fn jumped(milliseconds: i64, set: i64) -> Moment {
    Moment {
        steady: SignedDuration::from_millis(milliseconds),
        wall: at(milliseconds + set * 1_000),
    }
}

const HOUR: i64 = 3_600;

/// As [`settled`], on two clocks.
fn settled_at_zero() -> Agent {
    let mut agent = agent(None);
    agent.step(Input::Instance("i-1".into()), jumped(0, 0));
    agent.step(applied(Kind::Node, node(json!({}))), jumped(0, 0));
    agent.step(Input::Cluster(ClusterEvent::Synced(Kind::Node)), jumped(0, 0));
    agent
}

#[test]
fn reports_keep_their_pace() {
    for set in [-HOUR, HOUR] {
        let mut agent = settled_at_zero();
        let mut told = 0;
        for second in 1..=60 {
            told += reports(&agent.step(Input::Tick, jumped(second * 1_000, set))).len();
        }
        assert_eq!(told, 6, "set by {set} s");
    }
}

#[test]
fn a_notice_ends_no_sooner_and_no_later() {
    let rebalance = format!("{{\"noticeTime\":\"{}\"}}", at(0));
    let absent = || Input::Notice(NoticePath::Rebalance, Answer::Absent);
    for set in [-HOUR, HOUR] {
        let mut agent = settled_at_zero();
        let told = Input::Notice(NoticePath::Rebalance, Answer::Body(rebalance.clone()));
        agent.step(told, jumped(0, 0));
        agent.step(absent(), jumped(1_000, 0));
        agent.step(absent(), jumped(2_000, set));
        agent.step(absent(), jumped(10_000, set));
        assert_eq!(agent.notices.list().len(), 1, "none for 9 s, set by {set} s");
        agent.step(absent(), jumped(11_000, set));
        assert_eq!(agent.notices.list(), [], "none for 10 s, set by {set} s");
    }
}

#[test]
fn a_call_that_failed_is_made_again_as_soon() {
    for set in [-HOUR, HOUR] {
        let mut agent = settled_at_zero();
        let body = "Terminated".to_owned();
        let told = Input::Notice(NoticePath::AutoScaling, Answer::Body(body));
        let (key, _) = cordon_patch(&agent.step(told, jumped(0, 0))).unwrap();
        agent.step(Input::Outcome(key, Err(failure())), jumped(10, 0));
        let early = agent.step(Input::Tick, jumped(50, set));
        assert!(cordon_patch(&early).is_none(), "too soon, set by {set} s");
        let later = agent.step(Input::Tick, jumped(250, set));
        assert!(cordon_patch(&later).is_some(), "never again, set by {set} s");
    }
}

#[test]
fn a_broken_node_is_one_that_was_broken_for_a_minute() {
    let broken = node(json!({"status": {"conditions":
        [{"type": "KernelDeadlock", "status": "True", "lastTransitionTime": null}]}}));
    for set in [-HOUR, HOUR] {
        let mut agent = settled_at_zero();
        agent.step(applied(Kind::Node, broken.clone()), jumped(0, 0));
        agent.step(Input::Tick, jumped(1_000, set));
        assert_eq!(agent.notices.list(), [], "set by {set} s");
        agent.step(Input::Tick, jumped(60_000, set));
        assert_eq!(agent.notices.list().len(), 1, "set by {set} s");
    }
}

#[test]
fn announced_times_are_the_wall_clocks() {
    let day = |wall: Timestamp| wall.strftime("%-d %b %Y %H:%M:%S GMT").to_string();
    let start = at(HOUR * 1_000);
    let body = format!(
        "[{{\"NotBefore\":\"{}\",\"Code\":\"c\",\"EventId\":\"e\",\"State\":\"active\"}}]",
        day(start)
    );
    let mut agent = settled_at_zero();
    let told = Input::Notice(NoticePath::Maintenance, Answer::Body(body));
    assert!(cordon_patch(&agent.step(told, jumped(0, 0))).is_none(), "an hour ahead");
    let later = agent.step(Input::Tick, jumped(1_000, HOUR / 2));
    assert!(cordon_patch(&later).is_some(), "the clock was half an hour late");
}
