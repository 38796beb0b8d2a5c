//! NodePool limits: with what is in use and in flight, by resource and by nodes.

use serde_json::json;

use super::world::World;
use drover_common::id::NodePoolName;
use drover_common::resources::Resources;

#[test]
fn what_is_left_under_the_limits_is_used_and_the_rest_is_told() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({"limits": {"cpu": "10"}}));
    world.usage.insert(
        NodePoolName::from("default"),
        Resources::from_quantities([("cpu", "8"), ("nodes", "2")]).unwrap(),
    );
    world.pods("web", 3, json!({"cpu": "1500m", "memory": "2Gi"}), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn nodes_are_counted() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({"limits": {"nodes": "2"}}));
    world.usage.insert(
        NodePoolName::from("default"),
        Resources::from_quantities([("nodes", "1")]).unwrap(),
    );
    let away = json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"app": "web"}},
            "topologyKey": "kubernetes.io/hostname"}]}}}});
    world.pods("web", 2, json!({"cpu": "500m"}), away);
    insta::assert_snapshot!(world.story());
}

#[test]
fn a_limit_of_what_nobody_asks_for_holds_as_well() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({"limits": {"nvidia.com/gpu": "0", "memory": "9Gi"}}));
    world.pods("web", 3, json!({"cpu": "500m", "memory": "5Gi"}), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn a_limit_that_is_no_quantity_stops_the_pool() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({"limits": {"cpu": "many"}}));
    world.pods("web", 1, json!({"cpu": "500m"}), json!({}));
    insta::assert_snapshot!(world.story());
}
