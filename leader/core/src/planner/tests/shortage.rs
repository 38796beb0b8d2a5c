//! What EC2 lacks is told with what was needed, where, and until when it is left alone.

use serde_json::{Value, json};

use super::world::World;
use drover_common::instance_type::CapacityType::{OnDemand, Spot};

use crate::planner::UnavailableOffering;

fn take(world: &mut World, capacity_type: drover_common::instance_type::CapacityType, name: &str) {
    let offering = UnavailableOffering {
        capacity_type,
        instance_type: Some(name.to_owned()),
        zone: Some("us-east-1b".to_owned()),
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
