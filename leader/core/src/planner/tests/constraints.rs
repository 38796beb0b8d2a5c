//! One scenario for each kind of constraint.

use std::collections::BTreeMap;

use drover_common::call::Kind;
use drover_common::id::{NodeClaimName, NodeName, NodePoolName};
use drover_common::requirement::Requirements;
use drover_common::resources::Resources;
use serde_json::{Value, json};

use super::world::World;
use crate::planner::{InFlightNode, PlacementTarget, Plan};

fn small() -> Value {
    json!({"cpu": "500m", "memory": "1Gi"})
}

fn by_zone(plan: &Plan) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for launch in &plan.launches {
        assert_eq!(launch.zones.len(), 1, "{:?}", launch.zones);
        *counts.entry(launch.zones[0].clone()).or_default() += launch.pods.len();
    }
    counts
}

#[test]
fn free_room_comes_first() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    world.node("n1", "m5.xlarge", "us-east-1a");
    world.running("old", "old", "n1", json!({"cpu": "2500m"}));
    world.pods("web", 4, small(), json!({}));
    let plan = world.plan();
    assert_eq!(plan.placements.len(), 1);
    assert_eq!(plan.placements[0].node_or_claim, PlacementTarget::Node(NodeName::from("n1")));
    assert_eq!(plan.placements[0].pods.len(), 2);
    assert_eq!(plan.report.on_new, 2);
}

#[test]
fn leaving_nodes_take_nothing_and_give_up_their_pods() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    world.node("n1", "m5.xlarge", "us-east-1a");
    world.running("a", "a", "n1", small());
    world.leaving.insert(NodeName::from("n1"));
    world.pods("web", 1, small(), json!({}));
    let plan = world.plan();
    assert!(plan.placements.is_empty());
    assert_eq!(plan.launches.iter().map(|launch| launch.pods.len()).sum::<usize>(), 2);
}

#[test]
fn nodes_in_flight_keep_the_pods_they_were_launched_for() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    world.pods("web", 40, small(), json!({}));
    let first = world.plan();
    assert!(!first.launches.is_empty());
    for (number, launch) in first.launches.iter().enumerate() {
        world.in_flight.push(InFlightNode {
            claim: NodeClaimName(format!("default-{number}")),
            nodepool: launch.nodepool.clone(),
            labels: launch.labels.clone(),
            requirements: Requirements::from_requirements(&launch.requirements).unwrap(),
            taints: launch.taints.clone(),
            allocatable: launch.allocatable.clone(),
            pods: launch.pods.clone(),
        });
    }
    let second = world.plan();
    assert!(second.launches.is_empty(), "{:?}", second.launches);
    for (placement, launch) in second.placements.iter().zip(&first.launches) {
        assert_eq!(placement.pods, launch.pods);
    }
}

#[test]
fn pods_spread_over_zones() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    world.node("n1", "m5.xlarge", "us-east-1a");
    world.running("web-old-0", "web", "n1", small());
    world.running("web-old-1", "web", "n1", json!({"cpu": "3"}));
    let spread = json!({"spec": {"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}],
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "topology.kubernetes.io/zone",
            "operator": "In", "values": ["us-east-1a", "us-east-1b", "us-east-1c"]}]}]}}}}});
    world.pods("web", 7, small(), spread);
    let plan = world.plan();
    assert!(plan.unschedulable.is_empty());
    let mut counts = by_zone(&plan);
    *counts.entry("us-east-1a".to_owned()).or_default() += 2;
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [3, 3, 3]);
}

#[test]
fn pods_that_avoid_each_other_get_a_node_each() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    let away = json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"app": "db"}},
            "topologyKey": "kubernetes.io/hostname"}]}}}});
    world.pods("db", 5, small(), away);
    let plan = world.plan();
    assert_eq!(plan.launches.len(), 5);
    assert!(plan.launches.iter().all(|launch| launch.pods.len() == 1));
}

#[test]
fn anti_affinity_of_running_pods_counts_too() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    world.node("n1", "m5.xlarge", "us-east-1a");
    world.add(
        Kind::Pod,
        json!({
            "metadata": {"name": "hermit", "namespace": "default"},
            "spec": {"nodeName": "n1", "affinity": {"podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [{
                    "labelSelector": {"matchLabels": {"app": "web"}},
                    "topologyKey": "kubernetes.io/hostname"}]}}},
            "status": {"phase": "Running"},
        }),
    );
    world.pods("web", 1, small(), json!({}));
    world.pods("other", 1, small(), json!({}));
    let plan = world.plan();
    assert_eq!(plan.launches.len(), 1);
    assert_eq!(plan.launches[0].pods[0].name, "web-0");
    assert_eq!(plan.placements[0].pods[0].name, "other-0");
}

#[test]
fn pods_that_like_each_other_share_a_zone() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    let near = json!({"spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"app": "pair"}},
            "topologyKey": "topology.kubernetes.io/zone"}]}}}});
    world.pods("pair", 60, json!({"cpu": "2", "memory": "4Gi"}), near);
    let plan = world.plan();
    assert!(plan.unschedulable.is_empty());
    assert!(plan.launches.len() > 1);
    assert_eq!(by_zone(&plan).len(), 1);
}

#[test]
fn a_volume_ties_a_pod_to_its_zone() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    world.add(Kind::PersistentVolume, json!({
        "metadata": {"name": "pv-1"},
        "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["us-east-1b"]}]}]}}},
    }));
    world.add(
        Kind::PersistentVolumeClaim,
        json!({
            "metadata": {"name": "data", "namespace": "default"},
            "spec": {"volumeName": "pv-1"}, "status": {"phase": "Bound"},
        }),
    );
    let volume = |claim: &str| {
        json!({"spec": {"volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}})
    };
    world.pods("db", 1, small(), volume("data"));
    world.pods("lost", 1, small(), volume("nothing"));
    let plan = world.plan();
    assert_eq!(by_zone(&plan), BTreeMap::from([("us-east-1b".to_owned(), 1)]));
    assert_eq!(
        plan.unschedulable[0].reasons[0].1,
        "PersistentVolumeClaim default/nothing does not exist"
    );
}

#[test]
fn host_ports_are_not_shared() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    let port = json!({"spec": {"containers": [{"name": "main", "ports": [{"hostPort": 8080}],
        "resources": {"requests": {"cpu": "100m"}}}]}});
    world.pods("edge", 3, small(), port);
    assert_eq!(world.plan().launches.len(), 3);
}

#[test]
fn weight_decides_before_price() {
    let mut world = World::new();
    let family = |name: &str| json!([{"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": [name]}]);
    world.pool("dear", family("r5"), json!({"weight": 10, "limits": {"cpu": "8"}}));
    world.pool("cheap", family("c5"), json!({}));
    world.pods("web", 8, json!({"cpu": "1500m", "memory": "2Gi"}), json!({}));
    let plan = world.plan();
    assert!(plan.unschedulable.is_empty());
    let pools: Vec<&str> = plan.launches.iter().map(|launch| launch.nodepool.as_str()).collect();
    assert!(pools.contains(&"dear") && pools.contains(&"cheap"), "{pools:?}");
}

#[test]
fn limits_hold_and_are_named() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({"limits": {"cpu": "10"}}));
    world.usage.insert(
        NodePoolName::from("default"),
        Resources::from_quantities([("cpu", "8"), ("nodes", "2")]).unwrap(),
    );
    world.pods("web", 3, json!({"cpu": "1500m", "memory": "2Gi"}), json!({}));
    insta::assert_snapshot!(world.text());
}

#[test]
fn preferences_are_met_where_possible_and_dropped_where_not() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    let prefer = |zone: &str| {
        json!({"spec": {"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {
            "matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In",
            "values": [zone]}]}}]}}}})
    };
    world.pods("there", 1, small(), prefer("us-east-1c"));
    world.pods("nowhere", 1, small(), prefer("moon-1a"));
    let plan = world.plan();
    assert!(plan.unschedulable.is_empty());
    let there = plan.launches.iter().find(|l| l.pods.iter().any(|p| p.name == "there-0")).unwrap();
    assert_eq!(there.zones, ["us-east-1c"]);
}

#[test]
fn daemons_take_their_room_on_every_new_node() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    world.add(
        Kind::DaemonSet,
        json!({
            "metadata": {"name": "log", "namespace": "kube-system"},
            "spec": {"template": {"metadata": {"labels": {"app": "log"}}, "spec": {"containers": [
                {"name": "log", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}}},
        }),
    );
    world.pods("web", 1, json!({"cpu": "1500m", "memory": "1Gi"}), json!({}));
    let plan = world.plan();
    let requests = &plan.launches[0].requests;
    assert_eq!(requests.get(&"cpu".into()), 2500);
    assert_eq!(requests.get(&"pods".into()), 2);
}

#[test]
fn an_open_label_is_fixed_by_the_pods_that_ask() {
    let mut world = World::new();
    world.pool(
        "default",
        json!([{"key": "team", "operator": "In", "values": ["red", "blue"]}]),
        json!({}),
    );
    let team = |name: &str| json!({"spec": {"nodeSelector": {"team": name}}});
    world.pods("a", 1, small(), team("red"));
    world.pods("b", 1, small(), team("blue"));
    world.pods("c", 1, small(), team("green"));
    let plan = world.plan();
    let mut teams: Vec<&str> = plan.launches.iter().map(|l| l.labels["team"].as_str()).collect();
    teams.sort_unstable();
    assert_eq!(teams, ["blue", "red"]);
    assert_eq!(
        plan.unschedulable[0].reasons[0].1,
        "needs team In [green]; its nodes have blue, red"
    );
}

#[test]
fn min_values_keep_a_launch_diverse() {
    let mut world = World::new();
    world.pool(
        "default",
        json!([
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
            {"key": "karpenter.k8s.aws/instance-family", "operator": "Exists", "minValues": 12},
        ]),
        json!({}),
    );
    world.pods("web", 3, small(), json!({}));
    for launch in world.plan().launches {
        let families: std::collections::BTreeSet<&str> =
            launch.offerings.iter().filter_map(|o| o.instance_type.split('.').next()).collect();
        assert!(families.len() >= 12, "{families:?}");
    }
}

#[test]
fn every_reason_says_what_to_change() {
    let mut world = World::new();
    world.pool(
        "cpu",
        json!([{"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["m5"]}]),
        json!({}),
    );
    world.pool(
        "gpu",
        json!([{"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["g5"]}]),
        json!({"template": {"spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}}}),
    );
    world.pods("huge", 1, json!({"cpu": "900"}), json!({}));
    world.pods(
        "gpus",
        1,
        json!({"nvidia.com/gpu": "16"}),
        json!({"spec": {"tolerations": [{"operator": "Exists"}]}}),
    );
    world.pods(
        "arm",
        1,
        small(),
        json!({"spec": {"nodeSelector": {"kubernetes.io/arch": "arm64"}}}),
    );
    insta::assert_snapshot!(world.text());
}

#[test]
fn plans_do_not_depend_on_the_order_of_events() {
    let build = |reverse: bool| {
        let mut world = World::new();
        world.pool("default", json!([]), json!({}));
        let mut apps: Vec<usize> = (0..12).collect();
        if reverse {
            apps.reverse();
        }
        for app in apps {
            let cpu = format!("{}m", 100 + app * 130);
            let memory = format!("{}Mi", 200 + app * 300);
            world.pods(
                &format!("app{app}"),
                3 + app,
                json!({"cpu": cpu, "memory": memory}),
                json!({}),
            );
        }
        world.plan()
    };
    assert_eq!(build(false), build(true));
}

#[test]
fn under_a_limit_the_more_important_pod_is_placed() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({"limits": {"cpu": "2"}}));
    let priority = |priority: i32| json!({"spec": {"priority": priority}});
    world.pods("batch", 1, json!({"cpu": "1800m", "memory": "3Gi"}), priority(i32::MIN));
    world.pods("web", 1, json!({"cpu": "1500m", "memory": "2Gi"}), priority(i32::MAX));
    let plan = world.plan();
    assert_eq!(plan.launches.len(), 1);
    assert_eq!(plan.launches[0].pods[0].name, "web-0");
    assert_eq!(plan.unschedulable[0].pod.name, "batch-0");
}

#[test]
fn a_spread_that_limits_cut_short_is_kept_even() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({"limits": {"cpu": "8"}}));
    let spread = json!({"spec": {"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    world.pods("web", 20, json!({"cpu": "1500m", "memory": "2Gi"}), spread);
    let plan = world.plan();
    assert!(!plan.unschedulable.is_empty());
    assert!(plan.report.on_new > 0);
    let counts = by_zone(&plan);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}
