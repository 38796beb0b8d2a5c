//! Who may do what over HTTP: tokens, RBAC, the rules for nodes, and admission policies. The agent's
//! are those of `deploy/manifests`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "access/client.rs"]
mod client;
#[path = "access/own_node.rs"]
mod own_node;

use client::{ADMINISTRATOR, Client};
use drover_common::call::{Kind, KubernetesCall};
use drover_common::news::Telling;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_counts_if_it_was_issued_and_gives_what_roles_give() {
    let client = Client::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(client.send("forged", "GET", pods, &Value::Null).await.0, 401);
    assert_eq!(client.send(ADMINISTRATOR, "GET", pods, &Value::Null).await.0, 200);
    // kubectl shows no token without TLS.
    assert_eq!(client.send("", "GET", pods, &Value::Null).await.0, 200);
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    client.create(accounts, json!({"metadata": {"name": "robot"}})).await;
    let made = client.create(&format!("{accounts}/robot/token"), json!({"spec": {}})).await;
    let token = made["status"]["token"].as_str().unwrap();
    let (code, refused) = client.send(token, "GET", pods, &Value::Null).await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(client.send(token, "GET", "/apis", &Value::Null).await.0, 200);
    client.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_touches_its_own_node_and_the_pods_on_it() {
    let client = Client::start_with_agents().await;
    client.pod("agent-1", "one", "drover-agent").await;
    client.pod("victim-1", "one", "default").await;
    client.pod("victim-2", "two", "default").await;
    let token = client.token("agent-1", None).await;
    let cordon = json!({"spec": {"unschedulable": true}});
    assert_eq!(client.send(&token, "PATCH", "/api/v1/nodes/one", &cordon).await.0, 200);
    let (code, refused) = client.send(&token, "PATCH", "/api/v1/nodes/two", &cordon).await;
    assert_eq!(code, 403);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("an agent on one may not change node two"), "{message}");
    let pods = "/api/v1/namespaces/drover-system/pods";
    let delete = |name: &str| format!("{pods}/{name}?gracePeriodSeconds=0");
    assert_eq!(client.send(&token, "DELETE", &delete("victim-1"), &Value::Null).await.0, 200);
    let (code, refused) = client.send(&token, "DELETE", &delete("victim-2"), &Value::Null).await;
    assert_eq!((code, refused["reason"].as_str()), (403, Some("Forbidden")));
    // Its kubelet tells it what it measures, if there is one, and nothing else.
    let kubelet = async |path: &str| {
        let url = format!("{}/one/{path}", client.sandbox.endpoints().kubelet);
        client.http.get(url).bearer_auth(&token).send().await.unwrap().status().as_u16()
    };
    assert_eq!((kubelet("metrics/resource").await, kubelet("healthz").await), (404, 403));
    // RBAC is narrow: no deletion of nodes, no secrets.
    assert_eq!(client.send(&token, "DELETE", "/api/v1/nodes/one", &Value::Null).await.0, 403);
    let secrets = "/api/v1/namespaces/drover-system/secrets";
    assert_eq!(client.send(&token, "GET", secrets, &Value::Null).await.0, 403);
    // The token for leaders is none for the API, and says to a leader whose it is.
    let projected = client.token("agent-1", Some("drover")).await;
    assert_eq!(client.send(&projected, "GET", pods, &Value::Null).await.0, 401);
    let review = json!({"spec": {"token": projected, "audiences": ["drover"]}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (_, review) = client.send(ADMINISTRATOR, "POST", reviews, &review).await;
    let user = &review["status"]["user"];
    assert_eq!(user["username"], "system:serviceaccount:drover-system:drover-agent");
    assert_eq!(user["extra"]["authentication.kubernetes.io/node-name"], json!(["one"]));
    client.sandbox.shutdown().await;
}

/// As an agent on node `one` makes it.
fn event(name: &str) -> Value {
    let telling = Telling {
        kind: Kind::Node,
        namespace: "",
        name: "one",
        uid: "u",
        controller: "drover-agent",
        instance: "one",
    };
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    match telling.event(name, "Drained", "Drained: 1 pods evicted", false, at) {
        KubernetesCall::Create { object, .. } => object,
        other => panic!("{other:?}"),
    }
}

const EVENTS: &str = "/api/v1/namespaces/default/events";

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_either_api_of_events_sees_them_as_that_shows_them() {
    let client = Client::start().await;
    let api = "/apis/admissionregistration.k8s.io/v1";
    for (group, member) in [("", "object.message"), ("events.k8s.io", "object.note")] {
        let name = format!("of-{member}").to_lowercase();
        let policy = json!({"metadata": {"name": name}, "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": [group], "apiVersions": ["v1"],
                "operations": ["CREATE"], "resources": ["events"]}]},
            "validations": [{"expression": format!("{member} != '{member}'"), "reason": "Forbidden"}]}});
        client.create(&format!("{api}/validatingadmissionpolicies"), policy).await;
        let binding = json!({"metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]}});
        client.create(&format!("{api}/validatingadmissionpolicybindings"), binding).await;
    }
    for (note, expected) in [("object.message", 403), ("object.note", 403), ("other", 201)] {
        let mut event = event(note);
        event["message"] = json!(note);
        let (code, answer) = client.send(ADMINISTRATOR, "POST", EVENTS, &event).await;
        assert_eq!(code, expected, "{note}: {answer}");
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(expected == 201 || message.contains(&format!("of-{note}")), "{message}");
    }
    client.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_tells_of_its_own_node_in_its_own_name() {
    let client = Client::start_with_agents().await;
    client.pod("agent-1", "one", "drover-agent").await;
    let token = client.token("agent-1", None).await;
    let (code, made) = client.send(&token, "POST", EVENTS, &event("one.0")).await;
    assert_eq!(code, 201, "{made}");
    for (index, (pointer, value)) in [
        ("/involvedObject/name", json!("two")),
        ("/involvedObject/kind", json!("Pod")),
        ("/reportingComponent", json!("drover")),
        ("/reportingComponent", Value::Null),
        ("/involvedObject", Value::Null),
    ]
    .into_iter()
    .enumerate()
    {
        let mut event = event(&format!("other.{index}"));
        match value {
            Value::Null => drop(event.as_object_mut().unwrap().remove(&pointer[1..])),
            _ => *event.pointer_mut(pointer).unwrap() = value.clone(),
        }
        let (code, refused) = client.send(&token, "POST", EVENTS, &event).await;
        assert_eq!(code, 403, "{pointer} {value}: {refused}");
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains("an agent on one may not make event other."), "{message}");
    }
    // Others are not concerned.
    let mut of_two = event("two.0");
    of_two["involvedObject"]["name"] = json!("two");
    client.create(EVENTS, of_two).await;
    client.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_a_node_patches_no_node() {
    let client = Client::start_with_agents().await;
    let path = "/api/v1/namespaces/drover-system/serviceaccounts/drover-agent/token";
    let made = client.create(path, json!({"spec": {}})).await;
    let token = made["status"]["token"].as_str().unwrap();
    let cordon = json!({"spec": {"unschedulable": true}});
    let (code, refused) = client.send(token, "PATCH", "/api/v1/nodes/one", &cordon).await;
    assert_eq!(code, 403);
    assert!(refused["message"].as_str().unwrap().contains("does not name a node"), "{refused}");
    let (code, refused) = client.send(token, "POST", EVENTS, &event("one.0")).await;
    assert_eq!(code, 403, "{refused}");
    client.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelets_identity_is_restricted_to_its_node() {
    let client = Client::start().await;
    for node in ["one", "two"] {
        client.node(node).await;
    }
    let one = "sandbox:node:one";
    let cordon = json!({"spec": {"unschedulable": true}});
    assert_eq!(client.send(one, "PATCH", "/api/v1/nodes/one", &cordon).await.0, 200);
    assert_eq!(client.send(one, "PATCH", "/api/v1/nodes/two", &cordon).await.0, 403);
    let taint = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let (code, refused) = client.send(one, "PATCH", "/api/v1/nodes/one", &taint).await;
    assert_eq!(code, 403);
    assert!(refused["message"].as_str().unwrap().contains("taints"), "{refused}");
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "u"});
    let owned = json!({"metadata": {"ownerReferences": [owner]}});
    let (code, refused) = client.send(one, "PATCH", "/api/v1/nodes/one", &owned).await;
    assert_eq!(code, 403);
    assert!(refused["message"].as_str().unwrap().contains("ownerReferences"), "{refused}");
    // `system:node` is granted events of the core group alone.
    assert_eq!(client.send(one, "POST", EVENTS, &event("one.0")).await.0, 201);
    let others = "/apis/events.k8s.io/v1/namespaces/default/events";
    assert_eq!(client.send(one, "POST", others, &event("one.1")).await.0, 403);
    client.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelets_identity_reads_its_node_and_pods_alone() {
    let client = Client::start().await;
    for node in ["one", "two"] {
        client.node(node).await;
    }
    client.create("/api/v1/namespaces", json!({"metadata": {"name": "drover-system"}})).await;
    client.pod("own", "one", "default").await;
    client.pod("other", "two", "default").await;
    let get = async |path: &str| client.send("sandbox:node:one", "GET", path, &Value::Null).await;
    // As an agent of node mode asks.
    let mine = "?fieldSelector=spec.nodeName%3Done";
    let (code, list) = get(&format!("/api/v1/pods{mine}")).await;
    assert_eq!(code, 200, "{list}");
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let named = "/api/v1/nodes?fieldSelector=metadata.name%3Done";
    for path in [
        format!("/api/v1/pods{mine}&watch=true&timeoutSeconds=0"),
        format!("/api/v1/namespaces/drover-system/pods{mine}"),
        "/api/v1/namespaces/drover-system/pods/own".to_owned(),
        named.to_owned(),
        format!("{named}&watch=true&timeoutSeconds=0"),
        "/api/v1/nodes/one".to_owned(),
    ] {
        assert_eq!(get(&path).await.0, 200, "{path}");
    }
    for (path, reason) in [
        ("/api/v1/pods", "with spec.nodeName field selector"),
        ("/api/v1/pods?watch=true&timeoutSeconds=0", "with spec.nodeName field selector"),
        ("/api/v1/pods?fieldSelector=spec.nodeName%3Dtwo", "with spec.nodeName field selector"),
        (
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dtwo&watch=true",
            "with spec.nodeName field selector",
        ),
        ("/api/v1/namespaces/drover-system/pods/other", "no relationship found"),
        ("/api/v1/nodes", "its own Node"),
        ("/api/v1/nodes?watch=true", "its own Node"),
        ("/api/v1/nodes/two", "its own Node"),
    ] {
        let (code, refused) = get(path).await;
        let message = refused["message"].as_str().unwrap_or_default();
        assert_eq!(code, 403, "{path}: {refused}");
        assert!(message.contains(reason), "{path}: {message}");
    }
    // A review answers the same, by the selector it is told.
    let ask = async |requirement: Value| {
        let spec = json!({"user": "system:node:one", "groups": ["system:nodes"],
            "resourceAttributes": {"verb": "list", "version": "v1", "resource": "pods",
                "fieldSelector": {"requirements": [requirement]}}});
        let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        client.create(reviews, json!({"spec": spec})).await["status"]["allowed"].clone()
    };
    let of = |node: &str| json!({"key": "spec.nodeName", "operator": "In", "values": [node]});
    assert_eq!((ask(of("one")).await, ask(of("two")).await), (json!(true), json!(false)));
    client.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_tells_its_metrics_to_those_who_may_see_them() {
    let client = Client::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    client.create(accounts, json!({"metadata": {"name": "robot"}})).await;
    let made = client.create(&format!("{accounts}/robot/token"), json!({"spec": {}})).await;
    let token = made["status"]["token"].as_str().unwrap();
    let url = format!("{}/nobody/metrics/resource", client.sandbox.endpoints().kubelet);
    let ask = async |token: &str| {
        let response = client.http.get(&url).bearer_auth(token).send().await.unwrap();
        response.status().as_u16()
    };
    assert_eq!(client.http.get(&url).send().await.unwrap().status().as_u16(), 401);
    assert_eq!(ask("forged").await, 401);
    assert_eq!(ask(token).await, 403);
    let role = json!({"metadata": {"name": "metrics"}, "rules": [
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}]});
    client.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
    let binding = json!({"metadata": {"name": "metrics"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "metrics"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}]});
    client.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    assert_eq!(ask(token).await, 404, "allowed, but there is no such machine");
    client.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn access_reviews_answer_what_the_api_would_do() {
    let client = Client::start().await;
    client
        .create(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            json!({
        "metadata": {"name": "viewer"},
        "rules": [{"nonResourceURLs": ["/v1/*"], "verbs": ["get"]}]}),
        )
        .await;
    client.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", json!({
        "metadata": {"name": "viewer"},
        "subjects": [{"kind": "Group", "name": "operators", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "viewer", "apiGroup": "rbac.authorization.k8s.io"}})).await;
    let ask = async |group: &str, path: &str| {
        let spec = json!({"user": "jo", "groups": [group],
            "nonResourceAttributes": {"path": path, "verb": "get"}});
        let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        client.create(reviews, json!({"spec": spec})).await["status"]["allowed"].clone()
    };
    assert_eq!(ask("operators", "/v1/status").await, true);
    assert_eq!(ask("operators", "/v2/status").await, false);
    assert_eq!(ask("others", "/v1/status").await, false);
    client.sandbox.shutdown().await;
}
