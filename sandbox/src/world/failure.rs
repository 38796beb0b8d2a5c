//! Failures in Kubernetes' own words: the `Status` object that every refused request gets.

use drover_common::call::{KubernetesFailure, KubernetesFailureKind};
use serde_json::{Map, Value, json};

use super::resource::{POD_DISRUPTION_BUDGETS, Resource};

/// The answer of an API verb.
pub type ApiResult<T> = Result<T, Box<ApiFailure>>;

/// A refused request.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiFailure {
    /// HTTP status.
    pub code: u16,
    /// Kubernetes' reason in CamelCase.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The object's name.
    pub name: String,
    /// The object's API group.
    pub group: String,
    /// The object's kind, or its plural where Kubernetes says so.
    pub kind: String,
    /// What exactly is wrong.
    pub causes: Vec<Cause>,
    /// Seconds after which to try again.
    pub retry_after_seconds: Option<u32>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Kubernetes' cause type, such as `FieldValueInvalid`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The field's path; empty if the cause is not a field.
    pub field: String,
}

impl Cause {
    /// A field that must be there and is not.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {detail}")
        };
        Self { reason: "FieldValueRequired", message, field: field.into() }
    }

    /// A field whose value is refused.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let shown = match value {
            Value::String(text) => format!("{text:?}"),
            Value::Object(_) => "object".to_owned(),
            Value::Array(_) => value.to_string(),
            other => other.to_string(),
        };
        Self {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {shown}: {detail}"),
            field: field.into(),
        }
    }

    /// A field whose value is of another type.
    pub fn type_invalid(field: impl Into<String>, shown: &str, detail: &str) -> Self {
        Self {
            reason: "FieldValueTypeInvalid",
            message: format!("Invalid value: {shown:?}: {detail}"),
            field: field.into(),
        }
    }

    /// A field whose value is none of those supported.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[String]) -> Self {
        let supported =
            supported.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
        Self {
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {value}: supported values: {supported}"),
            field: field.into(),
        }
    }

    /// A field that may not be set, or not so.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self {
            reason: "FieldValueForbidden",
            message: format!("Forbidden: {detail}"),
            field: field.into(),
        }
    }

    /// A list whose keys repeat.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self {
            reason: "FieldValueDuplicate",
            message: format!("Duplicate value: {value}"),
            field: field.into(),
        }
    }

    /// A list with too many items.
    pub fn too_many(field: impl Into<String>, count: usize, limit: u64) -> Self {
        Self {
            reason: "FieldValueTooMany",
            message: format!("Too many: {count}: must have at most {limit} items"),
            field: field.into(),
        }
    }
}

impl ApiFailure {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            code,
            reason,
            message: message.into(),
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            causes: Vec::new(),
            retry_after_seconds: None,
        })
    }

    fn about(mut self: Box<Self>, resource: &Resource, name: &str) -> Box<Self> {
        self.group = resource.group.to_string();
        self.kind = resource.plural.to_string();
        self.name = name.to_owned();
        self
    }

    /// 404 for an object.
    pub fn not_found(resource: &Resource, name: &str) -> Box<Self> {
        Self::new(404, "NotFound", format!("{resource} {name:?} not found")).about(resource, name)
    }

    /// 404 for a path that no resource is served at.
    pub fn unknown_path() -> Box<Self> {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 409 on creating what exists.
    pub fn already_exists(resource: &Resource, name: &str) -> Box<Self> {
        Self::new(409, "AlreadyExists", format!("{resource} {name:?} already exists"))
            .about(resource, name)
    }

    /// 409 for any other reason.
    pub fn conflict(resource: &Resource, name: &str, detail: &str) -> Box<Self> {
        Self::new(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {resource} {name:?}: {detail}"),
        )
        .about(resource, name)
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Box<Self> {
        Self::new(400, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Box<Self> {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 with a reason.
    pub fn forbidden(resource: &Resource, name: &str, detail: &str) -> Box<Self> {
        let named = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        Self::new(403, "Forbidden", format!("{resource}{named} is forbidden: {detail}"))
            .about(resource, name)
    }

    /// 403 for a path that is no resource.
    pub fn forbidden_path(detail: &str) -> Box<Self> {
        Self::new(403, "Forbidden", format!("forbidden: {detail}"))
    }

    /// 405.
    pub fn method_not_allowed(detail: &str) -> Box<Self> {
        Self::new(405, "MethodNotAllowed", detail)
    }

    /// 406.
    pub fn not_acceptable(detail: &str) -> Box<Self> {
        Self::new(406, "NotAcceptable", detail)
    }

    /// 415.
    pub fn unsupported_media_type(supported: &str) -> Box<Self> {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {supported}"
            ),
        )
    }

    /// 410: the revision asked for is no longer known.
    pub fn expired(message: impl Into<String>) -> Box<Self> {
        Self::new(410, "Expired", message)
    }

    /// 422 with every field that is wrong. `group` and `kind` are the object's own.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Box<Self> {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut texts: Vec<String> = Vec::new();
        for cause in &causes {
            let text = if cause.field.is_empty() {
                cause.message.clone()
            } else {
                format!("{}: {}", cause.field, cause.message)
            };
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut failure =
            Self::new(422, "Invalid", format!("{qualified} {name:?} is invalid: {list}"));
        failure.group = group.to_owned();
        failure.kind = kind.to_owned();
        failure.name = name.to_owned();
        failure.causes = causes;
        failure
    }

    /// 429 of the eviction subresource: a budget allows no disruption now.
    pub fn disruption_budget(cause: String) -> Box<Self> {
        let mut failure = Self::new(
            429,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.",
        );
        failure.causes.push(Cause {
            reason: "DisruptionBudget",
            message: cause,
            field: String::new(),
        });
        failure
    }

    /// 409 of the eviction subresource about a budget, not the pod: others changed it each time that it was to
    /// be charged.
    pub fn contended_budget(budget: &str) -> Box<Self> {
        let detail = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(&POD_DISRUPTION_BUDGETS, budget, detail)
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Box<Self> {
        let message = message.into();
        let mut failure =
            Self::new(500, "InternalError", format!("Internal error occurred: {message}"));
        failure.causes.push(Cause { reason: "", message, field: String::new() });
        failure
    }

    /// Any status that a fault asks for; the reason follows from the status.
    pub fn injected(code: u16, reason: &str, message: &str) -> Box<Self> {
        let known = match code {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            422 => "Invalid",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "InternalError",
        };
        let message = if message.is_empty() { reason } else { message };
        Self::new(code, known, message)
    }

    /// The `Status` object as Kubernetes sends it.
    pub fn to_status(&self) -> Value {
        let mut details = Map::new();
        for (member, value) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind)]
        {
            if !value.is_empty() {
                details.insert(member.to_owned(), value.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            details.insert("causes".to_owned(), self.causes.iter().map(Cause::to_json).collect());
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds".to_owned(), seconds.into());
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if let (false, Some(status)) = (details.is_empty(), status.as_object_mut()) {
            status.insert("details".to_owned(), Value::Object(details));
        }
        status
    }

    /// The failure as callers of [`drover_common::call::Call`] see it.
    pub fn to_kubernetes_failure(&self) -> KubernetesFailure {
        let budget = self.causes.iter().any(|cause| cause.reason == "DisruptionBudget");
        let kind = match (self.code, self.reason) {
            (404, _) => KubernetesFailureKind::NotFound,
            (409, "AlreadyExists") => KubernetesFailureKind::AlreadyExists,
            (409, _) => KubernetesFailureKind::Conflict,
            (429, _) if budget => KubernetesFailureKind::DisruptionBudget,
            (429, _) => KubernetesFailureKind::TooManyRequests,
            // An eviction that a budget's broken status forbids.
            (403, _) if self.kind == "poddisruptionbudget" => {
                KubernetesFailureKind::DisruptionBudget
            }
            (401 | 403, _) => KubernetesFailureKind::Forbidden,
            (500, _) if self.message.contains("more than one PodDisruptionBudget") => {
                KubernetesFailureKind::OverlappingBudgets
            }
            (400..=499, _) => KubernetesFailureKind::Invalid,
            _ => KubernetesFailureKind::ServerError,
        };
        KubernetesFailure {
            kind,
            message: self.message.clone(),
            retry_after_seconds: self.retry_after_seconds,
        }
    }

    /// The same for a caller who asked for an eviction: a conflict may be about the budget.
    pub fn to_eviction_failure(&self) -> KubernetesFailure {
        let failure = self.to_kubernetes_failure();
        let is_about_budget =
            self.group == "policy" && self.kind.starts_with("poddisruptionbudget");
        match failure.kind {
            KubernetesFailureKind::Conflict if is_about_budget => {
                KubernetesFailure { kind: KubernetesFailureKind::DisruptionBudget, ..failure }
            }
            _ => failure,
        }
    }
}

impl Cause {
    fn to_json(&self) -> Value {
        let mut cause = Map::new();
        for (member, value) in
            [("reason", self.reason), ("message", &self.message), ("field", &self.field)]
        {
            if !value.is_empty() {
                cause.insert(member.to_owned(), value.into());
            }
        }
        Value::Object(cause)
    }
}
