//! What runs in the simulated cluster: Karpenter v1 manifests and deployments.

use drover_common::call::{Call, Kind, KubernetesCall, Outcome, Target};
use drover_sandbox::world::World;
use drover_sandbox::world::object::text;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::books::NODECLAIMS;

/// Creates the class, the pool and the workloads. Every other seed's nodes have a terminationGracePeriod.
pub(super) fn apply(world: &mut World, seed: u64, now: Timestamp) {
    let terms = json!([{"tags": {"karpenter.sh/discovery": super::CLUSTER}}]);
    let class = json!({
        "apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass",
        "metadata": {"name": "default"},
        "spec": {
            "role": "node", "amiSelectorTerms": [{"alias": "al2023@latest"}],
            "subnetSelectorTerms": terms, "securityGroupSelectorTerms": terms,
        },
    });
    let mut pool = json!({
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
    if seed.is_multiple_of(2) {
        pool["spec"]["template"]["spec"]["terminationGracePeriod"] = json!("90s");
    }
    create(world, Kind::Ec2NodeClass, None, class, now);
    create(world, Kind::NodePool, None, pool, now);
    for (set, budget) in [
        (Set { name: "web", replicas: 20, cpu: "500m", memory: "1Gi", grace: 5, stop: 1 }, None),
        (Set { name: "db", replicas: 3, cpu: "1", memory: "6Gi", grace: 5, stop: 1 }, Some(2)),
        // Its budget never allows an eviction.
        (
            Set { name: "held", replicas: 2, cpu: "250m", memory: "1Gi", grace: 20, stop: 10 },
            Some(2),
        ),
        (
            Set { name: "slow", replicas: 3, cpu: "250m", memory: "1Gi", grace: 60, stop: 40 },
            Some(2),
        ),
        // It wants more time than a notice gives.
        (
            Set { name: "long", replicas: 2, cpu: "250m", memory: "1Gi", grace: 600, stop: 130 },
            None,
        ),
    ] {
        create(world, Kind::ReplicaSet, Some("default"), replica_set(&set), now);
        if let Some(available) = budget {
            let budget = json!({
                "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                "metadata": {"name": set.name, "namespace": "default"},
                "spec": {
                    "minAvailable": available, "selector": {"matchLabels": {"app": set.name}},
                },
            });
            create(world, Kind::PodDisruptionBudget, Some("default"), budget, now);
        }
    }
}

/// A workload.
struct Set {
    name: &'static str,
    replicas: u32,
    cpu: &'static str,
    memory: &'static str,
    /// Its pods' terminationGracePeriodSeconds, and how many they need.
    grace: u32,
    stop: u32,
}

/// The NodeClaims whose nodes are up.
pub(super) fn claims_of_nodes(world: &World) -> Vec<String> {
    let claims = world.store.iter(&NODECLAIMS);
    let up = claims.filter(|(_, claim)| {
        !text(claim, "/status/nodeName").is_empty()
            && claim.pointer("/metadata/deletionTimestamp").is_none()
    });
    up.map(|(key, _)| key.name.to_string()).collect()
}

/// A user's deletion.
pub(super) fn delete_claim(world: &mut World, name: &str, now: Timestamp) {
    let target = Target::cluster(Kind::NodeClaim, name.to_owned());
    let call = KubernetesCall::Delete { target, uid: None, grace_seconds: None };
    // One that has gone by itself is as well.
    let _ = world.apply(&Call::Kubernetes(call), now);
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

fn replica_set(set: &Set) -> Value {
    let Set { name, replicas, cpu, memory, grace, stop } = set;
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {
                    "labels": {"app": name},
                    "annotations": {"sandbox.drover.dev/stop-seconds": stop.to_string()},
                },
                "spec": {
                    "terminationGracePeriodSeconds": grace,
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
