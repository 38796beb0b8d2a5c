use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use drover_common::call::{Kind, KubernetesCall, KubernetesFailure, KubernetesFailureKind, Target};
use http::StatusCode;
use kube::{Client, Config};
use serde_json::{Value, json};

use super::*;

/// An API server that gives one scripted answer and keeps the last request.
#[derive(Clone)]
struct Script {
    status: StatusCode,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
    seen: Arc<Mutex<Vec<(String, String, Value)>>>,
}

async fn serve(State(script): State<Script>, request: Request) -> Response {
    let method = request.method().to_string();
    let path = request.uri().to_string();
    let bytes = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    script.seen.lock().unwrap().push((method, path, body));
    let mut response = (script.status, script.body.clone()).into_response();
    for (name, value) in &script.headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

async fn client_of(script: &Script) -> Client {
    crate::install_crypto_provider();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(serve).with_state(script.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let mut config = Config::new(format!("http://{address}").parse().unwrap());
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

fn script(status: u16, body: Value) -> Script {
    Script {
        status: StatusCode::from_u16(status).unwrap(),
        headers: Vec::new(),
        body: body.to_string(),
        seen: Arc::default(),
    }
}

fn evict() -> KubernetesCall {
    let target = Target::namespaced(Kind::Pod, "shop", "cart-0");
    KubernetesCall::Evict { target, uid: "u1".into(), grace_seconds: Some(7) }
}

fn create() -> KubernetesCall {
    let target = Target::cluster(Kind::NodeClaim, "c-1");
    KubernetesCall::Create { target, object: json!({"metadata": {"name": "c-1"}}) }
}

async fn answer_of(script: &Script, call: &KubernetesCall) -> Result<Value, KubernetesFailure> {
    execute(&client_of(script).await, call, Duration::from_secs(5)).await
}

async fn failure_of(status: u16, body: Value, call: &KubernetesCall) -> KubernetesFailure {
    answer_of(&script(status, body), call).await.unwrap_err()
}

#[tokio::test]
async fn an_eviction_carries_uid_and_grace() {
    let script = script(201, json!({"kind": "Status", "status": "Success"}));
    assert_eq!(answer_of(&script, &evict()).await, Ok(Value::Null));
    let seen = script.seen.lock().unwrap().clone();
    let (method, path, body) = &seen[0];
    assert_eq!(method, "POST");
    assert_eq!(path, "/api/v1/namespaces/shop/pods/cart-0/eviction");
    assert_eq!(
        body["deleteOptions"],
        json!({"preconditions": {"uid": "u1"}, "gracePeriodSeconds": 7})
    );
    assert_eq!(body["metadata"], json!({"name": "cart-0", "namespace": "shop"}));
}

#[tokio::test]
async fn reads_writes_and_deletes_use_their_paths() {
    let script = script(200, json!({"kind": "Node", "metadata": {"name": "n"}}));
    let client = client_of(&script).await;
    let target = Target::cluster(Kind::Node, "n");
    let patch = json!({"spec": {"unschedulable": true}});
    let calls = [
        KubernetesCall::Get { target: target.clone() },
        create(),
        KubernetesCall::MergePatch { target: target.clone(), status: false, patch: patch.clone() },
        KubernetesCall::MergePatch { target: target.clone(), status: true, patch },
        KubernetesCall::Delete { target, uid: Some("u".into()), grace_seconds: None },
    ];
    for call in &calls {
        let value = execute(&client, call, Duration::from_secs(5)).await.unwrap();
        assert_eq!(value["metadata"]["name"], "n");
    }
    let seen = script.seen.lock().unwrap().clone();
    let lines: Vec<_> = seen.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(
        lines,
        [
            "GET /api/v1/nodes/n",
            "POST /apis/karpenter.sh/v1/nodeclaims?fieldManager=drover",
            "PATCH /api/v1/nodes/n?fieldManager=drover",
            "PATCH /api/v1/nodes/n/status?fieldManager=drover",
            "DELETE /api/v1/nodes/n",
        ]
    );
    assert_eq!(seen[4].2["preconditions"], json!({"uid": "u"}));
}

#[tokio::test]
async fn each_refusal_has_its_own_kind() {
    use KubernetesFailureKind as Failure;
    let budget = json!({"details": {"causes": [{"reason": "DisruptionBudget"}],
        "retryAfterSeconds": 10}, "message": "Cannot evict pod"});
    let failure = failure_of(429, budget, &evict()).await;
    assert_eq!(failure.kind, Failure::DisruptionBudget);
    assert_eq!(failure.retry_after_seconds, Some(10));

    let overlap = json!({"message": "This pod has more than one PodDisruptionBudget, ..."});
    assert_eq!(failure_of(500, overlap.clone(), &evict()).await.kind, Failure::OverlappingBudgets);
    assert_eq!(failure_of(500, overlap, &create()).await.kind, Failure::ServerError);

    let exists = json!({"reason": "AlreadyExists"});
    assert_eq!(failure_of(409, exists, &create()).await.kind, Failure::AlreadyExists);
    let conflict = json!({"reason": "Conflict"});
    assert_eq!(failure_of(409, conflict, &create()).await.kind, Failure::Conflict);
    // Of an eviction it may be about the pod, another of that name by now, or about its budget.
    let of = |group: &str, kind: &str| {
        let details = json!({"group": group, "kind": kind, "name": "web"});
        json!({"reason": "Conflict", "message": "it has been modified", "details": details})
    };
    let (pod, budget) = (of("", "pods"), of("policy", "poddisruptionbudgets"));
    assert_eq!(failure_of(409, pod, &evict()).await.kind, Failure::Conflict);
    assert_eq!(failure_of(409, budget.clone(), &evict()).await.kind, Failure::DisruptionBudget);
    assert_eq!(failure_of(409, budget, &create()).await.kind, Failure::Conflict);
    for (status, kind) in [
        (400, Failure::Invalid),
        (401, Failure::Forbidden),
        (403, Failure::Forbidden),
        (404, Failure::NotFound),
        (409, Failure::Conflict),
        (422, Failure::Invalid),
        (503, Failure::ServerError),
        (504, Failure::ServerError),
    ] {
        assert_eq!(failure_of(status, json!({}), &evict()).await.kind, kind, "{status}");
    }
}

#[tokio::test]
async fn what_is_forbidden_is_told_apart_by_its_cause() {
    use KubernetesFailureKind as Failure;
    let status = |group: &str, kind: &str, name: &str, message: &str, causes: Value| {
        let details = json!({"group": group, "kind": kind, "name": name, "causes": causes});
        json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403,
            "message": message, "details": details})
    };
    let rbac = status(
        "",
        "pods",
        "cart-0",
        "pods \"cart-0\" is forbidden: User \"a\" cannot create resource \"pods/eviction\"",
        json!([]),
    );
    let ending = status(
        "",
        "pods",
        "cart-0",
        "pods \"cart-0\" is forbidden: unable to create new content in namespace shop",
        json!([{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]),
    );
    let negative = status(
        "policy",
        "poddisruptionbudget",
        "cart",
        "poddisruptionbudget.policy \"cart\" is forbidden: pdb disruptions allowed is negative",
        json!([]),
    );
    let overfull = status("policy", "poddisruptionbudget", "cart", "too big", json!([]));
    for (body, call, kind) in [
        (&rbac, evict(), Failure::Forbidden),
        (&ending, evict(), Failure::NamespaceTerminating),
        (&ending, create(), Failure::NamespaceTerminating),
        (&negative, evict(), Failure::DisruptionBudget),
        (&overfull, evict(), Failure::DisruptionBudget),
        // No budget has a say in that.
        (&negative, create(), Failure::Forbidden),
    ] {
        let failure = failure_of(403, body.clone(), &call).await;
        assert_eq!(failure.kind, kind, "{call:?}: {body}");
        assert!(failure.to_string().ends_with(body["message"].as_str().unwrap()), "{failure}");
    }
    assert_eq!(failure_of(401, negative, &evict()).await.kind, Failure::Forbidden);
}

#[tokio::test]
async fn of_a_message_without_measure_the_beginning_is_kept() {
    let endless = json!({"message": format!("no, because {}", "x".repeat(1_000_000))});
    let failure = failure_of(422, endless, &evict()).await;
    assert!(failure.message.starts_with("no, because xx"));
    assert_eq!(failure.message.len(), 2_048);
}

#[tokio::test]
async fn flow_control_is_not_a_budget_and_says_when() {
    let mut script = script(429, Value::Null);
    script.body = "Too many requests, please try again later.".into();
    script.headers = vec![("retry-after", "3")];
    let failure = answer_of(&script, &evict()).await.unwrap_err();
    assert_eq!(failure.kind, KubernetesFailureKind::TooManyRequests);
    assert_eq!(failure.retry_after_seconds, Some(3));
    assert_eq!(script.seen.lock().unwrap().len(), 1, "kube must not retry by itself");
}

#[tokio::test]
async fn no_answer_is_unreachable_and_a_bad_name_is_never_sent() {
    // Accepts, but never answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    crate::install_crypto_provider();
    let address = listener.local_addr().unwrap();
    let config = Config::new(format!("http://{address}").parse().unwrap());
    let client = Client::try_from(config).unwrap();
    let failure = execute(&client, &evict(), Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(failure.kind, KubernetesFailureKind::Unreachable);
    drop(listener);
    let failure = execute(&client, &evict(), Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(failure.kind, KubernetesFailureKind::Unreachable);
    let call = KubernetesCall::Get { target: Target::cluster(Kind::Node, "a/../b") };
    let failure = execute(&client, &call, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(failure.kind, KubernetesFailureKind::Invalid);
    let broken = Script { body: "{\"kind\":".into(), ..script(200, Value::Null) };
    let failure = answer_of(&broken, &evict()).await.unwrap_err();
    assert_eq!(failure.kind, KubernetesFailureKind::Unreachable);
}
