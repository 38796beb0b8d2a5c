//! The scale subresource.

use serde_json::{Map, Value, json};

use crate::world::failure::{ApiFailure, ApiResult, Cause};
use crate::world::object;
use crate::world::resource::Definition;

/// Where a resource keeps its replica counts and selector, as JSON pointers.
struct Places {
    wanted: String,
    observed: String,
    selector: String,
}

fn places(definition: &Definition) -> Places {
    let custom = definition.custom.as_ref().and_then(|custom| custom.scale.as_ref());
    let pointer = |member: &str, usual: &str| {
        custom.map_or_else(
            || usual.to_owned(),
            |scale| object::text(scale, &format!("/{member}")).replace('.', "/"),
        )
    };
    Places {
        wanted: pointer("specReplicasPath", "/spec/replicas"),
        observed: pointer("statusReplicasPath", "/status/replicas"),
        selector: pointer("labelSelectorPath", "/spec/selector"),
    }
}

/// The `autoscaling/v1` Scale of an object.
pub fn of(definition: &Definition, value: &Value) -> Value {
    let places = places(definition);
    let mut metadata = Map::new();
    for member in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(kept) = value.pointer("/metadata").and_then(|metadata| metadata.get(member)) {
            metadata.insert(member.to_owned(), kept.clone());
        }
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": { "replicas": object::integer(value, &places.wanted).unwrap_or(0) },
        "status": {
            "replicas": object::integer(value, &places.observed).unwrap_or(0),
            "selector": selector_text(value.pointer(&places.selector)),
        },
    })
}

/// The object with the replicas of a Scale, and its resourceVersion as a precondition.
///
/// # Errors
/// 422 for a count that is none.
pub fn with_replicas(definition: &Definition, mut value: Value, scale: &Value) -> ApiResult<Value> {
    let replicas = match scale.pointer("/spec/replicas") {
        None => 0,
        Some(count) => count
            .as_i64()
            .filter(|count| (0..=i64::from(i32::MAX)).contains(count))
            .ok_or_else(|| {
                let detail = "must be greater than or equal to 0";
                let cause = Cause::invalid("spec.replicas", count, detail);
                ApiFailure::invalid("autoscaling", "Scale", object::name(&value), vec![cause])
            })?,
    };
    let version = object::text(scale, "/metadata/resourceVersion");
    if !version.is_empty() {
        object::set(&mut value, &["metadata", "resourceVersion"], version);
    }
    let places = places(definition);
    let path: Vec<&str> = places.wanted.split('/').filter(|member| !member.is_empty()).collect();
    object::set(&mut value, &path, replicas);
    Ok(value)
}

fn selector_text(selector: Option<&Value>) -> String {
    match selector {
        Some(Value::String(text)) => text.clone(),
        Some(selector) => {
            let labels = selector.get("matchLabels").and_then(Value::as_object);
            let pairs = labels.into_iter().flatten();
            let texts = pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")));
            texts.collect::<Vec<_>>().join(",")
        }
        None => String::new(),
    }
}
