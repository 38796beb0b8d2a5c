//! The metadata service of every instance behind one listener: instance `i` has its own at
//! `/<i>/latest/…`, with IMDSv2's session tokens, status codes and paths.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use drover_common::ec2::InstanceState;
use drover_common::id::InstanceId;
use jiff::Timestamp;

use crate::faces::disturb::{Disturbance, disturb, settle};
use crate::shared::SharedWorld;
use crate::world::World;
use crate::world::faults::Face;

mod metadata;
mod token;

#[cfg(test)]
pub(in crate::faces) mod tests;

/// The header that asks for a token and says how long it is to live.
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// The header that carries a token.
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";

/// The metadata services' router.
pub(crate) fn router(world: SharedWorld) -> Router {
    Router::new().fallback(handle).with_state(world)
}

async fn handle(State(world): State<SharedWorld>, request: Request<Body>) -> Response {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let (instance, path) = path.split_once('/').unwrap_or((&path, ""));
    let operation = format!("{} {path}", request.method());
    let disturbance = disturb(&world, Face::Imds, &operation).await;
    if let Some(Disturbance::Refuse { status, message, .. }) = &disturbance {
        let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return refusal(status, message);
    }
    let instance = InstanceId::from(instance);
    let answer = world.with(|world, now| {
        answer(world, &instance, request.method(), path, request.headers(), now)
    });
    let answer = answer.unwrap_or_else(|(status, reason)| refusal(status, reason));
    settle(disturbance, answer).await
}

fn answer(
    world: &World,
    instance: &InstanceId,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Response, (StatusCode, &'static str)> {
    let not_found = (StatusCode::NOT_FOUND, "Not Found");
    let instance = world.cloud.instance(instance).ok_or(not_found)?;
    // A machine that is off answers nothing; the nearest thing here is to know no path.
    if matches!(instance.state, InstanceState::Stopped | InstanceState::Terminated) {
        return Err(not_found);
    }
    let seed = world.cloud.options.seed;
    let path = path.trim_end_matches('/');
    if path == "latest/api/token" {
        return token_session(seed, instance.id.as_str(), method, headers, now);
    }
    if *method != Method::GET {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"));
    }
    let sent = text(headers, TOKEN_HEADER);
    let valid = sent.is_some_and(|sent| token::holds(sent, seed, instance.id.as_str(), now));
    if !valid && (sent.is_some() || instance.imds_tokens_required) {
        return Err((StatusCode::UNAUTHORIZED, "Unauthorized"));
    }
    let region = &world.cloud.options.region;
    let credentials = path
        .starts_with("latest/meta-data/iam")
        .then(|| instance.credentials_in_force(seed, now).into_iter().next())
        .flatten();
    metadata::read(instance, region, credentials.as_ref(), path).map(plain).ok_or(not_found)
}

/// `PUT /latest/api/token`.
fn token_session(
    seed: u64,
    instance: &str,
    method: &Method,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Response, (StatusCode, &'static str)> {
    if *method != Method::PUT {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"));
    }
    // A request that came through a proxy could come from anywhere.
    if headers.contains_key("x-forwarded-for") {
        return Err((StatusCode::FORBIDDEN, "Forbidden"));
    }
    let seconds = text(headers, TTL_HEADER)
        .and_then(|text| text.parse::<u32>().ok())
        .filter(|seconds| (1..=21_600).contains(seconds))
        .ok_or((StatusCode::BAD_REQUEST, "Bad Request"))?;
    let mut response = plain(token::issue(seed, instance, now, seconds));
    response.headers_mut().insert(TTL_HEADER, HeaderValue::from(seconds));
    Ok(response)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn plain(body: String) -> Response {
    let json = body.starts_with('{') || body.starts_with('[');
    let kind = if json { "application/json" } else { "text/plain" };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response()
}

/// Errors are small XHTML pages, as on EC2.
fn refusal(status: StatusCode, reason: &str) -> Response {
    let code = status.as_u16();
    let page = format!(
        "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<html xmlns=\"http://www.w3.org/1999/xhtml\">\
         <head><title>{code} - {reason}</title></head><body><h1>{code} - {reason}</h1></body></html>\n"
    );
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("text/html"))], page).into_response()
}
