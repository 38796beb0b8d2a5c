//! What NodeClaims made by hand become, against the repository's own catalogue.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::crd::NodeClaim;
use drover_common::instance_type::CapacityType;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::world::all_types;
use crate::nodeclass::NodeClassCatalog;
use crate::planner::{Launch, PlannerSettings, UnavailableOffering, launch_of_claim};

fn claim(requirements: Value, requests: Value) -> NodeClaim {
    serde_json::from_value(json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
        "metadata": {"name": "mine"},
        "spec": {
            "requirements": requirements,
            "resources": {"requests": requests},
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
        },
    }))
    .unwrap()
}

fn catalog() -> NodeClassCatalog {
    NodeClassCatalog::new(all_types().to_vec(), false)
}

fn launch(requirements: Value, requests: Value) -> Launch {
    let claim = claim(requirements, requests);
    launch_of_claim(
        &claim,
        &catalog(),
        &BTreeMap::new(),
        &BTreeMap::new(),
        &PlannerSettings::default(),
    )
    .unwrap()
}

fn is_in(key: &str, values: &[&str]) -> Value {
    json!({"key": key, "operator": "In", "values": values})
}

#[test]
fn spot_comes_first_and_never_above_the_cheapest_on_demand_price() {
    let amd64 = is_in("kubernetes.io/arch", &["amd64"]);
    let both = launch(json!([amd64]), json!({"cpu": "2", "memory": "4Gi"}));
    assert_eq!(both.capacity_type, CapacityType::Spot);
    let on_demand = is_in("karpenter.sh/capacity-type", &["on-demand"]);
    let dear = launch(json!([amd64, on_demand]), json!({"cpu": "2", "memory": "4Gi"}));
    assert_eq!(dear.capacity_type, CapacityType::OnDemand);
    let prices: Vec<u64> = both.offerings.iter().filter_map(|offer| offer.price_micro).collect();
    assert!(prices.is_sorted());
    let types: BTreeSet<&str> = both.offerings.iter().map(|o| o.instance_type.as_str()).collect();
    assert!(types.len() <= 60);
    assert!(
        types.iter().all(|name| {
            let kind = all_types().iter().find(|kind| kind.name == **name).unwrap();
            let spot = kind.offerings.iter().filter(|o| o.capacity_type == CapacityType::Spot);
            spot.filter_map(|offer| offer.price).min() <= Some(dear.hourly_price_micro)
        }),
        "a type has a spot offer that is a bargain"
    );
}

#[test]
fn gpus_and_metal_are_for_those_who_ask() {
    let plain = launch(json!([]), json!({"cpu": "1"}));
    let is_plain = |name: &str| !name.contains(".metal") && !name.starts_with(['g', 'p']);
    assert!(plain.offerings.iter().all(|offer| is_plain(&offer.instance_type)), "{plain:?}");
    let gpu = launch(json!([]), json!({"nvidia.com/gpu": "1"}));
    assert!(gpu.offerings.iter().all(|offer| !is_plain(&offer.instance_type)), "{gpu:?}");
}

#[test]
fn labels_are_those_that_every_choice_has_and_the_requirements_fix() {
    let wanted = json!([
        is_in("karpenter.k8s.aws/instance-family", &["m5"]),
        is_in("failure-domain.beta.kubernetes.io/zone", &["us-east-1a"]),
        is_in("example.com/rack", &["r1"]),
        {"key": "example.com/any", "operator": "Exists"},
    ]);
    let launch = launch(wanted, json!({"cpu": "3"}));
    for (key, value) in [
        ("karpenter.k8s.aws/instance-family", "m5"),
        ("topology.kubernetes.io/zone", "us-east-1a"),
        ("example.com/rack", "r1"),
        ("kubernetes.io/arch", "amd64"),
    ] {
        assert_eq!(launch.labels.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(!launch.labels.contains_key("node.kubernetes.io/instance-type"));
    assert_eq!(launch.zones, ["us-east-1a"]);
    assert_eq!(launch.offerings[0].instance_type, "m5.xlarge");
}

#[test]
fn what_ec2_lacks_is_not_asked_for() {
    let only = json!([is_in("node.kubernetes.io/instance-type", &["m5.large"])]);
    let claim = claim(only, json!({}));
    let gone = |capacity_type| {
        let offering = UnavailableOffering {
            capacity_type,
            instance_type: Some("m5.large".to_owned()),
            zone: None,
            reservation: None,
        };
        (offering, Timestamp::MAX)
    };
    let settings = PlannerSettings::default();
    let no_spot = BTreeMap::from([gone(CapacityType::Spot)]);
    let launch =
        launch_of_claim(&claim, &catalog(), &no_spot, &BTreeMap::new(), &settings).unwrap();
    assert_eq!(launch.capacity_type, CapacityType::OnDemand);
    let neither = BTreeMap::from([gone(CapacityType::Spot), gone(CapacityType::OnDemand)]);
    let refused =
        launch_of_claim(&claim, &catalog(), &neither, &BTreeMap::new(), &settings).unwrap_err();
    assert_eq!(refused, "EC2 lately had none of the allowed types");
}
