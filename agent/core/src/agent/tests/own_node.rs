//! Nodes that bear the agent's name, and are or are not its own.

use super::*;

fn foreign() -> Value {
    node(json!({"metadata": {"uid": "u-2"}, "spec": {"providerID": "aws:///a/i-2"}}))
}

fn deleted(kind: Kind, name: &str) -> Input {
    Input::Cluster(ClusterEvent::Deleted(kind, ObjectKey::new("", name)))
}

/// Knows itself and one pod, but not its Node.
fn unseen() -> Agent {
    let mut agent = agent(None);
    agent.step(Input::Instance("i-1".into()), at(0));
    agent.step(Input::Cluster(ClusterEvent::Restarted(Kind::Pod)), at(0));
    agent.step(pod("web"), at(0));
    agent.step(Input::Cluster(ClusterEvent::Synced(Kind::Pod)), at(0));
    agent
}

#[test]
fn a_node_that_was_not_seen_is_read_before_anything_is_done_to_it() {
    let mut agent = unseen();
    let effects = agent.step(spot("terminate", 110_000), at(0));
    let (key, call) = match calls(&effects).as_slice() {
        [only] => only.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(call, KubernetesCall::Get { target: Target::cluster(Kind::Node, "n") });
    let mut owner = agent.clone();
    let effects = owner.step(Input::Outcome(key.clone(), Ok(node(json!({})))), at(20));
    assert!(cordon_patch(&effects).is_some() && calls(&effects).len() == 2, "{effects:?}");

    let effects = agent.step(Input::Outcome(key, Ok(foreign())), at(20));
    assert!(calls(&effects).is_empty(), "{effects:?}");
    let provider_id = "aws:///a/i-2".to_owned();
    assert!(effects.contains(&Effect::Tell(Fact::ForeignNode { provider_id })));
}

#[test]
fn a_read_that_fails_is_made_again() {
    let mut agent = unseen();
    let mut effects = agent.step(spot("terminate", 110_000), at(0));
    let mut reads = 0;
    for tick in 1..=100 {
        let input = match calls(&effects).into_iter().next() {
            Some((key, _)) => {
                reads += 1;
                Input::Outcome(key, Err(failure()))
            }
            None => Input::Tick,
        };
        effects = agent.step(input, at(tick * 200));
    }
    assert!((8..20).contains(&reads), "{reads} reads in 20 s");
}

#[test]
fn a_node_made_anew_for_another_instance_is_left_alone() {
    let mut agent = settled();
    let (key, patch) = cordon_patch(&agent.step(spot("terminate", 110_000), at(0))).unwrap();
    assert_eq!(patch["metadata"]["uid"], "u", "the patch holds for that Node alone");
    agent.step(deleted(Kind::Node, "n"), at(100));
    let effects = agent.step(applied(Kind::Node, foreign()), at(200));
    assert!(effects.contains(&Effect::Tell(Fact::DrainStopped)), "{effects:?}");
    let refused = KubernetesFailure { kind: KubernetesFailureKind::Conflict, ..failure() };
    let mut later = agent.step(Input::Outcome(key, Err(refused)), at(300));
    for second in 1..60 {
        // It's read again, as what was patched was not what was seen.
        for (key, call) in calls(&later) {
            assert!(matches!(call, KubernetesCall::Get { .. }), "{call:?}");
            later = agent.step(Input::Outcome(key, Ok(foreign())), at(second * 1_000));
            assert!(calls(&later).is_empty(), "{later:?}");
        }
        later = agent.step(Input::Tick, at(second * 1_000 + 500));
    }
}

#[test]
fn a_node_made_anew_for_the_same_instance_is_cordoned_again() {
    // A UID that is another is a field that may not change, and so no conflict.
    for kind in [
        KubernetesFailureKind::Invalid,
        KubernetesFailureKind::Conflict,
        KubernetesFailureKind::NotFound,
    ] {
        let mut agent = settled();
        let (key, _) = cordon_patch(&agent.step(spot("terminate", 110_000), at(0))).unwrap();
        let refused = KubernetesFailure { kind, ..failure() };
        let effects = agent.step(Input::Outcome(key, Err(refused)), at(100));
        assert!(!effects.contains(&Effect::Tell(Fact::DrainStopped)), "{kind:?}: {effects:?}");
        let (key, _) = read(&effects).unwrap();
        assert!(cordon_patch(&agent.step(Input::Tick, at(400))).is_none(), "{kind:?}: of the old");
        let anew = node(json!({"metadata": {"uid": "u-2"}}));
        let effects = agent.step(Input::Outcome(key, Ok(anew)), at(450));
        let (_, patch) = cordon_patch(&effects).unwrap();
        assert_eq!(patch["metadata"]["uid"], "u-2", "{kind:?}");
    }
}

fn read(effects: &[Effect]) -> Option<(CallKey, KubernetesCall)> {
    calls(effects).into_iter().find(|(key, _)| matches!(key, CallKey::ReadNode(_)))
}

#[test]
fn a_cordon_that_could_not_be_taken_back_is_taken_back_of_the_node_as_it_is() {
    let mark = json!({"by": "drover-agent", "why": "spot-stop", "until": null, "boot": "old",
        "wasUnschedulable": false});
    let marked = |version: &str| {
        node(json!({"spec": {"unschedulable": true}, "metadata": {"resourceVersion": version,
            "annotations": {labels::CORDONED: mark.to_string()}}}))
    };
    let mut agent = settled();
    let (key, _) = cordon_patch(&agent.step(applied(Kind::Node, marked("8")), at(0))).unwrap();
    assert!(matches!(key, CallKey::Undo(_)));
    let refused = KubernetesFailure { kind: KubernetesFailureKind::Conflict, ..failure() };
    let effects = agent.step(Input::Outcome(key, Err(refused)), at(10));
    let (key, _) = read(&effects).unwrap();
    // It waits for that, whatever the pace: what was refused would be refused again.
    for tick in 1..10 {
        assert!(cordon_patch(&agent.step(Input::Tick, at(10 + tick * 200))).is_none());
    }
    // No watch need tell it.
    let effects = agent.step(Input::Outcome(key, Ok(marked("9"))), at(2_000));
    let (_, patch) = cordon_patch(&effects).unwrap();
    assert_eq!(patch["metadata"]["resourceVersion"], "9");
}

#[test]
fn a_list_without_the_node_says_that_there_is_none() {
    let mut agent = settled();
    agent.step(Input::Cluster(ClusterEvent::Stale(Kind::Node)), at(0));
    agent.step(Input::Cluster(ClusterEvent::Restarted(Kind::Node)), at(0));
    let effects = agent.step(Input::Cluster(ClusterEvent::Synced(Kind::Node)), at(0));
    assert!(effects.contains(&Effect::Tell(Fact::NoNode("n".into()))), "{effects:?}");
    let effects = agent.step(spot("terminate", 110_000), at(0));
    assert!(cordon_patch(&effects).is_none(), "{effects:?}");
}

#[test]
fn a_node_that_is_deleted_is_one_that_there_is_not() {
    let there_is_none = |effects: &[Effect]| {
        effects.iter().filter(|effect| **effect == Effect::Tell(Fact::NoNode("n".into()))).count()
    };
    let mut agent = settled();
    assert_eq!(there_is_none(&agent.step(deleted(Kind::Node, "other"), at(0))), 0);
    assert!(agent.node.is_some(), "another's");
    assert_eq!(there_is_none(&agent.step(deleted(Kind::Node, "n"), at(0))), 1);
    // Nor does a list that was under way bring it back.
    assert_eq!(
        there_is_none(&agent.step(Input::Cluster(ClusterEvent::Synced(Kind::Node)), at(0))),
        0
    );
    let effects = agent.step(spot("terminate", 110_000), at(0));
    assert!(cordon_patch(&effects).is_none(), "{effects:?}");
    let (key, _) = calls(&effects).remove(0);
    let gone = KubernetesFailure { kind: KubernetesFailureKind::NotFound, ..failure() };
    assert_eq!(
        there_is_none(&agent.step(Input::Outcome(key, Err(gone.clone())), at(10))),
        0,
        "said"
    );
    agent.step(applied(Kind::Node, node(json!({}))), at(20));
    assert_eq!(there_is_none(&agent.step(deleted(Kind::Node, "n"), at(30))), 1, "once more");

    // While the watch is broken a read tells it.
    let mut agent = settled();
    agent.step(Input::Cluster(ClusterEvent::Stale(Kind::Node)), at(0));
    let directive = Directive { disruption: "d-1".into(), deadline: None };
    let (key, _) = calls(&agent.step(Input::Directives(vec![directive]), at(0))).remove(0);
    assert_eq!(there_is_none(&agent.step(Input::Outcome(key, Err(gone)), at(10))), 1);
    assert!(agent.node.is_none());
}

#[test]
fn pods_without_end_are_not_kept() {
    let mut agent = settled();
    let mut told = 0;
    for number in 0..3_000 {
        let effects = agent.step(pod(&format!("p-{number}")), at(0));
        let too_many = |effect: &&Effect| matches!(effect, Effect::Tell(Fact::TooManyPods(_)));
        told += effects.iter().filter(too_many).count();
    }
    assert_eq!((agent.pods.len(), told), (2_000, 1));
}

#[test]
fn pods_of_any_size_are_not_kept() {
    let with = |name: &str, owners: usize| {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o".repeat(253),
            "uid": "u".repeat(36), "controller": true});
        let pod = json!({"metadata": {"name": name, "namespace": "d", "uid": "u",
            "ownerReferences": vec![owner; owners]}, "spec": {"nodeName": "n"}});
        applied(Kind::Pod, pod)
    };
    let mut agent = settled();
    let too_large = |effects: Vec<Effect>| -> Vec<(String, usize)> {
        let of = |effect| match effect {
            Effect::Tell(Fact::PodTooLarge { pod, .. }) => Some((pod.to_string(), pod.name.len())),
            _ => None,
        };
        effects.into_iter().filter_map(of).collect()
    };
    assert!(too_large(agent.step(with("real", 10), at(0))).is_empty());
    assert_eq!(too_large(agent.step(with("huge", 1_000), at(0))), [("d/huge".to_owned(), 4)]);
    assert!(too_large(agent.step(with("next", 1_000), at(0))).is_empty(), "told once");
    // What was known of it stays: it may have to leave.
    assert!(too_large(agent.step(with("real", 1_000), at(0))).is_empty());
    let kept: Vec<_> = agent.pods.iter().map(|(key, pod)| (key.name.as_str(), pod)).collect();
    assert_eq!(kept.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["real", "web"]);
    assert!(kept[0].1.metadata.owner_references.len() <= 10);

    let mut agent = settled();
    let told = too_large(agent.step(with(&"n".repeat(100_000), 0), at(0)));
    assert_eq!(told.iter().map(|(_, length)| *length).collect::<Vec<_>>(), [253]);
}

#[test]
fn pods_that_have_ended_take_no_room() {
    let in_phase = |name: &str, phase: &str| {
        let pod = json!({"metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
            "spec": {"nodeName": "n"}, "status": {"phase": phase}});
        applied(Kind::Pod, pod)
    };
    let mut agent = settled();
    for number in 0..3_000 {
        let phase = if number % 2 == 0 { "Succeeded" } else { "Failed" };
        let effects = agent.step(in_phase(&format!("job-{number}"), phase), at(0));
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Tell(_))), "{effects:?}");
    }
    agent.step(in_phase("late", "Running"), at(0));
    let names = |agent: &Agent| agent.pods.keys().map(|key| key.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&agent), ["late", "web"]);
    agent.step(in_phase("late", "Succeeded"), at(0));
    assert_eq!(names(&agent), ["web"]);
    // In a list, too.
    agent.step(Input::Cluster(ClusterEvent::Restarted(Kind::Pod)), at(0));
    agent.step(in_phase("web", "Failed"), at(0));
    agent.step(Input::Cluster(ClusterEvent::Synced(Kind::Pod)), at(0));
    assert!(names(&agent).is_empty());
}

#[test]
fn pods_that_do_not_go_are_told_of_more_and_more_rarely() {
    let mut agent = settled();
    for number in 0..20 {
        agent.step(pod(&format!("p-{number}")), at(0));
    }
    agent.step(Input::Notice(NoticePath::AutoScaling, Answer::Body("Terminated".into())), at(0));
    let mut told = Vec::new();
    for second in 1..=3_600 {
        for effect in agent.step(Input::Tick, at(second * 1_000)) {
            let Effect::Tell(Fact::PodsLeft { pods, unnamed }) = effect else { continue };
            assert_eq!((pods.len(), unnamed), (10, 11));
            assert!(pods[0].0.starts_with("d/") && !pods[0].1.is_empty(), "{pods:?}");
            told.push(second);
        }
    }
    assert_eq!(told, [10, 30, 70, 150, 310, 630, 1_230, 1_830, 2_430, 3_030]);
}
