//! CEL, as Kubernetes extends it, over JSON.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::objects::Key;
use cel::{Env, extensions};
use serde_json::Value;

/// CEL as Kubernetes extends it.
pub(super) static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    for extension in [extensions::strings, extensions::lists] {
        if let Err(error) = environment.add_extension(extension) {
            tracing::error!(?error, "A CEL library could not be loaded.");
        }
    }
    Arc::new(environment)
});

/// A JSON value in CEL, without a schema: whole numbers are integers.
pub(super) fn value_of(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(flag) => cel::Value::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => cel::Value::Int(integer),
            None => cel::Value::Float(number.as_f64().unwrap_or(0.0)),
        },
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(items) => cel::Value::List(Arc::new(items.iter().map(value_of).collect())),
        Value::Object(members) => {
            map_of(members.iter().map(|(name, inner)| (name.clone(), value_of(inner))))
        }
    }
}

/// A CEL map with text keys.
pub(super) fn map_of(members: impl Iterator<Item = (String, cel::Value)>) -> cel::Value {
    let map: HashMap<Key, cel::Value> =
        members.map(|(name, value)| (Key::String(Arc::new(name)), value)).collect();
    cel::Value::Map(cel::objects::Map { map: Arc::new(map) })
}
