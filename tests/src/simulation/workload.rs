//! What runs in the simulated cluster: Karpenter v1 manifests and deployments.

use drover_common::call::{Call, Kind, KubernetesCall, Outcome, Target};
use drover_sandbox::world::World;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Creates the class, the pool and two workloads.
pub(super) fn apply(world: &mut World, now: Timestamp) {
    let terms = json!([{"tags": {"karpenter.sh/discovery": super::CLUSTER}}]);
    let class = json!({
        "apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass",
        "metadata": {"name": "default"},
        "spec": {
            "role": "node", "amiSelectorTerms": [{"alias": "al2023@latest"}],
            "subnetSelectorTerms": terms, "securityGroupSelectorTerms": terms,
        },
    });
    let pool = json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
        "spec": {
            "disruption": {"consolidateAfter": "10s", "budgets": [{"nodes": "50%"}]},
            "template": {"spec": {
                "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
                "requirements": [
                    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot", "on-demand"]},
                    {"key": "karpenter.k8s.aws/instance-category", "operator": "In", "values": ["c", "m", "r"]},
                    {"key": "karpenter.k8s.aws/instance-cpu", "operator": "Lt", "values": ["9"]},
                ],
            }},
        },
    });
    create(world, Kind::Ec2NodeClass, None, class, now);
    create(world, Kind::NodePool, None, pool, now);
    create(world, Kind::ReplicaSet, Some("default"), replica_set("web", 20, "500m", "1Gi"), now);
    create(world, Kind::ReplicaSet, Some("default"), replica_set("db", 3, "1", "6Gi"), now);
}

/// Most of `web` goes.
pub(super) fn shrink(world: &mut World, now: Timestamp) {
    let target = Target {
        kind: Kind::ReplicaSet,
        namespace: Some("default".to_owned()),
        name: "web".to_owned(),
    };
    let patch = json!({"spec": {"replicas": 7}});
    let call = Call::Kubernetes(KubernetesCall::MergePatch { target, status: false, patch });
    match world.apply(&call, now) {
        Outcome::Kubernetes(Ok(_)) => {}
        other => panic!("the workload can't shrink: {other:?}"),
    }
}

fn replica_set(name: &str, replicas: u32, cpu: &str, memory: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "containers": [{
                        "name": name, "image": name,
                        "resources": {"requests": {"cpu": cpu, "memory": memory}},
                    }],
                },
            },
        },
    })
}

fn create(world: &mut World, kind: Kind, namespace: Option<&str>, object: Value, now: Timestamp) {
    let name = object["metadata"]["name"].as_str().expect("named").to_owned();
    let target = Target { kind, namespace: namespace.map(str::to_owned), name };
    let call = Call::Kubernetes(KubernetesCall::Create { target, object });
    match world.apply(&call, now) {
        Outcome::Kubernetes(Ok(_)) => {}
        other => panic!("the workload was refused: {other:?}"),
    }
}
