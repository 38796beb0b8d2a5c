//! What EC2 lacks is told with what was needed, where, and until when it is left alone.

use serde_json::{Value, json};

use super::world::{World, all_types};
use drover_common::instance_type::CapacityType::{OnDemand, Spot};
use drover_common::instance_type::InstanceType;

use crate::planner::UnavailableOffering;

fn take(world: &mut World, capacity_type: drover_common::instance_type::CapacityType, name: &str) {
    let offering = UnavailableOffering {
        capacity_type,
        instance_type: Some(name.to_owned()),
        zone: Some("us-east-1b".to_owned()),
        reservation: None,
    };
    world.unavailable.insert(offering, "2026-01-01T14:03:00Z".parse().unwrap());
}

#[test]
fn gpus_that_are_sold_out_in_a_zone() {
    let mut world = World::small();
    world.pool(
        "gpu",
        json!([{"key": "karpenter.k8s.aws/instance-family", "operator": "In",
        "values": ["g5"]}, {"key": "karpenter.k8s.aws/instance-size", "operator": "In",
        "values": ["12xlarge"]}]),
        json!({}),
    );
    take(&mut world, Spot, "g5.12xlarge");
    take(&mut world, OnDemand, "g5.12xlarge");
    let here = json!({"spec": {"nodeSelector": {"topology.kubernetes.io/zone": "us-east-1b"}}});
    world.pods("train", 1, json!({"nvidia.com/gpu": "4"}), here);
    insta::assert_snapshot!(world.story());
}

#[test]
fn spot_that_is_gone_while_the_pod_wants_spot() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.take_offer(Spot, None);
    let spot = json!({"spec": {"nodeSelector": {"karpenter.sh/capacity-type": "spot"}}});
    world.pods("web", 1, json!({"cpu": "1", "memory": "2Gi"}), spot);
    insta::assert_snapshot!(world.story());
}

#[test]
fn every_reason_says_what_to_change() {
    let mut world = World::small();
    let family = |name: &str| {
        json!([{"key": "karpenter.k8s.aws/instance-family",
        "operator": "In", "values": [name]}])
    };
    world.pool("cpu", family("m5"), json!({}));
    let taint = json!({"template": {"spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}}});
    world.pool("gpu", family("g5"), taint);
    world.pods("huge", 1, json!({"cpu": "900"}), json!({}));
    let anywhere = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
    world.pods("gpus", 1, json!({"nvidia.com/gpu": "16"}), anywhere);
    let arm: Value = json!({"spec": {"nodeSelector": {"kubernetes.io/arch": "arm64"}}});
    world.pods("arm", 1, json!({"cpu": "500m"}), arm);
    insta::assert_snapshot!(world.story());
}

#[test]
fn types_above_the_cap_are_taken_where_nothing_smaller_is_sold() {
    let near = json!({"spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "anchor"}},
                "topologyKey": "topology.kubernetes.io/zone"}]}}}});
    let named = |name: &&InstanceType| matches!(name.name.as_str(), "m5.large" | "m5.12xlarge");
    let mut types: Vec<InstanceType> = all_types().iter().filter(named).cloned().collect();
    for kind in types.iter_mut().filter(|kind| kind.name == "m5.large") {
        kind.offerings.retain(|offering| offering.zone == "us-east-1a");
    }
    let mut world = World::with_types(types);
    world.pool("default", json!([]), json!({}));
    let there = json!({"spec": {"nodeSelector": {"topology.kubernetes.io/zone": "us-east-1b"}}});
    world.pods("anchor", 1, json!({"cpu": "47"}), there);
    world.pods("near", 1, json!({"cpu": "1"}), near);
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    let zones: Vec<&[String]> = plan.launches.iter().map(|l| l.zones.as_slice()).collect();
    assert_eq!(zones, [["us-east-1b"], ["us-east-1b"]]);
}
