//! Passes agents' requests on to the leader, so that an agent may ask any replica.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::{ApiError, Shared};

/// Marks a request that was passed on once: two replicas that take each other for the leader must
/// not play ball with it.
const PASSED_ON: HeaderName = HeaderName::from_static("drover-passed-on");

/// Whether another replica took this one for the leader.
pub(super) fn was_passed_on(headers: &HeaderMap) -> bool {
    headers.contains_key(&PASSED_ON)
}

/// Sends the request to the leader and returns its answer.
pub(super) async fn pass_on(
    shared: &Shared,
    headers: &HeaderMap,
    method: Method,
    uri: &Uri,
    body: Bytes,
    patience: Duration,
) -> Result<Response, ApiError> {
    if was_passed_on(headers) {
        return Err(ApiError::NoLeader);
    }
    let leader = shared.group.status().leader.filter(|id| *id != shared.group.replica());
    let leader = leader.and_then(|id| shared.group.peers().get(&id)).ok_or(ApiError::NoLeader)?;
    let asked = uri.path_and_query().map_or("", |asked| asked.as_str());
    let mut request = shared
        .leader_client
        .request(method, format!("{}://{}{asked}", shared.scheme, leader.api))
        .header(header::CONTENT_TYPE, "application/json")
        .header(PASSED_ON, "1")
        .timeout(patience)
        .body(body);
    // The leader itself checks whose word it is.
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let answer = request.send().await.map_err(ApiError::LeaderSilent)?;
    let status = answer.status();
    let retry_after = answer.headers().get(header::RETRY_AFTER).cloned();
    let bytes = answer.bytes().await.map_err(ApiError::LeaderSilent)?;
    let mut response = (status, Body::from(bytes)).into_response();
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    if status == StatusCode::SERVICE_UNAVAILABLE
        && let Some(value) = retry_after
    {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    Ok(response)
}
