//! What happens to an object between a request and the store: defaults, admission, validation.

use jiff::Timestamp;
use serde_json::Value;

use super::builtin;
use super::custom::{self, CustomResource};
use crate::world::failure::{ApiFailure, ApiResult, Cause};
use crate::world::object;
use crate::world::resource::{CUSTOM_RESOURCE_DEFINITIONS, Definition};
use crate::world::store::{Part, Store, WriteOptions};

mod defaults;
mod metadata;
mod pod;
mod validate;

/// Completes and checks a new object.
///
/// # Errors
/// 403 or 422.
pub fn on_create(
    store: &Store,
    definition: &Definition,
    value: &mut Value,
    options: &WriteOptions,
    now: Timestamp,
) -> ApiResult<()> {
    let mut causes = metadata::check(definition, value);
    if let Some(custom) = &definition.custom {
        causes.extend(admit_custom(definition, custom, value, None, options)?);
        return conclude(definition, value, causes);
    }
    check_shape(definition, value, options)?;
    defaults::fill(&definition.resource, value);
    pod::admit(store, definition, value)?;
    causes.extend(validate::check(&definition.resource, value));
    if definition.resource == CUSTOM_RESOURCE_DEFINITIONS {
        custom::complete_definition(value);
        causes.extend(custom::definition_of(value).err().unwrap_or_default());
        object::set(value, &["status"], custom::status_of_definition(value, now));
    }
    conclude(definition, value, causes)
}

/// Completes and checks a changed object.
///
/// # Errors
/// 403 or 422.
pub fn on_update(
    definition: &Definition,
    current: &Value,
    value: &mut Value,
    part: Part,
    options: &WriteOptions,
) -> ApiResult<()> {
    let mut causes = metadata::check(definition, value);
    if let Some(custom) = &definition.custom {
        causes.extend(admit_custom(definition, custom, value, Some(current), options)?);
        return conclude(definition, value, causes);
    }
    if part == Part::Main {
        check_shape(definition, value, options)?;
        defaults::fill(&definition.resource, value);
        causes.extend(validate::check(&definition.resource, value));
        causes.extend(validate::check_change(&definition.resource, current, value));
        if definition.resource == CUSTOM_RESOURCE_DEFINITIONS {
            custom::complete_definition(value);
            causes.extend(custom::definition_of(value).err().unwrap_or_default());
        }
    }
    conclude(definition, value, causes)
}

fn admit_custom(
    definition: &Definition,
    custom: &CustomResource,
    value: &mut Value,
    current: Option<&Value>,
    options: &WriteOptions,
) -> ApiResult<Vec<Cause>> {
    let version = definition.versions.first().map_or("v1", String::as_str);
    let findings = custom.admit(version, value, current);
    if options.strict && !findings.unknown.is_empty() {
        let unknown: Vec<String> =
            findings.unknown.iter().map(|field| format!("unknown field {field:?}")).collect();
        return Err(refuse_strictly(definition, &unknown));
    }
    Ok(findings.causes)
}

/// Strict requests are refused for fields that a built-in kind does not have.
fn check_shape(definition: &Definition, value: &Value, options: &WriteOptions) -> ApiResult<()> {
    if !options.strict {
        return Ok(());
    }
    let misfits = builtin::misfits(definition, value);
    if misfits.is_empty() { Ok(()) } else { Err(refuse_strictly(definition, &misfits)) }
}

fn refuse_strictly(definition: &Definition, misfits: &[String]) -> Box<ApiFailure> {
    let version = definition.versions.first().map_or("v1", String::as_str);
    ApiFailure::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {}",
        misfits.join(", "),
        kind = definition.kind,
    ))
}

fn conclude(definition: &Definition, value: &Value, causes: Vec<Cause>) -> ApiResult<()> {
    if causes.is_empty() {
        return Ok(());
    }
    let (group, kind) = (&definition.resource.group, &definition.kind);
    Err(ApiFailure::invalid(group, kind, object::name(value), causes))
}

/// Takes note of a written object: a CustomResourceDefinition changes what is served.
pub fn after_write(store: &mut Store, definition: &Definition, object: &Value) {
    if definition.resource == CUSTOM_RESOURCE_DEFINITIONS
        && let Ok(served) = custom::definition_of(object)
    {
        store.registry_mut().insert(served);
    }
}

/// Takes note of a removed object: a CustomResourceDefinition takes its objects with it.
pub fn after_delete(store: &mut Store, definition: &Definition, object: &Value) {
    if definition.resource == CUSTOM_RESOURCE_DEFINITIONS
        && let Ok(served) = custom::definition_of(object)
    {
        store.withdraw_all(&served.resource);
        store.registry_mut().remove(&served.resource);
    }
}
