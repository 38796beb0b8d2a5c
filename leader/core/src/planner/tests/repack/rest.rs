//! Nodes that nothing new would be cheaper for go onto others that stay.

use drover_common::instance_type::CapacityType;
use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::planner::RepackPlan;

fn cpu(amount: &str) -> Value {
    json!({"cpu": amount, "memory": "2Gi"})
}

/// A pool of a few types on demand.
fn of_types(types: Value) -> Cluster {
    let only = |key: &str, values: Value| json!({"key": key, "operator": "In", "values": values});
    let requirements = json!([
        only("node.kubernetes.io/instance-type", types),
        only("karpenter.sh/capacity-type", json!(["on-demand"])),
    ]);
    Cluster::with_requirements(requirements, json!({}))
}

/// A large node with five pods, and smaller ones with one pod each that fit beside those.
fn beside_a_large_one(smaller: usize) -> RepackPlan {
    let mut cluster = of_types(json!(["m5.large", "m5.xlarge", "m5.2xlarge"]));
    cluster.node("big", "m5.2xlarge", "us-east-1a", CapacityType::OnDemand);
    for pod in 0..5 {
        cluster.world.running(&format!("web-{pod}"), "web", "big", cpu("1"));
    }
    for node in 0..smaller {
        let name = format!("small-{node}");
        cluster.node(&name, "m5.large", "us-east-1a", CapacityType::OnDemand);
        cluster.world.running(&format!("own-{node}"), "own", &name, cpu("1300m"));
    }
    cluster.repack()
}

#[test]
fn small_nodes_go_onto_a_large_one_that_stays() {
    for smaller in [1, 2] {
        let plan = beside_a_large_one(smaller);
        let removed: Vec<_> = plan.batches.iter().flat_map(|batch| &batch.nodes).collect();
        assert_eq!(removed.len(), smaller, "{plan:#?}");
        assert!(removed.iter().all(|node| node.as_str().starts_with("small")), "{plan:#?}");
        assert_eq!((plan.report.moves, plan.report.launched), (smaller, 0), "{plan:#?}");
    }
}

#[test]
fn in_large_clusters_too() {
    // More candidates than are planned for each threshold; nothing new is larger than the small ones.
    let mut cluster = of_types(json!(["m5.large"]));
    for node in 0..40 {
        let (big, small) = (format!("big-{node}"), format!("small-{node}"));
        cluster.node(&big, "m5.2xlarge", "us-east-1a", CapacityType::OnDemand);
        cluster.world.running(&format!("web-{node}"), "web", &big, cpu("5"));
        cluster.node(&small, "m5.large", "us-east-1a", CapacityType::OnDemand);
        cluster.world.running(&format!("own-{node}"), "own", &small, cpu("1300m"));
    }
    let plan = cluster.repack();
    assert_eq!((plan.report.removed, plan.report.moves), (40, 40), "{:?}", plan.report);
    assert_eq!(plan.report.launched, 0);
}
