//! A network that lets only some requests through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use drover_raft::ReplicaId;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::cluster::{Cluster, PATIENCE, Replica, pause_by, wait_until};

const ALL: u8 = 0;
const NONE: u8 = 1;
/// Requests to append nothing, which show that the leader lives.
const HEARTBEATS: u8 = 2;

fn appends_nothing(path: &str, body: &Bytes) -> bool {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    path.ends_with("/append") && request["body"]["entries"].as_array().is_some_and(Vec::is_empty)
}

async fn forward(
    (mode, to): (Arc<AtomicU8>, String),
    client: reqwest::Client,
    (method, uri, body): (Method, Uri, Bytes),
) -> Response {
    let passes = match mode.load(Ordering::SeqCst) {
        ALL => true,
        HEARTBEATS => appends_nothing(uri.path(), &body),
        _ => false,
    };
    if !passes {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let request = client.request(method, format!("http://{to}{}", uri.path())).body(body);
    let Ok(answer) = request.header("content-type", "application/json").send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let status = answer.status();
    (status, answer.bytes().await.unwrap_or_default()).into_response()
}

/// Puts a door before each replica that is yet to start, and returns the runtime they are kept on.
fn doors(cluster: &mut Cluster, mode: &Arc<AtomicU8>) -> Runtime {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = Runtime::new().unwrap();
    for peer in cluster.peers.values_mut() {
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let door = listener.local_addr().unwrap().to_string();
        let behind = (Arc::clone(mode), std::mem::replace(&mut peer.raft, door));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let router = Router::new().fallback(move |method: Method, uri: Uri, body: Bytes| {
            forward(behind.clone(), client.clone(), (method, uri, body))
        });
        runtime.spawn(async move { axum::serve(listener, router).await });
    }
    runtime
}

/// The leader hears nothing of the others for longer than its lease, and then of them, but not yet that they
/// have what it put into the log before. Returns whether it led again in the end.
fn leads_again_with_what_it_wrote() -> bool {
    let mode = Arc::new(AtomicU8::new(ALL));
    let mut cluster = Cluster::of(3);
    let _doors = doors(&mut cluster, &mode);
    for replica in 1..=3 {
        cluster.start_replica(replica);
    }
    for replica in 1..=3 {
        cluster.wait_for_vote(replica);
    }
    let (leader, term) = cluster.leader(PATIENCE);
    let first = cluster.propose(leader, term, pause_by("first")).unwrap();
    cluster.wait_until_equal(first);

    mode.store(NONE, Ordering::SeqCst);
    let Replica { runtime, group } = &cluster.replicas[&leader];
    let written = runtime.block_on(group.submit(term, pause_by("second"))).unwrap();
    let leads = |replica: ReplicaId| cluster.replicas[&replica].group.leadership().borrow().term();
    wait_until("the lease is over", || leads(leader).is_none());
    let refused = cluster.propose(leader, term, pause_by("third"));
    assert!(refused.is_err(), "nothing is taken in the meantime");

    mode.store(HEARTBEATS, Ordering::SeqCst);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert_eq!(leads(leader), None, "the second command is not known to be committed");
        std::thread::sleep(Duration::from_millis(5));
    }
    mode.store(ALL, Ordering::SeqCst);
    let (leads_now, _) = cluster.leader(PATIENCE);
    drop(written);
    if leads_now != leader {
        return false;
    }
    assert!(group.state().is_paused(Some(&"second".into())));
    assert!(!group.state().is_paused(Some(&"third".into())));
    true
}

/// Where the machine is so busy that followers miss heartbeats, they may elect another, who never had the
/// second command.
#[test]
fn who_leads_again_in_the_same_term_knows_what_it_put_into_the_log_before() {
    assert!((0..5).any(|_| leads_again_with_what_it_wrote()), "others led each time");
}
