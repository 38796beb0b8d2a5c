//! Step 5: less is wanted, and nodes leave.

use std::time::Duration;

use super::super::Stage;
use super::record::{Record, seconds};
use super::{Progress, wait};

/// Scales everything down, and waits until only nodes with pods are left.
pub(crate) async fn run(stage: &Stage, record: &mut Record) -> anyhow::Result<()> {
    stage.narrator.headline("5. The deployments shrink");
    let cost_before = stage.cloud.cost_per_hour().await?;
    let before = stage.cluster.snapshot().await?.managed_nodes().count();
    for (name, replicas) in [("web", 2), ("api", 1), ("cache", 1)] {
        stage.cluster.scale(name, replicas).await?;
    }
    stage.narrator.tell("web is scaled to 2, api to 1, cache to 1; the training job has ended");
    let mut last = before;
    let shrunk = wait(stage, Duration::from_secs(75), |snapshot| {
        let nodes = snapshot.managed_nodes().count();
        if nodes < last {
            last = nodes;
            stage.narrator.tell(&format!("{nodes} nodes left"));
        }
        let empty = snapshot
            .managed_nodes()
            .filter(|node| snapshot.movable_on(&node.metadata.name) == 0)
            .count();
        let (total, ready) = snapshot.readiness();
        let done = snapshot.terminating() == 0
            && empty == 0
            && total == 4
            && ready == total
            && snapshot.claims.len() == nodes;
        Progress::new(done, format!("{nodes} nodes, {empty} of them empty"))
    })
    .await?;
    let after = shrunk.snapshot.managed_nodes().count();
    let cost_after = stage.cloud.cost_per_hour().await?;
    stage.narrator.tell(&format!(
        "{before} nodes at ${cost_before:.3}/h became {after} at ${cost_after:.3}/h: {}",
        shrunk.snapshot.fleet()
    ));
    record.row(
        "nodes removed",
        format!("{} of {before}, in {}", before.saturating_sub(after), seconds(shrunk.reached)),
    );
    record.row("cost per hour", format!("${cost_before:.3} before, ${cost_after:.3} after"));
    record.check(stage, "every empty node was removed", shrunk.reached.is_some());
    record.check(stage, "the cluster costs less", cost_after < cost_before);
    Ok(())
}
