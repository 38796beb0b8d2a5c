//! What every cluster has from its start.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::world::resource::{
    CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PRIORITY_CLASSES, Resource, SERVICES,
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
    for definition in drover_common::crd::values() {
        put(store, &CUSTOM_RESOURCE_DEFINITIONS, definition, now);
    }
}

fn put(store: &mut Store, resource: &Resource, object: Value, now: Timestamp) {
    if let Err(failure) = store.create(resource, object, &WriteOptions::default(), now) {
        tracing::error!(%resource, %failure, "A built-in object was refused.");
    }
}
