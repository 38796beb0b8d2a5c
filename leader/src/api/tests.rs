use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::{Router, routing};
use clap::Parser;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{Args, Config, RunError, run};

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

/// A Kubernetes API server of an empty cluster: every list is empty and every watch is silent.
async fn empty_cluster(request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    if request.uri().path() == "/version" {
        Json(json!({
            "major": "1", "minor": "34+", "gitVersion": "v1.34.0", "gitCommit": "", "platform": "",
            "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": ""
        }))
        .into_response()
    } else if query.contains("watch=") {
        let silent = futures::stream::pending::<Result<Bytes, std::convert::Infallible>>();
        Body::from_stream(silent).into_response()
    } else {
        let metadata = json!({ "resourceVersion": "1" });
        Json(json!({ "apiVersion": "v1", "kind": "List", "metadata": metadata, "items": [] }))
            .into_response()
    }
}

type Running = (CancellationToken, JoinHandle<Result<(), RunError>>);

struct Replicas {
    folder: TempDir,
    arguments: Vec<Vec<String>>,
    urls: Vec<String>,
    running: Vec<Option<Running>>,
    client: reqwest::Client,
}

impl Replicas {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let kubernetes = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", kubernetes.local_addr().unwrap());
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, kubeconfig_of(&server)).unwrap();
        let app = Router::new().fallback(routing::any(empty_cluster));
        tokio::spawn(axum::serve(kubernetes, app).into_future());

        let ports = free_ports(6);
        let peers: Vec<String> = (1..)
            .zip(ports.chunks(2))
            .map(|(id, pair)| format!("{id}=127.0.0.1:{}/{}", pair[0], pair[1]))
            .collect();
        let arguments = (1..).zip(ports.chunks(2)).map(|(id, pair)| {
            vec![
                "drover-leader".to_owned(),
                format!("--node-id={id}"),
                format!("--peers={}", peers.join(",")),
                "--raft-insecure".to_owned(),
                "--api-insecure".to_owned(),
                format!("--raft-listen=127.0.0.1:{}", pair[0]),
                format!("--api-listen=127.0.0.1:{}", pair[1]),
                format!("--data-dir={}", folder.path().join(id.to_string()).display()),
                format!("--kubeconfig={}", kubeconfig.display()),
                format!("--aws-endpoint-url={server}/aws"),
                "--aws-access-key-id=x".to_owned(),
                "--aws-secret-access-key=x".to_owned(),
                "--aws-region=us-east-1".to_owned(),
                "--cluster-name=test".to_owned(),
            ]
        });
        let mut replicas = Self {
            arguments: arguments.collect(),
            urls: ports.chunks(2).map(|pair| format!("http://127.0.0.1:{}", pair[1])).collect(),
            running: (0..3).map(|_| None).collect(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            folder,
        };
        for slot in 0..3 {
            replicas.start_replica(slot);
        }
        replicas
    }

    fn start_replica(&mut self, slot: usize) {
        let args = Command::try_parse_from(&self.arguments[slot]).unwrap().args;
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(Config::try_from(args).unwrap(), stop.clone()));
        self.running[slot] = Some((stop, task));
    }

    async fn stop_replica(&mut self, slot: usize) {
        let (stop, task) = self.running[slot].take().unwrap();
        stop.cancel();
        task.await.unwrap().unwrap();
    }

    async fn get(&self, slot: usize, path: &str) -> Option<(StatusCode, String)> {
        let url = format!("{}{path}", self.urls[slot]);
        let request = self.client.get(url).timeout(Duration::from_secs(5));
        let answer = request.send().await.ok()?;
        Some((answer.status(), answer.text().await.ok()?))
    }

    async fn status(&self, slot: usize) -> Option<Value> {
        serde_json::from_str(&self.get(slot, "/v1/status").await?.1).ok()
    }

    async fn leader(&self) -> usize {
        let begun = Instant::now();
        loop {
            for slot in (0..3).filter(|slot| self.running[*slot].is_some()) {
                if self.status(slot).await.is_some_and(|status| status["role"] == "leader") {
                    return slot;
                }
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "no leader");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks until every running replica knows a leader.
    async fn wait_ready(&self) {
        for slot in (0..3).filter(|slot| self.running[*slot].is_some()) {
            let begun = Instant::now();
            while self.get(slot, "/readyz").await.is_none_or(|(status, _)| status != 200) {
                assert!(begun.elapsed() < Duration::from_secs(20), "replica {slot} is not ready");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// An open question for directives; the status that it ends with.
    fn poll(&self, slot: usize) -> JoinHandle<Option<StatusCode>> {
        let url = format!("{}/agent/v1/directives?node=n-1&after=0", self.urls[slot]);
        let request = self.client.get(url);
        tokio::spawn(async { Some(request.send().await.ok()?.status()) })
    }

    async fn report(&self, slot: usize, report: &Value) -> (StatusCode, Value) {
        let url = format!("{}/agent/v1/reports", self.urls[slot]);
        let answer = self.client.post(url).json(report).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }
}

pub(super) fn kubeconfig_of(server: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{ "name": "test", "cluster": { "server": server } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        "users": [{ "name": "test", "user": { "token": "t" } }]
    })
    .to_string()
}

fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> =
        (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

fn report() -> Value {
    json!({
        "version": 1, "node": "n-1", "instance": "i-1", "boot": "b", "sequence": 1,
        "sent_at": "2026-01-01T00:00:00Z", "notices": [], "usage": null, "drain": null
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_replica_takes_agents_requests_and_answers_operators() {
    let replicas = Replicas::start().await;
    let leader = replicas.leader().await;
    replicas.wait_ready().await;
    let follower = (leader + 1) % 3;
    for slot in [leader, follower] {
        let (status, answer) = replicas.report(slot, &report()).await;
        assert_eq!((status, &answer["committed"]), (StatusCode::OK, &json!(true)), "{answer}");
        let (status, polled) =
            replicas.get(slot, "/agent/v1/directives?node=n-1&instance=i-1&after=7").await.unwrap();
        assert_eq!((status.as_u16(), polled.as_str()), (200, r#"{"sequence":0,"directives":[]}"#));
        assert_eq!(replicas.get(slot, "/healthz").await.unwrap().0, 200);
        // Whoever passes a poll on says how long it may take, and so may an agent.
        let url = format!("{}/agent/v1/directives?node=n-1&after=0", replicas.urls[slot]);
        let poll = replicas.client.get(url).header("drover-within-ms", "200");
        let answer = poll.timeout(Duration::from_secs(3)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    // What is new of pods is of no use to a leader that does not know the rest, and it says so.
    let mut news = report();
    news["sequence"] = json!(3);
    news["usage"] = json!({"interval_seconds": 10, "cpu_milli_mean": 1, "cpu_milli_max": 1,
        "memory_working_set": 1, "pressure_permille": null, "pods": []});
    news["usage_since"] = json!(2);
    assert_eq!(replicas.report(follower, &news).await.1["usage_unknown"], true);
    news["sequence"] = json!(4);
    news["usage_since"] = json!(null);
    assert_eq!(replicas.report(follower, &news).await.1.get("usage_unknown"), None);
    let mut old = report();
    old["version"] = json!(99);
    assert_eq!(replicas.report(follower, &old).await.0, 400);
    assert_eq!(replicas.report(follower, &json!({ "version": 1 })).await.0, 400);
    assert_eq!(replicas.get(leader, "/v1/decisions?limit=x").await.unwrap().0, 400);
    let (_, decisions) = replicas.get(follower, "/v1/decisions?limit=3").await.unwrap();
    assert!(decisions.contains(r#""decisions":["#), "{decisions}");
    assert_eq!(replicas.get(leader, "/v1/nodes").await.unwrap().1, r#"{"nodes":[]}"#);
    let (_, metrics) = replicas.get(leader, "/metrics").await.unwrap();
    for line in
        ["drover_raft_leading 1", "karpenter_scheduler_queue_depth 0", "drover_raft_voters 3"]
    {
        assert!(metrics.lines().any(|found| found == line), "{line}:\n{metrics}");
    }
    assert!(metrics.contains(r#"party="kubernetes""#), "{metrics}");
    assert!(replicas.folder.path().join("1/log.redb").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_stops_hands_over_first_and_comes_back() {
    let mut replicas = Replicas::start().await;
    let first = replicas.leader().await;
    replicas.wait_ready().await;
    let polls = [(first + 1) % 3, (first + 2) % 3].map(|slot| (slot, replicas.poll(slot)));
    sleep(Duration::from_millis(300)).await;
    replicas.stop_replica(first).await;
    let stopped = Instant::now();
    let second = replicas.leader().await;
    assert_ne!(first, second);
    assert!(stopped.elapsed() < Duration::from_millis(900), "{:?}", stopped.elapsed());
    replicas.start_replica(first);
    replicas.wait_ready().await;
    // What agents wait for at the other replicas outlives the leader.
    assert!(polls.iter().all(|(_, poll)| !poll.is_finished()));
    let other = (0..3).find(|slot| ![first, second].contains(slot)).unwrap();
    replicas.stop_replica(other).await;
    // Those at a replica that stops end with it.
    for (slot, poll) in polls {
        if slot == other {
            let ended = tokio::time::timeout(Duration::from_secs(2), poll).await;
            assert!(ended.is_ok(), "a poll goes on at a replica that has stopped");
        }
    }
    replicas.stop_replica(replicas.leader().await).await;
    // One of three can't lead, and says so.
    let (last, _) = replicas.running.iter().enumerate().find(|(_, it)| it.is_some()).unwrap();
    let begun = Instant::now();
    loop {
        let (status, answer) = replicas.report(last, &report()).await;
        if status == 503 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{status} {answer}");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(replicas.get(last, "/healthz").await.unwrap().0, 200);
    // Without a leader in sight it ends.
    let poll = replicas.poll(last).await.unwrap();
    assert_eq!(poll, Some(StatusCode::SERVICE_UNAVAILABLE));
}
