//! Signals besides the spot notice, and the last resort.

use drover_common::drain::Purpose;

use super::*;

fn answer(path: NoticePath, body: &str) -> Input {
    Input::Notice(path, Answer::Body(body.to_owned()))
}

fn kinds(agent: &Agent) -> Vec<NoticeKind> {
    agent.notices.list().iter().map(|notice| notice.kind).collect()
}

fn evictions(effects: &[Effect]) -> usize {
    calls(effects).iter().filter(|(_, call)| matches!(call, KubernetesCall::Evict { .. })).count()
}

#[test]
fn a_group_that_terminates_the_instance_is_one_notice_however_often_it_says_so() {
    let mut agent = settled();
    let path = NoticePath::AutoScaling;
    assert!(calls(&agent.step(answer(path, "InService"), at(0))).is_empty());
    let effects = agent.step(answer(path, "Terminated\n"), at(1_000));
    assert!(cordon_patch(&effects).is_some());
    assert_eq!(evictions(&effects), 1);
    let mut news = 0;
    for second in 2..300 {
        let effects = agent.step(answer(path, "Terminated"), at(second * 1_000));
        news += effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Tell(Fact::NoticeInForce(_))))
            .count();
        for (_, call) in calls(&effects) {
            assert!(!matches!(call, KubernetesCall::Delete { .. }), "no budget is passed for that");
        }
    }
    assert_eq!((news, kinds(&agent)), (0, vec![NoticeKind::AutoScaling]));
    let odd = agent.step(answer(path, "Exploded"), at(300_000));
    assert!(odd.iter().any(|e| matches!(e, Effect::Tell(Fact::UnreadableNotice { .. }))));
    agent.step(answer(path, "InService"), at(301_000));
    agent.step(answer(path, "InService"), at(312_000));
    assert_eq!(kinds(&agent), []);
}

#[test]
fn signals_of_one_end_are_one_drain_and_only_those_that_may_pass_budgets_say_when() {
    let mut agent = settled();
    agent.step(spot("terminate", 110_000), at(0));
    agent.step(answer(NoticePath::AutoScaling, "Terminated"), at(0));
    agent.step(Input::Shutdown(Some(SignedDuration::from_secs(20))), at(0));
    assert_eq!(
        agent.interruption(at(0)),
        Some(Purpose {
            disruption: None,
            hurries: true,
            end: Some(at(19_000)),
            budgets_end: Some(at(105_000)),
        })
    );
    agent.step(Input::Shutdown(None), at(1_000));
    assert_eq!(
        agent.interruption(at(0)),
        Some(Purpose {
            disruption: None,
            hurries: true,
            end: Some(at(105_000)),
            budgets_end: Some(at(105_000)),
        })
    );
}

/// Maintenance that begins then, in milliseconds.
pub(super) fn maintenance(start: i64) -> Input {
    let start = at(start).strftime("%d %b %Y %H:%M:%S GMT").to_string();
    let event = json!([{"NotBefore": start, "Code": "system-reboot", "EventId": "instance-event-1",
        "State": "active"}]);
    answer(NoticePath::Maintenance, &event.to_string())
}

#[test]
fn maintenance_that_is_over_takes_nothing_from_the_time_that_a_spot_notice_gives() {
    let mut agent = settled();
    let budget = KubernetesFailureKind::DisruptionBudget;
    let refusal = || {
        let message = "its budget".to_owned();
        Err(KubernetesFailure { kind: budget, message, retry_after_seconds: None })
    };
    let mut effects = agent.step(maintenance(-600_000), at(0));
    effects.extend(agent.step(spot("terminate", 110_000), at(0)));
    assert!(agent.has_drain_to_finish(at(0)), "there is time until EC2 takes the machine");
    for tick in 1..=420 {
        let now = at(tick * 250);
        let mut next = Vec::new();
        for (key, call) in calls(&effects) {
            match (&key, &call) {
                (CallKey::Drain(_), KubernetesCall::Evict { grace_seconds, .. }) => {
                    assert_eq!(*grace_seconds, None, "all of its grace is left");
                    next.extend(agent.step(Input::Outcome(key, refusal()), now));
                }
                (CallKey::Drain(_), KubernetesCall::Delete { grace_seconds, .. }) => {
                    // Until 105 s, five before the machine goes; its grace is 30 s.
                    assert!(now >= at(75_000), "deleted at {now}");
                    assert_eq!(*grace_seconds, Some(30));
                    return;
                }
                _ => {}
            }
        }
        effects = next;
        effects.extend(agent.step(Input::Tick, now));
    }
    panic!("its budget held it to the end");
}

#[test]
fn a_shutdown_waits_for_the_pods_and_a_cancelled_one_is_undone() {
    let mut agent = settled();
    let effects = agent.step(Input::Shutdown(Some(SignedDuration::from_secs(30))), at(0));
    assert_eq!(evictions(&effects), 1);
    let (key, patch) = cordon_patch(&effects).unwrap();
    assert!(agent.has_drain_to_finish(at(0)));
    let mut cordoned = node(json!({}));
    merge(&mut cordoned, patch);
    agent.step(Input::Outcome(key, Ok(cordoned)), at(100));
    let deleted = ObjectKey::new("d", "web");
    agent.step(Input::Cluster(ClusterEvent::Deleted(Kind::Pod, deleted)), at(2_000));
    assert!(!agent.step(Input::Tick, at(4_000)).contains(&Effect::AllowShutdown));
    assert!(agent.step(Input::Tick, at(6_000)).contains(&Effect::AllowShutdown));
    let effects = agent.step(Input::Shutdown(None), at(8_000));
    assert!(matches!(cordon_patch(&effects), Some((CallKey::Undo(_), _))));

    // A pod that does not go holds it until the time is over and no longer.
    let mut agent = settled();
    agent.step(Input::Shutdown(Some(SignedDuration::from_secs(30))), at(0));
    assert!(!agent.step(Input::Tick, at(28_000)).contains(&Effect::AllowShutdown));
    assert!(agent.step(Input::Tick, at(29_000)).contains(&Effect::AllowShutdown));
    // Who can't do anything holds nothing up.
    let mut blind = agent_of_nothing();
    let effects = blind.step(Input::Shutdown(Some(SignedDuration::from_secs(30))), at(0));
    assert!(effects.contains(&Effect::AllowShutdown));
}

fn agent_of_nothing() -> Agent {
    super::agent(None)
}

#[test]
fn a_broken_node_is_told_after_a_minute_and_cordoned_only_if_wanted() {
    for cordons in [false, true] {
        let mut agent = settled().cordoning_on_problem(cordons);
        let broken = node(json!({"status": {"conditions":
            [{"type": "ReadonlyFilesystem", "status": "True"}]}}));
        agent.step(applied(Kind::Node, broken), at(0));
        assert_eq!(kinds(&agent), []);
        let effects = agent.step(Input::Tick, at(60_000));
        assert_eq!(reports(&effects)[0].notices[0].kind, NoticeKind::Problem);
        assert_eq!(cordon_patch(&effects).is_some(), cordons);
        assert_eq!(evictions(&effects), 0, "its pods may still serve");
        assert!(!agent.is_busy(), "that may last for weeks");
        agent.step(applied(Kind::Node, node(json!({}))), at(70_000));
        assert_eq!(kinds(&agent), []);
    }
}

#[test]
fn a_restarted_agent_undoes_nothing_before_imds_was_heard() {
    let mark = json!({"by": "drover-agent", "why": "spot-stop", "until": null, "boot": "b",
        "wasUnschedulable": false});
    let marked = node(json!({"spec": {"unschedulable": true},
        "metadata": {"annotations": {labels::CORDONED: mark.to_string()}}}));
    let mut agent = agent_of_nothing();
    agent.step(Input::Instance("i-1".into()), at(0));
    agent.step(applied(Kind::Node, marked), at(0));
    let effects = agent.step(Input::Cluster(ClusterEvent::Synced(Kind::Node)), at(0));
    assert!(cordon_patch(&effects).is_none(), "the notice may still stand");
    let none = Input::Notice(NoticePath::SpotAction, Answer::Absent);
    assert!(cordon_patch(&agent.step(none, at(500))).is_some());
}

#[test]
fn a_restarted_agent_leaves_a_broken_node_cordoned() {
    let condition = |status: &str| json!([{"type": "KernelDeadlock", "status": status}]);
    let mark = json!({"by": "drover-agent", "why": "problem", "until": null, "boot": "b",
        "wasUnschedulable": false});
    let marked = |status: &str| {
        node(json!({"spec": {"unschedulable": true}, "status": {"conditions": condition(status)},
            "metadata": {"annotations": {labels::CORDONED: mark.to_string()}}}))
    };
    let notice = Notice {
        kind: NoticeKind::Problem,
        instance: "i-1".into(),
        boot: "b".into(),
        deadline: None,
        detected_at: at(-600_000),
        issued_at: None,
    };
    // Whether it kept the notice or lost its disk.
    for notices in [vec![notice], Vec::new()] {
        let known = notices.len();
        let saved = Saved { instance: Some("i-1".into()), boot: "b".into(), notices };
        let mut agent = super::agent(Some(saved)).cordoning_on_problem(true);
        agent.step(Input::Instance("i-1".into()), at(0));
        let none = Input::Notice(NoticePath::SpotAction, Answer::Absent);
        agent.step(none, at(100));
        assert_eq!(kinds(&agent).len(), known, "nothing says that it is over");
        let mut effects = agent.step(applied(Kind::Node, marked("True")), at(200));
        effects.extend(agent.step(Input::Cluster(ClusterEvent::Synced(Kind::Node)), at(300)));
        effects.extend(agent.step(Input::Tick, at(30_000)));
        let undone = calls(&effects).iter().any(|(key, _)| matches!(key, CallKey::Undo(_)));
        assert!(!undone, "it was uncordoned");
        assert_eq!(kinds(&agent).len(), known);
        let effects = agent.step(applied(Kind::Node, marked("False")), at(31_000));
        let undone = calls(&effects).iter().any(|(key, _)| matches!(key, CallKey::Undo(_)));
        assert!(undone, "it works again");
        assert_eq!(kinds(&agent), []);
    }
}

#[test]
fn a_drain_without_an_announced_end_is_worth_staying_for() {
    let mut agent = settled();
    let told = answer(NoticePath::AutoScaling, "Terminated");
    assert_eq!(evictions(&agent.step(told, at(0))), 1);
    assert!(agent.has_drain_to_finish(at(1_000)));
    let deleted = ObjectKey::new("d", "web");
    agent.step(Input::Cluster(ClusterEvent::Deleted(Kind::Pod, deleted)), at(2_000));
    agent.step(Input::Tick, at(8_000));
    assert!(!agent.has_drain_to_finish(at(8_000)), "all have gone");
}

/// An agent whose every call goes unanswered from a notice on; returns when it powers off.
fn cut_off(agent: &mut Agent, action: &str) -> Option<i64> {
    cut_off_by(agent, action, |_, _| Err(failure()))
}

/// The same with what the API server answers to each call, which is the n-th.
fn cut_off_by(
    agent: &mut Agent,
    action: &str,
    answer: impl Fn(&CallKey, usize) -> Result<Value, KubernetesFailure>,
) -> Option<i64> {
    let mut calls_made = 0;
    let mut pending = calls(&agent.step(spot(action, 110_000), at(0)));
    for tick in 1..=440 {
        let now = at(tick * 250);
        let mut effects = agent.step(Input::Tick, now);
        for (key, _) in std::mem::take(&mut pending) {
            let answer = answer(&key, calls_made);
            calls_made += 1;
            effects.extend(agent.step(Input::Outcome(key, answer), now));
        }
        if effects.iter().any(|effect| matches!(effect, Effect::PowerOff(_))) {
            return Some(tick * 250);
        }
        pending = calls(&effects);
    }
    None
}

#[test]
fn a_cut_off_agent_powers_off_when_only_the_grace_is_left() {
    let kubelet = Some(SignedDuration::from_secs(60));
    let mut agent = settled();
    agent.step(Input::PowerOff(kubelet), at(0));
    let at_off = cut_off(&mut agent, "terminate").unwrap();
    assert!((75_000..=75_500).contains(&at_off), "30 s before the deadline of 105 s: {at_off}");
    let effects = agent.step(Input::PoweredOff(1, Err("denied".into())), at(76_000));
    assert!(effects.contains(&Effect::Tell(Fact::PowerOffFailed("denied".into()))));
    assert!(agent.step(Input::Tick, at(77_000)).contains(&Effect::PowerOff(2)));

    let mut slow = settled();
    slow.step(Input::PowerOff(Some(SignedDuration::from_secs(10))), at(0));
    let at_off = cut_off(&mut slow, "stop").unwrap();
    assert!((95_000..=95_500).contains(&at_off), "the kubelet gives no more: {at_off}");

    let mut powerless = settled();
    assert_eq!(cut_off(&mut powerless, "terminate"), None);
    assert!(powerless.told_cut_off);
    let mut asleep = settled();
    asleep.step(Input::PowerOff(kubelet), at(0));
    assert_eq!(cut_off(&mut asleep, "hibernate"), None);
}

fn refusal(kind: KubernetesFailureKind) -> Result<Value, KubernetesFailure> {
    Err(KubernetesFailure { kind, message: "no".into(), retry_after_seconds: None })
}

#[test]
fn an_api_server_that_refuses_everything_is_no_better_than_none() {
    let on = |agent: &mut Agent| {
        agent.step(Input::PowerOff(Some(SignedDuration::from_secs(60))), at(0));
    };
    for kind in [KubernetesFailureKind::Forbidden, KubernetesFailureKind::TooManyRequests] {
        let mut agent = settled();
        on(&mut agent);
        let off = cut_off_by(&mut agent, "terminate", |_, _| refusal(kind)).unwrap();
        assert!((75_000..=76_000).contains(&off), "{kind:?}: {off}");
        // A cordon that stands makes no difference to the pods.
        let mut agent = settled();
        on(&mut agent);
        let off = cut_off_by(&mut agent, "terminate", |key, _| match key {
            CallKey::Drain(_) => refusal(kind),
            _ => Ok(node(json!({"spec": {"unschedulable": true}}))),
        });
        assert!(off.is_some(), "{kind:?}");
    }
    let mut asleep = settled();
    on(&mut asleep);
    let forbidden = |_: &CallKey, _| refusal(KubernetesFailureKind::Forbidden);
    assert_eq!(cut_off_by(&mut asleep, "hibernate", forbidden), None);
}

#[test]
fn one_pod_that_may_go_keeps_the_machine_on() {
    let mut agent = settled();
    agent.step(pod("db"), at(0));
    agent.step(Input::PowerOff(Some(SignedDuration::from_secs(60))), at(0));
    let off = cut_off_by(&mut agent, "terminate", |key, _| match key {
        CallKey::Drain(key) if key.uid == "u-db" => Ok(json!({})),
        _ => refusal(KubernetesFailureKind::Forbidden),
    });
    assert_eq!(off, None, "its grace would be cut short");
}

#[test]
fn that_everything_is_refused_is_told_once() {
    for kind in [KubernetesFailureKind::Forbidden, KubernetesFailureKind::TooManyRequests] {
        let mut agent = settled();
        let (mut pending, mut answers, mut told) = (Vec::new(), 0, 0);
        let mut effects = agent.step(spot("terminate", 110_000), at(0));
        for tick in 1..=420 {
            for (key, _) in std::mem::take(&mut pending) {
                answers += usize::from(tick > 320);
                effects.extend(agent.step(Input::Outcome(key, refusal(kind)), at(tick * 250)));
            }
            let is_it = |effect: &&Effect| matches!(effect, Effect::Tell(Fact::CutOff { .. }));
            told += effects.iter().filter(is_it).count();
            pending = calls(&effects);
            effects = agent.step(Input::Tick, at(tick * 250));
        }
        assert!(answers > 2, "{kind:?}: {answers} answers while it was known");
        assert_eq!(told, 1, "{kind:?}");
    }
}

/// A pod that somebody else has asked to end by then.
fn ending(name: &str, end: i64) -> Input {
    let metadata = json!({"name": name, "namespace": "d", "uid": format!("u-{name}"),
        "deletionTimestamp": at(end).to_string(), "deletionGracePeriodSeconds": 700});
    applied(Kind::Pod, json!({"metadata": metadata, "spec": {"nodeName": "n"}}))
}

#[test]
fn a_grace_that_runs_keeps_the_machine_on_whoever_granted_it_and_one_that_ran_does_not() {
    let forbidden = |_: &CallKey, _| refusal(KubernetesFailureKind::Forbidden);
    // When the grace of another pod ends, and from when on the machine may be powered off.
    for (end, off) in [(600_000, None), (90_000, Some(90_000)), (-60_000, Some(75_000))] {
        let mut agent = settled();
        agent.step(ending("db", end), at(0));
        agent.step(Input::PowerOff(Some(SignedDuration::from_secs(60))), at(0));
        let at_off = cut_off_by(&mut agent, "terminate", forbidden);
        let expected = off.map(|off| off..=off + 1_000);
        assert_eq!(expected.is_some(), at_off.is_some(), "{end}: {at_off:?}");
        assert!(expected.zip(at_off).is_none_or(|(range, at)| range.contains(&at)), "{at_off:?}");
    }
    // A pod that was let go and is gone is no reason either.
    let mut agent = settled();
    agent.step(pod("db"), at(0));
    agent.step(Input::PowerOff(Some(SignedDuration::from_secs(60))), at(0));
    let gone = Input::Cluster(ClusterEvent::Deleted(Kind::Pod, ObjectKey::new("d", "db")));
    let (mut pending, mut off) = (calls(&agent.step(spot("terminate", 110_000), at(0))), false);
    for tick in 1..=400 {
        let input = if tick == 40 { gone.clone() } else { Input::Tick };
        let mut effects = agent.step(input, at(tick * 250));
        for (key, _) in std::mem::take(&mut pending) {
            let lets_go = matches!(&key, CallKey::Drain(key) if key.uid == "u-db");
            let outcome = if lets_go { Ok(json!({})) } else { forbidden(&key, 0) };
            effects.extend(agent.step(Input::Outcome(key, outcome), at(tick * 250)));
        }
        off |= effects.iter().any(|effect| matches!(effect, Effect::PowerOff(_)));
        pending = calls(&effects);
    }
    assert!(off);
}

#[test]
fn an_api_server_that_is_back_is_asked_at_once() {
    let mut agent = settled();
    let mut pending = calls(&agent.step(spot("terminate", 110_000), at(0)));
    for tick in 1..=160 {
        let now = at(tick * 250);
        let mut effects = agent.step(Input::Tick, now);
        for (key, _) in std::mem::take(&mut pending) {
            effects.extend(agent.step(Input::Outcome(key, Err(failure())), now));
        }
        pending = calls(&effects);
    }
    for (key, _) in pending {
        agent.step(Input::Outcome(key, Err(failure())), at(40_010));
    }
    assert_eq!(evictions(&agent.step(Input::Tick, at(40_020))), 0, "it was refused a moment ago");
    let effects = agent.step(applied(Kind::Node, node(json!({}))), at(40_030));
    assert_eq!(evictions(&effects), 1);
}

#[test]
fn an_agent_that_reaches_the_api_server_never_powers_off() {
    let mut agent = settled();
    agent.step(Input::PowerOff(Some(SignedDuration::from_secs(60))), at(0));
    let mut pending = calls(&agent.step(spot("terminate", 110_000), at(0)));
    for tick in 1..=440 {
        let now = at(tick * 250);
        let mut effects = agent.step(Input::Tick, now);
        for (key, _) in std::mem::take(&mut pending) {
            // Every budget blocks, and every other call fails: that's an answer, too.
            let kind = KubernetesFailureKind::DisruptionBudget;
            let refused =
                KubernetesFailure { kind, message: "no".into(), retry_after_seconds: None };
            effects.extend(agent.step(Input::Outcome(key, Err(refused)), now));
        }
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::PowerOff(_))));
        pending = calls(&effects);
    }
}

#[test]
fn watches_are_urgent_while_a_drain_is_under_way_whose_time_is_close() {
    let mut agent = settled();
    assert!(!agent.is_urgent(at(0)));
    agent.step(spot("terminate", 110_000), at(0));
    assert!(agent.is_urgent(at(0)));
    let deleted = ObjectKey::new("d", "web");
    agent.step(Input::Cluster(ClusterEvent::Deleted(Kind::Pod, deleted)), at(2_000));
    for second in 3..10 {
        agent.step(Input::Tick, at(second * 1_000));
    }
    assert!(!agent.is_urgent(at(10_000)), "nothing is left to wait for");

    let mut blind = agent_of_nothing();
    blind.step(Input::Instance("i-1".into()), at(0));
    blind.step(spot("terminate", 110_000), at(0));
    assert!(blind.is_urgent(at(0)), "the Node and its pods have yet to be seen");

    // A budget may hold this for weeks.
    let mut agent = settled();
    agent.step(answer(NoticePath::AutoScaling, "Terminated"), at(0));
    assert!(agent.is_busy() && !agent.is_urgent(at(0)));
    let mut agent = settled();
    agent.step(maintenance(1_200_000), at(0));
    assert!(agent.is_busy());
    let urgent = [0, 890_000, 900_000, 1_400_000, 1_600_000].map(|now| agent.is_urgent(at(now)));
    assert_eq!(urgent, [false, false, true, true, false]);

    let ends = |end: i64| json!({labels::DISRUPTION_DEADLINE: at(end).to_string()});
    for (marks, urgent) in [(json!({}), false), (ends(3_600_000), false), (ends(200_000), true)] {
        let (agent, _) = directed(None, marks.clone());
        assert!(agent.is_busy());
        assert_eq!(agent.is_urgent(at(10)), urgent, "{marks}");
    }
}
