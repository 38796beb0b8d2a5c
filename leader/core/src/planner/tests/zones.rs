//! Zones of nodes that could be anywhere.

use std::collections::BTreeMap;

use serde_json::json;

use super::world::World;
use crate::planner::Plan;

const ZONE: &str = "topology.kubernetes.io/zone";

/// A pool of three zones, with room for one of the pods on each node.
fn three_zones(billing: &str) -> World {
    let mut world = World::small();
    let wanted = json!([
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": [billing]},
        {"key": ZONE, "operator": "In", "values": ["us-east-1a", "us-east-1b", "us-east-1c"]},
        {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["m5.large"]},
    ]);
    world.pool("default", wanted, json!({}));
    world
}

fn firsts(plan: &Plan) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for launch in &plan.launches {
        *counts.entry(launch.offerings[0].zone.as_str()).or_default() += 1;
        assert_eq!(launch.zones.len(), 3, "the others are left to fall back on");
    }
    counts
}

#[test]
fn on_demand_nodes_are_dealt_to_zones_that_cost_the_same() {
    let mut world = three_zones("on-demand");
    world.pods("web", 9, json!({"cpu": "1500m"}), json!({}));
    let even = [("us-east-1a", 3), ("us-east-1b", 3), ("us-east-1c", 3)];
    assert_eq!(firsts(&world.plan()), BTreeMap::from(even));
    // Nodes that are there count.
    for name in ["n1", "n2"] {
        world.node(name, "m5.large", "us-east-1b");
        world.running(&format!("full-{name}"), "other", name, json!({"cpu": "1900m"}));
    }
    world.node("n3", "m5.large", "us-east-1c");
    world.running("full-n3", "other", "n3", json!({"cpu": "1900m"}));
    let filled_up = [("us-east-1a", 4), ("us-east-1b", 2), ("us-east-1c", 3)];
    assert_eq!(firsts(&world.plan()), BTreeMap::from(filled_up));
}

#[test]
fn spot_is_not_dealt() {
    let mut world = three_zones("spot");
    world.pods("web", 9, json!({"cpu": "1500m"}), json!({}));
    // The same price everywhere: EC2 goes by capacity, and is not told where to begin.
    let catalog = world.catalogs.get_mut("default").unwrap();
    for offering in catalog.instance_types.iter_mut().flat_map(|kind| &mut kind.offerings) {
        offering.price = Some(10_000);
    }
    let plan = world.plan();
    assert!(plan.launches.len() > 1);
    let first = &plan.launches[0].offerings;
    assert!(plan.launches.iter().all(|launch| launch.offerings == *first));
}
