//! Request bodies: JSON, or YAML and protobuf where Kubernetes takes them.

use axum::body::Bytes;
use serde_json::Value;

use super::protobuf;
use crate::world::failure::{ApiFailure, ApiResult};

/// Reads a body as its content type says; JSON if it says nothing.
pub(super) fn decode(content_type: &str, body: &Bytes) -> ApiResult<Value> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type == "application/vnd.kubernetes.protobuf" {
        return protobuf::decode(body);
    }
    if media_type.contains("protobuf") || media_type.contains("cbor") {
        return Err(ApiFailure::unsupported_media_type("application/json, application/yaml"));
    }
    if media_type.ends_with("yaml") {
        let text = std::str::from_utf8(body).map_err(|error| refuse(&error.to_string()))?;
        return serde_saphyr::from_str(text).map_err(|error| refuse(&error.to_string()));
    }
    serde_json::from_slice(body).map_err(|error| refuse(&error.to_string()))
}

fn refuse(detail: &str) -> Box<ApiFailure> {
    ApiFailure::bad_request(format!("the object provided is unrecognized: {detail}"))
}
