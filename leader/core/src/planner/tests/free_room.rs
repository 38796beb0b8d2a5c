//! Free room first: nodes that are there, nodes on their way, nodes that leave.

use serde_json::{Value, json};

use super::world::{World, all_types};
use std::collections::BTreeSet;

use drover_common::id::{NodeClaimName, NodeName, NodePoolName};
use drover_common::requirement::{Requirement, Requirements};
use drover_common::resources::{ResourceName, Resources};

use crate::planner::{InFlightNode, Plan};

fn request() -> Value {
    json!({"cpu": "500m", "memory": "1Gi"})
}

pub(super) fn launch_all(world: &mut World, plan: &Plan) {
    for (number, launch) in plan.launches.iter().enumerate() {
        world.in_flight.push(InFlightNode {
            claim: NodeClaimName::from(format!("default-{number}")),
            node: None,
            nodepool: launch.nodepool.clone(),
            labels: launch.labels.clone(),
            requirements: Requirements::from_requirements(&launch.requirements).unwrap(),
            taints: launch.taints.clone(),
            allocatable: launch.allocatable.clone(),
            pods: launch.pods.clone(),
        });
    }
}

#[test]
fn a_node_on_its_way_is_as_large_as_the_least_it_may_become() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    world.pods("web", 3, request(), json!({}));
    let plan = world.plan();
    let launch = &plan.launches[0];
    let offered = |name: &str| launch.offerings.iter().any(|o| o.instance_type == name);
    let types: Vec<_> = all_types().iter().filter(|kind| offered(&kind.name)).collect();
    for name in [ResourceName::Cpu, ResourceName::Memory, ResourceName::Pods] {
        let amounts: BTreeSet<i64> = types.iter().map(|kind| kind.allocatable.get(&name)).collect();
        assert_eq!(Some(&launch.allocatable.get(&name)), amounts.first(), "{name}");
        assert!(amounts.len() > 1 || name != ResourceName::Memory, "types alike tell nothing");
    }
}

#[test]
fn of_nodes_that_are_there() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.node("n1", "m5.xlarge", "us-east-1a");
    world.running("old", "old", "n1", json!({"cpu": "2500m"}));
    world.pods("web", 4, request(), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn leaving_nodes_take_nothing_and_give_up_their_pods() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.node("n1", "m5.xlarge", "us-east-1a");
    world.running("a", "a", "n1", request());
    world.leaving.insert(NodeName::from("n1"));
    world.pods("web", 1, request(), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn nodes_in_flight_keep_the_pods_they_were_launched_for() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let near = json!({"spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"app": "web"}},
            "topologyKey": "topology.kubernetes.io/zone"}]}}}});
    world.pods("app", 5, request(), near);
    let spread = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "spread"}}}]}});
    world.pods("spread", 12, request(), spread);
    world.pods("web", 40, request(), json!({}));
    let first = world.plan();
    assert!(!first.launches.is_empty());
    launch_all(&mut world, &first);
    let second = world.plan();
    assert!(second.launches.is_empty(), "{:?}", second.launches);
    for (placement, launch) in second.placements.iter().zip(&first.launches) {
        assert_eq!(placement.pods, launch.pods);
    }
}

#[test]
fn a_node_whose_type_is_open_takes_what_every_type_it_may_become_takes() {
    let family = |operator: &str, names: Value| {
        json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "karpenter.k8s.aws/instance-family",
                    "operator": operator, "values": names}]}]}}}}})
    };
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.pods("meant", 1, json!({"cpu": "1100m"}), family("In", json!(["m5", "m6g"])));
    let first = world.plan();
    launch_all(&mut world, &first);
    world.pods("in", 1, json!({"cpu": "10m"}), family("In", json!(["c5", "m5", "m6g"])));
    world.pods("not-in", 1, json!({"cpu": "10m"}), family("NotIn", json!(["c5"])));
    world.pods("other", 1, json!({"cpu": "10m"}), family("NotIn", json!(["m5"])));
    insta::assert_snapshot!(world.story());
}

/// A claim that may become one of two types, of a pool that says more.
fn flying(requirements: Value) -> InFlightNode {
    let mut all: Vec<Requirement> = serde_json::from_value(requirements).unwrap();
    all.extend(
        serde_json::from_value::<Vec<Requirement>>(json!([
            {"key": "node.kubernetes.io/instance-type", "operator": "In",
                "values": ["c5.large", "m5.large"]},
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["us-east-1a"]},
        ]))
        .unwrap(),
    );
    InFlightNode {
        claim: NodeClaimName::from("c1"),
        node: None,
        nodepool: NodePoolName::from("default"),
        labels: [("karpenter.sh/nodepool".to_owned(), "default".to_owned())].into(),
        requirements: Requirements::from_requirements(&all).unwrap(),
        taints: Vec::new(),
        allocatable: Resources::from_quantities([
            ("cpu", "1900m"),
            ("memory", "3Gi"),
            ("pods", "29"),
        ])
        .unwrap(),
        pods: Vec::new(),
    }
}

/// How many of the pods that wait go to nodes in flight.
fn seated(world: &World) -> usize {
    world.plan().placements.iter().map(|placement| placement.pods.len()).sum()
}

#[test]
fn labels_of_types_are_no_more_open_than_the_types() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.in_flight.push(flying(json!([{"key": "karpenter.k8s.aws/instance-family",
        "operator": "In", "values": ["c5", "m5", "r5"]}])));
    let affinity = |families: Value| {
        json!({"spec": {"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "karpenter.k8s.aws/instance-family",
                "operator": "In", "values": families}]}]}}}}})
    };
    world.pods("either", 1, json!({"cpu": "100m"}), affinity(json!(["c5", "m5"])));
    assert_eq!(seated(&world), 1);
    world.pods("one", 1, json!({"cpu": "100m"}), affinity(json!(["c5", "r5"])));
    assert_eq!(seated(&world), 1, "it may become an m5");
}

#[test]
fn claims_are_alike_only_if_their_types_and_open_labels_are() {
    let zone = "topology.kubernetes.io/zone";
    let seated_on = |claims: [Value; 2], selector: Value| {
        let mut world = World::small();
        world.pool("default", json!([]), json!({}));
        for (number, requirements) in claims.into_iter().enumerate() {
            let requirements: Vec<Requirement> = serde_json::from_value(requirements).unwrap();
            let mut claim = flying(json!([]));
            claim.requirements = Requirements::from_requirements(&requirements).unwrap();
            claim.claim = NodeClaimName::from(format!("c{number}"));
            world.in_flight.push(claim);
        }
        let affinity = json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [selector]}]}}}}});
        world.pods("web", 1, json!({"cpu": "100m"}), affinity);
        let plan = world.plan();
        plan.placements.iter().map(|place| format!("{:?}", place.node_or_claim)).collect::<String>()
    };
    let types = |types: [&str; 2]| json!([{"key": "node.kubernetes.io/instance-type", "operator": "In", "values": types}]);
    let zones = |zones: [&str; 2]| json!([{"key": zone, "operator": "In", "values": zones}]);
    let amd64 = json!({"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]});
    let near = json!({"key": zone, "operator": "In", "values": ["us-east-1a", "us-east-1b"]});
    let (mixed, same) = (types(["m5.large", "m6g.large"]), types(["c5.large", "m5.large"]));
    let (far, close) = (zones(["us-east-1a", "us-east-1c"]), zones(["us-east-1a", "us-east-1b"]));
    for (wrong, right, selector) in [(mixed, same, amd64), (far, close, near)] {
        let second = seated_on([wrong.clone(), right.clone()], selector.clone());
        assert!(second.contains("c1"), "{selector}: {second}");
        let first = seated_on([right, wrong], selector.clone());
        assert!(first.contains("c0"), "{selector}: {first}");
    }
}

#[test]
fn open_labels_of_very_many_combinations_hold_up_no_plan() {
    let mut world = World::small();
    let values: Vec<String> = (0..60).map(|number| format!("v{number}")).collect();
    let open: Vec<Value> = (0..6)
        .map(|key| json!({"key": format!("k{key}"), "operator": "In", "values": values}))
        .collect();
    world.pool("default", json!([]), json!({}));
    world.in_flight.push(flying(json!(open)));
    let exist: Vec<Value> =
        (0..6).map(|key| json!({"key": format!("k{key}"), "operator": "Exists"})).collect();
    let affinity = json!({"spec": {"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": exist}]}}}}});
    world.pods("any", 1, json!({"cpu": "100m"}), affinity);
    // Each combination would do; so many are not tried.
    assert_eq!(seated(&world), 0);
    world.pods("plain", 1, json!({"cpu": "100m"}), json!({}));
    assert_eq!(seated(&world), 1);
}

#[test]
fn a_daemon_takes_room_only_on_the_types_it_runs_on() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.object(
        drover_common::call::Kind::DaemonSet,
        json!({
            "metadata": {"name": "arm", "namespace": "kube-system"},
            "spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/arch": "arm64"},
                "containers": [{"name": "d", "resources": {"requests": {"cpu": "500m"}}}]}}},
        }),
    );
    world.pods("web", 1, json!({"cpu": "1431m", "memory": "9432Mi"}), json!({}));
    let first = world.plan();
    launch_all(&mut world, &first);
    let second = world.plan();
    assert_eq!(second.launches, [], "the pod keeps its place");
    insta::assert_snapshot!(world.story());
}

#[test]
fn pods_placed_without_a_preference_keep_their_nodes_too() {
    let mut world = World::small();
    let zone = "topology.kubernetes.io/zone";
    let zones = json!([{"key": zone, "operator": "In", "values": ["us-east-1a"]}]);
    world.pool("default", zones, json!({}));
    // A zone that no pod can reach: the second of them is placed without the spread.
    world.node("full", "m5.large", "us-east-1c");
    world.running("old", "old", "full", json!({"cpu": "1900m"}));
    let large = json!({"cpu": "1500m", "memory": "1Gi"});
    let apart = json!({"matchLabels": {"app": "soft"}});
    let soft = json!({"spec": {
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": zone,
            "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": apart}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": apart, "topologyKey": "kubernetes.io/hostname"}]}}}});
    world.pods("soft", 3, large.clone(), soft);
    let first = world.plan();
    assert_eq!(first.launches.len(), 3);
    launch_all(&mut world, &first);
    world.pods("late", 1, large, json!({"spec": {"priority": 10}}));
    let second = world.plan();
    let launched: Vec<&str> =
        second.launches.iter().flat_map(|l| &l.pods).map(|pod| pod.name.as_str()).collect();
    assert_eq!(launched, ["late-0"], "the others have their nodes");
}

#[test]
fn a_node_that_joined_and_is_not_ready_yet_counts_the_pods_it_has() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.pods("web", 3, request(), json!({}));
    let first = world.plan();
    launch_all(&mut world, &first);
    world.node("n1", "m5.large", "us-east-1a");
    world.running("early", "early", "n1", json!({"cpu": "1800m"}));
    world.in_flight[0].node = Some(NodeName::from("n1"));
    world.in_flight[0].pods.clear();
    // What has come to the node is no longer free on the claim.
    let second = world.plan();
    let on_claim: usize = second.placements.iter().map(|placement| placement.pods.len()).sum();
    assert!(on_claim < 3, "{second:?}");
}

#[test]
fn pods_that_are_not_there_yet_are_planned_for_with_their_like() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.pods("web", 2, request(), json!({}));
    let like = world.view.pods().values().next().unwrap().pod.clone();
    world.virtual_pods.push(crate::planner::VirtualPods::like(&like, "web", 3));
    let plan = world.plan();
    let names: BTreeSet<&str> =
        plan.launches.iter().flat_map(|l| &l.pods).map(|pod| pod.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["web-0", "web-1", "web#0", "web#1", "web#2"]));
    insta::assert_snapshot!(world.story());
}

#[test]
fn plans_do_not_depend_on_the_order_of_events() {
    let build = |reverse: bool| {
        let mut world = World::small();
        world.pool("default", json!([]), json!({}));
        let mut apps: Vec<usize> = (0..12).collect();
        if reverse {
            apps.reverse();
        }
        for app in apps {
            let cpu = format!("{}m", 100 + app * 130);
            let memory = format!("{}Mi", 200 + app * 300);
            let request = json!({"cpu": cpu, "memory": memory});
            world.pods(&format!("app{app}"), 3 + app, request, json!({}));
        }
        world.plan()
    };
    assert_eq!(build(false), build(true));
}

#[test]
fn pods_on_nodes_in_flight_count_whatever_type_those_become() {
    let mut world = World::small();
    let zones = json!([{"key": "topology.kubernetes.io/zone", "operator": "In",
        "values": ["us-east-1a", "us-east-1c"]}]);
    world.pool("default", zones, json!({}));
    let rules = json!({"spec": {
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [
                {"key": "karpenter.k8s.aws/instance-cpu", "operator": "Gt", "values": ["1"]}]}]}}}}});
    world.pods("web", 2, json!({"cpu": "300m"}), rules.clone());
    let plan = world.plan();
    let kinds = |launch: &crate::planner::Launch| {
        launch.offerings.iter().map(|o| o.instance_type.clone()).collect::<BTreeSet<_>>().len()
    };
    assert!(plan.launches.iter().all(|launch| kinds(launch) > 1), "a type that is not decided");
    launch_all(&mut world, &plan);
    world.pods("web-more", 4, json!({"cpu": "300m"}), {
        let mut rules = rules;
        rules["metadata"] = json!({"labels": {"app": "web"}});
        rules
    });
    let more = world.plan();
    let counts: Vec<usize> = more.placements.iter().map(|placed| placed.pods.len()).collect();
    assert_eq!((counts, more.launches.len()), (vec![3, 3], 0));
}

/// Which zone a zone's id stands for is known of no node that is yet to come.
#[test]
fn pods_apart_by_a_label_that_is_not_known_keep_their_nodes_in_flight() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let away = json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {"matchLabels": {"app": "web"}},
            "topologyKey": "topology.k8s.aws/zone-id"}]}}}});
    world.pods("web", 2, request(), away);
    let first = world.plan();
    launch_all(&mut world, &first);
    let second = world.plan();
    assert!(!first.launches.is_empty() && second.launches.is_empty(), "{second:?}");
}

#[test]
fn pods_whose_place_on_a_node_in_flight_is_gone_are_bought_another() {
    let mut world = World::small();
    let zone = "topology.kubernetes.io/zone";
    let zones = |names: &[&str]| json!([{"key": zone, "operator": "In", "values": names}]);
    world.pool("default", zones(&["us-east-1a"]), json!({}));
    let away = json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": zone}]}}}});
    world.pods("web", 2, request(), away);
    let first = world.plan();
    launch_all(&mut world, &first);
    world.pool("default", zones(&["us-east-1a", "us-east-1c"]), json!({}));
    world.node("n", "m5.large", "us-east-1a");
    world.running("x", "x", "n", json!({"cpu": "1900m"}));
    let second = world.plan();
    assert_eq!(second.unschedulable, []);
    let bought: usize = second.launches.iter().map(|launch| launch.pods.len()).sum();
    assert_eq!(bought, 2, "{second:?}");
}

/// Pods that any node would do for leave a node with GPUs to those that need one.
#[test]
fn who_needs_a_gpu_has_the_node_with_one_first() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.node("gpu", "g5.xlarge", "us-east-1a");
    world.pods("plain", 1, json!({"cpu": "3500m"}), json!({}));
    world.pods("train", 1, json!({"cpu": "1", "nvidia.com/gpu": "1"}), json!({}));
    let plan = world.plan();
    assert_eq!((plan.report.on_existing, plan.report.on_new), (1, 1));
    assert!(plan.placements[0].pods[0].name.starts_with("train"));
}
