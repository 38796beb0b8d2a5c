//! Pod affinity: to its own kind and to others, over zones and hosts, by namespace.

use serde_json::{Value, json};

use super::world::World;

fn request() -> Value {
    json!({"cpu": "500m", "memory": "1Gi"})
}

const ZONE: &str = "topology.kubernetes.io/zone";

fn near(terms: &Value) -> Value {
    json!({"spec": {"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": terms}}}})
}

fn to(app: &str, key: &str) -> Value {
    json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
}

#[test]
fn pods_that_like_their_own_kind_share_a_zone_or_a_host() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.pods("zone", 6, json!({"cpu": "2", "memory": "4Gi"}), near(&json!([to("zone", ZONE)])));
    let host = near(&json!([to("host", "kubernetes.io/hostname")]));
    world.pods("host", 3, request(), host);
    let plan = world.plan();
    let zones: std::collections::BTreeSet<_> = plan
        .launches
        .iter()
        .filter(|launch| launch.pods.iter().any(|pod| pod.name.starts_with("zone")))
        .map(|launch| launch.zones.clone())
        .collect();
    assert_eq!(zones.len(), 1, "{zones:?}");
    insta::assert_snapshot!(world.story());
}

#[test]
fn a_full_host_and_a_label_that_no_node_has_are_told_as_such() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.node("n1", "m5.large", "us-east-1b");
    world.running("db-0", "db", "n1", json!({"cpu": "1800m"}));
    world.pods("near", 1, request(), near(&json!([to("db", "kubernetes.io/hostname")])));
    world.pods("rack", 1, request(), near(&json!([to("rack", "example.com/rack")])));
    let plan = world.plan();
    let reasons: Vec<&str> =
        plan.unschedulable.iter().map(|left| left.reasons[0].1.as_str()).collect();
    let full = "pod affinity over kubernetes.io/hostname: the pods it wants to join are on n1, which can't take it";
    let rack = "pod affinity over example.com/rack: its nodes have no label example.com/rack, and no pod that it \
                wants to join is on a node with it";
    assert_eq!(reasons, [full, rack]);
}

#[test]
fn a_pod_joins_what_runs_and_what_is_planned_with_it() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.node("n1", "m5.large", "us-east-1b");
    world.running("db-0", "db", "n1", json!({"cpu": "1800m"}));
    world.pods("web", 1, request(), near(&json!([to("db", ZONE)])));
    world.pods("cache", 1, request(), json!({"spec": {"nodeSelector": {ZONE: "us-east-1c"}}}));
    world.pods("aside", 2, request(), near(&json!([to("cache", ZONE)])));
    insta::assert_snapshot!(world.story());
}

#[test]
fn who_finds_nobody_is_left_with_a_reason() {
    let mut world = World::small();
    let zone = json!([{"key": ZONE, "operator": "In", "values": ["us-east-1a"]}]);
    world.pool("default", zone, json!({}));
    world.node("n1", "m5.large", "us-east-1b");
    world.running("db-0", "db", "n1", json!({"cpu": "1900m"}));
    world.pods("lonely", 1, request(), near(&json!([to("nobody", ZONE)])));
    world.pods("far", 1, request(), near(&json!([to("db", ZONE)])));
    insta::assert_snapshot!(world.story());
}

#[test]
fn several_terms_are_about_pods_that_match_all_of_them() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.node("n1", "m5.2xlarge", "us-east-1b");
    world.running("db-0", "db", "n1", json!({"cpu": "1"}));
    world.running("log-0", "log", "n1", json!({"cpu": "1"}));
    // Both are there, but no pod is both: the scheduler would never bind it.
    let both = near(&json!([to("db", ZONE), to("log", "kubernetes.io/hostname")]));
    world.pods("both", 1, request(), both);
    world.pods(
        "twice",
        1,
        request(),
        near(&json!([to("db", ZONE), to("db", "kubernetes.io/hostname")])),
    );
    insta::assert_snapshot!(world.story());
}

#[test]
fn namespaces_are_the_pods_own_or_chosen_by_name_or_label() {
    let mut world = World::small();
    let kind = drover_common::call::Kind::Namespace;
    world.object(kind, json!({"metadata": {"name": "default"}}));
    world.object(kind, json!({"metadata": {"name": "data", "labels": {"team": "data"}}}));
    let zone = json!([{"key": ZONE, "operator": "In", "values": ["us-east-1a", "us-east-1b"]}]);
    world.pool("default", zone, json!({}));
    world.node("n1", "m5.large", "us-east-1b");
    world.running("db-0", "db", "n1", json!({"cpu": "1900m"}));
    world.move_pod("db-0", "data");
    let with = |more: Value| {
        let mut term = to("db", ZONE);
        super::world::merge(&mut term, more);
        near(&json!([term]))
    };
    world.pods("own", 1, request(), with(json!({})));
    world.pods("named", 1, request(), with(json!({"namespaces": ["data"]})));
    let labelled = json!({"namespaceSelector": {"matchLabels": {"team": "data"}}});
    world.pods("labelled", 1, request(), with(labelled));
    world.pods("all", 1, request(), with(json!({"namespaceSelector": {}})));
    insta::assert_snapshot!(world.story());
}

#[test]
fn pods_on_nodes_without_the_label_are_nobodys_company() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let room = json!({"cpu": "1", "memory": "4Gi", "pods": "10"});
    let node = json!({"metadata": {"name": "bare"}, "status": {"allocatable": room, "capacity": room,
        "conditions": [{"type": "Ready", "status": "True"}]}});
    world.object(drover_common::call::Kind::Node, node);
    world.running("web-a", "web", "bare", json!({"cpu": "900m"}));
    world.pods("web", 2, request(), near(&json!([to("web", ZONE)])));
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    let zones: std::collections::BTreeSet<_> =
        plan.launches.iter().flat_map(|l| &l.zones).collect();
    assert_eq!(zones.len(), 1, "they are the first of their kind that count");
}
