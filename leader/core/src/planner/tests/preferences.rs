//! Preferences: met where possible, dropped one by one where not, in Karpenter's order.

use serde_json::{Value, json};

use super::world::World;

fn prefer(weight: i32, key: &str, value: &str) -> Value {
    json!({"weight": weight, "preference": {"matchExpressions": [
        {"key": key, "operator": "In", "values": [value]}]}})
}

fn preferred(terms: &[Value]) -> Value {
    json!({"spec": {"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": terms}}}})
}

fn request() -> Value {
    json!({"cpu": "500m", "memory": "1Gi"})
}

#[test]
fn the_heaviest_node_preference_that_can_be_met_is_met() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let zone = "topology.kubernetes.io/zone";
    world.pods("there", 1, request(), preferred(&[prefer(1, zone, "us-east-1c")]));
    world.pods("nowhere", 1, request(), preferred(&[prefer(1, zone, "moon-1a")]));
    let second = preferred(&[prefer(90, zone, "moon-1a"), prefer(10, zone, "us-east-1b")]);
    world.pods("second", 1, request(), second);
    insta::assert_snapshot!(world.story());
}

#[test]
fn preferences_of_pods_and_soft_spread_are_met_where_possible() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let term = |app: &str, key: &str| {
        json!([{"weight": 1, "podAffinityTerm": {
        "labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key}}])
    };
    let host = "kubernetes.io/hostname";
    let apart = json!({"spec": {"affinity": {"podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": term("apart", host)}}}});
    world.pods("apart", 3, request(), apart);
    let nobody = json!({"spec": {"affinity": {"podAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": term("nobody", host)}}}});
    world.pods("lonely", 1, request(), nobody);
    let soft = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "soft"}}}]}});
    world.pods("soft", 6, request(), soft);
    insta::assert_snapshot!(world.story());
}

#[test]
fn node_preferences_go_before_soft_spread() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    // Both can't hold: pods of one zone are not spread.
    let both = json!({"spec": {
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            prefer(1, "topology.kubernetes.io/zone", "us-east-1a")]}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "both"}}}]}});
    world.pods("both", 6, request(), both);
    insta::assert_snapshot!(world.story());
}

#[test]
fn preferences_can_be_ignored_from_the_start() {
    let mut world = World::small();
    world.settings.preference_policy = crate::planner::PreferencePolicy::Ignore;
    world.pool("default", json!([]), json!({}));
    let zone = prefer(1, "karpenter.k8s.aws/instance-family", "g5");
    world.pods("web", 1, request(), preferred(&[zone]));
    insta::assert_snapshot!(world.story());
}
