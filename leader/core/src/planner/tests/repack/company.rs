//! Batches that part pods from those they must be near are put off; others are not.

use drover_common::cluster::ObjectKey;
use drover_common::instance_type::CapacityType;
use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::planner::{Batch, Move, MoveTarget, RepackPlan, company};

fn near(app: &str) -> Value {
    json!({"spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"app": app}},
            "topologyKey": "topology.kubernetes.io/zone"}]}}}})
}

fn small() -> Value {
    json!({"cpu": "100m", "memory": "100Mi"})
}

/// Two nodes a zone.
pub(super) fn zones() -> Cluster {
    let mut cluster = Cluster::new(json!({}));
    for zone in ["a", "b"] {
        for number in 1..=2 {
            let name = format!("{zone}{number}");
            let zone = format!("us-east-1{zone}");
            cluster.node(&name, "m5.large", &zone, CapacityType::OnDemand);
        }
    }
    cluster
}

/// A batch that empties a node; each move is a pod and a node.
pub(super) fn batch(from: &str, moves: &[(&str, &str)]) -> Batch {
    let moves = moves.iter().map(|(pod, to)| Move {
        pod: ObjectKey::new("default", *pod),
        from: from.into(),
        to: MoveTarget::Node((*to).into()),
    });
    Batch { nodes: vec![from.into()], moves: moves.collect(), ..Batch::default() }
}

/// The nodes that still go.
fn kept(cluster: &Cluster, batches: Vec<Batch>) -> (Vec<String>, Vec<String>) {
    let mut plan = RepackPlan { batches, ..RepackPlan::default() };
    company::keep(&cluster.input(), &mut plan);
    let nodes = plan.batches.iter().flat_map(|batch| &batch.nodes);
    let left = plan.left.iter().map(|left| format!("{}: {}", left.node, left.reason));
    (nodes.map(ToString::to_string).collect(), left.collect())
}

#[test]
fn whoever_would_find_nobody_stays_until_the_others_have_moved() {
    let mut cluster = zones();
    cluster.running("db-0", "db", "a1", small(), json!({}));
    cluster.running("web-0", "web", "b1", small(), near("db"));
    let alone = batch("b1", &[("web-0", "a2")]);
    assert_eq!(kept(&cluster, vec![alone.clone()]).0, ["b1"]);
    // The other batch moves its only mate to the other zone.
    let (nodes, left) = kept(&cluster, vec![batch("a1", &[("db-0", "b2")]), alone.clone()]);
    assert_eq!(nodes, ["a1"]);
    assert_eq!(
        left,
        [
            "b1: pods on it must be near others, which other disruptions move",
            "a2: it is kept for pods of disruptions that were put off"
        ]
    );
    // A second one that stays is company enough.
    cluster.running("db-1", "db", "a2", small(), json!({}));
    assert_eq!(kept(&cluster, vec![batch("a1", &[("db-0", "b2")]), alone]).0, ["a1", "b1"]);
}

/// Two pods that must be together: neither may leave alone.
pub(super) fn parted() -> Cluster {
    let mut cluster = zones();
    cluster.running("web-0", "web", "a1", small(), near("web"));
    cluster.running("web-1", "web", "a2", small(), near("web"));
    cluster
}

#[test]
fn mates_may_move_together_and_the_first_of_a_kind_anywhere() {
    let mut cluster = parted();
    let both = vec![batch("a1", &[("web-0", "b1")]), batch("a2", &[("web-1", "b2")])];
    assert_eq!(kept(&cluster, both.clone()).0, ["a1", "a2"]);
    // Alone it would leave the other behind.
    assert!(kept(&cluster, both[..1].to_vec()).0.is_empty());
    // What ends, or runs on a node that leaves, is no company, but forbids to be the first.
    cluster.running("web-2", "web", "b1", small(), near("web"));
    cluster.world.leaving.insert("b1".into());
    let apart = vec![batch("a1", &[("web-0", "b2")]), batch("a2", &[("web-1", "b2")])];
    assert!(kept(&cluster, apart).0.is_empty());
}
