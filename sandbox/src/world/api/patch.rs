//! The patch formats: merge, JSON, strategic merge, apply.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::world::failure::{ApiFailure, ApiResult, Cause};
use crate::world::object;
use crate::world::resource::{Definition, Resource};
use crate::world::store::{Part, Store, WriteOptions};

mod strategic;

/// A patch's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 7386.
    Merge,
    /// RFC 6902.
    Json,
    /// Kubernetes' own: lists merge by key.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchKind {
    /// The format that a content type names.
    ///
    /// # Errors
    /// 415.
    pub fn of(content_type: &str) -> ApiResult<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" => Ok(PatchKind::Merge),
            "application/json-patch+json" => Ok(PatchKind::Json),
            "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
            "application/apply-patch+yaml" => Ok(PatchKind::Apply),
            _ => Err(ApiFailure::unsupported_media_type(
                "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }
}

/// Who applies, and whether against other managers.
#[derive(Clone, Copy, Debug)]
pub struct Manager<'a> {
    /// `fieldManager`.
    pub name: &'a str,
    /// `force`.
    pub force: bool,
}

/// The object after a patch.
///
/// # Errors
/// 400, 415 or 422 for a patch that does not fit.
pub fn apply(
    kind: PatchKind,
    definition: &Definition,
    current: Value,
    change: &Value,
    manager: &Manager<'_>,
    now: Timestamp,
) -> ApiResult<Value> {
    match kind {
        PatchKind::Merge => Ok(merge(current, change)),
        PatchKind::Json => json(current, change),
        PatchKind::Strategic if definition.custom.is_some() => {
            Err(ApiFailure::unsupported_media_type(
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            ))
        }
        PatchKind::Strategic => strategic::merge(current, change),
        PatchKind::Apply => {
            if manager.name.is_empty() {
                return Err(ApiFailure::bad_request(
                    "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
                ));
            }
            let mut value = strategic::apply(current, change, manager.name);
            record_manager(&mut value, manager.name, now);
            Ok(value)
        }
    }
}

/// Writes what a patch made of an object. Its UID is no precondition, as a replacement's is, but a field
/// that may not change; its version is one.
///
/// # Errors
/// As [`Store::update`], and 422 for another UID.
pub fn write(
    store: &mut Store,
    resource: &Resource,
    value: Value,
    part: Part,
    options: &WriteOptions,
    now: Timestamp,
) -> ApiResult<Arc<Value>> {
    let current = store.require(resource, &object::key(&value))?;
    let version = |object: &Value| object::text(object, "/metadata/resourceVersion").to_owned();
    let is_current = version(&value).is_empty() || version(&value) == version(current);
    let uid = object::uid(&value);
    if is_current && !uid.is_empty() && uid != object::uid(current) {
        let kind = store.registry().get(resource).map_or("", |definition| &*definition.kind);
        let cause = Cause::invalid("metadata.uid", &json!(uid), "field is immutable");
        return Err(ApiFailure::invalid(&resource.group, kind, object::name(&value), vec![cause]));
    }
    store.update(resource, value, part, options, now)
}

/// JSON merge patch (RFC 7386).
pub fn merge(mut target: Value, patch: &Value) -> Value {
    json_patch::merge(&mut target, patch);
    target
}

/// JSON patch (RFC 6902).
///
/// # Errors
/// 400 for what is no patch, 422 for one that does not fit.
pub fn json(mut target: Value, patch: &Value) -> ApiResult<Value> {
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| ApiFailure::bad_request(format!("error decoding patch: {error}")))?;
    json_patch::patch(&mut target, &operations).map_err(|error| {
        ApiFailure::injected(
            422,
            "Invalid",
            &format!("the server rejected our request due to an error in our request: {error}"),
        )
    })?;
    Ok(target)
}

/// Notes in `managedFields` what a manager last applied.
pub fn record_manager(value: &mut Value, manager: &str, now: Timestamp) {
    let mut applied = value.clone();
    for path in [&["metadata"][..], &["status"], &["apiVersion"], &["kind"]] {
        object::remove(&mut applied, path);
    }
    let entry = json!({
        "manager": manager,
        "operation": "Apply",
        "apiVersion": object::text(value, "/apiVersion"),
        "time": object::seconds(now),
        "fieldsType": "FieldsV1",
        "fieldsV1": fields_of(&applied),
    });
    let managed = object::entry(object::entry(value, "metadata"), "managedFields");
    let mut entries = managed.as_array().cloned().unwrap_or_default();
    entries.retain(|entry| object::text(entry, "/manager") != manager);
    entries.push(entry);
    *managed = Value::Array(entries);
}

/// The set of fields of a value in the `FieldsV1` notation.
fn fields_of(value: &Value) -> Value {
    let mut fields = Map::new();
    for (member, inner) in value.as_object().into_iter().flatten() {
        fields.insert(format!("f:{member}"), fields_of(inner));
    }
    Value::Object(fields)
}
