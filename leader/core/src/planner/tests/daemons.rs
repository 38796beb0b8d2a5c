//! DaemonSets: their room is kept on every node they will run on.

use serde_json::{Value, json};

use super::world::World;
use drover_common::call::Kind;

fn daemon(name: &str, cpu: &str, spec: Value) -> Value {
    let mut pod = json!({"containers": [
        {"name": "d", "resources": {"requests": {"cpu": cpu, "memory": "512Mi"}}}]});
    super::world::merge(&mut pod, spec);
    json!({"metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"template": {"metadata": {"labels": {"app": name}}, "spec": pod}}})
}

#[test]
fn every_daemon_that_will_run_there_takes_its_room() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.object(Kind::DaemonSet, daemon("log", "1", json!({})));
    let on_gpus =
        json!({"nodeSelector": {"karpenter.k8s.aws/instance-gpu-manufacturer": "nvidia"}});
    world.object(Kind::DaemonSet, daemon("gpu", "16", on_gpus));
    world.pods("web", 1, json!({"cpu": "1500m", "memory": "1Gi"}), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn a_daemon_that_selects_a_pool_or_its_labels_takes_its_room_there() {
    let plan = |selector: Value| {
        let mut world = World::small();
        let labels = json!({"template": {"metadata": {"labels": {"team": "a"}}}});
        world.pool("default", json!([]), labels);
        world.object(Kind::DaemonSet, daemon("log", "1", json!({"nodeSelector": selector})));
        world.pods("web", 1, json!({"cpu": "1500m", "memory": "1Gi"}), json!({}));
        let story = world.story();
        story.split_once("---").expect("the plan follows the world").1.to_owned()
    };
    let everywhere = plan(json!({}));
    assert_eq!(plan(json!({"karpenter.sh/nodepool": "default"})), everywhere);
    assert_eq!(plan(json!({"team": "a"})), everywhere);
    assert_ne!(plan(json!({"team": "b"})), everywhere);
}

#[test]
fn a_pool_whose_taint_a_daemon_does_not_tolerate_has_none_of_it() {
    let mut world = World::small();
    let taint = json!({"template": {"spec": {"taints": [{"key": "own", "effect": "NoSchedule"}]}}});
    world.pool("default", json!([]), taint);
    world.object(Kind::DaemonSet, daemon("log", "1", json!({})));
    let tolerant = json!({"tolerations": [{"operator": "Exists"}]});
    world.object(Kind::DaemonSet, daemon("cni", "250m", tolerant.clone()));
    let pod = json!({"spec": tolerant});
    world.pods("web", 1, json!({"cpu": "1500m", "memory": "1Gi"}), pod);
    insta::assert_snapshot!(world.story());
}

#[test]
fn on_nodes_that_are_there_only_those_still_to_come_are_kept_room_for() {
    let mut world = World::small();
    world.node("n1", "m5.large", "us-east-1a");
    world.object(Kind::DaemonSet, daemon("log", "500m", json!({})));
    world.object(Kind::DaemonSet, daemon("cni", "500m", json!({})));
    world.object(
        Kind::Pod,
        json!({
            "metadata": {"name": "log-x", "namespace": "kube-system", "ownerReferences": [
                {"kind": "DaemonSet", "name": "log", "controller": true}]},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "d", "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}}}]},
            "status": {"phase": "Running"},
        }),
    );
    world.pods("web", 3, json!({"cpu": "450m", "memory": "256Mi"}), json!({}));
    insta::assert_snapshot!(world.story());
}

/// What nobody who waits asks for is not looked at: such a daemon waits there as well.
#[test]
fn a_daemon_that_has_no_room_keeps_no_pod_away() {
    let world = |pool: Value| {
        let mut world = World::small();
        let small = json!([
            {"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["c5"]},
            {"key": "karpenter.k8s.aws/instance-cpu", "operator": "Lt", "values": ["3"]}]);
        world.pool("default", small, pool);
        let large = json!({"containers": [
            {"name": "d", "resources": {"requests": {"memory": "6Gi"}}}]});
        world.object(Kind::DaemonSet, daemon("large", "1m", large));
        world
    };
    let mut waiting = world(json!({}));
    waiting.pods("web", 1, json!({"cpu": "100m"}), json!({}));
    let plan = waiting.plan();
    assert_eq!((plan.unschedulable.len(), plan.launches.len()), (0, 1));
    let fixed = world(json!({"replicas": 1}));
    let plan = crate::planner::plan_static(&fixed.input(), &"default".into(), 1);
    assert_eq!(plan.map(|launches| launches.len()), Ok(1));
}
