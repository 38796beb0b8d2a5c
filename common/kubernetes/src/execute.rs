//! One call, one request, one classified answer.

mod answer;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::time::Duration;

use drover_common::call::{KubernetesCall, KubernetesFailure, KubernetesFailureKind};
use http::{Method, Request, header};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::{limits, path};
use answer::Answer;

/// No object that Drover touches comes near this; etcd itself stops at 1.5 MiB.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;
/// Nor near so many JSON values.
const MOST_VALUES: usize = 200_000;

/// The field manager that Drover's writes are recorded under.
const FIELD_MANAGER: &str = "drover";

/// Makes the request of `call` once and returns the object as it is afterwards, `Null` where the
/// server answers with a mere status.
///
/// # Errors
/// [`KubernetesFailure`], classified for the decision that follows. Where no answer came within
/// `timeout` the kind is [`KubernetesFailureKind::Unreachable`]: it may or may not have been done.
pub async fn execute(
    client: &Client,
    call: &KubernetesCall,
    timeout: Duration,
) -> Result<Value, KubernetesFailure> {
    let request =
        request(call).map_err(|reason| failure(KubernetesFailureKind::Invalid, reason))?;
    match tokio::time::timeout(timeout, send(client, request)).await {
        Ok(Ok(answer)) => answer.classify(call),
        Ok(Err(reason)) => Err(failure(KubernetesFailureKind::Unreachable, reason)),
        Err(_elapsed) => Err(failure(
            KubernetesFailureKind::Unreachable,
            format!("no answer within {} ms", timeout.as_millis()),
        )),
    }
}

fn failure(kind: KubernetesFailureKind, message: String) -> KubernetesFailure {
    KubernetesFailure { kind, message, retry_after_seconds: None }
}

pub(crate) async fn send(
    client: &Client,
    request: Request<Body>,
) -> Result<Answer<impl AsRef<[u8]>>, String> {
    let response = client.send(request).await.map_err(|error| with_sources(&error))?;
    let (parts, body) = response.into_parts();
    let bytes = Limited::new(body, LARGEST_ANSWER)
        .collect()
        .await
        .map_err(|error| format!("the answer broke off: {}", with_sources(&*error)))?
        .to_bytes();
    if limits::may_exceed(&bytes, MOST_VALUES) {
        return Err("the answer is larger than any object".to_owned());
    }
    Ok(Answer { status: parts.status, headers: parts.headers, bytes })
}

/// An error and what caused it, in one line: `kube` and `hyper` keep the useful part in the source.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn request(call: &KubernetesCall) -> Result<Request<Body>, String> {
    const JSON: &str = "application/json";
    let (method, path, content, body) = match call {
        KubernetesCall::Get { target } => (Method::GET, path::object(target)?, JSON, None),
        KubernetesCall::Create { target, object } => {
            let path = format!("{}?fieldManager={FIELD_MANAGER}", path::parent(target)?);
            (Method::POST, path, JSON, Some(object.clone()))
        }
        KubernetesCall::MergePatch { target, status, patch } => {
            let subresource = if *status { "/status" } else { "" };
            let object = path::object(target)?;
            let path = format!("{object}{subresource}?fieldManager={FIELD_MANAGER}");
            (Method::PATCH, path, "application/merge-patch+json", Some(patch.clone()))
        }
        KubernetesCall::Delete { target, uid, grace_seconds } => {
            let mut options = delete_options(uid.as_deref(), *grace_seconds);
            options["apiVersion"] = json!("v1");
            options["kind"] = json!("DeleteOptions");
            (Method::DELETE, path::object(target)?, JSON, Some(options))
        }
        KubernetesCall::Evict { target, uid, grace_seconds } => {
            let eviction = json!({
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": target.name, "namespace": target.namespace},
                "deleteOptions": delete_options(Some(uid), *grace_seconds),
            });
            (Method::POST, format!("{}/eviction", path::object(target)?), JSON, Some(eviction))
        }
    };
    let body = body.map_or_else(Vec::new, |value| value.to_string().into_bytes());
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, JSON)
        .header(header::CONTENT_TYPE, content)
        .body(Body::from(body))
        .map_err(|error| error.to_string())
}

fn delete_options(uid: Option<&str>, grace_seconds: Option<u32>) -> Value {
    let mut options = json!({});
    if let Some(uid) = uid {
        options["preconditions"] = json!({"uid": uid});
    }
    if let Some(grace_seconds) = grace_seconds {
        options["gracePeriodSeconds"] = json!(grace_seconds);
    }
    options
}
