//! The Kubernetes face over HTTP, request by request.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use drover_sandbox::{Options, Sandbox};
use futures::StreamExt as _;
use serde_json::{Value, json};

struct Client {
    sandbox: Sandbox,
    http: reqwest::Client,
}

impl Client {
    async fn start() -> Self {
        // The tests of this file share the process: only the first can install it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        let authorization = "Bearer sandbox-admin".parse().unwrap();
        let headers = [(reqwest::header::AUTHORIZATION, authorization)].into_iter().collect();
        let http = reqwest::Client::builder().default_headers(headers).build().unwrap();
        Self { sandbox, http }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.sandbox.endpoints().kubernetes)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.send().await.unwrap();
        let code = response.status().as_u16();
        (code, response.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.send(self.http.get(self.url(path))).await
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send(self.http.post(self.url(path)).json(body)).await
    }

    async fn patch(&self, path: &str, kind: &str, body: &Value) -> (u16, Value) {
        let request = self.http.patch(self.url(path)).header("content-type", kind);
        self.send(request.body(body.to_string())).await
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_starts_where_the_list_ended_and_sees_selection_change() {
    let client = Client::start().await;
    let (_, list) = client.get(MAPS).await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let path =
        format!("{MAPS}?watch=1&resourceVersion={version}&labelSelector=on%3Dyes&timeoutSeconds=5");
    let response = client.http.get(client.url(&path)).send().await.unwrap();
    let mut lines = response.bytes_stream();
    client.post(MAPS, &map("unseen")).await;
    let mut labelled = map("seen");
    labelled["metadata"]["labels"] = json!({"on": "yes"});
    client.post(MAPS, &labelled).await;
    let merge = "application/merge-patch+json";
    let unlabel = json!({"metadata": {"labels": {"on": null}}});
    assert_eq!(client.patch(&format!("{MAPS}/seen"), merge, &unlabel).await.0, 200);
    let mut text = String::new();
    while text.lines().count() < 2 {
        text.push_str(std::str::from_utf8(&lines.next().await.unwrap().unwrap()).unwrap());
    }
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (events[0]["type"].as_str(), events[1]["type"].as_str()),
        (Some("ADDED"), Some("DELETED"))
    );
    assert_eq!(events[1]["object"]["metadata"]["labels"]["on"], "yes");
    client.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_a_compacted_revision_ends_with_410() {
    let client = Client::start().await;
    client.post(MAPS, &map("a")).await;
    client.sandbox.world().with(|world, _| world.store.compact());
    let path = client.url(&format!("{MAPS}?watch=1&resourceVersion=1"));
    let text = client.http.get(path).send().await.unwrap().text().await.unwrap();
    let event: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(
        (event["type"].as_str(), event["object"]["code"].as_u64()),
        (Some("ERROR"), Some(410))
    );
    client.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_statuses() {
    let client = Client::start().await;
    let (code, status) = client.get("/api/v1/namespaces/default/pods/none").await;
    assert_eq!((code, status["reason"].as_str()), (404, Some("NotFound")));
    assert_eq!(status["message"], "pods \"none\" not found");
    assert_eq!(client.get("/apis/nothing/v1/things").await.0, 404);
    assert_eq!(client.get(&format!("{MAPS}?limit=x")).await.0, 400);
    let (code, status) = client.post(MAPS, &json!({"kind": "Secret", "apiVersion": "v1"})).await;
    assert_eq!(code, 400, "{status}");
    client.post(MAPS, &map("a")).await;
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"a": "c"}});
    let merge = "application/merge-patch+json";
    let (code, status) = client.patch(&format!("{MAPS}/a"), merge, &stale).await;
    assert_eq!((code, status["reason"].as_str()), (409, Some("Conflict")));
    assert_eq!(client.patch(&format!("{MAPS}/a"), "text/plain", &stale).await.0, 415);
    let broken = client.http.post(client.url(MAPS)).body("{").send().await.unwrap();
    assert_eq!(broken.status().as_u16(), 400);
    client.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_strike_the_operation_they_name() {
    use drover_sandbox::world::faults::{Face, Fault, FaultEffect};
    let client = Client::start().await;
    let fault = |operation: &str, effect| Fault {
        face: Face::Kubernetes,
        operation: operation.to_owned(),
        effect,
        probability: 1.0,
        remaining: Some(1),
    };
    let refuse =
        FaultEffect::Error { status: 503, code: "Unavailable".to_owned(), message: String::new() };
    client.sandbox.world().with(|world, _| {
        world.faults.add(fault("list configmaps", refuse));
        world.faults.add(fault("create configmaps", FaultEffect::LostAnswer));
    });
    assert_eq!(client.get(MAPS).await.0, 503);
    assert_eq!(client.get(MAPS).await.0, 200);
    let lost = client.http.post(client.url(MAPS)).json(&map("a")).send().await;
    let lost = match lost {
        Ok(response) => response.bytes().await.is_err(),
        Err(_) => true,
    };
    assert!(lost, "the answer should have been lost");
    assert_eq!(client.get(&format!("{MAPS}/a")).await.0, 200);
    client.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_whose_budget_is_contended_conflicts_about_the_budget() {
    use drover_common::call::{Call, Kind, KubernetesCall, KubernetesFailureKind, Outcome, Target};
    let client = Client::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (code, pod) = client.post(pods, &pod).await;
    assert_eq!(code, 201, "{pod}");
    client.sandbox.world().with(|world, _| {
        let fault = "kubernetes/create pods/eviction:contended-budget".parse().unwrap();
        world.faults.add(fault);
    });
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let (code, status) = client.post(&format!("{pods}/a/eviction"), &eviction).await;
    assert_eq!((code, status["reason"].as_str()), (409, Some("Conflict")));
    let about = (&status["details"]["group"], &status["details"]["kind"]);
    assert_eq!(about, (&json!("policy"), &json!("poddisruptionbudgets")));

    let evict = Call::Kubernetes(KubernetesCall::Evict {
        target: Target::namespaced(Kind::Pod, "default", "a"),
        uid: pod["metadata"]["uid"].as_str().unwrap().to_owned(),
        grace_seconds: None,
    });
    let outcome = client.sandbox.world().with(|world, now| world.apply(&evict, now));
    let Outcome::Kubernetes(Err(failure)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.kind, KubernetesFailureKind::DisruptionBudget);
    assert_eq!(client.get(&format!("{pods}/a")).await.0, 200, "the pod is as it was");
    client.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_event_apis_show_the_same_events_and_tokens_are_reviewed() {
    let client = Client::start().await;
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"},
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}, "note": "Told.", "reason": "R",
        "type": "Normal", "action": "A", "reportingController": "test", "eventTime": "2026-01-01T00:00:00.000000Z"});
    let (code, made) =
        client.post("/apis/events.k8s.io/v1/namespaces/default/events", &event).await;
    assert_eq!((code, made["note"].as_str()), (201, Some("Told.")));
    let (_, core) = client.get("/api/v1/namespaces/default/events/a").await;
    assert_eq!(
        (core["message"].as_str(), core["involvedObject"]["name"].as_str()),
        (Some("Told."), Some("p"))
    );
    let review =
        |token: &str, audiences: Value| json!({"spec": {"token": token, "audiences": audiences}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (_, forged) = client.post(path, &review("forged", json!(["drover"]))).await;
    assert_eq!(forged["status"]["authenticated"], false);
    // A credential of the API's own is no word to a leader.
    let (_, foreign) = client.post(path, &review("sandbox-admin", json!(["drover"]))).await;
    assert_eq!(foreign["status"]["authenticated"], false);
    let (_, known) = client.post(path, &review("sandbox-admin", json!(null))).await;
    assert_eq!(known["status"]["user"]["username"], "sandbox-admin");
    client.sandbox.shutdown().await;
}
