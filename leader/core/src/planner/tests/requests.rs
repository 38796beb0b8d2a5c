//! What a pod asks of its node: containers, init containers, sidecars, the pod as a whole,
//! overhead, resizes, extended resources, storage, huge pages.

use serde_json::{Value, json};

use super::world::World;

fn requests_of(spec: Value, status: Value) -> String {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.pods("web", 1, json!({"cpu": "1"}), json!({"spec": spec, "status": status}));
    world.plan().launches[0].requests.to_string()
}

#[test]
fn every_kind_of_request_counts() {
    let rows = [
        ("a container", json!({}), json!({})),
        (
            "an init container larger than the rest",
            json!({"initContainers": [{"name": "i", "resources": {"requests": {"cpu": "3"}}}]}),
            json!({}),
        ),
        (
            "a sidecar",
            json!({"initContainers": [{"name": "s", "restartPolicy": "Always",
                "resources": {"requests": {"cpu": "500m"}}}]}),
            json!({}),
        ),
        (
            "an init container beside a sidecar",
            json!({"initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
                {"name": "i", "resources": {"requests": {"cpu": "3"}}}]}),
            json!({}),
        ),
        (
            "the pod as a whole",
            json!({"resources": {"requests": {"cpu": "4", "memory": "5Gi"}}}),
            json!({}),
        ),
        ("overhead", json!({"overhead": {"cpu": "250m", "memory": "64Mi"}}), json!({})),
        (
            "a resize under way",
            json!({}),
            json!({"containerStatuses": [{"name": "main", "allocatedResources": {"cpu": "2"},
                "resources": {"requests": {"cpu": "3"}}}]}),
        ),
        (
            "a resize of the pod as a whole under way",
            json!({"resources": {"requests": {"cpu": "2", "memory": "5Gi"}}}),
            json!({"allocatedResources": {"cpu": "3"},
                "resources": {"requests": {"cpu": "2500m", "memory": "6Gi"}}}),
        ),
        (
            "storage",
            json!({"containers": [{"name": "main", "resources": {"requests":
                {"cpu": "1", "ephemeral-storage": "4Gi"}}}]}),
            json!({}),
        ),
    ];
    let text: Vec<String> = rows
        .into_iter()
        .map(|(what, spec, status)| format!("{what}: {}", requests_of(spec, status)))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn extended_resources_choose_the_type_and_what_nobody_has_is_told() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.pods("train", 1, json!({"cpu": "2", "nvidia.com/gpu": "4"}), json!({}));
    world.pods("pages", 1, json!({"cpu": "1", "hugepages-2Mi": "64Mi"}), json!({}));
    world.pods("disk", 1, json!({"cpu": "1", "ephemeral-storage": "500Gi"}), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn huge_pages_are_room_on_nodes_that_have_them() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let room = json!({"cpu": "4", "memory": "8Gi", "pods": "10", "hugepages-2Mi": "100Mi"});
    let node = json!({"metadata": {"name": "paged"}, "status": {"allocatable": room,
        "capacity": room, "conditions": [{"type": "Ready", "status": "True"}]}});
    world.object(drover_common::call::Kind::Node, node);
    world.pods("pages", 2, json!({"cpu": "1", "hugepages-2Mi": "64Mi"}), json!({}));
    let plan = world.plan();
    assert_eq!((plan.report.on_existing, plan.report.on_new), (1, 0), "{plan:?}");
    assert_eq!(plan.unschedulable.len(), 1);
}

#[test]
fn a_node_holds_no_more_pods_than_it_has_addresses_for() {
    let mut world = World::small();
    world.pool(
        "default",
        json!([{"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["m5.large"]}]),
        json!({}),
    );
    world.pods("tiny", 60, json!({"cpu": "1m", "memory": "1Mi"}), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn what_no_node_can_be_asked_for_is_told() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.pods("negative", 1, json!({"cpu": "-1", "memory": "1Gi"}), json!({}));
    world.pods("cpu", 1, json!({"cpu": "1e30", "memory": "1Gi"}), json!({}));
    world.pods("memory", 1, json!({"cpu": "1", "memory": "1e30"}), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn devices_by_claim_are_beyond_a_plan() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let claims = json!({"spec": {"resourceClaims": [{"name": "gpu", "resourceClaimName": "one"}]}});
    world.pods("dra", 1, json!({"cpu": "500m", "memory": "1Gi"}), claims);
    world.pods("web", 1, json!({"cpu": "500m", "memory": "1Gi"}), json!({}));
    insta::assert_snapshot!(world.story());
}
