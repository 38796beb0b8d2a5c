//! Structural schemas, compiled: defaults, unknown fields.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::{Map, Value};

use super::rules::Rule;
use crate::world::failure::Cause;
use crate::world::object;

/// One node of a structural schema.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// `object`, `array`, `string`, …; empty if any.
    pub(super) kind: String,
    pub(super) format: String,
    pub(super) properties: BTreeMap<String, Schema>,
    pub(super) additional: Option<Box<Schema>>,
    pub(super) items: Option<Box<Schema>>,
    pub(super) required: Vec<String>,
    pub(super) allowed: Option<Vec<Value>>,
    pub(super) pattern: Option<(String, Regex)>,
    pub(super) limits: Limits,
    pub(super) nullable: bool,
    pub(super) int_or_string: bool,
    pub(super) rules: Vec<Rule>,
    /// Keys of a list of type map; empty for a list of type set.
    pub(super) list_keys: Option<Vec<String>>,
    pub(super) all_of: Vec<Schema>,
    pub(super) any_of: Vec<Schema>,
    pub(super) one_of: Vec<Schema>,
    pub(super) not: Option<Box<Schema>>,
    default: Option<Value>,
    keep_unknown: bool,
    /// Not pruned and not checked: the server's own business.
    pub(super) opaque: bool,
}

/// The bounds a node sets.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    pub(super) minimum: Option<f64>,
    pub(super) maximum: Option<f64>,
    pub(super) exclusive_minimum: bool,
    pub(super) exclusive_maximum: bool,
    pub(super) multiple_of: Option<f64>,
    pub(super) least_length: Option<u64>,
    pub(super) most_length: Option<u64>,
    pub(super) least_items: Option<u64>,
    pub(super) most_items: Option<u64>,
    pub(super) least_properties: Option<u64>,
    pub(super) most_properties: Option<u64>,
}

impl Limits {
    fn read(text: &Value) -> Self {
        let number = |member: &str| text.get(member).and_then(Value::as_f64);
        let count = |member: &str| text.get(member).and_then(Value::as_u64);
        let flag = |member: &str| text.get(member).and_then(Value::as_bool).unwrap_or(false);
        Self {
            minimum: number("minimum"),
            maximum: number("maximum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            least_length: count("minLength"),
            most_length: count("maxLength"),
            least_items: count("minItems"),
            most_items: count("maxItems"),
            least_properties: count("minProperties"),
            most_properties: count("maxProperties"),
        }
    }
}

impl Schema {
    /// Compiles a schema; what cannot be compiled is told with its path.
    pub fn compile(text: &Value, field: &str, causes: &mut Vec<Cause>) -> Self {
        let flag = |member: &str| text.get(member).and_then(Value::as_bool).unwrap_or(false);
        let mut properties = BTreeMap::new();
        for (name, inner) in text.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            let field = format!("{field}.properties[{name}]");
            properties.insert(name.clone(), Self::compile(inner, &field, causes));
        }
        let mut boxed = |member: &str| {
            let inner = text.get(member).filter(|inner| inner.is_object())?;
            Some(Box::new(Self::compile(inner, &format!("{field}.{member}"), causes)))
        };
        let (additional, items, not) =
            (boxed("additionalProperties"), boxed("items"), boxed("not"));
        let mut several = |member: &str| -> Vec<Self> {
            let inner = text.get(member).and_then(Value::as_array).into_iter().flatten();
            inner.map(|inner| Self::compile(inner, &format!("{field}.{member}"), causes)).collect()
        };
        let (all_of, any_of, one_of) = (several("allOf"), several("anyOf"), several("oneOf"));
        let texts = |member: &str| -> Vec<String> {
            let items = text.get(member).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
        };
        let list_keys = match object::text(text, "/x-kubernetes-list-type") {
            "map" => Some(texts("x-kubernetes-list-map-keys")),
            "set" => Some(Vec::new()),
            _ => None,
        };
        Self {
            kind: object::text(text, "/type").to_owned(),
            format: object::text(text, "/format").to_owned(),
            required: texts("required"),
            allowed: text.get("enum").and_then(Value::as_array).cloned(),
            pattern: compile_pattern(text, field, causes),
            limits: Limits::read(text),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            rules: Rule::compile_all(text, field, causes),
            default: text.get("default").cloned(),
            keep_unknown: flag("x-kubernetes-preserve-unknown-fields")
                || text.get("additionalProperties") == Some(&Value::Bool(true)),
            opaque: flag("x-kubernetes-embedded-resource"),
            properties,
            additional,
            items,
            list_keys,
            all_of,
            any_of,
            one_of,
            not,
        }
    }

    /// Makes the root know what every object has: the server checks those members itself.
    pub(super) fn embed_metadata(&mut self) {
        for member in ["apiVersion", "kind", "metadata"] {
            let schema = Schema { opaque: true, ..Schema::default() };
            self.properties.insert(member.to_owned(), schema);
        }
    }

    /// The schema of an object's member.
    pub(super) fn member(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(self.additional.as_deref())
    }

    /// Fills defaults, from the outside in. A null where null is not allowed counts as absent.
    pub(super) fn complete(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, schema) in &self.properties {
                    let absent = fields.get(name).is_none_or(|value| {
                        value.is_null() && !schema.nullable && schema.default.is_some()
                    });
                    if let (true, Some(default)) = (absent, &schema.default) {
                        fields.insert(name.clone(), default.clone());
                    }
                }
                for (name, inner) in fields.iter_mut() {
                    if let Some(schema) = self.member(name) {
                        schema.complete(inner);
                    }
                }
            }
            Value::Array(items) => {
                for (item, schema) in items.iter_mut().zip(std::iter::repeat(&self.items)) {
                    if let Some(schema) = schema {
                        schema.complete(item);
                    }
                }
            }
            _ => {}
        }
    }

    /// Drops the fields the schema does not know, and tells their paths.
    pub(super) fn prune_root(&self, value: &mut Value, unknown: &mut Vec<String>) {
        self.prune(value, "", unknown);
    }

    fn prune(&self, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
        if self.opaque {
            return;
        }
        match value {
            Value::Object(fields) => self.prune_fields(fields, path, unknown),
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    schema.prune(item, &format!("{path}[{index}]"), unknown);
                }
            }
            _ => {}
        }
    }

    fn prune_fields(&self, fields: &mut Map<String, Value>, path: &str, unknown: &mut Vec<String>) {
        if !self.keep_unknown && self.additional.is_none() {
            fields.retain(|name, _| {
                let known = self.properties.contains_key(name);
                if !known {
                    unknown.push(join(path, name));
                }
                known
            });
        }
        for (name, inner) in fields.iter_mut() {
            if let Some(schema) = self.member(name) {
                schema.prune(inner, &join(path, name), unknown);
            }
        }
    }

    /// The names of a value's members that the schema requires and that are missing.
    pub(super) fn missing<'a>(
        &'a self,
        fields: &'a Map<String, Value>,
    ) -> impl Iterator<Item = &'a str> {
        let present: BTreeSet<&str> = fields.keys().map(String::as_str).collect();
        self.required.iter().map(String::as_str).filter(move |name| !present.contains(name))
    }
}

fn compile_pattern(text: &Value, field: &str, causes: &mut Vec<Cause>) -> Option<(String, Regex)> {
    let pattern = text.get("pattern").and_then(Value::as_str)?;
    match Regex::new(pattern) {
        Ok(regex) => Some((pattern.to_owned(), regex)),
        Err(error) => {
            let detail = format!("must be a valid regular expression, but isn't: {error}");
            causes.push(Cause::invalid(format!("{field}.pattern"), &pattern.into(), &detail));
            None
        }
    }
}

/// A member's path.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
