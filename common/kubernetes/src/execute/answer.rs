//! What an answer means.

use drover_common::call::{KubernetesCall, KubernetesFailure, KubernetesFailureKind};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

/// The most of a refusal's message that is kept, in characters.
const LONGEST_MESSAGE: usize = 2_048;

/// A complete HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer<Bytes> {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

/// `metav1.Status`, as far as a failure is told apart by it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ApiStatus {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) details: Option<ApiStatusDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ApiStatusDetails {
    group: String,
    kind: String,
    causes: Vec<ApiStatusCause>,
    retry_after_seconds: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ApiStatusCause {
    reason: String,
}

impl ApiStatus {
    /// The status in a body; where the body is none (a proxy's page, say), its first characters
    /// become the message.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice::<Self>(bytes).unwrap_or_else(|_not_a_status| {
            let message = String::from_utf8_lossy(bytes).chars().take(300).collect();
            Self { message, ..Self::default() }
        })
    }

    fn has_cause(&self, reason: &str) -> bool {
        let causes = self.details.iter().flat_map(|details| &details.causes);
        causes.into_iter().any(|cause| cause.reason == reason)
    }

    /// Whether it speaks of a PodDisruptionBudget. One about permissions names what was asked for.
    fn is_about_budget(&self) -> bool {
        self.details.as_ref().is_some_and(|details| {
            details.group == "policy" && details.kind.starts_with("poddisruptionbudget")
        })
    }
}

impl<Bytes: AsRef<[u8]>> Answer<Bytes> {
    /// The object of a success, or the failure and its kind.
    pub(crate) fn classify(self, call: &KubernetesCall) -> Result<Value, KubernetesFailure> {
        let bytes = self.bytes.as_ref();
        if self.status.is_success() {
            if bytes.is_empty() {
                return Ok(Value::Null);
            }
            return match serde_json::from_slice::<Value>(bytes) {
                Ok(value) if value.get("kind").is_some_and(|kind| kind == "Status") => {
                    Ok(Value::Null)
                }
                Ok(value) => Ok(value),
                Err(error) => Err(KubernetesFailure {
                    kind: KubernetesFailureKind::Unreachable,
                    message: format!("{}, but the answer is no JSON: {error}", self.status),
                    retry_after_seconds: None,
                }),
            };
        }
        let status = ApiStatus::read(bytes);
        let in_body = status.details.as_ref().map(|details| details.retry_after_seconds);
        let retry_after_seconds = self
            .headers
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .or(in_body)
            .filter(|&seconds| seconds > 0);
        let kind = kind(self.status, &status, call);
        let message = match status.message.is_empty() {
            true => self.status.to_string(),
            // Refusals are kept, and told to others; a broken API server's may be megabytes.
            false => status.message.chars().take(LONGEST_MESSAGE).collect(),
        };
        Err(KubernetesFailure { kind, message, retry_after_seconds })
    }
}

fn kind(status: StatusCode, body: &ApiStatus, call: &KubernetesCall) -> KubernetesFailureKind {
    use KubernetesFailureKind as Failure;
    match status.as_u16() {
        404 | 410 => Failure::NotFound,
        409 if body.reason == "AlreadyExists" => Failure::AlreadyExists,
        409 if body.reason.is_empty() && matches!(call, KubernetesCall::Create { .. }) => {
            Failure::AlreadyExists
        }
        // The pod is there as it was: an API server has tried for ten seconds to charge a budget that
        // others change all the time. It has answered, and no other failure of the server's is this.
        409 if matches!(call, KubernetesCall::Evict { .. }) && body.is_about_budget() => {
            Failure::DisruptionBudget
        }
        409 => Failure::Conflict,
        429 if body.has_cause("DisruptionBudget") => Failure::DisruptionBudget,
        // API servers before 1.22 tell the two apart in the message only.
        429 if body.message.contains("violate the pod's disruption budget") => {
            Failure::DisruptionBudget
        }
        429 => Failure::TooManyRequests,
        403 if body.has_cause("NamespaceTerminating") => Failure::NamespaceTerminating,
        403 if matches!(call, KubernetesCall::Evict { .. }) && body.is_about_budget() => {
            Failure::DisruptionBudget
        }
        401 | 403 => Failure::Forbidden,
        500 if matches!(call, KubernetesCall::Evict { .. })
            && body.message.contains("more than one PodDisruptionBudget") =>
        {
            Failure::OverlappingBudgets
        }
        408 | 500..=599 => Failure::ServerError,
        _ => Failure::Invalid,
    }
}
