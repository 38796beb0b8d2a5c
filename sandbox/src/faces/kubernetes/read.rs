//! Getting and listing.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::{ApiRequest, json as answer_json};
use crate::world::failure::ApiResult;
use crate::world::object;

/// How objects are to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Representation {
    /// As they are.
    Full,
    /// As rows of a `meta.k8s.io/v1` Table.
    Table,
    /// Their metadata alone.
    Metadata,
}

impl Representation {
    /// The first of the accepted forms that is served.
    pub(super) fn of(accept: &str) -> Self {
        for part in accept.split(',') {
            let has = |text: &str| part.split(';').any(|parameter| parameter.trim() == text);
            if !has("application/json") {
                continue;
            }
            if has("as=Table") {
                return Representation::Table;
            }
            if has("as=PartialObjectMetadata") || has("as=PartialObjectMetadataList") {
                return Representation::Metadata;
            }
            return Representation::Full;
        }
        Representation::Full
    }
}

/// An object's metadata as a PartialObjectMetadata.
pub(super) fn metadata_only(object: &Value) -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1",
        "kind": "PartialObjectMetadata",
        "metadata": object.get("metadata").cloned().unwrap_or_default(),
    })
}

impl ApiRequest {
    pub(super) fn get(&self) -> ApiResult<Response> {
        let object = self.world.with(|world, _| {
            world
                .store
                .require(&self.served.storage, &self.key())
                .map(|found| self.served.present(found))
        })?;
        Ok(self.show_object(StatusCode::OK, object))
    }

    /// Answers with one object.
    pub(super) fn show_object(&self, code: StatusCode, object: Value) -> Response {
        let shown = match self.representation {
            Representation::Full => object,
            Representation::Metadata => metadata_only(&object),
            Representation::Table => {
                let version = object::text(&object, "/metadata/resourceVersion").to_owned();
                self.table(&[object], json!({ "resourceVersion": version }), true)
            }
        };
        answer_json(code, &shown)
    }

    pub(super) fn list(&self) -> ApiResult<Response> {
        let query = self.query.list_query(&self.path.namespace)?;
        let page = self.world.with(|world, _| world.store.list(&self.served.storage, &query))?;
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".to_owned(), page.revision.to_string().into());
        if let Some(token) = page.continue_token {
            metadata.insert("continue".to_owned(), token.into());
        }
        if let Some(remaining) = page.remaining {
            metadata.insert("remainingItemCount".to_owned(), remaining.into());
        }
        let items: Vec<Value> = page.items.iter().map(|item| self.served.present(item)).collect();
        let metadata = Value::Object(metadata);
        let shown = match self.representation {
            Representation::Full => json!({
                "kind": format!("{}List", self.served.definition.kind),
                "apiVersion": self.served.api_version,
                "metadata": metadata,
                "items": items,
            }),
            Representation::Metadata => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": items.iter().map(metadata_only).collect::<Vec<_>>(),
            }),
            Representation::Table => self.table(&items, metadata, true),
        };
        Ok(answer_json(StatusCode::OK, &shown))
    }
}
