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

/// Types and zones that the nodes of two pods may become, where a family's nodes have so many devices in a zone.
fn places(devices: &[(&str, &str, u32)], pods: Value) -> Vec<String> {
    let mut world = World::small();
    on_demand(&mut world);
    for (name, zone, count) in devices {
        let mut there = family(name);
        let zones =
            json!({"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]});
        there.as_array_mut().unwrap().push(zones);
        let spec =
            json!({"requirements": there, "capacity": {"example.com/fuse": count.to_string()}});
        overlay(&mut world, &format!("{name}-{zone}"), spec);
    }
    world.pods("fuse", 2, json!({"cpu": "500m"}), pods);
    let plan = world.plan();
    assert_eq!((plan.unschedulable.len(), plan.launches.len()), (0, 1), "{plan:?}");
    let mut places = Vec::new();
    for launch in &plan.launches {
        // Any type that is listed may come in any zone that is.
        for zone in &launch.zones {
            let offerings = launch.offerings.iter();
            places.extend(offerings.map(|o| format!("{} {zone}", o.instance_type)));
        }
    }
    places.sort();
    places.dedup();
    places
}

fn with_device() -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {
        "cpu": "500m", "example.com/fuse": "1"}}}]}})
}

const A: &str = "us-east-1a";
const C: &str = "us-east-1c";

#[test]
fn resources_that_are_added_in_one_zone_are_had_there_alone() {
    let right = |place: &String| place.starts_with("c5.") && place.ends_with(A);
    let found = places(&[("c5", A, 2), ("m5", C, 2)], with_device());
    assert!(!found.is_empty() && found.iter().all(right), "{found:?}");
}

#[test]
fn a_type_whose_nodes_hold_less_in_a_zone_that_is_listed_is_not() {
    let found = places(&[("c5", A, 2), ("c5", C, 2), ("m5", A, 1), ("m5", C, 2)], with_device());
    assert!(!found.is_empty() && found.iter().all(|place| place.starts_with("c5.")), "{found:?}");
    assert!(found.iter().any(|place| place.ends_with(C)), "{found:?}");
}

#[test]
fn pods_that_ask_for_nothing_that_was_added_have_all_zones_as_before() {
    let plain = || json!({"spec": {"nodeSelector": {"karpenter.k8s.aws/instance-family": "c5"}}});
    assert_eq!(places(&[("c5", A, 2)], plain()), places(&[], plain()));
}

/// Each of its nodes may come where it counts.
#[test]
fn limits_count_what_is_added_in_any_zone_that_is_listed() {
    let mut world = World::small();
    let family_c5 = json!([{"key": "karpenter.k8s.aws/instance-family", "operator": "In",
        "values": ["c5"]}, {"key": "karpenter.sh/capacity-type", "operator": "In",
        "values": ["on-demand"]}]);
    world.pool("default", family_c5, json!({"limits": {"example.com/fuse": "2"}}));
    let mut there = family("c5");
    there
        .as_array_mut()
        .unwrap()
        .push(json!({"key": "topology.kubernetes.io/zone", "operator": "In", "values": [C]}));
    overlay(&mut world, "c", json!({"requirements": there, "capacity": {"example.com/fuse": "2"}}));
    world.pods("web", 40, json!({"cpu": "3500m"}), json!({}));
    let plan = world.plan();
    let there = plan.launches.iter().filter(|launch| launch.zones.contains(&C.to_owned()));
    assert!(there.count() <= 1 && plan.unschedulable.is_empty(), "{:?}", plan.launches.len());
}

#[test]
fn resources_that_are_added_to_spot_are_had_on_spot_alone() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let spot = json!([{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]}]);
    overlay(&mut world, "spot", json!({"requirements": spot, "capacity": {"example.com/x": "1"}}));
    world.pods("web", 2, json!({"cpu": "500m", "example.com/x": "1"}), json!({}));
    let on_demand = json!({"spec": {"nodeSelector": {"karpenter.sh/capacity-type": "on-demand"}}});
    world.pods("paid", 1, json!({"cpu": "500m", "example.com/x": "1"}), on_demand);
    let plan = world.plan();
    let billed: Vec<&str> = plan.launches.iter().map(|l| l.capacity_type.as_str()).collect();
    assert_eq!((billed, plan.unschedulable.len()), (vec!["spot", "spot"], 1));
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
    let problems = world.plan().report.problems;
    let words = "NodeOverlay b-second says the same of some types as a-first, of the same weight, which counts";
    assert!(problems.iter().any(|told| told == words), "{problems:?}");
    assert_eq!(problems.len(), 4, "{problems:?}");
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
