//! Asking the API server who a token belongs to, and what they may do.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, Request, header};
use kube::Client;
use kube::client::Body;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::execute::send;

/// Whom a token stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// Such as `system:serviceaccount:NAMESPACE:NAME`.
    pub username: String,
    /// Unique over time; may be empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else the API server knows, such as the node of a pod's token.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// Namespace and name, if this is a service account.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.username.strip_prefix("system:serviceaccount:")?.split_once(':')
    }

    /// One of the facts about a pod-bound token (`node-name`, `pod-name`, `pod-uid`), if it is told
    /// exactly once.
    pub fn bound(&self, fact: &str) -> Option<&str> {
        match self.extra.get(&format!("authentication.kubernetes.io/{fact}"))?.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }
}

/// Why a review has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API server did not review it: {reason}")]
pub struct ReviewError {
    /// For people.
    pub reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenStatus {
    authenticated: bool,
    audiences: Vec<String>,
    user: Identity,
}

/// Without a word on it nothing is known: who may do nothing is told so.
#[derive(Debug, Deserialize)]
struct OwnAccessStatus {
    allowed: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AccessStatus {
    allowed: bool,
    denied: bool,
}

/// Whom a token stands for; `None` if the API server does not know it, or if it was made for other
/// audiences than `audience`. Without one, it must be a token for the API itself.
///
/// # Errors
/// There was no answer within `timeout`, or one that is no review.
pub async fn review_token(
    client: &Client,
    token: &str,
    audience: Option<&str>,
    timeout: Duration,
) -> Result<Option<Identity>, ReviewError> {
    let mut review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": { "token": token },
    });
    if let Some(audience) = audience {
        review["spec"]["audiences"] = json!([audience]);
    }
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let status: TokenStatus = ask(client, path, &review, timeout).await?;
    // A server that knows nothing of audiences answers without any: its word does not count then.
    let meant = audience.is_none_or(|wanted| status.audiences.iter().any(|own| own == wanted));
    Ok(Some(status.user).filter(|_| status.authenticated && meant))
}

/// Whether somebody may do `verb` on a path that is no resource of the API server's.
///
/// # Errors
/// There was no answer within `timeout`, or one that is no review.
pub async fn review_access(
    client: &Client,
    who: &Identity,
    verb: &str,
    path: &str,
    timeout: Duration,
) -> Result<bool, ReviewError> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": who.username, "uid": who.uid, "groups": who.groups, "extra": who.extra,
            "nonResourceAttributes": { "verb": verb, "path": path },
        },
    });
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let status: AccessStatus = ask(client, reviews, &review, timeout).await?;
    Ok(status.allowed && !status.denied)
}

/// Whether the client itself may do what `attributes` say, the `resourceAttributes` of a SelfSubjectAccessReview. Every
/// identity may ask that, unless somebody took it from them.
///
/// # Errors
/// There was no answer within `timeout`, or one that is no review.
pub async fn review_own_access(
    client: &Client,
    attributes: &Value,
    timeout: Duration,
) -> Result<bool, ReviewError> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": attributes },
    });
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let status: OwnAccessStatus = ask(client, reviews, &review, timeout).await?;
    Ok(status.allowed)
}

async fn ask<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
    review: &Value,
    timeout: Duration,
) -> Result<T, ReviewError> {
    let failed = |reason: String| ReviewError { reason };
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(review.to_string().into_bytes()))
        .map_err(|error| failed(error.to_string()))?;
    let answer = tokio::time::timeout(timeout, send(client, request))
        .await
        .map_err(|_elapsed| failed(format!("no answer within {} ms", timeout.as_millis())))?
        .map_err(failed)?;
    if !answer.status.is_success() {
        return Err(failed(format!("status {}", answer.status)));
    }
    let mut answer: Value =
        serde_json::from_slice(answer.bytes.as_ref()).map_err(|error| failed(error.to_string()))?;
    let status = answer.get_mut("status").map(Value::take).unwrap_or_default();
    serde_json::from_value(status).map_err(|error| failed(error.to_string()))
}
