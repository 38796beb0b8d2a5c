//! Nodes that stay though others, or other NodePools, would make their leaving pay.

use drover_common::instance_type::CapacityType;
use serde_json::{Value, json};

use super::super::world::merge;
use super::cluster::Cluster;
use super::small;

#[test]
fn a_node_does_not_go_for_one_just_like_it_because_another_pays() {
    let gone = |concern: Value| {
        let mut cluster = Cluster::new(json!({}));
        cluster.node("big", "m5.4xlarge", "us-east-1b", CapacityType::OnDemand);
        cluster.running("web-0", "web", "big", small(), concern.clone());
        cluster.node("own", "m5.large", "us-east-1b", CapacityType::OnDemand);
        let mut only = json!({"spec": {"nodeSelector": {
            "node.kubernetes.io/instance-type": "m5.large",
            "topology.kubernetes.io/zone": "us-east-1b"}}});
        merge(&mut only, concern);
        cluster.running("own-0", "own", "own", json!({"cpu": "1500m", "memory": "512Mi"}), only);
        let plan = cluster.repack();
        let gone = plan.batches.iter().flat_map(|batch| &batch.nodes);
        gone.map(|node| node.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(gone(json!({})), ["big"]);
    let apart = json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}]}}}});
    assert_eq!(gone(apart), ["big"]);
}

#[test]
fn nobody_leaves_a_pool_at_its_limit_for_one_of_less_weight() {
    let replaced = |weight: u32| {
        let types = json!([
            {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["m5.xlarge"]},
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}]);
        let spec = json!({"weight": weight, "limits": {"cpu": "4"}});
        let mut cluster = Cluster::with_requirements(types, spec);
        let cheap = json!([
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}]);
        cluster.world.pool("cheap", cheap, json!({"weight": 10}));
        cluster.node("n1", "m5.xlarge", "us-east-1b", CapacityType::OnDemand);
        cluster.running("web-0", "web", "n1", small(), json!({}));
        let used = [("cpu".into(), 4_000)].into_iter().collect();
        cluster.world.usage.insert("default".into(), used);
        let plan = cluster.repack();
        let reason = plan.left.first().map(|left| left.reason.clone()).unwrap_or_default();
        (plan.batches.len(), reason)
    };
    assert_eq!(replaced(10).0, 1);
    let expected = "Pod default/web-0 would leave NodePool default for cheap, which weighs less";
    assert_eq!(replaced(50), (0, expected.to_owned()));
}

#[test]
fn what_pods_leave_free_is_waited_for_where_that_is_soon() {
    let left = |end: &str| {
        let mut cluster = Cluster::new(json!({}));
        cluster.node("big", "m5.4xlarge", "us-east-1b", CapacityType::OnDemand);
        cluster.running("web-0", "web", "big", small(), json!({}));
        let ends = json!({"metadata": {"deletionTimestamp": end}});
        cluster.running("web-1", "web", "big", json!({"cpu": "6"}), ends);
        let plan = cluster.repack();
        plan.left.first().map(|left| left.reason.clone())
    };
    let waits = Some("Pod default/web-1 is still leaving it".to_owned());
    assert_eq!(left("2026-01-01T00:00:15Z"), waits);
    assert_ne!(left("2026-01-01T01:00:00Z"), waits);
}

#[test]
fn where_limits_leave_no_room_for_a_replacement_the_reason_says_so() {
    // What runs counts until it is gone.
    let mut cluster = Cluster::new(json!({"limits": {"cpu": "17"}}));
    cluster.node("big", "m5.4xlarge", "us-east-1b", CapacityType::OnDemand);
    cluster.world.running("web-0", "web", "big", json!({"cpu": "1500m", "memory": "3Gi"}));
    let used = [("cpu".into(), 16_000)].into_iter().collect();
    cluster.world.usage.insert("default".into(), used);
    let plan = cluster.repack();
    assert!(plan.batches.is_empty());
    let expected = "Pod default/web-0 fits on no other node, and limits or reservations leave no room \
                    for a new one beside it";
    assert_eq!(plan.left[0].reason, expected);
}
