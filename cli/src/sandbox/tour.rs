//! The tour: what Drover does, told step by step while it happens.

mod consolidation;
mod failover;
mod interruption;
mod load;
mod record;
mod rollout;
mod scale_down;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::cluster::Snapshot;
use super::{Stage, manifests};
use record::Record;

/// How often the tour looks at the cluster.
const PERIOD: Duration = Duration::from_millis(250);

/// Takes the whole tour; true if every check passed.
pub(crate) async fn run(stage: &Stage) -> anyhow::Result<bool> {
    let mut record = Record::default();
    rollout::run(stage, &mut record).await?;
    interruption::run(stage, &mut record).await?;
    failover::run(stage, &mut record).await?;
    consolidation::run(stage, &mut record).await?;
    scale_down::run(stage, &mut record).await?;
    load::run(stage, &mut record).await?;
    record.audit(stage).await?;
    stage.narrator.headline("6. Summary");
    for line in record.table() {
        stage.narrator.print(&line);
    }
    Ok(record.all_passed())
}

/// Applies a file of the tour's own, and tells what of it could not be; whether all of it could.
async fn apply(stage: &Stage, file: &str, text: &str) -> bool {
    let mut errors = Vec::new();
    let documents = manifests::parse(file, text, &mut errors);
    errors.extend(manifests::apply(stage.cluster.client(), &documents).await.errors);
    for error in &errors {
        stage.narrator.tell(error);
    }
    errors.is_empty()
}

/// Applies the user's manifests and reports until every pod is ready or nothing moves any more.
/// True if every document was applied and every pod became ready.
pub(crate) async fn apply_and_watch(stage: &Stage, paths: &[PathBuf]) -> anyhow::Result<bool> {
    let mut errors = Vec::new();
    let documents = manifests::read(paths, &mut errors);
    let applied = manifests::apply(stage.cluster.client(), &documents).await;
    stage.narrator.tell(&format!("{} objects applied", applied.objects.len()));
    errors.extend(applied.errors);
    for error in &errors {
        stage.narrator.print(&format!("  not applied: {error}"));
    }
    let start = Instant::now();
    let ready = wait(stage, Duration::from_secs(120), |snapshot| {
        let (total, ready) = snapshot.readiness();
        // Manifests without workloads make no pods; controllers need a moment to make theirs.
        let settled = total > 0 || start.elapsed() > Duration::from_secs(5);
        Progress::new(settled && ready == total, format!("{ready} of {total} pods ready"))
    })
    .await?;
    let (total, count) = ready.snapshot.readiness();
    stage
        .narrator
        .tell(&format!("{count} of {total} pods are ready on {}", ready.snapshot.fleet()));
    if ready.reached.is_none() {
        explain_pending(stage, &ready.snapshot).await;
    }
    Ok(errors.is_empty() && ready.reached.is_some())
}

/// Says why pods still wait, in the leader's words.
async fn explain_pending(stage: &Stage, snapshot: &Snapshot) {
    let pending: Vec<String> = snapshot
        .workload()
        .filter(|pod| pod.spec.node_name.is_empty())
        .map(|pod| format!("{}/{}", pod.metadata.namespace, pod.metadata.name))
        .collect();
    if let Some(status) = stage.leaders.ask("/v1/status").await
        && let Some(left) = status.get("unschedulable").and_then(serde_json::Value::as_array)
    {
        for entry in left.iter().take(10) {
            stage.narrator.print(&format!("  left pending: {entry}"));
        }
    } else if !pending.is_empty() {
        stage.narrator.print(&format!("  left pending: {}", pending.join(", ")));
    }
}

/// Whether a wait is over, and what to show meanwhile.
pub(crate) struct Progress {
    done: bool,
    line: String,
}

impl Progress {
    pub(crate) fn new(done: bool, line: String) -> Self {
        Self { done, line }
    }
}

/// How a wait ended.
pub(crate) struct Waited {
    /// How long it took; `None` if time ran out.
    pub(crate) reached: Option<Duration>,
    /// The last look.
    pub(crate) snapshot: Snapshot,
}

/// Looks at the cluster until `judge` is satisfied or `limit` has passed. A look that fails (the
/// API may be busy) is tried again.
pub(crate) async fn wait(
    stage: &Stage,
    limit: Duration,
    mut judge: impl FnMut(&Snapshot) -> Progress,
) -> anyhow::Result<Waited> {
    let start = Instant::now();
    loop {
        stage.leaders.supervise().await?;
        let looked = stage.cluster.snapshot().await;
        let late = start.elapsed() >= limit;
        match looked {
            Ok(snapshot) => {
                let progress = judge(&snapshot);
                if progress.done {
                    return Ok(Waited { reached: Some(start.elapsed()), snapshot });
                }
                if late {
                    return Ok(Waited { reached: None, snapshot });
                }
                stage.narrator.progress(&progress.line);
            }
            Err(error) if late => return Err(error),
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "A look at the cluster failed.")
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}
