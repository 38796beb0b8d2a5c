use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::kept::{MOST_KEPT, NO_COUNTS, PATIENCE_WITH_YES, YES_COUNTS, YES_COUNTS_ALONE};
use super::*;

fn account() -> AccountName {
    "drover-system/drover-agent".parse().unwrap()
}

fn identity(username: &str, facts: &[(&str, &str)]) -> Identity {
    let extra = facts.iter().map(|(fact, value)| {
        (format!("authentication.kubernetes.io/{fact}"), vec![(*value).to_owned()])
    });
    Identity { username: username.to_owned(), extra: extra.collect(), ..Identity::default() }
}

fn pod(uid: &str, node: &str, account: &str) -> Value {
    json!({
        "metadata": {"name": "agent-1", "namespace": "drover-system", "uid": uid},
        "spec": {"nodeName": node, "serviceAccountName": account},
    })
}

#[test]
fn every_claim_of_an_agents_token_is_compared() {
    let agent = "system:serviceaccount:drover-system:drover-agent";
    let bound = [("pod-name", "agent-1"), ("pod-uid", "u-1"), ("node-name", "one")];
    let claim = AgentClaim::of(&identity(agent, &bound), &account()).unwrap();
    let right = pod("u-1", "one", "drover-agent");
    assert_eq!(claim.confirm(&right, &account()), Ok("one".into()));
    for (wrong, part) in [
        (pod("u-2", "one", "drover-agent"), "another than the token's"),
        (pod("u-1", "two", "drover-agent"), "another node"),
        (pod("u-1", "one", "default"), "agents' account"),
        (json!({}), "another than the token's"),
    ] {
        let refusal = claim.confirm(&wrong, &account()).unwrap_err().to_string();
        assert!(refusal.contains(part), "{refusal}");
    }
    // A server that does not tell the node: the pod does.
    let older = AgentClaim::of(&identity(agent, &bound[..2]), &account()).unwrap();
    assert_eq!(older.confirm(&right, &account()), Ok("one".into()));
    for (who, part) in [
        (identity(agent, &[]), "not bound to a pod"),
        (identity("system:serviceaccount:other:drover-agent", &bound), "not the agents' account"),
        (identity("sandbox-admin", &bound), "not the agents' account"),
    ] {
        let refusal = AgentClaim::of(&who, &account()).unwrap_err().to_string();
        assert!(refusal.contains(part), "{refusal}");
    }
}

#[test]
fn tokens_are_read_from_one_kind_of_header() {
    let read = |value: &str| {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        bearer(&headers).map(str::to_owned)
    };
    assert_eq!(read("Bearer abc"), Some("abc".to_owned()));
    assert_eq!(read("bearer abc"), Some("abc".to_owned()));
    for none in ["Basic abc", "Bearer ", "abc"] {
        assert_eq!(read(none), None, "{none}");
    }
    assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
}

#[tokio::test]
async fn answers_count_for_a_while_and_longer_while_nobody_answers() {
    for lane in [Lane::Urgent, Lane::Routine] {
        let kept = Kept::<u8>::default();
        let asked = Arc::new(AtomicUsize::new(0));
        let ask = async |now: Instant, answer: Result<u8, Refusal>| {
            let asked = Arc::clone(&asked);
            let review = async move {
                asked.fetch_add(1, Ordering::Relaxed);
                answer
            };
            kept.get(key(&["t"]), now, lane, review).await
        };
        let down = || Err(Refusal::Unreviewed(ReviewError { reason: "down".to_owned() }));
        // An answer is of the moment when its review began, a little later than asked for.
        let (start, little) = (Instant::now(), Duration::from_secs(1));
        assert!(ask(start, down()).await.is_err());
        assert_eq!(ask(start, Ok(1)).await, Ok(1));
        assert_eq!(ask(start, Ok(2)).await, Ok(1));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert_eq!(ask(start + YES_COUNTS + little, down()).await, Ok(1));
        let late = start + YES_COUNTS_ALONE + little;
        assert!(ask(late, down()).await.is_err());
        assert_eq!(ask(late, Err(Refusal::UnknownToken)).await, Err(Refusal::UnknownToken));
        assert_eq!(ask(late, Ok(3)).await, Err(Refusal::UnknownToken));
        assert_eq!(ask(late + NO_COUNTS + little, Ok(3)).await, Ok(3));
        assert_eq!(asked.load(Ordering::Relaxed), 6);
    }
}

/// An API server that takes ten milliseconds for each review, and says how many it had at once.
#[derive(Default)]
struct Slow {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

impl Slow {
    async fn review(self: Arc<Self>) -> Result<u8, Refusal> {
        self.all.fetch_add(1, Ordering::Relaxed);
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.now.fetch_sub(1, Ordering::Relaxed);
        Ok(1)
    }
}

#[tokio::test]
async fn agents_that_come_all_at_once_are_reviewed_a_few_at_a_time_and_once_each() {
    const AGENTS: usize = 640;
    let (kept, server) = (Kept::<u8>::default(), Arc::new(Slow::default()));
    let start = Instant::now();
    let get = |agent: usize, lane| {
        let name = agent.to_string();
        kept.get(key(&[&name]), start, lane, Arc::clone(&server).review())
    };
    let reviewed = || server.all.load(Ordering::Relaxed);
    // Each reports and polls at once. Most give up before their turn comes.
    let all = futures::future::join_all((0..AGENTS).flat_map(|agent| {
        let twice = [get(agent, Lane::Routine), get(agent, Lane::Routine)];
        twice.map(|ask| tokio::time::timeout(Duration::from_millis(50), ask))
    }));
    let notice = async {
        tokio::task::yield_now().await;
        (get(AGENTS - 1, Lane::Urgent).await, reviewed())
    };
    let (answers, (said, before)) = tokio::join!(all, notice);
    assert!(answers.iter().any(Result::is_err));
    assert_eq!(said, Ok(1));
    assert!(before < AGENTS, "the notice waited for all others");
    // What nobody waited for is there all the same, when it is asked for again.
    while reviewed() <= AGENTS || server.now.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for agent in 0..AGENTS {
        assert_eq!(get(agent, Lane::Routine).await, Ok(1));
    }
    assert_eq!(reviewed(), AGENTS + 1);
    let most = server.most.load(Ordering::Relaxed);
    assert!((32..=33).contains(&most), "{most}");
}

#[tokio::test]
async fn whoever_was_let_in_waits_a_moment_for_an_api_server_that_hangs() {
    let kept = Kept::<u8>::default();
    let start = Instant::now();
    let hang = || async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Err(Refusal::UnknownToken)
    };
    let later = start + YES_COUNTS + Duration::from_secs(1);
    for lane in [Lane::Urgent, Lane::Routine] {
        for agent in 0..100 {
            let name = format!("{lane:?} {agent}");
            assert_eq!(kept.get(key(&[&name]), start, lane, async { Ok(1) }).await, Ok(1));
        }
        let again = (0..100).map(|agent| {
            let name = format!("{lane:?} {agent}");
            kept.get(key(&[&name]), later, lane, hang())
        });
        let began = Instant::now();
        assert!(futures::future::join_all(again).await.iter().all(|said| *said == Ok(1)));
        assert!(began.elapsed() < 2 * PATIENCE_WITH_YES, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_review_that_panics_shuts_nobody_out() {
    let kept = Arc::new(Kept::<u8>::default());
    let first = Arc::clone(&kept);
    let ask = tokio::spawn(async move {
        first.get(key(&["t"]), Instant::now(), Lane::Routine, async { panic!("by design") }).await
    });
    assert!(matches!(ask.await.unwrap(), Err(Refusal::Unreviewed(_))));
    let said = kept.get(key(&["t"]), Instant::now(), Lane::Routine, async { Ok(1) }).await;
    assert_eq!(said, Ok(1));
}

#[tokio::test]
async fn a_full_queue_keeps_nobody_out_who_was_let_in() {
    let kept = Kept::<u8>::default();
    let start = Instant::now();
    let later = start + YES_COUNTS + Duration::from_secs(1);
    for lane in [Lane::Urgent, Lane::Routine] {
        let known = key(&["known", &format!("{lane:?}")]);
        assert_eq!(kept.get(known, start, lane, async { Ok(1) }).await, Ok(1));
        let strangers = (0..MOST_KEPT).map(|stranger| {
            let token = key(&[&format!("{lane:?} {stranger}")]);
            let asked = kept.get(token, later, lane, std::future::pending());
            tokio::time::timeout(Duration::ZERO, asked)
        });
        futures::future::join_all(strangers).await;
        let hang = std::future::pending;
        assert_eq!(kept.get(key(&["one more"]), later, lane, hang()).await, Err(Refusal::Busy));
        assert_eq!(kept.get(known, later, lane, hang()).await, Ok(1));
    }
}

#[tokio::test]
async fn an_answer_counts_from_when_its_turn_came() {
    let kept = Kept::<u8>::default();
    let start = Instant::now();
    let turn = Duration::from_millis(200);
    let all = (0..33).map(|agent| {
        let review = async move {
            tokio::time::sleep(turn).await;
            Ok(1)
        };
        let name = format!("{agent}");
        let asked = key(&[&name]);
        kept.get(asked, start, Lane::Routine, review)
    });
    assert!(futures::future::join_all(all).await.iter().all(Result::is_ok));
    let mut counts = 0;
    for agent in 0..33 {
        let no = async { Err(Refusal::UnknownToken) };
        let now = start + YES_COUNTS + turn / 2;
        let said = kept.get(key(&[&format!("{agent}")]), now, Lane::Routine, no).await;
        counts += u8::from(said.is_ok());
    }
    assert_eq!(counts, 1, "that of the one that had to wait for another's turn");
}

#[tokio::test]
async fn news_of_a_nodes_end_waits_for_nobodys_turn() {
    drover_kubernetes::install_crypto_provider();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let silent = axum::Router::new().fallback(axum::routing::any(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<()>()
    }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, silent).into_future());
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, crate::api::tests::kubeconfig_of(&server)).unwrap();
    let client = drover_kubernetes::connect(Some(kubeconfig.as_path()), None).await.unwrap();
    let gate = Gate::guarded(client, account()).unwrap();
    let admit = |agent: u32, urgent| {
        let gate = gate.clone();
        let value = format!("Bearer token-{agent}").parse().unwrap();
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
        tokio::spawn(async move { gate.admit_agent(&headers, &"n".into(), urgent).await })
    };
    let hears_of = async |count| {
        let begun = Instant::now();
        while asked.load(Ordering::Relaxed) < count && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Nor of more.
        tokio::time::sleep(Duration::from_millis(50)).await;
        asked.load(Ordering::Relaxed)
    };
    for agent in 0..40 {
        admit(agent, false);
    }
    assert_eq!(hears_of(32).await, 32);
    admit(40, true);
    assert_eq!(hears_of(33).await, 33);
}
