//! The scripted world of the tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Extracted};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use drover_kubernetes::KubeletTrust;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{Config, GpuChoice, SourceChoice, run};

pub(super) struct State {
    pub(super) node: Value,
    pods: BTreeMap<String, Value>,
    version: u64,
    pub(super) evicted: Vec<String>,
    /// A budget that lets nobody go, and how often it was asked.
    pub(super) budget_blocks: bool,
    pub(super) refused: u32,
    /// Pods that were deleted past a budget.
    pub(super) deleted: Vec<String>,
    pub(super) watches: u32,
    pub(super) api_down: bool,
    pub(super) imds_down: bool,
    pub(super) notice: Option<String>,
    pub(super) reports: Vec<Value>,
    pub(super) directives: Value,
}

#[derive(Clone)]
pub(super) struct World {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<(&'static str, String)>,
    url: String,
    started: Instant,
    folder: Arc<tempfile::TempDir>,
}

pub(super) struct RunningAgent {
    shutdown: CancellationToken,
    handle: tokio::task::JoinHandle<Result<(), crate::RunError>>,
}

impl RunningAgent {
    /// Asks it to stop, as SIGTERM does.
    pub(super) fn ask_to_stop(&self) {
        self.shutdown.cancel();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.handle.is_finished()
    }

    /// Waits until it has ended by itself.
    pub(super) async fn ended(self, patience: Duration) {
        let ended = tokio::time::timeout(patience, self.handle).await;
        ended.expect("ends in time").expect("did not panic").expect("ended well");
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(3), self.handle).await;
        ended.expect("stops at once").expect("did not panic").expect("ended well");
    }
}

impl World {
    pub(super) async fn new(pods: &[&str]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let pod = |name: &&str| {
            let pod = json!({
                "metadata": {"name": name, "namespace": "d", "uid": format!("u-{name}"),
                    "resourceVersion": "1"},
                "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5},
            });
            ((*name).to_owned(), pod)
        };
        let state = State {
            node: json!({
                "metadata": {"name": "n", "uid": "u-n", "resourceVersion": "1", "labels": {},
                    "annotations": {}},
                "spec": {"providerID": "aws:///us-east-1a/i-0abc"},
            }),
            pods: pods.iter().map(pod).collect(),
            version: 1,
            evicted: Vec::new(),
            budget_blocks: false,
            refused: 0,
            deleted: Vec::new(),
            watches: 0,
            api_down: false,
            imds_down: false,
            notice: None,
            reports: Vec::new(),
            directives: json!([]),
        };
        let world = Self {
            state: Arc::new(Mutex::new(state)),
            changes: broadcast::channel(100).0,
            url,
            started: Instant::now(),
            folder: Arc::new(tempfile::tempdir().unwrap()),
        };
        let router = world.router();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        world
    }

    /// All that it answers.
    pub(super) fn router(&self) -> Router {
        Router::new().fallback(serve).with_state(self.clone())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The `/` of the agent's machine.
    pub(super) fn host(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    pub(super) fn announce(&self, action: &str, seconds: i64) {
        let time = Timestamp::now().checked_add(SignedDuration::from_secs(seconds)).unwrap();
        self.state().notice = Some(json!({"action": action, "time": time.to_string()}).to_string());
    }

    /// Waits for a condition; returns how long it took.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&State) -> bool) -> Duration {
        let began = Instant::now();
        while !holds(&self.state()) {
            assert!(began.elapsed() < Duration::from_secs(20), "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    }

    /// Has every pod run, as the API server tells it.
    pub(super) fn run_pods(&self) {
        for pod in self.state().pods.values_mut() {
            pod["status"] = json!({"phase": "Running"});
        }
    }

    pub(super) async fn start_agent(&self, leaders: &str) -> RunningAgent {
        self.start_agent_with(self.config(leaders))
    }

    pub(super) fn config(&self, leaders: &str) -> Config {
        let kubeconfig = self.folder.path().join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        });
        std::fs::write(&kubeconfig, text.to_string()).unwrap();
        let host = self.host();
        write_host(&host);
        Config {
            node: "n".into(),
            kubeconfig: Some(kubeconfig),
            context: None,
            identity: crate::IdentityChoice::Auto,
            eks_cluster: None,
            imds: format!("{}/imds", self.url),
            leaders: leaders.split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect(),
            leaders_ca: None,
            token_file: None,
            host_root: host,
            state_dir: self.folder(),
            imds_interval: Duration::from_millis(250),
            sample_interval: Duration::from_millis(500),
            report_interval: Duration::from_secs(2),
            usage_source: SourceChoice::Auto,
            kubelet_url: None,
            kubelet_trust: KubeletTrust::Cluster,
            kubelet_interval: Duration::from_secs(15),
            gpu_metrics: GpuChoice::Off,
            metrics_address: None,
            cordon_on_problem: false,
            may_power_off: true,
            stop_grace: Duration::ZERO,
        }
    }

    pub(super) fn start_agent_with(&self, config: Config) -> RunningAgent {
        let shutdown = CancellationToken::new();
        let handle = tokio::spawn(run(config, shutdown.clone()));
        RunningAgent { shutdown, handle }
    }

    pub(super) fn change_node(&self, patch: Value) -> Value {
        let mut state = self.state();
        state.version += 1;
        let version = state.version.to_string();
        merge(&mut state.node, patch);
        state.node["metadata"]["resourceVersion"] = json!(version);
        let node = state.node.clone();
        self.emit("nodes", "MODIFIED", &node);
        node
    }

    fn emit(&self, plural: &'static str, kind: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        let _nobody_watches = self.changes.send((plural, line));
    }

    fn evict(&self, name: &str) -> Response {
        let mut state = self.state();
        if state.budget_blocks {
            state.refused += 1;
            let causes = json!([{"reason": "DisruptionBudget", "message": "nobody may go"}]);
            let status = json!({"kind": "Status", "status": "Failure", "code": 429,
                "reason": "TooManyRequests", "details": {"causes": causes}});
            return (StatusCode::TOO_MANY_REQUESTS, axum::Json(status)).into_response();
        }
        let Some(pod) = state.pods.remove(name) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        state.evicted.push(name.to_owned());
        self.emit("pods", "DELETED", &pod);
        axum::Json(json!({"kind": "Status", "status": "Success"})).into_response()
    }

    fn list(&self, plural: &'static str) -> Response {
        let state = self.state();
        let items: Vec<&Value> =
            if plural == "nodes" { vec![&state.node] } else { state.pods.values().collect() };
        let version = state.version.to_string();
        axum::Json(json!({"metadata": {"resourceVersion": version}, "items": items}))
            .into_response()
    }

    fn watch(&self, plural: &'static str) -> Response {
        self.state().watches += 1;
        let changes = self.changes.subscribe();
        let lines = futures::stream::unfold(changes, move |mut changes| async move {
            loop {
                let (of, line) = changes.recv().await.ok()?;
                if of == plural {
                    return Some((Ok::<_, std::io::Error>(line), changes));
                }
            }
        });
        Body::from_stream(lines).into_response()
    }

    fn kubernetes(&self, method: &Method, path: &str, query: &str, body: &Bytes) -> Response {
        if self.state().api_down {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let plural = if path.contains("/pods") { "pods" } else { "nodes" };
        let last = path.rsplit('/').next().unwrap_or_default();
        match (method.as_str(), last) {
            ("GET", "pods" | "nodes") if query.contains("watch=true") => self.watch(plural),
            ("GET", "pods" | "nodes") => self.list(plural),
            ("GET", "n") => axum::Json(self.state().node.clone()).into_response(),
            ("PATCH", "n") => {
                axum::Json(self.change_node(serde_json::from_slice(body).unwrap())).into_response()
            }
            ("POST", "eviction") => {
                let name = path.rsplit('/').nth(1).unwrap_or_default();
                self.evict(name)
            }
            ("DELETE", name) => {
                self.state().deleted.push(name.to_owned());
                StatusCode::NOT_FOUND.into_response()
            }
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    }

    /// A kubelet, and an exporter of GPU metrics: web-0 has the one GPU.
    fn metrics(&self, of: &str) -> Response {
        let web = r#"namespace="d",pod="web-0""#;
        match of {
            "resource" => {
                let seconds = self.started.elapsed().as_secs_f64();
                format!(
                    "node_cpu_usage_seconds_total {}\nnode_memory_working_set_bytes 5e9\n\
                     pod_cpu_usage_seconds_total{{{web}}} {}\n\
                     pod_memory_working_set_bytes{{{web}}} 1e9\n",
                    seconds * 3.0,
                    seconds
                )
                .into_response()
            }
            "gpu" => format!(
                "DCGM_FI_DEV_GPU_UTIL{{gpu=\"0\",{web}}} 75\nDCGM_FI_DEV_FB_USED{{gpu=\"0\",{web}}} 10\n"
            )
            .into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    }

    fn imds(&self, path: &str) -> Response {
        if self.state().imds_down {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let notice = self.state().notice.clone();
        match (path.strip_prefix("/imds/latest").unwrap_or_default(), notice) {
            ("/api/token", _) => "token".into_response(),
            ("/meta-data/instance-id", _) => "i-0abc".into_response(),
            ("/meta-data/spot/instance-action", Some(notice)) => notice.into_response(),
            ("/meta-data/events/maintenance/scheduled", _) => "[]".into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

async fn serve(Extracted(world): Extracted<World>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.path();
    if let Some(metrics) = path.strip_prefix("/metrics/") {
        world.metrics(metrics)
    } else if path.starts_with("/imds/") {
        world.imds(path)
    } else if path == "/agent/v1/reports" {
        world.state().reports.push(serde_json::from_slice(&body).unwrap());
        axum::Json(json!({"committed": true, "directives": []})).into_response()
    } else if path == "/agent/v1/directives" {
        let directives = world.state().directives.clone();
        axum::Json(json!({"sequence": 1, "directives": directives})).into_response()
    } else {
        let query = parts.uri.query().unwrap_or_default();
        world.kubernetes(&parts.method, path, query, &body)
    }
}

fn write_host(host: &Path) {
    for (file, text) in [
        ("proc/sys/kernel/random/boot_id", "boot-1\n"),
        ("proc/stat", "cpu  100 0 0 0 0 0 0 0 0 0\n"),
        ("proc/meminfo", "MemTotal: 100 kB\nMemAvailable: 40 kB\n"),
    ] {
        let path = host.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(&key);
                } else {
                    merge(target.entry(key).or_insert_with(|| json!({})), value);
                }
            }
        }
        (target, patch) => *target = patch,
    }
}
