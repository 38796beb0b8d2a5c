//! An agent that has nothing but its kubelet's identity is let in by the leaders, for its own Node alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use drover_sandbox::{Options, Sandbox};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct LeaderCommand {
    #[command(flatten)]
    args: drover_leader::Args,
}

#[derive(Parser)]
struct AgentCommand {
    #[command(flatten)]
    args: drover_agent::Args,
}

/// A leader on a sandbox with two Nodes, which have no agents yet.
struct Stage {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    leader: String,
    http: reqwest::Client,
    stop: CancellationToken,
}

impl Stage {
    async fn set() -> Self {
        drover_kubernetes::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        let api = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let stage = Self {
            sandbox,
            folder,
            leader: format!("http://{api}"),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            stop: CancellationToken::new(),
        };
        for name in ["one", "two"] {
            let node = json!({"kind": "Node", "metadata": {"name": name}});
            let url = format!("{}/api/v1/nodes", stage.sandbox.endpoints().kubernetes);
            let request = stage.http.post(url).bearer_auth("sandbox-admin").json(&node);
            assert_eq!(request.send().await.unwrap().status(), 201);
        }
        let endpoints = stage.sandbox.endpoints();
        let kubeconfig = stage.kubeconfig("sandbox-admin");
        let data = stage.folder.path().join("leader");
        let arguments = [
            "drover-leader",
            "--node-id=1",
            &format!("--api-listen={api}"),
            &format!("--kubeconfig={}", kubeconfig.display()),
            &format!("--data-dir={}", data.display()),
            &format!("--aws-endpoint-url={}", endpoints.ec2),
            "--aws-access-key-id=x",
            "--aws-secret-access-key=x",
            "--aws-region=us-east-1",
            "--cluster-name=test",
        ];
        let config = LeaderCommand::try_parse_from(arguments).unwrap().args.try_into().unwrap();
        tokio::spawn(drover_leader::run(config, stage.stop.clone()));
        stage
    }

    fn kubeconfig(&self, token: &str) -> PathBuf {
        let path = self.folder.path().join(token.replace(':', "-"));
        let server = &self.sandbox.endpoints().kubernetes;
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {"token": token}}],
        });
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }

    /// Starts an agent of `node` that shows the API server the identity of `kubelet`.
    fn start_agent(&self, node: &str, kubelet: &str) {
        let folder = self.folder.path().join(format!("{node}-as-{kubelet}"));
        let state = folder.join("state");
        std::fs::create_dir_all(folder.join("host")).unwrap();
        let arguments = [
            "drover-agent",
            &format!("--node-name={node}"),
            &format!(
                "--kubeconfig={}",
                self.kubeconfig(&format!("sandbox:node:{kubelet}")).display()
            ),
            &format!("--leaders={}", self.leader),
            &format!("--imds-endpoint={}/none", self.sandbox.endpoints().imds),
            &format!("--host-root={}", folder.join("host").display()),
            &format!("--state-dir={}", state.display()),
            "--report-interval=200ms",
        ];
        let config = AgentCommand::try_parse_from(arguments).unwrap().args.try_into().unwrap();
        tokio::spawn(drover_agent::run(config, self.stop.clone()));
    }

    async fn metric(&self, name: &str) -> Option<u64> {
        let answer = self.http.get(format!("{}/metrics", self.leader)).send().await.ok()?;
        let text = answer.text().await.ok()?;
        let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.map(str::trim).find_map(|value| value.parse().ok())
    }

    async fn live_agents(&self) -> Option<u64> {
        self.metric("drover_agents_live").await
    }

    async fn wait_for(&self, metric: &str, holds: impl Fn(u64) -> bool) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(30) {
            if self.metric(metric).await.is_some_and(&holds) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }

    async fn nonce(&self, node: &str) -> Value {
        let url = format!("{}/agent/v1/nonces?node={node}", self.leader);
        let answer = self.http.post(url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    async fn poll(&self, node: &str, token: &str) -> u16 {
        let url = format!("{}/agent/v1/directives?node={node}&after=1", self.leader);
        self.http.get(url).bearer_auth(token).send().await.unwrap().status().as_u16()
    }

    async fn patch_node(&self, node: &str, token: &str, nonce: &str) -> u16 {
        let url = format!("{}/api/v1/nodes/{node}", self.sandbox.endpoints().kubernetes);
        let patch = json!({"metadata": {"annotations": {"drover.dev/agent-nonce": nonce}}});
        let request = self.http.patch(url).bearer_auth(token).body(patch.to_string());
        let request = request.header("content-type", "application/merge-patch+json");
        request.send().await.unwrap().status().as_u16()
    }
}

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_let_in_by_what_it_writes_on_its_own_node() {
    let stage = Stage::set().await;
    let (live, refused) = ("drover_agents_live", "drover_agent_refusals_total");
    assert!(stage.wait_for(live, |count| count == 0).await, "the leader answers");
    stage.start_agent("one", "one");
    assert!(stage.wait_for(live, |count| count == 1).await, "its reports are taken");

    // One that says it is another node's can't write there, and stays out: it asks, fails to prove
    // itself, and asks again.
    let before = stage.metric(refused).await.unwrap();
    stage.start_agent("two", "one");
    assert!(stage.wait_for(refused, |count| count >= before + 3).await, "it asks again");
    assert_eq!(stage.live_agents().await, Some(1), "the impostor was not heard");
    // A token counts for nothing before its nonce is on the Node, and never for another Node.
    let answer = stage.nonce("two").await;
    assert_eq!(stage.poll("two", text(&answer, "token")).await, 403);
    assert_eq!(stage.patch_node("two", "sandbox:node:one", text(&answer, "nonce")).await, 403);
    let answer = stage.nonce("two").await;
    assert_eq!(stage.patch_node("two", "sandbox:node:two", text(&answer, "nonce")).await, 200);
    assert_eq!(stage.poll("two", text(&answer, "token")).await, 200);
    assert_eq!(stage.poll("one", text(&answer, "token")).await, 403);
    assert_eq!(stage.poll("two", "drover-node.1-a.00.two").await, 401);
    assert_eq!(stage.live_agents().await, Some(1), "the impostor was not heard");
    stage.stop.cancel();
}
