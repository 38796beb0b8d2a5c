//! Node selectors and required node affinity: all operators, alternatives, `matchFields`.

use drover_common::cluster::ObjectKey;
use serde_json::{Value, json};

use super::world::World;
use crate::planner::{Placement, PlacementTarget};

fn affinity(terms: &Value) -> Value {
    json!({"spec": {"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}})
}

fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({"key": key, "operator": operator, "values": values})
}

#[test]
fn selectors_and_every_operator() {
    let mut world = World::small();
    world.pool(
        "default",
        json!([]),
        json!({"template": {"metadata": {"labels": {"team": "web"}}}}),
    );
    let request = json!({"cpu": "500m", "memory": "1Gi"});
    let select = |key: &str, value: &str| json!({"spec": {"nodeSelector": {key: value}}});
    let zone = select("topology.kubernetes.io/zone", "us-east-1b");
    world.pods("zone", 1, request.clone(), zone);
    let beta = select("failure-domain.beta.kubernetes.io/zone", "us-east-1c");
    world.pods("beta", 1, request.clone(), beta);
    let family = "karpenter.k8s.aws/instance-family";
    for (name, term) in [
        ("in", expression(family, "In", &["r5"])),
        ("not-in", expression(family, "NotIn", &["c5", "m5", "m6g", "r5"])),
        ("exists", expression("karpenter.k8s.aws/instance-gpu-name", "Exists", &[])),
        ("absent", expression("karpenter.k8s.aws/instance-gpu-name", "DoesNotExist", &[])),
        ("more", expression("karpenter.k8s.aws/instance-cpu", "Gt", &["31"])),
        ("less", expression("karpenter.k8s.aws/instance-memory", "Lt", &["4097"])),
    ] {
        world.pods(name, 1, request.clone(), affinity(&json!([{"matchExpressions": [term]}])));
    }
    insta::assert_snapshot!(world.story());
}

#[test]
fn one_of_the_alternatives_must_hold() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let here = expression("topology.kubernetes.io/zone", "In", &["us-east-1c"]);
    let arm = expression("kubernetes.io/arch", "In", &["arm64"]);
    let nowhere = expression("topology.kubernetes.io/zone", "In", &["moon-1a"]);
    let request = json!({"cpu": "1", "memory": "2Gi"});
    let first_impossible = affinity(&json!([
        {"matchExpressions": [nowhere]}, {"matchExpressions": [here, arm]}]));
    world.pods("either", 1, request.clone(), first_impossible);
    // Kubernetes: a term without expressions matches nothing.
    world.pods("empty", 1, request, affinity(&json!([{}])));
    insta::assert_snapshot!(world.story());
}

#[test]
fn what_names_one_node_is_refused() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let request = json!({"cpu": "1"});
    let field = json!([{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]);
    world.pods("field", 1, request.clone(), affinity(&field));
    let host = json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "n7"}}});
    world.pods("host", 1, request.clone(), host);
    let outside = expression("karpenter.sh/nodepool", "DoesNotExist", &[]);
    world.pods("outside", 1, request, affinity(&json!([{"matchExpressions": [outside]}])));
    insta::assert_snapshot!(world.story());
}

/// Seats are what an earlier plan made: labels, and what volumes ask of them, may have changed since.
#[test]
fn a_seat_is_lost_when_its_node_does_not_fit_any_more() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    for node in ["n1", "n2", "n3"] {
        world.node(node, "m5.xlarge", "us-east-1a");
    }
    world.leaving.insert("n1".into());
    let request = json!({"cpu": "1", "memory": "2Gi"});
    let select = |key: &str, value: &str| json!({"spec": {"nodeSelector": {key: value}}});
    let host = select("kubernetes.io/hostname", "n2");
    world.running_like("fits", "fits", "n1", request.clone(), host);
    let zone = affinity(&json!([{"matchExpressions": [
        expression("topology.kubernetes.io/zone", "In", &["us-east-1a"]),
        expression("disk", "In", &["ssd"])]}]));
    world.running_like("relabelled", "relabelled", "n1", request, zone);
    let pods = ["fits", "relabelled"].map(|name| ObjectKey::new("default", name)).to_vec();
    world.seats = vec![Placement { node_or_claim: PlacementTarget::Node("n2".into()), pods }];
    let placed: Vec<String> =
        world.plan().placements.iter().flat_map(|one| &one.pods).map(ToString::to_string).collect();
    assert_eq!(placed, ["default/fits"]);
}

#[test]
fn of_terms_one_that_names_a_node_is_for_that_node_alone() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    for node in ["n1", "n2"] {
        world.node(node, "m5.xlarge", "us-east-1a");
    }
    let names = |operator: &str, node: &str| json!({"matchFields": [{"key": "metadata.name", "operator": operator, "values": [node]}]});
    let zone = expression("topology.kubernetes.io/zone", "In", &["us-east-1c"]);
    let new = json!({"matchExpressions": [zone]});
    let request = json!({"cpu": "1", "memory": "2Gi"});
    for (name, terms) in [
        ("there", json!([names("In", "n2")])),
        ("other", json!([names("NotIn", "n1")])),
        ("gone", json!([names("In", "n9")])),
        ("either", json!([names("In", "n9"), new])),
        (
            "unread",
            json!([names("Exists", "n1"), {"matchFields": [
            {"key": "spec.taints", "operator": "NotIn", "values": ["any"]}]}]),
        ),
    ] {
        world.pods(name, 1, request.clone(), affinity(&terms));
    }
    let mut both = names("In", "n2");
    super::world::merge(&mut both, new);
    world.pods("both", 1, request.clone(), affinity(&json!([both])));
    let large = json!({"cpu": "3", "memory": "2Gi"});
    world.pods("full", 2, large, affinity(&json!([names("In", "n1")])));
    insta::assert_snapshot!(world.story());
}

#[test]
fn a_comparison_with_other_than_one_integer_holds_nowhere() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    for (name, values) in [("two", &["64", "64"][..]), ("none", &[]), ("word", &["many"])] {
        let cpu = expression("karpenter.k8s.aws/instance-cpu", "Lt", values);
        world.pods(name, 1, json!({"cpu": "1"}), affinity(&json!([{"matchExpressions": [cpu]}])));
    }
    let cpu = expression("karpenter.k8s.aws/instance-cpu", "Lt", &["64"]);
    world.pods("one", 1, json!({"cpu": "1"}), affinity(&json!([{"matchExpressions": [cpu]}])));
    let plan = world.plan();
    let left: Vec<&str> = plan.unschedulable.iter().map(|left| left.pod.name.as_str()).collect();
    assert_eq!(left, ["none-0", "two-0", "word-0"]);
}
