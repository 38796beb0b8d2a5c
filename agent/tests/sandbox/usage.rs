//! What agents measure, as a leader hears it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use drover_common::id::InstanceId;
use drover_common::protocol::{Report, UsageSource};
use serde_json::json;

use crate::herd::{Herd, PODS, deployment, until};

/// Reports as a leader hears them.
async fn listen() -> (String, Arc<Mutex<Vec<Report>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    let take = async move |axum::Json(report): axum::Json<Report>| {
        kept.lock().unwrap().push(report);
        axum::Json(json!({"committed": true, "directives": []}))
    };
    let router = axum::Router::new().route("/agent/v1/reports", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_tells_what_the_kernel_does_not() {
    let herd = Herd::start().await;
    herd.launch();
    herd.post("/apis/apps/v1/namespaces/default/deployments", deployment()).await;
    until("all pods run", 30, async || {
        let pods = herd.list("/api/v1/pods").await;
        pods.len() == PODS && pods.iter().all(|pod| pod["status"]["phase"] == "Running")
    })
    .await;
    let nodes = herd.list("/api/v1/nodes").await;
    let mut node = String::new();
    for candidate in &nodes {
        let name = candidate["metadata"]["name"].as_str().unwrap();
        if herd.pods_on(name).await > 0 {
            name.clone_into(&mut node);
        }
    }
    let id = nodes.iter().find(|found| found["metadata"]["name"] == *node).unwrap()["spec"]
        ["providerID"]
        .as_str()
        .and_then(|id| id.rsplit('/').next())
        .unwrap()
        .to_owned();
    let (leader, heard) = listen().await;
    let kubelet = format!("{}/{node}", herd.sandbox.endpoints().kubelet);
    let mut config = herd.config(
        &InstanceId::from(id.as_str()),
        &node,
        &["--leaders", &leader, "--kubelet-insecure", "--kubelet-url", &kubelet],
    );
    // Neither /proc nor control groups are there.
    config.host_root = herd.folder.path().join("nothing");
    config.report_interval = Duration::from_secs(1);
    config.kubelet_interval = Duration::from_secs(1);
    let agent = tokio::spawn(drover_agent::run(config, herd.shutdown.clone()));
    until("the kubelet's word is reported", 30, async || {
        let reports = heard.lock().unwrap();
        reports.iter().any(|report| {
            report.usage.as_ref().is_some_and(|usage| {
                usage.source == UsageSource::Kubelet && usage.cpu_milli_mean > 0
            })
        })
    })
    .await;
    let pods = herd.list("/api/v1/pods").await;
    let uids: Vec<&str> = pods
        .iter()
        .filter(|pod| pod["spec"]["nodeName"] == *node)
        .map(|pod| pod["metadata"]["uid"].as_str().unwrap())
        .collect();
    let told = heard.lock().unwrap().iter().find_map(|report| {
        report.usage.clone().filter(|usage| usage.source == UsageSource::Kubelet)
    });
    let mut told = told.unwrap();
    told.pods.sort_by(|one, other| one.uid.cmp(&other.uid));
    let mut expected = uids.clone();
    expected.sort_unstable();
    let named: Vec<&str> = told.pods.iter().map(|pod| pod.uid.as_str()).collect();
    assert_eq!(named, expected);
    for pod in &told.pods {
        // Half of 200m, swaying by a tenth; half of 128 MiB.
        assert!((85..=115).contains(&pod.cpu_milli_mean), "{pod:?}");
        assert_eq!(pod.memory_working_set, 64 << 20);
    }
    assert!(told.cpu_milli_mean >= 85 * told.pods.len() as u64, "{told:?}");
    herd.shutdown.cancel();
    agent.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_use_is_reported_by_name() {
    let herd = Herd::start().await;
    herd.launch();
    let mut two = deployment();
    two["spec"]["template"]["spec"]["containers"] = json!([
        {"name": "web", "image": "web", "resources": {"requests": {"cpu": "300m", "memory": "96Mi"}}},
        {"name": "log", "image": "log", "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}}},
    ]);
    two["spec"]["replicas"] = json!(4);
    herd.post("/apis/apps/v1/namespaces/default/deployments", two).await;
    let mut pods = Vec::new();
    until("all pods run", 30, async || {
        pods = herd.list("/api/v1/pods").await;
        pods.len() == 4 && pods.iter().all(|pod| pod["status"]["phase"] == "Running")
    })
    .await;
    let node = pods[0]["spec"]["nodeName"].as_str().unwrap();
    let nodes = herd.list("/api/v1/nodes").await;
    let found = nodes.iter().find(|found| found["metadata"]["name"] == node).unwrap();
    let id = found["spec"]["providerID"].as_str().and_then(|id| id.rsplit('/').next()).unwrap();
    let (leader, heard) = listen().await;
    let mut config = herd.config(&InstanceId::from(id), node, &["--leaders", &leader]);
    config.report_interval = Duration::from_secs(2);
    let agent = tokio::spawn(drover_agent::run(config, herd.shutdown.clone()));
    let uid = pods[0]["metadata"]["uid"].as_str().unwrap();
    let mut told = None;
    until("containers are reported", 60, async || {
        let reports = heard.lock().unwrap();
        let usage = reports.iter().rev().filter_map(|report| report.usage.as_ref());
        let pod = usage.flat_map(|usage| &usage.pods).find(|pod| pod.uid == uid);
        told = pod.filter(|pod| pod.memory_peak.is_some() && pod.containers.len() == 2).cloned();
        told.is_some()
    })
    .await;
    let pod = told.unwrap();
    let by_name = |name: &str| pod.containers.iter().find(|one| one.name == name).unwrap();
    let (web, log) = (by_name("web"), by_name("log"));
    // Half of what they request, give or take what moments of writing and reading blur.
    assert!((90..=220).contains(&web.cpu_milli_mean), "{pod:?}");
    assert!((30..=75).contains(&log.cpu_milli_mean), "{pod:?}");
    assert!(web.memory_working_set.abs_diff(48 << 20) < 1 << 20, "{pod:?}");
    assert!(log.memory_working_set.abs_diff(16 << 20) < 1 << 20, "{pod:?}");
    assert!(pod.disk_bytes_per_second.is_some_and(|rates| rates.iter().all(|rate| *rate > 0)));
    herd.shutdown.cancel();
    agent.await.unwrap().unwrap();
}
