//! Filling a sandbox and reading what its processes hold.

use std::time::Duration;

use super::tour::{Progress, wait};
use super::{Stage, manifests};
use crate::args::MemoryArgs;
use crate::bench::resident_kilobytes;

/// A pool of small nodes, so that `pods` fill about `pods / 30` of them, and a deployment.
fn manifests_for(pods: u32) -> String {
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
metadata: {{name: small}}
spec:
  template:
    spec:
      nodeClassRef: {{group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}}
      requirements:
        - {{key: node.kubernetes.io/instance-type, operator: In, values: [m5.xlarge, m6i.xlarge]}}
        - {{key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}}
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
      containers:
        - name: filler
          image: registry.example/filler:1
          resources: {{requests: {{cpu: 125m, memory: 128Mi}}}}
"#
    )
}

/// Fills the cluster, waits until it is quiet, and prints the figures.
pub(crate) async fn run(
    stage: &Stage,
    args: &MemoryArgs,
    settle: Duration,
) -> anyhow::Result<bool> {
    let mut errors = Vec::new();
    let documents = manifests::parse("bench", &manifests_for(args.pods), &mut errors);
    let applied = manifests::apply(stage.cluster.client(), &documents).await;
    errors.extend(applied.errors);
    anyhow::ensure!(errors.is_empty(), "{}", errors.join("; "));
    let ready = wait(stage, Duration::from_secs(300), |snapshot| {
        let (total, ready) = snapshot.readiness();
        let done = ready == total && total == args.pods as usize;
        Progress::new(done, format!("{ready} of {total} pods ready"))
    })
    .await?;
    stage.narrator.tell(&format!("idle for {} s", settle.as_secs()));
    tokio::time::sleep(settle).await;
    let nodes = ready.snapshot.managed_nodes().count();
    let (pods, _) = ready.snapshot.readiness();
    let leaders = stage.leaders.pids().await;
    let agents = stage.agents.pids().await;
    stage.narrator.print(&format!("\n{pods} pods, {nodes} nodes"));
    report(stage, "leader", &leaders);
    report(stage, "agent", &agents);
    Ok(ready.reached.is_some())
}

fn report(stage: &Stage, name: &str, pids: &[u32]) {
    let mut sizes: Vec<u64> = pids.iter().filter_map(|pid| resident_kilobytes(*pid)).collect();
    sizes.sort_unstable();
    let (Some(least), Some(most)) = (sizes.first(), sizes.last()) else { return };
    let median = sizes.get(sizes.len() / 2).copied().unwrap_or_default();
    let mib = |kilobytes: u64| kilobytes as f64 / 1024.0;
    stage.narrator.print(&format!(
        "{name:<8} {:>4} processes, RSS MiB: min {:.1}, median {:.1}, max {:.1}",
        sizes.len(),
        mib(*least),
        mib(median),
        mib(*most)
    ));
}
