//! Pods that a dump does not have and a leader would plan for.

use serde_json::{Value, json};

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
fn replicas_of_owners_with_long_names_are_waited_for() {
    let name = "w".repeat(60);
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": name, "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"replicas": 2}});
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name,
        "uid": "u", "controller": true}]);
    // The API server cuts what it makes a name from.
    let replica =
        with(pod(&format!("{}abcde", &name[..58]), "1"), "/metadata/ownerReferences", owner);
    let replica = with(replica, "/metadata/creationTimestamp", json!("2026-01-01T00:00:01Z"));
    assert_eq!(planned(&cluster(&[pool("default"), set, replica])).len(), 2);
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

#[test]
fn a_capacity_buffer_is_of_a_workload_of_any_kind() {
    let workload = |kind: &str, cpu: &str, replicas: Value| {
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web"}, "spec":
            {"replicas": replicas, "template": {"spec": {"containers": [
                {"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}}})
    };
    let buffer = |kind: &str| {
        json!({"apiVersion": "autoscaling.x-k8s.io/v1beta1", "kind": "CapacityBuffer",
            "metadata": {"name": "b"}, "spec": {"percentage": 50,
                "scalableRef": {"apiGroup": "apps", "kind": kind, "name": "web"}}})
    };
    let told = |kind: &str, objects: &[Value]| {
        let cluster = cluster(&[&[pool("default"), buffer(kind)], objects].concat());
        assert_eq!(cluster.warnings, Vec::<String>::new());
        let launches = answer(&cluster).launches;
        (launches[0].requests.to_string(), planned(&cluster).len())
    };
    for kind in ["ReplicaSet", "StatefulSet", "Deployment"] {
        let of_four = [workload(kind, "1", json!(4))];
        assert_eq!(told(kind, &of_four), ("cpu: 2, pods: 2".to_owned(), 2), "{kind}");
        // It wants one replica, of which a half is one.
        let of_one = [workload(kind, "1", Value::Null)];
        assert_eq!(told(kind, &of_one), ("cpu: 1, pods: 1".to_owned(), 1), "{kind}");
    }
    // Where its ReplicaSets are there, they tell, as they do to leaders.
    let owner = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "u",
        "controller": true}]);
    let set = with(workload("ReplicaSet", "2", json!(2)), "/metadata/ownerReferences", owner);
    let both = [workload("Deployment", "1", json!(4)), with(set, "/metadata/name", json!("web-1"))];
    assert_eq!(told("Deployment", &both), ("cpu: 2, pods: 1".to_owned(), 1));
    // One of another namespace is another one.
    let elsewhere =
        with(workload("Deployment", "1", json!(4)), "/metadata/namespace", json!("shop"));
    let lost = cluster(&[pool("default"), buffer("Deployment"), elsewhere]);
    assert_eq!(lost.warnings.len(), 1);
}

#[test]
fn static_pools_get_the_nodes_that_they_lack_and_pods_may_have_a_place_there() {
    let fixed = |replicas: i64| with(pool("fixed"), "/spec/replicas", json!(replicas));
    let there =
        node("n1", json!({"karpenter.sh/nodepool": "fixed", "kubernetes.io/hostname": "n1"}));
    let settings = PlannerSettings::default();
    let told = |objects: &[Value]| {
        let mut cluster = cluster(objects);
        cluster.keep_static_pools(&settings);
        let answer = answer(&cluster);
        let plan = plan(&cluster.plan_input(&settings));
        let rows = Fleet::of(&cluster, &plan).rows;
        (answer, rows.values().map(|row| row.nodes_after).sum::<usize>(), cluster.warnings)
    };
    let pods = [pod("a", "3500m"), pod("b", "3500m")];
    let [a, b] = pods;
    let (answer, nodes, warnings) = told(&[fixed(3), there.clone(), a.clone(), b.clone()]);
    assert_eq!((answer.launches.len(), nodes, warnings.len()), (2, 3, 0), "{warnings:?}");
    assert_eq!((answer.summary.on_existing, answer.summary.on_new), (1, 1));
    assert_eq!(answer.summary.hourly_cost, 0.2);
    let taken: Vec<(&str, usize)> =
        answer.launches.iter().map(|l| (l.node_pool.as_str(), l.pods.len())).collect();
    assert_eq!(taken, [("fixed", 1), ("fixed", 0)]);
    assert_eq!(answer.launches[0].requests.to_string(), "cpu: 3500m, pods: 1");
    // It has what it wants; nothing is launched for pods.
    let (answer, nodes, _) = told(&[fixed(1), there, a, b]);
    assert_eq!((answer.launches.len(), nodes, answer.summary.unschedulable), (0, 1, 1));
    let nothing = with(fixed(2), "/spec/limits", json!({"nodes": "0"}));
    let (answer, _, warnings) = told(&[nothing]);
    assert_eq!(answer.launches.len(), 0);
    assert_eq!(
        warnings,
        [
            "static NodePool fixed lacks 2 nodes: the NodePool's limits or minValues leave no node to make"
        ]
    );
}

#[test]
fn the_time_is_the_newest_that_any_object_tells() {
    let old = with(pod("a", "1"), "/metadata/creationTimestamp", json!("2026-01-01T00:00:00Z"));
    let told = |object: Value| cluster(&[old.clone(), object]).now.to_string();
    let newest = "2026-02-03T04:05:06Z";
    let pool_ready = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Ready",
        "lastTransitionTime": newest}]});
    let heartbeat = json!([{"type": "Ready", "status": "True", "lastHeartbeatTime": newest}]);
    let started = json!([{"name": "c", "state": {"running": {"startedAt": newest}}}]);
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": "c", "creationTimestamp": newest}, "value": 1});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "status": {"conditions": [{"type": "Available", "lastUpdateTime": newest}]}});
    let disruption = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "creationTimestamp": newest}, "spec": {}});
    for object in [
        with(pod("b", "1"), "/status", json!({"startTime": newest})),
        with(node("n", json!({})), "/metadata/deletionTimestamp", json!(newest)),
        with(pool("p"), "/metadata/creationTimestamp", json!(newest)),
        with(pool("p"), "/status", pool_ready),
        with(pod("b", "1"), "/metadata/managedFields", json!([{"time": newest, "fieldsV1": {}}])),
        with(pod("b", "1"), "/status", json!({"containerStatuses": started})),
        with(node("n", json!({})), "/status/conditions", heartbeat),
        class,
        deployment,
        disruption,
    ] {
        assert_eq!(told(object.clone()), newest, "{object}");
    }
    // Users' texts, and what is yet to be.
    let ends = json!({"capacityReservations": [{"id": "cr-1", "availabilityZone": "a",
        "instanceType": "x.large", "ownerID": "1", "instanceMatchCriteria": "open",
        "endTime": newest}]});
    let class = json!({"apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass",
        "metadata": {"name": "default"}, "spec": {"amiSelectorTerms": [],
        "subnetSelectorTerms": [], "securityGroupSelectorTerms": []}, "status": ends});
    for object in [
        with(pod("b", "1"), "/metadata/annotations", json!({"until": newest})),
        with(node("n", json!({"until": newest})), "/metadata/generation", json!(1)),
        with(pod("b", "1"), "/spec/hostname", json!(newest)),
        with(pod("b", "1"), "/status", json!({"message": newest})),
        class,
    ] {
        assert_eq!(told(object.clone()), "2026-01-01T00:00:00Z", "{object}");
    }
    let older = with(pod("b", "1"), "/metadata/creationTimestamp", json!("2025-01-01T00:00:00Z"));
    assert_eq!(told(older), "2026-01-01T00:00:00Z");
}

#[test]
fn a_nought_too_many_exhausts_no_memory() {
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"replicas": 2_000_000_000}});
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
        "uid": "u", "controller": true}]);
    let replica = with(pod("web-a", "100m"), "/metadata/ownerReferences", owner);
    let replica = with(replica, "/metadata/creationTimestamp", json!("2026-01-01T00:00:01Z"));
    let cluster_of = |more: &[Value]| {
        let mut objects = vec![pool("default"), set.clone(), replica.clone()];
        objects.extend_from_slice(more);
        cluster(&objects)
    };
    assert_eq!(answer(&cluster_of(&[])).summary.pods, 10_001);
    // Room for bytes of memory, by the one.
    let template = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "chunk"},
        "template": {"spec": {"containers": [
            {"name": "c", "resources": {"requests": {"memory": "1"}}}]}}});
    let buffer = json!({"apiVersion": "autoscaling.x-k8s.io/v1beta1", "kind": "CapacityBuffer",
        "metadata": {"name": "spare"}, "spec": {"provisioningStrategy":
            "buffer.x-k8s.io/active-capacity", "podTemplateRef": {"name": "chunk"},
            "limits": {"memory": "1Gi"}}});
    let cluster = cluster_of(&[template, buffer]);
    let words = "spec: asks for room for 1073741824 pods; 10000 is the most";
    assert!(cluster.warnings.iter().any(|told| told.contains(words)), "{:?}", cluster.warnings);
    assert_eq!(answer(&cluster).summary.pods, 10_001);
    let fixed = with(pool("fixed"), "/spec/replicas", json!(2_000_000_000));
    let mut cluster = super::cluster(&[fixed]);
    cluster.keep_static_pools(&PlannerSettings::default());
    let words = ["static NodePool fixed: 1999990000 of 2000000000 nodes are not planned for"];
    assert_eq!(cluster.warnings, words);
}
