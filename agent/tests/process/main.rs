//! The real binary, as a process, in a scripted world.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod permissions;
mod proxies;
mod unit_files;
mod units;

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as Extracted};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Whoever may write nothing.
const NOBODY: u32 = 65_534;

/// Held while a process is begun and while a binary is written: a child that another test forks meanwhile
/// has the file open for writing until it becomes another program, and such a file can't be run.
static FORKS: Mutex<()> = Mutex::new(());

fn forks() -> MutexGuard<'static, ()> {
    // A test that failed meanwhile left nothing behind.
    FORKS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct State {
    /// What the metadata service says who this is; the usual one, if `None`.
    instance: Option<&'static str>,
    /// Whether the metadata service takes questions and answers none.
    imds_hangs: bool,
    notice: Option<String>,
    cordons: u32,
    evicted: u32,
    /// What the API server does not allow, as `verb resource`; it knows no reviews, if `None`.
    denies: Option<&'static [&'static str]>,
    /// How often it was asked.
    reviews: usize,
    /// Paths that leaders and an exporter of GPU metrics are asked for.
    asked: BTreeSet<String>,
    /// What the API server and leaders send without end, if they do.
    endless: Option<&'static str>,
    /// How many answers without end were begun.
    begun: u32,
}

#[derive(Clone)]
struct World {
    state: Arc<Mutex<State>>,
    url: String,
    folder: Arc<tempfile::TempDir>,
}

impl World {
    async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let folder = tempfile::tempdir().unwrap();
        open_to_all(folder.path());
        let world = Self { state: Arc::default(), url, folder: Arc::new(folder) };
        let router = Router::new().fallback(serve).with_state(world.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn announce(&self, seconds: i64) {
        let time = Timestamp::now().checked_add(SignedDuration::from_secs(seconds)).unwrap();
        let notice = json!({"action": "terminate", "time": time.to_string()});
        self.state.lock().unwrap().notice = Some(notice.to_string());
    }

    async fn until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let began = Instant::now();
        while !holds(&self.state.lock().unwrap()) {
            assert!(began.elapsed() < Duration::from_secs(30), "never: {what}; {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A machine without a system bus, so that nothing that an agent does reaches the one that it runs
    /// on.
    fn host(&self) -> PathBuf {
        let host = self.path("host");
        let boot_id = host.join("proc/sys/kernel/random/boot_id");
        let folder = boot_id.parent().unwrap();
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(&boot_id, "boot-1\n").unwrap();
        let below = boot_id.ancestors().take_while(|path| *path != self.folder.path());
        below.for_each(open_to_all);
        host
    }

    /// Starts an agent with three variables, and `more`, as somebody who may write nothing. Two more keep
    /// it from the machine that it runs on: tests may run as root.
    fn start(&self, more: &[(&str, &str)]) -> Process {
        let _alone = forks();
        Process(self.command(more).spawn().unwrap())
    }

    /// Only one who holds [`FORKS`] may ask for it.
    fn command(&self, more: &[(&str, &str)]) -> Command {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        });
        std::fs::write(self.path("kubeconfig"), kubeconfig.to_string()).unwrap();
        // Whatever the umask is.
        open_to_all(&self.path("kubeconfig"));
        // Nobody may not reach it where it was built.
        let binary = self.path("drover-agent");
        std::fs::copy(env!("CARGO_BIN_EXE_drover-agent"), &binary).unwrap();
        open_to_all(&binary);
        let mut command = Command::new(binary);
        command
            .env_clear()
            .env("NODE_NAME", "n")
            .env("KUBECONFIG", self.path("kubeconfig"))
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("{}/imds", self.url))
            .env("DROVER_HOST_ROOT", self.host())
            .env("DROVER_NO_POWER_OFF", "true")
            .envs(more.iter().copied())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.path("log")).unwrap());
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.gid(NOBODY).uid(NOBODY);
        }
        command
    }
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// Killed when dropped.
struct Process(Child);

impl Process {
    fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// The most memory that it has had resident, KiB.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    async fn stop(mut self) {
        let id = self.0.id().to_string();
        let alone = forks();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        drop(alone);
        let began = Instant::now();
        while self.is_alive() {
            assert!(began.elapsed() < Duration::from_secs(10), "does not stop");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn node() -> Value {
    json!({
        "metadata": {"name": "n", "uid": "u-n", "resourceVersion": "1"},
        "spec": {"providerID": "aws:///us-east-1a/i-0abc"},
    })
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "u-web", "resourceVersion": "1"},
        "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5},
    })
}

/// A body that starts with one text and repeats another for ever, as fast as a network would.
fn endless(first: &'static str, then: &'static str) -> Response {
    let first = futures::stream::iter([Ok::<_, std::io::Error>(first.to_owned())]);
    let then = then.repeat(1 + 65_536 / then.len());
    let rest = futures::stream::unfold(then, |then| async move {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Some((Ok::<_, std::io::Error>(then.clone()), then))
    });
    Body::from_stream(futures::StreamExt::chain(first, rest)).into_response()
}

const PODS: &str = "{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[";
const POD: &str = "{\"metadata\":{\"name\":\"p\",\"namespace\":\"d\",\"uid\":\"p\"}},";

impl World {
    fn hostile(&self, kind: &str, is_watch: bool) -> Response {
        self.state.lock().unwrap().begun += 1;
        match (kind, is_watch) {
            ("spaces", _) => endless("", " "),
            ("nested", _) => endless("", "["),
            ("objects", false) => endless(PODS, POD),
            ("objects", true) => endless("{\"type\":\"ADDED\",\"object\":{\"a\":[", "0,"),
            (other, _) => panic!("{other}"),
        }
    }

    fn kubernetes(&self, method: &str, path: &str, query: &str) -> Response {
        let is_watch = query.contains("watch=true");
        let endless = self.state.lock().unwrap().endless;
        if let Some(kind) = endless {
            // Its list of Nodes is one, so that there are watches, too.
            if is_watch || !path.ends_with("/nodes") {
                return self.hostile(kind, is_watch);
            }
        }
        let last = path.rsplit('/').next().unwrap_or_default();
        let list = |object: Value| {
            axum::Json(json!({"metadata": {"resourceVersion": "1"}, "items": [object]}))
                .into_response()
        };
        match (method, last) {
            ("GET", "pods" | "nodes") if is_watch => {
                Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>())
                    .into_response()
            }
            ("GET", "pods") => list(pod()),
            ("GET", "nodes") => list(node()),
            ("PATCH", "n") => {
                self.state.lock().unwrap().cordons += 1;
                axum::Json(node()).into_response()
            }
            ("POST", "eviction") => {
                self.state.lock().unwrap().evicted += 1;
                axum::Json(json!({"kind": "Status", "status": "Success"})).into_response()
            }
            _ => axum::http::StatusCode::NOT_FOUND.into_response(),
        }
    }

    fn imds(&self, path: &str) -> Response {
        let (instance, notice) = {
            let state = self.state.lock().unwrap();
            (state.instance.unwrap_or("i-0abc"), state.notice.clone())
        };
        match (path, notice) {
            ("/imds/latest/api/token", _) => "token".into_response(),
            ("/imds/latest/meta-data/instance-id", _) if !instance.is_empty() => {
                instance.into_response()
            }
            ("/imds/latest/meta-data/spot/instance-action", Some(notice)) => notice.into_response(),
            _ => axum::http::StatusCode::NOT_FOUND.into_response(),
        }
    }
}

async fn serve(Extracted(world): Extracted<World>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let hostile = world.state.lock().unwrap().endless;
    let hangs = world.state.lock().unwrap().imds_hangs;
    if hangs && path.starts_with("/imds/") {
        return std::future::pending().await;
    }
    if path.starts_with("/agent/") || path == "/gpu" {
        world.state.lock().unwrap().asked.insert(path.to_owned());
    }
    if path.ends_with("/selfsubjectaccessreviews") {
        return world.review(body).await;
    }
    match (path.starts_with("/imds/"), path.starts_with("/agent/"), hostile) {
        (true, _, _) => world.imds(path),
        (_, true, Some(kind)) => world.hostile(kind, false),
        _ => {
            let query = parts.uri.query().unwrap_or_default();
            world.kubernetes(parts.method.as_str(), path, query)
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_variables_are_enough_also_for_one_who_may_write_nothing() {
    let world = World::new().await;
    let mut agent = world.start(&[]);
    world.announce(110);
    world.until("the node is cordoned", |state| state.cordons > 0).await;
    world.until("the pod is evicted", |state| state.evicted > 0).await;
    assert!(agent.is_alive());
    let log = world.log();
    assert!(log.contains("State folder can't be written"), "{log}");
    // It looks for the machine's bus where the test's machine is, and nowhere else.
    let socket = world.path("host/run/dbus/system_bus_socket");
    let bus = log.lines().find(|line| line.contains("System bus is out of reach")).unwrap();
    assert!(bus.contains(socket.to_str().unwrap()), "{bus}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_cannot_know_its_instance_says_so_once() {
    for nothing in ["", "<html>"] {
        let world = World::new().await;
        world.state.lock().unwrap().instance = Some(nothing);
        let agent = world.start(&[]);
        world.announce(110);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let told = || world.log().matches("does not tell the instance id").count();
        assert_eq!(told(), 1, "{}", world.log());
        assert_eq!(world.state.lock().unwrap().cordons, 0, "whose notice is it?");
        world.state.lock().unwrap().instance = None;
        world.until("the node is cordoned", |state| state.cordons > 0).await;
        assert_eq!(told(), 1, "{}", world.log());
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_end_are_survived_within_the_units_memory() {
    for kind in ["spaces", "nested", "objects"] {
        let world = World::new().await;
        world.state.lock().unwrap().endless = Some(kind);
        let mut agent = world.start(&[("DROVER_LEADERS", &world.url)]);
        world.until("several answers were begun", |state| state.begun >= 8).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(agent.is_alive(), "{}", world.log());
        let peak = agent.peak();
        // The unit's MemoryMax is 64 MiB, and this build is not optimised.
        assert!(peak < 56 * 1024, "{kind}: {peak} KiB");
        // The list of Nodes works and their watch does not; the list of pods never did.
        let log = world.log();
        assert_eq!(log.matches("Watch is broken").count(), 1, "{kind}: {log}");
        // Once all is well again it goes on as if nothing had been.
        world.state.lock().unwrap().endless = None;
        world.announce(110);
        world.until("the pod is evicted", |state| state.evicted > 0).await;
        agent.stop().await;
    }
}
