//! What every cluster has from its start.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::world::resource::{
    CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES,
    PRIORITY_CLASSES, Resource, SERVICES,
};
use crate::world::store::{Store, WriteOptions};

/// Creates the system namespaces, priority classes, the API's own service and Karpenter's custom
/// resource definitions.
pub fn install(store: &mut Store, now: Timestamp) {
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        put(store, &NAMESPACES, json!({"metadata": {"name": name}}), now);
    }
    for (name, value, text) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({"metadata": {"name": name}, "value": value, "description": text});
        put(store, &PRIORITY_CLASSES, class, now);
    }
    let service = json!({
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 443}],
        },
    });
    put(store, &SERVICES, service, now);
    install_access(store, now);
    for definition in drover_common::crd::values() {
        put(store, &CUSTOM_RESOURCE_DEFINITIONS, definition, now);
    }
}

/// The roles that every cluster has, as far as something here asks for them.
fn install_access(store: &mut Store, now: Timestamp) {
    let everything = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]);
    let probes = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    let discovery = [
        "/",
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    let own_reviews = json!([
        {"apiGroups": ["authorization.k8s.io"], "verbs": ["create"],
         "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
        {"apiGroups": ["authentication.k8s.io"], "verbs": ["create"], "resources": ["selfsubjectreviews"]},
    ]);
    let all = ["system:authenticated"];
    for (name, rules, groups) in [
        ("cluster-admin", everything, &["system:masters"][..]),
        ("system:public-info-viewer", json!([{"nonResourceURLs": probes, "verbs": ["get"]}]), &all),
        ("system:discovery", json!([{"nonResourceURLs": discovery, "verbs": ["get"]}]), &all),
        ("system:basic-user", own_reviews, &all),
    ] {
        let labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
        let role = json!({"metadata": {"name": name, "labels": labels}, "rules": rules});
        put(store, &CLUSTER_ROLES, role, now);
        let api_group = "rbac.authorization.k8s.io";
        let subjects: Vec<Value> = groups
            .iter()
            .map(|group| json!({"apiGroup": api_group, "kind": "Group", "name": group}))
            .collect();
        let binding = json!({
            "metadata": {"name": name, "labels": labels}, "subjects": subjects,
            "roleRef": {"apiGroup": api_group, "kind": "ClusterRole", "name": name},
        });
        put(store, &CLUSTER_ROLE_BINDINGS, binding, now);
    }
}

fn put(store: &mut Store, resource: &Resource, object: Value, now: Timestamp) {
    if let Err(failure) = store.create(resource, object, &WriteOptions::default(), now) {
        tracing::error!(%resource, %failure, "A built-in object was refused.");
    }
}
