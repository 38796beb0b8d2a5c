//! Capacity reservations: taken first, never beyond their room, and left for what they are for.

use std::collections::BTreeMap;

use drover_common::crd::NodeClaim;
use drover_common::instance_type::{CapacityType, ReservationKind};
use drover_common::labels;
use serde_json::{Value, json};

use super::world::World;
use crate::planner::{
    Plan, PlannerSettings, UnavailableOffering, check, launch_of_claim, plan_static,
};

fn billed(values: &[&str]) -> Value {
    json!([{"key": "karpenter.sh/capacity-type", "operator": "In", "values": values}])
}

/// A node's worth of an m5.xlarge each.
fn full() -> Value {
    json!({"cpu": "3", "memory": "8Gi"})
}

/// How many launches there are of each reservation, or billing.
fn counts(plan: &Plan) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for launch in &plan.launches {
        let what = match &launch.reservation {
            Some(target) => target.id.clone(),
            None => launch.capacity_type.to_string(),
        };
        *counts.entry(what).or_default() += 1;
    }
    counts
}

fn of<const N: usize>(wanted: [(&str, usize); N]) -> BTreeMap<String, usize> {
    wanted.into_iter().map(|(what, count)| (what.to_owned(), count)).collect()
}

fn two_reserved(values: &[&str], pods: usize, extra: Value) -> World {
    let mut world = World::small();
    world.pool("default", billed(values), json!({}));
    world.reservation("cr-1", "m5.xlarge", "us-east-1a", 2);
    world.pods("web", pods, full(), extra);
    world
}

#[test]
fn reservations_come_first_and_the_rest_is_bought() {
    let world = two_reserved(&["reserved", "on-demand"], 5, json!({}));
    assert_eq!(counts(&world.plan())["cr-1"], 2);
    insta::assert_snapshot!(world.story());
}

#[test]
fn a_launch_names_its_reservation_in_everything_that_it_is_known_by() {
    let plan = two_reserved(&["reserved", "on-demand"], 1, json!({})).plan();
    let launch = &plan.launches[0];
    assert_eq!(launch.capacity_type, CapacityType::Reserved);
    assert_eq!(launch.hourly_price_micro, 1, "it costs the same without it, but not nothing");
    for (key, value) in [
        (labels::CAPACITY_TYPE, "reserved"),
        (labels::RESERVATION_ID, "cr-1"),
        (labels::RESERVATION_TYPE, "default"),
        (labels::RESERVATION_INTERRUPTIBLE, "false"),
    ] {
        assert_eq!(launch.labels[key], value);
    }
    let pinned = |key: &str| {
        let found = launch.requirements.iter().find(|requirement| requirement.key == key);
        found.map(|requirement| requirement.values.clone()).unwrap_or_default()
    };
    assert_eq!(pinned(labels::RESERVATION_ID), ["cr-1"]);
    assert_eq!(pinned(labels::CAPACITY_TYPE), ["reserved"]);
    assert_eq!(pinned(labels::INSTANCE_TYPE), ["m5.xlarge"]);
}

#[test]
fn what_is_on_its_way_takes_its_room() {
    let mut world = two_reserved(&["reserved", "on-demand"], 5, json!({}));
    world.reserved.insert("cr-1".to_owned(), 1);
    assert_eq!(counts(&world.plan())["cr-1"], 1);
    world.reserved.insert("cr-1".to_owned(), 3);
    assert_eq!(counts(&world.plan()).get("cr-1"), None);
}

#[test]
fn pods_that_depend_on_each_other_are_counted_one_by_one() {
    let apart = json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchExpressions": [
                {"key": "app", "operator": "In", "values": ["web", "other"]}]}}]}}}});
    let mut world = two_reserved(&["reserved", "on-demand"], 3, apart.clone());
    world.pods("other", 2, json!({"cpu": "100m"}), apart);
    let counts = counts(&world.plan());
    assert_eq!(counts, of([("cr-1", 2), ("on-demand", 3)]));
}

#[test]
fn full_reservations_are_the_reason_where_nothing_else_is_allowed() {
    let world = two_reserved(&["reserved"], 4, json!({}));
    let plan = world.plan();
    assert_eq!((counts(&plan), plan.unschedulable.len()), (of([("cr-1", 2)]), 2));
    insta::assert_snapshot!(world.story());
}

#[test]
fn a_pool_has_reserved_nodes_as_its_requirements_say() {
    let not_in = json!([{"key": "karpenter.sh/capacity-type", "operator": "NotIn",
        "values": ["reserved", "spot"]}]);
    for (requirements, reserved) in [
        (json!([]), 2),
        (billed(&["on-demand", "spot"]), 0),
        (not_in, 0),
        (json!([{"key": labels::RESERVATION_TYPE, "operator": "In", "values": ["default"]}]), 2),
        (json!([{"key": labels::RESERVATION_ID, "operator": "DoesNotExist"}]), 0),
        (json!([{"key": labels::RESERVATION_ID, "operator": "In", "values": ["cr-2"]}]), 0),
    ] {
        let mut world = World::small();
        world.pool("default", requirements.clone(), json!({}));
        world.reservation("cr-1", "m5.xlarge", "us-east-1a", 2);
        world.pods("web", 3, full(), json!({}));
        let found = counts(&world.plan()).get("cr-1").copied().unwrap_or(0);
        assert_eq!(found, reserved, "{requirements}");
    }
}

#[test]
fn a_pod_may_ask_for_a_reservation() {
    let block = json!({"spec": {"nodeSelector": {labels::RESERVATION_TYPE: "capacity-block"}}});
    let mut world = two_reserved(&["reserved", "on-demand"], 1, json!({}));
    world.reserve("cr-2", "m5.2xlarge", "us-east-1b", 1, ReservationKind::CapacityBlock);
    world.pods("train", 2, full(), block);
    let plan = world.plan();
    // Both fit into the one block, and the smaller reservation is enough for the other.
    assert_eq!(counts(&plan), of([("cr-1", 1), ("cr-2", 1)]));
    let kinds = plan.launches.iter().filter_map(|launch| launch.reservation.as_ref());
    assert!(kinds.clone().any(|target| target.kind == ReservationKind::CapacityBlock));
}

#[test]
fn a_reservation_that_ec2_lately_refused_is_left_alone() {
    let mut world = two_reserved(&["reserved", "on-demand"], 3, json!({}));
    world.reservation("cr-2", "m5.xlarge", "us-east-1a", 1);
    let refused = UnavailableOffering {
        capacity_type: CapacityType::Reserved,
        instance_type: Some("m5.xlarge".to_owned()),
        zone: Some("us-east-1a".to_owned()),
        reservation: Some("cr-1".to_owned()),
    };
    world.unavailable.insert(refused, "2026-01-01T14:03:00Z".parse().unwrap());
    let counts = counts(&world.plan());
    assert_eq!((counts.get("cr-1"), counts.get("cr-2")), (None, Some(&1)));
}

#[test]
fn all_reservations_are_used_and_large_ones_are_not_too_large() {
    let mut world = World::small();
    world.pool("default", billed(&["reserved", "on-demand"]), json!({}));
    world.reservation("cr-small", "m5.xlarge", "us-east-1a", 1);
    world.reservation("cr-large", "m5.24xlarge", "us-east-1b", 1);
    world.reservation("cr-gpu", "g5.xlarge", "us-east-1a", 1);
    world.pods("web", 33, full(), json!({}));
    let plan = world.plan();
    let all = of([("cr-small", 1), ("cr-large", 1), ("on-demand", 1)]);
    assert_eq!(counts(&plan), all, "GPUs are for who asks");
    assert_eq!(plan.unschedulable, []);
}

#[test]
fn heavier_pools_come_before_reservations_of_lighter_ones() {
    let mut world = World::small();
    world.pool("heavy", billed(&["on-demand"]), json!({"weight": 10}));
    world.pool("light", billed(&["reserved"]), json!({}));
    world.reservation("cr-1", "m5.xlarge", "us-east-1a", 2);
    world.pods("web", 2, full(), json!({}));
    assert_eq!(counts(&world.plan()).get("cr-1"), None);
}

#[test]
fn two_pools_share_the_room_and_keep_their_limits() {
    let mut world = World::small();
    let taint = |weight: u32| {
        json!({"weight": weight, "limits": {"nodes": "1"},
            "template": {"spec": {"taints": [{"key": format!("t{weight}"), "effect": "NoSchedule"}]}}})
    };
    world.pool("one", billed(&["reserved", "on-demand"]), taint(1));
    world.pool("two", billed(&["reserved", "on-demand"]), taint(2));
    world.reservation("cr-1", "m5.xlarge", "us-east-1a", 1);
    let tolerates = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
    world.pods("web", 3, full(), tolerates);
    let plan = world.plan();
    assert_eq!(counts(&plan).get("cr-1"), Some(&1));
    assert!(plan.launches.len() <= 2, "a reserved node counts against its pool's limit");
}

#[test]
fn min_values_do_not_keep_a_pool_from_what_is_reserved() {
    let mut world = World::small();
    let families = json!([{"key": "karpenter.k8s.aws/instance-family", "operator": "Exists",
        "minValues": 3}]);
    world.pool("default", families, json!({}));
    world.reservation("cr-1", "m5.xlarge", "us-east-1a", 1);
    world.pods("web", 2, full(), json!({}));
    let plan = world.plan();
    assert_eq!(counts(&plan).get("cr-1"), Some(&1));
    assert_eq!(plan.launches.len(), 2);
    for capacity_type in [CapacityType::Spot, CapacityType::OnDemand] {
        world.take_offer(capacity_type, None);
    }
    let plan = world.plan();
    assert_eq!(counts(&plan), of([("cr-1", 1)]), "not even where it is all there is");
}

#[test]
fn a_static_pool_fills_its_reservation_and_goes_on() {
    for name in ["m5.xlarge", "m5.24xlarge"] {
        let mut requirements = billed(&["reserved", "on-demand"]);
        let of_type = json!({"key": labels::INSTANCE_TYPE, "operator": "In", "values": [name]});
        requirements.as_array_mut().unwrap().push(of_type);
        let mut world = World::small();
        world.pool("fixed", requirements, json!({"replicas": 3}));
        world.reservation("cr-1", name, "us-east-1a", 2);
        let launches = plan_static(&world.input(), &"fixed".into(), 3).unwrap();
        let plan = Plan { launches, ..Plan::default() };
        assert_eq!(counts(&plan), of([("cr-1", 2), ("on-demand", 1)]), "{name}");
    }
}

#[test]
fn of_reservations_of_one_size_that_of_the_cheaper_type_comes_first() {
    let mut world = World::small();
    world.pool("fixed", billed(&["reserved"]), json!({"replicas": 1}));
    world.pool("default", billed(&["reserved"]), json!({}));
    world.reservation("cr-dear", "c5.xlarge", "us-east-1a", 1);
    world.reservation("cr-cheap", "m6g.xlarge", "us-east-1a", 1);
    let launches = plan_static(&world.input(), &"fixed".into(), 1).unwrap();
    assert_eq!(counts(&Plan { launches, ..Plan::default() }), of([("cr-cheap", 1)]));
    world.pods("web", 1, json!({"cpu": "1"}), json!({}));
    assert_eq!(counts(&world.plan()), of([("cr-cheap", 1)]));
}

#[test]
fn a_claim_of_no_pool_gets_one_reservation_with_room() {
    let mut world = World::small();
    world.reservation("cr-1", "m5.xlarge", "us-east-1a", 1);
    world.reservation("cr-2", "m5.large", "us-east-1b", 1);
    let claim: NodeClaim = serde_json::from_value(json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": "mine"},
        "spec": {"requirements": billed(&["reserved", "on-demand"]),
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}},
    }))
    .unwrap();
    let launch = |reserved: &[(&str, u32)]| {
        let reserved = reserved.iter().map(|(id, count)| ((*id).to_owned(), *count)).collect();
        let catalog = &world.catalogs["default"];
        let settings = PlannerSettings::default();
        launch_of_claim(&claim, catalog, &BTreeMap::new(), &reserved, &settings).unwrap()
    };
    let first = launch(&[]);
    assert_eq!(first.reservation.unwrap().id, "cr-2", "the smaller will do");
    assert_eq!(first.offerings.len(), 1);
    assert_eq!(first.labels[labels::RESERVATION_ID], "cr-2");
    assert_eq!(launch(&[("cr-2", 1)]).reservation.unwrap().id, "cr-1");
    let none = launch(&[("cr-1", 1), ("cr-2", 1)]);
    assert_eq!((none.capacity_type, none.reservation), (CapacityType::OnDemand, None));
}

#[test]
fn the_check_finds_a_plan_that_uses_more_than_there_is() {
    let mut world = two_reserved(&["reserved", "on-demand"], 3, json!({}));
    let plan = world.plan();
    world.reserved.insert("cr-1".to_owned(), 1);
    let found = check::check(&world.input(), &plan);
    let rules: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        rules,
        ["capacity reservation cr-1: is to hold 2 more nodes and has room for 1"],
        "{rules:?}"
    );
}

/// A spread that a zone's one reserved node does not suffice for is given up, and a planned node with it: those after it
/// are still told from each other.
#[test]
fn planned_nodes_stay_apart_when_one_before_them_is_given_up() {
    let mut world = World::small();
    world.object(
        drover_common::call::Kind::DaemonSet,
        json!({
        "metadata": {"name": "log", "namespace": "kube-system"},
        "spec": {"template": {"spec": {"containers": [{"name": "d",
            "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}}}]}}}}),
    );
    let zones = json!([{"key": labels::ZONE, "operator": "In",
        "values": ["us-east-1a", "us-east-1b", "us-east-1c"]}]);
    world.pool("default", zones, json!({}));
    for billing in [CapacityType::Spot, CapacityType::OnDemand] {
        let offering = UnavailableOffering {
            capacity_type: billing,
            instance_type: None,
            zone: Some("us-east-1c".to_owned()),
            reservation: None,
        };
        world.unavailable.insert(offering, "2026-01-01T14:03:00Z".parse().unwrap());
    }
    world.reservation("cr-1", "c5.2xlarge", "us-east-1c", 1);
    let apart = json!({"spec": {
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": labels::ZONE,
            "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "web"}}}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": labels::HOSTNAME}]}}}});
    world.pods("web", 6, json!({"cpu": "3721m", "memory": "7082Mi"}), apart);
    world.pods("other", 7, json!({"cpu": "50m", "memory": "6825Mi"}), json!({}));
    let plan = world.plan();
    assert_eq!(plan.unschedulable, [], "{:?}", counts(&plan));
}

/// Three pods in one zone, spread over capacity types, where EC2 has no spot.
fn spread_over_billing(reservation: (&str, u32)) -> World {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.reservation("cr-1", reservation.0, "us-east-1b", reservation.1);
    let selector = json!({"matchLabels": {"app": "web"}});
    let rules = json!({"spec": {
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": labels::CAPACITY_TYPE,
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}],
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": selector, "topologyKey": labels::ZONE}]}}}});
    let refused = UnavailableOffering {
        capacity_type: CapacityType::Spot,
        instance_type: None,
        zone: Some("us-east-1b".to_owned()),
        reservation: None,
    };
    world.unavailable.insert(refused, "2026-01-01T14:03:00Z".parse().unwrap());
    world.pods("web", 3, json!({"cpu": "50m", "memory": "64Mi"}), rules);
    world
}

#[test]
fn of_capacity_types_that_are_equally_empty_one_that_the_zone_has_is_taken() {
    let mut world = spread_over_billing(("m5.large", 1));
    world.pods("other", 2, json!({"cpu": "50m", "memory": "6892Mi"}), json!({}));
    let plan = world.plan();
    // Somebody's node of spot, in another zone, is a domain with none: more than one apiece is too many.
    assert_eq!(counts(&plan), of([("cr-1", 1), ("on-demand", 1), ("spot", 1)]));
    assert_eq!(plan.unschedulable.len(), 1);
}

#[test]
fn a_node_of_a_reservation_is_no_domain_of_any_other_capacity_type() {
    let mut world = spread_over_billing(("m6g.xlarge", 2));
    world.pods("other", 2, json!({"cpu": "50m", "memory": "6892Mi"}), json!({}));
    let daemon = json!({"metadata": {"name": "log", "namespace": "kube-system"},
        "spec": {"template": {"spec": {"containers": [
            {"name": "d", "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}}}]}}}});
    world.object(drover_common::call::Kind::DaemonSet, daemon);
    let plan = world.plan();
    assert_eq!(plan.unschedulable.len(), 0, "{:?}", plan.unschedulable);
    assert!(plan.launches.iter().all(|one| one.capacity_type != CapacityType::Spot));
}
