//! What agents tell of their drains reaches people, and what they leave out is known.

use drover_common::call::Kind;
use drover_common::protocol::{DrainPhase, DrainReport, NoticeKind, PodUsage, Report, UsageDigest};
use drover_common::times::Times;
use jiff::SignedDuration;

use super::super::*;
use super::rig::*;

/// A node with two pods whose agent drains it for a notice.
fn draining() -> (Rig, Report, String) {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let doomed = rig.world.running_instances()[0].instance.clone();
    let mut report = rig.report(&doomed, None);
    rig.step(Input::Report(Box::new(report.clone())));
    report.notices = rig.report(&doomed, Some(NoticeKind::SpotTerminate)).notices;
    report.cordoned_at = Some(report.sent_at + SignedDuration::from_millis(250));
    let pod = rig.control.view().pods_on(&report.node).next().unwrap();
    let pod = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
    (rig, report, pod)
}

fn tell(rig: &mut Rig, report: &mut Report, evicted: u32, phase: DrainPhase, left: &[&str]) {
    report.sequence += 1;
    report.drain = Some(DrainReport {
        disruption: None,
        phase,
        evicted,
        clipped: 0,
        forced: 0,
        remaining: left.iter().map(|pod| ((*pod).to_owned(), "its budget".to_owned())).collect(),
    });
    rig.step(Input::Report(Box::new(report.clone())));
    rig.run(1);
}

#[test]
fn that_an_agent_is_well_is_no_reason_to_look_at_everything() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let instance = rig.world.running_instances()[0].instance.clone();
    let mut report = rig.report(&instance, None);
    for _ in 0..3 {
        report.sequence += 1;
        assert_eq!(rig.control.next_wakeup(), None);
        rig.step(Input::Report(Box::new(report.clone())));
    }
    assert_eq!(rig.control.next_wakeup(), None);
    assert_eq!(rig.control.status(&rig.state, rig.world.now).agents, 1);
}

#[test]
fn an_agent_that_hears_nothing_of_imds_is_told_of() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let instance = rig.world.running_instances()[0].instance.clone();
    let mut report = rig.report(&instance, None);
    let blind = |rig: &Rig| {
        let status = rig.control.status(&rig.state, rig.world.now);
        let since = rig.control.nodes(&rig.state)[0].imds_silent_since;
        (status.agents_blind, status.problems.get("what IMDS tells agents").cloned(), since)
    };
    rig.step(Input::Report(Box::new(report.clone())));
    assert_eq!(blind(&rig), (0, None, None), "an older agent says nothing of it");
    let since = Some(report.sent_at - SignedDuration::from_secs(20));
    report.sequence += 1;
    report.imds_silent_since = since;
    rig.step(Input::Report(Box::new(report.clone())));
    let words = format!("IMDS tells the agents of these Nodes nothing: {}", report.node);
    assert_eq!(blind(&rig), (1, Some(words), since));
    let mut well = report.clone();
    well.sequence += 1;
    well.imds_silent_since = None;
    rig.step(Input::Report(Box::new(well)));
    assert_eq!(blind(&rig), (0, None, None));
    report.sequence += 2;
    rig.step(Input::Report(Box::new(report)));
    rig.run(60);
    assert_eq!(blind(&rig), (0, None, since), "who is silent is no more counted");
}

#[test]
fn a_restarted_agent_is_heard_though_its_first_reports_were_lost() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let instance = rig.world.running_instances()[0].instance.clone();
    let mut report = rig.report(&instance, None);
    let since = Some(report.sent_at - SignedDuration::from_secs(20));
    report.sequence = 50;
    rig.step(Input::Report(Box::new(report.clone())));
    let blind = |rig: &Rig| rig.control.nodes(&rig.state)[0].imds_silent_since;
    let mut overtaken = report.clone();
    overtaken.sequence = 49;
    overtaken.sent_at -= SignedDuration::from_secs(1);
    overtaken.imds_silent_since = since;
    rig.step(Input::Report(Box::new(overtaken)));
    assert_eq!(blind(&rig), None, "it was overtaken on its way");
    report.sequence = 3;
    report.sent_at += SignedDuration::from_secs(30);
    report.imds_silent_since = since;
    rig.step(Input::Report(Box::new(report)));
    assert_eq!(blind(&rig), since);
}

#[test]
fn that_an_agent_is_heard_for_the_first_time_is_no_reason_either() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let instance = rig.world.running_instances()[0].instance.clone();
    // What waits for the next look goes on waiting for it.
    rig.control.dirty_since = Some(rig.world.now);
    let report = rig.report(&instance, None);
    drop(rig.control.step(&rig.state, Input::Report(Box::new(report)), rig.world.now));
    assert!(rig.control.next_wakeup().is_some());
}

#[test]
fn use_goes_into_the_log_where_it_is_news() {
    let (mut rig, mut report, _) = draining();
    report.notices.clear();
    let mut log = |rig: &mut Rig, cpu_milli_mean| {
        rig.run(15);
        report.sequence += 1;
        report.usage = Some(UsageDigest { cpu_milli_mean, ..UsageDigest::default() });
        rig.step(Input::Report(Box::new(report.clone())));
        rig.run(1);
        rig.state.usage.get(&report.node).cloned().unwrap()
    };
    let first = log(&mut rig, 1_000);
    assert_eq!(first.1.cpu_milli_mean, 1_000);
    assert_eq!(log(&mut rig, 1_050), first, "a twentieth more is none");
    let later = log(&mut rig, 1_200);
    assert_eq!(later.1.cpu_milli_mean, 1_200);
    assert!(later.0 > first.0);
}

#[test]
fn use_that_an_agent_does_not_know_any_more_is_not_told_from_the_log() {
    let (mut rig, mut report, _) = draining();
    report.notices.clear();
    let told = |rig: &Rig, report: &Report| {
        let nodes = rig.control.nodes(&rig.state);
        let node = nodes.into_iter().find(|node| node.node.as_ref() == Some(&report.node));
        node.unwrap().usage.map(|usage| usage.cpu_milli_mean)
    };
    rig.run(15);
    report.sequence += 1;
    report.usage = Some(UsageDigest { cpu_milli_mean: 500, ..UsageDigest::default() });
    rig.step(Input::Report(Box::new(report.clone())));
    rig.run(1);
    assert!(rig.state.usage.contains_key(&report.node));
    assert_eq!(told(&rig, &report), Some(500));
    report.sequence += 1;
    report.usage = None;
    rig.step(Input::Report(Box::new(report.clone())));
    assert_eq!(told(&rig, &report), None, "unknown is unknown");
    // A new leader has heard of nobody yet.
    rig.control.agents = Default::default();
    assert_eq!(told(&rig, &report), Some(500));
}

fn events(rig: &Rig, reason: &str) -> Vec<String> {
    let all = rig.world.list(Kind::Event);
    let own = all.iter().filter(|event| event["reason"] == reason);
    own.map(|event| format!("{} {}", event["type"], event["message"])).collect()
}

#[test]
fn pods_that_do_not_go_are_named_once_a_drain_has_taken_a_while() {
    let (mut rig, mut report, pod) = draining();
    tell(&mut rig, &mut report, 1, DrainPhase::Draining, &[&pod, "default/gone"]);
    assert_eq!(rig.control.status(&rig.state, rig.world.now).draining_pods, 2);
    rig.run(4);
    tell(&mut rig, &mut report, 1, DrainPhase::Draining, &[&pod]);
    assert_eq!(events(&rig, "FailedDraining"), Vec::<String>::new(), "it has only begun");
    rig.run(6);
    tell(&mut rig, &mut report, 1, DrainPhase::Draining, &[&pod, "default/gone"]);
    let told = format!(
        "\"Warning\" \"Failed to drain node, 1 pods are waiting to be evicted: {pod} (its budget)\""
    );
    assert_eq!(events(&rig, "FailedDraining"), [told]);
    let node = rig.control.nodes(&rig.state).into_iter().find(|node| node.drain.is_some());
    assert_eq!(node.unwrap().node, Some(report.node));
}

#[test]
fn drains_and_cordons_are_counted_once_each() {
    let (mut rig, mut report, pod) = draining();
    tell(&mut rig, &mut report, 1, DrainPhase::Draining, &[&pod]);
    tell(&mut rig, &mut report, 2, DrainPhase::Drained, &[]);
    tell(&mut rig, &mut report, 2, DrainPhase::Drained, &[]);
    let drained = events(&rig, "Drained");
    assert_eq!(drained.len(), 1, "{drained:?}");
    assert!(drained[0].contains("2 pods evicted"), "{drained:?}");
    let told = rig.control.status(&rig.state, rig.world.now).told;
    assert_eq!((told.evicted, told.forced, told.clipped), (2, 0, 0));
    assert_eq!(told.drained.values().collect::<Vec<_>>(), [&1]);
    let once = |times: Times| (times.count, times.milliseconds);
    assert_eq!((once(told.cordon), once(told.lead)), ((1, 250), (1, 120_000)));
    // A recommendation made long ago cordons nothing.
    report.notices[0].kind = NoticeKind::Rebalance;
    tell(&mut rig, &mut report, 2, DrainPhase::Drained, &[]);
    assert_eq!(rig.control.status(&rig.state, rig.world.now).told.cordon.count, 1);
    // An agent that starts anew counts from nothing.
    tell(&mut rig, &mut report, 1, DrainPhase::Draining, &[]);
    assert_eq!(rig.control.status(&rig.state, rig.world.now).told.evicted, 3);
}

#[test]
fn agents_of_nodes_that_are_gone_are_forgotten() {
    let (mut rig, mut report, _) = draining();
    rig.step(Input::Report(Box::new(report.clone())));
    assert!(rig.control.agents.seen_at(&report.node).is_some());
    rig.run(90);
    let gone = report.node.clone();
    assert!(!rig.control.view().nodes().contains_key(&gone), "it was interrupted");
    // Others go on talking.
    let other = rig.world.running_instances()[0].instance.clone();
    for _ in 0..8 {
        rig.run(90);
        report = rig.report(&other, None);
        report.usage = Some(UsageDigest::default());
        rig.step(Input::Report(Box::new(report.clone())));
    }
    assert!(rig.control.agents.seen_at(&gone).is_none());
    assert!(rig.control.agents.seen_at(&report.node).is_some());
}

#[test]
fn what_is_new_of_pods_completes_what_was_told_or_is_asked_for_whole() {
    let (mut rig, mut report, _) = draining();
    report.notices.clear();
    let pod = |uid: &str, cpu_milli_mean| PodUsage {
        uid: uid.to_owned(),
        cpu_milli_mean,
        ..PodUsage::default()
    };
    let mut tell = |sequence, since, pods: &[PodUsage], gone: &[&str]| {
        report.sequence = sequence;
        report.usage = Some(UsageDigest { pods: pods.to_vec(), ..UsageDigest::default() });
        report.usage_since = since;
        report.usage_gone = gone.iter().map(|uid| (*uid).to_owned()).collect();
        rig.step(Input::Report(Box::new(report.clone())));
        let known = rig.control.agents.usage(&report.node).unwrap();
        let known: Vec<_> =
            known.pods.iter().map(|pod| (pod.uid.clone(), pod.cpu_milli_mean)).collect();
        (rig.control.lacks_usage(&report), known)
    };
    let (a, b) = ("a".to_owned(), "b".to_owned());
    let whole = vec![(a.clone(), 1), (b.clone(), 2)];
    assert_eq!(tell(1, None, &[pod("a", 1), pod("b", 2)], &[]), (false, whole));
    let changed = vec![(a.clone(), 9), (b, 2)];
    assert_eq!(tell(2, Some(1), &[pod("a", 9)], &[]), (false, changed.clone()));
    // The answer was lost.
    assert_eq!(tell(2, Some(1), &[pod("a", 9)], &[]), (false, changed));
    assert_eq!(tell(3, Some(2), &[], &["b"]), (false, vec![(a, 9)]));
    assert_eq!(tell(5, Some(4), &[pod("c", 1)], &[]), (true, Vec::new()));
    assert_eq!(tell(6, None, &[pod("c", 1)], &[]), (false, vec![("c".to_owned(), 1)]));
    // One that was started anew says all.
    assert_eq!(tell(6, None, &[pod("e", 1)], &[]), (false, vec![("e".to_owned(), 1)]));
    // An agent does not make a leader remember without end.
    let many: Vec<PodUsage> = (0..1_999).map(|number| pod(&format!("p{number}"), 1)).collect();
    assert_eq!(tell(7, Some(6), &many, &[]).1.len(), 2_000);
    assert_eq!(tell(8, Some(7), &[pod("d", 1)], &[]), (true, Vec::new()));
}
