//! The API's verbs above the store: calls in process, eviction, binding, admission, custom
//! resources. The HTTP face decodes into the same functions.

use drover_common::call::{KubernetesCall, Target};
use drover_common::cluster::ObjectKey;
use jiff::Timestamp;
use serde_json::Value;

use super::failure::{ApiFailure, ApiResult};
use super::object;
use super::resource::Resource;
use super::store::{DeleteOptions, Part, Store, WriteOptions};

pub mod admission;
pub mod bind;
pub mod bootstrap;
pub mod builtin;
pub mod custom;
pub mod events;
pub mod evict;
mod expression;
pub mod patch;
pub mod scale;

/// Answers a call as the HTTP face would.
///
/// # Errors
/// What the API would answer.
pub fn perform(store: &mut Store, call: &KubernetesCall, now: Timestamp) -> ApiResult<Value> {
    let options = WriteOptions::default();
    match call {
        KubernetesCall::Get { target } => {
            let (resource, key) = locate(target);
            Ok(Value::clone(store.require(&resource, &key)?))
        }
        KubernetesCall::Create { target, object } => {
            let (resource, key) = locate(target);
            let mut value = object.clone();
            check_place(&mut value, &key)?;
            let created = store.create(&resource, value, &options, now)?;
            Ok(Value::clone(&created))
        }
        KubernetesCall::MergePatch { target, status, patch } => {
            let (resource, key) = locate(target);
            let current = Value::clone(store.require(&resource, &key)?);
            let value = patch::merge(current, patch);
            // Without these in the patch there is no precondition: what was read is current.
            let part = if *status { Part::Status } else { Part::Main };
            let updated = patch::write(store, &resource, value, part, &options, now)?;
            Ok(Value::clone(&updated))
        }
        KubernetesCall::Delete { target, uid, grace_seconds } => {
            let (resource, key) = locate(target);
            let options = DeleteOptions {
                uid: uid.clone(),
                grace_seconds: grace_seconds.map(i64::from),
                ..DeleteOptions::default()
            };
            let deleted = store.delete(&resource, &key, &options, now)?;
            Ok(Value::clone(deleted.object()))
        }
        KubernetesCall::Evict { target, uid, grace_seconds } => {
            let (_, key) = locate(target);
            let options = DeleteOptions {
                uid: Some(uid.clone()),
                grace_seconds: grace_seconds.map(i64::from),
                ..DeleteOptions::default()
            };
            evict::evict(store, &key, &options, now)?;
            Ok(Value::Null)
        }
    }
}

fn locate(target: &Target) -> (Resource, ObjectKey) {
    let namespace = target.namespace.clone().unwrap_or_default();
    (Resource::from(target.kind), ObjectKey::new(namespace, &target.name))
}

/// Name and namespace of an object must be those of the place it is written to.
///
/// # Errors
/// 400 if they differ.
pub fn check_place(value: &mut Value, key: &ObjectKey) -> ApiResult<()> {
    if !value.is_object() {
        return Err(ApiFailure::bad_request("the body of the request is not an object"));
    }
    let (namespace, name) = (object::namespace(value), object::name(value));
    if !namespace.is_empty() && namespace != key.namespace {
        return Err(ApiFailure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !key.name.is_empty() && !name.is_empty() && name != key.name {
        return Err(ApiFailure::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            key.name
        )));
    }
    if !key.namespace.is_empty() {
        object::set(value, &["metadata", "namespace"], key.namespace.as_str());
    }
    if !key.name.is_empty() {
        object::set(value, &["metadata", "name"], key.name.as_str());
    }
    Ok(())
}
