//! The binding subresource: a pod gets its node.

use drover_common::cluster::ObjectKey;
use jiff::Timestamp;
use serde_json::Value;

use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;
use crate::world::resource::{PODS, Resource};
use crate::world::store::{Part, Store};

/// Binds a pod to the node that a `v1/Binding` names.
///
/// # Errors
/// 400 without a node, 404, 409 if the pod is bound, gated or going away.
pub fn bind(store: &mut Store, key: &ObjectKey, binding: &Value, now: Timestamp) -> ApiResult<()> {
    let node = object::text(binding, "/target/name").to_owned();
    let kind = object::text(binding, "/target/kind");
    if node.is_empty() || !matches!(kind, "" | "Node") {
        return Err(ApiFailure::bad_request("target must name a Node"));
    }
    let pod = store.require(&PODS, key)?;
    let assigned = object::text(pod, "/spec/nodeName");
    let refusal = if object::is_deleting(pod) {
        Some(format!("pod {} is being deleted, cannot be assigned to a host", key.name))
    } else if !assigned.is_empty() {
        Some(format!("pod {} is already assigned to node {assigned:?}", key.name))
    } else if !object::list(pod, "/spec/schedulingGates").is_empty() {
        Some(format!("pod {} has non-empty .spec.schedulingGates", key.name))
    } else {
        None
    };
    if let Some(refusal) = refusal {
        return Err(ApiFailure::conflict(&Resource::new("", "pods/binding"), &key.name, &refusal));
    }
    let annotations = binding.pointer("/metadata/annotations").and_then(Value::as_object).cloned();
    store.modify(&PODS, key, Part::Whole, now, |pod| {
        object::set(pod, &["spec", "nodeName"], node);
        for (name, value) in annotations.unwrap_or_default() {
            object::set(pod, &["metadata", "annotations", &name], value);
        }
        object::set_condition(pod, "PodScheduled", "True", "", "", now);
    })?;
    Ok(())
}
