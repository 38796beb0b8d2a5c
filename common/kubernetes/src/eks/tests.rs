use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::{connect_as, connect_kubelet};

fn exec(text: &str) -> Option<EksCluster> {
    cluster_of(&serde_json::from_str(text).unwrap())
}

fn cluster(name: &str, region: Option<&str>) -> Option<EksCluster> {
    Some(EksCluster { name: name.to_owned(), region: region.map(str::to_owned) })
}

#[test]
fn plugins_of_kubelets_are_known() {
    let kubelet = r#"{"command": "/usr/bin/aws-iam-authenticator",
        "args": ["token", "-i", "one", "--region", "eu-west-1"]}"#;
    assert_eq!(exec(kubelet), cluster("one", Some("eu-west-1")));
    let cli = r#"{"command": "aws", "args": ["--region", "cn-north-1", "eks", "get-token",
        "--cluster-name=two", "--output", "json"], "env": [{"name": "AWS_REGION", "value": "x"}]}"#;
    assert_eq!(exec(cli), cluster("two", Some("cn-north-1")));
    let plain = r#"{"command": "aws", "args": ["eks", "get-token", "--cluster-id", "three"],
        "env": [{"name": "AWS_STS_REGIONAL_ENDPOINTS", "value": "regional"},
                {"name": "AWS_DEFAULT_REGION", "value": ""},
                {"name": "AWS_REGION", "value": "us-east-1"}]}"#;
    assert_eq!(exec(plain), cluster("three", Some("us-east-1")));
}

#[test]
fn plugins_that_sign_as_somebody_else_are_left_alone() {
    for other in [
        r#"{"command": "gke-gcloud-auth-plugin", "args": ["token", "-i", "one"]}"#,
        r#"{"command": "aws", "args": ["eks", "get-token", "--cluster-name", "a", "--role-arn", "arn:b"]}"#,
        r#"{"command": "aws", "args": ["--profile", "b", "eks", "get-token", "--cluster-name", "a"]}"#,
        r#"{"command": "aws", "args": ["eks", "get-token", "--cluster-name", "a"],
            "env": [{"name": "AWS_PROFILE", "value": "b"}]}"#,
        r#"{"command": "aws-iam-authenticator", "args": ["token", "-i", "a", "-r", "arn:b"]}"#,
        r#"{"command": "aws-iam-authenticator", "args": ["token", "-i"]}"#,
        r#"{"command": "aws-iam-authenticator", "args": ["token"]}"#,
        r#"{"command": "aws", "args": ["sts", "get-caller-identity", "--cluster-name", "a"]}"#,
        r#"{"command": "aws"}"#,
        "{}",
    ] {
        assert_eq!(exec(other), None, "{other}");
    }
}

#[test]
fn a_kubelets_kubeconfig_that_is_half_written_is_nobodys_yet() {
    let whole = "apiVersion: v1\nkind: Config\nclusters:\n- name: kubernetes\n  cluster:\n    server: https://eks.example\n\
        contexts:\n- name: kubelet\n  context:\n    cluster: kubernetes\n    user: kubelet\n\
        current-context: kubelet\nusers:\n- name: kubelet\n  user:\n    exec:\n      \
        apiVersion: client.authentication.k8s.io/v1beta1\n      command: /usr/bin/aws-iam-authenticator\n      \
        args:\n      - token\n      - -i\n      - one\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    assert!(matches!(is_of_eks(&path), Ok(false)), "there is none");
    assert!(matches!(is_of_eks(folder.path()), Ok(false)), "a mount made it");
    for end in 0..=whole.len() {
        std::fs::write(&path, &whole[..end]).unwrap();
        match is_of_eks(&path) {
            // A part of the cluster's name may be all of it.
            Ok(true) => assert!(whole[..end].contains("- -i\n      - o"), "{}", &whole[..end]),
            Ok(false) => panic!("it is taken for somebody else's: {}", &whole[..end]),
            Err(_) => {}
        }
    }
    assert!(matches!(is_of_eks(&path), Ok(true)));
}

/// Signs what it is asked for, with a number; at first nothing.
#[derive(Debug, Default)]
struct Counting(AtomicU32);

impl SignEksToken for Counting {
    fn token<'a>(&'a self, cluster: &'a EksCluster) -> TokenFuture<'a> {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            match count {
                0 => Err("no credentials yet".to_owned()),
                count => Ok(format!("{}-{count}", cluster.name)),
            }
        })
    }
}

/// A server that tells which `authorization` each request had, and as whom it was to act.
async fn serve() -> (String, mpsc::UnboundedReceiver<String>) {
    let (told, heard) = mpsc::unbounded_channel();
    let tell = async |State(told): State<mpsc::UnboundedSender<String>>, headers: HeaderMap| {
        let shown = headers.get("authorization").and_then(|value| value.to_str().ok());
        let acts_as = headers.get("impersonate-user").and_then(|value| value.to_str().ok());
        let acts_as = acts_as.map(|user| format!(" as {user}")).unwrap_or_default();
        told.send(format!("{}{acts_as}", shown.unwrap_or_default())).unwrap();
        "{}"
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(tell).with_state(told);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, heard)
}

async fn get(client: &Client) -> Result<String, kube::Error> {
    client.request_text(Request::get("/").body(Vec::new()).unwrap()).await
}

#[tokio::test]
async fn each_request_shows_a_token_and_the_plugin_is_not_run() {
    let (url, mut heard) = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let write = |user: serde_json::Value| {
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": user}],
        });
        std::fs::write(&kubeconfig, text.to_string()).unwrap();
    };
    write(serde_json::json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "/no/such/aws-iam-authenticator", "args": ["token", "-i", "one"],
    }, "as": "limited"}));
    let mut identity = EksIdentity { signer: Arc::new(Counting::default()), cluster: None };
    let client = connect_as(Some(&kubeconfig), None, Some(&identity)).await.unwrap();
    let refused = crate::execute::with_sources(&get(&client).await.unwrap_err());
    assert!(refused.contains("no credentials yet"), "{refused}");
    for expected in ["Bearer one-1 as limited", "Bearer one-2 as limited"] {
        get(&client).await.unwrap();
        assert_eq!(heard.recv().await.unwrap(), expected);
    }
    let trust = crate::KubeletTrust::Unverified;
    let kubelet = url.parse().unwrap();
    let kubelet = connect_kubelet(Some(&kubeconfig), None, &kubelet, &trust, Some(&identity));
    get(&kubelet.await.unwrap()).await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), "Bearer one-3 as limited");
    // Others' credentials are theirs, unless a cluster is named.
    write(serde_json::json!({"token": "own"}));
    let client = connect_as(Some(&kubeconfig), None, Some(&identity)).await.unwrap();
    get(&client).await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), "Bearer own");
    identity.cluster = cluster("named", None);
    let client = connect_as(Some(&kubeconfig), None, Some(&identity)).await.unwrap();
    get(&client).await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), "Bearer named-4");
}
