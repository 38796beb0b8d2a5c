//! Reviews: questions that are asked by creating an object that is never kept.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::path::ResourcePath;
use super::{Verb, body, json as answer_json};
use crate::shared::SharedWorld;
use crate::world::World;
use crate::world::access::{Action, Target, User, rbac};
use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;
use crate::world::store::selector::Selector;

/// The reviews that are served: group, plural, kind, namespaced.
pub(super) const REVIEWS: [(&str, &str, &str, bool); 6] = [
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", false),
    ("authentication.k8s.io", "tokenreviews", "TokenReview", false),
    ("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview", true),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", false),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", false),
    ("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview", false),
];

/// One kind of review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Review {
    group: &'static str,
    kind: &'static str,
}

impl Review {
    /// The review that a path leads to.
    pub(super) fn of(path: &ResourcePath) -> Option<Self> {
        REVIEWS
            .iter()
            .find(|(group, plural, _, _)| path.group == *group && path.plural == *plural)
            .filter(|_| path.version == "v1")
            .map(|(group, _, kind, _)| Self { group, kind })
    }

    /// Answers one.
    pub(super) fn answer(
        self,
        world: &SharedWorld,
        verb: Verb,
        namespace: &str,
        content_type: &str,
        content: &Bytes,
        user: &User,
    ) -> ApiResult<Response> {
        if verb != Verb::Create {
            let detail = "the server does not allow this method on the requested resource";
            return Err(ApiFailure::method_not_allowed(detail));
        }
        let mut review = body::decode(content_type, content)?;
        object::set(&mut review, &["kind"], self.kind);
        object::set(&mut review, &["apiVersion"], format!("{}/v1", self.group));
        let none = Value::Null;
        let spec = review.get("spec").unwrap_or(&none);
        let status = world.with(|world, now| match self.kind {
            "TokenReview" => review_token(world, spec, now),
            "SelfSubjectReview" => json!({ "userInfo": user.to_json() }),
            "SelfSubjectRulesReview" => {
                rbac::rules(&world.store, user, object::text(spec, "/namespace"))
            }
            "SelfSubjectAccessReview" => review_access(world, user, spec, None),
            "LocalSubjectAccessReview" => {
                review_access(world, &User::of_review(spec), spec, Some(namespace))
            }
            _ => review_access(world, &User::of_review(spec), spec, None),
        });
        object::set(&mut review, &["status"], status);
        Ok(answer_json(StatusCode::CREATED, &review))
    }
}

fn review_token(world: &World, spec: &Value, now: Timestamp) -> Value {
    let audiences: Vec<String> = object::list(spec, "/audiences")
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let token = object::text(spec, "/token");
    match world.tokens.authenticate(world, token, &audiences, now) {
        Some(found) => json!({
            "authenticated": true, "user": found.user.to_json(), "audiences": found.audiences,
        }),
        None => json!({
            "authenticated": false,
            "error": "[invalid bearer token, the sandbox did not issue this token for these audiences]",
        }),
    }
}

fn review_access(world: &World, user: &User, spec: &Value, local: Option<&str>) -> Value {
    let text = |pointer: &str| object::text(spec, pointer);
    let fields =
        Selector::from_field_requirements(spec.pointer("/resourceAttributes/fieldSelector"));
    let (verb, target) = if spec.get("nonResourceAttributes").is_some_and(Value::is_object) {
        (text("/nonResourceAttributes/verb"), Target::Path(text("/nonResourceAttributes/path")))
    } else {
        let target = Target::Resource {
            group: text("/resourceAttributes/group"),
            resource: text("/resourceAttributes/resource"),
            subresource: text("/resourceAttributes/subresource"),
            namespace: local.unwrap_or(text("/resourceAttributes/namespace")),
            name: text("/resourceAttributes/name"),
            fields: Some(&fields),
        };
        (text("/resourceAttributes/verb"), target)
    };
    let decision = rbac::decide(&world.store, user, &Action { verb, target });
    json!({ "allowed": decision.allowed, "reason": decision.reason })
}
