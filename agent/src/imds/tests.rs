use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response as Answered};

use super::*;

const TIMEOUT: Duration = Duration::from_millis(1_500);

/// A metadata service below `/i-0abc`, with faults.
#[derive(Clone, Default)]
struct Fake {
    state: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Faults {
    tokens: u32,
    valid: u32,
    next: Option<&'static str>,
    /// Whether every request for a token fails, and how many did.
    no_tokens: bool,
    refused: u32,
}

async fn serve(State(fake): State<Fake>, request: Request) -> Answered {
    let path = request.uri().path().strip_prefix("/i-0abc/latest").unwrap_or("").to_owned();
    let fault = fake.state.lock().unwrap().next.take();
    match fault {
        Some("hang") => std::future::pending::<()>().await,
        Some("503") => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Some("endless") => {
            let chunk = || Ok::<_, std::io::Error>(vec![b'x'; 8_192]);
            let endless = futures::stream::repeat_with(chunk);
            return Body::from_stream(endless).into_response();
        }
        _ => {}
    }
    let header = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned()
    };
    let mut state = fake.state.lock().unwrap();
    if path == "/api/token" && request.method() == Method::PUT {
        assert_eq!(header("X-aws-ec2-metadata-token-ttl-seconds"), "21600");
        if state.no_tokens {
            state.refused += 1;
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        state.tokens += 1;
        state.valid = state.tokens;
        return format!("token-{}", state.tokens).into_response();
    }
    if header("X-aws-ec2-metadata-token") != format!("token-{}", state.valid) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match path.as_str() {
        "/meta-data/instance-id" => "i-0abc".into_response(),
        _ => (StatusCode::NOT_FOUND, "<html/>").into_response(),
    }
}

async fn imds(fake: &Fake) -> Imds {
    drover_kubernetes::install_crypto_provider();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(serve).with_state(fake.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Imds::new(&format!("http://{address}/i-0abc")).unwrap()
}

#[tokio::test]
async fn one_token_serves_many_reads_and_a_lost_one_is_replaced() {
    let fake = Fake::default();
    let imds = imds(&fake).await;
    for _ in 0..3 {
        let answer = imds.read("instance-id", TIMEOUT).await.unwrap();
        assert_eq!(answer, Answer::Body("i-0abc".into()));
        assert_eq!(imds.read("spot/instance-action", TIMEOUT).await.unwrap(), Answer::Absent);
    }
    assert_eq!(fake.state.lock().unwrap().tokens, 1);
    fake.state.lock().unwrap().valid = 99;
    assert_eq!(imds.read("spot/instance-action", TIMEOUT).await.unwrap(), Answer::Absent);
    assert_eq!(fake.state.lock().unwrap().tokens, 2);
}

#[tokio::test]
async fn faults_are_errors_and_the_next_read_works() {
    let fake = Fake::default();
    let imds = imds(&fake).await;
    for fault in ["503", "hang", "endless"] {
        fake.state.lock().unwrap().next = Some(fault);
        assert!(imds.read("spot/instance-action", TIMEOUT).await.is_err(), "{fault}");
        assert_eq!(
            imds.read("spot/instance-action", TIMEOUT).await.unwrap(),
            Answer::Absent,
            "{fault}"
        );
        fake.state.lock().unwrap().next = Some(fault);
        imds.keep(None);
        assert!(imds.read("spot/instance-action", TIMEOUT).await.is_err(), "{fault} at the token");
        assert_eq!(
            imds.read("spot/instance-action", TIMEOUT).await.unwrap(),
            Answer::Absent,
            "{fault}"
        );
    }
}

/// Makes the token so many seconds older.
fn age(imds: &Imds, seconds: u64) {
    let mut kept = imds.token.lock().unwrap();
    let token = kept.as_mut().unwrap();
    token.refresh_at -= Duration::from_secs(seconds);
    token.ends_at -= Duration::from_secs(seconds);
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_is_used_to_its_end() {
    let fake = Fake::default();
    let imds = imds(&fake).await;
    imds.read("instance-id", TIMEOUT).await.unwrap();
    fake.state.lock().unwrap().no_tokens = true;
    age(&imds, TOKEN_SECONDS / 2);
    for _ in 0..3 {
        imds.read("instance-id", TIMEOUT).await.unwrap();
    }
    assert_eq!(fake.state.lock().unwrap().refused, 1, "not at every read");
    age(&imds, RENEW_AGAIN.as_secs());
    imds.read("instance-id", TIMEOUT).await.unwrap();
    assert_eq!(fake.state.lock().unwrap().refused, 2);
    age(&imds, TOKEN_SECONDS / 2);
    assert!(imds.read("instance-id", TIMEOUT).await.is_err(), "it has ended");
    fake.state.lock().unwrap().no_tokens = false;
    imds.read("instance-id", TIMEOUT).await.unwrap();
    // Renewed as soon as it can be, before its end.
    age(&imds, TOKEN_SECONDS / 2);
    imds.read("instance-id", TIMEOUT).await.unwrap();
    assert_eq!(fake.state.lock().unwrap().tokens, 3);
}
