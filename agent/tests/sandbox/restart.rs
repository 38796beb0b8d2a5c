//! Machines that are stopped and started again: the same instance and Node, another boot.

use drover_common::ec2::InstanceState;
use drover_common::id::InstanceId;
use drover_common::labels;
use drover_sandbox::world::cloud::SpotAction;
use serde_json::{Value, json};

use super::herd::{Herd, NODES, until};

const PATCH: &str = "application/merge-patch+json";

impl Herd {
    async fn node(&self, name: &str) -> Value {
        let path = format!("/api/v1/nodes/{name}");
        let request = axum::http::Request::get(path).body(Vec::new()).unwrap();
        self.client.request(request).await.unwrap()
    }

    async fn cordon(&self, name: &str) {
        let patch = json!({"spec": {"unschedulable": true}}).to_string();
        let request = axum::http::Request::patch(format!("/api/v1/nodes/{name}"))
            .header("content-type", PATCH)
            .body(patch.into_bytes())
            .unwrap();
        self.client.request_text(request).await.unwrap();
    }

    fn state(&self, instance: &InstanceId) -> InstanceState {
        let state = |cloud: &drover_sandbox::world::cloud::Cloud| {
            cloud.instance(instance).map(|instance| instance.state)
        };
        self.sandbox.world().with(|world, _| state(&world.cloud)).unwrap()
    }

    /// What the kernel of an instance says; the simulated one's files follow the machine.
    fn boot_of(&self, instance: &InstanceId) -> String {
        let root = self.folder.path().join("hosts").join(instance.as_str());
        let read = std::fs::read_to_string(root.join("proc/sys/kernel/random/boot_id"));
        read.unwrap_or_default().trim().to_owned()
    }

    /// What the agent of an instance has on disk.
    fn kept(&self, instance: &InstanceId) -> Value {
        let path = self.folder.path().join("state").join(instance.as_str()).join("notices.json");
        let kept = std::fs::read(path).unwrap_or_default();
        serde_json::from_slice(&kept).unwrap_or_default()
    }
}

fn is_cordoned(node: &Value) -> bool {
    node["spec"]["unschedulable"] == true
}

fn bears_mark(node: &Value) -> bool {
    node["metadata"]["annotations"].get(labels::CORDONED).is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_starts_again_forgets_the_notice_and_takes_back_its_own_cordon() {
    let herd = Herd::start().await;
    let instances: Vec<InstanceId> = herd.launch().into_iter().take(2).collect();
    until("all nodes join", 30, async || herd.list("/api/v1/nodes").await.len() == NODES as usize)
        .await;
    let mut nodes = Vec::new();
    for instance in &instances {
        nodes.push(herd.node_of(instance).await);
    }
    // The second one's operator had a reason of his own.
    herd.cordon(&nodes[1]).await;
    let mut machines = Vec::new();
    for (instance, node) in instances.iter().zip(&nodes) {
        machines.push(herd.start_agent_of_a_machine(instance, node));
    }
    let mut boots = Vec::new();
    for instance in &instances {
        until("the agent keeps its boot", 20, async || herd.kept(instance)["boot"].is_string())
            .await;
        boots.push(herd.kept(instance)["boot"].clone());
    }
    let lead = jiff::SignedDuration::from_secs(8);
    for instance in &instances {
        herd.sandbox
            .world()
            .with(|world, now| world.cloud.announce(instance, SpotAction::Stop, now, lead))
            .expect("the instance is a spot instance");
    }
    for (instance, node) in instances.iter().zip(&nodes) {
        until("the agent cordons", 10, async || {
            let node = herd.node(node).await;
            is_cordoned(&node) && bears_mark(&node)
        })
        .await;
        until("the machine stops", 30, async || herd.state(instance) != InstanceState::Running)
            .await;
    }
    machines.iter().for_each(tokio_util::sync::CancellationToken::cancel);
    for instance in &instances {
        until("the machine is off", 60, async || herd.state(instance) == InstanceState::Stopped)
            .await;
        assert_eq!(herd.kept(instance)["notices"][0]["kind"], "spot-stop");
    }

    for instance in &instances {
        herd.sandbox
            .world()
            .with(|world, now| world.cloud.resume(instance, now))
            .expect("the instance is stopped");
    }
    for ((instance, node), boot) in instances.iter().zip(&nodes).zip(&boots) {
        until("the kubelet is back", 30, async || {
            let node = herd.node(node).await;
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True");
            ready && node["status"]["nodeInfo"]["bootID"] != *boot
        })
        .await;
        until("the kernel is another boot's", 10, async || herd.boot_of(instance) != *boot).await;
        let node = herd.node(node).await;
        assert!(is_cordoned(&node) && bears_mark(&node), "who should have taken it back?");
        assert_eq!(herd.state(instance), InstanceState::Running);
    }
    for (instance, node) in instances.iter().zip(&nodes) {
        herd.start_agent_of_a_machine(instance, node);
        until("the mark is gone", 10, async || !bears_mark(&herd.node(node).await)).await;
    }
    assert!(!is_cordoned(&herd.node(&nodes[0]).await), "the agent's cordon");
    assert!(is_cordoned(&herd.node(&nodes[1]).await), "the operator's cordon");
    for (instance, boot) in instances.iter().zip(&boots) {
        until("the notice of the earlier boot is forgotten", 10, async || {
            let kept = herd.kept(instance);
            kept["notices"] == json!([]) && kept["boot"] != *boot && kept["boot"].is_string()
        })
        .await;
    }
    // It stays so: no question to IMDS brings the notice back.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(!is_cordoned(&herd.node(&nodes[0]).await));
    herd.shutdown.cancel();
}
