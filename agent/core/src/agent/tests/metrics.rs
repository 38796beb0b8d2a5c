//! What the agent's own page of metrics tells.

use drover_common::metrics::Page;

use super::news::Scene;
use super::*;

fn page(scene: &Scene) -> String {
    let mut page = Page::default();
    scene.agent.metrics(at(scene.now)).write(&mut page);
    page.into_text()
}

#[track_caller]
fn assert_has(page: &str, lines: &[&str]) {
    for line in lines {
        assert!(page.lines().any(|one| one == *line), "no {line} in\n{page}");
    }
}

#[test]
fn a_notice_its_cordon_and_its_drain_are_counted_once_each() {
    let mut scene = Scene::new();
    scene.node["metadata"]["labels"][labels::NODEPOOL] = json!("general");
    let quiet = ["drover_agent_has_node 1", "drover_agent_cordoned 0", "drover_agent_heard 0"];
    assert_has(&page(&scene), &quiet);
    scene.step(spot("terminate", 110_000));
    scene.run(5);
    scene.step(spot("terminate", 110_000));
    let begun = [
        "drover_notices_total{kind=\"spot-terminate\"} 1",
        "drover_notices_in_force{kind=\"spot-terminate\"} 1",
        "drover_notices_in_force{kind=\"rebalance\"} 0",
        "drover_drain_pods_total{how=\"evicted\"} 1",
        "drover_drain_pods_left 1",
        "drover_agent_draining 1",
        "drover_agent_cordoned 1",
        "drover_notice_cordon_seconds_bucket{le=\"0.05\"} 1",
        "drover_notice_lead_seconds_sum 110",
        "drover_notice_lead_seconds_count 1",
    ];
    assert_has(&page(&scene), &begun);
    scene.step(Input::Cluster(ClusterEvent::Deleted(Kind::Pod, ObjectKey::new("d", "web"))));
    scene.run(5);
    let done = [
        "karpenter_nodes_drained_total{nodepool=\"general\"} 1",
        "drover_notice_cordon_seconds_count 1",
        "drover_drain_pods_left 0",
        "drover_agent_draining 0",
    ];
    assert_has(&page(&scene), &done);
    // It is called off, and another of its kind comes.
    for _ in 0..12 {
        scene.run(1);
        scene.step(Input::Notice(NoticePath::SpotAction, Answer::Absent));
    }
    assert_has(&page(&scene), &["drover_notices_in_force{kind=\"spot-terminate\"} 0"]);
    scene.step(spot("terminate", scene.now + 100_000));
    scene.run(1);
    let again = [
        "drover_notices_total{kind=\"spot-terminate\"} 2",
        "drover_notice_cordon_seconds_count 2",
        "drover_drain_pods_total{how=\"evicted\"} 1",
    ];
    assert_has(&page(&scene), &again);
}

#[test]
fn what_an_earlier_agent_counted_is_not_counted_again() {
    let notice = Notice {
        kind: NoticeKind::SpotTerminate,
        instance: "i-1".into(),
        boot: "b".into(),
        deadline: Some(at(110_000)),
        detected_at: at(-60_000),
        issued_at: Some(at(-61_000)),
    };
    let saved = Saved { instance: Some("i-1".into()), boot: "b".into(), notices: vec![notice] };
    let mut scene = Scene::of(agent(Some(saved)));
    scene.step(Input::Instance("i-1".into()));
    scene.step(applied(Kind::Node, node(json!({}))));
    scene.step(Input::Cluster(ClusterEvent::Synced(Kind::Node)));
    scene.run(5);
    let expected = [
        "drover_notices_total{kind=\"spot-terminate\"} 0",
        "drover_notices_in_force{kind=\"spot-terminate\"} 1",
        "drover_agent_cordoned 1",
        "drover_notice_cordon_seconds_count 0",
        "drover_notice_detection_seconds_count 0",
    ];
    assert_has(&page(&scene), &expected);
}

#[test]
fn pods_that_a_notice_finds_at_its_end_are_counted_once() {
    let mut scene = Scene::new();
    scene.evictions = Err(KubernetesFailureKind::Forbidden);
    scene.step(spot("terminate", 20_000));
    scene.run(30);
    assert_has(&page(&scene), &["drover_notice_pods_left_total 1"]);
}

#[test]
fn the_page_tells_whom_the_agent_hears_and_who_hears_it() {
    let mut scene = Scene::new();
    scene.run(20);
    let lone = ["drover_agent_heard 0", "drover_agent_blind 1", "drover_agent_cut_off 0"];
    assert_has(&page(&scene), &lone);
    scene.leader = Some(true);
    scene.run(20);
    scene.step(Input::Notice(NoticePath::SpotAction, Answer::Absent));
    assert_has(&page(&scene), &["drover_agent_heard 1", "drover_agent_blind 0"]);
    scene.up = false;
    scene.step(spot("terminate", scene.now + 100_000));
    scene.run(10);
    assert_has(&page(&scene), &["drover_agent_cut_off 1", "drover_agent_cordoned 0"]);
    assert_has(&page(&scene), &["drover_agent_has_node 1"]);
    scene.step(Input::Cluster(ClusterEvent::Stale(Kind::Node)));
    assert_has(&page(&scene), &["drover_agent_has_node 0"]);
}
