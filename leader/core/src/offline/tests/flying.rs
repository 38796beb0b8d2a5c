//! Nodes on their way, in tables and answers.

use serde_json::{Value, json};

use super::{answer, cluster, node, pod, pool, with};
use crate::offline::{Fleet, FleetKey, FleetRow, OfflineCluster};
use crate::planner::{PlannerSettings, plan};

fn managed() -> Value {
    json!({"karpenter.sh/nodepool": "default", "node.kubernetes.io/instance-type": "x.xlarge",
        "karpenter.sh/capacity-type": "on-demand", "topology.kubernetes.io/zone": "us-east-1a"})
}

fn claim(labels: Value, status: Value) -> Value {
    json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
        "metadata": {"name": "c1", "labels": labels},
        "spec": {"requirements": [], "nodeClassRef":
            {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}},
        "status": status})
}

/// The only row of the cluster's table.
fn row(cluster: &OfflineCluster) -> (FleetKey, FleetRow) {
    let fleet = Fleet::of(cluster, &plan(&cluster.plan_input(&PlannerSettings::default())));
    assert_eq!(fleet.rows.len(), 1, "{fleet:?}");
    fleet.rows.into_iter().next().unwrap()
}

fn told(key: &FleetKey) -> (&str, &str, &str) {
    (&key.nodepool, &key.instance_type, &key.capacity_type)
}

#[test]
fn claims_without_a_node_are_nodes_of_the_table() {
    let cluster_of =
        |labels: Value| cluster(&[pool("default"), claim(labels, json!({})), pod("a", "1")]);
    let (key, found) = row(&cluster_of(managed()));
    assert_eq!(told(&key), ("default", "x.xlarge", "on-demand"));
    assert_eq!((found.nodes_now, found.nodes_after, found.pods_after), (1, 1, 1));
    assert_eq!((found.price_now, found.price_after, found.unpriced), (200_000, 200_000, 0));
    assert_eq!(found.requested_after.to_string(), "cpu: 1, pods: 1");
    assert!(found.allocatable_after.get(&"cpu".into()) > 7_000);
    // What it becomes is open.
    let (key, found) = row(&cluster_of(json!({"karpenter.sh/nodepool": "default"})));
    assert_eq!(told(&key), ("default", "x.large", "on-demand"));
    assert_eq!((found.nodes_now, found.price_now), (1, 100_000));
}

#[test]
fn nodes_that_have_joined_go_by_their_own_name_and_have_their_pods() {
    let joined = json!({"providerID": "aws:///us-east-1a/i-n1", "nodeName": "n1"});
    let cluster =
        cluster(&[pool("default"), claim(managed(), joined), node("n1", managed()), pod("a", "1")]);
    let answer = answer(&cluster);
    let placed = &answer.placements[0];
    assert_eq!((placed.node.as_str(), placed.node_claim.as_deref()), ("n1", Some("c1")));
    let (_, found) = row(&cluster);
    assert_eq!((found.nodes_now, found.nodes_after, found.pods_after), (1, 1, 1));
    assert_eq!(found.requested_after.to_string(), "cpu: 1, pods: 1");
}

#[test]
fn launches_of_static_pools_have_their_pods() {
    let mut cluster = cluster(&[with(pool("fixed"), "/spec/replicas", json!(1)), pod("a", "1")]);
    cluster.keep_static_pools(&PlannerSettings::default());
    let (_, found) = row(&cluster);
    assert_eq!((found.nodes_now, found.nodes_after, found.pods_after), (0, 1, 1));
    assert_eq!(found.requested_after.to_string(), "cpu: 1, pods: 1");
}

#[test]
fn no_node_is_bought_for_a_pod_that_stays_on_a_leaving_one() {
    let mut labels = managed();
    labels["kubernetes.io/hostname"] = json!("n1");
    labels["karpenter.sh/initialized"] = json!("true");
    let gone = json!("2026-01-01T00:00:00Z");
    let leaving = with(node("n1", labels), "/metadata/deletionTimestamp", gone);
    let there = |annotations: Value| {
        let pod = with(pod("a", "1"), "/spec/nodeName", json!("n1"));
        let pod = with(pod, "/status", json!({"phase": "Running"}));
        let owner = json!([{"kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]);
        with(with(pod, "/metadata/ownerReferences", owner), "/metadata/annotations", annotations)
    };
    let held = || there(json!({"karpenter.sh/do-not-disrupt": "true"}));
    let launched = |objects: &[Value]| answer(&cluster(objects)).launches.len();
    let claim = |status: Value| {
        let id = json!({"providerID": "aws:///us-east-1a/i-n1", "nodeName": "n1"});
        with(claim(managed(), id), "/spec/terminationGracePeriod", status)
    };
    assert_eq!(launched(&[pool("default"), leaving.clone(), there(json!({}))]), 1);
    assert_eq!(launched(&[pool("default"), leaving.clone(), held()]), 0);
    // Its time is over some day.
    let limited = claim(json!("1h"));
    assert_eq!(launched(&[pool("default"), leaving.clone(), held(), limited]), 1);
    let unlimited = claim(Value::Null);
    assert_eq!(launched(&[pool("default"), leaving, held(), unlimited]), 0);
}
