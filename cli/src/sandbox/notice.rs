//! How soon a spot notice is acted on: from the moment IMDS answers with it to what shows at the API
//! server and at EC2. Looked at inside the simulated world, where both are, so that no client's
//! polling adds to the figures.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use drover_common::id::InstanceId;
use drover_sandbox::world::World;
use drover_sandbox::world::faults::{Face, Fault, FaultEffect};
use drover_sandbox::world::resource::Resource;
use jiff::SignedDuration;
use serde_json::Value;

use super::tour::{Progress, wait};
use super::{Stage, manifests};
use crate::args::NoticeArgs;

/// What EC2 promises.
const LEAD: SignedDuration = SignedDuration::from_secs(120);
/// A node that has done nothing after so long counts as one that never did.
const PATIENCE: Duration = Duration::from_secs(15);
/// Replacements join in this time; waiting for it keeps one node's news apart from the next one's.
const LULL: Duration = Duration::from_millis(700);
/// How long the world may be unwatched if it says of no change.
const LOOK: Duration = Duration::from_millis(20);

const NODES: Resource = Resource::new("", "nodes");
const PODS: Resource = Resource::new("", "pods");

/// Spot nodes of one size, and pods of which three fill a node.
fn manifests_for(nodes: u32) -> String {
    let pods = nodes.saturating_mul(3);
    format!(
        r#"
apiVersion: karpenter.k8s.aws/v1
kind: EC2NodeClass
metadata: {{name: default}}
spec:
  role: KarpenterNodeRole-drover-sandbox
  amiSelectorTerms: [{{alias: al2023@latest}}]
  subnetSelectorTerms: [{{tags: {{karpenter.sh/discovery: drover-sandbox}}}}]
  securityGroupSelectorTerms: [{{tags: {{karpenter.sh/discovery: drover-sandbox}}}}]
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {{name: spot}}
spec:
  disruption: {{consolidationPolicy: WhenEmpty, consolidateAfter: Never}}
  template:
    spec:
      nodeClassRef: {{group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}}
      requirements:
        - {{key: karpenter.k8s.aws/instance-cpu, operator: In, values: ["4"]}}
        - {{key: karpenter.k8s.aws/instance-category, operator: In, values: [c, m, r]}}
        - {{key: karpenter.sh/capacity-type, operator: In, values: [spot]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: filler, namespace: default}}
spec:
  replicas: {pods}
  selector: {{matchLabels: {{app: filler}}}}
  template:
    metadata: {{labels: {{app: filler}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: filler
          image: registry.example/filler:1
          resources: {{requests: {{cpu: 1100m, memory: 256Mi}}}}
"#
    )
}

/// Fills the cluster, interrupts node after node, and prints the figures. Returns whether every node
/// was cordoned.
pub(crate) async fn run(stage: &Stage, args: &NoticeArgs) -> anyhow::Result<bool> {
    let mut errors = Vec::new();
    let documents = manifests::parse("bench", &manifests_for(args.nodes), &mut errors);
    let applied = manifests::apply(stage.cluster.client(), &documents).await;
    errors.extend(applied.errors);
    anyhow::ensure!(errors.is_empty(), "{}", errors.join("; "));
    let wanted = args.nodes as usize * 3;
    wait(stage, Duration::from_secs(900), |snapshot| {
        let (total, ready) = snapshot.readiness();
        let nodes = snapshot.managed_nodes().count();
        let done = ready == total && total == wanted;
        Progress::new(done, format!("{ready} of {wanted} pods ready on {nodes} nodes"))
    })
    .await?;
    // Agents start a little after their nodes.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let victims = victims(stage, args.nodes as usize);
    anyhow::ensure!(!victims.is_empty(), "there is no spot node with pods");
    stage.narrator.print(&format!("\n{} nodes, one agent each", victims.len()));
    if args.without_leaders {
        stage.leaders.stop().await;
        stage.narrator.print("every leader is stopped");
    }
    let mut figures = Figures::default();
    let wants_fleet = !args.without_leaders;
    match args.api_down {
        None => {
            for (index, (instance, node)) in victims.iter().enumerate() {
                let seen = interrupt(stage, instance, node, wants_fleet).await?;
                figures.add(seen);
                stage.narrator.progress(&format!("{} of {}", index + 1, victims.len()));
                // The polls of the next node are met at any point of their period.
                let apart = Duration::from_millis(u64::try_from(index * 137 % 500).unwrap_or(0));
                tokio::time::sleep(LULL + apart).await;
            }
        }
        Some(down) => {
            let id = stage.sandbox.world().with(|world, _| {
                let effect = FaultEffect::Error {
                    status: 503,
                    code: "ServiceUnavailable".to_owned(),
                    message: "down for the benchmark".to_owned(),
                };
                let operation = String::new();
                let (probability, remaining) = (1.0, None);
                let face = Face::Kubernetes;
                world.faults.add(Fault { face, operation, effect, probability, remaining })
            });
            let mut waiting = Vec::new();
            for (instance, node) in &victims {
                announce(stage, instance)?;
                waiting.push(node.clone());
            }
            tokio::time::sleep(down).await;
            stage.sandbox.world().with(|world, _| world.faults.remove(id));
            figures = all_at_once(stage, &waiting).await;
        }
    }
    figures.print(stage, victims.len());
    Ok(figures.cordon.len() == victims.len())
}

/// Spot nodes with pods that would move, and their instances.
fn victims(stage: &Stage, most: usize) -> Vec<(InstanceId, String)> {
    stage.sandbox.world().with(|world, _| {
        let busy: BTreeSet<String> = world
            .store
            .iter(&PODS)
            .filter_map(|(_, pod)| Some(pod.pointer("/spec/nodeName")?.as_str()?.to_owned()))
            .collect();
        world
            .cloud
            .instances()
            .filter(|instance| !instance.state.is_gone())
            .map(|instance| (instance.id.clone(), instance.private_dns_name()))
            .filter(|(_, node)| busy.contains(node))
            .take(most)
            .collect()
    })
}

fn announce(stage: &Stage, instance: &InstanceId) -> anyhow::Result<Instant> {
    let told = stage.sandbox.world().with(|world, now| {
        let told = world.cloud.interrupt(instance, now, LEAD);
        (told, Instant::now())
    });
    told.0?;
    Ok(told.1)
}

/// When what was seen first, since the notice.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    cordon: Option<Duration>,
    eviction: Option<Duration>,
    fleet: Option<Duration>,
}

async fn interrupt(
    stage: &Stage,
    instance: &InstanceId,
    node: &str,
    wants_fleet: bool,
) -> anyhow::Result<Seen> {
    let world = stage.sandbox.world();
    let mut revisions = world.revisions();
    let fleets = world.with(|world, _| fleets(world));
    let start = announce(stage, instance)?;
    let mut seen = Seen::default();
    while start.elapsed() < PATIENCE {
        world.with(|world, _| {
            let at = start.elapsed();
            if seen.cordon.is_none() && is_cordoned(world, node) {
                seen.cordon = Some(at);
            }
            if seen.eviction.is_none() && has_leaving_pod(world, node) {
                seen.eviction = Some(at);
            }
            if seen.fleet.is_none() && self::fleets(world) > fleets {
                seen.fleet = Some(at);
            }
        });
        let complete = seen.cordon.is_some() && seen.eviction.is_some();
        if complete && (seen.fleet.is_some() || !wants_fleet) {
            break;
        }
        // EC2's books have no revision of their own.
        let _changed = tokio::time::timeout(LOOK, revisions.changed()).await;
    }
    Ok(seen)
}

/// Cordons and evictions of many nodes, counted from now.
async fn all_at_once(stage: &Stage, nodes: &[String]) -> Figures {
    let world = stage.sandbox.world();
    let start = Instant::now();
    let mut figures = Figures::default();
    let mut cordoned = BTreeSet::new();
    let mut evicting = BTreeSet::new();
    while start.elapsed() < PATIENCE
        && (cordoned.len() < nodes.len() || evicting.len() < nodes.len())
    {
        world.with(|world, _| {
            let at = start.elapsed();
            for node in nodes {
                if !cordoned.contains(node) && is_cordoned(world, node) {
                    cordoned.insert(node.clone());
                    figures.cordon.push(at);
                }
                if !evicting.contains(node) && has_leaving_pod(world, node) {
                    evicting.insert(node.clone());
                    figures.eviction.push(at);
                }
            }
        });
        tokio::time::sleep(LOOK).await;
    }
    figures
}

fn is_cordoned(world: &World, node: &str) -> bool {
    let node = world.store.find(&NODES, "", node);
    node.is_some_and(|node| node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)))
}

fn has_leaving_pod(world: &World, node: &str) -> bool {
    world.store.iter(&PODS).any(|(_, pod)| {
        pod.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node)
            && pod.pointer("/metadata/deletionTimestamp").is_some()
    })
}

fn fleets(world: &World) -> u64 {
    world.cloud.audit().calls.get("CreateFleet").copied().unwrap_or(0)
}

#[derive(Debug, Default)]
struct Figures {
    cordon: Vec<Duration>,
    eviction: Vec<Duration>,
    fleet: Vec<Duration>,
}

impl Figures {
    fn add(&mut self, seen: Seen) {
        self.cordon.extend(seen.cordon);
        self.eviction.extend(seen.eviction);
        self.fleet.extend(seen.fleet);
    }

    fn print(&mut self, stage: &Stage, nodes: usize) {
        for (name, times) in [
            ("cordon visible at the API server", &mut self.cordon),
            ("first pod evicted", &mut self.eviction),
            ("replacement's CreateFleet", &mut self.fleet),
        ] {
            times.sort_unstable();
            let at = |share: usize| {
                let index = (times.len() * share / 100).min(times.len().saturating_sub(1));
                times.get(index).copied().unwrap_or_default().as_secs_f64()
            };
            stage.narrator.print(&format!(
                "{name:<34} {:>4} of {nodes}: p50 {:.3} s, p99 {:.3} s, max {:.3} s",
                times.len(),
                at(50),
                at(99),
                at(100)
            ));
        }
    }
}
