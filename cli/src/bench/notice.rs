//! How soon a spot notice is acted on: from the moment IMDS answers with it to what shows at the API
//! server and at EC2, and what became of the pods by the time that IMDS told. Looked at inside the simulated world, where both are, so that no client's
//! polling adds to the figures.

mod pods;
mod seen;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use drover_common::id::InstanceId;
use drover_sandbox::world::faults::{Face, Fault, FaultEffect};
use drover_sandbox::world::resource::Resource;
use jiff::SignedDuration;

use super::filler::{Filler, Pace, on_stage};
use crate::args::NoticeArgs;
use crate::sandbox::Stage;
use pods::Ledger;
use seen::Figures;

/// What EC2 promises.
const LEAD: SignedDuration = SignedDuration::from_secs(120);
/// Replacements join in this time; waiting for it keeps one node's news apart from the next one's.
const LULL: Duration = Duration::from_millis(1_700);
/// Pods stop at their own speed: the notice's time is real.
const PACE: Pace = Pace { speed: 1.0, boot_delay: Duration::from_millis(500) };
/// Pods have this long less than EC2 promises: a notice is read within half a second and acted on within
/// another, drains end five seconds before the time, and their last evictions take a while.
const RESERVE: Duration = Duration::from_secs(10);
/// After EC2's time everything has ended.
const AFTER_LEAD: Duration = Duration::from_secs(15);

const PODS: Resource = Resource::new("", "pods");

/// Starts a sandbox with an agent on each of many spot nodes, interrupts them, and prints how long it
/// took until that showed and what became of the pods. Fails if a node was not cordoned, or if pods did not
/// stop gracefully that could have.
pub(crate) fn run(args: &NoticeArgs) -> anyhow::Result<ExitCode> {
    // Spot nodes of one size, and pods of which three fill a node.
    let filler = Filler {
        requirements: "[
        {key: karpenter.k8s.aws/instance-cpu, operator: In, values: ['4']},
        {key: karpenter.k8s.aws/instance-category, operator: In, values: [c, m, r]},
        {key: karpenter.sh/capacity-type, operator: In, values: [spot]}]",
        disruption: "{consolidationPolicy: WhenEmpty, consolidateAfter: Never}",
        pods: args.nodes.saturating_mul(3),
        requests: "{cpu: 1100m, memory: 256Mi}",
        grace: args.grace,
        stop: args.stop,
    };
    on_stage(args.leaders, false, PACE, async |stage| measure(stage, &filler, args).await)
}

async fn measure(stage: &Stage, filler: &Filler, args: &NoticeArgs) -> anyhow::Result<bool> {
    filler.fill(stage, Duration::from_secs(900)).await?;
    // Agents start a little after their nodes.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let victims = victims(stage, args.nodes as usize);
    anyhow::ensure!(!victims.is_empty(), "there is no spot node with pods");
    stage.narrator.print(&format!("\n{} nodes, one agent each", victims.len()));
    if args.without_leaders {
        stage.leaders.stop().await;
        stage.narrator.print("every leader is stopped");
    }
    let mut ledger = Ledger::default();
    let figures = match args.api_down {
        None => one_by_one(stage, &victims, !args.without_leaders, &mut ledger).await?,
        Some(down) => all_at_once(stage, &victims, down, &mut ledger).await?,
    };
    ledger.settle(stage.world(), LEAD.unsigned_abs() + AFTER_LEAD).await;
    for line in figures.lines(victims.len()).iter().chain(&ledger.lines()) {
        stage.narrator.print(line);
    }
    let graceful = !is_possible(args) || ledger.fates().all_graceful();
    if !graceful {
        stage.narrator.print("Pods that had the time to stop gracefully did not.");
    }
    Ok(figures.cordons() == victims.len() && graceful)
}

/// Whether the pods have the time that they ask for before EC2's time.
fn is_possible(args: &NoticeArgs) -> bool {
    let down = args.api_down.unwrap_or_default();
    let taken = Duration::from_secs(args.grace.into()).saturating_add(down);
    taken.saturating_add(RESERVE) <= LEAD.unsigned_abs()
}

/// Interrupts node after node.
async fn one_by_one(
    stage: &Stage,
    victims: &[(InstanceId, String)],
    wants_fleet: bool,
    ledger: &mut Ledger,
) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    for (index, (instance, node)) in victims.iter().enumerate() {
        let world = stage.world();
        let fleets = world.with(|world, _| seen::fleets(world));
        let start = announce(stage, instance, node, ledger)?;
        figures.add(seen::follow(world, node, start, fleets, wants_fleet).await);
        stage.narrator.progress(&format!("{} of {}", index + 1, victims.len()));
        // The polls of the next node are met at any point of their period.
        let apart = Duration::from_millis(u64::try_from(index * 137 % 500).unwrap_or(0));
        tokio::time::sleep(LULL + apart).await;
    }
    Ok(figures)
}

/// Interrupts all nodes while the API server is down.
async fn all_at_once(
    stage: &Stage,
    victims: &[(InstanceId, String)],
    down: Duration,
    ledger: &mut Ledger,
) -> anyhow::Result<Figures> {
    let id = stage.world().with(|world, _| {
        let effect = FaultEffect::Error {
            status: 503,
            code: "ServiceUnavailable".to_owned(),
            message: "down for the benchmark".to_owned(),
        };
        let (probability, remaining) = (1.0, None);
        let (face, operation) = (Face::Kubernetes, String::new());
        world.faults.add(Fault { face, operation, effect, probability, remaining })
    });
    let mut nodes = Vec::new();
    for (instance, node) in victims {
        announce(stage, instance, node, ledger)?;
        nodes.push(node.clone());
    }
    tokio::time::sleep(down).await;
    stage.world().with(|world, _| world.faults.remove(id));
    Ok(seen::follow_all(stage.world(), &nodes).await)
}

/// Spot nodes with pods that would move, and their instances.
fn victims(stage: &Stage, most: usize) -> Vec<(InstanceId, String)> {
    stage.world().with(|world, _| {
        let busy: BTreeSet<String> = world
            .store
            .iter(&PODS)
            .filter_map(|(_, pod)| Some(pod.pointer("/spec/nodeName")?.as_str()?.to_owned()))
            .collect();
        world
            .cloud
            .instances()
            .filter(|instance| !instance.state.is_gone())
            .map(|instance| (instance.id.clone(), instance.private_dns_name()))
            .filter(|(_, node)| busy.contains(node))
            .take(most)
            .collect()
    })
}

fn announce(
    stage: &Stage,
    instance: &InstanceId,
    node: &str,
    ledger: &mut Ledger,
) -> anyhow::Result<Instant> {
    let told = stage.world().with(|world, now| {
        let told = world.cloud.interrupt(instance, now, LEAD);
        let start = Instant::now();
        ledger.open(world, node, instance, now);
        (told, start)
    });
    told.0?;
    Ok(told.1)
}
