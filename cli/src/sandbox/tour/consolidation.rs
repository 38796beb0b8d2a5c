//! Step 4: half of the load goes, and the rest moves to fewer and cheaper nodes.

use std::time::{Duration, Instant};

use drover_common::labels;
use serde_json::Value;

use super::super::Stage;
use super::super::cluster::Snapshot;
use super::record::{Record, seconds};
use super::rollout::NODEPOOLS;
use super::{Progress, Waited, apply, wait};

const CONSOLIDATION: &str = include_str!("../../../tour/3-consolidation.yaml");
/// Replicas of `web` that are left.
const WEB: u32 = 24;
/// It is over when nothing was disrupted for this long.
const QUIET: Duration = Duration::from_secs(5);
/// After this long no more may begin: the last cents are not waited for.
const LONG_ENOUGH: Duration = Duration::from_secs(35);
/// What has begun by then may take this long: a replacement boots, pods move onto it.
const WIND_DOWN: Duration = Duration::from_secs(35);

/// Scales `web` down, allows consolidation until it pauses or took long, forbids it again, and
/// waits until what had begun is over.
pub(crate) async fn run(stage: &Stage, record: &mut Record) -> anyhow::Result<()> {
    stage.narrator.headline("4. Half of the load goes, and the rest moves together");
    stage.cluster.scale("web", WEB).await?;
    let settled = wait(stage, Duration::from_secs(30), |snapshot| {
        let (total, ready) = snapshot.readiness();
        let web = snapshot.app("web").count();
        let done = web == WEB as usize && snapshot.terminating() == 0 && ready == total;
        Progress::new(done, format!("{web} web pods"))
    })
    .await?;
    let cost_before = stage.cloud.cost_per_hour().await?;
    let before = settled.snapshot.managed_nodes().count();
    stage.narrator.tell(&format!(
        "web is scaled to {WEB}; {before} nodes at ${cost_before:.3}/h hold what is left: {}",
        settled.snapshot.fleet()
    ));
    let applied = apply(stage, "3-consolidation.yaml", CONSOLIDATION).await;
    record.check(stage, "consolidation was allowed", applied);
    stage.narrator.tell("NodePool general now says WhenEmptyOrUnderutilized");
    let mut watch = Watch::new(before);
    let start = Instant::now();
    follow(stage, &mut watch, LONG_ENOUGH, Watch::is_quiet).await?;
    let ended = apply(stage, "1-nodepools.yaml", NODEPOOLS).await;
    record.check(stage, "consolidation was ended", ended);
    stage.narrator.tell("NodePool general says WhenEmpty again: what has begun is finished");
    let moved = follow(stage, &mut watch, WIND_DOWN, Watch::is_still).await?;
    let took = moved.reached.map(|_| start.elapsed());
    tell_reasons(stage).await;
    let cost_after = stage.cloud.cost_per_hour().await?;
    let after = moved.snapshot.managed_nodes().count();
    stage.narrator.tell(&format!(
        "{before} nodes at ${cost_before:.3}/h became {after} at ${cost_after:.3}/h: {}",
        moved.snapshot.fleet()
    ));
    let (total, ready) = moved.snapshot.readiness();
    record.row(
        "consolidation",
        format!("${cost_before:.3} to ${cost_after:.3} an hour, in {}", seconds(took)),
    );
    record.check(stage, "consolidation made the cluster cheaper", cost_after < cost_before);
    record.check(stage, "every pod found its new place", ready == total);
    record.check(stage, "web never lost more pods than its budget allows", watch.kept_budget);
    Ok(())
}

/// Tells what changes until `is_over`, given whether all pods are ready, or for `limit`.
async fn follow(
    stage: &Stage,
    watch: &mut Watch,
    limit: Duration,
    is_over: impl Fn(&Watch, bool) -> bool,
) -> anyhow::Result<Waited> {
    wait(stage, limit, |snapshot| {
        for line in watch.look(snapshot) {
            stage.narrator.tell(&line);
        }
        let (total, ready) = snapshot.readiness();
        let line = format!("{} nodes", snapshot.managed_nodes().count());
        Progress::new(is_over(watch, snapshot.terminating() == 0 && ready == total), line)
    })
    .await
}

/// What is seen while pods move.
struct Watch {
    nodes: usize,
    disrupted: usize,
    begun: bool,
    changed_at: Instant,
    kept_budget: bool,
}

impl Watch {
    fn new(nodes: usize) -> Self {
        Self { nodes, disrupted: 0, begun: false, changed_at: Instant::now(), kept_budget: true }
    }

    /// What is new since the last look.
    fn look(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let nodes = snapshot.managed_nodes().count();
        let disrupted = snapshot
            .managed_nodes()
            .filter(|node| node.spec.taints.iter().any(|t| t.key == labels::DISRUPTED_TAINT))
            .count();
        // The budget of web allows a fifth, rounded up, to be unavailable.
        let least = WEB as usize - (WEB as usize).div_ceil(5);
        let web = snapshot.app("web").filter(|pod| pod.is_ready()).count();
        self.kept_budget &= web >= least;
        if nodes == self.nodes && disrupted == self.disrupted {
            return Vec::new();
        }
        let mut lines = Vec::new();
        if disrupted > self.disrupted {
            lines.push(format!("{disrupted} nodes are tainted karpenter.sh/disrupted"));
        }
        if nodes != self.nodes {
            lines.push(format!("{nodes} nodes"));
        }
        self.begun = true;
        self.nodes = nodes;
        self.disrupted = disrupted;
        self.changed_at = Instant::now();
        lines
    }

    /// Whether consolidation has paused.
    fn is_quiet(&self, all_ready: bool) -> bool {
        self.begun && self.is_still(all_ready) && self.changed_at.elapsed() > QUIET
    }

    /// Whether nothing is on its way.
    fn is_still(&self, all_ready: bool) -> bool {
        self.disrupted == 0 && all_ready
    }
}

/// What the leader says of its consolidations.
async fn tell_reasons(stage: &Stage) {
    let Some(decisions) = stage.leaders.ask("/v1/decisions?limit=100").await else { return };
    let entries = decisions.get("decisions").unwrap_or(&decisions);
    let mut told = 0;
    for entry in entries.as_array().into_iter().flatten().rev() {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
        let consolidation = text("verb") == "commit-disruption" && text("why") == "Underutilized";
        if let Some(input) = entry.pointer("/inputs/0").and_then(Value::as_str)
            && consolidation
            && told < 6
        {
            stage.narrator.tell(&format!("why: {input}"));
            told += 1;
        }
    }
}
