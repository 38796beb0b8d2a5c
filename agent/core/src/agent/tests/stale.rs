//! Drains while the watch of the Node is broken: what it bears by now is not known.

use super::*;

fn stale() -> Input {
    Input::Cluster(ClusterEvent::Stale(Kind::Node))
}

fn disrupted() -> Value {
    node(json!({
        "metadata": {"annotations": {labels::DISRUPTION: "d-1"}},
        "spec": {"taints": [{"key": labels::DISRUPTED_TAINT, "effect": "NoSchedule"}]},
    }))
}

/// An input, and then a new pod each second, from one second up to another. Each read of the Node is
/// answered with this; returns when pods were asked to leave, and how often the Node was read.
fn evicted(
    agent: &mut Agent,
    first: Input,
    seconds: std::ops::Range<i64>,
    answer: &Result<Value, KubernetesFailure>,
) -> (Vec<i64>, u32) {
    let (mut leave, mut reads) = (Vec::new(), 0);
    let ticks = (seconds.start * 5..seconds.end * 5).map(|tick| match tick % 5 {
        0 => (tick, pod(&format!("p-{tick}"))),
        _ => (tick, Input::Tick),
    });
    for (tick, input) in std::iter::once((seconds.start * 5, first)).chain(ticks) {
        let now = at(tick * 200);
        let mut pending = calls(&agent.step(input, now));
        while let Some((key, _)) = pending.pop() {
            let outcome = match &key {
                CallKey::ReadNode(_) => {
                    reads += 1;
                    answer.clone()
                }
                CallKey::Drain(_) => {
                    leave.push(tick / 5);
                    Ok(Value::Null)
                }
                CallKey::Cordon(_) | CallKey::Undo(_) | CallKey::Event(_) => Err(failure()),
            };
            pending.extend(calls(&agent.step(Input::Outcome(key, outcome), now)));
        }
    }
    leave.dedup();
    (leave, reads)
}

#[test]
fn a_directed_drain_goes_on_as_long_as_the_node_can_be_read() {
    let (mut agent, _) = directed(None, json!({}));
    let (leave, reads) = evicted(&mut agent, stale(), 1..20, &Ok(disrupted()));
    assert_eq!(leave, (1..20).collect::<Vec<_>>());
    assert!((15..=20).contains(&reads), "{reads} reads in 19 s");
}

#[test]
fn a_directed_drain_that_was_called_off_meanwhile_ends() {
    let (mut agent, _) = directed(None, json!({}));
    // No leader names it any more, which does not end it: the Node does.
    agent.step(Input::Directives(Vec::new()), at(900));
    let (leave, _) = evicted(&mut agent, stale(), 1..4, &Ok(disrupted()));
    assert_eq!(leave, [1, 2, 3]);
    assert_eq!(evicted(&mut agent, Input::Tick, 5..20, &Ok(node(json!({})))).0, [] as [i64; 0]);
    assert!(agent.drain.is_none());
}

#[test]
fn a_directed_drain_waits_while_the_node_cannot_be_read() {
    let (mut agent, _) = directed(None, json!({}));
    // What was read before it broke counts for five seconds.
    let (leave, reads) = evicted(&mut agent, stale(), 2..30, &Err(failure()));
    assert!(leave.iter().all(|second| *second < 6), "{leave:?}");
    assert!(reads >= 10, "{reads} reads");
    assert!(agent.drain.is_some(), "nothing is forgotten");
    // The watch works again: what came meanwhile leaves, too.
    agent.step(applied(Kind::Node, disrupted()), at(30_000));
    let effects = agent.step(Input::Cluster(ClusterEvent::Synced(Kind::Node)), at(30_000));
    assert!(calls(&effects).len() > 20, "{}", calls(&effects).len());
    // Or it turns out to have been called off.
    evicted(&mut agent, stale(), 31..50, &Err(failure()));
    let effects = agent.step(applied(Kind::Node, node(json!({}))), at(50_000));
    assert!(effects.contains(&Effect::Tell(Fact::DrainStopped)), "{effects:?}");
    assert!(calls(&effects).iter().all(|(key, _)| !matches!(key, CallKey::Drain(_))));
}

#[test]
fn a_spot_notices_drain_goes_on_whether_or_not_the_node_can_be_read() {
    for mut agent in [settled(), directed(None, json!({})).0] {
        agent.step(spot("terminate", 110_000), at(900));
        let (leave, _) = evicted(&mut agent, stale(), 1..30, &Err(failure()));
        assert_eq!(leave, (1..30).collect::<Vec<_>>());
    }
}

#[test]
fn leaders_hear_of_a_notice_and_people_of_a_node_that_cannot_be_read() {
    let mut agent = agent(None);
    agent.step(Input::Instance("i-1".into()), at(0));
    let (mut told, mut unread) = (0, 0);
    let mut effects = agent.step(spot("terminate", 110_000), at(0));
    for tick in 1..=50 {
        told += reports(&effects).iter().filter(|report| !report.notices.is_empty()).count();
        let is_told = |effect: &&Effect| matches!(effect, Effect::Tell(Fact::NodeUnread(_)));
        unread += effects.iter().filter(is_told).count();
        let input = match calls(&effects).into_iter().next() {
            Some((key, _)) => Input::Outcome(key, Err(failure())),
            None => Input::Tick,
        };
        effects = agent.step(input, at(tick * 200));
    }
    assert!((9..=11).contains(&told), "{told} reports in 10 s");
    assert_eq!(unread, 1);
}

#[test]
fn a_read_that_comes_after_newer_news_does_not_begin_a_drain() {
    let at_version = |version: &str, mut node: Value| {
        node["metadata"]["resourceVersion"] = json!(version);
        node
    };
    let mut agent = settled();
    agent.step(applied(Kind::Node, at_version("7", node(json!({})))), at(0));
    let directive = Directive { disruption: "d-1".into(), deadline: None };
    let effects = agent.step(Input::Directives(vec![directive]), at(100));
    let (key, _) = calls(&effects).into_iter().next().unwrap();
    assert!(matches!(key, CallKey::ReadNode(_)));
    // It is called off while the answer is on its way.
    agent.step(applied(Kind::Node, at_version("9", node(json!({})))), at(200));
    let late = at_version("8", disrupted());
    let mut effects = agent.step(Input::Outcome(key, Ok(late)), at(300));
    effects.extend(agent.step(Input::Tick, at(400)));
    assert!(
        calls(&effects).iter().all(|(key, _)| !matches!(key, CallKey::Drain(_))),
        "{effects:?}"
    );
}
