//! Agents on the machines of a simulated cloud, without any leader.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod eks;
mod herd;
mod usage;

use std::time::Duration;

use drover_common::id::InstanceId;
use herd::{Herd, PODS, deployment, until};

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
