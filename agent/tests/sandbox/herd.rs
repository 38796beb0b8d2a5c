//! A simulated cloud with a few nodes, and agents for them.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use drover_common::call::{Call, Outcome};
use drover_common::ec2::{
    Ec2Answer, Ec2Call, FleetOverride, FleetRequest, LaunchTemplateRequest, MetadataOptions, Tags,
};
use drover_common::id::InstanceId;
use drover_common::instance_type::CapacityType;
use drover_kubernetes::Client;
use drover_sandbox::{Options, Sandbox};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) const NODES: u32 = 4;
pub(crate) const PODS: usize = 12;
pub(crate) const ROLE: &str = "node-role";
const USER_DATA: &str = "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec: {}\n";

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: drover_agent::Args,
}

pub(crate) struct Herd {
    pub(crate) sandbox: Sandbox,
    pub(crate) client: Client,
    pub(crate) shutdown: CancellationToken,
    pub(crate) folder: tempfile::TempDir,
}

impl Herd {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hosts = Some(folder.path().join("hosts"));
        let mut options = Options { hosts, ..Options::default() };
        options.world.speed = 20.0;
        let sandbox = Sandbox::start(options).await.unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, sandbox.kubeconfig()).unwrap();
        let client = drover_kubernetes::connect(Some(&kubeconfig), None).await.unwrap();
        Self { sandbox, client, shutdown: CancellationToken::new(), folder }
    }

    pub(crate) fn ec2(&self, call: Ec2Call) -> Ec2Answer {
        match self.sandbox.world().with(|world, now| world.apply(&Call::Ec2(call), now)) {
            Outcome::Ec2(Ok(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn launch(&self) -> Vec<InstanceId> {
        let path = "/aws/service/eks/optimized-ami/1.34/amazon-linux-2023/x86_64/standard/recommended/image_id";
        let Ec2Answer::Parameter(image) = self.ec2(Ec2Call::GetParameter(path.to_owned())) else {
            panic!("no image")
        };
        let text = str::to_owned;
        self.ec2(Ec2Call::CreateLaunchTemplate(LaunchTemplateRequest {
            name: text("template"),
            image,
            security_groups: Vec::new(),
            instance_profile: Some(text(ROLE)),
            user_data: text(USER_DATA),
            block_devices: Vec::new(),
            metadata_options: MetadataOptions {
                http_endpoint: text("enabled"),
                http_protocol_ipv6: text("disabled"),
                http_put_response_hop_limit: 1,
                http_tokens: text("required"),
            },
            detailed_monitoring: false,
            associate_public_ip: None,
            reservation: None,
            tags: Tags::new(),
        }));
        let Ec2Answer::Subnets(subnets) = self.ec2(Ec2Call::DescribeSubnets(Vec::new())) else {
            panic!("no subnets")
        };
        let place = |instance_type: &str| FleetOverride {
            instance_type: text(instance_type),
            subnet: subnets[0].id.clone(),
            zone: subnets[0].zone.clone(),
            image: None,
        };
        let answer = self.ec2(Ec2Call::CreateFleet(FleetRequest {
            client_token: text("token"),
            launch_template: text("template"),
            overrides: vec![place("m5.large"), place("m5.xlarge"), place("c5.xlarge")],
            capacity_type: CapacityType::Spot,
            capacity_block: false,
            prioritized: false,
            count: NODES,
            tags: Tags::new(),
            context: None,
        }));
        let Ec2Answer::Fleet(fleet) = answer else { panic!("no fleet") };
        fleet.instances.into_iter().map(|launched| launched.instance).collect()
    }

    pub(crate) async fn post(&self, path: &str, object: Value) {
        let request = axum::http::Request::post(path)
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .unwrap();
        self.client.request_text(request).await.unwrap();
    }

    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let request = axum::http::Request::get(path).body(Vec::new()).unwrap();
        let list: Value = self.client.request(request).await.unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) async fn node_of(&self, instance: &InstanceId) -> String {
        let nodes = self.list("/api/v1/nodes").await;
        let node = nodes.iter().find(|node| {
            node["spec"]["providerID"].as_str().is_some_and(|id| id.ends_with(instance.as_str()))
        });
        node.unwrap()["metadata"]["name"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn pods_on(&self, node: &str) -> usize {
        let pods = self.list("/api/v1/pods").await;
        let on_node = |pod: &&Value| {
            pod["spec"]["nodeName"] == node && pod["metadata"].get("deletionTimestamp").is_none()
        };
        pods.iter().filter(on_node).count()
    }

    pub(crate) fn config(
        &self,
        instance: &InstanceId,
        node: &str,
        more: &[&str],
    ) -> drover_agent::Config {
        let path = |name: &Path| self.folder.path().join(name).display().to_string();
        let imds = format!("{}/{instance}", self.sandbox.endpoints().imds);
        let host = path(&Path::new("hosts").join(instance.as_str()));
        let state = path(&Path::new("state").join(instance.as_str()));
        let kubeconfig = path(Path::new("kubeconfig"));
        let flags = [
            "drover-agent",
            "--node-name",
            node,
            "--imds-endpoint",
            &imds,
            "--host-root",
            &host,
            "--state-dir",
            &state,
            "--kubeconfig",
            &kubeconfig,
        ];
        let flags = flags.iter().chain(more);
        drover_agent::Config::try_from(Command::parse_from(flags).args).unwrap()
    }

    /// One that ends when its machine does.
    pub(crate) fn start_agent_of_a_machine(
        &self,
        instance: &InstanceId,
        node: &str,
    ) -> CancellationToken {
        let machine = self.shutdown.child_token();
        tokio::spawn(drover_agent::run(self.config(instance, node, &[]), machine.clone()));
        machine
    }

    pub(crate) fn start_agent(&self, instance: &InstanceId, node: &str) {
        tokio::spawn(drover_agent::run(self.config(instance, node, &[]), self.shutdown.clone()));
    }
}

/// Waits until the check holds; returns how long it took.
pub(crate) async fn until(
    what: &str,
    seconds: u64,
    mut holds: impl AsyncFnMut() -> bool,
) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(seconds), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

pub(crate) fn deployment() -> Value {
    let labels = json!({"app": "web"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": PODS,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 2,
                    "containers": [{"name": "web", "image": "web",
                        "resources": {"requests": {"cpu": "200m", "memory": "128Mi"}}}],
                },
            },
        },
    })
}
