//! Step 1: pools and workloads are applied, nodes are launched, pods run.

use std::time::{Duration, Instant};

use super::super::{Stage, manifests};
use super::record::{Record, seconds};
use super::{Progress, wait};

/// The pools, which let no pod be moved.
pub(super) const NODEPOOLS: &str = include_str!("../../../tour/1-nodepools.yaml");
const WORKLOADS: &str = include_str!("../../../tour/2-workloads.yaml");

/// Waits for a leader, applies the manifests, and waits until every pod is ready.
pub(crate) async fn run(stage: &Stage, record: &mut Record) -> anyhow::Result<()> {
    stage.narrator.headline("1. Pools and workloads are applied");
    let elected = wait_for_leader(stage, Duration::from_secs(20)).await;
    record.check(stage, "a leader was elected", elected.is_some());
    if let Some((id, took)) = elected {
        stage.narrator.tell(&format!(
            "leader {id} was elected ({:.1} s after the start)",
            took.as_secs_f64()
        ));
    }
    let mut errors = Vec::new();
    let mut documents = manifests::parse("1-nodepools.yaml", NODEPOOLS, &mut errors);
    documents.extend(manifests::parse("2-workloads.yaml", WORKLOADS, &mut errors));
    let applied = manifests::apply(stage.cluster.client(), &documents).await;
    errors.extend(applied.errors);
    for error in &errors {
        stage.narrator.tell(error);
    }
    record.check(stage, "every manifest was applied", errors.is_empty());
    stage.narrator.tell(&format!("applied: {}", applied.objects.join(", ")));

    let mut launched = 0;
    let ready = wait(stage, Duration::from_secs(60), |snapshot| {
        let (total, ready) = snapshot.readiness();
        if snapshot.claims.len() != launched {
            launched = snapshot.claims.len();
            stage.narrator.tell(&format!(
                "{launched} NodeClaims, {} nodes registered",
                snapshot.managed_nodes().count()
            ));
        }
        // 60 web + 6 api + 3 cache + 1 training pod; less means that controllers still make them.
        let line =
            format!("{ready} of {total} pods ready, {} nodes", snapshot.managed_nodes().count());
        Progress::new(total >= 70 && ready == total, line)
    })
    .await?;
    let (total, count) = ready.snapshot.readiness();
    record.check(stage, "every pod got a node", ready.reached.is_some());
    stage
        .narrator
        .tell(&format!("{count} of {total} pods are ready on {}", ready.snapshot.fleet()));
    tell_reasons(stage).await;
    let waits = ready.snapshot.seconds_to_ready();
    let at = |share: usize| {
        waits.get((waits.len().saturating_sub(1)) * share / 100).copied().unwrap_or_default()
    };
    record.row("pods placed", format!("{count} of {total}"));
    record.row("pending to running", format!("median {:.1} s, slowest {:.1} s", at(50), at(100)));
    record.row("first rollout", seconds(ready.reached));
    record.check(stage, "the slowest pod ran within a minute", at(100) < 60.0);
    Ok(())
}

/// What the leader says of its last decisions.
async fn tell_reasons(stage: &Stage) {
    let Some(decisions) = stage.leaders.ask("/v1/decisions?limit=4").await else { return };
    let entries = decisions.get("decisions").unwrap_or(&decisions);
    for entry in entries.as_array().into_iter().flatten().rev() {
        if let Some(text) = entry.get("summary").and_then(serde_json::Value::as_str) {
            stage.narrator.tell(&format!("why: {text}"));
        }
    }
}

/// The id of the leader and how long it took to have one.
pub(crate) async fn wait_for_leader(stage: &Stage, limit: Duration) -> Option<(u8, Duration)> {
    let start = Instant::now();
    while start.elapsed() < limit {
        // A second replica may have died by other hands: without it there is no quorum.
        if let Err(error) = stage.leaders.supervise().await {
            tracing::warn!(error = %format!("{error:#}"), "A leader process was not restarted.");
        }
        if let Some((id, _)) = stage.leaders.leading().await {
            return Some((id, start.elapsed()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}
