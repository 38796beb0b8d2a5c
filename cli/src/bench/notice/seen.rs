//! What shows in the simulated world after a notice, and the figures made from it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use drover_sandbox::SharedWorld;
use drover_sandbox::world::World;
use drover_sandbox::world::resource::Resource;
use serde_json::Value;

use super::PODS;
use crate::bench::times::percentiles;

const NODES: Resource = Resource::new("", "nodes");
/// A node that has done nothing after so long counts as one that never did.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the world may be unwatched if it says of no change.
const LOOK: Duration = Duration::from_millis(20);

/// When what was seen first, since the notice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    cordon: Option<Duration>,
    eviction: Option<Duration>,
    fleet: Option<Duration>,
}

/// Follows one node from its notice until all has shown that is waited for.
pub(super) async fn follow(
    world: &SharedWorld,
    node: &str,
    start: Instant,
    fleets: u64,
    wants_fleet: bool,
) -> Seen {
    let mut revisions = world.revisions();
    let mut seen = Seen::default();
    while start.elapsed() < PATIENCE {
        world.with(|world, _| {
            let at = start.elapsed();
            if seen.cordon.is_none() && is_cordoned(world, node) {
                seen.cordon = Some(at);
            }
            if seen.eviction.is_none() && nodes_with_leaving_pods(world).contains(node) {
                seen.eviction = Some(at);
            }
            if seen.fleet.is_none() && self::fleets(world) > fleets {
                seen.fleet = Some(at);
            }
        });
        let complete = seen.cordon.is_some() && seen.eviction.is_some();
        if complete && (seen.fleet.is_some() || !wants_fleet) {
            break;
        }
        // EC2's books have no revision of their own.
        let _changed = tokio::time::timeout(LOOK, revisions.changed()).await;
    }
    seen
}

/// Cordons and evictions of many nodes, counted from now.
pub(super) async fn follow_all(world: &SharedWorld, nodes: &[String]) -> Figures {
    let start = Instant::now();
    let mut seen: BTreeMap<&str, Seen> =
        nodes.iter().map(|node| (node.as_str(), Seen::default())).collect();
    while start.elapsed() < PATIENCE
        && seen.values().any(|seen| seen.cordon.is_none() || seen.eviction.is_none())
    {
        world.with(|world, _| {
            let at = start.elapsed();
            let evicting = nodes_with_leaving_pods(world);
            for (node, seen) in &mut seen {
                if is_cordoned(world, node) {
                    seen.cordon.get_or_insert(at);
                }
                if evicting.contains(*node) {
                    seen.eviction.get_or_insert(at);
                }
            }
        });
        tokio::time::sleep(LOOK).await;
    }
    let mut figures = Figures::default();
    seen.into_values().for_each(|seen| figures.add(seen));
    figures
}

fn is_cordoned(world: &World, node: &str) -> bool {
    let node = world.store.find(&NODES, "", node);
    node.is_some_and(|node| node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)))
}

fn nodes_with_leaving_pods(world: &World) -> BTreeSet<&str> {
    let leaving = world
        .store
        .iter(&PODS)
        .filter(|(_, pod)| pod.pointer("/metadata/deletionTimestamp").is_some());
    leaving.filter_map(|(_, pod)| pod.pointer("/spec/nodeName")?.as_str()).collect()
}

/// How often CreateFleet was called so far.
pub(super) fn fleets(world: &World) -> u64 {
    world.cloud.audit().calls.get("CreateFleet").copied().unwrap_or(0)
}

/// Times of many nodes.
#[derive(Debug, Default)]
pub(super) struct Figures {
    cordon: Vec<Duration>,
    eviction: Vec<Duration>,
    fleet: Vec<Duration>,
}

impl Figures {
    pub(super) fn add(&mut self, seen: Seen) {
        self.cordon.extend(seen.cordon);
        self.eviction.extend(seen.eviction);
        self.fleet.extend(seen.fleet);
    }

    /// Nodes that were cordoned.
    pub(super) fn cordons(&self) -> usize {
        self.cordon.len()
    }

    /// The figures as text, of so many nodes.
    pub(super) fn lines(&self, nodes: usize) -> Vec<String> {
        let line = |name: &str, times: &[Duration]| {
            let [median, nearly_all, most] = percentiles(times, [50, 99, 100]);
            format!(
                "{name:<34} {:>4} of {nodes}: p50 {median:.3} s, p99 {nearly_all:.3} s, max {most:.3} s",
                times.len()
            )
        };
        vec![
            line("cordon visible at the API server", &self.cordon),
            line("first pod evicted", &self.eviction),
            line("replacement's CreateFleet", &self.fleet),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_the_nodes_where_it_showed() {
        let mut figures = Figures::default();
        for milliseconds in (1..=200).rev() {
            let cordon = Some(Duration::from_millis(milliseconds));
            figures.add(Seen { cordon, ..Seen::default() });
        }
        assert_eq!(figures.cordons(), 200);
        let lines = figures.lines(200);
        assert!(
            lines[0].ends_with("200 of 200: p50 0.100 s, p99 0.198 s, max 0.200 s"),
            "{}",
            lines[0]
        );
        assert!(lines[2].contains("0 of 200: p50 0.000 s"), "{}", lines[2]);
    }
}
