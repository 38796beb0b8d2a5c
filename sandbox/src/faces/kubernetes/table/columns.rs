//! Which columns each kind is printed with.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{cells, json_path};
use crate::world::object;
use crate::world::resource::Definition;

/// How a cell is read from an object.
#[derive(Clone, Debug)]
enum Source {
    /// By a function of ours.
    Known(fn(&Value, Timestamp) -> Value),
    /// By a CustomResourceDefinition's JSONPath.
    Path(String),
}

/// One column.
#[derive(Clone, Debug)]
pub(in crate::faces::kubernetes) struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    source: Source,
}

impl Column {
    fn known(name: &str, priority: i64, cell: fn(&Value, Timestamp) -> Value) -> Self {
        let kind = if name == "Name" { "name" } else { "" };
        Self {
            name: name.to_owned(),
            kind: "string".to_owned(),
            format: kind.to_owned(),
            description: String::new(),
            priority,
            source: Source::Known(cell),
        }
    }

    fn custom(column: &Value) -> Self {
        let text = |pointer| object::text(column, pointer).to_owned();
        Self {
            name: text("/name"),
            kind: text("/type"),
            format: text("/format"),
            description: text("/description"),
            priority: object::integer(column, "/priority").unwrap_or(0),
            source: Source::Path(text("/jsonPath")),
        }
    }

    /// The column as a Table describes it.
    pub(in crate::faces::kubernetes) fn definition(&self) -> Value {
        json!({
            "name": self.name,
            // Ages are printed by us, so that a date column is a text to the client.
            "type": if self.kind == "date" { "string" } else { &self.kind },
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }

    /// One object's cell.
    pub(in crate::faces::kubernetes) fn cell(&self, item: &Value, now: Timestamp) -> Value {
        let path = match &self.source {
            Source::Known(cell) => return cell(item, now),
            Source::Path(path) => path,
        };
        let found = json_path::find(item, path);
        let Some(value) = found.first() else { return Value::Null };
        match (self.kind.as_str(), value) {
            ("date", Value::String(text)) => cells::age_of(text, now),
            ("string", Value::String(text)) => text.as_str().into(),
            ("string", other) => other.to_string().into(),
            (_, value) => Value::clone(value),
        }
    }
}

/// The columns of a resource.
pub(in crate::faces::kubernetes) fn of(definition: &Definition, version: &str) -> Vec<Column> {
    let mut columns = vec![Column::known("Name", 0, |item, _| object::name(item).into())];
    match &definition.custom {
        Some(custom) => match custom.columns.get(version).filter(|columns| !columns.is_empty()) {
            Some(own) => columns.extend(own.iter().map(Column::custom)),
            None => columns.push(Column::known("Age", 0, cells::age)),
        },
        None => {
            let own = cells::of(&definition.resource);
            columns.extend(
                own.iter().map(|(name, priority, cell)| Column::known(name, *priority, *cell)),
            );
        }
    }
    columns
}
