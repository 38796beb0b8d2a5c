//! What happens to an object between a request and the store: defaults, admission, validation.

use jiff::Timestamp;
use serde_json::Value;

use crate::world::failure::ApiResult;
use crate::world::resource::Definition;
use crate::world::store::{Part, Store, WriteOptions};

/// Completes and checks a new object.
///
/// # Errors
/// 403 or 422.
pub fn on_create(
    _store: &Store,
    _definition: &Definition,
    _value: &mut Value,
    _options: &WriteOptions,
    _now: Timestamp,
) -> ApiResult<()> {
    Ok(())
}

/// Completes and checks a changed object.
///
/// # Errors
/// 403 or 422.
pub fn on_update(
    _store: &Store,
    _definition: &Definition,
    _current: &Value,
    _value: &mut Value,
    _part: Part,
    _options: &WriteOptions,
    _now: Timestamp,
) -> ApiResult<()> {
    Ok(())
}

/// Takes note of a written object: a CustomResourceDefinition changes what is served.
pub fn after_write(_store: &mut Store, _definition: &Definition, _object: &Value) {}

/// Takes note of a removed object.
pub fn after_delete(_store: &mut Store, _definition: &Definition, _object: &Value) {}
