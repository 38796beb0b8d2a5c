//! Zones by their ids, which are the same in all accounts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::world::World;

const ZONE_ID: &str = "topology.k8s.aws/zone-id";

/// us-east-1a is use1-az2, and so on: the letters are the account's own.
fn world() -> World {
    let mut world = World::small();
    let ids = ["a", "b", "c", "d", "e", "f"].into_iter().zip(["2", "4", "6", "1", "3", "5"]);
    let ids: Vec<(String, String)> =
        ids.map(|(zone, id)| (format!("us-east-1{zone}"), format!("use1-az{id}"))).collect();
    let ids: BTreeMap<&str, &str> = ids.iter().map(|(zone, id)| (&**zone, &**id)).collect();
    let catalog = world.catalogs.remove("default").unwrap();
    world.catalogs.insert("default".to_owned(), catalog.with_zone_ids(&ids));
    world
}

fn request() -> Value {
    json!({"cpu": "300m", "memory": "512Mi"})
}

fn zones(world: &World) -> BTreeSet<String> {
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    plan.launches.iter().flat_map(|launch| launch.zones.clone()).collect()
}

fn set<const N: usize>(zones: [&str; N]) -> BTreeSet<String> {
    zones.map(str::to_owned).into()
}

#[test]
fn pools_and_pods_may_ask_for_zones_by_id() {
    for operator in ["In", "NotIn"] {
        let mut by_pool = world();
        let values = ["use1-az1", "use1-az4", "use1-az3", "use1-az5", "use1-az9"];
        let asked = json!([{"key": ZONE_ID, "operator": operator, "values": values}]);
        by_pool.pool("default", asked, json!({}));
        by_pool.pods("web", 1, request(), json!({}));
        let wanted = match operator {
            "In" => ["us-east-1b", "us-east-1d", "us-east-1f"].map(str::to_owned).into(),
            _ => set(["us-east-1a", "us-east-1c"]),
        };
        // Of use1-az3 nothing is offered that is cheap enough, or nothing at all.
        assert!(zones(&by_pool).is_subset(&wanted), "{operator}: {:?}", zones(&by_pool));
    }
    let mut by_pod = world();
    by_pod.pool("default", json!([]), json!({}));
    by_pod.pods("web", 2, request(), json!({"spec": {"nodeSelector": {ZONE_ID: "use1-az6"}}}));
    assert_eq!(zones(&by_pod), set(["us-east-1c"]));
}

#[test]
fn pods_spread_over_ids_of_zones() {
    let mut world = world();
    let three = json!([{"key": ZONE_ID, "operator": "In",
        "values": ["use1-az2", "use1-az4", "use1-az6"]}]);
    world.pool("default", three, json!({}));
    let spread = json!({"spec": {"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": ZONE_ID, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    world.pods("web", 3, request(), spread);
    assert_eq!(zones(&world), set(["us-east-1a", "us-east-1b", "us-east-1c"]));
}

#[test]
fn a_node_on_its_way_has_the_ids_of_its_zones() {
    let mut world = world();
    let few = json!([{"key": ZONE_ID, "operator": "In", "values": ["use1-az2", "use1-az6"]}]);
    world.pool("default", few, json!({}));
    let of = |values: Value| {
        json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": ZONE_ID, "operator": "In", "values": values}]}]}}}}})
    };
    world.pods("one", 1, request(), of(json!(["use1-az6"])));
    launch_all(&mut world);
    assert_eq!(world.plan().launches, [], "it waits for its node");
    world.pods("same", 1, request(), of(json!(["use1-az6", "use1-az2"])));
    assert_eq!(world.plan().launches, [], "it fits the same node");
    world.pods("other", 1, request(), of(json!(["use1-az2"])));
    assert_eq!(zones(&world), set(["us-east-1a"]));
}

/// Its zone is still open.
#[test]
fn any_of_the_zones_of_a_node_on_its_way_must_do() {
    let mut world = world();
    let few = json!([{"key": ZONE_ID, "operator": "In", "values": ["use1-az2", "use1-az6"]}]);
    world.pool("default", few, json!({}));
    world.pods("any", 1, request(), json!({}));
    launch_all(&mut world);
    let select = json!({"spec": {"nodeSelector": {ZONE_ID: "use1-az2"}}});
    world.pods("one", 1, request(), select);
    assert_eq!(zones(&world), set(["us-east-1a"]));
}

fn launch_all(world: &mut World) {
    let plan = world.plan();
    assert_eq!((plan.launches.len(), plan.unschedulable.len()), (1, 0));
    super::free_room::launch_all(world, &plan);
}

#[test]
fn where_ids_are_not_known_there_are_none() {
    let mut world = World::small();
    let asked = json!([{"key": ZONE_ID, "operator": "In", "values": ["use1-az1"]}]);
    world.pool("default", asked, json!({}));
    world.pods("web", 1, request(), json!({}));
    assert_eq!(world.plan().launches, []);
}

/// No type of this catalogue has an accelerator, nor is any in a placement group.
#[test]
fn well_known_labels_are_not_the_pools_to_invent() {
    for (key, value) in [
        ("karpenter.k8s.aws/instance-accelerator-name", "inferentia"),
        ("karpenter.k8s.aws/placement-group-id", "pg-1"),
        ("node.kubernetes.io/windows-build", "10.0.20348"),
    ] {
        let mut world = World::small();
        let asked = json!([{"key": key, "operator": "In", "values": [value]}]);
        world.pool("default", asked, json!({}));
        world.pods("web", 1, request(), json!({}));
        assert_eq!(world.plan().launches, [], "{key}");
    }
}
