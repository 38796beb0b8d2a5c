//! What the bearer of an agent's token may change of its own Node.

use serde_json::{Value, json};

use super::client::{ADMINISTRATOR, Client};

const NODE: &str = "/api/v1/nodes/one";
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Agents' rules, Node `one` as clusters have it, and the token of its agent.
async fn start() -> (Client, String) {
    let client = Client::start_with_agents().await;
    client.pod("agent-1", "one", "drover-agent").await;
    let furnished = json!({
        "metadata": {
            "labels": {"kubernetes.io/os": "linux", "team": "a"},
            "annotations": {"example.com/a": "1"},
            "finalizers": ["karpenter.sh/termination"],
            "ownerReferences": [{"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": "c", "uid": "u"}],
        },
        "spec": {"taints": [{"key": "team", "value": "a", "effect": "NoSchedule"}], "podCIDR": "10.0.0.0/24"},
    });
    let (code, answer) = client.send(ADMINISTRATOR, "PATCH", NODE, &furnished).await;
    assert_eq!(code, 200, "{answer}");
    let token = client.token("agent-1", None).await;
    (client, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_cordons_its_node_and_takes_that_back() {
    let (client, token) = start().await;
    let before = client.send(&token, "GET", NODE, &Value::Null).await.1;
    // As the agent's core makes them.
    let mark = json!({"by": "drover-agent", "why": "spot-terminate", "until": null, "boot": "b"});
    let cordon = json!({
        "metadata": {
            "uid": before["metadata"]["uid"],
            "annotations": {"drover.dev/cordoned": mark.to_string()},
            "labels": {EXCLUDED: "drover-agent"},
        },
        "spec": {"unschedulable": true},
    });
    let (code, cordoned) = client.send(&token, "PATCH", NODE, &cordon).await;
    assert_eq!(code, 200, "{cordoned}");
    assert_eq!(cordoned["spec"]["unschedulable"], true);
    // The cluster taints it meanwhile, so that what was read may be old.
    let after = loop {
        let read = client.send(&token, "GET", NODE, &Value::Null).await.1;
        let undo = json!({
            "metadata": {
                "uid": read["metadata"]["uid"],
                "resourceVersion": read["metadata"]["resourceVersion"],
                "annotations": {"drover.dev/cordoned": null},
                "labels": {EXCLUDED: null},
            },
            "spec": {"unschedulable": null},
        });
        match client.send(&token, "PATCH", NODE, &undo).await {
            (409, _) => {}
            (code, after) => {
                assert_eq!(code, 200, "{after}");
                break after;
            }
        }
    };
    assert_eq!(after["spec"].get("unschedulable"), None);
    for field in ["labels", "annotations"] {
        assert_eq!(after["metadata"][field], before["metadata"][field]);
    }
    // A Node that has neither labels nor annotations.
    client.pod("agent-2", "two", "drover-agent").await;
    let token = client.token("agent-2", None).await;
    let mut cordon = cordon;
    cordon["metadata"].as_object_mut().unwrap().remove("uid");
    let back = json!({"metadata": {"labels": null, "annotations": null}, "spec": {"unschedulable": false}});
    for patch in [cordon, back] {
        let (code, answer) = client.send(&token, "PATCH", "/api/v1/nodes/two", &patch).await;
        assert_eq!(code, 200, "{answer}");
    }
    client.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_changes_nothing_else_of_its_node() {
    let (client, token) = start().await;
    let taint = |key: &str, effect: &str| json!([{"key": key, "value": "a", "effect": effect}]);
    let labels = |key: &str, value: Value| json!({"metadata": {"labels": {key: value}}});
    let annotations = |key: &str, value: Value| json!({"metadata": {"annotations": {key: value}}});
    for (patch, named) in [
        (json!({"spec": {"taints": null}}), "spec.taints of"),
        (json!({"spec": {"taints": taint("team", "NoExecute")}}), "spec.taints of"),
        (
            json!({"spec": {"taints": taint("karpenter.sh/disrupted", "NoSchedule")}}),
            "spec.taints of",
        ),
        (json!({"spec": {"providerID": "aws:///a/i-2"}}), "spec.providerID of"),
        // The order of a map's keys is nobody's promise.
        (json!({"spec": {"providerID": "aws:///a/i-2", "taints": null}}), "spec.taints"),
        (json!({"spec": {"providerID": "aws:///a/i-2", "taints": null}}), "spec.providerID"),
        (json!({"spec": {"unschedulable": true, "externalID": "i"}}), "spec.externalID of"),
        (
            labels("node-restriction.kubernetes.io/team", json!("b")),
            "metadata.labels of its Node: node-restriction.kubernetes.io/team",
        ),
        (labels("team", json!("b")), "metadata.labels of its Node: team"),
        (labels("team", Value::Null), "metadata.labels of its Node: team"),
        (json!({"metadata": {"labels": null}}), "metadata.labels of its Node: "),
        (
            json!({"metadata": {"labels": {EXCLUDED: "drover-agent", "new": ""}}}),
            "metadata.labels of its Node: new",
        ),
        (
            annotations("drover.dev/disruption", json!("1")),
            "metadata.annotations of its Node: drover.dev/disruption",
        ),
        (
            annotations("drover.dev/agent-nonce", json!("n")),
            "metadata.annotations of its Node: drover.dev/agent-nonce",
        ),
        (
            annotations("example.com/a", json!("2")),
            "metadata.annotations of its Node: example.com/a",
        ),
        (
            annotations("example.com/a", Value::Null),
            "metadata.annotations of its Node: example.com/a",
        ),
        (json!({"metadata": {"ownerReferences": null}}), "metadata.ownerReferences of"),
        (
            json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "u"}]}}),
            "metadata.ownerReferences of",
        ),
        (json!({"metadata": {"finalizers": null}}), "metadata.finalizers of"),
        (
            json!({"metadata": {"finalizers": ["karpenter.sh/termination", "example.com/a"]}}),
            "metadata.finalizers of",
        ),
    ] {
        let (code, refused) = client.send(&token, "PATCH", NODE, &patch).await;
        assert_eq!(
            (code, refused["reason"].as_str()),
            (403, Some("Forbidden")),
            "{patch}: {refused}"
        );
        let message = refused["message"].as_str().unwrap();
        assert!(
            message.contains("an agent may not change") && message.contains(named),
            "{patch}: {message}"
        );
    }
    // Others are not concerned.
    let (code, answer) =
        client.send(ADMINISTRATOR, "PATCH", NODE, &json!({"spec": {"taints": null}})).await;
    assert_eq!(code, 200, "{answer}");
    client.sandbox.shutdown().await;
}
