//! Agents against a scripted metadata service, API server and leader, all over real sockets.

mod metrics;
mod rotation;
mod stopping;
mod world;

use std::time::Duration;

use drover_common::labels;
use drover_kubernetes::KubeletTrust;
use serde_json::json;

use crate::power::tests::FakeMachine;
use crate::{Config, GpuChoice, SourceChoice};
use world::{State, World};

#[tokio::test]
async fn a_notice_cordons_and_drains_with_every_leader_down() {
    let world = World::new(&["web-0", "web-1"]).await;
    let agent = world.start_agent("http://127.0.0.1:9").await;
    world.until("the agent watches", |state| state.watches >= 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.announce("terminate", 110);
    let cordoned = world
        .until("the node is cordoned", |state| state.node["spec"]["unschedulable"] == true)
        .await;
    assert!(cordoned < Duration::from_millis(1_000), "cordoned after {cordoned:?}");
    let drained = world.until("both pods are evicted", |state| state.evicted.len() == 2).await;
    assert!(drained < Duration::from_millis(1_000), "evicted after {drained:?}");
    let mark = world.state().node["metadata"]["annotations"][labels::CORDONED].to_string();
    assert!(mark.contains("spot-terminate"), "{mark}");
    let kept = std::fs::read_to_string(world.folder().join("notices.json")).unwrap();
    assert!(kept.contains("i-0abc"), "{kept}");
    agent.stop().await;
}

#[tokio::test]
async fn an_api_server_that_is_down_is_tried_until_it_is_back() {
    let world = World::new(&["web-0"]).await;
    world.state().api_down = true;
    let agent = world.start_agent("http://127.0.0.1:9").await;
    world.announce("terminate", 110);
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.state().api_down = false;
    let cordoned = world
        .until("the node is cordoned", |state| state.node["spec"]["unschedulable"] == true)
        .await;
    assert!(cordoned < Duration::from_secs(3), "cordoned after {cordoned:?}");
    world.until("the pod is evicted", |state| !state.evicted.is_empty()).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_directive_drains_only_a_node_that_bears_it_and_leaders_hear_of_it() {
    let world = World::new(&["web-0"]).await;
    world.state().directives = json!([{"disruption": "d-1", "deadline": null}]);
    // The first leader is down: reports and polls go to the second.
    let leaders = format!("http://127.0.0.1:9,{}", world.url());
    let agent = world.start_agent(&leaders).await;
    world.until("a report arrives", |state| !state.reports.is_empty()).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(world.state().evicted.is_empty(), "the Node bears no mark yet");
    world.change_node(json!({
        "metadata": {"annotations": {labels::DISRUPTION: "d-1"}},
        "spec": {"taints": [{"key": labels::DISRUPTED_TAINT, "effect": "NoSchedule"}]},
    }));
    world.until("the pod is evicted", |state| !state.evicted.is_empty()).await;
    world
        .until("the drain is reported as done", |state| {
            state.reports.iter().any(|report| {
                report["drain"]["phase"] == "drained" && report["drain"]["disruption"] == "d-1"
            })
        })
        .await;
    let report = world.state().reports.last().cloned().unwrap();
    assert_eq!(report["node"], "n");
    assert_eq!(report["instance"], "i-0abc");
    assert_ne!(world.state().node["spec"]["unschedulable"], true, "only leaders taint for that");
    agent.stop().await;
}

#[tokio::test]
async fn a_restarted_agent_acts_on_the_kept_notice_while_imds_is_silent() {
    let world = World::new(&["web-0"]).await;
    let agent = world.start_agent("").await;
    world.announce("stop", 110);
    world.until("the node is cordoned", |state| state.node["spec"]["unschedulable"] == true).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    agent.stop().await;
    world.state().imds_down = true;
    world.change_node(json!({"spec": {"unschedulable": null}}));
    let agent = world.start_agent("").await;
    world.until("it is cordoned again", |state| state.node["spec"]["unschedulable"] == true).await;
    agent.stop().await;
}

#[tokio::test]
async fn histories_of_use_are_on_disk_when_the_agent_has_ended() {
    let world = World::new(&[]).await;
    let config = Config { report_interval: Duration::from_secs(1), ..world.config(world.url()) };
    let agent = world.start_agent_with(config);
    world
        .until("use is reported", |state| {
            state.reports.iter().any(|report| !report["usage"].is_null())
        })
        .await;
    agent.stop().await;
    assert!(world.folder().join("usage.json").exists());
}

#[tokio::test]
async fn a_clock_that_is_set_while_the_agent_restarts_takes_no_time_from_pods() {
    let world = World::new(&["web-0"]).await;
    world.state().budget_blocks = true;
    let agent = world.start_agent("").await;
    world.announce("terminate", 110);
    world.until("the pod may not go", |state| state.refused > 0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    agent.stop().await;
    // So it had been kept by a clock of an hour ago.
    let path = world.folder().join("notices.json");
    let mut kept: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for pointer in ["/notices/0/deadline", "/notices/0/detected_at", "/clock/wall"] {
        let time = kept.pointer_mut(pointer).unwrap();
        let earlier: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
        *time = json!((earlier - jiff::SignedDuration::from_hours(1)).to_string());
    }
    std::fs::write(&path, kept.to_string()).unwrap();
    world.state().imds_down = true;
    world.state().refused = 0;
    let agent = world.start_agent("").await;
    world.until("the pod may still not go", |state| state.refused > 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.state().deleted, Vec::<String>::new(), "there is time yet");
    agent.stop().await;
}

#[tokio::test]
async fn a_cordon_is_taken_back_when_the_notice_is_gone() {
    let world = World::new(&[]).await;
    let agent = world.start_agent("").await;
    world.until("the agent watches", |state| state.watches >= 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.announce("stop", 110);
    world.until("the node is cordoned", |state| state.node["spec"]["unschedulable"] == true).await;
    world.state().notice = None;
    world
        .until("the cordon is gone", |state| {
            state.node["spec"].get("unschedulable").is_none()
                && state.node["metadata"]["annotations"] == json!({})
                && state.node["metadata"]["labels"] == json!({})
        })
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_machine_that_is_cut_off_is_powered_off_in_time() {
    let world = World::new(&["web-0"]).await;
    let machine = FakeMachine::start(&world.host());
    let agent = world.start_agent("").await;
    world.until("the agent watches", |state| state.watches >= 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.state().api_down = true;
    // Its pod's grace is 5 s, and 5 s are kept in reserve.
    world.announce("terminate", 18);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(machine.powered_off(), 0, "there is time yet");
    world.until("the machine is powered off", |_| machine.powered_off() > 0).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_shutdown_of_the_machine_waits_for_the_drain() {
    let world = World::new(&["web-0", "web-1"]).await;
    let machine = FakeMachine::start(&world.host());
    let agent = world.start_agent("").await;
    world
        .until("the agent watches and delays", |state| state.watches >= 2 && machine.locks() == 1)
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.state().budget_blocks = true;
    machine.shut_down(true).await;
    world.until("both pods may not go", |state| state.refused >= 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(machine.locks(), 1, "there are pods yet");
    world.state().budget_blocks = false;
    world.until("both pods are evicted", |state| state.evicted.len() == 2).await;
    assert_eq!(world.state().node["spec"]["unschedulable"], true);
    world.until("the shutdown may go on", |_| machine.locks() == 0).await;
    machine.shut_down(false).await;
    world
        .until("the machine stays, and the cordon is gone", |state| {
            state.node["spec"].get("unschedulable").is_none() && machine.locks() == 1
        })
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn kubelet_and_gpus_are_reported_where_the_kernel_shows_no_pods() {
    let world = World::new(&["web-0", "web-1"]).await;
    world.run_pods();
    world.state().node["status"]["capacity"]["nvidia.com/gpu"] = json!("1");
    let config = Config {
        usage_source: SourceChoice::Auto,
        kubelet_url: Some(world.url().parse().unwrap()),
        kubelet_trust: KubeletTrust::Unverified,
        kubelet_interval: Duration::from_secs(1),
        gpu_metrics: GpuChoice::OnceThereAre(format!("{}/metrics/gpu", world.url())),
        report_interval: Duration::from_secs(1),
        ..world.config(world.url())
    };
    let agent = world.start_agent_with(config);
    let last = |state: &State| state.reports.last().map(|report| report["usage"].clone());
    world
        .until("the pod's CPU and GPU are reported", |state| {
            last(state).is_some_and(|usage| usage["pods"][0]["gpu"]["busy_permille"] == 750)
        })
        .await;
    let usage = last(&world.state()).unwrap();
    assert_eq!(usage["source"], "kubelet");
    // The kernel's word on the node stays: its files here stand still.
    assert_eq!(
        (&usage["cpu_milli_mean"], &usage["memory_working_set"]),
        (&json!(0), &json!(61_440))
    );
    assert_eq!(usage["gpu"], json!({"count": 1, "busy_permille": 750, "memory_used": 10 << 20}));
    let pod = &usage["pods"][0];
    assert_eq!(
        (&pod["uid"], &pod["memory_working_set"]),
        (&json!("u-web-0"), &json!(1_000_000_000))
    );
    assert!((900..=1_100).contains(&pod["cpu_milli_mean"].as_u64().unwrap()), "{pod}");
    agent.stop().await;
}
