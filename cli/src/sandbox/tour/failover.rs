//! Step 3: the Raft leader dies while a launch is in flight.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::Stage;
use super::record::{Record, seconds};
use super::rollout::wait_for_leader;
use super::{Progress, wait};

/// Web replicas while more is wanted.
const MORE: u32 = 90;

/// Asks for more pods, kills the leader once their NodeClaims exist and EC2 has not answered yet,
/// and watches another replica finish.
pub(crate) async fn run(stage: &Stage, record: &mut Record) -> anyhow::Result<()> {
    stage.narrator.headline("3. The leader is killed while a launch is in flight");
    // EC2 launches, but answers late: whoever waits for the answer when it dies never hears it.
    stage
        .cloud
        .fault(&json!({
            "face": "ec2",
            "operation": "CreateFleet",
            "effect": {"delay-answer": {"milliseconds": 3000}},
            "remaining": 1,
        }))
        .await?;
    let before = stage.cluster.snapshot().await?;
    let known: BTreeSet<Option<String>> =
        before.claims.iter().map(|claim| claim.metadata.name.clone()).collect();
    stage.cluster.scale("web", MORE).await?;
    stage.narrator.tell(&format!("web is scaled to {MORE} pods"));
    let in_flight = wait(stage, Duration::from_secs(20), |snapshot| {
        let flying = snapshot
            .claims
            .iter()
            .filter(|claim| !known.contains(&claim.metadata.name))
            .filter(|claim| claim.status.as_ref().is_none_or(|status| status.provider_id.is_none()))
            .count();
        Progress::new(flying > 0, "waiting for a launch".to_owned())
    })
    .await?;
    record.check(stage, "a launch was in flight", in_flight.reached.is_some());
    // The intent is committed; a moment later the request is on its way.
    tokio::time::sleep(Duration::from_millis(500)).await;

    let Some((old, _)) = stage.leaders.leading().await else {
        record.check(stage, "there was a leader to kill", false);
        return Ok(());
    };
    let start = Instant::now();
    stage.leaders.kill(old).await?;
    stage.narrator.tell(&format!("leader {old} is killed"));
    let elected = wait_for_leader(stage, Duration::from_secs(15)).await;
    if let Some((new, took)) = elected {
        stage.narrator.tell(&format!("leader {new} takes over ({:.1} s)", took.as_secs_f64()));
    }
    record.check(stage, "another leader took over", elected.is_some());
    record.row("leader killed to new leader", seconds(elected.map(|(_, took)| took)));

    let ready = wait(stage, Duration::from_secs(60), |snapshot| {
        let web = snapshot.app("web").count();
        let (total, ready) = snapshot.readiness();
        let line =
            format!("{ready} of {total} pods ready, {} nodes", snapshot.managed_nodes().count());
        Progress::new(web == MORE as usize && ready == total, line)
    })
    .await?;
    let (total, count) = ready.snapshot.readiness();
    stage.narrator.tell(&format!(
        "{count} of {total} pods are ready ({:.1} s after the kill)",
        start.elapsed().as_secs_f64()
    ));
    record.check(stage, "the new leader finished the launch", ready.reached.is_some());
    stage.leaders.restart(old).await?;
    stage.narrator.tell(&format!("replica {old} is back"));
    Ok(())
}
