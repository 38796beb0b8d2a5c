//! A simulated node full of pods, and its control groups as the kernel shows them.

use std::fs;
use std::path::{Path, PathBuf};
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
/// How often counters grow.
const BEAT: Duration = Duration::from_secs(1);

pub(super) struct Node {
    pub(super) name: String,
    pub(super) instance: String,
    pub(super) imds: String,
    pub(super) kubernetes: String,
    /// Its `/`.
    pub(super) host: PathBuf,
    sandbox: Sandbox,
}

impl Node {
    pub(super) async fn start(folder: &Path, pods: u32) -> anyhow::Result<Self> {
        let mut options = Options::default();
        options.world.speed = 10.0;
        let sandbox = Sandbox::start(options).await.context("sandbox")?;
        let instance = launch(&sandbox)?;
        let name = joined(&sandbox).await?;
        for index in 0..pods {
            create_pod(&sandbox, &name, index)?;
        }
        let running = running(&sandbox, pods).await?;
        let host = folder.join("host");
        let cgroups = Cgroups::lay_out(&host, &running)?;
        tokio::task::spawn_blocking(move || cgroups.live());
        let endpoints = sandbox.endpoints();
        let (imds, kubernetes) = (endpoints.imds.clone(), endpoints.kubernetes.clone());
        Ok(Self { name, instance, imds, kubernetes, host, sandbox })
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
type Running = (String, Vec<String>);

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

/// Control groups as plain files, with the sizes and forms of a real kernel's.
struct Cgroups {
    /// Of pods, each with those of its containers.
    pods: Vec<(PathBuf, Vec<PathBuf>)>,
    host: PathBuf,
}

impl Cgroups {
    fn lay_out(host: &Path, pods: &[Running]) -> anyhow::Result<Self> {
        for folder in ["proc/pressure", "proc/net", "proc/sys/kernel/random"] {
            fs::create_dir_all(host.join(folder))?;
        }
        fs::write(host.join("proc/sys/kernel/random/boot_id"), "bench\n")?;
        fs::write(host.join("proc/meminfo"), "MemTotal: 64000000 kB\nMemAvailable: 32000000 kB\n")?;
        let net = "Inter-|   Receive\n face |bytes\n  eth0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n";
        fs::write(host.join("proc/net/dev"), net)?;
        fs::write(host.join("proc/diskstats"), " 259 0 nvme0n1 1 0 8 0 1 0 8 0 0 0 0\n")?;
        for name in ["cpu", "memory", "io"] {
            fs::write(host.join("proc/pressure").join(name), pressure(0))?;
        }
        let class = host.join("sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice");
        let mut folders = Vec::new();
        for (uid, ids) in pods {
            let uid = uid.replace('-', "_");
            let folder = class.join(format!("kubepods-burstable-pod{uid}.slice"));
            let scope = |id: &str| folder.join(format!("cri-containerd-{id}.scope"));
            let containers: Vec<PathBuf> = ids.iter().map(|id| scope(id)).collect();
            // That of the pause container, whose id no status has.
            fs::create_dir_all(scope(&"f".repeat(64)))?;
            let events = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n";
            for group in containers.iter().chain([&folder]) {
                fs::create_dir_all(group)?;
                fs::write(group.join("memory.events"), events)?;
                fs::write(group.join("memory.stat"), memory_stat())?;
            }
            let io = "259:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n";
            fs::write(folder.join("io.stat"), io)?;
            for name in ["cpu.pressure", "memory.pressure", "io.pressure"] {
                fs::write(folder.join(name), pressure(0))?;
            }
            folders.push((folder, containers));
        }
        let cgroups = Self { pods: folders, host: host.to_owned() };
        cgroups.beat(1)?;
        Ok(cgroups)
    }

    /// Lets the counters grow until the folder is gone.
    fn live(&self) {
        for beat in 2.. {
            std::thread::sleep(BEAT);
            if self.beat(beat).is_err() {
                return;
            }
        }
    }

    fn beat(&self, beat: u64) -> std::io::Result<()> {
        let stat = format!("cpu  {} 0 {} {} 0 0 0 0 0 0\n", beat * 300, beat * 50, beat * 1200);
        fs::write(self.host.join("proc/stat"), stat)?;
        for (index, (folder, containers)) in self.pods.iter().enumerate() {
            let usec = beat * (20_000 + 100 * u64::try_from(index).unwrap_or(0));
            let text = format!(
                "usage_usec {usec:016}\nuser_usec {usec:016}\nsystem_usec 0\ncore_sched.force_idle_usec 0\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\nnr_bursts 0\nburst_usec 0\n"
            );
            let memory = format!("{}\n", 100_000_000 + beat * 4096);
            for group in containers.iter().chain([folder]) {
                fs::write(group.join("cpu.stat"), &text)?;
                fs::write(group.join("memory.current"), &memory)?;
            }
        }
        Ok(())
    }
}

fn pressure(total: u64) -> String {
    let line = format!("avg10=0.00 avg60=0.00 avg300=0.00 total={total}");
    format!("some {line}\nfull {line}\n")
}

/// As long as a real one: about 50 lines.
fn memory_stat() -> String {
    let mut text = String::from("anon 52428800\nfile 20971520\n");
    for index in 0..24 {
        text.push_str(&format!("slab_of_some_kind_{index} 123456\n"));
    }
    text.push_str(
        "inactive_anon 0\nactive_anon 52428800\ninactive_file 10485760\nactive_file 10485760\n",
    );
    for index in 0..24 {
        text.push_str(&format!("workingset_of_kind_{index} 1234\n"));
    }
    text
}
