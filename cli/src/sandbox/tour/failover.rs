//! Step 3: the Raft leader dies while a launch is in flight.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use drover_common::labels::INTENT_TAG;
use serde_json::json;

use super::super::Stage;
use super::super::cloud::Instance;
use super::super::cluster::Snapshot;
use super::record::{Record, instance_of, seconds};
use super::rollout::wait_for_leader;
use super::{Progress, wait};

/// Web replicas while more is wanted; the later ones where other hands kill leaders, too.
const MORE: [usize; 3] = [90, 105, 120];
/// How long an election may take.
const ELECTION: Duration = Duration::from_secs(15);
/// How late EC2 answers the launch: the leader that asked is dead by then, however busy this machine.
const ANSWER_AFTER_MILLISECONDS: u64 = 10_000;

/// What a leader had begun when it died.
#[derive(Debug)]
struct InFlight {
    /// NodeClaims without an instance.
    claims: BTreeSet<String>,
    /// Instances that EC2 had launched for them already.
    instances: BTreeSet<String>,
}

/// A leader's end.
#[derive(Debug)]
struct Killed {
    leader: u8,
    at: Instant,
    in_flight: InFlight,
}

/// Asks for more pods, kills the leader once their NodeClaims exist and EC2 has not answered yet,
/// and watches another replica finish.
pub(crate) async fn run(stage: &Stage, record: &mut Record) -> anyhow::Result<()> {
    stage.narrator.headline("3. The leader is killed while a launch is in flight");
    let mut found = None;
    for web in MORE {
        wait_for_leader(stage, ELECTION).await;
        let ended = stage.leaders.ended();
        if let Some(killed) = kill_while_launching(stage, web).await? {
            found = Some((web, killed));
            break;
        }
        // Only what died by other hands excuses an attempt; it is seen while a leader is waited for.
        wait_for_leader(stage, ELECTION).await;
        if stage.leaders.ended() == ended {
            break;
        }
        stage.narrator.tell("a leader ended by other hands meanwhile: once more");
    }
    record.check(stage, "a leader was killed with a launch in flight", found.is_some());
    let Some((web, killed)) = found else { return Ok(()) };
    let elected = wait_for_leader(stage, ELECTION).await;
    if let Some((new, took)) = elected {
        stage.narrator.tell(&format!("leader {new} takes over ({:.1} s)", took.as_secs_f64()));
    }
    record.check(stage, "another leader took over", elected.is_some());
    record.row("leader killed to new leader", seconds(elected.map(|(_, took)| took)));
    follow(stage, record, &killed, web).await?;
    stage.leaders.restart(killed.leader).await?;
    stage.narrator.tell(&format!("replica {} is back", killed.leader));
    Ok(())
}

/// Scales `web` up and kills the leader while EC2 launches for it. `None` if there was none just then, or
/// nothing in flight: another hand may have killed it first.
async fn kill_while_launching(stage: &Stage, web: usize) -> anyhow::Result<Option<Killed>> {
    // EC2 launches, but answers late: whoever waits for the answer when it dies never hears it.
    stage
        .cloud
        .fault(&json!({
            "face": "ec2",
            "operation": "CreateFleet",
            "effect": {"delay-answer": {"milliseconds": ANSWER_AFTER_MILLISECONDS}},
            "remaining": 1,
        }))
        .await?;
    let before = stage.cluster.snapshot().await?;
    let known: BTreeSet<String> =
        before.claims.iter().filter_map(|claim| claim.metadata.name.clone()).collect();
    stage.cluster.scale("web", u32::try_from(web)?).await?;
    stage.narrator.tell(&format!("web is scaled to {web} pods"));
    wait(stage, Duration::from_secs(20), |snapshot| {
        let flying = !unlaunched(snapshot, &known).is_empty();
        Progress::new(flying, "waiting for a launch".to_owned())
    })
    .await?;
    // The intent is committed; a moment later the request is on its way.
    tokio::time::sleep(Duration::from_millis(500)).await;

    let Some((leader, _)) = stage.leaders.leading().await else { return Ok(None) };
    let at = Instant::now();
    stage.leaders.kill(leader).await?;
    let in_flight = look(stage, &known).await?;
    stage.narrator.tell(&format!(
        "leader {leader} is killed; EC2 had launched {} of the {} NodeClaims in flight, and not yet \
         answered",
        in_flight.instances.len(),
        in_flight.claims.len()
    ));
    if in_flight.claims.is_empty() {
        stage.leaders.restart(leader).await?;
        return Ok(None);
    }
    Ok(Some(Killed { leader, at, in_flight }))
}

/// Names of the NodeClaims that are new and have no instance yet.
fn unlaunched(snapshot: &Snapshot, known: &BTreeSet<String>) -> BTreeSet<String> {
    let waiting = snapshot.claims.iter().filter(|claim| instance_of(claim).is_none());
    let names = waiting.filter_map(|claim| claim.metadata.name.clone());
    names.filter(|name| !known.contains(name)).collect()
}

/// What is in flight now that no leader does anything.
async fn look(stage: &Stage, known: &BTreeSet<String>) -> anyhow::Result<InFlight> {
    let instances = stage.cloud.instances().await?;
    let snapshot = stage.cluster.snapshot().await?;
    let named: BTreeSet<String> = snapshot.claims.iter().filter_map(instance_of).collect();
    let begun = instances.into_iter().filter(|instance| {
        let is_up = instance.state == "running" || instance.state == "pending";
        is_up && instance.tags.contains_key(INTENT_TAG) && !named.contains(&instance.id)
    });
    Ok(InFlight {
        claims: unlaunched(&snapshot, known),
        instances: begun.map(|instance| instance.id).collect(),
    })
}

/// Watches the new leader finish what the old one had begun.
async fn follow(
    stage: &Stage,
    record: &mut Record,
    killed: &Killed,
    web: usize,
) -> anyhow::Result<()> {
    let in_flight = &killed.in_flight;
    let ready = wait(stage, Duration::from_secs(60), |snapshot| {
        let there = snapshot.app("web").count();
        let (total, ready) = snapshot.readiness();
        let line =
            format!("{ready} of {total} pods ready, {} nodes", snapshot.managed_nodes().count());
        Progress::new(there == web && ready == total, line)
    })
    .await?;
    let (total, count) = ready.snapshot.readiness();
    stage.narrator.tell(&format!(
        "{count} of {total} pods are ready ({:.1} s after the kill)",
        killed.at.elapsed().as_secs_f64()
    ));
    record.check(stage, "all pods ran after the leader's end", ready.reached.is_some());
    let finished = in_flight.finished(&ready.snapshot);
    for (claim, instance) in &finished {
        stage.narrator.tell(&format!("NodeClaim {claim} got {instance}"));
    }
    let instances = stage.cloud.instances().await?;
    let of_claims: BTreeSet<String> = finished.into_iter().map(|(_, instance)| instance).collect();
    record.check(
        stage,
        "the new leader finished the launch in flight",
        !of_claims.is_empty()
            && unlaunched(&ready.snapshot, &BTreeSet::new()).is_disjoint(&in_flight.claims)
            && in_flight.instances.is_subset(&of_claims),
    );
    record.check(stage, "it was launched once", launched_with(&instances, &of_claims) == of_claims);
    Ok(())
}

impl InFlight {
    /// The NodeClaims that were in flight and have got an instance, with it.
    fn finished(&self, snapshot: &Snapshot) -> Vec<(String, String)> {
        let claims = snapshot.claims.iter();
        claims
            .filter_map(|claim| Some((claim.metadata.name.clone()?, instance_of(claim)?)))
            .filter(|(name, _)| self.claims.contains(name))
            .collect()
    }
}

/// Every instance of the launches that these come from, whatever became of it.
fn launched_with(instances: &[Instance], some: &BTreeSet<String>) -> BTreeSet<String> {
    let intents: BTreeSet<&String> = instances
        .iter()
        .filter(|instance| some.contains(&instance.id))
        .filter_map(|instance| instance.tags.get(INTENT_TAG))
        .collect();
    instances
        .iter()
        .filter(|instance| instance.tags.get(INTENT_TAG).is_some_and(|tag| intents.contains(tag)))
        .map(|instance| instance.id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::cloud::Notices;
    use super::*;

    #[test]
    fn a_launch_made_twice_shows() {
        let instance = |id: &str, intent: Option<&str>| Instance {
            id: id.to_owned(),
            state: "running".to_owned(),
            private_dns_name: String::new(),
            tags: intent
                .map(|intent| (INTENT_TAG.to_owned(), intent.to_owned()))
                .into_iter()
                .collect(),
            notices: Notices { spot: None },
        };
        let set =
            |ids: &[&str]| -> BTreeSet<String> { ids.iter().map(|&id| id.to_owned()).collect() };
        let instances = [
            instance("i-1", Some("a")),
            instance("i-2", Some("a")),
            instance("i-3", Some("b")),
            instance("i-4", None),
        ];
        assert_eq!(launched_with(&instances, &set(&["i-1"])), set(&["i-1", "i-2"]));
        assert_eq!(launched_with(&instances, &set(&["i-3"])), set(&["i-3"]));
        assert_eq!(launched_with(&instances, &set(&["i-4"])), set(&[]));
    }
}
