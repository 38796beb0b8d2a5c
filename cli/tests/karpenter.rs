//! The manifests of `docs/examples`, applied with kubectl to a running `drover sandbox`: nodes come with
//! the right image, user data, labels and taints, and pods run on them. Where kubectl is missing the test
//! says so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "stage/sandbox.rs"]
mod stage;

use std::path::{Path, PathBuf};

use serde_json::Value;

use stage::{Sandbox, kubectl_is_missing};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples")
}

/// The pods of an example that run.
fn running(sandbox: &Sandbox, app: &str) -> usize {
    let pods = sandbox.get(&["pods", "-l", &format!("app={app}")]);
    pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count()
}

/// Nodes, and beside each the instance under it.
fn nodes(sandbox: &Sandbox, example: &str) -> Vec<(Value, Value)> {
    let instances = instances(sandbox);
    let instance_of = |node: &Value| {
        let name = &node["metadata"]["name"];
        let found = instances.iter().find(|instance| instance["private_dns_name"] == *name);
        found.cloned().unwrap_or_default()
    };
    let nodes = sandbox.get(&["nodes", "-l", &format!("example={example}")]);
    nodes.into_iter().map(|node| (node.clone(), instance_of(&node))).collect()
}

fn instances(sandbox: &Sandbox) -> Vec<Value> {
    let text = std::fs::read(sandbox.state.path().join("endpoints.json")).unwrap();
    let endpoints: Value = serde_json::from_slice(&text).unwrap();
    let url = format!("{}/instances", endpoints["admin"].as_str().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(url).send().await.unwrap().json().await.unwrap()
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn label<'a>(node: &'a Value, key: &str) -> &'a str {
    text(&node["metadata"]["labels"][key])
}

fn taints(node: &Value) -> Vec<String> {
    let list = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|taint| {
            format!("{}={}:{}", text(&taint["key"]), text(&taint["value"]), text(&taint["effect"]))
        })
        .collect()
}

/// Every example, in the order in which it is looked at: name, running pods.
const EXAMPLES: [(&str, usize); 8] = [
    ("general", 3),
    ("spot", 4),
    ("arm", 2),
    ("amd", 2),
    ("gpu", 1),
    ("bottlerocket", 1),
    ("custom", 1),
    ("windows", 1),
];

#[test]
fn karpenters_manifests_do_what_they_say() {
    if kubectl_is_missing() {
        return;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let sandbox = Sandbox::start(&["--boot-delay", "3s"], &examples().join("general.yaml"));
    let folder = examples();
    sandbox.kubectl(&["apply", "-f", folder.to_str().unwrap()]).unwrap();
    for (app, count) in EXAMPLES {
        sandbox.wait(&format!("{app}: {count} pods run"), || running(&sandbox, app) == count);
    }
    images_and_user_data(&sandbox);
    labels_and_taints(&sandbox);
    flexibility(&sandbox);
    limits(&sandbox);
}

fn images_and_user_data(sandbox: &Sandbox) {
    let one = |example: &str| nodes(sandbox, example).into_iter().next().unwrap();
    let (node, instance) = one("general");
    assert!(text(&instance["image_name"]).starts_with("amazon-eks-node-al2023-x86_64-standard-"));
    assert!(text(&instance["user_data"]).contains("kind: NodeConfig"), "{instance:#}");
    assert_eq!(instance["tags"]["team"], "platform");
    assert_eq!(label(&node, "kubernetes.io/arch"), "amd64");

    let (_, instance) = one("gpu");
    assert!(text(&instance["image_name"]).contains("-nvidia-"), "{instance:#}");

    let (node, instance) = one("bottlerocket");
    assert!(text(&instance["image_name"]).starts_with("bottlerocket-aws-k8s-"), "{instance:#}");
    let data = text(&instance["user_data"]);
    assert!(data.contains("net.core.somaxconn") && data.contains("cluster-name"), "{data}");
    assert_eq!(node["status"]["allocatable"]["pods"], "42");

    let (node, instance) = one("custom");
    assert!(text(&instance["image_name"]).starts_with("drover-sandbox-custom-arm64-"));
    assert!(text(&instance["user_data"]).starts_with("#!/bin/bash\nexec /opt/join"));
    assert_eq!(label(&node, "image"), "own");

    let (node, instance) = one("windows");
    assert!(text(&instance["image_name"]).starts_with("Windows_Server-2022-English-Core-"));
    let data = text(&instance["user_data"]);
    assert!(data.contains("Write-Output") && data.contains("Start-EKSBootstrap.ps1"), "{data}");
    assert_eq!(label(&node, "kubernetes.io/os"), "windows");
}

fn labels_and_taints(sandbox: &Sandbox) {
    for (example, taint) in [
        ("gpu", "nvidia.com/gpu=true:NoSchedule"),
        ("bottlerocket", "example.com/bottlerocket=:NoSchedule"),
        ("windows", "os=windows:NoSchedule"),
    ] {
        for (node, _) in nodes(sandbox, example) {
            assert_eq!(taints(&node), [taint], "{example}");
        }
    }
    for (node, _) in nodes(sandbox, "architectures") {
        assert_eq!(label(&node, "karpenter.sh/nodepool"), "architectures");
        assert_eq!(label(&node, "karpenter.sh/registered"), "true");
        assert_eq!(label(&node, "karpenter.sh/initialized"), "true");
    }
    let architectures: std::collections::BTreeSet<String> = nodes(sandbox, "architectures")
        .iter()
        .map(|(node, _)| label(node, "kubernetes.io/arch").to_owned())
        .collect();
    assert_eq!(architectures.into_iter().collect::<Vec<_>>(), ["amd64", "arm64"]);
}

/// `minValues` reach the request, and spot is what was bought.
fn flexibility(sandbox: &Sandbox) {
    for (node, _) in nodes(sandbox, "spot") {
        assert_eq!(label(&node, "karpenter.sh/capacity-type"), "spot");
    }
    let claims = sandbox.get(&["nodeclaims", "-l", "karpenter.sh/nodepool=spot"]);
    assert!(!claims.is_empty());
    for claim in claims {
        let requirements = claim["spec"]["requirements"].as_array().unwrap().clone();
        let types = requirements
            .iter()
            .find(|one| one["key"] == "node.kubernetes.io/instance-type")
            .unwrap_or_else(|| panic!("no types: {requirements:?}"));
        let types = types["values"].as_array().unwrap();
        let family = |name: &Value| text(name).split('.').next().unwrap_or_default().to_owned();
        let families: std::collections::BTreeSet<String> = types.iter().map(family).collect();
        assert!(types.len() >= 10 && families.len() >= 5, "{types:?}");
    }
}

/// A startup taint waits for whoever removes it, and the pool's limit leaves pods pending.
fn limits(sandbox: &Sandbox) {
    sandbox.wait("dedicated: a node is registered", || {
        nodes(sandbox, "dedicated")
            .iter()
            .any(|(node, _)| label(node, "karpenter.sh/registered") == "true")
    });
    assert_eq!(running(sandbox, "dedicated"), 0);
    for (node, _) in nodes(sandbox, "dedicated") {
        let found = taints(&node);
        assert!(
            found.contains(&"example.com/dedicated=payments:NoSchedule".to_owned()),
            "{found:?}"
        );
        assert!(found.contains(&"example.com/starting=:NoSchedule".to_owned()), "{found:?}");
        assert_ne!(label(&node, "karpenter.sh/initialized"), "true");
        assert_eq!(node["metadata"]["annotations"]["example.com/owner"], "payments");
        sandbox
            .kubectl(&["taint", "node", text(&node["metadata"]["name"]), "example.com/starting-"])
            .unwrap();
    }
    sandbox.wait("dedicated: pods run on an initialized node", || {
        running(sandbox, "dedicated") >= 3
            && nodes(sandbox, "dedicated")
                .iter()
                .all(|(node, _)| label(node, "karpenter.sh/initialized") == "true")
    });
    let cpus: i64 = nodes(sandbox, "dedicated")
        .iter()
        .map(|(node, _)| text(&node["status"]["capacity"]["cpu"]).parse::<i64>().unwrap())
        .sum();
    assert!(cpus <= 4, "{cpus} CPUs");
    assert!(running(sandbox, "dedicated") < 6);
    sandbox.wait("an event tells of the limit", || {
        sandbox.get(&["events"]).iter().any(|event| {
            text(&event["involvedObject"]["name"]).starts_with("dedicated-")
                && text(&event["message"]).contains("limit")
        })
    });
}
