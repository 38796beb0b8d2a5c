//! Free room of nodes that the same plan launches for others.

use serde_json::{Value, json};

use super::world::World;

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

fn on_demand() -> Value {
    json!([{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}])
}

/// An empty cluster of few families, bought on demand.
fn world() -> World {
    let mut world = World::small();
    world.pool("default", on_demand(), json!({}));
    world
}

fn spread(key: &str, app: &str) -> Value {
    json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": key,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": app}}}]}})
}

/// Pods that go one by one, as they want to be in one zone: two of them fill an m6g.large, and five leave half of one.
fn together(world: &mut World, count: usize) {
    let near = json!({"spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "near"}}, "topologyKey": ZONE}]}}}});
    world.pods("near", count, json!({"cpu": "900m", "memory": "1Gi"}), near);
}

#[test]
fn of_a_node_with_a_gpu() {
    let mut world = world();
    world.pods("train", 1, json!({"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "1"}), json!({}));
    world.pods("web", 3, json!({"cpu": "500m", "memory": "1Gi"}), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn of_a_node_above_the_cap() {
    let mut world = world();
    world.pods("large", 1, json!({"cpu": "40", "memory": "40Gi"}), json!({}));
    world.pods("web", 3, json!({"cpu": "500m", "memory": "1Gi"}), spread(HOST, "web"));
    insta::assert_snapshot!(world.story());
}

#[test]
fn for_pods_that_spread() {
    let mut world = world();
    together(&mut world, 5);
    world.pods("web", 3, json!({"cpu": "500m", "memory": "1Gi"}), spread(ZONE, "web"));
    world.pods("db", 2, json!({"cpu": "200m", "memory": "512Mi"}), spread(HOST, "db"));
    insta::assert_snapshot!(world.story());
}

/// A small container with a port of its host.
fn port() -> Value {
    json!({"spec": {"containers": [{"name": "main",
        "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}},
        "ports": [{"hostPort": 9000, "containerPort": 9000}]}]}})
}

/// How many nodes one plain pod takes together with another that has these rules.
fn nodes_with(more: Value) -> usize {
    let mut world = world();
    world.pods("web", 1, json!({"cpu": "3", "memory": "4Gi"}), json!({}));
    world.pods("own", 1, json!({"cpu": "200m", "memory": "256Mi"}), more);
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    plan.launches.len()
}

#[test]
fn of_nodes_that_are_packed_in_bulk() {
    let term = |app: &str| {
        json!({"labelSelector": {"matchLabels": {"app": app}},
        "topologyKey": ZONE})
    };
    let required = |kind: &str, app: &str| {
        json!({"spec": {"affinity": {kind: {
            "requiredDuringSchedulingIgnoredDuringExecution": [term(app)]}}}})
    };
    let preferred = json!({"spec": {"affinity": {"podAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": term("own")}]}}}});
    assert_eq!(nodes_with(required("podAffinity", "own")), 1);
    assert_eq!(nodes_with(required("podAntiAffinity", "own")), 1);
    assert_eq!(nodes_with(required("podAntiAffinity", "other")), 1);
    assert_eq!(nodes_with(preferred), 1);
    assert_eq!(nodes_with(port()), 1);
    // Who keeps away from the first gets a node.
    assert_eq!(nodes_with(required("podAntiAffinity", "web")), 2);
}

#[test]
fn host_ports_cost_no_more_than_hosts_of_their_own() {
    let price = |more: Value| {
        let mut world = world();
        world.pods("web", 40, json!({"cpu": "1", "memory": "2Gi"}), json!({}));
        world.pods("own", 6, json!({"cpu": "200m", "memory": "256Mi"}), more);
        let plan = world.plan();
        assert_eq!(plan.unschedulable, []);
        plan.report.hourly_price_micro
    };
    assert_eq!(price(port()), price(spread(HOST, "own")));
}

#[test]
fn a_spread_that_cannot_be_had_gives_it_back() {
    // One more node is allowed, and the spread asks for nodes in two more zones.
    let mut world = World::small();
    let zones = json!({"key": ZONE, "operator": "In",
        "values": ["us-east-1a", "us-east-1b", "us-east-1c"]});
    let mut requirements = on_demand();
    requirements.as_array_mut().unwrap().push(zones);
    world.pool("default", requirements, json!({"limits": {"nodes": "3"}}));
    together(&mut world, 5);
    world.pods("web", 6, json!({"cpu": "500m", "memory": "1Gi"}), spread(ZONE, "web"));
    insta::assert_snapshot!(world.story());
}

#[test]
fn on_spot_only_where_as_many_types_are_left() {
    let mut world = World::new();
    let spot = json!([{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]}]);
    world.pool("default", spot, json!({}));
    together(&mut world, 1);
    // These could go with the first as they are, the others would leave it but few types.
    world.pods("any", 1, json!({"cpu": "10m", "memory": "16Mi"}), json!({}));
    let choosy = json!({"spec": {"nodeSelector": {
        "karpenter.k8s.aws/instance-family": "c6i"}}});
    world.pods("choosy", 1, json!({"cpu": "10m", "memory": "16Mi"}), choosy);
    let plan = world.plan();
    let launch_of = |app: &str| {
        let holds = |launch: &&crate::planner::Launch| {
            launch.pods.iter().any(|pod| pod.name.starts_with(app))
        };
        plan.launches.iter().position(|launch| holds(&launch)).unwrap()
    };
    assert_eq!(launch_of("any"), launch_of("near"));
    assert_ne!(launch_of("choosy"), launch_of("near"));
}
