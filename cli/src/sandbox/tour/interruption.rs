//! Step 2: EC2 wants a spot node back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context;
use drover_common::labels;

use super::super::Stage;
use super::super::cluster::Snapshot;
use super::record::{Record, seconds};
use super::{Progress, wait};

/// What EC2 promises: two minutes.
const LEAD: Duration = Duration::from_secs(120);

/// Interrupts the busiest spot node and watches it go.
pub(crate) async fn run(stage: &Stage, record: &mut Record) -> anyhow::Result<()> {
    stage.narrator.headline("2. A spot node is interrupted");
    let before = stage.cluster.snapshot().await?;
    let Some((node, instance)) = busiest_spot_node(&before) else {
        record.check(stage, "there is a spot node to interrupt", false);
        return Ok(());
    };
    let known: BTreeSet<String> =
        before.claims.iter().filter_map(|claim| claim.metadata.name.clone()).collect();
    let pods = before.movable_on(&node);
    stage
        .narrator
        .tell(&format!("a notice is put into the IMDS of {instance} ({node}, {pods} pods)"));
    let start = Instant::now();
    stage.cloud.interrupt(&instance, LEAD).await.context("interrupt")?;

    let mut cordoned = None;
    let mut replaced = None;
    let mut drained = None;
    let moved = wait(stage, Duration::from_secs(60), |snapshot| {
        let elapsed = start.elapsed();
        let is_cordoned =
            snapshot.nodes.iter().any(|n| n.metadata.name == node && n.spec.unschedulable);
        if cordoned.is_none() && is_cordoned {
            cordoned = Some(elapsed);
            stage
                .narrator
                .tell(&format!("the node's agent cordoned it ({:.1} s)", elapsed.as_secs_f64()));
        }
        let newcomer = snapshot
            .claims
            .iter()
            .filter_map(|claim| claim.metadata.name.as_ref())
            .find(|name| !known.contains(*name));
        if replaced.is_none()
            && let Some(name) = newcomer
        {
            replaced = Some(elapsed);
            stage
                .narrator
                .tell(&format!("a replacement is coming: {name} ({:.1} s)", elapsed.as_secs_f64()));
        }
        let left = snapshot.movable_on(&node);
        if drained.is_none() && left == 0 {
            drained = Some(elapsed);
            stage
                .narrator
                .tell(&format!("the agent has drained it ({:.1} s)", elapsed.as_secs_f64()));
        }
        let (total, ready) = snapshot.readiness();
        let line = format!("{left} pods left on the node, {ready} of {total} pods ready");
        Progress::new(drained.is_some() && total > 0 && ready == total, line)
    })
    .await?;
    let (total, ready) = moved.snapshot.readiness();
    stage
        .narrator
        .tell(&format!("{ready} of {total} pods are ready again ({})", seconds(moved.reached)));
    record.row("interruption to cordon", seconds(cordoned));
    record.row("interruption to drained", seconds(drained));
    record.row("interruption to all ready", seconds(moved.reached));
    record.check(
        stage,
        "the agent cordoned its node within two seconds",
        cordoned.is_some_and(|c| c.as_secs_f64() < 2.0),
    );
    record.check(stage, "the node was drained before the deadline", drained.is_some());
    record.check(stage, "all pods ran again", moved.reached.is_some());
    Ok(())
}

/// The Ready spot node with most pods that a drain would move, and its instance.
fn busiest_spot_node(snapshot: &Snapshot) -> Option<(String, String)> {
    snapshot
        .managed_nodes()
        .filter(|node| node.metadata.labels.get(labels::CAPACITY_TYPE).is_some_and(|c| c == "spot"))
        .filter(|node| node.is_ready())
        .max_by_key(|node| snapshot.movable_on(&node.metadata.name))
        .and_then(|node| {
            let instance = drover_common::id::instance_of_provider_id(&node.spec.provider_id)?;
            Some((node.metadata.name.clone(), instance.to_string()))
        })
}
