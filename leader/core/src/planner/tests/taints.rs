//! Taints of pools and nodes, startup taints, and taints that only prefer.

use serde_json::{Value, json};

use super::world::World;

fn request() -> Value {
    json!({"cpu": "500m", "memory": "1Gi"})
}

fn tainted(key: &str, effect: &str) -> Value {
    json!({"template": {"spec": {"taints": [{"key": key, "value": "yes", "effect": effect}]}}})
}

#[test]
fn only_what_tolerates_a_taint_goes_there() {
    let mut world = World::small();
    world.pool("batch", json!([]), tainted("batch", "NoSchedule"));
    world.pool("evict", json!([]), tainted("evict", "NoExecute"));
    let tolerate = |toleration: Value| json!({"spec": {"tolerations": [toleration]}});
    world.pods("plain", 1, request(), json!({}));
    let equal =
        json!({"key": "batch", "operator": "Equal", "value": "yes", "effect": "NoSchedule"});
    world.pods("equal", 1, request(), tolerate(equal));
    let other = json!({"key": "batch", "value": "no", "effect": "NoSchedule"});
    world.pods("other", 1, request(), tolerate(other));
    world.pods("exists", 1, request(), tolerate(json!({"key": "evict", "operator": "Exists"})));
    insta::assert_snapshot!(world.story());
}

#[test]
fn startup_taints_keep_nobody_away() {
    let mut world = World::small();
    let startup = json!({"template": {"spec": {"startupTaints": [
        {"key": "cni", "effect": "NoSchedule"}]}}});
    world.pool("default", json!([]), startup);
    world.pods("web", 1, request(), json!({}));
    let plan = world.plan();
    assert_eq!(plan.launches[0].startup_taints.len(), 1);
    insta::assert_snapshot!(world.story());
}

#[test]
fn a_taint_that_prefers_is_avoided_while_there_is_another_way() {
    let mut world = World::small();
    world.pool("avoid", json!([]), tainted("old", "PreferNoSchedule"));
    world.settings.max_node_vcpus = 8;
    world.pods("web", 1, request(), json!({}));
    let alone = world.story();
    world.pool("plain", json!([]), json!({}));
    insta::assert_snapshot!(format!(
        "{alone}\n=== and with a pool without the taint\n{}",
        world.text()
    ));
}

#[test]
fn taints_of_nodes_hold_as_well() {
    let mut world = World::small();
    world.node("n1", "m5.xlarge", "us-east-1a");
    let labels = world.view.nodes().values().next().unwrap().metadata.labels.clone();
    world.object(
        drover_common::call::Kind::Node,
        json!({"metadata": {"name": "n1", "labels": labels},
            "spec": {"taints": [{"key": "disk", "effect": "NoExecute"}]},
            "status": {"allocatable": {"cpu": "4", "memory": "16Gi", "pods": "50"},
                "conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    world.pods("web", 1, request(), json!({}));
    let tolerant = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
    world.pods("any", 1, request(), tolerant);
    insta::assert_snapshot!(world.story());
}
