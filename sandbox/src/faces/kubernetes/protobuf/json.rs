//! Decoded messages as Kubernetes writes them in JSON.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use prost_reflect::{DynamicMessage, MapKey, ReflectMessage as _, Value as Field};
use serde_json::{Map, Value};

use super::{FACTS, JsonFacts, refuse};
use crate::world::failure::ApiResult;
use crate::world::object;

/// A message as JSON.
///
/// # Errors
/// 400 where a member can't be what it should be, such as a time outside the calendar.
pub(super) fn of_message(message: &DynamicMessage) -> ApiResult<Value> {
    let descriptor = message.descriptor();
    if let Some(special) = special(descriptor.full_name(), message) {
        return special;
    }
    let none = JsonFacts::default();
    let facts = FACTS.get(descriptor.full_name()).unwrap_or(&none);
    let mut members = Map::new();
    for (field, value) in message.fields() {
        let name = field.name();
        if field.is_list() || field.is_map() || !is_zero(value) || facts.kept.contains(name) {
            let value = of_field(value)?;
            match value {
                Value::Object(inner) if facts.inlined.contains(name) => members.extend(inner),
                // A time that was never set.
                Value::Null => {}
                value => {
                    let name = facts.renamed.get(name).copied().unwrap_or(name);
                    members.insert(name.to_owned(), value);
                }
            }
        }
    }
    Ok(Value::Object(members))
}

/// The kinds of message whose JSON is no object.
fn special(name: &str, message: &DynamicMessage) -> Option<ApiResult<Value>> {
    let get = |field: &str| message.get_field_by_name(field);
    Some(match name {
        "k8s.io.apimachinery.pkg.apis.meta.v1.Time" => time(message, object::seconds),
        "k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime" => time(message, object::microseconds),
        "k8s.io.apimachinery.pkg.api.resource.Quantity" => Ok(text(get("string")).into()),
        "k8s.io.apimachinery.pkg.util.intstr.IntOrString" => {
            let is_text = number(get("type")) == 1;
            Ok(if is_text { text(get("strVal")).into() } else { number(get("intVal")).into() })
        }
        "k8s.io.apimachinery.pkg.runtime.RawExtension" => embedded(get("raw")),
        "k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1" => embedded(get("Raw")),
        "k8s.io.api.authentication.v1.ExtraValue"
        | "k8s.io.api.authorization.v1.ExtraValue"
        | "k8s.io.apimachinery.pkg.apis.meta.v1.Verbs" => {
            get("items").map_or_else(|| Ok(Value::Array(Vec::new())), |items| of_field(&items))
        }
        _ => return None,
    })
}

fn of_field(value: &Field) -> ApiResult<Value> {
    Ok(match value {
        Field::Bool(flag) => Value::Bool(*flag),
        Field::I32(number) | Field::EnumNumber(number) => Value::from(*number),
        Field::I64(number) => Value::from(*number),
        Field::U32(number) => Value::from(*number),
        Field::U64(number) => Value::from(*number),
        Field::F32(number) => Value::from(*number),
        Field::F64(number) => Value::from(*number),
        Field::String(text) => Value::from(text.as_str()),
        Field::Bytes(bytes) => Value::from(STANDARD.encode(bytes)),
        Field::Message(message) => of_message(message)?,
        Field::List(items) => Value::Array(items.iter().map(of_field).collect::<Result<_, _>>()?),
        Field::Map(entries) => {
            let mut members = Map::new();
            for (key, value) in entries {
                // Keys of other types do not occur in these messages.
                let MapKey::String(key) = key else { continue };
                members.insert(key.clone(), of_field(value)?);
            }
            Value::Object(members)
        }
    })
}

fn is_zero(value: &Field) -> bool {
    match value {
        Field::Bool(flag) => !flag,
        Field::I32(number) => *number == 0,
        Field::I64(number) => *number == 0,
        Field::String(text) => text.is_empty(),
        Field::Bytes(bytes) => bytes.is_empty(),
        _ => false,
    }
}

/// Bytes that [`of_message`] wrote as base64.
pub(super) fn bytes_of(value: Option<&Value>) -> ApiResult<Vec<u8>> {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    STANDARD.decode(text).map_err(|error| refuse(&error.to_string()))
}

fn time(message: &DynamicMessage, show: impl Fn(Timestamp) -> String) -> ApiResult<Value> {
    let seconds = number(message.get_field_by_name("seconds"));
    let nanos = number(message.get_field_by_name("nanos"));
    if seconds == 0 && nanos == 0 {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).map_err(|error| refuse(&error.to_string()))?;
    let at = Timestamp::new(seconds, nanos).map_err(|error| refuse(&error.to_string()))?;
    Ok(show(at).into())
}

/// JSON within a message.
fn embedded(field: Option<Cow<'_, Field>>) -> ApiResult<Value> {
    let empty = || Value::Object(Map::new());
    match field.as_deref() {
        Some(Field::Bytes(bytes)) if !bytes.is_empty() => {
            serde_json::from_slice(bytes).map_err(|error| refuse(&error.to_string()))
        }
        _ => Ok(empty()),
    }
}

fn text(field: Option<Cow<'_, Field>>) -> String {
    field.as_deref().and_then(Field::as_str).unwrap_or_default().to_owned()
}

fn number(field: Option<Cow<'_, Field>>) -> i64 {
    match field.as_deref() {
        Some(Field::I64(number)) => *number,
        Some(Field::I32(number)) => i64::from(*number),
        _ => 0,
    }
}
