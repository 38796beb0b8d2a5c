//! Input that makes no sense gets a reason.

use serde_json::{Value, json};

use super::{answer, cluster, cluster_with, pod, pool, with};
use crate::offline::InstanceTypes;

fn affinity(expressions: Value) -> Value {
    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions": expressions}]}}})
}

fn requirement(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({"key": key, "operator": operator, "values": values})
}

/// The reasons for one pod in a cluster of one pool.
fn reasons(pool: Value, pod: Value, others: &[Value]) -> String {
    let mut objects = vec![pool, pod];
    objects.extend_from_slice(others);
    let answer = answer(&cluster(&objects));
    let left: Vec<String> = answer
        .unschedulable
        .iter()
        .flat_map(|left| left.reasons.iter().map(|r| format!("[{}] {}", r.node_pool, r.reason)))
        .collect();
    left.join("; ")
}

#[test]
fn what_contradicts_itself_is_named() {
    let both = affinity(json!([
        requirement("kubernetes.io/arch", "In", &["amd64"]),
        requirement("kubernetes.io/arch", "NotIn", &["amd64"]),
    ]));
    let comparison = affinity(json!([requirement("kubernetes.io/arch", "Gt", &["many"])]));
    let nothing = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": []}}});
    let fields = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchFields": [requirement("metadata.name", "In", &["n1"])]}]}}});
    let impossible = |requirements: Value| {
        with(pool("default"), "/spec/template/spec/requirements", requirements)
    };
    let plain = || pool("default");
    let claimed = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "gone"}}]);
    let cases = [
        ("both of two", plain(), with(pod("a", "1"), "/spec/affinity", both)),
        ("no number", plain(), with(pod("a", "1"), "/spec/affinity", comparison)),
        ("no term", plain(), with(pod("a", "1"), "/spec/affinity", nothing)),
        ("fields", plain(), with(pod("a", "1"), "/spec/affinity", fields)),
        ("dangling claim", plain(), with(pod("a", "1"), "/spec/volumes", claimed)),
        ("huge", plain(), pod("a", "9000000000000")),
        (
            "pool of nothing",
            impossible(json!([
                requirement("kubernetes.io/arch", "In", &["amd64"]),
                requirement("kubernetes.io/arch", "In", &["arm64"]),
            ])),
            pod("a", "1"),
        ),
        (
            "pool without values",
            impossible(json!([requirement("kubernetes.io/arch", "In", &[])])),
            pod("a", "1"),
        ),
        ("impossible limit", with(plain(), "/spec/limits", json!({"cpu": "much"})), pod("a", "1")),
        ("empty limit", with(plain(), "/spec/limits", json!({"cpu": "0"})), pod("a", "1")),
    ];
    let lines: Vec<String> = cases
        .into_iter()
        .map(|(name, pool, pod)| format!("{name}: {}", reasons(pool, pod, &[])))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn requests_below_nothing_are_refused() {
    let told = reasons(pool("default"), pod("a", "-5"), &[]);
    assert_eq!(told, "[] container c requests -5 cpu, which is less than nothing");
    assert_eq!(reasons(pool("default"), pod("a", "0"), &[]), "");
}

#[test]
fn without_pools_or_types_there_is_a_reason() {
    let none = answer(&cluster(&[pod("a", "1")]));
    assert!(!none.unschedulable[0].reasons[0].reason.is_empty());
    let empty = drover_common::catalog::parse(r#"{"instanceTypes": []}"#).unwrap();
    let nothing =
        answer(&cluster_with(&[pool("default"), pod("a", "1")], &InstanceTypes::File(empty)));
    assert_eq!(
        nothing.unschedulable[0].reasons[0].reason,
        "EC2NodeClass default has an image and a zone for no instance type"
    );
}

#[test]
fn pods_that_wait_for_each_other_are_told_so() {
    let near = |name: &str, other: &str| {
        let mut pod = with(pod(name, "1"), "/metadata/labels", json!({"app": name}));
        pod["spec"]["affinity"] = json!({"podAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname",
                    "labelSelector": {"matchLabels": {"app": other}}}]}});
        pod
    };
    let found = answer(&cluster(&[pool("default"), near("a", "b"), near("b", "a")]));
    assert_eq!(found.summary.pods, 2);
    assert!(found.unschedulable.iter().all(|left| !left.reasons.is_empty()));
}

#[test]
fn a_selector_of_everything_and_many_shapes_leave_no_pod_out() {
    let everything = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}]}});
    let mut objects = vec![pool("default")];
    for number in 0..40 {
        let lonely = pod(&format!("lonely-{number}"), &format!("{}m", 100 + number));
        objects.push(with(lonely, "/spec/affinity", everything.clone()));
        objects.push(pod(&format!("other-{number}"), &format!("{}m", 500 + number)));
    }
    let found = answer(&cluster(&objects));
    assert_eq!((found.summary.pods, found.summary.unschedulable), (80, 0));
    let shared = found.launches.iter().filter(|launch| {
        launch.pods.len() > 1 && launch.pods.iter().any(|pod| pod.contains("lonely"))
    });
    assert_eq!(shared.count(), 0);
}

#[test]
fn what_dangles_is_named() {
    let volume =
        |claim: &str| json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
    let mounts = |claim: &str| with(pod("a", "1"), "/spec/volumes", volume(claim));
    let claim = |name: &str, spec: Value, status: Value| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": spec, "status": status})
    };
    let bound = claim("bound", json!({"volumeName": "gone"}), json!({"phase": "Bound"}));
    let unbound = claim("unbound", json!({"storageClassName": "gone"}), json!({}));
    let classless = claim("classless", json!({}), json!({}));
    let lost = claim("lost", json!({"volumeName": "v"}), json!({"phase": "Lost"}));
    let classed = |class: &str| {
        let class_ref =
            json!({"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": class});
        with(pool("default"), "/spec/template/spec/nodeClassRef", class_ref)
    };
    let other_class = json!({"apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass",
        "metadata": {"name": "other"}, "spec": {"amiSelectorTerms": [], "subnetSelectorTerms": [],
        "securityGroupSelectorTerms": []}});
    let spread = json!([{"maxSkew": 1, "topologyKey": "example.com/rack",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}]);
    let near = |selector: Value, more: Value| {
        let mut term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": selector});
        term.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let terms = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
        with(pod("a", "1"), "/spec/affinity", json!({"podAffinity": terms}))
    };
    let unknown =
        json!({"matchExpressions": [{"key": "app", "operator": "Like", "values": ["a"]}]});
    let nowhere = json!({"namespaceSelector": {"matchLabels": {"team": "gone"}}});
    let taint = json!([{"key": "batch", "effect": "NoSchedule"}]);
    let tolerates = json!([{"key": "batch", "operator": "Sometimes", "effect": "NoSchedule"}]);
    let cases = [
        ("volume", pool("default"), mounts("bound"), vec![bound]),
        ("storage class", pool("default"), mounts("unbound"), vec![unbound]),
        ("no storage class", pool("default"), mounts("classless"), vec![classless]),
        ("lost volume", pool("default"), mounts("lost"), vec![lost]),
        ("node class", classed("gone"), pod("a", "1"), vec![other_class]),
        (
            "spread key",
            pool("default"),
            with(pod("a", "1"), "/spec/topologySpreadConstraints", spread),
            vec![],
        ),
        (
            "nobody",
            pool("default"),
            near(json!({"matchLabels": {"app": "gone"}}), json!({})),
            vec![],
        ),
        ("operator of a selector", pool("default"), near(unknown, json!({})), vec![]),
        ("namespaces", pool("default"), near(json!({}), nowhere), vec![]),
        (
            "operator of a toleration",
            with(pool("default"), "/spec/template/spec/taints", taint),
            with(pod("a", "1"), "/spec/tolerations", tolerates),
            vec![],
        ),
    ];
    let lines: Vec<String> = cases
        .into_iter()
        .map(|(name, pool, pod, others)| format!("{name}: {}", reasons(pool, pod, &others)))
        .collect();
    assert!(lines.iter().all(|line| line.contains('[')), "{lines:#?}");
    insta::assert_snapshot!(lines.join("\n"));
}

/// An owner that owns itself, two that own each other, and one that is not there.
#[test]
fn owners_in_a_circle_are_owners_like_any_other() {
    let owner = |name: &str| {
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": name,
            "controller": true}])
    };
    let set = |name: &str, of: &str| {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": name, "uid": name, "ownerReferences": owner(of)},
            "spec": {"replicas": 1}})
    };
    let owned = |name: &str, of: &str| with(pod(name, "1"), "/metadata/ownerReferences", owner(of));
    let mut itself = pod("itself", "1");
    itself["metadata"]["uid"] = json!("itself");
    itself["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod", "name": "itself", "uid": "itself", "controller": true}]);
    let objects = [
        pool("default"),
        set("self", "self"),
        set("one", "two"),
        set("two", "one"),
        owned("a", "self"),
        owned("b", "one"),
        owned("c", "two"),
        owned("d", "gone"),
        itself,
    ];
    let found = answer(&cluster(&objects));
    assert_eq!((found.summary.pods, found.summary.on_new), (5, 5), "{:?}", found.unschedulable);
}
