//! Leaders that misbehave, over real sockets.

use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response as Answered};
use drover_common::protocol::{Notice, NoticeKind};
use tokio::net::TcpListener;

use super::*;
use crate::leaders::addresses::Addresses;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Well,
    Broken,
    Endless,
    EndlessRefusal,
    /// It takes what it is told, and says nothing.
    Silent,
    /// It answers after so long as a commit may take on a bad day.
    Slow,
}

type Asked = Arc<Mutex<Vec<usize>>>;

/// Serves as the leader of this number.
fn serve(listener: TcpListener, number: usize, manner: Manner, asked: &Asked) {
    let asked = asked.clone();
    let endless = || {
        let spaces = || Ok::<_, std::io::Error>(vec![b' '; 16_384]);
        Body::from_stream(futures::stream::repeat_with(spaces))
    };
    let answer = async move || -> Answered {
        asked.lock().unwrap().push(number);
        match manner {
            Manner::Well => "{\"committed\":true,\"directives\":[]}".into_response(),
            Manner::Broken => StatusCode::BAD_GATEWAY.into_response(),
            Manner::Endless => endless().into_response(),
            Manner::EndlessRefusal => (StatusCode::BAD_GATEWAY, endless()).into_response(),
            Manner::Silent => std::future::pending().await,
            Manner::Slow => {
                tokio::time::sleep(NEWS_PATIENCE + Duration::from_millis(400)).await;
                "{\"committed\":true,\"directives\":[]}".into_response()
            }
        }
    };
    let router = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
}

/// Leaders with one name, at one port of several loopback addresses.
async fn leaders(manners: &[Manner]) -> (Leaders, Asked, tempfile::NamedTempFile) {
    drover_kubernetes::install_crypto_provider();
    let asked = Asked::default();
    let mut port = 0;
    let mut found = Vec::new();
    for (number, manner) in manners.iter().enumerate() {
        let address = SocketAddr::from(([127, 0, 0, u8::try_from(number).unwrap() + 1], port));
        let listener = TcpListener::bind(address).await.unwrap();
        port = listener.local_addr().unwrap().port();
        found.push(SocketAddr::new(address.ip(), 0));
        serve(listener, number, *manner, &asked);
    }
    // A name server shuffles.
    found.reverse();
    let addresses = Addresses::new(move |name| {
        assert_eq!(name, "leaders.test");
        let found = found.clone();
        Box::pin(async move { Ok(found) })
    });
    let connecting = Connecting { trust: connecting::Trust::Nobody, addresses };
    let token = tempfile::NamedTempFile::new().unwrap();
    let leaders = Leaders {
        client: connecting.client(0).unwrap(),
        connecting,
        urls: [format!("http://leaders.test:{port}")].into(),
        token: TokenSource::File(token.path().to_owned()),
        turn: 0,
        current: 0,
        failures: 0,
    };
    (leaders, asked, token)
}

/// A report with news, which is told to one leader after the other without a pause.
fn report() -> Arc<Report> {
    let notice = Notice {
        kind: NoticeKind::SpotTerminate,
        instance: "i-1".into(),
        boot: "b".into(),
        deadline: None,
        detected_at: jiff::Timestamp::UNIX_EPOCH,
        issued_at: None,
    };
    Arc::new(Report {
        version: drover_common::protocol::PROTOCOL_VERSION,
        node: "n".into(),
        instance: Some("i-1".into()),
        boot: "b".into(),
        sequence: 7,
        sent_at: jiff::Timestamp::UNIX_EPOCH,
        notices: vec![notice],
        cordoned_at: None,
        imds_silent_since: None,
        usage: None,
        usage_since: None,
        usage_gone: Vec::new(),
        drain: None,
    })
}

#[tokio::test]
async fn every_address_of_a_name_has_its_turn() {
    use Manner::{Broken, Endless, EndlessRefusal, Well};
    let (leaders, asked, _token) = leaders(&[Broken, Endless, EndlessRefusal, Well]).await;
    let (report, reports) = watch::channel(None);
    let (inputs, mut received) = mpsc::channel(1);
    let sending = tokio::spawn(leaders.send_reports(reports, inputs));
    report.send_replace(Some(self::report()));
    let answered = tokio::time::timeout(Duration::from_secs(5), received.recv()).await;
    let Some(Input::Answered(sequence, answer)) = answered.expect("one leader answers") else {
        panic!("no answer")
    };
    assert_eq!((sequence, answer.committed), (7, true));
    assert_eq!(*asked.lock().unwrap(), [0, 1, 2, 3]);
    // The one that answers stays.
    report.send_replace(Some(self::report()));
    received.recv().await.unwrap();
    assert_eq!(*asked.lock().unwrap(), [0, 1, 2, 3, 3]);
    sending.abort();
}

#[tokio::test]
async fn answers_without_end_are_failures() {
    for manner in [Manner::Endless, Manner::EndlessRefusal] {
        let (leaders, _asked, _token) = leaders(&[manner]).await;
        let asking = leaders.ask::<ReportAnswer>(leaders.client.get(leaders.url("/x")));
        let asked = tokio::time::timeout(Duration::from_secs(5), asking).await;
        let reason = asked.expect("is given up").unwrap_err();
        assert!(reason.contains("longer than 65536 bytes") || reason.contains("502"), "{reason}");
    }
}

#[tokio::test]
async fn a_leader_that_says_nothing_keeps_no_notice_from_the_others() {
    use Manner::{Silent, Well};
    let (leaders, asked, _token) = leaders(&[Silent, Silent, Well]).await;
    let (report, reports) = watch::channel(None);
    let (inputs, mut received) = mpsc::channel(1);
    tokio::spawn(leaders.send_reports(reports, inputs));
    // One is told something that can wait when the notice comes.
    let calm = Report { notices: Vec::new(), ..self::report().as_ref().clone() };
    report.send_replace(Some(Arc::new(calm)));
    tokio::time::timeout(Duration::from_secs(5), async {
        while asked.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the first leader is asked");
    let began = Instant::now();
    report.send_replace(Some(self::report()));
    let answered = tokio::time::timeout(Duration::from_secs(20), received.recv()).await;
    assert!(matches!(answered, Ok(Some(Input::Answered(7, _)))), "{answered:?}");
    assert_eq!(*asked.lock().unwrap(), [0, 1, 2]);
    // Each was waited for, and less long than one is where nothing is the matter.
    assert!(began.elapsed() >= NEWS_PATIENCE + URGENT_TIMEOUT, "{:?}", began.elapsed());
    assert!(began.elapsed() < REPORT_TIMEOUT, "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_comes_while_a_leader_is_asked_is_told_next() {
    let (leaders, asked, _token) = leaders(&[Manner::Well]).await;
    let (report, reports) = watch::channel(None);
    let (inputs, mut received) = mpsc::channel(1);
    tokio::spawn(leaders.send_reports(reports, inputs));
    for sequence in 1..=3 {
        let next = Report { sequence, notices: Vec::new(), ..self::report().as_ref().clone() };
        report.send_replace(Some(Arc::new(next)));
        tokio::task::yield_now().await;
    }
    let last = async {
        while let Some(Input::Answered(sequence, _)) = received.recv().await {
            if sequence == 3 {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(Duration::from_secs(5), last).await.expect("the newest is told"));
    assert!(!asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn how_a_drain_gets_on_does_not_cut_the_notice_short() {
    let (leaders, asked, _token) = leaders(&[Manner::Slow, Manner::Slow]).await;
    let (report, reports) = watch::channel(None);
    let (inputs, mut received) = mpsc::channel(1);
    tokio::spawn(leaders.send_reports(reports, inputs));
    report.send_replace(Some(self::report()));
    for sequence in 8..16 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let next = Report { sequence, ..self::report().as_ref().clone() };
        report.send_replace(Some(Arc::new(next)));
    }
    let answered = tokio::time::timeout(Duration::from_secs(10), received.recv()).await;
    assert!(matches!(answered, Ok(Some(Input::Answered(7, _)))), "{answered:?}");
    assert_eq!(asked.lock().unwrap()[0], 0);
    assert!(asked.lock().unwrap().iter().all(|leader| *leader == 0), "the first one answered");
}
