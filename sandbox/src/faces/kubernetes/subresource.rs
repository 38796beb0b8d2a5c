//! Subresources that are not parts of an object: eviction, binding, scale, tokens.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::{ApiRequest, Verb, body, json as answer_json};
use crate::world::api::patch::PatchKind;
use crate::world::api::{bind, evict, patch, scale};
use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;
use crate::world::resource::{NAMESPACES, PODS, SERVICE_ACCOUNTS};
use crate::world::store::Part;

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
        self.world.with(|world, now| evict::evict(&mut world.store, &self.key(), &options, now))?;
        Ok(answer_json(StatusCode::CREATED, &success(StatusCode::CREATED)))
    }

    fn bind(&self) -> ApiResult<Response> {
        let binding = self.named_body()?;
        self.world.with(|world, now| bind::bind(&mut world.store, &self.key(), &binding, now))?;
        Ok(answer_json(StatusCode::CREATED, &success(StatusCode::CREATED)))
    }

    fn scale(&self, verb: Verb) -> ApiResult<Response> {
        let (storage, key) = (&self.served.storage, self.key());
        let definition = &self.served.definition;
        let options = self.query.write_options();
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
        self.world.with(|world, now| -> ApiResult<()> {
            let account = world.store.require(&SERVICE_ACCOUNTS, &self.key())?;
            let name = object::text(&request, "/spec/boundObjectRef/name");
            let token = if object::text(&request, "/spec/boundObjectRef/kind") == "Pod" {
                let pod = world.store.find(&PODS, &self.path.namespace, name);
                let pod = pod.ok_or_else(|| ApiFailure::not_found(&PODS, name))?;
                format!("sandbox:{}:{}", object::text(pod, "/spec/nodeName"), object::uid(pod))
            } else {
                format!("sandbox:account:{}:{}", object::namespace(account), object::name(account))
            };
            let seconds = object::integer(&request, "/spec/expirationSeconds").unwrap_or(3600);
            let expires = now
                .checked_add(jiff::SignedDuration::from_secs(seconds))
                .map_err(|error| ApiFailure::bad_request(error.to_string()))?;
            let status = json!({ "token": token, "expirationTimestamp": object::seconds(expires) });
            object::set(&mut request, &["status"], status);
            Ok(())
        })?;
        Ok(answer_json(StatusCode::CREATED, &request))
    }
}

fn success(code: StatusCode) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "code": code.as_u16(),
    })
}
