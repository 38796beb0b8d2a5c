//! The worked examples: what a newcomer tries first, on the repository's own catalogue.

use std::collections::BTreeSet;

use drover_common::instance_type::{CapacityType, Offering};
use serde_json::{Value, json};

use super::world::{World, all_types};
use crate::planner::UnavailableOffering;

const ON_DEMAND: &str =
    r#"[{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}]"#;

fn on_demand() -> serde_json::Value {
    serde_json::from_str(ON_DEMAND).unwrap()
}

#[test]
fn one_pod_of_a_core_and_a_half() {
    let mut world = World::new();
    world.pool("default", on_demand(), json!({}));
    world.pods("web", 1, json!({"cpu": "1500m", "memory": "3Gi"}), json!({}));
    insta::assert_snapshot!(world.text());
}

#[test]
fn one_core_on_amd64() {
    let mut world = World::new();
    world.pool("default", on_demand(), json!({}));
    world.pods(
        "web",
        1,
        json!({"cpu": "1", "memory": "2Gi"}),
        json!({"spec": {"nodeSelector": {"kubernetes.io/arch": "amd64"}}}),
    );
    let plan = world.plan();
    assert!(plan.launches.iter().all(|launch| launch.labels["kubernetes.io/arch"] == "amd64"));
    insta::assert_snapshot!(world.text());
}

/// The guide this example is from buys c5.xlarge and r5.large: 6 vCPU and 24 GiB, $0.296 an hour.
/// One t4g.xlarge is 55 % cheaper.
#[test]
fn three_workloads_together() {
    let mut world = World::new();
    world.pool("default", on_demand(), json!({}));
    world.pods("a", 1, json!({"cpu": "500m", "memory": "1Gi"}), json!({}));
    world.pods("b", 1, json!({"cpu": "2", "memory": "4Gi"}), json!({}));
    world.pods("c", 1, json!({"cpu": "250m", "memory": "8Gi"}), json!({}));
    let plan = world.plan();
    let price_of = |name: &str| {
        let found = all_types().iter().find(|kind| kind.name == name).unwrap();
        let on_demand = |offer: &&Offering| offer.capacity_type == CapacityType::OnDemand;
        found.offerings.iter().find(on_demand).unwrap().price.unwrap()
    };
    let guide = price_of("c5.xlarge") + price_of("r5.large");
    assert_eq!(guide, 296_000);
    let cheaper = 100 - plan.report.hourly_price_micro * 100 / guide;
    assert!(cheaper >= 50, "only {cheaper} % cheaper than the guide");
    insta::assert_snapshot!(world.text());
}

#[test]
fn a_gpu_on_demand() {
    let taint = json!([{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]);
    let mut world = gpu_pool(json!({"template": {"spec": {"taints": taint}}}));
    world.pods(
        "train",
        1,
        json!({"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "1"}),
        json!({"spec": {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}}),
    );
    world.pods("plain", 1, json!({"cpu": "1"}), json!({}));
    insta::assert_snapshot!(world.text());
}

#[test]
fn every_gpu_family_is_a_candidate() {
    for family in ["p3dn", "p4d", "g4dn", "g5"] {
        let mut world = World::new();
        world.pool(
            "gpu",
            json!([
                {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                {"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": [family]},
            ]),
            json!({}),
        );
        world.pods("train", 1, json!({"cpu": "1", "nvidia.com/gpu": "1"}), json!({}));
        let plan = world.plan();
        let types: Vec<&str> = plan
            .launches
            .iter()
            .flat_map(|launch| launch.offerings.iter().map(|offer| offer.instance_type.as_str()))
            .collect();
        assert!(!types.is_empty(), "{family}: {:?}", plan.unschedulable);
        assert!(types.iter().all(|name| name.split('.').next() == Some(family)), "{types:?}");
    }
}

/// The families of everything a pool's only pod may become: what its launch lists, then what that lists
/// once EC2 has none of it left, and so on. (At first it lists none that is 60 times as dear, or larger than
/// nodes are to be as long as smaller ones are there.)
fn candidates(world: &mut World) -> Vec<BTreeSet<String>> {
    let mut rounds = Vec::new();
    loop {
        let plan = world.plan();
        let Some(launch) = plan.launches.first() else { return rounds };
        let family = |name: &str| name.split('.').next().unwrap().to_owned();
        rounds.push(launch.offerings.iter().map(|o| family(&o.instance_type)).collect());
        for offering in &launch.offerings {
            let gone = UnavailableOffering {
                capacity_type: launch.capacity_type,
                instance_type: Some(offering.instance_type.to_string()),
                zone: None,
                reservation: None,
            };
            world.unavailable.insert(gone, "2100-01-01T00:00:00Z".parse().unwrap());
        }
    }
}

/// On-demand nodes of the four families.
fn gpu_pool(extra: Value) -> World {
    let mut world = World::new();
    world.pool(
        "gpu",
        json!([
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
            {"key": "karpenter.k8s.aws/instance-family", "operator": "In",
             "values": ["p3dn", "p4d", "g4dn", "g5"]},
        ]),
        extra,
    );
    world
}

#[test]
fn every_gpu_family_is_among_the_candidates_of_one_pod() {
    let all: BTreeSet<String> = ["p3dn", "p4d", "g4dn", "g5"].map(str::to_owned).into();
    let mut world = gpu_pool(json!({}));
    world.pods("train", 1, json!({"cpu": "1", "nvidia.com/gpu": "1"}), json!({}));
    let rounds = candidates(&mut world);
    let found: BTreeSet<String> = rounds.iter().flatten().cloned().collect();
    assert_eq!(found, all, "{rounds:?}");
    let first: BTreeSet<String> = ["g4dn", "g5"].map(str::to_owned).into();
    assert_eq!(rounds[0], first, "the cheapest come first");
    // Of a pod that needs a large node, one launch lists all four.
    let mut world = gpu_pool(json!({}));
    world.pods("train", 1, json!({"cpu": "1", "nvidia.com/gpu": "8"}), json!({}));
    assert_eq!(candidates(&mut world)[0], all);
}

#[test]
fn much_memory_behind_a_taint() {
    let mut world = World::new();
    world.pool(
        "memory",
        json!([
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
            {"key": "karpenter.k8s.aws/instance-family", "operator": "In",
             "values": ["r5", "r6i", "x1e"]},
        ]),
        json!({"template": {"spec": {"taints": [
            {"key": "memory", "value": "high", "effect": "NoSchedule"}]}}}),
    );
    world.pods(
        "cache",
        1,
        json!({"cpu": "500m", "memory": "32Gi"}),
        json!({"spec": {"tolerations": [
            {"key": "memory", "operator": "Equal", "value": "high", "effect": "NoSchedule"}]}}),
    );
    let plan = world.plan();
    for family in ["r5.", "r6i.", "x1e."] {
        let mut offered = plan.launches.iter().flat_map(|launch| &launch.offerings);
        assert!(offered.any(|offer| offer.instance_type.starts_with(family)), "{family}");
    }
    insta::assert_snapshot!(world.text());
}

#[test]
fn plain_pods_never_buy_gpus() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    world.pods("web", 200, json!({"cpu": "3", "memory": "13Gi"}), json!({}));
    let plan = world.plan();
    assert!(plan.unschedulable.is_empty());
    for launch in &plan.launches {
        for offering in &launch.offerings {
            let family = offering.instance_type.split('.').next().unwrap();
            let letters: String = family.chars().take_while(char::is_ascii_alphabetic).collect();
            assert!(
                !matches!(letters.as_str(), "g" | "gr" | "p" | "inf" | "trn" | "dl" | "vt"),
                "{family}"
            );
        }
    }
}

#[test]
fn spot_is_taken_with_many_types_and_left_where_it_is_gone() {
    use drover_common::instance_type::CapacityType::{OnDemand, Spot};
    let mut world = World::new();
    let both = json!([{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot", "on-demand"]}]);
    world.pool("default", both, json!({}));
    world.pods("web", 10, json!({"cpu": "1", "memory": "2Gi"}), json!({}));
    let plan = world.plan();
    for launch in &plan.launches {
        assert_eq!(launch.capacity_type, Spot);
        let types: std::collections::BTreeSet<_> =
            launch.offerings.iter().map(|offering| &offering.instance_type).collect();
        assert!(types.len() >= 15, "{}", types.len());
    }
    world.take_offer(Spot, Some("us-east-1a"));
    let plan = world.plan();
    assert!(plan.launches.iter().all(|launch| launch.capacity_type == Spot));
    assert!(plan.launches.iter().all(|launch| !launch.zones.contains(&"us-east-1a".to_owned())));
    world.take_offer(Spot, None);
    let plan = world.plan();
    assert!(plan.unschedulable.is_empty());
    assert!(plan.launches.iter().all(|launch| launch.capacity_type == OnDemand));
    world.take_offer(OnDemand, None);
    insta::assert_snapshot!(world.text());
}
