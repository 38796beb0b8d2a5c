//! Preferences: met where possible, dropped one by one where not, in Karpenter's order.

use serde_json::{Value, json};

use drover_common::cluster::PodAffinityTerm;

use super::world::World;
use crate::planner::PreferencePolicy;
use crate::planner::rules::variants;
use crate::view::PodShape;

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

fn keep_away(app: &str, key: &str) -> Value {
    json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "podAffinityTerm": {
            "labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key}}]}}})
}

#[test]
fn preferred_anti_affinity_binds_nobody_else() {
    const ZONE: &str = "topology.kubernetes.io/zone";
    const HOST: &str = "kubernetes.io/hostname";
    // More pods than zones.
    let mut world = World::small();
    let zones = json!([{"key": ZONE, "operator": "In", "values": ["us-east-1a", "us-east-1b"]}]);
    world.pool("default", zones, json!({}));
    world.pods("web", 7, request(), json!({"spec": keep_away("web", ZONE)}));
    assert_eq!(world.plan().unschedulable, []);
    // One would rather not be where the other must be.
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let pinned = json!({ZONE: "us-east-1a"});
    let mut shy = keep_away("web", ZONE);
    shy["nodeSelector"] = pinned.clone();
    world.pods("shy", 1, request(), json!({"spec": shy}));
    world.pods("web", 1, request(), json!({"spec": {"nodeSelector": pinned}}));
    assert_eq!(world.plan().unschedulable, []);
    // More pods than nodes.
    let mut world = World::small();
    world.pool("default", json!([]), json!({"limits": {"nodes": "3"}}));
    world.pods("web", 9, request(), json!({"spec": keep_away("web", HOST)}));
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    assert_eq!(plan.launches.len(), 3, "as far apart as there are nodes");
}

#[test]
fn of_equal_preferences_the_first_listed_counts() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let zone = "topology.kubernetes.io/zone";
    let both = preferred(&[prefer(1, zone, "us-east-1b"), prefer(1, zone, "us-east-1a")]);
    world.pods("web", 1, request(), both);
    assert_eq!(world.plan().launches[0].zones, ["us-east-1b"]);
    // Karpenter drops the first of soft spreads first.
    let mut world = World::small();
    world.pool("default", json!([]), json!({"limits": {"nodes": "1"}}));
    let soft = |key: &str| {
        json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "web"}}})
    };
    let spreads = json!([soft("kubernetes.io/hostname"), soft("karpenter.sh/capacity-type")]);
    world.pods("web", 2, request(), json!({"spec": {"topologySpreadConstraints": spreads}}));
    assert_eq!(world.plan().unschedulable, []);
}

/// Karpenter's order: near pods, away from pods, nodes, spread, taints; of each the heaviest first.
#[test]
fn preferences_are_dropped_in_karpenters_order() {
    let pods = |weight: i32, app: &str| {
        json!({"weight": weight, "podAffinityTerm": {"topologyKey": "topology.kubernetes.io/zone",
            "labelSelector": {"matchLabels": {"app": app}}}})
    };
    let soft = |key: &str| {
        json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "all"}}})
    };
    let pod = json!({"metadata": {"name": "all", "namespace": "default"}, "spec": {
        "topologySpreadConstraints": [soft("first"), soft("second")],
        "affinity": {
            "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
                [pods(1, "light"), pods(9, "heavy")]},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
                [pods(5, "heavy"), pods(2, "light")]},
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
                [prefer(3, "team", "light"), prefer(7, "team", "heavy")]}}}});
    let shape = PodShape::of(&serde_json::from_value(pod).unwrap());
    let steps = variants(&shape, &[], PreferencePolicy::Respect, true, 10).unwrap();
    let apps = |terms: &[PodAffinityTerm]| -> Vec<String> {
        let labels = |term: &PodAffinityTerm| term.label_selector.clone().unwrap().match_labels;
        terms.iter().map(|term| labels(term)["app"].clone()).collect()
    };
    let told = steps.iter().map(|step| {
        let spread = step.spread.iter().map(|one| one.topology_key.clone());
        let teams = step.rules.all.iter().flat_map(|rule| rule.values.clone());
        format!(
            "near [{}] away [{}] nodes [{}] spread [{}] taints {}",
            apps(&step.preferred_affinity).join(" "),
            apps(&step.preferred_anti_affinity).join(" "),
            teams.collect::<Vec<_>>().join(" "),
            spread.collect::<Vec<_>>().join(" "),
            step.rules.strict_taints,
        )
    });
    insta::assert_snapshot!(told.collect::<Vec<_>>().join("\n"), @r"
    near [light heavy] away [light heavy] nodes [heavy] spread [second first] taints true
    near [light] away [light heavy] nodes [heavy] spread [second first] taints true
    near [] away [light heavy] nodes [heavy] spread [second first] taints true
    near [] away [light] nodes [heavy] spread [second first] taints true
    near [] away [] nodes [heavy] spread [second first] taints true
    near [] away [] nodes [light] spread [second first] taints true
    near [] away [] nodes [] spread [second first] taints true
    near [] away [] nodes [] spread [second] taints true
    near [] away [] nodes [] spread [] taints true
    near [] away [] nodes [] spread [] taints false
    ");
}
