//! NodeOverlays: prices and resources of types under a NodePool's nodes.

use drover_common::call::Kind;
use serde_json::{Value, json};

use super::world::World;

fn overlay(world: &mut World, name: &str, spec: Value) {
    world.object(
        Kind::NodeOverlay,
        json!({
            "apiVersion": "karpenter.sh/v1alpha1", "kind": "NodeOverlay",
            "metadata": {"name": name, "generation": 1}, "spec": spec,
        }),
    );
}

fn family(name: &str) -> Value {
    json!([{"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": [name]}])
}

fn on_demand(world: &mut World) {
    let billing = json!([{"key": "karpenter.sh/capacity-type", "operator": "In",
        "values": ["on-demand"]}]);
    world.pool("default", billing, json!({}));
}

#[test]
fn a_discount_changes_what_is_bought() {
    let mut world = World::small();
    on_demand(&mut world);
    world.pods("web", 1, json!({"cpu": "1500m", "memory": "2Gi"}), json!({}));
    let before = world.text();
    overlay(
        &mut world,
        "savings-plan",
        json!({"requirements": family("r5"), "priceAdjustment": "-80%"}),
    );
    insta::assert_snapshot!(format!("{before}=== with the overlay\n{}", world.story()));
}

#[test]
fn prices_hold_by_zone_and_the_heavier_overlay_wins() {
    let mut world = World::small();
    on_demand(&mut world);
    let mut here = family("m5");
    here.as_array_mut().unwrap().push(json!({"key": "topology.kubernetes.io/zone",
        "operator": "In", "values": ["us-east-1c"]}));
    overlay(&mut world, "all", json!({"requirements": family("m5"), "price": "9", "weight": 1}));
    overlay(&mut world, "here", json!({"requirements": here, "price": "0.001", "weight": 2}));
    world.pods("web", 1, json!({"cpu": "1500m", "memory": "2Gi"}), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn added_resources_let_pods_in() {
    let mut world = World::small();
    on_demand(&mut world);
    world.pods("fuse", 3, json!({"cpu": "500m", "smarter-devices/fuse": "1"}), json!({}));
    let before = world.text();
    overlay(
        &mut world,
        "fuse",
        json!({"requirements": family("c5"),
        "capacity": {"smarter-devices/fuse": "2"}}),
    );
    insta::assert_snapshot!(format!("{before}=== with the overlay\n{}", world.story()));
}

#[test]
fn what_is_wrong_with_overlays_is_told() {
    let mut world = World::small();
    on_demand(&mut world);
    overlay(&mut world, "cpu", json!({"requirements": [], "capacity": {"cpu": "1"}}));
    overlay(&mut world, "price", json!({"requirements": [], "price": "cheap"}));
    overlay(&mut world, "both", json!({"requirements": [], "price": "1", "priceAdjustment": "+1"}));
    overlay(&mut world, "a-first", json!({"requirements": family("m5"), "price": "1"}));
    overlay(&mut world, "b-second", json!({"requirements": family("m5"), "priceAdjustment": "+1"}));
    overlay(&mut world, "c-other", json!({"requirements": family("c5"), "price": "1"}));
    let faults = crate::planner::overlay_faults(&world.input());
    let text: Vec<String> = faults
        .iter()
        .map(|(name, fault)| format!("{name}: {} {}", fault.reason, fault.message))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn an_overlay_with_a_fault_has_no_effect_at_all() {
    let plan = |capacity: Option<Value>| {
        let mut world = World::small();
        on_demand(&mut world);
        world.pods("web", 3, json!({"cpu": "1"}), json!({}));
        if let Some(capacity) = capacity {
            let spec = json!({"requirements": [], "price": "0.5", "capacity": capacity});
            overlay(&mut world, "faulty", spec);
        }
        world.plan()
    };
    let without = plan(None);
    assert_eq!(plan(Some(json!({"example.com/slot": "Exists"}))).launches, without.launches);
    assert_eq!(plan(Some(json!({"memory": "1Gi"}))).launches, without.launches);
    assert_ne!(plan(Some(json!({"example.com/slot": "1"}))).launches, without.launches);
}
