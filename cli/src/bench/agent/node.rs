//! A simulated node full of pods.

use std::time::Duration;

use anyhow::Context;
use drover_common::call::{Call, Kind, Outcome, Target};
use drover_common::ec2::{
    Ec2Answer, Ec2Call, FleetOverride, FleetRequest, LaunchTemplateRequest, MetadataOptions, Tags,
};
use drover_common::instance_type::CapacityType;
use drover_sandbox::{Options, Sandbox};
use serde_json::{Value, json};

use crate::sandbox::in_world;

const USER_DATA: &str = "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec: {kubelet: {config: {maxPods: 110}}}\n";
const JOIN: Duration = Duration::from_secs(60);

pub(super) struct Node {
    pub(super) name: String,
    pub(super) instance: String,
    pub(super) imds: String,
    pub(super) kubernetes: String,
    pub(super) pods: Vec<Running>,
    sandbox: Sandbox,
}

impl Node {
    pub(super) async fn start(pods: u32) -> anyhow::Result<Self> {
        let mut options = Options::default();
        options.world.speed = 10.0;
        let sandbox = Sandbox::start(options).await.context("sandbox")?;
        let instance = launch(&sandbox)?;
        let name = joined(&sandbox).await?;
        for index in 0..pods {
            create_pod(&sandbox, &name, index)?;
        }
        let pods = running(&sandbox, pods).await?;
        let endpoints = sandbox.endpoints();
        let (imds, kubernetes) = (endpoints.imds.clone(), endpoints.kubernetes.clone());
        Ok(Self { name, instance, imds, kubernetes, pods, sandbox })
    }

    /// A kubeconfig that leads to `server` in place of the sandbox.
    pub(super) fn kubeconfig(&self, server: &str) -> String {
        self.sandbox.kubeconfig().replace(&self.kubernetes, server)
    }
}

fn apply(sandbox: &Sandbox, call: &Call) -> Outcome {
    sandbox.world().with(|world, now| world.apply(call, now))
}

fn ec2(sandbox: &Sandbox, call: Ec2Call) -> anyhow::Result<Ec2Answer> {
    match apply(sandbox, &Call::Ec2(call)) {
        Outcome::Ec2(Ok(answer)) => Ok(answer),
        other => anyhow::bail!("EC2 answered {other:?}"),
    }
}

/// Launches one instance and returns its id.
fn launch(sandbox: &Sandbox) -> anyhow::Result<String> {
    let parameter = "/aws/service/eks/optimized-ami/1.34/amazon-linux-2023/x86_64/standard/recommended/image_id";
    let Ec2Answer::Parameter(image) = ec2(sandbox, Ec2Call::GetParameter(parameter.to_owned()))?
    else {
        anyhow::bail!("there is no image")
    };
    let text = str::to_owned;
    ec2(
        sandbox,
        Ec2Call::CreateLaunchTemplate(LaunchTemplateRequest {
            name: text("bench"),
            image,
            security_groups: Vec::new(),
            instance_profile: None,
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
        }),
    )?;
    let Ec2Answer::Subnets(subnets) = ec2(sandbox, Ec2Call::DescribeSubnets(Vec::new()))? else {
        anyhow::bail!("there are no subnets")
    };
    let subnet = subnets.first().context("there is no subnet")?;
    let place = FleetOverride {
        instance_type: text("m5.4xlarge"),
        subnet: subnet.id.clone(),
        zone: subnet.zone.clone(),
        image: None,
    };
    let answer = ec2(
        sandbox,
        Ec2Call::CreateFleet(FleetRequest {
            client_token: text("bench"),
            launch_template: text("bench"),
            overrides: vec![place],
            capacity_type: CapacityType::OnDemand,
            capacity_block: false,
            prioritized: false,
            count: 1,
            tags: Tags::new(),
            context: None,
        }),
    )?;
    let Ec2Answer::Fleet(fleet) = answer else { anyhow::bail!("no fleet: {answer:?}") };
    let launched = fleet.instances.first().context("nothing was launched")?;
    Ok(launched.instance.to_string())
}

async fn joined(sandbox: &Sandbox) -> anyhow::Result<String> {
    let nodes = drover_sandbox::world::resource::Resource::new("", "nodes");
    let look = async || loop {
        let name = sandbox.world().with(|world, _| {
            let (_, node) = world.store.iter(&nodes).next()?;
            node.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned)
        });
        match name {
            Some(name) => return name,
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    tokio::time::timeout(JOIN, look()).await.context("the node does not join")
}

/// A pod's UID, and its containers' ids.
pub(super) type Running = (String, Vec<String>);

/// The pods as their statuses name them, once all run.
async fn running(sandbox: &Sandbox, count: u32) -> anyhow::Result<Vec<Running>> {
    let pods = drover_sandbox::world::resource::Resource::new("", "pods");
    let text = |value: &Value, at: &str| value.pointer(at)?.as_str().map(str::to_owned);
    let names = |pod: &Value| {
        let statuses = pod.pointer("/status/containerStatuses")?.as_array()?;
        let id =
            |status: &Value| Some(text(status, "/containerID")?.split_once("://")?.1.to_owned());
        Some((text(pod, "/metadata/uid")?, statuses.iter().filter_map(id).collect()))
    };
    let look = async || loop {
        let running: Vec<Running> = sandbox
            .world()
            .with(|world, _| world.store.iter(&pods).filter_map(|(_, pod)| names(pod)).collect());
        if running.len() >= usize::try_from(count).unwrap_or(usize::MAX) {
            return running;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    tokio::time::timeout(JOIN, look()).await.context("the pods do not run")
}

fn create_pod(sandbox: &Sandbox, node: &str, index: u32) -> anyhow::Result<()> {
    let name = format!("web-{index}");
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "web", "image": "registry.example/web:1",
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}}}],
        },
    });
    let target = Target::namespaced(Kind::Pod, "default", name);
    in_world::create(sandbox.world(), target, object).map(drop)
}
