//! A leader on a sandbox, and what is done to both.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use clap::Parser;
use drover_sandbox::world::WorldOptions;
use drover_sandbox::{Options, Sandbox};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct LeaderCommand {
    #[command(flatten)]
    args: drover_leader::Args,
}

pub(crate) const CAPACITY_TYPE: &str = "karpenter.sh/capacity-type";

/// A leader on a sandbox.
pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    _folder: tempfile::TempDir,
    pub(crate) http: reqwest::Client,
    pub(crate) stop: CancellationToken,
    pub(crate) api: String,
}

impl Stage {
    pub(crate) async fn set(flags: &[&str]) -> Self {
        drover_kubernetes::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let world = WorldOptions { speed: 20.0, ..WorldOptions::default() };
        let sandbox = Sandbox::start(Options { world, hosts: None }).await.unwrap();
        let endpoints = sandbox.endpoints();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, sandbox.kubeconfig()).unwrap();
        let api = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let arguments = [
            "drover-leader",
            "--node-id=1",
            &format!("--api-listen={api}"),
            &format!("--kubeconfig={}", kubeconfig.display()),
            &format!("--data-dir={}", folder.path().join("leader").display()),
            &format!("--aws-endpoint-url={}", endpoints.ec2),
            &format!("--aws-endpoint-url-ssm={}", endpoints.ssm),
            &format!("--aws-endpoint-url-pricing={}", endpoints.pricing),
            &format!("--aws-endpoint-url-sqs={}", endpoints.sqs),
            "--aws-access-key-id=x",
            "--aws-secret-access-key=x",
            "--aws-region=us-east-1",
            "--cluster-name=sandbox",
        ];
        let arguments = arguments.into_iter().chain(flags.iter().copied());
        let config = LeaderCommand::try_parse_from(arguments).unwrap().args.try_into().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(drover_leader::run(config, stop.clone()));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { sandbox, _folder: folder, http, stop, api: format!("http://{api}") }
    }

    /// Commands the sandbox; returns its answer.
    pub(crate) async fn command(&self, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.sandbox.endpoints().admin);
        let answer = self.http.post(url).json(&body).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn create(&self, path: &str, object: Value) {
        let url = format!("{}{path}", self.sandbox.endpoints().kubernetes);
        let request = self.http.post(url).bearer_auth("sandbox-admin").json(&object);
        let answer = request.send().await.unwrap();
        let status = answer.status();
        assert_eq!(status, 201, "{path}: {}", answer.text().await.unwrap());
    }

    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let url = format!("{}{path}", self.sandbox.endpoints().kubernetes);
        let answer = self.http.get(url).bearer_auth("sandbox-admin").send().await.unwrap();
        let list: Value = answer.json().await.unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// Lists until what is there is as wanted.
    pub(crate) async fn until(&self, path: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let items = self.list(path).await;
            if holds(&items) {
                return items;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{path}: {items:#?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// A class that selects reservations by tag, a pool of one type in these markets, and pods that fill a
    /// node each.
    pub(crate) async fn apply(&self, markets: &[&str], pods: usize) {
        let discovery = json!([{"tags": {"karpenter.sh/discovery": "sandbox"}}]);
        let class = json!({
            "apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass",
            "metadata": {"name": "default"},
            "spec": {
                "role": "nodes", "amiSelectorTerms": [{"alias": "al2023@latest"}],
                "subnetSelectorTerms": discovery, "securityGroupSelectorTerms": discovery,
                "capacityReservationSelectorTerms": [{"tags": {"team": "a"}}],
            },
        });
        self.create("/apis/karpenter.k8s.aws/v1/ec2nodeclasses", class).await;
        let one_of =
            |key: &str, values: Value| json!({"key": key, "operator": "In", "values": values});
        let pool = json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"},
            "spec": {"template": {"spec": {
                "nodeClassRef":
                    {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
                "requirements": [
                    one_of(CAPACITY_TYPE, json!(markets)),
                    one_of("node.kubernetes.io/instance-type", json!(["m5.xlarge"])),
                ],
            }}},
        });
        self.create("/apis/karpenter.sh/v1/nodepools", pool).await;
        for number in 0..pods {
            let pod = json!({
                "metadata": {"name": format!("web-{number}"), "namespace": "default"},
                "spec": {"containers": [{"name": "main", "image": "web",
                    "resources": {"requests": {"cpu": "3"}}}]},
            });
            self.create("/api/v1/namespaces/default/pods", pod).await;
        }
    }
}

pub(crate) fn initialized(nodes: &[Value]) -> usize {
    let done = |node: &&Value| {
        node["metadata"]["labels"]["karpenter.sh/initialized"].as_str() == Some("true")
    };
    nodes.iter().filter(done).count()
}
