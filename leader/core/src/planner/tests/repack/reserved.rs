//! Repacks with capacity reservations.

use drover_common::instance_type::CapacityType;
use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::planner::LeftKind;

fn cluster() -> Cluster {
    let billing = json!([{"key": "karpenter.sh/capacity-type", "operator": "In",
        "values": ["reserved", "spot", "on-demand"]}]);
    let mut cluster = Cluster::with_requirements(billing, json!({}));
    cluster.settings.moves_bare_pods = true;
    cluster
}

fn full() -> Value {
    json!({"cpu": "3", "memory": "8Gi"})
}

#[test]
fn the_dearest_nodes_move_into_free_reservations() {
    let mut cluster = cluster();
    cluster.world.reservation("cr-1", "m5.xlarge", "us-east-1a", 2);
    // What runs is as cheap as the market has it, but not as cheap as what is paid for.
    for node in 0..4 {
        let name = format!("n{node}");
        cluster.node(&name, "c6a.xlarge", "us-east-1a", CapacityType::Spot);
        let extra = json!({});
        let requests = json!({"cpu": "3", "memory": "4Gi"});
        cluster.running(&format!("web-{node}"), "web", &name, requests, extra);
    }
    let plan = cluster.repack();
    let launches: Vec<_> = plan.batches.iter().flat_map(|batch| &batch.replacements).collect();
    let reserved = launches.iter().filter(|launch| launch.reservation.is_some()).count();
    assert_eq!(reserved, 2, "{plan:#?}");
    assert!(launches.iter().all(|launch| {
        launch.reservation.is_none() || launch.capacity_type == CapacityType::Reserved
    }));
    cluster.world.reserved.insert("cr-1".to_owned(), 2);
    let full = cluster.repack();
    let launches = full.batches.iter().flat_map(|batch| &batch.replacements);
    assert_eq!(launches.filter(|launch| launch.reservation.is_some()).count(), 0);
}

#[test]
fn pods_in_a_reservation_stay_there() {
    let mut cluster = cluster();
    cluster.settings.eviction_micro = 0;
    cluster.node("reserved", "m5.xlarge", "us-east-1a", CapacityType::OnDemand);
    cluster.node("other", "m5.4xlarge", "us-east-1a", CapacityType::OnDemand);
    let managed = cluster.managed("reserved");
    managed.capacity_type = CapacityType::Reserved;
    managed.price_micro = 1;
    cluster.running("web-0", "web", "reserved", json!({"cpu": "100m"}), json!({}));
    for pod in 0..4 {
        cluster.running(&format!("api-{pod}"), "api", "other", full(), json!({}));
    }
    let plan = cluster.repack();
    assert!(plan.batches.iter().all(|batch| batch.nodes.iter().all(|n| n.as_str() != "reserved")));
    let left = plan.left.iter().find(|left| left.node.as_str() == "reserved").unwrap();
    assert_eq!(left.kind, LeftKind::NoGain);
}

#[test]
fn an_empty_node_in_a_reservation_goes() {
    let mut cluster = cluster();
    cluster.node("reserved", "m5.xlarge", "us-east-1a", CapacityType::OnDemand);
    let managed = cluster.managed("reserved");
    managed.capacity_type = CapacityType::Reserved;
    managed.price_micro = 1;
    let plan = cluster.repack();
    assert_eq!(plan.batches.len(), 1, "others may use its place");
}
