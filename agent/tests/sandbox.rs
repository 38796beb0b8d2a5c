//! Agents on the machines of a simulated cloud, without any leader.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Parser;
use drover_agent_core::eks::{Credentials, EksToken};
use drover_common::call::{Call, Outcome};
use drover_common::ec2::{
    Ec2Answer, Ec2Call, FleetOverride, FleetRequest, LaunchTemplateRequest, MetadataOptions, Tags,
};
use drover_common::id::InstanceId;
use drover_common::instance_type::CapacityType;
use drover_common::protocol::{Report, UsageSource};
use drover_kubernetes::Client;
use drover_sandbox::{Options, Sandbox};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const NODES: u32 = 4;
const PODS: usize = 12;
const ROLE: &str = "node-role";
const USER_DATA: &str = "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec: {}\n";

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: drover_agent::Args,
}

struct Herd {
    sandbox: Sandbox,
    client: Client,
    shutdown: CancellationToken,
    folder: tempfile::TempDir,
}

impl Herd {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hosts = Some(folder.path().join("hosts"));
        let mut options = Options { hosts, ..Options::default() };
        options.world.speed = 20.0;
        let sandbox = Sandbox::start(options).await.unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, sandbox.kubeconfig()).unwrap();
        let client = drover_kubernetes::connect(Some(&kubeconfig), None).await.unwrap();
        Self { sandbox, client, shutdown: CancellationToken::new(), folder }
    }

    fn ec2(&self, call: Ec2Call) -> Ec2Answer {
        match self.sandbox.world().with(|world, now| world.apply(&Call::Ec2(call), now)) {
            Outcome::Ec2(Ok(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn launch(&self) -> Vec<InstanceId> {
        let path = "/aws/service/eks/optimized-ami/1.34/amazon-linux-2023/x86_64/standard/recommended/image_id";
        let Ec2Answer::Parameter(image) = self.ec2(Ec2Call::GetParameter(path.to_owned())) else {
            panic!("no image")
        };
        let text = str::to_owned;
        self.ec2(Ec2Call::CreateLaunchTemplate(LaunchTemplateRequest {
            name: text("template"),
            image,
            security_groups: Vec::new(),
            instance_profile: Some(text(ROLE)),
            user_data: text(USER_DATA),
            block_devices: Vec::new(),
            metadata_options: MetadataOptions {
                http_endpoint: text("enabled"),
                http_protocol_ipv6: text("disabled"),
                http_put_response_hop_limit: 1,
                http_tokens: text("required"),
            },
            detailed_monitoring: false,
            associate_public_ip: None,
            reservation: None,
            tags: Tags::new(),
        }));
        let Ec2Answer::Subnets(subnets) = self.ec2(Ec2Call::DescribeSubnets(Vec::new())) else {
            panic!("no subnets")
        };
        let place = |instance_type: &str| FleetOverride {
            instance_type: text(instance_type),
            subnet: subnets[0].id.clone(),
            zone: subnets[0].zone.clone(),
            image: None,
        };
        let answer = self.ec2(Ec2Call::CreateFleet(FleetRequest {
            client_token: text("token"),
            launch_template: text("template"),
            overrides: vec![place("m5.large"), place("m5.xlarge"), place("c5.xlarge")],
            capacity_type: CapacityType::Spot,
            capacity_block: false,
            count: NODES,
            tags: Tags::new(),
            context: None,
        }));
        let Ec2Answer::Fleet(fleet) = answer else { panic!("no fleet") };
        fleet.instances.into_iter().map(|launched| launched.instance).collect()
    }

    async fn post(&self, path: &str, object: Value) {
        let request = axum::http::Request::post(path)
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .unwrap();
        self.client.request_text(request).await.unwrap();
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        let request = axum::http::Request::get(path).body(Vec::new()).unwrap();
        let list: Value = self.client.request(request).await.unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    async fn node_of(&self, instance: &InstanceId) -> String {
        let nodes = self.list("/api/v1/nodes").await;
        let node = nodes.iter().find(|node| {
            node["spec"]["providerID"].as_str().is_some_and(|id| id.ends_with(instance.as_str()))
        });
        node.unwrap()["metadata"]["name"].as_str().unwrap().to_owned()
    }

    async fn pods_on(&self, node: &str) -> usize {
        let pods = self.list("/api/v1/pods").await;
        let on_node = |pod: &&Value| {
            pod["spec"]["nodeName"] == node && pod["metadata"].get("deletionTimestamp").is_none()
        };
        pods.iter().filter(on_node).count()
    }

    fn config(&self, instance: &InstanceId, node: &str, more: &[&str]) -> drover_agent::Config {
        let path = |name: &Path| self.folder.path().join(name).display().to_string();
        let imds = format!("{}/{instance}", self.sandbox.endpoints().imds);
        let host = path(&Path::new("hosts").join(instance.as_str()));
        let state = path(&Path::new("state").join(instance.as_str()));
        let kubeconfig = path(Path::new("kubeconfig"));
        let flags = [
            "drover-agent",
            "--node-name",
            node,
            "--imds-endpoint",
            &imds,
            "--host-root",
            &host,
            "--state-dir",
            &state,
            "--kubeconfig",
            &kubeconfig,
        ];
        let flags = flags.iter().chain(more);
        drover_agent::Config::try_from(Command::parse_from(flags).args).unwrap()
    }

    fn start_agent(&self, instance: &InstanceId, node: &str) {
        tokio::spawn(drover_agent::run(self.config(instance, node, &[]), self.shutdown.clone()));
    }
}

/// Waits until the check holds; returns how long it took.
async fn until(what: &str, seconds: u64, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(seconds), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

fn deployment() -> Value {
    let labels = json!({"app": "web"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": PODS,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 2,
                    "containers": [{"name": "web", "image": "web",
                        "resources": {"requests": {"cpu": "200m", "memory": "128Mi"}}}],
                },
            },
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spot_notice_empties_its_node_and_no_other() {
    let herd = Herd::start().await;
    let instances = herd.launch();
    herd.post("/apis/apps/v1/namespaces/default/deployments", deployment()).await;
    until("all nodes join", 30, async || herd.list("/api/v1/nodes").await.len() == instances.len())
        .await;
    let nodes = herd.list("/api/v1/nodes").await;
    let name_of = |instance: &InstanceId| {
        let node = nodes.iter().find(|node| {
            node["spec"]["providerID"].as_str().is_some_and(|id| id.ends_with(instance.as_str()))
        });
        node.unwrap()["metadata"]["name"].as_str().unwrap().to_owned()
    };
    for instance in &instances {
        herd.start_agent(instance, &name_of(instance));
    }
    until("all pods are bound", 30, async || {
        let pods = herd.list("/api/v1/pods").await;
        pods.len() == PODS && pods.iter().all(|pod| pod["spec"]["nodeName"].is_string())
    })
    .await;
    let mut victim = (InstanceId::default(), String::new(), 0);
    for instance in &instances {
        let node = name_of(instance);
        let pods = herd.pods_on(&node).await;
        if pods > victim.2 {
            victim = (instance.clone(), node, pods);
        }
    }
    let (instance, node, pods) = victim;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let lead = jiff::SignedDuration::from_secs(110);
    herd.sandbox
        .world()
        .with(|world, now| world.cloud.interrupt(&instance, now, lead))
        .expect("the instance is a spot instance");
    let path = format!("/api/v1/nodes?fieldSelector=metadata.name%3D{node}");
    let cordoned = until("the node is cordoned", 5, async || {
        herd.list(&path).await.iter().any(|node| node["spec"]["unschedulable"] == true)
    })
    .await;
    assert!(cordoned < Duration::from_millis(1_500), "cordoned after {cordoned:?}");
    until("the pods leave", 10, async || herd.pods_on(&node).await == 0).await;
    let elsewhere = herd.list("/api/v1/nodes").await;
    let cordoned = elsewhere.iter().filter(|node| node["spec"]["unschedulable"] == true).count();
    assert_eq!(cordoned, 1, "the other agents left their nodes alone ({pods} pods moved)");
    herd.shutdown.cancel();
}

/// Reports as a leader hears them.
async fn listen() -> (String, Arc<Mutex<Vec<Report>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    let take = async move |axum::Json(report): axum::Json<Report>| {
        kept.lock().unwrap().push(report);
        axum::Json(json!({"committed": true, "directives": []}))
    };
    let router = axum::Router::new().route("/agent/v1/reports", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_tells_what_the_kernel_does_not() {
    let herd = Herd::start().await;
    herd.launch();
    herd.post("/apis/apps/v1/namespaces/default/deployments", deployment()).await;
    until("all pods run", 30, async || {
        let pods = herd.list("/api/v1/pods").await;
        pods.len() == PODS && pods.iter().all(|pod| pod["status"]["phase"] == "Running")
    })
    .await;
    let nodes = herd.list("/api/v1/nodes").await;
    let mut node = String::new();
    for candidate in &nodes {
        let name = candidate["metadata"]["name"].as_str().unwrap();
        if herd.pods_on(name).await > 0 {
            name.clone_into(&mut node);
        }
    }
    let id = nodes.iter().find(|found| found["metadata"]["name"] == *node).unwrap()["spec"]
        ["providerID"]
        .as_str()
        .and_then(|id| id.rsplit('/').next())
        .unwrap()
        .to_owned();
    let (leader, heard) = listen().await;
    let kubelet = format!("{}/{node}", herd.sandbox.endpoints().kubelet);
    let mut config = herd.config(
        &InstanceId::from(id.as_str()),
        &node,
        &["--leaders", &leader, "--kubelet-insecure", "--kubelet-url", &kubelet],
    );
    // Neither /proc nor control groups are there.
    config.host_root = herd.folder.path().join("nothing");
    config.report_interval = Duration::from_secs(1);
    config.kubelet_interval = Duration::from_secs(1);
    let agent = tokio::spawn(drover_agent::run(config, herd.shutdown.clone()));
    until("the kubelet's word is reported", 30, async || {
        let reports = heard.lock().unwrap();
        reports.iter().any(|report| {
            report.usage.as_ref().is_some_and(|usage| {
                usage.source == UsageSource::Kubelet && usage.cpu_milli_mean > 0
            })
        })
    })
    .await;
    let pods = herd.list("/api/v1/pods").await;
    let uids: Vec<&str> = pods
        .iter()
        .filter(|pod| pod["spec"]["nodeName"] == *node)
        .map(|pod| pod["metadata"]["uid"].as_str().unwrap())
        .collect();
    let told = heard.lock().unwrap().iter().find_map(|report| {
        report.usage.clone().filter(|usage| usage.source == UsageSource::Kubelet)
    });
    let mut told = told.unwrap();
    told.pods.sort_by(|one, other| one.uid.cmp(&other.uid));
    let mut expected = uids.clone();
    expected.sort_unstable();
    let named: Vec<&str> = told.pods.iter().map(|pod| pod.uid.as_str()).collect();
    assert_eq!(named, expected);
    for pod in &told.pods {
        // Half of 200m, swaying by a tenth; half of 128 MiB.
        assert!((85..=115).contains(&pod.cpu_milli_mean), "{pod:?}");
        assert_eq!(pod.memory_working_set, 64 << 20);
    }
    assert!(told.cpu_milli_mean >= 85 * told.pods.len() as u64, "{told:?}");
    herd.shutdown.cancel();
    agent.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_use_is_reported_by_name() {
    let herd = Herd::start().await;
    herd.launch();
    let mut two = deployment();
    two["spec"]["template"]["spec"]["containers"] = json!([
        {"name": "web", "image": "web", "resources": {"requests": {"cpu": "300m", "memory": "96Mi"}}},
        {"name": "log", "image": "log", "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}}},
    ]);
    two["spec"]["replicas"] = json!(4);
    herd.post("/apis/apps/v1/namespaces/default/deployments", two).await;
    let mut pods = Vec::new();
    until("all pods run", 30, async || {
        pods = herd.list("/api/v1/pods").await;
        pods.len() == 4 && pods.iter().all(|pod| pod["status"]["phase"] == "Running")
    })
    .await;
    let node = pods[0]["spec"]["nodeName"].as_str().unwrap();
    let nodes = herd.list("/api/v1/nodes").await;
    let found = nodes.iter().find(|found| found["metadata"]["name"] == node).unwrap();
    let id = found["spec"]["providerID"].as_str().and_then(|id| id.rsplit('/').next()).unwrap();
    let (leader, heard) = listen().await;
    let mut config = herd.config(&InstanceId::from(id), node, &["--leaders", &leader]);
    config.report_interval = Duration::from_secs(2);
    let agent = tokio::spawn(drover_agent::run(config, herd.shutdown.clone()));
    let uid = pods[0]["metadata"]["uid"].as_str().unwrap();
    let mut told = None;
    until("containers are reported", 60, async || {
        let reports = heard.lock().unwrap();
        let usage = reports.iter().rev().filter_map(|report| report.usage.as_ref());
        let pod = usage.flat_map(|usage| &usage.pods).find(|pod| pod.uid == uid);
        told = pod.filter(|pod| pod.memory_peak.is_some() && pod.containers.len() == 2).cloned();
        told.is_some()
    })
    .await;
    let pod = told.unwrap();
    let by_name = |name: &str| pod.containers.iter().find(|one| one.name == name).unwrap();
    let (web, log) = (by_name("web"), by_name("log"));
    // Half of what they request, give or take what moments of writing and reading blur.
    assert!((90..=220).contains(&web.cpu_milli_mean), "{pod:?}");
    assert!((30..=75).contains(&log.cpu_milli_mean), "{pod:?}");
    assert!(web.memory_working_set.abs_diff(48 << 20) < 1 << 20, "{pod:?}");
    assert!(log.memory_working_set.abs_diff(16 << 20) < 1 << 20, "{pod:?}");
    assert!(pod.disk_bytes_per_second.is_some_and(|rates| rates.iter().all(|rate| *rate > 0)));
    herd.shutdown.cancel();
    agent.await.unwrap().unwrap();
}

/// The credentials of an instance's role, as its metadata service tells them.
async fn credentials(herd: &Herd, instance: &InstanceId) -> Credentials {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let base = format!("{}/{instance}/latest", herd.sandbox.endpoints().imds);
    let request = http.put(format!("{base}/api/token"));
    let request = request.header("X-aws-ec2-metadata-token-ttl-seconds", "60");
    let session = request.send().await.unwrap().text().await.unwrap();
    let read = async |path: &str| {
        let request = http.get(format!("{base}/meta-data/iam/security-credentials/{path}"));
        let request = request.header("X-aws-ec2-metadata-token", &session);
        request.send().await.unwrap().text().await.unwrap()
    };
    assert_eq!(read("").await, ROLE);
    drover_agent_core::eks::credentials(&read(ROLE).await).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eks_token_is_its_instances_node_while_all_of_it_is_right() {
    let herd = Herd::start().await;
    let instance = herd.launch().remove(0);
    until("the nodes join", 30, async || herd.list("/api/v1/nodes").await.len() == NODES as usize)
        .await;
    let node = herd.node_of(&instance).await;
    let good = credentials(&herd, &instance).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let server = &herd.sandbox.endpoints().kubernetes;
    let get = async |token: &str, node: &str| {
        let request = http.get(format!("{server}/api/v1/nodes/{node}")).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    };
    let now = Timestamp::now();
    let token = EksToken::sign("sandbox", "us-east-1", &good, now).text().to_owned();
    assert_eq!(get(&token, &node).await, 200);
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token},
    });
    let url = format!("{server}/apis/authentication.k8s.io/v1/tokenreviews");
    let reviewed: Value = http.post(url).json(&review).send().await.unwrap().json().await.unwrap();
    let user = &reviewed["status"]["user"];
    assert_eq!(user["username"], format!("system:node:{node}"));
    assert!(user["groups"].as_array().unwrap().contains(&json!("system:nodes")), "{user}");

    let sign = |cluster, region, credentials: &Credentials, minutes| {
        let at = now + SignedDuration::from_mins(minutes);
        EksToken::sign(cluster, region, credentials, at).text().to_owned()
    };
    assert_eq!(get(&sign("sandbox", "us-east-1", &good, -14), &node).await, 200);
    let with = |key: &str, secret: &str, session: &str| Credentials {
        access_key_id: key.to_owned(),
        secret_access_key: secret.to_owned(),
        token: session.to_owned(),
        expires: good.expires,
    };
    let (key, secret, session) = (&good.access_key_id, &good.secret_access_key, &good.token);
    let altered = |from: &str, to: &str| {
        let url = URL_SAFE_NO_PAD.decode(token.trim_start_matches("k8s-aws-v1.")).unwrap();
        let url = String::from_utf8(url).unwrap();
        assert!(url.contains(from), "{url}");
        format!("k8s-aws-v1.{}", URL_SAFE_NO_PAD.encode(url.replace(from, to)))
    };
    for (what, wrong) in [
        ("too old", sign("sandbox", "us-east-1", &good, -16)),
        ("not yet", sign("sandbox", "us-east-1", &good, 10)),
        ("another cluster", sign("other", "us-east-1", &good, 0)),
        ("another region", sign("sandbox", "eu-west-1", &good, 0)),
        ("another secret", sign("sandbox", "us-east-1", &with(key, "s", session), 0)),
        ("another session", sign("sandbox", "us-east-1", &with(key, secret, "t"), 0)),
        ("nobody's key", sign("sandbox", "us-east-1", &with("ASIA", secret, session), 0)),
        ("longer", altered("Expires=60", "Expires=61")),
        ("unsigned cluster", altered("host%3Bx-k8s-aws-id", "host")),
        ("another question", altered("GetCallerIdentity", "AssumeRole")),
        ("not STS", altered("sts.us-east-1.amazonaws.com", "sts.example.com")),
        ("padded", format!("{token}=")),
        ("empty", "k8s-aws-v1.".to_owned()),
    ] {
        assert_eq!(get(&wrong, &node).await, 401, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_a_kubelets_kubeconfig_signs_for_itself() {
    let herd = Herd::start().await;
    let instances = herd.launch();
    until("the nodes join", 30, async || herd.list("/api/v1/nodes").await.len() == NODES as usize)
        .await;
    // As EKS' images write it; there is no such program here.
    let kubeconfig = herd.folder.path().join("kubelet");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "kubelet",
        "clusters": [{"name": "kubernetes",
            "cluster": {"server": herd.sandbox.endpoints().kubernetes}}],
        "contexts": [{"name": "kubelet", "context": {"cluster": "kubernetes", "user": "kubelet"}}],
        "users": [{"name": "kubelet", "user": {"exec": {
            "apiVersion": "client.authentication.k8s.io/v1beta1",
            "command": "/no/such/aws",
            "args": ["eks", "get-token", "--cluster-name", "sandbox", "--region", "us-east-1"],
        }}}],
    });
    std::fs::write(&kubeconfig, text.to_string()).unwrap();
    let [own, other] = [&instances[0], &instances[1]];
    let node = herd.node_of(own).await;
    let mut config = herd.config(own, &node, &[]);
    config.kubeconfig = Some(kubeconfig);
    tokio::spawn(drover_agent::run(config, herd.shutdown.clone()));
    herd.sandbox
        .world()
        .with(|world, now| world.cloud.interrupt(own, now, SignedDuration::from_secs(110)))
        .expect("the instance is a spot instance");
    let cordoned = async || -> Vec<String> {
        let nodes = herd.list("/api/v1/nodes").await;
        let cordoned = nodes.iter().filter(|node| node["spec"]["unschedulable"] == true);
        cordoned.map(|node| node["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    until("its node is cordoned", 10, async || cordoned().await == [node.clone()]).await;

    // Another Node it may not touch: the token is that of its instance, whatever it is told.
    let token =
        EksToken::sign("sandbox", "us-east-1", &credentials(&herd, own).await, Timestamp::now());
    let other = herd.node_of(other).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/api/v1/nodes/{other}", herd.sandbox.endpoints().kubernetes);
    let patch =
        http.patch(url).bearer_auth(token.text()).body(r#"{"spec":{"unschedulable":true}}"#);
    let patch = patch.header("content-type", "application/merge-patch+json");
    assert_eq!(patch.send().await.unwrap().status(), 403);
    herd.shutdown.cancel();
}
