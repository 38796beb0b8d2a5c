//! The agent's own page of metrics, where the operator wants one.
//!
//! Whoever can connect may ask, so that little can be asked for: a few connections at a time, one request on each,
//! of a short head, within seconds; bodies are not read. Others wait, or are turned away by the system.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use drover_agent_core::Metrics;
use drover_common::metrics::{Page, TEXT_FORMAT};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::question::Question;

#[cfg(test)]
mod tests;

/// What the deciding loop knows; nothing where the agent ends.
pub(crate) type MetricsQuestion = Question<Option<Metrics>>;

/// Connections that are answered at a time.
const MOST_CONNECTIONS: usize = 4;
/// What a connection may take in all, from its begin.
const PATIENCE: Duration = Duration::from_secs(3);
/// A request's head is a few hundred bytes; hyper takes no smaller bound.
const MOST_HEAD: usize = 8 << 10;
/// Between two tries to listen where that fails, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After a connection that could not be taken: there may be no file left to open.
const TURNED_AWAY: Duration = Duration::from_secs(1);

/// Serves the page for as long as the agent runs. An address that can't be had is tried again and again: an agent
/// guards its node without.
pub(crate) async fn serve(address: SocketAddr, question: MetricsQuestion) {
    let began = Timestamp::now();
    let listener = listen(address).await;
    tracing::info!(%address, "Metrics are served.");
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MOST_CONNECTIONS {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(answer(stream, question.clone(), began));
            }
            Err(error) => {
                tracing::debug!(%error, "Connection for metrics can't be taken.");
                tokio::time::sleep(TURNED_AWAY).await;
            }
        }
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let (mut pause, mut told) = (FIRST_PAUSE, false);
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%address, %error, "Metrics can't be served; retrying.");
                }
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn answer(stream: TcpStream, question: MetricsQuestion, began: Timestamp) {
    let service = service_fn(move |request: Request<Incoming>| {
        let question = question.clone();
        async move { Ok::<_, Infallible>(respond(&request, &question, began).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MOST_HEAD)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(PATIENCE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "Connection for metrics failed."),
        Err(_) => tracing::debug!("Connection for metrics took too long."),
    }
}

async fn respond(
    request: &Request<Incoming>,
    question: &MetricsQuestion,
    began: Timestamp,
) -> Response<String> {
    let mut response = Response::new(String::new());
    if request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let Some(metrics) = question.ask().await else {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    };
    let mut page = Page::default();
    metrics.write(&mut page);
    write_process(&mut page, began);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
    *response.body_mut() = page.into_text();
    response
}

/// What Prometheus' clients tell of every process, by their names for it.
fn write_process(page: &mut Page, began: Timestamp) {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    page.counter("process_cpu_seconds_total", "CPU time of the process.", cpu);
    page.gauge(
        "process_start_time_seconds",
        "When the agent started, since the epoch.",
        began.as_millisecond() as f64 / 1e3,
    );
    if let Some(bytes) = resident_bytes() {
        page.gauge("process_resident_memory_bytes", "Resident memory of the process.", bytes);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        // The folder itself is open meanwhile.
        let open = files.count().saturating_sub(1);
        page.gauge("process_open_fds", "Open files and sockets of the process.", open);
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}
