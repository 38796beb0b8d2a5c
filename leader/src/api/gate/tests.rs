use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::kept::{NO_COUNTS, PATIENCE_WITH_YES, YES_COUNTS, YES_COUNTS_ALONE};
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
    assert!(ask.await.is_err());
    let said = kept.get(key(&["t"]), Instant::now(), Lane::Routine, async { Ok(1) }).await;
    assert_eq!(said, Ok(1));
}
