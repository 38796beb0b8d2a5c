//! A real kubectl against the Kubernetes face. Where kubectl is missing, the tests say so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a skip says what is missing")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use drover_sandbox::{Options, Sandbox};

/// What a kubectl command came to.
struct Answer {
    ok: bool,
    text: String,
}

impl Answer {
    fn expect(self, part: &str) -> Self {
        assert!(self.text.contains(part), "{part:?} is not in:\n{}", self.text);
        self
    }

    fn succeeded(self) -> Self {
        assert!(self.ok, "{}", self.text);
        self
    }

    fn refused(self) -> Self {
        assert!(!self.ok, "it should have been refused:\n{}", self.text);
        self
    }
}

/// A sandbox and a kubeconfig for it.
struct Cluster {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// `None` without kubectl.
    async fn start() -> Option<Self> {
        if Command::new("kubectl").arg("version").arg("--client").output().is_err() {
            println!("kubectl is not on PATH: nothing was tested");
            return None;
        }
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kubeconfig"), sandbox.kubeconfig()).unwrap();
        Some(Self { sandbox, folder })
    }

    async fn kubectl(&self, arguments: &[&str], input: &str) -> Answer {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("HOME", self.folder.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = input.to_owned();
        let run = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        let output = run.await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        Answer { ok: output.status.success(), text: String::from_utf8_lossy(&text).into_owned() }
    }

    async fn run(&self, line: &str) -> Answer {
        self.kubectl(&line.split(' ').collect::<Vec<_>>(), "").await
    }

    async fn apply(&self, manifest: &str) -> Answer {
        self.kubectl(&["apply", "-f", "-"], manifest).await
    }
}

const POOL: &str = "
apiVersion: karpenter.sh/v1
kind: NodePool
metadata:
  name: general
spec:
  weight: 10
  template:
    spec:
      nodeClassRef: {group: karpenter.k8s.aws, kind: EC2NodeClass, name: default}
      requirements:
      - {key: karpenter.sh/capacity-type, operator: In, values: [spot, on-demand]}
";

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'nginx:1', resources: {requests: {cpu: 100m}}}
";

const NODE: &str = "
apiVersion: v1
kind: Node
metadata:
  name: one
  labels: {kubernetes.io/hostname: one}
";

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_are_applied_judged_and_explained() {
    let Some(cluster) = Cluster::start().await else { return };
    cluster.run("api-resources").await.succeeded().expect("nodeclaims").expect("deploy");
    cluster.apply(POOL).await.succeeded().expect("nodepool.karpenter.sh/general created");
    cluster.apply(POOL).await.succeeded().expect("unchanged");
    let heavier = POOL.replace("weight: 10", "weight: 20");
    cluster.apply(&heavier).await.succeeded().expect("configured");
    cluster.run("get nodepools").await.succeeded().expect("NODECLASS").expect("general");
    let wrong = POOL.replace("weight: 10", "weight: 101");
    cluster.apply(&wrong).await.refused().expect("spec.weight").expect("less than or equal to 100");
    let unknown = POOL.replace("weight: 10", "wieght: 10");
    cluster.apply(&unknown).await.refused().expect("unknown field \"spec.wieght\"");
    let reserved = POOL.replace(
        "karpenter.sh/capacity-type, operator: In, values: [spot, on-demand]",
        "karpenter.sh/nodepool, operator: Exists",
    );
    cluster.apply(&reserved).await.refused().expect("restricted");
    cluster.run("explain nodepool.spec.weight").await.succeeded().expect("integer");
    cluster.run("explain deployment.spec.replicas").await.succeeded().expect("integer");
    cluster.run("delete nodepool general").await.succeeded().expect("deleted");
    cluster.run("get nodepools").await.succeeded().expect("No resources found");
    cluster.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_are_applied_patched_and_scaled() {
    let Some(cluster) = Cluster::start().await else { return };
    cluster.apply(DEPLOYMENT).await.succeeded().expect("deployment.apps/web created");
    let newer = DEPLOYMENT.replace("nginx:1", "nginx:2");
    cluster.apply(&newer).await.succeeded().expect("configured");
    cluster
        .run("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}")
        .await
        .expect("nginx:2");
    cluster.run("scale deployment web --replicas=3").await.succeeded().expect("scaled");
    cluster.run("get deployments").await.succeeded().expect("UP-TO-DATE").expect("web");
    let patch = "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"web\",\"env\":[{\"name\":\"A\",\"value\":\"b\"}]}]}}}}";
    cluster.kubectl(&["patch", "deployment", "web", "-p", patch], "").await.succeeded();
    cluster
        .run("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}")
        .await
        .expect("nginx:2");
    let patch = "[{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":1}]";
    cluster
        .kubectl(&["patch", "deployment", "web", "--type=json", "-p", patch], "")
        .await
        .succeeded();
    cluster.run("apply --server-side --field-manager=me -f -").await.refused();
    cluster
        .kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &newer)
        .await
        .succeeded()
        .expect("serverside-applied");
    cluster.run("label deployment web tier=front").await.succeeded();
    cluster.run("get deployments -l tier=front -o name").await.expect("deployment.apps/web");
    cluster.run("describe deployment web").await.succeeded().expect("nginx:2");
    let broken = DEPLOYMENT
        .replace("app: web}}\n  template", "app: other}}\n  template")
        .replace("name: web\n", "name: broken\n");
    cluster
        .apply(&broken)
        .await
        .refused()
        .expect("spec.template.metadata.labels")
        .expect("does not match template");
    cluster.run("wait --for=delete deployment/none --timeout=1s").await.succeeded();
    cluster.run("delete deployment web --wait=false").await.succeeded();
    cluster
        .run("get widgets")
        .await
        .refused()
        .expect("the server doesn't have a resource type \"widgets\"");
    cluster.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_cordoned_and_drained() {
    let Some(cluster) = Cluster::start().await else { return };
    cluster.apply(NODE).await.succeeded();
    cluster.run("cordon one").await.succeeded().expect("node/one cordoned");
    cluster.run("get nodes").await.succeeded().expect("SchedulingDisabled");
    cluster.run("drain one --ignore-daemonsets --timeout=20s").await.succeeded().expect("drained");
    cluster.run("uncordon one").await.succeeded();
    cluster.run("taint node one a=b:NoSchedule").await.succeeded();
    cluster.run("describe node one").await.succeeded().expect("a=b:NoSchedule");
    cluster.run("get namespaces").await.succeeded().expect("kube-system").expect("Active");
    let namespace = r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}"#;
    cluster.apply(namespace).await.succeeded();
    cluster.run("get events -A").await.succeeded();
    cluster.run("get crd nodepools.karpenter.sh").await.succeeded();
    cluster
        .run("wait --for=condition=Established crd/nodepools.karpenter.sh --timeout=5s")
        .await
        .succeeded();
    cluster.run("auth can-i create pods").await.succeeded().expect("yes");
    cluster.run("version").await.succeeded().expect("Server Version");
    cluster.sandbox.shutdown().await;
}
