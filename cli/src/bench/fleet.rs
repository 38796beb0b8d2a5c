//! Many agents against three leaders: what their reports cost, and how soon a new leader has heard of
//! all of them.

mod crowd;
mod figures;
mod simulated;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::filler::{Filler, Pace, on_stage};
use super::process::{Memory, cpu_seconds, mebibytes};
use crate::args::FleetArgs;
use crate::sandbox::Stage;
use crowd::Crowd;

const LEADERS: u8 = 3;
/// How long nodes may take to be there, and all agents to be heard.
const PATIENCE: Duration = Duration::from_secs(900);
/// How often the leader is asked.
const LOOK: Duration = Duration::from_millis(250);

/// Starts a sandbox with leaders as processes and many agents, prints what the leaders take, kills the
/// one that leads, and waits until another has heard of every agent. Fails if one is lost.
pub(crate) fn run(args: &FleetArgs) -> anyhow::Result<ExitCode> {
    on_stage(LEADERS, true, Pace::QUICK, async |stage| measure(stage, args).await)
}

async fn measure(stage: &Stage, args: &FleetArgs) -> anyhow::Result<bool> {
    let mut crowd = None;
    if let Some(agents) = args.simulated {
        crowd = Some(Crowd::raise(stage, agents, args.pods_per_node)?);
    } else {
        nodes_for(args.agents).fill(stage, PATIENCE).await?;
    }
    let agents = args.simulated.unwrap_or(args.agents) as usize;
    let heard = all_heard(stage, agents, PATIENCE).await;
    stage.narrator.print(&format!("\n{heard} of {agents} agents heard"));
    // What comes once at the start is none of the steady load.
    tokio::time::sleep(Duration::from_secs(15)).await;
    if let Some(crowd) = &crowd {
        drop(crowd.figures().take());
    }
    watch(stage, args.time).await?;
    if let Some(crowd) = &crowd {
        stage.narrator.print(&crowd.figures().take().line(args.time));
    }
    let good = fail_over(stage, agents, crowd.as_ref()).await?;
    if let Some(crowd) = crowd {
        crowd.disperse().await;
    }
    Ok(good && heard == agents)
}

/// A deployment of which each pod takes a node of its own.
fn nodes_for(agents: u32) -> Filler {
    Filler {
        requirements: "[
        {key: karpenter.k8s.aws/instance-cpu, operator: In, values: ['2']},
        {key: karpenter.k8s.aws/instance-category, operator: In, values: [c, m, r]},
        {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}]",
        disruption: "{consolidationPolicy: WhenEmpty, consolidateAfter: Never}",
        pods: agents,
        requests: "{cpu: 1100m, memory: 256Mi}",
        grace: 5,
        stop: 1,
    }
}

/// Waits until the leader has heard of so many agents; how many it had at the end.
async fn all_heard(stage: &Stage, agents: usize, patience: Duration) -> usize {
    let start = Instant::now();
    let mut heard = 0;
    while heard < agents && start.elapsed() < patience {
        if let Some((_, status)) = stage.leaders.leading().await {
            heard = agents_of(&status);
        }
        stage.narrator.progress(&format!("{heard} of {agents} agents heard"));
        tokio::time::sleep(LOOK).await;
    }
    heard
}

fn agents_of(status: &Value) -> usize {
    let agents = status.get("agents").and_then(Value::as_u64).unwrap_or(0);
    usize::try_from(agents).unwrap_or(usize::MAX)
}

/// Watches the leaders for a time, and prints what each took.
async fn watch(stage: &Stage, time: Duration) -> anyhow::Result<()> {
    let (leading, _) = stage.leaders.leading().await.context("nobody leads")?;
    let pids = stage.leaders.pids().await;
    let before = pids.iter().map(|pid| cpu_seconds(*pid)).collect::<anyhow::Result<Vec<f64>>>()?;
    tokio::time::sleep(time).await;
    for ((id, pid), before) in (1_u8..).zip(&pids).zip(before) {
        let percent = (cpu_seconds(*pid)? - before) / time.as_secs_f64() * 100.0;
        let memory = Memory::of(*pid)?;
        stage.narrator.print(&format!(
            "{} {id}: {percent:.1} % of a core, resident {:.0} MiB (peak {:.0})",
            if id == leading { "leader  " } else { "follower" },
            mebibytes(memory.resident),
            mebibytes(memory.peak)
        ));
    }
    Ok(())
}

/// Kills the leader; whether the next one hears of every agent.
async fn fail_over(stage: &Stage, agents: usize, crowd: Option<&Crowd>) -> anyhow::Result<bool> {
    let (old, _) = stage.leaders.leading().await.context("nobody leads")?;
    let killed = Instant::now();
    stage.leaders.kill(old).await?;
    let next = loop {
        match stage.leaders.leading().await {
            Some((id, _)) if id != old => break id,
            _ if killed.elapsed() > PATIENCE => anyhow::bail!("nobody leads any more"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let leads = killed.elapsed().as_secs_f64();
    stage.narrator.print(&format!("leader {old} killed: {next} leads after {leads:.1} s"));
    let heard = all_heard(stage, agents, Duration::from_secs(120)).await;
    let all = killed.elapsed().as_secs_f64();
    stage.narrator.print(&format!("{heard} of {agents} agents heard by it after {all:.1} s"));
    if let Some(crowd) = crowd {
        stage.narrator.print(&crowd.figures().take().line(killed.elapsed()));
    }
    Ok(heard == agents)
}
