//! Creating, updating, patching, deleting.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use drover_common::cluster::ObjectKey;
use serde_json::{Value, json};

use super::query::{dry_run, propagation};
use super::{ApiRequest, body, json as answer_json};
use crate::world::api::check_place;
use crate::world::api::patch::{self, PatchKind};
use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;
use crate::world::store::{DeleteOptions, Deleted, Part};

impl ApiRequest {
    pub(super) fn create(&self) -> ApiResult<Response> {
        let mut value = body::decode(&self.content_type, &self.body)?;
        self.check_kind(&value)?;
        check_place(&mut value, &self.key())?;
        let options = self.write_options();
        let created = self.world.with(|world, now| {
            world.store.create(&self.served.storage, self.served.accept(value), &options, now)
        })?;
        Ok(self.show_object(StatusCode::CREATED, self.served.present(&created)))
    }

    pub(super) fn update(&self) -> ApiResult<Response> {
        let mut value = body::decode(&self.content_type, &self.body)?;
        self.check_kind(&value)?;
        check_place(&mut value, &self.key())?;
        let options = self.write_options();
        let part = self.part();
        let updated = self.world.with(|world, now| {
            world.store.update(&self.served.storage, self.served.accept(value), part, &options, now)
        })?;
        Ok(self.show_object(StatusCode::OK, self.served.present(&updated)))
    }

    pub(super) fn patch(&self) -> ApiResult<Response> {
        let kind = PatchKind::of(&self.content_type)?;
        let change = body::decode(&self.content_type, &self.body)?;
        let options = self.write_options();
        let (key, part) = (self.key(), self.part());
        let (code, written) = self.world.with(|world, now| -> ApiResult<_> {
            let current = world.store.get(&self.served.storage, &key).cloned();
            let Some(current) = current else {
                if kind == PatchKind::Apply && part == Part::Main {
                    let created = self.create_by_apply(&mut world.store, change, now)?;
                    return Ok((StatusCode::CREATED, created));
                }
                return Err(ApiFailure::not_found(&self.served.storage, &key.name));
            };
            let shown = self.served.present(&current);
            let manager =
                patch::Manager { name: &self.query.field_manager, force: self.query.force };
            let mut value =
                patch::apply(kind, &self.served.definition, shown, &change, &manager, now)?;
            check_place(&mut value, &key)?;
            let value = self.served.accept(value);
            let store = &mut world.store;
            let updated = patch::write(store, &self.served.storage, value, part, &options, now)?;
            Ok((StatusCode::OK, updated))
        })?;
        Ok(self.show_object(code, self.served.present(&written)))
    }

    /// An apply patch of an object that does not exist creates it.
    fn create_by_apply(
        &self,
        store: &mut crate::world::store::Store,
        mut value: Value,
        now: jiff::Timestamp,
    ) -> ApiResult<Arc<Value>> {
        self.check_kind(&value)?;
        check_place(&mut value, &self.key())?;
        let options = self.write_options();
        patch::record_manager(&mut value, &self.query.field_manager, now);
        store.create(&self.served.storage, self.served.accept(value), &options, now)
    }

    /// `apiVersion` and `kind` of a body must be those of the path.
    pub(super) fn check_kind(&self, value: &Value) -> ApiResult<()> {
        let (kind, api_version) =
            (object::text(value, "/kind"), object::text(value, "/apiVersion"));
        let wanted = &self.served.definition.kind;
        if !kind.is_empty() && kind != wanted {
            return Err(ApiFailure::bad_request(format!(
                "{kind} in version {api_version:?} cannot be handled as a {wanted}"
            )));
        }
        if !api_version.is_empty() && api_version != self.served.api_version {
            return Err(ApiFailure::bad_request(format!(
                "the API version in the data ({api_version}) does not match the expected API version ({})",
                self.served.api_version
            )));
        }
        Ok(())
    }

    /// The deletion's options: those in the body go before those in the query.
    pub(super) fn delete_options(&self, options: &Value) -> ApiResult<DeleteOptions> {
        let text = |pointer: &str| {
            Some(object::text(options, pointer).to_owned()).filter(|text| !text.is_empty())
        };
        let policy = match text("/propagationPolicy") {
            Some(policy) => Some(propagation(&policy)?),
            None if object::flag(options, "/orphanDependents") => {
                Some(crate::world::store::Propagation::Orphan)
            }
            None => self.query.propagation,
        };
        let mut dry = self.query.dry_run;
        for value in object::list(options, "/dryRun") {
            dry |= dry_run(value.as_str().unwrap_or_default())?;
        }
        Ok(DeleteOptions {
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            grace_seconds: object::integer(options, "/gracePeriodSeconds")
                .or(self.query.grace_seconds),
            propagation: policy.unwrap_or_default(),
            dry_run: dry,
            user: Some(self.user.clone()),
        })
    }

    fn body_options(&self) -> ApiResult<DeleteOptions> {
        let options = if self.body.is_empty() {
            Value::Null
        } else {
            body::decode(&self.content_type, &self.body)?
        };
        self.delete_options(&options)
    }

    pub(super) fn delete(&self) -> ApiResult<Response> {
        let options = self.body_options()?;
        let key = self.key();
        let deleted = self
            .world
            .with(|world, now| world.store.delete(&self.served.storage, &key, &options, now))?;
        let answer = match &deleted {
            Deleted::Pending(object) => self.served.present(object),
            Deleted::Gone(object) => self.success(object),
        };
        Ok(answer_json(StatusCode::OK, &answer))
    }

    /// The `Status` that tells of an object's end.
    fn success(&self, gone: &Value) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {
                "name": object::name(gone),
                "group": self.served.definition.resource.group,
                "kind": self.served.definition.resource.plural,
                "uid": object::uid(gone),
            },
        })
    }

    pub(super) fn delete_collection(&self) -> ApiResult<Response> {
        let options = self.body_options()?;
        let query = self.query.list_query(&self.path.namespace)?;
        let (revision, items) = self.world.with(|world, now| -> ApiResult<_> {
            let keys: Vec<ObjectKey> = world
                .store
                .list(&self.served.storage, &query)?
                .items
                .iter()
                .map(|item| object::key(item))
                .collect();
            let mut items = Vec::new();
            for key in keys {
                let deleted = world.store.delete(&self.served.storage, &key, &options, now)?;
                items.push(self.served.present(deleted.object()));
            }
            Ok((world.store.revision(), items))
        })?;
        let answer = json!({
            "kind": format!("{}List", self.served.definition.kind),
            "apiVersion": self.served.api_version,
            "metadata": { "resourceVersion": revision.to_string() },
            "items": items,
        });
        Ok(answer_json(StatusCode::OK, &answer))
    }
}
