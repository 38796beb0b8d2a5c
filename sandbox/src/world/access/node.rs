//! What the identity of a node may do: the node authorizer, and the NodeRestriction admission rules.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Action, Target, User};
use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;
use crate::world::resource::{NODES, PODS, Resource};
use crate::world::store::Store;

/// What kubelets do: group, resources, verbs. What of nodes and pods they read is narrowed further.
const RULES: &[(&str, &[&str], &[&str])] = &[
    ("", &["nodes"], &["get", "list", "watch", "create", "patch", "update"]),
    ("", &["nodes/status"], &["patch", "update"]),
    ("", &["pods"], &["get", "list", "watch", "create", "delete"]),
    ("", &["pods/status"], &["patch", "update"]),
    ("", &["pods/eviction"], &["create"]),
    ("", &["services"], &["get", "list", "watch"]),
    ("", &["configmaps", "secrets", "persistentvolumeclaims", "persistentvolumes"], &["get"]),
    ("", &["serviceaccounts/token"], &["create"]),
    ("", &["events"], &["create", "patch", "update"]),
    ("coordination.k8s.io", &["leases"], &["get", "create", "patch", "update", "delete"]),
    ("storage.k8s.io", &["csinodes"], &["get", "create", "patch", "update", "delete"]),
    ("storage.k8s.io", &["volumeattachments", "csidrivers"], &["get", "list", "watch"]),
    ("authentication.k8s.io", &["tokenreviews"], &["create"]),
    ("authorization.k8s.io", &["subjectaccessreviews", "localsubjectaccessreviews"], &["create"]),
];

/// Whether a kubelet's identity may do something, and else why not, where that can be told; `None` of others' and
/// of what kubelets never do.
pub(super) fn decide(
    store: &Store,
    user: &User,
    action: &Action<'_>,
) -> Option<Result<(), String>> {
    let node = user.node_name()?;
    let Target::Resource { group, resource, subresource, .. } = action.target else { return None };
    let full = if subresource.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}/{subresource}")
    };
    let is_a_kubelets = RULES.iter().any(|(own, resources, verbs)| {
        *own == group && resources.contains(&full.as_str()) && verbs.contains(&action.verb)
    });
    is_a_kubelets.then(|| if group.is_empty() { may_read(store, node, action) } else { Ok(()) })
}

/// Since Kubernetes 1.32 a node reads itself and the pods on it. A list or watch has to say so by its field
/// selector: it is not cut down to what may be seen.
fn may_read(store: &Store, node: &str, action: &Action<'_>) -> Result<(), String> {
    let Target::Resource { resource, namespace, name, fields, .. } = action.target else {
        return Ok(());
    };
    let (fits, reason) = match (resource, action.verb) {
        ("nodes", "get" | "list" | "watch") => {
            (name == node, format!("node {node:?} can only read its own Node object"))
        }
        ("pods", "list" | "watch") => (
            fields.and_then(|fields| fields.exact("spec.nodeName")) == Some(node),
            "can only list/watch pods with spec.nodeName field selector".to_owned(),
        ),
        ("pods", "get") => {
            let pod = store.find(&PODS, namespace, name);
            let is_there = |pod: &Arc<Value>| object::text(pod, "/spec/nodeName") == node;
            let reason = format!("no relationship found between node {node:?} and this object");
            (pod.is_some_and(is_there), reason)
        }
        _ => return Ok(()),
    };
    if fits { Ok(()) } else { Err(reason) }
}

/// Labels of the reserved domains that a node may set on itself.
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// NodeRestriction: a node changes itself and the pods on it, never its taints, and of the labels in
/// reserved domains only those that are a node's own to tell. `object` is what would be written,
/// `old` what is there.
///
/// # Errors
/// 403 with the reason.
pub fn restrict(
    user: &User,
    resource: &Resource,
    subresource: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> ApiResult<()> {
    let Some(node) = user.node_name() else { return Ok(()) };
    let place = object.or(old).unwrap_or(&Value::Null);
    let refuse =
        |detail: String| Err(ApiFailure::forbidden(resource, object::name(place), &detail));
    if *resource == NODES {
        let name = object::name(place);
        if name != node {
            return refuse(format!("node {node:?} is not allowed to modify node {name:?}"));
        }
        let (Some(object), Some(old)) = (object, old) else { return Ok(()) };
        if taints(object) != taints(old) {
            return refuse(format!("node {node:?} is not allowed to modify taints"));
        }
        if owners(object) != owners(old) {
            return refuse(format!("node {node:?} is not allowed to modify ownerReferences"));
        }
        let foreign = foreign_labels(object, old);
        if !foreign.is_empty() {
            let foreign = foreign.join(", ");
            return refuse(format!("is not allowed to modify labels: {foreign}"));
        }
    }
    if *resource == PODS {
        // What is evicted or deleted is `old`; a mirror pod that is created names its node itself.
        let pod = old.unwrap_or(place);
        let bound = object::text(pod, "/spec/nodeName");
        let mirror = object::annotation(pod, "kubernetes.io/config.mirror").is_some();
        if old.is_none() && !mirror {
            return refuse(format!(
                "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
            ));
        }
        if bound != node {
            let act = match subresource {
                "eviction" => "evict",
                "status" => "update status of",
                _ => "delete",
            };
            return refuse(format!(
                "node {node:?} can only {act} pods with spec.nodeName set to itself"
            ));
        }
    }
    Ok(())
}

/// A node's taints; none is the same as an empty list.
fn owners(node: &Value) -> &[Value] {
    object::list(node, "/metadata/ownerReferences")
}

fn taints(node: &Value) -> &[Value] {
    object::list(node, "/spec/taints")
}

/// Labels that differ and are not a node's own to set.
fn foreign_labels(object: &Value, old: &Value) -> Vec<String> {
    let empty = Map::new();
    let labels = |value: &'_ Value| -> Map<String, Value> {
        value.pointer("/metadata/labels").and_then(Value::as_object).unwrap_or(&empty).clone()
    };
    let (new, old) = (labels(object), labels(old));
    let mut differing: Vec<String> = new
        .keys()
        .chain(old.keys())
        .filter(|key| new.get(*key) != old.get(*key) && !is_own_label(key))
        .cloned()
        .collect();
    differing.sort();
    differing.dedup();
    differing
}

fn is_own_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| {
        domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
    };
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}
