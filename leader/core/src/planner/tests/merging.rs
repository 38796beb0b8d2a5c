//! Planned nodes that are cheaper as one.

use serde_json::{Value, json};

use super::world::{World, merge};
use crate::planner::Plan;

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

fn pool(billing: &str, spec: Value) -> World {
    let mut world = World::small();
    let requirements = json!([
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": [billing]},
        {"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["c5", "m5", "r5"]}]);
    world.pool("default", requirements, spec);
    world
}

/// Five pods of which three are best on one type, and the others on another.
fn five(world: &mut World, extra: Value) {
    world.pods("web", 5, json!({"cpu": "250m", "memory": "1536Mi"}), extra);
}

fn types(plan: &Plan) -> Vec<&str> {
    assert_eq!(plan.unschedulable, []);
    plan.launches.iter().map(|launch| launch.offerings[0].instance_type.as_str()).collect()
}

#[test]
fn the_last_pods_share_a_larger_node() {
    let mut world = pool("on-demand", json!({}));
    five(&mut world, json!({}));
    assert_eq!(types(&world.plan()), ["r5.large"]);
}

#[test]
fn pods_that_keep_apart_stay_apart() {
    let apart = |term: Value| {
        json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [term]}}}})
    };
    let mut world = pool("on-demand", json!({}));
    let not_db = json!({"topologyKey": HOST, "labelSelector": {"matchLabels": {"app": "db"}}});
    world.pods("web", 2, json!({"cpu": "250m", "memory": "1536Mi"}), apart(not_db));
    world.pods("db", 2, json!({"cpu": "250m", "memory": "1536Mi"}), json!({}));
    let plan = world.plan();
    for launch in &plan.launches {
        let mut apps: Vec<&str> =
            launch.pods.iter().filter_map(|pod| pod.name.split('-').next()).collect();
        apps.dedup();
        assert_eq!(apps.len(), 1, "{apps:?}");
    }
    assert_eq!(plan.launches.len(), 2);
}

#[test]
fn nor_do_pods_share_a_node_that_want_one_port_or_are_bound_to_zones() {
    let port = json!({"spec": {"containers": [{"name": "main",
        "resources": {"requests": {"cpu": "250m", "memory": "1536Mi"}},
        "ports": [{"hostPort": 9000, "containerPort": 9000}]}]}});
    let zone = |zone: &str| json!({"spec": {"nodeSelector": {ZONE: zone}}});
    let mut world = pool("on-demand", json!({}));
    for (app, zone) in [("one", zone("us-east-1b")), ("two", zone("us-east-1c"))] {
        let mut both = port.clone();
        merge(&mut both, zone.clone());
        world.pods(app, 2, json!({}), both);
        five(&mut world, zone);
    }
    let plan = world.plan();
    assert_eq!(types(&plan).len(), 4, "{plan:#?}");
    assert!(plan.launches.iter().all(|launch| launch.zones.len() == 1));
}

#[test]
fn limits_count_the_one_and_not_both() {
    // The two that it is made of have 12 GiB, and the one has 16.
    let mut world = pool("on-demand", json!({"limits": {"memory": "16Gi"}}));
    five(&mut world, json!({}));
    assert_eq!(types(&world.plan()), ["r5.large"]);
}

#[test]
fn on_spot_there_is_as_much_to_choose_from() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    five(&mut world, json!({}));
    let plan = world.plan();
    let choices: Vec<usize> = plan
        .launches
        .iter()
        .map(|launch| {
            let mut types: Vec<&str> =
                launch.offerings.iter().map(|one| one.instance_type.as_str()).collect();
            types.sort_unstable();
            types.dedup();
            types.len()
        })
        .collect();
    assert!(choices.iter().all(|types| *types >= 15), "{choices:?}");
}
