//! How pods are shared out over domains: free room first, then what is cheap, then where least is.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::world::World;
use crate::planner::{Launch, PlacementTarget, Plan};

const ZONE: &str = "topology.kubernetes.io/zone";
const CAPACITY_TYPE: &str = "karpenter.sh/capacity-type";

fn request() -> Value {
    json!({"cpu": "500m", "memory": "1Gi"})
}

fn over(app: &str, keys: &[&str]) -> Value {
    let constraint = |key: &&str| {
        json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": app}}})
    };
    let constraints: Vec<Value> = keys.iter().map(constraint).collect();
    json!({"spec": {"topologySpreadConstraints": constraints}})
}

fn zones(world: &mut World) {
    world.pool("default", three_zones(), json!({}));
}

fn three_zones() -> Value {
    json!([{"key": ZONE, "operator": "In", "values": ["us-east-1a", "us-east-1b", "us-east-1c"]},
        {"key": CAPACITY_TYPE, "operator": "In", "values": ["on-demand"]}])
}

fn per_zone(launches: &[Launch]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for launch in launches {
        assert_eq!(launch.zones.len(), 1, "{:?}", launch.zones);
        *counts.entry(launch.zones[0].as_str()).or_default() += 1;
    }
    counts
}

fn on_nodes(plan: &Plan) -> BTreeMap<String, usize> {
    let placed = plan.placements.iter().map(|placement| match &placement.node_or_claim {
        PlacementTarget::Node(name) => (name.to_string(), placement.pods.len()),
        PlacementTarget::Claim(name) => (name.to_string(), placement.pods.len()),
    });
    placed.collect()
}

fn two_of_three_zones_have_room() -> World {
    let mut world = World::small();
    zones(&mut world);
    world.node("na", "m5.4xlarge", "us-east-1a");
    world.node("nb", "m5.4xlarge", "us-east-1b");
    world.node("nc", "m5.large", "us-east-1c");
    world.running("full", "other", "nc", json!({"cpu": "1900m"}));
    world
}

#[test]
fn free_room_is_used_though_one_zone_has_none() {
    let mut world = two_of_three_zones_have_room();
    world.pods("web", 9, request(), over("web", &[ZONE]));
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    assert_eq!(on_nodes(&plan), BTreeMap::from([("na".to_owned(), 3), ("nb".to_owned(), 3)]));
    assert_eq!(per_zone(&plan.launches), BTreeMap::from([("us-east-1c", 1)]));
}

#[test]
fn of_zones_with_as_many_one_with_free_room_takes_the_next() {
    for (zone, other) in [("us-east-1a", "us-east-1b"), ("us-east-1b", "us-east-1a")] {
        let mut world = World::small();
        zones(&mut world);
        // More is used in its zone than in the others, and more is free.
        world.node("free", "m5.4xlarge", zone);
        world.running("old", "other", "free", json!({"cpu": "8"}));
        world.node("full", "m5.large", other);
        world.running("large", "other", "full", json!({"cpu": "1900m"}));
        world.pods("web", 4, request(), over("web", &[ZONE]));
        let plan = world.plan();
        assert_eq!(on_nodes(&plan), [("free".to_owned(), 2)].into(), "{plan:?}");
        assert_eq!(plan.report.on_new, 2);
    }
}

#[test]
fn who_could_not_keep_to_the_spread_leaves_free_room_again() {
    let mut world = two_of_three_zones_have_room();
    // Nothing can be bought: the third zone stays at none, the others at one.
    world.pool("default", three_zones(), json!({"limits": {"cpu": "0"}}));
    world.pods("web", 9, request(), over("web", &[ZONE]));
    let plan = world.plan();
    assert_eq!(on_nodes(&plan), BTreeMap::from([("na".to_owned(), 1), ("nb".to_owned(), 1)]));
    assert_eq!(plan.unschedulable.len(), 7);
}

#[test]
fn what_is_cheaper_comes_first() {
    let mut world = World::small();
    let both = json!([{"key": CAPACITY_TYPE, "operator": "In", "values": ["on-demand", "spot"]}]);
    world.pool("default", both, json!({}));
    world.pods("web", 1, request(), over("web", &[CAPACITY_TYPE]));
    let plan = world.plan();
    assert_eq!(plan.launches[0].capacity_type.as_str(), "spot");

    let mut world = World::small();
    zones(&mut world);
    let key = "node.kubernetes.io/instance-type";
    world.pods("web", 3, json!({"cpu": "100m", "memory": "100Mi"}), over("web", &[key]));
    let plan = world.plan();
    let dearest = plan.launches.iter().map(|launch| launch.hourly_price_micro).max();
    assert!(dearest < Some(200_000), "{}", world.text());
}

#[test]
fn single_pods_do_not_all_come_to_one_zone() {
    let mut world = World::small();
    zones(&mut world);
    for app in ["a", "b", "c", "d", "e", "f"] {
        world.pods(app, 1, json!({"cpu": "20", "memory": "4Gi"}), over(app, &[ZONE]));
    }
    let plan = world.plan();
    let expected = BTreeMap::from([("us-east-1a", 2), ("us-east-1b", 2), ("us-east-1c", 2)]);
    assert_eq!(per_zone(&plan.launches), expected);

    // Of the first pod of another, too: what is there counts.
    let mut world = World::small();
    zones(&mut world);
    world.node("na", "m5.large", "us-east-1a");
    world.running("full", "other", "na", json!({"cpu": "1900m"}));
    world.pods("web", 1, request(), over("web", &[ZONE]));
    assert_eq!(per_zone(&world.plan().launches), BTreeMap::from([("us-east-1b", 1)]));
}

#[test]
fn a_key_with_one_value_divides_nothing() {
    let price = |keys: &[&str]| {
        let mut world = World::small();
        zones(&mut world);
        let wanted = json!({"cpu": "2", "memory": "3Gi"});
        world.pods("web", 200, wanted, over("web", keys));
        let plan = world.plan();
        assert_eq!(plan.unschedulable, []);
        plan.report.hourly_price_micro
    };
    assert_eq!(price(&[ZONE, CAPACITY_TYPE]), price(&[ZONE]));
}

/// One of a set that keeps together by zone, or apart; some can go to one zone alone.
fn by_zone(affinity: &str, zone: Option<&str>) -> Value {
    let selector = zone.map_or(json!({}), |zone| json!({ZONE: zone}));
    let terms = json!([{"labelSelector": {"matchLabels": {"set": "db"}}, "topologyKey": ZONE}]);
    json!({"metadata": {"labels": {"set": "db"}}, "spec": {"nodeSelector": selector,
        "affinity": {affinity: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}})
}

#[test]
fn who_can_go_to_few_zones_goes_first() {
    let mut world = World::small();
    zones(&mut world);
    world.pods("a", 1, json!({"cpu": "1", "memory": "1Gi"}), by_zone("podAntiAffinity", None));
    world.pods("b", 1, request(), by_zone("podAntiAffinity", Some("us-east-1a")));
    world.pods("c", 1, request(), by_zone("podAntiAffinity", Some("us-east-1b")));
    assert_eq!(world.plan().unschedulable, []);

    let mut world = World::small();
    zones(&mut world);
    world.pods("free", 4, json!({"cpu": "1", "memory": "1Gi"}), by_zone("podAffinity", None));
    world.pods("tied", 1, request(), by_zone("podAffinity", Some("us-east-1b")));
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    assert_eq!(per_zone(&plan.launches).keys().collect::<Vec<_>>(), [&"us-east-1b"]);
}

#[test]
fn what_several_workloads_leave_over_shares_nodes() {
    // Nodes of four cores at least, so that each has room for many.
    let mut requirements = three_zones();
    let large = json!({"key": "karpenter.k8s.aws/instance-cpu", "operator": "Gt", "values": ["3"]});
    requirements.as_array_mut().unwrap().push(large);
    for (workloads, replicas, nodes) in [(3, 1, 1), (4, 2, 2), (3, 4, 3)] {
        let mut world = World::small();
        world.pool("default", requirements.clone(), json!({}));
        for number in 0..workloads {
            let app = format!("app{number}");
            world.pods(&app, replicas, request(), over(&app, &[ZONE]));
        }
        let plan = world.plan();
        assert_eq!(plan.unschedulable, []);
        assert_eq!(plan.launches.len(), nodes, "{workloads} of {replicas}: {plan:#?}");
    }
}
