//! Nodes that have joined and are not initialized: what they say of themselves counts.

use serde_json::{Value, json};

use super::{answer, cluster, node, pod, pool, with};
use crate::offline::Answer;
use crate::planner::{PlannerSettings, RepackSettings, plan};

fn managed() -> Value {
    json!({"karpenter.sh/nodepool": "default", "node.kubernetes.io/instance-type": "x.large",
        "karpenter.sh/capacity-type": "on-demand", "topology.kubernetes.io/zone": "us-east-1a",
        "team": "web"})
}

fn claim() -> Value {
    json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
        "metadata": {"name": "c1", "labels": managed()},
        "spec": {"requirements": [],
            "taints": [{"key": "own", "value": "yes", "effect": "NoSchedule"}],
            "startupTaints": [{"key": "warming", "effect": "NoExecute"}],
            "nodeClassRef":
                {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}},
        "status": {"providerID": "aws:///us-east-1a/i-n1", "nodeName": "n1",
            "allocatable": {"cpu": "3900m", "memory": "14Gi", "pods": "58", "example.com/gpu": "1"}}})
}

/// Its Node, registered and still starting.
fn joined() -> Value {
    let mut labels = managed();
    labels["karpenter.sh/registered"] = json!("true");
    with(
        node("n1", labels),
        "/spec/taints",
        json!([
            {"key": "own", "value": "yes", "effect": "NoSchedule"},
            {"key": "warming", "effect": "NoExecute"},
            {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
            {"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true",
                "effect": "NoSchedule"},
            {"key": "karpenter.sh/unregistered", "effect": "NoExecute"},
        ]),
    )
}

fn also_tainted(key: &str, effect: &str) -> Value {
    let mut node = joined();
    let taints = node["spec"]["taints"].as_array_mut().unwrap();
    taints.push(json!({"key": key, "effect": effect}));
    node
}

/// A pod that tolerates what the claim will bear.
fn tolerant(cpu: &str) -> Value {
    let tolerations = json!([{"key": "own", "operator": "Exists"}]);
    with(pod("a", cpu), "/spec/tolerations", tolerations)
}

fn answered(node: &Value, pod: Value) -> Answer {
    answer(&cluster(&[pool("default"), claim(), node.clone(), pod]))
}

fn takes(node: &Value, pod: Value) -> bool {
    !answered(node, pod).placements.is_empty()
}

#[test]
fn a_node_that_starts_takes_pods() {
    assert!(takes(&joined(), tolerant("3")));
    // What comes off says nothing; what stays does.
    assert!(!takes(&joined(), pod("a", "3")), "own=yes:NoSchedule stays");
    for effect in ["NoSchedule", "NoExecute"] {
        assert!(!takes(&also_tainted("other", effect), tolerant("3")), "other:{effect}");
    }
    // Another effect is another taint.
    assert!(!takes(&also_tainted("warming", "NoSchedule"), tolerant("3")));
    assert!(takes(
        &also_tainted("drover.dev/consolidation-candidate", "NoSchedule"),
        tolerant("3")
    ));
}

#[test]
fn a_pools_taint_that_somebody_took_off_keeps_nobody_away() {
    let bare = with(joined(), "/spec/taints", json!([]));
    assert!(takes(&bare, pod("a", "3")));
    // Before it is registered it does not bear the pool's yet.
    let mut early = bare;
    early["metadata"]["labels"]["karpenter.sh/registered"] = Value::Null;
    early["metadata"]["labels"].as_object_mut().unwrap().remove("karpenter.sh/registered");
    assert!(!takes(&early, pod("a", "3")));
    let told = json!([{"type": "Registered", "status": "True",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let objects =
        [pool("default"), with(claim(), "/status/conditions", told), early, pod("a", "3")];
    assert_eq!(answer(&cluster(&objects)).placements.len(), 1);
}

#[test]
fn its_own_labels_count_and_win() {
    let mut labelled = joined();
    labelled["metadata"]["labels"]["rack"] = json!("r1");
    labelled["metadata"]["labels"]["team"] = json!("db");
    let of =
        |key: &str, value: &str| with(tolerant("3"), "/spec/nodeSelector", json!({key: value}));
    assert!(takes(&labelled, of("rack", "r1")));
    assert!(!takes(&labelled, of("rack", "r2")));
    assert!(takes(&labelled, of("team", "db")));
    assert!(!takes(&labelled, of("team", "web")));
}

#[test]
fn its_own_room_counts_as_far_as_it_is_told() {
    let room = |cpu: &str, gpu: Value| {
        let room = json!({"cpu": cpu, "memory": "14Gi", "pods": "58", "example.com/gpu": gpu});
        with(joined(), "/status/allocatable", room)
    };
    assert!(!takes(&room("2", json!("0")), tolerant("3")), "a smaller node");
    let mut with_gpu = tolerant("1");
    with_gpu["spec"]["containers"][0]["resources"]["requests"]["example.com/gpu"] = json!("1");
    // The device plugin has not told of it yet.
    assert!(takes(&room("4", json!("0")), with_gpu.clone()));
    assert!(takes(&joined(), with_gpu.clone()));
    with_gpu["spec"]["containers"][0]["resources"]["requests"]["example.com/gpu"] = json!("2");
    assert!(!takes(&room("4", json!("0")), with_gpu.clone()));
    assert!(takes(&room("4", json!("2")), with_gpu));
}

/// Nodes that will take no pod, each with why.
fn shut() -> [(&'static str, Value); 3] {
    let gone = json!("2026-01-01T00:00:00Z");
    [
        ("cordoned", with(joined(), "/spec/unschedulable", json!(true))),
        ("disrupted", also_tainted("karpenter.sh/disrupted", "NoSchedule")),
        ("being deleted", with(joined(), "/metadata/deletionTimestamp", gone)),
    ]
}

#[test]
fn what_will_take_no_pods_is_no_room() {
    for (why, node) in shut() {
        let answer = answered(&node, tolerant("3"));
        assert_eq!(answer.placements, [], "{why}");
        assert_eq!((answer.launches.len(), answer.summary.unschedulable), (1, 0), "{why}");
    }
}

#[test]
fn what_will_take_no_pods_is_not_initialized_either() {
    for (why, node) in shut() {
        let cluster = cluster(&[pool("default"), claim(), node]);
        let settings = PlannerSettings::default();
        let made = plan(&cluster.plan_input(&settings));
        let repack = cluster.repack(&settings, &RepackSettings::default(), &made);
        assert_eq!(repack.batches.len(), 0, "{why}");
        let reason = match why {
            "being deleted" => "it is leaving already",
            _ => "it is not initialized",
        };
        assert_eq!(repack.left[0].reason, reason, "{why}");
    }
}

#[test]
fn pods_of_a_node_that_leaves_before_it_is_initialized_move() {
    let owner = json!([{"kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]);
    let there = with(
        with(pod("a", "1"), "/spec/nodeName", json!("n1")),
        "/metadata/ownerReferences",
        owner,
    );
    for (why, node) in shut() {
        let answer = answered(&node, there.clone());
        let moves = usize::from(why == "being deleted");
        assert_eq!((answer.launches.len(), answer.placements.len()), (moves, 0), "{why}");
    }
}
