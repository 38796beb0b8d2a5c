use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::*;

const SPOT: &str = "spot/instance-action";
const REBALANCE: &str = "events/recommendations/rebalance";
const AUTO_SCALING: &str = "autoscaling/target-lifecycle-state";
const MAINTENANCE: &str = "events/maintenance/scheduled";

/// A metadata service whose paths fail each in its own way, and when each was asked.
#[derive(Clone, Default)]
struct Fake {
    manners: Arc<BTreeMap<&'static str, &'static str>>,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
    connections: Arc<Mutex<std::collections::BTreeSet<std::net::SocketAddr>>>,
}

impl Fake {
    fn times(&self, path: &str) -> Vec<Instant> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(of, _)| of == path).map(|(_, at)| *at).collect()
    }
}

async fn serve(
    axum::extract::ConnectInfo(peer): axum::extract::ConnectInfo<std::net::SocketAddr>,
    State(fake): State<Fake>,
    request: Request,
) -> Response {
    fake.connections.lock().unwrap().insert(peer);
    let path = request.uri().path();
    let Some(path) = path.strip_prefix("/latest/meta-data/") else {
        return "token".into_response();
    };
    fake.asked.lock().unwrap().push((path.to_owned(), Instant::now()));
    match fake.manners.get(path) {
        Some(&"hangs") => std::future::pending().await,
        Some(&"fails") => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ if path == "instance-id" => "i-0abc".into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Polls for so long, every 200 ms.
async fn poll_for(time: Duration, manners: &[(&'static str, &'static str)]) -> Fake {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    poll_at(listener, time, manners).await
}

async fn poll_at(
    listener: tokio::net::TcpListener,
    time: Duration,
    manners: &[(&'static str, &'static str)],
) -> Fake {
    drover_kubernetes::install_crypto_provider();
    let fake = Fake { manners: Arc::new(manners.iter().copied().collect()), ..Fake::default() };
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(serve).with_state(fake.clone());
    let service = router.into_make_service_with_connect_info::<std::net::SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    let imds = Arc::new(Imds::new(&format!("http://{address}")).unwrap());
    let (inputs, mut received) = mpsc::channel(16);
    let polling = poll(imds, Duration::from_millis(200), Pulse::default(), inputs);
    let reading = async { while received.recv().await.is_some() {} };
    let _ended = tokio::time::timeout(time, futures::future::join(polling, reading)).await;
    fake
}

fn longest_gap(times: &[Instant]) -> Duration {
    let gaps = times.windows(2).map(|pair| pair[1].duration_since(pair[0]));
    gaps.max().expect("was asked twice")
}

/// As on instances whose metadata service has an IPv6 endpoint.
#[tokio::test]
async fn a_service_is_polled_over_ipv6() {
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else {
        writeln!(std::io::stderr(), "SKIPPED: this machine has no IPv6").unwrap();
        return;
    };
    let fake = poll_at(listener, Duration::from_secs(2), &[]).await;
    assert!(fake.times(SPOT).len() >= 5, "{:?}", fake.times(SPOT));
    assert_eq!(fake.times("instance-id").len(), 1);
    let connections = fake.connections.lock().unwrap();
    assert!(!connections.is_empty() && connections.iter().all(|peer| peer.is_ipv6()));
}

#[tokio::test]
async fn paths_that_hang_do_not_slow_the_others() {
    let hang = [(REBALANCE, "hangs"), (AUTO_SCALING, "hangs"), (MAINTENANCE, "hangs")];
    let fake = poll_for(Duration::from_secs(4), &hang).await;
    let spot = fake.times(SPOT);
    assert!(spot.len() >= 10, "asked {} times in 4 s", spot.len());
    // One after the other, the three would take 4.5 s.
    assert!(longest_gap(&spot) < Duration::from_secs(1), "{:?}", longest_gap(&spot));
    for path in [REBALANCE, AUTO_SCALING, MAINTENANCE] {
        assert!((1..=3).contains(&fake.times(path).len()), "{path}: {}", fake.times(path).len());
    }
}

#[tokio::test]
async fn a_path_that_fails_backs_off_and_the_others_keep_their_pace() {
    let fake = poll_for(Duration::from_secs(4), &[(SPOT, "fails")]).await;
    let (failing, well) = (fake.times(SPOT).len(), fake.times(REBALANCE).len());
    assert!((2..=8).contains(&failing), "asked {failing} times in 4 s");
    assert!(well >= 4, "asked {well} times in 4 s");
}

#[tokio::test]
async fn what_is_answered_soon_takes_one_connection_and_each_path_has_its_pace() {
    let fake = poll_for(Duration::from_secs(3), &[]).await;
    let [spot, rebalance, auto_scaling] =
        [SPOT, REBALANCE, AUTO_SCALING].map(|path| fake.times(path).len());
    assert!(spot >= 9, "{spot}");
    for soft in [rebalance, auto_scaling] {
        assert!((3..spot / 2).contains(&soft), "asked {soft} times, for spot notices {spot} times");
    }
    assert_eq!((fake.times("instance-id").len(), fake.times(MAINTENANCE).len()), (1, 1));
    let (connections, asked) =
        (fake.connections.lock().unwrap().len(), fake.asked.lock().unwrap().len());
    // A busy machine may make answers late.
    assert!(connections <= asked / 3, "{connections} connections for {asked} questions");
}

#[test]
fn pauses_grow_have_an_end_and_differ() {
    let interval = Duration::from_millis(500);
    for (failures, longest) in [(1, 1_000), (2, 2_000), (3, 2_000), (u32::MAX, 2_000)] {
        let pauses: Vec<u128> = (0..50).map(|_| pause(interval, failures).as_millis()).collect();
        let bounds = longest / 2..=longest;
        assert!(pauses.iter().all(|pause| bounds.contains(pause)), "{failures}: {pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "nodes would come in step");
    }
    let slow = Duration::from_secs(60);
    assert!(pause(slow, 9) >= slow / 2, "no faster than asked for");
}

#[test]
fn of_what_is_due_the_most_urgent_comes_first() {
    let now = Instant::now();
    let turn = |path, ago: u64| Turn {
        question: Question::Notice(path),
        at: now - Duration::from_millis(ago),
        failures: 0,
        told: false,
    };
    let turns = [
        turn(NoticePath::Maintenance, 30),
        turn(NoticePath::SpotAction, 1),
        turn(NoticePath::Rebalance, 20),
    ];
    assert_eq!(next_turn(&turns, now).map(|(index, _)| index), Some(1));
    assert_eq!(next_turn(&[], now), None);
}
