//! A real kubectl against the Kubernetes face. Where kubectl is missing, the tests say so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

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
            let mut uncaptured = std::io::stderr();
            writeln!(
                uncaptured,
                "SKIPPED {}: kubectl is missing",
                std::thread::current().name().unwrap_or_default()
            )
            .unwrap();
            return None;
        }
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kubeconfig"), sandbox.kubeconfig()).unwrap();
        Some(Self { sandbox, folder })
    }

    async fn kubectl(&self, arguments: &[&str], input: &str) -> Answer {
        self.kubectl_with(arguments, input, None).await
    }

    async fn kubectl_with(&self, arguments: &[&str], input: &str, editor: Option<&str>) -> Answer {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("HOME", self.folder.path())
            .envs(editor.map(|editor| ("KUBE_EDITOR", editor)))
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

#[tokio::test(flavor = "multi_thread")]
async fn kinds_are_created_by_command() {
    let Some(cluster) = Cluster::start().await else { return };
    for (line, answer) in [
        ("create namespace shop", "namespace/shop created"),
        ("create configmap c --from-literal=a=b", "configmap/c created"),
        ("create secret generic s --from-literal=a=b", "secret/s created"),
        ("create serviceaccount robot", "serviceaccount/robot created"),
        ("create deployment web --image=nginx:1 --replicas=0", "deployment.apps/web created"),
        ("create job once --image=busybox", "job.batch/once created"),
        (
            "create cronjob often --image=busybox --schedule=*/5_*_*_*_*",
            "cronjob.batch/often created",
        ),
        ("create service clusterip web --tcp=80:8080", "service/web created"),
        ("create quota q --hard=pods=3", "resourcequota/q created"),
        (
            "create poddisruptionbudget p --selector=app=web --min-available=1",
            "poddisruptionbudget.policy/p created",
        ),
        ("create priorityclass low --value=7", "priorityclass.scheduling.k8s.io/low created"),
        (
            "create role r --verb=get,list --resource=pods",
            "role.rbac.authorization.k8s.io/r created",
        ),
        (
            "create rolebinding r --role=r --serviceaccount=default:robot",
            "rolebinding.rbac.authorization.k8s.io/r created",
        ),
        (
            "create clusterrole v --verb=get --non-resource-url=/v1/*",
            "clusterrole.rbac.authorization.k8s.io/v created",
        ),
        (
            "create clusterrolebinding v --clusterrole=v --group=operators",
            "clusterrolebinding.rbac.authorization.k8s.io/v created",
        ),
        ("run alone --image=nginx:1 --labels=app=alone", "pod/alone created"),
    ] {
        // Blanks within an argument are written as underscores here.
        let arguments: Vec<String> = line.split(' ').map(|part| part.replace('_', " ")).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        cluster.kubectl(&arguments, "").await.succeeded().expect(answer);
    }
    for (line, value) in [
        ("get deployment web -o jsonpath={.spec.replicas}", "0"),
        ("get configmap c -o jsonpath={.data.a}", "b"),
        ("get secret s -o jsonpath={.data.a}", "Yg=="),
        ("get service web -o jsonpath={.spec.ports[0].targetPort}", "8080"),
        ("get priorityclass low -o jsonpath={.value}", "7"),
        ("get poddisruptionbudget p -o jsonpath={.spec.minAvailable}", "1"),
    ] {
        assert_eq!(cluster.run(line).await.succeeded().text, value, "{line}");
    }
    cluster.run("create configmap c").await.refused().expect("already exists");
    cluster.run("expose deployment web --port=80 --name=again").await.succeeded();
    let server = "create configmap dry --dry-run=server";
    cluster.run(server).await.succeeded().expect("server dry run");
    cluster.run("get configmap dry").await.refused().expect("NotFound");
    cluster.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_who_their_tokens_say_and_may_what_roles_give() {
    let Some(cluster) = Cluster::start().await else { return };
    cluster.run("auth whoami").await.succeeded().expect("sandbox-admin");
    cluster.run("create serviceaccount robot").await.succeeded();
    cluster.run("create role r --verb=get,list --resource=pods").await.succeeded();
    cluster.run("create rolebinding r --role=r --serviceaccount=default:robot").await.succeeded();
    let robot = "--as=system:serviceaccount:default:robot";
    cluster.run(&format!("auth can-i list pods {robot}")).await.succeeded().expect("yes");
    cluster.run(&format!("auth can-i delete pods {robot}")).await.refused().expect("no");
    cluster.run(&format!("auth can-i --list {robot}")).await.succeeded().expect("pods");
    cluster.run(&format!("get pods {robot}")).await.succeeded();
    cluster
        .run(&format!("get nodes {robot}"))
        .await
        .refused()
        .expect("cannot list resource \"nodes\"");
    cluster.run("create token robot").await.succeeded().expect("sandbox-token-");
    cluster
        .run(&format!("auth whoami {robot}"))
        .await
        .succeeded()
        .expect("system:serviceaccount:default:robot");
    cluster.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_edited_labelled_annotated_and_described() {
    let Some(cluster) = Cluster::start().await else { return };
    cluster.apply(DEPLOYMENT).await.succeeded();
    cluster.apply(NODE).await.succeeded();
    cluster.apply(POOL).await.succeeded();
    let edit = ["edit", "deployment", "web"];
    cluster
        .kubectl_with(&edit, "", Some("sed -i s/nginx:1/nginx:9/"))
        .await
        .succeeded()
        .expect("edited");
    let image = "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}";
    assert_eq!(cluster.run(image).await.text, "nginx:9");
    let edit = ["edit", "nodepool", "general"];
    cluster
        .kubectl_with(&edit, "", Some("sed -i s/weight:.10/weight:\\ 30/"))
        .await
        .succeeded()
        .expect("edited");
    assert_eq!(cluster.run("get nodepool general -o jsonpath={.spec.weight}").await.text, "30");
    cluster.run("annotate nodepool general a=b").await.succeeded().expect("annotated");
    cluster.run("label node one tier=front").await.succeeded().expect("labeled");
    cluster.run("label node one tier-").await.succeeded();
    cluster.run("set image deployment/web web=nginx:10").await.succeeded().expect("image updated");
    cluster.run("rollout restart deployment/web").await.succeeded().expect("restarted");
    cluster.run("rollout history deployment/web").await.succeeded();
    cluster.run("rollout status deployment/web --timeout=1s").await.refused().expect("Waiting");
    cluster.run("describe nodepool general").await.succeeded().expect("Weight");
    cluster.run("describe node one").await.succeeded().expect("Non-terminated Pods");
    cluster.run("describe namespace default").await.succeeded().expect("Active");
    cluster.run("get all").await.succeeded().expect("deployment.apps/web");
    cluster.run("get nodes -o wide").await.succeeded().expect("KERNEL-VERSION");
    cluster.run("get nodepools,nodes,deployments -A -o name").await.succeeded().expect("node/one");
    cluster.run("explain ec2nodeclass.spec.kubelet").await.succeeded().expect("maxPods");
    cluster.run("explain pod --recursive").await.succeeded().expect("containers");
    cluster.run("api-versions").await.succeeded().expect("karpenter.k8s.aws/v1");
    cluster.run("top nodes").await.refused().expect("Metrics API not available");
    cluster
        .run("wait --for=jsonpath={.spec.weight}=30 nodepool/general --timeout=5s")
        .await
        .succeeded();
    cluster.run("delete nodepool,deployment --all").await.succeeded().expect("deleted");
    cluster.sandbox.shutdown().await;
}
