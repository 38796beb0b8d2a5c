//! Agents on the machines of a simulated cloud, without any leader.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod eks;
mod herd;
mod restart;
mod usage;

use std::time::Duration;

use drover_common::id::InstanceId;
use drover_sandbox::world::faults::{Face, Fault, FaultEffect};
use herd::{Herd, NODES, PODS, deployment, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spot_notice_empties_its_node_and_no_other() {
    let herd = Herd::start().await;
    let instances = herd.launch();
    herd.post("/apis/apps/v1/namespaces/default/deployments", deployment()).await;
    until("all nodes join", 30, async || herd.list("/api/v1/nodes").await.len() == instances.len())
        .await;
    for instance in &instances {
        herd.start_agent(instance, &herd.node_of(instance).await);
    }
    until("all pods are bound", 30, async || {
        let pods = herd.list("/api/v1/pods").await;
        pods.len() == PODS && pods.iter().all(|pod| pod["spec"]["nodeName"].is_string())
    })
    .await;
    let mut victim = (InstanceId::default(), String::new(), 0);
    for instance in &instances {
        let node = herd.node_of(instance).await;
        let pods = herd.pods_on(&node).await;
        if pods > victim.2 {
            victim = (instance.clone(), node, pods);
        }
    }
    let (instance, node, pods) = victim;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let lead = jiff::SignedDuration::from_secs(110);
    herd.sandbox
        .world()
        .with(|world, now| world.cloud.interrupt(&instance, now, lead))
        .expect("the instance is a spot instance");
    let path = format!("/api/v1/nodes?fieldSelector=metadata.name%3D{node}");
    let cordoned = until("the node is cordoned", 5, async || {
        herd.list(&path).await.iter().any(|node| node["spec"]["unschedulable"] == true)
    })
    .await;
    assert!(cordoned < Duration::from_millis(1_500), "cordoned after {cordoned:?}");
    until("the pods leave", 10, async || herd.pods_on(&node).await == 0).await;
    let elsewhere = herd.list("/api/v1/nodes").await;
    let cordoned = elsewhere.iter().filter(|node| node["spec"]["unschedulable"] == true).count();
    assert_eq!(cordoned, 1, "the other agents left their nodes alone ({pods} pods moved)");
    herd.shutdown.cancel();
}

/// How long the Node of a spot instance with a notice takes to be cordoned while its metadata service misbehaves.
async fn cordoned_in_spite_of(effect: FaultEffect) -> Duration {
    let herd = Herd::start().await;
    let instance = herd.launch().remove(0);
    until("all nodes join", 30, async || herd.list("/api/v1/nodes").await.len() == NODES as usize)
        .await;
    let node = herd.node_of(&instance).await;
    herd.start_agent(&instance, &node);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let fault = Fault {
        face: Face::Imds,
        operation: "GET latest/meta-data/spot/instance-action".to_owned(),
        effect,
        probability: 1.0,
        remaining: Some(2),
    };
    // The world's clock is fast, and its machine is to outlive the faults.
    let lead = jiff::SignedDuration::from_mins(20);
    herd.sandbox
        .world()
        .with(|world, now| {
            world.faults.add(fault);
            world.cloud.interrupt(&instance, now, lead)
        })
        .expect("the instance is a spot instance");
    let path = format!("/api/v1/nodes?fieldSelector=metadata.name%3D{node}");
    let took = until("the node is cordoned", 15, async || {
        herd.list(&path).await.iter().any(|node| node["spec"]["unschedulable"] == true)
    })
    .await;
    let faults_left = herd.sandbox.world().with(|world, _| world.faults.iter().count());
    assert_eq!(faults_left, 0, "each answer was spoilt");
    herd.shutdown.cancel();
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_that_is_cut_off_is_read_once_it_is_whole() {
    let took = cordoned_in_spite_of(FaultEffect::CutBody).await;
    assert!(took > Duration::from_millis(500), "two answers were no notice: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_that_comes_too_slowly_is_asked_for_again() {
    let took = cordoned_in_spite_of(FaultEffect::SlowBody { milliseconds: 60_000 }).await;
    assert!(took > Duration::from_secs(1), "they were given up: {took:?}");
}
