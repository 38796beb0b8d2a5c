//! Preferences of pods that are moved: what their nodes were bought for is kept.

use drover_common::instance_type::CapacityType;
use serde_json::{Value, json};

use super::cluster::Cluster;

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

/// Three nodes in three zones with a pod each, whose sum is cheaper on one.
fn apart(said: &Value) -> Cluster {
    let mut cluster = Cluster::new(json!({}));
    for (number, zone) in ["us-east-1a", "us-east-1b", "us-east-1c"].into_iter().enumerate() {
        let name = format!("n{number}");
        cluster.node(&name, "t4g.medium", zone, CapacityType::OnDemand);
        let requests = json!({"cpu": "300m", "memory": "500Mi"});
        cluster.running(&format!("web-{number}"), "web", &name, requests, said.clone());
    }
    cluster
}

/// How many nodes are left once all batches are carried out.
fn nodes_left(cluster: &Cluster) -> usize {
    let plan = cluster.repack();
    cluster.nodes.len() + plan.report.launched - plan.report.removed
}

fn affinity(side: &str, app: &str, key: &str) -> Value {
    json!({"spec": {"affinity": {side: {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "podAffinityTerm": {
            "labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key}}]}}}})
}

#[test]
fn pods_that_prefer_to_be_apart_stay_apart() {
    let soft = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": ZONE,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    assert!(nodes_left(&apart(&json!({}))) < 3, "nothing else keeps them");
    assert_eq!(nodes_left(&apart(&soft)), 3);
    assert_eq!(nodes_left(&apart(&affinity("podAntiAffinity", "web", HOST))), 3);
    let mut ignoring = apart(&soft);
    ignoring.world.settings.preference_policy = crate::planner::PreferencePolicy::Ignore;
    assert!(nodes_left(&ignoring) < 3);
}

#[test]
fn preferences_that_nothing_meets_hold_no_node() {
    let moon = json!({"spec": {"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {
            "matchExpressions": [{"key": ZONE, "operator": "In", "values": ["moon-1a"]}]}}]}}}});
    assert!(nodes_left(&apart(&moon)) < 3);
    assert!(nodes_left(&apart(&affinity("podAffinity", "nobody", ZONE))) < 3);
}

#[test]
fn preferences_that_are_not_met_now_hold_no_node() {
    let soft = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": ZONE,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    // More pods than zones, each of which would rather be alone in its zone; and zones that are uneven.
    for (said, zones) in [
        (affinity("podAntiAffinity", "web", ZONE), ["us-east-1a", "us-east-1a", "us-east-1b"]),
        (soft, ["us-east-1a", "us-east-1a", "us-east-1a"]),
    ] {
        let mut cluster = Cluster::new(json!({}));
        for (number, zone) in zones.into_iter().enumerate() {
            let name = format!("n{number}");
            cluster.node(&name, "t4g.medium", zone, CapacityType::OnDemand);
            let requests = json!({"cpu": "300m", "memory": "500Mi"});
            cluster.running(&format!("web-{number}"), "web", &name, requests, said.clone());
        }
        assert!(nodes_left(&cluster) < 3, "{said}");
    }
}
