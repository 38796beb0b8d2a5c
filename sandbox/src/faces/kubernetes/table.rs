//! Objects as rows, as kubectl prints them.

use serde_json::{Value, json};

use super::ApiRequest;
use super::read::metadata_only;
use crate::world::object;

pub(super) mod cells;
pub(super) mod columns;
mod json_path;

impl ApiRequest {
    /// A `meta.k8s.io/v1` Table of objects.
    pub(super) fn table(&self, items: &[Value], metadata: Value, with_columns: bool) -> Value {
        let columns = columns::of(&self.served.definition, &self.path.version);
        let now = jiff::Timestamp::now();
        let rows: Vec<Value> = items
            .iter()
            .map(|item| {
                let cells: Vec<Value> =
                    columns.iter().map(|column| column.cell(item, now)).collect();
                let shown = match self.query.include_object.as_str() {
                    "None" => Value::Null,
                    "Object" => item.clone(),
                    _ => metadata_only(item),
                };
                json!({ "cells": cells, "object": shown })
            })
            .collect();
        let definitions: Vec<Value> = if with_columns {
            columns.iter().map(columns::Column::definition).collect()
        } else {
            Vec::new()
        };
        let mut table = json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "rows": rows,
        });
        object::set(&mut table, &["columnDefinitions"], definitions);
        table
    }
}
