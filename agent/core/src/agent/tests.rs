mod clock;
mod cordon;
mod denied;
mod hearing;
mod metrics;
mod news;
mod own_node;
mod refused;
mod signals;
mod stale;
mod usage;

use drover_common::call::{Kind, KubernetesFailureKind, Target};
use drover_common::cluster::ClusterObject;
use drover_common::labels;
use drover_common::protocol::{DrainPhase, NoticeKind};
use serde_json::json;

use super::*;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap()
}

fn node(patch: Value) -> Value {
    let mut node = json!({
        "metadata": {"name": "n", "uid": "u", "resourceVersion": "7", "labels": {},
            "annotations": {}},
        "spec": {"providerID": "aws:///a/i-1", "taints": []},
    });
    merge(&mut node, patch);
    node
}

pub(super) fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(&key);
                } else {
                    merge(target.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch,
    }
}

fn applied(kind: Kind, value: Value) -> Input {
    Input::Cluster(ClusterEvent::Applied(ClusterObject::from_json(kind, value).unwrap()))
}

fn pod(name: &str) -> Input {
    let value = json!({"metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
        "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
    applied(Kind::Pod, value)
}

fn agent(saved: Option<Saved>) -> Agent {
    let identity = Identity { node: "n".into(), boot: "b".into() };
    Agent::new(identity, saved, SignedDuration::from_secs(10))
}

/// An agent that knows itself, its Node and one pod.
fn settled() -> Agent {
    let mut agent = agent(None);
    agent.step(Input::Instance("i-1".into()), at(0));
    agent.step(applied(Kind::Node, node(json!({}))), at(0));
    agent.step(Input::Cluster(ClusterEvent::Synced(Kind::Node)), at(0));
    agent.step(Input::Cluster(ClusterEvent::Restarted(Kind::Pod)), at(0));
    agent.step(pod("web"), at(0));
    agent.step(Input::Cluster(ClusterEvent::Synced(Kind::Pod)), at(0));
    agent
}

fn spot(action: &str, deadline: i64) -> Input {
    let body = format!("{{\"action\":\"{action}\",\"time\":\"{}\"}}", at(deadline));
    Input::Notice(NoticePath::SpotAction, Answer::Body(body))
}

fn calls(effects: &[Effect]) -> Vec<(CallKey, KubernetesCall)> {
    let call = |effect: &Effect| match effect {
        Effect::Call(key, call) => Some((key.clone(), call.clone())),
        _ => None,
    };
    effects.iter().filter_map(call).collect()
}

fn cordon_patch(effects: &[Effect]) -> Option<(CallKey, Value)> {
    calls(effects).into_iter().find_map(|(key, call)| match (&key, call) {
        (
            CallKey::Cordon(_) | CallKey::Undo(_),
            KubernetesCall::MergePatch { target, patch, .. },
        ) => {
            assert_eq!(target, Target::cluster(Kind::Node, "n"));
            Some((key, patch))
        }
        _ => None,
    })
}

fn reports(effects: &[Effect]) -> Vec<Report> {
    let report = |effect: &Effect| match effect {
        Effect::Report(report) => Some((**report).clone()),
        _ => None,
    };
    effects.iter().filter_map(report).collect()
}

fn failure() -> KubernetesFailure {
    let kind = KubernetesFailureKind::Unreachable;
    KubernetesFailure { kind, message: "down".into(), retry_after_seconds: None }
}

#[test]
fn a_notice_is_told_saved_cordoned_and_drained_in_one_step() {
    let mut agent = settled();
    let effects = agent.step(spot("terminate", 110_000), at(500));
    let (_, patch) = cordon_patch(&effects).unwrap();
    assert_eq!(patch["spec"], json!({"unschedulable": true}));
    let labels = json!({labels::EXCLUDE_FROM_LOAD_BALANCERS: "drover-agent"});
    assert_eq!(patch["metadata"]["labels"], labels);
    let mark = patch["metadata"]["annotations"][labels::CORDONED].as_str().unwrap();
    let mark: Value = serde_json::from_str(mark).unwrap();
    assert_eq!(mark["by"], "drover-agent");
    assert_eq!(mark["why"], "spot-terminate");
    assert_eq!(mark["boot"], "b");
    assert_eq!(mark["wasUnschedulable"], false);
    assert_eq!(mark["until"], at(110_000).to_string());
    let evicts = calls(&effects);
    assert!(evicts.iter().any(|(_, call)| matches!(call, KubernetesCall::Evict { .. })));
    assert_eq!(reports(&effects)[0].notices[0].kind, NoticeKind::SpotTerminate);
    let saved = effects.iter().any(|effect| {
        matches!(effect, Effect::Save(saved) if saved.notices.len() == 1 && saved.boot.as_str() == "b")
    });
    assert!(saved);
}

#[test]
fn a_failing_patch_is_repeated_and_stops_nothing_else() {
    let mut agent = settled();
    let mut effects = agent.step(spot("terminate", 110_000), at(0));
    let mut patches = 0;
    for tick in 1..=400 {
        if let Some((key, _)) = cordon_patch(&effects) {
            patches += 1;
            effects = agent.step(Input::Outcome(key, Err(failure())), at(tick * 250));
        } else {
            effects = agent.step(Input::Tick, at(tick * 250));
        }
    }
    assert!((40..70).contains(&patches), "{patches} tries in 100 s");
    assert!(agent.drain.as_ref().is_some_and(|drain| drain.started_at() == Some(at(0))));
}

#[test]
fn an_answered_patch_ends_the_trying_and_a_lost_cordon_starts_it_again() {
    let mut agent = settled();
    let effects = agent.step(spot("terminate", 110_000), at(0));
    let (key, patch) = cordon_patch(&effects).unwrap();
    let mut cordoned = node(json!({}));
    merge(&mut cordoned, patch);
    let effects = agent.step(Input::Outcome(key, Ok(cordoned)), at(40));
    let told = effects.iter().any(|effect| {
        *effect == Effect::Tell(Fact::Cordoned { after: SignedDuration::from_millis(40) })
    });
    assert!(told, "{effects:?}");
    assert!(cordon_patch(&agent.step(Input::Tick, at(5_000))).is_none());
    let effects = agent.step(applied(Kind::Node, node(json!({}))), at(6_000));
    assert!(cordon_patch(&effects).is_some(), "someone uncordoned a dying node");
}

#[test]
fn only_what_we_did_is_undone() {
    let mut agent = settled();
    let effects = agent.step(spot("stop", 110_000), at(0));
    let (key, patch) = cordon_patch(&effects).unwrap();
    let mut cordoned = node(json!({}));
    merge(&mut cordoned, patch);
    agent.step(Input::Outcome(key, Ok(cordoned.clone())), at(40));
    let none = Input::Notice(NoticePath::SpotAction, Answer::Absent);
    assert!(cordon_patch(&agent.step(none.clone(), at(1_000))).is_none());
    let effects = agent.step(none.clone(), at(11_000));
    let (key, patch) = cordon_patch(&effects).unwrap();
    assert!(matches!(key, CallKey::Undo(_)));
    assert_eq!(patch["spec"], json!({"unschedulable": null}));
    assert_eq!(patch["metadata"]["resourceVersion"], "7");
    merge(&mut cordoned, json!({"metadata": {"resourceVersion": "8"}}));
    merge(&mut cordoned, patch);
    assert_eq!(cordoned["spec"].get("unschedulable"), None);
    assert_eq!(cordoned["metadata"]["labels"], json!({}));
    let effects = agent.step(Input::Outcome(key, Ok(cordoned)), at(11_100));
    assert!(effects.contains(&Effect::Tell(Fact::Uncordoned)));
    assert!(cordon_patch(&agent.step(Input::Tick, at(20_000))).is_none());

    // An admin's cordon and label are theirs.
    let mut agent = settled();
    let label = json!({labels::EXCLUDE_FROM_LOAD_BALANCERS: "admin"});
    let admins = node(json!({"spec": {"unschedulable": true}, "metadata": {"labels": label}}));
    agent.step(applied(Kind::Node, admins.clone()), at(0));
    let effects = agent.step(spot("stop", 110_000), at(0));
    let (key, patch) = cordon_patch(&effects).unwrap();
    assert_eq!(patch["metadata"].get("labels"), None);
    let mut cordoned = admins;
    merge(&mut cordoned, patch);
    agent.step(Input::Outcome(key, Ok(cordoned)), at(40));
    agent.step(none.clone(), at(1_000));
    let (_, patch) = cordon_patch(&agent.step(none, at(11_000))).unwrap();
    assert_eq!(patch.get("spec"), None);
    assert_eq!(patch["metadata"].get("labels"), None);
}

#[test]
fn a_mark_of_an_earlier_boot_is_undone_and_a_saved_notice_of_this_boot_is_kept() {
    let mark = json!({"by": "drover-agent", "why": "spot-stop", "until": null, "boot": "old",
        "wasUnschedulable": false});
    let marked = node(json!({"spec": {"unschedulable": true},
        "metadata": {"annotations": {labels::CORDONED: mark.to_string()}}}));
    let mut agent = agent(None);
    agent.step(applied(Kind::Node, marked), at(0));
    agent.step(Input::Cluster(ClusterEvent::Synced(Kind::Node)), at(0));
    let effects = agent.step(Input::Instance("i-1".into()), at(0));
    assert!(matches!(cordon_patch(&effects), Some((CallKey::Undo(_), _))));

    let notice = Notice {
        kind: NoticeKind::SpotTerminate,
        instance: "i-1".into(),
        boot: "b".into(),
        deadline: Some(at(90_000)),
        detected_at: at(0),
        issued_at: None,
    };
    let saved = Saved { instance: Some("i-1".into()), boot: "b".into(), notices: vec![notice] };
    let mut kept = self::agent(Some(saved.clone()));
    let effects = kept.step(applied(Kind::Node, node(json!({}))), at(1_000));
    assert!(cordon_patch(&effects).is_some(), "also while IMDS is silent");
    let mut copied = self::agent(Some(Saved { boot: "other".into(), ..saved }));
    let effects = copied.step(applied(Kind::Node, node(json!({}))), at(1_000));
    assert!(cordon_patch(&effects).is_none());
}

#[test]
fn foreign_nodes_and_soft_notices_are_left_alone() {
    let mut agent = settled();
    let other = node(json!({"spec": {"providerID": "aws:///a/i-2"}}));
    let effects = agent.step(applied(Kind::Node, other), at(0));
    assert!(matches!(&effects[0], Effect::Tell(Fact::ForeignNode { .. })), "{effects:?}");
    assert!(calls(&agent.step(spot("terminate", 110_000), at(0))).is_empty());

    let mut agent = settled();
    let body = format!("{{\"noticeTime\":\"{}\"}}", at(0));
    let effects = agent.step(Input::Notice(NoticePath::Rebalance, Answer::Body(body)), at(0));
    assert!(calls(&effects).is_empty());
    assert_eq!(reports(&effects)[0].notices[0].kind, NoticeKind::Rebalance);

    let mut agent = settled();
    let effects = agent.step(spot("hibernate", 110_000), at(0));
    assert_eq!(calls(&effects).len(), 1, "cordoned, but its pods come back: {effects:?}");
}

#[test]
fn a_directive_counts_only_while_the_node_bears_it() {
    let directive = Directive { disruption: "d-1".into(), deadline: None };
    let mut agent = settled();
    let effects = agent.step(Input::Directives(vec![directive.clone()]), at(0));
    let (key, call) = calls(&effects).remove(0);
    assert_eq!(call, KubernetesCall::Get { target: Target::cluster(Kind::Node, "n") });
    let effects = agent.step(Input::Outcome(key, Ok(node(json!({})))), at(10));
    assert!(calls(&effects).is_empty(), "no mark, no drain");

    let effects = agent.step(Input::Tick, at(1_100));
    let (key, _) = calls(&effects).remove(0);
    let marks = json!({
        "metadata": {"annotations": {labels::DISRUPTION: "d-1"}},
        "spec": {"taints": [{"key": labels::DISRUPTED_TAINT, "effect": "NoSchedule"}]},
    });
    let effects = agent.step(Input::Outcome(key, Ok(node(marks.clone()))), at(1_200));
    assert!(matches!(calls(&effects)[0].1, KubernetesCall::Evict { .. }));
    assert!(cordon_patch(&effects).is_none(), "the leader's taint is enough");
    let deleted = ObjectKey::new("d", "web");
    agent.step(Input::Cluster(ClusterEvent::Deleted(Kind::Pod, deleted)), at(3_000));
    let effects = agent.step(Input::Tick, at(7_000));
    let drain = reports(&effects)[0].drain.clone().unwrap();
    assert_eq!(drain.phase, DrainPhase::Drained);
    assert_eq!(drain.disruption, Some("d-1".into()));

    let effects = agent.step(applied(Kind::Node, node(json!({}))), at(8_000));
    assert!(effects.contains(&Effect::Tell(Fact::DrainStopped)));
    assert_eq!(reports(&effects)[0].drain, None);
}

/// An agent that drains for a directive which names this time, with a Node that bears these marks.
fn directed(told: Option<i64>, marks: Value) -> (Agent, Vec<Effect>) {
    let mut agent = settled();
    let directive = Directive { disruption: "d-1".into(), deadline: told.map(at) };
    let effects = agent.step(Input::Directives(vec![directive]), at(0));
    let (key, _) = calls(&effects).remove(0);
    let mut disrupted = node(json!({
        "metadata": {"annotations": {labels::DISRUPTION: "d-1"}},
        "spec": {"taints": [{"key": labels::DISRUPTED_TAINT, "effect": "NoSchedule"}]},
    }));
    merge(&mut disrupted, json!({"metadata": {"annotations": marks}}));
    let effects = agent.step(Input::Outcome(key, Ok(disrupted)), at(10));
    (agent, effects)
}

/// When a pod is deleted whose eviction is always refused, and with how much grace.
fn deleted(told: Option<i64>, marks: Value) -> Option<(i64, Option<u32>)> {
    let (mut agent, mut effects) = directed(told, marks);
    let kind = KubernetesFailureKind::DisruptionBudget;
    for second in 0..120 {
        for (key, call) in calls(&effects) {
            if let KubernetesCall::Delete { grace_seconds, .. } = call {
                return Some((second, grace_seconds));
            }
            let message = "its budget".to_owned();
            let refusal = KubernetesFailure { kind, message, retry_after_seconds: None };
            agent.step(Input::Outcome(key, Err(refusal)), at(second * 1_000));
        }
        effects = agent.step(Input::Tick, at((second + 1) * 1_000));
    }
    None
}

#[test]
fn by_when_a_budget_gives_way_the_node_says_and_no_directive() {
    assert_eq!(deleted(Some(0), json!({})), None);
    let garbage = json!({labels::DISRUPTION_DEADLINE: "soon", labels::DISRUPTION_REASON: "now"});
    assert_eq!(deleted(Some(0), garbage), None);
    let in_a_minute = json!({labels::DISRUPTION_DEADLINE: at(60_000).to_string()});
    assert_eq!(deleted(None, in_a_minute), Some((30, Some(30))));
}

#[test]
fn a_directive_for_a_spot_notice_keeps_no_pod_waiting() {
    let evicts = |reason: &str| {
        let (mut agent, _) = directed(None, json!({labels::DISRUPTION_REASON: reason}));
        let protected = json!({
            "metadata": {"name": "job", "namespace": "d", "uid": "u-job",
                "annotations": {labels::DO_NOT_DISRUPT: "true"}},
            "spec": {"nodeName": "n"},
        });
        let effects = agent.step(applied(Kind::Pod, protected), at(20));
        calls(&effects).iter().any(
            |(_, call)| matches!(call, KubernetesCall::Evict { target, .. } if target.name == "job"),
        )
    };
    assert!(evicts("spot-terminate") && evicts("reservation-reclaim"));
    assert!(!evicts("maintenance") && !evicts("Underutilized") && !evicts("Interruption"));
}

#[test]
fn a_node_that_is_interrupted_and_disrupted_keeps_to_what_ends_first() {
    let marks = json!({labels::DISRUPTION_DEADLINE: at(50_000).to_string()});
    let (mut agent, _) = directed(None, marks);
    agent.step(spot("terminate", 110_000), at(1_000));
    let purpose = agent.purpose(at(1_000).into()).unwrap();
    assert!(purpose.hurries && purpose.disruption.is_none());
    assert_eq!((purpose.end, purpose.budgets_end), (Some(at(50_000)), Some(at(50_000))));
}

#[test]
fn a_directive_that_no_leader_repeats_expires() {
    let told = || vec![Directive { disruption: "d-1".into(), deadline: None }];
    let answered = || ReportAnswer { directives: told(), ..ReportAnswer::default() };
    let mut agent = settled();
    agent.step(Input::Answered(1, answered()), at(0));
    agent.step(Input::Answered(2, answered()), at(60_000));
    agent.step(Input::Tick, at(149_000));
    assert!(agent.is_busy(), "repeated 89 s ago");
    agent.step(Input::Tick, at(150_000));
    assert!(!agent.is_busy());
    // The marks that come later are those of nothing that was told.
    let marks = json!({
        "metadata": {"annotations": {labels::DISRUPTION: "d-1"}},
        "spec": {"taints": [{"key": labels::DISRUPTED_TAINT, "effect": "NoSchedule"}]},
    });
    assert!(calls(&agent.step(applied(Kind::Node, node(marks.clone())), at(151_000))).is_empty());

    // What the Node is seen to bear holds until it bears it no more.
    let (key, _) = calls(&agent.step(Input::Answered(3, answered()), at(160_000))).remove(0);
    let effects = agent.step(Input::Outcome(key, Ok(node(marks))), at(160_100));
    assert!(matches!(calls(&effects)[0].1, KubernetesCall::Evict { .. }));
    let later = agent.step(Input::Tick, at(600_000));
    assert!(!later.contains(&Effect::Tell(Fact::DrainStopped)));
    let effects = agent.step(applied(Kind::Node, node(json!({}))), at(601_000));
    assert!(effects.contains(&Effect::Tell(Fact::DrainStopped)));
    assert!(calls(&agent.step(Input::Tick, at(603_000))).is_empty(), "nothing is looked for");
}

#[test]
fn a_directive_that_is_named_again_and_again_is_news_once() {
    let mut agent = settled();
    let mut reads = 0;
    for tick in 0..100 {
        let deadline = Some(at(600_000 + tick));
        let directive = Directive { disruption: "d-1".into(), deadline };
        let effects = agent.step(Input::Directives(vec![directive]), at(tick * 100));
        for (key, call) in calls(&effects) {
            assert!(matches!(call, KubernetesCall::Get { .. }), "{call:?}");
            reads += 1;
            agent.step(Input::Outcome(key, Ok(node(json!({})))), at(tick * 100 + 10));
        }
    }
    assert!((9..=11).contains(&reads), "{reads} reads in 10 s of a Node that bears no mark");
    agent.step(Input::Directives(Vec::new()), at(10_000));
    assert!(!agent.is_busy(), "called off");
}

#[test]
fn directives_without_end_are_not_kept() {
    let mut agent = settled();
    for answer in 0..1_000 {
        let name = |of: u64| format!("d-{answer}-{of}").as_str().into();
        let directives =
            (0..50).map(|of| Directive { disruption: name(of), deadline: None }).collect();
        let answer = ReportAnswer { directives, ..ReportAnswer::default() };
        agent.step(Input::Answered(1, answer), at(0));
    }
    assert!(agent.directives.len() <= 16, "{} directives", agent.directives.len());
}

#[test]
fn reports_repeat_until_notices_are_committed() {
    let mut agent = settled();
    let first = reports(&agent.step(spot("terminate", 110_000), at(0)))[0].sequence;
    assert!(reports(&agent.step(Input::Tick, at(900))).is_empty());
    assert_eq!(reports(&agent.step(Input::Tick, at(1_000))).len(), 1);
    let answer = ReportAnswer { committed: true, ..ReportAnswer::default() };
    agent.step(Input::Answered(first, answer), at(1_100));
    assert!(reports(&agent.step(Input::Tick, at(3_000))).is_empty());
    assert_eq!(reports(&agent.step(Input::Tick, at(11_000))).len(), 1);
}

#[test]
fn a_list_removes_what_it_does_not_name() {
    let mut agent = settled();
    agent.step(Input::Cluster(ClusterEvent::Stale(Kind::Pod)), at(0));
    agent.step(Input::Cluster(ClusterEvent::Restarted(Kind::Pod)), at(0));
    agent.step(pod("other"), at(0));
    assert_eq!(agent.pods.len(), 2);
    agent.step(Input::Cluster(ClusterEvent::Synced(Kind::Pod)), at(0));
    let names: Vec<_> = agent.pods.keys().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["other"]);
}
