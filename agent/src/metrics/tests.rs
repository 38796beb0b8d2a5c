use std::net::Ipv4Addr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Serves the page of an agent that has counted nothing, or that ends.
async fn served(metrics: Option<Metrics>) -> (SocketAddr, JoinSet<()>) {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let (question, mut asked) = MetricsQuestion::channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(address, question));
    tasks.spawn(async move {
        while let Some(asked) = asked.recv().await {
            let _nobody_asks = asked.send(metrics.clone());
        }
    });
    let began = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(5), "never listens");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (address, tasks)
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _reset = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _reset = tokio::time::timeout(Duration::from_secs(20), read).await.expect("is closed");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn the_page_is_served_and_nothing_else() {
    let (address, _tasks) = served(Some(Metrics::default())).await;
    let page = ask(address, "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(page.contains("content-type: text/plain; version=0.0.4"), "{page}");
    for line in ["\ndrover_agent_blind 0\n", "\ndrover_drain_pods_left 0\n"] {
        assert!(page.contains(line), "{page}");
    }
    for name in ["cpu_seconds_total", "resident_memory_bytes", "start_time_seconds", "open_fds"] {
        let line = page.lines().find(|line| line.starts_with(&format!("process_{name} ")));
        let value: f64 = line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
        assert!(value > 0.0, "{name}");
    }
    let head = ask(address, "HEAD /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\nabc", "405"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = ask(address, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
    let (address, _tasks) = served(None).await;
    let ended = ask(address, "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(ended.starts_with("HTTP/1.1 503 "), "{ended}");
}

#[tokio::test]
async fn those_that_say_nothing_or_too_much_keep_nobody_else_waiting_for_long() {
    let (address, _tasks) = served(Some(Metrics::default())).await;
    let mut idle = Vec::new();
    for _ in 0..2 * MOST_CONNECTIONS {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let began = Instant::now();
    let page = ask(address, "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    let took = began.elapsed();
    assert!(took > PATIENCE, "there was no bound on connections: {took:?}");
    assert!(took < 4 * PATIENCE, "they were let be for {took:?}");
    // One that answers and is asked again is done with.
    let twice = "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".repeat(2);
    assert_eq!(ask(address, &twice).await.matches("HTTP/1.1 200").count(), 1);
    let long = format!("GET /metrics HTTP/1.1\r\nhost: {}", "a".repeat(4 * MOST_HEAD));
    let answer = ask(address, &long).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    drop(idle);
}
