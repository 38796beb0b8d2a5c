//! Pods that are placed one by one share nodes as well as those that are packed in bulk.

use serde_json::{Value, json};

use super::world::World;

const ZONE: &str = "topology.kubernetes.io/zone";

/// What two hundred pods cost, micro-dollars an hour.
fn price(capacity_types: &[&str], more: &Value, apps: &[(&str, usize, &str)]) -> u64 {
    let mut world = World::new();
    let only = |key: &str, values: Value| json!({"key": key, "operator": "In", "values": values});
    let requirements = json!([
        only("karpenter.k8s.aws/instance-category", json!(["c", "m", "r"])),
        only("kubernetes.io/arch", json!(["amd64"])),
        only("karpenter.sh/capacity-type", json!(capacity_types)),
        {"key": "karpenter.k8s.aws/instance-generation", "operator": "Gt", "values": ["4"]},
    ]);
    world.pool("default", requirements, json!({}));
    for (app, count, cpu) in apps {
        world.pods(app, *count, json!({"cpu": cpu, "memory": "3Gi"}), more.clone());
    }
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    plan.report.hourly_price_micro
}

fn term(key: &str) -> Value {
    json!({"labelSelector": {"matchLabels": {"set": "web"}}, "topologyKey": key})
}

fn with_label(spec: Value) -> Value {
    json!({"metadata": {"labels": {"set": "web"}}, "spec": spec})
}

#[test]
fn company_in_a_zone_costs_little_more() {
    let near = json!({"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [term(ZONE)]}}});
    for types in [&["on-demand"][..], &["spot", "on-demand"]] {
        let one_zone = json!({"spec": {"nodeSelector": {ZONE: "us-east-1a"}}});
        let apart = price(types, &one_zone, &[("web", 200, "2")]);
        let together = price(types, &with_label(near.clone()), &[("web", 200, "2")]);
        assert!(together * 100 <= apart * 110, "{types:?}: {together} against {apart}");
    }
}

#[test]
fn a_preference_for_other_zones_costs_little_more() {
    let away = json!({"affinity": {"podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": term(ZONE)}]}}});
    for types in [&["on-demand"][..], &["spot", "on-demand"]] {
        let plain = price(types, &json!({}), &[("web", 200, "2")]);
        let preferring = price(types, &with_label(away.clone()), &[("web", 200, "2")]);
        assert!(preferring * 100 <= plain * 110, "{types:?}: {preferring} against {plain}");
    }
}

#[test]
fn workloads_that_share_a_spread_share_nodes() {
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"set": "web"}}}]});
    let plain = price(&["on-demand"], &json!({}), &[("web", 100, "2"), ("app", 100, "1500m")]);
    let sharing =
        price(&["on-demand"], &with_label(spread), &[("web", 100, "2"), ("app", 100, "1500m")]);
    assert!(sharing * 100 <= plain * 110, "{sharing} against {plain}");
}
