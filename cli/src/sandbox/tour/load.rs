//! What nodes use, as their agents measure it and the leader tells it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use drover_common::cluster::Node;
use drover_common::resources::ResourceName;
use serde_json::Value;

use super::super::Stage;
use super::super::cluster::Snapshot;
use super::record::Record;
use super::{PERIOD, Progress, wait};

/// How long agents may take to tell of what moved last: they sum up ten seconds each. Where one is killed
/// meanwhile it begins anew, and all have as long again.
const LIMIT: Duration = Duration::from_secs(25);
/// Thousandths of a core that a machine's own processes use, about.
const SYSTEM: i64 = 40;
/// Of what pods request, in percent: what the sandbox's pods use, at least and at most.
const SHARE: (i64, i64) = (35, 65);

/// Compares what the leader says that nodes use with what their pods do.
pub(crate) async fn run(stage: &Stage, record: &mut Record) -> anyhow::Result<()> {
    let (start, ended) = (Instant::now(), stage.agents.ended());
    let (snapshot, told) = loop {
        let told = told(stage).await;
        // One look; leaders that have ended come back meanwhile.
        let look = |_: &Snapshot| Progress::new(true, String::new());
        let snapshot = wait(stage, LIMIT, look).await?.snapshot;
        let limit = if stage.agents.ended() == ended { LIMIT } else { 2 * LIMIT };
        if start.elapsed() > limit || snapshot.managed_nodes().all(|n| is_so(&snapshot, n, &told)) {
            break (snapshot, told);
        }
        tokio::time::sleep(PERIOD).await;
    };
    for node in snapshot.managed_nodes().filter(|node| !is_so(&snapshot, node, &told)) {
        stage.narrator.tell(&format!(
            "node {} is said to use {:?} thousandths of a core; its pods request {}",
            node.metadata.name,
            told.get(&node.metadata.name),
            requested(&snapshot, node)
        ));
    }
    let used: i64 = snapshot.managed_nodes().filter_map(|node| told.get(&node.metadata.name)).sum();
    let wanted: i64 = snapshot.managed_nodes().map(|node| requested(&snapshot, node)).sum();
    let cores = |milli: i64| milli as f64 / 1000.0;
    let line = format!("{:.1} cores of {:.1} requested", cores(used), cores(wanted));
    stage.narrator.tell(&format!("the agents measure: {line}"));
    record.row("measured use", line);
    let all = snapshot.managed_nodes().all(|node| is_so(&snapshot, node, &told));
    record.check(stage, "every node's use was measured", all && used > 0);
    Ok(())
}

/// Thousandths of a core, by node.
async fn told(stage: &Stage) -> BTreeMap<String, i64> {
    let nodes = stage.leaders.ask("/v1/nodes").await.unwrap_or_default();
    let nodes = nodes.get("nodes").and_then(Value::as_array).cloned().unwrap_or_default();
    let use_of = |node: Value| {
        let name = node.get("node")?.as_str()?.to_owned();
        Some((name, node.pointer("/usage/cpu_milli_mean")?.as_i64()?))
    };
    nodes.into_iter().filter_map(use_of).collect()
}

/// Whether what is told of a node is what its pods use.
fn is_so(snapshot: &Snapshot, node: &Node, told: &BTreeMap<String, i64>) -> bool {
    let requested = requested(snapshot, node);
    let (least, most) = SHARE;
    told.get(&node.metadata.name).is_some_and(|used| {
        (requested * least / 100..=requested * most / 100 + 2 * SYSTEM).contains(used)
    })
}

/// Thousandths of a core that the pods that run on a node request.
fn requested(snapshot: &Snapshot, node: &Node) -> i64 {
    let here = snapshot.pods.iter().filter(|pod| pod.spec.node_name == node.metadata.name);
    let running = here.filter(|pod| !pod.is_terminal() && pod.is_ready());
    running.map(|pod| pod.requests().get(&ResourceName::Cpu)).sum()
}
