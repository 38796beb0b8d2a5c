use super::*;
use crate::cluster::{Metadata, OwnerReference, PodSpec, Volume};
use crate::labels;
use crate::taint::Toleration;

mod ending;

const START: i64 = 1_700_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

fn pod(name: &str, grace: i64) -> Pod {
    Pod {
        metadata: Metadata {
            name: name.into(),
            namespace: "shop".into(),
            uid: format!("uid-{name}"),
            ..Metadata::default()
        },
        spec: PodSpec { termination_grace_period_seconds: Some(grace), ..PodSpec::default() },
        ..Pod::default()
    }
}

fn owned_by(kind: &str, mut pod: Pod) -> Pod {
    let owner = OwnerReference { kind: kind.into(), controller: true, ..OwnerReference::default() };
    pod.metadata.owner_references.push(owner);
    pod
}

fn spot(deadline: i64) -> Purpose {
    let deadline = Some(at(deadline));
    Purpose { disruption: None, hurries: true, end: deadline, budgets_end: deadline }
}

fn disruption(deadline: Option<i64>) -> Purpose {
    Purpose::disruption(DisruptionId::from("d-1"), deadline.map(at), None)
}

fn failure(kind: KubernetesFailureKind) -> KubernetesFailure {
    KubernetesFailure { kind, message: "no".into(), retry_after_seconds: None }
}

/// A drain of some pods; answers are given by hand.
struct Drain {
    state: DrainState,
    purpose: Purpose,
    outcomes: Vec<(DrainKey, Result<(), KubernetesFailure>)>,
}

impl Drain {
    fn new(purpose: Purpose) -> Self {
        Self { state: DrainState::default(), purpose, outcomes: Vec::new() }
    }

    fn step(&mut self, pods: &[&Pod], seconds: i64) -> Vec<DrainCall> {
        let outcomes = std::mem::take(&mut self.outcomes);
        let input = DrainInput {
            pods,
            complete: true,
            purpose: &self.purpose,
            now: at(seconds),
            outcomes: &outcomes,
        };
        let mut twin = self.state.clone();
        let calls = step(&mut self.state, input);
        // Of reduced pods the same follows.
        let few: Vec<Pod> = pods.iter().map(|pod| reduced((*pod).clone())).collect();
        let few: Vec<&Pod> = few.iter().collect();
        assert_eq!(step(&mut twin, DrainInput { pods: &few, ..input }), calls);
        assert_eq!(twin, self.state);
        calls
    }

    fn answer(&mut self, call: &DrainCall, outcome: Result<(), KubernetesFailureKind>) {
        self.outcomes.push((call.key.clone(), outcome.map_err(failure)));
    }
}

/// `evict NAME GRACE` or `delete NAME GRACE`, for each call.
fn short(calls: &[DrainCall]) -> Vec<String> {
    let one = |call: &DrainCall| match &call.call {
        KubernetesCall::Evict { target, uid, grace_seconds } => {
            assert_eq!(*uid, format!("uid-{}", target.name));
            format!("evict {} {grace_seconds:?}", target.name)
        }
        KubernetesCall::Delete { target, uid, grace_seconds } => {
            assert_eq!(*uid, Some(format!("uid-{}", target.name)));
            format!("delete {} {grace_seconds:?}", target.name)
        }
        other => format!("{other:?}"),
    };
    calls.iter().map(one).collect()
}

#[test]
fn a_reduced_pod_is_a_small_one() {
    let id = format!("containerd://{}", "5a".repeat(32));
    let full = serde_json::json!({
        "metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"app": "p"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x".repeat(5_000)}},
        "spec": {"nodeName": "n", "nodeSelector": {"a": "b"},
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}],
            "volumes": [{"name": "config"}, {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "containerID": id, "allocatedResources": {"cpu": "1"}}]},
    });
    let kept = reduced(serde_json::from_value(full).unwrap());
    let expected = serde_json::json!({
        "metadata": {"name": "p", "namespace": "d", "uid": "u"},
        "spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "c", "containerID": id}]},
    });
    assert_eq!(kept, serde_json::from_value(expected).unwrap());
}

#[test]
fn of_many_reasons_to_stay_or_to_wait_a_reduced_pod_has_one() {
    let tolerations =
        vec![Toleration { operator: Some("Exists".into()), ..Toleration::default() }; 700];
    let claim = serde_json::json!({"name": "d", "persistentVolumeClaim": {"claimName": "c"}});
    let mut many = pod("many", 30);
    many.spec.tolerations = tolerations;
    many.spec.volumes = vec![serde_json::from_value(claim).unwrap(); 700];
    let kept = reduced(many).spec;
    assert_eq!((kept.tolerations.len(), kept.volumes.len()), (1, 1));
    assert!(kept.tolerations.capacity() < 8 && kept.volumes.capacity() < 8);
}

#[test]
fn daemons_mirrors_ended_and_tolerating_pods_stay() {
    let daemon = owned_by("DaemonSet", pod("daemon", 30));
    let mut mirror = pod("mirror", 30);
    mirror.metadata.annotations.insert("kubernetes.io/config.mirror".into(), "x".into());
    let mut ended = pod("ended", 30);
    ended.status.phase = "Succeeded".into();
    let mut tolerating = pod("tolerating", 30);
    tolerating
        .spec
        .tolerations
        .push(Toleration { operator: Some("Exists".into()), ..Toleration::default() });
    let web = owned_by("ReplicaSet", pod("web", 30));
    let pods = [&daemon, &mirror, &ended, &tolerating, &web];
    let mut drain = Drain::new(spot(100));
    assert_eq!(short(&drain.step(&pods, 0)), ["evict web None"]);
}

#[test]
fn an_interruption_starts_all_pods_at_once_with_volumes_first() {
    let web = pod("a-web", 30);
    let mut volume = pod("volume", 30);
    volume.spec.volumes.push(Volume {
        persistent_volume_claim: Some(crate::cluster::ClaimSource { claim_name: "c".into() }),
        ..Volume::default()
    });
    let set = owned_by("StatefulSet", pod("set", 30));
    let mut critical = pod("a-critical", 30);
    critical.spec.priority = Some(2_000_000_000);
    let pods = [&critical, &web, &volume, &set];
    let mut drain = Drain::new(spot(100));
    let expected =
        ["evict set None", "evict volume None", "evict a-web None", "evict a-critical None"];
    assert_eq!(short(&drain.step(&pods, 0)), expected);
    assert_eq!(short(&drain.step(&pods, 1)), [""; 0], "each is asked for once");
}

#[test]
fn pods_of_a_kind_leave_by_priority_the_lowest_first() {
    let with = |name: &str, priority| {
        let mut pod = pod(name, 30);
        pod.spec.priority = priority;
        pod
    };
    let ordinary = [with("a", Some(100)), with("b", None), with("c", Some(-5)), with("d", Some(7))];
    let critical =
        [with("a-critical", Some(2_000_000_001)), with("b-critical", Some(2_000_000_000))];
    let sets = [("a-set", 100), ("b-set", -5)].map(|(name, priority)| with(name, Some(priority)));
    let sets = sets.map(|pod| owned_by("StatefulSet", pod));
    let pods: Vec<&Pod> = critical.iter().chain(&ordinary).chain(&sets).collect();
    let calls = Drain::new(spot(100)).step(&pods, 0);
    let expected = ["b-set", "a-set", "c", "b", "d", "a", "b-critical", "a-critical"];
    assert_eq!(short(&calls), expected.map(|name| format!("evict {name} None")));
}

#[test]
fn so_many_calls_are_under_way_and_no_more() {
    let pods: Vec<Pod> = (0..100).map(|number| pod(&format!("web-{number}"), 30)).collect();
    let pods: Vec<&Pod> = pods.iter().collect();
    let mut drain = Drain::new(spot(100));
    let calls = drain.step(&pods, 0);
    assert_eq!(calls.len(), CONCURRENCY);
    assert_eq!(drain.step(&pods, 1).len(), 0, "none of them is answered");
    for call in &calls[..10] {
        drain.answer(call, Ok(()));
    }
    assert_eq!(drain.step(&pods, 2).len(), 10);

    // Each has been refused by its budget once when time runs out.
    let mut drain = Drain::new(spot(100));
    let mut asked = BTreeSet::new();
    for second in 0..70 {
        for call in drain.step(&pods, second) {
            drain.answer(&call, Err(KubernetesFailureKind::DisruptionBudget));
            asked.insert(call.key.uid);
        }
    }
    assert_eq!(asked.len(), pods.len());
    let deletes = short(&drain.step(&pods, 70));
    assert!(deletes.iter().all(|call| call.starts_with("delete ")), "{deletes:?}");
    assert_eq!(deletes.len(), LAST_CONCURRENCY);
    assert_eq!(drain.step(&pods, 71).len(), 0, "nor more deletions");
}

#[test]
fn a_budget_holds_until_only_the_grace_is_left() {
    let web = pod("web", 30);
    let mut drain = Drain::new(spot(100));
    let mut call = drain.step(&[&web], 0).remove(0);
    let mut asked = 1;
    for second in 1..70 {
        drain.answer(&call, Err(KubernetesFailureKind::DisruptionBudget));
        if let Some(next) = drain.step(&[&web], second).pop() {
            assert_eq!(short(std::slice::from_ref(&next)), ["evict web None"]);
            call = next;
            asked += 1;
        }
    }
    assert!((10..30).contains(&asked), "{asked} evictions in 70 s");
    drain.answer(&call, Err(KubernetesFailureKind::DisruptionBudget));
    let calls = drain.step(&[&web], 70);
    assert_eq!(short(&calls), ["delete web Some(30)"]);
    drain.answer(&calls[0], Ok(()));
    drain.step(&[&web], 71);
    assert_eq!(drain.state.report().forced, 1);
    assert_eq!(drain.state.report().evicted, 0);
    assert_eq!(drain.state.report().clipped, 0);
}

#[test]
fn only_some_purposes_pass_budgets() {
    let web = pod("web", 30);
    let soft = Purpose { end: Some(at(10)), ..Purpose::default() };
    for purpose in [soft, disruption(None)] {
        let mut drain = Drain::new(purpose);
        for second in 0..300 {
            for call in drain.step(&[&web], second) {
                assert_eq!(short(std::slice::from_ref(&call)), ["evict web None"]);
                drain.answer(&call, Err(KubernetesFailureKind::DisruptionBudget));
            }
        }
        let remaining = drain.state.report().remaining;
        assert_eq!(remaining[0].0, "shop/web");
        assert!(remaining[0].1.contains("DisruptionBudget"), "{remaining:?}");
    }
    let mut drain = Drain::new(disruption(Some(100)));
    let call = drain.step(&[&web], 69).remove(0);
    drain.answer(&call, Err(KubernetesFailureKind::DisruptionBudget));
    assert_eq!(short(&drain.step(&[&web], 70)), ["delete web Some(30)"]);
}

#[test]
fn grace_beyond_the_deadline_is_clipped_at_once_and_never_to_zero() {
    let (long, instant) = (pod("long", 600), pod("instant", 0));
    let mut drain = Drain::new(spot(100));
    let calls = drain.step(&[&instant, &long], 0);
    assert_eq!(short(&calls), ["evict instant None", "evict long Some(100)"]);
    drain.answer(&calls[1], Err(KubernetesFailureKind::OverlappingBudgets));
    drain.answer(&calls[0], Err(KubernetesFailureKind::OverlappingBudgets));
    let calls = drain.step(&[&instant, &long], 1);
    assert_eq!(short(&calls), ["delete long Some(99)"]);
    drain.answer(&calls[0], Err(KubernetesFailureKind::ServerError));
    assert_eq!(
        short(&drain.step(&[&instant, &long], 150)),
        ["delete instant Some(1)"],
        "the refused deletion pauses for a second"
    );
    assert_eq!(short(&drain.step(&[&instant, &long], 151)), ["delete long Some(1)"]);
}

#[test]
fn gone_pods_are_done_and_other_refusals_are_retried() {
    for kind in [KubernetesFailureKind::NotFound, KubernetesFailureKind::Conflict] {
        let web = pod("web", 30);
        let mut drain = Drain::new(spot(100));
        let call = drain.step(&[&web], 0).remove(0);
        drain.answer(&call, Err(kind));
        assert!(drain.step(&[&web], 1).is_empty(), "{kind:?}");
        assert_eq!(drain.state.report().evicted, 0);
        drain.step(&[], 6);
        assert_eq!(drain.state.report().phase, DrainPhase::Drained);
    }
    for kind in [
        KubernetesFailureKind::Forbidden,
        KubernetesFailureKind::NamespaceTerminating,
        KubernetesFailureKind::ServerError,
        KubernetesFailureKind::Unreachable,
        KubernetesFailureKind::TooManyRequests,
    ] {
        let web = pod("web", 30);
        let mut drain = Drain::new(disruption(None));
        let call = drain.step(&[&web], 0).remove(0);
        drain.answer(&call, Err(kind));
        assert!(drain.step(&[&web], 0).is_empty(), "{kind:?}");
        assert_eq!(short(&drain.step(&[&web], 10)), ["evict web None"], "{kind:?}");
    }
}

#[test]
fn a_pod_whose_namespace_ends_is_waited_for_and_deleted_when_its_time_comes() {
    let web = pod("web", 30);
    let mut drain = Drain::new(spot(100));
    let mut asked = Vec::new();
    for second in 0..=70 {
        for call in drain.step(&[&web], second) {
            asked.push((second, short(std::slice::from_ref(&call)).remove(0)));
            drain.answer(&call, Err(KubernetesFailureKind::NamespaceTerminating));
        }
    }
    assert_eq!(asked.pop(), Some((70, "delete web Some(30)".to_owned())));
    let evictions: Vec<i64> = asked.iter().map(|(second, _)| *second).collect();
    assert_eq!(evictions, (0..13).map(|n| n * 6).take_while(|s| *s < 70).collect::<Vec<_>>());
    assert!(drain.state.report().remaining[0].1.contains("NamespaceTerminating"));
}

#[test]
fn flow_control_pauses_all_evictions() {
    let (a, b) = (pod("a", 30), pod("b", 30));
    let mut drain = Drain::new(disruption(None));
    let call = drain.step(&[&a], 0).remove(0);
    let mut refusal = failure(KubernetesFailureKind::TooManyRequests);
    refusal.retry_after_seconds = Some(4);
    drain.outcomes.push((call.key, Err(refusal)));
    assert!(drain.step(&[&a, &b], 1).is_empty());
    assert!(drain.step(&[&a, &b], 4).is_empty());
    assert_eq!(drain.step(&[&a, &b], 5).len(), 2);
}

#[test]
fn do_not_disrupt_holds_for_as_long_as_it_says_and_for_ever_where_nobody_can_read_it() {
    // Seconds after the start of the pod until which it holds.
    for (value, until) in [
        ("true", i64::MAX),
        ("90m", 5_400),
        ("1.5h", 5_400),
        ("1h30m0.5s", 5_401),
        ("1500ms", 2),
        ("1 day", i64::MAX),
        ("yes", i64::MAX),
        ("", i64::MAX),
        ("0", 0),
        ("-1h", 0),
        ("false", 0),
    ] {
        let mut shy = pod("shy", 30);
        shy.metadata.annotations.insert(labels::DO_NOT_DISRUPT.into(), value.into());
        assert_eq!(has_active_do_not_disrupt(&shy, at(1)), until > 0, "{value}: not started");
        shy.status.start_time = Some(at(0));
        for second in [0, 1, 2, 5_399, 5_400, 5_401, 100_000] {
            assert_eq!(
                has_active_do_not_disrupt(&shy, at(second)),
                second < until,
                "{value}: {second}"
            );
        }
    }
}

#[test]
fn no_pause_and_no_hanging_call_takes_a_pods_last_seconds() {
    let (a, b) = (pod("a", 30), pod("b", 30));
    let mut drain = Drain::new(spot(100));
    let call = drain.step(&[&a], 65).remove(0);
    let mut refusal = failure(KubernetesFailureKind::TooManyRequests);
    refusal.retry_after_seconds = Some(32);
    drain.outcomes.push((call.key, Err(refusal)));
    assert!(drain.step(&[&a, &b], 66).is_empty());
    assert!(drain.step(&[&a, &b], 69).is_empty());
    let calls = short(&drain.step(&[&a, &b], 70));
    assert_eq!(calls, ["delete a Some(30)", "evict b None"]);

    // Nothing is answered any more.
    let pods: Vec<Pod> = (10..60).map(|number| pod(&format!("web-{number}"), 30)).collect();
    let pods: Vec<&Pod> = pods.iter().collect();
    let mut drain = Drain::new(spot(100));
    assert_eq!(drain.step(&pods, 68).len(), CONCURRENCY);
    assert_eq!(drain.step(&pods, 69).len(), 0);
    let overtaking = short(&drain.step(&pods, 70));
    assert!(overtaking.iter().all(|call| call.starts_with("delete ")), "{overtaking:?}");
    let first = short(&drain.step(&pods, 71));
    assert!(first.iter().all(|call| call.starts_with("evict ")), "{first:?}");
    assert_eq!((overtaking.len(), first.len()), (CONCURRENCY, pods.len() - CONCURRENCY));
}

#[test]
fn voluntary_drains_wait_for_consent_and_for_ordinary_pods() {
    let mut shy = pod("shy", 30);
    shy.metadata.annotations.insert(labels::DO_NOT_DISRUPT.into(), "true".into());
    let mut critical = pod("critical", 30);
    critical.spec.priority_class_name = "system-cluster-critical".into();
    let mut drain = Drain::new(disruption(Some(1000)));
    assert!(drain.step(&[&shy, &critical], 0).is_empty());
    assert_eq!(drain.state.report().remaining[0].1, "karpenter.sh/do-not-disrupt");
    shy.metadata.annotations.insert(labels::DO_NOT_DISRUPT.into(), "60s".into());
    shy.status.start_time = Some(at(0));
    assert!(drain.step(&[&shy, &critical], 59).is_empty());
    assert_eq!(short(&drain.step(&[&shy, &critical], 60)), ["evict shy None"]);
    assert_eq!(short(&drain.step(&[&critical], 61)), ["evict critical None"]);
    shy.metadata.annotations.insert(labels::DO_NOT_DISRUPT.into(), "true".into());
    let mut drain = Drain::new(spot(1000));
    assert_eq!(drain.step(&[&shy, &critical], 0).len(), 2, "a spot loss asks nobody");
    let mut drain = Drain::new(disruption(Some(1000)));
    let calls = short(&drain.step(&[&shy, &critical], 970));
    assert_eq!(calls, ["evict shy None", "evict critical None"], "time is up");
}

#[test]
fn a_hanging_eviction_is_overtaken_when_time_runs_out() {
    let web = pod("web", 30);
    let mut drain = Drain::new(spot(100));
    let hanging = drain.step(&[&web], 60).remove(0);
    assert!(drain.step(&[&web], 69).is_empty());
    let forced = drain.step(&[&web], 70);
    assert_eq!(short(&forced), ["delete web Some(30)"]);
    drain.answer(&hanging, Err(KubernetesFailureKind::Unreachable));
    assert!(drain.step(&[&web], 71).is_empty(), "the deletion is still under way");
    drain.answer(&forced[0], Ok(()));
    drain.answer(&hanging, Ok(()));
    drain.step(&[&web], 72);
    let report = drain.state.report();
    assert_eq!((report.forced, report.evicted), (1, 0), "a pod leaves once");
}

#[test]
fn drained_needs_time_a_complete_picture_and_no_waiting_for_the_stuck() {
    let mut drain = Drain::new(disruption(None));
    drain.step(&[], 0);
    assert_eq!(drain.state.report().phase, DrainPhase::Draining);
    let purpose = disruption(None);
    let blind =
        DrainInput { pods: &[], complete: false, purpose: &purpose, now: at(9), outcomes: &[] };
    step(&mut drain.state, blind);
    assert_eq!(drain.state.report().phase, DrainPhase::Draining);
    let mut stuck = pod("stuck", 30);
    stuck.metadata.deletion_timestamp = Some(at(0));
    drain.step(&[&stuck], 59);
    assert_eq!(drain.state.report().phase, DrainPhase::Draining);
    drain.step(&[&stuck], 60);
    assert_eq!(drain.state.report().phase, DrainPhase::Drained);
    assert_eq!(drain.state.report().remaining.len(), 1);
    assert_eq!(drain.state.report().disruption, Some(DisruptionId::from("d-1")));
}
