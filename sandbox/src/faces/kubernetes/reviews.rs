//! Reviews: questions that are asked by creating an object that is never kept.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::path::ResourcePath;
use super::{Verb, body, json as answer_json};
use crate::shared::SharedWorld;
use crate::world::World;
use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;
use crate::world::resource::{NODES, PODS};

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
        content: &Bytes,
        token: &str,
    ) -> ApiResult<Response> {
        if verb != Verb::Create {
            let detail = "the server does not allow this method on the requested resource";
            return Err(ApiFailure::method_not_allowed(detail));
        }
        // Whatever is asked about access is allowed, so that a question in protobuf needs no
        // decoding; a token must be read.
        let mut review = match self.kind {
            "TokenReview" => body::decode("application/json", content)?,
            _ => serde_json::from_slice(content).unwrap_or_default(),
        };
        object::set(&mut review, &["kind"], self.kind);
        object::set(&mut review, &["apiVersion"], format!("{}/v1", self.group));
        let status = match self.kind {
            "TokenReview" => {
                let token = object::text(&review, "/spec/token").to_owned();
                let audiences = review.pointer("/spec/audiences").cloned();
                world.with(|world, _| review_token(world, &token, audiences))
            }
            "SelfSubjectReview" => {
                let user = world.with(|world, _| user_of(world, token));
                json!({ "userInfo": user.unwrap_or_else(administrator) })
            }
            "SelfSubjectRulesReview" => json!({
                "incomplete": false,
                "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }],
                "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
            }),
            // Who is authenticated may do everything; RBAC is kept but not enforced.
            _ => json!({ "allowed": true, "reason": "the sandbox allows everything" }),
        };
        object::set(&mut review, &["status"], status);
        Ok(answer_json(StatusCode::CREATED, &review))
    }
}

fn review_token(world: &World, token: &str, audiences: Option<Value>) -> Value {
    match user_of(world, token) {
        Some(user) => {
            let mut status = json!({ "authenticated": true, "user": user });
            if let Some(audiences) = audiences.filter(|audiences| !audiences.is_null()) {
                object::set(&mut status, &["audiences"], audiences);
            }
            status
        }
        None => json!({
            "authenticated": false,
            "error": "[invalid bearer token, the sandbox did not issue this token]",
        }),
    }
}

fn administrator() -> Value {
    json!({ "username": "sandbox-admin", "groups": ["system:masters", "system:authenticated"] })
}

/// Whom a token stands for: `sandbox-admin`, `sandbox:NODE:POD-UID` (a pod's projected token),
/// `sandbox:node:NODE` (a kubelet), `sandbox:account:NAMESPACE:NAME`.
fn user_of(world: &World, token: &str) -> Option<Value> {
    let parts: Vec<&str> = token.split(':').collect();
    match parts.as_slice() {
        ["sandbox-admin"] => Some(administrator()),
        ["sandbox", "node", node] => {
            world.store.find(&NODES, "", node)?;
            Some(json!({
                "username": format!("system:node:{node}"),
                "groups": ["system:nodes", "system:authenticated"],
            }))
        }
        ["sandbox", "account", namespace, name] => Some(account(namespace, name)),
        ["sandbox", node, pod_uid] => {
            let (_, pod) = world.store.iter(&PODS).find(|(_, pod)| {
                object::uid(pod) == *pod_uid && object::text(pod, "/spec/nodeName") == *node
            })?;
            let name = match object::text(pod, "/spec/serviceAccountName") {
                "" => "default",
                name => name,
            };
            let mut user = account(object::namespace(pod), name);
            let node_uid = world.store.find(&NODES, "", node).map_or("", |node| object::uid(node));
            let extra = json!({
                "authentication.kubernetes.io/node-name": [node],
                "authentication.kubernetes.io/node-uid": [node_uid],
                "authentication.kubernetes.io/pod-name": [object::name(pod)],
                "authentication.kubernetes.io/pod-uid": [pod_uid],
            });
            object::set(&mut user, &["extra"], extra);
            Some(user)
        }
        _ => None,
    }
}

fn account(namespace: &str, name: &str) -> Value {
    json!({
        "username": format!("system:serviceaccount:{namespace}:{name}"),
        "groups": [
            "system:serviceaccounts",
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated",
        ],
    })
}
