//! `x-kubernetes-validations`: rules in CEL, with `self` and, for transitions, `oldSelf`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cel::objects::Key;
use cel::{Context, Program};
use serde_json::Value;

use super::check::kind_of;
use super::schema::{Schema, join};
use crate::world::api::expression::ENVIRONMENT;
use crate::world::failure::Cause;
use crate::world::object;

/// One compiled rule.
#[derive(Clone)]
pub struct Rule {
    text: String,
    message: String,
    message_expression: Option<Arc<Program>>,
    reason: &'static str,
    field_path: String,
    program: Arc<Program>,
    /// Whether it speaks of `oldSelf`: it runs only where there is one.
    transition: bool,
    optional_old_self: bool,
}

impl fmt::Debug for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Rule").field(&self.text).finish()
    }
}

impl Rule {
    /// Compiles the rules of one schema node.
    pub(super) fn compile_all(schema: &Value, field: &str, causes: &mut Vec<Cause>) -> Vec<Self> {
        let mut rules = Vec::new();
        for (index, rule) in object::list(schema, "/x-kubernetes-validations").iter().enumerate() {
            let field = format!("{field}.x-kubernetes-validations[{index}].rule");
            let text = object::text(rule, "/rule");
            match Self::compile(rule, text) {
                Ok(rule) => rules.push(rule),
                Err(error) => {
                    let detail = format!("compilation failed: {error}");
                    causes.push(Cause::invalid(field, &text.into(), &detail));
                }
            }
        }
        rules
    }

    fn compile(rule: &Value, text: &str) -> Result<Self, String> {
        let compile = |source: &str| ENVIRONMENT.compile(source).map_err(|error| error.to_string());
        let expression = object::text(rule, "/messageExpression");
        let message_expression = match expression {
            "" => None,
            source => Some(Arc::new(compile(source)?)),
        };
        let reason = match object::text(rule, "/reason") {
            "FieldValueRequired" => "FieldValueRequired",
            "FieldValueForbidden" => "FieldValueForbidden",
            "FieldValueDuplicate" => "FieldValueDuplicate",
            _ => "FieldValueInvalid",
        };
        Ok(Self {
            message: match object::text(rule, "/message").trim() {
                "" => format!("failed rule: {text}"),
                message => message.to_owned(),
            },
            message_expression,
            reason,
            field_path: object::text(rule, "/fieldPath").to_owned(),
            program: Arc::new(compile(text)?),
            transition: names_old_self(text),
            optional_old_self: object::flag(rule, "/optionalOldSelf"),
            text: text.to_owned(),
        })
    }

    fn check(&self, context: &Context<'_, '_>, value: &Value, path: &str) -> Option<Cause> {
        let detail = match self.program.execute(context) {
            Ok(cel::Value::Bool(true)) => return None,
            Ok(cel::Value::Bool(false)) => self.explain(context),
            Ok(_) => format!("rule evaluated to something that is no boolean: {}", self.text),
            Err(error) => format!("rule evaluation error: {error}, evaluated rule: {}", self.text),
        };
        let shown = kind_of(value);
        let message = match self.reason {
            "FieldValueRequired" => format!("Required value: {detail}"),
            "FieldValueForbidden" => format!("Forbidden: {detail}"),
            "FieldValueDuplicate" => format!("Duplicate value: {shown:?}: {detail}"),
            _ => format!("Invalid value: {shown:?}: {detail}"),
        };
        let place = if path.is_empty() { "<nil>" } else { path };
        let field = format!("{place}{}", self.field_path);
        Some(Cause { reason: self.reason, message, field })
    }

    fn explain(&self, context: &Context<'_, '_>) -> String {
        let told = self.message_expression.as_ref().and_then(|program| {
            match program.execute(context).ok()? {
                cel::Value::String(text) => Some(text.to_string()),
                _ => None,
            }
        });
        told.filter(|text| !text.trim().is_empty()).unwrap_or_else(|| self.message.clone())
    }
}

/// Whether `oldSelf` occurs as a word of its own.
fn names_old_self(text: &str) -> bool {
    text.split(|character: char| !character.is_alphanumeric() && character != '_')
        .any(|word| word == "oldSelf")
}

/// Runs every rule of a schema on a value and its inner values.
pub(super) fn check(
    schema: &Schema,
    value: &Value,
    current: Option<&Value>,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    if schema.opaque || value.is_null() {
        return;
    }
    // A value that did not change fails no rule that it passed; only transition rules look at
    // both, and they compare it with itself.
    if current == Some(value) {
        return;
    }
    check_node(schema, value, current, path, causes);
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let Some(schema) = schema.member(name).filter(|_| !name.is_empty()) else {
                    continue;
                };
                let current = current.and_then(|current| current.get(name));
                check(schema, inner, current, &join(path, name), causes);
            }
        }
        Value::Array(items) => {
            let Some(inner) = &schema.items else { return };
            for (index, item) in items.iter().enumerate() {
                let current = counterpart(schema, item, current);
                check(inner, item, current, &format!("{path}[{index}]"), causes);
            }
        }
        _ => {}
    }
}

/// The item that an item of a list of type map was before; other lists have no identities.
fn counterpart<'a>(schema: &Schema, item: &Value, current: Option<&'a Value>) -> Option<&'a Value> {
    let keys = schema.list_keys.as_ref().filter(|keys| !keys.is_empty())?;
    let same = |old: &&Value| keys.iter().all(|key| old.get(key) == item.get(key));
    current?.as_array()?.iter().find(same)
}

fn check_node(
    schema: &Schema,
    value: &Value,
    current: Option<&Value>,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    let due = |rule: &&Rule| !rule.transition || current.is_some() || rule.optional_old_self;
    if !schema.rules.iter().any(|rule| due(&rule)) {
        return;
    }
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    context.add_variable_from_value("self", to_cel(schema, value));
    if let Some(current) = current {
        context.add_variable_from_value("oldSelf", to_cel(schema, current));
    }
    causes.extend(
        schema.rules.iter().filter(due).filter_map(|rule| rule.check(&context, value, path)),
    );
}

/// A JSON value as CEL sees it: fields of objects have their names escaped.
fn to_cel(schema: &Schema, value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(flag) => cel::Value::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(integer) if schema.kind != "number" => cel::Value::Int(integer),
            _ => cel::Value::Float(number.as_f64().unwrap_or(0.0)),
        },
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(items) => {
            let any = Schema::default();
            let inner = schema.items.as_deref().unwrap_or(&any);
            cel::Value::List(Arc::new(items.iter().map(|item| to_cel(inner, item)).collect()))
        }
        Value::Object(fields) => {
            let any = Schema::default();
            let mut map: HashMap<Key, cel::Value> = HashMap::new();
            for (name, inner) in fields {
                let known = schema.properties.contains_key(name);
                let key = if known { escape(name) } else { name.clone() };
                let schema = schema.member(name).unwrap_or(&any);
                map.insert(Key::String(Arc::new(key)), to_cel(schema, inner));
            }
            cel::Value::Map(cel::objects::Map { map: Arc::new(map) })
        }
    }
}

/// A property's name as rules write it.
fn escape(name: &str) -> String {
    const RESERVED: [&str; 20] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
    ];
    if RESERVED.contains(&name) || name == "while" {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}
