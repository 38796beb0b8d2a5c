//! AWS's JSON protocols (1.0 and 1.1), which SSM, Pricing and SQS speak: the operation is in a header.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use drover_common::ec2::{Ec2Failure, Ec2FailureKind};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::faces::disturb::{Disturbance, disturb, settle};
use crate::shared::SharedWorld;
use crate::world::cloud::{Cloud, refuse};
use crate::world::faults::Face;

/// The largest request that is read.
const LARGEST_BODY: usize = 1024 * 1024;

/// Carries out one operation of a service.
type Perform = fn(&mut Cloud, &str, &Value, Timestamp) -> Result<Value, Ec2Failure>;

/// One service that speaks the protocol.
#[derive(Clone, Copy)]
pub(crate) struct Service {
    /// For faults.
    pub(crate) face: Face,
    /// What `X-Amz-Target` has before the operation.
    pub(crate) prefix: &'static str,
    /// Its operations.
    pub(crate) perform: Perform,
    /// How long an operation waits for what its first answer lacks; `None`: it does not.
    pub(crate) patience: fn(&str, &Value, &Value) -> Option<Duration>,
}

/// How often an operation that waits is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The patience of operations that do not wait.
pub(crate) fn never(_operation: &str, _input: &Value, _output: &Value) -> Option<Duration> {
    None
}

/// A service's router.
pub(crate) fn router(world: SharedWorld, service: Service) -> Router {
    Router::new().fallback(handle).with_state((world, service))
}

/// The protocol's answer to an operation that a service does not have.
pub(crate) fn unknown_operation(operation: &str) -> Ec2Failure {
    refuse("UnknownOperationException", format!("{operation}: there is no such operation"))
}

async fn handle(
    State((world, service)): State<(SharedWorld, Service)>,
    request: Request<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    let target = parts.headers.get("x-amz-target").and_then(|value| value.to_str().ok());
    let operation = target.unwrap_or_default();
    let operation = operation.strip_prefix(service.prefix).unwrap_or(operation).to_owned();
    let Ok(body) = axum::body::to_bytes(body, LARGEST_BODY).await else {
        return refusal(413, "RequestEntityTooLarge", "the request is too large");
    };
    let disturbance = disturb(&world, service.face, &operation).await;
    if let Some(Disturbance::Refuse { status, code, message }) = &disturbance {
        return refusal(*status, code, message);
    }
    let Ok(input) = serde_json::from_slice(&body) else {
        return refusal(400, "SerializationException", "the body is not JSON");
    };
    let asked_at = Instant::now();
    let answer = loop {
        let answer =
            world.with(|world, now| (service.perform)(&mut world.cloud, &operation, &input, now));
        let patience =
            answer.as_ref().ok().and_then(|output| (service.patience)(&operation, &input, output));
        if patience.is_none_or(|patience| asked_at.elapsed() >= patience) {
            break answer;
        }
        sleep(AGAIN_AFTER).await;
    };
    let answer = match answer {
        Ok(output) => reply(StatusCode::OK, &output),
        Err(failed) => {
            let status = if failed.kind == Ec2FailureKind::Unknown { 500 } else { 400 };
            refusal(status, &failed.code, &failed.message)
        }
    };
    settle(disturbance, answer).await
}

fn refusal(status: u16, code: &str, message: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply(status, &json!({"__type": code, "message": message}))
}

fn reply(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"))];
    (status, headers, body.to_string()).into_response()
}
