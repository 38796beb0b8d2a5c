//! What became of the pods of nodes that EC2 took back, by the books of the simulated kubelets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use drover_common::id::InstanceId;
use drover_sandbox::SharedWorld;
use drover_sandbox::world::World;
use drover_sandbox::world::cluster::PodEnd;
use jiff::Timestamp;
use serde_json::Value;

use super::PODS;

/// How often the world is looked at while pods are still to end.
const LOOK: Duration = Duration::from_millis(100);

/// Pods of the nodes, from the notice on.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<String, NodePods>);

/// The pods of one node that a drain moves.
#[derive(Debug)]
struct NodePods {
    announced: Timestamp,
    deadline: Timestamp,
    /// By uid; how each ended, once it has.
    pods: BTreeMap<String, Option<PodEnd>>,
}

/// What became of the pods of one node, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fates {
    pods: usize,
    graceful: usize,
    clipped: usize,
    late: usize,
    killed: usize,
    forced: usize,
    left: usize,
}

impl Ledger {
    /// Begins with a node, whose instance was just told of its end.
    pub(super) fn open(
        &mut self,
        world: &World,
        node: &str,
        instance: &InstanceId,
        now: Timestamp,
    ) {
        let notice = world.cloud.instance(instance).and_then(|one| one.notices.spot.as_ref());
        let deadline = notice.map_or(now, |notice| notice.time);
        let pods = NodePods { announced: now, deadline, pods: BTreeMap::new() };
        self.0.insert(node.to_owned(), pods);
        self.look(world);
    }

    /// Takes in what is there, and what has ended.
    fn look(&mut self, world: &World) {
        let mut there = BTreeSet::new();
        for (_, pod) in world.store.iter(&PODS) {
            let text = |pointer| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            there.insert(text("/metadata/uid").to_owned());
            let Some(node) = self.0.get_mut(text("/spec/nodeName")) else { continue };
            if is_moved_by_drains(pod) {
                node.pods.entry(text("/metadata/uid").to_owned()).or_default();
            }
        }
        for end in world.cluster.ends() {
            let known = self.0.get_mut(&end.node).and_then(|node| node.pods.get_mut(&end.uid));
            if let Some(known) = known {
                *known = Some(end.clone());
            }
        }
        // One that was taken away before its kubelet had started it was never there to stop.
        for node in self.0.values_mut() {
            node.pods.retain(|uid, end| end.is_some() || there.contains(uid));
        }
    }

    /// Waits until every pod has ended, or `patience` is over.
    pub(super) async fn settle(&mut self, world: &SharedWorld, patience: Duration) {
        let start = Instant::now();
        loop {
            world.with(|world, _| self.look(world));
            if self.fates().left == 0 || start.elapsed() >= patience {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What became of all of them.
    pub(super) fn fates(&self) -> Fates {
        let mut all = Fates::default();
        self.0.values().for_each(|node| all.add(node.fates()));
        all
    }

    /// A row for each node and one for all.
    pub(super) fn lines(&self) -> Vec<String> {
        let row = |name: &str, fates: Fates, last: String| {
            let Fates { pods, graceful, clipped, late, killed, forced, left } = fates;
            format!(
                "{name:<32} {pods:>5} {graceful:>9} {clipped:>8} {late:>5} {killed:>7} {forced:>7} {left:>5} {last:>10}"
            )
        };
        let mut lines = vec![format!(
            "{:<32} {:>5} {:>9} {:>8} {:>5} {:>7} {:>7} {:>5} {:>10}",
            "node", "pods", "graceful", "clipped", "late", "killed", "forced", "left", "last gone"
        )];
        lines.extend(self.0.iter().map(|(name, node)| row(name, node.fates(), node.last_gone())));
        lines.push(row("all", self.fates(), String::new()));
        lines
    }
}

impl NodePods {
    fn fates(&self) -> Fates {
        let mut fates = Fates { pods: self.pods.len(), ..Fates::default() };
        for end in self.pods.values() {
            *fates.of(end.as_ref(), self.deadline) += 1;
        }
        fates
    }

    /// When the last of them was gone, after the notice.
    fn last_gone(&self) -> String {
        let last = self.pods.values().flatten().map(|end| end.at).max();
        let last = last.map(|at| at.duration_since(self.announced).as_secs_f64());
        last.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s"))
    }
}

impl Fates {
    /// Where a pod counts.
    fn of(&mut self, end: Option<&PodEnd>, deadline: Timestamp) -> &mut usize {
        use drover_sandbox::world::cluster::EndKind;
        let Some(end) = end else { return &mut self.left };
        match end.how {
            EndKind::Lost => &mut self.killed,
            EndKind::Forced => &mut self.forced,
            EndKind::Stopped { .. } | EndKind::Killed { .. } if end.at > deadline => &mut self.late,
            EndKind::Stopped { .. } | EndKind::Killed { .. } if end.is_clipped() => {
                &mut self.clipped
            }
            // What does not end within its own grace is ended by its kubelet wherever it runs.
            EndKind::Stopped { .. } | EndKind::Killed { .. } => &mut self.graceful,
        }
    }

    fn add(&mut self, other: Fates) {
        self.pods += other.pods;
        self.graceful += other.graceful;
        self.clipped += other.clipped;
        self.late += other.late;
        self.killed += other.killed;
        self.forced += other.forced;
        self.left += other.left;
    }

    /// Whether every pod stopped gracefully before its instance's deadline.
    pub(super) fn all_graceful(&self) -> bool {
        self.graceful == self.pods
    }
}

/// Whether a drain moves a pod: DaemonSets', mirrors' and those that have ended stay.
fn is_moved_by_drains(pod: &Value) -> bool {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let kinds: BTreeSet<&str> =
        owners.into_iter().flatten().filter_map(|owner| owner.get("kind")?.as_str()).collect();
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    let mirror = pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
    !kinds.contains("DaemonSet") && !mirror && !matches!(phase, "Succeeded" | "Failed")
}

#[cfg(test)]
mod tests {
    use drover_common::cluster::ObjectKey;
    use drover_sandbox::world::cluster::EndKind;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn end(second: i64, how: EndKind) -> Option<PodEnd> {
        let pod = ObjectKey::new("default", "web");
        let (uid, node) = (String::new(), String::new());
        Some(PodEnd { pod, uid, node, at: at(second), own_grace: 30, how })
    }

    fn ledger(ends: &[Option<PodEnd>]) -> Ledger {
        let pods = ends.iter().enumerate();
        let pods = pods.map(|(index, end)| (index.to_string(), end.clone())).collect();
        let node = NodePods { announced: at(0), deadline: at(120), pods };
        Ledger(BTreeMap::from([("n1".to_owned(), node)]))
    }

    #[test]
    fn only_what_had_its_grace_and_ended_in_time_was_graceful() {
        let ledger = ledger(&[
            end(31, EndKind::Stopped { grace: 30 }),
            end(33, EndKind::Killed { grace: 30 }),
            end(115, EndKind::Stopped { grace: 20 }),
            end(121, EndKind::Stopped { grace: 30 }),
            end(120, EndKind::Lost),
            end(60, EndKind::Forced),
            None,
        ]);
        let fates = ledger.fates();
        let wanted =
            Fates { pods: 7, graceful: 2, clipped: 1, late: 1, killed: 1, forced: 1, left: 1 };
        assert_eq!(fates, wanted);
        assert!(!fates.all_graceful());
        let lines = ledger.lines();
        let cells: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(cells, ["n1", "7", "2", "1", "1", "1", "1", "1", "121.0", "s"]);
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn what_was_taken_away_before_it_had_started_is_not_left() {
        let world = World::new(drover_sandbox::world::WorldOptions::default(), at(0));
        let mut ledger = ledger(&[end(31, EndKind::Stopped { grace: 30 }), None]);
        assert_eq!(ledger.fates().left, 1);
        ledger.look(&world);
        let wanted = Fates { pods: 1, graceful: 1, ..Fates::default() };
        assert_eq!(ledger.fates(), wanted);
    }

    #[test]
    fn pods_that_stay_are_not_judged() {
        let pod = |kind: &str, phase: &str| {
            serde_json::json!({
                "metadata": {"ownerReferences": [{"kind": kind}]}, "status": {"phase": phase},
            })
        };
        assert!(is_moved_by_drains(&pod("ReplicaSet", "Running")));
        assert!(!is_moved_by_drains(&pod("DaemonSet", "Running")));
        assert!(!is_moved_by_drains(&pod("Job", "Succeeded")));
    }
}
