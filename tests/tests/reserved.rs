//! A leader against the sandbox with a capacity reservation: a node goes into it, the next is bought.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

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

const RESERVATION_ID: &str = "karpenter.k8s.aws/capacity-reservation-id";
const CAPACITY_TYPE: &str = "karpenter.sh/capacity-type";

/// A leader on a sandbox.
struct Stage {
    sandbox: Sandbox,
    _folder: tempfile::TempDir,
    http: reqwest::Client,
    stop: CancellationToken,
}

impl Stage {
    async fn set(gates: &str) -> Self {
        drover_kubernetes::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let world = WorldOptions { speed: 20.0, ..WorldOptions::default() };
        let sandbox = Sandbox::start(Options { world, hosts: None }).await.unwrap();
        let endpoints = sandbox.endpoints();
        let kubeconfig = folder.path().join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": endpoints.kubernetes}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {"token": "sandbox-admin"}}],
        });
        std::fs::write(&kubeconfig, text.to_string()).unwrap();
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
            "--aws-access-key-id=x",
            "--aws-secret-access-key=x",
            "--aws-region=us-east-1",
            "--cluster-name=sandbox",
            &format!("--feature-gates={gates}"),
        ];
        let config = LeaderCommand::try_parse_from(arguments).unwrap().args.try_into().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(drover_leader::run(config, stop.clone()));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { sandbox, _folder: folder, http, stop }
    }

    async fn reserve(&self, order: Value) -> String {
        let url = format!("{}/reservations", self.sandbox.endpoints().admin);
        let answer = self.http.post(url).json(&order).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }

    async fn create(&self, path: &str, object: Value) {
        let url = format!("{}{path}", self.sandbox.endpoints().kubernetes);
        let request = self.http.post(url).bearer_auth("sandbox-admin").json(&object);
        let answer = request.send().await.unwrap();
        let status = answer.status();
        assert_eq!(status, 201, "{path}: {}", answer.text().await.unwrap());
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        let url = format!("{}{path}", self.sandbox.endpoints().kubernetes);
        let answer = self.http.get(url).bearer_auth("sandbox-admin").send().await.unwrap();
        let list: Value = answer.json().await.unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// Lists until what is there is as wanted.
    async fn until(&self, path: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
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

    /// A class that selects reservations by tag, a pool of one type, and pods that fill a node each.
    async fn apply(&self, pods: usize) {
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
                    one_of(CAPACITY_TYPE, json!(["reserved", "on-demand"])),
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

/// Values of a label, sorted; empty where it is missing.
fn labels(objects: &[Value], key: &str) -> Vec<String> {
    let value =
        |object: &Value| object["metadata"]["labels"][key].as_str().unwrap_or("").to_owned();
    let mut values: Vec<String> = objects.iter().map(value).collect();
    values.sort();
    values
}

fn initialized(nodes: &[Value]) -> usize {
    let done = |node: &&Value| {
        node["metadata"]["labels"]["karpenter.sh/initialized"].as_str() == Some("true")
    };
    nodes.iter().filter(done).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_into_the_reservation_and_the_next_is_bought() {
    let stage = Stage::set("").await;
    let order = json!({"instance_type": "m5.xlarge", "zone": "us-east-1b", "count": 1,
        "tags": {"team": "a"}});
    let id = stage.reserve(order).await;
    let other = json!({"instance_type": "m5.xlarge", "zone": "us-east-1c", "count": 9,
        "tags": {"team": "b"}});
    stage.reserve(other).await;
    stage.apply(2).await;
    let nodes = stage.until("/api/v1/nodes", |nodes| initialized(nodes) == 2).await;
    assert_eq!(labels(&nodes, CAPACITY_TYPE), ["on-demand", "reserved"]);
    assert_eq!(labels(&nodes, RESERVATION_ID), [String::new(), id.clone()]);
    let claims = stage.list("/apis/karpenter.sh/v1/nodeclaims").await;
    assert_eq!(labels(&claims, CAPACITY_TYPE), ["on-demand", "reserved"]);
    assert_eq!(labels(&claims, RESERVATION_ID), [String::new(), id.clone()]);
    let interruptible = "karpenter.k8s.aws/capacity-reservation-interruptible";
    assert_eq!(labels(&nodes, interruptible), ["", "false"]);

    let class = stage.list("/apis/karpenter.k8s.aws/v1/ec2nodeclasses").await.remove(0);
    let shown = class["status"]["capacityReservations"].as_array().unwrap();
    assert_eq!(shown.len(), 1, "those of other tags are not the class's: {shown:?}");
    let wanted = json!({
        "id": id, "availabilityZone": "us-east-1b", "instanceType": "m5.xlarge",
        "ownerID": "123456789012", "instanceMatchCriteria": "targeted",
        "reservationType": "default", "interruptible": false, "state": "active",
    });
    assert_eq!(shown[0], wanted);
    let conditions = class["status"]["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|one| one["type"] == "CapacityReservationsReady").unwrap();
    assert_eq!(ready["status"], "True");

    stage.sandbox.world().with(|world, _| {
        let held: Vec<Option<String>> =
            world.cloud.instances().map(|instance| instance.reservation.clone()).collect();
        assert_eq!(held.iter().flatten().collect::<Vec<_>>(), [&id]);
        assert_eq!(held.len(), 2, "nothing was launched in vain");
    });
    stage.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_gate_closed_reservations_are_passed_over() {
    let stage = Stage::set("ReservedCapacity=false").await;
    let order = json!({"instance_type": "m5.xlarge", "zone": "us-east-1b", "count": 1,
        "tags": {"team": "a"}});
    stage.reserve(order).await;
    stage.apply(1).await;
    let nodes = stage.until("/api/v1/nodes", |nodes| initialized(nodes) == 1).await;
    assert_eq!(labels(&nodes, CAPACITY_TYPE), ["on-demand"]);
    stage.stop.cancel();
}
