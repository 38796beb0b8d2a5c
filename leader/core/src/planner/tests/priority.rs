//! Priority: where not all can be had, the more important pod is placed.

use serde_json::{Value, json};

use super::world::World;

fn priority(priority: i32) -> Value {
    json!({"spec": {"priority": priority}})
}

#[test]
fn under_a_limit_the_more_important_pod_is_placed() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({"limits": {"cpu": "2"}}));
    world.pods("batch", 1, json!({"cpu": "1800m", "memory": "3Gi"}), priority(i32::MIN));
    world.pods("web", 1, json!({"cpu": "1500m", "memory": "2Gi"}), priority(i32::MAX));
    insta::assert_snapshot!(world.story());
}

#[test]
fn a_pod_that_must_be_placed_one_by_one_does_not_come_first_for_it() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({"limits": {"cpu": "4"}}));
    let mut spread = json!({"spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"app": "batch"}},
            "topologyKey": "topology.kubernetes.io/zone"}]}}}});
    super::world::merge(&mut spread, priority(-5));
    world.pods("batch", 2, json!({"cpu": "1500m", "memory": "2Gi"}), spread);
    world.pods("web", 2, json!({"cpu": "1500m", "memory": "2Gi"}), priority(100));
    insta::assert_snapshot!(world.story());
}

#[test]
fn without_a_limit_priorities_share_nodes() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.pods("batch", 1, json!({"cpu": "900m", "memory": "1Gi"}), priority(0));
    world.pods("web", 1, json!({"cpu": "900m", "memory": "1Gi"}), priority(100));
    insta::assert_snapshot!(world.story());
}

/// What has no place in any order does not change how the others are packed.
#[test]
fn a_pod_that_can_never_be_placed_makes_nothing_dearer() {
    let price = |impossible: bool| {
        let mut world = World::new();
        world.pool("default", json!([]), json!({}));
        for (band, cpu) in ["1900m", "700m", "2600m", "300m"].iter().enumerate() {
            let band = i32::try_from(band).unwrap();
            let request = json!({"cpu": cpu, "memory": "1Gi"});
            world.pods(&format!("of-{band}"), 7, request, priority(band));
        }
        if impossible {
            world.pods("huge", 1, json!({"cpu": "900"}), priority(1000));
        }
        let plan = world.plan();
        assert_eq!(plan.unschedulable.len(), usize::from(impossible));
        plan.report.hourly_price_micro
    };
    assert_eq!(price(true), price(false));
}
