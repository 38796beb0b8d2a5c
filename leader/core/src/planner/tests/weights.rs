//! NodePool weights: heavier pools first, whatever lighter ones cost.

use serde_json::{Value, json};

use super::world::World;

fn family(name: &str) -> Value {
    json!([{"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": [name]}])
}

#[test]
fn weight_decides_before_price_and_what_is_left_goes_to_the_lighter() {
    let mut world = World::small();
    world.pool("dear", family("r5"), json!({"weight": 10, "limits": {"cpu": "8"}}));
    world.pool("cheap", family("c5"), json!({}));
    world.pods("web", 8, json!({"cpu": "1500m", "memory": "2Gi"}), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn among_equals_price_decides() {
    let mut world = World::small();
    world.pool("dear", family("r5"), json!({}));
    world.pool("cheap", family("c5"), json!({}));
    world.pods("web", 2, json!({"cpu": "1500m", "memory": "2Gi"}), json!({}));
    insta::assert_snapshot!(world.story());
}
