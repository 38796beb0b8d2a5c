//! What is told of use, and what measuring is told of the node.

use drover_common::cluster::ContainerId;
use drover_common::protocol::PodUsage;

use super::*;
use crate::usage::ContainerName;

#[test]
fn use_that_is_unknown_by_now_is_not_told_any_more() {
    let mut agent = settled();
    agent.step(Input::Usage(Some(UsageDigest::default())), at(0));
    assert!(reports(&agent.step(Input::Tick, at(11_000)))[0].usage.is_some());
    agent.step(Input::Usage(None), at(12_000));
    assert_eq!(reports(&agent.step(Input::Tick, at(22_000)))[0].usage, None);
}

#[test]
fn use_that_was_measured_long_ago_is_not_told_any_more() {
    // Seconds between two reports, and for how long a digest is told.
    for (interval, lasts) in [(1, 30), (10, 30), (60, 180)] {
        let identity = Identity { node: "n".into(), boot: "b".into() };
        let mut agent = Agent::new(identity, None, SignedDuration::from_secs(interval));
        let pod = |uid: &str| PodUsage { uid: uid.into(), ..PodUsage::default() };
        let digest = UsageDigest { pods: vec![pod("a"), pod("b")], ..UsageDigest::default() };
        let measured = |agent: &mut Agent, second: i64| {
            reports(&agent.step(Input::Usage(Some(digest.clone())), at(second * 1_000)))
        };
        let answer = |agent: &mut Agent, sequence, second: i64| {
            agent.step(Input::Answered(sequence, ReportAnswer::default()), at(second * 1_000));
        };
        let mut sequence = measured(&mut agent, 1)[0].sequence;
        answer(&mut agent, sequence, 1);
        for second in 2..400 {
            for report in reports(&agent.step(Input::Tick, at(second * 1_000))) {
                let known = second < 1 + lasts;
                assert_eq!(report.usage.is_some(), known, "{second} of {interval}");
                let since = known.then_some(sequence);
                assert_eq!((report.usage_since, report.usage_gone.len()), (since, 0));
                sequence = report.sequence;
                answer(&mut agent, sequence, second);
            }
        }
        // Leaders have forgotten by now, and hear all anew.
        measured(&mut agent, 400);
        let told = reports(&agent.step(Input::Tick, at(400_000 + interval * 1_000)));
        let again =
            told.iter().find_map(|report| Some((report.usage_since, report.usage.clone()?)));
        assert_eq!(again, Some((None, digest)), "{interval}");
    }
}

#[test]
fn the_first_use_is_told_at_once_and_later_use_in_its_turn() {
    let mut agent = settled();
    let digest = |cpu| UsageDigest { cpu_milli_mean: cpu, ..UsageDigest::default() };
    let told = reports(&agent.step(Input::Usage(Some(digest(1))), at(2_000)));
    assert_eq!(
        told.iter().map(|report| report.usage.clone()).collect::<Vec<_>>(),
        [Some(digest(1))]
    );
    assert!(reports(&agent.step(Input::Usage(Some(digest(2))), at(3_000))).is_empty());
    assert!(reports(&agent.step(Input::Usage(None), at(4_000))).is_empty());
    assert!(reports(&agent.step(Input::Usage(Some(digest(3))), at(5_000))).is_empty());
    assert_eq!(reports(&agent.step(Input::Tick, at(12_001)))[0].usage, Some(digest(3)));
}

#[test]
fn running_pods_are_known_by_their_names() {
    let mut agent = settled();
    for (name, phase) in [("runs", "Running"), ("waits", "Pending"), ("ended", "Succeeded")] {
        let pod = json!({"metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}")},
            "spec": {"nodeName": "n"}, "status": {"phase": phase}});
        agent.step(applied(Kind::Pod, pod), at(0));
    }
    let expected = PodNames::from([(ObjectKey::new("d", "runs"), Arc::from("u-runs"))]);
    assert_eq!(agent.running_pods(), expected);
}

#[test]
fn containers_are_known_by_what_their_pods_say() {
    let mut agent = settled();
    let id = |digit: &str| format!("containerd://{}", digit.repeat(64));
    let pod = json!({"metadata": {"name": "web", "namespace": "d", "uid": "u"},
        "spec": {"nodeName": "n"}, "status": {"phase": "Running",
            "containerStatuses": [
                {"name": "web", "containerID": id("1"), "restartCount": 3,
                    "lastState": {"terminated": {"containerID": id("2")}}},
                {"name": "new", "containerID": ""}],
            "initContainerStatuses": [{"name": "init", "containerID": id("3")}]}});
    agent.step(applied(Kind::Pod, pod), at(0));
    let name = |name: &str, digit: Option<&str>, lasts| ContainerName {
        name: name.into(),
        id: digit.and_then(|digit| ContainerId::of_hex(&digit.repeat(64))),
        lasts,
    };
    let expected =
        vec![name("web", Some("1"), true), name("new", None, true), name("init", Some("3"), false)];
    assert_eq!(agent.containers(), ContainerNames::from([(Arc::from("u"), expected)]));
}

#[test]
fn gpus_are_what_the_device_plugin_says() {
    let mut agent = settled();
    assert!(!agent.has_gpus());
    for (capacity, expected) in [
        (json!({"cpu": "8", "nvidia.com/gpu": "0"}), false),
        (json!({"cpu": "8", "nvidia.com/mig-1g.5gb": "7"}), true),
        (json!({"cpu": "8", "nvidia.com/gpu": "1"}), true),
    ] {
        let node = node(json!({"status": {"capacity": capacity}}));
        agent.step(applied(Kind::Node, node), at(0));
        assert_eq!(agent.has_gpus(), expected, "{capacity}");
    }
}
