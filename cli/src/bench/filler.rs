//! A simulated cluster for a benchmark: one class, one pool and one deployment that fills its nodes.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use crate::args::SandboxArgs;
use crate::sandbox::{self, Progress, Stage, Waited, manifests};

/// What fills the cluster.
pub(super) struct Filler {
    /// What a node has to be.
    pub(super) requirements: &'static str,
    /// Whether nodes may be consolidated.
    pub(super) disruption: &'static str,
    /// Pods.
    pub(super) pods: u32,
    /// What each asks for.
    pub(super) requests: &'static str,
    /// Their terminationGracePeriodSeconds.
    pub(super) grace: u32,
    /// The seconds that they take to stop.
    pub(super) stop: u32,
}

impl Filler {
    fn manifests(&self) -> String {
        let Self { requirements, disruption, pods, requests, grace, stop } = self;
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
metadata: {{name: bench}}
spec:
  disruption: {disruption}
  template:
    spec:
      nodeClassRef: {{group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}}
      requirements: {requirements}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: filler, namespace: default}}
spec:
  replicas: {pods}
  selector: {{matchLabels: {{app: filler}}}}
  template:
    metadata:
      labels: {{app: filler}}
      annotations: {{sandbox.drover.dev/stop-seconds: "{stop}"}}
    spec:
      terminationGracePeriodSeconds: {grace}
      containers:
        - name: filler
          image: registry.example/filler:1
          resources: {{requests: {requests}}}
"#
        )
    }

    /// Fills the cluster, and waits until all pods are ready or `patience` is over.
    pub(super) async fn fill(&self, stage: &Stage, patience: Duration) -> anyhow::Result<Waited> {
        let mut errors = Vec::new();
        let documents = manifests::parse("bench", &self.manifests(), &mut errors);
        let applied = manifests::apply(stage.cluster.client(), &documents).await;
        errors.extend(applied.errors);
        anyhow::ensure!(errors.is_empty(), "{}", errors.join("; "));
        let wanted = self.pods as usize;
        sandbox::wait(stage, patience, |snapshot| {
            let (total, ready) = snapshot.readiness();
            let nodes = snapshot.managed_nodes().count();
            let done = ready == total && total == wanted;
            Progress::new(done, format!("{ready} of {wanted} pods ready on {nodes} nodes"))
        })
        .await
    }
}

/// How fast the simulated world is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Pods' starts and stops and machines' boots pass so many times faster.
    pub(super) speed: f64,
    /// From launch to a kubelet that registers, before that.
    pub(super) boot_delay: Duration,
}

impl Pace {
    /// What fills a cluster soonest.
    pub(super) const QUICK: Self = Self { speed: 4.0, boot_delay: Duration::from_secs(2) };
}

/// Raises a sandbox of quick machines, lets `measure` do its part, and takes it down again. Fails
/// where that says no.
pub(super) fn on_stage(
    leaders: u8,
    processes: bool,
    pace: Pace,
    measure: impl AsyncFnOnce(&Stage) -> anyhow::Result<bool>,
) -> anyhow::Result<ExitCode> {
    let args = SandboxArgs {
        exit: true,
        processes,
        leaders,
        boot_delay: pace.boot_delay,
        speed: pace.speed,
        seed: 1,
        ..SandboxArgs::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let good = runtime.block_on(sandbox::on_stage(&args, measure))?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
