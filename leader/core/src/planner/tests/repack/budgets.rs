//! PodDisruptionBudgets that are used up, and pods that go all the same.

use drover_common::call::Kind;
use serde_json::{Value, json};

use super::{small, three};

/// Why the node of such a pod stays under such a budget, if it does.
fn kept(pod: Value, budget: Value) -> Option<String> {
    let mut cluster = three(json!({}));
    cluster.running("db-0", "db", "n1", small(), pod);
    let mut object = json!({"metadata": {"name": "db", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "db"}}}, "status": {"disruptionsAllowed": 0}});
    super::super::world::merge(&mut object, budget);
    cluster.world.add(Kind::PodDisruptionBudget, object);
    let plan = cluster.repack();
    let left = plan.left.into_iter().find(|left| left.node == "n1".into());
    left.map(|left| left.reason).filter(|reason| reason.contains("PodDisruptionBudget"))
}

fn ready() -> Value {
    json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

#[test]
fn a_budget_holds_no_node_for_a_pod_that_a_drain_leaves_alone() {
    let tolerates = |key: &str| {
        let mut pod = ready();
        let all = json!({"spec": {"tolerations": [{"key": key, "operator": "Exists"}]}});
        super::super::world::merge(&mut pod, all);
        pod
    };
    assert_eq!(kept(tolerates("karpenter.sh/disrupted"), json!({})), None);
    let held = "PodDisruptionBudget default/db allows no eviction of Pod default/db-0 now";
    assert_eq!(kept(tolerates("other"), json!({})).as_deref(), Some(held));
}

#[test]
fn a_pod_that_is_not_ready_goes_where_enough_others_are() {
    let status = |current: i32, desired: i32| json!({"status": {"currentHealthy": current, "desiredHealthy": desired}});
    let policy = |name: &str, mut budget: Value| {
        let policy = json!({"spec": {"unhealthyPodEvictionPolicy": name}});
        super::super::world::merge(&mut budget, policy);
        budget
    };
    for (name, pod, budget, goes) in [
        ("enough", json!({}), status(2, 2), true),
        ("by name", json!({}), policy("IfHealthyBudget", status(2, 2)), true),
        ("too few", json!({}), status(1, 2), false),
        ("none wanted", json!({}), status(0, 0), false),
        ("always", json!({}), policy("AlwaysAllow", status(1, 2)), true),
        ("ready", ready(), status(2, 2), false),
        ("ready, always", ready(), policy("AlwaysAllow", status(2, 2)), false),
    ] {
        assert_eq!(kept(pod, budget).is_none(), goes, "{name}");
    }
}
