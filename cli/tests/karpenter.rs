//! The manifests of `docs/examples`, applied with kubectl to a running `drover sandbox`: nodes come with
//! the right image, user data, labels and taints, and pods run on them. Where kubectl is missing the test
//! says so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long nodes and pods may take in all; nothing here waits for less.
const PATIENCE: Duration = Duration::from_secs(150);

/// A running sandbox, ended when dropped.
struct Sandbox {
    child: Child,
    state: tempfile::TempDir,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status().is_ok_and(|s| s.success());
        let end = Instant::now() + Duration::from_secs(20);
        while asked && Instant::now() < end {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples")
}

impl Sandbox {
    fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let output = std::fs::File::create(state.path().join("output")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_drover"))
            .args(["sandbox", "--leaders", "1", "--boot-delay", "3s", "--state-dir"])
            .arg(state.path())
            .arg("-f")
            .arg(examples().join("general.yaml"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let sandbox = Self { child, state };
        let end = Instant::now() + PATIENCE;
        while !sandbox.state.path().join("endpoints.json").exists() {
            assert!(Instant::now() < end, "{}", sandbox.told());
            std::thread::sleep(Duration::from_millis(100));
        }
        sandbox
    }

    fn told(&self) -> String {
        std::fs::read_to_string(self.state.path().join("output")).unwrap_or_default()
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("kubectl")
            .env("KUBECONFIG", self.state.path().join("kubeconfig"))
            .env("HOME", self.state.path())
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// The items of `kubectl get … -o json`.
    fn get(&self, arguments: &[&str]) -> Vec<Value> {
        let all = [&["get"], arguments, &["-o", "json"]].concat();
        let text = self.kubectl(&all).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// The pods of an example that run.
    fn running(&self, app: &str) -> usize {
        let pods = self.get(&["pods", "-l", &format!("app={app}")]);
        pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count()
    }

    /// Waits until something holds.
    fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            if Instant::now() > end {
                let look = |kind: &str| self.kubectl(&["get", kind, "-A"]).unwrap_or_default();
                let events = self.kubectl(&["get", "events", "-A"]).unwrap_or_default();
                let seen = ["ec2nodeclasses", "nodepools", "nodeclaims", "nodes", "pods"].map(look);
                panic!("{what}:\n{}\n{}\n{events}", self.told(), seen.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Nodes, and beside each the instance under it.
    fn nodes(&self, example: &str) -> Vec<(Value, Value)> {
        let instances = self.instances();
        let instance_of = |node: &Value| {
            let name = &node["metadata"]["name"];
            let found = instances.iter().find(|instance| instance["private_dns_name"] == *name);
            found.cloned().unwrap_or_default()
        };
        let nodes = self.get(&["nodes", "-l", &format!("example={example}")]);
        nodes.into_iter().map(|node| (node.clone(), instance_of(&node))).collect()
    }

    fn instances(&self) -> Vec<Value> {
        let text = std::fs::read(self.state.path().join("endpoints.json")).unwrap();
        let endpoints: Value = serde_json::from_slice(&text).unwrap();
        let url = format!("{}/instances", endpoints["admin"].as_str().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            client.get(url).send().await.unwrap().json().await.unwrap()
        })
    }
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
    if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
        let mut uncaptured = std::io::stderr();
        writeln!(uncaptured, "SKIPPED: kubectl is missing").unwrap();
        return;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let sandbox = Sandbox::start();
    let folder = examples();
    sandbox.kubectl(&["apply", "-f", folder.to_str().unwrap()]).unwrap();
    for (app, count) in EXAMPLES {
        sandbox.wait(&format!("{app}: {count} pods run"), || sandbox.running(app) == count);
    }
    images_and_user_data(&sandbox);
    labels_and_taints(&sandbox);
    flexibility(&sandbox);
    limits(&sandbox);
}

fn images_and_user_data(sandbox: &Sandbox) {
    let one = |example: &str| sandbox.nodes(example).into_iter().next().unwrap();
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
        for (node, _) in sandbox.nodes(example) {
            assert_eq!(taints(&node), [taint], "{example}");
        }
    }
    for (node, _) in sandbox.nodes("architectures") {
        assert_eq!(label(&node, "karpenter.sh/nodepool"), "architectures");
        assert_eq!(label(&node, "karpenter.sh/registered"), "true");
        assert_eq!(label(&node, "karpenter.sh/initialized"), "true");
    }
    let architectures: std::collections::BTreeSet<String> = sandbox
        .nodes("architectures")
        .iter()
        .map(|(node, _)| label(node, "kubernetes.io/arch").to_owned())
        .collect();
    assert_eq!(architectures.into_iter().collect::<Vec<_>>(), ["amd64", "arm64"]);
}

/// `minValues` reach the request, and spot is what was bought.
fn flexibility(sandbox: &Sandbox) {
    for (node, _) in sandbox.nodes("spot") {
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
        sandbox
            .nodes("dedicated")
            .iter()
            .any(|(node, _)| label(node, "karpenter.sh/registered") == "true")
    });
    assert_eq!(sandbox.running("dedicated"), 0);
    for (node, _) in sandbox.nodes("dedicated") {
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
        sandbox.running("dedicated") >= 3
            && sandbox
                .nodes("dedicated")
                .iter()
                .all(|(node, _)| label(node, "karpenter.sh/initialized") == "true")
    });
    let cpus: i64 = sandbox
        .nodes("dedicated")
        .iter()
        .map(|(node, _)| text(&node["status"]["capacity"]["cpu"]).parse::<i64>().unwrap())
        .sum();
    assert!(cpus <= 4, "{cpus} CPUs");
    assert!(sandbox.running("dedicated") < 6);
    sandbox.wait("an event tells of the limit", || {
        sandbox.get(&["events"]).iter().any(|event| {
            text(&event["involvedObject"]["name"]).starts_with("dedicated-")
                && text(&event["message"]).contains("limit")
        })
    });
}
