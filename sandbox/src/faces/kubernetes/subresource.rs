//! Subresources that are not parts of an object: eviction, binding, scale, tokens.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::{ApiRequest, Verb, body, json as answer_json};
use crate::world::api::patch::PatchKind;
use crate::world::api::{admission, bind, evict, patch, scale};
use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;
use crate::world::resource::{NAMESPACES, PODS, SERVICE_ACCOUNTS};
use crate::world::store::{DeleteOptions, Part, Store};

impl ApiRequest {
    pub(super) fn subresource(&self, verb: Verb) -> ApiResult<Response> {
        let resource = &self.served.definition.resource;
        match (self.path.subresource.as_str(), verb) {
            ("eviction", Verb::Create) if *resource == PODS => self.evict(),
            ("binding", Verb::Create) if *resource == PODS => self.bind(),
            ("scale", Verb::Get | Verb::Update | Verb::Patch) if self.served.definition.scale => {
                self.scale(verb)
            }
            ("finalize", Verb::Update) if *resource == NAMESPACES => self.finalize(),
            ("token", Verb::Create) if *resource == SERVICE_ACCOUNTS => self.token(),
            _ => Err(ApiFailure::unknown_path()),
        }
    }

    fn named_body(&self) -> ApiResult<Value> {
        let value = body::decode(&self.content_type, &self.body)?;
        let name = object::name(&value);
        if !name.is_empty() && name != self.path.name {
            let kind = object::text(&value, "/kind");
            return Err(ApiFailure::bad_request(format!(
                "name in URL does not match name in {kind} object"
            )));
        }
        Ok(value)
    }

    fn evict(&self) -> ApiResult<Response> {
        let eviction = self.named_body()?;
        let none = Value::Null;
        let options = self.delete_options(eviction.get("deleteOptions").unwrap_or(&none))?;
        // An eviction is judged as one, not as the deletion that it leads to.
        let options = DeleteOptions { user: None, ..options };
        self.world.with(|world, now| {
            let pod = Arc::clone(world.store.require(&PODS, &self.key())?);
            self.judge(&world.store, &eviction, Some(&pod))?;
            evict::evict(&mut world.store, &self.key(), &options, now)
        })?;
        Ok(answer_json(StatusCode::CREATED, &success(StatusCode::CREATED)))
    }

    fn bind(&self) -> ApiResult<Response> {
        let binding = self.named_body()?;
        self.world.with(|world, now| {
            self.judge(&world.store, &binding, None)?;
            bind::bind(&mut world.store, &self.key(), &binding, now)
        })?;
        Ok(answer_json(StatusCode::CREATED, &success(StatusCode::CREATED)))
    }

    fn scale(&self, verb: Verb) -> ApiResult<Response> {
        let (storage, key) = (&self.served.storage, self.key());
        let definition = &self.served.definition;
        let options = self.write_options();
        let answer = self.world.with(|world, now| -> ApiResult<Value> {
            let current = Value::clone(world.store.require(storage, &key)?);
            let shown = scale::of(definition, &current);
            let wanted = match verb {
                Verb::Get => return Ok(shown),
                Verb::Update => body::decode(&self.content_type, &self.body)?,
                _ => {
                    let change = body::decode(&self.content_type, &self.body)?;
                    match PatchKind::of(&self.content_type)? {
                        PatchKind::Json => patch::json(shown, &change)?,
                        _ => patch::merge(shown, &change),
                    }
                }
            };
            let value = scale::with_replicas(definition, current, &wanted)?;
            let updated = world.store.update(storage, value, Part::Main, &options, now)?;
            Ok(scale::of(definition, &updated))
        })?;
        Ok(answer_json(StatusCode::OK, &answer))
    }

    /// A namespace's controller says which of its finalizers are left.
    fn finalize(&self) -> ApiResult<Response> {
        let wanted = self.named_body()?;
        let finalizers = wanted.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
        let updated = self.world.with(|world, now| {
            world.store.modify(&NAMESPACES, &self.key(), Part::Whole, now, |namespace| {
                object::set(namespace, &["spec", "finalizers"], finalizers);
            })
        })?;
        Ok(self.show_object(StatusCode::OK, self.served.present(&updated)))
    }

    /// Issues a token for a service account, bound to a pod where the request says so.
    fn token(&self) -> ApiResult<Response> {
        let mut request = self.named_body()?;
        let (token, expires) = self.world.with(|world, now| {
            let none = Value::Null;
            let spec = request.get("spec").unwrap_or(&none);
            self.judge(&world.store, &request, None)?;
            world.tokens.issue(&world.store, &self.key(), spec, now)
        })?;
        let status = json!({ "token": token, "expirationTimestamp": object::seconds(expires) });
        object::set(&mut request, &["status"], status);
        Ok(answer_json(StatusCode::CREATED, &request))
    }

    /// Asks admission about a subresource that is created.
    fn judge(&self, store: &Store, content: &Value, current: Option<&Value>) -> ApiResult<()> {
        let (definition, subresource) = (&self.served.definition, &self.path.subresource);
        let options = self.write_options();
        admission::on_subresource(store, definition, subresource, content, current, &options)
    }
}

fn success(code: StatusCode) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "code": code.as_u16(),
    })
}
