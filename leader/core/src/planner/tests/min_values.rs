//! `minValues`: a launch stays diverse, or says that it could not.

use std::collections::BTreeSet;

use drover_common::requirement::Requirement;
use serde_json::{Value, json};

use super::world::World;

/// Of a label of EC2's types.
fn values_of(label: &str, least: u32) -> Value {
    let key = format!("karpenter.k8s.aws/{label}");
    json!([
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
        {"key": key, "operator": "Exists", "minValues": least},
    ])
}

fn families(least: u32) -> Value {
    values_of("instance-family", least)
}

#[test]
fn a_launch_lists_as_many_values_as_are_wanted() {
    let mut world = World::small();
    world.pool("default", families(4), json!({}));
    world.pods("web", 3, json!({"cpu": "500m", "memory": "1Gi"}), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn strictly_too_few_are_none() {
    let mut world = World::small();
    world.pool("default", families(9), json!({}));
    world.pods("web", 1, json!({"cpu": "500m", "memory": "1Gi"}), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn with_best_effort_as_many_as_there_are_will_do() {
    let mut world = World::small();
    world.settings.min_values_policy = crate::planner::MinValuesPolicy::BestEffort;
    world.pool("default", families(9), json!({}));
    world.pods("web", 1, json!({"cpu": "500m", "memory": "1Gi"}), json!({}));
    let launch = &world.plan().launches[0];
    assert!(launch.min_values_relaxed);
    // As many as it has, as Karpenter puts on the NodeClaim; nine could never be had.
    let of_family = |r: &&Requirement| r.key == "karpenter.k8s.aws/instance-family";
    let wanted = launch.requirements.iter().find(of_family).unwrap();
    let families: BTreeSet<&str> = launch
        .offerings
        .iter()
        .filter_map(|offering| offering.instance_type.split('.').next())
        .collect();
    assert_eq!(wanted.min_values.unwrap() as usize, families.len());
    insta::assert_snapshot!(world.story());
}

/// In some zones pods allow too few families: the launch leaves these out.
#[test]
fn zones_in_which_pods_allow_too_few_types_are_left_out() {
    let plan = |out: &[&str], best_effort: bool| {
        let mut world = World::small();
        let zone = "topology.kubernetes.io/zone";
        let family = "karpenter.k8s.aws/instance-family";
        let all = ["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d"];
        world.pool(
            "default",
            json!([{"key": zone, "operator": "In", "values": all, "minValues": 2},
                {"key": family, "operator": "Exists", "minValues": 3}]),
            json!({}),
        );
        if best_effort {
            world.settings.min_values_policy = crate::planner::MinValuesPolicy::BestEffort;
        }
        let terms = json!([
            {"matchExpressions": [{"key": zone, "operator": "NotIn", "values": out},
                {"key": "karpenter.k8s.aws/instance-cpu", "operator": "Gt", "values": ["3"]}]},
            {"matchExpressions": [{"key": family, "operator": "In", "values": ["r5", "m6g"]}]}]);
        let affinity = json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}});
        world.pods("web", 1, json!({"cpu": "50m", "memory": "64Mi"}), affinity);
        let plan = world.plan();
        let launch = plan.launches.first();
        launch.map(|launch| (launch.zones.join(" "), launch.min_values_relaxed))
    };
    let found = |zones: &str, relaxed| Some((zones.to_owned(), relaxed));
    for best_effort in [false, true] {
        let one = plan(&["us-east-1b"], best_effort);
        assert_eq!(one, found("us-east-1a us-east-1c us-east-1d", false));
        let two = plan(&["us-east-1b", "us-east-1c"], best_effort);
        assert_eq!(two, found("us-east-1a us-east-1d", false));
    }
    let three = ["us-east-1b", "us-east-1c", "us-east-1d"];
    assert_eq!(plan(&three, false), None, "one zone is not two");
    let all = "us-east-1a us-east-1b us-east-1c us-east-1d";
    assert_eq!(plan(&three, true), found(all, true));
}

/// The emptiest zone can't be bought in; the pods go to the others as far as their skew lets them.
#[test]
fn a_spread_passes_over_a_zone_with_too_few_types() {
    let mut world = World::small();
    let (zone, family) = ("topology.kubernetes.io/zone", "karpenter.k8s.aws/instance-family");
    let zones = json!({"key": zone, "operator": "In",
        "values": ["us-east-1a", "us-east-1b", "us-east-1c"]});
    let least = json!({"key": family, "operator": "Exists", "minValues": 3});
    world.pool("default", json!([zones, least]), json!({}));
    world.node("n0", "m5.2xlarge", "us-east-1a");
    world.node("n2", "m5.2xlarge", "us-east-1c");
    let terms = json!([
        {"matchExpressions": [{"key": zone, "operator": "NotIn", "values": ["us-east-1b"]}]},
        {"matchExpressions": [{"key": family, "operator": "In", "values": ["r5", "m6g"]}]}]);
    let spread = json!({"spec": {
        "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": zone,
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": terms}}}}});
    world.pods("web", 5, json!({"cpu": "1500m", "memory": "13Gi"}), spread);
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    assert!(plan.launches.iter().all(|launch| !launch.zones.contains(&"us-east-1b".to_owned())));
}

fn on_demand(more: Value) -> Value {
    let billing =
        json!({"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]});
    json!([billing, more])
}

/// Larger nodes than wanted are listed for the sake of values, and planned as the smallest.
#[test]
fn values_beyond_the_size_cap_are_listed() {
    let mut world = World::new();
    let types = ["m5.4xlarge", "m5.12xlarge", "m5.16xlarge"];
    let three = json!({"key": "node.kubernetes.io/instance-type", "operator": "In",
        "values": types, "minValues": 3});
    world.pool("default", on_demand(three), json!({}));
    world.pods("web", 1, json!({"cpu": "1", "memory": "1Gi"}), json!({}));
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    let launch = &plan.launches[0];
    let listed: BTreeSet<&str> =
        launch.offerings.iter().map(|offering| offering.instance_type.as_str()).collect();
    assert_eq!(listed, BTreeSet::from(types));
    assert_eq!(launch.offerings[0].instance_type, "m5.4xlarge");
}

/// Values that are had without accelerators are, and the cheapest node stays the cheapest.
#[test]
fn a_node_is_planned_as_the_cheapest_however_many_values_are_wanted() {
    let cheapest = |least: Option<u32>| {
        let mut world = World::new();
        let size = json!({"key": "karpenter.k8s.aws/instance-size", "operator": "Exists",
            "minValues": least});
        world.pool("default", on_demand(size), json!({}));
        world.pods("web", 1, json!({"cpu": "1", "memory": "1Gi"}), json!({}));
        let plan = world.plan();
        let launch = &plan.launches[0];
        assert!(!launch.min_values_relaxed);
        (launch.offerings[0].instance_type.clone(), launch.hourly_price_micro)
    };
    assert_eq!(cheapest(Some(10)), cheapest(None));
}

#[test]
fn many_pods_are_not_put_on_accelerators_for_the_sake_of_values() {
    let mut world = World::new();
    let cpus = json!({"key": "karpenter.k8s.aws/instance-cpu", "operator": "In",
        "values": ["8", "48", "96"], "minValues": 3});
    world.pool("default", on_demand(cpus), json!({}));
    world.pods("web", 60, json!({"cpu": "900m", "memory": "1Gi"}), json!({}));
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    for launch in &plan.launches {
        let first = &launch.offerings[0];
        let exotic = ["inf", "trn", "g4", "g5", "g6", "p", "dl", "vt", "f1", "f2"];
        assert!(!exotic.iter().any(|family| first.instance_type.starts_with(family)), "{first:?}");
    }
}

#[test]
fn where_limits_leave_too_few_types_another_pool_is_taken() {
    let mut world = World::small();
    world.pool(
        "heavy",
        values_of("instance-cpu", 4),
        json!({"weight": 10, "limits": {"cpu": "4"}}),
    );
    world.pool("light", json!([]), json!({}));
    world.pods("web", 1, json!({"cpu": "500m", "memory": "1Gi"}), json!({}));
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    assert_eq!(plan.launches[0].nodepool.as_str(), "light");
}

#[test]
fn what_fewer_nodes_leave_under_limits_does_for_some() {
    let apart = json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "web"}},
                "topologyKey": "kubernetes.io/hostname"}]}}}});
    let mut world = World::small();
    world.pool("default", values_of("instance-cpu", 4), json!({"limits": {"cpu": "20"}}));
    world.pods("web", 8, json!({"cpu": "500m", "memory": "1Gi"}), apart);
    let plan = world.plan();
    assert_eq!(plan.report.problems, [""; 0]);
    assert!(!plan.launches.is_empty() && !plan.unschedulable.is_empty(), "{}", world.text());
    for left in &plan.unschedulable {
        assert!(left.reasons[0].1.contains("minValues"), "{}", left.reasons[0].1);
    }
}
