//! Static pools with too many nodes.

use serde_json::{Value, json};

use super::{answer, cluster, node, pod, pool, with};
use crate::offline::{Answer, OfflineCluster};
use crate::planner::{PlannerSettings, RepackSettings, plan};

fn fixed(replicas: i64) -> Value {
    with(pool("fixed"), "/spec/replicas", json!(replicas))
}

fn there(name: &str, created: &str) -> Value {
    let node = node(
        name,
        json!({"karpenter.sh/nodepool": "fixed",
        "node.kubernetes.io/instance-type": "x.large", "karpenter.sh/capacity-type": "on-demand",
        "topology.kubernetes.io/zone": "us-east-1a"}),
    );
    with(node, "/metadata/creationTimestamp", json!(created))
}

fn three() -> [Value; 3] {
    [
        there("n1", "2026-01-01T00:00:00Z"),
        there("n2", "2026-01-03T00:00:00Z"),
        there("n3", "2026-01-02T00:00:00Z"),
    ]
}

fn running(name: &str, node: &str) -> Value {
    let owner = json!([{"kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]);
    let there = with(pod(name, "1"), "/spec/nodeName", json!(node));
    with(there, "/metadata/ownerReferences", owner)
}

fn kept(objects: &[Value]) -> OfflineCluster {
    let mut cluster = cluster(objects);
    cluster.keep_static_pools(&PlannerSettings::default());
    cluster
}

fn consolidated(cluster: &OfflineCluster) -> Answer {
    let settings = PlannerSettings::default();
    let made = plan(&cluster.plan_input(&settings));
    let repack = cluster.repack(&settings, &RepackSettings::default(), &made);
    Answer::of(cluster, &made, Some(&repack), 0.0)
}

#[test]
fn what_a_static_pool_has_too_many_goes_emptiest_and_youngest_first() {
    let told = |replicas: i64, pods: &[Value]| {
        let cluster = kept(&[&[fixed(replicas)], &three()[..], pods].concat());
        assert_eq!(cluster.warnings.len(), usize::from(replicas < 3), "{:?}", cluster.warnings);
        let entries = consolidated(&cluster).disruptions.unwrap();
        let one = entries.into_iter().map(|one| (one.reason, one.nodes, one.savings_per_hour));
        one.collect::<Vec<_>>()
    };
    let deletion = |nodes: &[&str], saving: f64| {
        let nodes = nodes.iter().map(|node| (*node).to_owned()).collect::<Vec<_>>();
        vec![("Deletion".to_owned(), nodes, saving)]
    };
    assert_eq!(told(3, &[]), []);
    assert_eq!(told(2, &[]), deletion(&["n2"], 0.1));
    assert_eq!(told(1, &[]), deletion(&["n2", "n3"], 0.2));
    let pods = [running("a", "n2"), running("b", "n2"), running("c", "n3")];
    assert_eq!(told(2, &pods), deletion(&["n1"], 0.1));
    assert_eq!(told(1, &pods), deletion(&["n1", "n3"], 0.2));
    let warnings = kept(&[&[fixed(1)], &three()[..]].concat()).warnings;
    assert_eq!(warnings, ["static NodePool fixed keeps 1 nodes and has 3: it lets n2, n3 go"]);
}

#[test]
fn the_limit_of_nodes_counts_as_for_leaders() {
    let limited = with(fixed(3), "/spec/limits", json!({"nodes": "2"}));
    let cluster = kept(&[&[limited], &three()[..]].concat());
    assert_eq!(cluster.static_excess.values().flatten().collect::<Vec<_>>(), ["n2"]);
    assert_eq!(cluster.warnings.len(), 1, "{:?}", cluster.warnings);
}

#[test]
fn no_pod_is_placed_on_a_node_that_goes_and_its_own_move() {
    let one = there("n1", "2026-01-01T00:00:00Z");
    let placed = |replicas: i64, pod: Value| {
        let answer = answer(&kept(&[fixed(replicas), pool("default"), one.clone(), pod]));
        (answer.summary.on_existing, answer.summary.on_new)
    };
    assert_eq!(placed(1, pod("a", "1")), (1, 0));
    assert_eq!(placed(0, pod("a", "1")), (0, 1));
    assert_eq!(placed(1, running("a", "n1")), (0, 0));
    assert_eq!(placed(0, running("a", "n1")), (0, 1));
}

#[test]
fn nodes_on_their_way_go_once_they_are_launched() {
    let claim = |status: Value| {
        json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
            "metadata": {"name": "c1", "labels": {"karpenter.sh/nodepool": "fixed",
                "topology.kubernetes.io/zone": "us-east-1a"},
                "creationTimestamp": "2026-01-05T00:00:00Z"},
            "spec": {"requirements": [], "nodeClassRef":
                {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}},
            "status": status})
    };
    let going = |status: Value| {
        let cluster = kept(&[fixed(1), there("n1", "2026-01-01T00:00:00Z"), claim(status)]);
        let left = cluster.in_flight.len();
        (cluster.static_excess.into_values().flatten().collect::<Vec<_>>(), left)
    };
    let launched = json!({"providerID": "aws:///us-east-1a/i-c1"});
    assert_eq!(going(launched), (vec!["c1".to_owned()], 0));
    assert_eq!(going(json!({})), (vec!["n1".to_owned()], 1));
}
