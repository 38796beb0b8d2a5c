//! Tokens that are signed with the role of an instance, as EKS takes them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use drover_agent_core::eks::{Credentials, EksToken};
use drover_common::id::InstanceId;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::herd::{Herd, NODES, ROLE, until};

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
    // There are no leaders, and a node may make events.
    until("its notice is told", 20, async || {
        let events = herd.list("/api/v1/namespaces/default/events").await;
        events.iter().any(|event| {
            event["reason"] == "SpotInterrupted"
                && event["involvedObject"]["name"] == node.as_str()
                && event["reportingComponent"] == "drover-agent"
        })
    })
    .await;

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
