//! Resident memory of a leader with a cluster in its view, and of an idle agent.

use std::process::ExitCode;
use std::time::Duration;

use super::filler::{Filler, Pace, on_stage};
use super::process::{Memory, mebibytes};
use crate::args::MemoryArgs;
use crate::sandbox::Stage;

/// How long everything may idle before it is measured.
const SETTLE: Duration = Duration::from_secs(15);

/// Starts a sandbox with leaders and agents as processes, fills it, lets it idle, and prints the
/// resident memory of each kind of process.
pub(crate) fn run(args: &MemoryArgs) -> anyhow::Result<ExitCode> {
    // Small nodes, of which pods fill about one for thirty.
    let filler = Filler {
        requirements: "[
        {key: node.kubernetes.io/instance-type, operator: In, values: [m5.xlarge, m6i.xlarge]},
        {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}]",
        disruption: "{}",
        pods: args.pods,
        requests: "{cpu: 125m, memory: 128Mi}",
        grace: 30,
        stop: 1,
    };
    on_stage(3, true, Pace::QUICK, async |stage| measure(stage, &filler).await)
}

async fn measure(stage: &Stage, filler: &Filler) -> anyhow::Result<bool> {
    let filled = filler.fill(stage, Duration::from_secs(300)).await?;
    stage.narrator.tell(&format!("idle for {} s", SETTLE.as_secs()));
    tokio::time::sleep(SETTLE).await;
    let nodes = filled.snapshot.managed_nodes().count();
    let (pods, _) = filled.snapshot.readiness();
    stage.narrator.print(&format!("\n{pods} pods, {nodes} nodes"));
    report(stage, "leader", &stage.leaders.pids().await);
    report(stage, "agent", &stage.agents.pids().await);
    Ok(filled.reached.is_some())
}

fn report(stage: &Stage, name: &str, pids: &[u32]) {
    let mut sizes: Vec<u64> =
        pids.iter().filter_map(|pid| Some(Memory::of(*pid).ok()?.resident)).collect();
    sizes.sort_unstable();
    let (Some(least), Some(most)) = (sizes.first(), sizes.last()) else { return };
    let median = sizes.get(sizes.len() / 2).copied().unwrap_or_default();
    stage.narrator.print(&format!(
        "{name:<8} {:>4} processes, RSS MiB: min {:.1}, median {:.1}, max {:.1}",
        sizes.len(),
        mebibytes(*least),
        mebibytes(median),
        mebibytes(*most)
    ));
}
