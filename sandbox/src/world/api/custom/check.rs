//! Checking a value against a structural schema, in the words of the real server.

use serde_json::{Map, Value};

use super::schema::{Schema, join};
use crate::world::failure::Cause;

/// Checks a value. What is as it was before is not checked again: an object that became invalid
/// by a new schema can still be changed elsewhere.
pub(super) fn check(
    schema: &Schema,
    value: &Value,
    current: Option<&Value>,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    if schema.opaque || current == Some(value) {
        return;
    }
    if value.is_null() && (schema.nullable || path.is_empty()) {
        return;
    }
    if !has_kind(schema, value) {
        let wanted = if schema.int_or_string { "integer or string" } else { &schema.kind };
        let found = kind_of(value);
        let detail = format!("{} must be of type {wanted}: {found:?}", in_body(path));
        causes.push(Cause::type_invalid(path, found, &detail));
        return;
    }
    if let Some(allowed) = &schema.allowed
        && !allowed.contains(value)
    {
        let texts: Vec<String> = allowed
            .iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect();
        causes.push(Cause::not_supported(path, value, &texts));
    }
    match value {
        Value::Object(fields) => check_object(schema, fields, current, path, causes),
        Value::Array(items) => check_array(schema, items, current, path, causes),
        Value::String(text) => check_text(schema, text, path, causes),
        Value::Number(number) => {
            check_number(schema, number.as_f64().unwrap_or(0.0), value, path, causes);
        }
        _ => {}
    }
    check_combinations(schema, value, path, causes);
}

fn in_body(path: &str) -> String {
    format!("{path} in body")
}

fn has_kind(schema: &Schema, value: &Value) -> bool {
    if schema.int_or_string {
        return value.is_i64() || value.is_u64() || value.is_string();
    }
    match schema.kind.as_str() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => {
            value.is_i64()
                || value.is_u64()
                || value.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        "number" => value.is_number(),
        _ => true,
    }
}

/// A value's type in JSON schema's words.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_object(
    schema: &Schema,
    fields: &Map<String, Value>,
    current: Option<&Value>,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    for name in schema.missing(fields) {
        causes.push(Cause::required(join(path, name), ""));
    }
    let count = fields.len();
    if let Some(most) = schema.limits.most_properties.filter(|most| count as u64 > *most) {
        causes.push(Cause::too_many(path, count, most));
    }
    if let Some(least) = schema.limits.least_properties.filter(|least| (count as u64) < *least) {
        let detail = format!("{} should have at least {least} properties", in_body(path));
        causes.push(Cause::invalid(path, &count.into(), &detail));
    }
    for (name, value) in fields {
        if let Some(inner) = schema.member(name) {
            let field = if schema.properties.contains_key(name) {
                join(path, name)
            } else {
                // Keys of maps are shown in brackets: they may hold dots.
                format!("{path}[{name}]")
            };
            let current = current.and_then(|current| current.get(name));
            check(inner, value, current, &field, causes);
        }
    }
}

fn check_array(
    schema: &Schema,
    items: &[Value],
    current: Option<&Value>,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    let count = items.len();
    if let Some(most) = schema.limits.most_items.filter(|most| count as u64 > *most) {
        causes.push(Cause::too_many(path, count, most));
    }
    if let Some(least) = schema.limits.least_items.filter(|least| (count as u64) < *least) {
        let detail = format!("{} should have at least {least} items", in_body(path));
        causes.push(Cause::invalid(path, &count.into(), &detail));
    }
    if let Some(keys) = &schema.list_keys {
        check_keys(keys, items, path, causes);
    }
    let Some(inner) = &schema.items else { return };
    for (index, item) in items.iter().enumerate() {
        let current = current.and_then(|current| current.get(index));
        check(inner, item, current, &format!("{path}[{index}]"), causes);
    }
}

fn check_keys(keys: &[String], items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    let identity = |item: &Value| -> Value {
        if keys.is_empty() {
            return item.clone();
        }
        keys.iter().map(|key| (key.clone(), item.get(key).cloned().unwrap_or_default())).collect()
    };
    let mut seen = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let identity = identity(item);
        if seen.contains(&identity) {
            causes.push(Cause::duplicate(format!("{path}[{index}]"), &identity));
        }
        seen.push(identity);
    }
}

fn check_text(schema: &Schema, text: &str, path: &str, causes: &mut Vec<Cause>) {
    let length = text.chars().count() as u64;
    if let Some(most) = schema.limits.most_length.filter(|most| length > *most) {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {most} bytes"),
            field: path.to_owned(),
        });
    }
    if let Some(least) = schema.limits.least_length.filter(|least| length < *least) {
        let detail = format!("{} should be at least {least} chars long", in_body(path));
        causes.push(Cause::invalid(path, &text.into(), &detail));
    }
    if let Some((pattern, regex)) = &schema.pattern
        && !regex.is_match(text)
    {
        let detail = format!("{} should match '{pattern}'", in_body(path));
        causes.push(Cause::invalid(path, &text.into(), &detail));
    }
    if schema.format == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
        let detail = format!("{} must be of type date-time: {text:?}", in_body(path));
        causes.push(Cause::invalid(path, &text.into(), &detail));
    }
}

fn check_number(schema: &Schema, number: f64, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let limits = &schema.limits;
    let mut refuse = |text: String| {
        causes.push(Cause::invalid(path, value, &format!("{} should be {text}", in_body(path))));
    };
    if let Some(least) = limits.minimum {
        if limits.exclusive_minimum && number <= least {
            refuse(format!("greater than {least}"));
        } else if number < least {
            refuse(format!("greater than or equal to {least}"));
        }
    }
    if let Some(most) = limits.maximum {
        if limits.exclusive_maximum && number >= most {
            refuse(format!("less than {most}"));
        } else if number > most {
            refuse(format!("less than or equal to {most}"));
        }
    }
    if let Some(step) = limits.multiple_of
        && step > 0.0
        && (number / step).fract() != 0.0
    {
        refuse(format!("a multiple of {step}"));
    }
}

fn check_combinations(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let fits = |inner: &Schema| {
        let mut found = Vec::new();
        check(inner, value, None, path, &mut found);
        found.is_empty()
    };
    let mut refuse = |text: &str| {
        causes.push(Cause::invalid(path, value, &format!("{} {text}", in_body(path))));
    };
    if !schema.any_of.is_empty() && !schema.any_of.iter().any(fits) {
        refuse("must validate at least one schema (anyOf)");
    }
    if !schema.one_of.is_empty() && schema.one_of.iter().filter(|inner| fits(inner)).count() != 1 {
        refuse("must validate one and only one schema (oneOf)");
    }
    if schema.not.as_ref().is_some_and(|inner| fits(inner)) {
        refuse("must not validate the schema (not)");
    }
    for inner in &schema.all_of {
        check(inner, value, None, path, causes);
    }
}
