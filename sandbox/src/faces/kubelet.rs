//! The kubelets of all nodes behind one listener: node `n` has its own at `/<n>/…`.
//!
//! Of a kubelet's paths there is `/metrics/resource`, and `/healthz`. As with a real one that takes
//! tokens, the bearer is reviewed and then has to be allowed to `get` `nodes/metrics` of that node.

use std::fmt::Write as _;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::faces::disturb::{Disturbance, disturb, settle};
use crate::shared::SharedWorld;
use crate::world::World;
use crate::world::access::{Action, Target, User, rbac};
use crate::world::cluster::{Counter, KubeletStats};
use crate::world::faults::Face;

/// The kubelets' router.
pub(crate) fn router(world: SharedWorld) -> Router {
    Router::new().fallback(handle).with_state(world)
}

async fn handle(State(world): State<SharedWorld>, request: Request<Body>) -> Response {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let (node, path) = path.split_once('/').unwrap_or((&path, ""));
    let operation = format!("{} {path}", request.method());
    let disturbance = disturb(&world, Face::Kubelet, &operation).await;
    if let Some(Disturbance::Refuse { status, message, .. }) = &disturbance {
        let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return (status, message.clone()).into_response();
    }
    let answer = world.with(|world, now| {
        let user = authenticate(world, request.headers(), now)?;
        authorize(world, &user, request.method(), node, path)?;
        match path {
            "healthz" => Ok("ok".to_owned()),
            "metrics/resource" => {
                let stats = world.cluster.kubelet_stats(&world.cloud, node, now);
                stats.map(|stats| expose(&stats)).ok_or_else(not_found)
            }
            _ => Err(not_found()),
        }
    });
    let answer = match answer {
        Ok(body) => {
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Err(refusal) => refusal.into_response(),
    };
    settle(disturbance, answer).await
}

type Refusal = (StatusCode, String);

fn not_found() -> Refusal {
    (StatusCode::NOT_FOUND, "404 page not found\n".to_owned())
}

/// Anonymous requests are off: who shows no token, or one that stands for nobody, is sent away.
fn authenticate(world: &World, headers: &HeaderMap, now: jiff::Timestamp) -> Result<User, Refusal> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    authorization
        .and_then(|value| value.strip_prefix("Bearer "))
        .and_then(|token| world.tokens.authenticate(world, token.trim(), &[], now))
        .map(|authenticated| authenticated.user)
        .ok_or_else(|| (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()))
}

/// What the kubelet's webhook mode asks the API server.
fn authorize(
    world: &World,
    user: &User,
    method: &Method,
    node: &str,
    path: &str,
) -> Result<(), Refusal> {
    let subresource = if path.starts_with("metrics") { "metrics" } else { "proxy" };
    let verb = if *method == Method::GET { "get" } else { "create" };
    let target = Target::Resource {
        group: "",
        resource: "nodes",
        subresource,
        namespace: "",
        name: node,
        fields: None,
    };
    if rbac::decide(&world.store, user, &Action { verb, target }).allowed {
        return Ok(());
    }
    let name = &user.name;
    let said =
        format!("Forbidden (user={name}, verb={verb}, resource=nodes, subresource={subresource})");
    Err((StatusCode::FORBIDDEN, said))
}

/// The resource metrics as text, each with the time of its measurement.
fn expose(stats: &KubeletStats) -> String {
    let mut text = String::new();
    let at = stats.at.as_millisecond();
    let mut family =
        |name: &str, kind: &str, help: &str, value: fn(&Counter) -> f64, pods: bool| {
            let _infallible = writeln!(text, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
            if !pods {
                let _infallible = writeln!(text, "{name} {} {at}", value(&stats.node));
                return;
            }
            for (key, counter) in &stats.pods {
                let _infallible = writeln!(
                    text,
                    "{name}{{namespace=\"{}\",pod=\"{}\"}} {} {at}",
                    key.namespace,
                    key.name,
                    value(counter)
                );
            }
        };
    let seconds = |counter: &Counter| counter.cpu_usec as f64 / 1e6;
    let bytes = |counter: &Counter| counter.memory as f64;
    let (cpu, memory) = ("CPU time, core-seconds", "Working set, bytes");
    family("node_cpu_usage_seconds_total", "counter", cpu, seconds, false);
    family("node_memory_working_set_bytes", "gauge", memory, bytes, false);
    family("pod_cpu_usage_seconds_total", "counter", cpu, seconds, true);
    family("pod_memory_working_set_bytes", "gauge", memory, bytes, true);
    text.push_str("# HELP resource_scrape_error [STABLE] 1 if something went wrong\n");
    text.push_str("# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n");
    text
}
