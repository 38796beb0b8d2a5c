//! What nodes are worth: what their like is sold for now, overlays in it.

use drover_common::call::Kind;
use drover_common::instance_type::CapacityType;
use serde_json::{Value, json};

use super::cluster::Cluster;

/// A node of the only type of its pool, rather full.
fn packed(capacity_type: CapacityType) -> Cluster {
    let only = json!([
        {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["r5.large"]},
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": [capacity_type.as_str()]},
    ]);
    let mut cluster = Cluster::with_requirements(only, json!({}));
    // Where it is cheapest.
    cluster.node("n1", "r5.large", "us-east-1b", capacity_type);
    let requests = json!({"cpu": "1500m", "memory": "9Gi"});
    cluster.running("web-0", "web", "n1", requests, json!({}));
    cluster
}

fn overlay(cluster: &mut Cluster, spec: &Value) {
    cluster.world.object(
        Kind::NodeOverlay,
        json!({
            "apiVersion": "karpenter.sh/v1alpha1", "kind": "NodeOverlay",
            "metadata": {"name": "savings-plan", "generation": 1}, "spec": spec,
        }),
    );
}

#[test]
fn a_discount_on_its_own_type_replaces_no_node() {
    let mut cluster = packed(CapacityType::OnDemand);
    let family =
        json!([{"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["r5"]}]);
    overlay(&mut cluster, &json!({"requirements": family, "priceAdjustment": "-50%"}));
    assert_eq!(cluster.repack().batches, []);
}

#[test]
fn a_node_whose_like_became_cheaper_is_not_replaced_by_its_like() {
    let mut cluster = packed(CapacityType::Spot);
    // One spot node alone wants many cheaper types; that is not what is tried here.
    cluster.settings.min_spot_types = 1;
    cluster.managed("n1").price_micro *= 2;
    assert_eq!(cluster.repack().batches, []);
}

#[test]
fn what_a_node_costs_now_decides_whether_it_pays_to_replace_it() {
    let mut cluster = Cluster::new(json!({}));
    cluster.node("big", "m5.4xlarge", "us-east-1b", CapacityType::OnDemand);
    cluster.running("web-0", "web", "big", json!({"cpu": "1500m", "memory": "3Gi"}), json!({}));
    // It was next to free when it was launched.
    cluster.managed("big").price_micro = 1_000;
    let plan = cluster.repack();
    assert_eq!(plan.batches.len(), 1);
    let now = cluster.price_now("m5.4xlarge", "us-east-1b", CapacityType::OnDemand);
    assert_eq!(plan.batches[0].price_micro, now);
}

#[test]
fn a_node_that_is_not_sold_any_more_is_worth_what_it_cost() {
    let mut cluster = Cluster::new(json!({}));
    cluster.node("big", "m5.4xlarge", "us-east-1b", CapacityType::OnDemand);
    cluster.running("web-0", "web", "big", json!({"cpu": "1500m", "memory": "3Gi"}), json!({}));
    cluster.forget_type("m5.4xlarge");
    let plan = cluster.repack();
    assert_eq!(plan.batches.len(), 1);
    let cost = cluster.price_now("m5.4xlarge", "us-east-1b", CapacityType::OnDemand);
    assert_eq!(plan.batches[0].price_micro, cost);
}
