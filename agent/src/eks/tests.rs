use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::SignedDuration;

use super::*;

/// A metadata service: bodies by path below `/latest/`, and how often each was asked for.
#[derive(Clone, Default)]
struct Fake {
    bodies: Arc<Mutex<BTreeMap<&'static str, String>>>,
    asked: Arc<Mutex<BTreeMap<String, u32>>>,
}

const ROLE: &str = "meta-data/iam/security-credentials/";
const CREDENTIALS: &str = "meta-data/iam/security-credentials/node-role";
const REGION: &str = "meta-data/placement/region";

async fn serve(State(fake): State<Fake>, request: Request) -> Response {
    let path = request.uri().path().strip_prefix("/latest/").unwrap_or_default().to_owned();
    *fake.asked.lock().unwrap().entry(path.clone()).or_default() += 1;
    let body = fake.bodies.lock().unwrap().get(path.as_str()).cloned();
    match body {
        _ if path == "api/token" => "session".into_response(),
        Some(body) if body == "silence" => std::future::pending().await,
        Some(body) if body == "503" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Some(body) => body.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

impl Fake {
    /// One whose credentials are called `key` and last so long.
    async fn start(key: &str, life: SignedDuration) -> (Self, RoleSigner) {
        drover_kubernetes::install_crypto_provider();
        let fake = Self::default();
        fake.set(ROLE, "node-role");
        fake.set(CREDENTIALS, &credentials(key, life));
        fake.set(REGION, "eu-west-1");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(serve).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let imds = Imds::new(&format!("http://{address}")).unwrap();
        (fake, RoleSigner::new(Arc::new(imds)))
    }

    fn set(&self, path: &'static str, body: &str) {
        self.bodies.lock().unwrap().insert(path, body.to_owned());
    }

    fn asked(&self, path: &str) -> u32 {
        self.asked.lock().unwrap().get(path).copied().unwrap_or_default()
    }
}

fn credentials(key: &str, life: SignedDuration) -> String {
    let expires = Timestamp::now() + life;
    format!(
        r#"{{"Code":"Success","AccessKeyId":"{key}","SecretAccessKey":"s","Token":"t","Expiration":"{expires}"}}"#
    )
}

fn cluster(region: Option<&str>) -> EksCluster {
    EksCluster { name: "c".to_owned(), region: region.map(str::to_owned) }
}

/// Puts a token there that was signed so long ago, and counts until it is 14 minutes old.
fn keep(signer: &RoleSigner, age: SignedDuration) -> String {
    let mut kept = signer.kept();
    let credentials = Credentials {
        access_key_id: "OLD".to_owned(),
        secret_access_key: "s".to_owned(),
        token: "t".to_owned(),
        expires: Timestamp::MAX,
    };
    let token = EksToken::sign("c", "eu-west-1", &credentials, Timestamp::now() - age);
    let text = token.text().to_owned();
    kept.token = Some((cluster(None), token));
    kept.credentials = None;
    text
}

const HOUR: SignedDuration = SignedDuration::from_hours(1);

#[tokio::test]
async fn a_token_is_signed_once_and_kept() {
    let (fake, signer) = Fake::start("A", HOUR).await;
    let cluster_here = cluster(None);
    let all = (0..8).map(|_| signer.token(&cluster_here));
    let tokens = futures::future::join_all(all).await;
    let first = tokens[0].clone().unwrap();
    assert!(tokens.iter().all(|token| token.as_ref() == Ok(&first)));
    assert_eq!((fake.asked(CREDENTIALS), fake.asked(REGION)), (1, 1));
    // Another cluster's is another, and a region that is told need not be asked for.
    let told = signer.token(&cluster(Some("us-east-1"))).await.unwrap();
    assert_ne!(told, first);
    assert_eq!((fake.asked(CREDENTIALS), fake.asked(REGION)), (2, 1));
}

#[tokio::test]
async fn a_token_that_counts_is_shown_while_imds_is_silent() {
    let (fake, signer) = Fake::start("A", HOUR).await;
    let old = keep(&signer, SignedDuration::from_mins(11));
    fake.set(CREDENTIALS, "503");
    for _ in 0..3 {
        assert_eq!(signer.token(&cluster(None)).await.as_ref(), Ok(&old));
    }
    assert_eq!(fake.asked(CREDENTIALS), 1, "it is not tried at each request");
    fake.set(CREDENTIALS, &credentials("B", HOUR));
    signer.kept().not_before = None;
    assert_ne!(signer.token(&cluster(None)).await.as_ref(), Ok(&old));
    // One that has ended is never shown, nor one of a clock that was set back.
    for age in [15, -30].map(SignedDuration::from_mins) {
        let ended = keep(&signer, age);
        assert_ne!(signer.token(&cluster(None)).await.as_ref(), Ok(&ended));
    }
}

#[tokio::test]
async fn credentials_are_used_to_their_end_while_imds_is_silent() {
    let (fake, signer) = Fake::start("A", HOUR).await;
    signer.token(&cluster(None)).await.unwrap();
    fake.set(ROLE, "503");
    let signed_anew = |signer: &RoleSigner| {
        signer.kept().token = None;
    };
    signed_anew(&signer);
    signer.token(&cluster(None)).await.unwrap();
    signed_anew(&signer);
    signer.kept().credentials.as_mut().unwrap().expires = Timestamp::now();
    let reason = signer.token(&cluster(None)).await.unwrap_err();
    assert!(reason.contains("503"), "{reason}");
    // Who asks at once gets the same answer, and IMDS its peace.
    let asked = fake.asked(ROLE);
    assert_eq!(signer.token(&cluster(None)).await, Err(reason));
    assert_eq!(fake.asked(ROLE), asked);
}

#[tokio::test]
async fn credentials_that_have_ended_sign_nothing_and_are_not_asked_for_at_each_request() {
    let (fake, signer) = Fake::start("A", -HOUR).await;
    let reason = signer.token(&cluster(None)).await.unwrap_err();
    assert!(reason.contains("ended at"), "{reason}");
    assert_eq!(signer.token(&cluster(None)).await, Err(reason));
    assert_eq!(fake.asked(CREDENTIALS), 1);
    // They do not take the place of those that count.
    fake.set(CREDENTIALS, &credentials("B", HOUR));
    signer.kept().failed = None;
    signer.token(&cluster(None)).await.unwrap();
    fake.set(CREDENTIALS, &credentials("C", -HOUR));
    signer.kept().token = None;
    signer.token(&cluster(None)).await.unwrap();
    assert_eq!(signer.kept().credentials.as_ref().unwrap().access_key_id, "B");
}

#[tokio::test]
async fn who_waits_for_a_silent_imds_does_not_wait_long_and_a_bad_region_is_named() {
    let (fake, signer) = Fake::start("A", HOUR).await;
    fake.set(CREDENTIALS, "silence");
    fake.set(REGION, "silence");
    let start = Instant::now();
    let here = cluster(None);
    let (one, other) = tokio::join!(signer.token(&here), signer.token(&here));
    assert!(one.is_err() && one == other, "{one:?} {other:?}");
    assert!(start.elapsed() < PATIENCE + SIGN_AGAIN, "{:?}", start.elapsed());
    fake.set(CREDENTIALS, &credentials("A", HOUR));
    signer.kept().failed = None;
    let reason = signer.token(&cluster(Some("EU_WEST"))).await.unwrap_err();
    assert!(reason.contains("the region of the cluster"), "{reason}");
}

#[tokio::test]
async fn an_instance_without_a_role_is_told_so() {
    let (fake, signer) = Fake::start("A", HOUR).await;
    fake.bodies.lock().unwrap().remove(ROLE);
    let reason = signer.token(&cluster(None)).await.unwrap_err();
    assert!(reason.contains("the instance has no role"), "{reason}");
    let other = EksCluster { name: "a/b".to_owned(), region: None };
    signer.kept().failed = None;
    assert!(signer.token(&other).await.unwrap_err().contains("cluster's name"));
}
