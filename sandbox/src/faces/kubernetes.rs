//! The Kubernetes API over HTTP.
//!
//! One handler takes every request: paths are data here (custom resources come and go), so that
//! they are taken apart by `path` and not by the router.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use drover_common::cluster::ObjectKey;
use serde_json::Value;

use crate::faces::disturb::{Disturbance, disturb, settle};
use crate::shared::SharedWorld;
use crate::world::access::User;
use crate::world::api::events;
use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::faults::Face;
use crate::world::object;
use crate::world::resource::{Definition, EVENTS, NEW_EVENTS, Registry, Resource};
use crate::world::store::{Part, WriteOptions};

mod body;
mod discovery;
mod identity;
mod openapi;
mod path;
mod protobuf;
mod query;
mod read;
mod reviews;
mod subresource;
mod table;
mod watch;
mod write;

use path::{ApiPath, ResourcePath};
use query::Query;
use read::Representation;

/// The largest body that is read, as in Kubernetes.
const LARGEST_BODY: usize = 3 * 1024 * 1024;

/// The API's router.
pub fn router(world: SharedWorld) -> Router {
    Router::new().fallback(handle).with_state(world)
}

async fn handle(State(world): State<SharedWorld>, request: Request<Body>) -> Response {
    match answer(world, request).await {
        Ok(response) => response,
        Err(failure) => refuse(&failure),
    }
}

/// A refusal as the API sends it.
fn refuse(failure: &ApiFailure) -> Response {
    let code = StatusCode::from_u16(failure.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, &failure.to_status());
    if let Some(seconds) = failure.retry_after_seconds {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A JSON answer.
fn json(code: StatusCode, value: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (code, headers, value.to_string()).into_response()
}

async fn answer(world: SharedWorld, request: Request<Body>) -> ApiResult<Response> {
    let (parts, incoming) = request.into_parts();
    let user = identity::authenticate(&world, &parts.headers)?;
    if let (&Method::GET, Some(found)) =
        (&parts.method, discovery::answer(&world, parts.uri.path()))
    {
        identity::authorize_path(&world, &user, parts.uri.path())?;
        return found;
    }
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let path = match path::parse(parts.uri.path())? {
        ApiPath::Resource(path) => path,
        ApiPath::Probe => {
            identity::authorize_path(&world, &user, parts.uri.path())?;
            return Ok("ok".into_response());
        }
    };
    let verb = Verb::of(&parts.method, &path, &query)?;
    identity::authorize_resource(&world, &user, verb, &path, &query.selector)?;
    let operation = format!("{} {}", verb.as_str(), path.name_of_resource());
    let disturbance = disturb(&world, Face::Kubernetes, &operation).await;
    if let Some(Disturbance::Refuse { status, code, message }) = &disturbance {
        return Err(world.with(|world, _| world.faults.refusal(*status, code, message)));
    }
    let accept = header_text(&parts.headers, header::ACCEPT);
    let content_type = header_text(&parts.headers, header::CONTENT_TYPE);
    let body = axum::body::to_bytes(incoming, LARGEST_BODY)
        .await
        .map_err(|error| ApiFailure::injected(413, "RequestEntityTooLarge", &error.to_string()))?;
    if let Some(review) = reviews::Review::of(&path) {
        let response = review.answer(&world, verb, &path.namespace, &content_type, &body, &user)?;
        return Ok(settle(disturbance, response).await);
    }
    let served = world.with(|world, _| Served::find(world.store.registry(), &path))?;
    let representation = Representation::of(&accept);
    let request =
        ApiRequest { world, user, served, path, query, representation, content_type, body };
    let response = request.dispatch(verb)?;
    Ok(settle(disturbance, response).await)
}

fn header_text(headers: &axum::http::HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// What a request asks to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    fn of(method: &Method, path: &ResourcePath, query: &Query) -> ApiResult<Self> {
        let named = !path.name.is_empty();
        let verb = match (method, named) {
            (&Method::GET, true) => Verb::Get,
            (&Method::GET, false) if query.watch => Verb::Watch,
            (&Method::GET, false) => Verb::List,
            // Subresources are created at an object's path.
            (&Method::POST, named) if named != path.subresource.is_empty() => Verb::Create,
            (&Method::PUT, true) => Verb::Update,
            (&Method::PATCH, true) => Verb::Patch,
            (&Method::DELETE, true) => Verb::Delete,
            (&Method::DELETE, false) => Verb::DeleteCollection,
            _ => {
                let detail = "the server does not allow this method on the requested resource";
                return Err(ApiFailure::method_not_allowed(detail));
            }
        };
        Ok(verb)
    }

    /// As RBAC and faults spell it.
    fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

/// A resource as one path serves it: where its objects are kept, and how they are shown.
#[derive(Clone, Debug)]
struct Served {
    definition: Arc<Definition>,
    storage: Resource,
    api_version: String,
}

impl Served {
    fn find(registry: &Registry, path: &ResourcePath) -> ApiResult<Self> {
        let resource = Resource::named(&path.group, &path.plural);
        let definition = registry.get(&resource).ok_or_else(ApiFailure::unknown_path)?;
        if !definition.versions.contains(&path.version) {
            return Err(ApiFailure::unknown_path());
        }
        let storage = if resource == NEW_EVENTS { EVENTS } else { resource };
        let api_version = definition.api_version_of(&path.version);
        Ok(Self { definition: Arc::clone(definition), storage, api_version })
    }

    /// A stored object as this path shows it.
    fn present(&self, object: &Value) -> Value {
        if self.definition.resource == NEW_EVENTS {
            return events::from_core(object.clone());
        }
        let mut shown = object.clone();
        object::set(&mut shown, &["apiVersion"], self.api_version.as_str());
        shown
    }

    /// A shown object as it is stored.
    fn accept(&self, object: Value) -> Value {
        if self.definition.resource == NEW_EVENTS { events::to_core(object) } else { object }
    }
}

/// One request for a resource, taken apart.
#[derive(Debug)]
struct ApiRequest {
    world: SharedWorld,
    user: User,
    served: Served,
    path: ResourcePath,
    query: Query,
    representation: Representation,
    content_type: String,
    body: Bytes,
}

impl ApiRequest {
    fn dispatch(self, verb: Verb) -> ApiResult<Response> {
        if !matches!(self.path.subresource.as_str(), "" | "status") {
            return self.subresource(verb);
        }
        if self.path.subresource == "status" && !self.served.definition.status {
            return Err(ApiFailure::unknown_path());
        }
        match verb {
            Verb::Get => self.get(),
            Verb::List => self.list(),
            Verb::Watch => self.watch(),
            Verb::Create => self.create(),
            Verb::Update => self.update(),
            Verb::Patch => self.patch(),
            Verb::Delete => self.delete(),
            Verb::DeleteCollection => self.delete_collection(),
        }
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.path.namespace, &self.path.name)
    }

    /// How a write is to be made, and for whom.
    fn write_options(&self) -> WriteOptions {
        WriteOptions {
            dry_run: self.query.dry_run,
            strict: self.query.field_validation == "Strict",
            user: Some(self.user.clone()),
        }
    }

    fn part(&self) -> Part {
        if self.path.subresource == "status" { Part::Status } else { Part::Main }
    }
}
