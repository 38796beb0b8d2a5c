use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body as AnswerBody;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use drover_common::cluster::ClusterObject;
use kube::Config;
use serde_json::json;

use super::*;

mod urgent;

/// One answer: its status, and its body; a body that stays open never ends.
struct Scripted {
    status: u16,
    body: String,
    stays_open: bool,
}

/// The status of what is never answered.
const NEVER: u16 = 0;

#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Scripted>>>,
    seen: Arc<Mutex<Vec<String>>>,
}

async fn serve(State(script): State<Script>, request: Request) -> Response {
    script.seen.lock().unwrap().push(request.uri().to_string());
    let next = script.answers.lock().unwrap().pop_front();
    let Some(answer) = next else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or_default();
    if !answer.stays_open {
        return (status, answer.body).into_response();
    }
    if answer.status == NEVER {
        std::future::pending::<()>().await;
    }
    let first = futures::stream::iter([Ok::<_, std::io::Error>(answer.body)]);
    let open = futures::StreamExt::chain(first, futures::stream::pending());
    (status, AnswerBody::from_stream(open)).into_response()
}

fn list(version: &str, names: &[&str]) -> Scripted {
    let items: Vec<_> = names.iter().map(|name| pod(name, "1")).collect();
    let body = json!({"metadata": {"resourceVersion": version}, "items": items}).to_string();
    Scripted { status: 200, body, stays_open: false }
}

fn pod(name: &str, version: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "d", "uid": name, "resourceVersion": version}})
}

fn events(lines: &[(&str, Value)], stays_open: bool) -> Scripted {
    let body = lines
        .iter()
        .map(|(kind, object)| format!("{}\n", json!({"type": kind, "object": object})))
        .collect();
    Scripted { status: 200, body, stays_open }
}

fn status(status: u16) -> Scripted {
    Scripted { status, body: String::new(), stays_open: false }
}

fn never() -> Scripted {
    Scripted { status: NEVER, body: String::new(), stays_open: true }
}

/// Runs a pod watch against the script and returns the first `count` events, in short.
async fn run(script: &Script, answers: Vec<Scripted>, count: usize) -> Vec<String> {
    run_within(Limits::NODE, script, answers, count).await
}

/// A server of the script, and a client for it.
async fn client_of(script: &Script) -> Client {
    crate::install_crypto_provider();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(serve).with_state(script.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let mut config = Config::new(format!("http://{address}").parse().unwrap());
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

fn in_short(event: ClusterEvent) -> String {
    match event {
        ClusterEvent::Applied(ClusterObject::Pod(pod)) => format!("+{}", pod.metadata.name),
        ClusterEvent::Applied(other) => format!("{other:?}"),
        ClusterEvent::Deleted(_, key) => format!("-{}", key.name),
        ClusterEvent::Restarted(_) => "restarted".into(),
        ClusterEvent::Synced(_) => "synced".into(),
        ClusterEvent::Stale(_) => "stale".into(),
    }
}

async fn run_within(
    limits: Limits,
    script: &Script,
    answers: Vec<Scripted>,
    count: usize,
) -> Vec<String> {
    script.answers.lock().unwrap().extend(answers);
    let client = client_of(script).await;
    let (sender, mut receiver) = mpsc::channel(100);
    let task =
        tokio::spawn(watch(client, Kind::Pod, Some("spec.nodeName=n".into()), limits, sender));
    let mut short = Vec::new();
    while short.len() < count {
        let event = tokio::time::timeout(Duration::from_secs(20), receiver.recv())
            .await
            .unwrap_or_else(|_| panic!("too few events: {short:?}"))
            .unwrap();
        short.push(in_short(event));
    }
    drop(receiver);
    tokio::time::timeout(Duration::from_secs(5), task)
        .await
        .expect("ends with its receiver")
        .unwrap();
    short
}

#[tokio::test]
async fn lists_pages_then_follows_from_the_last_version() {
    let script = Script::default();
    let mut first = list("5", &["a"]);
    first.body = first.body.replace("\"5\"", "\"5\",\"continue\":\"t/1\"");
    let answers = vec![
        first,
        list("5", &["b"]),
        events(&[("ADDED", pod("c", "6")), ("DELETED", pod("a", "7"))], false),
        events(&[("BOOKMARK", pod("", "9")), ("MODIFIED", pod("b", "10"))], true),
    ];
    let seen = run(&script, answers, 7).await;
    assert_eq!(seen, ["restarted", "+a", "+b", "synced", "+c", "-a", "+b"]);
    let requests = script.seen.lock().unwrap().clone();
    assert!(requests[0].contains("fieldSelector=spec.nodeName%3Dn"), "{requests:?}");
    assert!(requests[1].contains("continue=t%2F1"), "{requests:?}");
    assert!(requests[2].contains("resourceVersion=5"), "{requests:?}");
    assert!(requests[3].contains("resourceVersion=7"), "{requests:?}");
}

#[tokio::test]
async fn a_newer_client_goes_on_where_the_one_before_it_was() {
    let (old, new) = (Script::default(), Script::default());
    let known = [("ADDED", pod("b", "6"))];
    old.answers.lock().unwrap().extend([list("5", &["a"]), events(&known, true)]);
    new.answers.lock().unwrap().push_back(events(&[("DELETED", pod("a", "7"))], true));
    let (newest, clients) = newest::channel(client_of(&old).await);
    let (sender, mut receiver) = mpsc::channel(100);
    let (_calm, urgent) = newest::channel(false);
    tokio::spawn(watch_by(clients, urgent, Kind::Pod, None, Limits::NODE, sender));
    let mut next = async || {
        tokio::time::timeout(Duration::from_secs(20), receiver.recv()).await.unwrap().unwrap()
    };
    for _ in ["restarted", "+a", "synced", "+b"] {
        next().await;
    }
    // The old watch stands yet, and says nothing.
    newest.send_replace(client_of(&new).await);
    let ClusterEvent::Deleted(_, key) = next().await else { panic!("something else") };
    assert_eq!(key.name, "a");
    let seen = new.seen.lock().unwrap().clone();
    assert!(seen.len() == 1 && seen[0].contains("watch=true"), "{seen:?}");
    assert!(seen[0].contains("resourceVersion=6"), "{seen:?}");
}

#[tokio::test]
async fn an_expired_version_leads_to_a_new_list_without_stale() {
    let script = Script::default();
    let gone = json!({"kind": "Status", "code": 410, "message": "too old"});
    let answers = vec![
        list("5", &["a"]),
        events(&[("ERROR", gone)], false),
        list("9", &["b"]),
        status(410),
        list("12", &[]),
        events(&[], true),
    ];
    let seen = run(&script, answers, 8).await;
    let expected =
        ["restarted", "+a", "synced", "restarted", "+b", "synced", "restarted", "synced"];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_server_that_is_down_makes_the_view_stale_until_the_next_list() {
    let script = Script::default();
    let answers = vec![
        status(404),
        status(404),
        list("5", &["a"]),
        events(&[], false),
        status(500),
        status(503),
        list("6", &[]),
        events(&[("ADDED", pod("z", "7"))], true),
    ];
    let seen = run(&script, answers, 7).await;
    assert_eq!(seen, ["restarted", "+a", "synced", "stale", "restarted", "synced", "+z"]);
}

/// Five lists, each followed by this, until there were so many events; how long that took.
async fn five_lists(then: impl Fn() -> Scripted, count: usize) -> (Vec<String>, Duration) {
    let answers = (0..5).flat_map(|_| [list("5", &[]), then()]).collect();
    let start = std::time::Instant::now();
    let seen = run(&Script::default(), answers, count).await;
    (seen, start.elapsed())
}

#[tokio::test]
async fn lists_that_no_watch_follows_come_less_and_less_often() {
    // With pauses that do not grow they take 0.8 s at most.
    let (seen, took) = five_lists(|| status(500), 15).await;
    assert_eq!(seen.iter().filter(|event| *event == "stale").count(), 5, "{seen:?}");
    assert!(took > Duration::from_millis(1_400), "{took:?}");
    let gone = || json!({"kind": "Status", "code": 410, "message": "too old"});
    let (seen, took) = five_lists(|| events(&[("ERROR", gone())], false), 10).await;
    assert!(!seen.contains(&"stale".to_owned()), "{seen:?}");
    assert!(took > Duration::from_millis(1_400), "{took:?}");
}

#[tokio::test]
async fn unreadable_objects_and_cut_lines_are_survived() {
    let script = Script::default();
    let mut bad = pod("bad", "6");
    bad["spec"] = json!({"containers": 3});
    let mut cut = events(&[("ADDED", bad), ("ADDED", pod("c", "7"))], false);
    cut.body.push_str("{\"type\":\"ADD");
    let answers = vec![list("5", &[]), cut, events(&[("ADDED", pod("d", "8"))], true)];
    let seen = run(&script, answers, 4).await;
    assert_eq!(seen, ["restarted", "synced", "+c", "+d"]);
}

/// Limits that two pods of these tests are beyond, and one is not.
const SMALL: Limits = Limits { objects: 4, page: 250, line: 250, values: 20 };

fn queries(script: &Script) -> Vec<String> {
    let seen = script.seen.lock().unwrap();
    let limit = |uri: &String| uri.split("limit=").nth(1)?.split('&').next().map(str::to_owned);
    seen.iter().filter_map(limit).collect()
}

#[tokio::test]
async fn a_page_that_is_too_large_is_asked_for_with_fewer_objects() {
    let script = Script::default();
    let mut first = list("5", &["a"]);
    first.body = first.body.replace("\"5\"", "\"5\",\"continue\":\"t\"");
    let answers = vec![
        list("5", &["a", "b", "c", "d"]),
        list("5", &["a", "b", "c"]),
        first,
        list("5", &["b"]),
        events(&[("ADDED", pod("c", "6"))], true),
    ];
    let seen = run_within(SMALL, &script, answers, 5).await;
    assert_eq!(seen, ["restarted", "+a", "+b", "synced", "+c"]);
    assert_eq!(queries(&script), ["4", "2", "1", "1"]);
}

#[tokio::test]
async fn what_has_no_end_is_read_to_the_limit_and_no_further() {
    let script = Script::default();
    let mut endless = status(200);
    endless.stays_open = true;
    endless.body = "x".repeat(300);
    let full = |values: &str| Scripted { status: 200, body: values.to_owned(), stays_open: true };
    let mut crowded = list("5", &["a"]);
    crowded.body =
        crowded.body.replace("\"items\"", "\"more\":[1,2,3,4,5,6,7,8,9,1,2,3,4,5,6],\"items\"");
    let answers = vec![
        // None of these ends by itself; the next is only read because they are given up.
        full(&"x".repeat(300)),
        full(&"[".repeat(300)),
        endless,
        list("5", &["a"]),
        full(&"x".repeat(300)),
        list("6", &["b"]),
        full(&format!("{{\"type\":\"ADDED\",\"object\":[{}0]}}\n", "0,".repeat(30))),
        list("7", &[]),
        events(&[("ADDED", pod("c", "8"))], true),
    ];
    let seen = run_within(SMALL, &script, answers, 11).await;
    let first = ["restarted", "+a", "synced", "stale"];
    let second = ["restarted", "+b", "synced", "stale", "restarted", "synced", "+c"];
    assert_eq!(seen, [&first[..], &second[..]].concat());

    let answers = vec![crowded, list("7", &["b"]), events(&[], true)];
    let seen = run_within(SMALL, &Script::default(), answers, 3).await;
    assert_eq!(seen, ["restarted", "+b", "synced"]);
}

fn line(text: &str) -> Scripted {
    Scripted { status: 200, body: format!("{text}\n"), stays_open: true }
}

#[tokio::test]
async fn a_line_that_would_come_again_leads_to_a_new_list() {
    let own = json!({"kind": "Status", "code": 500, "message": "unable to decode"});
    for bad in [
        line("no JSON"),
        line(r#"{"type":"ADDED"}"#),
        line(r#"{"type":"EXPLODED","object":{}}"#),
        events(&[("ERROR", own)], true),
    ] {
        let shown = bad.body.clone();
        let answers =
            vec![list("5", &[]), bad, list("6", &["a"]), events(&[("ADDED", pod("b", "7"))], true)];
        let script = Script::default();
        let seen = run(&script, answers, 7).await;
        let expected = ["restarted", "synced", "stale", "restarted", "+a", "synced", "+b"];
        assert_eq!(seen, expected, "{shown}");
    }
}

#[tokio::test]
async fn lists_after_lines_that_come_again_and_again_have_longer_and_longer_pauses() {
    let answers = (0..5).flat_map(|_| [list("5", &[]), line("no JSON")]).collect();
    let began = tokio::time::Instant::now();
    let seen = run(&Script::default(), answers, 14).await;
    assert_eq!(seen.iter().filter(|event| *event == "stale").count(), 4);
    // 0.2 s, doubled each time, and the half of that at least.
    assert!(began.elapsed() > Duration::from_millis(1_400), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_text_with_much_punctuation_is_no_reason_to_give_up_an_object() {
    let mut annotated = pod("c", "6");
    annotated["metadata"]["annotations"] = json!({"k": "[{,,".repeat(10)});
    let limits = Limits { page: 1_000, line: 1_000, ..SMALL };
    let answers = vec![list("5", &[]), events(&[("ADDED", annotated)], true)];
    let seen = run_within(limits, &Script::default(), answers, 3).await;
    assert_eq!(seen, ["restarted", "synced", "+c"]);
}
