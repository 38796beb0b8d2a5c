//! Pods made from templates, and numbers that may be percentages.

use std::sync::Arc;

use drover_common::cluster::Pod;
use serde_json::{Map, Value, json};

use crate::world::object;

/// A pod of `owner`'s template, without a name.
pub(super) fn pod(owner: &Value, template: &Value) -> Value {
    let mut metadata = Map::new();
    for member in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.pointer("/metadata").and_then(|from| from.get(member)) {
            metadata.insert(member.to_owned(), value.clone());
        }
    }
    metadata.insert("namespace".to_owned(), object::namespace(owner).into());
    metadata.insert("ownerReferences".to_owned(), json!([controller_reference(owner)]));
    let spec = template.get("spec").cloned().unwrap_or_else(|| json!({}));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// The owner reference that a controller puts on what it makes.
pub(super) fn controller_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": object::text(owner, "/apiVersion"),
        "kind": object::text(owner, "/kind"),
        "name": object::name(owner),
        "uid": object::uid(owner),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// A short name for a template's content, in the alphabet of generated names.
pub(super) fn hash(template: &Value) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    // serde_json keeps objects sorted, so equal templates print equally.
    for byte in template.to_string().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut text = String::new();
    for _ in 0..10 {
        let index = usize::try_from(hash % ALPHABET.len() as u64).unwrap_or_default();
        text.extend(ALPHABET.get(index).map(|byte| char::from(*byte)));
        hash /= ALPHABET.len() as u64;
    }
    text
}

/// An integer, or a percentage of `whole` rounded up or down.
pub(super) fn scaled(value: Option<&Value>, whole: i64, round_up: bool, default: &str) -> i64 {
    let text;
    let text = match value {
        Some(Value::Number(number)) => return number.as_i64().unwrap_or(0).max(0),
        Some(Value::String(string)) => string.as_str(),
        _ => {
            text = default.to_owned();
            &text
        }
    };
    let Some(percent) = text.strip_suffix('%') else { return text.parse().unwrap_or(0) };
    let product = percent.parse::<i64>().unwrap_or(0).max(0).saturating_mul(whole.max(0));
    if round_up { product.saturating_add(99) / 100 } else { product / 100 }
}

/// Whether a controller counts a pod as one of its replicas.
pub(super) fn is_active(pod: &Pod) -> bool {
    !pod.is_terminal() && !pod.is_terminating()
}

/// Whether a pod is ready and not on its way out.
pub(super) fn is_available(pod: &Pod) -> bool {
    pod.is_ready() && is_active(pod)
}

/// Writes the counts of a status: those above zero, as Kubernetes leaves zeros out.
pub(super) fn set_counts(status: &mut Value, always: &[(&str, i64)], non_zero: &[(&str, i64)]) {
    for (name, count) in always {
        object::set(status, &[name], *count);
    }
    for (name, count) in non_zero {
        if *count > 0 {
            object::set(status, &[name], *count);
        } else {
            object::remove(status, &[name]);
        }
    }
}

/// Whether a changed status differs from the object's.
pub(super) fn differs(object: &Arc<Value>, status: &Value) -> bool {
    object.get("status").unwrap_or(&Value::Null) != status
}
