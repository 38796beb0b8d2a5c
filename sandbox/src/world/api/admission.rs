//! What happens to an object between a request and the store: defaults, admission, validation.

use jiff::Timestamp;
use serde_json::Value;

use super::builtin;
use super::custom::{self, CustomResource};
use crate::world::access;
use crate::world::failure::{ApiFailure, ApiResult, Cause};
use crate::world::object;
use crate::world::resource::{CUSTOM_RESOURCE_DEFINITIONS, Definition};
use crate::world::store::{DeleteOptions, Part, Store, WriteOptions};

mod defaults;
mod metadata;
mod pod;
mod policy;
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
        conclude(definition, value, causes)?;
        return judge(store, definition, "", Some(value), None, options);
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
    conclude(definition, value, causes)?;
    judge(store, definition, "", Some(value), None, options)
}

/// Completes and checks a changed object.
///
/// # Errors
/// 403 or 422.
pub fn on_update(
    store: &Store,
    definition: &Definition,
    current: &Value,
    value: &mut Value,
    part: Part,
    options: &WriteOptions,
) -> ApiResult<()> {
    let subresource = if part == Part::Status { "status" } else { "" };
    let mut causes = metadata::check(definition, value);
    if let Some(custom) = &definition.custom {
        causes.extend(admit_custom(definition, custom, value, Some(current), options)?);
        conclude(definition, value, causes)?;
        return judge(store, definition, subresource, Some(value), Some(current), options);
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
    conclude(definition, value, causes)?;
    judge(store, definition, subresource, Some(value), Some(current), options)
}

/// Checks a deletion.
///
/// # Errors
/// 403 or 422 where a node's restrictions or an admission policy forbid it.
pub fn on_delete(
    store: &Store,
    definition: &Definition,
    current: &Value,
    options: &DeleteOptions,
) -> ApiResult<()> {
    let options = WriteOptions {
        dry_run: options.dry_run,
        user: options.user.clone(),
        ..WriteOptions::default()
    };
    judge(store, definition, "", None, Some(current), &options)
}

/// Checks the creation of a subresource that is no part of its object, such as an eviction of `pod`.
///
/// # Errors
/// 403 or 422 where a node's restrictions or an admission policy forbid it.
pub fn on_subresource(
    store: &Store,
    definition: &Definition,
    subresource: &str,
    body: &Value,
    current: Option<&Value>,
    options: &WriteOptions,
) -> ApiResult<()> {
    let Some(user) = &options.user else { return Ok(()) };
    access::restrict(user, &definition.resource, subresource, None, current)?;
    let request = policy::Request {
        user,
        operation: "CREATE",
        definition,
        subresource,
        object: Some(body),
        old: None,
        dry_run: options.dry_run,
    };
    policy::check(store, &request)
}

/// The rules that depend on who asks: those for nodes, and admission policies.
fn judge(
    store: &Store,
    definition: &Definition,
    subresource: &str,
    object: Option<&Value>,
    old: Option<&Value>,
    options: &WriteOptions,
) -> ApiResult<()> {
    let Some(user) = &options.user else { return Ok(()) };
    access::restrict(user, &definition.resource, subresource, object, old)?;
    let operation = match (object, old) {
        (Some(_), None) => "CREATE",
        (None, _) => "DELETE",
        _ => "UPDATE",
    };
    let dry_run = options.dry_run;
    let request =
        policy::Request { user, operation, definition, subresource, object, old, dry_run };
    policy::check(store, &request)
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
