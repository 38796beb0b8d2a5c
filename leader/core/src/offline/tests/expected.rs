//! Pods that a dump does not have and a leader would plan for.

use serde_json::json;

use super::*;
use crate::offline::Fleet;

fn planned(cluster: &OfflineCluster) -> Vec<String> {
    let mut pods: Vec<String> = answer(cluster).launches.into_iter().flat_map(|l| l.pods).collect();
    pods.sort();
    pods
}

#[test]
fn a_rollout_that_the_dump_caught_halfway_is_bought_as_a_whole() {
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"replicas": 4}});
    let replica = |name: &str| {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
            "uid": "u", "controller": true}]);
        let pod = with(pod(name, "1"), "/metadata/ownerReferences", owner);
        with(pod, "/metadata/creationTimestamp", json!("2026-01-01T00:00:01Z"))
    };
    let objects = [pool("default"), set, replica("web-a"), replica("web-b")];
    let names = ["default/rs/web#0", "default/rs/web#1", "default/web-a", "default/web-b"];
    assert_eq!(planned(&cluster(&objects)), names);
    // A quarter of an hour later the others are not to be expected any more.
    let mut later = objects.to_vec();
    later.push(with(
        node("n1", json!({"kubernetes.io/hostname": "n1", "tainted": "no"})),
        "/metadata/creationTimestamp",
        json!("2026-01-01T00:15:00Z"),
    ));
    let answer = answer(&cluster(&later));
    assert_eq!((answer.summary.pods, answer.summary.on_existing), (2, 2));
}

#[test]
fn a_capacity_buffer_is_room_on_nodes() {
    let template = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "chunk"},
        "template": {"spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1500m"}}}]}}});
    let buffer = |name: &str, template: &str| {
        json!({"apiVersion": "autoscaling.x-k8s.io/v1beta1", "kind": "CapacityBuffer",
            "metadata": {"name": name},
            "spec": {"podTemplateRef": {"name": template}, "replicas": 3}})
    };
    let room = node("n1", json!({"kubernetes.io/hostname": "n1"}));
    let objects =
        [pool("default"), room, template, buffer("spare", "chunk"), buffer("lost", "gone")];
    let cluster = cluster(&objects);
    assert_eq!(
        cluster.warnings,
        [
            "CapacityBuffer default/lost keeps no room free: spec.podTemplateRef: PodTemplate gone does \
          not exist"
        ]
    );
    let answer = answer(&cluster);
    assert_eq!(answer.placements[0].pods, ["default/buffer/spare#0", "default/buffer/spare#1"]);
    assert_eq!(planned(&cluster), ["default/buffer/spare#2"]);
    let settings = PlannerSettings::default();
    let plan = plan(&cluster.plan_input(&settings));
    let fleet = Fleet::of(&cluster, &plan);
    assert_eq!(fleet.rows.values().map(|row| row.pods_after).sum::<usize>(), 3);
}
