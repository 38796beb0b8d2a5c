//! Host ports: one taker a node, by address, protocol and port; daemons take theirs.

use serde_json::{Value, json};

use super::world::World;

fn port(port: &Value) -> Value {
    json!({"spec": {"containers": [{"name": "main", "ports": [port],
        "resources": {"requests": {"cpu": "100m"}}}]}})
}

#[test]
fn ports_are_not_shared() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let request = json!({"cpu": "100m"});
    world.pods("edge", 2, request.clone(), port(&json!({"hostPort": 8080})));
    world.pods("udp", 1, request.clone(), port(&json!({"hostPort": 8080, "protocol": "UDP"})));
    let one = json!({"hostPort": 8080, "hostIP": "10.0.0.1"});
    world.pods("address", 1, request, port(&one));
    insta::assert_snapshot!(world.story());
}

#[test]
fn what_runs_and_what_daemons_will_take_counts() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.node("n1", "m5.xlarge", "us-east-1a");
    let mut running = json!({
        "metadata": {"name": "old", "namespace": "default"},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running"},
    });
    super::world::merge(&mut running, port(&json!({"hostPort": 443})));
    world.object(drover_common::call::Kind::Pod, running);
    world.object(drover_common::call::Kind::DaemonSet, json!({
        "metadata": {"name": "exporter", "namespace": "kube-system"},
        "spec": {"template": {"spec": {"containers": [{"name": "x", "ports": [{"hostPort": 9100}]}]}}},
    }));
    world.pods("edge", 1, json!({"cpu": "100m"}), port(&json!({"hostPort": 443})));
    world.pods("metrics", 1, json!({"cpu": "100m"}), port(&json!({"hostPort": 9100})));
    insta::assert_snapshot!(world.story());
}

/// Templates of the node's network have no host ports of their own: API servers write those into pods alone.
#[test]
fn ports_of_daemons_in_the_nodes_network_are_taken() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.object(
        drover_common::call::Kind::DaemonSet,
        json!({
            "metadata": {"name": "exporter", "namespace": "kube-system"},
            "spec": {"template": {"spec": {"hostNetwork": true, "containers": [
                {"name": "x", "ports": [{"containerPort": 9100}]}]}}},
        }),
    );
    let port = |number: u16| port(&json!({"hostPort": number, "containerPort": number}));
    world.pods("metrics", 1, json!({"cpu": "100m"}), port(9100));
    world.pods("edge", 1, json!({"cpu": "100m"}), port(443));
    let plan = world.plan();
    assert_eq!((plan.launches.len(), plan.unschedulable.len()), (1, 1));
    assert!(plan.unschedulable[0].pod.name.starts_with("metrics"));
}
