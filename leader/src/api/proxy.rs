//! Passes agents' requests on to the leader, so that an agent may ask any replica.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::{ApiError, Shared};

/// Marks a request that was passed on once: two replicas that take each other for the leader must
/// not play ball with it.
const PASSED_ON: HeaderName = HeaderName::from_static("drover-passed-on");

/// Within how many milliseconds the one that passed a request on wants an answer.
const WITHIN: HeaderName = HeaderName::from_static("drover-within-ms");
/// Marks the answer of a replica that does not lead: whoever knows the leader may ask that one.
pub(super) const NO_LEADER: HeaderName = HeaderName::from_static("drover-no-leader");
/// What the way to the leader and back may take on top of the answer itself.
const PASSING_ON: Duration = Duration::from_secs(3);

/// Whether another replica took this one for the leader.
pub(super) fn was_passed_on(headers: &HeaderMap) -> bool {
    headers.contains_key(&PASSED_ON)
}

/// Within which time whoever passed a request on wants an answer.
pub(super) fn wanted_within(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(&WITHIN)?.to_str().ok()?;
    text.parse().ok().map(Duration::from_millis)
}

/// Sends the request to the leader, which is to answer within a time, and returns its answer.
pub(super) async fn pass_on(
    shared: &Shared,
    headers: &HeaderMap,
    method: Method,
    uri: &Uri,
    body: Bytes,
    within: Duration,
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
        .header(WITHIN, within.as_millis().to_string())
        .timeout(within + PASSING_ON)
        .body(body);
    // The leader itself checks whose word it is.
    if let Some(authorization) = headers.get(header::AUTHORIZATION) {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let answer = request.send().await.map_err(ApiError::LeaderSilent)?;
    if answer.headers().contains_key(&NO_LEADER) {
        return Err(ApiError::NoLeader);
    }
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
